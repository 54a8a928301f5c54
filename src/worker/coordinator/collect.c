/*-------------------------------------------------------------------------
 * collect.c
 *	  Collecting the tasks' parts of a checkpoint (collect.h).
 *
 * Result rows of closed windows come as they close, the rest after the barrier;
 * all of it is kept by query until it is committed.  What can't be kept (temp_file_limit, a full disk) is lost
 * to its query alone, which begins again from its last checkpoint.  A task that ended its part
 * goes on with the next one: its queue is left alone until then.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/by_id.h"
#include "base/settings.h"
#include "ckpt/seen.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/coordinator/checkpoint_internal.h"
#include "worker/coordinator/collect.h"
#include "worker/coordinator/idle.h"
#include "worker/coordinator/reports.h"
#include "worker/frame/backfill.h"
#include "worker/frame/loop.h"
#include "worker/frame/shared.h"

/* Messages taken from one queue before interrupts are served. */
#define PUMP_MESSAGES 256

static void take_message(ScPendingCheckpoint *pending, int task, const char *data, Size len);
static void take_end(ScPendingCheckpoint *pending, int task, const ScMessageEnd *end);

ScPendingCheckpoint *
sc_collect_create(int64 attempt)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ScPendingCheckpoint *pending = palloc0(sizeof(ScPendingCheckpoint));

	pending->attempt = attempt;
	pending->context = AllocSetContextCreate(TopMemoryContext,
											 "stream_ckpt collected parts",
											 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
	return pending;
}

bool
sc_collect_pump(ScPendingCheckpoint *pending)
{
	for (int i = 0; i < pending->nqueues; i++)
	{
		for (int n = 0; !pending->ended[i]; n++)
		{
			Size		len;
			void	   *data;
			shm_mq_result result;

			result = shm_mq_receive(pending->queues[i], &len, &data, true);
			if (result == SHM_MQ_WOULD_BLOCK)
				break;
			if (result == SHM_MQ_DETACHED)
				proc_exit(1);	/* a task's end ends the attempt */
			take_message(pending, i, data, len);
			if (n % PUMP_MESSAGES == PUMP_MESSAGES - 1)
				CHECK_FOR_INTERRUPTS();
		}
	}
	return pending->nended == pending->nqueues;
}

static ScPart *
new_part(ScPendingCheckpoint *pending)
{
	/* not the pending checkpoint's context: a part that waits outlives it */
	return sc_part_create(TopMemoryContext,
						  (Size) sc_checkpoint_memory * 1024 * 1024 /
						  (list_length(pending->queries) + 1));
}

ScCollectedQuery *
sc_collect_query(ScPendingCheckpoint *pending, int64 query_id)
{
	ScCollectedQuery *query;
	MemoryContext old;

	if (pending->last && pending->last->query_id == query_id)
		return pending->last;
	query = sc_find_by_id(pending->queries, query_id);
	if (query)
		return pending->last = query;
	old = MemoryContextSwitchTo(TopMemoryContext);
	query = palloc0(sizeof(ScCollectedQuery));
	query->query_id = query_id;
	query->part = new_part(pending);
	pending->queries = lappend(pending->queries, query);
	MemoryContextSwitchTo(old);
	return pending->last = query;
}

/* What arrived of it since its last checkpoint is void. */
static void
empty_part(ScPendingCheckpoint *pending, ScCollectedQuery *query)
{
	sc_part_free(query->part);
	query->part = new_part(pending);
	query->has_rows = query->empties = false;
	query->nrows = 0;
	query->has_history = false;
	query->lsn = InvalidXLogRecPtr;
	query->offset.query_id = 0;
	query->has_news = false;
}

typedef struct Message
{
	ScPart	   *part;
	const char *data;
	Size		len;
} Message;

static void
append_step(void *arg)
{
	Message    *message = arg;

	sc_part_append(message->part, message->data, message->len);
}

