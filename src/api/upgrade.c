/*-------------------------------------------------------------------------
 * upgrade.c
 *	  prepare_upgrade, finish_upgrade: pg_upgrade of a server with pipelines.
 *
 * pg_upgrade takes tables along as they are, and no logical slot with anything left to read, and of ours there always is.
 * So before it every query is brought to a checkpoint that has all, behind which nobody writes any more
 * (worker/frame/prepared.h), and the slots go; after it there are new ones, with nothing between.
 *
 *	 1. The streams are locked against writers; what is committed is waited for.  Results that are streams are locked when
 *	    all that others make of them is there.
 *	 2. One transaction says that the pipelines are stopped and prepared; when it commits the locks go, and writers fail.
 *	 3. Each pipeline's coordinator ends, and the next one drops its slot.  A crash before 2 leaves everything as it was;
 *	    behind it the server knows from the catalogs that there is nothing to read, and drops slots that are left.
 *	 4. finish_upgrade() makes slots, and in one transaction moves the queries there and lets writers and pipelines go on.
 *	    A crash before its commit leaves the database prepared.
 *
 * States that the new server can't read (api/gap.c) are of queries that are rebuilt, if their streams hold the rows.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/api_internal.h"
#include "api/gap.h"
#include "api/new_query.h"
#include "base/by_id.h"
#include "base/process.h"
#include "catalog/pg_inherits.h"
#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/prepared.h"

PG_FUNCTION_INFO_V1(stream_ckpt_prepare_upgrade);
PG_FUNCTION_INFO_V1(stream_ckpt_finish_upgrade);

/* It stops everybody's queries, and writers. */
static void
check_caller(const char *function)
{
	sc_refuse_in_worker(function);
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to call %s()", function)));
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s() must be called in a transaction that has not written", function)));
}

/* ---------- before ---------- */

static void
refuse_query(const ScQuery *query, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("query \"%s\" cannot be taken through an upgrade as it is", get_rel_name(query->relid)),
			 errdetail("%s", why),
			 errhint("Its next rows would be lost with the WAL. See stream_ckpt.queries: let it go on, or drop it, and call stream_ckpt.prepare_upgrade() again.")));
}

/* An error if the query doesn't have all that was committed before "marker". */
static void
check_query(const ScQuery *query, const ScOffset *offset, XLogRecPtr marker)
{
	if (query->paused)
		refuse_query(query, "It is paused.");
	if (sc_find_by_id(sc_failure_list(), query->query_id) != NULL)
		refuse_query(query, "It has failed, or is lost.");
	if (query->replaces != 0 || offset == NULL)
		refuse_query(query, "It has not begun yet.");
	if (query->target_id != 0)
		refuse_query(query, "It is to move to another pipeline.");
	if (offset->lsn < marker)
		refuse_query(query, psprintf("It is at %X/%X, and the log at %X/%X.", LSN_FORMAT_ARGS(offset->lsn), LSN_FORMAT_ARGS(marker)));
}

static void
check_pipeline(const ScPipeline *pipeline)
{
	if (pipeline->stopped)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" is stopped", pipeline->name),
				 errdetail("It may have rows to read, which would be lost with the WAL."),
				 errhint("Start it with stream_ckpt.start_pipeline(), or drop its queries.")));
}

/* Prepared transactions keep their locks, and pg_upgrade refuses them anyway. */
static void
check_prepared_transactions(void)
{
	SPI_connect();
	if (SPI_execute("SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database()",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for prepared transactions");
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there are prepared transactions"),
				 errdetail("One of them is \"%s\".", TextDatumGetCString(sc_first_value(1, NULL))),
				 errhint("Commit them or roll them back.")));
	SPI_finish();
}

/* Pipelines (ScPipeline *) with queries */
static List *
pipelines_with_queries(void)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, sc_pipeline_list())
	{
		ScPipeline *pipeline = lfirst(lc);

		if (sc_query_list(pipeline->pipeline_id) != NIL)
			result = lappend(result, pipeline);
	}
	return result;
}

