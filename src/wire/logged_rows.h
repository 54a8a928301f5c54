/*-------------------------------------------------------------------------
 * logged_rows.h
 *	  Messages of rows: what an insertion into a log stream writes into the WAL,
 *	  and a reader finds there.
 *
 * A transactional logical message with prefix SC_ROWS_PREFIX, of the database and
 * the (sub)transaction whose rows they are.  The payload is an ScRowsHeader and
 * "nrows" records as in batch.h, of operation 'I' and without a layout's number:
 * a reader copies them as they are and fills that in.  Byte order: the server's.
 *
 * It carries the origin of all our messages (model/control.h).
 *-------------------------------------------------------------------------
 */
#ifndef SC_WIRE_LOGGED_ROWS_H
#define SC_WIRE_LOGGED_ROWS_H

#include "access/attnum.h"

#define SC_ROWS_PREFIX	"stream_ckpt/rows"

#define SC_ROWS_MAGIC	0x31525353	/* "SSR1": another format has another number */

/* A message is written when it has grown so large. */
#define SC_ROWS_BYTES	(32 * 1024)
/* A larger row is refused: WAL records, and what is made of them, end at 1 GB. */
#define SC_MAX_ROW_BYTES (512 * 1024 * 1024)

typedef struct ScRowsHeader
{
	uint32		magic;
	Oid			relid;			/* the foreign table */
	uint32		nrows;			/* > 0 */
	int16		event_time_attno;	/* what max_event_time is of; 0: of none */
	uint16		unused;
	int64		max_event_time; /* finite ones only; or SC_NO_EVENT_TIME */
} ScRowsHeader;

StaticAssertDecl(sizeof(ScRowsHeader) == 24, "ScRowsHeader has no padding");

#endif							/* SC_WIRE_LOGGED_ROWS_H */
