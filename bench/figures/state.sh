# shellcheck shell=bash
#
# state.sh - figures of state of any size: one window that stays open with many groups (two 8-byte keys, count, sum), read
# from a log stream.  Sourced by run.
#
# The rows are a function of their number, so that what the result must be is a query over generate_series(): a window's
# groups are numbered from 0, row i of "fill" is of group i, in an order that looks random to every tree and hash; rows of
# "random" and "zipf" are of groups drawn by a hash of i.
#
# Environment: STATE_GROUPS (20000000), STATE_ROWS (10000000; rows that are timed), STATE_MEMORY (256MB),
# IN_MEMORY (16GB; task_memory of the side that has all in memory), TASK_MEMORY (the setting's default; of all figures
# that name none), LARGE_GROUPS (10000000), LARGE_CHECKPOINTS (100), PAUSE_CHECKPOINTS (100 for 1 %, a tenth for 100 %),
# OPEN_ROWS (5000000; rows that drain_1m and drain_5m time), OPEN_1M (1000000), OPEN_5M (5000000), DAY_CHECKPOINTS
# (86400), DAY_GROUPS (100000), STATE_CHECK (1; 0: no comparison with the definition).

STATE_GROUPS=${STATE_GROUPS:-20000000}
STATE_ROWS=${STATE_ROWS:-10000000}
STATE_MEMORY=${STATE_MEMORY:-256MB}
IN_MEMORY=${IN_MEMORY:-16GB}
TASK_MEMORY=${TASK_MEMORY:-}
LARGE_GROUPS=${LARGE_GROUPS:-10000000}
LARGE_CHECKPOINTS=${LARGE_CHECKPOINTS:-100}
PAUSE_CHECKPOINTS=${PAUSE_CHECKPOINTS:-100}
OPEN_ROWS=${OPEN_ROWS:-5000000}
OPEN_1M=${OPEN_1M:-1000000}
OPEN_5M=${OPEN_5M:-5000000}
DAY_CHECKPOINTS=${DAY_CHECKPOINTS:-86400}
DAY_GROUPS=${DAY_GROUPS:-100000}
STATE_CHECK=${STATE_CHECK:-1}

# state_server MEMORY [SETTING...]: a server with this task_memory (none: the default), on which nothing was inserted yet
state_server() {
	local memory=$1
	shift
	new_server < <(
		[ -z "$memory" ] || echo "stream_ckpt.task_memory = '$memory'"
		echo "stream_ckpt.checkpoint_history = 100000"
		printf '%s\n' "$@"
	)
	: >"$SC_WORK/state.inserted"
}

# state_query NAME: a log stream of that name with its query, running
state_query() {
	sql >/dev/null <<-SQL
		SELECT stream_ckpt.create_stream('$1', 'ts timestamptz, a int8, b int8, v int4', event_time => 'ts');
		SELECT stream_ckpt.create_query('$1_result', \$q\$
			SELECT w.window_start, w.window_end, a, b, count(*) AS n, sum(v) AS total
			FROM $1, stream_ckpt.tumble(ts, '1 hour') w
			GROUP BY w.window_start, w.window_end, a, b \$q\$);
	SQL
	wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
}

# The expression for the group of row i.  "zipf" inverts the integral of x^-1.1 and rounds, which is Zipf but for a tenth at
# the first rank.
group_expression() {	# fill|random|zipf GROUPS
	local u='((hashint8extended(i, 42) & 4503599627370495) / 4503599627370496::float8)'
	case $1 in
		fill) echo "(i % $2 * 15485863 % $2)" ;;
		random) echo "floor($u * $2)::int8" ;;
		zipf) echo "((LEAST(round(power(power(0.5, -0.1) + $u * (power($2 + 0.5, -0.1) - power(0.5, -0.1)), -10))::int8, $2) - 1) * 15485863 % $2)" ;;
	esac
}

