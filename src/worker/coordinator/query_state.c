/*-------------------------------------------------------------------------
 * query_state.c
 *	  The life of a query (query_state.h): its states, the ways between them, and when something is due.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "worker/coordinator/query_state.h"

/* Until another transaction may have let go of a row */
#define CLEAR_MS	(5 * SC_RETRY_FIRST_MS)

#define TO(state)	(1 << SC_QUERY_##state)
/* Where every query that the tasks run may go to. */
#define FROM_RUNNING \
	(TO(HEALTHY) | TO(WAITING) | TO(RETRYING) | TO(FAILED) | TO(PAUSED) | TO(GONE))

static const struct
{
	const char *name;
	bool		runs;
	int			ways;			/* TO(...) */
}			states[] = {
	[SC_QUERY_HEALTHY] = {"healthy", true, FROM_RUNNING | TO(HELD)},
	[SC_QUERY_HELD] = {"held", true, FROM_RUNNING | TO(HELD) | TO(LOST)},
	[SC_QUERY_WAITING] = {"waiting", true, FROM_RUNNING | TO(RECOVERING) | TO(LOST)},
	[SC_QUERY_RECOVERING] = {"recovering", true, FROM_RUNNING | TO(RECOVERING)},
	/* only the next attempt begins them again */
	[SC_QUERY_RETRYING] = {"retrying", false, TO(RETRYING) | TO(LOST) | TO(GONE)},
	[SC_QUERY_FAILED] = {"failed", false, TO(LOST) | TO(GONE)},
	[SC_QUERY_LOST] = {"lost", false, TO(GONE)},
	[SC_QUERY_PAUSED] = {"paused", false, TO(LOST) | TO(GONE)},
	[SC_QUERY_INCOMING] = {"incoming", false, TO(PAUSED) | TO(GONE)},
	[SC_QUERY_GONE] = {"gone", false, TO(GONE)},
};

/* ---------------------------------------------------------------------
 * Moving
 * --------------------------------------------------------------------- */

void
sc_query_begin(ScQueryLife *life, ScQueryState state)
{
	memset(life, 0, sizeof(ScQueryLife));
	life->state = state;
}

/* May a task go on with a query in this state without knowing of it? */
static bool
can_be_void(ScQueryState state)
{
	return state == SC_QUERY_RETRYING || state == SC_QUERY_FAILED || state == SC_QUERY_LOST;
}

void
sc_query_move(int64 query_id, ScQueryLife *life, ScQueryState state, ScMoment due)
{
	bool		is_void = can_be_void(state) && (life->is_void || states[life->state].runs);

	Assert(states[life->state].ways & (1 << state));
	if (!(states[life->state].ways & (1 << state)))
		elog(ERROR, "query " INT64_FORMAT " can't go from \"%s\" to \"%s\"",
			 query_id, states[life->state].name, states[state].name);
	life->state = state;
	life->due = due;
	life->is_void = is_void;
	life->wanted = false;
	life->with_writer = false;
}

void
sc_query_release(int64 query_id, ScQueryLife *life)
{
	if (life->with_writer)
		sc_query_move(query_id, life, life->state, sc_moment_now());
}

void
sc_query_task_ended(ScQueryLife *life)
{
	life->is_void = false;
}

void
sc_query_want(ScQueryLife *life, bool should_run, bool has_failure)
{
	/* one that is tried again by itself has its own time */
	life->wanted = should_run && !states[life->state].runs &&
		!(has_failure && life->state == SC_QUERY_RETRYING);
}

/* ---------------------------------------------------------------------
 * What a state means
 * --------------------------------------------------------------------- */

bool
sc_query_runs(const ScQueryLife *life)
{
	return states[life->state].runs;
}

bool
sc_query_is_failing(const ScQueryLife *life)
{
	return life->state == SC_QUERY_WAITING || life->state == SC_QUERY_RECOVERING;
}

ScMoment
sc_query_part_due(const ScQueryLife *life)
{
	return life->state == SC_QUERY_HELD || life->state == SC_QUERY_WAITING ? life->due : 0;
}

ScMoment
sc_query_checkpoint_due(const ScQueryLife *life)
{
	return life->state == SC_QUERY_RETRYING || life->with_writer ? 0 : life->due;
}

ScMoment
sc_query_attempt_due(const ScQueryLife *life)
{
	return life->state == SC_QUERY_RETRYING ? life->due : 0;
}

bool
sc_query_wants_attempt(const ScQueryLife *life)
{
	return life->wanted || (life->is_void && life->state != SC_QUERY_RETRYING);
}

