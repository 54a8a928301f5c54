/*-------------------------------------------------------------------------
 * foreign_insert.c
 *	  Taking rows of a log stream: INSERT, COPY and tuple routing.
 *
 * Rows are packed many to a logical message (wire/logged_rows.h), which belongs to the
 * (sub)transaction that inserts them: what aborts is never decoded.  The buffer
 * lives in the query's memory and is written when it is full and at the end of
 * the statement, always at the statement's own level of subtransactions: those
 * that functions and triggers begin during it have ended when the next row comes.
 *
 * What core checks for tables and leaves to the wrapper of a foreign table is
 * checked here: NOT NULL, CHECK, and a partition's bounds.
 *
 * A row is written unless it is known that no query will read it
 * (model/log_stream.c); that is found out once for each statement.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/partition.h"
#include "executor/executor.h"
#include "model/control.h"
#include "model/log_stream.h"
#include "source/log_stream/foreign_internal.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "wire/batch.h"
#include "wire/logged_rows.h"

typedef enum Fate
{
	FATE_UNKNOWN,				/* no row has come yet */
	FATE_WRITE,
	FATE_DROP					/* nobody reads them */
} Fate;

/* The rows of one statement for one foreign table; lives in the query's memory. */
typedef struct InsertState
{
	MemoryContext context;		/* the query's */
	MemoryContext row_context;	/* flattened values; reset after the row */
	Relation	relation;
	bool		has_varlena;
	Fate		fate;
	AttrNumber	event_time_attno;	/* 0: none */
	int64		max_event_time; /* of the rows in the buffer */
	uint32		nrows;			/* in the buffer */
	int			nest_level;		/* of subtransactions, where they belong to */
	Size		used;
	Size		size;
	char	   *buffer;			/* NULL: no row yet */
} InsertState;

static void add_row(InsertState *state, TupleTableSlot *slot);
static void flush(InsertState *state);

/* ---------- is it read? ---------- */

/* Once for a session and stream. */
static void
notice_unread(Relation relation)
{
	static List *noticed = NIL;
	MemoryContext old;

	if (list_member_oid(noticed, RelationGetRelid(relation)))
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	noticed = lappend_oid(noticed, RelationGetRelid(relation));
	MemoryContextSwitchTo(old);
	ereport(NOTICE,
			(errmsg("rows of stream \"%s\" are not kept: no continuous query reads it",
					RelationGetRelationName(relation)),
			 errhint("Create a query with stream_ckpt.create_query() first; it gets the rows committed after it.")));
}

/*
 * Rows of a lost pipeline's queries go to the WAL, and nobody will read them there.  Said once
 * for a session and stream; looked at thoroughly once, too.
 */
static void
notice_lost(Relation relation, List *relids)
{
	static List *noticed = NIL;
	static List *looked_at = NIL;
	Oid			relid = RelationGetRelid(relation);
	bool		thorough = !list_member_oid(looked_at, relid);
	const char *name;
	MemoryContext old;

	if (!sc_lost_pipeline || list_member_oid(noticed, relid))
		return;
	name = sc_lost_pipeline(relids, thorough);
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (thorough)
		looked_at = lappend_oid(looked_at, relid);
	if (name)
		noticed = lappend_oid(noticed, relid);
	MemoryContextSwitchTo(old);
	if (name)
		ereport(NOTICE,
				(errmsg("rows of stream \"%s\" will not be counted: pipeline \"%s\" is lost",
						RelationGetRelationName(relation), name),
				 errhint("See stream_ckpt.pipelines for the reason and the way out.")));
}

/* The relation and the partitioned tables above it: what a query may name. */
static List *
possible_streams(Relation relation)
{
	List	   *relids = list_make1_oid(RelationGetRelid(relation));

	if (relation->rd_rel->relispartition)
		relids = list_concat(relids, get_partition_ancestors(RelationGetRelid(relation)));
	return relids;
}

static bool
lock_unread(List *relids)
{
	ListCell   *lc;

	foreach(lc, relids)
	{
		if (!sc_stream_lock_unread(lfirst_oid(lc)))
			return false;
	}
	return true;
}

