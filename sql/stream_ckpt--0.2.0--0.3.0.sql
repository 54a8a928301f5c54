/* stream_ckpt 0.2.0 to 0.3.0
 *
 * What this makes of 0.2.0 equals sql/stream_ckpt--0.3.0.sql, which CREATE EXTENSION runs (t/050_upgrade.pl compares
 * them): whoever changes one changes the other, in the same commit.
 */

\echo Use "ALTER EXTENSION stream_ckpt UPDATE TO '0.3.0'" to load this file. \quit

-- time: windows that are over whatever the watermark says (microseconds as max_event_time; NULL: none)
ALTER TABLE stream_ckpt.checkpoint_offset ADD COLUMN closed_until timestamptz;

--
-- Where queries are: one that goes with the others is at its pipeline's last checkpoint, one that is apart at the
-- position of its own.
--
ALTER TABLE stream_ckpt.checkpoint_offset ADD COLUMN apart boolean NOT NULL DEFAULT true;

CREATE VIEW stream_ckpt.query_position AS
SELECT o.query_id,
	CASE WHEN o.apart OR t.lsn IS NULL THEN o.lsn ELSE t.lsn END AS lsn,
	CASE WHEN o.apart OR t.lsn IS NULL THEN o.checkpoint_id ELSE t.checkpoint_id END AS checkpoint_id
FROM stream_ckpt.checkpoint_offset o
JOIN stream_ckpt.query q USING (query_id)
LEFT JOIN stream_ckpt.pipeline_state t USING (pipeline_id);
REVOKE ALL ON stream_ckpt.query_position FROM PUBLIC;

-- time: how far ahead of its commit an event time may be (NULL: no limit); streams of 0.2 have no limit
ALTER TABLE stream_ckpt.stream ADD COLUMN max_ahead interval;

-- time: the event time is the time of the commit
ALTER TABLE stream_ckpt.stream ADD COLUMN processing_time boolean NOT NULL DEFAULT false;
-- changes: are UPDATE, DELETE and TRUNCATE of the table applied to results?
ALTER TABLE stream_ckpt.stream ADD COLUMN changes text NOT NULL DEFAULT 'ignore' CHECK (changes IN ('apply', 'ignore'));
-- changes: how often the watermark was reset meanwhile; an offset has those that are in it
ALTER TABLE stream_ckpt.stream ADD COLUMN resets bigint NOT NULL DEFAULT 0;

-- time: more of what a query's event time is at its offset, and the stream's options there.  closed_windows: those
-- that are over and may lie ahead of the watermark, as start and end of each range in turn.  Event times in
-- microseconds as max_event_time.
ALTER TABLE stream_ckpt.checkpoint_offset
	ADD COLUMN closed_windows timestamptz[],
	ADD COLUMN plausible_time timestamptz,
	ADD COLUMN ahead_rows bigint NOT NULL DEFAULT 0,
	ADD COLUMN watermark_delay interval NOT NULL DEFAULT '0',
	ADD COLUMN idle_timeout interval,
	ADD COLUMN max_ahead interval;

CREATE OR REPLACE VIEW stream_ckpt.any_stream AS
SELECT relid, 'table' AS kind, event_time, watermark_delay, idle_timeout, max_ahead, processing_time, changes FROM stream_ckpt.stream
UNION ALL
SELECT t.ftrelid::regclass, 'log', o.event_time::name, COALESCE(o.watermark_delay, '0')::interval,
	o.idle_timeout::interval, o.max_ahead::interval, COALESCE(o.processing_time, 'false')::boolean, NULL
FROM pg_catalog.pg_foreign_table t
JOIN pg_catalog.pg_foreign_server s ON s.oid = t.ftserver
JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'stream_ckpt'
CROSS JOIN LATERAL (
	SELECT max(option_value) FILTER (WHERE option_name = 'event_time') AS event_time,
		max(option_value) FILTER (WHERE option_name = 'watermark_delay') AS watermark_delay,
		max(option_value) FILTER (WHERE option_name = 'idle_timeout') AS idle_timeout,
		max(option_value) FILTER (WHERE option_name = 'max_ahead') AS max_ahead,
		max(option_value) FILTER (WHERE option_name = 'processing_time') AS processing_time
	FROM pg_catalog.pg_options_to_table(t.ftoptions)) o;

-- Which windows were written nobody noted so far: all that can be over are.
UPDATE stream_ckpt.checkpoint_offset o
SET watermark_delay = s.watermark_delay, idle_timeout = s.idle_timeout,
	plausible_time = CASE WHEN o.max_event_time <= COALESCE(o.active_at, pg_catalog.now()) + interval '1 day'
		THEN o.max_event_time END,
	closed_until = CASE WHEN s.watermark_delay + q.allowed_lateness < interval '1000000 days'
			AND o.max_event_time > '0001-01-01 00:00 UTC'
		THEN o.max_event_time - s.watermark_delay - q.allowed_lateness END
FROM stream_ckpt.any_stream s, stream_ckpt.query q
WHERE s.relid::oid = o.source::oid AND q.query_id = o.query_id;

DROP FUNCTION stream_ckpt.attach_stream(regclass, name, interval, interval);
CREATE FUNCTION stream_ckpt.attach_stream(relation regclass, event_time name DEFAULT NULL,
	watermark_delay interval DEFAULT '0', idle_timeout interval DEFAULT NULL, max_ahead interval DEFAULT '1 day',
	processing_time boolean DEFAULT false, changes text DEFAULT NULL)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_attach_stream';
COMMENT ON FUNCTION stream_ckpt.attach_stream(regclass, name, interval, interval, interval, boolean, text)
	IS 'captures a table''s new rows from the WAL; event_time names its event-time column, watermark_delay how late rows may be, max_ahead how far ahead of its commit an event time may be to move the watermark (NULL: no limit), changes whether UPDATE, DELETE and TRUNCATE are applied to results (''apply'') or ignored (''ignore''); processing_time makes the time of the commit the event time; the first call waits for all running transactions';

CREATE FUNCTION stream_ckpt.commit_time(xmin xid)
RETURNS timestamptz LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'stream_ckpt_commit_time';
COMMENT ON FUNCTION stream_ckpt.commit_time(xid)
	IS 'the time of a row''s commit: the event time of streams with processing_time; as a plain query it needs track_commit_timestamp';

DROP FUNCTION stream_ckpt.create_stream(text, text, name, interval, interval);
CREATE FUNCTION stream_ckpt.create_stream(name text, columns text, event_time name DEFAULT NULL,
	watermark_delay interval DEFAULT '0', idle_timeout interval DEFAULT NULL, max_ahead interval DEFAULT '1 day',
	processing_time boolean DEFAULT false)
RETURNS regclass LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_create_stream';
COMMENT ON FUNCTION stream_ckpt.create_stream(text, text, name, interval, interval, interval, boolean)
	IS 'makes a log stream: a foreign table whose rows are in the WAL only, until the queries that read it have taken them; options as attach_stream()';

CREATE FUNCTION stream_ckpt.alter_stream(stream regclass, watermark_delay interval DEFAULT '-0.000001 seconds',
	idle_timeout interval DEFAULT '-0.000001 seconds', max_ahead interval DEFAULT '-0.000001 seconds',
	changes text DEFAULT NULL)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_alter_stream';
COMMENT ON FUNCTION stream_ckpt.alter_stream(regclass, interval, interval, interval, text)
	IS 'changes options of a stream while queries read it: from the rows committed after on; what is left out stays (its default stands for that), NULL means no idle_timeout, no max_ahead; changes only while no query reads the stream';

CREATE FUNCTION stream_ckpt.reset_watermark(stream regclass, "to" timestamptz DEFAULT NULL)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_reset_watermark';
COMMENT ON FUNCTION stream_ckpt.reset_watermark(regclass, timestamptz)
	IS 'moves a stream''s watermark, back or forward, for the rows committed after; NULL: to what plausible event times make it; rows of windows whose results were written stay late';

