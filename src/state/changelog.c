/*-------------------------------------------------------------------------
 * changelog.c
 *	  An engine's changed state as a changelog of runs, and back.
 *
 * run.h has the format; what 0.2 wrote is read by old_chunks.c.  backend.h keeps the chunks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "state/changelog.h"
#include "state/snapshot_internal.h"
#include "state/spilled_internal.h"

/* Drops come first: a pane may be there again. */
ScSnapshot *
sc_changelog_write(ScEngine *engine, ScSpilled *spilled, int64 age, const ScChangelogSink *sink, Size *bytes)
{
	bool		was = sc_engine_begin_write(engine);
	const int64 *closed;
	int			nclosed;
	ScPane	   *pane;
	ScSnapshot *snapshot = NULL;
	int			first;
	int			last;

	*bytes = 0;
	sc_engine_key_groups(engine, &first, &last);
	closed = sc_engine_closed_panes(engine, &nclosed);
	for (int i = 0; i < nclosed; i++)
		sink->drop(sink->arg, closed[i], age, first);
	sc_engine_forget_closed_panes(engine);

	for (int i = 0; (pane = sc_engine_pane(engine, i)) != NULL; i++)
	{
		if (sc_pane_bucket(pane) == NULL)
			*bytes += sc_spilled_snapshot(spilled, engine, pane, sink);
		else if (sc_pane_nchanged(pane) > 0)
		{
			if (snapshot == NULL)
				snapshot = sc_snapshot_begin(engine, age, sink);
			sc_snapshot_add(snapshot, pane);
		}
	}
	if (spilled != NULL)
		sc_spilled_set_age(spilled, age + 1);
	sc_engine_end_write(engine, was);
	if (snapshot == NULL)
		return NULL;
	*bytes += sc_snapshot_take_bytes(snapshot);
	if (!sc_snapshot_is_written(snapshot))
		return snapshot;
	sc_snapshot_free(snapshot);
	return NULL;
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
		if (sc_pane_bucket(pane) == NULL)
			continue;
		/* whoever wrote it: they all go in one checkpoint, before the pane can be dropped by itself */
		if (rescaled)
			sc_pane_set_live_bytes(engine, pane, 0);
		sc_pane_rewrite(pane);
	}
}

/*
 * Spilled panes of other tasks' runs become such of this one's; "rescaled": all do, as what was written before the next
 * part goes with it.
 */
static void
take_over(ScEngine *engine, ScSpilled *spilled, bool rescaled)
{
	ScPane	   *pane;

	(void) sc_engine_begin_write(engine);
	for (int i = 0; (pane = sc_engine_pane(engine, i)) != NULL; i++)
	{
		if (sc_pane_runs(pane) != NULL && (rescaled || sc_pane_runs(pane)->others))
			sc_merge_all(spilled, engine, pane);
	}
	sc_engine_end_write(engine, false);
}

void
sc_changelog_load(ScEngine *engine, int64 query_id, bool rescaled, ScSpilled *spilled, int64 age, int64 memory)
{
	bool		moved;

	if (spilled != NULL)
		sc_spilled_set_age(spilled, age);
	sc_engine_begin_load(engine);
	sc_old_chunks_load(engine, query_id);
	moved = sc_runs_load(engine, query_id, spilled, memory);
	if (rescaled || moved)
		rewrite_all(engine, rescaled);
	sc_engine_end_load(engine);
	take_over(engine, spilled, rescaled);
}
