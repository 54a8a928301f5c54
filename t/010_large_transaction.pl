# Five million rows in one transaction flow through in bounded memory, measured, and survive
# the death of a task in the middle.  A large state is loaded, however long that takes.
#
# ROWS=n: another number of rows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = $ENV{ROWS} || 5_000_000;

# Peak resident memory of a worker: what decoding may take, the queue, the state of 5,000
# groups, a process's own, and the shared buffers that it touched.
my $limit_kb = 300 * 1024;

my $node = new_node(
	'main', q(
logical_decoding_work_mem = 64MB
shared_buffers = 64MB
max_wal_size = 4GB
fsync = off
), draw => { batch => [ 0 ], memory => [ 0 ] });
create_stream_table($node, 't');
create_query($node, 'closed', 't', emit => 'close');
create_query($node, 'live', 't', emit => 'update');
wait_running($node);

my %peak;    # which => kB

sub measure
{
	my %pid = @_;
	for my $which (keys %pid)
	{
		my $kb = memory_of($pid{$which}) or next;
		$peak{$which} = $kb->{VmHWM}
		  if !defined $peak{$which} || $kb->{VmHWM} > $peak{$which};
	}
	return;
}

my %pid = all_pids($node);
$node->safe_psql('postgres',
	qq(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '6 ms', i % 10, i % 1000, 1
		FROM generate_series(1, $rows) i));

# a task dies in the middle of it
wait_until(
	$node,
	"SELECT min(rows_in) > $rows / 4 FROM stream_ckpt.tasks",
	'a quarter of the rows is processed');
measure(%pid);
kill 'TERM', $pid{task};
wait_restarted($node, 'task', $pid{task});
%pid = all_pids($node);

# asked again and again until all rows are there; each time a measure
my $done = 0;
for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
{
	measure(%pid);
	$done = scalar try_psql($node,
		"SELECT rows_in FROM stream_ckpt.queries WHERE query = 'live'::regclass");
	last if defined $done && $done =~ /^\d+$/ && $done >= $rows;
}
sync_pipelines($node);
measure(all_pids($node));

is(counter($node, 'live', 'rows_in'), $rows, 'every row once');
is(differences($node, 'closed', table => 't'), '0', 'emit close is exact');
is(differences($node, 'live', emit => 'update'), '0', 'emit update is exact');
for my $which (qw(reader task coordinator))
{
	diag sprintf '%s: peak resident memory %d MB', $which, $peak{$which} / 1024;
	cmp_ok($peak{$which}, '<', $limit_kb, "memory of the $which is bounded");
}

# Loading a million groups takes more than a time limit.
my $groups = 1_000_000;
create_query($node, 'many', 't', emit => 'close', select => "SELECT w.window_start, w.window_end, txn, count(*) AS n, sum(v) AS total
	FROM t, stream_ckpt.tumble(ts, '1 day') w GROUP BY w.window_start, w.window_end, txn");
$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-03-01 00:00 UTC', 1, 1, i FROM generate_series(1, $groups) i");
sync_pipelines($node);
$node->append_conf('postgresql.conf', "stream_ckpt.query_time_limit = '300ms'");
$node->reload;
my $pid = pid_of($node, 'task');
kill 'TERM', $pid;
wait_restarted($node, 'task', $pid);
wait_until($node, "SELECT sum(groups) >= $groups FROM stream_ckpt.tasks", 'the state of a million groups is loaded');
unlike($node->safe_psql('postgres', q(SELECT string_agg(status, ' ') FROM stream_ckpt.queries)), qr/retrying|failed/, 'within the time limit');
$node->safe_psql('postgres', "INSERT INTO t VALUES ('2024-03-03 00:00 UTC', 1, 1, 0)");
sync_pipelines($node);
is($node->safe_psql('postgres', 'SELECT count(*), sum(total) FROM many'), "$groups|$groups", 'and emitted');

$node->stop;
done_testing();
