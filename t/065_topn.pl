# DISTINCT ON and row_number() <= n over the rows of a stream: of each key the best rows, with windows and without, against
# the plain query, with whatever dies; in one task and in several.
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
my $rounds = $ENV{ROUNDS} || 4;
my $node = new_node('main', '', draw => {});
my $tasks = drawn($node)->{tasks};
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q(CREATE TABLE t (ts timestamptz, k int, v int, s text, n numeric, j jsonb, id int);
	CREATE DOMAIN short AS text CHECK (length(VALUE) < 1000)));
attach($node, 't', delay => '1 hour');

# "id" makes every order one of all rows: what ties are isn't the plain query's to say
my @order = ('v DESC, id', 'v, id DESC', 's NULLS FIRST, id', 's DESC NULLS LAST, id DESC', 'n DESC NULLS FIRST, v, id', 'abs(v - 50), id', 'ts DESC, id', 'id', 'j, id DESC', 'upper(s) COLLATE "C" DESC, id');
my @columns = ('v', 's', 'n * 2', 'j', 'id', 'ts', 'upper(s)', 'ARRAY[v, k]', 'coalesce(s, \'-\')', '7', 's::short', 'repeat(s, 500)');
my @keys = ('k', 's', 'k % 2, s', 'v / 30', 'j');
my %queries;
my %emit;
for my $i (1 .. 10)
{
	my $n = 0;
	my $list = join ', ', map { $columns[ rand @columns ] . ' AS c' . $n++ } 1 .. 1 + int rand 5;
	my @key = split /, /, pick(@keys);
	my $order = pick(@order);
	my $where = pick('', 'WHERE v < 70', 'WHERE s IS NOT NULL');
	# windows that share panes have to fit into memory
	my $window = pick('', q(tumble(ts, '20 minutes')), drawn($node)->{memory} ? () : (q(hop(ts, '10 minutes', '30 minutes')), q(cumulate(ts, '10 minutes', '1 hour'))));
	my @window = $window ? ('w.window_start', 'w.window_end') : ();
	my $from = $window ? "t, stream_ckpt.$window w" : 't';
	my $key = 0;
	my $shown = join ', ', @window, map { "$_ AS key" . $key++ } @key;
	my $partition = join ', ', @window, @key;
	my $most = pick(1, 2, 3, 10);
	my $bound = $most == 1 ? pick('rn = 1', '1 >= rn', 'rn < 2') : pick("rn <= $most", "$most >= rn AND rn > 0", "rn BETWEEN 1 AND $most", "rn <= $most AND c0 IS NOT NULL", "rn = $most", "rn <= $most AND key0 IS NOT NULL");

	$emit{"q$i"} = $window ? pick('close', 'update') : 'update';
	if (rand() < 0.4)
	{
		$queries{"q$i"} = "SELECT DISTINCT ON ($partition) $shown, $list FROM $from $where ORDER BY $partition, $order";
	}
	else
	{
		my $outer = pick('*', '*', 'rn * 10 AS ten_times, r.*');
		$queries{"q$i"} = "SELECT $outer FROM (SELECT $shown, $list, row_number() OVER (PARTITION BY $partition ORDER BY $order) AS rn FROM $from $where) r WHERE $bound";
	}
}
# ranks, of rows some of which are as good as others
for my $i (1 .. 4)
{
	my $rank = pick('rank', 'dense_rank');
	my $order = pick('v / 20 DESC', 's', 'k NULLS FIRST, v / 30', 'n DESC NULLS LAST');
	my $most = pick(1, 2, 4);
	my $window = pick(q(tumble(ts, '20 minutes')), drawn($node)->{memory} ? () : q(hop(ts, '10 minutes', '30 minutes')));

	$emit{"r$i"} = 'close';
	$queries{"r$i"} = "SELECT * FROM (SELECT w.window_end, j, v, id, $rank() OVER (PARTITION BY w.window_end, j ORDER BY $order) AS rn FROM t, stream_ckpt.$window w) r WHERE "
	  . pick("rn <= $most", "rn = $most", "rn <= $most AND v < 60");
}
# all rows are one group; without the number, and rows that are inserted once; rows that may be late
$queries{all_rows} = 'SELECT v, id, rn FROM (SELECT v, id, row_number() OVER (ORDER BY v DESC, id) AS rn FROM t) r WHERE rn <= 5';
$queries{not_numbered} = q(SELECT s, v, window_end FROM (SELECT s, v, w.window_end, row_number() OVER (PARTITION BY w.window_end, s ORDER BY v, id) AS rn FROM t, stream_ckpt.tumble(ts, '10 minutes') w) r WHERE rn <= 3);
$queries{by_hour} = q(SELECT DISTINCT ON (date_trunc('hour', ts, 'UTC')) date_trunc('hour', ts, 'UTC') AS hour, v, id FROM t ORDER BY date_trunc('hour', ts, 'UTC'), v DESC, id);
$queries{late} = q(SELECT window_start, k, rn, v, id FROM (SELECT w.window_start, k, v, id, row_number() OVER (PARTITION BY w.window_start, k ORDER BY v DESC, id) AS rn FROM t, stream_ckpt.tumble(ts, '10 minutes') w) r WHERE rn <= 2 AND v % 3 <> 1);
@emit{qw(all_rows not_numbered by_hour late)} = qw(update close close close);
for my $name (sort keys %queries)
{
	my $parallelism = $name eq 'all_rows' || $name eq 'by_hour' ? 1 : pick(grep { $_ <= $tasks } 1, 2, 4);
	my $more = $name eq 'late' ? q(, allowed_lateness => '1 day') : '';

	note "$name ($emit{$name}, in $parallelism): $queries{$name}";
	sql("SELECT stream_ckpt.create_query('$name', \$sc\$ $queries{$name} \$sc\$, emit => '$emit{$name}', parallelism => $parallelism$more, backfill => false)");
}
wait_running($node);

