/*-------------------------------------------------------------------------
 * settings.c
 *	  Every setting of the extension, with its unit, its honest limits and what an
 *	  operator needs to know.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "utils/guc.h"

int			sc_max_pipelines = 8;
int			sc_queue_size = 512;
int			sc_task_memory = 1024;
int			sc_checkpoint_memory = 64;
int			sc_checkpoint_history = 1000;
int			sc_result_lock_timeout = 5000;
int			sc_query_time_limit = 10000;
int			sc_query_share = 500;
int			sc_max_query_wal = -1;
bool		sc_dump_state = false;
#ifdef SC_DEBUG
int			sc_debug_batch_rows = 0;
int			sc_debug_retry_second = 1000;
int			sc_debug_large_part = SC_LARGE_PART_DEFAULT;
int			sc_debug_lane_blocks = SC_LANE_BLOCKS_USUAL;
int			sc_debug_share_period = 10000;
int			sc_debug_notify_percent = 50;
int			sc_debug_cut_row_bytes = SC_ROW_BYTES_LIMIT;
int			sc_debug_result_row_bytes = SC_ROW_BYTES_LIMIT;
int			sc_debug_task_memory = 0;
int			sc_debug_bucket_bytes = SC_BUCKET_BYTES_USUAL;
int			sc_debug_snapshot_groups = SC_SNAPSHOT_GROUPS_USUAL;
int			sc_debug_snapshot_step = SC_SNAPSHOT_STEP_USUAL;
#endif

size_t
sc_task_memory_bytes(void)
{
#ifdef SC_DEBUG
	if (sc_debug_task_memory > 0)
		return (size_t) sc_debug_task_memory * 1024;
#endif
	return (size_t) sc_task_memory * 1024 * 1024;
}

int64
sc_query_wal_limit(void)
{
	int			mb = sc_max_query_wal;

	if (mb < 0)
		mb = max_slot_wal_keep_size_mb < 0 ? 0 : Max(max_slot_wal_keep_size_mb / 2, 1);
	return mb * INT64CONST(1024 * 1024);
}

/*
 * Defines all settings, in _PG_init.  What needs shared memory is defined only if the library is
 * preloaded.
 */
void
sc_settings_init(void)
{
	/* a session that loads the library because it wasn't preloaded can't have this one */
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("stream_ckpt.max_pipelines",
								"Number of places for pipelines, all databases together: running, stopped and lost ones.",
								"Each running pipeline takes 3 background workers or more of max_worker_processes.",
								&sc_max_pipelines, 8, 1, 1024,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.queue_size",
							"Size of the shared memory queue from a reader to each of its tasks.",
							"The queue from a task to its coordinator is a quarter of it. Taken when a pipeline starts.",
							&sc_queue_size, 512, 128, 65536,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.task_memory",
							"Memory that the state and the unsent checkpoint parts of one task may take.",
							"A task whose unsent parts are at the bound stops reading until the coordinator took them; where state is past it, the query with the largest fails.",
							&sc_task_memory, 1024, 16, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.checkpoint_memory",
							"Memory for the parts of a checkpoint that a coordinator collects.",
							"What is beyond goes to temporary files.",
							&sc_checkpoint_memory, 64, 1, 65536,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.checkpoint_history",
							"Number of checkpoint records kept for each pipeline.",
							NULL,
							&sc_checkpoint_history, 1000, 10, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.result_lock_timeout",
							"Longest wait of a checkpoint for the lock on a result table.",
							"Past it the checkpoint fails and is tried again; the reason is in the views.",
							&sc_result_lock_timeout, 5000, 10, 600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.query_time_limit",
							"Longest time that a query's expressions may take for one batch of rows, and a checkpoint's writes to its result table where they run triggers or other code.",
							"0.1 ms more for each row or group that is worked on. Past it the work is interrupted, and counts as an error of that query. 0: no limit.",
							&sc_query_time_limit, 10000, 0, 24 * 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.query_share",
							"The same while other queries of the pipeline wait for their turn, and what all waits for locks in one checkpoint may take.",
							"0: queries may hold up each other for as long as \"stream_ckpt.query_time_limit\" and \"stream_ckpt.result_lock_timeout\" allow.",
							&sc_query_share, 500, 0, 24 * 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("stream_ckpt.dump_state",
							 "Dumps made in this session take the state of queries along.",
							 "For pg_dump: PGOPTIONS='-c stream_ckpt.dump_state=on'.",
							 &sc_dump_state, false, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.max_query_wal",
							"WAL that is kept for one query that is paused, has failed or waits.",
							"Past it that query alone is lost, and the slot goes on. -1: half of \"max_slot_wal_keep_size\" if that is set. 0: no limit.",
							&sc_max_query_wal, -1, -1, 1024 * 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
#ifdef SC_DEBUG
	DefineCustomIntVariable("stream_ckpt.debug_batch_rows",
							"Rows that a reader puts into one message (debug builds only).",
							"0: as many as fit, -1: a random number.",
							&sc_debug_batch_rows, 0, -1, 100000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_retry_second",
							"What passes for a second before something is tried again (debug builds only).",
							NULL,
							&sc_debug_retry_second, 1000, 1, 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_share_period",
							"Time over which a task looks at what each owner's queries take (debug builds only).",
							NULL,
							&sc_debug_share_period, 10000, 100, 10000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_notify_percent",
							"Fill of the notification queue from which on code of owners is refused to notify (debug builds only).",
							NULL,
							&sc_debug_notify_percent, 50, 0, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_cut_row_bytes",
							"Bytes from which on a table's row is cut (debug builds only).",
							NULL,
							&sc_debug_cut_row_bytes, SC_ROW_BYTES_LIMIT, 0, SC_ROW_BYTES_LIMIT,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_large_part",
							"Result rows from which on a query's part of a checkpoint has a writer of its own (debug builds only).",
							NULL,
							&sc_debug_large_part, SC_LARGE_PART_DEFAULT, 0, 1000000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_lane_blocks",
							"Blocks up to which a table is read where its query is (debug builds only).",
							NULL,
							&sc_debug_lane_blocks, SC_LANE_BLOCKS_USUAL, 0, 1000000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_result_row_bytes",
							"Bytes from which on a result row is an error of its query (debug builds only).",
							NULL,
							&sc_debug_result_row_bytes, SC_ROW_BYTES_LIMIT, 0, SC_ROW_BYTES_LIMIT,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_task_memory",
							"Memory of a task's states in place of stream_ckpt.task_memory (debug builds only).",
							"0: as that says.",
							&sc_debug_task_memory, 0, 0, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_bucket_bytes",
							"What a bucket of a pane that is larger than memory should take (debug builds only).",
							NULL,
							&sc_debug_bucket_bytes, SC_BUCKET_BYTES_USUAL, 1, 1024 * 1024 * 1024,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_snapshot_groups",
							"Groups of a query that are written at a barrier; more of them wait (debug builds only).",
							NULL,
							&sc_debug_snapshot_groups, SC_SNAPSHOT_GROUPS_USUAL, 0, 1000000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stream_ckpt.debug_snapshot_step",
							"Groups that are written in one step after a barrier, at most (debug builds only).",
							NULL,
							&sc_debug_snapshot_step, SC_SNAPSHOT_STEP_USUAL, 1, 1000000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
#endif
	if (process_shared_preload_libraries_in_progress)
		MarkGUCPrefixReserved("stream_ckpt");
}
