-- Log streams: foreign tables whose rows are in the WAL only.  What they take, what they
-- refuse, and who may.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA logs;
SET search_path = logs, public;
SET timezone = 'UTC';
SELECT stream_ckpt.create_stream('first', 'ts timestamptz');
SELECT stream_ckpt.drop_stream('first');
RESET client_min_messages;

-- making them
SELECT stream_ckpt.create_stream('clicks', 'id bigint GENERATED ALWAYS AS IDENTITY, ts timestamptz NOT NULL,
	url text DEFAULT ''/'', ms int CHECK (ms >= 0), twice int GENERATED ALWAYS AS (ms * 2) STORED',
	event_time => 'ts', watermark_delay => '2.5 seconds', idle_timeout => '1 day 1 hour');
\d clicks
SELECT stream_ckpt.create_stream('logs."Weird ""name"""', '"The Time" timestamp', 'The Time');
CREATE FOREIGN TABLE plain (ts timestamptz, k int) SERVER stream_ckpt;
SELECT stream, kind, event_time, watermark_delay, idle_timeout, queries FROM stream_ckpt.streams
WHERE stream::text !~ '^(cat\.|public\.)' ORDER BY stream::text;

-- what can't be made
SELECT stream_ckpt.create_stream('clicks', 'ts timestamptz');
SELECT stream_ckpt.create_stream(NULL, 'ts timestamptz');
SELECT stream_ckpt.create_stream('s', NULL);
SELECT stream_ckpt.create_stream('s', 'ts timestamptz', 'nothing');
SELECT stream_ckpt.create_stream('s', 'ts date', 'ts');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz', 'ctid');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz', 'ts', watermark_delay => '1 month');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz', 'ts', watermark_delay => '-1 s');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz', 'ts', idle_timeout => '0');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz) SERVER stream_ckpt; DROP FOREIGN TABLE clicks; --');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz) SERVER other --');
SELECT stream_ckpt.create_stream('s', 'ts');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz) SERVER other; SELECT (1');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz) SERVER stream_ckpt; CREATE FOREIGN TABLE t (ts timestamptz');
SELECT stream_ckpt.create_stream('s', 'ts timestamptz PRIMARY KEY');
SELECT stream_ckpt.create_stream('nowhere.s', 'ts timestamptz');
SELECT stream_ckpt.create_stream('pg_temp.s', 'ts timestamptz');
SELECT stream_ckpt.create_stream('a.b.c.d', 'ts timestamptz');
CREATE FOREIGN TABLE s (ts timestamptz) SERVER stream_ckpt OPTIONS (event_tim 'ts');
CREATE FOREIGN TABLE s (ts timestamptz) SERVER stream_ckpt OPTIONS (event_time '');
CREATE FOREIGN TABLE s (ts timestamptz) SERVER stream_ckpt OPTIONS (watermark_delay 'soon');
CREATE FOREIGN TABLE s (ts timestamptz) SERVER stream_ckpt OPTIONS (watermark_delay '1 year');
CREATE FOREIGN TABLE s (ts timestamptz) SERVER stream_ckpt OPTIONS (idle_timeout '0 s');
CREATE FOREIGN TABLE s (ts timestamptz OPTIONS (event_time 'yes')) SERVER stream_ckpt;
ALTER SERVER stream_ckpt OPTIONS (event_time 'ts');
ALTER FOREIGN TABLE plain OPTIONS (ADD watermark_delay '-1 s');

-- without a query rows are taken and not kept; one notice for each stream
INSERT INTO clicks (ts, ms) VALUES ('2024-01-01', 1) RETURNING *;
INSERT INTO clicks (ts, ms) VALUES ('2024-01-01', 1);
INSERT INTO plain VALUES (NULL, 1);
COPY plain FROM stdin;
2024-01-01	1
\.

-- a query on it
SELECT stream_ckpt.create_query('per_url', $$
	SELECT window_start, url, count(*) AS n, sum(ms) AS ms, sum(twice) AS twice, max(id) AS id
	FROM clicks, stream_ckpt.tumble(ts, '1 minute') GROUP BY 1, 2 $$, emit => 'update');
