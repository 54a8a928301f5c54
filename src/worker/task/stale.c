/*-------------------------------------------------------------------------
 * stale.c
 *	  Compiling a query again when something that it is made of has changed: its view, its
 *	  functions, its types, the stream's row type.
 *
 * The rule: no row of a transaction that made a change, or that began after it was committed, is
 * computed as before it, by whatever process.  A change is told (invalidation messages) before its
 * command returns, and is heard when a transaction begins: so at the first one after the
 * message with the row was received.  Nothing is looked up when it is heard; the query is only
 * marked, and compiled again before the next message, transaction end or barrier.
 *
 * Which queries: those whose view, or one of whose types, has changed are known by oid.  What
 * functions that somebody wrote depend on isn't known (query/depends.c), so a query with one
 * of them is compiled again for any change of a function, operator, cast, aggregate, schema or
 * domain.  Those are rare; tables, of which sessions may make one for each of their
 * transactions, are none of them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/env.h"
#include "catalog/catalog.h"
#include "catalog/indexing.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_namespace.h"
#include "common/hashfn.h"
#include "query/analyze.h"
#include "query/stream_key.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
#include "worker/task/task_internal.h"

/* Rows of a catalog among which are some that functions may depend on. */
typedef struct Rows
{
	uint64		heard;			/* changes */
	uint64		seen;			/* "heard" when the next was taken */
	uint64		fingerprint;	/* of those that matter */
	uint64		(*take) (void);
} Rows;

static uint64 fingerprint_domains(void);
static uint64 fingerprint_schemas(void);

static uint64 changes;			/* heard of; 0: nothing is watched yet */
static Rows constraints = {.take = fingerprint_domains};
static Rows schemas = {.take = fingerprint_schemas};

/* ---------- hearing of changes ---------- */

static void
mark(ScTaskQuery *query, ScStale stale)
{
	query->stale = Max(query->stale, stale);
}

/* Marks the queries that are made of more than what came with the server; the others as "others". */
static void
mark_all(ScStale others)
{
	ListCell   *lc;

	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		mark(query, query->definition->has_user_parts ? SC_STALE : others);
		sc_engine_source_changed(query->engine, InvalidOid);
	}
}

/* Functions, operators, casts, roles... that functions may depend on. */
static void
hear_of_code(Datum arg, int cacheid, uint32 hash)
{
	changes++;
	mark_all(SC_FRESH);
}

/* What only plans depend on: whose row-level security it is. */
static void
hear_of_plans(Datum arg, int cacheid, uint32 hash)
{
	ListCell   *lc;

	foreach(lc, sc_task_queries())
		sc_engine_source_changed(((ScTaskQuery *) lfirst(lc))->engine, InvalidOid);
}

/* What text search does with constants depends on it, whoever made it. */
static void
hear_of_text_search(Datum arg, int cacheid, uint32 hash)
{
	changes++;
	mark_all(SC_STALE);
}

/* Constraints: mostly it is one of a table's; schemas: mostly of a session's temporary tables. */
static void
hear_of_rows(Datum arg, int cacheid, uint32 hash)
{
	changes++;
	((Rows *) DatumGetPointer(arg))->heard++;
}

/* Mostly it is a table's. */
static void
hear_of_type(Datum arg, int cacheid, uint32 hash)
{
	ListCell   *lc;

	changes++;
	if (hash == 0)
	{
		mark_all(SC_FRESH);
		return;
	}
	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		for (int i = 0; i < list_length(query->definition->types); i++)
		{
			if (query->type_hashes[i] == hash)
				mark(query, SC_STALE);
		}
	}
}

/* 0: any, as so much was told that it was lost. */
static void
hear_of_relation(Datum arg, Oid relid)
{
	ListCell   *lc;

	changes++;
	if (relid == InvalidOid)
	{
		constraints.heard++;
		mark_all(SC_MAYBE_STALE);
		return;
	}
	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);

		sc_engine_source_changed(query->engine, relid);
		/* of the stream it is mostly told that somebody has analyzed it */
		if (query->query->definition == relid ||
			((query->definition->whole_row || query->definition->row_key) && query->query->stream_relid == relid))
			mark(query, SC_MAYBE_STALE);
		else if (list_member_oid(query->definition->relations, relid))
			mark(query, SC_STALE);
	}
}

/* ---------- domains and schemas ---------- */

/* A number that is another one when the row was written again. */
static uint64
fingerprint_row(Oid oid, HeapTuple tuple)
{
	uint64		row = hash_combine64(oid, HeapTupleHeaderGetRawXmin(tuple->t_data));

	row = hash_combine64(row, ItemPointerGetBlockNumber(&tuple->t_self));
	return hash_combine64(row, ItemPointerGetOffsetNumber(&tuple->t_self));
}

