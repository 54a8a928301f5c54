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

#include "base/settings.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/coordinator/collect.h"
#include "worker/coordinator/idle.h"
#include "worker/frame/loop.h"
#include "worker/frame/shared.h"

/* Messages taken from one queue before interrupts are served. */
#define PUMP_MESSAGES 256

static void take_message(ScCollection *collection, int task, const char *data, Size len);
static void take_end(ScCollection *collection, int task, const ScMessageEnd *end);

ScCollection *
sc_collect_create(int64 attempt)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ScCollection *collection = palloc0(sizeof(ScCollection));

	collection->attempt = attempt;
	collection->context = AllocSetContextCreate(TopMemoryContext,
												"stream_ckpt collected parts",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
	return collection;
}

bool
sc_collect_pump(ScCollection *collection)
{
	for (int i = 0; i < collection->nqueues; i++)
	{
		for (int n = 0; !collection->ended[i]; n++)
		{
			Size		len;
			void	   *data;
			shm_mq_result result;

			result = shm_mq_receive(collection->queues[i], &len, &data, true);
			if (result == SHM_MQ_WOULD_BLOCK)
				break;
			if (result == SHM_MQ_DETACHED)
				proc_exit(1);	/* a task's end ends the attempt */
			take_message(collection, i, data, len);
			if (n % PUMP_MESSAGES == PUMP_MESSAGES - 1)
				CHECK_FOR_INTERRUPTS();
		}
	}
	return collection->nended == collection->nqueues;
}

static ScPart *
new_part(ScCollection *collection)
{
	/* not the collection's context: a part that waits outlives it */
	return sc_part_create(TopMemoryContext,
						  (Size) sc_checkpoint_memory * 1024 * 1024 /
						  (list_length(collection->queries) + 1));
}

ScCollectedQuery *
sc_collect_query(ScCollection *collection, int64 query_id)
{
	ScCollectedQuery *query;
	MemoryContext old;
	ListCell   *lc;

	if (collection->last && collection->last->query_id == query_id)
		return collection->last;
	foreach(lc, collection->queries)
	{
		query = lfirst(lc);
		if (query->query_id == query_id)
			return collection->last = query;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	query = palloc0(sizeof(ScCollectedQuery));
	query->query_id = query_id;
	query->part = new_part(collection);
	collection->queries = lappend(collection->queries, query);
	MemoryContextSwitchTo(old);
	return collection->last = query;
}

/* What arrived of it since its last checkpoint is void. */
static void
empty_part(ScCollection *collection, ScCollectedQuery *query)
{
	sc_part_free(query->part);
	query->part = new_part(collection);
	query->has_rows = false;
	query->lsn = InvalidXLogRecPtr;
	query->offset.query_id = 0;
}

/* Its error, or NULL.  Outside of any transaction. */
static ScFailure *
try_append(ScCollection *collection, ScPart *part, const char *data, Size len)
{
	MemoryContext context = CurrentMemoryContext;
	ScFailure  *volatile failure = NULL;

	PG_TRY();
	{
		sc_part_append(part, data, len);
	}
	PG_CATCH();
	{
		failure = sc_failure_from_error(sc_take_query_error(collection->context));
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();
	return failure;
}

static ScCollectedQuery *
largest(const ScCollection *collection)
{
	ScCollectedQuery *result = NULL;
	ListCell   *lc;

	foreach(lc, collection->queries)
	{
		ScCollectedQuery *query = lfirst(lc);

		if (!result || sc_part_bytes(query->part) > sc_part_bytes(result->part))
			result = query;
	}
	return result;
}

/*
 * Keeps a message in its query's part.  If there is no room for it, whoever takes most of it loses his part,
 * not who comes last.
 */
static void
keep(ScCollection *collection, ScCollectedQuery *query, const char *data, Size len)
{
	ScFailure  *failure;

	while (!query->lost && (failure = try_append(collection, query->part, data, len)) != NULL)
	{
		ScCollectedQuery *victim = largest(collection);

		if (sc_part_bytes(query->part) + len >= sc_part_bytes(victim->part))
			victim = query;
		if (failure->hint == NULL)
			failure->hint = "What a checkpoint has of the query did not fit into a temporary file: make room on the disk, or increase \"temp_file_limit\" or \"stream_ckpt.checkpoint_memory\".";
		empty_part(collection, victim);
		victim->lost = true;
		victim->refused = failure;
		collection->urgent = true;
	}
}

/* The query stands at its last checkpoint: what arrived since then is void. */
static void
take_failure(ScCollection *collection, ScCollectedQuery *query, const char *body, Size len)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	empty_part(collection, query);
	query->failure_data = memcpy(palloc(len), body, len);
	query->failure = sc_failure_read(query->failure_data, len);
	collection->urgent = true;
	MemoryContextSwitchTo(old);
}

static void
take_same(ScCollection *collection, const int64 *ids, int n)
{
	MemoryContext old = MemoryContextSwitchTo(collection->context);
	int64	   *all = palloc((collection->nsame + n) * sizeof(int64));

	if (collection->nsame > 0)
		memcpy(all, collection->same, collection->nsame * sizeof(int64));
	memcpy(all + collection->nsame, ids, n * sizeof(int64));
	collection->same = all;
	collection->nsame += n;
	MemoryContextSwitchTo(old);
}

/* For qsort and bsearch. */
static int
compare_ids(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

bool
sc_collect_is_same(const ScCollection *collection, int64 query_id)
{
	const int64 *found = collection->nsame == 0 ? NULL :
		bsearch(&query_id, collection->same, collection->nsame, sizeof(int64), compare_ids);
	const int64 *last = found;

	if (!found)
		return false;
	while (found > collection->same && found[-1] == query_id)
		found--;
	while (last + 1 < collection->same + collection->nsame && last[1] == query_id)
		last++;
	return last - found + 1 == collection->nqueues;
}

static void
take_message(ScCollection *collection, int task, const char *data, Size len)
{
	const ScMessage *message = (const ScMessage *) data;
	ScCollectedQuery *query;

	if (message->attempt != collection->attempt)
		return;
	if (message->kind == SC_MESSAGE_END)
	{
		take_end(collection, task, (const ScMessageEnd *) SC_MESSAGE_BODY(message));
		return;
	}
	if (message->kind == SC_MESSAGE_SAME)
	{
		take_same(collection, (const int64 *) SC_MESSAGE_BODY(message),
				  (len - sizeof(ScMessage)) / sizeof(int64));
		return;
	}
	query = sc_collect_query(collection, message->query_id);
	switch (message->kind)
	{
		case SC_MESSAGE_FORGET:
			query->forget = true;
			break;
		case SC_MESSAGE_PAUSED:
			query->paused = true;
			break;
		case SC_MESSAGE_FAILED:
			take_failure(collection, query, SC_MESSAGE_BODY(message),
						 len - sizeof(ScMessage));
			break;
		case SC_MESSAGE_FIRST_OFFSET:
			query->first = *(const ScOffset *) SC_MESSAGE_BODY(message);
			break;
		case SC_MESSAGE_OFFSET:
			query->offset = *(const ScOffset *) SC_MESSAGE_BODY(message);
			query->lsn = query->offset.lsn;
			sc_idle_note(&query->offset);
			break;
		default:
			query->has_rows |= message->kind == SC_MESSAGE_ROWS && !query->lost;
			keep(collection, query, data, len);
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
	pfree(query);
}

static void
take_end(ScCollection *collection, int task, const ScMessageEnd *end)
{
	MemoryContext old = MemoryContextSwitchTo(collection->context);

	if (collection->nended == 0)
	{
		collection->checkpoint_id = end->checkpoint_id;
		collection->lsn = end->lsn;
		collection->triggered_at = end->triggered_at;
		/* every task forwards the same ones */
		collection->nxids = end->nxids;
		collection->xids = palloc(end->nxids * sizeof(TransactionId) + 1);
		memcpy(collection->xids, end + 1, end->nxids * sizeof(TransactionId));
	}
	else if (collection->checkpoint_id != end->checkpoint_id)
		elog(ERROR, "parts of checkpoints " INT64_FORMAT " and " INT64_FORMAT " met",
			 collection->checkpoint_id, end->checkpoint_id);
	collection->barrier_at = Max(collection->barrier_at, end->barrier_at);
	collection->sync_us = Max(collection->sync_us, end->sync_us);
	collection->rows_in = Max(collection->rows_in, end->rows_in);
	collection->full_bytes += end->state_bytes;
	collection->ended[task] = true;
	collection->nended++;
	if (collection->nended == collection->nqueues && collection->nsame > 0)
		qsort(collection->same, collection->nsame, sizeof(int64), compare_ids);
	MemoryContextSwitchTo(old);
}

void
sc_collect_reset(ScCollection *collection)
{
	List	   *waiting = NIL;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ListCell   *lc;

	foreach(lc, collection->queries)
	{
		ScCollectedQuery *query = lfirst(lc);

		query->refused = NULL;	/* the collection's */
		query->blamed = false;
		if (query->outcome == SC_OUTCOME_WAITING)
			waiting = lappend(waiting, query);
		else
			free_query(query);
	}
	list_free(collection->queries);
	collection->queries = waiting;
	MemoryContextSwitchTo(old);
	MemoryContextReset(collection->context);
	memset(collection->ended, 0, sizeof(collection->ended));
	collection->last = NULL;
	collection->urgent = false;
	collection->nended = 0;
	collection->nxids = 0;
	collection->same = NULL;
	collection->nsame = 0;
	collection->barrier_at = 0;
	collection->sync_us = 0;
	collection->rows_in = 0;
	collection->full_bytes = 0;
}
