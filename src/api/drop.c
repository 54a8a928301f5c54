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
#include "ckpt/dead_letter.h"
#include "ckpt/failure.h"
#include "ckpt/late.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "model/catalog_write.h"
#include "utils/lsyscache.h"
#include "worker/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_drop_query);
PG_FUNCTION_INFO_V1(stream_ckpt_on_drop);

/* Removes a query from the catalogs, and its workers' minds after the commit. */
static void
forget_query(int64 query_id, int32 pipeline_id)
{
	sc_query_delete(query_id);
	sc_late_delete(query_id);
	sc_dead_letter_delete(query_id);
	sc_store_failure_clear(query_id);
	sc_query_dropped(query_id, pipeline_id);
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
	table = sc_qualified_name(query->relid);

	/* here too, because event triggers can be off */
	forget_query(query->query_id, query->pipeline_id);
	SPI_connect();
	sc_user_execute(psprintf("DROP VIEW %s", sc_qualified_name(query->definition)),
					SPI_OK_UTILITY);
	if (!keep_result)
		sc_user_execute(psprintf("DROP TABLE %s", table), SPI_OK_UTILITY);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * OIDs of the relations that the command dropped; *log_streams: there may be log
 * streams among them.  Needs SPI.
 */
static List *
dropped_relations(MemoryContext context, bool *log_streams)
{
	List	   *result = NIL;

	*log_streams = false;
	if (SPI_execute("SELECT d.objid, d.object_type OPERATOR(pg_catalog.=) 'foreign table' FROM pg_catalog.pg_event_trigger_dropped_objects() d "
					"WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid "
					"AND d.objsubid OPERATOR(pg_catalog.=) 0", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the dropped objects");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		relid = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
										  1, &isnull);
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		*log_streams |= DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i],
												   SPI_tuptable->tupdesc, 2, &isnull));
		result = lappend_oid(result, DatumGetObjectId(relid));
		MemoryContextSwitchTo(oldcontext);
	}
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
			!list_member_oid(dropped, row->source))
			continue;
		sc_refuse_in_worker("drop_query()");
		forget_query(row->query_id, row->pipeline_id);
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

/* The event trigger of sql_drop. */
Datum
stream_ckpt_on_drop(PG_FUNCTION_ARGS)
{
	List	   *dropped;
	bool		log_streams;
	MemoryContext context = CurrentMemoryContext;
	char	   *message;
	char	   *hint;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("stream_ckpt.on_drop() is an event trigger's function")));
	/* DROP EXTENSION has taken the catalogs, or they are not yet, or no longer, ours: what
	 * names relations that are gone is left out wherever it is read */
	if (creating_extension || !sc_extension_exists() ||
		!sc_extension_matches(&message, &hint))
		PG_RETURN_NULL();

	SPI_connect();
	dropped = dropped_relations(context, &log_streams);
	if (dropped != NIL)
		forget_dropped(dropped, log_streams);
	SPI_finish();
	PG_RETURN_NULL();
}
