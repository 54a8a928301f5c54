/*-------------------------------------------------------------------------
 * in_wal.c
 *	  Are all rows of a stream in the WAL, where the reader finds them?
 *
 * Those of unlogged and temporary tables, of foreign tables other than log streams, and of table
 * access methods other than heap are not; nor are those of tables that inherit from a
 * stream which isn't partitioned its rows.  A definition read as a plain query has them all the
 * same, so queries would silently lack them.
 *
 * The rule: no relation with such rows becomes part of a stream (attach_stream), and no part of
 * a stream becomes such a relation.  The second is refused by the object access hook and the utility hook,
 * within the command.  Where they didn't run (the library was not loaded) queries of the stream
 * fail when a task notices (worker/task/access.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "model/catalog_write.h"
#include "model/in_wal.h"
#include "model/levels.h"
#include "model/log_stream.h"
#include "model/partition.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* ---------- one relation ---------- */

static bool
is_heap(Oid am)
{
	HeapTuple	tuple = SearchSysCache1(AMOID, ObjectIdGetDatum(am));
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_am) GETSTRUCT(tuple))->amhandler == F_HEAP_TABLEAM_HANDLER;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* What keeps the relation's own rows out of the WAL, as the end of "It is ..."; NULL: nothing. */
static const char *
flaw_of_form(Form_pg_class form)
{
	if (form->relpersistence == RELPERSISTENCE_UNLOGGED)
		return "unlogged";
	if (form->relpersistence == RELPERSISTENCE_TEMP)
		return "temporary";
	if (form->relkind == RELKIND_RELATION && !is_heap(form->relam))
		return "not a table of access method heap";
	return NULL;
}

/* What keeps rows of the relation out of the WAL, or NULL.  What the current command changes doesn't count yet. */
static const char *
flaw_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	const char *flaw;

	/* dropped meanwhile */
	if (!HeapTupleIsValid(tuple))
		return NULL;
	form = (Form_pg_class) GETSTRUCT(tuple);
	flaw = flaw_of_form(form);
	/* what is being created has no server yet: sc_stream_refuse_foreign_child() knew it */
	if (flaw == NULL && form->relkind == RELKIND_FOREIGN_TABLE &&
		SearchSysCacheExists1(FOREIGNTABLEREL, ObjectIdGetDatum(relid)) && !sc_is_log_stream(relid))
		flaw = "a foreign table";
	ReleaseSysCache(tuple);
	return flaw;
}

/* ---------- a relation with its partitions ---------- */

const char *
sc_relation_flaw(Oid relid, LOCKMODE lockmode, Oid *partition)
{
	const char *flaw = flaw_of(relid);
	ListCell   *lc;

	*partition = relid;
	if (flaw != NULL)
		return flaw;
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
	{
		List	   *children = has_subclass(relid) ? find_inheritance_children(relid, NoLock) : NIL;

		if (children == NIL)
			return NULL;
		*partition = linitial_oid(children);
		return "inheriting from it";
	}
	foreach(lc, find_all_inheritors(relid, lockmode, NULL))
	{
		*partition = lfirst_oid(lc);
		flaw = flaw_of(*partition);
		if (flaw != NULL)
			return flaw;
	}
	return NULL;
}

void
sc_stream_check_in_wal(Oid stream)
{
	Oid			partition;
	const char *flaw = sc_relation_flaw(stream, NoLock, &partition);

	if (flaw == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("stream \"%s\" has rows that are not in the WAL", get_rel_name(stream)),
			 partition == stream ? errdetail("It is %s.", flaw) :
			 errdetail("Table \"%s\" of it is %s: queries can't see the rows.", get_rel_name(partition), flaw),
			 errhint("Use ALTER TABLE ... SET LOGGED, or detach or drop that table; then call stream_ckpt.resume_query(). Rows that it got meanwhile are not part of the query.")));
}

/* Result rows are updated and deleted with emit update, and within an allowed lateness. */
static bool
is_updated(Oid relid)
{
	ScQuery    *query = sc_query_by_relid(relid, true);

	return query != NULL && query->relid == relid &&
		(query->emit == SC_EMIT_UPDATE || query->allowed_lateness > 0);
}

