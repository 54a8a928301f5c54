/*-------------------------------------------------------------------------
 * engine.h
 *	  The engine of one continuous query in one task: rows in, groups in
 *	  memory, result rows out.  Knows nothing of processes, queues or catalogs of
 *	  the extension.
 *
 * Every function that can evaluate expressions (row, watermark, barrier) must be
 * called inside a transaction with an active snapshot, with the owner's user id
 * and settings in force.  An error leaves the engine unusable: the caller frees
 * it and loads the last checkpoint.
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_ENGINE_H
#define SC_EXEC_ENGINE_H

#include "base/pace.h"
#include "executor/tuptable.h"
#include "model/catalog.h"
#include "model/definition.h"

#define SC_KEY_GROUP_BITS	7	/* the upper bits of a key's hash */
#define SC_MAX_PARALLELISM	(1 << SC_KEY_GROUP_BITS)	/* number of key groups */

/* The first key group of the number-th of n tasks; each has those up to the next one's first. */
static inline int
sc_first_key_group(int number, int n)
{
	return number * SC_MAX_PARALLELISM / n;
}

typedef struct ScEngine ScEngine;

typedef enum ScResultOp
{
	SC_RESULT_INSERT = 'I',		/* never conflicts (emit close, a window's first time) */
	SC_RESULT_UPSERT = 'U',
	SC_RESULT_DELETE = 'D',		/* by the result's key columns */

	/* of a query without groups whose rows can go, and which only the result knows */
	SC_RESULT_ROW = 'R',		/* an upsert; if the deletion of its key comes right before it, both are one update */
	SC_RESULT_TRUNCATE = 'T',	/* all rows of the result are deleted */

	/* of what has no key (a definition's upper part): in place of all rows of a window */
	SC_RESULT_CLEAR = 'C',		/* only the window's column isn't NULL; its rows are those that follow, if any: */
	SC_RESULT_MEMBER = 'M'
} ScResultOp;

/*
 * Takes a result row: a virtual slot with the target list's columns, valid
 * during the call only.  Must not raise errors for lack of room.
 */
typedef void (*ScEmitRow) (void *arg, ScResultOp op, TupleTableSlot *row);

/* Raises what ScEmitRow would raise of the row; what it brings in may stay in the slot. */
typedef void (*ScCheckRow) (void *arg, TupleTableSlot *row);

/*
 * A row is dropped as late for one window: the slot that sc_engine_row got, valid
 * during the call only.  May evaluate code of the owner's.
 */
typedef void (*ScLateRowDropped) (void *arg, TupleTableSlot *row, int64 window_start,
								  int64 window_end, int64 watermark);

/*
 * The state has grown by about a megabyte, or a part of stream_ckpt.task_memory, since the last time: called at the end of a row, so the
 * caller may let the rows behind it wait.  Must not raise errors.
 */
typedef void (*ScMemoryGrew) (void *arg);

/*
 * Where buckets of panes that are larger than memory are (state/spilled.h).  "write" and "load" are called
 * where sc_engine_row is; what they raise is none of a row's errors.
 */
typedef struct ScPane ScPane;
typedef struct ScBucket ScBucket;
typedef struct ScSpillWays
{
	/* Fills an empty bucket by sc_group_decode; "number": of the pane's directory. */
	void		(*load) (void *arg, ScEngine *engine, ScPane *pane, ScBucket *bucket, uint32 number);
	/* Writes the changed groups of a pane as a run; all of a pane that isn't spilled yet, which it becomes then. */
	void		(*write) (void *arg, ScEngine *engine, ScPane *pane);
	/* The pane, which is spilled, is about to be freed: its window is over. */
	void		(*close) (void *arg, ScEngine *engine, ScPane *pane);
} ScSpillWays;

/*
 * What panes that are larger than memory have taken, of a whole task: its engines and ScSpilleds add to it.
 * "Needed": by a row, or when a pane's rows are emitted.
 */
typedef struct ScSpillCounters
{
	int64		hits;			/* a bucket of a spilled pane was needed, and in memory */
	int64		misses;			/* it wasn't: it was loaded, or opened empty to collect deltas */
	int64		evictions;		/* buckets that gave back their memory, but for those of panes that are over */
	int64		loaded;			/* bytes of entries applied in loads, as the next ones without headers of chunks */
	int64		written;		/* bytes of runs, of panes that became spilled and of changes */
	int64		merged;			/* bytes of runs that merges have made */
} ScSpillCounters;

