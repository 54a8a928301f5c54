/*-------------------------------------------------------------------------
 * session_changes.c
 *	  Sessions whose rows change and go (definition.h: retracts).
 *
 * A row that is taken back can end its session, shorten it, or be the one that held two parts of it together: the times of
 * all its other rows tell.  So the inputs of all states are kept, each with the event time of its row behind it, and a
 * state that no aggregate may have asked for has those of all rows, whatever FILTER they pass (aggregate.c, rows_transno).
 * A row that is taken back is an image with a minus in each of them (retract.c, minus.c).  Nothing else happens then but
 * that its session is "loose": from start to last there are all its rows, but it may be less than that.
 *
 * What is left of loose sessions is worked out at the end of the transaction, before the watermark closes any (event_time.c),
 * so once for all rows that a statement changes.  Rows that come in between join a loose session as one that is whole: its
 * parts are those of all its rows.  One part is the session itself, if the row that opened it lies in it: that is its id,
 * which has to be no other's.  Others are sessions of their own.  A row of the result stays with who begins there, or is
 * deleted at once.
 *
 * Which rows were counted: those between start and last of a session that isn't closed, as none that is late is ever there.
 * Of a row that was late no session that isn't closed lies before it, and each one behind it notes that
 * (sc_sessions_note_late) as if it had been opened then; whichever comes later was.  So none is extended to the left so far.
 * One that was late as it lies within the gap of a closed session finds that there, until it is late by itself.
 * And a row that was counted isn't late if it is changed, as long as its session has others within the gap.
 *
 * The rule: between two transactions no session is loose.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/limit.h"
#include "exec/session_list.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* Rows that count as one for the time limit */
#define ROWS_TO_UNIT	4

/* What a session comes to: rows that follow each other within the gap. */
typedef struct Part
{
	int64		start;
	int64		last;
	int64		rows;
	uint32		number;			/* of its group */
} Part;

void
sc_sessions_loosen(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScTimes    *times = sc_session_times(engine, bucket, number);

	if (times->loose)
		return;
	if (engine->nloose == engine->max_loose)
	{
		Size		max = Max((Size) engine->max_loose * 2, 16);

		if (engine->loose == NULL)
			engine->loose = MemoryContextAlloc(engine->context, max * sizeof(uint32));
		else
			engine->loose = repalloc_huge(engine->loose, max * sizeof(uint32));
		engine->max_loose = max;
	}
	engine->loose[engine->nloose++] = number;
	times->loose = true;
}

/* A query can be compiled again within a transaction. */
void
sc_sessions_renew_loose(ScEngine *engine, ScBucket *bucket)
{
	engine->nloose = 0;
	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		ScTimes    *times = sc_session_times(engine, bucket, n);
		bool		loose = times->loose && times->life == SC_LIVE;

		times->loose = false;
		if (loose)
			sc_sessions_loosen(engine, bucket, n);
	}
}

static int
compare_times(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

static inline int64
time_of_image(const char *data, Size len)
{
	int64		ts;

	memcpy(&ts, data + len - sizeof(ts), sizeof(ts));
	return ts;
}

/* The event times of the rows that are left of a session, in order, in the current context. */
static int64 *
times_left(ScEngine *engine, ScGroup *group, uint64 *n)
{
	const ScTrans *trans = &engine->trans[engine->rows_transno];
	ScInputs   *inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[engine->rows_transno]);
	ScReader	reader;
	int64	   *result;

	if (inputs == NULL)
		sc_retract_fail(engine);
	inputs = sc_inputs_left(engine, trans, inputs, CurrentMemoryContext);
	*n = inputs->rows;
	if ((int64) *n != *sc_group_rows(engine, group))
		sc_retract_fail(engine);
	sc_limit_add(*n / ROWS_TO_UNIT);
	result = MemoryContextAllocHuge(CurrentMemoryContext, Max(*n, 1) * sizeof(int64));
	reader = (ScReader) {inputs->data, inputs->data + inputs->len};
	for (uint64 i = 0; i < *n; i++)
	{
		const char *data;
		Size		len = sc_image_next(&reader, trans, &data);

		result[i] = time_of_image(data, len);
	}
	qsort(result, *n, sizeof(int64), compare_times);
	return result;
}

