/*-------------------------------------------------------------------------
 * retained_table.h
 *	  The tables in which checkpoints retain rows for users, late_rows and dead_letter:
 *	  users may delete from them at any time.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_RETAINED_TABLE_H
#define SC_CKPT_RETAINED_TABLE_H

#include "access/attnum.h"
#include "ckpt/retained_row.h"
#include "model/catalog_table.h"

/*
 * Removes a query's rows; those that somebody else removes are waited for, or false tells that
 * they may remain.
 */
extern bool sc_retained_delete(const char *name, AttrNumber query_id_attno, int64 query_id, bool wait);

/* Sets three columns; those that are 0 become NULL. */
extern void sc_retained_row_set(ScCatalogRow *row, const ScRetainedRow *kept, AttrNumber row_attno,
							AttrNumber types_attno, AttrNumber text_attno);

#endif							/* SC_CKPT_RETAINED_TABLE_H */
