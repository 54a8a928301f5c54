# Physical copies of a server that goes on beside them: a base backup, a standby that is promoted, files taken back in time
# beside a slot that was kept. Each of their pipelines is lost, writes nothing, and says what to do; rebuild_pipeline()
# makes the results exact, of streams whose rows change, too, and of results that are streams. The original sees nothing.

use strict;
use warnings;

use File::Copy;
use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $node = new_node('main', "max_slot_wal_keep_size = -1\n", draw => {});
$node->append_conf('pg_hba.conf', "local replication all trust\n");
$node->enable_archiving;
$node->restart;

# name => [ stream, emit, definition, pipeline ]
my %queries = (
	closed => [ 't', 'close', 'SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM t, stream_ckpt.tumble(ts, \'1 minute\') w GROUP BY w.window_start, w.window_end, k', 'default' ],
	live => [ 't', 'update', 'SELECT w.window_start, w.window_end, k, count(*) AS n, max(v) AS greatest FROM t, stream_ckpt.tumble(ts, \'1 hour\') w GROUP BY w.window_start, w.window_end, k', 'default' ],
	by_status => [ 'orders', 'update', 'SELECT status, count(*) AS n, sum(amount) AS amount, max(amount) AS greatest FROM orders GROUP BY status', 'default' ],
	statuses => [ 'by_status', 'update', 'SELECT count(*) AS statuses, sum(n) AS n, max(amount) AS greatest FROM by_status', 'second' ],
	total => [ 't', 'update', 'SELECT count(*) AS n, sum(v) AS total FROM t', 'second' ]);

$node->safe_psql('postgres', q(SELECT stream_ckpt.create_pipeline('second', checkpoint_interval => '100 ms');
	CREATE TABLE orders (id int PRIMARY KEY, status int, amount int)));
create_stream_table($node, 't');
$node->safe_psql('postgres', q(SELECT stream_ckpt.attach_stream('orders', changes => 'apply')));
for my $name (qw(closed live by_status statuses total))
{
	my ($stream, $emit, $select, $pipeline) = @{ $queries{$name} };

	create_query($node, $name, $stream, emit => $emit, select => $select, options => "pipeline => '$pipeline'");
	$node->safe_psql('postgres', q(SELECT stream_ckpt.attach_stream('by_status'))) if $name eq 'by_status';
}
wait_status($node, 'running', $_) for qw(default second);

# Rows and changes, other ones on each server.
my %second;
srand($seed);

