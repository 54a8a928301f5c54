# No value that an owner can set makes a view fail; and the views, and sync(), say in words what
# doesn't count.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sub fails_like
{
	my ($sql, $error, $test) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres', $sql);
	like($stderr, $error, $test);
	return;
}

# What sync() says in a session of its own.
sub sync_says
{
	my ($ret, $stdout, $stderr) = $node->psql('postgres', 'SELECT stream_ckpt.sync()');
	is($ret, 0, 'sync() succeeds');
	return $stderr;
}

my @views = qw(pipelines queries streams tasks checkpoints checkpoint_stats);

sub views_work
{
	my ($test) = @_;
	for my $view (@views)
	{
		my ($ret, $stdout, $stderr) = $node->psql('postgres', "TABLE stream_ckpt.$view");
		is("$ret $stderr", '0 ', "$view: $test");
	}
	return;
}

#
# What doesn't count, in words
#
create_stream_table($node, 't');
create_query($node, 'closed', 't');
wait_running($node);
sql(q(INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 1, 1, 1), ('2024-01-01 00:10 UTC', 1, 1, 1)));
is(sync_says(), '', 'nothing to say');
is(counter($node, 'closed', "concat_ws('|', message, hint)"), '', 'nor in the view');

sql(q(INSERT INTO t VALUES ('2024-01-01 00:00 UTC', 1, 1, 2), ('2024-01-01 00:00 UTC', 1, 1, 2), (NULL, 1, 1, 2)));
my $said = sync_says();
like($said,
	qr/NOTICE:  query "closed": 2 late rows, 1 row without a finite event time were not counted in its last checkpoint with rows\nHINT:  A longer watermark_delay or allowed_lateness counts late rows.*Declare the event-time column NOT NULL/,
	'sync() says what was late, and had no time');
is(counter($node, 'closed', 'message'),
	'2 late rows, 1 row without a finite event time were not counted in the last checkpoint with rows',
	'the view does, too');
like(counter($node, 'closed', 'hint'), qr/^A longer watermark_delay.*NOT NULL/, 'with what to do');
is(counter($node, 'closed', 'status'), 'running', 'the query is well');
my ($ret, $stdout, $stderr) =
  $node->psql('postgres', 'SELECT stream_ckpt.sync(); SELECT stream_ckpt.sync()');
is(scalar(() = $stderr =~ /NOTICE/g), 1, 'a session is told once');

sql(q(INSERT INTO t VALUES ('2024-01-01 00:11 UTC', 1, 1, 3)));
is(sync_says(), '', 'nothing in the next checkpoint');
is(counter($node, 'closed', "concat_ws('|', message, hint)"), '', 'and the view forgets');

sql('BEGIN', 'UPDATE t SET v = 2 WHERE txn = 3', 'DELETE FROM t WHERE txn = 3', 'COMMIT');
like(sync_says(), qr/2 changes by UPDATE, DELETE or TRUNCATE were not counted.*\nHINT:  Results follow UPDATE, DELETE and TRUNCATE of a stream that is attached with changes => 'apply'; alter_stream\(\) switches/,
	'sync() says what was changed');
like(counter($node, 'closed', 'message'), qr/^2 changes by UPDATE/, 'so does the view');
$node->restart;
wait_running($node);
like(counter($node, 'closed', 'message'), qr/^2 changes by UPDATE/, 'also after a restart');
sql('CREATE ROLE nobody LOGIN');
($ret, $stdout, $stderr) =
  $node->psql('postgres', 'SET ROLE nobody; SELECT stream_ckpt.sync()');
is($stderr, '', "others aren't told");

# That a row was updated is said as long as the result isn't made anew; what was deleted only until rows come.
sql(q(INSERT INTO t VALUES ('2024-01-01 00:12 UTC', 1, 1, 4)));
is(sync_says(), '', 'sync() says it once');
is(counter($node, 'closed', 'message'), '1 UPDATE of a row was ignored since the query began: it counts what rows were when they came', 'the first UPDATE stays in the view');
like(counter($node, 'closed', 'hint'), qr/^Results follow UPDATE.*changes => 'apply'/, 'with what to do');
sql('UPDATE t SET v = v + 1');
sync_pipelines($node);
sql(q(INSERT INTO t VALUES ('2024-01-01 00:12 UTC', 1, 1, 5)));
sync_pipelines($node);
like(counter($node, 'closed', 'message'), qr/^\d+ UPDATEs of rows were ignored since/, 'as do all of them');
create_query($node, 'anew', 't', emit => 'update');
sql(q(INSERT INTO t VALUES ('2024-01-01 00:12 UTC', 1, 1, 6)), 'DELETE FROM t WHERE txn = 6');
sync_pipelines($node);
sql(q(INSERT INTO t VALUES ('2024-01-01 00:12 UTC', 1, 1, 7)));
sync_pipelines($node);
is(counter($node, 'anew', 'message'), '', 'a query that began later has no such, nor after a DELETE');
sql(q(SELECT stream_ckpt.drop_query('anew')));

