/*-------------------------------------------------------------------------
 * limit.h
 *	  How long code of a query's owner may take in one go: statement_timeout isn't armed
 *	  in workers.  And cancels of the process, which aren't errors of that code.
 *
 * The rule is about time, not about steps.  A go is charged the time that passes, less that in
 * which the process was ready and had no CPU (base/cpu.h).  It may take stream_ckpt.query_share
 * while other queries wait for their turn in this process, stream_ckpt.query_time_limit otherwise;
 * and SC_LIMIT_UNIT_US more for each row, group or entry of state that it has worked on: what is
 * large isn't slow.
 *
 * Code can raise an error with ERRCODE_QUERY_CANCELED itself, and catch one: neither
 * tells what happened, and neither may keep it from ending.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_LIMIT_H
#define SC_BASE_LIMIT_H

#define SC_LIMIT_UNIT_US	100
/* For state whose entries aren't counted: bytes that count as one */
#define SC_LIMIT_UNIT_BYTES	64

/*
 * From now on, until sc_limit_end, code that takes longer than a go may is interrupted: the
 * next CHECK_FOR_INTERRUPTS raises ERRCODE_QUERY_CANCELED.  others_wait: other queries share the
 * process.  Calls don't nest; begin again to start anew.
 */
extern void sc_limit_begin(bool others_wait);
/* The same with so many limits at once, for what the code of so many queries left. */
extern void sc_limit_begin_times(bool others_wait, int times);
extern void sc_limit_end(void);

/* The go has worked, or is about to work, on so many rows, groups or entries. */
extern void sc_limit_add(int64 units);

/* Begins anew if a limit is in force: none of what was done so far was code of an owner's. */
extern void sc_limit_renew(void);

/*
 * In the handler of an error, once: the name of the setting whose limit was reached, or NULL.
 * Ends the limit.
 */
extern const char *sc_limit_reached(void);

/* What to say of a limit that was reached, palloc'd. */
extern void sc_limit_describe(const char *setting, char **message, char **hint);

/* Milliseconds that a go may take, and the setting's name; 0: there is no limit. */
extern int	sc_limit_ms(bool others_wait, const char **setting);

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
