/*-------------------------------------------------------------------------
 * spilled.c
 *	  Runs of spilled panes (spilled.h): writing and reading them, and their part of a checkpoint.
 *
 * All chunks of a run go into the table in the task's own transaction but for the last one, the trailer, which has no
 * entries: that goes with the query's part.  So the run is complete if and only if the part is committed.  Until then
 * this task alone knows of it.
 *
 * The rule: the list of a pane is what a row finds.  Whatever is in it has all its chunks in the table, as far as this
 * transaction sees it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "state/spilled_internal.h"
#include "utils/memutils.h"

ScSpilled *
sc_spilled_create(MemoryContext parent, int64 query_id, ScSpillCounters *counters)
{
	MemoryContext context = AllocSetContextCreate(parent, "stream_ckpt runs", ALLOCSET_SMALL_SIZES);
	ScSpilled  *spilled = MemoryContextAllocZero(context, sizeof(ScSpilled));

	spilled->context = context;
	spilled->query_id = query_id;
	spilled->counters = counters;
	sc_spilled_set_age(spilled, 1);
	return spilled;
}

/* Runs of resident panes have an age and are born at it: others must not have their names. */
void
sc_spilled_set_age(ScSpilled *spilled, int64 age)
{
	spilled->age = age;
	spilled->born = Max(spilled->born, age);
}

bool
sc_spilled_has_written(ScSpilled *spilled)
{
	bool		result = spilled->has_written;

	spilled->has_written = false;
	return result;
}

void
sc_spilled_saw(ScSpilled *spilled, const ScRunName *run)
{
	spilled->born = Max(spilled->born, Max(run->age, run->born));
}

/* Parts in which a large bucket is written */
#define SLICES	16

/* ---------- lists ---------- */

struct ScRuns *
sc_stored_runs_create(ScSpilled *spilled)
{
	struct ScRuns *runs = MemoryContextAllocZero(spilled->context, sizeof(struct ScRuns));

	runs->size = 8;
	runs->runs = MemoryContextAlloc(spilled->context, runs->size * sizeof(ScStoredRun));
	return runs;
}

void
sc_stored_runs_add(ScSpilled *spilled, struct ScRuns *runs, const ScRunInfo *run, bool sent)
{
	if (runs->n == runs->size)
	{
		runs->size *= 2;
		runs->runs = repalloc_huge(runs->runs, runs->size * sizeof(ScStoredRun));
	}
	runs->runs[runs->n].info = *run;
	runs->runs[runs->n].sent = sent;
	runs->n++;
	sc_spilled_saw(spilled, &run->name);
}

void
sc_stored_runs_account(ScEngine *engine, ScPane *pane)
{
	const struct ScRuns *runs = sc_pane_runs(pane);
	int64		bytes = 0;
	int64		groups = 0;

	for (int i = 0; i < runs->n; i++)
	{
		bytes += runs->runs[i].info.bytes;
		groups += runs->runs[i].info.entries;
	}
	sc_pane_set_live_bytes(engine, pane, bytes);
	sc_pane_set_stored_groups(engine, pane, groups);
}

void
sc_spilled_leave(ScSpilled *spilled, const ScRunName *run)
{
	if (spilled->nleft == spilled->max_left)
	{
		spilled->max_left = Max(spilled->max_left * 2, 16);
		if (spilled->left == NULL)
			spilled->left = MemoryContextAlloc(spilled->context, spilled->max_left * sizeof(ScLeftRun));
		else
			spilled->left = repalloc_huge(spilled->left, spilled->max_left * sizeof(ScLeftRun));
	}
	memset(&spilled->left[spilled->nleft], 0, sizeof(ScLeftRun));
	spilled->left[spilled->nleft++].name = *run;
}

/* ---------- reading ---------- */

/* What entries are applied to. */
typedef struct Target
{
	ScEngine   *engine;
	ScBucket   *bucket;
	int64		bytes;
	bool	   *full;			/* NULL: what finds no room is an error */
	bool		skips;			/* the rest of the entry: it found none */
} Target;

