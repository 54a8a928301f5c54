/*-------------------------------------------------------------------------
 * from.c
 *	  Reads FROM: one attached stream, perhaps one window function, and nothing else.
 *
 *	  FROM s, stream_ckpt.tumble(ts, '1 minute') w
 *	  FROM s CROSS JOIN stream_ckpt.tumble(ts, '1 minute') w
 *	  FROM s JOIN LATERAL stream_ckpt.tumble(ts, '1 minute') w ON <condition>
 *
 * are the same; the condition of a join becomes part of WHERE.  Without a window function the query has
 * no windows.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "model/in_wal.h"
#include "model/log_stream.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "query/query_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define JOIN_HINT "Joins are not supported yet: read one stream, and join the result table when you read it."

/*
 * Refuses a relation that isn't attached, saying what to do about it; "ordinal"
 * is its place in FROM.
 */
static void
refuse_not_attached(ScAnalysis *an, Oid relid, int ordinal)
{
	char		relkind = get_rel_relkind(relid);
	char	   *name = get_rel_name(relid);
	int			location = sc_from_item_location(an, ordinal);

	if (relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" is not a stream", name),
				 errdetail("A continuous query reads the rows of one stream."),
				 errhint("Attach it first: SELECT stream_ckpt.attach_stream('%s', event_time => ...).",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name)),
				 sc_errposition(an, location)));

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("relation \"%s\" is not a stream", name),
			 errdetail("A continuous query reads the rows of one stream."),
			 errhint("Name a stream in FROM: a table that is attached, or one made by stream_ckpt.create_stream()."),
			 sc_errposition(an, location)));
}

static AttrNumber
count_columns(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	AttrNumber	natts;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
	ReleaseSysCache(tuple);
	return natts;
}

/*
 * Takes the one relation of FROM as the stream, and notes it in "an".  Fails if it isn't a stream,
 * or is one that no query may begin to read; "ordinal" is its place among the items of FROM.
 */
static void
analyze_relation(ScAnalysis *an, int varno, RangeTblEntry *rte, int ordinal)
{
	Oid			partition;

	if (an->stream_varno != 0)
		sc_refuse_clause(an, sc_from_item_location(an, ordinal),
						 "a join with another relation",
						 JOIN_HINT);
	if (rte->tablesample != NULL)
		sc_refuse_clause(an, sc_from_item_location(an, ordinal), "TABLESAMPLE",
						 "Choose rows by a condition in WHERE.");
	if (!rte->inh)
		sc_refuse_clause(an, sc_from_item_location(an, ordinal), "ONLY",
						 "Leave it out: a stream is the table with all its partitions.");

	an->stream = sc_stream_by_relid(rte->relid, true);
	if (an->stream == NULL)
		refuse_not_attached(an, rte->relid, ordinal);
	if (get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is temporary", get_rel_name(rte->relid)),
				 errdetail("A continuous query lasts longer than a session, and background workers see no temporary tables."),
				 errhint("Make the stream in another schema."),
				 sc_errposition(an, sc_from_item_location(an, ordinal))));
	/* those that began before this was refused go on */
	if (an->source_text != NULL && sc_relation_is_updated(rte->relid, &partition))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is updated by a query", get_rel_name(rte->relid)),
				 errdetail("\"%s\" is the result table of a query with emit 'update' or an allowed_lateness, and updates of a stream don't count yet.",
						   get_rel_name(partition)),
				 errhint("Read the result of a query with emit => 'close', or the stream that the query reads."),
				 sc_errposition(an, sc_from_item_location(an, ordinal))));
	if (an->stream->is_log)
		(void) sc_log_stream_event_time(rte->relid);
	an->stream_varno = varno;
	an->stream_natts = count_columns(rte->relid);
}

/*
 * Takes the one function of FROM as the window's call, and notes it in "an"; its arguments are
 * checked later (window.c).
 */
