/*-------------------------------------------------------------------------
 * forget.h
 *	  Forgetting a query that was dropped: all that it leaves in the extension's catalogs.
 *
 * It happens in two transactions.  Whoever drops the query removes at once what users see of it:
 * its row of stream_ckpt.query, late rows, dead letters and failure.  Its offset and state are the
 * coordinator's, who may be writing them just then, and go with the next checkpoint of its pipeline,
 * together with what the last checkpoint before wrote of the rest.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_FORGET_H
#define SC_CKPT_FORGET_H

#include "ckpt/store.h"

/*
 * For api/: the query is dropped by this transaction.  Waits for others who change what is removed.
 * Its workers are told by sc_query_dropped (worker/frame/pipeline.h).
 */
extern void sc_forget_dropped(int64 query_id);

/*
 * For a checkpoint: the query doesn't exist any more.  False: all is gone but for rows that an open
 * transaction has changed (take_late_rows(), resume_query()); the checkpoint doesn't wait for it.
 */
extern bool sc_forget_written(ScStore *store, int64 query_id);

/*
 * For api/, after a gap was accepted: what the queries (ScQuery *) have in memory, the chunks of
 * their open windows.  Needs an active snapshot.
 */
extern void sc_forget_state(const List *queries);

#endif							/* SC_CKPT_FORGET_H */
