# A commit that waits for a synchronous standby is in the WAL, and not visible.  However long the
# standby is away, the workers that wait for the commit hardly ever look, and all goes on when it
# is over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'needs /proc' unless -r "/proc/$$/status";

my $node = new_node('main');
create_stream_table($node, 't');
create_query($node, 'updated', 't', emit => 'update');
insert_hour($node, 0);
results_ok($node, 'updated', 'before', emit => 'update');

# How often a process has gone to sleep so far.
sub sleeps
{
	my ($process) = @_;
	my $pid = pid_of($node, $process);
	my ($n) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	return $n;
}

sub standby_away
{
	my ($away) = @_;
	$node->safe_psql('postgres',
		"ALTER SYSTEM SET synchronous_standby_names = '" . ($away ? 'nobody' : '') . "'");
	$node->reload;
	return;
}

# Lets a command's commit wait, and counts a process's sleeps in two seconds of that.
sub waits_quietly
{
	my ($process, $command, $test) = @_;

	standby_away(1);
	my $session = $node->background_psql('postgres');
	$session->query_until(qr/begun/, "\\echo begun\n$command;\n");
	wait_until($node, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'),
		'a commit waits for the standby');
	my ($ret, $stdout, $stderr) = try_psql($node, q(SELECT stream_ckpt.sync('100 ms')));
	like($stderr, qr/timed out.*A commit waits for a synchronous standby/s, "sync() says so: $test");
	my $at = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	my $before = sleeps($process);
	wait_until($node, "SELECT clock_timestamp() > timestamptz '$at' + interval '2 seconds'", 'time has passed');
	cmp_ok(sleeps($process) - $before, '<', 100, $test);
	standby_away(0);
	$session->quit;
	return;
}

waits_quietly('coordinator', q(INSERT INTO t VALUES ('2024-01-01 01:00 UTC', 1, 1, 1)),
	'a checkpoint waits quietly');
results_ok($node, 'updated', 'the row counts', emit => 'update');
waits_quietly('task', q(SELECT stream_ckpt.pause_query('updated')), 'a control message waits quietly');
wait_until($node, q(SELECT status = 'paused' FROM stream_ckpt.queries), 'the query is paused');
$node->safe_psql('postgres', q(SELECT stream_ckpt.resume_query('updated')));
insert_hour($node, 2);
results_ok($node, 'updated', 'and goes on', emit => 'update');

$node->stop;
done_testing();
