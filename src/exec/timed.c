/*-------------------------------------------------------------------------
 * timed.c
 *	  What the watermark does to groups that come and go with event time (timed.h).
 *
 * A session of emit close is emitted when the watermark is behind its end, and is closed when it is past its lateness;
 * in between a row can extend it, make it part of another one, or open it again.  With emit update it is
 * emitted at barriers, as it changes.  A closed one has no states any more.  It is deleted when each row that would join it
 * would be late by itself; and not while the next one of its key is there, as a row that joins that can join both.
 * So whatever is closed is what the definition makes of all rows but the late ones.
 *
 * A group with a ttl is deleted when the watermark is that far behind its last row, and its result row stays.  Whose
 * time has come the directory says (due.c).  If rows can be taken back each has the ttl itself: one that is past it
 * when it comes is late, and one that is past it when it is to be taken back stays counted.  So whichever can be taken back
 * was counted, and its group hasn't been deleted since then, as its last row is no older.  That a row is past its ttl is
 * remembered when the watermark goes back, but for rows that are ahead of all plausible ones.
 *
 * A row is late if it would join a closed session; or if it would be a session past its lateness, and joins none, or only
 * the beginning of one that was opened when it was already late.  A watermark that goes back opens none again: engine->time remembers up to when sessions are over whatever it says, and the
 * times of those that were closed by implausible rows.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/timed.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* A bucket is made anew when it has lost so many states that can't be freed, and more than it has groups */
#define LOST_STATES		10000

/* The pane of all of time; NULL: no row has come yet. */
static ScPane *
only_pane(const ScEngine *engine)
{
	return engine->npanes > 0 ? engine->panes[0] : NULL;
}

/* The watermark at which a group with a ttl is deleted, or a session is closed; or, if it is that, deleted. */
static int64
over_at(const ScEngine *engine, const ScTimes *times)
{
	int64		end;

	/* without any event time so far */
	if (!engine->sessions && times->last == SC_NO_EVENT_TIME)
		return PG_INT64_MAX;
	if (!engine->sessions)
		return sc_time_add(times->last, engine->options.ttl);
	end = sc_time_add(sc_session_over(engine, times), engine->options.allowed_lateness);
	return times->closed ? sc_time_add(end, engine->def->window.size) : end;
}

/* The watermark at which something happens to it next. */
int64
sc_group_due_at(const ScEngine *engine, const ScTimes *times)
{
	if (engine->sessions && engine->options.emit == SC_EMIT_CLOSE && !times->over && !times->closed)
		return sc_session_over(engine, times);
	return over_at(engine, times);
}

/* The bucket's groups were loaded, or have other numbers.  The current context is a short one. */
void
sc_timed_renew(ScEngine *engine, ScBucket *bucket)
{
	if (engine->sessions)
		sc_sessions_renew(engine, bucket);
	sc_due_renew(bucket);
	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		ScTimes    *times = sc_group_times(engine, sc_bucket_group(engine, bucket, n));

		if (times->life != SC_LIVE)
			continue;
		/* what was due has been emitted, or failed, before anything was written or taken */
		times->over = engine->sessions && engine->options.emit == SC_EMIT_CLOSE && !times->closed &&
			sc_session_over(engine, times) <= engine->watermark;
		sc_due_push(engine, bucket, n);
	}
}

void
sc_timed_touch(ScEngine *engine, ScBucket *bucket, ScGroup *group, bool isnew)
{
	ScTimes    *times = sc_group_times(engine, group);
	bool		timeless = times->last == SC_NO_EVENT_TIME;
	uint32		number = engine->new_number;

	times->last = Max(times->last, engine->row_time);
	/* the first event time makes the group due at an earlier time than never */
	if (!isnew && timeless && !sc_bucket_find_number(engine, bucket, times->position, &number))
		elog(ERROR, "group not found in its pane");
	if (isnew || timeless)
		sc_due_push(engine, bucket, number);
}

/* ---------- emission ---------- */

/* Is there something to be emitted of a group that is due, or has changed? */
bool
sc_timed_is_due(const ScEngine *engine, const ScBucket *bucket, const ScGroup *group)
{
	const ScTimes *times = sc_group_times(engine, group);
	bool		changed = (group->flags & bucket->mark) != 0;

	if (times->life != SC_LIVE)
		return times->life == SC_DEAD && engine->sessions && (group->flags & SC_GROUP_EMITTED);
	if (times->closed)
		return false;
	if (engine->options.emit == SC_EMIT_UPDATE)
		return changed;
	if (engine->emission.due && !times->over)
		return true;
	return changed && (times->over || (group->flags & SC_GROUP_EMITTED));
}

