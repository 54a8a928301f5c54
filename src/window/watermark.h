/*-------------------------------------------------------------------------
 * watermark.h
 *	  Event time and watermarks: what moves them, and what they close.
 *
 * An event time is an int64 of microseconds since 2000-01-01 00:00 (the internal form of
 * timestamptz and timestamp alike).  The watermark is the greatest event time of all committed
 * rows, less the stream's delay.  What moves that greatest event time:
 *
 *	 - a transaction's end, by its rows (ScTransactionTime, made by the reader), but for those that
 *	   are further ahead of their commit than max_ahead; by the time of its commit, if that is its rows' event time;
 *	 - an idle message, by the time that has passed since the stream's last rows; or to the clock's time, as above;
 *	 - reset_watermark(), and a longer delay: the watermark goes back, or stays where it is.
 *
 * Event times here are finite; who has a row's own asks first.  Sums are saturated: what lies outside
 * an int64 is at its end.  Nothing here knows catalogs, processes or queries.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WINDOW_WATERMARK_H
#define SC_WINDOW_WATERMARK_H

#include "access/xlogdefs.h"
#include "common/int.h"
#include "datatype/timestamp.h"

/* "no event time seen so far": below every finite timestamp */
#define SC_NO_EVENT_TIME	PG_INT64_MIN

/* Options of a stream's event time: what alter_stream() changes while queries run. */
typedef struct ScStreamOptions
{
	int64		watermark_delay;	/* microseconds, >= 0 */
	int64		idle_timeout;	/* microseconds, > 0; 0: none; or SC_IDLE_BY_CLOCK */
	int64		max_ahead;		/* microseconds, >= 0; SC_NO_LIMIT: none */
	int64		resets;			/* by reset_watermark(), if changes are applied: who has seen fewer has an old watermark */
} ScStreamOptions;

#define SC_NO_LIMIT			(-1)

/* The idle_timeout of streams whose event time is the time of the commit: their windows close by the clock. */
#define SC_IDLE_BY_CLOCK	(-1)

/* Event times further ahead of their commit are implausible, if their stream has no limit */
#define SC_PLAUSIBLE_AHEAD	USECS_PER_DAY

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

/* ranges.c: is the window that begins at "start" in one of them? */
extern bool sc_ranges_contain(const ScWindowRanges *ranges, int64 start);

/* May overlap what is there.  If there is no room, windows between two ranges are added, too. */
extern void sc_ranges_add(ScWindowRanges *ranges, int64 start, int64 end);
extern void sc_ranges_remove_first(ScWindowRanges *ranges);

/* The same with room for more, which is made as it is needed. */
#define SC_RANGE_SET_MAX	1000

typedef struct ScRangeSet
{
	int32		n;
	int32		room;
	ScWindowRange *ranges;		/* palloc'd */
} ScRangeSet;

/* Windows of [start, end), or from "start" to another's end; room is made in the current context. */
extern void sc_range_set_add(ScRangeSet *set, int64 start, int64 end);
extern bool sc_range_set_covers(const ScRangeSet *set, int64 start, int64 end);

/* Event time of one query on its stream, as it is kept with the state. */
typedef struct ScEventTime
{
	int64		max_event_time; /* the greatest so far, from which the watermark is the delay away;
								 * or SC_NO_EVENT_TIME, as the next two */
	int64		plausible_time; /* the greatest plausible one */

	/*
	 * Windows whose places (assigner.h) end at or before closed_until, and those of closed_windows, are over
	 * whatever the watermark says: they are never opened, never emitted, and their rows are late.
	 */
	int64		closed_until;
	ScWindowRanges closed_windows;
} ScEventTime;

/* No row was seen, and no window is over. */
extern void sc_event_time_init(ScEventTime *time);

/* The sum of two event times or lengths. */
static inline int64
sc_time_add(int64 a, int64 b)
{
	int64		result;

	if (pg_add_s64_overflow(a, b, &result))
		return b > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	return result;
}

/* The watermark where "event_time" is the greatest; SC_NO_EVENT_TIME where there is none. */
static inline int64
sc_watermark(int64 event_time, int64 delay)
{
	return event_time == SC_NO_EVENT_TIME ? SC_NO_EVENT_TIME : sc_time_add(event_time, -delay);
}

/* Is a row of a window with this end late?  Its state isn't needed any more then. */
static inline bool
sc_is_past_lateness(int64 window_end, int64 allowed_lateness, int64 watermark)
{
	return sc_time_add(window_end, allowed_lateness) <= watermark;
}

