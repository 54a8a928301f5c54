# A query that begins with its stream's history is entered in the catalogs, and that is all: so a whole migration is one
# transaction, on a server that has no slot yet.  The coordinator makes it afterwards, whatever dies meanwhile, and
# whoever it has to wait for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "max_replication_slots = 6\nmax_wal_senders = 6\n", draw => {});
my $select = 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k';

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

sub rows { return "INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 7, i FROM generate_series($_[0], $_[1]) i;"; }

sub create { return "SELECT stream_ckpt.create_query('$_[0]', '$select');"; }

# All of it, as a tool for migrations does it
sub migration
{
	return 'BEGIN; CREATE EXTENSION IF NOT EXISTS stream_ckpt; CREATE TABLE t (ts timestamptz, k int, v int);' . rows(1, 100)
	  . "SELECT stream_ckpt.attach_stream('t', 'ts');" . rows(101, 200) . create('q') . rows(201, 300)
	  . 'SAVEPOINT a;' . create('given_up') . rows(301, 350) . 'ROLLBACK TO a; SAVEPOINT b;' . create('kept') . rows(351, 400) . 'RELEASE b;';
}

sub is_exact
{
	my ($database, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node, $database);
	is(sql("SELECT stream_ckpt.verify('q') || ' ' || (SELECT sum(n) FROM q) - (SELECT count(*) FROM t)", $database), '0 0', $what);
	return;
}

sub slots { return sql('SELECT count(*) FROM pg_replication_slots'); }

sub waits_for_slot
{
	my ($database) = @_;

	return wait_until($node, q(SELECT p.status = 'starting' AND p.message LIKE 'the pipeline''s replication slot is being made%' AND
			q.message = p.message AND q.backfill_phase = 'making the slot'
		FROM stream_ckpt.pipelines p, stream_ckpt.queries q WHERE q.query = 'q'::regclass), 'the slot is being made', $database);
}

# ---------------------------------------------------------------- one transaction
sql('DROP EXTENSION stream_ckpt');
sql(migration() . 'ROLLBACK');
is(slots(), '0', 'rolled back: there is no slot');
my $session = $node->background_psql('postgres', on_error_stop => 1);
$session->query_safe('SET client_min_messages = warning;' . migration());
is(slots(), '0', 'nobody makes a slot before the commit');
$session->query_safe('COMMIT');
$session->quit;
is_exact('postgres', 'rows before and behind create_query() are counted');
is(sql('SELECT count(*) FROM kept'), '7', 'a query of a savepoint that is kept');
is(sql("SELECT to_regclass('given_up') IS NULL AND count(*) = 2 FROM stream_ckpt.queries"), 't', 'none of a savepoint that was given up');
sql(rows(401, 500));
is_exact('postgres', 'and on');
$node->stop('immediate');
$node->start;
wait_running($node);
sql(rows(501, 550));
is_exact('postgres', 'after a crash');

# ---------------------------------------------------------------- what needs the slot before the commit
sql('CREATE DATABASE log');
my ($ret, $out, $err) = $node->psql('log', 'BEGIN; CREATE EXTENSION stream_ckpt; CREATE TABLE t (ts timestamptz, k int, v int);' . rows(1, 10)
	  . "SELECT stream_ckpt.attach_stream('t', 'ts'); SELECT stream_ckpt.create_query('q', '$select', backfill => false); COMMIT");
like($err, qr/ERROR:  the pipeline has no replication slot yet, and this transaction has already written\n.*\nHINT:  Do this in a transaction of its own/,
	'a query that begins at the commit needs a slot');
