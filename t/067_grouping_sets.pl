# GROUPING SETS, ROLLUP, CUBE and GROUPING(): random rows against the definition run as a plain query, with and without
# windows, several tasks, everything lost at random, dead letters; keys that are NULL beside those that a set leaves out.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use Conditions;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 4;

my $node = new_node('main', "max_worker_processes = 20\n", draw => { batch => [ 0, 1, 7 ], tasks => [ 1, 2 ], memory => [ 0, 4, 40 ], bucket => [ 0, 100 ] });
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("CREATE TABLE t (ts timestamptz, k int, s text, v int, id bigserial);
	CREATE FUNCTION capped(state int, v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN IF state >= 25 THEN RAISE EXCEPTION ''too many''; END IF; RETURN state + 1; END';
	CREATE AGGREGATE capped(int) (sfunc = capped, stype = int, initcond = 0)");
attach($node, 't');
my $tumble = "stream_ckpt.tumble(ts, '1 minute') w";
my $list = 'w.window_start, w.window_end';

# name => [select list and FROM, items of GROUP BY and HAVING, emit, options]
my %queries = (
	rollup => [ "$list, k, s, count(*) AS n, sum(v), GROUPING(k, s) AS g FROM t, $tumble", "$list, ROLLUP (k, s)", 'close' ],
	no_bits => [ "$list, k, s, count(*) AS n, count(DISTINCT v) FROM t, $tumble", "$list, CUBE (k, s)", 'close' ],
	sets => [ "$list, k % 2 AS odd, upper(s) AS u, avg(v), GROUPING(k % 2), GROUPING(upper(s)) AS gs FROM t, $tumble WHERE v > 5", "GROUPING SETS (($list, k % 2), ($list, upper(s)), ($list)) HAVING count(*) > 1", 'close' ],
	twice => [ "$list, k, count(*) AS n FROM t, $tumble", "$list, GROUPING SETS (k, k, ())", 'close' ],
	once => [ "$list, k, count(*) AS n, GROUPING(k) AS g FROM t, $tumble", "DISTINCT $list, GROUPING SETS (k, k, ())", 'update' ],
	update => [ "$list, k, s, count(*) AS n, sum(v), GROUPING(s, k) AS g FROM t, $tumble", "$list, CUBE (k, s) HAVING count(*) % 3 <> 1", 'update' ],
	hop => [ "$list, k, s, count(*) AS n, GROUPING(k, s) AS g FROM t, stream_ckpt.hop(ts, '1 minute', '3 minutes') w", "$list, ROLLUP (k, s)", 'update' ],
	steps => [ "$list, k, min(v), GROUPING(k) AS g FROM t, stream_ckpt.cumulate(ts, '1 minute', '5 minutes') w", "$list, ROLLUP (k)", 'close' ],
	unwindowed => [ 'k, s, count(*) AS n, sum(v), max(v), GROUPING(k, s) AS g FROM t', 'GROUPING SETS ((k, s), k, s, ())', 'update' ],
	nothing => [ 's, count(*) AS n, GROUPING(s) AS g FROM t WHERE v > 1000', 'ROLLUP (s)', 'update' ],
	filtered => [ "k, s, count(*) AS n, GROUPING(k, s) AS g FROM t", "ROLLUP (k, s) HAVING k = 3 OR GROUPING(k) = 1 AND count(*) % 2 = 0", 'update' ],
	expression => [ "$list, coalesce(s, 'none') || GROUPING(s) AS what, k + GROUPING(k) * 10 AS x, count(*) AS n FROM t, $tumble", "$list, CUBE (s, k)", 'close' ],
	equal => [ "$list, k AS a, k AS b, count(*) AS n FROM t, $tumble", "1, 2, ROLLUP (3, 4)", 'close' ],
	constant => [ "$list, 1 AS one, k, count(*) + 1 AS n FROM t, $tumble", "1, 2, ROLLUP (3, 4) HAVING count(*) > 1", 'close' ],
	plain => [ "$list, k, count(*) AS n, GROUPING(k, w.window_start) FROM t, $tumble", "$list, k", 'close' ],
	truncated => [ "date_trunc('minute', ts) AS m, date_trunc('minute', ts) + interval '1 minute' AS window_end, k, count(*) AS n, GROUPING(k) AS g FROM t", "1, ROLLUP (k)", 'close' ],
	above => [ "$list, k, s, count(*) AS n, GROUPING(k, s) AS g, rank() OVER (PARTITION BY w.window_start, GROUPING(k, s) ORDER BY count(*) DESC) AS r FROM t, $tumble", "$list, ROLLUP (k, s)", 'update', undef, 1 ]);

# windows that share panes are always in memory
delete @queries{qw(hop steps)} if drawn($node)->{memory};
for my $name (sort keys %queries)
{
	my ($select, $by, $emit, $options, $tasks) = @{ $queries{$name} };
	create_query($node, $name, 't', emit => $emit, select => "SELECT $select GROUP BY $by", options => $options, tasks => $tasks);
}
# An error of one set's group, that of the window's 26th row, takes the row out of all of them.
my $letters = "SELECT $list, k, s, count(*) AS n, capped(v) AS c, array_agg(v ORDER BY id) AS vs, GROUPING(k, s) AS g FROM t, $tumble GROUP BY $list, ROLLUP (k, s)";
my $truth = $letters =~ s/FROM t,/FROM (SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY date_trunc('minute', ts) ORDER BY id) AS rn FROM t) t WHERE rn <= 25) t,/r;
create_query($node, 'letters', 't', emit => 'close', options => "on_error => 'dead_letter'", tasks => 1, select => $letters);
wait_running($node);

