/*-------------------------------------------------------------------------
 * catalog_write.c
 *	  Writing the extension's catalogs.
 *
 * Rows are written as DDL writes system catalogs, directly with their index
 * entries: ordinary users, who have no privileges on the tables, create and drop
 * their own queries through the functions of api/, which have checked them.  So
 * the tables must stay what this asks of them: NOT NULL and unique constraints
 * only, no triggers, and no expression or partial indexes.
 *
 * Two transactions that change the same row: the second fails ("tuple
 * concurrently updated"), as with DDL.  The locks of this file and those on the
 * relations keep that rare.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "model/catalog_columns.h"
#include "model/catalog_write.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* The widest table. */
#define MAX_NATTS Natts_offset

/* Changes the columns of a row: values, nulls and what is replaced. */
typedef struct RowChange
{
	Datum		values[MAX_NATTS];
	bool		nulls[MAX_NATTS];
	bool		replace[MAX_NATTS];
} RowChange;

/* ---------- locks ---------- */

void
sc_stream_lock(Oid relid, LOCKMODE mode)
{
	LockDatabaseObject(sc_relation_oid("stream"), relid, 0, mode);
}

void
sc_pipeline_lock(int32 pipeline_id, LOCKMODE mode)
{
	LockDatabaseObject(sc_relation_oid("pipeline"), (Oid) pipeline_id, 0, mode);
}

void
sc_query_lock(int64 query_id, LOCKMODE mode)
{
	LockDatabaseObject(sc_relation_oid("query"), (Oid) query_id, 0, mode);
}

/* ---------- rows ---------- */

static void
set_column(RowChange *change, AttrNumber attno, Datum value)
{
	change->values[attno - 1] = value;
	change->nulls[attno - 1] = false;
	change->replace[attno - 1] = true;
}

static void
set_null(RowChange *change, AttrNumber attno)
{
	change->nulls[attno - 1] = true;
	change->replace[attno - 1] = true;
}

static void
insert_row(const char *table, RowChange *change)
{
	Relation	rel = table_open(sc_relation_oid(table), RowExclusiveLock);
	HeapTuple	tuple;

	tuple = heap_form_tuple(RelationGetDescr(rel), change->values, change->nulls);
	CatalogTupleInsert(rel, tuple);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* Starts a scan of the rows that match "key" (NULL: all). */
static SysScanDesc
begin_scan(Relation rel, ScanKey key)
{
	return systable_beginscan(rel, InvalidOid, false, NULL, key ? 1 : 0, key);
}

/*
 * Deletes the rows that match "key"; returns how many.  Where there are none, the
 * transaction gets no id.
 */
static int
delete_rows(const char *table, ScanKey key)
{
	Relation	rel = table_open(sc_relation_oid(table), RowExclusiveLock);
	SysScanDesc scan = begin_scan(rel, key);
	HeapTuple	tuple;
	int			count = 0;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CatalogTupleDelete(rel, &tuple->t_self);
		count++;
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	if (count > 0)
		CommandCounterIncrement();
	return count;
}

/* Changes the rows that match "key". */
static void
update_rows(const char *table, ScanKey key, RowChange *change)
{
	Relation	rel = table_open(sc_relation_oid(table), RowExclusiveLock);
	SysScanDesc scan = begin_scan(rel, key);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		HeapTuple	changed = heap_modify_tuple(tuple, RelationGetDescr(rel),
												change->values, change->nulls,
												change->replace);

		CatalogTupleUpdate(rel, &changed->t_self, changed);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

static void
key_int4(ScanKey key, AttrNumber attno, int32 value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(value));
}

static void
key_int8(ScanKey key, AttrNumber attno, int64 value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(value));
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
	RowChange	row = {0};
	NameData	name;
	int32		pipeline_id = pipeline->pipeline_id;

	if (pipeline_id == 0)
		pipeline_id = new_pipeline_id();
	namestrcpy(&name, pipeline->name);
	set_column(&row, Anum_pipeline_id, Int32GetDatum(pipeline_id));
	set_column(&row, Anum_pipeline_name, NameGetDatum(&name));
	set_column(&row, Anum_pipeline_owner, ObjectIdGetDatum(pipeline->owner));
	set_column(&row, Anum_pipeline_parallelism, Int32GetDatum(pipeline->parallelism));
	set_column(&row, Anum_pipeline_interval,
			   sc_interval_datum(pipeline->checkpoint_interval));
	set_column(&row, Anum_pipeline_state_backend,
			   CStringGetTextDatum(pipeline->state_backend));
	set_column(&row, Anum_pipeline_stopped, BoolGetDatum(pipeline->stopped));
	insert_row("pipeline", &row);
	return pipeline_id;
}

