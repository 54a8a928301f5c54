/*-------------------------------------------------------------------------
 * backend.h
 *	  Where the state of queries is kept between checkpoints, as chunks (changelog.h).
 *
 * Written in a checkpoint's transaction, and committed or undone with it.  state/table/ keeps them
 * in a table.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_BACKEND_H
#define SC_STATE_BACKEND_H

#define SC_CHUNK_BYTES	8000	/* longest chunk, header included */

typedef struct ScChunk
{
	int64		pane_key;		/* window/assigner.h */
	int32		seq;			/* 0.. within (pane, checkpoint) */
	bool		full;			/* first chunk of a whole pane: replaces all
								 * older ones (set on seq 0 only) */
	int16		key_group_min;	/* of the groups that have bytes in it */
	int16		key_group_max;
	const char *data;			/* not aligned */
	Size		len;
} ScChunk;

typedef struct ScBackend ScBackend;

/*
 * Begins writing in the current top transaction, which needs an active snapshot, before its first
 * subtransaction.  After an abort of the transaction the result is simply forgotten.
 */
extern ScBackend *sc_backend_begin(void);
/*
 * checkpoint_id: of the barrier that the chunk was written at.  full: drops the pane's older
 * chunks first.  The chunk's bytes are copied.
 */
extern void sc_backend_put(ScBackend *backend, int64 query_id, int64 checkpoint_id,
						   const ScChunk *chunk);
extern void sc_backend_drop_pane(ScBackend *backend, int64 query_id, int64 pane_key);
extern void sc_backend_drop_query(ScBackend *backend, int64 query_id);
/*
 * Writes what is buffered.  To be called before a subtransaction that called sc_backend_put is
 * released: what one leaves that aborts is thrown away.
 */
extern void sc_backend_flush(ScBackend *backend);
/* Flushes, and frees it. */
extern void sc_backend_end(ScBackend *backend);

/*
 * Reads a query's chunks, in order of (pane_key, checkpoint_id, seq).  "full" isn't kept and is false
 * here: older chunks of such a pane are gone.  The chunk is valid during the call only.  Needs
 * an active snapshot.
 */
typedef void (*ScReadChunk) (void *arg, int64 checkpoint_id, const ScChunk *chunk);
extern void sc_backend_read(int64 query_id, ScReadChunk read, void *arg);

#endif							/* SC_STATE_BACKEND_H */
