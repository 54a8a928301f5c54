# shellcheck shell=bash
#
# groups.sh - figures of one window with many groups in a task's memory: bytes per group, recovery.  Sourced by run.

# One window with so many groups, left open.
fill_groups() {	# TABLE
	sql >/dev/null <<-SQL
		CREATE TABLE $1 (ts timestamptz, a int8, b int8, v int4);
		SELECT stream_ckpt.attach_stream('$1', event_time => 'ts');
		SELECT stream_ckpt.create_query('$1_result', \$q\$
			SELECT w.window_start, w.window_end, a, b, count(*) AS n, sum(v) AS total
			FROM $1, stream_ckpt.tumble(ts, '1 hour') w
			GROUP BY w.window_start, w.window_end, a, b \$q\$);
	SQL
	pipeline start
	sql >/dev/null <<-SQL
		INSERT INTO $1 SELECT '2024-01-01 00:00+00', i, i % 1000, i % 100
		FROM generate_series(1, $GROUPS_IN_STATE) i;
		SELECT stream_ckpt.sync('30 minutes');
		SELECT stream_ckpt.checkpoint(timeout => '10 minutes');
	SQL
}

bench_memory() {
	local bytes groups
	fill_groups memory
	read -r bytes groups < <(sql -F ' ' -c "SELECT sum(state_bytes), sum(groups) FROM stream_ckpt.tasks")
	[ "$groups" = "$GROUPS_IN_STATE" ] || die "$groups groups instead of $GROUPS_IN_STATE"
	note memory "$(divide "$bytes" "$groups")" "$bytes bytes, $groups groups"
	drop_all memory
}

bench_recovery() { measure_recovery recovery; }

measure_recovery() {	# FIGURE
	local repeat seconds
	fill_groups recovery
	check_well recovery_result
	for repeat in $(seq "$REPEATS"); do
		# one session: SIGTERM, a new row, and asking until a task has processed it
		seconds=$(sql <<-SQL
			SELECT pid AS old, clock_timestamp() AS began FROM stream_ckpt.tasks LIMIT 1 \\gset
			SELECT pg_terminate_backend(:old) \\g /dev/null
			INSERT INTO recovery VALUES ('2024-01-01 00:00+00', $repeat, -1, 1);
			SELECT set_config('bench.old', :'old', false) \\g /dev/null
			DO \$\$ BEGIN
				FOR i IN 1..60000 LOOP
					IF EXISTS (SELECT FROM stream_ckpt.tasks
							   WHERE pid <> current_setting('bench.old')::int AND rows_in > 0) THEN RETURN; END IF;
					PERFORM pg_sleep(0.005);
					COMMIT;
				END LOOP;
				RAISE EXCEPTION 'waited in vain for a new task';
			END \$\$;
			SELECT round(extract(epoch FROM clock_timestamp() - :'began'::timestamptz), 3);
		SQL
		)
		note "$1" "$seconds" "repeat $repeat"
		sql -c "SELECT stream_ckpt.sync('30 minutes')" -c "SELECT stream_ckpt.checkpoint()" >/dev/null
	done
	# nothing was lost on the way: the window closes, and its rows are compared
	sql >/dev/null <<-SQL
		INSERT INTO recovery VALUES ('2024-01-01 02:00+00', 0, 0, 0);
		SELECT stream_ckpt.sync('30 minutes');
	SQL
	check_result recovery
	drop_all recovery
}
