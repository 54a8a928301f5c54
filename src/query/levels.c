/*-------------------------------------------------------------------------
 * levels.c
 *	  Finds the core level of a definition: the SELECT that has the stream in FROM.
 *
 * A definition can have more above it: the core level is a subquery, a CTE or an arm of a set operation then, and its
 * rows are what the rest reads.  Window functions and DISTINCT of a core level with GROUP BY come after its groups, too:
 * such a SELECT becomes two, one that groups, and one above it.  In what is above the core's rows come from a named
 * tuplestore (ScUpper); window_local.c says whether it can be run window by window.
 *
 * All that is done in an->upper and an->query, copies of the definition.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "query/query_internal.h"

/* What the planner takes a window to have; what there really is differs from window to window. */
#define TYPICAL_ROWS	1000

/* ---------- finding it ---------- */

static bool
is_relation(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_RELATION;
}

static bool
is_stream(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_RELATION && sc_stream_by_relid(rte->relid, true) != NULL;
}

static bool
is_query(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_SUBQUERY || rte->rtekind == RTE_CTE;
}

/* Has FROM, or a part of it, such an item? */
static bool
has_item(Query *query, Node *item, bool (*is_one) (const RangeTblEntry *rte))
{
	ListCell   *lc;

	if (item == NULL)
		return false;
	if (IsA(item, FromExpr))
	{
		foreach(lc, ((FromExpr *) item)->fromlist)
		{
			if (has_item(query, lfirst(lc), is_one))
				return true;
		}
		return false;
	}
	if (IsA(item, JoinExpr))
		return has_item(query, ((JoinExpr *) item)->larg, is_one) ||
			has_item(query, ((JoinExpr *) item)->rarg, is_one);
	return IsA(item, RangeTblRef) && is_one(rt_fetch(((RangeTblRef *) item)->rtindex, query->rtable));
}

/* May the core be another SELECT than the definition itself? */
static bool
has_levels(Query *query)
{
	Node	   *from = (Node *) query->jointree;

	return query->commandType == CMD_SELECT &&
		(query->setOperations != NULL || query->cteList != NIL ||
		 has_item(query, from, is_query) || !has_item(query, from, is_relation));
}

bool
sc_has_upper_part(Query *query)
{
	return has_levels(query) || query->hasWindowFuncs || query->distinctClause != NIL;
}

typedef struct Search
{
	List	   *streams;		/* of Query *: SELECTs over a stream, from above and left */
	List	   *relations;		/* over any relation */
	List	   *path;			/* of Query *: what is looked at, and what it is in, from within */
	List	   *around;			/* of Query *: what the first of "streams" is in */
} Search;

/* Collects the SELECTs; never ends the walk. */
static bool
search_walker(Node *node, Search *search)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (has_item(query, (Node *) query->jointree, is_stream))
		{
			if (search->streams == NIL)
				search->around = list_copy(search->path);
			search->streams = lappend(search->streams, query);
		}
		if (has_item(query, (Node *) query->jointree, is_relation))
			search->relations = lappend(search->relations, query);
		search->path = lcons(query, search->path);
		(void) query_tree_walker(query, search_walker, search, 0);
		search->path = list_delete_first(search->path);
		return false;
	}
	return expression_tree_walker(node, search_walker, search);
}

/* The one SELECT over a stream, and what it is in; if there is none, another one, whose FROM is what is wrong. */
static Query *
find_core(ScAnalysis *an, List **around)
{
	Search		search = {NIL, NIL};

	(void) search_walker((Node *) an->query, &search);
	if (list_length(search.streams) > 1)
		sc_refuse_clause(an, exprLocation((Node *) lsecond_node(Query, search.streams)->targetList),
						 "a second SELECT over a stream",
						 "Read the stream once, in a CTE with GROUP BY, and name that as often as you like: WITH c AS (SELECT ... FROM stream, stream_ckpt.tumble(event_time, '1 minute') w GROUP BY ...) SELECT ... FROM c ...");
	if (search.streams != NIL)
	{
		*around = search.around;
		return linitial(search.streams);
	}
	return search.relations != NIL ? linitial(search.relations) : an->query;
}

/* ---------- its rows from a tuplestore ---------- */

/* The entry of a range table stands for the core's rows from now on. */
static void
read_core_rows(RangeTblEntry *rte, Query *core)
{
	RangeTblEntry *rows = makeNode(RangeTblEntry);
	ListCell   *lc;

	rows->rtekind = RTE_NAMEDTUPLESTORE;
	rows->alias = rte->alias;
	rows->eref = rte->eref;
	rows->inFromCl = rte->inFromCl;
	rows->enrname = pstrdup(SC_CORE_ROWS);
	rows->enrtuples = TYPICAL_ROWS;
	foreach(lc, core->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		rows->coltypes = lappend_oid(rows->coltypes, exprType((Node *) target->expr));
		rows->coltypmods = lappend_int(rows->coltypmods, exprTypmod((Node *) target->expr));
		rows->colcollations = lappend_oid(rows->colcollations, exprCollation((Node *) target->expr));
	}
	*rte = *rows;
}

