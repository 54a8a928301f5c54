# Copies of the whole server: a base backup, a standby that is promoted, a restore to a time before.
# None of them has the slot: pipelines stand at "lost", and both ways out work.

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
$node->enable_archiving;
$node->restart;
create_stream_table($node, 't');
create_query($node, 'closed', 't');
create_query($node, 'other', 't', emit => 'update');
wait_running($node);

my $hours = 0;

# The status that a user sees, and that nothing goes on by itself.
sub stands_lost
{
	my ($where, $test) = @_;
	my $before = $where->safe_psql('postgres', 'SELECT count(*) FROM closed');

	wait_status($where, 'lost');
	my ($message, $hint) = split /\|/,
	  $where->safe_psql('postgres',
		'SELECT message, hint FROM stream_ckpt.pipelines');
	like($message, qr/replication slot does not exist/, "$test: why");
	like($hint, qr/rebuild_pipeline.*accept_gap => true/,
		"$test: what to do");
	insert_hour($where, $hours++);
	my ($ret, $stdout, $stderr) =
	  $where->psql('postgres', q(SELECT stream_ckpt.sync('30 seconds')));
	isnt($ret, 0, "$test: sync() is an error");
	like($stderr, qr/pipeline "default" is lost/, "$test: which says why");
	is($where->safe_psql('postgres', 'SELECT count(*) FROM closed'),
		$before, "$test: nothing is written over the gap");
	return;
}

# Way out 1: go on without the rows between; windows behind the gap are exact.
sub accept_gap
{
	my ($where, $test) = @_;

	$where->safe_psql('postgres',
		q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
	wait_running($where);
	insert_hour($where, $hours++);    # its first window may belong to the gap's last
	my $from = $hours;
	insert_hour($where, $hours++);
	insert_hour($where, $hours++);
	sync_pipelines($where);
	my $range =
	  "window_start >= timestamptz '2024-01-01 00:00 UTC' + $from * interval '1 hour'";
	for my $query ('closed', 'other')
	{
		my $closed = $query eq 'closed'
		  ? 'AND window_end <= (SELECT max(ts) FROM t)'
		  : '';
		is( $where->safe_psql(
				'postgres', qq(
				SELECT count(*) FROM (
					(SELECT * FROM $query WHERE $range EXCEPT ALL SELECT * FROM ${query}_definition)
					UNION ALL
					(SELECT * FROM ${query}_definition WHERE $range $closed EXCEPT ALL SELECT * FROM $query)) d)),
			'0',
			"$test: $query is exact after the gap");
		my ($ret, $stdout, $stderr) = $where->psql('postgres',
			"SELECT stream_ckpt.verify('$query')");
		isnt($ret, 0, "$test: verify('$query') knows of the gap");
	}
	return;
}

# Way out 2: the queries made again.
sub create_again
{
	my ($where, $test, $stopped) = @_;

	$where->safe_psql('postgres',
		"SELECT stream_ckpt.drop_query('$_')") for qw(closed other);
	$where->safe_psql('postgres', 'TRUNCATE t');
	create_query($where, 'closed', 't');
	create_query($where, 'other', 't', emit => 'update');
	$where->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default')))
	  if $stopped;
	wait_running($where);
	insert_hour($where, $hours++);
	sync_pipelines($where);
	is($where->safe_psql('postgres', "SELECT stream_ckpt.verify('$_')"),
		'0', "$test: $_ made again is exact")
	  for qw(closed other);
	return;
}

insert_hour($node, $hours++);
results_ok($node, 'closed', 'before', table => 't');

#
# A base backup, started as a server of its own.
#
$node->backup('base');
for my $way (\&accept_gap, \&create_again)
{
	my $name = $way == \&accept_gap ? 'clone1' : 'clone2';
	my $clone = PostgreSQL::Test::Cluster->new($name);

	$clone->init_from_backup($node, 'base');
	$clone->append_conf('postgresql.conf', "archive_mode = off\n");
	$clone->start;
	stands_lost($clone, $name);
	$way->($clone, $name);
	$clone->stop;
}
insert_hour($node, $hours++);
results_ok($node, 'closed', 'the original has seen nothing of it',
	table => 't');

#
# A standby: it shows that it doesn't run pipelines, and is lost when it is promoted.
#
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "archive_mode = off\n");
$standby->start;
insert_hour($node, $hours++);
sync_pipelines($node);
$node->wait_for_catchup($standby);
is( $standby->safe_psql('postgres',
		'SELECT status, message FROM stream_ckpt.pipelines'),
	'stopped|the server is in recovery',
	'a standby runs no pipeline');
$standby->promote;
stands_lost($standby, 'promoted');
accept_gap($standby, 'promoted');
$standby->stop;

#
# Back to a point before: rows and results of that point, no slot.
#
my $then = $node->safe_psql('postgres',
	q(SELECT pg_create_restore_point('then')));
my $count = $node->safe_psql('postgres', 'SELECT count(*) FROM t');
insert_hour($node, $hours++);
sync_pipelines($node);
my $segment = $node->safe_psql('postgres',
	'SELECT pg_walfile_name(pg_switch_wal())');
wait_until($node,
	"SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver",
	'the WAL is archived');
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'base', has_restoring => 1);
$restored->append_conf('postgresql.conf',
	"archive_mode = off\nrecovery_target_name = 'then'\nrecovery_target_action = 'promote'\n"
);
$restored->start;
wait_until($restored, 'SELECT NOT pg_is_in_recovery()', 'it is restored');
is($restored->safe_psql('postgres', 'SELECT count(*) FROM t'),
	$count, 'a point before');