/* For so many bytes more.  Without any it is an error, or the target is full. */
static bool
has_room(Target *target, Size len)
{
	if (target->full == NULL)
		sc_bucket_check_room(target->bucket, len);
	else if (!*target->full && !sc_bucket_has_room(target->bucket, len))
		*target->full = true;
	return target->full == NULL || !*target->full;
}

/* An ScTakeEntry. */
static void
apply_entry(void *arg, uint32 position, const char *data, Size len)
{
	Target	   *target = arg;
	bool		ours;

	if (!has_room(target, len))
		return;
	(void) sc_group_decode(target->engine, target->bucket, SC_FORMAT_VERSION, data, len, &ours);
	target->bytes += len;
}

/* An ScTakePieces: only kept inputs come in pieces, which need not be in memory. */
static Size
head_of_entry(void *arg, const char *data, Size len)
{
	return sc_entry_head(((Target *) arg)->engine, data, len);
}

static void
begin_pieces(void *arg, const char *data, Size len)
{
	Target	   *target = arg;

	target->skips = !has_room(target, len);
	if (target->skips)
		return;
	sc_group_decode_head(target->engine, target->bucket, data, len);
	target->bytes += len;
}

static void
add_piece(void *arg, const char *data, Size len)
{
	Target	   *target = arg;

	if (target->skips || !has_room(target, len))
		return;
	CHECK_FOR_INTERRUPTS();
	sc_pieces_add(target->engine, target->bucket, data, len);
	target->bytes += len;
}

static void
end_pieces(void *arg)
{
	Target	   *target = arg;

	if (!target->skips && (target->full == NULL || !*target->full))
		sc_pieces_end(target->engine);
}

static const ScTakePieces take_pieces = {.head = head_of_entry,.begin = begin_pieces,.add = add_piece,.end = end_pieces};

int64
sc_stored_runs_apply(const ScSpilled *spilled, ScEngine *engine, const ScStoredRun *runs, int n,
					 ScPositions positions, ScBucket *bucket, bool *full)
{
	Target		target = {.engine = engine,.bucket = bucket,.full = full};
	ScRunReader *reader = sc_run_reader_create(sc_engine_signature(engine, SC_FORMAT_VERSION), apply_entry, &target);
	ScLookup   *lookup = sc_backend_begin_lookup(spilled->query_id);

	sc_run_reader_may_fill(reader, full);
	sc_run_reader_take_pieces(reader, &take_pieces);
	for (int i = 0; i < n && (full == NULL || !*full); i++)
		sc_run_reader_range(reader, lookup, &runs[i].info, positions);
	sc_backend_end_lookup(lookup);
	sc_run_reader_free(reader);
	return target.bytes;
}

/* ScSpillWays.load */
static void
load_bucket(void *arg, ScEngine *engine, ScPane *pane, ScBucket *bucket, uint32 number)
{
	ScSpilled  *spilled = arg;
	const struct ScRuns *runs = sc_pane_runs(pane);

	if (runs == NULL)
		return;
	spilled->counters->loaded += sc_stored_runs_apply(spilled, engine, runs->runs, runs->n,
													  sc_pane_positions(pane, number), bucket, NULL);
}

/* ---------- writing ---------- */

void
sc_put_into_table(void *arg, const ScChunk *chunk)
{
	const ScTableTarget *target = arg;

	sc_backend_put(target->backend, target->query_id, chunk);
}

/* All groups of a bucket that has no changes: some positions at a time, as the order of groups takes memory, too. */
static void
add_all(ScRunWriter *writer, ScEngine *engine, ScBucket *bucket)
{
	for (int i = 0; i < SLICES; i++)
	{
		ScChoice	slice = {.positions = {SC_POSITIONS / SLICES * i, SC_POSITIONS / SLICES * (i + 1)}};

		sc_run_add(writer, engine, bucket, &slice);
	}
}

