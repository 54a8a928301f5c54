# Failover slots (PostgreSQL 17 and later): the pipeline's slot is kept on a standby, and a
# promoted one goes on exactly where the primary ended.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('primary', "max_slot_wal_keep_size = -1\n");
if ($node->safe_psql('postgres', 'SHOW server_version_num') < 170000)
{
	$node->stop;
	plan skip_all => 'PostgreSQL before 17 has no failover slots';
}
$node->append_conf('pg_hba.conf', "local replication all trust\n");
$node->reload;
create_stream_table($node, 't');
create_query($node, 'closed', 't');
create_query($node, 'other', 't', emit => 'update');
wait_running($node);

my $slot = $node->safe_psql('postgres',
	q(SELECT slot_name FROM pg_replication_slots WHERE plugin = 'stream_ckpt'));
is( $node->safe_psql('postgres',
		"SELECT failover FROM pg_replication_slots WHERE slot_name = '$slot'"),
	't',
	'the slot is made for failover');

my $hours = 0;

sub make_standby
{
	my ($primary, $name) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);
	my $connstr = $primary->connstr;

	$primary->safe_psql('postgres',
		"SELECT pg_create_physical_replication_slot('$name')");
	$primary->backup($name);
	$standby->init_from_backup($primary, $name, has_streaming => 1);
	$standby->append_conf('postgresql.conf', qq(
primary_conninfo = '$connstr dbname=postgres application_name=$name'
primary_slot_name = '$name'
hot_standby_feedback = on
sync_replication_slots = on
synchronized_standby_slots = ''
));
	$standby->start;
	return $standby;
}

# The standby keeps the slot once the primary's has passed what the standby can decode
# from: that takes rows and checkpoints.
sub wait_synchronized
{
	my ($primary, $standby) = @_;
	my $state = '';
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	while ($state ne 't|f' && time < $until)
	{
		insert_hour($primary, $hours++);
		sync_pipelines($primary);
		$primary->wait_for_replay_catchup($standby);
		$state = $standby->safe_psql('postgres',
			"SELECT synced, temporary FROM pg_replication_slots WHERE slot_name = '$slot'"
		);
	}
	is($state, 't|f', $standby->name . ': the slot is kept');
	return;
}

sub position
{
	my ($where) = @_;

	return $where->safe_psql('postgres',
		"SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = '$slot'"
	);
}

sub exact
{
	my ($where, $test) = @_;

	results_ok($where, 'closed', "$test: closed", table => 't');
	results_ok($where, 'other', "$test: other", emit => 'update');
	is( $where->safe_psql('postgres',
			"SELECT coalesce(stream_ckpt.verify('closed'), 0)"),
		'0',
		"$test: verify()");
	return;
}

my $standby = make_standby($node, 'standby');
wait_synchronized($node, $standby);

#
# The slot doesn't pass a standby that has to have the WAL first; results do.
#
$node->append_conf('postgresql.conf',
	"synchronized_standby_slots = 'standby'\n");
$node->reload;
insert_hour($node, $hours++);
sync_pipelines($node);
$standby->stop;
insert_hour($node, $hours++);
sync_pipelines($node);
my $before = position($node);
my $reached = $node->safe_psql('postgres',
	"SELECT pg_current_wal_lsn() - '0/0'");
for (1 .. 3)
{
	insert_hour($node, $hours++);
	results_ok($node, 'closed', 'results go on without the standby',
		table => 't');
}
cmp_ok(position($node), '<', $reached, 'the slot waits for the standby');
$standby->start;
wait_until($node,
	"SELECT confirmed_flush_lsn - '0/0' >= $reached FROM pg_replication_slots WHERE slot_name = '$slot'",
	'the slot follows when the standby is there again');

#
# The primary dies in the middle of its work; the standby takes over.
#
wait_synchronized($node, $standby);
for (1 .. 3)
{
	insert_hour($node, $hours++);
}
$node->wait_for_catchup($standby);
$node->stop('immediate');
$standby->promote;
wait_running($standby);
exact($standby, 'promoted');
insert_hour($standby, $hours++);
exact($standby, 'promoted, with new rows');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM t'),
	$hours * 360, 'no row was lost on the way');

#
# And once more from there: another timeline.
#
my $third = make_standby($standby, 'third');
wait_synchronized($standby, $third);
insert_hour($standby, $hours++);
$standby->wait_for_catchup($third);
$standby->stop('immediate');
$third->promote;
wait_running($third);
insert_hour($third, $hours++);
exact($third, 'promoted again');

$third->stop;
done_testing();
