# What an owner does to his own query holds up nobody: a transaction of his that stays open, a
# lock that he never gives back, notifications that nobody reads.  And all processes of an
# attempt run the same queries, whatever is resumed while it begins.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.result_lock_timeout = 100ms\nstream_ckpt.debug_retry_second = 50ms\n", draw => {});
create_stream_table($node, 't');
create_query($node, 'good', 't', emit => 'update');
create_query($node, 'bad', 't', emit => 'update');
wait_running($node);

my $n = 0;

sub rows
{
	my $count = shift;

	$node->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + ($n + i) * interval '1 second',
		i % 3, i, $n + i FROM generate_series(1, $count) i");
	$n += $count;
	return;
}

sub status_is
{
	my ($status) = @_;
	return wait_until($node,
		"SELECT status = '$status' FROM stream_ckpt.queries WHERE query = 'bad'::regclass", "bad is $status");
}

sub both_exact
{
	my ($what) = @_;

	# sync() doesn't wait for one that has been tried often
	status_is('running');
	sync_pipelines($node);
	results_ok($node, 'bad', "bad is exact: $what", emit => 'update', synced => 1);
	results_ok($node, 'good', "good is exact: $what", emit => 'update', synced => 1);
	is(counter($node, 'bad', 'status'), 'running', "bad is healthy: $what");
	return;
}

