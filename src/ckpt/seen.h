/*-------------------------------------------------------------------------
 * seen.h
 *	  Which transactions a query has by the history that it began with: rows of stream_ckpt.query_history.
 *
 * The history was read under a snapshot.  The log is read from a place before that on: a transaction that ends at or
 * before "until" and that the snapshot shows is in the history, and skipped; all others are met.  The snapshot has
 * top-level transactions only, whose xids are what the log is decoded by: subtransactions don't matter, however many.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_SEEN_H
#define SC_CKPT_SEEN_H

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "utils/snapshot.h"

/* Also part of messages between processes, in the machine's byte order. */
typedef struct ScSeen
{
	XLogRecPtr	until;			/* where the log ended after the snapshot was taken: no transaction in it ends behind that */
	TimestampTz seen_at;
	int64		kept_until;		/* of a query that replaces another: windows that end by then stay as that one left them. Known at
								 * the history's end, not stored; PG_INT64_MIN: none */
	TransactionId xmin;			/* all before it are in, */
	TransactionId xmax;			/* and none from it on, */
	uint32		nxip;			/* nor these, ascending as uint32 */
	uint32		unused;
	TransactionId xip[FLEXIBLE_ARRAY_MEMBER];
} ScSeen;

#define SC_SEEN_SIZE(nxip) (offsetof(ScSeen, xip) + (nxip) * sizeof(TransactionId))

/* palloc'd. */
extern ScSeen *sc_seen_of_snapshot(Snapshot snapshot, XLogRecPtr until, TimestampTz seen_at);

/* Is the transaction with this top-level xid, whose end is "end_lsn", in it? */
extern bool sc_seen_contains(const ScSeen *seen, TransactionId xid, XLogRecPtr end_lsn);

/*
 * The query's row: written with its first part, in the same transaction.  Reading it: palloc'd, or NULL.  All need a
 * transaction and an active snapshot; two transactions that write the same one: the second fails.
 */
extern void sc_seen_put(int64 query_id, const ScSeen *seen);
extern ScSeen *sc_seen_read(int64 query_id);
extern void sc_seen_delete(int64 query_id);

#endif							/* SC_CKPT_SEEN_H */
