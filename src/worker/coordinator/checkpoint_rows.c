/*-------------------------------------------------------------------------
 * checkpoint_rows.c
 *	  Writing one query's result rows of a checkpoint, as its owner, and what
 *	  becomes of errors in that.
 *
 * An error is the query's: it is returned as a value.  With on_error =>
 * 'dead_letter' the rows are then written again in subtransactions, message by
 * message, and a message that fails is halved again and again: what is left are the
 * rows at fault, which become dead letters.
 *
 * Each of these ranges has a sink of its own, which makes one update of a deletion and the row right behind it.  So no range
 * ends between the two, unless they are all that there is and fail together: a deletion by itself could violate a
 * foreign key, or take rows along, for a row that only changes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "base/clock.h"
#include "base/env.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/subtransaction.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "exec/engine.h"
#include "sink/sink.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "wire/message.h"
#include "worker/coordinator/checkpoint_internal.h"
#include "worker/frame/loop.h"
#include "worker/frame/own_rows.h"
#include "worker/frame/retain_row.h"

/* So many rows are worth telling the reader of */
#define MANY_ROWS	128

/* and so many pages of rows, if all of them are deleted */
#define MANY_PAGES	16

/* Time limits within which the rows at fault must be found */
#define DEAD_LETTER_LIMITS	3

/* Rows of one message, and perhaps the last one of the message before. */
typedef struct RowRange
{
	const ScQuery *query;
	const ScMessageRow **rows;
	int			nrows;
	ScMoment	deadline;		/* of all the query's rows; 0: none */
} RowRange;

/* ---------------------------------------------------------------------
 * All of them at once
 * --------------------------------------------------------------------- */

/* Puts the rows of one message into the sink. */
static void
put_rows(ScSink *sink, const char *message, Size len)
{
	const char *end = message + len;
	const char *row = SC_MESSAGE_BODY(message);

	while (row < end)
	{
		const ScMessageRow *head = (const ScMessageRow *) row;

		sc_sink_put(sink, head->op, (MinimalTuple) (head + 1));
		row += head->len;
	}
}

/*
 * Writes the part's result rows as the query's owner.  False: its code would run, which it may not,
 * and nothing is written; the caller rolls back.
 */
static bool
write_rows(ScQuery *query, ScPart *part, ScWrittenRows *written, bool may_run_code)
{
	ScEnv		env;
	ScSink	   *sink;
	const char *message;
	Size		len;
	int64		nrows = 0;
	bool		told = false;

	sc_env_enter(&env, query->owner, query->settings);
	sc_limit_begin(query->owner);
	sink = sc_sink_open(query);
	written->user_code = sc_sink_runs_user_code(sink);
	if (written->user_code && !may_run_code)
	{
		sc_limit_end();
		return false;
	}
	sc_part_rewind(part);
	while ((message = sc_part_next(part, &len)) != NULL)
	{
		if (((const ScMessage *) message)->kind == SC_MESSAGE_ROWS)
		{
			nrows += ((const ScMessage *) message)->nrows;
			if (sc_my_process == SC_PROCESS_WRITER)
				sc_my_pipeline->writing_done = nrows;
			if (!told && !written->user_code &&
				(nrows >= MANY_ROWS ||
				 (sc_message_has_row(message, len, SC_RESULT_TRUNCATE) &&
				  RelationGetNumberOfBlocks(sc_sink_relation(sink)) >= MANY_PAGES)))
			{
				sc_own_rows_begin(sc_sink_relation(sink));
				told = true;
			}
			sc_limit_add(((const ScMessage *) message)->nrows);
			put_rows(sink, message, len);
		}
		CHECK_FOR_INTERRUPTS();
		/* the disk may be slow */
		if (!written->user_code)
			sc_limit_renew();
	}
	written->nrows = sc_sink_close(sink);
	PortalHashTableDeleteAll();
	if (!written->user_code)
		sc_limit_renew();
	sc_limit_end();
	sc_env_leave(&env);
	return true;
}

bool
sc_checkpoint_rows_direct(ScQuery *query, ScPart *part, ScWrittenRows *written)
{
	return write_rows(query, part, written, false);
}