#
# Nothing lags
#
sync_pipelines($node);
wait_until($node, 'SELECT lag_seconds = 0 FROM stream_ckpt.tasks', 'nothing lags');
is(sql(q(SELECT commit_time < clock_timestamp() FROM stream_ckpt.tasks)), 't', 'whenever the last transaction was');
arm($node, 'task_after_rows', 'wait');
sql(q(INSERT INTO t VALUES ('2024-01-01 00:13 UTC', 1, 1, 5)));
wait_reached($node, 'task_after_rows');
is(sql('SELECT lag_seconds > 0 FROM stream_ckpt.tasks'), 't', 'a task that is at work lags');
disarm($node, 'task_after_rows');
wait_until($node, 'SELECT lag_seconds = 0 FROM stream_ckpt.tasks', 'nothing lags again');

#
# Values at the ends of what there is
#
sql('CREATE TABLE far (ts timestamptz, k int, v int)', 'CREATE TABLE plain (ts timestamp, k int, v int)');
fails_like(q(SELECT stream_ckpt.attach_stream('far', event_time => 'ts', watermark_delay => '100000000 days')),
	qr/ERROR:  parameter "watermark_delay" must not be longer than 1000000 days/, 'a delay too long');
fails_like(q(SELECT stream_ckpt.attach_stream('far', event_time => 'ts', idle_timeout => '100000000 days')),
	qr/ERROR:  parameter "idle_timeout" must not be longer than 1000000 days/, 'a time-out too long');
fails_like(q(SELECT stream_ckpt.create_stream('log', 'ts timestamptz', event_time => 'ts', watermark_delay => '100000000 days')),
	qr/ERROR:  parameter "watermark_delay" must not be longer/, 'for a log stream');
fails_like(q(CREATE FOREIGN TABLE log (ts timestamptz) SERVER stream_ckpt OPTIONS (event_time 'ts', watermark_delay '100000000 days')),
	qr/ERROR:  option "watermark_delay" must not be longer than 1000000 days/, 'in its options');
fails_like(q(SELECT stream_ckpt.create_query('q', 'SELECT window_start, count(*) FROM t, stream_ckpt.tumble(ts, ''1 minute'') GROUP BY 1', allowed_lateness => '100000000 days')),
	qr/ERROR:  parameter "allowed_lateness" must not be longer/, 'a lateness too long');

attach($node, 'plain', delay => '1000000 days');
sql(q(SELECT stream_ckpt.attach_stream('far', event_time => 'ts', watermark_delay => '1000000 days', idle_timeout => '100 ms')));
for my $table (qw(far plain))
{
	create_query($node, "of_$table", $table, emit => 'update');
	sql("INSERT INTO $table VALUES ('4713-01-02 00:00 BC', 1, 1)");
}
sync_pipelines($node);
views_work('before all times');
is(counter($node, 'of_far', 'watermark'), '-infinity', 'a watermark before all times');
is(sql(q(SELECT watermark FROM stream_ckpt.tasks)), '', 'a task has none then');

# a value that an older version took
sql(q(UPDATE stream_ckpt.stream SET watermark_delay = '100000000 days'), q(UPDATE stream_ckpt.checkpoint_offset SET watermark_delay = '100000000 days'));
my $task = pid_of($node, 'task');
sql("SELECT pg_terminate_backend($task)");
wait_restarted($node, 'task', $task);
views_work('a delay of an older version');
sql(q(UPDATE stream_ckpt.stream SET watermark_delay = '0'), q(UPDATE stream_ckpt.checkpoint_offset SET watermark_delay = '0'));
$task = pid_of($node, 'task');
sql("SELECT pg_terminate_backend($task)");
wait_restarted($node, 'task', $task);

sql("INSERT INTO $_ VALUES ('294276-12-31 23:58:59.9', 1, 1), ('infinity', 1, 1), ('-infinity', 1, 1)") for qw(far plain);
sync_pipelines($node);
views_work('the last of all times');

#
# Relations that are gone, without our knowing
#
sql('SET session_replication_role = replica', 'ALTER EVENT TRIGGER stream_ckpt_on_drop DISABLE',
	'DROP TABLE of_plain CASCADE', 'DROP TABLE plain CASCADE', 'ALTER EVENT TRIGGER stream_ckpt_on_drop ENABLE');
views_work('relations that are gone');

$node->stop;
done_testing();