static void
analyze_function(ScAnalysis *an, int varno, RangeTblEntry *rte, int ordinal)
{
	Node	   *call = linitial_node(RangeTblFunction, rte->functions)->funcexpr;

	if (list_length(rte->functions) != 1 || !IsA(call, FuncExpr) ||
		!sc_is_window_function(((FuncExpr *) call)->funcid))
		sc_refuse_clause(an, sc_from_item_location(an, ordinal),
						 "a function in FROM other than a window function",
						 "The window function is stream_ckpt.tumble(event_time, size).");
	if (rte->funcordinality)
		sc_refuse_clause(an, sc_from_item_location(an, ordinal), "WITH ORDINALITY",
						 "Leave it out: windows are known by their start and end.");
	if (an->window_varno != 0)
		sc_refuse_clause(an, sc_from_item_location(an, ordinal),
						 "a second window function",
						 "Create one continuous query for each window.");
	an->window_varno = varno;
	an->window_call = (FuncExpr *) call;
}

/* A range-table entry that is neither a table nor a function. */
static void
refuse_other_item(ScAnalysis *an, RangeTblEntry *rte, int ordinal)
{
	const char *what = "this kind of item in FROM";
	int			location = sc_from_item_location(an, ordinal);

	if (rte->rtekind == RTE_SUBQUERY)
		what = "a subquery in FROM";
	else if (rte->rtekind == RTE_VALUES)
	{
		what = "VALUES";
		location = exprLocation((Node *) rte->values_lists);
	}
	else if (rte->rtekind == RTE_TABLEFUNC)
		what = "a table function (XMLTABLE, JSON_TABLE)";
	sc_refuse_clause(an, location, what,
					 "FROM holds one stream and stream_ckpt.tumble(...).");
}

/* Is it the call of a window function? */
static bool
is_window_item(ScAnalysis *an, Node *item)
{
	RangeTblEntry *rte;
	Node	   *call;

	if (!IsA(item, RangeTblRef))
		return false;
	rte = rt_fetch(((RangeTblRef *) item)->rtindex, an->query->rtable);
	if (rte->rtekind != RTE_FUNCTION || list_length(rte->functions) != 1)
		return false;
	call = linitial_node(RangeTblFunction, rte->functions)->funcexpr;
	return IsA(call, FuncExpr) && sc_is_window_function(((FuncExpr *) call)->funcid);
}

/* "ordinal" is the right side's place in FROM. */
static void
refuse_outer_join(ScAnalysis *an, JoinExpr *join, int ordinal)
{
	const char *name = "an outer join";

	if (join->jointype == JOIN_LEFT)
		name = "LEFT JOIN";
	else if (join->jointype == JOIN_RIGHT)
		name = "RIGHT JOIN";
	else if (join->jointype == JOIN_FULL)
		name = "FULL JOIN";
	sc_refuse_clause(an, sc_from_item_location(an, ordinal), name,
					 is_window_item(an, join->rarg) || is_window_item(an, join->larg) ?
					 "Join the stream with its window by a comma or CROSS JOIN: each row with an event time has a window." :
					 JOIN_HINT);
}

/* Walks FROM from left to right; "*ordinal" counts the items met. */
static void
analyze_item(ScAnalysis *an, Node *item, int *ordinal)
{
	RangeTblEntry *rte;
	int			varno;

	if (IsA(item, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) item;

		analyze_item(an, join->larg, ordinal);
		if (join->jointype != JOIN_INNER)
			refuse_outer_join(an, join, *ordinal);
		analyze_item(an, join->rarg, ordinal);
		if (join->quals != NULL)
			an->quals = lappend(an->quals, join->quals);
		return;
	}

	varno = castNode(RangeTblRef, item)->rtindex;
	rte = rt_fetch(varno, an->query->rtable);
	if (rte->rtekind == RTE_RELATION)
		analyze_relation(an, varno, rte, *ordinal);
	else if (rte->rtekind == RTE_FUNCTION)
		analyze_function(an, varno, rte, *ordinal);
	else
		refuse_other_item(an, rte, *ordinal);
	(*ordinal)++;
}

/* Fills in the stream, the window function's call and the conditions. */
void
sc_analyze_from(ScAnalysis *an)
{
	FromExpr   *from = an->query->jointree;
	int			ordinal = 0;
	ListCell   *lc;

	foreach(lc, from->fromlist)
		analyze_item(an, lfirst(lc), &ordinal);

	if (an->stream_varno == 0)
		sc_refuse_clause(an, exprLocation((Node *) an->query->targetList), "a SELECT without a stream",
						 "Name a stream in FROM.");

	if (from->quals != NULL)
		an->quals = lappend(an->quals, from->quals);
}
