/*-------------------------------------------------------------------------
 * coordinator.c
 *	  The coordinator of a pipeline [Flink: JobManager]: starts its reader and
 *	  tasks, triggers checkpoints, and has them committed (commit.c).
 *
 * An attempt is one run of a pipeline's workers, from the last committed
 * checkpoint on.  Any worker's death, and any error in one, ends it: this process
 * then ends too, and the launcher starts the next by the restart strategy.
 *
 * At most one checkpoint is in flight.  The id of the next one is written to
 * "trigger"; the reader turns it into barriers; the tasks' parts arrive through
 * their queues.  Once complete they are committed in one transaction, which is
 * tried again from the same parts until it succeeds: the barrier of the next
 * checkpoint is not sent before.
 *
 * The rule: the coordinator's place in shared memory is held for life (code of an
 * owner's could give up a lock, pg_advisory_unlock_all() does), and the attempt is
 * compared inside the checkpoint's transaction, so nobody else commits for this pipeline.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/by_id.h"
#include "base/compat.h"
#include "ckpt/offset.h"
#include "ckpt/pipeline_state.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "source/wal/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/coordinator/collect.h"
#include "worker/coordinator/coordinator_internal.h"
#include "worker/coordinator/first_slot.h"
#include "worker/coordinator/idle.h"
#include "worker/coordinator/lane.h"
#include "worker/coordinator/moving.h"
#include "worker/coordinator/progress.h"
#include "worker/coordinator/reports.h"
#include "worker/coordinator/handing.h"
#include "worker/frame/backfill.h"
#include "worker/frame/loop.h"
#include "worker/frame/own_rows.h"
#include "worker/frame/queues.h"
#include "worker/frame/start.h"
#include "worker/frame/workers.h"

#define NET_MS				60000
#define RETRY_MIN_MS		1000
#define REST_MAX_MS			600000
/* When a checkpoint lacks a query whose rows are still to come: the next one after so long, or the interval */
#define LATER_US			200000
/* When queries couldn't be sent to the lane just then */
#define SEND_AGAIN_US		500000

static int64 attempt;
static ScPendingCheckpoint *pending;
static ScMoment began;			/* the attempt */
static XLogRecPtr catch_up_to;	/* where the query is that has got furthest */
static ScMoment caught_up;		/* when the reader was there; 0: not yet */
static ScMoment last_trigger;
static uint64 requests_taken;	/* manual requests that the checkpoint in flight serves, or the last one did */
static const char *kind;		/* of the checkpoint in flight; NULL: none */
static int	ntasks;				/* of the attempt */
static bool rescale;			/* the catalogs want other tasks, or queries on other ones */
static bool lacks_new;			/* the catalogs have a query that is new to this attempt, and begins with a history */
static bool begins_here;		/* as it can't begin in the lane */
static ScMoment send_at;		/* not before that: 0: now */
static bool history_void;		/* nobody wants the history any more that is being read */
static bool ended_well;

static void coordinator_main(void);
static bool prepare(void);
static void give_up_slot(void);
static void begin_attempt(void);
static void wait_for_former_workers(void);
static void read_catalog_again(void);
pg_noreturn static void restart_attempt(const char *why);
static void restart_if_due(void);
static void look_at_moves(void);
static void send_new_queries(void);
static void trigger_if_due(void);
static void advance_if_idle(void);
static const char *due_kind(long *timeout);
static void publish_progress(void);
static void note_end(int code, Datum arg);
static long loop_timeout;

void
stream_ckpt_coordinator_main(Datum arg)
{
	ScPipelineShared *pipeline = &sc_shared->pipelines[DatumGetInt32(arg)];

	sc_worker_run(SC_PROCESS_COORDINATOR, DatumGetInt32(arg), &pipeline->coordinator,
				  coordinator_main);
}

/*
 * The coordinator's life: never returns.  Exits with 0 if the pipeline is not to run, with 1 when
 * the attempt has ended.
 */
