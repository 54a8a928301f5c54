/*-------------------------------------------------------------------------
 * catalog.c
 *	  Reading the extension's catalogs.
 *
 * The tables are read by direct scans (catalog_table.h): sessions of users who have
 * no privileges on them need the answers as much as background workers do, and no
 * setting or search_path of anybody can get between.  An answer is what is committed
 * now, plus what this transaction did itself.
 *
 * regclass columns may name relations that are gone (dropped while event triggers
 * were off): lists leave such rows out, look-ups don't find them.
 *
 * catalog_write.c is the other half.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "model/catalog.h"
#include "model/catalog_table.h"
#include "model/log_stream.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Turns a row of a table into its struct, or NULL to leave it out. */
typedef void *(*ReadRow) (const ScCatalogRow *row);

/* ---------- scanning ---------- */

/*
 * Reads the rows of the table "name" that match "key" (NULL: all), through "index" where
 * it isn't NULL, into a list of what "read" makes of them.
 */
static List *
scan_table(const char *name, const char *index, ScanKey key, ReadRow read)
{
	ScCatalog	table;
	ScCatalogScan scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	sc_catalog_open(&table, name, AccessShareLock);
	if (index != NULL)
		sc_catalog_scan_by(&scan, &table, index, 1, key);
	else
		sc_catalog_scan_all(&scan, &table);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
	{
		ScCatalogRow row;
		void	   *item;

		sc_row_read(&row, &table, tuple);
		item = read(&row);
		if (item != NULL)
			result = lappend(result, item);
	}
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	return result;
}

/* The same for at most one row; NULL where there is none. */
static void *
scan_one(const char *name, const char *index, ScanKey key, ReadRow read)
{
	List	   *rows = scan_table(name, index, key, read);

	return rows == NIL ? NULL : linitial(rows);
}

static bool
relation_exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

/* ---------- pipelines ---------- */

/* Copies all that is by reference: the row may go. */
static void *
read_pipeline(const ScCatalogRow *row)
{
	ScPipeline *pipeline = palloc0(sizeof(ScPipeline));

	pipeline->pipeline_id = DatumGetInt32(sc_row_get(row, Anum_pipeline_id));
	pipeline->name = pstrdup(NameStr(*DatumGetName(sc_row_get(row, Anum_pipeline_name))));
	pipeline->owner = DatumGetObjectId(sc_row_get(row, Anum_pipeline_owner));
	pipeline->parallelism = DatumGetInt32(sc_row_get(row, Anum_pipeline_parallelism));
	pipeline->checkpoint_interval =
		sc_interval_usecs(DatumGetIntervalP(sc_row_get(row, Anum_pipeline_interval)),
						  "checkpoint_interval");
	pipeline->state_backend =
		TextDatumGetCString(sc_row_get(row, Anum_pipeline_state_backend));
	pipeline->stopped = DatumGetBool(sc_row_get(row, Anum_pipeline_stopped));
	pipeline->lane = DatumGetBool(sc_row_get(row, Anum_pipeline_lane));
	return pipeline;
}

/* Palloc'd; NULL or an error if there is none. */
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

