/*-------------------------------------------------------------------------
 * spi_internal.h
 *	  Commands that SQL functions run, as the caller or on the extension's
 *	  catalogs.
 *-------------------------------------------------------------------------
 */
#ifndef SC_API_SPI_INTERNAL_H
#define SC_API_SPI_INTERNAL_H

#include "api/api_internal.h"
#include "executor/spi.h"

/*
 * Runs a command on the extension's catalogs as the extension's owner, whoever
 * calls.  SPI must be connected; results are in SPI_processed and SPI_tuptable.
 */
extern void sc_catalog_execute(const char *command, int nargs, Oid *types,
							   Datum *values, const char *nulls);

/* Runs a command as the caller; an error where it isn't of the kind "expected". */
extern void sc_user_execute(const char *command, int expected);

/* Column "column" (1..) of the first row; *isnull may be NULL where it can't be. */
extern Datum sc_first_value(int column, bool *isnull);

/* Logs the query's drop and wakes its pipeline after commit. */
extern void sc_query_dropped(int64 query_id, int32 pipeline_id);

extern void sc_not_supported(const char *what, const char *hint) pg_attribute_noreturn();

#endif							/* SC_API_SPI_INTERNAL_H */
