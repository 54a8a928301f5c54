# Kept inputs of one group that are many times what a task may have in memory: they are written as they come, merged,
# and read in pieces when the window closes.  What an aggregate makes of them has to have room; the inputs don't.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROWS = 60_000;
my $PARTS = 6;
my $node = new_node('main', "shared_buffers = 16MB\nwork_mem = 1MB\nmax_parallel_workers_per_gather = 0
stream_ckpt.task_memory = 16MB\nstream_ckpt.query_time_limit = 0\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

# Sees each input once, and in which order; its state is small.
sql(q(
	CREATE FUNCTION follow(state bigint, s text, v bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
		$$ SELECT hashint8extended(coalesce(state, 0), coalesce(v, -1)) # hashtextextended(coalesce(s, ''), 7) $$;
	CREATE AGGREGATE followed(text, bigint) (SFUNC = follow, STYPE = bigint);
	CREATE TABLE t (ts timestamptz, k int, v bigint, s text)));
attach($node, 't');
my $window = q(t, stream_ckpt.tumble(ts, '1 hour') w);
my %queries = (
	percentile => 'percentile_disc(ARRAY[0, 0.1, 0.5, 1]) WITHIN GROUP (ORDER BY s), mode() WITHIN GROUP (ORDER BY v % 1000) AS often, count(*) AS n',
	ordered => 'followed(s, v ORDER BY v % 100, v, s DESC NULLS LAST) AS in_order',
	distinct_ones => 'count(DISTINCT s) AS n, count(DISTINCT v % 10) AS few, sum(DISTINCT v) AS total');
create_query($node, $_, 't', select => "SELECT w.window_start, w.window_end, k, $queries{$_} FROM $window GROUP BY w.window_start, w.window_end, k")
  for sort keys %queries;
# it is read whole for each of its results, so it has less: what comes behind what was loaded is in memory
create_query($node, 'updated', 't', emit => 'update',
	select => "SELECT w.window_start, w.window_end, k, count(DISTINCT s) AS n, followed(s, v ORDER BY s, v) AS in_order FROM $window WHERE v % 8 = 0 GROUP BY w.window_start, w.window_end, k");
# a plain query's grouping may sort, so the truth of this one is another query
create_query($node, 'arrived', 't', select => "SELECT w.window_start, w.window_end, k, followed(s, v) AS as_they_came FROM $window GROUP BY w.window_start, w.window_end, k");
create_query($node, 'collected', 't',
	select => "SELECT w.window_start, w.window_end, k, md5(string_agg(s, ',')) AS all_of_it FROM $window GROUP BY w.window_start, w.window_end, k");
wait_running($node);

# Values of some 160 bytes that sorting doesn't find in order, with a few of another group and one of 300 kB between
sub insert_part
{
	my ($part) = @_;

	sql("INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + ($part * $ROWS + i) * interval '1 millisecond',
			CASE WHEN i % 1000 = 0 THEN 1 ELSE 0 END, hashint4(i + $part * $ROWS),
			CASE WHEN i % 50 <> 3 THEN md5((i % 70000)::text) || repeat(md5(i::text), 4) END
		FROM generate_series(1, $ROWS) i");
	sql("INSERT INTO t VALUES (timestamptz '2024-01-01 00:00 UTC' + 3 * $ROWS * interval '1 millisecond' + interval '500 us', 0, $part, repeat('large ', 50000))") if $part == 2;
	return;
}

for my $part (1 .. $PARTS)
{
	insert_part($part);
	checkpoint_all($node);
	next unless $part == 4;
	# in another attempt a large window is only looked up
	my $pid = pid_of($node, 'task');
	kill 'TERM', $pid;
	wait_restarted($node, 'task', $pid);
}
my $inputs = sql('SELECT sum(length(s)) / 1000000 FROM t WHERE k = 0');
cmp_ok($inputs, '>', 3 * 16, "one group's inputs are $inputs MB");
is(sql(q(SELECT string_agg(query::text || ' ' || status, ', ') FROM stream_ckpt.queries WHERE status <> 'running')), '', 'all go on');
cmp_ok(sql(q(SELECT cache_evictions FROM stream_ckpt.tasks)), '>', 10, 'buckets are evicted');
sql(q(SELECT stream_ckpt.pause_query('updated')));
sql(q(INSERT INTO t VALUES ('2024-01-01 03:00 UTC', 0, 0, 'over')));
wait_until($node, q(SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'collected'::regclass), 'one that makes a large state of them fails');
like(counter($node, 'collected', 'sqlstate || message'), qr/^54000one group of the query, with its neighbours, takes \d+ MB/, 'and says why');
sql('SET client_min_messages = error; SELECT stream_ckpt.sync()');
for my $name (sort keys %queries)
{
	results_ok($node, $name, "exact: $name", table => 't', synced => 1);
}
is( sql(q(SELECT string_agg(as_they_came::text, ' ' ORDER BY k) FROM arrived)),
	join(' ', map { sql("SELECT followed(s, v) FROM (SELECT s, v FROM t WHERE k = $_ AND ts < '2024-01-01 01:00 UTC' ORDER BY ts) rows_of_one") } 0, 1),
	'exact: in order of arrival');
my $memory = memory_of(pid_of($node, 'task'));
note sprintf 'the task has taken %d MB at most, and %d MB now of its own', map { $memory->{$_} / 1024 } qw(VmHWM RssAnon);
cmp_ok($memory->{VmHWM} / 1024, '<', 95, 'which is what it may take, and what it shares');

# As emit update has it, and with more memory for what is collected.
sql(q(SELECT stream_ckpt.resume_query('updated')));
wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.queries WHERE query = 'updated'::regclass), 'the paused one goes on');
sql(q(INSERT INTO t VALUES ('2024-01-01 00:10 UTC', 0, 17, 'late for others')));
sql('SET client_min_messages = error; SELECT stream_ckpt.sync()');
results_ok($node, 'updated', 'exact: emit update', emit => 'update', synced => 1);
sql(q(ALTER SYSTEM SET stream_ckpt.task_memory = '1GB'));
$node->reload;
wait_until($node, "SELECT current_setting('stream_ckpt.task_memory') = '1GB'", 'more memory');
sql(q(SELECT stream_ckpt.resume_query('collected')));
wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.queries WHERE query = 'collected'::regclass), 'it goes on');
sync_pipelines($node);
is(sql(q(SELECT count(*) FROM collected WHERE window_start = '2024-01-01 00:00 UTC')), '2', 'with more memory it has its rows');

$node->stop;
done_testing();
