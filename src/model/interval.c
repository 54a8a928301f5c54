/*-------------------------------------------------------------------------
 * interval.c
 *	  Intervals as fixed lengths of time.
 *
 * Windows, delays and intervals between checkpoints are counted in
 * microseconds.  A day is 24 hours, whatever the time zone; months and years
 * have no fixed length and are refused, never guessed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "common/int.h"
#include "model/interval.h"
#include "utils/timestamp.h"

/* far from what event times and their sums can be */
#define MAX_REACH_DAYS 1000000

bool
sc_interval_is_finite(const Interval *interval)
{
#ifdef INTERVAL_NOT_FINITE
	return !INTERVAL_NOT_FINITE(interval);
#else
	return true;
#endif
}

/*
 * Length of "interval" in microseconds; it may be negative.  "what" names the
 * interval in the error that refuses months, years and what doesn't fit.
 */
int64
sc_interval_usecs(const Interval *interval, const char *what)
{
	int64		usecs;

	if (!sc_interval_is_finite(interval))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be finite", what),
				 errhint("Give a length, as in '5 seconds'.")));
	if (interval->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not contain months or years", what),
				 errdetail("Months and years have no fixed length."),
				 errhint("Use days, hours, minutes or seconds; a day is 24 hours.")));

	if (pg_mul_s64_overflow((int64) interval->day, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs))
		ereport(ERROR,
				(errcode(ERRCODE_INTERVAL_FIELD_OVERFLOW),
				 errmsg("%s is out of range", what),
				 errhint("Choose a shorter one.")));

	return usecs;
}

/* The inverse, as people write it: in whole days, or else in hours. */
Datum
sc_interval_datum(int64 usecs)
{
	Interval   *interval = palloc0(sizeof(Interval));

	if (usecs % USECS_PER_DAY == 0 && llabs(usecs / USECS_PER_DAY) <= PG_INT32_MAX)
		interval->day = usecs / USECS_PER_DAY;
	else
		interval->time = usecs;
	return IntervalPGetDatum(interval);
}

bool
sc_interval_length(const Interval *interval, int64 *usecs)
{
	return sc_interval_is_finite(interval) && interval->month == 0 &&
		!pg_mul_s64_overflow((int64) interval->day, USECS_PER_DAY, usecs) &&
		!pg_add_s64_overflow(*usecs, interval->time, usecs);
}

void
sc_interval_check_reach(int64 usecs, const char *what)
{
	if (usecs > MAX_REACH_DAYS * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be longer than %d days", what, MAX_REACH_DAYS),
				 errhint("Choose a shorter one.")));
}
