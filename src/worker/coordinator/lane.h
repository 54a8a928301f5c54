/*-------------------------------------------------------------------------
 * lane.h
 *	  Queries that begin with a history while others run: they do so in a pipeline of their own, the lane.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_LANE_H
#define SC_WORKER_COORDINATOR_LANE_H

#include "model/catalog.h"

typedef enum ScLaneAnswer
{
	SC_LANE_NO,					/* they begin here, with an attempt */
	SC_LANE_LATER,				/* somebody has what is needed for it: to be asked again */
	SC_LANE_SENT				/* they are queries of the lane, and come back when they have their history */
} ScLaneAnswer;

/*
 * The queries (ScQuery *) that are new and are to begin in the lane, if it can run.  At the beginning of an attempt of
 * "ntasks" tasks, which leaves them out: they are sent then.  Needs a transaction.
 */
extern List *sc_lane_takes(int ntasks);

/* Sends those that the attempt lacks, in a transaction of its own; to be called outside of one. */
extern ScLaneAnswer sc_lane_send(int ntasks);

/* Whether queries of this pipeline are in the lane, as the catalogs say.  Needs a transaction. */
extern void sc_lane_load(void);

/*
 * Takes back what the lane doesn't begin because it doesn't run; outside of a transaction.  Returns milliseconds until
 * that is to be looked at again; -1: there is nothing to be looked at.
 */
extern long sc_lane_look(void);

/*
 * Of the lane itself: do queries leave it that begin with no history any more?  One that is new waits for that, not for
 * long.
 */
extern bool sc_lane_is_left(void);

#endif							/* SC_WORKER_COORDINATOR_LANE_H */
