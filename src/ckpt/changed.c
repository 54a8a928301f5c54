/*-------------------------------------------------------------------------
 * changed.c
 *	  Rows of stream_ckpt.changed_windows (changed.h).
 *
 * Tasks know what they have noted since their last part, and nothing of what was before: here it is put together.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "ckpt/changed.h"
#include "model/catalog_table.h"
#include "utils/timestamp.h"

static ScWindowRange
read_range(const ScCatalog *table, HeapTuple tuple)
{
	ScCatalogRow row;

	sc_row_read(&row, table, tuple);
	return (ScWindowRange) {.start = DatumGetTimestampTz(sc_row_get(&row, Anum_changed_range_start)),
			.end = DatumGetTimestampTz(sc_row_get(&row, Anum_changed_range_end))};
}

static void
insert(const ScCatalog *table, int64 query_id, ScWindowRange range)
{
	ScCatalogRow row = {0};

	sc_row_set(&row, Anum_changed_query_id, Int64GetDatum(query_id));
	sc_row_set(&row, Anum_changed_range_start, TimestampTzGetDatum(range.start));
	sc_row_set(&row, Anum_changed_range_end, TimestampTzGetDatum(range.end));
	sc_catalog_insert(table, &row);
}

static void
scan_all(ScCatalogScan *scan, const ScCatalog *table, int64 query_id)
{
	ScanKeyData key;

	sc_key_int8(&key, Anum_changed_query_id, query_id);
	sc_catalog_scan(scan, table, 1, &key);
}

static ScRangeSet *
read_all(const ScCatalog *table, int64 query_id)
{
	ScRangeSet *set = palloc0(sizeof(ScRangeSet));
	ScCatalogScan rows;
	HeapTuple	tuple;

	scan_all(&rows, table, query_id);
	while ((tuple = sc_catalog_next(&rows)) != NULL)
	{
		ScWindowRange range = read_range(table, tuple);

		sc_range_set_add(set, range.start, range.end);
	}
	sc_catalog_scan_end(&rows);
	return set;
}

/* Deletes the query's rows but for those that "kept" has as they are (NULL: none). */
static void
delete_others(const ScCatalog *table, int64 query_id, const ScRangeSet *kept)
{
	ScCatalogScan rows;
	HeapTuple	tuple;
	int			i = 0;

	scan_all(&rows, table, query_id);
	while ((tuple = sc_catalog_next(&rows)) != NULL)
	{
		ScWindowRange range = read_range(table, tuple);

		/* both are in order */
		while (kept != NULL && i < kept->n && kept->ranges[i].start < range.start)
			i++;
		if (kept == NULL || i == kept->n || memcmp(&kept->ranges[i], &range, sizeof(range)) != 0)
			sc_catalog_delete(table, tuple);
	}
	sc_catalog_scan_end(&rows);
}

void
sc_changed_add(int64 query_id, const ScWindowRange *ranges, int64 n)
{
	ScCatalog	table;
	ScRangeSet *old;
	ScRangeSet	all = {0};

	CommandCounterIncrement();
	sc_catalog_open(&table, "changed_windows", RowExclusiveLock);
	old = read_all(&table, query_id);
	for (int i = 0; i < old->n; i++)
		sc_range_set_add(&all, old->ranges[i].start, old->ranges[i].end);
	for (int64 i = 0; i < n; i++)
		sc_range_set_add(&all, ranges[i].start, ranges[i].end);
	delete_others(&table, query_id, &all);
	CommandCounterIncrement();
	for (int i = 0, j = 0; i < all.n; i++)
	{
		while (j < old->n && old->ranges[j].start < all.ranges[i].start)
			j++;
		if (j == old->n || memcmp(&old->ranges[j], &all.ranges[i], sizeof(ScWindowRange)) != 0)
			insert(&table, query_id, all.ranges[i]);
	}
	sc_catalog_close(&table);
}

ScRangeSet *
sc_changed_read(int64 query_id)
{
	ScCatalog	table;
	ScRangeSet *set;

	sc_catalog_open(&table, "changed_windows", AccessShareLock);
	set = read_all(&table, query_id);
	sc_catalog_close(&table);
	return set;
}

void
sc_changed_delete(int64 query_id)
{
	ScCatalog	table;

	sc_catalog_open(&table, "changed_windows", RowExclusiveLock);
	delete_others(&table, query_id, NULL);
	sc_catalog_close(&table);
}
