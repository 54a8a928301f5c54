/*-------------------------------------------------------------------------
 * history.c
 *	  Reading the history of streams (history.h).
 *
 * A query that is new begins with the rows that its stream's table holds.  They go to the tasks as decoded rows do,
 * before all that is decoded, and no barrier comes before their end: so all of them are in the query's first part, and
 * until that is committed a crash leaves nothing.
 *
 *	 start    decoding begins here: rows committed at or before it aren't met
 *	 S        a snapshot that shows all of them, perhaps some that were committed since
 *	 until    the log's end after that: what S shows ends at or before it
 *
 * Of what is decoded from "start" on the query skips the transactions that S shows (ckpt/seen.h).
 *
 * The rules.  Before S is taken, whoever has committed at or before "start" is visible: a transaction is in the log a
 * moment, or for as long as it waits for a standby, before that.  S is taken with the locks held, because an older one
 * sees nothing of a table that is rewritten.  And all of this comes before there is a decoder: with one the server leaves
 * this process out where it looks which rows are still seen (PROC_IN_LOGICAL_DECODING), and VACUUM removes them.
 *
 * Event time: rows are in the order of the table, not of time.  A first pass over them notes for each CHUNK_ROWS of
 * them the least event time that is still to come; the watermark never goes beyond that.  So no row of a history is
 * late, and a table in the order of time needs no more state than its stream does.  Both passes see the same
 * rows in the same order.  The rest of the time follows behind the last row, in steps.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/by_id.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/debug.h"
#include "base/settings.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "model/catalog_write.h"
#include "source/wal/capture.h"
#include "source/wal/row.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/frame/loop.h"
#include "worker/reader/history.h"
#include "worker/reader/history_internal.h"

/* Rows between looks at what the watermark may do; few where tests look at that */
#ifdef SC_DEBUG
#define CHUNK_ROWS		50
#else
#define CHUNK_ROWS		65536
#endif
#define TIME_STEPS		256		/* behind the last row; each of them closes what windows it passes */

/* One stream's history: lives in its transaction. */
typedef struct History
{
	ScBatch    *batch;
	XLogRecPtr	start;
	const ScStream *stream;
	bool		in_order;		/* the watermark moves with the rows */
	List	   *leaves;			/* ScHistoryLeaf *, in the order in which they are read */
	ScSeen	   *seen;
	MemoryContext row_context;

	int64	   *minima;			/* of each chunk's event times; then of all behind it, itself included */
	int			nminima;
	int			maxminima;
	ScTransactionTime time;		/* of all rows */

	ScWireSummary sent;			/* what the transaction ends say so far */
	int64		rows;
} History;

/* ---------------------------------------------------------------------
 * Tables
 * --------------------------------------------------------------------- */

/* Opens one if its rows are decoded, too, as the stream's; sends its layout. */
static void
open_leaf(History *history, Oid relid)
{
	Relation	relation = table_open(relid, NoLock);
	ScLayout   *layout;

	if (relation->rd_rel->relkind != RELKIND_RELATION || !RelationIsLogicallyLogged(relation))
	{
		table_close(relation, NoLock);
		return;
	}
	layout = sc_capture_layout(relation, history->batch);
	for (int i = 0; i < layout->nstreams; i++)
	{
		ScHistoryLeaf *leaf;

		if (layout->streams[i].capture->relid != history->stream->relid)
			continue;
		leaf = palloc0(sizeof(ScHistoryLeaf));
		leaf->relation = relation;
		leaf->event_time_attno = layout->streams[i].event_time_attno;
		leaf->blocks = RelationGetNumberOfBlocks(relation);
		history->leaves = lappend(history->leaves, leaf);
		return;
	}
	table_close(relation, NoLock);
}

/*
 * Begins the transaction of a history: locks, then the snapshot.  Nobody changes the stream's options in between, so
 * those that were read are the snapshot's.
 */
