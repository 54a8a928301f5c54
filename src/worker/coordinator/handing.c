/*-------------------------------------------------------------------------
 * handing.c
 *	  Handing large parts to a writer, and hearing what became of them (handing.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/debug.h"
#include "base/limit.h"
#include "base/settings.h"
#include "sink/sink.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/coordinator/checkpoint_internal.h"
#include "worker/coordinator/progress.h"
#include "worker/coordinator/handing.h"
#include "worker/coordinator/writer_job.h"
#include "worker/frame/loop.h"
#include "worker/frame/workers.h"

/* If no background worker was free, none is asked for, for so long. */
#define NO_WORKER_MS	60000

static ScPart *part;			/* the writer's; NULL: there is none */
static int64 nrows;				/* result rows in it */
static bool empties;			/* and one that deletes all that the result has */
static dsm_segment *segment;
static ScWriterJob *job;
static ScMoment refused_at;		/* no background worker was free; 0: never */

bool
sc_writer_is_busy(void)
{
	return part != NULL;
}

bool
sc_writer_has(int64 query_id)
{
	return part && job->query_id == query_id;
}

/* As many rows as there may be on the pages of the result, if the part deletes them all. */
static int64
emptied_rows(const ScCollectedQuery *collected)
{
	const ScQuery *query = collected->empties ? sc_query_by_id(collected->query_id, true) : NULL;

	return query != NULL ? sc_sink_pages(query->relid) * (BLCKSZ / SC_LIMIT_UNIT_BYTES) : 0;
}

bool
sc_writer_takes(const ScCollectedQuery *collected)
{
	const ScProgress *progress = sc_progress_get(collected->query_id);
	int64		size = Max(collected->nrows, sc_part_bytes(collected->part) / SC_LARGE_PART_WIDTH) + emptied_rows(collected);
	/* one that takes another's place compares all of two tables */
	bool		is_large = (size > 0 && size >= SC_LARGE_PART_ROWS) ||
		(progress->is_new && progress->replaces != 0);

	return is_large && !collected->no_writer && !collected->forget &&
		collected->offset.query_id != 0 && sc_moment_is_past(refused_at, NO_WORKER_MS);
}

/* Nobody has a part any more. */
static void
forget_job(void)
{
	part = NULL;
	if (segment)
		dsm_detach(segment);
	segment = NULL;
	job = NULL;
	SpinLockAcquire(&sc_my_pipeline->mutex);
	sc_my_pipeline->writing_query = 0;
	SpinLockRelease(&sc_my_pipeline->mutex);
}

typedef struct Handing
{
	const ScPendingCheckpoint *pending;
	const ScCollectedQuery *collected;
} Handing;

/* Does the pipeline run another query? */
static bool
any_other(int64 query_id)
{
	ListCell   *lc;

	foreach(lc, sc_progress_list())
	{
		const ScProgress *progress = lfirst(lc);

		if (progress->query_id != query_id && sc_query_runs(&progress->life))
			return true;
	}
	return false;
}

/* Describes the part in a segment of its own, and puts it into a file wholly.  Fails if there is no room for either. */
static void
make_job(void *arg)
{
	const ScPendingCheckpoint *pending = ((Handing *) arg)->pending;
	const ScCollectedQuery *collected = ((Handing *) arg)->collected;

	segment = dsm_create(sizeof(ScWriterJob), 0);
	job = dsm_segment_address(segment);
	memset(job, 0, sizeof(ScWriterJob));
	job->query_id = collected->query_id;
	job->checkpoint_id = pending->checkpoint_id;
	job->lsn = collected->lsn;
	job->has_rows = collected->has_rows;
	job->has_history = collected->has_history;
	job->kept_until = collected->kept_until;
	job->others_wait = any_other(collected->query_id);
	job->offset = collected->offset;
	part = collected->part;
	nrows = collected->nrows;
	empties = collected->empties;
	sc_part_share(part, &job->place);
}

