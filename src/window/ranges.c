/*-------------------------------------------------------------------------
 * ranges.c
 *	  Sets of windows as ranges, in a fixed room.
 *
 * Windows next to each other make one range, so that a stream which has rows in each of its
 * windows needs one or two in all.  There is room for SC_CLOSED_RANGES.  If a set needs more, the
 * two that lie nearest to each other become one with all that is between them: a set can grow by
 * that, and never loses a window that was added.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "window/watermark.h"

/* The first range that ends at or behind "start"; n: none does. */
static int
find(const ScWindowRanges *ranges, int64 start)
{
	int			low = 0;
	int			high = ranges->n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (ranges->ranges[middle].end < start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool
sc_ranges_contain(const ScWindowRanges *ranges, int64 start)
{
	int			i = find(ranges, start);

	if (i < ranges->n && ranges->ranges[i].end == start)
		i++;
	return i < ranges->n && ranges->ranges[i].start <= start;
}

/* Ranges "first" to "next" - 1 go, and "range" takes their place. */
static void
replace(ScWindowRanges *ranges, int first, int next, ScWindowRange range)
{
	memmove(&ranges->ranges[first + 1], &ranges->ranges[next],
			(ranges->n - next) * sizeof(ScWindowRange));
	ranges->n += 1 - (next - first);
	ranges->ranges[first] = range;
}

/* Makes one range less, of the two with the least between them.  Needs two at least. */
static void
join_nearest(ScWindowRanges *ranges)
{
	ScWindowRange *range = ranges->ranges;
	ScWindowRange joined;
	int			nearest = 0;

	for (int i = 1; i < ranges->n - 1; i++)
	{
		/* unsigned: the distance of two timestamps can be more than an int64 holds */
		if ((uint64) range[i + 1].start - (uint64) range[i].end <
			(uint64) range[nearest + 1].start - (uint64) range[nearest].end)
			nearest = i;
	}
	joined.start = range[nearest].start;
	joined.end = range[nearest + 1].end;
	replace(ranges, nearest, nearest + 2, joined);
}

void
sc_ranges_add(ScWindowRanges *ranges, int64 start, int64 end)
{
	ScWindowRange range = {start, end};
	int			first;
	int			next;

	/* all that it touches become one with it */
	for (first = next = find(ranges, start);
		 next < ranges->n && ranges->ranges[next].start <= end; next++)
	{
		range.start = Min(range.start, ranges->ranges[next].start);
		range.end = Max(range.end, ranges->ranges[next].end);
	}
	if (first == next && ranges->n == SC_CLOSED_RANGES)
	{
		join_nearest(ranges);
		sc_ranges_add(ranges, start, end);
		return;
	}
	replace(ranges, first, next, range);
}

void
sc_ranges_remove_first(ScWindowRanges *ranges)
{
	ranges->n--;
	memmove(&ranges->ranges[0], &ranges->ranges[1], ranges->n * sizeof(ScWindowRange));
}
