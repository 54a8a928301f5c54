/*-------------------------------------------------------------------------
 * merge.c
 *	  Merging runs of spilled panes, so that few are looked up and what was replaced goes.
 *
 * Runs of about the same size, in powers of four, are a tier; an older run that is smaller than a newer one counts as
 * of the newer one's.  At most MAX_RUNS of a tier stay: of more, the MERGE_RUNS oldest neighbours become one run,
 * or MANY_RUNS of them, if merging has fallen behind.
 * Only runs are merged that are committed, or all of them aren't sent yet, and with one all newer ones of its age: the new
 * run has the age of its newest source and is born now, so that it comes after all of that age.
 *
 * A group whose states are too large for task_memory ends merging of its pane, until that is increased: they would have
 * to be in memory whole, though they may never be needed so.  There are more and more runs then, as many as checkpoints.
 * Kept inputs need not be (exec/tape.h).
 *
 * A merge is worked on for a while after each write, range of positions by range: the sources are read into a
 * bucket as when a bucket is loaded, and that is written.  Until its last chunk is written nobody reads the new run;
 * in the same transaction the sources lose their first and last chunks, and the rest of them goes in steps.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/debug.h"
#include "base/settings.h"
#include "state/spilled_internal.h"
#include "utils/memutils.h"

#define MAX_RUNS		4
#define MERGE_RUNS		4
/* If there are many, so many are merged at a time */
#define MANY_RUNS		16
#define TIER_BYTES		(64 * 1024)

/* What is done in one go: bytes of sources, or so many times those that were written since the last one */
#define WORK_BYTES		(256 * 1024)
#define WORK_FACTOR		8
/* Bytes of sources that are read into one bucket */
#define RANGE_BYTES		(256 * 1024)
/* Chunks that are deleted in one go, if not more were written */
#define LEFT_CHUNKS		64

typedef struct ScMerge
{
	int			first;			/* its sources in the pane's list */
	int			n;
	uint64		at;				/* positions below it are done */
	ScRunName	name;			/* of the new run */
	ScRunWriter *writer;
} ScMerge;

void
sc_merge_free(ScMerge *merge)
{
	pfree(merge->writer);
	pfree(merge);
}

/* ---------- what to merge ---------- */

static int
tier_of(const ScRunInfo *run)
{
	int			tier = 0;

	for (uint64 bytes = run->bytes; bytes > TIER_BYTES; bytes /= 4)
		tier++;
	return tier;
}

/* Runs of the same age, of which some are to be merged, all are: returns how many there are then. */
static int
with_all_of_age(const struct ScRuns *runs, int first, int n)
{
	while (first + n < runs->n && runs->runs[first + n].info.name.age == runs->runs[first + n - 1].info.name.age)
		n++;
	return n;
}

/* Where those begin that aren't sent. */
static int
first_unsent(const struct ScRuns *runs)
{
	int			i = runs->n;

	while (i > 0 && !runs->runs[i - 1].sent)
		i--;
	return i;
}

/*
 * The neighbours to be merged of the smallest tier that has too many runs of those from "from" to below "end"; false:
 * there is none.
 */
static bool
choose(const struct ScRuns *runs, int from, int end, int *first, int *n)
{
	int			tier = 0;

	while (end > from)
	{
		int			begin = end;

		tier = Max(tier, tier_of(&runs->runs[end - 1].info));
		while (begin > from && tier_of(&runs->runs[begin - 1].info) <= tier)
			begin--;
		if (end - begin > MAX_RUNS)
		{
			*first = begin;
			*n = with_all_of_age(runs, begin, end - begin > MANY_RUNS ? MANY_RUNS : MERGE_RUNS);
			return true;
		}
		end = begin;
	}
	return false;
}

