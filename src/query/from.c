/*-------------------------------------------------------------------------
 * from.c
 *	  Reads FROM: one attached stream, perhaps one window function, and what the stream is joined with.
 *
 *	  FROM s, stream_ckpt.tumble(ts, '1 minute') w
 *	  FROM s CROSS JOIN stream_ckpt.tumble(ts, '1 minute') w
 *	  FROM s JOIN LATERAL stream_ckpt.tumble(ts, '1 minute') w ON <condition>
 *
 * are the same; the condition of a join becomes part of WHERE.  Without a window function the query has
 * no windows.
 *
 * All else in FROM is for the source plan (source.c): tables, views, functions, subqueries.  Each joined row has one row of
 * the stream, so the stream can't be on a side that an outer join fills with NULLs.
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

#define SIDE_HINT "Rows of the stream can be joined by JOIN and by LEFT JOIN with the stream on the left. Rows without one of the stream are none that come."

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
	if (an->source_text != NULL && !an->stream->applies && sc_relation_is_updated(rte->relid, &partition))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is updated by a query", get_rel_name(rte->relid)),
				 errdetail("\"%s\" is the result table of a query with emit 'update' or an allowed_lateness, and changes of the stream are not applied.",
						   get_rel_name(partition)),
				 errhint("Call stream_ckpt.alter_stream() with changes => 'apply' first."),
				 sc_errposition(an, sc_from_item_location(an, ordinal))));
	if (an->stream->is_log)
		(void) sc_log_stream_event_time(rte->relid);
	an->stream_varno = varno;
	an->stream_natts = count_columns(rte->relid);
}

/* Is it a stream? */
static bool
is_stream(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_RELATION && sc_stream_by_relid(rte->relid, true) != NULL;
}

/* The stream in FROM, or below an item; if there is none, the first relation; 0: there is none either. */
static int
find_stream(ScAnalysis *an, Node *item)
{
	int			relation = 0;
	int			found;
	ListCell   *lc;

	if (IsA(item, RangeTblRef))
	{
		int			varno = ((RangeTblRef *) item)->rtindex;

		return rt_fetch(varno, an->query->rtable)->rtekind == RTE_RELATION ? varno : 0;
	}
	foreach(lc, IsA(item, JoinExpr) ? list_make2(((JoinExpr *) item)->larg, ((JoinExpr *) item)->rarg) :
			castNode(FromExpr, item)->fromlist)
	{
		found = find_stream(an, lfirst(lc));
		if (found != 0 && is_stream(rt_fetch(found, an->query->rtable)))
			return found;
		if (relation == 0)
			relation = found;
	}
	return relation;
}

/* A relation of FROM: the stream, or one that it is joined with. */
static void
analyze_table(ScAnalysis *an, int varno, RangeTblEntry *rte, int ordinal, int stream)
{
	if (rte->tablesample != NULL)
		sc_refuse_clause(an, sc_from_item_location(an, ordinal), "TABLESAMPLE",
						 "Choose rows by a condition in WHERE.");
	if (varno == stream)
	{
		analyze_relation(an, varno, rte, ordinal);
		return;
	}
	if (is_stream(rte))
		sc_refuse_clause(an, sc_from_item_location(an, ordinal), "a join with another stream",
						 "A query reads one stream, which can be joined with tables that aren't streams. Join the result tables of two queries when you read them.");
	an->has_source = true;
}

bool
sc_calls_window_function(RangeTblEntry *rte)
{
	ListCell   *lc;

	if (rte->rtekind != RTE_FUNCTION)
		return false;
	foreach(lc, rte->functions)
	{
		Node	   *call = lfirst_node(RangeTblFunction, lc)->funcexpr;

		if (IsA(call, FuncExpr) && sc_is_window_function(((FuncExpr *) call)->funcid))
			return true;
	}
	return false;
}

/*
 * Takes a window function of FROM as the window's call, and notes it in "an"; its arguments are
 * checked later (window.c).  Other functions are the source plan's.
 */