my $id = 0;
my $clock = 0;
sub transaction
{
	sql('INSERT INTO t VALUES ' . join ', ', map {
			$clock += rand 20;
			$id++;
			sprintf q((timestamptz '2024-01-01 UTC' + %d * interval '1 second', %s, %d, %s, %s, %s, %d)), $clock - rand 600, pick('NULL', 0 .. 3), rand 100,
			pick('NULL', map { "'$_'" } qw(a b B cc)), pick('NULL', '1.5', '1.50', '-2', "'NaN'"), pick('NULL', q('{"a": 1}'), q('{"a":1.0}'), q('[]')), $id
		} 1 .. 1 + int rand 60);
	return;
}
sub all_ok
{
	my ($test) = @_;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		# that of the rows without their numbers can't tell what is closed
		is(sql("SELECT stream_ckpt.verify('$name')"), '0', "$test: $name");
	}
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
is(sql('SELECT count(*) FROM all_rows'), '5', 'the five best of all');
is(sql('SELECT bool_and(n = 1) FROM (SELECT count(*) AS n FROM late GROUP BY window_start, k, rn) d'), 't', 'each number once');
cmp_ok(sql('SELECT count(*) FROM not_numbered'), '>', 10, 'windows were emitted');

# Ties: the first that came stays.
sql(q(CREATE TABLE ties (k int, v int, id int); SELECT stream_ckpt.attach_stream('ties');
	SELECT stream_ckpt.create_query('first', 'SELECT DISTINCT ON (k) k, id FROM ties');
	SELECT stream_ckpt.create_query('best', 'SELECT k, rn, id FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS rn FROM ties) r WHERE rn <= 2')));
wait_running($node);
sql("INSERT INTO ties VALUES (1, 5, $_), (2, 5 + $_, $_)") for 1 .. 4;
lose_state($node, 'task');
sql("INSERT INTO ties VALUES (1, 5, $_), (2, 5 - $_, $_)") for 5 .. 6;
sync_pipelines($node);
is(sql('SELECT k, id FROM first ORDER BY k'), "1|1\n2|1", 'the first row of a key');
is(sql('SELECT k, rn, id FROM best ORDER BY k, rn'), "1|1|1\n1|2|2\n2|1|4\n2|2|3", 'of rows that are as good, the first ones');

