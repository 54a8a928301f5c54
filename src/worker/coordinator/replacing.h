/*-------------------------------------------------------------------------
 * replacing.h
 *	  A query takes another one's place, with its first part (src/README, "Replacing a query").
 *
 * All of it is within the part's subtransaction, and errors are the replacement's.  Those that may pass leave its part
 * to be tried again: somebody has a lock, or the query that is to go is paused.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_REPLACING_H
#define SC_WORKER_COORDINATOR_REPLACING_H

#include "model/catalog.h"
#include "worker/coordinator/checkpoint_internal.h"

/*
 * Locks all that is to change, so that nobody else writes into the result, and looks whether the query may take its
 * place now.  Returns the query that is to go.  The part's rows come next, into the table that the query has now.
 */
extern ScQuery *sc_replacing_begin(const ScQuery *query);

/*
 * Those rows are there: changes what differs in the result of "old", and gives it to the query.  "query" is as the
 * catalogs have it then; the old one is gone.  "kept_until": see sc_sink_become().  Sets what writing the rows came to.
 */
extern void sc_replacing_end(ScQuery *query, const ScQuery *old, int64 kept_until, ScWrittenRows *written);

#endif							/* SC_WORKER_COORDINATOR_REPLACING_H */