-- time: the watermark is that of the options in force at the query's offset
CREATE OR REPLACE VIEW stream_ckpt.queries WITH (security_barrier) AS
SELECT q.relid AS query, q.definition, q.source AS stream, p.pipeline,
	CASE WHEN f.status = 'lost' THEN 'lost'
		 WHEN q.paused THEN 'paused'
		 WHEN f.status = 'accepted' THEN 'restarting'
		 WHEN f.status = 'failed' OR p.status = 'running' AND f.status IS NOT NULL THEN f.status
		 WHEN p.status = 'running' AND n.lsn > p.decoded_lsn THEN 'catching up'
		 ELSE p.status END AS status,
	COALESCE(f.message, p.message) AS message, q.emit,
	o.max_event_time - o.watermark_delay AS watermark, n.lsn, n.checkpoint_id,
	COALESCE(o.rows_in, 0) AS rows_in, COALESCE(o.late_rows, 0) AS late_rows,
	COALESCE(o.null_event_times, 0) AS null_event_times,
	COALESCE(o.result_rows, 0) AS result_rows,
	COALESCE(o.updates_ignored, 0) AS updates_ignored,
	COALESCE(o.deletes_ignored, 0) AS deletes_ignored,
	COALESCE(o.truncates_ignored, 0) AS truncates_ignored,
	COALESCE(o.groups, 0) AS groups, COALESCE(o.state_bytes, 0) AS state_bytes,
	q.query_id, q.created_at,
	f.sqlstate, f.detail, f.hint, f.context AS error_context, f.failures, f.failed_at,
	f.row_lsn, f.row_ordinal,
	COALESCE(o.ahead_rows, 0) AS ahead_rows
FROM stream_ckpt.query q
LEFT JOIN stream_ckpt.checkpoint_offset o USING (query_id)
LEFT JOIN stream_ckpt.query_position n USING (query_id)
LEFT JOIN stream_ckpt.query_failure f USING (query_id)
LEFT JOIN stream_ckpt.pipelines p USING (pipeline_id)
LEFT JOIN pg_catalog.pg_class c ON c.oid = q.definition
WHERE pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') OR pg_catalog.pg_has_role(c.relowner, 'USAGE');

CREATE OR REPLACE VIEW stream_ckpt.streams AS
SELECT s.relid AS stream, s.kind, s.event_time, s.watermark_delay, s.idle_timeout,
	max(q.watermark) AS watermark, max(q.rows_in) AS rows_in,
	max(q.null_event_times) AS null_event_times,
	max(q.updates_ignored) AS updates_ignored, max(q.deletes_ignored) AS deletes_ignored,
	max(q.truncates_ignored) AS truncates_ignored, count(q.query) AS queries,
	s.max_ahead, max(q.ahead_rows) AS ahead_rows, s.processing_time, s.changes
FROM stream_ckpt.any_stream s
LEFT JOIN stream_ckpt.queries q ON q.stream = s.relid
GROUP BY s.relid, s.kind, s.event_time, s.watermark_delay, s.idle_timeout, s.max_ahead, s.processing_time, s.changes;

-- results: checkpoints update them, also in a publication of all tables
DO $$
DECLARE
	result regclass;
BEGIN
	FOR result IN
		SELECT c.oid FROM stream_ckpt.query q JOIN pg_catalog.pg_class c ON c.oid = q.relid
		WHERE c.relkind = 'r' AND c.relreplident = 'd' AND
			NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
	LOOP
		EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY FULL', result);
	END LOOP;
END
$$;

--
-- A query whose WAL isn't kept any more (stream_ckpt.max_query_wal) goes on only if the gap is accepted.
--
DROP FUNCTION stream_ckpt.resume_query(regclass);
CREATE FUNCTION stream_ckpt.resume_query(query regclass, accept_gap boolean DEFAULT false)
RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_resume_query';
COMMENT ON FUNCTION stream_ckpt.resume_query(regclass, boolean)
	IS 'lets a paused or failed query go on from where it stopped; an error if it is lost, unless accept_gap says to go on without the rows between';

--
-- Late rows and dead letters: the row as it was.
--
ALTER TABLE stream_ckpt.late_rows ADD COLUMN types text[], ADD COLUMN row_text text,
	ALTER COLUMN row DROP NOT NULL;
ALTER TABLE stream_ckpt.dead_letter ADD COLUMN types text[], ADD COLUMN row_text text;
COMMENT ON COLUMN stream_ckpt.late_rows.row
	IS 'the row for reading, dates and numbers written as pg_dump does; NULL where jsonb cannot hold it';
COMMENT ON COLUMN stream_ckpt.late_rows.types
	IS '{{name, type}, ...} of the columns of row_text, as they were in the row''s transaction; NULL for rows that 0.2 kept';
COMMENT ON COLUMN stream_ckpt.late_rows.row_text
	IS 'the row in the text format of COPY, written as pg_dump does: what COPY FROM makes the row of again; NULL for rows that 0.2 kept, and where a value could not be written';
COMMENT ON COLUMN stream_ckpt.dead_letter.row
	IS 'the row for reading, dates and numbers written as pg_dump does; NULL where jsonb cannot hold it';
COMMENT ON COLUMN stream_ckpt.dead_letter.types
	IS '{{name, type}, ...} of the columns of row_text, as they were in the row''s transaction; NULL for letters that 0.2 kept';
COMMENT ON COLUMN stream_ckpt.dead_letter.row_text
	IS 'the row in the text format of COPY, written as pg_dump does: what COPY FROM makes the row of again; NULL for letters that 0.2 kept, and where a value could not be written';

--
-- Dumps: watermarks come with the results.  Only a restore inserts by a command, and fires the trigger.
--
ALTER TABLE stream_ckpt.checkpoint_offset ALTER COLUMN source TYPE regclass;
CREATE FUNCTION stream_ckpt.restored()
RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_restored';
REVOKE ALL ON FUNCTION stream_ckpt.restored() FROM PUBLIC;
COMMENT ON FUNCTION stream_ckpt.restored()
	IS 'trigger: a query restored from a dump has no position in this server''s WAL';
CREATE TRIGGER restored BEFORE INSERT ON stream_ckpt.checkpoint_offset
	FOR EACH ROW EXECUTE FUNCTION stream_ckpt.restored();
ALTER TABLE stream_ckpt.checkpoint_offset ENABLE ALWAYS TRIGGER restored;
CREATE TRIGGER restored AFTER INSERT ON stream_ckpt.query
	FOR EACH STATEMENT EXECUTE FUNCTION stream_ckpt.restored();
ALTER TABLE stream_ckpt.query ENABLE ALWAYS TRIGGER restored;
CREATE FUNCTION stream_ckpt.restored_query()
RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_restored_query';
REVOKE ALL ON FUNCTION stream_ckpt.restored_query() FROM PUBLIC;
COMMENT ON FUNCTION stream_ckpt.restored_query()
	IS 'trigger: a query restored from a dump is in the pipeline that it was to move to, if the one where it was is not in the dump';
CREATE TRIGGER restored_query BEFORE INSERT ON stream_ckpt.query
	FOR EACH ROW EXECUTE FUNCTION stream_ckpt.restored_query();
ALTER TABLE stream_ckpt.query ENABLE ALWAYS TRIGGER restored_query;
SELECT pg_catalog.pg_extension_config_dump('stream_ckpt.checkpoint_offset',
	'WHERE query_id IN (SELECT q.query_id FROM stream_ckpt.query q)');

--
-- Views: no value of an owner's makes them fail, and they say in words what doesn't count.
--
ALTER TABLE stream_ckpt.checkpoint_offset
	ADD COLUMN recent_late bigint NOT NULL DEFAULT 0,
	ADD COLUMN recent_timeless bigint NOT NULL DEFAULT 0,
	ADD COLUMN recent_ignored bigint NOT NULL DEFAULT 0,
	ADD COLUMN recent_ahead bigint NOT NULL DEFAULT 0,
	ADD COLUMN recent_lsn pg_lsn;

-- Dumps: windows that were open behind the greatest event time, as closed_windows.  0.2 has none.
ALTER TABLE stream_ckpt.checkpoint_offset ADD COLUMN ahead_windows timestamptz[];

