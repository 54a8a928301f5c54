/*-------------------------------------------------------------------------
 * plugin.c
 *	  The output plugin: what decoding calls for each change of a committed
 *	  transaction.
 *
 * The callbacks run under a historic snapshot.  Only copying happens here, and
 * the greatest event time is taken: no user code, no current catalogs.  Whoever
 * names the plugin outside one of our readers gets an error.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/process.h"
#include "base/settings.h"
#include "replication/message.h"
#include "replication/origin.h"
#include "replication/output_plugin.h"
#include "source/wal/capture.h"
#include "source/wal/decode_internal.h"
#include "source/wal/row.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "wire/logged_rows.h"

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *cb);

static void plugin_startup(LogicalDecodingContext *ctx,
						   OutputPluginOptions *options, bool is_init);
static void plugin_begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn);
static void plugin_change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
						  Relation relation, ReorderBufferChange *change);
static void plugin_truncate(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
							int nrelations, Relation relations[],
							ReorderBufferChange *change);
static void plugin_commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
						  XLogRecPtr commit_lsn);
static void plugin_message(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
						   XLogRecPtr lsn, bool transactional, const char *prefix,
						   Size size, const char *message);
static bool plugin_filter_origin(LogicalDecodingContext *ctx, ReplOriginId origin);

static void take_rows(ScDecoder *decoder, ReorderBufferTXN *txn, const char *message,
					  Size size);
static void write_commit(ScDecoder *decoder, ReorderBufferTXN *txn);
static void act_on_control(ScDecoder *decoder, ScControl *control);
static void write_controls(ScDecoder *decoder, ReorderBufferTXN *txn);
static void remember_xid(ScDecoder *decoder, TransactionId xid);

void
_PG_output_plugin_init(OutputPluginCallbacks *cb)
{
	cb->startup_cb = plugin_startup;
	cb->begin_cb = plugin_begin;
	cb->change_cb = plugin_change;
	cb->truncate_cb = plugin_truncate;
	cb->commit_cb = plugin_commit;
	cb->message_cb = plugin_message;
	cb->filter_by_origin_cb = plugin_filter_origin;
}

static void
plugin_startup(LogicalDecodingContext *ctx, OutputPluginOptions *options, bool is_init)
{
	if (is_init ? !sc_slot_creating : sc_decoder == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("output plugin \"%s\" serves the readers of stream_ckpt only",
						SC_PLUGIN_NAME),
				 errhint("To read a stream's results, query or publish its result tables.")));
	options->output_type = OUTPUT_PLUGIN_BINARY_OUTPUT;
	options->receive_rewrites = false;
}

/* A message that isn't ours: anybody may log one with our prefixes (model/control.h). */
static bool
is_forged(XLogReaderState *record, ReplOriginId origin)
{
	xl_logical_message *message;

	if (XLogRecGetRmid(record) != RM_LOGICALMSG_ID || origin == SC_MESSAGE_ORIGIN)
		return false;
	message = (xl_logical_message *) XLogRecGetData(record);
	return strcmp(message->message, SC_ROWS_PREFIX) == 0 ||
		strcmp(message->message, SC_CONTROL_PREFIX) == 0;
}

/*
 * What is dropped before it is queued: state chunks, which are written with that
 * origin, and forged messages.
 */
static bool
plugin_filter_origin(LogicalDecodingContext *ctx, ReplOriginId origin)
{
	return origin == DoNotReplicateId || is_forged(ctx->reader, origin);
}

/*
 * A transaction with an origin has the origin's time of commit, and none before its session has one: then it is its own,
 * as for commit timestamps (xact.c).  The record that is being decoded is that of its commit.
 */
static void
complete_commit_time(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	if (sc_txn_commit_time(txn) == 0 && XLogRecGetRmid(ctx->reader) == RM_XACT_ID)
		sc_txn_commit_time(txn) = ((xl_xact_commit *) XLogRecGetData(ctx->reader))->xact_time;
}

static void
plugin_begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	complete_commit_time(ctx, txn);
	sc_decoder->begun = false;
	sc_decoder->controls = sc_decoder->lost = NIL;
}

void
sc_write_begin(ScDecoder *decoder, ReorderBufferTXN *txn)
{
	bool		catalogs = rbtxn_has_catalog_changes(txn);
	ScWireBegin *begin;

	if (catalogs)
		sc_batch_flush(decoder->batch);
	begin = (ScWireBegin *) sc_batch_add(decoder->batch, SC_WIRE_BEGIN, 0,
										 sizeof(ScWireBegin));
	SC_WIRE_RECORD(begin)->flags = catalogs ? SC_WIRE_CATALOGS : 0;
	begin->xid = txn->xid;
	begin->history = InvalidOid;
	begin->end_lsn = txn->end_lsn;
	begin->commit_time = sc_txn_commit_time(txn);
	decoder->begun = true;
}

