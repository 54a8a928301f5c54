# shellcheck shell=bash
#
# common.sh - what the scripts of this folder share; to be sourced, never run.
#
# Every script works in a temporary folder of its own, owned by an unprivileged
# user, on a copy of the sources and on a private copy of PostgreSQL's program
# tree.  Neither the checkout nor the system's PostgreSQL nor any existing
# cluster is ever written to.  What a script starts it stops, by process id.
#
# Environment:
#   PG_MAJOR   PostgreSQL version to work with (default 15)
#   PG_PREFIX  where lib/postgresql/N and share/postgresql/N are copied from
#              (default /usr: Debian's packages)
#   TMPDIR     where temporary folders go (default /tmp)
#   KEEP=1     keep the temporary folder after a success, too

set -euo pipefail

SC_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PG_MAJOR=${PG_MAJOR:-15}
PG_PREFIX=${PG_PREFIX:-/usr}
SC_TEST_USER=stream_ckpt_test

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Names of the commands or files that tests need and that aren't there.
missing_prerequisites() {
	local lib=$PG_PREFIX/lib/postgresql/$PG_MAJOR f
	for f in bin/postgres bin/initdb bin/psql bin/pgbench bin/pg_config \
		lib/pgxs/src/makefiles/pgxs.mk lib/pgxs/src/test/regress/pg_regress \
		lib/pgxs/src/test/isolation/pg_isolation_regress; do
		[ -e "$lib/$f" ] || echo "$lib/$f"
	done
	[ -e "$PG_PREFIX/include/postgresql/$PG_MAJOR/server/postgres.h" ] ||
		echo "$PG_PREFIX/include/postgresql/$PG_MAJOR/server/postgres.h"
	for f in make gcc prove setpriv tar; do
		command -v "$f" >/dev/null || echo "$f"
	done
	perl -MIPC::Run -e 1 2>/dev/null || echo "perl module IPC::Run"
}

# What is missing is installed, where that is Debian's packages.
require_prerequisites() {
	local missing
	missing=$(missing_prerequisites)
	[ -n "$missing" ] || return 0
	if [ "$PG_PREFIX" = /usr ] && command -v apt-get >/dev/null; then
		bash "$SC_ROOT/tools/setup"
		return
	fi
	die "missing: $(echo "$missing" | paste -sd, | sed 's/,/, /g')"
}

# Runs a command as the unprivileged user, in the work folder.  The process that
# the shell started becomes the command itself, so that $! is its own id.
as_user() {
	if [ "$(id -u)" -eq 0 ]; then
		setpriv --reuid="$SC_TEST_USER" --regid="$SC_TEST_USER" --clear-groups \
			env HOME="$SC_WORK" USER="$SC_TEST_USER" LOGNAME="$SC_TEST_USER" "$@"
	else
		"$@"
	fi
}

# make_workspace NAME: sets SC_WORK (temporary folder), removes it at exit after
# a success.  Everything below it belongs to the unprivileged user.
make_workspace() {
	if [ "$(id -u)" -eq 0 ] && ! id "$SC_TEST_USER" >/dev/null 2>&1; then
		useradd --system --user-group --no-create-home --home-dir /nonexistent \
			--shell /usr/sbin/nologin "$SC_TEST_USER"
	fi
	umask 022
	SC_WORK=$(mktemp -d "${TMPDIR:-/tmp}/stream_ckpt_$1.XXXXXX")
	chmod 755 "$SC_WORK"
	if [ "$(id -u)" -eq 0 ]; then
		chown "$SC_TEST_USER:$SC_TEST_USER" "$SC_WORK"
	fi
	trap 'leave_workspace $?' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	cd "$SC_WORK"
	# nothing of the caller's surroundings may reach a client
	unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE \
		PGOPTIONS PGDATA PGCLIENTENCODING PGTZ PGSSLMODE
	export LC_ALL=C
}

