/*-------------------------------------------------------------------------
 * first_slot.c
 *	  The slot of a pipeline whose queries are all new (first_slot.h).
 *
 * A query that begins with its stream's history is entered in the catalogs, and that is all: its transaction may have
 * written, and then can't make a slot.  So the coordinator does.  That waits, perhaps for hours, for transactions that
 * are open then, prepared ones and other databases' included; and who comes meanwhile must not wait for us: drop_query(),
 * stop_pipeline() and DROP EXTENSION change the catalogs and go on.  So once in a while it is looked whether
 * somebody has told of a change, and the wait is cancelled then.
 *
 * The rule: no transaction id and no snapshot is held across the wait, and the slot is ephemeral until it is made: a
 * crash or a cancel at any place leaves none.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/debug.h"
#include "miscadmin.h"
#include "source/wal/slot.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "worker/coordinator/first_slot.h"
#include "worker/frame/backfill.h"
#include "worker/frame/loop.h"

#define LOOK_MS		200

static volatile sig_atomic_t changed;

/* The timer's handler. */
static void
look(void)
{
	if (!sc_my_pipeline->catalog_changed)
		return;
	changed = true;
	InterruptPending = QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
set_phase(ScHistoryPhase phase)
{
	sc_my_pipeline->history.phase = phase;
	ConditionVariableBroadcast(&sc_my_pipeline->cv);
}

/*
 * Drops a slot that is useless.  A transaction that counted on it, or on one that is gone, can have written into the log where
 * a query begins that the next slot won't see: then nobody makes one, the pipeline is lost.  So it is waited for, without
 * a lock in whose queue others would have to wait.  False if the catalogs have changed.
 */
static bool
drop_former_slot(void)
{
	for (;;)
	{
		bool		dropped;

		sc_begin_transaction();
		dropped = sc_slot_drop_if_unused(sc_my_pipeline->pipeline_id);
		sc_commit_transaction();
		/* who commits says so before he lets go of the slot */
		if (sc_my_pipeline->catalog_changed)
			return false;
		if (dropped)
			return true;
		sc_worker_wait(LOOK_MS);
	}
}

/* The transaction in which it is made: an error is the pipeline's. */
static void
make_slot(void)
{
	StartTransactionCommand();
	SC_DEBUG_POINT("first_slot_before");
	sc_slot_ensure(sc_my_pipeline->pipeline_id);
	CommitTransactionCommand();
	SC_DEBUG_POINT("first_slot_made");
}

bool
sc_slot_for_new_queries(void)
{
	static TimeoutId timer = MAX_TIMEOUTS;

	if (timer == MAX_TIMEOUTS)
		timer = RegisterTimeout(USER_TIMEOUT, look);
	sc_status_set(sc_my_pipeline, SC_STATUS_STARTING,
				  "the pipeline's replication slot is being made, which waits for every transaction that has written",
				  SC_HINT_FIRST_SLOT);
	set_phase(SC_HISTORY_SLOT);
	if (!drop_former_slot())
		return false;
	changed = false;
	enable_timeout_every(timer, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_MS), LOOK_MS);
	PG_TRY();
	{
		make_slot();
	}
	PG_CATCH();
	{
		disable_timeout(timer, false);
		if (!changed)
			PG_RE_THROW();
		FlushErrorState();
		return false;
	}
	PG_END_TRY();
	disable_timeout(timer, false);
	QueryCancelPending = false;
	set_phase(SC_HISTORY_NONE);
	sc_status_set(sc_my_pipeline, SC_STATUS_STARTING, NULL, NULL);
	return !sc_my_pipeline->catalog_changed;
}
