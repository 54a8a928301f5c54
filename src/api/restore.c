/*-------------------------------------------------------------------------
 * restore.c
 *	  Queries that come from a dump.
 *
 * Functions and checkpoints write our tables past triggers; only a restore inserts rows by a
 * command.  Of a row of checkpoint_offset the watermark and the counters hold in the copy, too: they are
 * those of the results beside it, because a dump is one snapshot.  What doesn't hold is the
 * position, which is one in another log, and the state, if it isn't part of the dump (stream_ckpt.dump_state).  That it is, a
 * row of pipeline_state says, by what wrote it; of that row nothing else holds.  The
 * position becomes one before all others, so that the query is lost whatever slot is there,
 * until start_pipeline(accept_gap => true) (gap.c).
 *
 * Triggers can be off: pg_restore --disable-triggers leaves them so that they don't fire in a replica's session.  So both
 * tables say of each row whether it was written here: by a generated column, which no dump has.
 *
 * The lane (worker/coordinator/lane.h) is in no dump: nobody knows its name, or in another server its owner's.  Its
 * queries are restored to the pipelines to which they would have come.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "api/api_internal.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "commands/trigger.h"
#include "model/catalog_columns.h"
#include "model/extension.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "worker/frame/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_restored);
PG_FUNCTION_INFO_V1(stream_ckpt_restored_query);
PG_FUNCTION_INFO_V1(stream_ckpt_restored_state);
PG_FUNCTION_INFO_V1(stream_ckpt_written_here);

static void
check_called(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_INSERT(((TriggerData *) fcinfo->context)->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" is a trigger of stream_ckpt's tables", get_func_name(fcinfo->flinfo->fn_oid))));
}

/*
 * The trigger on our tables.  Before each row of checkpoint_offset it replaces what doesn't hold in a
 * copy; other calls only tell the workers.
 */
Datum
stream_ckpt_restored(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	int			columns[] = {Anum_offset_lsn, Anum_offset_apart, Anum_offset_active_lsn,
	Anum_offset_active_at, Anum_offset_groups, Anum_offset_state_bytes};
	Datum		values[] = {LSNGetDatum(SC_RESTORED_LSN), BoolGetDatum(true), 0, 0,
	Int64GetDatum(0), Int64GetDatum(0)};
	bool		nulls[] = {false, false, true, true, false, false};

	check_called(fcinfo);
	/* coordinators of the database look again */
	sc_pipelines_extension_changed();
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || !TRIGGER_FIRED_BEFORE(trigger->tg_event))
		return PointerGetDatum(NULL);
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple,
													 RelationGetDescr(trigger->tg_relation),
													 lengthof(columns), columns, values, nulls));
}

/*
 * written_here(): what "own" becomes by commands.  Rows that are there when the extension is updated were written here;
 * checkpoints write the column themselves.
 */
Datum
stream_ckpt_written_here(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(sc_extension_in_script());
}

/*
 * The trigger on query, before each row: one that was in the lane is in its own pipeline.  (So is any other that was to
 * move, if its pipeline isn't there yet.)
 */
Datum
stream_ckpt_restored_query(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	int			columns[] = {Anum_query_pipeline_id, Anum_query_target_id, Anum_query_moving};
	Datum		values[] = {0, 0, BoolGetDatum(false)};
	bool		nulls[] = {false, true, false};
	TupleDesc	desc;
	Datum		id;
	bool		no_id;
	bool		no_target;

	check_called(fcinfo);
	desc = RelationGetDescr(trigger->tg_relation);
	id = heap_getattr(trigger->tg_trigtuple, Anum_query_pipeline_id, desc, &no_id);
	values[0] = heap_getattr(trigger->tg_trigtuple, Anum_query_target_id, desc, &no_target);
	if (no_id || no_target || sc_pipeline_by_id(DatumGetInt32(id), true))
		return PointerGetDatum(trigger->tg_trigtuple);
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple, desc, lengthof(columns), columns, values,
													 nulls));
}

/*
 * The trigger on pipeline_state, before each row.  If the pipeline has run here, its row stays, and the dump's state is not
 * used.
 */
Datum
stream_ckpt_restored_state(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	int			columns[] = {Anum_state_attempt, Anum_state_checkpoint_id, Anum_state_lsn, Anum_state_completed,
	Anum_state_failed, Anum_state_restored, Anum_state_prepared};
	Datum		values[] = {Int64GetDatum(0), Int64GetDatum(0), 0, Int64GetDatum(0), Int64GetDatum(0), Int64GetDatum(0),
	BoolGetDatum(false)};
	bool		nulls[] = {false, false, true, false, false, false, false};
	bool		isnull;
	Datum		id;

	check_called(fcinfo);
	id = heap_getattr(trigger->tg_trigtuple, Anum_state_pipeline_id, RelationGetDescr(trigger->tg_relation), &isnull);
	if (!isnull && sc_pipeline_state_exists(DatumGetInt32(id)))
		return PointerGetDatum(NULL);
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple,
													 RelationGetDescr(trigger->tg_relation),
													 lengthof(columns), columns, values, nulls));
}
