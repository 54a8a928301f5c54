/*-------------------------------------------------------------------------
 * env.c
 *	  The surroundings in which a query's owner's code runs: user id, security
 *	  restriction, and the creator's settings.
 *
 * Used by the engine's callers and by the sink's, around everything that can
 * call a function of the owner's.  The rule: what one owner's code does to the
 * session (set_config, SET LOCAL in a function) ends with sc_env_leave or with
 * the abort of the (sub)transaction, never later.  That is why the settings go
 * into a nest level of their own: SECURITY_RESTRICTED_OPERATION alone doesn't
 * stop set_config().  What neither undoes is given up by sc_env_end_step.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/env.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#if PG_VERSION_NUM >= 180000
#include "utils/plancache.h"
#endif

/*
 * Settings that the value of an immutable or stable expression can depend on,
 * all of them settable by anybody.  row_security isn't among them: queries that
 * it would affect are refused.
 */
static const char *const env_settings[] = {
	"TimeZone",
	"timezone_abbreviations",
	"DateStyle",
	"IntervalStyle",
	"search_path",
	"extra_float_digits",
	"bytea_output",
	"xmlbinary",
	"xmloption",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"default_text_search_config",
	"array_nulls",
	"standard_conforming_strings",
	"transform_null_equals",
	"quote_all_identifiers"
};

/* What a worker's own commands run under. */
static const struct
{
	const char *name;
	const char *value;
}			worker_settings[] = {
	{"role", "none"},
	{"search_path", "pg_catalog, pg_temp"},
	{"application_name", "stream_ckpt"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"lock_timeout", "0"},
	{"exit_on_error", "off"},
	{"check_function_bodies", "off"},
#if PG_VERSION_NUM >= 170000
	{"transaction_timeout", "0"},
#endif
};

/*
 * Settings by which anybody can make an error, or time, end the process, or a validator compile
 * another one's function behind the back of user_code.h.
 */
static const char *const fixed_settings[] = {
	"exit_on_error",
	"check_function_bodies",
#if PG_VERSION_NUM >= 170000
	"transaction_timeout",
#endif
};

void
sc_env_begin_worker(void)
{
	for (int i = 0; i < lengthof(worker_settings); i++)
		SetConfigOption(worker_settings[i].name, worker_settings[i].value,
						PGC_USERSET, PGC_S_OVERRIDE);
	for (int i = 0; i < lengthof(fixed_settings); i++)
	{
		struct config_generic *setting = sc_find_setting(fixed_settings[i]);

		if (setting == NULL)
			elog(ERROR, "unknown setting \"%s\"", fixed_settings[i]);
		setting->flags |= GUC_NOT_WHILE_SEC_REST;
	}
}

void
sc_env_end_step(void)
{
	LockReleaseSession(USER_LOCKMETHOD);
}

/*
 * Sets one setting for the current nest level, where it isn't in force already.
 * A value that isn't valid (any more) is an error.
 */
static void
apply_setting(const char *name, const char *value)
{
	const char *current = GetConfigOption(name, true, false);

	if (current != NULL && strcmp(current, value) == 0)
		return;

	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

#if PG_VERSION_NUM >= 180000
/*
 * Since 18 a function in SQL is analyzed once in a process, and its literals are read by the
 * settings of that time.  In other surroundings it is analyzed again.
 */
static void
forget_plans_of_others(Oid owner, List *settings)
{
	static StringInfoData last;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, &owner, sizeof(owner));
	foreach(lc, settings)
		appendBinaryStringInfo(&buf, lfirst(lc), strlen(lfirst(lc)) + 1);
	if (last.data == NULL || last.len != buf.len || memcmp(last.data, buf.data, buf.len) != 0)
		ResetPlanCache();
	if (last.data != NULL)
		pfree(last.data);
	last = buf;
	MemoryContextSwitchTo(old);
}
#endif

/*
 * See env.h.  Needs a transaction; env may live on the caller's stack.  Raises
 * the setting's own error where a value can't be applied.
 */
