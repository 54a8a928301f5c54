/*-------------------------------------------------------------------------
 * prepared.h
 *	  A database that is prepared for pg_upgrade: its pipelines have stopped, without slots, and nobody writes into what
 *	  their queries read.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_PREPARED_H
#define SC_WORKER_FRAME_PREPARED_H

/*
 * Right before a transaction commits, or is prepared: an error if it has written into a stream that a query of a prepared
 * pipeline reads.
 */
extern void sc_prepared_refuse_writes(void);

/* The current transaction prepares the database, or ends that: when it commits, all sessions look again. */
extern void sc_prepared_changed(void);
/* When a transaction has ended. */
extern void sc_prepared_at_transaction_end(bool committed);

#endif							/* SC_WORKER_FRAME_PREPARED_H */
