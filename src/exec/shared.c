/*-------------------------------------------------------------------------
 * shared.c
 *	  Windows of several panes: hop() and cumulate().
 *
 * A row is accumulated once, in its pane.  A window is made when it is emitted: a view, which is a pane of its own
 * whose groups are merged of those of all its panes (merge.c), in the order of the panes.  Kept inputs follow each
 * other in that order.  It is emitted as any pane is (emit.c), and freed; but what it has in common with the next
 * one is kept (running.c).
 *
 * With emit close a window is emitted whole when the watermark passes its end; with emit update, and for what late rows
 * change of windows that were emitted, a view has only the groups that have changed in one of its panes.  A bucket's mark
 * says that of a group since the last such emission.  Whether a row is in the result isn't known of each group and
 * window: one that HAVING doesn't accept is deleted, whether it is there or not, and so is one whose group has no rows any
 * more in any of the panes (retract.c): the view has such a group, which is why it stays in its pane.
 *
 * Which windows were emitted, and which are past their lateness, is known by their ends, of which no two windows have the
 * same: engine->emitted_until, engine->over_until.  Those that are over whatever the watermark says are in
 * engine->time (window/closed.c): they are never emitted again, and rows are late for them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/running.h"
#include "utils/memutils.h"

/* Is the window over for good: do rows for it come too late? */
bool
sc_shared_is_over(const ScEngine *engine, const ScWindow *window)
{
	return sc_is_past_lateness(window->end, engine->options.allowed_lateness, engine->watermark) ||
		sc_closed_contains(&engine->time, sc_assigner_place(&engine->def->window, window));
}

/* Is one of a pane's windows? */
bool
sc_shared_some_over(const ScEngine *engine, int64 pane_key)
{
	ScWindow	window = sc_assigner_first_window(&engine->def->window, pane_key);

	do
	{
		if (sc_shared_is_over(engine, &window))
			return true;
	} while (sc_assigner_next_window(&engine->def->window, pane_key, &window));
	return false;
}

/* The same of one that was over before the watermark moved, and so isn't to be emitted. */
static bool
is_closed(const ScEngine *engine, const ScWindow *window)
{
	return sc_closed_contains(&engine->time, sc_assigner_place(&engine->def->window, window));
}

/* Of the windows that have open panes and end behind "after", the one that ends first; false: there is none. */
bool
sc_shared_next_end(const ScEngine *engine, int64 after, ScWindow *window)
{
	const ScAssigner *assigner = &engine->def->window;
	bool		found = false;

	for (int i = 0; i < engine->npanes; i++)
	{
		ScWindow	next;

		/* those of the panes behind end no earlier */
		if (found && sc_assigner_first_end(assigner, engine->panes[i]->key) >= window->end)
			break;
		if (sc_shared_window_behind(assigner, engine->panes[i]->key, after, &next) &&
			(!found || next.end < window->end))
		{
			*window = next;
			found = true;
		}
	}
	return found;
}

/* ---------------------------------------------------------------------
 * Views
 * --------------------------------------------------------------------- */

/* Adds the keys of the pane's changed groups to "keys". */
static void
add_changed_keys(ScEngine *engine, ScBucket *keys, ScBucket *from)
{
	MemoryContext old = MemoryContextSwitchTo(engine->tmpcontext->ecxt_per_tuple_memory);
	uint32		nchanged = sc_bucket_nchanged(from);

	for (uint32 i = 0; i < nchanged; i++)
	{
		ScGroup    *group = sc_bucket_group(engine, from, sc_bucket_changed(from, i));

		if (group->flags & from->mark)
			sc_bucket_add_key(engine, keys, sc_keys_hash_of(engine, group));
		MemoryContextReset(CurrentMemoryContext);
	}
	MemoryContextSwitchTo(old);
}

/* The first and the last pane of the window that are open: panes[*first] to below panes[*next]. */
static void
find_panes(const ScEngine *engine, const ScWindow *window, int *first, int *next)
{
	*first = sc_pane_position(engine, window->start);
	*next = sc_pane_position(engine, window->end);
}

static void
free_view(ScEngine *engine, ScPane *view)
{
	if (sc_running_keeps(engine, view->bucket))
		view->bucket->pane = NULL;
	else
		sc_bucket_free(engine, view->bucket);
	pfree(view);
}