sql("BEGIN; CREATE EXTENSION stream_ckpt; CREATE TABLE t (ts timestamptz, k int, v int); SELECT stream_ckpt.attach_stream('t', 'ts');
	SELECT stream_ckpt.create_stream('l', 'ts timestamptz, k int', event_time => 'ts'); COMMIT", 'log');
is(slots(), '1', 'streams need none');
sql("SELECT stream_ckpt.create_query('of_l', 'SELECT count(*) AS n FROM l')", 'log');
sql("INSERT INTO l VALUES ('2024-01-01', 1), ('2024-01-01', 2)", 'log');
sync_pipelines($node, 'log');
is(sql('TABLE of_l', 'log'), '2', 'but their queries');
sql('DROP DATABASE log');

# ---------------------------------------------------------------- prepared
($ret, $out, $err) = $node->psql('template1', migration() . "PREPARE TRANSACTION 'migration'");
like($err, qr/cannot PREPARE a transaction that has changed streams/, 'a migration cannot be prepared');
is(sql("SELECT count(*) FROM pg_prepared_xacts"), '0', 'and nothing of it is left');

# ---------------------------------------------------------------- others are open
sql("CREATE DATABASE $_") for ('shop', 'other');
sql('CREATE TABLE held (a int)', 'other');
sql("BEGIN; INSERT INTO held VALUES (1); PREPARE TRANSACTION 'old'", 'other');
sql(migration() . 'COMMIT', 'shop');
waits_for_slot('shop');
($ret, $out, $err) = $node->psql('shop', q(SELECT stream_ckpt.sync('200 ms')));
like($err, qr/sync\(\) timed out while query "q" begins with the rows of "t"\n.*phase is "making the slot"/, 'sync() names the query');
($ret, $out, $err) = $node->psql('shop', q(SELECT stream_ckpt.sync('200 ms', 'kept')));
like($err, qr/sync\(\) timed out while query "kept" begins with the rows of "t"\n.*phase is "making the slot".*\n.*pg_prepared_xacts/, 'of the one that was asked for');
is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt coordinator%' AND datname = 'shop'
		AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL OR xact_start IS NULL))), '0', 'no transaction id is held meanwhile, nor a snapshot');
sql(rows(401, 420), 'shop');
is_exact('postgres', 'the other database goes on');
($ret, $out, $err) = $node->psql('shop', "BEGIN; CREATE TABLE written (a int); SELECT stream_ckpt.sync('60 s')");
like($err, qr/sync\(\) cannot wait for query "q" in a transaction that has written\n.*slot is being made/, 'who has written is told at once');
($ret, $out, $err) = $node->psql('shop', "BEGIN; CREATE TABLE written (a int); SELECT stream_ckpt.sync('60 s', 'kept')");
like($err, qr/sync\(\) cannot wait for query "kept" in a transaction that has written/, 'of the one that was asked for');
sql("SET statement_timeout = '60 s'; CREATE TABLE second (ts timestamptz, k int); SELECT stream_ckpt.attach_stream('second', 'ts')", 'shop');
waits_for_slot('shop');
pass('a stream is made without waiting for the slot that somebody else makes');

