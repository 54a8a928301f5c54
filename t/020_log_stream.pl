# Log streams: what is inserted, in whatever transaction, partition or shape, counts exactly
# once.  The oracle is a table that gets the same rows by the same transactions.

use strict;
use warnings;

use File::Spec;
use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.debug_batch_rows = -1\n");

# A log stream "s" and the table "s_rows" with the same columns.
sub create_pair
{
	my ($name, $columns) = @_;

	$node->safe_psql('postgres',
		"SELECT stream_ckpt.create_stream('$name', '$columns', event_time => 'ts', watermark_delay => '1 day');
		 CREATE TABLE ${name}_rows ($columns)");
	return;
}

# An INSERT of both: what the stream's returns goes into the table.
sub insert_both
{
	my ($name, $source, $columns) = @_;
	$columns = defined $columns ? " ($columns)" : '';
	return
	  "WITH new AS (INSERT INTO $name$columns $source RETURNING *) INSERT INTO ${name}_rows SELECT * FROM new;";
}

# The text of a query over the stream, and over the table.
sub query_text
{
	my ($from, $select, $group) = @_;
	$select //= 'k, count(*) AS n, sum(v) AS total';
	$group //= 'k';
	return
	  "SELECT w.window_start, w.window_end, $select FROM $from, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, $group";
}

# Queries <stream>_closed and <stream>_live.
sub create_queries
{
	my ($name, @query) = @_;
	for my $emit (qw(close update))
	{
		create_query(
			$node, "${name}_$emit", $name,
			emit => $emit,
			select => query_text($name, @query));
	}
	return;
}

sub check
{
	my ($what, $name, %opt) = @_;
	my $truth = query_text($opt{rows} // "${name}_rows", @{ $opt{query} // [] });

	sync_pipelines($node);
	is( join(' ',
			differences(
				$node, "${name}_close",
				truth => $truth,
				table => $opt{rows} // "${name}_rows",
				delay => '1 day'),
			differences(
				$node, "${name}_update",
				truth => $truth,
				emit => 'update'),
			counter($node, "${name}_update", 'rows_in')
			  - $node->safe_psql('postgres',
				'SELECT count(*) FROM ' . ($opt{rows} // "${name}_rows"))),
		'0 0 0',
		$what);
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

#
# Transactions and subtransactions
#
create_pair('s', 'ts timestamptz, k int, v int');
create_queries('s');
wait_running($node);

my $rows =
  q(SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '1 second', %d, i FROM generate_series(%d, %d) i);
$node->safe_psql('postgres',
	    insert_both('s', "VALUES ('2024-01-01 00:00 UTC', 1, 1), ('2024-01-01 00:01 UTC', 1, 2)")
	  . insert_both('s', sprintf($rows, 2, 1, 5000)));
check('inserted, few and many', 's');

$node->safe_psql(
	'postgres',
	'BEGIN;'
	  . insert_both('s', sprintf($rows, 3, 1, 3000))
	  . 'SAVEPOINT a;'
	  . insert_both('s', sprintf($rows, 4, 1, 3000))
	  . 'SAVEPOINT b;'
	  . insert_both('s', sprintf($rows, 5, 1, 3000))
	  . 'ROLLBACK TO b;'
	  . insert_both('s', sprintf($rows, 6, 1, 3000))
	  . 'RELEASE a; SAVEPOINT c;'
	  . insert_both('s', sprintf($rows, 7, 1, 3000))
	  . 'ROLLBACK TO c; COMMIT; BEGIN;'
	  . insert_both('s', sprintf($rows, 8, 1, 3000))
	  . 'ROLLBACK;');
check('savepoints', 's');

# subtransactions that begin and end while the buffer of a statement is partly filled,
# with rows of their own
$node->safe_psql(
	'postgres', q(
	CREATE FUNCTION sub(i int, k int) RETURNS int LANGUAGE plpgsql AS $$
	BEGIN
		BEGIN
			WITH new AS (INSERT INTO s VALUES (timestamptz '2024-01-01 00:00 UTC' + i * interval '1 second', k, i) RETURNING *)
				INSERT INTO s_rows SELECT * FROM new;
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'no';
			END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
		RETURN i;
	END $$;
	CREATE FUNCTION sub_row() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.k < 20 THEN
			PERFORM sub(NEW.v, NEW.k + 20);
		END IF;
		RETURN NEW;
	END $$));
$node->safe_psql('postgres',
	insert_both(
		's',
		q(SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '1 second', 10, sub(i, 11) FROM generate_series(1, 5000) i)
	));
check('a function with subtransactions in INSERT ... SELECT', 's');
for my $when (qw(BEFORE AFTER))
{
	$node->safe_psql(
		'postgres',
		"CREATE TRIGGER t $when INSERT ON s FOR EACH ROW EXECUTE FUNCTION sub_row();"
		  . insert_both('s', sprintf($rows, $when eq 'BEFORE' ? 12 : 13, 1, 3000))
		  . 'DROP TRIGGER t ON s;');
	check("such a function as a trigger $when each row", 's');
}
$node->safe_psql(
	'postgres', q(
	DO $$
	DECLARE
		r record;
	BEGIN
		FOR r IN INSERT INTO s SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '1 second', 14, i
				FROM generate_series(1, 3000) i RETURNING *
		LOOP
			BEGIN
				INSERT INTO s_rows SELECT r.ts, r.k, r.v;
				PERFORM sub(r.v, 15);
			END;
		END LOOP;
		FOR i IN 1..300 LOOP
			BEGIN
				PERFORM sub(i, 16), sub(i + 1, 17);
				IF i % 5 = 0 THEN
					RAISE EXCEPTION 'no';
				END IF;
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
		END LOOP;
	END $$));
check('loops over the returned rows', 's');

# COPY, whole and failing at its last row
# read by the server, in whose folder a relative name means something else
my $copy = File::Spec->rel2abs($node->basedir . '/rows.copy');
open my $fh, '>', $copy or die $!;
printf $fh "2024-01-01 %02d:%02d:%02d+00\t%d\t%d\n", $_ / 3600, $_ / 60 % 60, $_ % 60, 20 + $_ % 2, $_ for 1 .. 5000;
close $fh;
append_to_file("$copy.bad", slurp_file($copy) . "2024-01-01 00:00:00+00\t1\tx\n");
my $copy_both = "COPY s FROM '$copy'; COPY s_rows FROM '$copy';";
$node->safe_psql('postgres', "BEGIN; $copy_both COMMIT;");
$node->psql('postgres', "COPY s FROM '$copy.bad'");
$node->safe_psql('postgres', "BEGIN; SAVEPOINT a; $copy_both ROLLBACK TO a; $copy_both COMMIT;");
check('COPY', 's');

# prepared
$node->safe_psql('postgres',
	'BEGIN;' . insert_both('s', sprintf($rows, 30, 1, 3000)) . q(PREPARE TRANSACTION 'one';));
$node->safe_psql('postgres',
	'BEGIN;' . insert_both('s', sprintf($rows, 31, 1, 3000)) . q(PREPARE TRANSACTION 'two';));
check('while transactions are prepared', 's');
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', q(COMMIT PREPARED 'one'));
$node->safe_psql('postgres', q(ROLLBACK PREPARED 'two'));
check('after a crash, one committed and one rolled back', 's');

# an event time without a value, infinite ones, and the end of all windows
$node->safe_psql('postgres',
	insert_both('s', q(VALUES (NULL, 40, 1), ('infinity', 40, 1), ('-infinity', 40, 1), ('2024-01-03 UTC', 40, 1))));
sync_pipelines($node);
is( join(' ', counter($node, 's_close', 'null_event_times'),
		differences($node, 's_close', truth => query_text('s_rows'), table => 's_rows', delay => '1 day')),
	'3 0', 'event times that are none');

#
# ALTER while rows flow
#
create_pair('a', 'id int, ts timestamptz, gone int, k int, v int, note text');
create_queries('a');
my $n = 0;
my $insert_a = sub {
	my ($columns, $values) = @_;
	$n++;
	return insert_both('a',
		"SELECT timestamptz '2024-01-01 00:00 UTC' + ($n * 10 + i) * interval '1 second', i % 3, i$values FROM generate_series(1, 1000) i",
		"ts, k, v$columns");
};
my $alter = sub { return "ALTER FOREIGN TABLE a $_[0]; ALTER TABLE a_rows $_[0];" };
for my $change (
	'ADD COLUMN more numeric DEFAULT 17.5',
	'DROP COLUMN gone',
	'ALTER COLUMN note TYPE varchar(100)',
	'ALTER COLUMN more TYPE text',
	'RENAME COLUMN more TO most',
	'ADD COLUMN another timestamptz',
	'DROP COLUMN note',
	'ALTER COLUMN id SET DEFAULT 5',
	'DROP COLUMN id')
{
	$node->safe_psql('postgres', $insert_a->('', ''));
	restart_task() if $change =~ /DROP/;
	$node->safe_psql('postgres',
		'BEGIN;' . $insert_a->('', '') . $alter->($change) . $insert_a->('', '') . 'COMMIT;');
	$node->safe_psql('postgres', $insert_a->('', ''));
	$node->safe_psql('postgres',
		'BEGIN; SAVEPOINT s;' . $alter->('ADD COLUMN vain int') . $insert_a->(', vain', ', i') . 'ROLLBACK TO s;'
		. $insert_a->('', '') . 'COMMIT;');
	check("ALTER while rows flow: $change", 'a');
}
$node->safe_psql('postgres', $alter->('RENAME COLUMN ts TO at') . $alter->('RENAME COLUMN k TO key'));
$node->safe_psql('postgres', insert_both('a', q(VALUES ('2024-01-01 00:40 UTC', 5, 5)), 'at, key, v'));
restart_task();
$node->safe_psql('postgres', insert_both('a', q(VALUES ('2024-01-01 00:41 UTC', 5, 5)), 'at, key, v'));
$node->safe_psql('postgres', $alter->('RENAME COLUMN at TO ts') . $alter->('RENAME COLUMN key TO k'));
check('the event time and a key renamed', 'a');

# many transactions at once, and ALTER between them
my $writer = start_writer(
	$node,
	'\set i random(1, 3000)' . "\n"
	  . insert_both('a',
		q(SELECT timestamptz '2024-01-01 00:00 UTC' + (:i + j) * interval '1 second', j, :i FROM generate_series(1, 20) j),
		'ts, k, v')
	  . "\n",
	clients => 3,
	transactions => 150);
for my $i (1 .. 8)
{
	$node->safe_psql('postgres', 'BEGIN;' . $alter->("ADD COLUMN c$i text") . 'COMMIT;');
	$node->safe_psql('postgres', 'BEGIN;' . $alter->('DROP COLUMN c' . ($i - 1)) . 'COMMIT;') if $i % 2 == 0;
}
ok(finish_writer($writer), 'the writers have finished');
check('writers and ALTER side by side', 'a');

#
# Partitions
#
$node->safe_psql(
	'postgres', q(
	CREATE TABLE p (ts timestamptz, k int, v int) PARTITION BY LIST (k);
	CREATE TABLE p_0 PARTITION OF p FOR VALUES IN (0);
	CREATE FOREIGN TABLE p_1 PARTITION OF p FOR VALUES IN (1) SERVER stream_ckpt;
	CREATE FOREIGN TABLE p_2 (v int, x int, other timestamptz, k int, ts timestamptz) SERVER stream_ckpt OPTIONS (event_time 'other');
	ALTER FOREIGN TABLE p_2 DROP COLUMN x;
	CREATE TABLE p_rows (ts timestamptz, k int, v int);
	CREATE FUNCTION take_both() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO p_rows VALUES (NEW.ts, NEW.k, NEW.v);
		RETURN NEW;
	END $$;
	SELECT stream_ckpt.attach_stream('p', 'ts', '1 day')));
create_queries('p');
my $insert_p = q(INSERT INTO p SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '1 second', i %% %d, i FROM generate_series(1, 3000) i;);
my $in_both = q(CREATE TRIGGER take_both BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION take_both(););
$node->safe_psql('postgres', sprintf($in_both, $_)) for qw(p_0 p_1);
$node->safe_psql('postgres', sprintf($insert_p, 2));
check('rows routed to partitions', 'p');
$node->safe_psql('postgres', q(INSERT INTO p_1 SELECT timestamptz '2024-01-01 00:20 UTC', 1, i FROM generate_series(1, 100) i));
check('rows inserted into a partition', 'p');

# attached while rows flow, with other columns in another order, and an event time of its own
$node->safe_psql('postgres',
	q(BEGIN;
	  INSERT INTO p_2 (ts, k, v, other) VALUES ('2024-01-01 00:30 UTC', 2, 2, '2024-01-01 00:31 UTC');
	  ALTER FOREIGN TABLE p_2 DROP COLUMN other;
	  ALTER FOREIGN TABLE p_2 OPTIONS (DROP event_time);
	  ALTER TABLE p ATTACH PARTITION p_2 FOR VALUES IN (2);)
	  . sprintf($in_both, 'p_2') . sprintf($insert_p, 3) . 'COMMIT;');
check('a partition is attached', 'p');
$node->safe_psql('postgres',
	q(BEGIN; ALTER TABLE p ADD COLUMN own timestamptz; ALTER FOREIGN TABLE p_2 OPTIONS (ADD event_time 'own'); COMMIT));
$node->safe_psql('postgres',
	q(INSERT INTO p_2 (ts, k, v, own) SELECT timestamptz '2024-01-01 03:00 UTC' + i * interval '1 second', 2, 2, '2020-01-01' FROM generate_series(1, 2000) i));
check('its own event time is another column', 'p');
$node->safe_psql('postgres', q(ALTER TABLE p DETACH PARTITION p_1));
$node->safe_psql('postgres', q(ALTER FOREIGN TABLE p_1 DISABLE TRIGGER take_both));
$node->safe_psql('postgres', q(INSERT INTO p_1 (ts, k, v) VALUES ('2024-01-01 03:00 UTC', 1, 1)));
$node->safe_psql('postgres', q(INSERT INTO p_2 (ts, k, v) VALUES ('2024-01-03 UTC', 2, 2)));
check('a partition is detached', 'p');

#
# Large values
#
$node->safe_psql(
	'postgres', q(
	CREATE FUNCTION noise(seed int, n int) RETURNS text LANGUAGE sql IMMUTABLE AS
		$$ SELECT string_agg(md5(seed::text || i), '' ORDER BY i) FROM generate_series(1, n) i $$;
	CREATE FUNCTION grown(n int) RETURNS int[] LANGUAGE plpgsql AS $$
	DECLARE
		a int[] := '{}';
	BEGIN
		FOR i IN 1..n LOOP
			a[i] := i;
		END LOOP;
		RETURN a;
	END $$;
	CREATE TYPE pair AS (a text, b int[]);
	CREATE TABLE source (i int, out_of_line text, compressed text, a int[], p pair);
	ALTER TABLE source ALTER COLUMN out_of_line SET STORAGE EXTERNAL;
	INSERT INTO source SELECT i, noise(i, i * 11 % 400), repeat('x', i * 1000), grown(i * 7 % 2000), ROW(noise(i, 200), grown(10))::pair
		FROM generate_series(1, 200) i));
create_pair('b', 'ts timestamptz, k int, t text, c text, a int[], p pair');
my @big = ('k, count(*) AS n, max(t) AS t, max(md5(c)) AS c, sum(cardinality(a)) AS a, max((p).a) AS p, max(length(t)) AS len', 'k');
create_queries('b', @big);
$node->safe_psql('postgres',
	insert_both('b', q(SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '1 second', i % 5, out_of_line, compressed, a, p FROM source)));
$node->safe_psql('postgres',
	insert_both('b', q(SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '1 second', i % 5, NULL, NULL, grown(i * 10), ROW('', grown(i))::pair FROM generate_series(1, 100) i)));
$node->safe_psql(
	'postgres', q(
	DO $$
	DECLARE
		arr int[] := grown(5000);
		t text := noise(7, 500);
	BEGIN
		arr[3] := 77;
		INSERT INTO b VALUES ('2024-01-01 00:10 UTC', 1, t, t, arr, ROW(t, arr)::pair);
		INSERT INTO b_rows VALUES ('2024-01-01 00:10 UTC', 1, t, t, arr, ROW(t, arr)::pair);
	END $$));
check('toasted, compressed and expanded values', 'b', query => \@big);
$node->safe_psql('postgres',
	insert_both('b', q(SELECT timestamptz '2024-01-01 00:11 UTC', 1, repeat(noise(i, 3000), 40 * i), 'x', NULL, NULL FROM generate_series(1, 5) i)));
$node->safe_psql('postgres',
	insert_both('b', q(VALUES ('2024-01-03 UTC', 1, 'end', NULL, NULL, NULL))));
restart_task();
check('rows of up to 19 MB', 'b', query => \@big);
my ($ret, $stdout, $stderr) = $node->psql('postgres',
	q(INSERT INTO b (ts, t, c) SELECT '2024-01-01 00:00 UTC', t, t FROM (SELECT repeat('0123456789', 30000000) AS t OFFSET 0) x));
like($stderr, qr/row of \d+ bytes is too large for stream "b"/, 'a row of more than 512 MB');
check('has left nothing', 'b', query => \@big);

#
# A stream that is dropped after rows in the same transaction
#
create_pair('d', 'ts timestamptz, k int, v int');
create_queries('d');
$node->safe_psql('postgres', insert_both('d', sprintf($rows, 1, 1, 100)));
$node->safe_psql('postgres',
	'BEGIN;' . insert_both('d', sprintf($rows, 1, 1, 100))
	. 'DROP FOREIGN TABLE d CASCADE;' . insert_both('s', sprintf($rows, 50, 1, 100)) . 'COMMIT;');
$node->safe_psql('postgres',
	q(BEGIN;
	  CREATE FOREIGN TABLE brief (ts timestamptz) SERVER stream_ckpt;
	  INSERT INTO brief VALUES ('2024-01-01 UTC');
	  DROP FOREIGN TABLE brief;)
	. insert_both('s', sprintf($rows, 51, 1, 100)) . 'COMMIT;');
sync_pipelines($node);
is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_ckpt.queries WHERE query::text LIKE 'd\_%')),
	'0', 'its queries are gone');
is( counter($node, 's_update', 'rows_in'),
	$node->safe_psql('postgres', 'SELECT count(*) FROM s_rows'),
	'others go on');

# dumped and restored
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok(
	[ 'pg_dump', '-f', $node->basedir . '/dump.sql', '-t', 's', '-d', $node->connstr('postgres') ],
	'pg_dump of a log stream');
$node->safe_psql('copy', 'CREATE EXTENSION stream_ckpt');
$node->command_ok(
	[ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', $node->basedir . '/dump.sql', '-d', $node->connstr('copy') ],
	'restored');
is( $node->safe_psql('copy', 'SELECT stream, kind, event_time, watermark_delay FROM stream_ckpt.streams'),
	's|log|ts|1 day', 'with its options');

# without the last stream the pipeline has nothing to do, and keeps no WAL
$node->safe_psql('postgres', 'DROP FOREIGN TABLE s, a, b CASCADE; DROP TABLE p CASCADE');
sync_pipelines($node);
wait_running($node);
$node->safe_psql('postgres', 'DROP FOREIGN TABLE p_1');
wait_status($node, 'idle');
wait_until($node, q(SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE plugin = 'stream_ckpt' AND database = 'postgres')),
	'the slot is gone');
$node->safe_psql('postgres',
	q(CREATE FOREIGN TABLE t (ts timestamptz, k int, v int) SERVER stream_ckpt OPTIONS (event_time 'ts', watermark_delay '1 day');
	  CREATE TABLE t_rows (ts timestamptz, k int, v int)));
create_queries('t');
$node->safe_psql('postgres', insert_both('t', sprintf($rows, 1, 1, 100)));
check('a stream that was made without a slot', 't');

$node->stop;
done_testing();
