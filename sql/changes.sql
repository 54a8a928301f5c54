--
-- Streams whose changes are applied: attaching and altering them, their identity, partitions, and what is refused.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.start_pipeline('default');
SET client_min_messages = notice;

CREATE TABLE orders (id bigint PRIMARY KEY, ts timestamptz NOT NULL, status text, amount numeric(12,2));
SELECT stream_ckpt.attach_stream('orders', 'ts', changes => 'sometimes');
SELECT stream_ckpt.attach_stream('orders', 'ts', changes => 'apply');
SELECT relreplident FROM pg_class WHERE oid = 'orders'::regclass;
SELECT stream, changes FROM stream_ckpt.streams;
-- nothing to do, and back
SELECT stream_ckpt.alter_stream('orders', changes => 'apply');
SELECT stream_ckpt.alter_stream('orders', watermark_delay => '1 second');
SELECT changes FROM stream_ckpt.streams WHERE stream = 'orders'::regclass;
SELECT stream_ckpt.alter_stream('orders', changes => 'ignore');
SELECT changes FROM stream_ckpt.streams WHERE stream = 'orders'::regclass;
SELECT stream_ckpt.create_query('orders_counted', 'SELECT status, count(*) AS n FROM orders GROUP BY status');
SELECT stream_ckpt.alter_stream('orders', changes => 'apply');
SELECT stream_ckpt.drop_query('orders_counted');
SELECT stream_ckpt.alter_stream('orders', changes => 'apply');

-- whoever has set the identity is told that this alone does nothing
CREATE TABLE told (ts timestamptz, k int);
ALTER TABLE told REPLICA IDENTITY FULL;
SELECT stream_ckpt.attach_stream('told', 'ts');
SELECT stream_ckpt.detach_stream('told');
SELECT stream_ckpt.attach_stream('told', 'ts', changes => 'ignore');

-- the identity stays as long as changes are applied
ALTER TABLE orders REPLICA IDENTITY DEFAULT;
ALTER TABLE orders REPLICA IDENTITY FULL;
ALTER TABLE told REPLICA IDENTITY DEFAULT;

-- log streams have no changes
SELECT stream_ckpt.create_stream('clicks', 'ts timestamptz, k int', 'ts');
SELECT stream_ckpt.alter_stream('clicks', changes => 'apply');
SELECT changes FROM stream_ckpt.streams WHERE stream = 'clicks'::regclass;

--
-- Partitions
--
CREATE TABLE p (ts timestamptz, k int) PARTITION BY RANGE (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
SELECT stream_ckpt.attach_stream('p', 'ts', changes => 'apply');
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (k);
CREATE TABLE p20 PARTITION OF p2 FOR VALUES FROM (10) TO (15);
CREATE TABLE p3 (k int, ts timestamptz);
ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30);
CREATE SCHEMA other CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (30) TO (40);
SET session_replication_role = replica;
CREATE TABLE p5 PARTITION OF p FOR VALUES FROM (40) TO (50);
RESET session_replication_role;
SELECT relname, relreplident FROM pg_class WHERE relname ~ '^p[0-9]*$' AND relkind IN ('r', 'p') AND relnamespace <> 'pg_catalog'::regnamespace
ORDER BY relname;
ALTER TABLE p20 REPLICA IDENTITY NOTHING;
ALTER TABLE p DETACH PARTITION p3 CONCURRENTLY;
-- nobody reads it
ALTER TABLE p DETACH PARTITION p3;
DROP TABLE p3, other.p4;
TRUNCATE p1;
CREATE FOREIGN TABLE p6 PARTITION OF p FOR VALUES FROM (50) TO (60) SERVER stream_ckpt;
DROP TABLE p;
CREATE TABLE p (ts timestamptz, k int) PARTITION BY RANGE (k);
CREATE FOREIGN TABLE p6 PARTITION OF p FOR VALUES FROM (50) TO (60) SERVER stream_ckpt;
SELECT stream_ckpt.attach_stream('p', 'ts', changes => 'apply');
DROP TABLE p;

--
-- Publications: with a column list PostgreSQL would refuse every UPDATE
--
SET client_min_messages = warning;
CREATE TABLE published (ts timestamptz, k int, v int) PARTITION BY RANGE (k);
CREATE TABLE published_1 PARTITION OF published FOR VALUES FROM (0) TO (10);
CREATE PUBLICATION inserts FOR TABLE published_1 (ts, k) WITH (publish = 'insert');
CREATE PUBLICATION some_columns FOR TABLE published (ts, k) WITH (publish_via_partition_root = true);
RESET client_min_messages;
SELECT stream_ckpt.attach_stream('published', 'ts', changes => 'apply');
ALTER PUBLICATION some_columns SET TABLE published;
SELECT stream_ckpt.attach_stream('published', 'ts', changes => 'apply');
DROP PUBLICATION inserts, some_columns;

