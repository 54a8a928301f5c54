# A query that begins with its stream's history is in nobody's way: beside others it does so in a pipeline that comes and
# goes, and then moves to its own.  Others' rows are in their results and writers commit while it reads, however long that
# takes; each row is counted once, whatever dies at whichever step, and without room for that pipeline it begins in its own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $node = new_node('main', "stream_ckpt.debug_lane_blocks = 0\n", draw => { tasks => [1] });
my $options = 'backfill => true';
my $minute = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub add_rows
{
	my ($n) = @_;

	$minute++;
	sql("INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + $minute * interval '1 minute' + i * interval '1 second', i % 20, i, $minute
		FROM generate_series(1, $n) i");
	return;
}

sub where { return sql("SELECT pipeline || coalesce('>' || target, '') FROM stream_ckpt.queries WHERE query = '$_[0]'::regclass"); }

sub wait_home
{
	my ($query, $pipeline) = @_;
	$pipeline //= 'default';
	return wait_until($node, "SELECT pipeline = '$pipeline' AND target IS NULL FROM stream_ckpt.queries WHERE query = '$query'::regclass",
		"$query is in $pipeline");
}

sub wait_no_lane
{
	my ($slots) = @_;
	$slots //= 1;
	wait_until($node, "SELECT count(*) = $slots FROM pg_replication_slots", 'its slot is gone');
	return;
}

sub exact
{
	my ($test, @queries) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node);
	results_ok($node, $_, "$test: $_", emit => 'update', synced => 1) for @queries;
	return;
}

sub nice_of
{
	my ($pid) = @_;
	my $stat = slurp_file("/proc/$pid/stat");
	$stat =~ s/^.*\) //s;
	return (split / /, $stat)[16];
}

sub reader_of { return sql("SELECT reader_pid FROM stream_ckpt.pipelines WHERE pipeline = '$_[0]'"); }

# Alone it begins where it is, and so do two at once.
create_stream_table($node, 't', delay => '1 day');
add_rows(3000);
sql('BEGIN; '
	  . join('', map { "SELECT stream_ckpt.create_query('$_', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k', $options); " } qw(first second))
	  . 'COMMIT');
exact('alone', qw(first second));
is(sql('SELECT string_agg(DISTINCT pipeline, \' \') FROM stream_ckpt.queries'), 'default', 'they begin in their pipeline');
is(sql('SELECT count(*) FROM stream_ckpt.pipeline'), '1', 'and there is no other one');
sql("SELECT stream_ckpt.drop_query('second')");

# The scan is held for ever
my $attempt = sql("SELECT attempt FROM stream_ckpt.pipelines WHERE pipeline = 'default'");
arm($node, 'history_in_scan', 'wait');
create_query($node, 'q', 't', emit => 'update', options => $options);
wait_reached($node, 'history_in_scan');
is(where('q'), 'backfill>default', 'beside another one it is in the lane');
like(counter($node, 'q', 'status || \' \' || backfill_phase'), qr/^backfilling reading (times|rows)$/, 'and says so');
my $writer = start_writer($node, "INSERT INTO t VALUES ('2024-01-01 05:00 UTC', 1, 1, 1);", clients => 2, transactions => 50);
ok(finish_writer($writer), 'writers commit');
add_rows(100);
my $position = sql('SELECT pg_current_wal_insert_lsn()');
is(sql("SELECT stream_ckpt.sync('60 seconds', 'first') IS NOT NULL"), 't', 'another query goes on');
results_ok($node, 'first', 'with the rows that came meanwhile', emit => 'update', synced => 1);
is(sql("SELECT stream_ckpt.checkpoint('default') > 0"), 't', 'its checkpoints complete');
add_rows(10);
ok(wait_until($node, "SELECT confirmed_flush_lsn > '$position' FROM stream_ckpt.pipelines WHERE pipeline = 'default'", 'its slot goes on'),
	'and hold no WAL');
