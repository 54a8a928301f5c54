/* stream_ckpt 0.2.0 to 0.3.0 */

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

CREATE OR REPLACE VIEW stream_ckpt.queries WITH (security_barrier) AS
SELECT q.relid AS query, q.definition, q.source AS stream, p.pipeline,
	CASE WHEN f.status = 'lost' THEN 'lost'
		 WHEN q.paused THEN 'paused'
		 WHEN f.status = 'accepted' THEN 'restarting'
		 WHEN f.status = 'failed' OR p.status = 'running' AND f.status IS NOT NULL THEN f.status
		 WHEN p.status = 'running' AND n.lsn > p.decoded_lsn THEN 'catching up'
		 ELSE p.status END AS status,
	COALESCE(f.message, p.message) AS message, q.emit,
	o.max_event_time - st.watermark_delay AS watermark, n.lsn, n.checkpoint_id,
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
LEFT JOIN stream_ckpt.query_position n USING (query_id)
LEFT JOIN stream_ckpt.query_failure f USING (query_id)
LEFT JOIN stream_ckpt.any_stream st ON st.relid = q.source
LEFT JOIN stream_ckpt.pipelines p USING (pipeline_id)
LEFT JOIN pg_catalog.pg_class c ON c.oid = q.definition
WHERE pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') OR pg_catalog.pg_has_role(c.relowner, 'USAGE');
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
