# Rows of a query in several tasks: each is left to its owner as early as can be, wherever its columns lie and whatever
# else is the matter with it; and result rows of all tasks are inserted in the order of the result table's index.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "max_worker_processes = 10\nstream_ckpt.debug_batch_rows = -1\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("SELECT stream_ckpt.alter_pipeline('default', parallelism => 4)");

#
# Columns of all widths and alignments, before and behind each other: by value, so that keys are read in place; a
# dropped one, one that was added, one behind text; a partition with another order; a log stream
#
my $columns = 'ts timestamptz, flag bool, small int2, tiny "char", k int, big int8, day date, v int';
my $values = "SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i %% 3 = 0, %s, chr(65 + i %% 3)::\"char\",
	CASE WHEN i %% 11 > 0 THEN i %% 17 - 8 END, (i %% 5 - 2) * 10000000000, date '2024-01-01' + i %% 4, i %% 10 - 1 FROM generate_series(%d, %d) i";

sql("CREATE TABLE plain ($columns)");
sql("CREATE TABLE dropped (gone int, $columns)");
sql("CREATE TABLE behind (s text, $columns)");
sql("CREATE TABLE added (ts timestamptz)");
sql("CREATE TABLE parts ($columns) PARTITION BY RANGE (ts)");
sql("CREATE TABLE part1 (v int, day date, s text, big int8, k int, tiny \"char\", ts timestamptz, flag bool, small int2);
	ALTER TABLE part1 DROP COLUMN s; ALTER TABLE parts ATTACH PARTITION part1 DEFAULT");
sql("ALTER TABLE added ADD flag bool, ADD small int2, ADD tiny \"char\", ADD k int, ADD big int8, ADD day date, ADD v int");
sql("CREATE TABLE logged_rows ($columns)");
sql("SELECT stream_ckpt.create_stream('logged', '$columns', event_time => 'ts', watermark_delay => '1 hour')");
attach($node, $_, delay => '1 hour') for qw(plain dropped behind added parts);

my @streams = qw(plain dropped behind added parts logged);
my %keys = (
	k => 'k', most => 'small, flag, tiny, k, day', big => 'big, flag', text => "'k ' || k", number => 'k::numeric, tiny', remainder => 'k % 3', ratio => '100 / v');
my %queries;

sub text_of
{
	my ($stream, $key, $where) = @_;
	my $i = 0;
	my $names = join ', ', map { "$_ AS key" . $i++ } split /, /, $keys{$key};

	return "SELECT w.window_start, w.window_end, $names, count(*) AS n, sum(v) AS total, max(big) AS biggest
		FROM $stream, stream_ckpt.tumble(ts, '1 minute') w WHERE $where GROUP BY w.window_start, w.window_end, $keys{$key}";
}

sub make
{
	my ($stream, $key, $where, %opt) = @_;
	my $name = "${stream}_$key" . ($opt{suffix} // '');

	create_query($node, $name, $stream, emit => 'update', select => text_of($stream, $key, $where),
		options => 'parallelism => ' . ($opt{tasks} // 4) . ($opt{options} ? ", $opt{options}" : ''));
	$queries{$name} = text_of($stream eq 'logged' ? 'logged_rows' : $stream, $key, $opt{truth} // $where);
	return;
}

sub insert
{
	my ($from, $to, $small) = @_;
	my $rows = sprintf $values, $small // 'i % 7 - 3', $from, $to;

	(my $names = $columns) =~ s/ (int2|bool|timestamptz|"char"|int8|int|date)//g;
	sql("BEGIN;" . join('', map { "INSERT INTO $_ ($names) $rows;" } @streams, 'logged_rows') . 'COMMIT');
	return;
}

insert(1, 50);
sql('ALTER TABLE dropped DROP COLUMN gone');
for my $stream (@streams)
{
	make($stream, 'k', 'true');
	make($stream, 'most', 'small < 3 OR small IS NULL');
}
make('plain', $_, 'v <> 4', tasks => 3) for grep { $_ !~ /^(k|most|ratio)$/ } keys %keys;
# the key of a row that WHERE excludes would be an error
make('plain', 'ratio', 'v <> 0');
make('plain', 'k', '100 / v > -1000', suffix => '_letters', options => "on_error => 'dead_letter'",
	truth => 'v <> 0');
make('plain', 'remainder', '100 / v > -1000', suffix => '_letters', options => "on_error => 'dead_letter'",
	truth => 'v <> 0');
wait_running($node);
# what was there before the queries isn't in them, and so not in what they are compared with
sql("TRUNCATE $_") for grep { $_ ne 'logged' } @streams, 'logged_rows';
sync_pipelines($node);
insert(100, 400);
sql("ALTER TABLE added ADD later text DEFAULT 'x'");
insert(300, 700);
insert(600, 650, 'NULL');
# without an event time, and with one that belongs to no window; their WHERE can fail, too
sql("BEGIN;" . join('', map { "INSERT INTO $_ (ts, k, v) SELECT CASE WHEN i % 3 = 0 THEN 'infinity' WHEN i % 3 = 1 THEN '-infinity'::timestamptz END, i, 0
	FROM generate_series(1, 30) i;" } @streams, 'logged_rows') . 'COMMIT');
insert(5, 900);
sync_pipelines($node);

results_ok($node, $_, $_, synced => 1, emit => 'update', truth => $queries{$_} =~ s/ FROM (\w+),/ FROM (SELECT * FROM $1 WHERE isfinite(ts)) $1,/r)
  for sort keys %queries;
is(sql(q(SELECT string_agg(DISTINCT rows_in::text, ',') FROM stream_ckpt.queries)),
	sql('SELECT count(*) FROM plain'), 'each row is counted once');
is(sql(q(SELECT string_agg(DISTINCT null_event_times::text, ',') FROM stream_ckpt.queries WHERE query <> 'plain_ratio'::regclass)), '30', 'and those without a window');
is(sql("SELECT count(*), count(DISTINCT (lsn, ordinal)) FROM stream_ckpt.dead_letter WHERE query = 'plain_${_}_letters'::regclass"),
	sql('SELECT count(*), count(*) FROM plain WHERE v = 0 AND isfinite(ts)'), "WHERE that fails, by $_: each row once")
  for qw(k remainder);
sql("SELECT stream_ckpt.drop_query('$_')") for sort keys %queries;

#
# A window of one key is over for all of them, also if the watermark goes back before it
#
create_stream_table($node, 'b');
create_query($node, 'once', 'b', options => 'parallelism => 4');
wait_running($node);
sub insert_minute { return sql("INSERT INTO b SELECT timestamptz '2024-01-01 UTC' + interval '$_[0] minutes', k, 1, 1 FROM generate_series(1, $_[1]) k"); }
insert_minute(0, 50);
insert_minute(5, 1);
insert_minute(10, 1);
sync_pipelines($node);
sql("SELECT stream_ckpt.reset_watermark('b', '2024-01-01 00:03 UTC')");
insert_minute(5, 50);
insert_minute(6, 50);
insert_minute(11, 1);
sync_pipelines($node);
is(query_late_rows($node, 'once'), '50', 'late in all tasks');
is(sql('SELECT count(*), sum(n) FROM once'), '102|102', 'and others are not');
sql("SELECT stream_ckpt.drop_query('once')");

#
# Rows of all tasks in the index's order: of the window, or of all that identifies a row; and those that are changed behind them
#
sql("SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')");
create_stream_table($node, 't');
my $group = "FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end";
create_query($node, 'numbers', 't', options => 'parallelism => 4', select => "SELECT w.window_start, w.window_end, k, count(*) AS n $group, k");
create_query($node, 'words', 't', options => "parallelism => 3, allowed_lateness => '1 second'",
	select => "SELECT w.window_start, w.window_end, nullif('word ' || k, 'word 7') AS word, sum(v) AS total $group, nullif('word ' || k, 'word 7')");
create_query($node, 'lately', 't', options => "parallelism => 4, allowed_lateness => '1 hour'",
	select => "SELECT w.window_start, w.window_end, k, count(*) AS n $group, k");
wait_running($node);
checkpoint_all($node);
sub insert_windows
{
	my ($from, $to, $every) = @_;
	return sql("INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + minute * interval '1 minute', k, minute, 1
		FROM generate_series($from, $to) minute, generate_series(1, 100, $every) k");
}
insert_windows(0, 39, 1);
insert_windows(50, 50, 100);
insert_windows(10, 30, 9);
checkpoint_all($node);
insert_windows(51, 60, 3);
insert_windows(70, 70, 100);
checkpoint_all($node);
results_ok($node, 'lately', 'windows that close and change in one checkpoint', synced => 1, table => 't');
my %order = (numbers => 'window_start', words => 'window_start, word');
for my $name (sort keys %order)
{
	cmp_ok(sql("SELECT count(*) FROM $name"), '>', 4000, "$name: rows of closed windows");
	is(sql("SELECT count(*) FROM (SELECT rank, max(rank) OVER (ORDER BY ctid) AS highest
			FROM (SELECT ctid, *, rank() OVER (ORDER BY $order{$name}) AS rank FROM $name) r) x WHERE rank < highest"),
		'0', "$name: in the order of $order{$name}");
}

$node->stop;
done_testing();
