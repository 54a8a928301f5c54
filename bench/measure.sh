# shellcheck shell=bash
#
# measure.sh - what all figures share: servers, CPU and wall time, the notes of repeats, the workload W1, streams and
# queries on it, and the comparison of results with their definitions.  Sourced by run.

progress() { say "$(date +%T) $*" >&2; }

#
# Servers
#

# new_server: a private server in place of the one before it, if any; settings beside these from standard input.
new_server() {
	local settings
	settings=$(cat)
	stop_servers
	rm -rf "$SC_WORK/data" "$SC_WORK/socket"
	make_server < <(
		cat <<-CONF
			jit = off
			synchronous_commit = off
			shared_buffers = 2GB
			max_wal_size = 64GB
			checkpoint_timeout = 1h
			max_worker_processes = 16
			max_slot_wal_keep_size = -1
			log_line_prefix = '%m [%p] %b '
		CONF
		echo "$settings"
	)
	sql -c "CREATE EXTENSION stream_ckpt"
}

# attempt FIGURE: measures it; if that fails, it leaves the message in $SC_WORK/failed.FIGURE.
attempt() {
	local errors=$SC_WORK/errors status
	progress "$1"
	set +e
	(
		set -e
		"bench_$1"
	) 2>&1 | tee "$errors" >&2
	status=${PIPESTATUS[0]}
	set -e
	[ "$status" -ne 0 ] || return 0
	{ grep -E '(ERROR|FATAL|PANIC|error):|^run: ' "$errors" || true; } | tail -n 1 |
		sed -E 's/^.*(ERROR|FATAL|PANIC|error): +//; s/^run: //' >"$SC_WORK/failed.$1"
	[ -s "$SC_WORK/failed.$1" ] || echo "exit status $status" >"$SC_WORK/failed.$1"
}

#
# Measuring
#

# CPU seconds of all server processes so far: those that live, and those that the
# postmaster has waited for.
server_cpu() {
	local postmaster file
	postmaster=$(head -n 1 "$PGDATA/postmaster.pid")
	for file in /proc/[0-9]*/stat; do
		sed 's/^.*) //' "$file" 2>/dev/null | awk -v pm="$postmaster" -v pid="$(basename "$(dirname "$file")")" '
			pid == pm { print $12 + $13 + $14 + $15 }
			$2 == pm { print $12 + $13 }' || true # it has ended meanwhile
	done | awk -v hz="$(getconf CLK_TCK)" '{ ticks += $1 } END { printf "%.2f\n", ticks / hz }'
}

# timed FILE...: runs SQL scripts in one session; prints the wall seconds from its first to
# its last statement.
timed() {
	{
		echo "SELECT clock_timestamp() AS began \\gset"
		echo "\\o /dev/null"
		cat "$@"
		echo "\\o"
		echo "SELECT round(extract(epoch FROM clock_timestamp() - :'began'::timestamptz), 3);"
	} | sql -f -
}

divide() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.4f\n", a / b }'; }
minus() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f\n", a - b }'; }

# note FIGURE VALUE DETAIL: one repeat
note() {
	echo "$2" >>"$SC_WORK/figure.$1"
	progress "$1: $2 ($3)"
}

#
# Workload
#
make_rows() {
	progress "writing $ROWS rows of W1"
	as_user mkdir "$SC_WORK/w1"
	# rows come in order of their time; keys are spread by a multiplicative hash
	as_user awk -v rows="$ROWS" -v per="$PER_TRANSACTION" -v dir="$SC_WORK/w1" 'BEGIN {
		seed = 42; file = 0; left = per / 2
		for (i = 0; i < rows; i++) {
			if (left == 0) { close(out); file++; left = per }
			if (left == per || i == 0) out = sprintf("%s/%06d", dir, file)
			left--
			seed = (seed * 16807) % 2147483647
			ms = i * 6; s = int(ms / 1000)
			printf "2024-01-%02d %02d:%02d:%02d.%03d+00\t%d\t%d\t%d\n", 1 + int(s / 86400), int(s / 3600) % 24,
				int(s / 60) % 60, s % 60, ms % 1000, seed % 100000, 1 + int(seed / 7) % 1000, int(seed / 11) % 5000 > out
		}
	}'
}

