/*-------------------------------------------------------------------------
 * reader.c
 *	  The reader of a pipeline [Flink: source]: owns the slot, decodes the WAL,
 *	  sends rows to the tasks (channels.h), injects barriers.
 *
 * It runs outside transactions; decoding opens its own.  Between two WAL records
 * it serves the coordinator: a barrier goes into every channel at once, with the
 * LSN reached, and everything that ends at or before that LSN has been sent by
 * then.  While it waits for room in a queue it still confirms positions.
 *
 * The slot's position is confirmed only after the checkpoint that covers it
 * is flushed, here and on the standbys that wait to take over.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "access/xlog.h"
#include "base/compat.h"
#include "base/debug.h"
#include "ckpt/offset.h"
#include "miscadmin.h"
#include "model/catalog.h"
#include "pgstat.h"
#include "replication/logical.h"
#include "source/wal/capture.h"
#include "source/wal/decode.h"
#include "source/wal/walread.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/frame/loop.h"
#include "worker/frame/own_rows.h"
#include "worker/frame/queues.h"
#include "worker/frame/workers.h"
#include "worker/reader/channels.h"
#include "worker/reader/history.h"

#define POLL_MS			1000	/* the net below wake-ups */
#define CONFIRM_POLL_MS 200		/* while a commit record isn't flushed */
#define FLUSH_MIN_MS	10		/* how often asynchronous commits are flushed, */
#define FLUSH_MAX_MS	100		/* a tenth of the checkpoint interval within these */
#define NAP_MIN_MS		5		/* between reads while commits follow each other */
#define KEEP_BYTES		(64 * 1024 * 1024)	/* freed memory kept for reuse */

static ScDecoder *decoder;
static ScBatch *batch;
static XLogRecPtr start;		/* what ends before it has been processed */
static uint64 barrier_sent;		/* checkpoint id */
static uint64 confirmed;		/* checkpoint id */
static ScMoment last_flush;
static bool napped;				/* since something was decoded */

static void prepare(const ScOffset *offsets, const ScPlacement *placements, int noffsets);
static void keep_freed_memory(void);
static void reader_main(void);
static uint32 tasks_of_query(const ScControl *control);
static void wait_for_room(void);
static void serve_coordinator(void);
static void send_barrier(uint64 checkpoint_id);
static bool confirm(void);
static void publish_position(void);
static long flush_ms(void);
static void nap(void);
static void sleep_until_woken(void);
static void fall_asleep(void);
static void wake_up(int code, Datum arg);

void
stream_ckpt_reader_main(Datum arg)
{
	ScPipelineShared *pipeline = &sc_shared->pipelines[DatumGetInt32(arg)];

	sc_worker_run(SC_PROCESS_READER, DatumGetInt32(arg), &pipeline->reader, reader_main);
}

/*
 * The reader's life: never returns.  Outside transactions; it ends with the attempt, by an error or
 * SIGTERM.
 */
static void
reader_main(void)
{
	dsm_segment *segment = sc_queues_attach(sc_my_pipeline);
	const ScOffset *offsets;
	int			noffsets;
	ScWorkerArg arg;

	keep_freed_memory();
	memcpy(&arg, MyBgworkerEntry->bgw_extra, sizeof(arg));
	sc_channels_open(segment, sc_my_pipeline->ntasks, wait_for_room);
	batch = sc_batch_create(arg.attempt, sc_channels_send, NULL);
	confirmed = barrier_sent = pg_atomic_read_u64(&sc_my_pipeline->committed);
	before_shmem_exit(wake_up, (Datum) 0);
	sc_capture_init();
	start = sc_queues_start(segment);
	offsets = sc_queues_offsets(segment, &noffsets);
	prepare(offsets, sc_queues_placements(segment), noffsets);
	sc_history_read(batch, start, offsets, noffsets);
	decoder = sc_decoder_start(sc_my_pipeline->pipeline_id, start, batch);
	sc_decoder_leave_out(decoder, sc_own_rows_contain);
	sc_decoder_place(decoder, tasks_of_query);
	sc_my_pipeline->behind_since = sc_moment_now();
	SC_DEBUG_POINT("reader_before_read");

	for (;;)
	{
		if (!sc_decoder_step(decoder))
		{
			sc_batch_flush(batch);
			publish_position();
			serve_coordinator();
			sc_my_pipeline->behind_since = 0;
			sleep_until_woken();
		}
		else
		{
			napped = false;
			if (sc_my_pipeline->behind_since == 0)
				sc_my_pipeline->behind_since = sc_moment_now();
			serve_coordinator();
		}
		sc_worker_context.lsn = sc_decoder_position(decoder);
	}
}

/*
 * The reorder buffer takes and frees blocks of 8 MB for each transaction.  By
 * default the C library gives them back to the system each time, and the faults
 * of touching them anew cost more than the decoding itself.
 */