# A copy of such a database: nothing of it is lost, and whoever looks at it has it started
sql('CREATE DATABASE copied TEMPLATE shop');
is(sql('SELECT status FROM stream_ckpt.pipelines', 'copied'), 'starting', 'a copy, before there is a slot');
wait_until($node, q(SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt coordinator%' AND datname = 'copied'),
	'somebody starts the pipeline of a copy');
waits_for_slot('shop');
sql('DROP DATABASE copied WITH (FORCE)');

# whoever changes something doesn't wait, and who needs the slot no more gives it up
my $pid = sql('SELECT coordinator_pid FROM stream_ckpt.pipelines', 'shop');
sql("SELECT stream_ckpt.drop_query('kept')", 'shop');
wait_until($node, "SELECT coordinator_pid <> $pid FROM stream_ckpt.pipelines", 'the coordinator notices', 'shop');
waits_for_slot('shop');
sql('DROP EXTENSION stream_ckpt CASCADE; DROP TABLE t, q CASCADE', 'shop');
wait_until($node, q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt coordinator%' AND datname = 'shop'), 'its coordinator ends');
is(sql("SELECT count(*) FROM pg_replication_slots WHERE database = 'shop'"), '0', 'no slot is left of it');
sql(migration() . 'COMMIT', 'shop');
waits_for_slot('shop');
sql("SELECT stream_ckpt.stop_pipeline('default')", 'shop');
wait_until($node, q(SELECT status = 'stopped' FROM stream_ckpt.pipelines), 'it stops', 'shop');
sql("SELECT stream_ckpt.start_pipeline('default')", 'shop');
waits_for_slot('shop');
sql('DROP DATABASE shop');
is(sql("SELECT count(*) FROM pg_replication_slots WHERE database = 'shop'"), '0', 'nor of a database that is dropped');
sql('CREATE DATABASE shop');
sql(migration() . 'COMMIT', 'shop');
waits_for_slot('shop');
$node->stop('immediate');
$node->start;
waits_for_slot('shop');
sql("COMMIT PREPARED 'old'", 'other');
is_exact('shop', 'it begins when the others have ended, also after a crash');

# ---------------------------------------------------------------- a slot that goes while nothing depends on it
sub begin_anew
{
	sql('SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries', 'shop');
	# workers that read the catalogs can be in each other's way with it: one of both gives up then
	for (1 .. 20)
	{
		last if $node->psql('shop', 'DROP EXTENSION IF EXISTS stream_ckpt') == 0;
	}
	sql('DROP TABLE t CASCADE', 'shop');
	return wait_until($node, q(SELECT count(*) = 0 FROM pg_replication_slots WHERE database = 'shop'), 'the slot is gone');
}

begin_anew();
arm($node, 'first_slot_made', 'wait');
sql(migration() . 'COMMIT', 'shop');
wait_reached($node, 'first_slot_made');
sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'shop'");
disarm($node, 'first_slot_made');
is_exact('shop', 'a slot that was dropped is made again');
# those that have begun depend on it
sql('SELECT stream_ckpt.stop_pipeline(\'default\')', 'shop');
wait_until($node, q(SELECT active_pid IS NULL FROM pg_replication_slots WHERE database = 'shop'), 'the pipeline stops');
sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'shop'");
sql('SELECT stream_ckpt.start_pipeline(\'default\')', 'shop');
wait_until($node, q(SELECT status = 'lost' FROM stream_ckpt.pipelines), 'it is lost', 'shop');
($ret, $out, $err) = $node->psql('shop', create('another'));
like($err, qr/pipeline "default" is lost/, 'no query joins those that are lost');

# ---------------------------------------------------------------- no slot is free
begin_anew();
my $full = "SELECT count(*) FROM generate_series(1, 6 - (SELECT count(*) FROM pg_replication_slots)) i, pg_create_physical_replication_slot('full' || i)";
sql($full);
($ret, $out, $err) = $node->psql('shop', migration() . 'COMMIT');
is($ret, 0, 'created while no slot is free');
like($err, qr/WARNING:  the query does not begin yet: pipeline "default" needs a replication slot, and none is free\nHINT:  Drop a slot/, 'who creates it is told');
wait_until($node, q(SELECT message LIKE 'all replication slots are in use%' FROM stream_ckpt.pipelines), 'the pipeline says so', 'shop');
sql(q(SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'full%'));
is_exact('shop', 'begun when there is one');

# ---------------------------------------------------------------- a crash at each step
for my $point ('first_slot_before', 'first_slot_made', 'history_begins', 'history_after_scan', 'coordinator_before_commit')
{
	for my $how ('kill', 'error', 'stop')
	{
		# an error of reading is the query's
		next if $how eq 'error' && $point !~ /slot/;
		next if $how eq 'stop' && $point eq 'coordinator_before_commit';
		begin_anew();
		$node->stop('fast');
		arm($node, $point, $how eq 'stop' ? 'wait' : $how);
		$node->start;
		sql(migration() . 'COMMIT', 'shop');
		wait_reached($node, $point);
		if ($how eq 'stop')
		{
			$node->stop('immediate');
			disarm($node, $point);
			$node->start;
		}
		wait_up($node);
		is_exact('shop', "$how at $point");
	}
}

# ---------------------------------------------------------------- no place for the pipeline
begin_anew();
$node->append_conf('postgresql.conf', "stream_ckpt.max_pipelines = 1\n");
$node->restart;
wait_running($node);
($ret, $out, $err) = $node->psql('shop', migration() . 'COMMIT');
like($err, qr/WARNING:  the query does not run: there is no place for pipeline "default"\nDETAIL:  It begins when there is a place\./, 'no place');
is(sql('SELECT message FROM stream_ckpt.pipelines', 'shop'), 'there is no place for the pipeline', 'it waits for a place');
sql('DROP EXTENSION stream_ckpt CASCADE');
wait_until($node, q(SELECT count(*) = 1 FROM pg_replication_slots WHERE database = 'shop'), 'it has one when that is free', 'shop');
is_exact('shop', 'and is exact');

# ---------------------------------------------------------------- no worker to look for queries
my $size = -s $node->logfile;
my $said = 'no background worker is free to look for queries';
$node->append_conf('postgresql.conf', "max_worker_processes = 2\n");
$node->restart;
wait_until($node, "SELECT pg_read_file('@{[$node->logfile]}', $size, 100000) LIKE '%$said%'", 'the launcher says so');
sql('CREATE DATABASE third');
is(sql("SELECT count(*) FROM regexp_matches(pg_read_file('@{[$node->logfile]}', $size, 100000), '$said', 'g')"), '1', 'once');
$node->append_conf('postgresql.conf', "max_worker_processes = 32\n");
$node->restart;
sql(rows(601, 620), 'shop');
is_exact('shop', 'with workers it goes on');

$node->stop;
done_testing();
