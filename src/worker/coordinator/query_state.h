/*-------------------------------------------------------------------------
 * query_state.h
 *	  The life of a query, as the coordinator of its pipeline knows it: one state, and the one function
 *	  that changes it.
 *
 *	  state        the tasks run it   its row of query_failure   "due" is when
 *	  HEALTHY      yes                none                       -
 *	  HELD         yes                none                       its part is written: at once
 *	  WAITING      yes                waiting                    its part is tried again
 *	  RECOVERING   yes                as before                  its row is removed, or 0
 *	  RETRYING     no                 retrying                   the next attempt begins for its sake
 *	  FAILED       no                 failed                     -
 *	  LOST         no                 lost, accepted             -
 *	  PAUSED       no                 whatever it had            -
 *	  GONE         no                 being removed              what is left of it is removed
 *
 * HELD: its part of the last checkpoint is kept, and nobody tried to write it, because the commit fails
 * with it or with another one's (checkpoint.c, "alone").  WAITING: the part is kept because it couldn't be
 * written.  RECOVERING: it works again, but isn't past the row that failed; or it is, and its row of
 * query_failure is locked by somebody else's transaction ("due" is set then).
 *
 * The view stream_ckpt.queries shows the row of query_failure, which is written in the checkpoint's
 * transaction; so it never says another state than this does, and outlives the process.  A query that is
 * paused says "paused", whatever else; one that is healthy or held, what its pipeline does.
 *
 * Who moves it: a commit, or what others have committed, but for the time of a retry.
 *	  progress.c	the attempt begins, from the catalogs: HEALTHY, RECOVERING, FAILED, LOST, PAUSED.
 *					resume_query() during WAITING: its part is due at once
 *	  commit.c		a checkpoint is committed: by what became of the query's part in it (ScOutcome)
 *	  lost.c		a checkpoint is committed that says it is lost
 *	  locked.c		RETRYING is put off, because a lock that it needs is still somebody else's
 *
 *	  A row at fault (in the task):
 *		HEALTHY		the task sends SC_MESSAGE_FAILED and forgets the query; if others of its tasks go on, "is_void"
 *		-> FAILED	with the next checkpoint, at the position of the last one with its part
 *		resume_query(): "wanted"; the attempt ends, and the next one reads that place again
 *		-> HEALTHY	in the next attempt: resume_query() has removed the row of query_failure.
 *	  If the error may pass (no memory, a time limit): RETRYING, and when that is due the next attempt begins
 *	  it as RECOVERING; the checkpoint that is past the row that failed makes it HEALTHY.
 *
 *	  A result that can't be written (in the coordinator):
 *		HEALTHY		its part can't be written
 *		-> WAITING	the error may pass: the part is kept and grows, and is tried again when due
 *		-> HEALTHY	it is written; or RECOVERING, while somebody else has the row of query_failure
 *		-> FAILED	the error won't pass.  Its task doesn't know, and goes on: "is_void"
 *		the attempt ends, and the next one is without it; resume_query() as above.
 *	  If the part gets too large, it is void, and the query RETRYING.
 *
 *	  A window of many rows: its tasks emit them in steps, and the query has no part in the checkpoints meanwhile
 *	  (outcome LATER).  What came is kept, the state stays as it is.
 *
 *	  A large part (handing.h):
 *		HEALTHY		it is handed to a writer, or waits for one: "with_writer", and due when that is known
 *		-> HELD		what comes meanwhile is kept (WAITING, if it was failing before)
 *		the writer ends: due at once, with what came; what it couldn't write has come back, and goes on as above
 *
 *	  A query that moves here from another pipeline (moving.h):
 *		INCOMING	it is the other one's still; its entry holds the slot
 *		-> PAUSED	it has come: "wanted", and the next attempt begins it. Or it doesn't come: the entry goes
 *
 * Facts beside the state, which say nothing of what it does:
 *	  is_void	(RETRYING, FAILED, LOST) its task goes on with it: what that sends has a gap before it
 *	  wanted	(those that the tasks don't run) the catalogs say that it should run: the next attempt does.
 *				It goes when the query is paused again
 *	  with_writer (HELD, WAITING)
 *	  suspect, user_code (progress.h): what its owner's code may leave for the commit
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_QUERY_STATE_H
#define SC_WORKER_COORDINATOR_QUERY_STATE_H

#include "base/clock.h"
#include "ckpt/failure.h"

typedef enum ScQueryState
{
	SC_QUERY_HEALTHY,
	SC_QUERY_HELD,
	SC_QUERY_WAITING,
	SC_QUERY_RECOVERING,
	SC_QUERY_RETRYING,
	SC_QUERY_FAILED,
	SC_QUERY_LOST,
	SC_QUERY_PAUSED,
	SC_QUERY_INCOMING,
	SC_QUERY_GONE
} ScQueryState;

/* What became of a query's part in a checkpoint's transaction: what moves the query, once it is committed. */
typedef enum ScOutcome
{
	SC_OUTCOME_NONE,			/* not decided yet */
	SC_OUTCOME_WRITTEN,
	SC_OUTCOME_RECOVERED,		/* written, and it is failing no more: its row of query_failure is removed */
	SC_OUTCOME_UNCLEARED,		/* the same, but the row is another transaction's */
	SC_OUTCOME_PAUSED,			/* written, and it was the last one */
	SC_OUTCOME_MOVED,			/* the same, and the query is another pipeline's now */
	SC_OUTCOME_HELD,			/* kept, and nobody tried to write it */
	SC_OUTCOME_LATER,			/* kept, because it isn't whole: its tasks send the rest */
	SC_OUTCOME_WAITING,			/* kept, to be tried again */
	SC_OUTCOME_HANDED,			/* kept, for a writer, who is there now */
	SC_OUTCOME_QUEUED,			/* kept, for a writer, who writes another one */
	SC_OUTCOME_RETRYING,		/* void; the query goes on from its last checkpoint */
	SC_OUTCOME_UNNOTED,			/* the same, but its row of query_failure is another transaction's */
	SC_OUTCOME_FAILED,			/* void, until resume_query() */
	SC_OUTCOME_VOID,			/* void, as the part before it */
	SC_OUTCOME_FORGOTTEN,		/* the query is gone, and all of it removed */
	SC_OUTCOME_REMAINS			/* it is gone, but rows of it are another transaction's */
} ScOutcome;

