/*-------------------------------------------------------------------------
 * failure.c
 *	  The failure of one query (failure.h): its bytes between processes, and the
 *	  table stream_ckpt.query_failure.
 *
 * As bytes a failure is a FailureHeader and the strings behind it, each ended by
 * a zero byte; an absent string has a bit in "absent".  Byte order is the
 * machine's: valid for one attempt.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "ckpt/failure.h"
#include "ckpt/store_internal.h"
#include "mb/pg_wchar.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

/* Columns of stream_ckpt.query_failure. */
#define FAILURE_QUERY_ID		1
#define FAILURE_STATUS			2
#define FAILURE_FAILURES		3
#define FAILURE_FAILED_AT		4
#define FAILURE_SQLSTATE		5
#define FAILURE_MESSAGE			6
#define FAILURE_DETAIL			7
#define FAILURE_HINT			8
#define FAILURE_CONTEXT			9
#define FAILURE_ROW_LSN			10
#define FAILURE_ROW_ORDINAL		11
#define FAILURE_COLUMNS			11

#define FAILURE_STRINGS			4

typedef struct FailureHeader
{
	XLogRecPtr	row_lsn;
	int64		row_ordinal;
	int32		sqlerrcode;
	uint32		absent;			/* bit i: the i-th string is NULL */
} FailureHeader;

static const char *
copy_string(const char *string)
{
	int			len = string ? strlen(string) : 0;

	if (len > SC_MAX_ERROR_TEXT)
		len = pg_mbcliplen(string, len, SC_MAX_ERROR_TEXT);
	return len > 0 ? pnstrdup(string, len) : NULL;
}

ScFailure *
sc_failure_from_error(const ErrorData *error)
{
	ScFailure  *failure = palloc0(sizeof(ScFailure));

	failure->sqlerrcode = error->sqlerrcode;
	failure->message = copy_string(error->message);
	if (failure->message == NULL)
		failure->message = pstrdup("missing error text");
	failure->detail = copy_string(error->detail);
	failure->hint = copy_string(error->hint);
	failure->context = copy_string(error->context);
	return failure;
}

void
sc_failure_write(StringInfo buf, const ScFailure *failure)
{
	const char *strings[FAILURE_STRINGS] = {failure->message, failure->detail,
	failure->hint, failure->context};
	FailureHeader header = {0};

	header.row_lsn = failure->row_lsn;
	header.row_ordinal = failure->row_ordinal;
	header.sqlerrcode = failure->sqlerrcode;
	for (int i = 0; i < FAILURE_STRINGS; i++)
	{
		if (strings[i] == NULL)
			header.absent |= 1U << i;
	}
	appendBinaryStringInfo(buf, (char *) &header, sizeof(header));
	for (int i = 0; i < FAILURE_STRINGS; i++)
	{
		if (strings[i] != NULL)
			appendBinaryStringInfo(buf, strings[i], strlen(strings[i]) + 1);
	}
}

ScFailure *
sc_failure_read(const char *data, Size len)
{
	ScFailure  *failure = palloc0(sizeof(ScFailure));
	const FailureHeader *header = (const FailureHeader *) data;
	const char *at = data + sizeof(FailureHeader);
	const char *strings[FAILURE_STRINGS] = {0};

	for (int i = 0; i < FAILURE_STRINGS; i++)
	{
		if (header->absent & (1U << i))
			continue;
		strings[i] = at;
		at += strlen(at) + 1;
	}
	if (at > data + len)
		elog(ERROR, "invalid failure from a task");
	failure->sqlerrcode = header->sqlerrcode;
	failure->row_lsn = header->row_lsn;
	failure->row_ordinal = header->row_ordinal;
	failure->message = strings[0];
	failure->detail = strings[1];
	failure->hint = strings[2];
	failure->context = strings[3];
	return failure;
}

/* ---------------------------------------------------------------------
 * stream_ckpt.query_failure
 * --------------------------------------------------------------------- */

static const char *
status_name(ScFailureStatus status)
{
	switch (status)
	{
		case SC_FAILURE_WAITING:
			return "waiting";
		case SC_FAILURE_RETRYING:
			return "retrying";
		case SC_FAILURE_LOST:
			return "lost";
		case SC_FAILURE_ACCEPTED:
			return "accepted";
		case SC_FAILURE_FAILED:
			break;
	}
	return "failed";
}

