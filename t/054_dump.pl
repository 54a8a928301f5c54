# pg_dump and restore: definitions and watermarks come along, state and slot don't; the restored
# database's queries stand at a clear status, and both ways out work.  Windows that had rows at the
# dump are never changed, those behind the greatest event time included; a definition that can't be
# compiled any more is its own query's failure.

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
create_query($node, 'closed', 't');
create_query($node, 'live', 't', emit => 'update');
$node->safe_psql('postgres',
	q(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '10 seconds', i % 3, i, 0 FROM generate_series(0, 359) i)
);
results_ok($node, 'closed', 'before', table => 't');

my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->run_log([ 'pg_dump', '-f', $file, '-d', $node->connstr('postgres') ]);

my $results = q(SELECT md5(string_agg(r::text, E'\\n' ORDER BY r::text)) FROM (TABLE closed UNION ALL TABLE live) r);
my $before = $node->safe_psql('postgres', $results);
my $watermarks = q(SELECT string_agg(concat_ws(' ', query, watermark, rows_in), ', ' ORDER BY query::text) FROM stream_ckpt.queries);
my $watermarks_before = $node->safe_psql('postgres', $watermarks);

# Rows for windows that had some: one that was complete, and the last one, which was open.
sub late_rows_change_nothing
{
	my ($database, $test) = @_;
	my $late = $node->safe_psql($database, 'SELECT sum(late_rows) FROM stream_ckpt.queries');

	$node->safe_psql($database, q(INSERT INTO t VALUES ('2024-01-01 00:10:01 UTC', 1, 1000, 2), ('2024-01-01 00:59:59 UTC', 1, 1000, 2)));
	sync_pipelines($node, $database);
	is($node->safe_psql($database, q(SELECT string_agg(status || coalesce(' ' || sqlstate, ''), ', ') FROM stream_ckpt.queries)),
		'running, running', "$test: the queries are well");
	is($node->safe_psql($database, $results), $before, "$test: windows of the dump are as they were");
	is($node->safe_psql($database, 'SELECT sum(late_rows) FROM stream_ckpt.queries'), $late + 4, "$test: their rows are late");
	return;
}

for my $way (qw(accept_gap create_again))
{
	$node->safe_psql('postgres', "CREATE DATABASE $way");
	$node->command_ok(
		[ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $file, '-d', $node->connstr($way) ],
		"$way: the dump is restored");
	is( $node->safe_psql(
			$way,
			'SELECT status, message, hint FROM stream_ckpt.pipelines'),
		"lost|the pipeline's replication slot does not exist|"
		  . 'Call stream_ckpt.rebuild_pipeline(name) to make the results of queries over tables anew, or stream_ckpt.start_pipeline(name, accept_gap => true) to go on without the rows between.',
		"$way: status, message, hint");
	is( $node->safe_psql(
			$way,
			'SELECT count(*), (SELECT count(*) FROM closed), (SELECT count(*) FROM t) FROM stream_ckpt.queries'
		),
		'2|177|360',
		"$way: definitions, results and rows are there");
	is($node->safe_psql($way, $watermarks), $watermarks_before, "$way: watermarks and counters, too");
	my ($ret, $stdout, $stderr) =
	  $node->psql($way, q(SELECT stream_ckpt.sync('30 seconds')));
	like(
		$stderr,
		qr/pipeline "default" is lost.*accept_gap => true/s,
		"$way: sync() says why");

	# other streams make no slot, with which the queries would go on as if nothing were missing
	$node->safe_psql($way, q(CREATE TABLE more (ts timestamptz); SELECT stream_ckpt.attach_stream('more', event_time => 'ts');
		SELECT stream_ckpt.create_stream('more_log', 'ts timestamptz', event_time => 'ts')));
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots WHERE database = '$way'"), '0', "$way: no slot for other streams");

	if ($way eq 'accept_gap')
	{
		$node->safe_psql($way,
			q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
	}
	else
	{
		$node->safe_psql($way, "SELECT stream_ckpt.drop_query('$_')") for qw(closed live);
		$node->safe_psql($way, 'TRUNCATE t');
		$node->safe_psql(
			$way, qq(SELECT stream_ckpt.create_query('$_->[0]', \$\$
			SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest
			FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k \$\$, emit => '$_->[1]', backfill => false)))
		  for ([ 'closed', 'close' ], [ 'live', 'update' ]);
	}
	wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.pipelines),
		"$way: running", $way);
	late_rows_change_nothing($way, $way) if $way eq 'accept_gap';
	$node->safe_psql($way,
		q(INSERT INTO t SELECT timestamptz '2024-01-02 00:00 UTC' + i * interval '10 seconds', i % 3, i, 1 FROM generate_series(0, 359) i)
	);
	sync_pipelines($node, $way);
	for my $query (qw(closed live))
	{
		my $closed = $query eq 'closed' ? 'AND window_end <= (SELECT max(ts) FROM t)' : '';
		is( $node->safe_psql(
				$way, qq(
				SELECT count(*) FROM (
					(SELECT * FROM $query WHERE window_start >= '2024-01-02 00:00 UTC' EXCEPT ALL SELECT * FROM ${query}_definition)
					UNION ALL
					(SELECT * FROM ${query}_definition WHERE window_start >= '2024-01-02 00:00 UTC' $closed
					 EXCEPT ALL SELECT * FROM $query)) d)),
			'0',
			"$way: $query is exact from here on");
	}
	($ret, $stdout, $stderr) =
	  $node->psql($way, q(SELECT stream_ckpt.verify('closed')));
	if ($way eq 'accept_gap')
	{
		isnt($ret, 0, "$way: verify() knows that rows are missing");
	}
	else
	{
		is($stdout, '0', "$way: verified");
	}
}
is( $node->safe_psql('postgres', q(SELECT stream_ckpt.verify('closed'))),
	'0', 'the original goes on');

