/*-------------------------------------------------------------------------
 * collect.h
 *	  Collecting the tasks' parts of a checkpoint, and writing them.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COLLECT_H
#define SC_WORKER_COLLECT_H

#include "ckpt/part.h"
#include "ckpt/store.h"
#include "storage/shm_mq.h"
#include "worker/message.h"
#include "worker/shared.h"

/* What arrived for one query. */
typedef struct ScCollectedQuery
{
	int64		query_id;
	ScPart	   *part;
	bool		has_rows;		/* result rows among it */
	bool		forget;			/* the query was dropped */
} ScCollectedQuery;

typedef struct ScCollection
{
	MemoryContext context;		/* of the parts; reset by sc_collect_reset */
	int64		attempt;
	int			nqueues;
	shm_mq_handle *queues[SC_MAX_TASKS];
	bool		ended[SC_MAX_TASKS];	/* this task's part is complete */
	int			nended;
	List	   *queries;		/* ScCollectedQuery *, in order of arrival */
	ScCollectedQuery *last;		/* of the last message */

	/* of all tasks' ends */
	int64		checkpoint_id;
	XLogRecPtr	lsn;
	TimestampTz triggered_at;
	TimestampTz barrier_at;		/* latest */
	int64		sync_us;		/* longest */
	int64		rows_in;
	int64		full_bytes;
	TransactionId *xids;
	int			nxids;
} ScCollection;

extern ScCollection *sc_collect_create(int64 attempt);

/*
 * Takes what is in the queues, without waiting.  True once every task's part is
 * complete.  Messages of a task that has ended its part stay in its queue until
 * sc_collect_reset.  Ends the process where a task has gone.
 */
extern bool sc_collect_pump(ScCollection *collection);
extern void sc_collect_reset(ScCollection *collection);

/*
 * Writes the collected checkpoint and its record, in the current transaction, with an active
 * snapshot; fills in the record's counts.  Can be called again after an abort.
 */
extern void sc_checkpoint_write(ScCollection *collection, ScCheckpointRecord *record);

#endif							/* SC_WORKER_COLLECT_H */
