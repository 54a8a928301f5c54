/*-------------------------------------------------------------------------
 * replay.c
 *	  A state made of kept inputs (inputs.c): all of them go through the transition function.
 *
 * ORDER BY and DISTINCT are applied here; equal rows keep their order of arrival.  Ordered-set aggregates sort
 * inside their own transition functions.
 *
 * Inputs that are on a tape (tape.h) are read piece by piece, and sorted by PostgreSQL's sort, within work_mem: what
 * they become in the transition function has to have room (check_room).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/limit.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "exec/exec_internal.h"
#include "exec/tape.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"

/* Inputs that count as one row for the time limit, when they are sorted and replayed */
#define INPUTS_TO_UNIT		4

/* Sorting at replay: one per row, pointing into an array of its values */
typedef struct InputRow
{
	Datum	   *values;
	bool	   *nulls;
	int64		number;
} InputRow;

#define STREAM_BYTES		(64 * 1024) /* of a tape that are in memory, or one row */
#define LOOK_AT_MEMORY		8		/* rows: they may be large ones */

/* Inputs being read */
typedef struct InputStream
{
	const ScTrans *trans;
	ScReader	reader;			/* of what is there */
	char	   *buffer;			/* NULL: all is */
	Size		size;
	ScTapeCursor cursor;
	const char *rest;			/* behind the tape */
	Size		nrest;
} InputStream;

/* In the current context. */
static void
stream_begin(InputStream *stream, const ScTrans *trans, const ScInputs *inputs)
{
	memset(stream, 0, sizeof(InputStream));
	stream->trans = trans;
	if (inputs->tape == NULL)
	{
		stream->reader = (ScReader) {inputs->data, inputs->data + inputs->len};
		return;
	}
	stream->size = STREAM_BYTES;
	stream->buffer = palloc(stream->size);
	stream->reader = (ScReader) {stream->buffer, stream->buffer};
	sc_tape_rewind(&stream->cursor, inputs->tape);
	stream->rest = inputs->data;
	stream->nrest = inputs->len;
}

/* Is all of the next row in the buffer? */
static bool
has_row(const InputStream *stream)
{
	ScReader	reader = stream->reader;
	const char *bitmap = reader.at;

	if (!sc_skip_bytes(&reader, stream->trans->nbitmap))
		return false;
	for (int i = 0; i < stream->trans->ninputs; i++)
	{
		int			bit = i + stream->trans->nsigns;

		if ((bitmap[bit / 8] & (1 << (bit % 8))) == 0 && !sc_datum_skip(&reader, &stream->trans->input_types[i], false))
			return false;
	}
	return true;
}

/* Reads more behind what is left in the buffer, which grows if one row is larger.  Fails if there is no more. */
static void
refill(InputStream *stream)
{
	Size		left = stream->reader.end - stream->reader.at;
	Size		n;
	Size		more;

	memmove(stream->buffer, stream->reader.at, left);
	if (left == stream->size)
	{
		stream->size *= 2;
		stream->buffer = repalloc_huge(stream->buffer, stream->size);
	}
	n = sc_tape_read(&stream->cursor, stream->buffer + left, stream->size - left);
	more = Min(stream->size - left - n, stream->nrest);
	memcpy(stream->buffer + left + n, stream->rest, more);
	stream->rest += more;
	stream->nrest -= more;
	if (n + more == 0)
		sc_reader_fail();
	stream->reader = (ScReader) {stream->buffer, stream->buffer + left + n + more};
}

/* Decodes the next row; by-reference values go to the current context. */
static void
read_row(InputStream *stream, Datum *values, bool *nulls)
{
	const ScTrans *trans = stream->trans;
	ScReader   *reader = &stream->reader;
	const char *bitmap;

	while (stream->buffer != NULL && !has_row(stream))
		refill(stream);
	bitmap = sc_read_bytes(reader, trans->nbitmap);
	for (int i = 0; i < trans->ninputs; i++)
	{
		int			bit = i + trans->nsigns;

		nulls[i] = (bitmap[bit / 8] & (1 << (bit % 8))) != 0;
		values[i] = nulls[i] ? (Datum) 0 : sc_datum_read(reader, &trans->input_types[i]);
	}
}

/* One call of the transition function; the current context is the row's. */
static void
replay_row(ScEngine *engine, ScTrans *trans, const Datum *values, const bool *nulls,
		   Datum *state, uint8 *flags)
{
	for (int i = 0; i < trans->nargs; i++)
	{
		trans->fcinfo->args[i + trans->nfixed + 1].value = values[i];
		trans->fcinfo->args[i + trans->nfixed + 1].isnull = nulls[i];
	}
	sc_transition_call(engine, trans, state, flags);
}

/*
 * Has what the first n rows have become room?  Those that are in memory have been looked at when they were loaded; but
 * aggregates that collect make as much of what is on a tape.
 */
