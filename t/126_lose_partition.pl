# Partitions that are lost, in a few rows: what the bounds don't say, and partitions without rows.  Random ones: 118.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Conditions;
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "timezone = 'UTC'\n", draw => { tasks => [ 2, 3 ] });

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sub verified
{
	my ($test, @names) = @_;

	for my $name (@names)
	{
		my ($ret, $stdout, $stderr) = $node->psql('postgres', "SET client_min_messages = 'error'; SELECT stream_ckpt.verify('$name')");

		is("$stdout$stderr", '0', "$test: verify('$name')");
	}
	return;
}

# Partitions whose bounds say nothing of the time: windows that rows are in by now are left out by verify(), and no later ones
sql('CREATE TABLE l (ts timestamptz, tenant int) PARTITION BY LIST (tenant)',
	(map { "CREATE TABLE l$_ PARTITION OF l FOR VALUES IN ($_)" } 1 .. 3),
	q(SELECT stream_ckpt.attach_stream('l', 'ts', watermark_delay => '1 hour', changes => 'apply')));
for my $column (qw(window_start window_end))
{
	create_query($node, "by_$column", 'l', emit => 'update', select => "SELECT w.$column, tenant, count(*) AS n FROM l, stream_ckpt.tumble(ts, '1 hour') w GROUP BY 1, 2");
}
create_query($node, 'by_session', 'l', emit => 'update', select => q(SELECT w.window_start, w.window_end, tenant, count(*) AS n FROM l, stream_ckpt.session(ts, '10 minutes') w GROUP BY 1, 2, 3));
my @by = map { "by_$_" } qw(window_start window_end session);
wait_running($node);
sql(q(INSERT INTO l SELECT timestamptz '2024-01-01' + i * interval '20 minutes', t FROM generate_series(0, 30) i, generate_series(1, 3) t));
sync_pipelines($node);
sql('BEGIN', q(SELECT stream_ckpt.ignore_deletes('l')), 'DROP TABLE l3', 'TRUNCATE l2', 'COMMIT');
sync_pipelines($node);
verified('after partitions without bounds', @by);
sql(q(INSERT INTO l SELECT timestamptz '2024-01-03' + i * interval '20 minutes', t FROM generate_series(0, 30) i, generate_series(1, 2) t));
sync_pipelines($node);
verified('and with later windows', @by);
sql(map { "UPDATE $_ SET n = n + 1" } @by);
is(($node->psql('postgres', "SELECT stream_ckpt.verify('$_') > 0"))[1], 't', "verify('$_') looks at later windows") for @by;
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries));

# A watermark that was put back since the last checkpoint: windows that were over without rows can open again
sql('CREATE TABLE s (ts timestamptz) PARTITION BY RANGE (ts)',
	(map { "CREATE TABLE s$_ PARTITION OF s FOR VALUES FROM ('2024-01-$_') TO ('2024-01-" . ($_ + 1) . "')" } 10, 13, 15, 20),
	q(SELECT stream_ckpt.attach_stream('s', 'ts', changes => 'apply')));
create_query($node, 'hours', 's', tasks => 1, select => "SELECT w.window_start, count(*) AS n FROM s, stream_ckpt.tumble(ts, '1 hour') w GROUP BY 1");
wait_running($node);
my $over = qr/query "hours" reads stream "s", and its changes are applied/;

sub back
{
	my ($command, $day) = @_;

	sync_pipelines($node);
	sql(q(SELECT stream_ckpt.stop_pipeline('default')), $command, "INSERT INTO s VALUES ('2024-01-$day')");
	is_refused($node, "DROP TABLE s$day", $over, "$command, without a checkpoint since");
	sql(q(SELECT stream_ckpt.start_pipeline('default')));
	sync_pipelines($node);
	is_refused($node, "TRUNCATE s$day", $over, 'its window is open');
	return;
}

sql(q(INSERT INTO s VALUES ('2024-01-10'), ('2024-01-20')));
back(q(SELECT stream_ckpt.reset_watermark('s', '2024-01-12')), 15);
sql('DROP TABLE s10');
back(q(SELECT stream_ckpt.reset_watermark('s', '2024-01-11')), 13);
sql(q(INSERT INTO s VALUES ('2024-01-20 12:00')));
sync_pipelines($node);
sql('DROP TABLE s13', 'DROP TABLE s15');
sync_pipelines($node);
verified('after the watermark went back', 'hours');
is(sql('SELECT sum(n) FROM hours'), '4', 'what was lost is kept');
is(sql("SELECT status FROM stream_ckpt.queries WHERE query::text = 'hours'"), 'running', 'and no query has failed');
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries));

