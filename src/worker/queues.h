/*-------------------------------------------------------------------------
 * queues.h
 *	  The queues of one attempt: a dynamic shared memory segment, made by the
 *	  coordinator, that holds for each task a queue from the reader and one to
 *	  the coordinator.
 *
 * Layout: ScQueuesHeader, then for each task its input queue and its output
 * queue, each at a multiple of MAXIMUM_ALIGNOF.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_QUEUES_H
#define SC_WORKER_QUEUES_H

#include "storage/shm_mq.h"
#include "worker/shared.h"

/* Creates the segment and its queues; its handle is put into the entry. */
extern dsm_segment *sc_queues_create(ScPipelineShared *pipeline, int ntasks);

/* Attaches to the segment of the entry's attempt; an error where it is gone. */
extern dsm_segment *sc_queues_attach(ScPipelineShared *pipeline);

/* The calling process becomes an end of the queue. */
extern shm_mq_handle *sc_queue_input(dsm_segment *segment, int task, bool sender);
extern shm_mq_handle *sc_queue_output(dsm_segment *segment, int task, bool sender);

#endif							/* SC_WORKER_QUEUES_H */