/*
 * What is pending of the engine's snapshots has to be written now (sc_bucket_snapshot_begin, group.h).  Called between
 * rows; may raise what writing raises.
 */
typedef void (*ScSettle) (void *arg);

typedef struct ScEngineOptions
{
	ScEmit		emit;
	int64		watermark_delay;	/* microseconds */
	int64		allowed_lateness;	/* microseconds */
	int64		ttl;			/* microseconds: without windows, a group is kept for so long after its last row; 0: for ever */
	int32		first_key_group;	/* this task's range of key groups, inclusive */
	int32		last_key_group;
	ScEmitRow	emit_row;
	ScCheckRow	check_row;		/* before the first row of several that are emitted together */
	void	   *emit_arg;		/* of both */
	ScLateRowDropped late_row;	/* NULL: late rows are only counted */
	void	   *late_arg;
	bool		undo;			/* sc_engine_after_error can go on */
	const ScSpillWays *spill;	/* NULL: all is in memory */
	void	   *spill_arg;
	ScSpillCounters *spill_counters;	/* if spill isn't NULL */
	ScMemoryGrew memory_grew;
	void	   *memory_arg;
	ScSettle	settle;			/* NULL: no snapshot is ever deferred */
	void	   *settle_arg;
} ScEngineOptions;

/* Counters since the query began (restored with the state by the caller). */
typedef struct ScEngineCounters
{
	int64		rows_in;		/* rows of the stream seen, before WHERE; counted by the query's first task */
	int64		late_rows;		/* rows (x windows) dropped as late; as all below, of our key groups */
	int64		null_event_times;	/* NULL or infinite event time: dropped */
	int64		result_rows;	/* emitted */
	int64		retracted_rows;	/* rows retracted, of our key groups */
	int64		late_changes;	/* retractions (x windows) of what is over: nothing was changed */
	int64		skipped_changes;	/* retractions of rows that have no event time, or fail as they did when they came */
} ScEngineCounters;

/*
 * Compiles "def" (kept, not copied) in a new child context of "parent".
 * Fails as ExecInitAgg would (missing EXECUTE rights...).  stream_desc is the
 * row type of the slots that sc_engine_row gets (the root relation's).
 */
extern ScEngine *sc_engine_create(MemoryContext parent, const ScDefinition *def,
								  TupleDesc stream_desc,
								  const ScEngineOptions *options);
extern void sc_engine_free(ScEngine *engine);
/* How the state of an aggregate (from 0) is kept and combined, in words; palloc'd. */
extern char *sc_engine_describe_state(const ScEngine *engine, int aggno);

/*
 * The engine, which is fresh, takes over all state of "from": one of the same query, compiled
 * before something that it depends on has changed.  Groups whose keys have become equal are
 * combined.  ERRCODE_DATA_CORRUPTED where the states don't fit any more.  "from" is
 * only to be freed then.
 */
extern void sc_engine_take_state(ScEngine *engine, ScEngine *from);

/*
 * Are rows of windows that are over still to be emitted?  Then the query has no part in a checkpoint.
 * sc_engine_emit_leaving goes on with them, in steps; true: all are.  It must be before anything but rows and time
 * happens to the engine; what it raises spoils the engine.
 */
extern bool sc_engine_is_emitting(const ScEngine *engine);
extern bool sc_engine_emit_leaving(ScEngine *engine, ScPace *pace);

/* Has an error left a commit or a barrier unfinished (options.undo), to be called again? */
extern bool sc_engine_is_interrupted(const ScEngine *engine);

/*
 * A transaction begins that was committed at "commit_time".  If that is the event time of its rows, they are in the windows
 * of that time; or of the watermark, if one of those is over (commits can overtake each other, and clocks go back): true then.
 */
extern bool sc_engine_begin_transaction(ScEngine *engine, int64 commit_time);

/* One committed row of the stream; slot columns by the root's attribute numbers. */
extern void sc_engine_row(ScEngine *engine, TupleTableSlot *slot);

/*
 * A row as it was inserted, which isn't there any more (the definition's retracts); one that was late, timeless or at fault then
 * is so again, and changes nothing.  ERRCODE_DATA_CORRUPTED if the query has no such row: that is none of the row's
 * errors, as after it only the last checkpoint is right.  Else as sc_engine_row.
 */
extern void sc_engine_retract(ScEngine *engine, TupleTableSlot *slot);

/*
 * The row isn't there any more, or none of the stream is, and nothing is to change: only that its windows aren't what the
 * definition makes of the table (sc_engine_changed_windows).
 */
