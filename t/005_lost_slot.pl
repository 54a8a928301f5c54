# A slot that is ahead of the offset, or gone, is a state with a way out: never a silent gap.

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
create_query($node, 'closed', 't', emit => 'close');
wait_running($node);

my $slot = $node->safe_psql('postgres',
	q(SELECT slot_name FROM pg_replication_slots WHERE plugin = 'stream_ckpt'));
isnt($slot, '', 'there is a slot');

# an hour of event time: 60 closed windows, but for the last
sub hours_in_result
{
	return $node->safe_psql('postgres',
		q(SELECT string_agg(DISTINCT extract(hour FROM window_start AT TIME ZONE 'UTC')::text, ' ') FROM closed)
	);
}

sub stop_pipeline
{
	$node->safe_psql('postgres',
		q(SELECT stream_ckpt.stop_pipeline('default')));
	wait_status($node, 'stopped');
	return;
}

insert_hour($node, 0);
results_ok($node, 'closed', 'before', table => 't');

# the slot moves on without us
stop_pipeline();
insert_hour($node, 1);
$node->safe_psql('postgres',
	"SELECT pg_replication_slot_advance('$slot', pg_current_wal_lsn())");
try_psql($node, q(SELECT stream_ckpt.start_pipeline('default')));
wait_status($node, 'lost');
is(hours_in_result(), '0', 'nothing is written over the gap');

my ($ret, $stdout, $stderr) = $node->psql('postgres', 'SELECT stream_ckpt.sync()');
isnt($ret, 0, 'sync() is an error');
like($stderr, qr/lost/, 'which says why');
is( $node->safe_psql('postgres', 'SELECT count(*) FROM t'),
	'720', 'the table is untouched');

# neither a restart of the server nor another start makes it forget
$node->restart;
wait_status($node, 'lost');
insert_hour($node, 2);
is(hours_in_result(), '0', 'still nothing');

# the way out
$node->safe_psql('postgres',
	q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
wait_running($node);
insert_hour($node, 3);
insert_hour($node, 4);
sync_pipelines($node);
like(hours_in_result(), qr/\b3\b/, 'goes on after the gap');
unlike(hours_in_result(), qr/\b1\b/, 'the gap is a gap');
is( $node->safe_psql(
		'postgres',
		q(SELECT count(*) FROM
			((SELECT * FROM closed WHERE window_start >= '2024-01-01 03:00 UTC'
			  EXCEPT ALL
			  SELECT * FROM closed_definition)
			 UNION ALL
			 (SELECT * FROM closed_definition
			  WHERE window_start >= '2024-01-01 03:00 UTC' AND window_end <= (SELECT max(ts) FROM t)
			  EXCEPT ALL
			  SELECT * FROM closed)) d)
	),
	'0',
	'windows after the gap are exact');

# the slot is dropped
stop_pipeline();
insert_hour($node, 5);
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$slot')");
try_psql($node, q(SELECT stream_ckpt.start_pipeline('default')));
wait_status($node, 'lost');
unlike(hours_in_result(), qr/\b5\b/, 'nothing is written without a slot');
$node->safe_psql('postgres',
	q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
wait_running($node);
insert_hour($node, 7);
insert_hour($node, 8);
sync_pipelines($node);
like(hours_in_result(), qr/\b7\b/, 'goes on with a new slot');
unlike(hours_in_result(), qr/\b5\b/, 'the gap is a gap');

# a slot of that name which isn't ours is neither used nor dropped
stop_pipeline();
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$slot'); SELECT pg_create_logical_replication_slot('$slot', 'pgoutput')");
try_psql($node, q(SELECT stream_ckpt.start_pipeline('default')));
wait_status($node, 'lost');
like($node->safe_psql('postgres', q(SELECT message || hint FROM stream_ckpt.pipelines)),
	qr/another output plugin.*pg_drop_replication_slot/, 'which says what is in the way');
($ret, $stdout, $stderr) = $node->psql('postgres', q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
like($stderr, qr/replication slot "$slot" is not one of stream_ckpt's.*HINT:  Drop it/s, 'and so does accept_gap');
is($node->safe_psql('postgres', "SELECT plugin FROM pg_replication_slots WHERE slot_name = '$slot'"), 'pgoutput', 'it is still there');
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$slot')");
$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
wait_running($node);

# and once more after a crash: the new slot and offset are durable
$node->stop('immediate');
$node->start;
insert_hour($node, 9);
sync_pipelines($node);
like(hours_in_result(), qr/\b8\b/, 'goes on after a crash');
is( $node->safe_psql(
		'postgres',
		q(SELECT status FROM stream_ckpt.pipelines)),
	'running',
	'and is running');

# a query that no worker has seen begins at the gap's end, on as many tasks as it wants
$node->safe_psql('postgres', q(SELECT stream_ckpt.alter_pipeline('default', parallelism => 2)));
sync_pipelines($node);
stop_pipeline();
create_query($node, 'shared', 't', options => 'parallelism => 2');
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$slot')");
my $attempt = $node->safe_psql('postgres', q(SELECT attempt FROM stream_ckpt.pipelines));
$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
wait_running($node);
insert_hour($node, 10);
wait_until($node, q(SELECT EXISTS (SELECT FROM stream_ckpt.checkpoint_offset o JOIN stream_ckpt.query q USING (query_id)
	WHERE q.relid = 'shared'::regclass AND o.tasks = 2)), 'it runs on two tasks');
is($node->safe_psql('postgres', q(SELECT attempt FROM stream_ckpt.pipelines)), $attempt + 1, 'in the first attempt');

$node->stop;
done_testing();
