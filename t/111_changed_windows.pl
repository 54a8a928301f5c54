# verify() of queries over a stream whose changes are applied: it leaves out the windows of which rows came, changed or went
# when they were over, says how many those are, and compares all others.  Which they are is known exactly, whatever dies: the
# truth is made of all versions of rows that there were, each with the clock by which its coming was judged, and its going.
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
my $rounds = $ENV{ROUNDS} || 3;
my $node = new_node('main', "timezone = 'UTC'\n", draw => { batch => [ 0, 1, 7 ], tasks => [ 1, 2, 4 ], memory => [0] });

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

# What verify() returns, and how many windows it says that it has left out.
sub verified
{
	my ($query, @before) = @_;
	my ($ret, $stdout, $stderr) = try_psql($node, join(";\n", @before, "SELECT stream_ckpt.verify('$query')"));

	return $stderr if $ret != 0;
	return $stdout . ' ' . ($stderr =~ /NOTICE:  (\d+) windows? of "$query" (?:is|are) left out/ ? $1 : 0);
}

sql('CREATE TABLE t (id bigserial, ts timestamptz NOT NULL, k int, v int NOT NULL)',
	# versions of rows
	'CREATE TABLE h (LIKE t, came timestamptz, went timestamptz)',
	'CREATE TABLE clock (c timestamptz)', q(INSERT INTO clock VALUES ('2024-01-01')),
	q(CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF TG_OP = 'TRUNCATE' THEN
				UPDATE h SET went = (TABLE clock) WHERE went IS NULL;
			END IF;
			IF TG_OP IN ('UPDATE', 'DELETE') THEN
				UPDATE h SET went = (TABLE clock) WHERE id = OLD.id AND went IS NULL;
			END IF;
			IF TG_OP IN ('INSERT', 'UPDATE') THEN
				INSERT INTO h SELECT NEW.*, (TABLE clock);
			END IF;
			RETURN NULL;
		END $$),
	'CREATE TRIGGER rows AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()',
	'CREATE TRIGGER empties AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()',
	q(SELECT stream_ckpt.attach_stream('t', 'ts', changes => 'apply')));

# name => [window, emit, lateness, columns that are shown of the window]
my %queries = (
	tumbled => [ "tumble(ts, '1 minute')", 'close', '0', 'w.window_start, w.window_end' ],
	ends => [ "tumble(ts, '1 minute', '2024-01-01 00:00:07')", 'close', '90 seconds', 'w.window_end' ],
	times => [ "hop(ts, '1 minute', '3 minutes')", 'close', '0', 'w.window_time' ],
	hopped => [ "hop(ts, '1 minute', '3 minutes')", 'update', '0', 'w.window_start, w.window_end' ],
	steps => [ "cumulate(ts, '1 minute', '4 minutes')", 'close', '0', 'w.window_end' ],
	steps_late => [ "cumulate(ts, '1 minute', '4 minutes')", 'update', '1 minute', 'w.window_start, w.window_end' ],
	updated => [ "tumble(ts, '1 minute')", 'update', '2 minutes', 'w.window_start, w.window_end' ],
	zoned => [ "tumble(ts, '1 day', timezone => 'Europe/Berlin')", 'close', '0', 'w.window_end' ],
);

for my $name (sort keys %queries)
{
	my ($window, $emit, $lateness, $shown) = @{ $queries{$name} };

	create_query($node, $name, 't', emit => $emit, options => "allowed_lateness => '$lateness'",
		select => "SELECT $shown, k, count(*) AS n, sum(v) AS total, min(v) AS least FROM t, stream_ckpt.$window w GROUP BY $shown, k");
}
# a view's function, in its own words
create_query($node, 'hours', 't', emit => 'close',
	select => "SELECT date_trunc('hour', ts) AS hour, k, count(*) AS n, sum(v) AS total FROM t GROUP BY 1, k");
wait_running($node);

