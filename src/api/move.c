/*-------------------------------------------------------------------------
 * move.c
 *	  move_query: a query goes on in another pipeline.
 *
 * A wish in the catalogs.  The coordinators of both pipelines fulfil it, when the query is well and its pipeline has
 * caught up (worker/coordinator/moving.c); nothing here waits for them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "base/by_id.h"
#include "base/process.h"
#include "ckpt/failure.h"
#include "ckpt/offset.h"
#include "model/catalog_write.h"
#include "utils/lsyscache.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/start.h"

PG_FUNCTION_INFO_V1(stream_ckpt_move_query);

/* Can the pipeline not run?  "what": what it is to the query. */
static void
refuse_standing(const ScPipeline *pipeline, const char *what)
{
	char	   *message;
	char	   *hint;

	if (pipeline->stopped)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\", %s, is stopped", pipeline->name, what),
				 errhint("Start it with stream_ckpt.start_pipeline().")));
	if (sc_start_is_lost(pipeline->pipeline_id, &message, &hint))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\", %s, is lost", pipeline->name, what),
				 errdetail("%s.", message),
				 errhint("Call stream_ckpt.start_pipeline(name, accept_gap => true) to go on without the rows between.")));
}

/* A query that doesn't run has no place in the log at which it could leave. */
static void
refuse_resting(const ScQuery *query)
{
	const ScFailureRow *failure = sc_find_by_id(sc_failure_list(), query->query_id);

	if (!query->paused && !sc_failure_stops(failure))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("query \"%s\" does not run", get_rel_name(query->relid)),
			 query->paused ? errdetail("It is paused.") : errdetail("It has failed, or is lost."),
			 errhint("Call stream_ckpt.resume_query() first.")));
}

/* Who takes another's place is in its pipeline. */
static void
refuse_replaced(const ScQuery *query)
{
	if (query->replaces == 0 && !sc_query_replacement(query->query_id))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("query \"%s\" cannot move while it is being replaced, or replaces another one", get_rel_name(query->relid)),
			 errhint("Wait until that is done: see stream_ckpt.queries; or drop the replacement.")));
}

static void
refuse_parallelism(const ScQuery *query, const ScPipeline *target)
{
	if (query->parallelism > target->parallelism)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pipeline \"%s\" has fewer tasks than query \"%s\" runs on", target->name,
						get_rel_name(query->relid)),
				 errdetail("The pipeline's parallelism is %d, and the query's is %d.", target->parallelism,
						   query->parallelism),
				 errhint("Call stream_ckpt.alter_pipeline() or stream_ckpt.alter_query() first.")));
}

/*
 * The pipeline, with its slot, locked: in the order of locks it comes before the query.  A first query of it doesn't
 * depend on where those before it were.
 */
static ScPipeline *
prepare_target(const char *name)
{
	ScPipeline *target = sc_usable_pipeline(name);
	bool		first;

	refuse_standing(target, "where the query is to go");
	sc_pipeline_prepare(target);
	first = !sc_has_begun(target->pipeline_id);
	sc_pipeline_lock(target->pipeline_id, first ? ExclusiveLock : ShareLock);
	target = sc_usable_pipeline(name);
	(void) sc_start_anew(target->pipeline_id);
	refuse_standing(target, "where the query is to go");
	return target;
}

/* From the next commit on the query is to be where it is to be: both pipelines look, and one that had expected it. */
static void
set_target(ScQuery *query, int32 target_id)
{
	if (query->target_id != 0)
		sc_pipeline_changed(query->target_id);
	query->target_id = target_id;
	query->moving = false;
	sc_query_set_pipeline(query);
	sc_pipeline_changed(query->pipeline_id);
	if (target_id != 0)
		sc_pipeline_changed(target_id);
}

/* move_query(query regclass, pipeline name); to where it is: it stays there, whatever was wished before */
Datum
stream_ckpt_move_query(PG_FUNCTION_ARGS)
{
	Oid			relid = DatumGetObjectId(sc_arg(fcinfo, 0, "query"));
	char	   *name = sc_arg_name(fcinfo, 1, "pipeline");
	ScPipeline *target = sc_usable_pipeline(name);
	ScQuery    *query = sc_query_by_relid(relid, false);

	sc_refuse_in_worker("move_query()");
	sc_check_relation_owner(query->definition);
	if (query->pipeline_id != target->pipeline_id)
	{
		refuse_standing(sc_pipeline_by_id(query->pipeline_id, false), "where the query is");
		refuse_resting(query);
		refuse_parallelism(query, target);
		target = prepare_target(name);
	}
	query = sc_lock_owned_query(relid);
	if (query->pipeline_id == target->pipeline_id)
	{
		if (query->target_id != 0)
			set_target(query, 0);
		PG_RETURN_VOID();
	}
	refuse_resting(query);
	refuse_replaced(query);
	refuse_parallelism(query, target);
	if (query->target_id != target->pipeline_id)
		set_target(query, target->pipeline_id);
	PG_RETURN_VOID();
}
