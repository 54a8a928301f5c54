/*-------------------------------------------------------------------------
 * start.c
 *	  May a pipeline start, and from where?
 *
 * The rule: the slot's confirmed position is never beyond the smallest offset of
 * a query.  Where it is (an asynchronous commit lost in a crash, a slot moved or
 * made again, a server promoted or copied), PostgreSQL would skip the rows between without
 * a word; such a pipeline stands at "lost" until somebody decides.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/by_id.h"
#include "base/debug.h"
#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "model/catalog_write.h"
#include "source/wal/slot.h"
#include "worker/frame/start.h"

#define HINT_LOST "Call stream_ckpt.rebuild_pipeline(name) to make the results of queries over tables anew, or stream_ckpt.start_pipeline(name, accept_gap => true) to go on without the rows between."

static bool has_foreign_state(int32 pipeline_id);
static ScStatus check_position(int32 pipeline_id, char **message, char **hint);
static ScStatus check_slot(int32 pipeline_id, bool compare, char **message, char **hint);

List *
sc_active_offsets(int32 pipeline_id)
{
	List	   *failures = sc_failure_list();
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, sc_offset_list(pipeline_id))
	{
		ScOffset   *offset = lfirst(lc);
		ScQuery    *query = sc_query_by_id(offset->query_id, true);
		ScFailureRow *failure = sc_find_by_id(failures, offset->query_id);

		if (query && !query->paused && !sc_failure_stops(failure))
			result = lappend(result, offset);
	}
	return result;
}

bool
sc_new_query_runs(const ScQuery *query)
{
	return !query->paused && !sc_failure_stops(sc_find_by_id(sc_failure_list(), query->query_id));
}

XLogRecPtr
sc_start_position(int32 pipeline_id, List *offsets)
{
	XLogRecPtr	position = InvalidXLogRecPtr;
	ListCell   *lc;

	foreach(lc, offsets)
	{
		ScOffset   *offset = lfirst(lc);

		if (XLogRecPtrIsInvalid(position) || offset->lsn < position)
			position = offset->lsn;
	}
	if (XLogRecPtrIsInvalid(position))
		position = sc_pipeline_state_read(pipeline_id).lsn;
	if (XLogRecPtrIsInvalid(position))
		position = sc_slot_info(MyDatabaseId, pipeline_id).confirmed_flush;
	return position;
}

void
sc_start_accept_gaps(int32 pipeline_id)
{
	XLogRecPtr	position = sc_pipeline_state_read(pipeline_id).lsn;
	List	   *failures = sc_failure_list();
	ListCell   *lc;

	foreach(lc, sc_offset_list(pipeline_id))
	{
		ScOffset   *offset = lfirst(lc);
		ScFailureRow *failure = sc_find_by_id(failures, offset->query_id);

		/* the others may have gone back behind it, for the sake of another one */
		if (failure && failure->status == SC_FAILURE_ACCEPTED &&
			sc_failure_recovered(offset->query_id))
			sc_offset_move(offset->query_id, Max(offset->lsn, position),
						   &sc_stream_by_relid(offset->stream_relid, false)->options);
	}
}

/* The same over all queries but those that are lost: what the slot must keep. */
static XLogRecPtr
held_position(int32 pipeline_id)
{
	List	   *failures = sc_failure_list();
	List	   *held = NIL;
	ListCell   *lc;

	foreach(lc, sc_offset_list(pipeline_id))
	{
		ScOffset   *offset = lfirst(lc);

		if (!sc_failure_loses(sc_find_by_id(failures, offset->query_id)))
			held = lappend(held, offset);
	}
	return sc_start_position(pipeline_id, held);
}

/*
 * Where queries were that are gone, if it isn't where the slot is or can be.  None of those that are there depends on the
 * slot either: one of another timeline goes.
 */
static void
forget_position(int32 pipeline_id)
{
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, pipeline_id);
	ScPipelineState state = sc_pipeline_state_read(pipeline_id);
	bool		foreign = has_foreign_state(pipeline_id);

	if (!foreign && slot.exists && !slot.foreign && !XLogRecPtrIsInvalid(state.lsn) &&
		sc_slot_of_another_timeline(&slot, state.timeline))
	{
		if (!sc_slot_lock(pipeline_id, false))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("the pipeline's replication slot belongs to another timeline, and a transaction counts on it"),
					 errhint("It is tried again when that transaction has ended.")));
		sc_slot_drop(MyDatabaseId, pipeline_id);
		sc_slot_unlock(pipeline_id);
	}
	else if (!foreign && slot.exists && !sc_slot_is_useless(&slot) && state.lsn >= slot.confirmed_flush)
		return;
	sc_pipeline_state_clear(pipeline_id);
	CommandCounterIncrement();
}

