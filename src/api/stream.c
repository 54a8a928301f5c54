/*-------------------------------------------------------------------------
 * stream.c
 *	  attach_stream and detach_stream.
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
#include "model/in_wal.h"
#include "model/log_stream.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "worker/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_attach_stream);
PG_FUNCTION_INFO_V1(stream_ckpt_detach_stream);

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
						"Its event time and its delays are options: ALTER FOREIGN TABLE ... OPTIONS (...).");
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

/* Partitions that exist must be in the WAL, too; later ones are refused then (model/in_wal.h). */
static void
check_partitions(Relation relation)
{
	Oid			part;
	const char *flaw = sc_relation_flaw(RelationGetRelid(relation), AccessShareLock, &part);

	if (flaw != NULL && part == RelationGetRelid(relation))
		refuse_relation(relation, psprintf("It is %s: its rows are not in the WAL.", flaw),
						"Attach an ordinary or partitioned table.");
	if (flaw != NULL)
		refuse_relation(relation,
						psprintf("Its partition \"%s\" is %s.", get_rel_name(part), flaw),
						strcmp(flaw, "unlogged") == 0 ? "Use ALTER TABLE ... SET LOGGED." :
						"Detach the partition, or attach other partitions one by one.");
	if (sc_relation_is_updated(RelationGetRelid(relation), &part))
		refuse_relation(relation,
						psprintf("\"%s\" is the result table of a query that updates its rows (emit 'update', or an allowed_lateness), and updates of a stream don't count yet.",
								 get_rel_name(part)),
						"Attach the result of a query with emit => 'close', or let the query read the same stream as this one.");
}

/* Microseconds, 0: none. */
static int64
check_idle_timeout(FunctionCallInfo fcinfo)
{
	int64		usecs;

	if (PG_ARGISNULL(3))
		return 0;
	usecs = sc_arg_usecs(fcinfo, 3, "idle_timeout");
	if (usecs == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"idle_timeout\" must be greater than zero"),
				 errhint("Leave it out where windows shall close only when later rows come.")));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"idle_timeout\" needs an event_time"),
				 errdetail("It is the stream's event time that goes on while no row comes.")));
	return usecs;
}

/* Everything that can be refused; the stream's row, ready to be inserted. */
static ScStream
check_stream(Oid relid, FunctionCallInfo fcinfo)
{
	Relation	relation = table_open(relid, AccessShareLock);
	ScStream	stream = {0};

	check_relation(relation);
	check_partitions(relation);
	if (sc_stream_by_relid(relid, true))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("\"%s\" is attached already", RelationGetRelationName(relation)),
				 errhint("Call stream_ckpt.detach_stream() first to attach it with other options.")));
	stream.relid = relid;
	stream.watermark_delay = sc_arg_usecs(fcinfo, 2, "watermark_delay");
	if (!PG_ARGISNULL(1))
		stream.event_time_attno = sc_event_time_attno(relid, NameStr(*PG_GETARG_NAME(1)));
	stream.idle_timeout = check_idle_timeout(fcinfo);
	table_close(relation, NoLock);
	return stream;
}

/*
 * attach_stream(relation regclass, event_time name, watermark_delay interval,
 * idle_timeout interval): captures an existing table's rows from the WAL.  Makes
 * the default pipeline's slot first, before this transaction has an id or a lock
 * on the table.
 */
Datum
stream_ckpt_attach_stream(PG_FUNCTION_ARGS)
{
	Oid			relid;
	ScStream	stream;

	sc_refuse_in_worker("attach_stream()");
	relid = DatumGetObjectId(sc_arg(fcinfo, 0, "relation"));
	(void) sc_arg_usecs(fcinfo, 2, "watermark_delay");
	(void) check_idle_timeout(fcinfo);

	if (get_rel_name(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	sc_check_relation_owner(relid);
	sc_pipeline_prepare_for_stream();

	sc_stream_lock(relid, ExclusiveLock);
	stream = check_stream(relid, fcinfo);
	sc_stream_insert(&stream);
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

		if (row->source == relid && get_rel_name(row->relid) != NULL)
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
