/*-------------------------------------------------------------------------
 * pipeline.c
 *	  SQL functions on pipelines: create, alter, drop, stop, start, checkpoint.
 *
 * They write what is wished into the catalogs and wake the workers after the
 * commit (sc_pipeline_changed); only checkpoint() waits for workers.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "api/gap.h"
#include "base/process.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "worker/frame/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_create_pipeline);
PG_FUNCTION_INFO_V1(stream_ckpt_alter_pipeline);
PG_FUNCTION_INFO_V1(stream_ckpt_drop_pipeline);
PG_FUNCTION_INFO_V1(stream_ckpt_stop_pipeline);
PG_FUNCTION_INFO_V1(stream_ckpt_start_pipeline);
PG_FUNCTION_INFO_V1(stream_ckpt_checkpoint);

#define MIN_CHECKPOINT_INTERVAL INT64CONST(10000)	/* microseconds */

/* ---------- parameters ---------- */

static int64
interval_arg(FunctionCallInfo fcinfo, int n)
{
	int64		usecs = sc_arg_usecs(fcinfo, n, "checkpoint_interval");

	if (usecs < MIN_CHECKPOINT_INTERVAL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"checkpoint_interval\" must be at least 10 milliseconds")));
	return usecs;
}

/* Fails for all but 'table', with another code for those that are planned. */
static char *
state_backend_arg(FunctionCallInfo fcinfo, int n)
{
	char	   *backend = sc_arg_text(fcinfo, n, "state_backend");

	if (strcmp(backend, "file") == 0 || strcmp(backend, "memory") == 0)
		sc_not_supported(psprintf("state backend \"%s\"", backend),
							"Use state_backend => 'table'.");
	if (strcmp(backend, "table") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized state backend \"%s\"", backend),
				 errhint("Use state_backend => 'table'.")));
	return backend;
}

/* A pipeline that the caller owns, locked against changes by others. */
static ScPipeline *
lock_owned_pipeline(const char *name)
{
	sc_pipeline_lock(sc_owned_pipeline(name)->pipeline_id, ExclusiveLock);
	return sc_owned_pipeline(name);
}

/* ---------- create, alter, drop ---------- */

/* A pipeline takes processes, a slot and WAL: not for everybody. */
static void
check_create(void)
{
	AclResult	result = sc_database_aclcheck(MyDatabaseId, ACL_CREATE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_DATABASE, get_database_name(MyDatabaseId));
}

/* create_pipeline(name, parallelism, checkpoint_interval, state_backend) */
Datum
stream_ckpt_create_pipeline(PG_FUNCTION_ARGS)
{
	ScPipeline	pipeline = {0};

	sc_refuse_in_worker("create_pipeline");
	check_create();
	pipeline.name = sc_arg_name(fcinfo, 0, "name");
	pipeline.parallelism = sc_arg_parallelism(fcinfo, 1);
	if (pipeline.parallelism > 1)
		sc_check_workers(0, pipeline.parallelism);
	pipeline.checkpoint_interval = interval_arg(fcinfo, 2);
	pipeline.state_backend = state_backend_arg(fcinfo, 3);
	pipeline.owner = GetUserId();

	if (pipeline.name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("a pipeline's name must not be empty")));
	if (sc_pipeline_by_name(pipeline.name, true) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("pipeline \"%s\" already exists", pipeline.name)));
	(void) sc_pipeline_insert(&pipeline);
	PG_RETURN_VOID();
}

/* alter_pipeline(name, parallelism, checkpoint_interval): NULL leaves as it is */
Datum
stream_ckpt_alter_pipeline(PG_FUNCTION_ARGS)
{
	ScPipeline *pipeline;
	int32		before;

	sc_refuse_in_worker("alter_pipeline");
	pipeline = lock_owned_pipeline(sc_arg_name(fcinfo, 0, "name"));
	before = pipeline->parallelism;
	if (!PG_ARGISNULL(1))
		pipeline->parallelism = sc_arg_parallelism(fcinfo, 1);
	if (pipeline->parallelism > before)
		sc_check_workers(pipeline->pipeline_id, pipeline->parallelism);
	/* queries of a dump can want more than a new "default" has */
	if (pipeline->parallelism < before)
		sc_check_pipeline_parallelism(pipeline, pipeline->parallelism);
	if (!PG_ARGISNULL(2))
		pipeline->checkpoint_interval = interval_arg(fcinfo, 2);
	sc_pipeline_update(pipeline);
	sc_pipeline_changed(pipeline->pipeline_id);
	PG_RETURN_VOID();
}

