/*-------------------------------------------------------------------------
 * event_time.c
 *	  The watermark of one query, and the windows that it closes (engine.h).
 *
 * With emit close the panes whose end the watermark passes are emitted (emit.c; large ones in steps, leaving.c), and
 * those that are past their allowed lateness are freed.  What late rows change between the two is emitted at
 * barriers, and before the pane is freed.
 *
 * Rows whose event time is the time of their commit are never late: it is decided for a whole transaction, as it begins,
 * in which windows they are, by its commit's time and the watermark alone.
 *
 * Rules that must hold: the watermark moves in sc_engine_advance_watermark and what is made of
 * control messages only, and never back but in sc_engine_reset, so that results depend on
 * the log alone; a pane was emitted (emit close) if and only if the watermark is past its
 * end.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/timed.h"

static void
set_max_event_time(ScEngine *engine, int64 max_event_time)
{
	engine->time.max_event_time = max_event_time;
	engine->watermark = sc_watermark(max_event_time, engine->options.watermark_delay);
}

/* Windows that end at or before it are over whatever the watermark is. */
static int64
ordinary_end(const ScEngine *engine)
{
	return sc_plausibly_over(&engine->time, engine->options.watermark_delay,
							 engine->options.allowed_lateness);
}

void
sc_window_is_over_for_good(ScEngine *engine, const ScWindow *window)
{
	sc_closed_add(&engine->time, sc_assigner_place(&engine->def->window, window), window->end, ordinary_end(engine));
}

/* Frees panes, whose windows are over then. */
static void
close_panes(ScEngine *engine, int first, int n)
{
	int64		ordinary = ordinary_end(engine);

	if (n == 0)
		return;
	for (int i = first; i < first + n; i++)
	{
		const ScWindow *window = &engine->panes[i]->window;

		sc_closed_add(&engine->time, sc_assigner_place(&engine->def->window, window), window->end, ordinary);
	}
	sc_panes_close(engine, first, n);
}

/*
 * The number of panes that were emitted as their windows closed: the head of the array, as
 * that is in the order of ends.
 */
