# shellcheck shell=bash
#
# against.sh - bench/run --against COMMIT [FIGURE...]: these sources and those of another commit, measured
# in turn on one machine, so that its moods don't count.  Sourced by run.
#
# Each turn is a bench/run of one repeat in a process of its own, on a server of its own.  The other
# commit's sources are built in a copy of this checkout whose scripts are these.

# run_against COMMIT [FIGURE...]
run_against() {
	local commit repeat order side
	commit=$(git -C "$SC_ROOT" rev-parse --verify --quiet "$1^{commit}") || die "no such commit: $1"
	shift
	make_workspace against
	mkdir "$SC_WORK/other" "$SC_WORK/figures.this" "$SC_WORK/figures.other"
	git -C "$SC_ROOT" archive "$commit" | tar -C "$SC_WORK/other" -xf -
	rm -r "$SC_WORK/other/bench" "$SC_WORK/other/tools"
	cp -r "$SC_ROOT/bench" "$SC_ROOT/tools" "$SC_WORK/other"
	for repeat in $(seq "$REPEATS"); do
		order="this other"
		[ $((repeat % 2)) -eq 1 ] || order="other this"
		for side in $order; do
			run_side "$side" "$@"
		done
	done
	compare_sides "$commit"
}

# run_side this|other [FIGURE...]: one repeat of each figure
run_side() {
	local side=$1 root=$SC_ROOT
	shift
	[ "$side" = this ] || root=$SC_WORK/other
	say "$(date +%T) $side" >&2
	REPEATS=1 FIGURES_TO=$SC_WORK/figures.$side bash "$root/bench/run" "$@" >&2 ||
		die "bench/run failed on the side \"$side\""
}

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

median_or_failed() { if [ -s "$1" ]; then median "$1"; else echo failed; fi; }

# Prints a line for each figure: medians of both sides, and theirs.
compare_sides() {	# COMMIT
	local file name this other
	say "this checkout, and ${1:0:12}: medians of $REPEATS repeats in turn"
	for file in "$SC_WORK"/figures.this/*; do
		name=$(basename "$file")
		[ -e "$SC_WORK/figures.other/$name" ] || continue
		if ! [ -s "$file" ] || ! [ -s "$SC_WORK/figures.other/$name" ]; then
			printf '%-20s this %10s  other %10s\n' "$name" "$(median_or_failed "$file")" "$(median_or_failed "$SC_WORK/figures.other/$name")"
			continue
		fi
		this=$(median "$file") other=$(median "$SC_WORK/figures.other/$name")
		printf '%-20s this %10s  other %10s  this/other %s\n' "$name" "$this" "$other" \
			"$(awk -v a="$this" -v b="$other" 'BEGIN { if (b == 0) print "-"; else printf "%.3f", a / b }')"
	done
}
