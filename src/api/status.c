/*-------------------------------------------------------------------------
 * status.c
 *	  The functions below the status views: what shared memory says of the
 *	  current database's pipelines and tasks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "api/api_internal.h"
#include "base/clock.h"
#include "catalog/pg_authid.h"
#include "ckpt/uncounted.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "port/pg_bitutils.h"
#include "source/wal/slot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "worker/frame/backfill.h"
#include "worker/frame/shared.h"
#include "worker/frame/start.h"

PG_FUNCTION_INFO_V1(stream_ckpt_pipeline_status);
PG_FUNCTION_INFO_V1(stream_ckpt_task_status);
PG_FUNCTION_INFO_V1(stream_ckpt_sees_pipeline);
PG_FUNCTION_INFO_V1(stream_ckpt_watermark);
PG_FUNCTION_INFO_V1(stream_ckpt_uncounted_message);
PG_FUNCTION_INFO_V1(stream_ckpt_uncounted_hint);
PG_FUNCTION_INFO_V1(stream_ckpt_task_lag);
PG_FUNCTION_INFO_V1(stream_ckpt_task_cache);
PG_FUNCTION_INFO_V1(stream_ckpt_writing_message);
PG_FUNCTION_INFO_V1(stream_ckpt_backfill_progress);
PG_FUNCTION_INFO_V1(stream_ckpt_checkpoint_progress);

#define PIPELINE_COLUMNS 14
#define TASK_COLUMNS 13
#define CACHE_COLUMNS 6
#define BACKFILL_COLUMNS 7

static inline void
set(Datum *values, bool *nulls, int column, Datum value, bool isnull)
{
	values[column] = value;
	nulls[column] = isnull;
}

/*
 * May the caller see what a pipeline says of itself in words?  Messages of errors can
 * hold data of anybody's query.
 */
static bool
sees_pipeline(int32 pipeline_id)
{
	ScPipeline *pipeline = NULL;
	char	   *message;
	char	   *hint;

	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		return true;
	if (sc_extension_exists() && sc_extension_matches(&message, &hint))
		pipeline = sc_pipeline_by_id(pipeline_id, true);
	return pipeline && sc_owns_pipeline(pipeline);
}

Datum
stream_ckpt_sees_pipeline(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(sees_pipeline(PG_GETARG_INT32(0)));
}

/* What a clock on the wall will say then, as far as it can be told. */
static TimestampTz
time_of(ScMoment moment)
{
	return GetCurrentTimestamp() + (moment - sc_moment_now());
}

/*
 * One row of pipeline_status.  What an error said is left out for who must not see the pipeline's
 * queries.
 */
