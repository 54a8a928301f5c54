/*-------------------------------------------------------------------------
 * verify.c
 *	  verify(query): how many rows of the result differ from the batch truth.
 *
 * The truth is the definition run as a plain query over the stream's table (session.c: of sessions another
 * one that gives the same), in one snapshot with the result.  It can be had only where every row that the
 * table has went through the query, and no other.  The counters that tell are
 * read before that snapshot is taken: what the watermark closed by then stays
 * as it is.
 *
 * Windows of which rows came, changed or went when they were over (ckpt/changed.h) have another truth than
 * the table as it is now: they are left out, on both sides, and counted.
 *
 * Columns are compared by their types' own equality, those of types without an
 * order (json, point) as text, and float columns up to rounding: an aggregate may
 * have added up the same values in another order.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/commit_ts.h"
#include "access/table.h"
#include "api/api_internal.h"
#include "base/env.h"
#include "base/process.h"
#include "base/subtransaction.h"
#include "catalog/pg_type.h"
#include "ckpt/changed.h"
#include "ckpt/dead_letter.h"
#include "ckpt/offset.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "model/log_stream.h"
#include "nodes/nodeFuncs.h"
#include "query/analyze.h"
#include "query/closed.h"
#include "sink/sink.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(stream_ckpt_verify);

/* relative differences that pass as rounding */
#define FLOAT4_TOLERANCE "1e-5"
#define FLOAT8_TOLERANCE "1e-9"

/*
 * Every operator and function is named with its schema: the text is parsed under
 * the search_path of the query's owner.
 */
#define OP(operator) " OPERATOR(pg_catalog." operator ") "

/* The comparison's parts of SQL. */
typedef struct Comparison
{
	char	   *columns;		/* the definition's columns as c1, c2, ... */
	char	   *result_columns; /* those of the result table, which may have other names */
	char	   *key;			/* ROW(...) of the columns that must be equal */
	char	   *order;			/* "" or ", c2, c5": the float columns */
	char	   *close;			/* condition: the float columns of x and y agree */
	bool		has_floats;

	/* windows that are left out; NULL: none */
	char	   *left_out;		/* condition on "w" */
	char	   *window;			/* ", window_start AS w": of the definition, */
	char	   *result_window;	/* and of the result */
	char	   *names;			/* c1, c2, ... */
} Comparison;

/* ---------- can the truth be had? ---------- */

static void
refuse(ScQuery *query, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the batch truth of \"%s\" cannot be had", get_rel_name(query->relid)),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}

/* An error where "count" rows make the batch truth another one. */
static void
refuse_counted(ScQuery *query, int64 count, const char *what)
{
	if (count > 0)
		refuse(query, psprintf("%lld %s.", (long long) count, what), NULL);
}

/* Of a query with windows to which changes are applied these are known; else nobody knows where the rows were. */
static void
refuse_ignored(ScQuery *query, const ScDefinition *definition, const ScOffset *offset, bool applies)
{
	if (!applies)
	{
		refuse_counted(query, offset->deletes_ignored, "deletes from the stream were ignored");
		refuse_counted(query, offset->truncates_ignored, "truncations of the stream were ignored");
	}
	else if ((definition->stateless || !sc_assigner_has_windows(&definition->window)) && offset->deletes_ignored + offset->truncates_ignored > 0)
		refuse(query,
			   psprintf("After ignore_deletes() the result has kept rows that were deleted: %lld by DELETE, and those of %lld commands that truncated the stream or took a partition from it.",
						(long long) offset->deletes_ignored, (long long) offset->truncates_ignored),
			   "Without groups of windows nothing tells what it has of them. Compare with a query over the rows that are kept elsewhere.");
}

