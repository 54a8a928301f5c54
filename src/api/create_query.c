/*-------------------------------------------------------------------------
 * create_query.c
 *	  create_query: accepts a definition and makes the view, the result table, its
 *	  key and the catalog entry.
 *
 * The slot is made first, before this transaction has an id, if the query is to begin at this transaction's commit: the
 * control message that is logged last takes effect there.  One that begins with its stream's history needs nothing
 * but the catalogs, in any transaction: what it waits for comes when that is committed (coordinator/first_slot.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/subtransaction.h"
#include "api/api_internal.h"
#include "api/new_query.h"
#include "base/compat.h"
#include "base/env.h"
#include "base/process.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_rewrite.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "model/control.h"
#include "model/identity.h"
#include "model/log_stream.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query/access.h"
#include "query/analyze.h"
#include "query/parse.h"
#include "rewrite/rewriteSupport.h"
#include "source/wal/slot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rls.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "worker/frame/pipeline.h"
#include "worker/frame/shared.h"
#include "worker/frame/start.h"
#include "worker/frame/workers.h"

PG_FUNCTION_INFO_V1(stream_ckpt_create_query);

/* The parameter ttl: microseconds, 0: none. */
static int64
arg_ttl(FunctionCallInfo fcinfo, int n)
{
	int64		ttl;

	/* a library that is newer than the extension */
	if (PG_NARGS() <= n || PG_ARGISNULL(n))
		return 0;
	ttl = sc_arg_reach(fcinfo, n, "ttl");
	if (ttl == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"ttl\" must be greater than zero"),
				 errhint("Leave it out to keep groups for ever.")));
	return ttl;
}

/* An argument that only one of its documented values is built for. */
static void
check_options(FunctionCallInfo fcinfo, ScNewQuery *query)
{
	char	   *on_error = sc_arg_text(fcinfo, 6, "on_error");

	query->emit = sc_arg_emit(fcinfo, 2);
	if (strcmp(on_error, "stop") != 0 && strcmp(on_error, "dead_letter") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"on_error\" must be 'stop' or 'dead_letter', not '%s'",
						on_error),
				 errhint("With 'stop', the default, the query fails at a row that raises an error; with 'dead_letter' it goes on without that row.")));
	query->dead_letter = strcmp(on_error, "dead_letter") == 0;
	query->allowed_lateness = sc_arg_reach(fcinfo, 3, "allowed_lateness");
	query->beginning = PG_ARGISNULL(4) ? SC_BEGIN_DEFAULT :
		PG_GETARG_BOOL(4) ? SC_BEGIN_WITH_HISTORY : SC_BEGIN_FROM_NOW;
	query->keep_late_rows = DatumGetBool(sc_arg(fcinfo, 5, "keep_late_rows"));
}

/* The stream has no history with which the query could begin. */
static void
refuse_history(const ScNewQuery *query, const char *kind, const char *why, const char *hint)
{
	char	   *stream = get_rel_name(query->definition->stream_relid);

	if (query->replaces != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a result cannot be made anew of %s \"%s\"", kind, stream),
				 errdetail("%s", why),
				 errhint("Create another query, which begins with the rows committed after it.")));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("parameter \"backfill\" must be false for %s \"%s\"", kind, stream),
			 errdetail("%s", why),
			 errhint("%s", hint)));
}

/*
 * May the caller read the stream, all of it?  Also keeps it attached until the
 * end of the transaction.
 */
static void
check_stream(ScNewQuery *query, Query *parsed)
{
	Oid			relid = query->definition->stream_relid;
	ScStream   *stream;

	sc_check_relations(parsed);
	if (query->keep_late_rows || query->dead_letter)
		sc_check_retained_columns(relid);
	if (check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security of stream \"%s\" applies to you",
						get_rel_name(relid)),
				 errdetail("A continuous query reads every row of its stream."),
				 errhint("Let the owner of the table, or a role with BYPASSRLS, create the query.")));
	sc_stream_lock(relid, ShareLock);
	stream = sc_stream_by_relid(relid, false);
	query->backfill = query->beginning == SC_BEGIN_WITH_HISTORY ||
		(query->beginning == SC_BEGIN_DEFAULT && sc_stream_has_history(stream));
	if (query->backfill && stream->processing_time)
		refuse_history(query, "stream", "Its event time is the time of the commit, which rows don't keep.",
					   "With backfill => false the query begins with the rows committed after it.");
	if (query->backfill && (sc_is_log_stream(relid) || sc_has_log_stream_partition(relid)))
		refuse_history(query, "log stream", "A log stream keeps no rows: it has no history.",
					   "With backfill => false the query begins with the rows committed after it.");
}

