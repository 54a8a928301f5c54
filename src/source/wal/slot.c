/*-------------------------------------------------------------------------
 * slot.c
 *	  The logical replication slot of a pipeline.
 *
 * Two locks on a pipeline's slot, both heavyweight, on the pipeline's number:
 * "use" is shared by every transaction that counts on the slot and taken
 * exclusively by whoever wants to drop it; "make" is held by
 * whoever makes it.  Making a slot waits for every transaction that has an id, so nobody may wait
 * for "make" who has one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogutils.h"
#include "base/compat.h"
#include "base/process.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "replication/logical.h"
#include "source/wal/decode_internal.h"
#include "source/wal/slot.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#define SLOT_LOCK_USE	2		/* objsubid */
#define SLOT_LOCK_MAKE	3

bool		sc_slot_creating = false;

static void check_requirements(void);
static void slot_lock_tag(LOCKTAG *tag, int32 pipeline_id, uint16 kind);
static void slot_make(const NameData *name);
static bool drop_if_unused(int32 pipeline_id, bool wait);
static ReplicationSlot *slot_find(const NameData *name);

void
sc_slot_name(Oid database, int32 pipeline_id, NameData *name)
{
	memset(name, 0, sizeof(NameData));
	snprintf(NameStr(*name), NAMEDATALEN, "stream_ckpt_%u_%d", database, pipeline_id);
}

/* False where "name" isn't one of ours. */
static bool
parse_name(const char *name, Oid *database, int32 *pipeline_id)
{
	int			end = 0;

	return sscanf(name, "stream_ckpt_%u_%d%n", database, pipeline_id, &end) == 2 &&
		name[end] == '\0';
}

static int
compare_owners(const void *a, const void *b)
{
	const ScSlotOwner *x = a;
	const ScSlotOwner *y = b;

	if (x->database != y->database)
		return x->database < y->database ? -1 : 1;
	return x->pipeline_id < y->pipeline_id ? -1 : x->pipeline_id > y->pipeline_id;
}

int
sc_slot_owners(ScSlotOwner **owners)
{
	ScSlotOwner *found = palloc(Max(max_replication_slots, 1) * sizeof(ScSlotOwner));
	int			n = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (slot->in_use && slot->data.persistency == RS_PERSISTENT &&
			strcmp(NameStr(slot->data.plugin), SC_PLUGIN_NAME) == 0 &&
			parse_name(NameStr(slot->data.name), &found[n].database,
							   &found[n].pipeline_id) &&
			slot->data.database == found[n].database)
			n++;
	}
	LWLockRelease(ReplicationSlotControlLock);
	/* the server reads its slots in any order when it starts */
	qsort(found, n, sizeof(ScSlotOwner), compare_owners);
	*owners = found;
	return n;
}

/* Errors if there can't be one, or its name is taken. */
static void
check_possible(int32 pipeline_id)
{
	NameData	name;

	check_requirements();
	if (!sc_slot_info(MyDatabaseId, pipeline_id).foreign)
		return;
	sc_slot_name(MyDatabaseId, pipeline_id, &name);
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("replication slot \"%s\" is not one of stream_ckpt's", NameStr(name)),
			 errdetail("It has the name of the pipeline's slot, and another output plugin."),
			 errhint("Drop it with SELECT pg_drop_replication_slot('%s').", NameStr(name))));
}

bool
sc_slot_is_missing(int32 pipeline_id)
{
	ScSlotInfo	slot = sc_slot_info(MyDatabaseId, pipeline_id);

	return !slot.exists || sc_slot_is_useless(&slot);
}

bool
sc_slot_use(int32 pipeline_id)
{
	LOCKTAG		tag;

	check_possible(pipeline_id);
	slot_lock_tag(&tag, pipeline_id, SLOT_LOCK_USE);
	(void) LockAcquire(&tag, ShareLock, false, false);
	return !sc_slot_is_missing(pipeline_id);
}