/* One change of a captured relation: an inserted row goes to the tasks; others are counted, and go if they are applied. */
static void
plugin_change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation relation,
			  ReorderBufferChange *change)
{
	ScDecoder  *decoder = sc_decoder;
	ScLayout   *layout = sc_capture_layout(relation, decoder->batch);

	if (layout->nstreams == 0)
		return;
	for (int i = 0; i < layout->nstreams; i++)
	{
		ScCapture  *capture = layout->streams[i].capture;

		sc_capture_touch(capture, sc_txn_commit_time(txn));
		if (change->action == REORDER_BUFFER_CHANGE_UPDATE)
			capture->summary.updates++;
		else if (change->action == REORDER_BUFFER_CHANGE_DELETE)
			capture->summary.deletes++;
	}
	if (change->action == REORDER_BUFFER_CHANGE_INSERT)
	{
		if (!decoder->begun)
			sc_write_begin(decoder, txn);
		sc_row_write(decoder->batch, layout, RelationGetDescr(relation), sc_change_new_tuple(change),
					 decoder->row_context);
	}
	else if (layout->applies)
		sc_write_change(decoder, txn, layout, relation, change);
}

/*
 * Copies a row, and takes its event time.  The row's body is copied as it is on
 * the page; only out-of-line values, and columns that it is older than, must be brought in first.
 */
void
sc_row_write(ScBatch *batch, ScLayout *layout, TupleDesc desc, HeapTuple tuple, MemoryContext context)
{
	bool		flattened = false;
	bool		cut = false;
	Size		len;
	MinimalTuple copy;

	if (HeapTupleHasExternal(tuple) ||
		HeapTupleHeaderGetNatts(tuple->t_data) < desc->natts)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		tuple = sc_flatten_row(tuple, desc, NULL, &cut);
		flattened = true;
		MemoryContextSwitchTo(old);
	}

	len = tuple->t_len - MINIMAL_TUPLE_OFFSET;
	copy = (MinimalTuple) sc_batch_add(batch, SC_WIRE_INSERT, layout->number, len);
	if (cut)
		SC_WIRE_RECORD(copy)->flags = SC_WIRE_CUT;
	memcpy(copy, (char *) tuple->t_data + MINIMAL_TUPLE_OFFSET, len);
	copy->t_len = len;

	for (int i = 0; i < layout->nstreams; i++)
	{
		layout->streams[i].capture->summary.rows++;
		sc_note_event_time(&layout->streams[i], tuple, desc);
	}
	if (flattened)
		MemoryContextReset(context);
}

static void
plugin_truncate(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, int nrelations,
				Relation relations[], ReorderBufferChange *change)
{
	for (int r = 0; r < nrelations; r++)
	{
		ScLayout   *layout = sc_capture_layout(relations[r], sc_decoder->batch);

		for (int i = 0; i < layout->nstreams; i++)
		{
			sc_capture_touch(layout->streams[i].capture, sc_txn_commit_time(txn));
			layout->streams[i].capture->summary.truncates++;
		}
		if (layout->applies)
			sc_write_truncate(sc_decoder, txn, layout, nrelations, relations);
	}
}

/* The event times of a message's rows, one by one. */
static void
note_event_times(ScCapture *capture, const char *records, const char *end, AttrNumber attno,
				 TupleDesc desc)
{
	for (; records < end; records += ((const ScWireRecord *) records)->len)
	{
		MinimalTuple row = SC_WIRE_TUPLE(records);
		HeapTupleData tuple;
		bool		isnull;
		Timestamp	ts;

		tuple.t_len = row->t_len + MINIMAL_TUPLE_OFFSET;
		tuple.t_data = (HeapTupleHeader) ((char *) row - MINIMAL_TUPLE_OFFSET);
		ts = DatumGetTimestamp(heap_getattr(&tuple, attno, desc, &isnull));
		if (!isnull)
			sc_capture_event_time(capture, ts);
	}
}

/*
 * Rows of a log stream.  They pass as they are; their writer has noted the
 * greatest event time, of one column.  They are looked at singly if it is implausible, and
 * if another column is asked for: the stream's options have changed since, or differ from a
 * partitioned table's.
 */
