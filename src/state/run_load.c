/*-------------------------------------------------------------------------
 * run_load.c
 *	  Reading a query's runs into an engine, and deleting what no run has become of.
 *
 * The rule: a run is read whole (SC_RUN_LAST) or not at all.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "state/spilled_internal.h"
#include "utils/memutils.h"

/* A pane whose runs take more isn't read at a task's start; those that are take one in so many of the memory */
#define RESIDENT_BYTES	(4 * 1024 * 1024)
#define RESIDENT_SHARE	4

typedef struct Loader
{
	ScEngine   *engine;
	int			first_key_group;	/* the engine's */
	int			last_key_group;

	const ScRunInfo *runs;		/* that there were, in the order in which they are read */
	int			nruns;
	int			next;			/* the one being read, or the next one */
	bool		reading;		/* the former */
	ScRunReader *reader;

	ScPane	   *pane;			/* being loaded, or NULL */
	int64		entries;		/* of the pane so far */
	int64		entry_bytes;	/* theirs without kept inputs */
	bool		moved;			/* a group belongs to another task than the one that wrote it */
} Loader;

/* All runs of the pane are read. */
static void
finish_pane(Loader *loader)
{
	if (loader->pane == NULL)
		return;
	if (loader->entries > 0)
		sc_pane_set_entry_bytes(loader->pane, loader->entry_bytes / loader->entries);
	sc_pane_loaded(loader->engine, loader->pane);
	loader->pane = NULL;
}

/* The pane that the chunk belongs to, which is open in all tasks of the query. */
static void
enter_pane(Loader *loader, const ScChunk *chunk)
{
	if (loader->pane != NULL && sc_pane_key(loader->pane) == chunk->pane_key)
		return;
	finish_pane(loader);
	loader->pane = sc_pane_begin_load(loader->engine, chunk->pane_key);
	if (loader->pane == NULL)
		sc_chunk_fail(chunk, "it comes out of order");
	loader->entries = loader->entry_bytes = 0;
}

/* Can the run hold groups of ours? */
static bool
is_read(const Loader *loader, const ScRunInfo *run)
{
	return sc_engine_keys_can_move(loader->engine) ||
		(run->name.key_group <= loader->last_key_group &&
		 run->name.key_group + run->more_key_groups >= loader->first_key_group);
}

/* An ScTakeEntry: applies an entry. */
static void
apply_entry(void *arg, uint32 position, const char *data, Size len)
{
	Loader	   *loader = arg;
	bool		ours;
	int64		inputs = sc_group_decode(loader->engine, sc_pane_bucket(loader->pane), SC_FORMAT_VERSION,
										 data, len, &ours);

	loader->moved |= ours != (loader->runs[loader->next].name.key_group == loader->first_key_group);
	loader->entries++;
	loader->entry_bytes += len - Min((int64) len, Max(inputs, 0));
}

/* The run being read has no more chunks. */
static void
end_run(Loader *loader)
{
	const ScRunInfo *run = &loader->runs[loader->next];

	if (!loader->reading)
		return;
	sc_run_reader_end(loader->reader, &run->name, run->last.seq);
	loader->reading = false;
	loader->next++;
}

static int
compare_names(const ScRunName *a, const ScRunName *b)
{
	if (a->pane_key != b->pane_key)
		return a->pane_key < b->pane_key ? -1 : 1;
	if (a->age != b->age)
		return a->age < b->age ? -1 : 1;
	if (a->born != b->born)
		return a->born < b->born ? -1 : 1;
	return (int) a->key_group - (int) b->key_group;
}

/*
 * Goes to the run that the chunk belongs to; NULL: to none of the list, as it was begun since then, by another task.
 * In between can be runs of the list that another task has deleted since then: incomplete ones.
 */
static const ScRunInfo *
enter_run(Loader *loader, const ScChunk *chunk)
{
	ScRunName	name = sc_chunk_run(chunk);
	int			compared = 1;

	if (loader->reading && !sc_same_run(&loader->runs[loader->next].name, &name))
		end_run(loader);
	while (loader->next < loader->nruns &&
		   (compared = compare_names(&name, &loader->runs[loader->next].name)) > 0)
		loader->next++;
	return loader->next < loader->nruns && compared == 0 ? &loader->runs[loader->next] : NULL;
}

/* An ScReadChunk: applies one chunk's entries.  Fails if it isn't whole, or not the one that has to come. */
static void
load_chunk(void *arg, const ScChunk *chunk)
{
	Loader	   *loader = arg;
	const ScRunInfo *run = enter_run(loader, chunk);

	CHECK_FOR_INTERRUPTS();
	if (run == NULL || !run->complete)
		return;
	enter_pane(loader, chunk);
	if (!is_read(loader, run))
		return;
	if (!loader->reading)
		sc_run_reader_begin(loader->reader, (ScPositions) {0, SC_POSITIONS});
	loader->reading = true;
	(void) sc_run_reader_chunk(loader->reader, chunk);
	sc_pane_set_live_bytes(loader->engine, loader->pane,
						   sc_pane_live_bytes(loader->pane) + chunk->len);
}

