# Allowed lateness: late rows change windows that were emitted, within their lateness and no
# longer; first case by case, then random rows in random transactions with random kills and
# batch sizes, against the plain query over the rows that weren't too late.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 6;

my $node = new_node('main', "max_parallel_workers_per_gather = 0\n", draw => {});

#
# Case by case: one-minute windows, 2 minutes of lateness, no delay.
#
create_stream_table($node, 's');
create_query($node, 'c', 's',
	options => q(allowed_lateness => '2 minutes'),
	select => q(SELECT w.window_start, k, count(*) AS n, sum(v) AS total,
			array_agg(v ORDER BY v) AS list
		FROM s, stream_ckpt.tumble(ts, '1 minute') w
		GROUP BY w.window_start, w.window_end, k HAVING sum(v) < 100));
create_query($node, 'u', 's',
	emit => 'update',
	options => q(allowed_lateness => '2 minutes'),
	select => q(SELECT w.window_start, k, count(*) AS n, sum(v) AS total
		FROM s, stream_ckpt.tumble(ts, '1 minute') w
		GROUP BY w.window_start, w.window_end, k HAVING sum(v) < 100));
wait_running($node);

# One transaction of rows [seconds, k, v], then the results as "k:n:total" of window 0
sub put
{
	my (@rows) = @_;
	$node->safe_psql('postgres',
		'INSERT INTO s VALUES '
		  . join(', ',
			map { "('2024-01-01 00:00 UTC'::timestamptz + $_->[0] * interval '1 s', $_->[1], $_->[2], 0)" } @rows));
	return;
}

sub window
{
	my ($name, $start) = @_;
	sync_pipelines($node);
	return $node->safe_psql('postgres',
		"SELECT coalesce(string_agg(k || ':' || n || ':' || total, ' ' ORDER BY k), '')
		 FROM $name WHERE window_start = '2024-01-01 00:00 UTC'::timestamptz + $start * interval '1 s'");
}

sub both
{
	my ($start, $expected, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(window('c', $start), $expected, "close: $test");
	is(window('u', $start), $expected, "update: $test");
	return;
}

sub restart
{
	my $pid = pid_of($node, 'task');
	kill 'TERM', $pid;
	wait_restarted($node, 'task', $pid);
	wait_running($node);
	return;
}

put([10, 1, 10], [20, 2, 20], [30, 3, 30], [40, 4, 200]);
is(window('c', 0), '', 'close: an open window shows nothing');
is(window('u', 0), '1:1:10 2:1:20 3:1:30', 'update: an open window shows');
put([61, 1, 1]);
both(0, '1:1:10 2:1:20 3:1:30', 'a window closed');
put([15, 1, 5]);
both(0, '1:2:15 2:1:20 3:1:30', 'a late row changes a closed window');
put([16, 1, 5], [16, 1, 5], [62, 1, 1]);
both(0, '1:4:25 2:1:20 3:1:30', 'late rows and new ones in one transaction');
put([16, 5, 7]);
both(0, '1:4:25 2:1:20 3:1:30 5:1:7', 'a new group in a closed window');
put([16, 1, 90]);
both(0, '2:1:20 3:1:30 5:1:7', 'a row that HAVING no longer accepts goes');
restart();
put([16, 2, 90], [16, 4, 1]);
both(0, '3:1:30 5:1:7', 'also after a restart, before which it was emitted');
put([17, 2, -50]);
both(0, '2:3:60 3:1:30 5:1:7', 'and comes again');
put([17, 4, -190]);
both(0, '2:3:60 3:1:30 4:3:11 5:1:7', 'a row that HAVING accepts at last');
put([125, 1, 1]);
both(60, '1:2:2', 'the next window closed');
put([179, 1, 1]);
put([18, 3, 1]);
both(0, '2:3:60 3:2:31 4:3:11 5:1:7', 'the last second of lateness');
is(query_late_rows($node, 'c'), '0', 'no late rows yet');
is($node->safe_psql('postgres', q(SELECT stream_ckpt.verify('c') || ' ' || stream_ckpt.verify('u'))),
	'0 0', 'verify() agrees');
# in one batch: rows that are allowed, and the row that ends the lateness
$node->safe_psql('postgres', q(SELECT stream_ckpt.stop_pipeline('default')));
put([19, 3, 2]);
put([180, 1, 1]);
put([19, 3, 3]);
$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default')));
wait_running($node);
both(0, '2:3:60 3:3:33 4:3:11 5:1:7', 'what changed last is emitted before the window goes');
is(query_late_rows($node, 'c'), '1', 'close: past its lateness a row is late');
is(query_late_rows($node, 'u'), '1', 'update: past its lateness a row is late');
put([1000, 1, 1]);
put([890, 9, 9]);
both(840, '9:1:9', 'a window whose first row is late');
is(counter($node, 'c', 'groups'), '2', 'past windows are gone from memory');
my ($ret, $out, $err) = $node->psql('postgres', q(SELECT stream_ckpt.verify('c')));
like($err, qr/1 late rows were dropped/, 'verify() says that the truth cannot be had');
$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('c'); SELECT stream_ckpt.drop_query('u')));

