/*-------------------------------------------------------------------------
 * split.c
 *	  Splits a definition at its GROUP BY into the source part and the upper part
 *	  (see model/definition.h).
 *
 * Whatever in the select list or in HAVING equals an expression of GROUP BY, or
 * is an aggregate, becomes a column of the group slot; what is left above them is
 * the upper part.  Expressions are compared as written and planned only
 * afterwards, so that constant folding can't hide an equality.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "parser/parsetree.h"
#include "query/query_internal.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* ---------- keys ---------- */

/*
 * A key needs an order (checkpoints, results) and a hash (the engine's table): the
 * type's own, or one of the bytes where equal values have equal ones (money, bit).
 */
static void
check_key_type(ScAnalysis *an, Node *expr, SortGroupClause *clause)
{
	const char *lacks = NULL;

	if (!OidIsValid(clause->sortop))
		lacks = "btree order";
	else if (!clause->hashable &&
			 !sc_key_equal_is_image(exprType(expr), clause->eqop, exprCollation(expr)))
		lacks = "hash function";
	if (lacks != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("type %s is not supported in %s of a continuous query",
						format_type_be(exprType(expr)), an->grouping),
				 errdetail("The type has no %s.", lacks),
				 errhint("Use the value as text, with ::text, wherever it is written."),
				 sc_errposition(an, exprLocation(expr))));
}

/*
 * A column of the window marks the window as grouped; all else becomes a key.  Fails if a key's
 * type can't be one.
 */
static void
analyze_group_item(ScAnalysis *an, SortGroupClause *clause)
{
	Node	   *expr = get_sortgroupclause_expr(clause, an->query->targetList);
	Var		   *var = (Var *) expr;

	if (IsA(expr, Var) && var->varno == an->window_varno)
	{
		an->grouped_window[var->varattno] = true;
		return;
	}
	if (an->window_item != NULL && equal(expr, an->window_item))
	{
		an->grouped_window[SC_WINDOW_START] = true;
		return;
	}
	check_key_type(an, expr, clause);
	an->key_exprs = lappend(an->key_exprs, expr);
	an->key_clauses = lappend(an->key_clauses, clause);
}

/* Is there a group for each window? */
static bool
window_is_grouped(ScAnalysis *an)
{
	for (AttrNumber column = SC_WINDOW_START; column <= SC_WINDOW_COLUMNS; column++)
	{
		if (an->grouped_window[column] && sc_assigner_is_identified_by(&an->def->window, column))
			return true;
	}
	return false;
}

/* A SELECT with aggregates but without GROUP BY: its rows are one group, if there are no windows. */
static void
check_ungrouped(ScAnalysis *an)
{
	Query	   *query = an->query;

	if (an->upper != NULL && !query->hasAggs && query->havingQual == NULL)
		sc_refuse_clause(an, exprLocation((Node *) query->targetList),
						 "a SELECT over the stream without GROUP BY below another one",
						 "Write WHERE, expressions and GROUP BY into one SELECT with the stream itself in FROM; what is above it can have subqueries, WITH and window functions.");
	if (sc_assigner_has_windows(&an->def->window))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query with a window needs %s", an->grouping),
				 errhint("Group by the window: %s w.window_start, with further keys if you like; or leave the window out of FROM.", an->grouping),
				 sc_errposition(an, exprLocation((Node *) query->targetList))));
	an->def->one_row = an->best == NULL;
}

