/*-------------------------------------------------------------------------
 * task_internal.h
 *	  What the files of a task share: its queries and its layouts.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_TASK_TASK_INTERNAL_H
#define SC_WORKER_TASK_TASK_INTERNAL_H

#include "ckpt/retained_row.h"
#include "ckpt/offset.h"
#include "ckpt/seen.h"
#include "exec/engine.h"
#include "state/changelog.h"
#include "wire/batch.h"
#include "worker/frame/placement.h"
#include "worker/task/outbox.h"

/* Must a query be compiled again? */
typedef enum ScStale
{
	SC_FRESH,
	SC_MAYBE_STALE,				/* if its view, or the row type that it reads, is another now */
	SC_STALE
} ScStale;

/* What a query has of its stream's history, with which a new one begins (history.c). */
typedef enum ScHistoryState
{
	SC_HISTORY_COMPLETE,		/* all, or it began without */
	SC_HISTORY_WANTED,			/* nothing yet */
	SC_HISTORY_COMING			/* some of it */
} ScHistoryState;

/* Which row of a change is, or was, worked on. */
typedef enum ScHalf
{
	SC_HALF_NONE,				/* none of this record's yet, or a row that was inserted */
	SC_HALF_OLD,
	SC_HALF_NEW
} ScHalf;

/* A query that the task runs.  Allocated in its own context, freed as a whole. */
typedef struct ScTaskQuery
{
	MemoryContext context;
	ScQuery    *query;
	ScPlace		place;			/* number 0 has what belongs to no group, too */
	bool		rescaled;		/* its chunks were written by other tasks: the next part replaces all */
	MemoryContext code;			/* of the next two, as they are compiled */
	ScDefinition *definition;
	uint32	   *type_hashes;	/* of definition->types, in TYPEOID */
	ScStale		stale;			/* stale.c, which sets it */
	uint64		compiled_at;	/* sc_task_changes() before it was compiled */
	TupleDesc	stream_desc;	/* the stream's row type; lives as long as the task */
	TupleDesc	compiled_desc;	/* the same when it was compiled */
	ScStreamOptions options;	/* the stream's, as of this place in the log */
	ScEngine   *engine;
	ScSpilled  *spilled;		/* what of its state isn't in memory */
	ScSnapshot *snapshot;		/* what of its part is still to be written, or NULL */
	ScRowBuffer rows;			/* result rows on their way to the outbox */
	XLogRecPtr	offset;			/* transactions that end at or before it are in */
	bool		skipping;		/* the transaction being read is one of those */
	int64		age;			/* of its last part: each is older than the next (state/backend.h) */
	bool		paused;			/* takes no more rows; "offset" is its last */
	int			nlater;			/* so many times in a row it had no part, as it was emitting */
	bool		touched;		/* since its last part: set by whoever changes its state, or sends something
								 * of it.  What its offset says is compared */
	ScHistoryState history;
	ScSeen	   *seen;			/* transactions that are in its history; NULL: none that may still come */
	ScSeen	   *unsent_seen;	/* the same, for its next part, which is the first one; NULL: it was sent */
	ScOffset	sent;			/* in the last part of this attempt, up to date by what it said since; query_id
								 * 0: there was none */
	uint64		access_checked; /* access.c; 0: never */
	bool		user_code;		/* functions of users' are called, which may leave something for
								 * the commit */

	int64		took_us;		/* in this period (period.c), as limit.h charges it */
	int64		took_units;		/* rows, groups and entries in that */

	/* where it is, for a failure */
	XLogRecPtr	transaction;	/* end of the transaction being read */
	int64		ordinal;		/* rows of the stream seen in it */
	bool		in_row;			/* at the last one of them */
	bool		ignores_deletes;	/* 'D' and 'X' of the transaction aren't applied */
	ScHalf		half;			/* of the record being read: an UPDATE goes on there after an error */
	TupleTableSlot *row;		/* that row */
	const char *at;				/* the record being read, in the message */
	const char *end;			/* of the message, or of the row behind which it halts */
	bool		halted;			/* at "at": there are more records in the message */
	const char *refreshed_at;	/* the record before which it was compiled again, or NULL */
	XLogRecPtr	active_lsn;		/* see ScOffset */
	TimestampTz active_at;
	bool		moved;			/* the transaction's rows are in other windows than those of its commit's time */
	int64		moved_rows;		/* since the query began, as the next four */
	int64		ahead_rows;
	int64		updates_ignored;
	int64		deletes_ignored;
	int64		truncates_ignored;

	const ScWireControl *control;	/* being acted on */

	/* joined.c, of a query with a source plan */
	ScEngine   *batch_engine;	/* which has a batch of the message, up to batch_end; NULL, or not "engine": there is none */
	const char *batch_end;
	int			batch_next;		/* number in the batch of the next row */
	bool		batch_begun;	/* some of what that one is joined with is in, and there may be more: nothing else may
								 * happen before it is through, but that room is made */

	/* the layout of the last row, and its stream that this query reads (NULL:
	 * none of them) */
	struct ScTaskLayout *layout;
	struct ScTaskStream *stream;
	TupleDesc	shared_desc;	/* if other tasks have rows of the query, too: how the layout's lie; NULL: not as the
								 * stream's do */
} ScTaskQuery;

