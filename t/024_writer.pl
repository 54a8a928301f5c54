# A large part of a checkpoint is written by a process of its own, while the others' checkpoints go on: the
# results are exact whatever dies, fails or is changed meanwhile.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.debug_large_part = 100\nstream_ckpt.debug_retry_second = 50ms\n"
	  . "stream_ckpt.result_lock_timeout = 200ms\n");
my $definition = q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# of "big" each window that closes is a large part, of "beside" none is
create_stream_table($node, 't');
create_stream_table($node, 'u');
create_query($node, 'big', 't');
create_query($node, 'beside', 'u', emit => 'update');
wait_running($node);

my $minute = 0;

# A window of 500 groups, which closes the one before.  As all commands here, it may fail: the server can be killed.
sub big_rows
{
	try_psql($node,
		qq(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $minute * interval '1 minute', i, i, $minute
			FROM generate_series(1, 500) i));
	$minute++;
	return;
}

my $second = 0;

# A row for "beside".
sub small_row
{
	try_psql($node,
		qq(INSERT INTO u VALUES (timestamptz '2024-01-01 00:00 UTC' + $second * interval '1 second', $second % 3, $second, 0)));
	$second++;
	return;
}

sub exact
{
	my ($what) = @_;

	sync_pipelines($node);
	is( join(' ', differences($node, 'big', table => 't'), differences($node, 'beside', emit => 'update'),
			counter($node, 'big', 'rows_in') - sql('SELECT count(*) FROM t'),
			counter($node, 'beside', 'rows_in') - sql('SELECT count(*) FROM u')),
		'0 0 0 0', $what);
	return;
}

# "beside" goes on, n checkpoints of it, while a writer has a part.
sub others_go_on
{
	my ($what) = @_;

	for (1 .. 3)
	{
		small_row();
		wait_until($node, 'SELECT (SELECT sum(n) FROM beside) = (SELECT count(*) FROM u)', "others go on $what");
	}
	pass("others go on $what");
	return;
}

# A writer has the part of "big", and waits before its commit.
sub hold
{
	arm($node, 'writer_before_commit', 'wait');
	big_rows();
	wait_reached($node, 'writer_before_commit');
	return;
}

sub writer_pid { return sql(q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'stream_ckpt writer')); }

sub is_status
{
	my ($query, $status) = @_;
	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$query'::regclass", "$query is $status");
}

big_rows();
small_row();
exact('before');

#
# The others don't wait, and nobody is told what isn't committed
#
my $before = sql('SELECT count(*) FROM big');
hold();
others_go_on('while a writer writes');
is(counter($node, 'big', 'message'), 'a large result is being written: 500 of 500 rows', 'the view says what it waits for');
is(sql('SELECT count(*) FROM big'), $before, 'a window appears all at once');
is(sql(q(SELECT q.lsn < p.last_lsn, s.confirmed_flush_lsn <= q.lsn
		FROM stream_ckpt.queries q, (SELECT lsn AS last_lsn FROM stream_ckpt.checkpoints WHERE status = 'completed' ORDER BY id DESC LIMIT 1) p,
			stream_ckpt.pipelines s WHERE q.query = 'big'::regclass)),
	't|t', 'its position is its own, and holds the slot');
foreach my $wait ("stream_ckpt.sync('300 ms')", "stream_ckpt.checkpoint(timeout => '300 ms')")
{
	my ($ret, $stdout, $stderr) = try_psql($node, "SELECT $wait");
	like($stderr, qr/timed out/, "$wait waits for the writer");
}
disarm($node, 'writer_before_commit');
sql('SELECT stream_ckpt.checkpoint()');
is(differences($node, 'big', table => 't'), '0', 'after checkpoint() its rows are there');
exact('after a writer');
is(sql(q(SELECT bool_and(q.lsn = s.lsn) FROM stream_ckpt.queries q, stream_ckpt.pipeline_state s)), 't', 'all go on together');
is(sql(q(SELECT sum(result_rows) FROM stream_ckpt.checkpoints)),
	sql(q(SELECT sum(result_rows) FROM stream_ckpt.queries)), 'the checkpoints count its rows');
wait_until($node, q(SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'stream_ckpt writer')), 'the writer has ended');

# what comes meanwhile is kept, and is a large part again
hold();
big_rows();
big_rows();
others_go_on('while parts are kept');
disarm($node, 'writer_before_commit');
exact('after parts that were kept');

