--
-- explain_query(): what becomes of a definition, and of a query that is there.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
RESET client_min_messages;
SET timezone = 'UTC';
SET intervalstyle = 'postgres';
\pset tuples_only on
\pset format unaligned
CREATE TABLE x (ts timestamptz, k int, t text, v numeric);
SELECT stream_ckpt.attach_stream('x', event_time => 'ts', watermark_delay => '5 seconds');

SELECT * FROM stream_ckpt.explain_query('SELECT w.window_start, k, count(*) AS n, sum(v) AS total, avg(v) AS mean FROM x, stream_ckpt.tumble(ts, ''1 minute'') w WHERE v > 0 AND t <> ''no'' GROUP BY 1, 2');
SELECT * FROM stream_ckpt.explain_query('SELECT w.window_start, w.window_end, lower(t) AS name, count(DISTINCT k) AS ks, percentile_cont(0.5) WITHIN GROUP (ORDER BY v::float8) AS median, array_agg(k) AS all_k
	FROM x, stream_ckpt.hop(ts, ''1 minute'', ''10 minutes'') w GROUP BY 1, 2, 3 HAVING count(*) > 3', allowed_lateness => '1 hour');
SELECT * FROM stream_ckpt.explain_query('SELECT w.window_end, max(v) FROM x, stream_ckpt.cumulate(ts, ''1 hour'', ''1 day'') w GROUP BY 1');
SELECT * FROM stream_ckpt.explain_query('SELECT date_trunc(''day'', ts, ''Europe/Berlin'') AS day, variance(v), stddev(v) FROM x GROUP BY 1', emit => 'update');
SELECT * FROM stream_ckpt.explain_query('SELECT k, count(*) FROM x GROUP BY k');
SELECT * FROM stream_ckpt.explain_query('SELECT count(*) FROM x');
SELECT * FROM stream_ckpt.explain_query('SELECT * FROM (SELECT w.window_start, k, count(*) AS n, rank() OVER (PARTITION BY w.window_start ORDER BY count(*) DESC) AS place FROM x, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY 1, 2) r WHERE place <= 3') line WHERE line !~ 'WindowAgg|Run Condition|  Window:|->|Sort Key';
SELECT * FROM stream_ckpt.explain_query('SELECT w.window_start, t FROM x, stream_ckpt.hop(ts, ''1 minute'', ''2 minutes'') w');
SELECT * FROM stream_ckpt.explain_query('SELECT ts, upper(t) AS name FROM x WHERE k > 5');

-- refused as create_query() refuses it, and nothing is left
SELECT * FROM stream_ckpt.explain_query('SELECT k, count(*) FROM x GROUP BY k', emit => 'close');
SELECT * FROM stream_ckpt.explain_query('SELECT k, count(*) FROM x GROUP BY k ORDER BY k');
SELECT * FROM stream_ckpt.explain_query('SELECT nothing FROM x');
SELECT * FROM stream_ckpt.explain_query('SELECT count(*) FROM x', parallelism => 2);
SELECT * FROM stream_ckpt.explain_query('x');
SELECT * FROM stream_ckpt.explain_query('no_such_thing');
SELECT * FROM stream_ckpt.explain_query(NULL);
SELECT count(*) FROM stream_ckpt.query;

-- a query that is there
SELECT stream_ckpt.create_query('x_per_hour', 'SELECT w.window_start, count(*) AS n FROM x, stream_ckpt.tumble(ts, ''1 hour'') w GROUP BY 1', allowed_lateness => '2 hours');
SELECT * FROM stream_ckpt.explain_query('x_per_hour');
SELECT * FROM stream_ckpt.explain_query('public.x_per_hour');
CREATE ROLE explain_other;
GRANT USAGE ON SCHEMA stream_ckpt TO explain_other;
SET ROLE explain_other;
SELECT * FROM stream_ckpt.explain_query('x_per_hour');
SELECT * FROM stream_ckpt.explain_query('SELECT count(*) FROM x');
RESET ROLE;
DROP OWNED BY explain_other;
DROP ROLE explain_other;
SELECT stream_ckpt.drop_query('x_per_hour');
SELECT stream_ckpt.detach_stream('x');
DROP TABLE x;
RESET timezone;
RESET intervalstyle;
