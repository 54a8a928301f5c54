/*-------------------------------------------------------------------------
 * catalog_columns.h
 *	  The columns of the extension's tables, written down once.  They follow
 *	  sql/stream_ckpt--*.sql.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_CATALOG_COLUMNS_H
#define SC_MODEL_CATALOG_COLUMNS_H

/* stream_ckpt.pipeline */
#define Anum_pipeline_id				1
#define Anum_pipeline_name				2
#define Anum_pipeline_owner				3
#define Anum_pipeline_parallelism		4
#define Anum_pipeline_interval			5
#define Anum_pipeline_state_backend		6
#define Anum_pipeline_stopped			7
#define Anum_pipeline_lane				8
#define Natts_pipeline					8

/* stream_ckpt.stream */
#define Anum_stream_relid				1
#define Anum_stream_event_time			2
#define Anum_stream_event_time_attnum	3
#define Anum_stream_watermark_delay		4
#define Anum_stream_idle_timeout		5
#define Anum_stream_max_ahead			6
#define Anum_stream_processing_time		7
#define Anum_stream_changes				8
#define Anum_stream_resets				9
#define Natts_stream					9

/* stream_ckpt.query */
#define Anum_query_id					1
#define Anum_query_relid				2
#define Anum_query_definition			3
#define Anum_query_source				4
#define Anum_query_pipeline_id			5
#define Anum_query_emit					6
#define Anum_query_allowed_lateness		7
#define Anum_query_keep_late_rows		8
#define Anum_query_on_error				9
#define Anum_query_settings				10
#define Anum_query_preexisting_rows		11
#define Anum_query_created_at			12
#define Anum_query_paused				13
#define Anum_query_parallelism			14
#define Anum_query_ttl					15
#define Anum_query_backfill				16
#define Anum_query_target_id			17
#define Anum_query_moving				18
#define Anum_query_empty_first			19
#define Anum_query_replaces				20
#define Anum_query_keep_before			21
#define Natts_query						21

/* stream_ckpt.query_history */
#define Anum_history_query_id			1
#define Anum_history_until				2
#define Anum_history_seen				3
#define Anum_history_seen_at			4
#define Natts_history					4

/* stream_ckpt.changed_windows */
#define Anum_changed_query_id			1
#define Anum_changed_range_start		2
#define Anum_changed_range_end			3
#define Natts_changed					3

/* stream_ckpt.state_run */
#define Anum_run_query_id					1
#define Anum_run_pane						2
#define Anum_run_age						3
#define Anum_run_born						4
#define Anum_run_key_group					5
#define Anum_run_position					6
#define Anum_run_seq						7
#define Anum_run_data						8
#define Natts_run							8

/* stream_ckpt.state_chunk */
#define Anum_chunk_query_id					1
#define Anum_chunk_partition_key			2
#define Anum_chunk_checkpoint_id			3
#define Anum_chunk_seq						4
#define Anum_chunk_key_group_min			5
#define Anum_chunk_key_group_max			6
#define Anum_chunk_data						7
#define Natts_chunk							7

/* stream_ckpt.checkpoint_offset */
#define Anum_offset_query_id				1
#define Anum_offset_source					2
#define Anum_offset_checkpoint_id			3
#define Anum_offset_lsn						4
#define Anum_offset_max_event_time			5
#define Anum_offset_rows_in					6
#define Anum_offset_late_rows				7
#define Anum_offset_null_event_times		8
#define Anum_offset_result_rows				9
#define Anum_offset_updates_ignored			10
#define Anum_offset_deletes_ignored			11
#define Anum_offset_truncates_ignored		12
#define Anum_offset_groups					13
#define Anum_offset_state_bytes				14
#define Anum_offset_active_lsn				15
#define Anum_offset_active_at				16
#define Anum_offset_closed_until			17
#define Anum_offset_apart					18
#define Anum_offset_closed_windows			19
#define Anum_offset_plausible_time			20
#define Anum_offset_ahead_rows				21
#define Anum_offset_watermark_delay			22
#define Anum_offset_idle_timeout			23
#define Anum_offset_max_ahead				24
#define Anum_offset_recent_late				25
#define Anum_offset_recent_timeless			26
#define Anum_offset_recent_ignored			27
#define Anum_offset_recent_ahead			28
#define Anum_offset_recent_lsn				29
#define Anum_offset_ahead_windows			30
#define Anum_offset_age						31
#define Anum_offset_tasks					32
#define Anum_offset_moved_rows				33
#define Anum_offset_late_changes			34
#define Anum_offset_skipped_changes			35
#define Anum_offset_retracted_rows			36
#define Anum_offset_portable				37
#define Anum_offset_endless					38
#define Anum_offset_resets					39
#define Anum_offset_own						40
#define Natts_offset						40

