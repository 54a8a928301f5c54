/*-------------------------------------------------------------------------
 * bucket.c
 *	  Buckets: groups of one pane in fixed-size records, and a hash of their numbers.  Which of them changed:
 *	  changes.c; what they take: bucket_memory.c.
 *
 * Records lie in blocks of a power of two of records; only the first block of a
 * small bucket is ever moved, so code outside holds a group's address no
 * longer than until the next sc_bucket_lookup.  The hash is open addressing
 * with linear probing; a deleted group (timed.h) leaves a mark there until the next one is made.  A
 * bucket is freed in one stroke.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/timed.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#define FIRST_BLOCK_GROUPS	8
#define FIRST_CELLS			16
#define MAX_GROUPS			(UINT32_C(1) << 30)

static void
allocate_cells(ScBucket *bucket, uint32 n)
{
	bucket->cells = MemoryContextAllocExtended(bucket->context, n * sizeof(ScCell),
											   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	bucket->cell_mask = n - 1;
	bucket->cell_shift = 32 - pg_leftmost_one_pos32(n);
	bucket->grow_at = n - n / 4;
	bucket->nused = bucket->ndeleted = 0;
	bucket->cells_made++;
}

/*
 * What aggregates take for their group's lifetime is the pane's.  Callbacks
 * that they register are kept in the engine's context and run before the
 * pane is freed.
 */
static ExprContext *
make_aggcontext(ScEngine *engine, MemoryContext context)
{
	ExprContext *econtext = makeNode(ExprContext);

	econtext->ecxt_per_query_memory = engine->context;
	econtext->ecxt_per_tuple_memory = context;
	return econtext;
}

/* A bucket of the pane without groups; it belongs to the caller. */
ScBucket *
sc_bucket_create(ScEngine *engine, ScPane *pane)
{
	MemoryContext old = MemoryContextSwitchTo(engine->context);
	ScBucket   *bucket = palloc0(sizeof(ScBucket));

	bucket->pane = pane;
	bucket->context = AllocSetContextCreate(engine->context, "stream_ckpt bucket",
											0, 1024, ALLOCSET_DEFAULT_MAXSIZE);
	bucket->aggcontext = make_aggcontext(engine, bucket->context);
	bucket->all_changed = true;
	bucket->mark = SC_GROUP_CHANGED;
	allocate_cells(bucket, FIRST_CELLS);
	if (engine->timed)
		sc_timed_renew(engine, bucket);
	sc_bucket_account(engine, bucket);
	MemoryContextSwitchTo(old);
	return bucket;
}

/* Frees it with its groups. */
void
sc_bucket_free(ScEngine *engine, ScBucket *bucket)
{
	if (engine->at == bucket)
		engine->at = NULL;
	engine->ngroups -= bucket->ngroups - bucket->ngone;
	engine->buckets_bytes -= bucket->bytes;
	ReScanExprContext(bucket->aggcontext);	/* runs aggregates' callbacks */
	MemoryContextDelete(bucket->context);
	pfree(bucket->aggcontext);
	pfree(bucket);
}

static inline uint32
cell_of(const ScBucket *bucket, uint32 hash)
{
	/*
	 * The upper bits of a product, because a task that owns a range of key
	 * groups only has hashes whose upper bits are in that range.
	 */
	return (hash * UINT32_C(0x9E3779B1)) >> bucket->cell_shift;
}

/* What the place in the table comes from.  Sessions of one key have one position, and are anywhere. */
static inline uint32
spread(const ScEngine *engine, uint32 position, int64 session_id)
{
	return engine->sessions ? position ^ (uint32) (((uint64) session_id * UINT64CONST(0x9E3779B97F4A7C15)) >> 32) :
		position;
}

/* The same of a group that has a cell. */
static inline uint32
spread_of(const ScEngine *engine, const ScBucket *bucket, const ScCell *cell)
{
	if (!engine->sessions)
		return cell->hash;
	return spread(engine, cell->hash,
				  sc_group_times(engine, sc_bucket_group(engine, bucket, cell->number - 1))->id);
}

