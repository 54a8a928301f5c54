/*-------------------------------------------------------------------------
 * row_json.h
 *	  A row as jsonb, for the tables that keep rows.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_ROW_JSON_H
#define SC_WORKER_ROW_JSON_H

#include "executor/tuptable.h"

/*
 * The row in "slot" as a jsonb object, in the current memory context.  Runs
 * output functions and casts: to be called as the query's owner, as expressions are.
 */
extern Datum sc_row_jsonb(TupleTableSlot *slot);

/* The same in a subtransaction; 0 where a value can't be jsonb.  Errors: transient ones. */
extern Datum sc_row_jsonb_or_null(TupleTableSlot *slot);

/* The row as PostgreSQL writes it, as a jsonb string: for such values. */
extern Datum sc_row_text_jsonb(TupleTableSlot *slot);

#endif							/* SC_WORKER_ROW_JSON_H */
