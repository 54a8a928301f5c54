# A transaction that is in the log and that nobody sees yet, because its commit waits for a standby: the history of a
# query that reads the log from behind it on has its rows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "synchronous_commit = local\n");

create_stream_table($node, 't');
$node->safe_psql('postgres',
	q(INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 3, i, 0 FROM generate_series(1, 200) i));
wait_running($node);

# a commit that waits, and a checkpoint behind it: no query reads the stream, so nobody waits for it
$node->safe_psql('postgres', q(ALTER SYSTEM SET synchronous_standby_names = 'nobody'));
$node->reload;
my $waiting = $node->background_psql('postgres', on_error_stop => 1);
$waiting->query_until(qr/begun/, q(\echo begun
	SET synchronous_commit = on;
	INSERT INTO t SELECT timestamptz '2024-01-01 00:10 UTC' + i * interval '1 second', i % 3, i, 1 FROM generate_series(1, 100) i;
));
wait_until($node, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'), 'a commit waits');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), '200', 'nobody sees its rows');
my $behind = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
checkpoint_all($node);
is($node->safe_psql('postgres', "SELECT lsn >= '$behind' FROM stream_ckpt.pipeline_state"), 't', 'the log is read from behind it on');

arm($node, 'history_waits', 'wait');
create_query($node, 'live', 't', emit => 'update', options => 'backfill => true');
wait_reached($node, 'history_waits');
is($node->safe_psql('postgres', 'SELECT count(*) FROM live'), '0', 'the history waits for it');
disarm($node, 'history_waits');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
results_ok($node, 'live', 'all rows are in', emit => 'update');
is($node->safe_psql('postgres', 'SELECT sum(n) FROM live'), '300', 'those of the commit that waited, too');
$waiting->quit;

$node->stop;
done_testing();
