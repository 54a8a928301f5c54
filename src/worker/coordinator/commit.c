/*-------------------------------------------------------------------------
 * commit.c
 *	  Committing a collected checkpoint, and what follows from it.
 *
 * The coordinator's second half: coordinator.c triggers checkpoints, collect.c collects
 * the tasks' parts, checkpoint.c writes them.  Here the transaction is made and tried
 * again from the same parts until it succeeds, and the others are told.
 *
 * The rule: nothing is told before the commit, and a commit that succeeded is never
 * made again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/debug.h"
#include "base/limit.h"
#include "ckpt/pipeline_state.h"
#include "model/catalog.h"
#include "pgstat.h"
#include "sink/sink.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/standby.h"
#include "utils/memutils.h"
#include "worker/coordinator/coordinator_internal.h"
#include "worker/coordinator/lost.h"
#include "worker/coordinator/moving.h"
#include "worker/coordinator/progress.h"
#include "worker/coordinator/reports.h"
#include "worker/coordinator/handing.h"
#include "worker/frame/backfill.h"
#include "worker/frame/loop.h"
#include "worker/frame/strikes.h"
#include "worker/frame/workers.h"

#define STANDBY_SNAPSHOT_MS 1000

typedef enum CommitResult
{
	COMMITTED,
	WITHOUT_ONE,				/* to be tried at once: another set of queries is written then */
	NOT_NOW						/* may succeed another time */
} CommitResult;

static ScMoment last_standby_snapshot;
static XLogRecPtr last_standby_lsn;

/* What each task took; in the current memory context. */
static ScCheckpointTask *
task_records(const ScPendingCheckpoint *pending)
{
	ScCheckpointTask *tasks = palloc(sizeof(ScCheckpointTask) * pending->nqueues);

	for (int i = 0; i < pending->nqueues; i++)
	{
		const ScTaskPart *part = &pending->parts[i];

		tasks[i].start_delay_us = part->barrier_at - sc_my_pipeline->triggered;
		tasks[i].sync_us = part->sync_us;
		tasks[i].async_us = Max(part->async_us - part->sync_us, 0);
		tasks[i].bytes = part->bytes;
	}
	return tasks;
}

/* All but what writing finds out: the bytes of chunks, the rows. */
static void
fill_record(ScCheckpointRecord *record, const ScPendingCheckpoint *pending, const char *kind)
{
	record->pipeline_id = sc_my_pipeline->pipeline_id;
	record->checkpoint_id = pending->checkpoint_id;
	record->attempt = pending->attempt;
	record->kind = kind;
	record->triggered_at = pending->triggered_at;
	record->barrier_us = pending->barrier_at - sc_my_pipeline->triggered;
	record->sync_us = pending->sync_us;
	record->async_us = sc_moment_now() - pending->barrier_at;
	record->lsn = pending->lsn;
	record->rows_in = pending->rows_in;
	record->full_bytes = pending->full_bytes;
	record->ntasks = pending->nqueues;
	record->tasks = task_records(pending);
}

/*
 * After an error: is the checkpoint committed all the same?  Ends the process where another
 * attempt has begun, or the extension is gone.
 */
static bool
is_committed(const ScCheckpointRecord *record)
{
	ScPipelineState state = {0};

	sc_begin_transaction();
	if (sc_extension_exists())
		state = sc_pipeline_state_read(record->pipeline_id);
	sc_commit_transaction();
	if (state.attempt != record->attempt)
		proc_exit(1);
	return state.checkpoint_id == record->checkpoint_id;
}

/* The checkpoint's failure, for the views. */
static void
note_failed_commit(ScCheckpointRecord *record, const ErrorData *error)
{
	sc_status_set(sc_my_pipeline, SC_STATUS_RUNNING,
				  psprintf("checkpoint " INT64_FORMAT " failed and is tried again: %s",
						   record->checkpoint_id, error->message), error->hint);
	sc_begin_transaction();
	sc_history_failed(record, error->message);
	sc_commit_transaction();
}

/*
 * One try, in a transaction of its own.  After an error the catalogs say whether it is committed all the
 * same.  WITHOUT_ONE: the query that spoiled the commit will be left out, so it can be tried at once.
 */
