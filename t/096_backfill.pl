# Queries that begin with the rows that their stream has: rows before, during and after are counted once, whoever writes
# them meanwhile, and none of the history is late, in whatever order it lies.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $node = new_node('main', "stream_ckpt.debug_lane_blocks = 0\n", draw => {});
my $backfill = 'backfill => true';
my $by_k = 'SELECT k, count(*) AS n, sum(v) AS total, max(length(note)) AS longest FROM t GROUP BY k';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# n rows from a minute on, of the transaction "txn"; some values are out of line
sub rows
{
	my ($minute, $n, $txn) = @_;

	return "INSERT INTO t (ts, k, v, txn, note)
		SELECT timestamptz '2024-01-01 00:00 UTC' + $minute * interval '1 minute' + i * interval '3 seconds', i % 7, i, $txn,
			CASE WHEN i % 50 = 0 THEN (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 100 + i) j) ELSE 'x' END
		FROM generate_series(1, $n) i;";
}

# A history with rows older than two of its columns, changed and deleted ones, toasted values, gaps.
sql('CREATE TABLE t (ts timestamptz, k int, gone int, v int, txn int);
	INSERT INTO t SELECT timestamptz \'2023-12-31 23:00 UTC\' + i * interval \'5 seconds\', i % 7, i, i, 0 FROM generate_series(1, 500) i;
	ALTER TABLE t DROP COLUMN gone;
	ALTER TABLE t ADD COLUMN note text DEFAULT \'as of old\';
	ALTER TABLE t ADD COLUMN other text;
	ALTER TABLE t ALTER COLUMN note SET STORAGE EXTERNAL;');
sql(rows(0, 1000, 0));
sql('UPDATE t SET v = v + 1 WHERE v % 10 = 3; DELETE FROM t WHERE v % 100 = 50');
attach($node, 't', delay => '4 hours');
create_query($node, 'without', 't', emit => 'update');
sync_pipelines($node);

# Those who write meanwhile: long before, with more subtransactions than a snapshot lists, prepared
my $long = $node->background_psql('postgres', on_error_stop => 1);
my $aborted = $node->background_psql('postgres', on_error_stop => 1);
$long->query_safe('BEGIN');
$long->query_safe("SAVEPOINT s$_; " . rows(60 + $_, 3, 1)) for (1 .. 70);
$aborted->query_safe('BEGIN');
$aborted->query_safe(rows(200, 20, 2));
sql("BEGIN; " . rows(210, 30, 3) . "SAVEPOINT a; " . rows(220, 30, 3) . "PREPARE TRANSACTION 'kept'");
sql("BEGIN; " . rows(230, 30, 4) . "PREPARE TRANSACTION 'gone'");

arm($node, 'history_begins', 'wait');
create_query($node, 'closed', 't', emit => 'close', options => $backfill);
create_query($node, 'live', 't', emit => 'update', options => $backfill);
create_query($node, 'total', 't', emit => 'update', select => $by_k, options => $backfill);
create_query($node, 'each', 't', emit => 'rows', select => 'SELECT ts, k, v, note FROM t WHERE v % 3 = 0', options => $backfill);
wait_reached($node, 'history_begins');

# From here on the log is read: all of this is in it, and in the snapshot, too
sql(rows(240, 100, 5));
sql(rows(245, 100, 6));
arm($node, 'history_after_snapshot', 'wait');
disarm($node, 'history_begins');
wait_reached($node, 'history_after_snapshot');

# This is in the log only
sql(rows(250, 100, 7));
sql('BEGIN; SAVEPOINT a; ' . rows(255, 50, 8) . 'ROLLBACK TO a; ' . rows(256, 50, 8) . 'COMMIT');
$long->query_safe('COMMIT');
$aborted->query_safe('ROLLBACK');
sql("COMMIT PREPARED 'kept'");
sql("ROLLBACK PREPARED 'gone'");
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_locks l JOIN stream_ckpt.pipelines p ON l.pid = p.reader_pid
		WHERE l.locktype = 'relation' AND l.relation >= 16384 AND l.mode <> 'AccessShareLock'
			AND l.relation NOT IN (SELECT oid FROM pg_class WHERE relnamespace = 'stream_ckpt'::regnamespace))),
	'0', 'nothing above AccessShareLock');
is($node->safe_psql('postgres', q(SELECT bool_and(backend_xid IS NULL) FROM pg_stat_activity a JOIN stream_ckpt.pipelines p ON a.pid = p.reader_pid)),
	't', 'no transaction id');
my $writer = start_writer($node, rows(260, 5, 9), clients => 4, transactions => 20);
disarm($node, 'history_after_snapshot');
ok(finish_writer($writer), 'writers go on');

sub check
{
	my ($what) = @_;

	sync_pipelines($node);
	results_ok($node, 'closed', "closed $what", table => 't', delay => '4 hours', synced => 1);
	results_ok($node, 'live', "live $what", emit => 'update', synced => 1);
	results_ok($node, 'total', "total $what", emit => 'update', synced => 1);
	results_ok($node, 'each', "each $what", emit => 'update', synced => 1);
	return;
}

check('after the history');
is(sql('SELECT string_agg(late_rows::text, \' \') FROM stream_ckpt.queries WHERE query <> \'without\'::regclass'), '0 0 0 0',
	'no row is late');
is(sql("SELECT count(*) FROM stream_ckpt.query_history"), '4', 'what was seen is stored');
sql(rows(300, 100, 10));
$node->stop('immediate');
$node->start;
wait_running($node);
sql(rows(310, 100, 11));
check('after a crash');

