# Rows count when their transaction commits, and in that order, whatever the order in which
# they were written and whatever dies in between.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', '', draw => {});
create_stream_table($node, 't', delay => '1 hour');
create_query($node, 'closed', 't', emit => 'close');
create_query($node, 'live', 't', emit => 'update');
wait_running($node);

sub insert
{
	my ($minute, $k) = @_;
	return
	  "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $minute * interval '1 minute' + i * interval '1 second', $k, i, $k FROM generate_series(1, 100) i;";
}

sub check
{
	my ($what) = @_;

	sync_pipelines($node);
	is( join(' ',
			differences($node, 'closed', table => 't', delay => '1 hour'),
			differences($node, 'live', emit => 'update'),
			counter($node, 'live', 'rows_in')
			  - $node->safe_psql('postgres', 'SELECT count(*) FROM t')),
		'0 0 0',
		$what);
	return;
}

sub checkpoint
{
	$node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()');
	return;
}

sub restart_task
{
	my $pid = pid_of($node, 'task');
	kill 'TERM', $pid;
	wait_restarted($node, 'task', $pid);
	wait_running($node);
	return;
}

# One transaction begins first and commits last.
my $first = $node->background_psql('postgres', on_error_stop => 1);
$first->query_safe('BEGIN');
$first->query_safe(insert(0, 1));
for my $i (1 .. 5)
{
	$node->safe_psql('postgres', insert($i, 2));
	checkpoint();
}
check('while a transaction is open');
is( $node->safe_psql('postgres', 'SELECT count(*) FROM live WHERE k = 1'),
	'0', 'nothing of the open transaction');
restart_task();
$node->safe_psql('postgres', insert(6, 3));
checkpoint();
$first->query_safe(insert(1, 1));
$first->query_safe('COMMIT');
check('it commits last');
cmp_ok(
	$node->safe_psql('postgres', 'SELECT count(*) FROM live WHERE k = 1'),
	'>', 0, 'and is there');

# Aborted, in whole and in part.
$first->query_safe('BEGIN');
$first->query_safe(insert(10, 4));
$node->safe_psql('postgres', insert(11, 5));
$first->query_safe('ROLLBACK');
$node->safe_psql(
	'postgres',
	'BEGIN;'
	  . insert(12, 6)
	  . 'SAVEPOINT a;'
	  . insert(12, 7)
	  . 'SAVEPOINT b;'
	  . insert(13, 8)
	  . 'ROLLBACK TO a;'
	  . insert(13, 9)
	  . 'RELEASE a;'
	  . insert(14, 10)
	  . 'SAVEPOINT c;'
	  . insert(15, 11)
	  . 'ROLLBACK TO c;'
	  . 'COMMIT;');
check('aborted transactions and subtransactions');
is( $node->safe_psql(
		'postgres', 'SELECT string_agg(DISTINCT k::text, \' \' ORDER BY k::text) FROM live WHERE k > 3'),
	'10 5 6 9',
	'only what was committed');

# many subtransactions
$node->safe_psql(
	'postgres', q(
	DO $$
	BEGIN
		FOR i IN 1..200 LOOP
			BEGIN
				INSERT INTO t VALUES (timestamptz '2024-01-01 00:20 UTC' + i * interval '1 second', 20, i, 20);
				IF i % 3 = 0 THEN
					RAISE EXCEPTION 'no';
				END IF;
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
		END LOOP;
	END $$));
check('200 subtransactions, a third of them rolled back');

# Prepared: neither before its end, nor lost over a crash.
$node->safe_psql('postgres',
	'BEGIN;' . insert(30, 31) . q(PREPARE TRANSACTION 'one';));
$node->safe_psql('postgres',
	'BEGIN;' . insert(31, 32) . q(PREPARE TRANSACTION 'two';));
$node->safe_psql('postgres', insert(32, 33));
check('while transactions are prepared');
is( $node->safe_psql(
		'postgres', 'SELECT count(*) FROM live WHERE k IN (31, 32)'),
	'0',
	'nothing of them');
$first->quit;
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', insert(33, 34));
check('after a crash they still are');
$node->safe_psql('postgres', q(COMMIT PREPARED 'one'));
$node->safe_psql('postgres', q(ROLLBACK PREPARED 'two'));
check('one committed, one rolled back');
is( $node->safe_psql(
		'postgres', q(SELECT string_agg(DISTINCT k::text, ' ') FROM live WHERE k IN (31, 32))),
	'31',
	'as it was decided');

# A transaction over a stop, a crash of a task and a checkpoint of others, then late: no
# delay helps against one that is later than the delay.
create_stream_table($node, 'u');
create_query($node, 'u_closed', 'u', emit => 'close');
my $late = $node->background_psql('postgres', on_error_stop => 1);
$late->query_safe('BEGIN');
$late->query_safe(
	q(INSERT INTO u VALUES ('2024-01-01 00:00:10 UTC', 1, 1, 1), ('2024-01-01 00:09 UTC', 1, 1, 1)));
$node->safe_psql('postgres',
	q(INSERT INTO u VALUES ('2024-01-01 00:00:20 UTC', 1, 1, 2), ('2024-01-01 00:05 UTC', 1, 1, 2)));
sync_pipelines($node);
$late->query_safe('COMMIT');
$node->safe_psql('postgres',
	q(INSERT INTO u VALUES ('2024-01-01 00:20 UTC', 1, 1, 3)));
sync_pipelines($node);
is(query_late_rows($node, 'u_closed'), '1', 'the late row is counted');
is( $node->safe_psql(
		'postgres',
		q(SELECT string_agg(n::text, ' ' ORDER BY window_start) FROM u_closed)
	),
	'1 1 1',
	'and its transaction\'s other row is not late');

# the rows of one transaction are never late for each other
$node->safe_psql('postgres',
	q(INSERT INTO u VALUES ('2024-01-01 02:00 UTC', 1, 1, 4), ('2024-01-01 01:00 UTC', 1, 1, 4);
	  INSERT INTO u VALUES ('2024-01-01 03:00 UTC', 1, 1, 5)));
sync_pipelines($node);
is(query_late_rows($node, 'u_closed'), '1', 'none within a transaction');

$late->quit;
$node->stop;
done_testing();
