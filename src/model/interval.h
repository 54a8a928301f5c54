/*-------------------------------------------------------------------------
 * interval.h
 *	  Intervals as fixed lengths of time.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_INTERVAL_H
#define SC_MODEL_INTERVAL_H

#include "datatype/timestamp.h"

/* Always, before PostgreSQL 17. */
extern bool sc_interval_is_finite(const Interval *interval);

/* Length of a fixed interval in microseconds (a day is 24 hours); months and
 * years are refused naming "what", e.g. "checkpoint_interval". */
extern int64 sc_interval_usecs(const Interval *interval, const char *what);
extern Datum sc_interval_datum(int64 usecs);	/* the inverse */

/* The same without an error: false where it has no length. */
extern bool sc_interval_length(const Interval *interval, int64 *usecs);

/* An error where event times could not be moved by so much (delays, lateness, time-outs). */
extern void sc_interval_check_reach(int64 usecs, const char *what);

#endif							/* SC_MODEL_INTERVAL_H */