/* Chooses the groups whose time has come. */
static void
collect_due(ScEngine *engine, ScBucket *bucket)
{
	int64		at;
	uint32		number;

	while (sc_due_first(engine, bucket, &at, &number) && at <= engine->watermark)
	{
		sc_due_pop(engine, bucket);
		if (engine->ndue == engine->max_due)
		{
			Size		max = Max((Size) engine->max_due * 2, 64);

			if (engine->due == NULL)
				engine->due = MemoryContextAlloc(engine->context, max * sizeof(uint32));
			else
				engine->due = repalloc_huge(engine->due, max * sizeof(uint32));
			engine->max_due = max;
		}
		engine->due[engine->ndue++] = number;
	}
}

/* Deletes a session that is closed.  One that implausible rows have closed is remembered, and who would join it. */
static void
delete_session(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	const ScTimes *times = sc_group_times(engine, sc_bucket_group(engine, bucket, number));

	sc_closed_add_reach(&engine->time, sc_session_reach(&engine->def->window, times->start, times->last),
						sc_plausibly_over(&engine->time, engine->options.watermark_delay,
										  engine->options.allowed_lateness));
	sc_bucket_delete(engine, bucket, number);
}

/* Its time has come: it goes, unless it is needed for the next one of its key, which takes it along. */
static void
delete_if_last(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	uint32		left;
	uint32		right;

	sc_sessions_neighbours(engine, bucket, number, &left, &right);
	if (right == SC_NO_GROUP || sc_group_times(engine, sc_bucket_group(engine, bucket, right))->closed)
		delete_session(engine, bucket, number);
}

/* Closes a session: its row stays in the result.  The one before it isn't needed for it any more. */
static void
close_session(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);
	ScTimes    *times = sc_group_times(engine, group);
	uint32		left;
	uint32		right;

	sc_bucket_strip(engine, bucket, number);
	group->flags &= ~SC_GROUP_EMITTED;
	times->closed = true;
	engine->greatest_closed = Max(engine->greatest_closed, sc_session_window(engine, times).end);
	sc_sessions_neighbours(engine, bucket, number, &left, &right);
	if (left != SC_NO_GROUP)
	{
		const ScTimes *before = sc_group_times(engine, sc_bucket_group(engine, bucket, left));

		if (before->closed && over_at(engine, before) <= engine->watermark)
			delete_session(engine, bucket, left);
	}
}

/* A session that was due and is emitted, or a group past its ttl. */
static void
settle(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);
	ScTimes    *times = sc_group_times(engine, group);

	if (!engine->sessions)
	{
		sc_bucket_delete(engine, bucket, number);
		return;
	}
	if (!times->closed && over_at(engine, times) <= engine->watermark)
		close_session(engine, bucket, number);
	if (times->closed && over_at(engine, times) <= engine->watermark)
	{
		delete_if_last(engine, bucket, number);
		return;
	}
	times->over = true;
	/* that it was emitted has to be written, too */
	if (!bucket->all_changed && !(group->flags & SC_GROUP_LISTED))
		sc_bucket_list_changed(bucket, group, number);
	sc_due_push(engine, bucket, number);
}

/* The groups that were due are emitted: those past their time go, the others stay for rows that may come. */
static void
settle_due(ScEngine *engine, ScBucket *bucket)
{
	for (uint32 i = 0; i < engine->ndue; i++)
	{
		/* another one may have taken it along */
		if (sc_group_is_live(engine, sc_bucket_group(engine, bucket, engine->due[i])))
			settle(engine, bucket, engine->due[i]);
	}
	engine->ndue = 0;
}

/*
 * Emits and deletes what the watermark has passed.  To be called again after an error in it (options.undo).
 */
void
sc_timed_close(ScEngine *engine)
{
	ScPane	   *pane = only_pane(engine);

	if (pane == NULL)
		return;
	if (engine->ndue == 0)
		collect_due(engine, pane->bucket);
	if (engine->ndue == 0)
		return;
	sc_emit_due(engine, pane);
	settle_due(engine, pane->bucket);
	sc_bucket_account(engine, pane->bucket);
	if (pane->bucket->nlost > LOST_STATES && pane->bucket->snapshot == NULL &&
		pane->bucket->nlost > pane->bucket->ngroups - pane->bucket->ngone)
		sc_pane_renew_bucket(engine, pane);
}

/*
 * First part of a barrier: what late rows have made over, and what has changed of what the result has.  A group that has had
 * its time (ttl) goes when the watermark moves only: where barriers are isn't known to the log.
 */
void
sc_timed_emit_changed(ScEngine *engine)
{
	ScPane	   *pane = only_pane(engine);

	if (pane == NULL)
		return;
	if (engine->sessions && (engine->emission.pane == NULL || engine->emission.due))
		sc_timed_close(engine);
	if (engine->options.emit == SC_EMIT_UPDATE || engine->options.allowed_lateness > 0)
		sc_emit_changes(engine, pane);
}

/* The watermark at which each row with a plausible event time so far would be a session that is over. */
static int64
plausible_rows_over(const ScEngine *engine)
{
	int64		time = engine->time.plausible_time;

	return time == SC_NO_EVENT_TIME ? time : sc_time_add(time, engine->def->window.size + 1);
}