/* Reads GROUP BY into "an".  Fails if there is a window and no column of it is in GROUP BY. */
static void
analyze_group_by(ScAnalysis *an)
{
	Query	   *query = an->query;
	ListCell   *lc;

	if (an->def->stateless)
		return;
	sc_analyze_grouping_sets(an);
	if (query->groupClause == NIL && (an->sets == NIL || sc_assigner_has_windows(&an->def->window)))
	{
		check_ungrouped(an);
		return;
	}
	foreach(lc, query->groupClause)
		analyze_group_item(an, lfirst_node(SortGroupClause, lc));

	if (an->def->window.kind == SC_WINDOW_SESSION && !window_is_grouped(an))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s without window_start of session() is not supported", an->grouping),
				 errdetail("A session is known by its start: its end moves as long as rows come."),
				 errhint("Add window_start to %s, as it is and not inside an expression.", an->grouping),
				 sc_errposition(an, exprLocation((Node *) query->targetList))));
	if (an->def->window.kind == SC_WINDOW_CUMULATE && an->grouped_window[SC_WINDOW_START] &&
		!window_is_grouped(an))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s without window_end of cumulate() is not supported", an->grouping),
				 errdetail("Windows of one start have different ends."),
				 errhint("Add window_end to %s.", an->grouping),
				 sc_errposition(an, exprLocation((Node *) query->targetList))));
	if (sc_assigner_has_windows(&an->def->window) && !window_is_grouped(an))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s without a column of the window is not supported", an->grouping),
				 errhint("Add window_start or window_end of the window function to %s, as it is and not inside an expression; or leave the window out of FROM.", an->grouping),
				 sc_errposition(an, exprLocation(linitial(an->key_exprs)))));
}

/* Fills def->keys from GROUP BY, in its order; the window's columns aren't among them. */
static void
build_keys(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	ListCell   *lc_expr;
	ListCell   *lc_clause;
	ScKey	   *key;

	def->nkeys = list_length(an->key_exprs);
	def->keys = palloc0(sizeof(ScKey) * Max(def->nkeys, 1));
	key = def->keys;
	forboth(lc_expr, an->key_exprs, lc_clause, an->key_clauses)
	{
		Node	   *expr = lfirst(lc_expr);
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc_clause);

		key->expr = sc_source_expr(an, expr);
		key->type = exprType(expr);
		key->typmod = exprTypmod(expr);
		key->collation = exprCollation(expr);
		key->eq_operator = clause->eqop;
		key->lt_operator = clause->sortop;
		key++;
	}
	sc_build_set_key(an);
}

/* ---------- the upper part ---------- */

Var *
sc_group_var(AttrNumber attno, Node *expr)
{
	return makeVar(SC_GROUP_VARNO, attno, exprType(expr), exprTypmod(expr),
				   exprCollation(expr), 0);
}

int
sc_find_expr(List *exprs, Node *expr)
{
	int			i = 0;
	ListCell   *lc;

	foreach(lc, exprs)
	{
		if (equal(lfirst(lc), expr))
			return i;
		i++;
	}
	return -1;
}

/* Equal aggregates are computed once. */
static Var *
aggregate_var(ScAnalysis *an, Aggref *aggref)
{
	int			i = sc_find_expr(an->aggrefs, (Node *) aggref);

	if (i < 0)
	{
		i = list_length(an->aggrefs);
		an->aggrefs = lappend(an->aggrefs, aggref);
	}
	return sc_group_var(SC_WINDOW_COLUMNS + an->def->nkeys + i + 1,
					 (Node *) aggref);
}

/*
 * A column outside GROUP BY and aggregates: parse analysis lets it pass where it
 * follows from a grouped primary key, but a stream can hold a key twice over time.
 */
static void
refuse_ungrouped(ScAnalysis *an, Var *var)
{
	char	   *name;

	if (var->varno == an->window_varno || var->varattno == InvalidAttrNumber)
		name = pstrdup("row");
	else
		name = get_rte_attribute_name(rt_fetch(var->varno, an->query->rtable), var->varattno);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("column \"%s\" is neither in GROUP BY nor inside an aggregate",
					name),
			 errdetail("That it depends on a grouped primary key doesn't count in a continuous query."),
			 errhint("Add the column to GROUP BY."),
			 sc_errposition(an, var->location)));
}

/*
 * Of an expression over the stream makes one over the group slot: keys and aggregates become its
 * columns.  Fails at a column that isn't grouped.
 */