/* The view of the query whose place it is to take, or InvalidOid. */
static Oid
replaced_view(const ScNewQuery *query)
{
	return query->replaces != 0 ? sc_query_by_id(query->replaces, false)->definition : InvalidOid;
}

/* Parses, and accepts or refuses, the definition. */
void
sc_new_query_analyze(ScNewQuery *query)
{
	Query	   *parsed = sc_definition_parse(query->text, &query->select);

	query->definition = sc_definition_analyze(parsed, query->text, replaced_view(query), query->emit,
											  query->allowed_lateness, query->ttl);
	query->emit = query->definition->emit;
	if (query->keep_late_rows && (!sc_assigner_has_windows(&query->definition->window) || query->definition->stateless))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 query->definition->stateless ? errmsg("keep_late_rows needs GROUP BY or aggregates") :
				 errmsg("keep_late_rows needs a window"),
				 errdetail("Without that no row is late: every row counts."),
				 errhint("Leave it out.")));
	check_stream(query, parsed);
	sc_definition_check_dead_letter(query->definition, query->dead_letter);
	sc_check_query_parallelism(query->pipeline, query->definition, query->parallelism, query->dead_letter);
}

static void
refuse_swapped(const char *name)
{
	if (sc_looks_like_select(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"name\" is a query, not the name of a result table"),
				 errhint("The name comes first: stream_ckpt.create_query('<name>', 'SELECT ...').")));
}

/* Neither the result table's name may be taken nor the view's. */
static void
check_names_are_free(const ScNewQuery *query, Oid namespace)
{
	if (OidIsValid(get_relname_relid(query->name, namespace)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", query->name),
				 errdetail("The name is that of the result table, which create_query() makes."),
				 errhint("Choose another name, or rename or drop that relation: drop_query(..., keep_result => true) leaves a result under its name.")));
	if (OidIsValid(get_relname_relid(query->view, namespace)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", query->view),
				 errdetail("The name is that of the view in which the definition of \"%s\" is kept.",
						   query->name),
				 errhint("Choose another name for the query.")));
}

/* Where the result table goes; its name leaves room for the view's. */
static void
resolve_name(ScNewQuery *query, char *name)
{
	RangeVar   *range = sc_arg_relation(name);
	Oid			namespace = RangeVarGetCreationNamespace(range);

	query->schema = get_namespace_name(namespace);
	query->name = range->relname;
	query->view = psprintf("%s_definition", query->name);
	if (strlen(query->view) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the name \"%s\" is too long", query->name),
				 errdetail("\"%s\" must have less than %d bytes.", query->view, NAMEDATALEN),
				 errhint("Choose a shorter one.")));
	if (isTempNamespace(namespace))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a continuous query cannot be temporary"),
				 errdetail("Its result table is written by background workers, which see no temporary tables."),
				 errhint("Name a schema, or take pg_temp out of search_path.")));
	check_names_are_free(query, namespace);
}

/*
 * Must the result table have the unique index?  Rows that are updated need it.  Those of closed windows
 * never are: there a key that is too long for an index must not be an error.
 */
bool
sc_new_query_needs_key(const ScNewQuery *query)
{
	return query->emit == SC_EMIT_UPDATE || query->allowed_lateness > 0;
}

/* Has each value of the result's column the same length, so that none is too long for an index? */
static bool
has_fixed_length(const TargetEntry *target)
{
	return get_typlen(exprType((Node *) target->expr)) > 0;
}

/*
 * The index of a result whose rows have no key: by its window, if there is one.
 */
static void
create_window_index(ScNewQuery *query, const char *table)
{
	const ScDefinition *definition = query->definition;
	TargetEntry *target;
	char	   *name;

	if (definition->upper == NULL)
		return;
	target = list_nth(definition->upper->target, definition->result_window - 1);
	name = ChooseRelationName(query->name, NULL, "idx", get_namespace_oid(query->schema, false), false);
	sc_user_execute(psprintf("CREATE INDEX %s ON %s (%s)", quote_identifier(name), table,
							 quote_identifier(target->resname)),
					SPI_OK_UTILITY);
}

