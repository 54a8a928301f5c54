/*-------------------------------------------------------------------------
 * definition.h
 *	  The struct of an accepted query: what query/ makes of a SELECT and exec/
 *	  runs.
 *
 * A definition is split at its GROUP BY:
 *
 *   source part   quals, key expressions, aggregate arguments, filters.
 *                 Their Vars are either stream columns (varno SC_STREAM_VARNO,
 *                 varattno = attribute number of the root relation, read from
 *                 econtext->ecxt_scantuple) or window columns (varno OUTER_VAR,
 *                 varattno SC_WINDOW_START/END/TIME, read from
 *                 econtext->ecxt_outertuple).
 *   upper part    target list and HAVING, over the "group slot"; and over the rows that these make of a window, if the
 *                 definition has more, a plan (ScUpper).  The group slot: varno
 *                 SC_GROUP_VARNO (read from ecxt_scantuple), attributes
 *                   1..3                     window_start, window_end, window_time; of windows that an item of
 *                                            GROUP BY makes, only window_start, as that item's value
 *                   4..3+nkeys               the keys
 *                   4+nkeys..3+nkeys+naggs   the aggregates' results
 *                 if a group makes several rows, behind these, SC_BEST_NUMBER and on: the row's number and its columns
 *                 Direct arguments of ordered-set aggregates too.
 *
 * If the source part is more than expressions over one row of the stream (joins, subqueries, functions in FROM), what of it
 * is more is a plan (ScSource), which makes of each row of the stream any number of joined rows.  Then "quals" are over the
 * row of the stream, and all else of the source part is over the joined row: varno SC_STREAM_VARNO, varattno = its column.
 *
 * A stateless definition (no GROUP BY, no aggregates) has no upper part: its target list is of the source
 * part, over the row of the stream, and each row that passes "quals" is a row of the result.  If it retracts, that row
 * goes with the stream's.
 *
 * All expressions have been through expression_planner(), hold no Aggref, no
 * SubLink and no Param, and are plain node trees: ExecInitExpr(expr, NULL)
 * compiles them.  A row of the stream as a value is a RowExpr of its columns.  A definition lives in one memory context and is never changed.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_DEFINITION_H
#define SC_MODEL_DEFINITION_H

#include "model/catalog.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "nodes/primnodes.h"
#include "window/assigner.h"

#define SC_STREAM_VARNO		1
#define SC_GROUP_VARNO		1

typedef struct ScKey
{
	Expr	   *expr;			/* source part */
	Oid			type;
	int32		typmod;
	Oid			collation;
	Oid			eq_operator;	/* SortGroupClause.eqop */
	Oid			lt_operator;	/* SortGroupClause.sortop; always valid */
	AttrNumber	shown;			/* column of the group slot in which the result shows it; 0: it doesn't */
} ScKey;

typedef struct ScAggregate
{
	Aggref	   *aggref;			/* args, aggfilter: source part; aggorder and
								 * aggdistinct refer to args by ressortgroupref */
	List	   *direct_args;	/* upper part (ordered-set aggregates), else NIL */
	Aggref	   *written;		/* as parse analysis left it: which aggregates share a state
								 * mustn't depend on what is inlined or folded today */
} ScAggregate;

/* The core level as it was written, columns of joins replaced: for explain_query() alone. */
typedef struct ScWritten
{
	Query	   *query;			/* whose range table the others' Vars are of */
	Node	   *window;			/* the call in FROM, or the item of GROUP BY; NULL: there are no windows */
	List	   *quals;			/* WHERE and JOIN ... ON */
	List	   *keys;			/* items of GROUP BY but the window's */
	List	   *sets;			/* several grouping sets: of List of Node *, items of GROUP BY */
	List	   *best_order;		/* of SortGroupClause: which rows of a group are the best */
} ScWritten;

/*
 * What a definition has above the SELECT that reads the stream: window functions, a second aggregation, joins of that
 * SELECT's rows with each other.  It is run once for each window that is emitted, over that window's rows, which is
 * the same as over all rows (query/window_local.c).
 */
typedef struct ScUpper
{
	PlannedStmt *plan;			/* reads those rows from the named tuplestore SC_CORE_ROWS */
	List	   *target;			/* of TargetEntry, no resjunk: the result's columns; their expressions tell types only */
} ScUpper;

#define SC_CORE_ROWS	"stream_ckpt core"

/*
 * What the stream is joined with: a query of PostgreSQL's over the rows of the stream, in the named tuplestore
 * SC_STREAM_ROWS.  Its rows are the joined rows; the first column says which row of the stream one is made of, an integer.
 */
typedef struct ScSource
{
	Query	   *query;			/* as it was written: neither rewritten nor planned (query/source.h) */
	int			varno;			/* of the rows of the stream in its range table */
	Bitmapset  *attnos;			/* the stream's attributes that it reads */
	bool		reads_window;	/* and columns of the window */
	List	   *quals;			/* over the joined row, implicitly ANDed: what doesn't narrow what is read */
} ScSource;

#define SC_STREAM_ROWS	"stream_ckpt rows"

/* Columns of that tuplestore behind the stream's natts: the window's, and the row's number */
#define SC_ROWS_WINDOW(natts)	((natts) + 1)
#define SC_ROWS_NUMBER(natts)	((natts) + SC_WINDOW_COLUMNS + 1)
#define SC_ROWS_COLUMNS(natts)	((natts) + SC_WINDOW_COLUMNS + 1)

