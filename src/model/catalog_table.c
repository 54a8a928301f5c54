/*-------------------------------------------------------------------------
 * catalog_table.c
 *	  Opening, scanning and changing tables of the extension (catalog_table.h).
 *
 * Rows are written as DDL writes system catalogs, directly with their index entries.  So the
 * tables must stay what this asks of them: a primary key, NOT NULL and unique constraints, no
 * triggers, and no expression or partial indexes.
 *
 * Two transactions that change the same row: the second fails ("tuple concurrently updated"),
 * as with DDL.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "model/catalog_table.h"
#include "model/extension.h"
#include "model/interval.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

/* How many columns the library knows. */
static const struct
{
	const char *name;
	int			columns;
}			known_tables[] =
{
	{"pipeline", Natts_pipeline},
	{"stream", Natts_stream},
	{"query", Natts_query},
	{"state_run", Natts_run},
	{"state_chunk", Natts_chunk},
	{"checkpoint_offset", Natts_offset},
	{"pipeline_state", Natts_state},
	{"checkpoint", Natts_checkpoint},
	{"query_failure", Natts_failure},
	{"query_history", Natts_history},
	{"changed_windows", Natts_changed},
	{"late_rows", Natts_late},
	{"dead_letter", Natts_dead},
};

/* ---------- tables ---------- */

/*
 * Fails if the table has more or fewer columns than the library was compiled for, which would read
 * wrong ones.
 */
static void
check_columns(Relation rel, const char *name)
{
	for (int i = 0; i < lengthof(known_tables); i++)
	{
		int			columns = known_tables[i].columns;

		if (strcmp(name, known_tables[i].name) != 0)
			continue;
		Assert(columns <= SC_MAX_COLUMNS);
		if (RelationGetNumberOfAttributes(rel) != columns)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"stream_ckpt.%s\" does not fit the library", name),
					 errdetail("It has %d columns, the library knows %d.",
							   RelationGetNumberOfAttributes(rel), columns),
					 errhint("Run ALTER EXTENSION stream_ckpt UPDATE, or install the library of the extension's version.")));
		return;
	}
	elog(ERROR, "no list of the columns of \"stream_ckpt.%s\"", name);
}

static Oid
primary_key(Relation rel)
{
	list_free(RelationGetIndexList(rel));
	if (!OidIsValid(rel->rd_pkindex))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"stream_ckpt.%s\" has no primary key",
						RelationGetRelationName(rel))));
	return rel->rd_pkindex;
}

void
sc_catalog_open(ScCatalog *table, const char *name, LOCKMODE lockmode)
{
	table->rel = table_open(sc_relation_oid(name), lockmode);
	table->lockmode = lockmode;
	check_columns(table->rel, name);
	table->pkey = primary_key(table->rel);
	table->indexes = lockmode == AccessShareLock ? NULL : CatalogOpenIndexes(table->rel);
}

void
sc_catalog_close(ScCatalog *table)
{
	if (table->indexes != NULL)
		CatalogCloseIndexes(table->indexes);
	table_close(table->rel, table->lockmode == AccessShareLock ? AccessShareLock : NoLock);
	table->rel = NULL;
	table->indexes = NULL;
}

/* ---------- scans ---------- */

static void
scan_index(ScCatalogScan *scan, const ScCatalog *table, Oid index, int nkeys, ScanKey keys)
{
	scan->index = index_open(index, AccessShareLock);
	scan->scan = systable_beginscan_ordered(table->rel, scan->index, NULL, nkeys, keys);
}

void
sc_catalog_scan(ScCatalogScan *scan, const ScCatalog *table, int nkeys, ScanKey keys)
{
	scan_index(scan, table, table->pkey, nkeys, keys);
}

void
sc_catalog_scan_by(ScCatalogScan *scan, const ScCatalog *table, const char *index, int nkeys,
				 ScanKey keys)
{
	scan_index(scan, table, sc_relation_oid(index), nkeys, keys);
}

void
sc_catalog_scan_all(ScCatalogScan *scan, const ScCatalog *table)
{
	scan->index = NULL;
	scan->scan = systable_beginscan(table->rel, InvalidOid, false, NULL, 0, NULL);
}

