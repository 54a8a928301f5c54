# A query that begins with its stream's history is in nobody's way: who needs the tables gets them, whatever they hold, and as
# often as need be; what failed reads nothing more, and what can't be written holds no WAL. And what happens to the query and
# its stream while that is being read is as if it had happened behind it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "autovacuum = off\nstream_ckpt.debug_retry_second = '200ms'\n", draw => {});
my $options = 'backfill => true';
my $select = 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub rows
{
	my ($table, $minute, $n) = @_;

	return "INSERT INTO $table SELECT timestamptz '2024-01-01 UTC' + $minute * interval '1 minute' + i * interval '1 second', i % 20, i
		FROM generate_series(1, $n) i;";
}

sub was_reached { return -e $node->data_dir . "/stream_ckpt_debug/$_[0].reached"; }

# Begins a command that has to wait for others, in a session of its own
sub begin_command
{
	my ($command, $event) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 1);

	$session->query_until(qr/begun/, "\\echo begun\n$command;\n");
	wait_until($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = '$event'
			AND backend_type = 'client backend' AND query LIKE 'ALTER%'", "$command waits");
	return $session;
}

sub status_of { return sql("SELECT status FROM stream_ckpt.queries WHERE query = '$_[0]'::regclass"); }

sql('CREATE TABLE t (ts timestamptz, k int, v int)');
attach($node, 't', delay => '1 day');
create_query($node, 'other', 't', emit => 'update', select => $select);
sync_pipelines($node);
sql(rows('t', 0, 5000));
sync_pipelines($node);

# A failure ends the reading: the tasks have the row at fault, and the reader, in its second pass, is behind that
arm($node, 'history_in_scan', 'wait 6');
arm($node, 'task_after_rows', 'wait');
arm($node, 'history_after_scan', 'error');
create_query($node, 'fails', 't', emit => 'update', select => 'SELECT k, sum(1 / (v - 10)) AS total FROM t GROUP BY k', options => $options);
wait_reached($node, 'history_in_scan');
disarm($node, 'task_after_rows');
wait_until($node, "SELECT backfill_phase = 'waiting' FROM stream_ckpt.queries WHERE query = 'fails'::regclass", 'the coordinator knows of the failure');
disarm($node, 'history_in_scan');
wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'fails'::regclass", 'it fails');
ok(!was_reached('history_after_scan'), 'its history is not read to the end');
like(sql("SELECT message FROM stream_ckpt.queries WHERE query = 'fails'::regclass"), qr/division by zero/, 'its error is its own');
disarm($node, 'history_after_scan');
# but if another query needs it
arm($node, 'history_in_scan', 'wait 6');
arm($node, 'task_after_rows', 'wait');
sql("BEGIN; SELECT stream_ckpt.resume_query('fails'); SELECT stream_ckpt.create_query('good', '$select', $options); COMMIT");
wait_reached($node, 'history_in_scan');
disarm($node, 'task_after_rows');
wait_until($node, "SELECT backfill_phase = 'waiting' FROM stream_ckpt.queries WHERE query = 'fails'::regclass", 'it fails again');
disarm($node, 'history_in_scan');
sql("SELECT stream_ckpt.sync('10 minutes', 'good')");
results_ok($node, 'good', 'the other one has all', emit => 'update', synced => 1);
is(status_of('fails'), 'failed', 'and the first one has failed');
sql("SELECT stream_ckpt.drop_query('fails'); SELECT stream_ckpt.drop_query('good')");

# Blocks without a visible row
sql('CREATE TABLE dead (ts timestamptz, k int, v int)');
sql(rows('dead', 0, 5000));
sql('DELETE FROM dead');
attach($node, 'dead', delay => '1 day');
arm($node, 'history_in_blocks', 'wait 3');
create_query($node, 'none', 'dead', emit => 'update', options => $options);
wait_reached($node, 'history_in_blocks');
my $session = begin_command('ALTER TABLE dead ADD COLUMN another int', 'relation');
disarm($node, 'history_in_blocks');
wait_until($node, q(SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = 'dead'::regclass AND attname = 'another'), 'it goes on');
$session->quit;
sql(rows('dead (ts, k, v)', 10, 10));
sql("SELECT stream_ckpt.sync('10 minutes', 'none')");
results_ok($node, 'none', 'then the table is read', emit => 'update', synced => 1);
sql("SELECT stream_ckpt.drop_query('none')");

