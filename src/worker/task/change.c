/*-------------------------------------------------------------------------
 * change.c
 *	  Changes of a stream's rows in a task, for a query to which they are applied: a row that isn't there any more is
 *	  retracted, and an UPDATE is that of its old row, then its new one.
 *
 * Each half of an UPDATE is for itself: with dead letters the new row is counted even if the old one can't be
 * evaluated, which was never counted then.  query->half says where an error came, and where the work goes on.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "worker/task/task_internal.h"

/* A row that isn't there any more. */
static void
retract(ScTaskQuery *query, MinimalTuple row, bool cut)
{
	query->half = SC_HALF_OLD;
	if (query->shared_desc && !cut && sc_engine_is_anothers(query->engine, query->shared_desc, row, false))
		return;
	query->in_row = true;
	query->row = sc_task_stream_old_row(query->stream, row);
	if (cut)
		sc_engine_retract_cut_row(query->engine, query->row);
	else
		sc_engine_retract(query->engine, query->row);
	query->in_row = false;
}

/*
 * A row that is deleted, and stays in the result.  That its windows aren't what the table has any more needs to be known once;
 * which rows WHERE lets pass isn't asked.
 */
static void
ignore_deleted(ScTaskQuery *query, MinimalTuple row)
{
	if (query->place.number != 0)
		return;
	query->deletes_ignored++;
	sc_engine_ignore_deleted(query->engine, sc_task_stream_old_row(query->stream, row));
}

/* The new row of an UPDATE: as one that was inserted. */
static void
add(ScTaskQuery *query, MinimalTuple row, bool cut)
{
	query->half = SC_HALF_NEW;
	sc_task_insert_row(query, row, cut);
}

/* Is the stream's column the same in both rows, byte by byte? */
static bool
is_same(TupleDesc desc, AttrNumber attno, TupleTableSlot *old, TupleTableSlot *new)
{
	Form_pg_attribute att = TupleDescAttr(desc, attno - 1);
	bool		old_isnull;
	bool		new_isnull;
	Datum		old_value = slot_getattr(old, attno, &old_isnull);
	Datum		new_value = slot_getattr(new, attno, &new_isnull);

	if (old_isnull || new_isnull)
		return old_isnull && new_isnull;
	return datumIsEqual(old_value, new_value, att->attbyval, att->attlen);
}

/* Has the UPDATE left all columns as they were that the query reads?  Then it is no work. */
static bool
changes_nothing(ScTaskQuery *query, const ScWireRecord *record)
{
	const ScDefinition *definition = query->definition;
	TupleTableSlot *old = sc_task_stream_old_row(query->stream, SC_WIRE_OLD_TUPLE(record));
	TupleTableSlot *new = sc_task_stream_row(query->stream, SC_WIRE_NEW_TUPLE(record));
	int			attno = -1;

	if (definition->event_time_attno != 0 && !is_same(query->stream_desc, definition->event_time_attno, old, new))
		return false;
	if (definition->ttl_attno != 0 && !is_same(query->stream_desc, definition->ttl_attno, old, new))
		return false;
	while ((attno = bms_next_member(definition->read_attnos, attno)) >= 0)
	{
		/* the whole row */
		if (attno == 0 || !is_same(query->stream_desc, attno, old, new))
			return false;
	}
	return true;
}

void
sc_task_run_change(ScTaskQuery *query, const ScWireRecord *record)
{
	bool		cut = record->flags & SC_WIRE_CUT;

	if (!query->definition->retracts)
		return;
	sc_task_query_set_layout(query, record->layout);
	if (!query->stream)
		return;
	if (query->half == SC_HALF_NONE)
		query->ordinal++;
	switch (record->op)
	{
		case SC_WIRE_DELETE:
			if (query->ignores_deletes)
				ignore_deleted(query, SC_WIRE_TUPLE(record));
			else
				retract(query, SC_WIRE_TUPLE(record), cut);
			break;
		case SC_WIRE_NEW:
			add(query, SC_WIRE_TUPLE(record), cut);
			break;
		case SC_WIRE_UPDATE:
			if (query->half == SC_HALF_NONE && changes_nothing(query, record))
				break;
			if (query->half == SC_HALF_NONE)
				retract(query, SC_WIRE_OLD_TUPLE(record), false);
			add(query, SC_WIRE_NEW_TUPLE(record), false);
			break;
	}
	query->half = SC_HALF_NONE;
}

void
sc_task_run_truncate(ScTaskQuery *query, const ScWireTruncate *truncate)
{
	if (!query->definition->retracts || truncate->relid != query->definition->stream_relid)
		return;
	if (!query->ignores_deletes)
		sc_engine_truncate(query->engine);
	else
	{
		/* each task notes the panes that it has */
		query->truncates_ignored += query->place.number == 0;
		sc_engine_ignore_truncate(query->engine);
	}
}

void
sc_task_run_ignore(ScTaskQuery *query, const ScWireIgnore *ignore)
{
	query->ignores_deletes |= query->definition->retracts && ignore->relid == query->definition->stream_relid;
}

static char *
table_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name != NULL ? name : psprintf("%u", relid);
}

static void
fail_for_partition(Oid partition)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("partition \"%s\" of the stream was truncated, detached or dropped", table_name(partition)),
			 errdetail("The WAL doesn't say which rows it had, so the query would keep what it has counted of them."),
			 errhint("Call stream_ckpt.rebuild_query(query): its result is made anew of the rows that are there. DELETE is counted.")));
}

/* If all windows of the partition's rows are over they keep what they had, as they do when its rows are deleted. */
void
sc_task_run_lost(ScTaskQuery *query, const ScWireLost *lost)
{
	if (!query->definition->retracts || lost->relid != query->definition->stream_relid || lost->times.start >= lost->times.end)
		return;
	if (!query->ignores_deletes && sc_engine_needs_rows(query->engine, lost->times))
		fail_for_partition(lost->partition);
	query->truncates_ignored += query->ignores_deletes && query->place.number == 0;
	sc_engine_ignore_lost(query->engine, lost->times);
}

/* A partition that no command named: nobody has looked at its bounds. */
static void
lose_partition_unseen(ScTaskQuery *query, Oid partition)
{
	if (!query->ignores_deletes)
		fail_for_partition(partition);
	query->truncates_ignored += query->place.number == 0;
	sc_engine_ignore_truncate(query->engine);
}

void
sc_task_run_broken(ScTaskQuery *query, const ScWireBroken *broken)
{
	if (!query->definition->retracts || broken->relid != query->definition->stream_relid)
		return;
	if (broken->reason == SC_BROKEN_PARTITION)
	{
		lose_partition_unseen(query, broken->table);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a row of \"%s\" was changed while the table's replica identity wasn't FULL", table_name(broken->table)),
			 errdetail("The WAL doesn't say what the row was, so the query would keep what it has counted of it."),
			 errhint("Use ALTER TABLE ... REPLICA IDENTITY FULL; then call stream_ckpt.rebuild_query(query).")));
}

MinimalTuple
sc_task_row_at_hand(const ScTaskQuery *query)
{
	const ScWireRecord *record = (const ScWireRecord *) query->at;

	return record->op == SC_WIRE_UPDATE ? SC_WIRE_NEW_TUPLE(record) : SC_WIRE_TUPLE(record);
}

bool
sc_task_step_over_half(ScTaskQuery *query)
{
	const ScWireRecord *record = (const ScWireRecord *) query->at;

	if (record->op == SC_WIRE_UPDATE && query->half == SC_HALF_OLD)
	{
		query->half = SC_HALF_NEW;
		return true;
	}
	query->half = SC_HALF_NONE;
	return false;
}
