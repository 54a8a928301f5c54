/*-------------------------------------------------------------------------
 * moving.c
 *	  Queries that move from one pipeline to another (moving.h).
 *
 * The query ends in the giver at the barrier of one of its checkpoints, M, as one that is paused does; and in the
 * transaction that writes its last part it becomes the target's, with M as its position.  For the target it is a query
 * that was resumed at M then: its next attempt begins there.  So the target's slot must not be past M.
 *
 *	  wish	   move_query(): target_id
 *	  ready	   the giver, if the query is healthy and not far behind: "moving" is set.  Committed
 *	  held	   the target keeps its slot where it is, H, and tells so in shared memory
 *	  leaving  the giver has read as far as H: the next barrier names the query, its tasks make their last parts
 *	  M		   one transaction: the last part, pipeline_id, target_id and moving.  H <= M is looked at in it
 *	  arrived  the target sees a query of its own that it doesn't run: another attempt
 *
 * The rules.  Whoever changes pipeline_id or "moving" has the query's lock; workers never wait for it.  The target lets
 * go of what it holds only when it has seen that "moving" is false, or that it has the query.  It looks at both at once,
 * by one snapshot, and before it reads its own queries.  At an attempt's beginning it holds what the slot says, not what
 * its queries say: they can be past M.
 *
 * A crash.  Before M: nothing has moved, and both begin again with what the catalogs say; nothing that was promised
 * in shared memory counts any more, because the slot itself can't have passed H.  After it: the query is the target's.
 * The commit is flushed before the giver's slot can go.  The query never runs in two places: the giver's tasks have
 * forgotten it before M is written, and the target begins it in an attempt that has read so.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/by_id.h"
#include "base/clock.h"
#include "base/debug.h"
#include "ckpt/offset.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "source/wal/slot.h"
#include "utils/memutils.h"
#include "worker/coordinator/moving.h"
#include "worker/coordinator/progress.h"
#include "worker/frame/loop.h"
#include "worker/frame/pipeline.h"

/* How long the target's slot is held in vain; after how long it is tried again; and if the lock is somebody's */
#ifdef SC_DEBUG
#define GIVE_UP_MS		10000
#define AGAIN_MS		2000
#else
#define GIVE_UP_MS		30000
#define AGAIN_MS		60000
#endif
#define LOCKED_MS		500
/* A giver that isn't there for so long has no query on its way */
#define GIVER_GONE_MS	60000

/* One that is to leave. */
typedef struct Departure
{
	int64		query_id;
	int32		target_id;
	bool		moving;			/* as the catalogs say; */
	ScMoment	since;			/* for so long */
	bool		stays;			/* another one is to take its place first, and leaves then (only in the lane) */
	ScMoment	not_before;		/* 0: now */
	bool		ready;			/* for the next barrier */
	bool		leaving;		/* a barrier has named it */
} Departure;

/* One that is to come. */
typedef struct Arrival
{
	int64		query_id;
	int32		giver_id;
	XLogRecPtr	held;
	ScMoment	giver_seen;		/* when its coordinator was there last */
} Arrival;

static List *departures;		/* Departure *, in TopMemoryContext */
static List *arrivals;			/* Arrival *, likewise */

/* ---------------------------------------------------------------------
 * The target
 * --------------------------------------------------------------------- */

List *
sc_moving_arrivals(void)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, sc_query_list_all())
	{
		ScQuery    *query = lfirst(lc);

		if (query->moving && query->target_id == sc_my_pipeline->pipeline_id)
			result = lappend(result, query);
	}
	return result;
}

static Arrival *
add_arrival(const ScQuery *query, XLogRecPtr held)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Arrival    *arrival = palloc0(sizeof(Arrival));

	arrival->query_id = query->query_id;
	arrival->giver_id = query->pipeline_id;
	arrival->held = held;
	arrival->giver_seen = sc_moment_now();
	arrivals = lappend(arrivals, arrival);
	MemoryContextSwitchTo(old);
	return arrival;
}

/* The slot is held for the query by its entry. */
static void
hold(const ScQuery *query, XLogRecPtr held)
{
	ScProgress *entry = sc_progress_get(query->query_id);

	(void) add_arrival(query, held);
	entry->owner = query->owner;
	entry->lsn = held;
	entry->with_others = false;
	sc_query_begin(&entry->life, SC_QUERY_INCOMING);
}

