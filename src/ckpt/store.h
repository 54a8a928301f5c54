/*-------------------------------------------------------------------------
 * store.h
 *	  The state backend "table": what a checkpoint's transaction writes into the
 *	  extension's catalogs, and what recovery reads from them.
 *
 * All writers run inside the coordinator's checkpoint transaction.  State chunks
 * are written with DoNotReplicateId as the record's origin, so that decoding
 * drops them at once; nothing else is, and the commit record isn't.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_STORE_H
#define SC_CKPT_STORE_H

#include "ckpt/uncounted.h"
#include "model/catalog.h"
#include "state/changelog.h"

/* Offset, watermark and counters of one query on its stream at a checkpoint. */
typedef struct ScOffset
{
	int64		query_id;
	Oid			stream_relid;	/* the stream's */
	int64		checkpoint_id;
	XLogRecPtr	lsn;			/* all transactions ending at or before it are in */
	ScEventTime time;			/* event times: microseconds since 2000-01-01 */
	ScWindowRanges ahead_windows;	/* open ones behind time.max_event_time: for a copy without the state */
	ScStreamOptions options;	/* the stream's, as of "lsn" */
	int64		rows_in;
	int64		late_rows;
	int64		ahead_rows;		/* too far ahead to move the watermark */
	int64		null_event_times;
	int64		result_rows;
	int64		updates_ignored;
	int64		deletes_ignored;
	int64		truncates_ignored;
	int64		groups;			/* in memory at the barrier */
	int64		state_bytes;	/* bytes of live chunks */

	/* the last transaction with rows of the stream, or idle message: its end, and
	 * the time of its commit; 0: none */
	XLogRecPtr	active_lsn;
	TimestampTz active_at;

	/* not counted in the last checkpoint with rows of the query or changes of its stream, which
	 * was at recent_lsn: sc_store_offset() works these out */
	ScUncounted recent;
	XLogRecPtr	recent_lsn;
	int64		next_due;		/* not stored: sc_engine_next_due() */
	bool		apart;			/* the position is its own, not that of the pipeline's last checkpoint */
} ScOffset;

/* The position of a query that was restored from a dump: before all that a log can have */
#define SC_RESTORED_LSN ((XLogRecPtr) 1)

/* stream_ckpt.pipeline_state */
typedef struct ScPipelineState
{
	int64		attempt;
	int64		checkpoint_id;	/* last completed; 0: none */
	XLogRecPtr	lsn;			/* its LSN */
	uint64		system_identifier;
	Oid			database;
	int32		server_version; /* PG_VERSION_NUM / 10000 */
	int32		format;			/* SC_STATE_FORMAT */
} ScPipelineState;

#define SC_STATE_FORMAT 1

/* stream_ckpt.checkpoint */
typedef struct ScCheckpointRecord
{
	int32		pipeline_id;
	int64		checkpoint_id;
	int64		attempt;
	const char *kind;			/* "periodic", "manual", "progress" */
	TimestampTz triggered_at;
	int64		barrier_us;		/* trigger until the last task met the barrier */
	int64		sync_us;		/* longest synchronous part of a task */
	int64		async_us;		/* last barrier until all parts were here */
	XLogRecPtr	lsn;
	int64		rows_in;		/* rows since the last checkpoint */
	int64		result_rows;
	int64		checkpointed_bytes;
	int64		full_bytes;
} ScCheckpointRecord;

typedef struct ScStore ScStore;

extern ScPipelineState sc_store_read_state(int32 pipeline_id);

/* New attempt: increments and returns the attempt number.  Own transaction by caller. */
extern int64 sc_store_begin_attempt(int32 pipeline_id, bool restored);

/* Forgets the pipeline's position: nothing counts on it, and its slot is to go. */
extern void sc_store_clear_position(int32 pipeline_id);

/*
 * ScOffset *, by query_id, with the position that counts: of a query that goes with the others
 * lsn and checkpoint_id are those of pipeline_state.  Never older than what was true before the call, and
 * never newer than what is committed.
 */
extern List *sc_store_offsets(int32 pipeline_id);
extern bool sc_store_has_offset(int64 query_id);

/*
 * Opens the catalogs and locks the pipeline's state row; errors with
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE where its attempt isn't ours any more.
 */
extern ScStore *sc_store_begin(int32 pipeline_id, int64 attempt, int64 checkpoint_id);
/* checkpoint_id: of the barrier that the chunk was written at, which can be an
 * earlier one than the store's.  full: drops the pane's older chunks first. */
extern void sc_store_chunk(ScStore *store, int64 query_id, int64 checkpoint_id,
						   const ScChunk *chunk);
extern void sc_store_drop_pane(ScStore *store, int64 query_id, int64 pane_key);
extern int64 sc_store_checkpoint_id(const ScStore *store);
extern void sc_store_offset(ScStore *store, const ScOffset *offset);	/* insert or update by (query, stream) */
/* A query that went with the others isn't in this checkpoint: it stays at "lsn". */
extern void sc_store_set_apart(ScStore *store, int64 query_id, XLogRecPtr lsn);
/*
 * Removes all that is left of a query that no longer exists.  False: but for rows that an open
 * transaction has changed (take_late_rows(), resume_query()); the checkpoint doesn't wait for it.
 */
extern bool sc_store_forget_query(ScStore *store, int64 query_id);
/*
 * Writes the buffered chunks.  To be called before a subtransaction that called
 * sc_store_chunk is released.
 */
extern void sc_store_flush(ScStore *store);
/* Flushes, inserts the checkpoint's record, updates pipeline_state, prunes history, closes. */
extern void sc_store_end(ScStore *store, const ScCheckpointRecord *record);

/* In a transaction of its own after an abort: a failed checkpoint's record. */
extern void sc_store_failed(const ScCheckpointRecord *record, const char *message);

/*
 * Ids (int64 *) of queries, of whichever pipeline, that have chunks or offsets and
 * no row in stream_ckpt.query any more; for sc_store_forget_query.
 */
extern List *sc_store_orphans(void);

/* Recovery: feeds a query's chunks into the loader in order. */
extern void sc_store_load(int64 query_id, ScChangelogLoader *loader);

#endif							/* SC_CKPT_STORE_H */
