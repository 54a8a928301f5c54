# shellcheck shell=bash
#
# tables.sh - figures of tables beside the stream and of the stream's own past: joins, each over the same query without its join,
# and backfill.  Each on a server of its own.  Sourced by run.
#
# Environment: JOIN_ROWS (1000000), JOIN_LARGE_ROWS (10000000): rows of the tables that are looked up by index, powers of ten from
# 100000 on; BACKFILL_ROWS (10000000), HANDOVER_ROWS (1000000), BACKFILL_RATE (200): a writer's transactions a second;
# BACKFILL_BEFORE (20): seconds that are measured without backfill; BACKFILL_PIPELINE (default): of the query that is backfilled.

JOIN_ROWS=${JOIN_ROWS:-1000000}
JOIN_LARGE_ROWS=${JOIN_LARGE_ROWS:-10000000}
BACKFILL_ROWS=${BACKFILL_ROWS:-10000000}
HANDOVER_ROWS=${HANDOVER_ROWS:-1000000}
BACKFILL_RATE=${BACKFILL_RATE:-200}
BACKFILL_BEFORE=${BACKFILL_BEFORE:-20}
BACKFILL_PIPELINE=${BACKFILL_PIPELINE:-default}

#
# Joins
#

# The table of "dimension_rows" rows that W1 is joined with, in a random order of its numbers; groups are of a thousand keys.
make_dimension() {
	sql >/dev/null <<-SQL
		CREATE TABLE dimension (id int8, code int4, name text);
		INSERT INTO dimension SELECT i, 1 + i % 1000, 'name ' || i FROM generate_series(0, $dimension_rows) i ORDER BY hashint8(i);
		CREATE UNIQUE INDEX ON dimension (id);
		VACUUM ANALYZE dimension;
	SQL
}

# bench_join FIGURE ROWS KEY: drain of W1 grouped by a column of the row of "dimension" that KEY finds, over W1 grouped by url_id
bench_join() {
	dimension_rows=$2
	prepare=make_dimension bench_ratio "$1" "SELECT w.window_start, w.window_end, d.code AS key, $VALUES
		FROM W1 JOIN dimension d ON d.id = $3, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1, 2, 3" "$(by_window "tumble(ts, '1 minute')" url_id)"
}

bench_join_small() { bench_join join_small 1000 url_id; }
bench_join_index() { bench_join join_index "$JOIN_ROWS" "(user_id * ($JOIN_ROWS / 100000) + url_id % ($JOIN_ROWS / 100000))"; }

# That of ten million rows, with what the task has taken of its own by then.
bench_join_large() {
	after_query=note_join_memory bench_join join_large "$JOIN_LARGE_ROWS" "(user_id * ($JOIN_LARGE_ROWS / 100000) + url_id % ($JOIN_LARGE_ROWS / 100000))"
}
note_join_memory() {	# TABLE
	[ "$1" = w1_join_large ] || return 0
	note join_large_mb "$(awk -v kb="$(rss_of "$(task_pid)")" 'BEGIN { printf "%.1f\n", kb / 1024 }')" "RssAnon of the task"
}

#
# Backfill
#

# backfill_server ROWS: W1's rows in a table "past", which is a stream, and another stream with a query: that of start_ages
backfill_server() {
	new_server </dev/null
	new_stream table past
	new_stream log beside
	sql >/dev/null <<-SQL
		INSERT INTO past SELECT '2024-01-01 00:00+00'::timestamptz + i * interval '6 ms', hashint8(i) & 65535, 1 + (hashint8(i * 7) & 2147483647) % 1000,
			(hashint8(i * 11) & 2147483647) % 5000 FROM generate_series(1, $1) i;
		VACUUM ANALYZE past;
		SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '100 ms');
		CREATE TABLE beside_ages (at timestamptz DEFAULT clock_timestamp(), age float8);
		SELECT stream_ckpt.create_query('beside_result', \$q\$ SELECT w.window_start, w.window_end, max(ts) AS last
			FROM beside, stream_ckpt.tumble(ts, '1 day') w GROUP BY w.window_start, w.window_end \$q\$, emit => 'update');
		INSERT INTO beside VALUES (clock_timestamp(), 1, 1, 0);
		SELECT stream_ckpt.sync('30 minutes');
	SQL
	[ "$BACKFILL_PIPELINE" = default ] || sql >/dev/null -c "SELECT stream_ckpt.create_pipeline('$BACKFILL_PIPELINE')"
	sql -c "SELECT count(*) FROM past" >/dev/null
	quiesce
}

