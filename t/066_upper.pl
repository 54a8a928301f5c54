# What a definition has above its groups: window functions, second aggregations, joins of windows' rows with each other,
# CTEs, set operations.  Random rows, everything lost at random; compared with the definition run as a plain query.
# Windows whose rows don't fit into memory; empty windows; dead letters; functions that are replaced; privileges.
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

my $seed = $ENV{SEED} || (time ^ ($$ << 8)) & 0x7fffffff;
my $rounds = $ENV{ROUNDS} || 5;
srand($seed);
diag "SEED=$seed";
sub pick { return $_[ int rand @_ ]; }

# so little that every bucket is evicted all the time; windows that share panes are always in memory
my $memory = $ENV{MEMORY} // pick(0, 40);
diag "MEMORY=$memory";
my $node = new_node('main', "work_mem = 64kB\nstream_ckpt.debug_batch_rows = " . pick(0, 1, 7) . "\n"
	  . ($memory ? "stream_ckpt.debug_task_memory = ${memory}kB\nstream_ckpt.debug_bucket_bytes = 100\n" : ''));
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("CREATE FUNCTION doubled(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT \$1 * 2';
	CREATE TABLE t (ts timestamptz, k int, v int)");
attach($node, 't');

my $tumble = "stream_ckpt.tumble(ts, '1 minute') w";
my $hop = "stream_ckpt.hop(ts, '1 minute', '3 minutes') w";
my $cumulate = "stream_ckpt.cumulate(ts, '1 minute', '5 minutes') w";

# The core level: groups of windows.
sub core
{
	my ($window) = @_;
	return "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM t, $window GROUP BY w.window_start, w.window_end, k";
}
my $c = 'WITH c AS (' . core($tumble) . ')';

my %queries = (
	top => "SELECT * FROM (SELECT w.window_start, w.window_end, k, count(*) AS n,
			row_number() OVER (PARTITION BY w.window_start ORDER BY count(*) DESC, k) AS rn
		FROM t, $tumble GROUP BY w.window_start, w.window_end, k) t WHERE rn <= 3",
	ranks => "SELECT w.window_start, w.window_end, k + 1 AS key, sum(v), rank() OVER (PARTITION BY w.window_end ORDER BY sum(v) DESC),
			dense_rank() OVER v, ntile(3) OVER (v ROWS UNBOUNDED PRECEDING), count(*) FILTER (WHERE k > 2) OVER (PARTITION BY w.window_start)
		FROM t, $tumble WHERE v IS NOT NULL GROUP BY 1, 2, k HAVING count(*) > 1 WINDOW v AS (PARTITION BY w.window_start ORDER BY count(*), k)",
	share => "$c SELECT *, n / sum(n) OVER (PARTITION BY window_start) AS share, lag(n) OVER (PARTITION BY window_start ORDER BY k) FROM c",
	again => 'SELECT window_start, window_end, max(n), avg(n), count(*), string_agg(k::text, \',\' ORDER BY n DESC, k) FROM (' . core($tumble) . ') x GROUP BY 1, 2 HAVING count(*) > 1',
	twice => "$c SELECT a.window_start, a.window_end, a.k, b.k AS other, a.n - b.n AS more FROM c a JOIN c b ON a.window_start = b.window_start AND a.k < b.k WHERE a.n > b.n",
	arms => "$c, best AS (SELECT window_start, window_end, k, n FROM c WHERE n > 2) SELECT window_start, window_end, 'all' AS what, sum(n) FROM c GROUP BY 1, 2
		UNION ALL SELECT window_start, window_end, 'best', count(*) FROM best GROUP BY 1, 2 UNION ALL SELECT window_start, window_end, 'key ' || k, n FROM best",
	sides => "$c SELECT window_start, window_end, a.k, b.k AS other, count(*) OVER (PARTITION BY window_end)
		FROM (SELECT * FROM c WHERE n > 2) a FULL JOIN (SELECT * FROM c WHERE k % 2 = 0) b USING (window_start, window_end, k)",
	left_join => "$c SELECT a.window_start, a.window_end, a.k, b.n, x FROM c a LEFT JOIN (SELECT window_start, max(n) AS n FROM c WHERE n > 3 GROUP BY 1) b ON b.window_start = a.window_start, generate_series(1, 2) x",
	missing => "$c SELECT * FROM c a WHERE NOT EXISTS (SELECT FROM c b WHERE b.window_end = a.window_end AND b.n > a.n) AND a.total IN (SELECT total FROM c b WHERE b.window_start = a.window_start)",
	best => 'SELECT DISTINCT ON (window_start) * FROM (' . core($tumble) . ') c ORDER BY window_start, n DESC, k',
	counts => "SELECT DISTINCT w.window_start, w.window_end, count(*) AS n FROM t, $tumble GROUP BY 1, 2, k",
	pinned => "$c SELECT window_start, window_end, (SELECT max(n) FROM c b WHERE b.window_start = a.window_start) AS best, l.* FROM (SELECT DISTINCT window_start, window_end FROM c) a,
		LATERAL (SELECT k, n FROM c b WHERE b.window_start = a.window_start ORDER BY n DESC, k LIMIT 2) l",
	sets => "SELECT window_start, window_end, k % 2 AS odd, k, sum(n), grouping(k, k % 2) FROM (" . core($tumble) . ') c GROUP BY window_start, window_end, ROLLUP (k % 2, k)',
	minus => "$c SELECT window_start, window_end, k FROM c WHERE n > 1 EXCEPT SELECT window_start, window_end, k FROM c WHERE total > 60",
	whole => "$c SELECT c.window_start, c.window_end, to_jsonb(c) - 'window_start' - 'window_end' AS j, row_number() OVER (PARTITION BY window_start ORDER BY k) FROM c",
	hop => 'SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY window_start ORDER BY n DESC, k) AS rn FROM (' . core($hop) . ') c) d WHERE rn <= 2',
	steps => 'SELECT *, n::numeric / sum(n) OVER (PARTITION BY window_end) AS share FROM (' . core($cumulate) . ') c',
	truncated => "SELECT *, m + interval '1 minute' AS window_end FROM (SELECT date_trunc('minute', ts) AS m, k, count(*) AS n, rank() OVER (PARTITION BY date_trunc('minute', ts) ORDER BY count(*) DESC) AS r
		FROM t GROUP BY 1, 2) x WHERE r = 1",
	nothing => "$c SELECT window_start, window_end, count(*) FROM c WHERE n > 1000 GROUP BY 1, 2",
	computed => "$c SELECT window_start, window_end, k, abs(n - 5) FROM c WHERE n BETWEEN SYMMETRIC 5 AND 1");
