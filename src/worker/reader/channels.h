/*-------------------------------------------------------------------------
 * channels.h
 *	  The reader's ends of the queues to the tasks of its pipeline [Flink: result partition].
 *
 * The rule: every task gets every record, in the same order, but for rows of streams on which it has no query.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_READER_CHANNELS_H
#define SC_WORKER_READER_CHANNELS_H

#include "storage/dsm.h"

/* Once per process.  "wait" is called while a queue has no room: it returns after a while, or when there may be some. */
extern void sc_channels_open(dsm_segment *segment, int ntasks, void (*wait) (void));

/*
 * Sends a message of a batch (wire/batch.h), as its "send": to every task what it needs.  Waits for room; ends the
 * process if a task has ended.  After an error of "wait" the same message must be sent again, before any other: then it
 * goes on where it was.
 */
extern void sc_channels_send(void *arg, const char *data, Size len);

/* Rows that were in messages since the last call. */
extern int64 sc_channels_take_rows(void);

#endif							/* SC_WORKER_READER_CHANNELS_H */
