/*-------------------------------------------------------------------------
 * settings.h
 *	  The extension's settings (prefix stream_ckpt.), all defined in settings.c.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_SETTINGS_H
#define SC_BASE_SETTINGS_H

extern int	sc_max_pipelines;	/* pipelines of all databases; at server start */
extern int	sc_queue_size;		/* kB, each reader-to-task queue */
extern int	sc_task_memory;		/* MB, state and outbox of one task */
extern int	sc_checkpoint_memory;	/* MB, parts that the coordinator holds in memory */
extern int	sc_checkpoint_history;	/* records kept per pipeline */
extern int	sc_result_lock_timeout;
extern int	sc_query_time_limit; /* ms; 0: none */
extern int	sc_query_share;		/* ms; 0: none */
extern bool	sc_dump_state;		/* read by conditions of tables that are dumped */
extern int	sc_max_query_wal;	/* MB; 0: no limit, -1: half of max_slot_wal_keep_size */
#ifdef SC_DEBUG
extern int	sc_debug_batch_rows;	/* rows to a message; 0: off, -1: random */
extern int	sc_debug_retry_second;	/* ms, in place of SC_RETRY_SECOND_MS */
#define SC_RETRY_SECOND_MS sc_debug_retry_second
extern int	sc_debug_share_period;	/* ms, in place of SC_SHARE_PERIOD_MS */
#define SC_SHARE_PERIOD_MS sc_debug_share_period
extern int	sc_debug_notify_percent;	/* in place of SC_NOTIFY_PERCENT */
extern int	sc_debug_cut_row_bytes; /* in place of SC_CUT_ROW_BYTES */
#define SC_NOTIFY_PERCENT sc_debug_notify_percent
#define SC_CUT_ROW_BYTES ((Size) sc_debug_cut_row_bytes)
extern int	sc_debug_result_row_bytes;	/* in place of SC_RESULT_ROW_BYTES */
#define SC_RESULT_ROW_BYTES ((Size) sc_debug_result_row_bytes)
extern int	sc_debug_large_part;	/* in place of SC_LARGE_PART_ROWS */
#define SC_LARGE_PART_ROWS sc_debug_large_part
extern int	sc_debug_lane_blocks;	/* in place of SC_LANE_BLOCKS */
#define SC_LANE_BLOCKS sc_debug_lane_blocks
extern int	sc_debug_task_memory;	/* kB, in place of sc_task_memory; 0: that */
extern int	sc_debug_bucket_bytes;	/* in place of SC_BUCKET_BYTES */
#define SC_BUCKET_BYTES ((Size) sc_debug_bucket_bytes)
extern int	sc_debug_snapshot_groups;	/* in place of SC_SNAPSHOT_GROUPS */
#define SC_SNAPSHOT_GROUPS sc_debug_snapshot_groups
extern int	sc_debug_snapshot_step;	/* in place of SC_SNAPSHOT_STEP */
#define SC_SNAPSHOT_STEP sc_debug_snapshot_step
#else
#define SC_SHARE_PERIOD_MS 10000	/* over which a task looks at what each owner takes */
#define SC_RETRY_SECOND_MS 1000	/* a second, where something is tried again (backoff.h) */
#define SC_NOTIFY_PERCENT 50	/* fill of the notification queue that stops code of owners */
#define SC_CUT_ROW_BYTES SC_ROW_BYTES_LIMIT
#define SC_RESULT_ROW_BYTES SC_ROW_BYTES_LIMIT
#define SC_LARGE_PART_ROWS SC_LARGE_PART_DEFAULT
#define SC_LANE_BLOCKS SC_LANE_BLOCKS_USUAL
#define SC_BUCKET_BYTES SC_BUCKET_BYTES_USUAL
#define SC_SNAPSHOT_GROUPS SC_SNAPSHOT_GROUPS_USUAL
#define SC_SNAPSHOT_STEP SC_SNAPSHOT_STEP_USUAL
#endif

/*
 * A table's row that takes more is cut, a result row is an error of its query: with what goes with it, a
 * row must fit into 1 GB.
 */
#define SC_ROW_BYTES_LIMIT (1024 * 1024 * 1023)

/*
 * Result rows from which on a query's part of a checkpoint is written by a process of its own, or as many times
 * SC_LARGE_PART_WIDTH bytes: half a second, about.
 */
#define SC_LARGE_PART_DEFAULT 100000
#define SC_LARGE_PART_WIDTH 160
/*
 * Blocks of a table (4 MB) up to which a query begins with its rows where it is, though others wait: that is read in less
 * time than they wait for the attempt anyway, in which any query begins with a history.
 */
#define SC_LANE_BLOCKS_USUAL 512
/* What a bucket of a pane that is larger than memory should take in memory (exec/spilled.c) */
#define SC_BUCKET_BYTES_USUAL (64 * 1024)
/* Groups of a query that a task writes at a barrier; of more of them it writes as many in a step while it goes on */
#define SC_SNAPSHOT_GROUPS_USUAL 5000
#define SC_SNAPSHOT_STEP_USUAL 1000000
/* How long such a step takes, in microseconds, but for the last piece of work */
#define SC_SNAPSHOT_STEP_US 2000
/* or, if as long was spent on rows, up to this */
#define SC_SNAPSHOT_STEP_MOST_US 1000000

/* stream_ckpt.task_memory in bytes */
extern size_t sc_task_memory_bytes(void);

/* stream_ckpt.max_query_wal in bytes, as it is in force; 0: no limit. */
extern int64 sc_query_wal_limit(void);

extern void sc_settings_init(void);

#endif							/* SC_BASE_SETTINGS_H */