is(sql("SELECT attempt FROM stream_ckpt.pipelines WHERE pipeline = 'default'"), $attempt, 'in the same attempt');
create_query($node, 'later', 't', emit => 'update', options => 'backfill => false');
is(sql("SELECT stream_ckpt.sync('60 seconds', 'later') IS NOT NULL"), 't', 'so does one that is created meanwhile');
sql("SELECT stream_ckpt.drop_query('later')");
is_refused($node, "SELECT stream_ckpt.sync('1 second')", qr/timed out while query "q" begins with the rows of "t"/,
	'sync() waits for it');
is_refused($node, "SELECT stream_ckpt.sync('1 second', 'q')", qr/timed out while query "q" begins with the rows of "t"/,
	'also by its name');
is(nice_of(reader_of('default')), 0, 'the others have the CPU');
is(nice_of(reader_of('backfill')), 10, 'before those of the lane');
is_refused($node, q(SELECT stream_ckpt.create_query('nobody', 'SELECT k, count(*) FROM t GROUP BY k', pipeline => 'backfill')),
	qr/pipeline "backfill" is only for queries that begin with the rows of their stream/, 'no query begins there for good');
is_refused($node, q(SELECT stream_ckpt.move_query('first', 'backfill')), qr/pipeline "backfill" is only for/, 'and none moves there');

# Two more wait for it, and begin together when it has left; one is dropped
create_query($node, $_, 't', emit => 'update', options => $options) for qw(q2 q3 q4);
wait_until($node, q(SELECT count(*) = 4 FROM stream_ckpt.queries WHERE pipeline = 'backfill'), 'all of them are there');
sql("SELECT stream_ckpt.drop_query('q4')");
disarm($node, 'history_in_scan');
exact('several', qw(first q q2 q3));
wait_home($_) for qw(q q2 q3);
wait_no_lane();
is(sql('SELECT string_agg(pipeline, \' \') FROM stream_ckpt.pipelines'), 'default', 'the lane is not to be seen without queries');
add_rows(100);
exact('at home', qw(first q q2 q3));
is(sql('SELECT count(*) FROM stream_ckpt.query_history'), '4', 'each of them had its history');
sql("SELECT stream_ckpt.drop_query('$_')") for qw(q2 q3);

# Dropped, paused, failed in the middle of it
arm($node, 'history_in_scan', 'wait');
create_query($node, 'q2', 't', emit => 'update', options => $options);
wait_reached($node, 'history_in_scan');
sql("SELECT stream_ckpt.drop_query('q2')");
disarm($node, 'history_in_scan');
wait_no_lane();
arm($node, 'history_in_scan', 'wait');
create_query($node, 'q2', 't', emit => 'update', options => $options);
wait_reached($node, 'history_in_scan');
sql("SELECT stream_ckpt.pause_query('q2')");
disarm($node, 'history_in_scan');
add_rows(50);
exact('one is paused', qw(first q));
sql("SELECT stream_ckpt.resume_query('q2')");
exact('and goes on', qw(first q q2));
wait_home('q2');
sql("SELECT stream_ckpt.drop_query('q2')");
arm($node, 'history_in_scan', 'error', 1);
create_query($node, 'q2', 't', emit => 'update', options => $options);
wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'q2'::regclass", 'it fails');
disarm($node, 'history_in_scan');
add_rows(50);
sql("SELECT stream_ckpt.sync('60 seconds', '$_')") for qw(first q);
results_ok($node, $_, "one has failed: $_", emit => 'update', synced => 1) for qw(first q);
sql("SELECT stream_ckpt.resume_query('q2')");
exact('and goes on', qw(first q q2));
wait_home('q2');
sql("SELECT stream_ckpt.drop_query('q2')");