# the columns by which windows are told apart, and the same of all versions of rows
sub told_apart
{
	my ($name) = @_;

	return ('hour', "LATERAL (SELECT date_trunc('hour', ts) AS hour, date_trunc('hour', ts) + interval '1 hour' AS window_end) w", 'close', '0')
	  if $name eq 'hours';
	my ($window, $emit, $lateness, $shown) = @{ $queries{$name} };

	return ($shown =~ s/w\.//gr, "stream_ckpt.$window w", $emit, $lateness);
}

# Windows that can be seen and have changed when they were over.
sub changed
{
	my ($name) = @_;
	my ($columns, $window, $emit, $lateness) = told_apart($name);
	my $closed = $emit eq 'close' ? "w.window_end <= (TABLE clock)" : 'true';
	my $over = "w.window_end + interval '$lateness' <=";

	return "(SELECT $columns FROM $name UNION SELECT $columns FROM t, $window WHERE $closed)
		INTERSECT SELECT $columns FROM h, $window WHERE $over came OR $over went";
}

my $found = 0;

# verify() compares all but those windows; and finds what is wrong in others, only.
sub check
{
	my ($test) = @_;

	sync_pipelines($node);
	for my $name (sort(keys %queries, 'hours'))
	{
		my $changed = changed($name);
		my ($columns) = told_apart($name);
		my $n = sql("SELECT count(*) FROM ($changed) x");
		my ($out, $in) = map { "UPDATE $name SET total = total + 1 WHERE ctid = (SELECT ctid FROM $name WHERE ($columns) $_ IN ($changed) ORDER BY random() LIMIT 1)" } ('', 'NOT');
		my $others = sql("SELECT count(*) FROM $name WHERE ($columns) NOT IN ($changed)");

		is(verified($name), "0 $n", "$test: $name") or diag "SEED=$seed\n", sql("SELECT * FROM stream_ckpt.changed_windows c JOIN stream_ckpt.queries q USING (query_id) WHERE query = '$name'::regclass"), "\n", sql($changed);
		is(verified($name, 'BEGIN', $out), "0 $n", "$test: $name: what they have isn't compared") if $n > 0;
		is(verified($name, 'BEGIN', $in), "2 $n", "$test: $name: what others have is") if $others > 0;
		$found++ if $n > 0 && $others > 0;
	}
	return;
}

my $tick = 'UPDATE clock SET c = (SELECT max(ts) FROM h) WHERE c < (SELECT max(ts) FROM h)';

sub row
{
	my ($behind) = @_;

	return "INSERT INTO t (ts, k, v) SELECT (TABLE clock) + (40 - trunc(random() * $behind)) * interval '1 second', " . pick('NULL', 1 .. 3) . ', trunc(random() * 30) FROM generate_series(1, '
	  . pick(1, 3, 10) . ')';
}

sub step
{
	my $some = 'v % ' . pick(2, 3, 5) . ' = ' . pick(0, 1) . ' AND ts > (TABLE clock) - ' . pick(30, 100, 300) . " * interval '1 second'";

	return pick(row(pick(30, 30, 200)), row(50), "UPDATE t SET v = v + 1 WHERE $some", "DELETE FROM t WHERE $some AND k = 2",
		"UPDATE t SET v = v + 1, ts = ts + interval '2 minutes' WHERE $some AND k = 1", "SAVEPOINT a; DELETE FROM t WHERE $some; ROLLBACK TO a");
}

sql(q(INSERT INTO t (ts, k, v) VALUES ('2024-01-01 00:00', 9, 1)), $tick);
for my $round (1 .. $rounds)
{
	for (1 .. pick(5, 10))
	{
		sql('BEGIN', 'SELECT setseed(' . rand() . ')', (map { step() } 1 .. pick(1, 2)), 'COMMIT', $tick);
		# a row that moves the watermark
		sql("INSERT INTO t (ts, k, v) SELECT c + '" . pick(60, 100, 400) . " seconds', 9, 1 FROM clock", $tick) for 1 .. pick(0, 1, 3);
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick(qw(immediate task coordinator reader))) if rand() < 0.1;
	}
	check("round $round");
}
sql("INSERT INTO t (ts, k, v) SELECT c + '1 day', 9, 1 FROM clock", $tick);
check('a day later');
sql('BEGIN', row(50), 'TRUNCATE t', row(50), 'COMMIT', $tick, "INSERT INTO t (ts, k, v) SELECT c + '5 minutes', 9, 1 FROM clock", $tick);
lose_state($node, 'task') if rand() < 0.5;
check('emptied');
cmp_ok($found, '>', 5, 'there were windows of both kinds');

