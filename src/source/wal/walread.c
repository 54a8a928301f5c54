/*-------------------------------------------------------------------------
 * walread.c
 *	  Reading the local WAL without waiting for more of it.
 *
 * PostgreSQL's own callbacks either poll each millisecond, or report the end of
 * WAL through the reader's private data, which logical decoding uses itself.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "source/wal/walread.h"

/* What was flushed when the last read found no more. */
static XLogRecPtr seen;

int
sc_wal_page_read(XLogReaderState *state, XLogRecPtr target_page, int req_len,
				 XLogRecPtr target_rec, char *cur_page)
{
	XLogRecPtr	read_upto;
	TimeLineID	current_tli;
	TimeLineID	tli;
	int			count;
	WALReadError error;

	read_upto = GetFlushRecPtr(&current_tli);
	XLogReadDetermineTimeline(state, target_page, req_len, current_tli);
	tli = state->currTLI;
	if (tli != current_tli)
		read_upto = state->currTLIValidUntil;	/* a timeline that has ended */

	if (target_page + req_len > read_upto)
	{
		seen = read_upto;
		return -1;
	}
	if (target_page + XLOG_BLCKSZ <= read_upto)
		count = XLOG_BLCKSZ;
	else
		count = (int) (read_upto - target_page);

	if (!WALRead(state, cur_page, target_page, XLOG_BLCKSZ, tli, &error))
		WALReadRaiseError(&error);
	return count;
}

bool
sc_wal_grew(void)
{
	return GetFlushRecPtr(NULL) > seen;
}

/* Where WAL has been inserted to, as a position that can be flushed. */
static XLogRecPtr
inserted(void)
{
	XLogRecPtr	insert = GetXLogInsertRecPtr();

	/*
	 * At the start of a page the position counts the page's header, which is not
	 * there before a record is: flushing up to it would fail.
	 */
	if (XLogSegmentOffset(insert, wal_segment_size) == SizeOfXLogLongPHD)
		insert -= SizeOfXLogLongPHD;
	else if (insert % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		insert -= SizeOfXLogShortPHD;
	return insert;
}

bool
sc_wal_is_unflushed(void)
{
	return inserted() > GetFlushRecPtr(NULL);
}

bool
sc_wal_flush_inserted(void)
{
	XLogRecPtr	insert = inserted();

	if (insert <= GetFlushRecPtr(NULL))
		return false;
	XLogFlush(insert);
	return true;
}
