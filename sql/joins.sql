-- What a stream can be joined with, what comes of it, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.start_pipeline('default');
CREATE SCHEMA joins;
SET search_path = joins, public;
SET TimeZone = 'UTC';
CREATE TABLE orders (id bigint, at timestamptz, customer int, gone text, item text, amount int, tags text[]);
ALTER TABLE orders DROP COLUMN gone;
CREATE TABLE other_stream (at timestamptz, a int);
SELECT stream_ckpt.attach_stream('orders', event_time => 'at');
SELECT stream_ckpt.attach_stream('other_stream', event_time => 'at');
CREATE TABLE customers (id int PRIMARY KEY, name text, region text, vip bool);
INSERT INTO customers VALUES (1, 'ann', 'north', true), (2, 'bob', 'south', false), (3, 'cat', 'north', NULL);
CREATE TABLE prices (item text, price int, valid tstzrange);
INSERT INTO prices VALUES ('pen', 2, '[2024-01-01,2024-01-02)'), ('pen', 3, '[2024-01-02,)'), ('cup', 5, '[,)'), ('cup', 6, '[2024-01-01 00:00,2024-01-01 00:01)');
CREATE VIEW northern AS SELECT id, name FROM customers WHERE region = 'north';
CREATE FUNCTION factors(n int) RETURNS TABLE (f int) LANGUAGE sql STABLE AS 'SELECT i FROM generate_series(2, n) i WHERE n % i = 0';
SET client_min_messages = warning;
\set SHOW_CONTEXT never
\set VERBOSITY default

-- a window, INNER and LEFT JOIN
SELECT stream_ckpt.create_query('by_region', $$
  SELECT w.window_start, c.region, count(*) AS n, sum(o.amount) AS amount, min(c.name) AS first
  FROM orders o JOIN customers c ON c.id = o.customer, stream_ckpt.tumble(o.at, '1 minute') w
  WHERE o.amount > 0 AND c.vip IS DISTINCT FROM false
  GROUP BY w.window_start, c.region $$);
SELECT stream_ckpt.create_query('by_name', $$
  SELECT w.window_end, coalesce(c.name, 'nobody') AS name, count(*) AS n, count(c.*) AS known, count(DISTINCT o) AS rows
  FROM orders o CROSS JOIN stream_ckpt.tumble(o.at, '1 minute') w LEFT JOIN customers c ON c.id = o.customer AND o.amount > 1
  GROUP BY w.window_end, coalesce(c.name, 'nobody') $$);
-- a row of the stream can become many, or none; windows that share panes; no windows; best rows; grouping sets
SELECT stream_ckpt.create_query('hopping', $$
  SELECT w.window_start, p.price, count(*) AS n
  FROM orders o JOIN prices p USING (item), stream_ckpt.hop(o.at, '1 minute', '2 minutes') w
  GROUP BY 1, 2 $$);
SELECT stream_ckpt.create_query('totals', $$
  SELECT c.region, sum(o.amount * p.price) AS total FROM orders o JOIN customers c ON c.id = o.customer
  LEFT JOIN prices p ON p.item = o.item AND p.valid @> o.at GROUP BY 1 HAVING c.region IS NOT NULL $$);
SELECT stream_ckpt.create_query('best', $$
  SELECT DISTINCT ON (c.region) c.region, o.amount, c.name, o.id FROM orders o JOIN customers c ON c.id = o.customer ORDER BY c.region, o.amount DESC, o.id $$);
SELECT stream_ckpt.create_query('sets', $$
  SELECT w.window_start, c.region, o.item, GROUPING(c.region, o.item) AS g, sum(o.amount) AS amount
  FROM orders o JOIN customers c ON c.id = o.customer, stream_ckpt.tumble(o.at, '1 minute') w
  GROUP BY w.window_start, ROLLUP (c.region, o.item) $$);
SELECT stream_ckpt.create_query('one', 'SELECT count(*) AS n, max(c.name) AS name FROM orders o JOIN customers c ON c.id = o.customer AND c.region = ''nowhere''');
-- what is above the groups
SELECT stream_ckpt.create_query('above', $$
  WITH c AS (SELECT id, region FROM customers WHERE id < 3)
  SELECT w.window_start, c.region, sum(o.amount) AS amount, rank() OVER (PARTITION BY w.window_start ORDER BY sum(o.amount) DESC)
  FROM orders o JOIN c ON c.id = o.customer, stream_ckpt.tumble(o.at, '1 minute') w
  GROUP BY 1, 2 $$);