/* A query's state, and what goes with it.  Written in query_state.c only. */
typedef struct ScQueryLife
{
	ScQueryState state;
	ScMoment	due;			/* see above; 0: nothing is */
	bool		is_void;
	bool		wanted;
	bool		with_writer;	/* its part is a writer's, or is to be: due is SC_MOMENT_UNKNOWN */
} ScQueryLife;

/* An entry is made, in the state that the catalogs say. */
extern void sc_query_begin(ScQueryLife *life, ScQueryState state);

/*
 * The one way to change a state, also to the same one with another time.  Ends the attempt, by an error, if
 * there is no such way.  A query that the tasks run, and that ends other than by a pause, is void until
 * the attempt ends, unless its task has forgotten it.
 */
extern void sc_query_move(int64 query_id, ScQueryLife *life, ScQueryState state, ScMoment due);

/* The writer has ended, or there is none: what is kept of a query that is "with_writer" is due at once. */
extern void sc_query_release(int64 query_id, ScQueryLife *life);

/* All its tasks have forgotten it, so nothing more comes. */
extern void sc_query_task_ended(ScQueryLife *life);

/* What the catalogs say now: should it run? */
extern void sc_query_want(ScQueryLife *life, bool should_run, bool has_failure);

/* Do the tasks run it? */
extern bool sc_query_runs(const ScQueryLife *life);
/* It runs, and has a row in query_failure. */
extern bool sc_query_is_failing(const ScQueryLife *life);
/* When its part, which is kept, is to be written; 0: none is kept. */
extern ScMoment sc_query_part_due(const ScQueryLife *life);
/* When the next checkpoint, or the next attempt, is due for its sake; 0: it isn't. */
extern ScMoment sc_query_checkpoint_due(const ScQueryLife *life);
extern ScMoment sc_query_attempt_due(const ScQueryLife *life);
/*
 * Does it need a new attempt as soon as may be?  One that is wanted does, because the reader has
 * to go back, and one whose part is void, because its task has to; but one that is retried has to wait.
 */
extern bool sc_query_wants_attempt(const ScQueryLife *life);

/*
 * A query's part can't be in a checkpoint, by its failure number "failures" in a row: WAITING if the part is
 * kept, RETRYING, or FAILED.
 */
extern ScOutcome sc_query_decide(const ScFailure *failure, int failures, bool blamed, bool can_wait);
/* What query_failure says then. */
extern ScFailureStatus sc_outcome_status(ScOutcome outcome);
/* Is the part in the checkpoint?  Or kept for the next one? */
extern bool sc_outcome_is_written(ScOutcome outcome);
extern bool sc_outcome_keeps_part(ScOutcome outcome);

/*
 * The checkpoint is committed: moves the query, which had failed "failures" times in a row before.  Not for
 * one that is gone.
 */
extern void sc_query_after_checkpoint(int64 query_id, ScQueryLife *life, ScOutcome outcome, int failures);

#endif							/* SC_WORKER_COORDINATOR_QUERY_STATE_H */
