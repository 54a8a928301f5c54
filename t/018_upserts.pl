# Result rows that are updated: found wherever they are by now, in any order, many at once or a few, whatever others did
# to the result table between two checkpoints, or between the lookup and the write.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "autovacuum = off\nstream_ckpt.debug_retry_second = 50ms\n");
my $groups = 3000;

sub sql { return $node->safe_psql('postgres', $_[0]); }

create_stream_table($node, q(t), delay => q(1 day));
# keys of several types, with NULLs, in another order than that of the index; and one whose rows seldom change
create_query($node, 'r', 't', emit => 'update',
	select => "SELECT w.window_start, w.window_end, 'key ' || k AS name, nullif(k % 7, 0) AS rest, count(*) AS n, sum(v) AS total
		FROM t, stream_ckpt.tumble(ts, '1 hour') w GROUP BY nullif(k % 7, 0), w.window_start, w.window_end, 'key ' || k");
create_query($node, 'm', 't', emit => 'update',
	select => "SELECT w.window_start, w.window_end, k, max(v) AS greatest
		FROM t, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end, k");
wait_running($node);
sync_pipelines($node);

# One transaction with a row of each "step"th group, in three windows; from "more" on they are new.
sub rows
{
	my ($step, $more) = @_;
	my $to = $groups + ($more // 0);

	return sql(qq(INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + k % 3 * interval '1 hour', CASE WHEN k % 101 > 0 THEN k END, k, 0
		FROM generate_series($step, $to, $step) k));
}

sub exact
{
	my ($test) = @_;

	results_ok($node, 'r', "r: $test", emit => 'update');
	results_ok($node, 'm', "m: $test", emit => 'update', synced => 1);
	return;
}

# What others do to the result tables, and then all groups change, a few, and all and new ones.
sub after
{
	my ($what, @statements) = @_;

	sql(s/TABLE/r/gr), sql(s/TABLE/m/gr) foreach @statements;
	rows(1);
	exact("all rows, $what");
	rows(37);
	exact("a few rows, $what");
	rows(1, 50);
	$groups += 50;
	exact("all rows and new ones, $what");
	return;
}

rows(1);
exact('inserted');

# the rows of m stay as they are, so none is written; and those of r find room beside them
my $written = sql('SELECT string_agg(DISTINCT xmin::text, $$ $$) FROM m');
my $size = sql(q(SELECT pg_relation_size('r_key')));
rows(1);
exact('all updated');
is(sql('SELECT string_agg(DISTINCT xmin::text, $$ $$) FROM m'), $written, 'rows that are the same are not written');
is(sql(q(SELECT pg_relation_size('r_key'))), $size, 'updates need no index entries');

after('as they are');
after('vacuumed', 'VACUUM TABLE');
after('written anew', 'VACUUM FULL TABLE');
after('clustered', 'CLUSTER TABLE USING TABLE_key');
after('moved', 'UPDATE TABLE SET window_end = window_end', 'VACUUM TABLE', 'UPDATE TABLE SET window_end = window_end');
after('some of them deleted', 'DELETE FROM TABLE WHERE ctid::text ~ $$[37],$$', 'VACUUM TABLE');
after('truncated', 'TRUNCATE TABLE');
after('with an index more', 'CREATE INDEX ON TABLE (window_end)');
sql(q(UPDATE r SET name = name || ' of the user' WHERE n % 2 = 0; UPDATE m SET k = -k));
sql(q(DELETE FROM r WHERE name ~ 'user'; DELETE FROM m WHERE k < 0));
after('with other keys for a while');
sql(q(DROP INDEX r_key, m_key; CREATE UNIQUE INDEX ON r (name DESC, rest, window_start, window_end) NULLS NOT DISTINCT;
	CREATE UNIQUE INDEX ON m (k DESC, window_start, window_end) NULLS NOT DISTINCT));
after('with a key in descending order');
sql('DROP INDEX r_name_rest_window_start_window_end_idx, m_k_window_start_window_end_idx');
sql(q(CREATE UNIQUE INDEX ON r (window_start, window_end, rest, name) NULLS NOT DISTINCT;
	CREATE UNIQUE INDEX ON m (window_start, window_end, k) NULLS NOT DISTINCT));

# Tries that fail leave nothing by which the next one could be wrong.
arm($node, 'coordinator_after_rows', 'error', 1);
rows(1);
exact('after a try that failed');
sql('VACUUM r');
arm($node, 'coordinator_before_commit', 'kill', 1);
rows(1, 50);
$groups += 50;
exact('after a crash');
after('as they are, once more');

# Between the lookup and the write: the row is deleted, moved, or written by the user first.
sub meanwhile
{
	my ($what, $statement) = @_;

	arm($node, 'sink_looked_up', 'wait', 1);
	rows(1);
	wait_reached($node, 'sink_looked_up');
	sql($_) foreach split /;/, $statement;
	disarm($node, 'sink_looked_up');
	exact($what);
	return;
}

meanwhile('rows deleted after they were looked up', 'DELETE FROM r; VACUUM r');
meanwhile('rows moved after they were looked up', 'UPDATE r SET total = -1');
sql('CREATE TABLE saved AS SELECT * FROM r; DELETE FROM r');
meanwhile('rows inserted after they were looked up', 'INSERT INTO r SELECT * FROM saved');

# A constraint of the user's over several rows: row by row.
sql('CREATE UNIQUE INDEX ON r (window_start, name, total) NULLS NOT DISTINCT');
after('with a constraint more');

# Code of the user's: the query is written by itself, in one try.
sql('ALTER TABLE r ADD CHECK (n > 0); TRUNCATE saved; INSERT INTO saved SELECT * FROM r; DELETE FROM r');
meanwhile('a row inserted after it was looked up, by itself', 'INSERT INTO r SELECT * FROM saved');

done_testing();
