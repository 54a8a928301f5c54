# shellcheck shell=bash
#
# windows.sh - figures of kinds of windows, each over tumble() with the same rows of W1.  Sourced by run.

# days_query STREAM ARGUMENTS: Q1 by days; further arguments of tumble()
days_query() {
	sql >/dev/null <<-SQL
		SELECT stream_ckpt.create_query('$1_result', \$q\$
			SELECT w.window_start, w.window_end, url_id AS key, count(*) AS hits, sum(ms) AS total, avg(ms) AS mean, max(ms) AS longest
			FROM $1, stream_ckpt.tumble(ts, '1 day'$2) w GROUP BY w.window_start, w.window_end, url_id
		\$q\$, emit => 'update');
	SQL
	wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
}

# drain_days WHAT REPEAT ARGUMENTS: prints the seconds that a backlog takes
drain_days() {
	local table=calendar_$1_$2
	pipeline start
	new_stream table "$table"
	days_query "$table" "$3"
	pipeline stop
	copy_script "$table" | sql -f - >/dev/null
	quiesce
	timed <(
		echo "SELECT stream_ckpt.start_pipeline('default');"
		echo "SELECT stream_ckpt.sync('30 minutes');"
	)
	check_result "$table"
	drop_all "$table"
}

bench_calendar() {
	local repeat order what
	declare -A seconds arguments=([zone]=", timezone => 'Europe/Berlin'" [hours]="")
	for repeat in $(seq "$REPEATS"); do
		order="hours zone"
		[ $((repeat % 2)) -eq 1 ] || order="zone hours"
		for what in $order; do
			seconds[$what]=$(drain_days "$what" "$repeat" "${arguments[$what]}")
		done
		note calendar "$(divide "${seconds[hours]}" "${seconds[zone]}")" "zone ${seconds[zone]} s, 24 hours ${seconds[hours]} s"
	done
}