extern void sc_engine_ignore_deleted(ScEngine *engine, TupleTableSlot *slot);
extern void sc_engine_ignore_truncate(ScEngine *engine);
/* The same of rows with these event times; and do any that it may have counted still have a window that isn't over? */
extern void sc_engine_ignore_lost(ScEngine *engine, ScWindowRange times);
extern bool sc_engine_needs_rows(const ScEngine *engine, ScWindowRange times);

/* All rows that the stream had are gone: those of groups, of open windows and of those within their lateness. */
extern void sc_engine_truncate(ScEngine *engine);

/*
 * Is the row, whose columns lie as "desc" says, plainly another task's?  Then all is done that sc_engine_row would do,
 * and it is counted if "counts", or that sc_engine_retract would do.  False also if that can't be seen at a glance.
 * "desc" is known by its address.
 */
extern bool sc_engine_is_anothers(ScEngine *engine, TupleDesc desc, MinimalTuple row, bool counts);

/*
 * Of a query without groups: is a row another task's, by the end of its transaction and its number in it?  Then it is
 * counted, and all is done that sc_engine_row would do.
 */
extern bool sc_engine_passes_by(ScEngine *engine, uint64 transaction, int64 ordinal);

/*
 * The same as sc_engine_row for a row that was cut: in place of values that were left out it has on-disk TOAST
 * pointers.  ERRCODE_PROGRAM_LIMIT_EXCEEDED where WHERE reads one of them, or lets the row pass
 * and keys or aggregates read one, or it is late and late_row wants it.
 */
extern void sc_engine_cut_row(ScEngine *engine, TupleTableSlot *slot);
extern void sc_engine_retract_cut_row(ScEngine *engine, TupleTableSlot *slot);

/*
 * Rows of a definition with a source plan (definition.h: source) come in batches, whose numbers begin at 0: begin, add each,
 * join all, then take each in its order, with what else happens between rows in between.  A batch can be taken in several
 * transactions; it goes with the engine, or when the next one begins.  Adding and joining changes nothing else.
 *
 * In sc_engine_batch_add an error can be the row's: sc_engine_batch_fault says so, and keeps it (as it is, from
 * sc_engine_batch_context) until the row is taken; then the next one may be added.  Errors of rows that can't be joined wait in
 * the same way; what sc_engine_batch_join raises is the query's.  It reads tables as they are, so rows must be visible.
 */
extern void sc_engine_batch_begin(ScEngine *engine);
extern void sc_engine_batch_add(ScEngine *engine, TupleTableSlot *slot, bool cut);
extern bool sc_engine_batch_fault(ScEngine *engine, ErrorData *error);
extern MemoryContext sc_engine_batch_context(ScEngine *engine);
extern void sc_engine_batch_join(ScEngine *engine);
extern void sc_engine_batch_end(ScEngine *engine);
/*
 * As sc_engine_row, or sc_engine_cut_row, of the row of this number, which is in "slot".  False: it is joined with more, and
 * memory_grew has called sc_engine_batch_halt: when there is room, take it again, and it goes on.  Never with undo, which takes
 * a row back as a whole.  Until it is taken, nothing else may happen to the engine than what makes room.
 */
extern bool sc_engine_batch_take(ScEngine *engine, TupleTableSlot *slot, int number, bool cut);
extern void sc_engine_batch_halt(ScEngine *engine);

/*
 * The server has told of a change of this relation, or (invalid) of anything else that plans depend on.  Reads no catalog.
 */
extern void sc_engine_source_changed(ScEngine *engine, Oid relid);

/*
 * A transaction ends.  max_event_time is the greatest event time of its rows in
 * this stream (all rows, WHERE or not, finite ones only), but for those that must not move the
 * watermark; plausible_time the same of those whose event time is plausible; or
 * SC_NO_EVENT_TIME, as it is if event time is that of the commit.  Advances the watermark.  With emit close, each window whose end it passes
 * emits its rows in key order; a window past its allowed lateness emits what changed
 * since, and is freed.
 */
extern void sc_engine_advance_watermark(ScEngine *engine, int64 max_event_time, int64 plausible_time);

/*
 * The stream's delay changes.  A shorter one advances the watermark, as sc_engine_advance_watermark does;
 * with a longer one it stays until event time has caught up.
 */
extern void sc_engine_set_delay(ScEngine *engine, int64 watermark_delay);

/*
 * The watermark becomes what it is after rows up to "event_time".  If that is back, windows
 * whose rows have appeared (emit close) are over for good: they emit what changed since, and
 * are freed.
 */
