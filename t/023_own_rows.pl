# The reader passes over the many rows that its own coordinator writes into a result table that is no
# stream; and over nothing else: a result table that is a stream, or is about to become one, and the rows of others.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $select = q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest
	FROM %s, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k);

$node->safe_psql('postgres',
	q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')));
create_stream_table($node, 't');
create_query($node, 'plain', 't', emit => 'update');
sync_pipelines($node);

# Bytes of transactions that were decoded for the pipeline's slot, up to what is in the WAL now.
sub decoded
{
	my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');

	wait_until($node, "SELECT decoded_lsn >= '$lsn' FROM stream_ckpt.pipelines WHERE pipeline = 'default'",
		'all is read');
	return $node->safe_psql('postgres', 'SELECT total_bytes FROM pg_stat_replication_slots');
}

# groups (20,000 by default) in the window of minute n (from 0)
sub insert_groups
{
	my ($minute, $groups) = @_;

	$groups //= 20_000;

	$node->safe_psql('postgres',
		qq(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $minute * interval '1 minute', i, i, $minute
			FROM generate_series(1, $groups) i));
	return;
}

# 20,000 rows take some megabytes; a transaction must follow for the figures to be reported.
sub checkpoint_bytes
{
	my $before = decoded();

	checkpoint_all($node);
	$node->safe_psql('postgres', q(INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 0, 0, 0)));
	return decoded() - $before;
}

insert_groups(0);
my $bytes = checkpoint_bytes();
cmp_ok($bytes, '<', 300_000, 'inserted result rows of no stream are not decoded');
insert_groups(0);
$bytes = checkpoint_bytes();
cmp_ok($bytes, '<', 300_000, 'nor are updated ones');
results_ok($node, 'plain', 'its rows are right', emit => 'update');

# values out of line, in the table's TOAST table
create_query($node, 'wide', 't', emit => 'update', select => q(
	SELECT w.window_start, w.window_end, k, string_agg(repeat(md5(v::text), 100), '') AS long
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k));
$node->safe_psql('postgres', 'ALTER TABLE wide ALTER long SET STORAGE EXTERNAL');
sync_pipelines($node);
$node->safe_psql('postgres', q(INSERT INTO t SELECT '2024-01-01 00:01 UTC', i, i, 1 FROM generate_series(1, 1000) i));
$bytes = checkpoint_bytes();
cmp_ok($bytes, '<', 300_000, 'nor are their values out of line');
$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('wide')));

# Many tables in one transaction, of which the reader has read the first piece of a first value: that it left out, so it
# leaves out the rest of it, however many tables follow meanwhile.
$node->safe_psql('postgres', q(SELECT count(stream_ckpt.create_query('wide' || n, $$
	SELECT w.window_start, w.window_end, k, repeat(md5(count(*)::text), 100) AS long
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k $$, emit => 'update', backfill => false))
	FROM generate_series(1, 34) n));
$node->safe_psql('postgres', join ';', map { "ALTER TABLE wide$_ ALTER long SET STORAGE EXTERNAL" } 1 .. 34);
sync_pipelines($node);
my $attempt = $node->safe_psql('postgres', q(SELECT attempt FROM stream_ckpt.pipelines));
$node->safe_psql('postgres', q(INSERT INTO t SELECT '2024-01-01 00:01:30 UTC', i, i, 1 FROM generate_series(1, 150) i));
decoded();
arm($node, 'coordinator_after_rows', 'wait', 3);
arm($node, 'reader_own_row', 'wait');
my $many = $node->background_psql('postgres');
$many->query_until(qr/asked/, "\\echo asked\nSELECT stream_ckpt.checkpoint();\n");
wait_reached($node, 'coordinator_after_rows');
wait_reached($node, 'reader_own_row');
disarm($node, 'coordinator_after_rows');
$many->quit;
disarm($node, 'reader_own_row');
sync_pipelines($node);
is($node->safe_psql('postgres', q(SELECT attempt FROM stream_ckpt.pipelines)), $attempt,
	'the reader goes on behind more tables than it can be told of');
