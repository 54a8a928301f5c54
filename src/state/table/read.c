/*-------------------------------------------------------------------------
 * read.c
 *	  The state backend "table" (state/backend.h): reading chunks, all of a query or single runs.
 *
 * Single runs are looked up with a snapshot of their own, the latest one: a task reads what it has written
 * itself, also before it is committed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/limit.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "state/table/table_internal.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* ---------- rows ---------- */

/* Whom a scan hands its rows to. */
typedef struct Reading
{
	ScReadChunk read;			/* NULL: read_old */
	ScReadOldChunk read_old;
	void	   *arg;
} Reading;

/* The bytes of a row's chunk, which stay the tuple's, or are in "context". */
static const char *
row_data(const ScCatalogRow *row, AttrNumber attno, MemoryContext context, Size *len)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	/* plain as we store it; after a dump and restore it may not be */
	bytea	   *data = DatumGetByteaPP(sc_row_get(row, attno));

	MemoryContextSwitchTo(old);
	*len = VARSIZE_ANY_EXHDR(data);
	return VARDATA_ANY(data);
}

/* The chunk of a row of state_run; its bytes stay the tuple's, or are in "context". */
static ScChunk
row_chunk(const ScCatalog *table, HeapTuple tuple, MemoryContext context)
{
	ScCatalogRow row;
	ScChunk		chunk = {0};

	sc_row_read(&row, table, tuple);
	chunk.pane_key = DatumGetInt64(sc_row_get(&row, Anum_run_pane));
	chunk.age = DatumGetInt64(sc_row_get(&row, Anum_run_age));
	chunk.born = DatumGetInt64(sc_row_get(&row, Anum_run_born));
	chunk.key_group = DatumGetInt16(sc_row_get(&row, Anum_run_key_group));
	chunk.position = (uint32) DatumGetInt64(sc_row_get(&row, Anum_run_position));
	chunk.seq = DatumGetInt32(sc_row_get(&row, Anum_run_seq));
	chunk.data = row_data(&row, Anum_run_data, context, &chunk.len);
	return chunk;
}

/* Hands over a row of state_run. */
static void
read_run_row(const Reading *reading, const ScCatalog *table, HeapTuple tuple, MemoryContext context)
{
	ScChunk		chunk = row_chunk(table, tuple, context);

	sc_limit_add(chunk.len / SC_LIMIT_UNIT_BYTES + 1);
	reading->read(reading->arg, &chunk);
}

/* Hands over a row of state_chunk. */
static void
read_old_row(const Reading *reading, const ScCatalog *table, HeapTuple tuple, MemoryContext context)
{
	ScCatalogRow row;
	ScOldChunk	chunk = {0};

	sc_row_read(&row, table, tuple);
	chunk.pane_key = DatumGetInt64(sc_row_get(&row, Anum_chunk_partition_key));
	chunk.checkpoint_id = DatumGetInt64(sc_row_get(&row, Anum_chunk_checkpoint_id));
	chunk.seq = DatumGetInt32(sc_row_get(&row, Anum_chunk_seq));
	chunk.data = row_data(&row, Anum_chunk_data, context, &chunk.len);
	sc_limit_add(chunk.len / SC_LIMIT_UNIT_BYTES + 1);
	reading->read_old(reading->arg, &chunk);
}

/*
 * Hands over all rows of a query, or of one of its panes, in the primary key's order, whose first columns these are.
 * One chunk in memory at a time.
 */
static void
read_rows(const char *name, int64 query_id, const int64 *pane_key, const Reading *reading)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "stream_ckpt chunk",
												  ALLOCSET_DEFAULT_SIZES);
	ScCatalog	table;
	ScanKeyData keys[2];
	ScCatalogScan scan;
	HeapTuple	tuple;

	sc_catalog_open(&table, name, AccessShareLock);
	sc_key_int8(&keys[0], 1, query_id);
	if (pane_key != NULL)
		sc_key_int8(&keys[1], 2, *pane_key);
	sc_catalog_scan(&scan, &table, pane_key != NULL ? 2 : 1, keys);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
	{
		if (reading->read != NULL)
			read_run_row(reading, &table, tuple, context);
		else
			read_old_row(reading, &table, tuple, context);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	MemoryContextDelete(context);
}

void
sc_backend_read(int64 query_id, const int64 *pane_key, ScReadChunk read, void *arg)
{
	Reading		reading = {.read = read,.arg = arg};

	read_rows("state_run", query_id, pane_key, &reading);
}

void
sc_backend_read_old(int64 query_id, ScReadOldChunk read, void *arg)
{
	Reading		reading = {.read_old = read,.arg = arg};

	read_rows("state_chunk", query_id, NULL, &reading);
}

/* ---------- runs ---------- */

/* What looks up runs has open. */
struct ScLookup
{
	int64		query_id;
	ScCatalog	table;
	Relation	index;
	Snapshot	snapshot;
	MemoryContext context;		/* of a chunk's bytes that aren't in its tuple */
};

