# Time in our workers: each transaction of theirs has its own, in result columns' defaults, in
# triggers, in functions; and pg_stat_activity shows what they are doing, and since when.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

# "began" lies when it says immutable: it shows what a task's transaction takes for its time.
sql(q(CREATE FUNCTION began(int) RETURNS timestamptz IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN now(); END'),
	q(CREATE FUNCTION shown(int) RETURNS timestamptz IMMUTABLE LANGUAGE plpgsql AS
		'BEGIN RETURN (SELECT xact_start FROM pg_stat_activity WHERE pid = pg_backend_pid() AND state = ''active''); END'),
	q(CREATE TABLE seen (k int, now timestamptz DEFAULT now(), shown timestamptz, query_start timestamptz, state text)));
create_stream_table($node, 't');
foreach my $emit (qw(close update))
{
	create_query($node, $emit, 't', emit => $emit,
		select => q(SELECT w.window_start, k, max(began(v)) AS began, max(shown(v)) AS shown
			FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, k));
	sql(qq(ALTER TABLE "$emit" ADD COLUMN since timestamptz DEFAULT now(), ADD COLUMN stated timestamptz DEFAULT statement_timestamp()));
}
sql(q(CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
		INSERT INTO seen SELECT new.k, now(), xact_start, query_start, state FROM pg_stat_activity WHERE pid = pg_backend_pid();
		RETURN new; END'),
	q(CREATE TRIGGER see AFTER INSERT ON "close" FOR EACH ROW EXECUTE FUNCTION see()));
wait_running($node);

# Rounds of one window each: what a round's rows have of time lies within the round.
my @from;
for my $k (1 .. 3)
{
	push @from, sql('SELECT clock_timestamp()');
	sql(qq(INSERT INTO t VALUES ('2024-01-01 00:00 UTC'::timestamptz + $k * interval '1 hour', $k, 1, 0),
		('2024-01-01 00:30 UTC'::timestamptz + $k * interval '1 hour', 0, 1, 0)));
	sync_pipelines($node);
	my $round = "BETWEEN '$from[-1]' AND clock_timestamp()";
	foreach my $emit (qw(close update))
	{
		foreach my $column (qw(began shown since stated))
		{
			is(sql(qq(SELECT count(*) FROM "$emit" WHERE k = $k AND $column $round)), '1', "round $k, emit $emit: $column");
		}
	}
	is(sql(qq(SELECT count(*) FROM seen WHERE k = $k AND now $round AND shown = now AND query_start = now AND state = 'active')),
		'1', "round $k: in a trigger of the result");
}
is(sql(q(SELECT count(DISTINCT since) FROM "close" WHERE k > 0)), '3', 'checkpoints have times of their own');

# all of them wait, and have worked since; the launcher had nothing to do
wait_until($node, qq(SELECT count(*) = 4 FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt %'
	AND (query_start > '$from[2]' OR backend_type LIKE '%launcher%') AND state = 'idle' AND xact_start IS NULL AND query LIKE 'stream_ckpt: %'),
	'workers are shown as idle, since their last work');

$node->stop;
done_testing();
