/*-------------------------------------------------------------------------
 * lane.c
 *	  Queries that begin with a history while others run (lane.h).
 *
 * While a history is read, its pipeline decodes nothing and has no checkpoints.  So if a pipeline has other queries
 * that run, its coordinator sends one that is new to the lane: a pipeline as any other, one per database, that nobody
 * names. There it begins with its history, catches up, and comes back as a query that moves does (moving.h): in the
 * catalogs it is a query of the lane that is to move here, from the moment on in which it is sent.
 *
 *	  sent     one transaction: a slot for the lane if it has none, then the query's row: pipeline_id is the lane's, and
 *			   target_id ours
 *	  there    whatever happens to a query that is new (reader/history.c), and then to one that moves
 *	  empty    the lane is idle as any pipeline is, and its slot is dropped
 *
 * The slot is a copy of ours, which is there at once: making one would wait for every transaction that has written.
 * Its position is where our reader is.  That is as good as any: the history's snapshot is taken later.
 *
 * A crash.  Before the commit, or if that is lost: the query is ours still, and new; a slot that nobody uses is dropped
 * by the lane's coordinator, which whoever finds the slot starts.  After it: it is the lane's, and begins there.  It
 * never runs in two places: our attempt has never had it, and the lane begins it when it reads the row.
 *
 * Taken back: a query of ours that is still new, when the lane hasn't run for a while.  The same transaction counts an
 * attempt of the lane, so whatever still runs there can't commit a part of it.
 *
 * A small table is read here: any query begins with an attempt, at which others wait for a moment.
 *
 * The rules.  Nobody is waited for: what somebody holds is tried again.  And if the lane can't run, for lack of
 * workers, of a slot or of a place, the query begins here, as the only one would.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "base/by_id.h"
#include "base/debug.h"
#include "base/settings.h"
#include "base/subtransaction.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "source/wal/slot.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "worker/coordinator/lane.h"
#include "worker/coordinator/moving.h"
#include "worker/coordinator/progress.h"
#include "worker/frame/loop.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/start.h"

#define LANE_NAME		"backfill"
/* A lane that hasn't been there for so long won't come; how often that is looked at */
#ifdef SC_DEBUG
#define GONE_MS			3000
#else
#define GONE_MS			30000
#endif
#define LOOK_MS			1000
/* How long a new query of the lane waits at most until others have left it */
#define LEAVING_MS		60000

static int32 lent_to;			/* the lane, while it has queries of ours that are new; else 0 */
static ScMoment lane_seen;		/* when it ran last, as far as we know */
static bool taken_back;			/* what is new begins here */

/* ---------------------------------------------------------------------
 * Which, and whether
 * --------------------------------------------------------------------- */

/*
 * Is it to begin with a history, and hasn't begun?  What replaces another query does so beside that one (replacing.h).
 */
static bool
is_to_begin(const ScQuery *query)
{
	return query->backfill && query->replaces == 0 && !sc_offset_exists(query->query_id) &&
		sc_new_query_runs(query) && !sc_find_by_id(sc_progress_list(), query->query_id);
}

/* Has the table more blocks than are read at once, with all of its parts?  Of one that somebody has locked, who knows? */
static bool
is_large(Oid relid)
{
	int64		blocks = 0;
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Relation	relation;

		if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			return true;
		relation = try_relation_open(lfirst_oid(lc), NoLock);
		if (relation && RELKIND_HAS_TABLE_AM(relation->rd_rel->relkind))
			blocks += RelationGetNumberOfBlocks(relation);
		if (relation)
			relation_close(relation, NoLock);
		UnlockRelationOid(lfirst_oid(lc), AccessShareLock);
	}
	return blocks > SC_LANE_BLOCKS;
}

/* Is there a query here that would have to wait? */
static bool
others_run(void)
{
	List	   *failures = sc_failure_list();
	ListCell   *lc;

	foreach(lc, sc_query_list(sc_my_pipeline->pipeline_id))
	{
		const ScQuery *query = lfirst(lc);

		if (!query->paused && !sc_failure_stops(sc_find_by_id(failures, query->query_id)) && !is_to_begin(query))
			return true;
	}
	return false;
}

