/*-------------------------------------------------------------------------
 * extension.c
 *	  The extension itself in this database (extension.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "model/extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* The version of the catalogs that this library works with: default_version of
 * stream_ckpt.control. */
#define SC_EXTENSION_VERSION "0.3.0"

/*
 * The extension's schema, or InvalidOid where the extension isn't installed;
 * *version: its installed version, palloc'd.
 */
static Oid
extension_schema(char **version)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			result = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("stream_ckpt"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		result = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
		*version = TextDatumGetCString(heap_getattr(tuple, Anum_pg_extension_extversion,
													RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

bool
sc_extension_exists(void)
{
	char	   *version;

	return OidIsValid(extension_schema(&version));
}

/* Compares "1.10.0" and "1.9": by the numbers between the dots. */
static int
compare_versions(const char *a, const char *b)
{
	while (*a || *b)
	{
		long		left = strtol(a, unconstify(char **, &a), 10);
		long		right = strtol(b, unconstify(char **, &b), 10);

		if (left != right)
			return left < right ? -1 : 1;
		a += strcspn(a, "0123456789");
		b += strcspn(b, "0123456789");
	}
	return 0;
}

bool
sc_extension_matches(char **message, char **hint)
{
	char	   *version = NULL;

	*message = *hint = NULL;
	if (!OidIsValid(extension_schema(&version)) ||
		strcmp(version, SC_EXTENSION_VERSION) == 0)
		return true;
	*message = psprintf("extension \"stream_ckpt\" has version %s in this database, and its library has version %s",
						version, SC_EXTENSION_VERSION);
	if (compare_versions(version, SC_EXTENSION_VERSION) < 0)
		*hint = "Run ALTER EXTENSION stream_ckpt UPDATE.";
	else
		*hint = "Install that version of the library, and restart the server.";
	return false;
}

bool
sc_extension_is_usable(void)
{
	char	   *version;

	/* pg_upgrade makes them piece by piece */
	return !IsBinaryUpgrade && OidIsValid(extension_schema(&version)) && strcmp(version, SC_EXTENSION_VERSION) == 0;
}

bool
sc_extension_in_script(void)
{
	return creating_extension && CurrentExtensionObject == get_extension_oid("stream_ckpt", true);
}

void
sc_extension_require(void)
{
	char	   *message;
	char	   *hint;

	/* a script that creates or updates it is what makes them match */
	if (!sc_extension_in_script() && !sc_extension_matches(&message, &hint))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", message),
				 errhint("%s", hint)));
}

Oid
sc_extension_schema(void)
{
	char	   *version;
	Oid			schema = extension_schema(&version);

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"stream_ckpt\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION stream_ckpt.")));
	return schema;
}

/* A table, index or sequence of our schema. */
Oid
sc_relation_oid(const char *relname)
{
	Oid			relid;

	sc_extension_require();
	relid = get_relname_relid(relname, sc_extension_schema());
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of extension \"stream_ckpt\" does not exist",
						relname),
				 errhint("Drop the extension and create it again, or update it with ALTER EXTENSION stream_ckpt UPDATE.")));
	return relid;
}
