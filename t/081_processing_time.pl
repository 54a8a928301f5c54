# processing_time: a stream's event time is the time of the commit.  Windows against the definition, which has the same times
# from track_commit_timestamp; while workers and the server die; they close by the clock alone.  Commits that overtake each
# other, clocks that go back and ahead: no row is lost, and what is counted elsewhere is said.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $node = new_node('main', "track_commit_timestamp = on\nmax_prepared_transactions = 10\n", draw => { tasks => [ 1, 2 ], memory => [0], bucket => [0] });
sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }
sub column { return counter($node, @_); }

# rows of a that b hasn't, and the other way round
sub rows_apart
{
	my ($a, $b) = @_;
	return sql("SELECT count(*) FROM ((($a) EXCEPT ALL ($b)) UNION ALL (($b) EXCEPT ALL ($a))) d");
}

#
# Many writers, and everything lost.  The delay is longer than any commit takes.
#
sql('CREATE TABLE t (id bigserial, k int, v int) PARTITION BY LIST (k)',
	'CREATE TABLE t0 PARTITION OF t DEFAULT',
	'CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)',
	q(SELECT stream_ckpt.attach_stream('t', processing_time => true, watermark_delay => '5 seconds')),
	q(SELECT stream_ckpt.create_stream('l', 'k int, v int', processing_time => true, watermark_delay => '5 seconds')));

my $ct = 'stream_ckpt.commit_time(xmin)';
my %queries = (
	tumbled => [ 'close', "w.window_start, w.window_end, k, count(*) AS n, sum(v) AS s FROM t, stream_ckpt.tumble($ct, '1 second') w GROUP BY 1, 2, 3" ],
	hopped => [ 'close', "w.window_start, w.window_end, k, count(*) AS n FROM t, stream_ckpt.hop($ct, '500 ms', '2 seconds') w GROUP BY 1, 2, 3" ],
	gaps => [ 'close', "w.window_start, w.window_end, k, count(*) AS n FROM t, stream_ckpt.hop($ct, '300 ms', '100 ms') w GROUP BY 1, 2, 3" ],
	cumulated => [ 'close', "w.window_start, w.window_end, count(*) AS n FROM t, stream_ckpt.cumulate($ct, '1 second', '5 seconds') w GROUP BY w.window_start, w.window_end" ],
	sessions => [ 'close', "w.window_start, w.window_end, k, count(*) AS n, array_agg(id ORDER BY id) AS ids FROM t, stream_ckpt.session($ct, '20 ms') w GROUP BY 1, 2, 3" ],
	kept => [ 'close', "w.window_start, w.window_end, k, array_agg(v ORDER BY id) AS l FROM t x JOIN LATERAL stream_ckpt.tumble(stream_ckpt.commit_time(x.xmin), '700 ms') w ON v > 3 GROUP BY 1, 2, 3" ],
	updated => [ 'update', "w.window_start, w.window_end, k, count(*) AS n FROM t, stream_ckpt.tumble($ct, '1 second') w GROUP BY 1, 2, 3" ],
	days => [ 'update', "w.window_start, w.window_end, k, count(*) AS n FROM t, stream_ckpt.tumble($ct, '1 day', timezone => 'Asia/Tokyo') w GROUP BY 1, 2, 3" ],
	rows => [ 'rows', "w.window_start, id, k, v FROM t, stream_ckpt.tumble($ct, '1 second') w WHERE v % 3 = 0" ],
	letters => [ 'close', "w.window_start, w.window_end, k, sum(100 / (v - 7)) AS s FROM t, stream_ckpt.tumble($ct, '1 second') w GROUP BY 1, 2, 3", "on_error => 'dead_letter'" ],
	logged => [ 'close', "w.window_start, w.window_end, k, count(*) AS n, sum(v) AS s FROM l, stream_ckpt.tumble($ct, '1 second') w GROUP BY 1, 2, 3" ],
	ever => [ 'update', 'k, count(*) AS n FROM t GROUP BY 1', "ttl => '1 hour'" ]);

create_query($node, $_, 't', emit => $queries{$_}[0], select => "SELECT $queries{$_}[1]", options => $queries{$_}[2]) for sort keys %queries;
wait_running($node);

