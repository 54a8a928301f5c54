/*-------------------------------------------------------------------------
 * sink_upsert.c
 *	  The direct way to update and delete result rows: found by the unique
 *	  index of the result table (sink_lookup.c), changed by tuple id, as logical
 *	  replication's apply does.
 *
 * Upserts are collected, looked up together in the order of the key, and written: rows that
 * are there are updated, unless they are the same; the others are inserted.  All of them
 * are one command, so a key comes once: of several rows with one key the last counts.
 * That order is another than that in which the rows came, and nothing may depend on it: where the
 * table has code of the user's own, or another constraint over several rows, each upsert is a batch of its own.
 *
 * Normally nobody else writes a result table.  Where a user does, his open
 * transaction is waited for (at most lock_timeout); a row that he changed, or inserted, between our
 * lookup and our write is an error, and the checkpoint is tried again.  A tuple id stays
 * its row's in between, because the caller's snapshot keeps rows that were alive in it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/debug.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "sink/sink_internal.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* Has the table a constraint over several rows beside its key? */
static bool
has_other_constraint(ScSink *sink)
{
	const ResultRelInfo *rel = sink->direct->result_rel;
	Oid			key = sc_sink_key(sink, false)->index;

	for (int i = 0; i < rel->ri_NumIndices; i++)
	{
		Relation	index = rel->ri_IndexRelationDescs[i];

		if (RelationGetRelid(index) != key &&
			(index->rd_index->indisunique || index->rd_index->indisexclusion))
			return true;
	}
	return false;
}

/*
 * Prepares lookups.  Also refuses what the executor would: changing a published
 * table whose changes the subscribers couldn't identify.
 */
static void
lookup_begin(ScSink *sink)
{
	if (sink->direct->lookup != NULL)
		return;
	CheckCmdReplicaIdentity(sink->rel, CMD_UPDATE);
	CheckCmdReplicaIdentity(sink->rel, CMD_DELETE);
	sink->direct->lookup = sc_sink_lookup_begin(sink);
}

/* Prepares upserts. */
void
sc_sink_upserts_begin(ScSink *sink)
{
	SinkDirect *direct = sink->direct;
	MemoryContext oldcontext = MemoryContextSwitchTo(sink->context);
	Datum	   *keys;
	bool	   *nulls;
	int			n;

	lookup_begin(sink);
	n = sc_sink_runs_user_code(sink) || has_other_constraint(sink) ? 1 : SINK_BATCH_ROWS;
	keys = palloc(n * sink->key.ncolumns * sizeof(Datum));
	nulls = palloc(n * sink->key.ncolumns * sizeof(bool));
	direct->most_upserts = n;
	direct->upserts = palloc(n * sizeof(SinkUpsert));
	for (int i = 0; i < n; i++)
	{
		direct->upserts[i].keys = keys + i * sink->key.ncolumns;
		direct->upserts[i].nulls = nulls + i * sink->key.ncolumns;
	}
	MemoryContextSwitchTo(oldcontext);
}

/* Fills in a row of the batch, to be looked up. */
static void
fill_upsert(ScSink *sink, SinkUpsert *upsert, int number)
{
	upsert->slot = sink->direct->batch[number];
	upsert->number = number;
	upsert->found = SINK_NONE;
	upsert->has_null = false;
	if (sink->key.one_row)
	{
		upsert->keys[0] = BoolGetDatum(true);
		upsert->nulls[0] = false;
		return;
	}
	for (int i = 0; i < sink->key.ncolumns; i++)
	{
		upsert->keys[i] = slot_getattr(upsert->slot, sink->key.attnos[i], &upsert->nulls[i]);
		upsert->has_null |= upsert->nulls[i];
	}
}

/* Key order; rows with one key in the order in which they came. */
static int
compare_upserts(const void *a, const void *b, void *lookup)
{
	const SinkUpsert *x = a;
	const SinkUpsert *y = b;
	int			result = sc_sink_compare_keys(x, y, lookup);

	return result != 0 ? result : x->number - y->number;
}

/* Raises an error that passes when the checkpoint is tried again. */
pg_noreturn static void
report_changed(const ScSink *sink)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("a row of result table \"%s\" was changed by another transaction",
					RelationGetRelationName(sink->rel))));
}