void
sc_pipeline_update(const ScPipeline *pipeline)
{
	RowChange	row = {0};
	ScanKeyData key;

	set_column(&row, Anum_pipeline_owner, ObjectIdGetDatum(pipeline->owner));
	set_column(&row, Anum_pipeline_parallelism, Int32GetDatum(pipeline->parallelism));
	set_column(&row, Anum_pipeline_interval,
			   sc_interval_datum(pipeline->checkpoint_interval));
	set_column(&row, Anum_pipeline_stopped, BoolGetDatum(pipeline->stopped));
	key_int4(&key, Anum_pipeline_id, pipeline->pipeline_id);
	update_rows("pipeline", &key, &row);
}

void
sc_pipeline_delete(int32 pipeline_id)
{
	ScanKeyData key;

	key_int4(&key, Anum_checkpoint_pipeline_id, pipeline_id);
	(void) delete_rows("checkpoint", &key);
	key_int4(&key, Anum_state_pipeline_id, pipeline_id);
	(void) delete_rows("pipeline_state", &key);
	key_int4(&key, Anum_pipeline_id, pipeline_id);
	(void) delete_rows("pipeline", &key);
}

/* ---------- streams ---------- */

static void
set_interval(RowChange *row, AttrNumber attno, int64 usecs, bool isnull)
{
	if (isnull)
		set_null(row, attno);
	else
		set_column(row, attno, sc_interval_datum(usecs));
}

static void
set_stream_options(RowChange *row, const ScStreamOptions *options)
{
	set_interval(row, Anum_stream_watermark_delay, options->watermark_delay, false);
	set_interval(row, Anum_stream_idle_timeout, options->idle_timeout,
				 options->idle_timeout == 0);
	set_interval(row, Anum_stream_max_ahead, options->max_ahead,
				 options->max_ahead == SC_NO_LIMIT);
}

void
sc_stream_insert(const ScStream *stream)
{
	RowChange	row = {0};
	NameData	name;

	set_column(&row, Anum_stream_relid, ObjectIdGetDatum(stream->relid));
	if (stream->event_time_attno != InvalidAttrNumber)
	{
		namestrcpy(&name, get_attname(stream->relid, stream->event_time_attno, false));
		set_column(&row, Anum_stream_event_time, NameGetDatum(&name));
		set_column(&row, Anum_stream_event_time_attnum,
				   Int16GetDatum(stream->event_time_attno));
	}
	else
	{
		set_null(&row, Anum_stream_event_time);
		set_null(&row, Anum_stream_event_time_attnum);
	}
	set_stream_options(&row, &stream->options);
	insert_row("stream", &row);
}

void
sc_stream_update(const ScStream *stream)
{
	RowChange	row = {0};
	ScanKeyData key;

	set_stream_options(&row, &stream->options);
	ScanKeyInit(&key, Anum_stream_relid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(stream->relid));
	update_rows("stream", &key, &row);
}

