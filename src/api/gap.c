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
 *	   the state itself is forgotten if it can't be used here: see why_without_state(); those that are not behind
 *	   stay where they are, each at a position of its own, because the pipeline's may change;
 *	 - queries that never began begun at this commit, where the slot is new: an old slot
 *	   still has their own beginning before it;
 *	 - windows closed for good of queries without the state that they had: those that had rows, of the result or of
 *	   the stream.  A query that has groups and no windows is lost then;
 *	 - the mark of rows missing on all of them, so that verify() says so.
 *
 * Queries over streams whose changes are applied can't go on so: a row that they have never counted may be changed later.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "api/api_internal.h"
#include "api/gap.h"
#include "api/new_query.h"
#include "base/by_id.h"
#include "ckpt/failure.h"
#include "ckpt/forget.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "model/control.h"
#include "source/wal/slot.h"
#include "utils/lsyscache.h"

/* Where it stands there may be other rows in this server's log, or none yet. */
static bool
is_stale(int32 pipeline_id)
{
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, pipeline_id);
	ScPipelineState state = sc_pipeline_state_read(pipeline_id);

	if (!slot.exists || slot.foreign)
		return false;
	return sc_slot_is_useless(&slot) ||
		(slot.confirmed_flush > state.lsn && sc_slot_of_another_timeline(&slot, state.timeline));
}

/* One that another session has just made, and accepts a gap with, looks like that, too, until it has committed. */
static void
drop_stale_slot(const ScPipeline *pipeline)
{
	if (!is_stale(pipeline->pipeline_id))
		return;
	if (!sc_slot_lock(pipeline->pipeline_id, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pipeline \"%s\" is being repaired by another session", pipeline->name),
				 errdetail("A transaction that is open counts on the pipeline's replication slot."),
				 errhint("Try again when it has ended.")));
	if (is_stale(pipeline->pipeline_id))
		sc_slot_drop(MyDatabaseId, pipeline->pipeline_id);
	sc_slot_unlock(pipeline->pipeline_id);
}

void
sc_gap_prepare(const ScPipeline *pipeline)
{
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, pipeline->pipeline_id);

	/* somebody else's slot of this name is for sc_slot_ensure() to refuse */
	if (slot.active_pid != 0 && !slot.foreign)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pipeline \"%s\" is running", pipeline->name),
				 errdetail("Its replication slot is in use by process %d.",
						   slot.active_pid),
				 errhint("Only a pipeline that is lost or stopped can accept a gap.")));
	drop_stale_slot(pipeline);
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

/*
 * Why a query can't go on with the state that is stored, in words; NULL: it can.  State that comes from another database,
 * or another version, holds only as far as its query says (ScPortable).  upgraded: by pg_upgrade, which gives new numbers
 * to functions and collations.
 */
static const char *
why_without_state(const ScPipelineState *state, const ScOffset *offset, bool upgraded)
{
	bool		restored = offset->lsn == SC_RESTORED_LSN;

	if (!restored && !upgraded && (state->checkpoint_id == 0 || from_this_version(state)))
		return NULL;
	if (restored && !state->dumped)
		return "The dump was made without state.";
	if (state->format != SC_STATE_FORMAT)
		return psprintf("The state has format %d, and this version of stream_ckpt reads %d.", state->format, SC_STATE_FORMAT);
	if (state->platform == NULL || strcmp(state->platform, sc_platform()) != 0)
		return psprintf("The state was written in another kind of database (%s), and this is one of %s.",
						state->platform ? state->platform : "unknown", sc_platform());
	if (offset->portable == SC_PORTABLE_NO)
		return "The state is bound to the database that it was written in: by types, functions or aggregates that are not PostgreSQL's own, or by arrays, ranges or rows of such types; or the query had lost it there.";
	if (offset->portable == SC_PORTABLE_VERSION && state->server_version != PG_VERSION_NUM / 10000)
		return psprintf("The state was serialized by functions of PostgreSQL %d, and this is %d.",
						state->server_version, PG_VERSION_NUM / 10000);
	return NULL;
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

/* Its groups are of all of time: without them each result row would begin anew. */
static void
lose_state(const ScQuery *query, const char *why)
{
	ScFailure	failure = {0};

	failure.sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	failure.message = "the query has no windows, and its state cannot be used";
	failure.detail = pstrdup(why);
	failure.hint = "Call stream_ckpt.rebuild_query(query) to make its result anew, or stream_ckpt.resume_query(query, accept_gap => true) to begin counting anew, over the rows that the result has.";
	if (!sc_failure_set(query->query_id, SC_FAILURE_LOST, 1, &failure))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("query \"%s\" is being resumed or dropped", get_rel_name(query->relid)),
				 errhint("Call it again when that is done.")));
	ereport(WARNING,
			(errmsg("query \"%s\" is lost: it has no windows, and its state cannot be used", get_rel_name(query->relid)),
			 errdetail("%s", why),
			 errhint("%s", failure.hint)));
}