# copy_script TABLE: COPY of all rows, each file a transaction
copy_script() {
	local file
	for file in "$SC_WORK"/w1/*; do
		echo "COPY $1 FROM '$file';"
	done
}

new_table() {
	sql -c "CREATE TABLE $1 (ts timestamptz, user_id int8, url_id int4, ms int4)"
}

# definition QUERY TABLE WINDOW: text of Q1, Q2 or "distinct" with the window's start, end and FROM
definition() {
	local key values="count(*) AS hits, sum(ms) AS total, avg(ms) AS mean, max(ms) AS longest"
	case $1 in
		q1 | distinct) key="url_id" ;;
		q2) key="url_id % 10" ;;
	esac
	[ "$1" != distinct ] || values="count(DISTINCT user_id) AS users"
	if [ "$3" = tumble ]; then
		echo "SELECT w.window_start, w.window_end, $key AS key, $values
			FROM $2, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, $key"
	else
		echo "SELECT date_bin('1 minute', ts, '1970-01-01 00:00+00') AS window_start, $key AS key, $values
			FROM $2 GROUP BY 1, 2"
	fi
}

# The rows of W1 in a table, for what a log stream's figures and results are compared with.
rows_table=
make_rows_table() {
	[ -z "$rows_table" ] || return 0
	rows_table=w1_rows
	new_table "$rows_table"
	pipeline stop
	copy_script "$rows_table" | sql -f - >/dev/null
	# hint bits and cache, as a table that was read before
	sql -c "SELECT count(*) FROM $rows_table" -c "ANALYZE $rows_table" >/dev/null
	quiesce
	pipeline start
}

# new_stream KIND NAME: a table to be attached, or a log stream
new_stream() {
	if [ "$1" = log ]; then
		sql >/dev/null -c "SELECT stream_ckpt.create_stream('$2', 'ts timestamptz, user_id int8, url_id int4, ms int4', event_time => 'ts')"
	else
		new_table "$2"
		sql >/dev/null -c "SELECT stream_ckpt.attach_stream('$2', event_time => 'ts')"
	fi
}

create_query() {	# STREAM QUERY
	sql >/dev/null <<-SQL
		SELECT stream_ckpt.create_query('$1_result', \$q\$ $(definition "$2" "$1" tumble) \$q\$);
	SQL
	wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
}

# Waits for a condition, asked every 20 ms by one session.
wait_for() {
	sql -c "DO \$\$ BEGIN
			FOR i IN 1..3000 LOOP
				IF ($1) THEN RETURN; END IF;
				PERFORM pg_sleep(0.02);
				COMMIT;
			END LOOP;
			RAISE EXCEPTION 'waited in vain';
		END \$\$" || die "waited in vain: $1"
}

attach_with_query() {	# TABLE QUERY
	sql >/dev/null -c "SELECT stream_ckpt.attach_stream('$1', event_time => 'ts')"
	create_query "$1" "$2"
}

# Rows in which a log stream's result differs from the query over a table with its rows, in
# the windows that the watermark has closed.
log_differences() {	# STREAM QUERY
	sql -c "WITH truth AS MATERIALIZED (SELECT * FROM ($(definition "$2" "$rows_table" tumble)) d
				WHERE window_end <= (SELECT max(ts) FROM $rows_table)),
			result AS MATERIALIZED (TABLE $1_result)
		SELECT count(*) FROM ((TABLE result EXCEPT ALL TABLE truth)
			UNION ALL (TABLE truth EXCEPT ALL TABLE result)) x"
}

# check_result STREAM [KIND QUERY]: the result must equal its definition over the closed windows.
check_result() {
	local differences
	if [ "${2:-table}" = log ]; then
		differences=$(log_differences "$1" "$3")
	else
		differences=$(sql -c "SELECT stream_ckpt.verify('$1_result')")
	fi
	[ "$differences" = 0 ] || die "$1_result differs from its definition in $differences rows"
	[ "$(sql -c "SELECT count(*) > 0 FROM $1_result")" = t ] || die "$1_result is empty"
}

drop_all() {	# STREAM [KIND]
	sql >/dev/null -c "SELECT stream_ckpt.drop_query('$1_result')"
	if [ "${2:-table}" = log ]; then
		sql >/dev/null -c "SELECT stream_ckpt.drop_stream('$1')"
	else
		sql >/dev/null -c "SELECT stream_ckpt.detach_stream('$1')" -c "DROP TABLE $1"
	fi
	quiesce
}

# An idle server with nothing left to write, and the pipeline as it should be.
quiesce() {
	sql -c "CHECKPOINT" >/dev/null
}

pipeline() {	# stop or start
	sql -c "SELECT stream_ckpt.$1_pipeline('default')" >/dev/null
	if [ "$1" = stop ]; then
		wait_for "SELECT status = 'stopped' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
	fi
}
