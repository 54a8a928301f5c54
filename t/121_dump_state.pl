# Dumps with the state (stream_ckpt.dump_state): what was open at the dump goes on in the copy as it was, whatever is
# written and dies meanwhile.  What can't be read there is known before: those queries' windows are over, or they are lost,
# and say why; rebuild_query() makes their results anew.

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

# As sync_pipelines(), beside queries that are lost
sub sync_in
{
	my ($dbname) = @_;
	return wait_until($node, "SELECT set_config('client_min_messages', 'error', false) IS NOT NULL AND stream_ckpt.sync('30 seconds') IS NOT NULL", 'sync() succeeds', $dbname);
}

my $minute = 'stream_ckpt.tumble(ts, \'1 minute\') w GROUP BY w.window_start, w.window_end, k';

# name => [ emit, where its state can be read, definition ]
my %queries = (
	closed => [ 'close', 'yes', "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest, avg(v) AS mean FROM t, $minute" ],
	live => [ 'update', 'yes', "SELECT w.window_start, w.window_end, k, count(*) AS n, bool_or(v % 5 = 0) AS five FROM t, stream_ckpt.hop(ts, '10 minutes', '1 hour') w GROUP BY w.window_start, w.window_end, k" ],
	inputs => [ 'close', 'yes', "SELECT w.window_start, w.window_end, k, count(DISTINCT v % 7) AS n, string_agg(v::text, ',' ORDER BY v) AS list, array_agg(v ORDER BY v) AS a FROM t, $minute" ],
	visits => [ 'update', 'yes', "SELECT s.window_start, s.window_end, k, count(*) AS n FROM t, stream_ckpt.session(ts, '30 seconds') s GROUP BY s.window_start, s.window_end, k" ],
	total => [ 'update', 'yes', 'SELECT k, array[k, 1] AS key, count(*) AS n, min(ts) AS first FROM t GROUP BY k, array[k, 1]' ],
	serial => [ 'update', 'version', "SELECT w.window_start, w.window_end, k, sum(v::bigint) AS total, avg(v::numeric) AS mean FROM t, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end, k" ],
	serial_total => [ 'update', 'version', 'SELECT stddev(v) AS deviation FROM t' ],
	of_enum => [ 'update', 'no', "SELECT w.window_start, w.window_end, e, count(*) AS n FROM t, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end, e" ],
	of_row => [ 'update', 'no', "SELECT w.window_start, w.window_end, max(array[e]) AS greatest FROM t, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end" ],
	of_type => [ 'update', 'no', 'SELECT c, count(*) AS n FROM t GROUP BY c' ],
	own => [ 'update', 'no', 'SELECT k, mysum(v) AS total FROM t GROUP BY k' ],
	best => [ 'update', 'no', 'SELECT DISTINCT ON (k) k, v FROM t ORDER BY k, v DESC' ],
	each => [ 'rows', 'yes', 'SELECT ts, k, v FROM t WHERE v % 10 = 0' ]);
my @names = sort keys %queries;

