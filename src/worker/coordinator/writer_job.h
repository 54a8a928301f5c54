/*-------------------------------------------------------------------------
 * writer_job.h
 *	  What a coordinator and its writer share: a memory segment with what is to be written, and what became of it.
 *
 * Made by the coordinator before the writer is started; what the writer says is read when it has ended.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_WRITER_JOB_H
#define SC_WORKER_COORDINATOR_WRITER_JOB_H

#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "ckpt/part.h"

typedef enum ScWriterResult
{
	SC_WRITER_NOTHING,			/* it said nothing */
	SC_WRITER_COMMITTED,
	SC_WRITER_FAILED,			/* "failure" is the query's */
	SC_WRITER_BLAMED,			/* the same, but it is what the query's code left for the commit */
	SC_WRITER_GAVE_UP			/* nothing is written, and nobody is at fault */
} ScWriterResult;

#define SC_FAILURE_BYTES (4 * (SC_MAX_ERROR_TEXT + 1) + 64)

typedef struct ScWriterJob
{
	/* the coordinator's */
	int64		query_id;
	int64		checkpoint_id;
	XLogRecPtr	lsn;			/* where the query is with the part */
	bool		has_rows;
	bool		has_history;
	int64		kept_until;		/* if it has: see ckpt/seen.h */
	bool		others_wait;	/* the pipeline has other queries, which may need the writer */
	ScOffset	offset;
	ScPartPlace place;

	/* the writer's */
	ScWriterResult result;
	int64		result_rows;
	int64		bytes;			/* of chunks */
	bool		user_code;		/* code of the owner's may have run */
	Size		failure_len;
	char		failure[SC_FAILURE_BYTES];	/* behind the length: at a multiple of 8 bytes */
} ScWriterJob;

#endif							/* SC_WORKER_COORDINATOR_WRITER_JOB_H */
