# Randomised: random queries, with all kinds of windows and without, over random rows in random transactions, with random
# kills, against the plain query over the rows that weren't late.
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

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 12;

# "n" different ones of a list, in its order
sub choose
{
	my ($n, @list) = @_;
	my %in;
	while (keys %in < $n && keys %in < @list)
	{
		$in{ int rand @list } = 1;
	}
	return map { $list[$_] } sort { $a <=> $b } keys %in;
}

my $large = pick(1, 30, 100000);    # rows from which on a part has a writer of its own
my $delay = pick('0', '10 seconds', '5 minutes');

my @keys = (
	'k', 's', 'k % 3', 'upper(s)', 'v > 50', 'n', 'd', 'b', 'coalesce(s, \'-\')',
	'(k, s)::text', 'extract(minute FROM ts)::int', 'j -> \'a\'', 'ARRAY[k, v % 2]');
my @aggregates = (
	'count(*)', 'count(k)', 'sum(v)', 'sum(n)', 'avg(v)', 'avg(n)', 'min(s)', 'max(s)',
	'min(ts)', 'max(d)', 'bool_and(b)', 'bit_xor(v)', 'count(DISTINCT k)',
	'sum(DISTINCT v)', 'sum(v) FILTER (WHERE b)', 'count(*) FILTER (WHERE k IS NULL)',
	'string_agg(s, \',\' ORDER BY s, v)', 'array_agg(k ORDER BY k, v)',
	'array_agg(DISTINCT s ORDER BY s)', 'jsonb_agg(j ORDER BY j::text)',
	'percentile_disc(0.5) WITHIN GROUP (ORDER BY v)', 'mode() WITHIN GROUP (ORDER BY v)',
	'sum(length(s)) + count(*)', 'round(avg(n) * 2, 3)', 'max(v) - min(v)',
	'variance(v)', 'coalesce(sum(v), 0)', 'every(v >= 0)',
	'range_agg(int4range(v, v + 2))', 'max(n) FILTER (WHERE v % 2 = 0)');
my @where = (
	'true', 'v < 80', 'k IS NOT NULL', 's <> \'b\' OR s IS NULL', 'b',
	'k % 2 = 0 AND v > 5', 'ts < \'2024-01-01 12:00 UTC\'', 'j ? \'a\'');
my @having = ('', '', '', 'count(*) > 2', 'sum(v) > 100', 'min(s) IS NULL', 'bool_or(b)');

my $node = new_node('main', "max_parallel_workers_per_gather = 0\nstream_ckpt.debug_large_part = $large\n", draw => {});
my $tasks = drawn($node)->{tasks};

