/*-------------------------------------------------------------------------
 * changelog.c
 *	  An engine's changed state as a changelog of runs, and back.
 *
 * run.h has the format; what 0.2 wrote is read by old_chunks.c.  backend.h keeps the chunks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "state/changelog.h"
#include "state/spilled_internal.h"

/* Live chunks beyond twice the full size by less than this stay */
#define COMPACT_SLACK	(64 * 1024)

/* Bytes beside the changes that one call writes of panes that have grown so far, or twice the changes */
#define SWEEP_BYTES		(256 * 1024)

/* What is written of a pane beside its changes. */
typedef struct Plan
{
	ScPositions all;			/* all groups there, whole */
	int64		replaces;		/* runs of lower ages aren't needed any more then, 0: all are */
} Plan;

/*
 * Which of a pane's groups are written that haven't changed: all, if that must be; else, if its chunks have
 * grown past twice its size, the next ones, about as many as take "budget", until all of them are through.
 * *sweep: as it is after that.
 */
static Plan
plan_run(const ScEngine *engine, ScPane *pane, int64 age, int64 budget, ScSweep *sweep)
{
	ScPositions own = sc_engine_positions(engine);
	Plan		plan = {0};
	double		step;

	*sweep = *sc_pane_sweep(pane);
	if (sc_pane_is_whole(pane))
		sweep->age = 0;
	else if (sweep->age == 0 &&
			 sc_pane_live_bytes(pane) <= 2 * sc_pane_full_bytes(pane) + COMPACT_SLACK)
		return plan;
	if (sweep->age == 0)
	{
		sweep->age = age;
		sweep->at = own.first;
		sweep->bytes = 0;
	}
	step = (double) (own.end - own.first) * budget / Max(sc_pane_full_bytes(pane), 1);
	plan.all.first = sweep->at;
	plan.all.end = own.end;
	if (!sc_pane_is_whole(pane) && step < own.end - sweep->at)
		plan.all.end = sweep->at + Max((uint64) step, 1);
	sweep->at = plan.all.end;
	if (sweep->at == own.end)
		plan.replaces = sweep->age;
	return plan;
}

/* Writes a pane's run; returns its bytes.  "*left": of SWEEP_BYTES. */
static Size
write_pane(ScEngine *engine, ScPane *pane, int64 age, int64 *left, const ScChangelogSink *sink)
{
	int64		changed = sc_pane_nchanged(pane) * sc_pane_entry_bytes(pane);
	ScRunName	name = sc_new_run_name(engine, pane, age, age);
	ScSweep		sweep;
	Plan		plan = plan_run(engine, pane, age, Max(*left, 2 * changed), &sweep);
	ScRunWriter *writer = sc_run_begin(engine, &name, 0, false, plan.replaces);
	Size		inputs;
	ScRunInfo	run;

	sc_run_to(writer, sink->chunk, sink->arg);
	(void) sc_run_add(writer, engine, sc_pane_bucket(pane), plan.all);
	(void) sc_run_bytes(writer, &inputs);
	run = sc_run_end(writer, true);

	if (sweep.age > 0)
		*left = Max(*left - (int64) run.bytes, 0);
	sweep.bytes += run.bytes;
	sc_pane_set_entry_bytes(pane, (run.bytes - inputs) / run.entries);
	sc_pane_set_live_bytes(engine, pane, plan.replaces > 0 ? sweep.bytes :
						   sc_pane_live_bytes(pane) + run.bytes);
	if (plan.replaces > 0)
		sweep.age = 0;
	*sc_pane_sweep(pane) = sweep;
	sc_pane_written(engine, pane);
	return run.bytes;
}

/* Drops come first: a pane may be there again. */
Size
sc_changelog_write(ScEngine *engine, ScSpilled *spilled, int64 age, const ScChangelogSink *sink)
{
	const int64 *closed;
	int			nclosed;
	ScPane	   *pane;
	Size		bytes = 0;
	int64		left = SWEEP_BYTES;
	int			first;
	int			last;

	sc_engine_key_groups(engine, &first, &last);
	sc_engine_begin_write(engine);
	closed = sc_engine_closed_panes(engine, &nclosed);
	for (int i = 0; i < nclosed; i++)
		sink->drop(sink->arg, closed[i], age, first);
	sc_engine_forget_closed_panes(engine);

	for (int i = 0; (pane = sc_engine_pane(engine, i)) != NULL; i++)
	{
		if (sc_pane_bucket(pane) == NULL)
			bytes += sc_spilled_snapshot(spilled, engine, pane, sink);
		else if (sc_pane_nchanged(pane) > 0)
			bytes += write_pane(engine, pane, age, &left, sink);
	}
	if (spilled != NULL)
		sc_spilled_set_age(spilled, age + 1);
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

	sc_engine_begin_write(engine);
	for (int i = 0; (pane = sc_engine_pane(engine, i)) != NULL; i++)
	{
		if (sc_pane_runs(pane) != NULL && (rescaled || sc_pane_runs(pane)->others))
			sc_merge_all(spilled, engine, pane);
	}
	sc_engine_end_write(engine);
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
