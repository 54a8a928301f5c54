/*-------------------------------------------------------------------------
 * snapshot.c
 *	  What of a bucket is to be written, as it was at a barrier, while rows go on.
 *
 * At the barrier nothing is copied: the list of changes becomes the snapshot's, a new one begins, and the flag that
 * marks a changed group becomes the other one of two.  So a group that has the old flag hasn't been touched since,
 * and waits for the snapshot.  If a row is about to change it, it is encoded first, and kept by its number; then,
 * or when the snapshot has passed it, it loses the flag.  Kept inputs are only ever added to: it is enough to know
 * how many there were; those of a group that is deleted are copied before.  Its number isn't used again before it was
 * written that it is gone, so a group which has neither the flag nor an entry has a number that was free at the barrier.
 *
 * The rule: between two snapshots no group of a bucket has the flag that isn't the bucket's mark.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "exec/order.h"
#include "exec/timed.h"
#include "utils/memutils.h"

/* Which of a state's kept inputs belong to an entry. */
typedef struct Range
{
	Size		from;
	Size		len;
	const char *copy;			/* of them; NULL: they are where they were */
} Range;

/* A group as it was at the barrier; behind it a Range for each state, if there can be kept inputs, and the head. */
struct ScSaved
{
	Size		head_len;
	Range		inputs[FLEXIBLE_ARRAY_MEMBER];
};

typedef struct SavedCell
{
	uint32		number;
	char		status;
	struct ScSaved *saved;
} SavedCell;

#define SH_PREFIX saved
#define SH_ELEMENT_TYPE SavedCell
#define SH_KEY_TYPE uint32
#define SH_KEY number
#define SH_HASH_KEY(table, key) murmurhash32(key)
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct ScBucketSnapshot
{
	ScEngine   *engine;
	ScBucket   *bucket;
	bool		deferred;
	ScChoice	choice;
	ScOrder    *order;

	/* deferred */
	MemoryContext context;		/* of what is saved */
	MemoryContext scratch;		/* of what saving it needs: whoever changes a group may use the engine's own for that */
	uint8		mark;			/* of the groups that wait */
	uint32	   *changed;		/* the list of changes, to be freed; or NULL */
	saved_hash *saved;			/* by number; NULL: none is */
};

static bool
is_chosen(const ScChoice *choice, uint32 position, uint32 number)
{
	return (position >= choice->positions.first && position < choice->positions.end) ||
		(number >= choice->first && number < choice->end);
}

/* Rows go on: from now on they make another list of changes. */
static void
defer(ScBucketSnapshot *snapshot)
{
	ScEngine   *engine = snapshot->engine;
	ScBucket   *bucket = snapshot->bucket;

	snapshot->context = AllocSetContextCreate(CurrentMemoryContext, "stream_ckpt snapshot",
											  ALLOCSET_DEFAULT_SIZES);
	snapshot->scratch = AllocSetContextCreate(snapshot->context, "stream_ckpt snapshot scratch",
											  ALLOCSET_SMALL_SIZES);
	snapshot->mark = bucket->mark;
	snapshot->changed = bucket->changed;
	/* those that haven't changed wait, too; if all have because the pane is to be written whole, they needn't say so */
	if (bucket->pane->whole || sc_bucket_nchanged(bucket) < bucket->ngroups)
		for (uint32 n = snapshot->choice.first; n < snapshot->choice.end; n++)
		{
			ScGroup    *group = sc_bucket_group(engine, bucket, n);

			if (!sc_group_is_free(engine, group))
				group->flags |= bucket->mark;
		}
	/* whoever gets one of these numbers isn't in the list that begins now */
	for (uint32 i = 0; i < bucket->nfree; i++)
		sc_bucket_group(engine, bucket, bucket->free[i])->flags = 0;
	bucket->mark ^= SC_GROUP_CHANGED | SC_GROUP_CHANGED_TOO;
	bucket->snapshot = snapshot;
	bucket->all_changed = false;
	bucket->changed = NULL;
	bucket->nchanged = bucket->max_changed = 0;
}

ScBucketSnapshot *
sc_bucket_snapshot_begin(ScEngine *engine, ScBucket *bucket, const ScChoice *choice, bool deferred)
{
	ScBucketSnapshot *snapshot = palloc0(sizeof(ScBucketSnapshot));

	Assert(bucket->snapshot == NULL);
	Assert(!deferred || choice->positions.first >= choice->positions.end);
	snapshot->engine = engine;
	snapshot->bucket = bucket;
	snapshot->deferred = deferred;
	snapshot->choice = *choice;
	snapshot->order = sc_order_begin(engine, bucket, choice, bucket->all_changed ? NULL : bucket->changed,
									 sc_bucket_nchanged(bucket));
	if (deferred)
		defer(snapshot);
	return snapshot;
}

bool
sc_bucket_snapshot_order(ScBucketSnapshot *snapshot, ScPace *pace)
{
	return sc_order_work(snapshot->engine, snapshot->order, pace);
}

/* Where the group's kept inputs are that go with its entry, and how many. */
static Range
inputs_of(ScEngine *engine, ScGroup *group, int transno, bool whole)
{
	const ScInputs *inputs;
	Range		range = {0};

	if (!(sc_group_state_flags(engine, group)[transno] & SC_STATE_INPUTS))
		return range;
	inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[transno]);
	if (inputs == NULL)
		return range;
	range.from = whole ? 0 : inputs->written;
	range.len = inputs->len - range.from;
	return range;
}

static Size
ranges_size(const ScEngine *engine)
{
	return offsetof(struct ScSaved, inputs) + sizeof(Range) * (engine->has_inputs ? engine->ntrans : 0);
}

