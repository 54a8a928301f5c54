/*-------------------------------------------------------------------------
 * ctes.c
 *	  WITH items of a definition that its core level reads, whichever SELECT above it they belong to:
 *
 *	  WITH c AS (SELECT ... FROM customers), n AS (SELECT ... FROM stream JOIN c ... GROUP BY ...) SELECT ... FROM n
 *
 * The core level becomes a query of its own, so it gets copies of them; what is above doesn't have them any more, unless it
 * reads them, too.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"
#include "query/query_internal.h"

typedef struct Adoption
{
	ScAnalysis *an;
	Query	   *core;
	List	   *levels;			/* of Query *: the core, and what is around it, from within */
	int			level;			/* of them, to which what is looked at belongs */
	int			depth;			/* so many levels below that one */
	List	   *begun;			/* of char *: names of items that are copied, or being copied */
} Adoption;

static bool adopt_walker(Node *node, Adoption *adoption);

static CommonTableExpr *
find_item(List *items, const char *name)
{
	ListCell   *lc;

	foreach(lc, items)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (strcmp(cte->ctename, name) == 0)
			return cte;
	}
	return NULL;
}

/* Copies an item of that level to the core, behind those that it reads itself. */
static void
adopt_item(Adoption *adoption, int level, const char *name)
{
	Adoption	within = *adoption;
	CommonTableExpr *cte;

	if (list_member(adoption->begun, makeString((char *) name)))
		return;
	cte = find_item(adoption->core->cteList, name);
	if (cte != NULL)
		sc_refuse_clause(adoption->an, cte->location, psprintf("a second WITH item of the name \"%s\"", name),
						 "Give one of them another name.");
	adoption->begun = lappend(adoption->begun, makeString((char *) name));
	cte = find_item(list_nth_node(Query, adoption->levels, level)->cteList, name);
	if (cte == NULL)
		elog(ERROR, "no item \"%s\" in WITH", name);
	cte = copyObject(cte);
	within.level = level;
	within.depth = 0;
	within.begun = adoption->begun;
	(void) adopt_walker(cte->ctequery, &within);
	adoption->begun = within.begun;
	adoption->core->cteList = lappend(adoption->core->cteList, cte);
	adoption->core->hasRecursive |= cte->cterecursive;
}

/* References to items from outside the core become such to its own. */
static bool
adopt_walker(Node *node, Adoption *adoption)
{
	RangeTblEntry *rte = (RangeTblEntry *) node;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		adoption->depth++;
		(void) query_tree_walker((Query *) node, adopt_walker, adoption, QTW_EXAMINE_RTES_BEFORE);
		adoption->depth--;
		return false;
	}
	if (!IsA(node, RangeTblEntry))
		return expression_tree_walker(node, adopt_walker, adoption);
	if (rte->rtekind == RTE_CTE && (int) rte->ctelevelsup >= adoption->depth)
	{
		int			level = adoption->level + rte->ctelevelsup - adoption->depth;

		/* an item of the core's own is there; others are of the level that the copies are of, or around it */
		if (level > 0)
			adopt_item(adoption, level, rte->ctename);
		rte->ctelevelsup = adoption->depth;
	}
	return false;
}

typedef struct Count
{
	const char *name;
	int			depth;
	int			references;
} Count;

static bool
count_walker(Node *node, Count *count)
{
	RangeTblEntry *rte = (RangeTblEntry *) node;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		count->depth++;
		(void) query_tree_walker((Query *) node, count_walker, count, QTW_EXAMINE_RTES_BEFORE);
		count->depth--;
		return false;
	}
	if (!IsA(node, RangeTblEntry))
		return expression_tree_walker(node, count_walker, count);
	if (rte->rtekind == RTE_CTE && rte->ctelevelsup == count->depth && strcmp(rte->ctename, count->name) == 0)
		count->references++;
	return false;
}

/* The planner leaves out what nothing refers to, and inlines what one does. */
static void
count_references(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);
		Count		count = {.name = cte->ctename};

		(void) query_tree_walker(query, count_walker, &count, QTW_EXAMINE_RTES_BEFORE);
		cte->cterefcount = count.references;
	}
}

/* Drops items that nothing reads, until there are none. */
static void
drop_unread(Query *query)
{
	int			before;

	do
	{
		ListCell   *lc;

		before = list_length(query->cteList);
		count_references(query);
		foreach(lc, query->cteList)
		{
			if (lfirst_node(CommonTableExpr, lc)->cterefcount == 0)
				query->cteList = foreach_delete_current(query->cteList, lc);
		}
	} while (list_length(query->cteList) < before);
}

void
sc_adopt_ctes(ScAnalysis *an, Query *core, List *around)
{
	Adoption	adoption = {.an = an,.core = core,.levels = lcons(core, list_copy(around))};
	ListCell   *lc;

	(void) query_tree_walker(core, adopt_walker, &adoption, QTW_EXAMINE_RTES_BEFORE);
	if (adoption.begun == NIL)
		return;
	count_references(core);
	foreach(lc, around)
		drop_unread(lfirst_node(Query, lc));
}
