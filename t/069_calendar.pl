# tumble() and cumulate() by days and months of a zone's calendar: the SQL functions against expressions that don't use it, and the engine
# against the functions as a plain query; around clock changes of many zones, with sizes and origins at random; emit close and
# update, late rows, several tasks, everything lost at random.
#
# SEED=n runs the same again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || (time ^ ($$ << 8)) & 0x7fffffff;
srand($seed);
diag "SEED=$seed";

my $node = new_node('main', "max_worker_processes = 20\nstream_ckpt.debug_batch_rows = " . pick(0, 1, 7) . "\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

# Moments (UTC) around which rows lie, for each zone, in the order of time: those before 2025 for rows in order, later ones
# for late rows.
my %moments = (
	'Europe/Berlin' => [ '2024-03-31 01:00', '2024-10-27 01:00', '2025-03-30 01:00' ],
	'Atlantic/Azores' => [ '2024-03-31 01:00', '2024-10-27 01:00', '2025-10-26 01:00' ],    # midnight twice, and not at all
	'America/Havana' => [ '2024-03-10 05:00', '2024-11-03 05:00', '2025-11-02 05:00' ],
	'America/St_Johns' => [ '2006-04-02 03:31', '2006-10-29 02:31', '2025-03-09 05:30' ],    # from 00:01 back to 23:01
	'America/Sao_Paulo' => [ '2018-02-18 02:00', '2018-11-04 03:00' ],
	'Australia/Lord_Howe' => [ '2024-04-06 15:00', '2024-10-05 15:30', '2025-04-05 15:00' ],    # by half an hour
	'Pacific/Apia' => [ '2011-12-30 10:00' ],    # without the 30th
	'America/Juneau' => [ '1867-10-18 15:02:19' ],    # one day twice
	'Asia/Manila' => [ '1844-12-31 15:56' ],    # without the 31st
	'Asia/Kathmandu' => [ '2024-01-01 18:15' ],
	'UTC' => [ '2024-02-29 00:00', '2024-12-31 23:59:59', '2025-06-01 00:00' ]);
my @zones = sort keys %moments;

#
# The function alone
#
my @some = map { "'$_'" } split /\n/, sql('SELECT name FROM pg_timezone_names WHERE name ~ \'/\' AND name !~ \'posix|right\' ORDER BY name');
my $names = join ', ', map { "('$_')" } @zones, map { (pick(@some) =~ /'(.*)'/)[0] } 1 .. 6;

# Around each change of the zone's offset, which is looked for by three days; and at random.
sql(qq(CREATE TABLE moments AS
	WITH z AS (SELECT DISTINCT * FROM (VALUES $names) z (zone)),
	d AS (SELECT zone, d FROM z, generate_series(timestamptz '1840-01-01 UTC', '2030-01-01', '3 days') d),
	o AS (SELECT zone, d, (d AT TIME ZONE zone) - (lag(d) OVER w AT TIME ZONE zone) <> d - lag(d) OVER w AS changes FROM d WINDOW w AS (PARTITION BY zone ORDER BY d)),
	c AS (SELECT zone, d FROM o WHERE changes)
	SELECT zone, ts FROM (
		SELECT zone, d - interval '4 days' + random() * interval '5 days' AS ts FROM c, generate_series(1, 8)
		UNION ALL SELECT zone, date_trunc('hour', d - interval '4 days' + random() * interval '5 days') FROM c, generate_series(1, 8)
		UNION ALL SELECT zone, timestamptz '0050-01-01 UTC BC' + random() * interval '2200 years' FROM z, generate_series(1, 200)) x));
sql(qq(UPDATE moments SET ts = ts + $_ * interval '1 microsecond' WHERE random() < 0.2)) for (-1, 1);
cmp_ok(sql('SELECT count(*) FROM moments'), '>', 5000, 'there are moments');

# size, origin (of the zone, at midnight), start of the window that holds local time l, and its local end
my @truths = (
	[ '1 day', undef, "date_trunc('day', l)" ],
	[ '1 month', undef, "date_trunc('month', l)" ],
	[ '3 months', undef, "date_trunc('quarter', l)" ],
	[ '12 months', undef, "date_trunc('year', l)" ],
	[ '7 days', '2024-01-01', "date_trunc('week', l)" ]);
for (1 .. 4)
{
	my ($days, $months) = (1 + int rand 40, 2 + int rand 30);
	my ($day, $first) = (sprintf('%04d-%02d-%02d', 1900 + rand 150, 1 + rand 12, 1 + rand 28), sprintf('%04d-%02d-01', 1900 + rand 150, 1 + rand 12));

	push @truths, [ "$days days", $day, "date_bin('$days days', l, '$day')" ];
	push @truths, [ "$months months", $first,
		"(SELECT max(s) FROM generate_series(timestamp '$first' - (400 * 12 / $months + 1) * interval '$months months', timestamp '$first' + (400 * 12 / $months) * interval '$months months', interval '$months months') s WHERE s <= l)" ];
}
for my $truth (@truths)
{
	my ($size, $origin, $start) = @$truth;
	my $of_zone = $origin ? ", timestamp '$origin' AT TIME ZONE zone" : '';
	my $moments = $start =~ /series/ ? '(SELECT * FROM moments WHERE ts > \'1800-01-01\' ORDER BY random() LIMIT 150) m' : 'moments m';
	my $test = "$size from " . ($origin // 'the default');

	is(sql("SELECT count(*) FROM $moments, LATERAL (SELECT ts AT TIME ZONE zone AS l) l, LATERAL (SELECT $start AS s) s,
			stream_ckpt.tumble(ts, '$size', timezone => zone" . ($origin ? ", origin => timestamp '$origin' AT TIME ZONE zone" : '') . ") w
		WHERE (window_start, window_end, window_time) IS DISTINCT FROM
			(s AT TIME ZONE zone, (s + interval '$size') AT TIME ZONE zone, (s + interval '$size') AT TIME ZONE zone - interval '1 microsecond')"),
		'0', "function: $test") or diag "SEED=$seed";
	is(sql("SELECT count(*) FROM $moments, LATERAL (SELECT ts AT TIME ZONE 'UTC' AS l) l, LATERAL (SELECT $start AS s) s,
			stream_ckpt.tumble(l, '$size'" . ($origin ? ", '$origin'" : '') . ") w
		WHERE (window_start, window_end, window_time) IS DISTINCT FROM (s, s + interval '$size', s + interval '$size' - interval '1 microsecond')"),
		'0', "function of timestamp: $test") or diag "SEED=$seed";
}

# cumulate(): size, origin, start of the full window that holds local time l, steps
my @cumulated = (
	[ '1 day', undef, "date_trunc('day', l)", '1 hour', '7 hours', '00:17:30', '30 hours' ],
	[ '1 month', undef, "date_trunc('month', l)", '1 day', '10 days', '50 hours', '100 days' ],
	[ '3 months', undef, "date_trunc('quarter', l)", '1 month', '7 days' ],
	[ '1 year', undef, "date_trunc('year', l)", '2 months', '20 days' ],
	[ '7 days', '2024-01-01', "date_trunc('week', l)", '1 day', '36 hours' ]);
for my $case (@cumulated)
{
	my ($size, $origin, $start, @steps) = @$case;

	for my $step (@steps)
	{
		for my $kind ('t', $size =~ /day/ ? () : 'l')
		{
			my $days = $step =~ /day|month/;
			my ($ts, $zoned) = $kind eq 't' ? ('ts', sub { "$_[0] AT TIME ZONE zone" }) : ('l', sub { $_[0] });
			my $of_origin = $origin ? ", origin => timestamp '$origin' AT TIME ZONE zone" : '';
			my $call = "stream_ckpt.cumulate($ts, '$step', '$size'" . ($kind eq 't' ? "$of_origin, timezone => zone" : '') . ')';
			my $ends = $days ? 'SELECT DISTINCT ' . $zoned->('least(b, s + size)') . " AS e FROM generate_series(s + step, s + size + step, step) b WHERE least(b, s + size) > l" :
			  'SELECT DISTINCT least(b, ' . $zoned->('(s + size)') . ') AS e FROM generate_series(' . $zoned->('s') . ' + step, ' . $zoned->('(s + size)') . " + step, step) b
				WHERE least(b, " . $zoned->('(s + size)') . ") > $ts";

			is(sql("SET timezone = 'UTC';
				CREATE TEMP TABLE m AS SELECT zone, ts, ts AT TIME ZONE " . ($kind eq 't' ? 'zone' : "'UTC'") . " AS l FROM moments ORDER BY random() LIMIT 200;
				WITH f AS (SELECT zone, ts, window_start, window_end, window_time FROM m, $call),
				a AS (SELECT zone, ts, " . $zoned->('s') . " AS window_start, e AS window_end, e - interval '1 microsecond'
					FROM m, LATERAL (SELECT $start AS s, interval '$size' AS size, interval '$step' AS step) s, LATERAL ($ends) e)
				SELECT (SELECT count(*) FROM f) >= 200, (SELECT count(*) FROM ((TABLE f EXCEPT ALL TABLE a) UNION ALL (TABLE a EXCEPT ALL TABLE f)) d)"),
				't|0', "function: cumulate by $step up to $size, $ts") or diag "SEED=$seed";
		}
	}
}

#
# The engine
#
sql("SELECT stream_ckpt.alter_pipeline('default', parallelism => 2);
	CREATE TABLE t (ts timestamptz, k int, before timestamptz); CREATE TABLE l (ts timestamp, k int, before timestamp)");    # before: the greatest watermark so far
attach($node, $_) for qw(t l);
my (%queries, $n);

sub select_of
{
	my ($name, $where) = @_;
	my ($table, $window) = @{ $queries{$name} };

	return "SELECT w.window_start, w.window_end, w.window_time, k, count(*) AS n FROM $table, stream_ckpt.$window w
		WHERE $where GROUP BY w.window_start, w.window_end, w.window_time, k";
}

sub add
{
	my ($table, $window) = @_;
	my $name = 'q' . ++$n;
	my $emit = pick('close', 'close', 'update');
	my $lateness = pick('0', '0', '2 hours', '30 hours');

	$queries{$name} = [ $table, $window, $emit, $lateness ];
	create_query($node, $name, $table, emit => $emit, select => select_of($name, 'true'),
		options => "allowed_lateness => '$lateness'" . pick('', ', parallelism => 2'));
	return;
}

sub size_of_months { return pick('1 month', '1 month', '3 months', '1 year', (1 + int rand 20) . ' months'); }
for my $zone (@zones)
{
	my $date = sprintf '%04d-%02d-%02d', pick(1, 1850, 2000, 2018, 2024), 1 + rand 12, 1 + rand 28;
	my $days = pick('1 day', '2 days', '1 week', (1 + int rand 40) . ' days');
	my $month = $date =~ s/..$/01/r;

	add('t', "tumble(ts, '1 day', timezone => '$zone')") if rand() < 0.4;
	add('t', "tumble(ts, '$days', timestamp '$date' AT TIME ZONE '$zone', '$zone')");
	add('t', "tumble(ts, '" . size_of_months() . "'" . pick('', ", origin => timestamp '$month' AT TIME ZONE '$zone'") . ", timezone => '$zone')");
}
add('l', "tumble(ts, '" . size_of_months() . "')");
add('l', "tumble(ts, '" . size_of_months() . "', '1950-05-01')");
add('l', "tumble(ts, '2 days')");

for my $zone (@zones)
{
	my ($size, @steps) = @{ pick([ '1 day', '1 hour', '5 hours' ], [ '1 day', '1 hour' ], [ '3 days', '1 day', '7 hours' ], [ '1 month', '1 day', '3 days', '50 hours' ],
			[ '1 month', '1 day' ], [ '1 year', '1 month', '40 days' ], [ '4 months', '2 months', '500 hours' ]) };

	add('t', "cumulate(ts, '" . pick(@steps) . "', '$size', timezone => '$zone')");
}
# days that go on after hours of the next one
add('t', "cumulate(ts, '1 hour', '1 day', timezone => '$_')") for ('America/St_Johns', 'America/Juneau');
add('l', "cumulate(ts, '" . pick('1 day', '100 hours') . "', '1 month')");
add('l', "cumulate(ts, '1 month', '6 months', '2023-11-01')");
wait_running($node);

sub check
{
	my ($test, $in_order) = @_;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		my ($table, $window, $emit, $lateness) = @{ $queries{$name} };
		my $where = "(window_end + interval '$lateness' > before OR before IS NULL)";

		results_ok($node, $name, "$test: $name: $window, emit $emit, lateness $lateness", emit => $emit, table => $table, synced => 1,
			truth => select_of($name, $where)) or diag "SEED=$seed";
		is(sql("SELECT stream_ckpt.verify('$name')"), '0', "$test: verify $name") or diag "SEED=$seed" if $in_order;
	}
	return;
}

# The rows of a transaction
sub insert
{
	my $values = join ', ', map { "(to_timestamp($_), " . int(rand 3) . ')' } @_;
	return "WITH v AS (INSERT INTO t SELECT ts, k, (SELECT max(ts) FROM t) FROM (VALUES $values) x (ts, k) RETURNING *)
		INSERT INTO l SELECT ts AT TIME ZONE 'UTC', k, before AT TIME ZONE 'UTC' FROM v;\n";
}

# In order of event time, up to 2025, so that no row is late, and windows close between; then not in order.
my (%at, @late);
for my $zone (@zones)
{
	for my $moment (@{ $moments{$zone} })
	{
		my $epoch = sql("SELECT extract(epoch FROM timestamptz '$moment UTC')");
		my @some = map { $epoch + $_ } (0, -0.000001, map { int((rand() - 0.5) * pick(200, 8000, 400000)) + pick(0, 0.5) } 1 .. 25);

		if ($moment lt '2025') { $at{$_} = 1 for @some }
		else { push @late, @some }
	}
}
my @times = sort { $a <=> $b } keys %at;
while (@times)
{
	sql(join '', map { @times ? insert(splice @times, 0, pick(1, 1, 1, 2, 5)) : () } 1 .. pick(5, 50, 200));
	lose_state($node, pick('immediate', 'task', 'coordinator')) if rand() < 0.4;
	check(scalar(@times) . ' to come', 1) if rand() < 0.1;
}
check('in order', 1);
is(sql('SELECT sum(late_rows) FROM stream_ckpt.queries'), '0', 'no row was late: no window closed early');

my %place = map { $_ => $_ + rand() * pick(0, 3600, 100000, 400000) } @late;
@late = sort { $place{$a} <=> $place{$b} } @late;
while (@late)
{
	sql(join '', map { @late ? insert(splice @late, 0, pick(1, 1, 3)) : () } 1 .. pick(5, 20, 40));
	lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.2;
	checkpoint_all($node) if rand() < 0.3;
	check(scalar(@late) . ' late ones to come', 0) if rand() < 0.2;
}
check('not in order', 0);
cmp_ok(sql('SELECT sum(late_rows) FROM stream_ckpt.queries'), '>', 0, 'some rows were late');

# A row that closes all but its own windows
sql(insert(sql('SELECT extract(epoch FROM now())::int8')));
check('closed', 0);

# A day of which there are rows only from after an hour of the next one, and one of them is late
sql('CREATE TABLE j (ts timestamptz, k int)');
attach($node, 'j');
$queries{after} = [ 'j', "cumulate(ts, '1 hour', '1 day', timezone => 'America/St_Johns')" ];
create_query($node, 'after', 'j', select => select_of('after', 'true'));
wait_running($node);
sql("INSERT INTO j VALUES ('2006-10-29 02:45 UTC', 1); INSERT INTO j VALUES ('2006-10-30 12:00 UTC', 1)");
results_ok($node, 'after', 'hours of a day that goes on', table => 'j');
is(sql("SELECT window_start = '2006-10-28 02:30 UTC', window_end = '2006-10-29 03:30 UTC' FROM after ORDER BY 2 LIMIT 1"), 't|t', 'which began the day before');
sql("INSERT INTO j VALUES ('2006-10-29 02:50 UTC', 1)");
sync_pipelines($node);
is(counter($node, 'after', 'late_rows'), '1', 'late for the window that it would be in');

# The watermark goes back: steps that were over stay so
sql('CREATE TABLE r (ts timestamptz, k int, before timestamptz)');
attach($node, 'r');
my %back = (
	hours => "cumulate(ts, '1 hour', '1 day', timezone => 'Europe/Berlin')",
	cut => "cumulate(ts, '7 hours', '1 day', timezone => 'Europe/Berlin')",
	days => "cumulate(ts, '2 days', '1 month', timezone => 'Europe/Berlin')",
	day => "tumble(ts, '1 day', timezone => 'Europe/Berlin')");
for my $name (sort keys %back)
{
	$queries{$name} = [ 'r', $back{$name} ];
	create_query($node, $name, 'r', emit => 'update', select => select_of($name, 'true'));
}
wait_running($node);
my $some = "INSERT INTO r SELECT ts, i % 3, (SELECT max(ts) FROM r) FROM generate_series(0, 400) i, LATERAL (SELECT timestamptz '2025-10-24 UTC' + i * interval '17 minutes' AS ts) x";
sql("$some; INSERT INTO r VALUES ('2025-10-29 01:30 UTC', 1, NULL)");
for my $hour (25, 60, 13, 95)
{
	sync_pipelines($node);
	sql("SELECT stream_ckpt.reset_watermark('r', timestamptz '2025-10-24 UTC' + $hour * interval '1 hour')");
	lose_state($node, 'task') if rand() < 0.5;
	sql("$some WHERE random() < 0.5");
	sync_pipelines($node);
	results_ok($node, $_, "back to hour $hour: $_", emit => 'update', synced => 1, truth => select_of($_, '(window_end > before OR before IS NULL)'))
	  or diag "SEED=$seed" for sort keys %back;
}

# The ends of what timestamps express: an error, as of the plain query
sql('CREATE TABLE e (ts timestamptz, k int)');
attach($node, 'e');
create_query($node, 'ends', 'e', emit => 'update', options => "on_error => 'dead_letter'",
	select => "SELECT w.window_start, w.window_end, k, count(*) AS n FROM e, stream_ckpt.tumble(ts, '1 year', timezone => 'Pacific/Auckland') w GROUP BY 1, 2, 3");
wait_running($node);
my @ends = ('4714-12-20 UTC BC', '4713-06-01 UTC BC', '2024-01-01 UTC', '294276-12-31 23:00 UTC', '294275-06-01 UTC');
sql("INSERT INTO e VALUES ('$ends[$_]', $_)") for 0 .. $#ends;
sync_pipelines($node);
is(sql("SELECT string_agg(k::text, ' ' ORDER BY window_start) FROM ends"), '1 2 4', 'windows that can be expressed');
is(sql("SELECT string_agg(row ->> 'k', ' ' ORDER BY row ->> 'k') FROM stream_ckpt.dead_letter WHERE query = 'ends'::regclass AND message = 'timestamp out of range'"),
	'0 3', 'and those that can\'t');
for my $i (0, 3)
{
	my (undef, undef, $error) = $node->psql('postgres', "SELECT * FROM stream_ckpt.tumble('$ends[$i]', '1 year', timezone => 'Pacific/Auckland')");
	like($error, qr/timestamp out of range/, 'the plain query says so, too');
}

$node->stop;
done_testing();
