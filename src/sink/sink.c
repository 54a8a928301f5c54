/*-------------------------------------------------------------------------
 * sink.c
 *	  Writing one query's result rows of one checkpoint: opens the result table,
 *	  checks that it is still what the query writes, and chooses the way.
 *
 *		direct		a plain table that nothing hangs on: tuples and index entries
 *					are written here (sink_insert.c, sink_upsert.c, sink_lookup.c), as COPY and
 *					logical replication do
 *		plans		everything else (triggers, rules, row security, partitions,
 *					columns of the user's own...): prepared statements, so that
 *					PostgreSQL itself does what the user asked for (sink_plan.c)
 *
 * The rule: both leave the same rows, or fail; and what the direct way doesn't
 * check itself must be excluded by writes_directly().
 *
 * A wait for a lock, on the table or on a row that a user is changing, is
 * bounded by what is left of the checkpoint's time for such (base/lock_time.h): lock_timeout
 * is set from open to close in a settings nest level of the sink's own, so sinks and
 * sc_env_enter/leave must nest.  A concurrent change of a row is an error: the checkpoint is tried again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "base/compat.h"
#include "base/lock_time.h"
#include "catalog/pg_index.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "exec/engine.h"
#include "miscadmin.h"
#include "query/analyze.h"
#include "rewrite/prs2lock.h"
#include "sink/sink_internal.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Tells what was waited for when a lock isn't had in time. */
static void
lock_error_context(void *arg)
{
	errcontext("waiting for the lock on result table \"%s\"", (char *) arg);
}

/* Locks the result table. */
static void
lock_result_table(Oid relid)
{
	ErrorContextCallback callback;
	char	   *name = get_rel_name(relid);

	callback.callback = lock_error_context;
	callback.arg = name != NULL ? name : "";
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	sc_lock_time_relation(relid, RowExclusiveLock);
	error_context_stack = callback.previous;
}

/*
 * Locks and opens the result table.  ERRCODE_LOCK_NOT_AVAILABLE where the lock
 * isn't had in time, ERRCODE_UNDEFINED_TABLE where the table is gone.
 */
static Relation
open_result_table(ScSink *sink)
{
	Relation	rel;

	lock_result_table(sink->query->relid);
	sink->guc_nestlevel = NewGUCNestLevel();
	sc_lock_time_set_timeout();
	rel = try_relation_open(sink->query->relid, NoLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("result table of continuous query " INT64_FORMAT " does not exist",
						sink->query->query_id)));
	return rel;
}

/* The columns that the query's rows have: those of its definition. */
static TupleDesc
row_desc_of_definition(const ScQuery *query)
{
	Relation	view = try_relation_open(query->definition, AccessShareLock);
	TupleDesc	desc;

	if (view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("definition of continuous query " INT64_FORMAT " does not exist",
						query->query_id)));
	desc = CreateTupleDescCopy(RelationGetDescr(view));
	relation_close(view, NoLock);
	return desc;
}

/* The table's live column of this name, or 0. */
static AttrNumber
column_by_name(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att->attnum;
	}
	return 0;
}

/* The table's n-th live column (from 0), or 0. */
static AttrNumber
column_by_position(TupleDesc desc, int n)
{
	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		if (n-- == 0)
			return i + 1;
	}
	return 0;
}

/* The number of the table's live columns. */
static int
live_columns(TupleDesc desc)
{
	int			n = 0;

	for (int i = 0; i < desc->natts; i++)
		n += !TupleDescAttr(desc, i)->attisdropped;
	return n;
}

static void
column_error(Relation rel, Form_pg_attribute column, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("result table \"%s\" no longer has the columns of its continuous query",
					RelationGetRelationName(rel)),
			 errdetail(detail, NameStr(column->attname),
					   format_type_with_typemod(column->atttypid, column->atttypmod)),
			 errhint("Undo the change of the table, or drop the query with stream_ckpt.drop_query() and create it again.")));
}

AttrNumber *
sc_result_columns(Relation rel, TupleDesc rows)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		by_position = live_columns(desc) == rows->natts;
	AttrNumber *attnos = palloc(rows->natts * sizeof(AttrNumber));

	for (int i = 0; i < rows->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(rows, i);
		AttrNumber	attno = column_by_name(desc, NameStr(column->attname));

		if (attno == 0 && by_position)
		{
			attno = column_by_position(desc, i);

			/* not if another column of the rows has that name */
			if (column_by_name(rows, NameStr(TupleDescAttr(desc, attno - 1)->attname)) != 0)
				attno = 0;
		}
		if (attno == 0)
			column_error(rel, column, "Column \"%s\" of type %s is missing.");
		if (TupleDescAttr(desc, attno - 1)->atttypid != column->atttypid)
			column_error(rel, column, "Column \"%s\" should be of type %s.");
		attnos[i] = attno;
	}
	return attnos;
}

