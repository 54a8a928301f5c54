# The stream's table changes while rows flow: columns added and dropped, types of columns that
# no query uses, partitions attached; and values that are toasted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

# A table with a dropped column before those that count, and one after.
$node->safe_psql(
	'postgres', q(
	CREATE TABLE t (gone1 text, ts timestamptz, k int, gone2 int, v int, other int, another text);
	ALTER TABLE t DROP COLUMN gone1;
	ALTER TABLE t DROP COLUMN gone2;
	CREATE SEQUENCE s));
attach($node, 't', delay => '10 minutes');
create_query($node, 'closed', 't', emit => 'close');
create_query($node, 'live', 't', emit => 'update');
wait_running($node);

sub check
{
	my ($what) = @_;

	sync_pipelines($node);
	is( join(' ',
			differences($node, 'closed', table => 't', delay => '10 minutes'),
			differences($node, 'live', emit => 'update'),
			counter($node, 'live', 'rows_in')
			  - $node->safe_psql('postgres', 'SELECT count(*) FROM t'),
			query_late_rows($node, 'live')),
		'0 0 0 0',
		$what);
	return;
}

my $script =
  q(INSERT INTO t (ts, k, v) SELECT timestamptz '2024-01-01 00:00 UTC' + n * interval '6 seconds' + i * interval '500 ms', i % 4, i
	FROM (SELECT nextval('s') AS n) s, generate_series(1, 10) i;
);

# Each change in the middle of the rows; the table must have rows from before and after.
for my $ddl (
	'ALTER TABLE t ADD COLUMN added1 text',
	"ALTER TABLE t ADD COLUMN added2 int DEFAULT 7",
	"ALTER TABLE t ADD COLUMN added3 text DEFAULT md5(random()::text)",
	'ALTER TABLE t DROP COLUMN another',
	'ALTER TABLE t ALTER COLUMN other TYPE bigint',
	'ALTER TABLE t ALTER COLUMN other TYPE text',
	'ALTER TABLE t RENAME COLUMN added2 TO added4',
	'ALTER TABLE t DROP COLUMN added1',
	'CREATE INDEX ON t (ts)',
	'CLUSTER t USING t_ts_idx',
	'VACUUM FULL t',
	'ALTER TABLE t RENAME COLUMN v TO value',
	'ALTER TABLE t RENAME COLUMN value TO v',
	'ALTER TABLE t SET (fillfactor = 50)',)
{
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM t');
	my $with = $ddl =~ /RENAME COLUMN (v|value) / ? '' : $script;
	my $writer = $with ? start_writer($node, $with, transactions => 100, rate => 400) : undef;

	wait_until($node, "SELECT count(*) > $before FROM t", 'rows flow')
	  if $writer;
	$node->safe_psql('postgres', $ddl);
	ok(finish_writer($writer), "writers go on over $ddl") if $writer;
	check($ddl);
}

# In one transaction with rows before and after, and rolled back.
$node->safe_psql(
	'postgres', q(
	BEGIN;
	INSERT INTO t (ts, k, v) VALUES ('2024-01-03 00:00 UTC', 1, 1);
	ALTER TABLE t ADD COLUMN b1 int DEFAULT 5, DROP COLUMN added3;
	INSERT INTO t (ts, k, v) VALUES ('2024-01-03 00:01 UTC', 1, 2);
	SAVEPOINT a;
	ALTER TABLE t ALTER COLUMN b1 TYPE text;
	INSERT INTO t (ts, k, v) VALUES ('2024-01-03 00:02 UTC', 1, 3);
	ROLLBACK TO a;
	INSERT INTO t (ts, k, v) VALUES ('2024-01-03 00:03 UTC', 1, 4);
	COMMIT));
check('DDL between the rows of one transaction');

