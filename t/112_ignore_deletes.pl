# ignore_deletes(): what the owner of a stream deletes, or truncates, after the call and until the end of the transaction stays
# in results, also in those without a window; all else is applied.  verify() leaves windows out that have kept such rows.
#
# First what is to be seen in a few rows; then random transactions, while everything is lost at random.  The truth of those is a
# table that takes part in all but the deletions that are to be ignored.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Conditions;
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 3;
my $node = new_node('main', "timezone = 'UTC'\nmax_prepared_transactions = 5\n", draw => { batch => [ 0, 1, 7 ], tasks => [ 1, 2, 4 ], memory => [0] });

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

my $ignore = q(SELECT stream_ckpt.ignore_deletes('t'));

# t is the stream, k what queries are to have counted: rows go from both, or from t only
sql('CREATE TABLE t (id int, ts timestamptz NOT NULL, k int, v int, p int NOT NULL DEFAULT 0) PARTITION BY LIST (p)',
	(map { "CREATE TABLE t$_ PARTITION OF t FOR VALUES IN ($_)" } 0 .. 1),
	'CREATE TABLE kept (id int, ts timestamptz NOT NULL, k int, v int, p int)',
	q(SELECT stream_ckpt.attach_stream('t', 'ts', watermark_delay => '1 hour', changes => 'apply')));

my %queries = (
	sums => [ 'update', 'SELECT k, count(*) AS n, sum(v) AS total, min(v) AS least FROM t GROUP BY k' ],
	one => [ 'update', 'SELECT count(*) AS n, sum(v) AS total, max(v) AS greatest FROM t' ],
	minutes => [ 'update', "SELECT w.window_start, k, count(*) AS n, array_agg(v ORDER BY v, id) AS all FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1, 2" ],
	hops => [ 'update', "SELECT w.window_start, k, count(*) AS n, sum(v) AS total FROM t, stream_ckpt.hop(ts, '1 minute', '5 minutes') w WHERE v > 3 GROUP BY 1, 2" ],
	ended => [ 'close', "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM t, stream_ckpt.tumble(ts, '10 minutes') w GROUP BY 1, 2, 3" ],
);
create_query($node, $_, 't', emit => $queries{$_}[0], select => $queries{$_}[1]) for sort keys %queries;
wait_running($node);

sub all_ok
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		results_ok($node, $name, "$test: $name", emit => $queries{$name}[0], table => 'high', delay => '1 hour', synced => 1, truth => $queries{$name}[1] =~ s/FROM t\b/FROM kept/r)
		  or diag "SEED=$seed";
	}
	return;
}

# Statements on t, and the same on the table of what is kept.
sub both { return map { ($_, s/\b(FROM|INTO|UPDATE|TRUNCATE) t\b/$1 kept/gr) } @_; }

sql('CREATE TABLE high (ts timestamptz)');
my $insert = q(INSERT INTO t (id, ts, k, v, p) SELECT i, timestamptz '2024-01-01 00:00' + i * interval '10 seconds', i % 4, i, i % 2 FROM generate_series(1, 60) i);
sql(both($insert), q(INSERT INTO high VALUES ('2024-01-01 00:10')));
all_ok('rows');

sql('BEGIN', $ignore, 'DELETE FROM t WHERE id <= 20', 'COMMIT');
all_ok('deleted rows stay');
is(counter($node, 'one', "concat_ws(' ', deletes_ignored, truncates_ignored, retracted_rows, message)"), '20 0 0', 'and are counted');
sql(both('DELETE FROM t WHERE id BETWEEN 21 AND 23', 'UPDATE t SET v = v + 100 WHERE id IN (24, 25)'));
all_ok('until the end of the transaction only');
sql('BEGIN', both('DELETE FROM t WHERE id = 26'), $ignore, 'DELETE FROM t WHERE id = 27',
	'INSERT INTO t (id, ts, k, v) VALUES (100, \'2024-01-01 00:05\', 1, 7)', 'INSERT INTO kept (id, ts, k, v) VALUES (100, \'2024-01-01 00:05\', 1, 7)', 'COMMIT');
