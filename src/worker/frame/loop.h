/*-------------------------------------------------------------------------
 * loop.h
 *	  What all our workers have in common: how they begin, wait, notice signals
 *	  and end.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_LOOP_H
#define SC_WORKER_FRAME_LOOP_H

#include "base/process.h"
#include "postmaster/bgworker.h"
#include "worker/frame/shared.h"

/* Passed to reader, tasks and writer in bgw_extra. */
typedef struct ScWorkerArg
{
	int64		attempt;
	int			task;
	uint32		job;			/* of a writer: the handle of its memory segment */
} ScWorkerArg;

/* The pipeline that this worker serves, NULL in the launcher. */
extern ScPipelineShared *sc_my_pipeline;

/* What the error context says; fields that aren't known stay 0. */
typedef struct ScWorkerContext
{
	int64		query_id;
	int64		checkpoint_id;
	XLogRecPtr	lsn;
} ScWorkerContext;
extern ScWorkerContext sc_worker_context;

/*
 * First thing in a worker's main function: signals, place, error context, and
 * the database connection (as bootstrap superuser).  "main" is then run; an error that it
 * raises is noted in the pipeline's status, and ends the process with status 1.
 */
extern void sc_worker_run(ScProcess process, int pipeline_index, ScWorkerPlace *place,
						  void (*main) (void));

/* From now on others that want a CPU come first: for as long as this process is there. */
extern void sc_worker_yield_cpu(void);

/* Interrupts, and settings read again after SIGHUP. */
extern void sc_worker_check(void);

/*
 * Waits for the latch (which is reset) or timeout_ms (-1: for ever), then
 * sc_worker_check.  Nothing may be held: no transaction, no lock, no snapshot.
 */
extern void sc_worker_wait(long timeout_ms);

/*
 * A transaction can be decoded before it is visible to others: waits, with "wait", until it
 * is.  That is a moment, or as long as a standby is away that its commit waits for.
 */
extern void sc_wait_until_visible(TransactionId xid, void (*wait) (long timeout_ms));

/*
 * A transaction with a snapshot, and its end: what work needs, never held across
 * a wait.  Each has its own time: now() in it is when it began.
 */
extern void sc_begin_transaction(void);
extern void sc_commit_transaction(void);
/* The transaction in progress won't wait for its commit's flush, nor for standbys: what it writes comes again if it is lost. */
extern void sc_commit_lazily(void);

/*
 * In the handler of an error that code of a query's owner raised: logs it and
 * returns it in "context", which becomes the current one; the caller aborts the
 * (sub)transaction.  Where this process is cancelled, the error is thrown on.
 */
extern ErrorData *sc_take_query_error(MemoryContext context);

/*
 * In the same handler, where the caller rolls back and tells nobody (sc_subtransaction_try): throws a cancel
 * of this process on; ends the time limit, and says so if that was reached.
 */
extern void sc_rethrow_cancel(ErrorData *error);

/* Fills in what is the same in all our workers. */
extern void sc_worker_describe(BackgroundWorker *worker, const char *function,
							   int pipeline_index);

#endif							/* SC_WORKER_FRAME_LOOP_H */
