/*-------------------------------------------------------------------------
 * window_local.c
 *	  Is the part of a definition above its core level window-local: is its result over all rows of the core the same as
 *	  those over the rows of each window, put together?
 *
 * A positive list: what isn't known to be is refused.  A *carrier* of a query's or an item's rows is a column that
 * always has the window of the core's rows from which they are made.  Carriers pass through FROM, WHERE, and bare columns
 * of select lists; core rows that are joined must be joined by equality of their windows, and neither side with core rows
 * may be joined to one without by an outer join that makes rows of its own; each GROUP BY, PARTITION BY and DISTINCT
 * must have a carrier.  So the result has one, which is how its windows are known.
 *
 * A subquery whose core rows are those of an outer row's window, by equality in its WHERE, is *pinned*: with the rows
 * of one window at hand it reads the same, so it may do with them whatever it likes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "parser/parsetree.h"
#include "query/carriers.h"
#include "utils/lsyscache.h"

static Shape *check_query(ScAnalysis *an, Query *query, Level *parent, const SubLink *link);

/* ---------- FROM ---------- */

/* Core rows of two windows would be joined. */
static void
refuse_join(Level *level, int location)
{
	const char *name = sc_window_name(level->an);

	sc_refuse_clause(level->an, location, "a join of windows",
					 psprintf("Join rows of one window only: ... ON a.%s = b.%s AND ...", name, name));
}

/* An outer join whose side without core rows is kept whole. */
static void
refuse_nullable(Level *level, int location)
{
	sc_refuse_clause(level->an, location, "an outer join that keeps rows without a window",
					 "Have the rows of windows on the side that is kept, as in FROM windows LEFT JOIN ....");
}

/* What the CTE to which an entry refers is. */
static Shape *
find_cte(Level *level, RangeTblEntry *rte)
{
	ListCell   *lc_name;
	ListCell   *lc_shape;

	for (Index i = 0; i < rte->ctelevelsup; i++)
		level = level->parent;
	forboth(lc_name, level->names, lc_shape, level->shapes)
	{
		if (strcmp(lfirst(lc_name), rte->ctename) == 0)
			return lfirst(lc_shape);
	}
	elog(ERROR, "CTE \"%s\" is not there", rte->ctename);
	return NULL;
}

/* The rows of a query as an item of FROM, where they need a carrier. */
static Components *
query_item(Level *level, int varno, Shape *shape, int location)
{
	List	   *carriers;

	level->pinned |= shape->pinned;
	if (!shape->reads)
		return NIL;
	carriers = sc_item_carriers(level, varno, shape->kinds);
	if (carriers == NIL)
		sc_refuse_clause(level->an, location,
						 psprintf("a subquery or CTE without %s in its select list", sc_window_name(level->an)),
						 "Add it there, as it is and not inside an expression: what is above is computed for each window.");
	return list_make1(carriers);
}

static int
query_location(Query *query)
{
	return exprLocation((Node *) query->targetList);
}

/* One item of FROM that is no join. */
static Components *
check_item(Level *level, int varno)
{
	ScAnalysis *an = level->an;
	RangeTblEntry *rte = rt_fetch(varno, level->query->rtable);
	Components *result = NIL;

	switch (rte->rtekind)
	{
		case RTE_NAMEDTUPLESTORE:
			if (an->core_kinds == NIL)
				sc_refuse_clause(an, an->core_location,
								 psprintf("a subquery or CTE over the stream without %s of the window in its select list",
										  sc_window_name(an)),
								 "Add it there, and to GROUP BY: what is above is computed for each window.");
			result = list_make1(sc_item_carriers(level, varno, an->core_kinds));
			break;
		case RTE_SUBQUERY:
			result = query_item(level, varno, check_query(an, rte->subquery, level, NULL), query_location(rte->subquery));
			break;
		case RTE_CTE:
			result = query_item(level, varno, find_cte(level, rte), query_location(level->query));
			break;
		case RTE_FUNCTION:
		case RTE_VALUES:
		case RTE_TABLEFUNC:
		case RTE_RESULT:
			break;
		default:
			sc_refuse_clause(an, sc_relation_location(an, rte->relid),
							 "a join with another relation",
							 "Join the table in the SELECT over the stream, below GROUP BY; or join the result table when you read it.");
	}
	return result;
}

static Components *check_from(Level *level, Node *item);

