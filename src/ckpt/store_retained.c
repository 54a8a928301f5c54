/*-------------------------------------------------------------------------
 * store_retained.c
 *	  The tables in which checkpoints keep rows for users, late_rows and dead_letter:
 *	  users may delete from them at any time.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "ckpt/store_internal.h"
#include "utils/fmgroids.h"
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
sc_store_delete_kept(const char *relname, int columns, AttrNumber query_id_attno,
					 int64 query_id, bool wait)
{
	bool		all = true;
	bool		pushed = sc_store_push_snapshot();
	StoreTable	table;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	sc_store_table_open(&table, relname, columns, RowExclusiveLock);
	ScanKeyInit(&key, query_id_attno, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(query_id));
	scan = sc_store_scan(&table, 1, &key);
	while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
		all &= delete_row(table.rel, &tuple->t_self, wait);
	systable_endscan_ordered(scan);
	sc_store_table_close(&table);
	sc_store_pop_snapshot(pushed);
	return all;
}