# barriers leave the query out meanwhile: what has changed of it again and again is in one part later
create_query($node, 'live', 't', emit => 'update');
sync_pipelines($node);
my $rows = "SELECT sum(result_rows) FROM stream_ckpt.checkpoints";
my $result_rows = sql($rows);
arm($node, 'writer_before_commit', 'wait');
# into a window that stays open, so "live" only has result rows
sub again { return sql(qq(INSERT INTO t SELECT '2024-01-01 00:00 UTC'::timestamptz + ($minute - 1) * interval '1 minute', i, i, 0 FROM generate_series(1, 500) i)); }
again();
wait_reached($node, 'writer_before_commit');
for (1 .. 4)
{
	again();
	others_go_on('while a result changes again and again');
}
disarm($node, 'writer_before_commit');
sync_pipelines($node);
is(sql(qq(SELECT count(*) FROM live WHERE n = 5)), '500', 'all changes are in the result');
is(sql($rows) - $result_rows - 12, 1000, 'each row was written twice, not five times');
sql(q(SELECT stream_ckpt.drop_query('live')));

# several large parts wait for their turn
create_query($node, $_, 't') foreach qw(big_2 big_3);
sync_pipelines($node);
hold();
big_rows();
others_go_on('while several large parts wait');
disarm($node, 'writer_before_commit');
exact('after several large parts');
results_ok($node, $_, "$_ is exact", table => 't', where => '', synced => 1,
	truth => "SELECT d.* FROM ${_}_definition d WHERE window_end > (SELECT min(window_end) - interval '1 minute' FROM $_)")
  foreach qw(big_2 big_3);
sql(qq(SELECT stream_ckpt.drop_query('$_'))) foreach qw(big_2 big_3);

#
# Whatever dies at each step
#
my @points = qw(
  coordinator_before_handing
  coordinator_after_handing
  writer_before_write
  writer_after_rows
  writer_before_commit
  writer_after_commit
  writer_before_end
  coordinator_writer_ended
);

foreach my $point (@points)
{
	foreach my $action (qw(error exit term kill))
	{
		arm($node, $point, $action);
		big_rows();
		wait_reached($node, $point);
		wait_up($node);
		small_row();
		big_rows();
		exact("$action at $point");
	}
}
# its coordinator, while it writes
foreach my $action (qw(exit term))
{
	hold();
	arm($node, 'coordinator_before_commit', $action);
	small_row();
	wait_reached($node, 'coordinator_before_commit');
	disarm($node, 'writer_before_commit');
	exact("$action of the coordinator while a writer writes");
}
# somebody ends it
foreach my $end (qw(pg_terminate_backend pg_cancel_backend))
{
	hold();
	my $pid = writer_pid();
	sql("SELECT $end($pid)");
	wait_until($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)", 'the writer is gone');
	disarm($node, 'writer_before_commit');
	exact("after $end() of a writer");
}
# the server goes down, in both ways
foreach my $mode (qw(immediate fast))
{
	hold();
	$node->stop($mode);
	disarm($node, 'writer_before_commit');
	$node->start;
	wait_running($node);
	exact("after a server that stopped: $mode");
}

#
# Commands while its part is written
#
hold();
sql(q(SELECT stream_ckpt.pause_query('big')));
others_go_on('while the query is paused');
disarm($node, 'writer_before_commit');
is_status('big', 'paused');
wait_until($node, q(SELECT lsn = (SELECT min(lsn) FROM stream_ckpt.queries) AND (SELECT count(*) FROM big) = (SELECT count(*) FROM big_definition
		WHERE window_end <= (SELECT max(ts) FROM t)) FROM stream_ckpt.queries WHERE query = 'big'::regclass), 'its last part is written');
big_rows();
sql(q(SELECT stream_ckpt.resume_query('big')));
exact('paused and resumed');

hold();
sql(q(SELECT stream_ckpt.pause_query('big')));
small_row();
sql(q(SELECT stream_ckpt.resume_query('big')));
others_go_on('while the query is paused and resumed');
disarm($node, 'writer_before_commit');
exact('paused and resumed meanwhile');

hold();
sql(q(SELECT stream_ckpt.stop_pipeline('default')));
wait_status($node, 'stopped');
is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'stream_ckpt writer')), '0', 'stop_pipeline() ends the writer');
disarm($node, 'writer_before_commit');
sql(q(SELECT stream_ckpt.start_pipeline('default')));
wait_running($node);
exact('stopped and started');

hold();
sql(q(SELECT stream_ckpt.alter_pipeline('default', parallelism => 2)));
sql(q(SELECT stream_ckpt.alter_query('big', parallelism => 2)));
others_go_on('while other tasks are asked for');
disarm($node, 'writer_before_commit');
exact('shared out among two tasks');
big_rows();
hold();
big_rows();
disarm($node, 'writer_before_commit');
exact('by two tasks');

# dropped: the command waits for the lock on the result, as long as that is written
create_query($node, 'dropped', 't');
sync_pipelines($node);
my $id = sql(q(SELECT query_id FROM stream_ckpt.queries WHERE query = 'dropped'::regclass));
my $nothing_left = join(' AND ', map { "NOT EXISTS (SELECT FROM stream_ckpt.$_ WHERE query_id = $id)" }
	  qw(checkpoint_offset state_run query_failure late_rows dead_letter));
