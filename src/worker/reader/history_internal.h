/*-------------------------------------------------------------------------
 * history_internal.h
 *	  What history.c and history_tables.c share: the tables of a stream whose history is read.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_READER_HISTORY_INTERNAL_H
#define SC_WORKER_READER_HISTORY_INTERNAL_H

#include "access/relscan.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

/* The table, or a partition. */
typedef struct ScHistoryLeaf
{
	Relation	relation;
	AttrNumber	event_time_attno;	/* in it; 0: none */
	BlockNumber blocks;
} ScHistoryLeaf;

/* A pass over one leaf, behind so many blocks of others.  Of a heap, blocks from "next" on are still to be read. */
typedef struct ScHistoryPass
{
	const ScHistoryLeaf *leaf;
	TableScanDesc scan;
	TupleTableSlot *slot;
	BlockNumber before;
	BlockNumber next;
} ScHistoryPass;

/* Returns when whoever has a commit record in the log is visible to later snapshots.  Outside of a transaction. */
extern void sc_history_wait_for_committing(void);

/*
 * Locks the stream's tables, all of them that there are, before there is a snapshot; an error if one isn't to be had soon.
 * From then on, until sc_history_unlocked(), others who need them are given way to.
 */
extern void sc_history_lock(Oid relid);
extern bool sc_history_has_locked(Oid relid);
extern void sc_history_unlocked(void);

/* Appends those with rows to "found", by the bounds of the partitions; with the snapshot active. */
extern List *sc_history_leaves(Oid relid, List *found);

/*
 * A pass over one leaf, behind so many blocks of others, under the active snapshot; any two passes see the same rows in the
 * same order.  The next row is in the pass's slot.  Errors when others need the table.
 */
extern void sc_history_begin_pass(ScHistoryPass *pass, const ScHistoryLeaf *leaf, BlockNumber before);
extern bool sc_history_next_row(ScHistoryPass *pass);
extern void sc_history_end_pass(ScHistoryPass *pass);

/* So many rows of the phase are done, the last of them in this slot: for the views; gives way likewise. */
extern void sc_history_note_rows(int64 rows, const TupleTableSlot *slot, BlockNumber blocks_before);

#endif							/* SC_WORKER_READER_HISTORY_INTERNAL_H */