static char *
explain_ahead(const ScSlotInfo *slot)
{
	return psprintf("the replication slot stands at %X/%X, which this server has not written yet: it belongs to another timeline",
					LSN_FORMAT_ARGS(slot->confirmed_flush));
}

/*
 * A slot that is ahead of all that this server has written was made for another log: nothing can ever be read with it.  It
 * goes as long as that can be told: once this log has come to that place, the slot looks like one of it, whoever keeps it.
 * Says why, in words; NULL: there was none.  If a transaction is just having another one made, that is for it to do.
 */
static char *
drop_slot_ahead(int32 pipeline_id)
{
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, pipeline_id);
	NameData	name;
	char	   *message = NULL;

	if (!slot.ahead || slot.foreign || !sc_slot_lock(pipeline_id, false))
		return NULL;
	slot = sc_slot_info(MyDatabaseId, pipeline_id);
	if (slot.ahead && !slot.foreign && slot.active_pid == 0)
	{
		message = explain_ahead(&slot);
		sc_slot_name(MyDatabaseId, pipeline_id, &name);
		ereport(LOG,
				(errmsg("replication slot \"%s\" is dropped", NameStr(name)),
				 errdetail("It stands at %X/%X, which this server has not written yet.", LSN_FORMAT_ARGS(slot.confirmed_flush))));
		sc_slot_drop(MyDatabaseId, pipeline_id);
	}
	sc_slot_unlock(pipeline_id);
	return message;
}

ScStatus
sc_start_check(int32 pipeline_id, char **message, char **hint)
{
	ScPipeline *pipeline;
	ScStatus	status;
	char	   *ahead;

	*message = *hint = NULL;
	if (!sc_extension_matches(message, hint))
		return SC_STATUS_STOPPED;
	if (!sc_extension_exists())
	{
		sc_slot_drop(MyDatabaseId, pipeline_id);
		return SC_STATUS_GONE;
	}
	pipeline = sc_pipeline_by_id(pipeline_id, true);
	if (pipeline == NULL)
	{
		/* not while somebody is making the pipeline, who asks for it when his transaction has ended */
		(void) sc_slot_drop_if_unused(pipeline_id);
		return SC_STATUS_GONE;
	}
	ahead = drop_slot_ahead(pipeline_id);
	if (pipeline->stopped && sc_pipeline_state_read(pipeline_id).prepared)
	{
		SC_DEBUG_POINT("prepared");
		/* not while finish_upgrade() counts on it */
		(void) sc_slot_drop_if_unused(pipeline_id);
		*message = "the database is prepared for pg_upgrade";
		*hint = "After the upgrade, or to give it up, call stream_ckpt.finish_upgrade().";
		return SC_STATUS_STOPPED;
	}
	/* a lane that is empty gives up its slot all the same */
	if (pipeline->stopped && (!pipeline->lane || sc_pipeline_in_use(pipeline)))
		return SC_STATUS_STOPPED;
	if (!sc_pipeline_in_use(pipeline))
	{
		*message = "no query uses the pipeline";
		return SC_STATUS_IDLE;
	}

	if (sc_offset_list(pipeline_id) == NIL &&
		(has_foreign_state(pipeline_id) || (sc_query_list(pipeline_id) != NIL && !sc_has_begun(pipeline_id))))
		forget_position(pipeline_id);
	status = check_position(pipeline_id, message, hint);
	if (status == SC_STATUS_LOST && sc_query_list(pipeline_id) == NIL)
	{
		/* what is lost, nobody misses: the next query begins anew */
		*message = "no query uses the pipeline";
		*hint = NULL;
		return SC_STATUS_IDLE;
	}
	if (status == SC_STATUS_LOST && ahead)
		*message = ahead;
	return status;
}

bool
sc_start_anew(int32 pipeline_id)
{
	XLogRecPtr	last = sc_pipeline_state_read(pipeline_id).lsn;

	if (sc_has_begun(pipeline_id))
		return false;
	if (last < sc_slot_info(MyDatabaseId, pipeline_id).confirmed_flush)
		sc_pipeline_state_clear(pipeline_id);
	return true;
}

bool
sc_start_is_lost(int32 pipeline_id, char **message, char **hint)
{
	return sc_query_list(pipeline_id) != NIL &&
		check_position(pipeline_id, message, hint) == SC_STATUS_LOST;
}