-- State: chunks of runs (src/state/README).  Stored plain: a chunk fits a page.
CREATE TABLE stream_ckpt.state_run (
	query_id		bigint NOT NULL,
	pane			bigint NOT NULL,
	age				bigint NOT NULL,
	born			bigint NOT NULL,
	key_group		smallint NOT NULL,
	position		bigint NOT NULL,
	seq				integer NOT NULL,
	data			bytea NOT NULL,
	PRIMARY KEY (query_id, pane, age, born, key_group, position, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
		autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000, vacuum_truncate = false);
ALTER TABLE stream_ckpt.state_run ALTER COLUMN data SET STORAGE PLAIN;
REVOKE ALL ON stream_ckpt.state_run FROM PUBLIC;
ALTER TABLE stream_ckpt.checkpoint_offset ADD COLUMN age bigint NOT NULL DEFAULT 0;

--
-- Many tasks: on how many a query runs, and what each of them took for its part of a checkpoint.
--
ALTER TABLE stream_ckpt.query ADD COLUMN parallelism integer NOT NULL DEFAULT 1;
ALTER TABLE stream_ckpt.query ADD COLUMN ttl interval;
ALTER TABLE stream_ckpt.checkpoint_offset ADD COLUMN tasks integer NOT NULL DEFAULT 1;
ALTER TABLE stream_ckpt.checkpoint_offset ADD COLUMN moved_rows bigint NOT NULL DEFAULT 0;

-- changes: rows (x windows) that were changed or deleted too late to be taken back, those that had never counted, and those
-- that were taken back
ALTER TABLE stream_ckpt.checkpoint_offset
	ADD COLUMN late_changes bigint NOT NULL DEFAULT 0,
	ADD COLUMN skipped_changes bigint NOT NULL DEFAULT 0,
	ADD COLUMN retracted_rows bigint NOT NULL DEFAULT 0,
	ADD COLUMN portable text NOT NULL DEFAULT 'no',
	ADD COLUMN endless boolean NOT NULL DEFAULT false,
	ADD COLUMN resets bigint NOT NULL DEFAULT 0;

--
-- Dumps with the state, if stream_ckpt.dump_state is on: what it was written by, and all chunks that another database can read
--
ALTER TABLE stream_ckpt.pipeline_state ADD COLUMN platform text;
ALTER TABLE stream_ckpt.pipeline_state ADD COLUMN prepared boolean NOT NULL DEFAULT false;
-- true for the rows that are there
CREATE FUNCTION stream_ckpt.written_here()
RETURNS boolean LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'stream_ckpt_written_here';
REVOKE ALL ON FUNCTION stream_ckpt.written_here() FROM PUBLIC;
COMMENT ON FUNCTION stream_ckpt.written_here()
	IS 'false, for rows that a command inserts, as a restore does: what they say of positions and states holds elsewhere';
ALTER TABLE stream_ckpt.pipeline_state
	ADD COLUMN own boolean GENERATED ALWAYS AS (stream_ckpt.written_here()) STORED;
ALTER TABLE stream_ckpt.checkpoint_offset
	ADD COLUMN own boolean GENERATED ALWAYS AS (stream_ckpt.written_here()) STORED;
CREATE FUNCTION stream_ckpt.restored_state()
RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_restored_state';
REVOKE ALL ON FUNCTION stream_ckpt.restored_state() FROM PUBLIC;
COMMENT ON FUNCTION stream_ckpt.restored_state()
	IS 'trigger: of a pipeline restored from a dump only what its state was written by holds';
CREATE TRIGGER restored BEFORE INSERT ON stream_ckpt.pipeline_state
	FOR EACH ROW EXECUTE FUNCTION stream_ckpt.restored_state();
ALTER TABLE stream_ckpt.pipeline_state ENABLE ALWAYS TRIGGER restored;
SELECT pg_catalog.pg_extension_config_dump('stream_ckpt.pipeline_state',
	$$WHERE pg_catalog.current_setting('stream_ckpt.dump_state', true) = 'on'
	AND pipeline_id IN (SELECT p.pipeline_id FROM stream_ckpt.pipeline p WHERE NOT p.lane)$$);
SELECT pg_catalog.pg_extension_config_dump('stream_ckpt.state_run',
	$$WHERE pg_catalog.current_setting('stream_ckpt.dump_state', true) = 'on'
	AND query_id IN (SELECT o.query_id FROM stream_ckpt.checkpoint_offset o, stream_ckpt.query q
		WHERE o.query_id = q.query_id AND o.portable <> 'no')$$);
SELECT pg_catalog.pg_extension_config_dump('stream_ckpt.state_chunk',
	$$WHERE pg_catalog.current_setting('stream_ckpt.dump_state', true) = 'on'
	AND query_id IN (SELECT o.query_id FROM stream_ckpt.checkpoint_offset o, stream_ckpt.query q
		WHERE o.query_id = q.query_id AND o.portable <> 'no')$$);

ALTER TABLE stream_ckpt.checkpoint
	ADD COLUMN task_start_delay_ms float8[],
	ADD COLUMN task_sync_ms float8[],
	ADD COLUMN task_async_ms float8[],
	ADD COLUMN task_bytes bigint[];

--
-- Windows: definitions of 0.2 go on with the function that they have
--
ALTER FUNCTION stream_ckpt.tumble(timestamptz, interval, timestamptz) RENAME TO _tumble;
COMMENT ON FUNCTION stream_ckpt._tumble(timestamptz, interval, timestamptz)
	IS 'tumble() as 0.2 had it, in definitions of that time';
CREATE FUNCTION stream_ckpt._period_start(ts timestamp, size interval, months int4, origin timestamp)
RETURNS timestamp LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN months OPERATOR(pg_catalog.>) 0 AND size OPERATOR(pg_catalog.=) pg_catalog.make_interval(months => months)
		THEN CASE WHEN pg_catalog.isfinite(ts) THEN pg_catalog.date_trunc('month', origin) OPERATOR(pg_catalog.+)
			pg_catalog.make_interval(months => months OPERATOR(pg_catalog.*) pg_catalog.floor((
				pg_catalog.date_part('year', pg_catalog.age(pg_catalog.date_trunc('month', ts), pg_catalog.date_trunc('month', origin))) OPERATOR(pg_catalog.*) 12::pg_catalog.float8 OPERATOR(pg_catalog.+)
				pg_catalog.date_part('month', pg_catalog.age(pg_catalog.date_trunc('month', ts), pg_catalog.date_trunc('month', origin))))
				OPERATOR(pg_catalog./) months::pg_catalog.float8)::pg_catalog.int4)
			ELSE ts END
		ELSE pg_catalog.date_bin(size, ts, origin) END
$$;
COMMENT ON FUNCTION stream_ckpt._period_start(timestamp, interval, int4, timestamp)
	IS 'where a window of so many months (size, and its number), days or hours that holds a local time begins';
CREATE FUNCTION stream_ckpt.tumble(ts timestamptz, size interval,
	origin timestamptz DEFAULT '1970-01-01 00:00:00+00', timezone text DEFAULT NULL,
	OUT window_start timestamptz, OUT window_end timestamptz, OUT window_time timestamptz)
RETURNS SETOF record LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1 AS $$
	SELECT b.s,
		CASE WHEN timezone IS NULL THEN b.s OPERATOR(pg_catalog.+) b.i ELSE b.e END,
		CASE WHEN timezone IS NULL THEN b.s OPERATOR(pg_catalog.+) (b.i OPERATOR(pg_catalog.-) '1 microsecond'::pg_catalog.interval)
			ELSE b.e OPERATOR(pg_catalog.-) '1 microsecond'::pg_catalog.interval END
	FROM (SELECT CASE WHEN timezone IS NULL THEN pg_catalog.date_bin(size, ts, origin)
					ELSE pg_catalog.timezone(timezone, l.s) END AS s,
				 pg_catalog.timezone(timezone, l.s OPERATOR(pg_catalog.+) size) AS e,
				 pg_catalog.make_interval(secs => EXTRACT(epoch FROM size)::pg_catalog.float8) AS i
		FROM (SELECT stream_ckpt._period_start(pg_catalog.timezone(timezone, ts), size, (EXTRACT(year FROM size) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM size))::pg_catalog.int4,
			CASE WHEN origin OPERATOR(pg_catalog.=) '1970-01-01 00:00:00+00'::pg_catalog.timestamptz
				THEN '1970-01-01 00:00:00'::pg_catalog.timestamp
				ELSE pg_catalog.date_trunc('day', pg_catalog.timezone(timezone, origin)) END) AS s) l) b
	WHERE pg_catalog.isfinite(ts)