my $script = q(
\set k random(0, 3)
\set v random(0, 20)
BEGIN;
INSERT INTO t (k, v) VALUES (:k, :v);
INSERT INTO l VALUES (:k, :v);
SAVEPOINT a;
INSERT INTO t (k, v) VALUES (1, 5);
SAVEPOINT b;
INSERT INTO t (k, v) VALUES (2, 6);
INSERT INTO l VALUES (2, 6);
ROLLBACK TO b;
INSERT INTO l VALUES (1, 5);
COMMIT;
);

my $writer = start_writer($node, $script, clients => 4, transactions => 400, rate => 250);
sql('BEGIN', 'INSERT INTO t (k, v) VALUES (9, 1)', 'INSERT INTO l VALUES (9, 1)', q(PREPARE TRANSACTION 'p'));
lose_state($node, $_, 'TERM') for qw(task coordinator reader);
sql(q(COMMIT PREPARED 'p'));
checkpoint_all($node);
lose_state($node, 'task', 'TERM');
ok(finish_writer($writer), 'the first writers are done');
$writer = start_writer($node, $script, clients => 4, transactions => 1000, rate => 250);
wait_until($node, 'SELECT count(*) > 4000 FROM t', 'others are at work');
# all sessions end with a worker that is killed
lose_state($node, 'task', 'KILL');
finish_writer($writer);
$writer = start_writer($node, $script, clients => 4, transactions => 1000, rate => 250);
wait_until($node, 'SELECT count(*) > 5000 FROM t', 'and others');
lose_state($node, 'immediate');
finish_writer($writer);
sql('INSERT INTO t (k, v) VALUES (8, 8)', 'INSERT INTO l VALUES (8, 8)');

# Nobody writes any more: all windows close by the clock.
sync_pipelines($node);
my @closing = grep { $queries{$_}[0] eq 'close' && $_ ne 'sessions' } sort keys %queries;
wait_until($node, "SELECT bool_and(groups = 0) FROM stream_ckpt.queries WHERE query::text IN ('" . join("', '", @closing) . "')",
	'all windows close by the clock');
wait_until($node, 'SELECT (SELECT sum(n) FROM sessions) = (SELECT count(*) FROM t)', 'sessions, too');
is(sql('SELECT sum(moved_rows) + sum(late_rows) FROM stream_ckpt.queries'), 0, 'no row was late, or elsewhere');
for my $name (sort keys %queries)
{
	my $truth = "SELECT $queries{$name}[1]";

	next if $name eq 'sessions';
	$truth =~ s/ FROM l,/ FROM t,/;
	$truth =~ s/ GROUP BY/ WHERE v <> 7 GROUP BY/ if $name eq 'letters';
	is(rows_apart("TABLE $name", $truth), 0, "$name: as the definition has it");
	cmp_ok(sql("SELECT count(*) FROM $name"), '>', 3, "$name: has rows");
	is(sql("SELECT stream_ckpt.verify('$name')"), 0, "$name: verify()") unless $name =~ /letters|logged|ever/;
}
is(sql(q(SELECT stream_ckpt.verify('sessions'))), 0, 'sessions: verify()');
cmp_ok(sql('SELECT count(*) FROM sessions'), '>', 20, 'sessions: are several');
is(sql('BEGIN', 'UPDATE sessions SET window_end = window_end + interval \'1 us\' WHERE ctid = (SELECT min(ctid) FROM sessions)',
		q(SELECT stream_ckpt.verify('sessions')), 'ROLLBACK'), 2, 'sessions: and it sees a difference');

