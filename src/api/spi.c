/*-------------------------------------------------------------------------
 * spi.c
 *	  Commands that SQL functions run, as the caller or on the extension's
 *	  catalogs.
 *
 * Users have no privileges on the extension's tables.  The functions check what
 * the caller may do, and then write as the extension's owner.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "api/spi_internal.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "model/control.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "worker/pipeline.h"

static Oid
relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
sc_catalog_execute(const char *command, int nargs, Oid *types, Datum *values,
				   const char *nulls)
{
	Oid			userid;
	int			sec_context;
	int			result;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(relation_owner(sc_relation_oid("pipeline")),
						   sec_context | SECURITY_LOCAL_USERID_CHANGE);
	result = SPI_execute_with_args(command, nargs, types, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "\"%s\" failed: %s", command, SPI_result_code_string(result));
	SetUserIdAndSecContext(userid, sec_context);
}

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
