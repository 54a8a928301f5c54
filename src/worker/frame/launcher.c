/*-------------------------------------------------------------------------
 * launcher.c
 *	  One per server: keeps one coordinator alive for every pipeline.
 *
 * It learns of pipelines from replication slots (their names say database and
 * pipeline), from sessions' requests in shared memory, and, once, from a look into each database (probe.h); whether a pipeline
 * should run is for its coordinator to decide, who can read the catalogs.  It is
 * the only one that starts coordinators, and applies the restart strategy: at
 * once after a healthy attempt that was only terminated, else after 1 s doubling
 * to 1 min.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/process.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "source/wal/slot.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/frame/hold.h"
#include "worker/frame/loop.h"
#include "worker/frame/probe.h"
#include "worker/frame/workers.h"

#define NET_MS			60000
#define REGISTER_RETRY_S 5

/* What we know of the coordinators that we started, by entry. */
static BackgroundWorkerHandle **handles;

void
sc_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	/* a connection, though to no database: without one the postmaster's word that
	 * a worker has ended would not arrive */
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "stream_ckpt", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "stream_ckpt_launcher_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "stream_ckpt launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "stream_ckpt launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static void
launcher_leave(int code, Datum arg)
{
	LWLockAcquire(sc_shared->lock, LW_EXCLUSIVE);
	sc_shared->launcher.pid = 0;
	sc_shared->launcher.latch = NULL;
	LWLockRelease(sc_shared->lock);
}

/* Makes an entry for each slot of ours. */
static void
find_slots(void)
{
	ScSlotOwner *found;
	int			n = sc_slot_owners(&found);

	for (int i = 0; i < n; i++)
	{
		if (!sc_shared_find_or_create(found[i].database, found[i].pipeline_id))
			ereport(LOG,
					(errmsg("no place for pipeline %d of database %u",
							found[i].pipeline_id, found[i].database),
					 errhint("Increase \"stream_ckpt.max_pipelines\".")));
	}
	pfree(found);
}

/*
 * Notes the end of a coordinator that could not even say why it ended: it was killed, or the
 * database doesn't accept connections.
 */
static void
note_silent_end(ScPipelineShared *pipeline)
{
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&pipeline->mutex);
	pipeline->restart_at = sc_retry_at(pipeline->failures++);
	pipeline->status = SC_STATUS_RESTARTING;
	pipeline->status_since = now;
	if (pipeline->message[0] == '\0')
		strlcpy(pipeline->message, "the coordinator ended; see the server's log",
				sizeof(pipeline->message));
	SpinLockRelease(&pipeline->mutex);
}

/* True where the entry's coordinator is there or on its way. */
static bool
coordinator_alive(ScPipelineShared *pipeline)
{
	int			index = SC_PIPELINE_INDEX(pipeline);
	pid_t		pid;

	if (pipeline->coordinator.pid != 0)
		return true;
	if (!handles[index])
		return false;
	if (GetBackgroundWorkerPid(handles[index], &pid) != BGWH_STOPPED)
		return true;
	pfree(handles[index]);
	handles[index] = NULL;
	if (pipeline->status == SC_STATUS_STARTING || pipeline->status == SC_STATUS_RUNNING)
		note_silent_end(pipeline);
	return false;
}

static bool
should_start(ScPipelineShared *pipeline)
{
	if (sc_hold_any(pipeline->database))
		return false;
	if (pipeline->requested)
		return true;
	return pipeline->status == SC_STATUS_STARTING ||
		pipeline->status == SC_STATUS_RUNNING ||
		pipeline->status == SC_STATUS_RESTARTING;
}

/*
 * "starting" is ours to say: a coordinator that ends before it can say anything is known by it
 * (note_silent_end).  A request is served by the start, so that the next one waits its turn.
 */
