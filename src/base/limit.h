/*-------------------------------------------------------------------------
 * limit.h
 *	  A time limit for code of a query's owner: statement_timeout isn't armed in
 *	  workers.  And cancels of the process, which aren't errors of that code.
 *
 * Code can raise an error with ERRCODE_QUERY_CANCELED itself, and catch one: neither
 * tells what happened, and neither may keep it from ending.
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
/* The same with so many limits at once, for what the code of so many queries left. */
extern void sc_limit_begin_times(int times);
extern void sc_limit_end(void);

/*
 * Begins anew where a limit is in force: between the parts of work that is long by itself.
 * Where each part runs code of the owner's, too, ten limits are the bound since sc_limit_begin.
 */
extern void sc_limit_renew(void);
extern void sc_limit_renew_within_bounds(void);

/* In the handler of an error, once: was the limit reached?  Ends the limit. */
extern bool sc_limit_reached(void);

/* Once in the life of a worker: notices SIGINT. */
extern void sc_limit_begin_worker(void);

/* Has somebody cancelled this process? */
extern bool sc_limit_cancelled(void);

/*
 * Of the error context of a worker, for each error: where the limit was reached or the
 * process is cancelled, the next CHECK_FOR_INTERRUPTS raises an error again, so that code
 * which caught this one doesn't get on.
 */
extern void sc_limit_insist(void);

#endif							/* SC_BASE_LIMIT_H */
