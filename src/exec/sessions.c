/*-------------------------------------------------------------------------
 * sessions.c
 *	  Sessions: which one a row belongs to, and what it makes of them.
 *
 * A session is a group (timed.h) with the smallest and the greatest event time of its rows, start and last.  Its window
 * is [start, last + gap).  Sessions of one key are more than the gap apart.  A row within the gap of one extends it;
 * one within the gap of two makes one of them, the earlier one; one of none opens another.  A row within the gap of a
 * session that is closed is late (timed.c).
 *
 * The bucket's own hash table knows a session by its keys and its id, which never change, as the changelog does.
 * session_list.c has those of each key in order of time.
 *
 * An error of a row must leave no trace (undo.c): all that can fail comes first, and then nothing fails.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/session_list.h"

#define NONE			SC_NO_GROUP

/* ---------- rows ---------- */

/* The sessions of a key that a row at "ts" is within the gap of: the one before it or around it, and the one behind. */
typedef struct Around
{
	ScKeyCell  *cell;			/* NULL: the key has none */
	uint32		place;			/* where one that begins at "ts" would be */
	uint32		left;			/* or NONE */
	uint32		right;
} Around;

static inline Around
look_around(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts)
{
	int64		gap = engine->def->window.size;
	Around		around = {.cell = sc_session_key(engine, bucket, hash),.left = NONE,.right = NONE};

	if (around.cell == NULL)
		return around;
	around.place = sc_session_count_until(engine, bucket, around.cell, ts);
	if (around.place > 0)
	{
		uint32		number = sc_session_number_at(around.cell, around.place - 1);

		/* ts + gap is a timestamp (assigner.h), last + gap is the end of a window */
		if (ts <= sc_session_times(engine, bucket, number)->last + gap)
			around.left = number;
	}
	if (around.place < sc_session_count(around.cell))
	{
		uint32		number = sc_session_number_at(around.cell, around.place);

		if (sc_session_times(engine, bucket, number)->start <= ts + gap)
			around.right = number;
	}
	return around;
}

/*
 * One that is over by itself may be part of a session that isn't closed; but it may extend that to the left only if it
 * wasn't over already when the session was opened: closed ones that it would join, too, may have been forgotten by then.
 */
bool
sc_sessions_are_over(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts, bool over)
{
	Around		around = look_around(engine, bucket, hash, ts);
	const ScTimes *left = around.left != NONE ? sc_session_times(engine, bucket, around.left) : NULL;
	const ScTimes *right = around.right != NONE ? sc_session_times(engine, bucket, around.right) : NULL;

	if ((left && left->closed) || (right && right->closed))
		return true;
	if (!over || left != NULL)
		return false;
	return right == NULL || sc_session_over_at(&engine->def->window, ts) <= right->opened;
}

bool
sc_sessions_find_row(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts, uint32 *number)
{
	Around		around = look_around(engine, bucket, hash, ts);
	const ScTimes *left = around.left != NONE ? sc_session_times(engine, bucket, around.left) : NULL;

	*number = around.left;
	return left != NULL && !left->closed && ts <= left->last;
}

bool
sc_sessions_have_lost(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts, bool over)
{
	Around		around = look_around(engine, bucket, hash, ts);
	const ScTimes *left = around.left != NONE ? sc_session_times(engine, bucket, around.left) : NULL;
	const ScTimes *right = around.right != NONE ? sc_session_times(engine, bucket, around.right) : NULL;

	if ((left && left->closed) || (right && right->closed))
		return true;
	return over && (left == NULL || ts > left->last);
}

/* Of one that has been forgotten only the row is known: verify() looks for its other rows (query/closed.h). */
void
sc_sessions_have_changed(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts)
{
	int64		start = ts;
	int64		last = ts;

	if (bucket != NULL)
	{
		Around		around = look_around(engine, bucket, hash, ts);

		if (around.left != NONE)
		{
			start = sc_session_times(engine, bucket, around.left)->start;
			last = Max(last, sc_session_times(engine, bucket, around.left)->last);
		}
		if (around.right != NONE)
			last = sc_session_times(engine, bucket, around.right)->last;
	}
	sc_windows_have_changed(engine, start, sc_time_add(last, 1));
}

/* No session that is there now is ever extended so far to the left; nor is one that is opened later. */
void
sc_sessions_note_late(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts)
{
	int64		over_at = sc_session_over_at(&engine->def->window, ts);
	ScKeyCell  *cell = sc_session_key(engine, bucket, hash);

	if (cell == NULL)
		return;
	for (uint32 i = sc_session_count_until(engine, bucket, cell, ts); i < sc_session_count(cell); i++)
	{
		uint32		number = sc_session_number_at(cell, i);
		ScTimes    *times = sc_session_times(engine, bucket, number);

		if (times->closed || times->opened >= over_at)
			continue;
		sc_bucket_touch(engine, bucket, sc_bucket_group(engine, bucket, number), number);
		times->opened = over_at;
	}
}

