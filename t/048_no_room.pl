# What one query's data can break outside of its own code concerns it alone: its part of a checkpoint finds no
# room in a temporary file, or a result row is too large to be sent.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.checkpoint_memory = 1MB\ntemp_file_limit = 500kB\n",
	# 50,000 groups, each in a step of its own, would take minutes; with 4 kB every query gives way after each message, and
	# has a result row for each row then: all of their parts are large
	draw => { memory => [ 0, 40 ], step => [ 0, 30 ] });
create_stream_table($node, 't');
create_query($node, 'good', 't', emit => 'update');
create_query($node, 'small', 't', emit => 'close');
wait_running($node);
sync_pipelines($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $begin = 0;

sub create
{
	my ($name, $aggregates, $key) = @_;

	$begin = sql('SELECT count(*) FROM t');
	create_query($node, $name, 't', emit => 'update',
		select => "SELECT w.window_start, w.window_end, $key AS key, $aggregates FROM t, stream_ckpt.tumble(ts, '1 minute') w
			GROUP BY w.window_start, w.window_end, $key");
	return;
}

my $n = 0;

# One transaction of rows.
sub rows
{
	my ($count) = @_;

	sql("INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + ($n + i) * interval '1 ms', i % 3, $n + i, $n + i
		FROM generate_series(1, $count) i");
	$n += $count;
	return;
}

sub status_is
{
	my ($query, $status) = @_;
	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$query'::regclass",
		"$query is $status");
}

sub others_go_on
{
	my ($what) = @_;

	rows(10);
	my ($ret) = try_psql($node, "SELECT stream_ckpt.sync('180 seconds')");
	is($ret, 0, "sync() returns: $what");
	results_ok($node, 'good', "the others go on: $what", emit => 'update', synced => 1);
	results_ok($node, 'small', "those with emit close, too: $what", table => 't', synced => 1);
	return;
}

sub exact
{
	my ($query, $what) = @_;

	results_ok($node, $query, "exact: $what", emit => 'update',
		truth => sql("SELECT pg_get_viewdef('${query}_definition')") =~ s/;\s*$//r =~ s/\bFROM t\b/FROM (SELECT * FROM t WHERE txn > $begin) t/r);
	return;
}

# More result rows and state than the coordinator may keep in memory and on disk.  Another query's part comes
# last, when there is no room, and is none the worse for it.
create('big', 'count(*) AS n, sum(v) AS s', 'v');
create_query($node, 'late_comer', 't', emit => 'update');
rows(50000);
wait_until($node, "SELECT failures > 0 FROM stream_ckpt.queries WHERE query = 'big'::regclass", 'big finds no room');
like(counter($node, 'big', "concat_ws('|', status, sqlstate, message, hint)"),
	qr/^\w+\|53400\|temporary file size exceeds.*\|.*increase "temp_file_limit" or "stream_ckpt.(checkpoint|task)_memory"/, 'it says so');
is(counter($node, 'late_comer', 'coalesce(failures, 0)'), '0', 'the other query has not failed');
others_go_on('one without room');
is(counter($node, 'late_comer', 'rows_in'), counter($node, 'big', '0') + 50010, 'and has all rows');
$node->append_conf('postgresql.conf', 'temp_file_limit = -1');
$node->reload;
wait_until($node, "SELECT current_setting('temp_file_limit') = '-1'", 'the setting is there');
sql(q(SELECT stream_ckpt.resume_query('big')));
status_is('big', 'running');
exact('big', 'there is room again');
others_go_on('there is room again');
sql(q(SELECT stream_ckpt.drop_query('big'), stream_ckpt.drop_query('late_comer')));

# A result row that is too large: in its final value, or in what a barrier sends.
$node->append_conf('postgresql.conf', 'stream_ckpt.debug_result_row_bytes = 100000');
$node->reload;
wait_until($node, "SELECT current_setting('stream_ckpt.debug_result_row_bytes') = '100000'", 'the setting is there');
create('long_rows', q(string_agg(repeat('x', 1000) || v, ',' ORDER BY v) AS all_of_them), 'k');
rows(90);
exact('long_rows', 'rows that are messages of their own');
my $attempt = sql('SELECT attempt FROM stream_ckpt.pipelines');
rows(900);
status_is('long_rows', 'failed');
like(counter($node, 'long_rows', "concat_ws('|', sqlstate, message, detail, hint)"),
	qr/^54000\|a result row of the query is too large\|It takes \d+ bytes, and can have up to 100000.\|Have smaller windows/, 'it says so');
others_go_on('a result row that is too large');
# what fails in one of several tasks ends the attempt, as the others go on with it
is(sql('SELECT attempt FROM stream_ckpt.pipelines'), $attempt, 'no restart for that') if drawn($node)->{tasks} == 1;
$node->append_conf('postgresql.conf', 'stream_ckpt.debug_result_row_bytes = 100000000');
$node->reload;
wait_until($node, "SELECT current_setting('stream_ckpt.debug_result_row_bytes') = '100000000'", 'the setting is there');
sql(q(SELECT stream_ckpt.resume_query('long_rows')));
exact('long_rows', 'it fits again');
others_go_on('it fits again');

$node->stop;
done_testing();
