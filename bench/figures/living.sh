# shellcheck shell=bash
#
# living.sh - figures of living in a server with others: small transactions, the time until a
# commit is visible in the results, idleness, rows with errors.  Sourced by run, whose
# functions it uses.

INSERT_ROWS=${INSERT_ROWS:-1000000}
VISIBLE_SECONDS=${VISIBLE_SECONDS:-20}
IDLE_SECONDS=${IDLE_SECONDS:-60}
BESIDE_SECONDS=${BESIDE_SECONDS:-60}
QUIET_QUERIES=${QUIET_QUERIES:-300}

# 100-row INSERTs of W1's kind, each a transaction of its own, into the table "bench_target".
make_inserts() {
	[ -e "$SC_WORK/inserts.sql" ] && return
	as_user awk -v rows="$INSERT_ROWS" 'BEGIN {
		seed = 42
		for (i = 0; i < rows; i++) {
			if (i % 100 == 0) printf "INSERT INTO bench_target VALUES "
			seed = (seed * 16807) % 2147483647
			ms = i * 6; s = int(ms / 1000)
			printf "(\047" "2024-01-01 %02d:%02d:%02d.%03d+00\047,%d,%d,%d)%s", int(s / 3600) % 24, int(s / 60) % 60, s % 60, ms % 1000,
				seed % 100000, 1 + int(seed / 7) % 1000, int(seed / 11) % 5000, i % 100 == 99 ? ";\n" : ","
		}
	}' >"$SC_WORK/inserts.sql"
}

# The same INSERTs into a table alone, and into a stream with Q1 until it has all.
bench_inserts() {	# KIND
	local kind=$1 repeat what order
	declare -A wall
	make_inserts
	for repeat in $(seq "$REPEATS"); do
		order="alone with"
		[ $((repeat % 2)) -eq 1 ] || order="with alone"
		for what in $order; do
			if [ "$what" = with ]; then
				pipeline start
				new_stream "$kind" bench_target
				create_query bench_target q1
				quiesce
				wall[with]=$(timed "$SC_WORK/inserts.sql" <(echo "SELECT stream_ckpt.sync('30 minutes');"))
				if [ "$kind" = table ]; then check_result bench_target; fi
				drop_all bench_target "$kind"
			else
				pipeline stop
				new_table bench_target
				quiesce
				wall[alone]=$(timed "$SC_WORK/inserts.sql")
				sql -c "DROP TABLE bench_target"
				pipeline start
			fi
		done
		note "inserts_$kind" "$(divide "${wall[with]}" "${wall[alone]}")" "with ${wall[with]} s, alone ${wall[alone]} s"
	done
}