/* Palloc'd; NULL or an error if there is none. */
ScPipeline *
sc_pipeline_by_id(int32 pipeline_id, bool missing_ok)
{
	ScanKeyData key;
	ScPipeline *pipeline;

	sc_key_int4(&key, Anum_pipeline_id, pipeline_id);
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
optional_usecs(const ScCatalogRow *row, AttrNumber attno, const char *what, int64 none)
{
	return sc_row_isnull(row, attno) ? none :
		sc_interval_usecs(DatumGetIntervalP(sc_row_get(row, attno)), what);
}

/* NULL if the relation is gone. */
static void *
read_stream(const ScCatalogRow *row)
{
	ScStream   *stream;
	Oid			relid = DatumGetObjectId(sc_row_get(row, Anum_stream_relid));

	if (!relation_exists(relid))
		return NULL;

	stream = palloc0(sizeof(ScStream));
	stream->relid = relid;
	stream->options.watermark_delay =
		sc_interval_usecs(DatumGetIntervalP(sc_row_get(row, Anum_stream_watermark_delay)),
						  "watermark_delay");
	stream->options.idle_timeout =
		optional_usecs(row, Anum_stream_idle_timeout, "idle_timeout", 0);
	stream->options.max_ahead =
		optional_usecs(row, Anum_stream_max_ahead, "max_ahead", SC_NO_LIMIT);
	stream->options.resets = DatumGetInt64(sc_row_get(row, Anum_stream_resets));
	stream->processing_time = DatumGetBool(sc_row_get(row, Anum_stream_processing_time));
	if (stream->processing_time)
		stream->options.idle_timeout = SC_IDLE_BY_CLOCK;
	stream->applies = strcmp(TextDatumGetCString(sc_row_get(row, Anum_stream_changes)), "apply") == 0;
	if (!sc_row_isnull(row, Anum_stream_event_time))
	{
		Name		name = DatumGetName(sc_row_get(row, Anum_stream_event_time));
		bool		no_number = sc_row_isnull(row, Anum_stream_event_time_attnum);

		stream->event_time_attno =
			resolve_event_time(relid, NameStr(*name), no_number ? InvalidAttrNumber :
							   DatumGetInt16(sc_row_get(row, Anum_stream_event_time_attnum)));
	}
	return stream;
}

List *
sc_stream_list(void)
{
	return list_concat(scan_table("stream", NULL, NULL, read_stream),
					   sc_log_stream_list());
}

bool
sc_streams_apply(void)
{
	ListCell   *lc;

	foreach(lc, scan_table("stream", NULL, NULL, read_stream))
	{
		if (((ScStream *) lfirst(lc))->applies)
			return true;
	}
	return false;
}

ScStream *
sc_stream_by_relid(Oid relid, bool missing_ok)
{
	ScanKeyData key;
	ScStream   *stream;

	sc_key_oid(&key, Anum_stream_relid, relid);
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

/* Is a query to move to the pipeline? */
static bool
is_target(int32 pipeline_id)
{
	ListCell   *lc;

	foreach(lc, sc_query_list_all())
	{
		if (((ScQuery *) lfirst(lc))->target_id == pipeline_id)
			return true;
	}
	return false;
}

/*
 * Reads committed catalogs of this moment, whatever snapshot the caller has.  Targets first: what moves in between
 * is a query of the pipeline then.
 */
bool
sc_pipeline_in_use(const ScPipeline *pipeline)
{
	return is_target(pipeline->pipeline_id) || sc_query_list(pipeline->pipeline_id) != NIL ||
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

const char *
sc_emit_name(ScEmit emit)
{
	return emit == SC_EMIT_UPDATE ? "update" : emit == SC_EMIT_ROWS ? "rows" : "close";
}

static ScEmit
emit_by_name(const char *name)
{
	if (strcmp(name, "update") == 0)
		return SC_EMIT_UPDATE;
	return strcmp(name, "rows") == 0 ? SC_EMIT_ROWS : SC_EMIT_CLOSE;
}

/* NULL if its result table, view or stream is gone.  The owner is the view's. */
static void *
read_query(const ScCatalogRow *row)
{
	ScQuery    *query;
	Oid			relid = DatumGetObjectId(sc_row_get(row, Anum_query_relid));
	Oid			view = DatumGetObjectId(sc_row_get(row, Anum_query_definition));
	Oid			stream_relid = DatumGetObjectId(sc_row_get(row, Anum_query_source));
	Oid			owner = relation_owner(view);

	if (!OidIsValid(owner) || !relation_exists(relid) || !relation_exists(stream_relid))
		return NULL;

	query = palloc0(sizeof(ScQuery));
	query->query_id = DatumGetInt64(sc_row_get(row, Anum_query_id));
	query->relid = relid;
	query->definition = view;
	query->stream_relid = stream_relid;
	query->owner = owner;
	query->pipeline_id = DatumGetInt32(sc_row_get(row, Anum_query_pipeline_id));
	query->emit = emit_by_name(TextDatumGetCString(sc_row_get(row, Anum_query_emit)));
	query->allowed_lateness =
		sc_interval_usecs(DatumGetIntervalP(sc_row_get(row, Anum_query_allowed_lateness)),
						  "allowed_lateness");
	query->settings = read_settings(sc_row_get(row, Anum_query_settings));
	query->preexisting_rows =
		DatumGetBool(sc_row_get(row, Anum_query_preexisting_rows));
	query->keep_late_rows =
		DatumGetBool(sc_row_get(row, Anum_query_keep_late_rows));
	query->dead_letter =
		strcmp(TextDatumGetCString(sc_row_get(row, Anum_query_on_error)), "dead_letter") == 0;
	query->paused = DatumGetBool(sc_row_get(row, Anum_query_paused));
	query->parallelism = DatumGetInt32(sc_row_get(row, Anum_query_parallelism));
	if (!sc_row_isnull(row, Anum_query_ttl))
		query->ttl = sc_interval_usecs(DatumGetIntervalP(sc_row_get(row, Anum_query_ttl)), "ttl");
	query->backfill = DatumGetBool(sc_row_get(row, Anum_query_backfill));
	if (!sc_row_isnull(row, Anum_query_target_id))
		query->target_id = DatumGetInt32(sc_row_get(row, Anum_query_target_id));
	query->moving = DatumGetBool(sc_row_get(row, Anum_query_moving));
	query->empty_first = DatumGetBool(sc_row_get(row, Anum_query_empty_first));
	if (!sc_row_isnull(row, Anum_query_replaces))
		query->replaces = DatumGetInt64(sc_row_get(row, Anum_query_replaces));
	query->has_keep_before = !sc_row_isnull(row, Anum_query_keep_before);
	if (query->has_keep_before)
		query->keep_before = DatumGetTimestampTz(sc_row_get(row, Anum_query_keep_before));
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

	sc_key_int4(&key, Anum_query_pipeline_id, pipeline_id);
	queries = scan_table("query", "query_pipeline_id_idx", &key, read_query);
	list_sort(queries, compare_query_id);
	return queries;
}

List *
sc_query_list_all(void)
{
	return scan_table("query", NULL, NULL, read_query);
}

ScQuery *
sc_query_by_id(int64 query_id, bool missing_ok)
{
	ScanKeyData key;
	ScQuery    *query;

	sc_key_int8(&key, Anum_query_id, query_id);
	query = scan_one("query", "query_pkey", &key, read_query);
	if (query == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("query with id %lld does not exist", (long long) query_id),
				 errhint("See stream_ckpt.queries.")));
	return query;
}

bool
sc_query_is_uncommitted(int64 query_id)
{
	ScCatalog	table;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		result;

	sc_catalog_open(&table, "query", AccessShareLock);
	sc_key_int8(&key, Anum_query_id, query_id);
	tuple = sc_catalog_find(&table, 1, &key);
	result = tuple != NULL && TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(tuple->t_data));
	sc_catalog_close(&table);
	return result;
}

ScQuery *
sc_query_replacement(int64 query_id)
{
	ListCell   *lc;

	foreach(lc, sc_query_list_all())
	{
		ScQuery    *query = lfirst(lc);

		if (query->replaces == query_id)
			return query;
	}
	return NULL;
}

/* "relid" may be the query's result table or its view. */
ScQuery *
sc_query_by_relid(Oid relid, bool missing_ok)
{
	ScanKeyData key;
	ScQuery    *query;

	sc_key_oid(&key, Anum_query_relid, relid);
	query = scan_one("query", "query_relid_key", &key, read_query);
	if (query == NULL)
	{
		sc_key_oid(&key, Anum_query_definition, relid);
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
