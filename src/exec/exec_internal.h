/*-------------------------------------------------------------------------
 * exec_internal.h
 *	  What the files of exec/ share; others see engine.h, and the state layer group.h.
 *
 * Memory contexts, by lifetime:
 *
 *	  engine		compiled expressions, FmgrInfos, the list of panes
 *	  bucket		groups, hash, by-reference keys and states of one window
 *	  row			arguments and results of transition functions ("tmpcontext")
 *	  output		final functions and projection of one group ("outcontext")
 *	  replay		states rebuilt from kept inputs, one group ("replaycontext")
 *	  window		WHERE and projection of a row in one of many windows ("windowcontext")
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_INTERNAL_H
#define SC_EXEC_INTERNAL_H

#include "base/compat.h"
#include "exec/group.h"
#include "executor/executor.h"
#include "executor/nodeAgg.h"
#include "utils/sortsupport.h"

/* How values of one type are copied, written and read. */
typedef struct ScType
{
	Oid			oid;
	int16		len;			/* as pg_type.typlen */
	bool		byval;
	bool		integer;		/* in entries: a varint */
	bool		record;			/* anonymous row type: written with its columns */
} ScType;

/* An expression of the source part. */
typedef struct ScExpr
{
	int			attno;			/* > 0: this stream column; 0: evaluate "expr" */
	ExprState  *state;
} ScExpr;

typedef enum ScKeyKind
{
	SC_KEY_BYVAL,				/* equal if and only if the Datums are */
	SC_KEY_FIXED,				/* equal if and only if the bytes are */
	SC_KEY_VARLENA,				/* the same, after detoasting */
	SC_KEY_GENERAL				/* ask the type's functions */
} ScKeyKind;

typedef struct ScKeyState
{
	ScKeyKind	kind;
	ScExpr		expr;
	ScType		type;
	Oid			collation;
	FmgrInfo	eq;				/* SC_KEY_GENERAL */
	FmgrInfo	hash;
	bool		hash_extended;	/* to 64 bits, with a seed */
	SortSupportData sort;
} ScKeyState;

typedef enum ScTransKind
{
	SC_TRANS_DATUM,				/* the state is a value of an SQL type, or as INPUTS (keeps) */
	SC_TRANS_SERIAL,			/* internal, with serialfn, deserialfn, combinefn */
	SC_TRANS_INPUTS				/* the inputs are kept, and replayed */
} ScTransKind;

/* A transition state: one per group, read by one or more aggregates. */
typedef struct ScTrans
{
	ScTransKind kind;
	bool		strict;			/* transition function */
	bool		keeps;			/* a new group keeps its inputs; INPUTS: always */
	bool		exact;			/* states of some rows can be combined later: gives the same, and can't fail */
	bool		byval;			/* state type */
	int16		nfixed;			/* arguments of the transition function that are the same for all rows, and come first */
	int16		nargs;			/* inputs of the transition function */
	int16		ninputs;		/* nargs, and columns that only sort; and the event time, of sessions that retract */
	ScExpr	   *inputs;			/* ninputs */
	ExprState  *filter;			/* or NULL */
	FunctionCallInfo fcinfo;	/* of the transition function */
	FmgrInfo	inverse;
	FunctionCallInfo inverse_fcinfo;	/* of its inverse, by which rows are taken back; or NULL */
	AggStatePerTrans pertrans;	/* in AggState's array */
	ScType		type;			/* of the state; SERIAL: bytea, as it is written */
	Datum		init_value;
	bool		init_null;

	/* SERIAL: ready; DATUM: sc_combine_compile makes them ready */
	Oid			combinefn;		/* or InvalidOid */
	Oid			owner;			/* of the aggregate */
	FmgrInfo	combine;
	FunctionCallInfo combine_fcinfo;	/* NULL: not ready */

	/* INPUTS, and DATUM if some group may have kept inputs */
	ScType	   *input_types;	/* ninputs; NULL: no group has */
	int			nbitmap;		/* bytes of an image's bits */
	int			nsigns;			/* 1: the first of them is a sign (minus.c); else 0 */
	int			nsort;			/* 0: in order of arrival */
	bool		distinct;		/* on all sort columns */
	int		   *sort_input;		/* nsort, positions in inputs */
	Oid		   *sort_operator;	/* nsort */
	SortSupportData *sort;		/* nsort */
} ScTrans;

/* An aggregate call: a transition state and what is made of it. */
typedef struct ScAgg
{
	ScTrans    *trans;
	int			transno;
	AggStatePerAgg peragg;
	int			ndirect;
	ExprState **direct;			/* upper part */
} ScAgg;

/* States of a group's transition value (nodeAgg.c: transValueIsNull, noTransValue) */
#define SC_STATE_NULL	0x01
#define SC_STATE_UNSET	0x02	/* the first input becomes the state */
#define SC_STATE_BYTES	0x04	/* being loaded: still the bytea of serialfn */
#define SC_STATE_INPUTS 0x08	/* kept inputs; alone */

#define SC_GROUP_CHANGED	0x01	/* since the last checkpoint, or since it was emitted; or the other one: ScBucket.mark */
#define SC_GROUP_EMITTED	0x02	/* its row is, or may be, in the result */
#define SC_GROUP_LISTED		0x04	/* in its pane's list of changes */
#define SC_GROUP_SEVERAL	0x08	/* the result may have several rows of its key */
#define SC_GROUP_DELTA		0x10	/* states of some rows only: older runs may have it, too */
#define SC_GROUP_OPEN		0x20	/* older runs may have kept inputs before these */
#define SC_GROUP_CHANGED_TOO 0x40