# From a transaction's commit timestamp to that of the first checkpoint that covers it: 200
# transactions of 100 rows a second, from one client, so that they commit in the order of their rows;
# a checkpoint's record says how many rows it covers.
bench_visible() {	# MILLISECONDS: checkpoint_interval
	local repeat folder
	sql -c "ALTER SYSTEM SET track_commit_timestamp = on" -c "ALTER SYSTEM SET stream_ckpt.checkpoint_history = 1000000"
	as_user "$PGBIN/pg_ctl" -D "$PGDATA" -l "$SC_WORK/server.log" -w -m fast restart >/dev/null
	for repeat in $(seq "$REPEATS"); do
		pipeline start
		new_stream log visible
		sql >/dev/null -c "SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '$1 ms')" \
			-c "SELECT stream_ckpt.create_query('visible_result', \$q\$ $(definition q1 visible tumble) \$q\$, emit => 'update')"
		wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
		sql -c "CREATE TABLE visible_log (id int GENERATED ALWAYS AS IDENTITY)" \
			-c "SELECT stream_ckpt.sync('1 minute')" -c "DELETE FROM stream_ckpt.checkpoint" >/dev/null
		quiesce
		folder=$SC_WORK/visible_$1_$repeat
		as_user mkdir "$folder"
		cat >"$SC_WORK/visible.sql" <<-SQL
			BEGIN;
			INSERT INTO visible SELECT clock_timestamp(), i, 1 + i % 1000, i FROM generate_series(1, 100) i;
			INSERT INTO visible_log DEFAULT VALUES;
			END;
		SQL
		(cd "$folder" && as_user "$PGBIN/pgbench" -n -c 1 -R 200 -T "$VISIBLE_SECONDS" -M prepared -f "$SC_WORK/visible.sql" \
			>"$SC_WORK/pgbench.log" 2>&1) || { cat "$SC_WORK/pgbench.log"; die "pgbench failed"; }
		sql -c "SELECT stream_ckpt.sync('1 minute')" >/dev/null
		read -r p50 p99 count < <(sql -F ' ' <<-SQL
			WITH t AS (SELECT pg_xact_commit_timestamp(xmin) AS at, 100 * row_number() OVER (ORDER BY id) AS rows FROM visible_log),
			c AS (SELECT pg_xact_commit_timestamp(xmin) AS at, sum(rows_in) OVER (ORDER BY checkpoint_id) AS rows FROM stream_ckpt.checkpoint WHERE status = 'completed'),
			d AS (SELECT extract(epoch FROM (SELECT min(c.at) FROM c WHERE c.rows >= t.rows) - t.at) * 1000 AS ms FROM t)
			SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 1), round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 1), count(ms) FROM d
		SQL
		)
		note "visible_$1_p50" "$p50" "$count transactions"
		note "visible_$1_p99" "$p99" "$count transactions"
		drop_all visible log
		sql -c "DROP TABLE visible_log" -c "SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 second')" >/dev/null
	done
	sql -c "ALTER SYSTEM RESET track_commit_timestamp" -c "ALTER SYSTEM RESET stream_ckpt.checkpoint_history"
	as_user "$PGBIN/pg_ctl" -D "$PGDATA" -l "$SC_WORK/server.log" -w -m fast restart >/dev/null
}

