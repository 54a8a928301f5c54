/*-------------------------------------------------------------------------
 * decode.h
 *	  The decoding loop of a reader, one WAL record at a time.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SOURCE_WAL_DECODE_H
#define SC_SOURCE_WAL_DECODE_H

#include "base/compat.h"
#include "source/wal/slot.h"
#include "wire/batch.h"

typedef struct ScDecoder ScDecoder;

/*
 * Starts decoding from the acquired slot at "start" (>= its confirmed position:
 * the caller has compared), filling "batch".  Call it outside transactions; the
 * decoder lives until the process ends.
 */
extern ScDecoder *sc_decoder_start(int32 pipeline_id, XLogRecPtr start, ScBatch *batch);

/*
 * Says of a record that inserts, changes or deletes rows whether it is known to concern no stream: it is
 * left out then, before it is decoded.
 */
typedef bool (*ScIsNoStreams) (TransactionId xid, const RelFileLocator *file, XLogRecPtr lsn);
extern void sc_decoder_leave_out(ScDecoder *decoder, ScIsNoStreams is_no_streams);

/*
 * Bits of the tasks on which a query runs that a control message creates.  Without it no task is known to have
 * queries but those of sc_capture_add_tasks().
 */
typedef uint32 (*ScTasksOfQuery) (const ScControl *control);
extern void sc_decoder_place(ScDecoder *decoder, ScTasksOfQuery tasks_of_query);

/*
 * Decodes one record: whole transactions are delivered when their commit record
 * is met.  False where all flushed WAL is read.
 */
extern bool sc_decoder_step(ScDecoder *decoder);

/* End of the last record read: all transactions that end at or before it are
 * in the batch or sent. */
extern XLogRecPtr sc_decoder_position(const ScDecoder *decoder);

/* True when something that a checkpoint should cover (rows, control messages) was
 * delivered since the last call. */
extern bool sc_decoder_take_work(ScDecoder *decoder);

/* Delivered transactions that others can't see yet.  Returns their number. */
extern int	sc_decoder_unfinished(ScDecoder *decoder, TransactionId **xids);

#endif							/* SC_SOURCE_WAL_DECODE_H */
