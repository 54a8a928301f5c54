/*-------------------------------------------------------------------------
 * args.c
 *	  What the SQL functions share: their arguments, and pipelines named by them.
 *
 * SQL functions of ours aren't strict, because NULL means something for a few of
 * their parameters; for the others it is refused here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "access/xact.h"
#include "api/api_internal.h"
#include "base/compat.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "source/wal/slot.h"
#include "utils/builtins.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/start.h"

/* ---------- arguments ---------- */

/* Has the parameter (from 0) of the SQL function that was called a default? */
static bool
has_default(FunctionCallInfo fcinfo, int n)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_proc function = (Form_pg_proc) GETSTRUCT(tuple);

		result = n >= function->pronargs - function->pronargdefaults;
		ReleaseSysCache(tuple);
	}
	return result;
}

Datum
sc_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("parameter \"%s\" must not be null", name),
				 has_default(fcinfo, n) ? errhint("Leave it out to have its default.") :
				 errhint("Give it a value.")));
	return PG_GETARG_DATUM(n);
}

char *
sc_arg_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	return TextDatumGetCString(sc_arg(fcinfo, n, name));
}

char *
sc_arg_name(FunctionCallInfo fcinfo, int n, const char *name)
{
	return pstrdup(NameStr(*DatumGetName(sc_arg(fcinfo, n, name))));
}

RangeVar *
sc_arg_relation(const char *name)
{
	List	   *names = NIL;
	char	   *copy = pstrdup(name);

	if (SplitIdentifierString(copy, '.', &names) && names != NIL && list_length(names) <= 3)
		return makeRangeVarFromNameList(sc_qualified_name_list(pstrdup(name)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_NAME),
			 errmsg("invalid name \"%s\"", name),
			 errhint("A name is an identifier, with a schema before it if you like: orders_per_minute, public.orders_per_minute. Quote what isn't a plain one: \"Orders per minute\".")));
	pg_unreachable();
}

int64
sc_arg_usecs(FunctionCallInfo fcinfo, int n, const char *name)
{
	Interval   *interval = DatumGetIntervalP(sc_arg(fcinfo, n, name));
	int64		usecs = sc_interval_usecs(interval, psprintf("parameter \"%s\"", name));

	if (usecs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" must not be negative", name),
				 errhint("Give a length, as in '5 seconds'.")));
	return usecs;
}

int64
sc_arg_reach(FunctionCallInfo fcinfo, int n, const char *name)
{
	int64		usecs = sc_arg_usecs(fcinfo, n, name);

	sc_interval_check_reach(usecs, psprintf("parameter \"%s\"", name));
	return usecs;
}

/* ---------- who may do what ---------- */

ScPipeline *
sc_owned_pipeline(const char *name)
{
	ScPipeline *pipeline = sc_pipeline_by_name(name, false);

	sc_check_pipeline_owner(pipeline);
	return pipeline;
}

ScPipeline *
sc_usable_pipeline(const char *name)
{
	ScPipeline *pipeline;

	if (strcmp(name, SC_DEFAULT_PIPELINE) == 0)
		return sc_pipeline_by_name(name, false);
	pipeline = sc_owned_pipeline(name);
	if (pipeline->lane)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pipeline \"%s\" is only for queries that begin with the rows of their stream", name),
				 errdetail("They go there by themselves, and leave it when they have these rows."),
				 errhint("Name another pipeline.")));
	return pipeline;
}

/* ---------- slots ---------- */

/* The WAL that a slot keeps which wasn't there can be unbounded. */
static void
tell_of_new_slot(const ScPipeline *pipeline)
{
	NameData	name;

	if (max_slot_wal_keep_size_mb >= 0)
		return;
	sc_slot_name(MyDatabaseId, pipeline->pipeline_id, &name);
	ereport(NOTICE,
			(errmsg("replication slot \"%s\" keeps WAL until pipeline \"%s\" has read it, without a bound",
					NameStr(name), pipeline->name),
			 errhint("Set \"max_slot_wal_keep_size\" to bound the disk space that a stopped pipeline can take.")));
}

void
sc_pipeline_prepare(const ScPipeline *pipeline)
{
	bool		existed = sc_slot_info(MyDatabaseId, pipeline->pipeline_id).exists;

	/* also after an abort: the slot may be there then, and nobody use it */
	sc_pipeline_changed(pipeline->pipeline_id);
	sc_slot_ensure(pipeline->pipeline_id);
	if (!existed)
		tell_of_new_slot(pipeline);
}

bool
sc_pipeline_use(const ScPipeline *pipeline)
{
	sc_pipeline_changed(pipeline->pipeline_id);
	if (sc_slot_use(pipeline->pipeline_id))
		return true;
	if (sc_slot_none_is_free(pipeline->pipeline_id))
		ereport(WARNING,
				(errmsg("the query does not begin yet: pipeline \"%s\" needs a replication slot, and none is free", pipeline->name),
				 errhint("Drop a slot that nobody needs (pg_replication_slots), or increase \"max_replication_slots\" and restart the server.")));
	/* others that wait for it have said so */
	if (sc_query_list(pipeline->pipeline_id) == NIL)
		tell_of_new_slot(pipeline);
	return false;
}

void
sc_pipeline_prepare_for_stream(void)
{
	ScPipeline *pipeline = sc_pipeline_by_name(SC_DEFAULT_PIPELINE, false);
	char	   *message;
	char	   *hint;

	if (sc_start_is_lost(pipeline->pipeline_id, &message, &hint))
		return;
	/* who makes it now may have to wait for hours, and a stream needs it only when there is a query */
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) && !sc_slot_is_being_made(pipeline->pipeline_id))
		sc_pipeline_prepare(pipeline);
	else
	{
		sc_pipeline_changed(pipeline->pipeline_id);
		(void) sc_slot_use(pipeline->pipeline_id);
	}
}

ScEmit
sc_arg_emit(FunctionCallInfo fcinfo, int n)
{
	char	   *emit;

	if (PG_ARGISNULL(n))
		return SC_EMIT_DEFAULT;
	emit = sc_arg_text(fcinfo, n, "emit");
	if (strcmp(emit, "close") != 0 && strcmp(emit, "update") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"emit\" must be 'close' or 'update', not '%s'", emit),
				 errhint("Leave it out for 'close' with a window, 'update' without; or if each row is one of the result.")));
	return strcmp(emit, "update") == 0 ? SC_EMIT_UPDATE : SC_EMIT_CLOSE;
}

bool
sc_looks_like_select(const char *text)
{
	while (scanner_isspace(*text))
		text++;
	return (pg_strncasecmp(text, "select", 6) == 0 && !isalnum((unsigned char) text[6]) && text[6] != '_') ||
		(pg_strncasecmp(text, "with", 4) == 0 && scanner_isspace(text[4]));
}
