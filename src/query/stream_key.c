/*-------------------------------------------------------------------------
 * stream_key.c
 *	  Which columns tell the rows of a stream apart: those of a unique index that holds at every moment.
 *
 * A query without groups over a stream whose changes are applied knows a row of its result by them.  So two rows may have
 * them in common neither now nor between two statements of a transaction (DEFERRABLE), and what is equal in the index must
 * be equal in the result's index: the default operator of the type, the collation of the column.
 *
 * Reads the catalogs only, takes no lock and calls no code of anybody's: the coordinator asks, too.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_index.h"
#include "query/stream_key.h"
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

Bitmapset *
sc_stream_key(Oid stream, const Bitmapset *attnos, Oid *index)
{
	Relation	rel = RelationIdGetRelation(stream);
	Bitmapset  *result = NULL;
	ListCell   *lc;

	*index = InvalidOid;
	if (!RelationIsValid(rel))
		return NULL;
	/* by their oids, which last as long as the indexes do; but the primary key first */
	foreach(lc, RelationGetIndexList(rel))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Bitmapset  *columns;
		bool		primary;

		if (!HeapTupleIsValid(tuple))
			continue;
		primary = ((Form_pg_index) GETSTRUCT(tuple))->indisprimary;
		columns = result == NULL || primary ? columns_of(tuple, RelationGetDescr(rel), attnos) : NULL;
		ReleaseSysCache(tuple);
		if (columns == NULL)
			continue;
		result = columns;
		*index = lfirst_oid(lc);
	}
	RelationClose(rel);
	return result;
}
