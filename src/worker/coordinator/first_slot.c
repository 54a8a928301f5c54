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

/* The transaction in which it is made: an error is the pipeline's. */
static void
make_slot(void)
{
	int32		id = sc_my_pipeline->pipeline_id;

	StartTransactionCommand();
	if (sc_slot_is_missing(id))
		sc_slot_drop(MyDatabaseId, id);
	SC_DEBUG_POINT("first_slot_before");
	sc_slot_ensure(id);
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
	return true;
}
