/*-------------------------------------------------------------------------
 * store_chunk.c
 *	  Changelog chunks in stream_ckpt.state_chunk: written in batches, dropped by
 *	  pane, fed to a loader at recovery.  The frame is in store.c.
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
#include "access/xact.h"
#include "base/compat.h"
#include "base/limit.h"
#include "ckpt/dead_letter.h"
#include "ckpt/failure.h"
#include "ckpt/late.h"
#include "ckpt/store_internal.h"
#include "miscadmin.h"
#include "replication/origin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

/* Empties the batch without writing it. */
static void
clear_batch(ScStore *store)
{
	for (int i = 0; i < store->batch_rows; i++)
		ExecClearTuple(store->batch[i]);
	MemoryContextReset(store->batch_context);
	store->batch_rows = 0;
	store->batch_bytes = 0;
}

/* Throws away what an aborted subtransaction left in the batch. */
static void
forget_aborted_batch(ScStore *store)
{
	if (store->batch_rows > 0 &&
		store->batch_subid != GetCurrentSubTransactionId())
		clear_batch(store);
}

/* Writes the buffered chunks.  Needs an active snapshot. */
void
sc_store_flush(ScStore *store)
{
	ReplOriginId save_origin = sc_xact_origin;
	MemoryContext oldcontext;

	forget_aborted_batch(store);
	if (store->batch_rows == 0)
		return;

	oldcontext = MemoryContextSwitchTo(store->batch_context);
	PG_TRY();
	{
		sc_xact_origin = DoNotReplicateId;
		CatalogTuplesMultiInsertWithInfo(store->chunk.rel, store->batch,
										 store->batch_rows, store->chunk.indexes);
	}
	PG_FINALLY();
	{
		sc_xact_origin = save_origin;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	clear_batch(store);
}

/* A heap tuple of the chunk, in the batch's context. */
static HeapTuple
form_chunk(ScStore *store, int64 query_id, int64 checkpoint_id, const ScChunk *chunk)
{
	Datum		values[Natts_chunk];
	bool		nulls[Natts_chunk] = {0};
	MemoryContext oldcontext = MemoryContextSwitchTo(store->batch_context);
	bytea	   *data = palloc(VARHDRSZ + chunk->len);
	HeapTuple	tuple;

	SET_VARSIZE(data, VARHDRSZ + chunk->len);
	memcpy(VARDATA(data), chunk->data, chunk->len);

	values[Anum_chunk_query_id - 1] = Int64GetDatum(query_id);
	values[Anum_chunk_partition_key - 1] = Int64GetDatum(chunk->pane_key);
	values[Anum_chunk_checkpoint_id - 1] = Int64GetDatum(checkpoint_id);
	values[Anum_chunk_seq - 1] = Int32GetDatum(chunk->seq);
	values[Anum_chunk_key_group_min - 1] = Int16GetDatum(chunk->key_group_min);
	values[Anum_chunk_key_group_max - 1] = Int16GetDatum(chunk->key_group_max);
	values[Anum_chunk_data - 1] = PointerGetDatum(data);
	tuple = heap_form_tuple(store->chunk_desc, values, nulls);
	pfree(data);
	MemoryContextSwitchTo(oldcontext);
	return tuple;
}

/* Puts a chunk's tuple into the batch, which has room for it. */
static void
add_to_batch(ScStore *store, int64 query_id, int64 checkpoint_id, const ScChunk *chunk)
{
	int			row = store->batch_rows;

	if (store->batch[row] == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(store->context);

		store->batch[row] = MakeSingleTupleTableSlot(store->chunk_desc,
													 &TTSOpsHeapTuple);
		MemoryContextSwitchTo(oldcontext);
	}
	ExecStoreHeapTuple(form_chunk(store, query_id, checkpoint_id, chunk),
					   store->batch[row], true);
	store->batch_query[row] = query_id;
	store->batch_pane[row] = chunk->pane_key;
	store->batch_bytes += chunk->len;
	store->batch_subid = GetCurrentSubTransactionId();
	store->batch_rows++;
}

/* Deletes the chunks that the keys select, in the primary key's order. */
static void
delete_chunks(ScStore *store, int nkeys, ScanKey keys)
{
	ReplOriginId save_origin = sc_xact_origin;
	MemoryContext oldcontext = MemoryContextSwitchTo(store->context);
	SysScanDesc scan;
	HeapTuple	tuple;

	/* what this transaction deleted already must be invisible */
	CommandCounterIncrement();

	scan = sc_store_scan(&store->chunk, nkeys, keys);
	PG_TRY();
	{
		sc_xact_origin = DoNotReplicateId;
		while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
			CatalogTupleDelete(store->chunk.rel, &tuple->t_self);
	}
	PG_FINALLY();
	{
		sc_xact_origin = save_origin;
	}
	PG_END_TRY();
	systable_endscan_ordered(scan);
	MemoryContextSwitchTo(oldcontext);
}

/* Keys for all chunks of a pane; returns their number. */
static int
pane_keys(ScanKey keys, int64 query_id, int64 pane_key)
{
	ScanKeyInit(&keys[0], Anum_chunk_query_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(query_id));
	ScanKeyInit(&keys[1], Anum_chunk_partition_key, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(pane_key));
	return 2;
}

/* Chunks of the pane that are still in the batch are written. */
static void
flush_pane(ScStore *store, int64 query_id, int64 pane_key)
{
	for (int i = 0; i < store->batch_rows; i++)
	{
		if (store->batch_query[i] == query_id &&
			store->batch_pane[i] == pane_key)
		{
			sc_store_flush(store);
			return;
		}
	}
}

/*
 * See store.h.  The chunk's bytes are copied.  Errors where they are more than a
 * page holds.
 */
void
sc_store_chunk(ScStore *store, int64 query_id, int64 checkpoint_id,
			   const ScChunk *chunk)
{
	if (chunk->len > SC_CHUNK_BYTES)
		elog(ERROR, "changelog chunk of %zu bytes is too long", chunk->len);

	forget_aborted_batch(store);

	if (chunk->full)
	{
		ScanKeyData keys[3];
		int			nkeys = pane_keys(keys, query_id, chunk->pane_key);

		flush_pane(store, query_id, chunk->pane_key);
		ScanKeyInit(&keys[nkeys], Anum_chunk_checkpoint_id, BTLessStrategyNumber,
					F_INT8LT, Int64GetDatum(checkpoint_id));
		delete_chunks(store, nkeys + 1, keys);
	}

	if (store->batch_rows == CHUNK_BATCH_ROWS ||
		store->batch_bytes + chunk->len > CHUNK_BATCH_BYTES)
		sc_store_flush(store);
	add_to_batch(store, query_id, checkpoint_id, chunk);
}

/*
 * See store.h.  A pane that comes back later in the same checkpoint starts
 * anew; one whose chunks are still in the batch has them written first.
 */
void
sc_store_drop_pane(ScStore *store, int64 query_id, int64 pane_key)
{
	ScanKeyData keys[2];

	forget_aborted_batch(store);
	flush_pane(store, query_id, pane_key);
	delete_chunks(store, pane_keys(keys, query_id, pane_key), keys);
}

/* See store.h. */
bool
sc_store_forget_query(ScStore *store, int64 query_id)
{
	ScanKeyData key;
	bool		all;

	sc_store_flush(store);
	ScanKeyInit(&key, Anum_chunk_query_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(query_id));
	delete_chunks(store, 1, &key);
	sc_store_delete_offsets(store, query_id);
	all = sc_store_failure_recovered(query_id);
	all &= sc_late_delete(query_id, false);
	all &= sc_dead_letter_delete(query_id, false);
	return all;
}

/* The chunk that a row of state_chunk holds; its data stay the tuple's. */
static ScChunk
chunk_from_tuple(HeapTuple tuple, TupleDesc desc, int64 *checkpoint_id)
{
	Datum		values[Natts_chunk];
	bool		nulls[Natts_chunk];
	ScChunk		chunk = {0};
	bytea	   *data;

	heap_deform_tuple(tuple, desc, values, nulls);
	*checkpoint_id = DatumGetInt64(values[Anum_chunk_checkpoint_id - 1]);
	chunk.pane_key = DatumGetInt64(values[Anum_chunk_partition_key - 1]);
	chunk.seq = DatumGetInt32(values[Anum_chunk_seq - 1]);
	chunk.key_group_min = DatumGetInt16(values[Anum_chunk_key_group_min - 1]);
	chunk.key_group_max = DatumGetInt16(values[Anum_chunk_key_group_max - 1]);

	/* plain as we store it; after a dump and restore it may not be */
	data = DatumGetByteaPP(values[Anum_chunk_data - 1]);
	chunk.data = VARDATA_ANY(data);
	chunk.len = VARSIZE_ANY_EXHDR(data);
	return chunk;
}

/*
 * See store.h.  "full" isn't stored and is false here: older chunks of such a
 * pane are gone.  Needs a transaction and an active snapshot; the loader's errors
 * go through.
 */
void
sc_store_load(int64 query_id, ScChangelogLoader *loader)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "stream_ckpt chunk",
												  ALLOCSET_DEFAULT_SIZES);
	StoreTable	table;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	sc_store_table_open(&table, "state_chunk", Natts_chunk, AccessShareLock);
	ScanKeyInit(&key, Anum_chunk_query_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(query_id));
	scan = sc_store_scan(&table, 1, &key);
	while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);
		int64		checkpoint_id;
		ScChunk		chunk = chunk_from_tuple(tuple, RelationGetDescr(table.rel),
											 &checkpoint_id);

		MemoryContextSwitchTo(oldcontext);
		sc_limit_add(chunk.len / SC_LIMIT_UNIT_BYTES + 1);
		sc_changelog_load_chunk(loader, checkpoint_id, &chunk);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	systable_endscan_ordered(scan);
	sc_store_table_close(&table);
	MemoryContextDelete(context);
}
