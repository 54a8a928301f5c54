/*-------------------------------------------------------------------------
 * gap.h
 *	  start_pipeline(accept_gap => true): going on without the rows between.
 *-------------------------------------------------------------------------
 */
#ifndef SC_API_GAP_H
#define SC_API_GAP_H

#include "model/catalog.h"

/*
 * Makes sure that the pipeline has a slot that can be read.  To be called before
 * the transaction has an id and before the pipeline is locked.
 */
extern void sc_gap_prepare(const ScPipeline *pipeline);

typedef enum ScGapWay
{
	SC_GAP_GO_ON,				/* they count from there: an error for those over streams whose changes are applied */
	SC_GAP_REBUILD,				/* none of them goes on */
	SC_GAP_OF_NOTHING			/* no rows were written between: they go on, but for those that are returned */
} ScGapWay;

/*
 * Moves the pipeline's queries to the slot's position.  Needs an ExclusiveLock on the pipeline.  Returns the queries
 * (ScQuery *) that have lost the state that they had.
 */
extern List *sc_gap_accept(const ScPipeline *pipeline, ScGapWay way);

/* An error if the pipeline is prepared for pg_upgrade: it has no gap, and waits. */
extern void sc_refuse_prepared(const ScPipeline *pipeline);

#endif							/* SC_API_GAP_H */
