/*-------------------------------------------------------------------------
 * store.c
 *	  The state backend "table": pipeline state, offsets, and the frame of a
 *	  checkpoint's transaction.  store_chunk.c writes and reads the chunks,
 *	  store_history.c the records of checkpoints.
 *
 * Called by the coordinator for each checkpoint, so tables and indexes are
 * accessed directly, without SPI and without planning.
 *
 * The rule: a coordinator whose attempt is over must not commit.  sc_store_begin
 * compares the attempt in the pipeline's state row with the caller's, and
 * sc_store_end updates exactly the row version that was read; whoever changed it
 * in between (a new attempt) makes that update fail.
 *
 * Scans use a fresh catalog snapshot each (systable_beginscan with none given),
 * so they see everything committed by others and every earlier command of this
 * transaction; a CommandCounterIncrement goes before each scan that can meet
 * rows of the transaction's own.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "ckpt/store_internal.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * Opens a table of the extension and all its indexes.  Errors where it hasn't the
 * shape that this library knows ("columns": how many it has), or no primary key.
 */
void
sc_store_table_open(StoreTable *table, const char *relname, int columns,
					LOCKMODE lockmode)
{
	table->rel = table_open(sc_relation_oid(relname), lockmode);
	if (RelationGetNumberOfAttributes(table->rel) != columns)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"stream_ckpt.%s\" does not fit the library", relname),
				 errdetail("It has %d columns, the library knows %d.",
						   RelationGetNumberOfAttributes(table->rel), columns),
				 errhint("Run ALTER EXTENSION stream_ckpt UPDATE, or install the library of the extension's version.")));
	table->indexes = CatalogOpenIndexes(table->rel);
	table->pkey = NULL;

	for (int i = 0; i < table->indexes->ri_NumIndices; i++)
	{
		Relation	index = table->indexes->ri_IndexRelationDescs[i];

		if (index->rd_index->indisprimary)
			table->pkey = index;
	}
	if (table->pkey == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"stream_ckpt.%s\" has no primary key", relname)));
}

/* Closes them; locks stay. */
void
sc_store_table_close(StoreTable *table)
{
	CatalogCloseIndexes(table->indexes);
	table_close(table->rel, NoLock);
	table->rel = NULL;
	table->pkey = NULL;
	table->indexes = NULL;
}

/* Starts a scan in the order of the primary key; keys by the table's columns. */
SysScanDesc
sc_store_scan(StoreTable *table, int nkeys, ScanKey keys)
{
	return systable_beginscan_ordered(table->rel, table->pkey, NULL, nkeys, keys);
}

/*
 * Writing tables that can have TOAST wants an active snapshot.  Makes one where
 * the caller has none; the result goes to sc_store_pop_snapshot.
 */
bool
sc_store_push_snapshot(void)
{
	if (ActiveSnapshotSet())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

/* Undoes sc_store_push_snapshot. */
void
sc_store_pop_snapshot(bool pushed)
{
	if (pushed)
		PopActiveSnapshot();
}

/* A copy of the pipeline's row of pipeline_state, or NULL. */
HeapTuple
sc_store_state_tuple(StoreTable *state, int32 pipeline_id)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_state_pipeline_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(pipeline_id));
	scan = sc_store_scan(state, 1, &key);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	if (tuple != NULL)
		tuple = heap_copytuple(tuple);
	systable_endscan_ordered(scan);
	return tuple;
}

/*
 * The pipeline's state; all zero where it never ran.  Needs a transaction.
 */
ScPipelineState
sc_store_read_state(int32 pipeline_id)
{
	ScPipelineState result = {0};
	Datum		values[Natts_state];
	bool		nulls[Natts_state];
	StoreTable	state;
	HeapTuple	tuple;

	sc_store_table_open(&state, "pipeline_state", Natts_state, AccessShareLock);
	tuple = sc_store_state_tuple(&state, pipeline_id);
	if (tuple != NULL)
	{
		heap_deform_tuple(tuple, RelationGetDescr(state.rel), values, nulls);
		result.attempt = DatumGetInt64(values[Anum_state_attempt - 1]);
		result.checkpoint_id = DatumGetInt64(values[Anum_state_checkpoint_id - 1]);
		if (!nulls[Anum_state_lsn - 1])
			result.lsn = DatumGetLSN(values[Anum_state_lsn - 1]);
		if (!nulls[Anum_state_system_identifier - 1])
			result.system_identifier = (uint64) DatumGetInt64(values[Anum_state_system_identifier - 1]);
		if (!nulls[Anum_state_database - 1])
			result.database = DatumGetObjectId(values[Anum_state_database - 1]);
		if (!nulls[Anum_state_server_version - 1])
			result.server_version = DatumGetInt32(values[Anum_state_server_version - 1]);
		if (!nulls[Anum_state_format - 1])
			result.format = DatumGetInt32(values[Anum_state_format - 1]);
		heap_freetuple(tuple);
	}
	sc_store_table_close(&state);
	return result;
}

