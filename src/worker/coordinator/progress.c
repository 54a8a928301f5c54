/*-------------------------------------------------------------------------
 * progress.c
 *	  What a coordinator knows of each query (progress.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/by_id.h"
#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "utils/memutils.h"
#include "worker/coordinator/progress.h"
#include "worker/frame/backfill.h"
#include "worker/frame/loop.h"
#include "worker/frame/strikes.h"

#define RESUME_MS	60000
#define FORGET_MS	(5 * SC_RETRY_FIRST_MS)

static List *entries;			/* ScProgress *, in TopMemoryContext */
static XLogRecPtr checkpoint_lsn;	/* of the last committed checkpoint */

static ScProgress *
find(int64 query_id)
{
	return sc_find_by_id(entries, query_id);
}

ScProgress *
sc_progress_get(int64 query_id)
{
	ScProgress *entry = find(query_id);
	MemoryContext old;

	if (entry)
		return entry;
	old = MemoryContextSwitchTo(TopMemoryContext);
	entry = palloc0(sizeof(ScProgress));
	entry->query_id = query_id;
	sc_query_begin(&entry->life, SC_QUERY_HEALTHY);
	entry->user_code = true;	/* who knows? */
	entries = lappend(entries, entry);
	MemoryContextSwitchTo(old);
	return entry;
}

void
sc_progress_forget(int64 query_id)
{
	ScProgress *entry = find(query_id);

	if (!entry)
		return;
	entries = list_delete_ptr(entries, entry);
	pfree(entry);
}

void
sc_progress_forget_later(int64 query_id)
{
	ScProgress *entry = sc_progress_get(query_id);
	ScQueryLife life = entry->life;

	sc_query_move(query_id, &life, SC_QUERY_GONE,
				  sc_moment_after(sc_moment_now(), FORGET_MS * INT64CONST(1000)));
	memset(entry, 0, sizeof(ScProgress));
	entry->query_id = query_id;
	entry->life = life;
}

const ScProgress *
sc_progress_replacement(int64 query_id)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		const ScProgress *entry = lfirst(lc);

		if (entry->is_new && entry->replaces == query_id)
			return entry;
	}
	return NULL;
}

List *
sc_progress_list(void)
{
	return entries;
}

XLogRecPtr
sc_progress_lsn(const ScProgress *entry)
{
	return entry->with_others ? checkpoint_lsn : entry->lsn;
}

void
sc_progress_advance(XLogRecPtr lsn)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		ScProgress *entry = lfirst(lc);

		if (!entry->left)
			continue;
		entry->lsn = checkpoint_lsn;
		entry->with_others = entry->left = false;
	}
	checkpoint_lsn = lsn;
}

bool
sc_progress_is_active(int64 query_id)
{
	ScProgress *entry = find(query_id);

	return entry && sc_query_runs(&entry->life);
}

/* Should the query run, by what is wished and what it did? */
static bool
should_run(const ScQuery *query, const ScFailureRow *failure)
{
	return !query->paused && !(failure && (failure->status == SC_FAILURE_FAILED ||
										   failure->status == SC_FAILURE_LOST));
}

/* As which state an attempt begins a query. */
static ScQueryState
state_at_begin(bool runs, const ScFailureRow *failure)
{
	if (sc_failure_loses(failure))
		return SC_QUERY_LOST;
	if (sc_failure_stops(failure))
		return SC_QUERY_FAILED;
	if (!runs)
		return SC_QUERY_PAUSED;
	return failure ? SC_QUERY_RECOVERING : SC_QUERY_HEALTHY;
}

void
sc_progress_load(int32 pipeline_id, List *offsets)
{
	List	   *failures = sc_failure_list();
	ListCell   *lc;

	list_free_deep(entries);
	entries = NIL;
	checkpoint_lsn = sc_pipeline_state_read(pipeline_id).lsn;
	foreach(lc, sc_offset_list(pipeline_id))
	{
		ScOffset   *offset = lfirst(lc);
		ScFailureRow *failure = sc_find_by_id(failures, offset->query_id);
		const ScQuery *query = sc_query_by_id(offset->query_id, true);
		ScProgress *entry;

		if (!query)
			continue;
		entry = sc_progress_get(offset->query_id);
		entry->owner = query->owner;
		entry->lsn = offset->lsn;
		entry->with_others = !offset->apart;
		sc_query_begin(&entry->life, state_at_begin(sc_find_by_id(offsets, offset->query_id) != NULL, failure));
		entry->failures = sc_strikes_of(offset->query_id);
		if (failure)
		{
			/* the attempt before may have found out that it spoils commits */
			entry->suspect = failure->status == SC_FAILURE_WAITING;
			entry->failures = Max(entry->failures, failure->failures);
			entry->failed_lsn = failure->row_lsn;
		}
	}
}

void
sc_progress_load_new(const ScQuery *query, bool runs, XLogRecPtr start)
{
	const ScFailureRow *failure = sc_find_by_id(sc_failure_list(), query->query_id);
	ScProgress *entry = sc_progress_get(query->query_id);

	entry->owner = query->owner;
	entry->is_new = true;
	entry->replaces = query->replaces;
	entry->lsn = runs ? start : InvalidXLogRecPtr;
	sc_query_begin(&entry->life, state_at_begin(runs, failure));
	entry->failures = sc_strikes_of(query->query_id);
	if (failure)
	{
		entry->failures = Max(entry->failures, failure->failures);
		entry->failed_lsn = failure->row_lsn;
	}
}