/* Checks of domains are told as tables' are: a number that differs if they do. */
static uint64
fingerprint_domains(void)
{
	Relation	rel = table_open(ConstraintRelationId, AccessShareLock);
	uint64		result = 0;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	/* those of tables have no type */
	ScanKeyInit(&key, Anum_pg_constraint_contypid, BTGreaterStrategyNumber, F_OIDGT,
				ObjectIdGetDatum(InvalidOid));
	scan = systable_beginscan(rel, ConstraintTypidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		result += fingerprint_row(((Form_pg_constraint) GETSTRUCT(tuple))->oid, tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* Those in which functions may look names up. */
static uint64
fingerprint_schemas(void)
{
	Relation	rel = table_open(NamespaceRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	uint64		result = 0;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_namespace schema = (Form_pg_namespace) GETSTRUCT(tuple);

		if (!IsReservedName(NameStr(schema->nspname)))
			result += fingerprint_row(schema->oid, tuple);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* An error leaves them to be looked at again. */
static void
look_at(Rows *rows)
{
	uint64		heard = rows->heard;
	uint64		now;

	if (likely(rows->seen == heard))
		return;
	now = rows->take();
	rows->seen = heard;
	if (now == rows->fingerprint)
		return;
	rows->fingerprint = now;
	mark_all(SC_FRESH);
}

/* ---------- compiling again ---------- */

/* Registers for invalidation messages, once in the life of the task, and notes what there is now. */
static void
watch(void)
{
	static const int code[] = {PROCOID, AGGFNOID, OPEROID, CASTSOURCETARGET, AMOPOPID, AMPROCNUM,
	CLAOID, LANGOID, AUTHOID};
	static const int text_search[] = {TSCONFIGOID, TSCONFIGMAP, TSDICTOID};

	for (int i = 0; i < lengthof(code); i++)
		CacheRegisterSyscacheCallback(code[i], hear_of_code, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, hear_of_plans, (Datum) 0);
	for (int i = 0; i < lengthof(text_search); i++)
		CacheRegisterSyscacheCallback(text_search[i], hear_of_text_search, (Datum) 0);
	CacheRegisterSyscacheCallback(CONSTROID, hear_of_rows, PointerGetDatum(&constraints));
	CacheRegisterSyscacheCallback(NAMESPACEOID, hear_of_rows, PointerGetDatum(&schemas));
	CacheRegisterSyscacheCallback(TYPEOID, hear_of_type, (Datum) 0);
	CacheRegisterRelcacheCallback(hear_of_relation, (Datum) 0);
	changes = 1;
	constraints.heard++;
	look_at(&constraints);
	schemas.heard++;
	look_at(&schemas);
}

uint64
sc_task_changes(void)
{
	if (changes == 0)
		watch();
	return changes;
}

/*
 * Makes a new engine and gives it the old one's state.  An error leaves the query to be
 * forgotten: it fails as it would if it were loaded.
 */
static void
compile_again(ScTaskQuery *query)
{
	MemoryContext code = query->code;
	ScEngine   *engine = query->engine;

	ereport(DEBUG1, (errmsg_internal("compiling query " INT64_FORMAT " again", query->query->query_id)));
	sc_task_query_settle(query);
	sc_task_joined_end(query);
	sc_task_query_compile(query);
	sc_engine_take_state(query->engine, engine);
	sc_engine_free(engine);
	MemoryContextDelete(code);
	query->touched = true;		/* groups may have become equal */
}

/* Is that still a key by which rows of the result are known? */
static bool
has_row_key(const ScDefinition *definition)
{
	return definition->row_key == NULL || sc_is_stream_key(definition->stream_relid, definition->row_key);
}

/* Are what tells rows of the result apart the same columns as when it was compiled? */
static bool
has_key_columns(const ScDefinition *definition)
{
	Oid			index;
	Bitmapset  *columns;

	if (definition->row_key == NULL)
		return true;
	(void) sc_stream_key(definition->stream_relid, definition->row_shown, InvalidOid, &index, &columns);
	return bms_equal(definition->row_key_columns, columns);
}

/* Are the view and the stream's columns as they were when the query was compiled? */
static bool
is_current(ScTaskQuery *query)
{
	Relation	stream;
	bool		result;

	if (!sc_definition_is_current(query->query, query->definition) ||
		!has_row_key(query->definition) || !has_key_columns(query->definition))
		return false;
	if (!query->definition->whole_row)
		return true;
	stream = RelationIdGetRelation(query->query->stream_relid);
	if (!RelationIsValid(stream))
		return true;
	result = equalTupleDescs(RelationGetDescr(stream), query->compiled_desc);
	RelationClose(stream);
	return result;
}

/* Rows that were counted by one definition can't be taken back by another one. */
static void
refuse_replaced(const ScTaskQuery *query)
{
	if (!query->definition->retracts || sc_definition_is_current(query->query, query->definition))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the definition of \"%s\" was replaced, and changes of its stream are applied",
					get_rel_name(query->query->relid)),
			 errhint("Call stream_ckpt.rebuild_query(query): its result is made anew of the rows that are there.")));
}

/* From there on the stream can have two rows with the key of one row of the result. */
static void
refuse_lost_key(const ScTaskQuery *query)
{
	if (has_row_key(query->definition))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("stream \"%s\" has lost the key by which rows of \"%s\" are known",
					get_rel_name(query->query->stream_relid), get_rel_name(query->query->relid)),
			 errhint("Add it again, its columns NOT NULL, and call stream_ckpt.rebuild_query(query): its result is made anew of the rows that are there.")));
}

void
sc_task_query_refresh(ScTaskQuery *query)
{
	ScEnv		env;

	look_at(&constraints);
	look_at(&schemas);
	if (likely(query->stale == SC_FRESH))
		return;
	/* one that is being dropped goes when its message comes */
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(query->query->definition)))
		return;
	sc_env_enter(&env, query->query->owner, query->query->settings);
	if (query->stale == SC_MAYBE_STALE && is_current(query))
		query->stale = SC_FRESH;
	else
	{
		refuse_replaced(query);
		refuse_lost_key(query);
		compile_again(query);
	}
	sc_env_leave(&env);
}