void
sc_env_enter(ScEnv *env, Oid owner, List *settings)
{
	GetUserIdAndSecContext(&env->save_userid, &env->save_sec_context);
	SetUserIdAndSecContext(owner,
						   env->save_sec_context | SECURITY_RESTRICTED_OPERATION);
	env->guc_nestlevel = NewGUCNestLevel();

	Assert(list_length(settings) % 2 == 0);
	for (int i = 0; i + 1 < list_length(settings); i += 2)
		apply_setting(list_nth(settings, i), list_nth(settings, i + 1));
#if PG_VERSION_NUM >= 180000
	forget_plans_of_others(owner, settings);
#endif
}

/* Undoes sc_env_enter.  Calls nest. */
void
sc_env_leave(ScEnv *env)
{
	AtEOXact_GUC(false, env->guc_nestlevel);
	SetUserIdAndSecContext(env->save_userid, env->save_sec_context);
}

int
sc_env_output_begin(void)
{
	static const char *const settings[][2] = {
		{"DateStyle", "ISO"},
		{"IntervalStyle", "postgres"},
		{"extra_float_digits", "3"},
		{"bytea_output", "hex"},
		{"search_path", ""},
		{"quote_all_identifiers", "off"}
	};
	int			level = NewGUCNestLevel();
	const char *monetary = GetConfigOptionResetString("lc_monetary");

	for (int i = 0; i < lengthof(settings); i++)
		apply_setting(settings[i][0], settings[i][1]);
	/* what a session has that reads it again */
	apply_setting("lc_monetary", monetary);
	return level;
}

void
sc_env_output_end(int level)
{
	AtEOXact_GUC(false, level);
}

/*
 * The caller's settings as alternating names and values, palloc'd in the current
 * memory context.
 */
List *
sc_env_current_settings(void)
{
	List	   *result = NIL;

	for (int i = 0; i < lengthof(env_settings); i++)
	{
		const char *value = GetConfigOption(env_settings[i], true, false);

		if (value == NULL)
			continue;
		result = lappend(result, pstrdup(env_settings[i]));
		result = lappend(result, pstrdup(value));
	}
	return result;
}

List *
sc_env_settings_of(const char *prefix)
{
	int			count;
	struct config_generic **settings = sc_guc_variables(&count);
	Size		len = strlen(prefix);
	List	   *result = NIL;

	for (int i = 0; i < count; i++)
	{
		struct config_generic *setting = settings[i];
		const char *value;

		if (setting->context != PGC_USERSET || (setting->flags & GUC_CUSTOM_PLACEHOLDER) != 0 ||
			pg_strncasecmp(setting->name, prefix, len) != 0 || setting->name[len] != '.')
			continue;
		value = GetConfigOption(setting->name, true, false);
		if (value == NULL)
			continue;
		result = lappend(result, pstrdup(setting->name));
		result = lappend(result, pstrdup(value));
	}
	return result;
}

/*
 * Appends the value that the setting has now, as bytes.  Equal bytes, equal value; nobody reads them
 * otherwise.
 */
static void
append_setting(StringInfo buf, const struct config_generic *setting)
{
	const char *string;

	switch (setting->vartype)
	{
		case PGC_BOOL:
			appendStringInfoChar(buf, *sc_setting_of(bool, setting)->variable);
			break;
		case PGC_INT:
			appendBinaryStringInfo(buf, (char *) sc_setting_of(int, setting)->variable,
								   sizeof(int));
			break;
		case PGC_ENUM:
			appendBinaryStringInfo(buf, (char *) sc_setting_of(enum, setting)->variable,
								   sizeof(int));
			break;
		case PGC_STRING:
			string = *sc_setting_of(string, setting)->variable;
			appendBinaryStringInfo(buf, string ? string : "", string ? strlen(string) + 1 : 1);
			break;
		default:
			elog(ERROR, "unexpected type of setting \"%s\"", setting->name);
	}
}

void
sc_env_append_settings(StringInfo buf)
{
	static const struct config_generic *settings[lengthof(env_settings)];

	for (int i = 0; i < lengthof(env_settings); i++)
	{
		if (settings[i] == NULL)
			settings[i] = sc_find_setting(env_settings[i]);
		if (settings[i] != NULL && strcmp(settings[i]->name, "search_path") != 0)
			append_setting(buf, settings[i]);
	}
}
