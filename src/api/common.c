/*-------------------------------------------------------------------------
 * common.c
 *	  What the SQL functions share: commands in the caller's name, names,
 *	  ownership, and telling the workers.
 *
 * Users have no privileges on the extension's tables.  The functions check what
 * the caller may do, and then write through model/catalog_write.h; SPI runs
 * what is done in the caller's own name, and nothing else.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "model/log_stream.h"
#include "model/control.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "worker/frame/pipeline.h"

void
sc_user_execute(const char *command, int expected)
{
	int			result = SPI_execute(command, false, 0);

	if (result != expected)
		elog(ERROR, "\"%s\" failed: %s", command, SPI_result_code_string(result));
}

Datum
sc_first_value(int column, bool *isnull)
{
	bool		null;
	Datum		value;

	Assert(SPI_processed > 0);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &null);
	if (isnull)
		*isnull = null;
	return value;
}

char *
sc_qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

void
sc_check_relation_owner(Oid relid)
{
	if (!sc_owns_relation(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

bool
sc_owns_pipeline(const ScPipeline *pipeline)
{
	if (sc_owns_database(MyDatabaseId))
		return true;
	return strcmp(pipeline->name, SC_DEFAULT_PIPELINE) != 0 && !pipeline->lane &&
		has_privs_of_role(GetUserId(), pipeline->owner);
}

void
sc_check_pipeline_owner(const ScPipeline *pipeline)
{
	if (!sc_owns_pipeline(pipeline))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of pipeline \"%s\"", pipeline->name)));
}

void
sc_query_dropped(int64 query_id, int32 pipeline_id)
{
	ScControl	control = {0};

	control.kind = SC_CONTROL_DROP_QUERY;
	control.pipeline_id = pipeline_id;
	control.query_id = query_id;
	(void) sc_control_log(&control);
	sc_pipeline_changed(pipeline_id);
}

void
sc_not_supported(const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not supported yet", what),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

bool
sc_stream_has_history(const ScStream *stream)
{
	return !stream->processing_time && !sc_is_log_stream(stream->relid) && !sc_has_log_stream_partition(stream->relid);
}