/*
 * Nobody writes into streams any more until the transaction ends.  results: also into those that are results, which must
 * have come to rest.
 */
static void
lock_streams(bool results)
{
	List	   *queries = sc_query_list_all();
	ListCell   *lc;

	foreach(lc, queries)
	{
		Oid			relid = ((ScQuery *) lfirst(lc))->stream_relid;

		if (!results && sc_query_by_relid(relid, true) != NULL)
			continue;
		LockRelationOid(relid, ShareLock);
		(void) find_all_inheritors(relid, ShareLock, NULL);
	}
}

/* prepare_upgrade(timeout) */
Datum
stream_ckpt_prepare_upgrade(PG_FUNCTION_ARGS)
{
	int64		timeout = sc_arg_usecs(fcinfo, 0, "timeout");
	List	   *pipelines = pipelines_with_queries();
	XLogRecPtr	marker;
	ListCell   *lc;

	check_caller("prepare_upgrade");
	if (sc_prepared_pipelines() != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the database is prepared for pg_upgrade"),
				 errhint("Stop the server when pg_replication_slots shows no slot of plugin stream_ckpt any more. To give it up, call stream_ckpt.finish_upgrade().")));
	check_prepared_transactions();
	foreach(lc, pipelines)
		check_pipeline(lfirst(lc));
	lock_streams(false);
	(void) sc_sync_all(timeout);
	lock_streams(true);
	marker = sc_sync_all(timeout);
	/* no query begins any more, nor moves: others may have got their first one meanwhile */
	foreach(lc, sc_pipeline_list())
		sc_pipeline_lock(((ScPipeline *) lfirst(lc))->pipeline_id, ExclusiveLock);
	foreach(lc, pipelines_with_queries())
	{
		ScPipeline *pipeline = lfirst(lc);
		List	   *offsets;
		ListCell   *lc2;

		check_pipeline(pipeline);
		offsets = sc_offset_list(pipeline->pipeline_id);
		foreach(lc2, sc_query_list(pipeline->pipeline_id))
		{
			ScQuery    *query = lfirst(lc2);

			check_query(query, sc_find_by_id(offsets, query->query_id), marker);
		}
		pipeline->stopped = true;
		sc_pipeline_update(pipeline);
		sc_pipeline_state_prepare(pipeline->pipeline_id, true);
		sc_pipeline_changed(pipeline->pipeline_id);
	}
	sc_prepared_changed();
	/* slots go for good, as soon as this is visible */
	ForceSyncCommit();
	ereport(NOTICE,
			(errmsg("streams cannot be written to until stream_ckpt.finish_upgrade()"),
			 errhint("Stop the server when pg_replication_slots shows no slot of plugin stream_ckpt any more.")));
	PG_RETURN_VOID();
}

/* ---------- after ---------- */

/* finish_upgrade() */
Datum
stream_ckpt_finish_upgrade(PG_FUNCTION_ARGS)
{
	List	   *pipelines = sc_prepared_pipelines();
	List	   *stateless = NIL;
	ListCell   *lc;

	check_caller("finish_upgrade");
	/* the slots first: making them waits, with no lock held and no id */
	foreach(lc, pipelines)
		sc_gap_prepare(sc_pipeline_by_id(lfirst_int(lc), false));
	foreach(lc, pipelines)
	{
		ScPipeline *pipeline;

		sc_pipeline_lock(lfirst_int(lc), ExclusiveLock);
		/* another call may have come first */
		if (!list_member_int(sc_prepared_pipelines(), lfirst_int(lc)))
			continue;
		pipeline = sc_pipeline_by_id(lfirst_int(lc), false);
		stateless = list_concat(stateless, sc_gap_accept(pipeline, SC_GAP_OF_NOTHING));
		sc_pipeline_state_prepare(pipeline->pipeline_id, false);
		pipeline->stopped = false;
		sc_pipeline_update(pipeline);
		sc_pipeline_changed(pipeline->pipeline_id);
	}
	sc_prepared_changed();
	foreach(lc, stateless)
		sc_rebuild_stateless(lfirst(lc));
	PG_RETURN_VOID();
}
