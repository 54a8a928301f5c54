# Queries in several tasks: what is refused, that each row counts once whatever becomes of it, that all tasks of a
# query fail, pause and go on together, and that the state goes over to other tasks when their number changes; then
# all that at random, under load and with processes that die.
#
# SEED=n takes the same steps again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $rounds = $ENV{ROUNDS} || 6;

my $node = new_node('main', "max_worker_processes = 10\nmax_logical_replication_workers = 1\n");
create_stream_table($node, 't', delay => '1 minute');
$node->safe_psql(
	'postgres', q(
	CREATE TABLE switch (bad bool);
	INSERT INTO switch VALUES (false);
	CREATE FUNCTION fails_if_bad(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN IF (SELECT bad FROM switch) THEN RAISE 'bad'; END IF; RETURN v; END $$));

sub value { return $node->safe_psql('postgres', $_[0]); }

sub select_of
{
	my (%part) = @_;
	my ($key, $sum, $where) = ($part{key} // 'k', $part{sum} // 'v', $part{where} // 'true');

	return "SELECT w.window_start, w.window_end, $key AS key, count(*) AS n, sum($sum) AS total
		FROM t, stream_ckpt.tumble(ts, '1 minute') w WHERE $where GROUP BY w.window_start, w.window_end, $key";
}

# The same, if a query has failed: sync() warns of that, which others take for a failure.
sub sync_others
{
	return value('SET client_min_messages = error; SELECT stream_ckpt.sync() IS NOT NULL');
}

sub make_query
{
	my ($name, $parallelism, %part) = @_;

	create_query($node, $name, 't',
		emit => $part{emit},
		select => select_of(%part),
		options => "parallelism => $parallelism" . ($part{options} ? ", $part{options}" : ''));
	return;
}

my $second = 0;    # of event time

# n rows, one each second, of keys from 0 on, in one transaction
sub insert_rows
{
	my ($n) = @_;

	$node->safe_psql('postgres',
		"INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + ($second + i) * interval '1 second', i % 50, i, 1
		 FROM generate_series(1, $n) i");
	$second += $n;
	return;
}

#
# What is refused
#
is_refused($node, "SELECT stream_ckpt.alter_pipeline('default', parallelism => 0)", qr/must be from 1 to 16/, 'no task');
is_refused($node, "SELECT stream_ckpt.alter_pipeline('default', parallelism => 17)", qr/must be from 1 to 16/, 'too many tasks');
is_refused($node,
	"SELECT stream_ckpt.alter_pipeline('default', parallelism => 7)",
	qr/7 tasks are more than "max_worker_processes" allows.*would take 9 .*others take 2; the server has 10.*to 11 or more/s,
	'more than there are workers');
is_refused($node, "SELECT stream_ckpt.create_pipeline('other', parallelism => 7)", qr/7 tasks are more than/, 'the same of a new one');
my $create = "SELECT stream_ckpt.create_query('q', \$\$ %s \$\$, parallelism => 2)";
is_refused($node, sprintf($create, select_of()), qr/cannot have a parallelism of 2.*The pipeline has 1.*alter_pipeline/s, 'more than the pipeline');
value("SELECT stream_ckpt.alter_pipeline('default', parallelism => 4)");
is_refused($node,
	sprintf($create, "SELECT window_start, count(*) FROM t, stream_ckpt.tumble(ts, '1 minute') GROUP BY 1"),
	qr/without keys cannot have a parallelism above 1/,
	'a query without keys');
is_refused($node, sprintf($create, select_of(where => 'fails_if_bad(v) > 0')),
	qr/must be made of built-in functions and types/, 'a function of a user in WHERE');
is_refused($node, sprintf($create, select_of(key => 'fails_if_bad(v)')),
	qr/must be made of built-in functions and types/, 'and in a key');

#
# One query in each number of tasks
#
make_query('one', 1);
make_query('two', 2, emit => 'update');
make_query('four', 4);
make_query('text', 4, key => "'key ' || k", emit => 'update', options => "allowed_lateness => '2 minutes'");
make_query('general', 3, key => 'k::numeric / 2');
my @all = qw(one two four text general);
my %emit = (two => 'update', text => 'update');
is_refused($node, "SELECT stream_ckpt.alter_pipeline('default', parallelism => 3)", qr/Query .* has 4.*alter_query/s,
	'fewer tasks than a query has');
is_refused($node, "SELECT stream_ckpt.alter_query('one', parallelism => 5)", qr/parallelism of 5.*The pipeline has 4/s,
	'alter_query: more than the pipeline');
wait_running($node);

sub all_ok
{
	my ($test) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$test: $_", synced => 1, table => 't', delay => '1 minute', emit => $emit{$_}) for @all;
	is(value('SELECT string_agg(DISTINCT rows_in::text, \',\') FROM stream_ckpt.queries'),
		value('SELECT count(*) FROM t'), "$test: each row is counted once");
	return;
}

# first key groups of those who wrote what there is of a query, by its runs, and how many the offset says
sub writers
{
	my ($name) = @_;
	return value("SELECT string_agg(DISTINCT c.key_group::text, ',') || ' of ' || min(o.tasks)
		FROM stream_ckpt.query q JOIN stream_ckpt.state_run c USING (query_id) JOIN stream_ckpt.checkpoint_offset o USING (query_id)
		WHERE q.relid = '$name'::regclass");
}

insert_rows(200);
all_ok('four tasks');
is(value('SELECT count(*) FILTER (WHERE groups > 0) FROM stream_ckpt.tasks'), '4', 'all four have groups');
is(writers('one'), '0 of 1', 'one writer');
is(writers('two'), '0,64 of 2', 'two writers');
is(writers('four'), '0,32,64,96 of 4', 'four writers');
is(value(q(SELECT parallelism FROM stream_ckpt.queries WHERE query = 'two'::regclass)), '2', 'parallelism in the view');
is( value('SELECT acknowledged || \' of \' || tasks || \', \' || (slowest_task BETWEEN 0 AND 3) FROM stream_ckpt.checkpoints
		WHERE status = \'completed\' ORDER BY id DESC LIMIT 1'),
	'4 of 4, true', 'checkpoints say who has acknowledged');
is( value('SELECT string_agg(task::text, \',\' ORDER BY task) || \' \' || bool_and(start_delay_ms >= 0 AND sync_ms >= 0 AND async_ms >= 0)
		FROM stream_ckpt.checkpoint_tasks WHERE id = (SELECT max(id) FROM stream_ckpt.checkpoint_tasks)'),
	'0,1,2,3 true', 'what each task took');
is( value('SELECT count(*) FROM (SELECT c.id FROM stream_ckpt.checkpoints c JOIN stream_ckpt.checkpoint_tasks t USING (id)
		GROUP BY c.id, c.checkpointed_size HAVING sum(t.checkpointed_size) <> c.checkpointed_size) x'),
	'0', 'their bytes are those of the checkpoint');

# tasks that don't come to their barrier are missing
arm($node, 'task_before_snapshot', 'wait');
my $hanging = $node->background_psql('postgres');
$hanging->query_until(qr/start/, "\\echo start\nSELECT stream_ckpt.checkpoint();\n");
wait_reached($node, 'task_before_snapshot');
wait_until($node, q(SELECT acknowledged = 0 AND tasks = 4 AND slowest_task = 0 FROM stream_ckpt.checkpoints
	WHERE status = 'in progress'), 'none of four has acknowledged');
disarm($node, 'task_before_snapshot');
$hanging->quit;

#
# Rescaling: all chunks are those of the tasks there are
#
sub wait_tasks
{
	my ($n) = @_;
	return wait_until($node, "SELECT count(*) = $n FROM stream_ckpt.tasks", "there are $n tasks");
}

value("SELECT stream_ckpt.alter_query('$_', parallelism => 1)") for qw(two four text general);
value("SELECT stream_ckpt.alter_query('one', parallelism => 2)");
value("SELECT stream_ckpt.alter_pipeline('default', parallelism => 2)");
wait_tasks(2);
insert_rows(20);
all_ok('two tasks');
is(writers('one'), '0,64 of 2', 'from one to two');
is(writers('four'), '0 of 1', 'from four to one');
value("SELECT stream_ckpt.alter_query('$_', parallelism => 2)") for qw(four text general);
insert_rows(20);
wait_until($node, q(SELECT count(*) = 5 FROM stream_ckpt.checkpoint_offset WHERE tasks IN (1, 2)), 'they are written');
all_ok('and again');
value("SELECT stream_ckpt.alter_pipeline('default', parallelism => 6)");
value("SELECT stream_ckpt.alter_query('$_', parallelism => 5)") for qw(four text general);
wait_tasks(6);
insert_rows(20);
wait_until($node, q(SELECT o.tasks = 5 FROM stream_ckpt.checkpoint_offset o JOIN stream_ckpt.query q USING (query_id)
	WHERE q.relid = 'general'::regclass), 'five tasks have written');
all_ok('six tasks');
is(writers('four'), '0,102,25,51,76 of 5', 'five writers');
insert_rows(300);
all_ok('windows close in all tasks');
is(value(q(SELECT count(*) FROM stream_ckpt.state_run c JOIN stream_ckpt.query q USING (query_id)
		WHERE pane < (SELECT extract(epoch FROM max(ts) - timestamptz '2000-01-01 00:00 UTC' - interval '5 minutes') * 1000000 FROM t))),
	'0', 'their chunks are gone');

#
# Late rows and dead letters: once each
#
value("SELECT stream_ckpt.alter_pipeline('default', parallelism => 6)");
make_query('late', 4, key => 'k / v', where => 'v <> 7', options => 'keep_late_rows => true');
make_query('letters', 4, where => '100 / v > 0', sum => '100 / (v - 1)', options => "on_error => 'dead_letter'");
insert_rows(200);
sync_pipelines($node);
# v = 0: WHERE of "letters" fails, and the key of "late"; v = 1: the aggregate of "letters" does
is(value(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass)), '1', 'an error of the group: one letter');
$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '1 second', i, i % 3, 2
	FROM generate_series(0, 29) i");
sync_pipelines($node);
is(query_late_rows($node, 'late'), '30', 'late rows are counted once, also those whose key fails');
is(value(q(SELECT count(*) FROM stream_ckpt.late_rows WHERE query = 'late'::regclass)), '30', 'and kept once');
is(query_late_rows($node, 'letters'), '30', 'the same where WHERE fails');
$node->safe_psql('postgres', "INSERT INTO t SELECT (SELECT max(ts) FROM t), i, 0, 3 FROM generate_series(1, 10) i");
sync_others();
is(value(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass)), '11',
	'an error before the key is known: one letter, not four');
is(value(q(SELECT status || ' ' || failures FROM stream_ckpt.queries WHERE query = 'late'::regclass)), 'failed 1',
	'a key that fails: one failure');
value("SELECT stream_ckpt.drop_query('$_')") for qw(late letters);
$node->safe_psql('postgres', 'DELETE FROM t WHERE txn IN (2, 3)');
value("SELECT stream_ckpt.drop_query('$_')") for @all;

#
# A query's failure, pause and drop reach all its tasks
#
make_query('calm', 2);
make_query('nervous', 4, sum => 'fails_if_bad(v)', emit => 'update');
my $before = value('SELECT count(*) FROM t');
value('UPDATE switch SET bad = true');
$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-02 00:00 UTC', 5, 1, 4");
wait_until($node, q(SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'nervous'::regclass), 'it has failed');
is(counter($node, 'nervous', 'failures'), '1', 'by one row, in one task: one failure');
$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-02 00:00 UTC' + i * interval '1 second', i, 1, 4
	FROM generate_series(0, 99) i");
sync_others();
is(value('SELECT count(*) FROM nervous'), '0', 'no other task goes on with it');
is(counter($node, 'calm', 'rows_in'), '101', 'others go on');
value('UPDATE switch SET bad = false');
value("SELECT stream_ckpt.resume_query('nervous')");
my $rows = '(SELECT * FROM t WHERE txn = 4) t';
sub nervous_ok { return results_ok($node, 'nervous', $_[0], table => 't', emit => 'update', truth => select_of() =~ s/FROM t,/FROM $rows,/r); }
nervous_ok('resumed: all tasks have gone back');
value("SELECT stream_ckpt.pause_query('nervous')");
$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-02 00:02 UTC' + i * interval '1 second', i, 1, 4
	FROM generate_series(0, 99) i");
sync_pipelines($node);
is(value('SELECT sum(n) FROM nervous'), '101', 'paused in all tasks');
my $attempt = value('SELECT attempt FROM stream_ckpt.pipelines');
value("SELECT stream_ckpt.alter_query('nervous', parallelism => 3)");
insert_rows(1);
sync_pipelines($node);
is(value('SELECT attempt FROM stream_ckpt.pipelines'), $attempt, 'tasks that do not run it are not restarted for its sake');
value("SELECT stream_ckpt.resume_query('nervous')");
nervous_ok('resumed on fewer tasks');
value("SELECT stream_ckpt.drop_query('$_')") for qw(calm nervous);
# sync() waits for nothing where there is no query
wait_until($node, 'SELECT count(*) = 0 FROM stream_ckpt.state_run', 'they are dropped in all tasks');
pass('dropped in all tasks');

#
# At random
#
my @points = qw(
  task_after_rows reader_before_barrier reader_after_barrier task_before_snapshot
  task_after_snapshot task_part_sent coordinator_parts_collected coordinator_before_write
  coordinator_after_rows coordinator_before_record coordinator_before_commit
  coordinator_after_commit coordinator_after_ack reader_before_confirm reader_after_confirm
  task_before_restore
);
$node->safe_psql('postgres', 'TRUNCATE t');
sync_pipelines($node);
my %random = map {
	("r$_" => {
		emit => pick('close', 'update'),
		key => pick('k', 'k % 7', "'x' || k", 'k::numeric', 'k, v % 2 = 0'),
		sum => pick('v', 'v + k', 'fails_if_bad(v)'),
		where => pick('true', 'v % 3 <> 0', 'k < 40'),
		options => pick("on_error => 'stop'", "allowed_lateness => '3 minutes'", "on_error => 'dead_letter'") })
} 1 .. 5;
my $width = pick(1, 2, 4);

sub certainly
{
	my ($sql) = @_;

	for (1 .. 20)
	{
		my ($ret) = try_psql($node, $sql);
		return if $ret == 0;
		wait_up($node);
	}
	die "in vain: $sql";
}

sub random_select
{
	my ($query) = @_;
	return "SELECT w.window_start, w.window_end, $query->{key}, count(*) AS n, sum($query->{sum}) AS total
		FROM t, stream_ckpt.tumble(ts, '1 minute') w WHERE $query->{where} GROUP BY w.window_start, w.window_end, $query->{key}"
	  =~ s/\bk, v % 2 = 0, count/k, v % 2 = 0 AS even, count/r
	  =~ s/'x' \|\| k, count/'x' || k AS x, count/r;
}

sub resize
{
	$width = pick(1, 2, 4);
	note "$width tasks";
	certainly(join '', map { "SELECT stream_ckpt.alter_query('$_', parallelism => 1);" } sort keys %random);
	certainly("SELECT stream_ckpt.alter_pipeline('default', parallelism => $width)");
	return;
}

sub spread
{
	my ($name) = (pick(sort keys %random));
	my $n = pick(grep { $_ <= $width } 1, 2, 4);

	note "$name on $n";
	certainly("SELECT stream_ckpt.alter_query('$name', parallelism => $n)");
	return;
}

sub random_rows
{
	my ($n) = pick(1, 10, 300);

	certainly("INSERT INTO t SELECT timestamptz '2024-02-01 00:00 UTC' + ($second + i) * interval '1 second', (i * 7919) % 61, i, $second
		FROM generate_series(1, $n) i WHERE NOT EXISTS (SELECT FROM t WHERE txn = $second)");
	$second += $n;
	return;
}

sub trouble
{
	my ($point, $action, $n) = (pick(@points), pick(qw(error exit term kill)), pick(1, 1, 2, 5));

	note "trouble: $action at $point, time $n";
	arm($node, $point, $action, $n);
	return;
}

value("SELECT stream_ckpt.alter_pipeline('default', parallelism => $width)");
create_query($node, $_, 't', emit => $random{$_}{emit}, select => random_select($random{$_}), options => $random{$_}{options})
  for sort keys %random;
my @choices = (
	(\&random_rows) x 20, (\&resize) x 2, (\&spread) x 6, (\&trouble) x 4,
	(sub { certainly('UPDATE switch SET bad = ' . pick('true', 'false')) }) x 2,
	(sub { certainly("SELECT stream_ckpt.pause_query('" . pick(sort keys %random) . "')") }) x 2,
	(sub { certainly("SELECT stream_ckpt.resume_query('" . pick(sort keys %random) . "')") }) x 3,
	(sub { $node->stop('immediate'); $node->start; }) x 1,
	(sub { try_psql($node, "SELECT stream_ckpt.checkpoint(timeout => '300 ms')") }) x 5);

for my $round (1 .. $rounds)
{
	pick(@choices)->() for 1 .. 25;
	disarm($node, $_) for @points;
	certainly('UPDATE switch SET bad = false');
	for (1 .. 2)
	{
		wait_until($node, q(SELECT bool_and(status = 'running')
			FROM (SELECT stream_ckpt.resume_query(query), status FROM stream_ckpt.queries) x), 'all queries run');
		try_psql($node, 'SELECT stream_ckpt.sync()');
	}
	sync_pipelines($node);
	for my $name (sort keys %random)
	{
		# what became a dead letter doesn't count
		next if value("SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = '$name'::regclass") > 0;
		results_ok($node, $name, "round $round: $name", synced => 1, table => 't', delay => '1 minute', emit => $random{$name}{emit},
			truth => random_select($random{$name}));
		is(counter($node, $name, 'rows_in'), value('SELECT count(*) FROM t'), "round $round: each row once in $name");
	}
	is(value('SELECT sum(late_rows) FROM stream_ckpt.queries'), '0', "round $round: none late");
	last unless Test::More->builder->is_passing;
}

$node->stop;
done_testing();
