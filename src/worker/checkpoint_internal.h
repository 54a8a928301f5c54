/*-------------------------------------------------------------------------
 * checkpoint_internal.h
 *	  What checkpoint.c and checkpoint_rows.c share.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_CHECKPOINT_INTERNAL_H
#define SC_WORKER_CHECKPOINT_INTERNAL_H

#include "ckpt/dead_letter.h"
#include "ckpt/failure.h"
#include "ckpt/part.h"
#include "model/catalog.h"

/* What writing a part's result rows came to. */
typedef struct ScWrittenRows
{
	int64		nrows;
	bool		user_code;		/* code of the owner's own may have run; also after a failure */
} ScWrittenRows;

/* sc_take_query_error() (loop.h), as a failure. */
extern ScFailure *sc_take_query_failure(MemoryContext context);

/*
 * Writes the part's result rows in the current subtransaction.  An error in that is
 * the query's: it is returned, and the caller rolls back.  A cancel of this process is
 * thrown on.
 */
extern ScFailure *sc_checkpoint_rows(ScQuery *query, ScPart *part, ScWrittenRows *written);

/*
 * The same around rows that fail, which become dead letters.  Returns a failure
 * only where it may pass another time.
 */
extern ScFailure *sc_checkpoint_rows_around(ScQuery *query, ScPart *part,
											ScDeadLetterWriter *letters, ScWrittenRows *written);

#endif							/* SC_WORKER_CHECKPOINT_INTERNAL_H */
