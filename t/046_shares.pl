# Queries of one pipeline share its time: what one takes in one go, while others wait, is bounded,
# and so is what all take together for locks; what is large isn't slow.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
create_stream_table($node, 't');
create_stream_table($node, $_) foreach qw(u locked);

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $n = 0;

sub rows
{
	my ($count, $table) = @_;
	$table //= 't';

	sql("INSERT INTO $table SELECT timestamptz '2024-01-01 00:00 UTC' + ($n + i) * interval '1 second',
		i % 3, i, $n + i FROM generate_series(1, $count) i");
	$n += $count;
	return;
}

sub status_is
{
	my ($query, $status) = @_;
	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$query'::regclass",
		"$query is $status");
}

sub good_ok
{
	my ($what) = @_;
	wait_until($node, 'SELECT sum(n) = (SELECT count(*) FROM t) FROM good', "good goes on: $what");
	results_ok($node, 'good', "good is exact: $what", emit => 'update', synced => 1);
	return;
}

# A function that sleeps for as long as a table says, and calls itself immutable.
sql(q(CREATE TABLE nap (seconds float8); INSERT INTO nap VALUES (0);
	CREATE FUNCTION sleepy(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN PERFORM pg_sleep((SELECT seconds FROM nap)); RETURN $1; END $$));
my $sleepy = "SELECT w.window_start, w.window_end, k, sum(sleepy(v)) AS total FROM t, stream_ckpt.tumble(ts, '1 minute') w
	GROUP BY w.window_start, w.window_end, k";

#
# Alone in its pipeline a query may take what the time limit allows.
#
create_query($node, 'sleepy', 't', emit => 'update', select => $sleepy);
wait_running($node);
sql('UPDATE nap SET seconds = 0.8');
rows(1);
sync_pipelines($node);
results_ok($node, 'sleepy', 'a query alone takes longer than a share', emit => 'update', synced => 1);
is(counter($node, 'sleepy', 'failed_at IS NULL'), 't', 'and was not interrupted');
sql('UPDATE nap SET seconds = 0; TRUNCATE t');
sql(q(SELECT stream_ckpt.drop_query('sleepy')));

#
# While others wait it is interrupted in the middle of a message, long before the time limit.
#
create_query($node, 'good', 't', emit => 'update');
create_query($node, 'sleepy', 't', emit => 'update', select => $sleepy);
rows(10);
sync_pipelines($node);
sql('UPDATE nap SET seconds = 9');
rows(10);
status_is('sleepy', 'retrying');
like(counter($node, 'sleepy', "concat_ws('|', sqlstate, message, hint)"),
	qr/^57014\|the query's code took longer than "stream_ckpt.query_share" allows while other queries wait\|.*pipeline of its own/,
	'a query that sleeps has used its share, and the view says what to do');
good_ok('another query sleeps in every message');
sql('UPDATE nap SET seconds = 0');
status_is('sleepy', 'running');
sync_pipelines($node);
results_ok($node, 'sleepy', 'exact after it was interrupted', emit => 'update', synced => 1);
wait_until($node, q(SELECT failed_at IS NULL FROM stream_ckpt.queries WHERE query = 'sleepy'::regclass), 'it is healthy again');

# That it was healthy in between doesn't make it begin anew.
sql('UPDATE nap SET seconds = 9');
rows(10);
status_is('sleepy', 'retrying');
cmp_ok(counter($node, 'sleepy', 'failures'), '>', 1, 'a query that is interrupted again has failed before');
sql('UPDATE nap SET seconds = 0');
status_is('sleepy', 'running');
sql(q(SELECT stream_ckpt.drop_query('sleepy')));

#
# A large result isn't slow, though each of its rows takes a default.
#
sql("ALTER SYSTEM SET stream_ckpt.query_time_limit = '200ms'; ALTER SYSTEM SET stream_ckpt.query_share = '100ms'");
sql('SELECT pg_reload_conf()');
create_query($node, 'large', 't', emit => 'update', select => "SELECT w.window_start, w.window_end, txn, count(*) AS n
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, txn");
sql('ALTER TABLE large ADD COLUMN seen_at timestamptz DEFAULT now()');
rows(60000);
sync_pipelines($node);
is(counter($node, 'large', 'failed_at IS NULL'), 't', 'a large result with a default was written at once');
is(sql('SELECT count(*) FROM large WHERE seen_at IS NOT NULL'), '60000', 'all of it');
sql(q(SELECT stream_ckpt.drop_query('large')));
sql('ALTER SYSTEM RESET stream_ckpt.query_time_limit; ALTER SYSTEM RESET stream_ckpt.query_share');
sql('SELECT pg_reload_conf()');

#
# Many locked results: the first one waits for its lock, and the others have theirs if they are free.
#
my $list = "SELECT string_agg(status, ' ' ORDER BY status) FROM stream_ckpt.queries WHERE query <> 'good'::regclass";

# Tries that ended without a wait, because others had taken the time for that.
sub refused
{
	my ($relation) = @_;
	return scalar(() = slurp_file($node->logfile) =~ /ERROR:  could not obtain lock on relation "$relation/g);
}

{
	my @results = map { "result_$_" } 1 .. 8;
	my $locker = $node->background_psql('postgres');

	create_query($node, $_, 'u', emit => 'update') foreach @results;
	rows(10, 'u');
	sync_pipelines($node);
	$locker->query_safe('BEGIN; LOCK TABLE ' . join(', ', @results) . ' IN ACCESS EXCLUSIVE MODE');
	rows(10, 'u');
	wait_until($node, "SELECT ($list) = repeat('waiting ', 7) || 'waiting'", 'eight queries wait');
	cmp_ok(refused('result_'), '>=', 7, 'seven of them without having waited for the lock');
	rows(10);
	good_ok('eight results are locked');
	$locker->query_safe('COMMIT');
	$locker->quit;
	sync_pipelines($node);
	results_ok($node, $_, "$_ is exact after it was locked", emit => 'update', synced => 1) foreach @results;
	sql("SELECT stream_ckpt.drop_query('$_')") foreach @results;
}

#
# A locked stream: its queries don't begin, and the others' attempt does.
#
{
	my @queries = map { "over_$_" } 1 .. 3;
	my $locker = $node->background_psql('postgres');

	create_query($node, $_, 'locked', emit => 'update') foreach @queries;
	rows(10, 'locked');
	sync_pipelines($node);
	my $pid = pid_of($node, 'task');
	$locker->query_safe('BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE');
	kill 'TERM', $pid;
	wait_restarted($node, 'task', $pid);
	wait_until($node, "SELECT ($list) = 'retrying retrying retrying'", 'three queries are to be tried again');
	cmp_ok(refused('locked'), '>=', 2, 'two of them without having waited for the lock');
	rows(10);
	good_ok('a stream is locked');
	$locker->query_safe('COMMIT');
	$locker->quit;
	sync_pipelines($node);
	wait_until($node, "SELECT ($list) = 'running running running'", 'the queries of the locked stream run');
	rows(10, 'locked');
	sync_pipelines($node);
	results_ok($node, $_, "$_ is exact after its stream was locked", emit => 'update', synced => 1) foreach @queries;
}

$node->stop;
done_testing();
