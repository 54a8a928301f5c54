/*-------------------------------------------------------------------------
 * settings.c
 *	  Settings of extensions that a definition depends on: pg_trgm.similarity_threshold for
 *	  pg_trgm's operators.
 *
 * Nobody registers which function reads which setting.  But an extension's settings begin with its name
 * or its library's; so those of the extensions whose functions the definition calls, itself or by an
 * operator, a cast or an aggregate, are kept with the query.  What those functions call in turn isn't
 * seen, and variables without an extension (SET my.variable) aren't kept.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "base/env.h"
#include "catalog/dependency.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "nodes/nodeFuncs.h"
#include "query/analyze.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

static void
add_prefix(List **prefixes, const char *prefix)
{
	ListCell   *lc;

	foreach(lc, *prefixes)
	{
		if (strcmp(lfirst(lc), prefix) == 0)
			return;
	}
	*prefixes = lappend(*prefixes, pstrdup(prefix));
}

/* The name of a C function's library without folder and suffix; NULL: it isn't in C. */
static char *
library_of(Oid funcid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	char	   *library = NULL;
	bool		isnull;
	Datum		probin;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	probin = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &isnull);
	if (!isnull)
	{
		char	   *path = TextDatumGetCString(probin);
		char	   *slash = last_dir_separator(path);
		char	   *dot;

		library = slash ? slash + 1 : path;
		dot = strchr(library, '.');
		if (dot)
			*dot = '\0';
	}
	ReleaseSysCache(tuple);
	return library;
}

/*
 * For check_functions_in_node: adds the prefixes of settings that the function may read.  Never ends
 * the walk.
 */
static bool
add_function(Oid funcid, void *prefixes)
{
	Oid			extension;
	char	   *library;

	if (!OidIsValid(funcid) || funcid < FirstNormalObjectId)
		return false;
	extension = getExtensionOfObject(ProcedureRelationId, funcid);
	if (OidIsValid(extension))
		add_prefix(prefixes, get_extension_name(extension));
	library = library_of(funcid);
	if (library)
		add_prefix(prefixes, library);
	return false;
}

static void
add_aggregate(Oid aggregate, List **prefixes)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	Form_pg_aggregate form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	(void) add_function(form->aggtransfn, prefixes);
	(void) add_function(form->aggfinalfn, prefixes);
	ReleaseSysCache(tuple);
}

static bool
collect(Node *node, List **prefixes)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, collect, prefixes, 0);
	if (IsA(node, Aggref))
		add_aggregate(((Aggref *) node)->aggfnoid, prefixes);
	else
		(void) check_functions_in_node(node, add_function, prefixes);
	return expression_tree_walker(node, collect, prefixes);
}

List *
sc_definition_settings(Oid view)
{
	Relation	rel = relation_open(view, AccessShareLock);
	List	   *prefixes = NIL;
	List	   *result = NIL;
	ListCell   *lc;

	(void) collect((Node *) get_view_query(rel), &prefixes);
	relation_close(rel, NoLock);
	foreach(lc, prefixes)
		result = list_concat(result, sc_env_settings_of(lfirst(lc)));
	return result;
}
