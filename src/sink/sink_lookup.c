/*-------------------------------------------------------------------------
 * sink_lookup.c
 *	  Finding result rows by the unique index of the result table, one by one, or many in the
 *	  order of their keys.
 *
 * A lookup uses a dirty snapshot, which sees what this transaction wrote a
 * moment ago; so the same key may come several times in one checkpoint.  To be
 * changed again, a row must also be of an earlier command.
 *
 * Many rows that lie close to each other are found by walking along the index beside them: one descent for the
 * first, then an entry for each.  The walk begins at the first entry that isn't less than a row's key, by a row
 * comparison.  No row is missed: the entries are all of those from there on whose first column isn't NULL, and
 * what others insert meanwhile the index's own check of uniqueness finds.  Such a comparison has no meaning for NULL, so
 * rows with a NULL in the key are looked up one by one, beside the walk; so are all if the index isn't as we make it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/tableam.h"
#include "base/compat.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "sink/sink_internal.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/sortsupport.h"

/* So many rows at least are worth a walk, which reads whole pages of the index */
#define WALK_ROWS		16
/* Entries that a walk passes for a row before it descends again */
#define WALK_ENTRIES	50
/* Rows looked up one by one after a descent that served too few */
#define WALK_PAUSE		200

struct SinkLookup
{
	Relation	rel;
	Relation	index;
	int			nkeys;
	SnapshotData dirty;			/* of both scans */
	TupleTableSlot *found;		/* the row that was found */

	IndexScanDesc scan;			/* one by one */
	bool		scanning;		/* it has been started */
	ScanKeyData equal[INDEX_MAX_KEYS];	/* without arguments */

	IndexScanDesc walk;			/* NULL: never */
	ScanKeyData from[INDEX_MAX_KEYS];	/* members of a row comparison, without arguments */
	SortSupportData sort[INDEX_MAX_KEYS];
	bool		walking;		/* "walk" has been started, at or before the next row */
	bool		ended;			/* there is no further entry */
	int			served;			/* rows since it was started */
	int			pause;			/* rows to be looked up one by one */
};

/*
 * May rows be found by walking?  The columns ascend, are stored as they are, and the first is never NULL, since PostgreSQL
 * ends a row comparison at a NULL there.
 */
static bool
can_walk(const SinkKey *key, Relation rel, Relation index)
{
	if (index->rd_rel->relam != BTREE_AM_OID || key->ncolumns < 2 ||
		!TupleDescAttr(RelationGetDescr(rel), key->attnos[0] - 1)->attnotnull)
		return false;
	for (int i = 0; i < key->ncolumns; i++)
	{
		if (index->rd_indoption[i] != 0 ||
			TupleDescAttr(RelationGetDescr(index), i)->atttypid !=
			TupleDescAttr(RelationGetDescr(rel), key->attnos[i] - 1)->atttypid)
			return false;
	}
	return true;
}

/* Prepares what is the same for each lookup. */
static void
make_keys(SinkLookup *lookup, const SinkKey *key)
{
	Relation	index = lookup->index;

	for (int i = 0; i < lookup->nkeys; i++)
	{
		SortSupport sort = &lookup->sort[i];
		Oid			less = get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
											   index->rd_opcintype[i], BTLessStrategyNumber);

		ScanKeyEntryInitialize(&lookup->equal[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   key->collations[i], get_opcode(key->eq_operators[i]), (Datum) 0);
		ScanKeyEntryInitialize(&lookup->from[i], SK_ROW_MEMBER, i + 1, BTGreaterEqualStrategyNumber,
							   InvalidOid, key->collations[i],
							   index_getprocid(index, i + 1, BTORDER_PROC), (Datum) 0);
		sort->ssup_cxt = CurrentMemoryContext;
		sort->ssup_collation = key->collations[i];
		PrepareSortSupportFromOrderingOp(less, sort);
	}
	lookup->from[lookup->nkeys - 1].sk_flags |= SK_ROW_END;
}

/*
 * Prepares lookups by the table's key, which must be there.  To be ended before the sink's indexes
 * are closed.
 */
SinkLookup *
sc_sink_lookup_begin(ScSink *sink)
{
	const SinkKey *key = sc_sink_key(sink, false);
	ResultRelInfo *result_rel = sink->direct->result_rel;
	MemoryContext oldcontext = MemoryContextSwitchTo(sink->context);
	SinkLookup *lookup = palloc0(sizeof(SinkLookup));

	lookup->rel = sink->rel;
	lookup->nkeys = key->ncolumns;
	for (int i = 0; i < result_rel->ri_NumIndices; i++)
	{
		if (RelationGetRelid(result_rel->ri_IndexRelationDescs[i]) == key->index)
			lookup->index = result_rel->ri_IndexRelationDescs[i];
	}
	if (lookup->index == NULL)
		elog(ERROR, "index %u of table \"%s\" is not open", key->index,
			 RelationGetRelationName(sink->rel));
	lookup->found = table_slot_create(sink->rel, NULL);
	InitDirtySnapshot(lookup->dirty);
	make_keys(lookup, key);
	lookup->scan = sc_index_beginscan(sink->rel, lookup->index, &lookup->dirty, lookup->nkeys);
	if (can_walk(key, sink->rel, lookup->index))
	{
		lookup->walk = sc_index_beginscan(sink->rel, lookup->index, &lookup->dirty, 1);
		lookup->walk->xs_want_itup = true;
	}
	MemoryContextSwitchTo(oldcontext);
	return lookup;
}

