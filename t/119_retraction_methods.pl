# Every built-in aggregate over a stream whose changes are applied: rows are taken back from it in one of two ways, by an
# inverse function or by its inputs, which are kept.  Which of them is listed here; explain_query() must say the same, with the
# bytes that each row takes, and the state must grow by just these, or not at all.  Whatever comes, changes and goes, the result is exact, and a group without rows is gone.
#
# The calls are made of the catalogs: an aggregate that a later server has is found, and has to be listed.
#
# SEED=n runs the same again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Conditions;
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $node = new_node('main', "timezone = 'UTC'\nmax_parallel_workers_per_gather = 0\n");

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

# A column for each type of arguments: [ type, value of row i, which has NULLs ]
my %columns = (
	int2 => [ 'int2', 'nullif(i % 7, 3)' ], int4 => [ 'int4', 'nullif(i % 11, 5) * 1000' ], int8 => [ 'int8', 'nullif(i % 13, 6) * 10000000000' ],
	numeric => [ 'numeric', 'CASE WHEN i % 9 > 0 THEN 1.0 + i / 8.0 END' ], scaled => [ 'numeric(12,2)', 'nullif(i % 97, 6) / 4.0' ],
	second => [ 'float8', 'i % 23 * 0.5 + 3' ], float4 => [ 'float4', 'nullif(i % 8, 2) * 0.5' ], float8 => [ 'float8', 'nullif(i % 17, 2) * 0.25' ], interval => [ 'interval', "i % 5 * interval '1 hour'" ],
	money => [ 'money', '(i % 12)::numeric::money' ], bool => [ 'bool', 'nullif(i % 3, 2)::bool' ], text => [ 'text', "chr(97 + i % 5) || repeat('x', i % 3)" ],
	bpchar => [ 'char(5)', 'chr(65 + i % 3)' ], date => [ 'date', "date '2024-02-28' + i % 4" ], time => [ 'time', "time '10:00' + i % 50 * interval '1 minute'" ],
	timetz => [ 'timetz', "(time '10:00' + i % 50 * interval '1 minute')::timetz" ], timestamp => [ 'timestamp', "timestamp '2024-01-01' + i % 9 * interval '1 day'" ],
	timestamptz => [ 'timestamptz', "timestamptz '2024-01-01' + i % 9 * interval '1 day'" ], oid => [ 'oid', '(i % 6)::oid' ], inet => [ 'inet', "('10.0.0.' || i % 9)::inet" ],
	tid => [ 'tid', "('(1,' || i % 9 + 1 || ')')::tid" ], pg_lsn => [ 'pg_lsn', "('0/' || i % 50)::pg_lsn" ], xid8 => [ 'xid8', "(i % 7)::text::xid8" ],
	bytea => [ 'bytea', "decode(lpad(to_hex(i % 40), 2, '0'), 'hex')" ], bit => [ 'bit(8)', '(i % 256)::bit(8)' ], xml => [ 'xml', "('<a n=\"' || i % 5 || '\"/>')::xml" ],
	anyarray => [ 'int[]', 'ARRAY[i % 3, NULL, i % 5]' ], anyrange => [ 'int4range', 'int4range(i % 20, i % 20 + 1 + i % 5)' ],
	anymultirange => [ 'int4multirange', 'int4multirange(int4range(i % 10, i % 10 + 20))' ], jsonb => [ 'jsonb', "jsonb_build_object('k', i % 3)" ],
);
$columns{anyelement} = $columns{anynonarray} = $columns{any} = $columns{int4};
my %names = map { $_ => $_ =~ /^any(?:element|nonarray)?$/ ? 'c_int4' : "c_$_" } keys %columns;
my @stored = grep { $names{$_} eq "c_$_" && $_ !~ /^any(?:element|nonarray)?$/ } sort keys %columns;

# Those by whose states rows are taken back; "numeric" stands for columns of one scale.  All others keep their inputs.
my %inverse = map { $_ => 1 } 'count()', 'count(any)', 'sum(int2)', 'sum(int4)', 'sum(int8)', 'sum(scaled)',
  map { my $f = $_; map { "$f($_)" } qw(int2 int4 int8 scaled) } qw(avg variance var_samp var_pop stddev stddev_samp stddev_pop);
