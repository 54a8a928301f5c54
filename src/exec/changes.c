/*-------------------------------------------------------------------------
 * changes.c
 *	  Which groups of a bucket have changed since it was written (ScBucket: mark, changed).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/timed.h"
#include "utils/memutils.h"

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

void
sc_bucket_touch(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number)
{
	if (!(group->flags & bucket->mark))
		sc_group_changed(engine, bucket, group, number);
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
	{
		uint32		number = sc_bucket_changed(bucket, i);
		ScGroup    *group = sc_bucket_group(engine, bucket, number);

		group->flags &= ~(bucket->mark | SC_GROUP_LISTED);
		if (engine->timed)
			sc_group_is_written(engine, bucket, group, number);
	}
	bucket->all_changed = false;
	bucket->nchanged = 0;
}

/* Takes a group out of the list of changes, whose last ones are those of the current row. */
void
sc_bucket_unlist_changed(ScBucket *bucket, uint32 number)
{
	uint32		at = bucket->nchanged;

	while (at > 0 && bucket->changed[at - 1] != number)
		at--;
	if (at == 0)
		elog(ERROR, "group not found among those that have changed");
	memmove(&bucket->changed[at - 1], &bucket->changed[at], (bucket->nchanged - at) * sizeof(uint32));
	bucket->nchanged--;
}
