/*-------------------------------------------------------------------------
 * stream_key.c
 *	  Which columns tell the rows of a stream apart: those of a unique index that holds at every moment.
 *
 * A query without groups over a stream whose changes are applied knows a row of its result by them.  So two rows may have
 * them in common neither now nor between two statements of a transaction (DEFERRABLE), and what is equal in the index must
 * be equal in the result's index: the default operator of the type, the collation of the column.
 *
 * A stream can have several keys, and get others while queries run: any that the result's index has identifies its rows.
 *
 * Reads the catalogs only, takes no lock on the stream and calls no code of anybody's: the coordinator asks, too.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_rewrite.h"
#include "query/stream_key.h"
#include "rewrite/rewriteSupport.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* Does the n-th column of the index tell values apart as the column itself does, and is it never NULL? */
static bool
is_plain_column(TupleDesc desc, AttrNumber attno, Oid opclass, Oid collation)
{
	Form_pg_attribute att = attno > 0 ? TupleDescAttr(desc, attno - 1) : NULL;
	Oid			type = get_opclass_input_type(opclass);

	return att != NULL && att->attnotnull && att->attcollation == collation &&
		get_opfamily_member(get_opclass_family(opclass), type, type, BTEqualStrategyNumber) ==
		lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR)->eq_opr;
}

static bool
attribute_is_null(HeapTuple index, AttrNumber attno)
{
	bool		isnull;

	(void) SysCacheGetAttr(INDEXRELID, index, attno, &isnull);
	return isnull;
}

/* The index's columns, if they tell rows apart and are all among "attnos"; else NULL. */
static Bitmapset *
columns_of(HeapTuple tuple, TupleDesc desc, const Bitmapset *attnos)
{
	Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);
	Bitmapset  *result = NULL;
	bool		isnull;
	oidvector  *opclasses;
	oidvector  *collations;

	if (!form->indisunique || form->indisexclusion || !form->indimmediate || !form->indisvalid || !form->indisready || !form->indislive ||
		!attribute_is_null(tuple, Anum_pg_index_indpred) || !attribute_is_null(tuple, Anum_pg_index_indexprs))
		return NULL;
	opclasses = (oidvector *) DatumGetPointer(SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indclass, &isnull));
	collations = (oidvector *) DatumGetPointer(SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indcollation, &isnull));
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber	attno = form->indkey.values[i];

		if (attno <= 0 || !bms_is_member(attno, attnos) ||
			!is_plain_column(desc, attno, opclasses->values[i], collations->values[i]))
			return NULL;
		result = bms_add_member(result, attno);
	}
	return result;
}

/* Does the rule of the view depend on the index, or on its constraint?  (As create_query() has recorded it.) */
static bool
is_views(Oid view, Oid index)
{
	Oid			rule = OidIsValid(view) ? get_rewrite_oid(view, ViewSelectRuleName, true) : InvalidOid;
	Oid			constraint = get_index_constraint(index);
	ScanKeyData key[2];
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	if (!OidIsValid(rule))
		return false;
	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyInit(&key[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(RewriteRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(rule));
	scan = systable_beginscan(rel, DependDependerIndexId, true, NULL, lengthof(key), key);
	while (!result && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);

		result = OidIsValid(constraint) ?
			depend->refclassid == ConstraintRelationId && depend->refobjid == constraint :
			depend->refclassid == RelationRelationId && depend->refobjid == index;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* Do the indexes of partitions hold at every moment, too?  One can be attached though its constraint is DEFERRABLE. */
static bool
holds_in_partitions(Oid index)
{
	bool		result = true;
	ListCell   *lc;

	if (get_rel_relkind(index) != RELKIND_PARTITIONED_INDEX)
		return true;
	foreach(lc, find_all_inheritors(index, NoLock, NULL))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));

		if (!HeapTupleIsValid(tuple))
			continue;
		result &= ((Form_pg_index) GETSTRUCT(tuple))->indimmediate;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* The columns of the index if it is a key, all of them among "attnos"; else NULL. */
static Bitmapset *
key_of(Oid index, TupleDesc desc, const Bitmapset *attnos, bool *primary)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Bitmapset  *result;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	*primary = ((Form_pg_index) GETSTRUCT(tuple))->indisprimary;
	result = columns_of(tuple, desc, attnos);
	ReleaseSysCache(tuple);
	return result != NULL && holds_in_partitions(index) ? result : NULL;
}

Bitmapset *
sc_stream_key(Oid stream, const Bitmapset *attnos, Oid view, Oid *index, Bitmapset **all)
{
	Relation	rel = RelationIdGetRelation(stream);
	Bitmapset  *result = NULL;
	int			best = 0;
	ListCell   *lc;

	*index = InvalidOid;
	*all = NULL;
	if (!RelationIsValid(rel))
		return NULL;
	foreach(lc, RelationGetIndexList(rel))
	{
		bool		primary;
		Bitmapset  *columns = key_of(lfirst_oid(lc), RelationGetDescr(rel), attnos, &primary);
		int			rank;

		if (columns == NULL)
			continue;
		*all = bms_add_members(*all, columns);
		rank = is_views(view, lfirst_oid(lc)) ? 3 : primary ? 2 : 1;
		if (rank <= best)
			continue;
		best = rank;
		result = columns;
		*index = lfirst_oid(lc);
	}
	RelationClose(rel);
	return result;
}

bool
sc_is_stream_key(Oid stream, const Bitmapset *attnos)
{
	Relation	rel = RelationIdGetRelation(stream);
	bool		result = false;
	bool		primary;
	ListCell   *lc;

	if (!RelationIsValid(rel))
		return false;
	foreach(lc, RelationGetIndexList(rel))
	{
		if (bms_equal(key_of(lfirst_oid(lc), RelationGetDescr(rel), attnos, &primary), attnos))
			result = true;
	}
	RelationClose(rel);
	return result;
}
