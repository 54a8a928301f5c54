/*-------------------------------------------------------------------------
 * offset.c
 *	  Rows of stream_ckpt.checkpoint_offset (offset.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

/* ---------- a row ---------- */

static int64
event_time(const ScCatalogRow *row, AttrNumber attno)
{
	return sc_row_isnull(row, attno) ? SC_NO_EVENT_TIME :
		DatumGetTimestampTz(sc_row_get(row, attno));
}

static void
set_event_time(ScCatalogRow *row, AttrNumber attno, int64 event_time)
{
	sc_row_set(row, attno, TimestampTzGetDatum(event_time));
	if (event_time == SC_NO_EVENT_TIME)
		sc_row_set_null(row, attno);
}

static int64
interval_usecs(const ScCatalogRow *row, AttrNumber attno, const char *what, int64 none)
{
	return sc_row_isnull(row, attno) ? none :
		sc_interval_usecs(DatumGetIntervalP(sc_row_get(row, attno)), what);
}

static void
set_ranges(ScCatalogRow *row, AttrNumber attno, const ScWindowRanges *ranges)
{
	if (ranges->n > 0)
		sc_row_set(row, attno, sc_ranges_datum(ranges));
	else
		sc_row_set_null(row, attno);
}

/* By ScPortable; what dumps are made by. */
static const char *const portable_names[] = {"no", "version", "yes"};

/* Of a value that isn't known: nowhere. */
static ScPortable
read_portable(Datum value)
{
	char	   *name = TextDatumGetCString(value);
	ScPortable	result = SC_PORTABLE_NO;

	for (int i = 0; i < lengthof(portable_names); i++)
	{
		if (strcmp(name, portable_names[i]) == 0)
			result = i;
	}
	return result;
}

/* An ScOffset (palloc'd) of a row. */
static ScOffset *
read_offset(const ScCatalogRow *row)
{
	ScOffset   *offset = palloc0(sizeof(ScOffset));

	offset->query_id = DatumGetInt64(sc_row_get(row, Anum_offset_query_id));
	offset->stream_relid = DatumGetObjectId(sc_row_get(row, Anum_offset_source));
	offset->checkpoint_id = DatumGetInt64(sc_row_get(row, Anum_offset_checkpoint_id));
	offset->own = !sc_row_isnull(row, Anum_offset_own) && DatumGetBool(sc_row_get(row, Anum_offset_own));
	offset->lsn = offset->own ? DatumGetLSN(sc_row_get(row, Anum_offset_lsn)) : SC_RESTORED_LSN;
	offset->time.max_event_time = event_time(row, Anum_offset_max_event_time);
	offset->time.plausible_time = event_time(row, Anum_offset_plausible_time);
	offset->time.closed_until = event_time(row, Anum_offset_closed_until);
	if (!sc_row_isnull(row, Anum_offset_closed_windows))
		sc_ranges_read(sc_row_get(row, Anum_offset_closed_windows), &offset->time.closed_windows);
	if (!sc_row_isnull(row, Anum_offset_ahead_windows))
		sc_ranges_read(sc_row_get(row, Anum_offset_ahead_windows), &offset->ahead_windows);
	offset->options.watermark_delay =
		interval_usecs(row, Anum_offset_watermark_delay, "watermark_delay", 0);
	offset->options.idle_timeout =
		interval_usecs(row, Anum_offset_idle_timeout, "idle_timeout", 0);
	offset->options.max_ahead =
		interval_usecs(row, Anum_offset_max_ahead, "max_ahead", SC_NO_LIMIT);
	offset->options.resets = DatumGetInt64(sc_row_get(row, Anum_offset_resets));
	offset->rows_in = DatumGetInt64(sc_row_get(row, Anum_offset_rows_in));
	offset->late_rows = DatumGetInt64(sc_row_get(row, Anum_offset_late_rows));
	offset->ahead_rows = DatumGetInt64(sc_row_get(row, Anum_offset_ahead_rows));
	offset->moved_rows = DatumGetInt64(sc_row_get(row, Anum_offset_moved_rows));
	offset->null_event_times = DatumGetInt64(sc_row_get(row, Anum_offset_null_event_times));
	offset->result_rows = DatumGetInt64(sc_row_get(row, Anum_offset_result_rows));
	offset->updates_ignored = DatumGetInt64(sc_row_get(row, Anum_offset_updates_ignored));
	offset->deletes_ignored = DatumGetInt64(sc_row_get(row, Anum_offset_deletes_ignored));
	offset->truncates_ignored = DatumGetInt64(sc_row_get(row, Anum_offset_truncates_ignored));
	offset->late_changes = DatumGetInt64(sc_row_get(row, Anum_offset_late_changes));
	offset->skipped_changes = DatumGetInt64(sc_row_get(row, Anum_offset_skipped_changes));
	offset->retracted_rows = DatumGetInt64(sc_row_get(row, Anum_offset_retracted_rows));
	offset->ntasks = DatumGetInt32(sc_row_get(row, Anum_offset_tasks));
	offset->groups = DatumGetInt64(sc_row_get(row, Anum_offset_groups));
	offset->state_bytes = DatumGetInt64(sc_row_get(row, Anum_offset_state_bytes));
	offset->age = DatumGetInt64(sc_row_get(row, Anum_offset_age));
	if (!sc_row_isnull(row, Anum_offset_active_lsn) && !sc_row_isnull(row, Anum_offset_active_at))
	{
		offset->active_lsn = DatumGetLSN(sc_row_get(row, Anum_offset_active_lsn));
		offset->active_at = DatumGetTimestampTz(sc_row_get(row, Anum_offset_active_at));
	}
	offset->portable = read_portable(sc_row_get(row, Anum_offset_portable));
	offset->endless = DatumGetBool(sc_row_get(row, Anum_offset_endless));
	offset->apart = !offset->own || DatumGetBool(sc_row_get(row, Anum_offset_apart));
	offset->recent.late = DatumGetInt64(sc_row_get(row, Anum_offset_recent_late));
	offset->recent.timeless = DatumGetInt64(sc_row_get(row, Anum_offset_recent_timeless));
	offset->recent.ignored = DatumGetInt64(sc_row_get(row, Anum_offset_recent_ignored));
	offset->recent.ahead = DatumGetInt64(sc_row_get(row, Anum_offset_recent_ahead));
	if (!sc_row_isnull(row, Anum_offset_recent_lsn))
		offset->recent_lsn = DatumGetLSN(sc_row_get(row, Anum_offset_recent_lsn));
	return offset;
}