static void
put_pipeline(ReturnSetInfo *result, ScPipelineShared *shared)
{
	Datum		values[PIPELINE_COLUMNS];
	bool		nulls[PIPELINE_COLUMNS];
	ScPipelineShared copy;
	XLogRecPtr	decoded = pg_atomic_read_u64(&shared->decoded_lsn);
	uint64		trigger = pg_atomic_read_u64(&shared->trigger);
	char	   *message;
	char	   *hint;
	bool		restarting;
	bool		words;

	SpinLockAcquire(&shared->mutex);
	memcpy(&copy, shared, sizeof(copy));
	SpinLockRelease(&shared->mutex);
	/* nobody may have looked yet since a dump was restored */
	if ((copy.status == SC_STATUS_IDLE || copy.status == SC_STATUS_GONE) &&
		sc_start_is_lost(copy.pipeline_id, &message, &hint))
	{
		copy.status = SC_STATUS_LOST;
		strlcpy(copy.message, message, sizeof(copy.message));
		strlcpy(copy.hint, hint, sizeof(copy.hint));
	}
	restarting = copy.status == SC_STATUS_RESTARTING;
	/* what stands here while it doesn't run is ours, not an error's */
	words = (!restarting && copy.status != SC_STATUS_RUNNING &&
			 copy.status != SC_STATUS_STARTING) || sees_pipeline(copy.pipeline_id);

	set(values, nulls, 0, Int32GetDatum(copy.pipeline_id), false);
	set(values, nulls, 1, CStringGetTextDatum(sc_status_name(copy.status)), false);
	set(values, nulls, 2, CStringGetTextDatum(copy.message), !words || copy.message[0] == '\0');
	set(values, nulls, 3, CStringGetTextDatum(copy.hint), !words || copy.hint[0] == '\0');
	set(values, nulls, 4, TimestampTzGetDatum(copy.status_since), false);
	set(values, nulls, 5, Int64GetDatum(copy.attempt), copy.attempt == 0);
	set(values, nulls, 6, Int32GetDatum(copy.failures), false);
	set(values, nulls, 7, TimestampTzGetDatum(time_of(copy.restart_at)),
		!restarting || copy.restart_at == 0);
	set(values, nulls, 8, Int32GetDatum(copy.coordinator.pid), copy.coordinator.pid == 0);
	set(values, nulls, 9, Int32GetDatum(copy.reader.pid), copy.reader.pid == 0);
	set(values, nulls, 10, LSNGetDatum(decoded), XLogRecPtrIsInvalid(decoded));
	set(values, nulls, 11, LSNGetDatum(copy.committed_lsn),
		XLogRecPtrIsInvalid(copy.committed_lsn));
	set(values, nulls, 12, Int64GetDatum((int64) trigger), copy.triggered_at == 0);
	set(values, nulls, 13, TimestampTzGetDatum(copy.triggered_at), copy.triggered_at == 0);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* A pipeline without an entry. */
static void
put_words(ReturnSetInfo *result, int32 pipeline_id, ScStatus status, const char *message,
		  const char *hint)
{
	Datum		values[PIPELINE_COLUMNS] = {0};
	bool		nulls[PIPELINE_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	set(values, nulls, 0, Int32GetDatum(pipeline_id), false);
	set(values, nulls, 1, CStringGetTextDatum(sc_status_name(status)), false);
	set(values, nulls, 2, CStringGetTextDatum(message), false);
	if (hint)
		set(values, nulls, 3, CStringGetTextDatum(hint), false);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * The pipelines that should run, where none of the server can, and why.  Where the library isn't
 * preloaded that is said of all: what is missing is learnt before the first query then.
 */
static void
put_waiting_pipelines(ReturnSetInfo *result, const char *message, const char *hint)
{
	ScStatus	status = sc_shared && !RecoveryInProgress() ? SC_STATUS_STARTING : SC_STATUS_STOPPED;
	ListCell   *lc;

	foreach(lc, sc_pipeline_list())
	{
		ScPipeline *pipeline = lfirst(lc);

		if (!pipeline->stopped && sc_query_list(pipeline->pipeline_id) != NIL)
			put_words(result, pipeline->pipeline_id, status, message, hint);
		else if (!sc_shared)
			put_words(result, pipeline->pipeline_id,
					  pipeline->stopped ? SC_STATUS_STOPPED : SC_STATUS_IDLE, message, hint);
	}
}

/*
 * The pipelines that should run and have no entry: the others have taken all places, or nobody
 * has looked at them yet, of which the view says what it can.
 */
static void
put_unplaced_pipelines(ReturnSetInfo *result)
{
	ListCell   *lc;

	foreach(lc, sc_pipeline_list())
	{
		ScPipeline *pipeline = lfirst(lc);
		int32		id = pipeline->pipeline_id;
		char	   *message;
		char	   *hint;

		if (pipeline->stopped || sc_query_list(id) == NIL || sc_shared_find(MyDatabaseId, id))
			continue;
		if (sc_start_is_lost(id, &message, &hint))
			put_words(result, id, SC_STATUS_LOST, message, hint);
		else if (!sc_shared_has_room())
			put_words(result, id, SC_STATUS_STARTING, "there is no place for the pipeline",
					  "Increase \"stream_ckpt.max_pipelines\" and restart the server. Lost and stopped pipelines take a place, too.");
		else if (sc_slot_is_missing(id))
		{
			/* a copied or restored database, or one that nobody could connect to */
			sc_shared_wish_probe(MyDatabaseId);
			put_words(result, id, SC_STATUS_STARTING, "the pipeline's replication slot is still to be made", NULL);
		}
	}
}

/* Does a process of ours run in this database? */
static bool
any_coordinator(void)
{
	sc_foreach_pipeline(pipeline, MyDatabaseId)
	{
		if (pipeline->coordinator.pid != 0)
			return true;
	}
	return false;
}

/*
 * pipeline_status(): all pipelines of the current database, also those that have no place in shared
 * memory.  If the server can't run any, each says why.
 */
Datum
stream_ckpt_pipeline_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *message;
	const char *hint;

	sc_extension_require();
	InitMaterializedSRF(fcinfo, 0);
	if (sc_server_problem(&message, &hint) && (!sc_shared || !any_coordinator()))
	{
		put_waiting_pipelines(result, message, hint);
		PG_RETURN_NULL();
	}
	sc_foreach_pipeline(pipeline, MyDatabaseId)
		put_pipeline(result, pipeline);
	if (sc_shared)
		put_unplaced_pipelines(result);
	PG_RETURN_NULL();
}

/* One row of task_status: figures that the task writes without a lock, each as of some moment. */
static void
put_task(ReturnSetInfo *result, ScPipelineShared *pipeline, int i)
{
	ScTaskShared *task = &pipeline->tasks[i];
	Datum		values[TASK_COLUMNS];
	bool		nulls[TASK_COLUMNS] = {0};

	set(values, nulls, 0, Int32GetDatum(pipeline->pipeline_id), false);
	set(values, nulls, 1, Int32GetDatum(i), false);
	set(values, nulls, 2, Int32GetDatum(task->place.pid), false);
	set(values, nulls, 3, Int64GetDatum(task->rows_in), false);
	set(values, nulls, 4, Int64GetDatum(task->late_rows), false);
	set(values, nulls, 5, TimestampTzGetDatum(task->watermark),
		TIMESTAMP_NOT_FINITE(task->watermark));
	set(values, nulls, 6, LSNGetDatum(task->lsn), XLogRecPtrIsInvalid(task->lsn));
	set(values, nulls, 7, TimestampTzGetDatum(task->commit_time), task->commit_time == 0);
	set(values, nulls, 8, Int64GetDatum(task->groups), false);
	set(values, nulls, 9, Int64GetDatum(task->state_bytes), false);
	set(values, nulls, 10, Int64GetDatum(task->outbox_bytes), false);
	set(values, nulls, 11, Float8GetDatum(task->busy_us / 1000.0), false);
	set(values, nulls, 12, Float8GetDatum(task->backpressured_us / 1000.0), false);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* task_status(): the tasks of the current database that run now. */
Datum
stream_ckpt_task_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	sc_extension_require();
	InitMaterializedSRF(fcinfo, 0);
	sc_foreach_pipeline(pipeline, MyDatabaseId)
	{
		for (int t = 0; t < SC_MAX_TASKS; t++)
		{
			if (pipeline->tasks[t].place.pid != 0)
				put_task(result, pipeline, t);
		}
	}
	PG_RETURN_NULL();
}

/* The task of that number of a pipeline of this database; NULL if it doesn't run. */
static ScPipelineShared *
pipeline_of_task(int32 pipeline_id, int number)
{
	ScPipelineShared *pipeline = sc_shared_find(MyDatabaseId, pipeline_id);

	if (!pipeline || number < 0 || number >= SC_MAX_TASKS || pipeline->tasks[number].place.pid == 0)
		return NULL;
	return pipeline;
}

/*
 * task_cache(pipeline_id, task): what the task's windows larger than memory have taken since its attempt began, as
 * ScSpillCounters has it; all NULL if there is no such task.
 */
Datum
stream_ckpt_task_cache(PG_FUNCTION_ARGS)
{
	int			number = PG_GETARG_INT32(1);
	ScPipelineShared *pipeline = pipeline_of_task(PG_GETARG_INT32(0), number);
	TupleDesc	desc;
	Datum		values[CACHE_COLUMNS] = {0};
	bool		nulls[CACHE_COLUMNS];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(nulls, pipeline == NULL, sizeof(nulls));
	if (pipeline != NULL)
	{
		ScSpillCounters counters = pipeline->tasks[number].spill;
		int64		figures[CACHE_COLUMNS] = {counters.hits, counters.misses, counters.evictions,
		counters.loaded, counters.written, counters.merged};

		for (int i = 0; i < CACHE_COLUMNS; i++)
			values[i] = Int64GetDatum(figures[i]);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Seconds since something is behind; 0: nothing is. */
static double
seconds_since(ScMoment since)
{
	return since == 0 ? 0 : (sc_moment_now() - since) / 1000000.0;
}

/*
 * task_lag(pipeline_id, task) -> seconds that the task's last transaction is behind what was
 * committed: 0 when it has had all that is in the WAL; never more than since it had.  NULL: there
 * is no such task.
 */
Datum
stream_ckpt_task_lag(PG_FUNCTION_ARGS)
{
	int			number = PG_GETARG_INT32(1);
	ScPipelineShared *pipeline = pipeline_of_task(PG_GETARG_INT32(0), number);
	ScTaskShared *task;
	double		lag;

	if (!pipeline)
		PG_RETURN_NULL();
	task = &pipeline->tasks[number];
	lag = Max(seconds_since(pipeline->behind_since), seconds_since(task->behind_since));
	if (task->commit_time != 0)
		lag = Min(lag, Max(GetCurrentTimestamp() - task->commit_time, 0) / 1000000.0);
	PG_RETURN_FLOAT8(lag);
}

/* writing_message(pipeline_id, query_id): NULL if no writer has a part of the query */
Datum
stream_ckpt_writing_message(PG_FUNCTION_ARGS)
{
	ScPipelineShared *pipeline = sc_shared_find(MyDatabaseId, PG_GETARG_INT32(0));
	bool		writes;
	int64		rows;
	int64		done;

	if (!pipeline)
		PG_RETURN_NULL();
	SpinLockAcquire(&pipeline->mutex);
	writes = pipeline->writing_query == PG_GETARG_INT64(1);
	rows = pipeline->writing_rows;
	done = pipeline->writing_done;
	SpinLockRelease(&pipeline->mutex);
	if (!writes)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("a large result is being written: " INT64_FORMAT " of " INT64_FORMAT " rows",
											  Min(done, rows), rows)));
}

/* backfill_progress(pipeline_id, query_id, stream): of a query that is new; all but the phase can be NULL */
Datum
stream_ckpt_backfill_progress(PG_FUNCTION_ARGS)
{
	ScBackfill	backfill = sc_backfill_progress(PG_GETARG_INT32(0), PG_GETARG_INT64(1), PG_GETARG_OID(2));
	TupleDesc	desc;
	Datum		values[BACKFILL_COLUMNS];
	bool		nulls[BACKFILL_COLUMNS];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	set(values, nulls, 0, CStringGetTextDatum(backfill.phase), false);
	set(values, nulls, 1, Int64GetDatum(backfill.rows), !backfill.reads);
	set(values, nulls, 2, Int64GetDatum(backfill.blocks), !backfill.reads);
	set(values, nulls, 3, Int64GetDatum(backfill.total_blocks), !backfill.reads);
	set(values, nulls, 4, Float8GetDatum(backfill.percent), !backfill.reads);
	set(values, nulls, 5, TimestampTzGetDatum(backfill.begun), !backfill.reads);
	set(values, nulls, 6, TimestampTzGetDatum(backfill.end), backfill.end == 0);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* checkpoint_progress(pipeline_id): acknowledged, tasks, slowest_task; all NULL if none is in progress */
Datum
stream_ckpt_checkpoint_progress(PG_FUNCTION_ARGS)
{
	ScPipelineShared *pipeline = sc_shared_find(MyDatabaseId, PG_GETARG_INT32(0));
	uint32		acknowledged;
	TupleDesc	desc;
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, true};
	int			missing = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (pipeline && pipeline->triggered_at != 0)
	{
		acknowledged = pipeline->acknowledged;
		while (acknowledged & (UINT32_C(1) << missing))
			missing++;
		set(values, nulls, 0, Int32GetDatum(pg_popcount32(acknowledged)), false);
		set(values, nulls, 1, Int32GetDatum(pipeline->ntasks), false);
		set(values, nulls, 2, Int32GetDatum(missing), missing >= pipeline->ntasks);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * watermark(max_event_time, watermark_delay): counted as the queries do, a day as 24 hours.
 * -infinity where that is before all times, NULL for a delay without a length: no error.
 */
Datum
stream_ckpt_watermark(PG_FUNCTION_ARGS)
{
	Interval   *delay = PG_GETARG_INTERVAL_P(1);
	int64		usecs;
	int64		watermark;

	if (!sc_interval_length(delay, &usecs))
		PG_RETURN_NULL();
	watermark = sc_watermark(PG_GETARG_TIMESTAMPTZ(0), usecs);
	if (watermark < MIN_TIMESTAMP)
		PG_RETURN_TIMESTAMPTZ(DT_NOBEGIN);
	if (!IS_VALID_TIMESTAMP(watermark))
		PG_RETURN_TIMESTAMPTZ(DT_NOEND);
	PG_RETURN_TIMESTAMPTZ(watermark);
}

/*
 * Calls "words" with the four counters that are the function's arguments; NULL if it has nothing to
 * say.
 */
static Datum
uncounted_words(FunctionCallInfo fcinfo, char *(*words) (const ScUncounted *))
{
	ScUncounted uncounted = {0};
	char	   *text;

	uncounted.late = PG_GETARG_INT64(0);
	uncounted.timeless = PG_GETARG_INT64(1);
	uncounted.ignored = PG_GETARG_INT64(2);
	uncounted.ahead = PG_GETARG_INT64(3);
	text = words(&uncounted);
	if (text == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

Datum
stream_ckpt_uncounted_message(PG_FUNCTION_ARGS)
{
	return uncounted_words(fcinfo, sc_uncounted_message);
}

Datum
stream_ckpt_uncounted_hint(PG_FUNCTION_ARGS)
{
	return uncounted_words(fcinfo, sc_uncounted_hint);
}