sql(q(CREATE TYPE mood AS ENUM ('well', 'so so', 'bad');
	CREATE FUNCTION add(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + $2';
	CREATE AGGREGATE mysum(int) (SFUNC = add, STYPE = int, INITCOND = '0');
	CREATE TABLE t (ts timestamptz, k int, v int, txn int, e mood, c regclass);
	SELECT stream_ckpt.attach_stream('t', event_time => 'ts')));
for my $name (@names)
{
	my ($emit, $portable, $select) = @{ $queries{$name} };
	create_query($node, $name, 't', emit => $emit, select => $select);
}
wait_running($node);

# What is known of the states before anything is restored
sub insert
{
	my ($from, $to, $dbname) = @_;
	return sql("INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + (i * 10 + j) * interval '1 second' + (i / 20) * interval '1 minute', (i + j) % 5, i * 10 + j, i, (enum_range(NULL::mood))[i % 3 + 1],
		('{t,closed}'::text[])[i % 2 + 1]::regclass FROM generate_series($from, $to) i, generate_series(0, 9) j", $dbname);
}
insert(1, 40);
sync_in('postgres');
is(sql('SELECT string_agg(query || \' \' || portable, \', \' ORDER BY query::text) FROM stream_ckpt.checkpoint_offset o JOIN stream_ckpt.queries q USING (query_id)'),
	join(', ', map { "$_ $queries{$_}[1]" } @names), 'where states can be read');

sub dump_to
{
	my ($file, $state, @options) = @_;
	local $ENV{PGOPTIONS} = $state ? '-c stream_ckpt.dump_state=on' : '';
	$node->command_ok([ 'pg_dump', '-f', "$dir/$file", @options, '-d', $node->connstr('postgres') ], "$file: dumped");
	return;
}

# A new database with the dump, plain or a directory's
sub restore
{
	my ($dbname, $file, $options) = @_;

	sql("CREATE DATABASE $dbname TEMPLATE template0 " . ($options // ''));
	$node->command_ok(-d "$dir/$file" ? [ 'pg_restore', '-j', 2, '-e', '-d', $node->connstr($dbname), "$dir/$file" ] :
		[ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', "$dir/$file", '-d', $node->connstr($dbname) ], "$dbname: restored");
	is(sql('SELECT status FROM stream_ckpt.pipelines', $dbname), 'lost', "$dbname: it is lost");
	return;
}

# What accepting the gap says
sub accept_gap
{
	my ($dbname) = @_;
	my ($ret, $stdout, $stderr) = $node->psql($dbname, q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));

	is($ret, 0, "$dbname: the gap is accepted");
	wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.pipelines), "$dbname is running", $dbname);
	return $stderr;
}

# The result is that of the definition over rows that "counts" selects; of what is over or not shown elsewhere: of "where"
sub exact
{
	my ($dbname, $name, $test, %opt) = @_;
	my ($emit, $portable, $select) = @{ $queries{$name} };
	my $counts = $opt{counts} // 'true';
	my $where = $opt{where} // 'true';

	# sessions are not a plain query
	$select = q(SELECT min(ts) AS window_start, max(ts) + interval '30 seconds' AS window_end, k, count(*) AS n
		FROM (SELECT *, sum(first) OVER (PARTITION BY k ORDER BY ts) AS number
			FROM (SELECT *, (COALESCE(ts - lag(ts) OVER (PARTITION BY k ORDER BY ts) >= interval '30 seconds', true))::int AS first FROM t) l) s GROUP BY k, number) if $name eq 'visits';
	(my $truth = $select) =~ s/\bFROM t\b/FROM (SELECT * FROM t WHERE $counts) t/;
	$where .= ' AND window_end <= (SELECT max(ts) FROM t)' if $emit eq 'close';
	is(sql("SET timezone = 'UTC'; SELECT count(*) FROM ((SELECT * FROM $name WHERE $where EXCEPT ALL SELECT * FROM ($truth) d WHERE $where)
		UNION ALL (SELECT * FROM ($truth) d WHERE $where EXCEPT ALL SELECT * FROM $name WHERE $where)) d", $dbname), '0', "$dbname: $name $test");
	return;
}

#
# Quiet: all rows of the dump are counted, so results that go on are exact
#
dump_to('quiet.sql', 1);
dump_to('quiet.dir', 1, '-Fd', '-j', 2);
dump_to('without.sql', 0);
unlike(slurp_file("$dir/without.sql"), qr/^COPY stream_ckpt\.(state_run|pipeline_state).*;\n[^\\]/m, 'without the setting there is no state in it');

my $bound = qr/The state is bound to the database/;
for my $way ([ 'plain', 'quiet.sql' ], [ 'parallel', 'quiet.dir' ])
{
	my ($dbname, $file) = @$way;

	restore($dbname, $file);
	my $said = accept_gap($dbname);
	like($said, qr/windows of query "$_" that had rows are over.*\nDETAIL:  $bound.*\nHINT:  .*rebuild_query/, "$dbname: $_ can't go on") for qw(of_enum of_row);
	like($said, qr/query "$_" is lost: it has no windows.*\nDETAIL:  $bound.*\nHINT:  .*rebuild_query.*accept_gap => true/, "$dbname: $_ is lost") for qw(of_type own best);
	unlike($said, qr/"($_)"/, "$dbname: $_ goes on") for grep { $queries{$_}[1] ne 'no' } @names;
	is(sql(q(SELECT string_agg(query::text, ' ' ORDER BY query::text) FROM stream_ckpt.queries WHERE status = 'lost' AND hint LIKE '%rebuild_query%'), $dbname), 'best of_type own', "$dbname: and so they say");
	insert(41, 60, $dbname);
	sync_in($dbname);
	exact($dbname, $_, 'goes on with what was open') for grep { $queries{$_}[1] ne 'no' } @names;
	exact($dbname, $_, 'has windows that begin later', where => q(window_start > '2024-01-01 00:10 UTC')) for qw(of_enum of_row);
	sql("SET client_min_messages = warning; SELECT stream_ckpt.rebuild_query('$_')", $dbname) for qw(of_enum of_row of_type own best);
	insert(61, 70, $dbname);
	sync_in($dbname);
	exact($dbname, $_, 'in the end') for @names;
}

# A crash of the copy, before and behind its first checkpoint
restore('crashing', 'quiet.sql');
sql("SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')", 'crashing');
accept_gap('crashing');
insert(41, 50, 'crashing');
$node->stop('immediate');
$node->start;
wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.pipelines), 'it runs again', 'crashing');
sync_in('crashing');
$node->stop('immediate');
$node->start;
wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.pipelines), 'it runs once more', 'crashing');
insert(51, 60, 'crashing');
sync_in('crashing');
exact('crashing', $_, 'whatever died') for grep { $queries{$_}[1] ne 'no' } @names;