static void
coordinator_main(void)
{
	before_shmem_exit(note_end, (Datum) 0);
	/* a checkpoint that a crash loses is made again from the WAL */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	wait_for_former_workers();
	if (!prepare())
	{
		ended_well = true;
		proc_exit(0);
	}
	begin_attempt();
	for (;;)
	{
		if (!sc_children_alive())
			proc_exit(1);
		if (sc_my_pipeline->catalog_changed)
			read_catalog_again();
		sc_writer_look(pending);
		if (sc_collect_pump(pending))
		{
			sc_commit_checkpoint(pending, kind, requests_taken);
			kind = NULL;
		}
		restart_if_due();
		send_new_queries();
		look_at_moves();
		trigger_if_due();
		advance_if_idle();
		sc_worker_wait(loop_timeout);
	}
}

/* Those of an attempt that ended are on their way out, but may not be gone. */
static void
wait_for_former_workers(void)
{
	for (;;)
	{
		bool		any = sc_my_pipeline->reader.pid != 0 || sc_my_pipeline->writer.pid != 0;

		for (int i = 0; i < SC_MAX_TASKS; i++)
			any |= sc_my_pipeline->tasks[i].place.pid != 0;
		if (!any)
			return;
		sc_worker_wait(10);
	}
}

/*
 * Decides whether the pipeline may start, and makes its slot if nothing depends on one yet.  False: it stands,
 * with its status saying why.
 */
static bool
prepare(void)
{
	char	   *message;
	char	   *hint;
	ScStatus	status;

	SpinLockAcquire(&sc_my_pipeline->mutex);
	sc_my_pipeline->requested = false;
	sc_my_pipeline->catalog_changed = false;
	sc_my_pipeline->failed_by_error = false;
	SpinLockRelease(&sc_my_pipeline->mutex);
	sc_moving_begin();
	sc_backfill_clear(sc_my_pipeline);
	sc_status_set(sc_my_pipeline, SC_STATUS_STARTING, NULL, NULL);

	sc_begin_transaction();
	status = sc_start_check(sc_my_pipeline->pipeline_id, &message, &hint);
	if (status != SC_STATUS_STARTING)
	{
		sc_status_set(sc_my_pipeline, status, message, hint);
		if (hint)
			ereport(LOG,
					(errmsg("pipeline %d is %s: %s", sc_my_pipeline->pipeline_id,
							sc_status_name(status), message),
					 errhint("%s", hint)));
	}
	sc_commit_transaction();
	if (status == SC_STATUS_IDLE)
		give_up_slot();
	if (status == SC_STATUS_STARTING && sc_slot_is_missing(sc_my_pipeline->pipeline_id) && !sc_slot_for_new_queries())
		restart_attempt("the pipeline has changed while its replication slot was made");
	return status == SC_STATUS_STARTING;
}

/* a dump that is being restored: its queries may not be there yet */
#define NOT_RESTORED " AND t.own AND t.lsn OPERATOR(pg_catalog.<>) '0/1'"

/*
 * Selects the ids in a table of queries that are gone.  From one id to the next by the table's index: of each there can
 * be gigabytes, and an attempt begins with this.
 */
static char *
ids_of_dropped_queries(const char *table, const char *except)
{
	return psprintf("WITH RECURSIVE ids(id) AS ("
					"(SELECT t.query_id FROM stream_ckpt.%s t WHERE true%s ORDER BY t.query_id LIMIT 1)"
					" UNION ALL SELECT (SELECT t.query_id FROM stream_ckpt.%s t"
					" WHERE t.query_id OPERATOR(pg_catalog.>) ids.id%s ORDER BY t.query_id LIMIT 1)"
					" FROM ids WHERE ids.id IS NOT NULL)"
					" SELECT ids.id FROM ids WHERE ids.id IS NOT NULL"
					" AND NOT EXISTS (SELECT FROM stream_ckpt.query q WHERE q.query_id OPERATOR(pg_catalog.=) ids.id)",
					table, except, table, except);
}

/*
 * Removes what is left of queries that no longer exist.  Rows that somebody else is changing aren't
 * waited for: checkpoints remove them later.
 */