# Waits until the coordinator has tried the part that waits, and got on.
sub tried_again
{
	my ($what) = @_;
	my $last = $node->safe_psql('postgres', "SELECT coalesce(max(id), 0) FROM stream_ckpt.checkpoints");

	return wait_until($node, "SELECT count(*) > 0 FROM stream_ckpt.checkpoints
		WHERE kind = 'retry' AND status = 'completed' AND id > $last + 1", "the coordinator goes on: $what");
}

# The result is locked, so that the query's part waits, and its row of query_failure is written
# at each try; meanwhile another transaction of the owner's has removed that row.
rows(10);
sync_pipelines($node);
for my $end (qw(ROLLBACK COMMIT))
{
	my $locker = $node->background_psql('postgres');
	my $resumer = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE bad IN ACCESS EXCLUSIVE MODE');
	rows(10);
	status_is('waiting');
	$resumer->query_safe("BEGIN; SELECT stream_ckpt.resume_query('bad')");
	rows(10);
	tried_again("resume_query() in an open transaction, $end");
	results_ok($node, 'good', "good goes on beside resume_query() in an open transaction, $end",
		emit => 'update', synced => 1);
	$resumer->query_safe($end);
	$resumer->quit;
	rows(10);
	$locker->query_safe('COMMIT');
	$locker->quit;
	both_exact("resume_query() in an open transaction, $end");
}

# Healthy again while that row is another transaction's, which gives it back.
{
	my $locker = $node->background_psql('postgres');
	my $resumer = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE bad IN ACCESS EXCLUSIVE MODE');
	rows(10);
	status_is('waiting');
	$resumer->query_safe("BEGIN; SELECT stream_ckpt.resume_query('bad')");
	$locker->query_safe('COMMIT');
	$locker->quit;
	wait_until($node, 'SELECT sum(n) = (SELECT count(*) FROM t) FROM bad', 'bad has caught up');
	$resumer->query_safe('ROLLBACK');
	$resumer->quit;
	status_is('running');
	both_exact('healthy beside resume_query() in an open transaction');
}

# What the open transaction keeps from being noted comes again, and nobody else is held up by
# that: here the write fails for good.
$node->safe_psql('postgres', q(CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RAISE EXCEPTION 'refused'; END $$));
for my $end (qw(ROLLBACK COMMIT))
{
	my $locker = $node->background_psql('postgres');
	my $resumer = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE bad IN SHARE MODE');
	rows(10);
	status_is('waiting');
	$resumer->query_safe("BEGIN; SELECT stream_ckpt.resume_query('bad')");
	$locker->query_safe('CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION refuse(); COMMIT');
	rows(10);
	tried_again("a write that fails beside resume_query(), $end");
	my $attempt = $node->safe_psql('postgres', 'SELECT attempt FROM stream_ckpt.pipelines');
	rows(10);
	tried_again("a write that fails again, $end");
	results_ok($node, 'good', "good goes on beside a write that fails, $end", emit => 'update', synced => 1);
	is($node->safe_psql('postgres', 'SELECT attempt FROM stream_ckpt.pipelines'), $attempt, "no restarts for that, $end");
	$resumer->query_safe($end);
	$resumer->quit;
	status_is('failed');
	like(counter($node, 'bad', 'message'), qr/^refused/, "it is noted in the end, $end");
	$locker->query_safe('DROP TRIGGER refuse ON bad');
	$locker->quit;
	$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
	both_exact("mended and resumed, $end");
}

# The same where it is the task that fails.
{
	create_query($node, 'divides', 't', emit => 'update',
		select => "SELECT w.window_start, w.window_end, k, sum(100 / nullif(v, 7)) AS s FROM t, stream_ckpt.tumble(ts, '1 minute') w
			GROUP BY w.window_start, w.window_end, k");
	my $locker = $node->background_psql('postgres');
	my $resumer = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE divides IN SHARE MODE');
	rows(10);
	wait_until($node, "SELECT status = 'waiting' FROM stream_ckpt.queries WHERE query = 'divides'::regclass", 'divides waits');
	$resumer->query_safe("BEGIN; SELECT stream_ckpt.resume_query('divides')");
	$node->safe_psql('postgres', "INSERT INTO t SELECT max(ts), 1, 0, 0 FROM t");
	rows(10);
	wait_until($node, "SELECT sum(n) = (SELECT count(*) FROM t) FROM good", 'good goes on beside a task that fails');
	results_ok($node, 'good', 'good is exact beside a task that fails', emit => 'update', synced => 1);
	$locker->query_safe('COMMIT');
	$locker->quit;
	$resumer->query_safe('COMMIT');
	$resumer->quit;
	wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'divides'::regclass", 'divides has failed');
	is(counter($node, 'divides', 'message'), 'division by zero', 'a failure in the task is noted in the end');
	$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('divides')");
}

# Who resumes a query and then waits for it gets its rows.
{
	my $locker = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE bad IN ACCESS EXCLUSIVE MODE');
	rows(10);
	status_is('waiting');
	wait_until($node, "SELECT failures >= 3 FROM stream_ckpt.queries WHERE query = 'bad'::regclass", 'it has waited three times');
	$locker->query_safe('COMMIT');
	$locker->quit;
	$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
	both_exact('resumed while it waited');
	$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad')");
	rows(10);
	status_is('paused');
	$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
	both_exact('resumed after a pause');
}

# A query that is behind takes the others' time once: they get as much before the next time.
# sync() waits for it all the same.
{
	$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad')");
	status_is('paused');
	rows(10);
	sync_pipelines($node);
	arm($node, 'reader_before_read', 'wait');
	$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
	wait_reached($node, 'reader_before_read');
	rows(1) for 1 .. 40;
	$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad')");
	rows(10);
	disarm($node, 'reader_before_read');
	status_is('paused');
	sync_pipelines($node);
	my $attempt = $node->safe_psql('postgres', 'SELECT attempt FROM stream_ckpt.pipelines');
	$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
	$node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()');
	is($node->safe_psql('postgres', 'SELECT attempt FROM stream_ckpt.pipelines'), $attempt, 'the others get their time first');
	my ($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT stream_ckpt.sync('60 seconds') IS NOT NULL");
	is("$ret $stdout $stderr", '0 t ', 'sync() waits for what was resumed');
	results_ok($node, 'bad', 'it has all its rows then', emit => 'update', synced => 1);
	isnt($node->safe_psql('postgres', 'SELECT attempt FROM stream_ckpt.pipelines'), $attempt, 'then it is taken in again');
}

# A drop in an open transaction.
{
	my $locker = $node->background_psql('postgres');
	my $dropper = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE bad IN SHARE MODE');
	rows(10);
	status_is('waiting');
	$dropper->query_safe('BEGIN');
	$locker->query_safe('COMMIT');
	$dropper->query_safe("SELECT stream_ckpt.drop_query('bad')");
	rows(10);
	$node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()');
	results_ok($node, 'good', 'good goes on beside drop_query() in an open transaction', emit => 'update', synced => 1);
	$dropper->query_safe('ROLLBACK');
	$dropper->quit;
	$locker->quit;
	both_exact('drop_query() rolled back');
}

# A query is dropped while its rows of query_failure, late_rows or dead_letter are another open
# transaction's: the checkpoints that forget it go on, and take them away later.  (The rows have no result row,
# for whose view they would wait.  resume_query() waits for a drop: what locks a failure is a superuser's own statement.)
for my $kept (
	[ 'query_failure', 'SELECT count(*) FROM (SELECT FROM stream_ckpt.query_failure FOR UPDATE) locked' ],
	[ 'late_rows', "SELECT count(*) FROM stream_ckpt.take_late_rows('gone')" ],
	[ 'dead_letter', "SELECT count(*) FROM stream_ckpt.take_dead_letters('gone')" ])
{
	my ($table, $take) = @$kept;
	my $dropper = $node->background_psql('postgres');
	my $other = $node->background_psql('postgres');

	create_query($node, 'gone', 't', emit => 'update',
		select => "SELECT w.window_start, w.window_end, k, sum(100 / nullif(v, 7)) AS s FROM t, stream_ckpt.tumble(ts, '1 minute') w
			GROUP BY w.window_start, w.window_end, k",
		options => $table eq 'dead_letter' ? "on_error => 'dead_letter'" : 'keep_late_rows => true');
	rows(10);
	sync_pipelines($node);
	$dropper->query_safe("BEGIN; SELECT stream_ckpt.drop_query('gone', keep_result => true)");
	$node->safe_psql('postgres', $table eq 'late_rows' ? "INSERT INTO t SELECT min(ts) - interval '1 day', 1, 1, 0 FROM t" :
		  "INSERT INTO t SELECT max(ts), 99, 0, 0 FROM t");
	$node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()');
	wait_until($node, "SELECT count(*) > 0 FROM stream_ckpt.$table", "a row of $table");
	$node->safe_psql('postgres', "DELETE FROM t WHERE ts < '2024-01-01 UTC'");
	$other->query_safe("BEGIN; $take");
	$dropper->query_safe('COMMIT');
	rows(10);
	$node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()');
	results_ok($node, 'good', "good goes on beside a dropped query whose row of $table is locked", emit => 'update');
	# so does an attempt that begins
	my $task = pid_of($node, 'task');
	kill 'TERM', $task;
	wait_restarted($node, 'task', $task);
	rows(10);
	results_ok($node, 'good', "an attempt begins beside it, $table", emit => 'update');
	$other->query_safe('ROLLBACK');
	$_->quit for $dropper, $other;
	wait_until($node, "SELECT count(*) = 0 FROM stream_ckpt.$table", "the row of $table is removed later");
	$node->safe_psql('postgres', 'DROP TABLE gone');
}

# Nobody waits for it without end: sync() warns instead.
{
	my $locker = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE bad IN ACCESS EXCLUSIVE MODE');
	rows(10);
	status_is('waiting');
	my ($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT stream_ckpt.sync('60 seconds') IS NOT NULL");
	is("$ret $stdout", '0 t', 'sync() returns beside a query that waits without end');
	like($stderr, qr/WARNING:  query "bad" waits: rows are missing/, 'and says so');
	results_ok($node, 'good', 'good has all that sync() promised', emit => 'update', synced => 1);
	$locker->query_safe('COMMIT');
	$locker->quit;
	$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
	both_exact('after a long lock');
}

# Notifications: a full queue fails its commit, so it is the query that waits.
$node->safe_psql('postgres', q(
	CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_notify('changed', NEW::text); NOTIFY also; RETURN NEW; END $$;
	CREATE TRIGGER tell AFTER INSERT OR UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION tell()));
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN changed');
rows(10);
both_exact('its trigger notifies');
like($listener->query('SELECT 1'), qr/notification "changed"/, 'notifications arrive');
for my $statement ('PERFORM pg_notify(\'changed\', NEW::text)', 'NOTIFY changed')
{
	$node->safe_psql('postgres', "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
		\$\$ BEGIN $statement; RETURN NEW; END \$\$");
	$node->append_conf('postgresql.conf', 'stream_ckpt.debug_notify_percent = 0');
	$node->reload;
	wait_until($node, "SELECT current_setting('stream_ckpt.debug_notify_percent') = '0'", 'the setting is there');
	rows(10);
	status_is('waiting');
	like(counter($node, 'bad', "concat_ws('|', sqlstate, message, hint)"),
		qr/^53400\|cannot notify: the notification queue is 0 % full\|A session that listens/, "the reason is in the view: $statement");
	rows(10);
	tried_again('a full notification queue');
	results_ok($node, 'good', "good goes on beside a full notification queue: $statement", emit => 'update', synced => 1);
	$node->append_conf('postgresql.conf', 'stream_ckpt.debug_notify_percent = 50');
	$node->reload;
	status_is('running');
	both_exact("the queue has room again: $statement");
}
$listener->quit;

# A query that is resumed after the reader has its place, and before the task has its queries.
$node->safe_psql('postgres', "SELECT stream_ckpt.pause_query('bad')");
status_is('paused');
rows(10);
sync_pipelines($node);
arm($node, 'task_before_restore', 'wait');
my $pid = pid_of($node, 'task');
kill 'TERM', $pid;
wait_reached($node, 'task_before_restore');
pid_of($node, 'reader');
$node->safe_psql('postgres', "SELECT stream_ckpt.resume_query('bad')");
rows(10);
disarm($node, 'task_before_restore');
status_is('running');
both_exact('resumed while an attempt begins');

# Whoever may not read a stream makes no slot, also for a pipeline of his own; who makes one is told.
$node->safe_psql('postgres', q(CREATE ROLE nobody; CREATE DATABASE untouched; CREATE DATABASE squatted));
$node->safe_psql('untouched', q(
	CREATE EXTENSION stream_ckpt;
	CREATE TABLE t (ts timestamptz);
	SELECT stream_ckpt.attach_stream('t', event_time => 'ts');
	GRANT CREATE ON SCHEMA public TO nobody;
	GRANT CREATE ON DATABASE untouched TO nobody;
	SET ROLE nobody;
	SELECT stream_ckpt.create_pipeline('his')));
my $mine = q(SELECT stream_ckpt.create_query('mine', $$SELECT w.window_start, count(*) FROM t, stream_ckpt.tumble(ts, '1 minute') w
	GROUP BY w.window_start$$, pipeline => 'his'));
my ($ret, $stdout, $stderr) = $node->psql('untouched', "SET ROLE nobody; $mine");
like($stderr, qr/permission denied for table t/, 'a query over a stream that the caller may not read');
unlike($stderr, qr/replication slot/, 'no slot is made for it');
($ret, $stdout, $stderr) = $node->psql('untouched', "GRANT SELECT ON t TO nobody; SET ROLE nobody; $mine");
is($ret, 0, 'who may read the stream creates it');
like($stderr, qr/replication slot/, 'with the slot');

# A schema that somebody else made is not the extension's.
$node->safe_psql('squatted', 'CREATE SCHEMA stream_ckpt AUTHORIZATION nobody');
($ret, $stdout, $stderr) = $node->psql('squatted', 'CREATE EXTENSION stream_ckpt');
like($stderr, qr/schema "stream_ckpt" belongs to another user/, 'CREATE EXTENSION in the schema of another user');

$node->stop;
done_testing();