#
# Without a delay a commit can be overtaken by one of the next window, or by the clock: its rows are in the next window
#
sql('CREATE TABLE r (k int)', q(SELECT stream_ckpt.attach_stream('r', processing_time => true)));
create_query($node, 'races', 'r', select => "SELECT w.window_start, w.window_end, count(*) AS n FROM r, stream_ckpt.tumble($ct, '5 ms') w GROUP BY w.window_start, w.window_end");
create_query($node, 'races_update', 'r', emit => 'update', select => "SELECT w.window_start, w.window_end, count(*) AS n FROM r, stream_ckpt.tumble($ct, '5 ms') w GROUP BY w.window_start, w.window_end");
{
	my $file = PostgreSQL::Test::Utils::tempdir() . '/races.sql';
	append_to_file($file, "INSERT INTO r SELECT generate_series(1, 3);\n");
	local %ENV = $node->_get_env();
	command_ok([ $node->installed_command('pgbench'), '-n', '-c', '8', '-t', '300', '-f', $file, $node->connstr('postgres') ], 'many commits at once');
}
sync_pipelines($node);
wait_until($node, q(SELECT groups = 0 FROM stream_ckpt.queries WHERE query = 'races'::regclass), 'their windows close');
for my $name (qw(races races_update))
{
	my $moved = column($name, 'moved_rows');

	note "$name: $moved rows were moved";
	is(sql("SELECT sum(n) FROM $name"), sql('SELECT count(*) FROM r'), "$name: all rows are counted");
	is(column($name, 'late_rows'), 0, "$name: none is late");
	cmp_ok(sql("SELECT coalesce(sum(abs(coalesce(a.n, 0) - coalesce(b.n, 0))), 0) FROM $name a FULL JOIN ${name}_definition b USING (window_start)"),
		'<=', 2 * $moved, "$name: no more than those said are in another window");
	if ($moved > 0)
	{
		like((try_psql($node, "SELECT stream_ckpt.verify('$name')"))[2], qr/$moved rows were counted in later windows/, "$name: verify() says so");
	}
	else
	{
		is(sql("SELECT stream_ckpt.verify('$name')"), 0, "$name: verify()");
	}
}

#
# Clocks that go back and ahead: the origin of a replicated transaction brings its time along
#
my $base = sql(q(SELECT date_trunc('hour', now() + interval '1 day')));
sub commit_at
{
	my ($table, $minutes) = @_;
	return sql(q(SELECT pg_replication_origin_session_setup('clock')), 'BEGIN',
		"SELECT pg_replication_origin_xact_setup('0/1', timestamptz '$base' + $minutes * interval '1 minute')",
		"INSERT INTO $table VALUES ($minutes)", 'COMMIT', 'SELECT pg_replication_origin_session_reset()');
}
sub windows
{
	my ($name) = @_;
	return sql("SELECT string_agg(format('%s+%s: %s', extract(epoch FROM window_start - '$base')::int / 60, extract(epoch FROM window_end - window_start)::int / 60, l), ' ' ORDER BY window_start, l) FROM $name");
}
sql(q(SELECT pg_replication_origin_create('clock')), 'CREATE TABLE c (minute int)', q(SELECT stream_ckpt.attach_stream('c', processing_time => true)));
my $list = "w.window_start, w.window_end, string_agg(minute::text, ',' ORDER BY minute) AS l FROM c, stream_ckpt";
create_query($node, 'c_close', 'c', select => "SELECT $list.tumble($ct, '1 hour') w GROUP BY w.window_start, w.window_end");
create_query($node, 'c_update', 'c', emit => 'update', select => "SELECT $list.tumble($ct, '1 hour') w GROUP BY w.window_start, w.window_end");
create_query($node, 'c_lenient', 'c', select => "SELECT $list.tumble($ct, '1 hour') w GROUP BY w.window_start, w.window_end", options => "allowed_lateness => '1 hour'");
create_query($node, 'c_hop', 'c', emit => 'update', select => "SELECT $list.hop($ct, '1 hour', '2 hours') w GROUP BY w.window_start, w.window_end");
create_query($node, 'c_session', 'c', emit => 'update', select => "SELECT $list.session($ct, '1 hour') w GROUP BY w.window_start, w.window_end");
wait_running($node);
commit_at('c', $_) for 10, 50, 70;
sync_pipelines($node);
is(windows('c_close'), '0+60: 10,50', 'a commit closes the windows before it');
commit_at('c', $_) for 59, 71;
sync_pipelines($node);
is(windows('c_update'), '0+60: 10,50 60+60: 59,70,71', 'a commit whose window is over is in the next one');
is(windows('c_lenient'), '0+60: 10,50,59', 'but for who allows lateness');
is(windows('c_hop'), '-60+120: 10,50 0+120: 10,50,59,70,71 60+120: 59,70,71', 'it is where the watermark is, in all windows');
is(windows('c_session'), '10+121: 10,50,59,70,71', 'a session that is open has it');
lose_state($node, 'task');
commit_at('c', -30);
commit_at('c', 130);
lose_state($node, 'immediate');
sync_pipelines($node);
is(windows('c_close'), '0+60: 10,50 60+60: -30,59,70,71', 'and it is there when the window closes');
is(windows('c_lenient'), '0+60: 10,50,59 60+60: -30,70,71', 'beyond lateness it is where the watermark is');
is(windows('c_session'), '10+180: -30,10,50,59,70,71,130', 'so it is for a session that nothing of is left');
is(join(' ', map { column($_, 'moved_rows') } qw(c_close c_update c_lenient c_hop c_session)), '2 2 1 2 1', 'how many are said');
is(sql(q(SELECT sum(late_rows) FROM stream_ckpt.queries WHERE stream = 'c'::regclass)), 0, 'none is late');
like((try_psql($node, q(SELECT stream_ckpt.verify('c_close'))))[2], qr/2 rows were counted in later windows/, 'verify() says that its truth is another');

