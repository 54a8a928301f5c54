/*-------------------------------------------------------------------------
 * store_internal.h
 *	  What store.c, store_chunk.c and store_history.c share; see store.h for the
 *	  contract.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_STORE_INTERNAL_H
#define SC_CKPT_STORE_INTERNAL_H

#include "access/genam.h"
#include "catalog/indexing.h"
#include "ckpt/store.h"
#include "executor/tuptable.h"
#include "model/catalog_columns.h"
#include "utils/rel.h"

/*
 * A catalog table with its indexes, opened for reading or writing.  Closing
 * keeps the lock until the end of the transaction.
 */
typedef struct StoreTable
{
	Relation	rel;
	Relation	pkey;			/* one of "indexes", not opened for itself */
	CatalogIndexState indexes;
} StoreTable;

/* Rows per multi-insert of chunks, and bytes of their data. */
#define CHUNK_BATCH_ROWS		64
#define CHUNK_BATCH_BYTES		(256 * 1024)

struct ScStore
{
	MemoryContext context;		/* of its own, child of the caller's */
	int32		pipeline_id;
	int64		checkpoint_id;
	StoreTable	state;
	StoreTable	offset;
	StoreTable	chunk;
	HeapTuple	state_tuple;	/* as read by sc_store_begin */

	/*
	 * Chunks not yet inserted; all of them of subtransaction batch_subid.  A batch
	 * of another one than the current belongs to a subtransaction that aborted
	 * (whoever ends one successfully has called
	 * sc_store_flush), and is thrown away.
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

/* store.c */
extern void sc_store_table_open(StoreTable *table, const char *relname,
								int columns, LOCKMODE lockmode);
extern void sc_store_table_close(StoreTable *table);
extern SysScanDesc sc_store_scan(StoreTable *table, int nkeys, ScanKey keys);
extern bool sc_store_push_snapshot(void);
extern void sc_store_pop_snapshot(bool pushed);
extern HeapTuple sc_store_state_tuple(StoreTable *state, int32 pipeline_id);
extern void sc_store_delete_offsets(ScStore *store, int64 query_id);

/* store_retained.c: removes a query's rows of a table that users delete from, too; those that
 * somebody else removes are waited for, or false tells that they may remain */
extern bool sc_store_delete_kept(const char *relname, int columns, AttrNumber query_id_attno,
								 int64 query_id, bool wait);

/* store_history.c */
extern void sc_store_record(const ScCheckpointRecord *record, const char *failure);
extern void sc_store_prune_history(int32 pipeline_id, int64 checkpoint_id);

#endif							/* SC_CKPT_STORE_INTERNAL_H */