/*
 * Counts a new attempt and returns its number; "restored": it starts from a
 * committed checkpoint.  In a transaction of its own: an attempt must be
 * committed before it does anything.  Fails where another process changes the row at
 * the same time.
 */
int64
sc_store_begin_attempt(int32 pipeline_id, bool restored)
{
	Datum		values[Natts_state] = {0};
	bool		nulls[Natts_state] = {0};
	StoreTable	state;
	HeapTuple	tuple;
	HeapTuple	newtuple;
	int64		attempt;

	sc_store_table_open(&state, "pipeline_state", Natts_state, RowExclusiveLock);
	tuple = sc_store_state_tuple(&state, pipeline_id);
	if (tuple != NULL)
		heap_deform_tuple(tuple, RelationGetDescr(state.rel), values, nulls);
	else
	{
		values[Anum_state_pipeline_id - 1] = Int32GetDatum(pipeline_id);
		nulls[Anum_state_lsn - 1] = true;
		for (int i = Anum_state_system_identifier; i <= Natts_state; i++)
			nulls[i - 1] = true;
	}

	attempt = DatumGetInt64(values[Anum_state_attempt - 1]) + 1;
	values[Anum_state_attempt - 1] = Int64GetDatum(attempt);
	if (restored)
		values[Anum_state_restored - 1] =
			Int64GetDatum(DatumGetInt64(values[Anum_state_restored - 1]) + 1);

	newtuple = heap_form_tuple(RelationGetDescr(state.rel), values, nulls);
	if (tuple != NULL)
		CatalogTupleUpdateWithInfo(state.rel, &tuple->t_self, newtuple, state.indexes);
	else
		CatalogTupleInsertWithInfo(state.rel, newtuple, state.indexes);
	sc_store_table_close(&state);
	CommandCounterIncrement();
	return attempt;
}

static int64
event_time(const Datum *values, const bool *nulls, AttrNumber attno)
{
	return nulls[attno - 1] ? SC_NO_EVENT_TIME : DatumGetTimestampTz(values[attno - 1]);
}

static void
set_event_time(Datum *values, bool *nulls, AttrNumber attno, int64 event_time)
{
	values[attno - 1] = TimestampTzGetDatum(event_time);
	nulls[attno - 1] = event_time == SC_NO_EVENT_TIME;
}

static int64
interval_usecs(const Datum *values, const bool *nulls, AttrNumber attno, const char *what,
			   int64 none)
{
	return nulls[attno - 1] ? none :
		sc_interval_usecs(DatumGetIntervalP(values[attno - 1]), what);
}

static void
set_ranges(Datum *values, bool *nulls, AttrNumber attno, const ScWindowRanges *ranges)
{
	nulls[attno - 1] = ranges->n == 0;
	if (ranges->n > 0)
		values[attno - 1] = sc_ranges_datum(ranges);
}

