/*-------------------------------------------------------------------------
 * period.c
 *	  Whether one owner's queries hold up the others for longer than a go (base/limit.h).
 *
 * A query that takes just less than its share in each message is never interrupted, and can take
 * nearly all of the task's time for hours.  So the task looks at whole periods in which messages
 * waited all the time.  If the queries of one owner took more than half of the period, while others have
 * queries too, and what is processed fell further behind the clock, the one that took the most fails, as if
 * it had been interrupted.  At most one does in a period.
 *
 * The rule: a task that gets on strikes nobody, however long it has to catch up.  And what is large
 * isn't slow: a query must have taken longer than its rows and groups allow, which is a multiple of what
 * the server's own functions need.  Who loads more rows than the task takes, for minutes, is no reason to fail
 * an honest query.  In a large transaction, whose commit comes once for many rows, they allow more.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/limit.h"
#include "base/settings.h"
#include "worker/frame/loop.h"
#include "worker/task/task_internal.h"

/* Microseconds that a row or group allows where transactions end all the time */
#define ROW_US	(SC_LIMIT_UNIT_US / 4)

static ScMoment began;			/* the period; 0: nothing waits */
static TimestampTz commit_time_then;	/* of what was processed when it began */
static XLogRecPtr last_lsn;		/* of the last transaction end */
static ScMoment last_end;		/* when that was, or "began" */
static int64 longest;			/* microseconds without a transaction end */

/* Of a period that is over */
static int64 elapsed;			/* microseconds that it took, */
static int64 taken;				/* and those of the queries of the owner who took most */

/* Begins a period: nothing is charged to any query. */
static void
begin(ScMoment now, XLogRecPtr lsn, TimestampTz commit_time)
{
	ListCell   *lc;

	began = last_end = now;
	commit_time_then = commit_time;
	last_lsn = lsn;
	longest = 0;
	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		query->took_us = query->took_units = 0;
	}
}

/* Microseconds of an owner's queries; *most: which of them took the most. */
static int64
time_of(Oid owner, ScTaskQuery **most)
{
	int64		result = 0;
	ListCell   *lc;

	*most = NULL;
	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		if (query->query->owner != owner)
			continue;
		result += query->took_us;
		if (*most == NULL || query->took_us > (*most)->took_us)
			*most = query;
	}
	return result;
}

/*
 * The query that took the most of an owner whose queries took more than half of the period; NULL: nobody's did,
 * or there are no others.
 */
static ScTaskQuery *
find_greedy(void)
{
	List	   *owners = NIL;
	ScTaskQuery *result = NULL;
	ListCell   *lc;

	foreach(lc, sc_task_queries())
		owners = list_append_unique_oid(owners, ((ScTaskQuery *) lfirst(lc))->query->owner);
	foreach(lc, owners)
	{
		ScTaskQuery *most;
		int64		us = time_of(lfirst_oid(lc), &most);

		if (list_length(owners) == 1 || us <= elapsed / 2)
			continue;
		result = most;
		taken = us;
	}
	list_free(owners);
	return result;
}

static void
throw_error(const ScTaskQuery *query)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("the query took %d %% of the task's time for %d s while queries of others waited and fell behind",
					(int) (query->took_us * 100 / elapsed), (int) (elapsed / USECS_PER_SEC)),
			 errdetail("All queries of its owner took %d %%.", (int) (taken * 100 / elapsed)),
			 errhint("Make its expressions faster, or put it into a pipeline of its own; \"stream_ckpt.query_share\" = 0 lifts this bound. Once it has failed, it goes on after stream_ckpt.resume_query().")));
}

/* The period is over. */
static void
judge(TimestampTz commit_time)
{
	ScTaskQuery *greedy;
	int64		unit_us = longest <= elapsed / 2 ? ROW_US : SC_LIMIT_UNIT_US;

	if (sc_query_share == 0 || commit_time - commit_time_then >= elapsed)
		return;
	sc_begin_transaction();
	greedy = find_greedy();
	if (greedy && greedy->took_us > greedy->took_units * unit_us)
		sc_task_query_fail(greedy, throw_error);
	sc_commit_transaction();
}

void
sc_task_period_look(XLogRecPtr lsn, TimestampTz commit_time)
{
	ScMoment	now = sc_moment_now();

	if (commit_time == 0)
		return;					/* nothing to compare with */
	if (began == 0)
		begin(now, lsn, commit_time);
	if (lsn != last_lsn || now - began >= SC_SHARE_PERIOD_MS * INT64CONST(1000))
	{
		longest = Max(longest, now - last_end);
		last_end = now;
		last_lsn = lsn;
	}
	elapsed = now - began;
	if (elapsed < SC_SHARE_PERIOD_MS * INT64CONST(1000))
		return;
	judge(commit_time);
	begin(now, lsn, commit_time);
}

void
sc_task_period_break(void)
{
	began = 0;
}
