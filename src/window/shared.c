/*-------------------------------------------------------------------------
 * shared.c
 *	  Windows that share panes: hop() and cumulate() (assigner.h).
 *
 * Panes are pieces of equal length.  A hopping window has size / pane of them, where pane is the greatest common divisor
 * of size and slide, so that both bounds of each window are bounds of panes.  A cumulating one is the first 1, 2, ... n
 * steps of a full window; a step is a pane.  Hopping windows that don't overlap are panes themselves, and can have gaps
 * between them, whose rows are in no window.  Steps of a calendar's windows are in calendar_steps.c.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "window/window_internal.h"

static int64
greatest_common_divisor(int64 a, int64 b)
{
	while (b != 0)
	{
		int64		rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

bool
sc_assigner_init_hop(ScAssigner *assigner, int64 slide, int64 size, int64 origin)
{
	assigner->kind = SC_WINDOW_HOP;
	assigner->size = size;
	assigner->slide = slide;
	assigner->origin = origin % slide;
	assigner->pane = slide >= size ? size : greatest_common_divisor(size, slide);
	return size / assigner->pane <= SC_MAX_PANES;
}

bool
sc_assigner_init_cumulate(ScAssigner *assigner, int64 step, int64 size, int64 origin)
{
	assigner->kind = SC_WINDOW_CUMULATE;
	assigner->size = size;
	assigner->slide = assigner->pane = step;
	assigner->origin = origin % size;
	return size / step <= SC_MAX_PANES;
}

/* Are they cumulating windows of a calendar? */
static inline bool
is_calendar(const ScAssigner *assigner)
{
	return assigner->unit != 0;
}

/* A hopping window or the gap behind it. */
static void
separate_pane(const ScAssigner *assigner, int64 event_time, ScPaneSpan *span)
{
	int64		offset = sc_grid_offset(event_time, assigner->origin, assigner->slide);

	span->key = span->from = event_time - offset;
	span->to = span->from + assigner->size;
	span->none = offset >= assigner->size;
	if (span->none)
	{
		span->from = span->to;
		span->to = span->key + assigner->slide;
	}
}

bool
sc_shared_pane(const ScAssigner *assigner, int64 event_time, ScPaneSpan *span)
{
	ScPaneSpan	result = {0};

	if (is_calendar(assigner))
		return sc_steps_pane(assigner, event_time, span);
	/* no sum below overflows within this */
	if (event_time < MIN_TIMESTAMP + assigner->size || event_time > END_TIMESTAMP - assigner->size - assigner->slide)
		return false;
	if (!sc_assigner_is_shared(assigner))
		separate_pane(assigner, event_time, &result);
	else
	{
		result.key = result.from = event_time - sc_grid_offset(event_time, assigner->origin % assigner->pane, assigner->pane);
		result.to = result.from + assigner->pane;
	}
	*span = result;
	return true;
}

/* The full window of a cumulating one's pane begins there. */
static int64
full_start(const ScAssigner *assigner, int64 pane_key)
{
	return pane_key - sc_grid_offset(pane_key, assigner->origin, assigner->size);
}

ScWindow
sc_shared_first_window(const ScAssigner *assigner, int64 pane_key)
{
	ScWindow	window = {0};

	if (is_calendar(assigner))
	{
		(void) sc_steps_window_behind(assigner, pane_key, pane_key, &window);
		return window;
	}
	if (assigner->kind == SC_WINDOW_CUMULATE)
	{
		window.start = full_start(assigner, pane_key);
		window.end = pane_key + assigner->pane;
		return window;
	}
	/* the first start behind that of one which ends where the pane begins, or before */
	window.start = pane_key - assigner->size;
	window.start += assigner->slide - sc_grid_offset(window.start, assigner->origin, assigner->slide);
	window.end = window.start + assigner->size;
	return window;
}

bool
sc_shared_window_behind(const ScAssigner *assigner, int64 pane_key, int64 after, ScWindow *window)
{
	int64		steps;

	if (is_calendar(assigner))
		return sc_steps_window_behind(assigner, pane_key, after, window);
	if (sc_shared_last_end(assigner, pane_key) <= after)
		return false;
	*window = sc_shared_first_window(assigner, pane_key);
	if (window->end > after)
		return true;
	steps = (after - window->end) / assigner->slide + 1;
	window->end += steps * assigner->slide;
	if (assigner->kind == SC_WINDOW_HOP)
		window->start += steps * assigner->slide;
	return true;
}

int64
sc_shared_last_end(const ScAssigner *assigner, int64 pane_key)
{
	if (is_calendar(assigner))
		return sc_steps_last_end(assigner, pane_key);
	if (assigner->kind == SC_WINDOW_CUMULATE)
		return full_start(assigner, pane_key) + assigner->size;
	return pane_key - sc_grid_offset(pane_key, assigner->origin, assigner->slide) + assigner->size;
}

int64
sc_shared_end_before(const ScAssigner *assigner, const ScWindow *window)
{
	return is_calendar(assigner) ? sc_steps_end_before(assigner, window) : window->end - assigner->slide;
}

int64
sc_shared_block(const ScAssigner *assigner, const ScWindow *window)
{
	int64		offset;

	if (assigner->kind == SC_WINDOW_CUMULATE)
		return window->start;
	offset = sc_grid_offset(window->start, assigner->origin, assigner->size);
	return offset == 0 ? window->start : window->start - offset + assigner->size;
}

int64
sc_shared_last_start(const ScAssigner *assigner, int64 pane_key)
{
	return pane_key - sc_grid_offset(pane_key, assigner->origin, assigner->slide);
}

/*
 * As a hopping window slides on, the new panes are merged into the beginning of a block, and, backwards, into an end
 * of one, which takes the end behind it in, too; then the one is merged with the other.
 */
bool
sc_shared_has_blocks(const ScAssigner *assigner)
{
	return assigner->kind == SC_WINDOW_CUMULATE ||
		assigner->size / assigner->pane > 2 * (assigner->slide / assigner->pane) + 2;
}