# Each is written once, with the part that it belongs to
my $ranges = 'SELECT * FROM stream_ckpt.changed_windows ORDER BY query_id, range_start';
my $before = sql($ranges);
checkpoint_all($node);
is(sql($ranges), $before, 'what is known stays');
arm($node, 'coordinator_before_commit', 'wait');
sql("DELETE FROM t WHERE ts < (TABLE clock) - interval '2 minutes'", q(INSERT INTO t (ts, k, v) SELECT c - '3 hours'::interval, 5, 5 FROM clock));
wait_reached($node, 'coordinator_before_commit');
is(sql($ranges), $before, 'not before the checkpoint is committed');
$node->stop('immediate');
disarm($node, 'coordinator_before_commit');
$node->start;
wait_running($node);
sync_pipelines($node);
isnt(sql($ranges), $before, 'with the next one');
check('killed before the commit');

# Bounded: of windows that are far apart, those that are nearest to each other become one range, and none is lost.
sql('CREATE TABLE u (ts timestamptz NOT NULL, v int)', q(SELECT stream_ckpt.attach_stream('u', 'ts', changes => 'apply')));
create_query($node, 'far', 'u', tasks => 1, emit => 'close', select => "SELECT w.window_start, count(*) AS n FROM u, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1");
wait_running($node);
sql(q(INSERT INTO u VALUES ('2024-06-01', 0)));
sql(q(INSERT INTO u SELECT timestamptz '2024-05-01' - i * i * interval '1 minute', i FROM generate_series(1, 1300) i));
sync_pipelines($node);
is(sql(q(SELECT count(*) FROM stream_ckpt.changed_windows JOIN stream_ckpt.queries q USING (query_id) WHERE query = 'far'::regclass)), '1000', 'there is room for so many');
is(sql(q(SELECT count(*) FROM u WHERE v > 0 AND NOT EXISTS (SELECT FROM stream_ckpt.changed_windows c JOIN stream_ckpt.queries q USING (query_id)
	WHERE query = 'far'::regclass AND ts >= range_start AND ts < range_end))), '0', 'each late row is in one');
is(verified('far'), '0 1300', 'and in no window that is compared');

# One that is made anew keeps the windows that end before the oldest row, which may be between two windows.
sql('CREATE TABLE g (ts timestamptz NOT NULL, v int)', q(SELECT stream_ckpt.attach_stream('g', 'ts', changes => 'apply')));
create_query($node, 'gaps', 'g', tasks => 1, emit => 'close', select => "SELECT w.window_start, count(*) AS n FROM g, stream_ckpt.hop(ts, '10 minutes', '1 minute') w GROUP BY 1");
sql(q(INSERT INTO g SELECT timestamptz '2024-06-01' + i * interval '30 seconds', i FROM generate_series(0, 100) i));
sync_pipelines($node);
is(verified('gaps'), '0 0', 'hop() with gaps');
sql(q(DELETE FROM g WHERE ts < '2024-06-01 00:15'));
sync_pipelines($node);
sql(q(SELECT stream_ckpt.rebuild_query('gaps')), q(SELECT stream_ckpt.sync('3 minutes', 'gaps')));
wait_until($node, 'SELECT NOT EXISTS (SELECT FROM stream_ckpt.queries WHERE replaces IS NOT NULL)', 'it is made anew');
is(sql('SELECT count(*) FROM gaps'), '5', 'windows before the oldest row stay');
is(verified('gaps'), '0 2', 'and are left out');
sql(q(SELECT stream_ckpt.reset_watermark('g', '2024-06-01')), q(INSERT INTO g VALUES ('2024-06-01 00:00:30', 1), ('2024-06-01 01:00', 1)));
sync_pipelines($node);
is(sql(q(SELECT n FROM gaps WHERE window_start = '2024-06-01')), '2', 'nothing is counted in them any more');

sql(q(SELECT stream_ckpt.drop_query('far')), q(SELECT stream_ckpt.drop_query('gaps')));
sync_pipelines($node);
is(sql(q(SELECT count(*) FROM stream_ckpt.changed_windows WHERE query_id NOT IN (SELECT query_id FROM stream_ckpt.query))), '0', 'a dropped query leaves none');
is(sql("SELECT count(*) FROM stream_ckpt.queries WHERE status <> 'running'"), '0', 'no query has failed') or diag sql('SELECT query, status, message FROM stream_ckpt.queries');

$node->stop;
done_testing();
