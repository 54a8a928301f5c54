# DDL on what a stream is joined with: tables rewritten, renamed and partitioned, functions replaced, privileges, policies
# and roles.  A query either goes on, with rows as they are by then, or fails with a hint and goes on with all rows after
# resume_query(); it never has a row twice, or none.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $id = 0;

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }
sub create { my ($name, $select, $role) = @_; return sql(($role ? "SET SESSION AUTHORIZATION $role" : ()), "SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$, backfill => false)"); }
sub insert { $id++; return sql("INSERT INTO o VALUES ($id, $_[0])"); }

# What the query makes of a row that comes now.
sub joined
{
	my ($name, $k) = @_;

	insert($k);
	sync_pipelines($node);
	is(counter($node, $name, 'status'), 'running', "$name runs") or diag counter($node, $name, "concat_ws('|', message, hint)");
	return sql("SELECT coalesce(string_agg(name, ' ' ORDER BY name), '-') FROM $name WHERE id = $id");
}

# A row comes, and the query fails; its message and hint.  After "mend" it goes on, with that row.
sub fails
{
	my ($name, $k, $error, $test, @mend) = @_;

	insert($k);
	wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = '$name'::regclass", "$test: fails");
	like(counter($node, $name, "concat_ws('|', message, hint)"), $error, "$test: says why, and what to do");
	insert($k);
	sql(@mend, "SELECT stream_ckpt.resume_query('$name')");
	wait_until($node, "SELECT status = 'running' FROM stream_ckpt.queries WHERE query = '$name'::regclass", "$test: goes on");
	sync_pipelines($node);
	return;
}

# All rows, each as it was joined, or as it would be now: rows that came while it had failed.
sub complete
{
	my ($name, $rows, $test) = @_;

	return is(sql("SELECT count(DISTINCT id) = $rows AND count(*) = $rows FROM $name WHERE id > $id - $rows"), 't', $test);
}

sub refused { my ($command, $error) = @_; return like(($node->psql('postgres', $command))[2], $error, $command); }

