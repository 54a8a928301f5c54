# State larger than memory, case by case: pieces of a group that only have NULLs; a query that is compiled again while
# result rows are due; the same numeric key with several scales, and a restart that reads it whole; tasks that keep
# their key groups when their number changes; one group that is larger than memory.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "max_parallel_workers_per_gather = 0\nmax_worker_processes = 40
stream_ckpt.debug_task_memory = 200kB\nstream_ckpt.debug_bucket_bytes = 500\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql(q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')));

sub set_memory
{
	my (@settings) = @_;

	$node->append_conf('postgresql.conf', join("\n", @settings));
	$node->reload;
	return;
}

# How many runs of a query its tasks have written by themselves.
sub runs_of
{
	return sql("SELECT count(*) FROM stream_ckpt.state_run JOIN stream_ckpt.query USING (query_id)
		WHERE relid = '$_[0]'::regclass AND seq = 0 AND get_byte(data, 6) & 8 <> 0");
}

#
# Another owner's query, which holds nothing, and is the first one in the task all the time
#
sql('CREATE TABLE idle_t (ts timestamptz, k int); CREATE ROLE idler; GRANT CREATE ON SCHEMA public TO idler; GRANT SELECT ON idle_t TO idler');
attach($node, 'idle_t');
sql(q(SET ROLE idler; SELECT stream_ckpt.create_query('idle', 'SELECT w.window_start, w.window_end, k, count(*) AS n
	FROM idle_t, stream_ckpt.tumble(ts, ''1 hour'') w GROUP BY w.window_start, w.window_end, k')));
wait_running($node);

#
# A sum whose first rows are NULL
#
sql('CREATE TABLE nulls_t (ts timestamptz, k int, v int, w smallint)');
attach($node, 'nulls_t');
create_query($node, 'nulls', 'nulls_t',
	select => q(SELECT w.window_start, w.window_end, k, sum(v) AS total, sum(nulls_t.w) AS small, min(v) AS least, bool_or(v > 0) AS some, count(*) AS n
		FROM nulls_t, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end, k));
wait_running($node);
for my $value ('NULL', 5, 'NULL', 7)
{
	sql("INSERT INTO nulls_t SELECT '2024-01-01 00:00 UTC', i, $value, $value FROM generate_series(1, 6000) i");
	checkpoint_all($node);
}
cmp_ok(runs_of('nulls'), '>', 0, 'a window was spilled');
sql("INSERT INTO nulls_t VALUES ('2024-01-01 02:00 UTC', 0, 0, 0)");
results_ok($node, 'nulls', 'a piece with NULLs only hides nothing', table => 'nulls_t');
sql(q(SELECT stream_ckpt.drop_query('nulls')));

#
# All is lost before the first checkpoint of a query that has spilled
#
sql('CREATE TABLE early_t (ts timestamptz, k int)');
attach($node, 'early_t');
create_query($node, 'early', 'early_t', select => q(SELECT w.window_start, w.window_end, k, count(*) AS n
	FROM early_t, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end, k));
sql("INSERT INTO early_t SELECT '2024-01-01 00:00 UTC', i FROM generate_series(1, 6000) i");
wait_until($node, "SELECT count(*) > 0 FROM stream_ckpt.state_run JOIN stream_ckpt.query USING (query_id) WHERE relid = 'early'::regclass",
	'a window is spilled');
is(sql("SELECT count(*) FROM stream_ckpt.checkpoint_offset JOIN stream_ckpt.query USING (query_id) WHERE relid = 'early'::regclass"),
	'0', 'before its first checkpoint');
lose_state($node, 'task');
sql("INSERT INTO early_t SELECT '2024-01-01 00:00 UTC', i FROM generate_series(3000, 9000) i");
sql("INSERT INTO early_t VALUES ('2024-01-01 02:00 UTC', 0)");
results_ok($node, 'early', 'lost before the first checkpoint', table => 'early_t');
sql(q(SELECT stream_ckpt.drop_query('early')));

#
# Compiled again between the last rows and the barrier
#
sql('CREATE FUNCTION same(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 + 0 $$');
# emit update, and emit close with rows that come late
my %compiled = (update => '', close => "allowed_lateness => '1 day'");
for my $emit (sort keys %compiled)
{
	sql("CREATE TABLE ${emit}_t (ts timestamptz, k int, v int)");
	attach($node, "${emit}_t");
	create_query($node, "${emit}_q", "${emit}_t",
		emit => $emit,
		options => $compiled{$emit},
		select => "SELECT w.window_start, w.window_end, k, sum(same(v)) AS total, count(*) AS n FROM ${emit}_t, stream_ckpt.tumble(ts, '1 hour') w
			GROUP BY w.window_start, w.window_end, k");
	wait_running($node);
	sql("INSERT INTO ${emit}_t SELECT '2024-01-01 00:00 UTC', i, i FROM generate_series(1, 6000) i");
	sql("INSERT INTO ${emit}_t VALUES ('2024-01-01 02:00 UTC', 0, 0)") if $emit eq 'close';
	checkpoint_all($node);
	cmp_ok(runs_of("${emit}_q"), '>', 0, "a window was spilled: $emit");
	my $rows = sql('SELECT sum(rows_in) FROM stream_ckpt.tasks');
	sql("INSERT INTO ${emit}_t SELECT '2024-01-01 00:00 UTC', i * 1000, 1 FROM generate_series(1, 12) i");
	wait_until($node, "SELECT sum(rows_in) >= $rows + 12 FROM stream_ckpt.tasks", 'the rows are in');
	sql("CREATE OR REPLACE FUNCTION same(int) RETURNS int LANGUAGE sql IMMUTABLE AS \$\$ SELECT \$1 * length('$emit') / length('$emit') \$\$");
	checkpoint_all($node);
	sync_pipelines($node);
	results_ok($node, "${emit}_q", "rows that were due before it was compiled again: $emit", table => "${emit}_t", emit => $emit, synced => 1);
	sql("SELECT stream_ckpt.drop_query('${emit}_q')");
}

#
# 1.0 and 1.00 are one key, also where a restart reads all
#
sql('CREATE TABLE scales_t (ts timestamptz, k numeric)');
attach($node, 'scales_t');
create_query($node, 'scales', 'scales_t',
	options => "allowed_lateness => '1 day'",
	select => q(SELECT w.window_start, w.window_end, k, count(*) AS n FROM scales_t, stream_ckpt.tumble(ts, '1 hour') w
		GROUP BY w.window_start, w.window_end, k));
wait_running($node);
sub scales_rows
{
	my ($zeros, $n) = @_;

	sql("INSERT INTO scales_t SELECT '2024-01-01 00:00 UTC', (i || '.$zeros')::numeric FROM generate_series(1, $n) i");
	checkpoint_all($node);
	return;
}
scales_rows('0', 4000);
scales_rows('00', 400);
cmp_ok(runs_of('scales'), '>', 0, 'a window was spilled');
sql("INSERT INTO scales_t VALUES ('2024-01-01 02:00 UTC', 0)");
checkpoint_all($node);
sync_pipelines($node);
scales_rows('0', 40);
set_memory('stream_ckpt.debug_task_memory = 0');
$node->restart;
wait_running($node);
scales_rows('000', 40);
sync_pipelines($node);
is( sql('SELECT count(*) FROM (SELECT k::float8 AS k, n FROM scales EXCEPT ALL
	SELECT k::float8, count(*) FROM scales_t WHERE ts < \'2024-01-01 01:00 UTC\' GROUP BY k) d'),
	'0', 'each row counts once');
is(sql('SELECT sum(n) FROM scales'), sql("SELECT count(*) FROM scales_t WHERE ts < '2024-01-01 01:00 UTC'"), 'and none is missing');
sql(q(SELECT stream_ckpt.drop_query('scales')));

#
# Of 15 and of 16 tasks the first has the same key groups
#
set_memory('stream_ckpt.debug_task_memory = 30kB');
sql(q(SELECT stream_ckpt.alter_pipeline('default', parallelism => 16)));
sql('CREATE TABLE ranges_t (ts timestamptz, k int, v int)');
attach($node, 'ranges_t');
create_query($node, 'ranges', 'ranges_t',
	options => 'parallelism => 15',
	select => q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM ranges_t, stream_ckpt.tumble(ts, '1 hour') w
		GROUP BY w.window_start, w.window_end, k));
wait_running($node);
sub ranges_rows
{
	sql("INSERT INTO ranges_t SELECT '2024-01-01 00:00 UTC', i, i % 7 FROM generate_series(1, 30000) i");
	checkpoint_all($node);
	return;
}
ranges_rows() for 1 .. 2;
cmp_ok(sql("SELECT count(*) FROM stream_ckpt.state_run JOIN stream_ckpt.query USING (query_id) WHERE relid = 'ranges'::regclass AND seq = 0 AND key_group = 0"),
	'>', 0, 'the first task has spilled');
sql("SELECT stream_ckpt.alter_query('ranges', parallelism => 16)");
ranges_rows();
my $coordinator = pid_of($node, 'coordinator');
kill 'TERM', $coordinator;
wait_restarted($node, 'coordinator', $coordinator);
wait_running($node);
ranges_rows();
sql("INSERT INTO ranges_t VALUES ('2024-01-01 02:00 UTC', 0, 0)");
results_ok($node, 'ranges', 'from 15 to 16 tasks', table => 'ranges_t');
sql(q(SELECT stream_ckpt.drop_query('ranges')));

#
# Open windows of which a task has no groups take its memory, too
#
sql('CREATE TABLE empty_t (ts timestamptz, k int)');
attach($node, 'empty_t', delay => '1000 hours');
create_query($node, 'empty', 'empty_t',
	options => 'parallelism => 16',
	select => q(SELECT w.window_start, w.window_end, k, count(*) AS n FROM empty_t, stream_ckpt.tumble(ts, '1 hour') w
		GROUP BY w.window_start, w.window_end, k));
wait_running($node);
for my $key (1, 1, 2)
{
	sql("INSERT INTO empty_t SELECT '2024-01-01 00:00 UTC'::timestamptz + i * interval '1 hour', $key FROM generate_series(1, 200) i");
	checkpoint_all($node);
}
is(counter($node, 'empty', "concat_ws(' ', status, message)"), 'running', 'windows without groups are no reason to fail');
sql(q(INSERT INTO empty_t VALUES ('2024-03-01 00:00 UTC', 0)));
results_ok($node, 'empty', 'and have groups later', table => 'empty_t', delay => '1000 hours');
sql(q(SELECT stream_ckpt.drop_query('empty')));
sql(q(SELECT stream_ckpt.alter_pipeline('default', parallelism => 1)));

#
# One group that is larger than what a task may have is an error when it is needed whole, not the end of the server
#
set_memory('stream_ckpt.debug_task_memory = 0', 'stream_ckpt.task_memory = 16MB', 'stream_ckpt.query_time_limit = 0', 'stream_ckpt.query_share = 0');
sql('CREATE TABLE huge_t (ts timestamptz, v int)');
attach($node, 'huge_t');
create_query($node, 'huge', 'huge_t',
	select => q(SELECT w.window_start, w.window_end, length(array_agg(repeat('x', v))::text) AS n FROM huge_t, stream_ckpt.tumble(ts, '1 hour') w
		GROUP BY w.window_start, w.window_end));
wait_running($node);
sql("INSERT INTO huge_t SELECT '2024-01-01 00:00 UTC', 10000 FROM generate_series(1, 6000)");
checkpoint_all($node);
is(sql("SELECT status FROM stream_ckpt.queries WHERE query = 'huge'::regclass"), 'running', 'it goes on while it need not be whole');
# its runs are not merged, whose number asks for it
for (1 .. 6)
{
	sql("INSERT INTO huge_t SELECT '2024-01-01 00:00 UTC', 10000 FROM generate_series(1, 700)");
	checkpoint_all($node);
}
is(sql("SELECT status FROM stream_ckpt.queries WHERE query = 'huge'::regclass"), 'running', 'nor to be merged');
sql("INSERT INTO huge_t VALUES ('2024-01-01 02:00 UTC', 1)");
wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'huge'::regclass", 'the query fails');
like(sql("SELECT sqlstate || message FROM stream_ckpt.queries WHERE query = 'huge'::regclass"),
	qr/^54000one group of the query, with its neighbours, takes/, 'and says why');
set_memory('stream_ckpt.task_memory = 1GB');
sql("SELECT stream_ckpt.resume_query('huge')");
results_ok($node, 'huge', 'with more memory', table => 'huge_t');

sql(q(SELECT stream_ckpt.drop_query('huge')));

#
# No room for what a large window emits, nor for telling of that: its query is tried again, and says why
#
set_memory('stream_ckpt.debug_task_memory = 100kB', 'temp_file_limit = 300kB', 'stream_ckpt.debug_retry_second = 20ms',
	'stream_ckpt.debug_snapshot_groups = 1000000000');
sql('CREATE TABLE emitted_t (ts timestamptz, k int, v int)');
attach($node, 'emitted_t');
create_query($node, 'emitted', 'emitted_t',
	select => q(SELECT w.window_start, w.window_end, k, count(*) AS n, repeat('x', 100) AS filler FROM emitted_t, stream_ckpt.tumble(ts, '1 hour') w
		GROUP BY w.window_start, w.window_end, k));
wait_running($node);
sql("INSERT INTO emitted_t SELECT '2024-01-01 00:00 UTC', i, 1 FROM generate_series(1, 30000) i");
checkpoint_all($node);
sql("INSERT INTO emitted_t VALUES ('2024-01-01 02:00 UTC', 0, 0)");
wait_until($node, "SELECT status <> 'running' AND message ~ 'temp_file_limit' FROM stream_ckpt.queries WHERE query = 'emitted'::regclass",
	'the query is tried again, and says why');
set_memory('temp_file_limit = -1');
wait_until($node, "SELECT status <> 'retrying' FROM stream_ckpt.queries WHERE query = 'emitted'::regclass", 'it was tried');
sql("SELECT stream_ckpt.resume_query('emitted')") if sql("SELECT status FROM stream_ckpt.queries WHERE query = 'emitted'::regclass") eq 'failed';
results_ok($node, 'emitted', 'with more room', table => 'emitted_t');

$node->stop;
done_testing();
