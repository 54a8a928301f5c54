/*-------------------------------------------------------------------------
 * compat.c
 *	  What compat.h promises and takes more than a macro.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#if PG_VERSION_NUM >= 180000

/* Gives the columns of the GROUP BY entry, which have none, their expressions' locations. */
static bool
locate_group_vars(Node *node, Query *query)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		RangeTblEntry *rte;

		if (var->varlevelsup > 0 || var->varattno <= 0 || var->location >= 0)
			return false;
		rte = rt_fetch(var->varno, query->rtable);
		if (rte->rtekind == RTE_GROUP)
			var->location = exprLocation(list_nth(rte->groupexprs, var->varattno - 1));
		return false;
	}
	return expression_tree_walker(node, locate_group_vars, query);
}

/* flatten_group_exprs takes the location from the column, for errors. */
Node *
sc_flatten_group_exprs(Query *query, Node *node)
{
	if (!query->hasGroupRTE)
		return node;
	(void) locate_group_vars(node, query);
	return flatten_group_exprs(NULL, query, node);
}

#endif

#if PG_VERSION_NUM < 160000

/* NULL where there is none of that name. */
struct config_generic *
sc_find_setting(const char *name)
{
	struct config_generic **settings = get_guc_variables();
	int			count = GetNumConfigOptions();

	for (int i = 0; i < count; i++)
	{
		if (strcmp(settings[i]->name, name) == 0)
			return settings[i];
	}
	return NULL;
}

#endif