# The state comes before the queries that it is of, as it can in a restore by several processes: nobody takes it for left over
sql('CREATE DATABASE piecemeal TEMPLATE template0');
my @list = split /\n/, `pg_restore -l '$dir/quiet.dir'`;
my @early = grep { /^;/ || !/TABLE DATA|SEQUENCE SET|INDEX|CONSTRAINT|TRIGGER/ || /TABLE DATA stream_ckpt (state_run|checkpoint_offset)/ } @list;
my %early = map { $_ => 1 } @early;
PostgreSQL::Test::Utils::append_to_file("$dir/early", join("\n", sort { ($a =~ /TABLE DATA/) <=> ($b =~ /TABLE DATA/) } @early) . "\n");
PostgreSQL::Test::Utils::append_to_file("$dir/rest", join("\n", grep { !$early{$_} } @list) . "\n");
$node->command_ok([ 'pg_restore', '-e', '-L', "$dir/early", '-d', $node->connstr('piecemeal'), "$dir/quiet.dir" ], 'piecemeal: state and offsets');
for my $status (qw(stopped idle))
{
	sql(q(SELECT stream_ckpt.) . ($status eq 'idle' ? 'start' : 'stop') . q(_pipeline('default')), 'piecemeal');
	wait_until($node, "SELECT status = '$status' FROM stream_ckpt.pipelines", "piecemeal is $status", 'piecemeal');
}
$node->command_ok([ 'pg_restore', '-e', '-L', "$dir/rest", '-d', $node->connstr('piecemeal'), "$dir/quiet.dir" ], 'piecemeal: the rest');
accept_gap('piecemeal');
insert(41, 60, 'piecemeal');
sync_in('piecemeal');
exact('piecemeal', $_, 'goes on') for grep { $queries{$_}[1] ne 'no' } @names;

# Dumped again, of the copy, as it is before anybody has decided
restore('first', 'quiet.sql');
{
	local $ENV{PGOPTIONS} = '-c stream_ckpt.dump_state=on';
	$node->command_ok([ 'pg_dump', '-f', "$dir/second.sql", '-d', $node->connstr('first') ], 'a copy that is lost is dumped');
}
restore('second', 'second.sql');
accept_gap('second');
insert(41, 60, 'second');
sync_in('second');
exact('second', $_, 'of a dump of a copy') for grep { $queries{$_}[1] ne 'no' } @names;

