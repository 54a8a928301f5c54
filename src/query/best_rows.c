/*-------------------------------------------------------------------------
 * best_rows.c
 *	  DISTINCT ON, and row_number() <= n over the rows of a stream: of each group the best rows.
 *
 *	  SELECT DISTINCT ON (keys) ... FROM stream ORDER BY keys, x DESC
 *	  SELECT ... FROM (SELECT ..., row_number() OVER (PARTITION BY keys ORDER BY x DESC) AS rn FROM stream) r WHERE rn <= 3
 *
 * or rank() or dense_rank() in place of row_number(), if nothing of the result is updated.
 *
 * Both become one query tree over the stream: the keys are its GROUP BY, what is sorted by an->best_order, conditions
 * above the subquery are HAVING, and row_number() stays as what numbers the rows of a group.  kept_rows.c makes of it an
 * aggregate that keeps the best rows (exec/best_rows.c).  What isn't of these shapes is left as it is, and refused
 * where it would be without this file.
 *
 * The rule: nothing of a definition is called here, as sc_definition_identifies() comes here in the coordinator, where no
 * owner's code may run.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/transam.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "query/query_internal.h"
#include "rewrite/rewriteManip.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* Of each group at most so many rows are kept: they are copied when one of them is replaced */
#define MOST_ROWS	1000

#define BOUND_HINT "Write rn <= 3 (or <, or =) with a constant, for what the subquery calls rn."

/* Has the SELECT groups, or something else that its rows go through? */
static bool
has_upper_part(const Query *query)
{
	return query->groupClause != NIL || query->groupingSets != NIL || query->hasAggs || query->havingQual != NULL ||
		query->setOperations != NULL || query->hasTargetSRFs;
}

/* Does it read relations, and no other SELECT? */
static bool
reads_relations(const Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY || rte->rtekind == RTE_CTE)
			return false;
	}
	return query->cteList == NIL;
}

/* ---------- DISTINCT ON ---------- */

static bool
is_among(List *clauses, const SortGroupClause *clause)
{
	ListCell   *lc;

	foreach(lc, clauses)
	{
		if (lfirst_node(SortGroupClause, lc)->tleSortGroupRef == clause->tleSortGroupRef)
			return true;
	}
	return false;
}

/* The first row of each group: what ORDER BY has beside the keys says which that is. */
static void
rewrite_distinct_on(ScAnalysis *an)
{
	Query	   *query = an->query;
	ListCell   *lc;

	if (has_upper_part(query) || query->hasWindowFuncs || !reads_relations(query))
		return;
	an->best = palloc0(sizeof(ScBestRows));
	an->best->n = 1;
	an->grouping = "DISTINCT ON";
	foreach(lc, query->sortClause)
	{
		if (!is_among(query->distinctClause, lfirst(lc)))
			an->best_order = lappend(an->best_order, lfirst(lc));
	}
	query->groupClause = query->distinctClause;
	query->distinctClause = NIL;
	query->hasDistinctOn = false;
	query->sortClause = NIL;
}

/* ---------- row_number() ---------- */

/* The query behind an item of FROM: a subquery, or the only CTE, if nothing else reads it; or NULL. */
static Query *
query_of(Query *outer, RangeTblEntry *rte)
{
	CommonTableExpr *cte;

	if (rte->rtekind == RTE_SUBQUERY && outer->cteList == NIL)
		return rte->subquery;
	if (rte->rtekind != RTE_CTE || rte->self_reference || rte->ctelevelsup > 0 || list_length(outer->cteList) != 1)
		return NULL;
	cte = linitial_node(CommonTableExpr, outer->cteList);
	return cte->cterefcount == 1 && !cte->cterecursive ? castNode(Query, cte->ctequery) : NULL;
}

