/*-------------------------------------------------------------------------
 * emit_order.c
 *	  The groups of a bucket that are to be emitted, in key order, a portion at a time (emit_order.h).
 *
 * A few are sorted at once.  Of many, a sample is sorted, which cuts the order of keys into portions of about the
 * same size; each group is put into its own, and a portion is sorted when it is its turn.  All of it can be
 * interrupted between two groups.  [Frazer, McKellar: Samplesort, 1970]
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/limit.h"
#include "exec/emit_order.h"
#include "exec/timed.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* So many groups are a portion; so many of a sample for each portion */
#define PORTION			4096
#define SAMPLES			8
#define MAX_PORTIONS	4096
#define NOT_EMITTED		UINT16_MAX

/* How often the time limit is told of comparisons */
#define LIMIT_COMPARISONS 65536
#define COMPARISONS_TO_UNIT 100

typedef enum Stage
{
	CHOOSING,					/* a portion for each candidate */
	PLACING,
	SORTED						/* but for what is in the portions to come */
} Stage;

struct ScEmitOrder
{
	ScEngine   *engine;
	ScBucket   *bucket;
	bool		all;
	const uint32 *numbers_due;	/* the candidates, or NULL: all groups, or the changed ones */
	uint32		ncandidates;
	Stage		stage;
	uint32		at;				/* the next candidate */

	int			nportions;
	ScEmitItem *splitters;		/* the first keys of all portions but the first */
	uint16	   *portions;		/* of the candidates */
	uint32		starts[MAX_PORTIONS + 1];	/* of the portions, their sizes before */
	uint32	   *numbers;		/* of groups, portion by portion */

	int			portion;		/* the next one */
	ScEmitItem *items;			/* of the last one */
	uint32		ncompared;
};

/* For qsort_arg: by all keys, NULLs last.  Can be interrupted, and tells the time limit what it does. */
static int
compare_items(const void *a, const void *b, void *arg)
{
	const ScEmitItem *x = a;
	const ScEmitItem *y = b;
	ScEmitOrder *order = arg;
	ScEngine   *engine = order->engine;
	int			result;
	ScGroup    *gx;
	ScGroup    *gy;

	if (++order->ncompared % LIMIT_COMPARISONS == 0)
	{
		CHECK_FOR_INTERRUPTS();
		sc_limit_add(LIMIT_COMPARISONS / COMPARISONS_TO_UNIT);
	}
	if (engine->nkeys == 0)
		result = 0;				/* sessions */
	else
		result = ApplySortComparator(x->key, x->isnull, y->key, y->isnull,
									 &engine->keys[0].sort);
	if (result != 0 || (engine->nkeys == 1 && !engine->sessions))
		return result;

	gx = sc_bucket_group(engine, order->bucket, x->number);
	gy = sc_bucket_group(engine, order->bucket, y->number);
	for (int i = 1; i < engine->nkeys && result == 0; i++)
		result = ApplySortComparator(sc_group_keys(engine, gx)[i], gx->nulls[i],
									 sc_group_keys(engine, gy)[i], gy->nulls[i],
									 &engine->keys[i].sort);
	if (result == 0 && engine->sessions)
	{
		int64		sx = sc_group_times(engine, gx)->start;
		int64		sy = sc_group_times(engine, gy)->start;

		result = sx < sy ? -1 : sx > sy;
	}
	return result;
}

static inline uint32
candidate(const ScEmitOrder *order, uint32 i)
{
	if (order->numbers_due != NULL)
		return order->numbers_due[i];
	return order->all ? i : sc_bucket_changed(order->bucket, i);
}

/* What is emitted of changes was changed since it was emitted last. */
static inline bool
is_due(const ScEmitOrder *order, uint32 number)
{
	if (order->engine->timed)
		return sc_timed_is_due(order->engine, order->bucket, sc_bucket_group(order->engine, order->bucket, number));
	return order->all ||
		(sc_bucket_group(order->engine, order->bucket, number)->flags & order->bucket->mark);
}

static inline ScEmitItem
item_of(const ScEmitOrder *order, uint32 number)
{
	const ScGroup *group = sc_bucket_group(order->engine, order->bucket, number);
	ScEmitItem	item = {.number = number};

	if (order->engine->nkeys > 0)
	{
		item.key = sc_group_keys(order->engine, group)[0];
		item.isnull = group->nulls[0];
	}
	return item;
}

static void
sort_items(ScEmitOrder *order, ScEmitItem *items, uint32 n)
{
	/* else there is one group only */
	if (order->engine->nkeys > 0 || order->engine->sessions)
		qsort_arg(items, n, sizeof(ScEmitItem), compare_items, order);
}

