/*-------------------------------------------------------------------------
 * explain_query.c
 *	  explain_query: what becomes of a definition, line by line, before anything is created; or of a
 *	  query that is there.
 *
 * A text is analyzed and compiled as create_query does it, as the caller; a query's definition as its owner, whose code
 * may run then.  Nothing of that remains.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "api/api_internal.h"
#include "base/env.h"
#include "base/process.h"
#include "base/subtransaction.h"
#include "catalog/namespace.h"
#include "exec/engine.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "query/access.h"
#include "query/analyze.h"
#include "query/parse.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"
#include "worker/frame/placement.h"

PG_FUNCTION_INFO_V1(stream_ckpt_explain_query);

typedef struct Explanation
{
	const char *text;			/* of the definition; NULL: that of "query" */
	ScQuery    *query;			/* its options; of a text made up */
	ScDefinition *definition;
	ScPipeline *pipeline;
	List	   *names;			/* for deparsing */
	List	   *lines;			/* of char * */
	MemoryContext context;		/* of the lines */
} Explanation;

static void pg_attribute_printf(2, 3)
add_line(Explanation *explanation, const char *format,...)
{
	MemoryContext old = MemoryContextSwitchTo(explanation->context);
	StringInfoData line;

	initStringInfo(&line);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&line, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&line, needed);
	}
	explanation->lines = lappend(explanation->lines, line.data);
	MemoryContextSwitchTo(old);
}

/* An expression of the definition, as SQL; if there are joins, with the names of their items. */
static char *
sql_of(Explanation *explanation, Node *expr)
{
	return deparse_expression(expr, explanation->names, explanation->definition->source != NULL, false);
}

/* Microseconds as an interval. */
static char *
interval_text(int64 usecs)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = usecs;
	interval = DatumGetIntervalP(DirectFunctionCall1(interval_justify_hours, IntervalPGetDatum(interval)));
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

/* What deparse_expression needs for the definition's range table. */
static void
name_relations(Explanation *explanation)
{
	PlannedStmt *statement = makeNode(PlannedStmt);
	Bitmapset  *all = NULL;
	List	   *table = explanation->definition->written.query->rtable;

	for (int i = 1; i <= list_length(table); i++)
		all = bms_add_member(all, i);
	statement->rtable = table;
	explanation->names = deparse_context_for_plan_tree(statement, select_rtable_names_for_explain(table, all));
}

/* Of a query that is there; or by default. */
static bool
begins_with_history(const Explanation *explanation, const ScStream *stream)
{
	return explanation->text ? sc_stream_has_history(stream) : explanation->query->backfill;
}

static void
explain_stream(Explanation *explanation)
{
	const ScDefinition *definition = explanation->definition;
	ScStream   *stream = sc_stream_by_relid(definition->stream_relid, false);
	List	   *quals = definition->written.quals;

	add_line(explanation, "Stream: %s", sc_qualified_name(stream->relid));
	if (definition->processing_time && sc_assigner_has_windows(&definition->window))
		add_line(explanation, "  event time: the time of the commit, watermark_delay %s",
				 interval_text(stream->options.watermark_delay));
	if (AttributeNumberIsValid(definition->event_time_attno))
		add_line(explanation, "  event time: %s, watermark_delay %s",
				 quote_identifier(get_attname(stream->relid, definition->event_time_attno, false)),
				 interval_text(stream->options.watermark_delay));
	add_line(explanation, "  begins: with the rows %s", begins_with_history(explanation, stream) ? "that it holds" : "committed after the query");
	if (quals != NIL)
		add_line(explanation, "  filter: %s", sql_of(explanation, (Node *) make_ands_explicit(quals)));
}

