/*-------------------------------------------------------------------------
 * process.c
 *	  Which of our processes this one is.
 *
 * Every worker sets sc_my_process first thing in its main function; a session
 * leaves it alone.  Functions that define, wait for or read continuous queries
 * call sc_refuse_in_worker, because a worker that waited for itself would never
 * come back.
 *
 * A background worker has no client whose messages set the time of a statement:
 * without sc_process_works now() would be the worker's start for ever, in defaults
 * and triggers of result tables, too.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/process.h"
#include "pgstat.h"

ScProcess	sc_my_process = SC_PROCESS_NONE;
bool		sc_preloaded = false;

static bool works;				/* what pg_stat_activity shows */

/* What pg_stat_activity shows as the query. */
static const char *
activity(void)
{
	switch (sc_my_process)
	{
		case SC_PROCESS_LAUNCHER:
			return "stream_ckpt: looking after pipelines";
		case SC_PROCESS_COORDINATOR:
			return "stream_ckpt: coordinating checkpoints";
		case SC_PROCESS_READER:
			return "stream_ckpt: decoding the WAL";
		case SC_PROCESS_TASK:
			return "stream_ckpt: processing rows";
		case SC_PROCESS_WRITER:
			return "stream_ckpt: writing a large result";
		case SC_PROCESS_NONE:
			break;
	}
	return "";
}

void
sc_process_works(void)
{
	Assert(sc_my_process != SC_PROCESS_NONE && !IsTransactionState());
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity());
	works = true;
}

void
sc_process_idles(void)
{
	if (!works)
		return;
	pgstat_report_activity(STATE_IDLE, NULL);
	works = false;
}

/*
 * Raises an error in one of our own workers: "function" (an SQL name, for the
 * message) was called by a continuous query's own expression or by a trigger of
 * its result table.
 */
void
sc_refuse_in_worker(const char *function)
{
	if (sc_my_process == SC_PROCESS_NONE)
		return;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("function \"%s\" cannot be called by a worker of stream_ckpt",
					function),
			 errdetail("It was called while a continuous query was evaluated or its results were written."),
			 errhint("Call it from a session.")));
}