/* Its error, in the checkpoint's memory, or NULL.  Outside of any transaction. */
static ScFailure *
try_append(ScPendingCheckpoint *pending, ScPart *part, const char *data, Size len)
{
	MemoryContext old = MemoryContextSwitchTo(pending->context);
	Message		message = {.part = part,.data = data,.len = len};
	ScFailure  *failure = sc_checkpoint_try(append_step, &message);

	MemoryContextSwitchTo(old);
	return failure;
}

/* NULL if there is no query. */
static ScCollectedQuery *
largest(const ScPendingCheckpoint *pending)
{
	ScCollectedQuery *result = NULL;
	ListCell   *lc;

	foreach(lc, pending->queries)
	{
		ScCollectedQuery *query = lfirst(lc);

		if (!result || sc_part_bytes(query->part) > sc_part_bytes(result->part))
			result = query;
	}
	return result;
}

/* Keeps the reason longer than the pending checkpoint. */
static void
keep_why(ScCollectedQuery *query, const ScFailure *failure)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	StringInfoData buf;

	initStringInfo(&buf);
	sc_failure_write(&buf, failure);
	query->why_data = buf.data;
	query->why_kept = sc_failure_read(buf.data, buf.len);
	MemoryContextSwitchTo(old);
	query->refused = query->why_kept;
}

static void
forget_why(ScCollectedQuery *query)
{
	if (!query->why_kept)
		return;
	pfree(query->why_kept);
	pfree(query->why_data);
	query->why_kept = NULL;
}

/* Its part is void, for this reason. */
static void
lose(ScPendingCheckpoint *pending, ScCollectedQuery *query, ScFailure *failure)
{
	if (query->lost)
		return;
	if (failure->hint == NULL)
		failure->hint = "What a checkpoint has of the query did not fit into a temporary file: make room on the disk, or increase \"temp_file_limit\" or \"stream_ckpt.checkpoint_memory\".";
	empty_part(pending, query);
	sc_backfill_remove(sc_my_pipeline, query->query_id);
	forget_why(query);
	keep_why(query, failure);
	query->by_writer = false;
	query->lost = true;
	pending->urgent = true;
}

void
sc_collect_refuse(ScCollectedQuery *query, const ScFailure *failure)
{
	forget_why(query);
	keep_why(query, failure);
	query->by_writer = true;
}

/*
 * Keeps a message in its query's part.  If there is no room for it, whoever takes most of it loses his part,
 * not who comes last.
 */
static void
keep(ScPendingCheckpoint *pending, ScCollectedQuery *query, const char *data, Size len)
{
	ScFailure  *failure;

	while (!query->lost && (failure = try_append(pending, query->part, data, len)) != NULL)
	{
		ScCollectedQuery *victim = largest(pending);

		if (sc_part_bytes(query->part) + len >= sc_part_bytes(victim->part))
			victim = query;
		lose(pending, victim, failure);
	}
}

/*
 * The query stands at its last checkpoint: what arrived since then is void, of all its tasks.  Several of them may
 * fail, by one row mostly, as each looks at every row: that is one failure.
 */
static void
take_failure(ScPendingCheckpoint *pending, ScCollectedQuery *query, const char *body, Size len)
{
	MemoryContext old;

	empty_part(pending, query);
	/* its history may be read for nobody from now on */
	sc_backfill_remove(sc_my_pipeline, query->query_id);
	if (query->failure)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	query->failure_data = memcpy(palloc(len), body, len);
	query->failure = sc_failure_read(query->failure_data, len);
	pending->urgent = true;
	MemoryContextSwitchTo(old);
}

static void
take_same(int task, const ScMessageSame *same, Size len)
{
	int			n = (len - sizeof(ScMessageSame)) / sizeof(int64);

	for (int i = 0; i < n; i++)
		sc_report_same(task, same->ids[i], same->checkpoint_id, same->lsn);
}

/* They are left out of this checkpoint, whatever other tasks have sent of them. */
static void
take_later(ScPendingCheckpoint *pending, const ScMessageSame *later, Size len)
{
	int			n = (len - sizeof(ScMessageSame)) / sizeof(int64);

	for (int i = 0; i < n; i++)
		sc_collect_query(pending, later->ids[i])->later = true;
}

