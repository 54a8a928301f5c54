-- Streams whose event time is the time of the commit: their options, and what definitions over them may hold.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA processing;
SET search_path = processing, public;
CREATE TABLE clicks (ts timestamptz, user_id bigint, url text, ms int);
CREATE TABLE orders (ts timestamptz, id int);
CREATE TABLE plain (ts timestamptz, id int);
RESET client_min_messages;
\set SHOW_CONTEXT never

-- options
SELECT stream_ckpt.attach_stream('clicks', event_time => 'ts', processing_time => true);
SELECT stream_ckpt.attach_stream('clicks', processing_time => true, idle_timeout => '1 s');
SELECT stream_ckpt.attach_stream('clicks', processing_time => NULL);
SET client_min_messages = warning;
SELECT stream_ckpt.attach_stream('clicks', processing_time => true, watermark_delay => '1 s');
SELECT stream_ckpt.attach_stream('orders', event_time => 'ts');
SELECT stream_ckpt.attach_stream('plain');
RESET client_min_messages;
SELECT stream_ckpt.create_stream('taps', 'id int', processing_time => true, idle_timeout => '1 s');
SELECT stream_ckpt.create_stream('taps', 'id int, at timestamptz', 'at', processing_time => true);
SELECT stream_ckpt.create_stream('taps', 'id int, at timestamptz', processing_time => true);
ALTER FOREIGN TABLE taps OPTIONS (ADD event_time 'at');
ALTER FOREIGN TABLE taps OPTIONS (ADD max_ahead '1 day');
ALTER FOREIGN TABLE taps OPTIONS (SET processing_time 'maybe');
ALTER FOREIGN TABLE taps OPTIONS (ADD commit_time 'yes');
ALTER FOREIGN TABLE taps OPTIONS (SET processing_time 'false', ADD event_time 'at');
ALTER FOREIGN TABLE taps OPTIONS (SET processing_time 'on', DROP event_time);
SELECT stream_ckpt.alter_stream('clicks', idle_timeout => '1 s');
SELECT stream_ckpt.alter_stream('clicks', max_ahead => NULL);
SELECT stream_ckpt.alter_stream('taps', idle_timeout => NULL);
SELECT stream_ckpt.alter_stream('clicks', watermark_delay => '5 s');
SELECT stream_ckpt.alter_stream('taps', watermark_delay => '2 s');
SELECT stream, event_time, watermark_delay, idle_timeout, max_ahead, processing_time FROM stream_ckpt.streams
WHERE stream IN ('clicks'::regclass, 'orders'::regclass, 'taps'::regclass) ORDER BY stream::text;
SELECT idle_timeout IS NULL AND max_ahead IS NULL AS unset FROM stream_ckpt.stream WHERE relid = 'clicks'::regclass;

-- as a plain function
SELECT stream_ckpt.commit_time(xmin) FROM pg_class LIMIT 1;
SELECT stream_ckpt.commit_time(NULL);

-- Tries a definition; what is accepted is dropped again.
CREATE FUNCTION try(definition text, emit text = NULL, ttl interval = NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stream_ckpt.create_query('tried', definition, emit => emit, ttl => ttl);
	DROP TABLE tried;
	RETURN 'accepted';
END $$;

-- accepted
SELECT try('SELECT w.window_start, user_id, count(*) FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 minute'') w GROUP BY 1, 2');
SELECT try('SELECT w.window_start, count(*) FROM clicks c JOIN LATERAL stream_ckpt.hop(slide => ''1 minute'', size => ''5 minutes'', ts => stream_ckpt.commit_time(xmin => c.xmin)) w ON c.ms > 5 GROUP BY 1', 'update');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(clicks.xmin), ''1 month'', timezone => ''Europe/Berlin'') w GROUP BY 1');
SELECT try('SELECT w.window_end, count(*) FROM taps, stream_ckpt.cumulate(stream_ckpt.commit_time(xmin), ''1 minute'', ''1 hour'') w GROUP BY 1');
SELECT try('SELECT w.window_start, w.window_end, user_id, count(*) FROM clicks, stream_ckpt.session(stream_ckpt.commit_time(xmin), ''30 s'') w GROUP BY 1, 2, 3');
SELECT try('SELECT w.window_start, url FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 minute'') w');
SELECT try('SELECT url, count(*) FROM clicks GROUP BY 1', ttl => '1 hour');
SELECT try('SELECT * FROM (SELECT w.window_start, url, count(*) AS n, rank() OVER (PARTITION BY w.window_start ORDER BY count(*) DESC) AS r FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 minute'') w GROUP BY 1, 2) x WHERE r <= 3');

-- refused
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmax), ''1 minute'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(''5''::xid), ''1 minute'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmin) + interval ''1 s'', ''1 minute'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(pg_xact_commit_timestamp(xmin), ''1 minute'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(stream_ckpt.commit_time(xmin)) AS last FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 minute'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 minute'') w WHERE xmin IS NOT NULL GROUP BY 1');
SELECT try('SELECT url FROM clicks WHERE stream_ckpt.commit_time(xmin) > ''2024-01-01''');
SELECT try('SELECT date_trunc(''minute'', stream_ckpt.commit_time(xmin)) AS minute, count(*) FROM clicks GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 month'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM orders, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 minute'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM plain, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 minute'') w GROUP BY 1');

SELECT * FROM stream_ckpt.explain_query($$
  SELECT w.window_start, user_id, count(*) AS clicks
  FROM clicks, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), '1 minute') w GROUP BY 1, 2
$$);

-- Queries that read a log stream keep its event time.
SELECT stream_ckpt.create_query('tap_counts', 'SELECT w.window_start, count(*) FROM taps, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), ''1 minute'') w GROUP BY 1');
ALTER FOREIGN TABLE taps OPTIONS (DROP processing_time);
ALTER FOREIGN TABLE taps OPTIONS (SET watermark_delay '3 s');

SET client_min_messages = warning;
DROP SCHEMA processing CASCADE;