# Partitions without rows may go, also of queries without windows: the deletions are in the log before
sql('CREATE TABLE m (ts timestamptz, k int) PARTITION BY RANGE (ts)',
	(map { "CREATE TABLE m$_ PARTITION OF m FOR VALUES FROM ('2024-01-0$_') TO ('2024-01-0" . ($_ + 1) . "')" } 1 .. 5),
	q(CREATE TABLE m6 PARTITION OF m FOR VALUES FROM ('2024-01-06') TO ('2024-01-07') PARTITION BY LIST (k)),
	'CREATE TABLE m6_0 PARTITION OF m6 FOR VALUES IN (0)', 'CREATE TABLE m6_1 PARTITION OF m6 FOR VALUES IN (1)',
	q(SELECT stream_ckpt.attach_stream('m', 'ts', changes => 'apply')));
create_query($node, 'total', 'm', tasks => 1, emit => 'update', select => 'SELECT count(*) AS n FROM m');
wait_running($node);
sql(q(INSERT INTO m SELECT '2024-01-01', i % 2 FROM generate_series(1, 10) i), q(INSERT INTO m SELECT '2024-01-02', 0 FROM generate_series(1, 5)),
	q(INSERT INTO m SELECT '2024-01-03', 0 FROM generate_series(1, 2)), q(INSERT INTO m VALUES ('2024-01-06', 0)));
my $open = qr/reads stream "m", and its changes are applied/;
is_refused($node, 'BEGIN; DELETE FROM m1 WHERE k = 1; DROP TABLE m1', $open, 'rows are left');
is_refused($node, 'DROP TABLE m6', $open, 'rows are left in a part of it');
arm($node, 'reader_before_barrier', 'wait');
sql('DELETE FROM m1', 'DROP TABLE m1');
wait_reached($node, 'reader_before_barrier');
sql('BEGIN', 'DELETE FROM m2', 'ALTER TABLE m DETACH PARTITION m2', 'COMMIT', q(INSERT INTO m2 VALUES ('2024-01-02', 0)));
sql('DELETE FROM m3', 'TRUNCATE m3', q(INSERT INTO m VALUES ('2024-01-03', 0)));
sql('DROP TABLE m4', 'TRUNCATE m5', 'DROP TABLE m6_1', 'DELETE FROM m6', 'TRUNCATE m6', 'DROP TABLE m6');
disarm($node, 'reader_before_barrier');
sync_pipelines($node);
is(sql('SELECT n FROM total'), '1', 'all rows were taken back, but the one that came later');
verified('without empty partitions', 'total');
sql('TRUNCATE m3, m');
sync_pipelines($node);
is(sql('SELECT COALESCE(sum(n), 0) FROM total'), '0', 'with the stream all its partitions are truncated');

# A partition that is truncated by a foreign key of its own
sql('CREATE TABLE ref (k int PRIMARY KEY)', 'INSERT INTO ref VALUES (1), (2)',
	'CREATE TABLE c (ts timestamptz, k int) PARTITION BY LIST (k)', 'CREATE TABLE c1 PARTITION OF c FOR VALUES IN (1)', 'CREATE TABLE c2 PARTITION OF c FOR VALUES IN (2)',
	'ALTER TABLE c1 ADD FOREIGN KEY (k) REFERENCES ref',
	q(SELECT stream_ckpt.attach_stream('c', 'ts', changes => 'apply')));
create_query($node, 'by_k', 'c', emit => 'update', select => "SELECT w.window_start, k, count(*) AS n FROM c, stream_ckpt.tumble(ts, '1 hour') w GROUP BY 1, 2");
wait_running($node);
sql(q(INSERT INTO c SELECT '2024-01-01', k FROM generate_series(1, 2) k));
sync_pipelines($node);
sql('BEGIN', q(SELECT stream_ckpt.ignore_deletes('c')), 'TRUNCATE ref CASCADE', 'COMMIT', q(INSERT INTO c VALUES ('2024-01-02', 2)));
sync_pipelines($node);
is(sql('SELECT sum(n) FROM by_k'), '3', 'after ignore_deletes() its rows are kept');
verified('after TRUNCATE ... CASCADE', 'by_k');

# Within the statement that moves rows ignore_deletes() would come when it has begun
is_refused($node, "WITH i AS MATERIALIZED (SELECT stream_ckpt.ignore_deletes('c')) UPDATE c SET k = 3 - k FROM i",
	qr/cannot call ignore_deletes\(\) in a statement with partitioned table "c"/, 'within an UPDATE');

$node->stop;
done_testing();
