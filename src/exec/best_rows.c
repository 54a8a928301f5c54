/*-------------------------------------------------------------------------
 * best_rows.c
 *	  The best rows of each group: DISTINCT ON, and row_number() <= n.
 *
 * They are the state of an aggregate of ours, stream_ckpt.best_rows(), so that all that happens to states happens to
 * them.  query/ makes the call, nobody else can: what is to be done (ScBestRows of model/definition.h) is its first
 * argument, a pointer, which is of type internal.  The others are the rows' columns; those that are sorted by come
 * first.
 *
 * The state is a bytea:
 *
 *	  uint32		number of rows; without ranks at most n, and never less than before
 *	  uint32[2]		for each of them, the best one first: the byte at which it begins, a multiple of 8; its number
 *	  MinimalTuple	the rows
 *
 * Integers are in the machine's byte order.  Of two rows that are as good as each other the one that came first is
 * better; with ranks (ScRanking) they have one number.
 *
 * The rule: a state depends on what the columns' types are, down to the columns of row types, and how they are sorted,
 * which is part of the query's signature (sc_best_rows_sign).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "base/compat.h"
#include "base/sqlfunc.h"
#include "catalog/pg_type.h"
#include "exec/exec_internal.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(stream_ckpt_best_rows_add);
PG_FUNCTION_INFO_V1(stream_ckpt_best_rows_combine);

/* The bytes of a state */
struct ScBestState
{
	int32		vl_len_;
	uint32		count;
	struct
	{
		uint32		place;
		uint32		number;
	}			rows[FLEXIBLE_ARRAY_MEMBER];
};

typedef struct ScBestState ScBestState;

#define STATE_HEADER(n) MAXALIGN(offsetof(struct ScBestState, rows) + 2 * sizeof(uint32) * (n))

/* Rows of one rank are as many as there come; more than so many are copied too often */
#define MOST_RANKED	10000

/* What one of the functions has made ready. */
typedef struct BestCall
{
	const ScBestRows *best;
	TupleDesc	desc;
	TupleTableSlot *a;			/* to take a row apart */
	TupleTableSlot *b;
	SortSupportData *sort;
	Datum	   *values;
	bool	   *nulls;
} BestCall;

/* The row type of the rows that are kept. */
TupleDesc
sc_best_rows_desc(const ScBestRows *best)
{
	TupleDesc	desc = CreateTemplateTupleDesc(best->ncolumns);

	for (int i = 0; i < best->ncolumns; i++)
	{
		TupleDescInitEntry(desc, i + 1, NULL, best->columns[i].type, best->columns[i].typmod, 0);
		TupleDescInitEntryCollation(desc, i + 1, best->columns[i].collation);
	}
	TupleDescFinalize(desc);
	return desc;
}

/* In the function's memory.  An error if it is called by anything but our engine. */
static BestCall *
make_call(FunctionCallInfo fcinfo)
{
	Aggref	   *aggref = AggGetAggref(fcinfo);
	Const	   *first = NULL;
	MemoryContext old;
	BestCall   *call;

	if (aggref != NULL && aggref->args != NIL)
		first = (Const *) linitial_node(TargetEntry, aggref->args)->expr;
	if (first == NULL || !IsA(first, Const) || first->consttype != INTERNALOID || first->constisnull)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("best_rows() cannot be called"),
				 errhint("It is what DISTINCT ON of a continuous query is made of.")));

	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	call = palloc0(sizeof(BestCall));
	call->best = (const ScBestRows *) DatumGetPointer(first->constvalue);
	call->desc = sc_best_rows_desc(call->best);
	call->a = MakeSingleTupleTableSlot(call->desc, &TTSOpsMinimalTuple);
	call->b = MakeSingleTupleTableSlot(call->desc, &TTSOpsMinimalTuple);
	call->sort = palloc0(sizeof(SortSupportData) * Max(call->best->nsort, 1));
	call->values = palloc(sizeof(Datum) * Max(call->best->ncolumns, 1));
	call->nulls = palloc(sizeof(bool) * Max(call->best->ncolumns, 1));
	for (int i = 0; i < call->best->nsort; i++)
	{
		SortSupport sort = &call->sort[i];

		sort->ssup_cxt = CurrentMemoryContext;
		sort->ssup_collation = call->best->columns[i].collation;
		sort->ssup_nulls_first = call->best->columns[i].nulls_first;
		PrepareSortSupportFromOrderingOp(call->best->columns[i].sort_operator, sort);
	}
	MemoryContextSwitchTo(old);
	return fcinfo->flinfo->fn_extra = call;
}