# Generated columns: stored ones are in the WAL; virtual ones (18) are not, and become their expression.
{
	my $virtual = $node->pg_version >= 18 ? 'VIRTUAL' : 'STORED';

	$node->safe_psql(
		'postgres', qq(
		CREATE TABLE generated (ts timestamptz, a int, twice int GENERATED ALWAYS AS (a * 2) $virtual,
			stored int GENERATED ALWAYS AS (a * 3) STORED, digit text GENERATED ALWAYS AS ('d' || (a % 3)::text) $virtual)));
	attach($node, 'generated');
	create_query(
		$node, 'of_generated', 'generated',
		select =>
		  q(SELECT w.window_start, w.window_end, digit, count(twice) AS n, sum(twice) AS twice, sum(stored) AS stored,
				max(digit || twice) AS both, sum(a) FILTER (WHERE twice % 4 = 0) AS filtered
			FROM generated, stream_ckpt.tumble(ts, '1 minute') w
			WHERE twice > 5
			GROUP BY w.window_start, w.window_end, digit
			HAVING sum(twice) > 100));
	$node->safe_psql(
		'postgres', q(
		INSERT INTO generated (ts, a) SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '2 seconds', i
			FROM generate_series(0, 300) i));
	sync_pipelines($node);
	is(differences($node, 'of_generated', table => 'generated'),
		'0', 'generated columns, ' . lc $virtual);
	cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM of_generated'),
		'>', 20, 'and there are results');
	$node->safe_psql('postgres', 'DROP TABLE generated CASCADE');
}

# What the query uses is protected by its definition's view.
my ($ret) = $node->psql('postgres', 'ALTER TABLE t ALTER COLUMN v TYPE bigint');
isnt($ret, 0, "a used column's type can't be changed");
($ret) = $node->psql('postgres', 'ALTER TABLE t DROP COLUMN k');
isnt($ret, 0, "a used column can't be dropped");

# After a restart everything is read again from the changed catalogs.
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres',
	q(INSERT INTO t (ts, k, v) VALUES ('2024-01-03 01:00 UTC', 1, 1)));
check('after a crash');

# Partitions: rows through the root and through the leaves, whose columns are in another
# order; attached and created later.
$node->safe_psql(
	'postgres', q(
	CREATE TABLE p (ts timestamptz, k int, v int, note text) PARTITION BY RANGE (ts);
	CREATE TABLE p_0 PARTITION OF p FOR VALUES FROM ('2024-01-01 00:00 UTC') TO ('2024-01-01 01:00 UTC');
	CREATE TABLE p_1 (note text, gone int, v int, k int, ts timestamptz);
	ALTER TABLE p_1 DROP COLUMN gone;
	ALTER TABLE p ATTACH PARTITION p_1 FOR VALUES FROM ('2024-01-01 01:00 UTC') TO ('2024-01-01 02:00 UTC')));
attach($node, 'p', delay => '2 hours');
create_query($node, 'p_closed', 'p', emit => 'close');
create_query($node, 'p_live', 'p', emit => 'update');

sub check_partitioned
{
	my ($what) = @_;

	sync_pipelines($node);
	is( join(' ',
			differences($node, 'p_closed', table => 'p', delay => '2 hours'),
			differences($node, 'p_live', emit => 'update')),
		'0 0',
		$what);
	return;
}

$node->safe_psql(
	'postgres', q(
	INSERT INTO p SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '10 seconds', i % 3, i FROM generate_series(0, 719) i;
	INSERT INTO p_0 SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '10 seconds', i % 3, i FROM generate_series(0, 359) i;
	INSERT INTO p_1 (ts, k, v) SELECT timestamptz '2024-01-01 01:00 UTC' + i * interval '10 seconds', i % 3, i FROM generate_series(0, 359) i));
check_partitioned('rows through the root and the leaves');

