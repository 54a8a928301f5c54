/*-------------------------------------------------------------------------
 * catalog.c
 *	  Reading the extension's catalogs.
 *
 * The tables are read by direct scans, without SPI: sessions of users who have no
 * privileges on them need the answers as much as background workers do, and no
 * setting or search_path of anybody can get between.  Every scan takes a fresh
 * catalog snapshot, as DDL does: an answer is what is committed now, plus what
 * this transaction did itself.
 *
 * regclass columns may name relations that are gone (dropped while event triggers
 * were off): lists leave such rows out, look-ups don't find them.
 *
 * catalog_write.c is the other half.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "model/catalog.h"
#include "model/catalog_columns.h"
#include "model/log_stream.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Turns a row of a table into its struct, or NULL to leave it out. */
typedef void *(*ReadRow) (HeapTuple tuple, TupleDesc desc);

/* ---------- the extension itself ---------- */

/* The version of the catalogs that this library works with: default_version of
 * stream_ckpt.control. */
#define SC_EXTENSION_VERSION "0.3.0"

/*
 * The extension's schema, or InvalidOid where the extension isn't installed;
 * *version: its installed version, palloc'd.
 */
static Oid
extension_schema(char **version)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			result = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("stream_ckpt"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		result = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
		*version = TextDatumGetCString(heap_getattr(tuple, Anum_pg_extension_extversion,
													RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

bool
sc_extension_exists(void)
{
	char	   *version;

	return OidIsValid(extension_schema(&version));
}

/* Compares "1.10.0" and "1.9": by the numbers between the dots. */
static int
compare_versions(const char *a, const char *b)
{
	while (*a || *b)
	{
		long		left = strtol(a, unconstify(char **, &a), 10);
		long		right = strtol(b, unconstify(char **, &b), 10);

		if (left != right)
			return left < right ? -1 : 1;
		a += strcspn(a, "0123456789");
		b += strcspn(b, "0123456789");
	}
	return 0;
}

bool
sc_extension_matches(char **message, char **hint)
{
	char	   *version = NULL;

	*message = *hint = NULL;
	if (!OidIsValid(extension_schema(&version)) ||
		strcmp(version, SC_EXTENSION_VERSION) == 0)
		return true;
	*message = psprintf("extension \"stream_ckpt\" has version %s in this database, and its library has version %s",
						version, SC_EXTENSION_VERSION);
	if (compare_versions(version, SC_EXTENSION_VERSION) < 0)
		*hint = "Run ALTER EXTENSION stream_ckpt UPDATE.";
	else
		*hint = "Install that version of the library, and restart the server.";
	return false;
}

void
sc_extension_require(void)
{
	char	   *message;
	char	   *hint;

	/* a script that creates or updates it is what makes them match */
	if (!creating_extension && !sc_extension_matches(&message, &hint))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", message),
				 errhint("%s", hint)));
}

Oid
sc_extension_schema(void)
{
	char	   *version;
	Oid			schema = extension_schema(&version);

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"stream_ckpt\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION stream_ckpt.")));
	return schema;
}

/* A table, index or sequence of our schema. */
Oid
sc_relation_oid(const char *relname)
{
	Oid			relid;

	sc_extension_require();
	relid = get_relname_relid(relname, sc_extension_schema());
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of extension \"stream_ckpt\" does not exist",
						relname),
				 errhint("Drop the extension and create it again, or update it with ALTER EXTENSION stream_ckpt UPDATE.")));
	return relid;
}

/* ---------- scanning ---------- */

/*
 * Reads the rows of "table" that match "key" (NULL: all), through "index" where
 * it isn't NULL, into a list of what "read" makes of them.
 */
static List *
scan_table(const char *table, const char *index, ScanKey key, ReadRow read)
{
	Relation	rel = table_open(sc_relation_oid(table), AccessShareLock);
	Oid			indexoid = index ? sc_relation_oid(index) : InvalidOid;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	scan = systable_beginscan(rel, indexoid, index != NULL, NULL,
							  key ? 1 : 0, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		void	   *row = read(tuple, RelationGetDescr(rel));

		if (row != NULL)
			result = lappend(result, row);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* The same for at most one row; NULL where there is none. */
static void *
scan_one(const char *table, const char *index, ScanKey key, ReadRow read)
{
	List	   *rows = scan_table(table, index, key, read);

	return rows == NIL ? NULL : linitial(rows);
}

/* A column that is declared NOT NULL. */
static Datum
column(HeapTuple tuple, AttrNumber attno, TupleDesc desc)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attno, desc, &isnull);

	if (isnull)
		elog(ERROR, "null value in column %d of a catalog of stream_ckpt", attno);
	return value;
}

static bool
relation_exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

/* ---------- pipelines ---------- */