/* An arm of a set operation: those are subqueries, whatever they read. */
static void
read_core_rows_in_arm(RangeTblEntry *rte, Query *core)
{
	Query	   *arm = makeNode(Query);
	RangeTblEntry *rows = copyObject(rte);
	RangeTblRef *ref = makeNode(RangeTblRef);
	ListCell   *lc;

	rows->inFromCl = true;
	read_core_rows(rows, core);
	ref->rtindex = 1;
	arm->commandType = CMD_SELECT;
	arm->canSetTag = true;
	arm->rtable = list_make1(rows);
	arm->jointree = makeFromExpr(list_make1(ref), NULL);
	foreach(lc, core->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		AttrNumber	column = list_length(arm->targetList) + 1;

		if (!target->resjunk)
			arm->targetList = lappend(arm->targetList,
									  makeTargetEntry((Expr *) makeVarFromTargetEntry(1, target), column, target->resname, false));
	}
	foreach(lc, arm->targetList)
		((Var *) lfirst_node(TargetEntry, lc)->expr)->varattno = foreach_current_index(lc) + 1;
	rte->subquery = arm;
}

typedef struct Replacement
{
	Query	   *core;
	Query	   *owner;			/* whose CTE it is; NULL: not met yet, or no CTE */
	char	   *name;			/* of the CTE */
	int			depth;			/* levels below the owner */
	bool		done;
} Replacement;

/* The CTE of the query that is the core, or NULL. */
static CommonTableExpr *
core_cte(Query *query, Query *core)
{
	ListCell   *lc;

	foreach(lc, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (cte->ctequery == (Node *) core)
			return cte;
	}
	return NULL;
}

/* Is the entry a reference to the core? */
static bool
refers_to_core(RangeTblEntry *rte, Replacement *replacement)
{
	if (rte->rtekind == RTE_SUBQUERY)
		return rte->subquery == replacement->core;
	return rte->rtekind == RTE_CTE && replacement->owner != NULL &&
		rte->ctelevelsup == replacement->depth && strcmp(rte->ctename, replacement->name) == 0;
}

static bool replace_walker(Node *node, Replacement *replacement);

/* In one query, which is replacement->depth levels below the owner of the CTE that is the core, if there is one. */
static void
replace_in_query(Query *query, Replacement *replacement)
{
	CommonTableExpr *cte = core_cte(query, replacement->core);
	ListCell   *lc;

	if (cte != NULL)
	{
		replacement->owner = query;
		replacement->name = cte->ctename;
		replacement->depth = 0;
		query->cteList = list_delete_ptr(query->cteList, cte);
	}
	if (query->setOperations != NULL)
	{
		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_SUBQUERY && rte->subquery == replacement->core)
				read_core_rows_in_arm(rte, replacement->core);
		}
	}
	(void) query_tree_walker(query, replace_walker, replacement, QTW_EXAMINE_RTES_BEFORE);
	if (cte != NULL)
		replacement->owner = NULL;
}

/* Never ends the walk. */
static bool
replace_walker(Node *node, Replacement *replacement)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		if (refers_to_core((RangeTblEntry *) node, replacement))
			read_core_rows((RangeTblEntry *) node, replacement->core);
		return false;
	}
	if (IsA(node, Query))
	{
		replacement->depth++;
		replace_in_query((Query *) node, replacement);
		replacement->depth--;
		return false;
	}
	return expression_tree_walker(node, replace_walker, replacement);
}

/* ---------- a core level with window functions or DISTINCT ---------- */

typedef struct LevelSplit
{
	ScAnalysis *an;
	List	   *exprs;			/* of Node *: what the level above reads, column by column */
	int			ngrouped;		/* so many of them are items of GROUP BY */
} LevelSplit;

/* The column of the core for an expression of its level, as the level above reads it. */
static Node *
core_column(LevelSplit *split, Node *expr)
{
	Var		   *var;
	int			column = 0;
	ListCell   *lc;

	foreach(lc, split->exprs)
	{
		if (equal(lfirst(lc), expr))
			break;
		column++;
	}
	if (column == list_length(split->exprs))
		split->exprs = lappend(split->exprs, expr);
	var = makeVar(1, column + 1, exprType(expr), exprTypmod(expr), exprCollation(expr), 0);
	var->location = exprLocation(expr);
	return (Node *) var;
}

static bool
is_grouped(LevelSplit *split, Node *expr)
{
	for (int i = 0; i < split->ngrouped; i++)
	{
		if (equal(list_nth(split->exprs, i), expr))
			return true;
	}
	return false;
}

