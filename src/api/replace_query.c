/*-------------------------------------------------------------------------
 * replace_query.c
 *	  replace_query, rebuild_query, create_query(or_replace): a query gets another definition, or is made anew, and its
 *	  result stays the table that it is.
 *
 * All that happens here is that another query is entered beside it, with a result table of its own, which knows whose
 * place it is to take (src/README, "Replacing a query").  It belongs to the owner of the old one, whoever calls: it is
 * made in his name, as his code runs, and with the settings that it is to have.
 *
 * Whoever drops the old query drops the other one, too: its table depends on the old one's view.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "api/api_internal.h"
#include "api/new_query.h"
#include "base/env.h"
#include "base/process.h"
#include "base/subtransaction.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "ckpt/forget.h"
#include "commands/defrem.h"
#include "model/catalog_write.h"
#include "model/levels.h"
#include "model/log_stream.h"
#include "query/parse.h"
#include "sink/sink.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/frame/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_replace_query);
PG_FUNCTION_INFO_V1(stream_ckpt_rebuild_query);

/* ---------- the old query ---------- */

/*
 * One that leaves the lane (worker/coordinator/lane.h) stays there until it is replaced; what replaces it leaves then.
 */
static void
keep_in_lane(ScQuery *old)
{
	if (!old->moving)
		return;
	old->moving = false;
	sc_query_set_pipeline(old);
	sc_pipeline_changed(old->pipeline_id);
	sc_pipeline_changed(old->target_id);
}

/*
 * Locks the old query, in the order in which drop_query() does; nobody takes its place from here on.  It may be another
 * one than it was, which has taken that one's place.
 */
static ScQuery *
lock_old(Oid relid)
{
	ScQuery    *old;

	LockRelationOid(relid, RowExclusiveLock);
	old = sc_query_by_relid(relid, false);
	LockRelationOid(old->definition, AccessShareLock);
	sc_query_lock(old->query_id, ExclusiveLock);
	old = sc_query_by_relid(relid, false);
	if (old->replaces != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("query \"%s\" is to take the place of another one", get_rel_name(relid)),
				 errhint("Name that one: what replaces it is given up then.")));
	if (old->target_id != 0 && sc_pipeline_by_id(old->pipeline_id, false)->lane)
		keep_in_lane(old);
	else if (old->target_id != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("query \"%s\" is to move to another pipeline", get_rel_name(relid)),
				 errhint("Wait until it is there, or call stream_ckpt.move_query() for the pipeline where it is.")));
	return old;
}

/* Its view goes when another one takes its place.  Needs SPI. */
static void
refuse_dependents(const ScQuery *old)
{
	char	   *sql = psprintf("SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)"
							   " FROM pg_catalog.pg_depend d LEFT JOIN pg_catalog.pg_rewrite r"
							   " ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
							   " AND r.oid OPERATOR(pg_catalog.=) d.objid"
							   " WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
							   " AND d.refobjid OPERATOR(pg_catalog.=) %u AND d.deptype OPERATOR(pg_catalog.=) 'n'"
							   " AND COALESCE(r.ev_class, 0) OPERATOR(pg_catalog.<>) %u",
							   old->definition, old->definition);

	if (SPI_execute(sql, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for what depends on a definition");
	if (SPI_processed == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot replace the definition of \"%s\" because other objects depend on it", get_rel_name(old->relid)),
			 errdetail("There is %s.", TextDatumGetCString(sc_first_value(1, NULL))),
			 errhint("Drop what depends on view \"%s\", and create it again when the query is replaced: the view is another one then.",
					 get_rel_name(old->definition))));
}

/* A replacement that isn't in place yet gives way to another one.  Needs SPI. */
static void
give_up_replacement(const ScQuery *old)
{
	const ScQuery *other = sc_query_replacement(old->query_id);
	char	   *table;

	if (!other)
		return;
	LockRelationOid(other->relid, AccessExclusiveLock);
	LockRelationOid(other->definition, AccessExclusiveLock);
	sc_query_lock(other->query_id, ExclusiveLock);
	/* somebody has dropped it meanwhile */
	if (!sc_query_row(other->query_id))
		return;
	table = sc_qualified_name(other->relid);
	sc_forget_dropped(other->query_id);
	sc_query_dropped(other->query_id, other->pipeline_id);
	sc_user_execute(psprintf("DROP TABLE %s", table), SPI_OK_UTILITY);
}