/* One join; its sides are looked at. */
static Components *
check_join(Level *level, JoinExpr *join)
{
	Components *left = check_from(level, join->larg);
	Components *right = check_from(level, join->rarg);
	List	   *quals = sc_conditions(level, join->quals);
	int			location = join->quals ? exprLocation(join->quals) : query_location(level->query);

	if (join->jointype == JOIN_INNER)
		return sc_link_components(list_concat(left, right), quals);
	/* what WHERE says comes after the join */
	if (list_length(left) > 1 || list_length(right) > 1 ||
		(left != NIL && right != NIL && !sc_are_linked(quals, linitial(left), linitial(right))))
		refuse_join(level, location);
	switch (join->jointype)
	{
		case JOIN_LEFT:
			if (left == NIL && right != NIL)
				refuse_nullable(level, location);
			return left;
		case JOIN_RIGHT:
			if (right == NIL && left != NIL)
				refuse_nullable(level, location);
			return right;
		default:
			if ((left == NIL) != (right == NIL))
				refuse_nullable(level, location);
			return left == NIL ? NIL : list_make1(sc_full_carriers(linitial(left), linitial(right)));
	}
}

static Components *
check_from(Level *level, Node *item)
{
	if (IsA(item, JoinExpr))
		return check_join(level, (JoinExpr *) item);
	return check_item(level, castNode(RangeTblRef, item)->rtindex);
}

/* ---------- subqueries in expressions ---------- */

static void
refuse_all_windows(ScAnalysis *an, const SubLink *link)
{
	const char *name = sc_window_name(an);

	sc_refuse_clause(an, link->location, "a subquery over all windows",
					 psprintf("Have it read the row's own window: WHERE inner.%s = outer.%s.", name, name));
}

/* Never ends the walk. */
static bool
check_sublinks(Node *node, Level *level)
{
	SubLink    *link = (SubLink *) node;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
	{
		Shape	   *shape = check_query(level->an, castNode(Query, link->subselect), level, link);

		if (shape->reads)
			refuse_all_windows(level->an, link);
		level->pinned |= shape->pinned;
		return check_sublinks(link->testexpr, level);
	}
	return expression_tree_walker(node, check_sublinks, level);
}

/* ---------- what is done with the rows ---------- */

/* Has each grouping set a carrier? */
static bool
sets_have_carrier(Query *query, List *target, List *carriers)
{
	ListCell   *lc;

	foreach(lc, expand_grouping_sets(query->groupingSets, query->groupDistinct, -1))
	{
		bool		found = false;
		ListCell   *lc_ref;

		foreach(lc_ref, (List *) lfirst(lc))
			found |= sc_carried(carriers, (Node *) get_sortgroupref_tle(lfirst_int(lc_ref), target)->expr) != 0;
		if (!found)
			return false;
	}
	return true;
}

/* GROUP BY, or aggregates without. */
static void
check_grouping(Level *level, List *target, List *carriers)
{
	Query	   *query = level->query;
	const char *name = sc_window_name(level->an);

	if (query->groupClause == NIL && query->groupingSets == NIL && !query->hasAggs && query->havingQual == NULL)
		return;
	if (query->groupingSets != NIL && !sets_have_carrier(query, target, carriers))
		sc_refuse_clause(level->an, query_location(query),
						 psprintf("a grouping set without %s", name),
						 psprintf("Have it in each set, as in GROUP BY %s, ROLLUP (...).", name));
	if (query->groupingSets == NIL && !sc_has_carrier(target, query->groupClause, carriers))
		sc_refuse_clause(level->an, query_location(query),
						 psprintf("an aggregation over windows (GROUP BY without %s)", name),
						 psprintf("Add %s to GROUP BY, as it is and not inside an expression; or aggregate the result table when you read it.",
								  name));
}

typedef struct CallSearch
{
	Index		winref;
	WindowFunc *call;
} CallSearch;

static bool
find_call(Node *node, CallSearch *search)
{
	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc) && ((WindowFunc *) node)->winref == search->winref)
	{
		search->call = (WindowFunc *) node;
		return true;
	}
	return expression_tree_walker(node, find_call, search);
}

/* OVER all windows: what of one key's windows is wanted can be had by a view. */
static void
refuse_over(Level *level, List *target, WindowClause *clause, List *carriers)
{
	CallSearch	search = {.winref = clause->winref};
	const char *name = sc_window_name(level->an);
	bool		ordered = sc_has_carrier(target, clause->orderClause, carriers);

	(void) find_call((Node *) target, &search);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("OVER without %s in PARTITION BY is not supported in a continuous query", name),
			 errdetail("Each window is computed when it closes, from its own rows alone."),
			 ordered && search.call != NULL ?
			 errhint("For %s() over windows leave it out here, and make a view over the result table: CREATE VIEW ... AS SELECT *, %s(...) OVER (PARTITION BY ... ORDER BY %s) FROM <result>.",
					 get_func_name(search.call->winfnoid), get_func_name(search.call->winfnoid), name) :
			 errhint("Write OVER (PARTITION BY %s ...), with %s as it is and not inside an expression.", name, name),
			 sc_errposition(level->an, search.call ? search.call->location : query_location(level->query))));
}