void
sc_sink_lookup_end(SinkLookup *lookup)
{
	index_endscan(lookup->scan);
	if (lookup->walk != NULL)
		index_endscan(lookup->walk);
	ExecDropSingleTupleTableSlot(lookup->found);
}

/* The order of the keys in the index, if it is one that can be walked along; else any order. */
int
sc_sink_compare_keys(const SinkUpsert *a, const SinkUpsert *b, SinkLookup *lookup)
{
	for (int i = 0; i < lookup->nkeys; i++)
	{
		int			result = ApplySortComparator(a->keys[i], a->nulls[i], b->keys[i], b->nulls[i],
												 &lookup->sort[i]);

		if (result != 0)
			return result;
	}
	return 0;
}

/* The transaction of another that is writing the row found, if there is one. */
static TransactionId
writer(const SinkLookup *lookup)
{
	return TransactionIdIsValid(lookup->dirty.xmin) ? lookup->dirty.xmin : lookup->dirty.xmax;
}

/* Ends the walk; nothing stays pinned. */
static void
walk_end(SinkLookup *lookup)
{
	if (lookup->walking)
		index_rescan(lookup->walk, NULL, 1, NULL, 0);
	lookup->walking = false;
}

/*
 * Finds the row with a key; it is then in lookup->found.  Waits for a transaction that is inserting or
 * deleting it.
 */
static bool
find_row(SinkLookup *lookup, const Datum *keys, const bool *nulls)
{
	ScanKeyData scan_keys[INDEX_MAX_KEYS];

	for (int i = 0; i < lookup->nkeys; i++)
	{
		scan_keys[i] = lookup->equal[i];
		if (nulls[i])
			ScanKeyEntryInitialize(&scan_keys[i], SK_ISNULL | SK_SEARCHNULL, i + 1,
								   InvalidStrategy, InvalidOid, InvalidOid,
								   InvalidOid, (Datum) 0);
		else
			scan_keys[i].sk_argument = keys[i];
	}

	lookup->scanning = true;
	for (;;)
	{
		TransactionId xwait;
		ItemPointerData tid;

		index_rescan(lookup->scan, scan_keys, lookup->nkeys, NULL, 0);
		if (!index_getnext_slot(lookup->scan, ForwardScanDirection, lookup->found))
			return false;

		xwait = writer(lookup);
		if (!TransactionIdIsValid(xwait))
			return true;

		/* no buffer stays pinned while waiting */
		tid = lookup->found->tts_tid;
		ExecClearTuple(lookup->found);
		walk_end(lookup);
		index_rescan(lookup->scan, scan_keys, lookup->nkeys, NULL, 0);
		XactLockTableWait(xwait, lookup->rel, &tid, XLTW_Update);
	}
}

/*
 * Finds the row with a key, and its tuple id.  Waits for a transaction that is inserting or deleting it.
 */
bool
sc_sink_lookup_row(SinkLookup *lookup, const Datum *keys, const bool *nulls, ItemPointer tid)
{
	bool		result = find_row(lookup, keys, nulls);

	if (result)
		*tid = lookup->found->tts_tid;
	ExecClearTuple(lookup->found);
	return result;
}

/* ---------------------------------------------------------------------
 * Walking
 * --------------------------------------------------------------------- */

/* Goes to the next entry of the index. */
static void
walk_on(SinkLookup *lookup)
{
	lookup->ended = index_getnext_tid(lookup->walk, ForwardScanDirection) == NULL;
}

/* Starts the walk at the first entry that isn't less than the key, which has no NULL. */
static void
walk_from(SinkLookup *lookup, const Datum *keys)
{
	ScanKeyData row = {0};

	for (int i = 0; i < lookup->nkeys; i++)
	{
		/* PostgreSQL has written into them */
		lookup->from[i].sk_flags = SK_ROW_MEMBER | (i == lookup->nkeys - 1 ? SK_ROW_END : 0);
		lookup->from[i].sk_strategy = BTGreaterEqualStrategyNumber;
		lookup->from[i].sk_argument = keys[i];
	}
	row.sk_flags = SK_ROW_HEADER;
	row.sk_attno = 1;
	row.sk_strategy = BTGreaterEqualStrategyNumber;
	row.sk_argument = PointerGetDatum(lookup->from);
	index_rescan(lookup->walk, &row, 1, NULL, 0);
	lookup->walking = true;
	lookup->served = 0;
	walk_on(lookup);
}

