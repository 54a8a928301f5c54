/*-------------------------------------------------------------------------
 * analyze.h
 *	  Accept or refuse a definition, and split it.
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_ANALYZE_H
#define SC_QUERY_ANALYZE_H

#include "model/catalog.h"
#include "model/definition.h"
#include "nodes/parsenodes.h"

/*
 * Splits "query" (fresh from parse analysis, or a view's rule) into a
 * ScDefinition in the current memory context.  Raises
 * ERRCODE_FEATURE_NOT_SUPPORTED (a clause that continuous queries can't have,
 * or not yet) or another code, naming the clause, with a hint, and with the
 * position in "source_text" where the node has one (source_text may be NULL).
 * Needs a transaction; takes no lock beyond AccessShare on what it looks up.  "emit" can be
 * SC_EMIT_DEFAULT; the definition has what it comes to.  "view": that which has it, or which it is to replace, or InvalidOid:
 * if rows are known by a key of the stream, it is the one on which that depends, if it does.
 */
extern ScDefinition *sc_definition_analyze(Query *query, const char *source_text, Oid view,
										   ScEmit emit, int64 allowed_lateness, int64 ttl);

/* The same for a query's stored definition: opens its view, analyzes the rule. */
extern ScDefinition *sc_definition_load(const ScQuery *query);

/* Fails if rows at fault can't be taken back from what the definition makes of them. */
extern void sc_definition_check_dead_letter(const ScDefinition *definition, bool dead_letter);

/*
 * The settings in force of the extensions whose functions the view's query calls, as alternating names and
 * values; the extensions' libraries are loaded (the query was compiled).
 */
extern List *sc_definition_settings(Oid view);

/*
 * Do these columns of the result (from 0) identify its rows: one or more of the window, if there is one, every
 * key of GROUP BY, and no other?  No columns do if it has one row.  Without groups: a key of the stream, if changes of that
 * are applied; else nothing does.  Locks the view (AccessShare) until the transaction's end.
 */
extern bool sc_definition_identifies(Oid view, const int *columns, int ncolumns);

/*
 * The columns of the result by which its rows are known, as a list for CREATE INDEX, if it has rows of its stream whose
 * changes are applied; else, or if the stream has no such key any more, NULL.  Locks as above.
 */
extern char *sc_definition_row_key(Oid view);

/* Does the view (still) say what "def" was loaded from?  True if the view is gone. */
extern bool sc_definition_is_current(const ScQuery *query, const ScDefinition *def);

#endif							/* SC_QUERY_ANALYZE_H */