# name and signature => SQL of the call, types of the inputs that are kept
my %calls;
for my $line (split /\n/, sql(q(SELECT concat_ws('|', proname, aggkind, aggnumdirectargs, (SELECT string_agg(typname, ',' ORDER BY n) FROM unnest(proargtypes) WITH ORDINALITY x (t, n) JOIN pg_type y ON y.oid = t))
	FROM pg_aggregate JOIN pg_proc p ON p.oid = aggfnoid WHERE pronamespace = 'pg_catalog'::regnamespace AND NOT 'internal'::regtype = ANY (proargtypes::oid[]))))
{
	my ($name, $kind, $direct, $types) = split /\|/, $line;
	my @types = split /,/, $types // '';
	my @variants = ([@types]);

	next if grep { $_ eq 'anyenum' } @types;    # types that users made
	@variants = ([ map { s/numeric/scaled/r } @types ], [@types]) if $kind eq 'n' && grep { $_ eq 'numeric' } @types;
	for my $variant (@variants)
	{
		my @args = map { $names{$_} } @$variant;
		my $call;

		next if grep { !defined } @args;
		if ($kind eq 'n' && $name =~ /agg$/)
		{
			# what depends on the order of rows, which UPDATE changes
			$args[0] = 'i' if $name =~ /object/;    # NULL is no key
			$call = "$name(" . join(', ', @args) . ' ORDER BY i)';
			push @args, 'i' unless $name =~ /object/;
		}
		elsif ($kind eq 'n' && "@types" eq 'float8 float8')
		{
			# of a value and itself, all but rounding would be 0
			@args = ('c_float8', 'c_second');
			$call = "$name(c_float8, c_second)";
		}
		elsif ($kind eq 'n') { $call = "$name(" . (@args ? join(', ', @args) : '*') . ')'; }
		elsif ($kind eq 'h') { ($call, @args) = ("$name(3000) WITHIN GROUP (ORDER BY c_int4)", 'c_int4'); }
		else
		{
			my @sorted = splice @args, $direct;

			@sorted = ('c_int4') if $name eq 'mode';
			$call = "$name(" . ($types =~ /_float8/ ? "'{0.25,0.5}'::float8[]" : $direct ? '0.5' : '') . ") WITHIN GROUP (ORDER BY @sorted)";
			@args = @sorted;
		}
		$calls{"$name(" . join(',', @$variant) . ')'} = [ $call, @args ];
	}
}
# other forms of calls
$calls{'count(DISTINCT any)'} = [ 'count(DISTINCT c_int4)', 'c_int4' ];
$calls{'sum(DISTINCT int8)'} = [ 'sum(DISTINCT c_int8)', 'c_int8' ];
$calls{'array_agg(ORDER BY)'} = [ 'array_agg(c_text ORDER BY c_int8, i)', qw(c_text c_int8 i) ];
$calls{'sum(int4) FILTER'} = [ 'sum(c_int4) FILTER (WHERE c_bool)', 'c_int4' ];
$inverse{'sum(int4) FILTER'} = 1;
cmp_ok(scalar keys %calls, '>', 120, 'aggregates of the server');

sql('CREATE TABLE src (ts timestamptz, k int, i int PRIMARY KEY, ' . join(', ', map { "c_$_ $columns{$_}[0]" } @stored) . ')',
	'CREATE FUNCTION fill(first int, last int, key int) RETURNS void LANGUAGE sql AS $$ INSERT INTO src SELECT now(), key, i, ' . join(', ', map { $columns{$_}[1] } @stored) . ' FROM generate_series(first, last) i $$',
	# the same without NULLs, all rows alike
	'CREATE FUNCTION same(first int, last int, key int) RETURNS void LANGUAGE sql AS $$ INSERT INTO src SELECT now(), key, g, ' . join(', ', map { $columns{$_}[1] } @stored) . ' FROM generate_series(first, last) g, (SELECT 1 AS i) x $$',
	q(SELECT stream_ckpt.attach_stream('src', 'ts', changes => 'apply')));