void
sc_slot_ensure(int32 pipeline_id)
{
	NameData	name;
	LOCKTAG		tag;
	ScSlotInfo	slot;

	check_possible(pipeline_id);
	slot = sc_slot_info(MyDatabaseId, pipeline_id);
	if (slot.exists && sc_slot_is_useless(&slot) &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		(void) drop_if_unused(pipeline_id, true);
	if (sc_slot_use(pipeline_id))
		return;

	/* it was invalidated a moment ago */
	slot = sc_slot_info(MyDatabaseId, pipeline_id);
	if (slot.exists && (sc_has_begun(pipeline_id) || !TransactionIdIsValid(GetTopTransactionIdIfAny())))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the pipeline's replication slot has become useless meanwhile"),
				 errhint("Try again.")));
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("the pipeline has no replication slot yet, and this transaction has already written"),
				 errdetail("Making a logical replication slot waits for every transaction that has written, so it cannot be done in one."),
				 errhint("Do this in a transaction of its own. A query over a table that begins with the table's rows (backfill) can be created in any.")));

	sc_slot_name(MyDatabaseId, pipeline_id, &name);
	slot_lock_tag(&tag, pipeline_id, SLOT_LOCK_MAKE);
	/* this wait can be as long as that of who makes it */
	InvalidateCatalogSnapshot();
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	if (!sc_slot_info(MyDatabaseId, pipeline_id).exists)
		slot_make(&name);
	LockRelease(&tag, ExclusiveLock, false);
}

bool
sc_slot_is_being_made(int32 pipeline_id)
{
	LOCKTAG		tag;

	slot_lock_tag(&tag, pipeline_id, SLOT_LOCK_MAKE);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, ExclusiveLock, false);
	return false;
}

bool
sc_slot_none_is_free(int32 pipeline_id)
{
	NameData	name;
	bool		exists;

	sc_slot_name(MyDatabaseId, pipeline_id, &name);
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	exists = slot_find(&name) != NULL;
	LWLockRelease(ReplicationSlotControlLock);
	return !exists && !sc_slot_is_free();
}

/* Fails if the server can't have a slot of ours now. */
static void
check_requirements(void)
{
	if (!sc_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream_ckpt must be preloaded"),
				 errhint("Add it to \"shared_preload_libraries\" and restart the server.")));
	if (wal_level < SC_WAL_LEVEL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream_ckpt needs \"wal_level\" to be \"logical\""),
				 errhint("Set wal_level = logical and restart the server.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("streams cannot be changed during recovery")));
}

static void
slot_lock_tag(LOCKTAG *tag, int32 pipeline_id, uint16 kind)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, sc_relation_oid("pipeline"),
					   pipeline_id, kind);
}

/*
 * Makes the slot; where that fails it is gone again.  Waits in
 * DecodingContextFindStartpoint, on the transactions' own locks: they show in
 * pg_locks and pg_stat_activity, and a cancel ends the wait.  Which may last for hours: the snapshot with which the
 * catalogs were read last goes before, so that a worker holds none, and keeps no dead row.
 */
static void
slot_make(const NameData *name)
{
	LogicalDecodingContext *ctx;
	XLogReaderRoutine reader = {0};
	int			nest_level = NewGUCNestLevel();

	if (GetConfigOption("output_plugin_libraries", true, false) != NULL)
		(void) set_config_option("output_plugin_libraries", SC_PLUGIN_NAME,
								 PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	sc_slot_creating = true;
	PG_TRY();
	{
		sc_slot_create_ephemeral(NameStr(*name));
		sc_ensure_logical_decoding();
		reader.page_read = read_local_xlog_page;
		reader.segment_open = wal_segment_open;
		reader.segment_close = wal_segment_close;
		ctx = sc_create_init_decoding_context(SC_PLUGIN_NAME, &reader, NULL, NULL, NULL);
		/* which would hold back VACUUM while others are waited for */
		InvalidateCatalogSnapshot();
		Assert(sc_my_process == SC_PROCESS_NONE || !TransactionIdIsValid(MyProc->xmin));
		DecodingContextFindStartpoint(ctx);
		FreeDecodingContext(ctx);
		ReplicationSlotPersist();
		ReplicationSlotRelease();
	}
	PG_CATCH();
	{
		sc_slot_creating = false;
		if (MyReplicationSlot)
			ReplicationSlotRelease();
		PG_RE_THROW();
	}
	PG_END_TRY();
	sc_slot_creating = false;
	AtEOXact_GUC(true, nest_level);
}

/* The slot's place, or NULL.  Call with ReplicationSlotControlLock held. */
static ReplicationSlot *
slot_find(const NameData *name)
{
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (slot->in_use && strcmp(NameStr(slot->data.name), NameStr(*name)) == 0)
			return slot;
	}
	return NULL;
}

