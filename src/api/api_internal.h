/*-------------------------------------------------------------------------
 * api_internal.h
 *	  What the SQL functions share: arguments, privileges, refusals.
 *-------------------------------------------------------------------------
 */
#ifndef SC_API_API_INTERNAL_H
#define SC_API_API_INTERNAL_H

#include "base/sqlfunc.h"
#include "model/catalog.h"
#include "model/catalog_write.h"

/* ---------- arguments: NULL, where it has no meaning, is an error naming it ---------- */

extern Datum sc_arg(FunctionCallInfo fcinfo, int n, const char *name);
extern char *sc_arg_text(FunctionCallInfo fcinfo, int n, const char *name);
extern char *sc_arg_name(FunctionCallInfo fcinfo, int n, const char *name);
/* Microseconds; negative ones refused. */
extern int64 sc_arg_usecs(FunctionCallInfo fcinfo, int n, const char *name);

/* Raises "<parameter> is not supported yet". */
extern void sc_refuse_parameter(const char *parameter, const char *hint) pg_attribute_noreturn();

/* ---------- who may do what ---------- */

/* Raises an error where the caller isn't the owner of the relation. */
extern void sc_check_relation_owner(Oid relid);
/* The pipeline, for its owner. */
extern ScPipeline *sc_owned_pipeline(const char *name);
/* The pipeline, for whoever may put queries into it: its owner, and everybody
 * where it is the default one. */
extern ScPipeline *sc_usable_pipeline(const char *name);

/* ---------- names ---------- */

/* schema.name, quoted where needed. */
extern char *sc_qualified_name(Oid relid);

/* ---------- slots ---------- */

/* sc_slot_ensure(), with a notice where the WAL that a new slot keeps is unbounded. */
extern void sc_pipeline_prepare(const ScPipeline *pipeline);

/* ---------- SQL ---------- */

/* Runs a command as the caller, in his own name; connects and finishes SPI. */
extern void sc_run_command(const char *command);

#endif							/* SC_API_API_INTERNAL_H */
