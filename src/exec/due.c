/*-------------------------------------------------------------------------
 * due.c
 *	  The directory of a bucket's groups by the times at which the watermark does something to them (timed.h).
 *
 * A heap of times and numbers.  A group's time moves on with each of its rows: its entry stays where it is, and is
 * put right when it comes to the top.  So a row costs nothing here.  An entry counts if its time is the group's
 * "queued"; others are left over from groups that were deleted, or whose time has become an earlier one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/timed.h"
#include "utils/memutils.h"

#define FIRST_ENTRIES	16

typedef struct DueEntry
{
	int64		at;
	uint32		number;			/* of the group */
} DueEntry;

struct ScDue
{
	uint32		n;
	uint32		max;
	DueEntry   *entries;		/* each is no later than those at twice its place, plus 1 and plus 2 */
};

/* The bucket gets an empty one. */
void
sc_due_renew(ScBucket *bucket)
{
	if (bucket->due == NULL)
	{
		bucket->due = MemoryContextAllocZero(bucket->context, sizeof(struct ScDue));
		bucket->due->max = FIRST_ENTRIES;
		bucket->due->entries = MemoryContextAlloc(bucket->context, FIRST_ENTRIES * sizeof(DueEntry));
	}
	bucket->due->n = 0;
}

/* The entry at a place has become earlier. */
static void
move_up(struct ScDue *due, uint32 at, DueEntry entry)
{
	while (at > 0 && due->entries[(at - 1) / 2].at > entry.at)
	{
		due->entries[at] = due->entries[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	due->entries[at] = entry;
}

/* The first entry is replaced by a later one. */
static void
replace_first(struct ScDue *due, DueEntry entry)
{
	uint32		at = 0;

	for (;;)
	{
		uint32		child = 2 * at + 1;

		if (child >= due->n)
			break;
		if (child + 1 < due->n && due->entries[child + 1].at < due->entries[child].at)
			child++;
		if (due->entries[child].at >= entry.at)
			break;
		due->entries[at] = due->entries[child];
		at = child;
	}
	due->entries[at] = entry;
}

/* As of now the group's time is this one, and what it had counts no more. */
void
sc_due_push(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	struct ScDue *due = bucket->due;
	ScTimes    *times = sc_group_times(engine, sc_bucket_group(engine, bucket, number));
	DueEntry	entry = {.at = sc_group_due_at(engine, times),.number = number};

	if (due->n == due->max)
	{
		due->entries = repalloc_huge(due->entries, (Size) due->max * 2 * sizeof(DueEntry));
		due->max *= 2;
	}
	times->queued = entry.at;
	move_up(due, due->n++, entry);
}

static void
remove_first(struct ScDue *due)
{
	due->n--;
	if (due->n > 0)
		replace_first(due, due->entries[due->n]);
}

bool
sc_due_first(ScEngine *engine, ScBucket *bucket, int64 *at, uint32 *number)
{
	struct ScDue *due = bucket->due;

	while (due->n > 0)
	{
		DueEntry	entry = due->entries[0];
		ScTimes    *times = sc_group_times(engine, sc_bucket_group(engine, bucket, entry.number));

		if (times->life != SC_LIVE || times->queued != entry.at)
		{
			remove_first(due);
			continue;
		}
		times->queued = sc_group_due_at(engine, times);
		if (times->queued == entry.at)
		{
			*at = entry.at;
			*number = entry.number;
			return true;
		}
		entry.at = times->queued;
		replace_first(due, entry);
	}
	return false;
}

/* The first entry goes: the group has none. */
void
sc_due_pop(ScEngine *engine, ScBucket *bucket)
{
	uint32		number = bucket->due->entries[0].number;

	sc_group_times(engine, sc_bucket_group(engine, bucket, number))->queued = PG_INT64_MAX;
	remove_first(bucket->due);
}
