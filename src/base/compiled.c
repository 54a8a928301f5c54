/*-------------------------------------------------------------------------
 * compiled.c
 *	  PL/pgSQL's compiled functions in processes that several owners share
 *	  (compiled.h).
 *
 * What a compilation has looked up isn't known outside of PL/pgSQL.  But what it can have
 * looked up is: a type or a collation whose name is a word of the source.  So when a function is
 * called for the first time, each word of it is looked up; and again when it is called
 * under another search_path or by another user.  Words of comments and strings are
 * looked up, too: at worst a call is refused that could have been made.
 *
 * Trigger functions are compiled for each trigger, and SQL's plans are made again when
 * the search_path is another one: only PL/pgSQL's own functions are of interest.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compiled.h"
#include "base/process.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/proclang.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/* Who called a function, and where names were looked up then. */
typedef struct Caller
{
	Oid			user;
	char	   *search_path;	/* the setting: "$user" and privileges depend on the user */
} Caller;

typedef struct CompiledFunction
{
	Oid			funcid;			/* hash key */
	bool		is_plpgsql;		/* and no trigger function */
	uint64		checked;		/* "changes" when it was looked at last */
	TransactionId xmin;			/* of its row in pg_proc, as PL/pgSQL compares them */
	ItemPointerData tid;
	MemoryContext context;		/* of what follows; NULL: not called yet */
	List	   *meanings;		/* Oids: of each word, the type and the collation */
	List	   *callers;		/* Caller *: for whom the words mean the same */
	Caller	   *last;			/* of these */
} CompiledFunction;

static HTAB *functions;
static uint64 changes = 1;		/* of pg_proc */
static Oid	plpgsql;			/* its language */
static needs_fmgr_hook_type prev_needs_hook;
static fmgr_hook_type prev_hook;

static void
note_change(Datum arg, int cacheid, uint32 hashvalue)
{
	changes++;
	plpgsql = InvalidOid;
}

/* ---------- words ---------- */

static inline bool
begins_word(unsigned char c)
{
	return isalpha(c) || c == '_' || IS_HIGHBIT_SET(c);
}

static inline bool
is_in_word(unsigned char c)
{
	return begins_word(c) || isdigit(c) || c == '$';
}

/* The quoted identifier that begins at "at", without its quotes; *end: behind it. */
static char *
quoted_word(const char *at, const char **end)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (at++; *at != '\0'; at++)
	{
		if (*at == '"' && *++at != '"')
			break;
		appendStringInfoChar(&buf, *at);
	}
	truncate_identifier(buf.data, buf.len, false);
	*end = at;
	return buf.data;
}

/* The next word at or behind "*at" as an identifier; NULL: no more.  Moves "*at" behind it. */
static char *
next_word(const char **at)
{
	const char *begin = *at;
	const char *end;

	while (*begin != '\0' && *begin != '"' && !begins_word((unsigned char) *begin))
		begin++;
	if (*begin == '\0')
		return NULL;
	if (*begin == '"')
		return quoted_word(begin, at);
	for (end = begin; is_in_word((unsigned char) *end); end++)
		;
	*at = end;
	return downcase_truncate_identifier(begin, end - begin, false);
}

/* What the words of a source mean here and now. */
static List *
look_up(const char *source)
{
	List	   *result = NIL;
	char	   *word;

	while ((word = next_word(&source)) != NULL)
	{
		result = lappend_oid(result, TypenameGetTypid(word));
		result = lappend_oid(result, CollationGetCollid(word));
	}
	return result;
}

/* The first word whose meaning is another one in the two lists. */
static char *
word_that_differs(const char *source, List *a, List *b, Oid *type_a, Oid *type_b)
{
	char	   *word = NULL;

	for (int i = 0; (word = next_word(&source)) != NULL; i += 2)
	{
		*type_a = list_nth_oid(a, i);
		*type_b = list_nth_oid(b, i);
		if (*type_a != *type_b || list_nth_oid(a, i + 1) != list_nth_oid(b, i + 1))
			break;
	}
	return word;
}

/* ---------- functions ---------- */

static bool
is_plpgsql(Form_pg_proc form)
{
	if (!OidIsValid(plpgsql))
		plpgsql = get_language_oid("plpgsql", true);
	return OidIsValid(plpgsql) && form->prolang == plpgsql &&
		form->prorettype != TRIGGEROID && form->prorettype != EVENT_TRIGGEROID;
}

