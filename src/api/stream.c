/*-------------------------------------------------------------------------
 * stream.c
 *	  attach_stream, alter_stream, reset_watermark, ignore_deletes and detach_stream.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "api/api_internal.h"
#include "base/process.h"
#include "catalog/catalog.h"
#include "catalog/pg_inherits.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "model/control.h"
#include "model/identity.h"
#include "model/ignore_deletes.h"
#include "model/in_wal.h"
#include "model/log_stream.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/timestamp.h"
#include "worker/frame/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_attach_stream);
PG_FUNCTION_INFO_V1(stream_ckpt_detach_stream);
PG_FUNCTION_INFO_V1(stream_ckpt_alter_stream);
PG_FUNCTION_INFO_V1(stream_ckpt_reset_watermark);
PG_FUNCTION_INFO_V1(stream_ckpt_ignore_deletes);

static void
refuse_relation(Relation relation, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot attach \"%s\" as a stream", RelationGetRelationName(relation)),
			 errdetail("%s", why),
			 errhint("%s", hint)));
}

/* Its rows must all be in the WAL, under its own name or its partitions'. */
static void
check_relation(Relation relation)
{
	char		kind = relation->rd_rel->relkind;
	const char *table_hint = "Attach an ordinary or partitioned table.";

	sc_check_relation_owner(RelationGetRelid(relation));
	if (sc_is_log_stream(RelationGetRelid(relation)))
		refuse_relation(relation, "It is a log stream: a stream already.",
						"Its event time is an option: ALTER FOREIGN TABLE ... OPTIONS (...).");
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		refuse_relation(relation, "It is not a table.", table_hint);
	if (IsCatalogRelation(relation) || RelationGetNamespace(relation) == sc_extension_schema())
		refuse_relation(relation, "It is a catalog.", table_hint);
	if (relation->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse_relation(relation, "Temporary tables are not in the WAL.", table_hint);
	if (relation->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_relation(relation, "Unlogged tables are not in the WAL.",
						"Use ALTER TABLE ... SET LOGGED.");
	if (kind == RELKIND_RELATION &&
		(has_superclass(RelationGetRelid(relation)) && !relation->rd_rel->relispartition))
		refuse_relation(relation, "It inherits from another table.",
						"Use declarative partitioning.");
	if (kind == RELKIND_RELATION && has_subclass(RelationGetRelid(relation)) &&
		find_inheritance_children(RelationGetRelid(relation), NoLock) != NIL)
		refuse_relation(relation, "Other tables inherit from it.",
						"Use declarative partitioning.");
	if (check_enable_rls(RelationGetRelid(relation), InvalidOid, true) == RLS_ENABLED)
		refuse_relation(relation, "Row-level security would hide rows from its owner.",
						"Use ALTER TABLE ... NO FORCE ROW LEVEL SECURITY.");
}

/* Fails if rows of the relation, or of a partition, are a query's that updates them. */
static void
refuse_ignored_updates(Oid relid)
{
	Oid			partition;

	if (sc_relation_is_updated(relid, &partition))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("changes of \"%s\" cannot be ignored", get_rel_name(relid)),
				 errdetail("\"%s\" is the result table of a query that updates its rows (emit 'update', or an allowed_lateness).",
						   get_rel_name(partition)),
				 errhint("Use changes => 'apply'.")));
}

/*
 * Partitions that exist must be in the WAL, too; later ones are refused then (model/in_wal.h).  A result whose rows are
 * updated is right only if its changes are applied.
 */
static void
check_partitions(Relation relation, bool applies)
{
	Oid			partition;
	const char *flaw = sc_relation_flaw(RelationGetRelid(relation), AccessShareLock, &partition);

	if (flaw != NULL && partition == RelationGetRelid(relation))
		refuse_relation(relation, psprintf("It is %s: its rows are not in the WAL.", flaw),
						"Attach an ordinary or partitioned table.");
	if (flaw != NULL)
		refuse_relation(relation,
						psprintf("Its partition \"%s\" is %s.", get_rel_name(partition), flaw),
						strcmp(flaw, "unlogged") == 0 ? "Use ALTER TABLE ... SET LOGGED." :
						"Detach the partition, or attach other partitions one by one.");
	if (!applies)
		refuse_ignored_updates(RelationGetRelid(relation));
}

