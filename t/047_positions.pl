# Where queries are: one with nothing new costs a checkpoint nothing and goes on with the others; one that
# is paused, has failed, waits, or is ahead of the others has a position of its own.  No row is lost or counted
# twice on the way from one to the other, whatever dies between.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.result_lock_timeout = 100ms\n", draw => { memory => [ 0 ] });
create_stream_table($node, $_) for qw(busy quiet);
create_query($node, 'busy_q', 'busy', emit => 'update');
my @quiet = map { "quiet_$_" } 1 .. 20;
create_query($node, $_, 'quiet', emit => 'update') for @quiet;
wait_running($node);

my $n = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub rows
{
	my ($table, $count) = @_;

	sql("INSERT INTO $table SELECT timestamptz '2024-01-01 00:00 UTC' + ($n + i) * interval '1 second', i % 3, i, $n + i
		FROM generate_series(1, $count) i");
	$n += $count;
	return;
}

sub checkpoint { return checkpoint_all($node); }

sub status_is
{
	my ($query, $status) = @_;
	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$query'::regclass",
		"$query is $status");
}

# The results, and that each row was counted once.
sub exact
{
	my ($what) = @_;

	sync_pipelines($node);
	is(join(' ', map { differences($node, $_, emit => 'update') } qw(busy_q quiet_1 quiet_2)), '0 0 0', "exact: $what");
	is( sql(q(SELECT string_agg((rows_in - CASE WHEN stream = 'busy'::regclass THEN (SELECT count(*) FROM busy)
				ELSE (SELECT count(*) FROM quiet) END)::text, ' ' ORDER BY query_id)
			FROM stream_ckpt.queries WHERE query IN ('busy_q'::regclass, 'quiet_1'::regclass, 'quiet_2'::regclass))),
		'0 0 0', "each row once: $what");
	return;
}

# The query's own row, as it is stored; is it at the pipeline's last checkpoint?
sub stored { return sql("SELECT o.xmin FROM stream_ckpt.checkpoint_offset o JOIN stream_ckpt.queries q USING (query_id) WHERE q.query = '$_[0]'::regclass"); }