static void
keep_freed_memory(void)
{
#ifdef __GLIBC__
	(void) mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);
	(void) mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
	(void) mallopt(M_TOP_PAD, 1024 * 1024);
#endif
}

/*
 * The max_ahead of a stream at "start", or, what comes to the same, where the first of its queries
 * goes on; that of the catalogs if none has been anywhere yet, but is new.
 */
static int64
max_ahead_at_start(const ScStream *stream, const ScOffset *offsets, int noffsets)
{
	const ScOffset *first = NULL;

	for (int i = 0; i < noffsets; i++)
	{
		if (offsets[i].stream_relid == stream->relid && !offsets[i].history && (!first || offsets[i].lsn < first->lsn))
			first = &offsets[i];
	}
	return first ? first->options.max_ahead : stream->options.max_ahead;
}

/* Which streams to capture, and for which tasks; takes the slot. */
static void
prepare(const ScOffset *offsets, const ScPlacement *placements, int noffsets)
{
	NameData	name;
	ListCell   *lc;

	sc_begin_transaction();
	foreach(lc, sc_query_list(sc_my_pipeline->pipeline_id))
	{
		ScQuery    *query = lfirst(lc);
		ScStream   *stream = sc_stream_by_relid(query->stream_relid, true);

		if (stream)
			sc_capture_add(stream->relid, stream->event_time_attno,
						   max_ahead_at_start(stream, offsets, noffsets), stream->applies);
	}
	sc_commit_transaction();
	for (int i = 0; i < noffsets; i++)
		sc_capture_add_tasks(offsets[i].stream_relid, sc_placement_tasks(placements[i], sc_my_pipeline->ntasks));

	sc_slot_name(MyDatabaseId, sc_my_pipeline->pipeline_id, &name);
	sc_slot_acquire(NameStr(name));
}

/*
 * Of a query that is created: those that will place it so by the same message.  What they do with one that they have
 * already, as the message is read again, is its placement of the attempt's begin.
 */
static uint32
tasks_of_query(const ScControl *control)
{
	int			ntasks = sc_my_pipeline->ntasks;

	return sc_placement_tasks(sc_placement_of_new(control->query_id, control->parallelism, ntasks), ntasks);
}

/* While a queue is full.  Called from decoding callbacks too: a large transaction waits here, and still confirms positions. */
static void
wait_for_room(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	sc_history_look();
	(void) confirm();
}

/* Between two records: barriers, confirmations, interrupts. */
static void
serve_coordinator(void)
{
	static int	calls;
	uint64		trigger = pg_atomic_read_u64(&sc_my_pipeline->trigger);

	if (sc_decoder_take_work(decoder) && pg_atomic_read_u32(&sc_my_pipeline->work) == 0)
	{
		pg_atomic_write_u32(&sc_my_pipeline->work, 1);
		sc_place_wake(sc_my_pipeline, &sc_my_pipeline->coordinator);
	}
	if (trigger > barrier_sent)
		send_barrier(trigger);
	if (++calls % 1024 == 0)
	{
		publish_position();
		(void) confirm();
		sc_worker_check();
	}
}

/* All transactions that end at or before it were read, in this attempt or before its start. */
static XLogRecPtr
reached(void)
{
	return Max(sc_decoder_position(decoder), start);
}

/*
 * Sends barrier k, with the position reached, to all tasks.  Between two transactions: all rows that end
 * at or before that position have been sent.
 */
static void
send_barrier(uint64 checkpoint_id)
{
	TransactionId *xids;
	int			nxids;
	ScWireBarrier *barrier;
	XLogRecPtr	position = reached();

	SC_DEBUG_POINT("reader_before_barrier");
	/* before anybody's committed position is that */
	publish_position();
	nxids = sc_decoder_unfinished(decoder, &xids);
	barrier = (ScWireBarrier *)
		sc_batch_add(batch, SC_WIRE_BARRIER, 0,
					 sizeof(ScWireBarrier) + nxids * sizeof(TransactionId));
	barrier->checkpoint_id = checkpoint_id;
	barrier->lsn = position;
	barrier->triggered_at = sc_my_pipeline->triggered_at;
	barrier->nrows = sc_channels_take_rows();
	barrier->nxids = nxids;
	barrier->unused = 0;
	SpinLockAcquire(&sc_my_pipeline->mutex);
	memcpy(barrier->left_out, sc_my_pipeline->left_out, sizeof(barrier->left_out));
	memcpy(barrier->leaving, sc_my_pipeline->leaving, sizeof(barrier->leaving));
	SpinLockRelease(&sc_my_pipeline->mutex);
	memcpy(barrier + 1, xids, nxids * sizeof(TransactionId));
	pg_atomic_write_u32(&sc_my_pipeline->work, 0);
	sc_batch_flush(batch);
	barrier_sent = checkpoint_id;
	SC_DEBUG_POINT("reader_after_barrier");
}

