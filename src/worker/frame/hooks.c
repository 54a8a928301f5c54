/*-------------------------------------------------------------------------
 * hooks.c
 *	  Where the server calls us: transaction ends, statements, dropped objects, and the
 *	  database commands that our workers and slots would make fail.
 *
 * DROP DATABASE, CREATE DATABASE ... TEMPLATE and ALTER DATABASE RENAME
 * fail while a worker is connected or a slot is in use.  The hook holds the
 * database (hold.h) until the command is over.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/process.h"
#include "base/settings.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_inherits.h"
#include "commands/extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/user.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "model/ignore_deletes.h"
#include "model/in_wal.h"
#include "model/inherit.h"
#include "model/log_stream.h"
#include "model/partition.h"
#include "pgstat.h"
#include "source/wal/slot.h"
#include "rewrite/rewriteHandler.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "worker/frame/hold.h"
#include "worker/frame/hooks.h"
#include "worker/frame/lose_partition.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/prepared.h"
#include "worker/frame/shared.h"

static ProcessUtility_hook_type prev_process_utility;
static object_access_hook_type prev_object_access;
static ExecutorStart_hook_type prev_executor_start;
static XLogRecPtr last_commit_seen;

/* At the end of each transaction.  Once it is committed or aborted no error may be raised any more. */
static void
transaction_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE)
		sc_pipeline_refuse_prepare();
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		sc_prepared_refuse_writes();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
	{
		sc_partition_forget();
		sc_ignore_deletes_end();
	}
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	sc_prepared_at_transaction_end(event == XACT_EVENT_COMMIT);
	sc_pipeline_at_transaction_end(event == XACT_EVENT_COMMIT);
	/* this also notices COMMIT PREPARED, whose own transaction has no id */
	if (sc_shared && event == XACT_EVENT_COMMIT && XactLastCommitEnd != last_commit_seen &&
		sc_my_process == SC_PROCESS_NONE)
	{
		last_commit_seen = XactLastCommitEnd;
		sc_shared_wake_readers();
	}
}

/*
 * Notifications are queued at the commit, where a full queue would fail the whole
 * checkpoint, again and again, and say nothing of the query whose trigger it was.  So the
 * queue is looked at when code of an owner's asks, and it is his query that has to wait: from
 * half of it on, where the server itself begins to warn.
 */
static void
refuse_to_overfill(void)
{
	double		usage = DatumGetFloat8(OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE));

	if (usage * 100 < SC_NOTIFY_PERCENT)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("cannot notify: the notification queue is %d %% full", (int) (usage * 100)),
			 errhint("A session that listens keeps it from being emptied: see pg_listening_channels() and the oldest transactions in pg_stat_activity.")));
}

/* Without our workers nobody drops the slots of an extension that goes. */
static void
warn_of_slots(void)
{
	ScSlotOwner *owners;
	int			n = sc_slot_owners(&owners);

	for (int i = 0; i < n; i++)
	{
		NameData	name;

		if (owners[i].database != MyDatabaseId)
			continue;
		sc_slot_name(MyDatabaseId, owners[i].pipeline_id, &name);
		ereport(WARNING,
				(errmsg("replication slot \"%s\" stays and keeps WAL, because stream_ckpt is not preloaded",
						NameStr(name)),
				 errhint("Drop it with SELECT pg_drop_replication_slot('%s').", NameStr(name))));
	}
	pfree(owners);
}

/*
 * DROP EXTENSION, also by DROP SCHEMA or DROP OWNED, and ALTER EXTENSION UPDATE; DROP ROLE;
 * changed options and columns of log streams; tables that inherit from a stream, and those of streams
 * whose rows would not be in the WAL any more; partitions that go.
 */