/* Fills an ScOffset (palloc'd) from a row of checkpoint_offset. */
static ScOffset *
offset_from_tuple(HeapTuple tuple, TupleDesc desc)
{
	ScOffset   *offset = palloc0(sizeof(ScOffset));
	Datum		values[Natts_offset];
	bool		nulls[Natts_offset];

	heap_deform_tuple(tuple, desc, values, nulls);
	offset->query_id = DatumGetInt64(values[Anum_offset_query_id - 1]);
	offset->stream_relid = DatumGetObjectId(values[Anum_offset_source - 1]);
	offset->checkpoint_id = DatumGetInt64(values[Anum_offset_checkpoint_id - 1]);
	offset->lsn = DatumGetLSN(values[Anum_offset_lsn - 1]);
	offset->time.max_event_time = event_time(values, nulls, Anum_offset_max_event_time);
	offset->time.plausible_time = event_time(values, nulls, Anum_offset_plausible_time);
	offset->time.closed_until = event_time(values, nulls, Anum_offset_closed_until);
	if (!nulls[Anum_offset_closed_windows - 1])
		sc_ranges_read(values[Anum_offset_closed_windows - 1], &offset->time.closed_windows);
	if (!nulls[Anum_offset_ahead_windows - 1])
		sc_ranges_read(values[Anum_offset_ahead_windows - 1], &offset->ahead_windows);
	offset->options.watermark_delay =
		interval_usecs(values, nulls, Anum_offset_watermark_delay, "watermark_delay", 0);
	offset->options.idle_timeout =
		interval_usecs(values, nulls, Anum_offset_idle_timeout, "idle_timeout", 0);
	offset->options.max_ahead =
		interval_usecs(values, nulls, Anum_offset_max_ahead, "max_ahead", SC_NO_LIMIT);
	offset->rows_in = DatumGetInt64(values[Anum_offset_rows_in - 1]);
	offset->late_rows = DatumGetInt64(values[Anum_offset_late_rows - 1]);
	offset->ahead_rows = DatumGetInt64(values[Anum_offset_ahead_rows - 1]);
	offset->null_event_times = DatumGetInt64(values[Anum_offset_null_event_times - 1]);
	offset->result_rows = DatumGetInt64(values[Anum_offset_result_rows - 1]);
	offset->updates_ignored = DatumGetInt64(values[Anum_offset_updates_ignored - 1]);
	offset->deletes_ignored = DatumGetInt64(values[Anum_offset_deletes_ignored - 1]);
	offset->truncates_ignored = DatumGetInt64(values[Anum_offset_truncates_ignored - 1]);
	offset->groups = DatumGetInt64(values[Anum_offset_groups - 1]);
	offset->state_bytes = DatumGetInt64(values[Anum_offset_state_bytes - 1]);
	if (!nulls[Anum_offset_active_lsn - 1] && !nulls[Anum_offset_active_at - 1])
	{
		offset->active_lsn = DatumGetLSN(values[Anum_offset_active_lsn - 1]);
		offset->active_at = DatumGetTimestampTz(values[Anum_offset_active_at - 1]);
	}
	offset->apart = DatumGetBool(values[Anum_offset_apart - 1]);
	offset->recent.late = DatumGetInt64(values[Anum_offset_recent_late - 1]);
	offset->recent.timeless = DatumGetInt64(values[Anum_offset_recent_timeless - 1]);
	offset->recent.ignored = DatumGetInt64(values[Anum_offset_recent_ignored - 1]);
	offset->recent.ahead = DatumGetInt64(values[Anum_offset_recent_ahead - 1]);
	if (!nulls[Anum_offset_recent_lsn - 1])
		offset->recent_lsn = DatumGetLSN(values[Anum_offset_recent_lsn - 1]);
	return offset;
}

