/*-------------------------------------------------------------------------
 * pane.c
 *	  Partitions: the groups of one window in fixed-size records, a hash of their
 *	  numbers, and the list of those that changed.
 *
 * Records lie in blocks of a power of two of records; only the first block of a
 * small partition is ever moved, so code outside holds a group's address no
 * longer than until the next sc_partition_lookup.  The hash is open addressing
 * with linear probing; nothing is ever deleted from it (sc_partition_regroup makes a new
 * one).  A partition is freed in one stroke.
 *
 * All windows of a query have the same length, so the array of partitions,
 * sorted by start, is sorted by end too: those to close are its head.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/state.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#define FIRST_BLOCK_GROUPS	8
#define FIRST_BUCKETS		16
#define MAX_GROUPS			(UINT32_C(1) << 30)

/* child contexts are counted again after so many bytes of rows, or so many for each child */
#define COUNT_BYTES			((Size) 1024 * 1024)
#define COUNT_CHILD_BYTES	64

/* Position of the partition of "start", or where it would be inserted. */
static int
partition_position(const ScEngine *engine, int64 start)
{
	int			low = 0;
	int			high = engine->npartitions;

	/* mostly it is the last one, or after it */
	if (high > 0 && engine->partitions[high - 1]->start < start)
		return high;
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (engine->partitions[middle]->start < start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The open partition of the window that starts at "start", or NULL. */
ScPartition *
sc_partition_find(ScEngine *engine, int64 start)
{
	int			i = partition_position(engine, start);

	if (i < engine->npartitions && engine->partitions[i]->start == start)
		return engine->partitions[i];
	return NULL;
}

static void
insert_partition(ScEngine *engine, ScPartition *part)
{
	int			i = partition_position(engine, part->start);

	if (engine->npartitions == engine->max_partitions)
	{
		int			max = Max(engine->max_partitions * 2, 16);
		Size		size = max * sizeof(ScPartition *);

		if (engine->partitions == NULL)
			engine->partitions = MemoryContextAlloc(engine->context, size);
		else
			engine->partitions = repalloc_huge(engine->partitions, size);
		engine->max_partitions = max;
	}
	memmove(&engine->partitions[i + 1], &engine->partitions[i],
			(engine->npartitions - i) * sizeof(ScPartition *));
	engine->partitions[i] = part;
	engine->npartitions++;
}

static void
allocate_buckets(ScPartition *part, uint32 n)
{
	part->buckets = MemoryContextAllocExtended(part->context, n * sizeof(ScBucket),
											   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	part->bucket_mask = n - 1;
	part->bucket_shift = 32 - pg_leftmost_one_pos32(n);
	part->grow_at = n - n / 4;
}

/*
 * What aggregates take for their group's lifetime is the partition's.  Callbacks
 * that they register are kept in the engine's context and run before the
 * partition is freed.
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
 * Opens a partition without groups.  One whose window's end the watermark has
 * passed already (a row within the allowed lateness, or a restored state) counts
 * as emitted.
 */
ScPartition *
sc_partition_open(ScEngine *engine, int64 start, int64 end)
{
	MemoryContext old = MemoryContextSwitchTo(engine->context);
	ScPartition *part = palloc0(sizeof(ScPartition));

	part->start = start;
	part->end = end;
	part->context = AllocSetContextCreate(engine->context, "stream_ckpt partition",
										  0, 1024, ALLOCSET_DEFAULT_MAXSIZE);
	part->aggcontext = make_aggcontext(engine, part->context);
	part->all_changed = true;
	part->emitted = (engine->options.emit == SC_EMIT_CLOSE && end <= engine->watermark);
	allocate_buckets(part, FIRST_BUCKETS);
	insert_partition(engine, part);
	sc_partition_account(engine, part);
	MemoryContextSwitchTo(old);
	return part;
}

static inline uint32
bucket_of(const ScPartition *part, uint32 hash)
{
	/*
	 * The upper bits of a product, because a task that owns a range of key
	 * groups only has hashes whose lower bits are in that range.
	 */
	return (hash * UINT32_C(0x9E3779B1)) >> part->bucket_shift;
}

static void
grow_buckets(ScPartition *part)
{
	ScBucket   *old = part->buckets;
	uint32		nold = part->bucket_mask + 1;

	if (nold >= MAX_GROUPS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many groups in one window of a continuous query")));

	allocate_buckets(part, nold * 2);
	for (uint32 i = 0; i < nold; i++)
	{
		uint32		to;

		if (old[i].number == 0)
			continue;
		to = bucket_of(part, old[i].hash);
		while (part->buckets[to].number != 0)
			to = (to + 1) & part->bucket_mask;
		part->buckets[to] = old[i];
	}
	pfree(old);
}

/* Makes room for one more record. */
static void
grow_blocks(ScEngine *engine, ScPartition *part)
{
	uint32		full_block = 1U << engine->block_shift;
	uint32		n = part->ngroups;

	if (n < full_block)
	{
		/* the first block grows up to its full size */
		uint32		size = n == 0 ? Min(FIRST_BLOCK_GROUPS, full_block) : Min(n * 2, full_block);

		if (n == 0)
		{
			part->blocks = MemoryContextAlloc(part->context, sizeof(char *));
			part->max_blocks = part->nblocks = 1;
			part->blocks[0] = MemoryContextAlloc(part->context, size * engine->record_size);
		}
		else
			part->blocks[0] = repalloc(part->blocks[0], size * engine->record_size);
		part->block0_size = size;
		return;
	}
	if (part->nblocks == part->max_blocks)
	{
		part->max_blocks *= 2;
		part->blocks = repalloc_huge(part->blocks, part->max_blocks * sizeof(char *));
	}
	part->blocks[part->nblocks++] = MemoryContextAlloc(part->context,
													   full_block * engine->record_size);
}

/* A new group with the keys in engine->key_values. */
static ScGroup *
add_group(ScEngine *engine, ScPartition *part, uint32 hash)
{
	uint32		number = part->ngroups;
	MemoryContext old;
	ScGroup    *group;
	Datum	   *keys;

	if (number == (part->nblocks <= 1 ? part->block0_size :
				   part->nblocks << engine->block_shift))
		grow_blocks(engine, part);
	group = sc_partition_group(engine, part, number);
	memset(group, 0, engine->keys_offset);
	group->key_group = hash % SC_MAX_PARALLELISM;

	keys = sc_group_keys(engine, group);
	old = MemoryContextSwitchTo(part->context);
	for (int i = 0; i < engine->nkeys; i++)
	{
		group->nulls[i] = engine->key_nulls[i];
		keys[i] = engine->key_nulls[i] ? (Datum) 0 :
			sc_datum_keep(engine->key_values[i], &engine->keys[i].type);
	}
	MemoryContextSwitchTo(old);

	part->ngroups++;
	engine->ngroups++;
	return group;
}

static void
init_states(ScEngine *engine, ScPartition *part, ScGroup *group)
{
	Datum	   *states = sc_group_states(engine, group);
	uint8	   *flags = sc_group_state_flags(engine, group);

	for (int t = 0; t < engine->ntrans; t++)
	{
		if (engine->trans[t].kind == SC_TRANS_INPUTS)
			states[t] = (Datum) 0;
		else
			sc_state_init(&engine->trans[t], part->context, &states[t], &flags[t]);
	}
}

/*
 * A new group with the keys in engine->key_values, which sc_partition_lookup doesn't find
 * before sc_partition_regroup.
 */
ScGroup *
sc_partition_append(ScEngine *engine, ScPartition *part)
{
	ScGroup    *group = add_group(engine, part, 0);

	init_states(engine, part, group);
	return group;
}

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
sc_partition_lookup(ScEngine *engine, ScPartition *part, uint32 hash, bool *isnew)
{
	uint32		at = bucket_of(part, hash);
	ScGroup    *group;

	*isnew = false;
	while (part->buckets[at].number != 0)
	{
		if (part->buckets[at].hash == hash)
		{
			uint32		number = part->buckets[at].number - 1;

			group = sc_partition_group(engine, part, number);
			if (keys_equal(engine, group))
			{
				if (!(group->flags & SC_GROUP_CHANGED))
					sc_group_changed(engine, part, group, number);
				return group;
			}
		}
		at = (at + 1) & part->bucket_mask;
	}

	if (part->ngroups >= part->grow_at)
	{
		grow_buckets(part);
		at = bucket_of(part, hash);
		while (part->buckets[at].number != 0)
			at = (at + 1) & part->bucket_mask;
	}
	group = add_group(engine, part, hash);
	init_states(engine, part, group);
	part->buckets[at].hash = hash;
	part->buckets[at].number = part->ngroups;
	sc_group_changed(engine, part, group, part->ngroups - 1);
	*isnew = true;
	return group;
}

/* Empty buckets with room for "n" groups. */
static void
renew_buckets(ScPartition *part, uint32 n)
{
	uint32		size = FIRST_BUCKETS;

	while (size - size / 4 <= n)
		size *= 2;
	pfree(part->buckets);
	allocate_buckets(part, size);
}

/* The bucket of a group whose keys equal those in engine->key_values, or the empty one behind. */
static ScBucket *
find_bucket(ScEngine *engine, ScPartition *part, uint32 hash)
{
	uint32		at = bucket_of(part, hash);

	for (;; at = (at + 1) & part->bucket_mask)
	{
		ScBucket   *bucket = &part->buckets[at];

		if (bucket->number == 0 ||
			(bucket->hash == hash &&
			 keys_equal(engine, sc_partition_group(engine, part, bucket->number - 1))))
			return bucket;
	}
}

/*
 * Hashes all groups again, by the functions that the keys' types have now.  Those that have
 * become equal are combined: their partition is written whole, as older chunks hold
 * them apart.  Groups get other numbers then: there must be no list of changes.  An
 * error leaves the partition unusable.
 */
void
sc_partition_regroup(ScEngine *engine, ScPartition *part)
{
	MemoryContext context = engine->tmpcontext->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(context);
	uint32		n = 0;

	Assert(part->nchanged == 0 && !engine->loading);
	renew_buckets(part, part->ngroups);
	for (uint32 i = 0; i < part->ngroups; i++)
	{
		ScGroup    *group = sc_partition_group(engine, part, i);
		ScBucket   *bucket;
		uint32		hash;

		memcpy(engine->key_values, sc_group_keys(engine, group), engine->nkeys * sizeof(Datum));
		memcpy(engine->key_nulls, group->nulls, engine->nkeys);
		hash = sc_keys_hash(engine);
		bucket = find_bucket(engine, part, hash);
		if (bucket->number != 0)
			sc_group_combine(engine, part,
							 sc_partition_group(engine, part, bucket->number - 1), group);
		else
		{
			group->key_group = hash % SC_MAX_PARALLELISM;
			if (n != i)
				memcpy(sc_partition_group(engine, part, n), group, engine->record_size);
			bucket->hash = hash;
			bucket->number = ++n;
		}
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	engine->ngroups -= part->ngroups - n;
	if (n < part->ngroups)
		part->all_changed = part->whole = true;
	part->ngroups = n;
}

/*
 * Removes the group that the last sc_partition_lookup made, with this hash.  Its
 * bucket ended its probe sequence, and nothing was added since: no other group
 * is found through it.  By-reference keys stay until the partition is freed.
 */
void
sc_partition_remove_last(ScEngine *engine, ScPartition *part, uint32 hash)
{
	uint32		at = bucket_of(part, hash);
	ScGroup    *group = sc_partition_group(engine, part, part->ngroups - 1);

	while (part->buckets[at].number != part->ngroups)
	{
		if (part->buckets[at].number == 0)
			elog(ERROR, "group not found in its partition");
		at = (at + 1) & part->bucket_mask;
	}
	part->buckets[at].number = 0;
	if ((group->flags & SC_GROUP_LISTED) && !part->all_changed)
		part->nchanged--;
	part->ngroups--;
	engine->ngroups--;
}

/*
 * Marks a group, which isn't marked yet, as changed.  It may be in the list
 * already: what is emitted between two checkpoints is marked anew.
 */
void
sc_group_changed(ScEngine *engine, ScPartition *part, ScGroup *group, uint32 number)
{
	group->flags |= SC_GROUP_CHANGED;
	if (!part->all_changed && !(group->flags & SC_GROUP_LISTED))
		sc_partition_list_changed(part, group, number);
}

/* Puts a group into the partition's list of what the changelog has to write. */
void
sc_partition_list_changed(ScPartition *part, ScGroup *group, uint32 number)
{
	group->flags |= SC_GROUP_LISTED;
	if (part->nchanged == part->max_changed)
	{
		Size		max = Max((Size) part->max_changed * 2, 16);

		if (part->changed == NULL)
			part->changed = MemoryContextAlloc(part->context, max * sizeof(uint32));
		else
			part->changed = repalloc_huge(part->changed, max * sizeof(uint32));
		part->max_changed = max;
	}
	part->changed[part->nchanged++] = number;
}

uint32
sc_partition_nchanged(const ScPartition *part)
{
	return part->all_changed ? part->ngroups : part->nchanged;
}

/* Number of the i-th changed group. */
uint32
sc_partition_changed(const ScPartition *part, uint32 i)
{
	return part->all_changed ? i : part->changed[i];
}

/* Forgets all changes: they are in the changelog. */
void
sc_partition_unchanged(ScEngine *engine, ScPartition *part)
{
	uint32		n = sc_partition_nchanged(part);

	for (uint32 i = 0; i < n; i++)
		sc_partition_group(engine, part, sc_partition_changed(part, i))->flags &=
			~(SC_GROUP_CHANGED | SC_GROUP_LISTED);
	part->all_changed = false;
	part->nchanged = 0;
}

/* Brings the engine's sum of memory up to date; cheap. */
void
sc_partition_account(ScEngine *engine, ScPartition *part)
{
	Size		bytes = sizeof(ScPartition) + sizeof(ExprContext) +
		part->context->mem_allocated + part->child_bytes;

	engine->partitions_bytes += bytes - part->bytes;
	part->bytes = bytes;
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
sc_partition_account_children(ScEngine *engine, ScPartition *part)
{
	part->nchildren = 0;
	part->child_bytes = children_bytes(part->context, &part->nchildren);
	part->uncounted_rows = part->uncounted_bytes = 0;
	sc_partition_account(engine, part);
}

/*
 * The same after "rows" rows whose values took "bytes": child contexts are counted when there
 * were about as many rows, or bytes, so that it costs little for each row.
 */
void
sc_partition_account_rows(ScEngine *engine, ScPartition *part, int rows, Size bytes)
{
	part->uncounted_rows += rows;
	part->uncounted_bytes += bytes;
	if (part->context->firstchild != NULL &&
		(part->uncounted_rows > part->nchildren ||
		 part->uncounted_bytes > Max(COUNT_BYTES, part->nchildren * COUNT_CHILD_BYTES)))
		sc_partition_account_children(engine, part);
	else
		sc_partition_account(engine, part);
}

/* The changelog has to drop the chunks of the partition of "start". */
void
sc_partitions_remember_closed(ScEngine *engine, int64 start)
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
	engine->closed[engine->nclosed++] = start;
}

static void
free_partition(ScEngine *engine, ScPartition *part)
{
	engine->ngroups -= part->ngroups;
	engine->partitions_bytes -= part->bytes;
	engine->live_bytes -= part->live_bytes;
	if (part->live_bytes > 0)
		sc_partitions_remember_closed(engine, part->start);

	ReScanExprContext(part->aggcontext);	/* runs aggregates' callbacks */
	MemoryContextDelete(part->context);
	pfree(part->aggcontext);
	pfree(part);
}

/* Frees "n" partitions from "first" on. */
void
sc_partitions_close(ScEngine *engine, int first, int n)
{
	for (int i = first; i < first + n; i++)
	{
		if (engine->partitions[i] == engine->current)
			engine->current = NULL;
		free_partition(engine, engine->partitions[i]);
	}
	engine->npartitions -= n;
	memmove(engine->partitions + first, engine->partitions + first + n,
			(engine->npartitions - first) * sizeof(ScPartition *));
}

/* Runs the callbacks that aggregates registered; the engine is about to be freed. */
void
sc_partitions_shutdown(ScEngine *engine)
{
	for (int i = 0; i < engine->npartitions; i++)
		ReScanExprContext(engine->partitions[i]->aggcontext);
}
