/*-------------------------------------------------------------------------
 * queries.c
 *	  The queries of a task, and the rule that an error in one of them concerns it
 *	  alone.
 *
 * Whatever runs code of a query's owner does it as a step under guard(): an error
 * there is caught, the message's transaction is aborted and begun anew, the
 * failure goes to the coordinator, and the query is gone from this task.  Its
 * state is the last checkpoint's again: what came of it since then, and waits in
 * the outbox or with the coordinator, is void.  The coordinator decides when it
 * is tried again.
 *
 * What code of an owner's leaves in the process beyond the transaction goes at the end
 * of the step (sc_env_end_step).
 *
 * Not an error of a query: a cancel (SIGINT) of the process, which ends the
 * attempt as any signal does.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/debug.h"
#include "base/env.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/settings.h"
#include "base/share.h"
#include "base/user_code.h"
#include "ckpt/failure.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "worker/frame/loop.h"
#include "worker/task/task_internal.h"

/* So many chunks are deleted in one transaction; few where tests look at that */
#ifdef SC_DEBUG
#define CLEAN_CHUNKS	20
#else
#define CLEAN_CHUNKS	10000
#endif

static List *queries;			/* ScTaskQuery *, in TopMemoryContext */
static ScOutbox *outbox;
static int	my_task;			/* number of this task, */
static int	ntasks;				/* of so many of the pipeline */

/* What a step works on; "query" is the step's to fill in where it loads one. */
typedef struct Step
{
	int64		query_id;
	Oid			owner;			/* of a query that is being loaded, */
	ScPlace		place;			/* and its place here */
	ScTaskQuery *query;
	MemoryContext context;		/* of a query that is being loaded */
	const ScOffset *offset;		/* of a query that is restored */
	bool		more;			/* has to be done again */
	const char *data;			/* of a message */
	Size		len;
	XLogRecPtr	lsn;
	Size		goal;			/* of one that makes room */
	void		(*raise) (const ScTaskQuery *query);	/* of one that fails */
	const ScWireControl *control;
	void		(*act) (ScTaskQuery *query, const ScWireControl *control);
	void		(*perform) (ScTaskQuery *query, void *arg);
	void	   *arg;
} Step;

static void load_step(Step *step);
static void run_step(Step *step);

/* ---------------------------------------------------------------------
 * Errors
 * --------------------------------------------------------------------- */

/*
 * Tells the coordinator.  What may pass without the row's being at fault has a place,
 * too, past which the query counts as healthy again.
 */
static void
send_failure(const Step *step, ErrorData *error)
{
	ScTaskQuery *query = step->query;
	ScFailure  *failure = sc_failure_from_error(error);
	StringInfoData buf;

	if (query && query->in_row)
	{
		failure->row_lsn = query->transaction;
		failure->row_ordinal = query->ordinal;
	}
	else if (query && sc_failure_is_transient(error->sqlerrcode))
		failure->row_lsn = XLogRecPtrIsInvalid(step->lsn) ? query->transaction : step->lsn;
	if (step->context && !failure->hint && !sc_failure_is_transient(error->sqlerrcode))
		failure->hint = "The query could not be loaded. Mend what its definition is made of and call stream_ckpt.resume_query(query); or drop it and create it again.";
	/* what others' tables and functions raise says nothing of the query */
	if (query && query->definition->source && !failure->hint && !sc_failure_is_transient(error->sqlerrcode))
		failure->hint = "Mend what the row reads, or what it is joined with, and call stream_ckpt.resume_query(query).";
	initStringInfo(&buf);
	sc_failure_write(&buf, failure);
	if (query && query->snapshot && sc_outbox_is_held(outbox))
	{
		/* its part isn't complete, so the failure belongs to that, and what came later to nothing */
		sc_outbox_void(outbox, step->query_id);
		sc_outbox_add_ahead(outbox, SC_MESSAGE_FAILED, step->query_id, NULL, 0, buf.data, buf.len);
	}
	else
		sc_outbox_add(outbox, SC_MESSAGE_FAILED, step->query_id, 0, NULL, 0, buf.data, buf.len);
}

void
sc_task_query_forget(ScTaskQuery *query)
{
	queries = list_delete_ptr(queries, query);
	sc_task_query_free(query);
}

/*
 * Code of owners can leave something that fails, or never ends, at the commit: a transaction
 * on another server.  It concerns nobody else.
 */
