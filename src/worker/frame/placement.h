/*-------------------------------------------------------------------------
 * placement.h
 *	  On which tasks of its pipeline a query runs.
 *
 * The key groups are shared out in contiguous ranges (sc_first_key_group), in the order of these tasks; the first
 * one also has what belongs to no group.
 *
 * The rule: all processes of an attempt, and all tasks at the same place in the log, agree.  So the coordinator places
 * the queries with which an attempt begins, once (queues.h), and those that are created during it are placed by what
 * their message says alone: nothing that is read from the catalogs, or depends on what a task runs, counts.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_PLACEMENT_H
#define SC_WORKER_FRAME_PLACEMENT_H

#include "nodes/pg_list.h"

typedef struct ScPlacement
{
	int32		first;			/* its first task; the others follow, and task 0 follows the last one */
	int32		ntasks;			/* at least 1 */
} ScPlacement;

/* A query's place in one task: the how manieth of how many. */
typedef struct ScPlace
{
	int32		number;
	int32		ntasks;
} ScPlace;

/*
 * The placements, palloc'd, of the queries with these offsets (ScOffset *) in a pipeline of "ntasks" tasks: each on
 * those that have the fewest.  Needs a transaction.
 */
extern ScPlacement *sc_placements(List *offsets, int ntasks);

/* How many tasks a query gets that wants so many. */
extern int	sc_placement_size(int32 parallelism, int ntasks);

/* Of a query that is created during an attempt: by turns. */
extern ScPlacement sc_placement_of_new(int64 query_id, int32 parallelism, int ntasks);

/* Bits of its tasks: 1 << task. */
extern uint32 sc_placement_tasks(ScPlacement placement, int ntasks);

/* The query's place in "task"; false: it has none there. */
extern bool sc_placement_place(ScPlacement placement, int task, int ntasks, ScPlace *place);

#endif							/* SC_WORKER_FRAME_PLACEMENT_H */
