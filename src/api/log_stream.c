/*-------------------------------------------------------------------------
 * log_stream.c
 *	  create_stream, drop_stream, and the validator of a log stream's options.
 *
 * The functions are a convenience: a log stream is a foreign table of server
 * stream_ckpt, however it was made.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "api/api_internal.h"
#include "base/process.h"
#include "catalog/namespace.h"
#include "catalog/pg_foreign_table.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "model/catalog_write.h"
#include "model/log_stream.h"
#include "nodes/makefuncs.h"
#include "parser/parser.h"
#include "query/parse.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"

PG_FUNCTION_INFO_V1(stream_ckpt_create_stream);
PG_FUNCTION_INFO_V1(stream_ckpt_drop_stream);
PG_FUNCTION_INFO_V1(stream_ckpt_fdw_validator);

/* The validator of the foreign-data wrapper: (options text[], catalog oid). */
Datum
stream_ckpt_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (catalog != ForeignTableRelationId)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", option->defname),
					 errhint("stream_ckpt has options of foreign tables only.")));
		sc_log_stream_check_option(option);
	}
	sc_log_stream_check_options(options);
	PG_RETURN_VOID();
}

/* ---------- create_stream ---------- */

/* "1 day", "5 seconds", "0.25 seconds": the same under every IntervalStyle. */
static char *
seconds_text(int64 usecs)
{
	char	   *fraction = psprintf(".%06d", (int) (usecs % USECS_PER_SEC));
	int			len = strlen(fraction);

	if (usecs > 0 && usecs % USECS_PER_DAY == 0)
		return psprintf("%lld day%s", (long long) (usecs / USECS_PER_DAY),
						usecs == USECS_PER_DAY ? "" : "s");

	while (len > 0 && fraction[len - 1] == '0')
		fraction[--len] = '\0';
	return psprintf("%lld%s seconds", (long long) (usecs / USECS_PER_SEC),
					len > 1 ? fraction : "");
}

/* The name with its schema. */
static RangeVar *
resolve_name(const char *name)
{
	RangeVar   *range = sc_arg_relation(name);
	Oid			namespace = RangeVarGetCreationNamespace(range);

	if (isTempNamespace(namespace))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a stream cannot be temporary"),
				 errdetail("Its rows are in the WAL, for background workers that see no temporary tables."),
				 errhint("Name a schema, or take pg_temp out of search_path.")));
	range->schemaname = get_namespace_name(namespace);
	return range;
}

static void
append_option(StringInfo command, int *noptions, const char *name, const char *value)
{
	appendStringInfo(command, "%s%s %s", (*noptions)++ == 0 ? " OPTIONS (" : ", ", name,
					 quote_literal_cstr(value));
}

/*
 * The CREATE FOREIGN TABLE of create_stream's arguments, palloc'd.  Fails if one of its intervals
 * can't be used.
 */
static char *
create_command(RangeVar *range, const char *columns, FunctionCallInfo fcinfo)
{
	StringInfoData command;
	int			noptions = 0;
	int64		delay = sc_arg_reach(fcinfo, 3, "watermark_delay");
	int64		idle = PG_ARGISNULL(4) ? 0 : sc_arg_reach(fcinfo, 4, "idle_timeout");
	int64		ahead = PG_ARGISNULL(5) ? 0 : sc_arg_reach(fcinfo, 5, "max_ahead");

	initStringInfo(&command);
	appendStringInfo(&command, "CREATE FOREIGN TABLE %s (%s\n) SERVER %s",
					 quote_qualified_identifier(range->schemaname, range->relname),
					 columns, SC_FOREIGN_SERVER);
	if (!PG_ARGISNULL(2))
		append_option(&command, &noptions, SC_OPTION_EVENT_TIME,
					  NameStr(*PG_GETARG_NAME(2)));
	if (delay > 0)
		append_option(&command, &noptions, SC_OPTION_WATERMARK_DELAY, seconds_text(delay));
	if (!PG_ARGISNULL(4))
		append_option(&command, &noptions, SC_OPTION_IDLE_TIMEOUT, seconds_text(idle));
	if (!PG_ARGISNULL(5) && !PG_ARGISNULL(2))
		append_option(&command, &noptions, SC_OPTION_MAX_AHEAD, seconds_text(ahead));
	if (sc_arg_processing_time(fcinfo, 6, 2, 4))
		append_option(&command, &noptions, SC_OPTION_PROCESSING_TIME, "true");
	if (noptions > 0)
		appendStringInfoChar(&command, ')');
	return command.data;
}

