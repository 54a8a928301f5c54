/*-------------------------------------------------------------------------
 * changed_windows.c
 *	  Windows that aren't what the definition makes of the table any more: rows of them came, changed or went when they
 *	  were over, and a window that is over keeps what it had.
 *
 * verify() leaves them out.  So each is noted before anything else can go wrong with the row, and one too many does no
 * harm: they are kept as ranges (window/ranges.c), by their places, and a row whose error is its own may leave its
 * window here.  What is noted between two checkpoints goes with the next part of the query (ckpt/changed.h), where
 * adding it twice is the same as once.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "utils/memutils.h"

/*
 * Places are those of windows of the definition: [start, end).  Of sessions, where they begin.  Without groups no window
 * keeps anything.
 */
void
sc_windows_have_changed(ScEngine *engine, int64 start, int64 end)
{
	MemoryContext old;

	if (engine->def->stateless)
		return;
	old = MemoryContextSwitchTo(engine->context);
	sc_range_set_add(&engine->changed_windows, start, end);
	MemoryContextSwitchTo(old);
}

void
sc_window_has_changed(ScEngine *engine, const ScWindow *window)
{
	ScWindowRange place = sc_assigner_place(&engine->def->window, window);

	sc_windows_have_changed(engine, place.start, place.end);
}

void
sc_windows_before_have_changed(ScEngine *engine, int64 end)
{
	if (end != SC_NO_EVENT_TIME)
		sc_windows_have_changed(engine, PG_INT64_MIN, end);
}

/* Where the first window begins that isn't past its lateness by the watermark; SC_NO_EVENT_TIME: all of them. */
static int64
over_until(const ScEngine *engine)
{
	const ScAssigner *assigner = &engine->def->window;
	int64		time = sc_time_add(engine->watermark, -engine->options.allowed_lateness);
	ScPaneSpan	span;
	ScWindow	first;

	if (engine->watermark == SC_NO_EVENT_TIME || engine->sessions || !sc_assigner_pane(assigner, time, &span) || span.none)
		return engine->watermark == SC_NO_EVENT_TIME ? SC_NO_EVENT_TIME : time;
	first = sc_assigner_first_window(assigner, span.key);
	return sc_assigner_place(assigner, &first).start;
}

/* Of the windows that are over: the places from "start" on. */
static void
note_over_from(ScEngine *engine, int64 start)
{
	const ScWindowRanges *closed = &engine->time.closed_windows;
	int64		end = Max(over_until(engine), engine->time.closed_until);

	if (end != SC_NO_EVENT_TIME && end > start)
		sc_windows_have_changed(engine, start, end);
	for (int i = 0; i < closed->n; i++)
	{
		if (closed->ranges[i].end > start)
			sc_windows_have_changed(engine, Max(closed->ranges[i].start, start), closed->ranges[i].end);
	}
}

void
sc_windows_over_have_changed(ScEngine *engine)
{
	if (sc_assigner_has_windows(&engine->def->window))
		note_over_from(engine, PG_INT64_MIN);
}

/* All windows that rows of the pane are in. */
static void
note_windows_of(ScEngine *engine, int64 pane_key)
{
	ScWindow	window = sc_assigner_first_window(&engine->def->window, pane_key);

	do
		sc_window_has_changed(engine, &window);
	while (sc_assigner_next_window(&engine->def->window, pane_key, &window));
}

void
sc_engine_ignore_deleted(ScEngine *engine, TupleTableSlot *slot)
{
	const ScAssigner *assigner = &engine->def->window;
	ScPaneSpan	span;
	bool		isnull;
	int64		time;

	if (engine->time_attno <= 0)
		return;
	time = DatumGetInt64(slot_getattr(slot, engine->time_attno, &isnull));
	if (isnull || TIMESTAMP_NOT_FINITE(time) || !sc_assigner_pane(assigner, time, &span) || span.none)
		return;
	if (engine->sessions)
		sc_windows_have_changed(engine, time, sc_time_add(time, assigner->size));
	else
		note_windows_of(engine, span.key);
}

