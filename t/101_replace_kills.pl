# Whatever dies while a query is replaced: its result has the old rows or the new ones, and is exact in the end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $node = new_node('main', '', draw => {});
my $second = 0;
my $factor = 1;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# n rows, each a second behind the one before
sub rows
{
	my ($n) = @_;

	$second += $n;
	return insert_seconds($node, 't', $second - $n + 1, $second);
}

# The same but for a factor, by which rows of one are told from those of the other
sub definition
{
	return "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v * $factor) AS total FROM t,
		stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k";
}

# Has the query the new definition, or is it about to?  Its view may be exchanged while it is being looked at.
sub is_replaced
{
	my ($query) = @_;

	for (1 .. 20)
	{
		my ($ret, $out) = $node->psql('postgres',
			"SELECT pg_get_viewdef('${query}_definition') LIKE '%* $factor)%' OR to_regclass('${query}_replacement') IS NOT NULL");

		return $out eq 't' if $ret == 0;
	}
	die "the definition of $query can't be read";
}

# Of the windows that were over before: all rows by one factor, and none missing
sub whole
{
	my ($table, $until) = @_;

	return sql("SELECT count(*) = count(f) AND count(DISTINCT f) = 1 AND min(f) IN (1, 2) FROM (
		SELECT r.total::numeric / a.total AS f FROM (SELECT window_start, k, sum(v) AS total FROM t, stream_ckpt.tumble(ts, '1 minute')
			WHERE window_end <= timestamptz '2024-01-01 UTC' + $until * interval '1 second' GROUP BY 1, 2) a
		LEFT JOIN $table r USING (window_start, k)) d");
}

create_stream_table($node, 't');
rows(600);
create_query($node, 'live', 't', emit => 'update', select => definition(), options => "backfill => true, allowed_lateness => '1 hour'");
create_query($node, 'closed', 't', emit => 'close', select => definition(), options => 'backfill => true');
create_query($node, 'other', 't', emit => 'update', options => 'backfill => true');
sync_pipelines($node);

my @of_writer = map({ [ $_, 'kill' ] } qw(coordinator_before_handing coordinator_after_handing writer_before_write
	  replacing_locked writer_after_rows replacing_rows_changed replacing_done writer_before_commit
	  writer_after_commit writer_before_end coordinator_writer_ended history_in_scan task_before_snapshot
	  coordinator_parts_collected)),
  [ 'replacing_rows_changed', 'term' ], [ 'replacing_done', 'immediate' ], [ 'writer_after_commit', 'immediate' ];
# If no background worker is free
my @of_coordinator = map({ [ $_, 'kill' ] } qw(replacing_locked coordinator_after_rows replacing_rows_changed replacing_done
	  coordinator_before_commit coordinator_after_commit coordinator_after_ack reader_before_confirm)),
  [ 'replacing_rows_changed', 'term' ], [ 'replacing_done', 'immediate' ];

sub die_at
{
	my ($point, $action, $what) = @_;
	my $until = $second;
	my $writer = start_writer($node, "INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + ($second + 1) * interval '1 second', 1, 1, 0;\n",
		clients => 2, transactions => 20, rate => 100);

	$factor = $factor == 1 ? 2 : 1;
	arm($node, $point, $action eq 'immediate' ? 'wait' : $action, 1);
	for my $query (qw(live closed))
	{
		# the server may be on its way down by the second one
		my ($ret) = $node->psql('postgres', "SELECT stream_ckpt.replace_query('$query', \$\$ " . definition() . ' $$)');
		note "$query: $ret";
	}
	wait_reached($node, $point);
	$node->stop('immediate') if $action eq 'immediate';
	disarm($node, $point);
	$node->start if $action eq 'immediate';
	wait_up($node);
	finish_writer($writer);
	is(whole($_, $until), 't', "$_ is whole, $action at $point$what") for qw(live closed);
	for my $query (qw(live closed))
	{
		next if is_replaced($query);
		$node->safe_psql('postgres', "SELECT stream_ckpt.replace_query('$query', \$\$ " . definition() . ' $$)');
	}
	$second++;
	rows(100);
	results_ok($node, 'live', "live, $action at $point$what", emit => 'update');
	results_ok($node, 'closed', "closed, $action at $point$what", table => 't', synced => 1);
	is(sql("SELECT count(*) FILTER (WHERE relname LIKE '%replacement%'), (SELECT count(*) FROM stream_ckpt.query) FROM pg_class"), '0|3',
		'and nothing else');
	return;
}

die_at(@$_, '') for @of_writer;
sql('ALTER SYSTEM SET max_worker_processes = ' . (4 + drawn($node)->{tasks}));
$node->restart;
wait_running($node);
die_at(@$_, ' of the coordinator') for @of_coordinator;
like(slurp_file($node->logfile), qr/no background worker is free to write a large result/, 'the coordinator wrote');
results_ok($node, 'other', 'the other query', emit => 'update');

$node->stop;
done_testing();
