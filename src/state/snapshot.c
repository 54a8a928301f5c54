/*-------------------------------------------------------------------------
 * snapshot.c
 *	  A query's resident panes at a barrier: which are written at once, and which later, while rows go on.
 *
 * What little changed is written at the barrier; of the rest, exec/snapshot.c keeps what was there, and it is
 * written in steps.  Either way a pane has one run.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "state/run.h"
#include "state/snapshot_internal.h"
#include "utils/memutils.h"

/* Live chunks beyond twice the full size by less than this stay */
#define COMPACT_SLACK	(64 * 1024)

/* Bytes beside the changes that one part writes of panes that have grown so far, or twice the changes */
#define SWEEP_BYTES		(256 * 1024)

/* A pane with fewer groups than such a part of SC_SNAPSHOT_GROUPS is always written at the barrier */
#define DEFER_PART		5

/* A pane's run that is being written. */
typedef struct PaneRun
{
	ScPane	   *pane;
	ScRunWriter *writer;
	ScBucketSnapshot *bucket;
	ScChoice	choice;			/* groups that are written whole */
	int64		replaces;		/* runs of lower ages aren't needed any more then, 0: all are */
	ScSweep		sweep;			/* as it is after that */
} PaneRun;

struct ScSnapshot
{
	MemoryContext context;
	ScEngine   *engine;
	int64		age;
	ScChangelogSink sink;
	List	   *runs;			/* of PaneRun *: those that aren't written yet */
	int64		sweep_left;		/* of SWEEP_BYTES */
	int64		groups_left;	/* that may be written at the barrier */
	Size		bytes;
};

ScSnapshot *
sc_snapshot_begin(ScEngine *engine, int64 age, const ScChangelogSink *sink)
{
	MemoryContext context = AllocSetContextCreate(sink->context, "stream_ckpt query's snapshot",
												  ALLOCSET_SMALL_SIZES);
	ScSnapshot *snapshot = MemoryContextAllocZero(context, sizeof(ScSnapshot));

	snapshot->context = context;
	snapshot->engine = engine;
	snapshot->age = age;
	snapshot->sink = *sink;
	snapshot->sweep_left = SWEEP_BYTES;
	snapshot->groups_left = SC_SNAPSHOT_GROUPS;
	return snapshot;
}

/*
 * Which of a pane's groups are written that haven't changed: all, if that must be; else, if its chunks have
 * grown past twice its size, the next ones, about as many as take "budget", until all of them are through.
 */
static void
plan(PaneRun *run, int64 age, int64 budget)
{
	const ScPane *pane = run->pane;
	ScSweep    *sweep = &run->sweep;
	uint32		ngroups = sc_pane_ngroups(pane);
	double		step;

	*sweep = *sc_pane_sweep(run->pane);
	if (sc_pane_is_whole(pane))
		sweep->age = 0;
	else if (sweep->age == 0 &&
			 sc_pane_live_bytes(pane) <= 2 * sc_pane_full_bytes(pane) + COMPACT_SLACK)
		return;
	if (sweep->age == 0)
	{
		sweep->age = age;
		sweep->at = 0;
		sweep->bytes = 0;
	}
	step = (double) ngroups * budget / Max(sc_pane_full_bytes(pane), 1);
	run->choice.first = Min(sweep->at, ngroups);
	run->choice.end = ngroups;
	if (!sc_pane_is_whole(pane) && step < ngroups - run->choice.first)
		run->choice.end = run->choice.first + Max((uint32) step, 1);
	sweep->at = run->choice.end;
	if (sweep->at == ngroups)
		run->replaces = sweep->age;
}

/* Its groups are all handed over. */
static void
end_run(ScSnapshot *snapshot, PaneRun *run)
{
	Size		inputs;
	ScRunInfo	info;

	sc_bucket_snapshot_free(run->bucket);
	(void) sc_run_bytes(run->writer, &inputs);
	info = sc_run_end(run->writer, true);
	run->sweep.bytes += info.bytes;
	sc_pane_set_entry_bytes(run->pane, (info.bytes - inputs) / Max(info.entries, 1));
	sc_pane_set_live_bytes(snapshot->engine, run->pane, run->replaces > 0 ? run->sweep.bytes :
						   sc_pane_live_bytes(run->pane) + info.bytes);
	if (run->replaces > 0)
		run->sweep.age = 0;
	*sc_pane_sweep(run->pane) = run->sweep;
	snapshot->bytes += info.bytes;
	pfree(run);
}

