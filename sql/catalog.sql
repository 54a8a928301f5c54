-- Attaching, creating, dropping: what the catalogs hold, and who may.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA cat;
SET search_path = cat, public;
CREATE TABLE orders (id int, created_at timestamptz, at_local timestamp, price numeric, day date);
SELECT stream_ckpt.attach_stream('orders', event_time => 'created_at', watermark_delay => '2 seconds');
RESET client_min_messages;

CREATE VIEW registered AS
SELECT relid, definition, source, emit, preexisting_rows FROM stream_ckpt.query ORDER BY query_id;

-- what can't be attached
CREATE TEMP TABLE temporary (ts timestamptz);
CREATE UNLOGGED TABLE unlogged (ts timestamptz);
CREATE VIEW a_view AS SELECT now() AS ts;
CREATE TABLE parent (ts timestamptz);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE forced (ts timestamptz);
ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE mixed (ts timestamptz, k int) PARTITION BY LIST (k);
CREATE UNLOGGED TABLE mixed_1 PARTITION OF mixed FOR VALUES IN (1);
SELECT stream_ckpt.attach_stream('orders', event_time => 'created_at');
SELECT stream_ckpt.attach_stream('temporary', event_time => 'ts');
SELECT stream_ckpt.attach_stream('unlogged', event_time => 'ts');
SELECT stream_ckpt.attach_stream('a_view', event_time => 'ts');
SELECT stream_ckpt.attach_stream('parent', event_time => 'ts');
SELECT stream_ckpt.attach_stream('child', event_time => 'ts');
SELECT stream_ckpt.attach_stream('mixed', event_time => 'ts');
SELECT stream_ckpt.attach_stream('pg_catalog.pg_class');
SELECT stream_ckpt.attach_stream('stream_ckpt.checkpoint', event_time => 'triggered_at');
SELECT stream_ckpt.attach_stream(NULL);
SELECT stream_ckpt.attach_stream('a_sequence');
CREATE TABLE t (ts timestamptz, day date);
SELECT stream_ckpt.attach_stream('t', event_time => 'nothing');
SELECT stream_ckpt.attach_stream('t', event_time => 'day');
SELECT stream_ckpt.attach_stream('t', event_time => 'ts', watermark_delay => '-1 s');
SELECT stream_ckpt.attach_stream('t', event_time => 'ts', watermark_delay => '1 month');
SELECT stream_ckpt.attach_stream('t', event_time => 'ts', watermark_delay => NULL);

-- nothing inherits from a stream; partitions do, and tables that are no streams
CREATE TABLE orders_child () INHERITS (orders);
CREATE TEMP TABLE orders_child () INHERITS (parent, orders);
CREATE TABLE orders_child (LIKE orders);
ALTER TABLE orders_child INHERIT orders;
CREATE FOREIGN TABLE orders_log () INHERITS (orders) SERVER stream_ckpt;
CREATE FOREIGN TABLE a_log (ts timestamptz) SERVER stream_ckpt;
CREATE TABLE log_child () INHERITS (a_log);
CREATE FOREIGN TABLE log_child () INHERITS (parent) SERVER stream_ckpt;
SELECT inhrelid::regclass, inhparent::regclass FROM pg_inherits WHERE inhparent IN ('orders'::regclass, 'a_log'::regclass);
CREATE TEMP TABLE attached AS SELECT * FROM stream_ckpt.stream WHERE relid = 'orders'::regclass;
SELECT stream_ckpt.detach_stream('orders');
ALTER TABLE orders_child INHERIT orders;
SELECT stream_ckpt.attach_stream('orders', event_time => 'created_at', watermark_delay => '2 seconds');
-- a stream that has one, as 0.1.0 allowed, may lose it
INSERT INTO stream_ckpt.stream SELECT * FROM attached;
ALTER TABLE orders_child NO INHERIT orders;
SELECT inhrelid::regclass, inhparent::regclass FROM pg_inherits WHERE inhparent IN ('orders'::regclass, 'a_log'::regclass);
DROP TABLE orders_child;
DROP FOREIGN TABLE a_log;
DROP FOREIGN TABLE log_child;