/* The step of windows that cumulate by a calendar. */
static const char *
step_text(const ScAssigner *assigner)
{
	Interval   *interval = palloc0(sizeof(Interval));

	if (assigner->step_unit == 0)
		return interval_text(assigner->slide);
	if (assigner->step_unit == DTK_MONTH)
		interval->month = assigner->slide;
	else
		interval->day = assigner->slide;
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

/* What a window's rows are accumulated in. */
static const char *
panes_text(const ScAssigner *assigner)
{
	if (assigner->kind == SC_WINDOW_SESSION)
		return "one of all time, a session is a group of it";
	if (!sc_assigner_is_shared(assigner))
		return "one for each window";
	if (assigner->kind == SC_WINDOW_CUMULATE && assigner->unit != 0)
		return psprintf("%s each, the last one cut; the first ones of a full window are combined", step_text(assigner));
	if (assigner->kind == SC_WINDOW_CUMULATE)
		return psprintf("%s each, the first 1 to %lld of a full window are combined", interval_text(assigner->pane),
						(long long) (assigner->size / assigner->pane));
	return psprintf("%s each, %lld are combined to a window", interval_text(assigner->pane),
					(long long) (assigner->size / assigner->pane));
}

static void
explain_window(Explanation *explanation)
{
	const ScDefinition *definition = explanation->definition;
	const ScQuery *query = explanation->query;

	if (definition->stateless)
	{
		if (sc_assigner_has_windows(&definition->window))
			add_line(explanation, "Window: %s, a row for each that holds the stream's row", sql_of(explanation, definition->written.window));
		add_line(explanation, "State: none");
		return;
	}
	if (!sc_assigner_has_windows(&definition->window))
	{
		add_line(explanation, "Window: none, groups never close");
		if (query->ttl > 0)
			add_line(explanation, "  state: until the watermark is %s past a group's last row",
					 interval_text(query->ttl));
		return;
	}
	add_line(explanation, "Window: %s", sql_of(explanation, definition->written.window));
	add_line(explanation, "  panes: %s", panes_text(&definition->window));
	if (definition->window.kind == SC_WINDOW_SESSION)
		add_line(explanation, "  closed: remembered for %s more, and as long as the key's next session is open",
				 interval_text(definition->window.size));
	if (query->allowed_lateness > 0)
		add_line(explanation, "  state: until the watermark is %s past the window's end",
				 interval_text(query->allowed_lateness));
	else
		add_line(explanation, "  state: until the watermark is past the window's end");
}

static void
explain_keys(Explanation *explanation)
{
	ListCell   *lc;

	foreach(lc, explanation->definition->written.keys)
		add_line(explanation, "Key: %s", sql_of(explanation, lfirst(lc)));
	foreach(lc, explanation->definition->written.sets)
	{
		List	   *items = lfirst(lc);

		add_line(explanation, "Grouping set: (%s)", items == NIL ? "" : sql_of(explanation, (Node *) items));
	}
}

/* Which rows of a group are kept, in place of the aggregate that keeps them. */
static void
explain_best_rows(Explanation *explanation, const ScEngine *engine)
{
	const ScDefinition *definition = explanation->definition;
	StringInfoData order;
	ListCell   *lc;

	initStringInfo(&order);
	foreach(lc, definition->written.best_order)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Node	   *expr = get_sortgroupclause_expr(clause, definition->written.query->targetList);

		appendStringInfo(&order, "%s%s", order.len > 0 ? ", " : "", sql_of(explanation, expr));
		if (clause->sortop == lookup_type_cache(exprType(expr), TYPECACHE_GT_OPR)->gt_opr)
			appendStringInfoString(&order, " DESC");
	}
	if (definition->best->ranking != SC_ROW_NUMBER)
		add_line(explanation, "Rows: of each group those with a %srank up to %d by %s",
				 definition->best->ranking == SC_DENSE_RANK ? "dense " : "", definition->best->n, order.data);
	else if (order.len > 0)
		add_line(explanation, "Rows: of each group the first %d by %s", definition->best->n, order.data);
	else
		add_line(explanation, "Rows: of each group the first %d that come", definition->best->n);
	if (!definition->retracts)
		add_line(explanation, "  state: these rows, with %d columns beside the keys", definition->best->ncolumns);
	else
		/* if one of the best goes, any other can be the next one */
		add_line(explanation, "  state: all rows of a group, with %d columns beside the keys: %s", definition->best->ncolumns,
				 sc_engine_describe_state(engine, 0));
}

/* A plan of PostgreSQL's, if there is one. */
static void
explain_plan(Explanation *explanation, const char *title, char *plan)
{
	if (plan == NULL)
		return;
	add_line(explanation, "%s", title);
	for (char *line = strtok(plan, "\n"); line != NULL; line = strtok(NULL, "\n"))
		add_line(explanation, "  %s", line);
}

/* Compiles the definition as a task would, with all of its errors. */
static void
explain_engine(Explanation *explanation)
{
	const ScDefinition *definition = explanation->definition;
	const ScQuery *query = explanation->query;
	ScEngineOptions options = {.emit = definition->emit,.allowed_lateness = query->allowed_lateness,
		.ttl = query->ttl};
	Relation	stream = table_open(definition->stream_relid, AccessShareLock);
	ScEngine   *engine;

	engine = sc_engine_create(CurrentMemoryContext, definition, RelationGetDescr(stream), &options);

	/* as it is planned now for many rows */
	explain_plan(explanation, "Source part: for the rows of each message, tables as they are then",
				 sc_engine_explain_source(engine));
	if (definition->best != NULL)
		explain_best_rows(explanation, engine);
	for (int i = 0; definition->best == NULL && i < definition->naggs; i++)
	{
		add_line(explanation, "Aggregate: %s", sql_of(explanation, (Node *) definition->aggs[i].written));
		add_line(explanation, "  state: %s", sc_engine_describe_state(engine, i));
	}
	if (definition->written.query->havingQual != NULL)
		add_line(explanation, "Having: %s", sql_of(explanation, definition->written.query->havingQual));
	/* where the core's rows are called by the alias that they have */
	explain_plan(explanation, "Upper part: once for each window that is emitted, over its groups",
				 sc_engine_explain_upper(engine));
	sc_engine_free(engine);
	table_close(stream, NoLock);
}