/* "columns" is a list of columns, and not the end of the command and another. */
static void
check_command(const char *command)
{
	ScTextContext context;
	List	   *statements;
	Node	   *statement;

	sc_text_context_push(&context, command);
	statements = raw_parser(command, RAW_PARSE_DEFAULT);
	sc_text_context_pop(&context);
	statement = linitial_node(RawStmt, statements)->stmt;
	if (list_length(statements) != 1 || !IsA(statement, CreateForeignTableStmt) ||
		strcmp(((CreateForeignTableStmt *) statement)->servername, SC_FOREIGN_SERVER) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("parameter \"columns\" must be a list of columns, as in CREATE FOREIGN TABLE")));
}

/*
 * create_stream(name text, columns text, event_time name, watermark_delay interval,
 * idle_timeout interval, max_ahead interval, processing_time boolean) -> regclass.  Makes the default pipeline's slot first, as
 * attach_stream does.
 */
Datum
stream_ckpt_create_stream(PG_FUNCTION_ARGS)
{
	RangeVar   *range;
	char	   *command;
	Oid			relid;

	sc_refuse_in_worker("create_stream()");
	/* the function of an older version has fewer parameters */
	sc_extension_require();
	range = resolve_name(sc_arg_text(fcinfo, 0, "name"));
	command = create_command(range, sc_arg_text(fcinfo, 1, "columns"), fcinfo);
	check_command(command);
	sc_pipeline_prepare_for_stream();

	SPI_connect();
	sc_user_execute(command, SPI_OK_UTILITY);
	SPI_finish();
	relid = RangeVarGetRelid(range, NoLock, false);
	(void) sc_log_stream_event_time(relid);
	PG_RETURN_OID(relid);
}

/* ---------- alter_stream ---------- */

/* Appends what makes an option "value" (NULL: none); nothing where it is that. */
static void
alter_option(StringInfo command, List *options, const char *name, const char *value)
{
	bool		exists = false;
	ListCell   *lc;

	foreach(lc, options)
		exists |= strcmp(lfirst_node(DefElem, lc)->defname, name) == 0;
	if (value == NULL && !exists)
		return;
	appendStringInfo(command, "%s%s %s", command->data[command->len - 1] == '(' ? "" : ", ",
					 value == NULL ? "DROP" : exists ? "SET" : "ADD", name);
	if (value)
		appendStringInfo(command, " %s", quote_literal_cstr(value));
}

void
sc_log_stream_alter(const ScStream *stream)
{
	const ScStreamOptions *options = &stream->options;
	List	   *current = GetForeignTable(stream->relid)->options;
	StringInfoData command;

	initStringInfo(&command);
	appendStringInfo(&command, "ALTER FOREIGN TABLE %s OPTIONS (", sc_qualified_name(stream->relid));
	alter_option(&command, current, SC_OPTION_WATERMARK_DELAY, seconds_text(options->watermark_delay));
	alter_option(&command, current, SC_OPTION_IDLE_TIMEOUT,
				 options->idle_timeout == 0 || stream->processing_time ? NULL : seconds_text(options->idle_timeout));
	alter_option(&command, current, SC_OPTION_MAX_AHEAD,
				 options->max_ahead == SC_NO_LIMIT ? NULL : seconds_text(options->max_ahead));
	appendStringInfoChar(&command, ')');
	SPI_connect();
	sc_user_execute(command.data, SPI_OK_UTILITY);
	SPI_finish();
}

/* ---------- drop_stream ---------- */

/* drop_stream(stream regclass): an error while queries read it. */
Datum
stream_ckpt_drop_stream(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);

	sc_refuse_in_worker("drop_stream()");
	sc_check_relation_owner(sc_stream_by_relid(relid, false)->relid);
	if (!sc_is_log_stream(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("stream \"%s\" is an attached table", get_rel_name(relid)),
				 errhint("Detach it with stream_ckpt.detach_stream().")));
	sc_stream_lock(relid, ExclusiveLock);
	sc_refuse_stream_with_readers(relid, "drop");
	SPI_connect();
	sc_user_execute(psprintf("DROP FOREIGN TABLE %s", sc_qualified_name(relid)),
					SPI_OK_UTILITY);
	SPI_finish();
	PG_RETURN_VOID();
}