# Rows and groups at fault; a table whose rows go through a trigger.
sql(q(CREATE FUNCTION no_13(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN IF $1 = 13 THEN RAISE EXCEPTION ''thirteen''; END IF; RETURN $1; END';
	CREATE TABLE d (k int, v int, id int); SELECT stream_ckpt.attach_stream('d');
	SELECT stream_ckpt.create_query('rows_at_fault', 'SELECT DISTINCT ON (k) k, 100 / v AS q, id FROM d ORDER BY k, v DESC, id', on_error => 'dead_letter');
	SELECT stream_ckpt.create_query('groups_at_fault', 'SELECT k, no_13(v) AS v, rn FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC, id) AS rn FROM d) r WHERE rn <= 3', on_error => 'dead_letter');
	SELECT stream_ckpt.create_query('through', 'SELECT k, v, rn FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC, id) AS rn FROM d) r WHERE rn <= 3 AND v <> 11');
	CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER nothing BEFORE INSERT ON through FOR EACH ROW EXECUTE FUNCTION nothing()));
wait_running($node);
sql('INSERT INTO d VALUES (1, 1, 1), (1, 0, 2), (1, 5, 3), (2, 12, 4), (2, 11, 5), (3, 10, 6)');
sync_pipelines($node);
sql('INSERT INTO d VALUES (2, 13, 7), (3, 12, 8), (3, 11, 9), (3, 0, 10), (1, 20, 11)');
lose_state($node, 'immediate');
sync_pipelines($node);
is(sql('SELECT k, q, id FROM rows_at_fault ORDER BY 1'), "1|5|11\n2|7|7\n3|8|8", 'rows at fault are left out');
is(sql(q(SELECT count(*), bool_and((row->>'v')::int = 0) FROM stream_ckpt.dead_letter WHERE query = 'rows_at_fault'::regclass)), '2|t', 'and are letters');
is(sql('SELECT k, v, rn FROM groups_at_fault ORDER BY 1, 3'), "1|20|1\n1|5|2\n1|1|3\n2|12|1\n2|11|2\n3|12|1\n3|11|2\n3|10|3", 'of a group at fault no row is written');
is(sql(q(SELECT kind, row FROM stream_ckpt.dead_letter WHERE query = 'groups_at_fault'::regclass)), 'group|{"k": 2}', 'and it is a letter');
is(sql('SELECT k, v, rn FROM through ORDER BY 1, 3'), "1|20|1\n1|5|2\n1|1|3\n2|13|1\n2|12|2\n3|12|1\n3|10|3", 'a row that is not wanted any more is deleted');

# The state is bounded: it follows the number of keys, not that of rows.
sql(q(CREATE TABLE many (k int, v int, s text); SELECT stream_ckpt.attach_stream('many');
	SELECT stream_ckpt.create_query('few', 'SELECT k, rn, v FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS rn FROM many) r WHERE rn <= 3')));
wait_running($node);
sql('INSERT INTO many SELECT i % 10, i, md5(i::text) FROM generate_series(1, 100000) i');
sync_pipelines($node);
is(sql('SELECT count(*), min(v) FROM few'), '30|99971', 'three of each');
cmp_ok(counter($node, 'few', 'state_bytes'), '<', 10000, 'and no more is kept');

# Keys that become equal: of the rows of both the best one stays, and the other goes.  Such groups have to fit into
# memory; and the order of the index has to stay what it was.
SKIP:
{
	skip 'groups don\'t fit into memory', 3 if drawn($node)->{memory};

	sql(q(CREATE TYPE pair AS (a int, b int); CREATE TABLE p (k pair, v int, id int); SELECT stream_ckpt.attach_stream('p');
		SELECT stream_ckpt.create_query('pairs', 'SELECT DISTINCT ON (k) k, v, id FROM p ORDER BY k, v DESC, id')));
	wait_running($node);
	sql('INSERT INTO p VALUES ((1, 1), 5, 1), ((1, 2), 7, 2), ((1, 2), 6, 3), ((1, 1), 8, 4), ((2, 1), 1, 5)');
	sync_pipelines($node);
	is(sql('SELECT count(*) FROM pairs'), '3', 'rows of three keys');
	sql('ALTER TYPE pair DROP ATTRIBUTE b');
	sql('INSERT INTO p VALUES (ROW(3)::pair, 1, 6)');
	results_ok($node, 'pairs', 'keys have become equal', emit => 'update');
	lose_state($node, 'immediate');
	sql('INSERT INTO p VALUES (ROW(1)::pair, 9, 7), (ROW(2)::pair, 0, 8)');
	results_ok($node, 'pairs', 'and after a crash', emit => 'update');
}

$node->stop;
done_testing();