static CommitResult
try_commit(ScPendingCheckpoint *pending, ScCheckpointRecord *record)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool written = false;
	volatile CommitResult result = COMMITTED;

	PG_TRY();
	{
		SC_DEBUG_POINT("coordinator_before_write");
		sc_begin_transaction();
		sc_checkpoint_write(pending, record);
		SC_DEBUG_POINT("coordinator_before_commit");
		written = true;
		/* what code of owners left for the commit has a time limit, too */
		sc_limit_begin_all(sc_checkpoint_user_code(pending));
		sc_commit_transaction();
		sc_limit_end();
		sc_own_rows_end();
	}
	PG_CATCH();
	{
		ErrorData  *error = sc_take_query_error(context);

		AbortOutOfAnyTransaction();
		sc_own_rows_end();
		if (is_committed(record))
			result = COMMITTED;
		else if (written && sc_checkpoint_blame(pending, error))
			result = WITHOUT_ONE;
		else
		{
			note_failed_commit(record, error);
			result = NOT_NOW;
		}
		FreeErrorData(error);
	}
	PG_END_TRY();
	return result;
}

/* Waits, with an eye on the others. */
static void
wait_for(long ms)
{
	ScMoment	until = sc_moment_after(sc_moment_now(), ms * INT64CONST(1000));

	while ((ms = sc_moment_wait_ms(until)) > 0)
		sc_coordinator_wait(ms);
}

/* Where the query is by a checkpoint at this LSN. */
static void
note_position(ScProgress *progress, const ScCollectedQuery *collected, XLogRecPtr checkpoint_lsn)
{
	if (!sc_outcome_is_written(collected->outcome))
	{
		/* one that has no place yet begins anew: it holds nothing meanwhile */
		if (progress->is_new && !sc_outcome_keeps_part(collected->outcome))
		{
			progress->lsn = InvalidXLogRecPtr;
			sc_backfill_remove(sc_my_pipeline, progress->query_id);
		}
		else if (XLogRecPtrIsInvalid(progress->lsn))
			progress->lsn = collected->first.lsn;
	}
	else if (progress->placed)
	{
		progress->lsn = collected->lsn;
		progress->is_new = false;
		progress->with_others = collected->outcome != SC_OUTCOME_PAUSED &&
			collected->lsn == checkpoint_lsn;
	}
}

