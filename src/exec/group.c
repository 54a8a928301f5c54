/*-------------------------------------------------------------------------
 * group.c
 *	  The state layer's view of an engine (group.h); encode.c has the groups' bytes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "utils/memutils.h"

/* So many are sorted by comparing */
#define FEW_GROUPS	256
/* One in so many, or more, are looked for in the hash table */
#define MANY_GROUPS	8

/* ---------- the engine ---------- */

void
sc_engine_begin_write(ScEngine *engine)
{
	engine->running = true;
}

void
sc_engine_end_write(ScEngine *engine)
{
	engine->running = false;
}

void
sc_engine_begin_load(ScEngine *engine)
{
	if (engine->npanes > 0)
		elog(ERROR, "state can be loaded into a fresh engine only");
	engine->running = true;
	/* two keys may have been written as different ones that are equal now: they are combined when all is read */
	engine->loading = engine->keys_can_change;
}

void
sc_engine_end_load(ScEngine *engine)
{
	engine->running = engine->loading = false;
}

uint32
sc_engine_signature(const ScEngine *engine, int version)
{
	return engine->signatures[version];
}

uint32
sc_engine_key_signature(const ScEngine *engine)
{
	return engine->key_signature;
}

void
sc_engine_key_groups(const ScEngine *engine, int *first, int *last)
{
	*first = engine->options.first_key_group;
	*last = engine->options.last_key_group;
}

ScPositions
sc_engine_positions(const ScEngine *engine)
{
	ScPositions result;

	result.first = (SC_POSITIONS >> SC_KEY_GROUP_BITS) * engine->options.first_key_group;
	result.end = (SC_POSITIONS >> SC_KEY_GROUP_BITS) * (engine->options.last_key_group + 1);
	return result;
}

bool
sc_engine_keys_can_move(const ScEngine *engine)
{
	return engine->keys_general;
}

MemoryContext
sc_engine_row_context(const ScEngine *engine)
{
	return engine->groupcontext;
}

int
sc_engine_kept_inputs(const ScEngine *engine)
{
	return engine->has_inputs ? engine->ntrans : 0;
}

ScPane *
sc_engine_pane(const ScEngine *engine, int i)
{
	return i < engine->npanes ? engine->panes[i] : NULL;
}

const int64 *
sc_engine_closed_panes(const ScEngine *engine, int *n)
{
	*n = engine->nclosed;
	return engine->closed;
}

void
sc_engine_forget_closed_panes(ScEngine *engine)
{
	engine->nclosed = 0;
}

int64
sc_engine_live_bytes(const ScEngine *engine)
{
	return engine->live_bytes;
}

/* ---------- panes ---------- */

int64
sc_pane_key(const ScPane *pane)
{
	return pane->key;
}

ScBucket *
sc_pane_bucket(const ScPane *pane)
{
	return pane->bucket;
}

uint32
sc_pane_nchanged(const ScPane *pane)
{
	uint32		result = 0;

	if (pane->bucket != NULL)
		return sc_bucket_nchanged(pane->bucket);
	for (uint32 i = 0; i < sc_pane_nbuckets(pane); i++)
	{
		if (pane->directory[i] != NULL)
			result += sc_bucket_nchanged(pane->directory[i]);
	}
	return result;
}

struct ScRuns *
sc_pane_runs(const ScPane *pane)
{
	return pane->runs;
}

void
sc_pane_set_runs(ScPane *pane, struct ScRuns *runs)
{
	pane->runs = runs;
}

void
sc_pane_set_stored_groups(ScEngine *engine, ScPane *pane, int64 n)
{
	engine->stored_groups += n - pane->stored_groups;
	pane->stored_groups = n;
}

bool
sc_pane_is_whole(const ScPane *pane)
{
	return pane->whole;
}

ScSweep *
sc_pane_sweep(ScPane *pane)
{
	return &pane->sweep;
}

int64
sc_pane_live_bytes(const ScPane *pane)
{
	return pane->live_bytes;
}

void
sc_pane_set_live_bytes(ScEngine *engine, ScPane *pane, int64 bytes)
{
	engine->live_bytes += bytes - pane->live_bytes;
	pane->live_bytes = bytes;
}

int64
sc_pane_full_bytes(const ScPane *pane)
{
	return pane->bucket->ngroups * pane->entry_bytes + pane->bucket->inputs_bytes;
}

int64
sc_pane_entry_bytes(const ScPane *pane)
{
	return pane->entry_bytes;
}

void
sc_pane_set_entry_bytes(ScPane *pane, int64 bytes)
{
	pane->entry_bytes = bytes;
}

static int
compare_at(const void *a, const void *b)
{
	ScGroupAt	left = *(const ScGroupAt *) a;
	ScGroupAt	right = *(const ScGroupAt *) b;

	return left < right ? -1 : left > right;
}