/* Merges what has changed of the window's panes into the bucket. */
static void
merge_changed(ScEngine *engine, ScBucket *bucket, int first, int next)
{
	ScBucket   *keys = sc_bucket_create(engine, NULL);

	for (int i = first; i < next; i++)
		add_changed_keys(engine, keys, engine->panes[i]->bucket);
	for (int i = first; i < next && keys->ngroups > 0; i++)
		sc_bucket_merge_keys(engine, bucket, engine->panes[i]->bucket, keys);
	sc_bucket_free(engine, keys);
}

/* The window's groups, or those that have changed. */
static ScBucket *
merge_window(ScEngine *engine, const ScWindow *window, bool all)
{
	ScBucket   *bucket = sc_bucket_create(engine, NULL);
	int			first;
	int			next;

	find_panes(engine, window, &first, &next);
	if (!all)
		merge_changed(engine, bucket, first, next);
	for (int i = first; all && i < next; i++)
		sc_bucket_merge(engine, bucket, engine->panes[i]->bucket);
	return bucket;
}

/*
 * The window with all its groups, or those that have changed, whose rows may be in the result; to be freed.
 * What an upper part makes of changed groups is made of all.
 */
static ScPane *
make_view(ScEngine *engine, const ScWindow *window, bool all)
{
	ScPane	   *view = MemoryContextAllocZero(engine->context, sizeof(ScPane));

	view->key = window->start;
	view->window = *window;
	view->emitted = !all;
	if (all)
		view->bucket = sc_running_window(engine, window);
	if (view->bucket == NULL)
		view->bucket = merge_window(engine, window, all || engine->upper != NULL);
	view->bucket->pane = view;
	for (uint32 n = 0; !all && n < view->bucket->ngroups; n++)
		sc_bucket_group(engine, view->bucket, n)->flags |= SC_GROUP_EMITTED;
	sc_bucket_account_children(engine, view->bucket);
	return view;
}

/*
 * Emits a window, or what has changed of it.  After an error that left one unfinished: goes on with that, and does
 * nothing for those before it.
 */
static void
emit_window(ScEngine *engine, const ScWindow *window, bool all)
{
	ScPane	   *view = engine->emission.pane;

	if (view == NULL)
		view = make_view(engine, window, all);
	else if (view->window.start != window->start || view->window.end != window->end || view->emitted == all)
		return;
	sc_emit_view(engine, view);
	free_view(engine, view);
}

/* ---------------------------------------------------------------------
 * What is emitted when
 * --------------------------------------------------------------------- */

/* The groups of the window's panes count as emitted; or of all panes. */
static void
forget_changes(ScEngine *engine, int first, int next)
{
	for (int i = first; i < next; i++)
	{
		ScBucket   *bucket = engine->panes[i]->bucket;
		uint32		n = sc_bucket_nchanged(bucket);

		for (uint32 c = 0; c < n; c++)
			sc_bucket_group(engine, bucket, sc_bucket_changed(bucket, c))->flags &= ~bucket->mark;
	}
}

/* Panes that are part of an emitted window; with emit update all: the first so many. */
static int
emitted_panes(const ScEngine *engine)
{
	int			n = 0;

	if (engine->options.emit == SC_EMIT_UPDATE)
		return engine->npanes;
	while (n < engine->npanes &&
		   sc_assigner_first_end(&engine->def->window, engine->panes[n]->key) <= engine->emitted_until)
		n++;
	return n;
}

static bool
has_changes(ScEngine *engine, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (sc_pane_nchanged(engine->panes[i]) > 0)
			return true;
	}
	return false;
}

/*
 * Is one of the window's panes among those that have changed, or is it the window that an error left?  Asked if it is
 * costly to be wrong.
 */
static bool
may_have_changed(ScEngine *engine, const ScWindow *window)
{
	int			first;
	int			next;

	if (engine->upper == NULL || engine->emission.pane != NULL)
		return true;
	find_panes(engine, window, &first, &next);
	for (int i = first; i < next; i++)
	{
		if (sc_pane_nchanged(engine->panes[i]) > 0)
			return true;
	}
	return false;
}

/*
 * Emits what has changed of windows that were emitted, all of them with emit update, that end at or before "until" and
 * aren't past their lateness.
 */
static void
emit_changes(ScEngine *engine, int64 until)
{
	ScWindow	window = {.end = engine->over_until};

	/* one that is emitted whole comes behind all these */
	if (engine->emission.pane != NULL && !engine->emission.pane->emitted)
		return;
	while (sc_shared_next_end(engine, window.end, &window) && window.end <= until)
	{
		if (!is_closed(engine, &window) && may_have_changed(engine, &window))
			emit_window(engine, &window, false);
	}
}