/* The query has come, or won't. */
static void
let_go(Arrival *arrival, List *own)
{
	ScProgress *entry = sc_progress_get(arrival->query_id);
	const ScOffset *offset = sc_find_by_id(own, arrival->query_id);

	if (entry->life.state == SC_QUERY_INCOMING && offset)
	{
		sc_query_move(arrival->query_id, &entry->life, SC_QUERY_PAUSED, 0);
		entry->lsn = offset->lsn;
		SC_DEBUG_POINT("move_arrived");
	}
	else if (entry->life.state == SC_QUERY_INCOMING)
		sc_progress_forget(arrival->query_id);
	arrivals = list_delete_ptr(arrivals, arrival);
	pfree(arrival);
}

void
sc_moving_expect(List *queries, XLogRecPtr held)
{
	List	   *own = NIL;
	ListCell   *lc;

	if (queries != NIL)
		SC_DEBUG_POINT("move_expected");
	foreach(lc, list_copy(arrivals))
	{
		Arrival    *arrival = lfirst(lc);

		if (sc_find_by_id(queries, arrival->query_id))
			continue;
		/* read behind "queries" */
		if (own == NIL)
			own = sc_offset_list(sc_my_pipeline->pipeline_id);
		let_go(arrival, own);
	}
	foreach(lc, queries)
	{
		const ScQuery *query = lfirst(lc);

		/* it may have come between the two looks */
		if (!sc_find_by_id(arrivals, query->query_id) && !sc_find_by_id(sc_progress_list(), query->query_id) &&
			list_length(arrivals) < SC_MAX_INCOMING)
			hold(query, held);
	}
}

void
sc_moving_begin(void)
{
	list_free_deep(arrivals);
	arrivals = NIL;
	sc_moving_tell();
}

void
sc_moving_tell(void)
{
	int			n = 0;
	ListCell   *lc;

	SpinLockAcquire(&sc_my_pipeline->mutex);
	memset(sc_my_pipeline->incoming, 0, sizeof(sc_my_pipeline->incoming));
	foreach(lc, arrivals)
	{
		const Arrival *arrival = lfirst(lc);

		sc_my_pipeline->incoming[n].query_id = arrival->query_id;
		sc_my_pipeline->incoming[n++].held = arrival->held;
	}
	SpinLockRelease(&sc_my_pipeline->mutex);
	if (n > 0)
		SC_DEBUG_POINT("move_held");
	foreach(lc, arrivals)
	{
		ScPipelineShared *giver = sc_shared_find(MyDatabaseId, ((Arrival *) lfirst(lc))->giver_id);

		if (giver)
			sc_place_wake(giver, &giver->coordinator);
	}
}

/* ---------------------------------------------------------------------
 * Changing "moving"
 * --------------------------------------------------------------------- */

/*
 * In a transaction of its own: the query's row says "moving" from now on, or no longer, and both pipelines are told.
 * False: its lock is somebody's, or it isn't so any more that it is to go from "giver_id" to "target_id".
 */
static bool
set_moving(int64 query_id, int32 giver_id, int32 target_id, bool moving)
{
	ScQuery    *query = NULL;
	bool		done = false;

	sc_begin_transaction();
	if (sc_extension_exists() && sc_query_lock_conditional(query_id, ExclusiveLock))
		query = sc_query_by_id(query_id, true);
	if (query && query->pipeline_id == giver_id && query->target_id == target_id && query->moving != moving &&
		!(moving && sc_query_replacement(query_id)))
	{
		query->moving = moving;
		sc_query_set_pipeline(query);
		sc_pipeline_changed(giver_id);
		sc_pipeline_changed(target_id);
		done = true;
	}
	sc_commit_transaction();
	return done;
}

/* The giver has long been gone: the slot is needed by nobody, and WAL piles up. */
static long
look_at_givers(void)
{
	ListCell   *lc;

	foreach(lc, list_copy(arrivals))
	{
		Arrival    *arrival = lfirst(lc);
		const ScPipelineShared *giver = sc_shared_find(MyDatabaseId, arrival->giver_id);

		if (giver && giver->coordinator.pid != 0)
			arrival->giver_seen = sc_moment_now();
		else if (sc_moment_is_past(arrival->giver_seen, GIVER_GONE_MS))
		{
			arrival->giver_seen = sc_moment_now();
			(void) set_moving(arrival->query_id, arrival->giver_id, sc_my_pipeline->pipeline_id, false);
		}
	}
	return arrivals == NIL ? -1 : LOCKED_MS;
}

/* ---------------------------------------------------------------------
 * The giver
 * --------------------------------------------------------------------- */