extern void sc_engine_reset(ScEngine *engine, int64 event_time);

/* The query's event time; the engine's own, as it is now. */
extern const ScEventTime *sc_engine_time(const ScEngine *engine);

/*
 * Windows that end by then are over for good, whatever the watermark says; all of them are over by it already.  They are as
 * another query has left them, which is noted as a change.
 */
extern void sc_engine_close_until(ScEngine *engine, int64 end);

/* Before state is restored; and after it, which frees what there is of windows that are over. */
extern void sc_engine_set_time(ScEngine *engine, const ScEventTime *time);
extern void sc_engine_free_closed(ScEngine *engine);

/*
 * Adds the open windows that begin behind the greatest event time: those of rows that were too far
 * ahead to move it, or came before a reset.
 */
extern void sc_engine_ahead_windows(const ScEngine *engine, ScWindowRanges *ahead);

/*
 * The greatest event time that would close or free the next window; PG_INT64_MAX:
 * none is open.
 */
extern int64 sc_engine_next_due(const ScEngine *engine);

/* Where else can its state be read?  In order: the least of several parts is that of the whole. */
typedef enum ScPortable
{
	SC_PORTABLE_NO,				/* nowhere: it holds OIDs of this database's own */
	SC_PORTABLE_VERSION,		/* in other databases of the same major version */
	SC_PORTABLE_YES				/* in those of any version */
} ScPortable;

extern ScPortable sc_engine_portable(const ScEngine *engine);

extern ScEngineCounters *sc_engine_counters(ScEngine *engine);

/*
 * Of a definition that retracts: the places (assigner.h) of windows that aren't what the definition makes of the table any
 * more, because rows came, changed or went when they were over (exec/changed_windows.c).  For the caller to take (n = 0).
 */
extern ScRangeSet *sc_engine_changed_windows(ScEngine *engine);

/*
 * Makes room: panes become spilled, what has changed of spilled ones is written, and buckets are evicted until the
 * state takes no more than "goal" bytes, if that can be.  To be called between two rows, when
 * sc_engine_emit_changed has emitted what changed.
 */
extern void sc_engine_shrink(ScEngine *engine, Size goal);
/* Frees what is kept only to save time, which counts as state (exec/running.c); between two rows. */
extern void sc_engine_spare(ScEngine *engine);
/* Can it make room?  Not if equality of keys can change, or if options.spill is NULL. */
extern bool sc_engine_can_spill(const ScEngine *engine);

/* Bytes of all panes (contexts included), and groups (of spilled panes at most so many); cheap. */
extern Size sc_engine_memory(const ScEngine *engine);
extern int64 sc_engine_groups(const ScEngine *engine);

/*
 * First part of a barrier: emits the rows of the groups changed since the last call
 * (upsert, or delete where HAVING stopped holding): all of them with emit =>
 * 'update', with 'close' those of closed windows that late rows changed.
 * state/changelog.h writes the state itself.
 */
extern void sc_engine_emit_changed(ScEngine *engine);

/* What an error in sc_engine_row, _advance_watermark or _emit_changed has spoilt. */
typedef enum ScEngineFault
{
	SC_FAULT_ENGINE,			/* all: free it, and load the last checkpoint */
	SC_FAULT_ROW,				/* nothing: the row has left no trace */
	SC_FAULT_GROUP				/* a group's result row isn't emitted: call the function
								 * again with the same arguments, and it goes on behind it */
} ScEngineFault;

/*
 * To be called after the (sub)transaction of an error was aborted, with
 * options.undo; in the owner's surroundings, as it may call serialisation
 * functions.  An error in it leaves the engine unusable.
 */
extern ScEngineFault sc_engine_after_error(ScEngine *engine);

/* The plan of the definition's upper part, as EXPLAIN shows it, palloc'd; NULL: it has none. */
extern char *sc_engine_explain_upper(ScEngine *engine);

/* The same of its source part, for many rows; NULL: it has no plan.  Plans it, so it takes locks. */
extern char *sc_engine_explain_source(ScEngine *engine);

/*
 * Makes the plans of its source part, if it has one, and starts them without running them: raises what the first row would
 * find, as privileges on functions.
 */
extern void sc_engine_try_source(ScEngine *engine);

/* After SC_FAULT_GROUP: a slot with the group's window_start and window_end, if there are windows, and its keys,
 * valid until the next call. */
extern TupleTableSlot *sc_engine_failed_group(ScEngine *engine);

#endif							/* SC_EXEC_ENGINE_H */
