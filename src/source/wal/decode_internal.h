/*-------------------------------------------------------------------------
 * decode_internal.h
 *	  What the decoding loop and the output plugin share.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SOURCE_WAL_DECODE_INTERNAL_H
#define SC_SOURCE_WAL_DECODE_INTERNAL_H

#include "nodes/pg_list.h"
#include "replication/logical.h"
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
	TransactionId *xids;		/* delivered, perhaps not visible yet */
	int			nxids;
	int			max_xids;
};

/* The decoder of this process, NULL outside a reader. */
extern ScDecoder *sc_decoder;

/* True while this process makes a slot. */
extern bool sc_slot_creating;

/* Lets this process load our output plugin where output_plugin_libraries exists. */
extern void sc_allow_plugin(void);

#endif							/* SC_SOURCE_WAL_DECODE_INTERNAL_H */
