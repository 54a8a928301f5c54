# State larger than memory: stream_ckpt.task_memory so small that panes are spilled all the time, with buckets of a few
# groups; queries whose rows go on as deltas and queries whose buckets are loaded; emit close and update, lateness, dead
# letters, kept inputs; one, two or four tasks, and another number of them; everything lost at random.
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
my $rounds = $ENV{ROUNDS} || 3;

my $node = new_node('main', "max_parallel_workers_per_gather = 0\nmax_worker_processes = 20\n",
	draw => { tasks => [ 1, 1, 2, 4 ], batch => [ 0, 7, -1 ], memory => [ 40, 100, 400 ], bucket => [ 100, 300, 1000, 4000 ] });
my $tasks = drawn($node)->{tasks};
sub sql { return $node->safe_psql('postgres', $_[0]); }

# t in order, u up to two hours late
for my $table (qw(t u))
{
	sql("CREATE TABLE $table (ts timestamptz, k int, v int, s text, n bigserial)");
	attach($node, $table);
}

# name => [emit, stream, keys, aggregates, options, rows that count]
my %queries = (
	deltas => [ 'close', 't', 'k % 3000 AS k0, v % 2 AS k1', 'count(*) AS n, sum(v), avg(v), min(k), max(s), variance(v)' ],
	arrival => [ 'close', 't', 'k % 300 AS k0', 'md5(array_agg(v)::text) AS all_of_it, count(*)' ],
	appended => [ 'close', 't', 'k % 300 AS k0', 'percentile_disc(0.5) WITHIN GROUP (ORDER BY v), count(*)' ],
	mixed => [ 'close', 't', "md5((k % 700)::text) AS k0, v % 3 AS k1", 'count(DISTINCT v % 10), sum(v::numeric), bool_or(v % 7 = 0), count(*)' ],
	numbers => [ 'close', 't', '(k % 400) / 10.0 AS k0', 'count(*), sum(v::bigint)' ],
	loaded => [ 'close', 't', 'k % 100 AS k0', 'sum((v % 64)::float8), max(s)' ],
	updated => [ 'update', 't', 'k % 200 AS k0, v % 2 AS k1', 'count(*), sum(v), min(s)' ],
	kept => [ 'update', 't', 'k % 30 AS k0', 'md5(array_agg(v ORDER BY v, s)::text) AS all_of_it' ],
	filtered => [ 'update', 't', 'k % 60 AS k0', 'count(*), sum(v) HAVING sum(v) % 3 < 2' ],
	letters => [ 'update', 't', 'k % 50 AS k0', 'sum(100 / (v - 13)), count(*)', "on_error => 'dead_letter'", 'v IS DISTINCT FROM 13' ],
	forever => [ 'update', 'u', 'k % 2000 AS k0', 'count(*), sum(v), max(s)' ],
	forever_kept => [ 'update', 'u', 'k % 40 AS k0', 'count(DISTINCT v), count(*) HAVING count(*) % 5 <> 1' ],
	late => [ 'close', 'u', 'k % 500 AS k0', 'count(*), sum(v), min(v)', "allowed_lateness => '3 hours'" ],
	late_kept => [ 'close', 'u', 'k % 50 AS k0', 'count(DISTINCT v), count(*) HAVING count(*) % 5 <> 1', "allowed_lateness => '3 hours'" ]);

sub select_of
{
	my ($name, $where, $arrived) = @_;
	my ($emit, $table, $keys, $aggregates) = @{ $queries{$name} };
	my $having = $aggregates =~ s/( HAVING .*)// ? $1 : '';

	$aggregates =~ s/array_agg\(v\)/array_agg(v ORDER BY n)/ if $arrived;
	return "SELECT $keys, $aggregates FROM $table WHERE $where GROUP BY k0$having" if $name =~ /^forever/;
	return "SELECT w.window_start, w.window_end, $keys, $aggregates FROM $table, stream_ckpt.tumble(ts, '1 hour') w
		WHERE $where GROUP BY w.window_start, w.window_end, k0" . ($keys =~ /k1/ ? ', k1' : '') . $having;
}

for my $name (sort keys %queries)
{
	my ($emit, $table, $keys, $aggregates, $options) = @{ $queries{$name} };
	my $i = 0;

	# names for the columns that have none
	my ($list, $having) = $aggregates =~ /^(.*?)( HAVING .*)?$/;
	my @parts = split /, (?![^(]*\))/, $list;
	$queries{$name}[3] = join(', ', map { / AS / ? $_ : "$_ AS a" . $i++ } @parts) . ($having // '');
	create_query($node, $name, $table, emit => $emit, select => select_of($name, 'true'),
		tasks => rand() < 0.6 ? $tasks : 1,
		options => $options);
}
wait_running($node);

my $hour = 0;
sub insert_rows
{
	my $rows = pick(1, 10, 300, 2000, 6000);
	my $keys = pick(1, 50, 3000, 100000);
	my $late = $hour > 1 ? "- (i % 3) * interval '1 hour'" : '';
	my $columns = "(hashint4(i + $keys) & 1073741823) % $keys, CASE WHEN i % 5 <> 0 THEN hashint4(i) % 1000 END, CASE WHEN i % 3 = 0 THEN repeat('x', i % 40) END
		FROM generate_series(1, $rows) i";
	my $ts = "timestamptz '2024-01-01 00:00 UTC' + ($hour * 3600 + i % 3500) * interval '1 second'";

	sql("INSERT INTO t (ts, k, v, s) SELECT $ts, $columns");
	sql("INSERT INTO u (ts, k, v, s) SELECT $ts $late, $columns");
	return;
}

# How many runs tasks have written by themselves: theirs have a birth behind their age.
my $spilled = 0;
sub count_spilled
{
	$spilled += sql('SELECT count(*) FROM stream_ckpt.state_run WHERE born > age');
	return;
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(2, 3, 5))
	{
		insert_rows();
		checkpoint_all($node) if rand() < 0.5;
		count_spilled();
		lose_state($node, pick('immediate', 'task', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.4;
	}
	if (rand() < 0.3)
	{
		my $name = (sort keys %queries)[ rand keys %queries ];

		note "paused: $name";
		sql("SELECT stream_ckpt.pause_query('$name')");
		insert_rows();
		sql("SELECT stream_ckpt.resume_query('$name')");
	}
	if ($tasks > 1 && rand() < 0.5)
	{
		my $name = (sort keys %queries)[ rand keys %queries ];
		my $n = pick(1, $tasks);

		note "$name on $n tasks";
		sql("SELECT stream_ckpt.alter_query('$name', parallelism => $n)");
	}
	$hour++ if rand() < 0.6;
	lose_state($node, pick('immediate', 'task', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.5;
	insert_rows();
	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		my ($emit, $table, undef, undef, undef, $where) = @{ $queries{$name} };

		results_ok($node, $name, "round $round: $name", emit => $emit, table => $table, synced => 1,
			truth => select_of($name, $where // 'true', $name eq 'arrival'));
	}
}
cmp_ok($spilled, '>', 0, 'panes were spilled');

# closed windows leave nothing, and nothing without an end stays behind a checkpoint
$hour += 10;
insert_rows();
sync_pipelines($node);
checkpoint_all($node);
is( sql("SELECT count(*) FROM stream_ckpt.state_run WHERE pane <> 0 AND pane < (SELECT max(pane) FROM stream_ckpt.state_run) - 4 * 3600000000"),
	'0', 'closed windows have no state');

done_testing();
