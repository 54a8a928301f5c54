# What all our processes hold all the while that a query begins with its stream's history: no lock on the stream's tables above
# ACCESS SHARE, and until the result is written no transaction id and no snapshot that stays, but the reader's snapshot.
#
# Samples are taken while the reader is held, step by step.  A process that has its work done for a moment may have an id
# then; one that stays as long as the reader is held would be there however long we wait, and however slow the machine
# is.  So each sample is followed by a wait until all ids and snapshots in it are gone.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', '', draw => {});
my $by_k = 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k';
my $samples = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Locks of ours on users' relations, without those on results that aren't being begun
my $locks = q(SELECT string_agg(DISTINCT c.relname || ' ' || l.mode, ', ' ORDER BY c.relname || ' ' || l.mode)
	FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_stat_activity a USING (pid)
	WHERE a.backend_type LIKE 'stream_ckpt%' AND c.relnamespace <> ALL ('{pg_catalog,stream_ckpt}'::regnamespace[])
		AND c.relname NOT LIKE 'other%');

# Ids, and snapshots but the reader's: as an array of "pid id"
my $held = q(SELECT coalesce(array_agg(DISTINCT h), '{}') FROM (
	SELECT pid || ' xid ' || backend_xid AS h FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt%' AND backend_xid IS NOT NULL
	UNION ALL SELECT pid || ' xmin ' || backend_xmin FROM pg_stat_activity
		WHERE backend_type LIKE 'stream_ckpt%' AND backend_type NOT LIKE '%reader%' AND backend_xmin IS NOT NULL) s);

sub sample
{
	my ($expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $now = sql($held);

	$samples++;
	is(sql($locks), $expected, "$what: locks");
	is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt reader%' AND backend_xid IS NOT NULL)), '0',
		"$what: the reader has no transaction id");
	ok(wait_until($node, "SELECT NOT ($held) && '$now'::text[]", 'nobody keeps an id or a snapshot'), "$what: no id stays") if $now ne '{}';
	return;
}

sub rows
{
	my ($from, $n) = @_;

	return "INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 20, i FROM generate_series($from, $from + $n - 1) i;";
}

sql('CREATE TABLE t (ts timestamptz, k int, v int) PARTITION BY RANGE (ts);
	CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (MINVALUE) TO (\'2024-01-01 01:00 UTC\');
	CREATE TABLE t2 PARTITION OF t DEFAULT; CREATE INDEX ON t (k)');
attach($node, 't', delay => '1 day');
create_query($node, 'other', 't', emit => 'update', select => $by_k);
sync_pipelines($node);
sql(rows(1, 8192));
my $tables = 't AccessShareLock, t1 AccessShareLock, t2 AccessShareLock';

# Before the snapshot, and with it
arm($node, $_, 'wait') for ('history_begins', 'history_before_snapshot', 'history_after_snapshot');
create_query($node, 'closed', 't', options => 'backfill => true');
create_query($node, 'live', 't', emit => 'update', select => $by_k, options => 'backfill => true');
wait_reached($node, 'history_begins');
sample('', 'before it begins');
disarm($node, 'history_begins');
wait_reached($node, 'history_before_snapshot');
sample($tables, 'locked');
disarm($node, 'history_before_snapshot');
wait_reached($node, 'history_after_snapshot');
sample($tables, 'with its snapshot');
arm($node, 'history_in_scan', 'wait');
disarm($node, 'history_after_snapshot');

# All the while, both passes, with writers
for my $step (1 .. 8)
{
	wait_reached($node, 'history_in_scan');
	sql(rows(10000 + $step * 100, 50));
	sample($tables, "step $step");
	arm($node, 'history_after_scan', 'wait') if $step == 8;
	arm($node, 'history_in_scan', 'wait', 2);
}
disarm($node, 'history_in_scan');
wait_reached($node, 'history_after_scan');
sample($tables, 'all is read');
arm($node, 'coordinator_before_commit', 'wait');
disarm($node, 'history_after_scan');

# The result is written: nothing is held of the stream any more
wait_reached($node, 'coordinator_before_commit');
unlike(sql($locks), qr/\bt[12]? /, 'written: no lock on the stream');
like(sql($held), qr/\d+ xid \d+/, 'an id is seen where there is one');
disarm($node, 'coordinator_before_commit');
results_ok($node, 'live', 'the result', emit => 'update');
results_ok($node, 'closed', 'with windows', table => 't', delay => '1 day', synced => 1);
is($samples, 12, 'samples');

# In a database without a slot, while it is being made
sql('CREATE DATABASE fresh');
sql("CREATE TABLE held (a int); BEGIN; INSERT INTO held VALUES (1); PREPARE TRANSACTION 'old'");
$node->safe_psql('fresh', "BEGIN; CREATE EXTENSION stream_ckpt; CREATE TABLE t (ts timestamptz, k int, v int);" . rows(1, 10) . "
	SELECT stream_ckpt.attach_stream('t', 'ts'); SELECT stream_ckpt.create_query('q', '$by_k'); COMMIT");
wait_until($node, q(SELECT backfill_phase = 'making the slot' FROM stream_ckpt.queries), 'the slot is being made', 'fresh');
is($node->safe_psql('fresh', $locks), '', 'locks of who makes the slot');
my $now = sql($held);
ok(wait_until($node, "SELECT NOT ($held) && '$now'::text[]", 'nobody keeps an id or a snapshot'), 'no id or snapshot stays');
sql("COMMIT PREPARED 'old'");
sync_pipelines($node, 'fresh');
is($node->safe_psql('fresh', 'SELECT sum(n) FROM q'), '10', 'the result there');

$node->stop;
done_testing();
