# Several pipelines in a database: each has its slot, its workers and its own pace; what happens to one of them is no
# other's business, and every row counts once in each.  Whoever changes a query waits for who is changing it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();

my $node = new_node('main', "stream_ckpt.max_pipelines = 4\n");
create_stream_table($node, 't', delay => '1 minute');

sub value { return $node->safe_psql('postgres', $_[0]); }

my %query = (default => 'of_default', wide => 'of_wide', fast => 'of_fast');    # by pipeline
my @pipelines = sort keys %query;
my $minute = 0;    # of event time

sub insert_rows
{
	my ($n) = @_;

	value("INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + ($minute + i / 60.0) * interval '1 minute', i % 7, i, 0
		FROM generate_series(1, $n) i");
	$minute += int($n / 60) + 1;
	return;
}

sub all_exact
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node);
	results_ok($node, $query{$_}, "$test: $_", table => 't', delay => '1 minute', synced => 1) for grep { $query{$_} } @pipelines;
	return;
}

sub attempts { return value("SELECT string_agg(pipeline || ' ' || attempt, ', ' ORDER BY pipeline) FROM stream_ckpt.pipelines WHERE pipeline <> '$_[0]'"); }

# A query above another's result, which is empty still.
my $above = "SELECT w.window_start, w.window_end, count(*) AS n, sum(total) AS total
	FROM of_fast, stream_ckpt.tumble(of_fast.window_end, '10 minutes') w GROUP BY w.window_start, w.window_end";

sub attach_result { return value("SELECT stream_ckpt.attach_stream('$_[0]', event_time => 'window_end')") || 1; }

value(q(SELECT stream_ckpt.create_pipeline('wide', parallelism => 2, checkpoint_interval => '200 ms')));
value(q(SELECT stream_ckpt.create_pipeline('fast', checkpoint_interval => '20 ms')));
create_query($node, $query{$_}, 't', options => "pipeline => '$_'" . ($_ eq 'wide' ? ', parallelism => 2' : '')) for @pipelines;
create_query($node, 'above', 'of_fast', options => "pipeline => 'wide'", select => $above) if attach_result('of_fast');
wait_status($node, 'running', $_) for @pipelines;
insert_rows(1000);
all_exact('three at once');

is( value(q(SELECT count(*), count(DISTINCT slot_name), bool_and(active) FROM pg_replication_slots)),
	'3|3|t', 'a slot for each, in use');
is(value(q(SELECT string_agg(pipeline || ' ' || n, ', ' ORDER BY pipeline)
		FROM (SELECT pipeline, count(*) AS n FROM stream_ckpt.tasks WHERE pid IS NOT NULL GROUP BY pipeline) s)),
	'default 1, fast 1, wide 2', 'and tasks');
is( value(q(SELECT count(DISTINCT rows_in), min(rows_in) FROM stream_ckpt.queries WHERE stream = 't'::regclass)), '1|1000', 'each has had every row');

# What one writes is another's stream.  Rows that a coordinator writes by the hundred are left out by its own reader only.
insert_rows(20000);
all_exact('rows that go from one to another');
results_ok($node, 'above', 'the query above has them', table => 'of_fast', time => 'window_end');
ok(value('SELECT count(*) > 20 FROM above'), 'and there are some');

# Whatever dies of one, the others go on in the attempt that they are in.
for my $pipeline (@pipelines)
{
	for my $which (qw(reader coordinator task))
	{
		my $others = attempts($pipeline);
		my $attempt = value("SELECT attempt FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'");
		my $pid = $which eq 'task'
		  ? value("SELECT pid FROM stream_ckpt.tasks WHERE pipeline = '$pipeline' LIMIT 1")
		  : value("SELECT ${which}_pid FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'");

		insert_rows(200);
		kill 'TERM', $pid;
		insert_rows(200);
		wait_until($node,
			"SELECT status = 'running' AND attempt > $attempt FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'",
			"$pipeline has another attempt");
		all_exact("the $which of $pipeline dies");
		is(attempts($pipeline), $others, 'the others go on');
	}
}

