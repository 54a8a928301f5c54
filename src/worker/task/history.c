/*-------------------------------------------------------------------------
 * history.c
 *	  The history that a new query begins with (reader/history.c): what of it has come, and what of the log is in it.
 *
 * It comes before all that is decoded.  A query is WANTED when it is loaded, COMING from 'H' on and COMPLETE at 'h'; no
 * barrier comes before that.  From then on it is a query as any other at the place where decoding begins, but that it
 * skips transactions that were in its history: as long as the log isn't past "until", also in later attempts.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/env.h"
#include "utils/lsyscache.h"
#include "worker/frame/loop.h"
#include "worker/task/task_internal.h"

/* A copy that lives as long as the query. */
static void
keep_seen(ScTaskQuery *query, const ScSeen *seen)
{
	query->seen = MemoryContextAlloc(query->context, SC_SEEN_SIZE(seen->nxip));
	memcpy(query->seen, seen, SC_SEEN_SIZE(seen->nxip));
}

/* The stream's options are those that the snapshot sees. */
static void
begin_step(ScTaskQuery *query, void *arg)
{
	const ScWireHistory *history = arg;
	ScEnv		env;

	query->history = SC_HISTORY_COMING;
	query->ordinal = 0;
	keep_seen(query, &history->seen);
	query->unsent_seen = query->seen;
	query->options = history->options;
	sc_env_enter(&env, query->query->owner, query->query->settings);
	sc_engine_set_delay(query->engine, history->options.watermark_delay);
	sc_env_leave(&env);
}

/*
 * The query replaces another.  Windows that end before the oldest row of the history, or by the time that was asked for,
 * stay as that one left them, if they are over: nothing more is counted in them, wherever the watermark goes.
 */
static void
keep_old_windows(ScTaskQuery *query, int64 oldest)
{
	const ScQuery *catalog = query->query;
	int64		watermark = sc_watermark(sc_engine_time(query->engine)->max_event_time, query->options.watermark_delay);
	int64		until = catalog->has_keep_before ? catalog->keep_before : oldest;

	if (catalog->replaces == 0 || query->definition->stateless || !sc_assigner_has_windows(&query->definition->window))
		return;
	if (watermark != SC_NO_EVENT_TIME)
		until = Min(until, sc_time_add(watermark, -catalog->allowed_lateness));
	else if (!catalog->has_keep_before)
		return;					/* nobody knows (replacing.c) */
	query->seen->kept_until = until;
	sc_engine_close_until(query->engine, until);
}

/* All of it has come, or an error in its place. */
static void
end_step(ScTaskQuery *query, void *arg)
{
	const ScWireHistoryEnd *end = arg;

	if (end->sqlerrcode != 0)
		ereport(ERROR,
				(errcode(end->sqlerrcode),
				 errmsg("%s", (const char *) (end + 1)),
				 errdetail("The query begins with the rows that \"%s\" holds, and they could not be read.",
						   get_rel_name(end->relid))));
	keep_old_windows(query, end->oldest);
	query->history = SC_HISTORY_COMPLETE;
	query->touched = true;
}

/* Performs a step of the queries of a stream that have this much of its history. */
static void
step_all(Oid relid, bool wanted, void (*perform) (ScTaskQuery *query, void *arg), const void *arg)
{
	int			i = 0;

	sc_begin_transaction();
	sc_task_queries_begin_round();
	while (i < list_length(sc_task_queries()))
	{
		ScTaskQuery *query = list_nth(sc_task_queries(), i);

		if (query->history == SC_HISTORY_COMPLETE || query->definition->stream_relid != relid ||
			(wanted && query->history != SC_HISTORY_WANTED) ||
			sc_task_query_step(query, query->offset, perform, unconstify(void *, arg)))
			i++;				/* else it has failed, and is gone from the list */
	}
	sc_commit_transaction();
}

void
sc_task_history_begin(const ScWireHistory *history)
{
	step_all(history->relid, true, begin_step, history);
}

void
sc_task_history_end(const ScWireHistoryEnd *end)
{
	step_all(end->relid, false, end_step, end);
}

void
sc_task_query_restore_seen(ScTaskQuery *query, const ScOffset *offset)
{
	ScSeen	   *seen;

	if (offset->history)
	{
		query->history = SC_HISTORY_WANTED;
		return;
	}
	if (!query->query->backfill || (seen = sc_seen_read(query->query->query_id)) == NULL)
		return;
	if (seen->until > offset->lsn)
		keep_seen(query, seen);
	pfree(seen);
}

void
sc_task_query_add_seen(ScTaskQuery *query)
{
	/* one task is enough: all have the same */
	if (query->unsent_seen != NULL && query->place.number == 0)
		sc_outbox_add(query->rows.outbox, SC_MESSAGE_HISTORY, query->query->query_id, 0,
					  query->unsent_seen, SC_SEEN_SIZE(query->unsent_seen->nxip), NULL, 0);
	query->unsent_seen = NULL;
}

bool
sc_task_query_has_seen(ScTaskQuery *query, TransactionId xid, XLogRecPtr end_lsn)
{
	/* it stays, also behind "until": who joins rows looks ahead in the message */
	return query->seen != NULL && sc_seen_contains(query->seen, xid, end_lsn);
}
