-- session(): no plain function; what a definition with sessions may hold, and how it is explained.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA sessions;
SET search_path = sessions, public;
CREATE TABLE clicks (ts timestamptz, user_id bigint, url text, ms int);
CREATE TABLE local (at timestamp, k int);
SELECT stream_ckpt.attach_stream('clicks', event_time => 'ts');
SELECT stream_ckpt.attach_stream('local', event_time => 'at');
RESET client_min_messages;
\set SHOW_CONTEXT never

SELECT * FROM stream_ckpt.session('2024-02-29 12:34:56+00'::timestamptz, '5 minutes');
SELECT stream_ckpt.session('2024-02-29 12:34:56'::timestamp, '5 minutes');
SELECT * FROM clicks, stream_ckpt.session(ts, '5 minutes') w;

-- Tries a definition; what is accepted is dropped again.
CREATE FUNCTION try(definition text, emit text = NULL, lateness interval = '0') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stream_ckpt.create_query('tried', definition, emit => emit, allowed_lateness => lateness);
	DROP TABLE tried;
	RETURN 'accepted';
END $$;

-- accepted
SELECT try('SELECT w.window_start, w.window_end, w.window_time, user_id, count(*) FROM clicks, stream_ckpt.session(ts, ''30 s'') w GROUP BY 1, 2, 3, 4');
SELECT try('SELECT w.window_start, count(*) FROM clicks JOIN stream_ckpt.session(gap => ''1 day 00:00:00.5'', ts => ts) w ON ms > 5 WHERE url ~ ''x'' GROUP BY 1 HAVING w.window_start > ''2024-01-01''', 'update');
SELECT try('SELECT k + 1 AS k, w.window_end, max(w2.at) FROM local w2, stream_ckpt.session(at, ''1 us'') w GROUP BY k, w.window_start, w.window_end');
SELECT try('SELECT w.window_start, l AS r, count(*) FROM local l, stream_ckpt.session(at, ''1 s'') w GROUP BY 1, 2');

-- refused
SELECT try('SELECT w.window_end, user_id, count(*) FROM clicks, stream_ckpt.session(ts, ''30 s'') w GROUP BY 1, 2');
SELECT try('SELECT user_id, count(*) FROM clicks, stream_ckpt.session(ts, ''30 s'') w GROUP BY 1');
SELECT try('SELECT count(*) FROM clicks, stream_ckpt.session(ts, ''30 s'') w');
SELECT try('SELECT url FROM clicks, stream_ckpt.session(ts, ''30 s'') w');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.session(ts, ''1 month'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.session(ts, ''0'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.session(ts, NULL) w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.session(ts, ms * interval ''1 s'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.session(now(), ''1 s'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.session(ts, ''1 s'') w WHERE w.window_end > ''2024-01-01'' GROUP BY 1');
SELECT try('SELECT w.window_start, max(w.window_end - ts) AS since FROM clicks, stream_ckpt.session(ts, ''1 s'') w GROUP BY 1');
SELECT try('SELECT w.window_start, date_trunc(''day'', w.window_end) AS d, count(*) FROM clicks, stream_ckpt.session(ts, ''1 s'') w GROUP BY 1, 2');
SELECT try('SELECT w.window_end, user_id, count(*) FROM clicks, stream_ckpt.session(ts, ''1 s'') w GROUP BY w.window_start, w.window_end, user_id', 'update');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.session(ts, ''1 s'') w GROUP BY w.window_start, user_id', 'close', '1 minute');
SELECT try('SELECT w.window_start, l AS r, count(*) FROM local l, stream_ckpt.session(at, ''1 s'') w GROUP BY 1, 2', 'update');
SELECT try('SELECT w.window_start, user_id, count(*), rank() OVER (PARTITION BY w.window_start ORDER BY count(*)) FROM clicks, stream_ckpt.session(ts, ''1 s'') w GROUP BY 1, 2');
SELECT try('SELECT DISTINCT ON (user_id) user_id, w.window_start, url FROM clicks, stream_ckpt.session(ts, ''1 s'') w ORDER BY user_id, ms');
SELECT try('SELECT * FROM (SELECT user_id, w.window_start, url, row_number() OVER (PARTITION BY user_id, w.window_start ORDER BY ms) AS n FROM clicks, stream_ckpt.session(ts, ''1 s'') w) x WHERE n <= 3');

SELECT * FROM stream_ckpt.explain_query($$
  SELECT w.window_start, w.window_end, user_id, count(*) AS clicks, avg(ms) AS ms, array_agg(url) AS urls
  FROM clicks, stream_ckpt.session(ts, '30 minutes') w GROUP BY 1, 2, 3
$$);

SET client_min_messages = warning;
DROP SCHEMA sessions CASCADE;