-- no groups: lookups, with all kinds of items
SELECT stream_ckpt.create_query('looked_up', $$
  SELECT o.id, o.at, c.name, c AS customer FROM orders o LEFT JOIN customers c ON c.id = o.customer WHERE o.amount <> 7 $$);
SELECT stream_ckpt.create_query('kinds', $$
  WITH RECURSIVE north(id) AS (SELECT id FROM customers WHERE region = 'north'), n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3)
  SELECT o.id, t.tag, f.f, v.name AS northern, l.price, x.a, (SELECT count(*) FROM n WHERE i <= o.amount) AS upto,
    o.customer IN (SELECT id FROM north) AS is_northern
  FROM orders o CROSS JOIN unnest(o.tags) WITH ORDINALITY t(tag, place) CROSS JOIN factors(o.amount) f
    LEFT JOIN northern v ON v.id = o.customer
    LEFT JOIN LATERAL (SELECT price FROM prices p WHERE p.item = o.item AND p.valid @> o.at ORDER BY price DESC LIMIT 1) l ON true,
    (VALUES (1), (2)) x(a)
  WHERE EXISTS (SELECT FROM prices p WHERE p.item = o.item AND p.price > x.a) AND t.place = x.a $$);
SELECT stream_ckpt.create_query('subquery', $$
  SELECT id, (SELECT name FROM customers c WHERE c.id = customer) AS name, o AS whole, w.window_start
  FROM orders o, stream_ckpt.tumble(at, '1 minute') w
  WHERE item NOT IN (SELECT item FROM prices WHERE NOT valid && tstzrange(w.window_start, w.window_end)) $$);
SELECT stream_ckpt.create_query('in_windows', $$
  SELECT w.window_start, o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer, stream_ckpt.hop(o.at, '1 minute', '3 minutes') w
  WHERE w.window_start >= '2024-01-01' AND extract(minute FROM w.window_end)::int % 2 = c.id % 2 $$);
SELECT stream_ckpt.create_query('keyed', $$
  SELECT w.window_start, (SELECT region FROM customers c WHERE c.id = o.customer) AS region, sum((SELECT max(price) FROM prices p WHERE p.item = o.item)) AS price,
    count(*) FILTER (WHERE EXISTS (SELECT FROM northern n WHERE n.id = o.customer)) AS northern
  FROM orders o, stream_ckpt.tumble(o.at, '1 minute') w GROUP BY 1, 2 $$);

-- WITH items of the SELECT above
SELECT stream_ckpt.create_query('adopted', $$
  WITH a AS (SELECT id, region FROM customers), b AS (SELECT * FROM a WHERE id IN (SELECT id FROM northern)),
    n AS (SELECT w.window_start, b.region, count(*) AS n FROM orders o JOIN b ON b.id = o.customer, stream_ckpt.tumble(o.at, '1 minute') w GROUP BY 1, 2)
  SELECT window_start, max(n) AS most FROM n GROUP BY 1 $$);
-- whose names are those of others: b reads the outer c, all else the inner one
SELECT stream_ckpt.create_query('shadowed', $$
  WITH c AS (SELECT id, 'outer ' || region AS region FROM customers),
    m AS (WITH b AS (SELECT * FROM c), c AS (SELECT id, 'inner ' || region AS region FROM customers),
      n AS (SELECT w.window_start, c.region, b.region AS other, count(*) AS n FROM orders o JOIN c ON c.id = o.customer JOIN b ON b.id = o.customer, stream_ckpt.tumble(o.at, '1 minute') w GROUP BY 1, 2, 3)
      SELECT * FROM n)
  SELECT window_start, max(region) AS inner, max(other) AS outer, max(n) AS most FROM m GROUP BY 1 $$);
SELECT stream_ckpt.create_query('own_items', $$
  WITH c AS (SELECT id, 'outer ' || region AS region FROM customers),
    n AS (WITH b AS (SELECT * FROM c), d AS (SELECT * FROM b WHERE id IN (SELECT id FROM c)), c AS (SELECT id, 'inner ' || region AS region FROM customers)
      SELECT w.window_start, c.region, d.region AS other, count(*) AS n FROM orders o JOIN c ON c.id = o.customer JOIN d ON d.id = o.customer, stream_ckpt.tumble(o.at, '1 minute') w GROUP BY 1, 2, 3)
  SELECT window_start, max(region) AS inner, max(other) AS outer, max(n) AS most FROM n GROUP BY 1 $$);