/* The query's offset; an error where the stream had other rows than the query. */
static ScOffset *
check_counters(ScQuery *query, const ScDefinition *definition)
{
	const ScStream *stream = sc_stream_by_relid(query->stream_relid, false);
	ListCell   *lc;

	if (sc_is_log_stream(query->stream_relid) || sc_has_log_stream_partition(query->stream_relid))
		refuse(query, "Log streams keep their rows in the write-ahead log only.",
			   "Compare with a query over a table that gets the same rows.");
	if (query->ttl > 0)
		refuse(query, "Its groups begin anew after their ttl, and its definition counts all rows.", NULL);
	if (query->preexisting_rows)
		refuse(query, "The stream held rows when the query began, or lost some since; they are not part of it.",
			   "Compare with a query over the rows since then.");
	foreach(lc, sc_offset_list(query->pipeline_id))
	{
		ScOffset   *offset = lfirst(lc);

		if (offset->query_id != query->query_id)
			continue;
		/* if changes are applied, windows that had such are known */
		if (!stream->applies)
			refuse_counted(query, offset->late_rows, "late rows were dropped");
		refuse_counted(query, offset->moved_rows, "rows were counted in later windows than those of their commits, which were over");
		refuse_counted(query, sc_dead_letter_count(query->query_id),
					   "rows, groups or result rows are dead letters");
		refuse_counted(query, offset->updates_ignored, "updates of the stream were ignored");
		refuse_ignored(query, definition, offset, stream->applies);
		return offset;
	}
	refuse(query, "No checkpoint of the query has been committed yet.",
		   "Call stream_ckpt.sync() first.");
	return NULL;
}

/* ---------- which rows ---------- */

static const char *
column_name(TupleDesc desc, AttrNumber attno)
{
	return quote_identifier(NameStr(TupleDescAttr(desc, attno - 1)->attname));
}

/*
 * A condition on the definition's columns, those of "names", that holds for the windows which are
 * closed.  The result has no others.
 */
static char *
closed_condition(ScQuery *query, ScDefinition *definition, TupleDesc names, ScOffset *offset)
{
	int64		watermark = sc_watermark(offset->time.max_event_time,
										 offset->options.watermark_delay);

	if (watermark == SC_NO_EVENT_TIME)
		return "false";
	if (definition->window.kind == SC_WINDOW_SESSION)
		/* a row at the end of one would still be of it */
		return psprintf("window_end" OP("<") "%s", sc_sql_literal(definition->event_time_type, Int64GetDatum(watermark)));
	if (definition->result_window == 0)
		refuse(query, "Its select list has no column that tells windows apart, so closed ones cannot be told from open ones.",
			   definition->window.kind == SC_WINDOW_CUMULATE ? "Add window_end to the select list." :
			   "Add window_start to the select list.");
	return sc_definition_closed(definition, column_name(names, definition->result_window), watermark);
}

/*
 * What the definition's rows are selected from, and the condition for those that the result can have.  An item of GROUP BY is null or infinite for rows
 * without a finite event time, which have no window; a window function gives no row for them.
 */
static char *
truth_condition(ScQuery *query, ScDefinition *definition, TupleDesc names, ScOffset *offset, char **from)
{
	char	   *condition = "true";

	*from = sc_qualified_name(query->definition);
	/* without groups the result has all rows; "target" may be over the stream's columns */
	if (definition->stateless)
		return condition;
	if (query->emit == SC_EMIT_CLOSE)
		condition = closed_condition(query, definition, names, offset);
	if (definition->window.kind == SC_WINDOW_SESSION)
	{
		*from = sc_session_truth(query, definition, condition);
		return "true";
	}
	if (definition->result_window != 0 && definition->result_window_kind == SC_WINDOW_START)
		condition = psprintf("%s AND pg_catalog.isfinite(%s)", condition, column_name(names, definition->result_window));
	return condition;
}

/* ---------- comparing ---------- */

static bool
is_float(Oid type)
{
	return type == FLOAT4OID || type == FLOAT8OID;
}

/*
 * "x agrees with y": equal (as NaN is to NaN, and infinity to infinity), or both finite and so near that
 * rounding explains it.  In numeric, as float8 has no room for a margin at its ends.
 */
static void
append_close(StringInfo close, int column, Oid type)
{
	const char *tolerance = type == FLOAT4OID ? FLOAT4_TOLERANCE : FLOAT8_TOLERANCE;
	const char *special = "ANY ('{NaN,Infinity,-Infinity}'::pg_catalog.float8[])";
	char	   *x = psprintf("x.c%d", column);
	char	   *y = psprintf("y.c%d", column);

	appendStringInfo(close,
					 " AND CASE WHEN %s IS NULL OR %s IS NULL THEN %s IS NULL AND %s IS NULL"
					 " WHEN %s" OP("=") "%s THEN true"
					 " WHEN %s" OP("=") "%s OR %s" OP("=") "%s THEN false"
					 " ELSE pg_catalog.abs(%s::pg_catalog.numeric" OP("-") "%s::pg_catalog.numeric)"
					 OP("<=") "(pg_catalog.abs(%s::pg_catalog.numeric)" OP("*") "%s) END",
					 x, y, x, y, x, y, x, special, y, special, x, y, y, tolerance);
}

