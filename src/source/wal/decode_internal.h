/*-------------------------------------------------------------------------
 * decode_internal.h
 *	  What the decoding loop and the output plugin share.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SOURCE_WAL_DECODE_INTERNAL_H
#define SC_SOURCE_WAL_DECODE_INTERNAL_H

#include "access/htup_details.h"
#include "nodes/pg_list.h"
#include "replication/logical.h"
#include "source/wal/capture.h"
#include "source/wal/decode.h"

struct ScDecoder
{
	LogicalDecodingContext *ctx;
	ScBatch    *batch;
	int32		pipeline_id;
	ScIsNoStreams is_no_streams;	/* or NULL */
	ScTasksOfQuery tasks_of_query;	/* or NULL */
	MemoryContext row_context;	/* reset after each row that needs it */
	MemoryContext control_context;	/* reset at each transaction's end */
	bool		begun;			/* the transaction's 'T' record is written */
	bool		work;			/* see sc_decoder_take_work */
	List	   *controls;		/* ScControl *, of the transaction (control_context) */
	List	   *lost;			/* ScControl *, likewise: partitions whose loss queries are told of */
	TransactionId *xids;		/* delivered, perhaps not visible yet */
	int			nxids;
	int			max_xids;
};

/* The decoder of this process, NULL outside a reader. */
extern ScDecoder *sc_decoder;

/* True while this process makes a slot. */
extern bool sc_slot_creating;

/* ---------- plugin.c, row.c and changes.c: in the output plugin's callbacks ---------- */

/*
 * Before the first record of a transaction.  It begins a message if the transaction changed
 * catalogs: the task must wait before it works on the rows.
 */
extern void sc_write_begin(ScDecoder *decoder, ReorderBufferTXN *txn);

/*
 * A copy, in the current context, that holds all of the relation's columns, and all its values.  Each out-of-line one has
 * 1 GB at most, but a row can have several: if they are too large together they are left out, and the row is "*cut".  "old",
 * of an UPDATE's new row: where values that have stayed on disk are taken from; NULL if one isn't there.
 */
extern HeapTuple sc_flatten_row(HeapTuple tuple, TupleDesc desc, HeapTuple old, bool *cut);

/* An UPDATE or DELETE of a relation, and a TRUNCATE of the layout's one with others, for streams that apply them. */
extern void sc_write_change(ScDecoder *decoder, ReorderBufferTXN *txn, ScLayout *layout, Relation relation,
							ReorderBufferChange *change);
extern void sc_write_truncate(ScDecoder *decoder, ReorderBufferTXN *txn, const ScLayout *layout, int nrelations,
							  Relation *relations);

/* A row has come into one of the streams of its layout: its event time, if there is one. */
static inline void
sc_note_event_time(const ScLayoutStream *stream, HeapTuple tuple, TupleDesc desc)
{
	AttrNumber	attno = stream->event_time_attno;

	if (attno != 0)
	{
		bool		isnull;
		Timestamp	ts = DatumGetTimestamp(fastgetattr(tuple, attno, desc, &isnull));

		if (!isnull)
			sc_capture_event_time(stream->capture, ts);
	}
}

/* Lets this process load our output plugin where output_plugin_libraries exists. */
extern void sc_allow_plugin(void);

#endif							/* SC_SOURCE_WAL_DECODE_INTERNAL_H */
