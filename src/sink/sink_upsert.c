/*-------------------------------------------------------------------------
 * sink_upsert.c
 *	  The direct way to update and delete result rows: looked up by the unique
 *	  index of the result table, changed by tuple id, as logical replication's
 *	  apply does.
 *
 * A lookup uses a dirty snapshot, which sees what this transaction wrote a
 * moment ago; so the same key may come several times in one checkpoint.  To be
 * changed again, a row must also be of an earlier command: the command counter
 * moves after each row written.
 *
 * Normally nobody else writes a result table.  Where a user does, his open
 * transaction is waited for (at most lock_timeout); a row that he changed between our
 * lookup and our write is an error, and the checkpoint is tried again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "executor/executor.h"
#include "sink/sink_internal.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/*
 * Prepares lookups.  Also refuses what the executor would: changing a published
 * table whose changes the subscribers couldn't identify.
 */
static void
lookup_begin(ScSink *sink)
{
	SinkDirect *direct = sink->direct;
	const SinkKey *key = sc_sink_key(sink, false);
	ResultRelInfo *result_rel = direct->result_rel;
	MemoryContext oldcontext;

	CheckCmdReplicaIdentity(sink->rel, CMD_UPDATE);
	CheckCmdReplicaIdentity(sink->rel, CMD_DELETE);

	oldcontext = MemoryContextSwitchTo(sink->context);
	direct->slot = table_slot_create(sink->rel, NULL);
	direct->found = table_slot_create(sink->rel, NULL);
	InitDirtySnapshot(direct->dirty);
	for (int i = 0; i < result_rel->ri_NumIndices; i++)
	{
		Relation	index = result_rel->ri_IndexRelationDescs[i];

		if (index != NULL && RelationGetRelid(index) == key->index)
			direct->key_scan = sc_index_beginscan(sink->rel, index, &direct->dirty,
												  key->ncolumns);
	}
	MemoryContextSwitchTo(oldcontext);
	if (direct->key_scan == NULL)
		elog(ERROR, "index %u of table \"%s\" is not open", key->index,
			 RelationGetRelationName(sink->rel));
}

/* Ends lookups, if there were any. */
void
sc_sink_lookup_end(ScSink *sink)
{
	SinkDirect *direct = sink->direct;

	if (direct->key_scan == NULL)
		return;
	index_endscan(direct->key_scan);
	ExecDropSingleTupleTableSlot(direct->found);
	ExecDropSingleTupleTableSlot(direct->slot);
}

/* Fills the scan keys for the current row. */
static void
make_scan_keys(ScSink *sink, ScanKey keys)
{
	const SinkKey *key = &sink->key;

	for (int i = 0; i < key->ncolumns; i++)
	{
		int			column = key->columns[i];

		if (sink->row->tts_isnull[column])
			ScanKeyEntryInitialize(&keys[i], SK_ISNULL | SK_SEARCHNULL, i + 1,
								   InvalidStrategy, InvalidOid, InvalidOid,
								   InvalidOid, (Datum) 0);
		else
			ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber,
								   InvalidOid, key->collations[i],
								   get_opcode(key->eq_operators[i]),
								   sink->row->tts_values[column]);
	}
}

/*
 * Finds the row with the current row's key; its tuple id is then in
 * direct->found.  Waits for a transaction that is inserting or deleting it.
 */
static bool
lookup(ScSink *sink)
{
	SinkDirect *direct = sink->direct;
	ScanKeyData keys[INDEX_MAX_KEYS];

	if (direct->key_scan == NULL)
		lookup_begin(sink);
	make_scan_keys(sink, keys);

	for (;;)
	{
		TransactionId xwait;
		ItemPointerData tid;

		index_rescan(direct->key_scan, keys, sink->key.ncolumns, NULL, 0);
		if (!index_getnext_slot(direct->key_scan, ForwardScanDirection, direct->found))
			return false;

		xwait = TransactionIdIsValid(direct->dirty.xmin) ? direct->dirty.xmin :
			direct->dirty.xmax;
		if (!TransactionIdIsValid(xwait))
			return true;

		/* no buffer stays pinned while waiting */
		tid = direct->found->tts_tid;
		ExecClearTuple(direct->found);
		index_rescan(direct->key_scan, keys, sink->key.ncolumns, NULL, 0);
		XactLockTableWait(xwait, sink->rel, &tid, XLTW_Update);
	}
}

/* Makes what was written visible to the next row's write. */
static void
row_done(ScSink *sink)
{
	ExecClearTuple(sink->direct->found);
	ResetPerTupleExprContext(sink->direct->estate);
	CommandCounterIncrement();
}

/* Updates the row with the current row's key, or inserts it. */
void
sc_sink_direct_upsert(ScSink *sink)
{
	SinkDirect *direct = sink->direct;
	bool		found;

	sc_sink_direct_flush(sink);
	found = lookup(sink);
	sc_sink_fill_slot(sink, direct->slot);

	if (found)
	{
		ItemPointerData tid = direct->found->tts_tid;
		ScUpdateIndexes update_indexes;

		simple_table_tuple_update(sink->rel, &tid, direct->slot, InvalidSnapshot,
								  &update_indexes);
		if (sc_updates_indexes(update_indexes))
			list_free(sc_update_index_tuples(direct->result_rel, direct->slot,
											 direct->estate, update_indexes));
	}
	else
	{
		simple_table_tuple_insert(sink->rel, direct->slot);
		list_free(sc_insert_index_tuples(direct->result_rel, direct->slot,
										 direct->estate));
	}
	ExecClearTuple(direct->slot);
	row_done(sink);
}

/* Deletes the row with the current row's key, if there is one; all of them, if its type has made
 * several equal since they were written. */
void
sc_sink_direct_delete(ScSink *sink)
{
	sc_sink_direct_flush(sink);
	while (lookup(sink))
	{
		ItemPointerData tid = sink->direct->found->tts_tid;

		simple_table_tuple_delete(sink->rel, &tid, InvalidSnapshot);
		row_done(sink);
	}
	row_done(sink);
}
