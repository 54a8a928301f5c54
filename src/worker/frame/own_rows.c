/*-------------------------------------------------------------------------
 * own_rows.c
 *	  Result rows that a coordinator or its writer is writing, for the reader to pass over
 *	  (own_rows.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/debug.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "model/catalog_write.h"
#include "utils/rel.h"
#include "worker/frame/loop.h"
#include "worker/frame/own_rows.h"

/* The files of the table's TOAST table, or, if it has none, of the table. */
static RelFileLocator
toast_files(Relation relation)
{
	RelFileLocator files = relation->rd_locator;
	Oid			toast = relation->rd_rel->reltoastrelid;
	Relation	toast_relation;

	if (!OidIsValid(toast))
		return files;
	toast_relation = relation_open(toast, RowExclusiveLock);
	files = toast_relation->rd_locator;
	relation_close(toast_relation, NoLock);
	return files;
}

/*
 * Is the table part of no stream, until this transaction ends?  Never waits: who is attaching it
 * has the lock, and its rows are decoded then.
 */
static bool
belongs_to_no_stream(Relation relation)
{
	return relation->rd_rel->relkind == RELKIND_RELATION && !relation->rd_rel->relispartition &&
		sc_stream_lock_conditional(RelationGetRelid(relation), ShareLock) &&
		sc_stream_by_relid(RelationGetRelid(relation), true) == NULL;
}

/*
 * A place that is free: never taken, or of a transaction that the reader has read to its end.  -1: none.  Call with
 * the mutex held.
 */
static int
free_place(const ScOwnRows *own, XLogRecPtr decoded)
{
	for (int i = 0; i < SC_OWN_ROWS; i++)
	{
		if (!TransactionIdIsValid(own->places[i].xid) ||
			(!XLogRecPtrIsInvalid(own->places[i].until) && own->places[i].until <= decoded))
			return i;
	}
	return -1;
}

void
sc_own_rows_begin(Relation relation)
{
	ScOwnRows  *own = &sc_my_pipeline->own_rows;
	TransactionId xid = GetCurrentTransactionId();
	RelFileLocator toast;
	XLogRecPtr	from;
	XLogRecPtr	decoded = pg_atomic_read_u64(&sc_my_pipeline->decoded_lsn);
	int			place;

	if (!belongs_to_no_stream(relation))
		return;
	toast = toast_files(relation);
	from = GetXLogInsertRecPtr();

	SpinLockAcquire(&sc_my_pipeline->mutex);
	place = free_place(own, decoded);
	if (place >= 0)
	{
		own->places[place].xid = xid;
		own->places[place].pid = MyProcPid;
		own->places[place].files[0] = relation->rd_locator;
		own->places[place].files[1] = toast;
		own->places[place].from = from;
		own->places[place].until = InvalidXLogRecPtr;
	}
	SpinLockRelease(&sc_my_pipeline->mutex);
	if (place >= 0)
		pg_atomic_fetch_add_u64(&own->changes, 1);
}

/* Ends the places of transactions that run, of this process or of all. */
static void
end_places(bool all)
{
	ScOwnRows  *own = &sc_my_pipeline->own_rows;
	XLogRecPtr	until = GetXLogInsertRecPtr();
	bool		changed = false;

	SpinLockAcquire(&sc_my_pipeline->mutex);
	for (int i = 0; i < SC_OWN_ROWS; i++)
	{
		if (TransactionIdIsValid(own->places[i].xid) &&
			XLogRecPtrIsInvalid(own->places[i].until) &&
			(all || own->places[i].pid == MyProcPid))
		{
			own->places[i].until = until;
			changed = true;
		}
	}
	SpinLockRelease(&sc_my_pipeline->mutex);
	if (changed)
		pg_atomic_fetch_add_u64(&own->changes, 1);
}

void
sc_own_rows_end(void)
{
	end_places(false);
}

void
sc_own_rows_end_all(void)
{
	end_places(true);
}

/*
 * The reader's copy is as new as the record that it has read: who wrote that told us first.
 */
bool
sc_own_rows_contain(TransactionId xid, const RelFileLocator *file, XLogRecPtr lsn)
{
	static ScOwnRows copy;
	static uint64 seen = PG_UINT64_MAX;
	static int	last;			/* the place that was the right one last */
	uint64		changes = pg_atomic_read_u64(&sc_my_pipeline->own_rows.changes);

	if (changes == 0)
		return false;
	if (changes != seen)
	{
		SpinLockAcquire(&sc_my_pipeline->mutex);
		memcpy(&copy, &sc_my_pipeline->own_rows, sizeof(copy));
		SpinLockRelease(&sc_my_pipeline->mutex);
		seen = changes;
	}
	for (int n = 0; n < SC_OWN_ROWS; n++)
	{
		int			i = (last + n) % SC_OWN_ROWS;

		if (copy.places[i].xid != xid || lsn < copy.places[i].from ||
			(!XLogRecPtrIsInvalid(copy.places[i].until) && lsn > copy.places[i].until))
			continue;
		if (RelFileLocatorEquals(copy.places[i].files[0], *file) ||
			RelFileLocatorEquals(copy.places[i].files[1], *file))
		{
			last = i;
			SC_DEBUG_POINT("reader_own_row");
			return true;
		}
	}
	return false;
}
