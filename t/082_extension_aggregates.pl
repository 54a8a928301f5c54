# Aggregates in C of extensions that users have: Debian's hll, tdigest and first_last_agg.  Their states go through
# checkpoints, evictions, two tasks, and are combined in windows that share panes and in sessions that grow together; the
# result is that of the plain query.  Rows come in the order of their event times, so that panes in order are the rows in order.
#
# Skipped without the packages postgresql-N-hll, -tdigest and -first-last-agg; REQUIRE_EXTENSIONS=1 fails then.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my ($node, @names, $second);
sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

# What keeps few values by its accuracy keeps each of them, and is the same however it was combined.
my %aggregates = (
	hll => [ 'hll_add_agg(hll_hash_integer(v))::text AS a', 'hll_add_agg(hll_hash_text(s), 12, 5) AS b', '(# hll_add_agg(hll_hash_integer(v % 7)))::int AS c',
		'hll_union_agg(h)::text AS e', 'hll_cardinality(hll_union_agg(h) || hll_add_agg(hll_hash_integer(v))) AS f' ],
	tdigest => [ 'tdigest_percentile(x, 1000, 0.9) AS a', 'tdigest_percentile(x, 1000, ARRAY[0.1, 0.5, 1]) AS b', 'tdigest_percentile_of(x, 1000, 40) AS c',
		'tdigest_count(tdigest(x, 1000)) AS e', 'tdigest_percentile(d, 0.5) AS f', 'tdigest(x, 1000)::text AS g' ],
	first => [ 'first(v) AS a', 'last(v) AS b', 'first(s) AS c', 'last(s) AS e', 'last(id) FILTER (WHERE v > 5) AS g', 'last(ARRAY[id, v]) AS h' ],
	ordered => [ 'first(x ORDER BY v, id) AS a', 'last(s ORDER BY v DESC, id) AS b', 'first(id ORDER BY id DESC) FILTER (WHERE v > 5) AS c' ],
	mixed => [ 'count(*) AS n', 'first(v ORDER BY id) AS a', 'tdigest_percentile(v, 1000, 0.5) AS b', 'hll_cardinality(hll_add_agg(hll_hash_integer(v)))::int AS c', 'count(DISTINCT v) AS e' ]);
# The same by order of the rows: as in a table they can lie in any.
$aggregates{arrived} = [ map { s/\b(first|last)\((.*?)\)/$1($2 ORDER BY id)/r } @{ $aggregates{first} } ];
my %windows = (
	tumble => [ 'close', "tumble(ts, '20 seconds')" ],
	lenient => [ 'close', "tumble(ts, '20 seconds')", "allowed_lateness => '1 minute'" ],
	updated => [ 'update', "tumble(ts, '20 seconds')" ],
	hop => [ 'close', "hop(ts, '10 seconds', '30 seconds')" ],
	session => [ 'close', "session(ts, '1500 milliseconds')" ],
	none => [ 'update', '' ]);


# A server with queries over these kinds of windows.
sub start
{
	my ($name, $draw, @kinds) = @_;

	$node = new_node($name, "max_parallel_workers_per_gather = 0\n", draw => { tasks => [ 1, 2 ], batch => [ 0, 7 ], %$draw });
	my @missing = split /\n/, sql("SELECT w FROM unnest(ARRAY['hll', 'tdigest', 'first_last_agg']) w WHERE w NOT IN (SELECT name FROM pg_available_extensions)");
	if (@missing && !$ENV{REQUIRE_EXTENSIONS})
	{
		$node->stop;
		plan skip_all => "needs the extensions @missing (Debian: postgresql-N-hll, postgresql-N-tdigest, postgresql-N-first-last-agg)";
	}
	is("@missing", '', 'the extensions are there');
	sql('CREATE EXTENSION hll', 'CREATE EXTENSION tdigest', 'CREATE EXTENSION first_last_agg',
		'CREATE TABLE t (id int, ts timestamptz, k int, v int, x float8, s text, d tdigest, h hll)');
	attach($node, 't', delay => '5 seconds');
	($second, @names) = (0);
	for my $kind (@kinds)
	{
		my ($emit, $window, $options) = @{ $windows{$kind} };

		for my $set (sort keys %aggregates)
		{
			my $columns = $window ? 'w.window_start, w.window_end, ' : '';
			# without windows more groups, for few values in each
			my $key = $window ? 'k' : 'id % 30';

			create_query($node, "${set}_$kind", 't', emit => $emit, options => $options,
				select => "SELECT $columns$key AS k, " . join(', ', @{ $aggregates{$set} }) . ' FROM t' . ($window ? ", stream_ckpt.$window w" : '')
				  . " GROUP BY $columns$key");
			push @names, "${set}_$kind";
		}
	}
	wait_running($node);
	return;
}

