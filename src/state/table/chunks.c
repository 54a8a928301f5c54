/*-------------------------------------------------------------------------
 * chunks.c
 *	  The state backend "table" (state/backend.h): chunks in stream_ckpt.state_run,
 *	  written in batches; old chunks, which are only read and deleted, in state_chunk.
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
#include "state/backend.h"
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

/* Deletes the rows of a table that the keys select, in the primary key's order. */
static void
delete_chunks(ScBackend *backend, const ScCatalog *table, int nkeys, ScanKey keys)
{
	ReplOriginId save_origin = sc_xact_origin;
	MemoryContext oldcontext = MemoryContextSwitchTo(backend->context);
	ScCatalogScan scan;
	HeapTuple	tuple;

	/* what this transaction deleted already must be invisible */
	CommandCounterIncrement();

	sc_catalog_scan(&scan, table, nkeys, keys);
	PG_TRY();
	{
		sc_xact_origin = DoNotReplicateId;
		while ((tuple = sc_catalog_next(&scan)) != NULL)
			sc_catalog_delete(table, tuple);
	}
	PG_FINALLY();
	{
		sc_xact_origin = save_origin;
	}
	PG_END_TRY();
	sc_catalog_scan_end(&scan);
	MemoryContextSwitchTo(oldcontext);
}

/* Deletes the runs of a pane, or, if "newer" isn't NULL, those that it replaces. */
static void
delete_runs(ScBackend *backend, int64 query_id, int64 pane_key, const ScChunk *newer)
{
	ScanKeyData keys[4];

	sc_key_int8(&keys[0], Anum_run_query_id, query_id);
	sc_key_int8(&keys[1], Anum_run_pane, pane_key);
	if (newer != NULL)
	{
		ScanKeyInit(&keys[2], Anum_run_age, BTLessStrategyNumber, F_INT8LT,
					Int64GetDatum(newer->replaces));
		ScanKeyInit(&keys[3], Anum_run_key_group, BTEqualStrategyNumber, F_INT2EQ,
					Int16GetDatum(newer->key_group));
	}
	delete_chunks(backend, &backend->table, newer != NULL ? 4 : 2, keys);
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
		delete_runs(backend, query_id, chunk->pane_key, chunk);
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
sc_backend_drop_pane(ScBackend *backend, int64 query_id, int64 pane_key)
{
	forget_aborted_batch(backend);
	flush_pane(backend, query_id, pane_key);
	delete_runs(backend, query_id, pane_key, NULL);
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

void
sc_backend_end(ScBackend *backend)
{
	sc_backend_flush(backend);
	sc_catalog_close(&backend->table);
	if (backend->old.rel != NULL)
		sc_catalog_close(&backend->old);
	MemoryContextDelete(backend->context);
}

/* ---------- reading ---------- */

/* Whom a scan hands its rows to. */
typedef struct Reading
{
	ScReadChunk read;			/* NULL: read_old */
	ScReadOldChunk read_old;
	void	   *arg;
} Reading;

/* The bytes of a row's chunk, which stay the tuple's, or are in "context". */
static const char *
row_data(const ScCatalogRow *row, AttrNumber attno, MemoryContext context, Size *len)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	/* plain as we store it; after a dump and restore it may not be */
	bytea	   *data = DatumGetByteaPP(sc_row_get(row, attno));

	MemoryContextSwitchTo(old);
	*len = VARSIZE_ANY_EXHDR(data);
	return VARDATA_ANY(data);
}

/* Hands over a row of state_run. */
static void
read_run_row(const Reading *reading, const ScCatalogRow *row, MemoryContext context)
{
	ScChunk		chunk = {0};

	chunk.pane_key = DatumGetInt64(sc_row_get(row, Anum_run_pane));
	chunk.age = DatumGetInt64(sc_row_get(row, Anum_run_age));
	chunk.born = DatumGetInt64(sc_row_get(row, Anum_run_born));
	chunk.key_group = DatumGetInt16(sc_row_get(row, Anum_run_key_group));
	chunk.position = (uint32) DatumGetInt64(sc_row_get(row, Anum_run_position));
	chunk.seq = DatumGetInt32(sc_row_get(row, Anum_run_seq));
	chunk.data = row_data(row, Anum_run_data, context, &chunk.len);
	sc_limit_add(chunk.len / SC_LIMIT_UNIT_BYTES + 1);
	reading->read(reading->arg, &chunk);
}

/* Hands over a row of state_chunk. */
static void
read_old_row(const Reading *reading, const ScCatalogRow *row, MemoryContext context)
{
	ScOldChunk	chunk = {0};

	chunk.pane_key = DatumGetInt64(sc_row_get(row, Anum_chunk_partition_key));
	chunk.checkpoint_id = DatumGetInt64(sc_row_get(row, Anum_chunk_checkpoint_id));
	chunk.seq = DatumGetInt32(sc_row_get(row, Anum_chunk_seq));
	chunk.data = row_data(row, Anum_chunk_data, context, &chunk.len);
	sc_limit_add(chunk.len / SC_LIMIT_UNIT_BYTES + 1);
	reading->read_old(reading->arg, &chunk);
}

/*
 * Hands over all rows of a query, whose id is the first column, in the primary key's order.  One chunk in
 * memory at a time.
 */
static void
read_rows(const char *name, int64 query_id, const Reading *reading)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "stream_ckpt chunk",
												  ALLOCSET_DEFAULT_SIZES);
	ScCatalog	table;
	ScanKeyData key;
	ScCatalogScan scan;
	HeapTuple	tuple;

	sc_catalog_open(&table, name, AccessShareLock);
	sc_key_int8(&key, 1, query_id);
	sc_catalog_scan(&scan, &table, 1, &key);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
	{
		ScCatalogRow row;

		sc_row_read(&row, &table, tuple);
		if (reading->read != NULL)
			read_run_row(reading, &row, context);
		else
			read_old_row(reading, &row, context);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	MemoryContextDelete(context);
}

void
sc_backend_read(int64 query_id, ScReadChunk read, void *arg)
{
	Reading		reading = {.read = read,.arg = arg};

	read_rows("state_run", query_id, &reading);
}

void
sc_backend_read_old(int64 query_id, ScReadOldChunk read, void *arg)
{
	Reading		reading = {.read_old = read,.arg = arg};

	read_rows("state_chunk", query_id, &reading);
}
