/*-------------------------------------------------------------------------
 * changelog.h
 *	  Writing an engine's changed state as changelog chunks, and loading it.
 *
 * At a barrier each changed pane (one window of one query) appends its
 * changed groups, sorted by key group, as a stream of bytes cut into chunks of
 * at most SC_CHUNK_BYTES; a pane whose live chunks have grown past twice
 * its full size (plus a constant) writes itself whole instead ("full": older
 * chunks of the pane are dropped by whoever stores this one).  Aggregates
 * whose inputs are kept write only the inputs added since the last checkpoint.
 *
 * Chunk bytes begin with a versioned header with a checksum (CRC-32C); the
 * format is described at the top of changelog.c.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_CHANGELOG_H
#define SC_STATE_CHANGELOG_H

#include "exec/engine.h"

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

typedef struct ScChangelogSink
{
	void	   *arg;
	void		(*chunk) (void *arg, const ScChunk *chunk);
	/* the pane closed: all its chunks are obsolete.  Called only for
	 * panes that have chunks in an earlier checkpoint. */
	void		(*drop) (void *arg, int64 pane_key);
} ScChangelogSink;

/*
 * Writes what changed since the last call, and marks everything unchanged.
 * Calls serialisation functions: transaction, snapshot and owner as for the engine.
 * Returns the bytes handed to the sink.
 */
extern Size sc_changelog_write(ScEngine *engine, const ScChangelogSink *sink);

/*
 * Loading: chunks in order of (pane_key, checkpoint_id, seq) into a fresh
 * engine, then one call of _end.  Raises ERRCODE_DATA_CORRUPTED for a bad
 * checksum, version or a definition whose types don't match.
 */
typedef struct ScChangelogLoader ScChangelogLoader;
extern ScChangelogLoader *sc_changelog_load_begin(ScEngine *engine);
extern void sc_changelog_load_chunk(ScChangelogLoader *loader, int64 checkpoint_id,
									const ScChunk *chunk);
extern void sc_changelog_load_end(ScChangelogLoader *loader);

/* Bytes of the chunks that are live now: what a full set of chunks holds. */
extern int64 sc_changelog_live_bytes(const ScEngine *engine);

#endif							/* SC_STATE_CHANGELOG_H */
