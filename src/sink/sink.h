/*-------------------------------------------------------------------------
 * sink.h
 *	  Writing one query's result rows of one checkpoint into its result table.
 *
 * Used inside the checkpoint's transaction (in a subtransaction per query), with
 * an active snapshot.  Runs as the query's owner in a security-restricted
 * operation with the query's settings; the caller has entered that environment.
 * Rows come in the order in which they must take effect.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SINK_SINK_H
#define SC_SINK_SINK_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "model/catalog.h"
#include "model/definition.h"
#include "utils/relcache.h"

typedef struct ScSink ScSink;

/*
 * Opens the result table (RowExclusiveLock; waits at most for what is left of the
 * checkpoint's time for locks, error ERRCODE_LOCK_NOT_AVAILABLE).  Inserts go by multi-insert as COPY's do where
 * the table has no trigger, rule, row security, generated column or identity;
 * otherwise by a prepared INSERT.  Upserts and deletes are prepared plans that
 * take a batch; key columns come from the unique index of the result table
 * (<result>_key).  Checks that the table still has the columns of the query.
 */
extern ScSink *sc_sink_open(const ScQuery *query);

/*
 * The table's column for each column of the rows: by name, or, if a name is missing (the user
 * renamed it), by position, provided that there are as many columns.  The types must be the same; an
 * error otherwise.
 */
extern AttrNumber *sc_result_columns(Relation rel, TupleDesc rows);

/* op is an ScResultOp.  The row's columns are the result
 * table's in order; the tuple is copied where it must outlive the call. */
extern void sc_sink_put(ScSink *sink, char op, MinimalTuple row);

/*
 * Changes the result table so that it has the rows of "table", whose columns are the definition's: deletes, updates and
 * inserts what differs (sink_difference.c).  Rows of windows that end by "kept_until" stay as they are, and don't count
 * in the other one; PG_INT64_MIN: there are none such.  Nothing else is put into the sink.  Needs ShareRowExclusiveLock on
 * the result, taken before the latest snapshot.  Returns how many rows differed.
 */
extern int64 sc_sink_become(ScSink *sink, Relation table, const ScDefinition *definition, int64 kept_until);

/*
 * Does the table's key identify the rows of the query?  Without a key: only if none is needed.  A table that was made for
 * another definition may have one that doesn't.
 */
extern bool sc_sink_key_fits(ScSink *sink, bool needed);

/* The result table, open until sc_sink_close. */
extern Relation sc_sink_relation(const ScSink *sink);

/* Does writing run code of the user's own (triggers, rules, defaults...)? */
extern bool sc_sink_runs_user_code(const ScSink *sink);

/* Flushes and closes.  Returns the number of rows put. */
extern int64 sc_sink_close(ScSink *sink);

/*
 * The pages of a result, with its partitions: what deleting all its rows reads.  Of a table that somebody has locked so that
 * it can't be looked at, none.
 */
extern int64 sc_sink_pages(Oid relid);

/* Frees what is kept of a query between checkpoints, when it was dropped. */
extern void sc_sink_forget(int64 query_id);

#endif							/* SC_SINK_SINK_H */
