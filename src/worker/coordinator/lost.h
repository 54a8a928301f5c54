/*-------------------------------------------------------------------------
 * lost.h
 *	  Queries that hold more WAL than stream_ckpt.max_query_wal allows: each is lost alone, and
 *	  the slot goes on.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_LOST_H
#define SC_WORKER_COORDINATOR_LOST_H

#include "ckpt/history.h"

/*
 * Decides it in a checkpoint's transaction, once the checkpoint knows where each query is
 * (ScProgress: placed, left).  Can be called again after an abort.
 */
extern void sc_lost_decide(const ScCheckpointRecord *record);

/* The transaction is committed: nothing is held for them any more.  Outside transactions. */
extern void sc_lost_committed(void);

#endif							/* SC_WORKER_COORDINATOR_LOST_H */
