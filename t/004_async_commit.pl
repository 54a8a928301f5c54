# A crash between an asynchronous commit and its flush: what was lost is lost for the
# results, too; a checkpoint whose own commit was lost is done again; the slot never is
# ahead of the offset.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# nobody flushes an asynchronous commit for 10 seconds, unless we do
my $node = new_node(
	'main', q(
synchronous_commit = off
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
), draw => {});
create_stream_table($node, 't', delay => '10 seconds');
create_query($node, 'closed', 't', emit => 'close');
create_query($node, 'live', 't', emit => 'update');
wait_running($node);

my $minute = 0;

sub rows
{
	$minute += 2;
	return
	  qq(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $minute * interval '1 minute' + i * interval '1 second',
			i % 7, i, $minute FROM generate_series(0, 119) i);
}

sub check
{
	my ($what) = @_;

	sync_pipelines($node);
	is( join(' ',
			differences($node, 'closed', table => 't', delay => '10 seconds'),
			differences($node, 'live', emit => 'update'),
			counter($node, 'live', 'rows_in')
			  - $node->safe_psql('postgres', 'SELECT count(*) FROM t')),
		'0 0 0',
		$what);
	is( $node->safe_psql(
			'postgres', q(SELECT status FROM stream_ckpt.pipelines)),
		'running',
		"$what: running");
	return;
}

try_psql($node, rows());
check('asynchronous commits');

# around the checkpoint's own commit
for my $point (
	qw(coordinator_after_commit coordinator_after_ack reader_before_confirm reader_after_confirm)
  )
{
	arm($node, $point, 'kill');
	try_psql($node, rows());
	wait_reached($node, $point);
	wait_up($node);
	try_psql($node, rows());
	check("kill at $point");
}

# A session commits and the server dies at once, before or after the reader saw it.  The
# victim is another process each time.
my $lost = 0;
for my $round (1 .. 12)
{
	my %pid = all_pids($node);
	my $which = (qw(task reader coordinator))[$round % 3];
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM t');

	try_psql($node,
		rows() . ";\nCOPY (SELECT 1) TO PROGRAM 'kill -9 $pid{$which}'");
	wait_until(
		$node,
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid{$which})",
		"the $which is gone");
	$lost++
	  if $node->safe_psql('postgres', 'SELECT count(*) FROM t') == $before;
	check("round $round: the $which dies at the commit");
}
note "$lost of 12 commits were lost";

# The coordinator held right after its asynchronous commit, which then is lost.
for my $round (1 .. 3)
{
	arm($node, 'coordinator_after_commit', 'wait');
	try_psql($node, rows());
	wait_reached($node, 'coordinator_after_commit');
	$node->stop('immediate');
	disarm($node, 'coordinator_after_commit');
	$node->start;
	check("round $round: an immediate stop before the checkpoint's flush");
}

$node->stop;
done_testing();