/* "names" are the columns of the definition, "attnos" those of the result table for them. */
static Comparison
make_comparison(ScDefinition *definition, TupleDesc names, Relation result_table, AttrNumber *attnos)
{
	Comparison	result = {0};
	StringInfoData columns;
	StringInfoData result_columns;
	StringInfoData key;
	StringInfoData order;
	StringInfoData close;
	ListCell   *lc;

	initStringInfo(&columns);
	initStringInfo(&result_columns);
	initStringInfo(&key);
	initStringInfo(&order);
	initStringInfo(&close);
	foreach(lc, sc_result_target(definition))
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		Oid			type = exprType((Node *) target->expr);
		int			column = target->resno;
		bool		ordered = OidIsValid(lookup_type_cache(type, TYPECACHE_LT_OPR)->lt_opr);

		appendStringInfo(&columns, "%s%s%s AS c%d", column > 1 ? ", " : "",
						 column_name(names, column),
						 ordered ? "" : "::pg_catalog.text", column);
		appendStringInfo(&result_columns, "%s%s%s AS c%d", column > 1 ? ", " : "",
						 column_name(RelationGetDescr(result_table), attnos[column - 1]),
						 ordered ? "" : "::pg_catalog.text", column);
		if (is_float(type))
		{
			result.has_floats = true;
			appendStringInfo(&order, ", c%d", column);
			append_close(&close, column, type);
		}
		else
			appendStringInfo(&key, ", c%d", column);
	}
	result.columns = columns.data;
	result.result_columns = result_columns.data;
	result.key = psprintf("ROW(0%s)", key.data);
	result.order = order.data;
	result.close = close.data;
	return result;
}

/* Windows that have changed when they were over are left out, whatever both sides have of them. */
static void
leave_out(Comparison *comparison, ScQuery *query, ScDefinition *definition, TupleDesc names, TupleDesc result_names,
		  const AttrNumber *attnos)
{
	ScRangeSet *changed = sc_changed_read(query->query_id);
	StringInfoData list;
	int			column = definition->result_window;

	if (changed->n == 0 || definition->stateless)
		return;
	if (column == 0)
		refuse(query, "Rows of its windows came, changed or went when they were over, and its select list has no column that tells windows apart.",
			   "Add window_start to the select list.");
	if (definition->window.kind == SC_WINDOW_SESSION)
		sc_session_widen(definition, changed);
	comparison->left_out = psprintf("(%s)", sc_definition_in_ranges(definition, "w", changed));
	comparison->window = psprintf(", %s AS w", column_name(names, column));
	comparison->result_window = psprintf(", %s AS w", column_name(result_names, attnos[column - 1]));
	initStringInfo(&list);
	for (int i = 1; i <= list_length(sc_result_target(definition)); i++)
		appendStringInfo(&list, "%sc%d", i > 1 ? ", " : "", i);
	comparison->names = list.data;
}

/* The rows of "side" with their key k, and n, which counts those of one key. */
static char *
numbered_rows(Comparison *comparison, const char *side)
{
	return psprintf("SELECT *, %s AS k, pg_catalog.row_number() OVER (ORDER BY %s%s)"
					OP("-") "pg_catalog.rank() OVER (ORDER BY %s) AS n FROM %s",
					comparison->key, comparison->key, comparison->order,
					comparison->key, side);
}

/*
 * How many windows are left out, and how many differences there are: rows of one side that the other hasn't; where there are floats, less those that
 * differ by rounding only: they are paired by their other columns, in the order
 * of the floats.
 */