# rows_query HOW GROUPS FROM TO: rows a, b, v with numbers from FROM, below TO
rows_query() {
	echo "SELECT a, a % 1000 AS b, (i % 100)::int4 AS v FROM (SELECT i, $(group_expression "$1" "$2") AS a FROM generate_series($3::int8, $4::int8 - 1) i) g"
}

# Writes rows into a stream, and into the list of what was written; in transactions of 10,000 rows.
insert_rows() {		# STREAM HOW GROUPS FROM TO [ROWS-A-TRANSACTION]
	sql -c "DO \$\$ BEGIN
		FOR k IN 0 .. (($5::int8 - $4 - 1) / ${6:-10000}) LOOP
			INSERT INTO $1 SELECT '2024-01-01 00:00+00', a, b, v FROM ($(rows_query "$2" "$3" "$4 + k * ${6:-10000}" "LEAST($5, $4 + (k + 1) * ${6:-10000})")) r;
			COMMIT;
		END LOOP;
	END \$\$"
	echo "$2 $3 $4 $5" >>"$SC_WORK/state.inserted"
}

# Each group once; then the state is durable.
fill_state() {	# STREAM GROUPS
	insert_rows "$1" fill "$2" 0 "$2"
	settle "$1"
	sql >/dev/null -c "SELECT stream_ckpt.checkpoint(timeout => '1 hour')"
}

# Waits until all is in the state; ends the figure with the query's message if the query isn't well.
settle() {	# STREAM
	sql >/dev/null -c "SELECT stream_ckpt.sync('3 hours')"
	check_well "$1_result"
}

check_well() {	# QUERY
	local message
	message=$(sql -c "SELECT CASE status WHEN 'failed' THEN message ELSE status || COALESCE(': ' || message, '') END FROM stream_ckpt.queries WHERE query = '$1'::regclass AND status <> 'running'")
	[ -z "$message" ] || die "$message"
}

# Closes the window, and compares its rows with what was written.
check_state() {		# STREAM
	local how groups from to list='' differences
	[ "$STATE_CHECK" = 1 ] || return 0
	sql >/dev/null -c "INSERT INTO $1 VALUES ('2024-01-01 02:00+00', 0, 0, 0)"
	settle "$1"
	while read -r how groups from to; do
		list="$list${list:+ UNION ALL }$(rows_query "$how" "$groups" "$from" "$to")"
	done <"$SC_WORK/state.inserted"
	differences=$(sql <<-SQL
		SET work_mem = '1GB';
		SELECT count(*) FROM (SELECT a, b, count(*) AS n, sum(v) AS total FROM ($list) r GROUP BY a, b) d
		FULL JOIN $1_result r USING (a, b)
		WHERE (d.n, d.total) IS DISTINCT FROM (r.n, r.total) OR r.window_start <> '2024-01-01 00:00+00';
	SQL
	)
	[ "$differences" = 0 ] || die "$1_result differs from its definition in $differences rows"
}

# The reader is held while the rows of a backlog are written, so that its pipeline's state stays where it is.
hold_reader() {
	held_reader=$(sql -c "SELECT reader_pid FROM stream_ckpt.pipelines WHERE pipeline = 'default'")
	kill -STOP "$held_reader"
}
release_reader() { kill -CONT "$held_reader"; }

# Seconds from a backlog in the WAL until all of it is in committed state; state_seconds is set, too.
time_backlog() {	# STREAM HOW GROUPS FROM TO
	local began
	quiesce
	hold_reader
	insert_rows "$@"
	quiesce
	began=$EPOCHREALTIME
	release_reader
	settle "$1"
	state_seconds=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }')
}

# time_state HOW MEMORY GROUPS ROWS: time_backlog() on a server of its own with so many groups, the result compared
time_state() {
	state_server "$2"
	state_query state
	fill_state state "$3"
	time_backlog state "$1" "$3" "$3" "$(($3 + $4))"
	check_state state
}

