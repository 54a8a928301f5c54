/*-------------------------------------------------------------------------
 * chunks.c
 *	  The state backend "table" (state/backend.h): chunks in stream_ckpt.state_run,
 *	  written in batches; old chunks, which are only read and deleted, in state_chunk.
 *
 * read.c reads them.
 *
 * The rule: every record that writes a chunk or deletes one carries
 * DoNotReplicateId as its origin, so that decoding drops it before looking at
 * it, and nothing else does.  The transaction's origin is therefore set around
 * exactly those calls and restored also on error: left in place it would mark
 * the commit record, and decoding would drop the whole transaction.
 *
 * Chunks are immutable: an aborted try leaves nothing visible, so writing the
 * same chunks again never conflicts.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/limit.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "model/catalog_table.h"
#include "model/extension.h"
#include "replication/origin.h"
#include "state/table/table_internal.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

/* Rows per multi-insert of chunks, and bytes of their data. */
#define CHUNK_BATCH_ROWS		64
#define CHUNK_BATCH_BYTES		(256 * 1024)

struct ScBackend
{
	MemoryContext context;		/* of its own, child of the caller's */
	ScCatalog	table;
	ScCatalog	old;			/* rel NULL: there are no old chunks */

	/*
	 * Chunks not yet inserted; all of them of subtransaction batch_subid.  A batch
	 * of another one than the current belongs to a subtransaction that aborted
	 * (whoever ends one successfully has called
	 * sc_backend_flush), and is thrown away.
	 */
	TupleTableSlot *batch[CHUNK_BATCH_ROWS];	/* NULL: not made yet */
	int64		batch_query[CHUNK_BATCH_ROWS];
	int64		batch_pane[CHUNK_BATCH_ROWS];
	int			batch_rows;
	Size		batch_bytes;
	SubTransactionId batch_subid;
	TupleDesc	chunk_desc;		/* not reference-counted: slots outlive
								 * subtransactions */
	MemoryContext batch_context;	/* tuples of the batch; reset by each flush */
};

/* Opens state_chunk, if it has ever had anything since it was truncated. */
static void
open_old_chunks(ScCatalog *table)
{
	Relation	rel = table_open(sc_relation_oid("state_chunk"), RowExclusiveLock);
	bool		is_empty = RelationGetNumberOfBlocks(rel) == 0;

	table_close(rel, NoLock);
	if (!is_empty)
		sc_catalog_open(table, "state_chunk", RowExclusiveLock);
}

