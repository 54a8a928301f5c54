/*-------------------------------------------------------------------------
 * reports.h
 *	  What the tasks have said of each query in this attempt, and what that is together.
 *
 * A query can run on several tasks.  At a barrier each of them sends its part, with an offset, or says that nothing of
 * its groups has changed; so a query's offset is made of what each of its tasks said last.
 *
 * The rule: a query's part is written if all its tasks have said where they are, and are at one place.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_COORDINATOR_REPORTS_H
#define SC_WORKER_COORDINATOR_REPORTS_H

#include "ckpt/offset.h"

/* The query runs on so many tasks, as far as is known before any of them says so. */
extern void sc_reports_expect(int64 query_id, int ntasks);

/* A task's offset, 'O'; it says how many tasks the query has. */
extern void sc_report_offset(int task, const ScOffset *offset);
/* The task has nothing new at this checkpoint's barrier, which is at "lsn"; 'S'. */
extern void sc_report_same(int task, int64 query_id, int64 checkpoint_id, XLogRecPtr lsn);
/* The task has forgotten the query, because it failed in it, 'X', or is paused, 'P'. */
extern void sc_report_failed(int task, int64 query_id);
extern void sc_report_paused(int task, int64 query_id);

/* Have all its tasks said that they have nothing new at this barrier? */
extern bool sc_reports_same(int64 query_id, int64 checkpoint_id);
/* Have all its tasks paused it?  Forgotten it? */
extern bool sc_reports_paused(int64 query_id);
extern bool sc_reports_ended(int64 query_id);
/* On how many tasks it runs; 0: that isn't known, or it doesn't. */
extern int	sc_reports_ntasks(int64 query_id);

/*
 * The query's offset by what all its tasks have said.  False: not all have said anything, or they are at different
 * places.
 */
extern bool sc_reports_merge(int64 query_id, ScOffset *merged);

/* The query is gone. */
extern void sc_reports_forget(int64 query_id);

#endif							/* SC_WORKER_COORDINATOR_REPORTS_H */