bool
sc_collect_is_same(const ScPendingCheckpoint *pending, int64 query_id)
{
	return sc_reports_same(query_id, pending->checkpoint_id);
}

bool
sc_collect_is_left_out(const ScPendingCheckpoint *pending, int64 query_id)
{
	for (int i = 0; i < SC_WIRE_LEFT_OUT && pending->left_out[i] != 0; i++)
	{
		if (pending->left_out[i] == query_id)
			return true;
	}
	return false;
}

/* Keeps what a task sent with its query's part.  A message of another attempt is dropped. */
static void
take_message(ScPendingCheckpoint *pending, int task, const char *data, Size len)
{
	const ScMessage *message = (const ScMessage *) data;
	ScCollectedQuery *query;

	if (message->attempt != pending->attempt)
		return;
	if (message->kind == SC_MESSAGE_END)
	{
		take_end(pending, task, (const ScMessageEnd *) SC_MESSAGE_BODY(message));
		return;
	}
	if (message->kind == SC_MESSAGE_SAME)
	{
		take_same(task, (const ScMessageSame *) SC_MESSAGE_BODY(message), len - sizeof(ScMessage));
		return;
	}
	if (message->kind == SC_MESSAGE_LATER)
	{
		take_later(pending, (const ScMessageSame *) SC_MESSAGE_BODY(message), len - sizeof(ScMessage));
		return;
	}
	query = sc_collect_query(pending, message->query_id);
	switch (message->kind)
	{
		case SC_MESSAGE_FORGET:
			query->forget = true;
			break;
		case SC_MESSAGE_PAUSED:
			sc_report_paused(task, query->query_id);
			query->paused = sc_reports_paused(query->query_id);
			break;
		case SC_MESSAGE_FAILED:
			sc_report_failed(task, query->query_id);
			take_failure(pending, query, SC_MESSAGE_BODY(message),
						 len - sizeof(ScMessage));
			break;
		case SC_MESSAGE_FIRST_OFFSET:
			query->first = *(const ScOffset *) SC_MESSAGE_BODY(message);
			sc_reports_expect(query->query_id, query->first.ntasks);
			/* the catalogs may want it on more tasks by now */
			sc_my_pipeline->catalog_changed = true;
			break;
		case SC_MESSAGE_OFFSET:
			sc_report_offset(task, (const ScOffset *) SC_MESSAGE_BODY(message));
			query->has_news = true;
			break;
		default:
			/* it has failed in another task */
			if (query->failure)
				break;
			if (message->kind == SC_MESSAGE_ROWS && !query->lost)
			{
				query->has_rows = true;
				query->nrows += message->nrows;
				query->empties |= sc_message_has_row(data, len, SC_RESULT_TRUNCATE);
				pending->result_rows += message->nrows;
			}
			if (message->kind == SC_MESSAGE_HISTORY)
			{
				query->has_history = true;
				query->kept_until = ((const ScSeen *) SC_MESSAGE_BODY(message))->kept_until;
			}
			keep(pending, query, data, len);
			break;
	}
}

static void
free_query(ScCollectedQuery *query)
{
	sc_part_free(query->part);
	if (query->failure)
	{
		pfree(query->failure);
		pfree(query->failure_data);
	}
	forget_why(query);
	pfree(query);
}

ScPart *
sc_collect_take_part(ScPendingCheckpoint *pending, ScCollectedQuery *query)
{
	ScPart	   *part = query->part;

	query->part = new_part(pending);
	query->has_rows = query->empties = query->has_history = false;
	query->nrows = 0;
	return part;
}

typedef struct Parts
{
	ScPart	   *part;
	ScPart	   *behind;
} Parts;

static void
append_all_step(void *arg)
{
	Parts	   *parts = arg;

	sc_part_append_all(parts->part, parts->behind);
}

