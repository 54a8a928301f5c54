# pg_dump and restore: definitions and watermarks come along, state and slot don't; the restored
# database's queries stand at a clear status, and both ways out work.  Windows that had rows at the
# dump are never changed.

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
		  . 'Create the queries again, or call stream_ckpt.start_pipeline(name, accept_gap => true) to go on without the rows between.',
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
			FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k \$\$, emit => '$_->[1]')))
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

$node->stop;
done_testing();
