# Copies of a database with a query on a log stream, whose rows are in the WAL only: a base backup,
# a promoted standby, a dump.  Each stands at "lost", and both ways out work.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "max_slot_wal_keep_size = -1\n");
$node->append_conf('pg_hba.conf', "local replication all trust\n");
$node->reload;

my $columns = 'ts timestamptz, k int, v int';
my $query = q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total
	FROM STREAM, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k);
my $hours = 0;

sub create_queries
{
	my ($where, $database) = @_;

	foreach my $emit (qw(close update))
	{
		$where->safe_psql($database, "SELECT stream_ckpt.create_query('$emit', \$q\$ " . ($query =~ s/STREAM/s/r) . " \$q\$, emit => '$emit')");
	}
	return;
}

# An hour of rows into the log stream and into a table beside it.
sub hour
{
	my ($where, $database) = @_;

	$where->safe_psql($database, qq(WITH new AS (INSERT INTO s SELECT timestamptz '2024-01-01 00:00 UTC' + $hours * interval '1 hour'
		+ i * interval '10 seconds', i % 3, i FROM generate_series(0, 359) i RETURNING *) INSERT INTO s_rows SELECT * FROM new));
	$hours++;
	return;
}

# The results from an hour on are those of the rows beside the stream.
sub exact
{
	my ($where, $database, $from, $test) = @_;
	my $range = "window_start >= timestamptz '2024-01-01 00:00 UTC' + $from * interval '1 hour'";
	my $truth = $query =~ s/STREAM/s_rows/r;

	sync_pipelines($where, $database);
	foreach my $emit (qw(close update))
	{
		my $closed = $emit eq 'close' ? 'AND window_end <= (SELECT max(ts) FROM s_rows)' : '';

		is($where->safe_psql($database, qq(
				WITH d AS MATERIALIZED ($truth), truth AS (SELECT * FROM d WHERE $range $closed), result AS (SELECT * FROM "$emit" WHERE $range)
				SELECT (SELECT count(*) FROM ((TABLE truth EXCEPT ALL TABLE result) UNION ALL (TABLE result EXCEPT ALL TABLE truth)) x)
					|| ' ' || ((SELECT count(*) FROM result) > 0))),
			'0 true', "$test: emit $emit is exact");
	}
	return;
}

sub stands_lost
{
	my ($where, $database, $test) = @_;

	wait_until($where, q(SELECT status = 'lost' FROM stream_ckpt.pipelines), "$test: lost", $database);
	is($where->safe_psql($database, 'SELECT message, hint FROM stream_ckpt.pipelines'),
		q(the pipeline's replication slot does not exist|Call stream_ckpt.rebuild_pipeline(name) to make the results of queries over tables anew, or stream_ckpt.start_pipeline(name, accept_gap => true) to go on without the rows between.),
		"$test: why, and what to do");
	my ($ret, $stdout, $stderr) = $where->psql($database, q(SELECT stream_ckpt.sync('30 seconds')));
	like($stderr, qr/pipeline "default" is lost.*accept_gap => true/s, "$test: sync() says so, too");
	($ret, $stdout, $stderr) = $where->psql($database,
		q(BEGIN; INSERT INTO s (ts) VALUES ('2024-01-01'); INSERT INTO s (ts) VALUES ('2024-01-01'); ROLLBACK));
	is($stderr,
		qq(psql:<stdin>:1: NOTICE:  rows of stream "s" will not be counted: pipeline "default" is lost\n)
		  . 'HINT:  See stream_ckpt.pipelines for the reason and the way out.',
		"$test: so does INSERT, once");
	return;
}

# Out of it by either way; exact from the next hour on.
sub way_out
{
	my ($where, $database, $way, $test) = @_;

	if ($way eq 'accept_gap')
	{
		$where->safe_psql($database, q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
	}
	else
	{
		$where->safe_psql($database, "SELECT stream_ckpt.drop_query('$_')") foreach qw(close update);
		create_queries($where, $database);
	}
	wait_until($where, q(SELECT status = 'running' FROM stream_ckpt.pipelines), "$test: running", $database);
	hour($where, $database);    # its first window may belong to what is missing
	my $from = $hours;
	hour($where, $database);
	hour($where, $database);
	exact($where, $database, $from, "$test, $way");
	return;
}

$node->safe_psql('postgres', "SELECT stream_ckpt.create_stream('s', '$columns', event_time => 'ts'); CREATE TABLE s_rows ($columns)");
create_queries($node, 'postgres');
wait_running($node);
hour($node, 'postgres');
exact($node, 'postgres', 0, 'before');
my (undef, undef, $said) =
  $node->psql('postgres', q(BEGIN; INSERT INTO s (ts) VALUES ('2024-01-01'); ROLLBACK));
is($said, '', 'INSERT has nothing to say of a pipeline that runs');

$node->backup('base');
hour($node, 'postgres');
exact($node, 'postgres', 0, 'after the backup');

foreach my $way (qw(accept_gap create_again))
{
	my $clone = PostgreSQL::Test::Cluster->new("clone_$way");

	$clone->init_from_backup($node, 'base');
	$clone->start;
	stands_lost($clone, 'postgres', "clone, $way");
	way_out($clone, 'postgres', $way, 'clone');
	$clone->stop;
}

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
hour($node, 'postgres');
sync_pipelines($node);
$node->wait_for_catchup($standby);
my ($ret, $stdout, $stderr) = $standby->psql('postgres', q(INSERT INTO s VALUES ('2024-01-01', 1, 1)));
like($stderr, qr/cannot execute INSERT in a read-only transaction/, 'a standby takes no rows');
$standby->promote;
stands_lost($standby, 'postgres', 'promoted');
way_out($standby, 'postgres', 'accept_gap', 'promoted');
$standby->stop;
hour($node, 'postgres');
exact($node, 'postgres', 0, 'the primary has seen nothing of it');

my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->run_log([ 'pg_dump', '-f', $file, '-d', $node->connstr('postgres') ]);
foreach my $way (qw(accept_gap create_again))
{
	$node->safe_psql('postgres', "CREATE DATABASE $way");
	$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $file, '-d', $node->connstr($way) ], "$way: the dump is restored");
	stands_lost($node, $way, "restored, $way");
	is($node->safe_psql($way, q(SELECT count(*), (SELECT count(*) FROM "update") = (SELECT count(DISTINCT (date_trunc('minute', ts), k)) FROM s_rows),
		(SELECT string_agg(is_log::text || event_time, ' ') FROM (SELECT kind = 'log' AS is_log, event_time FROM stream_ckpt.streams) x) FROM stream_ckpt.queries)),
		'2|t|truets', "restored, $way: stream, queries and results are there");
	way_out($node, $way, $way, 'restored');
}

$node->stop;
done_testing();
