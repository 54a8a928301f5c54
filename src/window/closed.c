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
 * They are remembered as ranges (window/ranges.c).  If there is no room for one more, the oldest of
 * those behind the plausible event time gives way to "closed_until", and if there is none,
 * the two ranges that lie nearest to each other become one.  What that loses is windows
 * between them that never had a row.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "window/watermark.h"

bool
sc_closed_contains(const ScEventTime *time, ScWindowRange place)
{
	return place.end <= time->closed_until || sc_ranges_contain(&time->closed_windows, place.start);
}

bool
sc_closed_covers(const ScEventTime *time, int64 start, int64 end)
{
	const ScWindowRanges *closed = &time->closed_windows;

	for (int i = 0; i < closed->n; i++)
	{
		if (closed->ranges[i].start <= start && end <= closed->ranges[i].end)
			return true;
	}
	return end <= time->closed_until;
}

int64
sc_closed_before(const ScEventTime *time, int64 start)
{
	const ScWindowRanges *closed = &time->closed_windows;
	int64		before = time->closed_until;

	for (int i = 0; i < closed->n && closed->ranges[i].start <= start; i++)
		before = Max(before, closed->ranges[i].end);
	return before;
}

void
sc_closed_add_reach(ScEventTime *time, ScWindowRange reach, int64 ordinary)
{
	ScWindowRanges *closed = &time->closed_windows;

	if (reach.end <= ordinary || sc_closed_covers(time, reach.start, reach.end))
		return;
	if (closed->n == SC_CLOSED_RANGES && closed->ranges[0].end <= ordinary)
	{
		time->closed_until = Max(time->closed_until, closed->ranges[0].end);
		sc_ranges_remove_first(closed);
	}
	sc_ranges_add(closed, reach.start, reach.end);
}

void
sc_closed_add(ScEventTime *time, ScWindowRange place, int64 end, int64 ordinary)
{
	ScWindowRanges *closed = &time->closed_windows;

	if (sc_closed_contains(time, place))
		return;
	/* a window ends as far behind its place's end as this one, so none between them is to come */
	if (closed->n == SC_CLOSED_RANGES && sc_time_add(closed->ranges[0].end, end - place.end) <= ordinary)
	{
		time->closed_until = Max(time->closed_until, closed->ranges[0].end);
		sc_ranges_remove_first(closed);
	}
	sc_ranges_add(closed, place.start, place.end);
}

bool
sc_closed_has_times(const ScEventTime *time)
{
	return time->closed_windows.n > 0 &&
		time->closed_windows.ranges[0].start == SC_NO_EVENT_TIME;
}

void
sc_closed_complete(ScEventTime *time, int64 end)
{
	time->closed_until = Max(time->closed_until, end);
	sc_ranges_remove_first(&time->closed_windows);
}
