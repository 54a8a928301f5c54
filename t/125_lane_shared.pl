# The lane (t/124_backfill_lane.pl) among others: dumps, pipelines that send to it at once, workers.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.debug_lane_blocks = 0\nstream_ckpt.max_pipelines = 16\nmax_worker_processes = 40\n", draw => { tasks => [1] });

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

sub new_query
{
	my ($name, $pipeline, $options) = @_;
	sql("SELECT stream_ckpt.create_query('$name', 'SELECT k, count(*) AS n FROM t GROUP BY k', pipeline => '$pipeline'" . ($options // '') . ')');
	return;
}

sub where
{
	return sql(q(SELECT string_agg(query || ' ' || pipeline || coalesce('>' || target, ''), ', ' ORDER BY query::text COLLATE "C")
		FROM stream_ckpt.queries), $_[0]);
}

create_stream_table($node, 't', delay => '1 day');
sql("INSERT INTO t SELECT '2024-01-01 UTC', i % 3, i, 0 FROM generate_series(1, 30) i");
sql("SELECT stream_ckpt.create_pipeline('named')");
new_query('there', 'named');
sync_pipelines($node);

# The lane, whose owner's name another server may not have, is in no dump: its queries come to their own pipelines.
sql('CREATE DATABASE copy');
arm($node, 'history_after_scan', 'wait');
new_query('new', 'named');
wait_reached($node, 'history_after_scan');
is(where(), 'new backfill>named, there named', 'the lane has a query');
my $file = PostgreSQL::Test::Utils::tempdir() . '/lane.sql';
$node->run_log([ 'pg_dump', '-f', $file, '-d', $node->connstr('postgres') ]);
disarm($node, 'history_after_scan');
unlike(slurp_file($file), qr/\tbackfill\t/, 'the lane is not in the dump');
$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $file, '-d', $node->connstr('copy') ], 'the dump is restored');
is(where('copy'), 'new named, there named', 'its query is in its own pipeline');
is(sql('SELECT string_agg(name, \' \' ORDER BY name) FROM stream_ckpt.pipeline', 'copy'), 'default named', 'and there is no lane');
sql(q(SELECT stream_ckpt.start_pipeline('named', accept_gap => true)), 'copy');
wait_until($node, q(SELECT n = 10 FROM new WHERE k = 1), 'it begins with its history', 'copy');
sql('DROP DATABASE copy WITH (FORCE)');

# Two pipelines send to it at once: the one that comes later sends again, and its attempt goes on.
wait_until($node, q(SELECT pipeline = 'named' AND target IS NULL FROM stream_ckpt.queries WHERE query = 'new'::regclass), 'it is home');
wait_until($node, q(SELECT NOT EXISTS (SELECT FROM pg_replication_slots s, stream_ckpt.pipeline p
	WHERE p.lane AND s.slot_name LIKE '%\_' || p.pipeline_id)), 'the lane is gone');
sql("SELECT stream_ckpt.create_pipeline('other', checkpoint_interval => '2 seconds')");
new_query('beside', 'other', ', backfill => false');
sync_pipelines($node);
my $log = -s $node->logfile;
arm($node, 'lane_before_commit', 'wait', 1);
new_query('one', 'named');
wait_reached($node, 'lane_before_commit');
new_query('two', 'other');
is(sql(q(SELECT pipeline FROM stream_ckpt.queries WHERE query = 'two'::regclass)), 'other', 'the second one waits for its turn');
disarm($node, 'lane_before_commit');
sync_pipelines($node);
results_ok($node, $_, "two at once: $_", emit => 'update', synced => 1) for qw(one two there);
wait_until($node, q(SELECT count(*) = 0 FROM stream_ckpt.queries WHERE pipeline = 'backfill' OR target IS NOT NULL), 'both are home');
unlike(slurp_file($node->logfile, $log), qr/tuple concurrently updated|duplicate key/, 'nobody is in the way of the other one');

# One that wants more tasks than the lane has comes to its queries all the same, and changes nothing of their attempt.
sql("SELECT stream_ckpt.create_pipeline('wide', parallelism => 2)");
new_query('first', 'wide', ', backfill => false');
sync_pipelines($node);
wait_until($node, q(SELECT NOT EXISTS (SELECT FROM pg_replication_slots s, stream_ckpt.pipeline p
	WHERE p.lane AND s.slot_name LIKE '%\_' || p.pipeline_id)), 'the lane is gone again');
arm($node, 'history_after_scan', 'wait');
new_query('narrow', 'named');
wait_reached($node, 'history_after_scan');
new_query('two_tasks', 'wide', ', parallelism => 2');
wait_until($node, q(SELECT pipeline = 'backfill' FROM stream_ckpt.queries WHERE query = 'two_tasks'::regclass), 'it is in the lane');
is(sql('SELECT parallelism FROM stream_ckpt.pipeline WHERE lane'), '1', 'which has as many tasks as before');
disarm($node, 'history_after_scan');
sync_pipelines($node);
wait_until($node, q(SELECT pipeline = 'wide' AND target IS NULL FROM stream_ckpt.queries WHERE query = 'two_tasks'::regclass), 'it is home');
sql("INSERT INTO t SELECT '2024-01-01 UTC', i % 3, i, 0 FROM generate_series(1, 30) i");
sync_pipelines($node);
results_ok($node, $_, "more tasks at home: $_", emit => 'update', synced => 1) for qw(narrow two_tasks);

# Somebody has made a pipeline of the lane's name, and doesn't commit: the home waits for nobody, others of it go on.
$node->safe_psql('postgres', 'CREATE DATABASE open');
sql(q(CREATE EXTENSION stream_ckpt; CREATE TABLE t (ts timestamptz, k int, v int, batch int);
	SELECT stream_ckpt.attach_stream('t', event_time => 'ts', watermark_delay => '1 day')), 'open');
sql(q(SELECT stream_ckpt.create_query('there', 'SELECT k, count(*) AS n FROM t GROUP BY k')), 'open');
sync_pipelines($node, 'open');
sql("INSERT INTO t SELECT '2024-01-01 UTC', i % 3, i, 0 FROM generate_series(1, 30) i", 'open');
my $session = $node->background_psql('open');
$session->query_safe(q(BEGIN; SELECT stream_ckpt.create_pipeline('backfill')));
$log = -s $node->logfile;
sql(q(SELECT stream_ckpt.create_query('new', 'SELECT k, count(*) AS n FROM t GROUP BY k')), 'open');
is(sql(q(SELECT stream_ckpt.sync('60 seconds', 'there') IS NOT NULL), 'open'), 't', 'others go on beside an open transaction');
sql("INSERT INTO t VALUES ('2024-01-01 UTC', 1, 1, 0)", 'open');
is(sql(q(SELECT stream_ckpt.sync('60 seconds', 'there') IS NOT NULL), 'open'), 't', 'and go on');
$session->query_safe('COMMIT');
$session->quit;
wait_until($node, q(SELECT n = 11 FROM new WHERE k = 1), 'the new one begins when it has ended', 'open');
is(sql('SELECT string_agg(name, \' \' ORDER BY pipeline_id) FROM stream_ckpt.pipeline', 'open'), 'default backfill backfill_2', 'in a lane of another name');
unlike(slurp_file($node->logfile, $log), qr/duplicate key/, 'and nobody is in the way of the other one');

$node->stop;
done_testing();
