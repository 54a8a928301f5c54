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

/*
 * Moves the pipeline's queries to the slot's position.  Needs an ExclusiveLock on the pipeline.  go_on: they are to count
 * from there, which is an error for those over streams whose changes are applied; else none of them goes on.
 */
extern void sc_gap_accept(const ScPipeline *pipeline, bool go_on);

#endif							/* SC_API_GAP_H */
