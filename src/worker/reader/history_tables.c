/*-------------------------------------------------------------------------
 * history_tables.c
 *	  The tables of a stream whose history is read (history.c): who must be visible, locks, giving way to others, and
 *	  passes over their rows.
 *
 * The rule: nobody waits long for a lock that a history takes.  The reader looks once a second or so whether somebody
 * does, whatever the tables hold, and gives up with an error; all is read again later.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/debug.h"
#include "base/lock_wait.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/standby.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/frame/backfill.h"
#include "worker/frame/loop.h"
#include "worker/reader/history.h"
#include "worker/reader/history_internal.h"

#define LOOK_ROWS		1024	/* between looks at what is to be seen of it */
#define TIME_ROWS		32		/* between looks at the time */
#define LOCK_TRIES		20		/* to lock a table, */
#define LOCK_TRY_MS		10		/* each of them followed by so long a wait */
#ifdef SC_DEBUG
#define LOOK_BLOCKS		4
#define LOOK_MS			0
#else
#define LOOK_BLOCKS		1024	/* read without a look at the time, if no row of them is visible */
#define LOOK_MS			1000	/* between looks for others who wait for the tables */
#endif

/* For sc_history_look(); NIL: no history is being read */
static List *locked;			/* OIDs of its tables */
static Oid	being_read;			/* the stream */
static ScMoment looked_at;

/* ---------------------------------------------------------------------
 * What is visible
 * --------------------------------------------------------------------- */

static void
wait_once(long timeout_ms)
{
	SC_DEBUG_POINT("history_waits");
	sc_worker_wait(timeout_ms);
}

/*
 * Returns when whoever has a commit record in the log is visible to later snapshots, but for those that come meanwhile.
 * A record is written, and the commit log changed, under DELAY_CHKPT_START; from then on a transaction is committed, and
 * running as long as it waits for a standby.  Snapshots don't list the newest of those.
 */
void
sc_history_wait_for_committing(void)
{
	int			n;
	VirtualTransactionId *writing = GetVirtualXIDsDelayingChkpt(&n, DELAY_CHKPT_START);
	RunningTransactions running;
	TransactionId *xids;

	while (n > 0 && HaveVirtualXIDsDelayingChkpt(writing, n, DELAY_CHKPT_START))
		sc_worker_wait(1);
	running = GetRunningTransactionData();
	/* its array is this process's own */
	LWLockRelease(ProcArrayLock);
	LWLockRelease(XidGenLock);
	n = running->xcnt;
	xids = palloc(sizeof(TransactionId) * Max(n, 1));
	memcpy(xids, running->xids, n * sizeof(TransactionId));
	for (int i = 0; i < n; i++)
	{
		if (TransactionIdDidCommit(xids[i]))
			sc_wait_until_visible(xids[i], wait_once);
	}
	pfree(writing);
	pfree(xids);
}

/* ---------------------------------------------------------------------
 * Tables
 * --------------------------------------------------------------------- */

/* Not behind somebody who waits for a lock, nor for long: all queries of the pipeline wait with us. */
static void
lock_table(Oid relid)
{
	for (int i = 0; !ConditionalLockRelationOid(relid, AccessShareLock); i++)
	{
		if (i == LOCK_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not obtain lock on relation \"%s\" to read its rows", get_rel_name(relid))));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOCK_TRY_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* The table's leaves, by the bounds of its partitions: so that those by time are in order. */
List *
sc_history_leaves(Oid relid, List *found)
{
	Relation	relation = table_open(relid, NoLock);

	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		/* without those that are being detached, as the snapshot says: a plain query doesn't read them */
		PartitionDesc partitions = RelationGetPartitionDesc(relation, true);

		for (int i = 0; i < partitions->nparts; i++)
		{
			/* one that has come since the locks were taken is noticed later */
			if (list_member_oid(locked, partitions->oids[i]))
				found = sc_history_leaves(partitions->oids[i], found);
		}
	}
	else
		found = lappend_oid(found, relid);
	table_close(relation, NoLock);
	return found;
}

