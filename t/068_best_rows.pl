# DISTINCT ON and row_number() <= n: columns that are shown twice, and rows as values whose types change.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.debug_result_row_bytes = 100000\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

# Columns that are shown twice: what identifies a row is either of them.
sql(q(CREATE TABLE twice (ts timestamptz, k int, v int); SELECT stream_ckpt.attach_stream('twice', event_time => 'ts', watermark_delay => '1 hour');
	SELECT stream_ckpt.create_query('first_of_two', 'SELECT DISTINCT ON (b) k AS a, k AS b, v FROM twice ORDER BY b, v DESC');
	SELECT stream_ckpt.create_query('group_of_two', 'SELECT k AS a, k AS b, count(*) AS n FROM twice GROUP BY b');
	SELECT stream_ckpt.create_query('window_of_two', 'SELECT w.window_start AS a, w.window_start AS b, k AS c, k AS d, count(*) AS n FROM twice, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY b, d', emit => 'update');
	SELECT stream_ckpt.create_query('numbered_of_two', 'SELECT rn AS a, rn AS b, x, y, v FROM (SELECT k AS x, k AS y, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS rn FROM twice) r WHERE rn <= 2')));
wait_running($node);
sql("INSERT INTO twice SELECT '2024-01-01 UTC', i % 2, i FROM generate_series($_, $_ + 3) i"), sync_pipelines($node) for 1, 5;
for my $name (qw(first_of_two group_of_two window_of_two numbered_of_two))
{
	is(sql("SELECT stream_ckpt.verify('$name')"), '0', "$name is right");
}

# What a row's type is made of changes under the rows that are kept: they can't be read with the new columns.
sub failure_of
{
	my ($name) = @_;
	wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = '$name'::regclass", "$name fails");
	return sql("SELECT message FROM stream_ckpt.queries WHERE query = '$name'::regclass");
}
sql(q(CREATE TYPE two AS (b int8); CREATE TABLE w (k int, x int8, y int8); SELECT stream_ckpt.attach_stream('w');
	CREATE FUNCTION make_two(int8) RETURNS two LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN ROW($1)::two; END';
	SELECT stream_ckpt.create_query('whole_rows', 'SELECT k, rn, to_jsonb(p) AS j FROM (SELECT k, w AS p, row_number() OVER (PARTITION BY k ORDER BY x DESC) AS rn FROM w) r WHERE rn <= 3');
	SELECT stream_ckpt.create_query('named_rows', 'SELECT k, p::text AS p FROM (SELECT k, ARRAY[make_two(x)] AS p, row_number() OVER (PARTITION BY k ORDER BY x DESC) AS rn FROM w) r WHERE rn = 1')));
