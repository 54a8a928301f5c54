/*-------------------------------------------------------------------------
 * dead_letter.c
 *	  A query with on_error => 'dead_letter' in a task: it goes on without exactly
 *	  the rows and groups that raise errors, and sends them to the coordinator,
 *	  which keeps them in stream_ckpt.dead_letter (ckpt/dead_letter.h).
 *
 * The work on a message is a subtransaction.  An error ends it; the engine takes
 * back what the row at fault did to its group (exec/undo.c); and the work goes
 * on behind it in another one.  So rows without an error cost nothing but the
 * saving of their group's states.
 *
 * What may pass another time (no memory, a time limit) isn't the row's fault: such
 * an error is the query's, as without dead letters.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/env.h"
#include "base/subtransaction.h"
#include "ckpt/dead_letter.h"
#include "utils/memutils.h"
#include "worker/frame/retain_row.h"
#include "worker/task/task_internal.h"

typedef struct Retained
{
	ScTaskQuery *query;
	ScDeadKind	kind;
	TupleTableSlot *slot;
	ScRetainedRow *row;
} Retained;

/* In a subtransaction: fills in retained->row, in the owner's surroundings. */
static bool
retain_step(void *arg)
{
	Retained   *retained = arg;
	TupleTableSlot *slot = retained->slot;
	ScEnv		env;

	/* values of its own can be at fault */
	sc_env_enter(&env, retained->query->query->owner, retained->query->query->settings);
	if (retained->kind == SC_DEAD_ROW)
		sc_task_retain_row(retained->query, retained->row);
	else
	{
		slot_getallattrs(slot);
		sc_retain_row(slot->tts_tupleDescriptor, slot->tts_values, slot->tts_isnull,
					  retained->row);
	}
	sc_env_leave(&env);
	return true;
}

/*
 * What is at fault, to be retained; nothing of a row that was too large to be read, or is too large to be
 * kept.
 */
static void
keep(ScTaskQuery *query, ScDeadKind kind, TupleTableSlot *slot, ScRetainedRow *row)
{
	Retained	retained = {.query = query,.kind = kind,.slot = slot,.row = row};
	ErrorData  *error;

	memset(row, 0, sizeof(ScRetainedRow));
	if (kind == SC_DEAD_ROW && ((const ScWireRecord *) query->at)->flags & SC_WIRE_CUT)
		return;
	error = sc_subtransaction_try(retain_step, &retained, sc_rethrow_transient);
	if (!error)
		return;
	FreeErrorData(error);
	memset(row, 0, sizeof(ScRetainedRow));
}

/*
 * Sends the row at fault, or the group's result, with its error, to the coordinator.  What of it can't
 * be kept is left out.
 */
static void
send_letter(ScTaskQuery *query, ScDeadKind kind, TupleTableSlot *slot, ErrorData *error)
{
	ScFailure  *failure = sc_failure_from_error(error);
	ScMessageDead head = {0};
	StringInfoData body;
	ScRetainedRow retained;

	keep(query, kind, slot, &retained);
	if (kind == SC_DEAD_ROW)
	{
		failure->row_lsn = query->transaction;
		failure->row_ordinal = query->ordinal;
	}
	head.kind = (char) kind;
	initStringInfo(&body);
	sc_retained_row_write(&body, &retained);
	sc_failure_write(&body, failure);
	sc_outbox_add(query->rows.outbox, SC_MESSAGE_DEAD, query->query->query_id, 0,
				  &head, sizeof(head), body.data, body.len);
	pfree(body.data);
}

/* Sends what is at fault, and steps over it; throws the error on where it can't. */
static void
step_over(ScTaskQuery *query, ErrorData *error)
{
	ScEngineFault fault = SC_FAULT_ENGINE;
	ScEnv		env;

	/*
	 * Whether a row is cut depends on how its values are stored, which can change: one that is cut and at fault may
	 * have been counted as it came, or be counted and not be taken back.
	 */
	if (query->in_row && query->definition->retracts &&
		((const ScWireRecord *) query->at)->flags & SC_WIRE_CUT)
		ReThrowError(error);
	/* so is what is too large, or too deep, at one time and isn't at another */
	if (query->in_row && query->half == SC_HALF_OLD &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		ReThrowError(error);
	/* what was emitted before is with the row that filled the buffer: nothing of that can be taken back */
	if (!sc_failure_is_transient(error->sqlerrcode) && !query->rows.sending)
	{
		sc_env_enter(&env, query->query->owner, query->query->settings);
		fault = sc_engine_after_error(query->engine);
		sc_env_leave(&env);
	}
	switch (fault)
	{
		case SC_FAULT_ROW:
			/* an old row at fault was so when it came: it was never counted */
			if (query->half != SC_HALF_OLD)
				send_letter(query, SC_DEAD_ROW, query->row, error);
			query->in_row = false;
			if (!sc_task_step_over_half(query))
				query->at += ((const ScWireRecord *) query->at)->len;
			break;
		case SC_FAULT_GROUP:
			send_letter(query, SC_DEAD_GROUP, sc_engine_failed_group(query->engine), error);
			break;
		case SC_FAULT_ENGINE:
			ReThrowError(error);
			break;
	}
}

typedef struct Work
{
	ScTaskQuery *query;
	void		(*perform) (ScTaskQuery *query);
} Work;

static bool
work_step(void *arg)
{
	Work	   *work = arg;
	ScEnv		env;

	sc_env_enter(&env, work->query->query->owner, work->query->query->settings);
	work->perform(work->query);
	sc_env_leave(&env);
	return true;
}

void
sc_task_dead_run(ScTaskQuery *query, void (*perform) (ScTaskQuery *query))
{
	Work		work = {.query = query,.perform = perform};
	ErrorData  *error;

	while ((error = sc_subtransaction_try(work_step, &work, NULL)) != NULL)
	{
		step_over(query, error);
		FreeErrorData(error);
	}
}
