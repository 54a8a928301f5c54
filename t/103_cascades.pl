# Results as streams: minutes to hours to days, results that are updated, queries in other pipelines; whatever dies, each
# level is its definition over the level below it, and all of them over the rows of the table.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $node = new_node('main', "max_worker_processes = 24\nmax_prepared_transactions = 2\n", draw => {});

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sql('CREATE TABLE t (ts timestamptz, k int, v int)', q(SELECT stream_ckpt.attach_stream('t', 'ts', watermark_delay => '5 seconds')),
	q(SELECT stream_ckpt.create_pipeline('above', checkpoint_interval => '50 ms')));

# name => [ stream, emit, select, options, how the result is attached ]
my @queries = (
	[ minute => 't', 'close', 'SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM t, stream_ckpt.tumble(ts, \'1 minute\') w GROUP BY w.window_start, w.window_end, k', '', 'window_start' ],
	[ hour => 'minute', 'close', 'SELECT w.window_start, w.window_end, k, sum(n) AS n, sum(total) AS total FROM minute, stream_ckpt.tumble(minute.window_start, \'1 hour\') w GROUP BY w.window_start, w.window_end, k', q(pipeline => 'above'), 'window_start' ],
	[ day => 'hour', 'update', 'SELECT w.window_start, w.window_end, sum(n) AS n, sum(total) AS total, count(*) AS rows FROM hour, stream_ckpt.tumble(hour.window_start, \'1 day\') w GROUP BY w.window_start, w.window_end', '' ],
	[ by_k => 't', 'update', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k', '', 'all' ],
	[ by_class => 'by_k', 'update', 'SELECT n % 3 AS class, count(*) AS n, sum(total) AS total, max(total) AS greatest FROM by_k GROUP BY n % 3', q(pipeline => 'above'), 'all' ],
	[ in_all => 'by_class', 'update', 'SELECT count(*) AS classes, sum(n) AS n, sum(total) AS total FROM by_class', '' ],
	[ visit => 't', 'update', 'SELECT s.window_start, s.window_end, k, count(*) AS n FROM t, stream_ckpt.session(ts, \'30 seconds\') s GROUP BY s.window_start, s.window_end, k', '', 'all' ],
	[ visits => 'visit', 'update', 'SELECT n, count(*) AS visits FROM visit GROUP BY n', '' ],
	[ later => 't', 'close', 'SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM t, stream_ckpt.tumble(ts, \'1 minute\') w GROUP BY w.window_start, w.window_end, k', q(allowed_lateness => '1 day'), 'all' ],
	[ by_total => 'later', 'update', 'SELECT k, sum(total) AS total, count(*) AS windows FROM later GROUP BY k', '' ]);

for (@queries)
{
	my ($name, $stream, $emit, $select, $options, $attach) = @$_;

	create_query($node, $name, $stream, emit => $emit, select => $select, options => $options);
	sql("SELECT stream_ckpt.attach_stream('$name'" . ($attach eq 'all' ? '' : ", event_time => '$attach'") . ')') if $attach;
}
wait_status($node, 'running', $_) for qw(default above);
is(sql(q(SELECT string_agg(stream::text, ' ' ORDER BY stream::text) FROM stream_ckpt.streams WHERE changes = 'apply')), 'by_class by_k later visit',
	'changes of results that are updated are applied');

# One sync() is enough for all levels.  Each is compared with its definition; those that see every row, with the table's rows.
sub all_ok
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %truth = (
		by_class => 'SELECT n % 3, count(*), sum(total), max(total) FROM (SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k) q GROUP BY n % 3',
		in_all => 'SELECT count(*), sum(n), sum(total) FROM (SELECT count(*) AS n, sum(total) AS total FROM (SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k) q GROUP BY n % 3) q');

	sync_pipelines($node);
	for (@queries)
	{
		my ($name, $stream, $emit) = @$_;

		next if $name eq 'visit';
		results_ok($node, $name, "$name: $test", emit => $emit, table => $stream, synced => 1, $stream eq 't' ? (delay => '5 seconds') : (time => 'window_start', delay => '0'));
	}
	is(sql("SELECT count(*) FROM ((TABLE $_ EXCEPT ALL $truth{$_}) UNION ALL ($truth{$_} EXCEPT ALL TABLE $_)) d"), '0', "$_, of the table's rows: $test") for sort keys %truth;
	is(sql('SELECT sum(stream_ckpt.verify(q::regclass)) FROM unnest(array[' . join(', ', map { "'$_->[0]'" } @queries) . ']) q'), '0', "verify(): $test");
	return;
}

