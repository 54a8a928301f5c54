/*-------------------------------------------------------------------------
 * backoff.h
 *	  How long whoever failed waits before the next try: twice as long each time, up to a bound.
 *
 * The rule: all who try again wait as long as this says, so that a server in trouble isn't busy with
 * tries, and one that is well again is noticed within a minute.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_BACKOFF_H
#define SC_BASE_BACKOFF_H

#include "base/clock.h"
#include "base/settings.h"

#define SC_RETRY_FIRST_MS	SC_RETRY_SECOND_MS
#define SC_RETRY_MOST_MS	(60 * SC_RETRY_FIRST_MS)

/* Milliseconds to wait when "tries" have failed before the one that just did: from 0. */
static inline long
sc_backoff_ms(int tries, long first_ms, long most_ms)
{
	return Min(most_ms, first_ms << Min(tries, 10));
}

/* The same for work that failed: 1 s doubling to 1 min. */
static inline long
sc_retry_ms(int failures)
{
	return sc_backoff_ms(failures, SC_RETRY_FIRST_MS, SC_RETRY_MOST_MS);
}

/* When the next try is due. */
static inline ScMoment
sc_retry_at(int failures)
{
	return sc_moment_after(sc_moment_now(), sc_retry_ms(failures) * INT64CONST(1000));
}

#endif							/* SC_BASE_BACKOFF_H */
