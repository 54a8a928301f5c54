/*-------------------------------------------------------------------------
 * inputs.c
 *	  The general path: where a state can't be kept, or couldn't be combined with another, its
 *	  inputs are, and each result replays them from the first (replay.c).
 *
 * FILTER is applied, and rows that a strict transition function would skip are
 * dropped, before an input is kept.
 *
 * The kept bytes are the ones that the changelog carries (encode.c), so that a
 * checkpoint copies what was added, and nothing is converted.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "catalog/pg_aggregate.h"
#include "exec/exec_internal.h"
#include "exec/tape.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"
#include "optimizer/optimizer.h"
#include "utils/memutils.h"

#define FIRST_INPUTS_SIZE	72	/* with ScInputs' header a round chunk */

/* So much of stream_ckpt.task_memory is for inputs that are loaded into one bucket; bytes of a group that go to a tape */
#define LOADED_SHARE	8
#define TAPE_BYTES		(64 * 1024)

/* Sort columns of an aggregate with ORDER BY or DISTINCT. */
static void
compile_sort(ScEngine *engine, ScTrans *trans, const Aggref *aggref)
{
	/* by construction ORDER BY is a prefix of DISTINCT */
	List	   *clauses = aggref->aggdistinct ? aggref->aggdistinct : aggref->aggorder;
	ListCell   *lc;

	trans->distinct = (aggref->aggdistinct != NIL);
	trans->sort_input = palloc0(sizeof(int) * Max(list_length(clauses), 1));
	trans->sort_operator = palloc0(sizeof(Oid) * Max(list_length(clauses), 1));
	trans->sort = palloc0(sizeof(SortSupportData) * Max(list_length(clauses), 1));
	foreach(lc, clauses)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		TargetEntry *entry = get_sortgroupclause_tle(clause, aggref->args);
		SortSupport sort = &trans->sort[trans->nsort];

		trans->sort_operator[trans->nsort] = clause->sortop;
		trans->sort_input[trans->nsort++] = entry->resno - 1;
		sort->ssup_cxt = engine->context;
		sort->ssup_collation = exprCollation((Node *) entry->expr);
		sort->ssup_nulls_first = clause->nulls_first;
		PrepareSortSupportFromOrderingOp(clause->sortop, sort);
	}
}

/* The current context is the engine's. */
void
sc_inputs_compile(ScEngine *engine, ScTrans *trans)
{
	const Aggref *aggref = trans->pertrans->aggref;
	ListCell   *lc;
	int			i = 0;

	trans->nsigns = engine->retracts ? 1 : 0;
	trans->nbitmap = (trans->ninputs + trans->nsigns + 7) / 8;
	trans->input_types = palloc0(sizeof(ScType) * Max(trans->ninputs, 1));
	for_each_from(lc, aggref->args, trans->nfixed)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);

		sc_type_init(&trans->input_types[i++], exprType((Node *) entry->expr));
	}
	if (i < trans->ninputs)
		sc_type_init(&trans->input_types[i], engine->def->event_time_type);
	if (!AGGKIND_IS_ORDERED_SET(aggref->aggkind))
		compile_sort(engine, trans, aggref);
}

/* Empty ones, with room for so many bytes. */
static ScInputs *
new_inputs(ScBucket *bucket, Size size)
{
	ScInputs   *inputs;

	size = Max(size, FIRST_INPUTS_SIZE);
	inputs = MemoryContextAllocHuge(bucket->context, offsetof(ScInputs, data) + size);
	inputs->rows = inputs->minuses = inputs->rows_written = 0;
	inputs->tape = NULL;
	inputs->len = inputs->written = 0;
	inputs->size = size;
	return inputs;
}

/*
 * Appends encoded rows to a group's inputs, whose state word is "state"; used
 * for single rows and when loading.
 */