/*
 * A run that isn't complete counts for nothing if its writer hasn't got further (SC_RUN_APART), or if it is being
 * deleted: its first chunk goes with its last one (sc_backend_retire_run).  Any other has lost its last chunk.
 */
static void
check_incomplete(const Loader *loader)
{
	for (int i = 0; i < loader->nruns; i++)
	{
		const ScRunInfo *run = &loader->runs[i];

		if (!run->complete && run->has_first && !run->apart && is_read(loader, run))
			sc_run_missing_fail(&run->name);
	}
}

/* Can its groups be looked up by position, and are some of them ours? */
static bool
can_look_up(const Loader *loader, const ScRunInfo *run)
{
	return run->key_signature == sc_engine_key_signature(loader->engine) &&
		run->name.key_group <= loader->last_key_group &&
		run->name.key_group + run->more_key_groups >= loader->first_key_group;
}

/*
 * Opens the pane of these runs as spilled if it is large; false: it isn't, or can't be.  *resident: the bytes of runs
 * that are read whole.
 */
static bool
open_spilled(const Loader *loader, ScSpilled *spilled, const ScRunInfo *runs, int n, int64 memory, int64 *resident)
{
	ScRunInfo  *kept = palloc(n * sizeof(ScRunInfo));
	int			nkept = 0;
	int64		bytes = 0;
	bool		result = true;

	for (int i = 0; i < n; i++)
	{
		if (!runs[i].complete || !is_read(loader, &runs[i]))
			continue;
		if (can_look_up(loader, &runs[i]))
			kept[nkept++] = runs[i];
		else if (runs[i].key_signature != sc_engine_key_signature(loader->engine))
			result = false;
		bytes += runs[i].bytes;
	}
	result &= nkept > 0 && (bytes > RESIDENT_BYTES || *resident + bytes > memory / RESIDENT_SHARE);
	if (result)
		sc_spilled_load(spilled, loader->engine, kept, nkept);
	else
		*resident += bytes;
	pfree(kept);
	return result;
}

/* Reads the runs of the i-th one's pane, or opens that as spilled; returns where the next pane's are. */
static int
load_pane(Loader *loader, int64 query_id, int i, ScSpilled *spilled, int64 memory, int64 *resident)
{
	const ScRunInfo *runs = &loader->runs[i];
	int			n = 1;

	while (i + n < loader->nruns && runs[n].name.pane_key == runs[0].name.pane_key)
		n++;
	if (!open_spilled(loader, spilled, runs, n, memory, resident))
	{
		sc_backend_read(query_id, &runs[0].name.pane_key, load_chunk, loader);
		end_run(loader);
		finish_pane(loader);
	}
	return i + n;
}

/* Reads them a chunk at a time; fails at the first one that isn't what it must be. */
bool
sc_runs_load(ScEngine *engine, int64 query_id, ScSpilled *spilled, int64 memory)
{
	Loader	   *loader = palloc0(sizeof(Loader));
	ScRunInfo  *runs = sc_runs_list(query_id, NULL, &loader->nruns);
	int64		resident = 0;
	int64		bytes = 0;
	bool		moved;

	loader->engine = engine;
	loader->runs = runs;
	loader->reader = sc_run_reader_create(sc_engine_signature(engine, SC_FORMAT_VERSION), apply_entry, loader);
	sc_engine_key_groups(engine, &loader->first_key_group, &loader->last_key_group);
	check_incomplete(loader);
	for (int i = 0; i < loader->nruns; i++)
	{
		bytes += runs[i].bytes;
		if (spilled != NULL)
			sc_spilled_saw(spilled, &runs[i].name);
	}
	if (spilled == NULL || !sc_engine_can_spill(engine) || bytes <= Min(RESIDENT_BYTES, memory / RESIDENT_SHARE))
	{
		sc_backend_read(query_id, NULL, load_chunk, loader);
		end_run(loader);
		finish_pane(loader);
	}
	else
	{
		for (int i = 0; i < loader->nruns;)
			i = load_pane(loader, query_id, i, spilled, memory, &resident);
	}
	moved = loader->moved;
	sc_run_reader_free(loader->reader);
	pfree(runs);
	pfree(loader);
	return moved;
}

/* A few at a time, because there can be as many as a whole state has. */
int
sc_changelog_clean(const ScEngine *engine, int64 query_id, int limit)
{
	int			n = 0;
	ScBackend  *backend = NULL;
	int			first;
	int			last;
	int			nruns;
	ScRunInfo  *runs = sc_runs_list(query_id, NULL, &nruns);

	sc_engine_key_groups(engine, &first, &last);
	for (int i = 0; i < nruns && n < limit; i++)
	{
		const ScRunInfo *run = &runs[i];
		ScRunPlace	from = {0};

		if (run->complete || (run->has_first && !run->apart) ||
			run->name.key_group < first || run->name.key_group > last)
			continue;
		if (backend == NULL)
			backend = sc_backend_begin();
		n += sc_backend_drop_run(backend, query_id, &run->name, &from, limit - n);
	}
	if (backend != NULL)
		sc_backend_end(backend);
	pfree(runs);
	return n;
}
