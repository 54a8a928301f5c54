# Windows that items of GROUP BY make: date_bin, date_trunc, casts to date; in zones where midnight comes twice, where days
# alternate, where clocks are set by half an hour or to another day; against the plain query, with emit close and update.
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
sub pick { return $_[ int rand @_ ]; }

my $node = new_node('main');
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('CREATE TABLE t (ts timestamptz, k int); CREATE TABLE l (ts timestamp, k int)');
attach($node, $_) for qw(t l);

# Moments (UTC) around which rows lie, for each zone.
my %moments = (
	'Europe/Berlin' => [ '2024-03-31 01:00', '2024-10-27 01:00' ],
	'Atlantic/Azores' => [ '2024-03-31 01:00', '2024-10-27 01:00' ],    # midnight twice, and not at all
	'America/Havana' => [ '2024-03-10 05:00', '2024-11-03 05:00' ],
	'America/St_Johns' => [ '2006-10-29 02:31', '2006-04-02 03:31' ],    # from 00:01 back to 23:01
	'America/Sao_Paulo' => [ '2018-02-18 02:00', '2018-11-04 03:00' ],
	'Australia/Lord_Howe' => [ '2024-04-06 15:00', '2024-10-05 15:30' ],    # by half an hour
	'Pacific/Apia' => [ '2011-12-30 10:00' ],    # without the 30th
	'America/Juneau' => [ '1867-10-18 15:02:19' ],    # one day twice
	'Asia/Kathmandu' => [ '2024-01-01 18:15' ],
	'UTC' => [ '2024-02-29 00:00', '2024-12-31 23:59:59' ]);
my @units = qw(microseconds milliseconds second minute hour day week month quarter year decade century millennium Days HOUR min);
my (%queries, $n);

# zone of the session, item of GROUP BY, stream, and whether it is to be a window
sub add
{
	my ($zone, $item, $table, $finer) = @_;
	my $name = 'q' . ++$n;

	for my $emit (pick('close', 'close', 'update'))
	{
		sql("SET timezone = '$zone'; SELECT stream_ckpt.create_query('${name}_$emit', \$\$ SELECT $item AS w, k, count(*) AS n"
			  . ($finer ? ", $finer AS f" : '') . " FROM $table GROUP BY $item, k" . ($finer ? ", $finer" : '') . " \$\$, emit => '$emit', backfill => false)");
		$queries{"${name}_$emit"} = [ $zone, $table, $item ];
	}
	return;
}

for my $zone (sort keys %moments)
{
	my @some = grep { rand() < 0.3 } @units;

	add($zone, "date_trunc('" . pick(qw(day hour minute)) . "', ts)", 't');
	add(pick(keys %moments), "date_trunc('" . pick(qw(day hour), @some) . "', ts, '$zone')", 't');
	add(pick(keys %moments), "date_trunc('" . pick(qw(day hour), @some) . "', ts AT TIME ZONE '$zone')", 't');
	add($zone, pick('ts::date', "(ts AT TIME ZONE '$zone')::date"), 't');
}
add('UTC', "date_trunc('$_', ts)", pick('t', 'l')) for grep { rand() < 0.4 } @units;
add('UTC', 'ts::date', 'l');
add('UTC', "date_bin('7 minutes', ts, '2001-02-03 00:00:01')", $_) for qw(t l);
add('UTC', "date_bin(interval '90 minutes' + '1 hour', ts, timestamptz '2031-02-03 UTC')", 't');
add('Europe/Berlin', "date_trunc('hour', ts)", 't', "date_trunc('day', ts)");
add('Europe/Berlin', "date_trunc('day', ts)", 't', "date_trunc('minute', ts)");
wait_running($node);

# All in order of event time, so that no row is late; one transaction for each of them, so that windows close between.
my %at;
for my $zone (keys %moments)
{
	for my $moment (@{ $moments{$zone} })
	{
		$at{ sql("SELECT extract(epoch FROM timestamptz '$moment UTC')") + $_ } = 1
		  for (0, -0.000001, map { int((rand() - 0.5) * pick(200, 8000, 400000)) + pick(0, 0.5) } 1 .. 25);
	}
}
my @times = sort { $a <=> $b } keys %at;
sub insert
{
	my $values = join ', ', map { "(to_timestamp($_), " . int(rand 3) . ')' } @_;
	return "WITH v AS (INSERT INTO t VALUES $values RETURNING *) INSERT INTO l SELECT ts AT TIME ZONE 'UTC', k FROM v;\n";
}

sub all_ok
{
	my ($test) = @_;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		my ($zone, $table, $item) = @{ $queries{$name} };
		is(sql("SELECT stream_ckpt.verify('$name')"), '0', "$test: verify $name: $zone $item")
		  or diag "SEED=$seed";
	}
	return;
}

while (@times)
{
	sql(join '', map { @times ? insert(splice @times, 0, pick(1, 1, 1, 2, 5)) : () } 1 .. pick(5, 50, 200));
	if (rand() < 0.3)
	{
		lose_state($node, pick('immediate', 'task'));
		all_ok(scalar(@times) . ' to come');
	}
}
all_ok('in order');
is(sql('SELECT sum(late_rows) FROM stream_ckpt.queries'), '0', 'no row was late: no window closed early');

# A row that closes all but its own windows; then the result is that of the plain query without those.
sql(insert(1748736000));    # 2025-06-01
all_ok('closed');
for my $name (sort keys %queries)
{
	my ($zone, $table, $item) = @{ $queries{$name} };
	my $truth = "SELECT * FROM ${name}_definition" . ($name =~ /close/ ? " WHERE w < (SELECT max(w) FROM ${name}_definition)" : '');

	is(sql("SET timezone = '$zone'; WITH truth AS ($truth) SELECT count(*) FROM ((TABLE $name EXCEPT ALL TABLE truth) UNION ALL (TABLE truth EXCEPT ALL TABLE $name)) d"),
		'0', "closed: $name: $item");
}

# Those without a finite event time: in no window, and counted.
sql("INSERT INTO t VALUES (NULL, 1), ('infinity', 1), ('-infinity', 1); INSERT INTO l VALUES (NULL, 1), ('infinity', 1)");
sync_pipelines($node);
is(sql("SELECT sum(null_event_times) FILTER (WHERE stream = 't'::regclass) = 3 * count(*) FILTER (WHERE stream = 't'::regclass) FROM stream_ckpt.queries"),
	't', 'rows without an event time are counted');

$node->stop;
done_testing();
