# Results that are brought back after their pipeline was lost, by one command; and what of a result is older than the rows
# that its stream still holds.

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
my $second = 0;

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

# n rows, each a second behind the one before
sub rows
{
	my ($n, $dbname) = @_;

	$second += $n;
	return sql("INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 7, i, $second
		FROM generate_series($second - $n + 1, $second) i", $dbname);
}

my $definition = "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k";

# One test for each result: it is what its definition says
sub exact
{
	my ($what, $dbname) = @_;

	sync_pipelines($node, $dbname);
	is(sql("SELECT count(*) FROM ((TABLE live EXCEPT ALL TABLE live_definition) UNION ALL (TABLE live_definition EXCEPT ALL TABLE live)) d", $dbname),
		'0', "live $what");
	is(sql("SELECT count(*) FROM ((TABLE closed EXCEPT ALL SELECT * FROM closed_definition WHERE window_end <= (SELECT max(ts) FROM t))
			UNION ALL (SELECT * FROM closed_definition WHERE window_end <= (SELECT max(ts) FROM t) EXCEPT ALL TABLE closed)) d", $dbname),
		'0', "closed $what");
	is(sql('SELECT n = (SELECT count(*) FROM t) FROM total', $dbname), 't', "total $what");
	return;
}

create_stream_table($node, 't');
sql("SELECT stream_ckpt.create_stream('log', 'k int')");
create_query($node, 'live', 't', emit => 'update', select => $definition, options => "allowed_lateness => '1 hour'");
create_query($node, 'closed', 't', select => $definition);
create_query($node, 'total', 't', emit => 'update', select => 'SELECT count(*) AS n FROM t');
create_query($node, 'of_log', 'log', emit => 'update', select => 'SELECT count(*) AS n FROM log');
rows(300);
sql('INSERT INTO log SELECT 1 FROM generate_series(1, 10)');
exact('at the beginning');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->run_log([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ]);

# The slot is gone
my $slot = sql('SELECT slot_name FROM stream_ckpt.pipelines');
sql("SELECT stream_ckpt.stop_pipeline('default')");
wait_until($node, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '$slot'", 'the slot is free');
sql("SELECT pg_drop_replication_slot('$slot')");
rows(300);
sql("SELECT stream_ckpt.start_pipeline('default')");
wait_status($node, 'lost');
like(sql('SELECT hint FROM stream_ckpt.pipelines'), qr/rebuild_pipeline\(name\).*accept_gap/, 'the hint names the ways out');
is_refused($node, "SELECT stream_ckpt.rebuild_query('live')", qr/pipeline "default" is lost.*rebuild_pipeline/s, 'one query alone');
my $live = sql("SELECT 'live'::regclass::oid");
arm($node, 'history_begins', 'wait');
like(($node->psql('postgres', "SELECT stream_ckpt.rebuild_pipeline('default')"))[2],
	qr/WARNING:  query "of_log" cannot be rebuilt.*accept_gap => true/s, 'what cannot be');
wait_reached($node, 'history_begins');
rows(100);
is(sql('SELECT sum(n) FROM live'), 300, 'results stay as they were');
is(sql("SELECT string_agg(query || ' ' || status, ', ' ORDER BY query::text) FROM stream_ckpt.queries WHERE replaces IS NULL"),
	'closed lost, live lost, of_log lost, total lost', 'none goes on with a gap');
sql("SELECT stream_ckpt.resume_query('of_log', accept_gap => true)");
disarm($node, 'history_begins');
exact('brought back');
is(sql("SELECT 'live'::regclass::oid"), $live, 'the same table');
sql('INSERT INTO log SELECT 1 FROM generate_series(1, 10)');
rows(100);
exact('and on');
is(sql('SELECT n FROM of_log'), 20, 'the log stream goes on');
$node->stop('immediate');
$node->start;
wait_running($node);
rows(100);
exact('after a crash');
sql("SELECT stream_ckpt.rebuild_pipeline('default')");
exact('of one that is well');

# A dump that is restored
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'the dump is restored');
sql('INSERT INTO t SELECT ts + interval \'1 hour\', k, v FROM t', 'restored');
sql("SELECT stream_ckpt.rebuild_pipeline('default'); SELECT stream_ckpt.resume_query('of_log', accept_gap => true)", 'restored');
exact('of a dump', 'restored');
sql('INSERT INTO t SELECT ts + interval \'3 hours\', k, v FROM t', 'restored');
exact('of a dump, and on', 'restored');

# Rows that the stream doesn't hold any more: results of windows before its oldest row stay, and are over
sql("INSERT INTO t VALUES ('2024-01-01 05:00 UTC', 1, 1, 0)");
sync_pipelines($node);
my $old = q(SELECT md5(string_agg(r::text, ' ' ORDER BY r::text)) FROM (TABLE live UNION ALL TABLE closed) r WHERE window_end <= '2024-01-01 00:05 UTC');
my $kept = sql($old);
sql("DELETE FROM t WHERE ts < '2024-01-01 00:05:30 UTC'");
sql("SELECT stream_ckpt.rebuild_query('live'); SELECT stream_ckpt.rebuild_query('closed')");
sync_pipelines($node);
is(sql($old), $kept, 'rows that nobody can make again stay');
my $rest = "SELECT count(*) FROM ((SELECT * FROM live WHERE window_end > '2024-01-01 00:05 UTC' EXCEPT ALL TABLE live_definition)
	UNION ALL (TABLE live_definition EXCEPT ALL SELECT * FROM live WHERE window_end > '2024-01-01 00:05 UTC')) d";