big_rows();
sync_pipelines($node);
sql(q(SELECT stream_ckpt.pause_query('big')));
is_status('big', 'paused');
hold();
my $dropper = $node->background_psql('postgres');
$dropper->query_until(qr/asked/, "\\echo asked\nSELECT stream_ckpt.drop_query('dropped');\n");
wait_until($node, q(SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock')), 'drop_query() waits');
disarm($node, 'writer_before_commit');
$dropper->quit;
wait_until($node, "SELECT $nothing_left", 'nothing is left of a query that was dropped meanwhile');
pass('nothing is left of a query that was dropped meanwhile');

# one with much state and no result yet: the command doesn't wait, and its writer comes late
create_query($node, 'dropped', 't', size => '36500 days');
sync_pipelines($node);
$id = sql(q(SELECT query_id FROM stream_ckpt.queries WHERE query = 'dropped'::regclass));
arm($node, 'writer_before_commit', 'wait');
sql(qq(INSERT INTO t SELECT '2024-01-01 00:00 UTC'::timestamptz + $minute * interval '1 minute', i, i, $minute FROM generate_series(1, 5000) i));
$minute++;
wait_reached($node, 'writer_before_commit');
sql(q(SELECT stream_ckpt.drop_query('dropped')));
others_go_on('after the query was dropped');
disarm($node, 'writer_before_commit');
$nothing_left =~ s/query_id = \d+/query_id = $id/g;
wait_until($node, "SELECT $nothing_left", 'nothing is left of its state');
pass('nothing is left of its state');
sql(q(SELECT stream_ckpt.resume_query('big')));
exact('the others are exact');

#
# Errors in writing
#
sql('ALTER TABLE big ADD CONSTRAINT few CHECK (k < 400) NOT VALID');
big_rows();
is_status('big', 'failed');
like(counter($node, 'big', 'message'), qr/violates check constraint "few"/, 'an error is the query\'s');
others_go_on('after an error');
sql(q(ALTER TABLE big DROP CONSTRAINT few; SELECT stream_ckpt.resume_query('big')));
exact('mended and resumed');

# the writer ends while a checkpoint is on its way that leaves the query out
foreach my $fails (1, 0)
{
	sql('ALTER TABLE big ADD CONSTRAINT few CHECK (k < 400) NOT VALID') if $fails;
	arm($node, 'writer_before_write', 'wait');
	big_rows();
	wait_reached($node, 'writer_before_write');
	big_rows();
	arm($node, 'reader_before_barrier', 'wait');
	small_row();
	wait_reached($node, 'reader_before_barrier');
	disarm($node, 'writer_before_write');
	wait_until($node, q(SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'stream_ckpt writer')), 'the writer has ended');
	disarm($node, 'reader_before_barrier');
	if ($fails)
	{
		is_status('big', 'failed');
		like(counter($node, 'big', 'message'), qr/violates check constraint "few"/, 'a failure is told by the checkpoint after that');
		sql(q(ALTER TABLE big DROP CONSTRAINT few; SELECT stream_ckpt.resume_query('big')));
	}
	exact('after a writer that ended before a barrier that left its query out');
}

# in the task, while its part is written
create_query($node, 'fragile', 't', select => q(SELECT w.window_start, w.window_end, k, sum(100 / (v - 1000)) AS total
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k));
sync_pipelines($node);
sql(q(SELECT stream_ckpt.pause_query('big')));
is_status('big', 'paused');
big_rows();
hold();
sql(qq(INSERT INTO t VALUES ('2024-01-01 00:00 UTC'::timestamptz + $minute * interval '1 minute', 1, 1000, 0)));
$minute++;
others_go_on('while the query fails');
isnt(counter($node, 'fragile', 'status'), 'failed', 'its failure is told when its part is written');
disarm($node, 'writer_before_commit');
is_status('fragile', 'failed');
is(sql('SELECT count(*) FROM fragile'), '500', 'what it had before it failed is written');
sql(q(SELECT stream_ckpt.drop_query('fragile')));
sql(q(SELECT stream_ckpt.resume_query('big')));
exact('the others are exact');

# a lock
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE big IN SHARE MODE');
big_rows();
is_status('big', 'waiting');
others_go_on('while the query waits');
$locker->quit;
sync_pipelines($node);
is(differences($node, 'big', table => 't'), '0', 'exact after a lock');
is_status('big', 'running');

# dead letters
create_query($node, 'letters', 't', options => "on_error => 'dead_letter'");
sync_pipelines($node);
sql(q(ALTER TABLE letters ADD CONSTRAINT few CHECK (k % 100 <> 7)));
big_rows();
big_rows();
sync_pipelines($node);
is(sql(q(SELECT count(*), count(*) FILTER (WHERE k % 100 = 7), (SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass)
		FROM letters)), '495|0|5', 'around rows at fault');
sql(q(SELECT stream_ckpt.drop_query('letters')));

# what is left for the commit
$node->safe_psql('postgres', 'CREATE DATABASE remote');
$node->safe_psql('remote', q(CREATE TABLE rows (k int, refused bool DEFAULT false);
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not these rows'; END $$;
	CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON rows DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()));
my ($host, $port) = ($node->host, $node->port);
my $user = sql('SELECT current_user');
sql(qq(CREATE EXTENSION postgres_fdw;
	CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'remote');
	CREATE USER MAPPING FOR current_user SERVER there OPTIONS (user '$user', password_required 'false');
	CREATE FOREIGN TABLE rows_there (k int) SERVER there OPTIONS (table_name 'rows');
	CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN INSERT INTO rows_there VALUES (NEW.k); RETURN NEW; END \$\$;
	CREATE TRIGGER tell AFTER INSERT ON big FOR EACH ROW EXECUTE FUNCTION tell()));
