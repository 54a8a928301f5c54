/*-------------------------------------------------------------------------
 * log_stream.c
 *	  Log streams in the catalogs: their options, and who may drop rows that nobody
 *	  reads.
 *
 * What a log stream is stands in its foreign table's options and nowhere else, so
 * that pg_dump, ALTER FOREIGN TABLE and DROP need no help of ours.
 *
 * Rows of a stream that no query reads are not written to the WAL.  That must not
 * lose a row that is committed after a query's creation: a writer that finds no
 * query takes a lock in share mode before it drops rows, and looks again; whoever
 * creates a query takes the same lock exclusively before its catalog entry, and so
 * waits for transactions that dropped rows.  A writer that can't have the lock at
 * once writes its rows to the WAL.  Hence the rule: nobody drops a row without
 * having looked for queries with the lock held.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/compat.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "model/catalog_columns.h"
#include "model/log_stream.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

ScLostPipeline sc_lost_pipeline = NULL;

/* objsubid of the lock; sc_stream_lock() has 0 */
#define UNREAD_LOCK		1

/* ---------- which relations ---------- */

static bool
is_our_server(Oid server)
{
	ForeignDataWrapper *wrapper = GetForeignDataWrapper(GetForeignServer(server)->fdwid);

	return strcmp(wrapper->fdwname, SC_FOREIGN_SERVER) == 0;
}

bool
sc_is_our_server(const char *name)
{
	Oid			server = get_foreign_server_oid(name, true);

	return OidIsValid(server) && is_our_server(server);
}

bool
sc_is_log_stream(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE &&
		is_our_server(GetForeignTable(relid)->serverid);
}

bool
sc_has_log_stream_partition(Oid relid)
{
	ListCell   *lc;

	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return false;
	foreach(lc, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		if (sc_is_log_stream(lfirst_oid(lc)))
			return true;
	}
	return false;
}

/* ---------- options ---------- */

static int64
option_usecs(DefElem *option)
{
	Datum		interval = DirectFunctionCall3(interval_in,
											   CStringGetDatum(defGetString(option)),
											   ObjectIdGetDatum(InvalidOid),
											   Int32GetDatum(-1));

	return sc_interval_usecs(DatumGetIntervalP(interval),
							 psprintf("option \"%s\"", option->defname));
}

void
sc_log_stream_check_option(DefElem *option)
{
	int64		usecs;

	if (strcmp(option->defname, SC_OPTION_EVENT_TIME) == 0)
	{
		char	   *name = defGetString(option);

		if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("option \"%s\" must be the name of a column, not \"%s\"",
							option->defname, name),
					 errhint("Name a column of the stream, or drop the option.")));
		return;
	}
	if (strcmp(option->defname, SC_OPTION_PROCESSING_TIME) == 0)
	{
		(void) defGetBoolean(option);
		return;
	}
	if (strcmp(option->defname, SC_OPTION_WATERMARK_DELAY) != 0 &&
		strcmp(option->defname, SC_OPTION_IDLE_TIMEOUT) != 0 &&
		strcmp(option->defname, SC_OPTION_MAX_AHEAD) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"", option->defname),
				 errhint("Valid options in this context are: %s, %s, %s, %s, %s.",
						 SC_OPTION_EVENT_TIME, SC_OPTION_WATERMARK_DELAY,
						 SC_OPTION_IDLE_TIMEOUT, SC_OPTION_MAX_AHEAD, SC_OPTION_PROCESSING_TIME)));
	usecs = option_usecs(option);
	if (usecs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"%s\" must not be negative", option->defname),
				 errhint("Give a length, as in '5 seconds'.")));
	sc_interval_check_reach(usecs, psprintf("option \"%s\"", option->defname));
	if (usecs == 0 && strcmp(option->defname, SC_OPTION_IDLE_TIMEOUT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"%s\" must be greater than zero", option->defname),
				 errhint("Drop the option to close windows only when later rows come.")));
}

void
sc_log_stream_check_options(List *options)
{
	bool		processing_time = false;
	const char *other = NULL;
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, SC_OPTION_PROCESSING_TIME) == 0)
			processing_time = defGetBoolean(option);
		else if (strcmp(option->defname, SC_OPTION_WATERMARK_DELAY) != 0)
			other = option->defname;
	}
	if (processing_time && other != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"%s\" cannot be used with \"%s\"", other, SC_OPTION_PROCESSING_TIME),
				 errdetail("With processing_time the event time is the time of the commit, which goes on with the clock."),
				 errhint("Drop one of them: OPTIONS (DROP %s).", other)));
}

