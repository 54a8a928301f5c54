/*-------------------------------------------------------------------------
 * catalog_write.c
 *	  Writing the extension's catalogs.
 *
 * Ordinary users, who have no privileges on the tables, create and drop their own
 * queries through the functions of api/, which have checked them.
 *
 * Two transactions that change the same row: the second fails
 * (catalog_table.c).  The locks of this file and those on the relations keep
 * that rare.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "model/catalog_table.h"
#include "model/catalog_write.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* ---------- locks ---------- */

void
sc_stream_lock(Oid relid, LOCKMODE mode)
{
	LockDatabaseObject(sc_relation_oid("stream"), relid, 0, mode);
}

static bool
lock_conditional(const char *table, Oid id, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, sc_relation_oid(table), id, 0);
	if (LockAcquire(&tag, mode, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

bool
sc_stream_lock_conditional(Oid relid, LOCKMODE mode)
{
	return lock_conditional("stream", relid, mode);
}

void
sc_stream_unlock(Oid relid, LOCKMODE mode)
{
	UnlockDatabaseObject(sc_relation_oid("stream"), relid, 0, mode);
}

void
sc_pipeline_lock(int32 pipeline_id, LOCKMODE mode)
{
	LockDatabaseObject(sc_relation_oid("pipeline"), (Oid) pipeline_id, 0, mode);
}

bool
sc_pipeline_lock_conditional(int32 pipeline_id, LOCKMODE mode)
{
	return lock_conditional("pipeline", (Oid) pipeline_id, mode);
}

void
sc_query_lock(int64 query_id, LOCKMODE mode)
{
	LockDatabaseObject(sc_relation_oid("query"), (Oid) query_id, 0, mode);
}

bool
sc_query_lock_conditional(int64 query_id, LOCKMODE mode)
{
	return lock_conditional("query", (Oid) query_id, mode);
}

/* ---------- rows ---------- */

static void
insert_row(const char *name, const ScCatalogRow *row)
{
	ScCatalog	table;

	sc_catalog_open(&table, name, RowExclusiveLock);
	sc_catalog_insert(&table, row);
	sc_catalog_close(&table);
	CommandCounterIncrement();
}

/*
 * Deletes the rows that match "key"; returns how many.  Where there are none, the
 * transaction gets no id.
 */
static int
delete_rows(const char *name, ScanKey key)
{
	ScCatalog	table;
	ScCatalogScan scan;
	HeapTuple	tuple;
	int			count = 0;

	sc_catalog_open(&table, name, RowExclusiveLock);
	sc_catalog_scan(&scan, &table, 1, key);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
	{
		sc_catalog_delete(&table, tuple);
		count++;
	}
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	if (count > 0)
		CommandCounterIncrement();
	return count;
}

/* Changes the rows that match "key". */
static void
update_rows(const char *name, ScanKey key, const ScCatalogRow *change)
{
	ScCatalog	table;
	ScCatalogScan scan;
	HeapTuple	tuple;

	sc_catalog_open(&table, name, RowExclusiveLock);
	sc_catalog_scan(&scan, &table, 1, key);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
		sc_catalog_update(&table, tuple, change);
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	CommandCounterIncrement();
}

/* ---------- pipelines ---------- */

/*
 * The next number that isn't taken: after a dump was restored the sequence may
 * lie behind the rows.
 */
static int32
new_pipeline_id(void)
{
	Oid			sequence = sc_relation_oid("pipeline_pipeline_id_seq");
	int32		pipeline_id;

	do
	{
		pipeline_id = (int32) nextval_internal(sequence, false);
	} while (sc_pipeline_by_id(pipeline_id, true) != NULL);
	return pipeline_id;
}

int32
sc_pipeline_insert(const ScPipeline *pipeline)
{
	ScCatalogRow row = {0};
	NameData	name;
	int32		pipeline_id = pipeline->pipeline_id;

	if (pipeline_id == 0)
		pipeline_id = new_pipeline_id();
	namestrcpy(&name, pipeline->name);
	sc_row_set(&row, Anum_pipeline_id, Int32GetDatum(pipeline_id));
	sc_row_set(&row, Anum_pipeline_name, NameGetDatum(&name));
	sc_row_set(&row, Anum_pipeline_owner, ObjectIdGetDatum(pipeline->owner));
	sc_row_set(&row, Anum_pipeline_parallelism, Int32GetDatum(pipeline->parallelism));
	sc_row_set(&row, Anum_pipeline_interval,
			   sc_interval_datum(pipeline->checkpoint_interval));
	sc_row_set(&row, Anum_pipeline_state_backend,
			   CStringGetTextDatum(pipeline->state_backend));
	sc_row_set(&row, Anum_pipeline_stopped, BoolGetDatum(pipeline->stopped));
	sc_row_set(&row, Anum_pipeline_lane, BoolGetDatum(pipeline->lane));
	insert_row("pipeline", &row);
	return pipeline_id;
}

void
sc_pipeline_update(const ScPipeline *pipeline)
{
	ScCatalogRow row = {0};
	ScanKeyData key;

	sc_row_set(&row, Anum_pipeline_owner, ObjectIdGetDatum(pipeline->owner));
	sc_row_set(&row, Anum_pipeline_parallelism, Int32GetDatum(pipeline->parallelism));
	sc_row_set(&row, Anum_pipeline_interval,
			   sc_interval_datum(pipeline->checkpoint_interval));
	sc_row_set(&row, Anum_pipeline_stopped, BoolGetDatum(pipeline->stopped));
	sc_key_int4(&key, Anum_pipeline_id, pipeline->pipeline_id);
	update_rows("pipeline", &key, &row);
}

void
sc_pipeline_delete(int32 pipeline_id)
{
	ScanKeyData key;

	sc_key_int4(&key, Anum_checkpoint_pipeline_id, pipeline_id);
	(void) delete_rows("checkpoint", &key);
	sc_key_int4(&key, Anum_state_pipeline_id, pipeline_id);
	(void) delete_rows("pipeline_state", &key);
	sc_key_int4(&key, Anum_pipeline_id, pipeline_id);
	(void) delete_rows("pipeline", &key);
}

/* ---------- streams ---------- */

static void
set_stream_options(ScCatalogRow *row, const ScStream *stream)
{
	const ScStreamOptions *options = &stream->options;

	sc_row_set_interval(row, Anum_stream_watermark_delay, options->watermark_delay, false);
	sc_row_set_interval(row, Anum_stream_idle_timeout, options->idle_timeout,
				 options->idle_timeout == 0 || stream->processing_time);
	sc_row_set_interval(row, Anum_stream_max_ahead, options->max_ahead,
				 options->max_ahead == SC_NO_LIMIT);
	sc_row_set(row, Anum_stream_resets, Int64GetDatum(options->resets));
	sc_row_set(row, Anum_stream_changes, CStringGetTextDatum(stream->applies ? "apply" : "ignore"));
}

/*
 * Enters a stream that is an attached table: its event-time column by name and by number, and its
 * options.  Fails if it is entered already.
 */
void
sc_stream_insert(const ScStream *stream)
{
	ScCatalogRow row = {0};
	NameData	name;

	sc_row_set(&row, Anum_stream_relid, ObjectIdGetDatum(stream->relid));
	if (stream->event_time_attno != InvalidAttrNumber)
	{
		namestrcpy(&name, get_attname(stream->relid, stream->event_time_attno, false));
		sc_row_set(&row, Anum_stream_event_time, NameGetDatum(&name));
		sc_row_set(&row, Anum_stream_event_time_attnum,
				   Int16GetDatum(stream->event_time_attno));
	}
	sc_row_set(&row, Anum_stream_processing_time, BoolGetDatum(stream->processing_time));
	set_stream_options(&row, stream);
	insert_row("stream", &row);
}

void
sc_stream_update(const ScStream *stream)
{
	ScCatalogRow row = {0};
	ScanKeyData key;

	set_stream_options(&row, stream);
	sc_key_oid(&key, Anum_stream_relid, stream->relid);
	update_rows("stream", &key, &row);
}

bool
sc_stream_delete(Oid relid)
{
	ScanKeyData key;

	sc_key_oid(&key, Anum_stream_relid, relid);
	return delete_rows("stream", &key) > 0;
}

/* ---------- queries ---------- */

/* As new_pipeline_id. */
static int64
new_query_id(void)
{
	Oid			sequence = sc_relation_oid("query_query_id_seq");
	List	   *rows = sc_query_rows();
	int64		query_id;
	bool		taken;

	do
	{
		ListCell   *lc;

		query_id = nextval_internal(sequence, false);
		taken = false;
		foreach(lc, rows)
			taken |= ((ScQueryRow *) lfirst(lc))->query_id == query_id;
	} while (taken);
	return query_id;
}

static Datum
settings_datum(List *settings)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(list_length(settings), 1));
	int			count = 0;
	ListCell   *lc;

	foreach(lc, settings)
		values[count++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(values, count, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

int64
sc_query_insert(const ScQuery *query)
{
	ScCatalogRow row = {0};
	int64		query_id = new_query_id();

	sc_row_set(&row, Anum_query_id, Int64GetDatum(query_id));
	sc_row_set(&row, Anum_query_relid, ObjectIdGetDatum(query->relid));
	sc_row_set(&row, Anum_query_definition, ObjectIdGetDatum(query->definition));
	sc_row_set(&row, Anum_query_source, ObjectIdGetDatum(query->stream_relid));
	sc_row_set(&row, Anum_query_pipeline_id, Int32GetDatum(query->pipeline_id));
	sc_row_set(&row, Anum_query_emit, CStringGetTextDatum(sc_emit_name(query->emit)));
	sc_row_set(&row, Anum_query_allowed_lateness,
			   sc_interval_datum(query->allowed_lateness));
	sc_row_set(&row, Anum_query_keep_late_rows, BoolGetDatum(query->keep_late_rows));
	sc_row_set(&row, Anum_query_on_error, 
			   CStringGetTextDatum(query->dead_letter ? "dead_letter" : "stop"));
	sc_row_set(&row, Anum_query_settings, settings_datum(query->settings));
	sc_row_set(&row, Anum_query_preexisting_rows, BoolGetDatum(query->preexisting_rows));
	sc_row_set(&row, Anum_query_created_at,
			   TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	sc_row_set(&row, Anum_query_paused, BoolGetDatum(query->paused));
	sc_row_set(&row, Anum_query_parallelism, Int32GetDatum(query->parallelism));
	sc_row_set_interval(&row, Anum_query_ttl, query->ttl, query->ttl == 0);
	sc_row_set(&row, Anum_query_backfill, BoolGetDatum(query->backfill));
	if (query->target_id != 0)
		sc_row_set(&row, Anum_query_target_id, Int32GetDatum(query->target_id));
	sc_row_set(&row, Anum_query_moving, BoolGetDatum(query->moving));
	sc_row_set(&row, Anum_query_empty_first, BoolGetDatum(query->empty_first));
	if (query->replaces != 0)
		sc_row_set(&row, Anum_query_replaces, Int64GetDatum(query->replaces));
	if (query->has_keep_before)
		sc_row_set(&row, Anum_query_keep_before, TimestampTzGetDatum(query->keep_before));
	insert_row("query", &row);
	return query_id;
}

void
sc_query_set_preexisting(int64 query_id)
{
	ScCatalogRow row = {0};
	ScanKeyData key;

	sc_row_set(&row, Anum_query_preexisting_rows, BoolGetDatum(true));
	sc_key_int8(&key, Anum_query_id, query_id);
	update_rows("query", &key, &row);
}

void
sc_query_set_backfill(int64 query_id)
{
	ScCatalogRow row = {0};
	ScanKeyData key;

	sc_row_set(&row, Anum_query_backfill, BoolGetDatum(true));
	sc_key_int8(&key, Anum_query_id, query_id);
	update_rows("query", &key, &row);
}

void
sc_query_set_paused(int64 query_id, bool paused)
{
	ScCatalogRow row = {0};
	ScanKeyData key;

	sc_row_set(&row, Anum_query_paused, BoolGetDatum(paused));
	sc_key_int8(&key, Anum_query_id, query_id);
	update_rows("query", &key, &row);
}

void
sc_query_set_parallelism(int64 query_id, int32 parallelism)
{
	ScCatalogRow row = {0};
	ScanKeyData key;

	sc_row_set(&row, Anum_query_parallelism, Int32GetDatum(parallelism));
	sc_key_int8(&key, Anum_query_id, query_id);
	update_rows("query", &key, &row);
}

/* Writes pipeline_id, target_id and moving. */
void
sc_query_set_pipeline(const ScQuery *query)
{
	ScCatalogRow row = {0};
	ScanKeyData key;

	sc_row_set(&row, Anum_query_pipeline_id, Int32GetDatum(query->pipeline_id));
	if (query->target_id != 0)
		sc_row_set(&row, Anum_query_target_id, Int32GetDatum(query->target_id));
	else
		sc_row_set_null(&row, Anum_query_target_id);
	sc_row_set(&row, Anum_query_moving, BoolGetDatum(query->moving));
	sc_key_int8(&key, Anum_query_id, query->query_id);
	update_rows("query", &key, &row);
}

void
sc_query_set_replaced(int64 query_id, Oid relid)
{
	ScCatalogRow row = {0};
	ScanKeyData key;

	sc_row_set(&row, Anum_query_relid, ObjectIdGetDatum(relid));
	sc_row_set_null(&row, Anum_query_replaces);
	sc_row_set_null(&row, Anum_query_keep_before);
	sc_key_int8(&key, Anum_query_id, query_id);
	update_rows("query", &key, &row);
}

static ScQueryRow *
read_query_row(const ScCatalog *table, HeapTuple tuple)
{
	ScQueryRow *item = palloc0(sizeof(ScQueryRow));
	ScCatalogRow row;

	sc_row_read(&row, table, tuple);
	item->query_id = DatumGetInt64(sc_row_get(&row, Anum_query_id));
	item->pipeline_id = DatumGetInt32(sc_row_get(&row, Anum_query_pipeline_id));
	if (!sc_row_isnull(&row, Anum_query_target_id))
		item->target_id = DatumGetInt32(sc_row_get(&row, Anum_query_target_id));
	item->relid = DatumGetObjectId(sc_row_get(&row, Anum_query_relid));
	item->definition = DatumGetObjectId(sc_row_get(&row, Anum_query_definition));
	item->stream_relid = DatumGetObjectId(sc_row_get(&row, Anum_query_source));
	return item;
}

List *
sc_query_rows(void)
{
	ScCatalog	table;
	ScCatalogScan scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	sc_catalog_open(&table, "query", AccessShareLock);
	sc_catalog_scan_all(&scan, &table);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
		result = lappend(result, read_query_row(&table, tuple));
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	return result;
}

ScQueryRow *
sc_query_row(int64 query_id)
{
	ScCatalog	table;
	ScanKeyData key;
	HeapTuple	tuple;
	ScQueryRow *result = NULL;

	sc_catalog_open(&table, "query", AccessShareLock);
	sc_key_int8(&key, Anum_query_id, query_id);
	tuple = sc_catalog_find(&table, 1, &key);
	if (tuple != NULL)
		result = read_query_row(&table, tuple);
	sc_catalog_close(&table);
	return result;
}

void
sc_query_delete(int64 query_id)
{
	ScanKeyData key;

	sc_key_int8(&key, Anum_query_id, query_id);
	(void) delete_rows("query", &key);
}