/*
 * Do the table's columns take the rows' values as they are?  Not where it has
 * more (they have defaults), or where a type's modifier was changed.
 */
static bool
columns_are_plain(ScSink *sink)
{
	TupleDesc	desc = RelationGetDescr(sink->rel);

	if (live_columns(desc) != sink->row_desc->natts)
		return false;
	for (int i = 0; i < sink->row_desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, sink->attnos[i] - 1);

		if (att->attgenerated != '\0' || att->attidentity != '\0')
			return false;
		if (att->atttypmod != -1 &&
			att->atttypmod != TupleDescAttr(sink->row_desc, i)->atttypmod)
			return false;
	}
	return true;
}

/*
 * May the table be written without the executor?  Privileges are checked here:
 * the direct way doesn't pass the executor's check.  A user without them gets
 * the executor's error by the other way, as one with privileges on columns only
 * gets what he may.
 */
static bool
writes_directly(ScSink *sink)
{
	Relation	rel = sink->rel;
	AclMode		needed = ACL_INSERT;

	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relispartition ||
		rel->rd_rel->relrowsecurity ||
		rel->trigdesc != NULL ||
		rel->rd_rules != NULL)
		return false;
	if (!columns_are_plain(sink))
		return false;

	if (sink->query->emit == SC_EMIT_UPDATE || sink->query->allowed_lateness > 0)
		needed |= ACL_UPDATE | ACL_DELETE;
	return pg_class_aclmask(RelationGetRelid(rel), GetUserId(), needed,
							ACLMASK_ALL) == needed;
}

/*
 * See sink.h.  "query" must live until the sink is closed.  After an error the
 * abort of the (sub)transaction cleans up; nothing is to be called.
 */
ScSink *
sc_sink_open(const ScQuery *query)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "stream_ckpt sink",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	ScSink	   *sink = palloc0(sizeof(ScSink));

	sink->context = context;
	sink->query = query;
	sink->rel = open_result_table(sink);
	sink->row_desc = row_desc_of_definition(query);
	sink->row = MakeSingleTupleTableSlot(sink->row_desc, &TTSOpsMinimalTuple);
	sink->deletion_slot = MakeSingleTupleTableSlot(sink->row_desc, &TTSOpsMinimalTuple);
	sink->attnos = sc_result_columns(sink->rel, sink->row_desc);

	if (writes_directly(sink))
	{
		sc_sink_direct_begin(sink);
		sc_sink_sort_begin(sink);
	}
	else
		sc_sink_plans_begin(sink);

	MemoryContextSwitchTo(oldcontext);
	return sink;
}

/* Is this index one that identifies result rows? */
static bool
is_key_index(Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indnullsnotdistinct || !form->indimmediate ||
		!form->indisvalid || !form->indisready)
		return false;
	if (!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL))
		return false;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		if (form->indkey.values[i] <= 0)
			return false;
	}
	return true;
}