# As often as need be
for my $i (1 .. 6)
{
	arm($node, 'history_in_scan', 'wait');
	if ($i == 1) { create_query($node, 'q', 't', emit => 'update', select => $select, options => $options); }
	else         { disarm($node, 'history_begins'); }
	wait_reached($node, 'history_in_scan');
	$session = begin_command("ALTER TABLE t ADD COLUMN c$i int", 'relation');
	# the next reading waits where it begins
	arm($node, 'history_begins', 'wait');
	disarm($node, 'history_in_scan');
	wait_reached($node, 'history_begins');
	is(counter($node, 'q', 'failures'), $i, "gave way $i times");
	$session->quit;
}
disarm($node, 'history_begins');
sql("SELECT stream_ckpt.sync('10 minutes', 'q')");
results_ok($node, 'q', 'and is complete at last', emit => 'update', synced => 1);
wait_until($node, "SELECT status = 'running' FROM stream_ckpt.queries WHERE query = 'q'::regclass", 'and well');
sql("SELECT stream_ckpt.drop_query('q')");

# A partition's lock is tried before all begins anew
sql("CREATE TABLE p (ts timestamptz, k int, v int) PARTITION BY LIST (k);
	CREATE TABLE p_even PARTITION OF p FOR VALUES IN (" . join(', ', grep { $_ % 2 == 0 } 0 .. 19) . ");
	CREATE TABLE p_odd PARTITION OF p FOR VALUES IN (" . join(', ', grep { $_ % 2 == 1 } 0 .. 19) . ")");
sql(rows('p', 0, 5000));
attach($node, 'p', delay => '1 day');
my $locking = $node->background_psql('postgres', on_error_stop => 1);
arm($node, 'history_begins', 'wait');
create_query($node, 'q', 'p', emit => 'update', options => $options);
wait_reached($node, 'history_begins');
$locking->query_safe('BEGIN; LOCK TABLE p_odd IN ACCESS EXCLUSIVE MODE');
disarm($node, 'history_begins');
wait_until($node, "SELECT status = 'retrying' FROM stream_ckpt.queries WHERE query = 'q'::regclass", 'a partition is locked');
my $attempt = sql('SELECT attempt FROM stream_ckpt.pipelines');
arm($node, 'coordinator_put_off', 'wait');
wait_reached($node, 'coordinator_put_off');
disarm($node, 'coordinator_put_off');
is(sql('SELECT attempt FROM stream_ckpt.pipelines'), $attempt, 'nobody begins anew for that');
$locking->query_safe('COMMIT');
sql("SELECT stream_ckpt.sync('10 minutes', 'q')");
results_ok($node, 'q', 'unlocked', emit => 'update', synced => 1);
sql("SELECT stream_ckpt.drop_query('q')");

# A partition that is detached meanwhile
arm($node, 'history_in_scan', 'wait');
create_query($node, 'q', 'p', emit => 'update', options => $options);
wait_reached($node, 'history_in_scan');
$session = begin_command('ALTER TABLE p DETACH PARTITION p_even CONCURRENTLY', 'virtualxid');
disarm($node, 'history_in_scan');
wait_until($node, "SELECT count(*) = 1 FROM pg_inherits WHERE inhparent = 'p'::regclass", 'it is detached');
$session->quit;
like(slurp_file($node->logfile), qr/gave way to a command that detaches a partition/, 'reading gave way');
sql("SELECT stream_ckpt.sync('10 minutes', 'q')");
results_ok($node, 'q', 'without the partition', emit => 'update', synced => 1);
sql("SELECT stream_ckpt.drop_query('q')");

# A first result that can't be written holds no more WAL than others
sql("ALTER SYSTEM SET stream_ckpt.max_query_wal = '1MB'");
$node->reload;
arm($node, 'history_begins', 'wait');
create_query($node, 'q', 't', emit => 'update', select => $select, options => $options);
wait_reached($node, 'history_begins');
$locking->query_safe('BEGIN; LOCK TABLE q IN ACCESS EXCLUSIVE MODE');
disarm($node, 'history_begins');
wait_until($node, "SELECT status = 'waiting' FROM stream_ckpt.queries WHERE query = 'q'::regclass", 'its result is locked');
my $before = sql('SELECT pg_current_wal_lsn()');
sql(rows('t (ts, k, v)', 100, 30000));
wait_until($node, "SELECT status = 'retrying' AND message LIKE '%max_query_wal%' FROM stream_ckpt.queries WHERE query = 'q'::regclass",
	'it gives up what it has');
sql(rows('t (ts, k, v)', 200, 10));
wait_until($node, "SELECT bool_and(confirmed_flush_lsn > '$before') FROM stream_ckpt.pipelines", 'and holds no WAL');
sql("SELECT stream_ckpt.sync('10 minutes', 'other')");
results_ok($node, 'other', 'others go on', emit => 'update', synced => 1);
$locking->query_safe('COMMIT');
sql("SELECT stream_ckpt.sync('10 minutes', 'q')");
results_ok($node, 'q', 'it begins anew', emit => 'update', synced => 1);
sql("ALTER SYSTEM RESET stream_ckpt.max_query_wal; SELECT stream_ckpt.drop_query('q')");
$node->reload;

# Paused when the catalogs had been read, and before the snapshot; another query has its history read all the same
arm($node, 'history_begins', 'wait');
sql("BEGIN; SELECT stream_ckpt.create_query('q', '$select', $options); SELECT stream_ckpt.create_query('q2', '$select', $options); COMMIT");
wait_reached($node, 'history_begins');
sql("SELECT stream_ckpt.pause_query('q')");
disarm($node, 'history_begins');
sql("SELECT stream_ckpt.sync('10 minutes', 'q2')");
sql(rows('t (ts, k, v)', 300, 100));
results_ok($node, 'q2', 'the other query', emit => 'update');
is(sql('SELECT coalesce(sum(n), 0) IN (0, (SELECT count(*) - 100 FROM t)) FROM q'), 't', 'a query that is paused counts nothing more, and its history whole or not at all');
sql("SELECT stream_ckpt.resume_query('q')");
sql("SELECT stream_ckpt.sync('10 minutes', 'q')");
results_ok($node, 'q', 'resumed', emit => 'update', synced => 1);
sql("SELECT stream_ckpt.drop_query('q'); SELECT stream_ckpt.drop_query('q2')");

# Options that change meanwhile: others have them from their place in the log on
sql("SELECT stream_ckpt.alter_stream('t', max_ahead => '1 hour')");
sync_pipelines($node);
my $ahead = counter($node, 'other', 'ahead_rows');
arm($node, 'history_begins', 'wait');
create_query($node, 'q', 't', emit => 'update', select => $select, options => $options);
wait_reached($node, 'history_begins');
sql("INSERT INTO t (ts, k, v) VALUES (now() + interval '10 hours', 1, 1)");
sql("SELECT stream_ckpt.alter_stream('t', max_ahead => '3 days')");
disarm($node, 'history_begins');
sql("SELECT stream_ckpt.sync('10 minutes', 'q')");
sync_pipelines($node);
is(counter($node, 'other', 'ahead_rows') - $ahead, 1, 'a row was too far ahead for the other query');
is(counter($node, 'q', 'ahead_rows'), 0, 'and not for the new one');
results_ok($node, 'q', 'both count it', emit => 'update', synced => 1);
sql("SELECT stream_ckpt.drop_query('q')");

# So is a watermark that is moved meanwhile
sql('CREATE TABLE moved (ts timestamptz, k int, v int)');
sql("SELECT stream_ckpt.attach_stream('moved', event_time => 'ts', max_ahead => NULL)");
sql(rows('moved', 0, 100) . "INSERT INTO moved VALUES ('2099-01-01', 1, 1)");
arm($node, 'history_begins', 'wait');
create_query($node, 'q', 'moved', emit => 'update', options => $options);
wait_reached($node, 'history_begins');
sql("SELECT stream_ckpt.reset_watermark('moved', '2024-01-01 00:10 UTC')");
disarm($node, 'history_begins');
sql("SELECT stream_ckpt.sync('10 minutes', 'q')");
sql(rows('moved', 60, 100));
results_ok($node, 'q', 'rows behind the reset count', emit => 'update');
is(counter($node, 'q', 'late_rows'), 0, 'none is late');

$node->stop;
done_testing();
