/*-------------------------------------------------------------------------
 * empty_table.c
 *	  A query that begins with an empty table: because it has to, or because then it needs no history.
 *
 * What such a query counts are the rows that come behind its control message in the log; so if it is to have every row that
 * is there, there must be none before it:
 *
 *	 - committed ones: the tables are locked against writers, and then looked at;
 *	 - other transactions' later ones: they get their locks when this one has committed, so they commit behind it;
 *	 - this transaction's own ones come before its control messages in the log, whatever their order was: the tables are
 *	   looked at right before the commit, when deferred triggers have run.
 *
 * It has to if its stream's changes are applied and it doesn't begin with the rows that are there (backfill => false), or a
 * row that is deleted later would be taken from what it never was part of: anything else is an error, and writers are
 * waited for, from its creation on.
 *
 * If how it begins is left to us it is decided right before the commit, without a wait, and nobody else waits longer
 * than for that: if there may be a row, the query begins with its stream's history, as its row of
 * stream_ckpt.query says from then on.  Its control message is in the log all the same: tasks see by that row that it
 * is void.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "api/api_internal.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/subtransaction.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "model/extension.h"
#include "model/identity.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* More than that aren't locked for a moment */
#define MAX_TABLES		100
#define MAX_BLOCKS		1000

/* A query that this transaction has created. */
typedef struct Created
{
	int64		query_id;
	Oid			stream_relid;
	bool		must;			/* begin with an empty table; else it can begin with what is there */
} Created;

static List *created;			/* of Created *, in TopTransactionContext */

/* Is the query still to begin?  Its creation may have been rolled back, or the extension dropped. */
static bool
is_still_there(const Created *query)
{
	return sc_extension_exists() && sc_query_by_id(query->query_id, true) != NULL;
}

static void
refuse_own_rows(const Created *query)
{
	if (!sc_relation_has_rows(query->stream_relid, ShareLock))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("stream \"%s\" got rows in the transaction that creates a query over it",
					get_rel_name(query->stream_relid)),
			 errdetail("Its changes are applied, and the query would not have counted these rows."),
			 errhint("COMMIT after stream_ckpt.create_query(), then insert; or use backfill => true.")));
}

/* Locks the table and those below it against writers, as far as "locked" says.  False if one isn't to be had at once. */
static bool
lock_at_once(Oid stream_relid, List **locked)
{
	List	   *tables;
	ListCell   *lc;

	*locked = NIL;
	if (!ConditionalLockRelationOid(stream_relid, ShareLock))
		return false;
	*locked = list_make1_oid(stream_relid);
	tables = find_all_inheritors(stream_relid, NoLock, NULL);
	if (list_length(tables) > MAX_TABLES)
		return false;
	foreach(lc, tables)
	{
		if (lfirst_oid(lc) == stream_relid)
			continue;
		if (!ConditionalLockRelationOid(lfirst_oid(lc), ShareLock))
			return false;
		*locked = lappend_oid(*locked, lfirst_oid(lc));
	}
	return true;
}

/* Are there so few blocks that they can be looked at while writers wait?  A table without a row can have many. */
static bool
are_small(List *tables)
{
	int64		blocks = 0;
	ListCell   *lc;

	foreach(lc, tables)
	{
		Relation	relation = relation_open(lfirst_oid(lc), NoLock);

		if (relation->rd_rel->relkind == RELKIND_RELATION)
			blocks += RelationGetNumberOfBlocks(relation);
		relation_close(relation, NoLock);
	}
	return blocks <= MAX_BLOCKS;
}

/* If there is no row, and comes none before this transaction has ended, nothing has to be done. */
static void
decide(const Created *query)
{
	List	   *locked;
	ListCell   *lc;

	if (lock_at_once(query->stream_relid, &locked) && are_small(locked) &&
		!sc_relation_has_rows(query->stream_relid, ShareLock))
		return;
	foreach(lc, locked)
		UnlockRelationOid(lfirst_oid(lc), ShareLock);
	sc_query_set_backfill(query->query_id);
}

/* Before the commit: all that this transaction does is done. */
static void
look_at_created(void)
{
	ListCell   *lc;

	/* what the last command did is to be seen, too */
	CommandCounterIncrement();
	foreach(lc, created)
	{
		const Created *query = lfirst(lc);

		if (!is_still_there(query))
			continue;
		if (query->must)
			refuse_own_rows(query);
		else
			decide(query);
	}
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && created != NIL)
		look_at_created();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		created = NIL;
}

/* Whoever may only read a table can't lock it against writers; PostgreSQL asks the same of LOCK TABLE. */
static void
check_may_lock(Oid stream_relid)
{
	if (pg_class_aclcheck(stream_relid, GetUserId(), ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to create a query over stream \"%s\", whose changes are applied",
					get_rel_name(stream_relid)),
			 errdetail("It begins with the table locked against writers, which needs the privilege UPDATE, DELETE or TRUNCATE on it.")));
}

typedef struct Look
{
	Oid			stream_relid;
	bool		has_rows;
} Look;

/* In a subtransaction, which keeps the locks. */
static bool
look_step(void *arg)
{
	Look	   *look = arg;
	int			nest = NewGUCNestLevel();
	int			timeout = LockTimeout > 0 ? Min(LockTimeout, sc_result_lock_timeout) : sc_result_lock_timeout;
	char		value[16];

	snprintf(value, sizeof(value), "%d", timeout);
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	look->has_rows = sc_relation_has_rows(look->stream_relid, ShareLock);
	AtEOXact_GUC(true, nest);
	return true;
}

/* All other writers wait behind us while we wait for one of them: so not for long. */
static bool
lock_and_look(Oid stream_relid)
{
	Look		look = {.stream_relid = stream_relid};
	ErrorData  *error = sc_subtransaction_try(look_step, &look, NULL);

	if (!error)
		return look.has_rows;
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not lock stream \"%s\" against writers within %d ms", get_rel_name(stream_relid),
						LockTimeout > 0 ? Min(LockTimeout, sc_result_lock_timeout) : sc_result_lock_timeout),
				 errdetail("A transaction that has written to it, perhaps a prepared one, is still open."),
				 errhint("Wait until it is over: see pg_locks and pg_prepared_xacts; then create the query again.")));
	ReThrowError(error);
	return false;
}

void
sc_require_empty_table(Oid stream_relid)
{
	check_may_lock(stream_relid);
	if (!lock_and_look(stream_relid))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("stream \"%s\" holds rows, and its changes are applied", get_rel_name(stream_relid)),
			 errdetail("A query must have counted all rows that can be changed, and it counts those that come after it."),
			 errhint("Use stream_ckpt.create_query(..., backfill => true): the query begins with these rows then.")));
}

/* It will be looked at again before the commit. */
static void
remember(int64 query_id, Oid stream_relid, bool must)
{
	static bool registered = false;
	MemoryContext old;
	Created    *query;

	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		registered = true;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	query = palloc(sizeof(Created));
	query->query_id = query_id;
	query->stream_relid = stream_relid;
	query->must = must;
	created = lappend(created, query);
	MemoryContextSwitchTo(old);
}

void
sc_require_empty_table_at_commit(int64 query_id, Oid stream_relid)
{
	remember(query_id, stream_relid, true);
}

void
sc_begin_empty_or_with_history(int64 query_id, Oid stream_relid)
{
	remember(query_id, stream_relid, false);
}
