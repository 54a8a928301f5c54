/*-------------------------------------------------------------------------
 * changed.h
 *	  Windows that have changed when they were over (exec/changed_windows.c): rows of stream_ckpt.changed_windows, one for
 *	  each range of them, SC_RANGE_SET_MAX at most of a query.
 *
 * All need a transaction.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_CHANGED_H
#define SC_CKPT_CHANGED_H

#include "window/watermark.h"

/* In a checkpoint's transaction.  What is there already changes nothing. */
extern void sc_changed_add(int64 query_id, const ScWindowRange *ranges, int64 n);
/* All of the query's; palloc'd. */
extern ScRangeSet *sc_changed_read(int64 query_id);
extern void sc_changed_delete(int64 query_id);

#endif							/* SC_CKPT_CHANGED_H */