/*
 * A group: a record of engine->record_size bytes, which never moves once its
 * pane has more than one block.
 *
 *	  offset 0				flags
 *	  1						nkeys bytes (1: the key is NULL), ntrans bytes (SC_STATE_*)
 *	  keys_offset			nkeys Datums; NULL ones are 0
 *	  states_offset			ntrans Datums; SC_STATE_INPUTS: ScInputs *, or 0 for none yet
 *	  times_offset			ScTimes (timed.h), if engine->timed
 *	  rows_offset			int64, if engine->retracts: rows that it has.  None: the group isn't there, for the result;
 *							and, of groups that make several rows, int64: how many the result may have of it
 */
struct ScGroup
{
	uint8		flags;
	uint8		nulls[FLEXIBLE_ARRAY_MEMBER];
};

/*
 * Kept inputs of one group: images of rows (a byte per eight columns with NULL
 * bits, then the values as sc_datum_write writes them), in order of arrival.  The first of those that
 * were loaded may be on a tape.  If rows can be retracted, none are, and the lowest bit of all is a sign (minus.c).
 */
typedef struct ScInputs
{
	uint64		rows;			/* with those on the tape, and with those with a minus, */
	uint64		minuses;		/* of which there are so many, or SC_MINUSES_UNKNOWN */
	uint64		rows_written;	/* in the changelog, as all on the tape are */
	struct ScTape *tape;		/* or NULL */
	Size		len;			/* of data, as the next two */
	Size		written;
	Size		size;			/* allocated for data */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} ScInputs;

typedef struct ScCell
{
	uint32		hash;			/* the group's position (keys.c) */
	uint32		number;			/* of the group, plus 1; 0: empty */
} ScCell;

#define SC_CELL_DELETED	UINT32_MAX	/* a cell's number: its group was deleted, others may lie behind it */

typedef struct ScBucket ScBucket;

/* Groups of one pane in memory. */
struct ScBucket
{
	ScPane	   *pane;
	bool		partial;		/* of a spilled pane: what its runs have isn't here; new groups are deltas */
	bool		used;			/* since sc_engine_shrink came by */
	MemoryContext context;
	ExprContext *aggcontext;	/* what aggregates see; its memory is "context" */
	Size		bytes;			/* as last accounted */
	Size		child_bytes;	/* of child contexts (expanded states); lags, */
	Size		nchildren;		/* as their number does, */
	Size		uncounted_rows; /* by what so many rows did, */
	Size		uncounted_bytes;	/* whose values took so many */

	uint32		ngroups;		/* their numbers are below it, */
	uint32		ngone;			/* but for so many that were deleted */
	uint32		nemptied;		/* so often one has lost its last row (gone.c) */
	uint32		block0_size;	/* groups that fit into the first block now */
	char	  **blocks;
	uint32		nblocks;
	uint32		max_blocks;

	ScCell	   *cells;
	uint32		cell_mask;
	int			cell_shift;		/* 32 - log2(number of cells) */
	uint32		grow_at;
	uint32		nused;			/* cells that aren't empty, */
	uint32		ndeleted;		/* those of deleted groups among them */
	uint32		cells_made;		/* how often they were made anew */

	/*
	 * Groups changed since the last checkpoint.  A bucket that was never
	 * written keeps no list: all of them.  They have the flag "mark"; those that have the other one wait for
	 * the snapshot.
	 */
	uint8		mark;			/* SC_GROUP_CHANGED, or SC_GROUP_CHANGED_TOO */
	struct ScBucketSnapshot *snapshot;	/* that isn't written yet, or NULL */
	bool		all_changed;
	uint32	   *changed;
	uint32		nchanged;
	uint32		max_changed;

	int64		inputs_bytes;	/* kept inputs of all groups, without those on tapes */
	struct ScTapeFile *tapes;	/* NULL: there are none */

	/* engine->timed */
	uint32	   *free;			/* numbers to be used again */
	uint32		nfree;
	uint32		max_free;
	struct ScDue *due;			/* which groups are due when (due.c) */
	struct ScSessions *sessions;	/* those of each key (sessions.c), or NULL */
	uint64		nlost;			/* states that couldn't be freed */
};

/* One window of one query. */
struct ScPane
{
	int64		key;			/* window/assigner.h */
	ScWindow	window;
	ScBucket   *bucket;			/* all its groups; NULL: the pane is spilled */

	/* spilled: a bucket for each value of the positions' upper bits; NULL: not in memory */
	ScBucket  **directory;
	int			depth;			/* so many bits */

	bool		leaving;		/* see leaving.c */

	/*
	 * emit close: its window's rows were emitted, as the watermark has passed
	 * its end; it is open for rows within the allowed lateness only.
	 */
	bool		emitted;
	bool		whole;			/* what is written next replaces all older chunks */

	/* kept for the state layer */
	int64		live_bytes;		/* of its chunks; 0: none was ever written */
	ScSweep		sweep;
	int64		entry_bytes;	/* average of an entry without kept inputs */
	int64		stored_groups;	/* spilled: groups in its runs, at most */
	struct ScRuns *runs;		/* of a spilled pane */
};

