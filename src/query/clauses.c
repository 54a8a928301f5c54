/*-------------------------------------------------------------------------
 * clauses.c
 *	  Refuses the clauses of a SELECT that a continuous query can't have, or not
 *	  yet: one function per clause, each naming it and saying what to do instead.
 *
 * GROUP BY itself is read by split.c, FROM by from.c.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "query/query_internal.h"

void
sc_refuse_clause(ScAnalysis *an, int location, const char *clause, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not supported in a continuous query", clause),
			 errhint("%s", hint),
			 sc_errposition(an, location)));
}

/* Location of the expression that a SortGroupClause sorts or groups by. */
static int
sort_group_location(ScAnalysis *an, List *clauses)
{
	return exprLocation(get_sortgroupclause_expr(linitial_node(SortGroupClause, clauses),
												 an->query->targetList));
}

static void
refuse_other_statements(ScAnalysis *an)
{
	Query	   *query = an->query;

	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		sc_refuse_clause(an, Max(query->stmt_location, 0), "a statement other than SELECT",
						 "Write the definition as one SELECT.");
}

/* Location of the select list of a set operation's right arm. */
static int
set_operation_location(ScAnalysis *an, SetOperationStmt *setop)
{
	Node	   *arm = setop->rarg;
	RangeTblEntry *rte;

	while (IsA(arm, SetOperationStmt))
		arm = ((SetOperationStmt *) arm)->larg;
	rte = rt_fetch(castNode(RangeTblRef, arm)->rtindex, an->query->rtable);
	return exprLocation((Node *) rte->subquery->targetList);
}

/* Names the topmost operation, at its place in the text. */
static void
refuse_set_operations(ScAnalysis *an)
{
	SetOperationStmt *setop = (SetOperationStmt *) an->query->setOperations;
	const char *name = "UNION";

	if (setop == NULL)
		return;
	if (setop->op == SETOP_INTERSECT)
		name = "INTERSECT";
	else if (setop->op == SETOP_EXCEPT)
		name = "EXCEPT";
	sc_refuse_clause(an, set_operation_location(an, setop), name,
					 "Create one continuous query for each SELECT, and combine their result tables in a view.");
}

/* What could be made GROUP BY isn't here any more (distinct.c). */
static void
refuse_distinct(ScAnalysis *an)
{
	Query	   *query = an->query;

	/* window functions are refused by themselves */
	if (query->distinctClause == NIL || query->hasWindowFuncs)
		return;
	if (query->hasDistinctOn)
		sc_refuse_clause(an, sort_group_location(an, query->distinctClause), "DISTINCT ON below another SELECT",
						 "Make it a definition of its own, and what is above it a plain view over the result table.");
	if (an->best != NULL)
		sc_refuse_clause(an, sort_group_location(an, query->distinctClause), "SELECT DISTINCT of numbered rows",
						 "Leave it out: no two rows of a key have the same number.");
	sc_refuse_clause(an, sort_group_location(an, query->distinctClause),
					 "SELECT DISTINCT of groups whose keys are not all in the select list",
					 "Add every item of GROUP BY to the select list, or apply DISTINCT to the result table when you read it.");
}

static void
refuse_order_by(ScAnalysis *an)
{
	Query	   *query = an->query;

	if (query->sortClause != NIL)
		sc_refuse_clause(an, sc_order_by_location(an), "ORDER BY",
						 "Sort when you read the result table. ORDER BY inside an aggregate is supported.");
}

static void
refuse_limit(ScAnalysis *an)
{
	Query	   *query = an->query;

	if (query->limitCount != NULL)
		sc_refuse_clause(an, exprLocation(query->limitCount), "LIMIT",
						 "Limit the rows when you read the result table. For the best rows of each window number them, row_number() OVER (PARTITION BY window_start ORDER BY ...) AS rn in a subquery, and keep those WHERE rn <= ....");
	if (query->limitOffset != NULL)
		sc_refuse_clause(an, exprLocation(query->limitOffset), "OFFSET",
						 "Skip rows when you read the result table.");
}

