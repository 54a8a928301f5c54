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
#include "model/identity.h"
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
	bool		has_rows;
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

/*
 * Where the times between the bounds end.  Of several columns, rows can be at the upper bound of the first one, unless the next
 * one has no value below its own.
 */
static int64
upper_time(const PartitionBoundSpec *bound)
{
	int64		end = bound_time(bound->upperdatums, PG_INT64_MAX);

	if (list_length(bound->upperdatums) == 1 ||
		lsecond_node(PartitionRangeDatum, bound->upperdatums)->kind == PARTITION_RANGE_DATUM_MINVALUE)
		return end;
	return sc_time_add(end, 1);
}

/*
 * What is between the bounds of a partition of "parent", if its rows go by the column first.  The parent stays locked: nobody
 * takes it from what it is a partition of.
 */
static ScWindowRange
level_times(Oid relid, Oid parent, const char *column)
{
	ScWindowRange times = {.start = PG_INT64_MIN,.end = PG_INT64_MAX};
	Relation	relation = table_open(parent, AccessShareLock);
	/* behind the lock, as all that it reads of the partition */
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
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
			times.end = upper_time(bound);
		}
	}
	table_close(relation, NoLock);
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

/*
 * Does the partition have rows, or can't that be seen?  It is locked, with those of its own: what is deleted from it is in the log
 * before what comes next, so without rows it takes none from the stream.
 */
static bool
may_have_rows(Oid relid)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, AccessExclusiveLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_FOREIGN_TABLE)
			return true;
	}
	return sc_relation_has_rows(relid, AccessExclusiveLock);
}

/* A partition that is truncated, and those of its own, each of which the WAL names: also those without rows. */
static void
lose_truncated(Oid stream, Oid relid, ScLosePartition lose)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		ScWindowRange none = {0};
		Oid			part = lfirst_oid(lc);

		lose(stream, part, may_have_rows(part) ? times_in(stream, part) : none, "truncate partition");
	}
}

/*
 * Of RangeVarGetRelidExtended(), before it locks the table: who may not truncate it is told so, as by the command.  What it is part
 * of is locked first and from the top, as by all who lock both.
 */
static void
before_truncate(const RangeVar *relation, Oid relid, Oid old_relid, void *arg)
{
	AclResult	result;
	List	   *above;

	if (!OidIsValid(relid) || !get_rel_relispartition(relid))
		return;
	result = pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(relid)), relation->relname);
	above = get_partition_ancestors(relid);
	for (int i = list_length(above) - 1; i >= 0; i--)
		LockRelationOid(list_nth_oid(above, i), AccessShareLock);
}

/* The partitions among what the command names; "all": what it truncates.  They are locked, as the command will lock them. */
static List *
lock_truncated(const TruncateStmt *statement, List **all)
{
	List	   *partitions = NIL;
	ListCell   *lc;

	foreach(lc, statement->relations)
	{
		RangeVar   *relation = lfirst_node(RangeVar, lc);
		Oid			relid = RangeVarGetRelid(relation, NoLock, true);

		if (OidIsValid(relid) && get_rel_relispartition(relid))
		{
			relid = RangeVarGetRelidExtended(relation, AccessExclusiveLock, RVR_MISSING_OK, before_truncate, NULL);
			if (OidIsValid(relid) && get_rel_relispartition(relid))
				partitions = lappend_oid(partitions, relid);
		}
		if (OidIsValid(relid))
			*all = list_concat_unique_oid(*all, find_all_inheritors(relid, get_rel_relispartition(relid) ? AccessExclusiveLock : NoLock, NULL));
	}
	return partitions;
}

void
sc_partition_truncate(TruncateStmt *statement, ScLosePartition lose)
{
	List	   *all = NIL;
	ListCell   *lc;

	if (!sc_extension_is_usable() || !sc_streams_apply())
		return;
	foreach(lc, lock_truncated(statement, &all))
	{
		ListCell   *lc_stream;

		foreach(lc_stream, sc_applying_streams(lfirst_oid(lc)))
		{
			if (!list_member_oid(all, lfirst_oid(lc_stream)))
				lose_truncated(lfirst_oid(lc_stream), lfirst_oid(lc), lose);
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
		leaving->has_rows = may_have_rows(relid);
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

		if (leaving->relid != relid || leaving->stream != stream)
			continue;
		if (!leaving->has_rows)
			return;
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

		if (leaving->has_rows && list_member_oid(dropped, leaving->relid) && !list_member_oid(dropped, leaving->stream))
			lose(leaving->stream, leaving->relid, leaving->times, "drop partition");
	}
}

void
sc_partition_forget(void)
{
	dropping = detaching = NIL;
}