/* ---------- does the new one fit its result? ---------- */

static void
refuse_columns(const ScQuery *old, Form_pg_attribute column, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 errmsg("the new definition does not fit result table \"%s\"", get_rel_name(old->relid)),
			 errdetail(what, NameStr(column->attname), format_type_with_typemod(column->atttypid, column->atttypmod)),
			 errhint("Columns can be added. Else create another query under another name, and move what depends on the table.")));
}

static Form_pg_attribute
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && strcmp(NameStr(column->attname), name) == 0)
			return column;
	}
	return NULL;
}

/* Every column of the old definition must be there, of the same type; those that are new come to the table now. */
static void
fit_columns(const ScQuery *old, Oid definition)
{
	Relation	before = relation_open(old->definition, AccessShareLock);
	Relation	after = relation_open(definition, AccessShareLock);
	TupleDesc	had = RelationGetDescr(before);
	TupleDesc	has = RelationGetDescr(after);

	for (int i = 0; i < had->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(had, i);
		Form_pg_attribute same = find_column(has, NameStr(column->attname));

		if (!same)
			refuse_columns(old, column, "Column \"%s\" of type %s is missing.");
		if (same->atttypid != column->atttypid || same->attcollation != column->attcollation)
			refuse_columns(old, column, "Column \"%s\" should be of type %s, with its collation.");
	}
	for (int i = 0; i < has->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(has, i);

		if (find_column(had, NameStr(column->attname)))
			continue;
		sc_user_execute(psprintf("ALTER TABLE %s ADD COLUMN %s %s%s", sc_qualified_name(old->relid),
								 quote_identifier(NameStr(column->attname)),
								 format_type_extended(column->atttypid, column->atttypmod,
													  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY),
								 OidIsValid(column->attcollation) ?
								 psprintf(" COLLATE %s", generate_collation_name(column->attcollation)) : ""),
						SPI_OK_UTILITY);
	}
	relation_close(after, NoLock);
	relation_close(before, NoLock);
}

/* Can the query write into the old one's table, as it is now? */
static void
check_result(const ScNewQuery *query, const ScQuery *old)
{
	ScQuery		result = *old;
	ScSink	   *sink;

	result.definition = query->view_oid;
	result.emit = query->emit;
	result.allowed_lateness = query->allowed_lateness;
	sink = sc_sink_open(&result);
	if (!sc_sink_key_fits(sink, sc_new_query_needs_key(query)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("the new definition does not fit result table \"%s\"", get_rel_name(old->relid)),
				 errdetail("Its unique index does not identify the rows of the new definition: the window, or what is grouped by, is another one."),
				 errhint("Create another query under another name, and move what depends on the table.")));
	(void) sc_sink_close(sink);
}

/* Are these settings, but for search_path, among those of the old one? */
static bool
has_settings(const ScQuery *old, List *settings)
{
	for (int i = 0; i + 1 < list_length(settings); i += 2)
	{
		for (int j = 0; j + 1 < list_length(old->settings); j += 2)
		{
			if (strcmp(list_nth(settings, i), list_nth(old->settings, j)) == 0 &&
				strcmp(list_nth(settings, i), "search_path") != 0 &&
				strcmp(list_nth(settings, i + 1), list_nth(old->settings, j + 1)) != 0)
				return false;
		}
	}
	return true;
}

/* A definition's text, as names are read now; also of a view that was made just now. */
static char *
definition_text(Oid view)
{
	Datum		value;
	char	   *result;
	Size		len;

	PushCopiedSnapshot(GetActiveSnapshot());
	UpdateActiveSnapshotCommandId();
	value = DirectFunctionCall1(pg_get_viewdef, ObjectIdGetDatum(view));
	PopActiveSnapshot();
	result = TextDatumGetCString(value);
	len = strlen(result);
	if (len > 0 && result[len - 1] == ';')
		result[len - 1] = '\0';
	return result;
}