/* Cuts them where they are more than the gap apart. */
static Part *
find_parts(int64 gap, const int64 *times, uint64 n, uint32 *nparts)
{
	uint32		max = 4;
	Part	   *parts = palloc(max * sizeof(Part));

	*nparts = 0;
	for (uint64 i = 0; i < n; i++)
	{
		if (i == 0 || times[i - 1] + gap < times[i])
		{
			if (*nparts == max)
				parts = repalloc_huge(parts, (Size) (max *= 2) * sizeof(Part));
			parts[(*nparts)++] = (Part) {.start = times[i]};
		}
		parts[*nparts - 1].last = times[i];
		parts[*nparts - 1].rows++;
	}
	return parts;
}

static void
push_if_earlier(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScTimes    *times = sc_session_times(engine, bucket, number);

	if (sc_group_due_at(engine, times) < times->queued)
		sc_due_push(engine, bucket, number);
}

/* A session without rows goes.  A closed one before it may have stayed for its sake only (timed.c). */
static void
dissolve(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	uint32		left;
	uint32		right;

	sc_sessions_neighbours(engine, bucket, number, &left, &right);
	sc_emit_gone(engine, bucket, sc_bucket_group(engine, bucket, number));
	sc_bucket_delete(engine, bucket, number);
	if (left != SC_NO_GROUP && sc_session_times(engine, bucket, left)->closed)
		sc_due_push(engine, bucket, left);
}

/* It is one part, and goes on as that. */
static void
shorten(ScEngine *engine, ScBucket *bucket, uint32 number, const Part *part)
{
	ScTimes    *times = sc_session_times(engine, bucket, number);

	if (times->shown != part->start)
		sc_emit_gone(engine, bucket, sc_bucket_group(engine, bucket, number));
	times->start = part->start;
	times->last = part->last;
	push_if_earlier(engine, bucket, number);
}

/* A group for each part but the one that stays, with its times and without rows.  Groups may move. */
static void
open_parts(ScEngine *engine, ScBucket *bucket, uint32 number, Part *parts, uint32 n, uint32 stays)
{
	const ScGroup *group = sc_bucket_group(engine, bucket, number);
	uint32		hash = sc_session_times(engine, bucket, number)->position;

	memcpy(engine->key_values, sc_group_keys(engine, group), engine->nkeys * sizeof(Datum));
	memcpy(engine->key_nulls, group->nulls, engine->nkeys);
	for (uint32 i = 0; i < n; i++)
	{
		ScTimes    *times;
		bool		isnew;

		parts[i].number = number;
		if (i == stays)
			continue;
		engine->session_id = parts[i].start;
		(void) sc_bucket_lookup(engine, bucket, hash, &isnew);
		if (!isnew)
			elog(ERROR, "session is there already");
		parts[i].number = engine->new_number;
		times = sc_session_times(engine, bucket, parts[i].number);
		times->last = parts[i].last;
		times->opened = sc_session_times(engine, bucket, number)->opened;
	}
}

/* Which of the parts begins last, at or before "ts". */
static uint32
part_of(const Part *parts, uint32 n, int64 ts)
{
	uint32		low = 0;

	while (low + 1 < n)
	{
		uint32		middle = low + (n - low) / 2;

		if (parts[middle].start <= ts)
			low = middle;
		else
			n = middle;
	}
	return low;
}

/* A state's inputs that are left go to the parts; what the one that stays has of them is in *rest. */
static void
share_inputs(ScEngine *engine, ScBucket *bucket, ScGroup *group, int transno, const Part *parts, uint32 n, uint32 stays,
			 Datum *rest)
{
	const ScTrans *trans = &engine->trans[transno];
	ScInputs   *inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[transno]);
	ScReader	reader;

	*rest = (Datum) 0;
	if (inputs == NULL)
		return;
	inputs = sc_inputs_left(engine, trans, inputs, CurrentMemoryContext);
	reader = (ScReader) {inputs->data, inputs->data + inputs->len};
	for (uint64 i = 0; i < inputs->rows; i++)
	{
		const char *data;
		Size		len = sc_image_next(&reader, trans, &data);
		uint32		part = part_of(parts, n, time_of_image(data, len));
		Datum	   *state = part == stays ? rest :
			&sc_group_states(engine, sc_bucket_group(engine, bucket, parts[part].number))[transno];

		CHECK_FOR_INTERRUPTS();
		sc_inputs_append(bucket, state, 1, data, len);
	}
	sc_limit_add(inputs->rows / ROWS_TO_UNIT);
}