SELECT pg_get_viewdef('per_url_definition');
SELECT preexisting_rows FROM stream_ckpt.query WHERE relid = 'per_url'::regclass;
SELECT stream_ckpt.create_query('wrong', 'SELECT count(*) FROM plain, stream_ckpt.tumble(ts, ''1 h'') GROUP BY window_start');
ALTER FOREIGN TABLE plain OPTIONS (ADD event_time 'nothing');
SELECT stream_ckpt.create_query('wrong', 'SELECT count(*) FROM plain, stream_ckpt.tumble(ts, ''1 h'') GROUP BY window_start');
INSERT INTO plain VALUES (now(), 1);
ALTER FOREIGN TABLE plain OPTIONS (SET event_time 'k');
INSERT INTO plain VALUES (now(), 1);
ALTER FOREIGN TABLE plain OPTIONS (SET event_time 'ts');

-- every kind of insertion
INSERT INTO clicks (ts, url, ms) VALUES ('2024-01-01 00:00:00', 'a', 1), ('2024-01-01 00:00:01', 'b', 2) RETURNING id, ts, url, twice, tableoid::regclass;
INSERT INTO clicks (ts, url, ms) SELECT timestamptz '2024-01-01 00:01' + i * interval '1 s', 'u' || i % 3, i FROM generate_series(1, 100) i;
PREPARE ins (timestamptz, text) AS INSERT INTO clicks (ts, url) VALUES ($1, $2) RETURNING id;
EXECUTE ins ('2024-01-01 00:00:02', 'p');
EXECUTE ins ('2024-01-01 00:00:02', NULL);
COPY clicks (ts, ms) FROM stdin;
2024-01-01 00:05:00	7
2024-01-01 00:05:01	\N
\.
WITH x AS (INSERT INTO clicks (ts, url, ms) VALUES ('2024-01-01 00:06:00', 'cte', 5) RETURNING *) SELECT id, url, ms, twice FROM x;
INSERT INTO clicks (ts, url, ms) OVERRIDING SYSTEM VALUE SELECT now(), 'none', 1 WHERE false;
EXPLAIN (COSTS OFF) INSERT INTO clicks (ts) VALUES ('2024-01-01');
EXPLAIN (COSTS OFF) SELECT * FROM clicks WHERE ms = 1;
CREATE VIEW slow AS SELECT id, ts, url, ms FROM clicks WHERE ms > 100 WITH CHECK OPTION;
INSERT INTO slow (ts, url, ms) VALUES ('2024-01-01 00:07:00', 'view', 101);
INSERT INTO slow (ts, url, ms) VALUES ('2024-01-01 00:07:00', 'view', 1);

-- what is refused
INSERT INTO clicks (ts) VALUES (NULL);
INSERT INTO clicks (ts, ms) VALUES ('2024-01-01', 1), ('2024-01-01', -1);
COPY clicks (ts, ms) FROM stdin;
2024-01-01 00:08:00	7
\N	7
\.
COPY clicks (ts, ms) FROM stdin;
2024-01-01 00:08:00	7
2024-01-01 00:08:00	-7
\.
SELECT * FROM clicks;
SELECT count(*) FROM per_url_definition;
SELECT * FROM clicks LIMIT 0;
COPY clicks TO stdout;
COPY (TABLE clicks) TO stdout;
UPDATE clicks SET ms = 1;
DELETE FROM clicks WHERE id = 1;
TRUNCATE clicks;
INSERT INTO clicks (ts) VALUES ('2024-01-01') ON CONFLICT DO NOTHING;
INSERT INTO clicks (ts) VALUES ('2024-01-01') ON CONFLICT (id) DO UPDATE SET ms = 1;
SELECT * FROM clicks FOR UPDATE;
SELECT stream_ckpt.attach_stream('clicks', 'ts');
SELECT stream_ckpt.detach_stream('clicks');
SELECT stream_ckpt.drop_stream('clicks');
SELECT stream_ckpt.drop_stream('per_url');
DROP FOREIGN TABLE clicks;

-- triggers
CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.url = 'skip' THEN RETURN NULL; END IF;
	NEW.url := NEW.url || '!';
	RETURN NEW;
END $$;
CREATE TABLE seen (id bigint, url text, twice int);
CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES (NEW.id, NEW.url, NEW.twice);
	RETURN NULL;
END $$;
CREATE TRIGGER b BEFORE INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION before_row();
CREATE TRIGGER a AFTER INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION after_row();
INSERT INTO clicks (ts, url, ms) VALUES ('2024-01-01 00:10:00', 'skip', 1), ('2024-01-01 00:10:00', 'go', 2) RETURNING url, twice;
COPY clicks (ts, url, ms) FROM stdin;
2024-01-01 00:10:01	skip	1
2024-01-01 00:10:01	copy	4
\.
SELECT url, twice FROM seen ORDER BY id;
DROP TRIGGER a ON clicks;
DROP TRIGGER b ON clicks;