# The server dies.
insert_rows(3000);
$node->stop('immediate');
$node->start;
wait_status($node, 'running', $_) for @pipelines;
insert_rows(500);
all_exact('after a crash');

# One that is stopped holds up nobody, and loses nothing.
my $others = attempts('wide');
value(q(SELECT stream_ckpt.stop_pipeline('wide')));
wait_status($node, 'stopped', 'wide');
insert_rows(1000);
sync_pipelines($node);
results_ok($node, $query{$_}, "one is stopped: $_", table => 't', delay => '1 minute', synced => 1) for qw(default fast);
is(attempts('wide'), $others, 'the others go on');
isnt(differences($node, $query{wide}, table => 't', delay => '1 minute'), '0', 'what is stopped has no new rows');
value(q(SELECT stream_ckpt.start_pipeline('wide')));
wait_status($node, 'running', 'wide');
all_exact('it is started again');

# A pipeline goes when its queries are gone, with its slot and its workers.
is_refused($node, q(SELECT stream_ckpt.drop_pipeline('fast')), qr/cannot be dropped because it has queries/, 'one with a query');
value(q(SELECT stream_ckpt.drop_query('above')));
value(q(SELECT stream_ckpt.drop_query('of_fast')));
delete $query{fast};
wait_status($node, 'idle', 'fast');
wait_until($node, 'SELECT count(*) = 2 FROM pg_replication_slots', 'its slot is gone');
value(q(SELECT stream_ckpt.drop_pipeline('fast')));
is(value(q(SELECT string_agg(pipeline, ' ' ORDER BY pipeline) FROM stream_ckpt.pipelines)), 'default wide', 'it is gone');
insert_rows(500);
@pipelines = qw(default wide);
all_exact('the rest');

# More than there are places for: the query waits for one, and says so.
value("SELECT stream_ckpt.create_pipeline('p$_')") for 1 .. 3;
create_query($node, "of_p$_", 't', options => "pipeline => 'p$_'") for 1 .. 2;
my ($ret, $stdout, $stderr) = $node->psql('postgres',
	q(SELECT stream_ckpt.create_query('of_p3', $$ SELECT k, count(*) FROM t GROUP BY k $$, pipeline => 'p3', emit => 'update', backfill => false)));
is($ret, 0, 'a query of one pipeline too many is created');
like($stderr, qr/stream_ckpt\.max_pipelines/, 'with a warning that names the setting');
value("SELECT stream_ckpt.drop_query('of_p1')");
wait_status($node, 'idle', 'p1');
value(q(SELECT stream_ckpt.start_pipeline('p3')));
wait_status($node, 'running', 'p3');
insert_rows(200);
sync_pipelines($node);
is(value('SELECT sum(count) = (SELECT count(*) FROM t) - ' . value(q(SELECT count(*) - 200 FROM t)) . ' FROM of_p3'),
	't', 'when there is a place it runs, and has the rows since it was created')
  or diag value('SELECT * FROM of_p3');

# Whoever drops a query waits for who changes it: otherwise what it tells the workers could go to a pipeline that the
# query has left.
my $session = $node->background_psql('postgres');
$session->query_safe(q(BEGIN; SELECT stream_ckpt.pause_query('of_default')));
my $dropper = $node->background_psql('postgres');
$dropper->query_until(qr/asked/, "\\echo asked\nSELECT stream_ckpt.drop_query('of_default');\n");
wait_until($node,
	q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%drop_query%' AND wait_event_type = 'Lock' AND wait_event = 'object'),
	'the drop waits for the pause');
$session->query_safe('COMMIT');
wait_until($node, q(SELECT to_regclass('of_default') IS NULL), 'then it is dropped');
$_->quit for $session, $dropper;
$session = $node->background_psql('postgres');
$session->query_safe(q(BEGIN; SELECT stream_ckpt.pause_query('of_wide')));
is_refused($node, q(SET lock_timeout = '100 ms'; DROP TABLE of_wide CASCADE), qr/lock timeout/, 'DROP TABLE waits, too');
$session->quit;
all_exact_wide();

sub all_exact_wide
{
	results_ok($node, 'of_wide', 'a pause that was not committed', table => 't', delay => '1 minute');
	return;
}

done_testing();
