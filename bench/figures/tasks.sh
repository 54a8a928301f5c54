# shellcheck shell=bash
#
# tasks.sh - figures of several tasks: W1's backlog in a log stream, drained by two tasks over one.  Sourced by run.

# Seconds from the start of a pipeline with so many tasks until its backlog is in committed results; tasks_seconds is set.
time_tasks() {	# QUERY TASKS
	local stream=tasks_$1_$2 pipeline=tasks_$2 more=
	[ "$2" = 1 ] || more=", parallelism => $2"
	new_server <<<"max_replication_slots = 10"
	rows_table=
	make_rows_table
	sql >/dev/null -c "SELECT stream_ckpt.create_pipeline('$pipeline'$more)"
	new_stream log "$stream"
	sql >/dev/null <<-SQL
		SELECT stream_ckpt.create_query('${stream}_result', \$q\$ $(definition "$1" "$stream" tumble) \$q\$, pipeline => '$pipeline'$more);
	SQL
	wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'"
	sql >/dev/null -c "SELECT stream_ckpt.stop_pipeline('$pipeline')"
	wait_for "SELECT status = 'stopped' FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'"
	copy_script "$stream" | sql -f - >/dev/null
	quiesce
	tasks_seconds=$(timed <(
		echo "SELECT stream_ckpt.start_pipeline('$pipeline');"
		echo "SELECT stream_ckpt.sync('30 minutes');"
	))
	check_well "${stream}_result"
	[ "$(sql -c "SELECT count(*) FROM stream_ckpt.tasks WHERE pipeline = '$pipeline'")" = "$2" ] || die "there are not $2 tasks"
	check_result "$stream" log "$1"
}

bench_tasks() {		# QUERY
	local one
	for _ in $(seq "$REPEATS"); do
		time_tasks "$1" 1
		one=$tasks_seconds
		time_tasks "$1" 2
		note "tasks_$1" "$(divide "$one" "$tasks_seconds")" "one task $one s, two $tasks_seconds s"
	done
}

bench_tasks_distinct() { bench_tasks distinct; }
bench_tasks_q1() { bench_tasks q1; }
