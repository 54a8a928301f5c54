/*-------------------------------------------------------------------------
 * parse.h
 *	  From the text of a definition to its query tree.
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_PARSE_H
#define SC_QUERY_PARSE_H

#include "nodes/parsenodes.h"
#include "utils/elog.h"

/*
 * While it is pushed, errors whose position lies in the definition's text show
 * that text instead of the statement that the client sent.
 */
typedef struct ScTextContext
{
	ErrorContextCallback callback;
} ScTextContext;

extern void sc_text_context_push(ScTextContext *context, const char *source_text);
extern void sc_text_context_pop(ScTextContext *context);

/*
 * Parses "source_text", which must be one SELECT, and analyzes it under the
 * caller's search_path.  Locks the relations that it names (AccessShare), needs a
 * transaction and an active snapshot.  *select becomes the untouched raw parse
 * tree.  Errors have positions in source_text.
 */
extern Query *sc_definition_parse(const char *source_text, SelectStmt **select);

/*
 * Gives an error of PostgreSQL's own analysis a hint that helps with a continuous query, where
 * there is one to give.  "error" is a copy (CopyErrorData) in the current memory context.
 */
extern void sc_definition_explain(ErrorData *error);

#endif							/* SC_QUERY_PARSE_H */
