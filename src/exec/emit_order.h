/*-------------------------------------------------------------------------
 * emit_order.h
 *	  The groups of a bucket that are to be emitted, in key order, a portion at a time.
 *
 * Errors of comparing go through, and leave the order as it was before the call.
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_EMIT_ORDER_H
#define SC_EXEC_EMIT_ORDER_H

#include "base/pace.h"
#include "exec/exec_internal.h"

/* A group to be emitted, with its first key at hand. */
typedef struct ScEmitItem
{
	Datum		key;
	bool		isnull;
	uint32		number;
} ScEmitItem;

typedef struct ScEmitOrder ScEmitOrder;

/*
 * "all": of its groups; "due": of those in engine->due; else those that have changed.  In the engine's context, to be freed by
 * sc_emit_order_free.  Comparing may allocate in the current one.
 */
extern ScEmitOrder *sc_emit_order_begin(ScEngine *engine, ScBucket *bucket, bool all, bool due);
/* Goes on ordering; true: portions can be taken. */
extern bool sc_emit_order_work(ScEmitOrder *order, ScPace *pace);
/* The next portion, which may be empty, valid until the next call; false: there are no more. */
extern bool sc_emit_order_next(ScEmitOrder *order, ScEmitItem **items, uint32 *n);
extern void sc_emit_order_free(ScEmitOrder *order);

#endif							/* SC_EXEC_EMIT_ORDER_H */
