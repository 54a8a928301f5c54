# Event times that can't be true: max_ahead, which keeps them from moving the watermark; alter_stream() and
# reset_watermark(), which act at one place in the log; first case by case, then at random with random kills, against
# a model of what a watermark is.
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

test_seed();
my $rounds = $ENV{ROUNDS} || 5;

my $node = new_node('main', "timezone = 'UTC'\n", draw => {});

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sub fails
{
	my ($command, $error, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($ret, $out, $err) = $node->psql('postgres', $command);
	like($err, $error, $test);
	return;
}

sub column
{
	my ($name, $column) = @_;
	sync_pipelines($node);
	return counter($node, $name, $column);
}

sub restart
{
	$node->stop('immediate');
	$node->start;
	wait_running($node);
	return;
}

# A row (or more) in a transaction of its own: minutes from 2024-01-01, or a timestamp
sub ts { return $_[0] =~ /^[0-9.]+$/ ? "timestamptz '2024-01-01' + $_[0] * interval '1 min'" : "timestamptz '$_[0]'"; }

sub put
{
	my ($stream, @rows) = @_;
	sql("INSERT INTO $stream (ts, id) VALUES " . join(', ', map { '(' . ts($_) . ', 1)' } @rows));
	return;
}

sub minutely
{
	my ($stream, %opt) = @_;
	for my $emit (qw(close update))
	{
		create_query($node, "${stream}_$emit", $stream, emit => $emit, %opt,
			select => "SELECT w.window_start, w.window_end, count(*) AS n
				FROM $stream, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end");
	}
	return;
}

# "minute:n" of a result, years from 2100 as they are
sub result
{
	my ($name) = @_;
	sync_pipelines($node);
	return sql("SELECT coalesce(string_agg(CASE WHEN window_start < '2100-01-01'
			THEN (extract(epoch FROM window_start - '2024-01-01') / 60)::int::text
			ELSE extract(year FROM window_start)::text END || ':' || n, ' ' ORDER BY window_start), '') FROM $name");
}

sub both
{
	my ($stream, $close, $update, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(result("${stream}_close"), $close, "$stream, close: $test");
	is(result("${stream}_update"), $update, "$stream, update: $test");
	return;
}

#
# max_ahead, for every kind of stream
#
sql(q(CREATE TABLE plain (ts timestamptz, id int)),
	q(CREATE TABLE local (ts timestamp, id int)),
	q(CREATE TABLE parts (id int, ts timestamptz) PARTITION BY HASH (id)),
	q(CREATE TABLE parts_0 (gone int, ts timestamptz, id int)),
	q(ALTER TABLE parts_0 DROP gone),
	q(ALTER TABLE parts ATTACH PARTITION parts_0 FOR VALUES WITH (MODULUS 1, REMAINDER 0)));
attach($node, $_) for qw(plain local parts);
sql(q(SELECT stream_ckpt.create_stream('logged', 'ts timestamptz, id int', event_time => 'ts')),
	q(SELECT stream_ckpt.create_stream('logged_local', 'id int, ts timestamp', event_time => 'ts')),
	q(CREATE FOREIGN TABLE unlimited (ts timestamptz, id int) SERVER stream_ckpt OPTIONS (event_time 'ts')));
my @limited = qw(plain local parts logged logged_local);
minutely($_) for @limited, 'unlimited';
wait_running($node);
is(sql(q(SELECT string_agg(DISTINCT concat_ws('/', max_ahead), ',') FROM stream_ckpt.streams WHERE stream::text <> 'unlimited')),
	'1 day', 'streams get a limit');
is(sql(q(SELECT array_to_string(ftoptions, ' ') FROM pg_foreign_table WHERE ftrelid = 'logged'::regclass)),
	'event_time=ts max_ahead=1 day', 'that of a log stream is an option');
is(sql(q(SELECT max_ahead IS NULL FROM stream_ckpt.streams WHERE stream = 'unlimited'::regclass)), 't', 'CREATE FOREIGN TABLE gives none');
for my $stream (@limited, 'unlimited')
{
	put($stream, 0.1, 0.2);
	put($stream, '2124-01-01', 0.5, '2124-01-01', 1.5);
	put($stream, 0.3, 1.7, 2.1);
}
restart();
for my $stream (@limited)
{
	both($stream, '0:3 1:2', '0:3 1:2 2:1 2124:2', 'real rows count, the others wait');
	is(sql("SELECT rows_in, late_rows, ahead_rows, watermark FROM stream_ckpt.queries WHERE query = '${stream}_close'::regclass"),
		'9|1|2|2024-01-01 00:02:06+00', "$stream: one late row, two counted");
	is(sql("SELECT ahead_rows FROM stream_ckpt.streams WHERE stream = '$stream'::regclass"), '2', "$stream: the view counts them, too");
}
both('unlimited', '0:3 1:1', '0:3 1:1 2124:2', 'without a limit it is over');
is(column('unlimited_close', 'late_rows || \' \' || ahead_rows'), '3 0', 'what comes is late');
# relative to the commit, not to now: 2 hours are a limit here
sql(q(SELECT stream_ckpt.alter_stream('plain', max_ahead => '2 hours')));
sql(q(INSERT INTO plain VALUES (clock_timestamp() + interval '3 hours', 1)));
is(column('plain_close', q(watermark < '2024-01-02' AND ahead_rows = 3)), 't', 'further ahead than a limit of 2 hours');
sql(q(INSERT INTO plain VALUES (clock_timestamp() + interval '1 hour', 1)));
is(column('plain_close', q(watermark > now() AND ahead_rows = 3)), 't', 'within it');

# A dead letter moves the watermark as any row does, or doesn't.
sql(q(CREATE TABLE d (ts timestamptz, id int)));
attach($node, 'd');
create_query($node, 'd_close', 'd', options => q(on_error => 'dead_letter'),
	select => q(SELECT w.window_start, w.window_end, sum(1 / (id - 1)) AS n FROM d, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end));
sql(q(INSERT INTO d VALUES ('2024-01-01 00:00', 2)));
put('d', '2124-01-01', 1);
is(result('d_close') . ' ' . column('d_close', 'watermark'), '0:1 2024-01-01 00:01:00+00', 'dead letters');

#
# alter_stream(): who may, and what
#
fails(q(SELECT stream_ckpt.alter_stream('plain', idle_timeout => '0')), qr/parameter "idle_timeout" must be greater than zero/, 'idle_timeout 0');
fails(q(SELECT stream_ckpt.alter_stream('plain', max_ahead => '-1 hour')), qr/parameter "max_ahead" must not be negative/, 'negative');
fails(q(SELECT stream_ckpt.alter_stream('plain', watermark_delay => NULL)), qr/parameter "watermark_delay" must not be null/, 'no delay');
fails(q(SELECT stream_ckpt.reset_watermark('plain', 'infinity')), qr/parameter "to" must be finite/, 'to infinity');
sql(q(CREATE ROLE somebody));
fails("SET ROLE somebody; SELECT stream_ckpt.$_", qr/must be owner of/, "not an owner: $_") for q(alter_stream('plain')), q(reset_watermark('plain'));
for my $stream (qw(plain logged))
{
	sql("SELECT stream_ckpt.alter_stream('$stream', '2 minutes', '1 hour', NULL)", "SELECT stream_ckpt.alter_stream('$stream')",
		"SELECT stream_ckpt.alter_stream('$stream', watermark_delay => '1.5 minutes')");
	is(sql("SELECT watermark_delay, idle_timeout, max_ahead IS NULL FROM stream_ckpt.streams WHERE stream = '$stream'::regclass"),
		'00:01:30|01:00:00|t', "$stream: what is left out stays");
	sql("SELECT stream_ckpt.alter_stream('$stream', idle_timeout => NULL, max_ahead => '0')");
	is(sql("SELECT watermark_delay, idle_timeout IS NULL, max_ahead FROM stream_ckpt.streams WHERE stream = '$stream'::regclass"),
		'00:01:30|t|00:00:00', "$stream: NULL is none");
}
sql(q(ALTER FOREIGN TABLE logged OPTIONS (SET watermark_delay '0', DROP max_ahead)));
sync_pipelines($node);
is(sql(q(SELECT watermark_delay, max_ahead IS NULL FROM stream_ckpt.checkpoint_offset WHERE source = 'logged'::regclass LIMIT 1)), '00:00:00|t',
	'ALTER FOREIGN TABLE ends the same way');
fails(q(ALTER FOREIGN TABLE logged OPTIONS (DROP event_time)), qr/cannot change the event time of stream "logged"/, 'but not the event time');

#
# Options hold from one place in the log on, whatever dies, and whatever the catalogs say by then
#
sub alter
{
	my ($stream, %options) = @_;
	return "SELECT stream_ckpt.alter_stream('$stream', " . join(', ', map { "$_ => $options{$_}" } sort keys %options) . ')';
}
sql(q(CREATE TABLE a (ts timestamptz, id int)));
attach($node, 'a');
sql(q(SELECT stream_ckpt.create_stream('al', 'ts timestamptz, id int', event_time => 'ts')));
for my $stream (qw(a al))
{
	minutely($stream);
	put($stream, 0.1);
	sync_pipelines($node);
	arm($node, 'coordinator_before_commit', 'wait');
	put($stream, '2124-01-01');    # ahead
	put($stream, 1.1);             # closes 0
	sql('BEGIN', "INSERT INTO $stream VALUES (" . ts(0.2) . ', 1)',    # late
		alter($stream, watermark_delay => q('1 minute'), max_ahead => 'NULL'), 'COMMIT');
	put($stream, 2.1);             # the watermark is at 1.1, as before
	put($stream, 1.2);             # not late
	put($stream, 3.1);             # closes 1
	sql(alter($stream, watermark_delay => q('0'), max_ahead => q('1 day')));    # closes 2
	put($stream, '2124-01-01', 2.2);   # ahead again, late
	sql(alter($stream, watermark_delay => q('1 hour'), max_ahead => 'NULL'));
	disarm($node, 'coordinator_before_commit');
	restart();
	both($stream, '0:1 1:2 2:1', '0:1 1:2 2:1 3:1 2124:2', 'each row as of its place');
	is(column("${stream}_close", q(late_rows || ' ' || ahead_rows)), '2 2', "$stream: and counted so");
	sql(alter($stream, watermark_delay => q('1 hour'), max_ahead => q('1 day')));
}

# A query that begins after a change in its own transaction has it from its beginning; one that stood still
# goes on with what it had.
sql(q(CREATE TABLE b (ts timestamptz, id int)));
attach($node, 'b');
my $create = q(SELECT stream_ckpt.create_query('%s', 'SELECT w.window_start, w.window_end, count(*) AS n
	FROM b, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start, w.window_end', backfill => false));
sql('BEGIN', sprintf($create, 'b_first'), alter('b', watermark_delay => q('1 minute')), 'COMMIT');
put('b', 0.1);
sync_pipelines($node);
is(sql(q(SELECT watermark_delay FROM stream_ckpt.checkpoint_offset o WHERE source = 'b'::regclass)), '00:01:00',
	'nobody captured the stream before that transaction');
sql(q(SELECT stream_ckpt.pause_query('b_first')));
sync_pipelines($node);
put('b', 1.1);
sql('BEGIN', alter('b', watermark_delay => q('0')), sprintf($create, 'b_second'), 'COMMIT');
put('b', 0.2);
put('b', 2.1);
put('b', 1.2);
sync_pipelines($node);
restart();
sql(q(SELECT stream_ckpt.resume_query('b_first')));
is(result('b_first'), '0:1 1:1', 'b_first: two rows are late after the change');
is(result('b_second'), '0:1', 'b_second: began after it');
is(sql(q(SELECT string_agg(query || ' ' || late_rows, ', ' ORDER BY query::text) FROM stream_ckpt.queries WHERE stream = 'b'::regclass)),
	'b_first 2, b_second 1', 'late rows of both');

# idle_timeout
sql(q(CREATE TABLE i (ts timestamptz, id int)));
attach($node, 'i');
minutely('i', size => '1 minute');
put('i', 0.99999);
sync_pipelines($node);
is(result('i_close'), '', 'no time-out, no end');
sql(alter('i', idle_timeout => q('10 ms')));
wait_until($node, 'SELECT count(*) = 1 FROM i_close', 'a time-out that comes later closes the window');
sql(alter('i', idle_timeout => 'NULL'));
sync_pipelines($node);
is(sql(q(SELECT count(*) FROM stream_ckpt.checkpoint_offset WHERE source = 'i'::regclass AND idle_timeout IS NULL)), '2', 'and is taken away');

#
# reset_watermark()
#
sql(q(CREATE TABLE r (ts timestamptz, id int)));
sql(q(SELECT stream_ckpt.attach_stream('r', event_time => 'ts', max_ahead => NULL)));
sql(q(SELECT stream_ckpt.create_stream('rl', 'ts timestamptz, id int', event_time => 'ts', watermark_delay => '30 seconds', max_ahead => NULL)));
for my $stream (qw(r rl))
{
	minutely($stream);
	put($stream, 0.1);
	put($stream, 3.1, 3.2);          # 3 is half full
	put($stream, '2124-01-01');      # it is closed
	put($stream, '2125-01-01');      # and 2124, too
	put($stream, 3.4, 4.1, 5.7);     # late
	both($stream, '0:1 3:2 2124:1', '0:1 3:2 2124:1 2125:1', 'a bad clock');
	is(column("${stream}_close", 'late_rows'), '3', "$stream: real rows are late");
	sql("SELECT stream_ckpt.reset_watermark('$stream')");
	is(column("${stream}_close", 'watermark'), $stream eq 'r' ? '2024-01-01 00:05:42+00' : '2024-01-01 00:05:12+00', "$stream: the watermark is plausible again");
	restart();
	put($stream, 3.5, 5.8, 6.1);     # the first is late
	put($stream, '2124-01-01', '2125-01-01', '2099-01-01', 7.9);    # the first is late for ever
	sql("SELECT stream_ckpt.reset_watermark('$stream')");
	put($stream, 8.7);
	is(result("${stream}_update") =~ s/ 394[0-9]*:1//r, '0:1 3:2 5:1 6:1 7:1 8:1 2124:1 2125:2', "$stream: real rows count again");
	is(result("${stream}_close") =~ s/ 394[0-9]*:1//r, '0:1 3:2 5:1 6:1 7:1 2124:1', "$stream: and what was written stays");
	is(column("${stream}_close", 'late_rows'), '5', "$stream: what was too late stays late");
	sql("SELECT stream_ckpt.reset_watermark('$stream', '2024-01-01 00:10')");
	put($stream, 9.9, 10.1);
	is(column("${stream}_close", 'late_rows || watermark::text'), '62024-01-01 00:10:' . ($stream eq 'r' ? '06+00' : '00+00'), "$stream: forward");
}

# More windows with gaps between them than are remembered: the oldest gaps go first, then, of those ahead of what is
# plausible, the smallest.
sql(q(CREATE TABLE s (ts timestamptz, id int)));
sql(q(SELECT stream_ckpt.attach_stream('s', event_time => 'ts', max_ahead => NULL)));
minutely('s');
put('s', map { 10 * $_ } 0 .. 40);
put('s', '2124-01-01');
sync_pipelines($node);
is(sql(q(SELECT closed_until, cardinality(closed_windows), closed_windows[1] FROM stream_ckpt.checkpoint_offset WHERE source = 's'::regclass LIMIT 1)),
	'2024-01-01 01:21:00+00|64|2024-01-01 01:30:00+00', '32 ranges, and what is over before them');
sql(q(SELECT stream_ckpt.reset_watermark('s', '2024-01-01 00:00')));
put('s', 75, 100, 105);
put('s', map { 2130 + $_ . '-01-01' } 0 .. 40);
sql(q(SELECT stream_ckpt.reset_watermark('s')));
restart();
put('s', 395, 400, 401.5, 405, '2130-01-01', '2160-01-01', '2129-01-01');
is(result('s_update') =~ s/^.* 390:1 //r =~ s/ 2130:.*//r, '400:1 401:1 405:1 2124:1 2129:1', 'those after what is plausible open');
is(sql(q(SELECT late_rows, (SELECT count(*) FROM s_update WHERE window_start IN ('2024-01-01 01:15', '2024-01-01 01:45')) FROM stream_ckpt.queries WHERE query = 's_update'::regclass)),
	'6|1', 'what is late: written windows, and those behind the oldest gaps');

# As many as are remembered, and one more between the two that lie nearest to each other.
sql(q(CREATE TABLE g (ts timestamptz, id int)));
sql(q(SELECT stream_ckpt.attach_stream('g', event_time => 'ts', max_ahead => NULL)));
minutely('g');
put('g', map { sprintf('2124-01-01 %02d:%02d', int($_ / 60), $_ % 60) } 0, 0, 4, map { 20 * $_ } 1 .. 30);
put('g', '2125-01-01');
sync_pipelines($node);
is(sql(q(SELECT DISTINCT cardinality(closed_windows) FROM stream_ckpt.checkpoint_offset WHERE source = 'g'::regclass)), '64', '32 ranges');
sql(q(SELECT stream_ckpt.reset_watermark('g', '2123-12-31')));
put('g', '2124-01-01 00:02');
put('g', '2124-01-01 00:15');
sql(q(SELECT stream_ckpt.reset_watermark('g', '2123-12-31')));
put('g', '2124-01-01 00:00:30');
sync_pipelines($node);
is(sql("SELECT n FROM g_$_ WHERE window_start = '2124-01-01'"), '2', "$_: a range that has become part of another keeps its windows") for qw(close update);
is(column('g_update', 'late_rows'), '1', 'a row of them is late');

#
# Random: transactions, changes and resets, with troubles, against the model
#
sql(q(CREATE TABLE t (ts timestamptz, id int)));
sql(q(SELECT stream_ckpt.attach_stream('t', event_time => 'ts', max_ahead => NULL)));
my ($far, $infinite) = (50_000_000, 9e15);    # seconds from 2024: later ones are not plausible
my @queries = map { { name => $_->[0], emit => $_->[1], lateness => $_->[2], open => {}, result => {}, over => {}, late => 0 } }
  [ 't1', 'close', 0 ], [ 't2', 'update', pick(0, 90) ], [ 't3', 'close', pick(90, 600) ], [ 't4', 'update', pick(30, 600) ];
for my $query (@queries)
{
	note "$query->{name}: $query->{emit}, $query->{lateness} s";
	create_query($node, $query->{name}, 't', emit => $query->{emit}, options => "allowed_lateness => '$query->{lateness} s'",
		select => q(SELECT w.window_start, w.window_end, count(*) AS n FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end));
}
my %stream = (max => -$infinite, plausible => -$infinite, delay => 0, limited => 0, ahead => 0);

sub model_close
{
	my $watermark = $stream{max} - $stream{delay};
	for my $query (@queries)
	{
		for my $start (sort { $a <=> $b } keys %{ $query->{open} })
		{
			$query->{result}{$start} = $query->{open}{$start} if $start + 60 <= $watermark || $query->{emit} eq 'update';
			next if $start + 60 + $query->{lateness} > $watermark;
			$query->{over}{$start} = 1;
			delete $query->{open}{$start};
		}
	}
	return;
}

sub model_rows
{
	my $watermark = $stream{max} - $stream{delay};
	for my $ts (@_)
	{
		my $start = $ts - $ts % 60;
		for my $query (@queries)
		{
			if ($start + 60 + $query->{lateness} <= $watermark || $query->{over}{$start}) { $query->{late}++; }
			else { $query->{open}{$start}++; }
		}
	}
	for my $ts (@_)
	{
		if ($ts > $far && $stream{limited}) { $stream{ahead}++; next; }
		$stream{max} = $ts if $ts > $stream{max};
		$stream{plausible} = $ts if $ts <= $far && $ts > $stream{plausible};
	}
	return model_close();
}

sub model_delay
{
	my ($delay) = @_;
	$stream{max} += $delay - $stream{delay} if $delay > $stream{delay};
	$stream{delay} = $delay;
	return model_close();
}

sub model_reset
{
	my ($to) = @_;
	my $max = defined $to ? $to + $stream{delay} : $stream{plausible};
	for my $query (grep { $_->{emit} eq 'close' } @queries)
	{
		for my $start (grep { $_ + 60 <= $stream{max} - $stream{delay} && $_ + 60 > $max - $stream{delay} } keys %{ $query->{open} })
		{
			$query->{over}{$start} = 1;
			delete $query->{open}{$start};
		}
	}
	$stream{max} = $max;
	return model_close();
}

my $clock = 0;

sub random_command
{
	my $dice = rand;
	if ($dice < 0.08)
	{
		my $delay = pick(0, 30, 60, 300);
		model_delay($delay);
		return "SELECT stream_ckpt.alter_stream('t', watermark_delay => '$delay s')";
	}
	if ($dice < 0.16)
	{
		$stream{limited} = pick(0, 1);
		return "SELECT stream_ckpt.alter_stream('t', max_ahead => " . ($stream{limited} ? q('1 day') : 'NULL') . ')';
	}
	if ($dice < 0.24 && $stream{plausible} >= 0)
	{
		my $to = pick(undef, undef, $clock - pick(0, 60, 600), $clock + 120);
		model_reset($to);
		return "SELECT stream_ckpt.reset_watermark('t'" . (defined $to ? ", timestamptz '2024-01-01' + $to * interval '1 s'" : '') . ')';
	}
	$clock += pick(0, 5, 30, 60);
	my @rows = map { int($clock - pick(rand 10, rand 30, rand 120, rand 400) + 400) } 1 .. pick(1, 2, 10);
	push @rows, $far * 10 + 86400 * int(rand 6) + int rand 60 if rand() < 0.15;
	model_rows(@rows);
	return 'INSERT INTO t VALUES ' . join(', ', map { "(timestamptz '2024-01-01' + $_ * interval '1 s', 1)" } @rows);
}

my @points = qw(
  task_after_rows reader_before_barrier reader_after_barrier task_before_snapshot
  task_after_snapshot task_part_sent coordinator_parts_collected coordinator_after_rows
  coordinator_before_commit coordinator_after_commit reader_after_confirm
);
for my $round (1 .. $rounds)
{
	$node->append_conf('postgresql.conf', 'stream_ckpt.debug_batch_rows = ' . pick(0, 1, 7, -1));
	try_psql($node, 'SELECT pg_reload_conf()');
	for (1 .. 4)
	{
		my ($point, $action) = (pick(@points), pick(qw(error exit term)));
		note "trouble: $action at $point";
		arm($node, $point, $action, pick(1, 1, 2, 5)) if $round > 1;
		sql(random_command()) for 1 .. 12;
	}
	sync_pipelines($node);
	disarm($node, $_) for @points;
	restart() if pick(0, 1);
	sync_pipelines($node);
	for my $query (@queries)
	{
		my $expected = join ' ', map { "$_:$query->{result}{$_}" } sort { $a <=> $b } keys %{ $query->{result} };
		is(sql("SELECT coalesce(string_agg(extract(epoch FROM window_start - '2024-01-01')::bigint || ':' || n, ' ' ORDER BY window_start), '') FROM $query->{name}"),
			$expected, "round $round: $query->{name}");
		is(column($query->{name}, q(late_rows || ' ' || ahead_rows)), "$query->{late} $stream{ahead}", "round $round: what $query->{name} counts");
	}
}

$node->stop;
done_testing();
