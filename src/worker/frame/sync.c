/*-------------------------------------------------------------------------
 * sync.c
 *	  sync(): waits until what was committed before it is in the results (pipeline.h), of all queries or of one.
 *
 * It writes a marker into the WAL, and waits until the pipelines have committed a checkpoint that covers it.  Of all
 * queries: those that run.  One that has failed, is paused or is tried again by itself holds nobody up: a warning says what
 * is missing.  Of one query: until that is there, and if it doesn't go on by itself, that is an error.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/by_id.h"
#include "base/clock.h"
#include "catalog/pg_authid.h"
#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "ckpt/uncounted.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "model/control.h"
#include "storage/condition_variable.h"
#include "utils/acl.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "worker/frame/backfill.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/pipeline_internal.h"
#include "worker/frame/start.h"

/* Has a checkpoint made that covers "marker". */
static void
ask_for(ScPipelineShared *pipeline, XLogRecPtr marker)
{
	SpinLockAcquire(&pipeline->mutex);
	if (pipeline->sync_lsn < marker)
		pipeline->sync_lsn = marker;
	SpinLockRelease(&pipeline->mutex);
	sc_place_wake(pipeline, &pipeline->reader);
	/* the reader may have passed the marker already */
	sc_place_wake(pipeline, &pipeline->coordinator);
}

/*
 * As sc_pipeline_check_can_run, of a pipeline with queries; false: it has none any more, they have moved.  The lane
 * (coordinator/lane.h) may have got its first one just now, and not be told yet.
 */
static bool
check_can_run(ScPipelineShared *pipeline, const ScPipeline *catalog)
{
	if (pipeline->status == SC_STATUS_IDLE && sc_query_list(catalog->pipeline_id) == NIL)
		return false;
	if (!catalog->lane || pipeline->status != SC_STATUS_IDLE)
	{
		sc_pipeline_check_can_run(pipeline, catalog->name);
		return true;
	}
	SpinLockAcquire(&pipeline->mutex);
	pipeline->requested = true;
	SpinLockRelease(&pipeline->mutex);
	sc_shared_wake_launcher();
	return true;
}

/* Returns when the pipeline has committed all up to "marker" of the queries that it runs; fails if it can't run. */
static void
sync_running(ScPipeline *catalog, XLogRecPtr marker, ScMoment deadline)
{
	ScPipelineShared *pipeline = sc_pipeline_running(catalog->pipeline_id, catalog->name);

	ask_for(pipeline, marker);
	ConditionVariablePrepareToSleep(&pipeline->cv);
	for (;;)
	{
		XLogRecPtr	committed;

		SpinLockAcquire(&pipeline->mutex);
		committed = pipeline->committed_lsn;
		SpinLockRelease(&pipeline->mutex);
		if (committed >= marker || !check_can_run(pipeline, catalog))
			break;
		if (!sc_pipeline_wait_for_change(pipeline, deadline))
			sc_pipeline_raise_timeout(pipeline, catalog->name, "sync()");
	}
	ConditionVariableCancelSleep();
}

/*
 * A query whose history isn't in its results yet, or NULL; of all pipelines, by one snapshot, because it may be sent
 * from one to another.  One that is paused or has failed doesn't count, nor one that is tried again by itself: that can
 * go on for ever; nor any of a pipeline that is stopped.
 */
static const ScQuery *
find_new(void)
{
	List	   *failures = sc_failure_list();
	ListCell   *lc;

	foreach(lc, sc_query_list_all())
	{
		const ScQuery *query = lfirst(lc);
		const ScFailureRow *failure = sc_find_by_id(failures, query->query_id);

		if (!query->backfill || query->paused || sc_offset_exists(query->query_id))
			continue;
		if (failure && (failure->status != SC_FAILURE_WAITING || failure->failures >= SC_PATIENCE))
			continue;
		if (!sc_pipeline_by_id(query->pipeline_id, false)->stopped)
			return query;
	}
	return NULL;
}

