/*-------------------------------------------------------------------------
 * window.h
 *	  Windows.
 *
 * An event time is an int64 of microseconds since 2000-01-01 00:00 (the
 * internal form of timestamptz and timestamp alike).  A window is [start, end).
 *-------------------------------------------------------------------------
 */
#ifndef SC_WINDOW_WINDOW_H
#define SC_WINDOW_WINDOW_H

#include "datatype/timestamp.h"

typedef enum ScWindowKind
{
	SC_WINDOW_TUMBLE
} ScWindowKind;

typedef struct ScWindowSpec
{
	ScWindowKind kind;
	int64		size;			/* microseconds, > 0 */
	int64		origin;			/* microseconds since 2000-01-01; any value */
} ScWindowSpec;

/* 1970-01-01 00:00 in microseconds since 2000-01-01 */
#define SC_UNIX_EPOCH \
	(-((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)) * USECS_PER_DAY)

#endif							/* SC_WINDOW_WINDOW_H */