my $n = 0;
sub insert_rows
{
	my ($rows) = @_;
	my $from = $n + 1;

	$n += $rows;
	sql("INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '7 seconds', (i * 7919) % 11, i FROM generate_series($from, $n) i");
	return;
}

insert_rows(3000);
all_ok('rows');
ok(sql('SELECT count(*) > 3 FROM hour') eq 't', 'hours are over');

# One sync() has a checkpoint made for each level; of one query, for those below it.
sql("SELECT stream_ckpt.alter_pipeline('$_', checkpoint_interval => '1 hour')") for qw(default above);
wait_until($node, "SELECT bool_and(checkpoint_interval = '1 hour') FROM stream_ckpt.pipelines", 'hardly any checkpoint');
sync_pipelines($node);
insert_rows(50);
all_ok('no checkpoint but for sync()');
insert_rows(50);
like(sql(q(SELECT stream_ckpt.sync('10 minutes', 'in_all'))), qr{/}, 'sync() for the uppermost query');
results_ok($node, 'in_all', 'it has what came through two levels', emit => 'update', table => 'by_class', synced => 1);
is(sql('SELECT n FROM by_class_definition ORDER BY class'), sql('SELECT n FROM by_class ORDER BY class'), 'so has the one below');
is(sql('SELECT sum(n) FROM by_k'), sql('SELECT count(*) FROM t'), 'and the lowest');
sql(q(SELECT stream_ckpt.alter_pipeline('above', checkpoint_interval => '50 ms')));

# A checkpoint that writes a result isn't the reason of one after the next: it ends.
sql(q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '20 ms')));
insert_rows(100);
sync_pipelines($node);
my $rows_in = sql('SELECT sum(rows_in) FROM stream_ckpt.queries');
sync_pipelines($node);
is(sql('SELECT sum(rows_in) FROM stream_ckpt.queries'), $rows_in, 'no row comes of itself');
wait_until($node, "SELECT max(trigger_time) < clock_timestamp() - interval '1 second' FROM stream_ckpt.checkpoints", 'for fifty intervals there is no checkpoint');

for my $pipeline (qw(default above))
{
	for my $which (qw(reader coordinator task))
	{
		my $attempt = sql("SELECT attempt FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'");
		my $pid = sql($which eq 'task' ? "SELECT pid FROM stream_ckpt.tasks WHERE pipeline = '$pipeline' LIMIT 1" : "SELECT ${which}_pid FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'");

		insert_rows(500);
		kill 'TERM', $pid;
		insert_rows(500);
		wait_until($node, "SELECT status = 'running' AND attempt > $attempt FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'", "$pipeline has another attempt");
		all_ok("the $which of $pipeline dies") if $which eq 'coordinator';
	}
}
insert_rows(2000);
$node->stop('immediate');
$node->start;
wait_status($node, 'running', $_) for qw(default above);
insert_rows(100);
all_ok('after a crash');

# rows of the lowest level that come late change what is above results that take them
sql(q(INSERT INTO t SELECT timestamptz '2024-01-01 03:00 UTC', i % 11, i FROM generate_series(1, 40) i));
insert_rows(10);
sync_pipelines($node);
results_ok($node, $_->[0], "$_->[0]: late rows", emit => 'update', table => $_->[1], synced => 1) for grep { $_->[0] =~ /by_|in_all|visits/ } @queries;