/* Locks the stream's tables, all of them that there are. */
void
sc_history_lock(Oid relid)
{
	MemoryContext old;
	ListCell   *lc;
	List	   *tables;

	looked_at = sc_moment_now();
	being_read = relid;
	lock_table(relid);
	tables = find_all_inheritors(relid, NoLock, NULL);
	foreach(lc, tables)
	{
		if (lfirst_oid(lc) != relid)
			lock_table(lfirst_oid(lc));
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	locked = list_copy(tables);
	MemoryContextSwitchTo(old);
}

/* ---------------------------------------------------------------------
 * Progress, and others
 * --------------------------------------------------------------------- */

bool
sc_history_has_locked(Oid relid)
{
	return list_member_oid(locked, relid);
}

void
sc_history_unlocked(void)
{
	list_free(locked);
	locked = NIL;
}

/* Does a command wait for our end that detaches a partition of these tables?  It waits for no lock. */
static bool
detaching_waits(void)
{
	ListCell   *lc;

	if (!sc_end_is_waited_for())
		return false;
	foreach(lc, locked)
	{
		bool		detached = false;

		if (get_rel_relkind(lfirst_oid(lc)) != RELKIND_PARTITIONED_TABLE)
			continue;
		(void) find_inheritance_children_extended(lfirst_oid(lc), false, NoLock, &detached, NULL);
		if (detached)
			return true;
	}
	return false;
}

void
sc_history_look(void)
{
	ListCell   *lc;

	if (locked == NIL || !sc_moment_is_past(looked_at, LOOK_MS))
		return;
	looked_at = sc_moment_now();
	if (sc_backfill_is_for_nobody(sc_my_pipeline, being_read))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("no query begins with the rows of \"%s\" any more", get_rel_name(being_read))));
	if (detaching_waits())
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("reading the rows of \"%s\" gave way to a command that detaches a partition",
						get_rel_name(being_read)),
				 errhint("It begins anew by itself.")));
	foreach(lc, locked)
	{
		if (!sc_lock_is_waited_for(lfirst_oid(lc)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("reading the rows of \"%s\" gave way to a command that waits for its lock",
						get_rel_name(lfirst_oid(lc))),
				 errhint("It begins anew by itself.")));
	}
}

/* In the middle of a pass, which has read so many rows, the last of them in this slot. */
void
sc_history_note_rows(int64 rows, const TupleTableSlot *slot, BlockNumber blocks_before)
{
	if (rows % TIME_ROWS == 0)
		sc_history_look();
	if (rows % LOOK_ROWS != 0)
		return;
	CHECK_FOR_INTERRUPTS();
	sc_my_pipeline->history.rows = rows;
	sc_my_pipeline->history.blocks_done = (int64) blocks_before + ItemPointerGetBlockNumberNoCheck(&slot->tts_tid);
	SC_DEBUG_POINT("history_in_scan");
	sc_history_look();
}

/* Not from where others are in it: both passes read the same rows in the same order. */
void
sc_history_begin_pass(ScHistoryPass *pass, const ScHistoryLeaf *leaf, BlockNumber before)
{
	pass->leaf = leaf;
	pass->scan = table_beginscan_strat(leaf->relation, GetActiveSnapshot(), 0, NULL, true, false);
	pass->slot = table_slot_create(leaf->relation, NULL);
	pass->before = before;
	pass->next = 0;
	/* other access methods say nothing between two rows */
	if (leaf->relation->rd_tableam != GetHeapamTableAmRoutine())
		pass->next = leaf->blocks;
	else if (leaf->blocks > 0)
	{
		pass->next = Min(leaf->blocks, LOOK_BLOCKS);
		heap_setscanlimits(pass->scan, 0, pass->next);
	}
}

void
sc_history_end_pass(ScHistoryPass *pass)
{
	table_endscan(pass->scan);
	ExecDropSingleTupleTableSlot(pass->slot);
}

/*
 * The next row of the pass, in its slot.  Looks at the time also where blocks have no row that is visible: what others have
 * deleted can be most of a table.  What the snapshot shows is in the blocks that there were when it was taken.
 */
bool
sc_history_next_row(ScHistoryPass *pass)
{
	while (!table_scan_getnextslot(pass->scan, ForwardScanDirection, pass->slot))
	{
		BlockNumber from = pass->next;

		if (from >= pass->leaf->blocks)
			return false;
		SC_DEBUG_POINT("history_in_blocks");
		CHECK_FOR_INTERRUPTS();
		sc_my_pipeline->history.blocks_done = (int64) pass->before + from;
		sc_history_look();
		pass->next = from + Min(pass->leaf->blocks - from, LOOK_BLOCKS);
		table_rescan(pass->scan, NULL);
		heap_setscanlimits(pass->scan, from, pass->next - from);
	}
	return true;
}