static void
begin(History *history, Oid relid)
{
	Snapshot	snapshot;
	ListCell   *lc;

	Assert(!(MyProc->statusFlags & PROC_IN_LOGICAL_DECODING));
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactIsoLevel = XACT_REPEATABLE_READ;
	XactReadOnly = true;
	sc_history_lock(relid);
	if (!sc_stream_lock_conditional(relid, ShareLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the options of stream \"%s\" are being changed", get_rel_name(relid))));
	history->stream = sc_stream_by_relid(relid, false);
	SC_DEBUG_POINT("history_before_snapshot");
	snapshot = GetTransactionSnapshot();
	PushActiveSnapshot(snapshot);
	history->seen = sc_seen_of_snapshot(snapshot, GetXLogInsertRecPtr(), GetCurrentTimestamp());
	sc_stream_unlock(relid, ShareLock);
	SC_DEBUG_POINT("history_after_snapshot");
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		if (!sc_history_has_locked(lfirst_oid(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("table \"%s\" has become a part of the stream just now", get_rel_name(lfirst_oid(lc)))));
	}
	sc_capture_add(relid, history->stream->event_time_attno, history->stream->options.max_ahead, history->stream->applies);
	foreach(lc, sc_history_leaves(relid, NIL))
		open_leaf(history, lfirst_oid(lc));
	history->row_context = AllocSetContextCreate(CurrentMemoryContext, "stream_ckpt rows of a history",
												 ALLOCSET_DEFAULT_SIZES);
}

static void
end(History *history)
{
	ListCell   *lc;

	Assert(!(MyProc->statusFlags & PROC_IN_LOGICAL_DECODING));
	foreach(lc, history->leaves)
		table_close(((ScHistoryLeaf *) lfirst(lc))->relation, NoLock);
	PopActiveSnapshot();
	Assert(!TransactionIdIsValid(GetTopTransactionIdIfAny()));
	CommitTransactionCommand();
}

/* ---------------------------------------------------------------------
 * Passes
 * --------------------------------------------------------------------- */

static void
set_phase(ScHistoryPhase phase)
{
	sc_my_pipeline->history.phase = phase;
	ConditionVariableBroadcast(&sc_my_pipeline->cv);
}

static int64 *
minimum_of_chunk(History *history, int64 rows)
{
	int			chunk = (int) (rows / CHUNK_ROWS);

	if (chunk == history->maxminima)
	{
		history->maxminima *= 2;
		history->minima = repalloc_huge(history->minima, history->maxminima * sizeof(int64));
	}
	if (chunk == history->nminima)
		history->minima[history->nminima++] = PG_INT64_MAX;
	return &history->minima[chunk];
}

/* The first pass: what event times there are, and the least of those from each chunk on. */
static void
note_times(History *history)
{
	int64		max_ahead = history->stream->options.max_ahead;
	int64		limit = sc_plausible_limit(max_ahead, history->seen->seen_at);
	int64		rows = 0;
	BlockNumber blocks = 0;
	ListCell   *lc;

	history->maxminima = 64;
	history->minima = palloc(history->maxminima * sizeof(int64));
	foreach(lc, history->leaves)
	{
		ScHistoryLeaf *leaf = lfirst(lc);
		ScHistoryPass pass;

		sc_history_begin_pass(&pass, leaf, blocks);
		while (sc_history_next_row(&pass))
		{
			int64	   *minimum = minimum_of_chunk(history, rows++);
			bool		isnull = true;
			Datum		value = leaf->event_time_attno == 0 ? (Datum) 0 :
				slot_getattr(pass.slot, leaf->event_time_attno, &isnull);

			if (!isnull && !TIMESTAMP_NOT_FINITE(DatumGetTimestamp(value)))
			{
				*minimum = Min(*minimum, DatumGetTimestamp(value));
				sc_transaction_time_add(&history->time, limit, max_ahead, DatumGetTimestamp(value));
			}
			sc_history_note_rows(rows, pass.slot, blocks);
		}
		sc_history_end_pass(&pass);
		blocks += leaf->blocks;
	}
	sc_transaction_time_end(&history->time);
	for (int i = history->nminima - 2; i >= 0; i--)
		history->minima[i] = Min(history->minima[i], history->minima[i + 1]);
}

static void
begin_rows(History *history)
{
	ScWireBegin *wire = (ScWireBegin *) sc_batch_add(history->batch, SC_WIRE_BEGIN, 0, sizeof(ScWireBegin));

	wire->xid = InvalidTransactionId;
	wire->history = history->stream->relid;
	wire->end_lsn = history->start;
	wire->commit_time = history->seen->seen_at;
}

/*
 * Ends the rows so far as a transaction, with the watermark as if this was the greatest event time of them.  The summary
 * says what is new since the last one.
 */