/* Of an expression of the level makes one over the rows of its groups. */
static Node *
above_groups(Node *node, LevelSplit *split)
{
	if (node == NULL)
		return NULL;
	if (is_grouped(split, node) || IsA(node, Aggref) || IsA(node, GroupingFunc) || IsA(node, Var))
		return core_column(split, node);
	if (IsA(node, SubLink))
		sc_refuse_clause(split->an, ((SubLink *) node)->location, "a subquery beside GROUP BY",
						 "Use it a level above: SELECT ... FROM (SELECT ... GROUP BY ...) t.");
	return expression_tree_mutator(node, above_groups, split);
}

/* Does the level do something with its groups that is more than a projection? */
static bool
needs_split(Query *level)
{
	return (level->groupClause != NIL || level->groupingSets != NIL || level->hasAggs || level->havingQual != NULL) &&
		(level->hasWindowFuncs || level->distinctClause != NIL);
}

/* What a column of the core's is called, for those who read a plan: as in the level's select list, if it is there. */
static char *
name_column(Query *level, Node *expr, int number)
{
	ListCell   *lc;

	foreach(lc, level->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resname != NULL && equal(target->expr, expr))
			return pstrdup(target->resname);
	}
	return psprintf("column_%d", number);
}

/* The items of GROUP BY are the core's first columns. */
static List *
grouped_columns(LevelSplit *split, Query *level)
{
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, level->groupClause)
	{
		SortGroupClause *item = lfirst_node(SortGroupClause, lc);
		TargetEntry *target = get_sortgroupclause_tle(item, level->targetList);
		TargetEntry *column = makeTargetEntry(copyObject(target->expr), list_length(columns) + 1,
											  name_column(level, (Node *) target->expr, list_length(columns) + 1), false);

		column->ressortgroupref = item->tleSortGroupRef;
		columns = lappend(columns, column);
		split->exprs = lappend(split->exprs, column->expr);
	}
	split->ngrouped = list_length(columns);
	return columns;
}

/*
 * Makes two SELECTs of the level: "level" is the upper one from now on, and what is returned the one with GROUP BY,
 * whose rows it reads.
 */
static Query *
split_level(ScAnalysis *an, Query *level)
{
	LevelSplit	split = {.an = an};
	Query	   *core = makeNode(Query);
	Query	   *upper = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef *ref = makeNode(RangeTblRef);
	List	   *target;
	List	   *names = NIL;
	ListCell   *lc;

	target = (List *) sc_flatten_group_exprs(level, (Node *) level->targetList);
	target = (List *) sc_flatten_join_alias_vars(level, (Node *) target);
	level->targetList = target;
	*core = *level;
	core->hasWindowFuncs = core->hasDistinctOn = core->hasTargetSRFs = false;
	core->windowClause = core->distinctClause = core->sortClause = NIL;
	core->limitCount = core->limitOffset = NULL;
	core->targetList = grouped_columns(&split, level);

	upper->commandType = CMD_SELECT;
	upper->querySource = level->querySource;
	upper->canSetTag = true;
	upper->hasWindowFuncs = level->hasWindowFuncs;
	upper->hasDistinctOn = level->hasDistinctOn;
	upper->hasTargetSRFs = level->hasTargetSRFs;
	upper->distinctClause = level->distinctClause;
	upper->sortClause = level->sortClause;
	upper->limitCount = level->limitCount;
	upper->limitOffset = level->limitOffset;
	upper->limitOption = level->limitOption;
	upper->rowMarks = level->rowMarks;
	upper->targetList = (List *) above_groups((Node *) target, &split);
	upper->windowClause = (List *) above_groups((Node *) level->windowClause, &split);
	for (int i = split.ngrouped; i < list_length(split.exprs); i++)
		core->targetList = lappend(core->targetList,
								   makeTargetEntry(copyObject(list_nth(split.exprs, i)), i + 1,
												   name_column(level, list_nth(split.exprs, i), i + 1), false));

	foreach(lc, core->targetList)
		names = lappend(names, makeString(lfirst_node(TargetEntry, lc)->resname));
	rte->eref = makeAlias("core", names);
	rte->inFromCl = true;
	read_core_rows(rte, core);
	ref->rtindex = 1;
	upper->rtable = list_make1(rte);
	upper->jointree = makeFromExpr(list_make1(ref), NULL);
	*level = *upper;
	return core;
}

void
sc_find_core(ScAnalysis *an)
{
	List	   *around = NIL;
	Query	   *level = has_levels(an->query) ? find_core(an, &around) : an->query;

	sc_rewrite_distinct(an, level);
	if (level != an->query)
		an->core_location = exprLocation((Node *) level->targetList);
	if (around != NIL)
		sc_adopt_ctes(level, around);
	if (needs_split(level))
	{
		an->upper = an->query;
		an->query = split_level(an, level);
	}
	else if (level != an->query)
	{
		Replacement replacement = {.core = level};

		an->upper = an->query;
		replace_in_query(an->upper, &replacement);
		an->query = level;
	}
}
