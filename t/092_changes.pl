# Changes of a stream that are applied: whatever UPDATE, DELETE, TRUNCATE and the like do, each result equals its
# definition over the table as it is then.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', '', draw => {});

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sql('CREATE TABLE customer (id int PRIMARY KEY)',
	'INSERT INTO customer SELECT i FROM generate_series(1, 20) i',
	q(CREATE TABLE o (id int, part int NOT NULL DEFAULT 0, customer int REFERENCES customer ON DELETE CASCADE ON UPDATE CASCADE,
		ts timestamptz NOT NULL, k int, v int, amount numeric(12,2), price float8, note text, PRIMARY KEY (id, part)) PARTITION BY LIST (part)),
	'CREATE TABLE o0 PARTITION OF o FOR VALUES IN (0)',
	# other columns, in another order
	q(CREATE TABLE o1 (gone int, note text, part int NOT NULL DEFAULT 1, ts timestamptz NOT NULL, v int, k int, id int NOT NULL,
		price float8, amount numeric(12,2), customer int)),
	'ALTER TABLE o1 DROP COLUMN gone',
	'ALTER TABLE o ATTACH PARTITION o1 FOR VALUES IN (1)',
	q(SELECT stream_ckpt.attach_stream('o', 'ts', watermark_delay => '30 minutes', changes => 'apply')));

# name => [ emit, select, options ]; what is compared
my %queries = (
	by_k => [ 'update', 'SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS total, sum(amount) AS amount, avg(v) AS mean, min(v) AS least, max(v) AS greatest FROM o GROUP BY k' ],
	filtered => [ 'update', 'SELECT k, part, count(*) FILTER (WHERE v % 2 = 0) AS even, sum(v) AS total FROM o WHERE v > 30 GROUP BY k, part HAVING count(*) > 1' ],
	one => [ 'update', 'SELECT count(*) AS n, sum(v) AS total, max(note) AS note FROM o' ],
	one_having => [ 'update', 'SELECT count(*) AS n, sum(v) AS total FROM o HAVING count(*) > 2' ],
	each => [ 'update', 'SELECT id, part, count(*) AS n, sum(v) AS total, max(note) AS note FROM o GROUP BY id, part' ],
	having_sets => [ 'update', 'SELECT k, part, grouping(k, part) AS g, count(*) AS n, sum(v) AS total, array_agg(v ORDER BY v, id) AS all FROM o GROUP BY ROLLUP (k, part)' ],
	tumbled => [ 'update', 'SELECT w.window_start, k, count(*) AS n, sum(v) AS total, min(v) AS least FROM o, stream_ckpt.tumble(ts, \'10 minutes\') w GROUP BY w.window_start, k' ],
	closed => [ 'close', 'SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, min(v) AS least FROM o, stream_ckpt.tumble(ts, \'10 minutes\') w GROUP BY w.window_start, w.window_end, k' ],
	top => [ 'close', 'SELECT window_start, window_end, k, total, r FROM (SELECT w.window_start, w.window_end, k, sum(v) AS total, rank() OVER (PARTITION BY w.window_start, w.window_end ORDER BY sum(v) DESC) AS r FROM o, stream_ckpt.tumble(ts, \'10 minutes\') w GROUP BY w.window_start, w.window_end, k) s WHERE r <= 2', 'parallelism => 1' ],
	late => [ 'close', 'SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest FROM o, stream_ckpt.tumble(ts, \'10 minutes\') w GROUP BY w.window_start, w.window_end, k', q(allowed_lateness => '1 day') ],
);
create_query($node, $_, 'o', emit => $queries{$_}[0], select => $queries{$_}[1], options => $queries{$_}[2]) for sort keys %queries;
wait_running($node);

# All that is never late, and, of queries that show windows when they close, what they show.
sub all_ok
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $synced = 0;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		results_ok($node, $name, "$name: $test", emit => $queries{$name}[0], table => 'o', delay => '30 minutes', synced => 1)
		  or diag sql(q(SELECT query, status, message, detail FROM stream_ckpt.queries WHERE message IS NOT NULL));
	}
	return;
}

my $rows = q(SELECT i, i % 2, 1 + i % 20, timestamptz '2024-01-01 00:00 UTC' + i % 25 * interval '1 minute', i % 4, i, i, i / 8.0, repeat('n', i) FROM generate_series);