bool
sc_stream_delete(Oid relid)
{
	ScanKeyData key;

	ScanKeyInit(&key, Anum_stream_relid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
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
	RowChange	row = {0};
	int64		query_id = new_query_id();
	const char *emit = query->emit == SC_EMIT_UPDATE ? "update" : "close";

	set_column(&row, Anum_query_id, Int64GetDatum(query_id));
	set_column(&row, Anum_query_relid, ObjectIdGetDatum(query->relid));
	set_column(&row, Anum_query_definition, ObjectIdGetDatum(query->definition));
	set_column(&row, Anum_query_source, ObjectIdGetDatum(query->source));
	set_column(&row, Anum_query_pipeline_id, Int32GetDatum(query->pipeline_id));
	set_column(&row, Anum_query_emit, CStringGetTextDatum(emit));
	set_column(&row, Anum_query_allowed_lateness,
			   sc_interval_datum(query->allowed_lateness));
	set_column(&row, Anum_query_keep_late_rows, BoolGetDatum(query->keep_late_rows));
	set_column(&row, Anum_query_on_error, 
			   CStringGetTextDatum(query->dead_letter ? "dead_letter" : "stop"));
	set_column(&row, Anum_query_settings, settings_datum(query->settings));
	set_column(&row, Anum_query_preexisting_rows, BoolGetDatum(query->preexisting_rows));
	set_column(&row, Anum_query_created_at,
			   TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	set_column(&row, Anum_query_paused, BoolGetDatum(query->paused));
	insert_row("query", &row);
	return query_id;
}

void
sc_query_set_preexisting(int64 query_id)
{
	RowChange	row = {0};
	ScanKeyData key;

	set_column(&row, Anum_query_preexisting_rows, BoolGetDatum(true));
	key_int8(&key, Anum_query_id, query_id);
	update_rows("query", &key, &row);
}

void
sc_query_set_paused(int64 query_id, bool paused)
{
	RowChange	row = {0};
	ScanKeyData key;

	set_column(&row, Anum_query_paused, BoolGetDatum(paused));
	key_int8(&key, Anum_query_id, query_id);
	update_rows("query", &key, &row);
}

List *
sc_query_rows(void)
{
	Relation	rel = table_open(sc_relation_oid("query"), AccessShareLock);
	SysScanDesc scan = begin_scan(rel, NULL);
	HeapTuple	tuple;
	List	   *result = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		ScQueryRow *row = palloc(sizeof(ScQueryRow));
		Datum		values[Natts_query];
		bool		nulls[Natts_query];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		row->query_id = DatumGetInt64(values[Anum_query_id - 1]);
		row->pipeline_id = DatumGetInt32(values[Anum_query_pipeline_id - 1]);
		row->relid = DatumGetObjectId(values[Anum_query_relid - 1]);
		row->definition = DatumGetObjectId(values[Anum_query_definition - 1]);
		row->source = DatumGetObjectId(values[Anum_query_source - 1]);
		result = lappend(result, row);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* The query's offset and state are removed by the next checkpoint of its pipeline. */
void
sc_query_delete(int64 query_id)
{
	ScanKeyData key;

	key_int8(&key, Anum_query_id, query_id);
	(void) delete_rows("query", &key);
}

/* ---------- after a gap ---------- */

void
sc_offset_move(int64 query_id, XLogRecPtr lsn, const ScStreamOptions *options)
{
	RowChange	row = {0};
	ScanKeyData key;

	set_column(&row, Anum_offset_lsn, LSNGetDatum(lsn));
	set_column(&row, Anum_offset_apart, BoolGetDatum(true));
	/* the gap may hold changes of them */
	set_interval(&row, Anum_offset_watermark_delay, options->watermark_delay, false);
	set_interval(&row, Anum_offset_idle_timeout, options->idle_timeout, options->idle_timeout == 0);
	set_interval(&row, Anum_offset_max_ahead, options->max_ahead,
				 options->max_ahead == SC_NO_LIMIT);
	key_int8(&key, Anum_offset_query_id, query_id);
	update_rows("checkpoint_offset", &key, &row);
}

void
sc_offset_close(int64 query_id, int64 until)
{
	RowChange	row = {0};
	ScanKeyData key;

	set_column(&row, Anum_offset_closed_until, TimestampTzGetDatum(until));
	key_int8(&key, Anum_offset_query_id, query_id);
	update_rows("checkpoint_offset", &key, &row);
}

void
sc_pipeline_state_adopt(int32 pipeline_id, XLogRecPtr lsn, int32 format)
{
	RowChange	row = {0};
	ScanKeyData key;

	set_column(&row, Anum_state_lsn, LSNGetDatum(lsn));
	set_column(&row, Anum_state_system_identifier,
			   Int64GetDatum((int64) GetSystemIdentifier()));
	set_column(&row, Anum_state_database, ObjectIdGetDatum(MyDatabaseId));
	set_column(&row, Anum_state_timeline, Int32GetDatum((int32) GetWALInsertionTimeLine()));
	set_column(&row, Anum_state_server_version, Int32GetDatum(PG_VERSION_NUM / 10000));
	set_column(&row, Anum_state_format, Int32GetDatum(format));
	key_int4(&key, Anum_state_pipeline_id, pipeline_id);
	update_rows("pipeline_state", &key, &row);
}

void
sc_query_delete_chunks(int64 query_id)
{
	ScanKeyData key;

	key_int8(&key, Anum_chunk_query_id, query_id);
	(void) delete_rows("state_chunk", &key);
}
