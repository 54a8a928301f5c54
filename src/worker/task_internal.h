/*-------------------------------------------------------------------------
 * task_internal.h
 *	  What the files of a task share: its queries and its layouts.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_TASK_INTERNAL_H
#define SC_WORKER_TASK_INTERNAL_H

#include "ckpt/store.h"
#include "exec/engine.h"
#include "source/wire.h"
#include "worker/outbox.h"

/* A query that the task runs.  Allocated in its own context, freed as a whole. */
typedef struct ScTaskQuery
{
	MemoryContext context;
	ScQuery    *query;
	ScDefinition *definition;
	TupleDesc	stream_desc;	/* the stream's row type; lives as long as the task */
	int64		watermark_delay;	/* microseconds */
	ScEngine   *engine;
	ScRowBuffer rows;			/* result rows on their way to the outbox */
	XLogRecPtr	offset;			/* transactions that end at or before it are in */
	bool		skipping;		/* the transaction being read is one of those */
	int64		updates_ignored;	/* since the query began, as the next two */
	int64		deletes_ignored;
	int64		truncates_ignored;

	/* the layout of the last row, and its stream that this query reads (NULL:
	 * none of them) */
	struct ScTaskLayout *layout;
	struct ScTaskStream *stream;
} ScTaskQuery;

/* task_query.c: all of them need a transaction and a snapshot */

/* The queries that have an offset, with their state. */
extern List *sc_task_queries_restore(ScOutbox *outbox);

/* A query that begins at "start"; NULL where it has been dropped since. */
extern ScTaskQuery *sc_task_query_begin(int64 query_id, XLogRecPtr start,
										ScOutbox *outbox);
extern void sc_task_query_free(ScTaskQuery *query);

/* Runs one message's rows and transaction ends through one query. */
extern void sc_task_query_run(ScTaskQuery *query, const char *data, Size len);

/* Puts the query's part of a checkpoint into the outbox; returns the bytes of its
 * live chunks. */
extern int64 sc_task_query_freeze(ScTaskQuery *query, int64 checkpoint_id,
								  XLogRecPtr lsn, ScOutbox *outbox);

/* task_layout.c */

/* How the rows of one relation lie in messages. */
typedef struct ScTaskLayout ScTaskLayout;
typedef struct ScTaskStream ScTaskStream;

/* Takes a 'L' record. */
extern void sc_task_layout_set(const ScWireRecord *record);
extern ScTaskLayout *sc_task_layout_get(uint16 number);

/* The layout's view of a stream for slots of "stream_desc"; NULL where its rows
 * don't belong to the stream. */
extern ScTaskStream *sc_task_layout_stream(ScTaskLayout *layout, Oid stream,
										   TupleDesc stream_desc);

/* The row in a slot by the stream's attribute numbers, valid until the next call. */
extern TupleTableSlot *sc_task_stream_row(ScTaskStream *stream, MinimalTuple tuple);

#endif							/* SC_WORKER_TASK_INTERNAL_H */