/* The text of an option, or NULL. */
static char *
find_option(ForeignTable *table, const char *name)
{
	ListCell   *lc;

	foreach(lc, table->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

ScStream *
sc_log_stream_from_options(Oid relid, List *options)
{
	ScStream   *stream = palloc0(sizeof(ScStream));
	ListCell   *lc;

	stream->relid = relid;
	stream->is_log = true;
	stream->options.max_ahead = SC_NO_LIMIT;
	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, SC_OPTION_EVENT_TIME) == 0)
			stream->event_time_attno = Max(get_attnum(relid, defGetString(option)), 0);
		else if (strcmp(option->defname, SC_OPTION_WATERMARK_DELAY) == 0)
			stream->options.watermark_delay = option_usecs(option);
		else if (strcmp(option->defname, SC_OPTION_IDLE_TIMEOUT) == 0)
			stream->options.idle_timeout = option_usecs(option);
		else if (strcmp(option->defname, SC_OPTION_MAX_AHEAD) == 0)
			stream->options.max_ahead = option_usecs(option);
		else if (strcmp(option->defname, SC_OPTION_PROCESSING_TIME) == 0)
			stream->processing_time = defGetBoolean(option);
	}
	if (stream->processing_time)
		stream->options.idle_timeout = SC_IDLE_BY_CLOCK;
	return stream;
}

static ScStream *
read_options(Oid relid)
{
	return sc_log_stream_from_options(relid, GetForeignTable(relid)->options);
}

ScStream *
sc_log_stream_read(Oid relid)
{
	return sc_is_log_stream(relid) ? read_options(relid) : NULL;
}

List *
sc_log_stream_list(void)
{
	Relation	rel = table_open(ForeignTableRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	List	   *result = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			relid = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftrelid;

		/* dropped meanwhile: the syscache knows */
		if (SearchSysCacheExists1(FOREIGNTABLEREL, ObjectIdGetDatum(relid)) &&
			sc_is_log_stream(relid))
			result = lappend(result, read_options(relid));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* ---------- event time ---------- */

AttrNumber
sc_event_time_attno(Oid relid, const char *name)
{
	AttrNumber	attno = get_attnum(relid, name);
	Oid			type;

	if (attno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("event_time: column \"%s\" of \"%s\" does not exist",
						name, get_rel_name(relid)),
				 errhint("Name a column of type timestamptz or timestamp.")));
	if (sc_attribute_is_virtual(relid, attno))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("event_time: column \"%s\" is a virtual generated column", name),
				 errhint("Its values are not in the WAL: make it a stored one.")));
	type = getBaseType(get_atttype(relid, attno));
	if (type != TIMESTAMPTZOID && type != TIMESTAMPOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("event_time: column \"%s\" has type %s", name,
						format_type_be(type)),
				 errhint("The event time must be a timestamp with or without time zone.")));
	return attno;
}

AttrNumber
sc_log_stream_event_time(Oid relid)
{
	char	   *name = find_option(GetForeignTable(relid), SC_OPTION_EVENT_TIME);

	return name == NULL ? InvalidAttrNumber : sc_event_time_attno(relid, name);
}

/* ---------- rows that nobody reads ---------- */

/* OIDs of the extension's tables, kept for statements that insert a row or two. */
static struct
{
	bool		valid;
	Oid			query;
	Oid			source_index;
	Oid			stream;
}			tables;

/* Relation cache callback: they go with the extension, and come back with others. */
static void
tables_invalidate(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == tables.query ||
		relid == tables.source_index || relid == tables.stream)
		tables.valid = false;
}

/* Fills "tables" if it isn't valid.  In a transaction; fails if the extension isn't there. */
static void
find_tables(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(tables_invalidate, (Datum) 0);
		registered = true;
	}
	if (tables.valid)
		return;
	tables.query = sc_relation_oid("query");
	tables.source_index = sc_relation_oid("query_source_idx");
	tables.stream = sc_relation_oid("stream");
	tables.valid = true;
}

bool
sc_streams_are_read(List *relids)
{
	Relation	rel;
	bool		found = false;
	ListCell   *lc;

	find_tables();
	rel = table_open(tables.query, AccessShareLock);
	foreach(lc, relids)
	{
		ScanKeyData key;
		SysScanDesc scan;

		ScanKeyInit(&key, Anum_query_source, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(lfirst_oid(lc)));
		scan = systable_beginscan(rel, tables.source_index, true, NULL, 1, &key);
		found = HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
		if (found)
			break;
	}
	table_close(rel, AccessShareLock);
	return found;
}

bool
sc_stream_lock_unread(Oid relid)
{
	LOCKTAG		tag;

	find_tables();
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, tables.stream, relid, UNREAD_LOCK);
	return LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
sc_stream_lock_read(Oid relid)
{
	LockDatabaseObject(sc_relation_oid("stream"), relid, UNREAD_LOCK, ExclusiveLock);
}