/*
 * All windows, from the place "start" on, that rows which are gone can have been in: those that are over, and those that are
 * there.  What comes later is in no other one.
 */
static void
note_all_from(ScEngine *engine, int64 start, int64 first_pane)
{
	int64		reach = sc_time_add(engine->greatest_last, engine->def->window.size);

	if (!sc_assigner_has_windows(&engine->def->window))
		return;
	note_over_from(engine, start);
	if (engine->sessions)
	{
		if (engine->greatest_last != SC_NO_EVENT_TIME && reach > start)
			sc_windows_have_changed(engine, start, reach);
		return;
	}
	for (int i = 0; i < engine->npanes; i++)
	{
		if (engine->panes[i]->key >= first_pane)
			note_windows_of(engine, engine->panes[i]->key);
	}
}

void
sc_engine_ignore_truncate(ScEngine *engine)
{
	note_all_from(engine, PG_INT64_MIN, PG_INT64_MIN);
}

/* The keys of the panes of rows with these event times. */
static ScWindowRange
panes_of(const ScAssigner *assigner, ScWindowRange times)
{
	ScWindowRange keys = {.start = times.start,.end = sc_time_add(times.end, -1)};
	ScPaneSpan	span;

	if (!TIMESTAMP_NOT_FINITE(keys.start) && sc_assigner_pane(assigner, keys.start, &span) && !span.none)
		keys.start = span.key;
	if (!TIMESTAMP_NOT_FINITE(keys.end) && sc_assigner_pane(assigner, keys.end, &span) && !span.none)
		keys.end = span.key;
	return keys;
}

/*
 * Panes that are there have rows, and a window that isn't over.  Sessions and groups with a ttl aren't known by the times of their
 * rows, and without windows nothing is over.
 */
bool
sc_engine_needs_rows(const ScEngine *engine, ScWindowRange times)
{
	ScWindowRange keys;

	if (engine->timed || engine->def->stateless || !sc_assigner_has_windows(&engine->def->window))
		return true;
	keys = panes_of(&engine->def->window, times);
	for (int i = 0; i < engine->npanes; i++)
	{
		if (engine->panes[i]->key >= keys.start && engine->panes[i]->key <= keys.end)
			return true;
	}
	return false;
}

/* Where the first window of rows from "time" on begins. */
static int64
first_place(const ScAssigner *assigner, int64 time)
{
	ScPaneSpan	span;
	ScWindow	first;

	if (TIMESTAMP_NOT_FINITE(time) || !sc_assigner_pane(assigner, time, &span) || span.none)
		return time;
	first = sc_assigner_first_window(assigner, span.key);
	return sc_assigner_place(assigner, &first).start;
}

/*
 * The places of all windows that such rows can be in.  If the times have no end: of those that are there by now, as rows to come
 * aren't lost, and a range of windows ends at a time.
 */
void
sc_engine_ignore_lost(ScEngine *engine, ScWindowRange times)
{
	const ScAssigner *assigner = &engine->def->window;
	bool		endless = TIMESTAMP_NOT_FINITE(times.end);

	if (!sc_assigner_has_windows(assigner) || (engine->timed && !engine->sessions))
		return;
	if (endless)
		note_all_from(engine, engine->sessions ? times.start : first_place(assigner, times.start),
					  panes_of(assigner, times).start);
	else if (engine->sessions)
		sc_windows_have_changed(engine, times.start, sc_time_add(times.end, assigner->size));
	else
		sc_windows_have_changed(engine, first_place(assigner, times.start), sc_assigner_closed_by(assigner, times.end - 1));
}

void
sc_take_changed_windows(ScEngine *engine, const ScEngine *from)
{
	for (int i = 0; i < from->changed_windows.n; i++)
		sc_windows_have_changed(engine, from->changed_windows.ranges[i].start, from->changed_windows.ranges[i].end);
}

ScRangeSet *
sc_engine_changed_windows(ScEngine *engine)
{
	return &engine->changed_windows;
}
