/*-------------------------------------------------------------------------
 * user_code.c
 *	  Functions that users wrote, in processes that several owners share (user_code.h).
 *
 * PL/pgSQL takes a compiled function for out of date where the xmin of the pg_proc row that
 * it was made of isn't the row's any more.  So taking that xmin away is all that it takes to
 * have it compiled again, in place.  One function has several compiled ones: for each
 * trigger, collation, and set of polymorphic types.  Each is known once it was called,
 * by the FmgrInfo's fn_extra, where PL/pgSQL leaves it before it runs it.  Their structs are
 * never freed.
 *
 * SQL's plans are made again by the server when the search_path is another one, and belong to a
 * query, or (since 18) are given up in other surroundings (env.c); other languages look names
 * up when they run.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/compat.h"
#include "base/env.h"
#include "base/process.h"
#include "base/user_code.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "commands/proclang.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "plpgsql.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/* Longer search paths are never the same. */
#define MAX_PATH 64

typedef struct UserFunction
{
	Oid			funcid;			/* hash key */
	int			len;			/* of the next; 0: it is compiled for nobody */
	char	   *surroundings;	/* in which it is compiled (look_around) */
	List	   *compiled;		/* PLpgSQL_function *: what is known of it, whatever became of that */
	PLpgSQL_function *last;		/* of these */
} UserFunction;

/* A call that hasn't returned. */
typedef struct Call
{
	UserFunction *function;
	FmgrInfo   *flinfo;
} Call;

static HTAB *functions;
static StringInfoData here;		/* the surroundings of the call that begins */
static Call *calls;				/* the innermost is the last */
static int	ncalls;
static int	max_calls;
static bool seen;
static PGFunction handler;		/* of PL/pgSQL; NULL: none of its functions was called yet */
static needs_fmgr_hook_type prev_needs_hook;
static fmgr_hook_type prev_hook;

/* Makes the entry if there is none; it stays for the life of the process. */
static UserFunction *
find(Oid funcid)
{
	UserFunction *function;
	bool		found;

	if (functions == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(UserFunction);
		functions = hash_create("stream_ckpt user functions", 64, &ctl,
								HASH_ELEM | HASH_BLOBS);
	}
	function = hash_search(functions, &funcid, HASH_ENTER, &found);
	if (!found)
		memset((char *) function + sizeof(Oid), 0, sizeof(UserFunction) - sizeof(Oid));
	return function;
}

/* ---------- for whom it is compiled ---------- */

/*
 * What compiling and planning depend on, into "here": the schemas in which names are looked up
 * ("$user" and privileges are in that), and the settings that literals are read by.
 */
static void
look_around(void)
{
	static uint64 different = 0;
	Oid			path[MAX_PATH];
	int			n = fetch_search_path_array(path, MAX_PATH);

	if (here.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&here);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(&here);
	appendBinaryStringInfo(&here, (char *) &n, sizeof(n));
	if (n <= MAX_PATH)
		appendBinaryStringInfo(&here, (char *) path, n * sizeof(Oid));
	else
	{
		different++;
		appendBinaryStringInfo(&here, (char *) &different, sizeof(different));
	}
	sc_env_append_settings(&here);
}

static inline bool
is_compiled_for_here(const UserFunction *function)
{
	return function->len == here.len &&
		memcmp(function->surroundings, here.data, here.len) == 0;
}

/* Remembers what PL/pgSQL has compiled for a call. */
static void
note_compiled(UserFunction *function, const FmgrInfo *flinfo)
{
	MemoryContext old;

	if (flinfo->fn_extra == NULL || flinfo->fn_extra == function->last)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	function->compiled = list_append_unique_ptr(function->compiled, flinfo->fn_extra);
	function->last = flinfo->fn_extra;
	MemoryContextSwitchTo(old);
}

/* The next call compiles it. */
static void
forget_compiled(UserFunction *function)
{
	ListCell   *lc;

	foreach(lc, function->compiled)
		sc_plpgsql_cached((PLpgSQL_function *) lfirst(lc))->fn_xmin = InvalidTransactionId;
}

/*
 * A compiled function that is running can't be replaced: PL/pgSQL would keep it for good.  That
 * takes a function that is called by one which it calls, in other surroundings.
 */
static void
refuse_while_running(const UserFunction *function)
{
	for (int i = 0; i < ncalls; i++)
	{
		if (calls[i].function == function)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("function %s is running, and is called again under another search_path or other settings",
							format_procedure_qualified(function->funcid)),
					 errhint("Give the function a search_path of its own: ALTER FUNCTION ... SET search_path = ...")));
	}
}

