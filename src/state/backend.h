/*-------------------------------------------------------------------------
 * backend.h
 *	  Where the state of queries is kept between checkpoints, as chunks of runs (run.h).
 *
 * Written in a checkpoint's transaction, and committed or undone with it.  state/table/ keeps them
 * in a table.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_BACKEND_H
#define SC_STATE_BACKEND_H

#define SC_CHUNK_BYTES	8000	/* longest chunk, header included */

/* The chunks of one pane, age, born and key_group are a run. */
typedef struct ScChunk
{
	int64		pane_key;		/* window/assigner.h */
	int64		age;			/* orders runs from old to new */
	int64		born;			/* age of the part in which the run was begun */
	int16		key_group;		/* the first one of the writer's */
	uint32		position;		/* of its first entry */
	int32		seq;			/* 0.. in the run */
	int64		replaces;		/* the writer's runs of lower ages aren't needed any more (0: all
								 * are; on seq 0 only) */
	bool		alone;			/* the writer has all key groups */
	const char *data;			/* not aligned */
	Size		len;
} ScChunk;

/* As 0.2 wrote them: the chunks of one pane and checkpoint are a stream (old_chunks.c). */
typedef struct ScOldChunk
{
	int64		pane_key;
	int64		checkpoint_id;
	int32		seq;			/* 0.. in the stream */
	const char *data;			/* not aligned */
	Size		len;
} ScOldChunk;

typedef struct ScBackend ScBackend;

/*
 * Begins writing in the current top transaction, which needs an active snapshot, before its first
 * subtransaction.  After an abort of the transaction the result is simply forgotten.
 */
extern ScBackend *sc_backend_begin(void);
/*
 * Drops what the chunk replaces first, and old chunks if it does so and is alone.  The chunk's
 * bytes are copied.
 */
extern void sc_backend_put(ScBackend *backend, int64 query_id, const ScChunk *chunk);
/* Whatever there is of a pane, or of a query; each of its tasks may ask for it. */
extern void sc_backend_drop_pane(ScBackend *backend, int64 query_id, int64 pane_key);
extern void sc_backend_drop_query(ScBackend *backend, int64 query_id);
/* The same of runs that are older than "age", and of old chunks. */
extern void sc_backend_drop_older(ScBackend *backend, int64 query_id, int64 age);
/*
 * Writes what is buffered.  To be called before a subtransaction that called sc_backend_put is
 * released: what one leaves that aborts is thrown away.
 */
extern void sc_backend_flush(ScBackend *backend);
/* Flushes, and frees it. */
extern void sc_backend_end(ScBackend *backend);

/*
 * Reads a query's chunks, in order of (pane_key, age, born, key_group, position, seq).  "replaces" and
 * "alone" aren't kept and are 0 here: what was replaced is gone.  The chunk is valid during the
 * call only.  Needs an active snapshot.
 */
typedef void (*ScReadChunk) (void *arg, const ScChunk *chunk);
extern void sc_backend_read(int64 query_id, ScReadChunk read, void *arg);

/* The same of old chunks, in order of (pane_key, checkpoint_id, seq). */
typedef void (*ScReadOldChunk) (void *arg, const ScOldChunk *chunk);
extern void sc_backend_read_old(int64 query_id, ScReadOldChunk read, void *arg);

#endif							/* SC_STATE_BACKEND_H */
