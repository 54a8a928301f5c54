/*-------------------------------------------------------------------------
 * log_stream_alter.c
 *	  What ALTER does to a log stream: queries that read it get its new options at one
 *	  place in the log, as from alter_stream(), and the event time follows when its column
 *	  is renamed.
 *
 * Called by the object access hook within the ALTER command, before its changes
 * are visible: the syscaches show what was, SnapshotSelf what will be.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_table.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "model/catalog_write.h"
#include "model/control.h"
#include "model/log_stream.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* The options that a log stream will have. */
static List *
new_options(Oid relid)
{
	Relation	rel = table_open(ForeignTableRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *options = NIL;

	ScanKeyInit(&key, Anum_pg_foreign_table_ftrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, ForeignTableRelidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_pg_foreign_table_ftoptions,
										 RelationGetDescr(rel), &isnull);

		if (!isnull)
			options = untransformRelOptions(datum);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return options;
}

void
sc_log_stream_options_altered(Oid relid)
{
	ScStream   *before = sc_log_stream_read(relid);
	ScStream   *after;

	if (before == NULL || !sc_extension_exists())
		return;
	/* nobody creates a query with the options before, and commits behind us */
	sc_stream_lock(relid, ExclusiveLock);
	if (!sc_streams_are_read(list_make1_oid(relid)))
		return;
	after = sc_log_stream_from_options(relid, new_options(relid));
	if (after->event_time_attno != before->event_time_attno || after->processing_time != before->processing_time)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot change the event time of stream \"%s\": queries read it",
						get_rel_name(relid)),
				 errdetail("Their windows are made of it."),
				 errhint("Drop the queries first, with stream_ckpt.drop_query().")));
	sc_control_log_options(after);
}

/* The name that a column will have; NULL where it isn't there. */
static char *
new_column_name(Oid relid, AttrNumber attno)
{
	Relation	rel = table_open(AttributeRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *name = NULL;

	ScanKeyInit(&keys[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attribute_attnum, BTEqualStrategyNumber, F_INT2EQ,
				Int16GetDatum(attno));
	scan = systable_beginscan(rel, AttributeRelidNumIndexId, true, SnapshotSelf, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) && !((Form_pg_attribute) GETSTRUCT(tuple))->attisdropped)
		name = pstrdup(NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return name;
}

/* Replaces the option event_time. */
static void
set_event_time(Oid relid, char *name)
{
	Relation	rel = table_open(ForeignTableRelationId, RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	DefElem    *option = makeDefElem(SC_OPTION_EVENT_TIME, (Node *) makeString(name), -1);
	Datum		values[Natts_pg_foreign_table] = {0};
	bool		nulls[Natts_pg_foreign_table] = {0};
	bool		replace[Natts_pg_foreign_table] = {0};

	option->defaction = DEFELEM_SET;
	ScanKeyInit(&key, Anum_pg_foreign_table_ftrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, ForeignTableRelidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		options = heap_getattr(tuple, Anum_pg_foreign_table_ftoptions,
										   RelationGetDescr(rel), &isnull);

		if (isnull)
			elog(ERROR, "foreign table %u has no options", relid);
		values[Anum_pg_foreign_table_ftoptions - 1] =
			transformGenericOptions(ForeignTableRelationId, options, list_make1(option),
									InvalidOid);
		replace[Anum_pg_foreign_table_ftoptions - 1] = true;
		tuple = heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace);
		CatalogTupleUpdate(rel, &tuple->t_self, tuple);
	}
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
}

void
sc_log_stream_column_altered(Oid relid, AttrNumber attno)
{
	ScStream   *stream = sc_log_stream_read(relid);
	char	   *name;

	if (stream == NULL || stream->event_time_attno != attno)
		return;
	name = new_column_name(relid, attno);
	if (name && strcmp(name, get_attname(relid, attno, false)) != 0)
		set_event_time(relid, name);
}