/* The carriers that are in all grouping sets, if there are any sets. */
static bool
is_in_all_sets(Query *query, List *target, TargetEntry *column)
{
	ListCell   *lc;

	if (query->groupingSets == NIL)
		return true;
	foreach(lc, expand_grouping_sets(query->groupingSets, query->groupDistinct, -1))
	{
		bool		found = false;
		ListCell   *lc_ref;

		foreach(lc_ref, (List *) lfirst(lc))
			found |= equal(get_sortgroupref_tle(lfirst_int(lc_ref), target)->expr, column->expr);
		if (!found)
			return false;
	}
	return true;
}

/* Does one of the clauses have a carrier that is still one behind GROUP BY?  In a set without it, it is NULL. */
static bool
has_carrier_of_groups(Level *level, List *target, List *clauses, List *carriers)
{
	List	   *kept = NIL;
	ListCell   *lc;

	foreach(lc, clauses)
	{
		if (is_in_all_sets(level->query, target, get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), target)))
			kept = lappend(kept, lfirst(lc));
	}
	return sc_has_carrier(target, kept, carriers);
}

static void
check_windows(Level *level, List *target, List *carriers)
{
	ListCell   *lc;

	foreach(lc, level->query->windowClause)
	{
		WindowClause *clause = lfirst_node(WindowClause, lc);

		if (!has_carrier_of_groups(level, target, clause->partitionClause, carriers))
			refuse_over(level, target, clause, carriers);
	}
}

static void
check_distinct(Level *level, List *target, List *carriers)
{
	Query	   *query = level->query;
	const char *name = sc_window_name(level->an);

	if (query->distinctClause == NIL || has_carrier_of_groups(level, target, query->distinctClause, carriers))
		return;
	sc_refuse_clause(level->an, query_location(query),
					 psprintf("%s without %s", query->hasDistinctOn ? "DISTINCT ON" : "SELECT DISTINCT", name),
					 query->hasDistinctOn ?
					 psprintf("Write DISTINCT ON (%s, ...): what is above the stream's groups is computed for each window.", name) :
					 psprintf("Add %s to the select list: what is above the stream's groups is computed for each window.", name));
}

/* LIMIT and OFFSET count rows of all windows; ORDER BY of the result has no effect. */
static void
check_order(Level *level)
{
	Query	   *query = level->query;
	const char *name = sc_window_name(level->an);

	if (query->limitCount != NULL || query->limitOffset != NULL)
		sc_refuse_clause(level->an, exprLocation(query->limitCount ? query->limitCount : query->limitOffset),
						 query->limitCount ? "LIMIT" : "OFFSET",
						 psprintf("For the best rows of each window number them, row_number() OVER (PARTITION BY %s ORDER BY ...) AS rn in a subquery, and keep those WHERE rn <= ....",
								  name));
	if (level->parent == NULL && query->sortClause != NIL && !query->hasDistinctOn)
		sc_refuse_clause(level->an, sc_order_by_location(level->an), "ORDER BY",
						 "Sort when you read the result table. ORDER BY inside an aggregate or OVER is supported.");
}

/* Which column of the window each column of a query carries: of type int, 0 for none. */
static List *
column_kinds(Query *query, List *target, List *carriers)
{
	List	   *kinds = NIL;
	ListCell   *lc;

	foreach(lc, target)
	{
		TargetEntry *column = lfirst_node(TargetEntry, lc);

		if (column->resjunk)
			continue;
		kinds = lappend_int(kinds, is_in_all_sets(query, target, column) ?
							sc_carried(carriers, (Node *) column->expr) : 0);
	}
	return kinds;
}

/* ---------- queries ---------- */

/* A set operation, or one of its arms; its rows have a carrier where all arms have the same. */
static Shape *
check_arms(Level *level, Node *node)
{
	SetOperationStmt *operation = (SetOperationStmt *) node;
	Shape	   *left;
	Shape	   *right;
	List	   *kinds = NIL;
	ListCell   *lc_left;
	ListCell   *lc_right;

	if (IsA(node, RangeTblRef))
		return check_query(level->an, rt_fetch(((RangeTblRef *) node)->rtindex, level->query->rtable)->subquery, level,
						   NULL);
	left = check_arms(level, operation->larg);
	right = check_arms(level, operation->rarg);
	if (left->reads != right->reads || left->pinned != right->pinned)
		sc_refuse_clause(level->an, query_location(level->query),
						 "a set operation of which one SELECT has rows without a window",
						 "Have each of them read rows of windows.");
	forboth(lc_left, left->kinds, lc_right, right->kinds)
		kinds = lappend_int(kinds, lfirst_int(lc_left) == lfirst_int(lc_right) ? lfirst_int(lc_left) : 0);
	left->kinds = kinds;
	return left;
}

