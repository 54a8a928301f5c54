/*-------------------------------------------------------------------------
 * dead_letter.c
 *	  Writing and removing rows of stream_ckpt.dead_letter (dead_letter.h).
 *
 * Direct access, past row-level security, as in late.c.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "ckpt/dead_letter.h"
#include "ckpt/store_internal.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

/* Columns of stream_ckpt.dead_letter. */
#define DEAD_QUERY			1
#define DEAD_KIND			2
#define DEAD_ROW			3
#define DEAD_SQLSTATE		4
#define DEAD_MESSAGE		5
#define DEAD_DETAIL			6
#define DEAD_HINT			7
#define DEAD_LSN			8
#define DEAD_ORDINAL		9
#define DEAD_FAILED_AT		10
#define DEAD_QUERY_ID		11
#define DEAD_CHECKPOINT_ID	12
#define DEAD_SEQ			13
#define DEAD_TYPES			14
#define DEAD_ROW_TEXT		15
#define DEAD_COLUMNS		15

struct ScDeadLetterWriter
{
	StoreTable	table;
	Oid			relid;			/* the query's result table */
	int64		query_id;
	int64		checkpoint_id;
	int32		seq;			/* of the next letter */
};

ScDeadLetterWriter *
sc_dead_letter_begin(const ScQuery *query, int64 checkpoint_id)
{
	ScDeadLetterWriter *writer = palloc0(sizeof(ScDeadLetterWriter));

	writer->relid = query->relid;
	writer->query_id = query->query_id;
	writer->checkpoint_id = checkpoint_id;
	sc_store_table_open(&writer->table, "dead_letter", DEAD_COLUMNS, RowExclusiveLock);
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

static void
set_row(Datum *values, bool *nulls, const ScRetainedRow *row)
{
	values[DEAD_ROW - 1] = row->row;
	nulls[DEAD_ROW - 1] = row->row == (Datum) 0;
	values[DEAD_TYPES - 1] = row->types;
	nulls[DEAD_TYPES - 1] = row->types == (Datum) 0;
	values[DEAD_ROW_TEXT - 1] = row->text;
	nulls[DEAD_ROW_TEXT - 1] = row->text == (Datum) 0;
}

static void
set_text(Datum *values, bool *nulls, int column, const char *string)
{
	nulls[column - 1] = string == NULL;
	if (string != NULL)
		values[column - 1] = CStringGetTextDatum(string);
}

void
sc_dead_letter_add(ScDeadLetterWriter *writer, ScDeadKind kind, const ScRetainedRow *row,
				   const ScFailure *failure)
{
	bool		has_row = !XLogRecPtrIsInvalid(failure->row_lsn);
	Datum		values[DEAD_COLUMNS];
	bool		nulls[DEAD_COLUMNS] = {0};
	HeapTuple	tuple;

	values[DEAD_QUERY - 1] = ObjectIdGetDatum(writer->relid);
	set_text(values, nulls, DEAD_KIND, kind_name(kind));
	set_row(values, nulls, row);
	set_text(values, nulls, DEAD_SQLSTATE, unpack_sql_state(failure->sqlerrcode));
	set_text(values, nulls, DEAD_MESSAGE, failure->message);
	set_text(values, nulls, DEAD_DETAIL, failure->detail);
	set_text(values, nulls, DEAD_HINT, failure->hint);
	values[DEAD_LSN - 1] = LSNGetDatum(failure->row_lsn);
	values[DEAD_ORDINAL - 1] = Int64GetDatum(failure->row_ordinal);
	nulls[DEAD_LSN - 1] = nulls[DEAD_ORDINAL - 1] = !has_row;
	values[DEAD_FAILED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[DEAD_QUERY_ID - 1] = Int64GetDatum(writer->query_id);
	values[DEAD_CHECKPOINT_ID - 1] = Int64GetDatum(writer->checkpoint_id);
	values[DEAD_SEQ - 1] = Int32GetDatum(writer->seq++);
	tuple = heap_form_tuple(RelationGetDescr(writer->table.rel), values, nulls);
	CatalogTupleInsertWithInfo(writer->table.rel, tuple, writer->table.indexes);
	heap_freetuple(tuple);
}

void
sc_dead_letter_end(ScDeadLetterWriter *writer)
{
	sc_store_table_close(&writer->table);
	pfree(writer);
}

bool
sc_dead_letter_delete(int64 query_id, bool wait)
{
	return sc_store_delete_kept("dead_letter", DEAD_COLUMNS, DEAD_QUERY_ID, query_id, wait);
}

int64
sc_dead_letter_count(int64 query_id)
{
	StoreTable	table;
	ScanKeyData key;
	SysScanDesc scan;
	int64		result = 0;

	sc_store_table_open(&table, "dead_letter", DEAD_COLUMNS, AccessShareLock);
	ScanKeyInit(&key, DEAD_QUERY_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(query_id));
	scan = sc_store_scan(&table, 1, &key);
	while (systable_getnext_ordered(scan, ForwardScanDirection) != NULL)
		result++;
	systable_endscan_ordered(scan);
	sc_store_table_close(&table);
	return result;
}
