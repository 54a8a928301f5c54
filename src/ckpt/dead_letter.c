/*-------------------------------------------------------------------------
 * dead_letter.c
 *	  Writing and removing rows of stream_ckpt.dead_letter (dead_letter.h).
 *
 * Direct access, past row-level security, as in late.c.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ckpt/dead_letter.h"
#include "ckpt/retained_table.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

struct ScDeadLetterWriter
{
	ScCatalog	table;
	Oid			relid;			/* the query's result table */
	int64		query_id;
	int64		checkpoint_id;
	int32		seq;			/* of the next letter; -1: not known yet */
};

ScDeadLetterWriter *
sc_dead_letter_begin(const ScQuery *query, int64 checkpoint_id)
{
	ScDeadLetterWriter *writer = palloc0(sizeof(ScDeadLetterWriter));

	writer->relid = query->relid;
	writer->query_id = query->query_id;
	writer->checkpoint_id = checkpoint_id;
	writer->seq = -1;
	sc_catalog_open(&writer->table, "dead_letter", RowExclusiveLock);
	return writer;
}

static const char *
kind_name(ScDeadKind kind)
{
	switch (kind)
	{
		case SC_DEAD_ROW:
			return "row";
		case SC_DEAD_GROUP:
			return "group";
		case SC_DEAD_RESULT:
			break;
	}
	return "result";
}

/*
 * Behind those that are there: in another pipeline a checkpoint of this number may have had letters of the query, too.
 * In the order of the key, so the last one is the greatest.
 */
static int32
next_seq(const ScDeadLetterWriter *writer)
{
	ScanKeyData keys[2];
	ScCatalogScan scan;
	HeapTuple	tuple;
	int32		seq = 0;

	sc_key_int8(&keys[0], Anum_dead_query_id, writer->query_id);
	sc_key_int8(&keys[1], Anum_dead_checkpoint_id, writer->checkpoint_id);
	sc_catalog_scan(&scan, &writer->table, 2, keys);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
	{
		ScCatalogRow row;

		sc_row_read(&row, &writer->table, tuple);
		seq = DatumGetInt32(sc_row_get(&row, Anum_dead_seq)) + 1;
	}
	sc_catalog_scan_end(&scan);
	return seq;
}

/* Inserts one row, numbered within its checkpoint.  In the checkpoint's transaction. */
void
sc_dead_letter_add(ScDeadLetterWriter *writer, ScDeadKind kind, const ScRetainedRow *kept,
				   const ScFailure *failure)
{
	ScCatalogRow row = {0};

	if (writer->seq < 0)
		writer->seq = next_seq(writer);
	sc_row_set(&row, Anum_dead_query, ObjectIdGetDatum(writer->relid));
	sc_row_set_text(&row, Anum_dead_kind, kind_name(kind));
	sc_retained_row_set(&row, kept, Anum_dead_row, Anum_dead_types, Anum_dead_row_text);
	sc_row_set_text(&row, Anum_dead_sqlstate, unpack_sql_state(failure->sqlerrcode));
	sc_row_set_text(&row, Anum_dead_message, failure->message);
	sc_row_set_text(&row, Anum_dead_detail, failure->detail);
	sc_row_set_text(&row, Anum_dead_hint, failure->hint);
	if (!XLogRecPtrIsInvalid(failure->row_lsn))
	{
		sc_row_set(&row, Anum_dead_lsn, LSNGetDatum(failure->row_lsn));
		sc_row_set(&row, Anum_dead_ordinal, Int64GetDatum(failure->row_ordinal));
	}
	sc_row_set(&row, Anum_dead_failed_at, TimestampTzGetDatum(GetCurrentTimestamp()));
	sc_row_set(&row, Anum_dead_query_id, Int64GetDatum(writer->query_id));
	sc_row_set(&row, Anum_dead_checkpoint_id, Int64GetDatum(writer->checkpoint_id));
	sc_row_set(&row, Anum_dead_seq, Int32GetDatum(writer->seq++));
	sc_catalog_insert(&writer->table, &row);
}

void
sc_dead_letter_end(ScDeadLetterWriter *writer)
{
	sc_catalog_close(&writer->table);
	pfree(writer);
}

bool
sc_dead_letter_delete(int64 query_id, bool wait)
{
	return sc_retained_delete("dead_letter", Anum_dead_query_id, query_id, wait);
}

int64
sc_dead_letter_count(int64 query_id)
{
	ScCatalog	table;
	ScanKeyData key;
	ScCatalogScan scan;
	int64		result = 0;

	sc_catalog_open(&table, "dead_letter", AccessShareLock);
	sc_key_int8(&key, Anum_dead_query_id, query_id);
	sc_catalog_scan(&scan, &table, 1, &key);
	while (sc_catalog_next(&scan) != NULL)
		result++;
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	return result;
}
