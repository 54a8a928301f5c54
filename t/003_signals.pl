# Every signal to every process while rows flow, a crash and a fast restart of the server:
# work resumes by itself, and the results are exact.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.debug_retry_second = 50ms\n", draw => {});
create_stream_table($node, 't', delay => '10 minutes');
create_query($node, 'closed', 't', emit => 'close');
create_query($node, 'live', 't', emit => 'update');
$node->safe_psql('postgres', 'CREATE SEQUENCE s');
wait_running($node);

# 10 rows a transaction, 6 s of event time each: every tenth transaction a new minute.
# Two clients commit in another order than they draw numbers: the delay covers that.
my $script =
  q(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + n * interval '6 seconds' + i * interval '500 ms', i % 4, i, n
	FROM (SELECT nextval('s') AS n) s, generate_series(1, 10) i;
);

sub during_load
{
	my ($what, $action, %opt) = @_;
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM t');
	my $writer = start_writer($node, $script, transactions => 300, rate => 400);

	wait_until($node,
		"SELECT rows_in > $before FROM stream_ckpt.queries WHERE query = 'live'::regclass",
		'rows flow');
	$action->();
	my $finished = finish_writer($writer);
	ok($finished, "$what: writers see nothing of it") unless $opt{server_dies};
	wait_up($node);
	sync_pipelines($node);
	is( join(' ',
			differences($node, 'closed', table => 't', delay => '10 minutes'),
			differences($node, 'live', emit => 'update'),
			counter($node, 'live', 'rows_in')
			  - $node->safe_psql('postgres', 'SELECT count(*) FROM t'),
			query_late_rows($node, 'live')),
		'0 0 0 0',
		$what);
	wait_running($node);
	return;
}

for my $which (qw(reader task coordinator launcher))
{
	for my $signal (qw(TERM INT))
	{
		my $pid = pid_of($node, $which);
		during_load("SIG$signal of the $which", sub { kill $signal, $pid; });
	}
	my $pid = pid_of($node, $which);
	during_load(
		"SIGKILL of the $which",
		sub {
			kill 'KILL', $pid;
			# the postmaster ends everybody before it starts again
			wait_until(
				$node,
				"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
				"the $which is gone");
		},
		server_dies => 1);
}

during_load(
	'SIGKILL of a session',
	sub {
		my ($pid) =
		  $node->safe_psql('postgres',
			q(SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' LIMIT 1)
		  );
		kill 'KILL', $pid if $pid;
	},
	server_dies => 1);

for my $mode (qw(immediate fast))
{
	during_load(
		"stop -m $mode and start",
		sub {
			$node->stop($mode);
			$node->start;
		},
		server_dies => 1);
}

# more than one at a time
during_load(
	'SIGTERM of all',
	sub {
		my %pid = all_pids($node);
		kill 'TERM', values %pid;
	});

$node->stop;
done_testing();
