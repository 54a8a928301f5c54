/*-------------------------------------------------------------------------
 * lock_wait.h
 *	  Whether others wait for a lock that this process has.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_LOCK_WAIT_H
#define SC_BASE_LOCK_WAIT_H

/*
 * Does a session wait for AccessExclusiveLock on the relation?  (The server's LockHasWaitersRelation() can't be asked for
 * a lock that was taken by the fast path.)  Looks at every process: not to be called for each row.
 */
extern bool sc_lock_is_waited_for(Oid relid);

/* Does a session wait until this process's transaction has ended?  Likewise. */
extern bool sc_end_is_waited_for(void);

#endif							/* SC_BASE_LOCK_WAIT_H */
