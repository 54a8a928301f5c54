/*-------------------------------------------------------------------------
 * probe.c
 *	  Which pipelines have queries, and no slot yet (probe.h).
 *
 * The launcher learns of pipelines from their slots and from sessions.  A query that begins with its stream's history
 * is committed before there is a slot, and what its session told is in shared memory: a server that crashes in between
 * knows nothing of it.  So a worker looks into each database once, when the launcher begins: at the server's start, and when
 * a standby is promoted.  And again when somebody wishes it (sc_shared_wish_probe): who found no entry free, or an
 * extension of another version before, or looks at a copied database.  There is one worker at a time, which lives for
 * milliseconds: nobody who needs the database to himself notices.
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
#define AGAIN_MS	1000		/* when all databases are held, or no worker is free: doubles up to */
#define AGAIN_MAX_MS 60000

/* ---------------------------------------------------------------------
 * In the launcher
 * --------------------------------------------------------------------- */

static ScMoment began;			/* 0: not yet */
static List *todo;				/* OIDs of databases */
static BackgroundWorkerHandle *handle;	/* of the worker that looks into one; NULL: none */

static void
add_database(Oid database)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	todo = list_append_unique_oid(todo, database);
	MemoryContextSwitchTo(old);
}

/* Those that can be connected to. */
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

		if (database->datallowconn)
			add_database(database->oid);
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

/* What somebody has wished; if there is no room for what could be found, it stays a wish. */
static void
take_wishes(void)
{
	Oid			wishes[SC_MAX_PROBES];
	int			n;

	if (sc_shared->nprobes == 0 || !sc_shared_has_room())
		return;
	LWLockAcquire(sc_shared->lock, LW_EXCLUSIVE);
	n = sc_shared->nprobes;
	memcpy(wishes, sc_shared->probes, sizeof(wishes));
	sc_shared->nprobes = 0;
	LWLockRelease(sc_shared->lock);
	for (int i = 0; i < n; i++)
		add_database(wishes[i]);
	if (n == SC_MAX_PROBES)
		list_databases();
}

/* The first database that nobody holds, which is the list's first then; or InvalidOid. */
static Oid
next_database(void)
{
	for (int i = list_length(todo); i > 0; i--)
	{
		Oid			database = linitial_oid(todo);

		if (!sc_hold_any(database))
			return database;
		todo = list_delete_first(todo);
		add_database(database);
	}
	return InvalidOid;
}

long
sc_probe_look(bool busy)
{
	static long again = AGAIN_MS;
	Oid			database;
	long		result;

	if (began == 0)
	{
		began = sc_moment_now();
		list_databases();
	}
	take_wishes();
	if (worker_is_there() || todo == NIL)
		return -1;
	if (busy && !sc_moment_is_past(began, PATIENCE_MS))
		return BUSY_MS;
	database = next_database();
	if (OidIsValid(database) && start_worker(database))
	{
		todo = list_delete_first(todo);
		again = AGAIN_MS;
		return -1;
	}
	if (OidIsValid(database) && again == AGAIN_MS)
		ereport(LOG,
				(errmsg("no background worker is free to look for queries in database %u", database),
				 errdetail("It is tried again until one is."),
				 errhint("Increase \"max_worker_processes\".")));
	result = again;
	again = Min(again * 2, AGAIN_MAX_MS);
	return result;
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
		sc_shared_wish_probe(MyDatabaseId);
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
