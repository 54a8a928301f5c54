/*-------------------------------------------------------------------------
 * sink_internal.h
 *	  What the files of sink/ share; see sink.h for the contract.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SINK_SINK_INTERNAL_H
#define SC_SINK_SINK_INTERNAL_H

#include "access/genam.h"
#include "access/heapam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "sink/sink.h"
#include "utils/rel.h"

/* Rows and bytes that a multi-insert takes at most, as COPY's. */
#define SINK_BATCH_ROWS		1000
#define SINK_BATCH_BYTES	(64 * 1024)

/* How the rows of the result table are identified: its unique index. */
typedef struct SinkKey
{
	Oid			index;			/* InvalidOid: not looked up yet */
	int			ncolumns;
	AttrNumber	attnos[INDEX_MAX_KEYS]; /* of the table */
	int			columns[INDEX_MAX_KEYS];	/* of a row, 0-based */
	Oid			eq_operators[INDEX_MAX_KEYS];
	Oid			collations[INDEX_MAX_KEYS];
} SinkKey;

/* Writing without SPI: sink_insert.c, sink_upsert.c. */
typedef struct SinkDirect
{
	EState	   *estate;
	ResultRelInfo *result_rel;	/* indexes open */

	BulkInsertState bulk;		/* NULL until the first flush */
	TupleTableSlot *batch[SINK_BATCH_ROWS]; /* NULL: not made yet */
	int			batch_rows;
	Size		batch_bytes;

	/* NULL until the first upsert or delete */
	IndexScanDesc key_scan;
	SnapshotData dirty;			/* of key_scan */
	TupleTableSlot *found;		/* the row that a lookup found */
	TupleTableSlot *slot;		/* the row to write */
} SinkDirect;

struct ScSink
{
	MemoryContext context;		/* of its own, child of the caller's */
	const ScQuery *query;		/* the caller's */
	Relation	rel;
	int			guc_nestlevel;	/* holds lock_timeout */
	int64		rows;			/* put so far */

	/* The rows' columns: those of the definition. */
	TupleDesc	row_desc;
	AttrNumber *attnos;			/* of the table, for each of them */
	TupleTableSlot *row;		/* the row being put, deformed */
	SinkKey		key;

	SinkDirect *direct;			/* NULL: by SPI */
	struct SinkPlans *plans;	/* the other way; sink_plan.c */
};

/* sink.c */
extern const SinkKey *sc_sink_key(ScSink *sink, bool missing_ok);

/* sink_insert.c */
extern void sc_sink_direct_begin(ScSink *sink);
extern bool sc_sink_has_index_code(const ScSink *sink);
extern void sc_sink_fill_slot(ScSink *sink, TupleTableSlot *slot);
extern void sc_sink_direct_insert(ScSink *sink, Size len);
extern void sc_sink_direct_flush(ScSink *sink);
extern void sc_sink_direct_end(ScSink *sink);

/* sink_upsert.c */
extern void sc_sink_direct_upsert(ScSink *sink);
extern void sc_sink_direct_delete(ScSink *sink);
extern void sc_sink_lookup_end(ScSink *sink);

/* sink_plan.c */
extern void sc_sink_plans_begin(ScSink *sink);
extern void sc_sink_plans_put(ScSink *sink, char op);
extern void sc_sink_plans_end(ScSink *sink);

#endif							/* SC_SINK_SINK_INTERNAL_H */