# far ahead, and back
commit_at('c', 365 * 1440);
commit_at('c', 135);
sync_pipelines($node);
is(windows('c_update'), '0+60: 10,50 60+60: -30,59,70,71 120+60: 130 525600+60: 135,525600', 'a clock that was ahead keeps later rows there');
sql("SELECT stream_ckpt.reset_watermark('c', timestamptz '$base' + interval '140 minutes')");
commit_at('c', $_) for 150, 190;
sync_pipelines($node);
is(windows('c_update'), '0+60: 10,50 60+60: -30,59,70,71 120+60: 130 180+60: 190 525600+60: 135,525600', 'reset_watermark() has them back in their windows');
is(column('c_update', 'late_rows'), 1, 'but for windows that were over already');

# where the watermark is can be between two windows
sql('CREATE TABLE g (minute int)', q(SELECT stream_ckpt.attach_stream('g', processing_time => true)));
create_query($node, 'g_hop', 'g', emit => 'update', select => 'SELECT ' . ($list =~ s/FROM c/FROM g/r) . ".hop($ct, '1 hour', '20 minutes') w GROUP BY w.window_start, w.window_end");
wait_running($node);
commit_at('g', $_) for 10, 50, 15;
sync_pipelines($node);
is(windows('g_hop'), '0+20: 10 60+20: 15', 'a commit whose window is over, while there is none: it is in the next one');
is(join(' ', map { column('g_hop', $_) } qw(moved_rows late_rows)), '1 0', 'which is said');

#
# The same around the clock's own time
#
sub commit_from_now
{
	my ($table, $interval, $k) = @_;
	return sql(q(SELECT pg_replication_origin_session_setup('clock')), 'BEGIN',
		"SELECT pg_replication_origin_xact_setup('0/1', clock_timestamp() + interval '$interval')",
		"INSERT INTO $table VALUES ($k)", 'COMMIT', 'SELECT pg_replication_origin_session_reset()');
}
sub wait_closed
{
	my ($name, $what) = @_;
	return wait_until($node, "SELECT groups = 0 FROM stream_ckpt.queries WHERE query = '$name'::regclass", $what);
}
sql('CREATE TABLE d (k int)', q(SELECT stream_ckpt.attach_stream('d', processing_time => true)));
create_query($node, 'd_close', 'd', select => "SELECT w.window_start, w.window_end, count(*) AS n FROM d, stream_ckpt.tumble($ct, '1 second') w GROUP BY w.window_start, w.window_end");
create_query($node, 'd_rows', 'd', emit => 'rows', select => "SELECT w.window_start, k FROM d, stream_ckpt.tumble($ct, '1 second') w");
wait_running($node);
sql('INSERT INTO d VALUES (0)');
for my $lag (1, 2)
{
	commit_from_now('d', '-10 minutes', $lag);
	sync_pipelines($node);
	wait_closed('d_close', "$lag: a window with a commit that came late closes by the clock");
	is(sql('SELECT max(window_end) <= clock_timestamp() FROM d_close'), 't', "$lag: not before its time");
	cmp_ok(sql(q(SELECT watermark <= clock_timestamp() FROM stream_ckpt.queries WHERE query = 'd_close'::regclass)), 'eq', 't', "$lag: the watermark isn't ahead of the clock");
	sql('INSERT INTO d VALUES (0)');
	sync_pipelines($node);
	is(column('d_close', 'moved_rows'), $lag, "$lag: it is moved, and no commit of now is");
}
commit_from_now('d', '3 seconds', 3);
sync_pipelines($node);
wait_closed('d_close', 'a window that is ahead of the clock closes');
is(sql('SELECT max(window_end) <= clock_timestamp() FROM d_close'), 't', 'when the clock has come to its end');
is(column('d_rows', 'moved_rows'), 0, 'a query without groups moves none');
is(sql(q(SELECT stream_ckpt.verify('d_rows'))), 0, 'and has the windows of its definition');

