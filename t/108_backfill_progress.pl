# What users see of a query that begins with its stream's history: its phase, how far it is, what sync() says; and they can
# drop it in each phase.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', '', draw => {});
my $options = 'backfill => true';
my $select = 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What an error says
sub error_of
{
	my (undef, undef, $stderr) = $node->psql('postgres', $_[0]);

	return $stderr;
}

sub rows
{
	my ($minute, $n) = @_;

	return "INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + $minute * interval '1 minute' + i * interval '1 second', i % 20, i, 0
		FROM generate_series(1, $n) i;";
}

# phase, and whether these are known: rows, blocks, all blocks, percent, begin, estimated end
sub progress_is
{
	my ($expected, $what) = @_;

	return is(sql(q(SELECT concat_ws(' ', status, backfill_phase, backfill_rows > 0, backfill_blocks BETWEEN 0 AND backfill_total_blocks,
			backfill_percent, backfill_begun <= now(), backfill_estimated_end >= backfill_begun)
		FROM stream_ckpt.queries WHERE query = 'q'::regclass)), $expected, $what);
}

create_stream_table($node, 't', delay => '1 day');
create_query($node, 'other', 't', emit => 'update', select => $select);
sync_pipelines($node);
sql(rows(0, 5000));

# In the transaction that creates it nothing can be waited for
like(error_of("BEGIN; SELECT stream_ckpt.create_query('q', '$select', $options); SELECT stream_ckpt.sync('10 minutes')"),
	qr/sync\(\) cannot wait for query "q" in the transaction that created or changed it.*COMMIT/s, 'sync() of all, in its transaction');
like(error_of("BEGIN; SELECT stream_ckpt.create_query('q', '$select', $options); SELECT stream_ckpt.sync('10 minutes', 'q')"),
	qr/sync\(\) cannot wait for query "q" in the transaction that created or changed it/, 'sync() of the query, in its transaction');

# Phase by phase; pages are few, and the event times are read before the rows
arm($node, 'history_begins', 'wait');
create_query($node, 'q', 't', emit => 'update', options => $options);
wait_reached($node, 'history_begins');
progress_is('backfilling locking', 'before the tables are locked');
like(error_of("SELECT stream_ckpt.sync('100 ms')"), qr/sync\(\) timed out while query "q" begins with the rows of "t".*phase is "locking"/s,
	'sync() of all says so');
arm($node, 'history_in_scan', 'wait 2');
disarm($node, 'history_begins');
wait_reached($node, 'history_in_scan');
my $percent = sql("SELECT backfill_percent FROM stream_ckpt.queries WHERE query = 'q'::regclass");
cmp_ok($percent, '>', 0, 'some of the first pass');
cmp_ok($percent, '<', 50, 'is less than half');
progress_is("backfilling reading times t t $percent t t", 'event times');
arm($node, 'history_in_scan', 'wait 6');
wait_reached($node, 'history_in_scan');
$percent = sql("SELECT backfill_percent FROM stream_ckpt.queries WHERE query = 'q'::regclass");
cmp_ok($percent, '>', 50, 'of the second one it is more than half');
cmp_ok($percent, '<', 100, 'and not all');
progress_is("backfilling reading rows t t $percent t t", 'rows');
like(error_of("SELECT stream_ckpt.sync('100 ms', 'q')"), qr/query "q" begins with the rows of "t".*"reading rows": \d+\.\d % of the reading/s,
	'sync() of the query says how far it is');
arm($node, 'coordinator_before_write', 'wait');
disarm($node, 'history_in_scan');
wait_reached($node, 'coordinator_before_write');
progress_is('backfilling writing t t 100 t', 'the first result is being written');
disarm($node, 'coordinator_before_write');
is(sql("SELECT stream_ckpt.sync('10 minutes', 'q') IS NOT NULL"), 't', 'sync() of the query waits for its history');
progress_is('running', 'nothing is said of it when that is in');
results_ok($node, 'q', 'it is complete', emit => 'update', synced => 1);
sql(rows(100, 100));
is(sql("SELECT stream_ckpt.sync('10 minutes', 'q_definition') IS NOT NULL"), 't', 'and for later rows');
results_ok($node, 'q', 'which are in', emit => 'update', synced => 1);

