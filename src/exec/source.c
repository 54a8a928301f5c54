/*-------------------------------------------------------------------------
 * source.c
 *	  What the stream is joined with (ScSource): batches of its rows, and what is joined with them.
 *
 * A batch is filled row by row: WHERE on the stream's columns says which rows are joined, and those go into a tuplestore, with
 * the columns that the plan reads.  When all are there the plan is run over them (source_run.c, source_plans.c), and what it
 * returns is sorted by the rows that it is made of; joined.c takes it from there, row by row.
 *
 * Both tuplestores outlive the subtransactions in which rows are worked on.
 */
#include "postgres.h"

#include "base/settings.h"
#include "exec/source_internal.h"
#include "miscadmin.h"
#include "parser/parsetree.h"
#include "utils/memutils.h"

/* No row's number: behind all */
#define NO_NUMBER		PG_INT32_MAX

/* ---------- compiling ---------- */

static TupleDesc
make_rows_desc(ScEngine *engine, TupleDesc stream_desc)
{
	const RangeTblEntry *rte = rt_fetch(engine->def->source->varno, engine->def->source->query->rtable);
	int			natts = stream_desc->natts;
	TupleDesc	desc;

	if (list_length(rte->coltypes) != SC_ROWS_COLUMNS(natts))
		elog(ERROR, "the stream has another number of columns than its definition knows");
	desc = CreateTemplateTupleDesc(SC_ROWS_COLUMNS(natts));
	for (int i = 1; i <= natts; i++)
		TupleDescCopyEntry(desc, i, stream_desc, i);
	for (int i = natts + 1; i <= SC_ROWS_COLUMNS(natts); i++)
		TupleDescInitEntry(desc, i, strVal(list_nth(rte->eref->colnames, i - 1)), list_nth_oid(rte->coltypes, i - 1), -1, 0);
	TupleDescFinalize(desc);
	return desc;
}

/* The current context is the engine's.  What is compiled from here on is over joined rows, as stream_desc is then. */
void
sc_source_compile(ScEngine *engine, TupleDesc stream_desc)
{
	const ScDefinition *def = engine->def;
	ScSourceRun *run = palloc0(sizeof(ScSourceRun));
	int			attno = -1;

	run->def = def->source;
	run->natts = stream_desc->natts;
	run->last_attno = Max(Max(def->last_attno, def->event_time_attno), def->ttl_attno);
	run->attnos = palloc(sizeof(AttrNumber) * Max(bms_num_members(def->source->attnos), 1));
	while ((attno = bms_next_member(def->source->attnos, attno)) >= 0)
		run->attnos[run->nattnos++] = attno;
	run->rows_desc = make_rows_desc(engine, stream_desc);
	run->values = palloc0(sizeof(Datum) * run->rows_desc->natts);
	run->nulls = palloc(run->rows_desc->natts);
	memset(run->nulls, true, run->rows_desc->natts);
	run->rows_slot = MakeSingleTupleTableSlot(run->rows_desc, &TTSOpsMinimalTuple);
	run->joined_desc = ExecTypeFromTL(def->source->query->targetList);
	run->slot = MakeSingleTupleTableSlot(run->joined_desc, &TTSOpsMinimalTuple);
	run->kept_slot = MakeSingleTupleTableSlot(run->joined_desc, &TTSOpsMinimalTuple);
	run->quals = ExecInitQual(def->source->quals, NULL);
	run->context = AllocSetContextCreate(engine->context, "stream_ckpt batch", ALLOCSET_DEFAULT_SIZES);
	run->row_context = AllocSetContextCreate(engine->context, "stream_ckpt joined rows", ALLOCSET_DEFAULT_SIZES);
	engine->stream_desc = run->joined_desc;
	engine->source = run;
}

ExprState *
sc_source_quals(const ScEngine *engine)
{
	return engine->source->quals;
}

/* ---------- filling a batch ---------- */

Tuplestorestate *
sc_source_open_store(ScSourceRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	Tuplestorestate *store = tuplestore_begin_heap(false, true, work_mem);

	run->stores = lappend(run->stores, store);
	MemoryContextSwitchTo(old);
	return store;
}

void
sc_source_close_store(ScSourceRun *run, Tuplestorestate *store)
{
	run->stores = list_delete_ptr(run->stores, store);
	tuplestore_end(store);
}

