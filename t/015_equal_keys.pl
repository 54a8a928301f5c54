# Keys that become equal: their groups are combined, by the aggregate's combine function, or by the inputs that
# are kept if it has none and the type of a key is one that can change so.
#
# The second half takes random steps.  SEED=n takes the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();
my $rounds = $ENV{ROUNDS} || 3;

my $node = new_node('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The task loads everything again from the last checkpoint.
sub restart_task
{
	my $pid = pid_of($node, 'task');

	kill 'TERM', $pid;
	wait_restarted($node, 'task', $pid);
	wait_running($node);
	return;
}

sub drop_queries { return sql('SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries'); }

my $window = q(stream_ckpt.tumble(ts, '1 minute') w);

sql(q(
	CREATE FUNCTION add(int8, int) RETURNS int8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 + $2';
	CREATE FUNCTION larger(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE STRICT AS
		$$ BEGIN RETURN greatest($1, $2); END $$;
	CREATE FUNCTION in_order(int[]) RETURNS int[] LANGUAGE sql IMMUTABLE AS
		'SELECT array_agg(x ORDER BY x) FROM unnest($1) x';
	CREATE AGGREGATE sum_alone(int) (sfunc = add, stype = int8, initcond = '0');
	CREATE AGGREGATE sum_combined(int) (sfunc = add, stype = int8, initcond = '0', combinefunc = int8pl);
	CREATE AGGREGATE sum_either(int) (sfunc = add, stype = int8, initcond = '0');
	CREATE AGGREGATE max_alone(int) (sfunc = larger, stype = int);
	CREATE AGGREGATE list_alone(int) (sfunc = array_append, stype = int[], initcond = '{}');
	CREATE AGGREGATE set_alone(int) (sfunc = array_append, stype = int[], initcond = '{}', finalfunc = in_order)));

#
# A state that was written as a value, and one that is kept as inputs
#
sub sum_becomes
{
	my ($combine) = @_;

	return sql("CREATE OR REPLACE AGGREGATE sum_changed(int) (sfunc = add, stype = int8, initcond = '0'$combine)");
}

sub insert_pairs
{
	my ($key, $from, $to) = @_;

	return sql(qq(INSERT INTO pairs SELECT '2024-01-01 UTC', $key, i FROM generate_series($from, $to) i));
}

sub changed_ok
{
	my ($what) = @_;

	return results_ok($node, 'changed', $what, emit => 'update');
}

sum_becomes(', combinefunc = int8pl');
sql('CREATE TYPE pair AS (x int, y int); CREATE TABLE pairs (ts timestamptz, key pair, v int)');
attach($node, 'pairs');
create_query($node, 'changed', 'pairs', emit => 'update',
	select => "SELECT w.window_start, key, sum_changed(v) AS sum, count(*) AS n FROM pairs, $window GROUP BY w.window_start, key");
insert_pairs('ROW(i % 3, 1)::pair', 1, 10);
changed_ok('with a combine function');
sum_becomes('');
insert_pairs('ROW(i % 3, i % 2 + 1)::pair', 11, 30);
changed_ok('values, and inputs of new groups');
restart_task();
insert_pairs('ROW(i % 3, i % 3 + 1)::pair', 31, 50);
changed_ok('the same from the changelog');
sql('ALTER TYPE pair DROP ATTRIBUTE y');
insert_pairs('ROW(i % 3)::pair', 51, 52);
changed_ok('a value and the inputs of others become one');
restart_task();
insert_pairs('ROW(i % 4)::pair', 53, 60);
changed_ok('and from the changelog');

# Two values: nobody can combine them.
sql('ALTER TYPE pair DROP ATTRIBUTE x; ALTER TYPE pair ADD ATTRIBUTE z int');
insert_pairs('ROW(i % 2)::pair', 61, 64);
wait_until($node, q(SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'changed'::regclass),
	'the query fails');
like(
	sql(q(SELECT message || ' ' || detail || ' ' || hint FROM stream_ckpt.queries WHERE query = 'changed'::regclass)),
	qr/have become equal, and aggregate sum_changed\(integer\) has no combine function.*combinefunc.*drop_query/s,
	'two values without a combine function: an error with a hint');
sum_becomes(', combinefunc = int8pl');
sql(q(SELECT stream_ckpt.resume_query('changed')));
changed_ok('as the hint says, and nothing is lost');
restart_task();
insert_pairs('ROW(i % 3)::pair', 65, 70);
changed_ok('and from the changelog, again');

# Inputs that were kept stay inputs when there is a combine function.
sum_becomes('');
insert_pairs('ROW(i)::pair', 71, 75);
sync_pipelines($node);
sum_becomes(', combinefunc = int8pl');
insert_pairs('ROW(i)::pair', 76, 80);
sql('ALTER TYPE pair DROP ATTRIBUTE z; ALTER TYPE pair ADD ATTRIBUTE a int');
insert_pairs('ROW(NULL)::pair', 81, 85);
changed_ok('inputs and values become one, with a combine function');
drop_queries();

# What a row did to inputs and values is taken back, if it fails.
sum_becomes(', combinefunc = int8pl');
create_query($node, 'dead', 'pairs', emit => 'update', options => q(on_error => 'dead_letter'),
	select => "SELECT w.window_start, key, sum_changed(v) AS sum, sum(100 / v) AS rest FROM pairs, $window GROUP BY w.window_start, key");
sql(q(INSERT INTO pairs SELECT '2024-01-02 UTC', ROW(1)::pair, i FROM generate_series(0, 4) i));
sync_pipelines($node);
sum_becomes('');
sql(q(INSERT INTO pairs SELECT '2024-01-02 UTC', ROW(k)::pair, i FROM generate_series(4, 0, -1) i, generate_series(1, 2) k));
sync_pipelines($node);
is(sql(q(SELECT key, sum, rest FROM dead ORDER BY key)), "(1)|20|416\n(2)|10|208", 'rows that fail leave nothing in either');
is(sql('SELECT count(*) FROM stream_ckpt.dead_letter'), '3', 'and are dead letters');
drop_queries();

#
# Which keys: of a query whose inputs are kept, all rows count as the function is now.
#
my $icu = sql(q(SELECT count(*) > 0 FROM pg_collation WHERE collprovider = 'i')) eq 't';
my %kept = (
	composite => 'ROW(1)::pair',
	composites => 'ARRAY[ROW(1)::pair]',
	nested => 'ROW(ROW(1))::outer_pair',
	of_domain => 'ARRAY[ROW(1)::pair]::pairs_domain',
	of_range => 'pair_range(ROW(1)::pair, ROW(2)::pair)',
	of_multirange => 'pair_multirange(pair_range(ROW(1)::pair, ROW(2)::pair))',
	of_base => '1::base',
	of_bases => 'ARRAY[1::base]',
	$icu ? (collated => q((v > 0)::text COLLATE blind), of_collated => q(ARRAY[(v > 0)::text COLLATE blind])) : ());
my %not_kept = (
	whole => 'v / 1000',
	number => 'v / 1000 * 1.0',
	of_text => '(v > 0)::text',
	of_array => 'ARRAY[v / 1000]',
	of_enum => q('low'::level),
	of_small => '1::small',
	of_int4range => 'int4range(1, 2)',
	of_own_range => 'own_range(1, 2)');
sql(q(
	CREATE TYPE outer_pair AS (inside pair);
	CREATE DOMAIN pairs_domain AS pair[];
	CREATE TYPE pair_range AS RANGE (subtype = pair, multirange_type_name = pair_multirange);
	CREATE TYPE own_range AS RANGE (subtype = int);
	CREATE TYPE level AS ENUM ('low', 'high');
	CREATE DOMAIN small AS int CHECK (VALUE < 1000);
	CREATE TYPE base;
	CREATE FUNCTION base_in(cstring) RETURNS base LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
	CREATE FUNCTION base_out(base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
	CREATE TYPE base (INPUT = base_in, OUTPUT = base_out, LIKE = int);
	CREATE CAST (int AS base) WITHOUT FUNCTION;
	CREATE CAST (base AS int) WITHOUT FUNCTION;
	CREATE FUNCTION tens(base) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1::int';
	CREATE FUNCTION base_hash(base) RETURNS int LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN RETURN hashint4(tens($1)); END';
	CREATE FUNCTION base_cmp(base, base) RETURNS int LANGUAGE plpgsql IMMUTABLE STRICT AS
		'BEGIN RETURN btint4cmp(tens($1), tens($2)); END'));
sql(join ';', map { my ($name, $op) = @$_; qq(
	CREATE FUNCTION base_$name(base, base) RETURNS bool LANGUAGE plpgsql IMMUTABLE STRICT AS
		'BEGIN RETURN tens(\$1) $op tens(\$2); END';
	CREATE OPERATOR $op (leftarg = base, rightarg = base, function = base_$name@{[$name eq 'eq' ? ', hashes, merges' : '']})) }
	(['lt', '<'], ['le', '<='], ['eq', '='], ['ge', '>='], ['gt', '>']));
sql(q(
	CREATE OPERATOR CLASS base_ops DEFAULT FOR TYPE base USING btree AS
		OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 base_cmp(base, base);
	CREATE OPERATOR CLASS base_ops DEFAULT FOR TYPE base USING hash AS OPERATOR 1 =, FUNCTION 1 base_hash(base)));
sql(q(CREATE COLLATION blind (provider = icu, locale = 'und', deterministic = false))) if $icu;
sql('CREATE TABLE many (ts timestamptz, v int)');
attach($node, 'many');
my %keys = (%kept, %not_kept);
for my $name (sort keys %keys)
{
	create_query($node, $name, 'many', select => "SELECT w.window_start, w.window_end, sum_alone(v) AS alone,
		sum_combined(v) AS combined FROM many, $window GROUP BY w.window_start, w.window_end, $keys{$name}");
}
sql(q(INSERT INTO many SELECT '2024-01-01 UTC', i FROM generate_series(1, 10) i));
sync_pipelines($node);
sql(q(CREATE OR REPLACE FUNCTION add(int8, int) RETURNS int8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 - $2'));
sql(q(INSERT INTO many VALUES ('2024-01-01 UTC', 1)));
sync_pipelines($node);
sql(q(INSERT INTO many VALUES ('2024-01-01 00:02 UTC', 1)));
sync_pipelines($node);
is(sql("SELECT alone, combined FROM $_"), '-56|54', "inputs are kept with a key $keys{$_}") for sort keys %kept;
is(sql("SELECT alone, combined FROM $_"), '54|54', "and not with a key $keys{$_}") for sort keys %not_kept;
sql(q(CREATE OR REPLACE FUNCTION add(int8, int) RETURNS int8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 + $2'));
drop_queries();

# What an operator class calls equal is replaced: one group of each ten numbers.
sql('TRUNCATE many');
create_query($node, 'by_base', 'many', select => "SELECT w.window_start, w.window_end, (v / 5)::base AS key, sum_alone(v) AS alone,
	sum_combined(v) AS combined, set_alone(v) AS set FROM many, $window GROUP BY w.window_start, w.window_end, (v / 5)::base");
sql(q(INSERT INTO many SELECT '2024-01-03 UTC', i FROM generate_series(1, 150) i));
sync_pipelines($node);
sql(q(CREATE OR REPLACE FUNCTION tens(base) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1::int / 10'));
sql(q(INSERT INTO many SELECT '2024-01-03 UTC', i FROM generate_series(1, 20) i));
sync_pipelines($node);
restart_task();
sql(q(INSERT INTO many SELECT '2024-01-03 UTC', i FROM generate_series(1, 20) i;
	INSERT INTO many VALUES ('2024-01-03 00:02 UTC', 1)));
results_ok($node, 'by_base', 'an operator class is replaced', table => 'many');
is(sql('SELECT count(*) FROM by_base'), '4', 'and groups are combined');
drop_queries();

#
# At random
#
my $columns = q(count(*) AS n, sum(v) AS sum, sum_alone(v) AS alone, sum_combined(v) AS combined, sum_either(v) AS either,
	max_alone(v) AS greatest, set_alone(v) AS set, sum_alone(v) FILTER (WHERE v % 2 = 0) AS even,
	sum_alone(DISTINCT v % 5) AS different, list_alone(v ORDER BY v) AS list, max_alone(v) FILTER (WHERE v % 7 = 0) AS seventh);
my @attributes;     # of "part", as they are: the first two are always there
my $added;
my $v;

# One with each attribute, or a shorter one
sub random_part
{
	my $attributes = join ', ', map { pick('NULL', int rand 2) } @attributes;

	return "ROW($attributes)::part";
}

sub random_rows
{
	my $part = random_part();
	my $minute = pick(0, 0, 1);
	my $from = $v + 1;

	$v += pick(1, 3, 10);
	sql(qq(INSERT INTO parts SELECT timestamptz '2024-01-01 UTC' + $minute * interval '1 minute', part,
			CASE WHEN i % 2 = 0 THEN ARRAY[part, NULL] END, pair_of_parts, i
		FROM generate_series($from, $v) i, (SELECT $part AS part, part_range($part, $part, '[]') AS pair_of_parts) p));
	return;
}

sub add_attribute
{
	push @attributes, 'z' . ++$added;
	note "add $attributes[-1]";
	sql("ALTER TYPE part ADD ATTRIBUTE $attributes[-1] int");
	return;
}

# Groups that differ in it become one.  The last one: without another the order of the result's index would be
# another, and the server leaves indexes as they are.
sub drop_attribute
{
	my $gone = pop @attributes;

	note "drop $gone";
	sql("ALTER TYPE part DROP ATTRIBUTE $gone");
	return;
}

sub combine_either
{
	note 'sum_either gets a combine function';
	sql(q(CREATE OR REPLACE AGGREGATE sum_either(int) (sfunc = add, stype = int8, initcond = '0', combinefunc = int8pl)));
	return;
}

sub crash
{
	note 'immediate stop';
	$node->stop('immediate');
	$node->start;
	wait_running($node);
	return;
}

sub random_step
{
	my $step = rand;

	if ($step < 0.5) { random_rows() }
	elsif ($step < 0.62) { add_attribute() }
	elsif ($step < 0.74) { drop_attribute() if @attributes > 2 }
	elsif ($step < 0.84) { sync_pipelines($node) }
	elsif ($step < 0.92) { note 'restart'; restart_task() }
	elsif ($step < 0.95) { crash() }
	elsif ($step < 0.97) { combine_either() }
	return;
}

for my $round (1 .. $rounds)
{
	note "round $round";
	@attributes = qw(x y);
	$added = $v = 0;
	sql(q(
		CREATE OR REPLACE AGGREGATE sum_either(int) (sfunc = add, stype = int8, initcond = '0');
		CREATE TYPE part AS (x int, y int);
		CREATE DOMAIN several AS part[];
		CREATE TYPE part_range AS RANGE (subtype = part);
		CREATE TABLE parts (ts timestamptz, one part, more several, span part_range, v int)));
	attach($node, 'parts', delay => '10 minutes');
	for my $key (qw(one more span))
	{
		my $select = "SELECT w.window_start, w.window_end, $key, $columns FROM parts, $window GROUP BY w.window_start, w.window_end, $key";

		create_query($node, "u_$key", 'parts', emit => 'update', select => $select);
		create_query($node, "c_$key", 'parts', select => $select);
	}
	wait_running($node);
	random_rows();
	random_step() for 1 .. 30;
	# what became equal is combined before the next row
	random_rows();
	sync_pipelines($node);
	is(differences($node, "u_$_", emit => 'update'), '0', "round $round, updated: $_") for qw(one more span);
	sql(q(INSERT INTO parts (ts, v) VALUES ('2024-01-01 00:20 UTC', 1)));
	sync_pipelines($node);
	is(differences($node, "c_$_", table => 'parts', delay => '10 minutes'), '0', "round $round, closed: $_") for qw(one more span);
	drop_queries();
	sql(q(SELECT stream_ckpt.detach_stream('parts'); DROP TABLE parts; DROP TYPE part CASCADE));
}

$node->stop;
done_testing();
