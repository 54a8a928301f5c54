/*-------------------------------------------------------------------------
 * checkpoint_internal.h
 *	  What checkpoint.c, checkpoint_part.c and checkpoint_rows.c share.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_CHECKPOINT_INTERNAL_H
#define SC_WORKER_COORDINATOR_CHECKPOINT_INTERNAL_H

#include "ckpt/dead_letter.h"
#include "ckpt/failure.h"
#include "ckpt/part.h"
#include "ckpt/store.h"
#include "model/catalog.h"
#include "worker/coordinator/collect.h"

/* What writing a part's result rows came to. */
typedef struct ScWrittenRows
{
	int64		nrows;
	bool		user_code;		/* code of the owner's own may have run; also after a failure */
} ScWrittenRows;

/* What writing a part came to. */
typedef struct ScWrittenPart
{
	ScWrittenRows rows;
	int64		bytes;			/* of chunks */
	bool		moved;			/* the query is another pipeline's with it */
} ScWrittenPart;

typedef void (*ScNotePart) (ScCollectedQuery *collected, const ScWrittenPart *written,
							ScCheckpointRecord *record);

/*
 * Writes a part in a subtransaction of its own.  A failure is returned, and nothing of the part is
 * there then.
 */
extern ScFailure *sc_checkpoint_part(ScStore *store, ScCollectedQuery *collected,
									 const ScCheckpointRecord *record, ScWrittenPart *written);

/*
 * Writes n of these parts (ScCollectedQuery *) from "first" on in one subtransaction, and calls "note" for
 * each.  Or does neither, and returns the number of those before the one that must be written alone.
 */
extern int	sc_checkpoint_parts(ScStore *store, const List *parts, int first, int n,
								ScCheckpointRecord *record, ScNotePart note);

/*
 * Performs step(arg).  An error is the query's: it is logged and returned, in the current memory context, and
 * the caller rolls back.  A cancel of this process is thrown on.
 */
extern ScFailure *sc_checkpoint_try(void (*step) (void *arg), void *arg);

/* Writes the part's result rows in the current subtransaction; errors as sc_checkpoint_try. */
extern ScFailure *sc_checkpoint_rows(ScQuery *query, ScPart *part, ScWrittenRows *written);

/* The same for several queries' rows, with errors thrown; false: the owner's code would run. */
extern bool sc_checkpoint_rows_direct(ScQuery *query, ScPart *part, ScWrittenRows *written);

/*
 * The same around rows that fail, which become dead letters.  Returns a failure
 * only where it may pass another time.
 */
extern ScFailure *sc_checkpoint_rows_around(ScQuery *query, ScPart *part,
											ScDeadLetterWriter *letters, ScWrittenRows *written);

#endif							/* SC_WORKER_COORDINATOR_CHECKPOINT_INTERNAL_H */
