/*-------------------------------------------------------------------------
 * history.h
 *	  The history of streams: what their tables hold, for queries that are new.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_READER_HISTORY_H
#define SC_WORKER_READER_HISTORY_H

#include "ckpt/offset.h"
#include "wire/batch.h"

/*
 * Sends the history of the streams of those queries of "offsets" that are new.  "start": where decoding begins; what is
 * committed at or before it is in.  Outside of a transaction, before there is a decoder.  A stream that can't be read is
 * the failure of its queries; errors that go through end the attempt.
 */
extern void sc_history_read(ScBatch *batch, XLogRecPtr start, const ScOffset *offsets, int noffsets);

/*
 * To be called while the batch waits for room.  An error if a command waits for one of the tables being read; then what
 * was being sent must be sent all the same, by sc_batch_flush().
 */
extern void sc_history_look(void);

#endif							/* SC_WORKER_READER_HISTORY_H */