# the owner of a result deletes of it: retention, or a correction; what is above it follows
sql('DELETE FROM later WHERE k = 3', 'DELETE FROM visit WHERE n = 2', 'UPDATE later SET total = total + 1 WHERE k = 4');
sync_pipelines($node);
results_ok($node, $_, "$_: rows of the result below are changed", emit => 'update', synced => 1) for qw(by_total visits);

# What can't be right is refused.
is_refused($node, q(SELECT stream_ckpt.alter_stream('by_k', changes => 'ignore')), qr/"by_k"/, 'changes of a result that is updated are not ignored');

is_refused($node, "SELECT stream_ckpt.$_", qr/"minute": its result is a stream whose changes are not applied/, "a result is made anew below a query that would not see it: $_")
  for q(rebuild_query('minute')), q(replace_query('minute', pg_get_viewdef('minute_definition')));
sql("SELECT stream_ckpt.drop_query('day'), stream_ckpt.drop_query('hour')");
is_refused($node, q(SELECT stream_ckpt.create_query('minute', 'SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM t, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start, w.window_end, k', emit => 'update', or_replace => true)),
	qr/whose changes are not applied/, 'a result comes to be updated as a stream whose changes are ignored');
sql(q(SELECT stream_ckpt.rebuild_query('minute')));
sync_pipelines($node);
results_ok($node, 'minute', 'made anew when nobody reads it', table => 't', delay => '5 seconds', synced => 1);

# Nothing reads what is made of its own result.
is_refused($node, q(SELECT stream_ckpt.replace_query('by_k', 'SELECT n::int AS k, count(*) AS n, sum(total)::bigint AS total FROM by_class GROUP BY n::int')),
	qr/"by_k" cannot read what is made of its own result/, 'a circle by replacing');
sql('CREATE TABLE p (k int, n bigint, total bigint) PARTITION BY LIST (k)', 'CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)', q(SELECT stream_ckpt.attach_stream('p', changes => 'apply')));
create_query($node, 'of_p', 'p', emit => 'update', select => 'SELECT k, count(*) AS n, sum(total)::bigint AS total FROM p GROUP BY k');
create_query($node, 'of_of_p', 'p', emit => 'update', select => 'SELECT k, count(*) AS n, sum(total)::bigint AS total FROM p WHERE n > 1 GROUP BY k');
is_refused($node, 'ALTER TABLE p ATTACH PARTITION of_p DEFAULT', qr/"of_p" cannot be part of stream "p"/, 'a circle by a partition');
like(sql(q(SELECT stream_ckpt.sync())), qr{/}, 'sync() goes on');

# a level between that applies changes doesn't help one above that ignores them
sql('CREATE TABLE q (k int, n bigint, total bigint) PARTITION BY LIST (k)', q(SELECT stream_ckpt.attach_stream('q', changes => 'ignore')),
	'CREATE TABLE q_all PARTITION OF q DEFAULT PARTITION BY LIST (k)', q(SELECT stream_ckpt.attach_stream('q_all', changes => 'apply')));
is_refused($node, 'ALTER TABLE q_all ATTACH PARTITION of_p DEFAULT', qr/"of_p" cannot be part of stream "q"/, 'updated rows for a stream that ignores changes');

# what a prepared transaction dropped isn't the next one's
sql('CREATE TABLE r (k int) PARTITION BY LIST (k)', 'CREATE TABLE r1 PARTITION OF r FOR VALUES IN (1)', 'CREATE TABLE r2 PARTITION OF r FOR VALUES IN (2)', q(SELECT stream_ckpt.attach_stream('r', changes => 'apply')));
is(sql(q(BEGIN; DROP TABLE r1; PREPARE TRANSACTION 'dropped'; CREATE TABLE other (); DROP TABLE other; COMMIT PREPARED 'dropped'; DROP TABLE r2; SELECT count(*) FROM pg_inherits WHERE inhparent = 'r'::regclass)), '0',
	'partitions are dropped by a prepared transaction, and behind it');

done_testing();