all_ok('from the call on; rows that come count');
sql('BEGIN', 'SAVEPOINT a', $ignore, 'ROLLBACK TO a', both('DELETE FROM t WHERE id = 28'), 'COMMIT');
all_ok('not with a subtransaction that is rolled back');
sql('BEGIN', 'SAVEPOINT a', $ignore, 'RELEASE a', 'SAVEPOINT b', 'DELETE FROM t WHERE id = 29', 'ROLLBACK TO b', 'DELETE FROM t WHERE id = 30', 'COMMIT');
all_ok('but with one that is released');
sql('BEGIN', $ignore, 'DELETE FROM t WHERE id = 31', q(PREPARE TRANSACTION 'p'));
sql(q(COMMIT PREPARED 'p'));
sql('BEGIN', $ignore, 'DELETE FROM t', 'ROLLBACK', both('DELETE FROM t WHERE id = 32'));
all_ok('a prepared transaction, and one that is rolled back');
sql('BEGIN', $ignore, 'DELETE FROM t1 WHERE id = 33', 'UPDATE t1 SET v = v + 1 WHERE id = 35', 'UPDATE kept SET v = v + 1 WHERE id = 35', 'COMMIT');
all_ok('of a partition, where UPDATE is applied as ever');
is_refused($node, "BEGIN; $ignore; UPDATE t SET v = 1; COMMIT", qr/cannot update "t" after ignore_deletes\(\).*Update rows in another transaction/s, 'a move between partitions');
is_refused($node, "BEGIN; $ignore; WITH u AS (UPDATE t SET v = 1 RETURNING 1) SELECT count(*) FROM u; COMMIT", qr/cannot update "t"/, 'in WITH');
is_refused($node, "BEGIN; $ignore; MERGE INTO t USING (SELECT 1 AS i) n ON id = i WHEN MATCHED THEN UPDATE SET p = 1; COMMIT", qr/cannot update "t"/, 'in MERGE');
sql('BEGIN', 'SAVEPOINT a', $ignore, 'ROLLBACK TO a', both('UPDATE t SET p = 1 - p, v = v + 1 WHERE id IN (40, 41)'), 'COMMIT');
sql('BEGIN', $ignore, 'COMMIT', both('UPDATE t SET p = 1 - p, v = v + 1 WHERE id IN (40, 41)'));
all_ok('moves in other transactions');

# who may
sql(q(CREATE ROLE stranger LOGIN), q(GRANT ALL ON t TO stranger), q(CREATE TABLE ignoring (ts timestamptz)), q(SELECT stream_ckpt.attach_stream('ignoring', 'ts', changes => 'ignore')));
is_refused($node, "SET ROLE stranger; $ignore", qr/must be owner of/, 'a stranger');
is_refused($node, q(SELECT stream_ckpt.ignore_deletes('ignoring')), qr/changes of stream "ignoring" are not applied/, 'where nothing is applied');
is_refused($node, q(SELECT stream_ckpt.ignore_deletes('kept')), qr/"kept" is not a stream/, 'what is no stream');
is_refused($node, q(SELECT stream_ckpt.ignore_deletes(NULL)), qr/parameter "stream" must not be NULL|"stream"/, 'NULL');
# anybody may log a message, but it has another origin
sql('BEGIN', q(SELECT pg_logical_emit_message(true, 'stream_ckpt', decode('0144' || repeat('00', 14) || string_agg(substr(hex, i * 2 - 1, 2), '' ORDER BY i DESC) || repeat('00', 4), 'hex'))
	FROM (SELECT lpad(to_hex('t'::regclass::oid::int), 8, '0') AS hex) x, generate_series(1, 4) i), both('DELETE FROM t WHERE id = 36'), 'COMMIT');
all_ok('a forged message');

