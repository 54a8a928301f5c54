/*-------------------------------------------------------------------------
 * foreign_internal.h
 *	  What the parts of the foreign-data wrapper share.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SOURCE_LOG_STREAM_FOREIGN_INTERNAL_H
#define SC_SOURCE_LOG_STREAM_FOREIGN_INTERNAL_H

#include "base/compat.h"
#include "foreign/fdwapi.h"

/* Adds the callbacks that take rows (foreign_insert.c). */
extern void sc_foreign_insert_callbacks(FdwRoutine *routine);

/* Raises "cannot <what> stream <name>". */
pg_noreturn extern void sc_refuse_on_log_stream(const char *what, const char *name);

#endif							/* SC_SOURCE_LOG_STREAM_FOREIGN_INTERNAL_H */
