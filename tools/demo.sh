# shellcheck shell=bash
#
# demo.sh - what the demonstrations share: pgbench as the load, the processes of the pipeline killed in turn, a line
# each second that shows where it stands, and the wait for the results.  Sourced, after common.sh.

duration=${SECONDS_OF_LOAD:-20}

# start_demo: builds, starts a private server, and fills pgbench's tables, "pgbench -i OPTIONS..."
start_demo() {
	require_prerequisites
	make_workspace demo
	say "building, and starting a private server"
	build_and_install
	make_server <<-CONF
		max_worker_processes = 16
		shared_buffers = 128MB
		max_wal_size = 2GB
		log_line_prefix = '%m [%p] %b '
	CONF
	init_pgbench "$@"
}

init_pgbench() {
	as_user "$PGBIN/pgbench" -i -q -s 10 "$@" >"$SC_WORK/pgbench_init.log" 2>&1 ||
		{ cat "$SC_WORK/pgbench_init.log"; die "pgbench -i failed"; }
}

# Short runs, one after the other, until told to stop; where the server restarts, a run fails,
# and the next one begins when connections are accepted again.
write_load() {
	while ! [ -e "$SC_WORK/enough" ]; do
		as_user "$PGBIN/pgbench" -n -c 4 -j 2 -T 2 >>"$SC_WORK/pgbench.log" 2>&1 ||
			until [ -e "$SC_WORK/enough" ] || as_user "$PGBIN/pg_isready" -q; do sleep 0.1; done
	done
}

# One line: where the pipeline stands.  Nothing of it is kept by this script.
show_progress() {
	sql 2>/dev/null <<-'SQL' || echo "the server restarts"
		SELECT format('%s rows in, lag %s and %s s, watermark %s, checkpoint %s of %s, %s',
			coalesce((SELECT max(rows_in) FROM stream_ckpt.queries)::text, '-'),
			coalesce((SELECT pg_size_pretty(max(lag_bytes)::bigint) FROM stream_ckpt.tasks), '-'),
			coalesce((SELECT round(max(lag_seconds)::numeric, 1)::text FROM stream_ckpt.tasks), '-'),
			coalesce((SELECT to_char(min(watermark), 'HH24:MI:SS.MS') FROM stream_ckpt.queries), '-'),
			coalesce(c.id::text, '-'), coalesce(to_char(c.trigger_time + c.duration, 'HH24:MI:SS.MS'), '-'),
			p.status || coalesce(': ' || p.message, ''))
		FROM stream_ckpt.pipelines p
		LEFT JOIN LATERAL (
			SELECT id, trigger_time, duration FROM stream_ckpt.checkpoints
			WHERE status = 'completed' ORDER BY id DESC LIMIT 1) c ON true
		WHERE p.pipeline = 'default'
	SQL
}

pid_query() {
	case $1 in
		task) echo "SELECT pid FROM stream_ckpt.tasks WHERE pid IS NOT NULL LIMIT 1" ;;
		*) echo "SELECT ${1}_pid FROM stream_ckpt.pipelines WHERE pipeline = 'default'" ;;
	esac
}

# trouble WHICH HOW: terminates the reader, the task or the coordinator, once it is there
trouble() {
	local which=$1 how=$2 pid=
	for _ in $(seq 100); do
		pid=$(sql -c "$(pid_query "$which")" 2>/dev/null || true)
		[ -z "$pid" ] || break
		sleep 0.1
	done
	[ -n "$pid" ] || die "there is no $which to be killed"
	case $how in
		terminate) sql -c "SELECT pg_terminate_backend($pid)" >/dev/null || true ;;
		kill) kill -KILL "$pid" || die "cannot kill the $which" ;;
	esac
	killed=$((killed + 1))
	say "     -- ${how/kill/SIGKILL} the $which, process $pid"
}

# run_load: for $duration seconds, with four processes killed meanwhile, the last one with SIGKILL
run_load() {
	local load second last_step=

	killed=0
	write_load &
	load=$!
	for ((second = 1; second <= duration; second++)); do
		sleep 1
		printf '%3d s ' "$second"
		show_progress
		case $((second * 20 / duration)) in
			"${last_step:-}") continue ;;
			4) trouble reader terminate ;;
			8) trouble task terminate ;;
			12) trouble coordinator terminate ;;
			16) trouble task kill ;;
		esac
		last_step=$((second * 20 / duration))
	done
	as_user touch "$SC_WORK/enough"
	wait "$load" || true
	[ "$killed" -eq 4 ] || die "only $killed of 4 processes were killed"
}

# wait_synced: everything that was committed is in the results; a pipeline on its way back is waited for
wait_synced() {
	local synced=

	for _ in $(seq 60); do
		if sql -c "SELECT stream_ckpt.sync('10 seconds')" >/dev/null 2>"$SC_WORK/sync.log"; then
			synced=1
			break
		fi
		sleep 1
	done
	[ -n "$synced" ] || { cat "$SC_WORK/sync.log"; die "sync() failed"; }
}
