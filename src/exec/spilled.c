/*-------------------------------------------------------------------------
 * spilled.c
 *	  Panes that are larger than memory: their buckets come and go.
 *
 * A pane begins as resident: one bucket with all its groups.  sc_engine_shrink has it written whole and
 * makes it spilled: a directory of buckets, each of a range of positions, none of them in memory.
 * The state layer (options.spill) keeps what is written as runs.
 *
 * A bucket that a row needs is loaded: it is complete then, as of all runs.  Or, where the states allow
 * it, it is opened empty and collects deltas, which are combined with what the runs have when somebody
 * needs the groups: it is partial.  Rows, lookups and transition functions are the same for all.
 *
 * Rules that must hold: only what was written is evicted; a partial bucket goes when it is written, so that
 * no delta is written twice; a pane with partial buckets is written before anything of it is emitted.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "exec/exec_internal.h"
#include "utils/memutils.h"

#define MAX_DEPTH			16

/* A group takes so many times as much in memory as in a run, or less */
#define MEMORY_OF_STORED	3


/* ---------------------------------------------------------------------
 * Directories
 * --------------------------------------------------------------------- */

/* The number of the bucket in which groups of this hash are. */
static inline uint32
bucket_number(const ScPane *pane, uint32 hash)
{
	return pane->depth == 0 ? 0 : hash >> (32 - pane->depth);
}

/* How many bits a directory needs for a pane of so many bytes in memory. */
static int
depth_for(const ScEngine *engine, double bytes)
{
	int			key_groups = engine->options.last_key_group - engine->options.first_key_group + 1;
	int			depth = 0;

	/* positions of other tasks have no buckets */
	bytes = bytes * SC_MAX_PARALLELISM / key_groups;
	while (depth < MAX_DEPTH && bytes > ((double) SC_BUCKET_BYTES) * (1 << depth))
		depth++;
	return depth;
}

/* A directory of so many bits, without buckets. */
void
sc_pane_make_directory(ScEngine *engine, ScPane *pane, int depth)
{
	if (pane->directory != NULL)
		pfree(pane->directory);
	pane->depth = depth;
	pane->directory = MemoryContextAllocZero(engine->context,
											 sizeof(ScBucket *) * sc_pane_nbuckets(pane));
}

ScPositions
sc_pane_positions(const ScPane *pane, uint32 number)
{
	ScPositions result;

	result.first = (SC_POSITIONS >> pane->depth) * number;
	result.end = (SC_POSITIONS >> pane->depth) * ((uint64) number + 1);
	return result;
}

/* The next bucket from *number on that has changed; *number goes behind it.  NULL: there is none. */
ScBucket *
sc_pane_next_changed(const ScPane *pane, uint32 *number)
{
	while (*number < sc_pane_nbuckets(pane))
	{
		ScBucket   *bucket = pane->bucket ? pane->bucket : pane->directory[*number];

		++*number;
		if (bucket != NULL && sc_bucket_nchanged(bucket) > 0)
			return bucket;
	}
	return NULL;
}

/* Opens a pane whose groups are in runs of so many bytes. */
ScPane *
sc_pane_open_spilled(ScEngine *engine, int64 key, int64 stored_bytes)
{
	ScPane	   *pane;

	if (sc_pane_find(engine, key) != NULL)
		return NULL;
	pane = sc_pane_open_empty(engine, key);
	sc_pane_make_directory(engine, pane, depth_for(engine, (double) stored_bytes * MEMORY_OF_STORED));
	return pane;
}

/* ---------------------------------------------------------------------
 * Buckets
 * --------------------------------------------------------------------- */

static Size
bytes_with(const ScBucket *bucket, Size more)
{
	return (bucket ? bucket->context->mem_allocated : 0) + more;
}

bool
sc_bucket_has_room(const ScBucket *bucket, Size more)
{
	return bytes_with(bucket, more) <= (Size) sc_task_memory * 1024 * 1024;
}

/*
 * A bucket is small, but for a group that is large by itself: it has to fit into memory when it is needed whole.  If it
 * were read again for each of its rows, nothing would go on, either.
 */
void
sc_bucket_check_room(const ScBucket *bucket, Size more)
{
	Size		bytes = bytes_with(bucket, more);

	if (sc_bucket_has_room(bucket, more))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("one group of the query, with its neighbours, takes %zu MB, more than \"stream_ckpt.task_memory\" allows (%d MB)",
					bytes / (1024 * 1024) + 1, sc_task_memory),
			 errhint("Increase \"stream_ckpt.task_memory\" and call stream_ckpt.resume_query(), or have smaller groups: shorter windows, more keys.")));
}

