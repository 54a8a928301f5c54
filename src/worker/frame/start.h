/*-------------------------------------------------------------------------
 * start.h
 *	  May a pipeline start, and from where?
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_START_H
#define SC_WORKER_FRAME_START_H

#include "access/xlogdefs.h"
#include "model/catalog.h"
#include "nodes/pg_list.h"
#include "worker/frame/shared.h"

/*
 * Offsets (ScOffset *) of the queries that run when the pipeline starts: those
 * that have one, aren't paused, haven't failed and aren't lost.
 */
extern List *sc_active_offsets(int32 pipeline_id);

/* Does a query that is new (sc_new_queries in ckpt/offset.h) run, when the pipeline starts? */
extern bool sc_new_query_runs(const ScQuery *query);

/*
 * Lost queries whose gap was accepted go on behind the last checkpoint.  At the beginning of an
 * attempt: the coordinator alone moves the slot, so nothing passes that place meanwhile.
 */
extern void sc_start_accept_gaps(int32 pipeline_id);

/*
 * Where reading for them begins: the smallest of these offsets, else the
 * pipeline's last checkpoint, else the slot's confirmed position.  Needs a
 * transaction and snapshot.
 */
extern XLogRecPtr sc_start_position(int32 pipeline_id, List *offsets);

/*
 * Compares the catalogs, the slot and this server with one another.  Returns
 * SC_STATUS_STARTING where the pipeline may start; otherwise the status in which it must
 * stand, with *message and *hint in words (palloc'd or constant; may be NULL).  If all of its queries are new it may start
 * without a slot, or with one that was invalidated: the caller makes it (sc_slot_is_missing).
 * Drops the slot of a pipeline that is gone, and one that is ahead of all that this server has written, or prepared for pg_upgrade; that of an idle one is the caller's
 * to drop.  Needs a transaction and snapshot.
 */
extern ScStatus sc_start_check(int32 pipeline_id, char **message, char **hint);

/*
 * For a session that creates a query and has made sure of the slot.  The first one that begins in a
 * pipeline doesn't depend on where those before it stood: that is forgotten where a new slot begins
 * beyond it.  False where a query of the pipeline has begun; needs its lock, exclusively where none has.
 */
extern bool sc_start_anew(int32 pipeline_id);

/*
 * Must the pipeline's queries stand at "lost", whatever shared memory says?  *message, *hint: as
 * sc_start_check.  Reads only.
 */
extern bool sc_start_is_lost(int32 pipeline_id, char **message, char **hint);

#endif							/* SC_WORKER_FRAME_START_H */