#
# Windows that are over whatever the watermark says (checkpoint_offset.closed_until)
#
for my $emit (qw(close update))
{
	create_query($node, "closed_$emit", 's', emit => $emit);
}
put([2000, 1, 1], [2041, 1, 1]);
sync_pipelines($node);
$node->safe_psql('postgres', q(SELECT stream_ckpt.stop_pipeline('default')));
$node->safe_psql('postgres', q(UPDATE stream_ckpt.checkpoint_offset SET closed_until = '2024-01-01 01:00 UTC'));
put([2042, 1, 1], [3599, 1, 1], [3600, 1, 1]);
$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default')));
wait_running($node);
for my $emit (qw(close update))
{
	my $name = "closed_$emit";
	sync_pipelines($node);
	is(query_late_rows($node, $name), '2', "$name: rows of windows that are over are late");
	is(counter($node, $name, 'groups'), '1', "$name: and the windows are gone");
}
restart();
put([3599, 1, 1], [3661, 1, 1]);
sync_pipelines($node);
for my $emit (qw(close update))
{
	my $name = "closed_$emit";
	is(query_late_rows($node, $name), '3', "$name: also after a restart");
	is($node->safe_psql('postgres', "SELECT string_agg(format('%s:%s', window_start AT TIME ZONE 'UTC', n), ' ' ORDER BY 1) FROM $name WHERE window_start < '2024-01-01 01:01 UTC'"),
		$emit eq 'close' ? '2024-01-01 00:33:00:1 2024-01-01 01:00:00:1' : '2024-01-01 00:33:00:1 2024-01-01 00:34:00:1 2024-01-01 01:00:00:1', "$name: they are never written");
}
$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('closed_close'); SELECT stream_ckpt.drop_query('closed_update')));

#
# Random
#
my $delay = pick('0', '10 seconds', '1 minute');
my @keys = ('k', 's', 'k, s', 'upper(s)', "coalesce(s, '-')", '');
my @aggregates = (
	'count(*)', 'sum(v)', 'avg(v)', 'min(s)', 'max(ts)', 'count(DISTINCT k)',
	'array_agg(v ORDER BY v, k)', 'variance(v)', 'sum(v) FILTER (WHERE v > 50)',
	'percentile_disc(0.5) WITHIN GROUP (ORDER BY v)',
	"string_agg(s, ',' ORDER BY s)");
my @having = ('', '', 'count(*) % 3 <> 1', 'sum(v) < 300', 'count(*) < 4');

