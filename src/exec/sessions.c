/*-------------------------------------------------------------------------
 * sessions.c
 *	  Sessions: which one a row belongs to, and what it makes of them.
 *
 * A session is a group (timed.h) with the smallest and the greatest event time of its rows, start and last.  Its window
 * is [start, last + gap).  Sessions of one key are more than the gap apart.  A row within the gap of one extends it;
 * one within the gap of two makes one of them, the earlier one; one of none opens another.  A row within the gap of a
 * session that is closed is late (timed.c).
 *
 * The bucket's own hash table knows a session by its keys and its id, which never change, as the changelog does.  Here is a
 * second one, by keys alone: the sessions of a key in order of time.  It is made of the groups when they are loaded.
 *
 * An error of a row must leave no trace (undo.c): all that can fail comes first, and then nothing fails.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/timed.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#define FIRST_CELLS		16
#define FIRST_SESSIONS	4

#define NONE			SC_NO_GROUP

/* Sessions of one key: their numbers, by start. */
typedef struct SessionList
{
	uint32		n;
	uint32		max;
	uint32		begin;			/* where the first one is: mostly that one goes first */
	uint32		numbers[FLEXIBLE_ARRAY_MEMBER];
} SessionList;

/* A key: of one session, or of several. */
typedef struct KeyCell
{
	uint32		hash;
	uint32		number;			/* of the only one, plus 1; 0: empty; SC_CELL_DELETED */
	SessionList *list;			/* or NULL; number is 1 then */
} KeyCell;

struct ScSessions
{
	KeyCell    *cells;
	uint32		mask;
	int			shift;			/* 32 - log2(number of cells) */
	uint32		nused;			/* that aren't empty, */
	uint32		ndeleted;		/* those without a key among them */
};

/* ---------- the table of keys ---------- */

