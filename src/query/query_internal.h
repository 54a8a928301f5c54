/*-------------------------------------------------------------------------
 * query_internal.h
 *	  What the files of query/ share: the analysis under way.
 *
 * analyze.c runs the steps in this order; each fills its part of ScAnalysis and
 * may rely on those of the steps before it:
 *
 *	 best_rows.c	makes GROUP BY of DISTINCT ON and of numbered rows
 *	 levels.c		finds the core level, the SELECT over the stream, if there is more above it; ctes.c its items of WITH
 *	 distinct.c		makes SELECT DISTINCT a GROUP BY
 *	 clauses.c		refuses clauses of the whole SELECT
 *	 from.c			finds the stream and the window function, and whether there is more to the source part
 *	 window.c		reads the window function's arguments, if there is one
 *	 commit_time.c	the event time of streams with processing_time
 *	 time_keys.c	else an item of GROUP BY that is a window, if there is one
 *	 expressions.c	refuses what expressions can't hold (run_dependent.c: which functions)
 *	 changes.c		refuses more, if the stream's changes are applied
 *	 depends.c		notes what others can change
 *	 kept_rows.c	the columns of rows that are kept of a group
 *	 split.c		splits at GROUP BY into the source part (source_part.c) and the upper part; grouping_sets.c if it is several
 *	 result_key.c	what identifies a row of the result
 *	 source.c		makes the query that joins rows of the stream, if there is one; source_plan.c plans it
 *	 upper.c		plans what is above the core level, once window_local.c, with carriers.c, has found it window-local
 *
 * position.c turns a node's location into an error position; explain.c gives hints to the errors that
 * PostgreSQL raises before all that.
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_QUERY_INTERNAL_H
#define SC_QUERY_QUERY_INTERNAL_H

#include "base/compat.h"
#include "model/catalog.h"
#include "model/definition.h"
#include "nodes/parsenodes.h"

typedef struct ScAnalysis
{
	Query	   *query;			/* our own copy of the core level, aliases of joins and groups
								 * replaced by what they stand for */
	Query	   *upper;			/* the definition with a tuplestore for the core level; NULL: that is all of it */
	int			core_location;	/* of the core level's select list, if the core isn't the whole definition; else -1 */
	const char *source_text;	/* NULL: a stored definition */
	Oid			view;			/* which has it; InvalidOid: it isn't stored yet */
	bool		in_upper;		/* what is looked at isn't the core level's */
	int			outer_location; /* of the call or cast that hides what is looked at (defaults,
								 * domains), for what has no place of its own; -1: none */
	const char *grouping;		/* what the keys are written in, for errors: "GROUP BY", or what is made one */
	ScEmit		emit;			/* DEFAULT: not chosen yet */
	int64		allowed_lateness;
	int64		ttl;			/* 0: none */

	/* best_rows.c */
	ScBestRows *best;			/* NULL: a group makes one row */
	List	   *best_order;		/* of SortGroupClause: which rows are the best */
	WindowFunc *best_call;		/* what numbers them, or NULL */
	bool		numbered;		/* "query" was a subquery that numbers rows: its own columns are junk now */

	/* from.c */
	int			stream_varno;	/* 0: not met yet */
	ScStream   *stream;
	AttrNumber	stream_natts;	/* columns, dropped ones included */
	int			window_varno;	/* 0: not met yet, or no window */
	FuncExpr   *window_call;	/* of a window function; NULL: none */
	List	   *quals;			/* WHERE, and ON of inner joins that aren't below outer ones */
	bool		has_source;		/* there is more in FROM, or a subquery: there is a source plan */
	bool		in_source;		/* what is looked at is below the core level: a subquery, an item of FROM */
	int			depth;			/* so many levels */

	/* source.c */
	bool		over_stream;	/* an expression under way is over the row of the stream, whatever the others are */
	List	   *joined;			/* of Node *, as written: columns and subqueries that the joined row has */
	List	   *join_quals;		/* those of "quals" that the source plan has */

	/* time_keys.c */
	Node	   *window_item;	/* the item of GROUP BY that is the window; NULL: none */

	/* split.c */
	bool		grouped_window[SC_WINDOW_COLUMNS + 1];	/* by attribute number */
	List	   *key_exprs;		/* of Node *, as written in GROUP BY */
	List	   *key_clauses;	/* of SortGroupClause *, in the same order */

	/* grouping_sets.c */
	List	   *sets;			/* of List of int (tleSortGroupRef), if there are several; else NIL */
	List	   *aggrefs;		/* of Aggref *, as written */
	List	   *best_exprs;		/* of Node *, as written: the columns of rows that are kept */

	/* window_local.c */
	List	   *core_kinds;		/* of each column of the core's, SC_WINDOW_START... or 0; NIL: none tells windows apart */

	ScDefinition *def;			/* what it all comes to */
} ScAnalysis;

