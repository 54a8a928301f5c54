/*-------------------------------------------------------------------------
 * source.h
 *	  Planning the source query of a definition (model/definition.h, ScSource).
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_SOURCE_H
#define SC_QUERY_SOURCE_H

#include "model/definition.h"

/*
 * Rewrites and plans the query for about "nrows" rows of the stream, in the current memory context: by the catalogs as they
 * are now, as the current user, who must be the query's owner, with his row-level security.  Locks (AccessShare) what it
 * reads until the transaction's end; waits for locks are the caller's to bound.  Raises what creating the query would raise
 * of what is in views now.  Needs an active snapshot.
 */
extern PlannedStmt *sc_source_plan(const ScSource *source, double nrows);

#endif							/* SC_QUERY_SOURCE_H */