$$;
COMMENT ON FUNCTION stream_ckpt.tumble(timestamptz, interval, timestamptz, text)
	IS 'the tumbling window that holds ts: fixed size (a day is 24 hours), aligned to origin; or, with a timezone, days or months of its calendar, from origin''s date; no row for a NULL or infinite ts';
CREATE OR REPLACE FUNCTION stream_ckpt.tumble(ts timestamp, size interval,
	origin timestamp DEFAULT '1970-01-01 00:00:00',
	OUT window_start timestamp, OUT window_end timestamp, OUT window_time timestamp)
RETURNS SETOF record LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1 AS $$
	SELECT b.s,
		CASE WHEN b.n OPERATOR(pg_catalog.=) 0 THEN b.s OPERATOR(pg_catalog.+) b.i ELSE b.s OPERATOR(pg_catalog.+) size END,
		CASE WHEN b.n OPERATOR(pg_catalog.=) 0 THEN b.s OPERATOR(pg_catalog.+) (b.i OPERATOR(pg_catalog.-) '1 microsecond'::pg_catalog.interval)
			ELSE b.s OPERATOR(pg_catalog.+) size OPERATOR(pg_catalog.-) '1 microsecond'::pg_catalog.interval END
	FROM (SELECT stream_ckpt._period_start(ts, size, m.n, origin) AS s, m.n,
				 pg_catalog.make_interval(secs => EXTRACT(epoch FROM size)::pg_catalog.float8) AS i
		FROM (SELECT (EXTRACT(year FROM size) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM size))::pg_catalog.int4 AS n) m) b
	WHERE pg_catalog.isfinite(ts)
$$;
COMMENT ON FUNCTION stream_ckpt.tumble(timestamp, interval, timestamp)
	IS 'the tumbling window that holds ts: fixed size (a day is 24 hours), or months, aligned to origin; no row for a NULL or infinite ts';
CREATE FUNCTION stream_ckpt.hop(ts timestamptz, slide interval, size interval,
	origin timestamptz DEFAULT '1970-01-01 00:00:00+00',
	OUT window_start timestamptz, OUT window_end timestamptz, OUT window_time timestamptz)
RETURNS SETOF record LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10 AS $$
	SELECT w.s, w.s OPERATOR(pg_catalog.+) b.i,
		w.s OPERATOR(pg_catalog.+) (b.i OPERATOR(pg_catalog.-) '1 microsecond'::pg_catalog.interval)
	FROM (SELECT pg_catalog.date_bin(slide, ts, origin) AS last, pg_catalog.date_bin(size, ts, origin) AS valid,
				 pg_catalog.make_interval(secs => EXTRACT(epoch FROM slide)::pg_catalog.float8) AS d,
				 pg_catalog.make_interval(secs => EXTRACT(epoch FROM size)::pg_catalog.float8) AS i) b,
		pg_catalog.generate_series(0, CASE WHEN pg_catalog.isfinite(b.last) AND pg_catalog.isfinite(b.valid)
			THEN pg_catalog.ceil(EXTRACT(epoch FROM size) OPERATOR(pg_catalog./) EXTRACT(epoch FROM slide))::pg_catalog.int4
				OPERATOR(pg_catalog.-) 1 ELSE -1 END) n,
		LATERAL (SELECT b.last OPERATOR(pg_catalog.-) (b.d OPERATOR(pg_catalog.*) n::pg_catalog.float8) AS s) w
	WHERE w.s OPERATOR(pg_catalog.+) b.i OPERATOR(pg_catalog.>) ts
$$;
COMMENT ON FUNCTION stream_ckpt.hop(timestamptz, interval, interval, timestamptz)
	IS 'the hopping windows that hold ts: of one size, one begins each slide, aligned to origin; fixed lengths (a day is 24 hours; months and years are refused); no row for a NULL or infinite ts';
CREATE FUNCTION stream_ckpt.cumulate(ts timestamptz, step interval, size interval,
	origin timestamptz DEFAULT '1970-01-01 00:00:00+00', timezone text DEFAULT NULL,
	OUT window_start timestamptz, OUT window_end timestamptz, OUT window_time timestamptz)
RETURNS SETOF record LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10 AS $$
	-- l: local time of ts, and of the start; z: start and end.  In FROM, for once a row; without a timezone they are constants.
	SELECT b.s, w.e, w.e OPERATOR(pg_catalog.-) '1 microsecond'::pg_catalog.interval
	FROM COALESCE(CASE WHEN timezone IS NOT NULL THEN ARRAY[pg_catalog.timezone(timezone, ts),
			stream_ckpt._period_start(pg_catalog.timezone(timezone, ts), size, (EXTRACT(year FROM size) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM size))::pg_catalog.int4,
				CASE WHEN origin OPERATOR(pg_catalog.=) '1970-01-01 00:00:00+00'::pg_catalog.timestamptz
					THEN '1970-01-01 00:00:00'::pg_catalog.timestamp
					ELSE pg_catalog.date_trunc('day', pg_catalog.timezone(timezone, origin)) END)] END) l(t),
		COALESCE(CASE WHEN timezone IS NOT NULL THEN
			ARRAY[pg_catalog.timezone(timezone, l.t[2]), pg_catalog.timezone(timezone, l.t[2] OPERATOR(pg_catalog.+) size)] END) z(t),
		LATERAL (SELECT CASE WHEN timezone IS NULL THEN pg_catalog.date_bin(size, ts, origin) ELSE z.t[1] END AS s,
				 CASE WHEN timezone IS NULL THEN pg_catalog.date_bin(step, ts, origin) END AS valid,
				 pg_catalog.make_interval(secs => EXTRACT(epoch FROM step)::pg_catalog.float8) AS d,
				 EXTRACT(day FROM step) OPERATOR(pg_catalog.=) 0 AND (EXTRACT(year FROM step) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM step))::pg_catalog.int4 OPERATOR(pg_catalog.=) 0 AS fixed) b,
		pg_catalog.generate_series(1, CASE
			WHEN timezone IS NULL THEN CASE WHEN pg_catalog.isfinite(b.valid)
				THEN pg_catalog.trunc(EXTRACT(epoch FROM size) OPERATOR(pg_catalog./) EXTRACT(epoch FROM step))::pg_catalog.int4
				ELSE 0 END
			WHEN pg_catalog.isfinite(ts) IS NOT TRUE OR NOT pg_catalog.isfinite(stream_ckpt._period_start(l.t[2], step, (EXTRACT(year FROM step) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM step))::pg_catalog.int4, l.t[2])) THEN 0
			ELSE pg_catalog.ceil((EXTRACT(epoch FROM l.t[2] OPERATOR(pg_catalog.+) size OPERATOR(pg_catalog.-) l.t[2]) OPERATOR(pg_catalog.+) 172800)
				OPERATOR(pg_catalog./) (EXTRACT(epoch FROM step) OPERATOR(pg_catalog.*) 0.9))::pg_catalog.int4 END) n,
		LATERAL (SELECT CASE
			WHEN timezone IS NULL THEN b.s OPERATOR(pg_catalog.+) (b.d OPERATOR(pg_catalog.*) n::pg_catalog.float8)
			WHEN b.fixed THEN LEAST(b.s OPERATOR(pg_catalog.+) (b.d OPERATOR(pg_catalog.*) n::pg_catalog.float8), z.t[2])
			ELSE pg_catalog.timezone(timezone, LEAST(l.t[2] OPERATOR(pg_catalog.+) (step OPERATOR(pg_catalog.*) n::pg_catalog.float8),
				l.t[2] OPERATOR(pg_catalog.+) size)) END AS e) w
	WHERE CASE
		WHEN timezone IS NULL THEN w.e OPERATOR(pg_catalog.>) ts
		WHEN b.fixed THEN w.e OPERATOR(pg_catalog.>) ts
			AND b.s OPERATOR(pg_catalog.+) (b.d OPERATOR(pg_catalog.*) (n OPERATOR(pg_catalog.-) 1)::pg_catalog.float8) OPERATOR(pg_catalog.<) z.t[2]
		-- of two bounds at one moment the later one
		ELSE LEAST(l.t[2] OPERATOR(pg_catalog.+) (step OPERATOR(pg_catalog.*) n::pg_catalog.float8), l.t[2] OPERATOR(pg_catalog.+) size) OPERATOR(pg_catalog.>) l.t[1]
			AND l.t[2] OPERATOR(pg_catalog.+) (step OPERATOR(pg_catalog.*) (n OPERATOR(pg_catalog.-) 1)::pg_catalog.float8)
				OPERATOR(pg_catalog.<) (l.t[2] OPERATOR(pg_catalog.+) size)
			AND (w.e OPERATOR(pg_catalog.=) z.t[2] AND l.t[2] OPERATOR(pg_catalog.+) (step OPERATOR(pg_catalog.*) n::pg_catalog.float8)
					OPERATOR(pg_catalog.>=) (l.t[2] OPERATOR(pg_catalog.+) size)
				OR w.e OPERATOR(pg_catalog.<) pg_catalog.timezone(timezone, LEAST(l.t[2] OPERATOR(pg_catalog.+)
					(step OPERATOR(pg_catalog.*) (n OPERATOR(pg_catalog.+) 1)::pg_catalog.float8), l.t[2] OPERATOR(pg_catalog.+) size))) END
