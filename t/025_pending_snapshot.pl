# A large state is written behind the barrier, while rows go on: what they do to groups that wait isn't in the
# checkpoint.  One group is written for each row that comes, so that half of them have been changed before.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $GROUPS = 60;
my $node = new_node('main', "max_parallel_workers_per_gather = 0
stream_ckpt.debug_snapshot_groups = 0\nstream_ckpt.debug_snapshot_step = 1\nstream_ckpt.debug_batch_rows = 1\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql(q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')));

sub rows_in { return sql('SELECT sum(rows_in) FROM stream_ckpt.tasks'); }

# One row for each of the groups from "first" on, in hour "hour".
sub insert_rows
{
	my ($hour, $first, $n) = @_;

	sql("INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + interval '$hour hours', i, i * 7 % 11, repeat('x', i % 5)
		FROM generate_series($first, $first + $n - 1) i");
	return;
}

# Begins a checkpoint, and stops its task behind the first group that is written after the barrier.
sub begin_checkpoint
{
	my $lsn = sql('SELECT pg_current_wal_lsn()');

	wait_until($node, "SELECT decoded_lsn >= '$lsn' FROM stream_ckpt.pipelines WHERE pipeline = 'default'", 'all is read');
	arm($node, 'task_snapshot_step', 'wait');
	my $session = start_writer($node, 'SELECT stream_ckpt.checkpoint();', clients => 1, transactions => 1);
	wait_reached($node, 'task_snapshot_step');
	return $session;
}

# Rows come, and the task goes on with them until it has written "n" groups more; the checkpoint isn't complete then.
sub change_groups
{
	my ($n, $code) = @_;
	my $rows = rows_in();
	my $lsn;

	$code->();
	$lsn = sql('SELECT pg_current_wal_lsn()');
	wait_until($node, "SELECT decoded_lsn >= '$lsn' FROM stream_ckpt.pipelines WHERE pipeline = 'default'", 'all is read');
	arm($node, 'task_snapshot_step', 'wait', $n);
	wait_reached($node, 'task_snapshot_step');
	cmp_ok(rows_in(), '>', $rows, 'rows go on while the checkpoint is pending');
	is(sql('SELECT checkpoint_in_progress IS NOT NULL FROM stream_ckpt.pipelines'), 't', 'it is pending');
	return;
}

sub end_checkpoint
{
	my ($session) = @_;

	disarm($node, 'task_snapshot_step');
	ok(finish_writer($session), 'the checkpoint ends');
	return;
}

# emit close: what the state of a group can be made of.
my %queries = (
	numbers => 'count(*) AS n, sum(v) AS s, avg(v) AS a, variance(v) AS d',
	texts => 'max(x) AS x, min(v) AS v, bool_or(v > 5) AS b',
	inputs => q(count(DISTINCT v) AS n, percentile_disc(0.5) WITHIN GROUP (ORDER BY v) AS p, md5(string_agg(x, ',' ORDER BY v, x)) AS x),
	states => 'md5(array_agg(v ORDER BY v)::text) AS v, sum(v::numeric) AS s, range_agg(int4range(v, v + 1)) AS r');
my $truth_of = sub {
	my ($name) = @_;
	return "SELECT w.window_start, w.window_end, k, $queries{$name} FROM t, stream_ckpt.tumble(ts, '1 hour') w
		GROUP BY w.window_start, w.window_end, k";
};
sql('CREATE TABLE t (ts timestamptz, k int, v int, x text)');
attach($node, 't');
create_query($node, $_, 't', select => $truth_of->($_)) for sort keys %queries;
wait_running($node);

sub check_all
{
	my ($what) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$what: $_", table => 't', synced => 1) for grep { sql("SELECT to_regclass('$_') IS NOT NULL") eq 't' } sort keys %queries;
	return;
}

#
# Every group is touched while it waits, then all that came after the barrier is lost
#
my $hour = 0;
for my $how (qw(immediate task))
{
	insert_rows($hour, 1, $GROUPS);
	my $session = begin_checkpoint();
	change_groups(30, sub { insert_rows($hour, 1, $GROUPS + 20) });
	end_checkpoint($session);
	lose_state($node, $how, 'KILL');
	insert_rows($hour, 20, $GROUPS);
	# and once more, by what comes as a delta to what was written
	$session = begin_checkpoint();
	change_groups(20, sub { insert_rows($hour, 10, $GROUPS) });
	end_checkpoint($session);
	lose_state($node, $how, 'KILL');
	$hour++;
	insert_rows($hour, 1, 1);
	check_all("lost behind a checkpoint, by $how");
}

#
# Lost while it is pending
#
insert_rows($hour, 1, $GROUPS);
my $session = begin_checkpoint();
change_groups(30, sub { insert_rows($hour, 5, $GROUPS) });
$node->stop('immediate');
disarm($node, 'task_snapshot_step');
finish_writer($session);
$node->start;
wait_running($node);
$hour++;
insert_rows($hour, 1, 1);
check_all('lost while it was pending');

#
# Windows close while their panes wait, and rows follow for the next one
#
insert_rows($hour, 1, $GROUPS);
$session = begin_checkpoint();
change_groups(10, sub { insert_rows($hour, 1, 20); $hour++; insert_rows($hour, 1, $GROUPS); });
end_checkpoint($session);
lose_state($node, 'immediate');
$hour++;
insert_rows($hour, 1, 1);
check_all('a window closes');

#
# Other things that happen to queries whose panes wait
#
sql('CREATE FUNCTION same(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 + 0 $$');
$hour++;
my %others = (
	compiled => ['same(k)', 'count(*) AS n, sum(same(v)) AS s'],
	failing => ['k', 'count(*) AS n, sum(100 / (v - 90)) AS s'],
	paused => ['k', 'count(*) AS n'],
	dropped => ['k', 'count(*) AS n, max(x) AS x']);
for my $name (sort keys %others)
{
	my ($key, $aggregates) = @{ $others{$name} };

	create_query($node, $name, 't',
		select => "SELECT w.window_start, w.window_end, $key AS k, $aggregates FROM t, stream_ckpt.tumble(ts, '1 hour') w
			WHERE ts >= timestamptz '2024-01-01 00:00 UTC' + interval '$hour hours' GROUP BY w.window_start, w.window_end, $key");
}
wait_running($node);
insert_rows($hour, 1, $GROUPS);
$session = begin_checkpoint();
change_groups(10, sub {
	insert_rows($hour, 1, 20);
	sql('CREATE OR REPLACE FUNCTION same(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 * 3 / 3 $$');
	sql("INSERT INTO t VALUES (timestamptz '2024-01-01 00:00 UTC' + interval '$hour hours', 3, 90, 'x')");
	insert_rows($hour, 1, $GROUPS);
});
disarm($node, 'task_snapshot_step');
sql(q(SELECT stream_ckpt.pause_query('paused')));
sql(q(SELECT stream_ckpt.drop_query('dropped')));
ok(finish_writer($session), 'the checkpoint ends');
insert_rows($hour, 10, $GROUPS);
wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'failing'::regclass", 'a query fails');
is(sql(q(SELECT status FROM stream_ckpt.queries WHERE query = 'compiled'::regclass)), 'running', 'nobody else has failed');
lose_state($node, 'immediate');
sql(q(SELECT stream_ckpt.drop_query('failing')));
sql(q(SELECT stream_ckpt.resume_query('paused')));
$hour++;
insert_rows($hour, 1, 1);
check_all('others were compiled, failed, paused, dropped');
results_ok($node, $_, "it was $_", table => 't') for qw(compiled paused);

#
# A window is emitted of which panes are part of later ones, too
#
$hour += 2;
create_query($node, 'shared', 't', select => "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS s
	FROM t, stream_ckpt.hop(ts, '30 minutes', '1 hour') w WHERE ts >= timestamptz '2024-01-01 00:00 UTC' + interval '$hour hours'
	GROUP BY w.window_start, w.window_end, k");
wait_running($node);
insert_rows($hour, 1, $GROUPS);
insert_rows($hour + 0.7, 1, 10);
checkpoint_all($node);
insert_rows($hour + 0.7, 5, 10);
checkpoint_all($node);
lose_state($node, 'task');
$hour++;
insert_rows($hour + 0.6, 1, 1);
results_ok($node, 'shared', 'panes of several windows', table => 't');
sql(q(SELECT stream_ckpt.drop_query('shared')));

#
# A window of many rows is emitted in steps: checkpoints go on without its query, and its rows appear all at once
#
$hour += 2;
sql('CREATE TABLE u (ts timestamptz, k int, v int, x text)');
attach($node, 'u');
create_query($node, 'beside', 'u', emit => 'update', size => '1 hour');
create_query($node, 'many', 't', select => "SELECT w.window_start, w.window_end, k, x, count(*) AS n, sum(v) AS s, min(x) AS y
	FROM t, stream_ckpt.tumble(ts, '1 hour') w WHERE ts >= timestamptz '2024-01-01 00:00 UTC' + interval '$hour hours'
	GROUP BY w.window_start, w.window_end, k, x HAVING count(*) <> 3");
wait_running($node);

# Closes a window with rows, and stops the task in the middle of its emission.
sub close_window
{
	insert_rows($hour, 1, $GROUPS);
	insert_rows($hour, 5, 20);
	insert_rows($hour, 5, 10);
	arm($node, 'task_emission_step', 'wait', 25);
	$hour++;
	insert_rows($hour, 1, 2);
	wait_reached($node, 'task_emission_step');
	return;
}

sub completed { return sql(q(SELECT count(*) FROM stream_ckpt.checkpoints WHERE status = 'completed')); }

# A checkpoint while it is emitted, a row to a step; who asked for it goes on to wait for the rest.
sub checkpoint_meanwhile
{
	my ($name) = @_;
	my $rows = sql("SELECT count(*) FROM $name");
	my $before = completed();

	# the barrier comes before the rest is emitted, as its message is there before the next steps
	$session = start_writer($node, 'SELECT stream_ckpt.checkpoint();', clients => 1, transactions => 1);
	wait_until($node, 'SELECT checkpoint_in_progress IS NOT NULL FROM stream_ckpt.pipelines', 'a checkpoint is triggered');
	sql("INSERT INTO u VALUES ('2024-01-01 00:00 UTC', 1, 1, '')");
	arm($node, 'task_emission_step', 'wait', 12);
	wait_reached($node, 'task_emission_step');
	wait_until($node, "SELECT count(*) > $before FROM stream_ckpt.checkpoints WHERE status = 'completed'", 'a checkpoint ends');
	is(sql("SELECT count(*) FROM $name"), $rows, 'nothing of the window is to be seen');
	return;
}

for my $how (qw(none immediate task recompiled paused))
{
	close_window();
	checkpoint_meanwhile('many');
	insert_rows($hour, 10, 20);
	if ($how eq 'immediate')
	{
		$node->stop('immediate');
		disarm($node, 'task_emission_step');
		$node->start;
		wait_running($node);
	}
	elsif ($how eq 'task')
	{
		my $pid = pid_of($node, 'task');

		kill 'KILL', $pid;
		disarm($node, 'task_emission_step');
		wait_restarted($node, 'task', $pid);
		wait_running($node);
	}
	else
	{
		sql('CREATE OR REPLACE FUNCTION same(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$') if $how eq 'recompiled';
		sql(q(ALTER TABLE t ADD COLUMN another int)) if $how eq 'recompiled';
		sql(q(SELECT stream_ckpt.pause_query('many'))) if $how eq 'paused';
		disarm($node, 'task_emission_step');
		sql(q(SELECT stream_ckpt.resume_query('many'))) if $how eq 'paused';
	}
	finish_writer($session);
	$hour++;
	insert_rows($hour, 1, 1);
	results_ok($node, 'many', "a window is emitted in steps: $how", table => 't');
	$hour++;
}

# The first checkpoint of a query comes while it is emitting, and then all is lost
$hour++;
create_query($node, 'fresh', 't', select => "SELECT w.window_start, w.window_end, k, count(*) AS n
	FROM t, stream_ckpt.tumble(ts, '1 hour') w WHERE ts >= timestamptz '2024-01-01 00:00 UTC' + interval '$hour hours'
	GROUP BY w.window_start, w.window_end, k");
# of others that stay behind the log would be read from before it was created
sql("SELECT stream_ckpt.drop_query('$_')") for 'many', 'compiled', 'paused', sort keys %queries;
close_window();
is(sql(q(SELECT count(*) FROM stream_ckpt.checkpoint_offset o JOIN stream_ckpt.query q USING (query_id) WHERE q.relid = 'fresh'::regclass)),
	'0', 'it had no checkpoint before');
checkpoint_meanwhile('fresh');
my $pid = pid_of($node, 'task');
kill 'TERM', $pid;
disarm($node, 'task_emission_step');
wait_restarted($node, 'task', $pid);
wait_running($node);
finish_writer($session);
$hour++;
insert_rows($hour, 1, 1);
results_ok($node, 'fresh', 'a window is emitted in steps: before the first checkpoint of its query', table => 't');
results_ok($node, 'beside', 'the other query', emit => 'update');

# Groups that wait lose all their rows, and come back; of one query nothing is kept but counts and sums, of the other inputs.
sql('CREATE TABLE c (ts timestamptz, k date, v int)');
sql(q(SELECT stream_ckpt.attach_stream('c', event_time => 'ts', changes => 'apply')));
create_query($node, 'counted', 'c', select => "SELECT w.window_start, w.window_end, k, count(*) AS n FROM c, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end, k");
create_query($node, 'kept', 'c', select => "SELECT w.window_start, w.window_end, k, max(v) AS v, count(*) AS n FROM c, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end, k");
wait_running($node);
sub insert_days { return sql("INSERT INTO c SELECT timestamptz '2024-01-01 00:00 UTC', date '2024-01-01' + i, i FROM generate_series($_[0], $_[1]) i"); }
insert_days(1, $GROUPS);
$session = begin_checkpoint();
change_groups(8, sub {
	insert_days($GROUPS + 1, $GROUPS + 10);
	sql("DELETE FROM c WHERE k >= '2024-01-05'");
	insert_days(10, 20);
});
disarm($node, 'task_snapshot_step');
ok(finish_writer($session), 'the checkpoint ends');
insert_days(40, 45);
lose_state($node, 'immediate');
sql("DELETE FROM c WHERE k > '2024-01-17'");
sql("INSERT INTO c VALUES ('2024-01-01 02:00 UTC', '2024-01-01', 1)");
results_ok($node, $_, "groups that wait lose their rows: $_", table => 'c') for qw(counted kept);

# A row that has made two sessions one is deleted while that is pending: the one that had gone comes back, whose tombstone waits.
sql('CREATE TABLE s (ts timestamptz, k int, v int)');
sql(q(SELECT stream_ckpt.attach_stream('s', event_time => 'ts', watermark_delay => '1 minute', changes => 'apply')));
my $of_states = "count(*) AS n, array_agg(v ORDER BY v) AS l, max(v) AS m, count(DISTINCT v) AS d, min(v + k) AS f, string_agg(repeat('x', v), ',' ORDER BY v) AS x";
sub of_sessions { return "SELECT min(ts) AS window_start, max(ts) + interval '10 seconds' AS window_end, k, $of_states
	FROM (SELECT *, sum(opens) OVER (PARTITION BY k ORDER BY ts) AS island FROM (SELECT *, CASE WHEN lag(ts) OVER (PARTITION BY k ORDER BY ts)
		+ interval '10 seconds' >= ts THEN 0 ELSE 1 END AS opens FROM s) o) i GROUP BY k, island"; }
sub insert_at { return sql("INSERT INTO s SELECT timestamptz '2024-01-01 UTC' + interval '$_[0] seconds', i, $_[0] FROM generate_series($_[1], $_[2]) i"); }
create_query($node, 'came_back', 's', select => "SELECT w.window_start, w.window_end, k, $of_states
	FROM s, stream_ckpt.session(ts, '10 seconds') w GROUP BY w.window_start, w.window_end, k");
wait_running($node);
insert_at($_, 1, $GROUPS) for 0, 20;
checkpoint_all($node);
insert_at(10, 1, $GROUPS);
$session = begin_checkpoint();
change_groups(5, sub {
	sql('DELETE FROM s WHERE v = 10 AND k > 52');
	insert_at(5, 1, 3);
});
end_checkpoint($session);
lose_state($node, 'immediate');
insert_at(200, 50, $GROUPS);
results_ok($node, 'came_back', 'sessions come back whose tombstones wait', table => 's', session => 1, delay => '1 minute', truth => of_sessions());

done_testing();
