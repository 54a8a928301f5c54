# Rows that are not in the WAL: no command makes part of a stream unlogged or foreign, and where one
# did without us (the library was not loaded), the queries of the stream fail and say why.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub refused
{
	my ($sql, $error, $test) = @_;
	my ($ret, $stdout, $stderr) = try_psql($node, $sql);

	like($stderr, $error, $test // $sql);
	return;
}

sql(q(CREATE TABLE t (ts timestamptz, k int, v int) PARTITION BY LIST (k);
	CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0);
	CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1) PARTITION BY LIST (v);
	CREATE TABLE t10 PARTITION OF t1 FOR VALUES IN (0);
	CREATE TABLE u (ts timestamptz, k int, v int) PARTITION BY LIST (k);
	CREATE TABLE plain (ts timestamptz, k int, v int);
	CREATE UNLOGGED TABLE unlogged (LIKE plain);
	CREATE TABLE tree (LIKE plain) PARTITION BY LIST (v);
	CREATE UNLOGGED TABLE tree1 PARTITION OF tree FOR VALUES IN (1);
	CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
	CREATE FOREIGN TABLE foreign_table (ts timestamptz, k int, v int) SERVER elsewhere;
	CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler;
	CREATE FUNCTION other_handler(internal) RETURNS table_am_handler LANGUAGE internal AS 'heap_tableam_handler';
	CREATE ACCESS METHOD other TYPE TABLE HANDLER other_handler;
	CREATE TABLE other_table (LIKE plain) USING other));
attach($node, 't');
attach($node, 'plain');
refused(q(SELECT stream_ckpt.attach_stream('other_table')), qr/It is not a table of access method heap/);
create_query($node, 'q', 't');
create_query($node, 'p', 'plain', emit => 'update', options => "allowed_lateness => '1 hour'");
my $part = qr/cannot be part of stream "t"/;
refused('CREATE UNLOGGED TABLE x PARTITION OF t FOR VALUES IN (2)', $part);
refused('CREATE UNLOGGED TABLE x PARTITION OF t1 FOR VALUES IN (2)', $part);
refused('CREATE TABLE x PARTITION OF t1 FOR VALUES IN (2) USING other', $part);
refused('CREATE FOREIGN TABLE x PARTITION OF t1 FOR VALUES IN (2) SERVER elsewhere', $part);
refused('ALTER TABLE t1 ATTACH PARTITION unlogged FOR VALUES IN (2)', $part);
refused('ALTER TABLE t ATTACH PARTITION foreign_table FOR VALUES IN (2)', $part);
refused('ALTER TABLE t ATTACH PARTITION other_table FOR VALUES IN (2)', $part);
refused('ALTER TABLE t ATTACH PARTITION tree FOR VALUES IN (2)', $part, 'a partitioned table with an unlogged partition');
refused('ALTER TABLE t10 SET UNLOGGED', $part);
refused('ALTER TABLE t0 ADD COLUMN x int DEFAULT random(), SET UNLOGGED', qr/cannot be part of stream|cannot add column to a partition/);
refused('ALTER TABLE plain SET UNLOGGED', qr/cannot be part of stream "plain"/);
refused('ALTER TABLE plain SET ACCESS METHOD other', qr/cannot be part of stream "plain"/);

# An unlogged table that is no part of a stream, and one more log stream, are nobody's business.
sql(q(ALTER TABLE plain SET ACCESS METHOD other_heap; ALTER TABLE plain SET ACCESS METHOD heap;
	CREATE UNLOGGED TABLE u0 PARTITION OF u FOR VALUES IN (0); ALTER TABLE u0 SET LOGGED; ALTER TABLE u0 SET UNLOGGED;
	CREATE FOREIGN TABLE l PARTITION OF t FOR VALUES IN (7) SERVER stream_ckpt;
	ALTER TABLE t DETACH PARTITION t0; ALTER TABLE t0 SET UNLOGGED; ALTER TABLE t0 SET LOGGED;
	ALTER TABLE t ATTACH PARTITION t0 FOR VALUES IN (0); CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)));

