/*-------------------------------------------------------------------------
 * pipeline.c
 *	  What a session asks of running pipelines (pipeline.h).
 *
 * Wake-ups happen after commit, never before: whoever is woken must see what
 * changed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/by_id.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "ckpt/uncounted.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "model/control.h"
#include "pgstat.h"
#include "replication/syncrep.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "worker/frame/hooks.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/shared.h"
#include "worker/frame/start.h"

/* Pipelines that the current transaction changed; in TopTransactionContext. */
static List *changed;
static bool extension_changed;

void
sc_pipeline_changed(int32 pipeline_id)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	changed = list_append_unique_int(changed, pipeline_id);
	MemoryContextSwitchTo(old);
}

void
sc_pipelines_extension_changed(void)
{
	extension_changed = true;
}

/* Lets the launcher, or the coordinator that runs, look at the catalogs again. */
static void
notify_pipeline(ScPipelineShared *pipeline)
{
	SpinLockAcquire(&pipeline->mutex);
	pipeline->requested = true;
	pipeline->catalog_changed = true;
	SpinLockRelease(&pipeline->mutex);
	sc_place_wake(pipeline, &pipeline->coordinator);
	sc_shared_wake_launcher();
}

/*
 * COMMIT PREPARED may come from any session, which knows nothing of what is to be
 * told to whom.
 */
void
sc_pipeline_refuse_prepare(void)
{
	if (changed != NIL || extension_changed)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has changed streams, continuous queries or pipelines"),
				 errhint("Use COMMIT.")));
}

/*
 * The transaction is over.  Part of the transaction callback: must not fail.
 */
void
sc_pipeline_at_transaction_end(bool committed)
{
	ListCell   *lc;

	if (sc_shared)
	{
		/* after an abort too: it may leave a slot that nobody uses */
		foreach(lc, changed)
		{
			ScPipelineShared *pipeline =
				sc_shared_find_or_create(MyDatabaseId, lfirst_int(lc));

			if (pipeline)
				notify_pipeline(pipeline);
		}
		if (committed && extension_changed)
		{
			sc_foreach_pipeline(pipeline, MyDatabaseId)
				notify_pipeline(pipeline);
		}
	}
	changed = NIL;				/* freed with the transaction */
	extension_changed = false;
}

/* Raises the error of a pipeline that doesn't run and won't by itself. */
static void
check_can_run(ScPipelineShared *pipeline, const char *name)
{
	ScStatus	status;
	char		message[sizeof(pipeline->message)];
	char		hint[sizeof(pipeline->hint)];

	SpinLockAcquire(&pipeline->mutex);
	status = pipeline->requested ? SC_STATUS_STARTING : pipeline->status;
	strlcpy(message, pipeline->message, sizeof(message));
	strlcpy(hint, pipeline->hint, sizeof(hint));
	SpinLockRelease(&pipeline->mutex);
	if (status == SC_STATUS_STARTING || status == SC_STATUS_RUNNING ||
		status == SC_STATUS_RESTARTING)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("pipeline \"%s\" is %s", name, sc_status_name(status)),
			 message[0] ? errdetail("%s.", message) : 0,
			 hint[0] ? errhint("%s", hint) : 0));
}

/* Does a commit wait for a synchronous standby?  Its rows are in the WAL, and nobody sees them yet. */
static bool
commits_wait_for_standby(void)
{
	bool		found = false;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	for (uint32 i = 0; i < ProcGlobal->allProcCount && !found; i++)
		found = ProcGlobal->allProcs[i].pid != 0 &&
			ProcGlobal->allProcs[i].syncRepState == SYNC_REP_WAITING;
	LWLockRelease(SyncRepLock);
	return found;
}

/*
 * Always raises an error, with what the status says.  Ends the wait on the pipeline's condition
 * variable first.  What an error of a worker said is only for who may see anybody's data.
 */
static void
raise_timeout(ScPipelineShared *pipeline, const char *name, const char *what)
{
	char		message[sizeof(pipeline->message)];
	ScStatus	status;
	const char *problem;
	const char *hint = "See the view stream_ckpt.pipelines; a larger timeout may do.";

	ConditionVariableCancelSleep();
	SpinLockAcquire(&pipeline->mutex);
	status = pipeline->status;
	strlcpy(message, pipeline->message, sizeof(message));
	SpinLockRelease(&pipeline->mutex);
	/* it can hold data of anybody's query */
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) &&
		!sc_owns_database(MyDatabaseId))
		message[0] = '\0';
	if (status != SC_STATUS_RUNNING && sc_server_problem(&problem, &hint))
		strlcpy(message, problem, sizeof(message));
	if (status == SC_STATUS_RUNNING && commits_wait_for_standby())
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("%s of pipeline \"%s\" timed out", what, name),
				 errdetail("A commit waits for a synchronous standby: its rows are in the WAL, and a checkpoint waits until they are visible."),
				 errhint("See pg_stat_replication and \"synchronous_standby_names\".")));
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("%s of pipeline \"%s\" timed out", what, name),
			 message[0] ? errdetail("The pipeline is %s: %s.", sc_status_name(status), message) :
			 errdetail("The pipeline is %s.", sc_status_name(status)),
			 errhint("%s", hint)));
}