/* Notes whose last chunks are committed. */
static void
look_up_complete(const ScSpilled *spilled, struct ScRuns *runs)
{
	int64		pane_key = runs->runs[0].info.name.pane_key;
	int			nlisted;
	ScRunInfo  *listed = sc_runs_list(spilled->query_id, &pane_key, &nlisted);

	for (int i = 0, at = 0; i < nlisted; i++)
	{
		/* both are in the same order */
		for (int j = at; j < runs->n; j++)
		{
			if (!sc_same_run(&listed[i].name, &runs->runs[j].info.name))
				continue;
			runs->runs[j].info.complete = listed[i].complete;
			at = j + 1;
			break;
		}
	}
	pfree(listed);
}

static bool
all_complete(const struct ScRuns *runs, int first, int n)
{
	for (int i = first; i < first + n; i++)
	{
		if (!runs->runs[i].info.complete)
			return false;
	}
	return true;
}

/* A merge of these runs into one of this age. */
static ScMerge *
begin_merge(ScSpilled *spilled, ScEngine *engine, ScPane *pane, int first, int n, int64 age)
{
	MemoryContext old = MemoryContextSwitchTo(spilled->context);
	const struct ScRuns *runs = sc_pane_runs(pane);
	ScMerge    *merge = palloc0(sizeof(ScMerge));
	ScRunName	name = sc_new_run_name(engine, pane, age, ++spilled->born);
	int			level = 0;

	for (int i = first; i < first + n; i++)
		level = Max(level, runs->runs[i].info.level);
	merge->first = first;
	merge->n = n;
	merge->name = name;
	merge->writer = sc_run_begin(engine, &name, Min(level + 1, PG_UINT8_MAX), true, 0);
	MemoryContextSwitchTo(old);
	return merge;
}

/* Has one of the pane's groups no room in memory? */
static bool
is_too_large(const struct ScRuns *runs)
{
	return runs->no_room >= sc_task_memory;
}

/* Begins one if there is anything to merge. */
static ScMerge *
find_merge(ScSpilled *spilled, ScEngine *engine, ScPane *pane)
{
	struct ScRuns *runs = sc_pane_runs(pane);
	int			first;
	int			n;

	if (is_too_large(runs) || !choose(runs, 0, first_unsent(runs), &first, &n))
		return NULL;
	if (!all_complete(runs, first, n))
		look_up_complete(spilled, runs);
	if (!all_complete(runs, first, n))
		return NULL;
	return begin_merge(spilled, engine, pane, first, n, runs->runs[first + n - 1].info.name.age);
}

/* ---------- merging ---------- */

/* The positions that come next: those of RANGE_BYTES of the sources, if groups are spread evenly. */
static ScPositions
next_range(const ScEngine *engine, const struct ScRuns *runs, const ScMerge *merge)
{
	ScPositions own = sc_engine_positions(engine);
	ScPositions range = {Max(merge->at, own.first), own.end};
	double		bytes = 0;
	double		step;

	for (int i = merge->first; i < merge->first + merge->n; i++)
		bytes += runs->runs[i].info.bytes;
	step = (own.end - own.first) * (RANGE_BYTES / Max(bytes, 1));
	if (step < range.end - range.first)
		range.end = range.first + Max((uint64) step, 1);
	return range;
}

/*
 * Merges the next range; returns the bytes of the sources' entries there.  False in *more: it was the last one.  If a
 * group finds no room *full is set, and the merge can't go on; it is an error if "full" is NULL.
 */
static int64
merge_range(ScSpilled *spilled, ScEngine *engine, ScPane *pane, ScMerge *merge, bool *more, bool *full)
{
	const struct ScRuns *runs = sc_pane_runs(pane);
	ScPositions range = next_range(engine, runs, merge);
	ScChoice	all = {.positions = SC_ALL_POSITIONS};
	ScBucket   *bucket = sc_bucket_create(engine, pane);
	int64		bytes = sc_stored_runs_apply(spilled, engine, &runs->runs[merge->first], merge->n, range, bucket, full);

	if (full == NULL || !*full)
	{
		sc_bucket_loaded(engine, bucket, merge->first == 0);
		if (merge->first == 0)
			sc_bucket_leave_out_gone(engine, bucket);
		sc_run_add(merge->writer, engine, bucket, &all);
	}
	sc_bucket_free(engine, bucket);
	merge->at = range.end;
	*more = range.end < sc_engine_positions(engine).end;
	return bytes;
}