/*
 * The index of the result: its key columns, window first, unique; a constant if the table has one row.  Columns
 * that may hold too much are left out if nothing needs them, and then it isn't unique.  The name of a unique one
 * over columns; NULL: none.
 */
static char *
create_key(ScNewQuery *query, const char *table)
{
	const ScDefinition *definition = query->definition;
	StringInfoData columns;
	bool		all = true;
	char	   *name;

	if (definition->nresult_key == 0 && !definition->one_row)
	{
		create_window_index(query, table);
		return NULL;
	}
	initStringInfo(&columns);
	if (definition->one_row)
		appendStringInfoString(&columns, "(true)");
	for (int i = 0; i < definition->nresult_key; i++)
	{
		TargetEntry *target = list_nth(definition->target, definition->result_key[i] - 1);

		if (sc_new_query_needs_key(query) || has_fixed_length(target))
			appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "",
							 quote_identifier(target->resname));
		else
			all = false;
	}
	/* another name if that one is taken */
	name = ChooseRelationName(query->name, NULL, all ? "key" : "idx",
							  get_namespace_oid(query->schema, false), false);
	sc_user_execute(psprintf("CREATE %sINDEX %s ON %s (%s)%s", all ? "UNIQUE " : "",
							 quote_identifier(name), table, columns.data,
							 all ? " NULLS NOT DISTINCT" : ""),
					SPI_OK_UTILITY);
	return all && !definition->one_row ? name : NULL;
}

/* Is it a column of the window, which a row always has, or the row's number? */
static bool
is_never_null(const ScDefinition *definition, const TargetEntry *target)
{
	Var		   *var = (Var *) target->expr;

	if (definition->upper != NULL)
		return target->resno == definition->result_window;
	for (int i = 0; definition->stateless && i < definition->nresult_key; i++)
	{
		if (definition->result_key[i] == target->resno)
			return true;
	}
	if (definition->best != NULL && IsA(var, Var) && var->varattno == SC_BEST_NUMBER(definition))
		return true;
	return !definition->stateless && IsA(var, Var) && var->varattno <= SC_WINDOW_COLUMNS;
}

/*
 * If there are windows, every group has one: its columns are NOT NULL, as numbers of rows are.  And changes of the table can
 * be replicated, whatever publication it is in: by the key's index if all its columns are NOT NULL, else by whole
 * rows.  Without that PostgreSQL would refuse our updates of a published table.
 */
static void
set_identity(ScNewQuery *query, const char *table, const char *key)
{
	StringInfoData command;
	ListCell   *lc;

	initStringInfo(&command);
	appendStringInfo(&command, "ALTER TABLE %s ", table);
	foreach(lc, sc_result_target(query->definition))
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (is_never_null(query->definition, target))
			appendStringInfo(&command, "ALTER %s SET NOT NULL, ", quote_identifier(target->resname));
	}
	if (key != NULL && query->definition->nkeys == 0)
		appendStringInfo(&command, "REPLICA IDENTITY USING INDEX %s", quote_identifier(key));
	else
		appendStringInfoString(&command, "REPLICA IDENTITY FULL");
	sc_user_execute(command.data, SPI_OK_UTILITY);
}

/* The view, from the parse tree itself, so that errors keep their positions. */
static void
create_view(ScNewQuery *query)
{
	ViewStmt   *statement = makeNode(ViewStmt);
	PlannedStmt *wrapper = makeNode(PlannedStmt);
	ScTextContext context;

	statement->view = makeRangeVar(pstrdup(query->schema), pstrdup(query->view), -1);
	statement->query = (Node *) query->select;
	statement->withCheckOption = NO_CHECK_OPTION;
	wrapper->commandType = CMD_UTILITY;
	wrapper->utilityStmt = (Node *) statement;
	wrapper->stmt_location = -1;

	sc_text_context_push(&context, query->text);
	ProcessUtility(wrapper, query->text, false, PROCESS_UTILITY_QUERY, NULL, NULL,
				   None_Receiver, NULL);
	sc_text_context_pop(&context);
	CommandCounterIncrement();
}

/*
 * The key of the stream by which rows of the result are known isn't dropped but with the query.  It is the view's rule that
 * depends on it, as that of a view with GROUP BY a primary key does: pg_dump knows what to do about a view that needs an index.
 */
