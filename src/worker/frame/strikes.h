/*-------------------------------------------------------------------------
 * strikes.h
 *	  How often queries have taken more than their share of time lately.
 *
 * A query that was interrupted, and is healthy again after the next try, would begin anew with its
 * failures each time, and cost the others a share and a restart again and again.  So strikes
 * outlast its recovery, by SC_STRIKES_MS, and the attempts: they live in the pipeline's shared
 * memory, where only its coordinator reads and writes them.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_STRIKES_H
#define SC_WORKER_FRAME_STRIKES_H

#include "base/clock.h"

/* Queries of a pipeline that are remembered; of more, those whose strike is the latest. */
#define SC_MAX_STRIKES	64

/* After so long without a strike a query has none. */
#define SC_STRIKES_MS	600000

typedef struct ScStrikes
{
	int64		query_id;		/* 0: free */
	int			count;
	ScMoment	last;
} ScStrikes;

/* It was interrupted. */
extern void sc_strikes_add(int64 query_id);

/* How often it was lately: with how many failures it begins, less than SC_PATIENCE. */
extern int	sc_strikes_of(int64 query_id);

#endif							/* SC_WORKER_FRAME_STRIKES_H */
