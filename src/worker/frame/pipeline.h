/*-------------------------------------------------------------------------
 * pipeline.h
 *	  What a session can ask of running pipelines (of its own database).
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_PIPELINE_H
#define SC_WORKER_FRAME_PIPELINE_H

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

/*
 * When the current transaction has ended: the launcher looks at the
 * pipeline again (starts it where it should run), its coordinator reads its
 * catalog entry again (stop, new interval).
 */
extern void sc_pipeline_changed(int32 pipeline_id);

/*
 * Triggers a checkpoint of a running pipeline and waits until it is committed and
 * flushed; returns its id.  Errors: not running (with its status), time-out
 * (ERRCODE_QUERY_CANCELED).  timeout in microseconds.  Must not be called with
 * a transaction id assigned?  No: allowed; it only waits for workers.
 */
extern int64 sc_pipeline_checkpoint(int32 pipeline_id, const char *name, int64 timeout_us);

/*
 * Waits until all rows committed before the call are in the committed results of
 * every query of every pipeline of this database that isn't stopped.  Returns the
 * marker's LSN.  Errors as above.
 */
extern XLogRecPtr sc_pipelines_sync(int64 timeout_us);

/* The same of one query, by its result table or definition; its time-out says what it is doing.  An error if it is paused or has failed. */
extern XLogRecPtr sc_query_sync(Oid relid, int64 timeout_us);

/* An ScLostPipeline (model/log_stream.h). */
extern const char *sc_pipelines_lost(List *relids, bool thorough);

/* When the current transaction commits, the extension is gone from this database
 * (its pipelines end and their slots are dropped) or has another version: its
 * coordinators look again. */
extern void sc_pipelines_extension_changed(void);

/*
 * DROP ROLE of a pipeline's owner: an error (ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST) with a hint.
 * "default" has the database's owner.
 */
extern void sc_pipelines_refuse_to_drop(Oid role);

/* REASSIGN OWNED, allowed already: the pipelines of "roles" (Oids) are owner's from now on. */
extern void sc_pipelines_reassign(List *roles, Oid owner);

#endif							/* SC_WORKER_FRAME_PIPELINE_H */
