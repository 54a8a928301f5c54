/*-------------------------------------------------------------------------
 * api_internal.h
 *	  What the SQL functions share: arguments, privileges, refusals, SQL.
 *-------------------------------------------------------------------------
 */
#ifndef SC_API_API_INTERNAL_H
#define SC_API_API_INTERNAL_H

#include "base/compat.h"
#include "base/sqlfunc.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "model/catalog.h"
#include "model/definition.h"

/* ---------- arguments: NULL, where it has no meaning, is an error naming it ---------- */

extern Datum sc_arg(FunctionCallInfo fcinfo, int n, const char *name);
extern char *sc_arg_text(FunctionCallInfo fcinfo, int n, const char *name);
extern char *sc_arg_name(FunctionCallInfo fcinfo, int n, const char *name);
/* Microseconds; negative ones refused. */
extern int64 sc_arg_usecs(FunctionCallInfo fcinfo, int n, const char *name);
/* The same for what event times are moved by: refused where that is too far. */
extern int64 sc_arg_reach(FunctionCallInfo fcinfo, int n, const char *name);

/*
 * stream.c: the boolean processing_time; fails if it is true, and one of these two isn't NULL.  All are numbers of parameters.
 */
extern bool sc_arg_processing_time(FunctionCallInfo fcinfo, int n, int event_time, int idle_timeout);

/* The name of a relation, with a schema or without one; an error that shows how names are written. */
extern struct RangeVar *sc_arg_relation(const char *name);

/* 'close' or 'update'; NULL is SC_EMIT_DEFAULT. */
extern ScEmit sc_arg_emit(FunctionCallInfo fcinfo, int n);
/* Is "text" a SELECT rather than a name? */
extern bool sc_looks_like_select(const char *text);

/* From 1 to SC_MAX_TASKS. */
extern int32 sc_arg_parallelism(FunctionCallInfo fcinfo, int n);

/* Raises "<what> is not supported yet"; hint may be NULL. */
pg_noreturn extern void sc_not_supported(const char *what, const char *hint);

/* ---------- who may do what ---------- */

/* Raises an error where the caller isn't the owner of the relation. */
extern void sc_check_relation_owner(Oid relid);
/* Does the caller own the pipeline?  The owner of the database owns all, and nobody
 * else the default one. */
extern bool sc_owns_pipeline(const ScPipeline *pipeline);
/* Raises an error where not. */
extern void sc_check_pipeline_owner(const ScPipeline *pipeline);
/* The pipeline, for its owner. */
extern ScPipeline *sc_owned_pipeline(const char *name);
/* The pipeline, for whoever may put queries into it: its owner, and everybody
 * where it is the default one. */
extern ScPipeline *sc_usable_pipeline(const char *name);

/* Gives the log stream's foreign table these options. */
extern void sc_log_stream_alter(const ScStream *stream);

/* Raises "cannot <what> ...: queries read it" where queries read the stream. */
extern void sc_refuse_stream_with_readers(Oid relid, const char *what);

/* An error where the view, just made, depends on an object of a temporary schema. */
extern void sc_refuse_temporary(Oid view);

/* The query of this result table or definition, for its owner, locked against changes by others. */
extern ScQuery *sc_lock_owned_query(Oid relid);

/* ---------- parallelism.c: errors where it can't be ---------- */

/* So many tasks for the pipeline (0: one that isn't there yet), by max_worker_processes. */
extern void sc_check_workers(int32 pipeline_id, int32 parallelism);
/* The same, by what its queries want. */
extern void sc_check_pipeline_parallelism(const ScPipeline *pipeline, int32 parallelism);
/* So many of its tasks for a query. */
extern void sc_check_query_parallelism(const ScPipeline *pipeline, const ScDefinition *definition,
									   int32 parallelism, bool dead_letter);

/* ---------- names ---------- */

/* schema.name, quoted where needed. */
extern char *sc_qualified_name(Oid relid);

/* ---------- session.c ---------- */

/*
 * What stands in FROM for the definition of a query with sessions, to give its rows by a plain query.  "closed": a
 * condition on window_end that holds for the sessions which count.
 */
/* To sessions that changed when they were over, others that their rows are in now; in the current context.  Needs SPI. */
extern void sc_session_widen(ScDefinition *definition, ScRangeSet *changed);
extern char *sc_session_truth(const ScQuery *query, ScDefinition *definition, const char *closed);

/* ---------- slots ---------- */

/* sc_slot_ensure(), with a notice where the WAL that a new slot keeps is unbounded. */
extern void sc_pipeline_prepare(const ScPipeline *pipeline);

/* sc_slot_use(), with the same notice if there is none yet. */
extern bool sc_pipeline_use(const ScPipeline *pipeline);

/*
 * sc_pipeline_prepare() for "default", when a stream is made; but not where its queries are lost: with a new
 * slot they would go on as if nothing were missing.  In a transaction that has written none is made: its first query will.
 */
extern void sc_pipeline_prepare_for_stream(void);

/* ---------- event triggers ---------- */

/*
 * drop.c: calls a function that returns a set by materializing it.  Called like this, and not as a query, because it happens
 * at everybody's DDL: extensions that watch queries (pg_stat_statements) would see it.  The set lives in "econtext".
 */
extern void sc_call_set_function(Oid function, struct ExprContext *econtext, struct ReturnSetInfo *set);

/* ---------- empty_table.c: the beginning of queries over streams whose changes are applied ---------- */

/*
 * Locks the stream's tables against writers until the end of the transaction, which waits for those that there are; then an
 * error if there are rows.
 */
extern void sc_require_empty_table(Oid stream_relid);
/* The same again right before the commit, if the query, which this transaction creates, is still there then. */
extern void sc_require_empty_table_at_commit(int64 query_id, Oid stream_relid);
/*
 * Right before the commit it is decided how this query begins, whose creation is in the log: if the stream may have rows,
 * with these, as its row of stream_ckpt.query says then.
 */
extern void sc_begin_empty_or_with_history(int64 query_id, Oid stream_relid);
/* Can a query begin with the rows that were committed before it? */
extern bool sc_stream_has_history(const ScStream *stream);

/* ---------- SQL, within SPI_connect() ... SPI_finish() ---------- */

/* Runs a command as the caller; "expected" is its SPI_OK_... */
extern void sc_user_execute(const char *command, int expected);
/* Column (from 1) of the first row of the last command; isnull may be NULL. */
extern Datum sc_first_value(int column, bool *isnull);

/* A query's row is gone: tells the workers, after the commit. */
extern void sc_query_dropped(int64 query_id, int32 pipeline_id);

/* sync.c: as sync(); microseconds. */
extern XLogRecPtr sc_sync_all(int64 timeout);

#endif							/* SC_API_API_INTERNAL_H */
