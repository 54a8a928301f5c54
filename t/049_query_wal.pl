# A query that is paused, has failed or waits holds WAL up to stream_ckpt.max_query_wal.  Past it that
# query alone is lost, the slot goes on, and the query goes on only if somebody accepts the gap.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "max_slot_wal_keep_size = 192MB\n");
create_stream_table($node, 't');
create_query($node, 'good', 't', emit => 'update');
create_query($node, 'late', 't', emit => 'update');
wait_running($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $n = 0;

# A minute's window, which only these rows are in; the server may die meanwhile.
sub rows
{
	my ($point) = @_;
	my $insert = "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $n * interval '1 minute', i % 3, i, $n FROM generate_series(1, 10) i";

	if ($point)
	{
		try_psql($node, $insert);
		wait_reached($node, $point);
		disarm($node, $point);
		wait_running($node);
		$insert .= " WHERE NOT EXISTS (SELECT FROM t WHERE txn = $n)";
	}
	sql($insert);
	return $n++;
}

sub wal
{
	my ($mb) = @_;
	sql("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1024 * 1024)) FROM generate_series(1, $mb)");
	return;
}

# sync(), which warns of a query that is lost.
sub synced
{
	my ($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT stream_ckpt.sync('3 minutes') IS NOT NULL");
	is("$ret $stdout", '0 t', 'sync() succeeds') if "$ret $stdout" ne '0 t';
	return $stderr;
}

sub status_is
{
	my ($status, $what) = @_;
	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = 'late'::regclass",
		"late is $status: $what");
}

sub good_ok
{
	my ($what) = @_;
	results_ok($node, 'good', "good is exact: $what", emit => 'update', synced => 1);
	is(sql('SELECT status FROM stream_ckpt.pipelines'), 'running', "the pipeline runs: $what");
	return;
}

# The query's windows are exact, but for those in between, of which it has nothing.
sub exact_but
{
	my ($what, @missing) = @_;

	synced();
	results_ok($node, 'late', "exact but for the gap: $what", emit => 'update', synced => 1,
		truth => 'SELECT * FROM late_definition WHERE window_start <> ALL (ARRAY['
		  . join(', ', map { "timestamptz '2024-01-01 00:00 UTC' + $_ * interval '1 minute'" } @missing) . ']::timestamptz[])');
	return;
}

my @missing;

# Without the setting it is half of what the slot may keep: the slot stays valid.
rows();
synced();
sql("SELECT stream_ckpt.pause_query('late')");
status_is('paused', 'before');
push @missing, rows();
for (1 .. 20)
{
	wal(16);
	push @missing, rows();
	synced();
	sql('CHECKPOINT');
}
status_is('lost', 'a paused query holds half of max_slot_wal_keep_size');
good_ok('beside a paused query');
is(sql(q(SELECT wal_status IN ('reserved', 'extended') FROM pg_replication_slots)), 't', 'the slot is valid');
like(counter($node, 'late', "concat_ws('|', sqlstate, message, hint)"),
	qr/^53400\|the query held more WAL than "stream_ckpt.max_query_wal" allows \(96 MB\)\|.*resume_query\(query, accept_gap => true\)/,
	'the view says why, and what to do');
like(slurp_file($node->logfile), qr/WARNING:  query "late" is lost/, 'the log, too');
like(synced(), qr/WARNING:  query "late" is lost: rows are missing/, 'sync() says so');

# It goes on if that is accepted, and not else.
my ($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT stream_ckpt.resume_query('late')");
like($stderr, qr/query "late" is lost.*HINT:  Call stream_ckpt.resume_query\(query, accept_gap => true\)/s, 'resume_query() is an error');
status_is('lost', 'still');
$node->stop('immediate');
$node->start;
wait_running($node);
push @missing, rows();
synced();
good_ok('after a crash beside a lost query');
sql("BEGIN; SELECT stream_ckpt.resume_query('late', accept_gap => true); SELECT stream_ckpt.resume_query('late'); COMMIT");
status_is('running', 'the gap is accepted');
rows();
exact_but('accepted', @missing);
good_ok('the gap is accepted');
($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT stream_ckpt.verify('late')");
isnt($ret, 0, 'verify() knows that rows are missing');

# Without a gap there is nothing to accept.
sql("ALTER SYSTEM SET stream_ckpt.max_query_wal = '2MB'");
sql('SELECT pg_reload_conf()');
sql("SELECT stream_ckpt.pause_query('late')");
status_is('paused', 'for a moment');
rows();
sql("SELECT stream_ckpt.resume_query('late', accept_gap => true)");
status_is('running', 'after a moment');
exact_but('paused for a moment', @missing);

# A query that has failed, and one that waits.
sql('ALTER TABLE late ADD CONSTRAINT no CHECK (k < 0) NOT VALID');
push @missing, rows();
status_is('failed', 'its rows are refused');
wal(4);
push @missing, rows();
status_is('lost', 'it had failed');
sql("ALTER TABLE late DROP CONSTRAINT no; SELECT stream_ckpt.resume_query('late', accept_gap => true)");
status_is('running', 'it had failed, and the gap is accepted');
rows();
exact_but('it had failed', @missing);

my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE late IN SHARE MODE');
push @missing, rows();
status_is('waiting', 'its result is locked');
wal(4);
push @missing, rows();
status_is('lost', 'it waited');
$locker->query_safe('COMMIT');
$locker->quit;
push @missing, rows();
synced();
good_ok('another query waited for too long');
sql("SELECT stream_ckpt.resume_query('late', accept_gap => true)");
status_is('running', 'it waited, and the gap is accepted');
rows();
exact_but('it waited', @missing);

# Whoever dies while it becomes lost, or while it goes on: nothing is skipped that isn't said to be lost.
for my $point (qw(coordinator_before_commit coordinator_after_commit reader_before_confirm task_before_restore))
{
	my $goes_on = $point eq 'task_before_restore';

	sql("SELECT stream_ckpt.pause_query('late')");
	status_is('paused', $point);
	push @missing, rows();
	synced();
	wal(4);
	arm($node, $point, 'kill') unless $goes_on;
	push @missing, rows($goes_on ? undef : $point);
	push @missing, rows();
	synced();
	status_is('lost', "killed at $point");
	good_ok("killed at $point");
	arm($node, $point, 'kill') if $goes_on;
	sql("SELECT stream_ckpt.resume_query('late', accept_gap => true)");
	if ($goes_on)
	{
		wait_reached($node, $point);
		disarm($node, $point);
		wait_running($node);
	}
	status_is('running', "killed at $point, and the gap is accepted");
	rows();
	exact_but("killed at $point", @missing);
	good_ok("killed at $point, at last");
}

$node->stop;
done_testing();
