# Publications: checkpoints update and delete result rows whatever publishes them, subscribers get them,
# and results of 0.2.0 get a replica identity with the update. Domains as event times.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->append_conf('postgresql.conf', "max_worker_processes = 16\n");
$subscriber->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE PUBLICATION everything FOR ALL TABLES');
create_stream_table($node, 't', delay => '1 hour');
my $from = "FROM t, stream_ckpt.tumble(ts, '1 minute') w";
create_query($node, 'closed', 't', options => 'keep_late_rows => true');
create_query($node, 'upd', 't', emit => 'update',
	select => "SELECT w.window_start, w.window_end, k, count(*) AS n $from GROUP BY 1, 2, 3 HAVING sum(v) > 0");
create_query($node, 'whole', 't', emit => 'update', select => "SELECT w.window_start AS start, count(*) AS n $from GROUP BY 1");
create_query($node, 'lenient', 't', options => "allowed_lateness => '1 hour'",
	select => "SELECT w.window_start, k::text AS k, count(*) AS n $from GROUP BY w.window_start, k::text");
is(sql("SELECT string_agg(attrelid::regclass || '.' || attname, ' ' ORDER BY attrelid, attnum) FROM pg_attribute
	WHERE attrelid IN ('upd'::regclass, 'whole'::regclass, 'lenient'::regclass) AND attnotnull AND attnum > 0"),
	'upd.window_start upd.window_end whole.start lenient.window_start', 'window columns are NOT NULL');
is(sql("SELECT string_agg(format('%s %s', relname, relreplident), ', ' ORDER BY oid) FROM pg_class WHERE relname IN ('closed', 'upd', 'whole', 'lenient')"),
	'closed f, upd f, whole i, lenient f', 'replica identities');

# In a subscriber that knows nothing of streams.
my $tables = 'closed, upd, whole, lenient';
sql("CREATE PUBLICATION results FOR TABLE $tables");
$subscriber->safe_psql('postgres', q(
	CREATE TABLE closed (window_start timestamptz, window_end timestamptz, k int, n bigint, total bigint, greatest int);
	CREATE TABLE upd (window_start timestamptz, window_end timestamptz, k int, n bigint);
	CREATE TABLE whole (start timestamptz PRIMARY KEY, n bigint);
	CREATE TABLE lenient (window_start timestamptz, k text, n bigint)));
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION s CONNECTION '" . $node->connstr . " dbname=postgres' PUBLICATION results");
$subscriber->wait_for_subscription_sync($node, 's');
foreach my $i (1 .. 3)
{
	sql("INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '10 seconds', nullif(i % 3, 2), $i, 0 FROM generate_series(1, 60) i");
	sync_pipelines($node);
}
# deletes by HAVING, closes windows, and brings a late row
sql("INSERT INTO t VALUES ('2024-01-01 00:10:01 UTC', 0, -1000, 1), ('2024-01-01 02:00 UTC', 1, 1, 1)");
sync_pipelines($node);
is(sql("SELECT count(*) FROM upd WHERE window_start = '2024-01-01 00:10 UTC' AND k = 0"), '0', 'HAVING has deleted a row');
foreach my $name ('upd', 'whole')
{
	is(differences($node, $name, emit => 'update'), '0', "$name: as the plain query");
}
sql("INSERT INTO t VALUES ('2024-01-01 00:00:11 UTC', 1, 1, 1)");
sync_pipelines($node);
is(sql("SELECT n FROM lenient WHERE window_start = '2024-01-01 00:00 UTC' AND k = '1'"), '7', 'a late row has updated one');
foreach my $name ('upd', 'whole', 'closed', 'lenient')
{
	is(sql("SELECT status FROM stream_ckpt.queries WHERE query = '$name'::regclass"), 'running', "$name: published, and running");
	is(sql("SELECT count(*) > 10 FROM $name"), 't', "$name: has rows");
}
$node->wait_for_catchup('s');
foreach my $name ('upd', 'whole', 'closed', 'lenient')
{
	my $rows = "SELECT string_agg(r::text, ';' ORDER BY r::text) FROM $name r";
	is($subscriber->safe_psql('postgres', $rows), sql($rows), "$name: the subscriber has the same rows");
}

# Our own tables are published, too: what writes them goes on.
is(sql("SELECT count(*) > 0 FROM stream_ckpt.take_late_rows('closed')"), 't', 'late rows can be taken');
sql("SELECT stream_ckpt.pause_query('upd'); SELECT stream_ckpt.drop_query('lenient')");
wait_until($node, "SELECT status = 'paused' FROM stream_ckpt.queries WHERE query = 'upd'::regclass", 'paused');
sql("SELECT stream_ckpt.resume_query('upd')");
sync_pipelines($node);
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION s');

# Results that 0.2.0 made.
$node->safe_psql('postgres', 'CREATE DATABASE older');
$node->safe_psql('older', q(CREATE EXTENSION stream_ckpt VERSION '0.2.0'; CREATE TABLE t (ts timestamptz, k int);
	CREATE TABLE old (window_start timestamptz, k int, n bigint); CREATE UNIQUE INDEX old_key ON old (window_start, k) NULLS NOT DISTINCT;
	CREATE VIEW old_definition AS SELECT w.window_start, k, count(*) AS n FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1, 2;
	CREATE TABLE keyed (i int PRIMARY KEY);
	INSERT INTO stream_ckpt.query (relid, definition, source, pipeline_id, emit, allowed_lateness, settings, preexisting_rows)
	SELECT r::regclass, d::regclass, 't'::regclass, 1, 'update', '0', '{}', false FROM (VALUES ('old', 'old_definition'), ('keyed', 't')) v (r, d)));
$node->safe_psql('older', 'ALTER EXTENSION stream_ckpt UPDATE');
is($node->safe_psql('older', "SELECT string_agg(format('%s %s', relname, relreplident), ', ' ORDER BY relname) FROM pg_class WHERE relname IN ('old', 'keyed')"),
	'keyed d, old f', 'the update gives them a replica identity, if they have none');
$node->safe_psql('older', 'DELETE FROM stream_ckpt.query');

# A domain over timestamptz or timestamp is an event time, of tables, partitions and log streams.
sql(q(CREATE DOMAIN moment AS timestamptz NOT NULL; CREATE DOMAIN later_moment AS moment CHECK (VALUE > '2000-01-01'); CREATE DOMAIN local AS timestamp;
	CREATE TABLE d (v int, ts later_moment, k int) PARTITION BY LIST (k); CREATE TABLE d0 (k int, v int, ts later_moment);
	ALTER TABLE d ATTACH PARTITION d0 FOR VALUES IN (0, 1, 2);
	CREATE TABLE e (ts local, k int, v int);
	SELECT stream_ckpt.create_stream('f', 'k int, ts moment, v int', event_time => 'ts')));
attach($node, $_) foreach ('d', 'e');
create_query($node, "q$_", $_) foreach ('d', 'e', 'f');
sql("INSERT INTO $_ (ts, k, v) SELECT timestamp '2024-01-01' + i * interval '20 seconds', i % 3, i FROM generate_series(0, 60) i") foreach ('d', 'e', 'f');
results_ok($node, "q$_", "a domain as event time: $_", table => $_) foreach ('d', 'e');
is(sql('SELECT count(*), sum(n) FROM qf'), sql('SELECT count(*), sum(n) FROM qd'), 'a log stream with it');
is(sql("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'qe'::regclass AND attname = 'window_start'"),
	'timestamp without time zone', "the window has the domain's base type");

done_testing();
