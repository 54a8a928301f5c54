/*-------------------------------------------------------------------------
 * env.h
 *	  The surroundings in which a query's owner's code runs: user id, security
 *	  restriction, and the creator's settings.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_ENV_H
#define SC_BASE_ENV_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

typedef struct ScEnv
{
	Oid			save_userid;
	int			save_sec_context;
	int			guc_nestlevel;
} ScEnv;

/*
 * Becomes "owner" in a security-restricted operation with a settings nest level
 * of its own, and applies "settings" (alternating char * name, char * value;
 * a value already in force costs one comparison).  Needs a transaction.  After an error,
 * aborting the (sub)transaction undoes all of it.
 */
extern void sc_env_enter(ScEnv *env, Oid owner, List *settings);
extern void sc_env_leave(ScEnv *env);

/*
 * Once in the life of a worker, after it has connected: the settings that it works
 * under are its own, whatever the database's say, and code of an owner's can't change
 * those that would end the process.
 */
extern void sc_env_begin_worker(void);

/*
 * After code of an owner's has run in a worker: gives up what would outlive the
 * transaction: session-level advisory locks.
 */
extern void sc_env_end_step(void);

/*
 * What is written from here on to sc_env_output_end is written as pg_dump does, whatever the
 * query's settings: dates, intervals, floats, bytea, names.  TimeZone is the query's: with its
 * offset a time is exact.  Returns what _end needs; an abort ends it, too.
 */
extern int	sc_env_output_begin(void);
extern void sc_env_output_end(int level);

/* The caller's settings that results can depend on, in the form above:
 * TimeZone, DateStyle, IntervalStyle, search_path, extra_float_digits,
 * bytea_output, xmlbinary, xmloption, lc_monetary, lc_numeric, lc_time,
 * default_text_search_config, array_nulls, standard_conforming_strings... */
extern List *sc_env_current_settings(void);

/*
 * Those of an extension's that anybody may set, in the form above: the names begin with
 * "prefix" and a dot.  Variables that no library has defined are left out.
 */
extern List *sc_env_settings_of(const char *prefix);

/* Appends the values of these settings that are in force, but search_path's, as bytes. */
extern void sc_env_append_settings(StringInfo buf);

#endif							/* SC_BASE_ENV_H */
