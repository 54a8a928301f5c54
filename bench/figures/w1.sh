# shellcheck shell=bash
#
# w1.sh - figures of W1's rows: drain, ingest, log_copy, a writer's latency.  Sourced by run.

# Backlog in the WAL, then the batch query on the same table: rows/s against rows/s.
bench_drain() {		# QUERY [KIND]
	local query=$1 kind=${2:-table} figure repeat table rows drain batch
	figure=drain_$query
	if [ "$kind" = log ]; then
		figure=drain_log_$query
		make_rows_table
	fi
	for repeat in $(seq "$REPEATS"); do
		table=${figure}_$repeat
		rows=$table
		[ "$kind" = table ] || rows=$rows_table
		pipeline start
		new_stream "$kind" "$table"
		create_query "$table" "$query"
		pipeline stop
		copy_script "$table" | sql -f - >/dev/null
		# hint bits and cache, as a table that was read before
		[ "$kind" = log ] || sql -c "SELECT count(*) FROM $table" -c "ANALYZE $table" >/dev/null
		quiesce
		# the batch query comes second: what it writes would be part of the backlog
		drain=$(timed <(
			echo "SELECT stream_ckpt.start_pipeline('default');"
			echo "SELECT stream_ckpt.sync('30 minutes');"
		))
		pipeline stop
		quiesce
		batch=$(run_batch "$query" "$rows")
		pipeline start
		check_result "$table" "$kind" "$query"
		note "$figure" "$(divide "$batch" "$drain")" "drain $drain s, batch $batch s"
		drop_all "$table" "$kind"
	done
}

run_batch() {	# QUERY TABLE
	timed <(
		echo "SET max_parallel_workers_per_gather = 0; SET work_mem = '1GB';"
		echo "CREATE TABLE $2_batch AS $(definition "$1" "$2" date_bin);"
	)
	sql -c "DROP TABLE $2_batch"
}

# COPY alone, with nothing of ours running, and with a query running until it has all.
bench_ingest() {	# QUERY [KIND]
	local query=$1 kind=${2:-table} figure repeat order what
	figure=ingest_$query
	if [ "$kind" = log ]; then
		figure=ingest_log_$query
		make_rows_table
	fi
	declare -A wall cpu
	for repeat in $(seq "$REPEATS"); do
		order="alone with"
		[ $((repeat % 2)) -eq 1 ] || order="with alone"
		for what in $order; do
			run_ingest "$query" "$repeat" "$what" "$kind"
			wall[$what]=$measured_wall
			cpu[$what]=$measured_cpu
		done
		note "${figure}_wall" "$(divide "${wall[with]}" "${wall[alone]}")" \
			"with ${wall[with]} s, alone ${wall[alone]} s"
		note "${figure}_cpu" "$(divide "${cpu[with]}" "${cpu[alone]}")" \
			"with ${cpu[with]} s, alone ${cpu[alone]} s"
	done
}

run_ingest() {	# QUERY REPEAT alone|with KIND: sets measured_wall, measured_cpu
	local table=ingest_$1_$2_$3_$4 before after sync
	if [ "$3" = with ]; then
		pipeline start
		new_stream "$4" "$table"
		create_query "$table" "$1"
		sql -c "SELECT stream_ckpt.sync('30 minutes')" >/dev/null
		sync="SELECT stream_ckpt.sync('30 minutes');"
	else
		new_table "$table"
		pipeline stop
		sync=
	fi
	quiesce
	before=$(server_cpu)
	measured_wall=$(timed <(
		copy_script "$table"
		echo "$sync"
	))
	after=$(server_cpu)
	measured_cpu=$(minus "$after" "$before")
	if [ "$3" = with ]; then
		check_result "$table" "$4" "$1"
		drop_all "$table" "$4"
	else
		sql -c "DROP TABLE $table"
		pipeline start
	fi
}

# COPY into a log stream that nobody reads, and into a table; nothing of ours runs.
bench_log_copy() {
	local repeat order what table
	declare -A wall
	pipeline stop
	for repeat in $(seq "$REPEATS"); do
		order="table log"
		[ $((repeat % 2)) -eq 1 ] || order="log table"
		for what in $order; do
			table=copy_${repeat}_$what
			if [ "$what" = log ]; then new_stream log "$table"; else new_table "$table"; fi
			quiesce
			wall[$what]=$(timed <(copy_script "$table"))
			if [ "$what" = log ]; then
				sql >/dev/null -c "SELECT stream_ckpt.drop_stream('$table')"
			else
				[ "$(sql -c "SELECT count(*) FROM $table")" = "$ROWS" ] || die "$table has lost rows"
				sql -c "DROP TABLE $table"
			fi
		done
		note log_copy "$(divide "${wall[log]}" "${wall[table]}")" \
			"log stream ${wall[log]} s, table ${wall[table]} s"
	done
	pipeline start
}