-- partitioned tables and leaves can
CREATE TABLE parted (ts timestamptz, k int) PARTITION BY LIST (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
SELECT stream_ckpt.attach_stream('parted', event_time => 'ts');
SELECT stream, event_time, watermark_delay, queries FROM stream_ckpt.streams ORDER BY stream::text;

-- creating makes a view, a table with a key, and the entry
SELECT stream_ckpt.create_query('per_minute', $$
  SELECT w.window_start, w.window_end, id, count(*) AS orders, sum(price) AS price
  FROM orders, stream_ckpt.tumble(created_at, '1 minute') w
  GROUP BY w.window_start, w.window_end, id
$$);
SELECT stream_ckpt.create_query('cat."Weird ""name"""', 'SELECT window_end AS "The End", lower(id::text) AS "K", count(*) FROM orders CROSS JOIN stream_ckpt.tumble(created_at, ''1 h'') GROUP BY 1, 2; -- a comment', emit => 'update');
SELECT stream_ckpt.create_query('keyless', 'SELECT count(*) FROM orders, stream_ckpt.tumble(created_at, ''1 h'') GROUP BY window_start, id');
\d per_minute
\d "Weird ""name"""
\d keyless
SELECT pg_get_viewdef('per_minute_definition');
SELECT * FROM registered;
INSERT INTO orders (id, created_at) VALUES (1, '2024-01-01');
SELECT stream_ckpt.create_query('later', 'SELECT window_start, count(*) FROM orders, stream_ckpt.tumble(created_at, ''1 h'') GROUP BY 1', backfill => false);
SELECT preexisting_rows FROM registered WHERE relid = 'later'::regclass;
SELECT settings[1] FROM stream_ckpt.query WHERE relid = 'later'::regclass;
SELECT * FROM per_minute_definition;

-- names
SELECT stream_ckpt.create_query('later', 'SELECT window_start, count(*) FROM orders, stream_ckpt.tumble(created_at, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.create_query(repeat('x', 60), 'SELECT window_start, count(*) FROM orders, stream_ckpt.tumble(created_at, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.create_query('pg_temp.t', 'SELECT window_start, count(*) FROM orders, stream_ckpt.tumble(created_at, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.create_query('nowhere.t', 'SELECT window_start, count(*) FROM orders, stream_ckpt.tumble(created_at, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.create_query('twice', 'SELECT window_start, count(*), count(*) FROM orders, stream_ckpt.tumble(created_at, ''1 h'') GROUP BY 1');

-- a renamed event-time column stays the event time
ALTER TABLE orders RENAME created_at TO made_at;
SELECT stream_ckpt.create_query('renamed', 'SELECT window_start, count(*) FROM orders, stream_ckpt.tumble(made_at, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.create_query('wrong', 'SELECT window_start, count(*) FROM orders, stream_ckpt.tumble(at_local, ''1 h'') GROUP BY 1');

-- verify says why it can't tell
SELECT stream_ckpt.verify('later');
SELECT stream_ckpt.verify('per_minute');
SELECT stream_ckpt.verify('orders');

-- dropping any part drops the query
SELECT stream_ckpt.detach_stream('orders');
DROP TABLE orders;
SELECT stream_ckpt.drop_query('orders');
SELECT stream_ckpt.drop_query('renamed');
SELECT stream_ckpt.drop_query('later_definition', keep_result => true);
DROP TABLE per_minute;
DROP VIEW "Weird ""name""_definition";
SELECT * FROM registered;
SELECT relname, relkind FROM pg_class WHERE relnamespace = 'cat'::regnamespace AND relkind IN ('r', 'v') AND relname ~ 'per_minute|Weird|keyless|later|renamed' ORDER BY relname;
BEGIN;
DROP TABLE keyless;
ROLLBACK;
SELECT * FROM registered;
SET client_min_messages = warning;
DROP TABLE orders CASCADE;
RESET client_min_messages;
SELECT * FROM registered;
SELECT stream FROM stream_ckpt.streams ORDER BY stream::text;
SELECT stream_ckpt.detach_stream('parted');
SELECT stream_ckpt.detach_stream('parted');

-- pipelines
SELECT stream_ckpt.create_pipeline('other', checkpoint_interval => '100 ms');
SELECT stream_ckpt.create_pipeline('other');
SELECT stream_ckpt.create_pipeline('fast', checkpoint_interval => '1 ms');
SELECT stream_ckpt.create_pipeline('wide', parallelism => 17);
SELECT stream_ckpt.create_pipeline('wide', parallelism => 0);
SELECT stream_ckpt.create_pipeline('files', state_backend => 'file');
SELECT stream_ckpt.create_pipeline('files', state_backend => 'stone');
SELECT stream_ckpt.alter_pipeline('other', checkpoint_interval => '1 month');
SELECT stream_ckpt.alter_pipeline('other', checkpoint_interval => '2 hours');
SELECT stream_ckpt.stop_pipeline('other');
SELECT pipeline, parallelism, checkpoint_interval, state_backend FROM stream_ckpt.pipelines WHERE pipeline = 'other';
SELECT stream_ckpt.drop_pipeline('default');
SELECT stream_ckpt.drop_pipeline('other');
SELECT stream_ckpt.drop_pipeline('other');

-- ordinary users: their own tables, their own queries, nobody else's
CREATE ROLE regress_sc_alice;
CREATE ROLE regress_sc_bob;
GRANT USAGE, CREATE ON SCHEMA cat TO regress_sc_alice, regress_sc_bob;
SET ROLE regress_sc_alice;
CREATE TABLE alices (ts timestamptz, k int, secret text);
SELECT stream_ckpt.attach_stream('alices', event_time => 'ts');
GRANT SELECT (ts, k) ON alices TO regress_sc_bob;
SELECT stream_ckpt.attach_stream('t', event_time => 'ts');
SELECT stream_ckpt.create_query('alices_result', 'SELECT window_start, count(*) FROM alices, stream_ckpt.tumble(ts, ''1 h'') GROUP BY 1');
SELECT count(*) FROM stream_ckpt.query;
SELECT query, stream FROM stream_ckpt.queries;
SELECT stream_ckpt.stop_pipeline('default');
SET ROLE regress_sc_bob;
SELECT stream_ckpt.create_query('bobs_secret', 'SELECT window_start, max(secret) FROM alices, stream_ckpt.tumble(ts, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.create_query('bobs_result', 'SELECT window_start, k, count(*) FROM alices, stream_ckpt.tumble(ts, ''1 h'') GROUP BY 1, 2');
SELECT stream_ckpt.drop_query('alices_result');
SELECT stream_ckpt.detach_stream('alices');
SELECT stream_ckpt.drop_query('bobs_result');
SET ROLE regress_sc_alice;
ALTER TABLE alices ENABLE ROW LEVEL SECURITY;
CREATE POLICY even ON alices USING (k % 2 = 0);
SET ROLE regress_sc_bob;
SELECT stream_ckpt.create_query('bobs_result', 'SELECT window_start, k, count(*) FROM alices, stream_ckpt.tumble(ts, ''1 h'') GROUP BY 1, 2');
-- nothing of a search_path of his own runs with other rights
CREATE FUNCTION mine(oid, oid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''trapped as %'', current_user; END';
CREATE OPERATOR = (leftarg = oid, rightarg = oid, procedure = mine);
SET search_path = cat, pg_catalog;
CREATE TABLE bobs (ts timestamptz);
SELECT stream_ckpt.attach_stream('bobs', event_time => 'ts');
SELECT stream_ckpt.create_query('bobs_result', 'SELECT window_start, count(*) FROM bobs, stream_ckpt.tumble(ts, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.drop_query('bobs_result');
SELECT stream_ckpt.detach_stream('bobs');
DROP TABLE bobs;
RESET ROLE;
RESET search_path;

SET client_min_messages = warning;
DROP SCHEMA cat CASCADE;
DROP OWNED BY regress_sc_alice, regress_sc_bob;
DROP ROLE regress_sc_alice, regress_sc_bob;
SELECT stream_ckpt.start_pipeline('default');
SELECT count(*) AS left FROM stream_ckpt.query;
SELECT count(*) AS left FROM stream_ckpt.stream;
-- what everybody sees of the extension: the columns of each view, and who may do what
SELECT c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'stream_ckpt'::regnamespace AND c.relkind = 'v'
GROUP BY c.relname ORDER BY c.relname COLLATE "C";
SELECT c.relname, c.relkind, string_agg(DISTINCT g.privilege_type, ', ') AS everybody
FROM pg_class c LEFT JOIN LATERAL aclexplode(c.relacl) g ON g.grantee = 0
WHERE c.relnamespace = 'stream_ckpt'::regnamespace AND c.relkind IN ('r', 'v', 'S')
GROUP BY c.relname, c.relkind ORDER BY c.relname COLLATE "C";
SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.prosecdef AS definer,
	has_function_privilege('public', p.oid, 'EXECUTE') AS everybody
FROM pg_proc p WHERE p.pronamespace = 'stream_ckpt'::regnamespace ORDER BY p.proname COLLATE "C", pg_get_function_identity_arguments(p.oid) COLLATE "C";