/* Puts the "n" cells of another table into the bucket's, which is empty and has room for them. */
static void
place_cells(ScEngine *engine, ScBucket *bucket, const ScCell *cells, uint32 n)
{
	for (uint32 i = 0; i < n; i++)
	{
		uint32		to;

		if (cells[i].number == 0 || cells[i].number == SC_CELL_DELETED)
			continue;
		to = cell_of(bucket, spread_of(engine, bucket, &cells[i]));
		while (bucket->cells[to].number != 0)
			to = (to + 1) & bucket->cell_mask;
		bucket->cells[to] = cells[i];
		bucket->nused++;
	}
}

/*
 * Doubles the table, if that isn't full of what was deleted.  Fails if there can't be more groups; groups stay in their
 * places.
 */
static void
grow_cells(ScEngine *engine, ScBucket *bucket)
{
	ScCell   *old = bucket->cells;
	uint32		nold = bucket->cell_mask + 1;
	uint32		nlive = bucket->nused - bucket->ndeleted;

	if (nold >= MAX_GROUPS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many groups in one window of a continuous query")));

	allocate_cells(bucket, nlive < nold / 2 ? nold : nold * 2);
	place_cells(engine, bucket, old, nold);
	pfree(old);
}

/* Makes room for one more record. */
static void
grow_blocks(ScEngine *engine, ScBucket *bucket)
{
	uint32		full_block = 1U << engine->block_shift;
	uint32		n = bucket->ngroups;

	if (n < full_block)
	{
		/* the first block grows up to its full size */
		uint32		size = n == 0 ? Min(FIRST_BLOCK_GROUPS, full_block) : Min(n * 2, full_block);

		if (n == 0)
		{
			bucket->blocks = MemoryContextAlloc(bucket->context, sizeof(char *));
			bucket->max_blocks = bucket->nblocks = 1;
			bucket->blocks[0] = MemoryContextAlloc(bucket->context, size * engine->record_size);
		}
		else
			bucket->blocks[0] = repalloc(bucket->blocks[0], size * engine->record_size);
		bucket->block0_size = size;
		return;
	}
	if (bucket->nblocks == bucket->max_blocks)
	{
		bucket->max_blocks *= 2;
		bucket->blocks = repalloc_huge(bucket->blocks, bucket->max_blocks * sizeof(char *));
	}
	bucket->blocks[bucket->nblocks++] = MemoryContextAlloc(bucket->context,
													   full_block * engine->record_size);
}

/* A record for a new group, and its number: one that isn't used any more, if there is one. */
static ScGroup *
take_number(ScEngine *engine, ScBucket *bucket, uint32 *number)
{
	ScGroup    *group;
	uint8		listed = 0;

	if (unlikely(bucket->nfree > 0))
	{
		*number = bucket->free[--bucket->nfree];
		bucket->ngone--;
		group = sc_bucket_group(engine, bucket, *number);
		/* its number stays in the list of changes */
		listed = group->flags & SC_GROUP_LISTED;
	}
	else
	{
		*number = bucket->ngroups;
		if (*number == (bucket->nblocks <= 1 ? bucket->block0_size :
						bucket->nblocks << engine->block_shift))
			grow_blocks(engine, bucket);
		bucket->ngroups++;
		group = sc_bucket_group(engine, bucket, *number);
	}
	memset(group, 0, engine->keys_offset);
	group->flags = listed;
	engine->ngroups++;
	return group;
}

/* A new group with the keys in engine->key_values. */
static ScGroup *
add_group(ScEngine *engine, ScBucket *bucket, uint32 *number)
{
	MemoryContext old;
	ScGroup    *group = take_number(engine, bucket, number);
	Datum	   *keys;

	keys = sc_group_keys(engine, group);
	old = MemoryContextSwitchTo(bucket->context);
	for (int i = 0; i < engine->nkeys; i++)
	{
		group->nulls[i] = engine->key_nulls[i];
		keys[i] = engine->key_nulls[i] ? (Datum) 0 :
			sc_datum_keep(engine->key_values[i], &engine->keys[i].type);
	}
	MemoryContextSwitchTo(old);
	return group;
}

/* Of a new group, or one that comes back: it has no rows yet. */
static void
init_times(ScEngine *engine, ScGroup *group, uint32 position, bool stored)
{
	ScTimes    *times = sc_group_times(engine, group);

	times->last = engine->row_time;
	times->queued = PG_INT64_MAX;
	times->position = position;
	times->life = SC_LIVE;
	times->stored = stored;
	times->indexed = times->closed = times->over = times->loose = false;
	if (engine->sessions)
		times->start = times->last = times->id = engine->session_id;
	else
		group->flags |= SC_GROUP_EMITTED;	/* the result may have a row of an earlier one */
}

/* Of a new group: as the initial conditions say, without inputs. */
static void
init_states(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	Datum	   *states = sc_group_states(engine, group);
	uint8	   *flags = sc_group_state_flags(engine, group);

	sc_group_clear_rows(engine, group);
	for (int t = 0; t < engine->ntrans; t++)
	{
		if (engine->trans[t].keeps)
		{
			states[t] = (Datum) 0;
			flags[t] = SC_STATE_INPUTS;
		}
		else
			sc_state_init(&engine->trans[t], bucket->context, &states[t], &flags[t]);
	}
}

/*
 * A new group with the keys in engine->key_values, which sc_bucket_lookup doesn't find
 * before sc_bucket_regroup.
 */
ScGroup *
sc_bucket_append(ScEngine *engine, ScBucket *bucket, uint32 *number)
{
	ScGroup    *group = add_group(engine, bucket, number);

	init_states(engine, bucket, group);
	if (engine->timed)
		init_times(engine, group, 0, false);
	return group;
}

/* Is the cell, whose hash is the right one, that of the keys at hand, and of the session? */
static inline bool
is_found(ScEngine *engine, ScBucket *bucket, const ScCell *cell)
{
	const ScGroup *group;

	if (unlikely(cell->number == SC_CELL_DELETED))
		return false;
	group = sc_bucket_group(engine, bucket, cell->number - 1);
	return sc_keys_equal(engine, group) &&
		(!engine->sessions || sc_group_times(engine, group)->id == engine->session_id);
}

/* A group that was deleted and is known begins anew, as if there had been none. */
static void
revive(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 hash)
{
	if (engine->retracts)
		sc_group_returns(engine, bucket, group);
	init_states(engine, bucket, group);
	init_times(engine, group, hash, sc_group_times(engine, group)->stored);
	bucket->ngone--;
	engine->ngroups++;
}

/* Into the first empty cell that is met. */
static void
put_cell(ScEngine *engine, ScBucket *bucket, uint32 hash, uint32 number)
{
	uint32		at = cell_of(bucket, spread(engine, hash, engine->session_id));

	while (bucket->cells[at].number != 0)
		at = (at + 1) & bucket->cell_mask;
	bucket->cells[at].hash = hash;
	bucket->cells[at].number = number + 1;
	bucket->nused++;
}

/* As if it had no rows, and no initial conditions. */
static void
clear_states(ScEngine *engine, ScGroup *group)
{
	sc_group_clear_rows(engine, group);
	memset(sc_group_states(engine, group), 0, sizeof(Datum) * engine->ntrans);
	memset(sc_group_state_flags(engine, group), SC_STATE_NULL | SC_STATE_UNSET, engine->ntrans);
}

/*
 * The group of the keys in engine->key_values, whose hash is "hash"; a new one
 * where there is none, "bare" without values of states.  Marks it as changed.  The current context is a short
 * one (comparing may allocate).
 */
static pg_attribute_always_inline ScGroup *
lookup(ScEngine *engine, ScBucket *bucket, uint32 hash, bool bare, bool *isnew)
{
	uint32		at = cell_of(bucket, spread(engine, hash, engine->session_id));
	ScGroup    *group;
	uint32		number;

	*isnew = false;
	while (bucket->cells[at].number != 0)
	{
		if (bucket->cells[at].hash == hash && is_found(engine, bucket, &bucket->cells[at]))
		{
			number = bucket->cells[at].number - 1;
			group = sc_bucket_group(engine, bucket, number);
			if (!(group->flags & bucket->mark))
				sc_group_changed(engine, bucket, group, number);
			if (unlikely(!sc_group_is_live(engine, group)))
			{
				revive(engine, bucket, group, hash);
				engine->new_number = number;
				*isnew = true;
			}
			return group;
		}
		at = (at + 1) & bucket->cell_mask;
	}

	if (bucket->nused >= bucket->grow_at)
		grow_cells(engine, bucket);
	group = add_group(engine, bucket, &number);
	if (bare)
		clear_states(engine, group);
	else
		init_states(engine, bucket, group);
	if (unlikely(bucket->partial))
		group->flags |= SC_GROUP_DELTA;
	if (unlikely(engine->timed))
		init_times(engine, group, hash, false);
	put_cell(engine, bucket, hash, number);
	sc_group_changed(engine, bucket, group, number);
	engine->new_number = number;
	*isnew = true;
	return group;
}

ScGroup *
sc_bucket_lookup(ScEngine *engine, ScBucket *bucket, uint32 hash, bool *isnew)
{
	return lookup(engine, bucket, hash, false, isnew);
}

ScGroup *
sc_bucket_lookup_bare(ScEngine *engine, ScBucket *bucket, uint32 hash, bool *isnew)
{
	return lookup(engine, bucket, hash, true, isnew);
}

/* Empty cells with room for "n" groups. */
static void
renew_cells(ScBucket *bucket, uint32 n)
{
	uint32		size = FIRST_CELLS;

	while (size - size / 4 <= n)
		size *= 2;
	pfree(bucket->cells);
	allocate_cells(bucket, size);
}

/* The cell of a group whose keys equal those in engine->key_values, or the empty one behind. */
static ScCell *
find_cell(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	uint32		at = cell_of(bucket, spread(engine, hash, engine->session_id));

	for (;; at = (at + 1) & bucket->cell_mask)
	{
		ScCell   *cell = &bucket->cells[at];

		if (cell->number == 0 || (cell->hash == hash && is_found(engine, bucket, cell)))
			return cell;
	}
}

/* The cell of a group that has one. */
static ScCell *
cell_of_group(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	const ScTimes *times = sc_group_times(engine, sc_bucket_group(engine, bucket, number));
	uint32		at = cell_of(bucket, spread(engine, times->position, engine->sessions ? times->id : 0));

	while (bucket->cells[at].number != number + 1)
	{
		if (bucket->cells[at].number == 0)
			elog(ERROR, "group not found in its pane");
		at = (at + 1) & bucket->cell_mask;
	}
	return &bucket->cells[at];
}

void
sc_bucket_remove_cell(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	cell_of_group(engine, bucket, number)->number = SC_CELL_DELETED;
	bucket->ndeleted++;
}

bool
sc_bucket_find_number(ScEngine *engine, ScBucket *bucket, uint32 hash, uint32 *number)
{
	const ScCell *cell = find_cell(engine, bucket, hash);

	*number = cell->number - 1;
	return cell->number != 0;
}

ScGroup *
sc_bucket_find(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	uint32		number;

	return sc_bucket_find_number(engine, bucket, hash, &number) ? sc_bucket_group(engine, bucket, number) : NULL;
}

/* "other" is a closed session; so is "group", or it was deleted, or stays as it is. */
static void
unite_closed(ScEngine *engine, ScGroup *group, ScGroup *other)
{
	ScTimes    *times = sc_group_times(engine, group);

	if (times->life != SC_LIVE)
		memcpy(group, other, engine->record_size);
	else if (times->closed)
	{
		times->start = Min(times->start, sc_group_times(engine, other)->start);
		times->last = Max(times->last, sc_group_times(engine, other)->last);
	}
}

/* Two groups that have become equal: one that was deleted, or is closed, has no states. */
static void
unite(ScEngine *engine, ScBucket *bucket, ScGroup *group, ScGroup *other)
{
	if (!sc_group_has_states(engine, other))
	{
		/* of two closed sessions of one id both are part of the one */
		if (engine->sessions && sc_group_times(engine, other)->life == SC_LIVE)
			unite_closed(engine, group, other);
		return;
	}
	if (sc_group_has_states(engine, group))
		sc_group_combine(engine, bucket, group, other);
	else
		memcpy(group, other, engine->record_size);
}

/*
 * Hashes all groups again, by the functions that the keys' types have now.  Those that have
 * become equal are combined: their pane is written whole, as older chunks hold
 * them apart.  Groups get other numbers then: there must be no list of changes.  An
 * error leaves the pane unusable.
 */
void
sc_bucket_regroup(ScEngine *engine, ScBucket *bucket)
{
	MemoryContext context = engine->tmpcontext->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(context);
	uint32		n = 0;

	Assert(bucket->nchanged == 0 && bucket->snapshot == NULL && !engine->loading);
	renew_cells(bucket, bucket->ngroups);
	for (uint32 i = 0; i < bucket->ngroups; i++)
	{
		ScGroup    *group = sc_bucket_group(engine, bucket, i);
		ScCell   *cell;
		uint32		hash;

		if (sc_group_is_free(engine, group))
			continue;
		hash = sc_keys_hash_of(engine, group);
		if (engine->timed)
			sc_group_times(engine, group)->position = hash;
		cell = find_cell(engine, bucket, hash);
		if (cell->number != 0)
			unite(engine, bucket, sc_bucket_group(engine, bucket, cell->number - 1), group);
		else
		{
			if (n != i)
				memcpy(sc_bucket_group(engine, bucket, n), group, engine->record_size);
			cell->hash = hash;
			cell->number = ++n;
			bucket->nused++;
		}
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	engine->ngroups -= bucket->ngroups - bucket->ngone;
	if (n < bucket->ngroups - bucket->nfree)
		bucket->all_changed = bucket->pane->whole = true;
	bucket->ngroups = n;
	bucket->ngone = bucket->nfree = 0;
	for (uint32 i = 0; engine->timed && i < n; i++)
		bucket->ngone += !sc_group_is_live(engine, sc_bucket_group(engine, bucket, i));
	engine->ngroups += n - bucket->ngone;
}

/*
 * After several groups were removed, by sc_bucket_remove_last from the last one on: others may have been found through
 * them, if the cells grew in between.
 */
void
sc_bucket_place_again(ScEngine *engine, ScBucket *bucket)
{
	ScCell	   *old = bucket->cells;
	uint32		size = bucket->cell_mask + 1;

	allocate_cells(bucket, size);
	place_cells(engine, bucket, old, size);
	pfree(old);
}

/*
 * Removes the last group, with this hash, which the current row has made; groups aren't timed.  If it made others, too,
 * their cells may be in its probe sequence in any order.  By-reference keys stay until the pane is freed.
 */
void
sc_bucket_remove_last(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	uint32		at = cell_of(bucket, hash);
	ScGroup    *group = sc_bucket_group(engine, bucket, bucket->ngroups - 1);

	for (uint32 probes = 0; bucket->cells[at].number != bucket->ngroups; probes++)
	{
		if (probes > bucket->cell_mask)
			elog(ERROR, "group not found in its pane");
		at = (at + 1) & bucket->cell_mask;
	}
	bucket->cells[at].number = 0;
	if ((group->flags & SC_GROUP_LISTED) && !bucket->all_changed)
		sc_bucket_unlist_changed(bucket, bucket->ngroups - 1);
	bucket->nused--;
	bucket->ngroups--;
	engine->ngroups--;
}
