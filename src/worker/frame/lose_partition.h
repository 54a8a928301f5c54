/*-------------------------------------------------------------------------
 * lose_partition.h
 *	  A stream whose changes are applied loses the rows of a partition, by DETACH, DROP or TRUNCATE.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_LOSE_PARTITION_H
#define SC_WORKER_FRAME_LOSE_PARTITION_H

#include "model/partition.h"

/*
 * An ScLosePartition.  That is no change to a query if all windows of such rows are over, and none if ignore_deletes() was
 * called; else an error.  The queries are told in the log, where each looks for itself (sc_engine_needs_rows).
 */
extern void sc_lose_partition(Oid stream, Oid relid, ScWindowRange times, const char *what);

#endif							/* SC_WORKER_FRAME_LOSE_PARTITION_H */
