/*-------------------------------------------------------------------------
 * pane.c
 *	  Panes: the groups of one window in fixed-size records, a hash of their
 *	  numbers, and the list of those that changed.
 *
 * Records lie in blocks of a power of two of records; only the first block of a
 * small pane is ever moved, so code outside holds a group's address no
 * longer than until the next sc_pane_lookup.  The hash is open addressing
 * with linear probing; nothing is ever deleted from it (sc_pane_regroup makes a new
 * one).  A pane is freed in one stroke.
 *
 * The array of panes is sorted by key, and so by the ends of their windows (window/assigner.h):
 * those to close are its head.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#define FIRST_BLOCK_GROUPS	8
#define FIRST_BUCKETS		16
#define MAX_GROUPS			(UINT32_C(1) << 30)

/* child contexts are counted again after so many bytes of rows, or so many for each child */
#define COUNT_BYTES			((Size) 1024 * 1024)
#define COUNT_CHILD_BYTES	64

/* Position of the pane of "key", or where it would be inserted. */
static int
pane_position(const ScEngine *engine, int64 key)
{
	int			low = 0;
	int			high = engine->npanes;

	/* mostly it is the last one, or after it */
	if (high > 0 && engine->panes[high - 1]->key < key)
		return high;
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (engine->panes[middle]->key < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The open pane of "key", or NULL. */
ScPane *
sc_pane_find(ScEngine *engine, int64 key)
{
	int			i = pane_position(engine, key);

	if (i < engine->npanes && engine->panes[i]->key == key)
		return engine->panes[i];
	return NULL;
}

/* Into the sorted array; no pane of that key may be there. */
static void
insert_pane(ScEngine *engine, ScPane *pane)
{
	int			i = pane_position(engine, pane->key);

	if (engine->npanes == engine->max_panes)
	{
		int			max = Max(engine->max_panes * 2, 16);
		Size		size = max * sizeof(ScPane *);

		if (engine->panes == NULL)
			engine->panes = MemoryContextAlloc(engine->context, size);
		else
			engine->panes = repalloc_huge(engine->panes, size);
		engine->max_panes = max;
	}
	memmove(&engine->panes[i + 1], &engine->panes[i],
			(engine->npanes - i) * sizeof(ScPane *));
	engine->panes[i] = pane;
	engine->npanes++;
}

static void
allocate_buckets(ScPane *pane, uint32 n)
{
	pane->buckets = MemoryContextAllocExtended(pane->context, n * sizeof(ScBucket),
											   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	pane->bucket_mask = n - 1;
	pane->bucket_shift = 32 - pg_leftmost_one_pos32(n);
	pane->grow_at = n - n / 4;
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

/*
 * Opens a pane without groups.  One whose window's end the watermark has
 * passed already (a row within the allowed lateness, or a restored state) counts
 * as emitted.
 */
ScPane *
sc_pane_open(ScEngine *engine, int64 key)
{
	MemoryContext old = MemoryContextSwitchTo(engine->context);
	ScPane	   *pane = palloc0(sizeof(ScPane));

	pane->key = key;
	pane->window = sc_assigner_first_window(&engine->def->window, key);
	pane->context = AllocSetContextCreate(engine->context, "stream_ckpt pane",
										  0, 1024, ALLOCSET_DEFAULT_MAXSIZE);
	pane->aggcontext = make_aggcontext(engine, pane->context);
	pane->all_changed = true;
	pane->emitted = (engine->options.emit == SC_EMIT_CLOSE &&
					 pane->window.end <= engine->watermark);
	allocate_buckets(pane, FIRST_BUCKETS);
	insert_pane(engine, pane);
	sc_pane_account(engine, pane);
	MemoryContextSwitchTo(old);
	return pane;
}

static inline uint32
bucket_of(const ScPane *pane, uint32 hash)
{
	/*
	 * The upper bits of a product, because a task that owns a range of key
	 * groups only has hashes whose upper bits are in that range.
	 */
	return (hash * UINT32_C(0x9E3779B1)) >> pane->bucket_shift;
}

/* Doubles the table.  Fails if there can't be more groups; groups stay in their places. */
static void
grow_buckets(ScPane *pane)
{
	ScBucket   *old = pane->buckets;
	uint32		nold = pane->bucket_mask + 1;

	if (nold >= MAX_GROUPS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many groups in one window of a continuous query")));

	allocate_buckets(pane, nold * 2);
	for (uint32 i = 0; i < nold; i++)
	{
		uint32		to;

		if (old[i].number == 0)
			continue;
		to = bucket_of(pane, old[i].hash);
		while (pane->buckets[to].number != 0)
			to = (to + 1) & pane->bucket_mask;
		pane->buckets[to] = old[i];
	}
	pfree(old);
}

/* Makes room for one more record. */
static void
grow_blocks(ScEngine *engine, ScPane *pane)
{
	uint32		full_block = 1U << engine->block_shift;
	uint32		n = pane->ngroups;

	if (n < full_block)
	{
		/* the first block grows up to its full size */
		uint32		size = n == 0 ? Min(FIRST_BLOCK_GROUPS, full_block) : Min(n * 2, full_block);

		if (n == 0)
		{
			pane->blocks = MemoryContextAlloc(pane->context, sizeof(char *));
			pane->max_blocks = pane->nblocks = 1;
			pane->blocks[0] = MemoryContextAlloc(pane->context, size * engine->record_size);
		}
		else
			pane->blocks[0] = repalloc(pane->blocks[0], size * engine->record_size);
		pane->block0_size = size;
		return;
	}
	if (pane->nblocks == pane->max_blocks)
	{
		pane->max_blocks *= 2;
		pane->blocks = repalloc_huge(pane->blocks, pane->max_blocks * sizeof(char *));
	}
	pane->blocks[pane->nblocks++] = MemoryContextAlloc(pane->context,
													   full_block * engine->record_size);
}

/* A new group with the keys in engine->key_values. */
static ScGroup *
add_group(ScEngine *engine, ScPane *pane)
{
	uint32		number = pane->ngroups;
	MemoryContext old;
	ScGroup    *group;
	Datum	   *keys;

	if (number == (pane->nblocks <= 1 ? pane->block0_size :
				   pane->nblocks << engine->block_shift))
		grow_blocks(engine, pane);
	group = sc_pane_group(engine, pane, number);
	memset(group, 0, engine->keys_offset);

	keys = sc_group_keys(engine, group);
	old = MemoryContextSwitchTo(pane->context);
	for (int i = 0; i < engine->nkeys; i++)
	{
		group->nulls[i] = engine->key_nulls[i];
		keys[i] = engine->key_nulls[i] ? (Datum) 0 :
			sc_datum_keep(engine->key_values[i], &engine->keys[i].type);
	}
	MemoryContextSwitchTo(old);

	pane->ngroups++;
	engine->ngroups++;
	return group;
}

/* Of a new group: as the initial conditions say, without inputs. */
static void
init_states(ScEngine *engine, ScPane *pane, ScGroup *group)
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
			sc_state_init(&engine->trans[t], pane->context, &states[t], &flags[t]);
	}
}

/*
 * A new group with the keys in engine->key_values, which sc_pane_lookup doesn't find
 * before sc_pane_regroup.
 */
ScGroup *
sc_pane_append(ScEngine *engine, ScPane *pane)
{
	ScGroup    *group = add_group(engine, pane);

	init_states(engine, pane, group);
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
sc_pane_lookup(ScEngine *engine, ScPane *pane, uint32 hash, bool *isnew)
{
	uint32		at = bucket_of(pane, hash);
	ScGroup    *group;

	*isnew = false;
	while (pane->buckets[at].number != 0)
	{
		if (pane->buckets[at].hash == hash)
		{
			uint32		number = pane->buckets[at].number - 1;

			group = sc_pane_group(engine, pane, number);
			if (keys_equal(engine, group))
			{
				if (!(group->flags & SC_GROUP_CHANGED))
					sc_group_changed(engine, pane, group, number);
				return group;
			}
		}
		at = (at + 1) & pane->bucket_mask;
	}

	if (pane->ngroups >= pane->grow_at)
	{
		grow_buckets(pane);
		at = bucket_of(pane, hash);
		while (pane->buckets[at].number != 0)
			at = (at + 1) & pane->bucket_mask;
	}
	group = add_group(engine, pane);
	init_states(engine, pane, group);
	pane->buckets[at].hash = hash;
	pane->buckets[at].number = pane->ngroups;
	sc_group_changed(engine, pane, group, pane->ngroups - 1);
	*isnew = true;
	return group;
}

/* Empty buckets with room for "n" groups. */
static void
renew_buckets(ScPane *pane, uint32 n)
{
	uint32		size = FIRST_BUCKETS;

	while (size - size / 4 <= n)
		size *= 2;
	pfree(pane->buckets);
	allocate_buckets(pane, size);
}

/* The bucket of a group whose keys equal those in engine->key_values, or the empty one behind. */
static ScBucket *
find_bucket(ScEngine *engine, ScPane *pane, uint32 hash)
{
	uint32		at = bucket_of(pane, hash);

	for (;; at = (at + 1) & pane->bucket_mask)
	{
		ScBucket   *bucket = &pane->buckets[at];

		if (bucket->number == 0 ||
			(bucket->hash == hash &&
			 keys_equal(engine, sc_pane_group(engine, pane, bucket->number - 1))))
			return bucket;
	}
}

/*
 * Hashes all groups again, by the functions that the keys' types have now.  Those that have
 * become equal are combined: their pane is written whole, as older chunks hold
 * them apart.  Groups get other numbers then: there must be no list of changes.  An
 * error leaves the pane unusable.
 */
void
sc_pane_regroup(ScEngine *engine, ScPane *pane)
{
	MemoryContext context = engine->tmpcontext->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(context);
	uint32		n = 0;

	Assert(pane->nchanged == 0 && !engine->loading);
	renew_buckets(pane, pane->ngroups);
	for (uint32 i = 0; i < pane->ngroups; i++)
	{
		ScGroup    *group = sc_pane_group(engine, pane, i);
		ScBucket   *bucket;
		uint32		hash;

		hash = sc_keys_hash_of(engine, group);
		bucket = find_bucket(engine, pane, hash);
		if (bucket->number != 0)
			sc_group_combine(engine, pane,
							 sc_pane_group(engine, pane, bucket->number - 1), group);
		else
		{
			if (n != i)
				memcpy(sc_pane_group(engine, pane, n), group, engine->record_size);
			bucket->hash = hash;
			bucket->number = ++n;
		}
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	engine->ngroups -= pane->ngroups - n;
	if (n < pane->ngroups)
		pane->all_changed = pane->whole = true;
	pane->ngroups = n;
}

/*
 * Removes the group that the last sc_pane_lookup made, with this hash.  Its
 * bucket ended its probe sequence, and nothing was added since: no other group
 * is found through it.  By-reference keys stay until the pane is freed.
 */
void
sc_pane_remove_last(ScEngine *engine, ScPane *pane, uint32 hash)
{
	uint32		at = bucket_of(pane, hash);
	ScGroup    *group = sc_pane_group(engine, pane, pane->ngroups - 1);

	while (pane->buckets[at].number != pane->ngroups)
	{
		if (pane->buckets[at].number == 0)
			elog(ERROR, "group not found in its pane");
		at = (at + 1) & pane->bucket_mask;
	}
	pane->buckets[at].number = 0;
	if ((group->flags & SC_GROUP_LISTED) && !pane->all_changed)
		pane->nchanged--;
	pane->ngroups--;
	engine->ngroups--;
}

/*
 * Marks a group, which isn't marked yet, as changed.  It may be in the list
 * already: what is emitted between two checkpoints is marked anew.
 */
void
sc_group_changed(ScEngine *engine, ScPane *pane, ScGroup *group, uint32 number)
{
	group->flags |= SC_GROUP_CHANGED;
	if (!pane->all_changed && !(group->flags & SC_GROUP_LISTED))
		sc_pane_list_changed(pane, group, number);
}

/* Puts a group into the pane's list of what the changelog has to write. */
void
sc_pane_list_changed(ScPane *pane, ScGroup *group, uint32 number)
{
	group->flags |= SC_GROUP_LISTED;
	if (pane->nchanged == pane->max_changed)
	{
		Size		max = Max((Size) pane->max_changed * 2, 16);

		if (pane->changed == NULL)
			pane->changed = MemoryContextAlloc(pane->context, max * sizeof(uint32));
		else
			pane->changed = repalloc_huge(pane->changed, max * sizeof(uint32));
		pane->max_changed = max;
	}
	pane->changed[pane->nchanged++] = number;
}

uint32
sc_pane_nchanged(const ScPane *pane)
{
	return pane->all_changed ? pane->ngroups : pane->nchanged;
}

/* Number of the i-th changed group. */
uint32
sc_pane_changed(const ScPane *pane, uint32 i)
{
	return pane->all_changed ? i : pane->changed[i];
}

/* Forgets all changes: they are in the changelog. */
void
sc_pane_unchanged(ScEngine *engine, ScPane *pane)
{
	uint32		n = sc_pane_nchanged(pane);

	for (uint32 i = 0; i < n; i++)
		sc_pane_group(engine, pane, sc_pane_changed(pane, i))->flags &=
			~(SC_GROUP_CHANGED | SC_GROUP_LISTED);
	pane->all_changed = false;
	pane->nchanged = 0;
}

/* Brings the engine's sum of memory up to date; cheap. */
void
sc_pane_account(ScEngine *engine, ScPane *pane)
{
	Size		bytes = sizeof(ScPane) + sizeof(ExprContext) +
		pane->context->mem_allocated + pane->child_bytes;

	engine->panes_bytes += bytes - pane->bytes;
	pane->bytes = bytes;
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
sc_pane_account_children(ScEngine *engine, ScPane *pane)
{
	pane->nchildren = 0;
	pane->child_bytes = children_bytes(pane->context, &pane->nchildren);
	pane->uncounted_rows = pane->uncounted_bytes = 0;
	sc_pane_account(engine, pane);
}

/*
 * The same after "rows" rows whose values took "bytes": child contexts are counted when there
 * were about as many rows, or bytes, so that it costs little for each row.
 */
void
sc_pane_account_rows(ScEngine *engine, ScPane *pane, int rows, Size bytes)
{
	pane->uncounted_rows += rows;
	pane->uncounted_bytes += bytes;
	if (pane->context->firstchild != NULL &&
		(pane->uncounted_rows > pane->nchildren ||
		 pane->uncounted_bytes > Max(COUNT_BYTES, pane->nchildren * COUNT_CHILD_BYTES)))
		sc_pane_account_children(engine, pane);
	else
		sc_pane_account(engine, pane);
}

/* The changelog has to drop the chunks of the pane of "key". */
void
sc_panes_remember_closed(ScEngine *engine, int64 key)
{
	if (engine->nclosed == engine->max_closed)
	{
		engine->max_closed = Max(engine->max_closed * 2, 16);
		if (engine->closed == NULL)
			engine->closed = MemoryContextAlloc(engine->context,
												engine->max_closed * sizeof(int64));
		else
			engine->closed = repalloc_huge(engine->closed,
										   engine->max_closed * sizeof(int64));
	}
	engine->closed[engine->nclosed++] = key;
}

static void
free_pane(ScEngine *engine, ScPane *pane)
{
	engine->ngroups -= pane->ngroups;
	engine->panes_bytes -= pane->bytes;
	engine->live_bytes -= pane->live_bytes;
	if (pane->live_bytes > 0)
		sc_panes_remember_closed(engine, pane->key);

	ReScanExprContext(pane->aggcontext);	/* runs aggregates' callbacks */
	MemoryContextDelete(pane->context);
	pfree(pane->aggcontext);
	pfree(pane);
}

/* Frees "n" panes from "first" on. */
void
sc_panes_close(ScEngine *engine, int first, int n)
{
	for (int i = first; i < first + n; i++)
	{
		if (engine->panes[i] == engine->current)
			engine->current = NULL;
		free_pane(engine, engine->panes[i]);
	}
	engine->npanes -= n;
	memmove(engine->panes + first, engine->panes + first + n,
			(engine->npanes - first) * sizeof(ScPane *));
}

/* Runs the callbacks that aggregates registered; the engine is about to be freed. */
void
sc_panes_shutdown(ScEngine *engine)
{
	for (int i = 0; i < engine->npanes; i++)
		ReScanExprContext(engine->panes[i]->aggcontext);
}
