/*-------------------------------------------------------------------------
 * retained_table.c
 *	  Rows that checkpoints retain for users (retained_table.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "ckpt/retained_table.h"
#include "utils/snapmgr.h"

/* Deletes a row, unless somebody else does.  False: it may remain, and he wasn't waited for. */
static bool
delete_row(Relation rel, ItemPointer tid, bool wait)
{
	TM_FailureData failure;
	TM_Result	result = sc_table_tuple_delete(rel, tid, GetCurrentCommandId(true),
											   GetActiveSnapshot(), wait, &failure);

	if (result == TM_BeingModified)
		return false;
	if (result != TM_Ok && result != TM_Deleted && result != TM_SelfModified)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a row of \"stream_ckpt.%s\" was changed by another transaction",
						RelationGetRelationName(rel))));
	return true;
}

bool
sc_retained_delete(const char *name, AttrNumber query_id_attno, int64 query_id, bool wait)
{
	bool		all = true;
	bool		pushed = sc_snapshot_push();
	ScCatalog	table;
	ScanKeyData key;
	ScCatalogScan scan;
	HeapTuple	tuple;

	sc_catalog_open(&table, name, RowExclusiveLock);
	sc_key_int8(&key, query_id_attno, query_id);
	sc_catalog_scan(&scan, &table, 1, &key);
	while ((tuple = sc_catalog_next(&scan)) != NULL)
		all &= delete_row(table.rel, &tuple->t_self, wait);
	sc_catalog_scan_end(&scan);
	sc_catalog_close(&table);
	sc_snapshot_pop(pushed);
	return all;
}

static void
set_kept(ScCatalogRow *row, AttrNumber attno, Datum value)
{
	if (value == (Datum) 0)
		sc_row_set_null(row, attno);
	else
		sc_row_set(row, attno, value);
}

void
sc_retained_row_set(ScCatalogRow *row, const ScRetainedRow *kept, AttrNumber row_attno,
				AttrNumber types_attno, AttrNumber text_attno)
{
	set_kept(row, row_attno, kept->row);
	set_kept(row, types_attno, kept->types);
	set_kept(row, text_attno, kept->text);
}