/*
 * May this one be written later?  Only if what must be written at the barrier is enough already, and if it isn't so
 * small that what is needed for that takes more memory than it.
 */
static bool
is_deferred(ScSnapshot *snapshot, const PaneRun *run)
{
	int64		groups = (int64) sc_pane_nchanged(run->pane) + (run->choice.end - run->choice.first);

	if (snapshot->sink.later != NULL && groups > snapshot->groups_left && groups >= SC_SNAPSHOT_GROUPS / DEFER_PART &&
		sc_pane_can_defer(snapshot->engine, run->pane))
		return true;
	snapshot->groups_left -= groups;
	return false;
}

/* Nothing of the pane counts as changed then, and whatever is written at once is handed over. */
void
sc_snapshot_add(ScSnapshot *snapshot, ScPane *pane)
{
	ScEngine   *engine = snapshot->engine;
	MemoryContext old = MemoryContextSwitchTo(snapshot->context);
	PaneRun    *run = palloc0(sizeof(PaneRun));
	int64		changed = (int64) sc_pane_nchanged(pane) * sc_pane_entry_bytes(pane);
	ScRunName	name = sc_new_run_name(engine, pane, snapshot->age, snapshot->age);
	bool		deferred;

	run->pane = pane;
	plan(run, snapshot->age, Max(snapshot->sweep_left, 2 * changed));
	if (run->sweep.age > 0)
		snapshot->sweep_left -= changed + (int64) (run->choice.end - run->choice.first) *
			sc_pane_entry_bytes(pane);
	snapshot->sweep_left = Max(snapshot->sweep_left, 0);
	deferred = is_deferred(snapshot, run);
	run->writer = sc_run_begin(engine, &name, 0, false, run->replaces);
	run->bucket = sc_bucket_snapshot_begin(engine, sc_pane_bucket(pane), &run->choice, deferred);
	if (deferred)
	{
		sc_run_to(run->writer, snapshot->sink.later, snapshot->sink.arg);
		snapshot->runs = lappend(snapshot->runs, run);
		sc_pane_written(engine, pane);
	}
	else
	{
		sc_run_to(run->writer, snapshot->sink.chunk, snapshot->sink.arg);
		(void) sc_run_add_snapshot(run->writer, engine, run->bucket, NULL);
		end_run(snapshot, run);
		sc_pane_written(engine, pane);
	}
	MemoryContextSwitchTo(old);
}

/* One pane after the other. */
bool
sc_snapshot_step(ScSnapshot *snapshot, ScPace *pace)
{
	MemoryContext old = MemoryContextSwitchTo(snapshot->context);
	bool		was = sc_engine_begin_write(snapshot->engine);

	while (snapshot->runs != NIL)
	{
		PaneRun    *run = linitial(snapshot->runs);

		if (!sc_run_add_snapshot(run->writer, snapshot->engine, run->bucket, pace))
			break;
		snapshot->runs = list_delete_first(snapshot->runs);
		end_run(snapshot, run);
	}
	sc_engine_end_write(snapshot->engine, was);
	MemoryContextSwitchTo(old);
	return sc_snapshot_is_written(snapshot);
}

bool
sc_snapshot_is_written(const ScSnapshot *snapshot)
{
	return snapshot->runs == NIL;
}

Size
sc_snapshot_take_bytes(ScSnapshot *snapshot)
{
	Size		bytes = snapshot->bytes;

	snapshot->bytes = 0;
	return bytes;
}

Size
sc_snapshot_memory(const ScSnapshot *snapshot)
{
	return MemoryContextMemAllocated(snapshot->context, true);
}

void
sc_snapshot_free(ScSnapshot *snapshot)
{
	MemoryContextDelete(snapshot->context);
}