/* Result rows being emitted; "items" in the engine's context. */
typedef struct ScEmission
{
	ScPane	   *pane;			/* NULL: none is */
	ScBucket   *bucket;			/* of it; NULL: between two of them */
	bool		all;			/* all its groups, not only the changed ones, */
	bool		due;			/* or those that are due (timed.c) */
	bool		loaded;			/* the bucket is here for its emission only */
	uint32		next;			/* bucket of the directory */
	Datum		window_start;	/* as the group slot has it */
	struct ScEmitOrder *order;	/* of the bucket's groups */
	struct ScEmitItem *items;	/* a portion of them, in key order */
	uint32		n;
	uint32		at;				/* the group being emitted */
} ScEmission;

typedef struct ScUndo ScUndo;
typedef struct ScRunning ScRunning;
typedef struct ScSourceRun ScSourceRun;
typedef struct ScRetraction ScRetraction;
typedef struct ScUpperRun ScUpperRun;

/* How far the row that is being retracted has come: whether an error of it has changed anything. */
typedef enum ScRetractPhase
{
	SC_RETRACT_NOTHING,			/* none is */
	SC_RETRACT_JUDGING,			/* its WHERE, window, keys and what aggregates take of it: it may have failed as it came */
	SC_RETRACT_CHANGING			/* its groups */
} ScRetractPhase;

/* How rows of other tasks are told (route.c). */
typedef struct ScRoute
{
	bool		keys_first;		/* an ordinary row's keys decide before its WHERE */
	bool		by_value;		/* keys are plain columns, and SC_KEY_BYVAL */
	int			last_attno;		/* that event time and keys need */
	TupleDesc	desc;			/* what the rest is about; NULL: nothing yet */
	bool		fixed;			/* they lie at fixed places in a row without NULLs: */
	int			time_offset;	/* -1: there is no event time */
	int		   *key_offsets;
} ScRoute;

/* engine->time_attno: event time is the commit's, engine->commit_time */
#define SC_TIME_OF_COMMIT	(-1)

/* Kept inputs of an entry that come in pieces (entry_inputs.c) */
typedef struct ScPieces
{
	ScGroup    *group;			/* NULL: nobody's of ours */
	int			state;			/* whose come next */
	uint64	   *rows;			/* ntrans: of these inputs, until the first piece; NULL: none ever came */
	uint64	   *bytes;			/* ntrans: still to come */
} ScPieces;

struct ScEngine
{
	MemoryContext context;
	const ScDefinition *def;
	TupleDesc	stream_desc;
	ScEngineOptions options;
	ScEngineCounters counters;
	bool		running;		/* inside a call that can fail; stays set by errors */
	bool		all_key_groups; /* the whole range is ours */
	bool		is_first;		/* the first key group is: ours is what belongs to no group */
	ScRoute		route;

	/* source part */
	int			last_attno;
	int			time_attno;		/* 0: there are no windows; or SC_TIME_OF_COMMIT */
	int64		commit_time;	/* processing_time: the event time of the transaction's rows */
	ScSourceRun *source;		/* what the stream is joined with; NULL: nothing.  Then the next are over the stream's row, and
								 * all else of the source part is over the joined row, whose type stream_desc is */
	ExprState  *quals;			/* WHERE; NULL: every row */
	ExprState  *projected_quals;	/* stateless: of what is projected */
	ExprState  *column_quals;	/* what of it needs no window */
	bool		where_can_fail; /* it may raise an error */
	Bitmapset  *where_attnos;	/* the stream attributes that it reads; 0: the whole row */
	Bitmapset  *group_attnos;	/* those that keys and aggregates read; without groups, the target list */
	ExprContext *tmpcontext;
	MemoryContext groupcontext; /* for the state layer: bytes of one group */
	int			rows_since_reset;
	TupleTableSlot *window_slot;

	int			nkeys;
	ScKeyState *keys;
	bool		keys_byval;		/* all are SC_KEY_BYVAL */
	bool		keys_general;	/* some are SC_KEY_GENERAL */
	bool		keys_can_change;	/* two that differ can become equal */
	bool		keys_can_fail;	/* their expressions may raise an error */
	bool		loading;		/* keys are told apart by their bytes */
	bool		copying;		/* a group is made of another one in memory: its inputs stay there */
	bool		in_load;		/* a bucket is being loaded, written or closed: an error in it is nobody's row's */
	bool		partial_states; /* all states combine exactly, or are kept inputs */
	Datum	   *key_values;		/* of the current row */
	uint8	   *key_nulls;

	/* several grouping sets (grouping_sets.c) */
	int			nsets;			/* else 0 */
	bool		has_empty_set;	/* one without keys and windows: its group is always there */
	Datum	   *row_values;		/* keys of the current row, */
	uint8	   *row_nulls;		/* whatever set its groups are of */

	int			ntrans;
	ScTrans    *trans;
	int			naggs;
	ScAgg	   *aggs;
	AggState   *aggstate;
	StringInfoData scratch;

	/* upper part */
	ExprContext *outcontext;
	ExprContext *replaycontext;
	MemoryContext bestcontext;	/* what best_rows.c has made ready since an error; NULL: none yet */
	bool		has_inputs;		/* some state is kept inputs, or may be */
	ScPieces	pieces;
	TupleTableSlot *group_slot;
	TupleTableSlot *best_slot;	/* a row of a group that makes several, or NULL */
	TupleTableSlot *result_slot;
	ExprContext *windowcontext;	/* stateless.c, of windows that share panes: a row in one of them */
	ProjectionInfo *deletion;	/* stateless.c, if retracts: the key of the result's row, all else NULL */
	TupleTableSlot *emitted_window; /* of which window_value is computed */
	ExprState  *window_value;	/* NULL: window_start is its own */
	ExprState **result_key;		/* of each of def->result_key */
	ExprState  *having;
	ProjectionInfo *projection;
	TupleDesc	result_desc;