/* Nothing of it begins before this transaction has ended: waiting for it would have no end. */
static void
refuse_uncommitted(const ScQuery *query)
{
	if (!sc_query_is_uncommitted(query->query_id))
		return;
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sync() cannot wait for query \"%s\" in the transaction that created or changed it",
					get_rel_name(query->relid)),
			 errdetail("It begins with the rows of \"%s\" when that is committed.", get_rel_name(query->stream_relid)),
			 errhint("Call sync() after COMMIT.")));
}

/* The slot is made when all who have written have ended, and this transaction is one of them. */
static void
refuse_own_writes(const ScQuery *query)
{
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
		!sc_backfill_progress(query->pipeline_id, query->query_id, query->stream_relid).waits_for_slot)
		return;
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("sync() cannot wait for query \"%s\" in a transaction that has written", get_rel_name(query->relid)),
			 errdetail("The pipeline's replication slot is being made, which waits for this transaction, too."),
			 errhint("Call sync() after COMMIT.")));
}

/* What a query that is new is doing, in words. */
static char *
describe_new(const ScBackfill *backfill)
{
	if (backfill->waits_for_slot)
		return psprintf("Its phase is \"%s\": that waits for every transaction that has written.", backfill->phase);
	if (!backfill->reads)
		return psprintf("Its phase is \"%s\".", backfill->phase);
	return psprintf("Its phase is \"%s\": %.1f %% of the reading is done.", backfill->phase, backfill->percent);
}

/* Always raises an error. */
static void
raise_new(const ScQuery *query)
{
	ScBackfill	backfill = sc_backfill_progress(query->pipeline_id, query->query_id, query->stream_relid);

	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("sync() timed out while query \"%s\" begins with the rows of \"%s\"",
					get_rel_name(query->relid), get_rel_name(query->stream_relid)),
			 errdetail("%s", describe_new(&backfill)),
			 errhint("%s", backfill.waits_for_slot ? SC_HINT_FIRST_SLOT :
					 "See the view stream_ckpt.queries; a larger timeout may do.")));
}

/*
 * Returns when every query has its history that begins with one; fails at the deadline, and if its pipeline can't run.
 */
static void
wait_for_new(ScMoment deadline)
{
	const ScQuery *new;

	while ((new = find_new()) != NULL)
	{
		const ScPipeline *catalog = sc_pipeline_by_id(new->pipeline_id, false);
		ScPipelineShared *pipeline = sc_pipeline_running(catalog->pipeline_id, catalog->name);

		refuse_uncommitted(new);
		refuse_own_writes(new);
		(void) check_can_run(pipeline, catalog);
		if (!sc_pipeline_wait_for_change(pipeline, deadline))
			raise_new(new);
	}
	ConditionVariableCancelSleep();
}

/*
 * Is the query's committed offset before "marker"?  A query without one has had no rows yet, which are all that
 * came before it if it begins with its stream's history.
 */
static bool
is_behind(List *offsets, const ScQuery *query, XLogRecPtr marker)
{
	const ScOffset *offset = sc_find_by_id(offsets, query->query_id);

	return offset ? offset->lsn < marker : query->backfill;
}

static void
warn_of_new(const ScQuery *query)
{
	ereport(WARNING,
			(errmsg("query \"%s\" could not begin with the rows of \"%s\" yet: they are missing from its result",
					get_rel_name(query->relid), get_rel_name(query->stream_relid)),
			 errhint("It is tried again by itself: see stream_ckpt.queries; sync(timeout, query) waits for it.")));
}

