/*-------------------------------------------------------------------------
 * changelog.h
 *	  Writing an engine's changed state as changelog chunks, and loading it.
 *
 * At a barrier each changed pane (one window of one query) appends its
 * changed groups, in order of position, as a run, which is cut into chunks of
 * at most SC_CHUNK_BYTES; a pane whose live chunks have grown past twice
 * its full size (plus a constant) is written whole, too, in pieces: a range of positions at each
 * checkpoint.  With the last of them go the runs that were there before ("replaces").  Aggregates
 * whose inputs are kept write only the inputs added since the last checkpoint.
 *
 * Chunk bytes begin with a versioned header with a checksum (CRC-32C): run.h.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_CHANGELOG_H
#define SC_STATE_CHANGELOG_H

#include "base/pace.h"
#include "exec/engine.h"
#include "state/backend.h"
#include "state/spilled.h"

typedef struct ScChangelogSink
{
	void	   *arg;
	MemoryContext context;		/* parent of that of what is written later */
	void		(*chunk) (void *arg, const ScChunk *chunk);
	/* the same of what is written after the barrier; NULL: all is written at it */
	void		(*later) (void *arg, const ScChunk *chunk);
	/* the pane closed: its chunks of lower ages are obsolete, of the writer that begins at this key group.
	 * Called only for panes that have chunks in an earlier checkpoint. */
	void		(*drop) (void *arg, int64 pane_key, int64 age, int16 key_group);
} ScChangelogSink;

/*
 * What of a snapshot is still to be written: large panes, as they were at the barrier, while rows of the query go on.
 * sc_snapshot_step goes on with it, in steps; true: all is written.  It must be before anything but rows and time
 * happens to the engine's state; ScEngineOptions.settle asks for that, too.
 */
typedef struct ScSnapshot ScSnapshot;

extern bool sc_snapshot_step(ScSnapshot *snapshot, ScPace *pace);
extern bool sc_snapshot_is_written(const ScSnapshot *snapshot);
/* Of the runs that it has made complete since the last call. */
extern Size sc_snapshot_take_bytes(ScSnapshot *snapshot);
/* Bytes that it takes beside the engine's state. */
extern Size sc_snapshot_memory(const ScSnapshot *snapshot);
extern void sc_snapshot_free(ScSnapshot *snapshot);

/*
 * Writes what changed since the last call, and marks everything unchanged.
 * Calls serialisation functions: transaction, snapshot and owner as for the engine.
 * "age": greater than at the last call, and than that of what was loaded.  "spilled": the
 * engine's, or NULL.  *bytes: of the runs that this makes complete.  Returns what is still to be written, by
 * sink->later; NULL: nothing is.
 */
extern ScSnapshot *sc_changelog_write(ScEngine *engine, ScSpilled *spilled, int64 age, const ScChangelogSink *sink,
									  Size *bytes);

/*
 * Loads what the state backend has of the query into a fresh engine: the groups of its key groups, and all panes.
 * "rescaled": the key groups were shared out otherwise among the query's tasks; each pane is written whole next
 * then, and all that was read is obsolete.  "spilled": NULL, or the engine's, for panes that are large; "age": of the next part;
 * "memory": bytes for the states of all queries.  Needs an active snapshot.
 * Raises ERRCODE_DATA_CORRUPTED for damaged chunks, and a definition whose types don't match.
 */
extern void sc_changelog_load(ScEngine *engine, int64 query_id, bool rescaled, ScSpilled *spilled, int64 age,
							  int64 memory);

/*
 * Deletes what incomplete runs have left that the engine's task has written, or one of its key groups: up to "limit"
 * chunks; returns how many.  To be called before the task writes any, in transactions of its own, until there are fewer.
 */
extern int	sc_changelog_clean(const ScEngine *engine, int64 query_id, int limit);

/* Bytes of the chunks that are live now: what a full set of chunks holds. */
extern int64 sc_changelog_live_bytes(const ScEngine *engine);

#endif							/* SC_STATE_CHANGELOG_H */
