# Aggregates of all kinds in windows that share panes, in sessions and without windows: states are combined, and kept
# inputs put together.  Rows come in the order of their event times, so that panes in order are the rows in order; then the
# result is that of the plain query, floats up to rounding.  Two tasks, an end of a task, a restart, a crash.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Aggregates;
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "max_parallel_workers_per_gather = 0\nmax_worker_processes = 20\n");
make_aggregates($node);
my @sets = aggregate_sets($node);
sub sql { return $node->safe_psql('postgres', $_[0]); }

# kind => [window, its columns]
my %windows = (
	hop => [ "hop(ts, '20 seconds', '1 minute')", 'w.window_start', 'w.window_end' ],
	cumulate => [ "cumulate(ts, '20 seconds', '1 minute')", 'w.window_start', 'w.window_end' ],
	session => [ "session(ts, '3 seconds')", 'w.window_start', 'w.window_end' ],
	none => [''],
);

sql("SELECT stream_ckpt.alter_pipeline('default', parallelism => 2)");
attach($node, 'src', delay => '10 seconds');
my @names;
my $n = 0;
for my $kind (sort keys %windows)
{
	my ($window, @columns) = @{ $windows{$kind} };

	for my $set (@sets)
	{
		# PostgreSQL shows DISTINCT of a VARIADIC aggregate as text that it doesn't read, and verify() of session() needs that
		next if $kind eq 'session' && $set->{name} eq 'own_ordered';
		# an expression of the window's columns is a key with tumble() only
		next if grep { /window_/ } @{ $set->{key} };
		my $name = "$set->{name}_$kind";
		# keys of several tasks are of built-in types
		my $own = grep { /^(?:e|p|dom|domarr)$|odd|caseless/ } @{ $set->{key} };
		create_query($node, $name, 'src', select => aggregate_definition($set, $window, @columns), emit => $window ? 'close' : 'update',
			options => 'parallelism => ' . ($own ? 1 : 1 + $n++ % 2));
		push @names, $name;
	}
}
wait_running($node);

sub check
{
	my ($when) = @_;

	sync_pipelines($node);
	my $sql = "SET enable_sort = off; SET timezone = 'UTC';\n" . join '', map { "SELECT '$_', stream_ckpt.verify('$_');\n" } @names;
	for my $line (split /\n/, sql($sql))
	{
		my ($name, $differences) = split /\|/, $line;
		is($differences, '0', "$when: $name");
	}
	return;
}

my $i = 1;
my $start = 0;
sub feed
{
	for (1 .. $_[0])
	{
		my $last = $i + 60 + $i % 37;
		sql("SELECT fill($i, $last, timestamptz '2024-01-01 00:00 UTC' + $start * interval '350 milliseconds')");
		# sessions end
		$start += $last - $i + 31;
		$i = $last + 1;
	}
	return;
}

feed(5);
check('first rows');
cmp_ok(sql('SELECT count(*) FROM lists_hop'), '>', 0, 'windows closed');
checkpoint_all($node);
my $task = pid_of($node, 'task');
kill 'TERM', $task;
wait_restarted($node, 'task', $task);
feed(3);
check('after an end of a task');
$node->restart;
feed(3);
$node->stop('immediate');
$node->start;
feed(2);
check('after a restart and a crash');

$node->stop;
done_testing();