/* The inverse: values and nulls have room for Natts_offset. */
static void
offset_to_values(const ScOffset *offset, Datum *values, bool *nulls)
{
	memset(nulls, 0, Natts_offset * sizeof(bool));
	values[Anum_offset_query_id - 1] = Int64GetDatum(offset->query_id);
	values[Anum_offset_source - 1] = ObjectIdGetDatum(offset->stream_relid);
	values[Anum_offset_checkpoint_id - 1] = Int64GetDatum(offset->checkpoint_id);
	values[Anum_offset_lsn - 1] = LSNGetDatum(offset->lsn);
	set_event_time(values, nulls, Anum_offset_max_event_time, offset->time.max_event_time);
	set_event_time(values, nulls, Anum_offset_plausible_time, offset->time.plausible_time);
	set_event_time(values, nulls, Anum_offset_closed_until, offset->time.closed_until);
	set_ranges(values, nulls, Anum_offset_closed_windows, &offset->time.closed_windows);
	set_ranges(values, nulls, Anum_offset_ahead_windows, &offset->ahead_windows);
	values[Anum_offset_watermark_delay - 1] = sc_interval_datum(offset->options.watermark_delay);
	values[Anum_offset_idle_timeout - 1] = sc_interval_datum(offset->options.idle_timeout);
	nulls[Anum_offset_idle_timeout - 1] = offset->options.idle_timeout == 0;
	values[Anum_offset_max_ahead - 1] = sc_interval_datum(offset->options.max_ahead);
	nulls[Anum_offset_max_ahead - 1] = offset->options.max_ahead == SC_NO_LIMIT;
	values[Anum_offset_ahead_rows - 1] = Int64GetDatum(offset->ahead_rows);
	values[Anum_offset_rows_in - 1] = Int64GetDatum(offset->rows_in);
	values[Anum_offset_late_rows - 1] = Int64GetDatum(offset->late_rows);
	values[Anum_offset_null_event_times - 1] = Int64GetDatum(offset->null_event_times);
	values[Anum_offset_result_rows - 1] = Int64GetDatum(offset->result_rows);
	values[Anum_offset_updates_ignored - 1] = Int64GetDatum(offset->updates_ignored);
	values[Anum_offset_deletes_ignored - 1] = Int64GetDatum(offset->deletes_ignored);
	values[Anum_offset_truncates_ignored - 1] = Int64GetDatum(offset->truncates_ignored);
	values[Anum_offset_groups - 1] = Int64GetDatum(offset->groups);
	values[Anum_offset_state_bytes - 1] = Int64GetDatum(offset->state_bytes);
	values[Anum_offset_active_lsn - 1] = LSNGetDatum(offset->active_lsn);
	values[Anum_offset_active_at - 1] = TimestampTzGetDatum(offset->active_at);
	nulls[Anum_offset_active_lsn - 1] = nulls[Anum_offset_active_at - 1] = offset->active_at == 0;
	values[Anum_offset_apart - 1] = BoolGetDatum(offset->apart);
	values[Anum_offset_recent_late - 1] = Int64GetDatum(offset->recent.late);
	values[Anum_offset_recent_timeless - 1] = Int64GetDatum(offset->recent.timeless);
	values[Anum_offset_recent_ignored - 1] = Int64GetDatum(offset->recent.ignored);
	values[Anum_offset_recent_ahead - 1] = Int64GetDatum(offset->recent.ahead);
	values[Anum_offset_recent_lsn - 1] = LSNGetDatum(offset->recent_lsn);
	nulls[Anum_offset_recent_lsn - 1] = XLogRecPtrIsInvalid(offset->recent_lsn);
}

/* The position that counts.  One that has no pipeline to go with has its own. */
static void
set_position(ScOffset *offset, const ScPipelineState *state)
{
	offset->apart |= XLogRecPtrIsInvalid(state->lsn);
	if (offset->apart)
		return;
	offset->lsn = state->lsn;
	offset->checkpoint_id = state->checkpoint_id;
}

/* Starts a scan of the query's offsets. */
static SysScanDesc
scan_offsets(StoreTable *table, int64 query_id)
{
	ScanKeyData key;

	ScanKeyInit(&key, Anum_offset_query_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(query_id));
	return sc_store_scan(table, 1, &key);
}

/*
 * See store.h.  Offsets of all existing queries of a pipeline, in the current memory context.
 * A query without one isn't in the list.  Needs a transaction and a snapshot.
 */
List *
sc_store_offsets(int32 pipeline_id)
{
	/* first: each scan has a snapshot of its own, and rows may be set apart in between */
	ScPipelineState state = sc_store_read_state(pipeline_id);
	List	   *queries = sc_query_list(pipeline_id);
	List	   *result = NIL;
	StoreTable	table;
	ListCell   *lc;

	sc_store_table_open(&table, "checkpoint_offset", Natts_offset, AccessShareLock);
	foreach(lc, queries)
	{
		ScQuery    *query = lfirst(lc);
		SysScanDesc scan = scan_offsets(&table, query->query_id);
		HeapTuple	tuple;

		while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
		{
			ScOffset   *offset = offset_from_tuple(tuple, RelationGetDescr(table.rel));

			set_position(offset, &state);
			result = lappend(result, offset);
		}
		systable_endscan_ordered(scan);
	}
	sc_store_table_close(&table);
	return result;
}

bool
sc_store_has_offset(int64 query_id)
{
	StoreTable	table;
	SysScanDesc scan;
	bool		result;

	sc_store_table_open(&table, "checkpoint_offset", Natts_offset, AccessShareLock);
	scan = scan_offsets(&table, query_id);
	result = systable_getnext_ordered(scan, ForwardScanDirection) != NULL;
	systable_endscan_ordered(scan);
	sc_store_table_close(&table);
	return result;
}

/*
 * See store.h.  To be called in the checkpoint's top transaction, with an active
 * snapshot, before the first subtransaction; sc_store_end there too.  After an
 * abort of the transaction the result is simply forgotten.
 */