/*
 * queries.c: the task's queries, and the rule that an error in one of them
 * concerns it alone.  All need a transaction and a snapshot (sc_begin_transaction), which
 * an error replaces by new ones: nothing of the caller's may depend on them.
 */

/*
 * Loads the queries of these offsets that are placed on this task, the task-th of ntasks, with their state.
 * "offsets" must stay valid.
 */
extern void sc_task_queries_restore(ScOutbox *outbox, int task, int ntasks, const ScOffset *offsets,
									const ScPlacement *placements, int noffsets);
extern List *sc_task_queries(void); /* of ScTaskQuery * */

/* Runs one message's rows and transaction ends through all queries. */
extern void sc_task_queries_run(const char *data, Size len);

/*
 * Does something to a query, which is at "lsn" (invalid: where its last row was); false: it has failed, and is gone.
 * An error is the query's alone; the transaction can be another one then.
 */
extern bool sc_task_query_step(ScTaskQuery *query, XLogRecPtr lsn,
							   void (*perform) (ScTaskQuery *query, void *arg), void *arg);
/* The query is gone from the list, and freed. */
extern void sc_task_query_forget(ScTaskQuery *query);
/* The same of those for which the outbox had no room.  Between two messages. */
extern void sc_task_queries_forget_lost(void);
/* What comes next is a round (base/share.h) of the queries that there are. */
extern void sc_task_queries_begin_round(void);

/* Does a query read tables when it runs rows? */
extern bool sc_task_queries_read_tables(void);
/* Can what a transaction did to the catalogs matter to a query that runs its rows? */
extern bool sc_task_queries_mind_catalogs(void);

/* Has the query fail, by the error that "raise" throws. */
extern void sc_task_query_fail(ScTaskQuery *query, void (*raise) (const ScTaskQuery *query));

/* Has the query make room; false: it has failed. */
extern bool sc_task_query_make_room(ScTaskQuery *query, Size goal);

/* Control messages: what happens to a query, or to those of a stream, at "lsn". */
extern void sc_task_query_create(const ScWireControl *control);
extern void sc_task_queries_alter(const ScWireControl *control);
extern void sc_task_queries_reset(const ScWireControl *control);
extern void sc_task_query_drop(int64 query_id);
extern void sc_task_query_pause(int64 query_id, TransactionId xid, XLogRecPtr lsn);
/* The barrier at "lsn" is its last one, because it moves to another pipeline. */
extern void sc_task_query_leave(int64 query_id, XLogRecPtr lsn);

/* task.c: of this task, in shared memory */
extern ScSpillCounters *sc_task_spill_counters(void);

/* barrier.c: the task's part of a checkpoint; outside of a transaction, but for the last */

extern void sc_task_barrier_init(ScOutbox *outbox);
/* What has come since the last barrier is in the part; the rest of it follows in steps. */
extern void sc_task_barrier(const ScWireBarrier *barrier);
extern bool sc_task_barrier_is_pending(void);
/* "since": when the last message's work began, or nothing did. */
extern void sc_task_barrier_go_on(instr_time since);
/* Have queries windows that are over, with rows to emit?  They go on by a step. */
extern bool sc_task_is_emitting(void);
extern void sc_task_emit_some(instr_time since);
/* So many bytes of pending chunks are written. */
extern void sc_task_barrier_note(Size bytes);

/* memory.c: where the queries' state is past stream_ckpt.task_memory, the largest of them fails */
extern void sc_task_queries_bound(void);
extern bool sc_task_queries_are_too_large(void);

/* period.c: whether one owner's queries hold up the others for longer than a go */

/* A message is done; the last transaction end that the task has processed.  Outside of a transaction. */
extern void sc_task_period_look(XLogRecPtr lsn, TimestampTz commit_time);
/* No message waits. */
extern void sc_task_period_break(void);

/* query.c: one query; errors go through */