static void
forget_dropped_queries(void)
{
	static const char *const tables[] = {"checkpoint_offset", "state_run", "state_chunk", "query_failure",
		"query_history", "changed_windows", "late_rows", "dead_letter"};

	SPI_connect();
	for (int i = 0; i < lengthof(tables); i++)
	{
		const char *except = i == 0 ? NOT_RESTORED : "";
		char	   *left = ids_of_dropped_queries(tables[i], except);
		char	   *command =
			psprintf("DELETE FROM stream_ckpt.%s WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
					 "SELECT t.ctid FROM stream_ckpt.%s t WHERE t.query_id OPERATOR(pg_catalog.=) ANY (ARRAY(%s))%s"
					 " FOR UPDATE SKIP LOCKED))",
					 tables[i], tables[i], left, except);

		if (SPI_execute(left, false, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not look for what dropped queries left");
		if (SPI_processed == 0)
			continue;
		if (SPI_execute(command, false, 0) != SPI_OK_DELETE ||
			SPI_execute(left, false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not remove what dropped queries left");
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			bool		isnull;

			sc_progress_forget_later(DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row],
																 SPI_tuptable->tupdesc, 1, &isnull)));
		}
	}
	SPI_finish();
}

/*
 * Drops the slot of a pipeline with nothing to do.  The position goes first: the
 * next slot begins elsewhere.  A transaction that counts on the slot keeps it,
 * and asks for the pipeline when it ends.
 */
static void
give_up_slot(void)
{
	sc_begin_transaction();
	/* one that never ran has left nothing: what is there may be a dump's, whose queries are still to come */
	if (sc_pipeline_state_read(sc_my_pipeline->pipeline_id).attempt > 0)
		forget_dropped_queries();
	sc_pipeline_state_clear(sc_my_pipeline->pipeline_id);
	sc_commit_transaction();
	sc_begin_transaction();
	(void) sc_slot_drop_if_unused(sc_my_pipeline->pipeline_id);
	sc_commit_transaction();
}

/*
 * The attempt has a number from now on, and nobody writes for the one before any more: a writer that comes late fails,
 * and one that was in time has ended.
 */
static void
count_attempt(void)
{
	ScPipelineState state;

	sc_begin_transaction();
	state = sc_pipeline_state_read(sc_my_pipeline->pipeline_id);
	attempt = sc_pipeline_state_begin_attempt(sc_my_pipeline->pipeline_id, state.checkpoint_id > 0);
	sc_commit_transaction();
	wait_for_former_workers();
	sc_own_rows_end_all();
}

/*
 * Queries that are new begin at "start", too, once they have their streams' history: their offsets, which nobody has
 * stored, follow the others'.  But for those that are to begin in the lane.
 */
static List *
add_new_queries(List *offsets, XLogRecPtr start)
{
	List	   *elsewhere = sc_lane_takes(ntasks);
	ListCell   *lc;

	lacks_new = elsewhere != NIL;
	foreach(lc, sc_new_queries(sc_my_pipeline->pipeline_id))
	{
		const ScQuery *query = lfirst(lc);
		bool		runs = sc_new_query_runs(query);
		ScOffset   *offset;

		if (sc_find_by_id(elsewhere, query->query_id))
			continue;
		sc_progress_load_new(query, runs, start);
		if (!runs)
			continue;
		offset = palloc0(sizeof(ScOffset));
		offset->query_id = query->query_id;
		offset->stream_relid = query->stream_relid;
		offset->lsn = start;
		offset->options = sc_stream_by_relid(query->stream_relid, false)->options;
		sc_event_time_init(&offset->time);
		offset->apart = offset->history = true;
		sc_backfill_add(sc_my_pipeline, query->query_id, query->stream_relid);
		sc_my_pipeline->history.relid = query->stream_relid;
		sc_my_pipeline->history.phase = SC_HISTORY_WAITING;
		offsets = lappend(offsets, offset);
	}
	return offsets;
}