static void
check_room(const ScEngine *engine, const ScInputs *inputs, uint64 n)
{
	Size		bytes;

	if (inputs->tape == NULL || n % LOOK_AT_MEMORY != 0)
		return;
	bytes = MemoryContextMemAllocated(engine->aggstate->curaggcontext->ecxt_per_tuple_memory, true);
	/* one that sorts may take work_mem */
	if (bytes > (Size) work_mem * 1024)
		sc_bucket_check_room(NULL, bytes - (Size) work_mem * 1024);
}

/* Through the transition function in the order in which they came, one at a time in memory. */
static void
replay_in_order(ScEngine *engine, ScTrans *trans, ScInputs *inputs,
				Datum *state, uint8 *flags)
{
	InputStream stream;
	Datum	   *values = palloc(sizeof(Datum) * Max(trans->ninputs, 1));
	bool	   *nulls = palloc(Max(trans->ninputs, 1));
	MemoryContext rowcontext = engine->tmpcontext->ecxt_per_tuple_memory;

	stream_begin(&stream, trans, inputs);
	for (uint64 n = 0; n < inputs->rows; n++)
	{
		MemoryContext old = MemoryContextSwitchTo(rowcontext);

		CHECK_FOR_INTERRUPTS();
		check_room(engine, inputs, n);
		read_row(&stream, values, nulls);
		replay_row(engine, trans, values, nulls, state, flags);
		MemoryContextSwitchTo(old);
		MemoryContextReset(rowcontext);
	}
}

/* By the columns of ORDER BY and DISTINCT; 0: equal in all of them. */
static inline int
compare_columns(const InputRow *a, const InputRow *b, const ScTrans *trans)
{
	for (int i = 0; i < trans->nsort; i++)
	{
		int			column = trans->sort_input[i];
		int			result = ApplySortComparator(a->values[column], a->nulls[column],
												 b->values[column], b->nulls[column],
												 &trans->sort[i]);

		if (result != 0)
			return result;
	}
	return 0;
}

static int
compare_rows(const void *a, const void *b, void *arg)
{
	const InputRow *x = a;
	const InputRow *y = b;
	int			result = compare_columns(x, y, (const ScTrans *) arg);

	if (result == 0)
		result = (x->number > y->number) - (x->number < y->number);
	return result;
}

/* All rows decoded into the current context; none is on a tape. */
static InputRow *
read_rows(const ScTrans *trans, ScInputs *inputs)
{
	InputStream stream;
	uint64		n = inputs->rows;
	InputRow   *rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(InputRow) * n);
	Datum	   *values = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(Datum) * n * trans->ninputs);
	bool	   *nulls = MemoryContextAllocHuge(CurrentMemoryContext, n * trans->ninputs);

	stream_begin(&stream, trans, inputs);
	for (uint64 i = 0; i < n; i++)
	{
		rows[i].values = values + i * trans->ninputs;
		rows[i].nulls = nulls + i * trans->ninputs;
		rows[i].number = i;
		read_row(&stream, rows[i].values, rows[i].nulls);
	}
	return rows;
}

/* Through the transition function in the order of ORDER BY or DISTINCT.  Needs memory for all inputs at once. */
static void
replay_sorted(ScEngine *engine, ScTrans *trans, ScInputs *inputs,
			  Datum *state, uint8 *flags)
{
	InputRow   *rows = read_rows(trans, inputs);
	InputRow   *last = NULL;
	MemoryContext rowcontext = engine->tmpcontext->ecxt_per_tuple_memory;

	qsort_arg(rows, inputs->rows, sizeof(InputRow), compare_rows, trans);

	for (uint64 n = 0; n < inputs->rows; n++)
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (trans->distinct && last && compare_columns(last, &rows[n], trans) == 0)
			continue;
		last = &rows[n];

		old = MemoryContextSwitchTo(rowcontext);
		replay_row(engine, trans, rows[n].values, rows[n].nulls, state, flags);
		MemoryContextSwitchTo(old);
		MemoryContextReset(rowcontext);
	}
}

/* A row type of the inputs' columns, and their number. */
static TupleDesc
sorted_desc(const ScTrans *trans)
{
	TupleDesc	desc = CreateTemplateTupleDesc(trans->ninputs + 1);

	for (int i = 0; i < trans->ninputs; i++)
		TupleDescInitEntry(desc, i + 1, NULL, trans->input_types[i].oid, -1, 0);
	TupleDescInitEntry(desc, trans->ninputs + 1, NULL, INT8OID, -1, 0);
	TupleDescFinalize(desc);
	return desc;
}