/*
 * Confirms the last committed checkpoint's position to the slot, once its commit
 * record is flushed, and stands on the standbys that take the slot over: one that has the
 * slot's new position but not the checkpoint would be lost when it is promoted.  False
 * where it has to wait for that.
 */
static bool
confirm(void)
{
	uint64		committed = pg_atomic_read_u64(&sc_my_pipeline->committed);
	XLogRecPtr	lsn;
	XLogRecPtr	commit_end;

	if (committed == confirmed)
		return true;
	SpinLockAcquire(&sc_my_pipeline->mutex);
	lsn = sc_my_pipeline->confirm_lsn;
	commit_end = sc_my_pipeline->commit_end;
	SpinLockRelease(&sc_my_pipeline->mutex);
	if (GetFlushRecPtr(NULL) < commit_end)
		return false;
	if (sc_slot_is_synchronized(MyReplicationSlot) && !sc_standbys_have(commit_end))
		return false;

	SC_DEBUG_POINT("reader_before_confirm");
	/* a query that stands keeps it where it is */
	if (lsn > MyReplicationSlot->data.confirmed_flush)
		LogicalConfirmReceivedLocation(lsn);
	confirmed = committed;
	SC_DEBUG_POINT("reader_after_confirm");
	return true;
}

/*
 * Lets others see how far we are; wakes the coordinator where it waits for that:
 * for a sync(), or for a segment of foreign WAL.
 */
static void
publish_position(void)
{
	XLogRecPtr	position = reached();
	XLogRecPtr	before = pg_atomic_read_u64(&sc_my_pipeline->decoded_lsn);
	XLogRecPtr	sync_lsn;
	XLogRecPtr	checkpoint_lsn;

	if (position == before)
		return;
	pg_atomic_write_u64(&sc_my_pipeline->decoded_lsn, position);
	SpinLockAcquire(&sc_my_pipeline->mutex);
	sync_lsn = sc_my_pipeline->sync_lsn;
	checkpoint_lsn = sc_my_pipeline->checkpoint_lsn;
	SpinLockRelease(&sc_my_pipeline->mutex);
	if ((sync_lsn > before && sync_lsn <= position) ||
		(position - checkpoint_lsn >= wal_segment_size &&
		 before / wal_segment_size != position / wal_segment_size))
		sc_place_wake(sc_my_pipeline, &sc_my_pipeline->coordinator);
}

/* Milliseconds after which asynchronous commits are flushed. */
static long
flush_ms(void)
{
	uint64		interval = pg_atomic_read_u64(&sc_my_pipeline->interval_us) / 1000;

	return Min(Max(interval / 10, FLUSH_MIN_MS), FLUSH_MAX_MS);
}

/*
 * A pause that no writer has to end: without it each commit would pay for a wake-up while
 * commits follow each other, to show us a few rows that no checkpoint is due for.
 */
static void
nap(void)
{
	sc_worker_wait(Max(flush_ms() / 4, NAP_MIN_MS));
}

/*
 * All flushed WAL is read.  Asynchronous commits may be inserted but not flushed: flushing
 * them ourselves after a while beats waiting for the WAL writer, and until then nobody
 * needs to wake us.  After something was decoded there is one nap more; only then we
 * sleep until a commit, the coordinator or the net wakes us.
 */
static void
sleep_until_woken(void)
{
	long		timeout = POLL_MS;

	if (!confirm())
		timeout = CONFIRM_POLL_MS;

	if (sc_wal_is_unflushed())
	{
		if (sc_moment_is_past(last_flush, flush_ms()))
		{
			last_flush = sc_moment_now();
			(void) sc_wal_flush_inserted();
		}
		else
			nap();
		return;
	}
	if (!napped)
	{
		napped = true;
		nap();
		return;
	}

	fall_asleep();
	/* nobody wakes us for what was committed before that */
	if (pg_atomic_read_u64(&sc_my_pipeline->trigger) == barrier_sent && !sc_wal_grew() &&
		!sc_wal_is_unflushed())
	{
		pgstat_report_stat(false);
		sc_worker_wait(timeout);
	}
	wake_up(0, (Datum) 0);
}

/* From now on a commit sets our latch. */
static void
fall_asleep(void)
{
	pg_atomic_write_u32(&sc_my_pipeline->reader_sleeps, 1);
	pg_atomic_fetch_add_u32(&sc_shared->sleeping_readers, 1);
}

/* Also at exit: writers must not look for a reader that isn't there. */
static void
wake_up(int code, Datum arg)
{
	if (pg_atomic_exchange_u32(&sc_my_pipeline->reader_sleeps, 0) == 1)
		pg_atomic_fetch_sub_u32(&sc_shared->sleeping_readers, 1);
}
