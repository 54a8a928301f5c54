/*-------------------------------------------------------------------------
 * bucket.c
 *	  Buckets: groups of one pane in fixed-size records, a hash of their numbers, and the list of those
 *	  that changed.
 *
 * Records lie in blocks of a power of two of records; only the first block of a
 * small bucket is ever moved, so code outside holds a group's address no
 * longer than until the next sc_bucket_lookup.  The hash is open addressing
 * with linear probing; nothing is ever deleted from it (sc_bucket_regroup makes a new
 * one).  A bucket is freed in one stroke.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#define FIRST_BLOCK_GROUPS	8
#define FIRST_CELLS			16
#define MAX_GROUPS			(UINT32_C(1) << 30)

/* child contexts are counted again after so many bytes of rows, or so many for each child */
#define COUNT_BYTES			((Size) 1024 * 1024)
#define COUNT_CHILD_BYTES	64

static void
allocate_cells(ScBucket *bucket, uint32 n)
{
	bucket->cells = MemoryContextAllocExtended(bucket->context, n * sizeof(ScCell),
											   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	bucket->cell_mask = n - 1;
	bucket->cell_shift = 32 - pg_leftmost_one_pos32(n);
	bucket->grow_at = n - n / 4;
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
	engine->ngroups -= bucket->ngroups;
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

/* Doubles the table.  Fails if there can't be more groups; groups stay in their places. */
static void
grow_cells(ScBucket *bucket)
{
	ScCell   *old = bucket->cells;
	uint32		nold = bucket->cell_mask + 1;

	if (nold >= MAX_GROUPS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many groups in one window of a continuous query")));

	allocate_cells(bucket, nold * 2);
	for (uint32 i = 0; i < nold; i++)
	{
		uint32		to;

		if (old[i].number == 0)
			continue;
		to = cell_of(bucket, old[i].hash);
		while (bucket->cells[to].number != 0)
			to = (to + 1) & bucket->cell_mask;
		bucket->cells[to] = old[i];
	}
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

/* A new group with the keys in engine->key_values. */
static ScGroup *
add_group(ScEngine *engine, ScBucket *bucket)
{
	uint32		number = bucket->ngroups;
	MemoryContext old;
	ScGroup    *group;
	Datum	   *keys;

	if (number == (bucket->nblocks <= 1 ? bucket->block0_size :
				   bucket->nblocks << engine->block_shift))
		grow_blocks(engine, bucket);
	group = sc_bucket_group(engine, bucket, number);
	memset(group, 0, engine->keys_offset);

	keys = sc_group_keys(engine, group);
	old = MemoryContextSwitchTo(bucket->context);
	for (int i = 0; i < engine->nkeys; i++)
	{
		group->nulls[i] = engine->key_nulls[i];
		keys[i] = engine->key_nulls[i] ? (Datum) 0 :
			sc_datum_keep(engine->key_values[i], &engine->keys[i].type);
	}
	MemoryContextSwitchTo(old);

	bucket->ngroups++;
	engine->ngroups++;
	return group;
}

/* Of a new group: as the initial conditions say, without inputs. */
static void
init_states(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	Datum	   *states = sc_group_states(engine, group);
	uint8	   *flags = sc_group_state_flags(engine, group);

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
sc_bucket_append(ScEngine *engine, ScBucket *bucket)
{
	ScGroup    *group = add_group(engine, bucket);

	init_states(engine, bucket, group);
	return group;
}

/* Whether the group's keys are those of the row at hand (engine->key_values). */
static inline bool
keys_equal(ScEngine *engine, const ScGroup *group)
{
	const Datum *keys;

	if (!engine->keys_byval)
		return sc_keys_equal_general(engine, group);
	keys = sc_group_keys(engine, group);
	for (int i = 0; i < engine->nkeys; i++)
	{
		if (keys[i] != engine->key_values[i] || group->nulls[i] != engine->key_nulls[i])
			return false;
	}
	return true;
}

/*
 * The group of the keys in engine->key_values, whose hash is "hash"; a new one
 * where there is none.  Marks it as changed.  The current context is a short
 * one (comparing may allocate).
 */
ScGroup *
sc_bucket_lookup(ScEngine *engine, ScBucket *bucket, uint32 hash, bool *isnew)
{
	uint32		at = cell_of(bucket, hash);
	ScGroup    *group;

	*isnew = false;
	while (bucket->cells[at].number != 0)
	{
		if (bucket->cells[at].hash == hash)
		{
			uint32		number = bucket->cells[at].number - 1;

			group = sc_bucket_group(engine, bucket, number);
			if (keys_equal(engine, group))
			{
				if (!(group->flags & bucket->mark))
					sc_group_changed(engine, bucket, group, number);
				return group;
			}
		}
		at = (at + 1) & bucket->cell_mask;
	}

	if (bucket->ngroups >= bucket->grow_at)
	{
		grow_cells(bucket);
		at = cell_of(bucket, hash);
		while (bucket->cells[at].number != 0)
			at = (at + 1) & bucket->cell_mask;
	}
	group = add_group(engine, bucket);
	init_states(engine, bucket, group);
	if (unlikely(bucket->partial))
		group->flags |= SC_GROUP_DELTA;
	bucket->cells[at].hash = hash;
	bucket->cells[at].number = bucket->ngroups;
	sc_group_changed(engine, bucket, group, bucket->ngroups - 1);
	*isnew = true;
	return group;
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
	uint32		at = cell_of(bucket, hash);

	for (;; at = (at + 1) & bucket->cell_mask)
	{
		ScCell   *cell = &bucket->cells[at];

		if (cell->number == 0 ||
			(cell->hash == hash &&
			 keys_equal(engine, sc_bucket_group(engine, bucket, cell->number - 1))))
			return cell;
	}
}

ScGroup *
sc_bucket_find(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	const ScCell *cell = find_cell(engine, bucket, hash);

	return cell->number == 0 ? NULL : sc_bucket_group(engine, bucket, cell->number - 1);
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

		hash = sc_keys_hash_of(engine, group);
		cell = find_cell(engine, bucket, hash);
		if (cell->number != 0)
			sc_group_combine(engine, bucket,
							 sc_bucket_group(engine, bucket, cell->number - 1), group);
		else
		{
			if (n != i)
				memcpy(sc_bucket_group(engine, bucket, n), group, engine->record_size);
			cell->hash = hash;
			cell->number = ++n;
		}
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	engine->ngroups -= bucket->ngroups - n;
	if (n < bucket->ngroups)
		bucket->all_changed = bucket->pane->whole = true;
	bucket->ngroups = n;
}

/*
 * Removes the group that the last sc_bucket_lookup made, with this hash.  Its
 * cell ended its probe sequence, and nothing was added since: no other group
 * is found through it.  By-reference keys stay until the pane is freed.
 */
void
sc_bucket_remove_last(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	uint32		at = cell_of(bucket, hash);
	ScGroup    *group = sc_bucket_group(engine, bucket, bucket->ngroups - 1);

	while (bucket->cells[at].number != bucket->ngroups)
	{
		if (bucket->cells[at].number == 0)
			elog(ERROR, "group not found in its pane");
		at = (at + 1) & bucket->cell_mask;
	}
	bucket->cells[at].number = 0;
	if ((group->flags & SC_GROUP_LISTED) && !bucket->all_changed)
		bucket->nchanged--;
	bucket->ngroups--;
	engine->ngroups--;
}

/*
 * Marks a group, which isn't marked yet, as changed.  It may be in the list
 * already: what is emitted between two checkpoints is marked anew.
 */
void
sc_group_changed(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number)
{
	if (unlikely(bucket->snapshot != NULL))
		sc_bucket_snapshot_touch(bucket->snapshot, group, number);
	group->flags |= bucket->mark;
	if (!bucket->all_changed && !(group->flags & SC_GROUP_LISTED))
		sc_bucket_list_changed(bucket, group, number);
}

/* Puts a group into the pane's list of what the changelog has to write. */
void
sc_bucket_list_changed(ScBucket *bucket, ScGroup *group, uint32 number)
{
	group->flags |= SC_GROUP_LISTED;
	if (bucket->nchanged == bucket->max_changed)
	{
		Size		max = Max((Size) bucket->max_changed * 2, 16);

		if (bucket->changed == NULL)
			bucket->changed = MemoryContextAlloc(bucket->context, max * sizeof(uint32));
		else
			bucket->changed = repalloc_huge(bucket->changed, max * sizeof(uint32));
		bucket->max_changed = max;
	}
	bucket->changed[bucket->nchanged++] = number;
}

uint32
sc_bucket_nchanged(const ScBucket *bucket)
{
	return bucket->all_changed ? bucket->ngroups : bucket->nchanged;
}

/* Number of the i-th changed group. */
uint32
sc_bucket_changed(const ScBucket *bucket, uint32 i)
{
	return bucket->all_changed ? i : bucket->changed[i];
}

/* Forgets all changes: they are in the changelog. */
void
sc_bucket_unchanged(ScEngine *engine, ScBucket *bucket)
{
	uint32		n = sc_bucket_nchanged(bucket);

	for (uint32 i = 0; i < n; i++)
		sc_bucket_group(engine, bucket, sc_bucket_changed(bucket, i))->flags &=
			~(bucket->mark | SC_GROUP_LISTED);
	bucket->all_changed = false;
	bucket->nchanged = 0;
}

/* Brings the engine's sum of memory up to date; cheap. */
void
sc_bucket_account(ScEngine *engine, ScBucket *bucket)
{
	Size		bytes = sizeof(ScBucket) + sizeof(ExprContext) +
		bucket->context->mem_allocated + bucket->child_bytes;

	engine->buckets_bytes += bytes - bucket->bytes;
	bucket->bytes = bytes;
}

/* Bytes of a context's children, theirs included; their number is added to *n. */
static Size
children_bytes(MemoryContext context, Size *n)
{
	Size		bytes = 0;

	for (MemoryContext child = context->firstchild; child != NULL; child = child->nextchild)
	{
		++*n;
		bytes += child->mem_allocated + children_bytes(child, n);
	}
	return bytes;
}

/* The same with child contexts counted again: costs a step for each of them. */
void
sc_bucket_account_children(ScEngine *engine, ScBucket *bucket)
{
	bucket->nchildren = 0;
	bucket->child_bytes = children_bytes(bucket->context, &bucket->nchildren);
	bucket->uncounted_rows = bucket->uncounted_bytes = 0;
	sc_bucket_account(engine, bucket);
}

/*
 * The same after "rows" rows whose values took "bytes": child contexts are counted when there
 * were about as many rows, or bytes, so that it costs little for each row.
 */
void
sc_bucket_account_rows(ScEngine *engine, ScBucket *bucket, int rows, Size bytes)
{
	bucket->uncounted_rows += rows;
	bucket->uncounted_bytes += bytes;
	if (bucket->context->firstchild != NULL &&
		(bucket->uncounted_rows > bucket->nchildren ||
		 bucket->uncounted_bytes > Max(COUNT_BYTES, bucket->nchildren * COUNT_CHILD_BYTES)))
		sc_bucket_account_children(engine, bucket);
	else
		sc_bucket_account(engine, bucket);
}