$$;
COMMENT ON FUNCTION stream_ckpt.cumulate(timestamptz, interval, interval, timestamptz, text)
	IS 'the cumulating windows that hold ts: the first one, two... steps of each size, aligned to origin; fixed lengths as with hop(), size is a multiple of step; or, with a timezone, of days or months of its calendar; no row for a NULL or infinite ts';
CREATE FUNCTION stream_ckpt.hop(ts timestamp, slide interval, size interval,
	origin timestamp DEFAULT '1970-01-01 00:00:00',
	OUT window_start timestamp, OUT window_end timestamp, OUT window_time timestamp)
RETURNS SETOF record LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10 AS $$
	SELECT w.s, w.s OPERATOR(pg_catalog.+) b.i,
		w.s OPERATOR(pg_catalog.+) (b.i OPERATOR(pg_catalog.-) '1 microsecond'::pg_catalog.interval)
	FROM (SELECT pg_catalog.date_bin(slide, ts, origin) AS last, pg_catalog.date_bin(size, ts, origin) AS valid,
				 pg_catalog.make_interval(secs => EXTRACT(epoch FROM slide)::pg_catalog.float8) AS d,
				 pg_catalog.make_interval(secs => EXTRACT(epoch FROM size)::pg_catalog.float8) AS i) b,
		pg_catalog.generate_series(0, CASE WHEN pg_catalog.isfinite(b.last) AND pg_catalog.isfinite(b.valid)
			THEN pg_catalog.ceil(EXTRACT(epoch FROM size) OPERATOR(pg_catalog./) EXTRACT(epoch FROM slide))::pg_catalog.int4
				OPERATOR(pg_catalog.-) 1 ELSE -1 END) n,
		LATERAL (SELECT b.last OPERATOR(pg_catalog.-) (b.d OPERATOR(pg_catalog.*) n::pg_catalog.float8) AS s) w
	WHERE w.s OPERATOR(pg_catalog.+) b.i OPERATOR(pg_catalog.>) ts
$$;
COMMENT ON FUNCTION stream_ckpt.hop(timestamp, interval, interval, timestamp)
	IS 'the hopping windows that hold ts: of one size, one begins each slide, aligned to origin; fixed lengths (a day is 24 hours; months and years are refused); no row for a NULL or infinite ts';
CREATE FUNCTION stream_ckpt.cumulate(ts timestamp, step interval, size interval,
	origin timestamp DEFAULT '1970-01-01 00:00:00',
	OUT window_start timestamp, OUT window_end timestamp, OUT window_time timestamp)
RETURNS SETOF record LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10 AS $$
	-- l: of months start and end.  In FROM, for once a row; of fixed lengths it is a constant.
	SELECT b.s, w.e, w.e OPERATOR(pg_catalog.-) '1 microsecond'::pg_catalog.interval
	FROM COALESCE(CASE WHEN (EXTRACT(year FROM size) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM size))::pg_catalog.int4 OPERATOR(pg_catalog.<>) 0 THEN ARRAY[stream_ckpt._period_start(ts, size, (EXTRACT(year FROM size) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM size))::pg_catalog.int4, origin),
			stream_ckpt._period_start(ts, size, (EXTRACT(year FROM size) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM size))::pg_catalog.int4, origin) OPERATOR(pg_catalog.+) size] END) l(t),
		LATERAL (SELECT CASE WHEN m.n OPERATOR(pg_catalog.=) 0 THEN pg_catalog.date_bin(size, ts, origin) ELSE l.t[1] END AS s,
				 CASE WHEN m.n OPERATOR(pg_catalog.=) 0 THEN pg_catalog.date_bin(step, ts, origin) END AS valid,
				 pg_catalog.make_interval(secs => EXTRACT(epoch FROM step)::pg_catalog.float8) AS d, m.n AS months
			FROM (SELECT (EXTRACT(year FROM size) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM size))::pg_catalog.int4 AS n) m) b,
		pg_catalog.generate_series(1, CASE
			WHEN b.months OPERATOR(pg_catalog.=) 0 THEN CASE WHEN pg_catalog.isfinite(b.valid)
				THEN pg_catalog.trunc(EXTRACT(epoch FROM size) OPERATOR(pg_catalog./) EXTRACT(epoch FROM step))::pg_catalog.int4
				ELSE 0 END
			WHEN pg_catalog.isfinite(ts) IS NOT TRUE OR NOT pg_catalog.isfinite(stream_ckpt._period_start(l.t[1], step, (EXTRACT(year FROM step) OPERATOR(pg_catalog.*) 12 OPERATOR(pg_catalog.+) EXTRACT(month FROM step))::pg_catalog.int4, l.t[1])) THEN 0
			ELSE pg_catalog.ceil(EXTRACT(epoch FROM l.t[2] OPERATOR(pg_catalog.-) l.t[1])
				OPERATOR(pg_catalog./) (EXTRACT(epoch FROM step) OPERATOR(pg_catalog.*) 0.9))::pg_catalog.int4 END) n,
		LATERAL (SELECT CASE WHEN b.months OPERATOR(pg_catalog.=) 0 THEN b.s OPERATOR(pg_catalog.+) (b.d OPERATOR(pg_catalog.*) n::pg_catalog.float8)
			ELSE LEAST(l.t[1] OPERATOR(pg_catalog.+) (step OPERATOR(pg_catalog.*) n::pg_catalog.float8), l.t[2]) END AS e) w
	WHERE w.e OPERATOR(pg_catalog.>) ts AND (b.months OPERATOR(pg_catalog.=) 0
		OR l.t[1] OPERATOR(pg_catalog.+) (step OPERATOR(pg_catalog.*) (n OPERATOR(pg_catalog.-) 1)::pg_catalog.float8) OPERATOR(pg_catalog.<) l.t[2])
$$;
COMMENT ON FUNCTION stream_ckpt.cumulate(timestamp, interval, interval, timestamp)
	IS 'the cumulating windows that hold ts: the first one, two... steps of each size, aligned to origin; fixed lengths as with hop(), size is a multiple of step; or of months; no row for a NULL or infinite ts';
CREATE FUNCTION stream_ckpt.session(ts timestamptz, gap interval,
	OUT window_start timestamptz, OUT window_end timestamptz, OUT window_time timestamptz)
RETURNS SETOF record LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'stream_ckpt_session';
COMMENT ON FUNCTION stream_ckpt.session(timestamptz, interval)
	IS 'in a continuous query: the session of a key that ts belongs to, from its first row to the gap after its last one; cannot be run as a plain function';