static void
commit_step(void)
{
	sc_commit_transaction();
	sc_begin_transaction();
}

/*
 * What is called is often made ready in an earlier step, so once seen means always.  "query"
 * may be NULL: whoever it was, it is in nobody else's step.
 */
static bool
runs_user_code(ScTaskQuery *query)
{
	bool		seen = sc_user_code_seen();

	if (!query)
		return seen;
	query->user_code |= seen;
	return query->user_code;
}

/* Runs that the step wrote must be there before their last chunks are sent, whatever becomes of other queries. */
static bool
wrote_state(ScTaskQuery *query)
{
	if (!query || !sc_spilled_has_written(query->spilled))
		return false;
	sc_commit_lazily();
	return true;
}

void
sc_task_queries_begin_round(void)
{
	ListCell   *lc;

	sc_share_begin();
	foreach(lc, queries)
		sc_share_add(((ScTaskQuery *) lfirst(lc))->query->owner);
	sc_lock_time_begin();
}

/* What the step took, for the period's account. */
static void
note_time(ScTaskQuery *query)
{
	int64		units;
	int64		us = sc_limit_took(&units);

	if (!query)
		return;
	query->took_us += us;
	query->took_units += units;
}

/*
 * Runs "perform" on the step's query.  False: it failed, and is forgotten.  The
 * transaction can be another one then.
 */
static bool
guard(void (*perform) (Step *step), Step *step)
{
	static MemoryContext context = NULL;
	volatile bool done = false;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "stream_ckpt failure",
										ALLOCSET_SMALL_SIZES);
	sc_worker_context.query_id = step->query_id;
	PG_TRY();
	{
		(void) sc_user_code_seen();
		sc_limit_begin(step->query ? step->query->query->owner : step->owner);
		perform(step);
		/* what the owner's code left open would be the next one's, or spoil the commit */
		PortalHashTableDeleteAll();
		if (runs_user_code(step->query) | wrote_state(step->query))
			commit_step();
		sc_limit_end();
		note_time(step->query);
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error = sc_take_query_error(context);

		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		send_failure(step, error);
		if (step->query && list_member_ptr(queries, step->query))
			sc_task_query_forget(step->query);
		sc_begin_transaction();
		MemoryContextReset(context);
	}
	PG_END_TRY();
	sc_env_end_step();
	sc_worker_context.query_id = 0;
	return done;
}

/* ---------------------------------------------------------------------
 * Loading
 * --------------------------------------------------------------------- */

static void
load_step(Step *step)
{
	ScTaskQuery *query = sc_task_query_load(step->query_id, step->place, step->context, outbox);

	step->query = query;
	SC_DEBUG_POINT("task_query_compiled");
}

static void
restore_step(Step *step)
{
	sc_task_query_restore(step->query, step->offset);
}

/* What incomplete runs have left; it is committed at once, and comes again if that is lost. */
static void
clean_step(Step *step)
{
	int			n = sc_changelog_clean(step->query->engine, step->query_id, CLEAN_CHUNKS);

	if (n > 0)
	{
		sc_commit_lazily();
		commit_step();
	}
	step->more = n == CLEAN_CHUNKS;
}

/* Before it writes anything, also of one that begins: an attempt before this may have written runs of it.  False: it failed */
static bool
clean(Step *step)
{
	do
	{
		if (!guard(clean_step, step))
			return false;
	} while (step->more);
	return true;
}

/* Loads a query and puts it into the list; NULL where it failed or is gone. */
static ScTaskQuery *
load(Step *step, bool *failed)
{
	MemoryContext old;

	step->context = AllocSetContextCreate(TopMemoryContext, "stream_ckpt query",
										  ALLOCSET_DEFAULT_SIZES);
	*failed = !guard(load_step, step) ||
		(step->query && (!clean(step) || (step->offset && !guard(restore_step, step))));
	if (*failed && step->query)
		sc_task_query_free(step->query);	/* with "context" */
	else if (!step->query)
		MemoryContextDelete(step->context);
	if (*failed || !step->query)
		return NULL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	queries = lappend(queries, step->query);
	/* what was heard while it was loaded concerned nobody else */
	sc_task_query_catch_up(step->query);
	MemoryContextSwitchTo(old);
	return step->query;
}

/* As of now; invalid: the query is gone. */
static Oid
owner_of(int64 query_id)
{
	const ScQuery *catalog = sc_query_by_id(query_id, true);

	return catalog ? catalog->owner : InvalidOid;
}

