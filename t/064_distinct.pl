# SELECT DISTINCT is GROUP BY all columns: random columns of random rows, with windows and without, against the plain query,
# with whatever dies.
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
my $rounds = $ENV{ROUNDS} || 5;
my $node = new_node('main', '', draw => {});
my $tasks = drawn($node)->{tasks};
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q(CREATE TABLE t (ts timestamptz, k int, v int, s text, j jsonb, txn int)));
attach($node, 't', delay => '1 hour');

my @columns = ('k', 'v % 7', 'upper(s)', 's', 'j', 'coalesce(k, -1)', '1', 'NULL::text', 'ARRAY[k, v % 3]', 'k IS NULL', 'ts::time > \'12:00\'');
my %queries = (
	grouped => [ 'SELECT DISTINCT k, count(*) AS n FROM t GROUP BY k', 'update' ],
	one => [ 'SELECT DISTINCT count(*) AS n, sum(v) AS s FROM t', 'update' ],
	constant => [ 'SELECT DISTINCT 7 AS seven, 7 AS again FROM t WHERE v > 98', 'update' ],
	by_day => [ q(SELECT DISTINCT date_trunc('hour', ts, 'Europe/Berlin') AS hour, s FROM t), 'close' ]);
for my $i (1 .. 6)
{
	my $n = 0;
	my $list = join ', ', map { $columns[ rand @columns ] . ' AS c' . $n++ } 1 .. 1 + int rand 3;
	my $where = pick('', 'WHERE v < 50', 'WHERE s IS NOT NULL');
	# windows that share panes have to fit into memory
	my $window = pick('', q(tumble(ts, '10 minutes')), drawn($node)->{memory} ? () : (q(hop(ts, '10 minutes', '30 minutes')), q(cumulate(ts, '10 minutes', '1 hour'))));

	$queries{"q$i"} = [ 'SELECT DISTINCT ' . ($window ? "w.window_start, w.window_end, $list FROM t, stream_ckpt.$window w" : "$list FROM t") . " $where",
		$window ? pick('close', 'update') : 'update' ];
}
for my $name (sort keys %queries)
{
	my ($select, $emit) = @{ $queries{$name} };
	my $parallelism = $name eq 'one' ? 1 : pick(grep { $_ <= $tasks } 1, 2, 4);

	note "$name ($emit, in $parallelism): $select";
	sql("SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$, emit => '$emit', parallelism => $parallelism, backfill => false)");
}
wait_running($node);

my $txn = 0;
my $clock = 0;
sub transaction
{
	$txn++;
	sql('INSERT INTO t VALUES ' . join ', ', map {
			$clock += rand 20;
			sprintf q((timestamptz '2024-01-01 UTC' + %d * interval '1 second', %s, %d, %s, %s, %d)), $clock - rand 600, pick('NULL', 0 .. 3), rand 100,
			pick('NULL', map { "'$_'" } qw(a b B)), pick('NULL', q('{"a": 1}'), q('{"a":1.0}'), q('[]')), $txn
		} 1 .. 1 + int rand 60);
	return;
}
sub all_ok
{
	my ($test) = @_;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		my ($select, $emit) = @{ $queries{$name} };
		is(sql("SELECT stream_ckpt.verify('$name')"), '0', "$test: $name");
		is(sql("SELECT count(*) > 0 FROM $name"), 't', "$test: $name has rows") if $name ne 'constant' && $clock > 9000;
	}
	results_ok($node, 'q1', "$test: not by verify() only", emit => 'update', synced => 1) if $queries{q1}[1] eq 'update';
	return;
}
for my $round (1 .. $rounds)
{
	my $what = pick('', 'task', 'immediate', 'coordinator');

	transaction() for 1 .. 5 + int rand 20;
	lose_state($node, $what) if $what;
	transaction() for 1 .. int rand 5;
	all_ok("round $round");
}
is(sql("SELECT pg_get_indexdef('grouped_key'::regclass)"), 'CREATE UNIQUE INDEX grouped_key ON public.grouped USING btree (k) NULLS NOT DISTINCT', 'the keys are GROUP BY\'s');

$node->stop;
done_testing();
