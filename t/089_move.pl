# move_query(): a query goes on in another pipeline, with its state, while rows come.  Every row counts once, whatever dies
# at whichever step, and whoever changes his mind.
#
# SEED=n takes the same steps again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();

my $node = new_node('main', "stream_ckpt.max_pipelines = 6\n");
create_stream_table($node, 't', delay => '1 minute');

sub value { return $node->safe_psql('postgres', $_[0]); }

my $second = 0;    # of event time

# So many rows in so many transactions
sub insert_rows
{
	my ($n, $transactions) = @_;

	for (1 .. $transactions // 1)
	{
		value("INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + ($second + i) * interval '1 second', i % 7, i, 0
			FROM generate_series(1, $n) i");
		$second += $n;
	}
	return;
}

# Rows of pgbench's, of a year ago: behind those of insert_rows(), and not ahead of their commit.
my $load_script = q(INSERT INTO t SELECT clock_timestamp() - interval '1 year', i % 7, i, 1 FROM generate_series(1, 3) i;
);

sub where { return value("SELECT pipeline || coalesce('>' || target, '') FROM stream_ckpt.queries WHERE query = '$_[0]'::regclass"); }

sub wait_moved
{
	my ($query, $pipeline) = @_;

	return wait_until($node, "SELECT pipeline = '$pipeline' AND target IS NULL FROM stream_ckpt.queries WHERE query = '$query'::regclass",
		"$query is in $pipeline");
}

sub move { return value("SELECT stream_ckpt.move_query('$_[0]', '$_[1]')"); }

# The pipeline has committed what is there now, and has had time to tell its slot.
sub pass_on
{
	my ($pipeline) = @_;

	for (1 .. 3)
	{
		value(q(INSERT INTO t SELECT clock_timestamp() - interval '1 year', 1, 1, 2));
		my $lsn = value('SELECT pg_current_wal_insert_lsn()');

		wait_until($node, "SELECT committed_lsn >= '$lsn' FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'",
			"$pipeline has committed what is there");
	}
	return;
}

sub exact
{
	my ($test, @queries) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node);
	for my $query (@queries)
	{
		results_ok($node, $query, "$test: $query", table => 't', delay => '1 minute',
			emit => $query =~ /update/ ? 'update' : 'close', synced => 1);
	}
	return;
}

sub attempt_of { return value("SELECT attempt FROM stream_ckpt.pipelines WHERE pipeline = '$_[0]'"); }

value(q(SELECT stream_ckpt.create_pipeline('other', parallelism => 2, checkpoint_interval => '100 ms')));
value(q(SELECT stream_ckpt.create_pipeline('empty', checkpoint_interval => '100 ms')));
create_query($node, $_, 't') for qw(stays moves);
create_query($node, 'moves_update', 't', emit => 'update');
create_query($node, 'there', 't', options => q(pipeline => 'other', parallelism => 2));
wait_status($node, 'running', $_) for qw(default other);
insert_rows(700, 3);
exact('before', qw(stays moves moves_update there));

# What is refused
is_refused($node, q(SELECT stream_ckpt.move_query('moves', 'nowhere')), qr/pipeline "nowhere" does not exist/, 'no such pipeline');
is_refused($node, q(SELECT stream_ckpt.move_query('t', 'other')), qr/"t" is not a continuous query/, 'no query');
is_refused($node, q(SELECT stream_ckpt.move_query(NULL, 'other')), qr/parameter "query" must not be null/, 'NULL');
is_refused($node, q(SELECT stream_ckpt.move_query('there', 'default')), qr/has fewer tasks than query "there" runs on/, 'too few tasks');
value(q(SELECT stream_ckpt.pause_query('moves')));
is_refused($node, q(SELECT stream_ckpt.move_query('moves', 'other')), qr/query "moves" does not run.*resume_query/s, 'a paused query');
value(q(SELECT stream_ckpt.resume_query('moves')));
value(q(SELECT stream_ckpt.stop_pipeline('other')));
is_refused($node, q(SELECT stream_ckpt.move_query('moves', 'other')), qr/"other", where the query is to go, is stopped/, 'to one that is stopped');
is_refused($node, q(SELECT stream_ckpt.move_query('there', 'empty')), qr/"other", where the query is, is stopped/, 'from one that is stopped');
value(q(SELECT stream_ckpt.start_pipeline('other')));
value(q(CREATE ROLE somebody; GRANT CREATE ON DATABASE postgres TO somebody));
is_refused($node, q(SET ROLE somebody; SELECT stream_ckpt.move_query('moves', 'default')), qr/must be owner of view/, 'a query of somebody else');

# Moves, with rows meanwhile; the others of both go on.
my $giver = attempt_of('default');
move('moves', 'other');
insert_rows(300, 3);
wait_moved('moves', 'other');
insert_rows(300, 3);
exact('moved', qw(stays moves moves_update there));
is(attempt_of('default'), $giver, 'the pipeline that it has left goes on');
is(value(q(SELECT count(*) FROM pg_replication_slots)), '2', 'no slot more');

# To a pipeline without a query: it gets a slot, and gives it up when the query has left again.
move('moves_update', 'empty');
insert_rows(100);
wait_moved('moves_update', 'empty');
is(value(q(SELECT count(*) FROM pg_replication_slots)), '3', 'a slot for it');
insert_rows(100);
exact('in a pipeline of its own', qw(stays moves moves_update there));
move('moves_update', 'other');
insert_rows(100);
wait_moved('moves_update', 'other');
wait_status($node, 'idle', 'empty');
wait_until($node, 'SELECT count(*) = 2 FROM pg_replication_slots', 'the slot is gone');
insert_rows(100);
exact('and back from it', qw(stays moves moves_update there));

# Dead letters of checkpoints that have the same number in both pipelines: as if the other one had had some in each.
value(q(SELECT stream_ckpt.create_query('dead', $$ SELECT w.window_start, w.window_end, k, count(*) AS n, sum(10 / (txn - 99)) AS total
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k $$, on_error => 'dead_letter', backfill => false)));

sub insert_bad_row
{
	value("INSERT INTO t VALUES (timestamptz '2024-01-01 00:00 UTC' + $second * interval '1 second', 1, 0, 99)");
	sync_pipelines($node);
	return;
}

insert_bad_row();
move('dead', 'other');
wait_moved('dead', 'other');
value(q(INSERT INTO stream_ckpt.dead_letter (query, kind, sqlstate, message, failed_at, query_id, checkpoint_id, seq)
	SELECT query, 'group', sqlstate, 'made up', failed_at, query_id, p.last_checkpoint + i, 0
	FROM stream_ckpt.dead_letter d, stream_ckpt.pipelines p, generate_series(0, 2000) i
	WHERE p.pipeline = 'other' AND d.kind = 'row' ON CONFLICT DO NOTHING));
insert_bad_row();
is(value(q(SELECT count(*), count(DISTINCT lsn), max(seq) FROM stream_ckpt.dead_letter WHERE kind = 'row')), '2|2|1', 'each row is one letter');
value(q(SELECT stream_ckpt.drop_query('dead')));

# On another number of tasks
value(q(SELECT stream_ckpt.alter_pipeline('default', parallelism => 2)));
value(q(SELECT stream_ckpt.alter_query('stays', parallelism => 2)));
wait_running($node);
insert_rows(200);
sync_pipelines($node);
value(q(SELECT stream_ckpt.alter_pipeline('other', parallelism => 3)));
move('stays', 'other');
wait_moved('stays', 'other');
insert_rows(200);
exact('with two tasks', qw(stays moves moves_update there));
is_refused($node, q(SELECT stream_ckpt.alter_pipeline('other', parallelism => 1)), qr/cannot have a parallelism of 1/, 'fewer tasks than one of its queries has');
move('stays', 'default');
wait_moved('stays', 'default');
insert_rows(200);
exact('and back', qw(stays moves moves_update there));

# Who changes his mind before the giver has seen it; who pauses and who drops meanwhile.
arm($node, 'move_asked', 'wait');
move('moves', 'empty');
is_refused($node, q(SELECT stream_ckpt.drop_pipeline('empty')), qr/cannot be dropped because a query is to move to it/, 'a pipeline to which a query is to move');
wait_reached($node, 'move_asked');
is(where('moves'), 'other>empty', 'it is on its way');
move('moves', 'other');
disarm($node, 'move_asked');
insert_rows(200);
is(where('moves'), 'other', 'it stays');
exact('somebody has changed his mind', qw(stays moves moves_update there));
wait_status($node, 'idle', 'empty');

# The target doesn't answer: nothing has happened to the query, and the giver asks again later.
arm($node, 'move_expected', 'wait');
move('moves', 'default');
wait_reached($node, 'move_expected');
wait_until($node, "SELECT target_id IS NOT NULL AND NOT moving FROM stream_ckpt.query WHERE relid = 'moves'::regclass", 'the giver gives up');
insert_rows(200);
is(where('moves'), 'other>default', 'the query is where it was');
disarm($node, 'move_expected');
wait_moved('moves', 'default');
exact('asked again', qw(stays moves moves_update there));
move('moves', 'other');
wait_moved('moves', 'other');

arm($node, 'move_leaving', 'wait');
move('moves', 'default');
wait_reached($node, 'move_leaving');
value(q(SELECT stream_ckpt.pause_query('moves')));
insert_rows(200);
disarm($node, 'move_leaving');
wait_until($node, "SELECT status = 'paused' FROM stream_ckpt.queries WHERE query = 'moves'::regclass", 'it is paused');
insert_rows(200);
sync_pipelines($node);
is(where('moves'), 'other>default', 'a query that is paused meanwhile stays');
value(q(SELECT stream_ckpt.resume_query('moves')));
wait_moved('moves', 'default');
insert_rows(200);
exact('and goes when it is resumed', qw(stays moves moves_update there));

arm($node, 'move_leaving', 'wait');
move('moves', 'other');
wait_reached($node, 'move_leaving');
create_query($node, 'bystander', 't');
value(q(SELECT stream_ckpt.drop_query('moves')));
disarm($node, 'move_leaving');
insert_rows(200);
sync_pipelines($node);
is(value(q(SELECT count(*) FROM stream_ckpt.state_run r WHERE NOT EXISTS (SELECT FROM stream_ckpt.query q WHERE q.query_id = r.query_id))),
	'0', 'nothing is left of one that is dropped on its way');
value(q(SELECT stream_ckpt.drop_query('bystander')));
exact('dropped on its way', qw(stays moves_update there));

# Somebody holds the query's lock: nobody waits for him.
my $session = $node->background_psql('postgres');
$session->query_safe(q(BEGIN; SELECT stream_ckpt.alter_query('moves_update')));
my $mover = $node->background_psql('postgres');
$mover->query_until(qr/asked/, "\\echo asked\nSELECT stream_ckpt.move_query('moves_update', 'default');\n");
wait_until($node, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%move_query%' AND wait_event = 'object'),
	'the second waits for the first');
$session->query_safe('COMMIT');
wait_until($node, q(SELECT pipeline = 'default' FROM stream_ckpt.queries WHERE query = 'moves_update'::regclass), 'then it moves');
$_->quit for $session, $mover;
arm($node, 'move_leaving', 'wait');
move('moves_update', 'other');
wait_reached($node, 'move_leaving');
$session = $node->background_psql('postgres');
$session->query_safe(q(BEGIN; SELECT stream_ckpt.alter_query('moves_update')));
disarm($node, 'move_leaving');
insert_rows(200);
exact('the lock is taken at the last moment', qw(stays moves_update there));
is(where('moves_update'), 'default>other', 'the query stays as long as its lock is held');
$session->query_safe('COMMIT');
$session->quit;
wait_moved('moves_update', 'other');
insert_rows(200);
exact('and goes when it is free', qw(stays moves_update there));

move('moves_update', 'default');
wait_moved('moves_update', 'default');

# Each step, with each of the deaths, under load.  Both ways in turn.
my @ways = (
	[ 'move_asked', 'kill' ], [ 'move_held', 'kill' ], [ 'move_leaving', 'kill' ], [ 'move_written', 'kill' ],
	[ 'move_committed', 'kill' ], [ 'move_held', 'error' ], [ 'move_leaving', 'error' ], [ 'move_written', 'term' ],
	[ 'move_committed', 'term' ], [ 'move_arrived', 'kill' ], [ 'move_asked', 'target' ], [ 'move_held', 'target' ],
	[ 'move_leaving', 'target' ], [ 'move_written', 'target' ], [ 'move_leaving', 'task' ], [ 'move_written', 'immediate' ], [ 'move_committed', 'immediate' ]);
my $there = 'default';

for my $way (@ways)
{
	my ($point, $how) = @$way;
	my $to = $there eq 'default' ? 'other' : 'default';
	my $test = "$point, $how";
	my $outside = $how =~ /^(target|task|immediate)$/;
	my $writer = start_writer($node, $load_script, clients => 2, transactions => 400, rate => 100);

	note $test;
	arm($node, $point, $outside ? 'wait' : $how, 1);
	try_psql($node, "SELECT stream_ckpt.move_query('moves_update', '$to')");
	ok(eval { wait_reached($node, $point); 1 }, "$test: reached");
	if ($how eq 'immediate')
	{
		$node->stop('immediate');
		disarm($node, $point);
		$node->start;
	}
	elsif ($how eq 'target')
	{
		pass_on($to) if $point eq 'move_written';
		my $pid = value("SELECT reader_pid FROM stream_ckpt.pipelines WHERE pipeline = '$to'");

		kill 'TERM', $pid if $pid ne '';
		wait_until($node, "SELECT status = 'running' AND reader_pid <> $pid FROM stream_ckpt.pipelines WHERE pipeline = '$to'",
			'the target has another attempt')
		  if $pid ne '' && $point ne 'move_held';
		# what it commits and confirms now isn't past where the query will come from
		pass_on($to) if $point eq 'move_written';
	}
	elsif ($how eq 'task')
	{
		kill 'TERM', value("SELECT pid FROM stream_ckpt.tasks WHERE pipeline = '$there' AND pid IS NOT NULL LIMIT 1");
	}
	disarm($node, $point);
	finish_writer($writer);
	wait_up($node);
	# a server that died has forgotten nothing but what was not flushed: the wish may be gone
	wait_until($node, "SELECT stream_ckpt.move_query('moves_update', '$to') IS NOT NULL", "$test: it is asked for");
	wait_moved('moves_update', $to);
	$there = $to;
	exact($test, qw(stays moves_update there));
}

done_testing();
