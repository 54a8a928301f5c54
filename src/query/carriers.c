/*-------------------------------------------------------------------------
 * carriers.c
 *	  Carriers: columns of a query's rows that always have the window of the core's rows from which they are made, and
 *	  conditions that say that two windows are the same (window_local.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/prep.h"
#include "optimizer/tlist.h"
#include "query/carriers.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* What a column of the window is called. */
const char *
sc_window_name(ScAnalysis *an)
{
	return sc_assigner_is_identified_by(&an->def->window, SC_WINDOW_START) ? "window_start" : "window_end";
}

Node *
sc_flatten(Level *level, Node *node)
{
	node = sc_flatten_group_exprs(level->query, node);
	return sc_flatten_join_alias_vars(level->query, node);
}

/* Is it that column of FROM, of the query itself? */
static bool
is_column(const Var *column, Node *expr)
{
	const Var  *var = (const Var *) expr;

	return IsA(expr, Var) && var->varlevelsup == 0 && var->varno == column->varno &&
		var->varattno == column->varattno;
}

static bool
is_among(List *exprs, const Var *column)
{
	ListCell   *lc;

	foreach(lc, exprs)
	{
		if (is_column(column, lfirst(lc)))
			return true;
	}
	return false;
}

/* Is the expression that column, or COALESCE of those columns in any order? */
static bool
is_carrier(const Carrier *carrier, Node *expr)
{
	CoalesceExpr *coalesce = (CoalesceExpr *) expr;
	ListCell   *lc;

	if (IsA(expr, Var))
		return list_length(carrier->vars) == 1 && is_column(linitial(carrier->vars), expr);
	if (!IsA(expr, CoalesceExpr) || list_length(coalesce->args) != list_length(carrier->vars))
		return false;
	foreach(lc, carrier->vars)
	{
		if (!is_among(coalesce->args, lfirst(lc)))
			return false;
	}
	return true;
}

/* Which column of the window the expression carries, or 0. */
AttrNumber
sc_carried(List *carriers, Node *expr)
{
	ListCell   *lc;

	foreach(lc, carriers)
	{
		if (is_carrier(lfirst(lc), expr))
			return ((Carrier *) lfirst(lc))->kind;
	}
	return 0;
}

/* Carriers of an item of FROM whose columns are of these kinds. */
List *
sc_item_carriers(Level *level, int varno, List *kinds)
{
	List	   *result = NIL;
	ListCell   *lc;
	int			column = 0;

	foreach(lc, kinds)
	{
		AttrNumber	kind = lfirst_int(lc);
		Carrier    *carrier;

		column++;
		if (kind == 0)
			continue;
		carrier = palloc(sizeof(Carrier));
		carrier->kind = kind;
		/* known by its place */
		carrier->vars = list_make1(makeVar(varno, column, InvalidOid, -1, InvalidOid, 0));
		result = lappend(result, carrier);
	}
	level->carriers = list_concat(level->carriers, result);
	return result;
}

/*
 * Both sides of an equality, by the operator that grouping goes by; false: it is none.  What another operator calls equal is
 * its owner's matter.
 */
static bool
is_equality(Node *qual, Node **left, Node **right)
{
	OpExpr	   *op = (OpExpr *) qual;

	if (!IsA(qual, OpExpr) || list_length(op->args) != 2)
		return false;
	*left = linitial(op->args);
	*right = lsecond(op->args);
	return op->opno == lookup_type_cache(exprType(*left), TYPECACHE_EQ_OPR)->eq_opr;
}

/* Do the conditions say that the windows of two components are the same? */
bool
sc_are_linked(List *quals, List *a, List *b)
{
	ListCell   *lc;

	foreach(lc, quals)
	{
		Node	   *left;
		Node	   *right;
		AttrNumber	kind;

		if (!is_equality(lfirst(lc), &left, &right))
			continue;
		kind = sc_carried(a, left);
		if (kind != 0 && sc_carried(b, right) == kind)
			return true;
		kind = sc_carried(b, left);
		if (kind != 0 && sc_carried(a, right) == kind)
			return true;
	}
	return false;
}

/* Puts components together whose windows are the same by the conditions. */
Components *
sc_link_components(Components *components, List *quals)
{
	for (int i = 0; i < list_length(components); i++)
	{
		for (int j = i + 1; j < list_length(components); j++)
		{
			if (!sc_are_linked(quals, list_nth(components, i), list_nth(components, j)))
				continue;
			lfirst(list_nth_cell(components, i)) = list_concat(list_nth(components, i), list_nth(components, j));
			components = list_delete_nth_cell(components, j);
			i = -1;
			break;
		}
	}
	return components;
}

/* Is it a carrier of an outer query's rows?  Then which column of the window. */
static AttrNumber
carried_outside(Level *level, Node *expr)
{
	Var		   *var = (Var *) expr;

	if (!IsA(expr, Var) || var->varlevelsup == 0)
		return 0;
	for (int i = 0; i < var->varlevelsup && level != NULL; i++)
		level = level->parent;
	if (level == NULL)
		return 0;
	var = copyObject(var);
	var->varlevelsup = 0;
	return sc_carried(level->carriers, sc_flatten(level, (Node *) var));
}

/* Do the conditions say that the component's window is that of an outer row? */
bool
sc_is_pinned(Level *level, List *quals, List *component)
{
	ListCell   *lc;

	foreach(lc, quals)
	{
		Node	   *left;
		Node	   *right;
		AttrNumber	kind;

		if (!is_equality(lfirst(lc), &left, &right))
			continue;
		kind = sc_carried(component, left);
		if (kind != 0 && carried_outside(level, right) == kind)
			return true;
		kind = sc_carried(component, right);
		if (kind != 0 && carried_outside(level, left) == kind)
			return true;
	}
	return false;
}

List *
sc_conditions(Level *level, Node *quals)
{
	return make_ands_implicit((Expr *) canonicalize_qual((Expr *) sc_flatten(level, copyObject(quals)), false));
}

/* Carriers of a full join: a row has the window of one side or the other, or both. */
List *
sc_full_carriers(List *a, List *b)
{
	List	   *result = NIL;
	ListCell   *lc_a;
	ListCell   *lc_b;

	foreach(lc_a, a)
	{
		foreach(lc_b, b)
		{
			const Carrier *left = lfirst(lc_a);
			const Carrier *right = lfirst(lc_b);
			Carrier    *both;

			if (left->kind != right->kind)
				continue;
			both = palloc(sizeof(Carrier));
			both->kind = left->kind;
			both->vars = list_concat_copy(left->vars, right->vars);
			result = lappend(result, both);
		}
	}
	return result;
}

/* Is one of the items a carrier? */
bool
sc_has_carrier(List *target, List *items, List *carriers)
{
	ListCell   *lc;

	foreach(lc, items)
	{
		if (sc_carried(carriers, get_sortgroupclause_expr(lfirst_node(SortGroupClause, lc), target)) != 0)
			return true;
	}
	return false;
}
