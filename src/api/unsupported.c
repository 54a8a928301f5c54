/*-------------------------------------------------------------------------
 * unsupported.c
 *	  SQL functions that belong to the interface and aren't built yet: all of them
 *	  are this one, which says so by the name under which it was called, with what to
 *	  do instead.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api/api_internal.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(stream_ckpt_not_supported);

static const struct
{
	const char *function;
	const char *hint;
}			functions[] = {
	{"create_savepoint", "stream_ckpt.checkpoint() writes a checkpoint now."},
	{"restore_savepoint", "A pipeline goes on from its last checkpoint by itself."},
	{"drop_savepoint", "There are no savepoints to drop."}
};

Datum
stream_ckpt_not_supported(PG_FUNCTION_ARGS)
{
	const char *name = get_func_name(fcinfo->flinfo->fn_oid);
	const char *hint = NULL;

	for (int i = 0; i < lengthof(functions); i++)
	{
		if (strcmp(name, functions[i].function) == 0)
			hint = functions[i].hint;
	}
	sc_not_supported(psprintf("%s()", name), hint);
}
