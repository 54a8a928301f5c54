# Copies of copies, and restores in unusual ways: no query goes on with state that isn't there, and says nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $node = new_node('main', "stream_ckpt.max_pipelines = 20\nmax_worker_processes = 100\nmax_replication_slots = 20\n", draw => {});
my $dir = PostgreSQL::Test::Utils::tempdir();

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }
sub dump_of
{
	my ($dbname, $file, $state, @options) = @_;
	local $ENV{PGOPTIONS} = $state ? '-c stream_ckpt.dump_state=on' : '';

	$node->command_ok([ 'pg_dump', '-f', "$dir/$file", @options, '-d', $node->connstr($dbname) ], "$file: dumped");
	return;
}

# What accepting the gap says
sub accept_gap
{
	my ($dbname) = @_;
	my ($ret, $stdout, $stderr) = $node->psql($dbname, q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));

	is($ret, 0, "$dbname: the gap is accepted");
	wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.pipelines WHERE pipeline = 'default'), "$dbname is running", $dbname);
	return $stderr;
}

sub restore
{
	my ($dbname, $file) = @_;

	sql("CREATE DATABASE $dbname TEMPLATE template0");
	$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', "$dir/$file", '-d', $node->connstr($dbname) ], "$dbname: restored");
	return;
}

# As sync_pipelines(), beside queries that are lost
sub sync_in
{
	my ($dbname) = @_;
	return wait_until($node, q(SELECT set_config('client_min_messages', 'error', false) IS NOT NULL AND stream_ckpt.sync('30 seconds') IS NOT NULL), 'sync() succeeds', $dbname);
}

sub insert { return sql(q(INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 3, i FROM generate_series(1, 60) i), $_[0]); }

# The counts go on from those of the dump: no result row becomes smaller
my $counts = q(SELECT string_agg(k || ' ' || n, ', ' ORDER BY k) FROM total);

sql(q(CREATE TABLE t (ts timestamptz, k int, v int); SELECT stream_ckpt.attach_stream('t', event_time => 'ts')));
create_query($node, 'total', 't', emit => 'update', select => 'SELECT k, count(*) AS n FROM t GROUP BY k');
create_query($node, 'hourly', 't', emit => 'update', select => q(SELECT w.window_start, w.window_end, count(*) AS n FROM t, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end));
wait_running($node);
insert('postgres');
sync_pipelines($node);
is(sql($counts), '0 20, 1 20, 2 20', 'counted');

# A query that has lost its state has none in a dump of the copy either
dump_of('postgres', 'without.sql', 0);
restore('b', 'without.sql');
like(accept_gap('b'), qr/query "total" is lost/, 'b: it is lost without its state');
insert('b');
sync_in('b');
dump_of('b', 'again.sql', 1);
restore('c', 'again.sql');
like(accept_gap('c'), qr/query "total" is lost/, 'c: it has no state in a dump of the copy');
insert('c');
sync_in('c');
is(sql($counts, 'c'), '0 20, 1 20, 2 20', 'c: it does not count anew over its result');

# Triggers that are off don't matter, in a database that has its tables: with the state, without it, and with a pipeline that
# has run there
sub data_only
{
	my ($dbname, $state, $has_run) = @_;

	sql("CREATE DATABASE $dbname TEMPLATE template0");
	dump_of('postgres', "$dbname.dump", $state, '-Fc');
	$node->command_ok([ 'pg_restore', '-e', '--section=pre-data', '-d', $node->connstr($dbname), "$dir/$dbname.dump" ], "$dbname: tables");
	if ($has_run)
	{
		sql(q(CREATE TABLE own (a int); SELECT stream_ckpt.attach_stream('own'); SELECT stream_ckpt.create_query('of_own', 'SELECT count(*) AS n FROM own', emit => 'update')), $dbname);
		sql('INSERT INTO own VALUES (1)', $dbname);
		sync_in($dbname);
		sql(q(SELECT stream_ckpt.drop_query('of_own'); SELECT stream_ckpt.detach_stream('own')), $dbname);
		wait_until($node, q(SELECT status = 'idle' AND NOT EXISTS (SELECT FROM stream_ckpt.checkpoint_offset) FROM stream_ckpt.pipelines), "$dbname is idle", $dbname);
	}
	$node->command_ok([ 'pg_restore', '-e', '--data-only', '--disable-triggers', '-d', $node->connstr($dbname), "$dir/$dbname.dump" ], "$dbname: data");
	$node->command_ok([ 'pg_restore', '-e', '--section=post-data', '-d', $node->connstr($dbname), "$dir/$dbname.dump" ], "$dbname: indexes");
	is(sql(q(SELECT bool_or(own) FROM stream_ckpt.checkpoint_offset), $dbname), 'f', "$dbname: no offset is its own");
	my $said = accept_gap($dbname);
	is($said =~ /query "total" is lost.*\nDETAIL:  The dump was made without state/ ? 'lost' : 'goes on', $state ? 'goes on' : 'lost', "$dbname: what becomes of it") or diag $said;
	insert($dbname);
	sync_in($dbname);
	is(sql($counts, $dbname), $state ? '0 40, 1 40, 2 40' : '0 20, 1 20, 2 20', "$dbname: the counts");
	is(sql('SELECT bool_and(own) FROM stream_ckpt.checkpoint_offset', $dbname), 't', "$dbname: offsets are its own");
	return;
}
data_only('bare', 0, 0);
data_only('bare_used', 0, 1);
data_only('with_state', 1, 0);

$node->stop;
done_testing();