/* The query that is all of FROM, and has window functions over rows without groups; or NULL. */
static Query *
numbered_rows(Query *outer, int *varno)
{
	Query	   *result;

	if (list_length(outer->jointree->fromlist) != 1 || !IsA(linitial(outer->jointree->fromlist), RangeTblRef))
		return NULL;
	*varno = linitial_node(RangeTblRef, outer->jointree->fromlist)->rtindex;
	result = query_of(outer, rt_fetch(*varno, outer->rtable));
	return result != NULL && result->commandType == CMD_SELECT && result->hasWindowFuncs &&
		!has_upper_part(result) && reads_relations(result) ? result : NULL;
}

/* The name of the function that numbers rows. */
const char *
sc_best_function(const ScAnalysis *an)
{
	return an->best_call == NULL ? "row_number" : get_func_name(an->best_call->winfnoid);
}

/* Notes the first window function in "node", and refuses those that aren't the same, or number no rows. */
static bool
check_function(Node *node, ScAnalysis *an)
{
	WindowFunc *call = (WindowFunc *) node;

	if (node == NULL)
		return false;
	if (!IsA(node, WindowFunc))
		return expression_tree_walker(node, check_function, an);
	if (call->winfnoid != F_ROW_NUMBER && call->winfnoid != F_RANK_ && call->winfnoid != F_DENSE_RANK_)
		sc_refuse_clause(an, call->location,
						 psprintf("window function %s() over the rows of a stream", get_func_name(call->winfnoid)),
						 "Number the rows with row_number(), and keep the first ones: WHERE rn <= 3. Or apply the function to the result table when you read it.");
	if (an->best_call != NULL && (an->best_call->winref != call->winref || an->best_call->winfnoid != call->winfnoid))
		sc_refuse_clause(an, call->location, psprintf("%s() beside %s()", get_func_name(call->winfnoid), sc_best_function(an)),
						 "Create one continuous query for each of them.");
	an->best_call = call;
	return false;
}

typedef struct Replace
{
	int			varno;			/* of the subquery */
	List	   *targets;		/* its columns, */
	List	   *names;			/* and their names as the SELECT above has them */
} Replace;

/* A row of the subquery as a value: of its columns, as the planner makes it when it pulls a subquery up. */
static Node *
subquery_row(Replace *replace, Var *var)
{
	RowExpr    *row = makeNode(RowExpr);
	ListCell   *lc;

	foreach(lc, replace->targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			row->args = lappend(row->args, copyObject(target->expr));
	}
	row->row_typeid = var->vartype;
	row->row_format = COERCE_IMPLICIT_CAST;
	row->colnames = copyObject(replace->names);
	row->location = var->location;
	return (Node *) row;
}

/* Columns of the subquery become what they stand for. */
static Node *
replace_columns(Node *node, Replace *replace)
{
	Var		   *var = (Var *) node;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && var->varno == replace->varno && var->varlevelsup == 0)
	{
		if (var->varattno == InvalidAttrNumber)
			return subquery_row(replace, var);
		return copyObject((Node *) list_nth_node(TargetEntry, replace->targets, var->varattno - 1)->expr);
	}
	return expression_tree_mutator(node, replace_columns, replace);
}

/*
 * The columns of the SELECT above, and behind them, as junk, those of the subquery: what is above is made of them
 * (split.c).
 */
static List *
make_targets(Query *outer, Query *inner, Replace *replace)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, outer->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		result = lappend(result, makeTargetEntry((Expr *) replace_columns((Node *) target->expr, replace),
												 list_length(result) + 1, target->resname, false));
	}
	foreach(lc, inner->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		result = lappend(result, makeTargetEntry(copyObject(target->expr), list_length(result) + 1, target->resname, true));
	}
	return result;
}

