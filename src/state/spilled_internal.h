/*-------------------------------------------------------------------------
 * spilled_internal.h
 *	  What spilled.c, merge.c and the files that load and write a query share.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_SPILLED_INTERNAL_H
#define SC_STATE_SPILLED_INTERNAL_H

#include "state/changelog.h"
#include "state/run.h"
#include "state/spilled.h"

/* A run of a spilled pane. */
typedef struct ScStoredRun
{
	ScRunInfo	info;			/* "complete": its last chunk is known to be committed */
	bool		sent;			/* its last chunk is with the coordinator, or written */
} ScStoredRun;

/* Of one spilled pane, in the ScSpilled's context. */
struct ScRuns
{
	ScStoredRun *runs;			/* from old to new; those that aren't sent are the last ones */
	int			n;
	int			size;			/* allocated */
	int64		replaces;		/* of the next last chunk that is sent */
	struct ScMerge *merge;		/* merge.c; NULL: none is going on */
	int			no_room;		/* task_memory with which a group was too large to be merged; 0: none was */
	bool		others;			/* other tasks have written some of them */
};

/* A run that nobody reads any more. */
typedef struct ScLeftRun
{
	ScRunName	name;
	ScRunPlace	from;			/* chunks before it are deleted */
} ScLeftRun;

struct ScSpilled
{
	MemoryContext context;
	int64		query_id;
	int64		age;			/* of the next part, and of the runs that are written before it */
	int64		born;			/* no name that the task has seen has a greater age or born */
	bool		has_written;
	int64		work;			/* bytes written since the last sc_spilled_work */
	ScLeftRun  *left;			/* nleft of them, to be deleted */
	int			nleft;
	int			max_left;
	ScSpillCounters *counters;
};

/* Writes into the table, in the current transaction. */
typedef struct ScTableTarget
{
	ScBackend  *backend;
	int64		query_id;
} ScTableTarget;

extern void sc_put_into_table(void *arg, const ScChunk *chunk);

/* spilled.c */
extern struct ScRuns *sc_stored_runs_create(ScSpilled *spilled);
extern void sc_stored_runs_add(ScSpilled *spilled, struct ScRuns *runs, const ScRunInfo *run, bool sent);
/* Tells the pane how much its runs have. */
extern void sc_stored_runs_account(ScEngine *engine, ScPane *pane);
/*
 * Applies what these runs have at the positions to the bucket; returns the bytes of the entries.  If memory doesn't do for
 * them *full is set, and the bucket is of no use; it is an error if "full" is NULL.
 */
extern int64 sc_stored_runs_apply(const ScSpilled *spilled, ScEngine *engine, const ScStoredRun *runs, int n,
								  ScPositions positions, ScBucket *bucket, bool *full);
extern void sc_spilled_leave(ScSpilled *spilled, const ScRunName *run);
/* Of the next part. */
extern void sc_spilled_set_age(ScSpilled *spilled, int64 age);
/* No run that is begun from now on has a name as old as this. */
extern void sc_spilled_saw(ScSpilled *spilled, const ScRunName *run);
/*
 * A spilled pane's part: writes what has changed, and hands the last chunks of its runs to the sink.  Returns their
 * bytes.
 */
extern Size sc_spilled_snapshot(ScSpilled *spilled, ScEngine *engine, ScPane *pane, const ScChangelogSink *sink);
/* Opens a pane as spilled, of its complete runs that can hold groups of the engine's key groups. */
extern void sc_spilled_load(ScSpilled *spilled, ScEngine *engine, const ScRunInfo *runs, int n);

/* merge.c */
extern void sc_merge_free(struct ScMerge *merge);
/* Merges some of the runs that aren't sent, if there are many, at once: they can be many before the next part. */
extern void sc_merge_unsent(ScSpilled *spilled, ScEngine *engine, ScPane *pane);
/* Merges all runs of a pane, which other tasks wrote, into one of this task's at once. */
extern void sc_merge_all(ScSpilled *spilled, ScEngine *engine, ScPane *pane);

#endif							/* SC_STATE_SPILLED_INTERNAL_H */
