/*-------------------------------------------------------------------------
 * definition.c
 *	  What query/ and exec/ must agree on about keys (definition.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/transam.h"
#include "catalog/pg_range.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "model/definition.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static bool type_can_change(Oid type);

bool
sc_key_equal_is_image(Oid type, Oid eq_operator, Oid collation)
{
	TypeCacheEntry *cache = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_BTREE_OPFAMILY);
	Oid			proc;

	if (!OidIsValid(cache->btree_opf) || cache->eq_opr != eq_operator)
		return false;
	/* equal without trailing blanks, although its operator class promises images */
	if (cache->btree_opintype == BPCHAROID)
		return false;
	proc = get_opfamily_proc(cache->btree_opf, cache->btree_opintype,
							 cache->btree_opintype, BTEQUALIMAGE_PROC);
	return OidIsValid(proc) &&
		DatumGetBool(OidFunctionCall1Coll(proc, collation,
										  ObjectIdGetDatum(cache->btree_opintype)));
}

/* By a collation that isn't deterministic, what is equal is the library's to say. */
static bool
collation_can_change(Oid collation)
{
	return OidIsValid(collation) && !get_collation_isdeterministic(collation);
}

/* A range compares its bounds by an operator class and a collation of its own. */
static bool
range_can_change(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(RANGETYPE, ObjectIdGetDatum(type));
	FormData_pg_range range;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for range type %u", type);
	range = *(Form_pg_range) GETSTRUCT(tuple);
	ReleaseSysCache(tuple);
	return range.rngsubopc >= FirstNormalObjectId || collation_can_change(range.rngcollation) ||
		type_can_change(range.rngsubtype);
}

/*
 * A type that came with the server compares by what came with it, unless somebody gave it its
 * only operator class; one that didn't, by what its owner can replace.
 */
static bool
base_type_can_change(Oid type)
{
	Oid			element = get_element_type(type);

	if (OidIsValid(element))
		return type_can_change(element);
	return type >= FirstNormalObjectId ||
		lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr >= FirstNormalObjectId;
}

/*
 * Whether values of the type that differ now may be equal later.  Composite types are such, and
 * whatever isn't known here.
 */
static bool
type_can_change(Oid type)
{
	check_stack_depth();
	switch (get_typtype(type))
	{
		case TYPTYPE_BASE:
			return base_type_can_change(type);
		case TYPTYPE_DOMAIN:
			return type_can_change(getBaseType(type));
		case TYPTYPE_ENUM:
			return false;		/* by oid */
		case TYPTYPE_RANGE:
			return range_can_change(type);
		case TYPTYPE_MULTIRANGE:
			return type_can_change(get_multirange_range(type));
		default:
			return true;		/* composite, or a record of whatever types */
	}
}

bool
sc_key_equality_can_change(const ScKey *key)
{
	return key->eq_operator >= FirstNormalObjectId || collation_can_change(key->collation) ||
		type_can_change(key->type);
}
