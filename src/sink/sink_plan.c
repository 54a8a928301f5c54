/*-------------------------------------------------------------------------
 * sink_plan.c
 *	  The general way into a result table: prepared statements, one row each.
 *
 * For tables with triggers, rules, row security, partitions, columns of the
 * user's own, and for owners with odd privileges: everything that the executor
 * knows how to do and the direct way doesn't.
 *
 *		I	INSERT INTO t (columns) VALUES ($1, ...)
 *		U	... ON CONFLICT (key) DO UPDATE SET column = EXCLUDED.column, ...
 *		D	DELETE FROM t WHERE key = $1 AND ... (of a table with one row: all of them); one statement for each
 *			combination of keys that are NULL, since "IS NULL" is a condition
 *			that an index understands and "IS NOT DISTINCT FROM" isn't
 *
 * Plans are kept per query, until it is dropped.  They revalidate themselves
 * when the table changes, but hold its names: where the signature (names, types
 * and keys of the columns) is another one, they are thrown away.
 *
 * Between begin and end the sink holds an SPI connection: other users of SPI
 * must connect and finish in between.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "commands/trigger.h"
#include "exec/engine.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "sink/sink_internal.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

typedef struct SinkPlan
{
	char		op;
	uint32		null_keys;		/* bit i: key column i is NULL; 'D' only */
	SPIPlanPtr	plan;			/* kept */
} SinkPlan;

/* An entry of the cache. */
typedef struct SinkPlans
{
	int64		query_id;		/* hash key */
	char	   *signature;		/* in plan_context; NULL: none yet */
	List	   *plans;			/* of SinkPlan *; in plan_context */
} SinkPlans;

static HTAB *plan_cache = NULL;
static MemoryContext plan_context = NULL;

StaticAssertDecl(INDEX_MAX_KEYS <= 32, "null_keys is too small");

/* The query's entry of the cache, made where it isn't there. */
static SinkPlans *
cache_entry(int64 query_id)
{
	SinkPlans  *entry;
	bool		found;

	if (plan_cache == NULL)
	{
		HASHCTL		ctl = {0};

		if (plan_context == NULL)
			plan_context = AllocSetContextCreate(TopMemoryContext,
												 "stream_ckpt sink plans",
												 ALLOCSET_SMALL_SIZES);
		ctl.keysize = sizeof(int64);
		ctl.entrysize = sizeof(SinkPlans);
		ctl.hcxt = plan_context;
		plan_cache = hash_create("stream_ckpt sink plans", 16, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(plan_cache, &query_id, HASH_ENTER, &found);
	if (!found)
	{
		entry->signature = NULL;
		entry->plans = NIL;
	}
	return entry;
}

/* The table's name as statements spell it. */
static char *
table_name(ScSink *sink)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(sink->rel)),
									  RelationGetRelationName(sink->rel));
}

/* The name of the table's column for a column of the rows, quoted. */
static const char *
column_name(ScSink *sink, int column)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(sink->rel),
										  sink->attnos[column] - 1);

	return quote_identifier(NameStr(att->attname));
}

/* Everything that the statements' texts depend on. */
static char *
make_signature(ScSink *sink)
{
	const SinkKey *key = sc_sink_key(sink, true);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%u %s", RelationGetRelid(sink->rel), table_name(sink));
	for (int i = 0; i < sink->row_desc->natts; i++)
		appendStringInfo(&buf, " %s %u", column_name(sink, i),
						 TupleDescAttr(sink->row_desc, i)->atttypid);
	for (int i = 0; key != NULL && i < key->ncolumns; i++)
		appendStringInfo(&buf, " %d", key->columns[i]);
	return buf.data;
}

/* An entry's plans and its signature. */
static void
throw_away(SinkPlans *entry)
{
	ListCell   *lc;
	List	   *plans = entry->plans;

	entry->plans = NIL;
	if (entry->signature != NULL)
		pfree(entry->signature);
	entry->signature = NULL;
	foreach(lc, plans)
		SPI_freeplan(((SinkPlan *) lfirst(lc))->plan);
	list_free_deep(plans);
}

