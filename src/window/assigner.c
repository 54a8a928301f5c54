/*-------------------------------------------------------------------------
 * assigner.c
 *	  What commands and errors need to know of windows (assigner.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"
#include "window/assigner.h"

/* The window functions; the first one of a kind has its name */
static const struct
{
	ScWindowKind kind;
	const char *name;
	int			nargs;			/* with those that have a default */
} functions[] = {
	{SC_WINDOW_TUMBLE, "tumble", 3},	/* of timestamp */
	{SC_WINDOW_TUMBLE, "tumble", 4},
	{SC_WINDOW_TUMBLE, "_tumble", 3},	/* what 0.2 had, in its definitions */
	{SC_WINDOW_HOP, "hop", 4},
	{SC_WINDOW_CUMULATE, "cumulate", 4},	/* of timestamp */
	{SC_WINDOW_CUMULATE, "cumulate", 5},
	{SC_WINDOW_SESSION, "session", 2}
};

bool
sc_window_kind_of(const char *function, int nargs, ScWindowKind *kind)
{
	for (int i = 0; i < lengthof(functions); i++)
	{
		if (functions[i].nargs == nargs && strcmp(functions[i].name, function) == 0)
		{
			*kind = functions[i].kind;
			return true;
		}
	}
	return false;
}

const char *
sc_window_function(ScWindowKind kind)
{
	for (int i = 0; i < lengthof(functions); i++)
	{
		if (functions[i].kind == kind)
			return functions[i].name;
	}
	elog(ERROR, "windows of kind %d have no function", (int) kind);
}

void
sc_assigner_init_tumble(ScAssigner *assigner, int64 size, int64 origin)
{
	assigner->kind = SC_WINDOW_TUMBLE;
	assigner->size = size;
	assigner->origin = origin % size;
}

void
sc_assigner_init_none(ScAssigner *assigner)
{
	assigner->kind = SC_WINDOW_NONE;
	assigner->size = 0;
	assigner->origin = 0;
}

void
sc_assigner_init_session(ScAssigner *assigner, int64 gap)
{
	assigner->kind = SC_WINDOW_SESSION;
	assigner->size = gap;
	assigner->origin = 0;
}

void
sc_assigner_sign(const ScAssigner *assigner, StringInfo buf)
{
	appendStringInfo(buf, "window %d " INT64_FORMAT " " INT64_FORMAT,
					 (int) assigner->kind, assigner->size, assigner->origin);
	if (assigner->kind == SC_WINDOW_HOP || assigner->kind == SC_WINDOW_CUMULATE)
		appendStringInfo(buf, " " INT64_FORMAT, assigner->slide);
	if (assigner->kind == SC_WINDOW_CUMULATE && assigner->unit != 0)
		appendStringInfo(buf, " %d", assigner->step_unit);
	if (assigner->unit != 0)
		appendStringInfo(buf, " %d %d %s", assigner->unit, assigner->local + assigner->shown_local,
						 assigner->zone ? pg_get_timezone_name(assigner->zone) : "-");
}

bool
sc_assigner_is_identified_by(const ScAssigner *assigner, AttrNumber column)
{
	/* cumulating windows of one start have different ends */
	if (assigner->kind == SC_WINDOW_CUMULATE)
		return column == SC_WINDOW_END || column == SC_WINDOW_TIME;
	/* the end of a session moves as rows come */
	if (assigner->kind == SC_WINDOW_SESSION)
		return column == SC_WINDOW_START;
	/* windows of one size have no two columns that could differ independently */
	return column >= SC_WINDOW_START && column <= SC_WINDOW_TIME;
}

int64
sc_assigner_closed_by(const ScAssigner *assigner, int64 event_time)
{
	ScPaneSpan	span;
	ScWindow	last;

	/* where its window can't be expressed, those before it end before it begins */
	if (!sc_assigner_pane(assigner, event_time, &span))
		return event_time;
	/* those of rows that would join the last of them, too */
	if (assigner->kind == SC_WINDOW_SESSION)
		return sc_session_reach(assigner, event_time, event_time).end;
	last = sc_assigner_first_window(assigner, span.key);
	if (assigner->kind == SC_WINDOW_HOP)
		last.start = sc_assigner_last_end(assigner, span.key) - assigner->size;
	last.end = sc_assigner_last_end(assigner, span.key);
	return sc_assigner_place(assigner, &last).end;
}

bool
sc_assigner_last_closed(const ScAssigner *assigner, AttrNumber column, int64 watermark, int64 *value)
{
	if (assigner->kind == SC_WINDOW_CALENDAR && column == SC_WINDOW_START)
		return sc_calendar_last_closed(assigner, watermark, value);
	*value = watermark;
	if (column == SC_WINDOW_START)
		*value = sc_time_add(watermark, -assigner->size);
	else if (column == SC_WINDOW_TIME)
		*value = sc_time_add(watermark, -1);
	return *value >= MIN_TIMESTAMP;
}

/* Of a calendar's windows whose places end by "end": the end of the last. */
static int64
calendar_last_end(const ScAssigner *assigner, int64 end)
{
	ScPaneSpan	span;

	if (TIMESTAMP_NOT_FINITE(end) || !sc_assigner_pane(assigner, end - 1, &span) || span.none)
		return end;
	return Max(end, sc_calendar_end(assigner, span.key));
}

ScWindowRange
sc_assigner_column_range(const ScAssigner *assigner, AttrNumber column, ScWindowRange range)
{
	ScWindowRange ends = {.start = sc_time_add(range.start, 1),.end = range.end};

	if (column == SC_WINDOW_START)
		return (ScWindowRange) {.start = range.start,.end = sc_time_add(range.end, -1)};
	if (assigner->kind == SC_WINDOW_CALENDAR)
		ends.end = calendar_last_end(assigner, range.end);
	else if (assigner->kind != SC_WINDOW_CUMULATE)
		ends = (ScWindowRange) {.start = sc_time_add(range.start, assigner->size),
			.end = sc_time_add(range.end, assigner->size - 1)};
	if (column == SC_WINDOW_TIME)
		return (ScWindowRange) {.start = sc_time_add(ends.start, -1),.end = sc_time_add(ends.end, -1)};
	return ends;
}