/* Cuts the order of keys by a sample of the candidates. */
static void
make_splitters(ScEmitOrder *order)
{
	uint32		n = order->nportions * SAMPLES;
	ScEmitItem *sample = MemoryContextAllocHuge(order->engine->context, n * sizeof(ScEmitItem));

	for (uint32 i = 0; i < n; i++)
		sample[i] = item_of(order, candidate(order, (uint64) order->ncandidates * i / n));
	sort_items(order, sample, n);
	for (int i = 1; i < order->nportions; i++)
		sample[i - 1] = sample[i * SAMPLES];
	order->splitters = sample;
}

ScEmitOrder *
sc_emit_order_begin(ScEngine *engine, ScBucket *bucket, bool all, bool due)
{
	MemoryContext context = engine->context;
	ScEmitOrder *order = MemoryContextAllocZero(context, sizeof(ScEmitOrder));

	order->engine = engine;
	order->bucket = bucket;
	order->all = all;
	order->numbers_due = due ? engine->due : NULL;
	order->ncandidates = due ? engine->ndue : all ? bucket->ngroups : sc_bucket_nchanged(bucket);
	order->nportions = Min(order->ncandidates / PORTION, MAX_PORTIONS - 1) + 1;
	if (order->nportions > 1)
		make_splitters(order);
	order->portions = MemoryContextAllocHuge(context, Max(order->ncandidates, 1) * sizeof(uint16));
	order->numbers = MemoryContextAllocHuge(context, Max(order->ncandidates, 1) * sizeof(uint32));
	return order;
}

/* The number of splitters that aren't greater than the item. */
static uint16
portion_of(ScEmitOrder *order, const ScEmitItem *item)
{
	int			low = 0;
	int			high = order->nportions - 1;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (compare_items(&order->splitters[middle], item, order) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* False: it is time to stop. */
static bool
choose(ScEmitOrder *order, ScPace *pace)
{
	while (order->at < order->ncandidates)
	{
		uint32		number = candidate(order, order->at);
		uint16		portion = NOT_EMITTED;

		if (is_due(order, number))
		{
			ScEmitItem	item = item_of(order, number);

			portion = order->nportions > 1 ? portion_of(order, &item) : 0;
			order->starts[portion]++;
		}
		order->portions[order->at++] = portion;
		if (sc_pace_is_late(pace))
			return false;
	}
	return true;
}

/* Sizes become beginnings. */
static void
begin_placing(ScEmitOrder *order)
{
	uint32		start = 0;

	for (int i = 0; i <= order->nportions; i++)
	{
		uint32		n = order->starts[i];

		order->starts[i] = start;
		start += n;
	}
	order->at = 0;
	order->stage = PLACING;
}

/* Each goes where its portion begins, which moves on; they are moved back in the end.  False: it is time to stop. */
static bool
place(ScEmitOrder *order, ScPace *pace)
{
	while (order->at < order->ncandidates)
	{
		uint32		i = order->at++;

		if (order->portions[i] != NOT_EMITTED)
			order->numbers[order->starts[order->portions[i]]++] = candidate(order, i);
		if (sc_pace_is_late(pace))
			return false;
	}
	memmove(order->starts + 1, order->starts, order->nportions * sizeof(uint32));
	order->starts[0] = 0;
	pfree(order->portions);
	order->portions = NULL;
	order->stage = SORTED;
	return true;
}

bool
sc_emit_order_work(ScEmitOrder *order, ScPace *pace)
{
	if (order->stage == CHOOSING)
	{
		if (!choose(order, pace))
			return false;
		begin_placing(order);
	}
	return order->stage == SORTED || place(order, pace);
}

bool
sc_emit_order_next(ScEmitOrder *order, ScEmitItem **items, uint32 *n)
{
	uint32		start;

	if (order->items != NULL)
		pfree(order->items);
	order->items = NULL;
	if (order->portion == order->nportions)
		return false;
	start = order->starts[order->portion];
	*n = order->starts[order->portion + 1] - start;
	order->items = MemoryContextAllocHuge(order->engine->context, sizeof(ScEmitItem) * Max(*n, 1));
	for (uint32 i = 0; i < *n; i++)
		order->items[i] = item_of(order, order->numbers[start + i]);
	sort_items(order, order->items, *n);
	order->portion++;
	*items = order->items;
	return true;
}

void
sc_emit_order_free(ScEmitOrder *order)
{
	if (order->splitters != NULL)
		pfree(order->splitters);
	if (order->portions != NULL)
		pfree(order->portions);
	if (order->items != NULL)
		pfree(order->items);
	pfree(order->numbers);
	pfree(order);
}