-- the event time stays while a query reads it, and follows its column; other options hold from here on
ALTER FOREIGN TABLE clicks OPTIONS (SET event_time 'url');
ALTER FOREIGN TABLE clicks OPTIONS (SET watermark_delay '1 h');
ALTER FOREIGN TABLE clicks OPTIONS (DROP idle_timeout);
ALTER FOREIGN TABLE clicks RENAME ts TO at;
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'clicks'::regclass;
INSERT INTO clicks (at, url, ms) VALUES ('2024-01-01 00:15:00', 'renamed', 3);
ALTER TABLE clicks RENAME COLUMN url TO link;
ALTER TABLE clicks RENAME COLUMN link TO url;
ALTER TABLE clicks RENAME at TO ts;
ALTER FOREIGN TABLE clicks DROP COLUMN ts;
ALTER FOREIGN TABLE plain RENAME ts TO "At";
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'plain'::regclass;
ALTER FOREIGN TABLE plain RENAME "At" TO ts;
ALTER FOREIGN TABLE plain OPTIONS (ADD watermark_delay '1 h');

-- what a transaction leaves
BEGIN;
INSERT INTO clicks (ts, url, ms) VALUES ('2024-01-01 00:20:00', 'kept', 1);
SAVEPOINT s;
INSERT INTO clicks (ts, url, ms) VALUES ('2024-01-01 00:20:00', 'rolled back', 1);
ROLLBACK TO s;
INSERT INTO clicks (ts, url, ms) VALUES ('2024-01-01 00:20:01', 'kept', 2);
RELEASE s;
COMMIT;
BEGIN;
INSERT INTO clicks (ts, url, ms) VALUES ('2024-01-01 00:20:00', 'rolled back', 1);
ROLLBACK;
BEGIN;
INSERT INTO clicks (ts, url, ms) VALUES ('2024-01-01 00:20:02', 'prepared', 1);
PREPARE TRANSACTION 'log_stream';
COMMIT PREPARED 'log_stream';

-- partitions: rows belong to the attached root, however they came
CREATE TABLE root (ts timestamptz, k int, v int) PARTITION BY LIST (k);
CREATE TABLE root_1 PARTITION OF root FOR VALUES IN (1);
CREATE FOREIGN TABLE root_2 (v int, gone int, k int NOT NULL, ts timestamptz) SERVER stream_ckpt;
ALTER FOREIGN TABLE root_2 DROP COLUMN gone;
ALTER TABLE root ATTACH PARTITION root_2 FOR VALUES IN (2);
SELECT stream_ckpt.attach_stream('root', event_time => 'ts');
SELECT stream_ckpt.create_query('per_k', $$
	SELECT window_start, k, count(*) AS n, sum(v) AS v FROM root, stream_ckpt.tumble(ts, '1 minute') GROUP BY 1, 2 $$, emit => 'update');
SELECT preexisting_rows FROM stream_ckpt.query WHERE relid = 'per_k'::regclass;
INSERT INTO root SELECT timestamptz '2024-01-01' + i * interval '1 s', 1 + i % 2, i FROM generate_series(1, 10) i;
INSERT INTO root_2 (ts, k, v) VALUES ('2024-01-01 00:00:30', 2, 100);
INSERT INTO root_2 (ts, k, v) VALUES ('2024-01-01 00:00:30', 1, 100);
COPY root_2 (ts, k, v) FROM stdin;
2024-01-01 00:00:31	2	1000
\.
COPY root_2 (ts, k, v) FROM stdin;
2024-01-01 00:00:31	1	1000
\.
COPY root (ts, k, v) FROM stdin;
2024-01-01 00:00:32	2	10000
2024-01-01 00:00:32	1	10000
\.
INSERT INTO root VALUES ('2024-01-01 00:00:33', 2, 1) ON CONFLICT DO NOTHING;
UPDATE root SET k = 2, v = -1 WHERE k = 1 AND v = 2;
UPDATE root SET k = 1 WHERE k = 2;
MERGE INTO root USING (VALUES (2)) n (k) ON root.k = n.k WHEN NOT MATCHED THEN INSERT VALUES ('2024-01-01', n.k, 1);
SELECT count(*) FROM root;
SELECT count(*) FROM root WHERE k = 1;
UPDATE root SET v = 0;
DELETE FROM root;
TRUNCATE root;

