# The system's clock is set back by a day while everything runs: checkpoints, tries, restarts,
# time-outs and idle streams go on.  The server's clock is ours: a library that is loaded before
# the C library answers for it, less what a file says.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'needs LD_PRELOAD' unless $^O eq 'linux';

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/clock.c", <<'EOC');
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *back;		/* seconds */

static void __attribute__((constructor))
begin(void)
{
	int			fd = open(getenv("CLOCK_FILE"), O_RDONLY);
	void	   *file = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

	if (file != MAP_FAILED)
		back = file;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	long		result = syscall(SYS_clock_gettime, clock, ts);

	if (clock == CLOCK_REALTIME && back)
		ts->tv_sec -= *back;
	return result;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}
EOC
my $cc = $ENV{CC} || 'cc';
system_or_bail($cc, '-shared', '-fPIC', '-O', '-o', "$dir/clock.so", "$dir/clock.c");

my $days = 0;

# in place: the file is mapped
sub set_back
{
	$days++;
	open my $fh, '+<', "$dir/back" or die "$dir/back: $!";
	syswrite($fh, pack('q', $days * 86400)) == 8 or die "$dir/back: $!";
	close $fh;
	return;
}
append_to_file("$dir/back", pack('q', 0));

my $node = new_node('main', "stream_ckpt.result_lock_timeout = '100 ms'\n");
$node->stop;
{
	local $ENV{CLOCK_FILE} = "$dir/back";
	local $ENV{LD_PRELOAD} = "$dir/clock.so";
	$node->start;
}
sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

create_stream_table($node, 't');
sql(q(CREATE TABLE idle (ts timestamptz, k int)),
	q(SELECT stream_ckpt.attach_stream('idle', event_time => 'ts', idle_timeout => '1 second')));
create_query($node, 'updated', 't', emit => 'update');
create_query($node, 'idle_closed', 'idle',
	select => q(SELECT w.window_start, count(*) AS n FROM idle, stream_ckpt.tumble(ts, '100 ms') w GROUP BY w.window_start));
wait_running($node);

my $rows = 0;

sub insert
{
	$rows++;
	return sql("INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 1, 1, $rows)");
}

# without sync(), whose checkpoint waits for no time
sub arrives
{
	my ($what) = @_;
	wait_until($node, "SELECT n = $rows FROM updated", $what);
	pass($what);
	return;
}

insert();
arrives('before');
my $before = sql('SELECT now()');
set_back();
is(sql("SELECT now() < timestamptz '$before' - interval '23 hours'"), 't', 'the clock is set back');
insert();
arrives('a periodic checkpoint');

# a part that waits for a lock
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE updated');
insert();
wait_until($node,
	q(SELECT status = 'waiting' FROM stream_ckpt.queries WHERE query = 'updated'::regclass),
	'the query waits');
set_back();
$locker->query_safe('COMMIT');
$locker->quit;
arrives('a part that waited');

# an attempt that failed, and another one that failed
arm($node, 'task_before_restore', 'error');
sql('SELECT pg_terminate_backend(pid) FROM stream_ckpt.tasks');
wait_until($node, q(SELECT failures >= 2 FROM stream_ckpt.pipelines), 'attempts fail');
set_back();
disarm($node, 'task_before_restore');
insert();
arrives('another attempt');
is(sql(q(SELECT coalesce(bool_and(restart_at > status_since - interval '2 days'), true) FROM stream_ckpt.pipelines)),
	't', 'and the views know when');

# sync()'s own time-out
arm($node, 'reader_before_barrier', 'wait');
my $sync = $node->background_psql('postgres', on_error_stop => 0);
insert();
$sync->query_until(qr/begun/, "\\echo begun\nSELECT stream_ckpt.sync('2 seconds');\n");
wait_until($node,
	q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%sync(''2 seconds'')%' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()),
	'sync() waits');
set_back();
wait_until($node,
	q(SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%sync(''2 seconds'')%' AND state = 'active' AND pid <> pg_backend_pid()),
	'sync() has timed out');
disarm($node, 'reader_before_barrier');
$sync->quit;
arrives('after a time-out');

# a stream without rows
sql(q(INSERT INTO idle VALUES ('2024-01-01 00:00 UTC', 1)));
wait_until($node, q(SELECT sum(rows_in) = 1 FROM stream_ckpt.queries WHERE query = 'idle_closed'::regclass),
	'the row is there');
set_back();
wait_until($node, 'SELECT count(*) = 1 FROM idle_closed', 'its window closes');
is(sql(q(SELECT bool_and(watermark BETWEEN '2024-01-01 00:00:00.1 UTC' AND '2024-01-01 00:10 UTC') FROM stream_ckpt.queries WHERE query = 'idle_closed'::regclass)),
	't', 'by the time that has passed');

is(sql(q(SELECT count(*) FROM stream_ckpt.checkpoints WHERE barrier_ms < 0 OR async_ms < 0)),
	'0', 'no part of a checkpoint has taken less than nothing');
results_ok($node, 'updated', 'at last', emit => 'update');
$node->stop;
done_testing();
