/*-------------------------------------------------------------------------
 * workers.h
 *	  Entry points of the background workers, and how a coordinator starts and ends its
 *	  reader, tasks and writer.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_WORKERS_H
#define SC_WORKER_FRAME_WORKERS_H

#include "model/catalog.h"
#include "postmaster/bgworker.h"
#include "worker/frame/shared.h"

extern PGDLLEXPORT void stream_ckpt_launcher_main(Datum arg);
extern PGDLLEXPORT void stream_ckpt_probe_main(Datum arg);
extern PGDLLEXPORT void stream_ckpt_coordinator_main(Datum arg);
extern PGDLLEXPORT void stream_ckpt_reader_main(Datum arg);
extern PGDLLEXPORT void stream_ckpt_task_main(Datum arg);
extern PGDLLEXPORT void stream_ckpt_writer_main(Datum arg);

/* At preloading: registers the launcher. */
extern void sc_launcher_register(void);

/*
 * Compiles all that a task and a coordinator would for the query, in the owner's surroundings,
 * and gives it up again: what would fail in them fails here.  Needs a transaction.
 */
extern void sc_task_query_try(const ScQuery *catalog);

/* Index of the entry in shared memory: what workers get as their argument. */
#define SC_PIPELINE_INDEX(pipeline) ((int) ((pipeline) - sc_shared->pipelines))

/*
 * Starts the reader and the tasks of the attempt.  An error, with a hint, where
 * max_worker_processes doesn't allow it.  From then on the calling process's exit ends them.
 */
extern void sc_children_start(ScPipelineShared *pipeline, int64 attempt, int ntasks);

/* False where one of them has ended. */
extern bool sc_children_alive(void);

/*
 * Starts a writer, of which there may be one at a time, and hands it the job, a memory segment.  False if no background
 * worker is free.  sc_children_stop, and the calling process's exit, end it, too; sc_children_alive doesn't know it.
 */
extern bool sc_child_writer_start(ScPipelineShared *pipeline, int64 attempt, dsm_handle job);
/* Has it ended?  Then it is forgotten. */
extern bool sc_child_writer_ended(void);

/* Terminates them and waits until they are gone. */
extern void sc_children_stop(void);

#endif							/* SC_WORKER_FRAME_WORKERS_H */
