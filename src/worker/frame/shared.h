/*-------------------------------------------------------------------------
 * shared.h
 *	  What the processes of all pipelines share, and what sessions see of them.
 *
 * One fixed array of pipelines in main shared memory.  An entry is made by the
 * launcher or by a session's request (sc_shared->lock, exclusively), and stays
 * while its database has the pipeline.
 *
 * Locks, in the order in which they may be taken: sc_shared->lock, then an entry's
 * mutex (assignments only).  Fields say below who writes them; without a word,
 * the mutex guards them.  Atomics need no lock.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_SHARED_H
#define SC_WORKER_FRAME_SHARED_H

#include "access/xlogdefs.h"
#include "base/clock.h"
#include "datatype/timestamp.h"
#include "exec/engine.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "wire/batch.h"
#include "worker/frame/own_rows.h"
#include "worker/frame/strikes.h"

#define SC_MAX_TASKS 16

typedef enum ScStatus
{
	SC_STATUS_STARTING,
	SC_STATUS_RUNNING,
	SC_STATUS_RESTARTING,		/* an attempt failed; the next begins at restart_at */
	SC_STATUS_STOPPED,			/* stop_pipeline() */
	SC_STATUS_IDLE,				/* nothing to do: no stream, no query */
	SC_STATUS_LOST,				/* rows may be missing: somebody must decide */
	SC_STATUS_GONE				/* the pipeline or the extension was dropped */
} ScStatus;

/* What the reader does for queries that are new, before it decodes. */
typedef enum ScHistoryPhase
{
	SC_HISTORY_NONE,			/* nothing (any more) */
	SC_HISTORY_SLOT,			/* the coordinator: makes the pipeline's slot */
	SC_HISTORY_WAITING,			/* for the tables' locks, and commits that nobody sees yet */
	SC_HISTORY_ORDERING,		/* the first pass: event times */
	SC_HISTORY_SCANNING			/* the rows */
} ScHistoryPhase;

/* Queries at most of which it is known whether the history is theirs */
#define SC_HISTORY_QUERIES 32

/*
 * The history being read: written by the reader (at first by the coordinator).  By "phase", which is written whole, coordinators
 * decide what they may do: its own, and those that would move a query here.  Torn reads of the rest are harmless.
 */
typedef struct ScHistoryShared
{
	/* guarded by the mutex; the coordinator's: for the reader, and the views */
	int			nqueries;
	int64		queries[SC_HISTORY_QUERIES];	/* whose history it is; 0: no longer */
	Oid			streams[SC_HISTORY_QUERIES];	/* of each of them */

	ScHistoryPhase phase;
	Oid			relid;			/* the stream */
	bool		two_passes;		/* ORDERING comes before SCANNING */
	TimestampTz began;
	int64		rows;			/* of the pass */
	int64		blocks;			/* of its tables, when it began */
	int64		blocks_done;
} ScHistoryShared;

/* A worker's place: written by the worker itself when it comes and goes. */
typedef struct ScWorkerPlace
{
	pid_t		pid;			/* 0: not there */
	Latch	   *latch;
} ScWorkerPlace;

typedef struct ScTaskShared
{
	ScWorkerPlace place;
	/* written by the task only, torn reads are harmless: for the views */
	int64		rows_in;		/* since the attempt began */
	int64		late_rows;
	TimestampTz watermark;		/* least of its queries'; DT_NOBEGIN: none */
	XLogRecPtr	lsn;			/* last transaction end processed */
	TimestampTz commit_time;	/* of that transaction; 0: none */
	ScMoment	behind_since;	/* there is something in its queue; 0: nothing */
	int64		groups;
	int64		state_bytes;
	int64		outbox_bytes;
	int64		busy_us;
	int64		backpressured_us;	/* not reading because the outbox was full */
	ScSpillCounters spill;		/* since the attempt began */
} ScTaskShared;

/* Queries at most that can be on their way to a pipeline */
#define SC_MAX_INCOMING 8

/* A query that is to move here (worker/coordinator/moving.h). */
typedef struct ScIncoming
{
	int64		query_id;		/* 0: no more of them */
	XLogRecPtr	held;			/* the slot isn't past it, and won't be as long as the query is to come */
} ScIncoming;