	ScUpperRun *upper;			/* what is above the groups; NULL: nothing but target list and HAVING */

	ScEmission	emission;
	bool		closing;		/* windows are to be closed: an error came between */
	ScUndo	   *undo;			/* NULL: errors spoil the engine */
	bool		retracts;		/* groups count their rows */
	ScRetraction *retraction;	/* retract.c, if retracts */
	ScRetractPhase retract_phase;
	bool		broken;			/* the state isn't what the rows make it: whatever an error looks like */
	TupleTableSlot *failed_slot;	/* see sc_engine_failed_group; NULL: not made yet */

	/* layout of a group */
	Size		keys_offset;
	Size		states_offset;
	Size		times_offset;
	Size		rows_offset;
	Size		record_size;
	int			block_shift;	/* log2 of the groups in a block */

	/*
	 * Windows of several panes (shared.c): those that end at or before emitted_until were emitted (emit close), and those
	 * that end at or before over_until are past their lateness.
	 */
	bool		shared;
	int64		emitted_until;
	int64		over_until;
	bool		some_over;		/* of the windows of the pane that rows are in; */
	bool		is_merged;		/* that pane is part of what is kept */
	bool		is_special;		/* one of the two */
	ScRunning  *kept;		/* what is kept of windows (running.c), or NULL */

	/* groups that come and go with event time (timed.c), in one pane of all of time */
	bool		timed;
	bool		sessions;		/* each is a session; else options.ttl after its last row it is deleted */
	bool		rows_have_ttl;	/* rows of these can be taken back, each for so long (timed.c) */
	int64		session_id;		/* of the session that sc_bucket_lookup is to find or make */
	int64		row_time;		/* event time of the row at hand */
	int64		greatest_last;	/* no session has a row behind it, */
	int64		greatest_closed;	/* and no closed one ends behind that */
	int			rows_transno;	/* of sessions, if retracts: the state that has the times of all rows */
	uint32	   *loose;			/* and those that lost rows in this transaction (session_changes.c) */
	uint32		nloose;
	uint32		max_loose;
	uint32	   *due;			/* the groups that are due: to be emitted, or being emitted */
	uint32		ndue;
	uint32		max_due;
	uint32		new_number;		/* of the group that sc_bucket_lookup has made last */

	/* event time */
	ScEventTime time;
	int64		watermark;		/* by time.max_event_time and the delay */
	ScPaneSpan	span;			/* of the pane that rows are in */
	ScWindow	window;			/* and its window */
	ScRangeSet	changed_windows;	/* sc_engine_changed_windows(), in "context" */
	ScPane	   *current;		/* that pane, or NULL: not open */
	ScBucket   *at;				/* the bucket that rows go into, whose growth isn't accounted yet, or NULL */

	List	   *leaving;		/* of ScPane *, in the order in which their windows closed (leaving.c) */
	int			left;			/* so many of them are emitted, and freed */
	ScPane	  **panes;			/* by key, ascending */
	int			npanes;
	int			max_panes;
	Size		buckets_bytes;
	Size		memory_told;	/* sc_engine_memory() as memory_grew knows it */
	int64		ngroups;		/* in memory */
	int64		stored_groups;	/* in the runs of spilled panes, at most */

	/* kept for the state layer */
	int64	   *closed;			/* panes closed that have chunks */
	int			nclosed;
	int			max_closed;
	int64		live_bytes;
	uint32		signatures[SC_FORMAT_VERSION + 1];	/* of window, keys and states, in chunks
													 * of each format version */
	uint32		key_signature;	/* of what gives a group its position */
	ScPortable	portable;
};

#define sc_group_keys(engine, group) \
	((Datum *) ((char *) (group) + (engine)->keys_offset))
#define sc_group_states(engine, group) \
	((Datum *) ((char *) (group) + (engine)->states_offset))
#define sc_group_state_flags(engine, group) \
	((group)->nulls + (engine)->nkeys)
#define sc_group_rows(engine, group) \
	((int64 *) ((char *) (group) + (engine)->rows_offset))

#define sc_group_shown(engine, group) \
	(sc_group_rows(engine, group) + 1)

/* Of a group that is new, if rows can be taken back. */
static inline void
sc_group_clear_rows(const ScEngine *engine, ScGroup *group)
{
	if (!engine->retracts)
		return;
	*sc_group_rows(engine, group) = 0;
	if (engine->def->best != NULL)
		*sc_group_shown(engine, group) = 0;
}

static inline ScGroup *
sc_bucket_group(const ScEngine *engine, const ScBucket *bucket, uint32 number)
{
	uint32		mask = (1U << engine->block_shift) - 1;

	return (ScGroup *) (bucket->blocks[number >> engine->block_shift] +
						(number & mask) * engine->record_size);
}

/* The key group of a group with this hash. */
static inline int
sc_key_group(uint32 hash)
{
	return hash >> (32 - SC_KEY_GROUP_BITS);
}

/* Is a group with this hash in the task's range of key groups? */
static inline bool
sc_is_ours(const ScEngine *engine, uint32 hash)
{
	int			key_group = sc_key_group(hash);

	return engine->all_key_groups ||
		(key_group >= engine->options.first_key_group &&
		 key_group <= engine->options.last_key_group);
}

