/*-------------------------------------------------------------------------
 * create_query.c
 *	  create_query: accepts a definition and makes the view, the result table, its
 *	  key and the catalog entry.
 *
 * The slot is made first, before this transaction has an id.  The control
 * message that is logged last takes effect at this transaction's commit: the query begins there.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/spi_internal.h"
#include "base/env.h"
#include "base/process.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "model/control.h"
#include "nodes/makefuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "query/analyze.h"
#include "source/slot.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "worker/pipeline.h"

PG_FUNCTION_INFO_V1(stream_ckpt_create_query);

typedef struct NewQuery
{
	const char *schema;
	const char *name;			/* of the result table */
	const char *view;			/* of the definition */
	const char *text;
	ScEmit		emit;
	ScDefinition *definition;
	ScPipeline *pipeline;
	bool		preexisting_rows;
	Oid			result_oid;
	Oid			view_oid;
} NewQuery;

static char *
text_argument(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* An argument that only one of its documented values is built for. */
static void
check_options(FunctionCallInfo fcinfo, NewQuery *query)
{
	char	   *emit = text_argument(fcinfo, 2, "emit");
	char	   *on_error = text_argument(fcinfo, 6, "on_error");

	if (strcmp(emit, "close") != 0 && strcmp(emit, "update") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("emit must be 'close' or 'update', not '%s'", emit)));
	query->emit = strcmp(emit, "update") == 0 ? SC_EMIT_UPDATE : SC_EMIT_CLOSE;
	if (strcmp(on_error, "stop") != 0 && strcmp(on_error, "dead_letter") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_error must be 'stop' or 'dead_letter', not '%s'", on_error)));
	if (strcmp(on_error, "stop") != 0)
		sc_not_supported("on_error => 'dead_letter'", "Use on_error => 'stop'.");
	if (PG_ARGISNULL(3) ||
		sc_interval_usecs(PG_GETARG_INTERVAL_P(3), "allowed_lateness") != 0)
		sc_not_supported("allowed_lateness", "Use a larger watermark_delay of the stream.");
	if (!PG_ARGISNULL(4) && PG_GETARG_BOOL(4))
		sc_not_supported("backfill => true",
						 "With backfill => false the query begins with the rows committed after it.");
	if (!PG_ARGISNULL(5) && PG_GETARG_BOOL(5))
		sc_not_supported("keep_late_rows => true", "Late rows are counted in stream_ckpt.queries.");
}

/* Errors in the text show the text, not the statement that called us. */
static void
transpose_position(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((const char *) arg);
	}
}

/* Parses, and accepts or refuses, the definition. */
static void
analyze_text(NewQuery *query)
{
	ErrorContextCallback callback;
	List	   *statements;
	RawStmt    *statement;
	Query	   *parsed;

	callback.callback = transpose_position;
	callback.arg = (void *) query->text;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	statements = pg_parse_query(query->text);
	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a continuous query must be one SELECT, not %d statements",
						list_length(statements))));
	statement = linitial_node(RawStmt, statements);
	if (!IsA(statement->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query must be a SELECT"),
				 errhint("Write SELECT ... FROM stream, stream_ckpt.tumble(...) w GROUP BY ...")));
	parsed = parse_analyze_fixedparams(statement, query->text, NULL, 0, NULL);
	error_context_stack = callback.previous;
	query->definition = sc_definition_analyze(parsed, query->text, query->emit);
	if (statement->stmt_len > 0)
		query->text = pnstrdup(query->text + statement->stmt_location, statement->stmt_len);
}