sub goes_with_others
{
	return sql("SELECT q.lsn = s.lsn AND q.checkpoint_id = s.checkpoint_id FROM stream_ckpt.queries q, stream_ckpt.pipeline_state s
		WHERE query = '$_[0]'::regclass");
}

sub crash
{
	$node->stop('immediate');
	$node->start;
	wait_running($node);
	return;
}

rows('busy', 10);
rows('quiet', 10);
exact('before');
sql(q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')));
sync_pipelines($node);

# Nothing new: no row is written, no xid is taken for it.
my $before = stored('quiet_1');
my $xid = sql('SELECT pg_current_xact_id()');
for (1 .. 10)
{
	rows('busy', 1);
	sql('SELECT stream_ckpt.sync()');
}
cmp_ok(sql('SELECT pg_current_xact_id()') - $xid, '<=', 10 * 3 + 5, 'a checkpoint takes xids for what has news');
is(stored('quiet_1'), $before, 'no row is written for a query with nothing new');
is(goes_with_others('quiet_1'), 't', 'it goes with the others');
is(goes_with_others('busy_q'), 't', 'as does the one with news');
ok(sql(q(SELECT bool_and(confirmed_flush_lsn > (SELECT min(lsn) FROM stream_ckpt.checkpoint_offset)) FROM stream_ckpt.pipelines)) eq 't',
	'the slot goes on, too');
exact('with nothing new');
crash();
exact('after a crash');

# Paused when nothing was new; the others go on, and all dies before and after the pause's checkpoint.
for my $when (qw(before after))
{
	rows('busy', 5);
	sync_pipelines($node);
	sql(q(SELECT stream_ckpt.pause_query('quiet_1')));
	rows('quiet', 5);
	if ($when eq 'after')
	{
		checkpoint();
		rows('busy', 5);
		sync_pipelines($node);
		is(goes_with_others('quiet_1'), 'f', 'a paused query keeps its place');
	}
	crash();
	rows('busy', 5);
	sync_pipelines($node);
	is(goes_with_others('quiet_1'), 'f', "a paused query keeps its place after a crash $when its last checkpoint");
	crash();
	rows('quiet', 5);
	sql(q(SELECT stream_ckpt.resume_query('quiet_1')));
	exact("paused, and a crash $when its last checkpoint");
	is(goes_with_others('quiet_1'), 't', 'resumed, it goes with the others again');
}

# Fails in its task, when others have gone on long since.
sql(q(SELECT stream_ckpt.create_query('divides', 'SELECT w.window_start, w.window_end, k, sum(100 / v) AS s
	FROM quiet, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start, w.window_end, k', emit => 'update', backfill => false)));
sql('DELETE FROM quiet; SELECT stream_ckpt.drop_query(q) FROM unnest(ARRAY[\'quiet_1\', \'quiet_2\']::regclass[]) q');
create_query($node, $_, 'quiet', emit => 'update') for qw(quiet_1 quiet_2);
rows('quiet', 5);
sync_pipelines($node);
for (1 .. 3)
{
	rows('busy', 1);
	sync_pipelines($node);
}
sql(q(INSERT INTO quiet SELECT max(ts), 1, 0, 0 FROM quiet));
sql('SELECT stream_ckpt.sync()');
status_is('divides', 'failed');
rows('busy', 1);
rows('quiet', 5);
sql('SELECT stream_ckpt.sync()');
crash();
rows('busy', 1);
sql('SELECT stream_ckpt.sync()');
is(goes_with_others('divides'), 'f', 'a query that has failed keeps its place');
is(goes_with_others('quiet_1'), 't', 'the others go on');
is(sql(q(SELECT rows_in FROM stream_ckpt.queries WHERE query = 'divides'::regclass)), '5', 'it has the rows before the one at fault');
sql(q(SELECT stream_ckpt.drop_query('divides')));
exact('beside a query that has failed');

# Its rows wait for a lock over several checkpoints, in which nothing of it is new; and all dies meanwhile.
for my $end (qw(release crash))
{
	my $locker = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE quiet_1 IN SHARE MODE');
	rows('quiet', 5);
	checkpoint();
	wait_until($node, "SELECT status = 'waiting' FROM stream_ckpt.queries WHERE query = 'quiet_1'::regclass", 'quiet_1 waits');
	my $own = counter($node, 'quiet_1', 'lsn');
	rows('busy', 1);
	checkpoint();
	rows('busy', 1);
	checkpoint();
	is(counter($node, 'quiet_1', 'lsn'), $own, "it keeps its place while it waits, $end");
	crash() if $end eq 'crash';
	$locker->quit;
	exact("after it waited, $end");
	is(goes_with_others('quiet_1'), 't', "it goes with the others again, $end");
}

# Parts that share a subtransaction: two of them can't be written, one turns out to run code of its owner's.  All
# others have their rows, and those two when they can.
my @alike = map { "quiet_$_" } 3 .. 20;

sub alike
{
	my ($what, @queries) = @_;

	is(sql('SELECT count(*) FROM (' . join(' UNION ALL ', map { "(SELECT '$_', * FROM quiet_20 EXCEPT ALL SELECT '$_', * FROM $_)
		UNION ALL (SELECT '$_', * FROM $_ EXCEPT ALL SELECT '$_', * FROM quiet_20)" } @queries) . ') d'), '0', $what);
	return;
}

{
	my $locker = $node->background_psql('postgres');

	sql(q(CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER nothing AFTER INSERT OR UPDATE ON quiet_7 FOR EACH ROW EXECUTE FUNCTION nothing()));
	$locker->query_safe('BEGIN; LOCK TABLE quiet_5, quiet_12 IN SHARE MODE');
	rows('quiet', 5);
	checkpoint();
	is(counter($node, $_, 'status'), 'waiting', "$_ waits") for qw(quiet_5 quiet_12);
	alike('those that share a subtransaction with them have their rows', grep { !/^quiet_(5|12)$/ } @alike);
	is(sql(q(SELECT count(*) FROM stream_ckpt.queries WHERE failures > 0)), '2', 'nobody else has failed');
	is(sql("SELECT (SELECT sum(n) FROM quiet_20) - (SELECT sum(n) FROM $_)"), '5', "$_ has not") for qw(quiet_5 quiet_12);
	$locker->quit;
	exact('after parts that could not be written together');
	alike('all have their rows', @alike);
}

# The reader goes back for a query that was resumed, and a checkpoint is committed there: the others are ahead
# of it, and stay so when all ends there.
for my $signal (qw(TERM KILL))
{
	sql(q(SELECT stream_ckpt.pause_query('quiet_1')));
	rows('quiet', 5);
	checkpoint();
	rows('busy', 50);
	sync_pipelines($node);
	my $ahead = counter($node, 'busy_q', 'lsn');
	arm($node, 'reader_before_read', 'wait');
	sql(q(SELECT stream_ckpt.resume_query('quiet_1')));
	wait_reached($node, 'reader_before_read');
	arm($node, 'coordinator_after_commit', 'wait');
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_until(qr/asked/, "\\echo asked\nSELECT stream_ckpt.checkpoint();\n");
	wait_until($node, 'SELECT checkpoint_in_progress IS NOT NULL FROM stream_ckpt.pipelines', 'a checkpoint is under way');
	disarm($node, 'reader_before_read');
	wait_reached($node, 'coordinator_after_commit');
	is( sql("SELECT lsn < '$ahead' FROM stream_ckpt.pipeline_state"), 't', "the checkpoint is behind the others, $signal");
	is(sql("SELECT bool_and(lsn >= '$ahead') FROM stream_ckpt.queries WHERE query <> 'quiet_1'::regclass"), 't',
		"they stay ahead, $signal");
	# its commit is flushed with this one
	sql(q(SELECT pg_logical_emit_message(true, 'test', '')));
	my $pid = pid_of($node, 'coordinator');
	kill $signal, $pid;
	wait_until($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)", 'the coordinator is gone');
	disarm($node, 'coordinator_after_commit');
	eval { $session->quit; };
	wait_running($node);
	exact("the coordinator ended by $signal where the reader had gone back");
	is(goes_with_others($_), 't', "$_ goes with the others again, $signal") for qw(busy_q quiet_1 quiet_2);
}

# A gap that is accepted for another reason than a slot that is ahead.
sql(q(SELECT stream_ckpt.pause_query('quiet_1')));
checkpoint();
rows('busy', 5);
sync_pipelines($node);
sql(q(SELECT stream_ckpt.stop_pipeline('default')));
wait_status($node, 'stopped');
sql('UPDATE stream_ckpt.pipeline_state SET format = 0');
sql(q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
rows('busy', 5);
sync_pipelines($node);
is(counter($node, 'busy_q', 'rows_in'), sql('SELECT count(*) FROM busy'), 'no row is counted twice after a gap');

$node->stop;
done_testing();
