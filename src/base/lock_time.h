/*-------------------------------------------------------------------------
 * lock_time.h
 *	  What all waits for locks of users' may take together, in one checkpoint or in the loading
 *	  of a task's queries.
 *
 * Whoever comes when the time is used up gets his lock if it is free, and else is tried another
 * time.  So many locked tables hold up the others for no longer than one.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_LOCK_TIME_H
#define SC_BASE_LOCK_TIME_H

#include "storage/lockdefs.h"

/*
 * A new budget for a round (share.h): stream_ckpt.result_lock_timeout; while others wait half of
 * stream_ckpt.query_share at most.
 */
extern void sc_lock_time_begin(void);

/* Milliseconds of it that are left; half of what the go has of a share at most, so that the wait ends before it. */
extern int	sc_lock_time_left(void);

/* So many microseconds were waited, by whoever measured it. */
extern void sc_lock_time_spend(int64 us);

/*
 * Locks a relation until the end of the (sub)transaction within what is left; else
 * ERRCODE_LOCK_NOT_AVAILABLE.  The relation may be gone all the same.
 */
extern void sc_lock_time_relation(Oid relid, LOCKMODE mode);

/* Sets lock_timeout to what is left (1 ms at least) in the current settings nest level. */
extern void sc_lock_time_set_timeout(void);

#endif							/* SC_BASE_LOCK_TIME_H */
