/* stream_ckpt 0.1.0 to 0.2.0 */

\echo Use "ALTER EXTENSION stream_ckpt UPDATE TO '0.2.0'" to load this file. \quit

-- A schema that was there before belongs to somebody who could put objects of his own into it,
-- and drop ours.
DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_catalog.pg_namespace n, pg_catalog.pg_extension e
			WHERE n.nspname OPERATOR(pg_catalog.=) 'stream_ckpt' AND e.extname OPERATOR(pg_catalog.=) 'stream_ckpt'
			AND n.nspowner OPERATOR(pg_catalog.<>) e.extowner
			AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE oid OPERATOR(pg_catalog.=) n.nspowner)) THEN
		RAISE EXCEPTION 'schema "stream_ckpt" belongs to another user'
			USING ERRCODE = 'insufficient_privilege',
			HINT = 'ALTER SCHEMA stream_ckpt OWNER TO a superuser, after a look at what is in it; or drop it: CREATE EXTENSION makes its own.';
	END IF;
END $$;

--
-- Catalogs: what users asked for.
--
ALTER TABLE stream_ckpt.query ADD COLUMN paused boolean NOT NULL DEFAULT false;
CREATE INDEX query_source_idx ON stream_ckpt.query (source);

--
-- What is: the last transaction with rows of the stream, or idle message.
--
ALTER TABLE stream_ckpt.checkpoint_offset ADD COLUMN active_lsn pg_lsn, ADD COLUMN active_at timestamptz;

--
-- Log streams: foreign tables whose rows are in the WAL only.
--
CREATE FUNCTION stream_ckpt.fdw_handler()
RETURNS fdw_handler LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_fdw_handler';
CREATE FUNCTION stream_ckpt.fdw_validator(options text[], catalog oid)
RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_fdw_validator';
REVOKE ALL ON FUNCTION stream_ckpt.fdw_handler(), stream_ckpt.fdw_validator(text[], oid) FROM PUBLIC;
CREATE FOREIGN DATA WRAPPER stream_ckpt
	HANDLER stream_ckpt.fdw_handler VALIDATOR stream_ckpt.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER stream_ckpt IS 'log streams of stream_ckpt';
CREATE SERVER stream_ckpt FOREIGN DATA WRAPPER stream_ckpt;
COMMENT ON SERVER stream_ckpt
	IS 'the server of log streams: CREATE FOREIGN TABLE ... SERVER stream_ckpt OPTIONS (event_time ''ts'', watermark_delay ''5 seconds'')';
GRANT USAGE ON FOREIGN SERVER stream_ckpt TO PUBLIC;

CREATE OR REPLACE FUNCTION stream_ckpt.create_stream(name text, columns text, event_time name DEFAULT NULL,
	watermark_delay interval DEFAULT '0', idle_timeout interval DEFAULT NULL)
RETURNS regclass LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_create_stream';
COMMENT ON FUNCTION stream_ckpt.create_stream(text, text, name, interval, interval)
	IS 'makes a log stream: a foreign table whose rows are in the WAL only, until the queries that read it have taken them';
CREATE OR REPLACE FUNCTION stream_ckpt.drop_stream(stream regclass)
RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_drop_stream';
COMMENT ON FUNCTION stream_ckpt.drop_stream(regclass)
	IS 'drops a log stream; an error while queries read it';

-- All streams.  A log stream's options are those of its foreign table, and nowhere else.
CREATE VIEW stream_ckpt.any_stream AS
SELECT relid, 'table' AS kind, event_time, watermark_delay, idle_timeout FROM stream_ckpt.stream
UNION ALL
SELECT t.ftrelid::regclass, 'log', o.event_time::name, COALESCE(o.watermark_delay, '0')::interval, o.idle_timeout::interval
FROM pg_catalog.pg_foreign_table t
JOIN pg_catalog.pg_foreign_server s ON s.oid = t.ftserver
JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'stream_ckpt'
CROSS JOIN LATERAL (
	SELECT max(option_value) FILTER (WHERE option_name = 'event_time') AS event_time,
		max(option_value) FILTER (WHERE option_name = 'watermark_delay') AS watermark_delay,
		max(option_value) FILTER (WHERE option_name = 'idle_timeout') AS idle_timeout
	FROM pg_catalog.pg_options_to_table(t.ftoptions)) o;
REVOKE ALL ON stream_ckpt.any_stream FROM PUBLIC;

--
-- Queries that fail: written by checkpoints, and by resume_query().  A healthy query
-- has no row.
--
CREATE TABLE stream_ckpt.query_failure (
	query_id		bigint PRIMARY KEY,
	status			text NOT NULL,
	failures		integer NOT NULL,
	failed_at		timestamptz NOT NULL,
	sqlstate		text NOT NULL,
	message			text NOT NULL,
	detail			text,
	hint			text,
	context			text,
	row_lsn			pg_lsn,
	row_ordinal		bigint
);
REVOKE ALL ON stream_ckpt.query_failure FROM PUBLIC;

