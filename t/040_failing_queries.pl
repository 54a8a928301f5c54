# An error in one query concerns it alone: in its expressions, its aggregates, its result
# table.  The others go on; the error, its row and a hint are in the view; nothing is lost;
# and the query can be resumed, paused, or dropped while it fails.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.result_lock_timeout = 200ms\nstream_ckpt.debug_retry_second = 50ms\n", draw => { memory => [ 0 ] });
create_stream_table($node, 't');
create_query($node, 'good', 't', emit => 'update');
wait_running($node);

my $n = 0;

# Rows of one transaction: values of v, a second of event time each.
sub rows
{
	my @values = @_;
	my $list = join ', ',
	  map { $n++; "(timestamptz '2024-01-01 00:00 UTC' + $n * interval '1 second', $n % 3, $_, $n)" } @values;

	$node->safe_psql('postgres', "INSERT INTO t VALUES $list");
	return;
}

sub status_is
{
	my ($query, $status) = @_;
	return wait_until($node,
		"SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$query'::regclass",
		"$query is $status");
}

sub sync_ok
{
	my ($ret, $stdout, $stderr) = try_psql($node, "SELECT stream_ckpt.sync('60 seconds') IS NOT NULL");
	ok($ret == 0 && $stdout eq 't', 'sync() succeeds: ' . (shift // ''));
	return $stderr;
}

sub good_ok
{
	results_ok($node, 'good', "the other query goes on: $_[0]", emit => 'update', synced => 1);
	return;
}

# The query "bad" over the rows to come.
my ($select, $begin);

sub create_bad
{
	($select, $begin) = ($_[0], $n);
	create_query($node, 'bad', 't', emit => 'update', select => $select, tasks => $select =~ /long_key|key_type|length/ ? 1 : undef);
	return;
}

# Its result equals its definition over the rows that came after it.
sub exact
{
	my $truth = $select =~ s/\bFROM t,/FROM (SELECT * FROM t WHERE txn > $begin) t,/r;

	results_ok($node, 'bad', "exact: $_[0]", emit => 'update', synced => 1, truth => $truth);
	return;
}

# Fails with some rows; stands with the error; goes on, exactly, once the reason is gone.
sub failing
{
	my ($what, %opt) = @_;

	create_bad($opt{select});
	$node->safe_psql('postgres', $opt{before}) if $opt{before};
	rows(1, 2);
	rows(@{ $opt{poison} });
	status_is('bad', 'failed');
	rows(3);
	my $stderr = sync_ok($what);
	like($stderr, qr/query "bad" has failed/, "$what: sync() warns");
	good_ok($what);
	like(counter($node, 'bad', "concat_ws('|', sqlstate, message, hint, detail)"), $opt{error}, "$what: the error");
	is(counter($node, 'bad', 'row_ordinal'), $opt{ordinal} // '', "$what: the row's place");

	# it stands through restarts, and holds the WAL
	my $pid = pid_of($node, 'task');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_restarted($node, 'task', $pid);
	rows(4);
	sync_ok("$what, after a restart");
	good_ok("$what, after a restart");
	is(counter($node, 'bad', 'status'), 'failed', "$what: it stands after a restart");
	is( $node->safe_psql('postgres',
			q(SELECT confirmed_flush_lsn <= (SELECT lsn FROM stream_ckpt.queries WHERE query = 'bad'::regclass)
			  FROM stream_ckpt.pipelines)),
		't', "$what: the slot waits for it");

	if ($opt{mend})
	{
		$node->safe_psql('postgres', $opt{mend});
		$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
		wait_until($node, "SELECT status = 'running' FROM stream_ckpt.queries WHERE query = 'bad'::regclass",
			'bad runs again');
		sync_ok("$what, mended");
		exact("$what, after resume_query()");
		good_ok("$what, mended");
		is(counter($node, 'bad', "sqlstate IS NULL"), 't', "$what: the error is gone from the view");
	}
	$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('bad')");
	rows(5);
	sync_ok("$what, dropped");
	good_ok("$what, dropped");
	return;
}

my $from = "FROM t, stream_ckpt.tumble(ts, '1 minute') w";
my $group = 'GROUP BY w.window_start, w.window_end, k';
my $columns = 'w.window_start, w.window_end, k';

failing('division by zero in an argument',
	select => "SELECT $columns, sum(100 / v) AS s $from $group",
	poison => [ 5, 0, 6 ], ordinal => 2,
	error => qr/^22012\|division by zero/);
failing('a bad cast in WHERE',
	select => "SELECT $columns, count(*) AS c $from WHERE ('x' || v)::text <> 'x7' OR ('x' || v)::int > 0 $group",
	poison => [ 7 ], ordinal => 1,
	error => qr/^22P02\|/);
failing('an overflow in a transition function',
	select => "SELECT $columns, sum(v::int8 * 4000000000000000000 / 2 * 2 + (v::int8 * 0)) AS s, sum(v::float8 * 1e308) AS f $from $group",
	poison => [ 1000000000, 1000000000 ], ordinal => 2,
	error => qr/^22003\|/);

# an error in a final function: evaluated when the result row is made
$node->safe_psql('postgres', q(
	CREATE FUNCTION final_f(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT 10 / ($1 - 9999)';
	CREATE AGGREGATE strange_sum(int8) (SFUNC = int8pl, STYPE = int8, FINALFUNC = final_f, INITCOND = '0')));
failing('an error in a final function',
	select => "SELECT w.window_start, w.window_end, strange_sum(v) FILTER (WHERE v = 9999) AS s $from GROUP BY w.window_start, w.window_end",
	poison => [ 9999 ],
	error => qr/^22012\|division by zero/,
	mend => q(CREATE OR REPLACE FUNCTION final_f(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1'));

my $simple = "SELECT $columns, max(v) AS m $from $group";
failing('a violated constraint of the result table',
	select => $simple,
	before => 'ALTER TABLE bad ADD CONSTRAINT small CHECK (m < 100)',
	poison => [ 100 ],
	error => qr/^23514\|.*violates check constraint "small"/,
	mend => 'ALTER TABLE bad DROP CONSTRAINT small');
failing('a raising trigger on the result table',
	select => $simple,
	before => q(CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN IF NEW.m > 200 THEN RAISE EXCEPTION ''not this one'' USING HINT = ''take another''; END IF; RETURN NEW; END';
		CREATE TRIGGER no BEFORE INSERT OR UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION no()),
	poison => [ 201 ],
	error => qr/^P0001\|not this one\|take another/,
	mend => 'DROP TRIGGER no ON bad');
$node->safe_psql('postgres', 'DROP FUNCTION no');
# random digits don't compress into a page
$node->safe_psql('postgres', q(CREATE FUNCTION long_key(int) RETURNS text LANGUAGE sql IMMUTABLE AS
	$$ SELECT string_agg(md5(($1 * i)::text), '') FROM generate_series(1, CASE WHEN $1 = 300 THEN 300 ELSE 1 END) i $$));
failing('a key too long for its index',
	select => "SELECT w.window_start, w.window_end, long_key(v) AS key, max(v) AS m $from GROUP BY w.window_start, w.window_end, long_key(v)",
	poison => [300],
	error => qr/^54000\|index row/);
failing('an altered result table',
	select => $simple,
	before => 'ALTER TABLE bad ALTER COLUMN m TYPE text',
	poison => [ 1 ],
	error => qr/^42804\|result table "bad" no longer has the columns of its continuous query/,
	mend => 'ALTER TABLE bad ALTER COLUMN m TYPE int USING m::int');

#
# A lock on a result table: its part waits, the others commit, nothing is lost.  From here on a query must not
# have been tried five times before anybody looks.
#
$node->append_conf('postgresql.conf', 'stream_ckpt.debug_retry_second = 1s');
$node->reload;
create_bad($simple);
rows(1);
sync_ok('before the lock');
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE bad IN ACCESS EXCLUSIVE MODE');
rows(2);
status_is('bad', 'waiting');
like(counter($node, 'bad', "concat_ws('|', sqlstate, message)"), qr/^55P03\|/, 'the reason is in the view');
rows(3);
wait_until($node, "SELECT good.lsn > bad.lsn AND good.rows_in = (SELECT count(*) FROM t)
	FROM stream_ckpt.queries good, stream_ckpt.queries bad
	WHERE good.query = 'good'::regclass AND bad.query = 'bad'::regclass", 'the other query goes on');
good_ok('while a result table is locked');
$locker->query_safe('COMMIT');
$locker->quit;
rows(4);
sync_ok('after the lock');
status_is('bad', 'running');
exact('what waited is written exactly');
good_ok('after the lock');

# the same, and everything dies while it waits
$locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE bad IN ACCESS EXCLUSIVE MODE');
rows(5);
status_is('bad', 'waiting');
for my $which (qw(task coordinator))
{
	my $pid = pid_of($node, $which);
	kill 'TERM', $pid;
	wait_restarted($node, $which, $pid);
	rows(6);
}
$locker->query_safe('COMMIT');
$locker->quit;
sync_ok('after the restarts');
exact('exact after restarts while it waited');
good_ok('after the restarts');

#
# Time limits: a trigger that never ends
#
$node->append_conf('postgresql.conf', "stream_ckpt.query_time_limit = '200ms'");
$node->reload;
$node->safe_psql('postgres', q(CREATE FUNCTION forever() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN WHILE NEW.m = 400 LOOP END LOOP; RETURN NEW; END';
	CREATE TRIGGER forever BEFORE INSERT OR UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION forever()));
rows(400);
status_is('bad', 'waiting');
like(counter($node, 'bad', "concat_ws('|', message, hint)"), qr/query_time_limit.*Make its expressions or triggers faster/, 'the limit is named');
rows(7);
wait_until($node, "SELECT rows_in = (SELECT count(*) FROM t) FROM stream_ckpt.queries WHERE query = 'good'::regclass",
	'the other query goes on');
good_ok('while a trigger never ends');
$node->safe_psql('postgres', 'DROP TRIGGER forever ON bad');
sync_ok('without the trigger');
exact('exact without the trigger');
$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('bad')");

# an expression that never ends: it calls itself immutable, but isn't quick
$node->safe_psql('postgres', q(CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	'BEGIN WHILE $1 = 500 LOOP END LOOP; RETURN $1; END'));
create_bad("SELECT $columns, max(slow(v)) AS m $from $group");
rows(8);
rows(500);
status_is('bad', 'retrying');
rows(9);
sync_ok('while an expression never ends');
good_ok('while an expression never ends');
$node->safe_psql('postgres', q(CREATE OR REPLACE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'));
status_is('bad', 'running');
sync_ok('the expression ends');
exact('exact after it was tried again by itself');
$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('bad')");

# many groups, each quick: emitting them is long work, but no longer than 0.1 ms for each is
my $a_little = 'CREATE OR REPLACE FUNCTION a_little(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS';
$node->safe_psql('postgres', qq($a_little 'DECLARE until timestamptz := clock_timestamp() + interval ''0.5 ms'';
	BEGIN WHILE clock_timestamp() < until LOOP END LOOP; RETURN \$1; END'));
create_bad("SELECT w.window_start, w.window_end, v, a_little(count(*)) AS c $from GROUP BY w.window_start, w.window_end, v");
rows(8);
status_is('bad', 'running');
$n++;
$node->safe_psql('postgres', "INSERT INTO t SELECT m.ts, 1, i, $n FROM (SELECT max(ts) AS ts FROM t) m, generate_series(1000, 40000) i");
status_is('bad', 'retrying');
like(counter($node, 'bad', 'message'), qr/query_time_limit/, 'many groups: the limit is named');
sync_ok('while emitting takes too long');
good_ok('while emitting takes too long');
$node->safe_psql('postgres', "$a_little 'BEGIN RETURN \$1; END'");
status_is('bad', 'running');
sync_ok('emitting is quick');
exact('exact after many groups');

#
# Pause and resume
#
for my $kill (0, 1)
{
	$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad')");
	is(counter($node, 'bad', 'status'), 'paused', 'a paused query says so');
	rows(10, 11, 12);
	sync_ok('while a query is paused');
	good_ok('while another query is paused');
	my $before = counter($node, 'bad', 'rows_in');
	if ($kill)
	{
		my $pid = pid_of($node, 'reader');
		kill 'TERM', $pid;
		wait_restarted($node, 'reader', $pid);
		$node->stop('immediate');
		$node->start;
	}
	rows(13);
	sync_ok('while a query is paused, again');
	is(counter($node, 'bad', 'rows_in'), $before, 'it takes no rows');
	$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
	status_is('bad', 'running');
	sync_ok('resumed');
	exact('exact after resume_query()');
	good_ok('resumed');
}
$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad'); SELECT stream_ckpt.resume_query('bad')");
rows(14);
sync_ok('paused and resumed at once');
status_is('bad', 'running');
exact('exact after that');

# Paused twice between two barriers: what came in between is there.
arm($node, 'coordinator_before_commit', 'wait');
rows(15);
wait_reached($node, 'coordinator_before_commit');
$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad')");
rows(16, 17);
$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad')");
rows(18);
$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
disarm($node, 'coordinator_before_commit');
sync_ok('paused twice');
exact('exact after two pauses');

#
# Memory: a query whose state is past the bound goes on, with its groups in tables
#
$node->append_conf('postgresql.conf', "stream_ckpt.task_memory = '16MB'");
$node->reload;
$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('bad')");
create_bad("SELECT w.window_start, w.window_end, txn AS k, string_agg(repeat(md5(v::text), 20), '') AS m $from GROUP BY w.window_start, w.window_end, txn");
$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + interval '$n seconds', 1, i, i FROM generate_series(100001, 150000) i");
sync_ok('state in tables');
status_is('bad', 'running');
exact('state in tables');
good_ok('state in tables');

# One whose keys' equality can change can't be kept there: it stands, the others go on
$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('bad'); CREATE TYPE key_type AS (n int)");
create_bad("SELECT w.window_start, w.window_end, ROW(txn)::key_type AS k, string_agg(repeat(md5(v::text), 20), '') AS m $from WHERE v > 150000 GROUP BY w.window_start, w.window_end, ROW(txn)::key_type");
$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + interval '$n seconds', 1, i, i FROM generate_series(150001, 200000) i");
status_is('bad', 'failed');
sync_ok('past the memory bound');
good_ok('past the memory bound');
like(counter($node, 'bad', "concat_ws('|', sqlstate, message, hint)"), qr/^54000\|the state of the query takes \d+ MB.*Increase "stream_ckpt.task_memory"/, 'the bound is named');
$node->append_conf('postgresql.conf', "stream_ckpt.task_memory = '1GB'");
$node->reload;
$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
status_is('bad', 'running');
sync_ok('with more memory');
exact('with more memory');

# A group that is larger than memory by itself can't be read for each of its rows.  Seen inside a message: each of some
# thousand small rows makes 90 kB of state.
SKIP:
{
	skip 'needs /proc', 2 unless -r "/proc/$$/status";
	# hundreds of MB take a while on a busy machine
	$node->append_conf('postgresql.conf', "stream_ckpt.query_time_limit = '10min'\nstream_ckpt.query_share = 0");
	$node->append_conf('postgresql.conf', "stream_ckpt.task_memory = '16MB'");
	for my $case ([ string_agg => "string_agg(repeat('x', v), '')", 90000 ], [ array_agg => "array_agg(repeat('x', v))", 90001 ])
	{
		my ($what, $aggregate, $v) = @$case;

		$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('bad')");
		create_bad("SELECT w.window_start, w.window_end, k, length((${aggregate})::text) AS m $from WHERE v = $v GROUP BY w.window_start, w.window_end, k");
		$node->restart;
		sync_ok("before $what");
		my $task = pid_of($node, 'task');
		my $before = memory_of($task)->{VmHWM};
		$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + interval '$n seconds', 1, $v, i FROM generate_series(200001, 203000) i");
		status_is('bad', 'failed');
		cmp_ok(memory_of($task)->{VmHWM} - $before, '<', 200 * 1024, "the bound holds inside a message: $what");
		like(counter($node, 'bad', 'message'), qr/^one group of the query, with its neighbours, takes/, "and is what fails: $what");
		sync_ok("$what, past the bound in a message");
		good_ok("$what, past the bound in a message");
	}
	# its result is a text of 300 MB
	$node->append_conf('postgresql.conf', "stream_ckpt.task_memory = '1GB'\nstream_ckpt.query_time_limit = '1min'\nstream_ckpt.query_share = 0");
	$node->reload;
	$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
	status_is('bad', 'running');
	sync_ok('with more memory again');
	exact('with more memory again');
	$node->append_conf('postgresql.conf', "stream_ckpt.query_time_limit = '200ms'\nstream_ckpt.query_share = '500ms'");
	$node->reload;
}
$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('bad')");
create_bad("SELECT $columns, max(slow(v)) AS m $from $group");

# dropped while paused
$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad')");
rows(15);
$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('bad')");
rows(16);
sync_ok('a paused query was dropped');
good_ok('a paused query was dropped');
wait_until($node, q(SELECT confirmed_flush_lsn > committed_lsn - 1000 FROM stream_ckpt.pipelines), 'the slot follows');
is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM stream_ckpt.query_failure) + (SELECT count(DISTINCT query_id) FROM stream_ckpt.checkpoint_offset)'),
	'1', 'nothing is left of the dropped queries');

done_testing();
