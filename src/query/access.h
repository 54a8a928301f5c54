/*-------------------------------------------------------------------------
 * access.h
 *	  May the owner of a query still read its stream, and call what it calls?
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_ACCESS_H
#define SC_QUERY_ACCESS_H

#include "model/catalog.h"
#include "nodes/parsenodes.h"

/*
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE where not, or where row-level security would hide
 * rows from the owner.  The current user is the owner (base/env.h).  Takes no lock; does
 * nothing where the definition is gone.
 */
extern void sc_check_access(const ScQuery *query);

/*
 * The current user needs SELECT on every column of a stream whose rows are kept for him;
 * an error otherwise.
 */
extern void sc_check_retained_columns(Oid relid);

/* May the current user read the columns that the definition reads, in whatever SELECT of it?  An error otherwise. */
extern void sc_check_relations(Query *query);

#endif							/* SC_QUERY_ACCESS_H */