/* The row at hand goes into the states of a session. */
static void
advance(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 hash, bool isnew)
{
	if (engine->undo != NULL)
		sc_undo_save(engine, bucket, group, hash, isnew);
	sc_transitions_advance(engine, bucket, group);
	if (engine->retracts)
		++*sc_group_rows(engine, group);
}

static void
open_session(ScEngine *engine, ScBucket *bucket, uint32 hash, const Around *around)
{
	ScGroup    *group;
	uint32		number;
	bool		isnew;

	engine->session_id = engine->row_time;
	group = sc_bucket_lookup(engine, bucket, hash, &isnew);
	number = engine->new_number;
	sc_group_times(engine, group)->opened = Max(sc_time_add(engine->watermark, -engine->options.allowed_lateness),
												sc_closed_before(&engine->time, engine->row_time));
	if (!isnew)
		elog(ERROR, "session is there already");
	advance(engine, bucket, group, hash, true);
	if (around->cell != NULL)
		sc_session_insert_at(bucket, around->cell, around->place, number);
	else
		sc_session_put_key(bucket, hash, number);
	sc_session_times(engine, bucket, number)->indexed = true;
	sc_due_push(engine, bucket, number);
	engine->greatest_last = Max(engine->greatest_last, engine->row_time);
}

/* The states of "other" are added to those of "number", and "other" is to be deleted. */
static void
combine(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 other)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);
	uint32		copied;

	if (engine->undo == NULL)
	{
		sc_states_combine(engine, bucket, group, sc_bucket_group(engine, bucket, other));
		return;
	}
	/* if that fails, both must be as before */
	copied = sc_group_copy(engine, bucket, other, number);
	group = sc_bucket_group(engine, bucket, number);
	sc_states_combine(engine, bucket, group, sc_bucket_group(engine, bucket, copied));
	sc_undo_note_copy(engine, group, NONE);
	sc_bucket_drop_copy(engine, bucket, copied);
}

/* The row at hand has come between two sessions: the right one becomes part of the left one. */
static void
bridge(ScEngine *engine, ScBucket *bucket, uint32 left, uint32 right)
{
	ScGroup    *group;
	ScGroup    *other = sc_bucket_group(engine, bucket, right);
	ScTimes    *times;

	sc_bucket_touch(engine, bucket, other, right);
	if (bucket->snapshot != NULL && engine->has_inputs)
		sc_bucket_snapshot_detach(bucket->snapshot, other, right);
	combine(engine, bucket, left, right);

	group = sc_bucket_group(engine, bucket, left);
	other = sc_bucket_group(engine, bucket, right);
	times = sc_group_times(engine, group);
	times->last = sc_group_times(engine, other)->last;
	if (sc_group_times(engine, other)->loose)
		sc_sessions_loosen(engine, bucket, left);
	/* one row of the result stays with it, if there is one */
	if ((other->flags & SC_GROUP_EMITTED) && !(group->flags & SC_GROUP_EMITTED))
	{
		group->flags |= SC_GROUP_EMITTED;
		times->shown = sc_group_times(engine, other)->shown;
		other->flags &= ~SC_GROUP_EMITTED;
	}
	if (engine->retracts && (other->flags & SC_GROUP_EMITTED))
		sc_emit_gone(engine, bucket, other);
	sc_bucket_delete(engine, bucket, right);
}

/*
 * The row at hand, of the keys in engine->key_values, which isn't late (sc_sessions_judge).  The current context is the
 * row's.
 */
void
sc_sessions_add_row(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	int64		ts = engine->row_time;
	Around		around = look_around(engine, bucket, hash, ts);
	uint32		number = around.left != NONE ? around.left : around.right;
	ScGroup    *group;
	ScTimes    *times;

	if (number == NONE)
	{
		open_session(engine, bucket, hash, &around);
		return;
	}
	group = sc_bucket_group(engine, bucket, number);
	sc_bucket_touch(engine, bucket, group, number);
	advance(engine, bucket, group, hash, false);
	if (around.left != NONE && around.right != NONE)
		bridge(engine, bucket, around.left, around.right);

	times = sc_session_times(engine, bucket, number);
	times->start = Min(times->start, ts);
	times->last = Max(times->last, ts);
	engine->greatest_last = Max(engine->greatest_last, ts);
	/* one that was over can be open again */
	if (times->over && sc_session_over(engine, times) > engine->watermark)
		times->over = false;
	if (sc_group_due_at(engine, times) < times->queued)
		sc_due_push(engine, bucket, number);
}

