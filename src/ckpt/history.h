/*-------------------------------------------------------------------------
 * history.h
 *	  The record of each checkpoint, completed or failed, in stream_ckpt.checkpoint.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_HISTORY_H
#define SC_CKPT_HISTORY_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

/* What one task took for its part of a checkpoint. */
typedef struct ScCheckpointTask
{
	int64		start_delay_us; /* trigger until it met the barrier */
	int64		sync_us;
	int64		async_us;		/* from there until all of it was with the coordinator */
	int64		bytes;			/* of chunks */
} ScCheckpointTask;

/* stream_ckpt.checkpoint */
typedef struct ScCheckpointRecord
{
	int32		pipeline_id;
	int64		checkpoint_id;
	int64		attempt;
	const char *kind;			/* "periodic", "manual", "progress" */
	TimestampTz triggered_at;
	int64		barrier_us;		/* trigger until the last task met the barrier */
	int64		sync_us;		/* longest synchronous part of a task */
	int64		async_us;		/* last barrier until all parts were here */
	XLogRecPtr	lsn;
	int64		rows_in;		/* rows since the last checkpoint */
	int64		result_rows;
	int64		checkpointed_bytes;
	int64		full_bytes;
	int			ntasks;
	ScCheckpointTask *tasks;
} ScCheckpointRecord;

/* Adds the record of a checkpoint that this transaction completes, and prunes the history. */
extern void sc_history_completed(const ScCheckpointRecord *record);

/* In a transaction of its own after an abort, not necessarily with a snapshot: one that failed. */
extern void sc_history_failed(const ScCheckpointRecord *record, const char *message);

#endif							/* SC_CKPT_HISTORY_H */