/* All rows that are left go to the parts; they count as not written. */
static void
share_rows(ScEngine *engine, ScBucket *bucket, uint32 number, const Part *parts, uint32 n, uint32 stays)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);

	if (bucket->snapshot != NULL)
		sc_bucket_snapshot_detach(bucket->snapshot, group, number);
	for (int t = 0; t < engine->ntrans; t++)
	{
		Datum	   *state = &sc_group_states(engine, group)[t];
		Datum		rest;

		share_inputs(engine, bucket, group, t, parts, n, stays, &rest);
		sc_inputs_free(bucket, *state);
		*state = rest;
	}
	for (uint32 i = 0; i < n; i++)
		*sc_group_rows(engine, sc_bucket_group(engine, bucket, parts[i].number)) = parts[i].rows;
}

/* The row that the result has of the session is that of the part which begins there; or goes. */
static void
share_result(ScEngine *engine, ScBucket *bucket, uint32 number, const Part *parts, uint32 n)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);
	int64		shown = sc_group_times(engine, group)->shown;
	uint32		part = part_of(parts, n, shown);

	if (!(group->flags & SC_GROUP_EMITTED) || (parts[part].start == shown && parts[part].number == number))
		return;
	if (parts[part].start != shown)
	{
		sc_emit_gone(engine, bucket, group);
		return;
	}
	group->flags &= ~SC_GROUP_EMITTED;
	sc_bucket_group(engine, bucket, parts[part].number)->flags |= SC_GROUP_EMITTED;
	sc_session_times(engine, bucket, parts[part].number)->shown = shown;
}

/* The parts take the session's place among those of its key. */
static void
place_parts(ScEngine *engine, ScBucket *bucket, uint32 number, const Part *parts, uint32 n, uint32 stays)
{
	uint32		place;
	ScKeyCell  *cell = sc_session_find(engine, bucket, number, &place);

	for (uint32 i = 0; i < n; i++)
	{
		if (i == stays)
			continue;
		/* those before the one that stays push it on; without one the session itself goes on being the first */
		sc_session_insert_at(bucket, cell, place + i + (stays == SC_NO_GROUP ? 1 : 0), parts[i].number);
		sc_session_times(engine, bucket, parts[i].number)->indexed = true;
	}
	if (stays != SC_NO_GROUP)
		return;
	sc_session_remove_at(bucket, cell, place);
	sc_session_times(engine, bucket, number)->indexed = false;
}

/* It is several sessions, or another one. */
static void
split(ScEngine *engine, ScBucket *bucket, uint32 number, Part *parts, uint32 n)
{
	ScTimes    *times = sc_session_times(engine, bucket, number);
	uint32		stays = part_of(parts, n, times->id);

	if (times->id < parts[stays].start || times->id > parts[stays].last)
		stays = SC_NO_GROUP;
	open_parts(engine, bucket, number, parts, n, stays);
	share_rows(engine, bucket, number, parts, n, stays);
	share_result(engine, bucket, number, parts, n);
	place_parts(engine, bucket, number, parts, n, stays);
	if (stays != SC_NO_GROUP)
	{
		times = sc_session_times(engine, bucket, number);
		times->start = parts[stays].start;
		times->last = parts[stays].last;
	}
	else
		sc_bucket_delete(engine, bucket, number);
	for (uint32 i = 0; i < n; i++)
		push_if_earlier(engine, bucket, parts[i].number);
}

/* The current context is a short one.  An error leaves the engine unusable. */
static void
settle(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);
	ScTimes    *times = sc_group_times(engine, group);
	int64	   *ts;
	uint64		nts;
	Part	   *parts;
	uint32		n;

	if (!times->loose || times->life != SC_LIVE)
		return;
	sc_bucket_touch(engine, bucket, group, number);
	ts = times_left(engine, group, &nts);
	parts = find_parts(engine->def->window.size, ts, nts, &n);
	pfree(ts);
	times->loose = false;
	if (n == 0)
		dissolve(engine, bucket, number);
	else if (n == 1 && parts[0].start <= times->id && times->id <= parts[0].last)
		shorten(engine, bucket, number, &parts[0]);
	else
		split(engine, bucket, number, parts, n);
}

void
sc_sessions_settle(ScEngine *engine)
{
	MemoryContext old;
	ScBucket   *bucket;

	if (engine->nloose == 0)
		return;
	bucket = engine->panes[0]->bucket;
	old = MemoryContextSwitchTo(engine->groupcontext);
	for (uint32 i = 0; i < engine->nloose; i++)
	{
		CHECK_FOR_INTERRUPTS();
		settle(engine, bucket, engine->loose[i]);
		MemoryContextReset(engine->groupcontext);
	}
	engine->nloose = 0;
	MemoryContextSwitchTo(old);
	sc_bucket_account(engine, bucket);
}
