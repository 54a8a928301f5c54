/*-------------------------------------------------------------------------
 * store_history.c
 *	  The record of each checkpoint in stream_ckpt.checkpoint, failed ones too,
 *	  and what is left of queries that are gone.  The frame is in store.c.
 *
 * A checkpoint that failed is tried again under the same id in the same attempt,
 * so a key can be written several times: the last outcome replaces the earlier.
 * The history is pruned a batch at a time, every HISTORY_BATCH checkpoints.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/settings.h"
#include "ckpt/store_internal.h"
#include "model/catalog.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#define HISTORY_BATCH	16

/* Fills the row of a record; "failure" NULL: completed. */
static void
record_to_values(const ScCheckpointRecord *record, const char *failure,
				 Datum *values, bool *nulls)
{
	memset(nulls, 0, Natts_checkpoint * sizeof(bool));
	values[Anum_checkpoint_pipeline_id - 1] = Int32GetDatum(record->pipeline_id);
	values[Anum_checkpoint_id - 1] = Int64GetDatum(record->checkpoint_id);
	values[Anum_checkpoint_attempt - 1] = Int64GetDatum(record->attempt);
	values[Anum_checkpoint_kind - 1] = CStringGetTextDatum(record->kind);
	values[Anum_checkpoint_status - 1] = CStringGetTextDatum(failure ? "failed" : "completed");
	values[Anum_checkpoint_triggered_at - 1] = TimestampTzGetDatum(record->triggered_at);
	values[Anum_checkpoint_completed_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_checkpoint_barrier_ms - 1] = Float8GetDatum(record->barrier_us / 1000.0);
	values[Anum_checkpoint_sync_ms - 1] = Float8GetDatum(record->sync_us / 1000.0);
	values[Anum_checkpoint_async_ms - 1] = Float8GetDatum(record->async_us / 1000.0);
	values[Anum_checkpoint_lsn - 1] = LSNGetDatum(record->lsn);
	nulls[Anum_checkpoint_lsn - 1] = XLogRecPtrIsInvalid(record->lsn);
	values[Anum_checkpoint_rows_in - 1] = Int64GetDatum(record->rows_in);
	values[Anum_checkpoint_result_rows - 1] = Int64GetDatum(record->result_rows);
	values[Anum_checkpoint_checkpointed_bytes - 1] = Int64GetDatum(record->checkpointed_bytes);
	values[Anum_checkpoint_full_bytes - 1] = Int64GetDatum(record->full_bytes);
	if (failure != NULL)
		values[Anum_checkpoint_failure - 1] = CStringGetTextDatum(failure);
	else
		nulls[Anum_checkpoint_failure - 1] = true;
}

/*
 * Writes the record of a checkpoint, in place of an earlier one of the same key.
 */
void
sc_store_record(const ScCheckpointRecord *record, const char *failure)
{
	Datum		values[Natts_checkpoint];
	bool		nulls[Natts_checkpoint];
	ScanKeyData keys[3];
	StoreTable	table;
	SysScanDesc scan;
	HeapTuple	oldtuple;
	HeapTuple	newtuple;

	sc_store_table_open(&table, "checkpoint", Natts_checkpoint, RowExclusiveLock);
	record_to_values(record, failure, values, nulls);
	newtuple = heap_form_tuple(RelationGetDescr(table.rel), values, nulls);

	ScanKeyInit(&keys[0], Anum_checkpoint_pipeline_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(record->pipeline_id));
	ScanKeyInit(&keys[1], Anum_checkpoint_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(record->checkpoint_id));
	ScanKeyInit(&keys[2], Anum_checkpoint_attempt, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(record->attempt));
	scan = sc_store_scan(&table, 3, keys);
	oldtuple = systable_getnext_ordered(scan, ForwardScanDirection);
	if (oldtuple != NULL)
		CatalogTupleUpdateWithInfo(table.rel, &oldtuple->t_self, newtuple, table.indexes);
	else
		CatalogTupleInsertWithInfo(table.rel, newtuple, table.indexes);
	systable_endscan_ordered(scan);
	sc_store_table_close(&table);
}