CREATE FUNCTION stream_ckpt.session(ts timestamp, gap interval,
	OUT window_start timestamp, OUT window_end timestamp, OUT window_time timestamp)
RETURNS SETOF record LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'stream_ckpt_session';
COMMENT ON FUNCTION stream_ckpt.session(timestamp, interval)
	IS 'in a continuous query: the session of a key that ts belongs to, from its first row to the gap after its last one; cannot be run as a plain function';

DROP FUNCTION stream_ckpt.create_query(text, text, text, interval, boolean, boolean, text, name);
CREATE FUNCTION stream_ckpt.create_query(name text, query text, emit text DEFAULT NULL,
	allowed_lateness interval DEFAULT '0', backfill boolean DEFAULT NULL,
	keep_late_rows boolean DEFAULT false, on_error text DEFAULT 'stop',
	pipeline name DEFAULT 'default', parallelism integer DEFAULT 1, ttl interval DEFAULT NULL,
	or_replace boolean DEFAULT false)
RETURNS regclass LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_create_query';
COMMENT ON FUNCTION stream_ckpt.create_query(text, text, text, interval, boolean, boolean, text, name, integer, interval, boolean)
	IS 'begins a continuous query: makes its result table, and its definition as the view <name>_definition; emit: close, which is the default if there are windows, or update; backfill: it begins with the rows that the stream holds, which is the default for tables; parallelism: on how many of the pipeline''s tasks it runs; ttl: without a window, how long the state of a group is kept after its last row, in event time';
CREATE FUNCTION stream_ckpt.explain_query(query text, emit text DEFAULT NULL, allowed_lateness interval DEFAULT '0',
	parallelism integer DEFAULT 1)
RETURNS SETOF text LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_explain_query';
COMMENT ON FUNCTION stream_ckpt.explain_query(text, text, interval, integer)
	IS 'says line by line what a continuous query does: stream and filter, windows and their panes, keys, how the state of each aggregate is kept and combined, what is emitted when, tasks; query: its definition, with the options of create_query(), before anything is created, or the name of a query that is there';
CREATE FUNCTION stream_ckpt.alter_query(query regclass, parallelism integer DEFAULT NULL)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_alter_query';
COMMENT ON FUNCTION stream_ckpt.alter_query(regclass, integer)
	IS 'changes on how many of its pipeline''s tasks a query runs';
COMMENT ON FUNCTION stream_ckpt.create_pipeline(name, integer, interval, text)
	IS 'makes a pipeline: queries of one pipeline share one decoding of the WAL and one set of workers; parallelism: number of its tasks';
COMMENT ON FUNCTION stream_ckpt.alter_pipeline(name, integer, interval)
	IS 'changes a pipeline; checkpoint_interval from 10 ms on; another parallelism shares out its queries among the tasks anew';

CREATE FUNCTION stream_ckpt.checkpoint_progress(pipeline_id integer, OUT acknowledged integer, OUT tasks integer,
	OUT slowest_task integer)
RETURNS record LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_checkpoint_progress';
COMMENT ON FUNCTION stream_ckpt.checkpoint_progress(integer)
	IS 'how many tasks of how many have sent their parts of the checkpoint in progress, and the first of those that have not';
CREATE FUNCTION stream_ckpt.task_cache(pipeline_id integer, task integer, OUT cache_hits bigint, OUT cache_misses bigint,
	OUT cache_evictions bigint, OUT loaded_bytes bigint, OUT written_bytes bigint, OUT merged_bytes bigint)
RETURNS record LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_task_cache';
COMMENT ON FUNCTION stream_ckpt.task_cache(integer, integer)
	IS 'what a task''s windows that are larger than stream_ckpt.task_memory have taken since its attempt began: how often their groups were in memory, and bytes read, written and merged';

CREATE OR REPLACE VIEW stream_ckpt.checkpoints AS
SELECT c.checkpoint_id AS id, p.name AS pipeline, c.attempt, c.kind, c.status,
	c.triggered_at AS trigger_time, c.completed_at - c.triggered_at AS duration,
	c.barrier_ms, c.sync_ms, c.async_ms, c.checkpointed_bytes AS checkpointed_size,
	c.full_bytes AS full_size, c.rows_in, c.result_rows, c.lsn,
	CASE WHEN stream_ckpt.sees_pipeline(c.pipeline_id) THEN c.failure END AS failure_message,
	pg_catalog.cardinality(c.task_bytes) AS acknowledged, pg_catalog.cardinality(c.task_bytes) AS tasks,
	(SELECT u.n::integer - 1
	 FROM ROWS FROM (pg_catalog.unnest(c.task_start_delay_ms), pg_catalog.unnest(c.task_sync_ms), pg_catalog.unnest(c.task_async_ms))
		WITH ORDINALITY u (start_delay, sync, async, n)
	 ORDER BY u.start_delay + u.sync + u.async DESC, u.n LIMIT 1) AS slowest_task
FROM stream_ckpt.checkpoint c JOIN stream_ckpt.pipeline p USING (pipeline_id)
UNION ALL
SELECT s.checkpoint_in_progress, p.name, s.attempt, NULL, 'in progress', s.checkpoint_triggered_at,
	pg_catalog.clock_timestamp() - s.checkpoint_triggered_at, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	a.acknowledged, a.tasks, a.slowest_task
FROM stream_ckpt.pipeline_status() s JOIN stream_ckpt.pipeline p USING (pipeline_id)
CROSS JOIN LATERAL stream_ckpt.checkpoint_progress(s.pipeline_id) a
WHERE s.checkpoint_triggered_at IS NOT NULL;
COMMENT ON VIEW stream_ckpt.checkpoints IS 'the last checkpoints of each pipeline, and those in progress; sizes in bytes';

CREATE VIEW stream_ckpt.checkpoint_tasks AS
SELECT c.checkpoint_id AS id, p.name AS pipeline, c.attempt, u.n::integer - 1 AS task,
	u.start_delay AS start_delay_ms, u.sync AS sync_ms, u.async AS async_ms, u.bytes AS checkpointed_size
FROM stream_ckpt.checkpoint c
JOIN stream_ckpt.pipeline p USING (pipeline_id)
CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(c.task_start_delay_ms), pg_catalog.unnest(c.task_sync_ms), pg_catalog.unnest(c.task_async_ms),
	pg_catalog.unnest(c.task_bytes)) WITH ORDINALITY u (start_delay, sync, async, bytes, n);
COMMENT ON VIEW stream_ckpt.checkpoint_tasks
	IS 'what each task took for its part of the checkpoints in the history: until it met the barrier, while it stood, until the coordinator had all of it';
GRANT SELECT ON stream_ckpt.checkpoint_tasks TO PUBLIC;

CREATE FUNCTION stream_ckpt.watermark(max_event_time timestamptz, watermark_delay interval)
RETURNS timestamptz LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_watermark';
COMMENT ON FUNCTION stream_ckpt.watermark(timestamptz, interval)
	IS 'max_event_time less watermark_delay as queries count it: a day is 24 hours; -infinity where no time is that early, NULL for a delay of months';
CREATE FUNCTION stream_ckpt.uncounted_message(late bigint, timeless bigint, ignored bigint, ahead bigint)
RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_uncounted_message';
COMMENT ON FUNCTION stream_ckpt.uncounted_message(bigint, bigint, bigint, bigint)
	IS 'so many rows that came late, rows without a finite event time, changes, and rows beyond max_ahead, in words; NULL where there are none';
CREATE FUNCTION stream_ckpt.uncounted_hint(late bigint, timeless bigint, ignored bigint, ahead bigint)
RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_uncounted_hint';
COMMENT ON FUNCTION stream_ckpt.uncounted_hint(bigint, bigint, bigint, bigint)
	IS 'what to do about them; NULL where there are none';
CREATE FUNCTION stream_ckpt.writing_message(pipeline_id integer, query_id bigint)
RETURNS text LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_writing_message';
COMMENT ON FUNCTION stream_ckpt.writing_message(integer, bigint)
	IS 'how far a process of its own is that writes a large result of the query, in words; NULL where there is none';