/* Says which queries' results lack rows all the same. */
static void
warn_of_missing(int32 pipeline_id, XLogRecPtr marker)
{
	List	   *failures = sc_failure_list();
	List	   *offsets = sc_offset_list(pipeline_id);
	ListCell   *lc;

	foreach(lc, sc_query_list(pipeline_id))
	{
		ScQuery    *query = lfirst(lc);
		ScFailureRow *failure = sc_find_by_id(failures, query->query_id);

		if (!is_behind(offsets, query, marker))
			continue;
		if (failure && failure->status == SC_FAILURE_RETRYING && !sc_find_by_id(offsets, query->query_id))
		{
			if (!query->paused)
				warn_of_new(query);
			continue;
		}
		if (failure && failure->status == SC_FAILURE_LOST)
			ereport(WARNING,
					(errmsg("query \"%s\" is lost: rows are missing from its result",
							get_rel_name(query->relid)),
					 errhint(SC_HINT_LOST_QUERY)));
		else if (query->paused)
			continue;
		else if (failure && failure->status != SC_FAILURE_WAITING)
			ereport(WARNING,
					(errmsg("query \"%s\" has failed: rows are missing from its result",
							get_rel_name(query->relid)),
					 errhint("See stream_ckpt.queries, and call stream_ckpt.resume_query() when the reason is gone.")));
		else
			ereport(WARNING,
					(errmsg("query \"%s\" waits: rows are missing from its result",
							get_rel_name(query->relid)),
					 errhint("See stream_ckpt.queries for what it waits for.")));
	}
}

/* What sync() told this session of a query. */
typedef struct ToldUncounted
{
	int32		query_id;		/* key */
	XLogRecPtr	lsn;			/* of the checkpoint that brought it */
} ToldUncounted;

/* Whether this session has not yet been told of a query's checkpoint; from now on it has. */
static bool
is_news(int32 query_id, XLogRecPtr lsn)
{
	static HTAB *told = NULL;
	ToldUncounted *entry;
	bool		found;

	if (told == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(int32), .entrysize = sizeof(ToldUncounted)};

		told = hash_create("stream_ckpt told by sync", 16, &control, HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(told, &query_id, HASH_ENTER, &found);
	if (found && lsn <= entry->lsn)
		return false;
	entry->lsn = lsn;
	return true;
}

/*
 * Says of the caller's query that it didn't count everything that came for it, once for each checkpoint that brought it: a
 * result without these rows looks complete.
 */
static void
tell_uncounted(const ScOffset *offset)
{
	char	   *message = sc_uncounted_message(&offset->recent);
	ScQuery    *query;

	if (message == NULL)
		return;
	query = sc_query_by_id(offset->query_id, true);
	if (query &&
		(has_privs_of_role(GetUserId(), query->owner) ||
		 has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS)) &&
		is_news(query->query_id, offset->recent_lsn))
		ereport(NOTICE,
				(errmsg("query \"%s\": %s in its last checkpoint with rows",
						get_rel_name(query->relid), message),
				 errhint("%s", sc_uncounted_hint(&offset->recent))));
}

/* The pipelines that run, or should, with queries of their own. */
static List *
pipelines_with_queries(void)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, sc_pipeline_list())
	{
		ScPipeline *pipeline = lfirst(lc);

		if (!pipeline->stopped && sc_query_list(pipeline->pipeline_id) != NIL)
			result = lappend(result, pipeline);
	}
	return result;
}

/* Fails if one of them can't: nobody has to wait for others first to hear that. */
static void
check_all_run(void)
{
	ListCell   *lc;

	foreach(lc, pipelines_with_queries())
	{
		const ScPipeline *catalog = lfirst(lc);
		ScPipelineShared *pipeline = sc_pipeline_running(catalog->pipeline_id, catalog->name);

		/* what isn't committed yet is refused with its reason */
		if (pipeline->status == SC_STATUS_LOST)
			sc_pipeline_check_can_run(pipeline, catalog->name);
	}
}

/* A place in the WAL behind all that is committed: where sync() waits for. */
static XLogRecPtr
log_marker(void)
{
	ScControl	marker = {.kind = SC_CONTROL_MARKER};

	return sc_control_log(&marker);
}

/*
 * A query that moves may be nowhere when the pipelines are looked at: not yet here, and no more there.  So if one has
 * moved meanwhile all of them are looked at again, with another marker: what a pipeline says of that, it says after it
 * has seen the query.
 */
