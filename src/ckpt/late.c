/*-------------------------------------------------------------------------
 * late.c
 *	  Writing and removing rows of stream_ckpt.late_rows (late.h).
 *
 * Direct access, past row-level security: who may see or delete a row is for
 * users' commands only (the policies are in the install script).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "ckpt/late.h"
#include "ckpt/store_internal.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

/* Columns of stream_ckpt.late_rows. */
#define LATE_QUERY			1
#define LATE_ROW			2
#define LATE_WINDOW_START	3
#define LATE_WINDOW_END		4
#define LATE_WATERMARK		5
#define LATE_LSN			6
#define LATE_ORDINAL		7
#define LATE_QUERY_ID		8
#define LATE_TYPES			9
#define LATE_ROW_TEXT		10
#define LATE_COLUMNS		10

struct ScLateWriter
{
	StoreTable	table;
	Oid			relid;			/* the query's result table */
	int64		query_id;
};

ScLateWriter *
sc_late_begin(const ScQuery *query)
{
	ScLateWriter *writer = palloc0(sizeof(ScLateWriter));

	writer->relid = query->relid;
	writer->query_id = query->query_id;
	sc_store_table_open(&writer->table, "late_rows", LATE_COLUMNS, RowExclusiveLock);
	return writer;
}

void
sc_late_add(ScLateWriter *writer, const ScLateRow *row)
{
	Datum		values[LATE_COLUMNS];
	bool		nulls[LATE_COLUMNS] = {0};
	HeapTuple	tuple;

	values[LATE_QUERY - 1] = ObjectIdGetDatum(writer->relid);
	values[LATE_ROW - 1] = row->row.row;
	nulls[LATE_ROW - 1] = row->row.row == (Datum) 0;
	values[LATE_TYPES - 1] = row->row.types;
	nulls[LATE_TYPES - 1] = row->row.types == (Datum) 0;
	values[LATE_ROW_TEXT - 1] = row->row.text;
	nulls[LATE_ROW_TEXT - 1] = row->row.text == (Datum) 0;
	values[LATE_WINDOW_START - 1] = TimestampTzGetDatum(row->window_start);
	values[LATE_WINDOW_END - 1] = TimestampTzGetDatum(row->window_end);
	values[LATE_WATERMARK - 1] = TimestampTzGetDatum(row->watermark);
	values[LATE_LSN - 1] = LSNGetDatum(row->lsn);
	values[LATE_ORDINAL - 1] = Int64GetDatum(row->ordinal);
	values[LATE_QUERY_ID - 1] = Int64GetDatum(writer->query_id);
	tuple = heap_form_tuple(RelationGetDescr(writer->table.rel), values, nulls);
	CatalogTupleInsertWithInfo(writer->table.rel, tuple, writer->table.indexes);
	heap_freetuple(tuple);
}

void
sc_late_end(ScLateWriter *writer)
{
	sc_store_table_close(&writer->table);
	pfree(writer);
}

bool
sc_late_delete(int64 query_id, bool wait)
{
	return sc_store_delete_kept("late_rows", LATE_COLUMNS, LATE_QUERY_ID, query_id, wait);
}
