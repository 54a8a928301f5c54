# Queries without groups over rows that change: what tells their rows apart, step by step.  (Random changes: 113, 117.)

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();

my $node = new_node('main', "timezone = 'UTC'\nstream_ckpt.debug_large_part = 20000\n", draw => { tasks => [ 1, 2 ] });

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

# A query's rows, as text.
sub is_result
{
	my ($name, $expected, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node);
	is(sql("SELECT string_agg(r::text, ' ' ORDER BY r) FROM $name r"), $expected, $test)
	  or diag sql("SELECT query, status, message, detail FROM stream_ckpt.queries WHERE status <> 'running'");
	return;
}

sub verify
{
	my ($name) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT stream_ckpt.verify('$name')");

	return $stdout . $stderr;
}

#
# Rows that stay in the result by ignore_deletes(), and come again
#
sql('CREATE TABLE back (id serial PRIMARY KEY, ts timestamptz, v int)', q(SELECT stream_ckpt.attach_stream('back', 'ts', changes => 'apply')));
create_query($node, 'kept', 'back', emit => 'update', select => 'SELECT id, v FROM back');
create_query($node, 'kept_by_trigger', 'back', emit => 'update', select => 'SELECT v, id FROM back', options => q(on_error => 'dead_letter'));
create_query($node, 'kept_windows', 'back', emit => 'update', select => "SELECT w.window_start, id, v FROM back, stream_ckpt.tumble(ts, '1 minute') w");
sql('CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$',
	'CREATE TRIGGER nothing BEFORE INSERT OR UPDATE OR DELETE ON kept_by_trigger FOR EACH ROW EXECUTE FUNCTION nothing()');
wait_running($node);
sql(q(INSERT INTO back (ts, v) SELECT '2024-01-01', i * 10 FROM generate_series(1, 3) i));
is_result('kept', '(1,10) (2,20) (3,30)', 'three rows');
sql('BEGIN', q(SELECT stream_ckpt.ignore_deletes('back')), 'TRUNCATE back RESTART IDENTITY', 'COMMIT', q(INSERT INTO back (ts, v) VALUES ('2024-01-01', 11)));
is_result('kept', '(1,11) (2,20) (3,30)', 'a key that comes again takes over the row that was kept');
is_result('kept_by_trigger', '(11,1) (20,2) (30,3)', 'also in a table with triggers');
is(sql('SELECT count(*) FROM stream_ckpt.dead_letter'), '0', 'no row is at fault');
# the same, after everything was read from the catalogs again
lose_state($node, 'immediate');
sql('BEGIN', q(SELECT stream_ckpt.ignore_deletes('back')), 'DELETE FROM back', 'COMMIT');
sync_pipelines($node);
lose_state($node, 'immediate');
sql(q(INSERT INTO back VALUES (2, '2024-01-01', 22), (1, '2024-01-01', 12)), 'UPDATE back SET v = v + 100', 'DELETE FROM back WHERE id = 1');
is_result('kept', '(2,122) (3,30)', 'and is its row from then on: it changes and goes with it');
is_result('kept_by_trigger', '(30,3) (122,2)', 'also in a table with triggers');

like(verify($_), qr/After ignore_deletes\(\) the result has kept rows that were deleted: \d+ by DELETE, and those of 1 commands that truncated the stream/, "verify('$_')")
  for qw(kept kept_windows);
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries));

#
# Another key of the stream
#
sub new_stream
{
	my ($columns, @indexes) = @_;

	sql("CREATE TABLE two ($columns)", @indexes, q(SELECT stream_ckpt.attach_stream('two', changes => 'apply')));
	create_query($node, 'codes', 'two', emit => 'update', select => 'SELECT id, code, v FROM two');
	wait_running($node);
	sql(q(INSERT INTO two VALUES (1, 'a', 10), (2, 'b', 20), (3, 'c', 30)));
	is_result('codes', '(1,a,10) (2,b,20) (3,c,30)', 'a new stream');
	return;
}

sub drop_stream
{
	is(sql(q(SELECT status FROM stream_ckpt.queries)), 'running', 'and runs');
	is(sql(q(SELECT stream_ckpt.verify('codes'))), '0', 'verify()');
	sql(q(SELECT stream_ckpt.drop_query('codes')), 'DROP TABLE two');
	return;
}

new_stream('id int NOT NULL, code text NOT NULL UNIQUE, v int');
sql('ALTER TABLE two ADD PRIMARY KEY (id)', 'UPDATE two SET v = v + 1 WHERE id = 1', 'DELETE FROM two WHERE id = 3');
is_result('codes', '(1,a,11) (2,b,20)', 'a primary key that is added');
lose_state($node, 'immediate');
sql(q(UPDATE two SET code = 'd' WHERE id = 2));
is_result('codes', '(1,a,11) (2,d,20)', 'also after everything was read again');
sql('ALTER TABLE two DROP CONSTRAINT two_pkey', 'UPDATE two SET v = v + 1');
is_result('codes', '(1,a,12) (2,d,21)', 'it goes again');
is_refused($node, 'ALTER TABLE two DROP CONSTRAINT two_code_key', qr/view codes_definition depends on constraint two_code_key/, 'that of the query is kept');
sql('ALTER TABLE two ADD PRIMARY KEY (id)', q(SELECT stream_ckpt.rebuild_query('codes')), q(SELECT stream_ckpt.sync('3 minutes', 'codes')), 'UPDATE two SET v = v + 1');
is_result('codes', '(1,a,13) (2,d,22)', 'rebuild_query()');
is_refused($node, 'ALTER TABLE two DROP CONSTRAINT two_code_key', qr/view codes_definition depends on constraint two_code_key/, 'and depends on the same key');
drop_stream();