my $replaced = "$c SELECT window_start, window_end, k, doubled(sum(doubled(n)) OVER (PARTITION BY window_start ORDER BY k)::bigint) AS d FROM c";

my @shared = qw(hop steps update_hop update_steps late_hop late_steps);
delete @queries{ $memory ? @shared : () };
create_query($node, 'replaced', 't', select => $replaced, tasks => 1);
create_query($node, $_, 't', select => $queries{$_}, tasks => 1) for sort keys %queries;
wait_running($node);

sub check
{
	my ($test, @names) = @_;

	sync_pipelines($node);
	for my $name (@names)
	{
		results_ok($node, $name, "$test: $name", table => 't', synced => 1) or diag "SEED=$seed";
	}
	return;
}

my $clock = 0;
my $factor = 2;
my $replaced_at = '-infinity';
# Rows of one transaction can come in any order without being late.
sub insert
{
	my ($rows, $ahead) = @_;
	my @times = map { $clock + rand $ahead } 1 .. $rows;
	my $values = join ', ', map {
		sprintf "(timestamptz '2024-01-01 UTC' + %.2f * interval '1 second', %s, %s)", $_, pick('NULL', 0 .. 7), pick('NULL', 0 .. 40)
	} @times;

	sql("INSERT INTO t SELECT ts, k::int, v::int FROM (VALUES $values) x (ts, k, v)");
	$clock += $ahead;
	return;
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(3, 10, 20))
	{
		insert(pick(1, 3, 10, 60), pick(1, 10, 60, 200));
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.08;
	}
	check("round $round", sort keys %queries);
	results_ok($node, 'replaced', "round $round: replaced", table => 't', synced => 1,
		truth => "SELECT * FROM replaced_definition WHERE window_end > '$replaced_at'") or diag "SEED=$seed";
	# what closed before stays as it was
	$replaced_at = sql('SELECT max(ts) FROM t');
	$factor++;
	sql("DELETE FROM replaced; CREATE OR REPLACE FUNCTION doubled(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT \$1 * $factor'");
}
is(sql('SELECT count(*) FROM nothing'), '0', 'windows of which no row is left have none');
is(sql("SELECT sum(stream_ckpt.verify(q)) FROM unnest(ARRAY['top', 'ranks', 'again', 'sides', 'truncated', 'sets']::regclass[]) q"), '0',
	'verify() says the same');