/*
 * Deletes records that stream_ckpt.checkpoint_history doesn't keep, counted by
 * checkpoint ids (several attempts at one id count once).
 */
void
sc_store_prune_history(int32 pipeline_id, int64 checkpoint_id)
{
	ScanKeyData keys[2];
	StoreTable	table;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (checkpoint_id % HISTORY_BATCH != 0 || checkpoint_id <= sc_checkpoint_history)
		return;

	sc_store_table_open(&table, "checkpoint", Natts_checkpoint, RowExclusiveLock);
	ScanKeyInit(&keys[0], Anum_checkpoint_pipeline_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(pipeline_id));
	ScanKeyInit(&keys[1], Anum_checkpoint_id, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(checkpoint_id - sc_checkpoint_history));
	scan = sc_store_scan(&table, 2, keys);
	while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
		CatalogTupleDelete(table.rel, &tuple->t_self);
	systable_endscan_ordered(scan);
	sc_store_table_close(&table);
}

/* Counts a failed checkpoint in the pipeline's state row, where there is one. */
static void
count_failure(int32 pipeline_id)
{
	StoreTable	state;
	HeapTuple	tuple;

	sc_store_table_open(&state, "pipeline_state", Natts_state, RowExclusiveLock);
	tuple = sc_store_state_tuple(&state, pipeline_id);
	if (tuple != NULL)
	{
		Datum		values[Natts_state];
		bool		nulls[Natts_state];
		TupleDesc	desc = RelationGetDescr(state.rel);

		heap_deform_tuple(tuple, desc, values, nulls);
		values[Anum_state_failed - 1] =
			Int64GetDatum(DatumGetInt64(values[Anum_state_failed - 1]) + 1);
		CatalogTupleUpdateWithInfo(state.rel, &tuple->t_self,
								   heap_form_tuple(desc, values, nulls),
								   state.indexes);
	}
	sc_store_table_close(&state);
}

/*
 * See store.h.  Needs a transaction, not necessarily a snapshot.
 */
void
sc_store_failed(const ScCheckpointRecord *record, const char *message)
{
	bool		pushed = sc_store_push_snapshot();

	sc_store_record(record, message);
	count_failure(record->pipeline_id);
	sc_store_pop_snapshot(pushed);
	CommandCounterIncrement();
}

/* The smallest query id greater than "after" in a table whose primary key starts with it. */
static bool
next_query_id(StoreTable *table, int64 after, int64 *query_id)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after));
	scan = sc_store_scan(table, 1, &key);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	if (tuple != NULL)
		*query_id = DatumGetInt64(heap_getattr(tuple, 1, RelationGetDescr(table->rel),
											   &isnull));
	systable_endscan_ordered(scan);
	return tuple != NULL;
}

/* Adds to "orphans" the query ids of a table that no query has. */
static List *
collect_orphans(List *orphans, const char *relname, int columns)
{
	StoreTable	table;
	int64		query_id = PG_INT64_MIN;

	sc_store_table_open(&table, relname, columns, AccessShareLock);
	while (next_query_id(&table, query_id, &query_id))
	{
		bool		known = sc_query_by_id(query_id, true) != NULL;
		ListCell   *lc;

		foreach(lc, orphans)
			known |= *(int64 *) lfirst(lc) == query_id;
		if (!known)
		{
			int64	   *id = palloc(sizeof(int64));

			*id = query_id;
			orphans = lappend(orphans, id);
		}
	}
	sc_store_table_close(&table);
	return orphans;
}

/* See store.h.  One index lookup per query and table, however many chunks. */
List *
sc_store_orphans(void)
{
	List	   *orphans;

	orphans = collect_orphans(NIL, "checkpoint_offset", Natts_offset);
	return collect_orphans(orphans, "state_chunk", Natts_chunk);
}
