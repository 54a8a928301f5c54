/*-------------------------------------------------------------------------
 * progress.h
 *	  What a coordinator knows of each query of its pipeline: its state (query_state.h), and how far
 *	  its committed results are.
 *
 * Normally all queries go with the last checkpoint's LSN.  One that is paused, has
 * failed, or whose part of a checkpoint waits, keeps its own, and with it the WAL.
 * Lives in the coordinator's process; but for "owner", "user_code", "suspect" and what is of the checkpoint
 * that is being written it changes after a commit only, so that it never says more than the catalogs do.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_PROGRESS_H
#define SC_WORKER_COORDINATOR_PROGRESS_H

#include "access/xlogdefs.h"
#include "model/catalog.h"
#include "nodes/pg_list.h"
#include "worker/coordinator/query_state.h"

typedef struct ScProgress
{
	int64		query_id;
	ScQueryLife life;

	/* where it is: see sc_progress_lsn() */
	XLogRecPtr	lsn;			/* committed offset; invalid: none yet */
	bool		with_others;	/* it is the last checkpoint's LSN, whatever "lsn" says */
	bool		is_new;			/* it has no offset: until its first part is written it holds the WAL from "lsn" on, where
								 * the log goes on behind its history; invalid: nothing of it is read */
	int64		replaces;		/* one that is new: whose place it takes with its first part; 0: nobody's */

	/* its failures */
	int			failures;		/* in a row */
	XLogRecPtr	failed_lsn;		/* of the row that failed; invalid: none */
	bool		locked;			/* it failed because a lock was somebody else's; */
	int			put_off;		/* while it was retried it still was, so many times */
	ScMoment	resumed_at;		/* while it waited; 0: never */

	/* its owner, and his code */
	Oid			owner;			/* when it was written last; invalid: it wasn't yet */
	bool		user_code;		/* ran when it was written last, or it wasn't yet */
	bool		suspect;		/* that was in a transaction which could not be committed */

	/* what the checkpoint that is being written says */
	bool		placed;			/* its row says where it is then, */
	bool		left;			/* or that it stays where it was, apart from now on */
	bool		lost_now;		/* or that it is lost (lost.h) */
	bool		later;			/* its tasks still have rows of a window to send: also of the last one */
} ScProgress;

/*
 * What the catalogs say, at the beginning of an attempt in which the queries of "offsets"
 * (ScOffset *) run.
 */
extern void sc_progress_load(int32 pipeline_id, List *offsets);

/* The same of a query that is new; "runs": its history is read in this attempt, which reads the log from "start" on. */
extern void sc_progress_load_new(const ScQuery *query, bool runs, XLogRecPtr start);

/* The query's entry, made where there is none: healthy, without an offset. */
extern ScProgress *sc_progress_get(int64 query_id);
extern void sc_progress_forget(int64 query_id);
/* The query is gone, and what is left of it is to be removed in a while. */
extern void sc_progress_forget_later(int64 query_id);

/* The entry of the query that is to take this one's place; NULL: there is none, or it has. */
extern const ScProgress *sc_progress_replacement(int64 query_id);

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

/*
 * Is a query behind "lsn" because of a writer, or of rows that are still to come?  And: nobody writes now, so all that
 * wait for a writer are due.
 */
extern bool sc_progress_is_behind(XLogRecPtr lsn);
extern void sc_progress_release(void);

/* When the next checkpoint, and the next attempt, is due for the sake of a query; 0: none is. */
extern ScMoment sc_progress_checkpoint_due(void);
extern ScMoment sc_progress_attempt_due(void);

/*
 * locked.c: of the queries that are to be retried now, those that can't get their locks are put off.  False:
 * none is left.  Outside of a transaction.
 */
extern bool sc_progress_retry_may_succeed(void);

/*
 * Looks at what was resumed: a query that waits is tried at once, one that the tasks don't run is wanted.
 * Needs a transaction.
 */
extern void sc_progress_review(int32 pipeline_id);

/*
 * Of queries that are new: is one there that this attempt knows nothing of?  Are the history and the first part of one on
 * their way?  And is none of those wanted any more, as the catalogs say?  Needs a transaction, but for the second.
 */
extern bool sc_progress_lacks_new(int32 pipeline_id);
extern bool sc_progress_has_history(void);
extern bool sc_progress_history_is_for_nobody(void);

/* Lets the reader know which of them aren't wanted any more, as the catalogs say.  Needs a transaction. */
extern void sc_progress_give_up_histories(void);

/* Does a query need a new attempt as soon as may be (sc_query_wants_attempt)? */
extern bool sc_progress_wants_attempt(void);

#endif							/* SC_WORKER_COORDINATOR_PROGRESS_H */
