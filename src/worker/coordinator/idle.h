/*-------------------------------------------------------------------------
 * idle.h
 *	  Idle streams: what a coordinator does where no row comes for a stream's
 *	  idle_timeout.
 *
 * Lives in the coordinator's process.  What it knows of a query's event time comes
 * with the query's part of each checkpoint.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_IDLE_H
#define SC_WORKER_COORDINATOR_IDLE_H

#include "ckpt/offset.h"

/*
 * Reads what the catalogs say: offsets of queries that nothing is known of yet.  Needs a transaction and a snapshot.
 */
extern void sc_idle_load(int32 pipeline_id);

/* A query's offset arrived from a task. */
extern void sc_idle_note(const ScOffset *offset);

/*
 * Logs a message for each stream for which one is due, and wakes the reader;
 * "quiet": no row is known to be on its way.  Returns the milliseconds until
 * another call may have something to do, -1: none foreseen.
 */
extern long sc_idle_advance(bool quiet);

#endif							/* SC_WORKER_COORDINATOR_IDLE_H */
