# Queries' lives at random: rows come while queries are made, paused, resumed and dropped, while their results
# are locked and their expressions fail, and while processes and the server die.  In the end of each round all
# run again, and each result is what its definition gives over the rows that came after the query: none lost,
# none twice, none late.
#
# SEED=n takes the same steps again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $rounds = $ENV{ROUNDS} || 8;
my $steps = 40;    # of a round

my $tasks = pick(1, 2, 4);
note "$tasks tasks";

my $node = new_node('main', "stream_ckpt.result_lock_timeout = 100ms\n");
$node->safe_psql('postgres', "SELECT stream_ckpt.alter_pipeline('default', parallelism => $tasks)");
create_stream_table($node, $_) for qw(a b);
$node->safe_psql(
	'postgres', q(
	CREATE TABLE switch (bad bool);
	INSERT INTO switch VALUES (false);
	CREATE FUNCTION fails_if_bad(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN IF (SELECT bad FROM switch) THEN RAISE 'bad'; END IF; RETURN v; END $$;
	CREATE FUNCTION keep_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$));

my $rows = 0;       # so many were inserted; txn counts them
my $created = 0;    # queries
my %queries;        # those that there are: stream, emit, select, and the rows that came before
my %locked;         # those whose result is locked

my @points = qw(
  task_after_rows reader_before_barrier reader_after_barrier task_before_snapshot
  task_after_snapshot task_part_sent coordinator_parts_collected coordinator_after_rows
  coordinator_before_record coordinator_before_write coordinator_before_commit
  coordinator_after_commit coordinator_after_ack reader_before_confirm reader_after_confirm
  task_before_restore
);

# Statements that may be repeated, until they have succeeded: each crash of the server ends one try.
sub certainly
{
	my ($sql) = @_;

	for (1 .. 20)
	{
		my ($ret) = try_psql($node, $sql);
		return if $ret == 0;
		wait_up($node);
	}
	die "in vain: $sql";
}

sub any_query { return pick(sort keys %queries); }

sub make_query
{
	my $name = 'q' . ++$created;
	my ($stream, $emit) = (pick('a', 'b'), pick('close', 'update'));
	my $v = pick('v', 'v', 'fails_if_bad(v)');
	my $option = pick(q(on_error => 'stop'), 'keep_late_rows => true', q(allowed_lateness => '2 minutes'));
	my $select = "SELECT w.window_start, w.window_end, k, count(*) AS n, sum($v) AS total, max(txn) AS last
		FROM $stream, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k";

	my $parallelism = pick(grep { $_ <= $tasks } 1, 2, 4);

	note "$name: $stream, $emit, $v, $option, in $parallelism";
	certainly("SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$, emit => '$emit', $option, backfill => false,
			parallelism => $parallelism)
		WHERE to_regclass('$name') IS NULL");
	# results with triggers are written another way
	certainly("CREATE OR REPLACE TRIGGER keep_row BEFORE INSERT ON $name FOR EACH ROW EXECUTE FUNCTION keep_row()")
	  if rand() < 0.25;
	$queries{$name} = { stream => $stream, emit => $emit, select => $select, before => $rows };
	return;
}

#
# The steps
#

# In one transaction, once, whatever its session was told.
sub insert_rows
{
	my ($stream, $count) = (pick('a', 'a', 'a', 'b'), pick(1, 5, 40));

	certainly("INSERT INTO $stream
		SELECT timestamptz '2024-01-01 00:00 UTC' + ($rows + i) * interval '7 seconds', i % 3, i, $rows + i
		FROM generate_series(1, $count) i WHERE NOT EXISTS (SELECT FROM $stream WHERE txn > $rows)");
	$rows += $count;
	return;
}

sub pause_query
{
	my ($name) = @_;

	note "pause $name";
	certainly("SELECT stream_ckpt.pause_query('$name')");
	return;
}

sub resume_query
{
	my ($name) = @_;

	note "resume $name";
	certainly("SELECT stream_ckpt.resume_query('$name')");
	return;
}

# Several times between two barriers, mostly, with rows in between.
sub pause_and_resume
{
	my $name = any_query();

	for (1 .. pick(1, 2, 3))
	{
		pause_query($name);
		insert_rows() if rand() < 0.5;
		resume_query($name);
		insert_rows() if rand() < 0.5;
	}
	return;
}

# A prepared transaction's lock lasts until release(), across crashes too.
sub lock_result
{
	my $name = any_query();
	my $lock = pick(
		"LOCK TABLE $name",
		"LOCK TABLE $name IN SHARE MODE",
		"SELECT count(*) FROM (SELECT FROM $name FOR UPDATE) x");

	return if $locked{$name}++;
	note "lock $name: $lock";
	try_psql($node, "SET lock_timeout = '1s'; BEGIN; $lock; PREPARE TRANSACTION '$name'");
	return;
}

sub release
{
	my @names = @_;

	note "release @names";
	delete @locked{@names};
	certainly("SELECT format('COMMIT PREPARED %L', gid) FROM pg_prepared_xacts WHERE gid = ANY ('{"
		  . join(',', @names) . "}') \\gexec");
	return;
}

sub turn_switch
{
	my ($bad) = @_;

	note "bad = $bad";
	certainly("UPDATE switch SET bad = $bad");
	return;
}

sub arm_trouble
{
	my ($point, $action, $n) = (pick(@points), pick(qw(error error exit term kill)), pick(1, 1, 2, 4));

	note "trouble: $action at $point, time $n";
	arm($node, $point, $action, $n);
	return;
}

sub replace_query
{
	my $name = any_query();

	note "drop $name";
	release($name);
	certainly("SELECT stream_ckpt.drop_query(oid) FROM pg_class WHERE relname = '$name'");
	delete $queries{$name};
	make_query();
	return;
}

sub stop_at_once
{
	note 'immediate stop';
	$node->stop('immediate');
	$node->start;
	return;
}

# Lets the pipeline get on for a moment; what is locked or fails may keep both from success.
sub get_on
{
	try_psql($node, pick("SELECT stream_ckpt.checkpoint(timeout => '300 ms')", "SELECT stream_ckpt.sync('300 ms')"));
	return;
}

my @choices = (
	(\&insert_rows) x 40,
	(sub { pause_query(any_query()) }) x 8,
	(sub { resume_query(any_query()) }) x 8,
	(\&pause_and_resume) x 6,
	(\&lock_result) x 8,
	(sub { release(sort keys %locked) }) x 5,
	(sub { turn_switch(pick('true', 'false')) }) x 5,
	(\&arm_trouble) x 7,
	(\&replace_query) x 3,
	(\&stop_at_once) x 2,
	(\&get_on) x 8);

# Each look resumes all: what was on its way may make one fail again.
sub resume_all
{
	return wait_until($node,
		q(SELECT bool_and(status = 'running')
		  FROM (SELECT stream_ckpt.resume_query(query), status FROM stream_ckpt.queries) x),
		'all queries run');
}

# Nothing is in the way any more, every query runs, and all rows are in the results.
sub settle
{
	disarm($node, $_) for @points;
	release(sort keys %locked);
	turn_switch('false');
	resume_all();
	# the failure of a moment ago is noted with the next barrier only
	try_psql($node, 'SELECT stream_ckpt.sync()');
	resume_all();
	sync_pipelines($node);
	return;
}

make_query() for 1 .. 8;
for my $round (1 .. $rounds)
{
	pick(@choices)->() for 1 .. $steps;
	settle();
	for my $name (sort keys %queries)
	{
		my $query = $queries{$name};
		my $its_rows = "(SELECT * FROM $query->{stream} WHERE txn > $query->{before}) $query->{stream}";

		results_ok($node, $name, "round $round: $name",
			synced => 1,
			emit => $query->{emit},
			table => $its_rows,
			truth => $query->{select} =~ s/\bFROM $query->{stream},/FROM $its_rows,/r);
	}
	is($node->safe_psql('postgres', 'SELECT sum(late_rows) FROM stream_ckpt.queries'), '0', "round $round: none late");
	last unless Test::More->builder->is_passing;
}

$node->stop;
done_testing();
