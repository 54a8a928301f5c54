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

$node->stop;
done_testing();
