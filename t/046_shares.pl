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
create_stream_table($node, $_) foreach qw(u locked around_t many_t below_t);

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

# Periods of a second instead of ten, and a message for each row; or neither.
sub short_periods
{
	my ($on) = @_;

	sql($on ? "ALTER SYSTEM SET stream_ckpt.debug_share_period = '1s'; ALTER SYSTEM SET stream_ckpt.debug_batch_rows = 1" :
		  'ALTER SYSTEM RESET stream_ckpt.debug_share_period; ALTER SYSTEM RESET stream_ckpt.debug_batch_rows');
	sql('SELECT pg_reload_conf()');
	return;
}

# So many rows with a message and a transaction each, by whose commit times what is processed comes closer to the
# clock with each of them, or doesn't, however fast this machine is.
my $month_ago = time - 3600 * 24 * 30;

sub rows_in_time
{
	my ($count, $table, $closer) = @_;
	my $sql = "SELECT pg_replication_origin_session_setup('elsewhere');\n";

	for (1 .. $count)
	{
		my $commit_time = $month_ago + ($closer ? 60 * $n : 0);

		$n++;
		$sql .= "SELECT pg_replication_origin_xact_setup('0/1', to_timestamp($commit_time));
			INSERT INTO $table VALUES (timestamptz '2024-01-01 00:00 UTC' + $n * interval '1 second', $n % 3, 1, $n);\n";
	}
	sql($sql);
	return;
}

sub status_is
{
	my ($query, $status) = @_;
	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$query'::regclass",
		"$query is $status");
}

# Nobody has failed since the attempt, not even a query that is healthy again: that takes another attempt.
sub attempt { return sql('SELECT attempt FROM stream_ckpt.pipelines'); }

sub nobody_failed
{
	my ($attempt, $what) = @_;
	my $failed = sql('SELECT count(*) FROM stream_ckpt.queries WHERE failed_at IS NOT NULL');

	is(attempt() . " $failed", "$attempt 0", $what);
	return;
}

sub good_ok
{
	my ($what) = @_;
	wait_until($node, 'SELECT sum(n) = (SELECT count(*) FROM t) FROM good', "good goes on: $what");
	results_ok($node, 'good', "good is exact: $what", emit => 'update', synced => 1);
	return;
}

# The owner's slow code, which is what this test is about; nothing here waits by it.  A function that sleeps for as long as a
# table says, and calls itself immutable.
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

# Alone, an owner's queries have a share each: nobody else waits for them.
create_query($node, 'also_sleepy', 't', emit => 'update', select => $sleepy);
sync_pipelines($node);
my $began = attempt();
sql('UPDATE nap SET seconds = 0.4');
rows(1);
sync_pipelines($node);
nobody_failed($began, 'two queries of one owner take a share each');