ScBackend *
sc_backend_begin(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "stream_ckpt chunks",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	ScBackend  *backend = palloc0(sizeof(ScBackend));

	backend->context = context;
	sc_catalog_open(&backend->table, "state_run", RowExclusiveLock);
	open_old_chunks(&backend->old);
	backend->chunk_desc = CreateTupleDescCopy(RelationGetDescr(backend->table.rel));
	backend->batch_context = AllocSetContextCreate(context, "stream_ckpt chunk batch",
												   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(oldcontext);
	return backend;
}

/* Empties the batch without writing it. */
static void
clear_batch(ScBackend *backend)
{
	for (int i = 0; i < backend->batch_rows; i++)
		ExecClearTuple(backend->batch[i]);
	MemoryContextReset(backend->batch_context);
	backend->batch_rows = 0;
	backend->batch_bytes = 0;
}

/* Throws away what an aborted subtransaction left in the batch. */
static void
forget_aborted_batch(ScBackend *backend)
{
	if (backend->batch_rows > 0 &&
		backend->batch_subid != GetCurrentSubTransactionId())
		clear_batch(backend);
}

void
sc_backend_flush(ScBackend *backend)
{
	ReplOriginId save_origin = sc_xact_origin;
	MemoryContext oldcontext;

	forget_aborted_batch(backend);
	if (backend->batch_rows == 0)
		return;

	oldcontext = MemoryContextSwitchTo(backend->batch_context);
	PG_TRY();
	{
		sc_xact_origin = DoNotReplicateId;
		CatalogTuplesMultiInsertWithInfo(backend->table.rel, backend->batch,
										 backend->batch_rows, backend->table.indexes);
	}
	PG_FINALLY();
	{
		sc_xact_origin = save_origin;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	clear_batch(backend);
}

/* A heap tuple of the chunk, in the batch's context. */
static HeapTuple
form_chunk(ScBackend *backend, int64 query_id, const ScChunk *chunk)
{
	Datum		values[Natts_run];
	bool		nulls[Natts_run] = {0};
	MemoryContext oldcontext = MemoryContextSwitchTo(backend->batch_context);
	bytea	   *data = palloc(VARHDRSZ + chunk->len);
	HeapTuple	tuple;

	SET_VARSIZE(data, VARHDRSZ + chunk->len);
	memcpy(VARDATA(data), chunk->data, chunk->len);

	values[Anum_run_query_id - 1] = Int64GetDatum(query_id);
	values[Anum_run_pane - 1] = Int64GetDatum(chunk->pane_key);
	values[Anum_run_age - 1] = Int64GetDatum(chunk->age);
	values[Anum_run_born - 1] = Int64GetDatum(chunk->born);
	values[Anum_run_key_group - 1] = Int16GetDatum(chunk->key_group);
	values[Anum_run_position - 1] = Int64GetDatum((int64) chunk->position);
	values[Anum_run_seq - 1] = Int32GetDatum(chunk->seq);
	values[Anum_run_data - 1] = PointerGetDatum(data);
	tuple = heap_form_tuple(backend->chunk_desc, values, nulls);
	pfree(data);
	MemoryContextSwitchTo(oldcontext);
	return tuple;
}

/* Puts a chunk's tuple into the batch, which has room for it. */
static void
add_to_batch(ScBackend *backend, int64 query_id, const ScChunk *chunk)
{
	int			row = backend->batch_rows;

	if (backend->batch[row] == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(backend->context);

		backend->batch[row] = MakeSingleTupleTableSlot(backend->chunk_desc,
													 &TTSOpsHeapTuple);
		MemoryContextSwitchTo(oldcontext);
	}
	ExecStoreHeapTuple(form_chunk(backend, query_id, chunk),
					   backend->batch[row], true);
	backend->batch_query[row] = query_id;
	backend->batch_pane[row] = chunk->pane_key;
	backend->batch_bytes += chunk->len;
	backend->batch_subid = GetCurrentSubTransactionId();
	backend->batch_rows++;
}

/*
 * Deletes a chunk, unless another transaction has done so: nothing else ever happens to one.  A task deletes what
 * it doesn't need any more (sc_backend_drop_run) while the coordinator drops its pane; it doesn't wait for him, so
 * that they can't wait for each other.
 */
static void
delete_chunk(const ScCatalog *table, HeapTuple tuple, bool wait)
{
	TM_FailureData failure;
	TM_Result	result = sc_heap_delete(table->rel, &tuple->t_self, GetCurrentCommandId(true), wait, &failure);

	if (result != TM_Ok && result != TM_Deleted && (wait || result != TM_BeingModified))
		elog(ERROR, "a chunk of state was changed");
}

/* Which rows are deleted, and how. */
typedef struct Deletion
{
	const ScCatalog *table;
	int			limit;			/* so many at most; 0: all */
	bool		backward;
	bool		wait;
	ScRunPlace	last;			/* of state_run */
} Deletion;

/* Deletes the rows that the scan finds, up to the limit; returns how many. */
static int
delete_found(ScCatalogScan *scan, Deletion *deletion)
{
	ScanDirection direction = deletion->backward ? BackwardScanDirection : ForwardScanDirection;
	HeapTuple	tuple = NULL;
	int			n = 0;

	while ((deletion->limit == 0 || n < deletion->limit) &&
		   (tuple = systable_getnext_ordered(scan->scan, direction)) != NULL)
	{
		if (deletion->limit > 0)
		{
			ScCatalogRow row;

			sc_row_read(&row, deletion->table, tuple);
			deletion->last = sc_run_row_place(&row);
		}
		delete_chunk(deletion->table, tuple, deletion->wait);
		n++;
	}
	return n;
}

/* Deletes the rows of a table that the keys select, in the primary key's order; returns how many. */
static int
delete_rows(ScBackend *backend, Deletion *deletion, int nkeys, ScanKey keys)
{
	ReplOriginId save_origin = sc_xact_origin;
	MemoryContext oldcontext = MemoryContextSwitchTo(backend->context);
	ScCatalogScan scan;
	volatile int n = 0;

	/* what this transaction deleted already must be invisible */
	CommandCounterIncrement();

	sc_catalog_scan(&scan, deletion->table, nkeys, keys);
	PG_TRY();
	{
		sc_xact_origin = DoNotReplicateId;
		n = delete_found(&scan, deletion);
	}
	PG_FINALLY();
	{
		sc_xact_origin = save_origin;
	}
	PG_END_TRY();
	sc_catalog_scan_end(&scan);
	MemoryContextSwitchTo(oldcontext);
	return n;
}

/* All that the keys select. */
static void
delete_chunks(ScBackend *backend, const ScCatalog *table, int nkeys, ScanKey keys)
{
	Deletion	all = {.table = table,.wait = true};

	(void) delete_rows(backend, &all, nkeys, keys);
}

/* Deletes the pane's runs of lower ages of the writer that begins at this key group. */
static void
delete_runs(ScBackend *backend, int64 query_id, int64 pane_key, int64 age, int16 key_group)
{
	ScanKeyData keys[4];

	sc_key_int8(&keys[0], Anum_run_query_id, query_id);
	sc_key_int8(&keys[1], Anum_run_pane, pane_key);
	ScanKeyInit(&keys[2], Anum_run_age, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(age));
	ScanKeyInit(&keys[3], Anum_run_key_group, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(key_group));
	delete_chunks(backend, &backend->table, 4, keys);
}

/* The same of old chunks. */
static void
delete_old_chunks(ScBackend *backend, int64 query_id, int64 pane_key)
{
	ScanKeyData keys[2];

	if (backend->old.rel == NULL)
		return;
	sc_key_int8(&keys[0], Anum_chunk_query_id, query_id);
	sc_key_int8(&keys[1], Anum_chunk_partition_key, pane_key);
	delete_chunks(backend, &backend->old, 2, keys);
}

/* Chunks of the pane that are still in the batch are written. */
static void
flush_pane(ScBackend *backend, int64 query_id, int64 pane_key)
{
	for (int i = 0; i < backend->batch_rows; i++)
	{
		if (backend->batch_query[i] == query_id &&
			backend->batch_pane[i] == pane_key)
		{
			sc_backend_flush(backend);
			return;
		}
	}
}

/*
 * See backend.h.  The chunk's bytes are copied.  Errors where they are more than a
 * page holds.
 */
void
sc_backend_put(ScBackend *backend, int64 query_id, const ScChunk *chunk)
{
	if (chunk->len > SC_CHUNK_BYTES)
		elog(ERROR, "changelog chunk of %zu bytes is too long", chunk->len);

	forget_aborted_batch(backend);

	if (chunk->replaces > 0)
	{
		flush_pane(backend, query_id, chunk->pane_key);
		delete_runs(backend, query_id, chunk->pane_key, chunk->replaces, chunk->key_group);
		if (chunk->alone)
			delete_old_chunks(backend, query_id, chunk->pane_key);
	}

	if (backend->batch_rows == CHUNK_BATCH_ROWS ||
		backend->batch_bytes + chunk->len > CHUNK_BATCH_BYTES)
		sc_backend_flush(backend);
	add_to_batch(backend, query_id, chunk);
}

/*
 * See backend.h.  A pane that comes back later in the same checkpoint starts
 * anew; one whose chunks are still in the batch has them written first.
 */
void
sc_backend_drop_pane(ScBackend *backend, int64 query_id, int64 pane_key, int64 age, int16 key_group)
{
	forget_aborted_batch(backend);
	flush_pane(backend, query_id, pane_key);
	delete_runs(backend, query_id, pane_key, age, key_group);
	delete_old_chunks(backend, query_id, pane_key);
}

void
sc_backend_drop_query(ScBackend *backend, int64 query_id)
{
	ScanKeyData key;

	sc_backend_flush(backend);
	sc_key_int8(&key, Anum_run_query_id, query_id);
	delete_chunks(backend, &backend->table, 1, &key);
	if (backend->old.rel == NULL)
		return;
	sc_key_int8(&key, Anum_chunk_query_id, query_id);
	delete_chunks(backend, &backend->old, 1, &key);
}

void
sc_backend_drop_older(ScBackend *backend, int64 query_id, int64 age)
{
	ScanKeyData keys[2];

	sc_backend_flush(backend);
	sc_key_int8(&keys[0], Anum_run_query_id, query_id);
	ScanKeyInit(&keys[1], Anum_run_age, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(age));
	delete_chunks(backend, &backend->table, 2, keys);
	if (backend->old.rel == NULL)
		return;
	sc_key_int8(&keys[0], Anum_chunk_query_id, query_id);
	delete_chunks(backend, &backend->old, 1, keys);
}

/* A run of one chunk is gone then. */
void
sc_backend_retire_run(ScBackend *backend, int64 query_id, const ScRunName *run)
{
	Deletion	one = {.table = &backend->table,.limit = 1,.wait = true};
	ScanKeyData keys[SC_RUN_KEYS];

	forget_aborted_batch(backend);
	flush_pane(backend, query_id, run->pane_key);
	sc_run_keys(keys, query_id, run);
	(void) delete_rows(backend, &one, SC_RUN_KEYS, keys);
	one.backward = true;
	(void) delete_rows(backend, &one, SC_RUN_KEYS, keys);
}

/* The place to go on saves passing over what earlier calls have deleted. */
int
sc_backend_drop_run(ScBackend *backend, int64 query_id, const ScRunName *run, ScRunPlace *from, int limit)
{
	Deletion	deletion = {.table = &backend->table,.limit = limit};
	ScanKeyData keys[SC_RUN_KEYS + 1];
	ScanKeyData place[SC_PLACE_KEYS];
	int			n;

	forget_aborted_batch(backend);
	flush_pane(backend, query_id, run->pane_key);
	sc_run_keys(keys, query_id, run);
	sc_key_from(&keys[SC_RUN_KEYS], place, from);
	n = delete_rows(backend, &deletion, SC_RUN_KEYS + 1, keys);
	if (n > 0)
		*from = deletion.last;
	sc_limit_add(n);
	return n;
}

void
sc_backend_end(ScBackend *backend)
{
	sc_backend_flush(backend);
	sc_catalog_close(&backend->table);
	if (backend->old.rel != NULL)
		sc_catalog_close(&backend->old);
	MemoryContextDelete(backend->context);
}