/* The new run takes the place of its sources in the list. */
static void
replace_sources(struct ScRuns *runs, int first, int n, const ScRunInfo *run, bool sent)
{
	ScStoredRun *at = &runs->runs[first];

	at->info = *run;
	at->sent = sent;
	memmove(at + 1, at + n, (runs->n - first - n) * sizeof(ScStoredRun));
	runs->n -= n - 1;
}

/* Ends the new run, and with it its sources, in one transaction. */
static void
finish_merge(ScSpilled *spilled, ScEngine *engine, ScPane *pane, ScBackend *backend)
{
	struct ScRuns *runs = sc_pane_runs(pane);
	ScMerge    *merge = runs->merge;
	ScRunInfo	run = sc_run_end(merge->writer, true);

	SC_DEBUG_POINT("merge_ends");
	for (int i = merge->first; i < merge->first + merge->n; i++)
	{
		const ScRunName *source = &runs->runs[i].info.name;

		sc_backend_retire_run(backend, spilled->query_id, source);
		sc_spilled_leave(spilled, source);
	}
	spilled->counters->merged += run.bytes;
	replace_sources(runs, merge->first, merge->n, &run, true);
	pfree(merge);
	runs->merge = NULL;
	sc_stored_runs_account(engine, pane);
}

/*
 * A merge that found no room: what it wrote is left to be deleted, and nothing of the pane is merged until task_memory is
 * increased, or its state is loaded again.
 */
static void
give_up(ScSpilled *spilled, struct ScRuns *runs, ScMerge *merge)
{
	sc_spilled_leave(spilled, &merge->name);
	runs->no_room = sc_task_memory;
	sc_merge_free(merge);
}

/* Works on the pane's merges while there is budget; returns how much of it is left. */
static int64
work_on_pane(ScSpilled *spilled, ScEngine *engine, ScPane *pane, ScTableTarget *target, int64 budget)
{
	struct ScRuns *runs = sc_pane_runs(pane);

	while (budget > 0)
	{
		bool		more = true;
		bool		full = false;

		if (runs->merge == NULL)
			runs->merge = find_merge(spilled, engine, pane);
		if (runs->merge == NULL)
			break;
		if (target->backend == NULL)
			target->backend = sc_backend_begin();
		spilled->has_written = true;
		sc_run_to(runs->merge->writer, sc_put_into_table, target);
		while (more && budget > 0 && !full)
		{
			budget -= Max(merge_range(spilled, engine, pane, runs->merge, &more, &full), 1);
			SC_DEBUG_POINT("merge_range");
		}
		if (full)
		{
			give_up(spilled, runs, runs->merge);
			runs->merge = NULL;
		}
		if (more || full)
			break;
		finish_merge(spilled, engine, pane, target->backend);
		/* the next one may read it */
		sc_backend_flush(target->backend);
		CommandCounterIncrement();
	}
	return budget;
}

/* Deletes what is left of runs, up to so many chunks; false: nothing is left. */
static bool
delete_left(ScSpilled *spilled, ScTableTarget *target, int chunks)
{
	while (spilled->nleft > 0 && chunks > 0)
	{
		ScLeftRun  *left = &spilled->left[spilled->nleft - 1];
		int			n;

		if (target->backend == NULL)
			target->backend = sc_backend_begin();
		spilled->has_written = true;
		n = sc_backend_drop_run(target->backend, spilled->query_id, &left->name, &left->from, chunks);
		if (n < chunks)
			spilled->nleft--;
		chunks -= n;
	}
	return spilled->nleft > 0;
}

