# Several databases at once, and what is done to a database with everything running: used as a
# template, renamed, moved, dropped.

use strict;
use warnings;

use File::Spec;
use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.max_pipelines = 8\n");

my $definition = q(
	SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k);

# Table, stream, query in a database that has the extension.
sub define_in
{
	my ($db) = @_;

	$node->safe_psql($db, 'CREATE TABLE t (ts timestamptz, k int, v int)');
	$node->safe_psql($db,
		q(SELECT stream_ckpt.attach_stream('t', event_time => 'ts')));
	$node->safe_psql($db,
		"SELECT stream_ckpt.create_query('closed', \$\$ $definition \$\$, backfill => false)");
	return;
}

sub insert_hour_into
{
	my ($db, $hour) = @_;
	$node->safe_psql($db,
		qq(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $hour * interval '1 hour' + i * interval '10 seconds', i % 3, i
			FROM generate_series(0, 359) i));
	return;
}

sub status_of
{
	my ($db) = @_;
	return $node->safe_psql($db,
		'SELECT status, message FROM stream_ckpt.pipelines');
}

sub wait_status_in
{
	my ($db, $status) = @_;
	return wait_until($node,
		"SELECT status = '$status' FROM stream_ckpt.pipelines",
		"$db is $status", $db);
}

# Everything that the table has is in the result.
sub exact_in
{
	my ($db, $test) = @_;

	sync_pipelines($node, $db);
	is($node->safe_psql($db, q(SELECT stream_ckpt.verify('closed'))),
		'0', "$test: verified");
	return;
}

# template1 with the extension: new databases have it, and nothing runs in it.
$node->safe_psql('template1', 'CREATE EXTENSION stream_ckpt');
$node->safe_psql('postgres', "CREATE DATABASE $_") for qw(one two);
like(status_of($_), qr/^idle/, "nothing to do in $_") for qw(one two);
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'),
	'0', 'no slot yet');

# Two at once: each has its own rows, slot, workers.
define_in($_) for qw(one two);
insert_hour_into('one', 0);
insert_hour_into('two', $_) for 0, 1;
exact_in($_, "both at once, $_") for qw(one two);
is( $node->safe_psql(
		'postgres',
		q(SELECT count(*), count(DISTINCT database), bool_and(active) FROM pg_replication_slots)
	),
	'2|2|t',
	'a slot for each');
is( join(' ', map { $node->safe_psql($_, 'SELECT rows_in FROM stream_ckpt.queries') } qw(one two)),
	'360 720', 'each has its own rows');

# A database with a running pipeline as a template; its last window is open.
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE one');
is( status_of('copy'),
	"lost|the pipeline's checkpoints come from another server or database, or another version",
	'the copy has definitions and state, and is lost');
like(
	$node->safe_psql('copy', 'SELECT hint FROM stream_ckpt.pipelines'),
	qr/accept_gap => true/,
	'with the way out');
my ($ret, $stdout, $stderr) = $node->psql('copy', q(SELECT stream_ckpt.sync('1 second')));
isnt($ret, 0, 'sync() of the copy is an error');
like($stderr, qr/lost.*accept_gap => true/s, 'which says why');
insert_hour_into('one', 1);
exact_in('one', 'the original goes on');

