/*-------------------------------------------------------------------------
 * window.h
 *	  Windows, sets of them, and a stream's options of event time.
 *
 * An event time is an int64 of microseconds since 2000-01-01 00:00 (the
 * internal form of timestamptz and timestamp alike).  A window is [start, end).
 *-------------------------------------------------------------------------
 */
#ifndef SC_WINDOW_WINDOW_H
#define SC_WINDOW_WINDOW_H

#include "datatype/timestamp.h"

/* "no event time seen so far": below every finite timestamp */
#define SC_NO_EVENT_TIME	PG_INT64_MIN

/* Options of a stream's event time: what alter_stream() changes while queries run. */
typedef struct ScStreamOptions
{
	int64		watermark_delay;	/* microseconds, >= 0 */
	int64		idle_timeout;	/* microseconds, > 0; 0: none */
	int64		max_ahead;		/* microseconds, >= 0; SC_NO_LIMIT: none */
} ScStreamOptions;

#define SC_NO_LIMIT			(-1)

/* Event times further ahead of their commit are implausible, if their stream has no limit */
#define SC_PLAUSIBLE_AHEAD	USECS_PER_DAY

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

/* Windows: [start, end), from one's start to another's end. */
typedef struct ScWindowRange
{
	int64		start;
	int64		end;
} ScWindowRange;

#define SC_CLOSED_RANGES	32

/* Ascending, with other windows between them; all zero: none. */
typedef struct ScWindowRanges
{
	int32		n;
	int32		unused;
	ScWindowRange ranges[SC_CLOSED_RANGES];
} ScWindowRanges;

/* Is the window that begins at "start" in one of them? */
extern bool sc_ranges_contain(const ScWindowRanges *ranges, int64 start);

/* May overlap what is there.  If there is no room, windows between two ranges are added, too. */
extern void sc_ranges_add(ScWindowRanges *ranges, int64 start, int64 end);
extern void sc_ranges_remove_first(ScWindowRanges *ranges);

/* 1970-01-01 00:00 in microseconds since 2000-01-01 */
#define SC_UNIX_EPOCH \
	(-((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)) * USECS_PER_DAY)

#endif							/* SC_WINDOW_WINDOW_H */