/*
 * Reads the catalog entry and compiles the query; NULL where it has been dropped
 * since.  "context" is the query's own from then on.
 */
extern ScTaskQuery *sc_task_query_load(int64 query_id, ScPlace place, MemoryContext context,
									   ScOutbox *outbox);
/* Makes room: its state in memory comes down to so many bytes, or as far as it can. */
extern void sc_task_query_shrink(ScTaskQuery *query, Size goal);
/* Goes on with merging what was written. */
extern void sc_task_query_work(ScTaskQuery *query);
/* Counters, watermark and state of the last checkpoint. */
extern void sc_task_query_restore(ScTaskQuery *query, const ScOffset *offset);
extern void sc_task_query_free(ScTaskQuery *query);
/* Halts where the state of all queries outgrows its bound (query->halted); then call it again. */
extern void sc_task_query_run(ScTaskQuery *query, const char *data, Size len);
/* Runs "perform" in the owner's surroundings. */
extern void sc_task_query_run_as_owner(ScTaskQuery *query, void (*perform) (ScTaskQuery *query));

/* query_part.c: its part of a checkpoint; errors go through */

/*
 * The query's part of checkpoint k, as of the barrier, into the outbox: result rows, changed state,
 * offset.  What isn't written yet is in query->snapshot then; without it the part is complete.  In a transaction; an
 * error is the query's, and what was sent of the part is void then.  Returns the bytes of chunks in it.
 */
extern Size sc_task_query_snapshot(ScTaskQuery *query, int64 checkpoint_id, XLogRecPtr lsn);
/* Goes on with what is pending of its part; NULL: to its end. */
extern void sc_task_query_go_on(ScTaskQuery *query, ScPace *pace);
/* An ScSettle; "arg" is the ScTaskQuery.  In the owner's surroundings. */
extern void sc_task_query_settle_pending(void *arg);
/* Goes on emitting windows that are over; NULL: all that is left. */
extern void sc_task_query_emit(ScTaskQuery *query, ScPace *pace);
/* Ends all that goes on in steps. */
extern void sc_task_query_settle(ScTaskQuery *query);
/*
 * Has the query nothing for a checkpoint at "lsn"?  *same: the coordinator must be told, because
 * its position moves on.  Runs no code of the owner's, and costs next to nothing.
 */
extern bool sc_task_query_has_no_news(ScTaskQuery *query, XLogRecPtr lsn, bool *same);
/* What a message to the queries of its stream does to one of them; at its place in the log. */
extern void sc_task_query_alter(ScTaskQuery *query, const ScWireControl *control);
extern void sc_task_query_reset(ScTaskQuery *query, const ScWireControl *control);
/* The offset of a query that begins at "start", on so many tasks. */
extern void sc_task_query_first_offset(int64 query_id, Oid stream_relid, XLogRecPtr start, int ntasks,
									   const ScStreamOptions *options, ScOutbox *outbox);

/* Compiles the definition as it is now; what was compiled before is the caller's to free. */
extern void sc_task_query_compile(ScTaskQuery *query);
/* Marks the query if anything was heard since it began to be compiled: it wasn't in the list. */
extern void sc_task_query_catch_up(ScTaskQuery *query);

/* history.c: a stream's history comes, and has come; and what a query's rows are */

extern void sc_task_history_begin(const ScWireHistory *history);
extern void sc_task_history_end(const ScWireHistoryEnd *end);
/* What its log says of the query's history, which it goes on behind. */
extern void sc_task_query_restore_seen(ScTaskQuery *query, const ScOffset *offset);
/* Puts it into the query's first part. */
extern void sc_task_query_add_seen(ScTaskQuery *query);
/* Is the transaction, or message, with this top-level xid in the history? */
extern bool sc_task_query_has_seen(ScTaskQuery *query, TransactionId xid, XLogRecPtr end_lsn);

/*
 * stale.c: compiles the query again if anything that it is made of has changed, with the
 * state that it has.  To be called between two rows, before anything is computed in a
 * transaction; costs a comparison if nothing has changed.
 */
extern void sc_task_query_refresh(ScTaskQuery *query);
/* Counts changes that a query may depend on; watches them from the first call on. */
extern uint64 sc_task_changes(void);

/*
 * change.c: a 'D', 'N' or 'U' record, 'X', 'G', 'P', or 'F', which is an error; nothing if changes aren't applied.  Row, ordinal and
 * half are as with an inserted row.
 */