/* May rows be added to groups of which nothing is known? */
static bool
takes_deltas(const ScEngine *engine, const ScPane *pane)
{
	return engine->partial_states && !pane->emitted;
}

/*
 * A bucket with all that the runs have.  May come in the middle of a row: the row's keys are the same
 * afterwards.
 */
static ScBucket *
load_bucket(ScEngine *engine, ScPane *pane, uint32 number)
{
	ScBucket   *bucket = sc_bucket_create(engine, pane);
	Size		nvalues = sizeof(Datum) * Max(engine->nkeys, 1);
	Datum	   *values = memcpy(palloc(nvalues), engine->key_values, nvalues);
	uint8	   *nulls = memcpy(palloc(Max(engine->nkeys, 1)), engine->key_nulls, Max(engine->nkeys, 1));

	engine->in_load = true;
	engine->copying = false;
	engine->options.spill->load(engine->options.spill_arg, engine, pane, bucket, number);
	sc_bucket_loaded(engine, bucket, true);
	engine->in_load = false;

	memcpy(engine->key_values, values, nvalues);
	memcpy(engine->key_nulls, nulls, Max(engine->nkeys, 1));
	pfree(values);
	pfree(nulls);
	return bucket;
}

/* A bucket is needed, which is in memory or (NULL) isn't. */
static inline void
count_lookup(ScEngine *engine, const ScBucket *bucket)
{
	ScSpillCounters *counters = engine->options.spill_counters;

	if (bucket != NULL)
		counters->hits++;
	else
		counters->misses++;
}

/*
 * The bucket that groups of this hash are in, of a spilled pane: rows go into it now.  The current
 * context is a short one.
 */
ScBucket *
sc_spilled_bucket(ScEngine *engine, ScPane *pane, uint32 hash)
{
	uint32		number = bucket_number(pane, hash);
	ScBucket   *bucket = pane->directory[number];

	count_lookup(engine, bucket);
	if (bucket != NULL && bucket == engine->at)
		return bucket;
	if (bucket == NULL)
	{
		if (takes_deltas(engine, pane))
		{
			bucket = sc_bucket_create(engine, pane);
			bucket->partial = true;
		}
		else
			bucket = load_bucket(engine, pane, number);
		pane->directory[number] = bucket;
	}
	if (engine->at != NULL)
		sc_bucket_account(engine, engine->at);
	engine->at = bucket;
	bucket->used = true;
	return bucket;
}

/*
 * A bucket to be emitted, complete.  *loaded: it was loaded for that, and is the caller's to free.  No
 * bucket of the pane may be partial.
 */
ScBucket *
sc_spilled_take_bucket(ScEngine *engine, ScPane *pane, uint32 number, bool *loaded)
{
	*loaded = pane->directory[number] == NULL;
	count_lookup(engine, pane->directory[number]);
	return *loaded ? load_bucket(engine, pane, number) : pane->directory[number];
}

static void
free_bucket(ScEngine *engine, ScPane *pane, uint32 number)
{
	sc_bucket_free(engine, pane->directory[number]);
	pane->directory[number] = NULL;
}

static void
evict(ScEngine *engine, ScPane *pane, uint32 number)
{
	free_bucket(engine, pane, number);
	engine->options.spill_counters->evictions++;
}

/* Writes what has changed of a spilled pane. */
void
sc_spilled_write(ScEngine *engine, ScPane *pane)
{
	if (sc_pane_nchanged(pane) == 0)
		return;
	engine->in_load = true;
	engine->options.spill->write(engine->options.spill_arg, engine, pane);
	engine->in_load = false;
	for (uint32 i = 0; i < sc_pane_nbuckets(pane); i++)
	{
		ScBucket   *bucket = pane->directory[i];

		if (bucket == NULL)
			continue;
		sc_bucket_unchanged(engine, bucket);
		if (bucket->partial)
			evict(engine, pane, i);
		else
			sc_bucket_account_children(engine, bucket);
	}
}