/* datum.c: copying, writing and reading values */
extern void sc_type_init(ScType *type, Oid oid);
extern Datum sc_datum_keep(Datum value, const ScType *type);
extern void sc_write_varint(StringInfo buf, uint64 value);
extern void sc_datum_write(StringInfo buf, Datum value, const ScType *type);
extern void sc_datum_pack(StringInfo buf, Datum value, const ScType *type);

typedef struct ScReader
{
	const char *at;
	const char *end;
} ScReader;

/* Pass over a value of sc_datum_read(), or "packed": of sc_datum_unpack(); false: not all of it is there. */
extern bool sc_datum_skip(ScReader *reader, const ScType *type, bool packed);
extern bool sc_skip_bytes(ScReader *reader, Size len);
extern bool sc_skip_varint(ScReader *reader, uint64 *value);

pg_noreturn extern void sc_reader_fail(void);
extern const char *sc_read_bytes(ScReader *reader, Size len);
extern uint64 sc_read_varint(ScReader *reader);
extern Datum sc_datum_read(ScReader *reader, const ScType *type);
extern Datum sc_datum_unpack(ScReader *reader, const ScType *type);

/* expr.c: compiling the source part's expressions */
extern void sc_expr_compile(ScEngine *engine, ScExpr *expr, Expr *node);

/* Value of an expression; CurrentMemoryContext must be the row's. */
static inline Datum
sc_expr_value(const ScExpr *expr, ExprContext *econtext, bool *isnull)
{
	if (likely(expr->attno > 0))
	{
		TupleTableSlot *slot = econtext->ecxt_scantuple;

		*isnull = slot->tts_isnull[expr->attno - 1];
		return slot->tts_values[expr->attno - 1];
	}
	return ExecEvalExpr(expr->state, econtext, isnull);
}

/* where.c */
extern void sc_where_compile(ScEngine *engine);
/* "quals" of the current row, which is dropped if it passes; an error counts as passing. */
extern bool sc_where_of_dropped(ScEngine *engine, ExprState *quals, bool cut);
/* "quals" of the current row, which was cut: reads what it reads, and no more. */
extern bool sc_where_of_cut(ScEngine *engine, ExprState *quals);
/* Is a row that is dropped ours to count?  An error in its keys is none of the row's. */
extern bool sc_owns_dropped(ScEngine *engine, bool cut);
/* Evaluates the keys of such a row; false: that raised an error, which is none. */
extern bool sc_keys_of_dropped(ScEngine *engine, bool cut, uint32 *hash);
/* An error where one of these attributes (0: all) of the current row was left out. */
extern void sc_check_cut_row(ScEngine *engine, Bitmapset *attnos);

/* route.c */
extern void sc_route_compile(ScEngine *engine);

/* emit.c, of what the group slot shows: its row or its deletion (see there), and what is to be deleted */
extern bool sc_emit_shown(ScEngine *engine, const ScGroup *group, bool first);
extern TupleTableSlot *sc_emit_deletion_row(ScEngine *engine);
/* What can fail of a row comes before others are emitted with it. */
static inline void
sc_emit_check_row(ScEngine *engine, TupleTableSlot *row)
{
	engine->options.check_row(engine->options.emit_arg, row);
}

/* emit_best.c: the rows of a group that makes several, of the aggregate's result; and the deletion of those from a number on */
extern bool sc_best_rows_emit(ScEngine *engine, ScGroup *group, Datum value, bool first);
extern void sc_best_rows_delete(ScEngine *engine, ScGroup *group, int64 first);

/* stateless.c: in place of keys, groups and emission */
extern void sc_stateless_compile(ScEngine *engine);
/* "retract": the row isn't there any more. */
extern void sc_stateless_row(ScEngine *engine, bool cut, bool retract);
extern void sc_stateless_windows(ScEngine *engine, bool cut, bool retract);
extern void sc_stateless_truncate(ScEngine *engine);
/* A joined row: is checked, or emitted. */
extern void sc_stateless_joined(ScEngine *engine, bool emit);

/* What the batch knows of a row of the stream. */
typedef enum ScVerdict
{
	SC_ROW_EXCLUDED,			/* by WHERE */
	SC_ROW_DROPPED,				/* WHERE lets it pass, or fails; it has no event time, no window, or is late */
	SC_ROW_JOINED				/* is joined, or was to be */
} ScVerdict;

typedef struct ScBatchRow
{
	ScVerdict	verdict;
	bool		timeless;
	int64		time;			/* event time, if the query has windows or a ttl */
	ErrorData  *error;			/* of WHERE, or of joining it; NULL: none */
} ScBatchRow;

/* source.c: the batch, and the plan that joins it */
extern void sc_source_compile(ScEngine *engine, TupleDesc stream_desc);
extern const ScBatchRow *sc_source_row(const ScEngine *engine, int number);
extern int64 sc_source_time(const ScEngine *engine);
/* The joined rows of a row: the first again, whatever was read of them; the next one, or NULL. */
extern void sc_source_seek(ScEngine *engine, int number);
extern TupleTableSlot *sc_source_next(ScEngine *engine);
/* What a joined row must pass. */
extern ExprState *sc_source_quals(const ScEngine *engine);
extern void sc_source_free(ScEngine *engine);

/* keys.c */
extern void sc_keys_compile(ScEngine *engine);
extern uint32 sc_keys_load(ScEngine *engine);
extern uint32 sc_keys_hash(ScEngine *engine);
extern uint32 sc_keys_hash_of(ScEngine *engine, const ScGroup *group);
extern uint32 sc_keys_signature(const ScEngine *engine);
extern bool sc_keys_equal_general(ScEngine *engine, const ScGroup *group);