CREATE FUNCTION stream_ckpt.backfill_progress(pipeline_id integer, query_id bigint, stream regclass, OUT phase text,
	OUT "rows" bigint, OUT blocks bigint, OUT total_blocks bigint, OUT percent float8, OUT begun timestamptz,
	OUT estimated_end timestamptz)
RETURNS record LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_backfill_progress';
COMMENT ON FUNCTION stream_ckpt.backfill_progress(integer, bigint, regclass)
	IS 'how far a query is that begins with the rows of its stream''s table, and has no result yet';
CREATE FUNCTION stream_ckpt.task_lag(pipeline_id integer, task integer)
RETURNS float8 LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'stream_ckpt_task_lag';
COMMENT ON FUNCTION stream_ckpt.task_lag(integer, integer)
	IS 'seconds that a task is behind what was committed: 0 when it has had everything; NULL where it does not run';

ALTER TABLE stream_ckpt.pipeline ADD COLUMN lane boolean NOT NULL DEFAULT false;
-- a dump has no lane
SELECT pg_catalog.pg_extension_config_dump('stream_ckpt.pipeline', 'WHERE name <> ''default'' AND NOT lane');
CREATE OR REPLACE VIEW stream_ckpt.pipelines AS
SELECT p.name AS pipeline, p.pipeline_id,
	CASE WHEN s.status IS NOT NULL AND s.status <> 'gone' THEN s.status
		 WHEN p.stopped THEN 'stopped'
		 WHEN NOT EXISTS (SELECT FROM stream_ckpt.query q WHERE q.pipeline_id = p.pipeline_id) THEN 'idle'
		 WHEN l.slot_name IS NULL THEN 'lost'
		 ELSE 'starting' END AS status,
	COALESCE(s.message, CASE WHEN lost.yes THEN 'the pipeline''s replication slot does not exist' END) AS message,
	COALESCE(s.hint, CASE WHEN lost.yes THEN 'Call stream_ckpt.rebuild_pipeline(name) to make the results of queries over tables anew, or stream_ckpt.start_pipeline(name, accept_gap => true) to go on without the rows between.' END) AS hint,
	s.status_since, p.parallelism, p.checkpoint_interval, p.state_backend,
	COALESCE(s.attempt, t.attempt) AS attempt, s.failures, s.restart_at,
	s.coordinator_pid, s.reader_pid,
	t.checkpoint_id AS last_checkpoint, s.checkpoint_in_progress,
	s.decoded_lsn, COALESCE(s.committed_lsn, t.lsn) AS committed_lsn,
	l.slot_name, l.confirmed_flush_lsn,
	-- positions of a copied database are another server's
	CASE WHEN NOT pg_catalog.pg_is_in_recovery()
		 THEN GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), COALESCE(s.committed_lsn, t.lsn)), 0)::bigint END AS lag_bytes,
	CASE WHEN NOT pg_catalog.pg_is_in_recovery()
		 THEN GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), l.restart_lsn), 0)::bigint END AS wal_kept_bytes
FROM stream_ckpt.pipeline p
LEFT JOIN stream_ckpt.pipeline_state t USING (pipeline_id)
LEFT JOIN stream_ckpt.pipeline_status() s USING (pipeline_id)
LEFT JOIN pg_catalog.pg_replication_slots l
	ON l.slot_name = 'stream_ckpt_' || (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) || '_' || p.pipeline_id
CROSS JOIN LATERAL (SELECT NOT p.stopped AND l.slot_name IS NULL AND s.pipeline_id IS NULL
	AND EXISTS (SELECT FROM stream_ckpt.query q WHERE q.pipeline_id = p.pipeline_id) AS yes) lost
-- the lane is of no interest but for its queries
WHERE NOT p.lane OR EXISTS (SELECT FROM stream_ckpt.query q WHERE q.pipeline_id = p.pipeline_id);

ALTER TABLE stream_ckpt.query
	ADD COLUMN backfill boolean NOT NULL DEFAULT false,
	ADD COLUMN target_id integer,
	ADD COLUMN moving boolean NOT NULL DEFAULT false,
	ADD COLUMN empty_first boolean NOT NULL DEFAULT false,
	ADD COLUMN replaces bigint,
	ADD COLUMN keep_before timestamptz;

CREATE OR REPLACE VIEW stream_ckpt.queries WITH (security_barrier) AS
SELECT q.relid AS query, q.definition, q.source AS stream, p.pipeline,
	CASE WHEN f.status = 'lost' THEN 'lost'
		 WHEN q.paused THEN 'paused'
		 WHEN f.status = 'accepted' THEN 'restarting'
		 WHEN f.status = 'failed' OR p.status = 'running' AND f.status IS NOT NULL THEN f.status
		 WHEN p.status = 'running' AND b.phase IS NOT NULL THEN 'backfilling'
		 WHEN p.status = 'running' AND n.lsn > p.decoded_lsn THEN 'catching up'
		 ELSE p.status END AS status,
	COALESCE(f.message, p.message, stream_ckpt.writing_message(q.pipeline_id, q.query_id),
		stream_ckpt.uncounted_message(o.recent_late, o.recent_timeless, o.recent_ignored, o.recent_ahead) || ' in the last checkpoint with rows',
		CASE WHEN st.changes = 'ignore' AND o.updates_ignored > 0 THEN pg_catalog.format(
			CASE WHEN o.updates_ignored = 1 THEN '%s UPDATE of a row was' ELSE '%s UPDATEs of rows were' END
			|| ' ignored since the query began: it counts what rows were when they came', o.updates_ignored) END) AS message,
	q.emit,
	stream_ckpt.watermark(o.max_event_time, o.watermark_delay) AS watermark, n.lsn, n.checkpoint_id,
	COALESCE(o.rows_in, 0) AS rows_in, COALESCE(o.late_rows, 0) AS late_rows,
	COALESCE(o.null_event_times, 0) AS null_event_times,
	COALESCE(o.result_rows, 0) AS result_rows,
	COALESCE(o.updates_ignored, 0) AS updates_ignored,
	COALESCE(o.deletes_ignored, 0) AS deletes_ignored,
	COALESCE(o.truncates_ignored, 0) AS truncates_ignored,
	COALESCE(o.groups, 0) AS groups, COALESCE(o.state_bytes, 0) AS state_bytes,
	q.query_id, q.created_at,
	f.sqlstate, f.detail,
	COALESCE(f.hint, p.hint, CASE WHEN COALESCE(f.message, p.message, stream_ckpt.writing_message(q.pipeline_id, q.query_id)) IS NULL
		THEN COALESCE(stream_ckpt.uncounted_hint(o.recent_late, o.recent_timeless, o.recent_ignored, o.recent_ahead),
			CASE WHEN st.changes = 'ignore' AND o.updates_ignored > 0 THEN stream_ckpt.uncounted_hint(0, 0, o.updates_ignored, 0) END) END) AS hint,
	f.context AS error_context, f.failures, f.failed_at,
	f.row_lsn, f.row_ordinal,
	COALESCE(o.ahead_rows, 0) AS ahead_rows, q.parallelism, COALESCE(o.moved_rows, 0) AS moved_rows,
	t.name AS target,
	b.phase AS backfill_phase, b.rows AS backfill_rows, b.blocks AS backfill_blocks,
	b.total_blocks AS backfill_total_blocks, b.percent AS backfill_percent, b.begun AS backfill_begun,
	b.estimated_end AS backfill_estimated_end,
	COALESCE(o.late_changes, 0) AS late_changes, COALESCE(o.skipped_changes, 0) AS skipped_changes,
	COALESCE(o.retracted_rows, 0) AS retracted_rows, r.relid AS replaces
FROM stream_ckpt.query q
LEFT JOIN stream_ckpt.checkpoint_offset o USING (query_id)
LEFT JOIN stream_ckpt.query_position n USING (query_id)
LEFT JOIN stream_ckpt.query_failure f USING (query_id)
LEFT JOIN stream_ckpt.any_stream st ON st.relid = q.source
LEFT JOIN stream_ckpt.pipelines p USING (pipeline_id)
LEFT JOIN stream_ckpt.pipeline t ON t.pipeline_id = q.target_id
LEFT JOIN stream_ckpt.query r ON r.query_id = q.replaces
LEFT JOIN pg_catalog.pg_class c ON c.oid = q.definition
LEFT JOIN LATERAL stream_ckpt.backfill_progress(q.pipeline_id, q.query_id, q.source) b
	ON q.backfill AND o.query_id IS NULL AND NOT q.paused AND f.status IS DISTINCT FROM 'failed'