static inline BestCall *
get_call(FunctionCallInfo fcinfo)
{
	if (likely(fcinfo->flinfo->fn_extra != NULL))
		return fcinfo->flinfo->fn_extra;
	return make_call(fcinfo);
}

/* The state where it lies, or a copy whose rows are aligned. */
static const ScBestState *
open_state(Datum datum)
{
	struct varlena *value = (struct varlena *) DatumGetPointer(datum);
	void	   *copy;

	if (VARATT_IS_EXTENDED(value))
		value = pg_detoast_datum(value);
	if ((const char *) value == (const char *) MAXALIGN((uintptr_t) value))
		return (const ScBestState *) value;
	copy = palloc(VARSIZE(value));
	return memcpy(copy, value, VARSIZE(value));
}

static MinimalTuple
state_row(const ScBestState *state, uint32 i)
{
	return (MinimalTuple) ((char *) state + state->rows[i].place);
}

static const ScBestState *
argument_state(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : open_state(PG_GETARG_DATUM(n));
}

/* Values of one row against those of another: negative if the first one is better. */
static inline int
compare(BestCall *call, const Datum *values, const bool *nulls, TupleTableSlot *other)
{
	for (int i = 0; i < call->best->nsort; i++)
	{
		int			result = ApplySortComparator(values[i], nulls[i], other->tts_values[i], other->tts_isnull[i],
												 &call->sort[i]);

		if (result != 0)
			return result;
	}
	return 0;
}

static void
load(BestCall *call, TupleTableSlot *slot, MinimalTuple row)
{
	ExecStoreMinimalTuple(row, slot, false);
	slot_getsomeattrs(slot, call->best->nsort);
}