/* Takes the wish over, with what is known of it already. */
static void
load_wish(const ScQuery *query)
{
	Departure  *departure = sc_find_by_id(departures, query->query_id);
	MemoryContext old;

	if (departure && departure->target_id != query->target_id)
	{
		departures = list_delete_ptr(departures, departure);
		pfree(departure);
		departure = NULL;
	}
	if (!departure)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		departure = palloc0(sizeof(Departure));
		departure->query_id = query->query_id;
		departure->target_id = query->target_id;
		departure->since = sc_moment_now();
		departures = lappend(departures, departure);
		MemoryContextSwitchTo(old);
	}
	if (departure->moving != query->moving)
		departure->since = sc_moment_now();
	departure->moving = query->moving;
	departure->stays = sc_query_replacement(query->query_id) != NULL;
	departure->ready &= query->moving && !departure->stays;
}

void
sc_moving_load(void)
{
	List	   *queries = sc_query_list(sc_my_pipeline->pipeline_id);
	ListCell   *lc;

	foreach(lc, list_copy(departures))
	{
		Departure  *departure = lfirst(lc);
		const ScQuery *query = sc_find_by_id(queries, departure->query_id);

		if (query && query->target_id != 0)
			continue;
		departures = list_delete_ptr(departures, departure);
		pfree(departure);
	}
	foreach(lc, queries)
	{
		if (((ScQuery *) lfirst(lc))->target_id != 0)
			load_wish(lfirst(lc));
	}
}

/* What the target holds for the query; invalid: nothing. */
static XLogRecPtr
held_by(ScPipelineShared *target, int64 query_id)
{
	XLogRecPtr	held = InvalidXLogRecPtr;

	if (!target)
		return held;
	SpinLockAcquire(&target->mutex);
	for (int i = 0; i < SC_MAX_INCOMING; i++)
	{
		if (target->incoming[i].query_id == query_id)
			held = target->incoming[i].held;
	}
	SpinLockRelease(&target->mutex);
	return held;
}

/* Does the query go on as it should, so that the next part of it is one that will be written? */
static bool
is_well(int64 query_id)
{
	const ScProgress *entry = sc_find_by_id(sc_progress_list(), query_id);

	return entry && entry->life.state == SC_QUERY_HEALTHY && !entry->suspect && !entry->later && !entry->left &&
		!XLogRecPtrIsInvalid(entry->lsn);
}

/*
 * Is the giver not much behind the target?  The target goes back to where the giver is, and its own queries wait
 * meanwhile.
 */
static bool
is_near(ScPipelineShared *target)
{
	XLogRecPtr	there = target ? pg_atomic_read_u64(&target->decoded_lsn) : InvalidXLogRecPtr;
	XLogRecPtr	here = pg_atomic_read_u64(&sc_my_pipeline->decoded_lsn);

	return there <= here || there - here <= wal_segment_size;
}

/* It could go: the target is asked to hold its slot. */
static void
ask_target(Departure *departure)
{
	ScPipelineShared *target = sc_shared_find(MyDatabaseId, departure->target_id);
	ScPipeline *pipeline;
	bool		exists;

	departure->not_before = sc_moment_after(sc_moment_now(), LOCKED_MS * INT64CONST(1000));
	/* one that reads the history of a table can't begin with the query before it is through */
	if (!is_well(departure->query_id) || !is_near(target) || (target && target->history.phase != SC_HISTORY_NONE))
		return;
	sc_begin_transaction();
	pipeline = sc_extension_exists() ? sc_pipeline_by_id(departure->target_id, true) : NULL;
	exists = pipeline && !pipeline->stopped && sc_offset_exists(departure->query_id);
	sc_commit_transaction();
	if (!exists || !set_moving(departure->query_id, sc_my_pipeline->pipeline_id, departure->target_id, true))
		return;
	departure->moving = true;
	departure->since = sc_moment_now();
	departure->not_before = 0;
	SC_DEBUG_POINT("move_asked");
}

/* Does the target keep all WAL behind "lsn", and can it go on with the query? */
static bool
target_is_ready(int64 query_id, int32 target_id, XLogRecPtr lsn)
{
	XLogRecPtr	held = held_by(sc_shared_find(MyDatabaseId, target_id), query_id);
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, target_id);
	const ScPipeline *target = sc_pipeline_by_id(target_id, true);

	return target && !target->stopped && !XLogRecPtrIsInvalid(held) && held <= lsn &&
		slot.exists && !slot.foreign && slot.invalidated == RS_INVAL_NONE && slot.confirmed_flush <= lsn;
}

