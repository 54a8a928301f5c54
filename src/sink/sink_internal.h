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

/* Rows and bytes that are written together at most: COPY's rows, and more bytes. */
#define SINK_BATCH_ROWS		1000
#define SINK_BATCH_BYTES	(256 * 1024)

/*
 * How the rows of the result table are identified: its unique index.  If there is only one row that is an index on
 * the constant true, and the key has one column, of neither the table nor the rows.
 */
typedef struct SinkKey
{
	bool		one_row;
	Oid			index;			/* InvalidOid: not looked up yet */
	int			ncolumns;
	AttrNumber	attnos[INDEX_MAX_KEYS]; /* of the table */
	int			columns[INDEX_MAX_KEYS];	/* of a row, 0-based */
	Oid			eq_operators[INDEX_MAX_KEYS];
	Oid			collations[INDEX_MAX_KEYS];
} SinkKey;

/* A row to upsert, and what is in the table. */
typedef enum SinkFound
{
	SINK_NONE,					/* no row with its key */
	SINK_OTHER,					/* that at "tid" */
	SINK_SAME,					/* the same row, byte by byte: nothing to write */
	SINK_REPLACED				/* a later row of the batch has its key */
} SinkFound;

typedef struct SinkUpsert
{
	TupleTableSlot *slot;		/* of the batch, which owns it */
	Datum	   *keys;			/* in the index's order; by reference they are the slot's */
	bool	   *nulls;
	bool		has_null;
	int			number;			/* in the order in which the rows came */
	SinkFound	found;
	ItemPointerData tid;
} SinkUpsert;

/* Finding rows by the key's index: sink_lookup.c. */
typedef struct SinkLookup SinkLookup;

/* All rows of a window, in place of those that there are: sink_set.c. */
typedef struct SinkSet SinkSet;

/* Rows that wait to be inserted in the order of an index: sink_sort.c. */
typedef struct SinkSort SinkSort;

/* Writing without SPI: sink_insert.c, sink_upsert.c. */
typedef struct SinkDirect
{
	EState	   *estate;
	ResultRelInfo *result_rel;	/* indexes open */

	/* Rows to be written together, all by one operation: SC_RESULT_INSERT or SC_RESULT_UPSERT */
	TupleTableSlot *batch[SINK_BATCH_ROWS]; /* NULL: not made yet */
	TupleDesc	desc;			/* of theirs */
	int			batch_rows;
	Size		batch_bytes;
	char		batch_op;
	BulkInsertState bulk;		/* NULL until the first inserts */

	/* NULL until the first upsert or delete */
	SinkLookup *lookup;
	SinkUpsert *upserts;		/* SINK_BATCH_ROWS of them */
	int			most_upserts;	/* that may be written together */
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

	MinimalTuple deletion;		/* a row's that waits for the next one (sink.c); else NULL */
	TupleTableSlot *deletion_slot;	/* empty, for it */

	SinkDirect *direct;			/* NULL: by SPI */
	SinkSort   *sort;			/* NULL: rows are inserted as they come */
	SinkSet    *set;			/* NULL: none came yet */
	struct SinkPlans *plans;	/* the other way; sink_plan.c */
};

/* sink.c */
/* Inserts a row, which becomes the current one. */
extern void sc_sink_insert(ScSink *sink, MinimalTuple row);
extern const SinkKey *sc_sink_key(ScSink *sink, bool missing_ok);

/* sink_insert.c */
extern void sc_sink_direct_begin(ScSink *sink);
extern bool sc_sink_has_index_code(const ScSink *sink);
extern void sc_sink_direct_add(ScSink *sink, char op, Size len);
extern void sc_sink_direct_flush(ScSink *sink);
extern void sc_sink_multi_insert(ScSink *sink, TupleTableSlot **slots, int n, BulkInsertState bulk);
extern void sc_sink_direct_end(ScSink *sink);

/* sink_sort.c */
/* After the way was chosen: are rows to be inserted in another order than they come? */
extern void sc_sink_sort_begin(ScSink *sink);
/* Takes a copy of "row", which is the current one. */
extern void sc_sink_sort_add(ScSink *sink, MinimalTuple row);
/* Writes those that wait; the current row is gone then. */
extern void sc_sink_sort_flush(ScSink *sink);

/* sink_upsert.c */
extern void sc_sink_upserts_begin(ScSink *sink);
extern void sc_sink_upserts_write(ScSink *sink);
extern void sc_sink_direct_delete(ScSink *sink);

/* sink_lookup.c */
extern SinkLookup *sc_sink_lookup_begin(ScSink *sink);
extern int	sc_sink_compare_keys(const SinkUpsert *a, const SinkUpsert *b, SinkLookup *lookup);
extern void sc_sink_lookup_batch(SinkLookup *lookup, SinkUpsert *upserts, int n);
extern bool sc_sink_lookup_row(SinkLookup *lookup, const Datum *keys, const bool *nulls, ItemPointer tid);
extern void sc_sink_lookup_end(SinkLookup *lookup);

/* sink_set.c: the current row's window, whose rows follow; one of them; all have come; and the sink is about to be closed */
extern void sc_sink_set_begin(ScSink *sink);
extern bool sc_sink_set_is_open(const ScSink *sink);
extern void sc_sink_set_add(ScSink *sink);
extern void sc_sink_set_end(ScSink *sink);
extern void sc_sink_set_close(ScSink *sink);

/* sink_empty.c: deletes all rows */
extern void sc_sink_empty(ScSink *sink);

/* sink_plan.c */
extern void sc_sink_plans_begin(ScSink *sink);
extern void sc_sink_plans_put(ScSink *sink, char op);
extern void sc_sink_plans_end(ScSink *sink);

#endif							/* SC_SINK_SINK_INTERNAL_H */