is($node->safe_psql('postgres', q(SELECT count(*), sum(length(long)) FROM wide34)), '150|480000', 'and writes all rows');
$node->safe_psql('postgres', q(SELECT count(stream_ckpt.drop_query('wide' || n)) FROM generate_series(1, 30) n));
$node->safe_psql('postgres', q(INSERT INTO t SELECT '2024-01-01 00:01:30 UTC', i, i, 1 FROM generate_series(1, 1000) i));
$bytes = checkpoint_bytes();
# the first hundred rows of each table are decoded
cmp_ok($bytes, '<', 2_000_000, 'after that it is told again');
$node->safe_psql('postgres', q(SELECT count(stream_ckpt.drop_query('wide' || n)) FROM generate_series(31, 34) n));

# A result table that is a stream.
create_query($node, 'chained', 't');
$node->safe_psql('postgres', q(SELECT stream_ckpt.attach_stream('chained', event_time => 'window_start',
	watermark_delay => '1 hour')));
$node->safe_psql('postgres', q(SELECT stream_ckpt.create_query('counted', $$
	SELECT w.window_start, w.window_end, count(*) AS n, sum(total) AS total
	FROM chained, stream_ckpt.tumble(window_start, '1 minute') w GROUP BY w.window_start, w.window_end $$, emit => 'update', backfill => false)));
sync_pipelines($node);
insert_groups(2);
insert_groups(3);
insert_groups(4);
sync_pipelines($node);
sync_pipelines($node);    # and the rows that the first one wrote
is($node->safe_psql('postgres', 'SELECT count(*), sum(n), sum(total) FROM counted'),
	$node->safe_psql('postgres', 'SELECT count(DISTINCT window_start), count(*), sum(total) FROM chained'),
	'those of a stream are decoded');
cmp_ok($node->safe_psql('postgres', 'SELECT sum(n) FROM counted'), '>=', 40000, 'all of them');

# One that is attached while rows are being written: whoever attaches it waits for them.
# Few enough groups that a window's rows are all in the next checkpoint.
create_query($node, 'later', 't');
sync_pipelines($node);
insert_groups(6, 4_000);
insert_groups(7, 4_000);
my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
wait_until($node, "SELECT decoded_lsn >= '$lsn' FROM stream_ckpt.pipelines WHERE pipeline = 'default'", 'all is read');
arm($node, 'coordinator_before_commit', 'wait');
my $asker = $node->background_psql('postgres');
$asker->query_until(qr/asked/, "\\echo asked\nSELECT stream_ckpt.checkpoint();\n");
wait_reached($node, 'coordinator_before_commit');
my $other = $node->background_psql('postgres');
$other->query_until(qr/asked/, q(\echo asked
	SELECT stream_ckpt.attach_stream('later', event_time => 'window_start', watermark_delay => '1 hour');
	SELECT stream_ckpt.create_query('late', $$
		SELECT w.window_start, w.window_end, count(*) AS n, sum(total) AS total
		FROM later, stream_ckpt.tumble(window_start, '1 minute') w GROUP BY w.window_start, w.window_end $$,
		emit => 'update', backfill => false);
	));
wait_until($node, q(SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'object' AND NOT granted)),
	'attach_stream() waits for the rows that are being written');
pass('attach_stream() waits for the rows that are being written');
# rows of somebody else in the same table, meanwhile
$node->safe_psql('postgres', q(INSERT INTO later VALUES ('2024-01-01 00:30 UTC', '2024-01-01 00:31 UTC', 1, 1, 1, 1)));
disarm($node, 'coordinator_before_commit');
$asker->quit;
$other->quit;
sync_pipelines($node);
insert_groups(9);
insert_groups(10);
$node->safe_psql('postgres', q(INSERT INTO later SELECT '2024-01-01 00:40 UTC', '2024-01-01 00:41 UTC', i, 1, 1, 1
	FROM generate_series(1, 200) i));
sync_pipelines($node);
sync_pipelines($node);
is($node->safe_psql('postgres', q(SELECT count(*), sum(n) FROM late WHERE window_start > '2024-01-01 00:07 UTC')),
	$node->safe_psql('postgres', q(SELECT count(DISTINCT window_start), count(*) FROM later
		WHERE window_start > '2024-01-01 00:07 UTC' AND window_start <> '2024-01-01 00:30 UTC')),
	'after that its rows are decoded, those of others too');

$node->stop;
done_testing();