/* best_rows.c */
extern void sc_rewrite_best_rows(ScAnalysis *an);
/* The name of the function that numbers rows. */
extern const char *sc_best_function(const ScAnalysis *an);

/* kept_rows.c */
/* Do columns of the result identify its rows only with the number of each? */
extern bool sc_needs_row_number(const ScAnalysis *an);
/* Fails if rows have ranks, and "needs_key": some are to be updated. */
extern void sc_check_ranking(ScAnalysis *an, bool needs_key);
/* The columns that are sorted by: before anything else asks for columns of the rows. */
extern void sc_build_best_order(ScAnalysis *an);
/* Is it the row's number, or what a column of it holds?  Then it is that of the group slot. */
extern bool sc_is_of_row(ScAnalysis *an, Node *node);
extern Var *sc_row_var(ScAnalysis *an, Node *node);
/*
 * Have rows of a group their own values of a key (from 0), which can be equal without being the same?  Of row types, whose
 * attributes can go, they show the group's.
 */
extern bool sc_key_is_of_row(ScAnalysis *an, int key);
/* The column of the group slot in which its rows show the key; 0: none does. */
extern AttrNumber sc_shown_key(ScAnalysis *an, int key);
/* Adds what keeps the rows to the aggregates, when nothing asks for columns any more. */
extern void sc_build_best_rows(ScAnalysis *an);
/* Does an expression read more of a row than the keys? */
extern bool sc_reads_beyond_keys(ScAnalysis *an, Node *node);


/* levels.c: fills in query, upper, core_location */
extern void sc_find_core(ScAnalysis *an);
/* Is there more to the definition than one SELECT over a relation, whose DISTINCT is rewritten? */
extern bool sc_has_upper_part(Query *query);

/* ctes.c: the core gets what it reads of WITH from "around", the queries that it is in, from within; they lose it. */
extern void sc_adopt_ctes(Query *core, List *around);

/* distinct.c: of the core level */
extern void sc_rewrite_distinct(ScAnalysis *an, Query *query);

/* clauses.c */
extern void sc_check_clauses(ScAnalysis *an);
/* A part of it: ORDER BY, LIMIT and row locks. */
extern void sc_check_order(ScAnalysis *an);
/* WITH, which only a source plan can have. */
extern void sc_check_with(ScAnalysis *an);
/* Raises "<clause> is not supported in a continuous query". */
pg_noreturn extern void sc_refuse_clause(ScAnalysis *an, int location,
										 const char *clause, const char *hint);

/* from.c */
/* Is an item of FROM, or one of its functions (ROWS FROM), the call of a window function? */
extern bool sc_calls_window_function(RangeTblEntry *rte);
extern void sc_analyze_from(ScAnalysis *an);

/* source.c */
/* Does the condition need nothing but the row of the stream, with its window? */
extern bool sc_is_of_stream(ScAnalysis *an, Node *qual);
/* Does it need all of them, but no plan: the window, of which a joined row has several? */
extern bool sc_is_of_windows(ScAnalysis *an, Node *qual);
/*
 * Is the expression a column of the joined row: a column of FROM's, or something with a subquery?  As a whole: CASE decides
 * whether the subquery is asked.
 */
extern bool sc_is_joined(ScAnalysis *an, Node *node);
extern Var *sc_joined_var(ScAnalysis *an, Node *node);
/* Makes def->source, when nothing asks for columns any more; fails if it can't be planned. */
extern void sc_build_source(ScAnalysis *an);
/* source_plan.c: the query with views, and row-level security, in it. */
extern Query *sc_source_rewrite(const ScSource *source);
/* Fails if a SELECT below the core level, as written or rewritten, is or has what cannot be read. */
extern void sc_check_source_query(ScAnalysis *an, Query *query);

/* window.c */
/* The column that a window has for it in the row at hand.  Fails if a row doesn't know its window. */
extern void sc_check_window_is_known(ScAnalysis *an, Var *var);
extern bool sc_is_window_function(Oid funcid);
/* The kind of windows that a function of ours makes; false: it is no window function. */
extern bool sc_window_function_kind(Oid funcid, ScWindowKind *kind);
extern void sc_analyze_window(ScAnalysis *an);

