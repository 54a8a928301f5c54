/*-------------------------------------------------------------------------
 * on_alter.c
 *	  The event trigger that looks at CREATE TABLE and ALTER TABLE: what they do to streams whose changes are applied.
 *
 * New partitions get REPLICA IDENTITY FULL.  What changes, adds or removes rows without a trace in the WAL is refused as
 * long as queries read the stream: they would keep what they have counted.  Here are ATTACH of a partition that holds rows,
 * and a generated column's new expression.  DETACH, DROP (drop.c) and TRUNCATE (hooks.c) of a partition that no query needs any
 * more may be (worker/frame/lose_partition.h).  hooks.c refuses DETACH ... CONCURRENTLY, which commits before an event trigger could say no.  (A column's new type isn't among them:
 * PostgreSQL refuses that for columns which views read, and a definition is one.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/api_internal.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/event_trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "model/identity.h"
#include "model/partition.h"
#include "worker/frame/lose_partition.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(stream_ckpt_on_alter);

/* Columns of pg_event_trigger_ddl_commands(). */
#define COMMAND_CLASSID		1
#define COMMAND_OBJID		2
#define COMMAND_COMMAND		9

/* ALTER TABLE relid ATTACH PARTITION, which is done. */
static void
check_attached(Oid stream, const PartitionCmd *command)
{
	Oid			child = RangeVarGetRelid(command->name, NoLock, true);

	if (OidIsValid(child) && sc_relation_has_rows(child, AccessShareLock))
		sc_refuse_for_readers(stream, child, "attach rows with partition");
}

static bool
is_full(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return true;
	result = ((Form_pg_class) GETSTRUCT(tuple))->relreplident == REPLICA_IDENTITY_FULL;
	ReleaseSysCache(tuple);
	return result;
}

static void
check_identity(Oid stream, Oid relid)
{
	if (is_full(relid))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot change the replica identity of \"%s\": changes of stream \"%s\" are applied",
					get_rel_name(relid), get_rel_name(stream)),
			 errdetail("That needs the whole old row of each change in the WAL: REPLICA IDENTITY FULL."),
			 errhint("Drop the queries that read the stream, and call stream_ckpt.alter_stream(stream, changes => 'ignore') first.")));
}

/* One part of an ALTER TABLE of "relid", which is done. */
static void
check_subcommand(Oid stream, Oid relid, const AlterTableCmd *command)
{
	switch (command->subtype)
	{
		case AT_ReplicaIdentity:
			check_identity(stream, relid);
			break;
		case AT_AttachPartition:
			check_attached(stream, castNode(PartitionCmd, command->def));
			break;
		case AT_DetachPartition:
			sc_partition_detached(stream, RangeVarGetRelid(castNode(PartitionCmd, command->def)->name, NoLock, false),
								  sc_lose_partition);
			break;
		case AT_DetachPartitionFinalize:
			sc_refuse_for_readers(stream, relid, "detach a partition of");
			break;
#if PG_VERSION_NUM >= 170000
		case AT_SetExpression:
			sc_refuse_for_readers(stream, relid, "change the expression of a generated column of");
			break;
#endif
		default:
			break;
	}
}

/* What a command did to the table "relid", which is or is part of the stream. */
static void
check_command(Oid stream, Oid relid, const CollectedCommand *command)
{
	ListCell   *lc;

	if (command->type != SCT_AlterTable)
		return;
	foreach(lc, command->d.alterTable.subcmds)
	{
		CollectedATSubcmd *part = lfirst(lc);

		if (IsA(part->parsetree, AlterTableCmd))
			check_subcommand(stream, relid, (AlterTableCmd *) part->parsetree);
	}
}

/* The same for all streams; new partitions get what they need. */
static void
check_table(Oid relid, const CollectedCommand *command)
{
	List	   *streams = sc_applying_streams(relid);
	ListCell   *lc;

	foreach(lc, streams)
		check_command(lfirst_oid(lc), relid, command);
	if (streams != NIL)
		sc_identity_set_full(relid);
}

/* Looks at each table that the command of the event has made or altered. */
static void
check_commands(void)
{
	ExprContext *econtext = CreateStandaloneExprContext();
	ReturnSetInfo set;
	TupleTableSlot *slot;

	sc_call_set_function(F_PG_EVENT_TRIGGER_DDL_COMMANDS, econtext, &set);
	slot = MakeSingleTupleTableSlot(set.setDesc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(set.setResult, true, false, slot))
	{
		Oid			relid;
		char		kind;

		slot_getallattrs(slot);
		/* GRANT and the like have no object */
		if (slot->tts_isnull[COMMAND_OBJID - 1] ||
			DatumGetObjectId(slot->tts_values[COMMAND_CLASSID - 1]) != RelationRelationId)
			continue;
		relid = DatumGetObjectId(slot->tts_values[COMMAND_OBJID - 1]);
		kind = get_rel_relkind(relid);
		if (kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE)
			check_table(relid, (CollectedCommand *) DatumGetPointer(slot->tts_values[COMMAND_COMMAND - 1]));
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(set.setResult);
	FreeExprContext(econtext, true);
}

/* The event trigger of ddl_command_end. */
Datum
stream_ckpt_on_alter(PG_FUNCTION_ARGS)
{

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("stream_ckpt.on_alter() is an event trigger's function")));
	/* catalogs that are not yet, or no longer, ours tell nothing */
	if (sc_extension_in_script() || !sc_extension_is_usable() || !sc_streams_apply())
		PG_RETURN_NULL();
	check_commands();
	PG_RETURN_NULL();
}
