/*-------------------------------------------------------------------------
 * pipeline_state.c
 *	  A pipeline's row of stream_ckpt.pipeline_state (pipeline_state.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "catalog/pg_database.h"
#include "ckpt/pipeline_state.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/syscache.h"

/* A copy of the pipeline's row, or NULL. */
static HeapTuple
find_state(const ScCatalog *table, int32 pipeline_id)
{
	ScanKeyData key;

	sc_key_int4(&key, Anum_state_pipeline_id, pipeline_id);
	return sc_catalog_find(table, 1, &key);
}

/* Adds one to a counter. */
static int64
increment(ScCatalogRow *row, AttrNumber attno)
{
	int64		value = DatumGetInt64(sc_row_get(row, attno)) + 1;

	sc_row_set(row, attno, Int64GetDatum(value));
	return value;
}

/*
 * The locale, by which texts are sorted, is of what the database was made with: the provider, and its names.
 */
static char *
database_locale(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	bool		isnull;
	Datum		collate;
	Datum		other;
	char	   *result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	collate = SysCacheGetAttr(DATABASEOID, tuple, Anum_pg_database_datcollate, &isnull);
	result = psprintf("%c/%s", ((Form_pg_database) GETSTRUCT(tuple))->datlocprovider,
					  isnull ? "" : TextDatumGetCString(collate));
	other = SysCacheGetAttr(DATABASEOID, tuple, SC_ANUM_DATABASE_LOCALE, &isnull);
	if (!isnull)
		result = psprintf("%s/%s", result, TextDatumGetCString(other));
	ReleaseSysCache(tuple);
	return result;
}

char *
sc_platform(void)
{
#ifdef WORDS_BIGENDIAN
	const char *order = "big";
#else
	const char *order = "little";
#endif

	return psprintf("%s, locale %s, %d bits, %s-endian, aligned to %d", GetDatabaseEncodingName(), database_locale(),
					(int) sizeof(Datum) * 8, order, MAXIMUM_ALIGNOF);
}

/* The server whose WAL the position belongs to is this one. */
static void
set_server(ScCatalogRow *row)
{
	sc_row_set(row, Anum_state_system_identifier, Int64GetDatum((int64) GetSystemIdentifier()));
	sc_row_set(row, Anum_state_database, ObjectIdGetDatum(MyDatabaseId));
	sc_row_set(row, Anum_state_timeline, Int32GetDatum((int32) GetWALInsertionTimeLine()));
	sc_row_set(row, Anum_state_server_version, Int32GetDatum(PG_VERSION_NUM / 10000));
	sc_row_set(row, Anum_state_format, Int32GetDatum(SC_STATE_FORMAT));
	sc_row_set(row, Anum_state_platform, CStringGetTextDatum(sc_platform()));
}

/* Was the row written here?  If not, a restore has inserted it. */
static bool
is_own(const ScCatalogRow *row)
{
	return !sc_row_isnull(row, Anum_state_own) && DatumGetBool(sc_row_get(row, Anum_state_own));
}

/* Of a row that a restore has inserted only what wrote the state holds, whether a trigger has seen to it or not. */
static void
set_own(ScCatalogRow *row)
{
	if (!is_own(row))
	{
		sc_row_set(row, Anum_state_attempt, Int64GetDatum(0));
		sc_row_set(row, Anum_state_checkpoint_id, Int64GetDatum(0));
		sc_row_set_null(row, Anum_state_lsn);
		sc_row_set(row, Anum_state_completed, Int64GetDatum(0));
		sc_row_set(row, Anum_state_failed, Int64GetDatum(0));
		sc_row_set(row, Anum_state_restored, Int64GetDatum(0));
		sc_row_set(row, Anum_state_prepared, BoolGetDatum(false));
	}
	sc_row_set(row, Anum_state_own, BoolGetDatum(true));
}

