/*-------------------------------------------------------------------------
 * lock_wait.c
 *	  Whether others wait for a lock that this process has (lock_wait.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/lock_wait.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

/*
 * Does anybody wait for the lock with this tag, in this mode?  Who waits for this very lock stays so while its partition of
 * the lock table is locked.  Others come and go, but what they point to is an entry of the lock table at all times, if not
 * always the one that they waited for.
 */
static bool
is_waited_for(LOCKTAG tag, LOCKMODE mode)
{
	LWLock	   *partition = LockHashPartitionLock(LockTagHashCode(&tag));
	bool		found = false;

	LWLockAcquire(partition, LW_SHARED);
	for (uint32 i = 0; i < ProcGlobal->allProcCount && !found; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];
		const LOCK *lock = *(LOCK *const volatile *) &proc->waitLock;

		found = lock != NULL && memcmp(&lock->tag, &tag, sizeof(LOCKTAG)) == 0 &&
			proc->waitLockMode == mode;
	}
	LWLockRelease(partition);
	return found;
}

bool
sc_lock_is_waited_for(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return is_waited_for(tag, AccessExclusiveLock);
}

bool
sc_end_is_waited_for(void)
{
	VirtualTransactionId vxid;
	LOCKTAG		tag;

	GET_VXID_FROM_PGPROC(vxid, *MyProc);
	SET_LOCKTAG_VIRTUALTRANSACTION(tag, vxid);
	return is_waited_for(tag, ShareLock);
}