static const ScPipeline *
find_lane(void)
{
	ListCell   *lc;

	foreach(lc, sc_pipeline_list())
	{
		if (((const ScPipeline *) lfirst(lc))->lane)
			return lfirst(lc);
	}
	return NULL;
}

/* Are there workers for a lane with so many tasks, beside our own?  One that runs has some of them. */
static bool
has_workers(const ScPipelineShared *lane, int ntasks, int lane_tasks)
{
	if (lane)
		lane_tasks = Max(lane_tasks, lane->ntasks);
	return sc_shared_workers(sc_my_pipeline, lane) + 2 + ntasks + 2 + lane_tasks <= max_worker_processes;
}

/* Could the lane run, as far as can be known? */
static bool
is_possible(const ScPipeline *lane, int ntasks, int lane_tasks)
{
	const ScPipelineShared *shared = lane ? sc_shared_find(MyDatabaseId, lane->pipeline_id) : NULL;
	char	   *message;
	char	   *hint;

	if (lane && (lane->stopped || sc_start_is_lost(lane->pipeline_id, &message, &hint)))
		return false;
	if (!shared && !sc_shared_has_room())
		return false;
	if (!(lane && sc_slot_info(MyDatabaseId, lane->pipeline_id).exists) && !sc_slot_is_free())
		return false;
	/* it isn't changed for those that come to others (fit_lane) */
	if (lane && sc_query_list(lane->pipeline_id) != NIL)
		lane_tasks = lane->parallelism;
	return has_workers(shared, ntasks, lane_tasks);
}

/* ---------------------------------------------------------------------
 * The lane
 * --------------------------------------------------------------------- */

/* A name that is free. */
static char *
choose_name(void)
{
	char	   *name = LANE_NAME;

	for (int i = 2; sc_pipeline_by_name(name, true) != NULL; i++)
		name = psprintf("%s_%d", LANE_NAME, i);
	return name;
}

/* The database's lane, made if there is none; NULL: somebody else may be making it, or the like. */
static ScPipeline *
get_lane(const ScPipeline *here)
{
	ScPipeline	new = {0};

	if (find_lane() == NULL)
	{
		/* one at a time, and while nobody may be making one of its name: the unique index would wait for his commit */
		if (!ConditionalLockRelationOid(sc_relation_oid("pipeline"), ShareRowExclusiveLock))
			return NULL;
		if (find_lane() == NULL)
		{
			new.name = choose_name();
			new.owner = BOOTSTRAP_SUPERUSERID;
			new.parallelism = here->parallelism;
			new.checkpoint_interval = here->checkpoint_interval;
			new.state_backend = here->state_backend;
			new.lane = true;
			(void) sc_pipeline_insert(&new);
		}
	}
	return unconstify(ScPipeline *, find_lane());
}

/*
 * Changes the lane such that it can run these queries.  If it has others, it stays as it is, with as many tasks as it has:
 * another number would end its attempt.
 */
static void
fit_lane(ScPipeline *lane, const ScPipeline *here, int tasks)
{
	if (lane->checkpoint_interval == here->checkpoint_interval && lane->parallelism == tasks)
		return;
	lane->checkpoint_interval = here->checkpoint_interval;
	lane->parallelism = tasks;
	sc_pipeline_update(lane);
}

/*
 * Locks the lane, with its slot, for who sends queries there; a first one of it doesn't depend on where those before it
 * were, and makes it as it is to be.  Whoever writes its row has it for himself.  False: not now.
 */