static char *
comparison_command(ScQuery *query, Comparison *comparison, const char *from, const char *condition)
{
	StringInfoData command;
	char	   *left_out = comparison->left_out;
	char	   *compared = left_out ? psprintf("SELECT %s FROM", comparison->names) : "SELECT * FROM";
	char	   *where = left_out ? psprintf(" WHERE %s IS NOT TRUE", left_out) : "";

	initStringInfo(&command);
	appendStringInfo(&command,
					 "WITH result AS MATERIALIZED (SELECT %s%s FROM %s),"
					 " truth AS MATERIALIZED (SELECT %s%s FROM %s WHERE %s),"
					 " a AS MATERIALIZED (%s result%s EXCEPT ALL %s truth%s),"
					 " b AS MATERIALIZED (%s truth%s EXCEPT ALL %s result%s)",
					 comparison->result_columns, left_out ? comparison->result_window : "", sc_qualified_name(query->relid),
					 comparison->columns, left_out ? comparison->window : "", from, condition,
					 compared, where, compared, where, compared, where, compared, where);
	if (left_out)
		appendStringInfo(&command, " SELECT (SELECT pg_catalog.count(*) FROM"
						 " (SELECT w FROM result WHERE %s UNION SELECT w FROM truth WHERE %s) x),", left_out, left_out);
	else
		appendStringInfoString(&command, " SELECT 0::pg_catalog.int8,");
	appendStringInfoString(&command, " (SELECT pg_catalog.count(*) FROM a)" OP("+") "(SELECT pg_catalog.count(*) FROM b)");
	if (comparison->has_floats)
		appendStringInfo(&command,
						 OP("-") "(2" OP("*") "(SELECT pg_catalog.count(*) FROM (%s) x JOIN (%s) y"
						 " ON x.k" OP("=") "y.k AND (x.n" OP("-") "y.n)" OP("=") "0%s))",
						 numbered_rows(comparison, "a"), numbered_rows(comparison, "b"),
						 comparison->close);
	return command.data;
}

