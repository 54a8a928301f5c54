# Settings that are too small or wrong: what a user sees of each (status, message and hint, or the
# error), that nothing restarts in a loop meanwhile, and that all goes on once it is corrected.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
create_stream_table($node, 't');
create_query($node, 'closed', 't');
wait_running($node);

my $hours = 0;

# Restarts with other settings; returns where the log was.
sub restart_with
{
	my ($conf) = @_;

	$node->stop;
	my $offset = -s $node->logfile;
	$node->append_conf('postgresql.conf', $conf);
	$node->start;
	return $offset;
}

sub log_since { return substr(slurp_file($node->logfile), $_[0]); }

sub fails_like
{
	my ($sql, $error, $test) = @_;
	my ($ret, $stdout, $stderr);

	# a pipeline that is tried again has no reason to tell while it starts
	for (1 .. 30)
	{
		($ret, $stdout, $stderr) = $node->psql('postgres', $sql);
		last unless $stderr =~ /The pipeline is starting\./;
	}
	isnt($ret, 0, "$test: an error");
	like($stderr, $error, "$test: its words");
	return;
}

# Status, message and hint, once the message matches.
sub status_is
{
	my ($status, $message, $hint, $test) = @_;

	my $seen = '';

	# the next attempt forgets them for a moment
	while ($seen eq '')
	{
		wait_until($node,
			"SELECT status = '$status' AND message ~ '$message' FROM stream_ckpt.pipelines",
			"$test: status $status");
		$seen = $node->safe_psql('postgres',
			"SELECT 'hint: ' || coalesce(hint, '') FROM stream_ckpt.pipelines WHERE status = '$status' AND message ~ '$message'");
	}
	$seen =~ s/^hint: //;
	like($seen, $hint, "$test: hint");
	return;
}

# Rows that came while nothing ran are in the results once something does.
sub goes_on
{
	my ($test) = @_;

	wait_running($node);
	insert_hour($node, $hours++);
	results_ok($node, 'closed', "$test: nothing is missing", table => 't');
	is($node->safe_psql('postgres', q(SELECT stream_ckpt.verify('closed'))),
		'0', "$test: verified");
	return;
}

insert_hour($node, $hours++);
goes_on('before');

#
# max_worker_processes: no room for our launcher at all, for the coordinator, for a task, for
# the reader.  PostgreSQL's own launcher of logical replication takes one.
#
restart_with('max_worker_processes = 1');
insert_hour($node, $hours++);
status_is('starting', 'launcher of stream_ckpt is not running',
	qr/increase "max_worker_processes"/, 'no room for the launcher');
fails_like(q(SELECT stream_ckpt.sync('200 ms')),
	qr/sync\(\) of pipeline "default" timed out.*launcher of stream_ckpt is not running.*increase "max_worker_processes"/s,
	'sync() without a launcher');

for my $case ([ 2, 'coordinator' ], [ 3, 'task' ], [ 4, 'reader' ])
{
	my ($n, $missing) = @$case;
	my $offset = restart_with("max_worker_processes = $n");

	insert_hour($node, $hours++);
	status_is(
		'restarting',
		"no background worker is free for the pipeline''s $missing",
		qr/Increase "max_worker_processes"/,
		"no room for the $missing");
	fails_like(
		q(SELECT stream_ckpt.sync('200 ms')),
		qr/timed out.*no background worker is free/s,
		"sync() without the $missing");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_ckpt.tasks'),
		'0', 'no task is left alone');

	# attempts come at growing intervals: after four of them at least 1 + 2 + 4 seconds have passed
	if ($missing eq 'task')
	{
		wait_until($node, 'SELECT failures >= 4 FROM stream_ckpt.pipelines',
			'four attempts have failed');
		my @at = log_since($offset) =~
		  /^(\S+ \S+) UTC \[\d+\] stream_ckpt coordinator ERROR:  no background worker/mg;
		cmp_ok(@at, '<=', 5, 'no more attempts than that');
		my $seconds = $node->safe_psql('postgres',
			"SELECT extract(epoch FROM timestamp '$at[3]' - timestamp '$at[0]')");
		cmp_ok($seconds, '>', 6.5, 'at growing intervals');
	}
}
restart_with('max_worker_processes = 5');
goes_on('with just enough workers');
restart_with('max_worker_processes = 32');