my $n = 0;
my (%tables, %bytes, @refused);
for my $call (sort keys %calls)
{
	my ($sql, @inputs) = @{ $calls{$call} };
	my $table = 'q' . $n++;
	my $definition = "SELECT k, $sql AS a FROM src GROUP BY k";
	my ($ret, $said, $error) = $node->psql('postgres', "SELECT stream_ckpt.explain_query(\$q\$$definition\$q\$)");

	if ($ret != 0)
	{
		push @refused, "$call: $error";
		next;
	}
	if ($said =~ /rows are taken back by (\w+)/) { ok($inverse{$call}, "$call: taken back by $1"); }
	elsif ($said =~ /, (\d+) bytes( or more)? a row; one that is taken back is one more/)
	{
		# a bitmap of what is NULL, and the values; of those of varying length at least their length
		my $lengths = join ' + ', map { "(SELECT greatest(attlen, 1) FROM pg_attribute WHERE attrelid = 'src'::regclass AND attname = '$_')" } @inputs;

		ok(!$inverse{$call}, "$call: inputs are kept");
		is($1, sql("SELECT $lengths + " . int((@inputs + 1 + 7) / 8)), "$call: bytes a row");
		$bytes{$call} = [ $1, $2 ];
	}
	else { fail("$call: a way to take rows back\n$said"); }
	create_query($node, $table, 'src', emit => 'update', tasks => 1, select => $definition);
	$tables{$call} = $table;
}
is("@refused", '', 'none is refused');
wait_running($node);

# Bytes of state by query, of what is written whole: after a restart
sub sizes
{
	sync_pipelines($node);
	checkpoint_all($node);
	return map { split /\|/ } split /\n/, sql('SELECT query, state_bytes FROM stream_ckpt.queries');
}

sql('SELECT same(1, 1000, 1)');
my %before = sizes();
sql('SELECT same(1001, 3000, 1)');
my %behind = sizes();
for my $call (sort keys %tables)
{
	my $grown = ($behind{ $tables{$call} } - $before{ $tables{$call} }) / 2000;

	if (!$bytes{$call}) { cmp_ok($grown, '<', 0.1, "$call: the state doesn't grow"); next; }
	my ($bytes, $or_more) = @{ $bytes{$call} };

	cmp_ok($grown, '>=', $bytes, "$call: each row takes at least $bytes bytes");
	cmp_ok($grown, '<', $bytes * 1.02 + 0.1, "$call: and no more") unless $or_more;
}

sub exact
{
	my ($test) = @_;

	sync_pipelines($node);
	my $differ = sql(join(' UNION ALL ', map { "SELECT '$_', d FROM (SELECT stream_ckpt.verify('$tables{$_}') AS d) x WHERE d <> 0" } sort keys %tables));

	return is($differ, '', $test) || diag "SEED=$seed";
}

my $values = join ', ', map { "c_$_" } @stored;

exact('rows');
sql('DELETE FROM src WHERE i > 10');
exact('most rows go');
sql('DELETE FROM src');
exact('all rows go');
is(sql(join(' UNION ALL ', map { "SELECT k FROM $_" } values %tables)), '', 'and with them their group');
sql(map { "SELECT fill(" . ($_ * 100) . ", $_ * 100 + 99, $_)" } 0 .. 4);
exact('rows with NULLs');
for my $round (1 .. 2)
{
	my $other = pick(1, 2, 7);

	sql("UPDATE src s SET ($values) = (SELECT $values FROM src o WHERE o.i = (s.i + $other) % 500) WHERE i % 3 = " . pick(0 .. 2) . " AND EXISTS (SELECT FROM src o WHERE o.i = (s.i + $other) % 500)",
		'DELETE FROM src WHERE i % 5 = ' . pick(0 .. 4) . ' AND k <> ' . pick(0 .. 4), 'UPDATE src SET k = (k + 1) % 5 WHERE i % 7 = ' . pick(0 .. 6));
	lose_state($node, pick(qw(task immediate)));
	exact("round $round: other values, other keys, some go");
	sql('DELETE FROM src WHERE k = ' . pick(0 .. 4));
	exact("round $round: a group goes");
	sql("SELECT fill(500 * $round, 500 * $round + 99, " . pick(0 .. 4) . ')');
	exact("round $round: rows come");
}
$node->stop;
done_testing();
