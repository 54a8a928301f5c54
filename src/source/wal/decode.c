/*-------------------------------------------------------------------------
 * decode.c
 *	  The decoding loop: logical decoding in this process, record by record.
 *
 * PostgreSQL reorders the WAL into whole committed transactions and calls
 * plugin.c for each change.  This file owns the decoding context, and knows how
 * far the WAL has been read.
 *
 * The rule: decoding never starts before the slot's confirmed position.
 * CreateDecodingContext would go forward to it and skip the rows between without
 * a word, so the caller compares first, and this file checks again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam_xlog.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "base/compat.h"
#include "base/process.h"
#include "replication/decode.h"
#include "source/wal/capture.h"
#include "source/wal/decode_internal.h"
#include "source/wal/walread.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"

ScDecoder  *sc_decoder = NULL;

static void
write_nothing(LogicalDecodingContext *ctx, XLogRecPtr lsn, TransactionId xid,
			  bool last_write)
{
	elog(ERROR, "stream_ckpt's output plugin does not write");
}

/*
 * Minor releases since 2026-11 restrict output plugins.  This process needs only
 * ours, and nobody else's choice is widened.
 */
void
sc_allow_plugin(void)
{
	if (GetConfigOption("output_plugin_libraries", true, false) != NULL)
		SetConfigOption("output_plugin_libraries", SC_PLUGIN_NAME,
						PGC_SUSET, PGC_S_SESSION);
}

ScDecoder *
sc_decoder_start(int32 pipeline_id, XLogRecPtr start, ScBatch *batch)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ScDecoder  *decoder = palloc0(sizeof(ScDecoder));

	Assert(sc_my_process == SC_PROCESS_READER);
	decoder->batch = batch;
	decoder->pipeline_id = pipeline_id;
	decoder->row_context = AllocSetContextCreate(TopMemoryContext,
												 "stream_ckpt decoded rows",
												 ALLOCSET_DEFAULT_SIZES);
	decoder->control_context = AllocSetContextCreate(TopMemoryContext,
													 "stream_ckpt decoded controls",
													 ALLOCSET_SMALL_SIZES);
	decoder->max_xids = 64;
	decoder->xids = palloc(decoder->max_xids * sizeof(TransactionId));
	sc_decoder = decoder;

	if (start < MyReplicationSlot->data.confirmed_flush)
		elog(ERROR, "slot \"%s\" is ahead of the checkpoint",
			 NameStr(MyReplicationSlot->data.name));
	sc_allow_plugin();
	decoder->ctx = CreateDecodingContext(start, NIL, false,
										 XL_ROUTINE(.page_read = sc_wal_page_read,
													.segment_open = wal_segment_open,
													.segment_close = wal_segment_close),
										 write_nothing, write_nothing, NULL);
	if (XLogRecPtrIsInvalid(MyReplicationSlot->data.restart_lsn))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slot \"%s\" was invalidated",
						NameStr(MyReplicationSlot->data.name))));
	XLogBeginRead(decoder->ctx->reader, MyReplicationSlot->data.restart_lsn);
	InvalidateSystemCaches();
	MemoryContextSwitchTo(old);
	return decoder;
}

/*
 * Where the next record begins that follows one which ends at "lsn": at the end of a
 * page that is behind the next page's header.
 */
static XLogRecPtr
behind_page_header(XLogRecPtr lsn)
{
	if (XLogSegmentOffset(lsn, wal_segment_size) == 0)
		return lsn + SizeOfXLogLongPHD;
	if (lsn % XLOG_BLCKSZ == 0)
		return lsn + SizeOfXLogShortPHD;
	return lsn;
}

void
sc_decoder_leave_out(ScDecoder *decoder, ScIsNoStreams is_no_streams)
{
	decoder->is_no_streams = is_no_streams;
}

void
sc_decoder_place(ScDecoder *decoder, ScTasksOfQuery tasks_of_query)
{
	decoder->tasks_of_query = tasks_of_query;
}

/* Is it about rows of one table? */
static bool
changes_rows(XLogReaderState *reader)
{
	uint8		op = XLogRecGetInfo(reader) & XLOG_HEAP_OPMASK;

	if (XLogRecGetRmid(reader) == RM_HEAP2_ID)
		return op == XLOG_HEAP2_MULTI_INSERT;
	if (XLogRecGetRmid(reader) != RM_HEAP_ID)
		return false;
	return op == XLOG_HEAP_INSERT || op == XLOG_HEAP_DELETE || op == XLOG_HEAP_UPDATE ||
		op == XLOG_HEAP_HOT_UPDATE || op == XLOG_HEAP_CONFIRM;
}

/*
 * Leaves the record out if it is known to concern no stream.  Decoding still learns of its
 * transaction: which one a subtransaction belongs to is said in the first record only.
 */
static bool
leave_out(ScDecoder *decoder)
{
	XLogReaderState *reader = decoder->ctx->reader;
	TransactionId xid = XLogRecGetXid(reader);
	TransactionId top = XLogRecGetTopXid(reader);
	RelFileLocator file;

	if (!decoder->is_no_streams || !changes_rows(reader))
		return false;
	XLogRecGetBlockTag(reader, 0, &file, NULL, NULL);
	if (!decoder->is_no_streams(xid, &file, reader->ReadRecPtr))
		return false;
	if (TransactionIdIsValid(top))
		ReorderBufferAssignChild(decoder->ctx->reorder, top, xid, reader->ReadRecPtr);
	ReorderBufferProcessXid(decoder->ctx->reorder, xid, reader->ReadRecPtr);
	return true;
}

bool
sc_decoder_step(ScDecoder *decoder)
{
	XLogReaderState *reader = decoder->ctx->reader;
	char	   *message = NULL;
	XLogRecord *record;

	record = XLogReadRecord(reader, &message);
	if (message)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not read WAL at %X/%X: %s",
						LSN_FORMAT_ARGS(reader->EndRecPtr), message)));
	if (!record)
	{
		XLogBeginRead(reader, behind_page_header(reader->EndRecPtr));
		return false;
	}
	/* at a commit the decoding opens a transaction */
	if (XLogRecGetRmid(reader) == RM_XACT_ID)
		sc_process_works();
	if (!leave_out(decoder))
		LogicalDecodingProcessRecord(decoder->ctx, reader);
	return true;
}

XLogRecPtr
sc_decoder_position(const ScDecoder *decoder)
{
	return decoder->ctx->reader->EndRecPtr;
}

bool
sc_decoder_take_work(ScDecoder *decoder)
{
	bool		work = decoder->work;

	decoder->work = false;
	return work;
}

int
sc_decoder_unfinished(ScDecoder *decoder, TransactionId **xids)
{
	int			n = 0;

	for (int i = 0; i < decoder->nxids; i++)
	{
		if (TransactionIdIsInProgress(decoder->xids[i]))
			decoder->xids[n++] = decoder->xids[i];
	}
	decoder->nxids = n;
	*xids = decoder->xids;
	return n;
}
