# shellcheck shell=bash
#
# windows.sh - figures of kinds of windows: W1's backlog in a table's WAL, drained by a query with one of them over another
# query of the same rows.  Each on a server of its own.  Nexmark: events a second and core.  Sourced by run.
#
# Environment: NEXMARK_EVENTS (2000000).

NEXMARK_EVENTS=${NEXMARK_EVENTS:-2000000}
VALUES="count(*) AS hits, sum(ms) AS total, avg(ms) AS mean, max(ms) AS longest"

# time_query NAME SELECT [OPTIONS]: seconds from the start of the pipeline until W1's backlog is in the query's committed
# result, which is compared with its definition; query_seconds is set, and query_cpu: of all processes of the server.
time_query() {
	local table=w1_$1 before
	new_stream table "$table"
	sql >/dev/null <<-SQL
		SELECT stream_ckpt.create_query('${table}_result', \$q\$ ${2//W1/$table} \$q\$${3:+, $3});
	SQL
	wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
	pipeline stop
	copy_script "$table" | sql -f - >/dev/null
	quiesce
	before=$(server_cpu)
	query_seconds=$(timed <(
		echo "SELECT stream_ckpt.start_pipeline('default');"
		echo "SELECT stream_ckpt.sync('30 minutes');"
	))
	query_cpu=$(minus "$(server_cpu)" "$before")
	[ -z "${after_query:-}" ] || "$after_query" "$table"
	check_well "${table}_result"
	check_result "$table"
	drop_all "$table"
}

# bench_ratio FIGURE SELECT OVER [OPTIONS]: rows/s of a query over those of another.  "prepare", if set, makes what they read
# beside W1; "after_query" is called with the table's name while the query is there.
bench_ratio() {
	local repeat other order what
	declare -A seconds cpu
	new_server </dev/null
	[ -z "${prepare:-}" ] || "$prepare"
	for repeat in $(seq "$REPEATS"); do
		order="query other"
		[ $((repeat % 2)) -eq 1 ] || order="other query"
		for what in $order; do
			if [ "$what" = query ]; then time_query "$1" "$2" "${4:-}"; else time_query "${1}_other" "$3" "${5:-}"; fi
			seconds[$what]=$query_seconds
			cpu[$what]=$query_cpu
		done
		other=${seconds[other]}
		note "$1" "$(divide "$other" "${seconds[query]}")" "${seconds[query]} s, the other $other s; of CPU ${cpu[query]} s, the other ${cpu[other]} s"
	done
}

# by_window CALL KEY: a SELECT with this window
by_window() {
	echo "SELECT w.window_start, w.window_end, $2 AS key, $VALUES FROM W1, stream_ckpt.$1 w GROUP BY 1, 2, 3"
}

bench_hop() { bench_ratio hop "$(by_window "hop(ts, '1 minute', '10 minutes')" url_id)" "$(by_window "tumble(ts, '1 minute')" url_id)"; }
bench_cumulate() { bench_ratio cumulate "$(by_window "cumulate(ts, '1 minute', '1 hour')" url_id)" "$(by_window "tumble(ts, '1 minute')" url_id)"; }

bench_session() { bench_ratio session "$(by_window "session(ts, '30 seconds')" user_id)" "$(by_window "tumble(ts, '1 minute')" user_id)"; }

bench_top3() {
	local groups
	groups=$(by_window "tumble(ts, '1 minute')" url_id)
	bench_ratio top3 "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY window_start ORDER BY hits DESC, key) AS place FROM ($groups) g) p WHERE place <= 3" "$groups"
}

bench_calendar() {
	bench_ratio calendar "$(by_window "tumble(ts, '1 day', timezone => 'Europe/Berlin')" url_id)" "$(by_window "tumble(ts, '1 day')" url_id)" \
		"emit => 'update'" "emit => 'update'"
}

# All groups of either are in one piece of time, and are written anew each second.
bench_unwindowed() {
	local key="user_id * 10 + url_id % 10"
	bench_ratio unwindowed "SELECT $key AS key, $VALUES FROM W1 GROUP BY 1" "$(by_window "tumble(ts, '1 hour')" "$key")" \
		"" "emit => 'update'"
}

# count(DISTINCT user_id) per minute, over the plain query in one process.
bench_distinct_minute() {
	local batch
	new_server </dev/null
	for _ in $(seq "$REPEATS"); do
		make_rows_table
		batch=$(timed <(
			echo "SET max_parallel_workers_per_gather = 0; SET work_mem = '1GB';"
			echo "CREATE TABLE distinct_batch AS SELECT date_bin('1 minute', ts, '1970-01-01 00:00+00') AS minute, count(DISTINCT user_id) FROM $rows_table GROUP BY 1;"
		))
		sql -c "DROP TABLE distinct_batch"
		time_query distinct_minute "SELECT w.window_start, w.window_end, count(DISTINCT user_id) AS users FROM W1, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1, 2"
		note distinct_minute "$(divide "$batch" "$query_seconds")" "$query_seconds s, the plain query $batch s"
	done
}

#
# Nexmark
#

# Events a second of a query's CPU, all of the server's processes together, which drain a backlog of bids.
bench_nexmark() {	# QUERY
	local before after cpu copy text
	text=$(awk -v name="-- $1:" '/^-- q/ { found = index($0, name) == 1; next } found && NF' "$SC_ROOT/bench/nexmark/queries.sql")
	new_server </dev/null
	sql -f "$SC_ROOT/bench/nexmark/gen.sql" >/dev/null
	# which takes minutes: once for all queries
	[ -e "$SC_WORK/bids_4" ] || sql >/dev/null -c "SELECT nexmark.load($NEXMARK_EVENTS)" \
		-c "COPY (SELECT * FROM nexmark.bid ORDER BY seq) TO '$SC_WORK/bids'" \
		-c "COPY (SELECT seq, event_no, auction, price FROM nexmark.bid ORDER BY seq) TO '$SC_WORK/bids_4'"
	sql >/dev/null -c "SELECT nexmark.load(0)"
	for _ in $(seq "$REPEATS"); do
		sql >/dev/null <<-SQL
			CREATE TABLE narrow (seq int8, event_no int8, auction int8, price int8);
			CREATE TABLE bid (LIKE nexmark.bid);
			SELECT stream_ckpt.attach_stream('bid', event_time => 'date_time', watermark_delay => '4 seconds');
			SELECT stream_ckpt.create_query('result', \$q\$ $text \$q\$);
		SQL
		wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
		pipeline stop
		copy=$(timed <(echo "COPY narrow FROM '$SC_WORK/bids_4';"))
		sql -c "COPY bid FROM '$SC_WORK/bids'" >/dev/null
		quiesce
		before=$(server_cpu)
		pipeline start
		sql -c "SELECT stream_ckpt.sync('30 minutes')" >/dev/null
		check_well result
		pipeline stop
		after=$(server_cpu)
		cpu=$(minus "$after" "$before")
		pipeline start
		note "nexmark_$1" "$(awk -v n="$(sql -c 'SELECT count(*) FROM bid')" -v s="$cpu" 'BEGIN { printf "%.0f\n", n / s }')" \
			"$cpu s of CPU; COPY into four columns: $(awk -v n="$(sql -c 'SELECT count(*) FROM bid')" -v s="$copy" 'BEGIN { printf "%.0f\n", n / s }') rows/s"
		sql >/dev/null -c "SELECT stream_ckpt.drop_query('result')" -c "SELECT stream_ckpt.detach_stream('bid')" -c "DROP TABLE bid, narrow"
	done
}

bench_nexmark_q5() { bench_nexmark q5; }
bench_nexmark_q7() { bench_nexmark q7; }
bench_nexmark_q11() { bench_nexmark q11; }
bench_nexmark_q12() { bench_nexmark q12; }
bench_nexmark_q15() { bench_nexmark q15; }
bench_nexmark_q16() { bench_nexmark q16; }
bench_nexmark_q17() { bench_nexmark q17; }