/* UNION, INTERSECT and EXCEPT: rows of different windows differ, as the window is one of the columns. */
static Shape *
check_set_operation(Level *level)
{
	Shape	   *shape = check_arms(level, level->query->setOperations);

	(void) check_sublinks(level->query->limitCount, level);
	(void) check_sublinks(level->query->limitOffset, level);
	if (shape->reads)
		check_order(level);
	return shape;
}

/* Looks at the CTEs of a query, which may refer to those before them, whether they are read or not. */
static void
check_ctes(Level *level)
{
	ListCell   *lc;

	if (level->query->hasRecursive)
		sc_refuse_clause(level->an, linitial_node(CommonTableExpr, level->query->cteList)->location, "WITH RECURSIVE",
						 "Leave RECURSIVE out, or recurse over the result table when you read it.");
	foreach(lc, level->query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);
		Query	   *query = castNode(Query, cte->ctequery);
		Shape	   *shape;

		if (query->commandType != CMD_SELECT)
			sc_refuse_clause(level->an, cte->location, "a statement other than SELECT",
							 "Write the definition as one SELECT.");
		shape = check_query(level->an, query, level, NULL);
		level->names = lappend(level->names, cte->ctename);
		level->shapes = lappend(level->shapes, shape);
	}
}

/* The rows of a plain SELECT: FROM and WHERE. */
static Components *
check_rows(Level *level)
{
	FromExpr   *from = level->query->jointree;
	Components *components = NIL;
	Components *unpinned = NIL;
	List	   *quals = sc_conditions(level, from->quals);
	ListCell   *lc;

	foreach(lc, from->fromlist)
		components = list_concat(components, check_from(level, lfirst(lc)));
	components = sc_link_components(components, quals);
	foreach(lc, components)
	{
		if (sc_is_pinned(level, quals, lfirst(lc)))
			level->pinned = true;
		else
			unpinned = lappend(unpinned, lfirst(lc));
	}
	(void) query_tree_walker(level->query, check_sublinks, level,
							 QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES);
	if (list_length(unpinned) > 1)
		refuse_join(level, query_location(level->query));
	return unpinned;
}

/* Refuses what isn't window-local in a query and all below it.  "link": it is a subquery in an expression, else NULL. */
static Shape *
check_query(ScAnalysis *an, Query *query, Level *parent, const SubLink *link)
{
	Level		level = {.an = an,.query = query,.parent = parent};
	Shape	   *shape = palloc0(sizeof(Shape));
	List	   *target;
	List	   *carriers = NIL;
	Components *components;

	if (query->rowMarks != NIL)
		sc_refuse_clause(an, sc_row_lock_location(an), "FOR UPDATE or FOR SHARE",
						 "Leave it out: a continuous query locks no rows.");
	check_ctes(&level);
	if (query->setOperations != NULL)
		return check_set_operation(&level);
	components = check_rows(&level);
	if (components != NIL && link != NULL)
		refuse_all_windows(an, link);
	target = (List *) sc_flatten(&level, (Node *) query->targetList);
	shape->reads = components != NIL;
	shape->pinned = level.pinned && !shape->reads;
	if (shape->reads)
	{
		carriers = linitial(components);
		check_grouping(&level, target, carriers);
		check_windows(&level, target, carriers);
		check_distinct(&level, target, carriers);
		check_order(&level);
	}
	shape->kinds = column_kinds(query, target, carriers);
	return shape;
}

/* Which columns of the core's rows tell windows apart. */
static List *
core_kinds(ScDefinition *def)
{
	List	   *kinds = NIL;
	bool		some = false;
	ListCell   *lc;

	foreach(lc, def->target)
	{
		Var		   *var = (Var *) lfirst_node(TargetEntry, lc)->expr;
		bool		identifies = IsA(var, Var) && sc_assigner_is_identified_by(&def->window, var->varattno);

		kinds = lappend_int(kinds, identifies ? var->varattno : 0);
		some |= identifies;
	}
	return some ? kinds : NIL;
}

void
sc_check_window_local(ScAnalysis *an)
{
	Shape	   *shape;
	ListCell   *lc;

	an->core_kinds = core_kinds(an->def);
	shape = check_query(an, an->upper, NULL, NULL);
	foreach(lc, shape->kinds)
	{
		an->def->result_window = foreach_current_index(lc) + 1;
		an->def->result_window_kind = lfirst_int(lc);
		if (an->def->result_window_kind != 0)
			return;
	}
	an->def->result_window = 0;
	if (!shape->reads)
		sc_refuse_clause(an, query_location(an->upper), "a SELECT that reads no rows of windows",
						 "Name the subquery or CTE over the stream in FROM.");
	sc_refuse_clause(an, query_location(an->upper),
					 psprintf("a select list without %s above the stream's groups", sc_window_name(an)),
					 "Add it, as it is and not inside an expression: it says which window a row belongs to.");
}
