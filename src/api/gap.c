/*-------------------------------------------------------------------------
 * gap.c
 *	  start_pipeline(accept_gap => true): going on without the rows between.
 *
 * A pipeline is lost where its slot is gone, invalidated, of another timeline, or beyond the offset of
 * a query, or where its checkpoints come from another server, database or version
 * (see worker/frame/start.c).  Its rows in between can't be had any more.  Somebody who
 * accepts that gets:
 *
 *	 - a slot, made again where there is none;
 *	 - the queries behind it moved to its position, with the state that they had;
 *	   the state itself is forgotten where another version wrote it; those that are not behind stay
 *	   where they are, each at a position of its own, because the pipeline's may change;
 *	 - queries that never began begun at this commit, where the slot is new: an old slot
 *	   still has their own beginning before it;
 *	 - windows closed for good of queries without the state that they had (a restored dump,
 *	   another version): those that had rows, of the result or of the stream;
 *	 - the mark of rows missing on all of them, so that verify() says so.
 *
 * Queries over streams whose changes are applied can't go on so: a row that they have never counted may be changed later.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "api/api_internal.h"
#include "api/gap.h"
#include "base/by_id.h"
#include "ckpt/forget.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "model/control.h"
#include "source/wal/slot.h"
#include "utils/lsyscache.h"

void
sc_gap_prepare(const ScPipeline *pipeline)
{
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, pipeline->pipeline_id);
	ScPipelineState state = sc_pipeline_state_read(pipeline->pipeline_id);

	/* somebody else's slot of this name is for sc_slot_ensure() to refuse */
	if (slot.active_pid != 0 && !slot.foreign)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pipeline \"%s\" is running", pipeline->name),
				 errdetail("Its replication slot is in use by process %d.",
						   slot.active_pid),
				 errhint("Only a pipeline that is lost or stopped can accept a gap.")));
	/* where it stands there may be other rows in this server's log, or none yet */
	if (slot.exists && !slot.foreign &&
		(sc_slot_is_useless(&slot) || (slot.confirmed_flush > state.lsn && sc_slot_of_another_timeline(&slot, state.timeline))))
		sc_slot_drop(MyDatabaseId, pipeline->pipeline_id);
	sc_pipeline_prepare(pipeline);
}

/* A query that has no offset begins at the commit of this transaction. */
static void
begin_query(const ScQuery *query)
{
	ScStream   *stream = sc_stream_by_relid(query->stream_relid, false);
	ScControl	control = {0};

	control.kind = SC_CONTROL_CREATE_QUERY;
	control.pipeline_id = query->pipeline_id;
	control.query_id = query->query_id;
	control.stream_relid = query->stream_relid;
	control.event_time_attno = stream->event_time_attno;
	control.has_options = true;
	control.options = stream->options;
	control.parallelism = query->parallelism;
	(void) sc_control_log(&control);
}

/*
 * A query that goes on without its state: windows that had rows, of the stream or of the result,
 * miss some from now on.  They stay as they are, and what comes for them is late: all that begin up
 * to the greatest event time, and those that were open behind it.  The definition isn't needed, so
 * one that can't be compiled any more is its query's failure only.  To be called before the position
 * is moved; "offset" has the event times.
 */
static void
close_windows(const ScOffset *offset)
{
	ScWindowRanges windows = offset->time.closed_windows;
	int64		last = offset->time.max_event_time;

	/* an end that can be shown; no window ends behind it */
	if (last != SC_NO_EVENT_TIME)
		sc_ranges_add(&windows, SC_NO_EVENT_TIME, Min(last, END_TIMESTAMP - 2) + 1);
	for (int i = 0; i < offset->ahead_windows.n; i++)
		sc_ranges_add(&windows, offset->ahead_windows.ranges[i].start,
					  offset->ahead_windows.ranges[i].end);
	if (windows.n > 0)
		sc_offset_close(offset->query_id, &windows);
}

static bool
from_this_server(const ScPipelineState *state)
{
	return state->system_identifier == GetSystemIdentifier() &&
		state->database == MyDatabaseId;
}

static bool
from_this_version(const ScPipelineState *state)
{
	return state->server_version == PG_VERSION_NUM / 10000 &&
		state->format == SC_STATE_FORMAT;
}

/* The pipeline's queries (ScQuery *), locked: none of them is dropped, or leaves, meanwhile. */
static List *
lock_queries(int32 pipeline_id)
{
	ListCell   *lc;

	foreach(lc, sc_query_list(pipeline_id))
		sc_query_lock(((ScQuery *) lfirst(lc))->query_id, ExclusiveLock);
	return sc_query_list(pipeline_id);
}

static void
refuse_changes(const ScQuery *query)
{
	if (!sc_stream_by_relid(query->stream_relid, false)->applies)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("query \"%s\" cannot go on without the rows between", get_rel_name(query->relid)),
			 errdetail("Changes of its stream are applied: a row that it has not counted can be changed or deleted later."),
			 errhint("Call stream_ckpt.rebuild_pipeline(name): results are made anew of their streams' tables. Or drop the query, and accept the gap for the others.")));
}

void
sc_gap_accept(const ScPipeline *pipeline, bool go_on)
{
	List	   *queries = lock_queries(pipeline->pipeline_id);
	ScPipelineState state = sc_pipeline_state_read(pipeline->pipeline_id);
	List	   *offsets = sc_offset_list(pipeline->pipeline_id);
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, pipeline->pipeline_id);
	bool		has_state = state.checkpoint_id > 0;
	bool		foreign = has_state && !from_this_server(&state);
	bool		fresh = foreign || !has_state || slot.confirmed_flush > state.lsn;
	ListCell   *lc;

	foreach(lc, queries)
	{
		ScQuery    *query = lfirst(lc);
		ScOffset   *offset = sc_find_by_id(offsets, query->query_id);
		bool		stateless;

		/* one that begins with its stream's history does so, wherever the slot is */
		if (offset == NULL && (!fresh || query->backfill))
			continue;
		stateless = offset != NULL && (offset->lsn == SC_RESTORED_LSN ||
									   (has_state && !from_this_version(&state)));
		if (go_on && (stateless || offset == NULL || foreign || offset->lsn < slot.confirmed_flush))
			refuse_changes(query);
		if (stateless)
			close_windows(offset);
		if (offset == NULL)
			begin_query(query);
		else if (foreign || offset->lsn < slot.confirmed_flush)
			sc_offset_move(query->query_id, slot.confirmed_flush,
						   &sc_stream_by_relid(query->stream_relid, false)->options);
		else
		{
			sc_offset_move(query->query_id, offset->lsn, &offset->options);
			continue;
		}
		sc_query_set_preexisting(query->query_id);
	}

	if (has_state && !from_this_version(&state))
		sc_forget_state(queries);
	if (has_state && (foreign || !from_this_version(&state) ||
					  state.lsn < slot.confirmed_flush))
		sc_pipeline_state_adopt(pipeline->pipeline_id, slot.confirmed_flush);
}
