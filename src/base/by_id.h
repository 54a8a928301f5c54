/*-------------------------------------------------------------------------
 * by_id.h
 *	  Finding in a list what has an id: a query's entry, offset, failure...
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_BY_ID_H
#define SC_BASE_BY_ID_H

#include "nodes/pg_list.h"

/* The element, or NULL.  Elements are structs whose first field, an int64, is the id. */
static inline void *
sc_find_by_id(const List *list, int64 id)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		if (*(const int64 *) lfirst(lc) == id)
			return lfirst(lc);
	}
	return NULL;
}

#endif							/* SC_BASE_BY_ID_H */