#
# max_replication_slots
#
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other',
	'CREATE EXTENSION stream_ckpt; CREATE TABLE t (ts timestamptz, k int)');
restart_with('max_replication_slots = 1');
my ($ret, $stdout, $stderr) = $node->psql('other',
	q(SELECT stream_ckpt.attach_stream('t', event_time => 'ts')));
isnt($ret, 0, 'no free slot: an error');
like( $stderr,
	qr/all replication slots are in use.*HINT:  .*"?max_replication_slots"?/s,
	'no free slot: its words');
is( $node->safe_psql(
		'other',
		'SELECT status, (SELECT count(*) FROM stream_ckpt.streams) FROM stream_ckpt.pipelines'
	),
	'idle|0',
	'nothing of the attempt is left');
goes_on('another pipeline meanwhile');
restart_with('max_replication_slots = 2');
is( $node->safe_psql('other',
		q(SELECT stream_ckpt.attach_stream('t', event_time => 'ts'))),
	'', 'it works with one more slot');

#
# stream_ckpt.max_pipelines: the one that finds no place says so, and its slot still protects its
# database.
#
$node->safe_psql('other',
	q(SELECT stream_ckpt.create_query('q', 'SELECT w.window_start, count(*) FROM t, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY 1'))
);
sync_pipelines($node, 'other');
restart_with('stream_ckpt.max_pipelines = 1');
goes_on('the one that has a place');
is( $node->safe_psql(
		'other', 'SELECT status, message, hint FROM stream_ckpt.pipelines'),
	'starting|there is no place for the pipeline|Increase "stream_ckpt.max_pipelines" and restart the server. '
	  . 'Lost and stopped pipelines take a place, too.',
	'no place: status, message, hint');
like($node->safe_psql('other', 'SELECT hint FROM stream_ckpt.queries'),
	qr/^Increase "stream_ckpt.max_pipelines"/, 'no place: the hint is the query\'s, too');
my ($created, undef, $words) = $node->psql('other',
	q(SELECT stream_ckpt.create_query('q2', 'SELECT w.window_start, count(*) FROM t, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY 1')));
is($created, 0, 'no place: a query can be created');
like($words,
	qr/WARNING:  the query does not run: there is no place for pipeline "default"\nDETAIL:  The WAL is kept for it.\nHINT:  Increase "stream_ckpt.max_pipelines"/,
	'no place: create_query() says so');
$node->safe_psql('other', q(SELECT stream_ckpt.drop_query('q2')));
my $dir = PostgreSQL::Test::Utils::tempdir_short();
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$dir'");
($ret, $stdout, $stderr) =
  $node->psql('postgres', 'ALTER DATABASE other SET TABLESPACE elsewhere');
like($stderr, qr/cannot move database "other" to another tablespace/,
	'no place: the database is not moved away from its WAL');
$node->safe_psql('other',
	q(INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 1), ('2024-01-01 00:01 UTC', 1)));
restart_with('stream_ckpt.max_pipelines = 2');
sync_pipelines($node, 'other');
is( $node->safe_psql('other', q(SELECT count, stream_ckpt.verify('q') FROM q)),
	'1|0', 'with a place for it, nothing is missing');
$node->safe_psql('postgres', 'DROP DATABASE other');

#
# Not preloaded: PostgreSQL starts, keeps the slot, and we say what is missing.
#
restart_with("shared_preload_libraries = ''");
insert_hour($node, $hours++);
status_is('stopped', 'stream_ckpt must be preloaded',
	qr/Add it to "shared_preload_libraries" and restart/, 'not preloaded');
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION stream_ckpt');
is( $node->safe_psql('fresh', 'SELECT status, message, hint FROM stream_ckpt.pipelines'),
	'idle|stream_ckpt must be preloaded|Add it to "shared_preload_libraries" and restart the server.',
	'not preloaded: said before there is a query');