/* The slot that this process has made gets what another one has; false if that is of no use. */
static bool
take_over(const NameData *source, XLogRecPtr position)
{
	ReplicationSlot *slot;
	ReplicationSlot contents;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = slot_find(source);
	if (slot)
	{
		SpinLockAcquire(&slot->mutex);
		contents = *slot;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	if (!slot || contents.data.persistency != RS_PERSISTENT || contents.data.database != MyDatabaseId ||
		strcmp(NameStr(contents.data.plugin), SC_PLUGIN_NAME) != 0 || sc_slot_invalidated(&contents) != RS_INVAL_NONE ||
		XLogRecPtrIsInvalid(contents.data.restart_lsn) || XLogRecPtrIsInvalid(contents.data.confirmed_flush))
		return false;

	slot = MyReplicationSlot;
	SpinLockAcquire(&slot->mutex);
	slot->effective_xmin = contents.effective_xmin;
	slot->effective_catalog_xmin = contents.effective_catalog_xmin;
	slot->data.plugin = contents.data.plugin;
	slot->data.xmin = contents.data.xmin;
	slot->data.catalog_xmin = contents.data.catalog_xmin;
	slot->data.restart_lsn = contents.data.restart_lsn;
	slot->data.confirmed_flush = Max(contents.data.confirmed_flush, position);
	SpinLockRelease(&slot->mutex);
	ReplicationSlotsComputeRequiredXmin(false);
	ReplicationSlotsComputeRequiredLSN();
	return true;
}

/*
 * What the other slot holds may go on being removed until the new one counts; so that is taken over twice, and what it
 * has the second time is there for sure: the first one held it (as copy_replication_slot in the server's slotfuncs.c).
 */
static bool
slot_make_copy(const NameData *name, const NameData *source, XLogRecPtr position)
{
	bool		result;

	sc_slot_create_ephemeral(NameStr(*name));
	sc_ensure_logical_decoding();
	result = take_over(source, position) && take_over(source, position);
	if (result)
	{
		ReplicationSlotMarkDirty();
		ReplicationSlotPersist();
	}
	/* else it goes with this */
	ReplicationSlotRelease();
	return result;
}

bool
sc_slot_copy(int32 pipeline_id, int32 source_id, XLogRecPtr position)
{
	NameData	name;
	NameData	source;
	ScSlotInfo	info;
	LOCKTAG		tag;
	bool		result;

	slot_lock_tag(&tag, pipeline_id, SLOT_LOCK_USE);
	if (LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	info = sc_slot_info(MyDatabaseId, pipeline_id);
	if (info.exists)
		return !info.foreign && !sc_slot_is_useless(&info);
	slot_lock_tag(&tag, pipeline_id, SLOT_LOCK_MAKE);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	sc_slot_name(MyDatabaseId, pipeline_id, &name);
	sc_slot_name(MyDatabaseId, source_id, &source);
	result = slot_make_copy(&name, &source, position);
	LockRelease(&tag, ExclusiveLock, false);
	return result;
}

bool
sc_slot_is_free(void)
{
	bool		result = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !result; i++)
		result = !ReplicationSlotCtl->replication_slots[i].in_use;
	LWLockRelease(ReplicationSlotControlLock);
	return result;
}

/* All fields of one moment.  "exists" is false for a slot that is still being made. */
ScSlotInfo
sc_slot_info(Oid database, int32 pipeline_id)
{
	ScSlotInfo	info = {0};
	ReplicationSlot *slot;
	NameData	name;

	sc_slot_name(database, pipeline_id, &name);
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = slot_find(&name);
	if (slot)
	{
		SpinLockAcquire(&slot->mutex);
		/* one that is still being made isn't there yet */
		info.exists = slot->data.persistency == RS_PERSISTENT;
		info.foreign = info.exists && (strcmp(NameStr(slot->data.plugin), SC_PLUGIN_NAME) != 0 ||
									   slot->data.database != database);
		info.invalidated = sc_slot_invalidated(slot);
		info.active_pid = sc_slot_active_pid(slot);
		info.confirmed_flush = slot->data.confirmed_flush;
		info.restart_lsn = slot->data.restart_lsn;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	info.ahead = info.exists && !RecoveryInProgress() && info.confirmed_flush > GetXLogInsertRecPtr();
	return info;
}

/*
 * The server's files can have been taken back in time beside a slot that was kept.  Where the timeline of the pipeline's
 * checkpoint ended, nothing of the pipeline's can be confirmed beyond: what is, was confirmed on that timeline as it went
 * on elsewhere.
 */
bool
sc_slot_of_another_timeline(const ScSlotInfo *slot, TimeLineID timeline)
{
	TimeLineID	current = GetWALInsertionTimeLine();
	List	   *history;

	if (slot->ahead)
		return true;
	if (timeline == 0 || timeline == current)
		return false;
	history = readTimeLineHistory(current);
	/* without its file nothing is known of it */
	if (!tliInHistory(timeline, history))
		return true;
	return slot->confirmed_flush > tliSwitchPoint(timeline, history, NULL);
}

void
sc_slot_drop(Oid database, int32 pipeline_id)
{
	NameData	name;

	ScSlotInfo	info = sc_slot_info(database, pipeline_id);

	if (!info.exists || info.foreign)
		return;
	sc_slot_name(database, pipeline_id, &name);
	ReplicationSlotDrop(NameStr(name), true);
}

/*
 * Does nothing need the pipeline's slot?  One that is useless serves no query that is still
 * to come, which are all, if none has begun; else they stand until somebody decides.
 */
static bool
is_unused(int32 pipeline_id)
{
	ScPipeline *pipeline = sc_pipeline_by_id(pipeline_id, true);
	ScSlotInfo	slot;

	if (pipeline == NULL || !sc_pipeline_in_use(pipeline))
		return true;
	/* for pg_upgrade: it has read all there is, and pg_upgrade wants none */
	if (pipeline->stopped && sc_pipeline_state_read(pipeline_id).prepared)
		return true;
	slot = sc_slot_info(MyDatabaseId, pipeline_id);
	return slot.exists && sc_slot_is_useless(&slot) && !sc_has_begun(pipeline_id);
}

bool
sc_slot_lock(int32 pipeline_id, bool wait)
{
	LOCKTAG		tag;

	slot_lock_tag(&tag, pipeline_id, SLOT_LOCK_USE);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

void
sc_slot_unlock(int32 pipeline_id)
{
	LOCKTAG		tag;

	slot_lock_tag(&tag, pipeline_id, SLOT_LOCK_USE);
	LockRelease(&tag, ExclusiveLock, false);
}

/*
 * A transaction that came to count on the slot may have committed between the
 * caller's look at the catalogs and our lock, so they are read again under it.
 */
static bool
drop_if_unused(int32 pipeline_id, bool wait)
{
	if (!sc_slot_lock(pipeline_id, wait))
		return false;
	if (is_unused(pipeline_id))
		sc_slot_drop(MyDatabaseId, pipeline_id);
	sc_slot_unlock(pipeline_id);
	return true;
}

bool
sc_slot_drop_if_unused(int32 pipeline_id)
{
	return drop_if_unused(pipeline_id, false);
}