static void *
read_pipeline(HeapTuple tuple, TupleDesc desc)
{
	ScPipeline *pipeline = palloc0(sizeof(ScPipeline));

	pipeline->pipeline_id = DatumGetInt32(column(tuple, Anum_pipeline_id, desc));
	pipeline->name = pstrdup(NameStr(*DatumGetName(column(tuple, Anum_pipeline_name, desc))));
	pipeline->owner = DatumGetObjectId(column(tuple, Anum_pipeline_owner, desc));
	pipeline->parallelism = DatumGetInt32(column(tuple, Anum_pipeline_parallelism, desc));
	pipeline->checkpoint_interval =
		sc_interval_usecs(DatumGetIntervalP(column(tuple, Anum_pipeline_interval, desc)),
						  "checkpoint_interval");
	pipeline->state_backend =
		TextDatumGetCString(column(tuple, Anum_pipeline_state_backend, desc));
	pipeline->stopped = DatumGetBool(column(tuple, Anum_pipeline_stopped, desc));
	return pipeline;
}

ScPipeline *
sc_pipeline_by_name(const char *name, bool missing_ok)
{
	NameData	key_name;
	ScanKeyData key;
	ScPipeline *pipeline;

	namestrcpy(&key_name, name);
	ScanKeyInit(&key, Anum_pipeline_name, BTEqualStrategyNumber, F_NAMEEQ,
				NameGetDatum(&key_name));
	pipeline = scan_one("pipeline", "pipeline_name_key", &key, read_pipeline);
	if (pipeline == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" does not exist", name),
				 errhint("See stream_ckpt.pipelines, or create it with stream_ckpt.create_pipeline().")));
	return pipeline;
}

ScPipeline *
sc_pipeline_by_id(int32 pipeline_id, bool missing_ok)
{
	ScanKeyData key;
	ScPipeline *pipeline;

	ScanKeyInit(&key, Anum_pipeline_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(pipeline_id));
	pipeline = scan_one("pipeline", "pipeline_pkey", &key, read_pipeline);
	if (pipeline == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline with id %d does not exist", pipeline_id),
				 errhint("See stream_ckpt.pipelines.")));
	return pipeline;
}

List *
sc_pipeline_list(void)
{
	return scan_table("pipeline", NULL, NULL, read_pipeline);
}

/* ---------- streams ---------- */

/*
 * The event-time column of a stream.  Its name is what a dump keeps, its number
 * what follows ALTER TABLE RENAME COLUMN: the number holds where its column has
 * that name still, or where no column has it any more; else the name does.
 * Returns 0 where the column was dropped.
 */
static AttrNumber
resolve_event_time(Oid relid, const char *name, AttrNumber attnum)
{
	char	   *current = get_attname(relid, attnum, true);
	AttrNumber	by_name;

	if (current != NULL && strcmp(current, name) == 0)
		return attnum;
	by_name = get_attnum(relid, name);
	if (by_name != InvalidAttrNumber)
		return by_name;
	return current != NULL ? attnum : InvalidAttrNumber;
}

/* Microseconds of an interval; "none" where it is NULL. */
static int64
optional_usecs(HeapTuple tuple, AttrNumber attno, TupleDesc desc, const char *what, int64 none)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attno, desc, &isnull);

	return isnull ? none : sc_interval_usecs(DatumGetIntervalP(value), what);
}

static void *
read_stream(HeapTuple tuple, TupleDesc desc)
{
	ScStream   *stream;
	Oid			relid = DatumGetObjectId(column(tuple, Anum_stream_relid, desc));
	Datum		name;
	bool		isnull;

	if (!relation_exists(relid))
		return NULL;

	stream = palloc0(sizeof(ScStream));
	stream->relid = relid;
	stream->options.watermark_delay =
		sc_interval_usecs(DatumGetIntervalP(column(tuple, Anum_stream_watermark_delay, desc)),
						  "watermark_delay");
	stream->options.idle_timeout =
		optional_usecs(tuple, Anum_stream_idle_timeout, desc, "idle_timeout", 0);
	stream->options.max_ahead =
		optional_usecs(tuple, Anum_stream_max_ahead, desc, "max_ahead", SC_NO_LIMIT);
	name = heap_getattr(tuple, Anum_stream_event_time, desc, &isnull);
	if (!isnull)
	{
		bool		no_number;
		Datum		number = heap_getattr(tuple, Anum_stream_event_time_attnum,
										  desc, &no_number);

		stream->event_time_attno =
			resolve_event_time(relid, NameStr(*DatumGetName(name)),
							   no_number ? InvalidAttrNumber : DatumGetInt16(number));
	}
	return stream;
}

List *
sc_stream_list(void)
{
	return list_concat(scan_table("stream", NULL, NULL, read_stream),
					   sc_log_stream_list());
}