$node->safe_psql('postgres', 'DROP DATABASE fresh');
for my $sql (
	q(SELECT stream_ckpt.sync()),
	q(SELECT stream_ckpt.checkpoint()),
	q(SELECT stream_ckpt.attach_stream('u', event_time => 'ts')),
	q(SELECT stream_ckpt.create_query('q', 'SELECT w.window_start, count(*) FROM t, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY 1'))
  )
{
	$node->safe_psql('postgres',
		'CREATE TABLE IF NOT EXISTS u (ts timestamptz)');
	fails_like(
		$sql,
		qr/ERROR:  stream_ckpt must be preloaded.*HINT:  Add it to "shared_preload_libraries" and restart the server/s,
		"not preloaded: $sql");
}
is( $node->safe_psql(
		'postgres',
		q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt%')
	),
	'0',
	'nothing of ours runs');
my $drop = 'BEGIN; DROP EXTENSION stream_ckpt CASCADE; ROLLBACK';
($ret, $stdout, $stderr) = $node->psql('postgres', $drop);
like(
	$stderr,
	qr/WARNING:  replication slot "(stream_ckpt_\d+_1)" stays and keeps WAL, because stream_ckpt is not preloaded\nHINT:  Drop it with SELECT pg_drop_replication_slot\('\1'\)/,
	'not preloaded: DROP EXTENSION in a new session says what it leaves');
restart_with("shared_preload_libraries = 'stream_ckpt'");
goes_on('preloaded again');
($ret, $stdout, $stderr) = $node->psql('postgres', $drop);
unlike($stderr, qr/WARNING/, 'preloaded: nothing is left');

#
# wal_level: a server with a logical slot doesn't start without it, and says so itself; without a
# slot we do.  19 can do with "replica": it decodes while there is a logical slot.
#
my $as_needed = $node->safe_psql('postgres', 'SHOW server_version_num') >= 190000;
my ($too_low, $wanted) =
  $as_needed ? ("wal_level = minimal\nmax_wal_senders = 0\n", 'replica') : ("wal_level = replica\n", 'logical');
my $logical = "wal_level = logical\nmax_wal_senders = 10\n";
$node->stop;
$node->append_conf('postgresql.conf', $too_low);
is($node->start(fail_ok => 1), 0, 'wal_level too low, with a slot: no start');
like(slurp_file($node->logfile),
	qr/logical replication slot "stream_ckpt_\d+_1" exists, but "?wal_level"? < "?$wanted"?/,
	'and why');
$node->append_conf('postgresql.conf', $logical);
$node->start;
goes_on('wal_level = logical again');
if ($as_needed)
{
	restart_with("wal_level = replica");
	goes_on('wal_level = replica and a slot');
}

$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('closed')));
$node->safe_psql('postgres', q(SELECT stream_ckpt.detach_stream('t')));
wait_until($node, 'SELECT count(*) = 0 FROM pg_replication_slots',
	'the slot is gone');
restart_with($too_low);
fails_like(
	q(SELECT stream_ckpt.attach_stream('t', event_time => 'ts')),
	qr/ERROR:  stream_ckpt needs "wal_level" to be "logical".*HINT:  Set wal_level = logical and restart the server/s,
	'wal_level too low');
is( $node->safe_psql('postgres',
		'SELECT status FROM stream_ckpt.pipelines'),
	'idle',
	'and nothing runs');
for my $level ($as_needed ? ("wal_level = replica\nmax_wal_senders = 10\n") : (), $logical)
{
	restart_with($level);
	$node->safe_psql('postgres', 'TRUNCATE t');
	attach($node, 't');
	create_query($node, 'closed', 't');
	goes_on("begun with $level");
	$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('closed'), stream_ckpt.detach_stream('t')));
}

$node->stop;
done_testing();
