# What a query that begins with its stream's history takes meanwhile: no lock above ACCESS SHARE, no transaction id, not a
# row that others delete, and not for long what others wait for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', '', draw => {});
my $select = 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k';
my $options = 'backfill => true';

sub sql { return $node->safe_psql('postgres', $_[0]); }

create_stream_table($node, 't', delay => '1 day');
sql("INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 20, i, 0 FROM generate_series(1, 5000) i");

# Locks and transaction ids of all our processes, while the table is read
arm($node, 'history_in_scan', 'wait');
create_query($node, 'q', 't', emit => 'update', select => $select, options => $options);
wait_reached($node, 'history_in_scan');
is(sql(q(SELECT string_agg(DISTINCT c.relname || ' ' || l.mode, ', ') FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
		JOIN pg_stat_activity a USING (pid) WHERE a.backend_type LIKE 'stream_ckpt%' AND c.relnamespace = 'public'::regnamespace)),
	't AccessShareLock', 'one lock, and none above ACCESS SHARE');
is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt reader%' AND backend_xid IS NOT NULL)), '0', 'no transaction id');
my ($ret, $out, $err) = $node->psql('postgres', q(SELECT stream_ckpt.sync('200 ms')));
like($err, qr/sync\(\) timed out while query "q" begins with the rows of "t"/, 'sync() names the query');

# Who waits for the table's lock gets it, and reading begins anew
my $waiting = $node->background_psql('postgres', on_error_stop => 1);
$waiting->query_until(qr/begun/, "\\echo begun\nALTER TABLE t ADD COLUMN another int;\n");
wait_until($node, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE t%'), 'ALTER TABLE waits');
disarm($node, 'history_in_scan');
wait_until($node, q(SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'another'), 'ALTER TABLE goes on');
like(slurp_file($node->logfile), qr/gave way to a command that waits for its lock/, 'reading gave way');
is(sql("SELECT stream_ckpt.sync('10 minutes', 'q') IS NOT NULL"), 't', 'sync() of the query waits for that');
results_ok($node, 'q', 'the rows are read again', emit => 'update');
$waiting->quit;

# Rows that are deleted and vacuumed while they are read
my $before = sql("SELECT count(*), sum(v) FROM t");
arm($node, 'history_after_snapshot', 'wait');
create_query($node, 'deleted', 't', emit => 'update', select => $select, options => $options);
wait_reached($node, 'history_after_snapshot');
sql('DELETE FROM t WHERE v % 2 = 0');
sql('VACUUM t');
disarm($node, 'history_after_snapshot');
sync_pipelines($node);
is(sql('SELECT sum(n), sum(total) FROM deleted'), $before, 'rows that were deleted and vacuumed meanwhile');
is(counter($node, 'deleted', 'deletes_ignored'), '2500', 'their deletes are ignored, as all');

# A lock that isn't to be had is the query's failure, and tried again
my $locking = $node->background_psql('postgres', on_error_stop => 1);
arm($node, 'history_begins', 'wait');
create_query($node, 'locked', 't', emit => 'update', select => $select, options => $options);
wait_reached($node, 'history_begins');
$locking->query_safe('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
disarm($node, 'history_begins');
wait_until($node, q(SELECT status = 'retrying' AND message LIKE 'could not obtain lock%' FROM stream_ckpt.queries WHERE query = 'locked'::regclass),
	'it waits for the lock');
is(sql("SELECT status FROM stream_ckpt.queries WHERE query = 'q'::regclass"), 'running', 'others go on');
$locking->query_safe('COMMIT');
$locking->quit;
wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.queries WHERE query = 'locked'::regclass), 'it goes on');
results_ok($node, 'locked', 'and has all rows', emit => 'update');

$node->stop;
done_testing();
