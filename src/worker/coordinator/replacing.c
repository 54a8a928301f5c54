/*-------------------------------------------------------------------------
 * replacing.c
 *	  A query takes another one's place (replacing.h).
 *
 * The rule: locks first, in the order in which drop_query() takes them, then a snapshot that is newer than these.  What
 * was changed before is seen, and nothing is changed after.  Nothing here runs a command of SQL but for the rows: event
 * triggers are for what users do.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/debug.h"
#include "base/env.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "ckpt/failure.h"
#include "commands/tablecmds.h"
#include "model/catalog_write.h"
#include "model/control.h"
#include "model/identity.h"
#include "query/analyze.h"
#include "sink/sink.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/coordinator/handing.h"
#include "worker/coordinator/replacing.h"
#include "worker/frame/loop.h"
#include "worker/frame/own_rows.h"
#include "worker/frame/pipeline.h"

/* So many rows that differ are worth telling the reader of */
#define MANY_PAGES	16

/* The replacement has to wait: its part is tried again. */
static void
not_now(const ScQuery *old, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("the query cannot take the place of \"%s\" now", get_rel_name(old->relid)),
			 errdetail("%s", why)));
}

/* Waits no longer than locks may take in a checkpoint. */
static void
lock_relations(const ScQuery *query, const ScQuery *old)
{
	sc_lock_time_relation(old->relid, ShareRowExclusiveLock);
	sc_lock_time_relation(old->definition, AccessExclusiveLock);
	sc_lock_time_relation(query->relid, AccessExclusiveLock);
	sc_lock_time_relation(query->definition, AccessExclusiveLock);
}

ScQuery *
sc_replacing_begin(const ScQuery *query)
{
	ScQuery    *old = sc_query_by_id(query->replaces, true);
	const ScQuery *now;

	if (!old)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the query that \"%s\" is to replace does not exist any more", get_rel_name(query->relid)),
				 errhint("Drop this one with stream_ckpt.drop_query().")));
	lock_relations(query, old);
	if (!sc_query_lock_conditional(old->query_id, ExclusiveLock) ||
		!sc_query_lock_conditional(query->query_id, ExclusiveLock))
		not_now(old, "Somebody is changing one of the two.");
	old = sc_query_by_id(query->replaces, true);
	now = sc_query_by_id(query->query_id, true);
	if (!old || !now || now->replaces != old->query_id)
		elog(ERROR, "query " INT64_FORMAT " has changed just now", query->query_id);
	if (old->paused)
		not_now(old, "It is paused.");
	if (now->paused)
		not_now(old, "The one that is to take its place is paused.");
	/* one that is to leave the lane waits for us (replace_query.c) */
	if (old->pipeline_id != query->pipeline_id || old->moving || (old->target_id != 0 && !sc_my_pipeline->lane))
		not_now(old, "It is in another pipeline, or on its way there.");
	if (sc_my_process == SC_PROCESS_COORDINATOR && sc_writer_has(old->query_id))
		not_now(old, "A large result of it is being written.");
	SC_DEBUG_POINT("replacing_locked");
	return old;
}

/*
 * Of a history without any event time nobody can tell which windows of the result could not be made again: that of a table
 * whose old rows are deleted can be empty.
 */
static void
refuse_unknown_end(const ScQuery *query, const ScQuery *old, const ScDefinition *definition, int64 kept_until)
{
	if (kept_until != PG_INT64_MIN || query->has_keep_before || definition->stateless ||
		!sc_assigner_has_windows(&definition->window) || !sc_relation_has_rows(old->relid, AccessShareLock))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("stream \"%s\" holds no row with an event time, and the result of query \"%s\" has rows",
					get_rel_name(query->stream_relid), get_rel_name(old->relid)),
			 errdetail("All of them would be deleted."),
			 errhint("Say which of them stay: call stream_ckpt.rebuild_query() or replace_query() with keep_before, which is a time or '-infinity' for none.")));
}