/* ---------- loading ---------- */

/*
 * A session goes whose key has become another one's.  The result has no row of it that could change: keys whose
 * equality can change are refused then (query/).
 */
static void
drop_session(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	sc_sessions_remove(engine, bucket, number);
	sc_session_times(engine, bucket, number)->life = SC_DEAD;
	bucket->ngone++;
	engine->ngroups--;
	sc_bucket_reclaim(engine, bucket, number);
	bucket->all_changed = bucket->pane->whole = true;
}

/* Two sessions whose keys have become equal are one: "number", the earlier one.  Both are closed, or neither. */
static void
unite(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 other)
{
	ScTimes    *times = sc_session_times(engine, bucket, number);

	if (!times->closed)
		sc_states_combine(engine, bucket, sc_bucket_group(engine, bucket, number),
						  sc_bucket_group(engine, bucket, other));
	times->last = Max(times->last, sc_session_times(engine, bucket, other)->last);
	times->loose |= sc_session_times(engine, bucket, other)->loose;
	drop_session(engine, bucket, other);
}

typedef enum Meeting
{
	APART,
	ONE,						/* they become one */
	EARLIER_GOES,
	LATER_GOES
} Meeting;

/*
 * What two sessions of one key do that lie next to each other.  Of a closed one and another the closed one goes if one
 * of them is inside the other; else rows that would join both are late.  So both starts and ends are in one order.
 */
static Meeting
meeting_of(const ScEngine *engine, const ScTimes *earlier, const ScTimes *later)
{
	if (earlier->last + engine->def->window.size < later->start)
		return APART;
	if (earlier->closed == later->closed)
		return ONE;
	if (earlier->start != later->start && earlier->last < later->last)
		return APART;
	return earlier->closed ? EARLIER_GOES : LATER_GOES;
}

/* Puts a session where it belongs; others that it touches become one with it. */
static void
place_session(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScTimes    *times = sc_session_times(engine, bucket, number);
	ScKeyCell  *cell;

	while ((cell = sc_session_key_of(engine, bucket, number)) != NULL)
	{
		uint32		place = sc_session_count_until(engine, bucket, cell, times->start);
		uint32		left = place > 0 ? sc_session_number_at(cell, place - 1) : NONE;
		uint32		right = place < sc_session_count(cell) ? sc_session_number_at(cell, place) : NONE;

		Meeting		before = left != NONE ? meeting_of(engine, sc_session_times(engine, bucket, left), times) : APART;
		Meeting		behind = right != NONE ? meeting_of(engine, times, sc_session_times(engine, bucket, right)) : APART;

		if (before == LATER_GOES || (before == APART && behind == EARLIER_GOES))
		{
			drop_session(engine, bucket, number);
			return;
		}
		if (before == ONE)
		{
			/* the earlier one goes on, and is placed anew */
			sc_sessions_remove(engine, bucket, left);
			unite(engine, bucket, left, number);
			number = left;
			times = sc_session_times(engine, bucket, left);
		}
		else if (before == EARLIER_GOES)
			drop_session(engine, bucket, left);
		else if (behind == ONE)
			unite(engine, bucket, number, right);
		else if (behind == LATER_GOES)
			drop_session(engine, bucket, right);
		else
		{
			sc_session_insert_at(bucket, cell, place, number);
			times->indexed = true;
			return;
		}
	}
	sc_session_put_key(bucket, times->position, number);
	times->indexed = true;
}

/*
 * The bucket's groups, which were loaded or hashed again, are put into a new table of keys.  Whose keys have become equal,
 * and which are within the gap of each other, become one.  The current context is a short one.
 */
void
sc_sessions_renew(ScEngine *engine, ScBucket *bucket)
{
	sc_session_table_renew(bucket);
	engine->aggstate->curaggcontext = bucket->aggcontext;
	for (uint32 n = 0; n < bucket->ngroups; n++)
		sc_session_times(engine, bucket, n)->indexed = false;
	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		if (sc_session_times(engine, bucket, n)->life != SC_LIVE)
			continue;
		place_session(engine, bucket, n);
		engine->greatest_last = Max(engine->greatest_last, sc_session_times(engine, bucket, n)->last);
		if (sc_session_times(engine, bucket, n)->closed)
			engine->greatest_closed = Max(engine->greatest_closed,
										  sc_session_window(engine, sc_session_times(engine, bucket, n)).end);
	}
	sc_sessions_renew_loose(engine, bucket);
}
