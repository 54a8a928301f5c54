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
#include "utils/rel.h"

/* Columns of stream_ckpt.state_chunk. */
#define CHUNK_QUERY_ID			1
#define CHUNK_PARTITION_KEY		2
#define CHUNK_CHECKPOINT_ID		3
#define CHUNK_SEQ				4
#define CHUNK_KEY_GROUP_MIN		5
#define CHUNK_KEY_GROUP_MAX		6
#define CHUNK_DATA				7
#define CHUNK_COLUMNS			7

/* Columns of stream_ckpt.checkpoint_offset. */
#define OFFSET_QUERY_ID			1
#define OFFSET_SOURCE			2
#define OFFSET_CHECKPOINT_ID	3
#define OFFSET_LSN				4
#define OFFSET_MAX_EVENT_TIME	5
#define OFFSET_ROWS_IN			6
#define OFFSET_LATE_ROWS		7
#define OFFSET_NULL_EVENT_TIMES 8
#define OFFSET_RESULT_ROWS		9
#define OFFSET_UPDATES_IGNORED	10
#define OFFSET_DELETES_IGNORED	11
#define OFFSET_TRUNCATES_IGNORED 12
#define OFFSET_GROUPS			13
#define OFFSET_STATE_BYTES		14
#define OFFSET_ACTIVE_LSN		15
#define OFFSET_ACTIVE_AT		16
#define OFFSET_COLUMNS			16

/* Columns of stream_ckpt.pipeline_state. */
#define STATE_PIPELINE_ID		1
#define STATE_ATTEMPT			2
#define STATE_CHECKPOINT_ID		3
#define STATE_LSN				4
#define STATE_COMPLETED			5
#define STATE_FAILED			6
#define STATE_RESTORED			7
#define STATE_SYSTEM_IDENTIFIER 8
#define STATE_DATABASE			9
#define STATE_TIMELINE			10
#define STATE_SERVER_VERSION	11
#define STATE_FORMAT			12
#define STATE_COLUMNS			12

/* Columns of stream_ckpt.checkpoint. */
#define CHECKPOINT_PIPELINE_ID	1
#define CHECKPOINT_ID			2
#define CHECKPOINT_ATTEMPT		3
#define CHECKPOINT_KIND			4
#define CHECKPOINT_STATUS		5
#define CHECKPOINT_TRIGGERED_AT 6
#define CHECKPOINT_COMPLETED_AT 7
#define CHECKPOINT_BARRIER_MS	8
#define CHECKPOINT_SYNC_MS		9
#define CHECKPOINT_ASYNC_MS		10
#define CHECKPOINT_LSN			11
#define CHECKPOINT_ROWS_IN		12
#define CHECKPOINT_RESULT_ROWS	13
#define CHECKPOINT_CHECKPOINTED_BYTES 14
#define CHECKPOINT_FULL_BYTES	15
#define CHECKPOINT_FAILURE		16
#define CHECKPOINT_COLUMNS		16

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
	 * (whoever ends one successfully has called sc_store_offset or
	 * sc_store_flush), and is thrown away.
	 */
	TupleTableSlot *batch[CHUNK_BATCH_ROWS];	/* NULL: not made yet */
	int64		batch_query[CHUNK_BATCH_ROWS];
	int64		batch_partition[CHUNK_BATCH_ROWS];
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

/* store_kept.c: removes a query's rows of a table that users delete from, too; those that
 * somebody else removes are waited for */
extern void sc_store_delete_kept(const char *relname, int columns, AttrNumber query_id_attno,
								 int64 query_id);

/* store_history.c */
extern void sc_store_record(const ScCheckpointRecord *record, const char *failure);
extern void sc_store_prune_history(int32 pipeline_id, int64 checkpoint_id);

#endif							/* SC_CKPT_STORE_INTERNAL_H */