# Little memory against enough.
bench_state() {		# random|zipf
	local little
	for _ in $(seq "$REPEATS"); do
		time_state "$1" "$IN_MEMORY" "$STATE_GROUPS" "$STATE_ROWS"
		little=$state_seconds
		progress "in memory: $(divide "$STATE_ROWS" "$little") rows/s"
		time_state "$1" "$STATE_MEMORY" "$STATE_GROUPS" "$STATE_ROWS"
		note "state_$1" "$(divide "$little" "$state_seconds")" "in memory $little s, with $STATE_MEMORY $state_seconds s"
	done
}

bench_state_random() { bench_state random; }
bench_state_zipf() { bench_state zipf; }

# Compiles rocksdb_rmw.cc, with what that needs from Debian's archive.
make_rocksdb() {
	if ! { command -v g++ && dpkg-query -W -f '${Status}' librocksdb-dev 2>/dev/null | grep -q 'ok installed'; } >/dev/null; then
		# shellcheck source=tools/debian.sh
		. "$SC_ROOT/tools/debian.sh"
		[ "${STREAM_CKPT_APT_UPDATE:-1}" != 1 ] || root apt-get -qq update
		root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install g++ librocksdb-dev >/dev/null
	fi
	as_user g++ -std=c++17 -O2 -o "$SC_WORK/rocksdb_rmw" "$SC_ROOT/bench/rocksdb_rmw.cc" -lrocksdb
}

bench_rocksdb() {
	local operations megabytes
	make_rocksdb
	case $STATE_MEMORY in
		*MB) megabytes=${STATE_MEMORY%MB} ;;
		*GB) megabytes=$((${STATE_MEMORY%GB} * 1024)) ;;
		*) die "STATE_MEMORY is neither MB nor GB: $STATE_MEMORY" ;;
	esac
	for _ in $(seq "$REPEATS"); do
		stop_servers
		operations=$(as_user "$SC_WORK/rocksdb_rmw" "$SC_WORK/rocksdb" "$STATE_GROUPS" "$STATE_ROWS" "$megabytes")
		rm -r "$SC_WORK/rocksdb"
		progress "RocksDB: $operations operations/s"
		time_state random "$STATE_MEMORY" "$STATE_GROUPS" "$STATE_ROWS"
		note rocksdb "$(awk -v n="$STATE_ROWS" -v s="$state_seconds" -v o="$operations" 'BEGIN { printf "%.4f\n", n / s / o }')" \
			"$(divide "$STATE_ROWS" "$state_seconds") rows/s, RocksDB $operations operations/s"
	done
}

task_pid() { sql -c "SELECT pid FROM stream_ckpt.tasks ORDER BY groups DESC LIMIT 1"; }

# RssAnon of a process in kB; watch_rss keeps the greatest of it in a file until the process watcher_pid is ended.
rss_of() { awk '/^RssAnon/ { print $2 }' "/proc/$1/status"; }
watch_rss() {	# PID FILE
	perl -e 'my ($pid, $file, $max) = (@ARGV, -1);
		while (open my $in, "<", "/proc/$pid/status") {
			my ($now) = join("", <$in>) =~ /^RssAnon:\s+(\d+)/m or last;
			if ($now > $max) { $max = $now; open my $out, ">", $file or die; print $out "$max\n"; close $out; }
			select undef, undef, undef, 0.005;
		}' "$1" "$2" &
	watcher_pid=$!
}
end_watch() {
	kill "$watcher_pid" 2>/dev/null || true
	wait "$watcher_pid" 2>/dev/null || true
}

