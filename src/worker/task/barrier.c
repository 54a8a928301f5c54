/*-------------------------------------------------------------------------
 * barrier.c
 *	  A task's part of a checkpoint: begun at the barrier, completed in steps.
 *
 * At the barrier (the synchronous phase) each query's part is begun (query_part.c).  What is large of it is pending
 * then: it is written in short steps between messages, while rows go on.  What they emit is held back in the outbox,
 * so that what the coordinator gets is the part, its end, and then what came later.  The next barrier comes behind
 * all of this.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/debug.h"
#include "base/pace.h"
#include "base/settings.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "worker/frame/loop.h"
#include "worker/task/task_internal.h"

/* A query has no part in so many checkpoints in a row, which come each 200 ms then, or more */
#define MAX_LATER	100

static ScOutbox *outbox;

/* The end of the part, once it is complete; xids in TopMemoryContext, NULL: no part is pending. */
static ScMessageEnd end;
static TransactionId *xids;

typedef struct Barrier
{
	const ScWireBarrier *barrier;
	Size		bytes;			/* of a query's chunks */
} Barrier;

void
sc_task_barrier_init(ScOutbox *task_outbox)
{
	outbox = task_outbox;
}

static void
snapshot_step(ScTaskQuery *query, void *arg)
{
	Barrier    *barrier = arg;

	barrier->bytes = sc_task_query_snapshot(query, barrier->barrier->checkpoint_id, barrier->barrier->lsn);
}

/* What a query with nothing new does at a barrier, if somebody's privileges have changed. */
static void
access_step(ScTaskQuery *query, void *arg)
{
	sc_task_check_access(query);
}

/*
 * One query's part.  False: it has none any more, because it failed or is paused, and is gone from the list.
 */
static bool
snapshot(ScTaskQuery *query, Barrier *barrier)
{
	int64		query_id = query->query->query_id;

	if (!sc_task_query_step(query, end.lsn, snapshot_step, barrier))
		return false;
	if (!query->paused)
		return true;
	sc_outbox_add(outbox, SC_MESSAGE_PAUSED, query_id, 0, NULL, 0, NULL, 0);
	sc_task_query_forget(query);
	return false;
}

/*
 * Has the query no part in this checkpoint?  What has changed of it is for a later one.  But the last part of a query
 * that is paused is made now.
 */
static bool
is_left_out(const ScTaskQuery *query, const ScWireBarrier *barrier)
{
	for (int i = 0; i < SC_WIRE_LEFT_OUT && barrier->left_out[i] != 0; i++)
	{
		if (barrier->left_out[i] == query->query->query_id)
			return !query->paused;
	}
	return false;
}

/*
 * Must its part wait for rows of a window?  The last one of a query that is paused is made now, and that of one that
 * never comes to an end of them: windows close as fast as they are emitted.
 */
static bool
is_later(ScTaskQuery *query)
{
	if (!sc_engine_is_emitting(query->engine) || query->paused || query->nlater >= MAX_LATER)
	{
		query->nlater = 0;
		return false;
	}
	query->nlater++;
	return true;
}

/*
 * Has a part, or nothing to say; false: the query is gone.  *same: nothing but its position is new, *later: it has no
 * part because rows of a window are still to come.
 */
static bool
take_part(ScTaskQuery *query, Barrier *barrier, bool *same, bool *later)
{
	*same = *later = false;
	if (is_left_out(query, barrier->barrier))
		return true;
	if (is_later(query))
	{
		*later = true;
		return true;
	}
	if (!sc_task_query_has_no_news(query, barrier->barrier->lsn, same))
	{
		if (!snapshot(query, barrier))
			return false;
		end.bytes += barrier->bytes;
		return true;
	}
	return sc_task_access_is_checked(query) || sc_task_query_step(query, end.lsn, access_step, NULL);
}

/* A message that names queries; its memory outlives transactions. */
static void
begin_names(StringInfo names, const ScWireBarrier *barrier)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ScMessageSame head = {.checkpoint_id = barrier->checkpoint_id,.lsn = barrier->lsn};

	initStringInfo(names);
	appendBinaryStringInfo(names, (char *) &head, sizeof(head));
	MemoryContextSwitchTo(old);
}

static void
add_name(StringInfo names, const ScTaskQuery *query)
{
	appendBinaryStringInfo(names, (char *) &query->query->query_id, sizeof(int64));
}

/* Sends it if it names any. */
static void
end_names(StringInfo names, ScMessageKind kind)
{
	if (names->len > sizeof(ScMessageSame))
		sc_outbox_add(outbox, kind, 0, 0, NULL, 0, names->data, names->len);
	pfree(names->data);
}

/*
 * All queries' parts, but for those that the barrier leaves out.  Those with nothing new are named in one message,
 * and those with no part in another: what isn't named has a part, or is elsewhere.
 */
static void
snapshot_all(const ScWireBarrier *wire)
{
	Barrier		barrier = {.barrier = wire};
	StringInfoData same_names;
	StringInfoData later_names;
	int			i = 0;

	begin_names(&same_names, wire);
	begin_names(&later_names, wire);
	sc_task_queries_begin_round();
	while (i < list_length(sc_task_queries()))
	{
		ScTaskQuery *query = list_nth(sc_task_queries(), i);
		bool		same;
		bool		later;

		if (!take_part(query, &barrier, &same, &later))
			continue;
		if (same)
			add_name(&same_names, query);
		if (later)
			add_name(&later_names, query);
		i++;
	}
	end_names(&same_names, SC_MESSAGE_SAME);
	end_names(&later_names, SC_MESSAGE_LATER);
}