/* Its window is over: nothing of it is needed any more. */
void
sc_spilled_close(ScEngine *engine, ScPane *pane)
{
	if (pane->runs != NULL)
		engine->options.spill->close(engine->options.spill_arg, engine, pane);
	for (uint32 i = 0; i < sc_pane_nbuckets(pane); i++)
	{
		if (pane->directory[i] != NULL)
			free_bucket(engine, pane, i);
	}
	pfree(pane->directory);
}

/* ---------------------------------------------------------------------
 * Making room
 * --------------------------------------------------------------------- */

bool
sc_engine_can_spill(const ScEngine *engine)
{
	/*
	 * groups whose equality can change may be anywhere; windows of several panes are put together in memory; and what
	 * is due of groups that come and go is known by those in memory
	 */
	return engine->options.spill != NULL && !engine->keys_can_change && !engine->shared && !engine->timed;
}

/* Writes a resident pane whole. */
static void
write_resident(ScEngine *engine, ScPane *pane)
{
	/* it writes all of them, whatever has changed */
	sc_bucket_unchanged(engine, pane->bucket);
	pane->whole = true;
	engine->in_load = true;
	engine->options.spill->write(engine->options.spill_arg, engine, pane);
	engine->in_load = false;
	pane->whole = false;
}

/* Makes a resident pane spilled.  One that has no groups, because other tasks have them, has no runs either then. */
static void
spill(ScEngine *engine, ScPane *pane)
{
	Size		bytes = pane->bucket->bytes;

	if (pane->bucket->ngroups > 0)
		write_resident(engine, pane);
	sc_bucket_free(engine, pane->bucket);
	pane->bucket = NULL;
	engine->options.spill_counters->evictions++;
	sc_pane_make_directory(engine, pane, depth_for(engine, bytes));
}

/* The resident pane that takes most, or NULL. */
static ScPane *
largest_resident(const ScEngine *engine)
{
	ScPane	   *result = NULL;

	for (int i = 0; i < engine->npanes; i++)
	{
		ScPane	   *pane = engine->panes[i];

		if (pane->bucket != NULL &&
			(result == NULL || pane->bucket->bytes > result->bucket->bytes))
			result = pane;
	}
	return result;
}

/* Evicts buckets that have no changes, but those that were used since the last time, or all. */
static void
evict_unchanged(ScEngine *engine, Size goal, bool all)
{
	for (int i = 0; i < engine->npanes; i++)
	{
		ScPane	   *pane = engine->panes[i];

		for (uint32 n = 0; pane->bucket == NULL && n < sc_pane_nbuckets(pane); n++)
		{
			ScBucket   *bucket = pane->directory[n];

			if (bucket == NULL || sc_bucket_nchanged(bucket) > 0)
				continue;
			if (sc_engine_memory(engine) <= goal)
				return;
			if (all || !bucket->used)
				evict(engine, pane, n);
			else
				bucket->used = false;
		}
	}
}

/* Buckets of panes that have grown since their directory was made would be too large. */
static void
renew_directory(ScEngine *engine, ScPane *pane)
{
	int			depth = depth_for(engine, (double) pane->live_bytes * MEMORY_OF_STORED);

	if (depth <= pane->depth + 1)
		return;
	for (uint32 i = 0; i < sc_pane_nbuckets(pane); i++)
	{
		if (pane->directory[i] != NULL)
			return;
	}
	sc_pane_make_directory(engine, pane, depth);
}

/* Writes what has changed of all spilled panes, and evicts. */
static void
shrink_spilled(ScEngine *engine, Size goal)
{
	for (int i = 0; i < engine->npanes; i++)
	{
		if (engine->panes[i]->bucket == NULL)
			sc_spilled_write(engine, engine->panes[i]);
	}
	evict_unchanged(engine, goal, false);
	evict_unchanged(engine, goal, true);
	for (int i = 0; i < engine->npanes; i++)
	{
		if (engine->panes[i]->bucket == NULL)
			renew_directory(engine, engine->panes[i]);
	}
}

void
sc_engine_shrink(ScEngine *engine, Size goal)
{
	ScPane	   *pane;

	if (!sc_engine_can_spill(engine))
		return;
	engine->running = true;
	if (engine->at != NULL)
		sc_bucket_account(engine, engine->at);
	shrink_spilled(engine, goal);
	while (sc_engine_memory(engine) > goal && (pane = largest_resident(engine)) != NULL)
		spill(engine, pane);
	/* rows may go on in a pane that isn't in one bucket any more */
	engine->at = engine->current != NULL ? engine->current->bucket : NULL;
	engine->running = false;
}
