/*-------------------------------------------------------------------------
 * sync.c
 *	  SQL function sync(): waits until what is committed is in the results.
 *
 * A result can be a stream: what is written into it is committed later than the row that brought it.  So what is below is
 * waited for first, and then, with another place in the log, what is above it (worker/frame/sync.c waits for one place).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "base/clock.h"
#include "base/process.h"
#include "miscadmin.h"
#include "model/levels.h"
#include "utils/pg_lsn.h"
#include "worker/frame/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_sync);

/* How many queries are one above the other, up to this one. */
static int
levels(const ScQuery *query, List *queries)
{
	int			below = 0;
	ListCell   *lc;

	check_stack_depth();
	foreach(lc, queries)
	{
		if (sc_query_reads(query, ((const ScQuery *) lfirst(lc))->relid))
			below = Max(below, levels(lfirst(lc), queries));
	}
	return below + 1;
}

/* Not negative. */
static int64
time_left(ScMoment deadline)
{
	return Max(deadline - sc_moment_now(), 0);
}

/* All queries, once for each level. */
static XLogRecPtr
sync_all(ScMoment deadline)
{
	List	   *queries = sc_query_list_all();
	int			n = 1;
	XLogRecPtr	result;
	ListCell   *lc;

	foreach(lc, queries)
		n = Max(n, levels(lfirst(lc), queries));
	result = sc_pipelines_sync(time_left(deadline));
	while (--n > 0)
		(void) sc_pipelines_sync(time_left(deadline));
	return result;
}

/* One query, behind those that it reads from. */
static XLogRecPtr
sync_one(const ScQuery *query, List *queries, ScMoment deadline)
{
	XLogRecPtr	result = InvalidXLogRecPtr;
	XLogRecPtr	lsn;
	ListCell   *lc;

	check_stack_depth();
	foreach(lc, queries)
	{
		if (!sc_query_reads(query, ((const ScQuery *) lfirst(lc))->relid))
			continue;
		lsn = sync_one(lfirst(lc), queries, deadline);
		result = XLogRecPtrIsInvalid(result) ? lsn : Min(result, lsn);
	}
	lsn = sc_query_sync(query->relid, time_left(deadline));
	return XLogRecPtrIsInvalid(result) ? lsn : result;
}

XLogRecPtr
sc_sync_all(int64 timeout)
{
	return sync_all(sc_moment_after(sc_moment_now(), timeout));
}

/* sync(timeout interval, query regclass): a place in the log; what was committed before it is in the results */
Datum
stream_ckpt_sync(PG_FUNCTION_ARGS)
{
	ScMoment	deadline;

	sc_refuse_in_worker("sync");
	deadline = sc_moment_after(sc_moment_now(), sc_arg_usecs(fcinfo, 0, "timeout"));
	/* a library that is newer than the extension: it has no query */
	if (PG_NARGS() > 1 && !PG_ARGISNULL(1))
		PG_RETURN_LSN(sync_one(sc_query_by_relid(PG_GETARG_OID(1), false), sc_query_list_all(), deadline));
	PG_RETURN_LSN(sync_all(deadline));
}
