# stream_ckpt: continuous windowed aggregates with exactly-once checkpoints.
#
#   make            build against the PostgreSQL that pg_config names
#   make install    install there
#   make demo       the main job on real input, on a private server
#   make demo-updates  the same with tables whose rows change: pgbench's TPC-B
#   make test       all tests, on private servers (TESTS="name ..." selects)
#   make check      the same
#   make torture    crash and random tests in all conditions of which "make test" draws some
#                   (SEEDS=n, DRAW="tasks=4 memory=40", TESTS="t/... ...")
#   make test-core  PostgreSQL's own regression suite beside a running pipeline
#   make bench      ratios against plain PostgreSQL, on a private server
#                   (FIGURES="name ..." selects)
#   make setup      installs what those above need, on Debian 12
#
# SC_DEBUG=1 compiles in the debug points that the crash tests use. WERROR=1 makes warnings errors: for our
# own tests, because the next compiler warns of something else.

srcdir ?= .
EXTENSION = stream_ckpt
MODULE_big = stream_ckpt
DATA = sql/stream_ckpt--0.3.0.sql \
	sql/stream_ckpt--0.1.0.sql sql/stream_ckpt--0.1.0--0.2.0.sql \
	sql/stream_ckpt--0.2.0--0.3.0.sql
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c $(srcdir)/src/*/*.c $(srcdir)/src/*/*/*.c)))

# Every test of sql/ and of specs/, by hand, in the order in which they run.
REGRESS = tumble shared_windows sessions processing_time calendar stateless explain refuse catalog time log_stream upper topn joins changes
REGRESS_OPTS =
ISOLATION = log_stream_unread create_query_writers attach_waits sync_open_writer \
	ddl_create_query drop_query_reader drop_query_late_rows result_lock create_twice detach_create \
	attach_inherit
ISOLATION_OPTS = --load-extension=stream_ckpt

PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-cast-function-type $(if $(WERROR),-Werror) \
	-fvisibility=hidden
# 15 leaves PGDLLEXPORT empty; with hidden visibility it has to say what 16 says.
PG_CPPFLAGS = -I$(srcdir)/src $(if $(SC_DEBUG),-DSC_DEBUG) \
	-D'PGDLLEXPORT=__attribute__((visibility("default")))'

# The targets that work on private servers find PostgreSQL themselves, and make
# no use of PGXS (whose own "check" only says that it is not supported).
private_targets = setup demo demo-updates test check torture test-core bench print-%

ifneq ($(filter-out $(private_targets),$(or $(MAKECMDGOALS),all)),)
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)

# tests run on private servers: "make test"
NO_INSTALLCHECK = 1

include $(PGXS)
else
.PHONY: setup demo demo-updates test check torture test-core bench

setup:
	@bash $(srcdir)/tools/setup

demo:
	@bash $(srcdir)/tools/demo

demo-updates:
	@bash $(srcdir)/tools/demo_updates

test check:
	@bash $(srcdir)/tools/run_tests $(TESTS)

torture:
	@bash $(srcdir)/tools/torture $(TESTS)

test-core:
	@bash $(srcdir)/tools/test_core

bench:
	@bash $(srcdir)/bench/run $(FIGURES)

# for the scripts: the value of a variable
print-%:
	@echo $($*)
endif