/* Sorts by position: many of them by counting, a byte at a time. */
static void
sort_by_position(ScGroupAt *order, uint32 n)
{
	ScGroupAt  *from = order;
	ScGroupAt  *to;

	if (n < FEW_GROUPS)
	{
		qsort(order, n, sizeof(ScGroupAt), compare_at);
		return;
	}
	to = MemoryContextAllocHuge(CurrentMemoryContext, n * sizeof(ScGroupAt));
	for (int shift = 32; shift < 64; shift += 8)
	{
		uint32		next[257] = {0};
		ScGroupAt  *swap = from;

		for (uint32 i = 0; i < n; i++)
			next[((from[i] >> shift) & 0xFF) + 1]++;
		for (int byte = 1; byte < 256; byte++)
			next[byte] += next[byte - 1];
		for (uint32 i = 0; i < n; i++)
			to[next[(from[i] >> shift) & 0xFF]++] = from[i];
		from = to;
		to = swap;
	}
	/* after four passes it is "order" again */
	Assert(from == order);
	pfree(to);
}

/* What of a pane is to be written. */
typedef struct Order
{
	ScGroupAt  *groups;
	uint32		n;
	uint32		size;			/* allocated */
} Order;

static void
add_group_at(Order *order, uint32 position, uint32 number)
{
	if (order->n == order->size)
	{
		order->size *= 2;
		order->groups = repalloc_huge(order->groups, order->size * sizeof(ScGroupAt));
	}
	order->groups[order->n++] = ((ScGroupAt) position << 32) | number;
}

/* Adds the groups at these positions, or in the set of bits, as the hash table has them. */
static void
walk_groups(const ScBucket *bucket, ScPositions all, const uint8 *set, Order *order)
{
	for (uint32 i = 0; i <= bucket->cell_mask; i++)
	{
		uint32		position = bucket->cells[i].hash;
		uint32		number = bucket->cells[i].number;
		bool		in_range = (uint64) position - all.first < all.end - all.first;

		/* in this order, because few are in a range, and nobody can guess which places are empty */
		if (!in_range && set == NULL)
			continue;
		if (number-- > 0 && (in_range || (set[number / 8] & (1 << number % 8))))
			add_group_at(order, position, number);
	}
}

/* Adds the changed groups at other positions than these, by hashing them again. */
static void
hash_changed(ScEngine *engine, const ScBucket *bucket, ScPositions except, Order *order)
{
	for (uint32 i = 0; i < sc_bucket_nchanged(bucket); i++)
	{
		uint32		number = sc_bucket_changed(bucket, i);
		uint32		position = sc_keys_hash_of(engine, sc_bucket_group(engine, bucket, number));

		if (position < except.first || position >= except.end)
			add_group_at(order, position, number);
	}
}

/* The set of the changed groups' numbers, palloc'd. */
static uint8 *
changed_set(const ScBucket *bucket)
{
	uint8	   *set = MemoryContextAllocExtended(CurrentMemoryContext, bucket->ngroups / 8 + 1,
												 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

	for (uint32 i = 0; i < sc_bucket_nchanged(bucket); i++)
	{
		uint32		number = sc_bucket_changed(bucket, i);

		set[number / 8] |= 1 << number % 8;
	}
	return set;
}

/*
 * Groups don't hold their positions: they come from the hash table, or, if there are few changed groups
 * and that runs nobody's code, from hashing them again.
 */
ScGroupAt *
sc_bucket_begin_write(ScEngine *engine, ScBucket *bucket, ScPositions all, uint32 *n)
{
	uint32		nchanged = sc_bucket_nchanged(bucket);
	Order		order = {.size = Max(nchanged, FEW_GROUPS)};

	order.groups = MemoryContextAllocHuge(CurrentMemoryContext, order.size * sizeof(ScGroupAt));
	if (nchanged == bucket->ngroups)
		walk_groups(bucket, SC_ALL_POSITIONS, NULL, &order);
	else if (!engine->keys_general && nchanged < bucket->ngroups / MANY_GROUPS)
	{
		hash_changed(engine, bucket, all, &order);
		if (all.first < all.end)
			walk_groups(bucket, all, NULL, &order);
	}
	else
	{
		uint8	   *set = changed_set(bucket);

		walk_groups(bucket, all, set, &order);
		pfree(set);
	}
	sort_by_position(order.groups, order.n);
	engine->aggstate->curaggcontext = bucket->aggcontext;
	*n = order.n;
	return order.groups;
}

void
sc_bucket_prefetch(const ScEngine *engine, const ScBucket *bucket, uint32 number)
{
#ifdef __GNUC__
	__builtin_prefetch(sc_bucket_group(engine, bucket, number));
#endif
}

ScGroup *
sc_bucket_nth(const ScEngine *engine, const ScBucket *bucket, uint32 number)
{
	return sc_bucket_group(engine, bucket, number);
}

void
sc_pane_written(ScEngine *engine, ScPane *pane)
{
	pane->whole = false;
	sc_bucket_unchanged(engine, pane->bucket);
	sc_bucket_account_children(engine, pane->bucket);
}

ScPane *
sc_pane_begin_load(ScEngine *engine, int64 key)
{
	if (sc_pane_find(engine, key) != NULL)
		return NULL;
	return sc_pane_open(engine, key);
}

void
sc_pane_rewrite(ScPane *pane)
{
	pane->bucket->all_changed = pane->whole = true;
}