# a commit far ahead, and reset_watermark() without a time
sql('CREATE TABLE h (k int)', q(SELECT stream_ckpt.attach_stream('h', processing_time => true)));
create_query($node, 'h_close', 'h', select => "SELECT w.window_start, w.window_end, count(*) AS n FROM h, stream_ckpt.tumble($ct, '1 ms') w GROUP BY w.window_start, w.window_end");
create_query($node, 'h_session', 'h', emit => 'update', select => "SELECT w.window_start, w.window_end, k, count(*) AS n FROM h, stream_ckpt.session($ct, '1 hour') w GROUP BY w.window_start, w.window_end, k");
wait_running($node);
sql('INSERT INTO h VALUES (1)');
commit_from_now('h', '1 year', 2);
sql('INSERT INTO h VALUES (1)');
sync_pipelines($node);
is(column('h_close', 'moved_rows'), 1, 'after a commit far ahead those of now are moved');
for my $times (1, 2)
{
	sql(q(SELECT stream_ckpt.reset_watermark('h')));
	sql('INSERT INTO h VALUES (1)');
	sync_pipelines($node);
	is(column('h_close', 'moved_rows'), 1, "reset_watermark() without a time goes back to now: $times");
	is(column('h_session', 'late_rows'), $times, "who would join a session that is over is late: $times");
}
is(sql('SELECT count(*) FROM h_session WHERE k = 1'), 2, 'no session is opened beside it');

# an origin without a time
sql('CREATE TABLE o (k int)', q(SELECT stream_ckpt.attach_stream('o', processing_time => true)));
create_query($node, 'o_update', 'o', emit => 'update', select => "SELECT w.window_start, w.window_end, count(*) AS n FROM o, stream_ckpt.tumble($ct, '1 second') w GROUP BY w.window_start, w.window_end");
wait_running($node);
sql(q(SELECT pg_replication_origin_session_setup('clock')), 'INSERT INTO o VALUES (1)', 'SELECT pg_replication_origin_session_reset()');
sync_pipelines($node);
is(sql(q(SELECT stream_ckpt.verify('o_update'))), 0, 'a commit with an origin that has no time is at its own');
is(sql(q(SELECT window_start > now() - interval '1 hour' FROM o_update)), 't', 'which is now');

#
# Rows from before: no truth
#
sql('CREATE TABLE b (k int)', q(SELECT stream_ckpt.attach_stream('b', processing_time => true)));
create_query($node, 'b_counts', 'b', emit => 'update', select => "SELECT w.window_start, k, count(*) AS n FROM b, stream_ckpt.tumble($ct, '1 hour') w GROUP BY w.window_start, k");
create_query($node, 'b_total', 'b', emit => 'update', select => 'SELECT k, count(*) AS n FROM b GROUP BY k');
sql('INSERT INTO b VALUES (1)');
sync_pipelines($node);
is(sql(q(SELECT stream_ckpt.verify('b_counts'))), 0, 'verify() has the truth');
$node->append_conf('postgresql.conf', 'track_commit_timestamp = off');
$node->restart;
wait_running($node);
sql('INSERT INTO b VALUES (1)');
sync_pipelines($node);
is(sql('SELECT sum(n) FROM b_counts'), 2, 'the query needs no track_commit_timestamp');
like((try_psql($node, q(SELECT stream_ckpt.verify('b_counts'))))[2], qr/only if track_commit_timestamp is on/, 'verify() does');
is(sql(q(SELECT stream_ckpt.verify('b_total'))), 0, 'but not of a query without windows');
like((try_psql($node, 'TABLE b_counts_definition'))[2], qr/times of commits are not kept/, 'and so does the definition');
$node->append_conf('postgresql.conf', 'track_commit_timestamp = on');
$node->restart;
wait_running($node);
like((try_psql($node, q(SELECT stream_ckpt.verify('b_counts'))))[2], qr/2 rows of the stream have no known time of commit/, 'those of before are not known any more');

done_testing();
