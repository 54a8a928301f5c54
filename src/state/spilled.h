/*-------------------------------------------------------------------------
 * spilled.h
 *	  Runs of panes that are larger than memory (exec/spilled.c): the task writes them itself, looks groups
 *	  up in them, and merges them.
 *
 * All is called where sc_engine_row is (exec/engine.h), in a transaction with an active snapshot, and outside of
 * subtransactions if it writes.  A transaction that has written must be committed before what sc_changelog_write handed
 * to its sink is sent; if that fails, the query has to be loaded again.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_SPILLED_H
#define SC_STATE_SPILLED_H

#include "exec/engine.h"

/* Of one query in a task; outlives engines. */
typedef struct ScSpilled ScSpilled;

/* In a context of its own, child of "parent"; "counters" must live longer. */
extern ScSpilled *sc_spilled_create(MemoryContext parent, int64 query_id, ScSpillCounters *counters);

/* For ScEngineOptions; spill_arg is the ScSpilled. */
extern const ScSpillWays sc_spill_ways;

/* Has anything been written since the last call? */
extern bool sc_spilled_has_written(ScSpilled *spilled);

/*
 * Goes on with merging runs, and with deleting those that aren't needed any more: some of it, by what has been
 * written since the last call.  True: there is more.  To be called between two rows.
 */
extern bool sc_spilled_work(ScSpilled *spilled, ScEngine *engine);

#endif							/* SC_STATE_SPILLED_H */
