/*-------------------------------------------------------------------------
 * checkpoint.c
 *	  Writing a collected checkpoint: result rows, state chunks, offsets and the
 *	  checkpoint's own record, in one transaction.
 *
 * Each query's rows, chunks and offset are written in a subtransaction of their
 * own.  Rows go first, as the query's owner; the extension's catalogs follow as
 * ourselves.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/debug.h"
#include "base/env.h"
#include "miscadmin.h"
#include "sink/sink.h"
#include "utils/resowner.h"
#include "worker/collect.h"
#include "worker/loop.h"

static void write_query(ScStore *store, ScCollectedQuery *collected,
						ScCheckpointRecord *record);
static int64 write_rows(ScQuery *query, ScPart *part);
static int64 write_state(ScStore *store, ScPart *part);

void
sc_checkpoint_write(ScCollection *collection, ScCheckpointRecord *record)
{
	ScStore    *store = sc_store_begin(record->pipeline_id, record->attempt,
									   record->checkpoint_id);
	ListCell   *lc;

	record->result_rows = 0;
	record->checkpointed_bytes = 0;
	foreach(lc, collection->queries)
	{
		write_query(store, lfirst(lc), record);
		CHECK_FOR_INTERRUPTS();
	}
	SC_DEBUG_POINT("coordinator_before_record");
	sc_store_end(store, record);
}

static void
write_query(ScStore *store, ScCollectedQuery *collected, ScCheckpointRecord *record)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = CurrentMemoryContext;
	ScQuery    *query;

	sc_worker_context.query_id = collected->query_id;
	query = collected->forget ? NULL : sc_query_by_id(collected->query_id, true);
	if (!query)
		sc_store_forget_query(store, collected->query_id);
	else
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
		if (collected->has_rows)
			record->result_rows += write_rows(query, collected->part);
		SC_DEBUG_POINT("coordinator_after_rows");
		record->checkpointed_bytes += write_state(store, collected->part);
		sc_store_flush(store);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	sc_worker_context.query_id = 0;
}

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

/* Writes the part's result rows as the query's owner; returns their number. */
static int64
write_rows(ScQuery *query, ScPart *part)
{
	ScEnv		env;
	ScSink	   *sink;
	const char *message;
	Size		len;
	int64		nrows;

	sc_env_enter(&env, query->owner, query->settings);
	sink = sc_sink_open(query);
	sc_part_rewind(part);
	while ((message = sc_part_next(part, &len)) != NULL)
	{
		if (((const ScMessage *) message)->kind == SC_MESSAGE_ROWS)
			put_rows(sink, message, len);
		CHECK_FOR_INTERRUPTS();
	}
	nrows = sc_sink_close(sink);
	sc_env_leave(&env);
	return nrows;
}

static Size
write_chunk(ScStore *store, const ScMessage *message)
{
	const ScMessageChunk *head = (const ScMessageChunk *) SC_MESSAGE_BODY(message);
	ScChunk		chunk = {0};

	chunk.partition_key = head->partition_key;
	chunk.seq = head->seq;
	chunk.full = head->full;
	chunk.key_group_min = head->key_group_min;
	chunk.key_group_max = head->key_group_max;
	chunk.data = (const char *) (head + 1);
	chunk.len = head->len;
	sc_store_chunk(store, message->query_id, &chunk);
	return chunk.len;
}

/* Writes the part's chunks and offset; returns the chunks' bytes. */
static int64
write_state(ScStore *store, ScPart *part)
{
	const char *data;
	Size		len;
	int64		bytes = 0;

	sc_part_rewind(part);
	while ((data = sc_part_next(part, &len)) != NULL)
	{
		const ScMessage *message = (const ScMessage *) data;

		switch (message->kind)
		{
			case SC_MESSAGE_CHUNK:
				bytes += write_chunk(store, message);
				break;
			case SC_MESSAGE_DROP:
				sc_store_drop_partition(store, message->query_id,
										((const ScMessageDrop *) SC_MESSAGE_BODY(message))->partition_key);
				break;
			case SC_MESSAGE_OFFSET:
				sc_store_offset(store, (const ScOffset *) SC_MESSAGE_BODY(message));
				break;
			case SC_MESSAGE_ROWS:
				break;
			default:
				elog(ERROR, "unexpected message \"%c\" from a task", message->kind);
		}
	}
	return bytes;
}
