# session() where it is easily wrong: infinite event times; a watermark that goes back; what implausible rows have closed; what
# is late without the state; restarts; keys that become equal; rows exactly the gap apart; errors in the middle of joining;
# streams that are renamed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $node = new_node('main', '', draw => { memory => [0], bucket => [0], tasks => [2] });
sub sql { return $node->safe_psql('postgres', "SET timezone = 'UTC'; $_[0]"); }

# A stream and a query of the sessions of k.  Rows are "seconds key", or "time key" if it has a colon.
sub session_query
{
	my ($table, $gap, %opt) = @_;

	sql("CREATE TABLE $table (ts timestamptz, k int, v int DEFAULT 1)");
	attach($node, $table, %opt);
	create_query($node, "q_$table", $table, %opt,
		select => "SELECT w.window_start, w.window_end, k, " . ($opt{list} // 'count(*) AS n') . " FROM $table, stream_ckpt.session(ts, '$gap') w GROUP BY w.window_start, w.window_end, k");
	wait_running($node);
	return;
}

sub insert
{
	my ($table, @rows) = @_;

	sql("INSERT INTO $table (ts, k, v) VALUES " . join(', ', map {
		my ($at, $k, $v) = split;

		'(' . ($at =~ /[:i]/ ? "'" . ($at =~ /i/ ? $at : "2024-01-01 $at") . "'" : "timestamptz '2024-01-01' + interval '$at seconds'") . ", $k, " . ($v // 1) . ')' } @rows));
	return;
}

sub shown
{
	my ($table, $k) = @_;

	sync_pipelines($node);
	return sql("SELECT string_agg(to_char(window_start, 'MI:SS') || '-' || to_char(window_end, 'MI:SS') || '=' || n, ' ' ORDER BY window_start) FROM q_$table WHERE k = $k AND window_end < '2100-01-01'");
}

sub late { return counter($node, "q_$_[0]", 'late_rows'); }
sub back { return sql("SELECT stream_ckpt.reset_watermark('$_[0]', timestamptz '2024-01-01' + interval '$_[1] seconds')"); }

# An infinite event time is in no session, whose row ever it is.
session_query('inf', '10 seconds', options => 'parallelism => 2');
insert('inf', '0 1', '-infinity 1', 'infinity 1', map { ("5 $_", "-infinity $_", "infinity $_") } 2 .. 9);
insert('inf', '60 1');
is(shown('inf', 1), '00:00-00:10=1', 'an infinite event time is in no session');
is(sql('SELECT count(*), sum(n) FROM q_inf'), '9|9', 'of no key');
is(counter($node, 'q_inf', 'null_event_times'), 18, 'and is counted');
is(sql("SELECT stream_ckpt.verify('q_inf')"), 0, 'verify()');

# A row that is over for good makes no session begin earlier.
session_query('back', '10 seconds');
insert('back', '0 1');
insert('back', '25 2');
sync_pipelines($node);
back('back', 0);
insert('back', '16 1');
insert('back', '8 1');
insert('back', '100 3');
is(shown('back', 1), '00:00-00:10=1 00:16-00:26=1', 'after the watermark went back');
is(late('back'), 1, 'a row within the gap of a session that was deleted is late');
# a longer delay changes nothing of that
sql("SELECT stream_ckpt.alter_stream('back', watermark_delay => '1 hour')");
back('back', 0);
insert('back', '50 1');
insert('back', '4000 3');
is(shown('back', 1), '00:00-00:10=1 00:16-00:26=1', 'a longer delay, and then back');
is(late('back'), 2, 'is late all the same');

# Sessions that implausible rows have closed: who is within the gap of them.
session_query('far', '30 minutes');
sql("SELECT stream_ckpt.alter_stream('far', max_ahead => NULL)");
insert('far', map { "10:$_:00 1" } '00', 10, 20);
sql("INSERT INTO far VALUES ('2124-01-01', 5)");
sync_pipelines($node);
sql("SELECT stream_ckpt.reset_watermark('far', '2024-01-01 10:20:00')");
sync_pipelines($node);
checkpoint_all($node);
lose_state($node, 'task');
insert('far', '10:25:00 1', '10:50:00 1', '09:31:00 1', '10:50:01 1', '11:20:01 1');
insert('far', '12:50:00 2');
is(shown('far', 1), '00:00-50:00=3 50:01-50:01=2', 'rows within the gap of what implausible rows have closed');
is(late('far'), 3, 'are late');

# Without the state all that may join a session is late.
session_query('gone', '10 seconds');
insert('gone', '0 1', '20 1', '20 2');
sync_pipelines($node);
back('gone', 15);
sync_pipelines($node);
checkpoint_all($node);
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->run_log([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ]);
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'restored');
$node->safe_psql('restored', q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
my $late = $node->safe_psql('restored', "SELECT late_rows FROM stream_ckpt.queries WHERE query = 'q_gone'::regclass");
$node->safe_psql('restored', "INSERT INTO gone VALUES (timestamptz '2024-01-01 UTC' + $_ * interval '1 second', 1)") for 29, 30, 31, 60;
sync_pipelines($node, 'restored');
is($node->safe_psql('restored', "SELECT string_agg(extract(second FROM window_start)::int || '-' || extract(second FROM window_end)::int || '=' || n, ' ' ORDER BY window_start) FROM q_gone WHERE k = 1"),
	'0-10=1 31-41=1', 'after a dump: rows that would have joined a session, which had rows ahead of the watermark');
is($node->safe_psql('restored', "SELECT late_rows - $late FROM stream_ckpt.queries WHERE query = 'q_gone'::regclass"), 2, 'are late');
$node->safe_psql('restored', q(SELECT stream_ckpt.stop_pipeline('default')));

# What is late after the watermark went back doesn't depend on a restart.
for my $emit (qw(update close))
{
	my $t = "again_$emit";

	session_query($t, '10 seconds', emit => $emit, options => "allowed_lateness => '1 hour'");
	insert($t, '0 1');
	insert($t, '30 2');
	checkpoint_all($node);
	lose_state($node, 'task');
	back($t, 0);
	insert($t, '5 1');
	insert($t, '100 3');
	is(shown($t, 1), $emit eq 'update' ? '00:00-00:15=2' : '00:00-00:10=1', "emit $emit: after a restart, and back");
	is(late($t), $emit eq 'update' ? 0 : 1, "emit $emit: late rows");
}

# A session whose row failed isn't tried again at each restart.
session_query('failing', '10 seconds', options => "allowed_lateness => '1 hour', on_error => 'dead_letter'", list => 'count(*) AS n, 10 / min(v) AS x');
insert('failing', '0 1 0', '0 2 5');
insert('failing', '30 3 1');
checkpoint_all($node);
lose_state($node, 'task') for 1 .. 2;
insert('failing', '31 3 1');
sync_pipelines($node);
is(sql("SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'q_failing'::regclass"), 1, 'a row of the result that fails is one dead letter');
is(shown('failing', 2), '00:00-00:10=1', 'the other one is there');

# Rows exactly the gap apart are one session, though others have moved the watermark to its end.
session_query('exact', '60 seconds');
for my $minute (0 .. 3)
{
	insert('exact', $minute * 60 . " $_") for 1 .. 3;
}
insert('exact', '1000 9');
is(shown('exact', $_), '00:00-04:00=4', "key $_: rows exactly the gap apart are one session") for 1 .. 3;
is(late('exact'), 0, 'and none of them is late');
is(sql("SELECT stream_ckpt.verify('q_exact')"), 0, 'verify()');
insert('exact', '1060 8');
is(shown('exact', 9), '', 'a session is open while the watermark is at its end');
is(sql("SELECT stream_ckpt.verify('q_exact')"), 0, 'verify() knows');

# Keys that become equal: what is closed goes if it is in an open session, or the other way round; what touches is one.
sub equal { return sql('INSERT INTO equal VALUES ' . join(', ', map { my ($at, @k) = split; "(timestamptz '2024-01-01' + interval '$at seconds', ROW(" . join(', ', @k) . ')::kind)' } @_)); }
sql('CREATE TYPE kind AS (a int, b int); CREATE TABLE equal (ts timestamptz, k kind)');
attach($node, 'equal');
create_query($node, 'q_equal', 'equal', tasks => 1,
	select => "SELECT w.window_start, w.window_end, k, count(*) AS n FROM equal, stream_ckpt.session(ts, '10 seconds') w GROUP BY w.window_start, w.window_end, k");
wait_running($node);
equal('80 1 3', '85 1 3', (map { $_ * 10 . ' 1 1' } 0 .. 10),	# a closed one in an open one
	'85 2 1', '95 2 1', '85 2 2',	# the same, and both begin at once
	'95 3 1', '95 3 2', '98 3 3',	# open ones, of one start and not
	'80 4 1', '85 4 2',	# closed ones
	'80 5 1', '87 5 1', '86 5 2', '95 5 2',	# a closed one that begins before an open one, and ends in it
	'84 6 1', '85 6 1', '75 6 2', '84 6 2', '93 6 2', '97 6 3', '84 6 4');	# an open one, and before that closed ones in it
sync_pipelines($node);
checkpoint_all($node);
sql('ALTER TYPE kind DROP ATTRIBUTE b');
equal('80 1', '88 2', '95 4', '83 4', '84 5', '90 5', '80 6');
lose_state($node, 'task');
equal('82 1', '86 2', '99 3', '95 4');
equal('9000 9');
sync_pipelines($node);
is(sql("SELECT string_agg((k).a || ':' || extract(epoch FROM window_start - '2024-01-01')::int || '-' || extract(epoch FROM window_end - '2024-01-01')::int || '=' || n, ' ' ORDER BY k, window_start, window_end) FROM q_equal"),
	'1:0-110=13 1:80-95=2 2:85-95=1 2:85-105=4 3:95-109=4 4:80-90=1 4:85-95=1 5:80-97=2 5:86-105=3 6:75-107=5 6:84-94=1 6:84-95=2', 'sessions of keys that have become equal');
is(late('equal'), 4, 'late are rows of closed ones');

# A stream that is renamed.
sql('ALTER TABLE exact RENAME TO "the ""exact"" one"');
is(sql("SELECT stream_ckpt.verify('q_exact')"), 0, 'verify() of a renamed stream');
sql('CREATE SCHEMA s; ALTER TABLE "the ""exact"" one" SET SCHEMA s; ALTER TABLE s."the ""exact"" one" RENAME TO old');
is(sql("SELECT stream_ckpt.verify('q_exact')"), 0, 'verify() of one in another schema, called "old"');

$node->stop;
done_testing();
