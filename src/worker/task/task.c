/*-------------------------------------------------------------------------
 * task.c
 *	  A task of a pipeline [Flink: TaskManager]: runs the queries over the rows that
 *	  the reader sends, and hands its part of each checkpoint to the coordinator.
 *
 * The loop takes one message at a time.  Rows are worked on message by message
 * and query by query, each message in a transaction of its own, so that nothing
 * stays open while waiting.  At a barrier what changed is copied into the outbox, or, if it is much,
 * noted (the synchronous phase).  The rest is written between messages, and the outbox is sent whenever the queue has
 * room (the asynchronous phase), while rows are processed already (barrier.c).
 *
 * The rule: the task never waits for its outbox.  Where the outbox is full it stops
 * reading instead, and the reader waits in turn.  But a pending part goes on: what is behind it can't be sent before.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/debug.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/frame/loop.h"
#include "worker/frame/queues.h"
#include "worker/frame/workers.h"
#include "worker/task/task_internal.h"

static shm_mq_handle *input;
static ScOutbox *outbox;
static ScTaskShared *shared;	/* our statistics */
static int64 attempt;
static bool part_unsent;

static void task_main(void);
static void process_message(const char *data, Size len);
static void process_rows(const char *data, Size len);
static void process_control(const ScWireControl *control);
static void publish_statistics(void);

void
stream_ckpt_task_main(Datum arg)
{
	ScPipelineShared *pipeline = &sc_shared->pipelines[DatumGetInt32(arg)];
	ScWorkerArg worker_arg;

	memcpy(&worker_arg, MyBgworkerEntry->bgw_extra, sizeof(worker_arg));
	attempt = worker_arg.attempt;
	shared = &pipeline->tasks[worker_arg.task];
	sc_worker_run(SC_PROCESS_TASK, DatumGetInt32(arg), &shared->place, task_main);
}

static dsm_segment *
attach(void)
{
	dsm_segment *segment = sc_queues_attach(sc_my_pipeline);
	int			task = shared - sc_my_pipeline->tasks;

	if (sc_my_pipeline->attempt != attempt)
		proc_exit(1);
	input = sc_queue_input(segment, task, false);
	outbox = sc_outbox_create(attempt, sc_queue_output(segment, task, true));
	sc_task_barrier_init(outbox);
	return segment;
}

static bool
outbox_full(void)
{
	return sc_outbox_bytes(outbox) > sc_task_memory_bytes() / 4 || sc_outbox_has_no_room(outbox);
}

/* Is there work that goes on in steps, between messages?  Rows wait for room in the outbox, a part doesn't. */
static bool
has_steps(void)
{
	return sc_task_barrier_is_pending() || (!outbox_full() && sc_task_is_emitting());
}

/* The task's life: never returns.  It ends with the attempt. */
static void
task_main(void)
{
	dsm_segment *segment = attach();
	int			noffsets;
	const ScOffset *offsets = sc_queues_offsets(segment, &noffsets);

	SC_DEBUG_POINT("task_before_restore");
	sc_begin_transaction();
	sc_task_queries_restore(outbox, shared - sc_my_pipeline->tasks, sc_my_pipeline->ntasks, offsets,
							sc_queues_placements(segment), noffsets);
	sc_task_queries_bound();
	sc_commit_transaction();
	publish_statistics();

	for (;;)
	{
		shm_mq_result result = SHM_MQ_WOULD_BLOCK;
		Size		len;
		void	   *data;
		bool		works;
		instr_time	start;
		instr_time	stop;

		sc_worker_check();
		if (sc_outbox_pump(outbox) && part_unsent && !sc_task_barrier_is_pending())
		{
			part_unsent = false;
			SC_DEBUG_POINT("task_part_sent");
		}
		INSTR_TIME_SET_CURRENT(start);
		if (!outbox_full())
			result = shm_mq_receive(input, &len, &data, true);
		if (result == SHM_MQ_SUCCESS && shared->behind_since == 0)
			shared->behind_since = sc_moment_now();
		works = result == SHM_MQ_SUCCESS || has_steps();
		if (result == SHM_MQ_SUCCESS)
		{
			process_message(data, len);
			sc_task_period_look(shared->lsn, shared->commit_time);
		}
		else if (result == SHM_MQ_DETACHED)
			proc_exit(1);		/* the reader's end ends the attempt */
		else if (!outbox_full())
		{
			shared->behind_since = 0;
			sc_task_period_break();
		}
		if (!works)
			sc_worker_wait(-1);
		else if (sc_task_barrier_is_pending())
			sc_task_barrier_go_on(start);
		else if (has_steps())
			sc_task_emit_some(start);
		sc_task_queries_forget_lost();
		INSTR_TIME_SET_CURRENT(stop);
		INSTR_TIME_SUBTRACT(stop, start);
		if (works)
			shared->busy_us += INSTR_TIME_GET_MICROSEC(stop);
		else if (outbox_full())
			shared->backpressured_us += INSTR_TIME_GET_MICROSEC(stop);
		shared->outbox_bytes = sc_outbox_bytes(outbox);
	}
}

/*
 * Waits until the transaction is visible, and has told others of its changes of the catalogs,
 * which it does before it gives up the lock on its id.
 */
static void
wait_until_told(TransactionId xid)
{
	bool		over = false;

	sc_wait_until_visible(xid, sc_worker_wait);
	while (!over)
	{
		sc_begin_transaction();
		over = sc_conditional_xact_wait(xid);
		sc_commit_transaction();
		if (!over)
			sc_worker_wait(1);
	}
}