/* False: the coordinator has to write it. */
static bool
start_writer(ScPendingCheckpoint *pending, ScCollectedQuery *collected)
{
	Handing		handing = {.pending = pending,.collected = collected};

	if (sc_checkpoint_try(make_job, &handing) != NULL)
	{
		collected->no_writer = true;
		return false;
	}
	SC_DEBUG_POINT("coordinator_before_handing");
	SpinLockAcquire(&sc_my_pipeline->mutex);
	sc_my_pipeline->writing_query = collected->query_id;
	sc_my_pipeline->writing_rows = nrows;
	sc_my_pipeline->writing_done = 0;
	SpinLockRelease(&sc_my_pipeline->mutex);
	if (!sc_child_writer_start(sc_my_pipeline, pending->attempt, dsm_segment_handle(segment)))
	{
		refused_at = sc_moment_now();
		ereport(LOG,
				(errmsg("no background worker is free to write a large result of pipeline %d: its checkpoints do it, and hold the other queries",
						sc_my_pipeline->pipeline_id),
				 errhint("Increase \"max_worker_processes\".")));
		return false;
	}
	return true;
}

void
sc_writer_leave_out(ScPendingCheckpoint *pending)
{
	int			n = 0;
	ListCell   *lc;

	memset(pending->left_out, 0, sizeof(pending->left_out));
	foreach(lc, sc_progress_list())
	{
		const ScProgress *progress = lfirst(lc);

		if (progress->life.with_writer && n < SC_WIRE_LEFT_OUT)
			pending->left_out[n++] = progress->query_id;
	}
}

void
sc_writer_hand(ScPendingCheckpoint *pending)
{
	ListCell   *lc;

	foreach(lc, pending->queries)
	{
		ScCollectedQuery *collected = lfirst(lc);

		if (collected->outcome == SC_OUTCOME_QUEUED && collected->queued_at == 0)
			collected->queued_at = sc_moment_now();
		if (collected->outcome != SC_OUTCOME_HANDED || part)
			continue;
		collected->queued_at = 0;
		if (start_writer(pending, collected))
		{
			(void) sc_collect_take_part(pending, collected);
			SC_DEBUG_POINT("coordinator_after_handing");
		}
		else
			forget_job();
	}
	if (!part)
		sc_progress_release();
}

/* The part is committed. */
static void
note_committed(ScPendingCheckpoint *pending)
{
	ScProgress *progress = sc_progress_get(job->query_id);

	progress->lsn = job->lsn;
	progress->with_others = progress->is_new = false;
	if (job->has_rows)
	{
		progress->suspect = false;
		progress->user_code = job->user_code;
	}
	pending->written_rows += job->result_rows;
	pending->written_bytes += job->bytes;
	sc_part_free(part);
}

/* The part isn't written: it is the coordinator's again. */
static void
take_back(ScPendingCheckpoint *pending)
{
	ScCollectedQuery *collected = sc_collect_query(pending, job->query_id);
	ScFailure  *failure;

	sc_collect_return_part(pending, collected, part, nrows);
	collected->empties |= empties;
	if (job->has_history)
	{
		collected->has_history = true;
		collected->kept_until = job->kept_until;
	}
	if (job->result == SC_WRITER_GAVE_UP)
		collected->no_writer = true;
	else if (!collected->refused)
	{
		failure = sc_failure_read(job->failure, job->failure_len);
		sc_collect_refuse(collected, failure);
		pfree(failure);
		collected->blamed = job->result == SC_WRITER_BLAMED;
		sc_progress_get(job->query_id)->user_code = job->user_code;
		sc_progress_get(job->query_id)->suspect |= collected->blamed;
	}
}

void
sc_writer_look(ScPendingCheckpoint *pending)
{
	if (!part || !sc_child_writer_ended())
		return;
	SC_DEBUG_POINT("coordinator_writer_ended");
	if (job->result == SC_WRITER_NOTHING)
		proc_exit(1);			/* it didn't even get that far */
	if (job->result == SC_WRITER_COMMITTED)
		note_committed(pending);
	else
		take_back(pending);
	forget_job();
	sc_progress_release();
}
