/*-------------------------------------------------------------------------
 * partition.c
 *	  Partitions that are taken from a stream whose changes are applied (partition.h).
 *
 * DROP can only be refused when it is over: a partition goes with its stream, too, and which relations go together is known
 * then.  What each was part of has to be noted before.
 *
 * A TRUNCATE of a partition that comes about by other means (a foreign key's cascade) reaches the queries as a record that
 * they fail at (wire/batch.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "base/compat.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "model/catalog_write.h"
#include "model/levels.h"
#include "model/log_stream.h"
#include "model/partition.h"
#include "nodes/primnodes.h"
#include "nodes/readfuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* A partition that this transaction drops or detaches, from one stream. */
typedef struct Leaving
{
	Oid			relid;
	Oid			stream;
	ScWindowRange times;
} Leaving;

static List *dropping;			/* of Leaving *, in TopTransactionContext */
static List *detaching;			/* the same */

List *
sc_applying_streams(Oid relid)
{
	List	   *result = NIL;
	ListCell   *lc;

	if (!sc_extension_is_usable() || !sc_streams_apply())
		return NIL;
	foreach(lc, sc_itself_and_above(relid))
	{
		ScStream   *stream;

		sc_stream_lock(lfirst_oid(lc), ShareLock);
		stream = sc_stream_by_relid(lfirst_oid(lc), true);
		if (stream != NULL && stream->applies)
			result = lappend_oid(result, stream->relid);
	}
	return result;
}

void
sc_refuse_for_readers(Oid stream, Oid relid, const char *what)
{
	if (!sc_streams_are_read(list_make1_oid(stream)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot %s \"%s\": queries read stream \"%s\", and its changes are applied", what,
					get_rel_name(relid), get_rel_name(stream)),
			 errdetail("The WAL doesn't say which rows that changes: the queries would keep what they have counted."),
			 errhint("DELETE and INSERT are counted. Or drop the queries first, with stream_ckpt.drop_query().")));
}

/* ---------- event times ---------- */

/* The bound's first column; "none": it has no value. */
static int64
bound_time(List *datums, int64 none)
{
	PartitionRangeDatum *datum = linitial_node(PartitionRangeDatum, datums);

	return datum->kind == PARTITION_RANGE_DATUM_VALUE ?
		DatumGetInt64(castNode(Const, datum->value)->constvalue) : none;
}

/* What is between the bounds of a partition of "parent", if its rows go by the column first. */
static ScWindowRange
level_times(Oid relid, Oid parent, const char *column)
{
	ScWindowRange times = {.start = PG_INT64_MIN,.end = PG_INT64_MAX};
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Relation	relation = table_open(parent, AccessShareLock);
	PartitionKey key = RelationGetPartitionKey(relation);
	bool		isnull = true;
	Datum		bound_text = 0;
	PartitionBoundSpec *bound;

	if (HeapTupleIsValid(tuple))
		bound_text = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relpartbound, &isnull);
	if (!isnull && key != NULL && key->strategy == PARTITION_STRATEGY_RANGE && key->partattrs[0] != 0 &&
		strcmp(get_attname(parent, key->partattrs[0], false), column) == 0)
	{
		char	   *string = TextDatumGetCString(bound_text);

		bound = (PartitionBoundSpec *) stringToNode(string);
		if (!bound->is_default)
		{
			times.start = bound_time(bound->lowerdatums, PG_INT64_MIN);
			/* of several columns, rows can be at the upper bound of the first one */
			times.end = sc_time_add(bound_time(bound->upperdatums, PG_INT64_MAX), key->partnatts > 1 ? 1 : 0);
		}
	}
	table_close(relation, AccessShareLock);
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return times;
}

ScWindowRange
sc_partition_times(const ScStream *stream, Oid relid)
{
	ScWindowRange times = {.start = PG_INT64_MIN,.end = PG_INT64_MAX};
	char	   *column;

	if (stream->event_time_attno == 0)
		return times;
	column = get_attname(stream->relid, stream->event_time_attno, false);
	while (relid != stream->relid && get_rel_relispartition(relid))
	{
		Oid			parent = get_partition_parent(relid, true);
		ScWindowRange level = level_times(relid, parent, column);

		times.start = Max(times.start, level.start);
		times.end = Min(times.end, level.end);
		relid = parent;
	}
	return times;
}

static ScWindowRange
times_in(Oid stream, Oid relid)
{
	return sc_partition_times(sc_stream_by_relid(stream, false), relid);
}