# Home is stopped meanwhile: it stays in the lane, and what replaces it does so there
arm($node, 'history_in_scan', 'wait');
create_query($node, 'q2', 't', emit => 'update', options => $options);
wait_reached($node, 'history_in_scan');
sql("SELECT stream_ckpt.stop_pipeline('default')");
disarm($node, 'history_in_scan');
is(sql("SELECT stream_ckpt.sync('60 seconds', 'q2') IS NOT NULL"), 't', 'its home is stopped');
results_ok($node, 'q2', 'in the lane', emit => 'update', synced => 1);
is(where('q2'), 'backfill>default', 'it stays where it is');
add_rows(50);
sql("SELECT stream_ckpt.rebuild_query('q2')");
wait_until($node, q(SELECT count(*) = 1 FROM stream_ckpt.queries WHERE pipeline = 'backfill'), 'it is replaced there');
results_ok($node, 'q2', 'replaced', emit => 'update') if sql("SELECT stream_ckpt.sync('60 seconds', 'q2') IS NOT NULL");
sql("SELECT stream_ckpt.start_pipeline('default')");
wait_home('q2');
add_rows(50);
exact('home again', qw(first q q2));
wait_no_lane();
sql("SELECT stream_ckpt.drop_query('q2')");

# One that leaves the lane is to be replaced: what replaces it leaves in its place
arm($node, 'move_asked', 'wait');
create_query($node, 'q2', 't', emit => 'update', options => $options);
wait_reached($node, 'move_asked');
sql("SELECT stream_ckpt.rebuild_query('q2')");
disarm($node, 'move_asked');
wait_until($node, q(SELECT count(*) = 0 FROM stream_ckpt.query WHERE replaces IS NOT NULL), 'it is replaced');
wait_home('q2');
add_rows(50);
exact('replaced on its way', qw(first q q2));
wait_no_lane();
sql("SELECT stream_ckpt.drop_query('q2')");

# Somebody moves it elsewhere while it reads
sql("SELECT stream_ckpt.create_pipeline('elsewhere')");
arm($node, 'history_in_scan', 'wait');
create_query($node, 'q2', 't', emit => 'update', options => $options);
wait_reached($node, 'history_in_scan');
sql("SELECT stream_ckpt.move_query('q2', 'elsewhere')");
disarm($node, 'history_in_scan');
wait_home('q2', 'elsewhere');
add_rows(50);
exact('elsewhere', qw(first q q2));
sql("SELECT stream_ckpt.drop_query('q2')");
wait_no_lane();
sql("SELECT stream_ckpt.drop_pipeline('elsewhere')");

# Each step, with each of the deaths, with rows before and behind it
for my $way (
	map({ [ $_, 'kill' ] } qw(lane_before_slot lane_after_slot lane_before_commit lane_after_commit history_begins history_in_scan
		  history_after_scan coordinator_after_rows move_asked move_expected move_held move_leaving move_written move_committed move_arrived)),
	map({ [ $_, 'term' ] } qw(lane_before_slot lane_after_slot lane_before_commit lane_after_commit history_in_scan move_written)),
	[ 'lane_after_slot', 'error' ], [ 'lane_before_commit', 'error' ],
	map({ [ $_, 'immediate' ] } qw(lane_after_slot lane_before_commit lane_after_commit history_after_scan move_committed)))
{
	my ($point, $how) = @$way;
	my $test = "$how at $point";

	note $test;
	arm($node, $point, $how eq 'immediate' ? 'wait' : $how, 1);
	# the server may die before it has answered
	eval { create_query($node, 'k', 't', emit => 'update', options => $options); 1 } or note $@;
	try_psql($node, "INSERT INTO t SELECT '2024-01-01 06:00 UTC', i, i, 1 FROM generate_series(1, 10) i");
	ok(eval { wait_reached($node, $point); 1 }, "$test: reached");
	if ($how eq 'immediate')
	{
		$node->stop('immediate');
		disarm($node, $point);
		$node->start;
	}
	disarm($node, $point);
	wait_up($node);
	is(sql("SELECT to_regclass('k') IS NOT NULL"), 't', "$test: the query is there");
	add_rows(30);
	exact($test, qw(first q k));
	wait_home('k');
	add_rows(30);
	exact("$test, at home", qw(first q k));
	wait_no_lane();
	sql("SELECT stream_ckpt.drop_query('k')");
}