/* Whether the group's keys are those of the row at hand (engine->key_values). */
static inline bool
sc_keys_equal(ScEngine *engine, const ScGroup *group)
{
	const Datum *keys;

	if (!engine->keys_byval)
		return sc_keys_equal_general(engine, group);
	keys = sc_group_keys(engine, group);
	for (int i = 0; i < engine->nkeys; i++)
	{
		if (keys[i] != engine->key_values[i] || group->nulls[i] != engine->key_nulls[i])
			return false;
	}
	return true;
}

/* aggregate.c, transition.c */
extern void sc_aggregates_compile(ScEngine *engine);
extern void sc_combine_compile(ScEngine *engine, ScTrans *trans);
extern void sc_state_init(ScTrans *trans, MemoryContext context, Datum *state,
						  uint8 *flags);
extern void sc_transitions_advance(ScEngine *engine, ScBucket *bucket, ScGroup *group);
extern void sc_transition_call(ScEngine *engine, ScTrans *trans, Datum *state,
							   uint8 *flags);
extern void sc_transition_inverse(ScEngine *engine, ScTrans *trans, const NullableDatum *args, Datum *state,
								  uint8 *flags);
extern Datum sc_aggregate_result(ScEngine *engine, ScAgg *agg, ScGroup *group,
								 bool *isnull);
extern Datum sc_state_serialize(ScEngine *engine, ScTrans *trans, Datum state,
								uint8 flags, bool *isnull);
extern void sc_state_deserialize(ScEngine *engine, ScTrans *trans, Datum bytes,
								 Datum *state, uint8 *flags);
extern void sc_state_combine_bytes(ScEngine *engine, ScTrans *trans, Datum bytes, Datum *state,
								   uint8 *flags);
extern void sc_state_combine(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags,
							 Datum from, uint8 from_flags);

/* best_rows.c: groups that make several rows; "state" is the value of their only aggregate */
struct ScBestState;
extern TupleDesc sc_best_rows_desc(const ScBestRows *best);
extern void sc_best_rows_sign(const ScBestRows *best, StringInfo buf);
extern const struct ScBestState *sc_best_rows_open(Datum state, uint32 *count);
/* The group slot shows a row of the group, and its number. */
extern void sc_best_rows_show(ScEngine *engine, const struct ScBestState *state, uint32 i);

/* exact.c */
extern bool sc_combines_exactly(Oid aggregate, Oid transfn, Oid combinefn);

/* retractable.c: how a row is taken back from a state */
typedef enum ScRetractMethod
{
	SC_RETRACT_INPUTS,			/* its inputs are kept: what is taken back is one of them, with a minus */
	SC_RETRACT_INVERSE,			/* by the inverse of its transition function */
	SC_RETRACT_MOVING			/* the same, with the functions and the state that it has as a moving aggregate */
} ScRetractMethod;

extern ScRetractMethod sc_retract_method(const Aggref *aggref, Oid transfn, Oid *inverse);

/* retract.c */
extern void sc_retract_compile(ScEngine *engine);
/* portable.c; when keys and states are compiled */
extern void sc_portable_compile(ScEngine *engine);
extern void sc_retract_begin_row(ScEngine *engine);
/* The row at hand, which passes WHERE and whose keys are loaded, is taken back from its groups. */
extern void sc_retract_row(ScEngine *engine, uint32 hash);
extern void sc_retract_end_row(ScEngine *engine);
/* It has failed while it was judged. */
extern void sc_retract_skip_row(ScEngine *engine);
pg_noreturn extern void sc_retract_fail(ScEngine *engine);

/* gone.c: groups without rows */
/* Is it there even without rows? */
extern bool sc_group_is_permanent(const ScEngine *engine, const ScGroup *group);
/* Has it no rows, so that it is none for the result? */
extern bool sc_group_has_gone(const ScEngine *engine, const ScGroup *group);
/* The group has no rows, and gets one: its keys are that one's. */
extern void sc_group_returns(ScEngine *engine, ScBucket *bucket, ScGroup *group);

extern bool sc_group_is_nothing(const ScEngine *engine, const ScGroup *group);
extern void sc_gone_reclaim(ScEngine *engine);
extern void sc_pane_begin_anew(ScEngine *engine, int i);

/* minus.c */
#define SC_MINUSES_UNKNOWN	PG_UINT64_MAX
#define SC_IMAGE_MINUS		0x01	/* of an image's first byte */
extern void sc_inputs_append_copy(ScBucket *bucket, Datum *state, const ScInputs *inputs);
extern void sc_inputs_append_unknown(ScBucket *bucket, Datum *state, uint64 rows, const char *data, Size len);
extern void sc_inputs_append_minus(ScEngine *engine, ScBucket *bucket, Datum *state, const char *data, Size len);
/* The next image of kept inputs, and its length. */
extern Size sc_image_next(ScReader *reader, const ScTrans *trans, const char **data);
extern ScInputs *sc_inputs_left(ScEngine *engine, const ScTrans *trans, ScInputs *inputs, MemoryContext context);
extern bool sc_group_wants_compaction(ScEngine *engine, ScGroup *group);	/* the current context is a short one */
extern void sc_group_compact_inputs(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number);