/* Rows that can be taken back are remembered as ranges of their own if they are ahead of all plausible ones. */
void
sc_timed_late_for_good(ScEngine *engine)
{
	int64		over_at = sc_session_over_at(&engine->def->window, engine->row_time);

	if (sc_is_past_lateness(over_at, engine->options.allowed_lateness, engine->watermark))
		sc_closed_add_reach(&engine->time, (ScWindowRange) {engine->row_time, over_at}, plausible_rows_over(engine));
}

/*
 * What is over now will be, whatever the watermark and the delay become; but for what implausible rows have closed.  If rows
 * can be taken back those that were late have to stay late, so it is as far as there are plausible rows.
 */
void
sc_timed_remember(ScEngine *engine)
{
	int64		over = Min(sc_time_add(engine->watermark, -engine->options.allowed_lateness),
						   sc_plausibly_over(&engine->time, engine->options.watermark_delay,
											 engine->options.allowed_lateness));

	if (engine->sessions && engine->retracts)
		over = Max(over, Min(sc_time_add(engine->watermark, -engine->options.allowed_lateness),
							 plausible_rows_over(engine)));
	if (engine->sessions)
		engine->time.closed_until = Max(engine->time.closed_until, over);
	else if (engine->rows_have_ttl)
		engine->time.closed_until = Max(engine->time.closed_until,
										Min(engine->watermark, sc_time_add(engine->time.plausible_time, engine->options.ttl)));
}

bool
sc_timed_is_past_ttl(const ScEngine *engine, int64 ts)
{
	int64		over_at = sc_time_add(ts, engine->options.ttl);

	return over_at <= engine->watermark || over_at <= engine->time.closed_until;
}

/* The watermark goes back to this one: sessions that were emitted and lie ahead of it are closed. */
void
sc_timed_go_back(ScEngine *engine, int64 watermark)
{
	ScPane	   *pane = only_pane(engine);

	sc_timed_remember(engine);
	if (pane == NULL || !engine->sessions)
		return;
	sc_timed_emit_changed(engine);
	for (uint32 n = 0; n < pane->bucket->ngroups; n++)
	{
		const ScTimes *times = sc_group_times(engine, sc_bucket_group(engine, pane->bucket, n));

		if (times->life != SC_LIVE || times->closed || !times->over ||
			sc_session_over(engine, times) <= watermark)
			continue;
		close_session(engine, pane->bucket, n);
		sc_due_push(engine, pane->bucket, n);
	}
}

/* ---------- what others want to know ---------- */

/* The watermark that does something next; false: none does. */
bool
sc_timed_next_due(const ScEngine *engine, int64 *at)
{
	const ScPane *pane = only_pane(engine);
	uint32		number;

	/* entries are put right, which changes nothing that anybody sees */
	return pane != NULL && sc_due_first((ScEngine *) engine, pane->bucket, at, &number);
}

/* Adds the sessions that have rows behind the greatest event time, and who would join them. */
void
sc_timed_ahead(const ScEngine *engine, ScWindowRanges *ahead)
{
	const ScPane *pane = only_pane(engine);

	if (pane == NULL || !engine->sessions || engine->greatest_last <= engine->time.max_event_time)
		return;
	for (uint32 n = 0; n < pane->bucket->ngroups; n++)
	{
		const ScTimes *times = sc_group_times(engine, sc_bucket_group(engine, pane->bucket, n));

		if (times->life == SC_LIVE && times->last > engine->time.max_event_time)
		{
			ScWindowRange reach = sc_session_reach(&engine->def->window, times->start, times->last);

			/* event times up to the greatest one are another range, which knows who would join their sessions */
			sc_ranges_add(ahead, Max(reach.start, sc_time_add(engine->time.max_event_time, 2)), reach.end);
		}
	}
}

/* Closed sessions stay, as do rows of the result whose groups have gone. */
void
sc_timed_truncate(ScEngine *engine, ScPane *pane)
{
	ScBucket   *bucket = pane->bucket;

	engine->nloose = 0;
	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		ScGroup    *group = sc_bucket_group(engine, bucket, n);
		uint32		left = SC_NO_GROUP;
		uint32		right;

		CHECK_FOR_INTERRUPTS();
		if (!sc_group_is_live(engine, group) || !sc_group_has_states(engine, group))
			continue;
		sc_bucket_touch(engine, bucket, group, n);
		sc_emit_gone(engine, bucket, group);
		if (engine->sessions)
			sc_sessions_neighbours(engine, bucket, n, &left, &right);
		sc_bucket_delete(engine, bucket, n);
		if (left != SC_NO_GROUP && sc_group_times(engine, sc_bucket_group(engine, bucket, left))->closed)
			sc_due_push(engine, bucket, left);
	}
	sc_bucket_account(engine, bucket);
}