static void
end_rows(History *history, const ScWireSummary *now, int64 event_time)
{
	ScWireCommit *wire = (ScWireCommit *)
		sc_batch_add(history->batch, SC_WIRE_COMMIT, 0, sizeof(ScWireCommit) + sizeof(ScWireSummary));
	ScWireSummary *summary = (ScWireSummary *) (wire + 1);

	wire->xid = InvalidTransactionId;
	wire->nstreams = 1;
	wire->end_lsn = history->seen->until;
	wire->commit_time = history->seen->seen_at;
	*summary = *now;
	summary->rows -= history->sent.rows;
	summary->time.ahead_rows -= history->sent.time.ahead_rows;
	summary->time.max_event_time = Min(event_time, history->time.max_event_time);
	summary->time.plausible_time = Min(event_time, history->time.plausible_time);
	history->sent = *now;
	history->sent.time.max_event_time = summary->time.max_event_time;
	/* each of them alone: what it closes can fill the task's outbox */
	sc_batch_flush(history->batch);
}

/* What the rows of the stream came to so far. */
static const ScWireSummary *
summary_of(Oid relid)
{
	ListCell   *lc;

	foreach(lc, sc_capture_touched())
	{
		const ScCapture *capture = lfirst(lc);

		if (capture->relid == relid)
			return &capture->summary;
	}
	return NULL;
}

/* The rows before this one are a whole chunk: the watermark may move up to what is still to come. */
static void
end_chunk(History *history)
{
	int64		least;

	if (!history->in_order || history->rows == 0 || history->rows % CHUNK_ROWS != 0)
		return;
	least = Min(history->minima[history->rows / CHUNK_ROWS], history->time.max_event_time);
	if (least <= history->sent.time.max_event_time || history->time.max_event_time == SC_NO_EVENT_TIME)
		return;
	end_rows(history, summary_of(history->stream->relid), least);
	begin_rows(history);
}

/* The rows of one leaf, behind so many blocks of others.  The row's columns that it is older than come with it. */
static void
send_leaf(History *history, ScHistoryLeaf *leaf, BlockNumber blocks)
{
	ScHistoryPass pass;

	sc_history_begin_pass(&pass, leaf, blocks);
	while (sc_history_next_row(&pass))
	{
		bool		copied;
		HeapTuple	tuple;
		ScLayout   *layout;

		end_chunk(history);
		tuple = ExecFetchSlotHeapTuple(pass.slot, false, &copied);
		layout = sc_capture_layout(leaf->relation, history->batch);
		for (int i = 0; i < layout->nstreams; i++)
			sc_capture_touch(layout->streams[i].capture, history->seen->seen_at);
		sc_row_write(history->batch, layout, RelationGetDescr(leaf->relation), tuple, history->row_context);
		if (copied)
			heap_freetuple(tuple);
		sc_history_note_rows(++history->rows, pass.slot, blocks);
	}
	sc_history_end_pass(&pass);
}

/* Behind the last row: the time that is left, in steps, each of which closes some windows. */
static void
send_rest(History *history)
{
	const ScWireSummary *summary = summary_of(history->stream->relid);
	int64		last;
	int64		from;
	uint64		step;

	if (!summary)
		return;					/* there was no row */
	if (!history->in_order)
	{
		history->time = summary->time;
		sc_transaction_time_end(&history->time);
	}
	last = Max(history->time.max_event_time, history->time.plausible_time);
	from = history->in_order ? Max(history->sent.time.max_event_time, history->minima[0]) : last;
	step = last > from ? ((uint64) last - (uint64) from) / TIME_STEPS + 1 : 0;
	for (int i = 1; step > 0 && i < TIME_STEPS && step * i < (uint64) last - (uint64) from; i++)
	{
		end_rows(history, summary, from + (int64) (step * i));
		begin_rows(history);
	}
	end_rows(history, summary, last);
}

/* The second pass: the rows themselves. */
static void
send_rows(History *history)
{
	BlockNumber blocks = 0;
	ListCell   *lc;

	history->sent.time.max_event_time = SC_NO_EVENT_TIME;
	begin_rows(history);
	foreach(lc, history->leaves)
	{
		send_leaf(history, lfirst(lc), blocks);
		blocks += ((ScHistoryLeaf *) lfirst(lc))->blocks;
	}
	send_rest(history);
}

/* ---------------------------------------------------------------------
 * A stream
 * --------------------------------------------------------------------- */

static void
send_begin(History *history)
{
	const ScSeen *seen = history->seen;
	ScWireHistory *wire = (ScWireHistory *)
		sc_batch_add(history->batch, SC_WIRE_HISTORY, 0, offsetof(ScWireHistory, seen) + SC_SEEN_SIZE(seen->nxip));

	wire->relid = history->stream->relid;
	wire->unused = 0;
	wire->options = history->stream->options;
	memcpy(&wire->seen, seen, SC_SEEN_SIZE(seen->nxip));
	sc_batch_flush(history->batch);
}

