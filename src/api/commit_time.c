/*-------------------------------------------------------------------------
 * commit_time.c
 *	  commit_time(xmin) as a plain function: when a row was committed.
 *
 * In a continuous query it stands for the event time of streams with processing_time, and is never called
 * (query/commit_time.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/commit_ts.h"
#include "access/transam.h"
#include "api/api_internal.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(stream_ckpt_commit_time);

/* commit_time(xmin xid) -> timestamptz; NULL: it isn't known, or not committed. */
Datum
stream_ckpt_commit_time(PG_FUNCTION_ARGS)
{
	TransactionId xid = PG_GETARG_TRANSACTIONID(0);
	TimestampTz commit_time;

	if (!track_commit_timestamp)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("times of commits are not kept"),
				 errdetail("A plain query can know them only if track_commit_timestamp is on. A continuous query has them from the write-ahead log, whatever that says."),
				 errhint("Set track_commit_timestamp = on, and restart the server; rows that were committed before stay without.")));
	if (!TransactionIdIsNormal(xid) || !TransactionIdGetCommitTsData(xid, &commit_time, NULL))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(commit_time);
}