ScStream *
sc_stream_by_relid(Oid relid, bool missing_ok)
{
	ScanKeyData key;
	ScStream   *stream;

	ScanKeyInit(&key, Anum_stream_relid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	stream = scan_one("stream", "stream_pkey", &key, read_stream);
	if (stream == NULL)
		stream = sc_log_stream_read(relid);
	if (stream == NULL && !missing_ok)
	{
		char	   *name = get_rel_name(relid);

		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("relation \"%s\" is not a stream",
						name ? name : psprintf("%u", relid)),
				 errhint("Attach it with stream_ckpt.attach_stream().")));
	}
	return stream;
}

/* Reads committed catalogs of this moment, whatever snapshot the caller has. */
bool
sc_pipeline_in_use(const ScPipeline *pipeline)
{
	return sc_query_list(pipeline->pipeline_id) != NIL ||
		(strcmp(pipeline->name, SC_DEFAULT_PIPELINE) == 0 && sc_stream_list() != NIL);
}

/* ---------- queries ---------- */

static List *
read_settings(Datum array)
{
	Datum	   *values;
	int			count;
	List	   *result = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &values, NULL, &count);
	for (int i = 0; i < count; i++)
		result = lappend(result, TextDatumGetCString(values[i]));
	return result;
}

/* Owner of a relation, or InvalidOid where it doesn't exist. */
static Oid
relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

static void *
read_query(HeapTuple tuple, TupleDesc desc)
{
	ScQuery    *query;
	Oid			relid = DatumGetObjectId(column(tuple, Anum_query_relid, desc));
	Oid			view = DatumGetObjectId(column(tuple, Anum_query_definition, desc));
	Oid			source = DatumGetObjectId(column(tuple, Anum_query_source, desc));
	Oid			owner = relation_owner(view);
	char	   *emit;

	if (!OidIsValid(owner) || !relation_exists(relid) || !relation_exists(source))
		return NULL;

	query = palloc0(sizeof(ScQuery));
	query->query_id = DatumGetInt64(column(tuple, Anum_query_id, desc));
	query->relid = relid;
	query->definition = view;
	query->source = source;
	query->owner = owner;
	query->pipeline_id = DatumGetInt32(column(tuple, Anum_query_pipeline_id, desc));
	emit = TextDatumGetCString(column(tuple, Anum_query_emit, desc));
	query->emit = strcmp(emit, "update") == 0 ? SC_EMIT_UPDATE : SC_EMIT_CLOSE;
	query->allowed_lateness =
		sc_interval_usecs(DatumGetIntervalP(column(tuple, Anum_query_allowed_lateness, desc)),
						  "allowed_lateness");
	query->settings = read_settings(column(tuple, Anum_query_settings, desc));
	query->preexisting_rows =
		DatumGetBool(column(tuple, Anum_query_preexisting_rows, desc));
	query->keep_late_rows =
		DatumGetBool(column(tuple, Anum_query_keep_late_rows, desc));
	query->dead_letter =
		strcmp(TextDatumGetCString(column(tuple, Anum_query_on_error, desc)), "dead_letter") == 0;
	query->paused = DatumGetBool(column(tuple, Anum_query_paused, desc));
	return query;
}

static int
compare_query_id(const ListCell *a, const ListCell *b)
{
	int64		left = ((const ScQuery *) lfirst(a))->query_id;
	int64		right = ((const ScQuery *) lfirst(b))->query_id;

	return left < right ? -1 : (left > right ? 1 : 0);
}

List *
sc_query_list(int32 pipeline_id)
{
	ScanKeyData key;
	List	   *queries;

	ScanKeyInit(&key, Anum_query_pipeline_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(pipeline_id));
	queries = scan_table("query", "query_pipeline_id_idx", &key, read_query);
	list_sort(queries, compare_query_id);
	return queries;
}

ScQuery *
sc_query_by_id(int64 query_id, bool missing_ok)
{
	ScanKeyData key;
	ScQuery    *query;

	ScanKeyInit(&key, Anum_query_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(query_id));
	query = scan_one("query", "query_pkey", &key, read_query);
	if (query == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("query with id %lld does not exist", (long long) query_id),
				 errhint("See stream_ckpt.queries.")));
	return query;
}

/* "relid" may be the query's result table or its view. */
ScQuery *
sc_query_by_relid(Oid relid, bool missing_ok)
{
	ScanKeyData key;
	ScQuery    *query;

	ScanKeyInit(&key, Anum_query_relid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	query = scan_one("query", "query_relid_key", &key, read_query);
	if (query == NULL)
	{
		ScanKeyInit(&key, Anum_query_definition, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(relid));
		query = scan_one("query", "query_definition_key", &key, read_query);
	}
	if (query == NULL && !missing_ok)
	{
		char	   *name = get_rel_name(relid);

		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("relation \"%s\" is not a continuous query",
						name ? name : psprintf("%u", relid)),
				 errhint("Name its result table or its definition view; see stream_ckpt.queries.")));
	}
	return query;
}
