/*-------------------------------------------------------------------------
 * ranges.c
 *	  Sets of windows as ranges, in bounded room.
 *
 * Windows next to each other make one range, so that a stream which has rows in each of its
 * windows needs one or two in all.  There is room for SC_CLOSED_RANGES, or SC_RANGE_SET_MAX.  If a set needs more, the
 * two that lie nearest to each other become one with all that is between them: a set can grow by
 * that, and never loses a window that was added.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "window/watermark.h"

/* The first range that ends at or behind "start"; n: none does. */
static int
find(const ScWindowRange *ranges, int n, int64 start)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (ranges[middle].end < start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool
sc_ranges_contain(const ScWindowRanges *ranges, int64 start)
{
	int			i = find(ranges->ranges, ranges->n, start);

	if (i < ranges->n && ranges->ranges[i].end == start)
		i++;
	return i < ranges->n && ranges->ranges[i].start <= start;
}

/* Ranges "first" to "next" - 1 go, and "range" takes their place. */
static void
replace(ScWindowRange *ranges, int32 *n, int first, int next, ScWindowRange range)
{
	memmove(&ranges[first + 1], &ranges[next], (*n - next) * sizeof(ScWindowRange));
	*n += 1 - (next - first);
	ranges[first] = range;
}

/* Makes one range less, of the two with the least between them.  Needs two at least. */
static void
join_nearest(ScWindowRange *ranges, int32 *n)
{
	ScWindowRange joined;
	int			nearest = 0;

	for (int i = 1; i < *n - 1; i++)
	{
		/* unsigned: the distance of two timestamps can be more than an int64 holds */
		if ((uint64) ranges[i + 1].start - (uint64) ranges[i].end <
			(uint64) ranges[nearest + 1].start - (uint64) ranges[nearest].end)
			nearest = i;
	}
	joined.start = ranges[nearest].start;
	joined.end = ranges[nearest + 1].end;
	replace(ranges, n, nearest, nearest + 2, joined);
}

/* There is room for "max" of them. */
static void
add(ScWindowRange *ranges, int32 *n, int max, ScWindowRange range)
{
	int			first;
	int			next;

	/* all that it touches become one with it */
	for (first = next = find(ranges, *n, range.start); next < *n && ranges[next].start <= range.end; next++)
	{
		range.start = Min(range.start, ranges[next].start);
		range.end = Max(range.end, ranges[next].end);
	}
	if (first == next && *n == max)
	{
		join_nearest(ranges, n);
		add(ranges, n, max, range);
		return;
	}
	replace(ranges, n, first, next, range);
}

void
sc_ranges_add(ScWindowRanges *ranges, int64 start, int64 end)
{
	add(ranges->ranges, &ranges->n, SC_CLOSED_RANGES, (ScWindowRange) {start, end});
}

void
sc_ranges_remove_first(ScWindowRanges *ranges)
{
	ranges->n--;
	memmove(&ranges->ranges[0], &ranges->ranges[1], ranges->n * sizeof(ScWindowRange));
}

/* ---------- with room for more ---------- */

bool
sc_range_set_covers(const ScRangeSet *set, int64 start, int64 end)
{
	int			i = find(set->ranges, set->n, end);

	return i < set->n && set->ranges[i].start <= start;
}

void
sc_range_set_add(ScRangeSet *set, int64 start, int64 end)
{
	if (sc_range_set_covers(set, start, end))
		return;
	if (set->ranges == NULL)
	{
		set->ranges = palloc(16 * sizeof(ScWindowRange));
		set->room = 16;
	}
	else if (set->n == set->room && set->room < SC_RANGE_SET_MAX)
	{
		int			room = Min(set->room * 2, SC_RANGE_SET_MAX);

		set->ranges = repalloc(set->ranges, room * sizeof(ScWindowRange));
		set->room = room;
	}
	add(set->ranges, &set->n, set->room, (ScWindowRange) {start, end});
}
