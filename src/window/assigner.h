/*-------------------------------------------------------------------------
 * assigner.h
 *	  Windows: which pane an event time is in, which windows a pane is part of, and when they end.
 *
 * A pane is a piece of event time whose rows are accumulated together, a window is what a result row
 * is about.  A row is in one pane; a window is made of one pane or more, a pane can be part of
 * several windows.  A tumbling window is its own pane.  Nobody else knows how long windows are, or how
 * their bounds are ordered; everybody else may rely on this alone:
 *
 *	 - a pane is known by its key, and panes don't overlap;
 *	 - the windows of a pane are met in the order of their ends: sc_assigner_first_window(), then
 *	   sc_assigner_next_window();
 *	 - of two panes, the one with the greater key never has the smaller first end, nor the smaller
 *	   last end.  So what is to be emitted or freed are the first ones in the order of keys.
 *
 * A kind of windows has its cases in this header (what each row, transaction and pane needs) and in
 * assigner.c (what commands and errors need).
 *-------------------------------------------------------------------------
 */
#ifndef SC_WINDOW_ASSIGNER_H
#define SC_WINDOW_ASSIGNER_H

#include "access/attnum.h"
#include "lib/stringinfo.h"
#include "pgtime.h"
#include "window/watermark.h"

/* Numbers are stored (sc_assigner_sign): new ones at the end. */
typedef enum ScWindowKind
{
	SC_WINDOW_TUMBLE,
	SC_WINDOW_NONE,				/* no windows: one, and one pane, of all of time, which never closes */
	SC_WINDOW_CALENDAR,			/* what truncation to the calendar makes of event times (calendar.c) */
	SC_WINDOW_HOP,
	SC_WINDOW_CUMULATE,
	SC_WINDOW_SESSION			/* one pane, of all of time; its groups are the windows (exec/sessions.c) */
} ScWindowKind;

typedef struct ScAssigner
{
	ScWindowKind kind;
	int64		size;			/* microseconds, > 0; CALENDAR: of the longest; SESSION: the gap; NONE: 0 */
	int64		origin;			/* microseconds since 2000-01-01; its amount is less than size or slide.  CALENDAR: if
								 * count > 1, of local time; of months a month since year 0, less than count */

	/* HOP, CUMULATE: microseconds, > 0 */
	int64		slide;			/* from a window's start to the next one's; or of CUMULATE the step between their ends */
	int64		pane;			/* length of a pane */

	/* CALENDAR, and CUMULATE if its full windows are such: else 0 */
	int			unit;			/* DTK_..., of date_trunc() */
	int			count;			/* of so many units, if that is DTK_DAY or DTK_MONTH; else 1 */
	pg_tz	   *zone;			/* NULL: event times are local times, of type timestamp */
	bool		local;			/* a window is a local time, though it may come twice; else a row's offset counts */
	int			step_unit;		/* CUMULATE of those: "slide" is so many days (DTK_DAY) or months (DTK_MONTH); 0: microseconds */
	bool		shown_local;	/* and is shown as such, so that one begins at the clock's change if its start is left out */
} ScAssigner;

/* Where windows are counted from unless told otherwise: 1970-01-01 00:00, of UTC or of local time */
#define SC_DEFAULT_ORIGIN	((UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

/* Are there windows that close?  If not, no row is late, and none needs an event time. */
static inline bool
sc_assigner_has_windows(const ScAssigner *assigner)
{
	return assigner->kind != SC_WINDOW_NONE;
}

/* Of one window at most: each of them is looked at when the window is emitted. */
#define SC_MAX_PANES		10000

/* The columns of a window function, which are those of each kind. */
#define SC_WINDOW_START		1
#define SC_WINDOW_END		2
#define SC_WINDOW_TIME		3
#define SC_WINDOW_COLUMNS	3

typedef struct ScWindow
{
	int64		start;
	int64		end;			/* exclusive */
} ScWindow;

/* A pane, as a row of it is told from others. */
typedef struct ScPaneSpan
{
	int64		key;
	int64		from;			/* all event times in [from, to) are the pane's; others can be, too */
	int64		to;
	bool		none;			/* they are between two windows, and in none */
} ScPaneSpan;

/* No event time is in it. */
#define SC_NO_PANE			{0, 0, 0, false}

/* Are windows made of several panes? */
static inline bool
sc_assigner_is_shared(const ScAssigner *assigner)
{
	return (assigner->kind == SC_WINDOW_HOP && assigner->slide < assigner->size) ||
		assigner->kind == SC_WINDOW_CUMULATE;
}

/* Is all of time one pane? */
static inline bool
sc_assigner_has_one_pane(const ScAssigner *assigner)
{
	return assigner->kind == SC_WINDOW_NONE || assigner->kind == SC_WINDOW_SESSION;
}

/* Has a row one window, which is known as it comes? */
static inline bool
sc_assigner_knows_window(const ScAssigner *assigner)
{
	return !sc_assigner_is_shared(assigner) && assigner->kind != SC_WINDOW_SESSION;
}

