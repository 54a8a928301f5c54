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
#include "parser/scansup.h"
#include "query/query_internal.h"
#include "utils/lsyscache.h"

/* Sets the position of the error that is being reported. */
int
sc_errposition(ScAnalysis *an, int location)
{
	if (location < 0)
		location = an->outer_location;
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
 * The raw parse tree, which says of every clause where it was written; NULL: a stored
 * definition.  Parsing again is for errors only.
 */
static SelectStmt *
raw_statement(ScAnalysis *an)
{
	List	   *parsetrees;
	Node	   *select;

	if (an->source_text == NULL)
		return NULL;
	parsetrees = raw_parser(an->source_text, RAW_PARSE_DEFAULT);
	if (parsetrees == NIL)
		return NULL;
	select = linitial_node(RawStmt, parsetrees)->stmt;
	return IsA(select, SelectStmt) ? (SelectStmt *) select : NULL;
}

typedef struct RawSearch
{
	int			location;		/* of a select list */
	const char *name;			/* of a relation */
	Node	   *found;
} RawSearch;

static bool
find_raw_select(Node *node, RawSearch *search)
{
	SelectStmt *select = (SelectStmt *) node;

	if (node == NULL)
		return false;
	if (IsA(node, SelectStmt) && exprLocation((Node *) select->targetList) == search->location)
	{
		search->found = node;
		return true;
	}
	return raw_expression_tree_walker(node, find_raw_select, search);
}

static bool
find_raw_relation(Node *node, RawSearch *search)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeVar) && strcmp(((RangeVar *) node)->relname, search->name) == 0)
	{
		search->found = node;
		return true;
	}
	return raw_expression_tree_walker(node, find_raw_relation, search);
}

/* The same of the core level, which is known by where its select list begins, if it isn't the whole definition. */
static SelectStmt *
raw_select(ScAnalysis *an)
{
	SelectStmt *statement = raw_statement(an);
	RawSearch	search = {.location = an->core_location};

	if (statement == NULL || an->core_location < 0 || an->in_upper)
		return statement;
	(void) find_raw_select((Node *) statement, &search);
	return (SelectStmt *) search.found;
}

int
sc_relation_location(ScAnalysis *an, Oid relid)
{
	SelectStmt *statement = raw_statement(an);
	RawSearch	search = {.name = get_rel_name(relid)};

	if (statement == NULL || search.name == NULL || !find_raw_relation((Node *) statement, &search))
		return -1;
	return ((RangeVar *) search.found)->location;
}

/*
 * Range-table entries don't say where they were written, but parse analysis keeps the order
 * of FROM.
 */
int
sc_from_item_location(ScAnalysis *an, int ordinal)
{
	SelectStmt *select = raw_select(an);
	int			location = -1;
	ListCell   *lc;

	if (select == NULL)
		return -1;
	foreach(lc, select->fromClause)
	{
		if (find_raw_item(lfirst(lc), &ordinal, &location))
			break;
	}
	return location;
}

/* Analysis replaces a number or an alias by the item of the select list. */
int
sc_order_by_location(ScAnalysis *an)
{
	SelectStmt *select = raw_select(an);

	if (select == NULL || select->sortClause == NIL)
		return -1;
	return exprLocation(linitial_node(SortBy, select->sortClause)->node);
}

int
sc_window_clause_location(ScAnalysis *an)
{
	SelectStmt *select = raw_select(an);

	if (select == NULL || select->windowClause == NIL)
		return -1;
	return linitial_node(WindowDef, select->windowClause)->location;
}

/* Where the last FOR begins that words of a row lock follow, or -1: the parser keeps no place of it. */
static int
last_row_lock(const char *text)
{
	static const char *const words[] = {"update", "share", "no", "key"};

	for (int i = strlen(text) - 1; i > 0; i--)
	{
		const char *next = text + i + 3;

		if (pg_strncasecmp(text + i, "for", 3) != 0 || !scanner_isspace(text[i - 1]) || !scanner_isspace(*next))
			continue;
		while (scanner_isspace(*next))
			next++;
		for (int w = 0; w < lengthof(words); w++)
		{
			if (pg_strncasecmp(next, words[w], strlen(words[w])) == 0)
				return i;
		}
	}
	return -1;
}

/* Of the first relation that it names, or else of the word FOR. */
int
sc_row_lock_location(ScAnalysis *an)
{
	SelectStmt *select = raw_select(an);
	List	   *relations;

	if (select == NULL || select->lockingClause == NIL)
		return -1;
	relations = linitial_node(LockingClause, select->lockingClause)->lockedRels;
	return relations == NIL ? last_row_lock(an->source_text) : linitial_node(RangeVar, relations)->location;
}