sql("INSERT INTO o (id, part, customer, ts, k, v, amount, price, note) $rows(1, 100) i",
	q(INSERT INTO o (id, ts, v) VALUES (0, '2024-01-01 00:29 UTC', NULL)));
all_ok('rows');
sql('UPDATE o SET v = v + 100 WHERE id % 7 = 0');
all_ok('a value');
sql('UPDATE o SET v = NULL WHERE id % 11 = 0', 'UPDATE o SET v = 5 WHERE v IS NULL AND id % 2 = 0');
all_ok('NULLs come and go');
sql('UPDATE o SET k = k + 2 WHERE id % 5 = 0', 'UPDATE o SET k = NULL WHERE id = 3');
all_ok('a key');
sql(q(UPDATE o SET ts = ts + interval '11 minutes' WHERE ts < '2024-01-01 00:10 UTC' AND id % 3 = 0));
all_ok('the window');
my $result_rows = counter($node, 'by_k', 'result_rows');
sql(q(UPDATE o SET price = price + 1));
all_ok('a column that nobody reads');
is(counter($node, 'by_k', 'result_rows'), $result_rows, 'is no work');
sql('UPDATE o SET part = 1 - part WHERE id BETWEEN 40 AND 60');
all_ok('moves between partitions');

# values that are out of line, and stay there: the WAL has them in the old row only
sql(q(ALTER TABLE o ALTER note SET STORAGE EXTERNAL), q(UPDATE o SET note = (SELECT string_agg(md5(o.id::text || j), '') FROM generate_series(1, 200) j) WHERE id % 10 < 3));
all_ok('large values');
sql('UPDATE o SET v = v + 1 WHERE id % 10 = 1', 'UPDATE o SET part = 1 - part, k = k + 1 WHERE id % 20 = 2');
all_ok('beside large values');
sql(q(UPDATE o SET note = 'small' WHERE id % 20 = 1), 'DELETE FROM o WHERE id % 20 = 10');
all_ok('large values go');
sql('DELETE FROM o WHERE id % 9 = 0', 'DELETE FROM o WHERE k = 2');
all_ok('DELETE, of a group too');
sql("INSERT INTO o (id, part, customer, ts, k, v, amount, price, note) $rows(1, 100) i ON CONFLICT (id, part) DO UPDATE SET v = o.v + excluded.v");
all_ok('ON CONFLICT');
sql(q(MERGE INTO o USING (SELECT i, i % 2 AS part FROM generate_series(50, 150) i) n ON o.id = n.i AND o.part = n.part
	WHEN MATCHED AND o.v > 100 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 1
	WHEN NOT MATCHED THEN INSERT (id, part, ts, k, v) VALUES (i, n.part, '2024-01-01 00:15 UTC', 1, i)));
all_ok('MERGE');
sql('DELETE FROM customer WHERE id = 3', 'UPDATE customer SET id = 30 WHERE id = 4');
all_ok('cascades of foreign keys');
sql('BEGIN', 'INSERT INTO o (id, ts, k, v) VALUES (1000, \'2024-01-01 00:12 UTC\', 77, 1)',
	'SAVEPOINT a', 'UPDATE o SET v = v + 1', 'ROLLBACK TO a', 'UPDATE o SET v = 2 WHERE id = 1000', 'SAVEPOINT b',
	'DELETE FROM o WHERE id = 1000', 'INSERT INTO o (id, ts, k, v) VALUES (1000, \'2024-01-01 00:13 UTC\', 77, 3)', 'RELEASE b', 'COMMIT');
all_ok('savepoints, and a row that is inserted, changed, deleted and inserted');
sql('BEGIN', 'INSERT INTO o (id, ts, k, v) VALUES (1001, \'2024-01-01 00:12 UTC\', 78, 1)', 'DELETE FROM o WHERE id = 1001', 'COMMIT');
all_ok('a row that comes and goes in one transaction');
sql('BEGIN', 'UPDATE o SET v = v + 1 WHERE id % 3 = 0', 'DELETE FROM o WHERE id % 13 = 0', q(PREPARE TRANSACTION 'changes'));
sql(q(COMMIT PREPARED 'changes'));
all_ok('a prepared transaction');
$node->restart;
wait_running($node);
sql('UPDATE o SET v = v - 1 WHERE id % 3 = 0', 'DELETE FROM o WHERE id % 17 = 0');
all_ok('after a restart');

