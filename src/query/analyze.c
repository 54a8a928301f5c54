/*-------------------------------------------------------------------------
 * analyze.c
 *	  Accepts or refuses a definition: the order of the steps, and loading a
 *	  stored one.
 *
 * A definition comes twice: fresh from its text, when the query is created, with
 * positions for errors; and from the rule of its view, each time that a worker
 * starts or something that it depends on has changed.  Both go through the same steps, because ALTER and CREATE OR REPLACE
 * VIEW can have changed what a view says.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "query/analyze.h"
#include "query/query_internal.h"
#include "query/stream_key.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

static bool
has_join(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		if (lfirst_node(RangeTblEntry, lc)->rtekind == RTE_JOIN)
			return true;
	}
	return false;
}

/* Columns that name an expression of GROUP BY (18) become what they stand for. */
static void
flatten_groups(ScAnalysis *an)
{
	Query	   *query = an->query;

	query->targetList = (List *)
		sc_flatten_group_exprs(query, (Node *) query->targetList);
	query->havingQual = sc_flatten_group_exprs(query, query->havingQual);
}

/* Columns that name a column of a join become what they stand for. */
static void
flatten_aliases(ScAnalysis *an)
{
	Query	   *query = an->query;

	if (has_join(query))
	{
		query->targetList = (List *)
			sc_flatten_join_alias_vars(query, (Node *) query->targetList);
		query->havingQual = sc_flatten_join_alias_vars(query, query->havingQual);
		an->quals = (List *)
			sc_flatten_join_alias_vars(query, (Node *) an->quals);
	}
}

/* The stream's virtual generated columns (18) become their expressions. */
static void
expand_generated(ScAnalysis *an)
{
	Query	   *query = an->query;
	Relation	stream = relation_open(an->stream->relid, AccessShareLock);

	query->targetList = (List *)
		sc_expand_generated((Node *) query->targetList, stream, an->stream_varno);
	query->havingQual = sc_expand_generated(query->havingQual, stream, an->stream_varno);
	an->quals = (List *)
		sc_expand_generated((Node *) an->quals, stream, an->stream_varno);
	relation_close(stream, AccessShareLock);
}

static void
refuse_lateness(ScAnalysis *an)
{
	if (an->allowed_lateness > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 an->def->stateless ? errmsg("allowed_lateness needs GROUP BY or aggregates") :
				 errmsg("allowed_lateness needs a window"),
				 an->def->stateless ? errdetail("Without them no row is late: each that passes WHERE becomes a row of the result.") :
				 errdetail("Without a window no row is late: every row counts."),
				 errhint("Leave it out."),
				 sc_errposition(an, sc_from_item_location(an, 0))));
}

/* Has the definition no groups, so that each row is for itself? */
static bool
is_stateless(ScAnalysis *an)
{
	Query	   *query = an->query;

	return an->best == NULL && query->groupClause == NIL && query->groupingSets == NIL && !query->hasAggs &&
		query->havingQual == NULL;
}

/* The same for one that has no groups.  Fails if it was asked for what only a query with groups can do. */
static void
choose_emit_of_rows(ScAnalysis *an)
{
	ScEmit		emit = an->def->retracts ? SC_EMIT_UPDATE : SC_EMIT_ROWS;

	if (an->emit != SC_EMIT_DEFAULT && an->emit != emit)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("emit '%s' needs GROUP BY or aggregates", sc_emit_name(an->emit)),
				 an->def->retracts ?
				 errdetail("Without them each row that passes WHERE is a row of the result, as long as it is there.") :
				 errdetail("Without them each row that passes WHERE becomes a row of the result, once."),
				 an->source_text != NULL ? errhint("Leave it out.") :
				 errhint("The definition was changed: drop the query with stream_ckpt.drop_query(), and create it again."),
				 sc_errposition(an, sc_from_item_location(an, 0))));
	refuse_lateness(an);
	an->emit = emit;
}

/*
 * Takes what was left out by what the definition is.  Fails if it was asked for what only a query with
 * windows can do.
 */
static void
choose_emit_of_groups(ScAnalysis *an)
{
	bool		windows = sc_assigner_has_windows(&an->def->window);

	if (an->emit == SC_EMIT_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the definition has GROUP BY or aggregates, which it had not when the query was created"),
				 errhint("Drop the query with stream_ckpt.drop_query(), and create it again.")));
	if (an->emit == SC_EMIT_DEFAULT)
		an->emit = windows ? SC_EMIT_CLOSE : SC_EMIT_UPDATE;
	if (!windows && an->emit == SC_EMIT_CLOSE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("emit 'close' needs a window"),
				 errdetail("Without a window no group is ever closed."),
				 errhint("Leave it out, or use emit => 'update'; or add a window to FROM, as in FROM %s, stream_ckpt.tumble(event_time, '1 minute') w, and group by w.window_start.",
						 quote_identifier(get_rel_name(an->stream->relid))),
				 sc_errposition(an, sc_from_item_location(an, 0))));
	if (!windows)
		refuse_lateness(an);
}

