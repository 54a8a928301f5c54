-- Options about time: what is refused, and what the catalogs hold.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA timing;
SET search_path = timing, public;
CREATE TABLE events (ts timestamptz, k int, v int);
SELECT stream_ckpt.attach_stream('events', event_time => 'ts');
RESET client_min_messages;
\set minute 'FROM events, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start, k'
\set full 'SELECT w.window_start, k, count(*) ' :minute

-- allowed_lateness
SELECT stream_ckpt.create_query('q', :'full', allowed_lateness => NULL);
SELECT stream_ckpt.create_query('q', :'full', allowed_lateness => '-1 s');
SELECT stream_ckpt.create_query('q', :'full', allowed_lateness => '1 month');
SELECT stream_ckpt.create_query('q', 'SELECT k, count(*) FROM events, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start, k', allowed_lateness => '1 s');
SELECT stream_ckpt.create_query('q', 'SELECT w.window_end, count(*) FROM events, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_end, k', allowed_lateness => '1 s');
SELECT stream_ckpt.create_query('q', :'full', allowed_lateness => '1 hour');
SELECT stream_ckpt.create_query('u', :'full', allowed_lateness => '1 day', emit => 'update');
SELECT relid, emit, allowed_lateness FROM stream_ckpt.query WHERE source = 'events'::regclass ORDER BY relid::text;
\d q
DROP TABLE q;
DROP TABLE u;

-- keep_late_rows
SELECT stream_ckpt.create_query('q', :'full', keep_late_rows => NULL);
SELECT stream_ckpt.create_query('q', :'full', keep_late_rows => true);
SELECT keep_late_rows FROM stream_ckpt.query WHERE relid = 'q'::regclass;
\d stream_ckpt.late_rows
DROP TABLE q;

-- idle_timeout
CREATE TABLE idle (ts timestamptz, k int);
SELECT stream_ckpt.attach_stream('idle', event_time => 'ts', idle_timeout => '0');
SELECT stream_ckpt.attach_stream('idle', event_time => 'ts', idle_timeout => '-1 s');
SELECT stream_ckpt.attach_stream('idle', event_time => 'ts', idle_timeout => '1 month');
SELECT stream_ckpt.attach_stream('idle', idle_timeout => '1 s');
SELECT stream_ckpt.attach_stream('idle', event_time => 'ts', idle_timeout => '90 s');
SELECT stream, watermark_delay, idle_timeout FROM stream_ckpt.streams WHERE stream IN ('idle'::regclass, 'events'::regclass) ORDER BY stream::text;

SET client_min_messages = warning;
SELECT stream_ckpt.start_pipeline('default');
DROP SCHEMA timing CASCADE;
SELECT count(*) AS left FROM stream_ckpt.query;
SELECT count(*) AS left FROM stream_ckpt.stream;
