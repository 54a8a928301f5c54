/*-------------------------------------------------------------------------
 * shared.c
 *	  The shared memory of all pipelines (shared.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "replication/logicallauncher.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "worker/frame/hold.h"
#include "worker/frame/shared.h"

#define SC_TRANCHE "stream_ckpt"

ScShared   *sc_shared = NULL;

static shmem_request_hook_type prev_shmem_request_hook;
static shmem_startup_hook_type prev_shmem_startup_hook;

static Size
shared_size(void)
{
	return add_size(offsetof(ScShared, pipelines),
					mul_size(sc_max_pipelines, sizeof(ScPipelineShared)));
}

static void
shared_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestAddinShmemSpace(sc_hold_shared_size());
	RequestNamedLWLockTranche(SC_TRANCHE, 1);
}

static void
entry_init(ScPipelineShared *pipeline)
{
	memset(pipeline, 0, sizeof(ScPipelineShared));
	SpinLockInit(&pipeline->mutex);
	pg_atomic_init_u64(&pipeline->trigger, 0);
	pg_atomic_init_u64(&pipeline->committed, 0);
	pg_atomic_init_u64(&pipeline->decoded_lsn, 0);
	pg_atomic_init_u32(&pipeline->work, 0);
	pg_atomic_init_u64(&pipeline->interval_us, 0);
	pg_atomic_init_u32(&pipeline->reader_sleeps, 0);
	pg_atomic_init_u64(&pipeline->own_rows.changes, 0);
	ConditionVariableInit(&pipeline->cv);
}

/*
 * Attaches to the shared memory, and fills it in if it is new.  In the postmaster, and with
 * EXEC_BACKEND in every process.
 */
static void
shared_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	sc_shared = ShmemInitStruct("stream_ckpt", shared_size(), &found);
	if (!found)
	{
		memset(sc_shared, 0, offsetof(ScShared, pipelines));
		sc_shared->lock = &(GetNamedLWLockTranche(SC_TRANCHE))->lock;
		sc_shared->max_pipelines = sc_max_pipelines;
		pg_atomic_init_u32(&sc_shared->sleeping_readers, 0);
		pg_atomic_init_u64(&sc_shared->prepared, 0);
		pg_atomic_init_u64(&sc_shared->shares, 0);
		for (int i = 0; i < sc_max_pipelines; i++)
			entry_init(&sc_shared->pipelines[i]);
	}
	sc_hold_shared_startup();
	LWLockRelease(AddinShmemInitLock);
}

void
sc_shared_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shared_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shared_startup;
}

ScPipelineShared *
sc_shared_next(Oid database, const ScPipelineShared *last)
{
	int			i = last ? last + 1 - sc_shared->pipelines : 0;

	for (; sc_shared && i < sc_shared->max_pipelines; i++)
	{
		ScPipelineShared *pipeline = &sc_shared->pipelines[i];

		if (pipeline->in_use && pipeline->database == database)
			return pipeline;
	}
	return NULL;
}

/* Call with sc_shared->lock held. */
static ScPipelineShared *
find_locked(Oid database, int32 pipeline_id)
{
	sc_foreach_pipeline(pipeline, database)
	{
		if (pipeline->pipeline_id == pipeline_id)
			return pipeline;
	}
	return NULL;
}

ScPipelineShared *
sc_shared_find(Oid database, int32 pipeline_id)
{
	ScPipelineShared *pipeline;

	if (!sc_shared)
		return NULL;
	LWLockAcquire(sc_shared->lock, LW_SHARED);
	pipeline = find_locked(database, pipeline_id);
	LWLockRelease(sc_shared->lock);
	return pipeline;
}

/* An unused place, or one that is only remembered for its status; or NULL. */
static ScPipelineShared *
find_room_locked(void)
{
	for (int i = 0; i < sc_shared->max_pipelines; i++)
	{
		if (!sc_shared->pipelines[i].in_use)
			return &sc_shared->pipelines[i];
	}
	for (int i = 0; i < sc_shared->max_pipelines; i++)
	{
		ScPipelineShared *pipeline = &sc_shared->pipelines[i];

		if (pipeline->coordinator.pid == 0 && pipeline->reader.pid == 0 &&
			!pipeline->requested &&
			(pipeline->status == SC_STATUS_GONE || pipeline->status == SC_STATUS_IDLE))
			return pipeline;
	}
	return NULL;
}

/* Has it workers, or is it to have some as soon as it can? */
static bool
wants_workers(const ScPipelineShared *pipeline)
{
	return pipeline->coordinator.pid != 0 || pipeline->requested || pipeline->status == SC_STATUS_STARTING ||
		pipeline->status == SC_STATUS_RUNNING || pipeline->status == SC_STATUS_RESTARTING;
}

int
sc_shared_workers(const ScPipelineShared *except, const ScPipelineShared *except_too)
{
	/* our launcher, and the server's own */
	int			n = 1 + (max_logical_replication_workers > 0);

	for (int i = 0; sc_shared && i < sc_shared->max_pipelines; i++)
	{
		const ScPipelineShared *other = &sc_shared->pipelines[i];

		if (other->in_use && other != except && other != except_too && wants_workers(other))
			n += 2 + other->ntasks;
	}
	return n;
}

bool
sc_shared_has_room(void)
{
	bool		result;

	LWLockAcquire(sc_shared->lock, LW_SHARED);
	result = find_room_locked() != NULL;
	LWLockRelease(sc_shared->lock);
	return result;
}

ScPipelineShared *
sc_shared_find_or_create(Oid database, int32 pipeline_id)
{
	ScPipelineShared *pipeline;

	if (!sc_shared)
		return NULL;
	LWLockAcquire(sc_shared->lock, LW_EXCLUSIVE);
	pipeline = find_locked(database, pipeline_id);
	if (!pipeline && (pipeline = find_room_locked()) != NULL)
	{
		entry_init(pipeline);
		pipeline->in_use = true;
		pipeline->database = database;
		pipeline->pipeline_id = pipeline_id;
		pipeline->status = SC_STATUS_STARTING;
		pipeline->status_since = GetCurrentTimestamp();
	}
	LWLockRelease(sc_shared->lock);
	return pipeline;
}

void
sc_shared_wish_probe(Oid database)
{
	bool		found = false;

	if (!sc_shared)
		return;
	LWLockAcquire(sc_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < sc_shared->nprobes && !found; i++)
		found = sc_shared->probes[i] == database;
	if (!found && sc_shared->nprobes < SC_MAX_PROBES)
		sc_shared->probes[sc_shared->nprobes++] = database;
	LWLockRelease(sc_shared->lock);
	sc_shared_wake_launcher();
}

bool
sc_server_problem(const char **message, const char **hint)
{
	bool		launcher;

	if (!sc_shared)
	{
		*message = "stream_ckpt must be preloaded";
		*hint = "Add it to \"shared_preload_libraries\" and restart the server.";
		return true;
	}
	if (RecoveryInProgress())
	{
		*message = "the server is in recovery";
		*hint = "Pipelines run on the primary server; this one's will be looked at when it is promoted.";
		return true;
	}
	LWLockAcquire(sc_shared->lock, LW_SHARED);
	launcher = sc_shared->launcher.pid != 0;
	LWLockRelease(sc_shared->lock);
	if (launcher)
		return false;
	*message = "the launcher of stream_ckpt is not running";
	*hint = "It is started again after a second. If it isn't there at all, increase \"max_worker_processes\" and restart the server.";
	return true;
}

void
sc_shared_wake_launcher(void)
{
	if (!sc_shared)
		return;
	LWLockAcquire(sc_shared->lock, LW_SHARED);
	if (sc_shared->launcher.latch)
		SetLatch(sc_shared->launcher.latch);
	LWLockRelease(sc_shared->lock);
}

/* Costs a writer one atomic read where nobody sleeps. */
void
sc_shared_wake_readers(void)
{
	if (pg_atomic_read_u32(&sc_shared->sleeping_readers) == 0)
		return;
	sc_foreach_pipeline(pipeline, MyDatabaseId)
	{
		if (pg_atomic_read_u32(&pipeline->reader_sleeps) != 0)
			sc_place_wake(pipeline, &pipeline->reader);
	}
}

void
sc_place_wake(ScPipelineShared *pipeline, const ScWorkerPlace *place)
{
	Latch	   *latch;

	SpinLockAcquire(&pipeline->mutex);
	latch = place->latch;
	SpinLockRelease(&pipeline->mutex);
	if (latch)
		SetLatch(latch);
}

void
sc_status_set(ScPipelineShared *pipeline, ScStatus status, const char *message,
			  const char *hint)
{
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&pipeline->mutex);
	if (pipeline->status != status)
		pipeline->status_since = now;
	pipeline->status = status;
	strlcpy(pipeline->message, message ? message : "", sizeof(pipeline->message));
	strlcpy(pipeline->hint, hint ? hint : "", sizeof(pipeline->hint));
	SpinLockRelease(&pipeline->mutex);
	ConditionVariableBroadcast(&pipeline->cv);
}

void
sc_status_note_error(ScPipelineShared *pipeline, const char *message,
					 const char *hint, bool by_signal)
{
	SpinLockAcquire(&pipeline->mutex);
	if (!pipeline->failed_by_error)
	{
		strlcpy(pipeline->message, message, sizeof(pipeline->message));
		strlcpy(pipeline->hint, hint ? hint : "", sizeof(pipeline->hint));
		pipeline->failed_by_error = !by_signal;
	}
	SpinLockRelease(&pipeline->mutex);
}

/* The word that the column "status" of pipeline_status has. */
const char *
sc_status_name(ScStatus status)
{
	switch (status)
	{
		case SC_STATUS_STARTING:
			return "starting";
		case SC_STATUS_RUNNING:
			return "running";
		case SC_STATUS_RESTARTING:
			return "restarting";
		case SC_STATUS_STOPPED:
			return "stopped";
		case SC_STATUS_IDLE:
			return "idle";
		case SC_STATUS_LOST:
			return "lost";
		case SC_STATUS_GONE:
			return "gone";
	}
	return "unknown";
}
