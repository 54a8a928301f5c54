/*-------------------------------------------------------------------------
 * sink_difference.c
 *	  Making a result table what another table is, by changing in it what differs: a query takes another one's place.
 *
 * As REFRESH MATERIALIZED VIEW CONCURRENTLY does, but that a row which differs is updated: rows that refer to it, and
 * triggers, see the row that it is.  Rows are matched by the key of the result; where nothing identifies rows, by all
 * that they are, as often as they are there.  What differs is told byte by byte.
 *
 *		SELECT what differs		one join of both tables, by a cursor: its snapshot doesn't see what is changed here
 *		DELETE, UPDATE, INSERT	row by row, prepared: rows that are gone first, then in the order of the key
 *
 * The rule: nobody else writes into the table meanwhile.  The caller holds ShareRowExclusiveLock on it, taken before the
 * transaction's latest snapshot.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/limit.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "query/closed.h"
#include "sink/sink_internal.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#define FETCH_ROWS	1000

/* Columns of the cursor before those of the rows. */
#define DIFFERENCE_PART		1	/* tableoid and ctid of the table's row; NULL: there is none, it is new */
#define DIFFERENCE_PLACE	2
#define DIFFERENCE_HERE		3	/* NULL: the other table hasn't got it, it is gone */
#define DIFFERENCE_COLUMNS	3

/* How rows are known again. */
typedef struct Matching
{
	int			ncolumns;		/* 0: by all columns, as text; or one_row */
	int		   *columns;		/* of the rows, from 0 */
	bool		one_row;
	bool		numbered;		/* nothing keeps the table from having several of one key */
} Matching;

/* One of the two tables, as the statement needs it. */
typedef struct Side
{
	const ScSink *sink;
	Oid			relid;
	bool		is_result;		/* its columns may have other names */
	const char *kept;			/* the condition on rows that don't count; NULL: all do */
} Side;

static const char *
column_of(const Side *side, int column)
{
	TupleDesc	desc = side->is_result ? RelationGetDescr(side->sink->rel) : side->sink->row_desc;
	AttrNumber	attno = side->is_result ? side->sink->attnos[column] : column + 1;

	return quote_identifier(NameStr(TupleDescAttr(desc, attno - 1)->attname));
}

static char *
table_of(const Side *side)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(side->relid)), get_rel_name(side->relid));
}

/* A type without an order is compared as its text. */
static const char *
comparable(const ScSink *sink, int column)
{
	Oid			type = TupleDescAttr(sink->row_desc, column)->atttypid;

	return OidIsValid(lookup_type_cache(type, TYPECACHE_CMP_PROC)->cmp_proc) ? "" : "::pg_catalog.text";
}

/* All columns, separated by commas. */
static char *
all_columns(const Side *side)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < side->sink->row_desc->natts; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", column_of(side, i));
	return list.data;
}

/* What rows are matched by, separated by commas. */
static char *
key_columns(const Side *side, const Matching *matching)
{
	StringInfoData list;

	if (matching->one_row)
		return pstrdup("true");
	if (matching->ncolumns == 0)
		return psprintf("ROW(%s)::pg_catalog.text", all_columns(side));
	initStringInfo(&list);
	for (int i = 0; i < matching->ncolumns; i++)
		appendStringInfo(&list, "%s%s%s", i > 0 ? ", " : "", column_of(side, matching->columns[i]),
						 comparable(side->sink, matching->columns[i]));
	return list.data;
}

/* The rows of one side: "r" is the row, "k" its key. */
static void
append_side(StringInfo sql, const Side *side, const Matching *matching)
{
	char	   *key = key_columns(side, matching);

	appendStringInfo(sql, "(SELECT ROW(%s) AS r, ROW(%s", all_columns(side), key);
	if (matching->numbered)
		appendStringInfo(sql, ", pg_catalog.row_number() OVER (PARTITION BY %s)", key);
	appendStringInfoString(sql, ") AS k");
	if (side->is_result)
		appendStringInfoString(sql, ", tableoid AS part, ctid AS place");
	else
	{
		appendStringInfoString(sql, ", true AS here");
		for (int i = 0; i < side->sink->row_desc->natts; i++)
			appendStringInfo(sql, ", %s AS c%d", column_of(side, i), i + 1);
	}
	appendStringInfo(sql, " FROM %s", table_of(side));
	if (side->kept)
		appendStringInfo(sql, " WHERE (%s) IS NOT TRUE", side->kept);
	appendStringInfoChar(sql, ')');
}