static void
set_options(ScCatalogRow *row, const ScStreamOptions *options)
{
	sc_row_set_interval(row, Anum_offset_watermark_delay, options->watermark_delay, false);
	sc_row_set_interval(row, Anum_offset_idle_timeout, options->idle_timeout,
						options->idle_timeout == 0);
	sc_row_set_interval(row, Anum_offset_max_ahead, options->max_ahead,
						options->max_ahead == SC_NO_LIMIT);
	sc_row_set(row, Anum_offset_resets, Int64GetDatum(options->resets));
}

static void
set_time(ScCatalogRow *row, const ScEventTime *time)
{
	set_event_time(row, Anum_offset_max_event_time, time->max_event_time);
	set_event_time(row, Anum_offset_plausible_time, time->plausible_time);
	set_event_time(row, Anum_offset_closed_until, time->closed_until);
	set_ranges(row, Anum_offset_closed_windows, &time->closed_windows);
}

static void
set_active(ScCatalogRow *row, const ScOffset *offset)
{
	sc_row_set(row, Anum_offset_active_lsn, LSNGetDatum(offset->active_lsn));
	sc_row_set(row, Anum_offset_active_at, TimestampTzGetDatum(offset->active_at));
	if (offset->active_at == 0)
	{
		sc_row_set_null(row, Anum_offset_active_lsn);
		sc_row_set_null(row, Anum_offset_active_at);
	}
}

static void
set_recent(ScCatalogRow *row, const ScOffset *offset)
{
	sc_row_set(row, Anum_offset_recent_late, Int64GetDatum(offset->recent.late));
	sc_row_set(row, Anum_offset_recent_timeless, Int64GetDatum(offset->recent.timeless));
	sc_row_set(row, Anum_offset_recent_ignored, Int64GetDatum(offset->recent.ignored));
	sc_row_set(row, Anum_offset_recent_ahead, Int64GetDatum(offset->recent.ahead));
	sc_row_set(row, Anum_offset_recent_lsn, LSNGetDatum(offset->recent_lsn));
	if (XLogRecPtrIsInvalid(offset->recent_lsn))
		sc_row_set_null(row, Anum_offset_recent_lsn);
}

