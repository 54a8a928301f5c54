/*-------------------------------------------------------------------------
 * clock.h
 *	  Moments of a clock that nobody sets, for whatever is due, waited for or limited.
 *
 * GetCurrentTimestamp() goes back when somebody sets the system's clock back, and what is due
 * "a second after the last time" is due an hour later then.  It is for what users see.  The
 * rule: nothing is scheduled by it.
 *
 * Moments count from the start of the machine, so they are the same for all processes of the
 * server and mean nothing after it has ended: they are never stored.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_CLOCK_H
#define SC_BASE_CLOCK_H

#include <limits.h>
#include <time.h>

/* Microseconds; 0: never. */
typedef int64 ScMoment;

/* As when something is due: it isn't, until somebody says so */
#define SC_MOMENT_UNKNOWN PG_INT64_MAX

static inline ScMoment
sc_moment_now(void)
{
	struct timespec ts;

	(void) clock_gettime(CLOCK_MONOTONIC, &ts);
	return (ScMoment) ts.tv_sec * INT64CONST(1000000) + ts.tv_nsec / 1000;
}

/* The moment "us" microseconds after "since"; the last one of all if that is too far. */
static inline ScMoment
sc_moment_after(ScMoment since, int64 us)
{
	return us > PG_INT64_MAX - since ? PG_INT64_MAX : since + us;
}

/* Have so many milliseconds passed since then?  Always since "never". */
static inline bool
sc_moment_is_past(ScMoment since, int64 ms)
{
	return since == 0 || sc_moment_now() - since >= ms * INT64CONST(1000);
}

/* Milliseconds until "at", rounded up, as a timeout for a latch; 0: it has come. */
static inline long
sc_moment_wait_ms(ScMoment at)
{
	ScMoment	now = sc_moment_now();

	return at <= now ? 0 : (long) Min((at - now - 1) / 1000 + 1, INT_MAX);
}

#endif							/* SC_BASE_CLOCK_H */
