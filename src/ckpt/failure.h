/*-------------------------------------------------------------------------
 * failure.h
 *	  The failure of one query: what is known of it, and where it is kept.
 *
 * An error that concerns one query alone (in its expressions, or in writing its
 * result) is a value here, not an exception: it travels from the task or the sink
 * to the coordinator, who keeps it in stream_ckpt.query_failure while the other
 * queries go on.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_FAILURE_H
#define SC_CKPT_FAILURE_H

#include "access/xlogdefs.h"
#include "base/transient.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/elog.h"

/* What can be done about one query that is lost */
#define SC_HINT_LOST_QUERY \
	"Call stream_ckpt.resume_query(query, accept_gap => true) to go on without the rows between, or stream_ckpt.rebuild_query(query) to make its result anew of its stream's table."

/* Failures in a row after which nobody waits for a query */
#define SC_PATIENCE			5

/* Bytes that are kept of each of an error's texts */
#define SC_MAX_ERROR_TEXT	8192

typedef enum ScFailureStatus
{
	SC_FAILURE_WAITING = 'w',	/* its part of a checkpoint is kept and tried again */
	SC_FAILURE_RETRYING = 'r',	/* it goes on from its last checkpoint by itself */
	SC_FAILURE_FAILED = 'f',	/* it has failed until resume_query() */
	SC_FAILURE_LOST = 'l',		/* its WAL isn't kept any more: until somebody accepts the gap */
	SC_FAILURE_ACCEPTED = 'a'	/* somebody has: the next attempt begins it at the last checkpoint */
} ScFailureStatus;

typedef struct ScFailure
{
	int			sqlerrcode;
	const char *message;
	const char *detail;			/* or NULL, as the next two */
	const char *hint;
	const char *context;
	XLogRecPtr	row_lsn;		/* end of the row's transaction; invalid: no row */
	int64		row_ordinal;	/* of the row in it, among those of the stream, from 1 */
} ScFailure;

/* A row of stream_ckpt.query_failure. */
typedef struct ScFailureRow
{
	int64		query_id;
	ScFailureStatus status;
	int			failures;		/* in a row */
	XLogRecPtr	row_lsn;
} ScFailureRow;

/* A failure made of an error, in the current memory context. */
extern ScFailure *sc_failure_from_error(const ErrorData *error);

/* The same as bytes, and back (pointers into "data", which must be MAXALIGNed). */
extern void sc_failure_write(StringInfo buf, const ScFailure *failure);
extern ScFailure *sc_failure_read(const char *data, Size len);

/* All rows, ScFailureRow *, for sc_find_by_id().  Needs a transaction. */
extern List *sc_failure_list(void);
/* Does a query with this row (or NULL) not run? */
extern bool sc_failure_stops(const ScFailureRow *row);
/* Is the WAL behind the query's offset not kept for it? */
extern bool sc_failure_loses(const ScFailureRow *row);
/*
 * Writes the query's row, in place of an older one; but leaves one alone that an open
 * transaction has removed (resume_query(), drop_query()): the checkpoint doesn't wait for it.
 * False then: nothing is written, and the caller has to try again.
 */
extern bool sc_failure_set(int64 query_id, ScFailureStatus status, int failures,
								 const ScFailure *failure);
/* Gone: removes the row; waits for others who change it. */
extern void sc_failure_clear(int64 query_id);
/*
 * Resumed: removes the row, or has the gap of a lost query accepted (*had_gap then); waits for others
 * who change it.  False: the query is lost, and the gap isn't accepted; nothing is changed.
 */
extern bool sc_failure_resume(int64 query_id, bool accept_gap, bool *had_gap);
/* The query is healthy again.  False: an open transaction has removed the row, as above. */
extern bool sc_failure_recovered(int64 query_id);

#endif							/* SC_CKPT_FAILURE_H */