static int64
last_emitted(const ScEngine *engine)
{
	return engine->options.emit == SC_EMIT_UPDATE ? PG_INT64_MAX : engine->emitted_until;
}

/* Without lateness what is emitted when it closes has no changes behind that. */
void
sc_shared_emit_changes(ScEngine *engine)
{
	int			n = emitted_panes(engine);
	int64		until = last_emitted(engine);

	if (engine->emission.pane == NULL && (until <= engine->over_until || !has_changes(engine, n)))
		return;
	emit_changes(engine, until);
	forget_changes(engine, 0, n);
}

/* emit close: emits the windows that the watermark has passed. */
static void
emit_passed(ScEngine *engine)
{
	ScWindow	window;

	while (sc_shared_next_end(engine, engine->emitted_until, &window) && window.end <= engine->watermark)
	{
		if (!is_closed(engine, &window))
			emit_window(engine, &window, true);
		engine->emitted_until = window.end;
	}
	engine->emitted_until = Max(engine->emitted_until, engine->watermark);
}

/* Windows that had rows, and end in (from, until], are over for good. */
static void
remember_over(ScEngine *engine, int64 from, int64 until, int64 ordinary)
{
	ScWindow	window = {.end = from};

	while (sc_shared_next_end(engine, window.end, &window) && window.end <= until)
		sc_closed_add(&engine->time, sc_assigner_place(&engine->def->window, &window), window.end, ordinary);
}

/* Frees the panes of which no window is needed any more. */
static void
free_panes(ScEngine *engine)
{
	int			n = 0;

	while (n < engine->npanes &&
		   sc_is_past_lateness(sc_assigner_last_end(&engine->def->window, engine->panes[n]->key),
							   engine->options.allowed_lateness, engine->watermark))
		n++;
	sc_panes_close(engine, 0, n);
	sc_running_trim(engine);
}

/*
 * The watermark has moved: emits windows that it passes, and what has changed of those that it leaves behind for
 * good.  What has changed of others waits for the barrier, and so do the marks: those of a window that was emitted
 * meanwhile lead to upserts of the same.  "ordinary": sc_plausibly_over().  To be called again after an error in it.
 */
void
sc_shared_close(ScEngine *engine, int64 ordinary)
{
	int64		over = sc_time_add(engine->watermark, -engine->options.allowed_lateness);

	if (over > engine->over_until)
		emit_changes(engine, Min(over, last_emitted(engine)));
	if (engine->options.emit == SC_EMIT_CLOSE)
		emit_passed(engine);
	if (over > engine->over_until)
	{
		remember_over(engine, engine->over_until, over, ordinary);
		engine->over_until = over;
	}
	free_panes(engine);
}

/* The watermark goes back: windows that were emitted and lie ahead of it are over for good. */
void
sc_shared_go_back(ScEngine *engine, int64 watermark, int64 ordinary)
{
	int64		over = sc_time_add(watermark, -engine->options.allowed_lateness);

	if (engine->options.emit == SC_EMIT_CLOSE)
	{
		sc_shared_emit_changes(engine);
		remember_over(engine, watermark, engine->emitted_until, ordinary);
		engine->emitted_until = watermark;
	}
	/* also of windows that had no rows when the watermark passed them: those of their panes that came later were late */
	if (over < engine->over_until)
		remember_over(engine, over, engine->over_until, ordinary);
	engine->over_until = Min(engine->over_until, over);
	sc_running_free(engine);
}

/* What is restored is as of the watermark. */
void
sc_shared_set_time(ScEngine *engine)
{
	engine->emitted_until = engine->watermark;
	engine->over_until = engine->watermark == SC_NO_EVENT_TIME ? SC_NO_EVENT_TIME :
		sc_time_add(engine->watermark, -engine->options.allowed_lateness);
}

/* Adds the windows with open panes that begin behind the greatest event time. */
void
sc_shared_ahead(const ScEngine *engine, ScWindowRanges *ahead)
{
	const ScAssigner *assigner = &engine->def->window;

	for (int i = engine->npanes - 1; i >= 0 && engine->panes[i]->key > engine->time.max_event_time; i--)
	{
		ScWindow	window = sc_assigner_first_window(assigner, engine->panes[i]->key);

		do
		{
			ScWindowRange place = sc_assigner_place(assigner, &window);

			if (window.start > engine->time.max_event_time)
				sc_ranges_add(ahead, place.start, place.end);
		} while (sc_assigner_next_window(assigner, engine->panes[i]->key, &window));
	}
}
