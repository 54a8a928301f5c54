/*-------------------------------------------------------------------------
 * replay.c
 *	  A state made of kept inputs (inputs.c): all of them go through the transition function.
 *
 * ORDER BY and DISTINCT are applied here; equal rows keep their order of arrival.  Ordered-set aggregates sort
 * inside their own transition functions.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/limit.h"
#include "exec/exec_internal.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* Inputs that count as one row for the time limit, when they are sorted and replayed */
#define INPUTS_TO_UNIT		4

/* Sorting at replay: one per row, pointing into an array of its values */
typedef struct InputRow
{
	Datum	   *values;
	bool	   *nulls;
	int64		number;
} InputRow;

/* Decodes the next row; by-reference values go to the current context. */
static void
read_row(ScReader *reader, const ScTrans *trans, Datum *values, bool *nulls)
{
	const char *bitmap = sc_read_bytes(reader, (trans->ninputs + 7) / 8);

	for (int i = 0; i < trans->ninputs; i++)
	{
		nulls[i] = (bitmap[i / 8] & (1 << (i % 8))) != 0;
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
		trans->fcinfo->args[i + 1].value = values[i];
		trans->fcinfo->args[i + 1].isnull = nulls[i];
	}
	sc_transition_call(engine, trans, state, flags);
}

/* Through the transition function in the order in which they came, one at a time in memory. */
static void
replay_in_order(ScEngine *engine, ScTrans *trans, ScInputs *inputs,
				Datum *state, uint8 *flags)
{
	ScReader	reader = {inputs->data, inputs->data + inputs->len};
	Datum	   *values = palloc(sizeof(Datum) * Max(trans->ninputs, 1));
	bool	   *nulls = palloc(Max(trans->ninputs, 1));
	MemoryContext rowcontext = engine->tmpcontext->ecxt_per_tuple_memory;

	for (uint64 n = 0; n < inputs->rows; n++)
	{
		MemoryContext old = MemoryContextSwitchTo(rowcontext);

		CHECK_FOR_INTERRUPTS();
		read_row(&reader, trans, values, nulls);
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

/* All rows decoded into the current context. */
static InputRow *
read_rows(const ScTrans *trans, ScInputs *inputs)
{
	ScReader	reader = {inputs->data, inputs->data + inputs->len};
	uint64		n = inputs->rows;
	InputRow   *rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(InputRow) * n);
	Datum	   *values = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(Datum) * n * trans->ninputs);
	bool	   *nulls = MemoryContextAllocHuge(CurrentMemoryContext, n * trans->ninputs);

	for (uint64 i = 0; i < n; i++)
	{
		rows[i].values = values + i * trans->ninputs;
		rows[i].nulls = nulls + i * trans->ninputs;
		rows[i].number = i;
		read_row(&reader, trans, rows[i].values, rows[i].nulls);
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
	if (trans->nsort > 0)
		replay_sorted(engine, trans, inputs, state, flags);
	else
		replay_in_order(engine, trans, inputs, state, flags);
}
