/*-------------------------------------------------------------------------
 * order.h
 *	  The groups of a bucket that are to be written, in order of position; found and ordered in steps.
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_ORDER_H
#define SC_EXEC_ORDER_H

#include "base/pace.h"
#include "exec/exec_internal.h"

typedef struct ScOrder ScOrder;

/*
 * The changed groups of the bucket and those of "choice", as of now; "changed": the list of their numbers, which must
 * stay as it is, or NULL if all of them are.  In the current context, to be freed by sc_order_free.
 */
extern ScOrder *sc_order_begin(const ScEngine *engine, const ScBucket *bucket, const ScChoice *choice,
							   const uint32 *changed, uint32 nchanged);
/* Goes on ordering.  True: groups can be taken. */
extern bool sc_order_work(ScEngine *engine, ScOrder *order, ScPace *pace);
/* The next group in the order; false: there are no more.  *ahead: the number of one that comes soon, or the same. */
extern bool sc_order_next(ScOrder *order, ScGroupAt *at, uint32 *ahead);
extern void sc_order_free(ScOrder *order);

#endif							/* SC_EXEC_ORDER_H */