/* A column of the rows that are kept. */
typedef struct ScBestColumn
{
	Oid			type;
	int32		typmod;
	Oid			collation;
	Oid			sort_operator;	/* of those that are sorted by, which come first; else InvalidOid */
	bool		nulls_first;
} ScBestColumn;

/* How the rows of a group are numbered: by window functions of that name. */
typedef enum ScRanking
{
	SC_ROW_NUMBER,
	SC_RANK,					/* rows that are as good as each other have one number; */
	SC_DENSE_RANK				/* so have these, and none is left out */
} ScRanking;

/* Of each group the best rows are rows of the result (DISTINCT ON, row_number() <= n). */
typedef struct ScBestRows
{
	ScRanking	ranking;
	int			n;				/* their numbers are at most that */
	int			nsort;
	int			ncolumns;
	ScBestColumn *columns;
} ScBestRows;

typedef struct ScDefinition
{
	Oid			stream_relid;	/* the root, where the relation is partitioned */
	bool		processing_time;	/* the stream's event time is the time of the commit */
	AttrNumber	event_time_attno;	/* 0: processing_time; or there are no windows, rows need no event time */
	AttrNumber	ttl_attno;		/* the event time that groups with a ttl are kept by; 0: there is no ttl, or processing_time */
	Oid			event_time_type;	/* TIMESTAMPTZOID or TIMESTAMPOID */
	AttrNumber	last_attno;		/* highest stream attribute that is read; a
								 * whole-row Var makes it the last of the row */
	Bitmapset  *read_attnos;	/* the stream attributes that are read; 0: the whole row */
	ScAssigner	window;
	Expr	   *window_value;	/* of the group slot's window_start, over that of OUTER_VAR, if they differ */
	bool		stateless;		/* no groups: see above; emit is ROWS then, and only then; UPDATE if it retracts */
	bool		retracts;		/* changes of the stream's rows are applied: what a row did can be taken back */
	bool		never_closes;	/* a key reads the event time, but there are no windows */
	ScEmit		emit;			/* CLOSE with windows only; never DEFAULT */
	List	   *quals;			/* implicitly ANDed; NIL: every row */
	int			nkeys;			/* without the window's columns; with the number of the grouping set, if there are several */
	ScKey	   *keys;
	int			nsets;			/* grouping sets, if there are several; else 0 */
	bool	   *set_keys;		/* nsets * nkeys: has the set the key?  The last key is the set's number */
	int			naggs;
	ScAggregate *aggs;
	ScBestRows *best;			/* NULL: a group makes one row.  Else its rows are the state of the only aggregate, and
								 * "having" is asked for each of them */
	List	   *target;			/* of TargetEntry, no resjunk: the result's columns, or what "upper" reads */
	List	   *having;			/* implicitly ANDed; NIL: every group */

	ScSource   *source;			/* NULL: nothing but expressions over the row of the stream */
	ScUpper    *upper;			/* NULL: target list and HAVING are all of the upper part */

	/* The first column of the result (1-based) that tells windows apart, and which of the window's it is; 0: none does. */
	AttrNumber	result_window;
	AttrNumber	result_window_kind; /* SC_WINDOW_START... */

	/*
	 * The result columns (1-based positions in "target") that identify a row:
	 * one or more window columns, if there are windows, and every key; and the row's number if a group makes several.
	 * nresult_key 0: the select list leaves one out (allowed for emit => 'close' without allowed lateness only), or
	 * one_row, "upper", or stateless and nothing is retracted; else a stateless one has the columns of
	 * "row_key", and one of the window, if there are windows.
	 */
	int			nresult_key;
	AttrNumber *result_key;
	bool		one_row;		/* aggregates without window and keys: always one group, even without rows */
	Bitmapset  *row_key;		/* stateless, retracts: the stream's attributes by which rows are known; */
	Oid			row_key_index;	/* the index of the stream that has them; */
	Bitmapset  *row_shown;		/* all that are bare columns of the result, */
	Bitmapset  *row_key_columns;	/* and which of these are in a key: the result's index can be on another one, by now */

	/*
	 * What others can change, so that it has to be compiled again (query/depends.c).
	 * has_user_parts: functions, types or operators that didn't come with the server.
	 */
	bool		has_user_parts;
	bool		routed_by_user_parts;	/* WHERE and keys have some */
	bool		whole_row;		/* rows of the stream are values in it */
	List	   *types;			/* Oids: types that didn't come with the server */
	List	   *relations;		/* Oids: those whose columns are types' attributes */
	Node	   *rule;			/* the view's Query; NULL: not loaded from one */
	ScWritten	written;
} ScDefinition;

/* The result's columns: TargetEntry, whose expressions tell types; those of a definition without "upper" are more. */
static inline List *
sc_result_target(const ScDefinition *def)
{
	return def->upper ? def->upper->target : def->target;
}

/* Of the group slot: the number of a group's row, before its columns. */
#define SC_BEST_NUMBER(def) (SC_WINDOW_COLUMNS + (def)->nkeys + 2)

/*
 * Does the type's btree operator family promise that values which eq_operator
 * calls equal have equal bytes (support function 4)?  Such keys need no hash function of
 * their own.
 */
extern bool sc_key_equal_is_image(Oid type, Oid eq_operator, Oid collation);

/*
 * Can two values of the key that differ today become equal: by ALTER TYPE, by a function or operator
 * class that somebody replaces, by a collation's new version?
 */
extern bool sc_key_equality_can_change(const ScKey *key);

#endif							/* SC_MODEL_DEFINITION_H */
