# What is kept of a window of hop() or cumulate() for the next one (exec/running.c): running states and suffixes.  All kinds
# of aggregates, rows that come late for some of their windows, everything lost at random, definitions compiled again,
# dead letters, a watermark that goes back; and no room for it.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Conditions;
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 2;
my $node = new_node('main', "max_worker_processes = 20\nstream_ckpt.query_time_limit = 0\nstream_ckpt.query_share = 0\n"
	  . "stream_ckpt.debug_batch_rows = " . pick(0, 1, 7) . "\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("SELECT stream_ckpt.alter_pipeline('default', parallelism => 2);
	CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT \$1 * 2';
	CREATE FUNCTION add_both(int8, int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT \$1 + coalesce(\$2, 0)';
	CREATE AGGREGATE total(int8) (sfunc = add_both, stype = int8, combinefunc = add_both, initcond = '0');
	CREATE TABLE t (id int, ts timestamptz, k int, s text, v int, before timestamptz)");    # before: the greatest watermark so far
attach($node, 't');

my $exact = 'count(*) AS n, sum(v), avg(v), variance(v), avg(v::numeric), sum(v::bigint), min(s), max(v), bool_or(v = 7)';
my $others = "count(*) AS n, sum(v::float8), avg(v::float8), max(ARRAY[v]), total(v), avg(id::float4)";
my $kept = "count(DISTINCT v) AS n, string_agg(s, ',' ORDER BY v, s), percentile_disc(0.5) WITHIN GROUP (ORDER BY v), sum(v), array_agg(v ORDER BY v) FILTER (WHERE v > 20)";
my $hop = "hop(ts, '1 minute', '10 minutes')";
my $steps = "cumulate(ts, '1 minute', '20 minutes')";
my $two = 'parallelism => 2';

# name => [window, lateness, keys, aggregates, rows that count, options]
my %queries = (
	hop_exact => [ $hop, '0', 'k', $exact ],
	hop_late => [ $hop, '150 seconds', 's, k', $exact, undef, $two ],
	hop_others => [ $hop, '2 minutes', 'k', $others ],
	hop_kept => [ $hop, '0', 'k', $kept ],
	hop_all => [ "hop(ts, '1 minute', '30 minutes')", '0', '', $exact ],
	hop_odd => [ "hop(ts, '2 minutes', '15 minutes', '2024-01-01 00:00:07 UTC')", '1 minute', 'k', $exact, undef, $two ],
	hop_having => [ $hop, '3 minutes', 'k', "$exact HAVING count(*) % 3 <> 1" ],
	hop_letters => [ $hop, '0', 'k', 'count(*) AS n, sum(100 / (v - 7))', 'v IS DISTINCT FROM 7', "on_error => 'dead_letter'" ],
	hop_computed => [ $hop, '0', 's', 'sum(doubled(v)), count(*) AS n' ],
	steps_exact => [ $steps, '0', 'k', $exact, undef, $two ],
	steps_late => [ $steps, '150 seconds', 's, k', $exact ],
	steps_others => [ $steps, '0', 'k', $others ],
	steps_kept => [ $steps, '90 seconds', 'k', $kept ],
	steps_odd => [ "cumulate(ts, '7 seconds', '210 seconds', '2024-01-01 00:00:03 UTC')", '0', 'k', $exact, undef, $two ],
	steps_letters => [ $steps, '1 minute', 'k', 'count(*) AS n, sum(100 / (v - 7)), max(s)', 'v IS DISTINCT FROM 7', "on_error => 'dead_letter'" ],
	steps_computed => [ $steps, '0', 's', 'sum(doubled(v)), max(v::text), count(*) AS n' ],
	steps_sets => [ $steps, '0', 'SETS', 'count(*) AS n, sum(v), GROUPING(k)', undef, $two ],
	hop_sets => [ $hop, '0', 'SETS', 'count(*) AS n, sum(v), GROUPING(k)' ],
	steps_ranked => [ $steps, '0', 'RANK', 'count(*)' ],
	hop_ranked => [ $hop, '1 minute', 'RANK', 'count(*)' ],
	steps_best => [ $steps, '0', 'BEST', '' ],
	hop_best => [ $hop, '0', 'BEST', '' ]);

sub select_of
{
	my ($name, $where) = @_;
	my ($window, undef, $key, $aggregates) = @{ $queries{$name} };
	my $from = "FROM t, stream_ckpt.$window w WHERE $where";
	my $bounds = 'w.window_start, w.window_end';
	my $i = 0;

	return "SELECT * FROM (SELECT window_start, window_end, k, n, rank() OVER (PARTITION BY window_end ORDER BY n DESC) AS place
		FROM (SELECT $bounds, k, count(*) AS n $from GROUP BY $bounds, k) c) r WHERE place <= 3" if $key eq 'RANK';
	return "SELECT window_start, window_end, k, id, v FROM (SELECT $bounds, k, id, v, row_number() OVER (PARTITION BY $bounds, k ORDER BY v DESC, id) AS place
		$from) r WHERE place <= 2" if $key eq 'BEST';
	my ($list, $having) = $aggregates =~ /^(.*?)( HAVING .*)?$/;
	my $columns = join(', ', map { / AS / ? $_ : "$_ AS a" . $i++ } split /, (?![^(\[]*[)\]])/, $list);
	return "SELECT $bounds, k, $columns $from GROUP BY GROUPING SETS (($bounds, k), ($bounds))" if $key eq 'SETS';
	return "SELECT $bounds, " . ($key ? "$key, " : '') . "$columns $from GROUP BY $bounds" . ($key ? ", $key" : '') . ($having // '');
}

for my $name (sort keys %queries)
{
	my (undef, $lateness, undef, undef, undef, $options) = @{ $queries{$name} };

	create_query($node, $name, 't', emit => 'close', select => select_of($name, 'true'),
		options => join(', ', "allowed_lateness => '$lateness'", $options // ()));
}
wait_running($node);

sub check
{
	my ($test, @names) = @_;

	sync_pipelines($node);
	for my $name (@names)
	{
		my (undef, $lateness, undef, undef, $rows) = @{ $queries{$name} };
		my $where = ($rows // 'true') . " AND (window_end + interval '$lateness' > before OR before IS NULL)";
		results_ok($node, $name, "$test: $name", table => 't', synced => 1, truth => select_of($name, $where)) or diag "SEED=$seed";
	}
	return;
}

my $clock = 0;
my $id = 0;
sub insert
{
	my ($rows, $behind) = @_;
	my $values = join ', ', map {
		sprintf "(%d, timestamptz '2024-01-01 UTC' + %.2f * interval '1 second', %s, '%s', %s)", $id++, $clock - rand $behind, pick('NULL', 0 .. 8),
		  pick('a', 'b', 'ß', ''), pick('NULL', 0 .. 40)
	} 1 .. $rows;
	sql("INSERT INTO t SELECT id, ts, k::int, s, v::int, (SELECT max(ts) FROM t) FROM (VALUES $values) x (id, ts, k, s, v)");
	return;
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(5, 12, 20))
	{
		$clock += pick(0, 5, 20, 60, 60, 100, 400);
		insert(pick(1, 3, 10, 60), pick(10, 100, 400, 1300));
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.06;
	}
	sql('CREATE OR REPLACE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS \'SELECT $1 ' . pick('* 2', '+ $1') . '\'') if rand() < 0.5;
	check("round $round", sort keys %queries);
}

# A pane that is part of what is kept gets a row, and one that wasn't open is: what is kept takes it in.
$clock += 3600 - $clock % 1200;
insert(200, 1199);
for my $i (1 .. 14)
{
	$clock += 60;
	insert(10, 20);
	insert(3, 500) if $i % 3 == 0;
	lose_state($node, 'task') if $i == 7;
}
sync_pipelines($node);
arm($node, 'running_remake', 'wait');
insert(20, 500);
$clock += 60;
insert(5, 5);
wait_reached($node, 'running_remake');
disarm($node, 'running_remake');
check('rows behind what is kept', sort keys %queries);

# The watermark goes back: nothing that was over is opened again, and what was kept goes.
my @rest = grep { $queries{$_}[1] eq '0' } sort keys %queries;
$clock += 600;
# in each window
sql("INSERT INTO t SELECT $id + i, timestamptz '2024-01-01 UTC' + ($clock - 1800 + 3 * i) * interval '1 second', i % 9, 'a', i % 41, (SELECT max(ts) FROM t)
	FROM generate_series(0, 600) i");
$id += 601;
sync_pipelines($node);
for my $back (900, 60, 200)
{
	sql("SELECT stream_ckpt.reset_watermark('t', (SELECT max(ts) - interval '$back seconds' FROM t))");
	insert(50, 500);
	lose_state($node, 'task') if rand() < 0.5;
	# no window without a row, which would not be over yet and open with the first one
	my $step = pick(10, 100);
	$clock += $step;
	sql("INSERT INTO t SELECT $id + i, timestamptz '2024-01-01 UTC' + ($clock - $step + 3 * i) * interval '1 second', i % 9, 'a', i % 41, (SELECT max(ts) FROM t)
		FROM generate_series(0, $step / 3) i");
	$id += 40;
	insert(5, 10);
}
$clock += 7200;
insert(1, 1);
check('after it went back', @rest);

# No room for suffixes; then none for a running state, either: windows are put together of their panes.
sql("SELECT stream_ckpt.drop_query(query::text) FROM stream_ckpt.queries");
sql("SELECT stream_ckpt.alter_pipeline('default', parallelism => 1)");
sql('CREATE TABLE m (ts timestamptz, k int, v int)');
attach($node, 'm');
$node->append_conf('postgresql.conf', 'stream_ckpt.debug_task_memory = 6MB');
$node->reload;

create_query($node, 'wide', 'm', emit => 'close', select => "SELECT w.window_start, w.window_end, k, count(*) AS n, max(v) AS v FROM m, stream_ckpt.$hop w GROUP BY 1, 2, 3");
wait_running($node);
arm($node, 'running_no_room', 'wait');
sql("INSERT INTO m SELECT timestamptz '2024-01-01 UTC' + i * interval '30 milliseconds', i % 2000, i FROM generate_series(0, 40000) i");
sql("INSERT INTO m SELECT timestamptz '2024-01-01 UTC' + i * interval '30 milliseconds', i % 2000, i FROM generate_series(40000, 42000) i");
wait_reached($node, 'running_no_room');
disarm($node, 'running_no_room');
sql("INSERT INTO m VALUES ('2024-01-01 00:24 UTC', 1, 1)");
results_ok($node, 'wide', 'no room for suffixes', table => 'm');

sql("SELECT stream_ckpt.drop_query('wide')");
$node->append_conf('postgresql.conf', 'stream_ckpt.debug_task_memory = 5MB');
$node->reload;
create_query($node, 'grows', 'm', emit => 'close', select => "SELECT w.window_start, w.window_end, k, count(*) AS n, max(v) AS v FROM m, stream_ckpt.cumulate(ts, '1 minute', '30 minutes') w GROUP BY 1, 2, 3");
wait_running($node);
arm($node, 'running_spared', 'wait');
for my $minute (0 .. 29)
{
	sql("INSERT INTO m SELECT timestamptz '2024-02-01 UTC' + $minute * interval '1 minute' + i * interval '20 milliseconds', $minute * 2400 + i, i FROM generate_series(0, 2399) i");
	disarm($node, 'running_spared') if -e StreamCkpt::debug_file($node, 'running_spared.reached');
}
wait_reached($node, 'running_spared');
disarm($node, 'running_spared');
sql("INSERT INTO m VALUES ('2024-02-01 00:40 UTC', 1, 1)");
results_ok($node, 'grows', 'no room for a running state', table => 'm', truth => "SELECT * FROM grows_definition WHERE window_end > '2024-02-01 UTC'");

$node->stop;
done_testing();
