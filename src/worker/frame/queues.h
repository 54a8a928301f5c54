/*-------------------------------------------------------------------------
 * queues.h
 *	  What the processes of one attempt share: a dynamic shared memory segment,
 *	  made by the coordinator, that says where reading begins and which queries run, and
 *	  holds for each task a queue from the reader and one to the coordinator.
 *
 * The rule: the coordinator alone decides with which queries an attempt begins.  Were the
 * catalogs read by each process, a query that is resumed in between would be run by
 * a task over rows that begin after its offset.
 *
 * Layout: ScQueuesHeader, the offsets (ScOffset) of the queries that run, their placements, then for each task
 * its input queue and its output queue, each at a multiple of MAXIMUM_ALIGNOF.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_QUEUES_H
#define SC_WORKER_FRAME_QUEUES_H

#include "ckpt/offset.h"
#include "storage/shm_mq.h"
#include "worker/frame/placement.h"
#include "worker/frame/shared.h"

/*
 * Creates the segment and its queues; its handle is put into the entry.  "offsets": those of
 * the queries that run (ScOffset *), which are read from "start" on, and on which tasks each of them runs.
 */
extern dsm_segment *sc_queues_create(ScPipelineShared *pipeline, int ntasks, XLogRecPtr start,
									 List *offsets, const ScPlacement *placements);

/* Attaches to the segment of the entry's attempt; an error where it is gone. */
extern dsm_segment *sc_queues_attach(ScPipelineShared *pipeline);

/* Where reading begins. */
extern XLogRecPtr sc_queues_start(dsm_segment *segment);

/* The offsets of the queries that run; they stay valid in this process. */
extern const ScOffset *sc_queues_offsets(dsm_segment *segment, int *n);
/* The same of their placements, in the same order. */
extern const ScPlacement *sc_queues_placements(dsm_segment *segment);

/* The calling process becomes an end of the queue. */
extern shm_mq_handle *sc_queue_input(dsm_segment *segment, int task, bool sender);
extern shm_mq_handle *sc_queue_output(dsm_segment *segment, int task, bool sender);

#endif							/* SC_WORKER_FRAME_QUEUES_H */
