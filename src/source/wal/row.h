/*-------------------------------------------------------------------------
 * row.h
 *	  Rows into messages: decoded ones, and those of a table's history.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SOURCE_WAL_ROW_H
#define SC_SOURCE_WAL_ROW_H

#include "access/htup.h"
#include "source/wal/capture.h"

/*
 * Adds an inserted row of a relation with this layout and row type to the batch, and its event time and number to what
 * the layout's captures say of the transaction; they have been touched.  "context" is reset if it is used.  Values that
 * are out of line are read: a row of a table needs an active snapshot for that.
 */
extern void sc_row_write(ScBatch *batch, ScLayout *layout, TupleDesc desc, HeapTuple tuple, MemoryContext context);

#endif							/* SC_SOURCE_WAL_ROW_H */
