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
#include "mb/pg_wchar.h"
#include "model/catalog_table.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

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

/* The reverse of sc_failure_write; its strings point into "data".  Fails if they go beyond "len". */
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

/* The word in the column "status" of query_failure. */
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

static ScFailureStatus
status_of(const ScCatalogRow *row)
{
	return (ScFailureStatus) TextDatumGetCString(sc_row_get(row, Anum_failure_status))[0];
}

List *
sc_failure_list(void)
{
	ScCatalog	table;
	ScCatalogScan scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	sc_catalog_open(&table, "query_failure", AccessShareLock);
	sc_catalog_scan(&scan, &table, 0, NULL);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
	{
		ScFailureRow *item = palloc0(sizeof(ScFailureRow));
		ScCatalogRow row;

		sc_row_read(&row, &table, tuple);
		item->query_id = DatumGetInt64(sc_row_get(&row, Anum_failure_query_id));
		item->status = status_of(&row);
		item->failures = DatumGetInt32(sc_row_get(&row, Anum_failure_failures));
		if (!sc_row_isnull(&row, Anum_failure_row_lsn))
			item->row_lsn = DatumGetLSN(sc_row_get(&row, Anum_failure_row_lsn));
		result = lappend(result, item);
	}
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	return result;
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

/* The query's row, or NULL; the scan is left open for the caller's change. */
static HeapTuple
find_row(const ScCatalog *table, int64 query_id, ScCatalogScan *scan)
{
	ScanKeyData key;

	CommandCounterIncrement();
	sc_key_int8(&key, Anum_failure_query_id, query_id);
	sc_catalog_scan(scan, table, 1, &key);
	return sc_catalog_next(scan);
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
sc_failure_set(int64 query_id, ScFailureStatus status, int failures, const ScFailure *failure)
{
	ScCatalogRow row = {0};
	bool		pushed = sc_snapshot_push();
	ScCatalog	table;
	ScCatalogScan scan;
	HeapTuple	tuple;
	bool		written;

	sc_row_set(&row, Anum_failure_query_id, Int64GetDatum(query_id));
	sc_row_set_text(&row, Anum_failure_status, status_name(status));
	sc_row_set(&row, Anum_failure_failures, Int32GetDatum(failures));
	sc_row_set(&row, Anum_failure_failed_at, TimestampTzGetDatum(GetCurrentTimestamp()));
	sc_row_set_text(&row, Anum_failure_sqlstate, unpack_sql_state(failure->sqlerrcode));
	sc_row_set_text(&row, Anum_failure_message, failure->message);
	sc_row_set_text(&row, Anum_failure_detail, failure->detail);
	sc_row_set_text(&row, Anum_failure_hint, failure->hint);
	sc_row_set_text(&row, Anum_failure_context, failure->context);
	sc_row_set(&row, Anum_failure_row_lsn, LSNGetDatum(failure->row_lsn));
	sc_row_set(&row, Anum_failure_row_ordinal, Int64GetDatum(failure->row_ordinal));
	if (XLogRecPtrIsInvalid(failure->row_lsn))
	{
		sc_row_set_null(&row, Anum_failure_row_lsn);
		sc_row_set_null(&row, Anum_failure_row_ordinal);
	}

	sc_catalog_open(&table, "query_failure", RowExclusiveLock);
	tuple = find_row(&table, query_id, &scan);
	written = tuple == NULL || lock_row(table.rel, tuple, LockWaitSkip) == TM_Ok;
	if (written)
		sc_catalog_put(&table, tuple, &row);
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	sc_snapshot_pop(pushed);
	CommandCounterIncrement();
	return written;
}

/* What to do with the row, once it is locked. */
typedef enum RowChange
{
	ROW_REMOVE,
	ROW_RESUME,					/* as sc_failure_resume */
	ROW_ACCEPT_GAP
} RowChange;

static void
accept_gap_of(const ScCatalog *table, HeapTuple tuple)
{
	ScCatalogRow row = {0};
	bool		pushed = sc_snapshot_push();

	sc_row_set_text(&row, Anum_failure_status, status_name(SC_FAILURE_ACCEPTED));
	sc_catalog_update(table, tuple, &row);
	sc_snapshot_pop(pushed);
}

/* False: the query is lost, and stays so. */
static bool
change_locked_row(const ScCatalog *table, HeapTuple tuple, RowChange change, bool *had_gap)
{
	ScCatalogRow row;
	ScFailureStatus status;

	sc_row_read(&row, table, tuple);
	status = status_of(&row);
	if (change == ROW_REMOVE || (status != SC_FAILURE_LOST && status != SC_FAILURE_ACCEPTED))
		sc_catalog_delete(table, tuple);
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
	ScCatalog	table;
	TM_Result	result = TM_Ok;
	bool		changed = true;

	sc_catalog_open(&table, "query_failure", RowExclusiveLock);
	do
	{
		ScCatalogScan scan;
		HeapTuple	tuple = find_row(&table, query_id, &scan);

		if (tuple != NULL)
			result = lock_row(table.rel, tuple, policy);
		if (tuple != NULL && result == TM_Ok)
			changed = change_locked_row(&table, tuple, change, had_gap);
		sc_catalog_scan_end(&scan);
		if (tuple == NULL)
			break;
		/* whoever we waited for has changed it */
	} while (result != TM_Ok && policy == LockWaitBlock);
	sc_catalog_close(&table);
	CommandCounterIncrement();
	return changed && (result == TM_Ok || policy == LockWaitBlock);
}

void
sc_failure_clear(int64 query_id)
{
	(void) change_row(query_id, LockWaitBlock, ROW_REMOVE, NULL);
}

bool
sc_failure_resume(int64 query_id, bool accept_gap, bool *had_gap)
{
	*had_gap = false;
	return change_row(query_id, LockWaitBlock, accept_gap ? ROW_ACCEPT_GAP : ROW_RESUME, had_gap);
}

bool
sc_failure_recovered(int64 query_id)
{
	return change_row(query_id, LockWaitSkip, ROW_REMOVE, NULL);
}