/* The order of the current entry and a key. */
static int
compare_entry(SinkLookup *lookup, const Datum *keys, const bool *nulls)
{
	IndexScanDesc walk = lookup->walk;

	for (int i = 0; i < lookup->nkeys; i++)
	{
		bool		isnull;
		Datum		value = index_getattr(walk->xs_itup, i + 1, walk->xs_itupdesc, &isnull);
		int			result = ApplySortComparator(value, isnull, keys[i], nulls[i], &lookup->sort[i]);

		if (result != 0)
			return result;
	}
	return 0;
}

/*
 * Finds the row with a key by walking on; it is then in lookup->found.  Whether somebody is writing it
 * is the caller's to look at.
 */
static bool
walk_to(SinkLookup *lookup, const SinkUpsert *upsert)
{
	int			passed = 0;

	if (!lookup->walking)
		walk_from(lookup, upsert->keys);
	lookup->served++;
	while (!lookup->ended)
	{
		int			order = compare_entry(lookup, upsert->keys, upsert->nulls);

		if (order > 0)
			return false;
		if (order == 0 && index_fetch_heap(lookup->walk, lookup->found))
			return true;
		if (order < 0 && passed++ == WALK_ENTRIES)
		{
			if (lookup->served < WALK_ROWS)
				lookup->pause = WALK_PAUSE;
			walk_from(lookup, upsert->keys);
			lookup->served = 1;
		}
		else
			walk_on(lookup);
	}
	return false;
}

/* Is the row found the upsert's, byte by byte?  Values out of line are never taken for the same. */
static bool
is_same(const SinkLookup *lookup, const SinkUpsert *upsert)
{
	HeapTuple	old;
	HeapTuple	new;
	HeapTupleHeader x;
	HeapTupleHeader y;

	if (!TTS_IS_BUFFERTUPLE(lookup->found) || !TTS_IS_BUFFERTUPLE(upsert->slot))
		return false;
	old = ExecFetchSlotHeapTuple(lookup->found, false, NULL);
	new = ExecFetchSlotHeapTuple(upsert->slot, false, NULL);
	x = old->t_data;
	y = new->t_data;
	return old->t_len == new->t_len && x->t_hoff == y->t_hoff &&
		HeapTupleHeaderGetNatts(x) == HeapTupleHeaderGetNatts(y) &&
		!HeapTupleHasExternal(old) && !HeapTupleHasExternal(new) &&
		HeapTupleHasNulls(old) == HeapTupleHasNulls(new) &&
		memcmp((char *) x + SizeofHeapTupleHeader, (char *) y + SizeofHeapTupleHeader,
			   old->t_len - SizeofHeapTupleHeader) == 0;
}

/* Looks up one of many rows. */
static void
look_up(SinkLookup *lookup, SinkUpsert *upsert)
{
	bool		found;

	if (lookup->walk != NULL && !upsert->has_null && lookup->pause == 0)
	{
		found = walk_to(lookup, upsert);
		if (found && TransactionIdIsValid(writer(lookup)))
		{
			/* looked up again, it is waited for */
			ExecClearTuple(lookup->found);
			found = find_row(lookup, upsert->keys, upsert->nulls);
		}
	}
	else
	{
		/* a row with a NULL leaves the walk where it is, for those behind it */
		if (lookup->pause > 0)
		{
			walk_end(lookup);
			lookup->pause--;
		}
		found = find_row(lookup, upsert->keys, upsert->nulls);
	}
	if (found)
	{
		upsert->tid = lookup->found->tts_tid;
		upsert->found = is_same(lookup, upsert) ? SINK_SAME : SINK_OTHER;
	}
	ExecClearTuple(lookup->found);
}

/*
 * Finds the rows with the keys of "upserts", which are in the order of sc_sink_compare_keys().  Those whose "found" isn't
 * SINK_NONE are passed over.  Waits for transactions that are inserting or deleting one of them.  Nothing
 * may be written in between; nothing stays pinned.
 */
void
sc_sink_lookup_batch(SinkLookup *lookup, SinkUpsert *upserts, int n)
{
	if (n < WALK_ROWS)
		lookup->pause = Max(lookup->pause, n);
	for (int i = 0; i < n; i++)
	{
		if (upserts[i].found == SINK_NONE)
			look_up(lookup, &upserts[i]);
	}
	walk_end(lookup);
	if (lookup->scanning)
		index_rescan(lookup->scan, NULL, lookup->nkeys, NULL, 0);
	lookup->scanning = false;
}
