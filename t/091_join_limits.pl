# Joins at their limits: a row that is joined with more than memory holds, with and without dead letters; what of a join is
# refused at creation and not by the first row; and DDL on what is joined.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'needs /proc' unless -r "/proc/$$/status";
test_seed();
my $rounds = $ENV{ROUNDS} || 4;
my $node = new_node('main', "stream_ckpt.debug_task_memory = 400kB\nstream_ckpt.debug_bucket_bytes = 8000\nwork_mem = 64kB\nstream_ckpt.query_share = 0\n");

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }
sub create { my ($name, $select, @options) = @_; return sql("SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$" . join('', map { ", $_" } 'backfill => false', @options) . ')'); }
sub status_is { return wait_until($node, "SELECT status = '$_[1]' FROM stream_ckpt.queries WHERE query = '$_[0]'::regclass", $_[2]); }

# ---------- a row that is joined with many ----------

sql('CREATE TABLE o (id serial, at timestamptz, k int, v int)', 'CREATE TABLE b (k int, id int, name text)',
	q(INSERT INTO b SELECT 1, i, 'n' || i FROM generate_series(1, 4000) i), q(INSERT INTO b SELECT 2, i * 300, 'm' || i FROM generate_series(1, 10) i), q(INSERT INTO b VALUES (3, 7, 'one')),
	'CREATE INDEX ON b (k)', 'ANALYZE b');
sql(q(SELECT stream_ckpt.attach_stream('o', event_time => 'at', watermark_delay => '1 hour')));

