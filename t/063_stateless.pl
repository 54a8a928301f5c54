# Queries without groups: each row that passes WHERE is a result row, once, whatever dies: random rows and definitions on
# tables and log streams, in one task and in several, with dead letters, pauses, huge transactions, and result tables that
# take their rows through the executor.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds, ROWS=n another size of the huge transaction.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $rounds = $ENV{ROUNDS} || 10;
my $huge = $ENV{ROWS} || 400_000;
my $large = pick(1, 30, 100000);    # rows from which on a part has a writer of its own
my $node = new_node('main', "stream_ckpt.debug_large_part = $large\nstream_ckpt.checkpoint_memory = 16MB\nlogical_decoding_work_mem = 4MB\n", draw => {});
my $tasks = drawn($node)->{tasks};

sub sql { return $node->safe_psql('postgres', $_[0]); }
note "a writer from $large rows on";

sql(q(CREATE TABLE t (ts timestamptz, k int, v int, s text, n numeric, j jsonb, txn int) PARTITION BY LIST (k);
	CREATE TABLE t_odd (txn int, s text, j jsonb, n numeric, v int, k int, ts timestamptz);
	ALTER TABLE t ATTACH PARTITION t_odd FOR VALUES IN (1, 3);
	CREATE TABLE t_rest PARTITION OF t DEFAULT;
	CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
	CREATE FUNCTION no_13(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN IF $1 = 13 THEN RAISE EXCEPTION ''thirteen''; END IF; RETURN $1; END'));
attach($node, 't');
sql(q(SELECT stream_ckpt.create_stream('l', 'ts timestamptz, k int, v int, s text, n numeric, j jsonb, txn int', event_time => 'ts')));

# Random definitions, the same for the table and the log stream.
my @columns = ('ts', 'k', 'v', 's', 'n', 'j', 'k + v', 'upper(s)', 'n * 2', 'j -> \'a\'', 'coalesce(s, \'-\')', '\'x\'', 'NULL::int', 'ts + interval \'1 day\'', 'doubled(v)',
	'CASE WHEN v > 50 THEN s ELSE \'low\' END', 'ARRAY[k, v]', 'repeat(s, 100)', 'v % 2 = 0');
my @where = ('', '', 'WHERE v < 10', 'WHERE k IS NOT NULL AND v > 50', 'WHERE s = \'a\' OR n > 0', 'WHERE doubled(v) % 3 = 0', 'WHERE j ? \'a\'', 'WHERE false');
my %queries;    # name => [ SELECT with %s for the stream, stream ]
for my $i (1 .. 6)
{
	my $n = 0;
	# a row of each of the windows that hold a row
	my $window = $i % 2 ? '' : pick("tumble(ts, '1 minute')", "hop(ts, '1 minute', '150 seconds')", "hop(ts, '5 minutes', '2 minutes')", "cumulate(ts, '20 seconds', '2 minutes')");
	my $where = $i == 4 ? 'WHERE window_end - ts < interval \'100 seconds\'' : pick(@where);
	my $select = 'SELECT ' . join(', ', 'txn', ($window ? 'w.window_start, window_time - ts AS rest, w.window_end' : ()), map { $columns[ rand @columns ] . ' AS c' . $n++ } 1 .. 1 + int rand 6)
	  . ' FROM %s' . ($window ? ", stream_ckpt.$window w " : ' ') . $where;

	$queries{"t$i"} = [ $select, 't' ];
	$queries{"l$i"} = [ $select, 'l' ] if $i <= 3;
}
$queries{all_of_t} = [ 'SELECT * FROM %s', 't' ];
$queries{all_of_l} = [ 'SELECT * FROM %s', 'l' ];
$queries{whole} = [ 'SELECT x, x.v FROM %s x WHERE x IS NOT NULL', 't' ];

sub create
{
	my ($name, $select, @options) = @_;
	my $parallelism = pick(grep { $_ <= $tasks } 1, 2, 4);

	note "$name, in $parallelism: $select";
	sql("SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$" . join('', map { ", $_" } @options, "parallelism => $parallelism", 'backfill => false') . ')');
	return;
}

sub definition
{
	my ($name, $stream) = @_;
	return $queries{$name}[0] =~ s/%s/$stream/r;
}
create($_, definition($_, $queries{$_}[1])) for sort keys %queries;
# two rows of the result that can't be there at once; and one whose rows go through a trigger
create('plain', 'SELECT txn, v FROM t');
sql(q(CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v + 1; RETURN NEW; END';
	CREATE TRIGGER noted BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION noted()));
wait_running($node);
is(sql('SELECT DISTINCT emit FROM stream_ckpt.queries'), 'rows', 'emit is rows');

my $txn = 0;

sub random_row
{
	return sprintf '(%s, %s, %d, %s, %s, %s, %d)',
	  pick('NULL', "'infinity'", "'2004-01-01 UTC'", map { "'2024-01-01 UTC'::timestamptz + interval '" . int(rand 1000) . " s'" } 1 .. 5),
	  pick('NULL', 0 .. 4), int rand 100, pick('NULL', map { "'$_'" } qw(a b B c)), pick('NULL', '0', '1.50', '1.5', '-3'),
	  pick('NULL', q('{"a": 1}'), q('{"b": [1, null]}')), $txn;
}

# A transaction with rows for both streams, now and then with some that are rolled back.
sub transaction
{
	my $savepoint = rand() < 0.2;
	my $end = rand() < 0.1 ? 'ROLLBACK' : 'COMMIT';
	my $rows = sub { return join(', ', map { random_row() } 1 .. 1 + int rand(rand() < 0.1 ? 1000 : 20)) };

	$txn++;
	sql("BEGIN; INSERT INTO t VALUES " . $rows->() . ';'
		  . ($savepoint ? 'SAVEPOINT a; INSERT INTO t VALUES ' . $rows->() . '; ROLLBACK TO a; INSERT INTO t VALUES ' . $rows->() . ';' : '')
		  . " INSERT INTO l SELECT * FROM t WHERE txn = $txn; $end");
	return;
}

sub all_ok
{
	my ($test) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$test: $_", emit => 'rows', synced => 1, truth => definition($_, 't')) for sort keys %queries;
	is(sql('SELECT count(*) FROM ((SELECT txn, v + 1 FROM t EXCEPT ALL TABLE plain) UNION ALL (TABLE plain EXCEPT ALL SELECT txn, v + 1 FROM t)) d'), '0', "$test: through a trigger");
	return;
}

transaction() for 1 .. 20;
all_ok('some rows');
for my $round (1 .. $rounds)
{
	my $what = pick('', '', 'task', 'coordinator', 'reader', 'immediate', 'fast', 'pause', 'parallelism', 'replace');

	note "round $round: $what";
	transaction() for 1 .. int rand 20;
	if ($what eq 'pause')
	{
		my $name = pick(sort keys %queries);

		sql("SELECT stream_ckpt.pause_query('$name')");
		transaction() for 1 .. 5;
		lose_state($node, 'task') if rand() < 0.3;
		sql("SELECT stream_ckpt.resume_query('$name')");
	}
	elsif ($what eq 'parallelism')
	{
		sql("SELECT stream_ckpt.alter_query('" . pick(sort keys %queries) . "', parallelism => " . pick(grep { $_ <= $tasks } 1, 2, 4) . ')');
	}
	elsif ($what eq 'replace')
	{
		sql(q(CREATE OR REPLACE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $1'));
	}
	elsif ($what)
	{
		lose_state($node, $what);
	}
	transaction() for 1 .. int rand 10;
	all_ok("round $round") if $round % 3 == 0 || $round == $rounds;
}
is(sql('SELECT count(DISTINCT rows_in) FROM stream_ckpt.queries WHERE stream = \'t\'::regclass AND rows_in = (SELECT count(*) FROM t)'), '1', 'each row counts once in rows_in');
is(sql(q(SELECT sum(stream_ckpt.verify(query)) FROM stream_ckpt.queries WHERE stream = 't'::regclass AND query <> 'plain'::regclass)), '0', 'verify()');

# A row that can't be written waits for it, and others go on; then all are there once.
{
	sql('BEGIN; LOCK TABLE all_of_t IN SHARE MODE; PREPARE TRANSACTION \'lock\'');
	transaction() for 1 .. 5;
	wait_until($node, "SELECT status = 'waiting' FROM stream_ckpt.queries WHERE query = 'all_of_t'::regclass", 'a locked result table is waited for');
	transaction() for 1 .. 5;
	sql("ROLLBACK PREPARED 'lock'");
	all_ok('written later');
}

# Rows at fault, in WHERE, in the select list, and in the result table.
sql(q(CREATE TABLE d (id int, v int); SELECT stream_ckpt.attach_stream('d')));
create('in_list', 'SELECT id, 100 / v AS q, no_13(v) AS v FROM d', "on_error => 'dead_letter'");
create('in_where', 'SELECT id, v FROM d WHERE 100 / v <> 5', "on_error => 'dead_letter'");
create('in_table', 'SELECT id, v FROM d', "on_error => 'dead_letter'");
sql('ALTER TABLE in_table ADD CHECK (v <> 7)');
wait_running($node);
my $id = 0;
for my $round (1 .. 4)
{
	sql('INSERT INTO d VALUES ' . join(', ', map { '(' . $id++ . ', ' . int(rand(20)) . ')' } 1 .. 1 + int rand 300)) for 1 .. 3;
	lose_state($node, pick('task', 'immediate')) if $round % 2 == 0;
}
sql("INSERT INTO d VALUES (-1, 0), (-2, 13), (-3, 7)");
sub letters_ok
{
	my ($name, $select, $bad, $kind) = @_;

	is(sql("SELECT count(*) FROM ((TABLE $name EXCEPT ALL $select WHERE NOT ($bad)) UNION ALL ($select WHERE NOT ($bad) EXCEPT ALL TABLE $name)) d"), '0', "$name: all others");
	is(sql("SELECT count(*), count(DISTINCT (row->>'id')::int), bool_and(kind = '$kind') FROM stream_ckpt.dead_letter WHERE query = '$name'::regclass"),
		sql("SELECT count(*), count(*), true FROM d WHERE $bad"), "$name: a letter for each");
	return;
}
sync_pipelines($node);
letters_ok('in_list', 'SELECT id, CASE WHEN v <> 0 THEN 100 / v END, v FROM d', 'v IN (0, 13)', 'row');
letters_ok('in_where', 'SELECT id, v FROM (SELECT id, v FROM d WHERE CASE WHEN v = 0 THEN true ELSE 100 / v <> 5 END) d', 'v = 0', 'row');
letters_ok('in_table', 'SELECT id, v FROM d', 'v = 7', 'result');

# One that stops at a row, and goes on from its last checkpoint.
sql('CREATE TABLE e (id int, v int); SELECT stream_ckpt.attach_stream(\'e\')');
create('stops', 'SELECT id, no_13(v) AS v FROM e');
wait_running($node);
sql('INSERT INTO e SELECT i, i % 10 FROM generate_series(1, 100) i');
sql("INSERT INTO e SELECT i, i % 20 FROM generate_series(101, 200) i");
wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'stops'::regclass", 'a row at fault stops a query');
is(sql('SELECT count(*) FROM (TABLE stops EXCEPT ALL SELECT id, v FROM e WHERE id <= 100) x'), '0', 'it has nothing of the transaction of that row');
sql(q(CREATE OR REPLACE FUNCTION no_13(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'; SELECT stream_ckpt.resume_query('stops')));
wait_running($node);
results_ok($node, 'stops', 'and goes on with each row once', emit => 'rows');

# A huge transaction: rows stream out, and a task dies in the middle.
{
	sql('CREATE TABLE h (id int, s text)');
	sql("SELECT stream_ckpt.attach_stream('h')");
	create('h_result', q(SELECT id, repeat(s, 20) AS s FROM h WHERE id % 10 <> 0));
	wait_running($node);
	my %pid = all_pids($node);
	sql("INSERT INTO h SELECT i, md5(i::text) FROM generate_series(1, $huge) i");
	wait_until($node, "SELECT max(rows_in) > $huge / 3 FROM stream_ckpt.tasks", 'a third of the rows is processed');
	kill 'TERM', $pid{task};
	wait_restarted($node, 'task', $pid{task});
	results_ok($node, 'h_result', 'a huge transaction', emit => 'rows');
	for my $which (qw(task coordinator))
	{
		my $kb = memory_of(pid_of($node, $which));

		diag sprintf '%s: peak memory %d MB, of a result of %d MB', $which, $kb->{VmHWM} / 1024, $huge * 0.9 * 640 / 1024 / 1024;
		cmp_ok($kb->{VmHWM}, '<', 128 * 1024, "$which: bounded memory");
	}
}

$node->stop;
done_testing();
