/*-------------------------------------------------------------------------
 * store.h
 *	  The frame of a checkpoint's transaction: what it writes into the extension's catalogs.
 *
 * The state itself goes through the backend (state/backend.h), which is opened and closed with it.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_STORE_H
#define SC_CKPT_STORE_H

#include "ckpt/history.h"
#include "ckpt/offset.h"
#include "state/backend.h"

typedef struct ScStore ScStore;

/*
 * Opens the catalogs and locks the pipeline's state row; errors with
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE where its attempt isn't ours any more.  To be called in the
 * checkpoint's top transaction, with an active snapshot, before the first subtransaction;
 * sc_store_end there, too.  After an abort of the transaction the result is simply forgotten.
 */
extern ScStore *sc_store_begin(int32 pipeline_id, int64 attempt, int64 checkpoint_id);
/*
 * The same for one query's part in a transaction of its own, beside the checkpoints', which go on: nothing is locked,
 * and sc_store_end_part closes it.
 */
extern ScStore *sc_store_begin_part(int32 pipeline_id, int64 attempt, int64 checkpoint_id);
extern void sc_store_end_part(ScStore *store);
extern int64 sc_store_checkpoint_id(const ScStore *store);
extern ScBackend *sc_store_backend(ScStore *store);
extern void sc_store_offset(ScStore *store, const ScOffset *offset);	/* sc_offset_put */
extern void sc_store_set_apart(ScStore *store, int64 query_id, XLogRecPtr lsn);
extern void sc_store_delete_offset(ScStore *store, int64 query_id);
/*
 * Flushes, inserts the checkpoint's record, updates pipeline_state, prunes history, closes; the caller
 * commits.  Fails if the state row was changed since sc_store_begin.
 */
extern void sc_store_end(ScStore *store, const ScCheckpointRecord *record);

#endif							/* SC_CKPT_STORE_H */