# Changes of the result of a query that updates its rows are not ignored, by itself or as a partition.
sql(q(SELECT stream_ckpt.create_query('upd', $$ SELECT w.window_start, k, count(*) AS n FROM t, stream_ckpt.tumble(ts, '1 minute') w
	GROUP BY 1, 2 $$, emit => 'update', backfill => false);
	CREATE TABLE results (window_start timestamptz, k int, n bigint) PARTITION BY LIST (k)));
my $updates = qr/updates its rows/;
my $ignored = qr/cannot be ignored/;
refused(q(SELECT stream_ckpt.attach_stream('upd', event_time => 'window_start', changes => 'ignore')), $ignored);
refused(q(SELECT stream_ckpt.attach_stream('p', event_time => 'window_start', changes => 'ignore')), $ignored);
sql(q(SELECT stream_ckpt.attach_stream('results', event_time => 'window_start')));
refused(q(ALTER TABLE results ATTACH PARTITION upd FOR VALUES IN (1)), $updates);
sql(q(SELECT stream_ckpt.detach_stream('results'); ALTER TABLE upd ADD CHECK (k = 1);
	ALTER TABLE results ATTACH PARTITION upd FOR VALUES IN (1)));
refused(q(SELECT stream_ckpt.attach_stream('results', event_time => 'window_start', changes => 'ignore')), $ignored);
# one that was attached before this was refused has no new queries
sql(q(INSERT INTO stream_ckpt.stream (relid, event_time, event_time_attnum, watermark_delay) VALUES ('p'::regclass, 'window_start', 1, '0')));
refused(q(SELECT stream_ckpt.create_query('over', 'SELECT w.window_start, count(*) FROM p, stream_ckpt.tumble(p.window_start, ''1 h'') w GROUP BY 1')),
	qr/stream "p" is updated by a query/);
sql(q(DELETE FROM stream_ckpt.stream WHERE relid = 'p'::regclass));

# Without a hook: a task notices at the next barrier, though no row comes.
sync_pipelines($node);

sub fails
{
	my ($query, $detail, $test) = @_;
	wait_until($node, "SELECT status = 'failed' AND message LIKE 'stream % has rows that are not in the WAL' AND detail LIKE '%$detail%' AND hint LIKE '%SET LOGGED%'
		FROM stream_ckpt.queries WHERE query = '$query'::regclass", $test);
	return;
}

sql(q(SET allow_system_table_mods = on; UPDATE pg_class SET relpersistence = 'u' WHERE oid = 't2'::regclass));
sql(q(SELECT stream_ckpt.checkpoint()));
fails('q', '"t2" of it is unlogged', 'a partition became unlogged behind our back');
is(sql("SELECT status FROM stream_ckpt.queries WHERE query = 'p'::regclass"), 'running', 'other streams go on');
sql(q(SET allow_system_table_mods = on; UPDATE pg_class SET relpersistence = 'p' WHERE oid = 't2'::regclass));
sql(q(DROP TABLE results CASCADE; SELECT stream_ckpt.resume_query('q'); INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 0, 0), ('2024-01-01 00:10 UTC', 2, 0)));
sync_pipelines($node);
is(sql('SELECT count(*) FROM q'), '1', 'it goes on when that is undone');

# Where the library isn't loaded.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
sql(q(CREATE UNLOGGED TABLE t3 PARTITION OF t FOR VALUES IN (3); INSERT INTO t VALUES ('2024-01-01 00:20 UTC', 3, 0)));
# in another session: an event trigger has loaded it
sql('ALTER TABLE plain SET UNLOGGED');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'stream_ckpt'");
$node->restart;
fails('q', '"t3" of it is unlogged', 'an unlogged partition that was made meanwhile');
fails('p', 'It is unlogged', 'a stream that became unlogged meanwhile');
sql(q(ALTER TABLE t3 SET LOGGED; ALTER TABLE plain SET LOGGED; SELECT stream_ckpt.resume_query('q'); SELECT stream_ckpt.resume_query('p');
	INSERT INTO t VALUES ('2024-01-01 00:30 UTC', 3, 0); INSERT INTO plain VALUES ('2024-01-01 00:30 UTC', 3, 0)));
sync_pipelines($node);
is(sql('SELECT count(*) FROM q'), '2', 'and goes on with the rows to come');
is(sql('SELECT count(*) FROM p'), '1', 'so does the other one');

done_testing();
