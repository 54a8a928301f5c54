# Everything can be dropped while everything runs: no slot, no worker, no restart loop is left.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

# tables, queries, rows in some database
sub fill
{
	my ($db) = @_;
	$node->safe_psql(
		$db, q(
		CREATE EXTENSION IF NOT EXISTS stream_ckpt;
		CREATE TABLE t (ts timestamptz, k int, v int);
		SELECT stream_ckpt.attach_stream('t', event_time => 'ts', watermark_delay => '1 day')));
	for my $name (qw(a b))
	{
		$node->safe_psql(
			$db, qq(
			SELECT stream_ckpt.create_query('$name', \$\$
				SELECT w.window_start, w.window_end, k, count(*) AS n
				FROM t, stream_ckpt.tumble(ts, '1 minute') w
				GROUP BY w.window_start, w.window_end, k \$\$, emit => 'update', backfill => false)));
	}
	insert_rows($db, 0);
	sync_pipelines($node, $db);
	return;
}

sub insert_rows
{
	my ($db, $minute) = @_;
	$node->safe_psql($db,
		qq(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $minute * interval '1 minute' + i * interval '1 second', i % 5, i
			FROM generate_series(1, 200) i));
	return;
}

sub difference
{
	my ($db, $name) = @_;
	return $node->safe_psql(
		$db, qq(SELECT count(*) FROM
			((TABLE $name EXCEPT ALL SELECT * FROM ${name}_definition)
			 UNION ALL (SELECT * FROM ${name}_definition EXCEPT ALL TABLE $name)) d));
}

# Nothing of the extension is left for a database, but what belongs to others.
sub nothing_left
{
	my ($datoid, $what) = @_;
	wait_until(
		$node,
		"SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name LIKE 'stream_ckpt_${datoid}_%'",
		"$what: no slot is left");
	wait_until(
		$node,
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datid = $datoid AND backend_type LIKE 'stream_ckpt%'",
		"$what: no worker is left");
	pass($what);
	return;
}

sub datoid
{
	return $node->safe_psql('postgres',
		"SELECT oid FROM pg_database WHERE datname = '$_[0]'");
}

#
# Parts of a query
#
fill('postgres');
is(difference('postgres', 'a'), '0', 'at first');
$node->safe_psql('postgres', 'DROP VIEW a_definition CASCADE');
is( $node->safe_psql(
		'postgres',
		'SELECT string_agg(query::text, \' \') FROM stream_ckpt.queries'),
	'b',
	'DROP VIEW of the definition drops the query');
insert_rows('postgres', 5);
sync_pipelines($node);
is(difference('postgres', 'b'), '0', 'the other one goes on');

$node->safe_psql('postgres', 'DROP TABLE b CASCADE');
is( $node->safe_psql('postgres', 'SELECT count(*) FROM stream_ckpt.queries'),
	'0', 'DROP TABLE of the result drops the query');
is( $node->safe_psql('postgres', q(SELECT to_regclass('b_definition') IS NULL)),
	't', 'with its definition');
insert_rows('postgres', 10);

# made again under the same name: nothing of the old one's state
create_query($node, 'b', 't', emit => 'update');
insert_rows('postgres', 20);
sync_pipelines($node);
is( $node->safe_psql('postgres', 'SELECT sum(n), min(window_start) >= \'2024-01-01 00:20 UTC\' FROM b'),
	'200|t',
	'a query of the same name begins anew');

# a drop that is rolled back
$node->safe_psql('postgres', 'BEGIN; DROP TABLE b CASCADE; ROLLBACK');
insert_rows('postgres', 30);
sync_pipelines($node);
is($node->safe_psql('postgres', 'SELECT sum(n) FROM b'),
	'400', 'a drop that is rolled back drops nothing');

# the stream's table with all that hangs on it
$node->safe_psql('postgres', 'DROP TABLE t CASCADE');
is( $node->safe_psql(
		'postgres',
		'SELECT (SELECT count(*) FROM stream_ckpt.queries), (SELECT count(*) FROM stream_ckpt.streams)'
	),
	'0|0',
	'DROP TABLE of the stream drops its queries');
$node->safe_psql('postgres', 'DROP TABLE IF EXISTS a, b CASCADE');

#
# The extension, made again after
#
fill('postgres');
my $postgres = datoid('postgres');
$node->safe_psql('postgres', 'DROP EXTENSION stream_ckpt CASCADE');
nothing_left($postgres, 'DROP EXTENSION');
$node->safe_psql('postgres', 'DROP TABLE IF EXISTS t, a, b CASCADE');
fill('postgres');
is(difference('postgres', 'a'), '0', 'made again, it works');

# in a transaction that is rolled back, and in one that makes it again
$node->safe_psql('postgres',
	'BEGIN; DROP EXTENSION stream_ckpt CASCADE; ROLLBACK');
insert_rows('postgres', 5);
sync_pipelines($node);
is(difference('postgres', 'a'), '0', 'DROP EXTENSION that is rolled back');