void
sc_engine_batch_begin(ScEngine *engine)
{
	ScSourceRun *run = engine->source;
	MemoryContext old;

	sc_engine_batch_end(engine);
	old = MemoryContextSwitchTo(run->context);
	run->input = sc_source_open_store(run);
	run->max_rows = 1024;
	run->rows = palloc(sizeof(ScBatchRow) * run->max_rows);
	MemoryContextSwitchTo(old);
}

static ScBatchRow *
add_row(ScSourceRun *run)
{
	ScBatchRow *row;

	if (run->nrows == run->max_rows)
	{
		run->max_rows *= 2;
		run->rows = repalloc_huge(run->rows, sizeof(ScBatchRow) * run->max_rows);
	}
	row = &run->rows[run->nrows++];
	memset(row, 0, sizeof(ScBatchRow));
	row->verdict = SC_ROW_DROPPED;
	return row;
}

static bool
passes(ScEngine *engine, ExprState *quals, bool cut)
{
	if (quals == NULL)
		return true;
	return cut ? sc_where_of_cut(engine, quals) : ExecQual(quals, engine->tmpcontext);
}

/* Notes the event time, and says what becomes of the row; an error leaves it to be dropped, or to be raised. */
static ScVerdict
judge(ScEngine *engine, ScBatchRow *row, TupleTableSlot *slot, bool cut)
{
	AttrNumber	time_attno = engine->time_attno > 0 ? engine->time_attno : engine->def->ttl_attno;

	if (time_attno > 0)
	{
		row->time = DatumGetInt64(slot->tts_values[time_attno - 1]);
		row->timeless = slot->tts_isnull[time_attno - 1] || TIMESTAMP_NOT_FINITE(row->time);
	}
	if (engine->time_attno > 0)
	{
		if (row->timeless ||
			(!sc_pane_span_has(&engine->span, row->time) && !sc_enter_pane(engine, row->time)))
			return passes(engine, engine->column_quals, cut) ? SC_ROW_DROPPED : SC_ROW_EXCLUDED;
		if (engine->span.none)
			return SC_ROW_EXCLUDED;
	}
	return passes(engine, engine->quals, cut) ? SC_ROW_JOINED : SC_ROW_EXCLUDED;
}

/* What the plan reads of the row goes into the tuplestore. */
static void
put_row(ScEngine *engine, const TupleTableSlot *slot)
{
	ScSourceRun *run = engine->source;

	for (int i = 0; i < run->nattnos; i++)
	{
		int			column = run->attnos[i] - 1;

		run->values[column] = slot->tts_values[column];
		run->nulls[column] = slot->tts_isnull[column];
	}
	if (run->def->reads_window)
	{
		sc_window_values(&engine->window, run->values + run->natts);
		memset(run->nulls + run->natts, false, SC_WINDOW_COLUMNS);
	}
	run->values[SC_ROWS_NUMBER(run->natts) - 1] = Int32GetDatum(run->nrows - 1);
	run->nulls[SC_ROWS_NUMBER(run->natts) - 1] = false;
	tuplestore_putvalues(run->input, run->rows_desc, run->values, run->nulls);
	run->njoined++;
}

void
sc_engine_batch_add(ScEngine *engine, TupleTableSlot *slot, bool cut)
{
	ScSourceRun *run = engine->source;
	ScBatchRow *row = add_row(run);
	MemoryContext old = MemoryContextSwitchTo(engine->tmpcontext->ecxt_per_tuple_memory);

	run->in_row = true;
	slot_getsomeattrs(slot, run->last_attno);
	engine->tmpcontext->ecxt_scantuple = slot;
	row->verdict = judge(engine, row, slot, cut);
	if (row->verdict == SC_ROW_JOINED)
	{
		if (cut)
			sc_check_cut_row(engine, engine->group_attnos);
		put_row(engine, slot);
	}
	run->in_row = false;
	MemoryContextSwitchTo(old);
	MemoryContextReset(engine->tmpcontext->ecxt_per_tuple_memory);
}

MemoryContext
sc_engine_batch_context(ScEngine *engine)
{
	return engine->source->context;
}