static void
write_rows(ScDecoder *decoder, ScLayout *layout, Relation relation, const char *message,
		   Size size)
{
	const ScRowsHeader *header = (const ScRowsHeader *) message;
	const char *records = message + sizeof(ScRowsHeader);

	sc_batch_add_rows(decoder->batch, layout->number, records, size - sizeof(ScRowsHeader));
	for (int i = 0; i < layout->nstreams; i++)
	{
		ScCapture  *capture = layout->streams[i].capture;
		AttrNumber	attno = layout->streams[i].event_time_attno;

		capture->summary.rows += header->nrows;
		if (attno == header->event_time_attno && header->max_event_time <= capture->limit)
			sc_capture_event_time(capture, header->max_event_time);
		else if (attno != 0)
			note_event_times(capture, records, message + size, attno,
							 RelationGetDescr(relation));
	}
}

/*
 * A message of rows of a log stream: passes it on if the relation is captured.  Fails if it isn't
 * such a message.
 */
static void
take_rows(ScDecoder *decoder, ReorderBufferTXN *txn, const char *message, Size size)
{
	const ScRowsHeader *header = (const ScRowsHeader *) message;
	Relation	relation;
	ScLayout   *layout;

	if (size < sizeof(ScRowsHeader) || header->magic != SC_ROWS_MAGIC)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a message of rows in the WAL has an invalid format")));

	/*
	 * The catalogs are those of the message's place in its transaction: a stream
	 * that is dropped later is there.  What isn't there cannot be captured.
	 */
	relation = RelationIdGetRelation(header->relid);
	if (!RelationIsValid(relation))
		return;
	layout = sc_capture_layout(relation, decoder->batch);
	if (layout->nstreams > 0)
	{
		for (int i = 0; i < layout->nstreams; i++)
			sc_capture_touch(layout->streams[i].capture, sc_txn_commit_time(txn));
		if (!decoder->begun)
			sc_write_begin(decoder, txn);
		write_rows(decoder, layout, relation, message, size);
	}
	RelationClose(relation);
}

/*
 * A stream was idle, says its coordinator.  Stands between two transactions, as the
 * message does in the WAL.
 */
static void
take_idle(LogicalDecodingContext *ctx, const ScControl *control)
{
	ScWireIdle *idle;

	idle = (ScWireIdle *) sc_batch_add(sc_decoder->batch, SC_WIRE_IDLE, 0,
									   sizeof(ScWireIdle));
	idle->relid = control->stream_relid;
	idle->unused = 0;
	idle->end_lsn = ctx->reader->EndRecPtr;
	idle->idle_since = control->idle_since;
	idle->idle_at = control->idle_at;
	sc_decoder->work = true;
}

/* Keeps a control message until the end of its transaction. */
static List *
keep_control(List *list, const ScControl *control)
{
	MemoryContext old = MemoryContextSwitchTo(sc_decoder->control_context);

	list = lappend(list, memcpy(palloc(sizeof(ScControl)), control, sizeof(ScControl)));
	MemoryContextSwitchTo(old);
	return list;
}

/* Deletions of the stream's rows that come behind it in the transaction are ignored; or a partition's rows go. */
static void
take_deletions(ScDecoder *decoder, ReorderBufferTXN *txn, const ScControl *control)
{
	ScCapture  *capture = sc_capture_find(control->stream_relid);

	if (capture == NULL || !capture->applies)
		return;
	sc_capture_touch(capture, sc_txn_commit_time(txn));
	if (!decoder->begun)
		sc_write_begin(decoder, txn);
	if (control->kind == SC_CONTROL_IGNORE_DELETES)
	{
		ScWireIgnore *ignore = (ScWireIgnore *) sc_batch_add(decoder->batch, SC_WIRE_IGNORE, 0, sizeof(ScWireIgnore));

		ignore->relid = control->stream_relid;
		ignore->unused = 0;
	}
	else
	{
		ScWireLost *lost = (ScWireLost *) sc_batch_add(decoder->batch, SC_WIRE_LOST, 0, sizeof(ScWireLost));

		lost->relid = control->stream_relid;
		lost->partition = control->partition;
		lost->times = control->times;
		decoder->lost = keep_control(decoder->lost, control);
	}
}

/*
 * For whoever has queries that read the stream.  Whether we have is known when the transaction ends: it
 * can create one.
 */
static bool
is_for_stream(const ScControl *control)
{
	return control->kind == SC_CONTROL_ALTER_STREAM ||
		control->kind == SC_CONTROL_RESET_WATERMARK;
}

