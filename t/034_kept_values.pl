# Kept rows (late_rows, dead_letter) are the row: the manual's recipe makes of row_text exactly what
# was inserted, for every built-in type and whatever settings the query has; columns' names
# and types are those of the row's own transaction.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

#
# Values for every base type that takes input: the test fails where one has none.
#
my $text = [ '', ' ', "a\tb\nc\rd\be\ff\x0bg", 'back\\slash \\N \\.', q('quoted' "double" {a,b} (c,d)), 'NULL', "\\.", "\xc3\xa9\xe2\x82\xac" ];
my %values = (
	bool => [ 't', 'f' ],
	bytea => [ '', '\\x00ff5c0a', '\\x5c4e' ],
	char => [ 'a', '', '\\' ],
	name => [ 'a', "with 'space\\" ],
	int8 => [ '-9223372036854775808', '9223372036854775807' ],
	int2 => [ '-32768', '32767' ],
	int2vector => [ '', '1 2 3' ],
	int4 => [ '-2147483648', '2147483647' ],
	regproc => [ 'now', '0', 'public.mine' ],
	text => $text,
	oid => [ '0', '4294967295' ],
	oid8 => [ '0', '18446744073709551615' ],
	tid => [ '(0,1)', '(4294967295,65535)' ],
	xid => [ '0', '4294967295' ],
	cid => [ '0', '4294967295' ],
	oidvector => [ '', '1 2 3' ],
	json => [ '{"b":1, "a" : [1,2 , null],"b":2}', '"\\u0000 \\t"', ' 1.0e5 ', "{\n}" ],
	xml => [ '<a b="c">d &amp; e</a>', 'content <b/> here', "<x>\n\t</x>" ],
	xid8 => [ '0', '18446744073709551615' ],
	point => [ '(0.1,0.30000000000000004)', '(Infinity,NaN)', '(-0,1e-300)' ],
	lseg => [ '[(0.1,0.2),(0.30000000000000004,4)]' ],
	path => [ '[(0.1,0.2),(3,4)]', '((0.1,0.2),(3,4))' ],
	box => [ '(3,4),(0.1,0.30000000000000004)' ],
	polygon => [ '((0.1,0.2),(3,4),(5,6))' ],
	line => [ '{0.1,0.2,0.30000000000000004}' ],
	float4 => [ '0.1', '3.4028235e+38', 'NaN', '-Infinity', 'Infinity', '-0', '1e-45', '16777217' ],
	float8 => [ '0.30000000000000004', '1.7976931348623157e+308', 'NaN', '-Infinity', 'Infinity', '-0', '5e-324' ],
	circle => [ '<(0.1,0.2),0.30000000000000004>' ],
	money => [ '-92233720368547758.08', '1234.56', '0' ],
	macaddr => [ '08:00:2b:01:02:03' ],
	inet => [ '10.1.2.3', '10.1.2.3/8', '::ffff:1.2.3.4', '2001:db8::/32' ],
	cidr => [ '10.0.0.0/8', '2001:db8::/32' ],
	macaddr8 => [ '08:00:2b:01:02:03:04:05' ],
	aclitem => [ '=r/pg_monitor', '"o ""d"=arw*/pg_monitor' ],
	bpchar => [ 'a  ', '' ],
	varchar => [ 'a  ', "a\tb" ],
	date => [ '2024-02-29', '4713-01-01 BC', 'infinity', '-infinity', '5874897-12-31', '2024-03-04' ],
	time => [ '00:00:00', '24:00:00', '23:59:59.999999' ],
	timestamp => [ '2024-03-04 05:06:07.891011', '4713-01-01 00:00:00 BC', 'infinity', '-infinity', '294276-12-31 23:59:59.999999' ],
	timestamptz => [ '2024-03-04 05:06:07.891011+13:45', '4713-01-01 00:00:00+00 BC', 'infinity', '-infinity', '1850-01-01 00:00:01+00', '2024-11-03 05:30:00+00', '2024-11-03 06:30:00+00' ],
	interval => [ '-1 years -2 mons +3 days -04:05:06.789', '178000000 years', '-1 days', '00:00:00', '1 mon -1 days', '-00:00:00.000001', '1 day 00:00:01' ],
	timetz => [ '00:00:00+15:59:59', '24:00:00-12', '23:59:59.999999+05:30' ],
	bit => [ '1' ],
	varbit => [ '', '10110' ],
	numeric => [ '0.1', '1.000', 'NaN', 'Infinity', '-Infinity', '-0.00000000000000000000000000000000000001', '9' x 1000 . '.5', '1e500' ],
	refcursor => [ 'c', '' ],
	regprocedure => [ 'lower(text)', 'public.mine(integer)', '0' ],
	regoper => [ '|/', 'public.===>', '0' ],
	regoperator => [ '+(integer,integer)', '0' ],
	regclass => [ 'pg_class', 'public."Odd name"', '0' ],
	regcollation => [ '"C"', '0' ],
	regtype => [ 'integer', 'timestamp with time zone', 'public.pair', '0' ],
	regrole => [ 'pg_monitor', '"o ""d"', '0' ],
	regnamespace => [ 'pg_catalog', 'public', '0' ],
	regdatabase => [ 'postgres', '0' ],
	uuid => [ 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' ],
	pg_lsn => [ '0/0', 'FFFFFFFF/FFFFFFFF' ],
	tsvector => [ '', q('a b':1A,2 'c''d' 'e\\\\f':3) ],
	tsquery => [ '', q('a' & !( 'b' <2> 'c':*AB )) ],
	regconfig => [ 'english', 'simple' ],
	regdictionary => [ 'simple' ],
	jsonb => [ '{"b":1, "a" : [1.10,2 , null]}', '"\\t"', '0.30000000000000004' ],
	jsonpath => [ '$.a[*] ? (@ > 1)', 'strict $."b c"' ],
	txid_snapshot => [ '10:20:10,14,15' ],
	pg_snapshot => [ '10:20:10,14,15' ],
	int4range => [ 'empty', '[1,5)', '(,)', '[3,)' ],
	numrange => [ 'empty', '(0.10,5.0]', '[NaN,NaN]' ],
	tsrange => [ 'empty', '["2024-03-04 05:06:07",infinity]', '(,"4713-01-01 00:00:00 BC")' ],
	tstzrange => [ 'empty', '["2024-03-04 05:06:07+00",infinity)' ],
	daterange => [ 'empty', '[2024-03-04,2024-04-03)', '[-infinity,)' ],
	int8range => [ 'empty', '[1,5)' ],
	int4multirange => [ '{}', '{[1,5),[7,9)}' ],
	nummultirange => [ '{}', '{(0.10,5.0],[7,8]}' ],
	tsmultirange => [ '{}', '{["2024-03-04 05:06:07",infinity]}' ],
	tstzmultirange => [ '{}', '{["2024-03-04 05:06:07+00",infinity)}' ],
	datemultirange => [ '{}', '{[2024-03-04,2024-04-03)}' ],
	int8multirange => [ '{}', '{[1,5),[7,9)}' ],
	# what users make of them
	pair => [ '(1,"b ""c"" \\\\ ,")', '(,)', '(,"")' ],
	nested => [ q|("(1,""b c"")",2024-03-04,{0.30000000000000004}"|=~ s/"$//r . ')' ],
	mood => [ 'so so', "it's" ],
	small => [ '0.30000000000000004', '-0' ],
	day_text => [ 'x', '' ],
	float8range_ => [ 'empty', '[0.30000000000000004,Infinity]' ],
);
# written by the server alone, or in no table
my %no_input = map { $_ => 1 } qw(pg_node_tree pg_ndistinct pg_dependencies pg_mcv_list pg_brin_bloom_summary
  pg_brin_minmax_multi_summary gtsvector);
# not every server is built with libxml
$no_input{xml} = 1 if ($node->psql('postgres', q(SELECT '<a/>'::xml)))[0] != 0;

sub quote { return "'" . ($_[0] =~ s/'/''/gr) . "'"; }

sql(q(SET client_encoding = 'UTF8'), q(CREATE ROLE "o ""d"), q(CREATE TABLE "Odd name" ()),
	q(CREATE TYPE pair AS (a int, b text)), q(CREATE TYPE nested AS (p pair, d date, f float8[])),
	q(CREATE TYPE mood AS ENUM ('so so', 'it''s')), q(CREATE DOMAIN small AS float8 CHECK (value < 10)),
	q(CREATE DOMAIN day_text AS text), q(CREATE TYPE float8range_ AS RANGE (subtype = float8)),
	q(CREATE FUNCTION mine(int) RETURNS int LANGUAGE sql AS 'SELECT 1'),
	q(CREATE OPERATOR ===> (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)));
# "char" differs from char
my @types = split /\n/, sql(q(SELECT typname || '|' || format_type(oid, NULL) || '|' || CASE WHEN typarray <> 0 THEN format_type(typarray, NULL) ELSE '' END
	FROM pg_type t WHERE typtype IN ('b', 'r', 'm') AND typnamespace = 'pg_catalog'::regnamespace AND typcategory <> 'A'
		AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid AND e.typtype = 'p') ORDER BY oid),
	q(SELECT typname || '|' || typname || '|' || typname || '[]' FROM pg_type WHERE typname IN ('pair', 'nested', 'mood', 'small', 'day_text', 'float8range_') ORDER BY oid));
my (@columns, @literals, @missing);
foreach (@types)
{
	my ($name, $type, $array) = split /\|/;
	next if $no_input{$name};
	push(@missing, $name), next if !$values{$name};
	push @columns, "\"c_$name\" $type";
	push @literals, [ map { quote($_) . "::$type" } @{ $values{$name} } ];
	next if $array eq '';
	push @columns, "\"a_$name\" $array";
	push @literals, [ 'ARRAY[NULL,' . join(',', @{ $literals[-1] }) . "]::$array", "'{}'", "'[-1:-1][2:2]={{NULL}}'" ];
}
is("@missing", '', 'there are values for each type');
cmp_ok(scalar(@columns), '>', 140, 'of which there are many');
my ($rows) = sort { $b <=> $a } map { scalar @$_ } @literals;

# With settings that write as little as possible of a value, or write it otherwise.
sql('CREATE TABLE t (ts timestamptz, id int, ' . join(', ', @columns, q("V(5)" varchar(5), "B(3)" bit(3), "N" numeric(10,3), "I" interval day)) . ')');
attach($node, 't');
my $settings = q(SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET extra_float_digits = -10; SET bytea_output = 'escape';
	SET timezone = 'America/New_York'; SET quote_all_identifiers = on; SET xmlbinary = 'hex');
sql($settings, q(SELECT stream_ckpt.create_query('late', $q$ SELECT w.window_start, count(*) AS n
		FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start $q$, keep_late_rows => true, backfill => false)),
	q(SELECT stream_ckpt.create_query('dead', $q$ SELECT w.window_start, sum(1 / (id - id)) AS n
		FROM t, stream_ckpt.tumble(ts, '1 minute') w WHERE id > 0 GROUP BY w.window_start $q$, on_error => 'dead_letter', allowed_lateness => '10 days', backfill => false)));
wait_running($node);
sql(q(INSERT INTO t (ts, id) VALUES ('2024-01-02 00:00 UTC', 0)));
for my $i (0 .. $rows - 1)
{
	sql("INSERT INTO t VALUES ('2024-01-01 00:00 UTC', " . ($i + 1) . ', ' . join(', ', map { $_->[ $i % @$_ ] } @literals)
		  . ", 'a b', B'101', 1.5, '3 days')");
}
sql('INSERT INTO t VALUES (' . quote('2024-01-01 00:00 UTC') . ', ' . ($rows + 1) . ')');
sync_pipelines($node);
is(sql(q(SELECT string_agg(status, ' ') FROM stream_ckpt.queries)), 'running running', 'both queries are well');

# The manual's recipe: for each set of columns, psql writes row_text and COPY reads it.
sub restore
{
	my ($from, $to) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$to";
	my @all;

	foreach my $types (split /\n/, sql("SELECT DISTINCT types::text FROM $from"))
	{
		my $quoted = quote($types);
		my $columns = sql("SELECT string_agg(quote_ident(types[i][1]), ', ' ORDER BY i) FROM (SELECT ${quoted}::text[] AS types) t, generate_subscripts(types, 1) i");
		$node->command_ok([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-o', $file,
				'-c', "SELECT row_text FROM $from AND types = $quoted ORDER BY lsn, ordinal" ], "$to: written");
		$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
				'-c', "\\copy $to ($columns) FROM '$file'" ], "$to: read again");
		push @all, $columns;
	}
	return @all;
}

my %tables = (late_again => q(stream_ckpt.late_rows WHERE query = 'late'::regclass),
	dead_again => q(stream_ckpt.dead_letter WHERE query = 'dead'::regclass));
foreach my $table (sort keys %tables)
{
	sql("CREATE TABLE $table (LIKE t)");
	restore($tables{$table}, $table);
	is(sql("SELECT count(*) FROM $table"), $rows + 1, "$table: all rows");
	foreach my $column (split /\n/, sql(qq(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0)))
	{
		my $differ = sql(qq(SELECT count(*) FROM t JOIN $table a USING (id)
			WHERE NOT record_image_eq(row(t.$column), row(a.$column)) OR pg_typeof(t.$column) <> pg_typeof(a.$column)));

		is($differ, '0', "$table: $column comes back");
	}
}
is(sql(q(SELECT types[array_length(types, 1) - 3:] FROM stream_ckpt.late_rows LIMIT 1)),
	'{{V(5),"character varying(5)"},{B(3),bit(3)},{N,"numeric(10,3)"},{I,"interval day"}}', 'types have their modifiers');

# For reading, the same.
is(sql(q(SELECT row->>'c_float8' || ' ' || (row->>'c_date') || ' ' || (row->>'c_interval') || ' ' || (row->>'c_small') || ' ' || (row->>'c_nested')
		FROM stream_ckpt.late_rows WHERE row->>'id' = '1')),
	q(0.30000000000000004 2024-02-29 -1 years -2 mons +3 days -04:05:06.789 0.30000000000000004 ("(1,""b c"")",2024-03-04,{0.30000000000000004})),
	'in jsonb no setting of the query rewrites a value');

#
# Columns are those of the row's transaction.
#
sql(q(CREATE TABLE u (gone int, ts timestamptz, id int, a text, b numeric)), q(ALTER TABLE u DROP COLUMN gone));
attach($node, 'u');
sql(q(SELECT stream_ckpt.create_query('late_u', $q$ SELECT w.window_start, count(*) AS n
		FROM u, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start $q$, keep_late_rows => true, backfill => false)),
	q(SELECT stream_ckpt.create_query('dead_u', $q$ SELECT w.window_start, sum(1 / (id - id)) AS n
		FROM u, stream_ckpt.tumble(ts, '1 minute') w WHERE id > 0 GROUP BY w.window_start $q$, on_error => 'dead_letter', allowed_lateness => '10 days', backfill => false)));
sql(q(INSERT INTO u VALUES ('2024-01-02 00:00 UTC', 0)));
sync_pipelines($node);

sub kept
{
	my ($id) = @_;
	my $what = q(types::text || ' ' || replace(row_text, E'\t', '|') || ' ' || (row - 'ts')::text);

	is(sql(qq(SELECT $what FROM stream_ckpt.late_rows WHERE query = 'late_u'::regclass AND row->>'id' = '$id')), $_[1], "$_[2]: a late row");
	is(sql(qq(SELECT $what FROM stream_ckpt.dead_letter WHERE query = 'dead_u'::regclass AND row->>'id' = '$id')), $_[1], "$_[2]: a letter");
	return;
}

# The transaction is read before others see it: its commit waits for a standby that never comes.
sql(q(SET synchronous_commit = local), q(ALTER SYSTEM SET synchronous_standby_names = 'nobody'), 'SELECT pg_reload_conf()');
my $script = PostgreSQL::Test::Utils::tempdir() . '/own.sql';
PostgreSQL::Test::Utils::append_to_file($script, q(BEGIN; CREATE TYPE hue AS ENUM ('red', 'b l u e');
	ALTER TABLE u ADD COLUMN c int DEFAULT 7, ADD COLUMN h hue DEFAULT 'b l u e';
	INSERT INTO u VALUES ('2024-01-01 00:00 UTC', 1, 'x', 1.50);
	ALTER TABLE u ADD COLUMN d int DEFAULT 8;
	INSERT INTO u VALUES ('2024-01-01 00:00 UTC', 2, 'y', 2.50);
	ALTER TABLE u RENAME COLUMN a TO z;
	INSERT INTO u VALUES ('2024-01-01 00:00 UTC', 3, 'z', 3.50); COMMIT;));
my $end = sql('SELECT pg_current_wal_insert_lsn()');
my $out = '';
my $writer = IPC::Run::start([ $node->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $script ], '>', \$out, '2>', \$out);
wait_until($node, "SELECT decoded_lsn > '$end' FROM stream_ckpt.pipelines", 'the transaction is read');
sql(q(SET synchronous_commit = local), 'ALTER SYSTEM RESET synchronous_standby_names', 'SELECT pg_reload_conf()');
ok($writer->finish, 'the transaction is over');
sync_pipelines($node);
my $first = '{{ts,"timestamp with time zone"},{id,integer}';
my $ts = sql(q(SELECT timestamptz '2024-01-01 00:00 UTC'));
kept(1, qq($first,{a,text},{b,numeric},{c,integer},{h,public.hue}} $ts|1|x|1.50|7|b l u e {"a": "x", "b": 1.50, "c": 7, "h": "b l u e", "id": 1}),
	'columns and types that its own transaction made');
kept(2, qq($first,{a,text},{b,numeric},{c,integer},{h,public.hue},{d,integer}} $ts|2|y|2.50|7|b l u e|8 {"a": "y", "b": 2.50, "c": 7, "d": 8, "h": "b l u e", "id": 2}),
	'one more');
