-- What is above the groups of a definition: small examples, and what is refused, with its hint.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA upper;
SET search_path = upper, public;
SET TimeZone = 'UTC';
CREATE TABLE clicks (ts timestamptz, user_id bigint, url text, ms int);
CREATE TABLE users (id bigint, name text);
CREATE TABLE others (ts timestamptz);
SELECT stream_ckpt.attach_stream('clicks', event_time => 'ts');
SELECT stream_ckpt.attach_stream('others', event_time => 'ts');
CREATE FUNCTION volatile_fn(bigint) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
RESET client_min_messages;

-- Tries a definition in which $c stands for the groups; what is accepted is dropped again.
CREATE FUNCTION try(definition text, options text = '') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	definition := replace(definition, '$c', '(SELECT w.window_start, w.window_end, url, count(*) AS n FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, 2, 3)');
	EXECUTE format('SELECT stream_ckpt.create_query(''tried'', %L%s)', definition, options);
	DROP TABLE tried;
	RETURN 'accepted';
END $$;
\set SHOW_CONTEXT never

-- accepted
SELECT try('SELECT window_start, max(n) FROM $c t GROUP BY 1');
SELECT try('SELECT window_end, max(n) FROM $c t GROUP BY window_end');
SELECT try('SELECT window_start, row_number() OVER (PARTITION BY window_start ORDER BY n) FROM $c t');
SELECT try('WITH c AS $c SELECT a.window_start, b.n FROM c a JOIN c b USING (window_start)');
SELECT try('WITH c AS $c SELECT window_start, b.n FROM c a FULL JOIN c b USING (window_start)');
SELECT try('WITH c AS $c SELECT a.window_start FROM c a, c b, c d WHERE a.window_start = d.window_start AND d.window_start = b.window_start');
SELECT try('WITH c AS $c SELECT window_start FROM c UNION SELECT window_start FROM c');
SELECT try('WITH c AS $c SELECT * FROM c WHERE n = (SELECT max(n) FROM c d WHERE d.window_start = c.window_start)');
SELECT try('WITH c AS $c, d AS (SELECT window_start FROM c ORDER BY n) SELECT * FROM d');
SELECT try('SELECT c.* FROM generate_series(1, 3) i, $c c WHERE n > i');
SELECT try('SELECT window_start, unnest(ARRAY[n, n + 1]) FROM $c t');
SELECT try('SELECT window_start, n FROM $c t', ', emit => ''update''');
SELECT try('SELECT window_start, n FROM $c t', ', allowed_lateness => ''1 min''');
SELECT try('SELECT w.window_start, count(*), GROUPING(w.window_start), rank() OVER (PARTITION BY w.window_start) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, url, count(*), rank() OVER (PARTITION BY w.window_start, GROUPING(url) ORDER BY count(*)) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1, ROLLUP (2)');

-- what is made of a query
SELECT stream_ckpt.create_query('top', $$
  SELECT * FROM (
    SELECT w.window_start, url, count(*) AS n, row_number() OVER (PARTITION BY w.window_start ORDER BY count(*) DESC, url) AS rank
    FROM clicks, stream_ckpt.tumble(ts, '1 min') w
    GROUP BY w.window_start, url) t
  WHERE rank <= 3
$$);
\d top
-- versions plan it differently
SELECT line FROM stream_ckpt.explain_query('top') line WHERE line !~ '^  ' OR line ~ 'Tuplestore|state';
SELECT stream_ckpt.drop_query('top');
SELECT line FROM stream_ckpt.explain_query($$
  WITH c AS (SELECT w.window_start, url, count(*) AS n FROM clicks, stream_ckpt.tumble(ts, '1 min') w GROUP BY 1, 2 HAVING count(*) > 1)
  SELECT a.window_start, a.url, b.url AS other FROM c a JOIN c b ON a.window_start = b.window_start AND a.n = b.n AND a.url < b.url
$$, emit => 'update') line WHERE line !~ '^  ' OR line ~ 'Tuplestore|state';