--
-- Who may
--
CREATE ROLE changes_other;
GRANT CREATE ON SCHEMA public TO changes_other;
CREATE TABLE mixed (ts timestamptz, k int) PARTITION BY RANGE (k);
CREATE TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO (10);
ALTER TABLE mixed OWNER TO changes_other;
SET ROLE changes_other;
SELECT stream_ckpt.attach_stream('mixed', 'ts', changes => 'apply');
RESET ROLE;
DROP TABLE mixed;
REVOKE CREATE ON SCHEMA public FROM changes_other;
DROP ROLE changes_other;

--
-- What a definition can't have
--
CREATE TYPE mood AS ENUM ('bad', 'good');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE AGGREGATE product(int) (SFUNC = int4mul, STYPE = int);
CREATE OPERATOR <~> (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE TABLE c (id int PRIMARY KEY, ts timestamptz NOT NULL, k int, v int, m mood, d positive, a numeric(12,2), t text);
SELECT stream_ckpt.attach_stream('c', 'ts', changes => 'apply');
SELECT stream_ckpt.attach_stream('told', processing_time => true, changes => 'apply');
\set create 'SELECT stream_ckpt.create_query(''q'', '
:create 'SELECT ts, v, id + 0 AS id FROM c');
:create 'SELECT id, v FROM c WHERE twice(v) > 3');
:create 'SELECT id, v FROM c', emit => 'close');
:create 'SELECT id, v FROM c, stream_ckpt.hop(ts, ''1 minute'', ''2 minutes'') w');
:create 'SELECT c.id, v FROM c JOIN pg_class p ON p.oid = c.k');
SELECT stream_ckpt.alter_pipeline('default', parallelism => 2);
:create 'SELECT id, v FROM c', parallelism => 2);
SELECT stream_ckpt.alter_pipeline('default', parallelism => 1);
:create 'SELECT DISTINCT ON (k) k, twice(v) FROM c ORDER BY k, ts');
:create 'SELECT DISTINCT ON (k) k, v FROM c ORDER BY k, m::text');
:create 'SELECT k, v, rn FROM (SELECT k, v, row_number() OVER (PARTITION BY w.window_start, k ORDER BY twice(v)) AS rn FROM c, stream_ckpt.tumble(ts, ''1 minute'') w) q WHERE rn < 3');
:create 'SELECT k, window_end, v, rn FROM (SELECT k, w.window_end, v, row_number() OVER (PARTITION BY w.window_end, k ORDER BY v) AS rn FROM c, stream_ckpt.hop(ts, ''1 minute'', ''2 minutes'') w) q WHERE rn < 3', emit => 'update');
:create 'SELECT DISTINCT ON (k) k, v FROM c ORDER BY k, ts', ttl => '1 hour');
:create 'SELECT k, sum(twice(v)) FROM c GROUP BY k');
:create 'SELECT k, product(v) FROM c GROUP BY k');
:create 'SELECT k, count(*) FROM c WHERE (v <~> 1) > 3 GROUP BY k');
:create 'SELECT k, count(*) FILTER (WHERE v::positive > 3) FROM c GROUP BY k');
:create 'SELECT m::text, count(*) FROM c GROUP BY m::text');
:create 'SELECT k, min(t::timestamptz) FROM c GROUP BY k');
:create 'SELECT k, count(c) FROM c GROUP BY k');
:create 'SELECT k, max(ROW(v, k)::text) FROM c GROUP BY k');
:create 'SELECT k, count(*) FROM c WHERE to_json(v)::text <> ''1'' GROUP BY k');
:create 'SELECT k, max(concat(v, m)) FROM c GROUP BY k');
:create 'SELECT k, count(*) FROM c GROUP BY k HAVING max(twice(v)) > 3');
-- and what it can
:create 'SELECT m, date_trunc(''day'', ts) AS day, to_char(ts, ''HH24'') AS hour, k || t AS kt, count(d) AS n, sum(a) AS a, twice(sum(v)::int) AS v FROM c WHERE ts < ''2024-01-01''::date + interval ''1 day'' AND concat(k, t) <> ''x'' GROUP BY m, day, hour, kt', emit => 'update');
SELECT line FROM stream_ckpt.explain_query('q') line WHERE line ~ 'state:';
SELECT stream_ckpt.explain_query('SELECT k, rn, id, twice(v) AS twice FROM (SELECT k, id, v, row_number() OVER (PARTITION BY k ORDER BY a DESC) AS rn FROM c) q WHERE rn < 3');