/* inputs.c */
extern void sc_inputs_compile(ScEngine *engine, ScTrans *trans);
/* Appends the current row's image; false: the aggregate passes it over. */
extern bool sc_inputs_image(ScEngine *engine, ScTrans *trans, StringInfo buf);
extern void sc_inputs_keep(ScEngine *engine, ScTrans *trans, ScBucket *bucket,
						   Datum *state);
extern void sc_inputs_append(ScBucket *bucket, Datum *state, uint64 rows,
							 const char *data, Size len);
/* The same of those that were written; if the bucket has many they may go to a tape.  "data" may end amid a row. */
extern void sc_inputs_load(ScBucket *bucket, Datum *state, uint64 rows, const char *data, Size len);
extern void sc_inputs_empty(ScBucket *bucket, Datum state);
extern void sc_inputs_free(ScBucket *bucket, Datum state);

/* replay.c */
extern void sc_inputs_replay(ScEngine *engine, ScTrans *trans, ScInputs *inputs,
							 Datum *state, uint8 *flags);
extern void sc_inputs_advance(ScEngine *engine, ScTrans *trans, ScInputs *inputs,
							  Datum *state, uint8 *flags);

/*
 * entry_inputs.c: how many an entry has of each of the group's states; they follow (sc_pieces_add() in group.h), and are
 * added to those that the group has, or replace them ("whole").
 */
extern void sc_pieces_begin(ScEngine *engine, ScBucket *bucket, ScGroup *group, ScReader *reader, bool whole);

/* bucket.c */
extern ScGroup *sc_bucket_lookup(ScEngine *engine, ScBucket *bucket, uint32 hash,
								 bool *isnew);
/* The same; all states of a new group are SC_STATE_NULL | SC_STATE_UNSET, whatever the initial conditions are. */
extern ScGroup *sc_bucket_lookup_bare(ScEngine *engine, ScBucket *bucket, uint32 hash, bool *isnew);
/* The group of the keys in engine->key_values; NULL: there is none. */
extern ScGroup *sc_bucket_find(ScEngine *engine, ScBucket *bucket, uint32 hash);
extern bool sc_bucket_find_number(ScEngine *engine, ScBucket *bucket, uint32 hash, uint32 *number);
extern ScGroup *sc_bucket_append(ScEngine *engine, ScBucket *bucket, uint32 *number);
extern void sc_bucket_regroup(ScEngine *engine, ScBucket *bucket);
extern void sc_bucket_remove_last(ScEngine *engine, ScBucket *bucket, uint32 hash);
extern void sc_bucket_place_again(ScEngine *engine, ScBucket *bucket);
extern void sc_group_changed(ScEngine *engine, ScBucket *bucket, ScGroup *group,
							 uint32 number);
extern void sc_bucket_unlist_changed(ScBucket *bucket, uint32 number);
extern void sc_bucket_list_changed(ScBucket *bucket, ScGroup *group, uint32 number);
extern uint32 sc_bucket_nchanged(const ScBucket *bucket);
extern uint32 sc_bucket_changed(const ScBucket *bucket, uint32 i);
extern void sc_bucket_unchanged(ScEngine *engine, ScBucket *bucket);
extern void sc_bucket_account(ScEngine *engine, ScBucket *bucket);
extern void sc_bucket_account_rows(ScEngine *engine, ScBucket *bucket, int rows, Size bytes);
extern void sc_bucket_account_children(ScEngine *engine, ScBucket *bucket);

/* snapshot.c: the group is about to change for the first time since the bucket's snapshot began */
extern void sc_bucket_snapshot_touch(ScBucketSnapshot *snapshot, ScGroup *group, uint32 number);
/* Its kept inputs are about to go. */
extern void sc_bucket_snapshot_detach(ScBucketSnapshot *snapshot, ScGroup *group, uint32 number);

/* A pane whose rows aren't all there is to it any more: its snapshot is written first. */
static inline void
sc_pane_settle(const ScEngine *engine, const ScPane *pane)
{
	if (pane->bucket != NULL && pane->bucket->snapshot != NULL)
		engine->options.settle(engine->options.settle_arg);
}

/* spilled.c: panes whose buckets come and go */
extern ScBucket *sc_spilled_bucket(ScEngine *engine, ScPane *pane, uint32 hash);
extern ScBucket *sc_spilled_take_bucket(ScEngine *engine, ScPane *pane, uint32 number, bool *loaded);
extern void sc_spilled_close(ScEngine *engine, ScPane *pane);
extern void sc_pane_make_directory(ScEngine *engine, ScPane *pane, int depth);

static inline uint32
sc_pane_nbuckets(const ScPane *pane)
{
	return (uint32) 1 << pane->depth;
}

/* shared.c: windows of several panes */
extern bool sc_shared_is_over(const ScEngine *engine, const ScWindow *window);
extern bool sc_shared_some_over(const ScEngine *engine, int64 pane_key);
extern bool sc_shared_next_end(const ScEngine *engine, int64 after, ScWindow *window);
extern void sc_shared_emit_changes(ScEngine *engine);
extern void sc_shared_close(ScEngine *engine, int64 ordinary);
extern void sc_shared_go_back(ScEngine *engine, int64 watermark, int64 ordinary);
extern void sc_shared_set_time(ScEngine *engine);
extern void sc_shared_ahead(const ScEngine *engine, ScWindowRanges *ahead);