/* A query that is to move to the pipeline will be one of it. */
static void
refuse_target(const ScPipeline *pipeline)
{
	ListCell   *lc;

	foreach(lc, sc_query_list_all())
	{
		const ScQuery *query = lfirst(lc);

		if (query->target_id == pipeline->pipeline_id)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("pipeline \"%s\" cannot be dropped because a query is to move to it", pipeline->name),
					 errdetail("It is %s.", sc_qualified_name(query->relid)),
					 errhint("Move it elsewhere with stream_ckpt.move_query(), or back to where it is.")));
	}
}

/* drop_pipeline(name); its slot goes after the commit */
Datum
stream_ckpt_drop_pipeline(PG_FUNCTION_ARGS)
{
	ScPipeline *pipeline;
	List	   *queries;

	sc_refuse_in_worker("drop_pipeline");
	pipeline = lock_owned_pipeline(sc_arg_name(fcinfo, 0, "name"));
	if (strcmp(pipeline->name, SC_DEFAULT_PIPELINE) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("pipeline \"%s\" cannot be dropped", pipeline->name),
				 errdetail("Every database has it."),
				 errhint("Stop it with stream_ckpt.stop_pipeline(), or drop its queries.")));
	refuse_target(pipeline);
	queries = sc_query_list(pipeline->pipeline_id);
	if (queries != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("pipeline \"%s\" cannot be dropped because it has queries",
						pipeline->name),
				 errdetail("One of them is %s.",
						   sc_qualified_name(((ScQuery *) linitial(queries))->relid)),
				 errhint("Drop its queries first, with stream_ckpt.drop_query().")));
	sc_pipeline_delete(pipeline->pipeline_id);
	sc_pipeline_changed(pipeline->pipeline_id);
	PG_RETURN_VOID();
}

/* ---------- stop, start ---------- */

static void
set_stopped(ScPipeline *pipeline, bool stopped)
{
	pipeline->stopped = stopped;
	sc_pipeline_update(pipeline);
	sc_pipeline_changed(pipeline->pipeline_id);
}

/* stop_pipeline(name): it stops after the commit, and stays stopped */
Datum
stream_ckpt_stop_pipeline(PG_FUNCTION_ARGS)
{
	sc_refuse_in_worker("stop_pipeline");
	set_stopped(lock_owned_pipeline(sc_arg_name(fcinfo, 0, "name")), true);
	PG_RETURN_VOID();
}

/* start_pipeline(name, accept_gap) */
Datum
stream_ckpt_start_pipeline(PG_FUNCTION_ARGS)
{
	char	   *name;
	ScPipeline *pipeline;

	sc_refuse_in_worker("start_pipeline");
	name = sc_arg_name(fcinfo, 0, "name");
	sc_refuse_prepared(sc_owned_pipeline(name));
	if (DatumGetBool(sc_arg(fcinfo, 1, "accept_gap")))
	{
		/* the slot first: making it waits, with no lock held and no id */
		sc_gap_prepare(sc_owned_pipeline(name));
		pipeline = lock_owned_pipeline(name);
		sc_refuse_prepared(pipeline);
		(void) sc_gap_accept(pipeline, SC_GAP_GO_ON);
	}
	pipeline = lock_owned_pipeline(name);
	sc_refuse_prepared(pipeline);
	set_stopped(pipeline, false);
	PG_RETURN_VOID();
}

/* ---------- waiting for workers ---------- */

/* checkpoint(pipeline, timeout): the id of a checkpoint made after the call */
Datum
stream_ckpt_checkpoint(PG_FUNCTION_ARGS)
{
	ScPipeline *pipeline;
	int64		timeout;

	sc_refuse_in_worker("checkpoint");
	pipeline = sc_owned_pipeline(sc_arg_name(fcinfo, 0, "pipeline"));
	timeout = sc_arg_usecs(fcinfo, 1, "timeout");
	PG_RETURN_INT64(sc_pipeline_checkpoint(pipeline->pipeline_id, pipeline->name,
										   timeout));
}