kept(3, qq($first,{z,text},{b,numeric},{c,integer},{h,public.hue},{d,integer}} $ts|3|z|3.50|7|b l u e|8 {"b": 3.50, "c": 7, "d": 8, "h": "b l u e", "z": "z", "id": 3}),
	'renamed in between');

# What was changed since, before anybody read the row.
sql(q(SELECT stream_ckpt.stop_pipeline('default')));
sql(q(INSERT INTO u VALUES ('2024-01-01 00:00 UTC', 4, 'k', 4.50)));
sql('ALTER TABLE u ALTER COLUMN b TYPE text', 'ALTER TABLE u RENAME COLUMN z TO y', 'ALTER TABLE u DROP COLUMN d');
sql(q(SELECT stream_ckpt.start_pipeline('default')));
wait_running($node);
sync_pipelines($node);
kept(4, qq($first,{z,text},{b,numeric},{c,integer},{h,public.hue},{d,integer}} $ts|4|k|4.50|7|b l u e|8 {"b": 4.50, "c": 7, "d": 8, "h": "b l u e", "z": "k", "id": 4}),
	'columns that were changed, renamed and dropped since');

# A value that can't be written any more doesn't lose the row.
sql(q(SELECT stream_ckpt.stop_pipeline('default')));
sql(q(INSERT INTO u VALUES ('2024-01-01 00:00 UTC', 5, 'k', '5.50')));
sql('DROP TYPE hue CASCADE');
sql(q(SELECT stream_ckpt.start_pipeline('default')));
wait_running($node);
sync_pipelines($node);
is(sql(q(SELECT (row_text IS NULL)::text || ' ' || (row->>'y') || ' ' || (row->>'h') || ' ' || types::text FROM stream_ckpt.late_rows WHERE row->>'id' = '5' AND query = 'late_u'::regclass))
	=~ s/\d{4,}/N/r,
	"true k could not be written: cache lookup failed for type N $first,{y,text},{b,text},{c,integer},{h,???}}",
	'a type that is gone: the other values are there');

