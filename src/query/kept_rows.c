/*-------------------------------------------------------------------------
 * kept_rows.c
 *	  The rows that are kept of a group (best_rows.c), as split.c has them: which columns they have, how they are sorted,
 *	  and the aggregate of ours that keeps them (exec/best_rows.c).
 *
 * The rule: a column's values are in the state as they are, in other processes and years later.  What means something in
 * one process only is refused, and what a type is made of is part of the query's signature (sc_best_rows_sign).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "model/extension.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "query/query_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Does the expression read the window, or the row's number? */
static bool
reads_group(Node *node, ScAnalysis *an)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno == an->window_varno;
	return IsA(node, WindowFunc) || expression_tree_walker(node, reads_group, an);
}

/* Is it what a column of the rows that are kept holds: an item of the select list, or a column that is left over? */
static bool
is_row_column(ScAnalysis *an, Node *node)
{
	ListCell   *lc;

	if (IsA(node, Var))
		return ((Var *) node)->varno != an->window_varno;
	if (!contain_var_clause(node) || reads_group(node, an))
		return false;
	if (sc_find_expr(an->best_exprs, node) >= 0)
		return true;
	/* of a subquery its own columns: what is above is computed of rows that are kept */
	foreach(lc, an->query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk == an->numbered && equal(target->expr, node))
			return true;
	}
	return false;
}

/* See query_internal.h. */
bool
sc_is_of_row(ScAnalysis *an, Node *node)
{
	return IsA(node, WindowFunc) || is_row_column(an, node);
}

/* The expression is a column of the rows from now on.  Fails if its values mean something in this process only. */
static void
add_column(ScAnalysis *an, Node *expr)
{
	Oid			type = exprType(expr);

	if (type == RECORDOID || type == RECORDARRAYOID || type == INTERNALOID)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("values of type %s cannot be kept by a continuous query", format_type_be(type)),
				 errdetail("%s keeps values of rows for other processes, which don't know the type.", an->grouping),
				 errhint("Write the columns one by one, or as what is made of them, such as jsonb_build_object('a', a, 'b', b); or cast the row to a composite type: ROW(a, b)::pair."),
				 sc_errposition(an, exprLocation(expr))));
	an->best_exprs = lappend(an->best_exprs, expr);
}

/* See query_internal.h; a column is kept from now on. */
Var *
sc_row_var(ScAnalysis *an, Node *node)
{
	int			i;

	if (IsA(node, WindowFunc))
		return sc_group_var(SC_BEST_NUMBER(an->def), node);
	i = sc_find_expr(an->best_exprs, node);
	if (i < 0)
	{
		i = list_length(an->best_exprs);
		add_column(an, node);
	}
	return sc_group_var(SC_BEST_NUMBER(an->def) + 1 + i, node);
}

/* See query_internal.h. */
bool
sc_key_is_of_row(ScAnalysis *an, int key)
{
	Node	   *expr = list_nth(an->key_exprs, key);
	Oid			element = get_base_element_type(exprType(expr));

	if (an->best == NULL || type_is_rowtype(OidIsValid(element) ? element : exprType(expr)))
		return false;
	return !sc_key_equal_is_image(exprType(expr), list_nth_node(SortGroupClause, an->key_clauses, key)->eqop,
								  exprCollation(expr));
}

/* See query_internal.h. */
AttrNumber
sc_shown_key(ScAnalysis *an, int key)
{
	int			i;

	if (!sc_key_is_of_row(an, key))
		return SC_WINDOW_COLUMNS + key + 1;
	i = sc_find_expr(an->best_exprs, list_nth(an->key_exprs, key));
	return i < 0 ? 0 : SC_BEST_NUMBER(an->def) + 1 + i;
}

/* Is it the same for all rows of a group? */
static bool
is_grouped(ScAnalysis *an, Node *node)
{
	return sc_find_expr(an->key_exprs, node) >= 0 || (an->window_item != NULL && equal(node, an->window_item)) ||
		(IsA(node, Var) && ((Var *) node)->varno == an->window_varno);
}

/* What is sorted by are the first columns of the rows that are kept. */
void
sc_build_best_order(ScAnalysis *an)
{
	ScBestRows *best = an->best;
	ListCell   *lc;

	best->columns = palloc0(sizeof(ScBestColumn) * Max(list_length(an->best_order), 1));
	foreach(lc, an->best_order)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Node	   *expr = get_sortgroupclause_expr(clause, an->query->targetList);

		if (is_grouped(an, expr) || sc_find_expr(an->best_exprs, expr) >= 0)
			continue;
		if (clause->sortop >= FirstNormalObjectId)
			an->def->has_user_parts = true;
		best->columns[best->nsort].sort_operator = clause->sortop;
		best->columns[best->nsort].nulls_first = clause->nulls_first;
		best->nsort++;
		add_column(an, expr);
	}
	an->def->best = best;
}