/* The greatest event time that leaves the watermark where it is when the delay changes, or moves it on. */
extern int64 sc_event_time_for_delay(int64 event_time, int64 old_delay, int64 new_delay);

/*
 * The greatest event time after reset_watermark(): that of "watermark"; SC_NO_EVENT_TIME as the
 * watermark: the plausible one, which can be SC_NO_EVENT_TIME itself.
 */
extern int64 sc_event_time_for_reset(const ScEventTime *time, int64 watermark, int64 delay);

/* What ends at or before it is over by the rows' plausible event times, whatever the watermark is. */
extern int64 sc_plausibly_over(const ScEventTime *time, int64 delay, int64 allowed_lateness);

/* ---------- rows, in the reader ---------- */

/* What a transaction's rows say of one stream's event time.  Part of a message between processes. */
typedef struct ScTransactionTime
{
	int64		max_event_time; /* of its rows that move the watermark; SC_NO_EVENT_TIME: none */
	int64		plausible_time; /* the same of those whose event time is plausible */
	int64		ahead_rows;		/* too far ahead of the commit to move the watermark */
} ScTransactionTime;

extern void sc_transaction_time_init(ScTransactionTime *time);

/* The greatest plausible event time of a transaction that was committed at "commit_time". */
extern int64 sc_plausible_limit(int64 max_ahead, TimestampTz commit_time);

/* An event time beyond that limit. */
extern void sc_transaction_time_ahead(ScTransactionTime *time, int64 max_ahead, int64 event_time);

/* The event time of a row, which may be infinite; "limit" is sc_plausible_limit(). */
static inline void
sc_transaction_time_add(ScTransactionTime *time, int64 limit, int64 max_ahead, int64 event_time)
{
	if (event_time <= time->plausible_time || TIMESTAMP_NOT_FINITE(event_time))
		return;
	if (likely(event_time <= limit))
		time->plausible_time = event_time;
	else
		sc_transaction_time_ahead(time, max_ahead, event_time);
}

/* The transaction has no more rows: until now max_event_time was of implausible ones only. */
static inline void
sc_transaction_time_end(ScTransactionTime *time)
{
	time->max_event_time = Max(time->max_event_time, time->plausible_time);
}

/* ---------- idle streams ---------- */

/* A stream's last transaction with rows, or idle message: its end and its time. */
typedef struct ScActivity
{
	XLogRecPtr	lsn;
	TimestampTz at;				/* 0: there was none */
} ScActivity;

/* Is an idle message void, which was made at "idle_at" for the activity that ended at "idle_since"? */
static inline bool
sc_idle_is_void(const ScActivity *last, XLogRecPtr idle_since, TimestampTz idle_at)
{
	return last->lsn > idle_since || last->at == 0 || idle_at <= last->at;
}

/* Event time when a stream has been silent for so many microseconds. */
extern int64 sc_idle_event_time(int64 event_time, int64 silent);

/*
 * After how many microseconds of silence a message closes or frees a window; PG_INT64_MAX: never.  next_due:
 * the event time that does.
 */
extern int64 sc_idle_after(int64 idle_timeout, int64 max_event_time, int64 next_due);

/* ---------- closed.c: windows that are over for good ---------- */

/* Of a window's place (assigner.h). */
extern bool sc_closed_contains(const ScEventTime *time, ScWindowRange place);
/*
 * Sessions: is a row whose own would be over at "end" over for good?  Ranges and closed_until are of such spans.
 */
extern bool sc_closed_covers(const ScEventTime *time, int64 start, int64 end);
/* Adds what sessions cover that are over, unless it is over by the rows' plausible event times ("ordinary"). */
extern void sc_closed_add_reach(ScEventTime *time, ScWindowRange reach, int64 ordinary);
/* What of it was over when a session was opened by a row at "start". */
extern int64 sc_closed_before(const ScEventTime *time, int64 start);
/* A window that ends at "end" is over; "ordinary": sc_plausibly_over(). */
extern void sc_closed_add(ScEventTime *time, ScWindowRange place, int64 end, int64 ordinary);

/*
 * A first range from SC_NO_EVENT_TIME on is one of event times (accept_gap doesn't know windows): all
 * windows that begin in it are over.  It becomes closed_until, once the end of the last one is known.
 */
extern bool sc_closed_has_times(const ScEventTime *time);
extern void sc_closed_complete(ScEventTime *time, int64 end);

#endif							/* SC_WINDOW_WATERMARK_H */
