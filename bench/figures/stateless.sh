# shellcheck shell=bash
#
# stateless.sh - figures of queries without groups: a tenth of W1's rows passes a filter.  Sourced by run.

filter_of() { echo "SELECT ts, user_id, ms FROM $1 WHERE ms % 10 = 3"; }

# Backlog in the WAL, then INSERT ... SELECT of the same: rows/s against rows/s.
bench_stateless() {	# KIND
	local kind=$1 figure=stateless_$1 repeat stream rows drain batch differences
	[ "$kind" = table ] || make_rows_table
	for repeat in $(seq "$REPEATS"); do
		stream=${figure}_$repeat
		rows=$stream
		[ "$kind" = table ] || rows=$rows_table
		pipeline start
		new_stream "$kind" "$stream"
		sql >/dev/null -c "SELECT stream_ckpt.create_query('${stream}_result', '$(filter_of "$stream")')"
		wait_for "SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'"
		pipeline stop
		copy_script "$stream" | sql -f - >/dev/null
		# hint bits and cache, as a table that was read before
		[ "$kind" = log ] || sql -c "SELECT count(*) FROM $stream" -c "ANALYZE $stream" >/dev/null
		quiesce
		drain=$(timed <(
			echo "SELECT stream_ckpt.start_pipeline('default');"
			echo "SELECT stream_ckpt.sync('30 minutes');"
		))
		pipeline stop
		quiesce
		sql -c "CREATE TABLE ${stream}_batch AS $(filter_of "$rows") LIMIT 0"
		batch=$(timed <(echo "INSERT INTO ${stream}_batch $(filter_of "$rows");"))
		pipeline start
		differences=$(sql -c "SELECT count(*) FROM ((TABLE ${stream}_result EXCEPT ALL TABLE ${stream}_batch)
			UNION ALL (TABLE ${stream}_batch EXCEPT ALL TABLE ${stream}_result)) x")
		[ "$differences" = 0 ] || die "${stream}_result differs from its definition in $differences rows"
		sql -c "DROP TABLE ${stream}_batch"
		note "$figure" "$(divide "$batch" "$drain")" "drain $drain s, batch $batch s"
		drop_all "$stream" "$kind"
	done
}

bench_stateless_table() { bench_stateless table; }
bench_stateless_log() { bench_stateless log; }
