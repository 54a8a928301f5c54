/*-------------------------------------------------------------------------
 * history.c
 *	  The record of each checkpoint in stream_ckpt.checkpoint (history.h).
 *
 * A checkpoint that failed is tried again under the same id in the same attempt,
 * so a key can be written several times: the last outcome replaces the earlier.
 * The history is pruned a batch at a time, every HISTORY_BATCH checkpoints.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "ckpt/history.h"
#include "ckpt/pipeline_state.h"
#include "model/catalog_table.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#define HISTORY_BATCH	16

/* Arrays by task: milliseconds, and bytes. */
static void
set_tasks(ScCatalogRow *row, const ScCheckpointRecord *record)
{
	static const AttrNumber attnos[] = {Anum_checkpoint_task_start_delay_ms, Anum_checkpoint_task_sync_ms,
	Anum_checkpoint_task_async_ms, Anum_checkpoint_task_bytes};
	Datum	   *values = palloc(sizeof(Datum) * Max(record->ntasks, 1));

	for (int figure = 0; figure < lengthof(attnos); figure++)
	{
		bool		is_bytes = attnos[figure] == Anum_checkpoint_task_bytes;

		for (int i = 0; i < record->ntasks; i++)
		{
			const ScCheckpointTask *task = &record->tasks[i];
			int64		us = figure == 0 ? task->start_delay_us : figure == 1 ? task->sync_us : task->async_us;

			values[i] = is_bytes ? Int64GetDatum(task->bytes) : Float8GetDatum(us / 1000.0);
		}
		sc_row_set(row, attnos[figure],
				   PointerGetDatum(construct_array(values, record->ntasks, is_bytes ? INT8OID : FLOAT8OID,
												   sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)));
	}
}

/* Fills the row of a record; "failure" NULL: completed. */
static void
set_record(ScCatalogRow *row, const ScCheckpointRecord *record, const char *failure)
{
	sc_row_set(row, Anum_checkpoint_pipeline_id, Int32GetDatum(record->pipeline_id));
	sc_row_set(row, Anum_checkpoint_id, Int64GetDatum(record->checkpoint_id));
	sc_row_set(row, Anum_checkpoint_attempt, Int64GetDatum(record->attempt));
	sc_row_set_text(row, Anum_checkpoint_kind, record->kind);
	sc_row_set_text(row, Anum_checkpoint_status, failure ? "failed" : "completed");
	sc_row_set(row, Anum_checkpoint_triggered_at, TimestampTzGetDatum(record->triggered_at));
	sc_row_set(row, Anum_checkpoint_completed_at, TimestampTzGetDatum(GetCurrentTimestamp()));
	sc_row_set(row, Anum_checkpoint_barrier_ms, Float8GetDatum(record->barrier_us / 1000.0));
	sc_row_set(row, Anum_checkpoint_sync_ms, Float8GetDatum(record->sync_us / 1000.0));
	sc_row_set(row, Anum_checkpoint_async_ms, Float8GetDatum(record->async_us / 1000.0));
	sc_row_set(row, Anum_checkpoint_lsn, LSNGetDatum(record->lsn));
	if (XLogRecPtrIsInvalid(record->lsn))
		sc_row_set_null(row, Anum_checkpoint_lsn);
	sc_row_set(row, Anum_checkpoint_rows_in, Int64GetDatum(record->rows_in));
	sc_row_set(row, Anum_checkpoint_result_rows, Int64GetDatum(record->result_rows));
	sc_row_set(row, Anum_checkpoint_checkpointed_bytes, Int64GetDatum(record->checkpointed_bytes));
	sc_row_set(row, Anum_checkpoint_full_bytes, Int64GetDatum(record->full_bytes));
	sc_row_set_text(row, Anum_checkpoint_failure, failure);
	set_tasks(row, record);
}

/* Writes the record of a checkpoint, in place of an earlier one of the same key. */
static void
write_record(const ScCheckpointRecord *record, const char *failure)
{
	ScCatalogRow row = {0};
	ScanKeyData keys[3];
	ScCatalog	table;

	set_record(&row, record, failure);
	sc_catalog_open(&table, "checkpoint", RowExclusiveLock);
	sc_key_int4(&keys[0], Anum_checkpoint_pipeline_id, record->pipeline_id);
	sc_key_int8(&keys[1], Anum_checkpoint_id, record->checkpoint_id);
	sc_key_int8(&keys[2], Anum_checkpoint_attempt, record->attempt);
	sc_catalog_put(&table, sc_catalog_find(&table, 3, keys), &row);
	sc_catalog_close(&table);
}

/*
 * Deletes records that stream_ckpt.checkpoint_history doesn't keep, counted by
 * checkpoint ids (several attempts at one id count once).
 */
static void
prune(int32 pipeline_id, int64 checkpoint_id)
{
	ScanKeyData keys[2];
	ScCatalog	table;
	ScCatalogScan scan;
	HeapTuple	tuple;

	if (checkpoint_id % HISTORY_BATCH != 0 || checkpoint_id <= sc_checkpoint_history)
		return;

	sc_catalog_open(&table, "checkpoint", RowExclusiveLock);
	sc_key_int4(&keys[0], Anum_checkpoint_pipeline_id, pipeline_id);
	ScanKeyInit(&keys[1], Anum_checkpoint_id, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(checkpoint_id - sc_checkpoint_history));
	sc_catalog_scan(&scan, &table, 2, keys);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
		sc_catalog_delete(&table, tuple);
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
}

void
sc_history_completed(const ScCheckpointRecord *record)
{
	write_record(record, NULL);
	prune(record->pipeline_id, record->checkpoint_id);
}

void
sc_history_failed(const ScCheckpointRecord *record, const char *message)
{
	bool		pushed = sc_snapshot_push();

	write_record(record, message);
	sc_pipeline_state_count_failure(record->pipeline_id);
	sc_snapshot_pop(pushed);
	CommandCounterIncrement();
}
