/*-------------------------------------------------------------------------
 * calendar.c
 *	  Windows that a truncation makes: date_trunc(), casts to date, and tumble() by days or months (assigner.h,
 *	  SC_WINDOW_CALENDAR).
 *
 * The truncation itself assigns a row, in local time of the window's zone, as timestamptz_trunc() does it: never
 * start <= event time < end.  Where local midnight comes twice (Azores, Havana) it is the later one, and rows
 * lie before their window's start; where a clock is set back to before midnight (Newfoundland until 2011) the rows of
 * two days alternate.  An hour and what is shorter keep the offset that the row's local time has: where a clock is
 * set by half an hour (Lord Howe) two hours overlap.  A window's end tells when it closes: no row of it comes
 * later; those that are longer than an hour end at the next one's start.
 *
 * Between two changes of the zone's offset truncation is a matter of arithmetic: that is a pane's span.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "window/window_internal.h"

/* The units of date_trunc().  "months": of what isn't a fixed length. */
static const struct
{
	int			unit;
	int64		usecs;			/* its length; the longest, if there are several */
	int			months;
} units[] = {
	{DTK_MICROSEC, 1, 0},
	{DTK_MILLISEC, 1000, 0},
	{DTK_SECOND, USECS_PER_SEC, 0},
	{DTK_MINUTE, USECS_PER_MINUTE, 0},
	{DTK_HOUR, USECS_PER_HOUR, 0},
	{DTK_DAY, USECS_PER_DAY, 0},
	{DTK_WEEK, 7 * USECS_PER_DAY, 0},
	{DTK_MONTH, 31 * USECS_PER_DAY, 1},
	{DTK_QUARTER, 92 * USECS_PER_DAY, 3},
	{DTK_YEAR, 366 * USECS_PER_DAY, 12},
	{DTK_DECADE, 3653 * USECS_PER_DAY, 120},
	{DTK_CENTURY, 36525 * USECS_PER_DAY, 1200},
	{DTK_MILLENNIUM, INT64CONST(365250) * USECS_PER_DAY, 12000}
};

/* Its place in that list, or -1. */
static int
unit_index(int unit)
{
	for (int i = 0; i < lengthof(units); i++)
	{
		if (units[i].unit == unit)
			return i;
	}
	return -1;
}

bool
sc_assigner_init_calendar(ScAssigner *assigner, int unit, pg_tz *zone, bool shown_local)
{
	int			i = unit_index(unit);

	if (i < 0)
		return false;
	assigner->kind = SC_WINDOW_CALENDAR;
	assigner->size = units[i].usecs;
	assigner->origin = 0;
	assigner->unit = unit;
	assigner->count = 1;
	assigner->zone = zone;
	assigner->local = shown_local || units[i].usecs > USECS_PER_HOUR;
	assigner->shown_local = shown_local;
	return true;
}

/* The number of a month, counted from year 0. */
static int64
month_number(const struct pg_tm *tm)
{
	return (int64) tm->tm_year * 12 + tm->tm_mon - 1;
}

/* The local date of a moment at its midnight, or the moment itself if that is none that can be expressed. */
static Timestamp
local_date(int64 time, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	Timestamp	local;

	if (timestamp2tm(time, zone ? &offset : NULL, &tm, &fsec, NULL, zone) != 0)
		return time;
	tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
	return tm2timestamp(&tm, 0, NULL, &local) == 0 ? local : time;
}

bool
sc_assigner_init_periods(ScAssigner *assigner, int unit, int count, pg_tz *zone, int64 origin)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int64		size;

	if (!sc_assigner_init_calendar(assigner, unit, zone, false) ||
		pg_mul_s64_overflow(assigner->size, count, &size) || size > END_TIMESTAMP / 2)
		return false;
	assigner->size = size;
	assigner->count = count;
	assigner->local = true;
	/* the default is that date in each zone */
	if (origin != SC_DEFAULT_ORIGIN)
		origin = local_date(origin, zone);
	if (unit == DTK_DAY)
		assigner->origin = origin % size;
	else if (timestamp2tm(origin, NULL, &tm, &fsec, NULL, NULL) == 0)
		assigner->origin = month_number(&tm) % count;
	return true;
}

/* The Monday of the week that the day is in. */
static void
truncate_to_week(struct pg_tm *tm)
{
	int			day = date2j(tm->tm_year, tm->tm_mon, tm->tm_mday);

	j2date(day - (j2day(day) + 6) % 7, &tm->tm_year, &tm->tm_mon, &tm->tm_mday);
}

