/*-------------------------------------------------------------------------
 * handing.h
 *	  Large parts: a process of its own writes each of them, beside the checkpoints of the others.
 *
 * A part with so many result rows, or such large state, that writing it would hold everybody's checkpoint for long is
 * kept in checkpoint k, whose transaction leaves the query apart, where it was.  When that is committed, the part is
 * handed to a writer, which writes its rows, chunks, late rows, dead letters and offset in one transaction: so
 * its query is at k then, still apart.  The barriers meanwhile leave the query out: its tasks send rows of windows that
 * close, which are collected in another part and kept, and nothing else.  When the writer has ended, the next checkpoint
 * is due at once and has a part of the query again; if that isn't large, the query goes with the others again.
 *
 * A pipeline has one writer at a time; other large parts wait for their turn.  If no background worker is free, the
 * coordinator writes the part.
 *
 *	  the writer                      the coordinator
 *	  committed                       the query is at k
 *	  can't write it (ScFailure)      the part comes back, before what came since then, and is refused: goes on
 *	                                  as one that the coordinator couldn't write
 *	  the query is gone, or the       the part comes back, and the coordinator tries it itself
 *	  commit failed without code of
 *	  an owner's
 *	  ends without a word             ends the attempt, as that of any worker: the catalogs say what became of it
 *
 * Rules: while the writer has a query's part, the coordinator writes nothing of that query.  The next attempt reads
 * where queries are when the writer of the one before is gone, and a writer that begins finds out that its attempt
 * is over.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_HANDING_H
#define SC_WORKER_COORDINATOR_HANDING_H

#include "worker/coordinator/collect.h"

/* Is the part large, and may a writer have it? */
extern bool sc_writer_takes(const ScCollectedQuery *collected);
/* Does a writer write just now?  This query's part? */
extern bool sc_writer_is_busy(void);
extern bool sc_writer_has(int64 query_id);

/*
 * A checkpoint is about to be triggered: it leaves out the queries whose part is a writer's, or is to be.  What changes
 * of them is for the first checkpoint that is triggered when the writer has ended: so it is as much as it is, however
 * long that takes.
 */
extern void sc_writer_leave_out(ScPendingCheckpoint *pending);

/*
 * The checkpoint is committed, and sc_collect_reset was called: hands the part to a writer that is meant for one,
 * or lets all that wait for a writer be written by the next checkpoint.  Outside of transactions.
 */
extern void sc_writer_hand(ScPendingCheckpoint *pending);

/*
 * If the writer has ended: what became of its part.  Ends the process if it doesn't say so.  Outside of transactions,
 * and not while a checkpoint is written.
 */
extern void sc_writer_look(ScPendingCheckpoint *pending);

#endif							/* SC_WORKER_COORDINATOR_HANDING_H */