sql('CREATE TABLE o (id int, k int)', q(SELECT stream_ckpt.attach_stream('o')),
	'CREATE TABLE c (id int, name text, unused int)', q(INSERT INTO c VALUES (1, 'one', 1), (2, 'two', 2)),
	q(CREATE FUNCTION shown(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT upper($1)'));
create('plain', 'SELECT o.id, c.name FROM o LEFT JOIN c ON c.id = o.k');
create('called', 'SELECT o.id, s.name FROM o, LATERAL (SELECT shown(c.name) AS name FROM c WHERE c.id = o.k) s');
wait_running($node);

# ---------- tables ----------

is(joined('plain', 1), 'one', 'a row');
refused('ALTER TABLE c DROP COLUMN name', qr/cannot drop column name of table c because other objects depend on it/);
refused('DROP FUNCTION shown', qr/cannot drop function shown\(text\) because other objects depend on it/);
my @ddl = (
	'VACUUM FULL c',
	'ALTER TABLE c ADD rewritten float8 DEFAULT random()',
	'ALTER TABLE c ALTER unused TYPE text',
	'ALTER TABLE c DROP COLUMN unused',
	'CREATE UNIQUE INDEX c_id ON c (id)',
	'CLUSTER c USING c_id',
	'REINDEX TABLE c',
	'DROP INDEX c_id',
	'CREATE INDEX CONCURRENTLY c_again ON c (id)',
	'ALTER TABLE c RENAME TO customers',
	'ALTER TABLE customers RENAME name TO full_name',
	'CREATE SCHEMA other; ALTER TABLE customers SET SCHEMA other',
	'ALTER TABLE other.customers SET UNLOGGED',
	'ALTER TABLE other.customers SET SCHEMA public; ALTER TABLE customers RENAME TO c; ALTER TABLE c RENAME full_name TO name; ALTER TABLE c SET LOGGED',
);
for my $i (0 .. $#ddl)
{
	my $table = sql(q(SELECT attrelid::regclass || ' SET ' || attname FROM pg_attribute WHERE attnum = 2 AND attrelid = (SELECT c.oid FROM pg_class c WHERE relname IN ('c', 'customers') AND relkind = 'r')));

	sql($_) for split /; /, $ddl[$i];
	sql('UPDATE ' . sql(q(SELECT attrelid::regclass || ' SET ' || attname FROM pg_attribute WHERE attnum = 2 AND attrelid = (SELECT c.oid FROM pg_class c WHERE relname IN ('c', 'customers') AND relkind = 'r'))) . " = 'v$i' WHERE id = 2");
	is(joined('plain', 2), "v$i", $ddl[$i]);
	is(sql("SELECT name FROM called WHERE id = $id"), "V$i", 'and by the function');
}
sql('BEGIN', 'ALTER TABLE c ADD later int DEFAULT 5', 'TRUNCATE c', q(INSERT INTO c VALUES (2, 'new')), "INSERT INTO o VALUES (-1, 2)", 'COMMIT');
is(joined('plain', 2), 'new', 'DDL in the transaction of a row');
is(sql('SELECT name FROM plain WHERE id = -1'), 'new', 'which sees it');

# a column with all that depends on it
create('gone', 'SELECT o.id, v.name FROM o JOIN (SELECT later::text AS name, id FROM c) v ON v.id = o.k');
wait_running($node);
sql('SET client_min_messages = error', 'ALTER TABLE c DROP COLUMN later CASCADE');
is(joined('plain', 2), 'new', 'another query of that table goes on');
is(sql(q(SELECT count(*) FROM stream_ckpt.queries WHERE query = 'gone'::regclass)), '0', 'that of the column is dropped with it');

# ---------- functions ----------

sql(q(CREATE OR REPLACE FUNCTION shown(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1 || ''!'''));
is(joined('called', 2), 'new!', 'a function that was replaced');
sql(q(CREATE OR REPLACE FUNCTION shown(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1 || (1 / 0)'));
fails('called', 2, qr/division by zero\|.*resume_query/, 'a function that fails', q(CREATE OR REPLACE FUNCTION shown(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT lower($1)'));
complete('called', 2, 'with the rows that came meanwhile');
sql(q(CREATE OR REPLACE FUNCTION shown(text) RETURNS text LANGUAGE sql AS 'SELECT $1 || random()'));
fails('called', 2, qr/volatile function shown.*\|.*IMMUTABLE or STABLE/, 'a function that is volatile now', q(CREATE OR REPLACE FUNCTION shown(text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END'));

# ---------- partitions ----------

sql('CREATE TABLE parted (k int, name text) PARTITION BY LIST (k)', 'CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)', q(INSERT INTO parted VALUES (1, 'one')),
	'CREATE EXTENSION file_fdw', 'CREATE SERVER files FOREIGN DATA WRAPPER file_fdw', q(CREATE FOREIGN TABLE elsewhere (k int, name text) SERVER files OPTIONS (filename '/dev/null')));
create('parts', 'SELECT o.id, p.name FROM o LEFT JOIN parted p USING (k)');
wait_running($node);
is(joined('parts', 2), '-', 'no partition has it');
sql('CREATE TABLE parted_2 (k int, name text)', q(INSERT INTO parted_2 VALUES (2, 'two')), 'ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN (2)');
is(joined('parts', 2), 'two', 'a partition that was attached');
sql('ALTER TABLE parted ATTACH PARTITION elsewhere FOR VALUES IN (3)');
fails('parts', 2, qr/joined with foreign table "elsewhere"\|.*Detach it and call stream_ckpt.resume_query/, 'a foreign partition', 'ALTER TABLE parted DETACH PARTITION elsewhere');
complete('parts', 2, 'with the rows that came meanwhile');
sql('ALTER TABLE parted DETACH PARTITION parted_2');
is(joined('parts', 2), '-', 'a partition that was detached');
sql('DROP TABLE parted_1');
is(joined('parts', 1), '-', 'one that was dropped');

# ---------- privileges, policies, roles ----------

sql('CREATE ROLE tenant', 'CREATE ROLE staff', 'GRANT CREATE ON SCHEMA public TO tenant', 'GRANT USAGE ON SCHEMA stream_ckpt TO tenant', 'GRANT SELECT ON o TO tenant',
	'CREATE TABLE secret (id int, name text, owner name)', q(INSERT INTO secret VALUES (1, 'his', 'tenant'), (1, 'other', 'other')), 'GRANT SELECT ON secret TO tenant',
	q(CREATE FUNCTION may(name) RETURNS bool LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1 = current_user; END'));
create('words', 'SELECT o.id, s.name FROM o JOIN secret s ON s.id = o.k AND may(s.owner) IS NOT NULL', 'tenant');
wait_running($node);
is(joined('words', 1), 'his other', 'all rows');
sql('ALTER TABLE secret ENABLE ROW LEVEL SECURITY');
is(joined('words', 1), '-', 'row-level security without a policy: none');
sql('CREATE POLICY own ON secret USING (may(owner))');
is(joined('words', 1), 'his', 'by a policy');
sql('ALTER POLICY own ON secret TO staff');
is(joined('words', 1), '-', 'one for others');
sql('GRANT staff TO tenant');
is(joined('words', 1), 'his', 'a role that was granted');
sql(q(CREATE POLICY more ON secret USING (1 / (id - 1) > 0)));
fails('words', 1, qr/division by zero\|.*resume_query/, 'a policy that fails', 'DROP POLICY more ON secret');
is(sql("SELECT count(*), min(name), max(name) FROM words WHERE id > $id - 2"), '2|his|his', 'with the rows that came meanwhile');
sql('ALTER ROLE tenant BYPASSRLS');
is(joined('words', 1), 'his other', 'who bypasses policies');
sql('ALTER ROLE tenant NOBYPASSRLS');
is(joined('words', 1), 'his', 'and does not any more');
sql('REVOKE EXECUTE ON FUNCTION may FROM public');
fails('words', 1, qr/permission denied for function may\|.*resume_query/, 'a function that may not be called', 'GRANT EXECUTE ON FUNCTION may TO tenant');
is(sql("SELECT count(*), min(name), max(name) FROM words WHERE id > $id - 2"), '2|his|his', 'with the rows that came meanwhile');
sql('REVOKE SELECT ON secret FROM tenant', 'GRANT SELECT (id, owner) ON secret TO tenant');
fails('words', 1, qr/permission denied for table secret\|.*resume_query/, 'a column that may not be read', 'GRANT SELECT (name) ON secret TO tenant');
is(sql("SELECT count(*), min(name), max(name) FROM words WHERE id > $id - 2"), '2|his|his', 'with the rows that came meanwhile');

$node->stop;
done_testing();