/* Names the first lock in its own words. */
static void
refuse_row_locks(ScAnalysis *an)
{
	RowMarkClause *mark;
	const char *name = "FOR UPDATE";

	if (an->query->rowMarks == NIL)
		return;
	mark = linitial_node(RowMarkClause, an->query->rowMarks);
	if (mark->strength == LCS_FORNOKEYUPDATE)
		name = "FOR NO KEY UPDATE";
	else if (mark->strength == LCS_FORSHARE)
		name = "FOR SHARE";
	else if (mark->strength == LCS_FORKEYSHARE)
		name = "FOR KEY SHARE";
	sc_refuse_clause(an, sc_row_lock_location(an), name,
					 "Leave it out: a continuous query locks no rows.");
}

/* What may not be above rows that are numbered, either. */
void
sc_check_order(ScAnalysis *an)
{
	refuse_order_by(an);
	refuse_limit(an);
	refuse_row_locks(an);
}

static bool
find_window_function(Node *node, int *location)
{
	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc))
	{
		*location = ((WindowFunc *) node)->location;
		return true;
	}
	return expression_tree_walker(node, find_window_function, location);
}

/* OVER, and also a WINDOW clause that no function uses. */
static void
refuse_window_functions(ScAnalysis *an)
{
	Query	   *query = an->query;
	int			location = -1;

	if (query->hasWindowFuncs)
	{
		(void) find_window_function((Node *) query->targetList, &location);
		sc_refuse_clause(an, location, "a window function (OVER)",
						 "Apply it to the result table when you read it. For the best rows of each key number them, row_number() OVER (PARTITION BY key ORDER BY ...) AS rn in a subquery, and keep those WHERE rn <= 3.");
	}
	if (query->windowClause != NIL)
		sc_refuse_clause(an, sc_window_clause_location(an), "WINDOW",
						 "Leave it out: the window of a continuous query is in FROM, as stream_ckpt.tumble(...).");
}

/* The call of a window function below "node", or NULL. */
static bool
find_window_call(Node *node, int *location)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && sc_is_window_function(((FuncExpr *) node)->funcid))
	{
		*location = ((FuncExpr *) node)->location;
		return true;
	}
	return expression_tree_walker(node, find_window_call, location);
}

/* A window function outside FROM gets a hint of its own. */
static void
refuse_set_returning(ScAnalysis *an)
{
	int			location = -1;
	ListCell   *lc;

	if (!an->query->hasTargetSRFs)
		return;
	if (find_window_call((Node *) an->query->targetList, &location))
		sc_refuse_clause(an, location, "tumble() outside FROM",
						 "Move it to FROM, as in FROM stream, stream_ckpt.tumble(event_time, '1 minute') w, and group by w.window_start.");
	foreach(lc, an->query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (expression_returns_set((Node *) tle->expr))
			sc_refuse_clause(an, exprLocation((Node *) tle->expr),
							 "a set-returning function in the select list",
							 "Apply it to the result table when you read it.");
	}
}

/*
 * The result is a table: two of its columns can't have one name, and expressions without an
 * alias are named after their function.
 */
static void
refuse_equal_names(ScAnalysis *an)
{
	const Query *result = an->upper ? an->upper : an->query;
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, result->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		if (list_member(names, makeString(tle->resname)))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("the select list has two columns of the name \"%s\"", tle->resname),
					 errdetail("They are the columns of the result table."),
					 errhint("Give one of them another name with AS."),
					 sc_errposition(an, exprLocation((Node *) tle->expr))));
		names = lappend(names, makeString(tle->resname));
	}
}

/* Refuses what the shape of the SELECT as a whole forbids. */
void
sc_check_clauses(ScAnalysis *an)
{
	refuse_other_statements(an);
	refuse_set_operations(an);
	refuse_distinct(an);
	sc_check_order(an);
	refuse_window_functions(an);
	refuse_set_returning(an);
	refuse_equal_names(an);
}

/* After FROM was read. */
void
sc_check_with(ScAnalysis *an)
{
	Query	   *query = an->query;

	if (query->cteList != NIL && !an->has_source)
		sc_refuse_clause(an,
						 linitial_node(CommonTableExpr, query->cteList)->location,
						 "WITH",
						 "Write the definition as one SELECT over the stream.");
}
