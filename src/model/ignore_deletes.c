/*-------------------------------------------------------------------------
 * ignore_deletes.c
 *	  Which streams' deletions the current transaction has ignored (ignore_deletes.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "model/control.h"
#include "model/ignore_deletes.h"
#include "model/levels.h"
#include "nodes/plannodes.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* A stream, and the subtransaction whose end decides. */
typedef struct Ignored
{
	Oid			stream;
	SubTransactionId subid;
} Ignored;

static List *ignored;			/* of Ignored *, in TopTransactionContext */

/* Does a statement of this session that isn't over have the partitioned table open? */
static bool
is_in_use(Oid relid)
{
	Relation	relation;
	bool		result;

	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return false;
	relation = table_open(relid, AccessShareLock);
	result = relation->rd_refcnt > 1;
	table_close(relation, AccessShareLock);
	return result;
}

/*
 * An UPDATE that moves rows would have begun before the call, and goes on behind it.  Statements that only read or delete aren't
 * told from it.
 */
static void
refuse_within_statement(Oid stream)
{
	List	   *relids = list_concat(sc_itself_and_above(stream), find_all_inheritors(stream, AccessShareLock, NULL));
	ListCell   *lc;

	foreach(lc, relids)
	{
		if (is_in_use(lfirst_oid(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot call ignore_deletes() in a statement with partitioned table \"%s\"", get_rel_name(lfirst_oid(lc))),
					 errdetail("An UPDATE can move rows of stream \"%s\" between partitions, which is to delete and to insert them.",
							   get_rel_name(stream)),
					 errhint("Call it before, in a statement of its own.")));
	}
}

void
sc_ignore_deletes(Oid stream)
{
	ScControl	control = {0};
	MemoryContext old;
	Ignored    *entry;

	refuse_within_statement(stream);
	old = MemoryContextSwitchTo(TopTransactionContext);
	entry = palloc(sizeof(Ignored));
	entry->stream = stream;
	entry->subid = GetCurrentSubTransactionId();
	ignored = lappend(ignored, entry);
	MemoryContextSwitchTo(old);

	control.kind = SC_CONTROL_IGNORE_DELETES;
	control.stream_relid = stream;
	(void) sc_control_log(&control);
}

bool
sc_deletes_are_ignored(Oid stream)
{
	ListCell   *lc;

	foreach(lc, ignored)
	{
		if (((Ignored *) lfirst(lc))->stream == stream)
			return true;
	}
	return false;
}

/* What a subtransaction ignored is its parent's, or nobody's. */
static void
subtransaction_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach(lc, ignored)
	{
		Ignored    *entry = lfirst(lc);

		if (entry->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			entry->subid = parent;
		else
			ignored = foreach_delete_current(ignored, lc);
	}
}

void
sc_ignore_deletes_init(void)
{
	RegisterSubXactCallback(subtransaction_callback, NULL);
}

void
sc_ignore_deletes_end(void)
{
	ignored = NIL;
}

/* ---------- moves between partitions ---------- */

/* Can an UPDATE of the table delete rows of the stream, and insert others? */
static bool
moves_rows_of(Oid relid, Oid stream)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE &&
		(list_member_oid(sc_itself_and_above(stream), relid) || list_member_oid(sc_itself_and_above(relid), stream));
}

static void
refuse_moves(Oid relid)
{
	ListCell   *lc;

	foreach(lc, ignored)
	{
		Oid			stream = ((Ignored *) lfirst(lc))->stream;

		if (moves_rows_of(relid, stream))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot update \"%s\" after ignore_deletes() in the same transaction", get_rel_name(relid)),
					 errdetail("An UPDATE can move rows of stream \"%s\" between partitions, which is to delete and to insert them: they would be counted twice.",
							   get_rel_name(stream)),
					 errhint("Update rows in another transaction, or before stream_ckpt.ignore_deletes().")));
	}
}

void
sc_ignore_deletes_refuse_moves(const QueryDesc *query)
{
	const PlannedStmt *statement = query->plannedstmt;
	ListCell   *lc;

	if (likely(ignored == NIL) || (query->operation != CMD_UPDATE && query->operation != CMD_MERGE && !statement->hasModifyingCTE))
		return;
	foreach(lc, statement->rtable)
	{
		RangeTblEntry *entry = lfirst(lc);

		if (sc_is_result_relation(statement, foreach_current_index(lc) + 1) &&
			(sc_rte_permissions(statement, entry) & ACL_UPDATE))
			refuse_moves(entry->relid);
	}
}