/* commit_time.c: is it a call of commit_time()? */
extern bool sc_is_commit_time(Node *node);
/* Is such a call the first argument of the query's window function, of the stream's rows? */
extern bool sc_is_commit_time_argument(ScAnalysis *an, Node *node);
/* Refuses any other. */
pg_noreturn extern void sc_check_commit_time(ScAnalysis *an, Node *node);
/* The first argument of a window function over a stream with processing_time: fills in the event time, or fails. */
extern void sc_analyze_commit_time(ScAnalysis *an, Node *arg, const char *function);

/* time_keys.c: fills in the window and the event time, if an item of GROUP BY is a window */
extern bool sc_find_time_key(ScAnalysis *an);
/*
 * A zone as the server's functions take its name; NULL: it is unknown, or can be an abbreviation: what those are is a
 * matter of settings, and of time for some.
 */
extern pg_tz *sc_zone_of_name(const char *name);
/* Does a key read the event time? */
extern bool sc_keys_read_event_time(ScAnalysis *an);

/* expressions.c */
extern void sc_check_expressions(ScAnalysis *an);
/* The same of what is above the core level. */
extern void sc_check_upper_expressions(ScAnalysis *an);
/* And of the source query once views are in it. */
extern void sc_check_rewritten(Query *query);

/* run_dependent.c: is it one of pg_catalog's whose value depends on when and where it is called? */
extern bool sc_is_run_dependent(Oid funcid);

/* changes.c */
extern void sc_check_changes(ScAnalysis *an);

/* depends.c */
extern void sc_note_dependencies(ScAnalysis *an);
extern void sc_note_planned_dependencies(ScAnalysis *an);
extern void sc_note_upper_dependencies(ScAnalysis *an);
/* Of the source query, with views in it. */
extern void sc_note_source_dependencies(ScAnalysis *an, Query *rewritten);

/* source_part.c: "node", as written, over the row of the stream or the joined row */
extern Expr *sc_source_expr(ScAnalysis *an, Node *node);
/*
 * WHERE, and what of HAVING is about keys alone: as PostgreSQL's planner does it, the aggregates
 * don't see rows of groups that such a condition rules out.  HAVING keeps it all the same, for
 * groups in a state that was saved before.  Of several grouping sets it is about keys that some of them leave out.
 * Returned are, if there is a source plan, those that are over the joined row; else all.
 */
extern List *sc_place_quals(ScAnalysis *an);

/*
 * result_key.c: the first column in the select list that tells windows apart, if there are windows, and all keys; the row's
 * number if a group has several rows.
 */
extern void sc_build_result_key(ScAnalysis *an);
/* The same without groups, if rows can go: a key of the stream, and a column of the window, if there is one. */
extern void sc_build_row_key(ScAnalysis *an);

/* split.c */
/* A column of the group slot, of the expression's type. */
extern Var *sc_group_var(AttrNumber attno, Node *expr);
/* Position of "expr" in the list of what GROUP BY or the aggregates hold, or -1. */
extern int	sc_find_expr(List *exprs, Node *expr);
extern void sc_split_definition(ScAnalysis *an);

/*
 * grouping_sets.c: reads GROUPING SETS, when GROUP BY is read; adds the set's number to def's keys; what GROUPING() is over
 * the group slot.
 */
extern void sc_analyze_grouping_sets(ScAnalysis *an);
extern void sc_build_set_key(ScAnalysis *an);
extern Node *sc_grouping_value(ScAnalysis *an, const GroupingFunc *call);
/* The columns of the result (from 1) that are GROUPING(); do they tell the sets apart? */
extern bool sc_find_grouping_columns(ScAnalysis *an, List **columns);
/* Do these columns of a query (from 0)? */
extern bool sc_columns_tell_sets_apart(Query *query, const int *columns, int ncolumns);

/* window_local.c: fills in the result's window column */
extern void sc_check_window_local(ScAnalysis *an);

/* upper.c */
extern void sc_plan_upper(ScAnalysis *an);

/* position.c: for use inside ereport(); location in bytes, -1: none */
extern int	sc_errposition(ScAnalysis *an, int location);
/* Location of the n-th (from 0) relation, function or subquery in FROM, or -1. */
extern int	sc_from_item_location(ScAnalysis *an, int ordinal);
/* Locations of the first item of ORDER BY, WINDOW, FOR UPDATE as written, or -1. */
extern int	sc_order_by_location(ScAnalysis *an);
extern int	sc_window_clause_location(ScAnalysis *an);
extern int	sc_row_lock_location(ScAnalysis *an);
/* Of a relation's name, anywhere, or -1. */
extern int	sc_relation_location(ScAnalysis *an, Oid relid);

#endif							/* SC_QUERY_QUERY_INTERNAL_H */
