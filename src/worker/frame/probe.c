/*-------------------------------------------------------------------------
 * probe.c
 *	  Which pipelines have queries, and no slot yet (probe.h).
 *
 * The launcher learns of pipelines from their slots and from sessions.  A query that begins with its stream's history
 * is committed before there is a slot, and what its session told is in shared memory: a server that crashes in between
 * knows nothing of it.  So a worker looks into each database once, when the launcher begins: at the server's start, and when
 * a standby is promoted.  There is one worker at a time, which lives for milliseconds: nobody who needs the
 * database to himself notices.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/process.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "model/extension.h"
#include "nodes/pg_list.h"
#include "postmaster/interrupt.h"
#include "source/wal/slot.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/frame/hold.h"
#include "worker/frame/loop.h"
#include "worker/frame/probe.h"
#include "worker/frame/start.h"
#include "worker/frame/workers.h"

#define BUSY_MS		500			/* between looks whether pipelines are being started still, */
#define PATIENCE_MS	5000		/* which is looked at for so long */
#define AGAIN_MS	1000		/* when a database is held, or no worker is free */

/* ---------------------------------------------------------------------
 * In the launcher
 * --------------------------------------------------------------------- */

static ScMoment began;			/* 0: not yet */
static List *todo;				/* OIDs of databases */
static BackgroundWorkerHandle *handle;	/* of the worker that looks into one; NULL: none */

/* Those that can be connected to, but for templates, whose queries nobody runs. */
static void
list_databases(void)
{
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;

	sc_begin_transaction();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!database->datallowconn || database->datistemplate)
			continue;
		old = MemoryContextSwitchTo(TopMemoryContext);
		todo = lappend_oid(todo, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	sc_commit_transaction();
}

/* False if none is free. */
static bool
start_worker(Oid database)
{
	BackgroundWorker worker;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		result;

	sc_worker_describe(&worker, "stream_ckpt_probe_main", 0);
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	strlcpy(worker.bgw_type, "stream_ckpt probe", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "stream_ckpt probe of database %u", database);
	result = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(old);
	return result;
}

/* True while there is one; it is forgotten when it has ended. */
static bool
worker_is_there(void)
{
	pid_t		pid;

	if (!handle)
		return false;
	if (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
		return true;
	pfree(handle);
	handle = NULL;
	return false;
}

long
sc_probe_look(bool busy)
{
	Oid			database;

	if (began == 0)
	{
		began = sc_moment_now();
		list_databases();
	}
	if (worker_is_there() || todo == NIL)
		return -1;
	if (busy && !sc_moment_is_past(began, PATIENCE_MS))
		return BUSY_MS;
	database = linitial_oid(todo);
	if (sc_hold_any(database) || !start_worker(database))
		return AGAIN_MS;
	todo = list_delete_first(todo);
	return -1;
}

/* ---------------------------------------------------------------------
 * In the worker
 * --------------------------------------------------------------------- */

/* The launcher starts it, as if a session had told of it just now. */
static void
ask_for(int32 pipeline_id)
{
	ScPipelineShared *pipeline = sc_shared_find_or_create(MyDatabaseId, pipeline_id);

	if (!pipeline)
	{
		ereport(LOG,
				(errmsg("no place for pipeline %d of database %u", pipeline_id, MyDatabaseId),
				 errhint("Increase \"stream_ckpt.max_pipelines\".")));
		return;
	}
	SpinLockAcquire(&pipeline->mutex);
	pipeline->requested = pipeline->catalog_changed = true;
	SpinLockRelease(&pipeline->mutex);
	sc_place_wake(pipeline, &pipeline->coordinator);
	sc_shared_wake_launcher();
}

/* Those with a slot the launcher knows; what is lost without one isn't for it to start. */
static void
look_at_pipelines(void)
{
	char	   *message;
	char	   *hint;
	ListCell   *lc;

	if (!sc_extension_is_usable())
		return;
	foreach(lc, sc_pipeline_list())
	{
		const ScPipeline *pipeline = lfirst(lc);
		int32		id = pipeline->pipeline_id;

		if (!pipeline->stopped && sc_query_list(id) != NIL && sc_slot_is_missing(id) &&
			!sc_start_is_lost(id, &message, &hint))
			ask_for(id);
	}
}

/* Its life: one look.  An error ends it; the launcher goes on with the next database. */
void
stream_ckpt_probe_main(Datum arg)
{
	sc_my_process = SC_PROCESS_LAUNCHER;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	sc_begin_transaction();
	look_at_pipelines();
	sc_commit_transaction();
}