ScLookup *
sc_backend_begin_lookup(int64 query_id)
{
	ScLookup   *lookup = palloc(sizeof(ScLookup));

	lookup->query_id = query_id;
	sc_catalog_open(&lookup->table, "state_run", AccessShareLock);
	lookup->index = index_open(lookup->table.pkey, AccessShareLock);
	lookup->snapshot = RegisterSnapshot(GetLatestSnapshot());
	lookup->context = AllocSetContextCreate(CurrentMemoryContext, "stream_ckpt lookup",
											ALLOCSET_DEFAULT_SIZES);
	return lookup;
}

void
sc_backend_end_lookup(ScLookup *lookup)
{
	MemoryContextDelete(lookup->context);
	UnregisterSnapshot(lookup->snapshot);
	index_close(lookup->index, AccessShareLock);
	sc_catalog_close(&lookup->table);
	pfree(lookup);
}

/* A copy of the first or last row that the keys select, or NULL. */
static HeapTuple
probe(const ScLookup *lookup, int nkeys, ScanKey keys, ScanDirection direction)
{
	SysScanDesc scan = systable_beginscan_ordered(lookup->table.rel, lookup->index, lookup->snapshot,
												  nkeys, keys);
	HeapTuple	tuple = systable_getnext_ordered(scan, direction);

	if (tuple != NULL)
		tuple = heap_copytuple(tuple);
	systable_endscan_ordered(scan);
	return tuple;
}

/* A member of a comparison of rows, as the planner makes it of (a, b) > (x, y). */
static void
row_member(ScanKey key, AttrNumber attno, StrategyNumber strategy, Oid type, RegProcedure compare,
		   Datum value)
{
	ScanKeyEntryInitialize(key, SK_ROW_MEMBER, attno, strategy, type, InvalidOid, compare, value);
}

/* The comparison of its "n" members. */
static void
row_header(ScanKey key, ScanKey members, int n)
{
	members[n - 1].sk_flags |= SK_ROW_END;
	memset(key, 0, sizeof(ScanKeyData));
	key->sk_flags = SK_ROW_HEADER;
	key->sk_attno = members[0].sk_attno;
	key->sk_strategy = members[0].sk_strategy;
	key->sk_argument = PointerGetDatum(members);
}

void
sc_run_keys(ScanKey keys, int64 query_id, const ScRunName *run)
{
	sc_key_int8(&keys[0], Anum_run_query_id, query_id);
	sc_key_int8(&keys[1], Anum_run_pane, run->pane_key);
	sc_key_int8(&keys[2], Anum_run_age, run->age);
	sc_key_int8(&keys[3], Anum_run_born, run->born);
	ScanKeyInit(&keys[4], Anum_run_key_group, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(run->key_group));
}

/* In index order: (position, seq) >= those of the place. */
void
sc_key_from(ScanKey key, ScanKeyData members[SC_PLACE_KEYS], const ScRunPlace *from)
{
	row_member(&members[0], Anum_run_position, BTGreaterEqualStrategyNumber, INT8OID, F_BTINT8CMP,
			   Int64GetDatum((int64) from->position));
	row_member(&members[1], Anum_run_seq, BTGreaterEqualStrategyNumber, INT4OID, F_BTINT4CMP,
			   Int32GetDatum(from->seq));
	row_header(key, members, SC_PLACE_KEYS);
}

/* The runs of the query, or of a pane, whose names follow this one. */
static void
key_after(ScanKey key, ScanKeyData members[SC_RUN_KEYS - 1], const ScRunName *run, bool one_pane)
{
	int			n = 0;

	if (!one_pane)
		row_member(&members[n++], Anum_run_pane, BTGreaterStrategyNumber, INT8OID, F_BTINT8CMP,
				   Int64GetDatum(run->pane_key));
	row_member(&members[n++], Anum_run_age, BTGreaterStrategyNumber, INT8OID, F_BTINT8CMP,
			   Int64GetDatum(run->age));
	row_member(&members[n++], Anum_run_born, BTGreaterStrategyNumber, INT8OID, F_BTINT8CMP,
			   Int64GetDatum(run->born));
	row_member(&members[n++], Anum_run_key_group, BTGreaterStrategyNumber, INT2OID, F_BTINT2CMP,
			   Int16GetDatum(run->key_group));
	row_header(key, members, n);
}

/* Which run a row belongs to. */
static ScRunName
row_name(const ScCatalog *table, HeapTuple tuple)
{
	ScCatalogRow row;
	ScRunName	name = {0};

	sc_row_read(&row, table, tuple);
	name.pane_key = DatumGetInt64(sc_row_get(&row, Anum_run_pane));
	name.age = DatumGetInt64(sc_row_get(&row, Anum_run_age));
	name.born = DatumGetInt64(sc_row_get(&row, Anum_run_born));
	name.key_group = DatumGetInt16(sc_row_get(&row, Anum_run_key_group));
	return name;
}

