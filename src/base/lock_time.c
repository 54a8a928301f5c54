/*-------------------------------------------------------------------------
 * lock_time.c
 *	  What all waits for locks of users' may take together (lock_time.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/settings.h"
#include "base/share.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

static int64 left_us;

void
sc_lock_time_begin(void)
{
	int			ms = sc_result_lock_timeout;

	if (sc_share_others_wait() && sc_query_share > 0)
		ms = Min(ms, sc_query_share / 2);
	left_us = ms * INT64CONST(1000);
}

int
sc_lock_time_left(void)
{
	return (int) (Min(left_us, sc_limit_left() / 2) / 1000);
}

void
sc_lock_time_spend(int64 us)
{
	left_us = Max(left_us - us, 0);
}

void
sc_lock_time_set_timeout(void)
{
	char		timeout[32];

	snprintf(timeout, sizeof(timeout), "%d", Max(sc_lock_time_left(), 1));
	(void) set_config_option("lock_timeout", timeout, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
refuse(Oid relid)
{
	char	   *name = get_rel_name(relid);

	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not obtain lock on relation \"%s\"", name ? name : ""),
			 errdetail("It is locked, and waits for other locks have taken the time that there is for such.")));
}

/* An error in the wait leaves nothing. */
static void
wait_for(Oid relid, LOCKMODE mode)
{
	int64		before = left_us;
	int			nest_level = NewGUCNestLevel();
	ScMoment	began;

	sc_lock_time_set_timeout();
	left_us = 0;
	began = sc_moment_now();
	LockRelationOid(relid, mode);
	left_us = before;
	sc_lock_time_spend(sc_moment_now() - began);
	AtEOXact_GUC(false, nest_level);
}

void
sc_lock_time_relation(Oid relid, LOCKMODE mode)
{
	if (ConditionalLockRelationOid(relid, mode))
		return;
	if (sc_lock_time_left() == 0)
		refuse(relid);
	wait_for(relid, mode);
}
