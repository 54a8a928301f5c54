/*-------------------------------------------------------------------------
 * access.c
 *	  The privileges of queries' owners in a task, and whether all rows of their streams are in the
 *	  WAL: checked when a query is loaded, and before the work on a message or a barrier when
 *	  something that they depend on has changed.
 *
 * The server tells about changes of the catalogs at the start of each transaction; so
 * what is revoked before a message's transaction begins isn't used in it.  A query whose
 * definition was given to another role goes on as that role.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/env.h"
#include "catalog/pg_class.h"
#include "model/in_wal.h"
#include "query/access.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "worker/task/task_internal.h"

/* Counts what may have changed somebody's privileges; 0: nothing is watched yet. */
static uint64 changes;

static void
note_change(Datum arg, int cacheid, uint32 hashvalue)
{
	changes++;
}

/* Tables and their columns, functions, roles and their members. */
static void
watch(void)
{
	static const int caches[] = {RELOID, ATTNUM, PROCOID, AUTHOID, AUTHMEMMEMROLE};

	for (int i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], note_change, (Datum) 0);
	changes = 1;
}

/* Takes over the definition's owner, whoever that is now. */
static void
take_owner(ScQuery *query)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(query->definition));

	if (!HeapTupleIsValid(tuple))
		return;
	query->owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
}

/* A stream whose rows were all in the WAL, with the number of changes at that time. */
typedef struct CheckedStream
{
	Oid			relid;
	uint64		seen;
} CheckedStream;

/* Are all of the stream's rows in the WAL?  Its partitions are looked at once for all queries. */
static void
check_stream(Oid relid)
{
	static List *streams = NIL;
	CheckedStream *stream = NULL;
	uint64		seen = changes;
	MemoryContext old;
	ListCell   *lc;

	foreach(lc, streams)
	{
		stream = lfirst(lc);
		if (stream->relid == relid)
			break;
		stream = NULL;
	}
	if (stream != NULL && stream->seen == seen)
		return;
	sc_stream_check_in_wal(relid);
	if (stream == NULL)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		stream = palloc(sizeof(CheckedStream));
		stream->relid = relid;
		streams = lappend(streams, stream);
		MemoryContextSwitchTo(old);
	}
	stream->seen = seen;
}

bool
sc_task_access_is_checked(const ScTaskQuery *query)
{
	return changes != 0 && query->access_checked == changes;
}

void
sc_task_check_access(ScTaskQuery *query)
{
	uint64		seen;
	ScEnv		env;

	if (changes == 0)
		watch();
	if (query->access_checked == changes)
		return;
	seen = changes;
	check_stream(query->query->stream_relid);
	take_owner(query->query);
	sc_env_enter(&env, query->query->owner, query->query->settings);
	sc_check_access(query->query);
	sc_env_leave(&env);
	query->access_checked = seen;
}