cmp_ok(sql('SELECT count(*) FROM top'), '>', 20, 'and there were rows');

# A window of more rows than work_mem takes, emitted once; many result rows.
sql("SELECT stream_ckpt.drop_query(q) FROM unnest(ARRAY['twice', 'missing']::regclass[]) q");    # these compare each with each
my $wide = $clock + 60;
sql("INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + ($wide + i % 50) * interval '1 second', i % 20000, i FROM generate_series(1, 40000) i");
$clock += 300;
insert(1, 1);
check('many rows', 'top', 'share', 'again', 'arms', 'best', 'sides');

# An error of a group is a dead letter's, and what is above goes on without it; one of what is above is the query's.
create_query($node, 'letters', 't', tasks => 1, options => "on_error => 'dead_letter'", select => "SELECT *, count(*) OVER (PARTITION BY window_start) AS groups
	FROM (SELECT w.window_start, w.window_end, k, 100 / (sum(v) - 7) AS x FROM t, $tumble GROUP BY 1, 2, 3) c");
sql("INSERT INTO t SELECT timestamptz '2025-01-01 UTC' + x.s * interval '1 second', x.k, x.v FROM (VALUES (1, 1, 7), (2, 2, 8), (3, 3, 9), (61, 1, 8), (130, 1, 1)) x (s, k, v)");
sync_pipelines($node);
is(sql("SELECT k, x, groups FROM letters WHERE window_start >= '2025-01-01 UTC' ORDER BY window_start, k"), "2|100|2\n3|50|2\n1|100|1", 'the groups without an error');
is(sql("SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass"), '1', 'one group is a dead letter');
create_query($node, 'fails', 't', tasks => 1, options => "on_error => 'dead_letter'", select => "SELECT window_start, window_end, sum(100 / (total - 7)) FROM (" . core($tumble) . ') c GROUP BY 1, 2');
sql("INSERT INTO t SELECT timestamptz '2025-02-01 UTC' + x.s * interval '1 second', 1, 7 FROM (VALUES (1), (61)) x (s)");
wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'fails'::regclass", 'a query fails');
like(sql("SELECT message FROM stream_ckpt.queries WHERE query = 'fails'::regclass"), qr/division by zero/, 'what is above fails with the query');
sql("SELECT stream_ckpt.drop_query('fails')");

# Windows that are emitted again: with emit update, and for late rows, their rows are replaced as a set.
sql('CREATE TABLE u (ts timestamptz, k int, v int)');
attach($node, 'u');
my %again = (
	update_top => [ 'update', $queries{top} ],
	update_share => [ 'update', $queries{share} ],
	update_again => [ 'update', $queries{again} ],
	update_sides => [ 'update', $queries{sides} ],
	update_hop => [ 'update', $queries{hop} // '' ],
	update_steps => [ 'update', $queries{steps} // '' ],
	update_counts => [ 'update', $queries{counts} ],
	late_top => [ 'close', $queries{top} ],
	late_arms => [ 'close', $queries{arms} ],
	late_minus => [ 'close', $queries{minus} ],
	late_whole => [ 'close', $queries{whole} ],
	late_hop => [ 'close', $queries{hop} // '' ],
	late_steps => [ 'close', $queries{steps} // '' ],
	late_truncated => [ 'close', $queries{truncated} ]);

delete @again{ $memory ? @shared : () };
for my $name (sort keys %again)
{
	my ($emit, $select) = @{ $again{$name} };

	$select =~ s/FROM t\b/FROM u/g;
	create_query($node, $name, 'u', emit => $emit, select => $select, tasks => 1,
		options => "allowed_lateness => '1 day'" . ($name eq 'late_arms' ? ", on_error => 'dead_letter'" : ''));
}
# These are written by statements, as code of the user's own hangs on them; these have constraints.
sql("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END';
	CREATE TRIGGER nothing BEFORE INSERT OR UPDATE OR DELETE ON update_top FOR EACH ROW EXECUTE FUNCTION nothing();
	CREATE TRIGGER nothing BEFORE INSERT OR UPDATE OR DELETE ON late_minus FOR EACH ROW EXECUTE FUNCTION nothing();
	CREATE UNIQUE INDEX ON late_top (window_start, rn); CREATE UNIQUE INDEX ON update_again (window_start)");

sub check_again
{
	my ($test) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$test: $_", table => 'u', emit => $again{$_}[0], synced => 1) or diag "SEED=$seed" for sort keys %again;
	return;
}

$clock = 0;
for my $round (1 .. $rounds)
{
	for (1 .. pick(3, 6, 10))
	{
		my $behind = pick(10, 100, 600);
		my $values = join ', ', map {
			sprintf "(timestamptz '2024-01-01 UTC' + %.2f * interval '1 second', %s, %s)", $clock - rand $behind, pick('NULL', 0 .. 5), pick('NULL', 0 .. 40)
		} 1 .. pick(1, 3, 30);

		sql("INSERT INTO u SELECT ts, k::int, v::int FROM (VALUES $values) x (ts, k, v)");
		$clock += pick(0, 10, 60, 100);
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.08;
	}
	check_again("again, round $round");
}
is(sql("SELECT sum(stream_ckpt.verify(q)) FROM unnest(ARRAY['update_top', 'update_sides', 'late_top', 'late_truncated']::regclass[]) q"), '0',
	'verify() says the same');

# Only rows that differ are written; of equal rows as many as there are.
create_query($node, 'few', 'u', emit => 'update', tasks => 1, select => "SELECT window_start, n, total FROM (SELECT w.window_start, k, count(*) AS n, sum(v) AS total FROM u, $tumble GROUP BY 1, 2) c");
my $at = $clock + 1000;
sub put { sql('INSERT INTO u VALUES ' . join(', ', map { "(timestamptz '2024-01-01 UTC' + $at * interval '1 second', $_->[0], $_->[1])" } @_)); sync_pipelines($node); return; }
put([ 1, 5 ], [ 2, 5 ], [ 3, 6 ], [ 4, 9 ]);
my @before = split /\n/, sql('SELECT ctid, xmin, n, total FROM few ORDER BY total, ctid');
put([ 4, 1 ]);
my @after = split /\n/, sql('SELECT ctid, xmin, n, total FROM few ORDER BY total, ctid');
is("@after[0 .. 2]", "@before[0 .. 2]", 'rows that are the same are left alone');
like($after[3], qr/2\|10$/, 'and another one was written');
is(scalar @after, 4, 'four rows');
put([ 1, 1 ]);
is(sql('SELECT n, total FROM few ORDER BY 2'), "1|5\n1|6\n2|6\n2|10", 'one of two equal rows is replaced');

# Columns of the stream that another role may not read are protected in a subquery, too.
sql("CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO other; GRANT USAGE ON SCHEMA stream_ckpt TO other; GRANT SELECT (ts, k) ON t TO other");
my ($ret, $out, $err) = try_psql($node, "SET ROLE other; SELECT stream_ckpt.create_query('theirs', \$\$" . $queries{again} . '$$)');
like($err, qr/permission denied for table t/, 'privileges are checked in a subquery');

done_testing();
