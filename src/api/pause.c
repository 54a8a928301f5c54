/*-------------------------------------------------------------------------
 * pause.c
 *	  pause_query and resume_query.
 *
 * A pause is a wish in the catalogs and a message in the WAL: the query stops at
 * the commit of the transaction, and its offset stays there.  To go on, the reader has to
 * come back to that place: the coordinator, woken after the commit, begins a
 * new attempt.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "base/process.h"
#include "ckpt/failure.h"
#include "model/catalog_write.h"
#include "model/control.h"
#include "utils/lsyscache.h"
#include "worker/frame/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_pause_query);
PG_FUNCTION_INFO_V1(stream_ckpt_resume_query);

/* The query, for its owner, locked against others who pause and resume it. */
ScQuery *
sc_lock_owned_query(Oid relid)
{
	ScQuery    *query = sc_query_by_relid(relid, false);

	sc_check_relation_owner(query->definition);
	sc_query_lock(query->query_id, ExclusiveLock);
	return sc_query_by_relid(relid, false);
}

/* pause_query(query regclass); of a paused query: nothing */
Datum
stream_ckpt_pause_query(PG_FUNCTION_ARGS)
{
	ScControl	control = {0};
	ScQuery    *query;

	sc_refuse_in_worker("pause_query()");
	query = sc_lock_owned_query(PG_GETARG_OID(0));
	if (query->paused)
		PG_RETURN_VOID();
	sc_query_set_paused(query->query_id, true);
	control.kind = SC_CONTROL_PAUSE_QUERY;
	control.pipeline_id = query->pipeline_id;
	control.query_id = query->query_id;
	(void) sc_control_log(&control);
	PG_RETURN_VOID();
}

/*
 * resume_query(query regclass, accept_gap boolean); of a healthy query that isn't paused: nothing.  A
 * query that is lost goes on only if the gap is accepted: the coordinator, who alone knows where
 * the slot is, moves it to the last checkpoint.
 */
Datum
stream_ckpt_resume_query(PG_FUNCTION_ARGS)
{
	bool		accept_gap = PG_GETARG_BOOL(1);
	bool		had_gap;
	bool		applies;
	ScQuery    *query;

	sc_refuse_in_worker("resume_query()");
	query = sc_lock_owned_query(PG_GETARG_OID(0));
	/* of a row between that it hasn't counted it would lose the next change, too */
	applies = sc_stream_by_relid(query->stream_relid, false)->applies;
	if (!sc_failure_resume(query->query_id, accept_gap && !applies, &had_gap))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("query \"%s\" is lost", get_rel_name(query->relid)),
				 errdetail("The WAL with its next rows is not kept any more."),
				 applies ? errhint("Call stream_ckpt.rebuild_query(query): changes of its stream are applied, so it can't go on without the rows between.") :
				 errhint(SC_HINT_LOST_QUERY)));
	if (had_gap)
		sc_query_set_preexisting(query->query_id);
	if (query->paused)
		sc_query_set_paused(query->query_id, false);
	sc_pipeline_changed(query->pipeline_id);
	PG_RETURN_VOID();
}