is(sql($rest), '0', 'the others are what is there');
sql("INSERT INTO t VALUES ('2024-01-01 00:02:30 UTC', 1, 1, 0)");
sync_pipelines($node);
is(sql($old), $kept, 'and nothing is counted in them');
sql("DELETE FROM t WHERE ts < '2024-01-01 00:05:30 UTC'");
my $kept_more = sql("SELECT count(*), sum(total) FROM live WHERE window_end <= '2024-01-01 00:10 UTC'");
sql("DELETE FROM t WHERE ts BETWEEN '2024-01-01 00:07 UTC' AND '2024-01-01 00:09 UTC'");
sql("SELECT stream_ckpt.replace_query('live', \$\$ $definition \$\$, keep_before => '2024-01-01 00:10 UTC')");
sync_pipelines($node);
is(sql("SELECT count(*), sum(total) FROM live WHERE window_end <= '2024-01-01 00:10 UTC'"), $kept_more, 'up to when somebody says');
sql("SELECT stream_ckpt.rebuild_query('live', keep_before => '-infinity'); SELECT stream_ckpt.rebuild_query('closed', keep_before => '-infinity');
	SELECT stream_ckpt.rebuild_query('total')");
exact('none is kept');

# Not yet over: what comes for it counts
sql("CREATE TABLE young (LIKE t); SELECT stream_ckpt.attach_stream('young', 'ts', watermark_delay => '1 hour')");
create_query($node, 'of_young', 'young', emit => 'update');
sql("INSERT INTO young VALUES ('2024-01-01 00:00:30 UTC', 1, 1, 1), ('2024-01-01 00:10:30 UTC', 1, 1, 1)");
sync_pipelines($node);
sql("DELETE FROM young WHERE ts < '2024-01-01 00:05 UTC'; SELECT stream_ckpt.rebuild_query('of_young')");
results_ok($node, 'of_young', 'a window that is not over is made anew', emit => 'update');
sql("INSERT INTO young VALUES ('2024-01-01 00:00:40 UTC', 1, 1, 1)");
results_ok($node, 'of_young', 'and counts what comes for it', emit => 'update');

# It neither moves meanwhile
sql("SELECT stream_ckpt.create_pipeline('elsewhere')");
arm($node, 'history_begins', 'wait');
sql("SELECT stream_ckpt.rebuild_query('live')");
is_refused($node, "SELECT stream_ckpt.move_query('live', 'elsewhere')", qr/cannot move while it is being replaced/, 'moving');
disarm($node, 'history_begins');
exact('at the end');

# Of an empty table nobody can tell which rows of the result could not be made again
my $count = sql('SELECT count(*) FROM of_young');
sql("TRUNCATE young; SELECT stream_ckpt.rebuild_query('of_young')");
wait_until($node, "SELECT status = 'failed' AND message LIKE 'stream \"young\" holds no row%' AND hint LIKE '%keep_before%' FROM stream_ckpt.queries
	WHERE query = 'of_young_replacement'::regclass", 'it is asked which rows stay');
is(sql('SELECT count(*) FROM of_young'), $count, 'they all do, until it is said');
is(sql("SELECT status FROM stream_ckpt.queries WHERE query = 'of_young'::regclass"), 'running', 'the old query goes on');
sql("SELECT stream_ckpt.rebuild_query('of_young', keep_before => '-infinity')");
wait_until($node, "SELECT to_regclass('of_young_replacement') IS NULL", 'none stays, if it is said');
is(sql('SELECT count(*) FROM of_young'), '0', 'so it is');

# One that can't be made anew keeps nobody else from it
create_stream_table($node, 'u');
create_query($node, 'below', 'u', select => $definition =~ s/FROM t,/FROM u,/r);
create_query($node, 'beside', 'u', emit => 'update', select => 'SELECT k, count(*) AS n FROM u GROUP BY k');
sql("SELECT stream_ckpt.attach_stream('below', event_time => 'window_start', changes => 'ignore')");
create_query($node, 'above', 'below', emit => 'update', select => 'SELECT k, sum(n)::bigint AS n FROM below GROUP BY k');
my $ten = "INSERT INTO u SELECT timestamptz '2024-01-01 UTC' + i * interval '10 seconds', i % 3, i, 0 FROM generate_series(1, 100) i";
sql($ten);
sync_pipelines($node);
sql("SELECT stream_ckpt.stop_pipeline('default')");
wait_until($node, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '$slot'", 'the slot is free');
sql("SELECT pg_drop_replication_slot('$slot')");
sql($ten =~ s/01 UTC/02 UTC/r);
sql("SELECT stream_ckpt.start_pipeline('default')");
wait_status($node, 'lost');
like(($node->psql('postgres', "SELECT stream_ckpt.rebuild_pipeline('default')"))[2],
	qr/WARNING:  the result of query "below" cannot be made anew: .*its result is a stream whose changes are not applied\nDETAIL:  .*"below".*\nHINT:  Drop the queries that read it.*rebuild_query\(query\)/, 'it is named');
wait_until($node, "SELECT set_config('client_min_messages', 'error', false) IS NOT NULL AND stream_ckpt.sync('30 seconds') IS NOT NULL", 'the others go on');
is(sql("SELECT status || ' ' || message FROM stream_ckpt.queries WHERE query = 'below'::regclass") =~ /^lost its result cannot be made anew: cannot replace query "below"/, 1, 'it says so, too');
results_ok($node, 'beside', 'beside it', emit => 'update', synced => 1);
results_ok($node, 'above', 'above it: of what is there', emit => 'update', synced => 1);
sql("SELECT stream_ckpt.drop_query('above'); SELECT stream_ckpt.rebuild_query('below'); SELECT stream_ckpt.resume_query('of_log', accept_gap => true)");
wait_until($node, "SELECT to_regclass('below_replacement') IS NULL", 'it is mended');
results_ok($node, 'below', 'when that is mended', table => 'u');

$node->stop;
done_testing();