CREATE OR REPLACE FUNCTION stream_ckpt.pause_query(query regclass)
RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_pause_query';
COMMENT ON FUNCTION stream_ckpt.pause_query(regclass)
	IS 'stops a query at the commit of this transaction; its state is kept, and the WAL from there on';
CREATE OR REPLACE FUNCTION stream_ckpt.resume_query(query regclass)
RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_resume_query';
COMMENT ON FUNCTION stream_ckpt.resume_query(regclass)
	IS 'lets a paused or failed query go on from where it stopped';

CREATE OR REPLACE VIEW stream_ckpt.queries WITH (security_barrier) AS
SELECT q.relid AS query, q.definition, q.source AS stream, p.pipeline,
	CASE WHEN q.paused THEN 'paused'
		 WHEN f.status = 'failed' OR p.status = 'running' AND f.status IS NOT NULL THEN f.status
		 WHEN p.status = 'running' AND o.lsn > p.decoded_lsn THEN 'catching up'
		 ELSE p.status END AS status,
	COALESCE(f.message, p.message) AS message, q.emit,
	o.max_event_time - st.watermark_delay AS watermark, o.lsn, o.checkpoint_id,
	COALESCE(o.rows_in, 0) AS rows_in, COALESCE(o.late_rows, 0) AS late_rows,
	COALESCE(o.null_event_times, 0) AS null_event_times,
	COALESCE(o.result_rows, 0) AS result_rows,
	COALESCE(o.updates_ignored, 0) AS updates_ignored,
	COALESCE(o.deletes_ignored, 0) AS deletes_ignored,
	COALESCE(o.truncates_ignored, 0) AS truncates_ignored,
	COALESCE(o.groups, 0) AS groups, COALESCE(o.state_bytes, 0) AS state_bytes,
	q.query_id, q.created_at,
	f.sqlstate, f.detail, f.hint, f.context AS error_context, f.failures, f.failed_at,
	f.row_lsn, f.row_ordinal
FROM stream_ckpt.query q
LEFT JOIN stream_ckpt.checkpoint_offset o USING (query_id)
LEFT JOIN stream_ckpt.query_failure f USING (query_id)
LEFT JOIN stream_ckpt.any_stream st ON st.relid = q.source
LEFT JOIN stream_ckpt.pipelines p USING (pipeline_id)
LEFT JOIN pg_catalog.pg_class c ON c.oid = q.definition
WHERE pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') OR pg_catalog.pg_has_role(c.relowner, 'USAGE');
COMMENT ON VIEW stream_ckpt.queries
	IS 'continuous queries, as of their last checkpoint: your own, or all of them for pg_read_all_stats (pg_monitor)';

DROP VIEW stream_ckpt.streams;
CREATE VIEW stream_ckpt.streams AS
SELECT s.relid AS stream, s.kind, s.event_time, s.watermark_delay, s.idle_timeout,
	max(q.watermark) AS watermark, max(q.rows_in) AS rows_in,
	max(q.null_event_times) AS null_event_times,
	max(q.updates_ignored) AS updates_ignored, max(q.deletes_ignored) AS deletes_ignored,
	max(q.truncates_ignored) AS truncates_ignored, count(q.query) AS queries
FROM stream_ckpt.any_stream s
LEFT JOIN stream_ckpt.queries q ON q.stream = s.relid
GROUP BY s.relid, s.kind, s.event_time, s.watermark_delay, s.idle_timeout;
COMMENT ON VIEW stream_ckpt.streams
	IS 'streams, attached tables and log streams; counts are those of the oldest query that reads them';
GRANT SELECT ON stream_ckpt.streams TO PUBLIC;

--
-- Late rows, of queries with keep_late_rows: written by checkpoints, with the offset that
-- covers them.  Each role sees those of its own queries.  No privilege but
-- SELECT: any other would allow LOCK TABLE, which holds up checkpoints.
--
CREATE TABLE stream_ckpt.late_rows (
	query			regclass NOT NULL,
	row				jsonb NOT NULL,
	window_start	timestamptz NOT NULL,
	window_end		timestamptz NOT NULL,
	watermark		timestamptz NOT NULL,
	lsn				pg_lsn NOT NULL,
	ordinal			bigint NOT NULL,
	query_id		bigint NOT NULL,
	PRIMARY KEY (query_id, lsn, ordinal, window_start)
);
COMMENT ON TABLE stream_ckpt.late_rows
	IS 'rows that queries with keep_late_rows dropped as late, one for each window; yours to read, and to take away with take_late_rows()';