# A restored query can be dropped like any other, by its table too.
$node->safe_psql('accept_gap', 'DROP TABLE closed CASCADE');
is( $node->safe_psql(
		'accept_gap',
		q(SELECT count(*), to_regclass('closed_definition') IS NULL FROM stream_ckpt.queries)),
	'1|t',
	'DROP TABLE of a restored result');

# Into the same database, in place of what is there.
my $clean = PostgreSQL::Test::Utils::tempdir() . '/clean.sql';
$node->run_log([ 'pg_dump', '--clean', '-f', $clean, '-d', $node->connstr('postgres') ]);
$node->safe_psql('postgres', q(INSERT INTO t VALUES ('2024-01-01 02:00 UTC', 1, 1, 0)));
sync_pipelines($node);
$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $clean, '-d', $node->connstr('postgres') ], 'restored into the same database');
is($node->safe_psql('postgres', 'SELECT status, message FROM stream_ckpt.pipelines'),
	"lost|the pipeline's replication slot does not exist", 'it is lost there, at once');
wait_until($node, q(SELECT status = 'lost' FROM stream_ckpt.pipelines), 'it stays lost');
my ($ret, $stdout, $stderr) = $node->psql('postgres', q(SELECT stream_ckpt.sync('30 seconds')));
like($stderr, qr/pipeline "default" is lost/, 'sync() says so');
$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
wait_running($node);
late_rows_change_nothing('postgres', 'the same database');

# Beside a slot that is there, of another position or the same.
$node->safe_psql('postgres', 'CREATE DATABASE beside');
$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $file, '-d', $node->connstr('beside') ], 'restored once more');
is($node->safe_psql('beside', q(SELECT count(*) || ' ' || bool_and(lsn = '0/1' AND apart) FROM stream_ckpt.checkpoint_offset)),
	'2 true', 'a restored query is behind any slot');