# One random query: name, emit, where, text with a place for the stream and for more
# conditions.
sub random_query
{
	my ($name) = @_;
	my @key = choose(int rand 4, @keys);
	my @agg = choose(1 + int rand 4, @aggregates);
	my $size = pick('7 seconds', '1 minute', '13 minutes', '1 hour', '1 day');
	my $origin = pick('', '', q(, '2000-01-01 00:00:03 UTC'), q(, '2030-06-01 00:00 UTC'));
	my $where = pick('true', @where);
	my $having = pick(@having);
	# windows that share panes have to fit into memory
	my @windows = ('', "tumble(ts, '$size'$origin)", "tumble(ts, '$size'$origin)");
	push @windows,
	  'hop(ts, ' . pick("'1 minute', '5 minutes'", "'7 seconds', '30 seconds'", "'10 minutes', '15 minutes'", "'1 hour', '20 minutes'", "'1 minute', '1 minute'") . "$origin)",
	  'cumulate(ts, ' . pick("'1 minute', '10 minutes'", "'7 seconds', '35 seconds'", "'4 hours', '1 day'") . "$origin)"
	  unless drawn($node)->{memory};
	my $window = pick(@windows);
	my $i = 0;
	my $shape = pick(qw(groups groups groups rows distinct best upper));
	my $from = ' FROM %s' . ($window ? ", stream_ckpt.$window w" : '') . " WHERE ($where)%s";
	my @window = $window ? ('w.window_start', 'w.window_end') : ();
	my %query = (
		name => $name,
		parallelism => pick(grep { $_ <= $tasks } 1, 2, 4),
		window => $window,
		emit => $window ? pick('close', 'update') : 'update',
		where => $where);

	# each row, for itself
	if ($shape eq 'rows')
	{
		@key = ('txn', @key);
		return { %query, emit => 'rows', text => 'SELECT ' . join(', ', @window, map { "$_ AS key" . $i++ } @key) . $from };
	}
	if ($shape eq 'distinct' && @key)
	{
		return { %query, text => 'SELECT DISTINCT ' . join(', ', @window, map { "$_ AS key" . $i++ } @key) . $from };
	}
	# the best rows of each key; those that are equally good are equal in all that is shown
	if ($shape eq 'best')
	{
		my $order = join ', ', map { $_ . pick('', ' DESC', ' DESC NULLS LAST', ' NULLS FIRST') } 'v', 's', 'd';

		@key = choose(int rand 3, grep { !/ts/ } @keys);
		return {
			%query,
			parallelism => @key ? $query{parallelism} : 1,
			text => 'SELECT * FROM (SELECT ' . join(', ', @window, (map { "$_ AS key" . $i++ } @key), 'v', 's', 'd', 'row_number() OVER ('
				  . (@window || @key ? 'PARTITION BY ' . join(', ', @window, @key) : '') . " ORDER BY $order) AS place")
			  . "$from) r WHERE place <= " . pick(1, 2, 5)
		};
	}
	my @columns = (
		($window ? ('w.window_start', 'w.window_end') : ()),
		(map { "$_ AS key" . $i++ } @key),
		(map { "$_ AS agg" . $i++ } @agg));
	my $text =
		'SELECT '
	  . join(', ', @columns)
	  . ' FROM %s' . ($window ? ", stream_ckpt.$window w" : '') . " WHERE ($where)%s"
	  . ($window || @key ? ' GROUP BY ' : '')
	  . join(', ', ($window ? ('w.window_start', 'w.window_end') : ()), @key)
	  . ($having ? " HAVING $having" : '');

	# above the groups: places among those of a window, or one row for each window
	if ($shape eq 'upper' && $window)
	{
		return {
			%query,
			parallelism => 1,
			text => pick(
				"SELECT x.*, count(*) OVER (PARTITION BY window_end) AS groups FROM ($text) x",
				"SELECT window_start, window_end, count(*) AS groups, count(agg" . @key . ") AS known FROM ($text) x GROUP BY 1, 2")
		};
	}
	return { %query, parallelism => @key ? $query{parallelism} : 1, text => $text };
}

# "text" with the stream's name and further conditions in its two places (queries hold
# percent signs of their own, so sprintf won't do)
sub instance
{
	my ($text, @values) = @_;
	$text =~ s/%s/shift @values/ge;
	return $text;
}

$node->safe_psql('postgres',
	'CREATE TABLE t (ts timestamptz, k int, s text, n numeric, d date, b bool, j jsonb, v int, txn int)'
);
attach($node, 't', delay => $delay);
note "a writer from $large rows on";