bool
sc_relation_is_updated(Oid relid, Oid *partition)
{
	ListCell   *lc;

	*partition = relid;
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return is_updated(relid);
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		*partition = lfirst_oid(lc);
		if (is_updated(*partition))
			return true;
	}
	return false;
}

/* ---------- commands ---------- */

/* The stream that "relid" is, or is part of, or InvalidOid; it can't be attached until we commit. */
static Oid
stream_of(Oid relid)
{
	ListCell   *lc;

	/* catalogs of another version tell nothing */
	if (!sc_extension_is_usable())
		return InvalidOid;
	foreach(lc, sc_itself_and_above(relid))
	{
		/* attach_stream() looks at partitions with this lock */
		sc_stream_lock(lfirst_oid(lc), ShareLock);
		if (sc_stream_by_relid(lfirst_oid(lc), true) != NULL)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

static void
refuse_part(Oid stream, const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("\"%s\" cannot be part of stream \"%s\"", name, get_rel_name(stream)),
			 errdetail("%s", detail),
			 errhint("Use an ordinary, logged table or a log stream; or detach \"%s\" first, with stream_ckpt.detach_stream().",
					 get_rel_name(stream))));
}

/* Results in "child" must not be made of what they would be part of. */
static void
refuse_circle(Oid stream, Oid child, Oid parent)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(child, NoLock, NULL))
	{
		const ScQuery *query = sc_query_by_relid(lfirst_oid(lc), true);

		if (query != NULL && query->relid == lfirst_oid(lc) && sc_stream_is_fed_by(query->stream_relid, parent))
			refuse_part(stream, get_rel_name(query->relid),
						"It is the result table of a query that reads this stream, or what is made of it.");
	}
}

void
sc_stream_refuse_partition(Oid child, Oid parent)
{
	Oid			stream = stream_of(parent);
	List	   *ignoring;
	Oid			partition;
	const char *flaw;

	if (!OidIsValid(stream))
		return;
	flaw = sc_relation_flaw(child, NoLock, &partition);
	if (flaw != NULL)
		refuse_part(stream, get_rel_name(partition),
					psprintf("It is %s: its rows would not be in the WAL, and queries could not see them.", flaw));
	ignoring = sc_ignoring_streams(parent);
	if (ignoring != NIL && sc_relation_is_updated(child, &partition))
		refuse_part(linitial_oid(ignoring), get_rel_name(partition),
					"It is the result table of a query that updates its rows, and changes of the stream are not applied.");
	refuse_circle(stream, child, parent);
	if (get_rel_relkind(child) == RELKIND_FOREIGN_TABLE && sc_applying_streams(parent) != NIL)
		refuse_part(linitial_oid(sc_applying_streams(parent)), get_rel_name(child),
					"It is a log stream, whose rows are in the WAL only, and changes of the stream are applied.");
}

/*
 * Before a foreign table of another server than ours is made: fails if one of its parents is, or
 * belongs to, a stream.
 */
void
sc_stream_refuse_foreign_child(List *parents, const char *server)
{
	ListCell   *lc;

	if (sc_is_our_server(server))
		return;
	foreach(lc, parents)
	{
		Oid			parent = RangeVarGetRelid(lfirst(lc), NoLock, true);
		Oid			stream = OidIsValid(parent) ? stream_of(parent) : InvalidOid;

		if (OidIsValid(stream))
			refuse_part(stream, "the new table",
						"It is a foreign table: its rows would not be in the WAL, and queries could not see them.");
	}
}

/*
 * In the object access hook, after ALTER has changed pg_class and before others see it: fails if
 * the command took the relation's rows out of the WAL and a stream has them.
 */
void
sc_stream_refuse_altered(Oid relid)
{
	char		kind = get_rel_relkind(relid);
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	const char *flaw = NULL;
	Oid			stream;

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		return;
	rel = table_open(RelationRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, ClassOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		flaw = flaw_of_form((Form_pg_class) GETSTRUCT(tuple));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (flaw == NULL)
		return;
	stream = stream_of(relid);
	/* one that was so before may be altered in other ways */
	if (OidIsValid(stream) && flaw_of(relid) == NULL)
		refuse_part(stream, get_rel_name(relid),
					psprintf("It would be %s: its rows would not be in the WAL, and queries could not see them.", flaw));
}
