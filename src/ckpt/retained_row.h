/*-------------------------------------------------------------------------
 * retained_row.h
 *	  A row as the tables late_rows and dead_letter keep it.
 *
 * As bytes: uint32 lengths[4] (row, types, text; 0: it is NULL; one is unused), then the
 * datums, each padded to MAXALIGN.  Byte order is the machine's; valid for one attempt.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_RETAINED_ROW_H
#define SC_CKPT_RETAINED_ROW_H

#include "lib/stringinfo.h"

/* Flat datums; 0: NULL. */
typedef struct ScRetainedRow
{
	Datum		row;			/* jsonb: for reading */
	Datum		types;			/* text[][]: name and type of each column of "text" */
	Datum		text;			/* text: the row in the format of COPY */
} ScRetainedRow;

extern void sc_retained_row_write(StringInfo buf, const ScRetainedRow *row);

/* "data" must be MAXALIGNed; the datums point into it.  Returns what follows. */
extern const char *sc_retained_row_read(const char *data, ScRetainedRow *row);

#endif							/* SC_CKPT_RETAINED_ROW_H */
