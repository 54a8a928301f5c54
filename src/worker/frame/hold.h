/*-------------------------------------------------------------------------
 * hold.h
 *	  Commands that need a database to themselves: DROP DATABASE, CREATE DATABASE
 *	  ... TEMPLATE, ALTER DATABASE RENAME and SET TABLESPACE.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_HOLD_H
#define SC_WORKER_FRAME_HOLD_H

/* At preloading: asks for the memory; at startup: makes it. */
extern Size sc_hold_shared_size(void);
extern void sc_hold_shared_startup(void);

/*
 * Keeps the database's pipelines from starting, until the same session calls sc_hold_end.  A
 * session holds one database at a time, and must call sc_hold_end also when it is terminated
 * (PG_ENSURE_ERROR_CLEANUP).
 */
extern void sc_hold_begin(Oid database);

/* Lets them start again, unless another session holds the database, too. */
extern void sc_hold_end(void);

/* Does any session hold it? */
extern bool sc_hold_any(Oid database);

/* Ends the database's workers and waits until they are gone; it must be held. */
extern void sc_hold_stop_workers(Oid database);

/* Forgets the entries of a database that is gone. */
extern void sc_hold_forget_database(Oid database);

#endif							/* SC_WORKER_FRAME_HOLD_H */
