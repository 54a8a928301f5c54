/*-------------------------------------------------------------------------
 * grouping_sets.c
 *	  GROUPING SETS, ROLLUP, CUBE and GROUPING().
 *
 * Several sets are one GROUP BY with a further key, the number of the set: a row is in a group of each set, in which the
 * keys that the set leaves out are NULL (exec/grouping_sets.c).  GROUPING() is a function of that number.  Every set has
 * the window's columns that GROUP BY has, so that each group is of one window.
 *
 * NULL as a key isn't told from one that is left out by anything but GROUPING(): rows that are updated need it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "query/query_internal.h"

/* The sets of a query, of List of int (tleSortGroupRef), if there are several; else NIL. */
static List *
several_sets(Query *query)
{
	List	   *sets;

	if (query->groupingSets == NIL)
		return NIL;
	sets = expand_grouping_sets(query->groupingSets, query->groupDistinct, -1);
	return list_length(sets) > 1 ? sets : NIL;
}

/* The plain keys beside ROLLUP and the like are grouping sets, too: the name is the clause's. */
static const char *
clause_name(Query *query, int *location)
{
	GroupingSet *set = NULL;
	ListCell   *lc;

	foreach(lc, query->groupingSets)
	{
		set = lfirst_node(GroupingSet, lc);
		*location = set->location;
		if (set->kind == GROUPING_SET_ROLLUP)
			return "ROLLUP";
		if (set->kind == GROUPING_SET_CUBE)
			return "CUBE";
		if (set->kind == GROUPING_SET_SETS)
			return "GROUPING SETS";
	}
	return "GROUP BY";
}

static bool
is_in_all(List *sets, Index ref)
{
	ListCell   *lc;

	foreach(lc, sets)
	{
		if (!list_member_int(lfirst(lc), ref))
			return false;
	}
	return true;
}

void
sc_analyze_grouping_sets(ScAnalysis *an)
{
	Query	   *query = an->query;
	int			location = -1;
	const char *name = clause_name(query, &location);
	ListCell   *lc;

	an->sets = several_sets(query);
	if (an->sets == NIL)
		return;
	if (an->def->window.kind == SC_WINDOW_SESSION)
		sc_refuse_clause(an, location, psprintf("%s with session()", name),
						 "Create one continuous query for each set of keys: each has sessions of its own.");
	foreach(lc, query->groupClause)
	{
		SortGroupClause *item = lfirst_node(SortGroupClause, lc);
		Node	   *expr = get_sortgroupclause_expr(item, query->targetList);
		bool		window = (IsA(expr, Var) && ((Var *) expr)->varno == an->window_varno) ||
			(an->window_item != NULL && equal(expr, an->window_item));

		if (window && !is_in_all(an->sets, item->tleSortGroupRef))
			sc_refuse_clause(an, location, psprintf("%s with a set that leaves out the window", name),
							 "Have the window's columns in every set, as in GROUP BY w.window_start, ROLLUP (...).");
	}
}

void
sc_build_set_key(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	ScKey	   *key;
	int			number = 0;
	ListCell   *lc;

	if (an->sets == NIL)
		return;
	def->keys = repalloc(def->keys, sizeof(ScKey) * (def->nkeys + 1));
	key = &def->keys[def->nkeys++];
	memset(key, 0, sizeof(*key));
	key->expr = (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(0), false, true);
	key->type = INT4OID;
	key->typmod = -1;
	key->eq_operator = Int4EqualOperator;
	key->lt_operator = Int4LessOperator;

	def->nsets = list_length(an->sets);
	def->set_keys = palloc0(sizeof(bool) * def->nsets * def->nkeys);
	foreach(lc, an->sets)
	{
		bool	   *in_set = def->set_keys + number++ * def->nkeys;
		ListCell   *lc_key;

		foreach(lc_key, an->key_clauses)
			in_set[foreach_current_index(lc_key)] =
				list_member_int(lfirst(lc), lfirst_node(SortGroupClause, lc_key)->tleSortGroupRef);
		in_set[def->nkeys - 1] = true;
	}
}

/* GROUPING() of a set: a bit for each argument, set if the set leaves it out. */
static int32
grouping_bits(const GroupingFunc *call, List *set)
{
	uint32		bits = 0;
	ListCell   *lc;

	foreach(lc, call->refs)
		bits = bits << 1 | !list_member_int(set, lfirst_int(lc));
	return (int32) bits;
}

static Const *
int_const(int32 value)
{
	return makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(value), false, true);
}

Node *
sc_grouping_value(ScAnalysis *an, const GroupingFunc *call)
{
	CaseExpr   *result = makeNode(CaseExpr);
	ListCell   *lc;

	if (an->sets == NIL)
		return (Node *) int_const(0);
	result->casetype = INT4OID;
	result->location = call->location;
	foreach(lc, an->sets)
	{
		CaseWhen   *when = makeNode(CaseWhen);
		Var		   *number = makeVar(SC_GROUP_VARNO, SC_WINDOW_COLUMNS + an->def->nkeys, INT4OID, -1, InvalidOid, 0);

		when->expr = make_opclause(Int4EqualOperator, BOOLOID, false, (Expr *) number,
								   (Expr *) int_const(foreach_current_index(lc)), InvalidOid, InvalidOid);
		when->result = (Expr *) int_const(grouping_bits(call, lfirst(lc)));
		when->location = call->location;
		result->args = lappend(result->args, when);
	}
	result->defresult = (Expr *) makeNullConst(INT4OID, -1, InvalidOid);
	return (Node *) result;
}

/* Do the calls of GROUPING() tell each of the sets from all others? */
static bool
tell_apart(List *sets, List *calls)
{
	List	   *seen = NIL;
	ListCell   *lc;

	foreach(lc, sets)
	{
		List	   *values = NIL;
		ListCell   *lc_call;

		foreach(lc_call, calls)
			values = lappend_int(values, grouping_bits(lfirst(lc_call), lfirst(lc)));
		if (list_member(seen, values))
			return false;
		seen = lappend(seen, values);
	}
	return true;
}

bool
sc_find_grouping_columns(ScAnalysis *an, List **columns)
{
	List	   *calls = NIL;
	ListCell   *lc;

	*columns = NIL;
	foreach(lc, an->query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk || !IsA(target->expr, GroupingFunc))
			continue;
		calls = lappend(calls, target->expr);
		*columns = lappend_int(*columns, target->resno);
	}
	return calls != NIL && tell_apart(an->sets, calls);
}

bool
sc_columns_tell_sets_apart(Query *query, const int *columns, int ncolumns)
{
	List	   *sets = several_sets(query);
	List	   *calls = NIL;

	if (sets == NIL)
		return true;
	for (int i = 0; i < ncolumns; i++)
	{
		TargetEntry *target = list_nth_node(TargetEntry, query->targetList, columns[i]);

		if (IsA(target->expr, GroupingFunc))
			calls = lappend(calls, target->expr);
	}
	return tell_apart(sets, calls);
}