/* The parameter idle_timeout: microseconds, 0: none. */
static int64
arg_idle_timeout(FunctionCallInfo fcinfo, int n)
{
	int64		usecs;

	if (PG_ARGISNULL(n))
		return 0;
	usecs = sc_arg_reach(fcinfo, n, "idle_timeout");
	if (usecs == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"idle_timeout\" must be greater than zero"),
				 errhint("NULL means that windows close only when later rows come.")));
	return usecs;
}

/* The parameter max_ahead: microseconds, SC_NO_LIMIT: none. */
static int64
arg_max_ahead(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? SC_NO_LIMIT : sc_arg_reach(fcinfo, n, "max_ahead");
}

static ScStreamOptions
attach_options(FunctionCallInfo fcinfo)
{
	ScStreamOptions options = {0};

	options.watermark_delay = sc_arg_reach(fcinfo, 2, "watermark_delay");
	options.idle_timeout = arg_idle_timeout(fcinfo, 3);
	options.max_ahead = arg_max_ahead(fcinfo, 4);
	return options;
}

/* The parameter changes, which isn't NULL: are they applied? */
static bool
arg_changes(FunctionCallInfo fcinfo, int n)
{
	char	   *changes = sc_arg_text(fcinfo, n, "changes");

	if (strcmp(changes, "apply") != 0 && strcmp(changes, "ignore") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"changes\" must be 'apply' or 'ignore', not '%s'", changes)));
	return strcmp(changes, "apply") == 0;
}

/* The event time of a row would be another one when it is deleted. */
static void
refuse_changes_of_commits(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("changes => 'apply' is not supported with processing_time"),
			 errdetail("A row that is changed or deleted must be found in the windows that it was counted in, and its commit is another one then."),
			 errhint("Give the table a column that keeps when a row was inserted, as inserted_at timestamptz NOT NULL DEFAULT clock_timestamp(), and make that its event_time; or use changes => 'ignore'.")));
}

/*
 * Whoever gave a table REPLICA IDENTITY FULL can have its changes applied, and may take it that they are.  The result of a
 * query has it too, and isn't changed.
 */
static void
tell_of_ignored_changes(Oid relid)
{
	Oid			which;

	if (!sc_identity_is_full(relid, &which) || sc_query_by_relid(relid, true) != NULL)
		return;
	ereport(NOTICE,
			(errmsg("queries will not count what UPDATE, DELETE and TRUNCATE do to \"%s\"", get_rel_name(relid)),
			 errhint("changes => 'apply' applies them to results; changes => 'ignore' leaves out this notice.")));
}

static void
require_event_time(bool has_event_time, const ScStreamOptions *options)
{
	if (options->idle_timeout > 0 && !has_event_time)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"idle_timeout\" needs an event_time"),
				 errdetail("It is the stream's event time that goes on while no row comes."),
				 errhint("Name its column, as event_time => 'ts', or leave idle_timeout out.")));
}

bool
sc_arg_processing_time(FunctionCallInfo fcinfo, int n, int event_time, int idle_timeout)
{
	const char *other = NULL;

	if (!DatumGetBool(sc_arg(fcinfo, n, "processing_time")))
		return false;
	if (!PG_ARGISNULL(event_time))
		other = "event_time";
	else if (!PG_ARGISNULL(idle_timeout))
		other = "idle_timeout";
	if (other != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" cannot be used with \"processing_time\"", other),
				 errdetail("With processing_time the event time is the time of the commit, which goes on with the clock."),
				 errhint("Leave one of them out.")));
	return true;
}

/* Everything that can be refused; the stream's row, ready to be inserted. */
static ScStream
check_stream(Oid relid, bool applies, FunctionCallInfo fcinfo)
{
	Relation	relation = table_open(relid, AccessShareLock);
	ScStream	stream = {0};

	check_relation(relation);
	check_partitions(relation, applies);
	if (sc_stream_by_relid(relid, true))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("\"%s\" is attached already", RelationGetRelationName(relation)),
				 errhint("Call stream_ckpt.detach_stream() first to attach it with other options.")));
	stream.relid = relid;
	stream.options = attach_options(fcinfo);
	stream.applies = applies;
	if (!PG_ARGISNULL(1))
		stream.event_time_attno = sc_event_time_attno(relid, NameStr(*PG_GETARG_NAME(1)));
	stream.processing_time = sc_arg_processing_time(fcinfo, 5, 1, 3);
	if (stream.processing_time)
		stream.options.max_ahead = SC_NO_LIMIT;
	table_close(relation, NoLock);
	return stream;
}