/* Raises an error unless a row could be changed. */
static void
check_result(ScSink *sink, TM_Result result)
{
	if (result == TM_Ok)
		return;
	if (result != TM_Updated && result != TM_Deleted)
		elog(ERROR, "row of result table \"%s\" can't be changed: status %d",
			 RelationGetRelationName(sink->rel), result);
	report_changed(sink);
}

/* Is it the key that was violated, and no other constraint? */
static bool
is_key_violation(ScSink *sink, const ErrorData *error)
{
	char	   *index = get_rel_name(sc_sink_key(sink, false)->index);

	return error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && error->constraint_name != NULL &&
		error->schema_name != NULL && index != NULL &&
		strcmp(error->constraint_name, index) == 0 &&
		get_namespace_oid(error->schema_name, true) == RelationGetNamespace(sink->rel);
}

/*
 * Inserts rows whose keys weren't there when they were looked up.  If one is there by now, somebody else wrote it
 * meanwhile, and another try finds it.
 */
static void
insert_rows(ScSink *sink, TupleTableSlot **slots, int n)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		sc_sink_multi_insert(sink, slots, n, NULL);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (!is_key_violation(sink, error))
			PG_RE_THROW();
		FlushErrorState();
		report_changed(sink);
	}
	PG_END_TRY();
}

/* Updates the row at the upsert's tuple id. */
static void
update_row(ScSink *sink, SinkUpsert *upsert)
{
	SinkDirect *direct = sink->direct;
	ScUpdateIndexes update_indexes;
	TM_FailureData failure;
	LockTupleMode mode;

	check_result(sink, sc_table_tuple_update(sink->rel, &upsert->tid, upsert->slot, GetCurrentCommandId(true),
											 InvalidSnapshot, true, &failure, &mode, &update_indexes));
	if (sc_updates_indexes(update_indexes))
		list_free(sc_update_index_tuples(direct->result_rel, upsert->slot,
										 direct->estate, update_indexes));
	ResetPerTupleExprContext(direct->estate);
}

/*
 * Writes the batch: updates the rows that are there, in the order of the key, and inserts
 * the others.
 */
void
sc_sink_upserts_write(ScSink *sink)
{
	SinkDirect *direct = sink->direct;
	TupleTableSlot *inserts[SINK_BATCH_ROWS];
	int			n = direct->batch_rows;
	int			ninserts = 0;

	for (int i = 0; i < n; i++)
		fill_upsert(sink, &direct->upserts[i], i);
	if (n > 1)
		qsort_arg(direct->upserts, n, sizeof(SinkUpsert), compare_upserts, direct->lookup);
	for (int i = 0; i < n - 1; i++)
	{
		if (sc_sink_compare_keys(&direct->upserts[i], &direct->upserts[i + 1], direct->lookup) == 0)
			direct->upserts[i].found = SINK_REPLACED;
	}
	sc_sink_lookup_batch(direct->lookup, direct->upserts, n);
	SC_DEBUG_POINT("sink_looked_up");

	for (int i = 0; i < n; i++)
	{
		if (direct->upserts[i].found == SINK_OTHER)
			update_row(sink, &direct->upserts[i]);
		else if (direct->upserts[i].found == SINK_NONE)
			inserts[ninserts++] = direct->upserts[i].slot;
	}
	if (ninserts > 0)
		insert_rows(sink, inserts, ninserts);
}

/* Deletes the row with the current row's key, if there is one; all of them, if its type has made
 * several equal since they were written. */
void
sc_sink_direct_delete(ScSink *sink)
{
	Datum		keys[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	ItemPointerData tid;

	sc_sink_direct_flush(sink);
	lookup_begin(sink);
	for (int i = 0; i < sink->key.ncolumns; i++)
	{
		int			column = sink->key.columns[i];

		keys[i] = sink->key.one_row ? BoolGetDatum(true) : sink->row->tts_values[column];
		nulls[i] = !sink->key.one_row && sink->row->tts_isnull[column];
	}
	while (sc_sink_lookup_row(sink->direct->lookup, keys, nulls, &tid))
	{
		TM_FailureData failure;

		check_result(sink, sc_table_tuple_delete(sink->rel, &tid, GetCurrentCommandId(true), InvalidSnapshot,
												 true, &failure));
		ResetPerTupleExprContext(sink->direct->estate);
		CommandCounterIncrement();
	}
}