-- what tells rows apart, if each is one of the result
SET client_min_messages = warning;
CREATE TABLE keys (ts timestamptz, id int, deferred int UNIQUE DEFERRABLE, nothing int UNIQUE, ci text NOT NULL COLLATE "C", few int NOT NULL, a int NOT NULL, b int NOT NULL);
CREATE UNIQUE INDEX ON keys (few) WHERE a > 0;
CREATE UNIQUE INDEX ON keys ((a + b));
CREATE UNIQUE INDEX ON keys (ci COLLATE "POSIX");
SELECT stream_ckpt.attach_stream('keys', 'ts', changes => 'apply');
SELECT stream_ckpt.create_query('keyed', 'SELECT * FROM keys');
CREATE UNIQUE INDEX keys_b_a ON keys (b, a) INCLUDE (id);
SELECT stream_ckpt.create_query('keyed', 'SELECT id FROM keys');
SELECT stream_ckpt.create_query('keyed', 'SELECT id, ci, few, b + a AS sum, a, ''x'' AS x, b, a AS again, twice(a) AS twice, w.window_end AS till, deferred FROM keys, stream_ckpt.tumble(ts, ''1 hour'') w WHERE few > 0');
\d keyed
SELECT emit, parallelism FROM stream_ckpt.queries WHERE query = 'keyed'::regclass;
SELECT stream_ckpt.explain_query('keyed');
DROP INDEX keys_b_a;
INSERT INTO keys SELECT '2024-01-01', i, i, i, i, i, i, i FROM generate_series(1, 3) i;
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
TABLE keyed ORDER BY id;
ALTER TABLE keys ALTER a DROP NOT NULL;
UPDATE keys SET few = 0 WHERE id = 1;
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
SELECT status, message, hint FROM stream_ckpt.queries WHERE query = 'keyed'::regclass;
TABLE keyed ORDER BY id;
DROP INDEX keys_b_a CASCADE;
SELECT count(*) FROM stream_ckpt.queries WHERE stream = 'keys'::regclass;
DROP TABLE keyed, keys;
RESET client_min_messages;

-- the query holds on to the partitions, and to the identity
SELECT stream_ckpt.drop_query('q');
INSERT INTO c (id, ts) VALUES (1, '2024-01-01');
:create 'SELECT k, count(*) FROM c GROUP BY k', backfill => false);
-- it can begin with the rows that are there
:create 'SELECT k, count(*) AS n, max(v) AS v FROM c GROUP BY k', backfill => true);
UPDATE c SET k = 2, v = 3;
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
TABLE q;
SELECT stream_ckpt.drop_query('q');
DELETE FROM c;
:create 'SELECT k, count(*) AS n FROM c GROUP BY k', backfill => false);
SELECT stream_ckpt.alter_stream('c', changes => 'ignore');
BEGIN;
DELETE FROM c;
SELECT stream_ckpt.create_query('q2', 'SELECT k, count(*) AS n FROM c GROUP BY k', backfill => false);
INSERT INTO c (id, ts) VALUES (1, '2024-01-01');
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT stream_ckpt.create_query('q2', 'SELECT k, count(*) AS n FROM c GROUP BY k');
ROLLBACK TO a;
INSERT INTO c (id, ts) VALUES (1, '2024-01-01');
COMMIT;
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
TABLE q;

SET client_min_messages = warning;
CREATE TABLE h (ts timestamptz, k int) PARTITION BY RANGE (k);
CREATE TABLE h1 PARTITION OF h FOR VALUES FROM (0) TO (10);
CREATE TABLE h2 PARTITION OF h FOR VALUES FROM (10) TO (20);
CREATE TABLE h3 (ts timestamptz, k int);
INSERT INTO h3 VALUES ('2024-01-01', 25);
RESET client_min_messages;
SELECT stream_ckpt.attach_stream('h', 'ts', changes => 'apply');
SELECT stream_ckpt.create_query('hq', 'SELECT k, count(*) AS n FROM h GROUP BY k');
INSERT INTO h VALUES ('2024-01-01', 5);
ALTER TABLE h DETACH PARTITION h1;
DROP TABLE h1;
TRUNCATE h1;
ALTER TABLE h ATTACH PARTITION h3 FOR VALUES FROM (20) TO (30);
TRUNCATE h3;
ALTER TABLE h ATTACH PARTITION h3 FOR VALUES FROM (20) TO (30);
TRUNCATE h1, h;
SET client_min_messages = warning;
DROP TABLE h CASCADE;
SELECT stream_ckpt.drop_query('q');
DROP TABLE c;
DROP AGGREGATE product(int);
DROP OPERATOR <~> (int, int);
DROP FUNCTION twice(int);
DROP DOMAIN positive;
DROP TYPE mood;
RESET client_min_messages;

DROP TABLE orders, told, published;
DROP FOREIGN TABLE clicks;