sub check
{
	my ($test) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$test: $_", table => 't', emit => $queries{$_}[2], synced => 1) or diag "SEED=$seed" for sort keys %queries;
	results_ok($node, 'letters', "$test: dead letters", table => 't', synced => 1, truth => $truth) or diag "SEED=$seed";
	return;
}

my $clock = 0;
for my $round (1 .. $rounds)
{
	for (1 .. pick(3, 10))
	{
		# rows of one transaction can come in any order without being late
		my $ahead = pick(1, 10, 60, 200);
		my $values = join ', ', map {
			sprintf "(timestamptz '2024-01-01 UTC' + %.2f * interval '1 second', %s, %s, %s)", $clock + rand $ahead, pick('NULL', 0 .. 4),
			  pick('NULL', "'a'", "'b'", "'A'"), pick('NULL', 0 .. 12)
		} 1 .. pick(1, 3, 30);

		sql("INSERT INTO t (ts, k, s, v) SELECT ts, k::int, s, v::int FROM (VALUES $values) x (ts, k, s, v)");
		$clock += $ahead;
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.1;
	}
	check("round $round");
}
is(sql('SELECT s IS NULL, n, g FROM nothing'), 't|0|1', 'the empty set has its row without any rows');
is(sql("SELECT sum(stream_ckpt.verify(q)) FROM unnest(ARRAY['rollup', 'update', 'unwindowed', 'above', 'sets']::regclass[]) q"), '0', 'verify() says the same');
cmp_ok(sql("SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass"), '>', 0, 'there were dead letters');

# A row at fault that has made the group of one set and not that of another: what is there before stays changed.
sql("CREATE TABLE u (ts timestamptz, k int, s text, v int);
	CREATE FUNCTION second(state int, v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN IF v = 13 AND state > 0 THEN RAISE EXCEPTION ''unlucky''; END IF; RETURN state + v; END';
	CREATE AGGREGATE second(int) (sfunc = second, stype = int, initcond = 0)");
attach($node, 'u');
my $undone = "SELECT w.window_start, k, s, second(v) AS total, GROUPING(k, s) AS g FROM u, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, GROUPING SETS (k, s)";
create_query($node, 'undone', 'u', emit => 'update', options => "on_error => 'dead_letter'", tasks => 1, select => $undone);
sql(q(INSERT INTO u VALUES ('2024-01-01 UTC', 1, 'a', 1), ('2024-01-01 UTC', 1, 'b', 2)));
sync_pipelines($node);
sql(q(INSERT INTO u VALUES ('2024-01-01 UTC', 2, 'a', 13); INSERT INTO u VALUES ('2024-01-01 UTC', 1, 'a', 4), ('2024-01-01 UTC', 3, 'b', 5)));
results_ok($node, 'undone', 'a row at fault', emit => 'update', truth => $undone =~ s/FROM u,/FROM (SELECT * FROM u WHERE v <> 13) u,/r);
lose_state($node, 'task');
sql(q(INSERT INTO u VALUES ('2024-01-01 UTC', 1, 'a', 6)));
results_ok($node, 'undone', 'also after a restart', emit => 'update', truth => $undone =~ s/FROM u,/FROM (SELECT * FROM u WHERE v <> 13) u,/r);
my (undef, undef, $error) = try_psql($node, q(SELECT stream_ckpt.alter_pipeline('default', parallelism => 2); SELECT stream_ckpt.alter_query('undone', parallelism => 2)));
like($error, qr/grouping sets and on_error => 'dead_letter' cannot have a parallelism above 1/, 'in one task only');

done_testing();