# The watermark before each transaction; late is what lies behind it.
$node->safe_psql(
	'postgres', qq(
	CREATE VIEW timed AS
	SELECT t.*, before FROM t JOIN
		(SELECT txn, max(max(ts)) OVER (ORDER BY txn ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
			- interval '$delay' AS before FROM t GROUP BY txn) x USING (txn)));

my @queries = map { random_query("q$_") } 1 .. 8;
for my $query (@queries)
{
	note "$query->{name} ($query->{emit}, in $query->{parallelism}): $query->{text}";
	create_query($node, $query->{name}, 't',
		emit => $query->{emit},
		options => "parallelism => $query->{parallelism}",
		select => instance($query->{text}, 't', ''));
}
wait_running($node);

my $txn = 0;
my $clock = 0;    # seconds of event time

sub random_row
{
	# mostly in order, sometimes far behind, seldom ahead
	my $ts =
	    rand() < 0.05 ? $clock - rand(2000)
	  : rand() < 0.02 ? $clock + rand(100)
	  : $clock - rand(5);
	return sprintf
	  q((timestamptz '2024-01-01 00:00 UTC' + %s * interval '1 second', %s, %s, %s, %s, %s, %s, %d, %d)),
	  rand() < 0.01 ? 'NULL' : sprintf('%.3f', $ts),
	  pick('NULL', 0 .. 4),
	  pick('NULL', map { "'$_'" } qw(a b B c dd)),
	  pick('NULL', '0', '-1.50', '1.5', '1.50', '1e10', '0.000001', '123456.789'),
	  pick('NULL', "'2024-01-01'", "'1999-12-31'"),
	  pick('NULL', 'true', 'false'),
	  pick('NULL', q('{"a": 1}'), q('{"a": [1, 2], "b": null}'), q('[]')),
	  int rand 100,
	  $txn;
}

sub random_insert
{
	my $rows = pick(1, 1, 2, 5, 20, 200);
	return 'INSERT INTO t VALUES '
	  . join(', ', map { random_row() } 1 .. $rows) . ';';
}

sub random_transaction
{
	$txn++;
	$clock += pick(0, 1, 10, 60, 60, 600);
	my $sql = 'BEGIN;';
	for (1 .. pick(1, 1, 2, 4))
	{
		if (rand() < 0.2)
		{
			$sql .= 'SAVEPOINT a;' . random_insert() . pick('ROLLBACK TO a;', 'RELEASE a;');
		}
		else
		{
			$sql .= random_insert();
		}
	}
	return $sql . (rand() < 0.1 ? 'ROLLBACK;' : 'COMMIT;') . "\n";
}

my @points = qw(
  task_after_rows reader_before_barrier reader_after_barrier task_before_snapshot
  task_after_snapshot task_snapshot_step task_emission_step task_part_sent coordinator_parts_collected coordinator_before_write
  coordinator_after_rows coordinator_before_record coordinator_before_commit
  coordinator_after_commit coordinator_after_ack reader_before_confirm reader_after_confirm
  task_before_restore
);

sub random_trouble
{
	my $dice = rand;

	if ($dice < 0.5)
	{
		my ($point, $action, $n) =
		  (pick(@points), pick(qw(error exit term kill)), pick(1, 1, 2, 5));
		note "trouble: $action at $point, time $n";
		arm($node, $point, $action, $n);
	}
	elsif ($dice < 0.8)
	{
		my ($which, $signal) =
		  (pick(qw(reader task coordinator)), pick(qw(TERM TERM INT KILL)));
		my $pid = try_psql($node,
			$which eq 'task'
			? 'SELECT pid FROM stream_ckpt.tasks ORDER BY random() LIMIT 1'
			: "SELECT ${which}_pid FROM stream_ckpt.pipelines");
		note "trouble: SIG$signal of the $which";
		kill $signal, $pid if $pid =~ /^[0-9]+$/;
	}
	elsif ($dice < 0.9)
	{
		note 'trouble: immediate stop';
		$node->stop('immediate');
		$node->start;
	}
	return;
}

for my $round (1 .. $rounds)
{
	wait_up($node);
	for (1 .. 3)
	{
		random_trouble() if $round > 1;
		try_psql($node, join '', map { random_transaction() } 1 .. 1 + int rand 8);
		wait_up($node);
	}

	# what was armed and not reached doesn't disturb the comparison, only the way to it
	sync_pipelines($node);
	disarm($node, $_) for @points;
	sync_pipelines($node);
	for my $query (@queries)
	{
		my $late = $query->{window} && $query->{emit} ne 'rows' ? ' AND window_end > coalesce(before, \'-infinity\')' : '';
		my $ok = is(
			differences(
				$node, $query->{name},
				emit => $query->{emit},
				table => 't',
				delay => $delay,
				truth => instance($query->{text}, 'timed t', $late)),
			'0',
			"round $round: $query->{name}");
		diag "SEED=$seed: $query->{emit}: $query->{text}" unless $ok;

		is(query_late_rows($node, $query->{name}), '0', "round $round: no row is late for $query->{name}") unless $query->{window} && $query->{emit} ne 'rows';
		next unless $query->{where} eq 'true' && $query->{window} && $query->{emit} ne 'rows';
		(my $from = $query->{text}) =~ s/.* FROM %s/SELECT count(*) FROM timed t/;
		$from =~ s/ WHERE \(true\).*//;
		is( query_late_rows($node, $query->{name}),
			$node->safe_psql('postgres',
				"$from WHERE window_end <= coalesce(before, '-infinity')"),
			"round $round: late rows of $query->{name}");
	}
	is(counter($node, 'q1', 'rows_in'),
		$node->safe_psql('postgres', 'SELECT count(*) FROM t'),
		"round $round: each row once");
}

$node->stop;
done_testing();