/* Where the result table goes; its name leaves room for the view's and the key's. */
static void
resolve_name(NewQuery *query, char *name)
{
	RangeVar   *range = makeRangeVarFromNameList(stringToQualifiedNameList(name));
	Oid			namespace = RangeVarGetCreationNamespace(range);

	query->schema = get_namespace_name(namespace);
	query->name = range->relname;
	query->view = psprintf("%s_definition", query->name);
	if (strlen(query->view) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the name \"%s\" is too long", query->name),
				 errdetail("\"%s\" must have less than %d bytes.", query->view, NAMEDATALEN)));
	if (isTempNamespace(namespace))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a continuous query cannot be temporary")));
	if (OidIsValid(get_relname_relid(query->name, namespace)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", query->name)));
}

/* The unique index of the result: its key columns, window first. */
static void
create_key(NewQuery *query, const char *table)
{
	StringInfoData command;

	if (query->definition->nresult_key == 0)
		return;
	initStringInfo(&command);
	appendStringInfo(&command, "CREATE UNIQUE INDEX %s ON %s (",
					 quote_identifier(makeObjectName(query->name, NULL, "key")), table);
	for (int i = 0; i < query->definition->nresult_key; i++)
	{
		TargetEntry *target = list_nth(query->definition->target,
									   query->definition->result_key[i] - 1);

		appendStringInfo(&command, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(target->resname));
	}
	appendStringInfoString(&command, ") NULLS NOT DISTINCT");
	sc_user_execute(command.data, SPI_OK_UTILITY);
}

/* The view, the table and its key, as the caller. */
static void
create_relations(NewQuery *query)
{
	char	   *table = pstrdup(quote_qualified_identifier(query->schema, query->name));
	char	   *view = pstrdup(quote_qualified_identifier(query->schema, query->view));
	Oid			namespace = get_namespace_oid(query->schema, false);
	ObjectAddress result;
	ObjectAddress definition;

	sc_user_execute(psprintf("CREATE VIEW %s AS %s", view, query->text), SPI_OK_UTILITY);
	/* may the caller read what the definition reads? */
	sc_user_execute(psprintf("SELECT FROM %s LIMIT 0", view), SPI_OK_SELECT);
	sc_user_execute(psprintf("SELECT EXISTS (SELECT FROM %s)",
							 sc_qualified_name(query->definition->stream_relid)),
					SPI_OK_SELECT);
	query->preexisting_rows = DatumGetBool(sc_first_value(1, NULL));
	sc_user_execute(psprintf("CREATE TABLE %s AS TABLE %s WITH NO DATA", table, view),
					SPI_OK_UTILITY);
	create_key(query, table);

	query->result_oid = get_relname_relid(query->name, namespace);
	query->view_oid = get_relname_relid(query->view, namespace);
	ObjectAddressSet(result, RelationRelationId, query->result_oid);
	ObjectAddressSet(definition, RelationRelationId, query->view_oid);
	recordDependencyOn(&definition, &result, DEPENDENCY_AUTO);
}

/* The caller's settings as a text[] of names and values in turn. */
static Datum
settings_array(void)
{
	List	   *settings = sc_env_current_settings();
	Datum	   *values = palloc(list_length(settings) * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, settings)
		values[n++] = CStringGetTextDatum((char *) lfirst(lc));
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
create_entry(NewQuery *query)
{
	Oid			types[] = {OIDOID, OIDOID, OIDOID, INT4OID, TEXTOID, TEXTARRAYOID, BOOLOID};
	Datum		values[7];
	ScControl	control = {0};

	values[0] = ObjectIdGetDatum(query->result_oid);
	values[1] = ObjectIdGetDatum(query->view_oid);
	values[2] = ObjectIdGetDatum(query->definition->stream_relid);
	values[3] = Int32GetDatum(query->pipeline->pipeline_id);
	values[4] = CStringGetTextDatum(query->emit == SC_EMIT_UPDATE ? "update" : "close");
	values[5] = settings_array();
	values[6] = BoolGetDatum(query->preexisting_rows);
	sc_catalog_execute("INSERT INTO stream_ckpt.query (relid, definition, source, pipeline_id, emit, settings, preexisting_rows) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING query_id",
					   7, types, values, NULL);

	control.kind = SC_CONTROL_CREATE_QUERY;
	control.pipeline_id = query->pipeline->pipeline_id;
	control.query_id = DatumGetInt64(sc_first_value(1, NULL));
	control.stream_relid = query->definition->stream_relid;
	control.event_time_attno = query->definition->event_time_attno;
	(void) sc_control_log(&control);
}

/*
 * create_query(name text, query text, emit text, allowed_lateness interval,
 * backfill boolean, keep_late_rows boolean, on_error text, pipeline name) ->
 * regclass, the result table.
 */
Datum
stream_ckpt_create_query(PG_FUNCTION_ARGS)
{
	NewQuery	query = {0};
	char	   *name = text_argument(fcinfo, 0, "name");

	sc_refuse_in_worker("create_query()");
	query.text = text_argument(fcinfo, 1, "query");
	check_options(fcinfo, &query);
	if (PG_ARGISNULL(7))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("pipeline must not be null")));
	query.pipeline = sc_pipeline_by_name(NameStr(*PG_GETARG_NAME(7)), false);
	analyze_text(&query);
	resolve_name(&query, name);
	sc_pipeline_changed(query.pipeline->pipeline_id);
	sc_slot_ensure(query.pipeline->pipeline_id);

	SPI_connect();
	create_relations(&query);
	create_entry(&query);
	SPI_finish();
	PG_RETURN_OID(query.result_oid);
}
