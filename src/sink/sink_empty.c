/*-------------------------------------------------------------------------
 * sink_empty.c
 *	  Deleting all rows of a result: those of the stream are gone, and nobody knows them one by one.
 *
 * By DELETE, not by TRUNCATE: readers see what there was until the checkpoint is committed, triggers and foreign keys work as for
 * any row, and a query over the result sees rows that go.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "base/limit.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "sink/sink_internal.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

int64
sc_sink_pages(Oid relid)
{
	int64		pages = 0;
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Relation	rel;

		if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			continue;
		rel = try_relation_open(lfirst_oid(lc), NoLock);
		if (rel != NULL && RELKIND_HAS_TABLE_AM(rel->rd_rel->relkind))
			pages += RelationGetNumberOfBlocks(rel);
		if (rel != NULL)
			relation_close(rel, NoLock);
		UnlockRelationOid(lfirst_oid(lc), AccessShareLock);
	}
	return pages;
}

void
sc_sink_empty(ScSink *sink)
{
	MemoryContext old = CurrentMemoryContext;
	int			rc;

	/* what was put before is there to be deleted */
	if (sink->direct != NULL)
	{
		sc_sink_direct_flush(sink);
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
	}
	/* it takes as long as rows, of which a page has some, take one by one */
	sc_limit_add(sc_sink_pages(RelationGetRelid(sink->rel)) * (BLCKSZ / SC_LIMIT_UNIT_BYTES));
	rc = SPI_execute(psprintf("DELETE FROM %s",
							  quote_qualified_identifier(get_namespace_name(RelationGetNamespace(sink->rel)),
														 RelationGetRelationName(sink->rel))),
					 false, 0);
	if (rc < 0)
		elog(ERROR, "could not delete the rows of a result table: %s", SPI_result_code_string(rc));
	if (sink->direct != NULL && SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	MemoryContextSwitchTo(old);
}