static void
allocate_cells(ScBucket *bucket, uint32 n)
{
	struct ScSessions *sessions = bucket->sessions;

	sessions->cells = MemoryContextAllocExtended(bucket->context, n * sizeof(KeyCell),
												 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	sessions->mask = n - 1;
	sessions->shift = 32 - pg_leftmost_one_pos32(n);
	sessions->nused = sessions->ndeleted = 0;
}

/* As in bucket.c: a task's hashes are those of its key groups. */
static inline uint32
place_of(const struct ScSessions *sessions, uint32 hash)
{
	return (hash * UINT32_C(0x9E3779B1)) >> sessions->shift;
}

static inline uint32
count_of(const KeyCell *cell)
{
	return cell->list != NULL ? cell->list->n : 1;
}

static inline uint32
number_at(const KeyCell *cell, uint32 i)
{
	return cell->list != NULL ? cell->list->numbers[cell->list->begin + i] : cell->number - 1;
}

static inline ScTimes *
times_of(const ScEngine *engine, const ScBucket *bucket, uint32 number)
{
	return sc_group_times(engine, sc_bucket_group(engine, bucket, number));
}

/* The cell of engine->key_values, whose hash is "hash"; NULL: there is none. */
static inline KeyCell *
find_key(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	struct ScSessions *sessions = bucket->sessions;
	uint32		at = place_of(sessions, hash);

	for (; sessions->cells[at].number != 0; at = (at + 1) & sessions->mask)
	{
		KeyCell    *cell = &sessions->cells[at];

		if (cell->hash == hash && cell->number != SC_CELL_DELETED &&
			sc_keys_equal(engine, sc_bucket_group(engine, bucket, number_at(cell, 0))))
			return cell;
	}
	return NULL;
}

/* The same of a session that isn't there yet. */
static KeyCell *
find_key_of(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	const ScGroup *group = sc_bucket_group(engine, bucket, number);

	memcpy(engine->key_values, sc_group_keys(engine, group), engine->nkeys * sizeof(Datum));
	memcpy(engine->key_nulls, group->nulls, engine->nkeys);
	return find_key(engine, bucket, sc_group_times(engine, group)->position);
}

/* Makes it larger, or, if that is enough, only without what was deleted. */
static void
renew_cells(ScBucket *bucket)
{
	struct ScSessions *sessions = bucket->sessions;
	KeyCell    *old = sessions->cells;
	uint32		nold = sessions->mask + 1;
	uint32		nkeys = sessions->nused - sessions->ndeleted;

	allocate_cells(bucket, nkeys < nold / 2 ? nold : nold * 2);
	sessions->nused = nkeys;
	for (uint32 i = 0; i < nold; i++)
	{
		uint32		to;

		if (old[i].number == 0 || old[i].number == SC_CELL_DELETED)
			continue;
		to = place_of(sessions, old[i].hash);
		while (sessions->cells[to].number != 0)
			to = (to + 1) & sessions->mask;
		sessions->cells[to] = old[i];
	}
	pfree(old);
}

/* A key that has no cell gets one, for its only session. */
static void
put_key(ScBucket *bucket, uint32 hash, uint32 number)
{
	struct ScSessions *sessions = bucket->sessions;
	uint32		at;

	if (sessions->nused >= sessions->mask - sessions->mask / 4)
		renew_cells(bucket);
	at = place_of(sessions, hash);
	while (sessions->cells[at].number != 0)
		at = (at + 1) & sessions->mask;
	sessions->cells[at] = (KeyCell) {.hash = hash,.number = number + 1};
	sessions->nused++;
}

/* How many sessions of the key begin at "ts" or before. */
static uint32
count_until(const ScEngine *engine, const ScBucket *bucket, const KeyCell *cell, int64 ts)
{
	uint32		low = 0;
	uint32		high = count_of(cell);

	/* mostly all of them do */
	if (times_of(engine, bucket, number_at(cell, high - 1))->start <= ts)
		return high;
	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;

		if (times_of(engine, bucket, number_at(cell, middle))->start <= ts)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Into the key's list, at its place. */
static void
insert_at(ScBucket *bucket, KeyCell *cell, uint32 place, uint32 number)
{
	SessionList *list = cell->list;
	uint32	   *numbers;

	if (list == NULL)
	{
		list = MemoryContextAlloc(bucket->context, offsetof(SessionList, numbers) + FIRST_SESSIONS * sizeof(uint32));
		list->n = 1;
		list->max = FIRST_SESSIONS;
		list->begin = 0;
		list->numbers[0] = cell->number - 1;
		cell->number = 1;
	}
	else if (list->begin > list->max / 2)
	{
		memmove(list->numbers, &list->numbers[list->begin], list->n * sizeof(uint32));
		list->begin = 0;
	}
	else if (list->begin + list->n == list->max)
	{
		list = repalloc_huge(list, offsetof(SessionList, numbers) + (Size) list->max * 2 * sizeof(uint32));
		list->max *= 2;
	}
	cell->list = list;
	numbers = &list->numbers[list->begin];
	memmove(&numbers[place + 1], &numbers[place], (list->n - place) * sizeof(uint32));
	numbers[place] = number;
	list->n++;
}

static void
remove_at(ScBucket *bucket, KeyCell *cell, uint32 place)
{
	SessionList *list = cell->list;
	uint32	   *numbers;

	if (list == NULL)
	{
		cell->number = SC_CELL_DELETED;
		bucket->sessions->ndeleted++;
		return;
	}
	list->n--;
	if (place == 0)
		list->begin++;
	numbers = &list->numbers[list->begin];
	if (place > 0)
		memmove(&numbers[place], &numbers[place + 1], (list->n - place) * sizeof(uint32));
	if (list->n > 1)
		return;
	cell->number = numbers[0] + 1;
	cell->list = NULL;
	pfree(list);
}

/* Is the session one of the cell's?  *place: where. */
static bool
has_number(const ScEngine *engine, const ScBucket *bucket, const KeyCell *cell, uint32 number, uint32 *place)
{
	uint32		n = count_until(engine, bucket, cell, times_of(engine, bucket, number)->start);

	if (n == 0 || number_at(cell, n - 1) != number)
		return false;
	*place = n - 1;
	return true;
}

/* The cell of a session's key, and its place there.  Runs no code of keys. */
static KeyCell *
find_session(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 *place)
{
	struct ScSessions *sessions = bucket->sessions;
	const ScTimes *times = times_of(engine, bucket, number);

	for (uint32 at = place_of(sessions, times->position);; at = (at + 1) & sessions->mask)
	{
		KeyCell    *cell = &sessions->cells[at];

		if (cell->number == 0)
			elog(ERROR, "session not found");
		if (cell->hash == times->position && cell->number != SC_CELL_DELETED &&
			has_number(engine, bucket, cell, number, place))
			return cell;
	}
}

/* Nothing finds the session any more. */
void
sc_sessions_remove(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScTimes    *times = times_of(engine, bucket, number);
	KeyCell    *cell;
	uint32		place;

	if (!times->indexed)
		return;
	cell = find_session(engine, bucket, number, &place);
	remove_at(bucket, cell, place);
	times->indexed = false;
}

void
sc_sessions_neighbours(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 *left, uint32 *right)
{
	uint32		place;
	KeyCell    *cell = find_session(engine, bucket, number, &place);

	*left = place > 0 ? number_at(cell, place - 1) : NONE;
	*right = place + 1 < count_of(cell) ? number_at(cell, place + 1) : NONE;
}

/* ---------- rows ---------- */

/* The sessions of a key that a row at "ts" is within the gap of: the one before it or around it, and the one behind. */
typedef struct Around
{
	KeyCell    *cell;			/* NULL: the key has none */
	uint32		place;			/* where one that begins at "ts" would be */
	uint32		left;			/* or NONE */
	uint32		right;
} Around;

static inline Around
look_around(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts)
{
	int64		gap = engine->def->window.size;
	Around		around = {.cell = find_key(engine, bucket, hash),.left = NONE,.right = NONE};

	if (around.cell == NULL)
		return around;
	around.place = count_until(engine, bucket, around.cell, ts);
	if (around.place > 0)
	{
		uint32		number = number_at(around.cell, around.place - 1);

		/* ts + gap is a timestamp (assigner.h), last + gap is the end of a window */
		if (ts <= times_of(engine, bucket, number)->last + gap)
			around.left = number;
	}
	if (around.place < count_of(around.cell))
	{
		uint32		number = number_at(around.cell, around.place);

		if (times_of(engine, bucket, number)->start <= ts + gap)
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
	const ScTimes *left = around.left != NONE ? times_of(engine, bucket, around.left) : NULL;
	const ScTimes *right = around.right != NONE ? times_of(engine, bucket, around.right) : NULL;

	if ((left && left->closed) || (right && right->closed))
		return true;
	if (!over || left != NULL)
		return false;
	return right == NULL || sc_session_over_at(&engine->def->window, ts) <= right->opened;
}

/* The row at hand goes into the states of a session. */
static void
advance(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 hash, bool isnew)
{
	if (engine->undo != NULL)
		sc_undo_save(engine, bucket, group, hash, isnew);
	sc_transitions_advance(engine, bucket, group);
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
		insert_at(bucket, around->cell, around->place, number);
	else
		put_key(bucket, hash, number);
	times_of(engine, bucket, number)->indexed = true;
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
	/* one row of the result stays with it, if there is one */
	if ((other->flags & SC_GROUP_EMITTED) && !(group->flags & SC_GROUP_EMITTED))
	{
		group->flags |= SC_GROUP_EMITTED;
		times->shown = sc_group_times(engine, other)->shown;
		other->flags &= ~SC_GROUP_EMITTED;
	}
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

	times = times_of(engine, bucket, number);
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
	times_of(engine, bucket, number)->life = SC_DEAD;
	bucket->ngone++;
	engine->ngroups--;
	sc_bucket_reclaim(engine, bucket, number);
	bucket->all_changed = bucket->pane->whole = true;
}

/* Two sessions whose keys have become equal are one: "number", the earlier one.  Both are closed, or neither. */
static void
unite(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 other)
{
	ScTimes    *times = times_of(engine, bucket, number);

	if (!times->closed)
		sc_states_combine(engine, bucket, sc_bucket_group(engine, bucket, number),
						  sc_bucket_group(engine, bucket, other));
	times->last = Max(times->last, times_of(engine, bucket, other)->last);
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
	ScTimes    *times = times_of(engine, bucket, number);
	KeyCell    *cell;

	while ((cell = find_key_of(engine, bucket, number)) != NULL)
	{
		uint32		place = count_until(engine, bucket, cell, times->start);
		uint32		left = place > 0 ? number_at(cell, place - 1) : NONE;
		uint32		right = place < count_of(cell) ? number_at(cell, place) : NONE;

		Meeting		before = left != NONE ? meeting_of(engine, times_of(engine, bucket, left), times) : APART;
		Meeting		behind = right != NONE ? meeting_of(engine, times, times_of(engine, bucket, right)) : APART;

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
			times = times_of(engine, bucket, left);
		}
		else if (before == EARLIER_GOES)
			drop_session(engine, bucket, left);
		else if (behind == ONE)
			unite(engine, bucket, number, right);
		else if (behind == LATER_GOES)
			drop_session(engine, bucket, right);
		else
		{
			insert_at(bucket, cell, place, number);
			times->indexed = true;
			return;
		}
	}
	put_key(bucket, times->position, number);
	times->indexed = true;
}

/*
 * The bucket's groups, which were loaded or hashed again, are put into a new table of keys.  Whose keys have become equal,
 * and which are within the gap of each other, become one.  The current context is a short one.
 */
void
sc_sessions_renew(ScEngine *engine, ScBucket *bucket)
{
	if (bucket->sessions == NULL)
		bucket->sessions = MemoryContextAllocZero(bucket->context, sizeof(struct ScSessions));
	else
	{
		for (uint32 i = 0; i <= bucket->sessions->mask; i++)
		{
			if (bucket->sessions->cells[i].list != NULL)
				pfree(bucket->sessions->cells[i].list);
		}
		pfree(bucket->sessions->cells);
	}
	allocate_cells(bucket, FIRST_CELLS);
	engine->aggstate->curaggcontext = bucket->aggcontext;
	for (uint32 n = 0; n < bucket->ngroups; n++)
		times_of(engine, bucket, n)->indexed = false;
	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		if (times_of(engine, bucket, n)->life != SC_LIVE)
			continue;
		place_session(engine, bucket, n);
		engine->greatest_last = Max(engine->greatest_last, times_of(engine, bucket, n)->last);
		if (times_of(engine, bucket, n)->closed)
			engine->greatest_closed = Max(engine->greatest_closed,
										  sc_session_window(engine, times_of(engine, bucket, n)).end);
	}
}