extern void sc_task_run_change(ScTaskQuery *query, const ScWireRecord *record);
extern void sc_task_run_truncate(ScTaskQuery *query, const ScWireTruncate *truncate);
extern void sc_task_run_ignore(ScTaskQuery *query, const ScWireIgnore *ignore);
extern void sc_task_run_lost(ScTaskQuery *query, const ScWireLost *lost);
extern void sc_task_run_broken(ScTaskQuery *query, const ScWireBroken *broken);
/* The row of the record at query->at that is worked on. */
extern MinimalTuple sc_task_row_at_hand(const ScTaskQuery *query);
/* Behind a row at fault: is there another one in its record, to go on with? */
extern bool sc_task_step_over_half(ScTaskQuery *query);

/* query.c: what query->stream and the like are for rows of the layout with that number. */
extern void sc_task_query_set_layout(ScTaskQuery *query, uint16 number);

/* access.c: an error where the owner may not do (any more) what the query does.
 * Costs a comparison where no privilege has changed since the last call. */
extern void sc_task_check_access(ScTaskQuery *query);
/* Would that be the comparison only? */
extern bool sc_task_access_is_checked(const ScTaskQuery *query);

/* query.c: is the transaction that begins one that is in already, or not to be? */
extern bool sc_task_query_skips(ScTaskQuery *query, const ScWireBegin *begin);

/* joined.c */

/* The row at query->at, a record of an insertion.  In the owner's surroundings.  False: it halts within the row. */
extern bool sc_task_joined_row(ScTaskQuery *query, const ScWireRecord *record);
/* The message is through, or another one begins. */
extern void sc_task_joined_end(ScTaskQuery *query);

/* late.c */

/* The row at query->at, as it was written, to be kept.  To be called as the query's owner. */
extern void sc_task_retain_row(ScTaskQuery *query, ScRetainedRow *retained);

/* An ScLateRowDropped; "arg" is the ScTaskQuery */
extern void sc_task_late_row(void *arg, TupleTableSlot *row, int64 window_start,
							 int64 window_end, int64 watermark);

/*
 * dead_letter.c: runs "perform" in the owner's surroundings until it is through, stepping
 * over rows and groups that raise errors.  "perform" begins at query->at, or where it was
 * left.
 */
extern void sc_task_dead_run(ScTaskQuery *query, void (*perform) (ScTaskQuery *query));

/* layout.c */

/* How the rows of one relation lie in messages. */
typedef struct ScTaskLayout ScTaskLayout;
typedef struct ScTaskStream ScTaskStream;

/* Takes a 'L' record. */
extern void sc_task_layout_set(const ScWireRecord *record);
extern ScTaskLayout *sc_task_layout_get(uint16 number);

/* The stream's column that had another type in these rows than in stream_desc, or 0. */
extern AttrNumber sc_task_stream_retyped(const ScTaskStream *stream);

/* The layout's view of a stream for slots of "stream_desc"; NULL where its rows
 * don't belong to the stream. */
extern ScTaskStream *sc_task_layout_stream(ScTaskLayout *layout, Oid stream,
										   TupleDesc stream_desc);

/*
 * The row's columns and values, in the stream's order, as they were in its own transaction, for
 * retained rows: what no catalog of today says any more.  Virtual columns aren't among them.  Values
 * point into "row"; the arrays are palloc'd, the row type the layout's.
 */
extern TupleDesc sc_task_stream_retained_row(ScTaskLayout *layout, ScTaskStream *stream,
											 MinimalTuple row, Datum **values, bool **nulls);

/* How the layout's rows lie, if that is as the stream's do; else NULL.  Lives as long as the task. */
extern TupleDesc sc_task_stream_desc(const ScTaskStream *stream);

/* The row in a slot by the stream's attribute numbers, valid until the next call; each has a slot of its own. */
extern TupleTableSlot *sc_task_stream_row(ScTaskStream *stream, MinimalTuple tuple);
extern TupleTableSlot *sc_task_stream_old_row(ScTaskStream *stream, MinimalTuple tuple);

/* A row comes, to a query with a stream; it may be another task's.  "cut": some of its values aren't there. */
static inline void
sc_task_insert_row(ScTaskQuery *query, MinimalTuple row, bool cut)
{
	if (query->shared_desc && !cut && sc_engine_is_anothers(query->engine, query->shared_desc, row, true))
		return;
	query->in_row = true;
	query->row = sc_task_stream_row(query->stream, row);
	if (unlikely(cut))
		sc_engine_cut_row(query->engine, query->row);
	else
		sc_engine_row(query->engine, query->row);
	query->in_row = false;
}

#endif							/* SC_WORKER_TASK_TASK_INTERNAL_H */
