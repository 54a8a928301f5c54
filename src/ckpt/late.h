/*-------------------------------------------------------------------------
 * late.h
 *	  stream_ckpt.late_rows: the rows that queries with keep_late_rows dropped as
 *	  late.  Written in the checkpoint's transaction, together with the offset
 *	  that covers them; users read and delete them.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_LATE_H
#define SC_CKPT_LATE_H

#include "access/xlogdefs.h"
#include "ckpt/retained_row.h"
#include "model/catalog.h"

typedef struct ScLateRow
{
	ScRetainedRow row;
	int64		window_start;
	int64		window_end;
	int64		watermark;		/* before the row's transaction */
	XLogRecPtr	lsn;			/* end of that transaction */
	int64		ordinal;		/* among the stream's rows in it, from 1 */
} ScLateRow;

typedef struct ScLateWriter ScLateWriter;

/*
 * Begins writing rows of "query" in the current (sub)transaction, which needs an
 * active snapshot, and must call _end; after an abort the writer is forgotten.
 */
extern ScLateWriter *sc_late_begin(const ScQuery *query);
extern void sc_late_add(ScLateWriter *writer, const ScLateRow *late);
extern void sc_late_end(ScLateWriter *writer);

/* Removes all rows of a query; those that somebody else removes are waited for, or false tells
 * that they may remain. */
extern bool sc_late_delete(int64 query_id, bool wait);

#endif							/* SC_CKPT_LATE_H */
