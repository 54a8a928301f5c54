-- What a definition can't hold is refused, with the clause, its position and a hint.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA refuse;
SET search_path = refuse, public;
CREATE TABLE clicks (ts timestamptz, user_id bigint, url text, ms int, extra json, price money, x xid);
CREATE TABLE plain (ts timestamptz, id int);
CREATE TABLE timeless (id int);
CREATE TABLE keyed (id int PRIMARY KEY, ts timestamptz, name text);
CREATE VIEW clicks_view AS SELECT * FROM clicks;
SELECT stream_ckpt.attach_stream('clicks', event_time => 'ts');
SELECT stream_ckpt.attach_stream('timeless');
SELECT stream_ckpt.attach_stream('keyed', event_time => 'ts');
RESET client_min_messages;

CREATE FUNCTION volatile_fn(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION plus_volatile(bigint, int) RETURNS bigint LANGUAGE sql AS 'SELECT $1 + $2';
CREATE AGGREGATE sum_volatile(int) (sfunc = plus_volatile, stype = bigint, initcond = '0');
CREATE FUNCTION late(i int, t timestamptz = now()) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS 'SELECT t';
CREATE FUNCTION noisy(i int, d double precision = random()) RETURNS double precision LANGUAGE sql IMMUTABLE AS 'SELECT d';
CREATE FUNCTION later(i int, t timestamptz = late(1)) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS 'SELECT t';
CREATE DOMAIN noisy AS int CHECK (VALUE > random());

-- Tries a definition; what is accepted is dropped again.
CREATE FUNCTION try(definition text, emit text = NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stream_ckpt.create_query('tried', definition, emit => emit);
	DROP TABLE tried;
	RETURN 'accepted';
END $$;
-- The message and the hint alone: for errors of the server's own, whose details differ from version to version.
CREATE FUNCTION try_hint(definition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	RETURN try(definition);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLERRM, hint);
END $$;
\set SHOW_CONTEXT never

-- the text
SELECT stream_ckpt.create_query('q', '');
SELECT stream_ckpt.create_query('q', 'SELEC 1');
SELECT stream_ckpt.create_query('q', 'SELECT nothing FROM clicks');
SELECT stream_ckpt.create_query('q', 'SELECT 1; SELECT 2');
SELECT stream_ckpt.create_query('q', 'DELETE FROM clicks');
SELECT stream_ckpt.create_query('q', 'INSERT INTO clicks DEFAULT VALUES RETURNING ts');
SELECT stream_ckpt.create_query('q', 'DROP TABLE clicks');
SELECT stream_ckpt.create_query('q', 'VALUES (1)');
SELECT stream_ckpt.create_query('q', 'SELECT count(*) INTO other FROM clicks');
SELECT stream_ckpt.create_query('q', 'SELECT count(*) FROM clicks WHERE ms = $1');
SELECT stream_ckpt.create_query(' SELECT w.window_start FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1', 'q');
SELECT stream_ckpt.create_query('my query', 'SELECT w.window_start FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT stream_ckpt.create_query('', 'SELECT w.window_start FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT stream_ckpt.create_query('clicks', 'SELECT w.window_start FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
CREATE VIEW q_definition AS SELECT 1 AS one;
SELECT stream_ckpt.create_query('q', 'SELECT w.window_start FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
DROP VIEW q_definition;

-- clauses
SELECT try('WITH c AS (SELECT 1) SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('WITH c AS (DELETE FROM plain RETURNING 1) SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 UNION SELECT now()');
SELECT try('SELECT w.window_start FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 INTERSECT SELECT now()');
SELECT try('SELECT w.window_start FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 EXCEPT ALL SELECT now()');
SELECT try('SELECT DISTINCT count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY w.window_start');
SELECT try('SELECT DISTINCT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT DISTINCT url FROM clicks', 'close');
SELECT try('SELECT DISTINCT url FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w');
SELECT try('SELECT DISTINCT w.window_start, url FROM clicks, stream_ckpt.cumulate(ts, ''1 min'', ''1 h'') w');
SELECT try('SELECT DISTINCT x FROM clicks');
SELECT try('SELECT DISTINCT url, rank() OVER (ORDER BY ms) FROM clicks');
SELECT try('SELECT DISTINCT ON (w.window_start) w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 ORDER BY count(*) DESC');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 LIMIT 10');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 OFFSET 10');
SELECT try('SELECT w.window_start, 1 AS one FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w FOR UPDATE OF clicks');
SELECT try('SELECT w.window_start, rank() OVER (ORDER BY count(*)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 WINDOW v AS ()');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY GROUPING SETS ((1), (1, 2))');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY ROLLUP (1, 2)');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY CUBE (1, 2)');
SELECT try('SELECT w.window_start, generate_series(1, 2) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, GROUPING(w.window_start) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');

SELECT try('SELECT w.window_start, count(*) AS n FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 ORDER BY n');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 ORDER BY 1');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, ROLLUP (2)');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, ROLLUP (2)', 'update');
SELECT try('SELECT w.window_start, url, count(*), GROUPING(url) + 1 AS g FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, ROLLUP (2)', 'update');
SELECT try('SELECT w.window_start, url, count(*), GROUPING(url) AS g FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, ROLLUP (2)', 'update');
SELECT try('SELECT url, ms, count(*), GROUPING(url) AS g FROM clicks GROUP BY CUBE (1, 2)');
SELECT try('SELECT url, ms, count(*), GROUPING(url) AS g, GROUPING(ms) AS h FROM clicks GROUP BY CUBE (1, 2)');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.session(ts, ''1 min'') w GROUP BY 1, ROLLUP (2)');
SELECT stream_ckpt.create_query('q', 'SELECT url, count(*), GROUPING(url) AS g FROM clicks GROUP BY ROLLUP (1)', ttl => '1 day');
SELECT try('SELECT count(*) FROM clicks GROUP BY GROUPING SETS ((), ())');
SELECT try('SELECT count(*) FROM clicks GROUP BY DISTINCT GROUPING SETS ((), ())');
SELECT try('SELECT count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY GROUPING SETS ((), ())');
SELECT try('SELECT w.window_end, w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY w.window_start, ROLLUP (w.window_end)');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, CUBE (2)');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, GROUPING SETS (2, ())');
SELECT try('SELECT w.window_start, count(*), count(DISTINCT url) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, 1, 2, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');

-- FROM
SELECT try('SELECT 1 AS one');
SELECT try('SELECT url, count(*) FROM clicks GROUP BY url');
SELECT try('SELECT w.window_start, count(*) FROM plain, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks_view, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, plain, stream_ckpt.tumble(clicks.ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks LEFT JOIN LATERAL stream_ckpt.tumble(ts, ''1 min'') w ON true GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks c FULL JOIN keyed k ON k.id = c.ms, stream_ckpt.tumble(c.ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM (SELECT * FROM clicks) c, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks TABLESAMPLE system (10), stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM ONLY clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w, generate_series(1, 2) GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w, stream_ckpt.tumble(ts, ''1 h'') v GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') WITH ORDINALITY w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w, (VALUES (1)) v GROUP BY 1');
SELECT try_hint('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.hop(ts, ''1 min'', ''5 min'') w GROUP BY 1');

SELECT try('SELECT w.window_start, count(*) FROM clicks LEFT JOIN keyed k ON k.id = clicks.ms, stream_ckpt.tumble(clicks.ts, ''1 min'') w GROUP BY 1');
SELECT try_hint('SELECT w.window_start, count(*) FROM clicks, tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try_hint('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, 60) w GROUP BY 1');
SELECT try_hint('SELECT w.window_start, count(*) FROM clicks, session(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT window_start, count(*) FROM stream_ckpt.tumble(clicks.ts, ''1 min'') GROUP BY 1');
SELECT try('SELECT window_start, count(*) FROM stream_ckpt.tumble(''clicks'', ''ts'', ''1 min'') GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') GROUP BY 1');
SELECT try('SELECT w.start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT count(*) FROM clicks GROUP BY stream_ckpt.tumble(ts, ''1 min'')');
SELECT try('SELECT stream_ckpt.tumble(ts, ''1 min''), count(*) FROM clicks GROUP BY 1');
CREATE FOREIGN TABLE pg_temp.passing (ts timestamptz) SERVER stream_ckpt OPTIONS (event_time 'ts');
SELECT try('SELECT w.window_start, count(*) FROM passing, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
DROP FOREIGN TABLE passing;

-- the window
SELECT try('SELECT w.window_start, count(*) FROM timeless, stream_ckpt.tumble(now(), ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM timeless, stream_ckpt.tumble(''2024-01-01''::timestamptz, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts + ''1 s'', ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts::timestamp, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ms * ''1 min''::interval) w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, NULL) w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 month'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''0'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''-1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'', NULL) w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'', ''infinity'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'', ts) w GROUP BY 1');

SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'', ''2024-01-01''::date) w GROUP BY 1');

-- without a window
SELECT try('SELECT count(*) FROM clicks', 'close');
SELECT try('SELECT url, count(*) FROM clicks GROUP BY url, ms');
SELECT try('SELECT url, ms, count(*) FROM clicks GROUP BY url');
SELECT try('SELECT w.window_start, count(*) FROM clicks GROUP BY 1');
SELECT try('SELECT count(*) FROM clicks GROUP BY ()');
SELECT stream_ckpt.create_query('q', 'SELECT count(*) FROM clicks', allowed_lateness => '1 min');
SELECT stream_ckpt.create_query('q', 'SELECT count(*) FROM clicks', keep_late_rows => true);
SELECT stream_ckpt.create_query('q', 'SELECT count(*) FROM plain');

-- items of GROUP BY that are windows, and those that are none
SET TimeZone = 'Europe/Berlin';
SELECT try('SELECT date_trunc(''hour'', ts) AS h, count(*) FROM clicks GROUP BY 1', 'close');
SELECT try('SELECT date_trunc(''day'', ts, ''Europe/Berlin'') AS d, url, count(*) FROM clicks GROUP BY 1, 2', 'close');
SELECT try('SELECT date_trunc(''mon'', ts AT TIME ZONE ''UTC'') AS m, count(*) FROM clicks GROUP BY 1', 'close');
SELECT try('SELECT ts::date AS d, date_trunc(''year'', ts) AS y, count(*) FROM clicks GROUP BY 1, 2', 'close');
SELECT try('SELECT date_bin(''15 min'', ts, timestamptz ''2024-01-01'') AS b, count(*) FROM clicks GROUP BY 1', 'close');
SELECT try('SELECT url, count(*) FROM clicks GROUP BY date_trunc(''hour'', ts), url', 'close');
SELECT try('SELECT url, count(*) FROM clicks GROUP BY date_trunc(''hour'', ts), url', 'update');
SELECT try('SELECT date_trunc(''hour'', ts) + interval ''1 h'' AS h, count(*) FROM clicks GROUP BY date_trunc(''hour'', ts)', 'close');
SELECT try('SELECT date_trunc(''day'', ts, ''EST'') AS d, count(*) FROM clicks GROUP BY 1');
SELECT try('SELECT date_trunc(url, ts) AS d, count(*) FROM clicks GROUP BY 1');
SELECT try('SELECT extract(hour FROM ts) AS h, count(*) FROM clicks GROUP BY 1');
SELECT try('SELECT date_trunc(''day'', ts + ''1 h'') AS d, count(*) FROM clicks GROUP BY 1', 'close');
SELECT try('SELECT date_trunc(''day'', ts) AS d, count(*) FROM clicks GROUP BY ts', 'close');
RESET TimeZone;

-- windows that share panes
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.hop(ts, ''1 month'', ''1 year'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.hop(ts, ''0'', ''1 h'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.hop(ts, ''1 us'', ''1 h'') w GROUP BY 1');
SELECT try('SELECT w.window_end, count(*) FROM clicks, stream_ckpt.cumulate(ts, ''7 min'', ''1 h'') w GROUP BY 1');
SELECT try('SELECT w.window_end, count(*) FROM clicks, stream_ckpt.cumulate(ts, ''1 h'', ''10 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.cumulate(ts, ''10 min'', ''1 h'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.hop(ts, ''1 min'', ''1 h'') w WHERE w.window_start > ''2024-01-01'' GROUP BY 1');
SELECT try('SELECT w.window_start, max(w.window_end - ts) AS since FROM clicks, stream_ckpt.hop(ts, ''1 min'', ''1 h'') w GROUP BY 1');
SELECT try('SELECT w.window_start, date_trunc(''day'', w.window_end) AS d, count(*) FROM clicks, stream_ckpt.hop(ts, ''1 min'', ''1 h'') w GROUP BY 1, 2');
SELECT try('SELECT w.window_start, k AS r, count(*) FROM keyed k, stream_ckpt.hop(ts, ''1 min'', ''1 h'') w GROUP BY 1, 2', 'update');
SELECT try('SELECT w.window_start, k AS r, count(*) FROM keyed k, stream_ckpt.hop(ts, ''1 min'', ''1 h'') w GROUP BY 1, 2', 'close');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.hop(ts, ''1 min'', ''1 h'') w GROUP BY 1 HAVING w.window_start > ''2024-01-01''', 'update');
SELECT try('SELECT w.window_end, url, count(*) FROM clicks, stream_ckpt.cumulate(ts, ''10 min'', ''1 h'') w GROUP BY w.window_start, w.window_end, url', 'update');

-- GROUP BY
SELECT try('SELECT count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w');
SELECT try('SELECT url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY url');
SELECT try('SELECT date_trunc(''hour'', w.window_start), count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, price::text::tsvector, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, 2');
SELECT try('SELECT w.window_start, x, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, 2');
SELECT try('SELECT w.window_start, extra, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, 2');
SELECT try('SELECT w.window_start, url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, id, name FROM keyed, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, 2');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY w.window_start, url', 'update');
SELECT try('SELECT url, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY w.window_start, url', 'update');

-- expressions
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w WHERE EXISTS (SELECT 1) GROUP BY 1');
SELECT try('SELECT w.window_start, (SELECT 1) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w WHERE ms IN (SELECT id FROM plain) GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1 HAVING count(*) > (SELECT 1)');
SELECT try('SELECT w.window_start, sum(ms) FILTER (WHERE random() < 0.5) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, sum(volatile_fn(ms)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, sum_volatile(ms) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w WHERE ts > now() - interval ''1 h'' GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w WHERE ts > CURRENT_TIMESTAMP GROUP BY 1');
SELECT try('SELECT w.window_start, max(CURRENT_DATE) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(age(ts)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w WHERE CURRENT_USER = url GROUP BY 1');
SELECT try('SELECT w.window_start, max(pg_backend_pid()) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(txid_current()) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, bool_or(pg_is_in_recovery()) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(ctid::text) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(w) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w WHERE generate_series(1, 2) = 1 GROUP BY 1');

-- values that depend on the time, on storage or on statistics, hidden in defaults and casts, too
SELECT try('SELECT w.window_start, max(late(ms)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(noisy(i => ms)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(later(ms)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(ms::noisy) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(pg_column_size(url)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(pg_column_compression(url)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(pg_relation_size(''clicks'')) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(pg_stat_get_live_tuples(user_id::oid)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(mxid_age(x)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(age(x)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(pg_get_userbyid(user_id::oid)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, bool_or(has_table_privilege(url, ''SELECT'')) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(to_regclass(url)::text) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(url::time::timetz) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(url::timetz) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(version()) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(DISTINCT ARRAY[ROW(ms, 1)]) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, max(late(ms, ts)), max(pg_typeof(ms)::text) AS type FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
CREATE FUNCTION pg_temp.passing(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE TYPE pg_temp.passing AS (a int);
SET client_min_messages = warning;		-- 19 says that it goes with the type
CREATE FUNCTION takes_passing(pg_temp.passing) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1.a';
-- by us, or by the server before (19)
SELECT try_hint('SELECT w.window_start, max(pg_temp.passing(ms)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1') ~ 'temporary (object is not supported in|relation in non-temporary schema)' AS refused;
SELECT try_hint('SELECT w.window_start, max(takes_passing(ROW(ms))) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1') ~ 'temporary (object is not supported in|relation in non-temporary schema)' AS refused;
RESET client_min_messages;
DROP TYPE pg_temp.passing CASCADE;

-- the position is the definition's, lines included
SELECT stream_ckpt.create_query('q', $$
  SELECT w.window_start, 'abc' AS letters, count(*)
  FROM clicks,
       stream_ckpt.tumble(ts, '1 year') w
  GROUP BY 1
$$);

-- parameters
SELECT stream_ckpt.create_query('q', 'SELECT 1', emit => 'sometimes');
SELECT stream_ckpt.create_query('q', 'SELECT 1', on_error => 'ignore');
SELECT stream_ckpt.create_query('q', 'SELECT 1', pipeline => 'nowhere');

-- what isn't built yet says so
SELECT stream_ckpt.create_savepoint('s');
SELECT stream_ckpt.restore_savepoint('s');
SELECT stream_ckpt.drop_savepoint('s');

-- accepted
CREATE TABLE tried_key ();
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
DROP TABLE tried_key;
SELECT try('SELECT * FROM (SELECT 1) x') IS NULL;
SELECT try('SELECT w.window_start, count(*) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY w.window_start', 'update');
SELECT try('SELECT w.window_end, url, count(*) FROM clicks c CROSS JOIN LATERAL stream_ckpt.tumble(c.ts, ''1 min'') w GROUP BY 1, 2', 'update');
SELECT try('SELECT w.window_time, count(*) FROM clicks c JOIN stream_ckpt.tumble(c.ts, size => ''1 min'', origin => ''2024-01-01'') w ON c.ms > 0 WHERE url IS NOT NULL GROUP BY w.window_time HAVING sum(ms) > 10;', 'update');
SELECT try('SELECT window_start, user_id % 10 AS bucket, count(DISTINCT url), string_agg(url, '','' ORDER BY ts), sum(ms) FILTER (WHERE ms > 5) + 1 AS more, percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS median, max(window_start - ts) AS since FROM clicks, stream_ckpt.tumble(ts, ''1 day'') GROUP BY window_start, window_end, user_id % 10', 'update');
SELECT try('SELECT j.window_start, j.url, count(j.*) FROM (clicks CROSS JOIN stream_ckpt.tumble(ts, make_interval(mins => 5))) AS j GROUP BY 1, 2');
SELECT try('SELECT to_char(w.window_start, ''YYYY'') AS y, lower(url) || '' '' || count(*) AS t FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY w.window_start, lower(url)');
SELECT try('SELECT count(*) FROM clicks');
SELECT try('SELECT count(*) FROM clicks', 'update');
SELECT try('SELECT url, lower(url) AS l, count(*) FROM clicks GROUP BY 1, 2');
SELECT try('SELECT 1 AS one FROM timeless HAVING count(*) > 3');

SET client_min_messages = warning;
SELECT stream_ckpt.start_pipeline('default');
DROP SCHEMA refuse CASCADE;
SELECT count(*) AS left FROM stream_ckpt.query;
SELECT count(*) AS left FROM stream_ckpt.stream;
