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

/* It doesn't go on: rows are missing between what it has and where the log begins, or it has lost its state. */
static void
mark_lost(const ScQuery *query, const char *why, const char *detail, const char *hint)
{
	ScFailure	failure = {0};

	failure.sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	failure.message = pstrdup(why);
	failure.detail = detail ? pstrdup(detail) : NULL;
	failure.hint = pstrdup(hint);
	if (!sc_failure_set(query->query_id, SC_FAILURE_LOST, 1, &failure))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("query \"%s\" is being resumed or dropped", get_rel_name(query->relid)),
				 errhint("Call it again when that is done.")));
}

#define HINT_REPLACED "What replaces it is on its way: see column \"replaces\" of stream_ckpt.queries."

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
	sc_refuse_prepared(pipeline);
	(void) sc_gap_accept(pipeline, SC_GAP_REBUILD);
	foreach(lc, sc_query_list(pipeline->pipeline_id))
	{
		const ScQuery *query = lfirst(lc);

		if (query->replaces == 0)
			mark_lost(query, "its pipeline was lost, and with it the query's next rows", NULL,
					  sc_query_can_be_rebuilt(query) ? HINT_REPLACED :
					  "Call stream_ckpt.resume_query(query, accept_gap => true) to go on without the rows between.");
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

/*
 * Makes the query's result anew.  If that can't be, a warning says why, and the others go on; lost: the query is, and keeps
 * the reason.  What may pass is an error.
 */
static void
rebuild_or_warn(ScQuery *query, bool lost)
{
	ErrorData  *error = sc_subtransaction_try(rebuild_step, query, sc_rethrow_transient);
	const char *hint = "When that is mended, call stream_ckpt.rebuild_query(query).";

	if (!error)
		return;
	if (lost)
		mark_lost(query, psprintf("its result cannot be made anew: %s", error->message), error->detail, hint);
	ereport(WARNING,
			(errmsg("the result of query \"%s\" cannot be made anew: %s", get_rel_name(query->relid), error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 errhint("%s%s%s", error->hint ? error->hint : "", error->hint ? " " : "", hint)));
}

void
sc_rebuild_stateless(ScQuery *query)
{
	if (query->replaces != 0 || !sc_query_can_be_rebuilt(query))
		return;
	mark_lost(query, "its state could not be read after the upgrade", NULL, HINT_REPLACED);
	rebuild_or_warn(query, true);
}

/* Nobody's queries become lost by somebody who can't bring them back. */
static void
check_owner(const ScPipeline *pipeline)
{
	ListCell   *lc;

	foreach(lc, sc_query_list(pipeline->pipeline_id))
	{
		const ScQuery *query = lfirst(lc);

		sc_check_relation_owner(query->definition);
		sc_check_relation_owner(query->relid);
	}
}

/* rebuild_pipeline(name) */
Datum
stream_ckpt_rebuild_pipeline(PG_FUNCTION_ARGS)
{
	char	   *name = sc_arg_name(fcinfo, 0, "name");
	ScPipeline *pipeline = sc_owned_pipeline(name);
	char	   *message;
	char	   *hint;
	bool		lost;
	ListCell   *lc;

	sc_refuse_in_worker("rebuild_pipeline()");
	sc_refuse_prepared(pipeline);
	check_owner(pipeline);
	lost = sc_start_is_lost(pipeline->pipeline_id, &message, &hint);
	if (lost)
		begin_anew(name);
	foreach(lc, sc_query_list(pipeline->pipeline_id))
	{
		ScQuery    *query = lfirst(lc);

		if (query->replaces != 0)
			continue;
		if (sc_query_can_be_rebuilt(query))
			rebuild_or_warn(query, lost);
		else
			ereport(WARNING,
					(errmsg("query \"%s\" cannot be rebuilt: its stream does not hold the rows that it had",
							get_rel_name(query->relid)),
					 errhint("If it is lost, call stream_ckpt.resume_query(query, accept_gap => true) to go on without the rows between.")));
	}
	PG_RETURN_VOID();
}
