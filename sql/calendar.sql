-- tumble() and cumulate() by the calendar of a time zone: what the batch truth is made of, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS stream_ckpt;
SELECT stream_ckpt.stop_pipeline('default');
CREATE SCHEMA calendar;
SET search_path = calendar, public;
CREATE TABLE events (ts timestamptz, k int);
CREATE TABLE local_events (ts timestamp, k int);
SELECT stream_ckpt.attach_stream('events', event_time => 'ts');
SELECT stream_ckpt.attach_stream('local_events', event_time => 'ts');
RESET client_min_messages;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';

-- days, of 23 and of 25 hours
SELECT *, window_end - window_start AS size FROM stream_ckpt.tumble('2024-03-31 12:00+00', '1 day', timezone => 'Europe/Berlin');
SELECT *, window_end - window_start AS size FROM stream_ckpt.tumble('2024-10-27 12:00+00', '1 day', timezone => 'Europe/Berlin');
SELECT window_start, window_end FROM stream_ckpt.tumble('2024-03-31 12:00+00', '1 day');
SELECT window_start, window_end FROM stream_ckpt.tumble('2024-03-31 12:00+00', '1 day', timezone => NULL);
-- months, quarters, years
SELECT window_start, window_end FROM stream_ckpt.tumble('2024-02-29 23:30+00', '1 month', timezone => 'Europe/Berlin');
SELECT window_start, window_end FROM stream_ckpt.tumble('2024-02-29 23:30+00', '3 months', timezone => 'America/New_York');
SELECT window_start, window_end FROM stream_ckpt.tumble('2024-01-01 04:30+00', '1 year', timezone => 'America/New_York');
SELECT window_start, window_end FROM stream_ckpt.tumble('1969-12-31 12:00+00', '7 months', timezone => 'Asia/Tokyo');
-- from the origin's local date
SELECT to_char(window_start AT TIME ZONE 'Europe/Berlin', 'Dy YYYY-MM-DD HH24:MI') FROM stream_ckpt.tumble('2024-06-12 12:00+00', '1 week', timezone => 'Europe/Berlin');
SELECT to_char(window_start AT TIME ZONE 'Europe/Berlin', 'Dy YYYY-MM-DD HH24:MI') FROM stream_ckpt.tumble('2024-06-12 12:00+00', '1 week', origin => '2024-01-01 00:00 Europe/Berlin', timezone => 'Europe/Berlin');
SELECT window_start, window_end FROM stream_ckpt.tumble('2024-06-12 12:00+00', '3 months', '2024-02-01 00:00 Europe/Berlin', 'Europe/Berlin');
-- timestamp: local times
SELECT * FROM stream_ckpt.tumble('2024-02-29 12:34:56'::timestamp, '1 month');
SELECT * FROM stream_ckpt.tumble('2024-02-29 12:34:56'::timestamp, '1 year', origin => '2020-04-01');
SELECT * FROM stream_ckpt.tumble('0044-03-15 12:34:56 BC'::timestamp, '5 months');
SELECT * FROM stream_ckpt.tumble('2024-02-29 12:34:56'::timestamp, '2 days');
-- midnight that comes twice, that is left out; a day that is left out
SELECT window_start, window_end FROM stream_ckpt.tumble('2024-10-27 00:30+00', '1 day', timezone => 'Atlantic/Azores');
SELECT window_start, window_end FROM stream_ckpt.tumble('2018-11-04 12:00+00', '1 day', timezone => 'America/Sao_Paulo');
SELECT window_start, window_end FROM stream_ckpt.tumble('2011-12-30 09:00+00', '1 day', timezone => 'Pacific/Apia');
SELECT window_start, window_end FROM stream_ckpt.tumble('2011-12-30 11:00+00', '1 day', timezone => 'Pacific/Apia');
-- cumulate(): by hours from the day's start, the last step cut; by days; by months
SELECT window_end FROM stream_ckpt.cumulate('2024-10-27 17:30+00'::timestamptz, '2 hours', '1 day', timezone => 'Europe/Berlin') ORDER BY 1;
SELECT window_start, window_end FROM stream_ckpt.cumulate('2024-02-22 12:00+00'::timestamptz, '3 days', '1 month', timezone => 'Europe/Berlin') ORDER BY 2;
SELECT window_start, window_end FROM stream_ckpt.cumulate('2024-08-15'::timestamp, '2 months', '1 year') ORDER BY 2;
SELECT window_start, window_end FROM stream_ckpt.cumulate('2011-12-29 12:00-10'::timestamptz, '1 day', '1 month', timezone => 'Pacific/Apia') ORDER BY 2;
SELECT count(*) FROM stream_ckpt.cumulate('2024-10-27 17:30+00'::timestamptz, '2 hours', '1 day');
-- in no window
SELECT count(*) FROM stream_ckpt.cumulate('infinity'::timestamptz, '1 hour', '1 month', timezone => 'UTC');
SELECT count(*) FROM stream_ckpt.cumulate(NULL::timestamp, '1 day', '1 month');
SELECT count(*) FROM stream_ckpt.tumble(NULL::timestamptz, '1 day', timezone => 'UTC');
SELECT count(*) FROM stream_ckpt.tumble('infinity'::timestamptz, '1 month', timezone => 'UTC');
SELECT count(*) FROM stream_ckpt.tumble('-infinity'::timestamp, '1 month');
-- errors
\set VERBOSITY terse
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamptz, '1 month');
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamptz, '1 month 1 day', timezone => 'UTC');
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamptz, '-1 month', timezone => 'UTC');
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamptz, '0', timezone => 'UTC');
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamp, '1 month 1 day');
SELECT * FROM stream_ckpt.tumble('2024-01-01'::timestamptz, '1 day', timezone => 'Europe/Belin');
\set VERBOSITY default
-- nothing is left of the functions in a plan, and without a timezone nothing of the calendar
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF, VERBOSE) ' || query; END $$;
SELECT bool_or(l LIKE '%Group Key: date_bin(%') AS inlined, bool_or(l ~ 'Function Scan|tumble\(|_period|timezone\(|CASE') AS called
FROM plan_of('SELECT w.window_start, w.window_end, w.window_time, count(*) FROM events, stream_ckpt.tumble(ts, ''1 day'') w GROUP BY 1, 2, 3') l;
SELECT bool_or(l LIKE '%Group Key: timezone(%date_bin(%') AS inlined, bool_or(l ~ 'Function Scan|tumble\(|_period|age\(|CASE') AS called
FROM plan_of('SELECT w.window_start, w.window_end, w.window_time, count(*) FROM events, stream_ckpt.tumble(ts, ''1 day'', timezone => ''UTC'') w GROUP BY 1, 2, 3') l;
SELECT bool_or(l LIKE '%Group Key: timezone(%age(%') AS inlined, bool_or(l ~ 'Function Scan|tumble\(|_period|date_bin\(') AS called
FROM plan_of('SELECT w.window_start, w.window_end, w.window_time, count(*) FROM events, stream_ckpt.tumble(ts, ''1 month'', timezone => ''UTC'') w GROUP BY 1, 2, 3') l;
SELECT bool_or(l LIKE '%Group Key: date_bin(%') AS inlined, bool_or(l ~ 'Function Scan|tumble\(|_period|age\(|CASE') AS called
FROM plan_of('SELECT w.window_start, w.window_end, w.window_time, count(*) FROM local_events, stream_ckpt.tumble(ts, ''1 hour'') w GROUP BY 1, 2, 3') l;
DROP FUNCTION plan_of(text);

