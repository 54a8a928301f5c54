/*-------------------------------------------------------------------------
 * stream.c
 *	  attach_stream and detach_stream.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "api/spi_internal.h"
#include "base/process.h"
#include "catalog/catalog.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "source/slot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/timestamp.h"
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

/* The number of the event-time column. */
static AttrNumber
check_event_time(Relation relation, Name event_time)
{
	AttrNumber	attno = get_attnum(RelationGetRelid(relation), NameStr(*event_time));
	Oid			type;

	if (attno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("event_time: column \"%s\" of \"%s\" does not exist",
						NameStr(*event_time), RelationGetRelationName(relation))));
	type = get_atttype(RelationGetRelid(relation), attno);
	if (type != TIMESTAMPTZOID && type != TIMESTAMPOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("event_time: column \"%s\" has type %s", NameStr(*event_time),
						format_type_be(type)),
				 errhint("The event time must be a timestamp with or without time zone.")));
	return attno;
}

/*
 * attach_stream(relation regclass, event_time name, watermark_delay interval,
 * idle_timeout interval): captures an existing table's rows from the WAL.  Makes
 * the default pipeline's slot first, before this transaction has an id.
 */
Datum
stream_ckpt_attach_stream(PG_FUNCTION_ARGS)
{
	Oid			relid;
	int32		pipeline_id;
	Relation	relation;
	Oid			types[] = {OIDOID, NAMEOID, INT2OID, INTERVALOID};
	Datum		values[4] = {0};
	char		nulls[4] = {' ', 'n', 'n', ' '};

	sc_refuse_in_worker("attach_stream()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("relation must not be null")));
	if (PG_ARGISNULL(2))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("watermark_delay must not be null")));
	if (!PG_ARGISNULL(3))
		sc_not_supported("idle_timeout", "Leave it out: windows close when later rows come.");
	relid = PG_GETARG_OID(0);
	if (sc_interval_usecs(PG_GETARG_INTERVAL_P(2), "watermark_delay") < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("watermark_delay must not be negative")));

	relation = table_open(relid, AccessShareLock);
	check_relation(relation);
	if (sc_stream_by_relid(relid, true))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("\"%s\" is attached already", RelationGetRelationName(relation)),
				 errhint("Call stream_ckpt.detach_stream() first to attach it with other options.")));
	pipeline_id = sc_pipeline_by_name(SC_DEFAULT_PIPELINE, false)->pipeline_id;
	sc_pipeline_changed(pipeline_id);
	sc_slot_ensure(pipeline_id);

	values[0] = ObjectIdGetDatum(relid);
	if (!PG_ARGISNULL(1))
	{
		values[1] = PG_GETARG_DATUM(1);
		values[2] = Int16GetDatum(check_event_time(relation, PG_GETARG_NAME(1)));
		nulls[1] = nulls[2] = ' ';
	}
	values[3] = PG_GETARG_DATUM(2);
	SPI_connect();
	sc_catalog_execute("INSERT INTO stream_ckpt.stream (relid, event_time, event_time_attnum, watermark_delay) VALUES ($1, $2, $3, $4)",
					   4, types, values, nulls);
	SPI_finish();
	table_close(relation, NoLock);
	PG_RETURN_VOID();
}

/* detach_stream(relation regclass): no row of it is captured any more. */
Datum
stream_ckpt_detach_stream(PG_FUNCTION_ARGS)
{
	Oid			types[] = {OIDOID};
	Datum		values[1] = {PG_GETARG_DATUM(0)};
	Oid			relid = PG_GETARG_OID(0);
	bool		isnull;
	Datum		readers;

	sc_refuse_in_worker("detach_stream()");
	sc_check_relation_owner(sc_stream_by_relid(relid, false)->relid);
	SPI_connect();
	sc_catalog_execute("SELECT pg_catalog.string_agg(relid::text, ', ' ORDER BY query_id) FROM stream_ckpt.query WHERE source = $1",
					   1, types, values, NULL);
	readers = sc_first_value(1, &isnull);
	if (!isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot detach \"%s\": queries read it", get_rel_name(relid)),
				 errdetail("Queries: %s.", TextDatumGetCString(readers)),
				 errhint("Drop them first, with stream_ckpt.drop_query().")));
	sc_catalog_execute("DELETE FROM stream_ckpt.stream WHERE relid = $1", 1, types, values, NULL);
	SPI_finish();
	sc_pipeline_changed(sc_pipeline_by_name(SC_DEFAULT_PIPELINE, false)->pipeline_id);
	PG_RETURN_VOID();
}
