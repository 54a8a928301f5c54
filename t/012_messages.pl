# What others can do to the messages that we put into the WAL, and to our slot: forged messages
# are ignored, a transaction that can't tell the workers isn't prepared, a dropped stream
# leaves no slot, a partition that comes by way of its parent is noticed.

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
create_query($node, 'r', 't', emit => 'update');
wait_running($node);
$node->safe_psql('postgres', q(
	INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 1, 1, 0);
	CREATE ROLE mallory LOGIN));
results_ok($node, 'r', 'before', emit => 'update');

# the bytes of a control message that drops the query (model/control.c)
my $query_id = $node->safe_psql('postgres', q(SELECT query_id FROM stream_ckpt.query WHERE relid = 'r'::regclass));
my $pipeline_id = $node->safe_psql('postgres', q(SELECT pipeline_id FROM stream_ckpt.pipeline WHERE name = 'default'));
my $relid = $node->safe_psql('postgres', q(SELECT 't'::regclass::oid));
for my $kind ('X', 'P', 'Q', 'I')
{
	my $forged = unpack 'H*', pack('C a s< l< q< L< L<', 1, $kind, 1, $pipeline_id, $query_id, $relid, 0);
	$forged .= unpack 'H*', pack('q< q<', 1 << 60, 1 << 60) if $kind eq 'I';
	$node->safe_psql('postgres',
		"SELECT pg_logical_emit_message($_, 'stream_ckpt', decode('$forged', 'hex'))",
		connstr => $node->connstr('postgres') . ' user=mallory')
	  for ('true', 'false');
}
$node->safe_psql('postgres',
	"SELECT pg_logical_emit_message(true, 'stream_ckpt/rows', repeat('x', 1000))",
	connstr => $node->connstr('postgres') . ' user=mallory');
$node->safe_psql('postgres', q(INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 1, 1, 0)));
results_ok($node, 'r', 'forged messages are ignored', emit => 'update');
is(counter($node, 'r', 'rows_in'), '2', 'the query has lost nothing');
is(query_late_rows($node, 'r'), '0', 'nor is a row late');
is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_ckpt.checkpoint_offset'), '1', 'its offset is there');

# PREPARE
for my $change (
	q(SELECT stream_ckpt.drop_query('r')), 'DROP VIEW r_definition', q(SELECT stream_ckpt.stop_pipeline('default')),
	'DROP EXTENSION stream_ckpt CASCADE')
{
	my ($ret, $stdout, $stderr) = $node->psql('postgres', "BEGIN; $change; PREPARE TRANSACTION 'p'");
	like($stderr, qr/cannot PREPARE a transaction that has changed streams/, "not prepared: $change");
}
$node->safe_psql('postgres', q(BEGIN; INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 1, 1, 0); PREPARE TRANSACTION 'p'));
$node->safe_psql('postgres', q(COMMIT PREPARED 'p'));
results_ok($node, 'r', 'rows can be prepared', emit => 'update');

# a partitioned table below the stream: truncated on its own, attached with what is below it,
# detached again
$node->safe_psql('postgres', q(
	CREATE TABLE root (ts timestamptz, k int, v int, txn int) PARTITION BY LIST (k);
	CREATE TABLE middle (ts timestamptz, v int, k int, txn int) PARTITION BY LIST (v);
	CREATE TABLE leaf PARTITION OF middle FOR VALUES IN (1, 2)));
attach($node, 'root');
attach($node, 'middle');
create_query($node, 'root_r', 'root', emit => 'update');
create_query($node, 'middle_r', 'middle', emit => 'update');
my $row = q(INSERT INTO leaf (ts, k, v, txn) VALUES ('2024-01-01 00:00 UTC', 7, 1, 0));
$node->safe_psql('postgres', "$row; TRUNCATE middle");
sync_pipelines($node);
$node->safe_psql('postgres', 'ALTER TABLE root ATTACH PARTITION middle FOR VALUES IN (7)');
$node->safe_psql('postgres', $row);
sync_pipelines($node);
is($node->safe_psql('postgres', 'SELECT n FROM root_r'), '1', 'attached with what is below it');
is($node->safe_psql('postgres', 'SELECT n FROM middle_r'), '2', 'a row of two streams');
$node->safe_psql('postgres', 'ALTER TABLE root DETACH PARTITION middle');
$node->safe_psql('postgres', $row);
sync_pipelines($node);
is($node->safe_psql('postgres', 'SELECT n FROM root_r'), '1', 'detached with what is below it');
is($node->safe_psql('postgres', 'SELECT n FROM middle_r'), '3', 'still a row of the other');

# dropped streams: with queries, and without
$node->safe_psql('postgres', 'DROP TABLE t, root, middle CASCADE');
wait_until($node, 'SELECT count(*) = 0 FROM pg_replication_slots', 'the slot is gone');
create_stream_table($node, 't2');
wait_running($node);
$node->safe_psql('postgres', 'DROP TABLE t2');
wait_until($node, 'SELECT count(*) = 0 FROM pg_replication_slots', 'the slot is gone again');

# gone and back in no time
for my $n (1 .. 10)
{
	create_stream_table($node, 't3');
	$node->safe_psql('postgres', 'DROP TABLE t3');
	create_stream_table($node, 't3');
	create_query($node, "r3_$n", 't3', emit => 'update');
	$node->safe_psql('postgres', q(INSERT INTO t3 VALUES ('2024-01-01 00:00 UTC', 1, 1, 0)));
	results_ok($node, "r3_$n", "dropped and made again, $n", emit => 'update');
	$node->safe_psql('postgres', 'DROP TABLE t3 CASCADE');
}

# a chain of partitions, each of which is a stream with a query of its own
my $depth = 10;
$node->safe_psql('postgres', "CREATE TABLE level0 (ts timestamptz, k int, v int, txn int) PARTITION BY RANGE (k)");
for my $i (1 .. $depth)
{
	my $rest = $i < $depth ? 'PARTITION BY RANGE (k)' : '';

	$node->safe_psql('postgres',
		"CREATE TABLE level$i PARTITION OF level@{[ $i - 1 ]} FOR VALUES FROM (0) TO (@{[ 1000 - $i ]}) $rest");
}
for my $i (0 .. $depth)
{
	attach($node, "level$i");
	create_query($node, "level${i}_result", "level$i", emit => 'update');
}
$node->safe_psql('postgres', "INSERT INTO level0 VALUES ('2024-01-01 00:00:00 UTC', 1, 2, 3), ('2024-01-01 00:00:01 UTC', 1, 4, 5)");
sync_pipelines($node);
results_ok($node, "level${_}_result", "partitions nested $depth levels deep: level $_", emit => 'update', synced => 1)
  for 0, 5, $depth;

$node->stop;
done_testing();