ScPipelineState
sc_pipeline_state_read(int32 pipeline_id)
{
	ScPipelineState result = {0};
	ScCatalogRow row;
	ScCatalog	table;
	HeapTuple	tuple;

	sc_catalog_open(&table, "pipeline_state", AccessShareLock);
	tuple = find_state(&table, pipeline_id);
	if (tuple != NULL)
	{
		sc_row_read(&row, &table, tuple);
		set_own(&row);
		result.attempt = DatumGetInt64(sc_row_get(&row, Anum_state_attempt));
		result.checkpoint_id = DatumGetInt64(sc_row_get(&row, Anum_state_checkpoint_id));
		if (!sc_row_isnull(&row, Anum_state_lsn))
			result.lsn = DatumGetLSN(sc_row_get(&row, Anum_state_lsn));
		if (!sc_row_isnull(&row, Anum_state_system_identifier))
			result.system_identifier =
				(uint64) DatumGetInt64(sc_row_get(&row, Anum_state_system_identifier));
		if (!sc_row_isnull(&row, Anum_state_database))
			result.database = DatumGetObjectId(sc_row_get(&row, Anum_state_database));
		if (!sc_row_isnull(&row, Anum_state_timeline))
			result.timeline = (uint32) DatumGetInt32(sc_row_get(&row, Anum_state_timeline));
		if (!sc_row_isnull(&row, Anum_state_server_version))
			result.server_version = DatumGetInt32(sc_row_get(&row, Anum_state_server_version));
		if (!sc_row_isnull(&row, Anum_state_format))
			result.format = DatumGetInt32(sc_row_get(&row, Anum_state_format));
		if (!sc_row_isnull(&row, Anum_state_platform))
			result.platform = TextDatumGetCString(sc_row_get(&row, Anum_state_platform));
		result.prepared = DatumGetBool(sc_row_get(&row, Anum_state_prepared));
		/* what restore.c leaves of a row */
		result.dumped = result.checkpoint_id == 0 && XLogRecPtrIsInvalid(result.lsn) && result.server_version != 0;
		heap_freetuple(tuple);
	}
	sc_catalog_close(&table);
	return result;
}

bool
sc_pipeline_state_exists(int32 pipeline_id)
{
	ScCatalog	table;
	bool		result;

	sc_catalog_open(&table, "pipeline_state", AccessShareLock);
	result = find_state(&table, pipeline_id) != NULL;
	sc_catalog_close(&table);
	return result;
}

/* The row of a pipeline that never ran. */
static void
set_new_state(ScCatalogRow *row, int32 pipeline_id)
{
	sc_row_set(row, Anum_state_pipeline_id, Int32GetDatum(pipeline_id));
	sc_row_set(row, Anum_state_attempt, Int64GetDatum(0));
	sc_row_set(row, Anum_state_checkpoint_id, Int64GetDatum(0));
	sc_row_set(row, Anum_state_completed, Int64GetDatum(0));
	sc_row_set(row, Anum_state_failed, Int64GetDatum(0));
	sc_row_set(row, Anum_state_restored, Int64GetDatum(0));
	sc_row_set(row, Anum_state_prepared, BoolGetDatum(false));
}

int64
sc_pipeline_state_begin_attempt(int32 pipeline_id, bool restored)
{
	ScCatalogRow row = {0};
	ScCatalog	table;
	HeapTuple	tuple;
	int64		attempt;

	sc_catalog_open(&table, "pipeline_state", RowExclusiveLock);
	tuple = find_state(&table, pipeline_id);
	if (tuple != NULL)
		sc_row_read(&row, &table, tuple);
	else
		set_new_state(&row, pipeline_id);
	set_own(&row);
	attempt = increment(&row, Anum_state_attempt);
	if (restored)
		(void) increment(&row, Anum_state_restored);
	sc_catalog_put(&table, tuple, &row);
	sc_catalog_close(&table);
	CommandCounterIncrement();
	return attempt;
}

void
sc_pipeline_state_clear(int32 pipeline_id)
{
	ScCatalogRow row;
	ScCatalog	table;
	HeapTuple	tuple;

	sc_catalog_open(&table, "pipeline_state", RowExclusiveLock);
	tuple = find_state(&table, pipeline_id);
	if (tuple != NULL)
	{
		sc_row_read(&row, &table, tuple);
		if (!sc_row_isnull(&row, Anum_state_lsn))
		{
			sc_row_set_null(&row, Anum_state_lsn);
			sc_catalog_update(&table, tuple, &row);
		}
	}
	sc_catalog_close(&table);
}

