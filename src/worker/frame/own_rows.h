/*-------------------------------------------------------------------------
 * own_rows.h
 *	  Result rows that a coordinator, or its writer, is writing, for the reader to pass over.
 *
 * A result table that is no stream has no row that anybody captures, but decoding would
 * collect, sort and deform each of them all the same.  So who writes tells the reader, before he
 * writes many rows into a table, its files and the (sub)transaction's id; the reader leaves out what
 * that one transaction did to these files, before it is decoded.
 *
 * Why nothing can be lost: until the transaction ends its process holds the lock on the table,
 * with which it can't become a partition or get other files, and the lock on the stream of that name, with
 * which it can't be attached.  And nobody else's rows are ever left out.
 *
 * What is left out is left out from a transaction's first row to its last: half of a value out of line can't be
 * decoded.  So a place is taken from nobody whom the reader hasn't read to the end.  If none is free, because the
 * reader is far behind or the tables are many, it isn't told, and decodes: that costs time only.
 * Coordinator and writer have a transaction at the same time, so each ends its own places only.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_OWN_ROWS_H
#define SC_WORKER_FRAME_OWN_ROWS_H

#include "access/xlogdefs.h"
#include "base/compat.h"
#include "port/atomics.h"
#include "storage/spin.h"
#include "utils/relcache.h"

#define SC_OWN_ROWS		32

/* In the pipeline's shared memory.  Its mutex guards all but "changes". */
typedef struct ScOwnRows
{
	pg_atomic_uint64 changes;	/* how often the rest changed */
	struct
	{
		TransactionId xid;		/* (sub)transaction; invalid: free */
		pid_t		pid;		/* whose */
		RelFileLocator files[2];	/* of the table, and of its TOAST table, or of the table again */
		XLogRecPtr	from;		/* what lies between these in the WAL; until is invalid while the */
		XLogRecPtr	until;		/* transaction runs */
	}			places[SC_OWN_ROWS];
} ScOwnRows;

/*
 * Coordinator or writer: this (sub)transaction is about to write many rows into the table, on which it has a lock.
 * Does nothing if the table is, or may become, part of a stream.
 */
extern void sc_own_rows_begin(Relation relation);

/* Coordinator or writer: its transaction has ended. */
extern void sc_own_rows_end(void);
/* A coordinator begins, and no writer is there: whoever was there before, his transaction has ended. */
extern void sc_own_rows_end_all(void);

/* Reader: has the transaction "xid" written a record at "lsn" about these files that no stream has? */
extern bool sc_own_rows_contain(TransactionId xid, const RelFileLocator *file, XLogRecPtr lsn);

#endif							/* SC_WORKER_FRAME_OWN_ROWS_H */