# Generated columns are for reading: nobody can insert them.  Partitions with other orders of columns.
sql(q(CREATE TABLE g (ts timestamptz, id int GENERATED ALWAYS AS IDENTITY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED) PARTITION BY LIST (v)),
	q(CREATE TABLE g1 (twice int GENERATED ALWAYS AS (v * 2) STORED, v int, x int, id int NOT NULL, ts timestamptz)), 'ALTER TABLE g1 DROP COLUMN x',
	'ALTER TABLE g ATTACH PARTITION g1 FOR VALUES IN (1, 2)', 'CREATE TABLE g2 PARTITION OF g DEFAULT',
	q(CREATE TABLE g_again (LIKE g INCLUDING ALL)));
attach($node, 'g');
sql(q(SELECT stream_ckpt.create_query('late_g', $q$ SELECT w.window_start, count(*) AS n
		FROM g, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start $q$, keep_late_rows => true, backfill => false)));
sql(q(INSERT INTO g (ts, v) VALUES ('2024-01-02 00:00 UTC', 1)));
sql(q(INSERT INTO g (ts, v) VALUES ('2024-01-01 00:00 UTC', 2), ('2024-01-01 00:00 UTC', 3), ('2024-01-01 00:00 UTC', NULL)));
sync_pipelines($node);
is(join(';', restore(q(stream_ckpt.late_rows WHERE query = 'late_g'::regclass), 'g_again')), 'ts, id, v', 'one set of columns for all partitions');
is(sql('SELECT count(*) FROM (SELECT * FROM g_again EXCEPT ALL SELECT * FROM g) x'), '0', 'generated and identity columns come back');
is(sql('SELECT count(*) FROM g_again'), '3', 'all rows');
is(sql(q(SELECT row->>'twice' FROM stream_ckpt.late_rows WHERE query = 'late_g'::regclass AND row->>'v' = '3')), '6', 'they can be read');

# Result rows that their table refuses, and groups, are kept the same way.
create_stream_table($node, 'r');
sql($settings, q(SELECT stream_ckpt.create_query('refusing', $q$ SELECT w.window_start, k, sum(v / 10.0::float8) AS s
		FROM r, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, k $q$, on_error => 'dead_letter', backfill => false)),
	'ALTER TABLE refusing ADD CONSTRAINT no CHECK (k <> 2)');
sql(q(INSERT INTO r SELECT '2024-01-01 00:00 UTC', k, v, 0 FROM generate_series(1, 2) k, generate_series(1, 2) v), q(INSERT INTO r VALUES ('2024-01-02 00:00 UTC', 0, 0, 0)));
sync_pipelines($node);
is(sql(q(SELECT kind || ' ' || types::text || ' ' || replace(row_text, E'\t', '|') FROM stream_ckpt.dead_letter WHERE query = 'refusing'::regclass)),
	'result {{window_start,"timestamp with time zone"},{k,integer},{s,"double precision"}} '
	  . sql(q(SET timezone = 'America/New_York'; SELECT timestamptz '2024-01-01 00:00 UTC')) . '|2|0.30000000000000004', 'a result row that was refused');

$node->stop;
done_testing();