CREATE FUNCTION stream_ckpt.query_owner(query_id bigint) RETURNS oid
LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
SELECT c.relowner FROM stream_ckpt.query q JOIN pg_catalog.pg_class c ON c.oid = q.definition
WHERE q.query_id = $1
$$;
COMMENT ON FUNCTION stream_ckpt.query_owner(bigint)
	IS 'owner of a query''s definition: whom its rows in late_rows belong to';

ALTER TABLE stream_ckpt.late_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY owners_see ON stream_ckpt.late_rows FOR SELECT
	USING (pg_catalog.pg_has_role('pg_read_all_data', 'USAGE') OR
		pg_catalog.pg_has_role(stream_ckpt.query_owner(query_id), 'USAGE'));
REVOKE ALL ON stream_ckpt.late_rows FROM PUBLIC;
GRANT SELECT ON stream_ckpt.late_rows TO PUBLIC;

--
-- Dead letters, of queries with on_error => 'dead_letter': what they went on without, written
-- by checkpoints, with the offset that covers it.
--
CREATE TABLE stream_ckpt.dead_letter (
	query			regclass NOT NULL,
	kind			text NOT NULL,
	row				jsonb,
	sqlstate		text NOT NULL,
	message			text NOT NULL,
	detail			text,
	hint			text,
	lsn				pg_lsn,
	ordinal			bigint,
	failed_at		timestamptz NOT NULL,
	query_id		bigint NOT NULL,
	checkpoint_id	bigint NOT NULL,
	seq				integer NOT NULL,
	PRIMARY KEY (query_id, checkpoint_id, seq)
);
COMMENT ON TABLE stream_ckpt.dead_letter
	IS 'rows, groups and result rows that queries with on_error => ''dead_letter'' went on without, each with its error; yours to read, and to take away with take_dead_letters()';
ALTER TABLE stream_ckpt.dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY owners_see ON stream_ckpt.dead_letter FOR SELECT
	USING (pg_catalog.pg_has_role('pg_read_all_data', 'USAGE') OR
		pg_catalog.pg_has_role(stream_ckpt.query_owner(query_id), 'USAGE'));
REVOKE ALL ON stream_ckpt.dead_letter FROM PUBLIC;
GRANT SELECT ON stream_ckpt.dead_letter TO PUBLIC;

CREATE FUNCTION stream_ckpt.take_late_rows(query regclass, until pg_lsn DEFAULT NULL)
RETURNS SETOF stream_ckpt.late_rows LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'stream_ckpt_take_late_rows';
COMMENT ON FUNCTION stream_ckpt.take_late_rows(regclass, pg_lsn)
	IS 'deletes and returns the late rows kept of your query, up to a commit LSN where one is given; once committed they are gone';
CREATE FUNCTION stream_ckpt.take_dead_letters(query regclass, until pg_lsn DEFAULT NULL)
RETURNS SETOF stream_ckpt.dead_letter LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'stream_ckpt_take_dead_letters';
COMMENT ON FUNCTION stream_ckpt.take_dead_letters(regclass, pg_lsn)
	IS 'deletes and returns the dead letters of your query, up to a commit LSN where one is given (letters without an LSN, too); once committed they are gone';

--
-- Who sees what: messages of failures can hold data.
--
CREATE FUNCTION stream_ckpt.sees_pipeline(pipeline_id integer)
RETURNS boolean LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_sees_pipeline';
COMMENT ON FUNCTION stream_ckpt.sees_pipeline(integer)
	IS 'true for the pipeline''s owner and pg_read_all_stats: who sees its messages and failures in the views';

CREATE OR REPLACE VIEW stream_ckpt.checkpoints AS
SELECT c.checkpoint_id AS id, p.name AS pipeline, c.attempt, c.kind, c.status,
	c.triggered_at AS trigger_time, c.completed_at - c.triggered_at AS duration,
	c.barrier_ms, c.sync_ms, c.async_ms, c.checkpointed_bytes AS checkpointed_size,
	c.full_bytes AS full_size, c.rows_in, c.result_rows, c.lsn,
	CASE WHEN stream_ckpt.sees_pipeline(c.pipeline_id) THEN c.failure END AS failure_message
FROM stream_ckpt.checkpoint c JOIN stream_ckpt.pipeline p USING (pipeline_id)
UNION ALL
SELECT s.checkpoint_in_progress, p.name, s.attempt, NULL, 'in progress', s.checkpoint_triggered_at,
	pg_catalog.clock_timestamp() - s.checkpoint_triggered_at, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM stream_ckpt.pipeline_status() s JOIN stream_ckpt.pipeline p USING (pipeline_id)
WHERE s.checkpoint_triggered_at IS NOT NULL;

--
-- Loads the library, which warns of what stays behind where it wasn't preloaded.
--
CREATE EVENT TRIGGER stream_ckpt_before_drop ON ddl_command_start
	WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA') EXECUTE FUNCTION stream_ckpt.on_drop();