static void
choose_emit(ScAnalysis *an)
{
	an->def->stateless = is_stateless(an);
	if (an->def->stateless)
		choose_emit_of_rows(an);
	else
		choose_emit_of_groups(an);
	an->def->emit = an->emit;
}

/* A ttl is for groups that nothing else ends, and by the stream's event time. */
static void
check_ttl(ScAnalysis *an)
{
	bool		windows = sc_assigner_has_windows(&an->def->window);

	if (an->ttl == 0)
		return;
	if (windows || an->def->stateless || an->query->groupClause == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 windows ? errmsg("ttl is for queries without a window") : errmsg("ttl needs GROUP BY"),
				 windows ? errdetail("The state of a window goes when the window is over.") :
				 errdetail("It is how long the state of a group is kept after its last row."),
				 windows ? errhint("Leave it out, or use allowed_lateness to keep state for longer.") :
				 errhint("Leave it out."),
				 sc_errposition(an, sc_from_item_location(an, 0))));
	if (an->query->groupingSets != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ttl is not supported with grouping sets"),
				 errhint("Leave it out, or create one continuous query for each set of keys."),
				 sc_errposition(an, sc_from_item_location(an, 0))));
	if (an->best != NULL && (an->best->n > 1 || an->best->ranking != SC_ROW_NUMBER))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ttl is not supported with several rows of a group"),
				 errdetail("A group that comes back begins with one row, and the others of before would stay."),
				 errhint("Leave it out, or use DISTINCT ON."),
				 sc_errposition(an, sc_from_item_location(an, 0))));
	if (an->stream->event_time_attno == InvalidAttrNumber && !an->stream->processing_time)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" has no event time", get_rel_name(an->stream->relid)),
				 errdetail("A ttl is a length of event time."),
				 errhint("Leave it out, or make a stream with an event_time, or with processing_time."),
				 sc_errposition(an, sc_from_item_location(an, 0))));
	an->def->ttl_attno = an->stream->event_time_attno;
}

/* The items of GROUP BY of each grouping set. */
static List *
written_sets(ScAnalysis *an)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, an->sets)
	{
		List	   *items = NIL;
		ListCell   *lc_ref;

		foreach(lc_ref, (List *) lfirst(lc))
			items = lappend(items, get_sortgroupref_tle(lfirst_int(lc_ref), an->query->targetList)->expr);
		result = lappend(result, items);
	}
	return result;
}

static void
note_written(ScAnalysis *an)
{
	ScWritten  *written = &an->def->written;

	written->query = an->query;
	written->window = an->window_call != NULL ? (Node *) an->window_call : an->window_item;
	written->quals = an->quals;
	written->keys = an->key_exprs;
	written->sets = written_sets(an);
	written->best_order = an->best_order;
}

/* A table can't have columns of pseudo-types, as the result would. */
static void
check_result_types(ScAnalysis *an, List *target)
{
	ListCell   *lc;

	foreach(lc, target)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		Oid			type = exprType((Node *) entry->expr);

		if (entry->resjunk || get_typtype(type) != TYPTYPE_PSEUDO)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("column \"%s\" has pseudo-type %s", entry->resname, format_type_be(type)),
				 errdetail("No table can have such a column, as the result would."),
				 type == RECORDOID || type == RECORDARRAYOID ?
				 errhint("Write the columns one by one, or cast the row to a composite type: ROW(a, b)::pair.") :
				 errhint("Cast it to a type that tables can have."),
				 sc_errposition(an, exprLocation((Node *) entry->expr))));
	}
}