/* The aggregate stream_ckpt.best_rows(). */
static Oid
best_rows_aggregate(void)
{
	Oid			types[2] = {INTERNALOID, ANYOID};
	Oid			result = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum("best_rows"),
										 PointerGetDatum(buildoidvector(types, lengthof(types))),
										 ObjectIdGetDatum(sc_extension_schema()));

	if (!OidIsValid(result))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("aggregate stream_ckpt.best_rows() does not exist"),
				 errhint("Call ALTER EXTENSION stream_ckpt UPDATE.")));
	return result;
}

/* The aggregate that keeps them, as a call of ours. */
static Aggref *
make_best_call(ScAnalysis *an)
{
	Aggref	   *aggref = makeNode(Aggref);
	Const	   *how = makeConst(INTERNALOID, -1, InvalidOid, sizeof(Datum), PointerGetDatum(an->best), false, true);
	ListCell   *lc;

	aggref->aggfnoid = best_rows_aggregate();
	aggref->aggtype = aggref->aggtranstype = BYTEAOID;
	aggref->aggkind = AGGKIND_NORMAL;
	aggref->aggsplit = AGGSPLIT_SIMPLE;
	aggref->aggno = aggref->aggtransno = -1;
	aggref->location = -1;
	aggref->aggargtypes = list_make1_oid(INTERNALOID);
	aggref->args = list_make1(makeTargetEntry((Expr *) how, 1, NULL, false));
	foreach(lc, an->best_exprs)
	{
		Node	   *expr = lfirst(lc);

		aggref->aggargtypes = lappend_oid(aggref->aggargtypes, exprType(expr));
		aggref->args = lappend(aggref->args, makeTargetEntry((Expr *) expr, list_length(aggref->args) + 1, NULL, false));
	}
	return aggref;
}

/* Adds what keeps them to the aggregates.  Fails if they have more columns than a call has arguments. */
void
sc_build_best_rows(ScAnalysis *an)
{
	ScBestRows *best = an->best;
	ListCell   *lc;

	if (list_length(an->best_exprs) > FUNC_MAX_ARGS - 2)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("%d columns are more than can be kept of a row", list_length(an->best_exprs)),
				 errdetail("%s can keep %d, beside the keys.", an->grouping, FUNC_MAX_ARGS - 2),
				 errhint("Take columns together, as in ARRAY[a, b], or keep the row's primary key only."),
				 sc_errposition(an, sc_from_item_location(an, 0))));
	best->columns = repalloc(best->columns, sizeof(ScBestColumn) * Max(list_length(an->best_exprs), 1));
	best->ncolumns = 0;
	foreach(lc, an->best_exprs)
	{
		ScBestColumn *column = &best->columns[best->ncolumns++];

		if (best->ncolumns > best->nsort)
			memset(column, 0, sizeof(*column));
		column->type = exprType(lfirst(lc));
		column->typmod = exprTypmod(lfirst(lc));
		column->collation = exprCollation(lfirst(lc));
	}
	an->aggrefs = lappend(an->aggrefs, make_best_call(an));
}

/* Of numbered rows: does the expression read more of a row than the keys? */
static bool
reads_beyond_keys(Node *node, ScAnalysis *an)
{
	if (node == NULL || sc_find_expr(an->key_exprs, node) >= 0)
		return false;
	if (IsA(node, WindowFunc))
		return true;
	if (IsA(node, Var))
		return ((Var *) node)->varno != an->window_varno;
	return expression_tree_walker(node, reads_beyond_keys, an);
}

bool
sc_reads_beyond_keys(ScAnalysis *an, Node *node)
{
	return reads_beyond_keys(node, an);
}

/* Rows of one rank can't be told apart.  Fails if they have to be, or if all are of one. */
void
sc_check_ranking(ScAnalysis *an, bool needs_key)
{
	const char *name = sc_best_function(an);

	if (an->best == NULL || an->best->ranking == SC_ROW_NUMBER)
		return;
	if (an->def->best->nsort == 0)
		sc_refuse_clause(an, an->best_call->location, psprintf("%s() without ORDER BY", name),
						 "All rows would have the number 1. Write by what they are numbered.");
	if (needs_key)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s() over the rows of a stream needs a window that closes", name),
				 errdetail("Several rows can have one number, so that rows of the result can't be told apart to be updated."),
				 errhint("Use row_number(), with further columns in ORDER BY; or a window with emit => 'close' and without an allowed_lateness."),
				 sc_errposition(an, an->best_call->location)));
}

bool
sc_needs_row_number(const ScAnalysis *an)
{
	return an->best != NULL && (an->best->n > 1 || an->query->groupClause == NIL);
}
