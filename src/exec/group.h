/*-------------------------------------------------------------------------
 * group.h
 *	  What the state layer needs of an engine: its panes, their groups as bytes, and back.
 *
 * Functions that can run an aggregate's code need what sc_engine_row does (engine.h).
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_GROUP_H
#define SC_EXEC_GROUP_H

#include "base/compat.h"
#include "base/pace.h"
#include "exec/engine.h"
#include "lib/stringinfo.h"

typedef struct ScGroup ScGroup;

/* Format versions: of runs (state/run.h), and the last one of old chunks (state/old_chunks.c) */
#define SC_FORMAT_VERSION		4
#define SC_OLD_FORMAT_VERSION	3

/* A group in the order of positions: its position, and below it its number. */
typedef uint64 ScGroupAt;
#define sc_at_position(at)	((uint32) ((at) >> 32))
#define sc_at_number(at)	((uint32) (at))

/* Positions from "first" to below "end"; SC_POSITIONS: all of them. */
typedef struct ScPositions
{
	uint64		first;
	uint64		end;
} ScPositions;

#define SC_POSITIONS	(UINT64CONST(1) << 32)
#define SC_ALL_POSITIONS	((ScPositions) {0, SC_POSITIONS})

/* Which groups of a bucket are written whole, changed or not: those at these positions, and those with these numbers. */
typedef struct ScChoice
{
	ScPositions positions;
	uint32		first;			/* up to below "end" */
	uint32		end;
} ScChoice;

/* ---------- the engine ---------- */

/* Around writing what has changed: an error between leaves the engine unusable.  The second gets what the first says. */
extern bool sc_engine_begin_write(ScEngine *engine);
extern void sc_engine_end_write(ScEngine *engine, bool was);

/* Around loading, which is for a fresh engine only. */
extern void sc_engine_begin_load(ScEngine *engine);
extern void sc_engine_end_load(ScEngine *engine);

/* Of window, keys and states, as chunks of a format version have it. */
extern uint32 sc_engine_signature(const ScEngine *engine, int version);
/* Of what gives a group its position: the same in chunks that can be looked up by position. */
extern uint32 sc_engine_key_signature(const ScEngine *engine);
pg_noreturn extern void sc_signature_fail(void);

/* The key groups that it has, the last one included. */
extern void sc_engine_key_groups(const ScEngine *engine, int *first, int *last);
/* Positions that groups of its key groups can have. */
extern ScPositions sc_engine_positions(const ScEngine *engine);
/* Can groups have other positions than when they were written? */
extern bool sc_engine_keys_can_move(const ScEngine *engine);

/* For one group's bytes: the caller resets it. */
extern MemoryContext sc_engine_row_context(const ScEngine *engine);

/* Numbers of transition states among which are those with kept inputs: 0 to below this. */
extern int	sc_engine_kept_inputs(const ScEngine *engine);

/* The i-th pane by key, or NULL behind the last. */
extern ScPane *sc_engine_pane(const ScEngine *engine, int i);

/* Keys of panes that were closed and have chunks; forgotten by sc_engine_forget_closed_panes. */
extern const int64 *sc_engine_closed_panes(const ScEngine *engine, int *n);
extern void sc_engine_forget_closed_panes(ScEngine *engine);

/* Sum of the panes' live bytes. */
extern int64 sc_engine_live_bytes(const ScEngine *engine);

/* ---------- panes ---------- */

extern int64 sc_pane_key(const ScPane *pane);	/* window/assigner.h */
extern ScBucket *sc_pane_bucket(const ScPane *pane);	/* has all its groups; NULL: the pane is spilled */
extern uint32 sc_pane_nchanged(const ScPane *pane); /* groups changed since it was written */
extern bool sc_pane_is_whole(const ScPane *pane);	/* must all of it be written? */

/* How far a pane is being written whole, in pieces. */
typedef struct ScSweep
{
	int64		age;			/* of the run in which it began; 0: it isn't */
	uint32		at;				/* groups with lower numbers are through */
	int64		bytes;			/* of its runs since then */
} ScSweep;

/* The engine keeps it for the state layer. */
extern ScSweep *sc_pane_sweep(ScPane *pane);

/* Bytes of its chunks, 0: none was ever written; the engine keeps it for the state layer. */
extern int64 sc_pane_live_bytes(const ScPane *pane);
extern void sc_pane_set_live_bytes(ScEngine *engine, ScPane *pane, int64 bytes);

/* What writing all of it would take, by the average of an entry without kept inputs. */
extern int64 sc_pane_full_bytes(const ScPane *pane);
extern int64 sc_pane_entry_bytes(const ScPane *pane);
extern void sc_pane_set_entry_bytes(ScPane *pane, int64 bytes);

/* Groups of a pane that is in memory as a whole. */
extern uint32 sc_pane_ngroups(const ScPane *pane);

/* Can rows go on while it is written?  Not if rows may be due of it before its window closes. */
extern bool sc_pane_can_defer(const ScEngine *engine, const ScPane *pane);
/* All that has changed of it is written; or will be, as it is now: its snapshot was begun. */
extern void sc_pane_written(ScEngine *engine, ScPane *pane);

/*
 * exec/snapshot.c: the changed groups of a bucket and those of a choice, as they are when it begins.  "deferred": rows
 * may go on, sc_pane_can_defer() says where, and the changes count as written; whatever else is done with the pane
 * comes behind sc_bucket_snapshot_free.  Else nothing may happen to the bucket before that.  The snapshot belongs to
 * the current context.  Order, and what is to be written, are worked out in steps.
 */
typedef struct ScBucketSnapshot ScBucketSnapshot;