/* Works on one message of the reader.  One of another attempt is dropped.  Outside a transaction. */
static void
process_message(const char *data, Size len)
{
	const ScWireHeader *header = (const ScWireHeader *) data;
	const ScWireRecord *first = (const ScWireRecord *) (header + 1);

	if (header->magic != SC_WIRE_MAGIC)
		elog(ERROR, "invalid message from the reader");
	if (header->attempt != attempt)
		return;
	switch (first->op)
	{
		case SC_WIRE_LAYOUT:
			sc_task_layout_set(first);
			break;
		case SC_WIRE_HISTORY:
			sc_task_history_begin((const ScWireHistory *) SC_WIRE_BODY(first));
			break;
		case SC_WIRE_HISTORY_END:
			sc_task_history_end((const ScWireHistoryEnd *) SC_WIRE_BODY(first));
			break;
		case SC_WIRE_CONTROL:
			process_control((const ScWireControl *) SC_WIRE_BODY(first));
			break;
		case SC_WIRE_BARRIER:
			sc_task_barrier((const ScWireBarrier *) SC_WIRE_BODY(first));
			part_unsent = true;
			break;
		case SC_WIRE_BEGIN:
			/* it comes a moment before others see what the transaction made */
			if ((first->flags & SC_WIRE_CATALOGS) && sc_task_queries_mind_catalogs())
				wait_until_told(((const ScWireBegin *) SC_WIRE_BODY(first))->xid);
			process_rows(data, len);
			break;
		default:
			process_rows(data, len);
			break;
	}
}

/* What the last transaction end in the message was, for the views. */
static void
note_last_commit(const char *data, Size len)
{
	const char *end = data + len;

	for (data += sizeof(ScWireHeader); data < end; data += ((ScWireRecord *) data)->len)
	{
		if (((ScWireRecord *) data)->op == SC_WIRE_COMMIT)
		{
			const ScWireCommit *commit = (const ScWireCommit *) SC_WIRE_BODY(data);

			shared->lsn = commit->end_lsn;
			shared->commit_time = commit->commit_time;
		}
	}
}

/*
 * Waits until others see the transactions in a message: their rows are read a moment before, and who reads tables for them
 * must see what they did.  No checkpoint with the rows could be committed before that, either.
 */
static void
wait_until_seen(const char *data, Size len)
{
	const char *end = data + len;

	if (!sc_task_queries_read_tables())
		return;
	for (data += sizeof(ScWireHeader); data < end; data += ((ScWireRecord *) data)->len)
	{
		if (((ScWireRecord *) data)->op == SC_WIRE_BEGIN)
			sc_wait_until_visible(((const ScWireBegin *) SC_WIRE_BODY(data))->xid, sc_worker_wait);
	}
}

/*
 * Runs a message's records through all queries, in a transaction of its own.  If state is past
 * stream_ckpt.task_memory then, queries fail until it isn't (memory.c).
 */
static void
process_rows(const char *data, Size len)
{
	uint32		nrows = ((const ScWireHeader *) data)->nrows;

	wait_until_seen(data, len);
	sc_begin_transaction();
	sc_task_queries_run(data, len);
	sc_task_queries_bound();
	sc_commit_transaction();
	SC_DEBUG_POINT("task_after_rows");
	shared->rows_in += nrows;
	note_last_commit(data, len);
	publish_statistics();
}

/* Does what the message says at its place among the rows, as soon as its transaction is visible. */
static void
process_control(const ScWireControl *control)
{
	/* the catalogs must show what it did */
	sc_wait_until_visible(control->xid, sc_worker_wait);
	sc_begin_transaction();
	switch (control->control.kind)
	{
		case SC_CONTROL_CREATE_QUERY:
			sc_task_query_create(control);
			break;
		case SC_CONTROL_DROP_QUERY:
			sc_task_query_drop(control->control.query_id);
			break;
		case SC_CONTROL_PAUSE_QUERY:
			sc_task_query_pause(control->control.query_id, control->xid, control->end_lsn);
			break;
		case SC_CONTROL_ALTER_STREAM:
			sc_task_queries_alter(control);
			break;
		case SC_CONTROL_RESET_WATERMARK:
			sc_task_queries_reset(control);
			break;
		case SC_CONTROL_IGNORE_DELETES:
		case SC_CONTROL_LOST_PARTITION:
		case SC_CONTROL_MARKER:
		case SC_CONTROL_IDLE:
			break;
	}
	sc_commit_transaction();
	publish_statistics();
}

ScSpillCounters *
sc_task_spill_counters(void)
{
	return &shared->spill;
}

/* Into shared memory, for task_status(): sums over all queries, and the smallest watermark. */
static void
publish_statistics(void)
{
	int64		late_rows = 0;
	int64		groups = 0;
	Size		state_bytes = 0;
	int64		watermark = DT_NOEND;
	ListCell   *lc;

	foreach(lc, sc_task_queries())
	{
		ScTaskQuery *query = lfirst(lc);
		int64		own = sc_watermark(sc_engine_time(query->engine)->max_event_time,
									   query->options.watermark_delay);

		late_rows += sc_engine_counters(query->engine)->late_rows;
		groups += sc_engine_groups(query->engine);
		state_bytes += sc_engine_memory(query->engine);
		watermark = Min(watermark, own);
	}
	shared->late_rows = late_rows;
	shared->groups = groups;
	shared->state_bytes = state_bytes;
	shared->watermark = IS_VALID_TIMESTAMP(watermark) ? watermark : DT_NOBEGIN;
}
