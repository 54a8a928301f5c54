-- Queries without GROUP BY and aggregates: each row that passes WHERE is a row of the result.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.start_pipeline('default');
CREATE SCHEMA stateless;
SET search_path = stateless, public;
CREATE TABLE payments (id bigint PRIMARY KEY, at timestamptz NOT NULL, card text, amount numeric(10, 2), note text, gone int);
ALTER TABLE payments DROP COLUMN gone;
SELECT stream_ckpt.attach_stream('payments', event_time => 'at');
CREATE TABLE timeless (a int, b int);
SELECT stream_ckpt.attach_stream('timeless');
RESET client_min_messages;
SET timezone = 'UTC';
\set SHOW_CONTEXT never

-- what is made
SELECT stream_ckpt.create_query('alerts', 'SELECT id, at, upper(card) AS card, amount * 2 AS doubled, ''large'' AS why FROM payments WHERE amount > 100');
SELECT stream_ckpt.create_query('copy', 'SELECT * FROM payments');
SELECT stream_ckpt.create_query('whole', 'SELECT p, p.amount FROM payments p WHERE p.note IS NOT NULL');
SELECT stream_ckpt.create_query('sums', 'SELECT a + b AS s, a FROM timeless WHERE a <> b');
SELECT stream_ckpt.create_query('letters', 'SELECT a / b AS q FROM timeless', on_error => 'dead_letter');
SELECT stream_ckpt.create_query('constant', 'SELECT 1 AS one FROM timeless');
\d alerts
SELECT query, emit FROM stream_ckpt.queries WHERE stream IN ('payments'::regclass, 'timeless'::regclass) ORDER BY query::text;

-- what it does: duplicates stay, rows without an event time count, and so do those that are late
INSERT INTO payments VALUES (1, '2024-01-01 00:00', 'a', 100.01, NULL), (2, '2024-01-02 00:00', 'b', 100, 'note'), (3, '2024-01-03 00:00', NULL, 101, '');
INSERT INTO payments VALUES (4, '1999-01-01 00:00', 'late', 1000, NULL), (5, 'infinity', 'never', 1000, NULL), (6, '2024-01-01 00:00', 'none', NULL, NULL);
INSERT INTO timeless VALUES (1, 2), (1, 2), (2, 2), (NULL, 1), (3, 0), (4, 3);
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
SELECT * FROM alerts ORDER BY id;
SELECT * FROM copy ORDER BY id;
SELECT * FROM whole ORDER BY (p).id;
SELECT * FROM sums ORDER BY s;
SELECT * FROM letters ORDER BY q;
SELECT kind, row, message FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass;
SELECT count(*) FROM constant;
SELECT query, stream_ckpt.verify(query) FROM unnest('{alerts, copy, whole, sums, constant}'::regclass[]) query;
SELECT query, rows_in, late_rows, null_event_times FROM stream_ckpt.queries WHERE stream IN ('payments'::regclass, 'timeless'::regclass) ORDER BY query::text;

-- the result can be a stream: its rows are inserted only
SELECT stream_ckpt.attach_stream('alerts', event_time => 'at');
SELECT stream_ckpt.create_query('of_alerts', 'SELECT id + 1 AS next FROM alerts');
INSERT INTO payments VALUES (7, '2024-01-01 00:00', 'a', 200, NULL);
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
SELECT stream_ckpt.sync() IS NOT NULL AS synced;
SELECT * FROM of_alerts;

-- what makes no sense
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless', emit => 'close');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless', emit => 'update');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless', emit => 'rows');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless', allowed_lateness => '1 minute');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless', keep_late_rows => true);
SELECT stream_ckpt.create_query('q', 'SELECT w.window_start, id FROM payments, stream_ckpt.hop(at, ''1 minute'', ''5 minutes'') w', allowed_lateness => '1 minute');
SELECT stream_ckpt.create_query('q', 'SELECT w.window_start, id FROM payments, stream_ckpt.hop(at, ''1 minute'', ''5 minutes'') w', emit => 'close');
SELECT stream_ckpt.create_query('q', 'SELECT w.window_start, id FROM payments, stream_ckpt.hop(at, ''1 minute'', ''5 minutes'') w', keep_late_rows => true);
-- clauses and expressions
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless ORDER BY a');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless LIMIT 3');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless OFFSET 3');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless FOR UPDATE');
SELECT stream_ckpt.create_query('q', 'SELECT a, unnest(ARRAY[a, b]) FROM timeless');
SELECT stream_ckpt.create_query('q', 'SELECT a, generate_series(1, a) AS n FROM timeless WHERE a > 0');
SELECT stream_ckpt.create_query('q', 'SELECT a, random() AS r FROM timeless');
SELECT stream_ckpt.create_query('q', 'SELECT a, now() AS at FROM timeless');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless WHERE random() < 0.1');
SELECT stream_ckpt.create_query('q', 'SELECT ctid FROM timeless');
SELECT stream_ckpt.create_query('q', 'SELECT a, b AS a FROM timeless');
SELECT stream_ckpt.create_query('q', 'SELECT ROW(a, b) AS r FROM timeless');
SELECT stream_ckpt.create_query('q', 'SELECT a FROM timeless t WHERE EXISTS (SELECT FROM payments WHERE id = t.a)');
SELECT stream_ckpt.create_query('q', 'SELECT a, count(*) OVER () FROM timeless');
SET client_min_messages = warning;
SELECT stream_ckpt.stop_pipeline('default');
DROP TABLE of_alerts, alerts, copy, whole, sums, letters, constant;
SELECT stream_ckpt.detach_stream('payments');
SELECT stream_ckpt.detach_stream('timeless');
DROP SCHEMA stateless CASCADE;
