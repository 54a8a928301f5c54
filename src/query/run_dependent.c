/*-------------------------------------------------------------------------
 * run_dependent.c
 *	  Functions of pg_catalog whose value depends on something else than their arguments
 *	  and the settings that are kept with a query.
 *
 * Such a value is another one after a restart, in another process, or when the plain query is run:
 * the time, the transaction, the session and its role; how a value is stored; statistics; and
 * what the catalogs say by now.  Their volatility doesn't tell: most are stable, as date_trunc()
 * is.  They are known by their names, and most of them by how these begin: what pg_catalog calls
 * pg_... and declares stable tells about the server, but for the few of server_exceptions.
 *
 * Input, output and conversion functions of types are never among them: every cast would be.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "query/names.h"
#include "query/query_internal.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* Whole names. */
static const char *const names[] = {
	/* time */
	"now", "transaction_timestamp", "statement_timestamp", "clock_timestamp", "timeofday",
	/* transactions */
	"txid_current", "txid_current_if_assigned", "txid_current_snapshot", "mxid_age",
	/* the session, its role and its server */
	"inet_client_addr", "inet_client_port", "inet_server_addr", "inet_server_port",
	"current_user", "session_user", "system_user", "getpgusername", "current_setting",
	"current_schemas", "row_security_active", "version", "icu_unicode_version", "unicode_version",
	/* tables */
	"table_to_xml", "table_to_xmlschema", "table_to_xml_and_xmlschema",
	"schema_to_xml", "schema_to_xmlschema", "schema_to_xml_and_xmlschema",
	"database_to_xml", "database_to_xmlschema", "database_to_xml_and_xmlschema",
	/* comments */
	"obj_description", "shobj_description", "col_description",
	/* a time zone's offset of today, unless the text has one */
	"timetz_in"
};

/* Immutable by declaration, and not among the stable ones below. */
static const char *const immutable_names[] = {
	"pg_partition_root"
};

/* Beginnings of names of stable and volatile functions. */
static const char *const beginnings[] = {
	"pg_", "has_", "to_reg"
};

/* Those of "pg_" whose value depends on their arguments alone. */
static const char *const server_exceptions[] = {
	"pg_typeof", "pg_basetype", "pg_collation_for", "pg_char_to_encoding", "pg_encoding_to_char",
	"pg_input_is_valid", "pg_input_error_info",
	"pg_dependencies_recv", "pg_dependencies_send", "pg_mcv_list_recv", "pg_mcv_list_send",
	"pg_ndistinct_recv", "pg_ndistinct_send", "pg_node_tree_recv", "pg_node_tree_send"
};

static bool
begins_like_one(const char *name)
{
	if (sc_name_is_among(name, server_exceptions, lengthof(server_exceptions)))
		return false;
	for (int i = 0; i < lengthof(beginnings); i++)
	{
		if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0)
			return true;
	}
	return false;
}

bool
sc_is_run_dependent(Oid funcid)
{
	char	   *name;

	if (get_func_namespace(funcid) != PG_CATALOG_NAMESPACE)
		return false;
	/* the offset of a time without a date is today's */
	if (funcid == F_TIMETZ_TIME || funcid == F_TIMEZONE_TEXT_TIMETZ)
		return true;
	name = get_func_name(funcid);
	if (name == NULL)
		return false;
	/* with one argument from today, or from the current transaction */
	if (strcmp(name, "age") == 0)
		return get_func_nargs(funcid) == 1;
	if (sc_name_is_among(name, names, lengthof(names)) ||
		sc_name_is_among(name, immutable_names, lengthof(immutable_names)))
		return true;
	return func_volatile(funcid) != PROVOLATILE_IMMUTABLE && begins_like_one(name);
}