# verify()
my ($ret, $stdout, $stderr) = $node->psql('postgres', q(SELECT stream_ckpt.verify('sums')));
like($stderr, qr/After ignore_deletes\(\) the result has kept rows that were deleted: \d+ by DELETE/, 'verify(): groups without a window cannot be compared');
sql("INSERT INTO t (id, ts, k, v) VALUES (101, '2024-01-01 03:00', 1, 9)", "INSERT INTO kept (id, ts, k, v) VALUES (101, '2024-01-01 03:00', 1, 9)", q(INSERT INTO high VALUES ('2024-01-01 03:00')));
all_ok('windows close with what they have kept');
for my $name (qw(minutes hops ended))
{
	($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT stream_ckpt.verify('$name')");
	is($stdout, '0', "verify('$name')");
	like($stderr, qr/windows? of "$name" (?:is|are) left out/, 'leaves out windows');
}

# TRUNCATE, with rows around it
sql('BEGIN', $ignore, 'TRUNCATE t', both(q(INSERT INTO t (id, ts, k, v) VALUES (102, '2024-01-01 03:01', 1, 9))), 'COMMIT');
all_ok('TRUNCATE');
is(counter($node, 'one', 'truncates_ignored'), '1', 'is counted');
is($node->safe_psql('postgres', q(SELECT stream_ckpt.verify('minutes'))), '0', 'verify() leaves out all that there was');

# Random transactions
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries), 'TRUNCATE t', 'TRUNCATE kept', 'TRUNCATE high');
create_query($node, $_, 't', emit => $queries{$_}[0], select => $queries{$_}[1]) for sort keys %queries;
wait_running($node);
my $next = 1;
my $clock = 0;

sub rows
{
	my $first = $next;

	$next += pick(1, 5, 30);
	$clock += pick(0, 20, 200);
	return both("INSERT INTO t (id, ts, k, v, p) SELECT i, timestamptz '2024-02-01' + $clock * interval '1 second' + i % 7 * interval '40 seconds', i % 5, i % 11, i % 2 FROM generate_series($first, $next - 1) i");
}

# "ignored": behind the call
sub change
{
	my ($ignored) = @_;
	my $some = 'id % ' . pick(3, 5, 7) . ' = ' . pick(0, 1) . " AND id > $next - 300";
	my @delete = ("DELETE FROM t WHERE $some");
	my @update = both("UPDATE t SET v = v + 1" . pick('', ', k = k + 1', ", ts = ts + interval '1 minute'") . " WHERE $some");

	# rows that only "kept" has are none of t: there is nothing to update or to delete
	$update[1] .= ' AND id IN (SELECT id FROM t)';
	@update = ((map { my $p = $_; $update[0] =~ s/UPDATE t/UPDATE t$p/r } 0, 1), $update[1]) if $ignored;
	return @update if rand() < 0.4;
	return @delete if $ignored;
	return ("DELETE FROM kept WHERE $some AND id IN (SELECT id FROM t)", @delete);
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(10, 20))
	{
		my @before = map { (rand() < 0.5 ? rows() : change(0)) } 1 .. pick(0, 1, 3);
		my @behind = map { (rand() < 0.3 ? rows() : change(1)) } 1 .. pick(1, 2, 3);

		if (rand() < 0.5) { sql('BEGIN', @before, $ignore, @behind, 'COMMIT'); }
		elsif (rand() < 0.3) { sql('BEGIN', @before, 'SAVEPOINT a', $ignore, @behind, 'ROLLBACK TO a', change(0), 'COMMIT'); }
		else { sql('BEGIN', rows(), @before, 'COMMIT'); }
		sql("INSERT INTO high SELECT max(ts) FROM t HAVING max(ts) IS NOT NULL");
		checkpoint_all($node) if rand() < 0.1;
		lose_state($node, pick(qw(immediate fast task coordinator reader))) if rand() < 0.07;
	}
	all_ok("round $round");
	for my $name (qw(minutes hops ended))
	{
		is($node->safe_psql('postgres', "SELECT stream_ckpt.verify('$name')"), '0', "round $round: verify('$name')");
	}
}
is(sql("SELECT count(*) FROM stream_ckpt.queries WHERE status <> 'running'"), '0', 'no query has failed') or diag sql('SELECT query, status, message FROM stream_ckpt.queries');

$node->stop;
done_testing();