void
sc_sink_forget(int64 query_id)
{
	SinkPlans  *entry = plan_cache == NULL ? NULL :
		hash_search(plan_cache, &query_id, HASH_FIND, NULL);

	if (entry == NULL)
		return;
	throw_away(entry);
	(void) hash_search(plan_cache, &query_id, HASH_REMOVE, NULL);
}

/*
 * SET CONSTRAINTS ALL IMMEDIATE, until the transaction ends or this is rolled back.  What is deferred would run
 * when all queries' parts commit: too late to concern this query alone, and not as its owner.
 * (PostgreSQL refuses to defer a trigger here, so code that sets it back gets an error.)
 */
static void
defer_nothing(void)
{
	ConstraintsSetStmt *stmt = makeNode(ConstraintsSetStmt);

	AfterTriggerSetState(stmt);
	pfree(stmt);
}

/*
 * Connects to SPI and finds the query's plans.  Called in the sink's memory
 * context, which stays the current one.
 */
void
sc_sink_plans_begin(ScSink *sink)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	char	   *signature = make_signature(sink);

	sink->plans = cache_entry(sink->query->query_id);
	if (sink->plans->signature == NULL ||
		strcmp(sink->plans->signature, signature) != 0)
	{
		throw_away(sink->plans);
		sink->plans->signature = MemoryContextStrdup(plan_context, signature);
	}

	defer_nothing();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(oldcontext);
}

/* Ends the SPI connection; plans stay. */
void
sc_sink_plans_end(ScSink *sink)
{
	MemoryContext oldcontext = CurrentMemoryContext;

	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	MemoryContextSwitchTo(oldcontext);
}

/* Is this column of the rows one of the key's, and of rows with one key the same to the byte? */
static bool
is_same_in_key(ScSink *sink, const SinkKey *key, int column)
{
	for (int i = 0; i < key->ncolumns; i++)
	{
		if (key->columns[i] == column)
			return key->eq_operators[i] < FirstNormalObjectId &&
				sc_key_equal_is_image(TupleDescAttr(sink->row_desc, column)->atttypid, key->eq_operators[i],
									  key->collations[i]);
	}
	return false;
}

/* INSERT ... VALUES, without anything about conflicts. */
static void
append_insert(StringInfo sql, ScSink *sink)
{
	appendStringInfo(sql, "INSERT INTO %s (", table_name(sink));
	for (int i = 0; i < sink->row_desc->natts; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", column_name(sink, i));
	appendStringInfoString(sql, ") OVERRIDING SYSTEM VALUE VALUES (");
	for (int i = 0; i < sink->row_desc->natts; i++)
		appendStringInfo(sql, "%s$%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoChar(sql, ')');
}

/* ON CONFLICT (key) DO UPDATE, or DO NOTHING where there is nothing but the key. */
static void
append_on_conflict(StringInfo sql, ScSink *sink)
{
	const SinkKey *key = sc_sink_key(sink, false);
	int			nset = 0;

	appendStringInfoString(sql, " ON CONFLICT (");
	for (int i = 0; i < key->ncolumns; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "",
						 key->one_row ? "(true)" : column_name(sink, key->columns[i]));
	appendStringInfoString(sql, ") DO ");

	for (int i = 0; i < sink->row_desc->natts; i++)
	{
		const char *name = column_name(sink, i);

		if (key->one_row || !is_same_in_key(sink, key, i))
			appendStringInfo(sql, "%s%s = EXCLUDED.%s",
							 nset++ == 0 ? "UPDATE SET " : ", ", name, name);
	}
	if (nset == 0)
		appendStringInfoString(sql, "NOTHING");
}

/* OPERATOR(schema.name) of an operator, whatever the search_path is. */
static void
append_operator(StringInfo sql, Oid opno)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(opno));
	Form_pg_operator form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", opno);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	appendStringInfo(sql, "OPERATOR(%s.%s)",
					 quote_identifier(get_namespace_name(form->oprnamespace)),
					 NameStr(form->oprname));
	ReleaseSysCache(tuple);
}