static void
send_end(ScBatch *batch, Oid relid, int64 oldest, int sqlerrcode, const char *message)
{
	ScWireHistoryEnd *wire = (ScWireHistoryEnd *)
		sc_batch_add(batch, SC_WIRE_HISTORY_END, 0, sizeof(ScWireHistoryEnd) + strlen(message) + 1);

	wire->relid = relid;
	wire->sqlerrcode = sqlerrcode;
	wire->oldest = oldest;
	memcpy(wire + 1, message, strlen(message) + 1);
	sc_batch_flush(batch);
}

static void
note_size(const History *history)
{
	int64		blocks = 0;
	ListCell   *lc;

	foreach(lc, history->leaves)
		blocks += ((const ScHistoryLeaf *) lfirst(lc))->blocks;
	sc_my_pipeline->history.blocks = blocks;
	sc_my_pipeline->history.blocks_done = 0;
	sc_my_pipeline->history.rows = 0;
}

/* One stream's history, in a transaction of its own. */
static void
read_stream(ScBatch *batch, XLogRecPtr start, Oid relid, bool in_order)
{
	History		history = {.batch = batch,.start = start};
	int64		oldest;

	sc_transaction_time_init(&history.time);
	begin(&history, relid);
	history.in_order = in_order && history.stream->event_time_attno != 0;
	sc_my_pipeline->history.two_passes = history.in_order;
	send_begin(&history);
	note_size(&history);
	if (history.in_order)
	{
		set_phase(SC_HISTORY_ORDERING);
		note_times(&history);
		note_size(&history);
	}
	set_phase(SC_HISTORY_SCANNING);
	send_rows(&history);
	SC_DEBUG_POINT("history_after_scan");
	sc_history_unlocked();
	oldest = history.nminima > 0 ? history.minima[0] : PG_INT64_MAX;
	end(&history);
	sc_capture_reset_touched();
	send_end(batch, relid, oldest, 0, "");
}

/*
 * The same; an error is told to the queries of the stream, which fail by it.  Others read on.  A cancel of this process
 * is nobody's.  The stream's max_ahead is that of the snapshot meanwhile, and then that of where decoding begins again.
 */
static void
try_stream(ScBatch *batch, XLogRecPtr start, Oid relid, bool in_order)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	int64		max_ahead;
	bool		captured = sc_capture_max_ahead(relid, &max_ahead);

	PG_TRY();
	{
		read_stream(batch, start, relid, in_order);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		EmitErrorReport();
		FlushErrorState();
		sc_history_unlocked();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		sc_capture_reset_touched();
	}
	PG_END_TRY();
	if (captured)
		(void) sc_capture_alter(relid, max_ahead);
	if (!error)
		return;
	/* what was on its way goes there first, to its end */
	sc_batch_flush(batch);
	send_end(batch, relid, PG_INT64_MAX, error->sqlerrcode, error->message);
	FreeErrorData(error);
}

/* Can a window of the query close, or a group expire, before the end? */
static bool
minds_time(int64 query_id)
{
	const ScQuery *query = sc_query_by_id(query_id, true);

	return query != NULL && query->emit != SC_EMIT_ROWS;
}

void
sc_history_read(ScBatch *batch, XLogRecPtr start, const ScOffset *offsets, int noffsets)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	List	   *streams = NIL;
	List	   *in_order = NIL;
	ListCell   *lc;

	sc_begin_transaction();
	MemoryContextSwitchTo(TopMemoryContext);
	for (int i = 0; i < noffsets; i++)
	{
		if (!offsets[i].history)
			continue;
		streams = list_append_unique_oid(streams, offsets[i].stream_relid);
		if (minds_time(offsets[i].query_id))
			in_order = list_append_unique_oid(in_order, offsets[i].stream_relid);
	}
	sc_commit_transaction();
	MemoryContextSwitchTo(TopMemoryContext);
	if (streams != NIL)
	{
		SC_DEBUG_POINT("history_begins");
		sc_history_wait_for_committing();
		foreach(lc, streams)
		{
			sc_my_pipeline->history.relid = lfirst_oid(lc);
			sc_my_pipeline->history.began = GetCurrentTimestamp();
			try_stream(batch, start, lfirst_oid(lc), list_member_oid(in_order, lfirst_oid(lc)));
		}
		/* the first checkpoint is due, though nothing is decoded yet */
		pg_atomic_write_u32(&sc_my_pipeline->work, 1);
		set_phase(SC_HISTORY_NONE);
		sc_place_wake(sc_my_pipeline, &sc_my_pipeline->coordinator);
	}
	MemoryContextSwitchTo(old);
}