WHERE pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') OR pg_catalog.pg_has_role(c.relowner, 'USAGE');

CREATE OR REPLACE VIEW stream_ckpt.tasks AS
SELECT p.name AS pipeline, t.task, t.pid, t.rows_in, t.late_rows, t.watermark, t.lsn, t.commit_time,
	CASE WHEN NOT pg_catalog.pg_is_in_recovery()
		 THEN GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.decoded_lsn), 0)::bigint END AS lag_bytes,
	stream_ckpt.task_lag(t.pipeline_id, t.task) AS lag_seconds,
	t.groups, t.state_bytes, t.outbox_bytes, t.busy_ms, t.backpressured_ms,
	c.cache_hits, c.cache_misses, c.cache_evictions, c.loaded_bytes, c.written_bytes, c.merged_bytes,
	(c.written_bytes + c.merged_bytes)::float8 / NULLIF(c.written_bytes, 0) AS write_amplification
FROM stream_ckpt.task_status() t
JOIN stream_ckpt.pipeline p USING (pipeline_id)
JOIN stream_ckpt.pipeline_status() s USING (pipeline_id)
CROSS JOIN LATERAL stream_ckpt.task_cache(t.pipeline_id, t.task) c;
COMMENT ON VIEW stream_ckpt.tasks
	IS 'task workers that run now; counts since their attempt began; lag_seconds: 0 when a task has had everything that was committed';

-- The best rows of each group, kept as a state; only continuous queries can call it.
DROP FUNCTION stream_ckpt.sync(interval);
CREATE FUNCTION stream_ckpt.sync(timeout interval DEFAULT '1 minute', query regclass DEFAULT NULL)
RETURNS pg_lsn LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_sync';
COMMENT ON FUNCTION stream_ckpt.sync(interval, regclass)
	IS 'waits until all rows committed before the call are in the committed results of all pipelines that are not stopped, or in that of one query; returns the LSN of its marker';
CREATE FUNCTION stream_ckpt.best_rows_add(state bytea, how internal, VARIADIC columns "any")
RETURNS bytea LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'stream_ckpt_best_rows_add';
COMMENT ON FUNCTION stream_ckpt.best_rows_add(bytea, internal, "any") IS 'transition function of best_rows()';
CREATE FUNCTION stream_ckpt.best_rows_combine(a bytea, b bytea)
RETURNS bytea LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'stream_ckpt_best_rows_combine';
COMMENT ON FUNCTION stream_ckpt.best_rows_combine(bytea, bytea) IS 'combine function of best_rows()';
CREATE AGGREGATE stream_ckpt.best_rows(how internal, VARIADIC columns "any") (
	SFUNC = stream_ckpt.best_rows_add, STYPE = bytea, COMBINEFUNC = stream_ckpt.best_rows_combine, PARALLEL = SAFE);
COMMENT ON AGGREGATE stream_ckpt.best_rows(internal, VARIADIC "any")
	IS 'what DISTINCT ON and row_number() <= n of continuous queries keep of a group; can be called by them only';
REVOKE ALL ON FUNCTION stream_ckpt.best_rows_add(bytea, internal, "any"),
	stream_ckpt.best_rows_combine(bytea, bytea) FROM PUBLIC;

--
-- History: queries that begin with the rows that their stream has, and queries that move between pipelines.
--
CREATE TABLE stream_ckpt.query_history (
	query_id		bigint PRIMARY KEY,
	until			pg_lsn NOT NULL,
	seen			pg_snapshot NOT NULL,
	seen_at			timestamptz NOT NULL
);
REVOKE ALL ON stream_ckpt.query_history FROM PUBLIC;

-- Windows (ranges of them) of which rows came, changed or went when they were over: verify() leaves them out.
CREATE TABLE stream_ckpt.changed_windows (
	query_id		bigint NOT NULL,
	range_start		timestamptz NOT NULL,
	range_end		timestamptz NOT NULL,
	PRIMARY KEY (query_id, range_start)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
REVOKE ALL ON stream_ckpt.changed_windows FROM PUBLIC;
COMMENT ON FUNCTION stream_ckpt.verify(regclass)
	IS 'number of result rows that differ from the definition run as a plain query (closed windows for emit close, floats up to rounding); an error where that truth cannot be had, but for windows that changed when they were over, which are left out';
SELECT pg_catalog.pg_extension_config_dump('stream_ckpt.changed_windows',
	'WHERE query_id IN (SELECT q.query_id FROM stream_ckpt.query q)');
CREATE FUNCTION stream_ckpt.ignore_deletes(stream regclass)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_ignore_deletes';
COMMENT ON FUNCTION stream_ckpt.ignore_deletes(regclass)
	IS 'what DELETE and TRUNCATE take from a stream whose changes are applied stays in the results of its queries, from the call to the end of the transaction';
CREATE FUNCTION stream_ckpt.replace_query(query regclass, definition text, keep_before timestamptz DEFAULT NULL)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_replace_query';
COMMENT ON FUNCTION stream_ckpt.replace_query(regclass, text, timestamptz)
	IS 'gives a query another definition: it is run beside the old one over all rows that its stream holds, then what differs is changed in the result table, in one transaction; rows of windows that end by keep_before stay as they are (NULL: of windows older than the stream''s oldest row)';
CREATE FUNCTION stream_ckpt.rebuild_query(query regclass, keep_before timestamptz DEFAULT NULL)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_rebuild_query';
COMMENT ON FUNCTION stream_ckpt.rebuild_query(regclass, timestamptz)
	IS 'makes a query''s result anew of the rows that its stream holds, as replace_query() with the same definition';
CREATE FUNCTION stream_ckpt.prepare_upgrade(timeout interval DEFAULT '00:05:00')
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_prepare_upgrade';
COMMENT ON FUNCTION stream_ckpt.prepare_upgrade(interval)
	IS 'before pg_upgrade: stops the pipelines of the database when their results have all that is committed, and drops their slots; streams cannot be written to until finish_upgrade()';
CREATE FUNCTION stream_ckpt.finish_upgrade()
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_finish_upgrade';
COMMENT ON FUNCTION stream_ckpt.finish_upgrade()
	IS 'after pg_upgrade, or to give it up: lets the pipelines go on where prepare_upgrade() stopped them; results whose state the new server cannot read are made anew';
CREATE FUNCTION stream_ckpt.rebuild_pipeline(name name)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_rebuild_pipeline';
COMMENT ON FUNCTION stream_ckpt.rebuild_pipeline(name)
	IS 'rebuild_query() of all queries of a pipeline whose streams hold their rows; a lost pipeline begins anew, and its results stay as they are until they are complete';
CREATE FUNCTION stream_ckpt.move_query(query regclass, pipeline name)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_move_query';
COMMENT ON FUNCTION stream_ckpt.move_query(regclass, name)
	IS 'lets a query go on in another pipeline, with its state, as soon as it is well and its pipeline has caught up; queries.target says where it is to go until then; to the pipeline where it is: it stays';

-- changes: new and altered tables of streams whose changes are applied are looked at
CREATE FUNCTION stream_ckpt.on_alter()
RETURNS event_trigger LANGUAGE c AS 'MODULE_PATHNAME', 'stream_ckpt_on_alter';
REVOKE ALL ON FUNCTION stream_ckpt.on_alter() FROM PUBLIC;
CREATE EVENT TRIGGER stream_ckpt_on_alter ON ddl_command_end
	WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA') EXECUTE FUNCTION stream_ckpt.on_alter();
-- also under session_replication_role = replica
ALTER EVENT TRIGGER stream_ckpt_on_alter ENABLE ALWAYS;
ALTER EVENT TRIGGER stream_ckpt_on_drop ENABLE ALWAYS;