#
# The last query of a pipeline that isn't "default": whatever streams there are, the pipeline has
# nothing to do, and needs neither slot nor workers.
#
$node->safe_psql('postgres', q(SELECT stream_ckpt.create_pipeline('own')));
for my $round (1, 2)
{
	create_query($node, 'c', 't', emit => 'update', options => q(pipeline => 'own'));
	insert_rows('postgres', 4 + $round);
	sync_pipelines($node);
	is($node->safe_psql('postgres', 'SELECT sum(n) FROM c'),
		'200', "a pipeline of one's own has its rows, round $round");
	$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('c')));
	wait_status($node, 'idle', 'own');
	wait_until($node, 'SELECT count(*) = 1 FROM pg_replication_slots',
		'the slot of a pipeline without a query is gone');
	is( $node->safe_psql(
			'postgres',
			q(SELECT coordinator_pid IS NULL AND reader_pid IS NULL AND slot_name IS NULL
				AND pipeline NOT IN (SELECT pipeline FROM stream_ckpt.tasks)
			  FROM stream_ckpt.pipelines WHERE pipeline = 'own')),
		't',
		'and so are its workers');
}
is( $node->safe_psql('postgres',
		q(SELECT status FROM stream_ckpt.pipelines WHERE pipeline = 'default')),
	'running',
	'the other pipeline has seen nothing of it');
$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_pipeline('own')));

#
# What the coordinator keeps to write a result by statements goes with the query.
#
sub kept_plans
{
	my $offset = -s $node->logfile;
	$node->safe_psql('postgres',
		q(SELECT pg_log_backend_memory_contexts(coordinator_pid) FROM stream_ckpt.pipelines WHERE pipeline = 'default'));
	$node->wait_for_log(qr/Grand total/, $offset);
	my $log = substr(slurp_file($node->logfile), $offset);
	my $used = 0;
	$used += $_ foreach $log =~ /stream_ckpt sink plans: .* (\d+) used/g;
	return $used;
}
$node->safe_psql('postgres',
	'CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$');
my @kept;
for my $round (1 .. 3)
{
	create_query($node, 'c', 't', emit => 'update');
	$node->safe_psql('postgres',
		'CREATE TRIGGER same BEFORE INSERT OR UPDATE ON c FOR EACH ROW EXECUTE FUNCTION same()');
	insert_rows('postgres', 6 + $round);
	sync_pipelines($node);
	$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('c')));
	insert_rows('postgres', 6 + $round);
	sync_pipelines($node);
	push @kept, kept_plans();
}
cmp_ok($kept[0], '>', 0, 'the coordinator has a cache of statements');
is("$kept[1] $kept[2]", "$kept[0] $kept[0]", 'in which nothing is left of queries that were dropped');

#
# Databases
#
for my $how ('', ' WITH (FORCE)')
{
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	fill('other');
	is(difference('other', 'a'), '0', 'a second database works');
	my $oid = datoid('other');
	$node->safe_psql('postgres', "DROP DATABASE other$how");
	nothing_left($oid, "DROP DATABASE$how");
	insert_rows('postgres', 40);
	sync_pipelines($node);
	is(difference('postgres', 'b'), '0', 'the first database goes on');
}

# stopped, and never used
$node->safe_psql('postgres', 'CREATE DATABASE other');
fill('other');
my $oid = datoid('other');
$node->safe_psql('other', q(SELECT stream_ckpt.stop_pipeline('default')));
$node->safe_psql('postgres', 'DROP DATABASE other');
nothing_left($oid, 'DROP DATABASE with the pipeline stopped');

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION stream_ckpt');
$oid = datoid('other');
$node->safe_psql('postgres', 'DROP DATABASE other');
nothing_left($oid, 'DROP DATABASE with nothing but the extension');

# a copy and a rename, with workers connected
$node->safe_psql('postgres', 'CREATE DATABASE other');
fill('other');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE other');
insert_rows('other', 5);
sync_pipelines($node, 'other');
is(difference('other', 'a'), '0', 'after CREATE DATABASE ... TEMPLATE');
$oid = datoid('copy');
is( $node->safe_psql(
		'postgres',
		"SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'stream_ckpt_${oid}_%'"
	),
	'0',
	'a copy makes no slot by itself');
is( $node->safe_psql('copy', 'SELECT sum(n) FROM a'),
	'200', 'a copy never goes on with foreign state');
$node->safe_psql('postgres', 'DROP DATABASE copy');
nothing_left($oid, 'DROP DATABASE of the copy');

$node->safe_psql('postgres', 'ALTER DATABASE other RENAME TO renamed');
insert_rows('renamed', 10);
sync_pipelines($node, 'renamed');
is(difference('renamed', 'a'), '0', 'after ALTER DATABASE ... RENAME');

# a crash right after a drop: nothing comes back
$oid = datoid('renamed');
$node->safe_psql('postgres', 'DROP DATABASE renamed');
$node->stop('immediate');
$node->start;
nothing_left($oid, 'DROP DATABASE and a crash');
insert_rows('postgres', 60);
sync_pipelines($node);
is(difference('postgres', 'a'), '0', 'the first database goes on');

$node->safe_psql('postgres', 'DROP EXTENSION stream_ckpt CASCADE');
nothing_left($postgres, 'DROP EXTENSION at last');
is( $node->safe_psql(
		'postgres', 'SELECT count(*) FROM pg_replication_slots'),
	'0',
	'no slot at all');

$node->stop;
done_testing();
