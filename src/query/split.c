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
#include "access/relation.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
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
#include "utils/rel.h"
#include "utils/syscache.h"

/* ---------- the source part ---------- */

/*
 * A column of the window, of which a row has one value.  Fails if windows share panes, or are sessions: a row is
 * accumulated once, and has no window yet; without groups it is projected once for each window.
 */
void
sc_check_window_is_known(ScAnalysis *an, Var *var)
{
	if (!sc_assigner_knows_window(&an->def->window) && !an->def->stateless)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("columns of %s() are not supported in WHERE, in arguments of aggregates and in expressions of GROUP BY",
						sc_window_function(an->def->window.kind)),
				 an->def->window.kind == SC_WINDOW_SESSION ?
				 errdetail("When a row comes, nobody knows when its session begins and ends.") :
				 errdetail("A row is in several windows, and is accumulated once for all of them."),
				 errhint("Use them in GROUP BY as they are, and in HAVING and the select list."),
				 sc_errposition(an, var->location)));
	if (var->varattno < SC_WINDOW_START || var->varattno > SC_WINDOW_TIME)
		elog(ERROR, "unexpected column %d of a window", var->varattno);
}

static Var *
window_var(ScAnalysis *an, Var *var)
{
	Var		   *result;

	sc_check_window_is_known(an, var);
	result = makeVar(OUTER_VAR, var->varattno, var->vartype, var->vartypmod,
					 var->varcollid, 0);
	result->location = var->location;
	return result;
}

/* The column in the stream's slot; notes that it is read.  A whole row reads all columns. */
static Var *
stream_var(ScAnalysis *an, Var *var)
{
	Var		   *result;
	AttrNumber	attno = var->varattno;

	if (attno == InvalidAttrNumber)
		attno = an->stream_natts;
	an->def->last_attno = Max(an->def->last_attno, attno);
	an->def->read_attnos = bms_add_member(an->def->read_attnos, var->varattno);

	result = makeVar(SC_STREAM_VARNO, var->varattno, var->vartype, var->vartypmod,
					 var->varcollid, 0);
	result->location = var->location;
	return result;
}

/* Numbers columns of the stream, or of the joined row, and of the window as the engine's slots have them. */
static Node *
source_mutator(Node *node, ScAnalysis *an)
{
	bool		joined = an->has_source && !an->over_stream;

	if (node == NULL)
		return NULL;
	if (joined && sc_is_joined(an, node))
		return (Node *) sc_joined_var(an, node);
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == an->window_varno)
			return (Node *) window_var(an, var);
		if (var->varno == an->stream_varno)
			return (Node *) stream_var(an, var);
		elog(ERROR, "unexpected column of range-table entry %d", var->varno);
	}
	return expression_tree_mutator(node, source_mutator, an);
}

/* A row of the stream, as a value of its row type, from the columns that it has now. */
static RowExpr *
row_of_columns(ScAnalysis *an, Var *var)
{
	Relation	stream = relation_open(an->stream->relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(stream);
	RowExpr    *row = makeNode(RowExpr);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Node	   *column;

		if (att->attisdropped)
			column = (Node *) makeNullConst(INT4OID, -1, InvalidOid);
		else
			column = (Node *) makeVar(SC_STREAM_VARNO, i + 1, att->atttypid, att->atttypmod,
									  att->attcollation, 0);
		row->args = lappend(row->args, column);
	}
	row->row_typeid = var->vartype;
	row->row_format = COERCE_IMPLICIT_CAST;
	row->location = var->location;
	relation_close(stream, AccessShareLock);
	return row;
}

/*
 * Rows of the stream as values, once planning is over: how they are made is fixed when the
 * definition is compiled, under a lock on the stream, and not by the first row that comes.
 */
static Node *
whole_row_mutator(Node *node, ScAnalysis *an)
{
	Var		   *var = (Var *) node;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && var->varno == SC_STREAM_VARNO && var->varattno == InvalidAttrNumber)
		return (Node *) row_of_columns(an, var);
	return expression_tree_mutator(node, whole_row_mutator, an);
}

static Expr *
source_expr(ScAnalysis *an, Node *node)
{
	Expr	   *expr = expression_planner((Expr *) source_mutator(node, an));

	if (!an->def->whole_row)
		return expr;
	return (Expr *) whole_row_mutator((Node *) expr, an);
}

/* Does the expression read a column of a window that a row doesn't know? */
static bool
reads_unknown_window(Node *node, ScAnalysis *an)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno == an->window_varno && !sc_assigner_knows_window(&an->def->window);
	return expression_tree_walker(node, reads_unknown_window, an);
}

/* A condition of WHERE: is it for the row of the stream, for the joined row, or for the plan that joins them? */
static void
place_qual(ScAnalysis *an, Node *qual, List **joined)
{
	if (sc_is_of_stream(an, qual))
	{
		an->over_stream = true;
		an->def->quals = list_concat(an->def->quals, make_ands_implicit(source_expr(an, qual)));
		an->over_stream = false;
	}
	else if (sc_is_of_windows(an, qual))
		*joined = list_concat(*joined, make_ands_implicit(source_expr(an, qual)));
	else
		an->join_quals = lappend(an->join_quals, qual);
}

/*
 * WHERE, and what of HAVING is about keys alone: as PostgreSQL's planner does it, the aggregates
 * don't see rows of groups that such a condition rules out.  HAVING keeps it all the same, for
 * groups in a state that was saved before.  Of several grouping sets it is about keys that some of them leave out.
 * Returned are, if there is a source plan, those that are over the joined row; else all.
 */
