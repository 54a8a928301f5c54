/*-------------------------------------------------------------------------
 * idle.c
 *	  Advancing the watermark of streams that are idle (idle.h).
 *
 * Where no row came for a stream's idle_timeout, and a window is open that the time
 * which passed since then would close, the coordinator logs a message.  Every task
 * acts on it at its place among the rows (task/query.c), and does the same when
 * it reads the WAL again.
 *
 * What is known here is as of the last checkpoint, so rows may be on their way.
 * The message therefore names the stream's last activity that it was made for,
 * the end of a transaction or of an idle message: where there was another since
 * then, it is void.  One message is logged for each last activity, and none
 * where no window is open: idle streams cost nothing.
 *
 * Streams whose event time is the time of the commit have SC_IDLE_BY_CLOCK for a time-out: a message is due when the clock
 * has come to where a window closes, and event time goes on to what the clock says then.  The last activity may be ahead of
 * the clock, or far behind it: a commit can have another server's time.
 *
 * A query's time-out is that of its offset, which follows alter_stream() as the tasks do.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/by_id.h"
#include "base/clock.h"
#include "base/debug.h"
#include "model/control.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/coordinator/idle.h"
#include "worker/coordinator/progress.h"
#include "worker/frame/loop.h"

#define RETRY_MS 1000			/* due, but rows are on their way */
#define NOT_DUE PG_INT64_MAX

typedef struct IdleStream
{
	Oid			relid;
	XLogRecPtr	told;			/* the last activity that a message was logged for */
} IdleStream;

typedef struct IdleQuery
{
	int64		query_id;
	Oid			stream;
	int64		timeout;		/* microseconds; 0: none; or SC_IDLE_BY_CLOCK */
	XLogRecPtr	active_lsn;
	TimestampTz active_at;
	ScMoment	noted_at;		/* when we heard of it, */
	int64		age;			/* and how long ago it was then: microseconds */
	int64		max_event_time;
	int64		next_due;
} IdleQuery;

/* both in TopMemoryContext */
static List *streams;			/* IdleStream *, those that have or had an idle_timeout */
static List *queries;			/* IdleQuery * */

/* The stream's entry is there from when a query of it has a time-out. */
static void
note_stream(Oid relid)
{
	MemoryContext old;
	IdleStream *stream;
	ListCell   *lc;

	foreach(lc, streams)
	{
		if (((IdleStream *) lfirst(lc))->relid == relid)
			return;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	stream = palloc0(sizeof(IdleStream));
	stream->relid = relid;
	streams = lappend(streams, stream);
	MemoryContextSwitchTo(old);
}

/* Takes out the queries that the catalogs don't have any more.  In a transaction. */
static void
forget_dropped(void)
{
	ListCell   *lc;

	foreach(lc, queries)
	{
		IdleQuery  *query = lfirst(lc);

		if (sc_query_by_id(query->query_id, true) == NULL)
		{
			queries = foreach_delete_current(queries, lc);
			pfree(query);
		}
	}
}

void
sc_idle_load(int32 pipeline_id)
{
	ListCell   *lc;

	forget_dropped();
	foreach(lc, sc_offset_list(pipeline_id))
	{
		ScOffset   *offset = lfirst(lc);

		if (sc_find_by_id(queries, offset->query_id))
			continue;
		/* when the next window closes isn't stored: ask after the time-out */
		offset->next_due = offset->groups > 0 ? offset->time.max_event_time : PG_INT64_MAX;
		sc_idle_note(offset);
	}
}

void
sc_idle_note(const ScOffset *offset)
{
	IdleQuery  *query = sc_find_by_id(queries, offset->query_id);

	if (!query)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		query = palloc0(sizeof(IdleQuery));
		query->query_id = offset->query_id;
		query->stream = offset->stream_relid;
		queries = lappend(queries, query);
		MemoryContextSwitchTo(old);
	}
	if (query->active_lsn != offset->active_lsn || query->noted_at == 0)
	{
		query->noted_at = sc_moment_now();
		query->age = Max(GetCurrentTimestamp() - offset->active_at, 0);
	}
	query->timeout = offset->options.idle_timeout;
	if (query->timeout != 0)
		note_stream(offset->stream_relid);
	query->active_lsn = offset->active_lsn;
	query->active_at = offset->active_at;
	query->max_event_time = offset->time.max_event_time;
	query->next_due = offset->next_due;
}

