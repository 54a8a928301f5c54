# A row goes to those tasks only that have a query on its stream; ends of transactions go to all, and each query has
# exactly the rows of its stream, whatever transactions mix, however messages are cut, and whichever queries come later.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $TASKS = 4;
my $node = new_node('main', '', draw => { tasks => [$TASKS] });
my $n = 0;
sub sql { return $node->safe_psql('postgres', $_[0]); }

# rows_in of the tasks that had rows since "before", the numbers in order
sub rows_of_tasks { return { map { split /\|/ } split /\n/, sql('SELECT task, rows_in FROM stream_ckpt.tasks') }; }

sub taken_since
{
	my ($before) = @_;
	my $now = rows_of_tasks();

	return join ' ', sort { $a <=> $b } grep { $_ > 0 } map { $now->{$_} - ($before->{$_} // 0) } keys %$now;
}

# One transaction that inserts by turns into these tables, "each" rows into each of them.
sub insert
{
	my ($each, @tables) = @_;

	sql(join "\n", 'BEGIN;', (
			map { my $table = $_;
				"INSERT INTO $table (ts, k, v, txn) SELECT timestamptz '2024-01-01 00:00 UTC' + ($n + i) * interval '1 second', i % " . ($table eq 'part_1' ? 2 : 5) . ", i, $n
					FROM generate_series(1, $each) i;" } @tables, reverse @tables), 'COMMIT;');
	$n += $each;
	return;
}

sub query
{
	my ($name, $table, %opt) = @_;
	create_query($node, $name, $table, tasks => $opt{tasks} // 1, emit => $opt{emit});
	return;
}

sub all_ok
{
	my ($test, %stream) = @_;

	sync_pipelines($node);
	for my $name (sort keys %stream)
	{
		results_ok($node, $name, "$test: $name", table => $stream{$name}, emit => $name =~ /update/ ? 'update' : 'close', synced => 1);
		is(counter($node, $name, 'rows_in'), sql("SELECT count(*) FROM $stream{$name}"), "$test: $name has each row once");
	}
	return;
}

create_stream_table($node, $_) for qw(a b nobodys);
sql(q(CREATE TABLE parted (ts timestamptz, k int, v int, txn int) PARTITION BY LIST (k);
	CREATE TABLE part_1 (txn int, v int, k int, ts timestamptz);
	ALTER TABLE parted ATTACH PARTITION part_1 FOR VALUES IN (0, 1);
	CREATE TABLE part_2 PARTITION OF parted DEFAULT));
attach($node, 'parted');
query('qa', 'a');
wait_running($node);

# One query: one task has rows.  A stream is captured from its first query on.
my $before = rows_of_tasks();
insert(20, 'a', 'nobodys');
all_ok('one query', qa => 'a');
is(taken_since($before), '40', 'one task has its rows, and no others');

# Others, in their turn: each task has rows of its queries' streams.
query('qb_update', 'b', emit => 'update');
query('qp', 'parted');
my %stream = (qa => 'a', qb_update => 'b', qp => 'parted');
wait_running($node);
$before = rows_of_tasks();
insert(20, 'a', 'b', 'nobodys', 'parted');
all_ok('three streams', %stream);
# their ids follow each other, and say where they are
is(taken_since($before), '40 40 40', 'three tasks have the rows of one stream each');
$before = rows_of_tasks();
my $checkpoint = sql('SELECT max(id) FROM stream_ckpt.checkpoints');
insert(500, 'parted');
all_ok('one stream', %stream);
is(taken_since($before), '1000', 'one of them');
is(sql("SELECT sum(rows_in) FROM stream_ckpt.checkpoints WHERE id > $checkpoint AND status = 'completed'"), '1000',
	'a checkpoint counts rows once, whoever has them');

# The watermark of a stream moves in tasks that have no rows of it between: all have the ends of transactions.
is(sql("SELECT count(DISTINCT lsn) FROM stream_ckpt.tasks"), '1', 'all tasks have the last transaction\'s end');

# Two queries on one stream, one of them in all tasks, and a partition that is a stream itself.
query('qa_update', 'a', emit => 'update', tasks => $TASKS);
attach($node, 'part_1');
query('q1_update', 'part_1', emit => 'update');
wait_running($node);
%stream = (%stream, qa_update => 'a', q1_update => 'part_1');
my %begun = (qa_update => sql('SELECT count(*) FROM a'), q1_update => sql('SELECT count(*) FROM part_1'));
$before = rows_of_tasks();
insert(30, 'a');
is(sql('SELECT stream_ckpt.sync() IS NOT NULL'), 't', 'sync()');
is(taken_since($before), '60 60 60 60', 'all tasks have the rows of a query that runs in all');
$before = rows_of_tasks();
insert(30, 'parted', 'nobodys');
is(sql('SELECT stream_ckpt.sync() IS NOT NULL'), 't', 'sync()');
like(taken_since($before), qr/^(60|24 60)$/, 'rows of a partition go to those who have it, or the table above it');

# In another attempt the coordinator places them anew; what it reads again is the same.
insert(10, 'a', 'b', 'parted', 'nobodys', 'part_1');
my $pid = pid_of($node, 'task');
kill 'TERM', $pid;
insert(10, 'b', 'parted', 'a');
wait_restarted($node, 'task', $pid);
insert(10, 'part_1', 'b');
sync_pipelines($node);
for my $name (sort keys %stream)
{
	my $missed = $begun{$name} // 0;

	is(counter($node, $name, 'rows_in'), sql("SELECT count(*) - $missed FROM $stream{$name}"), "after a restart: $name has each row once");
	next if $missed;
	results_ok($node, $name, "after a restart: $name", table => $stream{$name}, emit => $name =~ /update/ ? 'update' : 'close', synced => 1);
}

# Log streams, whose rows come many in a record; and one that is created in the transaction that has rows before.
sql(q(SELECT stream_ckpt.create_stream('l', 'ts timestamptz, k int, v int, txn int', event_time => 'ts')));
sql(q(CREATE TABLE l_rows (LIKE a)));
query('ql_update', 'l', emit => 'update');
wait_running($node);
$before = rows_of_tasks();
for my $part (1 .. 3)
{
	sql("BEGIN; INSERT INTO l_rows SELECT timestamptz '2024-01-01 00:00 UTC' + (i + $part * 3000) * interval '1 second', i % 5, i, $part FROM generate_series(1, 3000) i;
		INSERT INTO l SELECT * FROM l_rows WHERE txn = $part; COMMIT");
}
sync_pipelines($node);
is(taken_since($before), '9000', 'one task has the rows of a log stream');
is(differences($node, 'ql_update', emit => 'update',
		truth => sql("SELECT pg_get_viewdef('ql_update_definition')") =~ s/;\s*$//r =~ s/\bFROM l\b/FROM l_rows l/r), '0', 'all of them count');
sql(q(BEGIN; INSERT INTO nobodys VALUES ('2024-01-01 00:00 UTC', 1, 1, 0);
	SELECT stream_ckpt.create_query('qn_update', $$ SELECT w.window_start, w.window_end, k, count(*) AS n FROM nobodys,
		stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k $$, emit => 'update',
		backfill => false); COMMIT));
wait_running($node);
$before = rows_of_tasks();
insert(25, 'nobodys');
sync_pipelines($node);
is(taken_since($before), '50', 'a stream has its first query');
is(counter($node, 'qn_update', 'rows_in'), '50', 'which begins behind its transaction');

$node->stop;
done_testing();