/* ---------------------------------------------------------------------
 * Checkpoints
 * --------------------------------------------------------------------- */

ScOutcome
sc_query_decide(const ScFailure *failure, int failures, bool blamed, bool can_wait)
{
	bool		transient = blamed || sc_failure_is_transient(failure->sqlerrcode);
	bool		impatient = failures >= SC_PATIENCE;

	/* a lock or a full disk is waited for, code that takes too long isn't for ever */
	if (transient && can_wait && !(impatient && failure->sqlerrcode == ERRCODE_QUERY_CANCELED))
		return SC_OUTCOME_WAITING;
	return transient && !impatient ? SC_OUTCOME_RETRYING : SC_OUTCOME_FAILED;
}

ScFailureStatus
sc_outcome_status(ScOutcome outcome)
{
	if (outcome == SC_OUTCOME_WAITING)
		return SC_FAILURE_WAITING;
	return outcome == SC_OUTCOME_RETRYING ? SC_FAILURE_RETRYING : SC_FAILURE_FAILED;
}

bool
sc_outcome_is_written(ScOutcome outcome)
{
	return outcome == SC_OUTCOME_WRITTEN || outcome == SC_OUTCOME_RECOVERED ||
		outcome == SC_OUTCOME_UNCLEARED || outcome == SC_OUTCOME_PAUSED ||
		outcome == SC_OUTCOME_MOVED;
}

bool
sc_outcome_keeps_part(ScOutcome outcome)
{
	return outcome == SC_OUTCOME_HELD || outcome == SC_OUTCOME_LATER || outcome == SC_OUTCOME_WAITING ||
		outcome == SC_OUTCOME_HANDED || outcome == SC_OUTCOME_QUEUED;
}

/* One that was held is tried at once; one that waits, in its own time. */
static void
after_holding(int64 query_id, ScQueryLife *life, ScMoment now)
{
	if (sc_query_part_due(life) == 0)
		sc_query_move(query_id, life, sc_query_is_failing(life) ? SC_QUERY_WAITING : SC_QUERY_HELD, now);
}

/* One whose part is large: until the writer has ended that is written just then. */
static void
after_handing(int64 query_id, ScQueryLife *life)
{
	sc_query_move(query_id, life, sc_query_is_failing(life) ? SC_QUERY_WAITING : SC_QUERY_HELD,
				  SC_MOMENT_UNKNOWN);
	life->with_writer = true;
}

void
sc_query_after_checkpoint(int64 query_id, ScQueryLife *life, ScOutcome outcome, int failures)
{
	ScMoment	now = sc_moment_now();
	ScQueryState next;
	ScMoment	due = 0;

	switch (outcome)
	{
		case SC_OUTCOME_WRITTEN:
			next = sc_query_is_failing(life) ? SC_QUERY_RECOVERING : SC_QUERY_HEALTHY;
			break;
		case SC_OUTCOME_RECOVERED:
			next = SC_QUERY_HEALTHY;
			break;
		case SC_OUTCOME_UNCLEARED:
			/* who holds the row may not give it back with the row gone */
			next = SC_QUERY_RECOVERING;
			due = sc_moment_after(now, CLEAR_MS * INT64CONST(1000));
			break;
		case SC_OUTCOME_PAUSED:
			next = SC_QUERY_PAUSED;
			break;
		case SC_OUTCOME_LATER:
			return;
		case SC_OUTCOME_HELD:
			after_holding(query_id, life, now);
			return;
		case SC_OUTCOME_HANDED:
		case SC_OUTCOME_QUEUED:
			after_handing(query_id, life);
			return;
		case SC_OUTCOME_WAITING:
			next = SC_QUERY_WAITING;
			due = sc_retry_at(failures);
			break;
		case SC_OUTCOME_RETRYING:
			next = SC_QUERY_RETRYING;
			due = sc_retry_at(failures);
			break;
		case SC_OUTCOME_UNNOTED:
			/* the next attempt can't know how often it failed */
			next = SC_QUERY_RETRYING;
			due = sc_moment_after(now, SC_RETRY_MOST_MS * INT64CONST(1000));
			break;
		case SC_OUTCOME_FAILED:
			next = SC_QUERY_FAILED;
			break;
		case SC_OUTCOME_VOID:
			return;
		default:
			elog(ERROR, "query " INT64_FORMAT " has outcome %d", query_id, outcome);
	}
	sc_query_move(query_id, life, next, due);
}
