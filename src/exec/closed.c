/*-------------------------------------------------------------------------
 * closed.c
 *	  Windows that are over for good: their results were written, and their states are gone.
 *
 * As long as the watermark only goes forward it says which they are.  When it is reset, or
 * its stream gets a longer delay, windows that are over can lie ahead of it: those that
 * closed early because of one wrong event time, and, if that was in the year 2124, those of the
 * wrong rows themselves.  They must not be opened again, as that would replace a whole result
 * by a part; all others may be.  So each window that is freed is remembered, whatever freed it.
 *
 * Windows next to each other make one range, so that a stream which has rows in each of its
 * windows has one or two ranges in all.  There is room for SC_CLOSED_RANGES: then the oldest of
 * those behind the plausible event time gives way to "closed_until", and if there is none,
 * the two ranges that lie nearest to each other become one.  What that loses is windows
 * between them that never had a row.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/state.h"

/* The first range that ends behind "start"; n: none does. */
static int
find(const ScWindowRanges *closed, int64 start)
{
	int			low = 0;
	int			high = closed->n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (closed->ranges[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool
sc_closed_contains(const ScEngine *engine, int64 start, int64 end)
{
	const ScWindowRanges *closed = &engine->closed_windows;
	int			i;

	if (end <= engine->closed_until)
		return true;
	i = find(closed, start);
	return i < closed->n && closed->ranges[i].start <= start;
}

static void
remove_range(ScWindowRanges *closed, int i)
{
	closed->n--;
	memmove(&closed->ranges[i], &closed->ranges[i + 1],
			(closed->n - i) * sizeof(ScWindowRange));
}

/* Makes ranges "i" and the next one one. */
static void
join(ScWindowRanges *closed, int i)
{
	closed->ranges[i].end = closed->ranges[i + 1].end;
	remove_range(closed, i + 1);
}

/* Makes room for a range.  "ordinary": what ends at or before it is over by the rows' event times. */
static void
shrink(ScEngine *engine, int64 ordinary)
{
	ScWindowRanges *closed = &engine->closed_windows;
	int			nearest = 0;

	if (closed->ranges[0].end <= ordinary)
	{
		engine->closed_until = Max(engine->closed_until, closed->ranges[0].end);
		remove_range(closed, 0);
		return;
	}
	for (int i = 1; i < closed->n - 1; i++)
	{
		/* unsigned: the distance of two timestamps can be more than an int64 holds */
		if ((uint64) closed->ranges[i + 1].start - (uint64) closed->ranges[i].end <
			(uint64) closed->ranges[nearest + 1].start - (uint64) closed->ranges[nearest].end)
			nearest = i;
	}
	join(closed, nearest);
}

void
sc_closed_add(ScEngine *engine, int64 start, int64 end, int64 ordinary)
{
	ScWindowRanges *closed = &engine->closed_windows;
	int			i;

	if (sc_closed_contains(engine, start, end))
		return;
	if (closed->n == SC_CLOSED_RANGES)
	{
		shrink(engine, ordinary);
		/* it may lie between the two that have become one: ranges never overlap */
		if (sc_closed_contains(engine, start, end))
			return;
	}
	i = find(closed, start);
	if (i > 0 && closed->ranges[i - 1].end == start)
	{
		closed->ranges[--i].end = end;
		if (i + 1 < closed->n && closed->ranges[i + 1].start == end)
			join(closed, i);
	}
	else if (i < closed->n && closed->ranges[i].start == end)
		closed->ranges[i].start = start;
	else
	{
		memmove(&closed->ranges[i + 1], &closed->ranges[i],
				(closed->n - i) * sizeof(ScWindowRange));
		closed->ranges[i].start = start;
		closed->ranges[i].end = end;
		closed->n++;
	}
}