ScDefinition *
sc_definition_analyze(Query *query, const char *source_text, Oid view, ScEmit emit, int64 allowed_lateness, int64 ttl)
{
	ScAnalysis	an;

	memset(&an, 0, sizeof(an));
	an.query = copyObject(query);
	an.source_text = source_text;
	an.view = view;
	an.core_location = -1;
	an.outer_location = -1;
	an.grouping = "GROUP BY";
	an.emit = emit;
	an.allowed_lateness = allowed_lateness;
	an.ttl = ttl;
	an.def = palloc0(sizeof(ScDefinition));

	sc_rewrite_best_rows(&an);
	if (an.best == NULL)
		sc_find_core(&an);
	flatten_groups(&an);
	sc_check_clauses(&an);
	sc_analyze_from(&an);
	sc_check_with(&an);
	an.def->stream_relid = an.stream->relid;
	an.def->processing_time = an.stream->processing_time;
	an.def->retracts = an.stream->applies;
	flatten_aliases(&an);
	expand_generated(&an);
	sc_check_expressions(&an);
	sc_analyze_window(&an);
	choose_emit(&an);
	check_ttl(&an);
	sc_check_changes(&an);
	sc_note_dependencies(&an);
	sc_split_definition(&an);
	sc_note_planned_dependencies(&an);
	note_written(&an);
	if (an.upper != NULL)
		sc_plan_upper(&an);
	check_result_types(&an, query->targetList);
	return an.def;
}

/* Of a row that is joined with several, some may have been added when another fails. */
void
sc_definition_check_dead_letter(const ScDefinition *definition, bool dead_letter)
{
	if (!dead_letter || definition->source == NULL || definition->ttl_attno == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("on_error => 'dead_letter' is not supported with a ttl and joins"),
			 errdetail("A row that fails could not be taken back from all groups of the rows that it is joined with."),
			 errhint("Leave one of them out.")));
}

bool
sc_definition_is_current(const ScQuery *query, const ScDefinition *def)
{
	Relation	rel = try_relation_open(query->definition, AccessShareLock);
	bool		result = true;

	if (rel == NULL)
		return true;
	if (rel->rd_rel->relkind == RELKIND_VIEW)
		result = equal(get_view_query(rel), def->rule);
	relation_close(rel, AccessShareLock);
	return result;
}

ScDefinition *
sc_definition_load(const ScQuery *query)
{
	Relation	rel = relation_open(query->definition, AccessShareLock);
	Query	   *parsed;
	ScDefinition *def;

	if (rel->rd_rel->relkind != RELKIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a view", RelationGetRelationName(rel)),
				 errhint("The definition of a continuous query is kept as a view.")));

	/* locks the stream, and marks columns of joins that were dropped */
	parsed = copyObject(get_view_query(rel));
	AcquireRewriteLocks(parsed, true, false);
	def = sc_definition_analyze(parsed, NULL, query->definition, query->emit, query->allowed_lateness, query->ttl);
	def->rule = copyObject((Node *) get_view_query(rel));
	relation_close(rel, AccessShareLock);
	if (def->stream_relid != query->stream_relid)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the definition of continuous query \"%s\" reads another stream than the query",
						get_rel_name(query->relid)),
				 errhint("Drop the query with stream_ckpt.drop_query(), and create it again.")));
	return def;
}

/* ---------- what identifies a result row ---------- */

/* Is it a column of the window?  Those of one row have one value for each window, any of them. */
static bool
is_window_column(Query *query, TargetEntry *target)
{
	Var		   *var = (Var *) target->expr;

	return IsA(var, Var) && var->varlevelsup == 0 && sc_calls_window_function(rt_fetch(var->varno, query->rtable));
}

/* Does the column tell its window from all others? */
static bool
identifies_window(Query *query, TargetEntry *target)
{
	Var		   *var = (Var *) target->expr;
	FuncExpr   *call;
	ScAssigner	assigner = {0};

	if (!is_window_column(query, target))
		return false;
	call = castNode(FuncExpr, linitial_node(RangeTblFunction, rt_fetch(var->varno, query->rtable)->functions)->funcexpr);
	return sc_window_function_kind(call->funcid, &assigner.kind) &&
		sc_assigner_is_identified_by(&assigner, var->varattno);
}

/* The target of a result column (from 0). */
static TargetEntry *
result_target(Query *query, int column)
{
	return list_nth_node(TargetEntry, query->targetList, column);
}

/* Does the target show the item of GROUP BY?  The item can have been written for another one of the same expression. */
static bool
shows_item(Query *query, TargetEntry *target, SortGroupClause *item)
{
	return target->ressortgroupref == item->tleSortGroupRef ||
		equal(target->expr, get_sortgroupclause_expr(item, query->targetList));
}

/* Does it show any of them? */
static bool
is_grouped(Query *query, TargetEntry *target)
{
	ListCell   *lc;

	foreach(lc, query->groupClause)
	{
		if (shows_item(query, target, lfirst_node(SortGroupClause, lc)))
			return true;
	}
	return false;
}

/* Is the item of GROUP BY shown by one of the columns? */
static bool
is_covered(Query *query, SortGroupClause *item, const int *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		if (shows_item(query, result_target(query, columns[i]), item))
			return true;
	}
	return false;
}

