/*-------------------------------------------------------------------------
 * lost.c
 *	  Queries that hold more WAL than stream_ckpt.max_query_wal allows (lost.h).
 *
 * A query that is paused, has failed or waits stays behind the others' checkpoints, and the slot
 * with it.  What it holds is the WAL between its position and the checkpoint's.
 *
 * One that is new has nothing to lose: its first part, which waits, is given up instead, and it begins anew when it can.
 *
 * The rule: the slot passes a query's position only after a checkpoint that says it is lost. So
 * the decision is part of the checkpoint's transaction, the positions that hold the slot leave
 * the query out after the commit (progress.h), and the reader confirms what is flushed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/settings.h"
#include "ckpt/failure.h"
#include "model/catalog.h"
#include "utils/lsyscache.h"
#include "worker/coordinator/lost.h"
#include "worker/coordinator/progress.h"
#include "worker/frame/backfill.h"
#include "worker/frame/loop.h"

/* Does the query stay behind, with nobody working on it? */
static bool
stays_behind(const ScProgress *progress)
{
	/* one that is to come is another pipeline's to judge */
	if (progress->life.state == SC_QUERY_LOST || progress->life.state == SC_QUERY_INCOMING ||
		progress->placed || progress->later || (progress->with_others && !progress->left))
		return false;
	/* one that is new has a part that can't be written, or nothing that could be given up */
	if (progress->is_new && progress->life.state != SC_QUERY_WAITING)
		return false;
	return !XLogRecPtrIsInvalid(progress->lsn) &&
		(!sc_query_runs(&progress->life) ||
		 (sc_query_part_due(&progress->life) != 0 && !progress->life.with_writer));
}

/* The same as note_lost() of a query that is new, which is tried again by itself. */
static bool
note_begins_anew(const ScProgress *progress, int64 limit)
{
	ScFailure	failure = {0};

	failure.sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	failure.message = psprintf("the query's first result could not be written while it held as much WAL as \"stream_ckpt.max_query_wal\" allows (" INT64_FORMAT " MB)",
							   limit / (1024 * 1024));
	failure.detail = "It holds none now, and reads the rows of its stream again when its result can be written.";
	failure.hint = "End what locks the result table.";
	return sc_failure_set(progress->query_id, SC_FAILURE_RETRYING, progress->failures, &failure);
}

/* False: the query's row of query_failure is somebody else's, so it isn't lost yet. */
static bool
note_lost(const ScProgress *progress, XLogRecPtr lsn, int64 limit)
{
	ScFailure	failure = {0};

	failure.sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	failure.message = psprintf("the query held more WAL than \"stream_ckpt.max_query_wal\" allows (" INT64_FORMAT " MB)",
							   limit / (1024 * 1024));
	failure.detail = psprintf("It was at %X/%X, and the others at %X/%X.",
							  LSN_FORMAT_ARGS(sc_progress_lsn(progress)), LSN_FORMAT_ARGS(lsn));
	failure.hint = SC_HINT_LOST_QUERY " Increase \"stream_ckpt.max_query_wal\" to keep more.";
	return sc_failure_set(progress->query_id, SC_FAILURE_LOST, progress->failures, &failure);
}

void
sc_lost_decide(const ScCheckpointRecord *record)
{
	int64		limit = sc_query_wal_limit();
	ListCell   *lc;

	foreach(lc, sc_progress_list())
	{
		ScProgress *progress = lfirst(lc);
		XLogRecPtr	lsn = sc_progress_lsn(progress);

		progress->lost_now = limit > 0 && stays_behind(progress) && record->lsn > lsn &&
			record->lsn - lsn > (uint64) limit &&
			(progress->is_new ? note_begins_anew(progress, limit) : note_lost(progress, record->lsn, limit));
	}
}

static void
warn(int64 query_id)
{
	ScQuery    *query;

	sc_begin_transaction();
	query = sc_query_by_id(query_id, true);
	if (query)
		ereport(WARNING,
				(errmsg("query \"%s\" is lost: it held more WAL than \"stream_ckpt.max_query_wal\" allows",
						get_rel_name(query->relid)),
				 errhint(SC_HINT_LOST_QUERY)));
	sc_commit_transaction();
}

/* It holds nothing from now on, and what its tasks send is void.  The next attempt waits for the lock that it needs. */
static void
begin_anew(ScProgress *progress)
{
	sc_query_move(progress->query_id, &progress->life, SC_QUERY_RETRYING, sc_retry_at(progress->failures));
	progress->lsn = InvalidXLogRecPtr;
	progress->locked = true;
	sc_backfill_remove(sc_my_pipeline, progress->query_id);
}

void
sc_lost_committed(void)
{
	ListCell   *lc;

	foreach(lc, sc_progress_list())
	{
		ScProgress *progress = lfirst(lc);

		if (!progress->lost_now)
			continue;
		progress->lost_now = false;
		if (progress->is_new)
		{
			begin_anew(progress);
			continue;
		}
		sc_query_move(progress->query_id, &progress->life, SC_QUERY_LOST, 0);
		warn(progress->query_id);
	}
}