int
sc_engine_emitted_panes(const ScEngine *engine)
{
	int			low = 0;
	int			high = engine->npanes;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (engine->panes[middle]->emitted)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Is a window of the pane not past its lateness yet? */
static bool
is_needed(const ScEngine *engine, const ScPane *pane)
{
	return sc_assigner_needed_until(&engine->def->window, pane->key,
									engine->options.allowed_lateness) > engine->watermark;
}

/* Emits the windows whose end the watermark has passed, frees those past lateness. */
static void
close_windows(ScEngine *engine)
{
	bool		update = (engine->options.emit == SC_EMIT_UPDATE);
	int			nemitted;
	int			n = 0;

	if (engine->shared)
	{
		sc_shared_close(engine, ordinary_end(engine));
		return;
	}
	if (engine->timed)
	{
		sc_timed_close(engine);
		return;
	}
	nemitted = update ? engine->npanes : sc_engine_emitted_panes(engine);
	while (n < engine->npanes && !is_needed(engine, engine->panes[n]))
	{
		if (n < nemitted)
			sc_emit_changes(engine, engine->panes[n]);
		n++;
	}
	for (int i = nemitted; i < engine->npanes &&
		 engine->panes[i]->window.end <= engine->watermark; i++)
	{
		if (sc_pane_can_leave(engine, engine->panes[i]))
			sc_pane_leave(engine, engine->panes[i]);
		else
			sc_emit_pane(engine, engine->panes[i]);
	}
	close_panes(engine, 0, n);
}

/* Is a window of rows of that time over for good? */
static bool
is_too_late(const ScEngine *engine, int64 event_time)
{
	const ScAssigner *assigner = &engine->def->window;
	ScPaneSpan	span;
	int64		end;

	if (event_time >= engine->watermark || !sc_assigner_has_windows(assigner) ||
		!sc_assigner_pane(assigner, event_time, &span) || span.none)
		return false;
	end = engine->sessions ? sc_session_over_at(assigner, event_time) : sc_assigner_first_end(assigner, span.key);
	return sc_is_past_lateness(end, engine->options.allowed_lateness, engine->watermark);
}

/* The time of rows whose own window is over: the watermark, or where the next window begins if it is in none. */
static int64
time_of_moved(const ScEngine *engine)
{
	ScPaneSpan	span;

	if (sc_assigner_pane(&engine->def->window, engine->watermark, &span) && span.none)
		return span.to;
	return engine->watermark;
}

bool
sc_engine_begin_transaction(ScEngine *engine, int64 commit_time)
{
	/* without groups nothing is ever over */
	bool		moved = engine->def->processing_time && !engine->def->stateless && is_too_late(engine, commit_time);

	engine->commit_time = moved ? time_of_moved(engine) : commit_time;
	return moved;
}

/*
 * A transaction is at its end: sessions that have lost rows in it become what is left of them.  That can be over by now;
 * where barriers are isn't known to the log.
 */
static void
settle_sessions(ScEngine *engine)
{
	int64		at;

	sc_sessions_settle(engine);
	if (sc_timed_next_due(engine, &at) && at <= engine->watermark)
		engine->closing = true;
}

/* Moves the watermark, and closes what it passes; goes on with that after an error. */
static void
advance(ScEngine *engine, int64 max_event_time)
{
	engine->running = true;
	if (engine->nloose > 0)
		settle_sessions(engine);
	if (engine->at)
		sc_bucket_account(engine, engine->at);
	if (max_event_time > engine->time.max_event_time)
	{
		set_max_event_time(engine, max_event_time);
		engine->closing = true;
	}
	if (engine->closing)
		close_windows(engine);
	engine->closing = false;
	/* the next row looks anew which of its windows are over */
	if (engine->shared)
		engine->span = (ScPaneSpan) SC_NO_PANE;
	engine->running = false;
}

void
sc_engine_advance_watermark(ScEngine *engine, int64 max_event_time, int64 plausible_time)
{
	engine->time.plausible_time = Max(engine->time.plausible_time, plausible_time);
	advance(engine, max_event_time);
}

void
sc_engine_set_delay(ScEngine *engine, int64 watermark_delay)
{
	int64		old_delay = engine->options.watermark_delay;

	if (watermark_delay < old_delay && engine->time.max_event_time != SC_NO_EVENT_TIME)
		engine->closing = true;
	if (watermark_delay > old_delay)
		sc_timed_remember(engine);
	engine->options.watermark_delay = watermark_delay;
	set_max_event_time(engine, sc_event_time_for_delay(engine->time.max_event_time, old_delay,
													   watermark_delay));
	advance(engine, SC_NO_EVENT_TIME);
}

/*
 * The windows that were emitted and lie ahead of "watermark" are finished.  Others that were
 * emitted are still before it, so that what is emitted stays the head of the array.
 */
static void
finish_ahead(ScEngine *engine, int64 watermark)
{
	int			nemitted = engine->options.emit == SC_EMIT_UPDATE ? 0 : sc_engine_emitted_panes(engine);
	int			first = nemitted;

	while (first > 0 && engine->panes[first - 1]->window.end > watermark)
		first--;
	for (int i = first; i < nemitted; i++)
		sc_emit_changes(engine, engine->panes[i]);
	close_panes(engine, first, nemitted - first);
}

void
sc_engine_reset(ScEngine *engine, int64 event_time)
{
	int64		watermark = sc_watermark(event_time, engine->options.watermark_delay);

	if (!engine->closing && watermark < engine->watermark)
	{
		engine->running = true;
		if (engine->at)
			sc_bucket_account(engine, engine->at);
		if (engine->shared)
			sc_shared_go_back(engine, watermark, ordinary_end(engine));
		else if (engine->timed)
			sc_timed_go_back(engine, watermark);
		else
			finish_ahead(engine, watermark);
		set_max_event_time(engine, event_time);
		engine->running = false;
	}
	advance(engine, event_time);
}

bool
sc_engine_is_interrupted(const ScEngine *engine)
{
	return engine->closing || (engine->emission.pane != NULL && engine->leaving == NIL);
}

const ScEventTime *
sc_engine_time(const ScEngine *engine)
{
	return &engine->time;
}

void
sc_engine_set_time(ScEngine *engine, const ScEventTime *time)
{
	engine->time = *time;
	set_max_event_time(engine, time->max_event_time);
	if (!sc_assigner_has_windows(&engine->def->window) && !engine->rows_have_ttl)
	{
		/* without its state it begins anew: nothing is ever over */
		engine->time.closed_until = SC_NO_EVENT_TIME;
		memset(&engine->time.closed_windows, 0, sizeof(ScWindowRanges));
	}
	else if (sc_closed_has_times(&engine->time))
	{
		int64		last = engine->time.closed_windows.ranges[0].end - 1;

		sc_closed_complete(&engine->time, sc_assigner_closed_by(&engine->def->window, last));
	}
	if (engine->shared)
		sc_shared_set_time(engine);
}

void
sc_engine_close_until(ScEngine *engine, int64 end)
{
	const ScAssigner *assigner = &engine->def->window;
	ScPaneSpan	span;
	ScWindow	first;

	/* the first window that ends behind it is one that holds it */
	if (assigner->kind != SC_WINDOW_SESSION)
	{
		if (TIMESTAMP_NOT_FINITE(end) || !sc_assigner_pane(assigner, end, &span))
			return;
		if (span.none)			/* the place of the window before reaches to the next one */
			end = span.to;
		else
		{
			first = sc_assigner_first_window(assigner, span.key);
			end = sc_assigner_place(assigner, &first).start;
		}
	}
	engine->time.closed_until = Max(engine->time.closed_until, end);
	sc_windows_before_have_changed(engine, end);
}

void
sc_engine_ahead_windows(const ScEngine *engine, ScWindowRanges *ahead)
{
	int			first = engine->npanes;

	if (engine->shared)
	{
		sc_shared_ahead(engine, ahead);
		return;
	}
	if (engine->timed)
	{
		sc_timed_ahead(engine, ahead);
		return;
	}
	while (first > 0 && engine->panes[first - 1]->window.start > engine->time.max_event_time)
		first--;
	for (int i = first; i < engine->npanes; i++)
	{
		ScWindowRange place = sc_assigner_place(&engine->def->window, &engine->panes[i]->window);

		sc_ranges_add(ahead, place.start, place.end);
	}
}

void
sc_engine_free_closed(ScEngine *engine)
{
	/* panes of several windows go when the last of them is past its lateness */
	for (int i = engine->npanes - 1; i >= 0 && !engine->shared && !engine->timed; i--)
	{
		const ScWindow *window = &engine->panes[i]->window;

		if (sc_closed_contains(&engine->time, sc_assigner_place(&engine->def->window, window)))
			sc_panes_close(engine, i, 1);
	}
}

int64
sc_engine_next_due(const ScEngine *engine)
{
	int64		watermark = PG_INT64_MAX;

	if (engine->timed)
		(void) sc_timed_next_due(engine, &watermark);
	else if (engine->npanes > 0)
		watermark = sc_assigner_needed_until(&engine->def->window, engine->panes[0]->key,
											 engine->options.allowed_lateness);
	if (engine->options.emit == SC_EMIT_CLOSE && engine->shared)
	{
		ScWindow	window;

		if (sc_shared_next_end(engine, engine->emitted_until, &window))
			watermark = Min(watermark, window.end);
	}
	else if (engine->options.emit == SC_EMIT_CLOSE && !engine->timed)
	{
		int			n = sc_engine_emitted_panes(engine);

		if (n < engine->npanes)
			watermark = Min(watermark, engine->panes[n]->window.end);
	}
	return watermark == PG_INT64_MAX ? watermark :
		sc_time_add(watermark, engine->options.watermark_delay);
}