/* What is known of its failures, and of its owner's code. */
static void
note_failures(ScProgress *progress, const ScCollectedQuery *collected)
{
	if (sc_outcome_is_written(collected->outcome) && collected->has_rows)
		progress->suspect = false;
	if (collected->outcome == SC_OUTCOME_RECOVERED)
	{
		progress->failures = sc_strikes_of(collected->query_id);
		progress->failed_lsn = InvalidXLogRecPtr;
	}
	if (!collected->why)
		return;
	progress->failures++;
	/* one whose part is kept goes on from there */
	if (sc_outcome_keeps_part(collected->outcome))
		return;
	progress->failed_lsn = collected->why->row_lsn;
	progress->locked = collected->why->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

/*
 * The query is another pipeline's.  Flushed now: it may have been the last one here, and this pipeline's slot goes then.
 * And before committed_lsn says that the rest is as far as that.
 */
static void
note_moved(int64 query_id)
{
	XLogFlush(XactLastCommitEnd);
	SC_DEBUG_POINT("move_committed");
	sc_moving_gone(query_id);
	pg_atomic_fetch_add_u64(&sc_shared->shares, 1);
	sc_my_pipeline->catalog_changed = true;
}

/* What became of one query, now that it is committed. */
static void
note_outcome(const ScCollectedQuery *collected, XLogRecPtr checkpoint_lsn)
{
	ScProgress *progress = sc_progress_get(collected->query_id);
	int			failures = progress->failures;

	if (collected->outcome == SC_OUTCOME_FORGOTTEN || collected->outcome == SC_OUTCOME_REMAINS ||
		collected->outcome == SC_OUTCOME_MOVED)
	{
		sc_sink_forget(collected->query_id);
		sc_reports_forget(collected->query_id);
		if (collected->outcome == SC_OUTCOME_REMAINS)
			sc_progress_forget_later(collected->query_id);
		else
			sc_progress_forget(collected->query_id);
		if (collected->outcome == SC_OUTCOME_MOVED)
			note_moved(collected->query_id);
		return;
	}
	if (collected->why && collected->why->sqlerrcode == ERRCODE_QUERY_CANCELED)
		sc_strikes_add(collected->query_id);
	if (collected->outcome != SC_OUTCOME_VOID)
		note_position(progress, collected, checkpoint_lsn);
	note_failures(progress, collected);
	sc_query_after_checkpoint(collected->query_id, &progress->life, collected->outcome, failures);
	if (sc_reports_ended(collected->query_id))
		sc_query_task_ended(&progress->life);
	/* it may have been resumed already */
	if (progress->life.state == SC_QUERY_PAUSED)
		sc_my_pipeline->catalog_changed = true;
}

/*
 * A slot's restart position moves with these records only.  Each makes the reader write its
 * slot and a snapshot to disk, so there is one for a segment of WAL; the server's own
 * background writer does the rest, each 15 s.
 */
static void
log_standby_snapshot(const ScCheckpointRecord *record)
{
	if (record->lsn < last_standby_lsn + wal_segment_size ||
		!sc_moment_is_past(last_standby_snapshot, STANDBY_SNAPSHOT_MS))
		return;
	(void) LogStandbySnapshot();
	last_standby_snapshot = sc_moment_now();
	last_standby_lsn = record->lsn;
}

/*
 * Requests for a checkpoint up to the one with number "requests" are served by what is committed: they are done when
 * a large part of that is, too.  Those that came first have their turn first, others share one.  Returns up to which
 * one all are done.
 */
static uint64
requests_done(uint64 requests, XLogRecPtr lsn)
{
	static struct
	{
		uint64		requests;
		XLogRecPtr	lsn;
	}			first, others;	/* "requests" 0: none */
	uint64		done = sc_my_pipeline->checkpoints_done;

	if (requests > Max(done, Max(first.requests, others.requests)))
	{
		others.requests = requests;
		others.lsn = lsn;
	}
	for (;;)
	{
		if (first.requests == 0)
		{
			first = others;
			others.requests = 0;
		}
		if (first.requests == 0 || sc_progress_is_behind(first.lsn))
			return done;
		done = first.requests;
		first.requests = 0;
	}
}

/* Tells everybody that the checkpoint is committed. */
static void
publish_commit(const ScPendingCheckpoint *pending, const ScCheckpointRecord *record, uint64 requests)
{
	XLogRecPtr	commit_end = XactLastCommitEnd;
	uint64		done;
	ListCell   *lc;

	SC_DEBUG_POINT("coordinator_after_commit");
	sc_checkpoint_committed(pending);
	foreach(lc, pending->queries)
		note_outcome(lfirst(lc), record->lsn);
	sc_progress_advance(record->lsn);
	sc_lost_committed();
	/* who resumed a query before he called sync() waits for it; the rest can wait */
	if (sc_my_pipeline->catalog_changed)
	{
		sc_begin_transaction();
		if (sc_extension_exists())
			sc_coordinator_review();
		sc_commit_transaction();
	}
	done = requests_done(requests, record->lsn);
	if (done > sc_my_pipeline->checkpoints_done)
		XLogFlush(commit_end);
	if (sc_my_pipeline->message[0] != '\0')
		sc_status_set(sc_my_pipeline, SC_STATUS_RUNNING, NULL, NULL);
	SpinLockAcquire(&sc_my_pipeline->mutex);
	sc_my_pipeline->checkpoint_lsn = record->lsn;
	sc_my_pipeline->committed_lsn = sc_progress_committed(record->lsn);
	sc_my_pipeline->confirm_lsn = sc_progress_held(record->lsn);
	sc_my_pipeline->commit_end = commit_end;
	sc_my_pipeline->checkpoints_done = done;
	sc_my_pipeline->triggered_at = 0;
	sc_my_pipeline->failures = 0;
	SpinLockRelease(&sc_my_pipeline->mutex);
	pg_atomic_write_u64(&sc_my_pipeline->committed, record->checkpoint_id);
	sc_place_wake(sc_my_pipeline, &sc_my_pipeline->reader);
	/* other pipelines may read the result, or what its triggers write */
	if (record->result_rows > 0)
		sc_shared_wake_readers();
	ConditionVariableBroadcast(&sc_my_pipeline->cv);
	SC_DEBUG_POINT("coordinator_after_ack");

	log_standby_snapshot(record);
	pgstat_report_stat(false);
}

void
sc_commit_checkpoint(ScPendingCheckpoint *pending, const char *kind, uint64 requests)
{
	ScCheckpointRecord record = {0};
	CommitResult result;
	int			failures = 0;

	SC_DEBUG_POINT("coordinator_parts_collected");
	if (sc_my_pipeline->lane)
		SC_DEBUG_POINT("lane_parts_collected");
	sc_worker_context.checkpoint_id = pending->checkpoint_id;
	sc_worker_context.lsn = pending->lsn;
	fill_record(&record, pending, kind);

	/* rows were decoded before their transactions were visible to others */
	for (int i = 0; i < pending->nxids; i++)
		sc_wait_until_visible(pending->xids[i], sc_coordinator_wait);
	while ((result = try_commit(pending, &record)) != COMMITTED)
	{
		if (result == NOT_NOW)
			wait_for(sc_retry_ms(failures++));
	}
	publish_commit(pending, &record, requests);
	pfree(record.tasks);
	sc_collect_reset(pending);
	sc_writer_hand(pending);
	sc_worker_context.checkpoint_id = 0;
	/* a wait in between may have swallowed what woke us for something else */
	SetLatch(MyLatch);
}
