/*-------------------------------------------------------------------------
 * closed.h
 *	  Which rows of a result are those of windows that a watermark closes, or of given ones, in SQL.
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_CLOSED_H
#define SC_QUERY_CLOSED_H

#include "model/definition.h"

/* A constant, in SQL, with its type. */
extern char *sc_sql_literal(Oid type, Datum value);

/*
 * The condition for rows of windows that end at or before "watermark", on the result's column that tells windows apart,
 * which is called "column" (quoted) where it is to be used.  There must be such a column, and no sessions.
 */
extern char *sc_definition_closed(const ScDefinition *definition, const char *column, int64 watermark);

/* The same for rows of windows whose places (window/assigner.h) are in one of the ranges. */
extern char *sc_definition_in_ranges(const ScDefinition *definition, const char *column, const ScRangeSet *ranges);

#endif							/* SC_QUERY_CLOSED_H */
