/*-------------------------------------------------------------------------
 * session.c
 *	  session(ts, gap) as a plain function: there is none, as a session is not a matter of one row.  And the
 *	  batch truth of a query with sessions, which verify() compares with.
 *
 * A definition names session() in FROM.  Its rows by a plain query are those of gaps and islands: the stream's rows that
 * WHERE lets through, by key in order of time; where one is more than the gap behind the one before it, a
 * session begins.  So the call in the definition's text is replaced by a lookup of the row's session, by the row's
 * place in the table.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "query/closed.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#define OP(operator) " OPERATOR(pg_catalog." operator ") "

PG_FUNCTION_INFO_V1(stream_ckpt_session);

Datum
stream_ckpt_session(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("session() cannot be run as a plain function"),
			 errdetail("Where a session begins and ends depends on all rows of its key."),
			 errhint("Use it in FROM of a continuous query, and read the result table; stream_ckpt.verify() compares that with the rows of the stream.")));
	PG_RETURN_NULL();
}

/* The call of the window function among items of FROM, which has a window function; NULL: it isn't one of these. */
static FuncCall *
find_call(Node *item)
{
	if (IsA(item, JoinExpr))
	{
		FuncCall   *call = find_call(((JoinExpr *) item)->larg);

		return call != NULL ? call : find_call(((JoinExpr *) item)->rarg);
	}
	if (!IsA(item, RangeFunction))
		return NULL;
	return castNode(FuncCall, linitial(linitial_node(List, ((RangeFunction *) item)->functions)));
}

/* What an item of FROM calls the stream; NULL: it isn't there.  A view's text names a table as it is called now. */
static const char *
find_stream(Node *item, Oid relid)
{
	RangeVar   *table = (RangeVar *) item;

	if (IsA(item, JoinExpr))
	{
		const char *name = find_stream(((JoinExpr *) item)->larg, relid);

		return name != NULL ? name : find_stream(((JoinExpr *) item)->rarg, relid);
	}
	if (!IsA(item, RangeVar) || RangeVarGetRelid(table, NoLock, true) != relid)
		return NULL;
	return table->alias != NULL ? table->alias->aliasname : table->relname;
}

/* Where the call in a definition's text begins, and what the stream is called there. */
static int
call_location(const char *text, Oid relid, const char **stream)
{
	List	   *statements = raw_parser(text, RAW_PARSE_DEFAULT);
	SelectStmt *select = castNode(SelectStmt, linitial_node(RawStmt, statements)->stmt);
	FuncCall   *call = NULL;
	ListCell   *lc;

	*stream = NULL;
	foreach(lc, select->fromClause)
	{
		if (call == NULL)
			call = find_call(lfirst(lc));
		if (*stream == NULL)
			*stream = find_stream(lfirst(lc), relid);
	}
	if (call == NULL || *stream == NULL)
		elog(ERROR, "no window function of a stream in a definition");
	return call->location;
}

/* The end of a call that begins at "at": behind the parenthesis that closes it.  The text was made by the server. */
static const char *
call_end(const char *at)
{
	int			depth = 0;
	char		quote = 0;

	for (; *at != '\0'; at++)
	{
		if (quote != 0)
			quote = *at == quote ? 0 : quote;
		else if (*at == '\'' || *at == '"')
			quote = *at;
		else if (*at == '(')
			depth++;
		else if (*at == ')' && --depth == 0)
			return at + 1;
	}
	elog(ERROR, "a call in a definition has no end");
}

/* The stream in the range table of the definition. */
static int
stream_varno(const ScDefinition *definition)
{
	int			varno = 0;
	ListCell   *lc;

	foreach(lc, definition->written.query->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		varno++;
		/* a view's rule has two of its own before (PostgreSQL 15) */
		if (rte->rtekind == RTE_RELATION && rte->relid == definition->stream_relid)
			return varno;
	}
	elog(ERROR, "no stream in a definition");
}

/* An expression over the stream, which is called "s". */
static char *
deparsed(ScDefinition *definition, Node *node)
{
	node = copyObject(node);
	ChangeVarNodes(node, stream_varno(definition), 1, 0);
	return deparse_expression(node, deparse_context_for("s", definition->stream_relid), true, false);
}

/* The event time of a row of "s". */
static const char *
event_time(const ScDefinition *definition)
{
	if (definition->processing_time)
		return "stream_ckpt.commit_time(s.xmin)";
	return psprintf("s.%s", quote_identifier(get_attname(definition->stream_relid, definition->event_time_attno, false)));
}

/*
 * The sessions of the stream's rows: part and place (tableoid, ctid), and the columns of a window.  "closed" is a
 * condition on these.
 */
