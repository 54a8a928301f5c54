/*-------------------------------------------------------------------------
 * restore.c
 *	  Queries that come from a dump.
 *
 * Functions and checkpoints write our tables past triggers; only a restore inserts rows by a
 * command.  Of a row of checkpoint_offset the watermark and the counters hold in the copy, too: they are
 * those of the results beside it, because a dump is one snapshot.  What doesn't hold is the
 * position, which is one in another log, and the state, which isn't part of a dump.  The
 * position becomes one before all others, so that the query is lost whatever slot is there,
 * until start_pipeline(accept_gap => true) (gap.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "api/api_internal.h"
#include "ckpt/offset.h"
#include "commands/trigger.h"
#include "model/catalog_columns.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "worker/frame/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_restored);

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

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"restored\" is a trigger of stream_ckpt's tables")));
	/* coordinators of the database look again */
	sc_pipelines_extension_changed();
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || !TRIGGER_FIRED_BEFORE(trigger->tg_event))
		return PointerGetDatum(NULL);
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple,
													 RelationGetDescr(trigger->tg_relation),
													 lengthof(columns), columns, values, nulls));
}
