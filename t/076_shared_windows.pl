# hop() and cumulate(): windows that share panes.  Late rows enter the later ones of their windows, within an allowed
# lateness the others, too; several tasks; everything lost at random; dead letters; a watermark that goes back; a definition
# that is compiled again.
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
my $rounds = $ENV{ROUNDS} || 6;
srand($seed);
diag "SEED=$seed";
sub pick { return $_[ int rand @_ ]; }

my $node = new_node('main', "max_worker_processes = 20\nstream_ckpt.debug_batch_rows = " . pick(0, 1, 7) . "\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("SELECT stream_ckpt.alter_pipeline('default', parallelism => 2);
	CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT \$1 * 2';
	CREATE TABLE t (ts timestamptz, k int, v int, before timestamptz)");    # before: the greatest watermark so far
attach($node, 't');

# name => [window, emit, lateness, keys, aggregates, rows that count, options]
my %queries = (
	hop => [ "hop(ts, '1 minute', '5 minutes')", 'close', '0', 'k' ],
	odd => [ "hop(ts, '2 minutes', '5 minutes', '2024-01-01 00:00:07 UTC')", 'close', '0', 'k', undef, 'true', 'parallelism => 2' ],
	gaps => [ "hop(ts, '5 minutes', '2 minutes')", 'close', '0', 'k' ],
	steps => [ "cumulate(ts, '1 minute', '10 minutes')", 'close', '0', 'k', undef, 'true', 'parallelism => 2' ],
	all_keys => [ "hop(ts, '1 minute', '3 minutes')", 'close', '0', '' ],
	hop_late => [ "hop(ts, '1 minute', '5 minutes')", 'close', '3 minutes', 'k', 'count(*) AS n, sum(v), min(v), string_agg(v::text, \',\' ORDER BY v)' ],
	steps_late => [ "cumulate(ts, '1 minute', '10 minutes')", 'close', '150 seconds', 'k', 'count(*) AS n, sum(v) HAVING count(*) % 3 <> 1', 'true', 'parallelism => 2' ],
	gaps_late => [ "hop(ts, '5 minutes', '2 minutes')", 'close', '2 minutes', 'k' ],
	hop_update => [ "hop(ts, '1 minute', '5 minutes')", 'update', '0', 'k', 'count(*) AS n, sum(v), count(DISTINCT v) HAVING count(*) % 3 <> 1', 'true', 'parallelism => 2' ],
	steps_update => [ "cumulate(ts, '1 minute', '10 minutes')", 'update', '1 minute', 'k' ],
	letters => [ "hop(ts, '1 minute', '4 minutes')", 'close', '2 minutes', 'k', 'count(*) AS n, sum(100 / (v - 7))', 'v IS DISTINCT FROM 7', "on_error => 'dead_letter'" ],
	computed => [ "hop(ts, '1 minute', '4 minutes')", 'close', '0', 'k', 'sum(doubled(v)), variance(v), avg(v::numeric), max(v::text)' ]);

sub select_of
{
	my ($name, $where) = @_;
	my ($window, $emit, $lateness, $key, $aggregates) = @{ $queries{$name} };
	my $i = 0;
	my ($list, $having) = ($aggregates // 'count(*) AS n, sum(v), avg(v)') =~ /^(.*?)( HAVING .*)?$/;
	my $columns = join(', ', map { / AS / ? $_ : "$_ AS a" . $i++ } split /, (?![^(]*\))/, $list);

	return "SELECT w.window_start, w.window_end, " . ($key ? "$key, " : '') . "$columns FROM t, stream_ckpt.$window w
		WHERE $where GROUP BY w.window_start, w.window_end" . ($key ? ", $key" : '') . ($having // '');
}

for my $name (sort keys %queries)
{
	my ($window, $emit, $lateness, $key, $aggregates, $rows, $options) = @{ $queries{$name} };

	create_query($node, $name, 't', emit => $emit, select => select_of($name, 'true'),
		options => join(', ', "allowed_lateness => '$lateness'", $options // ()));
}
wait_running($node);

sub check
{
	my ($test, @names) = @_;

	sync_pipelines($node);
	for my $name (@names)
	{
		my ($window, $emit, $lateness, undef, undef, $rows) = @{ $queries{$name} };
		my $where = ($rows // 'true') . " AND (window_end + interval '$lateness' > before OR before IS NULL)";
		# as of the greatest watermark: one that goes back opens nothing again
		results_ok($node, $name, "$test: $name", emit => $emit, table => 't', synced => 1, truth => select_of($name, $where))
		  or diag "SEED=$seed";
	}
	return;
}

my $clock = 0;
sub insert
{
	my ($rows, $behind) = @_;
	my $values = join ', ', map {
		sprintf "(timestamptz '2024-01-01 UTC' + %.2f * interval '1 second', %s, %s)", $clock - rand $behind, pick('NULL', 0 .. 5), pick('NULL', 0 .. 40)
	} 1 .. $rows;
	sql("INSERT INTO t SELECT ts, k::int, v::int, (SELECT max(ts) FROM t) FROM (VALUES $values) x (ts, k, v)");
	return;
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(3, 10, 20))
	{
		$clock += pick(0, 5, 20, 20, 60, 100);
		insert(pick(1, 3, 10, 60), pick(10, 100, 400, 900));
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.08;
	}
	sql('CREATE OR REPLACE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS \'SELECT $1 ' . pick('* 2', '+ $1') . '\'') if rand() < 0.5;
	check("round $round", sort keys %queries);
}
my $late = "SELECT count(*) FROM t, stream_ckpt.hop(ts, '1 minute', '5 minutes') w WHERE window_end <= before";
is(counter($node, 'hop', 'late_rows'), sql($late), 'a row is late for each window that was over');
cmp_ok(sql($late), '>', 0, 'and there were such');
is(sql("SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass"),
	sql("SELECT count(*) FROM t WHERE v = 7 AND EXISTS (SELECT FROM stream_ckpt.hop(ts, '1 minute', '4 minutes') WHERE window_end + interval '2 minutes' > before OR before IS NULL)"),
	'rows at fault are dead letters, once each');

# The watermark goes back: what was over stays so.
my @rest = grep { $queries{$_}[2] eq '0' } sort keys %queries;
$clock += 600;
insert(400, 599);    # in each window
insert(1, 1);
sync_pipelines($node);
for my $back (400, 60, 200)
{
	sql("SELECT stream_ckpt.reset_watermark('t', (SELECT max(ts) - interval '$back seconds' FROM t))");
	insert(50, 500);
	lose_state($node, 'task') if rand() < 0.5;
	check("back by $back seconds", grep { $queries{$_}[1] eq 'update' } @rest);
	$clock += pick(10, 100);
	insert(5, 10);
}
$clock += 3600;
insert(1, 1);
check('after that', @rest);

# Nothing is left of what is over.
sync_pipelines($node);
checkpoint_all($node);
cmp_ok(sql("SELECT count(DISTINCT pane) FROM stream_ckpt.state_run r JOIN stream_ckpt.query q USING (query_id) WHERE q.relid = 'hop'::regclass"),
	'<=', 2, 'panes go when their last window is over');

# With kept inputs in the order of panes.
create_query($node, 'in_order', 't', emit => 'close', select => "SELECT w.window_end, array_agg(v) AS vs FROM t, stream_ckpt.hop(ts, '1 minute', '3 minutes') w GROUP BY 1");
sql("INSERT INTO t SELECT timestamptz '2025-01-01 UTC' + x.at * interval '1 minute', 1, x.v FROM (VALUES (2, 1), (0, 2), (1, 3), (0, 4), (2, 5)) x (at, v); INSERT INTO t VALUES ('2025-01-01 01:00 UTC', 1, 1)");
sync_pipelines($node);
is(sql("SELECT vs FROM in_order WHERE window_end = '2025-01-01 00:03 UTC'"), '{2,4,3,1,5}', 'inputs that can only be kept are in the order of panes');
is(sql("SELECT stream_ckpt.create_query('proved', 'SELECT w.window_start, w.window_end, count(*) AS n FROM f, stream_ckpt.cumulate(ts, ''1 minute'', ''5 minutes'') w GROUP BY 1, 2')
	FROM (SELECT stream_ckpt.attach_stream('f', event_time => 'ts')) x"), 'proved', 'another stream') if sql('CREATE TABLE f (ts timestamptz); SELECT 1');
sql("INSERT INTO f SELECT timestamptz '2024-01-01 UTC' + i * interval '13 seconds' FROM generate_series(1, 200) i");
sync_pipelines($node);
is(sql("SELECT stream_ckpt.verify('proved'), count(*) FROM proved"), '0|43', 'verify() of cumulate()');

# A row that is late for one window and not for the next of its pane stays so when the watermark goes back
sql('CREATE TABLE b (ts timestamptz, k int)');
attach($node, 'b');
create_query($node, 'stays_late', 'b', emit => 'update', select => "SELECT w.window_start, w.window_end, k, count(*) AS n
	FROM b, stream_ckpt.hop(ts, '1 minute', '2 minutes') w GROUP BY 1, 2, 3");
sql("INSERT INTO b VALUES ('2024-01-01 00:02:10 UTC', 1)");
sql("INSERT INTO b VALUES ('2024-01-01 00:01:40 UTC', 3)");
sync_pipelines($node);
sql("SELECT stream_ckpt.reset_watermark('b', '2024-01-01 00:00:20 UTC')");
sql("INSERT INTO b VALUES ('2024-01-01 00:01:50 UTC', 3)");
sync_pipelines($node);
is(sql(q(SELECT string_agg(to_char(window_end AT TIME ZONE 'UTC', 'MI') || '=' || n, ' ' ORDER BY window_end) FROM stays_late WHERE k = 3)),
	'03=2', 'a window that was over isn\'t opened again');

# More places of windows that are over than can be remembered one by one
sql('CREATE TABLE c (ts timestamptz, late bool)');
attach($node, 'c');
create_query($node, 'sparse', 'c', emit => 'close', select => "SELECT w.window_start, w.window_end, count(*) AS n, bool_or(late) AS late
	FROM c, stream_ckpt.hop(ts, '1 minute', '5 minutes') w GROUP BY 1, 2");
sql("DO 'BEGIN FOR i IN 0 .. 59 LOOP INSERT INTO c VALUES (timestamptz ''2024-01-01 00:00:30 UTC'' + i * interval ''1 day'', false); COMMIT; END LOOP; END'");
sync_pipelines($node);
sql("SELECT stream_ckpt.reset_watermark('c', '2024-01-01 UTC')");
sql("DO 'BEGIN FOR i IN 0 .. 58 LOOP INSERT INTO c VALUES (timestamptz ''2024-01-01 00:00:40 UTC'' + i * interval ''1 day'', true); COMMIT; END LOOP; END'");
sql("INSERT INTO c VALUES ('2024-12-31 UTC', true)");
sync_pipelines($node);
is(sql("SELECT count(*), max(n), bool_or(late) FROM sparse WHERE window_start < '2024-02-28 01:00 UTC'"), '295|1|f', 'none of them is opened again');

# What identifies a row of cumulate() is the window's end
sql(q(CREATE TABLE ends (ts timestamptz)));
attach($node, 'ends');
create_query($node, 'ends_of', 'ends', emit => 'update', select => "SELECT w.window_start, w.window_end, count(*) AS n FROM ends, stream_ckpt.cumulate(ts, '1 minute', '3 minutes') w GROUP BY 1, 2");
sql(q(INSERT INTO ends VALUES ('2024-01-01 00:01:30 UTC')));
sync_pipelines($node);
sql(q(DROP INDEX ends_of_key; CREATE TABLE kept AS TABLE ends_of; TRUNCATE ends_of; CREATE UNIQUE INDEX ON ends_of (window_start)));
sql(q(INSERT INTO ends VALUES ('2024-01-01 00:00:30 UTC')));
wait_until($node, "SELECT status NOT IN ('running', 'recovering') FROM stream_ckpt.queries WHERE query = 'ends_of'::regclass", 'an index on its start is no key');
like(counter($node, 'ends_of', 'message'), qr/unique/, 'and the message says that one is missing');
sql(q(SELECT stream_ckpt.drop_query('ends_of')));

# What has changed is emitted once for a checkpoint, however often the watermark moves before it
sql(q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')));
sql('CREATE TABLE o (ts timestamptz, k int)');
attach($node, 'o');
create_query($node, 'once', 'o', emit => 'update', select => "SELECT w.window_start, w.window_end, k, count(*) AS n
	FROM o, stream_ckpt.hop(ts, '1 minute', '10 minutes') w GROUP BY 1, 2, 3");
checkpoint_all($node);
sql("INSERT INTO o SELECT timestamptz '2024-01-01 UTC' + $_ * interval '1 second', 1") for 1 .. 20;
checkpoint_all($node);
results_ok($node, 'once', 'many transactions in a checkpoint', emit => 'update');
cmp_ok(counter($node, 'once', 'result_rows'), '<=', 20, 'each window is emitted once, or twice');

$node->stop;
done_testing();