/* Everything of the attempt: its number, what shared memory says, its workers. */
static void
begin_attempt(void)
{
	ScPipelineState state;
	ScPipeline *pipeline;
	List	   *offsets;
	ScPlacement *placements;
	List	   *arrivals;
	ListCell   *lc;
	XLogRecPtr	start;
	dsm_segment *segment;

	count_attempt();
	sc_begin_transaction();
	arrivals = sc_moving_arrivals();
	sc_start_accept_gaps(sc_my_pipeline->pipeline_id);
	offsets = sc_active_offsets(sc_my_pipeline->pipeline_id);
	sc_progress_load(sc_my_pipeline->pipeline_id, offsets);
	sc_moving_expect(arrivals, sc_slot_info(MyDatabaseId, sc_my_pipeline->pipeline_id).confirmed_flush);
	sc_moving_load();
	sc_lane_load();
	sc_idle_load(sc_my_pipeline->pipeline_id);
	state = sc_pipeline_state_read(sc_my_pipeline->pipeline_id);
	began = sc_moment_now();
	pipeline = sc_pipeline_by_id(sc_my_pipeline->pipeline_id, false);
	pg_atomic_write_u64(&sc_my_pipeline->interval_us, pipeline->checkpoint_interval);
	ntasks = Min(pipeline->parallelism, SC_MAX_TASKS);
	sc_my_pipeline->lane = pipeline->lane;
	if (pipeline->lane)
		sc_worker_yield_cpu();
	start = catch_up_to = sc_start_position(sc_my_pipeline->pipeline_id, offsets);
	foreach(lc, offsets)
		catch_up_to = Max(catch_up_to, ((ScOffset *) lfirst(lc))->lsn);
	forget_dropped_queries();
	sc_backfill_clear(sc_my_pipeline);
	offsets = add_new_queries(offsets, start);
	placements = sc_placements(offsets, ntasks);
	foreach(lc, offsets)
	{
		ScOffset   *offset = lfirst(lc);
		int			n = placements[foreach_current_index(lc)].ntasks;

		/* nobody has written runs of it */
		if (offset->history)
			offset->ntasks = n;
		sc_reports_expect(offset->query_id, n);
	}
	segment = sc_queues_create(sc_my_pipeline, ntasks, start, offsets, placements);
	sc_commit_transaction();

	pending = sc_collect_create(attempt);
	/* a move may have been committed by the attempt before, which didn't get to saying so */
	pg_atomic_fetch_add_u64(&sc_shared->shares, 1);
	SpinLockAcquire(&sc_my_pipeline->mutex);
	sc_my_pipeline->attempt = attempt;
	sc_my_pipeline->ntasks = ntasks;
	memset(sc_my_pipeline->tasks, 0, sizeof(sc_my_pipeline->tasks));
	sc_my_pipeline->checkpoint_lsn = start;
	sc_my_pipeline->committed_lsn = sc_progress_committed(start);
	sc_my_pipeline->confirm_lsn = sc_progress_held(start);
	sc_my_pipeline->commit_end = InvalidXLogRecPtr;
	sc_my_pipeline->triggered_at = 0;
	sc_my_pipeline->writing_query = 0;
	requests_taken = sc_my_pipeline->checkpoints_done;
	SpinLockRelease(&sc_my_pipeline->mutex);
	pg_atomic_write_u64(&sc_my_pipeline->trigger, state.checkpoint_id);
	pg_atomic_write_u64(&sc_my_pipeline->committed, state.checkpoint_id);
	pg_atomic_write_u64(&sc_my_pipeline->decoded_lsn, start);
	pg_atomic_write_u32(&sc_my_pipeline->work, 0);
	sc_moving_tell();

	pending->nqueues = ntasks;
	for (int i = 0; i < ntasks; i++)
		pending->queues[i] = sc_queue_output(segment, i, false);
	sc_children_start(sc_my_pipeline, attempt, ntasks);
	sc_status_set(sc_my_pipeline, SC_STATUS_RUNNING, NULL, NULL);
}

/* Up to where sync() may return, by what the catalogs say now. */
static void
publish_progress(void)
{
	SpinLockAcquire(&sc_my_pipeline->mutex);
	sc_my_pipeline->committed_lsn = sc_progress_committed(sc_my_pipeline->checkpoint_lsn);
	SpinLockRelease(&sc_my_pipeline->mutex);
}

