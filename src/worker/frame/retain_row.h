/*-------------------------------------------------------------------------
 * retain_row.h
 *	  A row as the tables of retained rows keep it: for people to read, and to be
 *	  inserted again as it was.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_RETAIN_ROW_H
#define SC_WORKER_FRAME_RETAIN_ROW_H

#include "access/tupdesc.h"
#include "ckpt/retained_row.h"

/*
 * Makes *retained, in the current memory context, of the row with the columns "desc".  Runs output
 * functions: to be called as the query's owner, as expressions are.  A value whose output
 * function fails doesn't lose the row: the others are there, but "text" isn't.  Errors: those that
 * may pass, and 54000 for a row too large to be kept.
 */
extern void sc_retain_row(TupleDesc desc, const Datum *values, const bool *nulls,
						  ScRetainedRow *retained);

#endif							/* SC_WORKER_FRAME_RETAIN_ROW_H */