/* The event-time column whose maximum a reader most likely asks for. */
static AttrNumber
choose_event_time(Relation relation, List *relids)
{
	AttrNumber	attno = sc_log_stream_event_time(RelationGetRelid(relation));
	ListCell   *lc;

	foreach(lc, relids)
	{
		ScStream   *stream;

		if (attno != InvalidAttrNumber)
			break;
		stream = sc_stream_by_relid(lfirst_oid(lc), true);
		if (stream && stream->event_time_attno != InvalidAttrNumber)
			attno = get_attnum(RelationGetRelid(relation),
							   get_attname(stream->relid, stream->event_time_attno, false));
	}
	return attno;
}

/*
 * Whether the statement's rows are written or dropped, once for each statement; its first row comes
 * here.  Rows are dropped only with the streams' "unread" locks held.
 */
static void
decide(InsertState *state)
{
	MemoryContext old = MemoryContextSwitchTo(state->context);
	List	   *relids = possible_streams(state->relation);

	state->event_time_attno = choose_event_time(state->relation, relids);
	state->fate = FATE_WRITE;
	if (!sc_streams_are_read(relids) && lock_unread(relids) && !sc_streams_are_read(relids))
	{
		state->fate = FATE_DROP;
		notice_unread(state->relation);
	}
	else
		notice_lost(state->relation, relids);
	list_free(relids);
	MemoryContextSwitchTo(old);
}

/* ---------- the executor's callbacks ---------- */

static void
begin(ModifyTableState *mtstate, ResultRelInfo *rinfo)
{
	MemoryContext context = mtstate->ps.state->es_query_cxt;
	InsertState *state = MemoryContextAllocZero(context, sizeof(InsertState));
	TupleDesc	desc = RelationGetDescr(rinfo->ri_RelationDesc);

	state->context = context;
	state->relation = rinfo->ri_RelationDesc;
	state->max_event_time = SC_NO_EVENT_TIME;
	for (int i = 0; i < desc->natts; i++)
		state->has_varlena |= TupleDescAttr(desc, i)->attlen == -1;
	rinfo->ri_FdwState = state;
}

/* Rows that an UPDATE moves into a partition come by begin_insert(). */
static void
begin_modify(ModifyTableState *mtstate, ResultRelInfo *rinfo, List *fdw_private,
			 int subplan, int eflags)
{
	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0 && mtstate->operation == CMD_INSERT)
		begin(mtstate, rinfo);
}

/* COPY, which has no plan, and rows routed to a partition. */
static void
begin_insert(ModifyTableState *mtstate, ResultRelInfo *rinfo)
{
	ModifyTable *plan = (ModifyTable *) mtstate->ps.plan;

	if (plan && plan->onConflictAction != ONCONFLICT_NONE)
		sc_refuse_on_log_stream("use ON CONFLICT with",
								RelationGetRelationName(rinfo->ri_RelationDesc));
	begin(mtstate, rinfo);
}

/* The same as core does for tables. */
static void
check_row(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot)
{
	Relation	relation = rinfo->ri_RelationDesc;

	if (RelationGetDescr(relation)->constr)
		ExecConstraints(rinfo, slot, estate);
	if (relation->rd_rel->relispartition &&
		(rinfo->ri_RootResultRelInfo == NULL ||
		 (rinfo->ri_TrigDesc && rinfo->ri_TrigDesc->trig_insert_before_row)))
		ExecPartitionCheck(rinfo, slot, estate, true);
}

static TupleTableSlot *
exec_insert(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
			TupleTableSlot *plan_slot)
{
	InsertState *state = rinfo->ri_FdwState;

	check_row(estate, rinfo, slot);
	if (state->fate == FATE_UNKNOWN)
		decide(state);
	if (state->fate == FATE_WRITE)
		add_row(state, slot);
	return slot;
}

/*
 * Logs what is left and frees the state.  Isn't called after an error: the buffer goes with the
 * query's memory then.
 */
