/*-------------------------------------------------------------------------
 * coordinator_internal.h
 *	  What coordinator.c and commit.c share.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_COORDINATOR_INTERNAL_H
#define SC_WORKER_COORDINATOR_COORDINATOR_INTERNAL_H

#include "worker/coordinator/collect.h"

/*
 * sc_worker_wait during a checkpoint: ends the process where a worker died or the pipeline
 * is to stop.
 */
extern void sc_coordinator_wait(long timeout_ms);

/* What the catalogs say of the pipeline's queries: which are resumed, and which come and go.  Needs a transaction. */
extern void sc_coordinator_review(void);

/*
 * Commits what is collected, however often that takes, and tells everybody: sessions that
 * asked for a checkpoint up to the one with number "requests", the reader, sync().  "kind" is
 * the checkpoint's, as the view checkpoints shows it.  Nothing is pending then.
 */
extern void sc_commit_checkpoint(ScPendingCheckpoint *pending, const char *kind, uint64 requests);

#endif							/* SC_WORKER_COORDINATOR_COORDINATOR_INTERNAL_H */
