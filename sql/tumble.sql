-- tumble() as a plain function: what the batch truth is made of.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
RESET client_min_messages;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SELECT * FROM stream_ckpt.tumble('2024-02-29 12:34:56.789+00'::timestamptz, '1 minute');
SELECT * FROM stream_ckpt.tumble('2024-02-29 12:34:56.789'::timestamp, '15 minutes');
SELECT * FROM stream_ckpt.tumble('2024-02-29 12:34:56+00'::timestamptz, '1 hour', origin => '2024-01-01 00:10+00');
-- a bound belongs to the window that it starts; times before the origin too
SELECT * FROM stream_ckpt.tumble('2024-01-01 00:01+00'::timestamptz, '1 minute');
SELECT * FROM stream_ckpt.tumble('1969-12-31 23:59:30+00'::timestamptz, '1 minute');
SELECT * FROM stream_ckpt.tumble('1950-01-01 00:00:00.000001'::timestamp, '7 days');
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamptz, '1 microsecond');
-- a day is 24 hours, daylight saving or not
SET TimeZone = 'Europe/Berlin';
SELECT *, window_end - window_start AS size FROM stream_ckpt.tumble('2024-03-31 12:00'::timestamptz, '1 day');
SELECT *, window_end - window_start AS size FROM stream_ckpt.tumble('2024-03-31 12:00'::timestamp, '1 day');
SELECT *, window_end - window_start AS size FROM stream_ckpt.tumble('2024-10-27 12:00'::timestamptz, '36 hours');
SET TimeZone = 'UTC';
-- NULL and infinite times are in no window
SELECT * FROM stream_ckpt.tumble(NULL::timestamptz, '1 minute');
SELECT * FROM stream_ckpt.tumble('infinity'::timestamptz, '1 minute');
SELECT * FROM stream_ckpt.tumble('-infinity'::timestamp, '1 minute');
-- sizes without a length
\set VERBOSITY terse
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamptz, '1 month');
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamptz, '0');
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamp, '-1 s');

\set VERBOSITY default
CREATE TABLE tumble_test (ts timestamptz, local timestamp, k int);
INSERT INTO tumble_test SELECT t, t, extract(second FROM t)::int % 3
FROM generate_series('2024-01-01'::timestamp, '2024-01-01 02:00', '17 s') t;
INSERT INTO tumble_test VALUES (NULL, NULL, 0), ('infinity', '-infinity', 1);
-- nothing is left of the function in a plan
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF, VERBOSE) ' || query; END $$;
SELECT bool_or(l LIKE '%Group Key: date_bin(%') AS inlined, bool_or(l ~ 'Function Scan|tumble\(') AS called
FROM plan_of('SELECT w.window_start, k, count(*) FROM tumble_test, stream_ckpt.tumble(ts, ''10 minutes'') w GROUP BY 1, 2') l;
SELECT bool_or(l LIKE '%Group Key: date_bin(%') AS inlined, bool_or(l ~ 'Function Scan|tumble\(') AS called
FROM plan_of('SELECT w.window_start, k, count(*) FROM tumble_test CROSS JOIN LATERAL stream_ckpt.tumble(local, ''10 minutes'') w GROUP BY 1, 2') l;
DROP FUNCTION plan_of(text);
-- and it equals date_bin
SELECT window_start, window_end, window_time, k, count(*) FROM tumble_test, stream_ckpt.tumble(ts, '10 minutes') GROUP BY 1, 2, 3, 4
EXCEPT ALL
SELECT s, s + interval '10 minutes', s + interval '9 minutes 59.999999 s', k, count(*)
FROM (SELECT date_bin('10 minutes', ts, '1970-01-01 00:00+00') AS s, k FROM tumble_test WHERE isfinite(ts)) b GROUP BY 1, 2, 3, 4;
SELECT count(*), count(DISTINCT window_start), sum(n) FROM (
  SELECT window_start, count(*) AS n FROM tumble_test, stream_ckpt.tumble(local, '10 minutes') GROUP BY 1) x;
DROP TABLE tumble_test;
RESET TimeZone;
RESET DateStyle;
