/*-------------------------------------------------------------------------
 * backfill.h
 *	  How far a query is that begins with its stream's history, as shared memory says.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_BACKFILL_H
#define SC_WORKER_FRAME_BACKFILL_H

#include "datatype/timestamp.h"
#include "worker/frame/shared.h"

typedef struct ScBackfill
{
	const char *phase;			/* for users; a constant */
	bool		waits_for_slot;		/* for all who have written, until the pipeline's slot is made */
	bool		reads;			/* the history is being read, or was: the rest is known, too */
	int64		rows;			/* of the phase */
	int64		blocks;			/* of the phase, */
	int64		total_blocks;	/* of so many of the table */
	double		percent;		/* of all reading: of both phases, if there are two */
	TimestampTz begun;
	TimestampTz end;			/* of the reading, estimated; 0: nobody knows */
} ScBackfill;

/* What to do about that */
#define SC_HINT_FIRST_SLOT "See backend_xid in pg_stat_activity, and pg_prepared_xacts: which of them are old?"

/* Of a query that is new: it has no offset yet.  As of some moment; takes no lock for long. */
extern ScBackfill sc_backfill_progress(int32 pipeline_id, int64 query_id, Oid stream_relid);

/* The coordinator notes for which queries an attempt reads. */
extern void sc_backfill_clear(ScPipelineShared *pipeline);
extern void sc_backfill_add(ScPipelineShared *pipeline, int64 query_id, Oid stream_relid);
extern void sc_backfill_remove(ScPipelineShared *pipeline, int64 query_id);

/* Is no query left that the history of this stream is read for?  For the reader. */
extern bool sc_backfill_is_for_nobody(ScPipelineShared *pipeline, Oid stream_relid);

#endif							/* SC_WORKER_FRAME_BACKFILL_H */