-- without the window
SELECT try('SELECT max(n) FROM $c t');
SELECT try('SELECT url, max(n) FROM $c t GROUP BY url');
SELECT try('SELECT date_trunc(''day'', window_start), max(n) FROM $c t GROUP BY 1');
SELECT try('SELECT max(n) FROM $c t GROUP BY window_start');
SELECT try('SELECT url, n FROM $c t');
SELECT try('SELECT window_start + ''1 h'' AS s, n FROM $c t');
SELECT try('SELECT x.n, window_start FROM (SELECT url, n FROM $c t) x, $c c');
SELECT try('WITH c AS $c SELECT * FROM (SELECT url, n FROM c) x');
SELECT try('SELECT window_start, n FROM (SELECT w.window_start + ''0'' AS window_start, count(*) AS n FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY w.window_start) t');
SELECT try('SELECT DISTINCT n FROM $c t');
SELECT try('SELECT DISTINCT ON (url) * FROM $c t ORDER BY url, n');
SELECT try('SELECT window_start, url, count(*) FROM $c t GROUP BY ROLLUP (1, 2)');
SELECT try('SELECT window_end, max(n) FROM (SELECT w.window_start, w.window_end, url, count(*) AS n FROM clicks, stream_ckpt.cumulate(ts, ''1 min'', ''5 min'') w GROUP BY 1, 2, 3) t GROUP BY window_start, window_end');
SELECT try('SELECT window_start, max(n) FROM (SELECT w.window_start, w.window_end, url, count(*) AS n FROM clicks, stream_ckpt.cumulate(ts, ''1 min'', ''5 min'') w GROUP BY 1, 2, 3) t GROUP BY window_start');
SELECT try('SELECT window_start, n, rank() OVER (ORDER BY n) FROM $c t');
SELECT try('SELECT window_start, url, lag(n) OVER (PARTITION BY url ORDER BY window_start) FROM $c t');
SELECT try('SELECT w.window_start, sum(count(*)) OVER (ORDER BY w.window_start) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT window_start, n FROM $c t LIMIT 5');
SELECT try('SELECT window_start, n FROM (SELECT * FROM $c t ORDER BY n OFFSET 5) x');
SELECT try('SELECT window_start, n FROM $c t ORDER BY n');

-- joins
SELECT try('WITH c AS $c SELECT a.window_start FROM c a, c b');
SELECT try('WITH c AS $c SELECT a.window_start FROM c a JOIN c b USING (url)');
SELECT try('WITH c AS $c SELECT a.window_start FROM c a JOIN c b ON a.window_start = b.window_end');
SELECT try('WITH c AS $c SELECT a.window_start FROM c a JOIN c b ON a.window_start < b.window_start');
SELECT try('WITH c AS $c SELECT a.window_start FROM c a LEFT JOIN c b ON true WHERE a.window_start = b.window_start');
SELECT try('SELECT c.window_start FROM generate_series(1, 3) i LEFT JOIN $c c ON n = i');
SELECT try('SELECT c.window_start FROM generate_series(1, 3) i FULL JOIN $c c ON n = i');
SELECT try('WITH c AS $c SELECT b.window_start FROM c a LEFT JOIN c b USING (window_start)');
SELECT try('SELECT c.window_start, name FROM $c c JOIN users ON id = n');
SELECT try('SELECT c.window_start FROM $c c JOIN $c d USING (window_start)');
SELECT try('SELECT c.window_start FROM $c c WHERE EXISTS (SELECT FROM users WHERE id = n)');

-- subqueries in expressions
SELECT try('WITH c AS $c SELECT * FROM c WHERE n = (SELECT max(n) FROM c)');
SELECT try('WITH c AS $c SELECT * FROM c WHERE url NOT IN (SELECT url FROM c)');
SELECT try('WITH c AS $c SELECT * FROM c WHERE EXISTS (SELECT FROM c d WHERE d.window_start < c.window_start)');
SELECT try('SELECT w.window_start, (SELECT 1) AS one, rank() OVER (PARTITION BY w.window_start) FROM clicks, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');