/*
 * Do the catalogs say another number of tasks, or put a query on more or fewer of them?  Then a new attempt shares out
 * the queries anew, from the last checkpoint.
 */
static bool
wants_rescale(const ScPipeline *pipeline)
{
	ListCell   *lc;

	if (Min(pipeline->parallelism, SC_MAX_TASKS) != ntasks)
		return true;
	foreach(lc, sc_query_list(pipeline->pipeline_id))
	{
		const ScQuery *query = lfirst(lc);
		int			now = sc_reports_ntasks(query->query_id);

		if (now > 0 && now != sc_placement_size(query->parallelism, ntasks))
			return true;
	}
	return false;
}

/*
 * What is to come here is held from where the slot will be at most: nothing that was told to the reader is beyond
 * that.  First, because what has come is a query like others then.
 */
void
sc_coordinator_review(void)
{
	sc_moving_expect(sc_moving_arrivals(), sc_my_pipeline->confirm_lsn);
	sc_progress_review(sc_my_pipeline->pipeline_id);
	sc_moving_load();
	sc_lane_load();
}

/* Does the reader read a history?  It makes no barriers then, and decodes nothing. */
static bool
is_reading_history(void)
{
	return sc_my_pipeline->history.phase != SC_HISTORY_NONE;
}

/* stop_pipeline(), alter_pipeline(), drop_pipeline(), a pipeline's last drop_query(), DROP EXTENSION... */
static void
read_catalog_again(void)
{
	ScPipeline *pipeline = NULL;
	bool		go_on;

	SpinLockAcquire(&sc_my_pipeline->mutex);
	sc_my_pipeline->requested = false;
	sc_my_pipeline->catalog_changed = false;
	SpinLockRelease(&sc_my_pipeline->mutex);
	sc_begin_transaction();
	if (sc_extension_exists())
		pipeline = sc_pipeline_by_id(sc_my_pipeline->pipeline_id, true);
	go_on = pipeline && !pipeline->stopped && sc_pipeline_in_use(pipeline);
	if (go_on)
	{
		pg_atomic_write_u64(&sc_my_pipeline->interval_us, pipeline->checkpoint_interval);
		sc_coordinator_review();
		publish_progress();
		sc_idle_load(pipeline->pipeline_id);
		rescale = wants_rescale(pipeline);
		lacks_new = sc_progress_lacks_new(pipeline->pipeline_id);
		begins_here = false;
		sc_progress_give_up_histories();
		history_void = is_reading_history() && sc_progress_history_is_for_nobody();
	}
	sc_commit_transaction();
	if (go_on)
	{
		/* what is held counts already */
		sc_moving_tell();
		return;
	}

	/* the reader must have let go of the slot before it can be dropped */
	sc_children_stop();
	if (prepare())
		proc_exit(1);			/* changed again meanwhile: begin anew */
	ended_well = true;
	proc_exit(0);
}

/*
 * Ends the attempt for another one that begins at once.  The reader goes back to where the
 * query that is furthest behind stands, and the others ignore what they have seen.
 */
static void
restart_attempt(const char *why)
{
	sc_children_stop();
	ended_well = true;
	sc_status_set(sc_my_pipeline, SC_STATUS_RESTARTING, why, NULL);
	SpinLockAcquire(&sc_my_pipeline->mutex);
	sc_my_pipeline->restart_at = sc_moment_now();
	SpinLockRelease(&sc_my_pipeline->mutex);
	proc_exit(1);
}

/*
 * When the attempt may end for the sake of a query that stands.  While the reader goes over
 * what the other queries have had already, their new rows wait: as much time as that took is
 * theirs, or a query that is far behind, fails, and is resumed again and again would leave
 * them none.
 */
static ScMoment
earliest_restart(void)
{
	ScMoment	now = sc_moment_now();

	if (caught_up == 0 && pg_atomic_read_u64(&sc_my_pipeline->decoded_lsn) >= catch_up_to)
		caught_up = now;
	if (caught_up == 0)
		return now + RETRY_MIN_MS * 1000;
	return caught_up + Min(caught_up - began, REST_MAX_MS * INT64CONST(1000));
}

