/*-------------------------------------------------------------------------
 * order.c
 *	  The groups of a bucket that are to be written, in order of position (order.h).
 *
 * Groups don't hold their positions: these come from the hash table, or, if few groups are chosen and that runs
 * nobody's code, from hashing them again.  Then they are put into parts by the upper eight bits of the position,
 * and a part is sorted when it is its turn.  All of it can be interrupted between two groups, and rows may change the
 * bucket meanwhile: groups keep their numbers, and those that come later aren't looked at, unless they have the number of
 * one that was deleted (snapshot.c passes over them).  If the hash table was made anew, it is looked through once more.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/order.h"
#include "exec/timed.h"
#include "utils/memutils.h"

/* So many are sorted at once, or by comparing */
#define ONE_PART	4096
#define FEW_GROUPS	256
/* One in so many, or more, are looked for in the hash table */
#define MANY_GROUPS	8
/* So many behind is the one that is to be fetched from memory: those that follow each other are anywhere in it */
#define AHEAD		16

#define PARTS		256
#define part_of(at)	((at) >> 56)

typedef enum Stage
{
	MARKING,					/* the set of the changed ones, */
	WALKING,					/* by which the hash table is looked through; */
	HASHING,					/* or they are hashed again */
	PLACING,					/* into parts */
	ORDERED
} Stage;

struct ScOrder
{
	const ScBucket *bucket;
	MemoryContext context;
	ScChoice	choice;
	uint32		ngroups;		/* with lower numbers: those that there are */
	bool		all_changed;
	const uint32 *changed;
	uint32		nchanged;

	Stage		stage;
	uint32		at;				/* in the stage: a changed one, a cell, a group to be placed */
	uint8	   *set;			/* a bit for each group, or NULL: all, or none */
	uint32		cells_made;		/* of the hash table that is being looked through */
	ScGroupAt  *groups;
	uint32		n;
	uint32		size;			/* allocated */
	uint32		starts[PARTS + 1];	/* of the parts, their sizes before */
	ScGroupAt  *placed;

	uint32		sorted;			/* so many are in order */
	uint32		part;			/* the next to be sorted */
	uint32		next;			/* to be returned */
};

static inline bool
has_position(const ScChoice *choice, uint32 position)
{
	return (uint64) position - choice->positions.first < choice->positions.end - choice->positions.first;
}

static inline bool
has_number(const ScChoice *choice, uint32 number)
{
	return number - choice->first < choice->end - choice->first;
}

/* How many groups are chosen, at most, if it isn't by positions. */
static uint64
most(const ScOrder *order)
{
	return (uint64) order->nchanged + (order->choice.end - order->choice.first);
}

