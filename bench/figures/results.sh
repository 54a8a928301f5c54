# shellcheck shell=bash
#
# results.sh - figures of large results: what they cost the coordinator, the reader, and others.  Sourced by run.
#
# Environment: EMIT_ROWS (1000000), RESULT_ROWS (1000000), MANY_RESULT_ROWS (5000000), TASK_MEMORY (see state.sh).

EMIT_ROWS=${EMIT_ROWS:-1000000}
RESULT_ROWS=${RESULT_ROWS:-1000000}
MANY_RESULT_ROWS=${MANY_RESULT_ROWS:-5000000}

# CPU seconds of one process so far.
cpu_of() { awk '{ printf "%.6f\n", $1 / 1e9 }' "/proc/$1/schedstat"; }

# One window, left open, whose groups come in one transaction: all of them are inserted, and then updated three times.
bench_emit() {
	local what coordinator cpu
	sql -c "ALTER SYSTEM SET autovacuum = off" -c "SELECT pg_reload_conf()" >/dev/null
	for _ in $(seq "$REPEATS"); do
		pipeline start
		sql >/dev/null <<-SQL
			CREATE TABLE emit (ts timestamptz, a int8, b int8, v int4);
			SELECT stream_ckpt.attach_stream('emit', event_time => 'ts');
			SELECT stream_ckpt.create_query('emit_result', \$q\$
				SELECT w.window_start, w.window_end, a, b, count(*) AS n, sum(v) AS total
				FROM emit, stream_ckpt.tumble(ts, '1 hour') w
				GROUP BY w.window_start, w.window_end, a, b \$q\$, emit => 'update');
			SELECT stream_ckpt.sync('1 minute');
		SQL
		quiesce
		coordinator=$(sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'stream_ckpt coordinator'")
		for what in insert upsert upsert upsert; do
			cpu=$(cpu_of "$coordinator")
			sql >/dev/null -c "INSERT INTO emit SELECT '2024-01-01 00:00+00', i::int8 * 7368787 % 1000003, i % 1000, i % 100
				FROM generate_series(1, $EMIT_ROWS) i" -c "SELECT stream_ckpt.sync('30 minutes')"
			cpu=$(awk -v a="$(cpu_of "$coordinator")" -v b="$cpu" 'BEGIN { printf "%.4f\n", a - b }')
			note "emit_$what" "$(awk -v c="$cpu" -v n="$EMIT_ROWS" 'BEGIN { printf "%.3f\n", c * 1e6 / n }')" "$cpu s"
		done
		check_result emit
		drop_all emit
	done
	sql -c "ALTER SYSTEM RESET autovacuum" -c "SELECT pg_reload_conf()" >/dev/null
}

# The same rows for both, of RESULT_ROWS groups or of a thousandth.  The second sync() returns when the reader is
# past what the first one wrote.
bench_emit_reader() {
	local what groups reader before
	declare -A cpu
	for _ in $(seq "$REPEATS"); do
		for what in few many; do
			groups=$RESULT_ROWS
			[ "$what" = many ] || groups=$((RESULT_ROWS / 1000))
			state_server "$TASK_MEMORY"
			state_query emit
			settle emit
			reader=$(sql -c "SELECT reader_pid FROM stream_ckpt.pipelines WHERE pipeline = 'default'")
			before=$(cpu_of "$reader")
			insert_rows emit fill "$groups" 0 "$RESULT_ROWS"
			sql >/dev/null -c "INSERT INTO emit VALUES ('2024-01-01 02:00+00', 0, 0, 0)"
			settle emit
			settle emit
			cpu[$what]=$(awk -v a="$(cpu_of "$reader")" -v b="$before" 'BEGIN { printf "%.4f\n", a - b }')
			[ "$(sql -c "SELECT count(*) FROM emit_result")" = "$groups" ] || die "emit_result has not $groups rows"
			check_state emit
		done
		note emit_reader "$(divide "${cpu[many]}" "${cpu[few]}")" "reader's CPU with many result rows ${cpu[many]} s, with few ${cpu[few]} s"
	done
}

# Ages of the newest visible row of another query of the same pipeline, asked 50 times a second from the row that closes the
# large window until its rows are visible, while 200 rows a second are written; a checkpoint each 100 ms.
bench_emit_others() {
	local began p99 count
	for _ in $(seq "$REPEATS"); do
		state_server "$TASK_MEMORY"
		state_query many
		new_stream log beside
		sql >/dev/null <<-SQL
			SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '100 ms');
			CREATE TABLE beside_ages (at timestamptz DEFAULT clock_timestamp(), age float8);
			SELECT stream_ckpt.create_query('beside_result', \$q\$ SELECT w.window_start, w.window_end, max(ts) AS last
				FROM beside, stream_ckpt.tumble(ts, '1 day') w GROUP BY w.window_start, w.window_end \$q\$, emit => 'update');
			INSERT INTO beside VALUES (clock_timestamp(), 1, 1, 0);
		SQL
		fill_state many "$MANY_RESULT_ROWS"
		start_ages
		began=$(sql -c "INSERT INTO many VALUES ('2024-01-01 02:00+00', 0, 0, 0)" -c "SELECT clock_timestamp()")
		settle many
		sql -c "SELECT clock_timestamp()" >"$SC_WORK/ended"
		# the age after a stop is seen by the sample that waited for it
		settle many
		end_ages
		[ "$(sql -c "SELECT count(*) FROM many_result")" = "$MANY_RESULT_ROWS" ] || die "many_result has not $MANY_RESULT_ROWS rows"
		read -r p99 count < <(sql -F ' ' -c "SELECT round(percentile_cont(0.99) WITHIN GROUP (ORDER BY age)::numeric, 1), count(*)
			FROM beside_ages WHERE at BETWEEN '$began' AND '$(cat "$SC_WORK/ended")'")
		note emit_others "$p99" "$count samples from $began to $(cat "$SC_WORK/ended")"
		check_state many
	done
}

# start_ages, end_ages: the writer of the stream "beside", and the one who asks for the ages
start_ages() {
	echo "INSERT INTO beside VALUES (clock_timestamp(), 1, 1, 1);" >"$SC_WORK/beside.sql"
	echo "INSERT INTO beside_ages (age) SELECT extract(epoch FROM clock_timestamp() - max(last)) * 1000 FROM beside_result;" >"$SC_WORK/ages.sql"
	as_user "$PGBIN/pgbench" -n -c 1 -R 200 -T 86400 -M prepared -f "$SC_WORK/beside.sql" >"$SC_WORK/writer.log" 2>&1 &
	ages_writer=$!
	as_user "$PGBIN/pgbench" -n -c 1 -R 50 -T 86400 -M prepared -f "$SC_WORK/ages.sql" >"$SC_WORK/pgbench.log" 2>&1 &
	ages_asker=$!
	sleep 2
}

end_ages() {
	kill "$ages_writer" "$ages_asker" || { cat "$SC_WORK/writer.log" "$SC_WORK/pgbench.log"; die "pgbench failed"; }
	wait "$ages_writer" "$ages_asker" || true
}
