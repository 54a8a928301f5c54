/*-------------------------------------------------------------------------
 * locked.c
 *	  Queries that failed because a lock was somebody else's, and are to be tried again.
 *
 * For that everybody's attempt restarts, and all wait while the query is loaded.  So the lock is
 * tried first, without a wait, by the coordinator; the query is put off as long as it isn't to be had,
 * which costs the others nothing and doesn't count as a failure.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/debug.h"
#include "catalog/pg_inherits.h"
#include "model/catalog.h"
#include "storage/lmgr.h"
#include "worker/coordinator/progress.h"
#include "worker/frame/loop.h"

/* The partitions, or whatever inherits, whose rows a query that is new begins with. */
static bool
gets_parts(Oid relid)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			return false;
	}
	return true;
}

/* Could the query be loaded, or its part be written, as far as its own relations go?  Takes the locks. */
static bool
gets_locks(const ScProgress *entry)
{
	const ScQuery *query = sc_query_by_id(entry->query_id, true);

	if (!query)
		return true;
	/* what it was that failed */
	if (entry->life.is_void)
		return ConditionalLockRelationOid(query->relid, RowExclusiveLock);
	if (!ConditionalLockRelationOid(query->definition, AccessShareLock) ||
		!ConditionalLockRelationOid(query->stream_relid, AccessShareLock))
		return false;
	return !entry->is_new || gets_parts(query->stream_relid);
}

bool
sc_progress_retry_may_succeed(void)
{
	ScMoment	now = sc_moment_now();
	bool		result = false;
	ListCell   *lc;

	sc_begin_transaction();
	if (!sc_extension_exists())
		result = true;			/* whoever begins anew finds out */
	foreach(lc, sc_progress_list())
	{
		ScProgress *entry = lfirst(lc);
		ScMoment	due = sc_query_attempt_due(&entry->life);

		if (result || due == 0 || due > now)
			continue;
		if (entry->locked && !gets_locks(entry))
			sc_query_move(entry->query_id, &entry->life, SC_QUERY_RETRYING,
						  sc_retry_at(entry->failures + entry->put_off++));
		else
			result = true;
	}
	sc_commit_transaction();
	if (!result)
		SC_DEBUG_POINT("coordinator_put_off");
	return result;
}
