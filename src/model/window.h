/*-------------------------------------------------------------------------
 * window.h
 *	  Window arithmetic on event times.
 *
 * An event time is an int64 of microseconds since 2000-01-01 00:00 (the
 * internal form of timestamptz and timestamp alike); SC_NO_EVENT_TIME and the
 * infinities never reach these functions.  A window is [start, end).
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_WINDOW_H
#define SC_MODEL_WINDOW_H

#include "datatype/timestamp.h"

/* "no event time seen so far": below every finite timestamp */
#define SC_NO_EVENT_TIME	PG_INT64_MIN

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

/*
 * Start of the tumbling window that holds "ts".  The same arithmetic as
 * date_bin (timestamp.c), floored for times before the origin.
 */
static inline int64
sc_tumble_start(const ScWindowSpec *spec, int64 ts)
{
	int64		offset = (ts - spec->origin) % spec->size;

	if (offset < 0)
		offset += spec->size;
	return ts - offset;
}

#endif							/* SC_MODEL_WINDOW_H */