/* Where the new row, in call->values, belongs: behind all that are as good as it. */
static uint32
find_place(BestCall *call, const ScBestState *state)
{
	uint32		low = 0;
	uint32		high = state->count;

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;

		load(call, call->a, state_row(state, middle));
		if (compare(call, call->values, call->nulls, call->a) < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Rows on their way into a state. */
typedef struct Rows
{
	MinimalTuple *rows;
	uint32	   *numbers;
	uint32		count;
} Rows;

/* Room for so many. */
static Rows
make_rows(uint32 most)
{
	Rows		rows = {palloc(sizeof(MinimalTuple) * most), palloc(sizeof(uint32) * most), 0};

	return rows;
}

static void
append_row(Rows *rows, MinimalTuple row, uint32 number)
{
	rows->rows[rows->count] = row;
	rows->numbers[rows->count++] = number;
}

/* The number of a row behind these; "equal": it is as good as the last one. */
static uint32
next_number(const BestCall *call, uint32 count, uint32 last, bool equal)
{
	if (count == 0 || call->best->ranking == SC_ROW_NUMBER)
		return count + 1;
	if (equal)
		return last;
	return call->best->ranking == SC_RANK ? count + 1 : last + 1;
}

/* A state of these rows, in this order. */
static ScBestState *
make_state(const Rows *rows)
{
	uint32		count = rows->count;
	Size		size = STATE_HEADER(count);
	ScBestState *state;

	for (uint32 i = 0; i < count; i++)
		size += MAXALIGN(rows->rows[i]->t_len);
	if (size > MaxAllocSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the best rows of a group are too large"),
				 errdetail("They take %zu bytes.", size),
				 errhint("Keep fewer of them, or leave large columns out of the select list.")));
	state = palloc0(size);
	SET_VARSIZE(state, size);
	state->count = count;
	size = STATE_HEADER(count);
	for (uint32 i = 0; i < count; i++)
	{
		state->rows[i].place = size;
		state->rows[i].number = rows->numbers[i];
		memcpy((char *) state + size, rows->rows[i], rows->rows[i]->t_len);
		size += MAXALIGN(rows->rows[i]->t_len);
	}
	return state;
}

/* The new row as it is kept: what lies out of line is brought in. */
static MinimalTuple
form_row(BestCall *call)
{
	for (int i = 0; i < call->best->ncolumns; i++)
	{
		struct varlena *value = (struct varlena *) DatumGetPointer(call->values[i]);

		if (call->nulls[i] || TupleDescAttr(call->desc, i)->attlen != -1 || VARATT_IS_EXTERNAL_EXPANDED(value))
			continue;
		if (VARATT_IS_EXTERNAL(value))
			call->values[i] = PointerGetDatum(detoast_external_attr(value));
	}
	return sc_form_minimal_tuple(call->desc, call->values, call->nulls);
}

/*
 * Where the new row, in call->values, belongs, and its number; "*equal": it is as good as the one before it.  False:
 * it isn't wanted.
 */
static bool
place_row(BestCall *call, const ScBestState *state, uint32 *place, uint32 *number, bool *equal)
{
	uint32		count = state != NULL ? state->count : 0;
	int			result = -1;

	*place = count;
	*equal = false;
	if (count > 0)
	{
		/* most rows are no better than the last one */
		load(call, call->a, state_row(state, count - 1));
		result = compare(call, call->values, call->nulls, call->a);
		*equal = result == 0;
		if (result < 0)
			*place = find_place(call, state);
		if (result < 0 && *place > 0 && call->best->ranking != SC_ROW_NUMBER)
		{
			load(call, call->a, state_row(state, *place - 1));
			*equal = compare(call, call->values, call->nulls, call->a) == 0;
		}
	}
	*number = next_number(call, *place, *place > 0 ? state->rows[*place - 1].number : 0, *equal);
	return *number <= (uint32) call->best->n;
}

/* best_rows_add(state bytea, how internal, VARIADIC columns "any") -> bytea: the transition function */
Datum
stream_ckpt_best_rows_add(PG_FUNCTION_ARGS)
{
	BestCall   *call = get_call(fcinfo);
	const ScBestState *state = argument_state(fcinfo, 0);
	uint32		count = state != NULL ? state->count : 0;
	Rows		rows;
	uint32		place;
	uint32		number;
	bool		equal;

	for (int i = 0; i < call->best->ncolumns; i++)
	{
		call->values[i] = PG_GETARG_DATUM(i + 2);
		call->nulls[i] = PG_ARGISNULL(i + 2);
	}
	if (!place_row(call, state, &place, &number, &equal))
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	rows = make_rows(count + 1);
	for (uint32 i = 0; i < place; i++)
		append_row(&rows, state_row(state, i), state->rows[i].number);
	append_row(&rows, form_row(call), number);
	for (uint32 i = place; i < count; i++)
	{
		/* what is worse than the new row moves down, by ranks that leave none out only if there is a new one */
		uint32		moved = state->rows[i].number + !(equal && call->best->ranking == SC_DENSE_RANK);

		if (moved <= (uint32) call->best->n)
			append_row(&rows, state_row(state, i), moved);
	}
	if (call->best->ranking != SC_ROW_NUMBER && rows.count > MOST_RANKED)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("more than %d rows of a key have a rank of up to %d", MOST_RANKED, call->best->n),
				 errhint("Write further columns into ORDER BY, so that less rows are as good as each other, or use row_number().")));
	PG_RETURN_POINTER(make_state(&rows));
}