/* The statement whose rows say what differs. */
static char *
difference(const Side *result, const Side *from, const Matching *matching)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT o.part, o.place, n.here");
	for (int i = 0; i < from->sink->row_desc->natts; i++)
		appendStringInfo(&sql, ", n.c%d", i + 1);
	appendStringInfoString(&sql, " FROM ");
	append_side(&sql, result, matching);
	appendStringInfoString(&sql, " o FULL JOIN ");
	append_side(&sql, from, matching);
	appendStringInfoString(&sql, " n ON o.k OPERATOR(pg_catalog.=) n.k"
						   " WHERE o.place IS NULL OR n.here IS NULL OR o.r OPERATOR(pg_catalog.*<>) n.r"
						   " ORDER BY n.here IS NOT NULL, COALESCE(n.k, o.k)");
	return sql.data;
}

/*
 * The result's key: the columns of its unique index, or those that identify rows by the definition, which nothing keeps
 * unique then.
 */
static Matching
matching_of(ScSink *sink, const ScDefinition *definition)
{
	Matching	matching = {.numbered = true,.columns = palloc(sizeof(int) * Max(definition->nresult_key, 1))};

	matching.one_row = definition->one_row;
	for (int i = 0; i < definition->nresult_key; i++)
		matching.columns[matching.ncolumns++] = definition->result_key[i] - 1;
	if (matching.one_row || matching.ncolumns > 0)
		matching.numbered = sc_sink_key(sink, true) == NULL;
	return matching;
}

/* The column of the rows that windows of sessions end with, from 0; -1: none does. */
static int
session_end(const ScDefinition *definition)
{
	ListCell   *lc;

	foreach(lc, definition->upper ? NIL : definition->target)
	{
		const TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (IsA(target->expr, Var) && ((Var *) target->expr)->varattno == SC_WINDOW_END)
			return target->resno - 1;
	}
	return -1;
}

/* The condition for rows of windows that end by then; NULL: there are none, or nothing tells. */
static char *
kept_rows(const Side *side, const ScDefinition *definition, int64 until)
{
	int			column;

	if (until == PG_INT64_MIN || !sc_assigner_has_windows(&definition->window) || definition->stateless)
		return NULL;
	if (definition->window.kind == SC_WINDOW_SESSION)
	{
		column = session_end(definition);
		return column < 0 ? NULL :
			psprintf("%s OPERATOR(pg_catalog.<=) %s", column_of(side, column),
					 sc_sql_literal(definition->event_time_type, Int64GetDatum(until)));
	}
	if (definition->result_window == 0)
		return NULL;
	return sc_definition_closed(definition, column_of(side, definition->result_window - 1), until);
}

/* ---------- changing ---------- */

/* The statements that change a row, with parameters as the cursor's columns. */
typedef struct Changes
{
	bool		may_miss;		/* a trigger may have a row stay as it is */
	SPIPlanPtr	remove;
	SPIPlanPtr	update;
	SPIPlanPtr	insert;
} Changes;

