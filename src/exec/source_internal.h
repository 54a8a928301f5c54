/*-------------------------------------------------------------------------
 * source_internal.h
 *	  What source.c (batches), source_plans.c (plans) and source_run.c (running them) share.
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_SOURCE_INTERNAL_H
#define SC_EXEC_SOURCE_INTERNAL_H

#include "base/clock.h"
#include "exec/exec_internal.h"
#include "nodes/plannodes.h"
#include "query/source.h"
#include "storage/block.h"
#include "utils/tuplestore.h"

/* Up to so many rows are few, and have a plan of their own; the other one is made for this number */
#define SC_SOURCE_FEW_ROWS	50
#define SC_SOURCE_MANY_ROWS	1000
/* and that for few for this */
#define SC_SOURCE_PLANNED_FEW	10

typedef struct ScSourcePlan
{
	MemoryContext context;		/* of the next two; NULL: there is no plan */
	PlannedStmt *statement;
	BlockNumber *blocks;		/* of each entry of its range table, if that is a table, when it was made */
	Oid			role;			/* whose row-level security is in it */
	ScMoment	looked_at;		/* the tables' sizes */
	bool		stale;
} ScSourcePlan;

struct ScSourceRun
{
	const ScSource *def;
	ExprState  *quals;
	int			last_attno;		/* of the stream's row: so many columns are looked at */
	int			nattnos;
	AttrNumber *attnos;			/* those that the plan reads */
	AttrNumber	natts;			/* of the stream */
	TupleDesc	rows_desc;		/* of "input" */
	Datum	   *values;			/* a row of it */
	bool	   *nulls;
	TupleTableSlot *rows_slot;
	TupleDesc	joined_desc;	/* of "output" */
	ScSourcePlan	plans[2];
	int			in_a_row;		/* so many rows couldn't be joined, and none could */

	/* a batch */
	MemoryContext context;
	ScBatchRow *rows;
	int			nrows;
	int			max_rows;
	int			njoined;		/* of them are in "input" */
	int			nfailed;		/* couldn't be joined */
	bool		in_row;			/* the last one isn't through */
	List	   *stores;			/* of Tuplestorestate *: all that are open */
	Tuplestorestate *input;
	Tuplestorestate *output;	/* NULL: nothing was joined */

	/* reading it */
	TupleTableSlot *slot;		/* the joined row ahead, */
	int			slot_number;	/* which is made of this row */
	bool		taken;			/* and was returned already */
	int			number;			/* of the row whose joined rows are read */
	MemoryContext row_context;	/* of the next one */
	MinimalTuple *kept;			/* with undo: the row's joined rows, as they are read twice */
	int			nkept;
	int			max_kept;
	int			at;				/* so many of them were returned */
	bool		halt;			/* there is no room for more of them */
	bool		begun;			/* some of the row's joined rows are in, and there may be more */
	TupleTableSlot *kept_slot;
};

/* A tuplestore of the batch, whose file isn't the transaction's; until it is closed, or the batch ends. */
extern Tuplestorestate *sc_source_open_store(ScSourceRun *run);
extern void sc_source_close_store(ScSourceRun *run, Tuplestorestate *store);

/* source_plans.c: made for "nrows" rows, whatever was there. */
extern void sc_source_make_plan(ScEngine *engine, ScSourcePlan *plan, double nrows);
/* The plan for so many rows, right as of now, with its relations locked until the transaction's end. */
extern PlannedStmt *sc_source_get_plan(ScEngine *engine, int nrows);

#endif							/* SC_EXEC_SOURCE_INTERNAL_H */