insert_hour_into('copy', 1);    # in the gap
$node->safe_psql('copy',
	q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
wait_status_in('copy', 'running');
insert_hour_into('copy', $_) for 2, 3;
sync_pipelines($node, 'copy');
is( $node->safe_psql(
		'copy', q(
		SELECT count(*) FROM (
			(SELECT * FROM closed WHERE window_start >= '2024-01-01 02:00 UTC' EXCEPT ALL SELECT * FROM closed_definition)
			UNION ALL
			(SELECT * FROM closed_definition WHERE window_start >= '2024-01-01 02:00 UTC' AND window_end <= (SELECT max(ts) FROM t)
			 EXCEPT ALL SELECT * FROM closed)) d)),
	'0',
	'the copy is exact after the gap');
is( $node->safe_psql('copy',
		q(SELECT count(*) FROM closed WHERE window_start >= '2024-01-01 01:00 UTC' AND window_start < '2024-01-01 02:00 UTC')),
	'0',
	'the gap is a gap');
($ret, $stdout, $stderr) =
  $node->psql('copy', q(SELECT stream_ckpt.verify('closed')));
like($stderr, qr/batch truth of "closed" cannot be had/, 'and verify() knows');
insert_hour_into('one', 2);
exact_in('one', 'the original is not touched');

# The other way out: the query made again.
$node->safe_psql('postgres', 'CREATE DATABASE again TEMPLATE one');
$node->safe_psql('again', q(SELECT stream_ckpt.drop_query('closed')));
$node->safe_psql('again', 'TRUNCATE t');
$node->safe_psql('again',
	"SELECT stream_ckpt.create_query('closed', \$\$ $definition \$\$, backfill => false)");
wait_status_in('again', 'running');
insert_hour_into('again', 5);
exact_in('again', 'a query made again in the copy');

# template1 itself with a running pipeline is still a template.
define_in('template1');
insert_hour_into('template1', 0);
exact_in('template1', 'template1');
$node->safe_psql('postgres', 'CREATE DATABASE of_template1');
like(status_of('of_template1'), qr/^lost/, 'a copy of template1');
insert_hour_into('template1', 1);
exact_in('template1', 'template1 goes on');
$node->safe_psql('postgres', 'DROP DATABASE of_template1');

# The database that one is connected to is a template, too.
$node->safe_psql('template1', 'CREATE DATABASE from_inside');
like(status_of('from_inside'), qr/^lost/, 'a copy of template1 made in template1');
insert_hour_into('template1', 2);
exact_in('template1', 'template1 goes on after a copy made in it');
$node->safe_psql('postgres', 'DROP DATABASE from_inside');
$node->safe_psql('one', 'CREATE DATABASE from_inside TEMPLATE one');
like(status_of('from_inside'), qr/^lost/, 'a copy made in its template');
insert_hour_into('one', 3);
exact_in('one', 'the original goes on after a copy made in it');
$node->safe_psql('postgres', 'DROP DATABASE from_inside');

# Two copies at once: its pipelines run again when the last command is through, however the other
# one ends.
my $watch = $node->background_psql('one');
my $locker = $node->background_psql('postgres');
$locker->query_safe(q(BEGIN; COMMENT ON DATABASE one IS 'a template'));
my %copying = map { $_ => $node->background_psql('postgres', on_error_stop => 0) } qw(first second);
$copying{$_}->query_until(qr/begun/, "\\echo begun\nCREATE DATABASE $_ TEMPLATE one;\n")
  for sort keys %copying;
wait_until($node,
	q(SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%' AND wait_event_type = 'Lock'),
	'both wait for the template');
$node->safe_psql('postgres',
	q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE first%'));
wait_until($node,
	q(SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE first%'),
	'the first one is gone');
# the launcher has looked at everything since, when it has started another pipeline
$node->safe_psql('two', q(SELECT stream_ckpt.stop_pipeline('default')));
wait_status_in('two', 'stopped');
$node->safe_psql('two', q(SELECT stream_ckpt.start_pipeline('default')));
wait_status_in('two', 'running');
is($watch->query_safe('SELECT status, coordinator_pid IS NULL FROM stream_ckpt.pipelines'),
	'restarting|t', 'nothing runs in the template while the second one is at work');
$watch->quit;
$locker->query_safe('COMMIT');
$locker->quit;
wait_until($node,
	q(SELECT count(*) = 1 FROM pg_database WHERE datname = 'second'), 'the second copy is there');
$copying{second}->quit;
eval { $copying{first}->{run}->finish; };
like(status_of('second'), qr/^lost/, 'the second copy is complete');
insert_hour_into('one', 4);
exact_in('one', 'the template goes on after both');
$node->safe_psql('postgres', 'DROP DATABASE second');

# A template needs no ownership, but the right to create databases; a command that is refused
# for want of a right, or because the name is taken, stops nothing.
sub attempt
{
	return $node->safe_psql('template1', 'SELECT attempt FROM stream_ckpt.pipeline_state');
}
$node->safe_psql('postgres', 'CREATE ROLE creator CREATEDB; CREATE ROLE nocreator');
wait_status_in($_, 'running') for qw(template1 one);
my $attempt = attempt();
my $hour = 3;
for (
	[ nocreator => 'of_role', qr/permission denied to create database/ ],
	[ creator => 'of_role TEMPLATE one', qr/permission denied to copy database "one"/ ],
	[ creator => 'two', qr/database "two" already exists/ ])
{
	my ($role, $command, $error) = @$_;

	($ret, $stdout, $stderr) =
	  $node->psql('postgres', "SET ROLE $role; CREATE DATABASE $command");
	like($stderr, $error, "$role: CREATE DATABASE $command");
	insert_hour_into('template1', $hour++);
	sync_pipelines($node, 'template1');
}
is(attempt(), $attempt, 'template1 was not stopped');
($ret, $stdout, $stderr) = $node->psql('postgres', "SET ROLE creator;\nCREATE DATABASE of_role");
is("$ret $stderr", '0 ', 'CREATEDB is enough for a template');
insert_hour_into('template1', $hour);
exact_in('template1', 'template1 goes on after a copy by another role');
isnt(attempt(), $attempt, 'it was stopped for the copy');
$node->safe_psql('postgres', 'DROP DATABASE of_role');

$node->safe_psql('template1', 'DROP TABLE t CASCADE; DROP TABLE closed');
wait_until($node,
	q(SELECT count(*) = 0 FROM pg_replication_slots WHERE database = 'template1'),
	'the slot of template1 is gone');

# Renamed with everything running; moving is refused, and nothing has happened then.
$node->safe_psql('postgres', 'ALTER DATABASE one RENAME TO uno');
insert_hour_into('uno', 5);
exact_in('uno', 'renamed');
my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$dir'");
($ret, $stdout, $stderr) =
  $node->psql('postgres', 'ALTER DATABASE uno SET TABLESPACE elsewhere');
isnt($ret, 0, 'SET TABLESPACE is refused');
like(
	$stderr,
	qr/cannot move database "uno" to another tablespace while it has continuous queries.*HINT:  Drop its continuous queries and streams first/s,
	'with what to do');
insert_hour_into('uno', 6);
exact_in('uno', 'not moved');
$node->safe_psql('postgres', 'CREATE DATABASE empty');
is($node->psql('postgres', 'ALTER DATABASE empty SET TABLESPACE elsewhere'),
	0, 'a database without queries can be moved');
$node->safe_psql('postgres', 'DROP DATABASE empty');

# A command that fails lets the pipelines go on.
($ret) = $node->psql('postgres', 'ALTER DATABASE uno RENAME TO two');
isnt($ret, 0, 'a name that is taken');
insert_hour_into('uno', 7);
exact_in('uno', 'after a command that failed');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
($ret) = $node->psql('postgres', 'SET ROLE nobody; DROP DATABASE uno');
isnt($ret, 0, 'a stranger');
insert_hour_into('uno', 8);
exact_in('uno', 'after a stranger tried to drop it');

# Dropped with everything running.
$node->safe_psql('postgres', "DROP DATABASE $_") for qw(uno copy);
$node->safe_psql('postgres', "DROP DATABASE $_ WITH (FORCE)") for qw(again);
is( $node->safe_psql(
		'postgres',
		q(SELECT string_agg(database, ' ') FROM pg_replication_slots)),
	'two',
	'no slot is left of those that were dropped');
is( $node->safe_psql(
		'postgres',
		q(SELECT string_agg(DISTINCT datname, ' ') FROM pg_stat_activity
			WHERE backend_type LIKE 'stream_ckpt%' AND datname IS NOT NULL)),
	'two',
	'nor a process');
insert_hour_into('two', 2);
exact_in('two', 'the other database has seen nothing of it');

# Not accepting connections: the coordinator can't even say why it ends.  Attempts come at growing
# intervals (the first at once, then 2 s, then 4 s), and the pipeline comes back by itself.
my $offset = -s $node->logfile;
my $in_two = $node->background_psql('two');
$node->safe_psql('postgres', 'ALTER DATABASE two ALLOW_CONNECTIONS false');
$in_two->query_safe(
	q(INSERT INTO t VALUES ('2024-01-01 02:59:59 UTC', 1, 1)));
$in_two->query_safe(
	'SELECT pg_terminate_backend(coordinator_pid) FROM stream_ckpt.pipelines');
my $refused = qr/^(\S+ \S+) UTC \[\d+\] stream_ckpt coordinator FATAL:  database "two" is not currently accepting connections/m;
$node->wait_for_log(qr/(?:$refused.*){3}/s, $offset);
my @at = substr(slurp_file($node->logfile), $offset) =~ /$refused/g;
cmp_ok(
	$node->safe_psql('postgres',
		"SELECT extract(epoch FROM timestamp '$at[2]' - timestamp '$at[0]')"),
	'>', 5.5,
	'attempts at growing intervals');
like(
	$in_two->query_safe('SELECT status, message FROM stream_ckpt.pipelines'),
	qr/^restarting\|the coordinator ended; see the server's log$|^starting\|$/,
	'the status meanwhile');
$in_two->quit;
$node->safe_psql('postgres', 'ALTER DATABASE two ALLOW_CONNECTIONS true');
wait_status_in('two', 'running');
insert_hour_into('two', 3);
exact_in('two', 'connections are allowed again');

# The same after a restart, and with the places in shared memory used again.
$node->restart;
insert_hour_into('two', 4);
exact_in('two', 'after a restart');
for my $i (1 .. 10)
{
	$node->safe_psql('postgres', "CREATE DATABASE d$i TEMPLATE template1");
	define_in("d$i");
	insert_hour_into("d$i", 0);
	exact_in("d$i", "database $i of more than there are places");
	$node->safe_psql('postgres', "DROP DATABASE d$i");
}

$node->stop;
done_testing();