XLogRecPtr
sc_pipelines_sync(int64 timeout_us)
{
	ScMoment	deadline = sc_moment_after(sc_moment_now(), timeout_us);
	XLogRecPtr	result = InvalidXLogRecPtr;
	XLogRecPtr	lsn;
	uint64		shares;
	List	   *pipelines;
	ListCell   *lc;
	ListCell   *lc2;

	do
	{
		shares = sc_shared ? pg_atomic_fetch_add_u64(&sc_shared->shares, 0) : 0;
		lsn = log_marker();
		if (XLogRecPtrIsInvalid(result))
			result = lsn;
		check_all_run();
		wait_for_new(deadline);
		pipelines = pipelines_with_queries();
		foreach(lc, pipelines)
			sync_running(lfirst(lc), lsn, deadline);
	} while (sc_shared && pg_atomic_fetch_add_u64(&sc_shared->shares, 0) != shares);
	foreach(lc, pipelines)
	{
		warn_of_missing(((ScPipeline *) lfirst(lc))->pipeline_id, result);
		foreach(lc2, sc_offset_list(((ScPipeline *) lfirst(lc))->pipeline_id))
			tell_uncounted(lfirst(lc2));
	}
	return result;
}

/* ---------- one query ---------- */

/* It won't be there by waiting: says why. */
static void
check_goes_on(const ScQuery *query, const ScFailureRow *failure)
{
	const char *state = NULL;
	const char *hint = "See stream_ckpt.queries, and call stream_ckpt.resume_query() when the reason is gone.";

	if (failure && failure->status == SC_FAILURE_LOST)
	{
		state = "is lost";
		hint = SC_HINT_LOST_QUERY;
	}
	else if (query->paused)
		state = "is paused";
	else if (failure && failure->status == SC_FAILURE_FAILED)
		state = "has failed";
	if (!state)
		return;
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("query \"%s\" %s: rows are missing from its result", get_rel_name(query->relid), state),
			 errhint("%s", hint)));
}

/* Always raises an error. */
static void
raise_behind(const ScQuery *query, const ScFailureRow *failure)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("sync() timed out while query \"%s\" is behind", get_rel_name(query->relid)),
			 failure ? errdetail("It has had an error, and is tried again by itself.") : 0,
			 errhint("See the view stream_ckpt.queries; a larger timeout may do.")));
}

/* As the catalogs say, which change with a checkpoint's commit. */
static bool
is_there(const ScQuery *query, const ScPipelineShared *pipeline, XLogRecPtr marker)
{
	XLogRecPtr	committed = pipeline->committed_lsn;
	const ScOffset *offset;

	pg_read_barrier();
	offset = sc_find_by_id(sc_offset_list(query->pipeline_id), query->query_id);
	/* without one it has had no rows, if it begins at its creation */
	return offset ? offset->lsn >= marker : !query->backfill && committed >= marker;
}

/* One that has no position yet has nothing to tell. */
static void
tell_about(Oid relid)
{
	const ScQuery *query = sc_query_by_relid(relid, false);
	const ScOffset *offset = sc_find_by_id(sc_offset_list(query->pipeline_id), query->query_id);

	if (offset)
		tell_uncounted(offset);
}

/*
 * The query may move to another pipeline meanwhile: where it is, and in which pipeline, is looked at each time.  A position in
 * the middle of a read is an older one: it is looked at again within a second.
 */
XLogRecPtr
sc_query_sync(Oid relid, int64 timeout_us)
{
	ScMoment	deadline = sc_moment_after(sc_moment_now(), timeout_us);
	XLogRecPtr	marker = log_marker();

	for (;;)
	{
		const ScQuery *query = sc_query_by_relid(relid, false);
		const ScFailureRow *failure = sc_find_by_id(sc_failure_list(), query->query_id);
		const ScPipeline *catalog = sc_pipeline_by_id(query->pipeline_id, false);
		ScPipelineShared *pipeline = sc_pipeline_running(catalog->pipeline_id, catalog->name);

		ask_for(pipeline, marker);
		if (is_there(query, pipeline, marker))
			break;
		check_goes_on(query, failure);
		refuse_uncommitted(query);
		refuse_own_writes(query);
		(void) check_can_run(pipeline, catalog);
		if (sc_pipeline_wait_for_change(pipeline, deadline))
			continue;
		if (query->backfill && !sc_offset_exists(query->query_id))
			raise_new(query);
		raise_behind(query, failure);
	}
	ConditionVariableCancelSleep();
	tell_about(relid);
	return marker;
}