/*
 * attach_stream(relation regclass, event_time name, watermark_delay interval,
 * idle_timeout interval, max_ahead interval, processing_time boolean, changes text): captures an existing
 * table's rows from the WAL.  Makes the default pipeline's slot first, before this transaction has an id or a lock
 * on the table.
 */
Datum
stream_ckpt_attach_stream(PG_FUNCTION_ARGS)
{
	Oid			relid;
	ScStream	stream;
	ScStreamOptions options;
	Oid			partition;
	bool		applies;

	sc_refuse_in_worker("attach_stream()");
	/* the function of an older version has fewer parameters */
	sc_extension_require();
	relid = DatumGetObjectId(sc_arg(fcinfo, 0, "relation"));
	options = attach_options(fcinfo);
	if (!sc_arg_processing_time(fcinfo, 5, 1, 3))
		require_event_time(!PG_ARGISNULL(1), &options);
	applies = PG_ARGISNULL(6) ? sc_relation_is_updated(relid, &partition) : arg_changes(fcinfo, 6);
	if (applies && sc_arg_processing_time(fcinfo, 5, 1, 3))
		refuse_changes_of_commits();

	if (get_rel_name(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	sc_check_relation_owner(relid);
	sc_pipeline_prepare_for_stream();

	/* its identity is altered: in the order in which ALTER TABLE takes both locks */
	if (applies)
		LockRelationOid(relid, AccessExclusiveLock);
	sc_stream_lock(relid, ExclusiveLock);
	stream = check_stream(relid, applies, fcinfo);
	if (applies)
		sc_identity_set_full(relid);
	sc_stream_insert(&stream);
	if (PG_ARGISNULL(6))
		tell_of_ignored_changes(relid);
	PG_RETURN_VOID();
}

/* ---------- changing ---------- */

/* The default of alter_stream()'s parameters: what is left out stays.  NULL means "none". */
static bool
arg_is_left_out(FunctionCallInfo fcinfo, int n)
{
	Interval   *interval;

	if (PG_ARGISNULL(n))
		return false;
	interval = PG_GETARG_INTERVAL_P(n);
	return interval->month == 0 && interval->day == 0 && interval->time == -1;
}

/* A stream that the caller owns, locked until the end of the transaction; its table too, in "mode", if that isn't NoLock. */
static ScStream *
own_stream(FunctionCallInfo fcinfo, LOCKMODE mode)
{
	Oid			relid = DatumGetObjectId(sc_arg(fcinfo, 0, "stream"));

	sc_check_relation_owner(sc_stream_by_relid(relid, false)->relid);
	if (mode != NoLock)
		LockRelationOid(relid, mode);
	sc_stream_lock(relid, ExclusiveLock);
	return sc_stream_by_relid(relid, false);
}

/* What goes on with the clock by itself has no limits to it. */
static void
refuse_time_option(const ScStream *stream, const char *name)
{
	if (stream->processing_time)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" cannot be used for stream \"%s\"", name, get_rel_name(stream->relid)),
				 errdetail("It has processing_time: its event time is the time of the commit, which goes on with the clock."),
				 errhint("Leave it out: only watermark_delay can be changed.")));
}

/*
 * Changes of a stream begin, or cease, to be applied.  Its queries would keep what they have counted otherwise: so there
 * must be none.
 */
static void
alter_changes(ScStream *stream, bool applies)
{
	if (stream->is_log)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a log stream, whose rows can't be changed", get_rel_name(stream->relid)),
				 errhint("Leave out \"changes\".")));
	if (stream->applies == applies)
		return;
	if (stream->processing_time)
		refuse_changes_of_commits();
	sc_refuse_stream_with_readers(stream->relid, "change \"changes\" of");
	if (applies)
		sc_identity_set_full(stream->relid);
	else
		refuse_ignored_updates(stream->relid);
	stream->applies = applies;
}

/*
 * alter_stream(stream regclass, watermark_delay interval, idle_timeout interval,
 * max_ahead interval, changes text): new options, from one place in the log on.
 */
