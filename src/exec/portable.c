/*-------------------------------------------------------------------------
 * portable.c
 *	  Where else can the state of a compiled query be read?
 *
 * A dump can take states along, and so does pg_upgrade.  In another database whatever is not PostgreSQL's own has another
 * OID, and the bytes of some types hold OIDs: of arrays their elements', of ranges their own, of enums and reg types all
 * that they are.  Functions by which a state was made are part of the query's signature, by OID.  So only what has the same
 * OID everywhere may be in it.  What a serialisation function wrote is for the same functions: those of one major version.
 *
 * The rule: better not than wrong.  What isn't known here can't be read elsewhere.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "exec/exec_internal.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

/* Has it the same OID in every database?  Also if there is none. */
static bool
is_fixed(Oid oid)
{
	return oid < FirstGenbkiObjectId;
}

/* Types that came with the server, whose values are OIDs of something that didn't. */
static bool
names_an_object(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
		case ACLITEMOID:
			return true;
	}
	return false;
}

/* Do the bytes of a value mean the same in every database? */
static bool
type_is_portable(Oid type)
{
	check_stack_depth();
	if (!is_fixed(type) || names_an_object(type))
		return false;
	switch (get_typtype(type))
	{
		case TYPTYPE_BASE:
			return !OidIsValid(get_element_type(type)) || type_is_portable(get_element_type(type));
		case TYPTYPE_RANGE:
			return type_is_portable(get_range_subtype(type));
		case TYPTYPE_MULTIRANGE:
			return type_is_portable(get_multirange_range(type));
		default:
			return false;
	}
}

static bool
key_is_portable(const ScKeyState *key)
{
	return type_is_portable(key->type.oid) && is_fixed(key->collation) &&
		is_fixed(key->eq.fn_oid) && is_fixed(key->hash.fn_oid);
}

/* An aggregate's states, with the functions that they need. */
static ScPortable
state_portable(const ScTrans *trans)
{
	const struct AggStatePerTransData *pertrans = trans->pertrans;

	if (!is_fixed(pertrans->aggref->aggfnoid) || !is_fixed(pertrans->transfn_oid) || !is_fixed(pertrans->serialfn_oid) ||
		!is_fixed(pertrans->deserialfn_oid) || !is_fixed(trans->combinefn) ||
		(trans->inverse_fcinfo != NULL && !is_fixed(trans->inverse.fn_oid)))
		return SC_PORTABLE_NO;
	if (trans->kind != SC_TRANS_INPUTS && !type_is_portable(trans->type.oid))
		return SC_PORTABLE_NO;
	for (int i = 0; trans->input_types != NULL && i < trans->ninputs; i++)
	{
		if (!type_is_portable(trans->input_types[i].oid))
			return SC_PORTABLE_NO;
	}
	return trans->kind == SC_TRANS_SERIAL ? SC_PORTABLE_VERSION : SC_PORTABLE_YES;
}

/* The least of what its keys and states allow. */
void
sc_portable_compile(ScEngine *engine)
{
	ScPortable	result = SC_PORTABLE_YES;

	for (int i = 0; i < engine->nkeys; i++)
	{
		if (!key_is_portable(&engine->keys[i]))
			result = SC_PORTABLE_NO;
	}
	for (int t = 0; t < engine->ntrans; t++)
		result = Min(result, state_portable(&engine->trans[t]));
	engine->portable = result;
}

ScPortable
sc_engine_portable(const ScEngine *engine)
{
	return engine->portable;
}
