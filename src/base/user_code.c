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
 * SQL's plans are made again by the server when the search_path is another one; other
 * languages look names up when they run.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/compat.h"
#include "base/process.h"
#include "base/user_code.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "commands/proclang.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "plpgsql.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

typedef struct UserFunction
{
	Oid			funcid;			/* hash key */
	Oid			caller;			/* whom it is compiled for, in whole or not; or InvalidOid */
	char	   *search_path;	/* the caller's: the setting, as "$user" and privileges go with him */
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
static Call *calls;				/* the innermost is the last */
static int	ncalls;
static int	max_calls;
static bool seen;
static PGFunction handler;		/* of PL/pgSQL; NULL: none of its functions was looked at */
static needs_fmgr_hook_type prev_needs_hook;
static fmgr_hook_type prev_hook;

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

static inline bool
is_for_caller(const UserFunction *function)
{
	return function->caller == GetUserId() &&
		strcmp(function->search_path, namespace_search_path) == 0;
}

/* The next call compiles it, for whoever makes it. */
static void
forget_compiled(UserFunction *function)
{
	ListCell   *lc;

	function->caller = InvalidOid;
	/* those in use know what theirs is only when they return */
	for (int i = 0; i < ncalls; i++)
	{
		if (calls[i].function == function)
			note_compiled(function, calls[i].flinfo);
	}
	foreach(lc, function->compiled)
		sc_plpgsql_cached((PLpgSQL_function *) lfirst(lc))->fn_xmin = InvalidTransactionId;
}

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
	if (!is_for_caller(function))
	{
		char	   *search_path = MemoryContextStrdup(TopMemoryContext, namespace_search_path);

		note_compiled(function, flinfo);
		forget_compiled(function);
		if (function->search_path != NULL)
			pfree(function->search_path);
		function->search_path = search_path;
		function->caller = GetUserId();
	}
	calls[ncalls].function = function;
	calls[ncalls++].flinfo = flinfo;
}

/*
 * After an error there may be half a compiled function, which PL/pgSQL takes for a whole one:
 * it is in nobody's hash table then.
 */
static void
end_call(const FmgrInfo *flinfo, bool failed)
{
	UserFunction *function;

	/* one that failed to begin */
	if (ncalls == 0 || calls[ncalls - 1].flinfo != flinfo)
		return;
	function = calls[--ncalls].function;
	note_compiled(function, flinfo);
	if (failed && (flinfo->fn_extra == NULL ||
				   sc_plpgsql_cached((PLpgSQL_function *) flinfo->fn_extra)->fn_hashkey == NULL))
		forget_compiled(function);
}

/* ---------- hooks ---------- */

/* PL/pgSQL's handler, by which its functions are known. */
static PGFunction
find_handler(Oid language)
{
	HeapTuple	tuple = SearchSysCache1(LANGOID, ObjectIdGetDatum(language));
	FmgrInfo	finfo;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for language %u", language);
	fmgr_info(((Form_pg_language) GETSTRUCT(tuple))->lanplcallfoid, &finfo);
	ReleaseSysCache(tuple);
	return finfo.fn_addr;
}

static bool
needs_hook(Oid funcid)
{
	HeapTuple	tuple;
	Oid			language;

	if (prev_needs_hook && prev_needs_hook(funcid))
		return true;
	if (sc_my_process == SC_PROCESS_NONE || funcid < FirstNormalObjectId)
		return false;
	seen = true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
	ReleaseSysCache(tuple);
	if (language == INTERNALlanguageId || language == ClanguageId ||
		language == SQLlanguageId || language != get_language_oid("plpgsql", true))
		return false;
	if (handler == NULL)
		handler = find_handler(language);
	return true;
}

static void
call_hook(FmgrHookEventType event, FmgrInfo *flinfo, Datum *arg)
{
	/* another library's hook may want to see calls of any function */
	if (sc_my_process != SC_PROCESS_NONE && flinfo->fn_addr == handler)
	{
		seen = true;
		if (event == FHET_START)
			begin_call(flinfo);
		else
			end_call(flinfo, event == FHET_ABORT);
	}
	if (prev_hook)
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
