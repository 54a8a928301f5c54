/*-------------------------------------------------------------------------
 * seen.c
 *	  Which transactions a query has by the history that it began with (seen.h).
 *
 * Stored as a pg_snapshot, whose xids have 64 bits.  They are compared as 32: what is asked for lies between two
 * places of the log that are less than 2^31 transactions apart, as all that is running.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "ckpt/seen.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "model/catalog_table.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

ScSeen *
sc_seen_of_snapshot(Snapshot snapshot, XLogRecPtr until, TimestampTz seen_at)
{
	ScSeen	   *seen = palloc0(SC_SEEN_SIZE(snapshot->xcnt));

	Assert(!snapshot->takenDuringRecovery);
	seen->until = until;
	seen->seen_at = seen_at;
	seen->kept_until = PG_INT64_MIN;
	seen->xmin = snapshot->xmin;
	seen->xmax = snapshot->xmax;
	seen->nxip = snapshot->xcnt;
	memcpy(seen->xip, snapshot->xip, snapshot->xcnt * sizeof(TransactionId));
	qsort(seen->xip, seen->nxip, sizeof(TransactionId), xidComparator);
	return seen;
}

bool
sc_seen_contains(const ScSeen *seen, TransactionId xid, XLogRecPtr end_lsn)
{
	if (end_lsn > seen->until || !TransactionIdIsNormal(xid))
		return false;
	if (TransactionIdPrecedes(xid, seen->xmin))
		return true;
	if (!TransactionIdPrecedes(xid, seen->xmax))
		return false;
	return bsearch(&xid, seen->xip, seen->nxip, sizeof(TransactionId), xidComparator) == NULL;
}

/* ---------- as a pg_snapshot ---------- */

/* An xid that is running, or was a while ago. */
static uint64
full_xid(TransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint64		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return epoch << 32 | xid;
}

static int
compare_full_xids(const void *a, const void *b)
{
	uint64		left = *(const uint64 *) a;
	uint64		right = *(const uint64 *) b;

	return left < right ? -1 : left > right ? 1 : 0;
}

/* In the text form "xmin:xmax:xid,xid", in which there is nothing of the type's inner form. */
static Datum
snapshot_datum(const ScSeen *seen)
{
	uint64	   *xids = palloc(sizeof(uint64) * Max(seen->nxip, 1));
	StringInfoData text;

	for (uint32 i = 0; i < seen->nxip; i++)
		xids[i] = full_xid(seen->xip[i]);
	qsort(xids, seen->nxip, sizeof(uint64), compare_full_xids);
	initStringInfo(&text);
	appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":", full_xid(seen->xmin), full_xid(seen->xmax));
	for (uint32 i = 0; i < seen->nxip; i++)
		appendStringInfo(&text, "%s" UINT64_FORMAT, i > 0 ? "," : "", xids[i]);
	return DirectFunctionCall1(pg_snapshot_in, CStringGetDatum(text.data));
}

/* The next number of the text, which goes on behind it. */
static TransactionId
next_xid(char **text)
{
	char	   *end;
	uint64		value = strtoull(*text, &end, 10);

	if (end == *text)
		elog(ERROR, "invalid snapshot in stream_ckpt.query_history");
	*text = *end == '\0' ? end : end + 1;
	return (TransactionId) value;
}

/* All but "until" and "seen_at". */
static ScSeen *
read_snapshot(Datum snapshot)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(pg_snapshot_out, snapshot));
	ScSeen	   *seen = palloc0(SC_SEEN_SIZE(strlen(text)));

	seen->kept_until = PG_INT64_MIN;
	seen->xmin = next_xid(&text);
	seen->xmax = next_xid(&text);
	while (*text != '\0')
		seen->xip[seen->nxip++] = next_xid(&text);
	qsort(seen->xip, seen->nxip, sizeof(TransactionId), xidComparator);
	return seen;
}

/* ---------- the catalog ---------- */

void
sc_seen_put(int64 query_id, const ScSeen *seen)
{
	ScCatalog	table;
	ScCatalogRow row = {0};
	ScanKeyData key;

	CommandCounterIncrement();
	sc_catalog_open(&table, "query_history", RowExclusiveLock);
	sc_row_set(&row, Anum_history_query_id, Int64GetDatum(query_id));
	sc_row_set(&row, Anum_history_until, LSNGetDatum(seen->until));
	sc_row_set(&row, Anum_history_seen, snapshot_datum(seen));
	sc_row_set(&row, Anum_history_seen_at, TimestampTzGetDatum(seen->seen_at));
	sc_key_int8(&key, Anum_history_query_id, query_id);
	sc_catalog_put(&table, sc_catalog_find(&table, 1, &key), &row);
	sc_catalog_close(&table);
}

ScSeen *
sc_seen_read(int64 query_id)
{
	ScCatalog	table;
	ScanKeyData key;
	HeapTuple	tuple;
	ScSeen	   *seen = NULL;

	sc_catalog_open(&table, "query_history", AccessShareLock);
	sc_key_int8(&key, Anum_history_query_id, query_id);
	tuple = sc_catalog_find(&table, 1, &key);
	if (tuple)
	{
		ScCatalogRow row;

		sc_row_read(&row, &table, tuple);
		seen = read_snapshot(sc_row_get(&row, Anum_history_seen));
		seen->until = DatumGetLSN(sc_row_get(&row, Anum_history_until));
		seen->seen_at = DatumGetTimestampTz(sc_row_get(&row, Anum_history_seen_at));
	}
	sc_catalog_close(&table);
	return seen;
}

void
sc_seen_delete(int64 query_id)
{
	ScCatalog	table;
	ScanKeyData key;
	HeapTuple	tuple;

	sc_catalog_open(&table, "query_history", RowExclusiveLock);
	sc_key_int8(&key, Anum_history_query_id, query_id);
	tuple = sc_catalog_find(&table, 1, &key);
	if (tuple)
		sc_catalog_delete(&table, tuple);
	sc_catalog_close(&table);
}