my $tumble = "stream_ckpt.tumble(at, '1 minute') w";
my %queries = (
	grouped => [ 'update', 'SELECT b.id, count(*) AS n, sum(o.v) AS s, max(b.name || o.id) AS m FROM o JOIN b USING (k) GROUP BY b.id' ],
	by_window => [ 'close', "SELECT w.window_start, w.window_end, b.id, count(*) AS n, array_agg(o.id ORDER BY o.id) AS a FROM o JOIN b USING (k), $tumble GROUP BY 1, 2, 3" ],
	sets => [ 'close', "SELECT w.window_start, w.window_end, b.id, o.v, GROUPING(b.id, o.v) AS g, count(*) AS n FROM o JOIN b USING (k), $tumble GROUP BY w.window_start, w.window_end, GROUPING SETS ((b.id), (o.v), ())" ],
	looked_up => [ 'rows', 'SELECT o.id, b.name FROM o JOIN b USING (k) WHERE o.v > 10' ],
);
create($_, $queries{$_}[1], ($queries{$_}[0] eq 'rows' ? () : "emit => '$queries{$_}[0]'"), @{ $queries{$_} }[ 2 .. $#{ $queries{$_} } ]) for sort keys %queries;
wait_running($node);

sub rows { return join(', ', map { sprintf "('2024-01-01 UTC'::timestamptz + interval '%d s', %d, %d)", int rand 600, pick(1, 1, 2, 3, 4), int rand 20 } 1 .. $_[0]); }

for my $round (1 .. $rounds)
{
	sql('INSERT INTO o (at, k, v) VALUES ' . rows(1 + int rand 4)) for 1 .. 2;
	lose_state($node, pick(qw(task coordinator immediate))) if $round % 2 == 0;
	# within a row
	arm($node, 'task_within_row', pick(qw(term exit)), 1 + int rand 4) if $round % 2 == 1;
	sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 00:05 UTC', 1, 1)");
	if ($round % 2 == 1)
	{
		wait_reached($node, 'task_within_row');
		disarm($node, 'task_within_row');
		wait_running($node);
	}
	sql('BEGIN; INSERT INTO o (at, k, v) VALUES ' . rows(2) . '; INSERT INTO o (at, k, v) VALUES ' . rows(2) . '; COMMIT');
}
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 05:00 UTC', 3, 1)");
sync_pipelines($node);
for my $name (sort keys %queries)
{
	results_ok($node, $name, $name, emit => $queries{$name}[0], table => 'o', time => 'at', delay => '1 hour', synced => 1);
	is(counter($node, $name, 'rows_in'), sql('SELECT count(*) FROM o'), "$name: each row was seen once");
	is(counter($node, $name, 'status'), 'running', "$name: runs");
}

# a function that is replaced within a row counts from the next one on at the latest, and what is in stays in, once
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries));
sql(q(CREATE FUNCTION shown(text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN ''old ''; END'));
create('replaced', 'SELECT b.id, count(*) AS n, min(shown(b.name)) AS least, max(shown(b.name)) AS most FROM o JOIN b USING (k) GROUP BY b.id', "emit => 'update'");
wait_running($node);
arm($node, 'task_within_row', 'wait');
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 06:00 UTC', 1, 1)");
wait_reached($node, 'task_within_row');
sql(q(CREATE OR REPLACE FUNCTION shown(text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN ''new ''; END'));
disarm($node, 'task_within_row');
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 06:00 UTC', 1, 1)");
sync_pipelines($node);
is(sql('SELECT count(*), min(n), max(n), max(least) FROM replaced'), '4000|2|2|new ', 'a function that is replaced within a row');

# what one row is joined with makes groups of 150 MB
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries));
sql(q(INSERT INTO b SELECT 5, i, 'n' FROM generate_series(1, 250000) i), 'ANALYZE b');
create('large', "SELECT w.window_start, w.window_end, b.id, max(repeat('x', 500) || b.name) AS m FROM o JOIN b USING (k), $tumble GROUP BY 1, 2, 3");
$node->append_conf('postgresql.conf', "stream_ckpt.debug_task_memory = 0\nstream_ckpt.debug_bucket_bytes = 0\nstream_ckpt.task_memory = 16MB");
$node->restart;
sync_pipelines($node);
my $task = pid_of($node, 'task');
my $before = memory_of($task)->{VmHWM};
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 06:00 UTC', 3, 1), ('2024-01-01 06:00 UTC', 5, 1)");
checkpoint_all($node);
cmp_ok((memory_of($task)->{VmHWM} - $before) / 1024, '<', 120, 'its groups do not wait in memory for the row to end');
is(counter($node, 'large', 'status'), 'running', 'and it runs');

# nor do rows of the result, which are as many
create('looked_up_all', "SELECT b.id, repeat('x', 600) AS x FROM o JOIN b USING (k) WHERE o.v = 2");
wait_running($node);
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 06:00 UTC', 5, 2)");
sync_pipelines($node);
is(sql('SELECT count(*), count(DISTINCT id), min(length(x)) FROM looked_up_all'), '250000|250000|600', 'all rows of the result are there');
cmp_ok((memory_of($task)->{VmHWM} - $before) / 1024, '<', 120, 'and they do not wait in memory');
sql(q(SELECT stream_ckpt.drop_query('looked_up_all')));

# of windows that share rows all is in memory: the query fails before it takes more
create('hopping', "SELECT w.window_start, w.window_end, b.id, max(repeat('x', 500) || b.name) AS m FROM o JOIN b USING (k), stream_ckpt.hop(at, '1 minute', '3 minutes') w GROUP BY 1, 2, 3");
wait_running($node);
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 06:00 UTC', 5, 1)");
status_is('hopping', 'failed', 'a query of windows that share rows fails');
like(counter($node, 'hopping', 'message'), qr/state of the query takes/, 'for its memory');
cmp_ok((memory_of($task)->{VmHWM} - $before) / 1024, '<', 120, 'which is bounded within the row');

# with dead letters: a group's state is kept once, however often the row comes to it; and rows at fault leave none behind
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries), q(DELETE FROM b WHERE k = 5),
	q(INSERT INTO b SELECT 6, i, 'n' FROM generate_series(1, 6000) i), q(INSERT INTO b SELECT 7, CASE i WHEN 2990 THEN 0 ELSE i END, 'n' FROM generate_series(1, 3000) i), 'ANALYZE b');
create('letters', "SELECT b.id % 20 AS g, max(repeat('x', 100000) || b.name || 100 / b.id) AS m, count(*) AS n FROM o JOIN b USING (k) GROUP BY 1", "on_error => 'dead_letter'", "emit => 'update'");
wait_running($node);
sync_pipelines($node);
$task = pid_of($node, 'task');
$before = memory_of($task)->{VmHWM};
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 06:00 UTC', 6, 1), ('2024-01-01 06:00 UTC', 7, 1), ('2024-01-01 06:00 UTC', 6, 1)");
sync_pipelines($node);
is(sql('SELECT count(*), sum(n), bool_and(length(m) > 100000) FROM letters'), '20|12000|t', 'a row that comes to few groups often');
is(sql(q(SELECT count(*), min(row->>'k'), min(message) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass)), '1|7|division by zero', 'one at fault');
cmp_ok((memory_of($task)->{VmHWM} - $before) / 1024, '<', 120, 'without a copy of the states for each');
# but not more states than there is room for
create('too_many', "SELECT b.id % 100 AS g, max(repeat('x', 100000) || b.name) AS m, count(*) AS n FROM o JOIN b USING (k) GROUP BY 1", "on_error => 'dead_letter'", "emit => 'update'");
wait_running($node);
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 06:00 UTC', 6, 1)");
sql("INSERT INTO o (at, k, v) VALUES ('2024-01-01 06:00 UTC', 6, 2)");
sync_pipelines($node);
is(sql(q(SELECT count(*), min(row->>'v'), min(message) FROM stream_ckpt.dead_letter WHERE query = 'too_many'::regclass)),
	'1|2|a row of the stream changes more groups than can be taken back', 'a row that changes more than can be taken back');
is(sql('SELECT count(*), sum(n) FROM too_many'), '100|6000', 'has changed none');

# ---------- at creation ----------

sql('CREATE ROLE tenant', 'GRANT CREATE ON SCHEMA public TO tenant', 'GRANT SELECT ON o, b TO tenant', 'GRANT USAGE ON SCHEMA stream_ckpt TO tenant',
	q(CREATE FUNCTION secret(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END'), 'REVOKE EXECUTE ON FUNCTION secret FROM public');

# Of a definition that somebody who may call no secret() writes, and reads.
sub refused
{
	my ($test, $select, $error) = @_;

	for my $call ("create_query('refused', \$sc\$ $select \$sc\$)", "explain_query(\$sc\$ $select \$sc\$)")
	{
		my ($rc, $out, $err) = $node->psql('postgres', "SET SESSION AUTHORIZATION tenant; SELECT stream_ckpt.$call");

		like($err, $error, "$test: " . $call =~ s/\(.*//sr);
	}
	return;
}

refused('a function in a subquery', 'SELECT w.window_start, max((SELECT secret(b.id) FROM b WHERE b.k = o.k LIMIT 1)) AS m FROM o, ' . $tumble . ' GROUP BY 1', qr/permission denied for function secret/);
sql(q(CREATE EXTENSION file_fdw), 'CREATE SERVER files FOREIGN DATA WRAPPER file_fdw', 'CREATE TABLE parted (k int, n int) PARTITION BY LIST (k)', 'CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)',
	q(CREATE FOREIGN TABLE elsewhere PARTITION OF parted FOR VALUES IN (2) SERVER files OPTIONS (filename '/dev/null')), 'GRANT SELECT ON parted TO tenant');
refused('a foreign partition', 'SELECT o.id, p.n FROM o JOIN parted p USING (k)', qr/joined with foreign table "elsewhere"/);
refused('one that a condition leaves out', 'SELECT o.id, p.n FROM o JOIN parted p ON p.k = o.v', qr/joined with foreign table "elsewhere"/);

$node->stop;
done_testing();
