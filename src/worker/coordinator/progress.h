/*-------------------------------------------------------------------------
 * progress.h
 *	  What a coordinator knows of each query of its pipeline: how far its committed
 *	  results are, and whether it runs.
 *
 * Normally all queries go with the last checkpoint's LSN.  One that is paused, has
 * failed, or whose part of a checkpoint waits, keeps its own, and with it the WAL.
 * Lives in the coordinator's process; but for "owner", "user_code", "suspect", "placed", "left" and "lost_now" it
 * changes after a commit only, so that it never says more than the catalogs do.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_PROGRESS_H
#define SC_WORKER_COORDINATOR_PROGRESS_H

#include "access/xlogdefs.h"
#include "base/clock.h"
#include "nodes/pg_list.h"

typedef struct ScProgress
{
	int64		query_id;
	Oid			owner;			/* when it was written last; invalid: it wasn't yet */
	XLogRecPtr	lsn;			/* committed offset; invalid: none yet.  See sc_progress_lsn() */
	bool		with_others;	/* it is the last checkpoint's LSN, whatever "lsn" says */
	bool		placed;			/* by the checkpoint being written: its row says where it is then, */
	bool		left;			/* or that it stays where it was, apart from now on */
	bool		lost_now;		/* or that it is lost (lost.h) */
	bool		lost;			/* nothing is held for it */
	bool		active;			/* the tasks run it */
	bool		wanted;			/* they don't, but it was resumed: a new attempt takes it in */
	bool		is_void;		/* its rows could not be written: until the attempt ends, what its
								 * task sends has a gap before it */
	bool		user_code;		/* code of its owner's ran when it was written last, or it wasn't yet */
	bool		suspect;		/* that was in a transaction which could not be committed */
	bool		failing;		/* it has a row in query_failure */
	int			failures;		/* in a row */
	XLogRecPtr	failed_lsn;		/* of the row that failed; invalid: none */
	ScMoment	wait_until;		/* its part is tried again then; 0: none waits */
	ScMoment	clear_at;		/* it is healthy, but its row of query_failure was another's: the
								 * next checkpoint is due then; 0: no */
	ScMoment	resumed_at;		/* while it waited; 0: never */
	ScMoment	forget_at;		/* the query is gone, but rows of it were another transaction's: the
								 * next checkpoint that removes them is due then; 0: no */
	ScMoment	retry_at;		/* the attempt restarts for its sake then; 0: no */
	bool		locked;			/* it is retried because a lock was somebody else's, */
	int			put_off;		/* and that so many times, because it still was */
} ScProgress;

/*
 * What the catalogs say, at the beginning of an attempt in which the queries of "offsets"
 * (ScOffset *) run.
 */
extern void sc_progress_load(int32 pipeline_id, List *offsets);

/* The query's entry, made where there is none: active, without an offset. */
extern ScProgress *sc_progress_get(int64 query_id);
extern void sc_progress_forget(int64 query_id);
/* The query is gone, and what is left of it is to be removed in a while. */
extern void sc_progress_forget_later(int64 query_id);

/* All entries, ScProgress *. */
extern List *sc_progress_list(void);

/* The query's committed offset. */
extern XLogRecPtr sc_progress_lsn(const ScProgress *entry);

/* A checkpoint at "lsn" is committed: those that are "left" aren't in it. */
extern void sc_progress_advance(XLogRecPtr lsn);

/* Do the tasks run it? */
extern bool sc_progress_is_active(int64 query_id);

/*
 * "lsn", or what is behind it: of the queries that run or are about to, and of all that aren't lost.  One that
 * has waited SC_PATIENCE times counts as one that stands: its owner may never let it go on.
 */
extern XLogRecPtr sc_progress_committed(XLogRecPtr lsn);
extern XLogRecPtr sc_progress_held(XLogRecPtr lsn);

/* The next wait_until, clear_at or forget_at, and the next retry_at; 0: none. */
extern ScMoment sc_progress_next_wait(void);
extern ScMoment sc_progress_next_retry(void);

/*
 * locked.c: of the queries that are to be retried now, those that can't get their locks are put off.  False:
 * none is left.  Outside of a transaction.
 */
extern bool sc_progress_retry_may_succeed(void);

/*
 * Looks at what was resumed: a query that waits is tried at once, one that stands is wanted.
 * Needs a transaction.
 */
extern void sc_progress_review(int32 pipeline_id);

/*
 * Does a query need a new attempt as soon as may be?  One that is wanted does, because the reader has
 * to go back, and one whose part is void, because its task has to; but one that is retried has to wait.
 */
extern bool sc_progress_wants_restart(void);

#endif							/* SC_WORKER_COORDINATOR_PROGRESS_H */