ScStore *
sc_store_begin(int32 pipeline_id, int64 attempt, int64 checkpoint_id)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "stream_ckpt store",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	ScStore    *store = palloc0(sizeof(ScStore));
	bool		isnull;
	int64		current = 0;

	store->context = context;
	store->pipeline_id = pipeline_id;
	store->checkpoint_id = checkpoint_id;
	sc_store_table_open(&store->state, "pipeline_state", Natts_state,
						RowExclusiveLock);
	sc_store_table_open(&store->offset, "checkpoint_offset", Natts_offset,
						RowExclusiveLock);
	sc_store_table_open(&store->chunk, "state_chunk", Natts_chunk,
						RowExclusiveLock);

	store->chunk_desc = CreateTupleDescCopy(RelationGetDescr(store->chunk.rel));
	store->batch_context = AllocSetContextCreate(context, "stream_ckpt chunk batch",
												 ALLOCSET_DEFAULT_SIZES);

	store->state_tuple = sc_store_state_tuple(&store->state, pipeline_id);
	if (store->state_tuple != NULL)
		current = DatumGetInt64(heap_getattr(store->state_tuple, Anum_state_attempt,
											 RelationGetDescr(store->state.rel),
											 &isnull));
	if (store->state_tuple == NULL || current != attempt)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("attempt " INT64_FORMAT " of pipeline %d is over",
						attempt, pipeline_id),
				 errdetail("The current attempt is " INT64_FORMAT ".", current)));

	MemoryContextSwitchTo(oldcontext);
	return store;
}

int64
sc_store_checkpoint_id(const ScStore *store)
{
	return store->checkpoint_id;
}

static int64
ignored(const ScOffset *offset)
{
	return offset->updates_ignored + offset->deletes_ignored + offset->truncates_ignored;
}

/* What wasn't counted since "old", the offset that is stored; as there, where nothing came. */
static void
note_uncounted(ScOffset *new, const ScOffset *old)
{
	new->recent = old->recent;
	new->recent_lsn = old->recent_lsn;
	if (new->rows_in == old->rows_in && ignored(new) == ignored(old))
		return;
	new->recent.late = new->late_rows - old->late_rows;
	new->recent.timeless = new->null_event_times - old->null_event_times;
	new->recent.ignored = ignored(new) - ignored(old);
	new->recent.ahead = new->ahead_rows - old->ahead_rows;
	new->recent_lsn = new->lsn;
}

/* See store.h. */
void
sc_store_offset(ScStore *store, const ScOffset *offset)
{
	MemoryContext oldcontext;
	Datum		values[Natts_offset];
	bool		nulls[Natts_offset];
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	oldtuple;
	HeapTuple	newtuple;
	TupleDesc	desc = RelationGetDescr(store->offset.rel);
	ScOffset	none = {0};
	ScOffset	new;

	CommandCounterIncrement();
	oldcontext = MemoryContextSwitchTo(store->context);
	ScanKeyInit(&keys[0], Anum_offset_query_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(offset->query_id));
	ScanKeyInit(&keys[1], Anum_offset_source, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(offset->stream_relid));
	scan = sc_store_scan(&store->offset, 2, keys);
	oldtuple = systable_getnext_ordered(scan, ForwardScanDirection);
	new = *offset;
	note_uncounted(&new, oldtuple ? offset_from_tuple(oldtuple, desc) : &none);
	offset_to_values(&new, values, nulls);
	newtuple = heap_form_tuple(desc, values, nulls);
	if (oldtuple != NULL)
		CatalogTupleUpdateWithInfo(store->offset.rel, &oldtuple->t_self, newtuple,
								   store->offset.indexes);
	else
		CatalogTupleInsertWithInfo(store->offset.rel, newtuple,
								   store->offset.indexes);
	systable_endscan_ordered(scan);
	heap_freetuple(newtuple);
	MemoryContextSwitchTo(oldcontext);
}