/* Sleeps until something changes; false at the deadline. */
static bool
wait_for_change(ScPipelineShared *pipeline, ScMoment deadline)
{
	long		timeout = sc_moment_wait_ms(deadline);

	if (timeout == 0)
		return false;
	(void) ConditionVariableTimedSleep(&pipeline->cv, Min(1000, timeout), PG_WAIT_EXTENSION);
	return true;
}

/*
 * The pipeline's entry, made if there is none; never NULL.  Fails if the server can't run pipelines,
 * or has no place for this one.  It needn't run yet.
 */
static ScPipelineShared *
running_pipeline(int32 pipeline_id, const char *name)
{
	ScPipelineShared *pipeline = sc_shared_find_or_create(MyDatabaseId, pipeline_id);
	const char *problem;
	const char *hint;

	if (!sc_shared && sc_server_problem(&problem, &hint))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", problem),
				 errhint("%s", hint)));
	if (!pipeline)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no place for pipeline \"%s\"", name),
				 errhint("Increase \"stream_ckpt.max_pipelines\".")));
	/* nobody may have looked at it yet: a copied or restored database */
	if (pipeline->status == SC_STATUS_STARTING)
		sc_shared_wake_launcher();
	return pipeline;
}

int64
sc_pipeline_checkpoint(int32 pipeline_id, const char *name, int64 timeout_us)
{
	ScPipelineShared *pipeline = running_pipeline(pipeline_id, name);
	ScMoment	deadline = sc_moment_after(sc_moment_now(), timeout_us);
	uint64		request;

	SpinLockAcquire(&pipeline->mutex);
	request = ++pipeline->checkpoints_requested;
	SpinLockRelease(&pipeline->mutex);
	sc_place_wake(pipeline, &pipeline->coordinator);

	ConditionVariablePrepareToSleep(&pipeline->cv);
	for (;;)
	{
		uint64		done;

		SpinLockAcquire(&pipeline->mutex);
		done = pipeline->checkpoints_done;
		SpinLockRelease(&pipeline->mutex);
		if (done >= request)
			break;
		check_can_run(pipeline, name);
		if (!wait_for_change(pipeline, deadline))
			raise_timeout(pipeline, name, "the checkpoint");
	}
	ConditionVariableCancelSleep();
	return pg_atomic_read_u64(&pipeline->committed);
}

/* Returns when the pipeline has committed all up to "marker" of the queries that it runs; fails as sync_pipeline. */
static void
sync_running(ScPipeline *catalog, XLogRecPtr marker, ScMoment deadline)
{
	ScPipelineShared *pipeline = running_pipeline(catalog->pipeline_id, catalog->name);

	SpinLockAcquire(&pipeline->mutex);
	if (pipeline->sync_lsn < marker)
		pipeline->sync_lsn = marker;
	SpinLockRelease(&pipeline->mutex);
	sc_place_wake(pipeline, &pipeline->reader);
	/* the reader may have passed the marker already */
	sc_place_wake(pipeline, &pipeline->coordinator);

	ConditionVariablePrepareToSleep(&pipeline->cv);
	for (;;)
	{
		XLogRecPtr	committed;

		SpinLockAcquire(&pipeline->mutex);
		committed = pipeline->committed_lsn;
		SpinLockRelease(&pipeline->mutex);
		if (committed >= marker)
			break;
		check_can_run(pipeline, catalog->name);
		if (!wait_for_change(pipeline, deadline))
			raise_timeout(pipeline, catalog->name, "sync()");
	}
	ConditionVariableCancelSleep();
}

/* A query whose history isn't in its results yet, or NULL.  One that is paused or has failed doesn't count. */
static const ScQuery *
find_new(int32 pipeline_id)
{
	ListCell   *lc;

	foreach(lc, sc_new_queries(pipeline_id))
	{
		if (sc_new_query_runs(lfirst(lc)))
			return lfirst(lc);
	}
	return NULL;
}

/* Always raises an error. */
static void
raise_new(const ScQuery *query)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("sync() timed out while query \"%s\" begins with the rows of \"%s\"",
					get_rel_name(query->relid), get_rel_name(query->stream_relid)),
			 errhint("See the view stream_ckpt.queries; a larger timeout may do.")));
}

/*
 * Returns when the pipeline has committed all up to "marker", with the history of queries that begin with one; fails at
 * the deadline, and if it can't run.
 */
