/*-------------------------------------------------------------------------
 * position.c
 *	  Where in the text of a definition an error lies.
 *
 * The text is an argument of create_query(), not the statement that the client
 * sent: positions go into the fields for an internal query, with the text beside
 * them, so that clients show the line and the caret of the definition.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "query/query_internal.h"

/* Sets the position of the error that is being reported. */
int
sc_errposition(ScAnalysis *an, int location)
{
	if (an->source_text == NULL || location < 0)
		return 0;
	internalerrquery(an->source_text);
	return internalerrposition(pg_mbstrlen_with_len(an->source_text, location) + 1);
}

/* Location of an item of a raw FROM list that isn't a join. */
static int
raw_item_location(Node *item)
{
	if (IsA(item, RangeFunction))
	{
		RangeFunction *function = (RangeFunction *) item;

		return exprLocation(linitial((List *) linitial(function->functions)));
	}
	if (IsA(item, RangeSubselect))
	{
		SelectStmt *select = (SelectStmt *) ((RangeSubselect *) item)->subquery;

		if (select->valuesLists != NIL)
			return exprLocation((Node *) select->valuesLists);
		return exprLocation((Node *) select->targetList);
	}
	if (IsA(item, RangeTableSample))
		return exprLocation(((RangeTableSample *) item)->relation);
	return exprLocation(item);
}

/*
 * Counts "*ordinal" down over the items below "item", from left to right; true
 * where it met the wanted one, whose location it stores.
 */
static bool
find_raw_item(Node *item, int *ordinal, int *location)
{
	if (IsA(item, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) item;

		return find_raw_item(join->larg, ordinal, location) ||
			find_raw_item(join->rarg, ordinal, location);
	}
	if ((*ordinal)-- > 0)
		return false;
	*location = raw_item_location(item);
	return true;
}

/*
 * Range-table entries don't say where they were written, but the raw parse tree
 * does, and parse analysis keeps the order of FROM.  Parsing again is for errors
 * only.
 */
int
sc_from_item_location(ScAnalysis *an, int ordinal)
{
	List	   *parsetrees;
	SelectStmt *select;
	int			location = -1;
	ListCell   *lc;

	if (an->source_text == NULL)
		return -1;
	parsetrees = raw_parser(an->source_text, RAW_PARSE_DEFAULT);
	if (parsetrees == NIL)
		return -1;
	select = (SelectStmt *) linitial_node(RawStmt, parsetrees)->stmt;
	if (!IsA(select, SelectStmt))
		return -1;

	foreach(lc, select->fromClause)
	{
		if (find_raw_item(lfirst(lc), &ordinal, &location))
			break;
	}
	return location;
}