/* best_rows_combine(a bytea, b bytea) -> bytea; the rows of "a" came first */
Datum
stream_ckpt_best_rows_combine(PG_FUNCTION_ARGS)
{
	BestCall   *call = get_call(fcinfo);
	const ScBestState *a = argument_state(fcinfo, 0);
	const ScBestState *b = argument_state(fcinfo, 1);
	uint32		in_a = a != NULL ? a->count : 0;
	uint32		in_b = b != NULL ? b->count : 0;
	uint32		i = 0;
	uint32		j = 0;
	Rows		rows;

	if (in_a + in_b == 0)
		PG_RETURN_NULL();
	rows = make_rows(in_a + in_b);
	while (i < in_a || j < in_b)
	{
		bool		from_a = j >= in_b;
		bool		equal = false;
		MinimalTuple row;
		uint32		number;

		if (i < in_a && j < in_b)
		{
			load(call, call->a, state_row(a, i));
			load(call, call->b, state_row(b, j));
			from_a = compare(call, call->a->tts_values, call->a->tts_isnull, call->b) <= 0;
		}
		row = from_a ? state_row(a, i++) : state_row(b, j++);
		if (rows.count > 0 && call->best->ranking != SC_ROW_NUMBER)
		{
			load(call, call->a, row);
			load(call, call->b, rows.rows[rows.count - 1]);
			equal = compare(call, call->a->tts_values, call->a->tts_isnull, call->b) == 0;
		}
		number = next_number(call, rows.count, rows.count > 0 ? rows.numbers[rows.count - 1] : 0, equal);
		if (number > (uint32) call->best->n)
			break;
		append_row(&rows, row, number);
	}
	PG_RETURN_POINTER(make_state(&rows));
}

/* ---------- the rows of a group ---------- */

/*
 * What a type is made of, down to types that nobody can change: ALTER TYPE doesn't know of the values in our states.
 * Their rows would be read with the new columns.
 */
static void
sign_type(StringInfo buf, Oid type)
{
	Oid			element = get_base_element_type(type);
	TupleDesc	desc;

	check_stack_depth();
	appendStringInfo(buf, " %u", type);
	if (OidIsValid(element))
	{
		sign_type(buf, element);
		return;
	}
	type = getBaseType(type);
	if (type_is_range(type))
		sign_type(buf, get_range_subtype(type));
	else if (type_is_multirange(type))
		sign_type(buf, get_multirange_range(type));
	if (get_typtype(type) != TYPTYPE_COMPOSITE)
		return;
	desc = lookup_rowtype_tupdesc_copy(type, -1);
	appendStringInfo(buf, "(%d", desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			appendStringInfo(buf, " -%d%c", att->attlen, att->attalign);
		else
			sign_type(buf, att->atttypid);
	}
	appendStringInfoChar(buf, ')');
	FreeTupleDesc(desc);
}

/* What the states of the query depend on, beside types that are signed anyway. */
void
sc_best_rows_sign(const ScBestRows *best, StringInfo buf)
{
	appendStringInfo(buf, " best %d %d of", (int) best->ranking, best->n);
	for (int i = 0; i < best->ncolumns; i++)
	{
		const ScBestColumn *column = &best->columns[i];

		sign_type(buf, column->type);
		if (i < best->nsort)
			appendStringInfo(buf, " by %u:%u %d", column->sort_operator, column->collation, column->nulls_first);
	}
}

const struct ScBestState *
sc_best_rows_open(Datum state, uint32 *count)
{
	const ScBestState *result = open_state(state);

	*count = result->count;
	return result;
}

void
sc_best_rows_show(ScEngine *engine, const ScBestState *state, uint32 i)
{
	TupleTableSlot *row = engine->best_slot;
	TupleTableSlot *slot = engine->group_slot;
	int			number = SC_BEST_NUMBER(engine->def) - 1;
	int			natts = row->tts_tupleDescriptor->natts;

	ExecStoreMinimalTuple(state_row(state, i), row, false);
	slot_getallattrs(row);
	slot->tts_values[number] = Int64GetDatum(state->rows[i].number);
	slot->tts_isnull[number] = false;
	memcpy(slot->tts_values + number + 1, row->tts_values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull + number + 1, row->tts_isnull, natts * sizeof(bool));
}
