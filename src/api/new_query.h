/*-------------------------------------------------------------------------
 * new_query.h
 *	  A query that is being made, by create_query.c for users, by replace_query.c beside another one.
 *-------------------------------------------------------------------------
 */
#ifndef SC_API_NEW_QUERY_H
#define SC_API_NEW_QUERY_H

#include "model/catalog.h"
#include "model/definition.h"

/* Which rows come first, as asked for */
typedef enum ScBeginning
{
	SC_BEGIN_DEFAULT,			/* those that the stream's table holds, if it keeps any */
	SC_BEGIN_FROM_NOW,			/* those committed after it */
	SC_BEGIN_WITH_HISTORY		/* those that the table holds */
} ScBeginning;

typedef struct ScNewQuery
{
	const char *schema;
	const char *name;			/* of the result table */
	const char *view;			/* of the definition */
	const char *text;
	ScEmit		emit;
	int64		allowed_lateness;	/* microseconds */
	int64		ttl;			/* microseconds; 0: none */
	bool		keep_late_rows;
	bool		dead_letter;	/* on_error => 'dead_letter' */
	ScBeginning beginning;
	bool		backfill;		/* with the rows that the stream has: known when it is analyzed */
	bool		has_slot;		/* its pipeline, until the end of the transaction */
	int32		parallelism;
	SelectStmt *select;
	ScDefinition *definition;
	ScPipeline *pipeline;
	int32		target_id;		/* the pipeline that it is to move to; 0: none */
	Oid			result_oid;
	Oid			view_oid;
	int64		replaces;		/* the query whose place it is to take; 0: nobody's.  Its result table is unlogged then */
	bool		has_keep_before;	/* as in ScQuery */
	int64		keep_before;
} ScNewQuery;

/* Parses, and accepts or refuses, the definition; checks what the caller may do with its stream, which stays attached. */
extern void sc_new_query_analyze(ScNewQuery *query);
/* Must the result table have the unique index? */
extern bool sc_new_query_needs_key(const ScNewQuery *query);
/* The view, the table and its key, as the caller.  Needs SPI. */
extern void sc_new_query_create_relations(ScNewQuery *query);
/* Tries the definition once, and enters the query. */
extern void sc_new_query_enter(ScNewQuery *query);
/* An error if the pipeline's queries are lost. */
extern void sc_refuse_lost_pipeline(const ScPipeline *pipeline);

/*
 * replace_query.c: the query takes the place of "old", which the caller owns, when it is filled.  Of "query" all options are
 * set, its text and its pipeline; "settings": those it is to have.  "always": also if it says what the old one says.
 */
extern void sc_replace_query(ScNewQuery *query, ScQuery *old, List *settings, bool always);

/* The same with its own definition, options and settings; "keep_before" as in ScQuery. */
extern void sc_rebuild_query(ScQuery *old, bool has_keep_before, TimestampTz keep_before);

/* rebuild_pipeline.c: does its stream hold the rows that the query had? */
extern bool sc_query_can_be_rebuilt(const ScQuery *query);
/* The same of a query that has lost its state by an upgrade: it waits for what replaces it.  Not if its stream holds no rows. */
extern void sc_rebuild_stateless(ScQuery *query);

#endif							/* SC_API_NEW_QUERY_H */