/* Does it say what the old one says, with the same options? */
static bool
is_same(const ScNewQuery *query, const ScQuery *old, List *settings)
{
	return query->emit == old->emit && query->allowed_lateness == old->allowed_lateness && query->ttl == old->ttl &&
		query->keep_late_rows == old->keep_late_rows && query->dead_letter == old->dead_letter &&
		query->parallelism == old->parallelism && has_settings(old, settings) &&
		strcmp(definition_text(query->view_oid), definition_text(old->definition)) == 0;
}

/* ---------- the new one ---------- */

/* Names that are free, in the schema of the result. */
static void
choose_names(ScNewQuery *query, const ScQuery *old)
{
	Oid			namespace = get_rel_namespace(old->relid);
	char	   *result = get_rel_name(old->relid);

	query->schema = get_namespace_name(namespace);
	query->name = ChooseRelationName(result, NULL, "replacement", namespace, false);
	query->view = ChooseRelationName(result, NULL, "replacement_definition", namespace, false);
}

/* Nobody waits for the replacement, and it says all itself; but that it is there isn't obvious. */
static void
tell_of_replacement(const ScNewQuery *query, const ScQuery *old)
{
	ereport(NOTICE,
			(errmsg("query \"%s\" goes on as it was until what replaces it is complete", get_rel_name(old->relid)),
			 errdetail("Until then that is query \"%s\".", query->name),
			 errhint("stream_ckpt.sync() waits for it, and the view stream_ckpt.queries shows it; to give it up, drop it.")));
}

/*
 * The result may be a stream.  What is changed in it counts above it only if the stream's changes are applied, and its own
 * stream must not be made of it.
 */
static void
refuse_above(const ScNewQuery *query, const ScQuery *old)
{
	List	   *ignoring = sc_ignoring_streams(old->relid);
	bool		updates = query->emit == SC_EMIT_UPDATE || query->allowed_lateness > 0;

	if (ignoring != NIL && (updates || sc_streams_are_read(ignoring)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot replace query \"%s\": its result is a stream whose changes are not applied", get_rel_name(old->relid)),
				 errdetail("Rows of the result are changed and deleted, which queries over \"%s\" would not count.",
						   get_rel_name(linitial_oid(ignoring))),
				 errhint("Drop the queries that read it, and call stream_ckpt.alter_stream() with changes => 'apply'; then create them again.")));
	if (sc_stream_is_fed_by(query->definition->stream_relid, old->relid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("query \"%s\" cannot read what is made of its own result", get_rel_name(old->relid)),
				 errdetail("Rows of \"%s\" come from it.", get_rel_name(query->definition->stream_relid)),
				 errhint("Let it read another stream.")));
}

/* In the owner's surroundings. */
static void
enter_replacement(ScNewQuery *query, const ScQuery *old, List *settings, bool always)
{
	ObjectAddress table;
	ObjectAddress view;

	sc_new_query_analyze(query);
	choose_names(query, old);
	sc_new_query_create_relations(query);
	if (!always && is_same(query, old, settings))
	{
		sc_user_execute(psprintf("DROP TABLE %s", sc_qualified_name(query->result_oid)), SPI_OK_UTILITY);
		ereport(NOTICE,
				(errmsg("query \"%s\" has this definition already", get_rel_name(old->relid)),
				 errhint("stream_ckpt.rebuild_query() makes its result anew.")));
		return;
	}
	refuse_above(query, old);
	fit_columns(old, query->view_oid);
	check_result(query, old);
	sc_new_query_enter(query);
	ObjectAddressSet(table, RelationRelationId, query->result_oid);
	ObjectAddressSet(view, RelationRelationId, old->definition);
	recordDependencyOn(&table, &view, DEPENDENCY_AUTO);
	tell_of_replacement(query, old);
}

typedef struct Trial
{
	ScNewQuery	query;
	const ScQuery *old;
	List	   *settings;
} Trial;

/* False: nothing of it is to remain. */
static bool
trial_step(void *arg)
{
	Trial	   *trial = arg;
	ScEnv		env;

	sc_env_enter(&env, trial->old->owner, trial->settings);
	sc_new_query_analyze(&trial->query);
	sc_env_leave(&env);
	return false;
}

