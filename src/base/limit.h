/*-------------------------------------------------------------------------
 * limit.h
 *	  How long code of a query's owner may take in one go: statement_timeout isn't armed
 *	  in workers.  And cancels of the process, which aren't errors of that code.
 *
 * The rule is about time, not about steps.  A go is charged the time that passes, less that in
 * which the process was ready and had no CPU (base/cpu.h).  While other queries wait for their turn
 * in this process it may take what its owner has left of stream_ckpt.query_share in this round
 * (base/share.h), else stream_ckpt.query_time_limit;
 * and SC_LIMIT_UNIT_US more for each row, group or entry of state that it has worked on: what is
 * large isn't slow.  Nor is what is many: SC_LIMIT_GO_US more for each go.
 *
 * Code can raise an error with ERRCODE_QUERY_CANCELED itself, and catch one: neither
 * tells what happened, and neither may keep it from ending.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_LIMIT_H
#define SC_BASE_LIMIT_H

#include "nodes/pg_list.h"

#define SC_LIMIT_UNIT_US	100
/* Ours is what each go begins and ends with, and the compilation of a query, in units */
#define SC_LIMIT_GO_US		2000
#define SC_LIMIT_COMPILE	100
/* For state whose entries aren't counted: bytes that count as one */
#define SC_LIMIT_UNIT_BYTES	64

/*
 * A go of a query of this owner's.  From now on, until sc_limit_end, code that takes longer than it may is
 * interrupted: the next CHECK_FOR_INTERRUPTS raises ERRCODE_QUERY_CANCELED.  Calls don't nest; begin
 * again to start anew.
 */
extern void sc_limit_begin(Oid owner);
/* One go for what the code of several queries left: their owners, each as often as he has some. */
extern void sc_limit_begin_all(const List *owners);
extern void sc_limit_end(void);

/* Microseconds that the go which ended last is charged, and the units that it worked on; 0 without a limit. */
extern int64 sc_limit_took(int64 *units);

/* The go has worked, or is about to work, on so many rows, groups or entries. */
extern void sc_limit_add(int64 units);

/* Begins anew if a limit is in force: none of what was done so far was code of an owner's. */
extern void sc_limit_renew(void);

/*
 * In the handler of an error, once: ends the limit, and has the error say so if it comes from that
 * limit.
 */
extern void sc_limit_explain(ErrorData *error);

/* What to say of a limit that was reached, palloc'd. */
extern void sc_limit_describe(const char *setting, char **message, char **hint);

/* Microseconds that a go of this owner's may take, and the setting's name; 0: there is no limit. */
extern int64 sc_limit_us(Oid owner, const char **setting);

/* Microseconds that the go may still take of a share; PG_INT64_MAX: none bounds it. */
extern int64 sc_limit_left(void);

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