List *
sc_store_failures(void)
{
	StoreTable	table;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	sc_store_table_open(&table, "query_failure", FAILURE_COLUMNS, AccessShareLock);
	scan = sc_store_scan(&table, 0, NULL);
	while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
	{
		ScFailureRow *row = palloc0(sizeof(ScFailureRow));
		Datum		values[FAILURE_COLUMNS];
		bool		nulls[FAILURE_COLUMNS];

		heap_deform_tuple(tuple, RelationGetDescr(table.rel), values, nulls);
		row->query_id = DatumGetInt64(values[FAILURE_QUERY_ID - 1]);
		row->status = (ScFailureStatus)
			TextDatumGetCString(values[FAILURE_STATUS - 1])[0];
		row->failures = DatumGetInt32(values[FAILURE_FAILURES - 1]);
		if (!nulls[FAILURE_ROW_LSN - 1])
			row->row_lsn = DatumGetLSN(values[FAILURE_ROW_LSN - 1]);
		result = lappend(result, row);
	}
	systable_endscan_ordered(scan);
	sc_store_table_close(&table);
	return result;
}

ScFailureRow *
sc_failure_find(List *failures, int64 query_id)
{
	ListCell   *lc;

	foreach(lc, failures)
	{
		ScFailureRow *row = lfirst(lc);

		if (row->query_id == query_id)
			return row;
	}
	return NULL;
}

bool
sc_failure_loses(const ScFailureRow *row)
{
	return row && (row->status == SC_FAILURE_LOST || row->status == SC_FAILURE_ACCEPTED);
}

bool
sc_failure_stops(const ScFailureRow *row)
{
	return sc_failure_loses(row) || (row && row->status == SC_FAILURE_FAILED);
}

static void
set_text(Datum *values, bool *nulls, int column, const char *string)
{
	nulls[column - 1] = string == NULL;
	if (string != NULL)
		values[column - 1] = CStringGetTextDatum(string);
}

/* The query's row, or NULL; the scan is left open for the caller's change. */
static HeapTuple
find_row(StoreTable *table, int64 query_id, SysScanDesc *scan)
{
	ScanKeyData key;

	CommandCounterIncrement();
	ScanKeyInit(&key, FAILURE_QUERY_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(query_id));
	*scan = sc_store_scan(table, 1, &key);
	return systable_getnext_ordered(*scan, ForwardScanDirection);
}

/* TM_Ok, or what another transaction has done, or (LockWaitSkip) is about to do. */
static TM_Result
lock_row(Relation rel, HeapTuple tuple, LockWaitPolicy policy)
{
	HeapTupleData locked = *tuple;
	TM_FailureData failure;
	Buffer		buffer;
	TM_Result	result;

	result = heap_lock_tuple(rel, &locked, GetCurrentCommandId(true), LockTupleExclusive,
							 policy, false, &buffer, &failure);
	ReleaseBuffer(buffer);
	return result;
}