/* Has it a window function in FROM? */
static bool
has_window(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		if (sc_calls_window_function(lfirst_node(RangeTblEntry, lc)))
			return true;
	}
	return false;
}

/*
 * Do the columns identify rows of a query without groups: are they just a key of the stream, and of its windows,
 * if it has any?  If nothing is retracted none is ever looked for.
 */
static bool
identifies_rows(Query *query, const int *columns, int ncolumns)
{
	Oid			relid = InvalidOid;
	const ScStream *stream;
	bool		window = false;
	Bitmapset  *asked = NULL;

	for (int i = 0; i < ncolumns; i++)
	{
		TargetEntry *target = result_target(query, columns[i]);
		Var		   *var = (Var *) target->expr;

		window |= identifies_window(query, target);
		if (is_window_column(query, target))
			continue;
		if (!IsA(var, Var) || var->varlevelsup > 0 || var->varattno <= 0 ||
			rt_fetch(var->varno, query->rtable)->rtekind != RTE_RELATION)
			return false;
		relid = rt_fetch(var->varno, query->rtable)->relid;
		asked = bms_add_member(asked, var->varattno);
	}
	stream = sc_stream_by_relid(relid, true);
	return stream != NULL && stream->applies && window == has_window(query) && asked != NULL &&
		sc_is_stream_key(relid, asked);
}

char *
sc_definition_row_key(Oid view)
{
	Relation	rel = relation_open(view, AccessShareLock);
	ScAnalysis	an = {.query = copyObject(get_view_query(rel))};
	Query	   *query = an.query;
	StringInfoData names;
	Bitmapset  *shown = NULL;
	Bitmapset  *all;
	Bitmapset  *key;
	Oid			relid = InvalidOid;
	Oid			index;
	ListCell   *lc;

	relation_close(rel, NoLock);
	if (!is_stateless(&an) || query->distinctClause != NIL || sc_has_upper_part(query))
		return NULL;
	foreach(lc, query->targetList)
	{
		Var		   *var = (Var *) lfirst_node(TargetEntry, lc)->expr;

		if (!IsA(var, Var) || var->varattno <= 0 || rt_fetch(var->varno, query->rtable)->rtekind != RTE_RELATION)
			continue;
		relid = rt_fetch(var->varno, query->rtable)->relid;
		shown = bms_add_member(shown, var->varattno);
	}
	key = sc_stream_key(relid, shown, view, &index, &all);
	if (key == NULL)
		return NULL;
	initStringInfo(&names);
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) target->expr;

		if (identifies_window(query, target) ||
			(IsA(var, Var) && var->varattno > 0 && rt_fetch(var->varno, query->rtable)->relid == relid &&
			 bms_is_member(var->varattno, key)))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", quote_identifier(target->resname));
	}
	return names.data;
}

bool
sc_definition_identifies(Oid view, const int *columns, int ncolumns)
{
	Relation	rel = relation_open(view, AccessShareLock);
	ScAnalysis	an;
	bool		window = false;
	bool		number = false;
	bool		result = true;
	ListCell   *lc;

	memset(&an, 0, sizeof(an));
	an.query = copyObject(get_view_query(rel));
	relation_close(rel, NoLock);
	sc_rewrite_best_rows(&an);
	sc_rewrite_distinct(&an, an.query);
	/* rows of what is above groups, or with a rank, aren't identified by anything */
	if ((an.best == NULL && sc_has_upper_part(an.query)) || (an.best != NULL && an.best->ranking != SC_ROW_NUMBER))
		return false;
	flatten_groups(&an);
	flatten_aliases(&an);
	if (is_stateless(&an))
		return identifies_rows(an.query, columns, ncolumns);

	for (int i = 0; result && i < ncolumns; i++)
	{
		TargetEntry *target = result_target(an.query, columns[i]);

		if (IsA(target->expr, GroupingFunc))
			continue;
		if (an.best != NULL && IsA(target->expr, WindowFunc))
		{
			number = true;
			continue;
		}
		result = is_grouped(an.query, target);
		window |= result && identifies_window(an.query, target);
	}
	foreach(lc, an.query->groupClause)
	{
		SortGroupClause *item = lfirst_node(SortGroupClause, lc);

		if (!result)
			break;
		if (!is_window_column(an.query, get_sortgroupclause_tle(item, an.query->targetList)))
			result = is_covered(an.query, item, columns, ncolumns);
	}
	if (result && !number && sc_needs_row_number(&an))
		return false;
	if (result && !sc_columns_tell_sets_apart(an.query, columns, ncolumns))
		return false;
	return result && (window || !has_window(an.query));
}