/*
 * Would the query go over with its last part, if that were made now?  The target can have been lost since it promised to
 * hold its slot, and the lock can be somebody's: then the query would only be paused, and the attempt end.
 */
static bool
could_go(const Departure *departure, XLogRecPtr lsn)
{
	bool		result;

	sc_begin_transaction();
	result = sc_extension_exists() && sc_query_lock_conditional(departure->query_id, ExclusiveLock) &&
		target_is_ready(departure->query_id, departure->target_id, lsn);
	sc_commit_transaction();
	return result;
}

/*
 * The target is asked: it holds its slot, or it takes too long.  So does a last part that can't be written; when it is,
 * the query is paused here, and goes on by itself.
 */
static void
wait_for_target(Departure *departure)
{
	XLogRecPtr	held = held_by(sc_shared_find(MyDatabaseId, departure->target_id), departure->query_id);
	XLogRecPtr	here = pg_atomic_read_u64(&sc_my_pipeline->decoded_lsn);

	departure->ready = !departure->leaving && !XLogRecPtrIsInvalid(held) && held <= here &&
		is_well(departure->query_id) && could_go(departure, here);
	if (departure->ready || !sc_moment_is_past(departure->since, GIVE_UP_MS))
		return;
	if (set_moving(departure->query_id, sc_my_pipeline->pipeline_id, departure->target_id, false))
	{
		departure->moving = departure->leaving = false;
		departure->not_before = sc_moment_after(sc_moment_now(), AGAIN_MS * INT64CONST(1000));
	}
}

long
sc_moving_look(void)
{
	long		timeout = look_at_givers();
	ListCell   *lc;

	foreach(lc, departures)
	{
		Departure  *departure = lfirst(lc);

		/* what is asked of the target is looked at whenever it may have answered */
		if (departure->moving && !departure->ready)
			wait_for_target(departure);
		else if (!departure->moving && !departure->stays && sc_moment_wait_ms(departure->not_before) == 0)
			ask_target(departure);
		timeout = timeout < 0 ? LOCKED_MS : Min(timeout, LOCKED_MS);
	}
	return timeout;
}

bool
sc_moving_are_leaving(void)
{
	ListCell   *lc;

	foreach(lc, departures)
	{
		const Departure *departure = lfirst(lc);
		const ScProgress *entry = sc_find_by_id(sc_progress_list(), departure->query_id);

		if (entry && !entry->is_new && !departure->stays && sc_query_runs(&entry->life))
			return true;
	}
	return false;
}

bool
sc_moving_is_ready(void)
{
	ListCell   *lc;

	foreach(lc, departures)
	{
		if (((Departure *) lfirst(lc))->ready)
			return true;
	}
	return false;
}

void
sc_moving_leave(int64 *ids)
{
	int			n = 0;
	ListCell   *lc;

	memset(ids, 0, SC_WIRE_LEFT_OUT * sizeof(int64));
	foreach(lc, departures)
	{
		Departure  *departure = lfirst(lc);

		if (!departure->ready || n == SC_WIRE_LEFT_OUT)
			continue;
		departure->ready = false;
		if (!is_well(departure->query_id))
			continue;
		ids[n++] = departure->query_id;
		departure->leaving = true;
	}
	if (n > 0)
		SC_DEBUG_POINT("move_leaving");
}

bool
sc_moving_hand_over(int64 query_id, XLogRecPtr lsn)
{
	const Departure *departure = sc_find_by_id(departures, query_id);
	ScQuery    *query;

	if (!departure || !departure->leaving || !sc_query_lock_conditional(query_id, ExclusiveLock))
		return false;
	query = sc_query_by_id(query_id, true);
	if (!query || query->pipeline_id != sc_my_pipeline->pipeline_id || query->paused || !query->moving ||
		sc_query_replacement(query_id) ||
		!target_is_ready(query_id, query->target_id, lsn))
		return false;
	query->pipeline_id = query->target_id;
	query->target_id = 0;
	query->moving = false;
	sc_query_set_pipeline(query);
	sc_pipeline_changed(query->pipeline_id);
	SC_DEBUG_POINT("move_written");
	return true;
}

void
sc_moving_gone(int64 query_id)
{
	Departure  *departure = sc_find_by_id(departures, query_id);

	departures = list_delete_ptr(departures, departure);
	pfree(departure);
}