bool
sc_engine_batch_fault(ScEngine *engine, ErrorData *error)
{
	ScSourceRun *run = engine->source;

	if (!run->in_row)
		return false;
	run->in_row = false;
	run->rows[run->nrows - 1].verdict = SC_ROW_DROPPED;
	run->rows[run->nrows - 1].error = error;
	MemoryContextReset(engine->tmpcontext->ecxt_per_tuple_memory);
	return true;
}

void
sc_engine_batch_end(ScEngine *engine)
{
	ScSourceRun *run = engine->source;

	ExecClearTuple(run->slot);
	ExecClearTuple(run->kept_slot);
	ExecClearTuple(run->rows_slot);
	while (run->stores != NIL)
		sc_source_close_store(run, llast(run->stores));
	run->input = run->output = NULL;
	MemoryContextReset(run->context);
	MemoryContextReset(run->row_context);
	run->rows = NULL;
	run->kept = NULL;
	run->nrows = run->njoined = run->nfailed = run->max_kept = run->nkept = run->at = 0;
	run->in_row = run->taken = run->halt = run->begun = false;
	run->slot_number = run->number = -1;
}

/* ---------- reading what was joined ---------- */

const ScBatchRow *
sc_source_row(const ScEngine *engine, int number)
{
	if (number < 0 || number >= engine->source->nrows)
		elog(ERROR, "row %d isn't in the batch", number);
	return &engine->source->rows[number];
}

int64
sc_source_time(const ScEngine *engine)
{
	const ScBatchRow *row = sc_source_row(engine, engine->source->number);

	return row->timeless ? engine->time.max_event_time : row->time;
}

/* A row that comes from the tuplestore's file is allocated in the current context, and stays the slot's. */
static void
advance(ScSourceRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	bool		found = run->output != NULL && tuplestore_gettupleslot(run->output, true, false, run->slot);

	MemoryContextSwitchTo(old);
	run->taken = false;
	if (!found)
	{
		run->slot_number = NO_NUMBER;
		return;
	}
	slot_getallattrs(run->slot);
	run->slot_number = DatumGetInt32(run->slot->tts_values[0]);
}

/* Of a row that is joined with so many all may have to be taken back. */
static void
refuse_many_rows(int n)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("a row of the stream is joined with more than %d rows", n),
			 errdetail("With on_error => 'dead_letter' they are kept in memory until all of them have counted, which may take a quarter of \"stream_ckpt.task_memory\".")));
}

/* Keeps the joined rows of the row that is read; "bytes": what each takes beside itself. */
static void
keep_rows(ScSourceRun *run, Size bytes)
{
	MemoryContext old = MemoryContextSwitchTo(run->row_context);

	ExecClearTuple(run->kept_slot);
	MemoryContextReset(run->row_context);
	run->nkept = 0;
	run->max_kept = 16;
	run->kept = palloc(sizeof(MinimalTuple) * run->max_kept);
	for (; run->slot_number == run->number; advance(run))
	{
		if (run->nkept == run->max_kept)
		{
			run->max_kept *= 2;
			run->kept = repalloc_huge(run->kept, sizeof(MinimalTuple) * run->max_kept);
		}
		run->kept[run->nkept++] = ExecCopySlotMinimalTuple(run->slot);
		if (run->row_context->mem_allocated + run->nkept * bytes > sc_task_memory_bytes() / 4)
			refuse_many_rows(run->nkept);
	}
	MemoryContextSwitchTo(old);
}

void
sc_source_seek(ScEngine *engine, int number)
{
	ScSourceRun *run = engine->source;

	run->at = 0;
	if (run->number == number)
		return;
	run->number = number;
	if (run->taken)
		advance(run);
	while (run->slot_number < number)
		advance(run);
	if (engine->undo != NULL)
		keep_rows(run, sc_undo_bytes(engine));
}

TupleTableSlot *
sc_source_next(ScEngine *engine)
{
	ScSourceRun *run = engine->source;

	if (engine->undo != NULL)
	{
		if (run->at == run->nkept)
			return NULL;
		ExecStoreMinimalTuple(run->kept[run->at++], run->kept_slot, false);
		slot_getallattrs(run->kept_slot);
		return run->kept_slot;
	}
	if (run->taken)
		advance(run);
	if (run->slot_number != run->number)
		return NULL;
	run->taken = true;
	return run->slot;
}

/* Files aren't the transaction's. */
void
sc_source_free(ScEngine *engine)
{
	if (engine->source != NULL)
		sc_engine_batch_end(engine);
}