SELECT stream_ckpt.create_query('recursive_items', $$
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2),
    g AS (WITH n AS (SELECT max(i) OVER () AS most, i FROM n WHERE i <= (SELECT count(*) FROM n))
      SELECT w.window_start, n.i, n.most, count(*) AS n FROM orders o JOIN n ON n.i = o.customer, stream_ckpt.tumble(o.at, '1 minute') w GROUP BY 1, 2, 3)
  SELECT window_start, max(i) AS i, max(most) AS most, sum(n) AS n FROM g GROUP BY 1 $$);
-- a subquery that CASE and FILTER decide about: others would find two rows
SELECT stream_ckpt.create_query('decided', $$
  SELECT w.window_start, CASE WHEN o.item = 'cup' THEN (SELECT region FROM customers c WHERE c.id = o.customer OR o.item <> 'cup') ELSE 'none' END AS region,
    count(*) AS n, max((SELECT p.price FROM prices p WHERE p.item = o.item AND p.price < 3)) FILTER (WHERE o.item = 'pen') AS cheap
  FROM orders o, stream_ckpt.tumble(o.at, '1 minute') w GROUP BY 1, 2 $$);

INSERT INTO orders VALUES (1, '2024-01-01 00:00:00', 1, 'pen', 1, '{a,b}'), (2, '2024-01-01 00:00:30', 2, 'cup', 4, '{c,d}'), (3, '2024-01-01 00:00:59', 9, 'box', 3, NULL);
INSERT INTO orders VALUES (4, '2024-01-01 00:01:00', 3, 'cup', 6, '{e}'), (5, NULL, 1, 'pen', 1, '{f}'), (6, '2024-01-01 00:01:10', 1, NULL, 0, '{}'), (7, 'infinity', NULL, 'pen', 8, '{g,h}');
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
-- a row sees what its own transaction did to the tables, and what was done since
BEGIN;
INSERT INTO customers VALUES (9, 'new', 'east', true);
INSERT INTO orders VALUES (8, '2024-01-01 00:01:20', 9, 'pen', 7, '{i,j}');
COMMIT;
-- late for the windows that these close
INSERT INTO orders VALUES (9, '2024-01-02 12:00:00', 9, 'pen', 12, '{k,l}');
INSERT INTO orders VALUES (10, '2024-01-01 00:00:00', 2, 'cup', 100, '{m}');
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
SELECT * FROM by_region ORDER BY 1, 2;
SELECT * FROM by_name ORDER BY 1, 2;
SELECT * FROM hopping ORDER BY 1, 2;
SELECT * FROM totals ORDER BY 1;
SELECT * FROM best ORDER BY 1;
SELECT * FROM sets ORDER BY 1, 2, 3, 4;
SELECT * FROM one;
SELECT * FROM above ORDER BY 1, 2;
SELECT * FROM looked_up ORDER BY 1;
SELECT * FROM kinds ORDER BY 1, 2, 3;
SELECT * FROM subquery ORDER BY 1;
SELECT * FROM in_windows ORDER BY 2, 1;
SELECT * FROM keyed ORDER BY 1, 2;
SELECT * FROM adopted ORDER BY 1;
SELECT * FROM shadowed ORDER BY 1;
SELECT * FROM own_items ORDER BY 1;
SELECT * FROM recursive_items ORDER BY 1;
SELECT * FROM decided ORDER BY 1, 2;
SELECT query, rows_in, late_rows, null_event_times FROM stream_ckpt.queries WHERE stream = 'orders'::regclass ORDER BY query::text;

RESET client_min_messages;
-- the tables are as they were for some rows, and verify() reads them as they are
SELECT stream_ckpt.verify('looked_up');
SELECT stream_ckpt.verify('totals');

-- the plan
SELECT stream_ckpt.explain_query('by_region');
SELECT stream_ckpt.explain_query('SELECT o.id, c.name FROM orders o LEFT JOIN customers c ON c.id = o.customer WHERE o.amount > 3');

