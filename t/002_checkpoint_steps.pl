# A failure at each step of the checkpoint protocol, of every kind: the pipeline resumes by
# itself, and the results are exact.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# in the order in which one checkpoint passes them
my @points = qw(
  task_after_rows
  reader_before_barrier
  reader_after_barrier
  task_before_snapshot
  task_after_snapshot
  task_part_sent
  coordinator_parts_collected
  coordinator_before_write
  coordinator_after_rows
  coordinator_before_record
  coordinator_before_commit
  coordinator_after_commit
  coordinator_after_ack
  reader_before_confirm
  reader_after_confirm
);
my @actions = qw(error exit term kill);

my $node = new_node('main', "stream_ckpt.debug_retry_second = 50ms\n", draw => {});
create_stream_table($node, 't', delay => '10 seconds');
create_query($node, 'closed', 't', emit => 'close');
create_query($node, 'live', 't', emit => 'update');
# mostly one with nothing new
create_stream_table($node, 'u');
create_query($node, 'seldom', 'u', emit => 'update');
wait_running($node);

my $minute = 0;

# One transaction of rows over three minutes of event time.  It may fail: the server may
# be killed between its commit and the answer.
sub insert_rows
{
	try_psql($node,
		qq(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $minute * interval '1 minute' + i * interval '4 seconds',
			i % 7, i, $minute FROM generate_series(0, 44) i));
	try_psql($node, "INSERT INTO u VALUES (timestamptz '2024-01-01 00:00 UTC' + $minute * interval '1 minute', 1, $minute, 1)")
	  if $minute % 10 == 0;
	$minute += 2;
	return;
}

# The oracles of all queries, and that each row was counted exactly once.
sub check
{
	my ($what) = @_;

	sync_pipelines($node);
	is( join(' ',
			differences($node, 'closed', table => 't', delay => '10 seconds'),
			differences($node, 'live', emit => 'update'),
			differences($node, 'seldom', emit => 'update'),
			counter($node, 'closed', 'rows_in')
			  - $node->safe_psql('postgres', 'SELECT count(*) FROM t'),
			query_late_rows($node, 'live')),
		'0 0 0 0 0',
		$what);
	return;
}

insert_rows();
check('before any failure');

for my $point (@points)
{
	for my $action (@actions)
	{
		arm($node, $point, $action);
		insert_rows();
		wait_reached($node, $point);
		wait_up($node);
		insert_rows();
		check("$action at $point");
	}
}

# a failure while recovering from a failure
for my $action (@actions)
{
	arm($node, 'task_before_restore', $action);
	arm($node, 'coordinator_before_write', 'exit');
	insert_rows();
	wait_reached($node, 'coordinator_before_write');
	wait_reached($node, 'task_before_restore');
	wait_up($node);
	insert_rows();
	check("$action while restoring");
}

# failures of several attempts in a row
arm($node, 'coordinator_before_commit', 'exit');
arm($node, 'task_after_snapshot', 'exit', 2);
insert_rows();
wait_reached($node, 'coordinator_before_commit');
insert_rows();
insert_rows();
check('failures in a row');
disarm($node, 'task_after_snapshot');

# Between its commit and its acknowledgement the coordinator is held, then killed from outside.
for my $point (qw(coordinator_before_commit coordinator_after_commit))
{
	arm($node, $point, 'wait');
	insert_rows();
	wait_reached($node, $point);
	my $pid = pid_of($node, 'coordinator');
	kill 'KILL', $pid;
	disarm($node, $point);
	wait_until(
		$node,
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
		'the coordinator is gone');
	insert_rows();
	check("killed from outside at $point");
}

# a checkpoint that failed is counted (its record is replaced once it succeeds)
my $failed =
  $node->safe_psql('postgres', 'SELECT failed FROM stream_ckpt.checkpoint_stats');
cmp_ok($failed, '>', 0, 'failed checkpoints are counted');
arm($node, 'coordinator_before_commit', 'error');
insert_rows();
wait_reached($node, 'coordinator_before_commit');
check('after an error at the commit');
is( $node->safe_psql(
		'postgres', "SELECT failed - $failed FROM stream_ckpt.checkpoint_stats"),
	'1',
	'one more');

$node->stop;
done_testing();
