/*-------------------------------------------------------------------------
 * late.c
 *	  Writing and removing rows of stream_ckpt.late_rows (late.h).
 *
 * Direct access, past row-level security: who may see or delete a row is for
 * users' commands only (the policies are in the install script).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ckpt/late.h"
#include "ckpt/retained_table.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

struct ScLateWriter
{
	ScCatalog	table;
	Oid			relid;			/* the query's result table */
	int64		query_id;
};

ScLateWriter *
sc_late_begin(const ScQuery *query)
{
	ScLateWriter *writer = palloc0(sizeof(ScLateWriter));

	writer->relid = query->relid;
	writer->query_id = query->query_id;
	sc_catalog_open(&writer->table, "late_rows", RowExclusiveLock);
	return writer;
}

/* Inserts one row.  In the checkpoint's transaction. */
void
sc_late_add(ScLateWriter *writer, const ScLateRow *late)
{
	ScCatalogRow row = {0};

	sc_row_set(&row, Anum_late_query, ObjectIdGetDatum(writer->relid));
	sc_retained_row_set(&row, &late->row, Anum_late_row, Anum_late_types, Anum_late_row_text);
	sc_row_set(&row, Anum_late_window_start, TimestampTzGetDatum(late->window_start));
	sc_row_set(&row, Anum_late_window_end, TimestampTzGetDatum(late->window_end));
	sc_row_set(&row, Anum_late_watermark, TimestampTzGetDatum(late->watermark));
	sc_row_set(&row, Anum_late_lsn, LSNGetDatum(late->lsn));
	sc_row_set(&row, Anum_late_ordinal, Int64GetDatum(late->ordinal));
	sc_row_set(&row, Anum_late_query_id, Int64GetDatum(writer->query_id));
	sc_catalog_insert(&writer->table, &row);
}

void
sc_late_end(ScLateWriter *writer)
{
	sc_catalog_close(&writer->table);
	pfree(writer);
}

bool
sc_late_delete(int64 query_id, bool wait)
{
	return sc_retained_delete("late_rows", Anum_late_query_id, query_id, wait);
}