sub change
{
	my ($where) = @_;
	my $from = ($second{ $where->name } // 0) + 1;
	my $to = $from + 150 + int(rand(200));

	$second{ $where->name } = $to;
	my ($a, $b, $c) = map { int(rand($to)) } 1 .. 3;
	$where->safe_psql('postgres', qq(INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '3 seconds', i % 7, i, $to FROM generate_series($from, $to) i;
		INSERT INTO orders SELECT i, i % 5, i FROM generate_series($from, $to) i;
		UPDATE orders SET status = (status + 1) % 5, amount = amount + 3 WHERE id % 3 = $a % 3;
		BEGIN; DELETE FROM orders WHERE id BETWEEN $b AND $b + 40; SAVEPOINT s; DELETE FROM orders; ROLLBACK TO s;
		UPDATE orders SET amount = -amount WHERE id % 11 = $c % 11; COMMIT));
	return;
}

sub exact
{
	my ($where, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($where);
	results_ok($where, $_, "$test: $_", emit => $queries{$_}[1], table => 't', synced => 1) for sort keys %queries;
	return;
}

# Lost, and nothing is written, not even of new rows; then results are made again.
sub lost_and_rebuilt
{
	my ($where, $test, $message) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $results = "SELECT md5(string_agg(r::text, E'\\n' ORDER BY r::text)) FROM (" . join(' UNION ALL ', map { "SELECT '$_', q::text FROM $_ q" } sort keys %queries) . ') r';
	my $before = $where->safe_psql('postgres', $results);

	for my $pipeline (qw(default second))
	{
		wait_status($where, 'lost', $pipeline);
		my ($said, $hint) = split /\|/, $where->safe_psql('postgres', "SELECT message, hint FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'");
		like($said, $message, "$test: why $pipeline is lost");
		like($hint, qr/rebuild_pipeline\(name\).*accept_gap => true/, "$test: what to do about $pipeline");
	}
	change($where);
	is_refused($where, q(SELECT stream_ckpt.sync('30 seconds')), qr/is lost/, "$test: sync() says so");
	wait_until($where, q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt %' AND backend_type NOT LIKE '%launcher'),
		'nobody is there who could write');
	is($where->safe_psql('postgres', $results), $before, "$test: nothing is written");
	is_refused($where, q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)), qr/"by_status" cannot go on without the rows between.*rebuild_pipeline/s,
		"$test: a query whose rows change can't go on without them");
	wait_status($where, 'lost');
	$where->safe_psql('postgres', "SET client_min_messages = warning; SELECT stream_ckpt.rebuild_pipeline('$_')") for qw(default second);
	change($where);
	exact($where, "$test, rebuilt");
	change($where);
	$where->stop('immediate');
	$where->start;
	wait_status($where, 'running', $_) for qw(default second);
	change($where);
	exact($where, "$test, after a crash");
	is($where->safe_psql('postgres', 'SELECT sum(stream_ckpt.verify(query)) FROM stream_ckpt.queries'), '0', "$test: verified");

	# what is right sends subscribers nothing
	my $rows = 'SELECT md5(string_agg(ctid || \' \' || xmin, \' \' ORDER BY ctid)) FROM closed';
	my $right = $where->safe_psql('postgres', $rows);
	$where->safe_psql('postgres', q(SET client_min_messages = warning; SELECT stream_ckpt.rebuild_pipeline('default')));
	sync_pipelines($where);
	is($where->safe_psql('postgres', $rows), $right, "$test: rebuilt once more, no row of the result is touched");
	return;
}

sub copy_of
{
	my ($name, %opt) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);

	$copy->init_from_backup($node, 'base', %opt);
	$copy->append_conf('postgresql.conf', "archive_mode = off\n");
	$second{$name} = 1_000_000;
	return $copy;
}

change($node) for 1 .. 3;
exact($node, 'the original');
# what the last checkpoint doesn't have is in the backup, too
$node->safe_psql('postgres', "SELECT stream_ckpt.alter_pipeline('$_', checkpoint_interval => '1 hour')") for qw(default second);
change($node);
$node->backup('base');
$node->safe_psql('postgres', "SELECT stream_ckpt.alter_pipeline('$_', checkpoint_interval => '100 ms')") for qw(default second);

#
# A base backup, started while the original goes on.
#
my $clone = copy_of('clone');
$clone->start;
change($node);
$second{clone} = 2_000_000;
lost_and_rebuilt($clone, 'a base backup', qr/replication slot does not exist/);
change($node);
exact($node, 'the original beside a copy');

# Each has its own slot, and only the one that it confirms
is($_->safe_psql('postgres', q(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'stream\_ckpt\_%' AND active)), '2', $_->name . ' has its slots') for $node, $clone;
my $confirmed = "SELECT string_agg(confirmed_flush_lsn::text, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE plugin = 'stream_ckpt'";
my $before = $node->safe_psql('postgres', $confirmed);
change($clone);
exact($clone, 'the copy alone');
is($node->safe_psql('postgres', $confirmed), $before, 'what a copy confirms, the original does not');
$clone->stop;