-- what is the same, however it is written
CREATE FUNCTION try(definition text, options text = '') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT stream_ckpt.create_query(''tried'', %L%s)', definition, options);
	DROP TABLE tried;
	RETURN 'accepted';
END $$;
SELECT try('SELECT w.window_start, count(*) FROM orders o CROSS JOIN stream_ckpt.hop(at, ''1 min'', ''2 min'') w JOIN customers c ON c.id = o.customer GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM orders o JOIN stream_ckpt.hop(at, ''1 min'', ''2 min'') w ON true JOIN prices USING (item) GROUP BY 1');
SELECT try('SELECT j.window_start, count(*) FROM (orders o CROSS JOIN stream_ckpt.tumble(at, ''1 min'') w) AS j JOIN prices p ON p.item = j.item AND p.valid @> j.window_start GROUP BY 1');
SELECT try('SELECT j.window_start, count(j.*) FROM (orders o CROSS JOIN stream_ckpt.tumble(at, ''1 min'') w JOIN prices USING (item)) AS j GROUP BY 1');
SELECT try('SELECT count(*) FROM customers c RIGHT JOIN orders o ON c.id = o.customer');
SELECT try('SELECT count(*) FROM orders o LEFT JOIN (customers c FULL JOIN prices p ON p.price = c.id) ON c.id = o.customer');
SELECT try('SELECT date_trunc(''hour'', o.at), c.name, count(*) FROM orders o, customers c WHERE c.id = o.customer GROUP BY 1, 2');
SELECT try('SELECT * FROM (SELECT c.name, o.amount, row_number() OVER (PARTITION BY c.name ORDER BY o.amount DESC) AS n FROM orders o JOIN customers c ON c.id = o.customer) t WHERE n <= 2');
SELECT try('SELECT DISTINCT c.name FROM orders o JOIN customers c ON c.id = o.customer');
SELECT try('SELECT c.name, count(*) FROM orders o JOIN customers c ON c.id = o.customer GROUP BY 1', ', ttl => ''1 day''');