/* Whose runs are listed, and to whom they are handed. */
typedef struct Listing
{
	ScLookup   *lookup;
	const int64 *pane_key;		/* NULL: of all */
	bool		has_name;
	ScRunName	name;			/* of the last run that was listed */
	ScReadRun	read;
	void	   *arg;
} Listing;

static void
list_run(Listing *listing, HeapTuple first, HeapTuple last)
{
	ScLookup   *lookup = listing->lookup;
	ScChunk		first_chunk = row_chunk(&lookup->table, first, lookup->context);
	ScChunk		last_chunk = row_chunk(&lookup->table, last, lookup->context);

	sc_limit_add(1);
	listing->read(listing->arg, &first_chunk, &last_chunk);
	MemoryContextReset(lookup->context);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Lists the runs behind the last one, as long as they have a single chunk, and one that has several: those are
 * passed over by another scan.  False: there are no more.
 */
static bool
list_some(Listing *listing)
{
	ScLookup   *lookup = listing->lookup;
	ScanKeyData keys[3];
	ScanKeyData members[SC_RUN_KEYS - 1];
	ScanKeyData run_keys[SC_RUN_KEYS];
	int			nkeys = 0;
	SysScanDesc scan;
	HeapTuple	first;
	HeapTuple	tuple;
	bool		single = true;

	sc_key_int8(&keys[nkeys++], Anum_run_query_id, lookup->query_id);
	if (listing->pane_key != NULL)
		sc_key_int8(&keys[nkeys++], Anum_run_pane, *listing->pane_key);
	if (listing->has_name)
		key_after(&keys[nkeys++], members, &listing->name, listing->pane_key != NULL);
	scan = systable_beginscan_ordered(lookup->table.rel, lookup->index, lookup->snapshot, nkeys, keys);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	while (tuple != NULL && single)
	{
		ScRunName	next;

		first = heap_copytuple(tuple);
		listing->name = row_name(&lookup->table, first);
		listing->has_name = true;
		tuple = systable_getnext_ordered(scan, ForwardScanDirection);
		if (tuple != NULL)
			next = row_name(&lookup->table, tuple);
		single = tuple == NULL || !sc_same_run(&next, &listing->name);
		if (single)
		{
			list_run(listing, first, first);
			heap_freetuple(first);
		}
	}
	systable_endscan_ordered(scan);
	if (single)
		return false;
	sc_run_keys(run_keys, lookup->query_id, &listing->name);
	tuple = probe(lookup, SC_RUN_KEYS, run_keys, BackwardScanDirection);
	list_run(listing, first, tuple);
	heap_freetuple(first);
	heap_freetuple(tuple);
	return true;
}

void
sc_backend_list_runs(int64 query_id, const int64 *pane_key, ScReadRun read, void *arg)
{
	Listing		listing = {.lookup = sc_backend_begin_lookup(query_id),.pane_key = pane_key,.read = read,
	.arg = arg};

	while (list_some(&listing))
		;
	sc_backend_end_lookup(listing.lookup);
}

/* The last place of the run that is before the position; zeros if there is none. */
static ScRunPlace
place_before(const ScLookup *lookup, const ScRunName *run, uint64 position)
{
	ScRunPlace	place = {0};
	ScanKeyData keys[SC_RUN_KEYS + 1];
	ScCatalogRow row;
	HeapTuple	tuple;

	if (position == 0)
		return place;
	sc_run_keys(keys, lookup->query_id, run);
	ScanKeyInit(&keys[SC_RUN_KEYS], Anum_run_position, BTLessStrategyNumber, F_INT8LT, Int64GetDatum((int64) position));
	tuple = probe(lookup, SC_RUN_KEYS + 1, keys, BackwardScanDirection);
	if (tuple == NULL)
		return place;
	sc_row_read(&row, &lookup->table, tuple);
	place = sc_run_row_place(&row);
	heap_freetuple(tuple);
	return place;
}

/* One descending probe finds the first chunk, and one scan the others; one chunk in memory at a time. */
void
sc_backend_read_range(ScLookup *lookup, const ScRunName *run, uint64 first, ScReadRange read, void *arg)
{
	ScRunPlace	from = place_before(lookup, run, first);
	ScanKeyData keys[SC_RUN_KEYS + 1];
	ScanKeyData members[SC_PLACE_KEYS];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		goes_on = true;

	sc_run_keys(keys, lookup->query_id, run);
	sc_key_from(&keys[SC_RUN_KEYS], members, &from);
	scan = systable_beginscan_ordered(lookup->table.rel, lookup->index, lookup->snapshot, SC_RUN_KEYS + 1, keys);
	while (goes_on && (tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
	{
		ScChunk		chunk = row_chunk(&lookup->table, tuple, lookup->context);

		sc_limit_add(chunk.len / SC_LIMIT_UNIT_BYTES + 1);
		goes_on = read(arg, &chunk);
		MemoryContextReset(lookup->context);
		CHECK_FOR_INTERRUPTS();
	}
	systable_endscan_ordered(scan);
}
