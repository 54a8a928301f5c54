/*-------------------------------------------------------------------------
 * loop.c
 *	  The frame of all our workers (loop.h).
 *
 * A worker that fails ends: it notes why, and exits with status 1; whoever
 * started it decides what is next.  Any other status would restart the whole
 * server.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifndef WIN32
#include <sys/resource.h>
#endif

#include "access/xact.h"
#include "base/backoff.h"
#include "base/env.h"
#include "base/limit.h"
#include "ckpt/failure.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/frame/loop.h"

#define VISIBLE_MAX_MS 100
#define LANE_PRIORITY 10		/* as nice(1) has it: others, at 0, get ten times as much of a CPU that both want */

ScPipelineShared *sc_my_pipeline = NULL;
ScWorkerContext sc_worker_context;

static ScWorkerPlace *my_place;

/*
 * Says which pipeline, query, checkpoint and LSN an error belongs to.  Called for each error, also for
 * those that code of owners catches.
 */
static void
worker_error_context(void *arg)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "pipeline %d", sc_my_pipeline->pipeline_id);
	if (sc_worker_context.query_id != 0)
		appendStringInfo(&buf, ", query " INT64_FORMAT, sc_worker_context.query_id);
	if (sc_worker_context.checkpoint_id != 0)
		appendStringInfo(&buf, ", checkpoint " INT64_FORMAT,
						 sc_worker_context.checkpoint_id);
	if (!XLogRecPtrIsInvalid(sc_worker_context.lsn))
		appendStringInfo(&buf, ", LSN %X/%X", LSN_FORMAT_ARGS(sc_worker_context.lsn));
	errcontext("%s", buf.data);
	pfree(buf.data);
	sc_limit_insist();
}

/* A place has one holder; whoever holds it is the only one of its kind. */
static void
take_place(void)
{
	bool		taken;

	SpinLockAcquire(&sc_my_pipeline->mutex);
	taken = my_place->pid != 0;
	if (!taken)
	{
		my_place->pid = MyProcPid;
		my_place->latch = MyLatch;
	}
	SpinLockRelease(&sc_my_pipeline->mutex);
	if (taken)
		elog(ERROR, "pipeline %d has another worker of this kind",
			 sc_my_pipeline->pipeline_id);
}

/* The place is left before the process can be replaced by another. */
static void
leave_place(int code, Datum arg)
{
	Latch	   *coordinator;

	SpinLockAcquire(&sc_my_pipeline->mutex);
	my_place->pid = 0;
	my_place->latch = NULL;
	coordinator = sc_my_pipeline->coordinator.latch;
	SpinLockRelease(&sc_my_pipeline->mutex);
	if (coordinator)
		SetLatch(coordinator);
	else
		sc_shared_wake_launcher();
	ConditionVariableBroadcast(&sc_my_pipeline->cv);
}

/* Runs "main", noting an error before it ends the process. */
static void
run_and_note(void (*main) (void))
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		main();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		sc_status_note_error(sc_my_pipeline, error->message, error->hint,
							 error->sqlerrcode == ERRCODE_QUERY_CANCELED);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void
sc_worker_yield_cpu(void)
{
#ifndef WIN32
	/* best effort: it can't be taken back, so only who ends with it may do that */
	(void) setpriority(PRIO_PROCESS, 0, LANE_PRIORITY);
#endif
}

void
sc_worker_run(ScProcess process, int pipeline_index, ScWorkerPlace *place,
			  void (*main) (void))
{
	ErrorContextCallback callback;

	sc_my_process = process;
	sc_my_pipeline = &sc_shared->pipelines[pipeline_index];
	my_place = place;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	sc_limit_begin_worker();
	BackgroundWorkerUnblockSignals();

	take_place();
	before_shmem_exit(leave_place, (Datum) 0);
	/* a coordinator doesn't know yet */
	if (process != SC_PROCESS_COORDINATOR && sc_my_pipeline->lane)
		sc_worker_yield_cpu();

	callback.callback = worker_error_context;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	BackgroundWorkerInitializeConnectionByOid(sc_my_pipeline->database, InvalidOid, 0);
	sc_env_begin_worker();
	run_and_note(main);
	error_context_stack = callback.previous;
}

void
sc_worker_check(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

void
sc_worker_wait(long timeout_ms)
{
	Assert(!IsTransactionState());
	sc_process_idles();
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout_ms >= 0 ? WL_TIMEOUT : 0),
					 timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	sc_worker_check();
}

/* Nobody tells when a transaction becomes visible, so this looks again, ever less often. */
void
sc_wait_until_visible(TransactionId xid, void (*wait) (long timeout_ms))
{
	int			looks = 0;

	while (TransactionIdIsInProgress(xid))
		wait(sc_backoff_ms(looks++, 1, VISIBLE_MAX_MS));
}

void
sc_begin_transaction(void)
{
	sc_process_works();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
sc_commit_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

void
sc_commit_lazily(void)
{
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
							 true, 0, false);
}

/* True where the text was too long. */
static bool
clip(char *text)
{
	int			len = text ? strlen(text) : 0;

	if (len <= SC_MAX_ERROR_TEXT)
		return false;
	text[pg_mbcliplen(text, len, SC_MAX_ERROR_TEXT)] = '\0';
	return true;
}

/* To the server's log.  Code of owners can raise texts of any size: they are cut. */
static void
log_error(ErrorData *error)
{
	ErrorContextCallback *callbacks = error_context_stack;
	int			elevel = error->elevel;
	bool		clipped = clip(error->message);

	clipped |= clip(error->detail);
	clipped |= clip(error->hint);
	clipped |= clip(error->context);
	if (!clipped)
	{
		EmitErrorReport();
		FlushErrorState();
		return;
	}
	FlushErrorState();
	error->elevel = LOG;		/* it isn't to be thrown again */
	error_context_stack = NULL; /* its context is there */
	ThrowErrorData(error);
	error_context_stack = callbacks;
	error->elevel = elevel;
}

ErrorData *
sc_take_query_error(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (sc_limit_cancelled())
		PG_RE_THROW();
	sc_limit_explain(error);
	log_error(error);
	return error;
}

void
sc_rethrow_cancel(ErrorData *error)
{
	if (sc_limit_cancelled())
		PG_RE_THROW();
	sc_limit_explain(error);
}

void
sc_worker_describe(BackgroundWorker *worker, const char *function, int pipeline_index)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker->bgw_library_name, "stream_ckpt", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	worker->bgw_main_arg = Int32GetDatum(pipeline_index);
	worker->bgw_notify_pid = MyProcPid;
}
