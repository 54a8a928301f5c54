# idle_timeout: the watermark of a stream without rows goes on with the clock, through a
# message in the WAL; exactly, whatever dies; for that stream only; and at no cost where no
# window is open.
#
# SEED=n runs the same again, as far as time allows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();

my $node = new_node('main', '', draw => {});

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sub attach_idle
{
	my ($table, $timeout) = @_;
	return sql("CREATE TABLE $table (ts timestamptz, id int)",
		"SELECT stream_ckpt.attach_stream('$table', event_time => 'ts', idle_timeout => '$timeout')");
}

sub tumbling
{
	my ($name, $table, $size, %opt) = @_;
	return create_query($node, $name, $table, %opt,
		select => "SELECT w.window_start, w.window_end, count(*) AS rows, min(id) AS first
			FROM $table, stream_ckpt.tumble(ts, '$size') w GROUP BY w.window_start, w.window_end");
}

sub wait_closed
{
	my ($name) = @_;
	return wait_until($node,
		"SELECT groups = 0 AND rows_in > 0 FROM stream_ckpt.queries WHERE query = '$name'::regclass",
		"all windows of $name are closed");
}

# Number of idle messages in the WAL since "start"
sub messages
{
	my ($start) = @_;
	my $end = sql('SELECT pg_current_wal_flush_lsn()');
	my ($stdout, $stderr) = run_command(
		[
			$node->installed_command('pg_waldump'), '-p', $node->data_dir . '/pg_wal',
			'-r', 'LogicalMessage', '-s', $start, '-e', $end
		]);
	# version 1, kind 'I'
	return scalar(() = $stdout =~ /non-transactional, prefix "stream_ckpt"; payload \(40 bytes\): 01 49/g);
}

#
# Windows close, late rows are late, and then there is silence
#
my $start = sql('SELECT pg_current_wal_lsn()');
attach_idle('a', '100 ms');
attach_idle('slow', '100 ms');
sql(q(CREATE TABLE b (ts timestamptz, id int)));
attach($node, 'b');
tumbling('a_close', 'a', '200 ms');
tumbling('a_update', 'a', '200 ms', emit => 'update');
tumbling('a_lenient', 'a', '200 ms', options => q(allowed_lateness => '300 ms'));
tumbling('b_close', 'b', '200 ms');
tumbling('slow_day', 'slow', '1 day');
wait_running($node);

sql(q(INSERT INTO slow VALUES ('2024-01-01 00:00 UTC', 1)));
sql(q(INSERT INTO b VALUES ('2024-01-01 00:00 UTC', 1)));
sql(q(INSERT INTO a VALUES ('2024-01-01 00:00:00.05 UTC', 1), ('2024-01-01 00:00:00.01 UTC', 2)));
wait_until($node, 'SELECT count(*) = 1 FROM a_close', 'the window closes without another row');
is(sql(q(SELECT rows FROM a_close)), '2', 'it has its rows');
wait_closed($_) for qw(a_close a_update a_lenient);
is(sql(q(SELECT rows FROM a_update)), '2', 'emit update frees it, too');
is(sql(q(SELECT rows FROM a_lenient)), '2', 'and it is past its lateness');
is(sql(q(SELECT watermark >= '2024-01-01 00:00:00.2 UTC' FROM stream_ckpt.streams WHERE stream = 'a'::regclass)),
	't', 'the watermark is past its end');
is(sql(q(SELECT watermark = '2024-01-01 00:00 UTC' FROM stream_ckpt.streams WHERE stream = 'b'::regclass)),
	't', 'another stream stands where it was');
is(sql(q(SELECT groups FROM stream_ckpt.queries WHERE query = 'b_close'::regclass)), '1',
	'with its window open');
my $n = messages($start);
cmp_ok($n, '>', 0, 'there were messages');
cmp_ok($n, '<=', 6, 'not many');
$start = sql('SELECT pg_current_wal_lsn()');
for (1 .. 5)
{
	sql('SELECT stream_ckpt.checkpoint()');
	sql(q(INSERT INTO b VALUES ('2024-01-01 00:00 UTC', 1)));
	sync_pipelines($node);
}
is(messages($start), '0', 'none where no window is open, or none that would close');
sql(q(INSERT INTO a VALUES ('2024-01-01 00:00:00.01 UTC', 3)));
sync_pipelines($node);
is(query_late_rows($node, 'a_close'), '1', 'a row behind the advanced watermark is late');
is(sql(q(SELECT rows FROM a_close)), '2', 'and changes nothing');

#
# What is told is void where rows came meanwhile
#
attach_idle('r', '100 ms');
tumbling('r_day', 'r', '1 day');
arm($node, 'coordinator_before_idle', 'wait');
sql(q(INSERT INTO r VALUES ('2024-01-01 23:59:59.9 UTC', 1)));
wait_reached($node, 'coordinator_before_idle');
sql(q(INSERT INTO r VALUES ('2024-01-02 00:00:00 UTC', 2)));
$start = sql('SELECT pg_current_wal_lsn()');
disarm($node, 'coordinator_before_idle');
sync_pipelines($node);
wait_until($node, q(SELECT count(*) = 1 FROM r_day), 'the row closes the window');
is(messages($start), '1', 'the message was logged');
is(sql(q(SELECT watermark = '2024-01-02 00:00 UTC' FROM stream_ckpt.streams WHERE stream = 'r'::regclass)),
	't', 'and did not advance the watermark');

#
# Nobody else can tell
#
my $relid = sql(q(SELECT 'slow'::regclass::oid));
my $payload = unpack('H*', pack('CasVq<LLq<q<', 1, 'I', 0, 1, 0, $relid, 0, ~0 >> 1,
	sql(q(SELECT (extract(epoch FROM now() + interval '10 days' - timestamptz '2000-01-01 UTC') * 1000000)::bigint))));
is(length($payload), 80, 'a forged message');
sql("SELECT pg_logical_emit_message(false, 'stream_ckpt', '\\x$payload'::bytea)",
	"SELECT pg_logical_emit_message(true, 'stream_ckpt', '\\x$payload'::bytea)");
sync_pipelines($node);
is(counter($node, 'slow_day', 'groups'), '1', 'has no effect');

#
# Restart while idle
#
attach_idle('late', '500 ms');
tumbling('late_close', 'late', '200 ms');
sql(q(INSERT INTO late VALUES ('2024-01-01 00:00 UTC', 1)));
sync_pipelines($node);
$node->stop('immediate');
$node->start;
wait_closed('late_close');
is(sql(q(SELECT rows FROM late_close)), '1', 'it closes after a restart');

#
# A query that is paused neither counts nor misses anything
#
attach_idle('p', '100 ms');
tumbling('p_close', 'p', '200 ms');
sql(q(SELECT stream_ckpt.drop_query('slow_day')));
arm($node, 'coordinator_before_idle', 'wait');
sql(q(INSERT INTO p VALUES ('2024-01-01 00:00 UTC', 1)));
wait_reached($node, 'coordinator_before_idle');
sql(q(SELECT stream_ckpt.pause_query('p_close')));
disarm($node, 'coordinator_before_idle');
wait_until($node, q(SELECT status = 'paused' FROM stream_ckpt.queries WHERE query = 'p_close'::regclass),
	'the query is paused');
sql(q(SELECT stream_ckpt.resume_query('p_close')));
wait_closed('p_close');
is(sql(q(SELECT rows FROM p_close)), '1', 'a window closes after pause and resume');

#
# A group whose result row can't be made
#
attach_idle('d', '100 ms');
create_query($node, 'd_close', 'd', options => q(on_error => 'dead_letter'),
	select => q(SELECT w.window_start, id, count(*) AS rows, 1 / (id - 2) AS inverse
		FROM d, stream_ckpt.tumble(ts, '200 ms') w GROUP BY w.window_start, id));
sql(q(INSERT INTO d SELECT '2024-01-01 00:00 UTC'::timestamptz + i * interval '20 ms', i FROM generate_series(1, 4) i));
wait_closed('d_close');
is(sql(q(SELECT string_agg(id || ':' || rows, ' ' ORDER BY id) FROM d_close)), '1:1 3:1 4:1',
	'the others appear, once');
is(sql(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'd_close'::regclass)), '1', 'it is a letter');
is(sql(q(SELECT watermark < '2024-01-01 01:00 UTC' FROM stream_ckpt.queries WHERE query = 'd_close'::regclass)),
	't', 'the watermark advanced once');

