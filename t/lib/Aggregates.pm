# Aggregates of all kinds over a stream "src", for tests that run them as continuous queries: the table with columns of
# many types, a function fill(first, last, start) that inserts rows, aggregates of our own, and the sets that are run.

package Aggregates;

use strict;
use warnings;

use Exporter 'import';
use Test::More;

our @EXPORT = qw(make_aggregates aggregate_sets aggregate_definition);

# What the server has: its version, xml, ICU.
sub features
{
	my ($node) = @_;
	my %has = (version => $node->safe_psql('postgres', 'SHOW server_version_num'));

	$has{xml} = ($node->psql('postgres', q(SELECT '<a/>'::xml)))[0] == 0;
	$has{icu} = $node->safe_psql('postgres', q(SELECT count(*) FROM pg_collation WHERE collname = 'caseless'));
	return %has;
}

# Makes the table and all that the sets need.
sub make_aggregates
{
	my ($node) = @_;

	diag "without ICU"
	  unless ($node->psql('postgres',
		q(CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false))))[0] == 0;

	#
	# The stream
	#
	$node->safe_psql(
		'postgres', q(
		CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
		CREATE TYPE pair AS (x int, y text);
		CREATE DOMAIN percentage AS int CHECK (VALUE BETWEEN 0 AND 100);
		CREATE DOMAIN some_ints AS int[] CHECK (cardinality(VALUE) < 100);
		CREATE TABLE src (ts timestamptz, i int, k int, gone text, i2 int2, i4 int4, i8 int8, n numeric, f4 float4,
			f8 float8, iv interval, m money, b bool, t text, v varchar(20), c char(5), nm name, d date, tm time, u uuid,
			by bytea, j json, jb jsonb, a4 int[], at text[], e mood, p pair, dom percentage, domarr some_ints,
			r int4range, mr int4multirange, bits bit(8), vb varbit, ip inet, pt point, lsn pg_lsn, ch "char", long text);
		ALTER TABLE src ALTER long SET STORAGE EXTERNAL;
		ALTER TABLE src DROP gone;
		CREATE FUNCTION fill(first int, last int, start timestamptz) RETURNS void LANGUAGE sql AS $$
			INSERT INTO src
			SELECT start + (i - first) * interval '350 milliseconds', i, nullif(i % 4, 3),
				nullif(i % 7, 3) * 100, nullif(i % 11, 5) * 100000, nullif(i % 13, 6) * 10000000000,
				CASE i % 9 WHEN 0 THEN NULL WHEN 1 THEN 1.0 WHEN 2 THEN 1.00 WHEN 3 THEN -1.5e20 WHEN 4 THEN 0.000001 ELSE i / 8.0 END,
				nullif(i % 8, 2) * 0.37, CASE WHEN i % 10 = 4 THEN NULL WHEN i % 10 = 5 THEN '-0' ELSE (i % 17 - 5) * 1.1 END,
				CASE WHEN i % 6 = 1 THEN NULL WHEN i % 6 = 2 THEN '1 day' WHEN i % 6 = 3 THEN '24 hours' ELSE i * interval '1 hour' END,
				nullif(i % 12, 4)::numeric::money, nullif(i % 3, 2)::bool,
				CASE WHEN i % 5 = 2 THEN NULL ELSE chr(97 + i % 5) || repeat('x', i % 3) END,
				(ARRAY['Ab', 'aB', NULL, 'b', 'B'])[1 + i % 5], chr(65 + i % 3), 'name' || i % 3, date '2024-02-28' + i % 4,
				time '10:00' + i % 50 * interval '1 minute', ('00000000-0000-0000-0000-00000000000' || i % 8)::uuid,
				decode(lpad(to_hex(i % 40), 2, '0'), 'hex'), json_build_object('i', i % 5),
				CASE WHEN i % 7 = 0 THEN NULL ELSE jsonb_build_object('k', i % 3, 'l', ARRAY[i % 2, NULL]) END,
				CASE WHEN i % 8 = 1 THEN NULL ELSE ARRAY[i % 3, NULL, i % 5] END, ARRAY[chr(97 + i % 3), 'z'],
				(enum_range(NULL::mood))[1 + i % 4], CASE WHEN i % 5 = 1 THEN NULL ELSE ROW(i % 3, chr(97 + i % 2))::pair END,
				i % 101, ARRAY[i % 2, 7], int4range(i % 20, i % 20 + 1 + i % 5), int4multirange(int4range(i % 10, i % 10 + 20)),
				(i % 256)::bit(8), (i % 4)::bit(3)::varbit, ('10.0.0.' || i % 9)::inet, point(i % 3, 1),
				('0/' || i % 50)::pg_lsn, chr(65 + i % 26)::"char", repeat(md5(i::text), CASE WHEN i % 40 = 0 THEN 300 ELSE 1 END)
			FROM generate_series(first, last) i $$));

	# A type whose operators can't hash to 64 bits, and rows and arrays of it.
	$node->safe_psql(
		'postgres', join(
			';',
			'CREATE TYPE odd AS (x int)',
			'CREATE FUNCTION odd_cmp(odd, odd) RETURNS int LANGUAGE sql IMMUTABLE AS \'SELECT btint4cmp(abs($1.x), abs($2.x))\'',
			'CREATE FUNCTION odd_hash(odd) RETURNS int LANGUAGE sql IMMUTABLE AS \'SELECT hashint4(abs($1.x))\'',
			(
				map {
					my ($name, $operator) = @$_;
					my $more = $name eq 'eq' ? ', HASHES, MERGES' : '';
					(
						"CREATE FUNCTION odd_$name(odd, odd) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT odd_cmp(\$1, \$2) $operator 0'",
						"CREATE OPERATOR $operator (FUNCTION = odd_$name, LEFTARG = odd, RIGHTARG = odd$more)")
				} ([ 'lt', '<' ], [ 'le', '<=' ], [ 'eq', '=' ], [ 'ge', '>=' ], [ 'gt', '>' ])
			),
			'CREATE OPERATOR CLASS odd_ops DEFAULT FOR TYPE odd USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,
				OPERATOR 5 >, FUNCTION 1 odd_cmp(odd, odd)',
			'CREATE OPERATOR CLASS odd_ops DEFAULT FOR TYPE odd USING hash AS OPERATOR 1 =, FUNCTION 1 odd_hash(odd)',
			'CREATE TYPE holds_odd AS (o odd, y int)'));

	#
	# Aggregates of our own
	#
	$node->safe_psql(
		'postgres', q(
		-- in SQL: not strict with and without initcond, strict with and without
		CREATE FUNCTION add_square(int8, int4) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + coalesce($2, 1)::int8 * coalesce($2, 1)';
		CREATE AGGREGATE squares(int4) (sfunc = add_square, stype = int8, initcond = '5');
		CREATE AGGREGATE squares_bare(int4) (sfunc = add_square, stype = int8);
		CREATE FUNCTION keep_first(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1';
		CREATE FUNCTION keep_last(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $2';
		CREATE AGGREGATE first(anyelement) (sfunc = keep_first, stype = anyelement);
		CREATE AGGREGATE last(anyelement) (sfunc = keep_last, stype = anyelement);
		CREATE FUNCTION strict_add(int8, int8) RETURNS int8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 + $2';
		CREATE AGGREGATE strict_sum(int8) (sfunc = strict_add, stype = int8, initcond = '0');
		-- a strict function that returned NULL once is never called again; one that isn't strict is
		CREATE FUNCTION null_at(int8, int4) RETURNS int8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT CASE WHEN $2 = 700000 THEN NULL ELSE $1 + $2 END';
		CREATE AGGREGATE sum_until_7(int4) (sfunc = null_at, stype = int8, initcond = '0');
		CREATE FUNCTION null_at_any(int8, int4) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN $2 = 700000 THEN NULL ELSE coalesce($1, 1000) + $2 END';
		CREATE AGGREGATE sum_since_7(int4) (sfunc = null_at_any, stype = int8, initcond = '0');
		CREATE FUNCTION text_or_null(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT CASE WHEN $2 = 'axx' THEN NULL ELSE coalesce($1, '^') || coalesce($2, '-') END$$;
		CREATE AGGREGATE text_since(text) (sfunc = text_or_null, stype = text);

		-- in plpgsql, with a composite state and a final function
		CREATE TYPE acc AS (n int, total numeric, list text[]);
		CREATE FUNCTION acc_add(s acc, x numeric, label text) RETURNS acc LANGUAGE plpgsql IMMUTABLE AS
			$$BEGIN s.n := coalesce(s.n, 0) + 1; s.total := coalesce(s.total, 0) + coalesce(x, 0); s.list := s.list || label; RETURN s; END$$;
		CREATE FUNCTION acc_final(s acc) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
			$$BEGIN RETURN format('%s/%s/%s', s.n, s.total, array_to_string(s.list, ',', '?')); END$$;
		CREATE AGGREGATE accumulate(numeric, text) (sfunc = acc_add, stype = acc, finalfunc = acc_final);
		CREATE AGGREGATE accumulate_raw(numeric, text) (sfunc = acc_add, stype = acc, initcond = '(10,0,{})');

		-- states that are expanded arrays; polymorphic, FINALFUNC_EXTRA
		CREATE AGGREGATE ints(int) (sfunc = array_append, stype = int[], initcond = '{}');
		CREATE FUNCTION collect(s anycompatiblearray, x anycompatible) RETURNS anycompatiblearray LANGUAGE plpgsql IMMUTABLE AS $$BEGIN s := s || x; RETURN s; END$$;
		CREATE FUNCTION collected(s anycompatiblearray, x anycompatible) RETURNS anycompatiblearray LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN s || s[1]; END$$;
		CREATE AGGREGATE collect_all(anycompatible) (sfunc = collect, stype = anycompatiblearray, finalfunc = collected, finalfunc_extra, initcond = '{}');
		CREATE AGGREGATE append_all(anycompatible) (sfunc = array_append, stype = anycompatiblearray, finalfunc = collected, finalfunc_extra, finalfunc_modify = shareable);
		CREATE FUNCTION set_counts(s int[], x int) RETURNS int[] LANGUAGE plpgsql IMMUTABLE AS $$BEGIN s[x % 5] := coalesce(s[x % 5], 0) + 1; RETURN s; END$$;
		CREATE AGGREGATE histogram(int) (sfunc = set_counts, stype = int[]);

		-- final functions that are declared to spoil the state, beside ones on the same state that don't
		CREATE FUNCTION half(int8) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 / 2.0';
		CREATE AGGREGATE squares_half(int4) (sfunc = add_square, stype = int8, initcond = '5', finalfunc = half);
		CREATE AGGREGATE squares_spoilt(int4) (sfunc = add_square, stype = int8, initcond = '5', finalfunc = half, finalfunc_modify = read_write);
		CREATE AGGREGATE squares_shared(int4) (sfunc = add_square, stype = int8, initcond = '5', finalfunc = half, finalfunc_modify = shareable);

		-- internal states of built-in functions: with serialisation, and without
		CREATE AGGREGATE my_avg(numeric) (sfunc = numeric_avg_accum, stype = internal, sspace = 128, finalfunc = numeric_avg,
			combinefunc = numeric_avg_combine, serialfunc = numeric_avg_serialize, deserialfunc = numeric_avg_deserialize,
			msfunc = numeric_avg_accum, minvfunc = numeric_accum_inv, mstype = internal, mfinalfunc = numeric_avg, parallel = safe);
		CREATE AGGREGATE my_array(anynonarray) (sfunc = array_agg_transfn, stype = internal, finalfunc = array_agg_finalfn, finalfunc_extra);
		CREATE AGGREGATE my_median(float8 ORDER BY anyelement) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra);
		CREATE AGGREGATE my_rank(VARIADIC "any" ORDER BY VARIADIC "any") (sfunc = ordered_set_transition_multi, stype = internal, finalfunc = rank_final, finalfunc_extra, hypothetical);

		-- combine function, VARIADIC, no argument, moving
		CREATE AGGREGATE my_sum(int8) (sfunc = strict_add, stype = int8, combinefunc = strict_add, parallel = safe, initcond = '0',
			msfunc = int8pl, minvfunc = int8mi, mstype = int8, minitcond = '0');
		CREATE FUNCTION add_many(numeric, VARIADIC numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 + (SELECT coalesce(sum(x), 0) FROM unnest($2) x)';
		CREATE AGGREGATE sum_many(VARIADIC numeric[]) (sfunc = add_many, stype = numeric, initcond = '0');
		CREATE FUNCTION inc(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
		CREATE AGGREGATE howmany(*) (sfunc = inc, stype = int, initcond = '0');

		-- states of many types: fixed length by reference, enum, domain-like, range, jsonb, bool, name
		CREATE FUNCTION add_point(point, point) RETURNS point LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
		CREATE AGGREGATE sum_point(point) (sfunc = add_point, stype = point, initcond = '(0,0)');
		CREATE FUNCTION merge(jsonb, jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$SELECT coalesce($1, '{}') || jsonb_build_object(coalesce($2 ->> 'k', '-'), $2)$$;
		CREATE AGGREGATE merge_all(jsonb) (sfunc = merge, stype = jsonb);
		CREATE FUNCTION longest(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN length($2) > coalesce(length($1), 0) THEN $2 ELSE $1 END';
		CREATE AGGREGATE longest_text(text) (sfunc = longest, stype = text);
		CREATE FUNCTION flip(bool, bool) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 <> coalesce($2, true)';
		CREATE AGGREGATE parity(bool) (sfunc = flip, stype = bool, initcond = 'f');
		CREATE FUNCTION note_type(text, anyelement) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT $1 || coalesce(pg_typeof($2)::text || $2::text, '') || ';'$$;
		CREATE AGGREGATE types(anyelement) (sfunc = note_type, stype = text, initcond = '')));
	return;
}

# The sets: name, key, agg, and perhaps having, and fold: compare without case.
sub aggregate_sets
{
	my ($node) = @_;
	my %has = features($node);

	diag "without xml" unless $has{xml};
	return (
		{
			name => 'numbers',
			key => ['k'],
			agg => [
				'count(*)', 'count(i2)', 'count(p)', 'sum(i2)', 'sum(i4)', 'sum(i8)', 'sum(n)', 'sum(f4)', 'sum(f8)', 'sum(iv)', 'sum(m)',
				'avg(i2)', 'avg(i4)', 'avg(i8)', 'avg(n)', 'avg(f4)', 'avg(f8)', 'avg(iv)',
				'sum(i4) + avg(i4)', 'round(avg(n) * 2, 3)', 'coalesce(max(f8), 0) - coalesce(min(f8), 0)', 'max(i8)::numeric / nullif(count(*) - 1, 0)'
			],
		},
		{
			name => 'extremes',
			key => ['k % 2', 'b'],
			agg => [
				map { ("min($_)", "max($_)") }
				  qw(i2 i4 i8 n f4 f8 iv m t v c d tm ts e dom a4 at ip lsn long a4[1])
			],
		},
		{
			name => 'statistics',
			key => [],
			agg => [
				(map { my $f = $_; map { "$f($_)" } qw(i2 i4 i8 n f4 f8) } qw(stddev stddev_pop stddev_samp variance var_pop var_samp)),
				(map { "$_(f8, f4)" } qw(corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy))
			],
		},
		{
			name => 'bits',
			key => ['t'],
			agg => [
				'bool_and(b)', 'bool_or(b)', 'every(i4 > 0)', 'bit_and(i2)', 'bit_or(i4)', 'bit_xor(i8)', 'bit_and(bits)', 'bit_or(bits)', 'bit_xor(bits)',
				'bool_and(b) FILTER (WHERE i % 2 = 0)', 'bool_or(b IS NULL)'
			],
		},
		{
			name => 'lists',
			key => ['k'],
			agg => [
				'string_agg(t, \',\')', 'string_agg(by, \'\\x00\'::bytea)', 'array_agg(i4)', 'array_agg(t)', 'array_agg(a4) FILTER (WHERE a4 IS NOT NULL)',
				'array_agg(at)', 'array_agg(p)', 'array_agg(e)', 'array_agg(r)', 'array_agg(f8)', 'json_agg(jb)', 'jsonb_agg(jb)', 'jsonb_agg(a4)', 'json_agg(p)',
				'json_object_agg(i, t)', 'jsonb_object_agg(i, n)', 'jsonb_agg(ROW(i, t))', 'json_agg(src)', 'count(src)', 'array_agg(src.p)',
				'string_agg(t, v)', 'array_agg(dom)', 'array_agg(domarr)', 'string_agg(long, \'\')', 'length(string_agg(long, \'/\'))', 'array_agg(nm)',
				($has{xml} ? ('xmlagg(xmlelement(name v, t))') : ())
			],
		},
		{
			name => 'ordered',
			key => ['k'],
			agg => [
				'array_agg(i4 ORDER BY i4 DESC NULLS LAST)', 'array_agg(i ORDER BY t COLLATE "C" DESC, i)', 'string_agg(t, \',\' ORDER BY i % 3, i)',
				'string_agg(DISTINCT t, \',\')', 'array_agg(DISTINCT i4)', 'array_agg(DISTINCT at ORDER BY at DESC)', 'count(DISTINCT i2)',
				'count(DISTINCT p)', 'count(DISTINCT (i % 3, t))', 'count(DISTINCT jb)', 'sum(DISTINCT i8)', 'avg(DISTINCT i4)', 'sum(DISTINCT i4) FILTER (WHERE b)',
				'string_agg(DISTINCT t, \';\' ORDER BY t DESC) FILTER (WHERE i % 2 = 0)', 'jsonb_agg(jb ORDER BY i DESC)', 'json_agg(i ORDER BY n, i)',
				'jsonb_object_agg(i, t ORDER BY i)', 'array_agg(a4 ORDER BY i) FILTER (WHERE a4 IS NOT NULL)', 'array_agg(p ORDER BY p, i)',
				'array_agg(i ORDER BY e DESC, iv, i)', 'count(DISTINCT v)', 'regr_count(DISTINCT i4, i2)', 'array_agg(DISTINCT e)', 'sum(i ORDER BY i)',
				'string_agg(long, \'\' ORDER BY i)', 'count(*) FILTER (WHERE k IS NULL)', 'array_agg(DISTINCT i2 ORDER BY i2 NULLS FIRST)',
				($has{xml} ? ('xmlagg(xmlelement(name v, i) ORDER BY i DESC)') : ())
			],
		},
		{
			name => 'sorted_sets',
			key => ['b'],
			agg => [
				'percentile_cont(0.5) WITHIN GROUP (ORDER BY f8)', 'percentile_cont(0.25) WITHIN GROUP (ORDER BY iv)', 'percentile_cont(ARRAY[0.1, NULL, 0.9]) WITHIN GROUP (ORDER BY f8 DESC)',
				'percentile_cont(ARRAY[0.5]) WITHIN GROUP (ORDER BY iv)', 'percentile_disc(0.5) WITHIN GROUP (ORDER BY t)', 'percentile_disc(ARRAY[[0, 0.5], [0.75, 1]]) WITHIN GROUP (ORDER BY n)',
				'percentile_disc(0.1) WITHIN GROUP (ORDER BY e DESC)', 'mode() WITHIN GROUP (ORDER BY i4)', 'mode() WITHIN GROUP (ORDER BY t DESC)', 'mode() WITHIN GROUP (ORDER BY p)',
				'rank(300000) WITHIN GROUP (ORDER BY i4)', 'rank(\'b\'::text, 5) WITHIN GROUP (ORDER BY t DESC, i)', 'dense_rank(300000) WITHIN GROUP (ORDER BY i4 NULLS FIRST)',
				'percent_rank(2.0) WITHIN GROUP (ORDER BY n)', 'cume_dist(\'ok\'::mood) WITHIN GROUP (ORDER BY e)', 'cume_dist(1, 2) WITHIN GROUP (ORDER BY i % 3, i % 5)',
				'percentile_cont(CASE WHEN b THEN 0.1 ELSE 0.9 END) WITHIN GROUP (ORDER BY f8)', 'rank(b::int) WITHIN GROUP (ORDER BY i % 3)',
				'percentile_disc(0.5) WITHIN GROUP (ORDER BY i) FILTER (WHERE i % 2 = 1)', 'my_median(0.3) WITHIN GROUP (ORDER BY d)', 'my_rank(1, \'b\'::text) WITHIN GROUP (ORDER BY i % 3, t)'
			],
		},
		{
			name => 'ranges',
			key => ['k'],
			agg => [ 'range_agg(r)', 'range_intersect_agg(r)', 'range_agg(mr)', 'range_intersect_agg(mr)', 'range_agg(int8range(i8, NULL))',
				'range_agg(r) FILTER (WHERE i % 3 = 0)', 'array_agg(mr)' ],
		},
		{
			name => 'own',
			key => ['k'],
			agg => [
				'squares(i % 9)', 'squares_bare(i % 9)', 'squares(nullif(i % 3, 0))', 'first(t)', 'last(t)', 'first(i8)', 'last(p)', 'first(a4)', 'last(long)', 'strict_sum(i8)',
				'sum_until_7(i4)', 'sum_since_7(i4)', 'text_since(t)', 'accumulate(i4, t)', 'accumulate_raw(n, v::text)', 'ints(i4)', 'collect_all(i4)', 'collect_all(t)',
				'append_all(i)', 'append_all(t)', 'histogram(i)', 'squares_half(i % 9)', 'squares_spoilt(i % 9)', 'squares_shared(i % 9)', 'my_avg(n)', 'my_array(t)', 'my_array(i8)',
				'my_sum(i)', 'sum_many(i, i2, 1)', 'sum_many(VARIADIC a4::numeric[])', 'howmany(*)', 'sum_point(pt)', 'merge_all(jb)', 'longest_text(long)',
				'parity(b)', 'types(i2)', 'types(at)', 'types(e)', 'types(ROW(i, t)::pair)', 'first(e)', 'last(r)', 'first(dom)', 'last(iv)'
			],
		},
		{
			name => 'own_ordered',
			key => ['b'],
			agg => [
				'squares(DISTINCT i % 9)', 'first(t ORDER BY i DESC)', 'last(i ORDER BY t, i)', 'accumulate(i4, t ORDER BY i DESC) FILTER (WHERE i % 2 = 0)', 'ints(i ORDER BY i DESC)',
				'collect_all(DISTINCT i4)', 'my_array(i ORDER BY -i)', 'sum_many(DISTINCT i2, i4)', 'my_avg(DISTINCT i8)', 'histogram(i ORDER BY i)', 'squares_spoilt(DISTINCT i % 9)'
			],
		},
		{
			# one state, several final functions
			name => 'shared',
			key => ['k'],
			agg => [
				'sum(n)', 'avg(n)', 'variance(n)', 'stddev(n)', 'var_pop(n)', 'sum(n) + 1', 'sum(n)', 'avg(f8)', 'stddev(f8)', 'regr_sxx(f8, f8)', 'regr_syy(f8, f8)',
				'squares(i)', 'squares_half(i)', 'squares_shared(i)', 'squares_spoilt(i)', 'array_agg(t)', 'my_array(t)'
			],
		},
		{
			name => 'shared_ordered',
			key => ['k'],
			agg => [
				'percentile_disc(0.5) WITHIN GROUP (ORDER BY i)', 'percentile_disc(0.9) WITHIN GROUP (ORDER BY i)', 'mode() WITHIN GROUP (ORDER BY i)',
				'rank(50) WITHIN GROUP (ORDER BY i)', 'cume_dist(50) WITHIN GROUP (ORDER BY i)', 'sum(DISTINCT i4)', 'avg(DISTINCT i4)', 'count(DISTINCT i4)',
				'array_agg(t ORDER BY i)', 'my_array(t ORDER BY i)', 'array_agg(t ORDER BY i DESC)'
			],
		},
		{
			name => 'having_only',
			key => ['t'],
			agg => ['count(*)'],
			having => 'sum(i) % 3 > 0 AND max(n) > 0 AND array_length(array_agg(DISTINCT i4), 1) > 2 AND bool_or(b)',
		},
		(
			map {
				{
					name => "key_$_->[0]",
					key => [ @$_[ 1 .. $#$_ ] ],
					# PostgreSQL sorts by types that it can't hash: no order to rely on
					agg => [ 'count(*)', 'sum(i)', $_->[0] =~ /money|bits/ ? 'max(i4)' : 'array_agg(i4)' ],
					having => 'count(*) > 1',
				}
			} (
				[ 'null', 'nullif(k, 1)', 'NULL::int', 't' ],
				[ 'numeric', 'n' ],
				[ 'float', 'f8', 'f4' ],
				[ 'interval', 'iv' ],
				[ 'array', 'a4', 'at' ],
				[ 'composite', 'p' ],
				[ 'jsonb', 'jb' ],
				[ 'domain', 'dom', 'domarr' ],
				[ 'enum', 'e' ],
				[ 'range', 'r', 'mr' ],
				[ 'money', 'm' ],
				[ 'bits', 'bits', 'vb' ],
				[ 'strings', 'v', 'c', 'nm' ],
				[ 'small', 'b', 'ch', 'i2', 'd' ],
				[ 'other', 'u', 'ip', 'by', 'lsn' ],
				[ 'times', 'tm', 'date_trunc(\'hour\', ts)', 'ts::date' ],
				[ 'odd', 'ROW(i % 5)::odd' ],
				[ 'odd_inside', 'ARRAY[ROW(i % 5)::odd]', 'ROW(ROW(i % 3)::odd, i % 2)::holds_odd' ],
				[ 'expression', 'i % 3 + length(t)', 'w.window_end - interval \'1 s\'' ])),
		(
			$has{icu}
			? {
				# the plain query may choose another spelling of a key
				name => 'collated',
				fold => 1,
				key => ['v COLLATE caseless'],
				agg => [
					'count(*)', 'count(DISTINCT v COLLATE caseless)', 'min(v COLLATE caseless)', 'array_agg(i ORDER BY v COLLATE caseless, i)',
					'array_agg(DISTINCT t COLLATE "C")', 'mode() WITHIN GROUP (ORDER BY v COLLATE caseless DESC)', 'rank(\'AB\'::text) WITHIN GROUP (ORDER BY v COLLATE caseless)'
				],
				  }
			: ()),
		($has{version} >= 160000 ? { name => 'new_16', key => ['k'], agg => [ 'any_value(i)', 'json_arrayagg(i)', 'json_objectagg(i : t)' ] } : ()),
		($has{version} >= 170000 ? { name => 'new_17', key => ['k'], agg => [ 'min(ip)', 'max(ip)' ] } : ()),
		($has{version} >= 180000 ? { name => 'new_18', key => ['k'], agg => [ 'min(by)', 'max(by)' ] } : ()),
	);
}

# A set's SELECT; "window" is the call in FROM, '' for none.
sub aggregate_definition
{
	my ($set, $window, @columns) = @_;
	my ($k, $a) = (0, 0);

	return 'SELECT '
	  . join(', ',
		@columns,
		(map { "$_ AS k" . $k++ } @{ $set->{key} }),
		(map { "$_ AS a" . $a++ } @{ $set->{agg} }))
	  . ' FROM src'
	  . ($window ? ", stream_ckpt.$window w" : '')
	  . ' WHERE i % 13 <> 12'
	  . (@columns || @{ $set->{key} } ? ' GROUP BY ' . join(', ', @columns, @{ $set->{key} }) : '')
	  . ($set->{having} ? " HAVING $set->{having}" : '');
}

1;