# How old the newest visible row of a query is, beside another one over the same stream that sleeps for 9 s in
# every message: asked 50 times a second while 200 rows a second are written, a checkpoint each 100 ms.
bench_bystander() {
	local repeat p50 p99 count writer
	for repeat in $(seq "$REPEATS"); do
		pipeline start
		new_stream log beside
		sql >/dev/null <<-SQL
			SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '100 ms');
			CREATE FUNCTION beside_sleep(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \$\$ BEGIN PERFORM pg_sleep(9); RETURN \$1; END \$\$;
			CREATE TABLE beside_ages (age float8);
			SELECT stream_ckpt.create_query('beside_result', \$q\$ SELECT w.window_start, w.window_end, max(ts) AS last
				FROM beside, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end \$q\$, emit => 'update');
			SELECT stream_ckpt.create_query('beside_slow', \$q\$ SELECT w.window_start, w.window_end, sum(beside_sleep(ms)) AS total
				FROM beside, stream_ckpt.tumble(ts, '1 hour') w WHERE ms > 0 GROUP BY w.window_start, w.window_end \$q\$, emit => 'update');
			INSERT INTO beside VALUES (clock_timestamp(), 1, 1, 0);
			SELECT stream_ckpt.sync('1 minute');
		SQL
		quiesce
		echo "INSERT INTO beside VALUES (clock_timestamp(), 1, 1, 1);" >"$SC_WORK/beside.sql"
		echo "INSERT INTO beside_ages SELECT extract(epoch FROM clock_timestamp() - max(last)) * 1000 FROM beside_result;" >"$SC_WORK/ages.sql"
		(cd "$SC_WORK" && as_user "$PGBIN/pgbench" -n -c 1 -R 200 -T "$((BESIDE_SECONDS + 1))" -M prepared -f "$SC_WORK/beside.sql" \
			>"$SC_WORK/writer.log" 2>&1) &
		writer=$!
		sleep 1
		(cd "$SC_WORK" && as_user "$PGBIN/pgbench" -n -c 1 -R 50 -T "$BESIDE_SECONDS" -M prepared -f "$SC_WORK/ages.sql" \
			>"$SC_WORK/pgbench.log" 2>&1) || { cat "$SC_WORK/pgbench.log"; die "pgbench failed"; }
		wait "$writer" || { cat "$SC_WORK/writer.log"; die "pgbench failed"; }
		read -r p50 p99 count < <(sql -F ' ' -c "SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY age)::numeric, 1),
			round(percentile_cont(0.99) WITHIN GROUP (ORDER BY age)::numeric, 1), count(*) FROM beside_ages")
		note bystander_p50 "$p50" "$count samples"
		note bystander_p99 "$p99" "the query that sleeps is $(sql -c "SELECT status FROM stream_ckpt.queries WHERE query = 'beside_slow'::regclass")"
		sql >/dev/null -c "SELECT stream_ckpt.drop_query('beside_slow')"
		drop_all beside log
		sql >/dev/null -c "DROP TABLE beside_ages" -c "DROP FUNCTION beside_sleep(int)" \
			-c "SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 second')"
	done
}

# CPU seconds of the extension's processes so far.
our_cpu() {
	local pid
	for pid in $(sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt%'"); do
		sed 's/^.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 }'
	done | awk -v hz="$(getconf CLK_TCK)" '{ ticks += $1 } END { printf "%.2f\n", ticks / hz }'
}

# Bytes of WAL from a position on, but for the snapshots that the server's background writer logs
# by itself, and records of the resource manager named; "records": without full-page images.
wal_since() {	# LSN [records [MANAGER]]
	local bytes='[0-9]+\/ *([0-9]+)'
	[ "${2:-}" != records ] || bytes='([0-9]+)\/ *[0-9]+'
	as_user "$PGBIN/pg_waldump" -p "$PGDATA/pg_wal" -s "$1" -e "$(sql -c "SELECT pg_current_wal_flush_lsn()")" 2>/dev/null |
		grep -vE "^rmgr: (Standby|${3:-Standby}) " | sed -nE "s/^.*len \(rec\/tot\): +$bytes,.*/\1/p" | awk '{ n += $1 } END { print n + 0 }'
}

# A minute in which nothing happens, with ten queries: WAL, CPU of all our processes.
bench_idle() {
	local i wal cpu
	sql -c "ALTER SYSTEM SET autovacuum = off" -c "SELECT pg_reload_conf()" >/dev/null
	pipeline start
	new_stream table idle
	for i in $(seq 10); do
		sql >/dev/null -c "SELECT stream_ckpt.create_query('idle_$i', \$q\$ $(definition q1 idle tumble) \$q\$, emit => 'update')"
	done
	sql -c "INSERT INTO idle SELECT '2024-01-01 00:00+00', i, i % 1000, i FROM generate_series(1, 100000) i" \
		-c "SELECT stream_ckpt.sync('1 minute')" -c "SELECT stream_ckpt.checkpoint()" >/dev/null
	quiesce
	# reading the catalogs after a checkpoint tidies their pages, once
	cpu=$(our_cpu)
	wal=
	while [ "$wal" != "$(sql -c "SELECT pg_current_wal_insert_lsn()")" ]; do
		wal=$(sql -c "SELECT pg_current_wal_insert_lsn()")
		sleep 5
	done
	cpu=$(our_cpu)
	sleep "$IDLE_SECONDS"
	cpu=$(minus "$(our_cpu)" "$cpu")
	note idle_wal "$(wal_since "$wal")" "bytes in $IDLE_SECONDS s"
	note idle_cpu "$(awk -v c="$cpu" -v s="$IDLE_SECONDS" 'BEGIN { printf "%.3f\n", 100 * c / s }')" "$cpu s in $IDLE_SECONDS s"
	for i in $(seq 10); do
		sql >/dev/null -c "SELECT stream_ckpt.drop_query('idle_$i')"
	done
	sql >/dev/null -c "SELECT stream_ckpt.detach_stream('idle')" -c "DROP TABLE idle" \
		-c "ALTER SYSTEM RESET autovacuum" -c "SELECT pg_reload_conf()"
}

# Drain of W1 by a query with dead letters that one row in a hundred makes fail, over one that
# none does: rows/s against rows/s.
bench_dead_letter() {
	local repeat what seconds
	declare -A drain
	for repeat in $(seq "$REPEATS"); do
		for what in clean bad; do
			pipeline start
			new_stream table "dead_$what"
			sql >/dev/null <<-SQL
				SELECT stream_ckpt.create_query('dead_${what}_result', \$q\$
					SELECT w.window_start, w.window_end, url_id, count(*) AS hits, sum(ms) AS total, sum(1000 / (ms % 100 + $([ "$what" = bad ] && echo 0 || echo 1))) AS share
					FROM dead_$what, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, url_id \$q\$, on_error => 'dead_letter');
			SQL
			wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
			pipeline stop
			copy_script "dead_$what" | sql -f - >/dev/null
			quiesce
			seconds=$(timed <(
				echo "SELECT stream_ckpt.start_pipeline('default');"
				echo "SELECT stream_ckpt.sync('30 minutes');"
			))
			drain[$what]=$seconds
			[ "$(sql -c "SELECT count(*) = (SELECT count(*) FROM dead_$what WHERE ms % 100 = 0 AND '$what' = 'bad') FROM stream_ckpt.dead_letter WHERE query = 'dead_${what}_result'::regclass")" = t ] ||
				die "dead letters are missing"
			drop_all "dead_$what"
		done
		note dead_letter "$(divide "${drain[clean]}" "${drain[bad]}")" "clean ${drain[clean]} s, with 1 % bad rows ${drain[bad]} s"
	done
}

# One query that gets a row before each checkpoint, beside many with state on streams where nothing comes.  The WAL is that
# of the row and of sync(), too.
bench_active() {
	local i repeat wal checkpoints=100
	sql -c "ALTER SYSTEM SET autovacuum = off" -c "SELECT pg_reload_conf()" >/dev/null
	pipeline start
	for i in $(seq 0 9); do new_stream table "quiet_$i"; done
	new_stream table active
	for i in $(seq "$QUIET_QUERIES"); do
		echo "SELECT stream_ckpt.create_query('quiet_result_$i', \$q\$ $(definition q2 "quiet_$((i % 10))" tumble) \$q\$, emit => 'update');"
	done | sql -f - >/dev/null
	sql >/dev/null -c "SELECT stream_ckpt.create_query('active_result', \$q\$ $(definition q1 active tumble) \$q\$, emit => 'update')"
	for i in $(seq 0 9); do
		sql -c "INSERT INTO quiet_$i SELECT '2024-01-01 00:00+00', i, i % 1000, i FROM generate_series(1, 1000) i"
	done
	sql >/dev/null -c "INSERT INTO active VALUES ('2024-01-01 00:00+00', 1, 1, 1)" -c "SELECT stream_ckpt.sync('5 minutes')" \
		-c "SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')" -c "SELECT stream_ckpt.checkpoint()"
	quiesce
	for repeat in $(seq "$REPEATS"); do
		sql >/dev/null -c "DELETE FROM stream_ckpt.checkpoint"
		wal=$(sql -c "SELECT pg_current_wal_insert_lsn()")
		for i in $(seq "$checkpoints"); do
			echo "INSERT INTO active VALUES ('2024-01-01 00:00+00', 1, 1, 1); SELECT stream_ckpt.sync();"
		done | sql -f - >/dev/null
		note active_wal "$(wal_since "$wal" records | awk -v n="$checkpoints" '{ printf "%.0f\n", $1 / n }')" "$checkpoints checkpoints"
		note active_ms "$(sql -c "SELECT round(extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY duration)) * 1000, 2) FROM stream_ckpt.checkpoints WHERE kind = 'manual'")" "$checkpoints checkpoints"
	done
	check_result active
	for i in $(seq "$QUIET_QUERIES"); do echo "SELECT stream_ckpt.drop_query('quiet_result_$i');"; done | sql -f - >/dev/null
	for i in $(seq 0 9); do sql >/dev/null -c "SELECT stream_ckpt.detach_stream('quiet_$i')" -c "DROP TABLE quiet_$i"; done
	drop_all active
	sql >/dev/null -c "SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 second')" \
		-c "ALTER SYSTEM RESET autovacuum" -c "SELECT pg_reload_conf()"
}

bench_inserts_table() { bench_inserts table; }
bench_inserts_log() { bench_inserts log; }
bench_visible_100() { bench_visible 100; }
bench_visible_10() { bench_visible 10; }