/* The group as it is.  Serialisation functions run. */
static struct ScSaved *
save(ScBucketSnapshot *snapshot, ScGroup *group, uint32 number)
{
	ScEngine   *engine = snapshot->engine;
	Size		size = ranges_size(engine);
	bool		whole = is_chosen(&snapshot->choice, 0, number) || sc_group_is_unwritten(engine, group);
	MemoryContext old = MemoryContextSwitchTo(snapshot->scratch);
	StringInfoData head;
	struct ScSaved *saved;

	initStringInfo(&head);
	engine->aggstate->curaggcontext = snapshot->bucket->aggcontext;
	sc_group_encode(engine, group, whole, &head);
	saved = MemoryContextAllocHuge(snapshot->context, size + head.len);
	saved->head_len = head.len;
	memcpy((char *) saved + size, head.data, head.len);
	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
		saved->inputs[t] = inputs_of(engine, group, t, whole);
	sc_group_written(engine, group);
	MemoryContextSwitchTo(old);
	MemoryContextReset(snapshot->scratch);
	return saved;
}

void
sc_bucket_snapshot_touch(ScBucketSnapshot *snapshot, ScGroup *group, uint32 number)
{
	SavedCell  *cell;
	bool		found;

	if (!(group->flags & snapshot->mark))
		return;
	if (snapshot->saved == NULL)
		snapshot->saved = saved_create(snapshot->context, 1024, NULL);
	cell = saved_insert(snapshot->saved, number, &found);
	Assert(!found);
	cell->saved = save(snapshot, group, number);
	group->flags &= ~(snapshot->mark | SC_GROUP_LISTED);
	if (snapshot->engine->timed)
		sc_group_times(snapshot->engine, group)->stored = true;
}

void
sc_bucket_snapshot_detach(ScBucketSnapshot *snapshot, ScGroup *group, uint32 number)
{
	ScEngine   *engine = snapshot->engine;
	SavedCell  *cell = snapshot->saved ? saved_lookup(snapshot->saved, number) : NULL;

	/* without kept inputs nothing was noted of them */
	for (int t = 0; cell != NULL && engine->has_inputs && t < engine->ntrans; t++)
	{
		Range	   *range = &cell->saved->inputs[t];
		char	   *copy;

		if (range->len == 0 || range->copy != NULL)
			continue;
		copy = MemoryContextAllocHuge(snapshot->context, range->len);
		memcpy(copy, ((ScInputs *) DatumGetPointer(sc_group_states(engine, group)[t]))->data + range->from, range->len);
		range->copy = copy;
	}
}

/* The next group of the order; false: there are no more, or it isn't one of the snapshot's, "*skip". */
static bool
next_group(ScBucketSnapshot *snapshot, ScEntry *entry, bool *skip)
{
	ScEngine   *engine = snapshot->engine;
	ScGroupAt	at;
	uint32		number;
	uint32		ahead;

	*skip = false;
	if (!sc_order_next(snapshot->order, &at, &ahead))
		return false;
#ifdef __GNUC__
	__builtin_prefetch(sc_bucket_group(engine, snapshot->bucket, ahead));
#endif
	number = sc_at_number(at);
	entry->position = sc_at_position(at);
	entry->number = number;
	entry->whole = is_chosen(&snapshot->choice, entry->position, number);
	entry->group = sc_bucket_group(engine, snapshot->bucket, number);
	entry->saved = NULL;
	engine->aggstate->curaggcontext = snapshot->bucket->aggcontext;
	if (snapshot->deferred && !(entry->group->flags & snapshot->mark))
	{
		const SavedCell *cell = snapshot->saved ? saved_lookup(snapshot->saved, number) : NULL;

		if (cell == NULL && !engine->timed)
			elog(ERROR, "group not found in its snapshot");
		*skip = cell == NULL;
		if (cell != NULL)
			entry->saved = cell->saved;
	}
	return !*skip;
}

bool
sc_bucket_snapshot_next(ScBucketSnapshot *snapshot, ScEntry *entry)
{
	bool		skip;

	do
	{
		if (next_group(snapshot, entry, &skip))
			return true;
	} while (skip);
	return false;
}

void
sc_bucket_snapshot_passed(ScBucketSnapshot *snapshot, const ScEntry *entry)
{
	if (!snapshot->deferred || entry->saved != NULL)
		return;
	entry->group->flags &= ~(snapshot->mark | SC_GROUP_LISTED);
	if (snapshot->engine->timed)
		sc_group_is_written(snapshot->engine, snapshot->bucket, entry->group, entry->number);
}

void
sc_bucket_snapshot_free(ScBucketSnapshot *snapshot)
{
	sc_order_free(snapshot->order);
	if (snapshot->deferred)
	{
		snapshot->bucket->snapshot = NULL;
		if (snapshot->changed != NULL)
			pfree(snapshot->changed);
		MemoryContextDelete(snapshot->context);
	}
	pfree(snapshot);
}

const char *
sc_saved_head(const ScEngine *engine, const struct ScSaved *saved, Size *len)
{
	*len = saved->head_len;
	return (const char *) saved + ranges_size(engine);
}

Size
sc_saved_inputs(ScEngine *engine, const ScEntry *entry, int transno, const char **data)
{
	const Range *range = &entry->saved->inputs[transno];

	*data = range->copy;
	if (range->len > 0 && range->copy == NULL)
		*data = ((ScInputs *) DatumGetPointer(sc_group_states(engine, entry->group)[transno]))->data + range->from;
	return range->len;
}
