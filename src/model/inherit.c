/*-------------------------------------------------------------------------
 * inherit.c
 *	  Tables that begin to inherit from a stream.
 *
 * A definition reads them, and the stream doesn't: only partitions are captured.  So
 * they are refused, before (attach_stream) and after a table became a stream.  Partitions are refused if
 * their rows aren't in the WAL (in_wal.h).
 *
 * Called by the object access hook within the command, before its changes are
 * visible.  ALTER TABLE ... NO INHERIT comes here, too: SnapshotSelf tells.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "model/catalog_write.h"
#include "model/in_wal.h"
#include "model/inherit.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* Whether pg_inherits has the pair, as this command has left it. */
static bool
will_inherit(Oid child, Oid parent)
{
	Relation	rel = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(child));
	scan = systable_beginscan(rel, InheritsRelidSeqnoIndexId, true, SnapshotSelf, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		found = ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent == parent;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

void
sc_stream_refuse_child(Oid child, Oid parent)
{
	char		kind = get_rel_relkind(parent);
	ScStream   *stream;

	if (kind == RELKIND_PARTITIONED_TABLE)
	{
		if (will_inherit(child, parent))
			sc_stream_refuse_partition(child, parent);
		return;
	}
	if (kind != RELKIND_RELATION && kind != RELKIND_FOREIGN_TABLE)
		return;
	/* catalogs of another version tell nothing */
	if (!sc_extension_is_usable())
		return;
	if (!will_inherit(child, parent))
		return;
	/* attach_stream() looks for children with this lock */
	sc_stream_lock(parent, ShareLock);
	stream = sc_stream_by_relid(parent, true);
	if (stream == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot inherit from stream \"%s\"", get_rel_name(parent)),
			 errdetail("Rows of tables that inherit from it would not be rows of the stream."),
			 stream->is_log ? errhint("Use a partitioned table, with log streams as its partitions.") :
			 errhint("Use a partitioned table as the stream, or detach \"%s\" first, with stream_ckpt.detach_stream().",
					 get_rel_name(parent))));
}