/* The inverse of read_offset: sets all columns. */
static void
set_offset(ScCatalogRow *row, const ScOffset *offset)
{
	sc_row_set(row, Anum_offset_query_id, Int64GetDatum(offset->query_id));
	sc_row_set(row, Anum_offset_source, ObjectIdGetDatum(offset->stream_relid));
	sc_row_set(row, Anum_offset_checkpoint_id, Int64GetDatum(offset->checkpoint_id));
	sc_row_set(row, Anum_offset_lsn, LSNGetDatum(offset->lsn));
	set_time(row, &offset->time);
	set_ranges(row, Anum_offset_ahead_windows, &offset->ahead_windows);
	set_options(row, &offset->options);
	sc_row_set(row, Anum_offset_ahead_rows, Int64GetDatum(offset->ahead_rows));
	sc_row_set(row, Anum_offset_moved_rows, Int64GetDatum(offset->moved_rows));
	sc_row_set(row, Anum_offset_rows_in, Int64GetDatum(offset->rows_in));
	sc_row_set(row, Anum_offset_late_rows, Int64GetDatum(offset->late_rows));
	sc_row_set(row, Anum_offset_null_event_times, Int64GetDatum(offset->null_event_times));
	sc_row_set(row, Anum_offset_result_rows, Int64GetDatum(offset->result_rows));
	sc_row_set(row, Anum_offset_updates_ignored, Int64GetDatum(offset->updates_ignored));
	sc_row_set(row, Anum_offset_deletes_ignored, Int64GetDatum(offset->deletes_ignored));
	sc_row_set(row, Anum_offset_truncates_ignored, Int64GetDatum(offset->truncates_ignored));
	sc_row_set(row, Anum_offset_late_changes, Int64GetDatum(offset->late_changes));
	sc_row_set(row, Anum_offset_skipped_changes, Int64GetDatum(offset->skipped_changes));
	sc_row_set(row, Anum_offset_retracted_rows, Int64GetDatum(offset->retracted_rows));
	sc_row_set(row, Anum_offset_tasks, Int32GetDatum(offset->ntasks));
	sc_row_set(row, Anum_offset_groups, Int64GetDatum(offset->groups));
	sc_row_set(row, Anum_offset_state_bytes, Int64GetDatum(offset->state_bytes));
	sc_row_set(row, Anum_offset_age, Int64GetDatum(offset->age));
	sc_row_set(row, Anum_offset_portable, CStringGetTextDatum(portable_names[offset->portable]));
	sc_row_set(row, Anum_offset_endless, BoolGetDatum(offset->endless));
	set_active(row, offset);
	sc_row_set(row, Anum_offset_apart, BoolGetDatum(offset->apart));
	set_recent(row, offset);
	sc_row_set(row, Anum_offset_own, BoolGetDatum(true));
}

/* ---------- reading ---------- */

/* The position that counts.  One that has no pipeline to go with has its own. */
static void
set_position(ScOffset *offset, const ScPipelineState *state)
{
	offset->apart |= XLogRecPtrIsInvalid(state->lsn);
	if (offset->apart)
		return;
	offset->lsn = state->lsn;
	offset->checkpoint_id = state->checkpoint_id;
}

/* Starts a scan of the query's offsets. */
static void
scan_offsets(ScCatalogScan *scan, const ScCatalog *table, int64 query_id)
{
	ScanKeyData key;

	sc_key_int8(&key, Anum_offset_query_id, query_id);
	sc_catalog_scan(scan, table, 1, &key);
}

List *
sc_offset_list(int32 pipeline_id)
{
	/* first: each scan has a snapshot of its own, and rows may be set apart in between */
	ScPipelineState state = sc_pipeline_state_read(pipeline_id);
	List	   *queries = sc_query_list(pipeline_id);
	List	   *result = NIL;
	ScCatalog	table;
	ListCell   *lc;

	sc_catalog_open(&table, "checkpoint_offset", AccessShareLock);
	foreach(lc, queries)
	{
		ScQuery    *query = lfirst(lc);
		ScCatalogScan scan;
		HeapTuple	tuple;

		scan_offsets(&scan, &table, query->query_id);
		while ((tuple = sc_catalog_next(&scan)) != NULL)
		{
			ScCatalogRow row;
			ScOffset   *offset;

			sc_row_read(&row, &table, tuple);
			offset = read_offset(&row);
			set_position(offset, &state);
			result = lappend(result, offset);
		}
		sc_catalog_scan_end(&scan);
	}
	sc_catalog_close(&table);
	return result;
}

bool
sc_offset_exists(int64 query_id)
{
	ScCatalog	table;
	ScCatalogScan scan;
	bool		result;

	sc_catalog_open(&table, "checkpoint_offset", AccessShareLock);
	scan_offsets(&scan, &table, query_id);
	result = sc_catalog_next(&scan) != NULL;
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	return result;
}