/* Writes a run of what has changed, or, of a resident pane, of all. */
static ScRunInfo
write_run(ScSpilled *spilled, ScEngine *engine, ScPane *pane)
{
	ScTableTarget target = {.backend = sc_backend_begin(),.query_id = spilled->query_id};
	ScRunName	name = sc_new_run_name(engine, pane, spilled->age, spilled->born + 1);
	ScRunWriter *writer = sc_run_begin(engine, &name, 0, true, 0);
	ScBucket   *bucket = sc_pane_bucket(pane);
	ScChoice	changes = {0};
	uint32		number = 0;
	ScRunInfo	run;

	sc_run_to(writer, sc_put_into_table, &target);
	if (bucket != NULL)
		add_all(writer, engine, bucket);
	else
	{
		while ((bucket = sc_pane_next_changed(pane, &number)) != NULL)
			sc_run_add(writer, engine, bucket, &changes);
	}
	run = sc_run_end(writer, false);
	sc_backend_end(target.backend);
	/* lookups see it from now on */
	CommandCounterIncrement();
	return run;
}

/* ScSpillWays.write */
static void
write_pane(void *arg, ScEngine *engine, ScPane *pane)
{
	ScSpilled  *spilled = arg;
	ScRunInfo	run = write_run(spilled, engine, pane);
	struct ScRuns *runs = sc_pane_runs(pane);

	if (runs == NULL)
	{
		runs = sc_stored_runs_create(spilled);
		/* it has all there is: the runs that were written while the pane was resident go with its trailer */
		runs->replaces = spilled->age;
		sc_pane_set_runs(pane, runs);
	}
	sc_stored_runs_add(spilled, runs, &run, false);
	sc_stored_runs_account(engine, pane);
	spilled->has_written = true;
	spilled->work += run.bytes;
	spilled->counters->written += run.bytes;
	sc_merge_unsent(spilled, engine, pane);
}

Size
sc_spilled_snapshot(ScSpilled *spilled, ScEngine *engine, ScPane *pane, const ScChangelogSink *sink)
{
	struct ScRuns *runs;
	Size		bytes = 0;

	sc_spilled_write(engine, pane);
	runs = sc_pane_runs(pane);
	for (int i = 0; runs != NULL && i < runs->n; i++)
	{
		ScStoredRun *run = &runs->runs[i];

		if (run->sent)
			continue;
		sc_run_write_trailer(engine, &run->info, runs->replaces, sink->chunk, sink->arg);
		run->sent = true;
		runs->replaces = 0;
		bytes += run->info.bytes;
	}
	return bytes;
}

/* ScSpillWays.close: runs of earlier parts go with the next one, as those of any pane (ScChangelogSink). */
static void
close_pane(void *arg, ScEngine *engine, ScPane *pane)
{
	ScSpilled  *spilled = arg;
	struct ScRuns *runs = sc_pane_runs(pane);

	for (int i = 0; i < runs->n; i++)
	{
		if (!runs->runs[i].sent)
			sc_spilled_leave(spilled, &runs->runs[i].info.name);
	}
	if (runs->merge != NULL)
		sc_merge_free(runs->merge);
	pfree(runs->runs);
	pfree(runs);
	sc_pane_set_runs(pane, NULL);
}

const ScSpillWays sc_spill_ways = {.load = load_bucket,.write = write_pane,.close = close_pane};

/* ---------- loading a query ---------- */

void
sc_spilled_load(ScSpilled *spilled, ScEngine *engine, const ScRunInfo *runs, int n)
{
	struct ScRuns *list = sc_stored_runs_create(spilled);
	int64		bytes = 0;
	int			first;
	int			last;
	ScPane	   *pane;

	sc_engine_key_groups(engine, &first, &last);
	for (int i = 0; i < n; i++)
	{
		list->others |= runs[i].name.key_group != first || runs[i].more_key_groups != last - first;
		bytes += runs[i].bytes;
		sc_stored_runs_add(spilled, list, &runs[i], true);
	}
	pane = sc_pane_open_spilled(engine, runs[0].name.pane_key, bytes);
	if (pane == NULL)
		elog(ERROR, "pane " INT64_FORMAT " is open already", runs[0].name.pane_key);
	sc_pane_set_runs(pane, list);
	sc_stored_runs_account(engine, pane);
}