big_rows();
# on a busy machine a try may take too long first, as the other server's work isn't ours
wait_until($node, q(SELECT coalesce(message ~ 'not these rows', false) FROM stream_ckpt.queries WHERE query = 'big'::regclass),
	'what fails at the commit is the query\'s');
is_status('big', 'waiting');
others_go_on('while its commit fails');
$node->safe_psql('remote', 'ALTER TABLE rows DISABLE TRIGGER refuse');
sql(q(SELECT stream_ckpt.resume_query('big')));
sync_pipelines($node);
is(differences($node, 'big', table => 't'), '0', 'exact after a commit that failed');
is($node->safe_psql('remote', 'SELECT count(*) > 0 AND count(*) = 500 * (count(*) / 500) FROM rows'), 't', 'the other server has each once');
sql('DROP TRIGGER tell ON big');

# a command that needs the database for itself
hold();
$node->safe_psql('remote', 'CREATE DATABASE copy TEMPLATE postgres');
disarm($node, 'writer_before_commit');
sync_pipelines($node);
is(differences($node, 'big', table => 't'), '0', 'exact after the database was copied');
$node->safe_psql('remote', 'DROP DATABASE copy');

#
# The reader passes over its rows, beside those of the coordinator
#
sub decoded
{
	my $lsn = sql('SELECT pg_current_wal_lsn()');

	wait_until($node, "SELECT decoded_lsn >= '$lsn' FROM stream_ckpt.pipelines", 'all is read');
	return sql('SELECT total_bytes FROM pg_stat_replication_slots');
}

sql(qq(INSERT INTO t SELECT '2024-01-01 00:00 UTC'::timestamptz + $minute * interval '1 minute', i, i, 0 FROM generate_series(1, 20000) i));
$minute++;
sync_pipelines($node);
my $bytes = decoded();
arm($node, 'writer_before_commit', 'wait');
sql(qq(INSERT INTO t VALUES ('2024-01-01 00:00 UTC'::timestamptz + $minute * interval '1 minute', 1, 1, 0)));
wait_reached($node, 'writer_before_commit');
others_go_on('while many rows are written');
disarm($node, 'writer_before_commit');
sync_pipelines($node);
small_row();
cmp_ok(decoded() - $bytes, '<', 300_000, 'result rows that a writer writes are not decoded');
is(differences($node, 'big', table => 't'), '0', 'and are exact');
$node->stop;

#
# No background worker is free: the coordinator writes it
#
my $poor = new_node('poor', "stream_ckpt.debug_large_part = 100\nmax_logical_replication_workers = 0\nmax_worker_processes = 4\n");
create_stream_table($poor, 't');
create_query($poor, 'big', 't');
wait_running($poor);
foreach my $n (1 .. 3)
{
	$poor->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $n * interval '1 minute', i, i, $n FROM generate_series(1, 500) i");
	results_ok($poor, 'big', "exact without a writer, window $n", table => 't');
}
is(() = slurp_file($poor->logfile) =~ /no background worker is free to write a large result/g, 1, 'the log says so, once');
$poor->stop;

#
# It begins while more of it comes, not only when the checkpoint's interval is over
#
my $soon = new_node('soon');
create_stream_table($soon, 't');
create_query($soon, 'big', 't');
wait_running($soon);
checkpoint_all($soon);
$soon->safe_psql('postgres', "SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')");
$soon->safe_psql('postgres', "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + m * interval '1 minute', i, i, 0
	FROM generate_series(0, 150) m, generate_series(1, 1000) i");
wait_until($soon, 'SELECT count(*) > 0 FROM big', 'rows of a large result are there within the interval');
results_ok($soon, 'big', 'and all of them when it has come', table => 't');
$soon->stop;
done_testing();