static List *
source_quals(ScAnalysis *an)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, an->quals)
	{
		ListCell   *lc_part;

		if (!an->has_source)
			result = list_concat(result, make_ands_implicit(source_expr(an, lfirst(lc))));
		else
			foreach(lc_part, make_ands_implicit(lfirst(lc)))
				place_qual(an, lfirst(lc_part), &result);
	}
	foreach(lc, make_ands_implicit((Expr *) an->query->havingQual))
	{
		if (an->sets == NIL && !contain_subplans(lfirst(lc)) && !contain_agg_clause(lfirst(lc)) && !reads_unknown_window(lfirst(lc), an) &&
			!(an->best != NULL && sc_reads_beyond_keys(an, lfirst(lc))))
			result = list_concat(result,
								 make_ands_implicit(source_expr(an, lfirst(lc))));
	}
	return result;
}

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

		key->expr = source_expr(an, expr);
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
		return source_expr(an, written);
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
		tle->expr = source_expr(an, arg);
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
		aggref->aggfilter = source_expr(an, (Node *) written->aggfilter);
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

/* ---------- what identifies a result row ---------- */

/* Position in the target list of a bare column of the group slot, or 0. */
static AttrNumber
find_result_column(ScDefinition *def, AttrNumber attno)
{
	ListCell   *lc;

	foreach(lc, def->target)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) tle->expr;

		if (IsA(var, Var) && var->varattno == attno)
			return tle->resno;
	}
	return 0;
}

/* Fills in the first column that tells windows apart. */
static void
find_window_column(ScDefinition *def)
{
	for (AttrNumber column = SC_WINDOW_START; column <= SC_WINDOW_COLUMNS; column++)
	{
		AttrNumber	found = 0;

		if (sc_assigner_is_identified_by(&def->window, column))
			found = find_result_column(def, column);
		if (found == 0 || (def->result_window != 0 && found > def->result_window))
			continue;
		def->result_window = found;
		def->result_window_kind = column;
	}
}

static void
refuse_missing_key(ScAnalysis *an, const char *what, int location)
{
	bool		update = (an->emit == SC_EMIT_UPDATE);
	bool		windows = sc_assigner_has_windows(&an->def->window);
	const char *number = sc_needs_row_number(an) ? ", and the row's number" :
		an->sets != NIL ? ", and GROUPING()" : "";

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s needs %s in the select list",
					!windows ? "a query without a window" : update ? "emit 'update'" : "allowed_lateness", what),
			 windows ?
			 errdetail("The rows of the result table are updated by the window and all keys%s.", number) :
			 errdetail("The rows of the result table are updated by all keys%s.", number),
			 !windows ? errhint("Add it to the select list.") :
			 update ? errhint("Add it to the select list, or use emit => 'close'.") :
			 errhint("Add it to the select list, or use a larger watermark_delay of the stream instead."),
			 sc_errposition(an, location)));
}

/*
 * The first column in the select list that tells windows apart, if there are windows, and all keys; the row's number if a
 * group has several rows.
 */
static void
build_result_key(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	AttrNumber *columns = palloc0(sizeof(AttrNumber) * (def->nkeys + 2 + list_length(def->target)));
	bool		needed = (an->emit == SC_EMIT_UPDATE || an->allowed_lateness > 0);
	int			n = 0;

	if (sc_assigner_has_windows(&def->window))
	{
		find_window_column(def);
		columns[n++] = def->result_window;
		if (columns[0] == 0 && needed)
			refuse_missing_key(an, def->window.kind == SC_WINDOW_CUMULATE ? "window_end" :
							   def->window.kind == SC_WINDOW_SESSION ? "window_start" : "a column of the window",
							   exprLocation((Node *) an->query->targetList));
	}
	for (int i = 0; i < list_length(an->key_exprs); i++)
	{
		AttrNumber	column;

		def->keys[i].shown = sc_shown_key(an, i);
		column = find_result_column(def, def->keys[i].shown);
		if (column == 0 && needed)
			refuse_missing_key(an, psprintf("every key of %s", an->grouping),
							   exprLocation(list_nth(an->key_exprs, i)));
		columns[n++] = column;
	}

	sc_check_ranking(an, needed);
	if (an->best != NULL && an->best->ranking != SC_ROW_NUMBER)
		return;
	if (an->sets != NIL)
	{
		List	   *grouping;
		ListCell   *lc;

		if (!sc_find_grouping_columns(an, &grouping))
		{
			if (needed)
				refuse_missing_key(an, "GROUPING() of the keys that not all grouping sets have",
								   exprLocation((Node *) an->query->targetList));
			return;
		}
		foreach(lc, grouping)
			columns[n++] = lfirst_int(lc);
	}
	if (sc_needs_row_number(an))
	{
		columns[n] = find_result_column(def, SC_BEST_NUMBER(def));
		if (columns[n++] == 0 && needed)
			refuse_missing_key(an, "row_number()", exprLocation((Node *) an->query->targetList));
	}

	for (int i = 0; i < n; i++)
	{
		if (columns[i] == 0)
			return;
	}
	def->nresult_key = n;
	def->result_key = columns;
}

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
	quals = source_quals(an);
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
	if (!def->stateless && an->upper == NULL)
		build_result_key(an);
}