/* Rows pass at once; control messages wait for the end of their transaction. */
static void
plugin_message(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr lsn,
			   bool transactional, const char *prefix, Size size, const char *message)
{
	ScControl	control;

	if (transactional && strcmp(prefix, SC_ROWS_PREFIX) == 0)
	{
		take_rows(sc_decoder, txn, message, size);
		return;
	}
	if (strcmp(prefix, SC_CONTROL_PREFIX) != 0 ||
		!sc_control_parse(message, size, &control))
		return;
	if (control.kind == SC_CONTROL_IGNORE_DELETES || control.kind == SC_CONTROL_LOST_PARTITION)
	{
		if (transactional)
			take_deletions(sc_decoder, txn, &control);
		return;
	}
	if (!is_for_stream(&control) && control.pipeline_id != sc_decoder->pipeline_id)
		return;
	if (control.kind == SC_CONTROL_IDLE && !transactional)
		take_idle(ctx, &control);
	if (!transactional || control.kind == SC_CONTROL_IDLE)
		return;					/* a marker needs no action: its place is all */

	sc_decoder->controls = keep_control(sc_decoder->controls, &control);
}

static void
plugin_commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	ScDecoder  *decoder = sc_decoder;

	if (sc_capture_touched() != NIL)
		write_commit(decoder, txn);
	if (decoder->controls != NIL)
		write_controls(decoder, txn);
	MemoryContextReset(decoder->control_context);
	decoder->controls = decoder->lost = NIL;
	decoder->begun = false;
}

/* Ends the transaction's rows: each touched stream's greatest event time and counters go with it. */
static void
write_commit(ScDecoder *decoder, ReorderBufferTXN *txn)
{
	List	   *streams = sc_capture_touched();
	ScWireCommit *commit;
	ScWireSummary *summary;
	ListCell   *lc;

	if (!decoder->begun)
		sc_write_begin(decoder, txn);
	commit = (ScWireCommit *)
		sc_batch_add(decoder->batch, SC_WIRE_COMMIT, 0,
					 sizeof(ScWireCommit) + list_length(streams) * sizeof(ScWireSummary));
	commit->xid = txn->xid;
	commit->nstreams = list_length(streams);
	commit->end_lsn = txn->end_lsn;
	commit->commit_time = sc_txn_commit_time(txn);
	summary = (ScWireSummary *) (commit + 1);
	foreach(lc, streams)
	{
		*summary = ((ScCapture *) lfirst(lc))->summary;
		sc_transaction_time_end(&summary->time);
		summary++;
	}
	sc_capture_reset_touched();
	remember_xid(decoder, txn->xid);
	decoder->work = true;
}

/*
 * What the reader itself does at a control message.  A query begins with what its transaction
 * left of the stream's options.
 */
static void
act_on_control(ScDecoder *decoder, ScControl *control)
{
	ListCell   *lc;

	if (control->kind == SC_CONTROL_ALTER_STREAM)
		(void) sc_capture_alter(control->stream_relid, control->options.max_ahead);
	if (control->kind != SC_CONTROL_CREATE_QUERY)
		return;
	foreach(lc, decoder->controls)
	{
		ScControl  *other = lfirst(lc);

		if (other->kind == SC_CONTROL_ALTER_STREAM &&
			other->stream_relid == control->stream_relid && control->has_options)
			control->options = other->options;
	}
	sc_capture_add(control->stream_relid, control->event_time_attno,
				   control->has_options ? control->options.max_ahead : SC_NO_LIMIT, control->applies);
	if (decoder->tasks_of_query)
		sc_capture_add_tasks(control->stream_relid, decoder->tasks_of_query(control));
}

/*
 * Sends the transaction's control messages, after its rows, each alone in a message.  Before that each
 * has its effect on the reader itself.
 */
static void
write_controls(ScDecoder *decoder, ReorderBufferTXN *txn)
{
	bool		any = false;
	ListCell   *lc;

	foreach(lc, decoder->controls)
	{
		ScControl  *control = lfirst(lc);
		ScWireControl *wire;

		act_on_control(decoder, control);
		if (is_for_stream(control) && !sc_capture_has(control->stream_relid))
			continue;
		any = true;
		wire = (ScWireControl *) sc_batch_add(decoder->batch, SC_WIRE_CONTROL, 0,
											  sizeof(ScWireControl));
		wire->xid = txn->xid;
		wire->unused = 0;
		wire->end_lsn = txn->end_lsn;
		wire->commit_time = sc_txn_commit_time(txn);
		wire->control = *control;
		sc_batch_flush(decoder->batch);
	}
	if (!any)
		return;
	remember_xid(decoder, txn->xid);
	decoder->work = true;
}

/* Keeps the xid for sc_decoder_unfinished; forgets those that are over. */
static void
remember_xid(ScDecoder *decoder, TransactionId xid)
{
	if (decoder->nxids == decoder->max_xids)
	{
		TransactionId *unused;

		(void) sc_decoder_unfinished(decoder, &unused);
		if (decoder->nxids > decoder->max_xids / 2)
		{
			decoder->max_xids *= 2;
			decoder->xids = repalloc(decoder->xids,
									 decoder->max_xids * sizeof(TransactionId));
		}
	}
	decoder->xids[decoder->nxids++] = xid;
}