static char *
islands(ScDefinition *definition, const char *closed)
{
	StringInfoData keys;
	StringInfoData where;
	StringInfoData sql;
	const char *partition = definition->written.keys == NIL ? "" : "PARTITION BY ";
	const char *type = definition->event_time_type == TIMESTAMPTZOID ? "timestamptz" : "timestamp";
	const char *time = event_time(definition);
	char	   *gap = psprintf("'" INT64_FORMAT " microseconds'::pg_catalog.interval", definition->window.size);
	char	   *names = pstrdup("");
	int			n = 0;
	ListCell   *lc;

	initStringInfo(&keys);
	initStringInfo(&where);
	initStringInfo(&sql);
	foreach(lc, definition->written.keys)
	{
		appendStringInfo(&keys, ", %s AS k%d", deparsed(definition, lfirst(lc)), ++n);
		names = psprintf("%s%sk%d", names, n > 1 ? ", " : "", n);
	}
	foreach(lc, definition->written.quals)
		appendStringInfo(&where, " AND (%s)", deparsed(definition, lfirst(lc)));

	appendStringInfo(&sql, "SELECT * FROM (SELECT part, place,"
					 " pg_catalog.min(ts) OVER w AS window_start,"
					 " pg_catalog.max(ts) OVER w" OP("+") "%s AS window_end,"
					 " pg_catalog.max(ts) OVER w" OP("+") "(%s" OP("-") "'1 microsecond'::pg_catalog.interval) AS window_time"
					 " FROM (SELECT *, pg_catalog.sum(opens) OVER (%s%s ORDER BY ts ROWS UNBOUNDED PRECEDING) AS island",
					 gap, gap, partition, names);
	appendStringInfo(&sql, " FROM (SELECT *, CASE WHEN pg_catalog.lag(ts) OVER (%s%s ORDER BY ts)" OP("+") "%s" OP(">=") "ts"
					 " THEN 0 ELSE 1 END AS opens", partition, names, gap);
	appendStringInfo(&sql, " FROM (SELECT s.tableoid AS part, s.ctid AS place, %s::pg_catalog.%s AS ts%s FROM %s s"
					 " WHERE pg_catalog.isfinite(%s)%s) r) o) i",
					 time, type, keys.data, sc_qualified_name(definition->stream_relid), time, where.data);
	appendStringInfo(&sql, " WINDOW w AS (PARTITION BY %s%sisland)) x WHERE %s", names, n > 0 ? ", " : "", closed);
	return sql.data;
}

/* See api_internal.h. */
char *
sc_session_truth(const ScQuery *query, ScDefinition *definition, const char *closed)
{
	Datum		view = DirectFunctionCall1(pg_get_viewdef, ObjectIdGetDatum(query->definition));
	char	   *view_text = TextDatumGetCString(view);
	const char *alias;
	int			at = call_location(view_text, definition->stream_relid, &alias);
	const char *rest = call_end(view_text + at);
	Size		len = strlen(view_text);

	alias = quote_identifier(alias);
	if (len > 0 && view_text[len - 1] == ';')
		view_text[len - 1] = '\0';
	view_text[at] = '\0';
	return psprintf("(WITH stream_ckpt_islands AS MATERIALIZED (%s) %s"
					"(SELECT i.window_start, i.window_end, i.window_time FROM stream_ckpt_islands i"
					" WHERE i.place" OP("=") "%s.ctid AND i.part" OP("=") "%s.tableoid)%s) stream_ckpt_truth",
					islands(definition, closed), view_text, alias, alias, rest);
}

/*
 * Who changed a session that was over long ago didn't know how far it reaches (exec/sessions.c); and rows that came late, or
 * stayed in the table, may be of one with those of others now.  All of these touch what is known, within the gap.
 */
void
sc_session_widen(ScDefinition *definition, ScRangeSet *changed)
{
	Oid			type = definition->event_time_type;
	StringInfoData sql;

	if (changed->n == 0)
		return;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT pg_catalog.min(i.window_start)::pg_catalog.%1$s, pg_catalog.max(i.window_end)::pg_catalog.%1$s"
					 " FROM (%2$s) i JOIN (VALUES ", type == TIMESTAMPTZOID ? "timestamptz" : "timestamp", islands(definition, "true"));
	for (int r = 0; r < changed->n; r++)
		appendStringInfo(&sql, "%s(%s, %s)", r > 0 ? ", " : "", sc_sql_literal(type, Int64GetDatum(changed->ranges[r].start)),
						 sc_sql_literal(type, Int64GetDatum(changed->ranges[r].end)));
	appendStringInfoString(&sql, ") r (a, b) ON i.window_start" OP("<=") "r.b AND i.window_end" OP(">=") "r.a GROUP BY r.a, r.b");
	if (SPI_execute(sql.data, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for sessions");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;
		int64		start = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		int64		end = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));

		sc_range_set_add(changed, start, end);
	}
}