/* DELETE by the key. */
static void
append_delete(StringInfo sql, ScSink *sink, uint32 null_keys)
{
	const SinkKey *key = sc_sink_key(sink, false);

	appendStringInfo(sql, "DELETE FROM %s", table_name(sink));
	if (key->one_row)
		return;
	appendStringInfoString(sql, " WHERE ");
	for (int i = 0; i < key->ncolumns; i++)
	{
		appendStringInfo(sql, "%s%s ", i > 0 ? " AND " : "",
						 column_name(sink, key->columns[i]));
		if (null_keys & ((uint32) 1 << i))
			appendStringInfoString(sql, "IS NULL");
		else
		{
			append_operator(sql, key->eq_operators[i]);
			appendStringInfo(sql, " $%d", key->columns[i] + 1);
		}
	}
}

/* Prepares a statement and adds it to the entry. */
static SPIPlanPtr
prepare(ScSink *sink, char op, uint32 null_keys)
{
	int			natts = sink->row_desc->natts;
	Oid		   *types = palloc(natts * sizeof(Oid));
	StringInfoData sql;
	SPIPlanPtr	plan;
	SinkPlan   *entry;
	MemoryContext oldcontext;

	for (int i = 0; i < natts; i++)
		types[i] = TupleDescAttr(sink->row_desc, i)->atttypid;

	initStringInfo(&sql);
	if (op == SC_RESULT_DELETE)
		append_delete(&sql, sink, null_keys);
	else
		append_insert(&sql, sink);
	if (op == SC_RESULT_UPSERT)
		append_on_conflict(&sql, sink);

	plan = SPI_prepare(sql.data, natts, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", sql.data,
			 SPI_result_code_string(SPI_result));

	oldcontext = MemoryContextSwitchTo(plan_context);
	entry = palloc(sizeof(SinkPlan));
	entry->op = op;
	entry->null_keys = null_keys;
	entry->plan = plan;
	sink->plans->plans = lappend(sink->plans->plans, entry);
	MemoryContextSwitchTo(oldcontext);
	return plan;
}

/* The plan for an operation, prepared where it isn't yet. */
static SPIPlanPtr
plan_for(ScSink *sink, char op, uint32 null_keys)
{
	ListCell   *lc;

	foreach(lc, sink->plans->plans)
	{
		SinkPlan   *entry = lfirst(lc);

		if (entry->op == op && entry->null_keys == null_keys)
			return entry->plan;
	}
	return prepare(sink, op, null_keys);
}

/* Which columns of the key are NULL in the current row. */
static uint32
null_keys_of_row(ScSink *sink)
{
	const SinkKey *key = sc_sink_key(sink, false);
	uint32		null_keys = 0;

	for (int i = 0; i < key->ncolumns && !key->one_row; i++)
	{
		if (sink->row->tts_isnull[key->columns[i]])
			null_keys |= (uint32) 1 << i;
	}
	return null_keys;
}

/* Writes the current row. */
void
sc_sink_plans_put(ScSink *sink, char op)
{
	int			natts = sink->row_desc->natts;
	MemoryContext oldcontext = MemoryContextSwitchTo(sink->context);
	char	   *nulls = palloc(natts);
	uint32		null_keys = op == SC_RESULT_DELETE ? null_keys_of_row(sink) : 0;
	SPIPlanPtr	plan;
	int			rc;

	if (op != SC_RESULT_INSERT && op != SC_RESULT_UPSERT && op != SC_RESULT_DELETE)
		elog(ERROR, "unknown result operation %d", op);

	plan = plan_for(sink, op, null_keys);
	for (int i = 0; i < natts; i++)
		nulls[i] = sink->row->tts_isnull[i] ? 'n' : ' ';
	rc = SPI_execute_plan(plan, sink->row->tts_values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "could not write a result row: %s", SPI_result_code_string(rc));
	SPI_freetuptable(SPI_tuptable);
	pfree(nulls);
	MemoryContextSwitchTo(oldcontext);
}
