/*-------------------------------------------------------------------------
 * backfill.c
 *	  How far a query is that begins with its stream's history (backfill.h).
 *
 * The coordinator notes for which queries the attempt reads, the reader how far it is (ScHistoryShared in shared.h).
 * Nobody waits for anybody: what is said is as of some moment.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/timestamp.h"
#include "worker/frame/backfill.h"

void
sc_backfill_clear(ScPipelineShared *pipeline)
{
	SpinLockAcquire(&pipeline->mutex);
	memset(&pipeline->history, 0, sizeof(ScHistoryShared));
	SpinLockRelease(&pipeline->mutex);
}

void
sc_backfill_add(ScPipelineShared *pipeline, int64 query_id, Oid stream_relid)
{
	ScHistoryShared *history = &pipeline->history;

	SpinLockAcquire(&pipeline->mutex);
	if (history->nqueries < SC_HISTORY_QUERIES)
	{
		history->streams[history->nqueries] = stream_relid;
		history->queries[history->nqueries++] = query_id;
	}
	SpinLockRelease(&pipeline->mutex);
}

void
sc_backfill_remove(ScPipelineShared *pipeline, int64 query_id)
{
	ScHistoryShared *history = &pipeline->history;

	SpinLockAcquire(&pipeline->mutex);
	for (int i = 0; i < history->nqueries; i++)
	{
		if (history->queries[i] == query_id)
			history->queries[i] = 0;
	}
	SpinLockRelease(&pipeline->mutex);
}

bool
sc_backfill_is_for_nobody(ScPipelineShared *pipeline, Oid stream_relid)
{
	const ScHistoryShared *history = &pipeline->history;
	bool		result;

	SpinLockAcquire(&pipeline->mutex);
	/* of very many nobody knows all */
	result = history->nqueries < SC_HISTORY_QUERIES;
	for (int i = 0; i < history->nqueries && result; i++)
		result = history->queries[i] == 0 || history->streams[i] != stream_relid;
	SpinLockRelease(&pipeline->mutex);
	return result;
}

/* Is it in this attempt?  One of very many may be said to be though it isn't. */
static bool
contains(const ScHistoryShared *history, int64 query_id)
{
	for (int i = 0; i < history->nqueries; i++)
	{
		if (history->queries[i] == query_id)
			return true;
	}
	return history->nqueries == SC_HISTORY_QUERIES;
}

static const char *
phase_name(ScHistoryPhase phase)
{
	switch (phase)
	{
		case SC_HISTORY_SLOT:
			return "making the slot";
		case SC_HISTORY_WAITING:
			return "locking";
		case SC_HISTORY_ORDERING:
			return "reading times";
		case SC_HISTORY_SCANNING:
			return "reading rows";
		case SC_HISTORY_NONE:
			break;
	}
	return "writing";
}

/* The share of all reading that is done, from 0 to 1. */
static double
share_read(const ScHistoryShared *history)
{
	double		share = history->blocks == 0 ? 1 :
		Min((double) history->blocks_done / history->blocks, 1);

	if (history->phase == SC_HISTORY_NONE)
		return 1;
	if (history->phase <= SC_HISTORY_WAITING)
		return 0;
	if (!history->two_passes)
		return share;
	return (share + (history->phase == SC_HISTORY_SCANNING ? 1 : 0)) / 2;
}

ScBackfill
sc_backfill_progress(int32 pipeline_id, int64 query_id, Oid stream_relid)
{
	ScPipelineShared *pipeline = sc_shared_find(MyDatabaseId, pipeline_id);
	ScBackfill	result = {.phase = "waiting"};
	ScHistoryShared history;
	ScStatus	status;
	double		share;

	if (!pipeline)
		return result;
	SpinLockAcquire(&pipeline->mutex);
	history = pipeline->history;
	status = pipeline->status;
	SpinLockRelease(&pipeline->mutex);
	/* whatever the query's stream: nothing of the pipeline can begin before */
	if (status == SC_STATUS_STARTING && history.phase == SC_HISTORY_SLOT)
	{
		result.phase = phase_name(history.phase);
		result.waits_for_slot = true;
		return result;
	}
	/* the last stream of an attempt that reads several stays there when all is read */
	if (status != SC_STATUS_RUNNING || !contains(&history, query_id) ||
		(history.relid != stream_relid && history.phase != SC_HISTORY_NONE))
		return result;
	result.phase = phase_name(history.phase);
	if (history.relid != stream_relid || history.began == 0)
		return result;
	share = share_read(&history);
	result.reads = true;
	result.rows = history.rows;
	result.blocks = Min(history.blocks_done, history.blocks);
	result.total_blocks = history.blocks;
	result.percent = rint(share * 1000) / 10;
	result.begun = history.began;
	if (history.phase > SC_HISTORY_WAITING && share > 0)
		result.end = history.began + (TimestampTz) ((GetCurrentTimestamp() - history.began) / share);
	return result;
}
