/*-------------------------------------------------------------------------
 * calendar_steps.c
 *	  cumulate() by a calendar: windows that are the first step, the first two... of a full window of days or months
 *	  (assigner.h, SC_WINDOW_CUMULATE with a unit).
 *
 * Full windows are those of calendar.c.  A step is a fixed length, counted from the full window's start as time passes;
 * or whole days or months, whose bounds are local midnights.  The last one is cut at the full window's end.  A step is a
 * pane.  Which full window a row is in, and of days and months which step, is said by its local time, so that rows can
 * lie before their first step begins: they are part of it.
 *
 * Of two bounds at one moment, as where a zone has left out a day, there is one window only, the longer one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "window/window_internal.h"

/* A full window */
typedef struct FullWindow
{
	Timestamp	local_start;
	Timestamp	local_end;
	int64		start;			/* the same as event times */
	int64		end;
} FullWindow;

bool
sc_assigner_init_steps(ScAssigner *assigner, int step_unit, int64 step)
{
	int64		longest;

	if (step_unit == DTK_DAY)	/* a longer one makes no difference */
		step = Min(step, assigner->size / USECS_PER_DAY + 1);
	longest = step;
	assigner->kind = SC_WINDOW_CUMULATE;
	assigner->step_unit = step_unit;
	assigner->slide = assigner->pane = step;
	if (step_unit == DTK_DAY)
		longest = step * USECS_PER_DAY;
	else if (step_unit == DTK_MONTH)
		longest = step * 28 * USECS_PER_DAY;
	return assigner->size / longest < SC_MAX_PANES;
}

/* The full window that begins at a local time. */
static bool
find_full(const ScAssigner *assigner, Timestamp local, FullWindow *full)
{
	full->local_start = local;
	return sc_calendar_next_local(assigner, local, &full->local_end) &&
		sc_calendar_from_local(assigner, full->local_start, &full->start) &&
		sc_calendar_from_local(assigner, full->local_end, &full->end) &&
		IS_VALID_TIMESTAMP(full->start) && IS_VALID_TIMESTAMP(full->end);
}

/*
 * The full window of a pane that is there.  If the pane begins at a moment whose local time comes again after midnight,
 * it is the one before that of the local time.
 */
static FullWindow
full_of_pane(const ScAssigner *assigner, int64 pane_key)
{
	ScAssigner	of_local_time = *assigner;
	FullWindow	full;
	Timestamp	local;
	int64		behind;

	of_local_time.zone = NULL;
	if (!sc_calendar_truncate(assigner, pane_key, &local, &behind) || !find_full(assigner, local, &full))
		elog(ERROR, "a pane has no window");
	if (full.start > pane_key &&
		(!sc_calendar_truncate(&of_local_time, local - 1, &local, &behind) || !find_full(assigner, local, &full)))
		elog(ERROR, "a pane has no window");
	return full;
}

/* The number of the month that a local time is in. */
static int64
month_of(Timestamp local)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(local, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "a local time is out of range");
	return (int64) tm.tm_year * 12 + tm.tm_mon;
}

/* Of days or months: the step that a local time is in, or the nearest one. */
static int64
step_of(const ScAssigner *assigner, const FullWindow *full, Timestamp local)
{
	local = Max(full->local_start, Min(local, full->local_end - 1));
	if (assigner->step_unit == DTK_DAY)
		return (local - full->local_start) / (assigner->slide * USECS_PER_DAY);
	return (month_of(local) - month_of(full->local_start)) / assigner->slide;
}

/* Where the step begins, in local time; the full window's end behind the last one. */
static Timestamp
step_start(const ScAssigner *assigner, const FullWindow *full, int64 step)
{
	Timestamp	result = full->local_start;

	if (assigner->step_unit == DTK_DAY)
		result += step * assigner->slide * USECS_PER_DAY;
	else
	{
		struct pg_tm tm;
		fsec_t		fsec;
		int64		month = month_of(result) + step * assigner->slide - 1;
		int64		in_year = sc_grid_offset(month, 0, 12);

		(void) timestamp2tm(result, NULL, &tm, &fsec, NULL, NULL);
		tm.tm_year = (month - in_year) / 12;
		tm.tm_mon = in_year + 1;
		if (tm2timestamp(&tm, 0, NULL, &result) != 0)
			return full->local_end;
	}
	return Min(result, full->local_end);
}

/* The same as an event time. */
static int64
bound(const ScAssigner *assigner, const FullWindow *full, int64 step)
{
	int64		result;

	if (!sc_calendar_from_local(assigner, step_start(assigner, full, step), &result))
		elog(ERROR, "a step has no end");
	return result;
}

/* Days or months: the step that local time is in at a moment of the full window. */
static int64
step_at(const ScAssigner *assigner, const FullWindow *full, int64 time)
{
	Timestamp	local;
	int64		behind;

	if (!sc_calendar_truncate(assigner, time, &local, &behind))
		elog(ERROR, "a moment has no local time");
	return step_of(assigner, full, time - behind);
}

bool
sc_steps_pane(const ScAssigner *assigner, int64 event_time, ScPaneSpan *span)
{
	ScPaneSpan	result = SC_NO_PANE;
	FullWindow	full;
	Timestamp	local;
	int64		behind;
	int64		step;

	if (!sc_calendar_truncate(assigner, event_time, &local, &behind) || !find_full(assigner, local, &full))
		return false;
	if (assigner->step_unit == 0)
	{
		step = event_time < full.start ? 0 : (event_time - full.start) / assigner->slide;
		result.key = full.start + step * assigner->slide;
		result.from = full.local_start + behind;
		if (step > 0)
			result.from = Max(result.from, result.key);
		result.to = Min(full.local_end + behind, sc_time_add(result.key, assigner->slide));
	}
	else
	{
		step = step_of(assigner, &full, event_time - behind);
		result.key = bound(assigner, &full, step);
		result.from = step_start(assigner, &full, step) + behind;
		result.to = step_start(assigner, &full, step + 1) + behind;
	}
	sc_calendar_clip_span(assigner->zone, event_time, &result);
	*span = result;
	return true;
}

bool
sc_steps_window_behind(const ScAssigner *assigner, int64 pane_key, int64 after, ScWindow *window)
{
	FullWindow	full = full_of_pane(assigner, pane_key);
	int64		step;

	/* the first one of the pane ends behind its beginning */
	after = Max(after, pane_key);
	if (after >= full.end)
		return false;
	window->start = full.start;
	if (assigner->step_unit == 0)
	{
		window->end = Min(sc_time_add(after - (after - full.start) % assigner->slide, assigner->slide), full.end);
		return true;
	}
	step = step_at(assigner, &full, after);
	while (step > 0 && bound(assigner, &full, step) > after)
		step--;
	do
		step++;
	while (bound(assigner, &full, step) <= after);
	window->end = bound(assigner, &full, step);
	return true;
}

int64
sc_steps_last_end(const ScAssigner *assigner, int64 pane_key)
{
	return full_of_pane(assigner, pane_key).end;
}

int64
sc_steps_end_before(const ScAssigner *assigner, const ScWindow *window)
{
	FullWindow	full = full_of_pane(assigner, window->start);
	int64		step;

	if (assigner->step_unit == 0)
		return full.start + (window->end - full.start - 1) / assigner->slide * assigner->slide;
	step = step_at(assigner, &full, window->end - 1);
	while (step > 0 && bound(assigner, &full, step) >= window->end)
		step--;
	while (bound(assigner, &full, step + 1) < window->end)
		step++;
	return bound(assigner, &full, step);
}
