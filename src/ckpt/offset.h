/*-------------------------------------------------------------------------
 * offset.h
 *	  Where each query is: rows of stream_ckpt.checkpoint_offset.
 *
 * All need a transaction.  Those that get an open table are for a checkpoint's transaction, or
 * for whoever forgets a query.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_OFFSET_H
#define SC_CKPT_OFFSET_H

#include "ckpt/uncounted.h"
#include "exec/engine.h"
#include "model/catalog.h"
#include "model/catalog_table.h"
#include "window/watermark.h"

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
	int64		moved_rows;		/* of an earlier time of commit than the windows that they were counted in */
	int64		null_event_times;
	int64		result_rows;
	int64		updates_ignored;
	int64		deletes_ignored;
	int64		truncates_ignored;
	int64		late_changes;	/* as in ScEngineCounters, as the next two */
	int64		skipped_changes;
	int64		retracted_rows;
	int32		ntasks;			/* that the query runs on: the writers of its runs */
	int64		groups;			/* in memory at the barrier */
	int64		state_bytes;	/* bytes of live chunks */
	int64		age;			/* of the last part: of its runs (state/backend.h) */
	ScPortable	portable;		/* the state */
	bool		endless;		/* it has groups, and no windows: they are never over */

	/* the last transaction with rows of the stream, or idle message: its end, and
	 * the time of its commit; 0: none */
	XLogRecPtr	active_lsn;
	TimestampTz active_at;

	/* not counted in the last checkpoint with rows of the query or changes of its stream, which
	 * was at recent_lsn: sc_offset_put() works these out */
	ScUncounted recent;
	XLogRecPtr	recent_lsn;
	int64		next_due;		/* not stored: sc_engine_next_due() */
	bool		apart;			/* the position is its own, not that of the pipeline's last checkpoint */
	bool		own;			/* written here; false: by a restore, and the position is SC_RESTORED_LSN */
	bool		history;		/* not stored: the query is new, and begins with its stream's history */
	bool		applies;		/* not stored: changes of the stream are applied */
} ScOffset;

/* The position of a query that was restored from a dump: before all that a log can have */
#define SC_RESTORED_LSN ((XLogRecPtr) 1)

/*
 * ScOffset *, by query_id, with the position that counts: of a query that goes with the others
 * lsn and checkpoint_id are those of pipeline_state.  Never older than what was true before the call, and
 * never newer than what is committed.  Existing queries only, and one without an offset isn't in it.
 */
extern List *sc_offset_list(int32 pipeline_id);
extern bool sc_offset_exists(int64 query_id);

/* The pipeline's queries (ScQuery *) that begin with their stream's history and have no offset yet. */
extern List *sc_new_queries(int32 pipeline_id);
/* Is one of the pipeline's queries not new? Without that nothing depends on a slot, which is made when there is none. */
extern bool sc_has_begun(int32 pipeline_id);

/* Inserts or updates by (query, stream), and works out "recent". */
extern void sc_offset_put(const ScCatalog *table, const ScOffset *offset);
/* A query that went with the others isn't in this checkpoint: it stays at "lsn". */
extern void sc_offset_set_apart(const ScCatalog *table, int64 query_id, XLogRecPtr lsn);
extern void sc_offset_delete(const ScCatalog *table, int64 query_id);

/*
 * After a gap was accepted: the position that a query goes on with.  It has its own from then on,
 * until its next part.
 */
extern void sc_offset_move(int64 query_id, XLogRecPtr lsn, const ScStreamOptions *options);
/* These windows are over for the query, whatever its watermark says; see sc_closed_complete(). */
extern void sc_offset_close(int64 query_id, const ScWindowRanges *windows);
/* Its state is gone: until its next part a dump has none, wherever that is read. */
extern void sc_offset_without_state(int64 query_id);

#endif							/* SC_CKPT_OFFSET_H */