static Node *
final_mutator(Node *node, ScAnalysis *an)
{
	int			key;

	if (node == NULL)
		return NULL;
	if (an->window_item != NULL && equal(node, an->window_item))
		return (Node *) sc_group_var(SC_WINDOW_START, node);
	/* a constant in GROUP BY is NULL in a set without it, others of the same value are not */
	key = an->sets != NIL && IsA(node, Const) ? -1 : sc_find_expr(an->key_exprs, node);
	if (key >= 0 && sc_key_is_of_row(an, key))
		return (Node *) sc_row_var(an, node);
	if (key >= 0)
		return (Node *) sc_group_var(SC_WINDOW_COLUMNS + key + 1, node);
	if (an->best != NULL && sc_is_of_row(an, node))
		return (Node *) sc_row_var(an, node);
	if (IsA(node, GroupingFunc))
		return sc_grouping_value(an, (GroupingFunc *) node);
	if (IsA(node, Aggref))
		return (Node *) aggregate_var(an, (Aggref *) node);
	if (IsA(node, SubLink))
		sc_refuse_clause(an, ((SubLink *) node)->location, "a subquery that is neither in GROUP BY nor inside an aggregate",
						 "It would be asked again whenever a group's row is written: group by it, or put it into an aggregate, such as max((SELECT ...)); or ask it when you read the result table.");
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno != an->window_varno ||
			var->varattno < SC_WINDOW_START || var->varattno > SC_WINDOW_TIME ||
			!an->grouped_window[var->varattno])
			refuse_ungrouped(an, var);
		return (Node *) sc_group_var(var->varattno, node);
	}
	return expression_tree_mutator(node, final_mutator, an);
}

static Expr *
final_expr(ScAnalysis *an, Node *node)
{
	return expression_planner((Expr *) final_mutator(node, an));
}

/* The key of GROUP BY that the column is; -1: it is none.  Of two equal ones each is in sets of its own. */
static int
key_of_column(ScAnalysis *an, const TargetEntry *column)
{
	ListCell   *lc;

	foreach(lc, an->key_clauses)
	{
		if (column->ressortgroupref != 0 && lfirst_node(SortGroupClause, lc)->tleSortGroupRef == column->ressortgroupref)
			return foreach_current_index(lc);
	}
	return -1;
}

static Expr *
target_expr(ScAnalysis *an, const TargetEntry *column)
{
	Node	   *written = (Node *) column->expr;
	int			key = an->sets != NIL ? key_of_column(an, column) : -1;

	if (an->def->stateless)
		return sc_source_expr(an, written);
	if (key >= 0)
		return (Expr *) sc_group_var(SC_WINDOW_COLUMNS + key + 1, written);
	return final_expr(an, written);
}

/*
 * Fills def->target, numbered anew: what only ORDER BY or GROUP BY brought in is left out.  Without groups it is over
 * the row of the stream.
 */
static void
build_target(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	ListCell   *lc;

	foreach(lc, an->query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		def->target = lappend(def->target,
							  makeTargetEntry(target_expr(an, tle),
											  list_length(def->target) + 1,
											  pstrdup(tle->resname), false));
	}
}

/* ---------- aggregates ---------- */

/* The transition type, as the planner finds it for polymorphic aggregates. */
static Oid
transition_type(Aggref *aggref)
{
	Oid			argtypes[FUNC_MAX_ARGS];
	int			nargs = get_aggregate_argtypes(aggref, argtypes);
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	Oid			declared;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	declared = ((Form_pg_aggregate) GETSTRUCT(tuple))->aggtranstype;
	ReleaseSysCache(tuple);
	return resolve_aggregate_transtype(aggref->aggfnoid, declared, argtypes, nargs);
}

/* An argument with a subquery, which is asked only for rows that FILTER lets pass. */
static Node *
filtered(Node *arg, Expr *filter)
{
	CaseExpr   *result = makeNode(CaseExpr);
	CaseWhen   *when = makeNode(CaseWhen);

	when->expr = copyObject(filter);
	when->result = (Expr *) arg;
	when->location = -1;
	result->casetype = exprType(arg);
	result->casecollid = exprCollation(arg);
	result->args = list_make1(when);
	result->defresult = (Expr *) makeNullConst(exprType(arg), exprTypmod(arg), exprCollation(arg));
	result->location = exprLocation(arg);
	return (Node *) result;
}