# The lane doesn't run: the query is taken back
for my $how (qw(wait kill))
{
	arm($node, 'lane_taken_back', $how, 1);
	arm($node, 'history_begins', 'wait');
	create_query($node, 'q2', 't', emit => 'update', options => $options);
	wait_reached($node, 'history_begins');
	sql("SELECT stream_ckpt.stop_pipeline('backfill')");
	wait_reached($node, 'lane_taken_back');
	disarm($node, $_) for qw(lane_taken_back history_begins);
	wait_up($node);
	wait_home('q2');
	add_rows(50);
	exact("taken back ($how)", qw(first q q2));
	wait_no_lane();
	sql("SELECT stream_ckpt.drop_query('q2')");
	sql("SELECT stream_ckpt.start_pipeline('backfill')");
}

# The same, when its coordinator has all of the history, and nothing knows that it is there: it commits nothing any more
my $log = -s $node->logfile;
arm($node, 'lane_parts_collected', 'wait');
create_query($node, 'q2', 't', emit => 'update', options => $options);
wait_reached($node, 'lane_parts_collected');
kill 'TERM', reader_of('backfill');
wait_home('q2');
disarm($node, 'lane_parts_collected');
ok($node->wait_for_log(qr/attempt \d+ of pipeline \d+ is over/, $log), 'the lane commits nothing any more');
add_rows(50);
exact('taken back from one that runs', qw(first q q2));
wait_no_lane();
sql("SELECT stream_ckpt.drop_query('q2')");

# It is stopped before: then nothing goes there
sql("SELECT stream_ckpt.stop_pipeline('backfill')");
create_query($node, 'q2', 't', emit => 'update', options => $options);
exact('in its own pipeline', qw(first q q2));
is(where('q2'), 'default', 'in its own pipeline');
sql("SELECT stream_ckpt.drop_query('q2')");
sql("SELECT stream_ckpt.start_pipeline('backfill')");
$node->stop;

# No room: each of what it takes is missing once; and a name that is taken
my $small = new_node('small', "stream_ckpt.debug_lane_blocks = 0\nmax_replication_slots = 1\nmax_worker_processes = 8\nmax_logical_replication_workers = 4\n");
$node = $small;
create_stream_table($node, 't', delay => '1 day');
sql("SELECT stream_ckpt.create_pipeline('backfill')");
create_query($node, 'first', 't', emit => 'update');
add_rows(300);
my $n = 0;
for my $change ('', 'max_replication_slots = 3; max_worker_processes = 7', 'max_worker_processes = 8; stream_ckpt.max_pipelines = 1')
{
	sql("ALTER SYSTEM SET $_") for split /; /, $change;
	$node->restart;
	arm($node, 'history_after_scan', 'wait');
	create_query($node, 'q' . ++$n, 't', emit => 'update', options => $options);
	wait_reached($node, 'history_after_scan');
	is(where("q$n"), 'default', 'no room: ' . ($change || 'one slot'));
	is(sql('SELECT count(*) FROM stream_ckpt.pipeline WHERE lane'), '0', 'and no lane was made');
	disarm($node, 'history_after_scan');
	exact("no room, $n", 'first', "q$n");
}
sql('ALTER SYSTEM SET stream_ckpt.max_pipelines = 2');
$node->restart;
arm($node, 'history_after_scan', 'wait');
create_query($node, 'q4', 't', emit => 'update', options => $options);
wait_reached($node, 'history_after_scan');
is(where('q4'), 'backfill_2>default', 'there is room, and another name');
disarm($node, 'history_after_scan');
wait_home('q4');
exact('with room', qw(first q4));

# A small table isn't worth it
sql('ALTER SYSTEM SET stream_ckpt.debug_lane_blocks = 100');
$node->reload;
arm($node, 'history_after_scan', 'wait');
create_query($node, 'q5', 't', emit => 'update', options => $options);
wait_reached($node, 'history_after_scan');
is(where('q5'), 'default', 'it is read where the query is');
disarm($node, 'history_after_scan');
exact('a small table', qw(first q5));

$node->stop;
done_testing();