/* The columns by which a result row is known. */
static char *
result_key(const ScDefinition *definition)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < definition->nresult_key; i++)
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(list_nth_node(TargetEntry, definition->target, definition->result_key[i] - 1)->resname));
	return text.data;
}

static const char *
emit_text(const Explanation *explanation)
{
	switch (explanation->definition->emit)
	{
		case SC_EMIT_UPDATE:
			return "update (what has changed, at each checkpoint)";
		case SC_EMIT_ROWS:
			return "rows (each that passes the filter, with the checkpoint that covers it)";
		default:
			return explanation->query->allowed_lateness > 0 ?
				"close (a window when it closes, and what late rows change of it)" : "close (a window when it closes)";
	}
}

static void
explain_result(Explanation *explanation)
{
	const ScDefinition *definition = explanation->definition;

	add_line(explanation, "Emit: %s", emit_text(explanation));
	if (definition->upper != NULL)
		add_line(explanation, "Result: rows of a window, known by %s",
				 quote_identifier(list_nth_node(TargetEntry, definition->upper->target, definition->result_window - 1)->resname));
	else if (definition->one_row)
		add_line(explanation, "Result: one row");
	else if (definition->nresult_key > 0)
		add_line(explanation, "Result: a row for each (%s)", result_key(definition));
	else
		add_line(explanation, "Result: rows that no key tells apart");
	add_line(explanation, "Tasks: %d of the pipeline's %d",
			 sc_placement_size(explanation->query->parallelism, explanation->pipeline->parallelism),
			 explanation->pipeline->parallelism);
}

static void
explain_definition(Explanation *explanation)
{
	name_relations(explanation);
	explain_stream(explanation);
	explain_window(explanation);
	explain_keys(explanation);
	explain_engine(explanation);
	explain_result(explanation);
}

/* A step of which nothing is to remain. */
static bool
explain_text(void *arg)
{
	Explanation *explanation = arg;
	SelectStmt *select;
	Query	   *parsed = sc_definition_parse(explanation->text, &select);

	explanation->definition = sc_definition_analyze(parsed, explanation->text, InvalidOid, explanation->query->emit,
													explanation->query->allowed_lateness,
													explanation->query->ttl);
	sc_check_relations(parsed);
	sc_check_query_parallelism(explanation->pipeline, explanation->definition, explanation->query->parallelism,
							   false);
	explain_definition(explanation);
	return false;
}

static bool
explain_query(void *arg)
{
	Explanation *explanation = arg;
	ScEnv		env;

	sc_env_enter(&env, explanation->query->owner, explanation->query->settings);
	explanation->definition = sc_definition_load(explanation->query);
	explain_definition(explanation);
	sc_env_leave(&env);
	return false;
}

/* The query that "text" names, for those who may read its definition; NULL: it isn't a name. */
static ScQuery *
named_query(const char *text)
{
	Oid			relid;
	ScQuery    *query;
	AclResult	result;

	if (sc_looks_like_select(text))
		return NULL;
	relid = RangeVarGetRelid(sc_arg_relation(text), AccessShareLock, false);
	query = sc_query_by_relid(relid, false);
	result = pg_class_aclcheck(query->definition, GetUserId(), ACL_SELECT);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_VIEW, get_rel_name(query->definition));
	return query;
}

/* The options of a query that is to be. */
static ScQuery *
wanted_query(FunctionCallInfo fcinfo)
{
	ScQuery    *query = palloc0(sizeof(ScQuery));

	query->emit = sc_arg_emit(fcinfo, 1);
	query->allowed_lateness = sc_arg_reach(fcinfo, 2, "allowed_lateness");
	query->parallelism = sc_arg_parallelism(fcinfo, 3);
	return query;
}

/*
 * explain_query(query text, emit text, allowed_lateness interval, parallelism integer) -> setof text.  The last three
 * are those of create_query(), for a text.
 */
Datum
stream_ckpt_explain_query(PG_FUNCTION_ARGS)
{
	Explanation explanation = {0};
	ErrorData  *error;
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	sc_refuse_in_worker("explain_query()");
	explanation.text = sc_arg_text(fcinfo, 0, "query");
	explanation.query = named_query(explanation.text);
	if (explanation.query != NULL)
	{
		explanation.text = NULL;
		explanation.pipeline = sc_pipeline_by_id(explanation.query->pipeline_id, false);
	}
	else
	{
		explanation.query = wanted_query(fcinfo);
		explanation.pipeline = sc_usable_pipeline("default");
	}
	explanation.context = CurrentMemoryContext;
	error = sc_subtransaction_try(explanation.text ? explain_text : explain_query, &explanation, NULL);
	if (error != NULL)
	{
		sc_definition_explain(error);
		ReThrowError(error);
	}
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, explanation.lines)
	{
		Datum		value = CStringGetTextDatum(lfirst(lc));
		bool		null = false;

		tuplestore_putvalues(result->setResult, result->setDesc, &value, &null);
	}
	return (Datum) 0;
}
