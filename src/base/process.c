/*-------------------------------------------------------------------------
 * process.c
 *	  Which of our processes this one is.
 *
 * Every worker sets sc_my_process first thing in its main function; a session
 * leaves it alone.  Functions that define, wait for or read continuous queries
 * call sc_refuse_in_worker, because a worker that waited for itself would never
 * come back.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/process.h"

ScProcess	sc_my_process = SC_PROCESS_NONE;
bool		sc_preloaded = false;

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