-- set operations
SELECT try('WITH c AS $c SELECT window_start, n FROM c UNION ALL SELECT NULL, 1');
SELECT try('WITH c AS $c SELECT window_start, n FROM c UNION ALL SELECT window_end, n FROM c');
SELECT try('WITH c AS $c SELECT window_start, n FROM c UNION ALL SELECT window_start, n FROM c LIMIT 3');
SELECT try('WITH c AS $c SELECT window_start, n FROM c UNION ALL SELECT window_start, n FROM c ORDER BY n');
SELECT try('$c UNION ALL SELECT NULL, NULL, NULL, 1');
SELECT try('SELECT * FROM ($c INTERSECT SELECT * FROM (VALUES (NULL::timestamptz, NULL::timestamptz, ''a'', 1)) v) x');
SELECT try('WITH c AS $c SELECT c.window_start, v.x FROM c, (SELECT 1 AS x UNION ALL SELECT 2 LIMIT (SELECT count(*) FROM c)) v');
SELECT try('SELECT window_start, window_end, sum(n), rank() OVER (PARTITION BY window_end ORDER BY sum(n)) FROM $c t GROUP BY window_start, ROLLUP (window_end)');
SELECT try('SELECT DISTINCT ON (window_end) window_start, window_end, sum(n) FROM $c t GROUP BY window_start, ROLLUP (window_end) ORDER BY window_end');

-- what tells windows apart
CREATE FUNCTION same_day(timestamptz, timestamptz) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT abs(extract(epoch FROM $1 - $2)) < 86400';
CREATE OPERATOR === (leftarg = timestamptz, rightarg = timestamptz, function = same_day, commutator = ===, merges);
SELECT try('WITH c AS $c SELECT a.window_start, b.n FROM c a JOIN c b ON a.window_start === b.window_start');
-- a function that reads a table, in the plan
CREATE FUNCTION names(bigint) RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT name FROM users WHERE id = $1';
SELECT try('SELECT c.window_start, f FROM $c c, names(c.n) f');

-- others
SELECT try('WITH c AS $c SELECT 1 AS one');
SELECT try('WITH RECURSIVE c AS $c, r AS (SELECT window_start, n FROM c UNION ALL SELECT window_start, n - 1 FROM r WHERE n > 0) SELECT * FROM r');
SELECT try('WITH c AS $c, d AS (DELETE FROM users RETURNING id) SELECT * FROM c');
SELECT try('SELECT window_start, volatile_fn(n) FROM $c t');
SELECT try('SELECT window_start, n, now() FROM $c t');
SELECT try('SELECT window_start, n FROM $c t UNION ALL SELECT now(), 1');
SELECT try('SELECT window_start, n AS window_start FROM $c t');
SELECT try('SELECT * FROM (SELECT ts, url FROM clicks) t');
SELECT try('SELECT window_start, count(*) FROM (SELECT ts, url FROM clicks WHERE ms > 5) t, stream_ckpt.tumble(ts, ''1 min'') w GROUP BY 1');
SELECT try('SELECT * FROM (SELECT w.window_start, count(*) FROM users, stream_ckpt.tumble(now(), ''1 min'') w GROUP BY 1) t');
SELECT try('SELECT * FROM (SELECT w.window_start, count(*) FROM clicks c JOIN others USING (ts), stream_ckpt.tumble(c.ts, ''1 min'') w GROUP BY 1) t');
SELECT try('SELECT * FROM (SELECT url, count(*) AS n, rank() OVER (ORDER BY count(*)) FROM clicks GROUP BY url) t');
SELECT stream_ckpt.alter_pipeline('default', parallelism => 2);
SELECT try('SELECT window_start, n FROM $c t', ', parallelism => 2');
SELECT stream_ckpt.alter_pipeline('default', parallelism => 1);

SET client_min_messages = warning;
DROP SCHEMA upper CASCADE;