/* What is wrong with the definition is said before anything is made or locked, in the words of create_query(). */
static void
try_definition(const ScNewQuery *query, const ScQuery *old, List *settings)
{
	Trial		trial = {.query = *query,.old = old,.settings = settings};
	ErrorData  *error = sc_subtransaction_try(trial_step, &trial, NULL);

	if (!error)
		return;
	sc_definition_explain(error);
	ReThrowError(error);
}

void
sc_replace_query(ScNewQuery *query, ScQuery *old, List *settings, bool always)
{
	ScEnv		env;

	sc_check_relation_owner(old->definition);
	sc_check_relation_owner(old->relid);
	query->replaces = old->query_id;
	query->beginning = SC_BEGIN_WITH_HISTORY;
	query->pipeline = sc_pipeline_by_id(old->pipeline_id, false);
	try_definition(query, old, settings);
	sc_refuse_lost_pipeline(query->pipeline);
	(void) sc_pipeline_use(query->pipeline);
	sc_pipeline_lock(query->pipeline->pipeline_id, ShareLock);
	sc_refuse_lost_pipeline(query->pipeline);
	old = lock_old(old->relid);
	/* what was asked was of that query, and of its owner then */
	if (old->query_id != query->replaces)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("query \"%s\" has been replaced just now", get_rel_name(old->relid)),
				 errhint("Call it again: it is about the new query then.")));
	sc_check_relation_owner(old->definition);
	sc_check_relation_owner(old->relid);
	query->pipeline = sc_pipeline_by_id(old->pipeline_id, false);
	query->target_id = old->target_id;

	sc_env_enter(&env, old->owner, settings);
	SPI_connect();
	refuse_dependents(old);
	give_up_replacement(old);
	enter_replacement(query, old, settings, always);
	SPI_finish();
	sc_env_leave(&env);
}

/* ---------- functions ---------- */

/* The options of the old one, and what is kept of its result. */
static ScNewQuery
options_of(const ScQuery *old, bool has_keep_before, TimestampTz keep_before)
{
	ScNewQuery	query = {0};

	/* emit: what the definition asks for, if each row is one of the result */
	query.emit = old->emit == SC_EMIT_ROWS ? SC_EMIT_DEFAULT : old->emit;
	query.allowed_lateness = old->allowed_lateness;
	query.ttl = old->ttl;
	query.keep_late_rows = old->keep_late_rows;
	query.dead_letter = old->dead_letter;
	query.parallelism = old->parallelism;
	query.has_keep_before = has_keep_before;
	query.keep_before = keep_before;
	return query;
}

/* replace_query(query regclass, definition text, keep_before timestamptz) */
Datum
stream_ckpt_replace_query(PG_FUNCTION_ARGS)
{
	ScQuery    *old = sc_query_by_relid(DatumGetObjectId(sc_arg(fcinfo, 0, "query")), false);
	ScNewQuery	query = options_of(old, !PG_ARGISNULL(2), PG_ARGISNULL(2) ? 0 : PG_GETARG_TIMESTAMPTZ(2));

	sc_refuse_in_worker("replace_query()");
	query.text = sc_arg_text(fcinfo, 1, "definition");
	sc_replace_query(&query, old, sc_env_current_settings(), true);
	PG_RETURN_VOID();
}

void
sc_rebuild_query(ScQuery *old, bool has_keep_before, TimestampTz keep_before)
{
	ScNewQuery	query = options_of(old, has_keep_before, keep_before);
	ScEnv		env;

	sc_check_relation_owner(old->definition);
	sc_check_relation_owner(old->relid);
	sc_env_enter(&env, old->owner, old->settings);
	query.text = definition_text(old->definition);
	sc_env_leave(&env);
	sc_replace_query(&query, old, old->settings, true);
}

/* rebuild_query(query regclass, keep_before timestamptz): with its own definition, and the settings that it has */
Datum
stream_ckpt_rebuild_query(PG_FUNCTION_ARGS)
{
	ScQuery    *old = sc_query_by_relid(DatumGetObjectId(sc_arg(fcinfo, 0, "query")), false);

	sc_refuse_in_worker("rebuild_query()");
	sc_rebuild_query(old, !PG_ARGISNULL(1), PG_ARGISNULL(1) ? 0 : PG_GETARG_TIMESTAMPTZ(1));
	PG_RETURN_VOID();
}