static void
analyze_function(ScAnalysis *an, int varno, RangeTblEntry *rte, int ordinal)
{
	Node	   *call = linitial_node(RangeTblFunction, rte->functions)->funcexpr;

	if (!sc_calls_window_function(rte))
	{
		an->has_source = true;
		return;
	}
	if (list_length(rte->functions) != 1)
		sc_refuse_clause(an, sc_from_item_location(an, ordinal),
						 "a window function inside ROWS FROM",
						 "Write it as an item of FROM of its own: stream_ckpt.tumble(event_time, '1 minute') w.");
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

/* Is it the call of a window function? */
static bool
is_window_item(ScAnalysis *an, Node *item)
{
	RangeTblEntry *rte;

	if (!IsA(item, RangeTblRef))
		return false;
	rte = rt_fetch(((RangeTblRef *) item)->rtindex, an->query->rtable);
	return sc_calls_window_function(rte);
}

/* Is the window among the items? */
static bool
has_window_item(ScAnalysis *an, Node *item)
{
	if (IsA(item, JoinExpr))
		return has_window_item(an, ((JoinExpr *) item)->larg) || has_window_item(an, ((JoinExpr *) item)->rarg);
	return is_window_item(an, item);
}

/* "ordinal" is the right side's place in FROM. */
static void
refuse_outer_join(ScAnalysis *an, JoinExpr *join, int ordinal, const char *hint)
{
	const char *name = "an outer join";

	if (join->jointype == JOIN_LEFT)
		name = "LEFT JOIN";
	else if (join->jointype == JOIN_RIGHT)
		name = "RIGHT JOIN";
	else if (join->jointype == JOIN_FULL)
		name = "FULL JOIN";
	sc_refuse_clause(an, sc_from_item_location(an, ordinal), name, hint);
}

/* An outer join: fails if it fills the stream, or its window, with NULLs. */
static void
check_outer_join(ScAnalysis *an, JoinExpr *join, int ordinal, int stream)
{
	bool		fills_left = join->jointype != JOIN_LEFT;
	bool		fills_right = join->jointype != JOIN_RIGHT;

	if ((fills_left && has_window_item(an, join->larg)) || (fills_right && has_window_item(an, join->rarg)))
		refuse_outer_join(an, join, ordinal,
						  "Join the stream with its window by a comma or CROSS JOIN: each row with an event time has a window.");
	if ((fills_left && find_stream(an, join->larg) == stream) || (fills_right && find_stream(an, join->rarg) == stream))
		refuse_outer_join(an, join, ordinal, SIDE_HINT);
}

/*
 * Walks FROM from left to right; "*ordinal" counts the items met.  "plain": what is joined here, and by no outer join, is as
 * if its condition were in WHERE.
 */
static void
analyze_item(ScAnalysis *an, Node *item, int *ordinal, int stream, bool plain)
{
	RangeTblEntry *rte;
	int			varno;

	if (IsA(item, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) item;
		bool		inner = join->jointype == JOIN_INNER;

		analyze_item(an, join->larg, ordinal, stream, plain && (inner || join->jointype == JOIN_LEFT));
		if (!inner)
			check_outer_join(an, join, *ordinal, stream);
		analyze_item(an, join->rarg, ordinal, stream, plain && (inner || join->jointype == JOIN_RIGHT));
		if (inner && plain && join->quals != NULL)
			an->quals = lappend(an->quals, join->quals);
		return;
	}

	varno = castNode(RangeTblRef, item)->rtindex;
	rte = rt_fetch(varno, an->query->rtable);
	if (rte->rtekind == RTE_RELATION)
		analyze_table(an, varno, rte, *ordinal, stream);
	else if (rte->rtekind == RTE_FUNCTION)
		analyze_function(an, varno, rte, *ordinal);
	else
		an->has_source = true;
	(*ordinal)++;
}

/* Fills in the stream, the window function's call, the conditions, and whether there is a source plan. */
void
sc_analyze_from(ScAnalysis *an)
{
	FromExpr   *from = an->query->jointree;
	int			stream = find_stream(an, (Node *) from);
	int			ordinal = 0;
	ListCell   *lc;

	an->has_source = an->query->hasSubLinks;
	foreach(lc, from->fromlist)
		analyze_item(an, lfirst(lc), &ordinal, stream, true);

	if (an->stream_varno == 0)
		sc_refuse_clause(an, exprLocation((Node *) an->query->targetList), "a SELECT without a stream",
						 "Name a stream in FROM.");

	if (from->quals != NULL)
		an->quals = lappend(an->quals, from->quals);
}