# A result that was kept.
$node->safe_psql('postgres', q(SELECT stream_ckpt.drop_query('closed', keep_result => true)));
($ret, $stdout, $stderr) = $node->psql('postgres', q(SELECT stream_ckpt.create_query('closed', 'SELECT w.window_start, count(*) AS n
	FROM t, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start')));
like($stderr, qr/relation "closed" already exists.*rename or drop that relation: drop_query\(\.\.\., keep_result => true\)/s, 'its name is taken: what to do');

#
# Windows behind the greatest event time: of rows beyond max_ahead ("a"), of nothing but such rows ("o"), of rows that
# came before a reset ("r"), and more of them than are told apart ("m")
#
$node->safe_psql('postgres', 'CREATE DATABASE ahead');
$node->safe_psql('ahead', q(CREATE EXTENSION stream_ckpt;
	SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '100 ms');
	CREATE FUNCTION one() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'));
for my $stream (qw(a o r m))
{
	$node->safe_psql('ahead', "CREATE TABLE $stream (ts timestamptz)");
	my $max_ahead = $stream eq 'r' ? 'NULL' : q('1 day');
	$node->safe_psql('ahead', "SELECT stream_ckpt.attach_stream('$stream', event_time => 'ts', max_ahead => $max_ahead)");
	for my $query ("${stream}_close", "${stream}_update", $stream eq 'a' ? 'broken_update' : ())
	{
		my $where = $query =~ /broken/ ? 'WHERE public.one() = 1' : '';
		my $emit = $query =~ s/.*_//r;
		$node->safe_psql('ahead', qq(SELECT stream_ckpt.create_query('$query', \$\$SELECT w.window_start, w.window_end, count(*) AS n
			FROM $stream, stream_ckpt.tumble(ts, '1 minute') w $where GROUP BY w.window_start, w.window_end\$\$, emit => '$emit', backfill => false)));
	}
}

# Rows at times of day: of 2024, or with another year before them
sub put
{
	my ($database, $stream, @times) = @_;
	$node->safe_psql($database, "INSERT INTO $stream VALUES " . join(', ', map { "('" . (/-/ ? $_ : "2024-01-01 $_") . " UTC')" } @times));
	return;
}

sub result
{
	my ($database, $query, $condition) = @_;
	$node->safe_psql($database, 'SELECT stream_ckpt.sync()');
	return $node->safe_psql($database, "SET timezone = 'UTC'; SELECT coalesce(string_agg(to_char(window_start, 'YY HH24:MI=') || n, ', ' ORDER BY window_start), '')
		FROM $query WHERE " . ($condition // 'true'));
}

my @many = map { sprintf('2124-01-01 %02d:%02d', int($_ / 6), $_ % 6 * 10) } 0 .. 39;
put('ahead', 'a', '00:00', '00:02', '2124-01-01 00:00', '2124-01-01 00:05');
put('ahead', 'o', '2124-01-01 00:00');
put('ahead', 'm', '00:00', @many);
put('ahead', 'r', '00:00', '2124-01-01');
put('ahead', 'r', '2125-01-01', '2125-01-01 00:05');
$node->safe_psql('ahead', q(SELECT stream_ckpt.reset_watermark('r')));
put('ahead', 'r', '00:02');
is(result('ahead', 'a_close'), '24 00:00=1', 'emit close: what is ahead has no result yet');
is(result('ahead', 'a_update'), '24 00:00=1, 24 00:02=1, 24 00:00=1, 24 00:05=1', 'emit update: it has');
is(result('ahead', 'r_close'), '24 00:00=1, 24 00:00=1, 25 00:00=1', 'windows that wrong rows closed');

my $ahead = PostgreSQL::Test::Utils::tempdir() . '/ahead.sql';
$node->run_log([ 'pg_dump', '-f', $ahead, '-d', $node->connstr('ahead') ]);
$node->safe_psql('postgres', 'CREATE DATABASE ahead_copy');
$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $ahead, '-d', $node->connstr('ahead_copy') ], 'windows ahead are restored');
$node->safe_psql('ahead_copy', q(CREATE OR REPLACE FUNCTION one() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1 / 0; END'));
($ret, $stdout, $stderr) = $node->psql('ahead_copy', q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
is($ret, 0, 'the gap is accepted, whatever has become of a definition');
wait_until($node, q(SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'broken_update'::regclass), 'that query fails', 'ahead_copy');
is($node->safe_psql('ahead_copy', q(SELECT sqlstate, message, hint FROM stream_ckpt.queries WHERE query = 'broken_update'::regclass)),
	'22012|division by zero|The query could not be loaded. Mend what its definition is made of and call stream_ckpt.resume_query(query); or drop it and create it again.',
	'its error, and what to do');
is($node->safe_psql('ahead_copy', q(SELECT string_agg(DISTINCT status, ', ') FROM stream_ckpt.queries WHERE query <> 'broken_update'::regclass)),
	'running', 'the others run');

# two rows for each window that had one, and one for others
put('ahead_copy', 'a', '00:03', '2124-01-01 00:03', ('00:02:30', '2124-01-01 00:00:30', '2124-01-01 00:05:30') x 2);
put('ahead_copy', 'o', '00:02', '2124-01-01 00:01', ('2124-01-01 00:00:30') x 2);
put('ahead_copy', 'r', '00:03', '2125-01-01 00:03', ('00:02:30', '2124-01-01 00:00:30', '2125-01-01 00:00:30', '2125-01-01 00:05:30') x 2);
put('ahead_copy', 'm', '2124-01-01 12:00', (map { "$_:30" } @many) x 2);
$node->safe_psql('ahead_copy', q(CREATE OR REPLACE FUNCTION one() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
	SELECT stream_ckpt.resume_query('broken_update')));
for my $query (qw(a_update broken_update))
{
	is(result('ahead_copy', $query), '24 00:00=1, 24 00:02=1, 24 00:03=1, 24 00:00=1, 24 00:03=1, 24 00:05=1', "$query: what had rows is as it was");
	is($node->safe_psql('ahead_copy', "SELECT late_rows FROM stream_ckpt.queries WHERE query = '$query'::regclass"), '6', "$query: its rows are late");
}
is(result('ahead_copy', 'o_update'), '24 00:02=1, 24 00:00=1, 24 00:01=1', 'o_update: also if there was no other row');
is(result('ahead_copy', 'r_update'), '24 00:00=1, 24 00:02=1, 24 00:03=1, 24 00:00=1, 25 00:00=1, 25 00:03=1, 25 00:05=1', 'r_update: after a reset');
is($node->safe_psql('ahead_copy', q(SELECT count(*), sum(n), (SELECT late_rows FROM stream_ckpt.queries WHERE query = 'm_update'::regclass) FROM m_update)),
	'42|42|80', 'm_update: however many');

# emit close: a part of their rows never appears
put('ahead_copy', $_, '00:10') for qw(a o r m);
$node->safe_psql('ahead_copy', join ';', map { "SELECT stream_ckpt.reset_watermark('$_', '2130-01-01 UTC')" } qw(a o r m));
is(result('ahead_copy', 'a_close', q(window_start > '2030-01-01')), '24 00:03=1', 'a_close: windows that had rows are over without a result');
is(result('ahead_copy', 'o_close', q(window_start > '2030-01-01')), '24 00:01=1', 'o_close');
is(result('ahead_copy', 'r_close', q(window_start > '2030-01-01')), '24 00:00=1, 25 00:00=1, 25 00:03=1', 'r_close');
is(result('ahead_copy', 'm_close', q(window_start > '2030-01-01')), '24 12:00=1', 'm_close');

# Without a window nothing is over: without its state such a query is lost, until it is rebuilt, or somebody wants it to begin
# anew over the rows that its result has.
$node->safe_psql('postgres', 'CREATE DATABASE forever');
$node->safe_psql('postgres', 'CREATE DATABASE forever_copy');
$node->safe_psql('forever', q(CREATE EXTENSION stream_ckpt; CREATE TABLE f (ts timestamptz, k int);
	SELECT stream_ckpt.attach_stream('f', event_time => 'ts');
	SELECT stream_ckpt.create_query('by_key', 'SELECT k, count(*) AS n FROM f GROUP BY k');
	SELECT stream_ckpt.create_query('total', 'SELECT count(*) AS n FROM f');
	SELECT stream_ckpt.create_query('rebuilt', 'SELECT k, count(*) AS n FROM f GROUP BY k');
	INSERT INTO f SELECT '2024-01-01 UTC', i % 3 FROM generate_series(1, 30) i; SELECT stream_ckpt.sync()));
my $forever = PostgreSQL::Test::Utils::tempdir() . '/forever.sql';
$node->run_log([ 'pg_dump', '-f', $forever, '-d', $node->connstr('forever') ]);
$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $forever, '-d', $node->connstr('forever_copy') ], 'without a window: restored');
$node->safe_psql('forever_copy', q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.pipelines), 'without a window: running', 'forever_copy');
is($node->safe_psql('forever_copy', 'SELECT DISTINCT status, message, detail FROM stream_ckpt.queries'),
	'lost|the query has no windows, and its state cannot be used|The dump was made without state.', 'without a window: lost');
$node->safe_psql('forever_copy', q(INSERT INTO f VALUES ('2024-01-01 UTC', 1)));
is($node->safe_psql('forever_copy', 'SELECT n, (SELECT sum(n) FROM by_key) FROM total'), '30|30', 'without a window: results stay as they are');
$node->safe_psql('forever_copy', q(SET client_min_messages = warning; SELECT stream_ckpt.rebuild_query('rebuilt');
	SELECT stream_ckpt.resume_query(q, accept_gap => true) FROM unnest('{by_key,total}'::regclass[]) q));
sync_pipelines($node, 'forever_copy');
is($node->safe_psql('forever_copy', 'SELECT n FROM total'), '0', 'without a window: the one row is overwritten at once');
$node->safe_psql('forever_copy', q(INSERT INTO f VALUES ('2024-01-01 UTC', 1), ('1999-01-01 UTC', 1), (NULL, 7)));
sync_pipelines($node, 'forever_copy');
is($node->safe_psql('forever_copy', q(SELECT string_agg(k || '=' || n, ' ' ORDER BY k) FROM by_key)), '0=10 1=2 2=10 7=1',
	'without a window: groups with new rows begin anew');
is($node->safe_psql('forever_copy', 'SELECT n FROM total'), '3', 'without a window: and so does the total');
is($node->safe_psql('forever_copy', q(SELECT string_agg(k || '=' || n, ' ' ORDER BY k) FROM rebuilt)), '0=10 1=13 2=10 7=1',
	'without a window: one that is rebuilt is exact');

$node->stop;
done_testing();