# The checkpoint is asked for when the task has processed STATE_ROWS rows since the one before it.
bench_task_rss() {
	local pid rows before peak limit
	for _ in $(seq "$REPEATS"); do
		state_server "$STATE_MEMORY"
		state_query rss
		pid=$(task_pid)
		watch_rss "$pid" "$SC_WORK/rss"
		fill_state rss "$STATE_GROUPS"
		sql >/dev/null -c "SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')" -c "SELECT stream_ckpt.checkpoint()"
		rows=$(sql -c "SELECT sum(rows_in) FROM stream_ckpt.tasks")
		insert_rows rss random "$STATE_GROUPS" "$STATE_GROUPS" "$((STATE_GROUPS + STATE_ROWS))"
		until [ "$(sql -c "SELECT sum(rows_in) >= $rows + $STATE_ROWS FROM stream_ckpt.tasks")" = t ]; do
			check_well rss_result
			sleep 0.2
		done
		end_watch
		[ "$(task_pid)" = "$pid" ] || die "the task has been restarted: $(sql -c "SELECT message FROM stream_ckpt.pipelines")"
		before=$(rss_of "$pid")
		watch_rss "$pid" "$SC_WORK/rss.checkpoint"
		sql >/dev/null -c "SELECT stream_ckpt.checkpoint(timeout => '1 hour')"
		end_watch
		peak=$(sort -n "$SC_WORK/rss" "$SC_WORK/rss.checkpoint" | tail -n 1)
		limit=$(sql -c "SELECT pg_size_bytes(current_setting('stream_ckpt.task_memory')) / 1024")
		note task_rss "$(divide "$peak" "$limit")" "$peak kB at most"
		note task_rss_growth "$(awk -v a="$before" -v b="$(cat "$SC_WORK/rss.checkpoint")" 'BEGIN { printf "%.2f\n", (b - a) * 100 / a }')" "$before kB before"
		check_state rss
	done
}

# change_groups STREAM GROUPS PERCENT COUNT: so many checkpoints, each with other groups changed, once each
change_groups() {
	local each=$(($2 * $3 / 100)) i from
	from=$(awk '{ to = $4 } END { print to }' "$SC_WORK/state.inserted")
	for i in $(seq 0 "$(($4 - 1))"); do
		echo "INSERT INTO $1 SELECT '2024-01-01 00:00+00', a, b, v FROM ($(rows_query fill "$2" "$((from + i * each))" "$((from + (i + 1) * each))")) r;"
		echo "SELECT stream_ckpt.sync('1 hour');"
	done | sql -f - >/dev/null
	echo "fill $2 $from $((from + each * $4))" >>"$SC_WORK/state.inserted"
	check_well "$1_result"
}

# A server and a stream with so many groups, whose checkpoints come when they are asked for; the record begins anew.
changing_state() {	# STREAM GROUPS [SETTING...]
	state_server "$TASK_MEMORY" "${@:3}"
	state_query "$1"
	fill_state "$1" "$2"
	sql >/dev/null -c "SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')" \
		-c "SELECT stream_ckpt.checkpoint(timeout => '1 hour')" -c "DELETE FROM stream_ckpt.checkpoint"
	quiesce
}

# The column with a checkpoint's longest stop of a task, in milliseconds.
pause_column() {
	sql -c "SELECT CASE attname WHEN 'sync_us' THEN 'sync_us / 1000.0' ELSE 'sync_ms' END FROM pg_attribute
		WHERE attrelid = 'stream_ckpt.checkpoint'::regclass AND attname IN ('sync_us', 'sync_ms') ORDER BY attname DESC LIMIT 1"
}

bench_pause() {		# PERCENT CHECKPOINTS
	for _ in $(seq "$REPEATS"); do
		changing_state pause "$GROUPS_IN_STATE"
		change_groups pause "$GROUPS_IN_STATE" "$1" "$2"
		note "pause_$1" "$(sql -c "SELECT round(max($(pause_column))::numeric, 3) FROM stream_ckpt.checkpoint")" \
			"$(sql -c "SELECT count(*) || ' checkpoints, p50 ' || round(percentile_cont(0.5) WITHIN GROUP (ORDER BY $(pause_column))::numeric, 3) FROM stream_ckpt.checkpoint")"
		check_state pause
	done
}

bench_pause_1() { bench_pause 1 "$PAUSE_CHECKPOINTS"; }
bench_pause_100() { bench_pause 100 "$(((PAUSE_CHECKPOINTS + 9) / 10))"; }

