/*-------------------------------------------------------------------------
 * temporary.c
 *	  Refuses definitions that depend on temporary objects.
 *
 * A type, function or operator of a temporary schema goes with its session, and would take the
 * definition's view, and so the query, along; and workers don't see it under its name.  What a
 * view depends on, directly or by something else, is in pg_depend once it was made; and so is that an
 * object depends on its schema.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "api/api_internal.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_rewrite.h"
#include "rewrite/prs2lock.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/relcache.h"

static bool
is_known(List *objects, Oid class_id, Oid object_id)
{
	ListCell   *lc;

	foreach(lc, objects)
	{
		ObjectAddress *object = lfirst(lc);

		if (object->objectId == object_id && object->classId == class_id)
			return true;
	}
	return false;
}

static List *
append_object(List *objects, Oid class_id, Oid object_id)
{
	ObjectAddress *object = palloc(sizeof(ObjectAddress));

	ObjectAddressSet(*object, class_id, object_id);
	return lappend(objects, object);
}

/*
 * Appends to "objects" what the object depends on, unless it is there already.  *temporary: it is
 * in a temporary schema, anybody's.
 */
static List *
append_references(List *objects, Relation depend, const ObjectAddress *object, bool *temporary)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	*temporary = false;
	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object->classId));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object->objectId));
	scan = systable_beginscan(depend, DependDependerIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		if (form->refclassid == NamespaceRelationId)
			*temporary |= isAnyTempNamespace(form->refobjid);
		else if (!is_known(objects, form->refclassid, form->refobjid))
			objects = append_object(objects, form->refclassid, form->refobjid);
	}
	systable_endscan(scan);
	return objects;
}

void
sc_refuse_temporary(Oid view)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	Relation	relation = RelationIdGetRelation(view);
	List	   *objects = append_object(NIL, RewriteRelationId, relation->rd_rules->rules[0]->ruleId);

	RelationClose(relation);
	for (int i = 0; i < list_length(objects); i++)
	{
		ObjectAddress *object = list_nth(objects, i);
		bool		temporary;

		objects = append_references(objects, depend, object, &temporary);
		if (temporary)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a temporary object is not supported in a continuous query"),
					 errdetail("The definition depends on %s.", getObjectDescription(object, false)),
					 errhint("Make it in another schema: what is temporary goes with the session, and with it the query would.")));
	}
	table_close(depend, AccessShareLock);
}