static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);
	if (access == OAT_FUNCTION_EXECUTE)
	{
		if (object_id == F_PG_NOTIFY && sc_my_process != SC_PROCESS_NONE)
			refuse_to_overfill();
		return;
	}
	if (access == OAT_DROP && class_id == RelationRelationId && sub_id == 0)
		sc_partition_note_drop(object_id);
	if (access == OAT_DROP && class_id == AuthIdRelationId)
		sc_pipelines_refuse_to_drop(object_id);
	if (access == OAT_POST_ALTER && class_id == ForeignTableRelationId)
		sc_log_stream_options_altered(object_id);
	if (access == OAT_POST_ALTER && class_id == RelationRelationId && sub_id > 0)
		sc_log_stream_column_altered(object_id, sub_id);
	if (access == OAT_POST_ALTER && class_id == InheritsRelationId)
		sc_stream_refuse_child(object_id, ((ObjectAccessPostAlter *) arg)->auxiliary_id);
	if (access == OAT_POST_ALTER && class_id == RelationRelationId && sub_id == 0)
		sc_stream_refuse_altered(object_id);
	if ((access == OAT_DROP || access == OAT_POST_ALTER) &&
		class_id == ExtensionRelationId)
	{
		char	   *name = get_extension_name(object_id);

		if (name && strcmp(name, "stream_ckpt") == 0)
		{
			sc_pipelines_extension_changed();
			sc_prepared_changed();
			if (access == OAT_DROP && !sc_shared)
				warn_of_slots();
		}
	}
}

/* The database that a command needs to itself, or NULL. */
static const char *
database_of_command(Node *command)
{
	ListCell   *lc;

	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) command)->dbname;
		case T_CreatedbStmt:
			foreach(lc, ((CreatedbStmt *) command)->options)
			{
				DefElem    *option = lfirst(lc);

				if (strcmp(option->defname, "template") == 0 && option->arg)
					return defGetString(option);
			}
			return "template1";
		case T_RenameStmt:
			return ((RenameStmt *) command)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) command)->subname : NULL;
		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) command)->options)
			{
				if (strcmp(((DefElem *) lfirst(lc))->defname, "tablespace") == 0)
					return ((AlterDatabaseStmt *) command)->dbname;
			}
			return NULL;
		default:
			return NULL;
	}
}

/* As createdb() does. */
static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		result;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return result;
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Would the server itself refuse the command for this role, or in this session?  Nobody stops
 * the pipelines of a database by such a command.
 */
static bool
is_refused_anyway(Node *command, Oid database)
{
	if (IsA(command, CreatedbStmt))
		return !may_create_databases() ||
			!(is_template(database) || sc_owns_database(database)) ||
			OidIsValid(get_database_oid(((CreatedbStmt *) command)->dbname, true));
	return database == MyDatabaseId || !sc_owns_database(database);
}

/*
 * ALTER DATABASE ... SET TABLESPACE gives every relation another file name than
 * the WAL before it says, so that logical decoding finds none of them any more.
 */
static void
refuse_to_move(Oid database, const char *name)
{
	ScSlotOwner *owners;
	int			n = sc_slot_owners(&owners);

	for (int i = 0; i < n; i++)
	{
		if (owners[i].database == database)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot move database \"%s\" to another tablespace while it has continuous queries",
							name),
					 errdetail("The WAL names the files of the old tablespace: rows that are in it could not be read any more."),
					 errhint("Drop its continuous queries and streams first, and create them again afterwards.")));
	}
	pfree(owners);
}

/*
 * Is the view what pg_dump puts in place of one that needs the index of a key, until that is there?  That reads nothing; a
 * definition reads its stream.
 */
static bool
is_for_now(Oid view)
{
	Relation	rel = try_relation_open(view, AccessShareLock);
	bool		result;

	if (rel == NULL)
		return false;
	result = rel->rd_rel->relkind == RELKIND_VIEW && get_view_query(rel)->jointree->fromlist == NIL;
	relation_close(rel, AccessShareLock);
	return result;
}

/*
 * CREATE OR REPLACE of a definition, or of its rule, would change the query at some restart,
 * with the state of the old one.
 */