static bool
prepare_lane(int32 lane_id, const ScPipeline *here, int tasks)
{
	const ScPipelineShared *shared = sc_shared_find(MyDatabaseId, lane_id);
	bool		first = sc_query_list(lane_id) == NIL;
	ScPipeline *lane;

	/* it is on its way to being idle, and writes what would be written here */
	if (first && shared && shared->coordinator.pid != 0)
		return false;
	/* also after an abort: the slot is there then, and nobody uses it */
	sc_pipeline_changed(lane_id);
	if (!sc_pipeline_lock_conditional(lane_id, first ? ExclusiveLock : ShareLock))
		return false;
	/* somebody may have had it until now */
	lane = sc_pipeline_by_id(lane_id, true);
	if (!lane || lane->stopped || first != (sc_query_list(lane_id) == NIL))
		return false;
	SC_DEBUG_POINT("lane_before_slot");
	if (!sc_slot_copy(lane_id, sc_my_pipeline->pipeline_id, pg_atomic_read_u64(&sc_my_pipeline->decoded_lsn)))
		return false;
	SC_DEBUG_POINT("lane_after_slot");
	if (first)
	{
		(void) sc_start_anew(lane_id);
		fit_lane(lane, here, tasks);
	}
	return true;
}

/* ---------------------------------------------------------------------
 * Sending
 * --------------------------------------------------------------------- */

/* Those that are to begin with much, ScQuery *; and on how many tasks one of them wants to run at most. */
static List *
queries_to_send(int *tasks)
{
	List	   *result = NIL;
	ListCell   *lc;

	*tasks = 1;
	foreach(lc, sc_query_list(sc_my_pipeline->pipeline_id))
	{
		ScQuery    *query = lfirst(lc);

		if (!is_to_begin(query) || !is_large(query->stream_relid))
			continue;
		result = lappend(result, query);
		*tasks = Max(*tasks, query->parallelism);
	}
	return result;
}

List *
sc_lane_takes(int ntasks)
{
	int			tasks;
	List	   *queries = queries_to_send(&tasks);
	bool		here = sc_my_pipeline->no_lane;

	sc_my_pipeline->no_lane = false;
	if (here || sc_my_pipeline->lane || queries == NIL || !others_run() || !is_possible(find_lane(), ntasks, tasks))
		return NIL;
	return queries;
}

/* False: somebody is changing the query. */
static bool
send_query(int64 query_id, int32 lane_id)
{
	ScQuery    *query;

	if (!sc_query_lock_conditional(query_id, ExclusiveLock))
		return false;
	query = sc_query_by_id(query_id, true);
	if (!query || query->pipeline_id != sc_my_pipeline->pipeline_id || !is_to_begin(query))
		return true;			/* it is gone, or paused */
	query->pipeline_id = lane_id;
	/* or where somebody wants it to be */
	if (query->target_id == 0)
		query->target_id = sc_my_pipeline->pipeline_id;
	query->moving = false;
	sc_query_set_pipeline(query);
	return true;
}

/* In its transaction. */
static ScLaneAnswer
send_all(int ntasks)
{
	int			tasks;
	List	   *queries = queries_to_send(&tasks);
	const ScPipeline *here = sc_pipeline_by_id(sc_my_pipeline->pipeline_id, true);
	ScPipeline *lane;
	ScLaneAnswer result = SC_LANE_SENT;
	ListCell   *lc;

	if (!here || here->lane || taken_back || queries == NIL || !others_run() || !is_possible(find_lane(), ntasks, tasks))
		return SC_LANE_NO;
	lane = get_lane(here);
	if (!lane || !prepare_lane(lane->pipeline_id, here, tasks))
		return SC_LANE_LATER;
	foreach(lc, queries)
	{
		if (!send_query(((const ScQuery *) lfirst(lc))->query_id, lane->pipeline_id))
			result = SC_LANE_LATER;
	}
	/* one that replaces another is left: that is told the next time */
	if (sc_progress_lacks_new(sc_my_pipeline->pipeline_id))
		result = SC_LANE_LATER;
	sc_lane_load();
	SC_DEBUG_POINT("lane_before_commit");
	return result;
}

