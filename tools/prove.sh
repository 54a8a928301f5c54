# shellcheck shell=bash
#
# prove.sh - running TAP tests on what build_and_install has made; to be sourced after common.sh, never run.

# prove_tests LOG TEST...: runs those tests (t/<file>.pl), with what they print in LOG.  Afterwards SC_PROVED and
# SC_UNPROVED say how many single tests passed and failed, SC_PROVE_LINE is prove's closing line.
prove_tests() {
	local log=$1 extra pgxs
	shift
	pgxs=$(dirname "$(dirname "$("$PG_CONFIG" --pgxs)")")
	as_user mkdir -p "$SC_WORK/tap"
	(cd "$SC_WORK/build" && as_user env PATH="$PGBIN:$PATH" TESTDIR="$SC_WORK/tap" \
		TESTDATADIR="$SC_WORK/tap/tmp_check" TESTLOGDIR="$SC_WORK/tap/tmp_check/log" \
		top_builddir="$SC_WORK/tap" PG_REGRESS="$pgxs/test/regress/pg_regress" \
		PG_TEST_TIMEOUT_DEFAULT="${PG_TEST_TIMEOUT_DEFAULT:-180}" ${SEED:+SEED="$SEED"} ${DRAW:+DRAW="$DRAW"} \
		prove ${PROVE_FLAGS:--j$(($(nproc) * 2))} --timer -I "$pgxs/test/perl" -I t/lib "$@") >"$log" 2>&1 || true
	SC_PROVED=0 SC_UNPROVED=0
	SC_PROVE_LINE=$(grep -E '^Files=' "$log" | tail -n 1 || true)
	if [[ $SC_PROVE_LINE =~ Tests=([0-9]+) ]]; then SC_PROVED=${BASH_REMATCH[1]}; fi
	grep -qE '^Result: (PASS|NOTESTS)' "$log" && return
	# one line of the summary for each program that failed, also for one that
	# died between two tests, which is a failure that prove doesn't count
	read -r SC_UNPROVED extra < <(sed -nE 's/^(t\/.*\.pl) +\(Wstat: .*Failed: ([0-9]+)\).*/\2/p' "$log" |
		awk '{ if ($1 > 0) bad += $1; else extra++ } END { print bad + extra + 0, extra + 0 }')
	SC_PROVED=$((SC_PROVED + extra))
	[ "$SC_UNPROVED" -gt 0 ] || { SC_UNPROVED=1; SC_PROVED=$((SC_PROVED + 1)); }
	SC_PROVED=$((SC_PROVED - SC_UNPROVED))
}

# The tests that failed, as LOG of prove_tests says.
tests_that_failed() {
	sed -nE 's/^(t\/.*\.pl) +\(Wstat: .*/\1/p' "$1"
}
