/*-------------------------------------------------------------------------
 * verify.c
 *	  verify(query): how many rows of the result differ from the batch truth.
 *
 * The truth is the definition run as a plain query over the stream's table, in
 * one snapshot with the result.  It can be had only where every row that the
 * table has went through the query, and no other.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/spi_internal.h"
#include "base/env.h"
#include "base/process.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "query/analyze.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(stream_ckpt_verify);

/* An error where "count" rows make the batch truth another one. */
static void
refuse(ScQuery *query, int64 count, const char *what)
{
	if (count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the batch truth of \"%s\" cannot be had", get_rel_name(query->relid)),
				 errdetail(what, (long long) count)));
}

/*
 * Reads the counters; returns the watermark as a literal in UTC, or NULL where
 * there is none yet.
 */
static char *
check_counters(ScQuery *query)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(query->query_id)};
	bool		isnull;

	if (query->preexisting_rows)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the batch truth of \"%s\" cannot be had", get_rel_name(query->relid)),
				 errdetail("The stream held rows when the query began; they are not part of it.")));
	sc_catalog_execute("SELECT late_rows, updates_ignored, deletes_ignored, truncates_ignored, "
					   "((max_event_time - s.watermark_delay) AT TIME ZONE 'UTC')::pg_catalog.text "
					   "FROM stream_ckpt.checkpoint_offset o JOIN stream_ckpt.stream s ON s.relid = o.source "
					   "WHERE query_id = $1", 1, types, values, NULL);
	if (SPI_processed == 0)
		return NULL;
	refuse(query, DatumGetInt64(sc_first_value(1, NULL)), "%lld late rows were dropped.");
	refuse(query, DatumGetInt64(sc_first_value(2, NULL)), "%lld updates of the stream were ignored.");
	refuse(query, DatumGetInt64(sc_first_value(3, NULL)), "%lld deletes of the stream were ignored.");
	refuse(query, DatumGetInt64(sc_first_value(4, NULL)), "%lld truncations of the stream were ignored.");
	values[0] = sc_first_value(5, &isnull);
	return isnull ? NULL : TextDatumGetCString(values[0]);
}

/* The columns of a row in a form that EXCEPT can compare; floats up to rounding. */
static char *
compared_columns(ScDefinition *definition)
{
	StringInfoData columns;
	ListCell   *lc;

	initStringInfo(&columns);
	foreach(lc, definition->target)
	{
		TargetEntry *target = lfirst(lc);
		Oid			type = exprType((Node *) target->expr);
		const char *name = quote_identifier(target->resname);

		if (columns.len > 0)
			appendStringInfoString(&columns, ", ");
		if (type == FLOAT4OID || type == FLOAT8OID)
			appendStringInfo(&columns, "pg_catalog.to_char(%s, '%s')", name,
							 type == FLOAT4OID ? "9.9999EEEE" : "9.99999999EEEE");
		else if (!OidIsValid(lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr))
			appendStringInfo(&columns, "%s::pg_catalog.text", name);
		else
			appendStringInfoString(&columns, name);
	}
	return columns.data;
}

/* A condition on the result's columns that holds for closed windows. */
static char *
closed_condition(ScQuery *query, ScDefinition *definition, const char *watermark)
{
	static const char *const ends[] = {
		"%s + pg_catalog.make_interval(secs => %.6f)", "%s",
		"%s + '1 microsecond'::pg_catalog.interval"
	};
	ListCell   *lc;

	foreach(lc, definition->target)
	{
		TargetEntry *target = lfirst(lc);
		Var		   *var = (Var *) target->expr;
		char	   *end;

		if (!IsA(var, Var) || var->varattno > SC_WINDOW_COLUMNS)
			continue;
		end = var->varattno == SC_WINDOW_START ?
			psprintf(ends[0], quote_identifier(target->resname), definition->window.size / 1e6) :
			psprintf(ends[var->varattno - 1], quote_identifier(target->resname));
		return psprintf("%s <= %s'%s%s'", end,
						var->vartype == TIMESTAMPTZOID ? "timestamptz " : "timestamp ",
						watermark, var->vartype == TIMESTAMPTZOID ? "+00" : "");
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the batch truth of \"%s\" cannot be had", get_rel_name(query->relid)),
			 errdetail("Its select list has no column of the window, so closed windows cannot be told from open ones.")));
}

/* Applies the query's settings until the caller's nest level ends. */
static void
apply_settings(ScQuery *query)
{
	ListCell   *lc = list_head(query->settings);

	while (lc)
	{
		char	   *name = lfirst(lc);

		lc = lnext(query->settings, lc);
		(void) set_config_option(name, lfirst(lc), PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		lc = lnext(query->settings, lc);
	}
}

/* verify(query regclass) -> bigint; "query": the result table or the definition. */
Datum
stream_ckpt_verify(PG_FUNCTION_ARGS)
{
	ScQuery    *query;
	ScDefinition *definition;
	char	   *watermark;
	char	   *condition = "true";
	char	   *columns;
	char	   *result;
	char	   *truth;
	int64		differences = 0;
	int			nest_level;

	sc_refuse_in_worker("verify()");
	query = sc_query_by_relid(PG_GETARG_OID(0), false);
	definition = sc_definition_load(query->definition, query->emit);
	SPI_connect();
	watermark = check_counters(query);
	if (query->emit == SC_EMIT_CLOSE)
		condition = watermark ? closed_condition(query, definition, watermark) : "false";
	columns = compared_columns(definition);
	result = psprintf("SELECT %s FROM %s WHERE %s", columns, sc_qualified_name(query->relid),
					  query->emit == SC_EMIT_CLOSE && watermark == NULL ? "true" : condition);
	truth = psprintf("SELECT %s FROM %s WHERE %s", columns,
					 sc_qualified_name(query->definition), condition);

	nest_level = NewGUCNestLevel();
	apply_settings(query);
	if (SPI_execute(psprintf("SELECT (SELECT pg_catalog.count(*) FROM (%s EXCEPT ALL %s) a) + "
							 "(SELECT pg_catalog.count(*) FROM (%s EXCEPT ALL %s) b)",
							 result, truth, truth, result), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not compare the result with its definition");
	differences = DatumGetInt64(sc_first_value(1, NULL));
	AtEOXact_GUC(false, nest_level);
	SPI_finish();
	PG_RETURN_INT64(differences);
}
