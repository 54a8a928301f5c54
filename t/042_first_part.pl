# A query that is new: where its first result rows can't be written it still begins at its
# creation, whatever dies before they can.  And streams that are newer than rows which are read again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.result_lock_timeout = 100ms\n", draw => {});
create_stream_table($node, 't');
create_query($node, 'other', 't', emit => 'update');
wait_running($node);
sync_pipelines($node);

# no checkpoint but those that are asked for
sub interval
{
	my ($interval) = @_;

	$node->safe_psql('postgres',
		"SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '$interval')");
	return;
}

sub checkpoint { return checkpoint_all($node); }

my $hours = 0;

sub restart
{
	$node->stop('immediate');
	$node->start;
	wait_running($node);
	return;
}

# The table's rows before the query began aren't its own.
sub exact
{
	my ($name, $test) = @_;

	results_ok($node, $name, $test, emit => 'update',
		truth => "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest
			FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k");
	return;
}

interval('1 hour');

# An error that stays: the query fails, and begins at its creation when it is resumed.
create_query($node, 'checked', 't', emit => 'update');
$node->safe_psql('postgres', 'ALTER TABLE checked ADD CONSTRAINT no CHECK (n < 0)');
insert_hour($node, $hours++);
checkpoint();
is(counter($node, 'checked', 'status'), 'failed', 'its first rows are refused');
insert_hour($node, $hours++);
$node->safe_psql('postgres', 'SELECT stream_ckpt.sync()');    # which warns
restart();
is(counter($node, 'checked', 'status'), 'failed', 'it stands after a restart');
$node->safe_psql('postgres', q(ALTER TABLE checked DROP CONSTRAINT no; SELECT stream_ckpt.resume_query('checked')));
exact('checked', 'resumed, it has all rows since it was created');
exact('other', 'the other query, too');

# A lock that goes: the query waits, and the server dies meanwhile.
$node->safe_psql('postgres', 'TRUNCATE t');
$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('checked'), stream_ckpt.drop_query('other')));
create_query($node, 'other', 't', emit => 'update');
create_query($node, 'locked', 't', emit => 'update');
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE locked');
insert_hour($node, $hours++);
checkpoint();
is(counter($node, 'locked', 'status'), 'waiting', 'its first rows wait for a lock');
my ($ret) = try_psql($node, q(SELECT stream_ckpt.sync('1 second')));
isnt($ret, 0, 'sync() waits with them');
insert_hour($node, $hours++);
checkpoint();
$locker->quit;
restart();
exact('locked', 'after a restart it has all rows since it was created');
exact('other', 'the other query, too');
interval('100 ms');

# A paused query holds rows that are older than another table's being a stream, and than the
# column of its event time: a plain table, and a partitioned one.
$node->safe_psql('postgres', q(
	CREATE TABLE plain (k int);
	CREATE TABLE parted (k int) PARTITION BY LIST (k);
	CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
	SELECT stream_ckpt.pause_query('other')));
wait_until($node, q(SELECT status = 'paused' AND lsn < pg_current_wal_lsn() FROM stream_ckpt.queries WHERE query = 'other'::regclass),
	'the query is paused');
$node->safe_psql('postgres', q(INSERT INTO plain SELECT 1 FROM generate_series(1, 1000); INSERT INTO parted SELECT 1 FROM generate_series(1, 1000)));
for my $table (qw(plain parted))
{
	$node->safe_psql('postgres', "ALTER TABLE $table ADD COLUMN a text, ADD COLUMN v int, ADD COLUMN ts timestamptz; TRUNCATE $table");
	attach($node, $table);
	create_query($node, "on_$table", $table, emit => 'update');
	$node->safe_psql('postgres', "INSERT INTO $table (k, v, ts) VALUES (1, 2, '2024-01-01 UTC')");
}
sync_pipelines($node);
insert_hour($node, $hours++);
$node->safe_psql('postgres', q(SELECT stream_ckpt.resume_query('other')));
exact('other', 'resumed, it reads over them');
results_ok($node, "on_$_", "$_: the newer stream is exact", emit => 'update') for qw(plain parted);

$node->stop;
done_testing();