static void
end(EState *estate, ResultRelInfo *rinfo)
{
	InsertState *state = rinfo->ri_FdwState;

	if (state == NULL)
		return;
	flush(state);
	if (state->buffer)
		pfree(state->buffer);
	if (state->row_context)
		MemoryContextDelete(state->row_context);
	pfree(state);
	rinfo->ri_FdwState = NULL;
}

void
sc_foreign_insert_callbacks(FdwRoutine *routine)
{
	routine->BeginForeignModify = begin_modify;
	routine->ExecForeignInsert = exec_insert;
	routine->EndForeignModify = end;
	routine->BeginForeignInsert = begin_insert;
	routine->EndForeignInsert = end;
}

/* ---------- the buffer ---------- */

/* Writes what is in the buffer into the WAL, as the current subtransaction. */
static void
write_message(InsertState *state)
{
	(void) sc_message_log(SC_ROWS_PREFIX, state->buffer, state->used, true);
}

/*
 * Logs what is in the buffer as one message and empties it.  Fails if a subtransaction was begun
 * since the statement began: the rows would go with it.
 */
static void
flush(InsertState *state)
{
	ScRowsHeader *header = (ScRowsHeader *) state->buffer;

	if (state->nrows == 0)
		return;

	/*
	 * A subtransaction that was begun since would take the rows with it if it
	 * aborts.  No statement runs on inside of one that it didn't begin in.
	 */
	if (GetCurrentTransactionNestLevel() > state->nest_level)
		elog(ERROR, "rows of a stream were inserted in an outer subtransaction");

	header->magic = SC_ROWS_MAGIC;
	header->relid = RelationGetRelid(state->relation);
	header->nrows = state->nrows;
	header->event_time_attno = state->event_time_attno;
	header->unused = 0;
	header->max_event_time = state->max_event_time;
	write_message(state);

	state->nrows = 0;
	state->max_event_time = SC_NO_EVENT_TIME;
	state->used = sizeof(ScRowsHeader);
	if (state->size > SC_ROWS_BYTES)
	{
		/* one large row has passed: give its room back */
		pfree(state->buffer);
		state->buffer = MemoryContextAlloc(state->context, SC_ROWS_BYTES);
		state->size = SC_ROWS_BYTES;
	}
}

/* Room for a row of "len" bytes: a record's header, and the row to be filled in. */
static MinimalTuple
reserve(InsertState *state, Size len)
{
	Size		need = sizeof(ScWireRecord) + TYPEALIGN(8, len);
	int			nest_level = GetCurrentTransactionNestLevel();
	ScWireRecord *record;

	if (state->nrows > 0 &&
		(state->used + need > SC_ROWS_BYTES || nest_level != state->nest_level))
		flush(state);
	if (state->nrows == 0)
		state->nest_level = nest_level;
	if (state->buffer == NULL || sizeof(ScRowsHeader) + need > state->size)
	{
		if (state->buffer)
			pfree(state->buffer);
		state->size = Max(sizeof(ScRowsHeader) + need, SC_ROWS_BYTES);
		state->buffer = MemoryContextAlloc(state->context, state->size);
		state->used = sizeof(ScRowsHeader);
	}

	record = (ScWireRecord *) (state->buffer + state->used);
	record->len = (uint32) need;
	record->op = SC_WIRE_INSERT;
	record->flags = 0;
	record->layout = 0;
	/* no undefined bytes in the WAL */
	memset((char *) record + need - 8, 0, 8);
	state->used += need;
	state->nrows++;
	return SC_WIRE_TUPLE(record);
}

static void
refuse_large_row(InsertState *state, Size len)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("row of %zu bytes is too large for stream \"%s\"", len,
					RelationGetRelationName(state->relation)),
			 errdetail("A row of a log stream can have up to %d bytes.", SC_MAX_ROW_BYTES)));
}

/* ---------- rows ---------- */

/*
 * The slot's row as a tuple that can be copied as it is: with all columns, and
 * without pointers to values elsewhere.  NULL where it isn't one.
 */
