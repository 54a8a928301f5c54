/*-------------------------------------------------------------------------
 * levels.c
 *	  What is above a table: what it is a partition of, and queries that read it.
 *
 * A result is a table, and so can be a stream, or a partition of one.  No query may read what is made of its own result:
 * it would never come to an end.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/partition.h"
#include "model/levels.h"
#include "utils/lsyscache.h"

List *
sc_itself_and_above(Oid relid)
{
	List	   *result = list_make1_oid(relid);

	return get_rel_relispartition(relid) ? list_concat(result, get_partition_ancestors(relid)) : result;
}

static bool
is_part_of(Oid relid, Oid stream)
{
	return relid == stream || list_member_oid(sc_itself_and_above(relid), stream);
}

bool
sc_query_reads(const ScQuery *query, Oid relid)
{
	return is_part_of(relid, query->stream_relid);
}

/* "left": queries that may still be passed; each is passed once at most. */
static bool
is_fed_by(Oid stream, Oid relid, List *queries, int left)
{
	ListCell   *lc;

	if (is_part_of(relid, stream))
		return true;
	foreach(lc, queries)
	{
		const ScQuery *query = lfirst(lc);

		if (left > 0 && sc_query_reads(query, relid) && is_fed_by(stream, query->relid, queries, left - 1))
			return true;
	}
	return false;
}

bool
sc_stream_is_fed_by(Oid stream, Oid relid)
{
	List	   *queries = sc_query_list_all();

	return is_fed_by(stream, relid, queries, list_length(queries));
}

List *
sc_ignoring_streams(Oid relid)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, sc_itself_and_above(relid))
	{
		const ScStream *stream = sc_stream_by_relid(lfirst_oid(lc), true);

		if (stream != NULL && !stream->applies)
			result = lappend_oid(result, stream->relid);
	}
	return result;
}