void
sc_task_queries_restore(ScOutbox *task_outbox, int task, int tasks, const ScOffset *offsets,
						const ScPlacement *placements, int noffsets)
{
	ScPlace		place;

	outbox = task_outbox;
	my_task = task;
	ntasks = tasks;
	sc_share_begin();
	for (int i = 0; i < noffsets; i++)
	{
		if (sc_placement_place(placements[i], my_task, ntasks, &place))
			sc_share_add(owner_of(offsets[i].query_id));
	}
	sc_lock_time_begin();
	for (int i = 0; i < noffsets; i++)
	{
		Step		step = {0};
		bool		failed;

		if (!sc_placement_place(placements[i], my_task, ntasks, &step.place))
			continue;
		step.offset = &offsets[i];
		step.query_id = step.offset->query_id;
		step.owner = owner_of(step.query_id);
		(void) load(&step, &failed);
	}
}

List *
sc_task_queries(void)
{
	return queries;
}

bool
sc_task_queries_mind_catalogs(void)
{
	ListCell   *lc;

	foreach(lc, queries)
	{
		const ScTaskQuery *query = lfirst(lc);

		if (query->definition->has_user_parts || query->definition->source != NULL || query->query->keep_late_rows ||
			query->query->dead_letter)
			return true;
	}
	return false;
}

bool
sc_task_queries_read_tables(void)
{
	ListCell   *lc;

	foreach(lc, queries)
	{
		if (((ScTaskQuery *) lfirst(lc))->definition->source != NULL)
			return true;
	}
	return false;
}

static ScTaskQuery *
find(int64 query_id)
{
	ListCell   *lc;

	foreach(lc, queries)
	{
		if (((ScTaskQuery *) lfirst(lc))->query->query_id == query_id)
			return lfirst(lc);
	}
	return NULL;
}

void
sc_task_queries_forget_lost(void)
{
	int64		query_id;

	while ((query_id = sc_outbox_take_lost(outbox)) != 0)
	{
		ScTaskQuery *query = find(query_id);

		if (query)
			sc_task_query_forget(query);
	}
}

/* ---------------------------------------------------------------------
 * Control messages
 * --------------------------------------------------------------------- */

/* The stream's options are those of the message; one of 0.2 has none, the catalogs have them then. */
void
sc_task_query_create(const ScWireControl *control)
{
	int64		query_id = control->control.query_id;
	XLogRecPtr	lsn = control->end_lsn;
	ScStreamOptions options = control->control.options;
	Step		step = {0};
	ScQuery    *catalog;
	ScTaskQuery *query;
	bool		failed;

	if (!sc_placement_place(sc_placement_of_new(query_id, control->control.parallelism, ntasks),
							my_task, ntasks, &step.place))
		return;
	/* restored, or standing at its offset: the message is being read again */
	if (find(query_id) || sc_offset_exists(query_id))
		return;
	step.query_id = query_id;
	catalog = sc_query_by_id(query_id, true);
	/* at the commit it was found that it has to begin with its stream's history: an attempt begins with that */
	if (!catalog || catalog->backfill)
		return;
	if (!control->control.has_options)
		options = sc_stream_by_relid(catalog->stream_relid, false)->options;
	/* whatever becomes of its first part: it must not begin anywhere else */
	sc_task_query_first_offset(query_id, catalog->stream_relid, lsn, step.place.ntasks, &options, outbox);
	sc_task_queries_begin_round();
	sc_share_add(catalog->owner);
	sc_lock_time_begin();
	step.owner = catalog->owner;
	query = load(&step, &failed);
	if (!query)
		return;
	query->options = options;
	sc_engine_set_delay(query->engine, options.watermark_delay);
	query->offset = lsn;
}

static void
settle(ScTaskQuery *query, void *arg)
{
	sc_task_query_go_on(query, NULL);
}

/* What it has sent of a pending part is completed first; it isn't needed, but the part is as all are. */
void
sc_task_query_drop(int64 query_id)
{
	ScTaskQuery *query = find(query_id);

	if (query && (query->snapshot == NULL || sc_task_query_step(query, InvalidXLogRecPtr, settle, NULL)))
		sc_task_query_forget(query);
	sc_outbox_add(outbox, SC_MESSAGE_FORGET, query_id, 0, NULL, 0, NULL, 0);
}

/* As the catalogs say now. */
static bool
is_paused(int64 query_id)
{
	const ScQuery *catalog = sc_query_by_id(query_id, true);

	return catalog != NULL && catalog->paused;
}

