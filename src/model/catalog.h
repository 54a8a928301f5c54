/*-------------------------------------------------------------------------
 * catalog.h
 *	  Typed access to the extension's catalogs (tables of schema stream_ckpt).
 *
 * All functions need a transaction and an active snapshot, read through SPI-free
 * index scans or SPI as the implementation likes, and allocate results in the
 * current memory context of the caller.  Unless said otherwise, "missing_ok"
 * false raises ERRCODE_UNDEFINED_OBJECT with a hint.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_CATALOG_H
#define SC_MODEL_CATALOG_H

#include "access/attnum.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "model/extension.h"
#include "model/interval.h"
#include "nodes/pg_list.h"
#include "window/watermark.h"

#define SC_DEFAULT_PIPELINE "default"

typedef enum ScEmit
{
	SC_EMIT_DEFAULT = 0,		/* of create_query(): what the definition asks for; no query has it */
	SC_EMIT_CLOSE = 'c',		/* a window's rows appear once, when it closes */
	SC_EMIT_UPDATE = 'u',		/* each checkpoint upserts what changed */
	SC_EMIT_ROWS = 'r'			/* stateless: each row that passes WHERE is a result row, inserted once */
} ScEmit;

/* As the catalog has it. */
extern const char *sc_emit_name(ScEmit emit);

/* stream_ckpt.pipeline */
typedef struct ScPipeline
{
	int32		pipeline_id;
	char	   *name;
	Oid			owner;
	int32		parallelism;	/* number of tasks */
	int64		checkpoint_interval;	/* microseconds, >= 10,000 */
	char	   *state_backend;	/* "table" */
	bool		stopped;		/* wish: stop_pipeline() was called */
	bool		lane;			/* where queries take in their history: not for users to name */
} ScPipeline;

/* stream_ckpt.stream, or the options of a log stream (model/log_stream.h) */
typedef struct ScStream
{
	Oid			relid;			/* the root, where the relation is partitioned */
	bool		is_log;			/* a foreign table: its rows are in the WAL only */
	AttrNumber	event_time_attno;	/* 0: the stream has no event time, or: */
	bool		processing_time;	/* it is the time of the commit; idle_timeout is SC_IDLE_BY_CLOCK then */
	ScStreamOptions options;
	bool		applies;		/* changes => 'apply': UPDATE, DELETE and TRUNCATE count; never of a log stream */
} ScStream;

/* stream_ckpt.query */
typedef struct ScQuery
{
	int64		query_id;
	Oid			relid;			/* result table */
	Oid			definition;		/* the view <result>_definition */
	Oid			owner;			/* owner of the view: whom its expressions run as */
	int32		pipeline_id;
	ScEmit		emit;
	int64		allowed_lateness;	/* microseconds, >= 0 */
	int64		ttl;			/* microseconds that a group is kept after its last row; 0: for ever */
	List	   *settings;		/* alternating char * name, char * value */
	Oid			stream_relid;	/* the stream it reads */
	bool		preexisting_rows;	/* the stream held rows when the query began */
	bool		keep_late_rows;
	bool		dead_letter;	/* on_error => 'dead_letter' */
	bool		paused;			/* wish: pause_query() was called */
	int32		parallelism;	/* on so many of its pipeline's tasks, if there are as many */
	bool		backfill;		/* begins with the rows that its stream has: counts while it has no offset */
	int32		target_id;		/* wish: the pipeline that it is to move to; 0: it stays */
	bool		moving;			/* the target must keep its slot for it now */
	bool		empty_first;	/* its first part deletes the result's rows */
	int64		replaces;		/* the query whose place it takes with its first part; 0: none's */
	bool		has_keep_before;	/* the result's rows of windows that end by keep_before stay then; */
	int64		keep_before;	/* else those of windows that end before the stream's oldest row */
} ScQuery;

extern ScPipeline *sc_pipeline_by_name(const char *name, bool missing_ok);
extern ScPipeline *sc_pipeline_by_id(int32 pipeline_id, bool missing_ok);

extern List *sc_pipeline_list(void);	/* of ScPipeline * */

/* Has the pipeline a query, is one to move to it, or may (the default one) get one without a new slot? */
extern bool sc_pipeline_in_use(const ScPipeline *pipeline);

extern List *sc_stream_list(void);	/* of ScStream * */
extern ScStream *sc_stream_by_relid(Oid relid, bool missing_ok);
/* Is there any stream whose changes are applied? */
extern bool sc_streams_apply(void);

extern List *sc_query_list(int32 pipeline_id);	/* of ScQuery *, by query_id */
extern List *sc_query_list_all(void);	/* those of all pipelines, by one snapshot */
extern ScQuery *sc_query_by_id(int64 query_id, bool missing_ok);
/* The query that is to take this one's place; NULL: there is none. */
extern ScQuery *sc_query_replacement(int64 query_id);
extern ScQuery *sc_query_by_relid(Oid relid, bool missing_ok);	/* result table or view */

/* Has this transaction made the query, or changed it?  Then nobody else sees it as it is. */
extern bool sc_query_is_uncommitted(int64 query_id);

/* timestamptz[]: start and end of each range in turn.  Read into what is all zero. */
extern void sc_ranges_read(Datum array, ScWindowRanges *ranges);
extern Datum sc_ranges_datum(const ScWindowRanges *ranges);

#endif							/* SC_MODEL_CATALOG_H */