/* The first year of as many as that which the year is in; decades begin with 0, the others with 1. */
static int
first_year(int year, int unit)
{
	if (unit == DTK_DECADE)
		return year / 10 * 10;
	if (unit == DTK_CENTURY)
		return (year - 1) / 100 * 100 + 1;
	if (unit == DTK_MILLENNIUM)
		return (year - 1) / 1000 * 1000 + 1;
	return year;
}

/* Truncates a time to the unit.  False: not built for that time. */
static bool
truncate_time(int unit, struct pg_tm *tm, fsec_t *fsec)
{
	int64		usecs = units[unit_index(unit)].usecs;

	/* there is no year 0, and counting by tens and hundreds is odd there */
	if (usecs >= 3653 * USECS_PER_DAY && tm->tm_year < 1)
		return false;
	if (usecs < USECS_PER_SEC)
		*fsec -= *fsec % (fsec_t) usecs;
	else
		*fsec = 0;
	if (usecs >= USECS_PER_MINUTE)
		tm->tm_sec = 0;
	if (usecs >= USECS_PER_HOUR)
		tm->tm_min = 0;
	if (usecs >= USECS_PER_DAY)
		tm->tm_hour = 0;
	if (unit == DTK_WEEK)
		truncate_to_week(tm);
	else if (usecs > USECS_PER_DAY)
		tm->tm_mday = 1;
	if (unit == DTK_QUARTER)
		tm->tm_mon -= (tm->tm_mon - 1) % 3;
	else if (usecs >= 366 * USECS_PER_DAY)
		tm->tm_mon = 1;
	tm->tm_year = first_year(tm->tm_year, unit);
	return true;
}

/*
 * From the day or the first of the month in "tm", midnight of which is "local", back to the first one of as many as a
 * window has.
 */
static bool
truncate_to_period(const ScAssigner *assigner, struct pg_tm *tm, Timestamp *local)
{
	int64		month = month_number(tm);
	int64		in_year;

	if (assigner->unit == DTK_DAY)
	{
		*local -= sc_grid_offset(*local, assigner->origin, assigner->size);
		return *local >= MIN_TIMESTAMP;
	}
	month -= sc_grid_offset(month, assigner->origin, assigner->count);
	in_year = sc_grid_offset(month, 0, 12);
	tm->tm_year = (month - in_year) / 12;
	tm->tm_mon = in_year + 1;
	return tm2timestamp(tm, 0, NULL, local) == 0;
}

/* The local time of the next truncation behind "local", which is one. */
bool
sc_calendar_next_local(const ScAssigner *assigner, Timestamp local, Timestamp *next)
{
	int			months = units[unit_index(assigner->unit)].months * assigner->count;
	struct pg_tm tm;
	fsec_t		fsec;

	if (months == 0)
		return !pg_add_s64_overflow(local, assigner->size, next) && IS_VALID_TIMESTAMP(*next);
	if (timestamp2tm(local, NULL, &tm, &fsec, NULL, NULL) != 0)
		return false;
	tm.tm_mon += months;
	tm.tm_year += (tm.tm_mon - 1) / 12;
	tm.tm_mon = (tm.tm_mon - 1) % 12 + 1;
	return tm2timestamp(&tm, fsec, NULL, next) == 0;
}

/* The last change of the zone's offset at or before a time, or that time if there is none within two days. */
static int64
last_change(const pg_tz *zone, int64 time)
{
	int64		epoch = SetEpochTimestamp();
	int64		result = time;
	pg_time_t	at = (time - epoch - 2 * USECS_PER_DAY) / USECS_PER_SEC;
	pg_time_t	boundary;
	long		gmtoff;
	int			isdst;

	while (pg_next_dst_boundary(&at, &gmtoff, &isdst, &boundary, &gmtoff, &isdst, zone) == 1 &&
		   boundary * USECS_PER_SEC + epoch <= time)
	{
		result = boundary * USECS_PER_SEC + epoch;
		at = boundary;
	}
	return result;
}

/*
 * When local time is "local": the later time if it comes twice.  If it is left out, as the server does it, by the offset
 * before, which can be later than the clock's change; or that change.
 */
bool
sc_calendar_from_local(const ScAssigner *assigner, Timestamp local, int64 *result)
{
	struct pg_tm tm;
	struct pg_tm then;
	fsec_t		fsec;
	int			offset;
	Timestamp	again;

	*result = local;
	if (assigner->zone == NULL)
		return true;
	if (timestamp2tm(local, NULL, &tm, &fsec, NULL, NULL) != 0)
		return false;
	offset = DetermineTimeZoneOffset(&tm, assigner->zone);
	if (tm2timestamp(&tm, fsec, &offset, result) != 0)
		return false;
	if (assigner->shown_local &&
		timestamp2tm(*result, &offset, &then, &fsec, NULL, assigner->zone) == 0 &&
		tm2timestamp(&then, fsec, NULL, &again) == 0 && again != local)
		*result = last_change(assigner->zone, *result);
	return true;
}

