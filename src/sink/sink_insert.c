/*-------------------------------------------------------------------------
 * sink_insert.c
 *	  The direct way into a result table: executor state, rows that are collected
 *	  to be written together, and inserts by multi-insert as COPY's.
 *	  sink_upsert.c adds updates and deletes.
 *
 * Only for tables that writes_directly() of sink.c accepts.  What the executor
 * would do beyond writing tuples and index entries is done here: constraints.
 * There are no triggers, generated columns, partitions or policies.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "exec/engine.h"
#include "executor/executor.h"
#include "parser/parse_relation.h"
#include "sink/sink_internal.h"

/*
 * Makes the executor's view of the table and opens its indexes.  Called in the
 * sink's memory context.
 */
void
sc_sink_direct_begin(ScSink *sink)
{
	SinkDirect *direct = palloc0(sizeof(SinkDirect));
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(sink->rel);
	rte->relkind = sink->rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;

	direct->estate = CreateExecutorState();
	sc_init_range_table(direct->estate, rte);
	direct->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(direct->result_rel, sink->rel, 1, NULL, 0);
	ExecOpenIndices(direct->result_rel, false);
	sink->direct = direct;
}

/* Are they constants, which no code computes? */
static bool
are_constants(List *expressions)
{
	ListCell   *lc;

	foreach(lc, expressions)
	{
		if (!IsA(lfirst(lc), Const))
			return false;
	}
	return true;
}

/* Do the table's indexes have expressions or predicates? */
bool
sc_sink_has_index_code(const ScSink *sink)
{
	const ResultRelInfo *rel = sink->direct->result_rel;

	for (int i = 0; i < rel->ri_NumIndices; i++)
	{
		const IndexInfo *info = rel->ri_IndexRelationInfo[i];

		if (!are_constants(info->ii_Expressions) || info->ii_Predicate != NIL)
			return true;
	}
	return false;
}

/*
 * Puts the current row into "slot" (of the table's row type), checks the table's
 * constraints, and makes the slot independent of the row.
 */
static void
fill_slot(ScSink *sink, TupleTableSlot *slot)
{
	SinkDirect *direct = sink->direct;
	TupleConstr *constr = RelationGetDescr(sink->rel)->constr;

	ExecClearTuple(slot);
	/* columns that were dropped */
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (int i = 0; i < sink->row_desc->natts; i++)
	{
		slot->tts_values[sink->attnos[i] - 1] = sink->row->tts_values[i];
		slot->tts_isnull[sink->attnos[i] - 1] = sink->row->tts_isnull[i];
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(sink->rel);

	if (constr != NULL && (constr->has_not_null || constr->num_check > 0))
	{
		ExecConstraints(direct->result_rel, slot, direct->estate);
		ResetPerTupleExprContext(direct->estate);
	}
	ExecMaterializeSlot(slot);
}

/*
 * Adds the current row ("len" bytes) to the batch, to be inserted or upserted.  Rows that came before for the other
 * operation are written first.
 */
void
sc_sink_direct_add(ScSink *sink, char op, Size len)
{
	SinkDirect *direct = sink->direct;
	TupleTableSlot **slot;

	if (direct->batch_op != op)
		sc_sink_direct_flush(sink);
	direct->batch_op = op;
	if (op == SC_RESULT_UPSERT && direct->upserts == NULL)
		sc_sink_upserts_begin(sink);

	slot = &direct->batch[direct->batch_rows];
	if (*slot == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(sink->context);

		/* a copy isn't counted: a resource owner is slow with many references to one */
		if (direct->desc == NULL)
			direct->desc = CreateTupleDescCopy(RelationGetDescr(sink->rel));
		*slot = MakeSingleTupleTableSlot(direct->desc, table_slot_callbacks(sink->rel));
		MemoryContextSwitchTo(oldcontext);
	}
	fill_slot(sink, *slot);
	direct->batch_rows++;
	direct->batch_bytes += len;

	if (direct->batch_rows == (op == SC_RESULT_UPSERT ? direct->most_upserts : SINK_BATCH_ROWS) ||
		direct->batch_bytes >= SINK_BATCH_BYTES)
		sc_sink_direct_flush(sink);
}

/* Inserts rows: tuples together, then the index entries of each. */
void
sc_sink_multi_insert(ScSink *sink, TupleTableSlot **slots, int n, BulkInsertState bulk)
{
	SinkDirect *direct = sink->direct;
	MemoryContext oldcontext;

	/* table_multi_insert may leak */
	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(direct->estate));
	table_multi_insert(sink->rel, slots, n, GetCurrentCommandId(true), 0, bulk);
	MemoryContextSwitchTo(oldcontext);

	for (int i = 0; i < n && direct->result_rel->ri_NumIndices > 0; i++)
		list_free(sc_insert_index_tuples(direct->result_rel, slots[i], direct->estate));
	ResetPerTupleExprContext(direct->estate);
}

/* Writes the batch. */
void
sc_sink_direct_flush(ScSink *sink)
{
	SinkDirect *direct = sink->direct;

	if (direct->batch_rows == 0)
		return;
	if (direct->batch_op == SC_RESULT_UPSERT)
		sc_sink_upserts_write(sink);
	else
	{
		if (direct->bulk == NULL)
		{
			MemoryContext oldcontext = MemoryContextSwitchTo(sink->context);

			direct->bulk = GetBulkInsertState();
			MemoryContextSwitchTo(oldcontext);
		}
		sc_sink_multi_insert(sink, direct->batch, direct->batch_rows, direct->bulk);
	}
	for (int i = 0; i < direct->batch_rows; i++)
		ExecClearTuple(direct->batch[i]);
	direct->batch_rows = 0;
	direct->batch_bytes = 0;

	/* an upsert or delete of one of these rows may follow */
	CommandCounterIncrement();
}

/* Writes what is left and closes all. */
void
sc_sink_direct_end(ScSink *sink)
{
	SinkDirect *direct = sink->direct;

	sc_sink_direct_flush(sink);
	if (direct->bulk != NULL)
	{
		FreeBulkInsertState(direct->bulk);
		table_finish_bulk_insert(sink->rel, 0);
	}
	for (int i = 0; i < SINK_BATCH_ROWS && direct->batch[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(direct->batch[i]);

	if (direct->lookup != NULL)
		sc_sink_lookup_end(direct->lookup);
	ExecCloseIndices(direct->result_rel);
	FreeExecutorState(direct->estate);
}