-- generic plans, which prune the log stream only when they run
SET plan_cache_mode = force_generic_plan;
PREPARE upd (int) AS UPDATE root SET v = v + 1 WHERE k = $1 RETURNING k, v;
PREPARE mov (int, int) AS UPDATE root SET k = $2 WHERE k = $1 AND v = 11;
PREPARE del (int) AS DELETE FROM root WHERE k = $1 AND v = 9;
PREPARE sel (int) AS SELECT count(*) FROM root WHERE k = $1;
EXPLAIN (COSTS OFF) EXECUTE sel (1);
EXECUTE upd (1);
EXECUTE upd (2);
EXECUTE mov (1, 2);
EXECUTE mov (2, 1);
EXECUTE del (1);
EXECUTE del (2);
EXECUTE sel (1);
EXECUTE sel (2);
UPDATE root SET v = 0 FROM (SELECT 2 AS k WHERE false) none WHERE none.k = root.k;
-- so does the sixth execution in a function
RESET plan_cache_mode;
DO $$
DECLARE
	one int := 1;
BEGIN
	FOR i IN 1 .. 8 LOOP
		UPDATE root SET v = v + 1 WHERE k = one;
		DELETE FROM root WHERE k = one AND v > 1000;
	END LOOP;
END $$;
DEALLOCATE ALL;
SELECT v FROM root WHERE k = 1 ORDER BY v;
UPDATE root_2 SET v = 0;
DELETE FROM root_2;
SELECT table_name, is_insertable_into FROM information_schema.tables WHERE table_name IN ('clicks', 'root_2') ORDER BY 1;
SELECT pg_relation_is_updatable('clicks', false) AS clicks, pg_relation_is_updatable('root_2', false) AS partition;
SELECT stream_ckpt.create_query('per_2', $$
	SELECT window_start, count(*) AS n FROM root_2, stream_ckpt.tumble(ts, '1 minute') GROUP BY 1 $$);

-- the results
SET client_min_messages = warning;
SELECT stream_ckpt.start_pipeline('default');
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
RESET client_min_messages;
SELECT window_start, url, n, ms, twice FROM per_url ORDER BY window_start, url COLLATE "C";
SELECT * FROM per_k ORDER BY 1, 2;
SELECT stream_ckpt.verify('per_url');
SELECT stream_ckpt.verify('per_k');

-- a message with our prefix that isn't ours is nothing
SELECT pg_logical_emit_message(true, 'stream_ckpt/rows', 'x') IS NOT NULL AS logged;
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
SELECT status FROM stream_ckpt.pipelines WHERE pipeline = 'default';

-- privileges
CREATE ROLE regress_log_writer;
GRANT USAGE ON SCHEMA logs TO regress_log_writer;
SET ROLE regress_log_writer;
INSERT INTO clicks (ts) VALUES ('2024-01-01');
SELECT stream_ckpt.create_stream('logs.mine', 'ts timestamptz', 'ts');
SELECT stream_ckpt.drop_stream('clicks');
RESET ROLE;
GRANT INSERT ON clicks TO regress_log_writer;
GRANT CREATE ON SCHEMA logs TO regress_log_writer;
SET ROLE regress_log_writer;
INSERT INTO clicks (ts, url) VALUES ('2024-01-01 00:30', 'writer');
INSERT INTO clicks (ts, url) VALUES ('2024-01-01 00:30', 'writer') RETURNING id;
SELECT stream_ckpt.create_stream('logs.mine', 'ts timestamptz', 'ts');
SELECT stream_ckpt.create_query('logs.mine_q', 'SELECT window_start, count(*) FROM logs.mine, stream_ckpt.tumble(ts, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.create_query('logs.theirs_q', 'SELECT window_start, count(*) FROM logs.clicks, stream_ckpt.tumble(ts, ''1 h'') GROUP BY 1');
SELECT stream_ckpt.drop_query('logs.mine_q');
SELECT stream_ckpt.drop_stream('logs.mine');
RESET ROLE;

-- dropping
DROP FOREIGN TABLE clicks CASCADE;
SELECT stream_ckpt.drop_query('per_k');
SELECT stream_ckpt.detach_stream('root');
SELECT stream_ckpt.drop_stream('plain');
SELECT stream_ckpt.drop_stream('plain');
DROP SERVER stream_ckpt CASCADE;
SELECT count(*) FROM stream_ckpt.query WHERE source::regclass::text LIKE 'logs.%';
SET client_min_messages = warning;
DROP SCHEMA logs CASCADE;
DROP OWNED BY regress_log_writer;
DROP ROLE regress_log_writer;