/*
 * "lsn", or what is behind it of the queries that count.  With "all" those that aren't lost, because they
 * hold WAL; else those that run or are about to, because sync() waits for them.
 */
static XLogRecPtr
smallest(XLogRecPtr lsn, bool all)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		ScProgress *entry = lfirst(lc);
		bool		counts = all ? entry->life.state != SC_QUERY_LOST : entry->life.wanted ||
			(sc_query_runs(&entry->life) && entry->failures < SC_PATIENCE);

		if (counts && !XLogRecPtrIsInvalid(entry->lsn))
			lsn = Min(lsn, sc_progress_lsn(entry));
	}
	return lsn;
}

XLogRecPtr
sc_progress_committed(XLogRecPtr lsn)
{
	return smallest(lsn, false);
}

XLogRecPtr
sc_progress_held(XLogRecPtr lsn)
{
	return smallest(lsn, true);
}

bool
sc_progress_is_behind(XLogRecPtr lsn)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		const ScProgress *entry = lfirst(lc);

		if ((entry->life.with_writer || entry->later) && sc_progress_lsn(entry) < lsn)
			return true;
	}
	return false;
}

void
sc_progress_release(void)
{
	ListCell   *lc;

	foreach(lc, entries)
		sc_query_release(((ScProgress *) lfirst(lc))->query_id, &((ScProgress *) lfirst(lc))->life);
}

static inline ScMoment
earlier(ScMoment a, ScMoment b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

ScMoment
sc_progress_checkpoint_due(void)
{
	ScMoment	result = 0;
	ListCell   *lc;

	foreach(lc, entries)
	{
		const ScProgress *progress = lfirst(lc);

		/* that one waits for its tasks, whatever it waited for before */
		if (!progress->later)
			result = earlier(result, sc_query_checkpoint_due(&progress->life));
	}
	return result;
}

ScMoment
sc_progress_attempt_due(void)
{
	ScMoment	result = 0;
	ListCell   *lc;

	foreach(lc, entries)
		result = earlier(result, sc_query_attempt_due(&((ScProgress *) lfirst(lc))->life));
	return result;
}

/*
 * A query that waits was resumed: it is tried at once.  But each try may hold up everybody's
 * checkpoint for as long as a lock is waited for, so that is granted once in a while.
 */
static void
resume_waiting(ScProgress *entry)
{
	ScMoment	now = sc_moment_now();

	if (entry->life.with_writer || !sc_moment_is_past(entry->resumed_at, RESUME_MS))
		return;
	entry->resumed_at = now;
	entry->failures = sc_strikes_of(entry->query_id);
	sc_query_move(entry->query_id, &entry->life, SC_QUERY_WAITING, now);
}

void
sc_progress_review(int32 pipeline_id)
{
	List	   *failures = sc_failure_list();
	ListCell   *lc;

	foreach(lc, sc_query_list(pipeline_id))
	{
		ScQuery    *query = lfirst(lc);
		ScProgress *entry = find(query->query_id);
		ScFailureRow *failure = sc_find_by_id(failures, query->query_id);

		if (!entry)
			continue;
		sc_query_want(&entry->life, should_run(query, failure), failure != NULL);
		if (entry->life.state == SC_QUERY_WAITING && !failure)
			resume_waiting(entry);
	}
}

bool
sc_progress_wants_attempt(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		if (sc_query_wants_attempt(&((ScProgress *) lfirst(lc))->life))
			return true;
	}
	return false;
}

/* ---------- queries that are new ---------- */

bool
sc_progress_lacks_new(int32 pipeline_id)
{
	ListCell   *lc;

	foreach(lc, sc_query_list(pipeline_id))
	{
		const ScQuery *query = lfirst(lc);

		if (query->backfill && !query->paused && !find(query->query_id) && !sc_offset_exists(query->query_id))
			return true;
	}
	return false;
}

/* One whose part waits may do so for ever. */
static bool
has_history(const ScProgress *entry)
{
	return entry->is_new && sc_query_runs(&entry->life) && entry->life.state != SC_QUERY_WAITING;
}

/* Its query is gone, or paused. */
static bool
is_for_nobody(const ScProgress *entry)
{
	const ScQuery *query = sc_query_by_id(entry->query_id, true);

	return query == NULL || query->paused;
}

bool
sc_progress_has_history(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		if (has_history(lfirst(lc)))
			return true;
	}
	return false;
}

void
sc_progress_give_up_histories(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		const ScProgress *entry = lfirst(lc);

		if (has_history(entry) && is_for_nobody(entry))
			sc_backfill_remove(sc_my_pipeline, entry->query_id);
	}
}

/* False too if no history is on its way. */
bool
sc_progress_history_is_for_nobody(void)
{
	bool		any = false;
	ListCell   *lc;

	foreach(lc, entries)
	{
		const ScProgress *entry = lfirst(lc);

		if (!has_history(entry))
			continue;
		any = true;
		if (!is_for_nobody(entry))
			return false;
	}
	return any;
}