$node->safe_psql(
	'postgres', q(
	CREATE TABLE p_2 (v int, note text, ts timestamptz, k int);
	ALTER TABLE p ATTACH PARTITION p_2 FOR VALUES FROM ('2024-01-01 02:00 UTC') TO ('2024-01-01 03:00 UTC');
	CREATE TABLE p_3 PARTITION OF p FOR VALUES FROM ('2024-01-01 03:00 UTC') TO ('2024-01-01 05:00 UTC')
		PARTITION BY RANGE (ts);
	CREATE TABLE p_3a PARTITION OF p_3 FOR VALUES FROM ('2024-01-01 03:00 UTC') TO ('2024-01-01 04:00 UTC');
	CREATE TABLE p_3b PARTITION OF p_3 DEFAULT;
	INSERT INTO p_2 (ts, k, v) SELECT timestamptz '2024-01-01 02:00 UTC' + i * interval '10 seconds', i % 3, i FROM generate_series(0, 359) i;
	INSERT INTO p SELECT timestamptz '2024-01-01 02:00 UTC' + i * interval '10 seconds', i % 3, i FROM generate_series(0, 1079) i));
check_partitioned('partitions attached later, of two levels');

# Created, filled and attached in one transaction with rows in between: only rows that were
# inserted while it belonged to the stream can be known, so it is empty when attached.
$node->safe_psql(
	'postgres', q(
	BEGIN;
	CREATE TABLE p_5 (k int, ts timestamptz, v int, note text);
	ALTER TABLE p ATTACH PARTITION p_5 FOR VALUES FROM ('2024-01-01 05:00 UTC') TO ('2024-01-01 06:00 UTC');
	INSERT INTO p_5 (ts, k, v) VALUES ('2024-01-01 05:10 UTC', 1, 1);
	ALTER TABLE p ADD COLUMN later int;
	INSERT INTO p (ts, k, v) VALUES ('2024-01-01 05:20 UTC', 1, 1);
	COMMIT));
check_partitioned('attached and filled in one transaction');

# Toasted values: compressed in line, out of line, and as keys.
$node->safe_psql(
	'postgres', q(
	CREATE TABLE big (ts timestamptz, k int, payload text, doc jsonb, plain text);
	ALTER TABLE big ALTER COLUMN payload SET STORAGE EXTERNAL;
	CREATE FUNCTION noise(seed int, n int) RETURNS text LANGUAGE sql IMMUTABLE AS
		$$ SELECT string_agg(md5(seed::text || i), '' ORDER BY i) FROM generate_series(1, n) i $$));
attach($node, 'big');
for my $emit (qw(close update))
{
	create_query(
		$node, "big_$emit", 'big',
		emit => $emit,
		select =>
		  q(SELECT w.window_start, w.window_end, left(payload, 10) AS head, count(*) AS n, sum(length(payload)) AS bytes,
				max(payload) AS greatest, min(md5(payload)) AS hash, max(doc ->> 'x') AS x, min(plain) AS least
			FROM big, stream_ckpt.tumble(ts, '1 minute') w
			GROUP BY w.window_start, w.window_end, left(payload, 10)));
}
$node->safe_psql(
	'postgres', q(
	INSERT INTO big SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '5 seconds', i, noise(i % 20, 1 + i * 7 % 300),
			jsonb_build_object('x', noise(i, 100), 'y', i), repeat('x', i * 1000)
		FROM generate_series(1, 100) i;
	INSERT INTO big VALUES ('2024-01-01 00:30 UTC', 1, NULL, NULL, NULL), ('2024-01-01 00:30 UTC', 2, noise(1, 60000), NULL, '')));
sync_pipelines($node);
is(differences($node, 'big_close', table => 'big'),
	'0', 'toasted values: emit close');
is(differences($node, 'big_update', emit => 'update'),
	'0', 'toasted values: emit update');
kill 'TERM', pid_of($node, 'task');
$node->safe_psql('postgres',
	q(INSERT INTO big SELECT '2024-01-01 00:30 UTC', 3, noise(i, 3000), NULL, noise(i, 3000) FROM generate_series(1, 50) i;
	  INSERT INTO big VALUES ('2024-01-01 00:40 UTC', 1, 'end', NULL, '')));
sync_pipelines($node);
is(differences($node, 'big_close', table => 'big'),
	'0', 'toasted values after a restart: emit close');
is(differences($node, 'big_update', emit => 'update'),
	'0', 'toasted values after a restart: emit update');

$node->stop;
done_testing();