# Rows of so many seconds, 10 in each, with gaps between them.
sub feed
{
	for (1 .. $_[0])
	{
		sql("INSERT INTO t SELECT $second * 10 + i, timestamptz '2024-01-01 UTC' + ($second + i / 10.0) * interval '1 second', i % 3,
			nullif(($second * 31 + i * 17) % 43, 7), nullif(($second * 7 + i) % 101, 50) / 3.0, nullif(md5((i % 8)::text), md5('3')),
			(SELECT tdigest(y, 1000) FROM generate_series(i, i + 2) y), (SELECT hll_add_agg(hll_hash_integer(y)) FROM generate_series(i, i + $second % 4) y)
			FROM generate_series(0, 9) i");
		$second += $second % 7 == 0 ? 4 : 1;
	}
	return;
}

sub check
{
	my ($when) = @_;

	sync_pipelines($node);
	for my $line (split /\n/, sql("SET timezone = 'UTC'", map { "SELECT '$_', stream_ckpt.verify('$_')" } grep { !/^first/ } @names))
	{
		my ($name, $differences) = split /\|/, $line;

		is($differences, 0, "$when: $name")
		  or diag sql(
			"SET timezone = 'UTC'",
			"SELECT 'result', r::text FROM $name r ORDER BY 2 LIMIT 5",
			$name =~ /session/ ? () : "SELECT 'truth', r::text FROM ${name}_definition r ORDER BY 2 LIMIT 5");
	}
	for my $name (grep { /^first/ } @names)
	{
		my $ordered = $name =~ s/first/arrived/r;

		is(sql("SELECT count(*) FROM ((TABLE $name EXCEPT ALL TABLE $ordered) UNION ALL (TABLE $ordered EXCEPT ALL TABLE $name)) d"), 0, "$when: $name");
	}
	return;
}

# Rows, and all that can happen to their states.
sub live
{
	my ($name) = @_;

	feed(25);
	check("$name: first rows");
	cmp_ok(sql("SELECT min((xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || query::text, false, true, '')))[1]::text::int) FROM stream_ckpt.queries"),
		'>', 2, "$name: all results have rows");
	lose_state($node, 'task', 'KILL');
	feed(20);
	check("$name: after an end of a task");
	$node->restart;
	feed(10);
	lose_state($node, 'immediate');
	feed(10);
	check("$name: after a restart and a crash");
	if (drawn($node)->{tasks} > 1)
	{
		sql(map { "SELECT stream_ckpt.alter_query('$_', parallelism => 1)" } @names);
		feed(10);
		check("$name: in one task");
	}
	is(sql('SELECT sum(late_rows) FROM stream_ckpt.queries'), 0, "$name: no row was late");
	return;
}

# Windows that share panes and sessions are in memory as long as they are open.
start('shared', { memory => [0], bucket => [0] }, qw(hop session));
live('shared');
# many values: an estimate is near, whatever was combined
sql('CREATE TABLE many (ts timestamptz, x float8)');
attach($node, 'many');
create_query($node, 'estimates', 'many', select => "SELECT w.window_start, w.window_end, tdigest_percentile(x, 100, 0.5) AS p, hll_cardinality(hll_add_agg(hll_hash_bigint(x::bigint))) AS c
	FROM many, stream_ckpt.hop(ts, '10 seconds', '30 seconds') w GROUP BY w.window_start, w.window_end");
sql("INSERT INTO many SELECT timestamptz '2024-01-01 UTC' + i * interval '10 milliseconds', i * 7919 % 10007 FROM generate_series(1, 9000) i") for 1 .. 2;
lose_state($node, 'task', 'TERM');
sql("INSERT INTO many VALUES ('2024-01-02 UTC', 0)");
sync_pipelines($node);
is(sql('SELECT count(*) FROM estimates JOIN estimates_definition d USING (window_start) WHERE abs(estimates.p - d.p) < 0.03 * d.p AND abs(estimates.c - d.c) < 0.05 * d.c'),
	sql("SELECT count(*) FROM estimates_definition WHERE window_start < '2024-01-02'::timestamptz - interval '1 minute'"), 'estimates of many values are near those of the plain query');

$node->stop;

start('evicted', { memory => [40], bucket => [100] }, qw(tumble lenient updated none));
live('evicted');
cmp_ok(sql('SELECT sum(cache_evictions) FROM stream_ckpt.tasks'), '>', 0, 'buckets were evicted');

done_testing();