/* A sort by the columns of ORDER BY and DISTINCT, and by number. */
static Tuplesortstate *
begin_sort(const ScTrans *trans, TupleDesc desc)
{
	int			n = trans->nsort + 1;
	AttrNumber *columns = palloc(sizeof(AttrNumber) * n);
	Oid		   *operators = palloc(sizeof(Oid) * n);
	Oid		   *collations = palloc(sizeof(Oid) * n);
	bool	   *nulls_first = palloc(sizeof(bool) * n);

	for (int i = 0; i < trans->nsort; i++)
	{
		columns[i] = trans->sort_input[i] + 1;
		operators[i] = trans->sort_operator[i];
		collations[i] = trans->sort[i].ssup_collation;
		nulls_first[i] = trans->sort[i].ssup_nulls_first;
	}
	columns[n - 1] = trans->ninputs + 1;
	operators[n - 1] = Int8LessOperator;
	collations[n - 1] = InvalidOid;
	nulls_first[n - 1] = false;
	return tuplesort_begin_heap(desc, n, columns, operators, collations, nulls_first, work_mem, NULL, TUPLESORT_NONE);
}

/* Puts all rows into the sort, through a slot. */
static void
put_rows(ScEngine *engine, ScTrans *trans, const ScInputs *inputs, Tuplesortstate *sort, TupleTableSlot *slot)
{
	MemoryContext rowcontext = engine->tmpcontext->ecxt_per_tuple_memory;
	InputStream stream;

	stream_begin(&stream, trans, inputs);
	for (uint64 n = 0; n < inputs->rows; n++)
	{
		MemoryContext old = MemoryContextSwitchTo(rowcontext);

		CHECK_FOR_INTERRUPTS();
		ExecClearTuple(slot);
		read_row(&stream, slot->tts_values, slot->tts_isnull);
		slot->tts_values[trans->ninputs] = Int64GetDatum((int64) n);
		slot->tts_isnull[trans->ninputs] = false;
		ExecStoreVirtualTuple(slot);
		MemoryContextSwitchTo(old);
		tuplesort_puttupleslot(sort, slot);
		MemoryContextReset(rowcontext);
	}
	ExecClearTuple(slot);
}

/* As replay_sorted, within work_mem. */
static void
replay_tape_sorted(ScEngine *engine, ScTrans *trans, ScInputs *inputs, Datum *state, uint8 *flags)
{
	MemoryContext rowcontext = engine->tmpcontext->ecxt_per_tuple_memory;
	TupleDesc	desc = sorted_desc(trans);
	Tuplesortstate *sort = begin_sort(trans, desc);
	TupleTableSlot *input = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	/* the row, and the one before it */
	TupleTableSlot *slots[2] = {MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple),
	MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple)};
	InputRow	rows[2] = {0};

	put_rows(engine, trans, inputs, sort, input);
	tuplesort_performsort(sort);
	for (uint64 n = 0; tuplesort_gettupleslot(sort, true, true, slots[n % 2], NULL); n++)
	{
		InputRow   *row = &rows[n % 2];
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		check_room(engine, inputs, n);
		slot_getallattrs(slots[n % 2]);
		row->values = slots[n % 2]->tts_values;
		row->nulls = slots[n % 2]->tts_isnull;
		if (trans->distinct && n > 0 && compare_columns(&rows[(n + 1) % 2], row, trans) == 0)
			continue;
		old = MemoryContextSwitchTo(rowcontext);
		replay_row(engine, trans, row->values, row->nulls, state, flags);
		MemoryContextSwitchTo(old);
		MemoryContextReset(rowcontext);
	}
	tuplesort_end(sort);
	ExecDropSingleTupleTableSlot(input);
	ExecDropSingleTupleTableSlot(slots[0]);
	ExecDropSingleTupleTableSlot(slots[1]);
}

/*
 * Builds the state from its inputs, in aggstate->curaggcontext (the replay
 * context).  The current context is outcontext's; the row context is reset.
 */
void
sc_inputs_replay(ScEngine *engine, ScTrans *trans, ScInputs *inputs,
				 Datum *state, uint8 *flags)
{
	sc_state_init(trans, engine->aggstate->curaggcontext->ecxt_per_tuple_memory,
				  state, flags);
	if (inputs != NULL)
		sc_inputs_advance(engine, trans, inputs, state, flags);
}

/* Advances a state, which lives in aggstate->curaggcontext, by kept inputs; contexts as above. */
void
sc_inputs_advance(ScEngine *engine, ScTrans *trans, ScInputs *inputs,
				  Datum *state, uint8 *flags)
{
	sc_limit_add(inputs->rows / INPUTS_TO_UNIT);
	if (trans->nsigns > 0)
		inputs = sc_inputs_left(engine, trans, inputs, CurrentMemoryContext);
	if (trans->nsort > 0 && inputs->tape != NULL)
		replay_tape_sorted(engine, trans, inputs, state, flags);
	else if (trans->nsort > 0)
		replay_sorted(engine, trans, inputs, state, flags);
	else
		replay_in_order(engine, trans, inputs, state, flags);
}