/* The rows that differ, as the owner. */
static void
change_result(const ScQuery *query, const ScQuery *old, int64 kept_until, ScWrittenRows *written)
{
	ScQuery		result = *query;
	ScDefinition *definition;
	Relation	table;
	ScSink	   *sink;
	ScEnv		env;

	result.relid = old->relid;
	sc_env_enter(&env, query->owner, query->settings);
	sc_limit_begin(query->owner);
	definition = sc_definition_load(query);
	refuse_unknown_end(query, old, definition, kept_until);
	table = table_open(query->relid, NoLock);
	sink = sc_sink_open(&result);
	written->user_code |= sc_sink_runs_user_code(sink);
	if (!written->user_code && RelationGetNumberOfBlocks(table) >= MANY_PAGES)
		sc_own_rows_begin(sc_sink_relation(sink));
	written->nrows = sc_sink_become(sink, table, definition, kept_until);
	(void) sc_sink_close(sink);
	table_close(table, NoLock);
	PortalHashTableDeleteAll();
	sc_limit_end();
	sc_env_leave(&env);
}

/* Whatever depends on it keeps it, and is an error; but for what is the query's own. */
static void
drop_relation(Oid relid)
{
	ObjectAddress object;

	ObjectAddressSet(object, RelationRelationId, relid);
	performDeletion(&object, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
}

/*
 * The old query's view goes, and the other one has its name, if it is free then: a user can have moved one of them to
 * another schema.
 */
static void
replace_view(const ScQuery *query, const ScQuery *old)
{
	char	   *name = get_rel_name(old->definition);

	drop_relation(old->definition);
	CommandCounterIncrement();
	if (!OidIsValid(get_relname_relid(name, get_rel_namespace(query->definition))))
		RenameRelationInternal(query->definition, name, true, false);
	CommandCounterIncrement();
}

/* The old query ends in the log at the end of this transaction, as one that is dropped. */
static void
log_end(const ScQuery *old)
{
	ScControl	control = {0};

	control.kind = SC_CONTROL_DROP_QUERY;
	control.pipeline_id = old->pipeline_id;
	control.query_id = old->query_id;
	(void) sc_control_log(&control);
}

/* The old query's row, view and result, each to its new owner or to nobody. */
static void
change_catalogs(ScQuery *query, const ScQuery *old)
{
	Oid			filled = query->relid;
	ObjectAddress definition;
	ObjectAddress result;

	sc_query_delete(old->query_id);
	sc_query_set_replaced(query->query_id, old->relid);
	/* who would be dropped with whom: see create_query() and replace_query(); a restored dump hasn't got that */
	ObjectAddressSet(definition, RelationRelationId, query->definition);
	ObjectAddressSet(result, RelationRelationId, old->relid);
	if (changeDependencyFor(RelationRelationId, query->definition, RelationRelationId, filled, old->relid) == 0)
		recordDependencyOn(&definition, &result, DEPENDENCY_AUTO);
	(void) deleteDependencyRecordsForSpecific(RelationRelationId, filled, DEPENDENCY_AUTO,
											  RelationRelationId, old->definition);
	CommandCounterIncrement();
	replace_view(query, old);
	drop_relation(filled);
	CommandCounterIncrement();
	log_end(old);
	sc_pipeline_changed(query->pipeline_id);
	query->relid = old->relid;
	query->replaces = 0;
}

void
sc_replacing_end(ScQuery *query, const ScQuery *old, int64 kept_until, ScWrittenRows *written)
{
	/* newer than the locks: nobody has changed the result since */
	PushActiveSnapshot(GetLatestSnapshot());
	change_result(query, old, kept_until, written);
	SC_DEBUG_POINT("replacing_rows_changed");
	change_catalogs(query, old);
	PopActiveSnapshot();
	SC_DEBUG_POINT("replacing_done");
}
