# How a query begins if nothing is said: with the rows that the table holds, each counted once, whoever writes meanwhile.  If
# there are none it begins as one that needs no history: in the attempt that runs.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $node = new_node('main', '', draw => {});

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub rows { return "INSERT INTO $_[0] SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 7, i FROM generate_series(1, $_[1]) i;"; }

sub select_of { return "SELECT k, count(*) AS n, sum(v) AS total FROM $_[0] GROUP BY k"; }

sub create { return "SELECT stream_ckpt.create_query('$_[0]', '" . select_of($_[1]) . "'" . ($_[2] // '') . ');'; }

sub attempt { return sql("SELECT attempt FROM stream_ckpt.pipelines WHERE pipeline = 'default'"); }

# Does it have a history?
sub begins { return sql("SELECT backfill FROM stream_ckpt.query WHERE relid = '$_[0]'::regclass"); }

sub a_table
{
	my ($name, %opt) = @_;

	sql("CREATE TABLE $name (ts timestamptz, k int, v int)");
	sql("SELECT stream_ckpt.attach_stream('$name', 'ts'" . ($opt{options} // '') . ')');
	return;
}

# Exact, whatever its rows are
sub is_exact
{
	my ($name, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return results_ok($node, $name, $what, emit => 'update');
}

a_table('t');
sql(create('first', 't'));
sync_pipelines($node);

# ---------------------------------------------------------------- empty, and not
my $before = attempt();
sql(create('empty', 't'));
is(begins('empty'), 'f', 'an empty table has no history');
sql(rows('t', 50));
is_exact('empty', 'rows behind it');
is(attempt(), $before, 'nobody began anew');
sql(create('filled', 't'));
is(begins('filled'), 't', 'one with rows has');
is_exact('filled', 'rows before it');
sql(create('without', 't', ', backfill => false'));
sync_pipelines($node);
is(sql('SELECT count(*) FROM without'), '0', 'backfill => false: none of them');
is(sql(q(SELECT string_agg(line, '') FROM stream_ckpt.explain_query('SELECT k, count(*) FROM t GROUP BY k') line WHERE line LIKE '%begins%')),
	'  begins: with the rows that it holds', 'explain_query() says so');

# ---------------------------------------------------------------- in the transaction itself
a_table('own');
sql('BEGIN;' . create('own_after', 'own') . rows('own', 30) . 'COMMIT');
is_exact('own_after', 'rows of the same transaction, behind it');
a_table('own2');
sql('BEGIN;' . create('own_taken_back', 'own2') . 'SAVEPOINT a;' . rows('own2', 30) . 'ROLLBACK TO a; COMMIT');
is(begins('own_taken_back'), 'f', 'rows that were taken back are none');
sql('BEGIN;' . create('dropped', 'own2') . create('paused', 'own2') . q(SELECT stream_ckpt.drop_query('dropped'), stream_ckpt.pause_query('paused');) . rows('own2', 20) . 'COMMIT');
sql(rows('own2', 20));
sql("SELECT stream_ckpt.resume_query('paused')");
is_exact('own_taken_back', 'and later ones count');
is_exact('paused', 'paused where it was created');

# ---------------------------------------------------------------- others write
a_table('held');
my $writer = $node->background_psql('postgres', on_error_stop => 1);
$writer->query_safe('BEGIN;' . rows('held', 10));
sql(create('other_open', 'held'));
is(begins('other_open'), 't', 'somebody writes: nobody knows');
$writer->query_safe('COMMIT');
is_exact('other_open', 'who committed behind it');
sql('TRUNCATE held');
sql('BEGIN;' . rows('held', 10) . "PREPARE TRANSACTION 'p'");
sql(create('other_prepared', 'held'));
is(begins('other_prepared'), 't', 'a prepared transaction counts as one that writes');
sql("COMMIT PREPARED 'p'");
sync_pipelines($node);
is(sql('SELECT sum(n) FROM other_prepared'), '10', 'and its rows do');
# nobody waits for a migration that is open
a_table('open');
my $migration = $node->background_psql('postgres', on_error_stop => 1);
$migration->query_safe('BEGIN;' . create('migrated', 'open'));
sql("SET lock_timeout = '10 s';" . rows('open', 25));
$migration->query_safe('COMMIT');
is(begins('migrated'), 't', 'rows that came before its commit');
is_exact('migrated', 'are counted');

# ---------------------------------------------------------------- partitions, applied changes, no history
sql('CREATE TABLE p (ts timestamptz, k int, v int) PARTITION BY LIST (k); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (0, 1, 2); CREATE TABLE p2 PARTITION OF p DEFAULT');
sql("SELECT stream_ckpt.attach_stream('p', 'ts')");
$writer->query_safe('BEGIN; LOCK TABLE p2 IN ROW EXCLUSIVE MODE');
sql(create('p_open', 'p'));
is(begins('p_open'), 't', 'somebody may write into a partition');
$writer->query_safe('COMMIT');
sql(create('p_empty', 'p'));
is(begins('p_empty'), 'f', 'no partition has rows');
sql(rows('p', 40));
sql(create('p_full', 'p'));
is_exact($_, $_) for ('p_open', 'p_empty', 'p_full');
sql('CREATE TABLE c (id int PRIMARY KEY, ts timestamptz NOT NULL, k int, v int)');
sql("SELECT stream_ckpt.attach_stream('c', 'ts', changes => 'apply')");
sql(create('c_empty', 'c'));
sql("INSERT INTO c SELECT i, timestamptz '2024-01-01 UTC', i % 3, i FROM generate_series(1, 30) i");
sql(create('c_full', 'c'));
sql('UPDATE c SET v = v + 1 WHERE id < 10; DELETE FROM c WHERE id > 20');
is(begins('c_empty') . begins('c_full'), 'ft', 'applied changes');
is_exact($_, $_) for ('c_empty', 'c_full');
sql('CREATE TABLE live (k int, v int)');
sql(q(SELECT stream_ckpt.attach_stream('live', processing_time => true); INSERT INTO live VALUES (1, 1)));
my ($ret, $out, $err) = $node->psql('postgres', create('clock', 'live'));
like($err, qr/NOTICE:  the query doesn't count the rows that stream "live" holds/, 'the clock of the commit keeps no history');
is(begins('clock'), 'f', 'and has none');
sql(q(SELECT stream_ckpt.create_stream('log', 'ts timestamptz, k int, v int', event_time => 'ts')));
sql(create('of_log', 'log'));
is(begins('of_log'), 'f', 'nor has a log stream');

# ---------------------------------------------------------------- under writers, again and again
a_table('busy');
for my $round (1 .. 8)
{
	my $busy = start_writer($node, rows('busy', 3), clients => 3, transactions => 40);

	sql('BEGIN;' . create("busy$round", 'busy') . ($round % 2 ? rows('busy', 2) : '') . 'COMMIT');
	ok(finish_writer($busy), 'writers go on');
	is_exact("busy$round", "each row once, round $round");
	if ($round % 3 == 0)
	{
		sql("SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries WHERE stream = 'busy'::regclass");
		sql('TRUNCATE busy');
	}
}

# ---------------------------------------------------------------- the extension goes in the same transaction
$writer->quit;
$migration->quit;
sql('BEGIN; CREATE TABLE gone (ts timestamptz, k int, v int);' . create('late', 't') . 'DROP EXTENSION stream_ckpt CASCADE; COMMIT');
is(sql("SELECT count(*) FROM pg_extension WHERE extname = 'stream_ckpt'"), '0', 'DROP EXTENSION behind create_query()');

$node->stop;
done_testing();
