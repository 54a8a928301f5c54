/*-------------------------------------------------------------------------
 * collect.h
 *	  Collecting the tasks' parts of a checkpoint, and writing them.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_COLLECT_H
#define SC_WORKER_COORDINATOR_COLLECT_H

#include "base/clock.h"
#include "ckpt/failure.h"
#include "ckpt/history.h"
#include "ckpt/offset.h"
#include "ckpt/part.h"
#include "storage/shm_mq.h"
#include "wire/batch.h"
#include "wire/message.h"
#include "worker/coordinator/query_state.h"
#include "worker/frame/shared.h"

/* What arrived for one query. */
typedef struct ScCollectedQuery
{
	int64		query_id;
	ScPart	   *part;			/* outlives the checkpoint if it waits */
	bool		has_rows;		/* result rows among it, */
	int64		nrows;			/* so many */
	bool		empties;		/* and one that deletes all that the result has */
	bool		has_history;	/* it is the first part of a query that begins with its stream's history */
	int64		kept_until;		/* if it has: see ckpt/seen.h */
	bool		forget;			/* the query was dropped */
	bool		paused;			/* this is its last part, of all its tasks */
	bool		lost;			/* it could not be kept ("refused" says why): it is void, and what follows */
	ScFailure  *why_kept;		/* why it is lost, or "by_writer": kept as long as nothing was decided by it */
	char	   *why_data;		/* what that points into */
	ScFailure  *failure;		/* of a task, the first one that told; NULL: none */
	char	   *failure_data;	/* what it points into */
	bool		has_news;		/* a task has sent an offset */
	bool		later;			/* a task says that rows of a window are still to come: left out of this checkpoint */
	bool		incomplete;		/* not all its tasks have, ever, or they aren't at one place */
	ScOffset	offset;			/* of all tasks together, by the last ones that came; query_id 0: none */
	XLogRecPtr	lsn;			/* up to where it is with this part, by its offset or 'S' */
	ScOffset	first;			/* where a query begins that is new; else query_id 0 */

	/* set by sc_checkpoint_write */
	bool		left_out;		/* of this checkpoint (sc_collect_is_left_out) */
	ScQuery    *query;			/* the transaction's; NULL: it is gone */
	ScOutcome	outcome;
	const ScFailure *why;		/* the failure by which it isn't in the checkpoint; NULL: there is none */
	bool		user_code;		/* code of its owner's may have run */
	bool		failed_now;		/* and then its rows could not be written */

	/* with a writer (handing.h) */
	ScMoment	queued_at;		/* it waits for one since then; 0: it doesn't */
	bool		no_writer;		/* the coordinator writes it, in the next checkpoint */
	bool		by_writer;		/* a writer says that it is "refused" */

	/* for further tries to commit the same checkpoint */
	ScFailure  *refused;		/* why it isn't in it; NULL: it is tried */
	bool		blamed;			/* by sc_checkpoint_blame: what it left for the commit failed there */
} ScCollectedQuery;

/* What a task's end says of its part. */
typedef struct ScTaskPart
{
	ScMoment	barrier_at;
	int64		sync_us;
	int64		async_us;		/* until all of it was here */
	int64		bytes;			/* of chunks */
} ScTaskPart;

typedef struct ScPendingCheckpoint
{
	MemoryContext context;		/* of what only this checkpoint needs */
	int64		attempt;
	int			nqueues;
	shm_mq_handle *queues[SC_MAX_TASKS];
	bool		ended[SC_MAX_TASKS];	/* this task's part is complete, */
	ScTaskPart	parts[SC_MAX_TASKS];	/* and what it was like */
	int			nended;
	List	   *queries;		/* ScCollectedQuery *, in order of arrival */
	ScCollectedQuery *last;		/* of the last message */
	int64		result_rows;	/* that arrived since the last checkpoint was committed */
	bool		urgent;			/* a query failed: a checkpoint should say so */
	bool		some_came_later;	/* in the last checkpoint: queries whose rows were still to come (SC_MESSAGE_LATER) */
	int64		left_out[SC_WIRE_LEFT_OUT];	/* queries whose part isn't whole: the barrier says so; 0: no more */

	/* of all tasks' ends */
	int64		checkpoint_id;
	XLogRecPtr	lsn;
	TimestampTz triggered_at;
	ScMoment	barrier_at;		/* latest */
	int64		sync_us;		/* longest */
	int64		rows_in;
	int64		full_bytes;
	TransactionId *xids;
	int			nxids;

	/* what writers have committed since the last checkpoint: its record counts it */
	int64		written_rows;
	int64		written_bytes;
} ScPendingCheckpoint;

extern ScPendingCheckpoint *sc_collect_create(int64 attempt);

/*
 * Takes what is in the queues, without waiting.  True once every task's part is
 * complete.  An error in keeping what arrives (a full disk) is the failure of its query.  Messages of a task that has ended its part stay in its queue until
 * sc_collect_reset.  Ends the process where a task has gone.
 */
extern bool sc_collect_pump(ScPendingCheckpoint *pending);

/* Has the query no part in this checkpoint?  What was collected of it is kept for one that it has a part in. */
extern bool sc_collect_is_left_out(const ScPendingCheckpoint *pending, int64 query_id);

/* The checkpoint is complete: has every task of the query said that it has nothing new? */
extern bool sc_collect_is_same(const ScPendingCheckpoint *pending, int64 query_id);

/* What arrived for the query, or nothing yet. */
extern ScCollectedQuery *sc_collect_query(ScPendingCheckpoint *pending, int64 query_id);

/* Takes what is collected of the query, which goes on with nothing.  The caller frees it. */
extern ScPart *sc_collect_take_part(ScPendingCheckpoint *pending, ScCollectedQuery *query);
/* Gives it back, with so many result rows: it comes before what was collected since then.  It is the query's again. */
extern void sc_collect_return_part(ScPendingCheckpoint *pending, ScCollectedQuery *query, ScPart *part, int64 nrows);
/* A writer says why it is "refused", until a checkpoint has decided by that. */
extern void sc_collect_refuse(ScCollectedQuery *query, const ScFailure *failure);

/* The checkpoint is committed: what waits stays for the next one. */
extern void sc_collect_reset(ScPendingCheckpoint *pending);

/*
 * Writes the collected checkpoint and its record, in the current transaction, with an active
 * snapshot; fills in the record's counts.  Can be called again after an abort.
 */
extern void sc_checkpoint_write(ScPendingCheckpoint *pending, ScCheckpointRecord *record);

/* The owners of the queries in what was written whose code may have run, each as often as he has some. */
extern List *sc_checkpoint_user_code(const ScPendingCheckpoint *pending);

/*
 * What was written could not be committed.  Code of owners may have left something that fails
 * there (a notification, a remote transaction): the next sc_checkpoint_write lets less of it
 * run, and none of the query that is found at fault.  False: it wasn't them.
 */
extern bool sc_checkpoint_blame(ScPendingCheckpoint *pending, const ErrorData *error);

/* What was written is committed. */
extern void sc_checkpoint_committed(const ScPendingCheckpoint *pending);

#endif							/* SC_WORKER_COORDINATOR_COLLECT_H */