# verify() has nothing to object
is(sql("SELECT stream_ckpt.verify('live')"), '0', 'verify()');

# In random order of time, without a delay: every row is early enough.  Partitions with columns in another order.
sql(q(CREATE TABLE p (ts timestamptz, k int, v int) PARTITION BY RANGE (ts);
	CREATE TABLE p2 (v int, k int, ts timestamptz);
	ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM ('2024-01-02 UTC') TO ('2024-01-03 UTC');
	CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2024-01-01 UTC') TO ('2024-01-02 UTC');
	CREATE TABLE p_rest PARTITION OF p DEFAULT;
	INSERT INTO p SELECT timestamptz '2024-01-01 00:00 UTC' + random() * interval '2 days', i % 5, i FROM generate_series(1, 3000) i;
	INSERT INTO p VALUES (NULL, 1, 1), ('infinity', 2, 2), ('-infinity', 3, 3);));
attach($node, 'p');
create_query($node, "p_$_", 'p', emit => $_, size => '10 minutes', options => $backfill) for ('close', 'update');
sync_pipelines($node);
results_ok($node, 'p_close', 'windows of rows in any order', table => 'p', synced => 1);
results_ok($node, 'p_update', 'the same live', emit => 'update', synced => 1);
is(sql("SELECT string_agg(late_rows || ' ' || rows_in, ', ') FROM stream_ckpt.queries WHERE query IN ('p_close'::regclass, 'p_update')"),
	'0 3003, 0 3003', 'no row is late');
sql("INSERT INTO p SELECT timestamptz '2024-01-02 23:59 UTC' + i * interval '1 minute', i % 5, i FROM generate_series(1, 100) i");
results_ok($node, 'p_close', 'and on', table => 'p');
results_ok($node, 'p_update', 'the same live', emit => 'update', synced => 1);

# A table in the order of time needs little state; an empty one has no history; errors are those of a row.
sql("CREATE TABLE e (ts timestamptz, k int, v int)");
attach($node, 'e');
create_query($node, 'nothing', 'e', options => $backfill);
sync_pipelines($node);
is(sql('SELECT count(*) FROM nothing'), '0', 'an empty table');
sql("INSERT INTO e SELECT timestamptz '2024-01-01 UTC' + i * interval '7 seconds', i % 3, i FROM generate_series(1, 400) i");
results_ok($node, 'nothing', 'rows behind it', table => 'e');
create_query($node, 'letters', 'e', emit => 'update', options => "$backfill, on_error => 'dead_letter'",
	select => 'SELECT k, count(*) AS n, sum(1000 / (v % 40)) AS total FROM e GROUP BY k');
sync_pipelines($node);
is(sql(q(SELECT count(*), count(DISTINCT (lsn, ordinal)) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass)),
	'10|10', 'dead letters, each with its own number');
results_ok($node, 'letters', 'without them', synced => 1, emit => 'update',
	truth => 'SELECT k, count(*) AS n, sum(1000 / (v % 40)) AS total FROM e WHERE v % 40 <> 0 GROUP BY k');

# Paused while it is new: begins anew, or goes on behind its history if that was read by then.  Dropped: others go on
arm($node, 'history_in_scan', 'wait');
create_query($node, 'paused', 't', emit => 'update', select => $by_k, options => $backfill);
wait_reached($node, 'history_in_scan');
sql("SELECT stream_ckpt.pause_query('paused')");
wait_until($node, "SELECT status = 'running' FROM stream_ckpt.queries WHERE query = 'live'::regclass");
disarm($node, 'history_in_scan');
sql(rows(320, 100, 12));
check('while one is paused');
sql("SELECT stream_ckpt.resume_query('paused')");
results_ok($node, 'paused', 'resumed', emit => 'update');
arm($node, 'history_in_scan', 'wait');
create_query($node, 'dropped', 't', emit => 'update', select => $by_k, options => $backfill);
wait_reached($node, 'history_in_scan');
sql("SELECT stream_ckpt.drop_query('dropped')");
sql(rows(330, 100, 13));
check('one is dropped');
disarm($node, 'history_in_scan');

# The row type changes between the place from which the log is read, and the snapshot
arm($node, 'history_begins', 'wait');
create_query($node, 'changed', 'e', emit => 'update', options => $backfill, select => 'SELECT k, count(*) AS n, sum(v) AS total FROM e GROUP BY k');
wait_reached($node, 'history_begins');
sql("INSERT INTO e SELECT timestamptz '2024-01-02 UTC' + i * interval '7 seconds', i % 3, i FROM generate_series(1, 100) i");
sql("ALTER TABLE e ADD COLUMN newest text DEFAULT 'yes'");
sql("INSERT INTO e SELECT timestamptz '2024-01-02 01:00 UTC' + i * interval '7 seconds', i % 3, i FROM generate_series(1, 100) i");
disarm($node, 'history_begins');
results_ok($node, 'changed', 'a column came meanwhile', emit => 'update');

# A result that has rows isn't filled
arm($node, 'history_begins', 'wait');
create_query($node, 'filled', 'e', emit => 'update', options => $backfill, select => 'SELECT k, count(*) AS n FROM e GROUP BY k');
sql('INSERT INTO filled SELECT k, n FROM filled_definition WHERE k = 1');
disarm($node, 'history_begins');
wait_until($node, "SELECT message LIKE '%has rows already%' FROM stream_ckpt.queries WHERE query = 'filled'::regclass", 'it fails');
sql("DELETE FROM filled; SELECT stream_ckpt.resume_query('filled')");
results_ok($node, 'filled', 'emptied and resumed', emit => 'update');

$node->stop;
done_testing();
