/*-------------------------------------------------------------------------
 * empty_table.c
 *	  A query over a stream whose changes are applied begins with an empty table, if it doesn't begin with the rows that
 *	  are there (backfill => true).
 *
 * Such a query must have counted every row that is there, or a row that is deleted later would be taken from what it never
 * was part of.  What it counts are the rows that come behind its control message in the log; so there must be none before
 * it:
 *
 *	 - committed ones: the tables are locked against writers, who are waited for, and then looked at;
 *	 - other transactions' later ones: they get their locks when this one has committed, so they commit behind it;
 *	 - this transaction's own ones come before its control messages in the log, whatever their order was: the tables are
 *	   looked at again right before the commit, when deferred triggers have run.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/api_internal.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/subtransaction.h"
#include "miscadmin.h"
#include "model/identity.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* A query that this transaction has created. */
typedef struct Created
{
	int64		query_id;
	Oid			stream_relid;
} Created;

static List *created;			/* of Created *, in TopTransactionContext */

/* Is the query still to begin?  Its creation may have been rolled back. */
static bool
is_still_there(const Created *query)
{
	return sc_query_by_id(query->query_id, true) != NULL;
}

static void
refuse_own_rows(void)
{
	ListCell   *lc;

	/* what the last command did is to be seen, too */
	CommandCounterIncrement();
	foreach(lc, created)
	{
		Created    *query = lfirst(lc);

		if (is_still_there(query) && sc_relation_has_rows(query->stream_relid, ShareLock))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("stream \"%s\" got rows in the transaction that creates a query over it",
							get_rel_name(query->stream_relid)),
					 errdetail("Its changes are applied, and the query would not have counted these rows."),
					 errhint("COMMIT after stream_ckpt.create_query(), then insert; or use backfill => true.")));
	}
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && created != NIL)
		refuse_own_rows();
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

void
sc_require_empty_table_at_commit(int64 query_id, Oid stream_relid)
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
	created = lappend(created, query);
	MemoryContextSwitchTo(old);
}