static HeapTuple
plain_tuple(TupleTableSlot *slot)
{
	HeapTuple	tuple;

	if (!TTS_IS_HEAPTUPLE(slot))
		return NULL;
	tuple = ((HeapTupleTableSlot *) slot)->tuple;
	if (tuple == NULL || HeapTupleHasExternal(tuple) ||
		HeapTupleHeaderGetNatts(tuple->t_data) < slot->tts_tupleDescriptor->natts)
		return NULL;
	return tuple;
}

static void
copy_tuple(InsertState *state, HeapTuple tuple)
{
	Size		len = tuple->t_len - MINIMAL_TUPLE_OFFSET;
	MinimalTuple copy;

	if (len > SC_MAX_ROW_BYTES)
		refuse_large_row(state, len);
	copy = reserve(state, len);
	memcpy(copy, (char *) tuple->t_data + MINIMAL_TUPLE_OFFSET, len);
	copy->t_len = len;
}

/*
 * The row's values without pointers to values elsewhere: out of line on disk or in
 * memory, or expanded.  Where there are some, a copy in row_context.
 */
static Datum *
flat_values(InsertState *state, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Datum	   *values = slot->tts_values;
	MemoryContext old = CurrentMemoryContext;

	for (int i = 0; i < desc->natts; i++)
	{
		if (slot->tts_isnull[i] || TupleDescAttr(desc, i)->attlen != -1 ||
			!VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			continue;
		if (values == slot->tts_values)
		{
			if (state->row_context == NULL)
				state->row_context = AllocSetContextCreate(state->context,
														   "stream_ckpt row",
														   ALLOCSET_DEFAULT_SIZES);
			MemoryContextSwitchTo(state->row_context);
			values = palloc(desc->natts * sizeof(Datum));
			memcpy(values, slot->tts_values, desc->natts * sizeof(Datum));
		}
		values[i] = PointerGetDatum(detoast_external_attr((struct varlena *)
														  DatumGetPointer(values[i])));
	}
	MemoryContextSwitchTo(old);
	return values;
}

/* Forms a minimal tuple in the buffer itself, as heap_form_minimal_tuple would. */
static void
form_tuple(InsertState *state, TupleDesc desc, Datum *values, bool *isnull)
{
	bool		has_null = false;
	Size		data_len;
	Size		head_len = SizeofMinimalTupleHeader;
	Size		len;
	MinimalTuple tuple;

	for (int i = 0; i < desc->natts; i++)
		has_null |= isnull[i];
	if (has_null)
		head_len += BITMAPLEN(desc->natts);
	head_len = MAXALIGN(head_len);
	data_len = heap_compute_data_size(desc, values, isnull);
	len = head_len + data_len;
	if (len > SC_MAX_ROW_BYTES)
		refuse_large_row(state, len);

	tuple = reserve(state, len);
	memset(tuple, 0, len);
	tuple->t_len = len;
	HeapTupleHeaderSetNatts(tuple, desc->natts);
	tuple->t_hoff = head_len + MINIMAL_TUPLE_OFFSET;
	heap_fill_tuple(desc, values, isnull, (char *) tuple + head_len, data_len,
					&tuple->t_infomask, has_null ? tuple->t_bits : NULL);
}

static void
note_event_time(InsertState *state, TupleTableSlot *slot)
{
	bool		isnull;
	Timestamp	ts;

	if (state->event_time_attno == InvalidAttrNumber)
		return;
	ts = DatumGetTimestamp(slot_getattr(slot, state->event_time_attno, &isnull));
	if (!isnull && ts > state->max_event_time && !TIMESTAMP_NOT_FINITE(ts))
		state->max_event_time = ts;
}

/* Appends the row to the buffer, without pointers out of it, and notes its event time. */
static void
add_row(InsertState *state, TupleTableSlot *slot)
{
	HeapTuple	tuple = plain_tuple(slot);

	if (tuple)
		copy_tuple(state, tuple);
	else
	{
		slot_getallattrs(slot);
		form_tuple(state, slot->tts_tupleDescriptor,
				   state->has_varlena ? flat_values(state, slot) : slot->tts_values,
				   slot->tts_isnull);
		if (state->row_context)
			MemoryContextReset(state->row_context);
	}
	note_event_time(state, slot);
}