/* The same clauses over the new columns: the first one with the expression, which is one of the result if there is such. */
static List *
move_clauses(List *clauses, Query *inner, List *targets)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, clauses)
	{
		SortGroupClause *clause = copyObject(lfirst_node(SortGroupClause, lc));
		Node	   *expr = get_sortgroupclause_expr(clause, inner->targetList);
		ListCell   *lt;

		foreach(lt, targets)
		{
			TargetEntry *target = lfirst_node(TargetEntry, lt);

			if (!equal(target->expr, expr))
				continue;
			target->ressortgroupref = target->resno;
			clause->tleSortGroupRef = target->resno;
			break;
		}
		result = lappend(result, clause);
	}
	return result;
}

/* Of these types values are the same numbers, whichever they are cast to. */
static bool
is_integer_type(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* Is it a cast of an integer to such a type, which the server brings?  Then what is cast comes into *inner. */
static bool
is_integer_cast(Node *node, Node **inner)
{
	FuncExpr   *call = (FuncExpr *) node;

	if (!IsA(node, FuncExpr) || call->funcformat == COERCE_EXPLICIT_CALL || call->funcid >= FirstNormalObjectId ||
		list_length(call->args) != 1 || !is_integer_type(call->funcresulttype))
		return false;
	*inner = linitial(call->args);
	return is_integer_type(exprType(*inner));
}

/* The value of an integer constant, as it is written or in casts; false: it is none.  Nothing is called. */
static bool
integer_value(Node *node, int64 *value)
{
	Const	   *constant = (Const *) node;

	while (is_integer_cast((Node *) constant, (Node **) &constant))
		;
	if (!IsA(constant, Const) || constant->constisnull)
		return false;
	if (constant->consttype == INT8OID)
		*value = DatumGetInt64(constant->constvalue);
	else if (constant->consttype == INT4OID)
		*value = DatumGetInt32(constant->constvalue);
	else if (constant->consttype == INT2OID)
		*value = DatumGetInt16(constant->constvalue);
	else
		return false;
	/* a cast to a smaller type would fail */
	return exprType(node) == INT8OID || (exprType(node) == INT4OID && *value == (int32) *value) ||
		(exprType(node) == INT2OID && *value == (int16) *value);
}

/* Does the condition say how many rows there are at most?  "exactly": it says nothing else. */
static bool
read_bound(Node *qual, int64 *most, bool *exactly)
{
	OpExpr	   *op = (OpExpr *) qual;
	Oid			opno;
	Node	   *left;
	Node	   *right;
	int			strategy;

	if (!IsA(qual, OpExpr) || list_length(op->args) != 2)
		return false;
	opno = op->opno;
	left = linitial(op->args);
	right = lsecond(op->args);
	if (IsA(right, WindowFunc))
	{
		opno = get_commutator(opno);
		left = lsecond(op->args);
		right = linitial(op->args);
	}
	if (!OidIsValid(opno) || !IsA(left, WindowFunc) || !integer_value(right, most))
		return false;
	/* others of the same names are a user's, and can mean anything */
	strategy = get_op_opfamily_strategy(opno, INTEGER_BTREE_FAM_OID);
	*exactly = strategy != BTEqualStrategyNumber;
	if (strategy == BTLessStrategyNumber)
		*most = Max(*most, PG_INT64_MIN + 1) - 1;
	return strategy == BTLessStrategyNumber || strategy == BTLessEqualStrategyNumber ||
		strategy == BTEqualStrategyNumber;
}

/*
 * How many rows of each group are asked for: by the least of the bounds.  What is left of the conditions comes into
 * *rest.
 */
static int64
read_bounds(ScAnalysis *an, Node *quals, List **rest)
{
	int64		result = PG_INT64_MAX;
	ListCell   *lc;

	foreach(lc, make_ands_implicit((Expr *) quals))
	{
		int64		most;
		bool		exactly;

		if (is_andclause(lfirst(lc)))
			most = read_bounds(an, (Node *) make_ands_explicit(((BoolExpr *) lfirst(lc))->args), rest);
		else if (read_bound(lfirst(lc), &most, &exactly))
		{
			if (!exactly)
				*rest = lappend(*rest, lfirst(lc));
		}
		else
		{
			*rest = lappend(*rest, lfirst(lc));
			continue;
		}
		result = Min(result, most);
	}
	return result;
}

/* Takes the bound out of the conditions above the subquery, whose rest becomes HAVING. */
static void
set_bound(ScAnalysis *an, Node *quals, Query *query)
{
	List	   *rest = NIL;
	int64		most = read_bounds(an, quals, &rest);

	if (most == PG_INT64_MAX)
		sc_refuse_clause(an, an->best_call->location, psprintf("%s() without an upper bound", sc_best_function(an)), BOUND_HINT);
	if (most < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no row has a %s() of " INT64_FORMAT, sc_best_function(an), most),
				 errhint("Row numbers begin with 1."),
				 sc_errposition(an, an->best_call->location)));
	if (most > MOST_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a %s() of up to " INT64_FORMAT " is too much", sc_best_function(an), most),
				 errdetail("All rows of a key up to that number are in one state; at most %d can be.", MOST_ROWS),
				 errhint("Keep fewer rows of each key, or have more keys in PARTITION BY."),
				 sc_errposition(an, an->best_call->location)));
	an->best->n = most;
	query->havingQual = rest == NIL ? NULL : (Node *) make_ands_explicit(rest);
}