# Q1 over "past" with its history, from the statement until all of it is in the committed result: backfill_seconds; and when
# that began and ended, and the query was where it belongs, by the server's clock.
backfill() {
	backfill_began=$(sql -c "SELECT clock_timestamp()")
	backfill_seconds=$(timed <(
		echo "SELECT stream_ckpt.create_query('past_result', \$q\$ $(definition q1 past tumble) \$q\$, backfill => true, pipeline => '$BACKFILL_PIPELINE');"
		echo "SELECT stream_ckpt.sync('3 hours', 'past_result');"
	))
	backfill_ended=$(sql -c "SELECT clock_timestamp()")
	# it may still be on its way from the pipeline in which it has begun, and then catches up
	until [ "$(sql -c "SELECT target IS NULL AND status NOT IN ('starting', 'restarting') FROM stream_ckpt.queries WHERE query = 'past_result'::regclass")" = t ]; do
		sleep 0.1
	done
	backfill_home=$(sql -c "SELECT clock_timestamp()")
	sql >/dev/null -c "SELECT stream_ckpt.sync('30 minutes', 'past_result')"
	[ "$(sql -c "SELECT status FROM stream_ckpt.queries WHERE query = 'past_result'::regclass")" = 'catching up' ] ||
		check_well past_result
}

# Its result, over the rows that were there and those that came since.
check_backfill() {
	sql >/dev/null -c "SELECT stream_ckpt.sync('3 hours')"
	check_result past
}

ages_between() {	# AGGREGATE FROM TO
	sql -c "SELECT round(($1)::numeric, 1) FROM beside_ages WHERE at BETWEEN '$2' AND '$3'"
}

# The batch query comes last, as for drain.  A stop is seen by the sample that waited for it.
bench_backfill() {
	local before p99 during batch quantile='percentile_cont(0.99) WITHIN GROUP (ORDER BY age)'
	for _ in $(seq "$REPEATS"); do
		backfill_server "$BACKFILL_ROWS"
		start_ages
		before=$(sql -c "SELECT clock_timestamp()")
		sleep "$BACKFILL_BEFORE"
		backfill
		p99=$(ages_between "$quantile" "$before" "$backfill_began")
		sleep 2
		end_ages
		during=$(ages_between "$quantile" "$backfill_began" "$backfill_ended")
		check_backfill
		pipeline stop
		quiesce
		batch=$(run_batch q1 past)
		note backfill "$(divide "$backfill_seconds" "$batch")" "backfill $backfill_seconds s, batch $batch s"
		note backfill_p99 "$(divide "$during" "$p99")" "freshness of others meanwhile $during ms, before $p99 ms"
	done
}

epoch() { sql -c "SELECT floor(extract(epoch FROM '$1'::timestamptz))"; }

# p99 of the latencies in microseconds that pgbench logged from one second up to another, each from when it was due
latency_between() {	# FOLDER FROM TO
	awk -v from="$2" -v to="$3" '$5 >= from && $5 < to { print $3 }' "$1"/pgbench_log.* >"$SC_WORK/latencies"
	quantile 0.99 "$SC_WORK/latencies"
}

# A writer of the same table, before a backfill and while it goes on.
bench_backfill_writers() {
	local folder=$SC_WORK/backfill_log writer before with without
	for _ in $(seq "$REPEATS"); do
		backfill_server "$BACKFILL_ROWS"
		cat >"$SC_WORK/backfill.sql" <<-SQL
			\\set user random(1, 100000)
			\\set url random(1, 1000)
			INSERT INTO past VALUES ('2024-02-01 00:00+00'::timestamptz + (clock_timestamp() - '$(sql -c "SELECT clock_timestamp()")'), :user, :url, 1);
		SQL
		rm -rf "$folder"
		as_user mkdir "$folder"
		(cd "$folder" && as_user "$PGBIN/pgbench" -n -c 1 -R "$BACKFILL_RATE" -T 86400 -M prepared -l -f "$SC_WORK/backfill.sql" >"$SC_WORK/writer.log" 2>&1) &
		writer=$!
		sleep 2
		before=$(date +%s)
		sleep "$BACKFILL_BEFORE"
		backfill
		kill -0 "$writer" || { cat "$SC_WORK/writer.log"; die "pgbench failed"; }
		# it ends with its session, and writes its log
		sql >/dev/null -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'"
		wait "$writer" || true
		without=$(latency_between "$folder" "$before" "$(epoch "$backfill_began")")
		with=$(latency_between "$folder" "$(epoch "$backfill_began")" "$(epoch "$backfill_ended")")
		[ -n "$with" ] && [ -n "$without" ] || die "no latencies were logged"
		check_backfill
		note backfill_writers "$(divide "$with" "$without")" "p99 with $with us, without $without us"
	done
}

# How old another query's newest visible row was at most, in ms, from the creation of a query with backfill until it has been
# handed over to its pipeline.
bench_handover() {
	for _ in $(seq "$REPEATS"); do
		backfill_server "$HANDOVER_ROWS"
		start_ages
		backfill
		sleep 2
		end_ages
		note handover "$(ages_between 'max(age)' "$backfill_began" "$(sql -c "SELECT '$backfill_home'::timestamptz + interval '2 seconds'")")" "backfill $backfill_seconds s"
		check_backfill
	done
}