bool
sc_store_failure_set(int64 query_id, ScFailureStatus status, int failures,
					 const ScFailure *failure)
{
	Datum		values[FAILURE_COLUMNS] = {0};
	bool		nulls[FAILURE_COLUMNS] = {0};
	bool		pushed = sc_store_push_snapshot();
	bool		has_row = !XLogRecPtrIsInvalid(failure->row_lsn);
	StoreTable	table;
	SysScanDesc scan;
	HeapTuple	oldtuple;
	HeapTuple	newtuple;
	bool		written;

	values[FAILURE_QUERY_ID - 1] = Int64GetDatum(query_id);
	set_text(values, nulls, FAILURE_STATUS, status_name(status));
	values[FAILURE_FAILURES - 1] = Int32GetDatum(failures);
	values[FAILURE_FAILED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	set_text(values, nulls, FAILURE_SQLSTATE, unpack_sql_state(failure->sqlerrcode));
	set_text(values, nulls, FAILURE_MESSAGE, failure->message);
	set_text(values, nulls, FAILURE_DETAIL, failure->detail);
	set_text(values, nulls, FAILURE_HINT, failure->hint);
	set_text(values, nulls, FAILURE_CONTEXT, failure->context);
	values[FAILURE_ROW_LSN - 1] = LSNGetDatum(failure->row_lsn);
	values[FAILURE_ROW_ORDINAL - 1] = Int64GetDatum(failure->row_ordinal);
	nulls[FAILURE_ROW_LSN - 1] = nulls[FAILURE_ROW_ORDINAL - 1] = !has_row;

	sc_store_table_open(&table, "query_failure", FAILURE_COLUMNS, RowExclusiveLock);
	newtuple = heap_form_tuple(RelationGetDescr(table.rel), values, nulls);
	oldtuple = find_row(&table, query_id, &scan);
	written = oldtuple == NULL || lock_row(table.rel, oldtuple, LockWaitSkip) == TM_Ok;
	if (oldtuple != NULL && written)
		CatalogTupleUpdateWithInfo(table.rel, &oldtuple->t_self, newtuple, table.indexes);
	else if (oldtuple == NULL)
		CatalogTupleInsertWithInfo(table.rel, newtuple, table.indexes);
	systable_endscan_ordered(scan);
	sc_store_table_close(&table);
	sc_store_pop_snapshot(pushed);
	CommandCounterIncrement();
	return written;
}

/* What to do with the row, once it is locked. */
typedef enum RowChange
{
	ROW_REMOVE,
	ROW_RESUME,					/* as sc_store_failure_resume */
	ROW_ACCEPT_GAP
} RowChange;

static ScFailureStatus
status_of(StoreTable *table, HeapTuple tuple)
{
	bool		isnull;
	Datum		status = heap_getattr(tuple, FAILURE_STATUS, RelationGetDescr(table->rel), &isnull);

	return (ScFailureStatus) TextDatumGetCString(status)[0];
}

static void
accept_gap_of(StoreTable *table, HeapTuple tuple)
{
	Datum		values[FAILURE_COLUMNS] = {0};
	bool		nulls[FAILURE_COLUMNS] = {0};
	bool		replaced[FAILURE_COLUMNS] = {0};
	bool		pushed = sc_store_push_snapshot();

	set_text(values, nulls, FAILURE_STATUS, status_name(SC_FAILURE_ACCEPTED));
	replaced[FAILURE_STATUS - 1] = true;
	CatalogTupleUpdateWithInfo(table->rel, &tuple->t_self,
							   heap_modify_tuple(tuple, RelationGetDescr(table->rel), values, nulls,
												 replaced), table->indexes);
	sc_store_pop_snapshot(pushed);
}

/* False: the query is lost, and stays so. */
static bool
change_locked_row(StoreTable *table, HeapTuple tuple, RowChange change, bool *had_gap)
{
	ScFailureStatus status = status_of(table, tuple);

	if (change == ROW_REMOVE || (status != SC_FAILURE_LOST && status != SC_FAILURE_ACCEPTED))
		CatalogTupleDelete(table->rel, &tuple->t_self);
	else if (status == SC_FAILURE_LOST && change == ROW_ACCEPT_GAP)
	{
		accept_gap_of(table, tuple);
		*had_gap = true;
	}
	return change != ROW_RESUME || status != SC_FAILURE_LOST;
}

/* False: the row is another transaction's, or doesn't allow the change, and remains. */
static bool
change_row(int64 query_id, LockWaitPolicy policy, RowChange change, bool *had_gap)
{
	StoreTable	table;
	TM_Result	result = TM_Ok;
	bool		changed = true;

	sc_store_table_open(&table, "query_failure", FAILURE_COLUMNS, RowExclusiveLock);
	do
	{
		SysScanDesc scan;
		HeapTuple	tuple = find_row(&table, query_id, &scan);

		if (tuple != NULL)
			result = lock_row(table.rel, tuple, policy);
		if (tuple != NULL && result == TM_Ok)
			changed = change_locked_row(&table, tuple, change, had_gap);
		systable_endscan_ordered(scan);
		if (tuple == NULL)
			break;
		/* whoever we waited for has changed it */
	} while (result != TM_Ok && policy == LockWaitBlock);
	sc_store_table_close(&table);
	CommandCounterIncrement();
	return changed && (result == TM_Ok || policy == LockWaitBlock);
}

void
sc_store_failure_clear(int64 query_id)
{
	(void) change_row(query_id, LockWaitBlock, ROW_REMOVE, NULL);
}

bool
sc_store_failure_resume(int64 query_id, bool accept_gap, bool *had_gap)
{
	*had_gap = false;
	return change_row(query_id, LockWaitBlock, accept_gap ? ROW_ACCEPT_GAP : ROW_RESUME, had_gap);
}

bool
sc_store_failure_recovered(int64 query_id)
{
	return change_row(query_id, LockWaitSkip, ROW_REMOVE, NULL);
}