# One that is paused or has failed isn't waited for
sql("SELECT stream_ckpt.pause_query('q')");
like(error_of("SELECT stream_ckpt.sync('10 minutes', 'q')"), qr/query "q" is paused: rows are missing/, 'sync() of a query that is paused');
sql("SELECT stream_ckpt.resume_query('q')");
is(sql("SELECT stream_ckpt.sync('10 minutes', 'q') IS NOT NULL"), 't', 'resumed');
sql("SELECT stream_ckpt.drop_query('q')");
create_query($node, 'q', 't', emit => 'update', select => 'SELECT k, sum(1 / (v - 4711)) AS total FROM t GROUP BY k', options => $options);
wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'q'::regclass", 'a query fails in its history');
progress_is('failed', 'that has no phase');
like(error_of("SELECT stream_ckpt.sync('10 minutes', 'q')"), qr/query "q" has failed: rows are missing/, 'sync() of a query that has failed');
sql("SELECT stream_ckpt.drop_query('q')");

# One that can't be begun holds up nobody's sync() but its own
my $locking = $node->background_psql('postgres', on_error_stop => 1);
arm($node, 'history_begins', 'wait');
create_query($node, 'q', 't', emit => 'update', select => $select, options => $options);
wait_reached($node, 'history_begins');
$locking->query_safe('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
disarm($node, 'history_begins');
wait_until($node, "SELECT status = 'retrying' FROM stream_ckpt.queries WHERE query = 'q'::regclass", 'its table is locked');
progress_is('retrying waiting', 'it waits');
like(error_of("SELECT stream_ckpt.sync('30 s')"), qr/^psql:<stdin>:1: WARNING:  query "q" could not begin with the rows of "t" yet.*\nHINT:  It is tried again by itself: [^\n]*$/,
	'sync() of all warns');
like(error_of("SELECT stream_ckpt.sync('100 ms', 'q')"), qr/sync\(\) timed out while query "q" begins with the rows of "t".*"waiting"/s,
	'sync() of the query waits');
$locking->query_safe('COMMIT');
$locking->quit;
is(sql("SELECT stream_ckpt.sync('10 minutes', 'q') IS NOT NULL"), 't', 'until it is there');
results_ok($node, 'q', 'with all rows', emit => 'update', synced => 1);
sql("SELECT stream_ckpt.drop_query('q')");

# Dropped in each phase: others go on, and nothing of it is left
for my $large (0, 1)
{
	sql("ALTER SYSTEM SET stream_ckpt.debug_large_part = " . ($large ? 10 : 1000000));
	$node->reload;
	for my $point ($large ? qw(coordinator_before_handing writer_before_write writer_before_commit) :
		('history_begins', 'history_before_snapshot', 'history_after_snapshot', 'history_in_scan 2', 'history_in_scan 6', 'history_after_scan',
			'task_before_snapshot', 'coordinator_parts_collected', 'coordinator_before_write', 'coordinator_before_commit', 'coordinator_after_ack'))
	{
		my ($place, $n) = split / /, $point;

		arm($node, $place, 'wait', $n // 1);
		create_query($node, 'q', 't', emit => 'update', options => $options);
		wait_reached($node, $place);
		# what is being committed just then is waited for
		my $dropping = $node->background_psql('postgres', on_error_stop => 1);
		$dropping->query_until(qr/begun/, "\\echo begun\nSELECT stream_ckpt.drop_query('q');\n");
		wait_until($node, q(SELECT NOT EXISTS (SELECT FROM stream_ckpt.queries WHERE query::text = 'q') OR
				EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%drop_query%' AND pid <> pg_backend_pid())),
			"dropped at $point, or waits");
		disarm($node, $place);
		$dropping->quit;
		sql(rows(200, 10));
		results_ok($node, 'other', "dropped at $point", emit => 'update');
		wait_until($node, q(SELECT NOT EXISTS (SELECT FROM stream_ckpt.query_history) AND
				(SELECT count(*) = 1 FROM stream_ckpt.checkpoint_offset) AND (SELECT count(DISTINCT query_id) <= 1 FROM stream_ckpt.state_run)),
			'nothing is left');
	}
}

$node->stop;
done_testing();