List *
sc_new_queries(int32 pipeline_id)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, sc_query_list(pipeline_id))
	{
		ScQuery    *query = lfirst(lc);

		if (query->backfill && !sc_offset_exists(query->query_id))
			result = lappend(result, query);
	}
	return result;
}

bool
sc_has_begun(int32 pipeline_id)
{
	return list_length(sc_query_list(pipeline_id)) > list_length(sc_new_queries(pipeline_id));
}

/* ---------- writing ---------- */

static int64
ignored(const ScOffset *offset)
{
	return offset->updates_ignored + offset->deletes_ignored + offset->truncates_ignored;
}

/* What wasn't counted since "old", the offset that is stored, and nobody asked for; as there, where nothing came. */
static void
note_uncounted(ScOffset *new, const ScOffset *old)
{
	new->recent = old->recent;
	new->recent_lsn = old->recent_lsn;
	if (new->rows_in == old->rows_in && ignored(new) == ignored(old))
		return;
	new->recent.late = new->late_rows - old->late_rows;
	new->recent.timeless = new->null_event_times - old->null_event_times;
	new->recent.ignored = new->applies ? 0 : ignored(new) - ignored(old);
	new->recent.ahead = new->ahead_rows - old->ahead_rows;
	new->recent_lsn = new->lsn;
}

void
sc_offset_put(const ScCatalog *table, const ScOffset *offset)
{
	ScCatalogRow row = {0};
	ScanKeyData keys[2];
	HeapTuple	tuple;
	ScOffset	none = {0};
	ScOffset	new = *offset;

	CommandCounterIncrement();
	sc_key_int8(&keys[0], Anum_offset_query_id, offset->query_id);
	sc_key_oid(&keys[1], Anum_offset_source, offset->stream_relid);
	tuple = sc_catalog_find(table, 2, keys);
	if (tuple != NULL)
		sc_row_read(&row, table, tuple);
	note_uncounted(&new, tuple ? read_offset(&row) : &none);
	set_offset(&row, &new);
	sc_catalog_put(table, tuple, &row);
}

/* Changes the query's rows. */
static void
change_offsets(const ScCatalog *table, int64 query_id, const ScCatalogRow *change)
{
	ScCatalogScan scan;
	HeapTuple	tuple;

	scan_offsets(&scan, table, query_id);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
		sc_catalog_update(table, tuple, change);
	sc_catalog_scan_end(&scan);
}

void
sc_offset_set_apart(const ScCatalog *table, int64 query_id, XLogRecPtr lsn)
{
	ScCatalogRow row = {0};

	sc_row_set(&row, Anum_offset_lsn, LSNGetDatum(lsn));
	sc_row_set(&row, Anum_offset_apart, BoolGetDatum(true));
	CommandCounterIncrement();
	change_offsets(table, query_id, &row);
}

void
sc_offset_delete(const ScCatalog *table, int64 query_id)
{
	ScCatalogScan scan;
	HeapTuple	tuple;

	scan_offsets(&scan, table, query_id);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
		sc_catalog_delete(table, tuple);
	sc_catalog_scan_end(&scan);
}

/* ---------- after a gap ---------- */

static void
change_outside(int64 query_id, const ScCatalogRow *change)
{
	ScCatalog	table;

	sc_catalog_open(&table, "checkpoint_offset", RowExclusiveLock);
	change_offsets(&table, query_id, change);
	sc_catalog_close(&table);
	CommandCounterIncrement();
}

void
sc_offset_move(int64 query_id, XLogRecPtr lsn, const ScStreamOptions *options)
{
	ScCatalogRow row = {0};

	sc_row_set(&row, Anum_offset_lsn, LSNGetDatum(lsn));
	sc_row_set(&row, Anum_offset_apart, BoolGetDatum(true));
	sc_row_set(&row, Anum_offset_own, BoolGetDatum(true));
	/* the gap may hold changes of them */
	set_options(&row, options);
	change_outside(query_id, &row);
}

void
sc_offset_close(int64 query_id, const ScWindowRanges *windows)
{
	ScCatalogRow row = {0};

	sc_row_set(&row, Anum_offset_closed_windows, sc_ranges_datum(windows));
	change_outside(query_id, &row);
}

void
sc_offset_without_state(int64 query_id)
{
	ScCatalogRow row = {0};

	sc_row_set(&row, Anum_offset_portable, CStringGetTextDatum(portable_names[SC_PORTABLE_NO]));
	sc_row_set(&row, Anum_offset_groups, Int64GetDatum(0));
	sc_row_set(&row, Anum_offset_state_bytes, Int64GetDatum(0));
	change_outside(query_id, &row);
}
