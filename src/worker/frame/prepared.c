/*-------------------------------------------------------------------------
 * prepared.c
 *	  Writes into the streams of a database that is prepared for pg_upgrade (prepared.h).
 *
 * There is no log between the old server's last checkpoint and the new server's slot, so there must be no rows.  Who has
 * written into a table holds a RowExclusiveLock on it, or on its partition, until its transaction ends; who has truncated
 * it, an AccessExclusiveLock.  That is looked at right before the commit, in every session.
 *
 * What a session needs to know it reads from pipeline_state, once, and again when the number in shared memory has changed.
 * That changes while prepare_upgrade() still holds the locks with which it has kept writers out, so whoever gets his lock
 * after it sees another number.
 *
 * The rule: a session that doesn't know looks.  After a restart nobody does.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/process.h"
#include "catalog/pg_inherits.h"
#include "ckpt/pipeline_state.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "model/extension.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "worker/frame/prepared.h"
#include "worker/frame/shared.h"

static bool looked;				/* "number" and "prepared" are set */
static uint64 number;
static bool prepared;
static bool changed;			/* by this transaction */

/* Has this transaction written into the relation? */
static bool
has_written(Oid relid, bool truncates)
{
	Relation	relation = RelationIdGetRelation(relid);
	bool		result;

	if (!RelationIsValid(relation))
		return false;
	result = CheckRelationLockedByMe(relation, RowExclusiveLock, false) ||
		(truncates && CheckRelationLockedByMe(relation, AccessExclusiveLock, false));
	RelationClose(relation);
	return result;
}

/* An error if this transaction has written into the stream, or what belongs to it. */
static void
refuse_stream(Oid stream_relid)
{
	bool		applies = sc_stream_by_relid(stream_relid, false)->applies;
	ListCell   *lc;

	foreach(lc, find_all_inheritors(stream_relid, NoLock, NULL))
	{
		if (has_written(lfirst_oid(lc), applies))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("stream \"%s\" cannot be written to: the database is prepared for pg_upgrade",
							get_rel_name(stream_relid)),
					 errhint("After the upgrade, or to give it up, call stream_ckpt.finish_upgrade().")));
	}
}

/* The same of all streams of queries that wait for the upgrade. */
static void
refuse_all(List *pipelines)
{
	List	   *done = NIL;
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, pipelines)
	{
		foreach(lc2, sc_query_list(lfirst_int(lc)))
		{
			Oid			relid = ((ScQuery *) lfirst(lc2))->stream_relid;

			if (list_member_oid(done, relid))
				continue;
			refuse_stream(relid);
			done = lappend_oid(done, relid);
		}
	}
}

void
sc_prepared_refuse_writes(void)
{
	uint64		now;

	if (sc_shared == NULL || IsBinaryUpgrade || sc_my_process != SC_PROCESS_NONE || !OidIsValid(MyDatabaseId) ||
		!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	now = pg_atomic_read_u64(&sc_shared->prepared);
	if (!looked || now != number || changed)
	{
		looked = false;
		PushActiveSnapshot(GetLatestSnapshot());
		prepared = sc_extension_is_usable() && sc_prepared_pipelines() != NIL;
		PopActiveSnapshot();
		number = now;
		looked = true;
	}
	if (!prepared)
		return;
	PushActiveSnapshot(GetLatestSnapshot());
	/* this transaction may have dropped the extension */
	if (sc_extension_is_usable())
		refuse_all(sc_prepared_pipelines());
	PopActiveSnapshot();
}

void
sc_prepared_changed(void)
{
	changed = true;
}

void
sc_prepared_at_transaction_end(bool committed)
{
	if (changed && committed && sc_shared)
		pg_atomic_fetch_add_u64(&sc_shared->prepared, 1);
	if (changed)
		looked = false;
	changed = false;
}
