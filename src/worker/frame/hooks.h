/*-------------------------------------------------------------------------
 * hooks.h
 *	  Where the server calls us.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_HOOKS_H
#define SC_WORKER_FRAME_HOOKS_H

/* At preloading. */
extern void sc_hooks_init(void);

/* pipeline.c's share of the transaction callback; the first raises an error where a
 * prepared transaction could not tell the workers. */
extern void sc_pipeline_refuse_prepare(void);
extern void sc_pipeline_at_transaction_end(bool committed);

#endif							/* SC_WORKER_FRAME_HOOKS_H */
