/*-------------------------------------------------------------------------
 * carriers.h
 *	  What window_local.c knows of a query's rows: which columns always have their window.
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_CARRIERS_H
#define SC_QUERY_CARRIERS_H

#include "query/query_internal.h"

/* A carrier: which column of the window it is, and that it is COALESCE of these columns of FROM, or the only one. */
typedef struct Carrier
{
	AttrNumber	kind;			/* SC_WINDOW_START... */
	List	   *vars;			/* of Var * */
} Carrier;

/* A query under way. */
typedef struct Level
{
	ScAnalysis *an;
	Query	   *query;
	struct Level *parent;		/* NULL: the whole definition */
	List	   *carriers;		/* of Carrier *, of items of FROM, also those that outer joins fill with NULLs */
	bool		pinned;			/* some of its items are */
	List	   *names;			/* of its CTEs that were looked at, */
	List	   *shapes;			/* and of Shape *, what they are */
} Level;

/* What the rows of a query are. */
typedef struct Shape
{
	bool		reads;			/* they are made of core rows of windows that the query isn't pinned to */
	bool		pinned;			/* or of those of an outer row's window; neither: of no core rows */
	List	   *kinds;			/* of each column, SC_WINDOW_START... or 0 */
} Shape;

/*
 * Items of FROM that are joined: for each group of them that is joined by the window its carriers.  None: no core
 * rows, or of windows that are pinned.
 */
typedef List Components;		/* of List * of Carrier * */

/* What the column that tells windows apart is called. */
extern const char *sc_window_name(ScAnalysis *an);

/* Of an expression of the query: columns of its joins and groups become what they stand for. */
extern Node *sc_flatten(Level *level, Node *node);

/* Which column of the window the expression carries, or 0. */
extern AttrNumber sc_carried(List *carriers, Node *expr);

/* Is one of the items of GROUP BY and the like a carrier? */
extern bool sc_has_carrier(List *target, List *items, List *carriers);

/* Carriers of an item of FROM whose columns are of these kinds; the level gets them, too. */
extern List *sc_item_carriers(Level *level, int varno, List *kinds);

/* Carriers of a full join: a row has the window of one side or the other, or both. */
extern List *sc_full_carriers(List *a, List *b);

/* A condition's parts that must all hold. */
extern List *sc_conditions(Level *level, Node *quals);

/* Do the conditions say that the windows of two components are the same? */
extern bool sc_are_linked(List *quals, List *a, List *b);

/* Puts components together whose windows are the same by the conditions. */
extern Components *sc_link_components(Components *components, List *quals);

/* Do the conditions say that the component's window is that of an outer row? */
extern bool sc_is_pinned(Level *level, List *quals, List *component);

#endif							/* SC_QUERY_CARRIERS_H */
