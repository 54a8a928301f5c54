/*-------------------------------------------------------------------------
 * watermark.c
 *	  What moves a watermark (watermark.h): delays, limits, silence.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "window/watermark.h"

void
sc_event_time_init(ScEventTime *time)
{
	memset(time, 0, sizeof(ScEventTime));
	time->max_event_time = SC_NO_EVENT_TIME;
	time->plausible_time = SC_NO_EVENT_TIME;
	time->closed_until = SC_NO_EVENT_TIME;
}

int64
sc_event_time_for_delay(int64 event_time, int64 old_delay, int64 new_delay)
{
	if (event_time == SC_NO_EVENT_TIME || new_delay <= old_delay)
		return event_time;
	/* event time is said to be where the watermark is the new delay away */
	return sc_time_add(sc_watermark(event_time, old_delay), new_delay);
}

int64
sc_event_time_for_reset(const ScEventTime *time, int64 watermark, int64 delay)
{
	if (watermark == SC_NO_EVENT_TIME)
		return time->plausible_time;
	return sc_time_add(watermark, delay);
}

int64
sc_plausibly_over(const ScEventTime *time, int64 delay, int64 allowed_lateness)
{
	return sc_watermark(time->plausible_time, sc_time_add(delay, allowed_lateness));
}

void
sc_transaction_time_init(ScTransactionTime *time)
{
	time->max_event_time = SC_NO_EVENT_TIME;
	time->plausible_time = SC_NO_EVENT_TIME;
	time->ahead_rows = 0;
}

int64
sc_plausible_limit(int64 max_ahead, TimestampTz commit_time)
{
	return sc_time_add(commit_time, max_ahead == SC_NO_LIMIT ? SC_PLAUSIBLE_AHEAD : max_ahead);
}

void
sc_transaction_time_ahead(ScTransactionTime *time, int64 max_ahead, int64 event_time)
{
	if (max_ahead == SC_NO_LIMIT)
		time->max_event_time = Max(time->max_event_time, event_time);
	else
		time->ahead_rows++;
}

int64
sc_idle_event_time(int64 event_time, int64 silent)
{
	/* never past the last event time there can be */
	return Min(event_time, END_TIMESTAMP - 1 - silent) + silent;
}

int64
sc_idle_after(int64 idle_timeout, int64 max_event_time, int64 next_due)
{
	int64		wait;

	if (idle_timeout == 0 || next_due == PG_INT64_MAX ||
		pg_sub_s64_overflow(next_due, max_event_time, &wait))
		return PG_INT64_MAX;
	return Max(idle_timeout, wait);
}
