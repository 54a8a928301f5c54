/*-------------------------------------------------------------------------
 * changelog.c
 *	  An engine's changed state as a changelog of runs, and back.
 *
 * run.h has the format; what 0.2 wrote is read by old_chunks.c.  backend.h keeps the chunks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "state/changelog.h"
#include "state/run.h"

/* Live chunks beyond twice the full size by less than this stay */
#define COMPACT_SLACK	(64 * 1024)

/* Have the pane's chunks grown so far past its size that it is written whole? */
static bool
wants_compaction(const ScPane *pane)
{
	return sc_pane_is_whole(pane) ||
		sc_pane_live_bytes(pane) > 2 * sc_pane_full_bytes(pane) + COMPACT_SLACK;
}

/* Writes a pane's run; returns its bytes. */
static Size
write_pane(ScEngine *engine, ScPane *pane, int64 age, const ScChangelogSink *sink)
{
	bool		full = wants_compaction(pane);
	uint32		entries;
	Size		inputs;
	Size		bytes = sc_run_write(engine, pane, age, full, sink->chunk, sink->arg,
										 &entries, &inputs);

	sc_pane_set_entry_bytes(pane, (bytes - inputs) / entries);
	sc_pane_set_live_bytes(engine, pane, bytes + (full ? 0 : sc_pane_live_bytes(pane)));
	sc_pane_written(engine, pane);
	return bytes;
}

/* Drops come first: a pane may be there again. */
Size
sc_changelog_write(ScEngine *engine, int64 age, const ScChangelogSink *sink)
{
	const int64 *closed;
	int			nclosed;
	ScPane	   *pane;
	Size		bytes = 0;

	sc_engine_begin_write(engine);
	closed = sc_engine_closed_panes(engine, &nclosed);
	for (int i = 0; i < nclosed; i++)
		sink->drop(sink->arg, closed[i]);
	sc_engine_forget_closed_panes(engine);

	for (int i = 0; (pane = sc_engine_pane(engine, i)) != NULL; i++)
	{
		if (sc_pane_nchanged(pane) > 0)
			bytes += write_pane(engine, pane, age, sink);
	}
	sc_engine_end_write(engine);
	return bytes;
}

int64
sc_changelog_live_bytes(const ScEngine *engine)
{
	return sc_engine_live_bytes(engine);
}

/* What was read is to be replaced. */
static void
rewrite_all(ScEngine *engine, bool rescaled)
{
	ScPane	   *pane;

	for (int i = 0; (pane = sc_engine_pane(engine, i)) != NULL; i++)
	{
		/* whoever wrote it: they all go in one checkpoint, before the pane can be dropped by itself */
		if (rescaled)
			sc_pane_set_live_bytes(engine, pane, 0);
		sc_pane_rewrite(pane);
	}
}

void
sc_changelog_load(ScEngine *engine, int64 query_id, bool rescaled)
{
	bool		moved;

	sc_engine_begin_load(engine);
	sc_old_chunks_load(engine, query_id);
	moved = sc_runs_load(engine, query_id);
	if (rescaled || moved)
		rewrite_all(engine, rescaled);
	sc_engine_end_load(engine);
}