ScOrder *
sc_order_begin(const ScEngine *engine, const ScBucket *bucket, const ScChoice *choice,
			   const uint32 *changed, uint32 nchanged)
{
	ScOrder    *order = palloc0(sizeof(ScOrder));

	order->bucket = bucket;
	order->context = CurrentMemoryContext;
	order->choice = *choice;
	order->ngroups = bucket->ngroups;
	order->all_changed = (changed == NULL && nchanged > 0);
	order->changed = changed;
	order->nchanged = nchanged;
	order->cells_made = bucket->cells_made;
	if (nchanged == bucket->ngroups)
	{
		order->all_changed = true;
		order->stage = WALKING;
	}
	else if (!engine->keys_general && choice->positions.first >= choice->positions.end &&
			 most(order) < bucket->ngroups / MANY_GROUPS)
		order->stage = HASHING;
	else if (nchanged > 0)
	{
		order->set = MemoryContextAllocExtended(CurrentMemoryContext, order->ngroups / 8 + 1,
												MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
		order->stage = MARKING;
	}
	else
		order->stage = WALKING;
	order->size = Max(order->all_changed ? order->ngroups : Min(most(order), order->ngroups), FEW_GROUPS);
	order->groups = MemoryContextAllocHuge(CurrentMemoryContext, order->size * sizeof(ScGroupAt));
	return order;
}

static inline void
add_group_at(ScOrder *order, uint32 position, uint32 number)
{
	if (unlikely(order->n == order->size))
	{
		order->size *= 2;
		order->groups = repalloc_huge(order->groups, order->size * sizeof(ScGroupAt));
	}
	order->starts[position >> 24]++;
	order->groups[order->n++] = ((ScGroupAt) position << 32) | number;
}

/* False, as of all stages: it is time to stop. */
static bool
mark(ScOrder *order, ScPace *pace)
{
	while (order->at < order->nchanged)
	{
		uint32		number = order->changed[order->at++];

		order->set[number / 8] |= 1 << number % 8;
		if (sc_pace_is_late(pace))
			return false;
	}
	return true;
}

static inline bool
is_chosen(const ScOrder *order, uint32 position, uint32 number)
{
	return has_position(&order->choice, position) || has_number(&order->choice, number) ||
		(order->set != NULL && (order->set[number / 8] & (1 << number % 8)));
}

/* Adds the chosen groups as the hash table has them. */
static bool
walk(ScOrder *order, ScPace *pace)
{
	const ScBucket *bucket = order->bucket;
	bool		by_position = order->set == NULL && !order->all_changed && order->choice.first >= order->choice.end;

	if (order->cells_made != bucket->cells_made)
	{
		order->cells_made = bucket->cells_made;
		order->at = order->n = 0;
		memset(order->starts, 0, sizeof(order->starts));
	}
	while (order->at <= bucket->cell_mask)
	{
		const ScCell *cell = &bucket->cells[order->at++];

		/* in this order, because few are in a range, and nobody can guess which places are empty */
		if (by_position && !has_position(&order->choice, cell->hash))
			continue;
		/* an empty cell has no group either: its number wraps around; that of a deleted group is too large */
		if (cell->number - 1 < order->ngroups &&
			(order->all_changed || is_chosen(order, cell->hash, cell->number - 1)))
			add_group_at(order, cell->hash, cell->number - 1);
		if (sc_pace_is_late(pace))
			return false;
	}
	return true;
}

/* Adds the chosen groups by hashing them again: first the changed ones, then those by their numbers. */
static bool
hash(ScEngine *engine, ScOrder *order, ScPace *pace)
{
	while (order->at < most(order))
	{
		uint32		i = order->at++;
		uint32		number = i < order->nchanged ? order->changed[i] :
			order->choice.first + (i - order->nchanged);

		if ((i >= order->nchanged || !has_number(&order->choice, number)) &&
			!sc_group_is_free(engine, sc_bucket_group(engine, order->bucket, number)))
			add_group_at(order, sc_keys_hash_of(engine, sc_bucket_group(engine, order->bucket, number)), number);
		if (sc_pace_is_late(pace))
			return false;
	}
	return true;
}

/* All are found: a few are one part. */
static void
begin_placing(ScOrder *order)
{
	uint32		start = 0;

	order->at = 0;
	if (order->n <= ONE_PART)
	{
		memset(order->starts, 0, sizeof(order->starts));
		for (int part = 1; part <= PARTS; part++)
			order->starts[part] = order->n;
		order->stage = ORDERED;
		return;
	}
	for (int part = 0; part <= PARTS; part++)
	{
		uint32		n = order->starts[part];

		order->starts[part] = start;
		start += n;
	}
	order->placed = MemoryContextAllocHuge(order->context, order->n * sizeof(ScGroupAt));
	order->stage = PLACING;
}

/* Each group goes where its part begins, which moves on; they are moved back in the end. */
static bool
place(ScOrder *order, ScPace *pace)
{
	while (order->at < order->n)
	{
		ScGroupAt	at = order->groups[order->at++];

		order->placed[order->starts[part_of(at)]++] = at;
		if (sc_pace_is_late(pace))
			return false;
	}
	memmove(order->starts + 1, order->starts, PARTS * sizeof(uint32));
	order->starts[0] = 0;
	pfree(order->groups);
	order->groups = order->placed;
	order->placed = NULL;
	order->stage = ORDERED;
	return true;
}

/* Stage by stage: when one is interrupted, it goes on at order->at the next time. */
bool
sc_order_work(ScEngine *engine, ScOrder *order, ScPace *pace)
{
	MemoryContext old;
	bool		done = true;

	if (order->stage == ORDERED)
		return true;
	if (order->stage == MARKING)
	{
		if (!mark(order, pace))
			return false;
		order->at = 0;
		order->stage = WALKING;
	}
	if (order->stage != PLACING)
	{
		/* comparing and hashing may allocate */
		old = MemoryContextSwitchTo(engine->groupcontext);
		done = order->stage == WALKING ? walk(order, pace) : hash(engine, order, pace);
		MemoryContextSwitchTo(old);
		MemoryContextReset(engine->groupcontext);
		if (!done)
			return false;
		if (order->set != NULL)
			pfree(order->set);
		order->set = NULL;
		begin_placing(order);
	}
	return order->stage == ORDERED || place(order, pace);
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
sort_by_position(ScGroupAt *groups, uint32 n)
{
	ScGroupAt  *from = groups;
	ScGroupAt  *to;

	if (n < FEW_GROUPS)
	{
		qsort(groups, n, sizeof(ScGroupAt), compare_at);
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
	/* after four passes it is "groups" again */
	Assert(from == groups);
	pfree(to);
}

/* A part is sorted when it is its turn. */
bool
sc_order_next(ScOrder *order, ScGroupAt *at, uint32 *ahead)
{
	if (order->next == order->n)
		return false;
	while (order->next >= order->sorted)
	{
		uint32		start = order->starts[order->part];

		order->sorted = order->starts[++order->part];
		sort_by_position(order->groups + start, order->sorted - start);
	}
	*at = order->groups[order->next++];
	*ahead = sc_at_number(order->groups[Min(order->next + AHEAD, order->n) - 1]);
	return true;
}

void
sc_order_free(ScOrder *order)
{
	if (order->placed != NULL)
		pfree(order->placed);
	if (order->set != NULL)
		pfree(order->set);
	pfree(order->groups);
	pfree(order);
}