# windows close, with what they have then
sql(q(INSERT INTO o (id, ts, k, v) VALUES (2000, '2024-01-01 00:58 UTC', 1, 1)));
all_ok('windows close');
my $late = counter($node, 'closed', 'late_changes') // 0;
sql(q(DELETE FROM o WHERE id = (SELECT min(id) FROM o WHERE ts < '2024-01-01 00:20 UTC')));
sync_pipelines($node);
is(counter($node, 'closed', 'late_changes') - $late, 1, 'a closed window keeps what it had, and that is counted');
results_ok($node, $_, "$_: what is within lateness, or has no window that closes, changes", emit => $queries{$_}[0], table => 'o', delay => '30 minutes')
  for qw(by_k one having_sets late);
sql(q(UPDATE o SET ts = '2024-01-01 00:50 UTC', k = 5 WHERE id = (SELECT min(id) FROM o WHERE ts < '2024-01-01 00:20 UTC')));
results_ok($node, $_, "$_: a row leaves a closed window for an open one", emit => $queries{$_}[0], table => 'o', delay => '30 minutes')
  for qw(by_k one having_sets late);

# TRUNCATE, with rows before and behind it in its transaction
delete @queries{qw(closed top tumbled)};
sql('BEGIN', q(INSERT INTO o (id, ts, k, v) VALUES (3000, '2024-01-01 00:59 UTC', 1, 1)), 'TRUNCATE o',
	q(INSERT INTO o (id, ts, k, v) VALUES (3001, '2024-01-01 00:59 UTC', 1, 2), (3002, '2024-01-01 00:58 UTC', 2, NULL)), 'COMMIT');
all_ok('TRUNCATE with rows around it');
sql('TRUNCATE customer CASCADE');
sync_pipelines($node);
results_ok($node, $_, "$_: TRUNCATE by a cascade", emit => 'update') for qw(by_k one having_sets filtered);

# All of many groups go at once, and half of them; after a restart none of them is there
for my $gone ('true', 'id % 3 > 0')
{
	sql("INSERT INTO o (id, part, ts, k, v, note) SELECT i, i % 2, '2024-01-01 00:59 UTC', i % 4, i, 'n' FROM generate_series(10001, 10300) i");
	all_ok("many groups, before $gone");
	sql("DELETE FROM o WHERE $gone");
	all_ok("many groups, without $gone");
	lose_state($node, 'task');
	sql("INSERT INTO o (id, part, ts, k, v, note) SELECT id, id % 2, '2024-01-01 00:59 UTC', id % 4, id, 'n' FROM generate_series(10001, 10300) id WHERE $gone");
	all_ok("many groups, $gone again");
	sql('DELETE FROM o');
	all_ok("none");
}

# The result is made anew, while rows change
sql("INSERT INTO o (id, part, ts, k, v, note) SELECT i, i % 2, '2024-01-01 00:59 UTC', i % 4, i, 'n' FROM generate_series(1, 100) i");
sql("SET client_min_messages = warning; SELECT stream_ckpt.rebuild_query('by_k')");
sql('UPDATE o SET v = v + 1, k = k + 1 WHERE id % 3 = 0', 'DELETE FROM o WHERE id % 5 = 0');
all_ok('made anew');
sql('UPDATE o SET v = 1 - v, k = 3 WHERE id % 3 = 1', 'DELETE FROM o WHERE id % 7 = 0');
all_ok('and goes on');

# What the WAL doesn't have of a row is an error, never a wrong result; and rebuild_query() mends it
sql(q(UPDATE pg_class SET relreplident = 'd' WHERE relname = 'o0'), 'UPDATE o SET v = v + 5 WHERE part = 0', q(UPDATE pg_class SET relreplident = 'f' WHERE relname = 'o0'));
wait_until($node, q(SELECT bool_and(status = 'failed') FROM stream_ckpt.queries), 'changes without old rows are an error');
like(counter($node, 'by_k', 'message || hint'), qr/replica identity wasn't FULL.*rebuild_query/, 'which says so');
sql(q(SET client_min_messages = warning; SELECT stream_ckpt.rebuild_query(query) FROM stream_ckpt.queries));
sql('UPDATE o SET v = v + 1 WHERE id % 2 = 0', 'DELETE FROM o WHERE id % 11 = 0');
wait_until($node, q(SELECT bool_and(status = 'running') FROM stream_ckpt.queries), 'all are made anew');
all_ok('made anew after an error');
is(sql(q(SELECT string_agg(status, ' ') FROM stream_ckpt.queries WHERE status <> 'running')), '', 'all queries are well');

done_testing();