# Single rows at a fixed rate, so that both halves do the same work; latency from the moment
# at which each transaction was due.  A tail is what a machine's bad moments make of it: many
# short repeats, whose median they don't reach, tell more than a few long ones.  Prints
# the quantiles of all repeats together, too.
bench_latency() {
	local repeat what order table=latency_with without=latency_without
	declare -A p99
	new_table "$table"
	new_table "$without"
	pipeline start
	attach_with_query "$table" q1
	for repeat in $(seq "$LATENCY_REPEATS"); do
		order="without with"
		[ $((repeat % 2)) -eq 1 ] || order="with without"
		for what in $order; do
			if [ "$what" = with ]; then
				pipeline start
				sql -c "SELECT stream_ckpt.sync('30 minutes')" >/dev/null
			else
				pipeline stop
			fi
			quiesce
			run_latency "latency_$what" "$SC_WORK/latency.$what.$repeat"
			p99[$what]=$(quantile 0.99 "$SC_WORK/latency.$what.$repeat")
		done
		note latency "$(divide "${p99[with]}" "${p99[without]}")" \
			"p99 with ${p99[with]} us, without ${p99[without]} us"
	done
	for what in with without; do
		progress "latency $what, all repeats: p50 $(quantile 0.5 "$SC_WORK/latency.$what".*) us," \
			"p95 $(quantile 0.95 "$SC_WORK/latency.$what".*) us," \
			"p99 $(quantile 0.99 "$SC_WORK/latency.$what".*) us," \
			"p99.9 $(quantile 0.999 "$SC_WORK/latency.$what".*) us"
	done
	pipeline start
	sql -c "SELECT stream_ckpt.sync('30 minutes')" >/dev/null
	check_result_allowing_late "$table"
	drop_all "$table"
	sql -c "DROP TABLE $without"
}

run_latency() {	# TABLE FILE: writes the latencies in microseconds
	local folder=$SC_WORK/latency_log
	as_user mkdir "$folder"
	cat >"$SC_WORK/latency.sql" <<-SQL
		\\set user random(1, 100000)
		\\set url random(1, 1000)
		\\set ms random(1, 5000)
		INSERT INTO $1 VALUES (clock_timestamp(), :user, :url, :ms);
	SQL
	(cd "$folder" && as_user "$PGBIN/pgbench" -n -c 2 -R "$RATE" -T "$LATENCY_SECONDS" -M prepared -l \
		-f "$SC_WORK/latency.sql" >"$SC_WORK/pgbench.log" 2>&1) || { cat "$SC_WORK/pgbench.log"; die "pgbench failed"; }
	# the first second is for caches and plans
	cat "$folder"/pgbench_log.* | sort -n -k5,5 -k6,6 |
		awk -v skip="$RATE" 'NR > skip { print $3 }' >"$2"
	rm -r "$folder"
}

quantile() {	# QUANTILE FILE...
	local quantile=$1
	shift
	sort -n "$@" | awk -v q="$quantile" '{ v[NR] = $1 } END { i = int(NR * q); print v[i < 1 ? 1 : i] }'
}

# Two writers' clocks may be out of order by a moment at the end of a minute.
check_result_allowing_late() {
	[ "$(sql -c "SELECT late_rows FROM stream_ckpt.queries WHERE query = '$1_result'::regclass")" != 0 ] ||
		[ "$(sql -c "SELECT stream_ckpt.verify('$1_result')")" = 0 ] || die "$1_result is wrong"
}

bench_drain_q1() { bench_drain q1; }
bench_drain_q2() { bench_drain q2; }
bench_drain_log_q1() { bench_drain q1 log; }
bench_drain_log_q2() { bench_drain q2 log; }
bench_ingest_q1() { bench_ingest q1; }
bench_ingest_q2() { bench_ingest q2; }
bench_ingest_log_q1() { bench_ingest q1 log; }