#
# A standby that is promoted, while the old primary still lives.
#
my $standby = copy_of('standby', has_streaming => 1);
$standby->start;
change($node);
sync_pipelines($node);
change($node);
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT DISTINCT status, message FROM stream_ckpt.pipelines'), 'stopped|the server is in recovery', 'a standby runs no pipeline');
$standby->promote;
lost_and_rebuilt($standby, 'promoted', qr/replication slot does not exist/);
$standby->stop;
change($node);
exact($node, 'the old primary');

#
# Files from a time before, beside the slots of the time behind it.
#
my $then = $node->safe_psql('postgres', q(SELECT pg_create_restore_point('then')));
change($node) for 1 .. 4;
sync_pipelines($node);
my $segment = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
wait_until($node, "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver", 'the WAL is archived');
change($node);
sync_pipelines($node);
$node->safe_psql('postgres', 'CHECKPOINT');
my $passed = $node->safe_psql('postgres', q(SELECT max(confirmed_flush_lsn) FROM pg_replication_slots WHERE plugin = 'stream_ckpt'));

# The slots' files as they are now, in a copy that ends at that point
sub back_in_time
{
	my ($name, %opt) = @_;
	my $restored = copy_of($name, has_restoring => !$opt{same_timeline});

	$restored->append_conf('postgresql.conf', "recovery_target_name = 'then'\nrecovery_target_action = 'promote'\n") unless $opt{same_timeline};
	for my $slot (glob($node->data_dir . '/pg_replslot/stream_ckpt_*'))
	{
		my $to = $restored->data_dir . '/pg_replslot/' . (split m{/}, $slot)[-1];

		mkdir $to or die "$to: $!";
		copy("$slot/state", "$to/state") or die "$slot: $!";
	}
	$restored->start;
	wait_until($restored, 'SELECT NOT pg_is_in_recovery()', 'it is restored');
	return $restored;
}

my $restored = back_in_time('restored');
lost_and_rebuilt($restored, 'a time before', qr/which this server has not written yet: it belongs to another timeline/);
$restored->stop;

# The same, decided on when the log has come to where the slots are: there it is another log.
sub pass
{
	my ($where) = @_;

	$where->safe_psql('postgres', q(SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'x', 'x'))) while
	  $where->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() <= '$passed'") eq 't';
	$where->restart;
	change($where);
	return;
}

$restored = back_in_time('later');
wait_status($restored, 'lost', $_) for qw(default second);
pass($restored);
# who repairs it has a slot that nobody else takes away
my $repair = q(SET client_min_messages = warning; SET statement_timeout = '20s'; BEGIN; SELECT stream_ckpt.rebuild_pipeline('second'));
my $first = $restored->background_psql('postgres', on_error_stop => 1);
$first->query_safe($repair);
is_refused($restored, $repair, qr/pipeline "second" is being repaired by another session/, 'repaired by two at once');
$first->query_safe('ROLLBACK');
$first->quit;
lost_and_rebuilt($restored, 'later than that', qr/stands at .*, beyond the last checkpoint|replication slot does not exist/);
$restored->stop;

# And without recovery: the other log has the same timeline
$restored = back_in_time('same', same_timeline => 1);
wait_status($restored, 'lost', $_) for qw(default second);
is($restored->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), '0', 'the same timeline: no slot of another log is kept');
pass($restored);
lost_and_rebuilt($restored, 'the same timeline, later', qr/replication slot does not exist/);
$restored->stop;

exact($node, 'the original, in the end');

# A stopped server's directory, slots and all, is that server: both go on.
change($node);
$node->stop;
$node->backup_fs_cold('cold');
my $twin = PostgreSQL::Test::Cluster->new('twin');
$twin->init_from_backup($node, 'cold');
$twin->append_conf('postgresql.conf', "archive_mode = off\n");
$_->start for $node, $twin;
$second{twin} = 1_000_000;
for my $server ($twin, $node)
{
	wait_status($server, 'running', $_) for qw(default second);
	change($server);
	exact($server, 'a copy of the stopped directory: ' . $server->name);
}
$twin->stop;
$node->stop;
done_testing();
