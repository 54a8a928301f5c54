/*-------------------------------------------------------------------------
 * timed.h
 *	  Groups that come and go with event time: sessions, and those with a ttl.
 *
 * They are in one pane of all of time (engine->timed), in one bucket that is never spilled.  A group is deleted when
 * the watermark says so, or when another session takes it in.  What must be known of it after that stays in its record,
 * which is DEAD: the changelog writes a tombstone of it, as older runs have it, and a result row that it had is deleted.
 * Then, or at once if there is neither, its number is FREE, and used again.
 *
 * The rules: a dead group is in the bucket's list of changes until it is written; a number isn't used again while
 * a snapshot, an older run or the result knows it as another group.
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_TIMED_H
#define SC_EXEC_TIMED_H

#include "exec/exec_internal.h"

typedef enum ScLife
{
	SC_LIVE,
	SC_DEAD,					/* deleted: the changelog or the result still has to be told */
	SC_FREE						/* there is no group of this number */
} ScLife;

/* What such a group has behind its states. */
typedef struct ScTimes
{
	int64		last;			/* the greatest event time of its rows */
	int64		queued;			/* the valid entry of the bucket's directory has this time (due.c) */
	uint32		position;		/* as its cell has it */
	uint8		life;			/* ScLife */
	bool		stored;			/* the changelog may have it: it needs a tombstone */
	bool		indexed;		/* sessions.c knows it */
	bool		closed;			/* a session past its lateness: has no states, and rows that would join it are late */
	bool		over;			/* emit close: was emitted when the watermark had passed its end, or had no row */
	bool		loose;			/* a session that has lost rows, and may be less than from start to last */

	/* sessions */
	int64		start;			/* the smallest event time */
	int64		id;				/* the event time of the row that opened it: tells sessions of one key apart */
	int64		opened;			/* what was over as it was opened: the watermark, less the lateness; or for good */
	int64		shown;			/* SC_GROUP_EMITTED: the window_start that its result row has */
} ScTimes;

#define sc_group_times(engine, group) \
	((ScTimes *) ((char *) (group) + (engine)->times_offset))

/* Is it there?  All groups are that nobody deletes. */
static inline bool
sc_group_is_live(const ScEngine *engine, const ScGroup *group)
{
	return !engine->timed || sc_group_times(engine, group)->life == SC_LIVE;
}

/* Has it states?  A group that was deleted and a session that is closed have none. */
static inline bool
sc_group_has_states(const ScEngine *engine, const ScGroup *group)
{
	return !engine->timed ||
		(sc_group_times(engine, group)->life == SC_LIVE && !sc_group_times(engine, group)->closed);
}

/* Is there neither a group of this number nor anything to be said of one? */
static inline bool
sc_group_is_free(const ScEngine *engine, const ScGroup *group)
{
	return engine->timed && sc_group_times(engine, group)->life == SC_FREE;
}

/* The window of a session. */
static inline ScWindow
sc_session_window(const ScEngine *engine, const ScTimes *times)
{
	return (ScWindow) {.start = times->start,.end = times->last + engine->def->window.size};
}

/* The watermark behind which it has no more rows. */
static inline int64
sc_session_over(const ScEngine *engine, const ScTimes *times)
{
	return sc_session_over_at(&engine->def->window, times->last);
}

/* bucket.c: the group of this number isn't found any more */
extern void sc_bucket_remove_cell(ScEngine *engine, ScBucket *bucket, uint32 number);
/* Marks it as changed, if it isn't. */
extern void sc_bucket_touch(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number);

/* deletion.c */
extern void sc_group_free_state(ScBucket *bucket, const ScTrans *trans, Datum *state, uint8 *flags);
extern void sc_bucket_delete(ScEngine *engine, ScBucket *bucket, uint32 number);
/* The group stays, without states. */
extern void sc_bucket_strip(ScEngine *engine, ScBucket *bucket, uint32 number);
extern void sc_bucket_drop_copy(ScEngine *engine, ScBucket *bucket, uint32 number);
extern void sc_bucket_reclaim(ScEngine *engine, ScBucket *bucket, uint32 number);
extern void sc_group_is_written(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number);