ScLaneAnswer
sc_lane_send(int ntasks)
{
	ScLaneAnswer result = SC_LANE_NO;

	sc_begin_transaction();
	if (sc_extension_exists())
		result = send_all(ntasks);
	sc_commit_transaction();
	/* who waits for it looks for it there */
	pg_atomic_fetch_add_u64(&sc_shared->shares, 1);
	SC_DEBUG_POINT("lane_after_commit");
	return result;
}

/* ---------------------------------------------------------------------
 * Taking back
 * --------------------------------------------------------------------- */

/* Is it a query of ours that the lane has, and that is still new? */
static bool
is_lent(const ScQuery *query, int32 lane_id)
{
	return query->pipeline_id == lane_id && query->target_id == sc_my_pipeline->pipeline_id && query->backfill &&
		!query->paused && !sc_offset_exists(query->query_id);
}

void
sc_lane_load(void)
{
	const ScPipeline *lane = find_lane();
	ListCell   *lc;

	if (lent_to == 0)
		lane_seen = sc_moment_now();
	lent_to = 0;
	foreach(lc, lane ? sc_query_list(lane->pipeline_id) : NIL)
	{
		if (is_lent(lfirst(lc), lane->pipeline_id))
			lent_to = lane->pipeline_id;
	}
}

/* Those that nobody is changing, counted; false: none, and nothing is changed. */
static bool
take_back_step(void *arg)
{
	int		   *taken = arg;
	const ScPipelineShared *lane = sc_shared_find(MyDatabaseId, lent_to);
	ListCell   *lc;

	if (!sc_pipeline_lock_conditional(lent_to, ShareLock))
		return false;
	foreach(lc, sc_query_list(lent_to))
	{
		ScQuery    *query = lfirst(lc);

		if (!is_lent(query, lent_to) || !sc_query_lock_conditional(query->query_id, ExclusiveLock))
			continue;
		query = sc_query_by_id(query->query_id, true);
		if (!query || !is_lent(query, lent_to))
			continue;
		query->pipeline_id = sc_my_pipeline->pipeline_id;
		query->target_id = 0;
		query->moving = false;
		sc_query_set_pipeline(query);
		(*taken)++;
	}
	if (*taken == 0)
		return false;
	(void) sc_pipeline_state_begin_attempt(lent_to, false);
	/* a writer of it that is there yet may have looked at the attempt before */
	if (lane && lane->writer.pid != 0)
	{
		*taken = 0;
		return false;
	}
	sc_pipeline_changed(lent_to);
	sc_pipeline_changed(sc_my_pipeline->pipeline_id);
	SC_DEBUG_POINT("lane_taken_back");
	return true;
}

/* If the lane's row is being changed, by one that has come after all, nothing is taken. */
static void
take_back(void)
{
	ErrorData  *error;
	int			taken = 0;

	sc_begin_transaction();
	if (sc_extension_exists())
	{
		error = sc_subtransaction_try(take_back_step, &taken, sc_rethrow_transient);
		if (error)
			ereport(LOG, (errmsg("queries were not taken back from the pipeline of backfills: %s", error->message)));
		else if (taken > 0)
			taken_back = true;
	}
	sc_commit_transaction();
	pg_atomic_fetch_add_u64(&sc_shared->shares, 1);
}

long
sc_lane_look(void)
{
	const ScPipelineShared *lane = lent_to != 0 ? sc_shared_find(MyDatabaseId, lent_to) : NULL;

	if (lent_to == 0)
		return -1;
	if (lane && lane->reader.pid != 0)
		lane_seen = sc_moment_now();
	else if (sc_moment_is_past(lane_seen, GONE_MS))
	{
		lane_seen = sc_moment_now();
		take_back();
	}
	return LOOK_MS;
}

bool
sc_lane_is_left(void)
{
	static ScMoment since;

	if (!sc_moving_are_leaving())
	{
		since = 0;
		return false;
	}
	if (since == 0)
		since = sc_moment_now();
	return !sc_moment_is_past(since, LEAVING_MS);
}
