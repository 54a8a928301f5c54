/*-------------------------------------------------------------------------
 * pipeline_internal.h
 *	  What pipeline.c and sync.c share: waiting for a pipeline's workers.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_PIPELINE_INTERNAL_H
#define SC_WORKER_FRAME_PIPELINE_INTERNAL_H

#include "worker/frame/shared.h"

/*
 * The pipeline's entry, made if there is none; never NULL.  Fails if the server can't run pipelines,
 * or has no place for this one.  It needn't run yet.
 */
extern ScPipelineShared *sc_pipeline_running(int32 pipeline_id, const char *name);

/* Raises the error of a pipeline that doesn't run and won't by itself. */
extern void sc_pipeline_check_can_run(ScPipelineShared *pipeline, const char *name);

/* Sleeps until something changes; false at the deadline. */
extern bool sc_pipeline_wait_for_change(ScPipelineShared *pipeline, ScMoment deadline);

/*
 * Always raises an error, with what the status says.  Ends the wait on the pipeline's condition
 * variable first.  What an error of a worker said is only for who may see anybody's data.
 */
extern void sc_pipeline_raise_timeout(ScPipelineShared *pipeline, const char *name, const char *what);

#endif							/* SC_WORKER_FRAME_PIPELINE_INTERNAL_H */