void
sc_store_set_apart(ScStore *store, int64 query_id, XLogRecPtr lsn)
{
	Datum		values[Natts_offset] = {0};
	bool		nulls[Natts_offset] = {0};
	bool		replace[Natts_offset] = {0};
	SysScanDesc scan;
	HeapTuple	tuple;

	values[Anum_offset_lsn - 1] = LSNGetDatum(lsn);
	values[Anum_offset_apart - 1] = BoolGetDatum(true);
	replace[Anum_offset_lsn - 1] = replace[Anum_offset_apart - 1] = true;
	CommandCounterIncrement();
	scan = scan_offsets(&store->offset, query_id);
	while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
	{
		HeapTuple	changed = heap_modify_tuple(tuple, RelationGetDescr(store->offset.rel), values,
												nulls, replace);

		CatalogTupleUpdateWithInfo(store->offset.rel, &tuple->t_self, changed,
								   store->offset.indexes);
		heap_freetuple(changed);
	}
	systable_endscan_ordered(scan);
}

/* Removes the offsets of a query; part of sc_store_forget_query. */
void
sc_store_delete_offsets(ScStore *store, int64 query_id)
{
	SysScanDesc scan = scan_offsets(&store->offset, query_id);
	HeapTuple	tuple;

	while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
		CatalogTupleDelete(store->offset.rel, &tuple->t_self);
	systable_endscan_ordered(scan);
}

/*
 * Writes the completed checkpoint into the state row, with the identity of the
 * server whose WAL the LSN belongs to.
 */
static void
update_state(ScStore *store, const ScCheckpointRecord *record)
{
	Datum		values[Natts_state];
	bool		nulls[Natts_state];
	TupleDesc	desc = RelationGetDescr(store->state.rel);
	HeapTuple	tuple;

	heap_deform_tuple(store->state_tuple, desc, values, nulls);
	values[Anum_state_checkpoint_id - 1] = Int64GetDatum(record->checkpoint_id);
	values[Anum_state_lsn - 1] = LSNGetDatum(record->lsn);
	nulls[Anum_state_lsn - 1] = XLogRecPtrIsInvalid(record->lsn);
	values[Anum_state_completed - 1] =
		Int64GetDatum(DatumGetInt64(values[Anum_state_completed - 1]) + 1);
	values[Anum_state_system_identifier - 1] = Int64GetDatum((int64) GetSystemIdentifier());
	values[Anum_state_database - 1] = ObjectIdGetDatum(MyDatabaseId);
	values[Anum_state_timeline - 1] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	values[Anum_state_server_version - 1] = Int32GetDatum(PG_VERSION_NUM / 10000);
	values[Anum_state_format - 1] = Int32GetDatum(SC_STATE_FORMAT);
	for (int i = Anum_state_system_identifier; i <= Natts_state; i++)
		nulls[i - 1] = false;

	tuple = heap_form_tuple(desc, values, nulls);
	CatalogTupleUpdateWithInfo(store->state.rel, &store->state_tuple->t_self, tuple,
							   store->state.indexes);
	heap_freetuple(tuple);
}

/*
 * See store.h.  Frees the store; the caller commits.  Fails where the state row
 * was changed since sc_store_begin.
 */
void
sc_store_end(ScStore *store, const ScCheckpointRecord *record)
{
	Assert(record->pipeline_id == store->pipeline_id);
	Assert(record->checkpoint_id == store->checkpoint_id);

	sc_store_flush(store);
	update_state(store, record);
	sc_store_record(record, NULL);
	sc_store_prune_history(record->pipeline_id, record->checkpoint_id);

	sc_store_table_close(&store->chunk);
	sc_store_table_close(&store->offset);
	sc_store_table_close(&store->state);
	MemoryContextDelete(store->context);
	CommandCounterIncrement();
}

/*
 * See store.h.  Needs a transaction; a pipeline that never ran has nothing to
 * forget.
 */
void
sc_store_clear_position(int32 pipeline_id)
{
	Datum		values[Natts_state] = {0};
	bool		nulls[Natts_state] = {0};
	bool		replace[Natts_state] = {0};
	StoreTable	state;
	HeapTuple	tuple;

	sc_store_table_open(&state, "pipeline_state", Natts_state, RowExclusiveLock);
	tuple = sc_store_state_tuple(&state, pipeline_id);
	if (tuple != NULL && !heap_attisnull(tuple, Anum_state_lsn, RelationGetDescr(state.rel)))
	{
		HeapTuple	changed;

		nulls[Anum_state_lsn - 1] = true;
		replace[Anum_state_lsn - 1] = true;
		changed = heap_modify_tuple(tuple, RelationGetDescr(state.rel), values, nulls,
									replace);
		CatalogTupleUpdateWithInfo(state.rel, &tuple->t_self, changed, state.indexes);
	}
	sc_store_table_close(&state);
}