/* Is it one that allows one row only: unique, on the constant true? */
static bool
is_one_row_index(Relation index)
{
	Form_pg_index form = index->rd_index;
	Const	   *value;

	if (!form->indisunique || !form->indimmediate || !form->indisvalid || !form->indisready ||
		form->indnkeyatts != 1 || form->indkey.values[0] != 0 ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	value = linitial(RelationGetIndexExpressions(index));
	return IsA(value, Const) && value->consttype == BOOLOID && !value->constisnull &&
		DatumGetBool(value->constvalue);
}

/* Takes such an index as the key, if the query has one row. */
static bool
set_one_row_key(ScSink *sink, Relation index)
{
	SinkKey    *key = &sink->key;

	if (!sc_definition_identifies(sink->query->definition, NULL, 0))
		return false;
	key->one_row = true;
	key->ncolumns = 1;
	key->attnos[0] = 0;
	key->columns[0] = -1;
	key->collations[0] = InvalidOid;
	key->eq_operators[0] = BooleanEqualOperator;
	key->index = RelationGetRelid(index);
	return true;
}

/*
 * Takes the index's columns into the key; false where they are not what identifies a row.  An
 * index of the user's on fewer columns is a constraint that rows may violate, never the key.
 */
static bool
set_key(ScSink *sink, Relation index)
{
	SinkKey    *key = &sink->key;

	key->ncolumns = index->rd_index->indnkeyatts;
	for (int i = 0; i < key->ncolumns; i++)
	{
		int			column = 0;

		key->attnos[i] = index->rd_index->indkey.values[i];
		while (column < sink->row_desc->natts && sink->attnos[column] != key->attnos[i])
			column++;
		if (column == sink->row_desc->natts)
			return false;
		key->columns[i] = column;
		key->collations[i] = index->rd_indcollation[i];
		key->eq_operators[i] = get_opfamily_member(index->rd_opfamily[i],
												   index->rd_opcintype[i],
												   index->rd_opcintype[i],
												   BTEqualStrategyNumber);
		if (!OidIsValid(key->eq_operators[i]))
			elog(ERROR, "no equality operator for column %d of index \"%s\"",
				 i + 1, RelationGetRelationName(index));
	}
	if (!sc_definition_identifies(sink->query->definition, key->columns, key->ncolumns))
		return false;
	key->index = RelationGetRelid(index);
	return true;
}

pg_noreturn static void
report_no_key(const ScSink *sink)
{
	Oid			view = sink->query->definition;
	const char *columns = sc_definition_identifies(view, NULL, 0) ? "(true)" : sc_definition_row_key(view);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("result table \"%s\" has no unique index that identifies its rows",
					RelationGetRelationName(sink->rel)),
			 errhint("Create it again: CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT.",
					 quote_identifier(RelationGetRelationName(sink->rel)),
					 columns != NULL ? columns : "window and key columns")));
}

/*
 * The key of the result table: its first (oldest) valid unique index with NULLS NOT DISTINCT over
 * the window, if there is one, and all keys of the query, whatever its name is by now.
 * Looked up once in a sink's life.  Where there is none: NULL or an error.
 */
const SinkKey *
sc_sink_key(ScSink *sink, bool missing_ok)
{
	List	   *indexes;
	ListCell   *lc;

	if (OidIsValid(sink->key.index))
		return &sink->key;

	indexes = RelationGetIndexList(sink->rel);
	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		bool		found = is_one_row_index(index) ? set_one_row_key(sink, index) :
			is_key_index(index) && set_key(sink, index);

		index_close(index, NoLock);
		if (found)
			break;
	}
	list_free(indexes);

	if (!OidIsValid(sink->key.index) && missing_ok)
		return NULL;
	if (!OidIsValid(sink->key.index))
		report_no_key(sink);
	return &sink->key;
}

