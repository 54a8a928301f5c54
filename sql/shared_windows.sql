-- hop() and cumulate() as plain functions: what the batch truth is made of.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
RESET client_min_messages;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SELECT * FROM stream_ckpt.hop('2024-02-29 12:34:56+00'::timestamptz, '5 minutes', '15 minutes') ORDER BY 1;
SELECT * FROM stream_ckpt.hop('2024-02-29 12:34:56'::timestamp, '2 minutes', '5 minutes', '2024-01-01 00:00:01') ORDER BY 1;
SELECT * FROM stream_ckpt.cumulate('2024-02-29 12:34:56+00'::timestamptz, '2 minutes', '10 minutes') ORDER BY 2;
SELECT * FROM stream_ckpt.cumulate('2024-02-29 12:34:56'::timestamp, '6 hours', '1 day', '2000-01-01 06:00') ORDER BY 2;
-- bounds belong to the windows that they start
SELECT window_start FROM stream_ckpt.hop('2024-01-01 00:10+00'::timestamptz, '5 minutes', '10 minutes') ORDER BY 1;
SELECT window_end FROM stream_ckpt.cumulate('2024-01-01 00:02+00'::timestamptz, '2 minutes', '6 minutes') ORDER BY 1;
-- between two windows
SELECT count(*) FROM stream_ckpt.hop('2024-01-01 00:07+00'::timestamptz, '5 minutes', '2 minutes');
SELECT window_start FROM stream_ckpt.hop('2024-01-01 00:06+00'::timestamptz, '5 minutes', '2 minutes');
-- before the origin, with microseconds
SELECT window_start, window_end FROM stream_ckpt.hop('1950-01-01 00:00:00.000001'::timestamp, '1 microsecond', '2 microseconds') ORDER BY 1;
-- NULL and infinite times are in no window; lengths without a length
SELECT count(*) FROM stream_ckpt.hop(NULL::timestamptz, '1 minute', '2 minutes');
SELECT count(*) FROM stream_ckpt.hop('infinity'::timestamptz, '1 minute', '2 minutes');
SELECT count(*) FROM stream_ckpt.cumulate('-infinity'::timestamp, '1 minute', '2 minutes');
SELECT * FROM stream_ckpt.hop('2024-01-01'::timestamptz, '1 day', '1 month');
SELECT * FROM stream_ckpt.hop('2024-01-01'::timestamptz, '0', '1 day');
SELECT * FROM stream_ckpt.cumulate('2024-01-01'::timestamptz, '1 month', '1 year');
-- each of them against all windows that there are, by their bounds
WITH t AS (SELECT timestamp '2024-01-01' + i * interval '37 seconds' AS ts FROM generate_series(0, 300) i)
SELECT slide, size, count(*) AS pairs, count(*) FILTER (WHERE h.window_start IS NULL OR s IS NULL) AS differ
FROM (VALUES (interval '1 minute', interval '5 minutes'), ('2 minutes', '5 minutes'), ('7 minutes', '3 minutes'), ('90 seconds', '90 seconds')) x (slide, size),
  LATERAL (SELECT ts, window_start FROM t, stream_ckpt.hop(ts, slide, size, '2024-01-01')) h
  FULL JOIN LATERAL (SELECT ts, s FROM t, generate_series(timestamp '2024-01-01' - 20 * slide, '2024-01-01 04:00', slide) s WHERE ts >= s AND ts < s + size) a
    ON h.ts = a.ts AND h.window_start = a.s
GROUP BY 1, 2 ORDER BY 1, 2;
WITH t AS (SELECT timestamp '2024-01-01' + i * interval '37 seconds' AS ts FROM generate_series(0, 300) i),
  c AS (SELECT ts, window_start, window_end FROM t, stream_ckpt.cumulate(ts, '2 minutes', '10 minutes', '2024-01-01')),
  a AS (SELECT ts, s, s + n * interval '2 minutes' AS e FROM t, generate_series(timestamp '2024-01-01', '2024-01-01 04:00', '10 minutes') s, generate_series(1, 5) n
        WHERE ts >= s AND ts < s + n * interval '2 minutes')
SELECT (SELECT count(*) FROM c) AS pairs, (SELECT count(*) FROM (TABLE c EXCEPT ALL TABLE a) x) AS more, (SELECT count(*) FROM (TABLE a EXCEPT ALL TABLE c) x) AS less;
RESET TimeZone;
RESET DateStyle;