/* ---------- commands ---------- */

/* A partition that is truncated, and those of its own, each of which the WAL names. */
static void
lose_truncated(Oid stream, Oid relid, ScLosePartition lose)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		lose(stream, lfirst_oid(lc), times_in(stream, lfirst_oid(lc)), "truncate partition");
}

void
sc_partition_truncate(TruncateStmt *statement, ScLosePartition lose)
{
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, statement->relations)
		relids = lappend_oid(relids, RangeVarGetRelid(lfirst_node(RangeVar, lc), NoLock, true));
	foreach(lc, relids)
	{
		Oid			relid = lfirst_oid(lc);
		ListCell   *lc_stream;

		/* who may not is told so by the command */
		if (!OidIsValid(relid) || !get_rel_relispartition(relid) ||
			pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE) != ACLCHECK_OK)
			continue;
		foreach(lc_stream, sc_applying_streams(relid))
		{
			if (!list_member_oid(relids, lfirst_oid(lc_stream)))
				lose_truncated(lfirst_oid(lc_stream), relid, lose);
		}
	}
}

void
sc_partition_refuse_detach(AlterTableStmt *statement)
{
	ListCell   *lc;

	foreach(lc, statement->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);
		Oid			relid;
		List	   *streams;

		if (command->subtype != AT_DetachPartition || !castNode(PartitionCmd, command->def)->concurrent)
			continue;
		relid = RangeVarGetRelid(statement->relation, NoLock, true);
		streams = OidIsValid(relid) ? sc_applying_streams(relid) : NIL;
		if (streams != NIL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot detach a partition of \"%s\" concurrently: changes of stream \"%s\" are applied",
							get_rel_name(relid), get_rel_name(linitial_oid(streams))),
					 errhint("Use DETACH PARTITION without CONCURRENTLY.")));
	}
}

/* The partition leaves all streams that it is part of. */
static void
note_leaving(List **list, Oid relid)
{
	List	   *streams = get_rel_relispartition(relid) ? sc_applying_streams(relid) : NIL;
	ListCell   *lc;

	foreach(lc, streams)
	{
		MemoryContext old;
		Leaving    *leaving;

		/* a partition that is attached by itself is none of its own */
		if (lfirst_oid(lc) == relid)
			continue;
		old = MemoryContextSwitchTo(TopTransactionContext);
		leaving = palloc(sizeof(Leaving));
		leaving->relid = relid;
		leaving->stream = lfirst_oid(lc);
		leaving->times = times_in(leaving->stream, relid);
		*list = lappend(*list, leaving);
		MemoryContextSwitchTo(old);
	}
}

void
sc_partition_note_detach(AlterTableStmt *statement)
{
	ListCell   *lc;

	foreach(lc, statement->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);
		Oid			parent;
		Oid			relid;

		/* one that is concurrent takes no such lock, and has been refused if changes are applied */
		if (command->subtype != AT_DetachPartition || castNode(PartitionCmd, command->def)->concurrent)
			continue;
		parent = RangeVarGetRelid(statement->relation, NoLock, true);
		if (!OidIsValid(parent) || !sc_owns_relation(parent))
			continue;
		/* as the command will: nobody gives the partition other bounds then */
		LockRelationOid(parent, AccessExclusiveLock);
		relid = RangeVarGetRelid(castNode(PartitionCmd, command->def)->name, NoLock, true);
		if (OidIsValid(relid))
			note_leaving(&detaching, relid);
	}
}

void
sc_partition_detached(Oid stream, Oid relid, ScLosePartition lose)
{
	ScWindowRange times = {.start = PG_INT64_MIN,.end = PG_INT64_MAX};
	ListCell   *lc;

	foreach(lc, detaching)
	{
		Leaving    *leaving = lfirst(lc);

		if (leaving->relid == relid && leaving->stream == stream)
			times = leaving->times;
	}
	lose(stream, relid, times, "detach partition");
}

void
sc_partition_note_drop(Oid relid)
{
	note_leaving(&dropping, relid);
}

void
sc_partition_dropped(List *dropped, ScLosePartition lose)
{
	ListCell   *lc;

	foreach(lc, dropping)
	{
		Leaving    *leaving = lfirst(lc);

		if (list_member_oid(dropped, leaving->relid) && !list_member_oid(dropped, leaving->stream))
			lose(leaving->stream, leaving->relid, leaving->times, "drop partition");
	}
}

void
sc_partition_forget(void)
{
	dropping = detaching = NIL;
}
