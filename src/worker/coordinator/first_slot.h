/*-------------------------------------------------------------------------
 * first_slot.h
 *	  The slot of a pipeline whose queries are all new.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_FIRST_SLOT_H
#define SC_WORKER_COORDINATOR_FIRST_SLOT_H

/*
 * Makes the pipeline's slot, in place of one that was invalidated, in a transaction of its own.  Waits for every transaction
 * that has an id; the status says so.  False if what the catalogs say of the pipeline has changed meanwhile: it may
 * need none any more.  The process is to end then.
 */
extern bool sc_slot_for_new_queries(void);

#endif							/* SC_WORKER_COORDINATOR_FIRST_SLOT_H */
