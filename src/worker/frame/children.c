/*-------------------------------------------------------------------------
 * children.c
 *	  A coordinator's reader and tasks: starting, watching and ending them.
 *
 * Any worker's death ends the attempt.  Whatever way the coordinator goes, its
 * exit terminates the others.
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

static void
terminate_children(int code, Datum arg)
{
	for (int i = 0; i < nchildren; i++)
		TerminateBackgroundWorker(children[i]);
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
	ScWorkerArg arg;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	memset(&arg, 0, sizeof(arg));
	arg.attempt = attempt;
	arg.task = task;
	sc_worker_describe(&worker, function, SC_PIPELINE_INDEX(pipeline));
	snprintf(worker.bgw_type, BGW_MAXLEN, "stream_ckpt %s", type);
	snprintf(worker.bgw_name, BGW_MAXLEN, "stream_ckpt %s %d of pipeline %d", type, task,
			 pipeline->pipeline_id);
	memcpy(worker.bgw_extra, &arg, sizeof(arg));
	if (!RegisterDynamicBackgroundWorker(&worker, &children[nchildren]))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free for the pipeline's %s", type),
				 errhint("Increase \"max_worker_processes\": a pipeline takes 2 workers and one for each task.")));
	nchildren++;
	MemoryContextSwitchTo(old);
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

void
sc_children_stop(void)
{
	terminate_children(0, (Datum) 0);
	for (int i = 0; i < nchildren; i++)
		(void) WaitForBackgroundWorkerShutdown(children[i]);
	nchildren = 0;
}
