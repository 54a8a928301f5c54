/*-------------------------------------------------------------------------
 * parallelism.c
 *	  On how many tasks a query may run, and a pipeline may have; alter_query().
 *
 * Each task of a query sees all rows, and takes those whose keys hash into its range.  So WHERE and keys must come to
 * the same in all of them, at whatever time each of them is at a row: they are made of what came with the server,
 * which nobody changes meanwhile.  What is computed of a group is one task's alone, and can be anything; of a query
 * without groups, all that is computed of a row.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "base/env.h"
#include "base/process.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "query/analyze.h"
#include "utils/lsyscache.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/shared.h"

PG_FUNCTION_INFO_V1(stream_ckpt_alter_query);

int32
sc_arg_parallelism(FunctionCallInfo fcinfo, int n)
{
	int32		parallelism = DatumGetInt32(sc_arg(fcinfo, n, "parallelism"));

	if (parallelism < 1 || parallelism > SC_MAX_TASKS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"parallelism\" must be from 1 to %d", SC_MAX_TASKS),
				 errhint("It is a number of tasks, each of them a process.")));
	return parallelism;
}

void
sc_check_workers(int32 pipeline_id, int32 parallelism)
{
	int			others = sc_shared_workers(sc_shared_find(MyDatabaseId, pipeline_id), NULL);

	if (others + 2 + parallelism <= max_worker_processes)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("%d tasks are more than \"max_worker_processes\" allows", parallelism),
			 errdetail("The pipeline would take %d background workers, and others take %d; the server has %d.",
					   2 + parallelism, others, max_worker_processes),
			 errhint("Increase \"max_worker_processes\" to %d or more, and restart the server.",
					 others + 2 + parallelism)));
}

void
sc_check_query_parallelism(const ScPipeline *pipeline, const ScDefinition *definition, int32 parallelism,
						   bool dead_letter)
{
	if (parallelism > pipeline->parallelism)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a query of pipeline \"%s\" cannot have a parallelism of %d", pipeline->name, parallelism),
				 errdetail("The pipeline has %d.", pipeline->parallelism),
				 errhint("Call stream_ckpt.alter_pipeline('%s', parallelism => %d) first.", pipeline->name,
						 parallelism)));
	if (parallelism > 1 && definition->source != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a query with joins, subqueries or functions in FROM cannot have a parallelism above 1"),
				 errdetail("One task joins all rows of the stream."),
				 errhint("Leave \"parallelism\" at 1.")));
	if (parallelism > 1 && definition->stateless && definition->retracts)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a query without GROUP BY and aggregates cannot have a parallelism above 1, if changes of its stream are applied"),
				 errdetail("One task has all rows, as they must change in the order in which they were changed."),
				 errhint("Leave \"parallelism\" at 1.")));
	/* each row is evaluated by one task only, whatever it is made of */
	if (definition->stateless)
		return;
	if (parallelism > 1 && definition->nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a query without keys cannot have a parallelism above 1"),
				 sc_assigner_has_windows(&definition->window) ? errdetail("It has one group for each window.") :
				 errdetail("It has one group."),
				 errhint("Group by a column more, or leave \"parallelism\" at 1.")));
	if (parallelism > 1 && definition->nsets > 0 && dead_letter)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a query with grouping sets and on_error => 'dead_letter' cannot have a parallelism above 1"),
				 errdetail("A row's groups would be in several tasks, and one that fails is taken back from all of them."),
				 errhint("Leave \"parallelism\" at 1, or leave on_error out.")));
	if (parallelism > 1 && definition->upper != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a query with window functions, subqueries, WITH or DISTINCT above GROUP BY cannot have a parallelism above 1"),
				 errdetail("All groups of a window must be in one task."),
				 errhint("Leave \"parallelism\" at 1; or create the query without them, and make a plain view over its result table.")));
	if (parallelism > 1 && definition->routed_by_user_parts)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("WHERE and keys of a query with a parallelism above 1 must be made of built-in functions and types"),
				 errdetail("All tasks of the query evaluate them, and must come to the same."),
				 errhint("Leave \"parallelism\" at 1, or compute the value when rows are inserted, in a column of its own.")));
}

void
sc_check_pipeline_parallelism(const ScPipeline *pipeline, int32 parallelism)
{
	ListCell   *lc;

	foreach(lc, sc_query_list_all())
	{
		const ScQuery *query = lfirst(lc);

		if (query->pipeline_id != pipeline->pipeline_id && query->target_id != pipeline->pipeline_id)
			continue;
		if (query->parallelism > parallelism)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("pipeline \"%s\" cannot have a parallelism of %d", pipeline->name, parallelism),
					 errdetail("Query %s has %d.", sc_qualified_name(query->relid), query->parallelism),
					 errhint("Call stream_ckpt.alter_query() for it first.")));
	}
}

static void
check_query(const ScQuery *query, int32 parallelism)
{
	const ScPipeline *pipeline;
	ScDefinition *definition;
	ScEnv		env;

	sc_env_enter(&env, query->owner, query->settings);
	definition = sc_definition_load(query);
	sc_env_leave(&env);
	pipeline = sc_pipeline_by_id(query->pipeline_id, false);
	/* in the lane a query has as many tasks as there are, and then goes where it is to have more */
	if (!pipeline->lane)
		sc_check_query_parallelism(pipeline, definition, parallelism, query->dead_letter);
	if (query->target_id != 0)
		sc_check_query_parallelism(sc_pipeline_by_id(query->target_id, false), definition, parallelism,
								   query->dead_letter);
}

/* alter_query(query regclass, parallelism integer): NULL leaves as it is */
Datum
stream_ckpt_alter_query(PG_FUNCTION_ARGS)
{
	Oid			relid = DatumGetObjectId(sc_arg(fcinfo, 0, "query"));
	ScQuery    *query;
	int32		parallelism;
	int32		pipeline_id;

	sc_refuse_in_worker("alter_query()");
	/* a pipeline comes before its queries in the order of locks */
	pipeline_id = sc_query_by_relid(relid, false)->pipeline_id;
	sc_pipeline_lock(pipeline_id, ShareLock);
	query = sc_lock_owned_query(relid);
	if (query->pipeline_id != pipeline_id)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("query \"%s\" has just moved to another pipeline", get_rel_name(query->relid)),
				 errhint("Try again.")));
	if (PG_ARGISNULL(1))
		PG_RETURN_VOID();
	parallelism = sc_arg_parallelism(fcinfo, 1);
	if (parallelism > 1)
		check_query(query, parallelism);
	sc_query_set_parallelism(query->query_id, parallelism);
	sc_pipeline_changed(query->pipeline_id);
	PG_RETURN_VOID();
}