/* Has the query a part in it?  Not one that is paused, has failed, or was dropped. */
static bool
takes_part(const IdleQuery *query, Oid stream)
{
	return query->stream == stream && query->active_at != 0 &&
		query->max_event_time != SC_NO_EVENT_TIME &&
		sc_progress_is_active(query->query_id);
}

/* Microseconds since the query's stream was active, whatever became of the system's clock. */
static int64
idle_for(const IdleQuery *query)
{
	return query->age + (sc_moment_now() - query->noted_at);
}

/* Microseconds until a message would close or free a window of the query, also below 0; NOT_DUE: none would. */
static int64
query_due(const IdleQuery *query)
{
	int64		after;

	if (query->timeout == SC_IDLE_BY_CLOCK)
		return query->next_due == PG_INT64_MAX ? NOT_DUE : sc_time_add(query->next_due, -GetCurrentTimestamp());
	after = sc_idle_after(query->timeout, query->max_event_time, query->next_due);
	return after == PG_INT64_MAX ? NOT_DUE : after - idle_for(query);
}

/*
 * Microseconds until a message is due for the stream, and the query that has seen its last
 * activity.  NOT_DUE: nothing is.
 */
static int64
stream_due(const IdleStream *stream, const IdleQuery **last)
{
	int64		due = NOT_DUE;
	ListCell   *lc;

	*last = NULL;
	foreach(lc, queries)
	{
		IdleQuery  *query = lfirst(lc);

		if (!takes_part(query, stream->relid))
			continue;
		if (*last == NULL || query->active_lsn > (*last)->active_lsn)
			*last = query;
		due = Min(due, query_due(query));
	}
	if (*last == NULL || due == NOT_DUE || (*last)->active_lsn == stream->told)
		return NOT_DUE;
	/* a message that isn't behind the last activity is void */
	if ((*last)->timeout == SC_IDLE_BY_CLOCK)
		due = Max(due, (*last)->active_at + 1 - GetCurrentTimestamp());
	return Max(due, 0);
}

/*
 * Logs the message for this last activity of the stream, and wakes the reader.  At most once for
 * each.
 */
static void
log_idle(IdleStream *stream, const IdleQuery *last)
{
	XLogRecPtr	last_activity = last->active_lsn;
	ScControl	control = {0};

	control.kind = SC_CONTROL_IDLE;
	control.pipeline_id = sc_my_pipeline->pipeline_id;
	control.stream_relid = stream->relid;
	control.idle_since = last_activity;
	SC_DEBUG_POINT("coordinator_before_idle");
	control.idle_at = last->timeout == SC_IDLE_BY_CLOCK ? GetCurrentTimestamp() : last->active_at + idle_for(last);
	(void) sc_control_log(&control);
	stream->told = last_activity;
	SC_DEBUG_POINT("coordinator_after_idle");
	sc_place_wake(sc_my_pipeline, &sc_my_pipeline->reader);
}

/* Is the reader near the end of the WAL?  Else rows may follow that it hasn't met. */
static bool
caught_up(void)
{
	return pg_atomic_read_u64(&sc_my_pipeline->decoded_lsn) + wal_segment_size >=
		GetFlushRecPtr(NULL);
}

long
sc_idle_advance(bool quiet)
{
	long		timeout = -1;
	ListCell   *lc;

	foreach(lc, streams)
	{
		IdleStream *stream = lfirst(lc);
		const IdleQuery *last;
		int64		due = stream_due(stream, &last);
		long		ms;

		if (due == NOT_DUE)
			continue;
		if (due == 0 && quiet && caught_up())
		{
			log_idle(stream, last);
			continue;
		}
		ms = due > 0 ? Min((due - 1) / 1000 + 1, INT_MAX) : RETRY_MS;
		timeout = timeout < 0 ? ms : Min(timeout, ms);
	}
	return timeout;
}