/* due.c: the directory of times at which something happens to a bucket's groups */
extern void sc_due_renew(ScBucket *bucket);
extern void sc_due_push(ScEngine *engine, ScBucket *bucket, uint32 number);
/* The group whose time comes first; false: there is none. */
extern bool sc_due_first(ScEngine *engine, ScBucket *bucket, int64 *at, uint32 *number);
extern void sc_due_pop(ScEngine *engine, ScBucket *bucket);

/* sessions.c: those of each key, in order of time */
extern void sc_sessions_renew(ScEngine *engine, ScBucket *bucket);
extern void sc_sessions_remove(ScEngine *engine, ScBucket *bucket, uint32 number);
/* Is a row of the keys in engine->key_values late?  "over": it would be a session that is past its lateness. */
extern bool sc_sessions_are_over(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts, bool over);
/* Those before and behind one of its key; SC_NO_GROUP: there is none. */
extern void sc_sessions_neighbours(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 *left, uint32 *right);
#define SC_NO_GROUP		UINT32_MAX
extern void sc_sessions_add_row(ScEngine *engine, ScBucket *bucket, uint32 hash);

/* session_changes.c: what becomes of those whose rows are taken back */
/* The session that isn't closed and has a row at "ts", of the keys in engine->key_values; false: none has. */
extern bool sc_sessions_find_row(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts, uint32 *number);
/* A row that is to be taken back: was it late, or is its session over?  "over": as for sc_sessions_are_over. */
extern bool sc_sessions_have_lost(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts, bool over);
/* A row that was late by itself, and mustn't be counted if it came again. */
extern void sc_sessions_note_late(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts);
/* A row that was late, or isn't taken back: the sessions that it lies in or touches; NULL: nobody knows which. */
extern void sc_sessions_have_changed(ScEngine *engine, ScBucket *bucket, uint32 hash, int64 ts);
/* A row of it was taken back. */
extern void sc_sessions_loosen(ScEngine *engine, ScBucket *bucket, uint32 number);
/* All that have lost rows become what is left of them. */
extern void sc_sessions_settle(ScEngine *engine);
/* The bucket's groups have other numbers. */
extern void sc_sessions_renew_loose(ScEngine *engine, ScBucket *bucket);
/* All rows of its table are gone: so are those groups that aren't over. */
extern void sc_timed_truncate(ScEngine *engine, ScPane *pane);
/* emit.c: the row that the result has of a group goes at once. */
extern void sc_emit_gone(ScEngine *engine, ScBucket *bucket, ScGroup *group);

/* timed.c: what the watermark does to them */
/* A group with a ttl has got the row at hand. */
extern void sc_timed_touch(ScEngine *engine, ScBucket *bucket, ScGroup *group, bool isnew);
/* Of a row that can be taken back: is it too late for that? */
extern bool sc_timed_is_past_ttl(const ScEngine *engine, int64 ts);
extern int64 sc_group_due_at(const ScEngine *engine, const ScTimes *times);
extern void sc_timed_renew(ScEngine *engine, ScBucket *bucket);
/* emit.c: emits the groups of engine->due */
extern void sc_emit_due(ScEngine *engine, ScPane *pane);
/* combine.c */
extern void sc_bucket_take(ScEngine *engine, ScBucket *bucket, ScEngine *from, ScBucket *taken);
extern void sc_pane_renew_bucket(ScEngine *engine, ScPane *pane);
extern bool sc_timed_is_due(const ScEngine *engine, const ScBucket *bucket, const ScGroup *group);
extern void sc_timed_close(ScEngine *engine);
extern void sc_timed_emit_changed(ScEngine *engine);
extern void sc_timed_remember(ScEngine *engine);
/* The row at hand is late for its session, and stays so if the watermark goes back. */
extern void sc_timed_late_for_good(ScEngine *engine);
extern void sc_timed_go_back(ScEngine *engine, int64 watermark);
extern bool sc_timed_next_due(const ScEngine *engine, int64 *at);
extern void sc_timed_ahead(const ScEngine *engine, ScWindowRanges *ahead);

/*
 * decode.c: an independent copy of a group, that nothing finds; to be dropped by sc_bucket_drop_copy, which an error of
 * the row does.  "with": the row's group, which it is to be combined with.
 */
extern uint32 sc_group_copy(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 with);

#endif							/* SC_EXEC_TIMED_H */