static void
note_start(ScPipelineShared *pipeline)
{
	SpinLockAcquire(&pipeline->mutex);
	pipeline->requested = false;
	if (pipeline->status != SC_STATUS_STARTING)
	{
		pipeline->status = SC_STATUS_STARTING;
		pipeline->status_since = GetCurrentTimestamp();
		pipeline->message[0] = pipeline->hint[0] = '\0';
	}
	SpinLockRelease(&pipeline->mutex);
}

/*
 * Counts the start, and registers the coordinator.  If no background worker is free the status says
 * so, and it is tried again later.
 */
static void
start_coordinator(ScPipelineShared *pipeline)
{
	int			index = SC_PIPELINE_INDEX(pipeline);
	BackgroundWorker worker;

	note_start(pipeline);
	sc_worker_describe(&worker, "stream_ckpt_coordinator_main", index);
	strlcpy(worker.bgw_type, "stream_ckpt coordinator", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "stream_ckpt coordinator of pipeline %d",
			 pipeline->pipeline_id);
	if (!RegisterDynamicBackgroundWorker(&worker, &handles[index]))
	{
		sc_status_set(pipeline, SC_STATUS_RESTARTING,
					  "no background worker is free for the pipeline's coordinator",
					  "Increase \"max_worker_processes\": a pipeline takes 2 workers and one for each task.");
		SpinLockAcquire(&pipeline->mutex);
		pipeline->restart_at = sc_moment_now() + REGISTER_RETRY_S * USECS_PER_SEC;
		SpinLockRelease(&pipeline->mutex);
	}
}

/* Looks at one entry; returns milliseconds until it wants to be looked at again. */
static long
look_after(ScPipelineShared *pipeline)
{
	ScMoment	now = sc_moment_now();
	ScMoment	restart_at;

	if (!pipeline->in_use || coordinator_alive(pipeline) || !should_start(pipeline))
		return NET_MS;
	SpinLockAcquire(&pipeline->mutex);
	if (pipeline->requested)
		pipeline->restart_at = 0;	/* somebody changed something: try now */
	restart_at = pipeline->restart_at;
	SpinLockRelease(&pipeline->mutex);
	if (now >= restart_at)
	{
		start_coordinator(pipeline);
		restart_at = pipeline->restart_at;
		if (now >= restart_at)
			return NET_MS;
	}
	return Min(NET_MS, (restart_at - now) / 1000 + 1);
}

/* Are pipelines being started?  Not those whose coordinators wait for others. */
static bool
any_starts(void)
{
	for (int i = 0; i < sc_shared->max_pipelines; i++)
	{
		const ScPipelineShared *pipeline = &sc_shared->pipelines[i];

		if (pipeline->in_use && pipeline->history.phase != SC_HISTORY_SLOT &&
			(pipeline->requested || pipeline->status == SC_STATUS_STARTING))
			return true;
	}
	return false;
}

/*
 * The launcher's life: until SIGTERM.  Connected to no database; an error ends it, and the postmaster
 * starts it again.
 */
void
stream_ckpt_launcher_main(Datum arg)
{
	sc_my_process = SC_PROCESS_LAUNCHER;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	LWLockAcquire(sc_shared->lock, LW_EXCLUSIVE);
	sc_shared->launcher.pid = MyProcPid;
	sc_shared->launcher.latch = MyLatch;
	LWLockRelease(sc_shared->lock);
	before_shmem_exit(launcher_leave, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	handles = MemoryContextAllocZero(TopMemoryContext, sc_shared->max_pipelines * sizeof(BackgroundWorkerHandle *));

	for (;;)
	{
		long		timeout = NET_MS;
		long		probe;

		sc_process_works();
		find_slots();
		for (int i = 0; i < sc_shared->max_pipelines; i++)
			timeout = Min(timeout, look_after(&sc_shared->pipelines[i]));
		probe = sc_probe_look(any_starts());
		sc_worker_wait(probe < 0 ? timeout : Min(timeout, probe));
	}
}