static void
depend_on_key(const ScDefinition *definition, Oid view)
{
	ObjectAddress rule;
	ObjectAddress key;
	Oid			constraint;

	if (!OidIsValid(definition->row_key_index))
		return;
	constraint = get_index_constraint(definition->row_key_index);
	if (OidIsValid(constraint))
		ObjectAddressSet(key, ConstraintRelationId, constraint);
	else
		ObjectAddressSet(key, RelationRelationId, definition->row_key_index);
	ObjectAddressSet(rule, RewriteRelationId, get_rewrite_oid(view, ViewSelectRuleName, false));
	recordDependencyOn(&rule, &key, DEPENDENCY_NORMAL);
}

/* The view, the table and its key, as the caller. */
void
sc_new_query_create_relations(ScNewQuery *query)
{
	char	   *table = pstrdup(quote_qualified_identifier(query->schema, query->name));
	char	   *view = pstrdup(quote_qualified_identifier(query->schema, query->view));
	Oid			namespace = get_namespace_oid(query->schema, false);
	ObjectAddress result;
	ObjectAddress definition;

	create_view(query);
	sc_refuse_temporary(get_relname_relid(query->view, namespace));
	/* may the caller run what the definition calls? */
	sc_user_execute(psprintf("SELECT FROM %s LIMIT 0", view), SPI_OK_SELECT);
	/*
	 * Room for a new version of each row on its page, so that no update needs index entries: with all rows updated
	 * at once an upsert takes a third of what it takes with 70, and table and index are smaller.  Rows that are the
	 * stream's are mostly written once.
	 */
	sc_user_execute(psprintf("CREATE %sTABLE %s %sAS TABLE %s WITH NO DATA", query->replaces != 0 ? "UNLOGGED " : "", table,
							 query->emit == SC_EMIT_UPDATE && !query->definition->stateless ?
							 "WITH (fillfactor = 50) " : "",
							 view),
					SPI_OK_UTILITY);
	set_identity(query, table, create_key(query, table));

	query->result_oid = get_relname_relid(query->name, namespace);
	query->view_oid = get_relname_relid(query->view, namespace);
	ObjectAddressSet(result, RelationRelationId, query->result_oid);
	ObjectAddressSet(definition, RelationRelationId, query->view_oid);
	recordDependencyOn(&definition, &result, DEPENDENCY_AUTO);
	depend_on_key(query->definition, query->view_oid);
}

/* The query is kept, and its rows are: what is missing can be mended. */
static void
warn_of_no_place(const ScPipeline *pipeline)
{
	if (sc_shared_find(MyDatabaseId, pipeline->pipeline_id) || sc_shared_has_room())
		return;
	ereport(WARNING,
			(errmsg("the query does not run: there is no place for pipeline \"%s\"", pipeline->name),
			 sc_slot_is_missing(pipeline->pipeline_id) ? errdetail("It begins when there is a place.") :
			 errdetail("The WAL is kept for it."),
			 errhint("Increase \"stream_ckpt.max_pipelines\" and restart the server. Lost and stopped pipelines take a place, too.")));
}

/* A query of which every row with a new event time may make a group for ever. */
static void
warn_of_time_key(const ScDefinition *definition)
{
	if (definition->never_closes)
		ereport(WARNING,
				(errmsg("the groups of the query never close"),
				 errdetail("GROUP BY reads the event time, but not as a window."),
				 errhint("Windows are date_bin(interval, ts, origin), date_trunc(unit, ts), ts::date, with constants and zones written as 'Europe/Berlin'; or stream_ckpt.tumble(ts, size) in FROM.")));
}

/* The query begins behind this transaction: says so at its place in the log. */
static void
log_creation(const ScNewQuery *query, int64 query_id)
{
	const ScStream *stream = sc_stream_by_relid(query->definition->stream_relid, false);
	ScControl	control = {0};

	control.kind = SC_CONTROL_CREATE_QUERY;
	control.pipeline_id = query->pipeline->pipeline_id;
	control.query_id = query_id;
	control.stream_relid = stream->relid;
	control.event_time_attno = stream->event_time_attno;
	control.parallelism = query->parallelism;
	control.has_options = true;
	control.options = stream->options;
	(void) sc_control_log(&control);
}

/*
 * How a query begins that isn't to begin with the rows of its stream.  Notes whether there are such; if its changes are
 * applied there may be none.  Log streams never hold any.  Looked for as late as can be: rows committed between this and our
 * commit escape it otherwise, and verify() counts them as differences.  That the caller may read the stream has been
 * checked.
 */
