/*-------------------------------------------------------------------------
 * memory.c
 *	  The bound of what the states of all queries of a task take: stream_ckpt.task_memory.
 *
 * Past it the largest query of the owner who takes most writes what it has and gives memory back
 * (exec/spilled.c), and so on.  One that can't, fails.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "worker/task/task_internal.h"

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
			bytes += sc_engine_memory(query->engine);
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
					sc_engine_memory(query->engine) / (1024 * 1024), sc_task_memory),
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

		if (all < most)
			continue;
		if (all > most || sc_engine_memory(query->engine) >= sc_engine_memory(result->engine))
			result = query;
		most = all;
	}
	return result;
}

/* How far the query's state has to come down so that all of them together take three quarters of what they may. */
static Size
goal_of(const ScTaskQuery *query)
{
	Size		own = sc_engine_memory(query->engine);
	Size		all = memory_of(InvalidOid);
	Size		most = sc_task_memory_bytes() / 4 * 3;

	return own - Min(own, all - Min(all, most));
}

void
sc_task_queries_bound(void)
{
	while (sc_task_queries_are_too_large())
	{
		ScTaskQuery *query = largest();
		Size		before = sc_engine_memory(query->engine);

		if (sc_engine_can_spill(query->engine) &&
			(!sc_task_query_make_room(query, goal_of(query)) || sc_engine_memory(query->engine) < before))
			continue;
		sc_task_query_fail(query, throw_error);
	}
}