void
sc_inputs_append(ScBucket *bucket, Datum *state, uint64 rows, const char *data, Size len)
{
	ScInputs   *inputs = (ScInputs *) DatumGetPointer(*state);

	if (inputs == NULL)
		inputs = new_inputs(bucket, len);
	else if (len > inputs->size - inputs->len)
	{
		Size		size = inputs->size;

		/* doubled while small, then by a half */
		size += size < 64 * 1024 ? size + offsetof(ScInputs, data) : size / 2;
		size = Max(size, inputs->len + len);
		inputs = repalloc_huge(inputs, offsetof(ScInputs, data) + size);
		inputs->size = size;
	}
	memcpy(inputs->data + inputs->len, data, len);
	inputs->len += len;
	inputs->rows += rows;
	bucket->inputs_bytes += len;
	*state = PointerGetDatum(inputs);
}

/* What of them is in memory goes to the tape, and the memory back. */
static void
move_to_tape(ScBucket *bucket, Datum *state)
{
	ScInputs   *inputs = (ScInputs *) DatumGetPointer(*state);
	ScInputs   *rest;

	sc_tape_append(&bucket->tapes, &inputs->tape, bucket->context, inputs->data, inputs->len);
	bucket->inputs_bytes -= inputs->len;
	inputs->len = inputs->written = 0;
	if (inputs->size <= 2 * TAPE_BYTES)
		return;
	rest = new_inputs(bucket, TAPE_BYTES);
	rest->rows = inputs->rows;
	rest->minuses = inputs->minuses;
	rest->rows_written = inputs->rows_written;
	rest->tape = inputs->tape;
	pfree(inputs);
	*state = PointerGetDatum(rest);
}

/*
 * Not those of a resident pane: it is in memory as a whole, or not at all.  Nor few ones of a group, whatever all of
 * them take together: such a bucket is small.
 */
void
sc_inputs_load(ScBucket *bucket, Datum *state, uint64 rows, const char *data, Size len)
{
	Size		most = sc_task_memory_bytes() / LOADED_SHARE;

	sc_inputs_append(bucket, state, rows, data, len);
	if (bucket != bucket->pane->bucket && bucket->inputs_bytes > most &&
		((ScInputs *) DatumGetPointer(*state))->len >= Min(TAPE_BYTES, most))
		move_to_tape(bucket, state);
}

/* "buf" is as it was if the transition function is strict, and one of its arguments NULL.  The context is the row's. */
bool
sc_inputs_image(ScEngine *engine, ScTrans *trans, StringInfo buf)
{
	int			nbitmap = trans->nbitmap;
	int			at = buf->len;

	enlargeStringInfo(buf, nbitmap + 1);
	memset(buf->data + at, 0, nbitmap);
	buf->len += nbitmap;

	for (int i = 0; i < trans->ninputs; i++)
	{
		bool		isnull;
		Datum		value = sc_expr_value(&trans->inputs[i], engine->tmpcontext, &isnull);
		int			bit = i + trans->nsigns;

		if (!isnull)
			sc_datum_write(buf, value, &trans->input_types[i]);
		else if (trans->strict && i < trans->nargs)
		{
			buf->len = at;
			return false;
		}
		else
			buf->data[at + bit / 8] |= 1 << (bit % 8);
	}
	return true;
}

/* Keeps the current row's inputs.  The current context is the row's. */
void
sc_inputs_keep(ScEngine *engine, ScTrans *trans, ScBucket *bucket, Datum *state)
{
	StringInfo	buf = &engine->scratch;

	resetStringInfo(buf);
	if (sc_inputs_image(engine, trans, buf))
		sc_inputs_append(bucket, state, 1, buf->data, buf->len);
}

/* There are none any more, so far. */
void
sc_inputs_empty(ScBucket *bucket, Datum state)
{
	ScInputs   *inputs = (ScInputs *) DatumGetPointer(state);

	if (inputs == NULL)
		return;
	bucket->inputs_bytes -= inputs->len;
	inputs->len = inputs->rows = inputs->minuses = 0;
	if (inputs->tape != NULL)
		sc_tape_free(inputs->tape);
	inputs->tape = NULL;
}

/* Kept inputs that no group has any more. */
void
sc_inputs_free(ScBucket *bucket, Datum state)
{
	if (DatumGetPointer(state) == NULL)
		return;
	sc_inputs_empty(bucket, state);
	pfree(DatumGetPointer(state));
}