ScFailure *
sc_checkpoint_try(void (*step) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ScFailure  *volatile failure = NULL;

	PG_TRY();
	{
		step(arg);
	}
	PG_CATCH();
	{
		ErrorData  *error = sc_take_query_error(context);

		failure = sc_failure_from_error(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	return failure;
}

typedef struct AllRows
{
	ScQuery    *query;
	ScPart	   *part;
	ScWrittenRows *written;
} AllRows;

static void
rows_step(void *arg)
{
	AllRows    *all = arg;

	(void) write_rows(all->query, all->part, all->written, true);
}

ScFailure *
sc_checkpoint_rows(ScQuery *query, ScPart *part, ScWrittenRows *written)
{
	AllRows		all = {.query = query,.part = part,.written = written};
	ScMoment	began = sc_moment_now();
	ScFailure  *failure = sc_checkpoint_try(rows_step, &all);

	/* perhaps for the lock on a row */
	if (failure && failure->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		sc_lock_time_spend(sc_moment_now() - began);
	return failure;
}

/* ---------------------------------------------------------------------
 * Around the rows at fault
 * --------------------------------------------------------------------- */

/* The result rows of a part. */
static int64
count_rows(ScPart *part)
{
	const char *message;
	Size		len;
	int64		nrows = 0;

	sc_part_rewind(part);
	while ((message = sc_part_next(part, &len)) != NULL)
		nrows += ((const ScMessage *) message)->nrows;
	return nrows;
}

static void
put_range(const RowRange *range)
{
	ScSink	   *sink = sc_sink_open(range->query);

	for (int i = 0; i < range->nrows; i++)
		sc_sink_put(sink, range->rows[i]->op, (MinimalTuple) (range->rows[i] + 1));
	(void) sc_sink_close(sink);
}

typedef struct RangeStep
{
	void		(*step) (const RowRange *range);
	const RowRange *range;
} RangeStep;

/* Runs the step as the query's owner, within the limit that as many rows allow.  Leaves no portal. */
static bool
range_step(void *arg)
{
	RangeStep  *step = arg;
	const RowRange *range = step->range;
	ScEnv		env;

	sc_env_enter(&env, range->query->owner, range->query->settings);
	sc_limit_begin(range->query->owner);
	sc_limit_add(range->nrows);
	step->step(range);
	PortalHashTableDeleteAll();
	sc_env_leave(&env);
	return true;
}

/*
 * Performs "step" as the owner in a subtransaction of its own; returns the failure
 * that undid it, or NULL.
 */
static ScFailure *
try_step(void (*step) (const RowRange *range), const RowRange *range)
{
	RangeStep	arg = {.step = step,.range = range};
	ErrorData  *error = sc_subtransaction_try(range_step, &arg, sc_rethrow_cancel);
	ScFailure  *failure;

	if (!error)
	{
		sc_limit_end();
		return NULL;
	}
	failure = sc_failure_from_error(error);
	FreeErrorData(error);
	return failure;
}

static ScRetainedRow retained_row; /* result of retain_row */

/* The range's only row, to be kept. */
static void
retain_row(const RowRange *range)
{
	Relation	view = relation_open(range->query->definition, AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(view)),
													&TTSOpsMinimalTuple);

	relation_close(view, NoLock);
	ExecStoreMinimalTuple((MinimalTuple) (range->rows[0] + 1), slot, false);
	slot_getallattrs(slot);
	sc_retain_row(slot->tts_tupleDescriptor, slot->tts_values, slot->tts_isnull, &retained_row);
	ExecDropSingleTupleTableSlot(slot);
}

/* However many rows are at fault, finding them has the time of one query. */
static ScFailure *
too_long(const ScQuery *query)
{
	ScFailure  *failure = palloc0(sizeof(ScFailure));
	const char *setting;
	char	   *message;
	char	   *hint;

	(void) sc_limit_us(query->owner, &setting);
	sc_limit_describe(setting, &message, &hint);
	failure->sqlerrcode = ERRCODE_QUERY_CANCELED;
	failure->message = message;
	failure->detail = pstrdup("Its result rows are written one by one to find those that raise errors.");
	failure->hint = hint;
	return failure;
}

/* When they must be found; 0: whenever they are. */
static ScMoment
deadline_of(const ScQuery *query, ScPart *part)
{
	const char *setting;
	int64		limit = sc_limit_us(query->owner, &setting);
	int64		us = limit + count_rows(part) * SC_LIMIT_UNIT_US;

	return limit > 0 ? sc_moment_now() + us * DEAD_LETTER_LIMITS : 0;
}

/* Where to halve the range: so many rows of it come first. */
static int
middle_of(const RowRange *range)
{
	int			n = range->nrows / 2;

	return n + (range->nrows > 2 && range->rows[n - 1]->op == SC_RESULT_DELETE &&
				range->rows[n]->op == SC_RESULT_ROW);
}

/*
 * Writes the range, around the rows at fault.  Returns a failure that may pass
 * another time: nothing is decided then.
 */
static ScFailure *
write_range(const RowRange *range, ScDeadLetterWriter *letters, int64 *nrows)
{
	ScFailure  *failure;
	RowRange	half = *range;

	if (range->deadline != 0 && sc_moment_now() >= range->deadline)
		return too_long(range->query);
	failure = try_step(put_range, range);

	if (!failure)
	{
		*nrows += range->nrows;
		return NULL;
	}
	if (sc_failure_is_transient(failure->sqlerrcode))
		return failure;
	if (range->nrows == 1)
	{
		if (try_step(retain_row, range) != NULL)
			memset(&retained_row, 0, sizeof(retained_row));
		sc_dead_letter_add(letters, SC_DEAD_RESULT, &retained_row, failure);
		return NULL;
	}
	half.nrows = middle_of(range);
	failure = write_range(&half, letters, nrows);
	if (failure)
		return failure;
	half.rows += half.nrows;
	half.nrows = range->nrows - half.nrows;
	return write_range(&half, letters, nrows);
}

/*
 * The message's rows, in the current context, behind the deletion that has waited for them ("*waiting", or NULL).  If the
 * last one is a deletion it isn't among them: it waits, in "context".
 */
static void
take_rows(RowRange *range, const char *message, Size len, ScMessageRow **waiting, MemoryContext context)
{
	const char *row = SC_MESSAGE_BODY(message);
	const ScMessageRow *last;

	range->rows = palloc(sizeof(ScMessageRow *) * (((const ScMessage *) message)->nrows + 1));
	range->nrows = 0;
	if (*waiting != NULL)
	{
		range->rows[range->nrows++] = memcpy(palloc((*waiting)->len), *waiting, (*waiting)->len);
		pfree(*waiting);
		*waiting = NULL;
	}
	for (; row < message + len; row += ((const ScMessageRow *) row)->len)
		range->rows[range->nrows++] = (const ScMessageRow *) row;
	last = range->nrows > 0 ? range->rows[range->nrows - 1] : NULL;
	if (last == NULL || last->op != SC_RESULT_DELETE)
		return;
	*waiting = MemoryContextAllocZero(context, last->len);
	memcpy(*waiting, last, sizeof(ScMessageRow) + ((MinimalTuple) (last + 1))->t_len);
	range->nrows--;
}

ScFailure *
sc_checkpoint_rows_around(ScQuery *query, ScPart *part, ScDeadLetterWriter *letters,
						  ScWrittenRows *written)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "stream_ckpt rows of a message",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	RowRange	range = {.query = query,.deadline = deadline_of(query, part)};
	ScMessageRow *waiting = NULL;
	ScFailure  *failure = NULL;
	const char *message;
	Size		len;

	written->nrows = 0;
	written->user_code = true;
	sc_part_rewind(part);
	while (!failure && (message = sc_part_next(part, &len)) != NULL)
	{
		if (((const ScMessage *) message)->kind == SC_MESSAGE_ROWS)
		{
			MemoryContextReset(context);
			MemoryContextSwitchTo(context);
			take_rows(&range, message, len, &waiting, caller);
			if (range.nrows > 0)
				failure = write_range(&range, letters, &written->nrows);
			MemoryContextSwitchTo(caller);
		}
		CHECK_FOR_INTERRUPTS();
	}
	if (!failure && waiting != NULL)
	{
		range.rows = (const ScMessageRow **) &waiting;
		range.nrows = 1;
		failure = write_range(&range, letters, &written->nrows);
	}
	/* a failure's memory is the context's, which goes with its parent */
	if (!failure)
		MemoryContextDelete(context);
	return failure;
}