/* An aggregate's arguments over the stream's slot; the call's own are left as they are. */
static List *
source_arguments(ScAnalysis *an, List *args, Expr *filter)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, args)
	{
		TargetEntry *tle = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));
		Node	   *arg = (Node *) tle->expr;

		if (filter != NULL && contain_subplans(arg))
			arg = filtered(arg, filter);
		tle->expr = sc_source_expr(an, arg);
		result = lappend(result, tle);
	}
	return result;
}

static List *
direct_arguments(ScAnalysis *an, List *args)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, args)
		result = lappend(result, final_expr(an, lfirst(lc)));
	return result;
}

static void
build_aggregate(ScAnalysis *an, ScAggregate *agg, Aggref *written)
{
	Aggref	   *aggref = copyObject(written);

	aggref->aggtranstype = transition_type(written);
	aggref->args = source_arguments(an, written->args, written->aggfilter);
	if (written->aggfilter != NULL)
		aggref->aggfilter = sc_source_expr(an, (Node *) written->aggfilter);
	agg->direct_args = direct_arguments(an, written->aggdirectargs);
	aggref->aggdirectargs = agg->direct_args;
	agg->aggref = aggref;
	agg->written = copyObject(written);
}

static void
build_aggregates(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	ListCell   *lc;
	int			i = 0;

	def->naggs = list_length(an->aggrefs);
	def->aggs = palloc0(sizeof(ScAggregate) * Max(def->naggs, 1));
	foreach(lc, an->aggrefs)
		build_aggregate(an, &def->aggs[i++], lfirst_node(Aggref, lc));
}

/* ---------- all of it ---------- */

/*
 * Rows of windows that share panes are found by keys of several panes, and sessions are told apart by their keys: whether
 * two are equal may not change while the result has rows of them.
 */
static void
check_shared_keys(ScAnalysis *an)
{
	ScDefinition *def = an->def;

	if (sc_assigner_knows_window(&def->window) || (an->emit == SC_EMIT_CLOSE && an->allowed_lateness == 0))
		return;
	for (int i = 0; i < list_length(an->key_exprs); i++)
	{
		if (sc_key_equality_can_change(&def->keys[i]))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("type %s is not supported in %s with %s() and emit 'update' or an allowed_lateness",
							format_type_be(def->keys[i].type), an->grouping, sc_window_function(def->window.kind)),
					 errdetail("Which of its values are equal can change."),
					 errhint("Use the value as text, with ::text, wherever it is written."),
					 sc_errposition(an, exprLocation(list_nth(an->key_exprs, i)))));
	}
}

/* Refuses what rows of sessions aren't: results by themselves, or the best of their session. */
static void
check_sessions(ScAnalysis *an)
{
	if (an->def->window.kind != SC_WINDOW_SESSION || (!an->def->stateless && an->best == NULL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 an->best != NULL ? errmsg("%s with session() is not supported", an->grouping) :
			 errmsg("a continuous query with session() needs GROUP BY"),
			 errdetail("When a row comes, nobody knows when its session begins and ends."),
			 errhint("Group by the session: GROUP BY w.window_start, w.window_end, with further keys if you like."),
			 sc_errposition(an, exprLocation((Node *) an->query->targetList))));
}

/* Fills in everything that depends on GROUP BY. */
void
sc_split_definition(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	List	   *quals;

	def->last_attno = def->event_time_attno;
	if (an->has_source)
		def->source = palloc0(sizeof(ScSource));
	check_sessions(an);
	analyze_group_by(an);
	def->never_closes = !sc_assigner_has_windows(&def->window) && sc_keys_read_event_time(an);
	quals = sc_place_quals(an);
	if (an->has_source)
		def->source->quals = quals;
	else
		def->quals = quals;
	build_keys(an);
	check_shared_keys(an);
	if (an->best != NULL)
		sc_build_best_order(an);
	build_target(an);
	if (an->query->havingQual != NULL)
		def->having = make_ands_implicit(final_expr(an, an->query->havingQual));
	if (an->best != NULL)
		sc_build_best_rows(an);
	build_aggregates(an);
	if (an->has_source)
		sc_build_source(an);
	if (def->stateless && def->retracts)
		sc_build_row_key(an);
	else if (!def->stateless && an->upper == NULL)
		sc_build_result_key(an);
}