/* The caller needs SELECT on the result and on the definition. */
static void
check_select(Oid relid)
{
	AclResult	result = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/*
 * Where there are differences: an error if the stream has lost rows since the query processed them, and a
 * notice if it has others.  Nothing tells rows that were committed between create_query and its transaction's end
 * (they don't belong to the query) from those that no checkpoint covers yet.  Needs SPI.
 */
static void
explain_differences(ScQuery *query, int64 rows_in, Oid caller)
{
	bool		may_count = pg_class_aclcheck(query->stream_relid, caller, ACL_SELECT) == ACLCHECK_OK;
	int64		rows;

	if (sc_stream_by_relid(query->stream_relid, false)->applies)
	{
		ereport(NOTICE,
				(errmsg("rows and changes of stream \"%s\" that are not in a checkpoint yet count as differences",
						get_rel_name(query->stream_relid)),
				 errhint("Call stream_ckpt.sync() first.")));
		return;
	}
	if (SPI_execute(psprintf("SELECT pg_catalog.count(*) FROM %s", sc_qualified_name(query->stream_relid)),
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count the rows of the stream");
	rows = DatumGetInt64(sc_first_value(1, NULL));
	if (rows < rows_in)
		refuse(query,
			   may_count ?
			   psprintf("Rows of stream \"%s\" are gone: it has %lld, and the query has processed %lld.",
						get_rel_name(query->stream_relid), (long long) rows, (long long) rows_in) :
			   psprintf("Rows of stream \"%s\" that the query has processed are gone.", get_rel_name(query->stream_relid)),
			   "They were deleted or truncated, or a partition was dropped or detached. The result still counts them.");
	if (rows != rows_in && may_count)
		ereport(NOTICE,
				(errmsg("stream \"%s\" has %lld rows, of which the query had processed %lld at its last checkpoint",
						get_rel_name(query->stream_relid), (long long) rows, (long long) rows_in),
				 errdetail("Rows that are not in a checkpoint yet count as differences, and so do those that were committed before the transaction that created the query, or came with an attached partition."),
				 errhint("Call stream_ckpt.sync() first.")));
}

/* Fails if the times of commits that the query's windows are made of, if they are, aren't known.  Needs SPI. */
static void
check_commit_times(ScQuery *query, const ScDefinition *definition)
{
	if (!definition->processing_time || !sc_assigner_has_windows(&definition->window))
		return;
	if (!track_commit_timestamp)
		refuse(query, "Its windows are those of the times of commits, which the server keeps only if track_commit_timestamp is on.",
			   "Set track_commit_timestamp = on, and restart the server; rows that were committed before stay without.");
	if (SPI_execute(psprintf("SELECT pg_catalog.count(*) FROM %s WHERE stream_ckpt.commit_time(xmin) IS NULL",
							 sc_qualified_name(query->stream_relid)), false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look at the rows' commit times");
	refuse_counted(query, DatumGetInt64(sc_first_value(1, NULL)),
				   "rows of the stream have no known time of commit: track_commit_timestamp was off, or it is too long ago");
}

/* The command that counts the differences. */
static char *
make_command(ScQuery *query, ScDefinition *definition, ScOffset *offset)
{
	Relation	table = table_open(query->relid, AccessShareLock);
	Relation	view = table_open(query->definition, AccessShareLock);
	TupleDesc	names = RelationGetDescr(view);
	Comparison	comparison = make_comparison(definition, names, table, sc_result_columns(table, names));
	char	   *from;
	char	   *condition = truth_condition(query, definition, names, offset, &from);
	char	   *command;

	leave_out(&comparison, query, definition, names, RelationGetDescr(table), sc_result_columns(table, names));
	command = comparison_command(query, &comparison, from, condition);

	table_close(view, NoLock);
	table_close(table, NoLock);
	return command;
}

static void
tell_of_left_out(ScQuery *query, int64 windows)
{
	if (windows > 0)
		ereport(NOTICE,
				(errmsg_plural("%lld window of \"%s\" is left out", "%lld windows of \"%s\" are left out", (unsigned long) windows,
							   (long long) windows, get_rel_name(query->relid)),
				 errdetail("Rows of them came, changed or went when they were over; the result keeps what they had.")));
}

typedef struct Reading
{
	ScQuery    *query;
	ScDefinition *definition;
	ScOffset   *offset;
	char	   *command;		/* what comes of it */
} Reading;

/* An sc_subtransaction_try() step. */
static bool
read_step(void *arg)
{
	Reading    *reading = arg;

	reading->command = make_command(reading->query, reading->definition, reading->offset);
	if (SPI_prepare(reading->command, 0, NULL) == NULL)
		elog(ERROR, "could not prepare the comparison of the result with its definition");
	return true;
}

/* Throws on what isn't the fault of the text. */
static void
rethrow_others(ErrorData *error)
{
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION ||
		error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
		PG_RE_THROW();
}

/*
 * The same, of any query.  That of sessions is made of the definition's text, as PostgreSQL shows it of the view, and there is
 * some that PostgreSQL doesn't read again.  Needs SPI.
 */
static char *
readable_command(ScQuery *query, ScDefinition *definition, ScOffset *offset)
{
	Reading		reading = {.query = query,.definition = definition,.offset = offset};
	ErrorData  *error;

	if (definition->window.kind != SC_WINDOW_SESSION)
		return make_command(query, definition, offset);
	error = sc_subtransaction_try(read_step, &reading, rethrow_others);
	if (error != NULL)
		refuse(query, psprintf("The truth of sessions is made of the definition's text, and PostgreSQL cannot read the text that it shows of the view: %s.", error->message),
			   "Write what is there in another way, as an aggregate whose arguments are not VARIADIC; or compare with a plain query of your own that finds sessions by their gaps.");
	return reading.command;
}

/*
 * verify(query regclass) -> bigint; "query": the result table or the definition.
 * Runs as the query's owner, whose code the definition may call, never as the caller,
 * who may be a superuser; with the query's settings.
 */
Datum
stream_ckpt_verify(PG_FUNCTION_ARGS)
{
	ScQuery    *query;
	ScDefinition *definition;
	ScOffset   *offset;
	ScEnv		env;
	char	   *command;
	Oid			caller = GetUserId();
	int64		differences;

	sc_refuse_in_worker("verify()");
	query = sc_query_by_relid(PG_GETARG_OID(0), false);
	check_select(query->relid);
	check_select(query->definition);
	sc_env_enter(&env, query->owner, query->settings);
	definition = sc_definition_load(query);
	offset = check_counters(query, definition);
	SPI_connect();
	check_commit_times(query, definition);
	command = readable_command(query, definition, offset);
	if (SPI_execute(command, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not compare the result with its definition");
	tell_of_left_out(query, DatumGetInt64(sc_first_value(1, NULL)));
	differences = DatumGetInt64(sc_first_value(2, NULL));
	if (differences > 0 && definition->source != NULL)
		ereport(NOTICE,
				(errmsg("the truth of \"%s\" is that of the joined tables as they are now", get_rel_name(query->relid)),
				 errdetail("Rows of the stream were joined with what the tables held when they were processed. What has changed since counts as differences.")));
	if (differences > 0)
		explain_differences(query, offset->rows_in, caller);
	SPI_finish();
	sc_env_leave(&env);
	PG_RETURN_INT64(differences);
}