/*
 * A query without its state.  go_on: it is to count from here, if it can, and its owner hears of it.  To be called before
 * its position is moved.
 */
static void
go_without_state(const ScQuery *query, const ScOffset *offset, const char *why, bool go_on)
{
	if (go_on && offset->endless)
		lose_state(query, why);
	else if (go_on)
		ereport(NOTICE,
				(errmsg("windows of query \"%s\" that had rows are over: their state cannot be used", get_rel_name(query->relid)),
				 errdetail("%s", why),
				 errhint("stream_ckpt.rebuild_query(query) makes its result anew, if its stream holds the rows.")));
	close_windows(offset);
}

/* Where the pipeline's queries are, and what there is to go on with. */
typedef struct Gap
{
	ScPipelineState state;
	ScSlotInfo	slot;
	ScGapWay	way;
	bool		has_state;		/* a checkpoint */
	bool		foreign;		/* of another server or database */
	bool		fresh;			/* the slot is behind all that the queries have seen */
	List	   *stateless;		/* ScQuery *, whose state isn't used */
} Gap;

/* One query, whose offset is NULL if it has none. */
static void
accept_for(Gap *gap, ScQuery *query, const ScOffset *offset)
{
	const char *why = offset ? why_without_state(&gap->state, offset, gap->way == SC_GAP_OF_NOTHING && gap->foreign) : NULL;

	/* one that begins with its stream's history does so, wherever the slot is */
	if (offset == NULL && (!gap->fresh || query->backfill))
		return;
	if (gap->way == SC_GAP_GO_ON && (why != NULL || offset == NULL || gap->foreign || offset->lsn < gap->slot.confirmed_flush))
		refuse_changes(query);
	if (why != NULL)
	{
		gap->stateless = lappend(gap->stateless, query);
		go_without_state(query, offset, why, gap->way == SC_GAP_GO_ON ||
						 (gap->way == SC_GAP_OF_NOTHING && !sc_query_can_be_rebuilt(query)));
	}
	if (offset == NULL)
		begin_query(query);
	else if (gap->foreign || offset->lsn < gap->slot.confirmed_flush)
		sc_offset_move(query->query_id, gap->slot.confirmed_flush,
					   &sc_stream_by_relid(query->stream_relid, false)->options);
	else
	{
		sc_offset_move(query->query_id, offset->lsn, &offset->options);
		return;
	}
	if (gap->way != SC_GAP_OF_NOTHING || why != NULL)
		sc_query_set_preexisting(query->query_id);
}

List *
sc_gap_accept(const ScPipeline *pipeline, ScGapWay way)
{
	List	   *queries = lock_queries(pipeline->pipeline_id);
	List	   *offsets = sc_offset_list(pipeline->pipeline_id);
	Gap			gap = {0};
	ListCell   *lc;

	gap.state = sc_pipeline_state_read(pipeline->pipeline_id);
	gap.slot = sc_slot_info(MyDatabaseId, pipeline->pipeline_id);
	if (!gap.slot.exists)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the replication slot of pipeline \"%s\" has been dropped meanwhile", pipeline->name),
				 errhint("Try again.")));
	gap.way = way;
	gap.has_state = gap.state.checkpoint_id > 0;
	gap.foreign = gap.has_state && !from_this_server(&gap.state);
	gap.fresh = gap.foreign || !gap.has_state || gap.slot.confirmed_flush > gap.state.lsn;
	foreach(lc, queries)
	{
		ScQuery    *query = lfirst(lc);

		accept_for(&gap, query, sc_find_by_id(offsets, query->query_id));
	}

	if (gap.stateless != NIL)
		sc_forget_state(gap.stateless);
	if (gap.state.dumped || (gap.has_state && (gap.foreign || !from_this_version(&gap.state) ||
											   gap.state.lsn < gap.slot.confirmed_flush)))
		sc_pipeline_state_adopt(pipeline->pipeline_id, gap.slot.confirmed_flush);
	return gap.stateless;
}

void
sc_refuse_prepared(const ScPipeline *pipeline)
{
	if (!sc_pipeline_state_read(pipeline->pipeline_id).prepared)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("pipeline \"%s\" is prepared for pg_upgrade", pipeline->name),
			 errhint("Call stream_ckpt.finish_upgrade(): all pipelines go on then, and nothing is missing.")));
}
