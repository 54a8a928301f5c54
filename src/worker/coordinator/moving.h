/*-------------------------------------------------------------------------
 * moving.h
 *	  Queries that move from one pipeline to another: what the coordinators of both do.
 *
 * "Giver" is the pipeline where the query is, "target" the one where it is to be.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_MOVING_H
#define SC_WORKER_COORDINATOR_MOVING_H

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

/* ---------- the target ---------- */

/*
 * What the catalogs say is to come here, by one look at them (ScQuery *).  At an attempt's beginning to be called
 * before its own queries are read: whatever moves in between is in both lists, and in none it never is.
 */
extern List *sc_moving_arrivals(void);

/*
 * Holds the slot for them from "held" on, which nothing that was told to the reader is beyond.  Those that aren't to
 * come any more are let go; those that have come are queries of this pipeline, that don't run yet.  Needs a
 * transaction.
 */
extern void sc_moving_expect(List *arrivals, XLogRecPtr held);

/* The attempt begins: nothing is promised to anybody.  And: what is held from now on is told to the givers. */
extern void sc_moving_begin(void);
extern void sc_moving_tell(void);

/* ---------- the giver ---------- */

/* The wishes of the catalogs.  Needs a transaction. */
extern void sc_moving_load(void);

/*
 * Does what is due, for both sides, each in a transaction of its own; outside of one.  Returns milliseconds until
 * something may be; -1: only when told.
 */
extern long sc_moving_look(void);

/* Are there queries that run, and are to leave, whose history is in their results? */
extern bool sc_moving_are_leaving(void);

/* Is a query ready to go with the next checkpoint?  Which ones, for the barrier: "ids" has room for SC_WIRE_LEFT_OUT. */
extern bool sc_moving_is_ready(void);
extern void sc_moving_leave(int64 *ids);

/*
 * The last part of the query, at "lsn", is written in the current transaction: may it be the target's with it?  True:
 * it is.  False: somebody has changed his mind, or is about to; the query is paused here then, and goes on by itself.
 */
extern bool sc_moving_hand_over(int64 query_id, XLogRecPtr lsn);

/* That is committed. */
extern void sc_moving_gone(int64 query_id);

#endif							/* SC_WORKER_COORDINATOR_MOVING_H */
