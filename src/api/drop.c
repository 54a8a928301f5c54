/*-------------------------------------------------------------------------
 * drop.c
 *	  drop_query, and the event trigger that notices dropped parts.
 *
 * Dropping the result table or the definition view is dropping the query; the
 * event trigger keeps the catalogs true, whichever way it came about.  Nothing
 * here waits for workers or slots: they are told after the commit.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "base/process.h"
#include "catalog/pg_class.h"
#include "ckpt/forget.h"
#include "commands/event_trigger.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "model/catalog_write.h"
#include "model/partition.h"
#include "worker/frame/lose_partition.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"
#include "worker/frame/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_drop_query);
PG_FUNCTION_INFO_V1(stream_ckpt_on_drop);

/*
 * Removes a query from the catalogs, and its workers' minds after the commit: those of the pipeline where it is
 * now, and of the one that expects it.
 */
static void
forget_query(int64 query_id)
{
	const ScQueryRow *row;

	sc_query_lock(query_id, ExclusiveLock);
	row = sc_query_row(query_id);
	if (!row)
		return;
	sc_forget_dropped(query_id);
	sc_query_dropped(query_id, row->pipeline_id);
	if (row->target_id != 0)
		sc_pipeline_changed(row->target_id);
}

/* In the order in which DROP takes these locks and ours. */
static void
lock_parts(const ScQuery *query, bool keep_result)
{
	if (!keep_result)
		LockRelationOid(query->relid, AccessExclusiveLock);
	LockRelationOid(query->definition, AccessExclusiveLock);
}

/*
 * drop_query(query regclass, keep_result boolean): "query" is the result table or
 * the definition.
 */