bool
sc_spilled_work(ScSpilled *spilled, ScEngine *engine)
{
	ScTableTarget target = {.query_id = spilled->query_id};
	int64		budget = Max(WORK_BYTES, WORK_FACTOR * spilled->work);
	bool		more;
	int			npanes = 0;

	(void) sc_engine_begin_write(engine);
	more = delete_left(spilled, &target, LEFT_CHUNKS + WORK_FACTOR * spilled->work / SC_CHUNK_BYTES);
	while (sc_engine_pane(engine, npanes) != NULL)
		npanes++;
	/* most rows go to the newest ones */
	for (int i = npanes - 1; budget > 0 && i >= 0; i--)
	{
		ScPane	   *pane = sc_engine_pane(engine, i);

		if (sc_pane_runs(pane) != NULL)
			budget = work_on_pane(spilled, engine, pane, &target, budget);
	}
	if (target.backend != NULL)
	{
		sc_backend_end(target.backend);
		CommandCounterIncrement();
	}
	spilled->work = 0;
	sc_engine_end_write(engine, false);
	return more || budget <= 0;
}

/*
 * Merges runs at once into one of the next part's age that isn't sent.  *full, if that isn't NULL: it was given up.
 */
static ScRunInfo
merge_now(ScSpilled *spilled, ScEngine *engine, ScPane *pane, int first, int n, bool *full)
{
	ScTableTarget target = {.backend = sc_backend_begin(),.query_id = spilled->query_id};
	ScMerge    *merge = begin_merge(spilled, engine, pane, first, n, spilled->age);
	bool		more = true;
	ScRunInfo	run = {0};

	sc_run_to(merge->writer, sc_put_into_table, &target);
	while (more && (full == NULL || !*full))
		(void) merge_range(spilled, engine, pane, merge, &more, full);
	if (full != NULL && *full)
		give_up(spilled, sc_pane_runs(pane), merge);
	else
	{
		run = sc_run_end(merge->writer, false);
		pfree(merge);
	}
	sc_backend_end(target.backend);
	CommandCounterIncrement();
	spilled->counters->merged += run.bytes;
	spilled->has_written = true;
	return run;
}

/* Puts what merge_now made into the place of its sources. */
static void
take_merged(ScEngine *engine, ScPane *pane, int first, int n, const ScRunInfo *run)
{
	replace_sources(sc_pane_runs(pane), first, n, run, false);
	sc_stored_runs_account(engine, pane);
}

/* The task alone knows of them: what was merged is left to be deleted. */
void
sc_merge_unsent(ScSpilled *spilled, ScEngine *engine, ScPane *pane)
{
	struct ScRuns *runs = sc_pane_runs(pane);
	int			first;
	int			n;
	bool		full = false;
	ScRunInfo	run;

	/* all of them have the next part's age, so they are merged up to the newest */
	if (is_too_large(runs) || !choose(runs, first_unsent(runs), runs->n, &first, &n))
		return;
	run = merge_now(spilled, engine, pane, first, n, &full);
	if (full)
		return;
	for (int i = first; i < first + n; i++)
		sc_spilled_leave(spilled, &runs->runs[i].info.name);
	take_merged(engine, pane, first, n, &run);
}

/*
 * The new run has the age of the next part, with which all older ones of the query go (SC_MESSAGE_RESCALED): its
 * trailer goes with that, as that of a pane that was resident.
 */
void
sc_merge_all(ScSpilled *spilled, ScEngine *engine, ScPane *pane)
{
	struct ScRuns *runs = sc_pane_runs(pane);
	int			n = runs->n;
	ScRunInfo	run = merge_now(spilled, engine, pane, 0, n, NULL);

	take_merged(engine, pane, 0, n, &run);
	runs->replaces = spilled->age;
	runs->others = false;
}
