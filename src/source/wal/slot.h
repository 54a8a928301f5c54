/*-------------------------------------------------------------------------
 * slot.h
 *	  The logical replication slot of a pipeline: its name, making and dropping it.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SOURCE_WAL_SLOT_H
#define SC_SOURCE_WAL_SLOT_H

#include "base/compat.h"
#include "replication/slot.h"

#define SC_PLUGIN_NAME "stream_ckpt"

/* stream_ckpt_<database oid>_<pipeline id> */
extern void sc_slot_name(Oid database, int32 pipeline_id, NameData *name);

typedef struct ScSlotOwner
{
	Oid			database;
	int32		pipeline_id;
} ScSlotOwner;

/*
 * The pipelines of all databases that have a slot, in the order of their ids, palloc'd; returns
 * their number.
 */
extern int	sc_slot_owners(ScSlotOwner **owners);

/*
 * Makes the pipeline's slot where it isn't there yet, or is useless and none of its queries
 * has begun, which would stand because of it.  To be called before the
 * transaction has an id: waits, interruptibly, for every running transaction.
 * Errors with a hint where the transaction has written already, or wal_level,
 * max_replication_slots or the library's preloading don't allow it.  Keeps a lock
 * until the end of the transaction that prevents the slot from being dropped as
 * unused.
 */
extern void sc_slot_ensure(int32 pipeline_id);

/*
 * The same without making it, in any transaction: for those who don't need it before they commit.  Is it there, and valid?
 */
extern bool sc_slot_use(int32 pipeline_id);

/*
 * The same without a wait, as a copy of another pipeline's slot: rows that were committed behind "position", which is
 * one that pipeline's reader has reached, are decoded from it.  False: not now; or that slot is none to be copied.
 */
extern bool sc_slot_copy(int32 pipeline_id, int32 source_id, XLogRecPtr position);

/* Could another slot be made now? */
extern bool sc_slot_is_free(void);

/* Does somebody else make it just now? */
extern bool sc_slot_is_being_made(int32 pipeline_id);

/* Is there none, and no place for one? */
extern bool sc_slot_none_is_free(int32 pipeline_id);

typedef struct ScSlotInfo
{
	bool		exists;
	bool		foreign;		/* it has our name, and another plugin, or none */
	ReplicationSlotInvalidationCause invalidated;	/* RS_INVAL_NONE: it is valid */
	bool		ahead;			/* of all that this server has written: it was made for another timeline */
	int			active_pid;		/* 0: none */
	XLogRecPtr	confirmed_flush;
	XLogRecPtr	restart_lsn;
} ScSlotInfo;

extern ScSlotInfo sc_slot_info(Oid database, int32 pipeline_id);

/* Can nothing be read with it, ever?  Of one that exists, and isn't foreign. */
static inline bool
sc_slot_is_useless(const ScSlotInfo *slot)
{
	return slot->invalidated != RS_INVAL_NONE || slot->ahead;
}

/*
 * Is the slot's position on a timeline that this server left before it?  "timeline": that of the pipeline's last
 * checkpoint; 0: unknown.  True for one that is ahead, and for one that was until this server wrote as much.
 */
extern bool sc_slot_of_another_timeline(const ScSlotInfo *slot, TimeLineID timeline);

/* Is there none of ours, or one that serves nobody any more? */
extern bool sc_slot_is_missing(int32 pipeline_id);

/*
 * Until sc_slot_unlock(), or the transaction's end, no transaction counts on the slot, and nobody makes it.  False if one
 * does now, and wait is false.
 */
extern bool sc_slot_lock(int32 pipeline_id, bool wait);
extern void sc_slot_unlock(int32 pipeline_id);

/* Drops it where it exists; an error where somebody uses it.  Needs sc_slot_lock(), as long as the pipeline exists. */
extern void sc_slot_drop(Oid database, int32 pipeline_id);

/*
 * Drops it if nothing needs it: the pipeline has no streams and queries, or it is useless and none of the queries has
 * begun.  False if a transaction counts on it (see sc_slot_ensure), which can change that.
 * Needs a transaction without an id.
 */
extern bool sc_slot_drop_if_unused(int32 pipeline_id);

#endif							/* SC_SOURCE_WAL_SLOT_H */
