# shellcheck shell=bash
#
# changes.sh - figures of tables whose rows change (changes => 'apply'), each on a server of its own.  Sourced by run.
#
# Environment: TPCB_SCALE (10), TPCB_CLIENTS (4), TPCB_SECONDS (20): of pgbench.

TPCB_SCALE=${TPCB_SCALE:-10}
TPCB_CLIENTS=${TPCB_CLIENTS:-4}
TPCB_SECONDS=${TPCB_SECONDS:-20}

# changed_script TABLE: COPY of all rows, as copy_script; after each file each tenth row of the one before is updated, in
# a window that is open.
changed_script() {
	local file
	for file in "$SC_WORK"/w1/*; do
		echo "COPY $1 FROM '$file';"
		echo "UPDATE $1 SET ms = ms + 1 WHERE user_id % 10 = 3 AND ts >= (SELECT max(ts) FROM $1) - interval '2 minutes'
			AND ts < (SELECT max(ts) FROM $1) - interval '1 minute';"
	done
}

# time_changes NAME CHANGES SCRIPT SELECT: seconds from the start of the pipeline until what SCRIPT (a function, with the table's
# name) writes is in the query's committed result, which is compared with its definition: query_seconds
time_changes() {
	local table=w1_$1
	new_table "$table"
	sql >/dev/null <<-SQL
		CREATE INDEX ON $table (ts);
		SELECT stream_ckpt.attach_stream('$table', event_time => 'ts', changes => '$2', watermark_delay => '3 minutes');
		SELECT stream_ckpt.create_query('${table}_result', \$q\$ ${4//W1/$table} \$q\$);
	SQL
	wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
	pipeline stop
	"$3" "$table" | sql -f - >/dev/null
	quiesce
	query_seconds=$(timed <(
		echo "SELECT stream_ckpt.start_pipeline('default');"
		echo "SELECT stream_ckpt.sync('30 minutes');"
	))
	check_well "${table}_result"
	check_result "$table"
	[ "$(sql -c "SELECT sum(late_changes) FROM stream_ckpt.queries")" = 0 ] || die "changes came too late"
	changed_rows=$(sql -c "SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = '$table'")
	drop_all "$table"
}

# bench_changes_ratio FIGURE SELECT CHANGES SCRIPT OVER_CHANGES OVER_SCRIPT: rows/s of one over those of the other
bench_changes_ratio() {
	local repeat what order
	declare -A seconds rate
	new_server </dev/null
	for repeat in $(seq "$REPEATS"); do
		order="query other"
		[ $((repeat % 2)) -eq 1 ] || order="other query"
		for what in $order; do
			if [ "$what" = query ]; then time_changes "$1" "$3" "$4" "$2"; else time_changes "${1}_other" "$5" "$6" "$2"; fi
			seconds[$what]=$query_seconds
			rate[$what]=$(divide "$changed_rows" "$query_seconds")
		done
		note "$1" "$(divide "${rate[query]}" "${rate[other]}")" "${seconds[query]} s, the other ${seconds[other]} s"
	done
}

# Q1 without its max; and with min and max alone
invertible() { echo "SELECT w.window_start, w.window_end, url_id AS key, count(*) AS hits, sum(ms) AS total, avg(ms) AS mean FROM W1, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1, 2, 3"; }
extremes() { echo "SELECT w.window_start, w.window_end, url_id AS key, count(*) AS hits, min(ms) AS shortest, max(ms) AS longest FROM W1, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1, 2, 3"; }

bench_changes_appended() { bench_changes_ratio changes_appended "$(by_window "tumble(ts, '1 minute')" url_id)" apply copy_script ignore copy_script; }
bench_changes_retract() { bench_changes_ratio changes_retract "$(invertible)" apply changed_script apply copy_script; }
bench_changes_extremes() { bench_changes_ratio changes_extremes "$(extremes)" apply changed_script apply copy_script; }

# COPY with the query running until sync() returns, with changes applied over ignored.
bench_changes_ingest() {
	local repeat what order
	declare -A seconds
	new_server </dev/null
	for repeat in $(seq "$REPEATS"); do
		order="apply ignore"
		[ $((repeat % 2)) -eq 1 ] || order="ignore apply"
		for what in $order; do
			new_table "w1_$what"
			sql >/dev/null -c "SELECT stream_ckpt.attach_stream('w1_$what', event_time => 'ts', changes => '$what')"
			create_query "w1_$what" q1
			quiesce
			seconds[$what]=$(timed <(
				copy_script "w1_$what"
				echo "SELECT stream_ckpt.sync('30 minutes');"
			))
			check_result "w1_$what"
			drop_all "w1_$what"
		done
		note changes_ingest_wall "$(divide "${seconds[apply]}" "${seconds[ignore]}")" "apply ${seconds[apply]} s, ignore ${seconds[ignore]} s"
	done
}

tpcb_rate() {
	as_user "$PGBIN/pgbench" -n -M prepared -c "$TPCB_CLIENTS" -j 2 -T "$TPCB_SECONDS" postgres 2>/dev/null |
		sed -nE 's/^tps = ([0-9.]+) .*/\1/p'
}

# pgbench's TPC-B, with sums over each of the three tables that it updates, over the same without a stream.
bench_tpcb() {
	local repeat with without
	for repeat in $(seq "$REPEATS"); do
		new_server </dev/null
		as_user "$PGBIN/pgbench" -q -i -s "$TPCB_SCALE" postgres >/dev/null 2>&1
		quiesce
		without=$(tpcb_rate)
		sql >/dev/null <<-'SQL'
			SELECT stream_ckpt.attach_stream('pgbench_accounts', changes => 'apply');
			SELECT stream_ckpt.attach_stream('pgbench_tellers', changes => 'apply');
			SELECT stream_ckpt.attach_stream('pgbench_branches', changes => 'apply');
			SELECT stream_ckpt.create_query('accounts_result', $$
				SELECT bid, count(*) AS accounts, sum(abalance) AS balance, avg(abalance) AS average
				FROM pgbench_accounts GROUP BY bid $$, backfill => true);
			SELECT stream_ckpt.create_query('tellers_result', $$
				SELECT bid, count(*) AS tellers, sum(tbalance) AS balance FROM pgbench_tellers GROUP BY bid $$, backfill => true);
			SELECT stream_ckpt.create_query('branches_result', $$
				SELECT bbalance < 0 AS below_zero, count(*) AS branches, sum(bbalance) AS balance
				FROM pgbench_branches GROUP BY bbalance < 0 $$, backfill => true);
			SELECT stream_ckpt.sync('30 minutes');
		SQL
		quiesce
		with=$(tpcb_rate)
		sql >/dev/null -c "SELECT stream_ckpt.sync('30 minutes')"
		for result in accounts tellers branches; do
			check_well "${result}_result"
			check_result "$result"
		done
		note tpcb "$(divide "$with" "$without")" "$with transactions/s, $without without"
	done
}
