# Whatever dies while a query begins with its stream's history, and while it catches up: each row is counted once.

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
my $n = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub rows
{
	my ($count) = @_;

	$n++;
	return "INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + $n * interval '1 minute' + i * interval '1 second', i % 20, i, $n
		FROM generate_series(1, $count) i;";
}

create_stream_table($node, 't', delay => '1 day');
create_query($node, 'other', 't', emit => 'update');
sync_pipelines($node);
sql(rows(3000));

# Of who writes the first part of a large query, and of who writes all others
my @places = (
	map({ [ $_, 'kill' ] }
		qw(history_begins history_before_snapshot history_after_snapshot history_in_scan history_after_scan task_after_rows
		  coordinator_parts_collected coordinator_before_write coordinator_after_rows coordinator_before_commit
		  coordinator_after_commit coordinator_after_ack reader_before_confirm)),
	map({ [ $_, 'term' ] } qw(history_in_scan history_after_scan task_before_snapshot)),
	[ 'history_in_scan', 'error' ], [ 'history_after_snapshot', 'immediate' ]);

for my $large (0, 1)
{
	my @all = @places;

	@all = map { [ $_, 'kill' ] } qw(coordinator_before_handing coordinator_after_handing writer_before_write writer_after_rows
	  writer_before_commit coordinator_writer_ended)
	  if $large;
	sql("ALTER SYSTEM SET stream_ckpt.debug_large_part = " . ($large ? 10 : 1000000));
	$node->reload;
	for my $place (@all)
	{
		my ($point, $action) = @$place;
		my $name = "q_${large}_$n";
		my $hold = $point =~ /^history_(begins|before|after_snapshot)/ ? undef : 'history_after_snapshot';

		# rows that the snapshot shows, and rows that it doesn't, are in the log behind the history
		arm($node, 'history_begins', 'wait') if $hold;
		arm($node, $point, $action eq 'immediate' ? 'wait' : $action, 1) unless $hold;
		create_query($node, $name, 't', emit => 'update', options => 'backfill => true');
		if ($hold)
		{
			wait_reached($node, 'history_begins');
			sql(rows(60));
			arm($node, $hold, 'wait');
			disarm($node, 'history_begins');
			wait_reached($node, $hold);
			sql(rows(70));
			arm($node, $point, $action, 1);
			disarm($node, $hold);
		}
		wait_reached($node, $point);
		if ($action eq 'immediate')
		{
			$node->stop('immediate');
			disarm($node, $point);
			$node->start;
		}
		wait_up($node);
		disarm($node, $point);
		sql(rows(50));
		if ($action eq 'error')
		{
			wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = '$name'::regclass",
				'it is the failure of the query');
			sql("SELECT stream_ckpt.resume_query('$name')");
		}
		results_ok($node, $name, "$action at $point", emit => 'update');
		sql("SELECT stream_ckpt.drop_query('$name')");
	}
}
results_ok($node, 'other', 'the other query', emit => 'update');

$node->stop;
done_testing();