/*
 * Puts the call on the stack of those that run.  If the function was compiled in other surroundings
 * it is compiled again in these; fails if it must be while it is running.
 */
static void
begin_call(FmgrInfo *flinfo)
{
	UserFunction *function = find(flinfo->fn_oid);

	if (ncalls == max_calls)
	{
		int			n = Max(64, max_calls * 2);

		calls = calls == NULL ? MemoryContextAlloc(TopMemoryContext, n * sizeof(Call)) :
			repalloc_huge(calls, n * sizeof(Call));
		max_calls = n;
	}
	look_around();
	if (!is_compiled_for_here(function))
	{
		refuse_while_running(function);
		note_compiled(function, flinfo);
		forget_compiled(function);
		function->len = 0;
		if (function->surroundings != NULL)
			pfree(function->surroundings);
		function->surroundings = NULL;
		function->surroundings = MemoryContextAlloc(TopMemoryContext, here.len);
		memcpy(function->surroundings, here.data, here.len);
		function->len = here.len;
	}
	calls[ncalls].function = function;
	calls[ncalls++].flinfo = flinfo;
}

/*
 * After an error there may be half a compiled function, which PL/pgSQL takes for a whole one:
 * it is in nobody's hash table then, and the next call begins anew.
 */
static void
end_call(const FmgrInfo *flinfo, bool failed)
{
	UserFunction *function;
	int			i = ncalls - 1;

	while (i >= 0 && calls[i].flinfo != flinfo)
		i--;
	if (i < 0)
		return;
	function = calls[i].function;
	ncalls = i;
	note_compiled(function, flinfo);
	if (failed && (flinfo->fn_extra == NULL ||
				   sc_plpgsql_cached((PLpgSQL_function *) flinfo->fn_extra)->fn_hashkey == NULL))
		function->len = 0;
}

/* ---------- hooks ---------- */

/* PL/pgSQL's handler, by which its functions are known. */
static PGFunction
find_handler(void)
{
	Oid			language = get_language_oid("plpgsql", false);
	HeapTuple	tuple = SearchSysCache1(LANGOID, ObjectIdGetDatum(language));
	FmgrInfo	finfo;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for language %u", language);
	fmgr_info(((Form_pg_language) GETSTRUCT(tuple))->lanplcallfoid, &finfo);
	ReleaseSysCache(tuple);
	return finfo.fn_addr;
}

static bool
is_plpgsql(Oid funcid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Oid			language;

	if (!HeapTupleIsValid(tuple))
		return false;
	language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
	ReleaseSysCache(tuple);
	return language != INTERNALlanguageId && language != ClanguageId &&
		language != SQLlanguageId && language == get_language_oid("plpgsql", true);
}

/* Is it written in C, by us? */
static bool
is_our_own(Oid funcid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	char	   *schema;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	schema = get_namespace_name(((Form_pg_proc) GETSTRUCT(tuple))->pronamespace);
	result = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId &&
		schema != NULL && strcmp(schema, "stream_ckpt") == 0;
	ReleaseSysCache(tuple);
	return result;
}

/* Isn't asked about functions whose calls are seen anyway: SECURITY DEFINER, or with settings. */
static bool
needs_hook(Oid funcid)
{
	bool		result = false;

	if (sc_my_process != SC_PROCESS_NONE && funcid >= FirstNormalObjectId && !is_our_own(funcid))
	{
		seen = true;
		result = is_plpgsql(funcid);
	}
	return result || (prev_needs_hook && prev_needs_hook(funcid));
}

/* Calls of functions of any language, and of those that came with the server, are seen here, too. */
static void
call_hook(FmgrHookEventType event, FmgrInfo *flinfo, Datum *arg)
{
	bool		ours = sc_my_process != SC_PROCESS_NONE && flinfo->fn_oid >= FirstNormalObjectId;

	/* one that fails there is not told of the end */
	if (event == FHET_START && prev_hook)
		prev_hook(event, flinfo, arg);
	if (ours)
	{
		seen = true;
		if (handler == NULL && is_plpgsql(flinfo->fn_oid))
			handler = find_handler();
	}
	if (ours && flinfo->fn_addr == handler)
	{
		if (event == FHET_START)
			begin_call(flinfo);
		else
			end_call(flinfo, event == FHET_ABORT);
	}
	if (event != FHET_START && prev_hook)
		prev_hook(event, flinfo, arg);
}

bool
sc_user_code_seen(void)
{
	bool		result = seen;

	seen = false;
	return result;
}

void
sc_user_code_init(void)
{
	prev_needs_hook = needs_fmgr_hook;
	needs_fmgr_hook = needs_hook;
	prev_hook = fmgr_hook;
	fmgr_hook = call_hook;
}