static void
refuse_to_replace_definition(Node *command)
{
	RangeVar   *range = NULL;
	Oid			relid;
	ScQuery    *query;

	if (IsA(command, ViewStmt) && ((ViewStmt *) command)->replace)
		range = ((ViewStmt *) command)->view;
	else if (IsA(command, RuleStmt) && ((RuleStmt *) command)->replace)
		range = ((RuleStmt *) command)->relation;
	/* catalogs of another version tell nothing, and are about to be updated */
	if (!range || sc_extension_in_script() || !sc_extension_is_usable())
		return;
	relid = RangeVarGetRelid(range, NoLock, true);
	query = OidIsValid(relid) ? sc_query_by_relid(relid, true) : NULL;
	if (query && query->definition == relid && !is_for_now(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot replace \"%s\", the definition of a continuous query", range->relname),
				 errhint("Use stream_ckpt.replace_query().")));
}

static void
call_next(PlannedStmt *pstmt, const char *query, bool read_only,
		  ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
		  DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only, context, params, env, dest, qc);
}

/* Lets the database's pipelines run again; also when the session is terminated. */
static void
let_go(int code, Datum arg)
{
	sc_hold_end();
}

/*
 * Refuses what would break a stream or a query, and holds the database for commands that need it to
 * themselves, also if they fail.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	const char *name = sc_shared ? database_of_command(pstmt->utilityStmt) : NULL;
	Oid			database = name ? get_database_oid(name, true) : InvalidOid;
	bool		drop = IsA(pstmt->utilityStmt, DropdbStmt);

	ReassignOwnedStmt *reassign = NULL;

	refuse_to_replace_definition(pstmt->utilityStmt);
	if (IsA(pstmt->utilityStmt, CreateForeignTableStmt))
	{
		CreateForeignTableStmt *stmt = (CreateForeignTableStmt *) pstmt->utilityStmt;

		sc_stream_refuse_foreign_child(stmt->base.inhRelations, stmt->servername);
	}
	if (IsA(pstmt->utilityStmt, TruncateStmt))
		sc_partition_truncate((TruncateStmt *) pstmt->utilityStmt, sc_lose_partition);
	if (IsA(pstmt->utilityStmt, AlterTableStmt))
	{
		sc_partition_refuse_detach((AlterTableStmt *) pstmt->utilityStmt);
		sc_partition_note_detach((AlterTableStmt *) pstmt->utilityStmt);
	}
	if (IsA(pstmt->utilityStmt, ReassignOwnedStmt))
		reassign = (ReassignOwnedStmt *) pstmt->utilityStmt;
	if (IsA(pstmt->utilityStmt, NotifyStmt) && sc_my_process != SC_PROCESS_NONE)
		refuse_to_overfill();

	if (!OidIsValid(database) || RecoveryInProgress() ||
		is_refused_anyway(pstmt->utilityStmt, database))
	{
		call_next(pstmt, query, read_only, context, params, env, dest, qc);
		if (reassign)
			sc_pipelines_reassign(roleSpecsToIds(reassign->roles),
								  get_rolespec_oid(reassign->newrole, false));
		return;
	}
	if (IsA(pstmt->utilityStmt, AlterDatabaseStmt))
		refuse_to_move(database, name);
	sc_hold_begin(database);
	PG_ENSURE_ERROR_CLEANUP(let_go, (Datum) 0);
	{
		sc_hold_stop_workers(database);
		call_next(pstmt, query, read_only, context, params, env, dest, qc);
		if (drop)
			sc_hold_forget_database(database);
	}
	PG_END_ENSURE_ERROR_CLEANUP(let_go, (Datum) 0);
	let_go(0, (Datum) 0);
}

static void
executor_start(QueryDesc *query, int flags)
{
	sc_ignore_deletes_refuse_moves(query);
	if (prev_executor_start)
		prev_executor_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

void
sc_hooks_init(void)
{
	sc_lost_pipeline = sc_pipelines_lost;
	/* pg_upgrade makes our catalogs piece by piece, and what it does to users' tables was right before */
	if (IsBinaryUpgrade)
		return;
	sc_ignore_deletes_init();
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	RegisterXactCallback(transaction_callback, NULL);
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
