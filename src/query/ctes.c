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

/* An item that is copied, or being copied: names alone don't tell them apart, as an inner one hides an outer one. */
typedef struct Adopted
{
	int			level;			/* of Adoption.levels: whose it is */
	const char *name;			/* there */
	char	   *copy;			/* what the core calls it */
} Adopted;

typedef struct Adoption
{
	Query	   *core;
	List	   *levels;			/* of Query *: the core, and what is around it, from within */
	int			level;			/* of them, to which what is looked at belongs */
	int			depth;			/* so many levels below that one */
	List	  **adopted;		/* of Adopted * */
	List	  **copies;			/* of CommonTableExpr *: each behind those that it reads */
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

static Adopted *
find_adopted(const Adoption *adoption, int level, const char *name)
{
	ListCell   *lc;

	foreach(lc, *adoption->adopted)
	{
		Adopted    *adopted = lfirst(lc);

		if (adopted->level == level && strcmp(adopted->name, name) == 0)
			return adopted;
	}
	return NULL;
}

/* Has the core an item of that name, or will it have one? */
static bool
is_taken(const Adoption *adoption, const char *name)
{
	ListCell   *lc;

	foreach(lc, *adoption->adopted)
	{
		if (strcmp(((Adopted *) lfirst(lc))->copy, name) == 0)
			return true;
	}
	return find_item(adoption->core->cteList, name) != NULL;
}

/* Its own name, or one made of it that isn't taken. */
static char *
choose_name(const Adoption *adoption, const char *name)
{
	char	   *result = pstrdup(name);

	for (int i = 1; is_taken(adoption, result); i++)
		result = psprintf("%s_%d", name, i);
	return result;
}

/* Copies an item of that level, and those that it reads itself, for the core; once.  What the core calls it. */
static char *
adopt_item(const Adoption *adoption, int level, const char *name)
{
	Adoption	within = *adoption;
	Adopted    *adopted = find_adopted(adoption, level, name);
	CommonTableExpr *cte;

	if (adopted != NULL)
		return adopted->copy;
	cte = find_item(list_nth_node(Query, adoption->levels, level)->cteList, name);
	if (cte == NULL)
		elog(ERROR, "no item \"%s\" in WITH", name);
	cte = copyObject(cte);
	adopted = palloc(sizeof(Adopted));
	adopted->level = level;
	adopted->name = name;
	adopted->copy = cte->ctename = choose_name(adoption, name);
	*adoption->adopted = lappend(*adoption->adopted, adopted);
	within.level = level;
	within.depth = 0;
	(void) adopt_walker(cte->ctequery, &within);
	*adoption->copies = lappend(*adoption->copies, cte);
	adoption->core->hasRecursive |= cte->cterecursive;
	return adopted->copy;
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
			rte->ctename = pstrdup(adopt_item(adoption, level, rte->ctename));
		rte->ctelevelsup = adoption->depth;
	}
	return false;
}

typedef struct Count
{
	const char *name;
	Node	   *within;			/* the item's own query: what is there doesn't count */
	int			depth;
	int			references;
} Count;

static bool
count_walker(Node *node, Count *count)
{
	RangeTblEntry *rte = (RangeTblEntry *) node;

	if (node == NULL || node == count->within)
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
		Count		count = {.name = cte->ctename,.within = cte->ctequery};

		(void) query_tree_walker(query, count_walker, &count, QTW_EXAMINE_RTES_BEFORE);
		cte->cterefcount = count.references;
	}
}

/* Drops items that nothing reads, until there are none.  It stays recursive if one of the others is. */
static void
drop_unread(Query *query)
{
	int			before;
	bool		recursive = false;
	ListCell   *lc_left;

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
	foreach(lc_left, query->cteList)
		recursive |= lfirst_node(CommonTableExpr, lc_left)->cterecursive;
	query->hasRecursive &= recursive;
}

void
sc_adopt_ctes(Query *core, List *around)
{
	List	   *adopted = NIL;
	List	   *copies = NIL;
	Adoption	adoption = {.core = core,.levels = lcons(core, list_copy(around)),.adopted = &adopted,.copies = &copies};
	ListCell   *lc;

	(void) query_tree_walker(core, adopt_walker, &adoption, QTW_EXAMINE_RTES_BEFORE);
	if (adopted == NIL)
		return;
	/* the core's own can read them, and the planner wants what is read first */
	core->cteList = list_concat(copies, core->cteList);
	count_references(core);
	foreach(lc, around)
		drop_unread(lfirst_node(Query, lc));
}