new_stream('id int NOT NULL, code text NOT NULL, v int', 'CREATE UNIQUE INDEX by_code ON two (code)', 'CREATE UNIQUE INDEX by_id ON two (id)');
sql('REINDEX INDEX CONCURRENTLY by_code', 'UPDATE two SET v = v + 1 WHERE id = 1', 'DELETE FROM two WHERE id = 3');
is_result('codes', '(1,a,11) (2,b,20)', 'an index that is built anew');
lose_state($node, 'immediate');
sql(q(UPDATE two SET code = 'd' WHERE id = 2));
is_result('codes', '(1,a,11) (2,d,20)', 'also after everything was read again');
sql('ALTER TABLE codes REPLICA IDENTITY FULL', 'DROP INDEX codes_key', 'CREATE UNIQUE INDEX codes_id ON codes (id) NULLS NOT DISTINCT', 'DELETE FROM two WHERE id = 1', 'UPDATE two SET v = v + 1');
is_result('codes', '(2,d,21)', "the result's index is on the other key");
drop_stream();

new_stream('id int NOT NULL, code text NOT NULL UNIQUE, v int');
sql('ALTER TABLE codes REPLICA IDENTITY FULL', 'DROP INDEX codes_key', 'DELETE FROM two WHERE id = 1');
wait_until($node, q(SELECT status = 'failed' FROM stream_ckpt.queries), 'no index');
like(sql(q(SELECT hint FROM stream_ckpt.queries)), qr/CREATE UNIQUE INDEX ON codes \(code\) NULLS NOT DISTINCT/, 'the hint names the columns');

#
# A partition whose constraint is checked later than that of the table says
#
sql('CREATE TABLE parted (id int, part int, PRIMARY KEY (part, id)) PARTITION BY LIST (part)', 'CREATE TABLE part1 (id int, part int, PRIMARY KEY (part, id) DEFERRABLE)',
	'ALTER TABLE parted ATTACH PARTITION part1 FOR VALUES IN (1)', q(SELECT stream_ckpt.attach_stream('parted', changes => 'apply')));
is_refused($node, q(SELECT stream_ckpt.create_query('q', 'SELECT id, part FROM parted')), qr/needs a key of its stream/, 'a key that is DEFERRABLE in a partition');
sql('DROP TABLE parted');

#
# A dump, which has the key's constraint behind the view that needs it
#
my $file = $node->basedir . '/keyed.sql';
my ($out, $error) = run_command([ 'pg_dump', '-f', $file, '-d', $node->connstr('postgres') ]);
unlike($error, qr/dependency loop/, 'pg_dump knows what to do first');
sql('CREATE DATABASE restored');
($out, $error) = run_command([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', $file, '-d', $node->connstr('restored') ]);
unlike($error, qr/ERROR/, 'the dump is restored');
is($node->safe_psql('restored', 'SELECT id, code, v FROM codes_definition ORDER BY 1'), sql('TABLE two ORDER BY 1'), 'with the view');
$node->safe_psql('restored', 'DROP EXTENSION stream_ckpt CASCADE');

sql(q(SELECT stream_ckpt.drop_query('codes')), 'DROP TABLE two');

#
# Writing around a row at fault: others change, and aren't deleted in between
#
sql('CREATE TABLE many (id int PRIMARY KEY, v int, s text)', q(SELECT stream_ckpt.attach_stream('many', changes => 'apply')));
create_query($node, 'limited', 'many', emit => 'update', select => 'SELECT id, v, s FROM many', options => q(on_error => 'dead_letter'));
sql('ALTER TABLE limited ADD CHECK (v < 1000)', 'CREATE TABLE refers (id int REFERENCES limited (id) ON DELETE CASCADE)');
wait_running($node);
# s of 64 kB: a message of its own, behind one that ends with the deletion
sql(q(INSERT INTO many SELECT i, i, CASE WHEN i % 40 = 0 THEN (SELECT string_agg(md5(j::text), '') FROM generate_series(1, 2000) j) END FROM generate_series(1, 101) i));
sync_pipelines($node);
sql('INSERT INTO refers SELECT id FROM limited', 'UPDATE many SET v = CASE WHEN id = 37 THEN 1000 ELSE v + 1 END');
sync_pipelines($node);
is(sql('SELECT count(*), count(*) FILTER (WHERE l.v = l.id + 1), (SELECT count(*) FROM refers) FROM limited l'), '100|100|100', 'all rows but the one at fault are updated, and none of them was deleted');
is(sql(q(SELECT count(*), min(row->>'v') FROM stream_ckpt.dead_letter)), '1|1000', 'which is the only letter');

#
# TRUNCATE of a large result is a writer's
#
sql('CREATE TABLE large (id int PRIMARY KEY, v int)', q(SELECT stream_ckpt.attach_stream('large', changes => 'apply')));
create_query($node, 'all_rows', 'large', emit => 'update', select => 'SELECT id, v FROM large');
wait_running($node);
sql('INSERT INTO large SELECT i, i FROM generate_series(1, 40000) i');
sync_pipelines($node);
arm($node, 'coordinator_after_handing', 'wait');
sql('TRUNCATE large', 'INSERT INTO large VALUES (1, 2)');
wait_reached($node, 'coordinator_after_handing');
disarm($node, 'coordinator_after_handing');
is_result('all_rows', '(1,2)', 'a writer has deleted the rows');

$node->stop;
done_testing();