HeapTuple
sc_catalog_next(ScCatalogScan *scan)
{
	return scan->index != NULL ?
		systable_getnext_ordered(scan->scan, ForwardScanDirection) :
		systable_getnext(scan->scan);
}

void
sc_catalog_scan_end(ScCatalogScan *scan)
{
	if (scan->index == NULL)
	{
		systable_endscan(scan->scan);
		return;
	}
	systable_endscan_ordered(scan->scan);
	index_close(scan->index, AccessShareLock);
}

HeapTuple
sc_catalog_find(const ScCatalog *table, int nkeys, ScanKey keys)
{
	ScCatalogScan scan;
	HeapTuple	tuple;

	sc_catalog_scan(&scan, table, nkeys, keys);
	tuple = sc_catalog_next(&scan);
	if (tuple != NULL)
		tuple = heap_copytuple(tuple);
	sc_catalog_scan_end(&scan);
	return tuple;
}

void
sc_key_int4(ScanKey key, AttrNumber attno, int32 value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(value));
}

void
sc_key_int8(ScanKey key, AttrNumber attno, int64 value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(value));
}

void
sc_key_oid(ScanKey key, AttrNumber attno, Oid value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(value));
}

/* ---------- changes ---------- */

void
sc_catalog_insert(const ScCatalog *table, const ScCatalogRow *row)
{
	bool		nulls[SC_MAX_COLUMNS];
	HeapTuple	tuple;

	for (int i = 0; i < SC_MAX_COLUMNS; i++)
		nulls[i] = row->nulls[i] || !row->set[i];
	tuple = heap_form_tuple(RelationGetDescr(table->rel), (Datum *) row->values, nulls);
	CatalogTupleInsertWithInfo(table->rel, tuple, table->indexes);
	heap_freetuple(tuple);
}

void
sc_catalog_update(const ScCatalog *table, HeapTuple tuple, const ScCatalogRow *row)
{
	HeapTuple	changed = heap_modify_tuple(tuple, RelationGetDescr(table->rel),
											(Datum *) row->values, (bool *) row->nulls,
											(bool *) row->set);

	CatalogTupleUpdateWithInfo(table->rel, &tuple->t_self, changed, table->indexes);
	heap_freetuple(changed);
}

void
sc_catalog_put(const ScCatalog *table, HeapTuple tuple, const ScCatalogRow *row)
{
	if (tuple != NULL)
		sc_catalog_update(table, tuple, row);
	else
		sc_catalog_insert(table, row);
}

void
sc_catalog_delete(const ScCatalog *table, HeapTuple tuple)
{
	CatalogTupleDelete(table->rel, &tuple->t_self);
}

/* ---------- rows ---------- */

void
sc_row_read(ScCatalogRow *row, const ScCatalog *table, HeapTuple tuple)
{
	heap_deform_tuple(tuple, RelationGetDescr(table->rel), row->values, row->nulls);
	memset(row->set, 0, sizeof(row->set));
}

Datum
sc_row_get(const ScCatalogRow *row, AttrNumber attno)
{
	if (row->nulls[attno - 1])
		elog(ERROR, "null value in column %d of a catalog of stream_ckpt", attno);
	return row->values[attno - 1];
}

void
sc_row_set(ScCatalogRow *row, AttrNumber attno, Datum value)
{
	row->values[attno - 1] = value;
	row->nulls[attno - 1] = false;
	row->set[attno - 1] = true;
}

void
sc_row_set_null(ScCatalogRow *row, AttrNumber attno)
{
	row->nulls[attno - 1] = true;
	row->set[attno - 1] = true;
}

void
sc_row_set_text(ScCatalogRow *row, AttrNumber attno, const char *string)
{
	if (string == NULL)
		sc_row_set_null(row, attno);
	else
		sc_row_set(row, attno, CStringGetTextDatum(string));
}

void
sc_row_set_interval(ScCatalogRow *row, AttrNumber attno, int64 usecs, bool isnull)
{
	if (isnull)
		sc_row_set_null(row, attno);
	else
		sc_row_set(row, attno, sc_interval_datum(usecs));
}

/* ---------- snapshots ---------- */

bool
sc_snapshot_push(void)
{
	if (ActiveSnapshotSet())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

void
sc_snapshot_pop(bool pushed)
{
	if (pushed)
		PopActiveSnapshot();
}
