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

#include "common/int.h"
#include "exec/state.h"

bool
sc_closed_contains(const ScEngine *engine, int64 start, int64 end)
{
	return end <= engine->closed_until || sc_ranges_contain(&engine->closed_windows, start);
}

void
sc_closed_add(ScEngine *engine, int64 start, int64 end, int64 ordinary)
{
	ScWindowRanges *closed = &engine->closed_windows;

	if (sc_closed_contains(engine, start, end))
		return;
	if (closed->n == SC_CLOSED_RANGES && closed->ranges[0].end <= ordinary)
	{
		engine->closed_until = Max(engine->closed_until, closed->ranges[0].end);
		sc_ranges_remove_first(closed);
	}
	sc_ranges_add(closed, start, end);
}

/* The end of the window that holds the instant before "end"; infinity: timestamps can't express it. */
static int64
whole_windows(const ScEngine *engine, int64 end)
{
	int64		size = engine->def->window.size;
	int64		offset = ((end - 1) % size - engine->window_origin) % size;
	int64		result;

	if (offset < 0)
		offset += size;
	if (pg_add_s64_overflow(end - 1, size - offset, &result) || !IS_VALID_TIMESTAMP(result))
		return DT_NOEND;
	return result;
}

void
sc_closed_complete(ScEngine *engine)
{
	ScWindowRanges *closed = &engine->closed_windows;

	if (closed->n == 0 || closed->ranges[0].start != SC_NO_EVENT_TIME)
		return;
	engine->closed_until = Max(engine->closed_until,
							   whole_windows(engine, closed->ranges[0].end));
	sc_ranges_remove_first(closed);
}