static SPIPlanPtr
prepare(const Side *from, const char *sql)
{
	int			n = from->sink->row_desc->natts;
	Oid		   *types = palloc(sizeof(Oid) * (n + DIFFERENCE_COLUMNS));
	SPIPlanPtr	plan;

	types[DIFFERENCE_PART - 1] = OIDOID;
	types[DIFFERENCE_PLACE - 1] = TIDOID;
	types[DIFFERENCE_HERE - 1] = BOOLOID;
	for (int i = 0; i < n; i++)
		types[DIFFERENCE_COLUMNS + i] = TupleDescAttr(from->sink->row_desc, i)->atttypid;
	plan = SPI_prepare(sql, n + DIFFERENCE_COLUMNS, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return plan;
}

/* Can a trigger of the table, or of a partition, have a row stay as it is, or not come? */
static bool
has_row_triggers(Relation relation)
{
	const TriggerDesc *triggers = relation->trigdesc;

	return relation->rd_rel->relkind != RELKIND_RELATION ||
		(triggers != NULL && (triggers->trig_insert_before_row || triggers->trig_update_before_row || triggers->trig_delete_before_row));
}

static Changes
prepare_changes(const Side *result, const Side *from)
{
	const char *where = "WHERE tableoid OPERATOR(pg_catalog.=) $1 AND ctid OPERATOR(pg_catalog.=) $2";
	char	   *table = table_of(result);
	Changes		changes;
	StringInfoData update;
	StringInfoData values;

	initStringInfo(&update);
	initStringInfo(&values);
	for (int i = 0; i < from->sink->row_desc->natts; i++)
	{
		appendStringInfo(&update, "%s%s = $%d", i > 0 ? ", " : "", column_of(result, i), DIFFERENCE_COLUMNS + i + 1);
		appendStringInfo(&values, "%s$%d", i > 0 ? ", " : "", DIFFERENCE_COLUMNS + i + 1);
	}
	changes.may_miss = has_row_triggers(result->sink->rel);
	changes.remove = prepare(from, psprintf("DELETE FROM %s %s", table, where));
	changes.update = prepare(from, psprintf("UPDATE %s SET %s %s", table, update.data, where));
	changes.insert = prepare(from, psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE VALUES (%s)", table,
											all_columns(result), values.data));
	return changes;
}

/* Changes the rows that were fetched. */
static void
change_rows(const Changes *changes, SPITupleTable *rows, uint64 n)
{
	int			natts = rows->tupdesc->natts;
	Datum	   *values = palloc(sizeof(Datum) * natts);
	bool	   *isnull = palloc(sizeof(bool) * natts);
	char	   *nulls = palloc(natts);

	for (uint64 row = 0; row < n; row++)
	{
		SPIPlanPtr	plan;
		int			result;

		heap_deform_tuple(rows->vals[row], rows->tupdesc, values, isnull);
		for (int i = 0; i < natts; i++)
			nulls[i] = isnull[i] ? 'n' : ' ';
		plan = isnull[DIFFERENCE_HERE - 1] ? changes->remove :
			isnull[DIFFERENCE_PLACE - 1] ? changes->insert : changes->update;
		result = SPI_execute_plan(plan, values, nulls, false, 0);
		if (result < 0)
			elog(ERROR, "could not change a row of a result table: %s", SPI_result_code_string(result));
		if (SPI_processed == 0 && !changes->may_miss)
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("a row of the result table was changed by something else while its query was replaced"),
					 errhint("Look for triggers and foreign keys of the result table that change other rows of it.")));
		CHECK_FOR_INTERRUPTS();
	}
	pfree(values);
	pfree(isnull);
	pfree(nulls);
}

/* Comparing is work, too: as much as entries of state of that size. */
static void
allow_for(Relation relation)
{
	if (RELKIND_HAS_STORAGE(relation->rd_rel->relkind))
		sc_limit_add((int64) RelationGetNumberOfBlocks(relation) * (BLCKSZ / SC_LIMIT_UNIT_BYTES));
}

int64
sc_sink_become(ScSink *sink, Relation table, const ScDefinition *definition, int64 kept_until)
{
	Side		result = {.sink = sink,.relid = RelationGetRelid(sink->rel),.is_result = true};
	Side		from = {.sink = sink,.relid = RelationGetRelid(table)};
	MemoryContext old = CurrentMemoryContext;
	Matching	matching = matching_of(sink, definition);
	int64		changed = 0;
	Changes		changes;
	SPIPlanPtr	plan;
	Portal		portal;

	result.kept = kept_rows(&result, definition, kept_until);
	from.kept = kept_rows(&from, definition, kept_until);
	allow_for(sink->rel);
	allow_for(table);
	/* it would hide rows from the owner of a table that forces it */
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	plan = SPI_prepare(difference(&result, &from, &matching), 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not compare two result tables: %s", SPI_result_code_string(SPI_result));
	changes = prepare_changes(&result, &from);
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	for (;;)
	{
		uint64		n;
		SPITupleTable *rows;

		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		n = SPI_processed;
		rows = SPI_tuptable;
		if (n == 0)
			break;
		sc_limit_add(n);
		change_rows(&changes, rows, n);
		SPI_freetuptable(rows);
		changed += n;
	}
	SPI_cursor_close(portal);
	SPI_finish();
	MemoryContextSwitchTo(old);
	return changed;
}