static void
sync_pipeline(ScPipeline *catalog, XLogRecPtr marker, ScMoment deadline)
{
	ScPipelineShared *pipeline = running_pipeline(catalog->pipeline_id, catalog->name);
	const ScQuery *new;

	while ((new = find_new(catalog->pipeline_id)) != NULL)
	{
		check_can_run(pipeline, catalog->name);
		if (!wait_for_change(pipeline, deadline))
			raise_new(new);
	}
	ConditionVariableCancelSleep();
	sync_running(catalog, marker, deadline);
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
		if (failure && failure->status == SC_FAILURE_LOST)
			ereport(WARNING,
					(errmsg("query \"%s\" is lost: rows are missing from its result",
							get_rel_name(query->relid)),
					 errhint("Call stream_ckpt.resume_query(query, accept_gap => true) to go on without the rows between, or drop the query and create it again.")));
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
 * Says which of the caller's queries didn't count everything that came for them, once for each
 * checkpoint that brought it: results without these rows look complete.
 */
static void
tell_uncounted(int32 pipeline_id)
{
	ListCell   *lc;

	foreach(lc, sc_offset_list(pipeline_id))
	{
		ScOffset   *offset = lfirst(lc);
		char	   *message = sc_uncounted_message(&offset->recent);
		ScQuery    *query;

		if (message == NULL)
			continue;
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

	do
	{
		shares = sc_shared ? pg_atomic_fetch_add_u64(&sc_shared->shares, 0) : 0;
		lsn = log_marker();
		if (XLogRecPtrIsInvalid(result))
			result = lsn;
		pipelines = pipelines_with_queries();
		foreach(lc, pipelines)
			sync_pipeline(lfirst(lc), lsn, deadline);
	} while (sc_shared && pg_atomic_fetch_add_u64(&sc_shared->shares, 0) != shares);
	foreach(lc, pipelines)
	{
		warn_of_missing(((ScPipeline *) lfirst(lc))->pipeline_id, result);
		tell_uncounted(((ScPipeline *) lfirst(lc))->pipeline_id);
	}
	return result;
}

/* ---------- lost ones ---------- */

/* Without a lock: who asks at the wrong moment asks again. */
static bool
any_is_lost(void)
{
	sc_foreach_pipeline(pipeline, MyDatabaseId)
	{
		if (pipeline->status == SC_STATUS_LOST)
			return true;
	}
	return false;
}

static bool
is_lost(int32 pipeline_id)
{
	const ScPipelineShared *pipeline = sc_shared_find(MyDatabaseId, pipeline_id);
	char	   *message;
	char	   *hint;

	return pipeline ? pipeline->status == SC_STATUS_LOST :
		sc_start_is_lost(pipeline_id, &message, &hint);
}

const char *
sc_pipelines_lost(List *relids, bool thorough)
{
	ListCell   *lc;
	ListCell   *lc2;

	if (!sc_shared || (!thorough && !any_is_lost()))
		return NULL;
	foreach(lc, sc_pipeline_list())
	{
		ScPipeline *pipeline = lfirst(lc);

		if (pipeline->stopped || !is_lost(pipeline->pipeline_id))
			continue;
		foreach(lc2, sc_query_list(pipeline->pipeline_id))
		{
			if (list_member_oid(relids, ((ScQuery *) lfirst(lc2))->stream_relid))
				return pipeline->name;
		}
	}
	return NULL;
}

/* ---------- owners ---------- */

/* The database's pipelines, where there are catalogs that say so. */
static List *
readable_pipelines(void)
{
	char	   *message;
	char	   *hint;

	if (creating_extension || !sc_extension_exists() || !sc_extension_matches(&message, &hint))
		return NIL;
	return sc_pipeline_list();
}

void
sc_pipelines_refuse_to_drop(Oid role)
{
	ListCell   *lc;

	foreach(lc, readable_pipelines())
	{
		ScPipeline *pipeline = lfirst(lc);

		if (pipeline->owner == role && strcmp(pipeline->name, SC_DEFAULT_PIPELINE) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("role \"%s\" cannot be dropped because it owns pipeline \"%s\" of stream_ckpt",
							GetUserNameFromId(role, false), pipeline->name),
					 errhint("Drop the pipeline with stream_ckpt.drop_pipeline(), or give it to another role with REASSIGN OWNED.")));
	}
}

void
sc_pipelines_reassign(List *roles, Oid owner)
{
	ListCell   *lc;

	foreach(lc, readable_pipelines())
	{
		ScPipeline *pipeline = lfirst(lc);

		if (!list_member_oid(roles, pipeline->owner))
			continue;
		sc_pipeline_lock(pipeline->pipeline_id, ExclusiveLock);
		pipeline = sc_pipeline_by_id(pipeline->pipeline_id, true);
		if (!pipeline || !list_member_oid(roles, pipeline->owner))
			continue;
		pipeline->owner = owner;
		sc_pipeline_update(pipeline);
	}
}
