/*-------------------------------------------------------------------------
 * rebuild_pipeline.c
 *	  rebuild_pipeline: brings back the results of a pipeline's queries, after it was lost or when they aren't right.
 *
 * Of a lost one the way is that of start_pipeline(accept_gap => true), and in the same transaction every query is marked
 * lost: none goes on with a gap, each result stays as it is until what replaces it is complete; so it
 * doesn't matter whether a query could go on with one.  Queries whose streams hold no rows stay lost, one by one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "api/gap.h"
#include "api/new_query.h"
#include "base/process.h"
#include "base/subtransaction.h"
#include "ckpt/failure.h"
#include "model/catalog_write.h"
#include "model/log_stream.h"
#include "utils/lsyscache.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/start.h"

PG_FUNCTION_INFO_V1(stream_ckpt_rebuild_pipeline);

/* Does its stream hold the rows that the query had? */
bool
sc_query_can_be_rebuilt(const ScQuery *query)
{
	const ScStream *stream = sc_stream_by_relid(query->stream_relid, true);

	return stream && !stream->is_log && !stream->processing_time &&
		!sc_has_log_stream_partition(query->stream_relid);
}

/* It doesn't go on: rows are missing between what it has and where the log begins. */
static void
mark_lost(const ScQuery *query, const char *why, bool rebuilt)
{
	ScFailure	failure = {0};

	failure.sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	failure.message = pstrdup(why);
	failure.hint = rebuilt ? "What replaces it is on its way: see column \"replaces\" of stream_ckpt.queries." :
		"Call stream_ckpt.resume_query(query, accept_gap => true) to go on without the rows between.";
	if (!sc_failure_set(query->query_id, SC_FAILURE_LOST, 1, &failure))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("query \"%s\" is being resumed or dropped", get_rel_name(query->relid)),
				 errhint("Call stream_ckpt.rebuild_pipeline() again when that is done.")));
}

/* The pipeline begins anew, and its queries don't. */
static void
begin_anew(const char *name)
{
	ScPipeline *pipeline = sc_owned_pipeline(name);
	ListCell   *lc;

	/* the slot first: making it waits, with no lock held and no id */
	sc_gap_prepare(pipeline);
	sc_pipeline_lock(pipeline->pipeline_id, ExclusiveLock);
	pipeline = sc_owned_pipeline(name);
	(void) sc_gap_accept(pipeline, SC_GAP_REBUILD);
	foreach(lc, sc_query_list(pipeline->pipeline_id))
	{
		const ScQuery *query = lfirst(lc);

		if (query->replaces == 0)
			mark_lost(query, "its pipeline was lost, and with it the query's next rows", sc_query_can_be_rebuilt(query));
	}
	sc_pipeline_changed(pipeline->pipeline_id);
}

/* True: what it did remains. */
static bool
rebuild_step(void *query)
{
	sc_rebuild_query(query, false, 0);
	return true;
}

void
sc_rebuild_stateless(ScQuery *query)
{
	ErrorData  *error;

	if (query->replaces != 0 || !sc_query_can_be_rebuilt(query))
		return;
	mark_lost(query, "its state could not be read after the upgrade", true);
	error = sc_subtransaction_try(rebuild_step, query, NULL);
	if (!error)
		return;
	/* the others go on */
	ereport(WARNING,
			(errmsg("query \"%s\" is lost, and its result cannot be made anew yet: %s", get_rel_name(query->relid), error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 errhint("When that is mended, call stream_ckpt.rebuild_query(query).")));
}

/* rebuild_pipeline(name) */
Datum
stream_ckpt_rebuild_pipeline(PG_FUNCTION_ARGS)
{
	char	   *name = sc_arg_name(fcinfo, 0, "name");
	ScPipeline *pipeline = sc_owned_pipeline(name);
	char	   *message;
	char	   *hint;
	ListCell   *lc;

	sc_refuse_in_worker("rebuild_pipeline()");
	sc_refuse_prepared(pipeline);
	if (sc_start_is_lost(pipeline->pipeline_id, &message, &hint))
		begin_anew(name);
	foreach(lc, sc_query_list(pipeline->pipeline_id))
	{
		ScQuery    *query = lfirst(lc);

		if (query->replaces != 0)
			continue;
		if (sc_query_can_be_rebuilt(query))
			sc_rebuild_query(query, false, 0);
		else
			ereport(WARNING,
					(errmsg("query \"%s\" cannot be rebuilt: its stream does not hold the rows that it had",
							get_rel_name(query->relid)),
					 errhint("If it is lost, call stream_ckpt.resume_query(query, accept_gap => true) to go on without the rows between.")));
	}
	PG_RETURN_VOID();
}
