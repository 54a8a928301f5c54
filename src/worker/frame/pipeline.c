/*-------------------------------------------------------------------------
 * pipeline.c
 *	  What a session asks of running pipelines (pipeline.h); sync() is in sync.c.
 *
 * Wake-ups happen after commit, never before: whoever is woken must see what
 * changed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "pgstat.h"
#include "replication/syncrep.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "worker/frame/hooks.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/pipeline_internal.h"
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
			else
				sc_shared_wish_probe(MyDatabaseId);
		}
		if (committed && extension_changed)
		{
			sc_foreach_pipeline(pipeline, MyDatabaseId)
				notify_pipeline(pipeline);
			sc_shared_wish_probe(MyDatabaseId);
		}
	}
	changed = NIL;				/* freed with the transaction */
	extension_changed = false;
}

void
sc_pipeline_check_can_run(ScPipelineShared *pipeline, const char *name)
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

void
sc_pipeline_raise_timeout(ScPipelineShared *pipeline, const char *name, const char *what)
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

bool
sc_pipeline_wait_for_change(ScPipelineShared *pipeline, ScMoment deadline)
{
	long		timeout = sc_moment_wait_ms(deadline);

	if (timeout == 0)
		return false;
	(void) ConditionVariableTimedSleep(&pipeline->cv, Min(1000, timeout), PG_WAIT_EXTENSION);
	return true;
}

ScPipelineShared *
sc_pipeline_running(int32 pipeline_id, const char *name)
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
	ScPipelineShared *pipeline = sc_pipeline_running(pipeline_id, name);
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
		sc_pipeline_check_can_run(pipeline, name);
		if (!sc_pipeline_wait_for_change(pipeline, deadline))
			sc_pipeline_raise_timeout(pipeline, name, "the checkpoint");
	}
	ConditionVariableCancelSleep();
	return pg_atomic_read_u64(&pipeline->committed);
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

	if (sc_extension_in_script() || !sc_extension_is_usable())
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

		if (pipeline->owner == role && strcmp(pipeline->name, SC_DEFAULT_PIPELINE) != 0 && !pipeline->lane)
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