/* Is there a query that is to begin in this pipeline, with an attempt? */
static bool
wants_history(void)
{
	return lacks_new && (sc_my_pipeline->lane ? !sc_lane_is_left() : begins_here);
}

/*
 * A query that failed for a while is tried again, one was resumed, or its rows could not be
 * written; sets loop_timeout.
 */
static void
restart_if_due(void)
{
	bool		history = wants_history();
	ScMoment	retry_at = sc_progress_attempt_due();
	ScMoment	earliest = earliest_restart();

	loop_timeout = caught_up == 0 ? RETRY_MIN_MS : -1;
	if (history_void)
		restart_attempt("the history that was being read isn't wanted any more");
	/* whatever else is wanted: with a new attempt it would have to be read from its beginning */
	if (sc_progress_has_history())
		return;
	if (kind != NULL || sc_writer_is_busy())
		return;					/* the end of the checkpoint in flight, or of the writer, wakes us */
	if (sc_progress_wants_attempt() || rescale || history)
		retry_at = earliest;
	else if (retry_at == 0)
		return;
	loop_timeout = sc_moment_wait_ms(Max(retry_at, earliest));
	if (loop_timeout > 0)
		return;
	if (rescale)
		restart_attempt("the queries are shared out among the tasks anew");
	if (history)
	{
		sc_my_pipeline->no_lane = true;
		restart_attempt("a new query begins with the history of its stream");
	}
	if (sc_progress_wants_attempt() || sc_progress_retry_may_succeed())
		restart_attempt("a query begins again from its last checkpoint");
	loop_timeout = sc_moment_wait_ms(sc_progress_attempt_due());
}

/* Lowers loop_timeout; -1: leaves it. */
static void
wake_in(long timeout)
{
	if (timeout >= 0)
		loop_timeout = loop_timeout < 0 ? timeout : Min(loop_timeout, timeout);
}

/* Queries that come and go: lowers loop_timeout to when there may be something to do for them. */
static void
look_at_moves(void)
{
	wake_in(kind == NULL ? sc_moving_look() : -1);
	wake_in(sc_lane_look());
}

/*
 * Queries that are new to the attempt go to the lane, if this isn't it and they can; lowers loop_timeout to when that
 * may be done.
 */
static void
send_new_queries(void)
{
	long		timeout = sc_moment_wait_ms(send_at);

	if (!lacks_new || begins_here || sc_my_pipeline->lane)
		return;
	if (timeout == 0)
	{
		ScLaneAnswer answer = sc_lane_send(ntasks);

		begins_here = answer == SC_LANE_NO;
		lacks_new = answer != SC_LANE_SENT;
		send_at = answer == SC_LANE_LATER ? sc_moment_after(sc_moment_now(), SEND_AGAIN_US) : 0;
		timeout = sc_moment_wait_ms(send_at);
	}
	if (lacks_new)
		wake_in(timeout);
}

/* Triggers a checkpoint where one is due; lowers loop_timeout to when one may be. */
static void
trigger_if_due(void)
{
	uint64		next;
	TimestampTz now;
	long		timeout = NET_MS;
	int64		leaving[SC_WIRE_LEFT_OUT];

	/* at the end of a history the reader wakes us */
	if (kind != NULL || is_reading_history())
		return;
	kind = due_kind(&timeout);
	if (kind == NULL)
	{
		wake_in(timeout);
		return;
	}
	sc_writer_leave_out(pending);
	sc_moving_leave(leaving);
	now = GetCurrentTimestamp();
	last_trigger = sc_moment_now();
	next = pg_atomic_read_u64(&sc_my_pipeline->committed) + 1;
	SpinLockAcquire(&sc_my_pipeline->mutex);
	requests_taken = sc_my_pipeline->checkpoints_requested;
	sc_my_pipeline->triggered_at = now;
	sc_my_pipeline->triggered = last_trigger;
	sc_my_pipeline->acknowledged = 0;
	memcpy(sc_my_pipeline->left_out, pending->left_out, sizeof(pending->left_out));
	memcpy(sc_my_pipeline->leaving, leaving, sizeof(leaving));
	SpinLockRelease(&sc_my_pipeline->mutex);
	pg_atomic_write_u64(&sc_my_pipeline->trigger, next);
	sc_place_wake(sc_my_pipeline, &sc_my_pipeline->reader);
}