static bool
find_subquery(Node *node, int *location)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
	{
		*location = ((SubLink *) node)->location;
		return true;
	}
	return expression_tree_walker(node, find_subquery, location);
}

/* What is above the numbers is computed of rows that are kept. */
static void
refuse_subquery(ScAnalysis *an, Query *outer)
{
	int			location = -1;

	if (!outer->hasSubLinks)
		return;
	if (!find_subquery((Node *) outer->targetList, &location))
		(void) find_subquery(outer->jointree->quals, &location);
	sc_refuse_clause(an, location, "a subquery above numbered rows",
					 "Write it into the SELECT that numbers the rows, or ask it when you read the result table.");
}

/* A SELECT over a subquery that numbers rows becomes one over the stream. */
static void
rewrite_numbered(ScAnalysis *an, Query *outer, Query *inner, int varno)
{
	Query	   *query = copyObject(inner);
	Replace		replace = {.varno = varno,.targets = inner->targetList};
	WindowClause *window;

	(void) check_function((Node *) query->targetList, an);
	if (an->best_call == NULL)	/* only in ORDER BY, which is refused */
		return;
	refuse_subquery(an, outer);
	replace.names = rt_fetch(varno, outer->rtable)->eref->colnames;
	an->numbered = true;
	an->core_location = exprLocation((Node *) inner->targetList);
	an->best = palloc0(sizeof(ScBestRows));
	an->best->ranking = an->best_call->winfnoid == F_RANK_ ? SC_RANK :
		an->best_call->winfnoid == F_DENSE_RANK_ ? SC_DENSE_RANK : SC_ROW_NUMBER;
	an->grouping = "PARTITION BY";
	window = list_nth_node(WindowClause, query->windowClause, an->best_call->winref - 1);
	query->targetList = make_targets(outer, inner, &replace);
	query->groupClause = move_clauses(window->partitionClause, inner, query->targetList);
	an->best_order = move_clauses(window->orderClause, inner, query->targetList);
	query->windowClause = NIL;
	query->hasWindowFuncs = false;
	set_bound(an, replace_columns(outer->jointree->quals, &replace), query);
	an->query = query;
}

void
sc_rewrite_best_rows(ScAnalysis *an)
{
	Query	   *query = an->query;
	Query	   *inner;
	int			varno;

	if (query->hasDistinctOn)
	{
		rewrite_distinct_on(an);
		return;
	}
	/* what else is above the subquery is refused, or somebody else's */
	if (has_upper_part(query) || query->hasWindowFuncs || query->distinctClause != NIL)
		return;
	inner = numbered_rows(query, &varno);
	if (inner == NULL)
		return;
	sc_check_order(an);
	rewrite_numbered(an, query, inner, varno);
}