List *
sc_prepared_pipelines(void)
{
	List	   *result = NIL;
	ScCatalog	table;
	ScCatalogScan scan;
	HeapTuple	tuple;

	sc_catalog_open(&table, "pipeline_state", AccessShareLock);
	sc_catalog_scan(&scan, &table, 0, NULL);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
	{
		ScCatalogRow row;

		sc_row_read(&row, &table, tuple);
		if (is_own(&row) && DatumGetBool(sc_row_get(&row, Anum_state_prepared)) &&
			sc_pipeline_by_id(DatumGetInt32(sc_row_get(&row, Anum_state_pipeline_id)), true) != NULL)
			result = lappend_int(result, DatumGetInt32(sc_row_get(&row, Anum_state_pipeline_id)));
	}
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	return result;
}

/* An error if the pipeline never ran: then it has nothing to keep. */
void
sc_pipeline_state_prepare(int32 pipeline_id, bool prepared)
{
	ScCatalogRow row = {0};
	ScCatalog	table;
	HeapTuple	tuple;

	sc_row_set(&row, Anum_state_prepared, BoolGetDatum(prepared));
	sc_catalog_open(&table, "pipeline_state", RowExclusiveLock);
	tuple = find_state(&table, pipeline_id);
	if (tuple == NULL)
		elog(ERROR, "pipeline %d has no state", pipeline_id);
	sc_catalog_update(&table, tuple, &row);
	sc_catalog_close(&table);
	CommandCounterIncrement();
}

void
sc_pipeline_state_adopt(int32 pipeline_id, XLogRecPtr lsn)
{
	ScCatalogRow row;
	ScCatalog	table;
	HeapTuple	tuple;

	sc_catalog_open(&table, "pipeline_state", RowExclusiveLock);
	tuple = find_state(&table, pipeline_id);
	if (tuple != NULL)
	{
		sc_row_read(&row, &table, tuple);
		set_own(&row);
		sc_row_set(&row, Anum_state_lsn, LSNGetDatum(lsn));
		set_server(&row);
		sc_catalog_update(&table, tuple, &row);
	}
	sc_catalog_close(&table);
	CommandCounterIncrement();
}

void
sc_pipeline_state_count_failure(int32 pipeline_id)
{
	ScCatalogRow row;
	ScCatalog	table;
	HeapTuple	tuple;

	sc_catalog_open(&table, "pipeline_state", RowExclusiveLock);
	tuple = find_state(&table, pipeline_id);
	if (tuple != NULL)
	{
		sc_row_read(&row, &table, tuple);
		(void) increment(&row, Anum_state_failed);
		sc_catalog_update(&table, tuple, &row);
	}
	sc_catalog_close(&table);
}

HeapTuple
sc_pipeline_state_of_attempt(const ScCatalog *table, int32 pipeline_id, int64 attempt)
{
	HeapTuple	tuple = find_state(table, pipeline_id);
	int64		current = 0;

	if (tuple != NULL)
	{
		ScCatalogRow row;

		sc_row_read(&row, table, tuple);
		current = DatumGetInt64(sc_row_get(&row, Anum_state_attempt));
	}
	if (tuple == NULL || current != attempt)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("attempt " INT64_FORMAT " of pipeline %d is over",
						attempt, pipeline_id),
				 errdetail("The current attempt is " INT64_FORMAT ".", current)));
	return tuple;
}

void
sc_pipeline_state_completed(const ScCatalog *table, HeapTuple tuple, int64 checkpoint_id,
							XLogRecPtr lsn)
{
	ScCatalogRow row;

	sc_row_read(&row, table, tuple);
	sc_row_set(&row, Anum_state_checkpoint_id, Int64GetDatum(checkpoint_id));
	sc_row_set(&row, Anum_state_lsn, LSNGetDatum(lsn));
	if (XLogRecPtrIsInvalid(lsn))
		sc_row_set_null(&row, Anum_state_lsn);
	(void) increment(&row, Anum_state_completed);
	set_server(&row);
	sc_catalog_update(table, tuple, &row);
}