# Nor do they fail for what they take in the long run, though they fall behind.
short_periods(1);
sql("SELECT pg_replication_origin_create('elsewhere'); UPDATE nap SET seconds = 0.2");
rows_in_time(8, 't', 0);
sync_pipelines($node);
nobody_failed($began, 'one owner alone takes all the time there is');
sql(q(SELECT stream_ckpt.drop_query('also_sleepy')));
short_periods(0);
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
# Another owner has many queries.  None of them takes more than a share, but all of them together do: the first
# leaves less than that to the next one, and so on.  One that takes nothing is left alone.
#
sql("ALTER SYSTEM SET stream_ckpt.query_share = '1s'");
sql('SELECT pg_reload_conf(); CREATE ROLE mallory; GRANT CREATE ON SCHEMA public TO mallory; GRANT SELECT ON many_t, nap TO mallory');
my $many = $sleepy =~ s/FROM t,/FROM many_t,/r;
my $sleepers = join ' UNION ALL ', map { "SELECT 'nap_$_'" } 1 .. 8;
sql("SET ROLE mallory; SELECT stream_ckpt.create_query(q, \$\$$many\$\$, emit => 'update', backfill => false) FROM ($sleepers) s(q)");
sql("SET ROLE mallory; SELECT stream_ckpt.create_query('awake', 'SELECT w.window_start, k, count(*) AS n
	FROM many_t, stream_ckpt.tumble(ts, \$\$1 minute\$\$) w GROUP BY w.window_start, k', emit => 'update', backfill => false)");
rows(10, 'many_t');
sync_pipelines($node);
sql('UPDATE nap SET seconds = 0.6');
rows(1, 'many_t');
my $overran = q(SELECT count(*) FROM stream_ckpt.queries WHERE query::text LIKE 'nap\_%' AND message ~ 'query_share');
wait_until($node, "SELECT ($overran) >= 7", 'all but the first have used what was left');
sql('UPDATE nap SET seconds = 0');
rows(10);
good_ok('many queries of one owner sleep in every message');
is(sql(q(SELECT string_agg(query::text, ' ') FROM stream_ckpt.queries WHERE failed_at IS NOT NULL AND query::text NOT LIKE 'nap\_%')),
	'', 'whose query takes nothing is not interrupted, whatever his others take');
wait_until($node, q(SELECT bool_and(status = 'running') FROM stream_ckpt.queries), 'all of them run again');
sync_pipelines($node);
results_ok($node, $_, "$_ is exact after that", emit => 'update', synced => 1) foreach 'awake', map { "nap_$_" } 1 .. 8;
sql("SELECT stream_ckpt.drop_query('$_')") foreach 'awake', map { "nap_$_" } 1 .. 8;
sql('ALTER SYSTEM RESET stream_ckpt.query_share; SELECT pg_reload_conf()');

#
# A query that takes less than its share in each message, again and again.  Nobody minds while what is processed comes
# closer to the clock; if it falls further behind, it is as if the query had been interrupted.
#
short_periods(1);
my $below = $sleepy =~ s/FROM t,/FROM below_t,/r;
sql('GRANT SELECT ON below_t TO mallory');
sql("SET ROLE mallory; SELECT stream_ckpt.create_query('below', \$\$$below\$\$, emit => 'update', backfill => false)");
rows(10, 'below_t');
rows_in_time(1, 'below_t', 1);
sync_pipelines($node);
$began = attempt();
sql('UPDATE nap SET seconds = 0.2');
rows_in_time(15, 'below_t', 1);
sync_pipelines($node);
nobody_failed($began, 'a query takes most of the time while the task catches up');
rows_in_time(100, 'below_t', 0);
wait_until($node, q(SELECT failed_at IS NOT NULL FROM stream_ckpt.queries WHERE query = 'below'::regclass),
	'a query that takes most of the time while the task falls behind fails');
like(counter($node, 'below', "concat_ws('|', sqlstate, message, detail, hint)"),
	qr/^57014\|the query took \d+ % of the task's time for \d+ s while queries of others waited and fell behind\|All queries of its owner took \d+ %\.\|.*"stream_ckpt.query_share".*resume_query/,
	'and the view says why');
sql('UPDATE nap SET seconds = 0');
rows(10);
good_ok('a query takes most of the time');
status_is('below', 'running');
sync_pipelines($node);
results_ok($node, 'below', 'exact after that', emit => 'update', synced => 1);
sql(q(SELECT stream_ckpt.drop_query('below')));
short_periods(0);

#
# So is one that writes around result rows at fault; its error says what ended it.  The trigger's sleep is never waited for:
# it is interrupted.
#
sql(q(CREATE SEQUENCE calls; CREATE TABLE switch (is_on bool); INSERT INTO switch VALUES (false);
	CREATE FUNCTION refuse_and_sleep() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN
			IF (SELECT is_on FROM switch) THEN
				IF nextval('calls') = 1 THEN RAISE 'refused'; END IF;
				PERFORM pg_sleep(9);
			END IF;
			RETURN NEW;
		END $$));
create_query($node, 'around', 'around_t', emit => 'update', options => "on_error => 'dead_letter'");
sql('CREATE TRIGGER r BEFORE INSERT OR UPDATE ON around FOR EACH ROW EXECUTE FUNCTION refuse_and_sleep()');
rows(10, 'around_t');
sync_pipelines($node);
sql('UPDATE switch SET is_on = true');
rows(10, 'around_t');
status_is('around', 'waiting');
like(counter($node, 'around', "concat_ws('|', sqlstate, message, hint)"),
	qr/^57014\|the query's code took longer than "stream_ckpt.query_share" allows while other queries wait\|/,
	'a query that looks for rows at fault has used its share, and the view says so');
sql('UPDATE switch SET is_on = false');
status_is('around', 'running');
sync_pipelines($node);
results_ok($node, 'around', 'exact after that', emit => 'update', synced => 1);
sql(q(SELECT stream_ckpt.drop_query('around')));

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
	sql("ALTER SYSTEM SET stream_ckpt.debug_retry_second = '50ms'");
	sql('SELECT pg_reload_conf()');
	my $pid = pid_of($node, 'task');
	arm($node, 'coordinator_put_off', 'wait', 4);
	$locker->query_safe('BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE');
	kill 'TERM', $pid;
	wait_restarted($node, 'task', $pid);
	wait_until($node, "SELECT ($list) = 'retrying retrying retrying'", 'three queries are to be tried again');
	cmp_ok(refused('locked'), '>=', 2, 'two of them without having waited for the lock');
	# they are put off, and nobody else begins anew for them
	my $attempt = 'SELECT attempt FROM stream_ckpt.pipelines';
	my $first = sql($attempt);
	wait_reached($node, 'coordinator_put_off');
	disarm($node, 'coordinator_put_off');
	rows(10);
	good_ok('a stream is locked');
	is(sql($attempt), $first, 'nobody begins anew for the sake of queries whose stream is locked');
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