typedef struct ScPipelineShared
{
	/* guarded by sc_shared->lock */
	bool		in_use;
	Oid			database;
	int32		pipeline_id;

	slock_t		mutex;

	ScStatus	status;
	char		message[256];	/* why, in words; "" where there is nothing to say */
	char		hint[256];
	TimestampTz status_since;
	int64		attempt;		/* of the workers that run; written by the coordinator */
	int			failures;		/* attempts that failed since the last checkpoint */
	bool		failed_by_error;	/* the last one by an error, not by a signal */
	ScMoment	restart_at;		/* launcher: not before */

	bool		requested;		/* launcher: start it even if it stopped by itself */
	bool		catalog_changed;	/* coordinator: read the catalog entry again */

	/* the coordinator's, for its workers and those that follow it: no lock */
	bool		lane;			/* its queries begin with a history, for other pipelines (coordinator/lane.h) */
	bool		no_lane;		/* the next attempt begins with queries that could be sent there */

	ScWorkerPlace coordinator;
	ScWorkerPlace reader;
	ScWorkerPlace writer;		/* of a large part; often not there */
	int			ntasks;			/* of the attempt */
	ScTaskShared tasks[SC_MAX_TASKS];
	dsm_handle	queues;			/* of the attempt; see queues.h */

	/* checkpoints: sessions ask */
	uint64		checkpoints_requested;	/* manual ones, counted */
	XLogRecPtr	sync_lsn;		/* sync() waits for a checkpoint that covers it */

	/* coordinator -> reader, tasks */
	pg_atomic_uint64 interval_us;	/* checkpoint_interval */
	pg_atomic_uint64 trigger;	/* id of the checkpoint whose barrier is due */
	TimestampTz triggered_at;	/* of "trigger"; 0: none in flight */
	ScMoment	triggered;		/* the same moment */
	int64		left_out[SC_WIRE_LEFT_OUT];	/* queries that have no part in it; for the barrier */
	int64		leaving[SC_WIRE_LEFT_OUT];	/* queries whose part in it is their last one here; for the barrier */
	uint32		acknowledged;	/* a bit for each task whose part of it has come; the coordinator's */
	pg_atomic_uint64 committed;	/* id of the last committed checkpoint */
	XLogRecPtr	checkpoint_lsn; /* its LSN */
	XLogRecPtr	committed_lsn;	/* up to which every query that runs is committed */
	XLogRecPtr	confirm_lsn;	/* up to which no query needs the WAL */
	XLogRecPtr	commit_end;		/* end of its commit record */
	uint64		checkpoints_done;	/* requests that it served */

	/* reader -> sessions; written by the reader only */
	ScMoment	behind_since;	/* there is flushed WAL to be read; 0: nothing */

	ScHistoryShared history;

	/* reader -> coordinator */
	pg_atomic_uint64 decoded_lsn;	/* end of the last record read */
	pg_atomic_uint32 work;		/* 1: rows or control messages since the last
								 * barrier (reader sets, reader clears at a barrier) */

	/* reader -> writers: its latch wants to be set at a commit */
	pg_atomic_uint32 reader_sleeps;

	ScIncoming	incoming[SC_MAX_INCOMING];	/* coordinator -> other coordinators */

	ScOwnRows	own_rows;		/* coordinator, writer -> reader */

	/* for the views: the query whose part a writer has (0: none), and its result rows; the coordinator's */
	int64		writing_query;
	int64		writing_rows;
	int64		writing_done;	/* so many of them; the writer's only, torn reads are harmless */

	/* the coordinator's own, for those that follow it: no lock */
	ScStrikes	strikes[SC_MAX_STRIKES];

	ConditionVariable cv;		/* broadcast at commits and changes of status */
} ScPipelineShared;

/* Databases at most that are known one by one to be looked into */
#define SC_MAX_PROBES 32

typedef struct ScShared
{
	LWLock	   *lock;
	/* guarded by lock: databases that the launcher is to look into (probe.h) */
	int			nprobes;		/* SC_MAX_PROBES: all of them */
	Oid			probes[SC_MAX_PROBES];
	ScWorkerPlace launcher;		/* guarded by lock */
	pg_atomic_uint32 sleeping_readers;	/* number with reader_sleeps set */
	pg_atomic_uint64 prepared;	/* changes when a database is prepared for pg_upgrade, or isn't any more (prepared.h) */
	pg_atomic_uint64 shares;	/* changes when a pipeline may have got or lost queries by a move: sync() looks again */
	int			max_pipelines;
	ScPipelineShared pipelines[FLEXIBLE_ARRAY_MEMBER];
} ScShared;

extern ScShared *sc_shared;		/* NULL where not preloaded */

extern void sc_shared_init(void);	/* at preloading: asks for the memory */

/* The entry of (database, pipeline) or NULL.  Stays valid while the database
 * exists; takes sc_shared->lock. */
extern ScPipelineShared *sc_shared_find(Oid database, int32 pipeline_id);

/* The same, made where it isn't there; NULL where all places are taken. */
extern ScPipelineShared *sc_shared_find_or_create(Oid database, int32 pipeline_id);

/* The database's entries, one after the other: the first one behind "last", or NULL.  Takes no lock. */
extern ScPipelineShared *sc_shared_next(Oid database, const ScPipelineShared *last);

#define sc_foreach_pipeline(pipeline, of_database) \
	for (ScPipelineShared *pipeline = sc_shared_next(of_database, NULL); pipeline; \
		 pipeline = sc_shared_next(of_database, pipeline))

/*
 * Background workers that are taken by others than these pipelines, which may be NULL; or that one is to have, which is
 * between two attempts.
 */
extern int	sc_shared_workers(const ScPipelineShared *except, const ScPipelineShared *except_too);

/*
 * The launcher is to look into the database, when there is room, for pipelines that it may not know: one with queries that
 * are new has no slot yet, and may have had no entry to be told by.  Must not fail.
 */
extern void sc_shared_wish_probe(Oid database);

/* Could another entry be made now? */
extern bool sc_shared_has_room(void);

extern void sc_shared_wake_launcher(void);

/* Wakes the readers of this database that sleep: something was committed. */
extern void sc_shared_wake_readers(void);

/* True where no pipeline of the server can run, with the reason and what to do. */
extern bool sc_server_problem(const char **message, const char **hint);

/* Sets the worker's latch if it is there. */
extern void sc_place_wake(ScPipelineShared *pipeline, const ScWorkerPlace *place);

extern void sc_status_set(ScPipelineShared *pipeline, ScStatus status,
						  const char *message, const char *hint);
extern const char *sc_status_name(ScStatus status);

/* Notes an error as the reason of the attempt's end; the first one stays. */
extern void sc_status_note_error(ScPipelineShared *pipeline, const char *message,
								 const char *hint, bool by_signal);

#endif							/* SC_WORKER_FRAME_SHARED_H */