/* What comes next: a group as it is, or, where "saved" isn't NULL, as it was. */
typedef struct ScEntry
{
	uint32		position;
	bool		whole;			/* by the choice */
	uint32		number;			/* of the group */
	ScGroup    *group;
	const struct ScSaved *saved;
} ScEntry;

extern ScBucketSnapshot *sc_bucket_snapshot_begin(ScEngine *engine, ScBucket *bucket, const ScChoice *choice,
												  bool deferred);
/* Goes on with the order; true: entries can be taken. */
extern bool sc_bucket_snapshot_order(ScBucketSnapshot *snapshot, ScPace *pace);
/* False: there are no more.  Makes the bucket the one in which sc_group_encode works. */
extern bool sc_bucket_snapshot_next(ScBucketSnapshot *snapshot, ScEntry *entry);
/* It is written: the group may change. */
extern void sc_bucket_snapshot_passed(ScBucketSnapshot *snapshot, const ScEntry *entry);
extern void sc_bucket_snapshot_free(ScBucketSnapshot *snapshot);

/* What a saved group had: its head, and the bytes of kept inputs that follow it, of the transno-th state. */
extern const char *sc_saved_head(const ScEngine *engine, const struct ScSaved *saved, Size *len);
extern Size sc_saved_inputs(ScEngine *engine, const ScEntry *entry, int transno, const char **data);

/* A new pane, to be filled by sc_group_decode; NULL if the engine has it already. */
extern ScPane *sc_pane_begin_load(ScEngine *engine, int64 key);
extern void sc_pane_loaded(ScEngine *engine, ScPane *pane);
/* All of it must be written next. */
extern void sc_pane_rewrite(ScPane *pane);

/* ---------- spilled panes (exec/spilled.c) ---------- */

/* Kept for the state layer; those of a pane live as long as the query, not as the engine. */
extern struct ScRuns *sc_pane_runs(const ScPane *pane);
extern void sc_pane_set_runs(ScPane *pane, struct ScRuns *runs);
/* How many groups its runs have at most, for sc_engine_groups. */
extern void sc_pane_set_stored_groups(ScEngine *engine, ScPane *pane, int64 n);

/* Opens a spilled pane whose runs have so many bytes; NULL if the engine has it already. */
extern ScPane *sc_pane_open_spilled(ScEngine *engine, int64 key, int64 stored_bytes);
/* The positions of its number-th bucket. */
extern ScPositions sc_pane_positions(const ScPane *pane, uint32 number);
/*
 * The pane's buckets that have changed, in order of position: the next one from *number on, which goes behind it
 * and is 0 at first; NULL: there are no more.
 */
extern ScBucket *sc_pane_next_changed(const ScPane *pane, uint32 *number);
/* Has options.spill write what has changed of a spilled pane. */
extern void sc_spilled_write(ScEngine *engine, ScPane *pane);

/*
 * An empty bucket beside the pane's own, for what runs have at some positions; to be freed by the caller.  After all
 * entries are applied, sc_bucket_loaded; "complete": the oldest run is among those, so that nothing is
 * missing.  All its groups are written by sc_bucket_begin_write with SC_ALL_POSITIONS.
 */
extern ScBucket *sc_bucket_create(ScEngine *engine, ScPane *pane);
extern void sc_bucket_loaded(ScEngine *engine, ScBucket *bucket, bool complete);
extern void sc_bucket_free(ScEngine *engine, ScBucket *bucket);
/* All runs of it were read, from the oldest on: groups without rows aren't written any more. */
extern void sc_bucket_leave_out_gone(ScEngine *engine, ScBucket *bucket);
/* An error if the bucket, or none, would take more than the task may have with so many bytes. */
extern void sc_bucket_check_room(const ScBucket *bucket, Size more);
/* The same without an error. */
extern bool sc_bucket_has_room(const ScBucket *bucket, Size more);

/* ---------- groups ---------- */

/* Are all its kept inputs new? */
extern bool sc_group_is_unwritten(ScEngine *engine, ScGroup *group);
/*
 * Appends a group, but for its kept inputs: those follow, in order of their states.  "whole":
 * all of them do, else those that weren't written.
 */
extern void sc_group_encode(ScEngine *engine, ScGroup *group, bool whole, StringInfo head);
extern Size sc_group_inputs(ScEngine *engine, ScGroup *group, int transno, bool whole,
							const char **data);
/* Those of "all" that lie elsewhere, and come before them (exec/tape.h), or NULL. */
extern const struct ScTape *sc_group_tape(ScEngine *engine, ScGroup *group, int transno);
extern void sc_group_written(ScEngine *engine, ScGroup *group);

/*
 * Applies an entry as a format version has it, if no other task has its group (*ours).  Returns by how
 * much the bucket's kept inputs have grown.
 */
extern int64 sc_group_decode(ScEngine *engine, ScBucket *bucket, int version, const char *data, Size len,
							 bool *ours);

/*
 * The same of an entry that isn't all there: its head, without the kept inputs, and then these in pieces, to
 * the end.  They may go to a tape, where memory isn't enough.
 */
extern void sc_group_decode_head(ScEngine *engine, ScBucket *bucket, const char *data, Size len);
extern void sc_pieces_add(ScEngine *engine, ScBucket *bucket, const char *data, Size len);
/* Fails if not all have come. */
extern void sc_pieces_end(ScEngine *engine);
/* Bytes of the head of an entry that begins so; 0: it isn't all there, or such entries must be whole. */
extern Size sc_entry_head(ScEngine *engine, const char *data, Size len);

#endif							/* SC_EXEC_GROUP_H */
