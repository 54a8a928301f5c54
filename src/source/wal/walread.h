/*-------------------------------------------------------------------------
 * walread.h
 *	  Reading the local WAL without waiting for more of it.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SOURCE_WAL_WALREAD_H
#define SC_SOURCE_WAL_WALREAD_H

#include "access/xlogreader.h"

/*
 * page_read callback: like read_local_xlog_page_no_wait, but private_data stays
 * the decoding context's.  Returns -1 where the WAL asked for isn't flushed yet: XLogReadRecord then
 * returns NULL without a message, and the caller must XLogBeginRead(EndRecPtr).
 */
extern int	sc_wal_page_read(XLogReaderState *state, XLogRecPtr target_page,
							 int req_len, XLogRecPtr target_rec, char *cur_page);

/*
 * Flushes all WAL inserted so far (asynchronous commits).  Returns false, and
 * does nothing, where it is flushed already.
 */
extern bool sc_wal_flush_inserted(void);

/* Has WAL been flushed since the last read that found no more? */
extern bool sc_wal_grew(void);

/* Is there WAL that isn't flushed? */
extern bool sc_wal_is_unflushed(void);

#endif							/* SC_SOURCE_WAL_WALREAD_H */