bool
sc_sink_key_fits(ScSink *sink, bool needed)
{
	bool		any = false;
	ListCell   *lc;

	if (sc_sink_key(sink, true))
		return true;
	foreach(lc, RelationGetIndexList(sink->rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		any |= is_one_row_index(index) || is_key_index(index);
		index_close(index, NoLock);
	}
	return !needed && !any;
}

/* Takes one row by the direct way. */
static void
put_directly(ScSink *sink, char op, MinimalTuple row)
{
	switch (op)
	{
		case SC_RESULT_INSERT:
			if (sink->sort != NULL)
				sc_sink_sort_add(sink, row);
			else
				sc_sink_direct_add(sink, op, row->t_len);
			break;
		case SC_RESULT_UPSERT:
			sc_sink_direct_add(sink, op, row->t_len);
			break;
		case SC_RESULT_DELETE:
			sc_sink_direct_delete(sink);
			break;
		default:
			elog(ERROR, "unknown result operation %d", op);
	}
}

/* Puts a row, which becomes the current one. */
static void
put_row(ScSink *sink, char op, MinimalTuple row)
{
	ExecStoreMinimalTuple(row, sink->row, false);
	slot_getallattrs(sink->row);
	if (op == SC_RESULT_TRUNCATE)
		sc_sink_empty(sink);
	else if (op == SC_RESULT_CLEAR)
		sc_sink_set_begin(sink);
	else if (op == SC_RESULT_MEMBER && sc_sink_set_is_open(sink))
		sc_sink_set_add(sink);
	else
	{
		if (op == SC_RESULT_MEMBER)
			op = SC_RESULT_INSERT;
		if (sink->direct != NULL)
			put_directly(sink, op, row);
		else
			sc_sink_plans_put(sink, op);
	}
	ExecClearTuple(sink->row);
}

/* Deletes the row that waits for the next one. */
static void
put_deletion(ScSink *sink)
{
	MinimalTuple row = sink->deletion;

	if (row == NULL)
		return;
	sink->deletion = NULL;
	put_row(sink, SC_RESULT_DELETE, row);
	pfree(row);
}

/* Has the row that waits to be deleted the key of this one, byte by byte? */
static bool
has_key_of_deletion(ScSink *sink, MinimalTuple row)
{
	const SinkKey *key = sc_sink_key(sink, false);
	TupleTableSlot *deletion = sink->deletion_slot;
	bool		result = !key->one_row;

	ExecStoreMinimalTuple(sink->deletion, deletion, false);
	ExecStoreMinimalTuple(row, sink->row, false);
	for (int i = 0; i < key->ncolumns && result; i++)
	{
		Form_pg_attribute att = TupleDescAttr(sink->row_desc, key->columns[i]);
		bool		old_isnull;
		bool		new_isnull;
		Datum		old = slot_getattr(deletion, key->columns[i] + 1, &old_isnull);
		Datum		new = slot_getattr(sink->row, key->columns[i] + 1, &new_isnull);

		result = old_isnull == new_isnull && (old_isnull || datum_image_eq(old, new, att->attbyval, att->attlen));
	}
	ExecClearTuple(deletion);
	ExecClearTuple(sink->row);
	return result;
}

/*
 * A deletion waits for the next row: if that is another version of the row, it is updated.  Returns how "row" is to be
 * put; true in "*waits": it isn't, as it waits.
 */
static char
pair_deletion(ScSink *sink, char op, MinimalTuple row, bool *waits)
{
	*waits = op == SC_RESULT_DELETE;
	if (op == SC_RESULT_ROW && sink->deletion != NULL && has_key_of_deletion(sink, row))
	{
		pfree(sink->deletion);
		sink->deletion = NULL;
	}
	put_deletion(sink);
	if (op == SC_RESULT_ROW)
		return SC_RESULT_UPSERT;
	if (*waits)
	{
		sink->deletion = MemoryContextAlloc(sink->context, row->t_len);
		memcpy(sink->deletion, row, row->t_len);
	}
	return op;
}

void
sc_sink_insert(ScSink *sink, MinimalTuple row)
{
	put_row(sink, SC_RESULT_INSERT, row);
}

/* See sink.h. */
void
sc_sink_put(ScSink *sink, char op, MinimalTuple row)
{
	bool		waits;

	if ((row->t_infomask2 & HEAP_NATTS_MASK) != sink->row_desc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("definition of result table \"%s\" was changed",
						RelationGetRelationName(sink->rel)),
				 errdetail("Its rows have %d columns, the view has %d.",
						   row->t_infomask2 & HEAP_NATTS_MASK, sink->row_desc->natts),
				 errhint("Drop the query with stream_ckpt.drop_query() and create it again.")));

	if (op != SC_RESULT_INSERT)
		sc_sink_sort_flush(sink);
	if (op != SC_RESULT_MEMBER)
		sc_sink_set_end(sink);
	op = pair_deletion(sink, op, row, &waits);
	if (!waits)
		put_row(sink, op, row);
	sink->rows++;
}

Relation
sc_sink_relation(const ScSink *sink)
{
	return sink->rel;
}

bool
sc_sink_runs_user_code(const ScSink *sink)
{
	const TupleConstr *constr = RelationGetDescr(sink->rel)->constr;

	if (sink->direct == NULL || (constr != NULL && constr->num_check > 0))
		return true;
	return sc_sink_has_index_code(sink);
}

/* See sink.h.  The lock on the table stays until the end of the transaction. */
int64
sc_sink_close(ScSink *sink)
{
	int64		rows = sink->rows;

	put_deletion(sink);
	sc_sink_sort_flush(sink);
	sc_sink_set_close(sink);
	if (sink->direct != NULL)
		sc_sink_direct_end(sink);
	else
		sc_sink_plans_end(sink);

	ExecDropSingleTupleTableSlot(sink->row);
	ExecDropSingleTupleTableSlot(sink->deletion_slot);
	relation_close(sink->rel, NoLock);
	AtEOXact_GUC(false, sink->guc_nestlevel);
	MemoryContextDelete(sink->context);
	return rows;
}