/* pane.c */
extern int	sc_pane_position(const ScEngine *engine, int64 key);
extern ScPane *sc_pane_find(ScEngine *engine, int64 key);
extern ScPane *sc_pane_open(ScEngine *engine, int64 key);
extern ScPane *sc_pane_open_empty(ScEngine *engine, int64 key);
extern void sc_panes_close(ScEngine *engine, int first, int n);
extern void sc_pane_free(ScEngine *engine, ScPane *pane);
extern void sc_panes_remember_closed(ScEngine *engine, int64 key);
extern void sc_panes_shutdown(ScEngine *engine);

/* event_time.c: how many panes were emitted as their windows closed: the head of the array */
extern int	sc_engine_emitted_panes(const ScEngine *engine);
/* A window that is over stays so, though no pane of it may have been open. */
extern void sc_window_is_over_for_good(ScEngine *engine, const ScWindow *window);

/* changed_windows.c: a window that is over isn't what the table has any more; all that are over, or end by then, aren't */
extern void sc_window_has_changed(ScEngine *engine, const ScWindow *window);
extern void sc_windows_have_changed(ScEngine *engine, int64 start, int64 end);
extern void sc_windows_over_have_changed(ScEngine *engine);
extern void sc_windows_before_have_changed(ScEngine *engine, int64 end);
/* After sc_engine_set_time, of the engine that this one takes the place of. */
extern void sc_take_changed_windows(ScEngine *engine, const ScEngine *from);

/* engine.c: what joined.c does with rows as engine.c does with others */
extern bool sc_enter_pane(ScEngine *engine, int64 ts);
pg_noreturn extern void sc_refuse_window(void);
/* Is the row at hand late for its window, or for all of them?  Counted, and handed on. */
extern bool sc_drop_if_late(ScEngine *engine, bool cut);
/* The row at hand, in its pane, to its group or groups. */
extern void sc_add_to_groups(ScEngine *engine);
/* The row at hand is through: its values may go, and the state may have grown. */
extern void sc_engine_end_row(ScEngine *engine);
/* The groups of the joined row are there; those that weren't are the first to go if it is taken back. */
extern void sc_open_groups(ScEngine *engine);

/* engine.c; and the window slot shows the current window again */
extern TupleTableSlot *sc_make_window_slot(const ScDefinition *def);
extern void sc_engine_restore_window(ScEngine *engine);

/* undo.c */
extern void sc_undo_compile(ScEngine *engine);
/* What it keeps of a row for each group that it makes and changes, copies of states aside. */
extern Size sc_undo_bytes(const ScEngine *engine);
extern void sc_undo_begin_row(ScEngine *engine);
extern void sc_undo_save(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 hash,
						 bool isnew);
extern void sc_undo_end_row(ScEngine *engine);
/* The row's group, which may have moved, is combined with a copy of this number; UINT32_MAX: it is through. */
extern void sc_undo_note_copy(ScEngine *engine, ScGroup *group, uint32 copied);

/* grouping_sets.c: the current row, whose keys are loaded, to a group of each set */
extern void sc_sets_compile(ScEngine *engine);
/* The groups that aren't there yet are made. */
extern void sc_sets_open(ScEngine *engine);
extern void sc_sets_add(ScEngine *engine, void (*add) (ScEngine *engine, uint32 hash));
/* The same, where its groups must be there. */
extern void sc_sets_retract(ScEngine *engine, void (*retract) (ScEngine *engine, uint32 hash));
/* The groups of sets without keys, in the current pane. */
extern void sc_sets_make_empty(ScEngine *engine);
extern void sc_sets_sign(const ScDefinition *def, StringInfo buf);

/* emit.c */
extern void sc_emit_skip_group(ScEngine *engine);
extern void sc_emit_compile(ScEngine *engine);
extern void sc_emit_pane(ScEngine *engine, ScPane *pane);
extern bool sc_emit_pane_some(ScEngine *engine, ScPane *pane, ScPace *pace);
extern void sc_emit_changes(ScEngine *engine, ScPane *pane);
/* All groups of a pane: a new one, or that at whose group an error came. */
extern void sc_emit_view(ScEngine *engine, ScPane *view);
/* What the result has of a pane is deleted, all of it. */
extern void sc_emit_nothing(ScEngine *engine, ScPane *pane);

/*
 * upper.c: takes the row of a group of the pane that is emitted, and when its groups are through emits what is made of
 * them.  "first": nothing was emitted of it before.
 */
extern void sc_upper_compile(ScEngine *engine);
extern void sc_upper_add(ScEngine *engine, TupleTableSlot *row);
extern void sc_upper_emit(ScEngine *engine, bool first);
/* Nothing is left of it but memory. */
extern void sc_upper_end(ScEngine *engine);

/* leaving.c */
extern bool sc_pane_can_leave(const ScEngine *engine, const ScPane *pane);
extern void sc_pane_leave(ScEngine *engine, ScPane *pane);

/* encode.c, decode.c: a group as an entry of the changelog (group.h) */
extern uint32 sc_signature(const ScEngine *engine, int version);
extern ScGroup *sc_group_take(ScEngine *engine, ScBucket *bucket, ScEngine *from, ScGroup *group);
extern void sc_bucket_make_states(ScEngine *engine, ScBucket *bucket);


/* combine.c */
extern void sc_state_advance_by_inputs(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags, Datum inputs);
extern void sc_states_combine(ScEngine *engine, ScBucket *bucket, ScGroup *group,
							  ScGroup *other);
extern void sc_group_combine(ScEngine *engine, ScBucket *bucket, ScGroup *group,
							 ScGroup *other);

#endif							/* SC_EXEC_INTERNAL_H */