Datum
stream_ckpt_alter_stream(PG_FUNCTION_ARGS)
{
	ScStream   *stream;
	ScStreamOptions *options;
	bool		change;
	bool		applies;

	sc_refuse_in_worker("alter_stream()");
	/* the function of an older version has fewer parameters */
	sc_extension_require();
	change = !PG_ARGISNULL(4);
	applies = change && arg_changes(fcinfo, 4);
	stream = own_stream(fcinfo, applies ? AccessExclusiveLock : NoLock);
	options = &stream->options;
	if (!arg_is_left_out(fcinfo, 1))
		options->watermark_delay = sc_arg_reach(fcinfo, 1, "watermark_delay");
	if (!arg_is_left_out(fcinfo, 2))
	{
		refuse_time_option(stream, "idle_timeout");
		options->idle_timeout = arg_idle_timeout(fcinfo, 2);
	}
	if (!arg_is_left_out(fcinfo, 3))
	{
		refuse_time_option(stream, "max_ahead");
		options->max_ahead = arg_max_ahead(fcinfo, 3);
	}
	require_event_time(stream->event_time_attno != 0 || stream->processing_time, options);
	if (change)
		alter_changes(stream, applies);
	if (stream->is_log)
		sc_log_stream_alter(stream);
	else
	{
		sc_stream_update(stream);
		sc_control_log_options(stream);
	}
	PG_RETURN_VOID();
}

/*
 * reset_watermark(stream regclass, "to" timestamptz): where the watermark is, from one place
 * in the log on.
 */
Datum
stream_ckpt_reset_watermark(PG_FUNCTION_ARGS)
{
	ScControl	control = {0};
	ScStream   *stream;

	sc_refuse_in_worker("reset_watermark()");
	stream = own_stream(fcinfo, NoLock);
	control.kind = SC_CONTROL_RESET_WATERMARK;
	control.stream_relid = stream->relid;
	control.watermark = SC_NO_EVENT_TIME;
	if (!PG_ARGISNULL(1))
	{
		control.watermark = PG_GETARG_TIMESTAMPTZ(1);
		if (TIMESTAMP_NOT_FINITE(control.watermark))
			ereport(ERROR,
					(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					 errmsg("parameter \"to\" must be finite"),
					 errhint("Give a point in time; or leave it out for where the plausible event times put it.")));
	}
	/* under the stream's lock: who looks which windows are over (worker/frame/lose_partition.c) looks before, or knows of it */
	if (stream->applies)
	{
		stream->options.resets++;
		sc_stream_update(stream);
	}
	control.options = stream->options;
	(void) sc_control_log(&control);
	PG_RETURN_VOID();
}

/* ignore_deletes(stream regclass): what is deleted from here to the end of the transaction stays in results. */
Datum
stream_ckpt_ignore_deletes(PG_FUNCTION_ARGS)
{
	Oid			relid = DatumGetObjectId(sc_arg(fcinfo, 0, "stream"));

	sc_refuse_in_worker("ignore_deletes()");
	if (IsLogicalWorker())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ignore_deletes() cannot be called where logical replication applies changes")));
	sc_check_relation_owner(sc_stream_by_relid(relid, false)->relid);
	sc_stream_lock(relid, ShareLock);
	if (!sc_stream_by_relid(relid, false)->applies)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("changes of stream \"%s\" are not applied", get_rel_name(relid)),
				 errhint("What is deleted from it stays in results anyway.")));
	sc_ignore_deletes(relid);
	PG_RETURN_VOID();
}

/* The queries that read a stream, by name, or NULL. */
static char *
stream_readers(Oid relid)
{
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, sc_query_rows())
	{
		ScQueryRow *row = lfirst(lc);

		if (row->stream_relid == relid && get_rel_name(row->relid) != NULL)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 sc_qualified_name(row->relid));
	}
	return names.len > 0 ? names.data : NULL;
}

void
sc_refuse_stream_with_readers(Oid relid, const char *what)
{
	char	   *readers = stream_readers(relid);

	if (readers != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot %s \"%s\": queries read it", what, get_rel_name(relid)),
				 errdetail("Queries: %s.", readers),
				 errhint("Drop them first, with stream_ckpt.drop_query().")));
}

/* detach_stream(relation regclass): no row of it is captured any more. */
Datum
stream_ckpt_detach_stream(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);

	sc_refuse_in_worker("detach_stream()");
	sc_check_relation_owner(sc_stream_by_relid(relid, false)->relid);
	if (sc_is_log_stream(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a log stream, not an attached table", get_rel_name(relid)),
				 errhint("Drop it with stream_ckpt.drop_stream().")));
	sc_stream_lock(relid, ExclusiveLock);
	sc_refuse_stream_with_readers(relid, "detach");
	if (!sc_stream_delete(relid))
		(void) sc_stream_by_relid(relid, false);
	sc_pipeline_changed(sc_pipeline_by_name(SC_DEFAULT_PIPELINE, false)->pipeline_id);
	PG_RETURN_VOID();
}