Datum
stream_ckpt_drop_query(PG_FUNCTION_ARGS)
{
	ScQuery    *query;
	bool		keep_result = PG_GETARG_BOOL(1);
	char	   *table;

	sc_refuse_in_worker("drop_query()");
	query = sc_query_by_relid(PG_GETARG_OID(0), false);
	sc_check_relation_owner(query->definition);
	if (!keep_result)
		sc_check_relation_owner(query->relid);
	lock_parts(query, keep_result);
	query = sc_query_by_relid(PG_GETARG_OID(0), false);
	table = sc_qualified_name(query->relid);

	/* here too, because event triggers can be off */
	forget_query(query->query_id);
	SPI_connect();
	sc_user_execute(psprintf("DROP VIEW %s", sc_qualified_name(query->definition)),
					SPI_OK_UTILITY);
	if (!keep_result)
		sc_user_execute(psprintf("DROP TABLE %s", table), SPI_OK_UTILITY);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Columns of pg_event_trigger_dropped_objects(). */
#define DROPPED_CLASSID		1
#define DROPPED_OBJID		2
#define DROPPED_OBJSUBID	3
#define DROPPED_OBJECT_TYPE	7

void
sc_call_set_function(Oid function, ExprContext *econtext, ReturnSetInfo *set)
{
	LOCAL_FCINFO(fcinfo, 0);
	FmgrInfo	flinfo;

	memset(set, 0, sizeof(ReturnSetInfo));
	set->type = T_ReturnSetInfo;
	set->econtext = econtext;
	set->allowedModes = SFRM_Materialize;
	set->returnMode = SFRM_Materialize;
	fmgr_info_cxt(function, &flinfo, econtext->ecxt_per_query_memory);
	InitFunctionCallInfoData(*fcinfo, &flinfo, 0, InvalidOid, NULL, (Node *) set);
	(void) FunctionCallInvoke(fcinfo);
	if (set->returnMode != SFRM_Materialize || set->setResult == NULL || set->setDesc == NULL)
		elog(ERROR, "could not read the result of function %u", function);
}

/* Is it a relation?  A column of one is not. */
static bool
is_relation(TupleTableSlot *slot)
{
	slot_getallattrs(slot);
	return DatumGetObjectId(slot->tts_values[DROPPED_CLASSID - 1]) == RelationRelationId &&
		DatumGetInt32(slot->tts_values[DROPPED_OBJSUBID - 1]) == 0;
}

/*
 * OIDs of the relations that the command dropped; *log_streams: there may be log
 * streams among them.
 */
static List *
dropped_relations(bool *log_streams)
{
	ExprContext *econtext = CreateStandaloneExprContext();
	ReturnSetInfo set;
	TupleTableSlot *slot;
	List	   *result = NIL;

	*log_streams = false;
	sc_call_set_function(F_PG_EVENT_TRIGGER_DROPPED_OBJECTS, econtext, &set);
	slot = MakeSingleTupleTableSlot(set.setDesc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(set.setResult, true, false, slot))
	{
		char	   *type;

		if (!is_relation(slot))
			continue;
		type = TextDatumGetCString(slot->tts_values[DROPPED_OBJECT_TYPE - 1]);
		*log_streams |= strcmp(type, "foreign table") == 0;
		result = lappend_oid(result, DatumGetObjectId(slot->tts_values[DROPPED_OBJID - 1]));
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(set.setResult);
	FreeExprContext(econtext, true);
	return result;
}

/*
 * A definition without its result table is dropped too.  Usually the dependency
 * between them has done that; a restored dump hasn't got it.  Needs SPI.
 */
static void
drop_definition(const ScQueryRow *row)
{
	if (get_rel_relkind(row->definition) == RELKIND_VIEW &&
		get_rel_name(row->relid) == NULL)
		sc_user_execute(psprintf("DROP VIEW %s", sc_qualified_name(row->definition)),
						SPI_OK_UTILITY);
}

/*
 * Takes out of the catalogs all queries that lost their result table, view or stream, and all
 * streams among "dropped".  Connected to SPI.  Fails in one of our workers, which must not drop.
 */
static void
forget_dropped(List *dropped, bool log_streams)
{
	bool		streams = log_streams;
	ScPipeline *pipeline;
	ListCell   *lc;

	foreach(lc, sc_query_rows())
	{
		ScQueryRow *row = lfirst(lc);

		if (!list_member_oid(dropped, row->relid) &&
			!list_member_oid(dropped, row->definition) &&
			!list_member_oid(dropped, row->stream_relid))
			continue;
		sc_refuse_in_worker("drop_query()");
		forget_query(row->query_id);
		drop_definition(row);
	}
	foreach(lc, dropped)
		streams |= sc_stream_delete(lfirst_oid(lc));
	if (streams)
		sc_refuse_in_worker("drop_stream()");
	/* without streams the default pipeline has nothing to do */
	pipeline = streams ? sc_pipeline_by_name(SC_DEFAULT_PIPELINE, true) : NULL;
	if (pipeline)
		sc_pipeline_changed(pipeline->pipeline_id);
}

/*
 * The event trigger of sql_drop; also of the start of commands that drop the extension, where it
 * is enough that the library is loaded: worker/frame/hooks.c sees the rest.
 */
Datum
stream_ckpt_on_drop(PG_FUNCTION_ARGS)
{
	List	   *dropped;
	bool		log_streams;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("stream_ckpt.on_drop() is an event trigger's function")));
	if (strcmp(((EventTriggerData *) fcinfo->context)->event, "sql_drop") != 0)
		PG_RETURN_NULL();
	/* DROP EXTENSION has taken the catalogs, or they are not yet, or no longer, ours: what
	 * names relations that are gone is left out wherever it is read */
	if (sc_extension_in_script() || !sc_extension_is_usable())
		PG_RETURN_NULL();

	dropped = dropped_relations(&log_streams);
	if (dropped == NIL)
		PG_RETURN_NULL();
	SPI_connect();
	forget_dropped(dropped, log_streams);
	sc_partition_dropped(dropped, sc_lose_partition);
	SPI_finish();
	PG_RETURN_NULL();
}