/*
 * Truncates the local time of "event_time", and says by how much it is behind universal time then, in
 * microseconds.
 */
bool
sc_calendar_truncate(const ScAssigner *assigner, int64 event_time, Timestamp *local, int64 *behind)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset = 0;

	if (timestamp2tm(event_time, assigner->zone ? &offset : NULL, &tm, &fsec, NULL, assigner->zone) != 0 ||
		!truncate_time(assigner->unit, &tm, &fsec) || tm2timestamp(&tm, fsec, NULL, local) != 0)
		return false;
	if (assigner->count > 1 && !truncate_to_period(assigner, &tm, local))
		return false;
	*behind = offset * USECS_PER_SEC;
	return true;
}

void
sc_calendar_clip_span(const pg_tz *zone, int64 event_time, ScPaneSpan *span)
{
	int64		epoch = SetEpochTimestamp();
	pg_time_t	at = (span->from - epoch) / USECS_PER_SEC - 1;
	pg_time_t	boundary;
	long		gmtoff;
	int			isdst;

	if (zone == NULL)
		return;
	while (pg_next_dst_boundary(&at, &gmtoff, &isdst, &boundary, &gmtoff, &isdst, zone) == 1)
	{
		int64		change = boundary * USECS_PER_SEC + epoch;

		if (change >= span->to)
			break;
		if (change > event_time)
		{
			span->to = change;
			break;
		}
		span->from = Max(span->from, change);
		at = boundary;
	}
}

bool
sc_calendar_pane(const ScAssigner *assigner, int64 event_time, ScPaneSpan *span)
{
	ScPaneSpan	result;
	Timestamp	local;
	Timestamp	next;
	int64		behind;
	int64		end;

	if (!sc_calendar_truncate(assigner, event_time, &local, &behind) ||
		!sc_calendar_next_local(assigner, local, &next) || !sc_calendar_from_local(assigner, next, &end))
		return false;
	result.from = local + behind;
	result.to = next + behind;
	result.key = result.from;
	if (assigner->local && !sc_calendar_from_local(assigner, local, &result.key))
		return false;
	if (!IS_VALID_TIMESTAMP(result.key) || !IS_VALID_TIMESTAMP(result.to))
		return false;
	sc_calendar_clip_span(assigner->zone, event_time, &result);
	result.none = false;
	*span = result;
	return true;
}

int64
sc_calendar_end(const ScAssigner *assigner, int64 start)
{
	Timestamp	local;
	Timestamp	next;
	int64		behind;
	int64		end;

	if (!assigner->local)
		return start + assigner->size;
	/* sc_calendar_pane() has seen that it is there */
	if (!sc_calendar_truncate(assigner, start, &local, &behind) ||
		!sc_calendar_next_local(assigner, local, &next) || !sc_calendar_from_local(assigner, next, &end))
		elog(ERROR, "a window has no end");
	return end;
}

int64
sc_calendar_next_key(const ScAssigner *assigner, int64 start)
{
	int64		end = sc_calendar_end(assigner, start);
	ScPaneSpan	span;

	/* one that overlaps begins before that */
	if (!assigner->local && sc_calendar_pane(assigner, end, &span) && span.key > start && span.key < end)
		return span.key;
	return end;
}

/* The last event time up to "time" that has a window; "time" itself if none is so late as to have none. */
static int64
last_with_window(const ScAssigner *assigner, int64 time)
{
	int64		last = Min(time, END_TIMESTAMP - assigner->size - 2 * USECS_PER_DAY);
	ScPaneSpan	span;

	while (last < time)
	{
		int64		middle = last + (time - last + 1) / 2;

		if (sc_calendar_pane(assigner, middle, &span))
			last = middle;
		else
			time = middle - 1;
	}
	return last;
}

/*
 * The greatest start of the windows that the watermark has closed; false: there is none.  A closed window has no event
 * time behind the watermark, so from there backwards the first one that is met is the last.
 */
bool
sc_calendar_last_closed(const ScAssigner *assigner, int64 watermark, int64 *start)
{
	int64		time = last_with_window(assigner, watermark);
	ScPaneSpan	span;

	while (sc_calendar_pane(assigner, time, &span))
	{
		if (sc_calendar_end(assigner, span.key) <= watermark)
		{
			*start = span.key;
			return true;
		}
		time = Min(span.from, span.key) - 1;
	}
	return false;
}
