/*-------------------------------------------------------------------------
 * backend.h
 *	  Where the state of queries is kept between checkpoints, as chunks of runs (run.h).
 *
 * Written in a checkpoint's transaction or in one of a task's, and committed or undone with it.  state/table/ keeps
 * them in a table.  Nothing here asks for privileges, runs anybody's code or depends on settings: it works in an
 * owner's surroundings (base/env.h), too.
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
	int64		replaces;		/* the writer's runs of the pane of lower ages aren't needed any more
								 * (0: all are) */
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

/* The key of a run; none is used twice. */
typedef struct ScRunName
{
	int64		pane_key;
	int64		age;
	int64		born;
	int16		key_group;
} ScRunName;

static inline ScRunName
sc_chunk_run(const ScChunk *chunk)
{
	ScRunName	name = {.pane_key = chunk->pane_key,.age = chunk->age,.born = chunk->born,
	.key_group = chunk->key_group};

	return name;
}

static inline bool
sc_same_run(const ScRunName *a, const ScRunName *b)
{
	return a->pane_key == b->pane_key && a->age == b->age && a->born == b->born &&
		a->key_group == b->key_group;
}

/* A place in a run: chunks are in order of position, and those of one position in that of seq. */
typedef struct ScRunPlace
{
	uint32		position;
	int32		seq;
} ScRunPlace;

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
/* The pane's runs of lower ages that the writer has written which begins at this key group; all its old chunks. */
extern void sc_backend_drop_pane(ScBackend *backend, int64 query_id, int64 pane_key, int64 age, int16 key_group);
/* Whatever there is of a query. */
extern void sc_backend_drop_query(ScBackend *backend, int64 query_id);
/* The same of runs that are older than "age", and of old chunks. */
extern void sc_backend_drop_older(ScBackend *backend, int64 query_id, int64 age);
/* Deletes a run's first and last chunk: nobody reads it any more, but the others stay (sc_backend_drop_run). */
extern void sc_backend_retire_run(ScBackend *backend, int64 query_id, const ScRunName *run);
/*
 * Deletes up to "limit" chunks of a run, from *from on, which becomes where to go on (begin with zeros);
 * returns how many there were: fewer than "limit", and none is left.  Those that another transaction is deleting
 * are passed over: this never waits for one.
 */
extern int	sc_backend_drop_run(ScBackend *backend, int64 query_id, const ScRunName *run, ScRunPlace *from,
								int limit);
/*
 * Writes what is buffered.  To be called before a subtransaction that called sc_backend_put is
 * released: what one leaves that aborts is thrown away.
 */
extern void sc_backend_flush(ScBackend *backend);
/* Flushes, and frees it. */
extern void sc_backend_end(ScBackend *backend);

/*
 * Reads the chunks of a query, or of one of its panes (NULL: of all), in order of (pane_key, age, born, key_group, position, seq).  "replaces" and
 * "alone" aren't kept and are 0 here: what was replaced is gone.  The chunk is valid during the
 * call only.  Needs an active snapshot.
 */
typedef void (*ScReadChunk) (void *arg, const ScChunk *chunk);
extern void sc_backend_read(int64 query_id, const int64 *pane_key, ScReadChunk read, void *arg);

/*
 * Lists the runs of a query, or of one of its panes (NULL: of all), in order of their names: the first chunk and the
 * last one that there are of each, valid during the call only.  The effort is that of the runs, not of their chunks.
 * This and sc_backend_read_range see what is committed, and all earlier commands of the transaction.
 */
typedef void (*ScReadRun) (void *arg, const ScChunk *first, const ScChunk *last);
extern void sc_backend_list_runs(int64 query_id, const int64 *pane_key, ScReadRun read, void *arg);

/*
 * Reads chunks of one run, in order, from the last one on whose position is less than "first" (if there is none,
 * from the run's first), until "read" returns false.
 */
typedef bool (*ScReadRange) (void *arg, const ScChunk *chunk);
typedef struct ScLookup ScLookup;	/* of one command */

extern ScLookup *sc_backend_begin_lookup(int64 query_id);
extern void sc_backend_read_range(ScLookup *lookup, const ScRunName *run, uint64 first, ScReadRange read,
								  void *arg);
extern void sc_backend_end_lookup(ScLookup *lookup);

/* The same of old chunks, in order of (pane_key, checkpoint_id, seq). */
typedef void (*ScReadOldChunk) (void *arg, const ScOldChunk *chunk);
extern void sc_backend_read_old(int64 query_id, ScReadOldChunk read, void *arg);

#endif							/* SC_STATE_BACKEND_H */
