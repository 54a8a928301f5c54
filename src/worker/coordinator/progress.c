/*-------------------------------------------------------------------------
 * progress.c
 *	  What a coordinator knows of each query (progress.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "utils/memutils.h"
#include "worker/coordinator/progress.h"
#include "worker/frame/strikes.h"

#define RESUME_MS	60000
#define FORGET_MS	(5 * SC_RETRY_FIRST_MS)

static List *entries;			/* ScProgress *, in TopMemoryContext */
static XLogRecPtr checkpoint_lsn;	/* of the last committed checkpoint */

static ScProgress *
find(int64 query_id)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		ScProgress *entry = lfirst(lc);

		if (entry->query_id == query_id)
			return entry;
	}
	return NULL;
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
	entry->active = true;
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

	memset(entry, 0, sizeof(ScProgress));
	entry->query_id = query_id;
	entry->forget_at = sc_moment_after(sc_moment_now(), FORGET_MS * INT64CONST(1000));
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

	return entry && entry->active;
}

/* Should the query run, by what is wished and what it did? */
static bool
should_run(const ScQuery *query, const ScFailureRow *failure)
{
	return !query->paused && !(failure && (failure->status == SC_FAILURE_FAILED ||
										   failure->status == SC_FAILURE_LOST));
}

static bool
has_offset(List *offsets, int64 query_id)
{
	ListCell   *lc;

	foreach(lc, offsets)
	{
		if (((ScOffset *) lfirst(lc))->query_id == query_id)
			return true;
	}
	return false;
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
		ScFailureRow *failure = sc_failure_find(failures, offset->query_id);
		const ScQuery *query = sc_query_by_id(offset->query_id, true);
		ScProgress *entry;

		if (!query)
			continue;
		entry = sc_progress_get(offset->query_id);
		entry->owner = query->owner;
		entry->lsn = offset->lsn;
		entry->with_others = !offset->apart;
		entry->active = has_offset(offsets, offset->query_id);
		entry->failures = sc_strikes_of(offset->query_id);
		if (failure)
		{
			entry->failing = true;
			entry->lost = sc_failure_loses(failure);
			/* the attempt before may have found out that it spoils commits */
			entry->suspect = failure->status == SC_FAILURE_WAITING;
			entry->failures = Max(entry->failures, failure->failures);
			entry->failed_lsn = failure->row_lsn;
		}
	}
}

static XLogRecPtr
smallest(XLogRecPtr lsn, bool all)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		ScProgress *entry = lfirst(lc);
		bool		counts = all ? !entry->lost : entry->wanted ||
			(entry->active && entry->failures < SC_PATIENCE);

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

static inline ScMoment
earlier(ScMoment a, ScMoment b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

ScMoment
sc_progress_next_wait(void)
{
	ScMoment	result = 0;
	ListCell   *lc;

	foreach(lc, entries)
	{
		ScProgress *entry = lfirst(lc);

		result = earlier(result, earlier(entry->wait_until, entry->clear_at));
		result = earlier(result, entry->forget_at);
	}
	return result;
}

ScMoment
sc_progress_next_retry(void)
{
	ScMoment	result = 0;
	ListCell   *lc;

	foreach(lc, entries)
		result = earlier(result, ((ScProgress *) lfirst(lc))->retry_at);
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

	if (!sc_moment_is_past(entry->resumed_at, RESUME_MS))
		return;
	entry->resumed_at = now;
	entry->failures = sc_strikes_of(entry->query_id);
	entry->wait_until = now;
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
		ScFailureRow *failure = sc_failure_find(failures, query->query_id);

		if (!entry)
			continue;
		/* one that is tried again by itself has its own time */
		entry->wanted = !entry->active && should_run(query, failure) &&
			!(failure && entry->retry_at != 0);
		if (entry->active && entry->failing && entry->wait_until != 0 && !failure)
			resume_waiting(entry);
	}
}

bool
sc_progress_wants_restart(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		ScProgress *entry = lfirst(lc);

		/* what is tried again by itself has its own time */
		if (entry->wanted || (entry->is_void && entry->retry_at == 0))
			return true;
	}
	return false;
}