/* stream_ckpt.pipeline_state */
#define Anum_state_pipeline_id				1
#define Anum_state_attempt					2
#define Anum_state_checkpoint_id			3
#define Anum_state_lsn						4
#define Anum_state_completed				5
#define Anum_state_failed					6
#define Anum_state_restored					7
#define Anum_state_system_identifier		8
#define Anum_state_database					9
#define Anum_state_timeline					10
#define Anum_state_server_version			11
#define Anum_state_format					12
#define Anum_state_platform					13
#define Anum_state_prepared					14
#define Anum_state_own						15
#define Natts_state							15

/* stream_ckpt.checkpoint */
#define Anum_checkpoint_pipeline_id			1
#define Anum_checkpoint_id					2
#define Anum_checkpoint_attempt				3
#define Anum_checkpoint_kind				4
#define Anum_checkpoint_status				5
#define Anum_checkpoint_triggered_at		6
#define Anum_checkpoint_completed_at		7
#define Anum_checkpoint_barrier_ms			8
#define Anum_checkpoint_sync_ms				9
#define Anum_checkpoint_async_ms			10
#define Anum_checkpoint_lsn					11
#define Anum_checkpoint_rows_in				12
#define Anum_checkpoint_result_rows			13
#define Anum_checkpoint_checkpointed_bytes	14
#define Anum_checkpoint_full_bytes			15
#define Anum_checkpoint_failure				16
#define Anum_checkpoint_task_start_delay_ms	17
#define Anum_checkpoint_task_sync_ms		18
#define Anum_checkpoint_task_async_ms		19
#define Anum_checkpoint_task_bytes			20
#define Natts_checkpoint					20

/* stream_ckpt.query_failure */
#define Anum_failure_query_id				1
#define Anum_failure_status					2
#define Anum_failure_failures				3
#define Anum_failure_failed_at				4
#define Anum_failure_sqlstate				5
#define Anum_failure_message				6
#define Anum_failure_detail					7
#define Anum_failure_hint					8
#define Anum_failure_context				9
#define Anum_failure_row_lsn				10
#define Anum_failure_row_ordinal			11
#define Natts_failure						11

/* stream_ckpt.late_rows */
#define Anum_late_query						1
#define Anum_late_row						2
#define Anum_late_window_start				3
#define Anum_late_window_end				4
#define Anum_late_watermark					5
#define Anum_late_lsn						6
#define Anum_late_ordinal					7
#define Anum_late_query_id					8
#define Anum_late_types						9
#define Anum_late_row_text					10
#define Natts_late							10

/* stream_ckpt.dead_letter */
#define Anum_dead_query						1
#define Anum_dead_kind						2
#define Anum_dead_row						3
#define Anum_dead_sqlstate					4
#define Anum_dead_message					5
#define Anum_dead_detail					6
#define Anum_dead_hint						7
#define Anum_dead_lsn						8
#define Anum_dead_ordinal					9
#define Anum_dead_failed_at					10
#define Anum_dead_query_id					11
#define Anum_dead_checkpoint_id				12
#define Anum_dead_seq						13
#define Anum_dead_types						14
#define Anum_dead_row_text					15
#define Natts_dead							15

/* The widest table */
#define SC_MAX_COLUMNS						Natts_offset

#endif							/* SC_MODEL_CATALOG_COLUMNS_H */
