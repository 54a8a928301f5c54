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

#include "catalog/namespace.h"
#include "model/catalog_write.h"
#include "model/levels.h"
#include "model/log_stream.h"
#include "model/partition.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* A partition that this transaction drops. */
typedef struct Dropped
{
	Oid			relid;
	List	   *streams;		/* Oids, which it was part of */
} Dropped;

static List *dropping;			/* of Dropped *, in TopTransactionContext */

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

void
sc_partition_refuse_truncate(TruncateStmt *statement)
{
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, statement->relations)
		relids = lappend_oid(relids, RangeVarGetRelid(lfirst_node(RangeVar, lc), NoLock, true));
	foreach(lc, relids)
	{
		Oid			relid = lfirst_oid(lc);
		ListCell   *lc_stream;

		if (!OidIsValid(relid) || !get_rel_relispartition(relid))
			continue;
		foreach(lc_stream, sc_applying_streams(relid))
		{
			if (!list_member_oid(relids, lfirst_oid(lc_stream)))
				sc_refuse_for_readers(lfirst_oid(lc_stream), relid, "truncate partition");
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

void
sc_partition_note_drop(Oid relid)
{
	List	   *streams = get_rel_relispartition(relid) ? sc_applying_streams(relid) : NIL;
	MemoryContext old;
	Dropped    *partition;

	/* a partition that is attached by itself is none of its own */
	streams = list_delete_oid(streams, relid);
	if (streams == NIL)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	partition = palloc(sizeof(Dropped));
	partition->relid = relid;
	partition->streams = list_copy(streams);
	dropping = lappend(dropping, partition);
	MemoryContextSwitchTo(old);
}

void
sc_partition_refuse_dropped(List *dropped)
{
	ListCell   *lc;
	ListCell   *lc_stream;

	foreach(lc, dropping)
	{
		Dropped    *partition = lfirst(lc);

		if (!list_member_oid(dropped, partition->relid))
			continue;
		foreach(lc_stream, partition->streams)
		{
			Oid			stream = lfirst_oid(lc_stream);

			if (!list_member_oid(dropped, stream))
				sc_refuse_for_readers(stream, stream, "drop a partition of");
		}
	}
}

void
sc_partition_forget_drops(void)
{
	dropping = NIL;
}
