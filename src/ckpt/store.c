/*-------------------------------------------------------------------------
 * store.c
 *	  The frame of a checkpoint's transaction (store.h).
 *
 * Called by the coordinator for each checkpoint, so tables and indexes are
 * accessed directly, without SPI and without planning.
 *
 * The rule: a coordinator whose attempt is over must not commit.  sc_store_begin
 * compares the attempt in the pipeline's state row with the caller's, and
 * sc_store_end updates exactly the row version that was read; whoever changed it
 * in between (a new attempt) makes that update fail.  A part in a transaction of its own only compares: the next attempt
 * waits until its process has ended (worker/coordinator/writer.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "ckpt/pipeline_state.h"
#include "ckpt/store.h"
#include "utils/memutils.h"

struct ScStore
{
	MemoryContext context;		/* of its own, child of the caller's */
	int32		pipeline_id;
	int64		checkpoint_id;
	ScCatalog	state;
	ScCatalog	offset;
	ScBackend  *backend;
	HeapTuple	state_tuple;	/* as read by sc_store_begin */
};

/* Opens all that a part is written into. */
static ScStore *
open_store(int32 pipeline_id, int64 attempt, int64 checkpoint_id, LOCKMODE state_lock)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "stream_ckpt store",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	ScStore    *store = palloc0(sizeof(ScStore));

	store->context = context;
	store->pipeline_id = pipeline_id;
	store->checkpoint_id = checkpoint_id;
	sc_catalog_open(&store->state, "pipeline_state", state_lock);
	sc_catalog_open(&store->offset, "checkpoint_offset", RowExclusiveLock);
	store->backend = sc_backend_begin();
	store->state_tuple = sc_pipeline_state_of_attempt(&store->state, pipeline_id, attempt);
	MemoryContextSwitchTo(oldcontext);
	return store;
}

ScStore *
sc_store_begin(int32 pipeline_id, int64 attempt, int64 checkpoint_id)
{
	return open_store(pipeline_id, attempt, checkpoint_id, RowExclusiveLock);
}

ScStore *
sc_store_begin_part(int32 pipeline_id, int64 attempt, int64 checkpoint_id)
{
	return open_store(pipeline_id, attempt, checkpoint_id, AccessShareLock);
}

int64
sc_store_checkpoint_id(const ScStore *store)
{
	return store->checkpoint_id;
}

ScBackend *
sc_store_backend(ScStore *store)
{
	return store->backend;
}

void
sc_store_offset(ScStore *store, const ScOffset *offset)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(store->context);

	sc_offset_put(&store->offset, offset);
	MemoryContextSwitchTo(oldcontext);
}

void
sc_store_set_apart(ScStore *store, int64 query_id, XLogRecPtr lsn)
{
	sc_offset_set_apart(&store->offset, query_id, lsn);
}

void
sc_store_delete_offset(ScStore *store, int64 query_id)
{
	sc_offset_delete(&store->offset, query_id);
}

static void
close_store(ScStore *store)
{
	sc_catalog_close(&store->offset);
	sc_catalog_close(&store->state);
	MemoryContextDelete(store->context);
	CommandCounterIncrement();
}

void
sc_store_end_part(ScStore *store)
{
	sc_backend_end(store->backend);
	close_store(store);
}

void
sc_store_end(ScStore *store, const ScCheckpointRecord *record)
{
	Assert(record->pipeline_id == store->pipeline_id);
	Assert(record->checkpoint_id == store->checkpoint_id);

	sc_backend_end(store->backend);
	sc_pipeline_state_completed(&store->state, store->state_tuple, record->checkpoint_id,
								record->lsn);
	sc_history_completed(record);
	close_store(store);
}