-- what continuous queries take, and what they refuse
CREATE FUNCTION try(call text, stream text = 'events') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stream_ckpt.create_query('tried', format('SELECT w.window_end, count(*) FROM %s, stream_ckpt.%s w GROUP BY 1', stream, call));
	DROP TABLE tried;
	RETURN 'accepted';
END $$;
SELECT try('tumble(ts, ''1 day'', timezone => ''Europe/Berlin'')');
SELECT try('tumble(ts, ''1 day'', timezone => ''europe/BERLIN'')');
SELECT try('tumble(ts, ''1 day'', timezone => NULL)');
SELECT try('tumble(ts, ''1 week'', ''2024-01-01 00:00 Europe/Berlin'', ''Europe/Berlin'')');
SELECT try('tumble(ts, ''3 months'', timezone => ''UTC'')');
SELECT try('tumble(ts, ''1 year'')', 'local_events');
SELECT try('tumble(ts, ''1 month'', ''2024-01-01'')', 'local_events');
SELECT try('tumble(ts, ''1 month'')');
SELECT try('tumble(ts, ''1 month 1 day'', timezone => ''UTC'')');
SELECT try('tumble(ts, ''1 day 1 hour'', timezone => ''UTC'')');
SELECT try('tumble(ts, ''24 hours'', timezone => ''UTC'')');
SELECT try('tumble(ts, ''1 month 1 day'')', 'local_events');
SELECT try('tumble(ts, ''0'', timezone => ''UTC'')');
SELECT try('tumble(ts, ''-1 day'', timezone => ''UTC'')');
SELECT try('tumble(ts, ''200000 years'', timezone => ''UTC'')');
SELECT try('tumble(ts, ''1 day'', ''Europe/Berlin'')');
SELECT try('tumble(ts, ''1 day'', timezone => ''Europe/Belin'')');
SELECT try('tumble(ts, ''1 day'', timezone => ''right/Europe/Berlin'')');
SELECT try('tumble(ts, ''1 day'', timezone => ''CET'')');
SELECT try('tumble(ts, ''1 day'', timezone => current_setting(''TimeZone''))');
SELECT try('tumble(ts, ''1 week'', origin => ''2024-01-01'', timezone => ''Europe/Berlin'')');
SELECT try('tumble(ts, ''1 month'', origin => ''2024-01-15 00:00 Europe/Berlin'', timezone => ''Europe/Berlin'')');
SELECT try('tumble(ts, ''1 month'', ''2024-01-15'')', 'local_events');
SELECT try('tumble(ts, ''1 day'', origin => ''infinity'', timezone => ''Europe/Berlin'')');
SELECT try('tumble(ts, ''1 day'', timezone => ''Europe/Berlin'')', 'local_events');
SELECT try('cumulate(ts, ''1 hour'', ''1 day'', timezone => ''Europe/Berlin'')');
SELECT try('cumulate(ts, ''1 day'', ''1 month'', timezone => ''Europe/Berlin'')');
SELECT try('cumulate(ts, ''2 months'', ''1 year'')', 'local_events');
SELECT try('cumulate(ts, ''1 day'', ''1 month'')');
SELECT try('cumulate(ts, ''2 days'', ''7 days'', timezone => ''UTC'')');
SELECT try('cumulate(ts, ''1 month'', ''7 days'', timezone => ''UTC'')');
SELECT try('cumulate(ts, ''1 day 1 hour'', ''1 month'', timezone => ''UTC'')');
SELECT try('cumulate(ts, ''1 hour'', ''12 hours'', timezone => ''UTC'')');
SELECT try('cumulate(ts, ''0'', ''1 day'', timezone => ''UTC'')');
SELECT try('cumulate(ts, ''1 second'', ''1 day'', timezone => ''UTC'')');
SELECT try('hop(ts, ''1 day'', ''1 month'')');
-- what is shown of them
CREATE FUNCTION panes(call text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT e FROM stream_ckpt.explain_query(format('SELECT w.window_end, count(*) FROM events, stream_ckpt.%s w GROUP BY 1', call)) e WHERE e::text ~ 'Window|panes'
$$;
SELECT panes('tumble(ts, ''3 months'', timezone => ''Europe/Berlin'')');
SELECT panes('cumulate(ts, ''1 hour'', ''1 day'', timezone => ''Europe/Berlin'')');
SELECT panes('cumulate(ts, ''1 day'', ''1 month'', timezone => ''Europe/Berlin'')');

SET client_min_messages = warning;
SELECT stream_ckpt.start_pipeline('default');
DROP SCHEMA calendar CASCADE;
SELECT count(*) AS left FROM stream_ckpt.query;
SELECT count(*) AS left FROM stream_ckpt.stream;
RESET TimeZone;
RESET DateStyle;
