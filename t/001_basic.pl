# The ordinary life of a continuous query: made, fed, checkpointed, stopped, started, dropped.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

create_stream_table($node, 'clicks', delay => '5 seconds');
create_query($node, 'per_minute', 'clicks', emit => 'close');
create_query($node, 'live', 'clicks', emit => 'update');
create_query($node, 'per_hour', 'clicks',
	emit => 'update',
	select =>
	  q(SELECT w.window_start, w.window_end, count(*) FILTER (WHERE v > 50) AS big,
			avg(v)::numeric(20, 6) AS mean, count(DISTINCT k) AS keys, string_agg(k::text, ',' ORDER BY v, k) AS list
		FROM clicks, stream_ckpt.tumble(ts, '1 hour') w
		WHERE v <> 13
		GROUP BY w.window_start, w.window_end
		HAVING count(*) > 3)
);
wait_running($node);

# batches of one row, of seven, of any number, and as they fit: never a difference
my $minute = 0;
for my $batch (1, 7, -1, 0)
{
	$node->append_conf('postgresql.conf', "stream_ckpt.debug_batch_rows = $batch");
	$node->reload;
	for my $transaction (1 .. 5)
	{
		$node->safe_psql('postgres',
			qq(INSERT INTO clicks
				SELECT timestamptz '2024-01-01 00:00 UTC' + ($minute + i / 20) * interval '1 minute' + i * interval '100 ms',
					nullif(i % 5, 0), i * 37 % 101, $transaction
				FROM generate_series(1, 60) i));
		$minute += 3;
	}
	results_ok($node, 'per_minute', "batch rows $batch: emit close",
		table => 'clicks', delay => '5 seconds');
	results_ok($node, 'live', "batch rows $batch: emit update", emit => 'update');
	results_ok($node, 'per_hour', "batch rows $batch: more aggregates",
		emit => 'update');
}
is($node->safe_psql('postgres', q(SELECT stream_ckpt.verify('per_minute'))),
	'0', 'verify() of emit close');
is($node->safe_psql('postgres', q(SELECT stream_ckpt.verify('live'))),
	'0', 'verify() of emit update');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM per_minute'),
	'>', 0, 'windows closed');
is(counter($node, 'live', 'rows_in'),
	$node->safe_psql('postgres', 'SELECT count(*) FROM clicks'),
	'every row was counted once');
is(query_late_rows($node, 'live'), '0', 'no late row');

# checkpoints by hand
$node->safe_psql('postgres',
	"INSERT INTO clicks VALUES ('2024-01-02 00:00 UTC', 1, 1, 0)");
my $id = $node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()');
cmp_ok($id, '>', 0, 'checkpoint() returns an id');
cmp_ok($node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()'),
	'>', $id, 'the next one is greater');

# stopped: rows wait in the WAL; started: they come
$node->safe_psql('postgres', q(SELECT stream_ckpt.stop_pipeline('default')));
wait_status($node, 'stopped');
my ($ret, $stdout, $stderr) =
  $node->psql('postgres', 'SELECT stream_ckpt.checkpoint()');
isnt($ret, 0, 'checkpoint() of a stopped pipeline is an error');
like($stderr, qr/stopped/, 'which says so');
$node->safe_psql('postgres',
	q(INSERT INTO clicks SELECT '2024-01-03 00:00 UTC'::timestamptz + i * interval '1 second', i % 3, i, 0
		FROM generate_series(1, 500) i));
$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default')));
wait_running($node);
results_ok($node, 'per_minute', 'rows of the time stopped: emit close',
	table => 'clicks', delay => '5 seconds');
results_ok($node, 'live', 'rows of the time stopped: emit update',
	emit => 'update');

# a clean restart of the server
$node->restart;
$node->safe_psql('postgres',
	q(INSERT INTO clicks VALUES ('2024-01-03 00:10 UTC', 1, 1, 0)));
results_ok($node, 'per_minute', 'after a restart: emit close',
	table => 'clicks', delay => '5 seconds');
results_ok($node, 'live', 'after a restart: emit update', emit => 'update');

# late rows: counted, not in the result
$node->safe_psql('postgres',
	q(INSERT INTO clicks VALUES ('2024-01-01 00:00 UTC', 1, 1, 0), ('2024-01-01 00:01 UTC', 2, 1, 0)));
sync_pipelines($node);
is(query_late_rows($node, 'per_minute'), '2', 'late rows are counted');

# NULL and infinite event times: counted, too
$node->safe_psql('postgres',
	q(INSERT INTO clicks VALUES (NULL, 1, 1, 0), ('infinity', 1, 1, 0), ('-infinity', 1, 1, 0)));
sync_pipelines($node);
is(counter($node, 'per_minute', 'null_event_times'),
	'3', 'rows without an event time are counted');

# updates, deletes, TRUNCATE are counted as ignored
$node->safe_psql('postgres',
	q(UPDATE clicks SET v = 0 WHERE ts = '2024-01-03 00:10 UTC'; DELETE FROM clicks WHERE ts = 'infinity'));
$node->safe_psql('postgres', 'TRUNCATE clicks');
sync_pipelines($node);
is( $node->safe_psql(
		'postgres',
		q(SELECT updates_ignored > 0, deletes_ignored > 0, truncates_ignored > 0
			FROM stream_ckpt.streams WHERE stream = 'clicks'::regclass)
	),
	't|t|t',
	'what is ignored is shown');

# no query, no stream, no slot left
$node->safe_psql(
	'postgres', q(
	SELECT stream_ckpt.drop_query('per_minute');
	SELECT stream_ckpt.drop_query('live', keep_result => true);
	DROP TABLE per_hour CASCADE;
	SELECT stream_ckpt.detach_stream('clicks')));
is( $node->safe_psql(
		'postgres',
		q(SELECT to_regclass('per_minute') IS NULL, to_regclass('live') IS NOT NULL,
			(SELECT count(*) FROM stream_ckpt.queries), (SELECT count(*) FROM stream_ckpt.streams))
	),
	't|t|0|0',
	'queries and stream are gone');
$node->safe_psql('postgres', 'DROP EXTENSION stream_ckpt');
wait_until($node, 'SELECT count(*) = 0 FROM pg_replication_slots',
	'the slot is gone');

$node->stop;
done_testing();
