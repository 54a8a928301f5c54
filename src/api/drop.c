/*-------------------------------------------------------------------------
 * drop.c
 *	  drop_query, and the event trigger that notices dropped parts.
 *
 * Dropping the result table or the definition view is dropping the query; the
 * event trigger keeps the catalogs true, whichever way it came about.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/spi_internal.h"
#include "base/process.h"
#include "commands/event_trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "worker/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_drop_query);
PG_FUNCTION_INFO_V1(stream_ckpt_on_drop);

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
	sc_check_relation_owner(query->relid);
	table = sc_qualified_name(query->relid);
	SPI_connect();
	/* the table takes the view with it */
	if (keep_result)
		sc_user_execute(psprintf("DROP VIEW %s", sc_qualified_name(query->definition)),
						SPI_OK_UTILITY);
	else
		sc_user_execute(psprintf("DROP TABLE %s", table), SPI_OK_UTILITY);
	SPI_finish();
	PG_RETURN_VOID();
}

/* The event trigger of sql_drop. */
Datum
stream_ckpt_on_drop(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("stream_ckpt.on_drop() is an event trigger's function")));
	if (!sc_extension_exists())
		PG_RETURN_NULL();		/* DROP EXTENSION has taken the catalogs */

	SPI_connect();
	sc_catalog_execute("DELETE FROM stream_ckpt.query q USING pg_catalog.pg_event_trigger_dropped_objects() d "
					   "WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0 "
					   "AND (q.relid = d.objid OR q.definition = d.objid) "
					   "RETURNING q.query_id, q.pipeline_id",
					   0, NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		sc_query_dropped(DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull)),
						 DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull)));
	}
	sc_catalog_execute("DELETE FROM stream_ckpt.stream s USING pg_catalog.pg_event_trigger_dropped_objects() d "
					   "WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0 "
					   "AND s.relid = d.objid",
					   0, NULL, NULL, NULL);
	if (SPI_processed > 0)
		sc_pipeline_changed(sc_pipeline_by_name(SC_DEFAULT_PIPELINE, false)->pipeline_id);
	SPI_finish();
	PG_RETURN_NULL();
}