/* Are the state and the slot those with which the queries can go on?  Writes nothing. */
static ScStatus
check_position(int32 pipeline_id, char **message, char **hint)
{
	bool		foreign = has_foreign_state(pipeline_id);

	if (foreign && sc_offset_list(pipeline_id) != NIL)
	{
		*message = "the pipeline's checkpoints come from another server or database, or another version";
		*hint = HINT_LOST;
		return SC_STATUS_LOST;
	}
	return check_slot(pipeline_id, !foreign, message, hint);
}

/* A copied, restored or upgraded database never goes on with foreign state. */
static bool
has_foreign_state(int32 pipeline_id)
{
	ScPipelineState state = sc_pipeline_state_read(pipeline_id);

	return state.checkpoint_id > 0 &&
		(state.system_identifier != GetSystemIdentifier() ||
		 state.database != MyDatabaseId ||
		 state.server_version != PG_VERSION_NUM / 10000 ||
		 state.format != SC_STATE_FORMAT);
}

#define INVALIDATED "the pipeline's replication slot was invalidated: "

/* *message and *hint: for an operator; constants. */
static void
explain_invalidation(ReplicationSlotInvalidationCause cause, char **message, char **hint)
{
	if (cause == RS_INVAL_WAL_REMOVED)
	{
		*message = INVALIDATED "the WAL that it needs has been removed";
		*hint = "Increase \"max_slot_wal_keep_size\". " HINT_LOST;
	}
	else if (cause == RS_INVAL_HORIZON)
	{
		*message = INVALIDATED "rows of the system catalogs that it needs were removed while the server was a standby";
		*hint = "Set \"hot_standby_feedback\" on standbys. " HINT_LOST;
	}
	else if (cause == RS_INVAL_WAL_LEVEL)
	{
		*message = INVALIDATED "\"wal_level\" of the primary was not \"logical\" while the server was a standby";
		*hint = "Keep wal_level = logical. " HINT_LOST;
	}
	else if (SC_INVAL_IDLE_TIMEOUT(cause))
	{
		*message = INVALIDATED "nobody used it for \"idle_replication_slot_timeout\"";
		*hint = "Increase the setting, or don't stop the pipeline for so long. " HINT_LOST;
	}
	else
	{
		*message = INVALIDATED "the server's log says why";
		*hint = HINT_LOST;
	}
}

/* compare: the pipeline's last position is one of this server's. */
static ScStatus
check_slot(int32 pipeline_id, bool compare, char **message, char **hint)
{
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, pipeline_id);
	bool		all_new = sc_query_list(pipeline_id) != NIL && !sc_has_begun(pipeline_id);
	XLogRecPtr	start;

	*hint = HINT_LOST;
	/* nothing is lost: their streams' tables have all that they are to begin with */
	if (all_new && !slot.foreign)
	{
		*hint = NULL;
		return SC_STATUS_STARTING;
	}
	if (!slot.exists)
	{
		if (sc_query_list(pipeline_id) == NIL)
		{
			*hint = NULL;
			*message = "no query uses the pipeline";
			return SC_STATUS_IDLE;
		}
		*message = "the pipeline's replication slot does not exist";
		return SC_STATUS_LOST;
	}
	if (slot.foreign)
	{
		NameData	name;

		sc_slot_name(MyDatabaseId, pipeline_id, &name);
		*message = psprintf("replication slot \"%s\" has the name of the pipeline's, and another output plugin",
							NameStr(name));
		*hint = psprintf("Drop it with SELECT pg_drop_replication_slot('%s'). " HINT_LOST, NameStr(name));
		return SC_STATUS_LOST;
	}
	if (slot.invalidated != RS_INVAL_NONE)
	{
		explain_invalidation(slot.invalidated, message, hint);
		return SC_STATUS_LOST;
	}
	if (slot.ahead)
	{
		*message = explain_ahead(&slot);
		return SC_STATUS_LOST;
	}
	start = held_position(pipeline_id);
	if (compare && start == SC_RESTORED_LSN)
	{
		*message = "the pipeline's queries were restored from a dump";
		return SC_STATUS_LOST;
	}
	if (compare && start < slot.confirmed_flush)
	{
		*message = psprintf("the replication slot stands at %X/%X, beyond the last checkpoint at %X/%X",
							LSN_FORMAT_ARGS(slot.confirmed_flush), LSN_FORMAT_ARGS(start));
		return SC_STATUS_LOST;
	}
	*hint = NULL;
	return SC_STATUS_STARTING;
}