void
sc_collect_return_part(ScPendingCheckpoint *pending, ScCollectedQuery *query, ScPart *part, int64 nrows)
{
	Parts		parts = {.part = part,.behind = query->part};
	MemoryContext old = MemoryContextSwitchTo(pending->context);
	ScFailure  *failure = NULL;

	/* what came since then is void, and so all of it */
	if (query->failure || query->lost)
		sc_part_free(part);
	else
	{
		failure = sc_checkpoint_try(append_all_step, &parts);
		sc_part_free(query->part);
		query->part = part;
		query->has_rows |= nrows > 0;
		query->nrows += nrows;
	}
	MemoryContextSwitchTo(old);
	if (failure)
		lose(pending, query, failure);
}

/* All parts are here: where each query is that has news. */
static void
merge_offsets(ScPendingCheckpoint *pending)
{
	ListCell   *lc;

	foreach(lc, pending->queries)
	{
		ScCollectedQuery *query = lfirst(lc);

		/* a part that waits keeps what it had */
		if (!query->has_news)
			continue;
		query->incomplete = !sc_reports_merge(query->query_id, &query->offset);
		if (query->incomplete)
			query->offset.query_id = 0;
		else
		{
			query->lsn = query->offset.lsn;
			sc_idle_note(&query->offset);
		}
	}
}

/* A task's part is complete.  Fails if another task ended another checkpoint. */
static void
take_end(ScPendingCheckpoint *pending, int task, const ScMessageEnd *end)
{
	MemoryContext old = MemoryContextSwitchTo(pending->context);

	if (pending->nended == 0)
	{
		pending->checkpoint_id = end->checkpoint_id;
		pending->lsn = end->lsn;
		pending->triggered_at = end->triggered_at;
		/* every task forwards the same ones */
		pending->nxids = end->nxids;
		pending->xids = palloc(end->nxids * sizeof(TransactionId) + 1);
		memcpy(pending->xids, end + 1, end->nxids * sizeof(TransactionId));
	}
	else if (pending->checkpoint_id != end->checkpoint_id)
		elog(ERROR, "parts of checkpoints " INT64_FORMAT " and " INT64_FORMAT " met",
			 pending->checkpoint_id, end->checkpoint_id);
	pending->barrier_at = Max(pending->barrier_at, end->barrier_at);
	pending->sync_us = Max(pending->sync_us, end->sync_us);
	pending->rows_in = Max(pending->rows_in, end->rows_in);
	pending->full_bytes += end->state_bytes;
	pending->parts[task].barrier_at = end->barrier_at;
	pending->parts[task].sync_us = end->sync_us;
	pending->parts[task].async_us = sc_moment_now() - end->barrier_at;
	pending->parts[task].bytes = end->bytes;
	pending->ended[task] = true;
	pending->nended++;
	sc_my_pipeline->acknowledged |= UINT32_C(1) << task;
	if (pending->nended == pending->nqueues)
		merge_offsets(pending);
	MemoryContextSwitchTo(old);
}

void
sc_collect_reset(ScPendingCheckpoint *pending)
{
	List	   *waiting = NIL;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ListCell   *lc;

	pending->some_came_later = false;
	foreach(lc, pending->queries)
	{
		ScCollectedQuery *query = lfirst(lc);

		pending->some_came_later |= query->later;
		query->why = NULL;
		/* nothing was decided of one that was left out */
		if (!query->later && !sc_collect_is_left_out(pending, query->query_id) && !query->lost)
		{
			forget_why(query);
			query->blamed = query->no_writer = query->by_writer = false;
		}
		query->refused = query->why_kept;	/* any other one was the pending checkpoint's */
		query->later = false;
		query->has_news = false;
		if (sc_outcome_keeps_part(query->outcome))
			waiting = lappend(waiting, query);
		else
			free_query(query);
	}
	list_free(pending->queries);
	pending->queries = waiting;
	MemoryContextSwitchTo(old);
	MemoryContextReset(pending->context);
	memset(pending->ended, 0, sizeof(pending->ended));
	pending->last = NULL;
	pending->urgent = false;
	pending->result_rows = 0;
	pending->nended = 0;
	pending->nxids = 0;
	pending->barrier_at = 0;
	pending->sync_us = 0;
	pending->rows_in = 0;
	pending->full_bytes = 0;
	pending->written_rows = 0;
	pending->written_bytes = 0;
}
