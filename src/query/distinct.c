/*-------------------------------------------------------------------------
 * distinct.c
 *	  SELECT DISTINCT as what it is: GROUP BY all columns.
 *
 * The query tree is made one with GROUP BY, and everything behind this knows nothing else.  Of a query that has groups
 * already, DISTINCT changes nothing if all keys are shown.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "query/query_internal.h"

/* Are all items of GROUP BY among the columns, so that no two groups make the same row? */
static bool
shows_all_keys(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->groupClause)
	{
		if (get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), query->targetList)->resjunk)
			return false;
	}
	return true;
}

/* The columns as items of GROUP BY; of those that are the same the first one. */
static List *
different_columns(Query *query)
{
	List	   *exprs = NIL;
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, query->distinctClause)
	{
		Node	   *expr = get_sortgroupclause_expr(lfirst_node(SortGroupClause, lc), query->targetList);

		if (list_member(exprs, expr))
			continue;
		exprs = lappend(exprs, expr);
		result = lappend(result, lfirst(lc));
	}
	return result;
}

/* What can't be made GROUP BY keeps its DISTINCT: that is done above its groups (levels.c), or refused (clauses.c). */
void
sc_rewrite_distinct(ScAnalysis *an, Query *query)
{
	bool		has_groups = query->groupClause != NIL || query->hasAggs || query->havingQual != NULL;

	if (an->best != NULL || query->distinctClause == NIL || query->hasDistinctOn || query->groupingSets != NIL ||
		query->hasWindowFuncs || query->hasTargetSRFs)
		return;
	if (has_groups && !shows_all_keys(query))
		return;
	if (!has_groups)
	{
		query->groupClause = different_columns(query);
		an->grouping = "SELECT DISTINCT";
	}
	query->distinctClause = NIL;
}