#
# Log streams
#
sql(q(SELECT stream_ckpt.create_stream('l', 'ts timestamptz, id int', event_time => 'ts', idle_timeout => '100 ms')));
tumbling('l_close', 'l', '200 ms');
sql(q(INSERT INTO l VALUES ('2024-01-01 00:00 UTC', 1), ('2024-01-01 00:00 UTC', 2)));
wait_closed('l_close');
is(sql(q(SELECT rows FROM l_close)), '2', 'a log stream can be idle');

#
# Exactly, whatever dies: each row is in a window's result, or among the late ones
#
attach_idle('t', '50 ms');
tumbling('t_close', 't', '300 ms', options => 'keep_late_rows => true');
tumbling('t_update', 't', '300 ms', emit => 'update', options => 'keep_late_rows => true');
wait_running($node);
my ($id, $clock) = (0, 0);
my @points = qw(
  coordinator_before_idle coordinator_after_idle task_after_rows task_after_snapshot
  reader_after_barrier coordinator_parts_collected coordinator_before_commit
  coordinator_after_commit reader_after_confirm
);
$start = sql('SELECT pg_current_wal_lsn()');
for my $round (1 .. 4)
{
	$node->append_conf('postgresql.conf', 'stream_ckpt.debug_batch_rows = ' . pick(0, 1, 7, -1));
	try_psql($node, 'SELECT pg_reload_conf()');
	for (1 .. 3)
	{
		my ($point, $action, $times) =
		  ($_ == 1 ? pick(@points[ 0, 1 ]) : pick(@points), pick(qw(error exit term kill)), pick(1, 1, 2));
		note "trouble: $action at $point, time $times";
		arm($node, $point, $action, $times);
		for (1 .. 5)
		{
			$clock += pick(0, 0.1, 0.4, 2);
			try_psql($node, 'INSERT INTO t VALUES ' . join(', ',
				map { sprintf "('2024-01-01 UTC'::timestamptz + %.3f * interval '1 s', %d)",
					$clock + rand(0.3) - pick(0, 0, rand(0.5)), $id++ } 1 .. pick(1, 3, 20)));
			wait_up($node);
		}
		# what was idle in the meantime is over when the next rows come
		wait_until($node, q(SELECT bool_and(groups = 0 AND status = 'running') FROM stream_ckpt.queries
			WHERE stream = 't'::regclass), 'all windows are closed') if pick(0, 1);
	}
	sync_pipelines($node);
	disarm($node, $_) for @points;
	wait_closed($_) for qw(t_close t_update);
	sync_pipelines($node);
	for my $query (qw(t_close t_update))
	{
		is(sql("SELECT count(*) FROM stream_ckpt.late_rows WHERE query = '$query'::regclass"),
			query_late_rows($node, $query), "round $round: late rows of $query are kept");
		is( sql(
				"CREATE OR REPLACE TEMP VIEW truth AS
				SELECT w.window_start, w.window_end, count(*) AS rows, min(id) AS first
				FROM t, stream_ckpt.tumble(ts, '300 ms') w
				WHERE id NOT IN (SELECT (row->>'id')::int FROM stream_ckpt.late_rows WHERE query = '$query'::regclass)
				GROUP BY w.window_start, w.window_end",
				"SELECT count(*) FROM ((TABLE truth EXCEPT TABLE $query) UNION ALL (TABLE $query EXCEPT TABLE truth)) d"),
			'0',
			"round $round: $query");
	}
	is(sql(q(SELECT count(DISTINCT row->>'id') FROM stream_ckpt.late_rows WHERE query = 't_close'::regclass)),
		sql(q(SELECT count(DISTINCT row->>'id') FROM stream_ckpt.late_rows WHERE query = 't_update'::regclass)),
		"round $round: both queries stand at the same watermark");
}
cmp_ok(sql(q(SELECT count(*) FROM t_close)), '>', 10, 'there were windows');

$node->stop;
done_testing();