/*
 * The kind of checkpoint that is due now, or NULL; *timeout: milliseconds until
 * one may be.
 */
static const char *
due_kind(long *timeout)
{
	XLogRecPtr	decoded = pg_atomic_read_u64(&sc_my_pipeline->decoded_lsn);
	bool		work = pg_atomic_read_u32(&sc_my_pipeline->work) != 0;
	bool		requested;
	XLogRecPtr	sync_lsn;
	XLogRecPtr	checkpoint_lsn;
	bool		progress;
	ScMoment	query_due = sc_progress_checkpoint_due();
	int64		interval = pg_atomic_read_u64(&sc_my_pipeline->interval_us);
	long		wait;

	SpinLockAcquire(&sc_my_pipeline->mutex);
	requested = sc_my_pipeline->checkpoints_requested > requests_taken;
	sync_lsn = sc_my_pipeline->sync_lsn;
	checkpoint_lsn = sc_my_pipeline->checkpoint_lsn;
	SpinLockRelease(&sc_my_pipeline->mutex);

	*timeout = NET_MS;
	if (requested)
		return "manual";
	if (sync_lsn > checkpoint_lsn && decoded >= sync_lsn)
		return "manual";
	if (pending->urgent || sc_moving_is_ready())
		return "periodic";
	/* a large result takes long to write: it should begin while more of it comes */
	if (!pending->some_came_later && pending->result_rows >= SC_LARGE_PART_DEFAULT && !sc_writer_is_busy())
		return "periodic";
	if (query_due != 0)
	{
		*timeout = Min(*timeout, sc_moment_wait_ms(query_due));
		if (*timeout == 0)
			return "retry";
	}
	if (pending->some_came_later)
	{
		wait = sc_moment_wait_ms(sc_moment_after(last_trigger, Min(interval, LATER_US)));
		*timeout = Min(*timeout, wait);
		if (wait == 0)
			return "retry";
	}
	progress = decoded > checkpoint_lsn && decoded - checkpoint_lsn >= wal_segment_size;
	if (!work && !progress)
		return NULL;
	/* the first one of an attempt is due at once */
	wait = last_trigger == 0 ? 0 : sc_moment_wait_ms(sc_moment_after(last_trigger, interval));
	if (wait > 0)
	{
		*timeout = Min(*timeout, wait);
		return NULL;
	}
	return work ? "periodic" : "progress";
}

/* Streams without rows: lowers loop_timeout to when their time may come. */
static void
advance_if_idle(void)
{
	bool		work = pg_atomic_read_u32(&sc_my_pipeline->work) != 0;

	wake_in(is_reading_history() ? -1 : sc_idle_advance(kind == NULL && !work));
}

void
sc_coordinator_wait(long timeout_ms)
{
	sc_worker_wait(timeout_ms);
	if (!sc_children_alive())
		proc_exit(1);
	if (sc_my_pipeline->catalog_changed)
		read_catalog_again();
}

/*
 * Runs at exit, whatever the way: an attempt that didn't end well is followed by
 * another, at once after a healthy one that was only terminated, else after 1 s
 * doubling to 1 min.
 */
static void
note_end(int code, Datum arg)
{
	ScPipelineShared *pipeline = sc_my_pipeline;
	TimestampTz now = GetCurrentTimestamp();
	bool		waits;

	if (!ended_well)
	{
		SpinLockAcquire(&pipeline->mutex);
		waits = pipeline->failures > 0 || pipeline->failed_by_error;
		pipeline->restart_at = waits ? sc_retry_at(pipeline->failures) : sc_moment_now();
		pipeline->failures++;
		pipeline->status = SC_STATUS_RESTARTING;
		pipeline->status_since = now;
		SpinLockRelease(&pipeline->mutex);
	}
}