static CompiledFunction *
find(Oid funcid)
{
	CompiledFunction *function;
	bool		found;

	if (functions == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(CompiledFunction);
		functions = hash_create("stream_ckpt compiled functions", 64, &ctl,
								HASH_ELEM | HASH_BLOBS);
		CacheRegisterSyscacheCallback(PROCOID, note_change, (Datum) 0);
	}
	function = hash_search(functions, &funcid, HASH_ENTER, &found);
	if (!found)
		memset((char *) function + sizeof(Oid), 0, sizeof(CompiledFunction) - sizeof(Oid));
	return function;
}

static void
add_caller(CompiledFunction *function)
{
	MemoryContext old = MemoryContextSwitchTo(function->context);
	Caller	   *caller = palloc(sizeof(Caller));

	caller->user = GetUserId();
	caller->search_path = pstrdup(namespace_search_path);
	function->callers = lappend(function->callers, caller);
	function->last = caller;
	MemoryContextSwitchTo(old);
}

static inline bool
is_caller(const Caller *caller)
{
	return caller->user == GetUserId() &&
		strcmp(caller->search_path, namespace_search_path) == 0;
}

/* It is compiled by this call, or was by one that failed early: what do its words mean? */
static void
begin(CompiledFunction *function, HeapTuple tuple, const char *source)
{
	MemoryContext old;

	function->last = NULL;
	function->callers = NIL;
	if (function->context)
		MemoryContextReset(function->context);
	else
		function->context = AllocSetContextCreate(TopMemoryContext,
												  "stream_ckpt compiled function",
												  ALLOCSET_SMALL_SIZES);
	function->xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	function->tid = tuple->t_self;
	old = MemoryContextSwitchTo(function->context);
	function->meanings = list_copy(look_up(source));
	MemoryContextSwitchTo(old);
	add_caller(function);
}

static void
refuse(CompiledFunction *function, const char *source, List *meanings)
{
	Oid			then = InvalidOid;
	Oid			now = InvalidOid;
	char	   *word = word_that_differs(source, function->meanings, meanings, &then, &now);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("function %s was compiled with another meaning of \"%s\"",
					format_procedure_qualified(function->funcid), word),
			 errdetail("It was called first under another search_path, where the name meant type %s; here it means %s.",
					   OidIsValid(then) ? format_type_extended(then, -1, FORMAT_TYPE_ALLOW_INVALID | FORMAT_TYPE_FORCE_QUALIFY) : "none",
					   OidIsValid(now) ? format_type_extended(now, -1, FORMAT_TYPE_FORCE_QUALIFY) : "none"),
			 errhint("Give the function a search_path of its own: ALTER FUNCTION %s SET search_path = ...",
					 format_procedure_qualified(function->funcid))));
}

/* The call is by somebody else than the last one, or pg_proc has changed. */
static void
check_again(CompiledFunction *function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function->funcid));
	uint64		seen = changes;
	const char *source;
	List	   *meanings;
	ListCell   *lc;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function->funcid);
	function->is_plpgsql = is_plpgsql((Form_pg_proc) GETSTRUCT(tuple));
	if (!function->is_plpgsql)
	{
		ReleaseSysCache(tuple);
		function->checked = seen;
		return;
	}
	source = TextDatumGetCString(SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull));
	if (function->last == NULL ||
		function->xmin != HeapTupleHeaderGetRawXmin(tuple->t_data) ||
		!ItemPointerEquals(&function->tid, &tuple->t_self))
		begin(function, tuple, source);
	ReleaseSysCache(tuple);
	function->checked = seen;

	foreach(lc, function->callers)
	{
		function->last = lfirst(lc);
		if (is_caller(function->last))
			return;
	}
	meanings = look_up(source);
	if (!equal(meanings, function->meanings))
		refuse(function, source, meanings);
	add_caller(function);
}

static void
before_call(Oid funcid)
{
	CompiledFunction *function = find(funcid);

	if (function->checked == changes &&
		(!function->is_plpgsql || is_caller(function->last)))
		return;
	check_again(function);
}

/* ---------- hooks ---------- */

static bool
needs_hook(Oid funcid)
{
	HeapTuple	tuple;
	bool		result;

	if (prev_needs_hook && prev_needs_hook(funcid))
		return true;
	if (sc_my_process == SC_PROCESS_NONE)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = is_plpgsql((Form_pg_proc) GETSTRUCT(tuple));
	ReleaseSysCache(tuple);
	return result;
}

static void
call_hook(FmgrHookEventType event, FmgrInfo *flinfo, Datum *arg)
{
	if (event == FHET_START && sc_my_process != SC_PROCESS_NONE)
		before_call(flinfo->fn_oid);
	if (prev_hook)
		prev_hook(event, flinfo, arg);
}

void
sc_compiled_init(void)
{
	prev_needs_hook = needs_fmgr_hook;
	needs_fmgr_hook = needs_hook;
	prev_hook = fmgr_hook;
	fmgr_hook = call_hook;
}
