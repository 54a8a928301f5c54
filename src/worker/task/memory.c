/*-------------------------------------------------------------------------
 * memory.c
 *	  The bound of what the states of all queries of a task take: stream_ckpt.task_memory.
 *
 * Past it all queries give back what they keep only to save time (exec/running.c).  Then the largest query of the owner
 * who takes most writes what it has and gives memory back (exec/spilled.c), and so on.  One that can't, fails.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "worker/task/task_internal.h"

/* Bytes of a query's state, and of what is pending of its last part. */
static Size
memory_of_query(const ScTaskQuery *query)
{
	return sc_engine_memory(query->engine) + (query->snapshot != NULL ? sc_snapshot_memory(query->snapshot) : 0);
}

/* Bytes of the states of an owner's queries, or of all. */
static Size
memory_of(Oid owner)
{
	Size		bytes = 0;
	ListCell   *lc;

	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		if (!OidIsValid(owner) || query->query->owner == owner)
			bytes += memory_of_query(query);
	}
	return bytes;
}

bool
sc_task_queries_are_too_large(void)
{
	return memory_of(InvalidOid) > sc_task_memory_bytes();
}

static void
throw_error(const ScTaskQuery *query)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the state of the query takes %zu MB, and that of all queries of the pipeline more than \"stream_ckpt.task_memory\" allows (%d MB)",
					memory_of_query(query) / (1024 * 1024), sc_task_memory),
			 errhint("Increase \"stream_ckpt.task_memory\" and call stream_ckpt.resume_query(), or have fewer groups open at a time: shorter windows, fewer keys, a smaller watermark_delay.")));
}

/* The largest query of whoever takes most. */
static ScTaskQuery *
largest(void)
{
	ScTaskQuery *result = NULL;
	Size		most = 0;
	ListCell   *lc;

	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);
		Size		all = memory_of(query->query->owner);

		if (result != NULL && all < most)
			continue;
		if (result == NULL || all > most || memory_of_query(query) >= memory_of_query(result))
			result = query;
		most = all;
	}
	return result;
}

/* How far the query's state has to come down so that all of them together take three quarters of what they may. */
static Size
goal_of(const ScTaskQuery *query)
{
	Size		own = memory_of_query(query);
	Size		all = memory_of(InvalidOid);
	Size		most = sc_task_memory_bytes() / 4 * 3;

	return own - Min(own, all - Min(all, most));
}

/* Ends what goes on in steps. */
static void
settle(ScTaskQuery *query, void *arg)
{
	sc_task_query_settle(query);
}

/* An owner's query with something that goes on in steps, which takes memory beside its state; or anybody's.  NULL: none */
static ScTaskQuery *
find_unsettled(Oid owner)
{
	ListCell   *lc;

	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		if ((!OidIsValid(owner) || query->query->owner == owner) &&
			(query->snapshot != NULL || sc_engine_is_emitting(query->engine)))
			return query;
	}
	return NULL;
}

/* Has all queries free what they keep only to save time. */
static void
spare(void)
{
	ListCell   *lc;

	foreach(lc, sc_task_queries())
		sc_engine_spare(((ScTaskQuery *) lfirst(lc))->engine);
}

/*
 * What goes on in steps of whoever takes most is ended first, and may be enough; that of others before a query would
 * fail.
 */
void
sc_task_queries_bound(void)
{
	if (sc_task_queries_are_too_large())
		spare();
	while (sc_task_queries_are_too_large())
	{
		ScTaskQuery *query = largest();
		ScTaskQuery *unsettled = find_unsettled(query->query->owner);
		Size		before = memory_of_query(query);

		if (unsettled == NULL)
		{
			if (sc_engine_can_spill(query->engine) &&
				(!sc_task_query_make_room(query, goal_of(query)) || memory_of_query(query) < before))
				continue;
			unsettled = find_unsettled(InvalidOid);
		}
		if (unsettled != NULL)
			(void) sc_task_query_step(unsettled, InvalidXLogRecPtr, settle, NULL);
		else
			sc_task_query_fail(query, throw_error);
	}
}
