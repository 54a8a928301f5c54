/*-------------------------------------------------------------------------
 * children.c
 *	  A coordinator's reader, tasks and writer: starting, watching and ending them.
 *
 * Any worker's death ends the attempt; but a writer, which has one part to write, goes when that is done.
 * Whatever way the coordinator goes, its exit terminates the others.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/frame/loop.h"
#include "worker/frame/workers.h"

static BackgroundWorkerHandle *children[1 + SC_MAX_TASKS];
static int	nchildren;
static BackgroundWorkerHandle *writer;	/* NULL: there is none */

/* Terminates all that run. */
static void
terminate_children(int code, Datum arg)
{
	for (int i = 0; i < nchildren; i++)
		TerminateBackgroundWorker(children[i]);
	if (writer)
		TerminateBackgroundWorker(writer);
}

/* What all workers of an attempt have in common; *arg goes with it. */
static void
describe_child(BackgroundWorker *worker, const char *function, const char *type,
			   ScPipelineShared *pipeline, const ScWorkerArg *arg)
{
	sc_worker_describe(worker, function, SC_PIPELINE_INDEX(pipeline));
	snprintf(worker->bgw_type, BGW_MAXLEN, "stream_ckpt %s", type);
	snprintf(worker->bgw_name, BGW_MAXLEN, "stream_ckpt %s %d of pipeline %d", type, arg->task,
			 pipeline->pipeline_id);
	memcpy(worker->bgw_extra, arg, sizeof(*arg));
}

/* False if no background worker is free. */
static bool
register_child(BackgroundWorker *worker, BackgroundWorkerHandle **handle)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		result = RegisterDynamicBackgroundWorker(worker, handle);

	MemoryContextSwitchTo(old);
	return result;
}

/*
 * Registers one worker of the attempt and keeps its handle for sc_children_alive().  Fails if no
 * background worker is free.
 */
static void
start_child(const char *function, const char *type, ScPipelineShared *pipeline,
			int64 attempt, int task)
{
	BackgroundWorker worker;
	ScWorkerArg arg = {.attempt = attempt,.task = task};

	describe_child(&worker, function, type, pipeline, &arg);
	if (!register_child(&worker, &children[nchildren]))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free for the pipeline's %s", type),
				 errhint("Increase \"max_worker_processes\": a pipeline takes 2 workers and one for each task.")));
	nchildren++;
}

void
sc_children_start(ScPipelineShared *pipeline, int64 attempt, int ntasks)
{
	before_shmem_exit(terminate_children, (Datum) 0);
	for (int i = 0; i < ntasks; i++)
		start_child("stream_ckpt_task_main", "task", pipeline, attempt, i);
	start_child("stream_ckpt_reader_main", "reader", pipeline, attempt, 0);
}

bool
sc_children_alive(void)
{
	for (int i = 0; i < nchildren; i++)
	{
		pid_t		pid;

		if (GetBackgroundWorkerPid(children[i], &pid) == BGWH_STOPPED)
			return false;
	}
	return true;
}

bool
sc_child_writer_start(ScPipelineShared *pipeline, int64 attempt, dsm_handle job)
{
	BackgroundWorker worker;
	ScWorkerArg arg = {.attempt = attempt,.job = job};

	Assert(!writer);
	describe_child(&worker, "stream_ckpt_writer_main", "writer", pipeline, &arg);
	return register_child(&worker, &writer);
}

bool
sc_child_writer_ended(void)
{
	pid_t		pid;

	if (GetBackgroundWorkerPid(writer, &pid) != BGWH_STOPPED)
		return false;
	pfree(writer);
	writer = NULL;
	return true;
}

void
sc_children_stop(void)
{
	terminate_children(0, (Datum) 0);
	for (int i = 0; i < nchildren; i++)
		(void) WaitForBackgroundWorkerShutdown(children[i]);
	if (writer)
		(void) WaitForBackgroundWorkerShutdown(writer);
	nchildren = 0;
	writer = NULL;
}