/* Takes no more rows; the next barrier is its last. */
void
sc_task_query_pause(int64 query_id, TransactionId xid, XLogRecPtr lsn)
{
	ScTaskQuery *query = find(query_id);

	/*
	 * A query that was resumed since may read the message again.  One that is paused was resumed in between,
	 * and paused again, before a barrier came: it goes on from the first place, where its rows end.  Of a message
	 * that is older than the query's history nobody knows whether it was read before: the catalogs say what holds.
	 */
	if (!query || query->paused || lsn <= query->offset || (sc_task_query_has_seen(query, xid, lsn) && !is_paused(query_id)))
		return;
	query->paused = true;
	query->offset = lsn;
}

void
sc_task_query_leave(int64 query_id, XLogRecPtr lsn)
{
	ScTaskQuery *query = find(query_id);

	if (!query || query->paused)
		return;
	query->paused = true;
	query->offset = Max(query->offset, lsn);
}

static void
act_step(Step *step)
{
	step->act(step->query, step->control);
}

/* Windows can close at a control message: as with rows, an error is the query's. */
static void
act_on_all(void (*act) (ScTaskQuery *query, const ScWireControl *control),
		   const ScWireControl *control)
{
	int			i = 0;

	sc_task_queries_begin_round();
	while (i < list_length(queries))
	{
		Step		step = {0};

		step.query = list_nth(queries, i);
		step.query_id = step.query->query->query_id;
		step.lsn = control->end_lsn;
		step.control = control;
		step.act = act;
		if (guard(act_step, &step))
			i++;				/* else it is gone from the list */
	}
}

void
sc_task_queries_alter(const ScWireControl *control)
{
	act_on_all(sc_task_query_alter, control);
}

void
sc_task_queries_reset(const ScWireControl *control)
{
	act_on_all(sc_task_query_reset, control);
}

/* ---------------------------------------------------------------------
 * Rows and barriers
 * --------------------------------------------------------------------- */

static void
run_step(Step *step)
{
	sc_limit_add(((const ScWireHeader *) step->data)->nrows);
	sc_task_query_run(step->query, step->data, step->len);
}

/*
 * The i-th query has halted in a message that those before it have done.  Returns its place, or
 * that of the one behind it, when some of them are gone from the list.
 */
static int
bound_within(int i)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	List	   *rest = list_copy_tail(queries, i);	/* outlives the transaction, which an error replaces */
	int			nrest = 0;
	ListCell   *lc;

	MemoryContextSwitchTo(old);
	sc_task_queries_bound();
	foreach(lc, rest)
	{
		if (list_member_ptr(queries, lfirst(lc)))
			nrest++;
	}
	list_free(rest);
	return list_length(queries) - nrest;
}

void
sc_task_queries_run(const char *data, Size len)
{
	int			i = 0;

	sc_task_queries_begin_round();

	while (i < list_length(queries))
	{
		Step		step = {0};

		step.query = list_nth(queries, i);
		step.query_id = step.query->query->query_id;
		step.data = data;
		step.len = len;
		if (!guard(run_step, &step))
			continue;			/* it is gone from the list */
		if (step.query->halted)
			i = bound_within(i);
		else
			i++;
	}
}

static void
fail_step(Step *step)
{
	step->raise(step->query);
}

void
sc_task_query_fail(ScTaskQuery *query, void (*raise) (const ScTaskQuery *query))
{
	Step		step = {0};

	step.query = query;
	step.query_id = query->query->query_id;
	step.raise = raise;
	(void) guard(fail_step, &step);
}

static void
shrink_step(Step *step)
{
	sc_task_query_shrink(step->query, step->goal);
}

bool
sc_task_query_make_room(ScTaskQuery *query, Size goal)
{
	Step		step = {0};

	step.query = query;
	step.query_id = query->query->query_id;
	step.goal = goal;
	return guard(shrink_step, &step);
}

static void
perform_step(Step *step)
{
	step->perform(step->query, step->arg);
}

bool
sc_task_query_step(ScTaskQuery *query, XLogRecPtr lsn, void (*perform) (ScTaskQuery *query, void *arg), void *arg)
{
	Step		step = {0};

	step.query = query;
	step.query_id = query->query->query_id;
	step.lsn = lsn;
	step.perform = perform;
	step.arg = arg;
	return guard(perform_step, &step);
}
