/*-------------------------------------------------------------------------
 * writer.c
 *	  The writer of a large part: a process that writes it in one transaction, says what became of that, and ends.
 *
 * The rule: it never writes for an attempt that is over.  Its place is taken before it reads whose attempt it is, and
 * the next attempt's coordinator waits for that place to be free after it has counted itself.  So either it reads
 * the new number, and fails, or the other one waits until its transaction has ended.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/debug.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/share.h"
#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "worker/coordinator/checkpoint_internal.h"
#include "worker/coordinator/writer_job.h"
#include "worker/frame/loop.h"
#include "worker/frame/own_rows.h"
#include "worker/frame/workers.h"

static void writer_main(void);

void
stream_ckpt_writer_main(Datum arg)
{
	ScPipelineShared *pipeline = &sc_shared->pipelines[DatumGetInt32(arg)];

	sc_worker_run(SC_PROCESS_WRITER, DatumGetInt32(arg), &pipeline->writer, writer_main);
}

/* Tells the coordinator of the failure, which it reads when this process has ended. */
static ScWriterResult
tell_failure(ScWriterJob *job, const ScFailure *failure, ScWriterResult result)
{
	StringInfoData buf;

	initStringInfo(&buf);
	sc_failure_write(&buf, failure);
	if (buf.len > sizeof(job->failure))
		elog(ERROR, "a failure of %d bytes is too long", buf.len);
	memcpy(job->failure, buf.data, buf.len);
	job->failure_len = buf.len;
	return result;
}

/*
 * Writes the part in the current transaction, in a subtransaction of its own.  Others can have large parts, too, so the
 * query's code and locks have the time that they have in a checkpoint.
 */
static ScWriterResult
write_part(ScWriterJob *job, int64 attempt)
{
	ScStore    *store = sc_store_begin_part(sc_my_pipeline->pipeline_id, attempt, job->checkpoint_id);
	/* without an LSN: the query is apart, wherever the others are when this is committed */
	ScCheckpointRecord record = {.pipeline_id = sc_my_pipeline->pipeline_id,.attempt = attempt,
	.checkpoint_id = job->checkpoint_id};
	ScCollectedQuery collected = {.query_id = job->query_id,.has_rows = job->has_rows,.has_history = job->has_history,.kept_until = job->kept_until,
	.offset = job->offset,.lsn = job->lsn};
	ScWrittenPart written = {0};
	ScFailure  *failure;

	collected.query = sc_query_by_id(job->query_id, true);
	if (!collected.query)
		return SC_WRITER_GAVE_UP;
	collected.part = sc_part_open(TopMemoryContext, &job->place);
	sc_share_begin();
	sc_share_add(collected.query->owner);
	if (job->others_wait)
		sc_share_add(InvalidOid);
	sc_lock_time_begin();
	failure = sc_checkpoint_part(store, &collected, &record, &written);
	job->result_rows = written.rows.nrows;
	job->bytes = written.bytes;
	job->user_code = written.rows.user_code;
	if (failure)
		return tell_failure(job, failure, SC_WRITER_FAILED);
	sc_store_end_part(store);
	if (written.rows.user_code)
		sc_limit_begin_all(list_make1_oid(collected.query->owner));
	return SC_WRITER_COMMITTED;
}

/*
 * The job's transaction.  An error of the commit is that of the query's code, if any ran; if the commit has succeeded
 * all the same, nothing failed.
 */
static ScWriterResult
try_job(ScWriterJob *job, int64 attempt)
{
	MemoryContext context = CurrentMemoryContext;
	volatile TransactionId xid = InvalidTransactionId;
	volatile ScWriterResult result = SC_WRITER_NOTHING;
	volatile bool written = false;

	PG_TRY();
	{
		SC_DEBUG_POINT("writer_before_write");
		sc_begin_transaction();
		xid = GetCurrentTransactionId();
		result = write_part(job, attempt);
		if (result == SC_WRITER_COMMITTED)
		{
			SC_DEBUG_POINT("writer_before_commit");
			written = true;
			sc_commit_transaction();
			sc_limit_end();
		}
		else
			AbortOutOfAnyTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (!written)
			PG_RE_THROW();
		error = sc_take_query_error(context);
		AbortOutOfAnyTransaction();
		if (TransactionIdDidCommit(xid))
			result = SC_WRITER_COMMITTED;
		else if (job->user_code)
			result = tell_failure(job, sc_failure_from_error(error), SC_WRITER_BLAMED);
		else
			result = SC_WRITER_GAVE_UP;
		FreeErrorData(error);
	}
	PG_END_TRY();
	return result;
}

/* The writer's life. */
static void
writer_main(void)
{
	ScWorkerArg arg;
	dsm_segment *segment;
	ScWriterJob *job;
	ScWriterResult result;

	memcpy(&arg, MyBgworkerEntry->bgw_extra, sizeof(arg));
	/* what a crash loses is made again from the WAL */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	segment = dsm_attach(arg.job);
	if (!segment)
		proc_exit(1);			/* its coordinator has ended */
	dsm_pin_mapping(segment);
	job = dsm_segment_address(segment);
	sc_worker_context.query_id = job->query_id;
	sc_worker_context.checkpoint_id = job->checkpoint_id;
	sc_worker_context.lsn = job->lsn;
	result = try_job(job, arg.attempt);
	sc_own_rows_end();
	SC_DEBUG_POINT("writer_after_commit");
	job->result = result;
	/* other pipelines may read the result, or what its triggers write */
	if (result == SC_WRITER_COMMITTED && job->result_rows > 0)
		sc_shared_wake_readers();
	SC_DEBUG_POINT("writer_before_end");
}