/* By how much a time is behind the last point of a grid; "origin" is one of them, its amount less than the grid's size. */
static inline int64
sc_grid_offset(int64 time, int64 origin, int64 size)
{
	/* both terms are smaller than size, so nothing overflows here */
	int64		offset = (time % size - origin) % size;

	return offset < 0 ? offset + size : offset;
}

static inline bool
sc_pane_span_has(const ScPaneSpan *span, int64 event_time)
{
	return event_time >= span->from && event_time < span->to;
}

/* shared.c, for the functions below: windows of several panes, and those with gaps between them */
extern bool sc_shared_pane(const ScAssigner *assigner, int64 event_time, ScPaneSpan *span);
extern ScWindow sc_shared_first_window(const ScAssigner *assigner, int64 pane_key);
extern int64 sc_shared_last_end(const ScAssigner *assigner, int64 pane_key);
/* Of the pane's windows that end behind "after", the one that ends first; false: there is none. */
extern bool sc_shared_window_behind(const ScAssigner *assigner, int64 pane_key, int64 after, ScWindow *window);
/* CUMULATE: the end of the window before, of the same start; or that start. */
extern int64 sc_shared_end_before(const ScAssigner *assigner, const ScWindow *window);

/*
 * For exec/running.c.  Time is cut into blocks, such that a window consists of the end of one block and the
 * beginning of the next, or of a beginning alone, as all of CUMULATE do.  This is where that block begins: behind
 * the window's start, or there.
 */
extern int64 sc_shared_block(const ScAssigner *assigner, const ScWindow *window);
/* HOP: the greatest start of the pane's windows. */
extern int64 sc_shared_last_start(const ScAssigner *assigner, int64 pane_key);
/* Is it less work to put windows together so than pane by pane? */
extern bool sc_shared_has_blocks(const ScAssigner *assigner);

/* calendar.c: for the functions below */
extern bool sc_calendar_pane(const ScAssigner *assigner, int64 event_time, ScPaneSpan *span);
extern int64 sc_calendar_end(const ScAssigner *assigner, int64 start);
extern int64 sc_calendar_next_key(const ScAssigner *assigner, int64 start);
extern bool sc_calendar_last_closed(const ScAssigner *assigner, int64 watermark, int64 *start);

/*
 * The pane of an event time.  False, and *span stays, where timestamps can't express the bounds of
 * a window that the row would be in.  The same arithmetic as date_bin (timestamp.c), floored for
 * times before the origin.
 */
static inline bool
sc_assigner_pane(const ScAssigner *assigner, int64 event_time, ScPaneSpan *span)
{
	int64		offset;
	int64		start;
	int64		end;

	if (sc_assigner_has_one_pane(assigner))
	{
		/* a row opens a session that ends the gap later */
		if (assigner->kind == SC_WINDOW_SESSION && event_time >= END_TIMESTAMP - assigner->size)
			return false;
		span->key = 0;
		/* -infinity is in no session */
		span->from = assigner->kind == SC_WINDOW_SESSION ? MIN_TIMESTAMP : PG_INT64_MIN;
		span->to = assigner->kind == SC_WINDOW_SESSION ? END_TIMESTAMP - assigner->size : PG_INT64_MAX;
		span->none = false;
		return true;
	}
	if (assigner->kind == SC_WINDOW_CALENDAR)
		return sc_calendar_pane(assigner, event_time, span);
	if (assigner->kind != SC_WINDOW_TUMBLE)
		return sc_shared_pane(assigner, event_time, span);

	offset = sc_grid_offset(event_time, assigner->origin, assigner->size);
	if (pg_sub_s64_overflow(event_time, offset, &start) || !IS_VALID_TIMESTAMP(start) ||
		pg_add_s64_overflow(start, assigner->size, &end) || !IS_VALID_TIMESTAMP(end))
		return false;
	span->key = span->from = start;
	span->to = end;
	span->none = false;
	return true;
}

/* The window of the pane that ends first. */
static inline ScWindow
sc_assigner_first_window(const ScAssigner *assigner, int64 pane_key)
{
	ScWindow	window = {.start = PG_INT64_MIN,.end = PG_INT64_MAX};

	if (sc_assigner_is_shared(assigner))
		return sc_shared_first_window(assigner, pane_key);
	if (!sc_assigner_has_one_pane(assigner))
	{
		window.start = pane_key;
		window.end = assigner->kind == SC_WINDOW_CALENDAR ? sc_calendar_end(assigner, pane_key) :
			pane_key + assigner->size;
	}
	return window;
}

/* The one that ends next; false: *window was the pane's last. */
static inline bool
sc_assigner_next_window(const ScAssigner *assigner, int64 pane_key, ScWindow *window)
{
	return sc_assigner_is_shared(assigner) && sc_shared_window_behind(assigner, pane_key, window->end, window);
}

/* The smallest and the greatest end of the pane's windows. */
static inline int64
sc_assigner_first_end(const ScAssigner *assigner, int64 pane_key)
{
	return sc_assigner_first_window(assigner, pane_key).end;
}