/* A query whose part isn't complete, or NULL. */
static ScTaskQuery *
find_pending(void)
{
	ListCell   *lc;

	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		if (query->snapshot != NULL)
			return query;
	}
	return NULL;
}

/* The part is complete. */
static void
complete(void)
{
	ListCell   *lc;

	foreach(lc, sc_task_queries())
		end.state_bytes += sc_changelog_live_bytes(((ScTaskQuery *) lfirst(lc))->engine);
	sc_outbox_add_ahead(outbox, SC_MESSAGE_END, 0, &end, sizeof(end), xids, end.nxids * sizeof(TransactionId));
	pfree(xids);
	xids = NULL;
}

bool
sc_task_barrier_is_pending(void)
{
	return xids != NULL;
}

void
sc_task_barrier_note(Size bytes)
{
	end.bytes += bytes;
}

static void
go_on_step(ScTaskQuery *query, void *arg)
{
	sc_task_query_go_on(query, arg);
}

/* A step, or all that is left ("pace" NULL); then the part may be complete. */
static void
go_on(ScPace *pace)
{
	ScTaskQuery *query;

	sc_worker_context.checkpoint_id = end.checkpoint_id;
	sc_worker_context.lsn = end.lsn;
	sc_begin_transaction();
	sc_task_queries_begin_round();
	while ((query = find_pending()) != NULL && !(pace != NULL && sc_pace_is_used_up(pace)))
		(void) sc_task_query_step(query, end.lsn, go_on_step, pace);
	sc_commit_transaction();
	if (find_pending() == NULL)
	{
		complete();
		sc_outbox_release(outbox);
	}
	sc_worker_context.checkpoint_id = 0;
}

/*
 * A step takes 2 ms, or as long as the message before it, which began at "since": half of the time, so that what is
 * done in steps comes to an end, whatever else there is to do.
 */
static void
begin_step(ScPace *pace, instr_time since)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, since);
	sc_pace_begin(pace, Max(SC_SNAPSHOT_STEP_US, Min(INSTR_TIME_GET_MICROSEC(now), SC_SNAPSHOT_STEP_MOST_US)),
				  SC_SNAPSHOT_STEP);
}

void
sc_task_barrier_go_on(instr_time since)
{
	ScPace		pace;

	begin_step(&pace, since);
	go_on(&pace);
	SC_DEBUG_POINT("task_snapshot_step");
}

/* ---------- windows that are over ---------- */

/* A query that has rows of one to emit, or NULL. */
static ScTaskQuery *
find_emitting(void)
{
	ListCell   *lc;

	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		if (sc_engine_is_emitting(query->engine))
			return query;
	}
	return NULL;
}

bool
sc_task_is_emitting(void)
{
	return find_emitting() != NULL;
}

static void
emit_step(ScTaskQuery *query, void *arg)
{
	sc_task_query_emit(query, arg);
}

void
sc_task_emit_some(instr_time since)
{
	ScTaskQuery *query = find_emitting();
	ScPace		pace;

	sc_begin_transaction();
	sc_task_queries_begin_round();
	begin_step(&pace, since);
	(void) sc_task_query_step(query, InvalidXLogRecPtr, emit_step, &pace);
	sc_commit_transaction();
	SC_DEBUG_POINT("task_emission_step");
}

void
sc_task_barrier(const ScWireBarrier *barrier)
{
	int64		barrier_at = sc_moment_now();
	instr_time	start;
	instr_time	stop;

	INSTR_TIME_SET_CURRENT(start);
	if (sc_task_barrier_is_pending())
		go_on(NULL);
	memset(&end, 0, sizeof(end));
	end.barrier_at = barrier_at;
	end.checkpoint_id = barrier->checkpoint_id;
	end.lsn = barrier->lsn;
	end.triggered_at = barrier->triggered_at;
	end.rows_in = barrier->nrows;
	end.nxids = barrier->nxids;
	xids = MemoryContextAlloc(TopMemoryContext, barrier->nxids * sizeof(TransactionId) + 1);
	memcpy(xids, barrier + 1, barrier->nxids * sizeof(TransactionId));

	sc_worker_context.checkpoint_id = barrier->checkpoint_id;
	sc_worker_context.lsn = barrier->lsn;
	SC_DEBUG_POINT("task_before_snapshot");
	sc_begin_transaction();
	for (int i = 0; i < SC_WIRE_LEFT_OUT && barrier->leaving[i] != 0; i++)
		sc_task_query_leave(barrier->leaving[i], barrier->lsn);
	snapshot_all(barrier);
	sc_commit_transaction();
	INSTR_TIME_SET_CURRENT(stop);
	INSTR_TIME_SUBTRACT(stop, start);
	end.sync_us = INSTR_TIME_GET_MICROSEC(stop);

	if (find_pending() != NULL)
		sc_outbox_hold(outbox);
	else
		complete();
	sc_worker_context.checkpoint_id = 0;
	SC_DEBUG_POINT("task_after_snapshot");
	pgstat_report_stat(false);
}
