# Log streams under fire: while writers insert and copy, every process of the pipeline and
# the whole server die.  Each row counts exactly once; the oracle is a table that gets the
# same rows by the same transactions.

use strict;
use warnings;

use File::Spec;
use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', '', draw => {});
my $columns = 'ts timestamptz, k int, v int, txn int';

$node->safe_psql('postgres',
	"SELECT stream_ckpt.create_stream('s', '$columns', event_time => 'ts', watermark_delay => '1 hour'); CREATE TABLE rows ($columns)");
for my $emit (qw(close update))
{
	create_query($node, $emit, 's', emit => $emit);
}
wait_running($node);

my $truth = q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest
	FROM rows, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k);
# read by the server, in whose folder a relative name means something else
my $copy = File::Spec->rel2abs($node->basedir . '/rows.copy');
open my $fh, '>', $copy or die $!;
printf $fh "2024-01-01 00:%02d:%02d+00\t%d\t%d\t0\n", $_ / 60 % 60, $_ % 60, $_ % 7, $_ for 1 .. 2000;
close $fh;

# rows of some transactions are rolled back in part
my $script = <<"SCRIPT";
\\set i random(1, 1000000)
\\set n random(1, 2000)
BEGIN;
WITH new AS (INSERT INTO s SELECT timestamptz '2024-01-01 00:00 UTC' + ((:i + j) % 3000) * interval '1 second', j % 7, j, :i
	FROM generate_series(1, :n) j RETURNING *) INSERT INTO rows SELECT * FROM new;
SAVEPOINT a;
COPY s FROM '$copy';
ROLLBACK TO a;
WITH new AS (INSERT INTO s VALUES (timestamptz '2024-01-01 00:00 UTC' + (:i % 3000) * interval '1 second', 3, 1, :i) RETURNING *)
	INSERT INTO rows SELECT * FROM new;
COPY s FROM '$copy';
COPY rows FROM '$copy';
COMMIT;
SCRIPT

sub check
{
	my ($what) = @_;

	sync_pipelines($node);
	is( join(' ',
			differences($node, 'close', truth => $truth, table => 'rows', delay => '1 hour'),
			differences($node, 'update', truth => $truth, emit => 'update'),
			counter($node, 'update', 'rows_in') - $node->safe_psql('postgres', 'SELECT count(*) FROM rows')),
		'0 0 0', $what);
	return;
}

# Runs writers, and does "what" while they write; they may fail with the server.
sub under_fire
{
	my ($what) = @_;
	my $writer = start_writer($node, $script, clients => 2, transactions => 40);
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM rows');

	wait_until($node, "SELECT count(*) > $before FROM rows", 'rows are being written');
	$what->();
	finish_writer($writer);
	wait_up($node);
	return;
}

for my $which (qw(task reader coordinator))
{
	under_fire(sub { kill 'TERM', pid_of($node, $which) });
	check("SIGTERM of the $which");
}
under_fire(sub { kill 'KILL', pid_of($node, 'task') });
check('SIGKILL of the task');
for my $point (qw(task_after_rows reader_after_barrier coordinator_before_commit coordinator_after_commit))
{
	under_fire(
		sub {
			arm($node, $point, 'kill');
			# the writers may have ended before
			try_psql($node, q(WITH new AS (INSERT INTO s VALUES ('2024-01-01 00:00 UTC', 1, 1, 1) RETURNING *) INSERT INTO rows SELECT * FROM new));
			wait_reached($node, $point);
		});
	disarm($node, $point);
	check("killed at $point");
}
under_fire(sub { $node->stop('immediate'); $node->start; });
check('an immediate stop');

# everything closes
$node->safe_psql('postgres', q(INSERT INTO s VALUES ('2024-01-02 UTC', 1, 1, 1); INSERT INTO rows VALUES ('2024-01-02 UTC', 1, 1, 1)));
check('all windows are closed');
cmp_ok($node->safe_psql('postgres', 'SELECT sum(n) FROM close'), '>', 100000, 'and hold many rows');

$node->stop;
done_testing();
