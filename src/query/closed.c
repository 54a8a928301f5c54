/*-------------------------------------------------------------------------
 * closed.c
 *	  Which rows of a result are those of windows that a watermark closes, or of given ones, in SQL (closed.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "base/compat.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "query/closed.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "window/assigner.h"

char *
sc_sql_literal(Oid type, Datum value)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(type, &output, &varlena);
	return psprintf("%s::%s", quote_literal_cstr(OidOutputFunctionCall(output, value)),
					format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY));
}

/* What the definition shows of a window's start. */
static Datum
shown_start(const ScDefinition *definition, int64 start)
{
	ExprContext *econtext = CreateStandaloneExprContext();
	TupleDesc	desc = CreateTemplateTupleDesc(1);
	bool		isnull;

	if (definition->window_value == NULL)
		return Int64GetDatum(start);
	TupleDescInitEntry(desc, SC_WINDOW_START, "window_start", definition->event_time_type, -1, 0);
	TupleDescFinalize(desc);
	econtext->ecxt_outertuple = ExecStoreAllNullTuple(MakeSingleTupleTableSlot(desc, &TTSOpsVirtual));
	econtext->ecxt_outertuple->tts_values[0] = Int64GetDatum(start);
	econtext->ecxt_outertuple->tts_isnull[0] = false;
	return ExecEvalExpr(ExecInitExpr(definition->window_value, NULL), econtext, &isnull);
}

/* A value of the result's column that tells windows apart, in SQL; "value" is one of the window's column. */
static char *
shown_value(const ScDefinition *definition, int64 value)
{
	TargetEntry *target = list_nth_node(TargetEntry, sc_result_target(definition), definition->result_window - 1);

	return sc_sql_literal(exprType((Node *) target->expr),
						  definition->result_window_kind == SC_WINDOW_START ? shown_start(definition, value) : Int64GetDatum(value));
}

char *
sc_definition_in_ranges(const ScDefinition *definition, const char *column, const ScRangeSet *ranges)
{
	StringInfoData condition;

	initStringInfo(&condition);
	for (int i = 0; i < ranges->n; i++)
	{
		ScWindowRange range = ranges->ranges[i];
		ScWindowRange values = sc_assigner_column_range(&definition->window, definition->result_window_kind, range);

		appendStringInfo(&condition, "%strue", i > 0 ? " OR " : "");
		/* the first one can have no beginning, the last one no end */
		if (range.end != PG_INT64_MAX)
			appendStringInfo(&condition, " AND %s OPERATOR(pg_catalog.<=) %s", column, shown_value(definition, values.end));
		if (range.start != PG_INT64_MIN)
			appendStringInfo(&condition, " AND %s OPERATOR(pg_catalog.>=) %s", column, shown_value(definition, values.start));
	}
	return ranges->n > 0 ? condition.data : pstrdup("false");
}

char *
sc_definition_closed(const ScDefinition *definition, const char *column, int64 watermark)
{
	int64		greatest;

	if (!sc_assigner_last_closed(&definition->window, definition->result_window_kind, watermark, &greatest))
		return pstrdup("false");
	return psprintf("%s OPERATOR(pg_catalog.<=) %s", column, shown_value(definition, greatest));
}