# Stops servers whose data folder lies below the work folder.
stop_servers() {
	local file pid
	while IFS= read -r file; do
		pid=$(head -n 1 "$file" 2>/dev/null) || continue
		case $(readlink "/proc/$pid/cwd" 2>/dev/null) in
			"$SC_WORK"/*) ;;
			*) continue ;;
		esac
		kill -QUIT "$pid" 2>/dev/null || continue
		# gone, or waiting to be reaped by init
		while readlink "/proc/$pid/cwd" >/dev/null 2>&1; do sleep 0.1; done
	done < <(find "$SC_WORK" -name postmaster.pid 2>/dev/null)
}

leave_workspace() {
	local status=$1 pid
	trap - EXIT
	trap '' INT TERM HUP
	for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
	stop_servers
	cd /
	if [ "$status" -eq 0 ] && [ -z "${KEEP:-}" ]; then
		rm -rf "$SC_WORK"
	else
		say "kept: $SC_WORK" >&2
	fi
	exit "$status"
}

# Copies the sources to $SC_WORK/build, without what a build left among them.
copy_sources() {
	mkdir "$SC_WORK/build"
	tar -C "$SC_ROOT" --exclude=./.git --exclude='*.o' --exclude='*.so' \
		--exclude='*.bc' --exclude=./tmp_check --exclude=./results \
		--exclude=./output_iso --no-same-owner -cf - . | tar -C "$SC_WORK/build" -xf -
	if [ "$(id -u)" -eq 0 ]; then
		chown -R "$SC_TEST_USER:$SC_TEST_USER" "$SC_WORK/build"
	fi
}

# build_and_install [SC_DEBUG=1]: private program tree, build, install into it.
# Sets PG_CONFIG and PGBIN.  Bitcode for JIT is left out: it takes longer than
# all the rest, and everything here runs with jit off.
build_and_install() {
	copy_sources
	PG_CONFIG=$(as_user env PG_MAJOR="$PG_MAJOR" PG_PREFIX="$PG_PREFIX" \
		bash "$SC_WORK/build/tools/private_pg" "$SC_WORK/pg")
	PGBIN=$(dirname "$PG_CONFIG")
	if ! as_user make -C "$SC_WORK/build" -j"$(nproc)" PG_CONFIG="$PG_CONFIG" \
		with_llvm=no "$@" install >"$SC_WORK/build.log" 2>&1; then
		grep -E '(error|warning):|\*\*\*' "$SC_WORK/build.log" | head -n 40 || tail -n 40 "$SC_WORK/build.log"
		die "the build failed: see $SC_WORK/build.log"
	fi
}

# ---- one private server (demo, benchmarks) ----

# make_server: initdb in $SC_WORK/data; settings from standard input; started.
# Sets PGDATA, PGHOST, PGPORT, PGUSER, PGDATABASE for the clients.
make_server() {
	export PGDATA=$SC_WORK/data PGHOST=$SC_WORK/socket PGPORT=5432 \
		PGUSER=postgres PGDATABASE=postgres
	# no notice about WAL without a bound: the server won't live that long
	export PGOPTIONS='-c client_min_messages=warning'
	as_user mkdir "$PGHOST"
	as_user "$PGBIN/initdb" -D "$PGDATA" -U postgres -A trust -N \
		--no-locale -E UTF8 >"$SC_WORK/initdb.log" 2>&1 || {
		cat "$SC_WORK/initdb.log"
		die "initdb failed"
	}
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$PGHOST'"
		echo "wal_level = logical"
		echo "shared_preload_libraries = 'stream_ckpt'"
		cat
	} >>"$PGDATA/postgresql.conf"
	as_user "$PGBIN/pg_ctl" -D "$PGDATA" -l "$SC_WORK/server.log" -w start >/dev/null || {
		tail -n 30 "$SC_WORK/server.log"
		die "the server does not start"
	}
}

# psql that stops at the first error and prints bare rows
sql() { as_user "$PGBIN/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }
