/*-------------------------------------------------------------------------
 * hold.c
 *	  Commands that need a database to themselves (hold.h).
 *
 * Such a command fails while a worker is connected to the database or a slot of it is in
 * use.  So its session holds the database: it ends the database's workers, and none starts
 * until it is through.
 *
 * Several sessions can hold one database (it is the template of two CREATE DATABASE), and a
 * pipeline's entry in shared memory can be made while it is held.  Hence each session has a
 * place of its own, and who wants to know looks at all of them: nothing is counted, so
 * nothing is left of a session that has ended.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "base/compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "source/wal/slot.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "worker/frame/hold.h"
#include "worker/frame/shared.h"

/* By the number of the session's process: the database that it holds, or InvalidOid. */
static pg_atomic_uint32 *held;

Size
sc_hold_shared_size(void)
{
	return mul_size(MaxBackends, sizeof(pg_atomic_uint32));
}

/* Call with AddinShmemInitLock held. */
void
sc_hold_shared_startup(void)
{
	bool		found;

	held = ShmemInitStruct("stream_ckpt holds", sc_hold_shared_size(), &found);
	if (found)
		return;
	for (int i = 0; i < MaxBackends; i++)
		pg_atomic_init_u32(&held[i], InvalidOid);
}

void
sc_hold_begin(Oid database)
{
	pg_atomic_write_u32(&held[sc_my_proc_number], database);
	pg_memory_barrier();
}

void
sc_hold_end(void)
{
	pg_atomic_write_u32(&held[sc_my_proc_number], InvalidOid);
	sc_shared_wake_launcher();
}

bool
sc_hold_any(Oid database)
{
	for (int i = 0; i < MaxBackends; i++)
	{
		if (pg_atomic_read_u32(&held[i]) == database)
			return true;
	}
	return false;
}

/* Whether a worker of ours still keeps the database busy: has a place in shared memory, or its slot. */
static bool
any_worker(Oid database)
{
	sc_foreach_pipeline(pipeline, database)
	{
		/* a reader that is ending leaves its place before it lets go of its slot */
		if (pipeline->coordinator.pid != 0 || pipeline->reader.pid != 0 || pipeline->writer.pid != 0 ||
			sc_slot_info(database, pipeline->pipeline_id).active_pid != 0)
			return true;
		for (int t = 0; t < SC_MAX_TASKS; t++)
		{
			if (pipeline->tasks[t].place.pid != 0)
				return true;
		}
	}
	return false;
}

void
sc_hold_stop_workers(Oid database)
{
	while (any_worker(database))
	{
		sc_foreach_pipeline(pipeline, database)
		{
			pid_t		pid = pipeline->coordinator.pid;

			if (pid != 0)
				(void) kill(pid, SIGTERM);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
sc_hold_forget_database(Oid database)
{
	LWLockAcquire(sc_shared->lock, LW_EXCLUSIVE);
	sc_foreach_pipeline(pipeline, database)
		pipeline->in_use = false;
	LWLockRelease(sc_shared->lock);
}
