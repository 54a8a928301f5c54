/*-------------------------------------------------------------------------
 * catalog_write.h
 *	  Writing the extension's catalogs: what users asked for.
 *
 * All functions need a transaction and an active snapshot; privileges are the
 * caller's business.  What they wrote is visible to later look-ups at once.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_CATALOG_WRITE_H
#define SC_MODEL_CATALOG_WRITE_H

#include "model/catalog.h"
#include "storage/lockdefs.h"

/*
 * Locks until the end of the transaction, apart from those on relations: whoever
 * uses a stream or a pipeline takes it in ShareLock, whoever makes or removes one
 * in ExclusiveLock, and looks it up again afterwards.
 */
extern void sc_stream_lock(Oid relid, LOCKMODE mode);
/* The same without waiting: false where somebody has a lock that doesn't go with it. */
extern bool sc_stream_lock_conditional(Oid relid, LOCKMODE mode);
/* Gives it back before that. */
extern void sc_stream_unlock(Oid relid, LOCKMODE mode);
extern void sc_pipeline_lock(int32 pipeline_id, LOCKMODE mode);
extern bool sc_pipeline_lock_conditional(int32 pipeline_id, LOCKMODE mode);
/*
 * For those who change a query or what is wished of it, drops included: exclusively, and its row is read again under it,
 * because the query can have moved to another pipeline.  "conditional" is for workers, who never wait: false where
 * somebody has it.
 */
extern void sc_query_lock(int64 query_id, LOCKMODE mode);
extern bool sc_query_lock_conditional(int64 query_id, LOCKMODE mode);

/* pipeline_id 0: a new one is taken.  Returns the id. */
extern int32 sc_pipeline_insert(const ScPipeline *pipeline);
/* Writes owner, parallelism, checkpoint_interval and stopped. */
extern void sc_pipeline_update(const ScPipeline *pipeline);
/* Removes the pipeline with its state and history. */
extern void sc_pipeline_delete(int32 pipeline_id);

extern void sc_stream_insert(const ScStream *stream);
/* Writes its options, and whether its changes are applied. */
extern void sc_stream_update(const ScStream *stream);
/* False where it wasn't there. */
extern bool sc_stream_delete(Oid relid);

/* query_id and owner aren't read.  Returns the new query's id. */
extern int64 sc_query_insert(const ScQuery *query);
/* "Rows of the stream are missing from the query". */
extern void sc_query_set_preexisting(int64 query_id);

/* It begins with its stream's history. */
extern void sc_query_set_backfill(int64 query_id);

extern void sc_query_set_paused(int64 query_id, bool paused);
extern void sc_query_set_parallelism(int64 query_id, int32 parallelism);

/* Where it is and is to be: writes pipeline_id, target_id and moving. */
extern void sc_query_set_pipeline(const ScQuery *query);

/* It has taken the place of the query that it was to replace, whose row is gone: "relid" is its result now. */
extern void sc_query_set_replaced(int64 query_id, Oid relid);

/* A row of stream_ckpt.query whose relations may be gone. */
typedef struct ScQueryRow
{
	int64		query_id;
	int32		pipeline_id;
	int32		target_id;		/* 0: none */
	Oid			relid;
	Oid			definition;
	Oid			stream_relid;
} ScQueryRow;

/* All of them, whether their relations exist or not. */
extern List *sc_query_rows(void);
/* One of them; NULL if it is gone. */
extern ScQueryRow *sc_query_row(int64 query_id);
extern void sc_query_delete(int64 query_id);	/* its row: see ckpt/forget.h */

#endif							/* SC_MODEL_CATALOG_WRITE_H */
