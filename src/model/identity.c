/*-------------------------------------------------------------------------
 * identity.c
 *	  Replica identities of streams whose changes are applied (identity.h).
 *
 * With another identity than FULL the WAL has an old tuple, too: of the key's columns and NULLs.  The reader therefore
 * looks at a table's identity as it was when the row was changed, and queries fail if it wasn't FULL.
 *
 * Once a table's identity is FULL, PostgreSQL refuses every UPDATE and DELETE of it as long as a publication that has them
 * publishes the table, or an ancestor, with a column list.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_publication_rel.h"
#include "commands/event_trigger.h"
#include "commands/tablecmds.h"
#include "executor/tuptable.h"
#include "model/identity.h"
#include "model/levels.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* A table's kind of relation and identity; false if it is gone. */
static bool
read_class(Oid relid, char *kind, char *identity)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		return false;
	*kind = ((Form_pg_class) GETSTRUCT(tuple))->relkind;
	*identity = ((Form_pg_class) GETSTRUCT(tuple))->relreplident;
	ReleaseSysCache(tuple);
	return true;
}

bool
sc_identity_is_full(Oid relid, Oid *which)
{
	ListCell   *lc;
	char		kind;
	char		identity;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		if (!read_class(lfirst_oid(lc), &kind, &identity) || kind != RELKIND_RELATION ||
			identity == REPLICA_IDENTITY_FULL)
			continue;
		*which = lfirst_oid(lc);
		return false;
	}
	return true;
}

/* Does the publication publish updates or deletes, if it is there? */
static bool
publishes_changes(Oid publication, char **name)
{
	HeapTuple	tuple = SearchSysCache1(PUBLICATIONOID, ObjectIdGetDatum(publication));
	Form_pg_publication form;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_publication) GETSTRUCT(tuple);
	*name = pstrdup(NameStr(form->pubname));
	result = form->pubupdate || form->pubdelete;
	ReleaseSysCache(tuple);
	return result;
}

/* The name of a publication of changes in which "relid" itself has a column list, or NULL. */
static char *
publication_with_columns(Oid relid)
{
	CatCList   *entries = SearchSysCacheList1(PUBLICATIONRELMAP, ObjectIdGetDatum(relid));
	char	   *found = NULL;

	for (int i = 0; found == NULL && i < entries->n_members; i++)
	{
		HeapTuple	tuple = &entries->members[i]->tuple;
		bool		isnull;
		char	   *name;

		(void) SysCacheGetAttr(PUBLICATIONRELMAP, tuple, Anum_pg_publication_rel_prattrs, &isnull);
		if (!isnull && publishes_changes(((Form_pg_publication_rel) GETSTRUCT(tuple))->prpubid, &name))
			found = name;
	}
	ReleaseSysCacheList(entries);
	return found;
}

/* Fails if PostgreSQL would refuse changes of the table once its identity is FULL. */
static void
refuse_column_lists(Oid relid)
{
	ListCell   *lc;

	foreach(lc, sc_itself_and_above(relid))
	{
		char	   *publication = publication_with_columns(lfirst_oid(lc));

		if (publication != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot set REPLICA IDENTITY FULL for \"%s\", which applying its changes needs",
							get_rel_name(relid)),
					 errdetail("Publication \"%s\" has table \"%s\" with a column list: PostgreSQL would refuse every UPDATE and DELETE.",
							   publication, get_rel_name(lfirst_oid(lc))),
					 errhint("Take the column list out of the publication, or use changes => 'ignore'.")));
	}
}

/* ALTER TABLE ... REPLICA IDENTITY FULL, of one table. */
static void
set_full(Oid relid)
{
	AlterTableStmt *statement = makeNode(AlterTableStmt);
	AlterTableCmd *command = makeNode(AlterTableCmd);
	ReplicaIdentityStmt *identity = makeNode(ReplicaIdentityStmt);

	identity->identity_type = REPLICA_IDENTITY_FULL;
	command->subtype = AT_ReplicaIdentity;
	command->def = (Node *) identity;
	statement->relation = makeRangeVar(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid), -1);
	statement->relation->inh = false;
	statement->cmds = list_make1(command);
	statement->objtype = OBJECT_TABLE;

	EventTriggerAlterTableStart((Node *) statement);
	AlterTableInternal(relid, statement->cmds, false);
	EventTriggerAlterTableEnd();
}

/* Whoever has a copy of the table by logical replication finds rows by all their columns from now on. */
static void
tell_of_publications(Oid relid)
{
	Relation	relation = table_open(relid, NoLock);
	PublicationDesc publications;

	RelationBuildPublicationDesc(relation, &publications);
	table_close(relation, NoLock);
	if (!publications.pubactions.pubupdate && !publications.pubactions.pubdelete)
		return;
	ereport(NOTICE,
			(errmsg("\"%s\", which is published, gets REPLICA IDENTITY FULL", get_rel_name(relid)),
			 errdetail("Subscribers find the rows of its UPDATEs and DELETEs by all columns: slowly if their tables have no index that serves, and not at all if a type has no equality, as json.")));
}

void
sc_identity_set_full(Oid relid)
{
	ListCell   *lc;
	char		kind;
	char		identity;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		if (!read_class(lfirst_oid(lc), &kind, &identity) || identity == REPLICA_IDENTITY_FULL)
			continue;
		if (kind == RELKIND_FOREIGN_TABLE)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the changes of \"%s\" cannot be applied", get_rel_name(relid)),
					 errdetail("Its partition \"%s\" is a log stream, whose rows are in the WAL only.",
							   get_rel_name(lfirst_oid(lc))),
					 errhint("Use changes => 'ignore', or detach the partition.")));
		refuse_column_lists(lfirst_oid(lc));
		LockRelationOid(lfirst_oid(lc), AccessExclusiveLock);
		if (get_rel_name(lfirst_oid(lc)) == NULL)
			continue;
		tell_of_publications(lfirst_oid(lc));
		set_full(lfirst_oid(lc));
	}
	CommandCounterIncrement();
}

/* ---------- rows ---------- */

static bool
table_has_rows(Oid relid, Snapshot snapshot)
{
	Relation	relation = table_open(relid, NoLock);
	bool		result = false;

	if (relation->rd_rel->relkind == RELKIND_RELATION)
	{
		TupleTableSlot *slot = table_slot_create(relation, NULL);
		TableScanDesc scan = sc_table_beginscan(relation, snapshot);

		result = table_scan_getnextslot(scan, ForwardScanDirection, slot);
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
	}
	table_close(relation, NoLock);
	return result;
}

bool
sc_relation_has_rows(Oid relid, LOCKMODE lockmode)
{
	List	   *tables;
	Snapshot	snapshot;
	bool		result = false;
	ListCell   *lc;

	LockRelationOid(relid, lockmode);
	tables = find_all_inheritors(relid, lockmode, NULL);
	/* behind the locks: what their holders have written is in it */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	foreach(lc, tables)
	{
		result = table_has_rows(lfirst_oid(lc), snapshot);
		if (result)
			break;
	}
	UnregisterSnapshot(snapshot);
	return result;
}
