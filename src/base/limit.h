/*-------------------------------------------------------------------------
 * limit.h
 *	  A time limit for code of a query's owner: statement_timeout isn't armed in
 *	  workers.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_LIMIT_H
#define SC_BASE_LIMIT_H

/*
 * From now on, until sc_limit_end, code that takes longer than
 * stream_ckpt.query_time_limit is interrupted: the next CHECK_FOR_INTERRUPTS
 * raises ERRCODE_QUERY_CANCELED.  Calls don't nest; begin again to start anew.
 */
extern void sc_limit_begin(void);
extern void sc_limit_end(void);

/* Begins anew where a limit is in force: between the parts of work that is long by
 * itself. */
extern void sc_limit_renew(void);

/* In the handler of an error with ERRCODE_QUERY_CANCELED, once: was it the
 * limit?  Otherwise somebody cancelled this process.  Ends the limit. */
extern bool sc_limit_reached(void);

#endif							/* SC_BASE_LIMIT_H */
