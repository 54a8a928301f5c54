# State that is many times as large as stream_ckpt.task_memory: panes whose groups are in runs that the task writes
# itself, looks up and merges.  Processes end and tables are written at random; the results stay the definitions'.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $rounds = $ENV{ROUNDS} || 12;

my $node = new_node('main', "max_parallel_workers_per_gather = 0\nstream_ckpt.task_memory = 16MB\nmax_wal_size = 4GB\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE TABLE t (ts timestamptz, k int, v bigint, s text)');
attach($node, 't');
sql(q(SELECT stream_ckpt.alter_pipeline('default', parallelism => 2)));

# name => [emit, keys, aggregates]
my %queries = (
	wide => [ 'close', 'k AS k0', 'count(*) AS n, sum(v), max(s), avg(v)' ],
	changing => [ 'update', 'k % 20000 AS k0', 'count(*) AS n, sum(v), min(s)' ],
	general => [ 'close', '(k % 30000) / 10.0 AS k0', 'count(*) AS n, sum(v)' ],
	inputs => [ 'close', 'k % 20000 AS k0', 'md5(array_agg(v ORDER BY v, s)::text) AS all_of_it, count(DISTINCT v % 5)' ]);
for my $name (sort keys %queries)
{
	my ($emit, $keys, $aggregates) = @{ $queries{$name} };

	create_query($node, $name, 't',
		emit => $emit,
		select => "SELECT w.window_start, w.window_end, $keys, $aggregates FROM t, stream_ckpt.tumble(ts, '1 day') w
			GROUP BY w.window_start, w.window_end, k0");
}
wait_running($node);

my $day = 0;

sub insert_rows
{
	my ($rows, $keys) = @_;
	my $salt = int rand 1_000_000;

	return "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $day * interval '1 day' + i % 86000 * interval '1 second',
		(hashint4(i + $salt) & 1073741823) % $keys, hashint4(i) % 1000, CASE WHEN i % 3 = 0 THEN 'x' || i % 40 END
		FROM generate_series(1, $rows) i";
}

sub disturb
{
	my $how = pick('immediate', 'task', 'coordinator', 'fast', 'merge_range', 'merge_ends', 'tasks');

	note "lost by: $how";
	if ($how =~ /^merge/)
	{
		# in the middle of a merge, when the next one comes
		arm($node, $how, 'exit', pick(1, 1, 5));
		return;
	}
	if ($how eq 'tasks')
	{
		my $tasks = pick(1, 2);

		note "tasks: $tasks";
		sql("SELECT stream_ckpt.alter_query('$_', parallelism => $tasks)") for 'wide', 'inputs';
		return;
	}
	if ($how ne 'task')
	{
		lose_state($node, $how);
		return;
	}
	# one of two: with it the attempt ends
	my $coordinator = pid_of($node, 'coordinator');

	kill 'TERM', sql('SELECT min(pid) FROM stream_ckpt.tasks');
	wait_restarted($node, 'coordinator', $coordinator);
	wait_running($node);
	return;
}

for my $round (1 .. $rounds)
{
	sql(insert_rows(pick(1000, 60000, 100000), pick(2000, 300000)));
	checkpoint_all($node) if rand() < 0.3;
	disturb() if rand() < 0.5;
	if ($round % 5 == 0)
	{
		$day++;
		sql(insert_rows(10, 10));
		results_ok($node, $_, "round $round: $_", emit => $queries{$_}[0], table => 't') for sort keys %queries;
	}
}
disarm($node, $_) for 'merge_range', 'merge_ends';
for (1 .. 10)
{
	sql(insert_rows(40000, 300000));
	checkpoint_all($node);
}
sync_pipelines($node);

my $apart = 'get_byte(data, 6) & 8 <> 0';
cmp_ok(sql("SELECT count(*) FROM stream_ckpt.state_run WHERE seq = 0 AND $apart"), '>', 0, 'the task has written runs itself');
cmp_ok(sql("SELECT count(*) FROM stream_ckpt.state_run WHERE get_byte(data, 20) > 0 AND seq = 0"), '>', 0, 'it has merged some');
is(sql("SELECT count(*) FROM stream_ckpt.queries WHERE message IS NOT NULL"), '0', 'no query has failed');
$day++;
sql(insert_rows(10, 10));
results_ok($node, $_, "in the end: $_", emit => $queries{$_}[0], table => 't') for sort keys %queries;

$node->stop;
done_testing();