-- what is refused
SELECT try('SELECT count(*) FROM customers c LEFT JOIN orders o ON c.id = o.customer');
SELECT try('SELECT count(*) FROM orders o RIGHT JOIN customers c ON c.id = o.customer');
SELECT try('SELECT count(*) FROM orders o FULL JOIN customers c ON c.id = o.customer');
SELECT try('SELECT count(*) FROM (customers c LEFT JOIN orders o ON c.id = o.customer) LEFT JOIN prices USING (item)');
SELECT try('SELECT w.window_start, count(*) FROM orders o LEFT JOIN stream_ckpt.tumble(o.at, ''1 min'') w ON true GROUP BY 1');
SELECT try('SELECT count(*) FROM orders o JOIN other_stream s USING (at)');
SELECT try('SELECT count(*) FROM orders o WHERE EXISTS (SELECT FROM other_stream s WHERE s.a = o.amount)');
SELECT try('SELECT count(*) FROM orders o JOIN orders p USING (id)');
CREATE VIEW hidden AS SELECT a FROM other_stream;
SELECT try('SELECT count(*) FROM orders o JOIN hidden h ON h.a = o.amount');
SELECT try('SELECT count(*) FROM orders o JOIN customers c TABLESAMPLE SYSTEM (10) ON c.id = o.customer');
SELECT try('SELECT count(*) FROM orders o WHERE EXISTS (SELECT FROM customers TABLESAMPLE SYSTEM (10))');
SELECT try('SELECT count(*), max(c.ctid::text) FROM orders o JOIN customers c ON c.id = o.customer');
SELECT try('SELECT id, (SELECT xmin::text FROM customers c WHERE c.id = o.customer) FROM orders o');
SELECT try('SELECT id, (SELECT o.ctid::text FROM customers c WHERE c.id = o.customer) FROM orders o');
SELECT try('SELECT count(*) FROM orders o WHERE EXISTS (SELECT FROM customers c WHERE c.id = o.customer FOR SHARE)');
SELECT try('SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer FOR UPDATE OF c');
SELECT try('SELECT o.id, r FROM orders o, LATERAL (SELECT random() AS r FROM customers) x');
SELECT try('SELECT o.id FROM orders o JOIN customers c ON c.id = o.customer AND now() > o.at');
CREATE VIEW changing AS SELECT id, now() AS at FROM customers;
SELECT try('SELECT o.id FROM orders o JOIN changing c ON c.id = o.customer');
SELECT try('WITH gone AS (DELETE FROM customers RETURNING id) SELECT o.id FROM orders o JOIN gone g ON g.id = o.customer');
SELECT try('WITH unread AS (SELECT 1) SELECT count(*) FROM orders');
SELECT try('SELECT c.name, c.region, count(*) FROM orders o JOIN customers c ON c.id = o.customer GROUP BY c.id');
SELECT try('SELECT item, (SELECT max(price) FROM prices p WHERE p.item = o.item) FROM orders o GROUP BY item');
SELECT try('SELECT item, count(*) FROM orders o GROUP BY item HAVING count(*) > (SELECT count(*) FROM prices)');
SELECT try('SELECT item, (SELECT count(*) FROM prices WHERE price > count(o.id)) FROM orders o GROUP BY item');
SELECT try('SELECT w.window_start, count(*) FROM orders o, stream_ckpt.hop(o.at, ''1 min'', ''2 min'') w, prices p WHERE p.valid @> w.window_start GROUP BY 1');
SELECT try('SELECT w.window_start, p.price FROM orders o, stream_ckpt.hop(o.at, ''1 min'', ''2 min'') w, LATERAL (SELECT price FROM prices WHERE valid @> w.window_start) p');
SELECT try('SELECT w.window_start, CASE WHEN w.window_start < ''2024-01-01'' THEN (SELECT name FROM customers) END FROM orders o, stream_ckpt.hop(o.at, ''1 min'', ''2 min'') w');
SELECT try('SELECT o.id, coalesce(nullif(w.window_end, ''2024-01-01'')::text, (SELECT name FROM customers)) || o.item FROM orders o, stream_ckpt.cumulate(o.at, ''1 min'', ''2 min'') w');
SELECT try('SELECT w.window_start, CASE WHEN o.item IS NULL THEN (SELECT name FROM customers) END AS first, CASE WHEN w.window_end > ''2024-01-01'' THEN c.name END FROM orders o JOIN customers c ON c.id = o.customer, stream_ckpt.hop(o.at, ''1 min'', ''2 min'') w');
SELECT try('SELECT o.id, (w.window_start, o.item) < ((SELECT max(lower(valid)) FROM prices), ''x'') AS less FROM orders o, stream_ckpt.hop(o.at, ''1 min'', ''2 min'') w');
SELECT try('SELECT w.window_start, CASE WHEN w.window_start < ''2024-01-01'' THEN s.name END FROM orders o LEFT JOIN LATERAL (SELECT name FROM customers c WHERE c.id = o.customer) s ON true, stream_ckpt.hop(o.at, ''1 min'', ''2 min'') w');
SELECT try('SELECT w.window_start, count(*) FROM orders o JOIN prices p USING (item), stream_ckpt.session(o.at, ''1 min'') w GROUP BY 1');
SELECT try('SELECT w.window_start, count(*) FROM orders o, ROWS FROM (stream_ckpt.tumble(o.at, ''1 min''), generate_series(1, 2)) w GROUP BY 1');
SELECT try('SELECT * FROM (SELECT o.item, o.amount, row_number() OVER (PARTITION BY o.item ORDER BY o.amount) AS n FROM orders o) t WHERE n <= 2 AND EXISTS (SELECT FROM prices p WHERE p.item = t.item)');
SELECT try('WITH c AS (SELECT w.window_start, count(*) AS n FROM orders o, stream_ckpt.tumble(at, ''1 min'') w GROUP BY 1) SELECT window_start, name FROM c JOIN customers ON id = n');
SELECT try('SELECT c.name, count(*) FROM orders o JOIN customers c ON c.id = o.customer GROUP BY 1', ', ttl => ''1 day'', on_error => ''dead_letter''');
CREATE TEMP TABLE mine (id int);
SELECT try('SELECT o.id FROM orders o JOIN mine USING (id)');

SET client_min_messages = warning;
SELECT stream_ckpt.stop_pipeline('default');
DO $$ DECLARE q regclass; BEGIN FOR q IN SELECT query FROM stream_ckpt.queries WHERE stream = 'orders'::regclass LOOP EXECUTE format('DROP TABLE %s', q); END LOOP; END $$;
SELECT stream_ckpt.detach_stream('orders');
SELECT stream_ckpt.detach_stream('other_stream');
DROP SCHEMA joins CASCADE;
