# Every kind of aggregate on a running pipeline, against the definition as a plain query: with
# rows before and after a checkpoint, an end of the task, a restart of the server, and a
# stop, in windows that are open meanwhile.
#
# Each set of aggregates is one query with emit close and one with emit update.  Rows come from
# one session, so the table has them in the order of commits; and the plain query, which
# hashes, adds them up in that order.  So results must be the same to the last digit,
# where ORDER BY or DISTINCT within aggregates doesn't force it to sort (those sets
# use numbers that are exact).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Aggregates;
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main',
	"max_parallel_workers_per_gather = 0\nstream_ckpt.debug_batch_rows = -1\n");

make_aggregates($node);
my @sets = aggregate_sets($node);

sub definition { return aggregate_definition($_[0], "tumble(ts, '1 minute')", 'w.window_start', 'w.window_end'); }

attach($node, 'src', delay => '30 seconds');
for my $set (@sets)
{
	for my $emit ('close', 'update')
	{
		my $name = "$set->{name}_$emit";
		create_query($node, $name, 'src', emit => $emit, select => definition($set));
		push @{ $set->{results} }, $name;
	}
}
wait_running($node);

#
# Rows, and what happens between them
#

# Columns of a result that differ from its definition, each with a value of both sides.
sub show_differences
{
	my ($name, $set, $where) = @_;
	my $keys = join ' AND ', map { "x.$_\::text IS NOT DISTINCT FROM y.$_\::text" }
	  'window_start', map { "k$_" } 0 .. $#{ $set->{key} };
	for my $a (0 .. $#{ $set->{agg} })
	{
		my $shown = $node->safe_psql('postgres', qq(
			SET enable_sort = off; SET timezone = 'UTC';
			WITH x AS MATERIALIZED (TABLE $name), y AS MATERIALIZED (SELECT * FROM ${name}_definition d $where)
			SELECT 'result ' || left(coalesce(x.a$a\::text, '(null)'), 300) || E'\ntruth  ' || left(coalesce(y.a$a\::text, '(null)'), 300)
			FROM x JOIN y ON $keys WHERE x.a$a\::text IS DISTINCT FROM y.a$a\::text LIMIT 1));
		diag "$name: $set->{agg}[$a]:\n$shown" if $shown ne '';
	}
	return;
}

# One session compares all: query, what the independent comparison says, what verify() says.
sub check
{
	my ($when) = @_;
	my %set_of = map { my $set = $_; map { $_ => $set } @{ $set->{results} } } @sets;
	my $sql = "SET enable_sort = off; SET timezone = 'UTC';\n";
	my $closed = q(WHERE window_end <= (SELECT max(ts) - interval '30 seconds' FROM src));

	sync_pipelines($node);
	for my $name (sort keys %set_of)
	{
		my $where = $name =~ /_close$/ ? $closed : '';
		my $fold = $set_of{$name}{fold} ? 'lower' : '';
		$sql .= qq(
			WITH truth AS MATERIALIZED (SELECT ${fold}(d::text) FROM (SELECT * FROM ${name}_definition d $where) d),
				result AS MATERIALIZED (SELECT ${fold}(r::text) FROM $name r)
			SELECT '$name', (SELECT count(*) FROM ((TABLE result EXCEPT ALL TABLE truth)
				UNION ALL (TABLE truth EXCEPT ALL TABLE result)) x), stream_ckpt.verify('$name');\n);
	}
	for my $line (split /\n/, $node->safe_psql('postgres', $sql))
	{
		my ($name, $differences, $verified) = split /\|/, $line;
		is("$differences $verified", '0 0', "$when: $name")
		  or show_differences($name, $set_of{$name}, $name =~ /_close$/ ? $closed : '');
	}
	return;
}

my $i = 1;
my $minute = 0;

# Transactions of rows whose windows overlap with those of the ones before.
sub feed
{
	my ($transactions) = @_;
	for (1 .. $transactions)
	{
		my $last = $i + 60 + $i % 37;
		$node->safe_psql('postgres',
			"SELECT fill($i, $last, timestamptz '2024-01-01 00:00 UTC' + $minute * interval '25 seconds')");
		$i = $last + 1;
		$minute++;
	}
	return;
}

feed(4);
check('first rows');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM lists_close'), '>', 0, 'windows closed');

$node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()');
my $task = pid_of($node, 'task');
kill 'TERM', $task;
wait_restarted($node, 'task', $task);
feed(3);
check('after an end of the task');

$node->restart;
feed(3);
check('after a restart of the server');

$node->safe_psql('postgres', q(SELECT stream_ckpt.stop_pipeline('default')));
wait_status($node, 'stopped');
feed(3);
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default')));
feed(1);
check('after a stop, a crash and a start');

# every window closes
$minute += 10;
feed(1);
check('all windows closed');
is($node->safe_psql('postgres',
		q(SELECT sum(late_rows) + sum(null_event_times) FROM stream_ckpt.queries)),
	'0', 'no row was dropped');

$node->stop;
done_testing();