stands_lost($restored, 'restored');
accept_gap($restored, 'restored');
$restored->stop;

# A query that joins those of a lost pipeline would not run.
sub refuses_another
{
	my ($test) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres',
		q(SELECT stream_ckpt.create_query('third', 'SELECT w.window_start, count(*) FROM t, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY 1'))
	);
	isnt($ret, 0, "$test: another query is refused");
	like(
		$stderr,
		qr/pipeline "default" is lost\nDETAIL:  .*\nHINT:  Drop its queries first, or call .*accept_gap => true/,
		"$test: and what to do");
	return;
}

sub stop_pipeline
{
	$node->safe_psql('postgres', q(SELECT stream_ckpt.stop_pipeline('default')));
	wait_status($node, 'stopped');
	return;
}

# Writes WAL until the slot is invalidated by max_slot_wal_keep_size.
sub outrun_slot
{
	$node->append_conf('postgresql.conf',
		"max_slot_wal_keep_size = 1MB\nmax_wal_size = 32MB\nmin_wal_size = 32MB\n");
	$node->reload;
	insert_hour($node, $hours++);
	for (1 .. 6)
	{
		$node->safe_psql('postgres',
			'CREATE TABLE filler AS SELECT 1 AS a; DROP TABLE filler; SELECT pg_switch_wal(); CHECKPOINT');
	}
	wait_until($node,
		q(SELECT wal_status = 'lost' FROM pg_replication_slots),
		'the slot is invalidated');
	$node->append_conf('postgresql.conf', "max_slot_wal_keep_size = -1\n");
	$node->reload;
	return;
}

# The status of an invalidated slot, once it has come to that.
sub stands_invalidated
{
	my ($test) = @_;

	wait_status($node, 'lost');
	like(
		$node->safe_psql(
			'postgres', 'SELECT message, hint FROM stream_ckpt.pipelines'),
		qr/invalidated: the WAL that it needs has been removed\|Increase "max_slot_wal_keep_size"\..*accept_gap => true/,
		"$test: why, and what to do");
	return;
}

#
# The slot is invalidated while the pipeline is stopped.
#
stop_pipeline();
outrun_slot();
$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default')));
stands_invalidated('invalidated');
accept_gap($node, 'invalidated');

# The queries are made again before anybody has looked at the slot.
stop_pipeline();
outrun_slot();
refuses_another('invalidated and stopped');
create_again($node, 'invalidated and stopped', 1);

# The same without a slot.
stop_pipeline();
$node->safe_psql('postgres',
	'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
refuses_another('no slot and stopped');
create_again($node, 'no slot and stopped', 1);

#
# It is invalidated while the reader uses it, which the server ends then.  A transaction that stays
# open holds the slot back.
#
my $open = $node->background_psql('postgres');
$open->query_safe('BEGIN; CREATE TABLE held (a int)');
outrun_slot();
like(slurp_file($node->logfile),
	qr/terminating process \d+ to release replication slot "stream_ckpt_/,
	'the server ended the reader');
stands_invalidated('invalidated in use');
$open->query_safe('COMMIT');
$open->quit;
refuses_another('invalidated in use');
create_again($node, 'invalidated in use');

#
# All queries are new when the slot is invalidated: nothing is lost, and whoever needs a slot first makes it anew.
#
sub exact
{
	my ($query, $test) = @_;

	$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default')));
	insert_hour($node, $hours++);
	sync_pipelines($node);
	is($node->safe_psql('postgres', "SELECT stream_ckpt.verify('$query')"), '0', $test);
	return;
}

sub drop_queries { return $node->safe_psql('postgres', 'SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries'); }

my $new = "SELECT stream_ckpt.create_query('anew', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k', backfill => true)";
my $begun = "SELECT stream_ckpt.create_query('begun', 'SELECT w.window_start, w.window_end, k, count(*) AS n FROM t, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY 1, 2, 3', backfill => false)";

drop_queries();
stop_pipeline();
$node->safe_psql('postgres', $new);
outrun_slot();
is_refused($node, "BEGIN; CREATE TABLE written (a int); $begun", qr/has no replication slot yet, and this transaction has already written/,
	'all new, invalidated and stopped: a query that needs a slot, in a transaction that cannot make one');
$node->safe_psql('postgres', $begun);
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_replication_slots WHERE wal_status <> 'lost')), '1',
	'all new, invalidated and stopped: a query that needs the slot makes it');
exact('anew', 'all new, invalidated and stopped: the new one begins with all rows');
insert_hour($node, $hours++);
sync_pipelines($node);
is($node->safe_psql('postgres', 'SELECT sum(n) FROM begun'), 2 * 360 - 6, 'all new, invalidated and stopped: the other one with those behind it');

# It is invalidated while a history is read, and somebody counts on it, who commits later: his query began in the log that
# is gone
drop_queries();
arm($node, 'history_begins', 'wait');
$node->safe_psql('postgres', $new);
wait_reached($node, 'history_begins');
my $counts = $node->background_psql('postgres', on_error_stop => 1);
$counts->query_safe("SET client_min_messages = warning; BEGIN; $begun");
outrun_slot();
wait_until($node, q(SELECT backfill_phase = 'making the slot' FROM stream_ckpt.queries), 'the coordinator wants to make the slot');
$counts->query_safe('COMMIT');
$counts->quit;
wait_until($node, q(SELECT status IN ('lost', 'running') FROM stream_ckpt.pipelines), 'it is decided');
disarm($node, 'history_begins');
stands_invalidated('invalidated while a query was created');
drop_queries();
$node->safe_psql('postgres', $new);
exact('anew', 'invalidated while a query was created: made again');

$node->stop;
done_testing();
