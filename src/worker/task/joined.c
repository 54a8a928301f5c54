/*-------------------------------------------------------------------------
 * joined.c
 *	  Rows of a query that joins them with tables: those of a message, from the first on that has to be processed, are joined at
 *	  once (a batch), and then taken one by one, as all rows are.
 *
 * Tables are read as they are when that is done, and never older than a row's own transaction: task.c waits until others see
 * what is in a message before it works on it.
 *
 * A batch never outlives its message, but can outlive transactions: if the query makes room in between, or steps over a row at
 * fault, it goes on with the same one.
 */
#include "postgres.h"

#include "base/debug.h"
#include "base/subtransaction.h"
#include "utils/memutils.h"
#include "worker/task/task_internal.h"

/* A batch being filled. */
typedef struct Filling
{
	ScTaskQuery *query;
	const char *at;				/* the next record */
	bool		skipping;		/* its transaction is in already */
	uint16		layout;			/* of the last row, and its stream, if "known" */
	bool		known;
	ScTaskStream *stream;
} Filling;

static void
add_row(Filling *filling, const ScWireRecord *record)
{
	ScTaskQuery *query = filling->query;

	if (!filling->known || filling->layout != record->layout)
	{
		filling->layout = record->layout;
		filling->stream = sc_task_layout_stream(sc_task_layout_get(record->layout), query->definition->stream_relid,
												query->stream_desc);
		filling->known = true;
	}
	if (filling->stream != NULL)
		sc_engine_batch_add(query->engine, sc_task_stream_row(filling->stream, SC_WIRE_TUPLE(record)),
							(record->flags & SC_WIRE_CUT) != 0);
}

/* The rest of the message; an error leaves "at" behind the row that it is of. */
static bool
fill_step(void *arg)
{
	Filling    *filling = arg;

	while (filling->at < filling->query->end)
	{
		const ScWireRecord *record = (const ScWireRecord *) filling->at;

		filling->at += record->len;
		if (record->op == SC_WIRE_BEGIN)
			filling->skipping = sc_task_query_skips(filling->query, (const ScWireBegin *) SC_WIRE_BODY(record));
		else if (record->op == SC_WIRE_INSERT && !filling->skipping)
			add_row(filling, record);
	}
	return true;
}

static void
fill_batch(ScTaskQuery *query)
{
	Filling		filling = {.query = query,.at = query->at,.skipping = query->skipping};
	MemoryContext old;
	ErrorData  *error;

	query->batch_engine = NULL;
	sc_engine_batch_begin(query->engine);
	old = MemoryContextSwitchTo(sc_engine_batch_context(query->engine));
	while ((error = sc_subtransaction_try(fill_step, &filling, sc_rethrow_transient)) != NULL)
	{
		if (!sc_engine_batch_fault(query->engine, error))
			ReThrowError(error);
	}
	MemoryContextSwitchTo(old);
	sc_engine_batch_join(query->engine);
	query->batch_engine = query->engine;
	query->batch_end = query->end;
	query->batch_next = 0;
}

bool
sc_task_joined_row(ScTaskQuery *query, const ScWireRecord *record)
{
	if (query->batch_engine != query->engine || query->at >= query->batch_end)
		fill_batch(query);
	query->in_row = true;
	query->row = sc_task_stream_row(query->stream, SC_WIRE_TUPLE(record));
	/* an error steps over it */
	query->batch_begun = !sc_engine_batch_take(query->engine, query->row, query->batch_next++, (record->flags & SC_WIRE_CUT) != 0);
	query->in_row = false;
	if (!query->batch_begun)
		return true;
	query->batch_next--;
	query->end = query->at;
	SC_DEBUG_POINT("task_within_row");
	return false;
}

void
sc_task_joined_end(ScTaskQuery *query)
{
	if (query->batch_engine != NULL && query->batch_engine == query->engine)
		sc_engine_batch_end(query->engine);
	query->batch_engine = NULL;
	query->batch_begun = false;
}