bench_checkpoint_10m() {
	local p50 p99 count
	for _ in $(seq "$REPEATS"); do
		changing_state checkpoint "$LARGE_GROUPS"
		change_groups checkpoint "$LARGE_GROUPS" 1 "$LARGE_CHECKPOINTS"
		read -r p50 p99 count < <(sql -F ' ' -c "SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 2),
			round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 2), count(*)
			FROM (SELECT extract(epoch FROM completed_at - triggered_at) * 1000 AS ms FROM stream_ckpt.checkpoint WHERE status = 'completed') c")
		note checkpoint_10m_p50 "$p50" "$count checkpoints"
		note checkpoint_10m_p99 "$p99" "$count checkpoints"
		check_state checkpoint
	done
}

# Everything but the stream's own messages and the snapshots of the background writer; no full-page images, as "active".
bench_wal_per_group() {
	local wal bytes changed=$((GROUPS_IN_STATE / 100 * PAUSE_CHECKPOINTS))
	for _ in $(seq "$REPEATS"); do
		changing_state wal "$GROUPS_IN_STATE" "autovacuum = off"
		wal=$(sql -c "SELECT pg_current_wal_insert_lsn()")
		change_groups wal "$GROUPS_IN_STATE" 1 "$PAUSE_CHECKPOINTS"
		bytes=$(wal_since "$wal" records LogicalMessage)
		note wal_per_group "$(divide "$bytes" "$changed")" "$bytes bytes, $changed changed groups in $PAUSE_CHECKPOINTS checkpoints"
		check_state wal
	done
}

# Many groups in a window that stays open, against 1,000.
bench_open() {		# FIGURE GROUPS
	local few
	for _ in $(seq "$REPEATS"); do
		time_state random "$TASK_MEMORY" 1000 "$OPEN_ROWS"
		few=$state_seconds
		time_state random "$TASK_MEMORY" "$2" "$OPEN_ROWS"
		note "$1" "$(divide "$few" "$state_seconds")" "1,000 groups $few s, $2 groups $state_seconds s"
	done
}

bench_drain_1m() { bench_open drain_1m "$OPEN_1M"; }
bench_drain_5m() { bench_open drain_5m "$OPEN_5M"; }

bench_restart_10m() {
	state_server "$TASK_MEMORY"
	GROUPS_IN_STATE=$LARGE_GROUPS measure_recovery restart_10m
}

# A day of checkpoints, as fast as they come.  The server's own checkpoints come often, so that its WAL is recycled.
bench_chunks_24h() {
	local left hour size live
	for _ in $(seq "$REPEATS"); do
		changing_state day "$DAY_GROUPS" "autovacuum_naptime = 1s" "max_wal_size = 2GB"
		for ((left = DAY_CHECKPOINTS; left > 0; left -= hour)); do
			hour=$((left < 3600 ? left : 3600))
			change_groups day "$DAY_GROUPS" 1 "$hour"
			progress "$((left - hour)) checkpoints left; bytes of the tables, and live: $(state_sizes)"
		done
		read -r size live < <(state_sizes)
		note chunks_24h "$(divide "$size" "$live")" "$size bytes, $live bytes live, $DAY_CHECKPOINTS checkpoints"
		check_state day
	done
}

# Bytes of the tables that hold state with their indexes, and of their live rows.
state_sizes() {
	sql -f - <<-'SQL'
		SELECT 'SELECT ' || '(' || string_agg(format('pg_total_relation_size(%s)', oid), ' + ') || ') || '' '' || ' ||
			'(' || string_agg(format('(SELECT COALESCE(sum(pg_column_size(t.*)), 0) FROM %s t)', oid::regclass), ' + ') || ')'
		FROM pg_class WHERE relnamespace = 'stream_ckpt'::regnamespace AND relkind = 'r' AND relname ~ '^state_' \gexec
	SQL
}