static void
begin_from_now(ScQuery *entry, const ScStream *stream, ScBeginning beginning)
{
	if (stream->applies)
		sc_require_empty_table(entry->stream_relid);
	else
		entry->preexisting_rows = sc_relation_has_rows(entry->stream_relid, AccessShareLock);
	if (entry->preexisting_rows && beginning == SC_BEGIN_DEFAULT)
		ereport(NOTICE,
				(errmsg("the query doesn't count the rows that stream \"%s\" holds", get_rel_name(entry->stream_relid)),
				 errdetail("It begins with those committed after it: when rows of this stream were committed isn't in its table.")));
}

/*
 * Is it to be decided at the commit how the query begins?  If there are no rows of its stream's it needs no history: a pipeline
 * that runs begins it at once, without an attempt of its own.
 */
static bool
may_need_no_history(const ScNewQuery *query)
{
	return query->beginning == SC_BEGIN_DEFAULT && query->backfill && query->has_slot &&
		!sc_relation_has_rows(query->definition->stream_relid, AccessShareLock);
}

/*
 * Tries the definition once as a task will run it, enters the query in the catalog, and logs its
 * creation.  One that begins with its stream's history begins with an attempt, whose snapshot shows all that was
 * committed before: nobody needs a place in the log for that.  Its result table and view are there; raises an error if no task could run it.
 */
void
sc_new_query_enter(ScNewQuery *query)
{
	ScQuery		entry = {0};
	ScStream   *stream;
	bool		undecided;
	int64		query_id;

	entry.relid = query->result_oid;
	entry.definition = query->view_oid;
	entry.stream_relid = query->definition->stream_relid;
	entry.pipeline_id = query->pipeline->pipeline_id;
	entry.emit = query->emit;
	entry.allowed_lateness = query->allowed_lateness;
	entry.ttl = query->ttl;
	entry.keep_late_rows = query->keep_late_rows;
	entry.dead_letter = query->dead_letter;
	entry.parallelism = query->parallelism;
	entry.owner = GetUserId();
	entry.settings = sc_env_current_settings();
	/* also, the names in its text may have come to mean something else meanwhile */
	sc_task_query_try(&entry);
	/* after that, when the libraries are loaded */
	entry.settings = list_concat(entry.settings, sc_definition_settings(query->view_oid));
	undecided = may_need_no_history(query);
	entry.backfill = query->backfill && !undecided;
	entry.replaces = query->replaces;
	entry.target_id = query->target_id;
	entry.has_keep_before = query->has_keep_before;
	entry.keep_before = query->keep_before;
	/* which nobody alters any more */
	stream = sc_stream_by_relid(entry.stream_relid, false);
	if (!query->backfill)
		begin_from_now(&entry, stream, query->beginning);

	/* from here on no writer drops rows of the stream, and none has */
	sc_stream_lock_read(entry.stream_relid);

	query_id = sc_query_insert(&entry);
	if (!entry.backfill)
		log_creation(query, query_id);
	if (undecided)
		sc_begin_empty_or_with_history(query_id, entry.stream_relid);
	else if (stream->applies && !entry.backfill)
		sc_require_empty_table_at_commit(query_id, entry.stream_relid);
	sc_pipeline_changed(query->pipeline->pipeline_id);
	warn_of_no_place(query->pipeline);
	warn_of_time_key(query->definition);
}

/*
 * A query that joins those of a lost pipeline would not run, and once they are dropped nothing
 * could tell whether it began before the loss or after.
 */
void
sc_refuse_lost_pipeline(const ScPipeline *pipeline)
{
	char	   *message;
	char	   *hint;

	if (sc_start_is_lost(pipeline->pipeline_id, &message, &hint))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" is lost", pipeline->name),
				 errdetail("%s.", message),
				 errhint("Drop its queries first, or call stream_ckpt.rebuild_pipeline(name) to make their results anew, or stream_ckpt.start_pipeline(name, accept_gap => true) to go on without the rows between.")));
}

static void
refuse_prepared_database(void)
{
	if (sc_prepared_pipelines() != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the database is prepared for pg_upgrade"),
				 errhint("Create the query after stream_ckpt.finish_upgrade().")));
}

/*
 * The pipeline and its slot.  The slot comes before anything that takes a lock on
 * a user's relation: making it waits for every transaction that has written.  For a query that begins with its stream's
 * history the coordinator makes it when there is none.
 */