wait_running($node);
sql('INSERT INTO w SELECT i % 2, i, i FROM generate_series(1, 10) i');
sync_pipelines($node);
is(sql("SELECT stream_ckpt.verify('$_')"), '0', "$_ is right") for qw(whole_rows named_rows);
sql('ALTER TYPE two ALTER ATTRIBUTE b TYPE text; ALTER TABLE w ALTER COLUMN y TYPE text');
sql(q(INSERT INTO w VALUES (0, 9, 9)));
like(failure_of($_), qr/doesn't fit its definition/, "$_ is not read as another type") for qw(whole_rows named_rows);

# a failed query keeps sync() from succeeding
sql("SELECT stream_ckpt.drop_query('$_')") for qw(whole_rows named_rows);

# Keys that are equal and not the same: a row shows its own.
my $best = q(SELECT DISTINCT ON (k) k, id FROM alike ORDER BY k, id DESC);
sql(q(CREATE TABLE alike (k numeric, j jsonb, id int); SELECT stream_ckpt.attach_stream('alike')) . qq(;
	SELECT stream_ckpt.create_query('own_key', '$best'); SELECT stream_ckpt.create_query('own_through', '$best');
	SELECT stream_ckpt.create_query('own_keys', 'SELECT k, j, rn, id FROM (SELECT k, j, id, row_number() OVER (PARTITION BY k, j ORDER BY id DESC) AS rn FROM alike) r WHERE rn <= 2 AND k > 1');
	SELECT stream_ckpt.create_query('only_key', 'SELECT DISTINCT ON (k) k FROM alike ORDER BY k, id DESC');
	CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER nothing BEFORE INSERT ON own_through FOR EACH ROW EXECUTE FUNCTION nothing();
	CREATE TRIGGER nothing BEFORE INSERT ON only_key FOR EACH ROW EXECUTE FUNCTION nothing()));
wait_running($node);
sql("INSERT INTO alike VALUES $_"), sync_pipelines($node) for "(1.5, '1', 1)", "(1.50, '1.0', 2)", "(1.500, '1.00', 3)";
is(sql("SELECT k, id FROM $_"), '1.500|3', "$_ has the best row's key") for qw(own_key own_through);
is(sql('SELECT k FROM only_key'), '1.500', 'and so has a result with nothing else');
is(sql('SELECT * FROM own_keys ORDER BY rn'), "1.500|1.00|1|3\n1.50|1.0|2|2", 'each of two rows has its own keys');

# Rows that are emitted together: if one of them is too large, the others aren't there, either.
sql(q(CREATE TABLE large (ts timestamptz, k int, n int, id int, s text); SELECT stream_ckpt.attach_stream('large', event_time => 'ts');
	SELECT stream_ckpt.create_query('large_rows', 'SELECT k, rn, repeat(''x'', n) AS x FROM (SELECT k, n, row_number() OVER (PARTITION BY k ORDER BY id) AS rn FROM large) r WHERE rn <= 3', on_error => 'dead_letter');
	SELECT stream_ckpt.create_query('large_windows', 'SELECT w.window_end, id, repeat(''x'', CASE WHEN w.window_end > ''2024-01-01 00:02 UTC'' THEN n ELSE 1 END) AS x FROM large, stream_ckpt.hop(ts, ''1 minute'', ''3 minutes'') w', on_error => 'dead_letter')));
wait_running($node);
sql(q(INSERT INTO large VALUES ('2024-01-01 UTC', 1, 10, 1), ('2024-01-01 UTC', 1, 200000, 2), ('2024-01-01 UTC', 2, 10, 3)));
sync_pipelines($node);
is(sql('SELECT k, rn, length(x) FROM large_rows ORDER BY 1, 2'), '2|1|10', 'of a group with a row that is too large there is none');
is(sql('SELECT id, count(*) FROM large_windows GROUP BY 1 ORDER BY 1'), "1|3\n3|3", 'of a row that is too large in one of its windows there is none');
is(sql('SELECT query, kind FROM stream_ckpt.dead_letter ORDER BY 1, 2'), "large_rows|group\nlarge_windows|row", 'both are letters');

# A row that was never counted goes, and right behind it one comes that is the same: that isn't the one that went.
sql(q(CREATE TABLE counted (id int PRIMARY KEY, k int, v int); SELECT stream_ckpt.attach_stream('counted', changes => 'apply');
	SELECT stream_ckpt.create_query('counted_best', 'SELECT DISTINCT ON (k) k, id, v FROM counted ORDER BY k, v DESC, id')));
wait_running($node);
sql('INSERT INTO counted SELECT i, 1, i FROM generate_series(1, 5) i');
sync_pipelines($node);
sql(q(BEGIN; UPDATE pg_class SET relpersistence = 'u' WHERE oid = 'counted'::regclass; INSERT INTO counted VALUES (9, 1, 9);
	UPDATE pg_class SET relpersistence = 'p' WHERE oid = 'counted'::regclass; COMMIT));
sync_pipelines($node);
is(sql('SELECT id FROM counted_best'), '5', 'a row was not logged');
sql('BEGIN; DELETE FROM counted WHERE id = 9; INSERT INTO counted VALUES (9, 1, 9); COMMIT');
like(failure_of('counted_best'), qr/a row was changed or deleted that the query has not counted/, 'a row that was not counted is an error');

# With dead letters: a group that fails keeps the rows that the result has of it, and after a restart nobody knows how many.
# When it is emitted again the rest of them goes; and from then on no number is deleted that isn't there.
sql(q(SELECT stream_ckpt.drop_query('counted_best');
	CREATE TABLE letters (id int PRIMARY KEY, k int, v int); SELECT stream_ckpt.attach_stream('letters', changes => 'apply');
	SELECT stream_ckpt.create_query('best_letters', 'SELECT k, rn, 10 / v AS q, id FROM (SELECT k, v, id, row_number() OVER (PARTITION BY k ORDER BY id) AS rn FROM letters) r WHERE rn <= 500', on_error => 'dead_letter')));
wait_running($node);
sql('INSERT INTO letters SELECT i, 1, 1 FROM generate_series(1, 5) i');
sync_pipelines($node);
sql($_), sync_pipelines($node) for 'UPDATE letters SET v = 0 WHERE id = 1', 'DELETE FROM letters WHERE id IN (2, 3)';
is(sql('SELECT count(*) FROM best_letters'), '5', 'a group that fails stays as it was');
# (not a crash: the log lacks a row, see above)
lose_state($node, 'fast');
sql('UPDATE letters SET v = 2 WHERE id = 1');
sync_pipelines($node);
is(sql("SELECT string_agg(rn || ' ' || q || ' ' || id, ', ' ORDER BY rn) FROM best_letters"), '1 5 1, 2 10 4, 3 10 5', 'what the result has more is found after a restart');
my $emitted = sql(q(SELECT result_rows FROM stream_ckpt.queries WHERE query = 'best_letters'::regclass));
sql($_), sync_pipelines($node) for 'UPDATE letters SET v = 5 WHERE id = 1', 'DELETE FROM letters WHERE id = 4';
is(sql("SELECT string_agg(rn || ' ' || q || ' ' || id, ', ' ORDER BY rn) FROM best_letters"), '1 2 1, 2 10 5', 'the last number goes');
is(sql(q(SELECT result_rows FROM stream_ckpt.queries WHERE query = 'best_letters'::regclass)) - $emitted, '6', 'three rows, two and a deletion');

$node->stop;
done_testing();