sub random_query
{
	my ($name) = @_;
	my $size = pick('7 seconds', '1 minute', '5 minutes');
	my $lateness = pick('1 second', '30 seconds', '2 minutes', '1 hour', '0');
	my $key = pick(@keys);
	my $having = pick(@having);
	my $i = 0;
	my @columns = map { "$_ AS c" . $i++ }
	  ('w.window_start', 'w.window_end', split(/, (?!')/, $key), map { pick(@aggregates) } 1 .. 2);

	# window_end has its name for the comparison
	$columns[1] = 'w.window_end';
	return {
		name => $name,
		emit => pick('close', 'close', 'update'),
		lateness => $lateness,
		text => 'SELECT ' . join(', ', @columns)
		  . " FROM STREAM t, stream_ckpt.tumble(ts, '$size') w WHERE v <> 13"
		  . " GROUP BY w.window_start, w.window_end" . ($key ? ", $key" : '')
		  . ($having ? " HAVING $having" : ''),
	};
}

$node->safe_psql('postgres', 'CREATE TABLE t (ts timestamptz, k int, s text, v int, txn int)');
attach($node, 't', delay => $delay);

# The watermark before each transaction
$node->safe_psql(
	'postgres', qq(
	CREATE VIEW timed AS
	SELECT t.*, before FROM t JOIN
		(SELECT txn, max(max(ts)) OVER (ORDER BY txn ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
			- interval '$delay' AS before FROM t GROUP BY txn) x USING (txn)));

my @queries = map { random_query("q$_") } 1 .. 8;
for my $query (@queries)
{
	note "$query->{name} ($query->{emit}, $query->{lateness}): $query->{text}";
	(my $select = $query->{text}) =~ s/STREAM t/t/;
	create_query($node, $query->{name}, 't',
		emit => $query->{emit},
		select => $select,
		options => "allowed_lateness => '$query->{lateness}'");
}
wait_running($node);

my $txn = 0;
my $clock = 0;    # seconds of event time

sub random_transaction
{
	my @rows;

	$txn++;
	$clock += pick(0, 1, 10, 30, 60, 600);
	for (1 .. pick(1, 2, 5, 20, 100))
	{
		my $ts = $clock - pick(rand(5), rand(5), rand(120), rand(200), rand(4000));

		push @rows,
		  sprintf q((timestamptz '2024-01-01 00:00 UTC' + %.3f * interval '1 second', %s, %s, %d, %d)),
		  $ts, pick('NULL', 0 .. 3), pick('NULL', map { "'$_'" } qw(a b B)), int rand 100, $txn;
	}
	return 'BEGIN; INSERT INTO t VALUES ' . join(', ', @rows) . ';'
	  . (rand() < 0.1 ? 'ROLLBACK;' : 'COMMIT;') . "\n";
}

my @points = qw(
  task_after_rows reader_before_barrier reader_after_barrier task_before_snapshot
  task_after_snapshot task_part_sent coordinator_parts_collected coordinator_after_rows
  coordinator_before_commit coordinator_after_commit reader_after_confirm
);

sub random_trouble
{
	my $dice = rand;

	if ($dice < 0.6)
	{
		my ($point, $action, $n) = (pick(@points), pick(qw(error exit term kill)), pick(1, 1, 2, 5));
		note "trouble: $action at $point, time $n";
		arm($node, $point, $action, $n);
	}
	elsif ($dice < 0.8)
	{
		my $pid = try_psql($node, 'SELECT pid FROM stream_ckpt.tasks LIMIT 1');
		note 'trouble: SIGTERM of the task';
		kill 'TERM', $pid if $pid =~ /^[0-9]+$/;
	}
	elsif ($dice < 0.9)
	{
		note 'trouble: immediate stop';
		$node->stop('immediate');
		$node->start;
	}
	return;
}

for my $round (1 .. $rounds)
{
	wait_up($node);
	$node->append_conf('postgresql.conf',
		'stream_ckpt.debug_batch_rows = ' . pick(0, 1, 7, -1));
	try_psql($node, 'SELECT pg_reload_conf()');

	for (1 .. 4)
	{
		random_trouble() if $round > 1;
		try_psql($node, join '', map { random_transaction() } 1 .. 1 + int rand 8);
		wait_up($node);
	}
	sync_pipelines($node);
	disarm($node, $_) for @points;
	sync_pipelines($node);
	for my $query (@queries)
	{
		(my $truth = $query->{text}) =~ s/STREAM t/timed t/;
		my $too_late =
		  "w.window_end + interval '$query->{lateness}' <= coalesce(before, '-infinity')";
		$truth =~ s/WHERE v <> 13/WHERE v <> 13 AND NOT $too_late/;
		my $ok = is(
			differences(
				$node, $query->{name},
				emit => $query->{emit},
				table => 't',
				delay => $delay,
				truth => $truth),
			'0',
			"round $round: $query->{name}");
		diag "SEED=$seed: $query->{emit}, $query->{lateness}: $query->{text}" unless $ok;

		(my $late = $query->{text}) =~ s/.* FROM STREAM t/SELECT count(*) FROM timed t/;
		$late =~ s/WHERE v <> 13.*/WHERE v <> 13 AND $too_late/;
		is( query_late_rows($node, $query->{name}),
			$node->safe_psql('postgres', $late),
			"round $round: late rows of $query->{name}");
	}
}

$node->stop;
done_testing();