static void
prepare_pipeline(ScNewQuery *query, const char *name)
{
	bool		first;

	query->pipeline = sc_usable_pipeline(name);
	refuse_prepared_database();
	sc_refuse_lost_pipeline(query->pipeline);
	query->has_slot = !query->backfill || sc_pipeline_use(query->pipeline);
	if (!query->backfill)
		sc_pipeline_prepare(query->pipeline);
	first = query->has_slot && !sc_has_begun(query->pipeline->pipeline_id);
	sc_pipeline_lock(query->pipeline->pipeline_id, first ? ExclusiveLock : ShareLock);
	query->pipeline = sc_usable_pipeline(name);
	refuse_prepared_database();
	if (!first || !sc_start_anew(query->pipeline->pipeline_id))
		sc_refuse_lost_pipeline(query->pipeline);
}

typedef struct Trial
{
	ScNewQuery	query;
	char	   *name;
} Trial;

/* False: nothing of it is to remain. */
static bool
trial_step(void *arg)
{
	Trial	   *trial = arg;

	sc_new_query_analyze(&trial->query);
	resolve_name(&trial->query, trial->name);
	return false;
}

/*
 * Everything that can be said of the query before its pipeline has a slot, and then as if it had
 * not been looked at: whoever has no right to the stream makes no slot, and nobody holds a
 * lock while one is made.  Tells whether it begins with its stream's history.
 */
static void
try_query(ScNewQuery *query, char *name)
{
	Trial		trial = {.query = *query,.name = name};
	ErrorData  *error = sc_subtransaction_try(trial_step, &trial, NULL);

	query->backfill = trial.query.backfill;
	if (!error)
		return;
	sc_definition_explain(error);
	ReThrowError(error);
}

/* The parameter or_replace: the query of that name, if it is true and there is one; else NULL. */
static ScQuery *
arg_replaced(FunctionCallInfo fcinfo, int n, const char *name)
{
	Oid			relid;
	ScQuery    *query;

	/* a library that is newer than the extension */
	if (PG_NARGS() <= n || !DatumGetBool(sc_arg(fcinfo, n, "or_replace")))
		return NULL;
	relid = RangeVarGetRelid(sc_arg_relation(name), NoLock, true);
	query = OidIsValid(relid) ? sc_query_by_relid(relid, true) : NULL;
	return query && query->relid == relid ? query : NULL;
}

static void
refuse_other_pipeline(const ScQuery *old)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("query \"%s\" is in pipeline \"%s\"", get_rel_name(old->relid),
					sc_pipeline_by_id(old->pipeline_id, false)->name),
			 errhint("Name that one in parameter \"pipeline\"; stream_ckpt.move_query() moves it.")));
}

/*
 * create_query(name text, query text, emit text, allowed_lateness interval,
 * backfill boolean, keep_late_rows boolean, on_error text, pipeline name, parallelism integer, ttl interval,
 * or_replace boolean) -> regclass, the result table.
 */
Datum
stream_ckpt_create_query(PG_FUNCTION_ARGS)
{
	ScNewQuery	query = {0};
	char	   *name = sc_arg_text(fcinfo, 0, "name");
	const char *pipeline;
	ScQuery    *old;

	sc_refuse_in_worker("create_query()");
	query.text = sc_arg_text(fcinfo, 1, "query");
	refuse_swapped(name);
	check_options(fcinfo, &query);
	pipeline = sc_arg_name(fcinfo, 7, "pipeline");
	old = arg_replaced(fcinfo, 10, name);
	query.pipeline = sc_usable_pipeline(pipeline);
	/* only now: catalogs of 0.2, which that refuses, don't have the argument */
	query.parallelism = sc_arg_parallelism(fcinfo, 8);
	query.ttl = arg_ttl(fcinfo, 9);
	if (old)
	{
		if (old->pipeline_id != query.pipeline->pipeline_id && old->target_id != query.pipeline->pipeline_id)
			refuse_other_pipeline(old);
		sc_replace_query(&query, old, sc_env_current_settings(), false);
		PG_RETURN_OID(old->relid);
	}
	try_query(&query, name);
	prepare_pipeline(&query, pipeline);
	sc_new_query_analyze(&query);
	resolve_name(&query, name);

	SPI_connect();
	sc_new_query_create_relations(&query);
	sc_new_query_enter(&query);
	SPI_finish();
	PG_RETURN_OID(query.result_oid);
}
