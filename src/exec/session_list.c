/*-------------------------------------------------------------------------
 * session_list.c
 *	  The sessions of each key in order of time (session_list.h).
 *
 * It is made of the groups when they are loaded, and is never stored.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/session_list.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#define FIRST_CELLS		16
#define FIRST_SESSIONS	4

static void
allocate_cells(ScBucket *bucket, uint32 n)
{
	struct ScSessions *sessions = bucket->sessions;

	sessions->cells = MemoryContextAllocExtended(bucket->context, n * sizeof(ScKeyCell),
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

ScKeyCell *
sc_session_key(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	struct ScSessions *sessions = bucket->sessions;
	uint32		at = place_of(sessions, hash);

	for (; sessions->cells[at].number != 0; at = (at + 1) & sessions->mask)
	{
		ScKeyCell  *cell = &sessions->cells[at];

		if (cell->hash == hash && cell->number != SC_CELL_DELETED &&
			sc_keys_equal(engine, sc_bucket_group(engine, bucket, sc_session_number_at(cell, 0))))
			return cell;
	}
	return NULL;
}

ScKeyCell *
sc_session_key_of(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	const ScGroup *group = sc_bucket_group(engine, bucket, number);

	memcpy(engine->key_values, sc_group_keys(engine, group), engine->nkeys * sizeof(Datum));
	memcpy(engine->key_nulls, group->nulls, engine->nkeys);
	return sc_session_key(engine, bucket, sc_group_times(engine, group)->position);
}

/* Makes it larger, or, if that is enough, only without what was deleted. */
static void
renew_cells(ScBucket *bucket)
{
	struct ScSessions *sessions = bucket->sessions;
	ScKeyCell  *old = sessions->cells;
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

void
sc_session_put_key(ScBucket *bucket, uint32 hash, uint32 number)
{
	struct ScSessions *sessions = bucket->sessions;
	uint32		at;

	if (sessions->nused >= sessions->mask - sessions->mask / 4)
		renew_cells(bucket);
	at = place_of(sessions, hash);
	while (sessions->cells[at].number != 0)
		at = (at + 1) & sessions->mask;
	sessions->cells[at] = (ScKeyCell) {.hash = hash,.number = number + 1};
	sessions->nused++;
}

uint32
sc_session_count_until(const ScEngine *engine, const ScBucket *bucket, const ScKeyCell *cell, int64 ts)
{
	uint32		low = 0;
	uint32		high = sc_session_count(cell);

	/* mostly all of them do */
	if (sc_session_times(engine, bucket, sc_session_number_at(cell, high - 1))->start <= ts)
		return high;
	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;

		if (sc_session_times(engine, bucket, sc_session_number_at(cell, middle))->start <= ts)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void
sc_session_insert_at(ScBucket *bucket, ScKeyCell *cell, uint32 place, uint32 number)
{
	ScSessionList *list = cell->list;
	uint32	   *numbers;

	if (list == NULL)
	{
		list = MemoryContextAlloc(bucket->context, offsetof(ScSessionList, numbers) + FIRST_SESSIONS * sizeof(uint32));
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
		list = repalloc_huge(list, offsetof(ScSessionList, numbers) + (Size) list->max * 2 * sizeof(uint32));
		list->max *= 2;
	}
	cell->list = list;
	numbers = &list->numbers[list->begin];
	memmove(&numbers[place + 1], &numbers[place], (list->n - place) * sizeof(uint32));
	numbers[place] = number;
	list->n++;
}

void
sc_session_remove_at(ScBucket *bucket, ScKeyCell *cell, uint32 place)
{
	ScSessionList *list = cell->list;
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
has_number(const ScEngine *engine, const ScBucket *bucket, const ScKeyCell *cell, uint32 number, uint32 *place)
{
	uint32		n = sc_session_count_until(engine, bucket, cell, sc_session_times(engine, bucket, number)->start);

	if (n == 0 || sc_session_number_at(cell, n - 1) != number)
		return false;
	*place = n - 1;
	return true;
}

ScKeyCell *
sc_session_find(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 *place)
{
	struct ScSessions *sessions = bucket->sessions;
	const ScTimes *times = sc_session_times(engine, bucket, number);

	for (uint32 at = place_of(sessions, times->position);; at = (at + 1) & sessions->mask)
	{
		ScKeyCell  *cell = &sessions->cells[at];

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
	ScTimes    *times = sc_session_times(engine, bucket, number);
	ScKeyCell  *cell;
	uint32		place;

	if (!times->indexed)
		return;
	cell = sc_session_find(engine, bucket, number, &place);
	sc_session_remove_at(bucket, cell, place);
	times->indexed = false;
}

void
sc_sessions_neighbours(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 *left, uint32 *right)
{
	uint32		place;
	ScKeyCell  *cell = sc_session_find(engine, bucket, number, &place);

	*left = place > 0 ? sc_session_number_at(cell, place - 1) : SC_NO_GROUP;
	*right = place + 1 < sc_session_count(cell) ? sc_session_number_at(cell, place + 1) : SC_NO_GROUP;
}

void
sc_session_table_renew(ScBucket *bucket)
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
}
