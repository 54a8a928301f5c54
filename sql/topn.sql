-- DISTINCT ON and row_number() <= n over the rows of a stream: what is accepted, what is made, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA topn;
SET search_path = topn, public;
CREATE TABLE bids (at timestamptz, auction int, bidder text, price numeric, x xid);
SELECT stream_ckpt.attach_stream('bids', event_time => 'at');
RESET client_min_messages;
\set SHOW_CONTEXT never
-- Tries a definition; what is accepted is dropped again.
CREATE FUNCTION try(definition text, emit text = NULL, lateness interval = '0') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	PERFORM stream_ckpt.create_query('tried', definition, emit => emit, allowed_lateness => lateness);
	SELECT string_agg(regexp_replace(pg_get_indexdef(indexrelid), '.* USING btree ', ''), ' ') INTO answer FROM pg_index WHERE indrelid = 'tried'::regclass;
	DROP TABLE tried;
	RETURN coalesce('key ' || answer, 'no key');
END $$;

-- the last bid of each auction, the best one, the three best ones
SELECT try('SELECT DISTINCT ON (auction) auction, at, bidder FROM bids ORDER BY auction, at DESC');
SELECT try('SELECT DISTINCT ON (auction, bidder) bidder, auction, price FROM bids');
SELECT try('SELECT auction, price FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn = 1');
SELECT try('SELECT * FROM (SELECT auction, bidder, price, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids WHERE price > 0) r WHERE rn <= 3');
SELECT try('SELECT rn, price + 1 AS more, auction FROM (SELECT auction, price, row_number() OVER best AS rn FROM bids WINDOW best AS (PARTITION BY auction ORDER BY price DESC)) r WHERE 4 > rn AND price > 5');
SELECT try('SELECT w, auction, price FROM (SELECT w.window_start AS w, auction, price, row_number() OVER (PARTITION BY w.window_start, auction ORDER BY price DESC) AS rn FROM bids, stream_ckpt.tumble(at, ''1 hour'') w) r WHERE rn <= 3');
SELECT try('SELECT w, rn, price FROM (SELECT w.window_end AS w, price, row_number() OVER (PARTITION BY w.window_end ORDER BY price DESC) AS rn FROM bids, stream_ckpt.hop(at, ''1 hour'', ''2 hours'') w) r WHERE rn <= 3', 'close', '1 hour');
SELECT try('SELECT rn, price FROM (SELECT price, row_number() OVER (ORDER BY price DESC) AS rn FROM bids) r WHERE rn <= 3');
SELECT try('SELECT DISTINCT ON (date_trunc(''day'', at, ''UTC''), auction) date_trunc(''day'', at, ''UTC'') AS day, auction, price FROM bids ORDER BY 1, 2, price', 'close');
-- in WITH, and what becomes of it
SELECT try('WITH r AS (SELECT auction, price, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) SELECT * FROM r WHERE rn <= 3');
SELECT * FROM stream_ckpt.explain_query('SELECT * FROM (SELECT auction, price, row_number() OVER (PARTITION BY auction ORDER BY price DESC, bidder) AS rn FROM bids) r WHERE rn <= 3 AND price > 0');
SELECT * FROM stream_ckpt.explain_query('SELECT DISTINCT ON (auction) auction, bidder FROM bids WHERE price > 0');
-- over groups it is done for each window
SELECT try('SELECT DISTINCT ON (w.window_start) w.window_start, auction, count(*) FROM bids, stream_ckpt.tumble(at, ''1 h'') w GROUP BY 1, 2 ORDER BY w.window_start, count(*) DESC');
-- without what tells the rows apart
SELECT try('SELECT auction, price FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn <= 3');
SELECT try('SELECT price, rn FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn <= 3');
SELECT try('SELECT DISTINCT ON (auction) bidder FROM bids');
SELECT try('SELECT price FROM (SELECT *, row_number() OVER (ORDER BY price DESC) AS rn FROM bids) r WHERE rn = 1');
SELECT try('SELECT w, price FROM (SELECT w.window_end AS w, price, row_number() OVER (PARTITION BY w.window_end ORDER BY price) AS rn FROM bids, stream_ckpt.tumble(at, ''1 h'') w) r WHERE rn <= 3', 'update');
-- how many
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn > 1');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= auction');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn < 1');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 1001');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 1000');
-- ranks: several rows have one number, so nothing of the result can be updated
SELECT try('SELECT auction, price FROM (SELECT auction, price, rank() OVER (PARTITION BY w.window_start ORDER BY price DESC) AS rn FROM bids, stream_ckpt.tumble(at, ''10 seconds'') w) r WHERE rn = 1');
SELECT * FROM stream_ckpt.explain_query('SELECT * FROM (SELECT w.window_end, price, dense_rank() OVER (PARTITION BY w.window_end ORDER BY price DESC) AS rn FROM bids, stream_ckpt.tumble(at, ''10 seconds'') w) r WHERE rn <= 2');
SELECT try('SELECT * FROM (SELECT auction, rank() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 3');
SELECT try('SELECT * FROM (SELECT w.window_end, dense_rank() OVER (PARTITION BY w.window_end ORDER BY price) AS rn FROM bids, stream_ckpt.tumble(at, ''1 h'') w) r WHERE rn <= 3', 'update');
SELECT try('SELECT * FROM (SELECT w.window_end, rank() OVER (PARTITION BY w.window_end ORDER BY price) AS rn FROM bids, stream_ckpt.tumble(at, ''1 h'') w) r WHERE rn <= 3', 'close', '1 hour');
SELECT try('SELECT * FROM (SELECT w.window_end, rank() OVER (PARTITION BY w.window_end) AS rn FROM bids, stream_ckpt.tumble(at, ''1 h'') w) r WHERE rn <= 3');
SELECT try('SELECT * FROM (SELECT w.window_end, rank() OVER (PARTITION BY w.window_end ORDER BY price) AS rn FROM bids, stream_ckpt.tumble(at, ''1 h'') w) r WHERE rn <= 0');
SELECT try('SELECT * FROM (SELECT w.window_end, rank() OVER o AS rn, row_number() OVER o AS n FROM bids, stream_ckpt.tumble(at, ''1 h'') w WINDOW o AS (PARTITION BY w.window_end ORDER BY price)) r WHERE rn <= 3');
-- other functions, and other clauses
SELECT try('SELECT * FROM (SELECT auction, ntile(3) OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 3');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction) AS rn, row_number() OVER (PARTITION BY bidder) AS other FROM bids) r WHERE rn <= 3');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 3 ORDER BY auction');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 3 LIMIT 3');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids ORDER BY auction) r WHERE rn <= 3');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids LIMIT 3) r WHERE rn <= 3');
SELECT try('SELECT * FROM (SELECT DISTINCT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 3');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM pg_class, bids) r WHERE rn <= 3');
SELECT try('SELECT DISTINCT ON (auction) auction, count(*) FROM bids GROUP BY auction');
SELECT try('SELECT DISTINCT ON (auction) auction, lag(price) OVER () FROM bids');
SELECT try('SELECT count(*) FROM (SELECT DISTINCT ON (auction) auction, price FROM bids) b');
SELECT try('SELECT count(*) FROM (SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 3) b');
SELECT try('SELECT DISTINCT ON (auction) auction, price FROM bids ORDER BY auction, price LIMIT 5');
SELECT try('SELECT DISTINCT ON (auction) auction, random() AS r FROM bids');
SELECT try('SELECT DISTINCT ON (auction) auction, price FROM bids ORDER BY auction, random()');
-- keys, windows, types
SELECT try('SELECT DISTINCT ON (x) x, price FROM bids');
SELECT try('SELECT DISTINCT ON (auction) auction, w.window_end, price FROM bids, stream_ckpt.tumble(at, ''1 h'') w');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids, stream_ckpt.tumble(at, ''1 h'') w) r WHERE rn <= 3');
SELECT try('SELECT * FROM (SELECT price, row_number() OVER (ORDER BY price) AS rn FROM bids, stream_ckpt.tumble(at, ''1 h'') w) r WHERE rn <= 3');
SELECT try('SELECT DISTINCT ON (auction) auction, price FROM bids ORDER BY auction, ROW(price, bidder)');
SELECT try('SELECT DISTINCT ON (auction) auction, price FROM bids', 'close');
-- rows as values: of the subquery, of a composite type, and those that have no type
SELECT try('SELECT auction, rn, to_jsonb(r) - ''rn'' AS j FROM (SELECT auction, price, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn <= 3');
SELECT try('WITH r AS (SELECT auction, price, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) SELECT x, to_jsonb(other) AS j FROM r other(x) WHERE rn = 1 AND other IS NOT NULL');
CREATE TYPE pair AS (a int, b text);
SELECT try('SELECT auction, (p).a AS a, to_jsonb(p) AS j FROM (SELECT auction, ROW(auction, bidder)::pair AS p, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn = 1');
SELECT try('SELECT auction, to_jsonb(p) AS j FROM (SELECT auction, ROW(price, bidder) AS p, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn = 1');
SELECT try('SELECT auction, (p).f1 FROM (SELECT auction, ROW(price, bidder) AS p, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn = 1');
SELECT try('SELECT auction, to_jsonb(p) AS j FROM (SELECT auction, ARRAY[ROW(price, bidder)] AS p, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn = 1');
SELECT try('SELECT auction, price FROM (SELECT auction, price, ROW(price, bidder) AS p, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn FROM bids) r WHERE rn = 1 AND p IS NOT NULL');
SELECT try('SELECT DISTINCT ON (auction) auction, price FROM bids ORDER BY auction, ARRAY[ROW(price, bidder)]');
-- what a bound is
CREATE FUNCTION three() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 3; END';
CREATE FUNCTION never(bigint, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE OPERATOR < (FUNCTION = never, LEFTARG = bigint, RIGHTARG = int);
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 3::smallint AND rn < bigint ''4''');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= three()');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 1 + 2');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn <= 70000::smallint');
SELECT try('SELECT * FROM (SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bids) r WHERE rn OPERATOR(topn.<) 3');
-- nobody else calls the aggregate
SELECT stream_ckpt.best_rows_combine('\x00', '\x00');

SET client_min_messages = warning;
SELECT stream_ckpt.detach_stream('bids');
DROP SCHEMA topn CASCADE;