static inline int64
sc_assigner_last_end(const ScAssigner *assigner, int64 pane_key)
{
	if (sc_assigner_is_shared(assigner))
		return sc_shared_last_end(assigner, pane_key);
	return sc_assigner_first_window(assigner, pane_key).end;
}

/*
 * A window's place among those that are over (closed.c): ranges that don't overlap, and touch if no window is between
 * them.
 */
static inline ScWindowRange
sc_assigner_place(const ScAssigner *assigner, const ScWindow *window)
{
	ScWindowRange range = {.start = window->start,.end = window->end};

	if (assigner->kind == SC_WINDOW_CALENDAR)
		range.end = sc_calendar_next_key(assigner, window->start);
	else if (assigner->kind == SC_WINDOW_HOP)
		range.end = window->start + assigner->slide;
	else if (assigner->kind == SC_WINDOW_CUMULATE)
		range.start = sc_shared_end_before(assigner, window);
	return range;
}

/* The watermark at which all windows of the pane are past their lateness, and its state may be freed. */
static inline int64
sc_assigner_needed_until(const ScAssigner *assigner, int64 pane_key, int64 allowed_lateness)
{
	return sc_time_add(sc_assigner_last_end(assigner, pane_key), allowed_lateness);
}

/*
 * The watermark at which a session has no more rows, if its last one was at "last": one that is exactly the gap behind
 * that is still the session's, and can come while the watermark is at its time.
 */
static inline int64
sc_session_over_at(const ScAssigner *assigner, int64 last)
{
	return last + assigner->size + 1;
}

/*
 * What the sessions of all rows cover that are within the gap of a session from "start" to "last": if that is over, so
 * are they.
 */
static inline ScWindowRange
sc_session_reach(const ScAssigner *assigner, int64 start, int64 last)
{
	return (ScWindowRange) {.start = sc_time_add(start, -assigner->size),
			.end = sc_time_add(sc_session_over_at(assigner, last), assigner->size)};
}

/* The values of a window's columns, SC_WINDOW_COLUMNS of them. */
static inline void
sc_window_values(const ScWindow *window, Datum *values)
{
	values[SC_WINDOW_START - 1] = Int64GetDatum(window->start);
	values[SC_WINDOW_END - 1] = Int64GetDatum(window->end);
	values[SC_WINDOW_TIME - 1] = Int64GetDatum(window->end - 1);
}

extern void sc_assigner_init_tumble(ScAssigner *assigner, int64 size, int64 origin);
extern void sc_assigner_init_none(ScAssigner *assigner);
extern void sc_assigner_init_session(ScAssigner *assigner, int64 gap);
/* False: that makes more than SC_MAX_PANES panes. */
extern bool sc_assigner_init_hop(ScAssigner *assigner, int64 slide, int64 size, int64 origin);
/* "size" is a multiple of "step". */
extern bool sc_assigner_init_cumulate(ScAssigner *assigner, int64 step, int64 size, int64 origin);
/* False: it is no unit of date_trunc(). */
extern bool sc_assigner_init_calendar(ScAssigner *assigner, int unit, pg_tz *zone, bool shown_local);
/*
 * Windows of "count" days or months (DTK_DAY, DTK_MONTH) of a zone's calendar, or of local times if that is NULL.  One
 * begins at the local date of "origin"; of months in its month, on the first.  False: they are too long.
 */
extern bool sc_assigner_init_periods(ScAssigner *assigner, int unit, int count, pg_tz *zone, int64 origin);
/*
 * Of those makes windows that cumulate by steps: of microseconds (step_unit 0), or so many days or months.  False: that
 * makes too many panes.
 */
extern bool sc_assigner_init_steps(ScAssigner *assigner, int step_unit, int64 step);

/*
 * The window function of a name, without schema, and a number of arguments; false: there is none.
 * And the name, as errors say it: tumble().
 */
extern bool sc_window_kind_of(const char *function, int nargs, ScWindowKind *kind);
extern const char *sc_window_function(ScWindowKind kind);

/* What state of panes depends on, for sc_signature(): chunks that are stored have it, so it never changes. */
extern void sc_assigner_sign(const ScAssigner *assigner, StringInfo buf);

/* Does one column of a window, SC_WINDOW_..., tell it from all others? */
extern bool sc_assigner_is_identified_by(const ScAssigner *assigner, AttrNumber column);

/* The places of all windows that can have rows up to "event_time" end at or before it. */
extern int64 sc_assigner_closed_by(const ScAssigner *assigner, int64 event_time);

/*
 * The batch truth, of which a definition's view is the text: the greatest value of a window's column among the windows
 * that "watermark" has closed, which are those with that or a smaller one.  False: it has closed none.
 */
extern bool sc_assigner_last_closed(const ScAssigner *assigner, AttrNumber column, int64 watermark,
									int64 *value);

/*
 * The smallest and the greatest value of a window's column, by which windows are told apart, among those whose places are
 * in "range".  Others can lie between them only if calendars have hours that overlap.
 */
extern ScWindowRange sc_assigner_column_range(const ScAssigner *assigner, AttrNumber column, ScWindowRange range);

#endif							/* SC_WINDOW_ASSIGNER_H */