#
# Where the state can't be read: another encoding, another version, a dump without it
#
my @windowed = grep { $queries{$_}[2] =~ /window_start/ } @names;
my @endless = grep { $_ ne 'each' && $queries{$_}[2] !~ /window_start/ } @names;
sub nothing_goes_on
{
	my ($dbname, $why) = @_;
	my $before = sql("SELECT md5(string_agg(r::text, ' ' ORDER BY r::text)) FROM (" . join(' UNION ALL ', map { "SELECT '$_', r::text FROM $_ r" } grep { $_ ne 'each' } @names) . ') r', $dbname);
	my $said = accept_gap($dbname);

	like($said, qr/windows of query "$_" that had rows are over.*\nDETAIL:  $why/, "$dbname: $_ can't go on") for @windowed;
	like($said, qr/query "$_" is lost.*\nDETAIL:  $why/, "$dbname: $_ is lost") for @endless;
	is(sql('SELECT count(*) FROM stream_ckpt.state_run', $dbname), '0', "$dbname: no state stays behind");
	sql(q(INSERT INTO t SELECT ts + interval '1 second', k, v, 1000000, e, c FROM t WHERE txn = 40), $dbname);
	sync_in($dbname);
	is(sql("SELECT md5(string_agg(r::text, ' ' ORDER BY r::text)) FROM (" . join(' UNION ALL ', map { "SELECT '$_', r::text FROM $_ r" } grep { $_ ne 'each' } @names) . ') r', $dbname),
		$before, "$dbname: results of the dump stay as they were");
	sql("SET client_min_messages = warning; SELECT stream_ckpt.rebuild_pipeline('default')", $dbname);
	insert(61, 70, $dbname);
	sync_in($dbname);
	exact($dbname, $_, 'rebuilt') for @names;
	return;
}

restore('other', 'quiet.sql', q(ENCODING 'LATIN1' LOCALE 'C'));
nothing_goes_on('other', qr/The state was written in another kind of database \(UTF8.*this is one of LATIN1/);
restore('without', 'without.sql');
nothing_goes_on('without', qr/The dump was made without state/);

# As if an older version had made it: its serialized states are for that one
my $version = int(sql('SHOW server_version_num') / 10000);
my $old = slurp_file("$dir/quiet.sql");
ok($old =~ s/^(1\t0?.*\t)$version(\t\d+\t[^\t\n]*locale)/${1}14$2/m, 'as by another version');
PostgreSQL::Test::Utils::append_to_file("$dir/old.sql", $old);
restore('old', 'old.sql');
my $said = accept_gap('old');
like($said, qr/windows of query "serial" that had rows are over.*\nDETAIL:  The state was serialized by functions of PostgreSQL 14, and this is $version/, 'old: serial');
like($said, qr/query "serial_total" is lost.*\nDETAIL:  The state was serialized by functions of PostgreSQL 14/, 'old: serial_total');
insert(41, 60, 'old');
sync_in('old');
exact('old', $_, 'goes on with values of SQL types') for grep { $queries{$_}[1] eq 'yes' } @names;

#
# While rows come and processes die: what counts is in state and results of one snapshot, up to one transaction
#
my $writer = start_writer($node, q(INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + (n * 10 + j) * interval '1 second' + (n / 20) * interval '1 minute', (n + j) % 5, n * 10 + j, n, 'bad', 't'
	FROM (SELECT max(txn) + 1 FROM t) m (n), generate_series(0, 9) j;) . "\n", clients => 1, transactions => 1500, rate => 300);
for my $i (1 .. 3)
{
	kill 'TERM', pid_of($node, $i % 2 ? 'task' : 'coordinator') if $i > 1;
	dump_to("busy$i.sql", 1);
}
finish_writer($writer);
for my $i (1 .. 3)
{
	my $dbname = "busy$i";

	restore($dbname, "$dbname.sql");
	accept_gap($dbname);
	my %last = map { split /=/ } split /\n/, sql(q(SELECT query || '=' || rows_in / 10 FROM stream_ckpt.queries), $dbname);
	insert(5001, 5010, $dbname);
	sync_in($dbname);
	exact($dbname, $_, "up to transaction $last{$_}", counts => "txn <= $last{$_} OR txn > 5000") for grep { $queries{$_}[1] ne 'no' } @names;
}

$node->stop;
done_testing();
