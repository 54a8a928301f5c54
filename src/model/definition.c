/*-------------------------------------------------------------------------
 * definition.c
 *	  What query/ and exec/ must agree on about keys (definition.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "model/definition.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

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
