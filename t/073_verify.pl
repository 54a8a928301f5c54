# verify(): float columns at their ends, renamed columns, raw rows that are gone; and settings of extensions, which are
# kept with a query.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub verified
{
	my ($query, $expected, $test) = @_;
	return is(sql("SELECT stream_ckpt.verify('$query')"), $expected, $test);
}

sub refused
{
	my ($query, $error, $test) = @_;
	my ($ret, $stdout, $stderr) = try_psql($node, "SELECT stream_ckpt.verify('$query')");
	return like($stderr, $error, $test);
}

sql('CREATE TABLE t (ts timestamptz, k int, v float8, r float4, url text) PARTITION BY LIST (k);
	CREATE TABLE t0 PARTITION OF t DEFAULT; CREATE TABLE t9 PARTITION OF t FOR VALUES IN (9)');
attach($node, 't');
my $from = "FROM t, stream_ckpt.tumble(ts, '1 minute') w";
create_query($node, 'q', 't', emit => 'update', select => "SELECT w.window_start, k, sum(v) AS v, max(r) AS r, count(*) AS n $from GROUP BY 1, 2");
create_query($node, 'c', 't', select => "SELECT w.window_start, k, sum(v) AS v, count(*) AS n $from GROUP BY 1, 2");
sql(q(INSERT INTO t SELECT '2024-01-01 00:00 UTC', k, v, v, 'a word' FROM (VALUES (1, 'Infinity'::float8), (2, '-Infinity'), (3, 'NaN'), (7, NULL)) x (k, v);
	INSERT INTO t VALUES ('2024-01-01 00:01 UTC', 4, 1.797693134862e308, 1, 'a ward'), ('2024-01-01 00:01 UTC', 5, 1e-320, 1, 'word'),
	('2024-01-01 00:01 UTC', 6, 0.1, 0.1, 'other'), ('2024-01-01 00:01 UTC', 9, 1, 1, '')));
sync_pipelines($node);
verified($_, 0, "$_: infinities and NaN are equal to themselves") foreach ('q', 'c');

# Each row that is wrong counts on both sides; what rounding explains doesn't count.
my @wrong = (
	[ 'k = 1', 'v', "'-Infinity'", 2 ], [ 'k = 2', 'v', '5', 2 ], [ 'k = 2', 'r', "'Infinity'", 2 ], [ 'k = 1', 'r', "'NaN'", 2 ], [ 'k = 3', 'v', "'Infinity'", 2 ],
	[ 'k = 3', 'v', '0', 2 ], [ 'k = 7', 'v', "'NaN'", 2 ], [ 'k = 4', 'v', '1.7976931348620001e308', 0 ], [ 'k = 4', 'v', '1.79769e308', 2 ],
	[ 'k = 4', 'v', '-1.797693134862e308', 2 ], [ 'k = 5', 'v', '2e-320', 2 ], [ 'k = 5', 'v', '0', 2 ], [ 'k = 6', 'v', '0.10000000000000002', 0 ]);
foreach my $wrong (@wrong)
{
	my ($where, $column, $value, $differences) = @$wrong;

	is(sql("BEGIN; UPDATE q SET $column = $value WHERE $where; SELECT stream_ckpt.verify('q'); ROLLBACK"), $differences, "$column = $value where $where");
}

# Columns that were renamed, of the table and of the view.
sql('ALTER TABLE q RENAME n TO number; ALTER TABLE c RENAME window_start TO "The start"; ALTER VIEW c_definition RENAME n TO m');
verified($_, 0, "$_: with renamed columns") foreach ('q', 'c');
sql("INSERT INTO t VALUES ('2024-01-01 00:02 UTC', 1, 1, 1, '')");
sync_pipelines($node);
verified($_, 0, "$_: and with rows written since") foreach ('q', 'c');

# Settings of the extensions that a definition uses.
SKIP:
{
	skip 'pg_trgm is not installed', 6 unless sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_trgm'");
	sql('CREATE EXTENSION pg_trgm');
	sql("SET pg_trgm.similarity_threshold = 0.8; SET my.variable = 'secret';
		SELECT stream_ckpt.create_query('alike', \$\$ SELECT w.window_start, count(*) FILTER (WHERE url % 'word') AS n, count(*) AS rows $from GROUP BY 1 \$\$,
		emit => 'update', backfill => false)");
	like(sql("SELECT settings::text FROM stream_ckpt.query WHERE relid = 'alike'::regclass"), qr/pg_trgm\.similarity_threshold,0\.8/, 'they are kept');
	unlike(sql("SELECT settings::text FROM stream_ckpt.query WHERE relid = 'alike'::regclass"), qr/secret/, 'others are not');
	unlike(sql("SELECT settings::text FROM stream_ckpt.query WHERE relid = 'q'::regclass"), qr/pg_trgm/, 'nor with a query that has no use for them');
	my $insert = "INSERT INTO t SELECT timestamptz '2024-01-01 00:03 UTC', 1, 1, 1, u FROM (VALUES ('word'), ('a word'), ('wordy'), ('sword')) x (u)";
	sql($insert);
	sync_pipelines($node);
	is(sql("SELECT n, rows FROM alike WHERE window_start = '2024-01-01 00:03 UTC'"), '1|4', 'and in force in the worker');
	my $pid = pid_of($node, 'task');
	sql("SELECT pg_terminate_backend($pid)");
	wait_restarted($node, 'task', $pid);
	sql($insert);
	sync_pipelines($node);
	is(sql("SELECT n, rows FROM alike WHERE window_start = '2024-01-01 00:03 UTC'"), '2|8', 'after a restart, too');
	is(sql("SET pg_trgm.similarity_threshold = 0.1; WITH s AS MATERIALIZED (SELECT stream_ckpt.verify('q')) SELECT current_setting('pg_trgm.similarity_threshold')"),
		'0.1', "the session's own value stays");
}

# Raw rows that are gone.
sql('ALTER TABLE t DETACH PARTITION t9');
refused('q', qr/Rows of stream "t" are gone: it has \d+, and the query has processed \d+/, 'a partition was detached');
sql('ALTER TABLE t ATTACH PARTITION t9 FOR VALUES IN (9)');
verified('q', 0, 'it is back');
sql('DELETE FROM t WHERE k = 6');
sync_pipelines($node);
refused('q', qr/1 deletes from the stream were ignored/, 'a row was deleted');

# The truth of sessions is made of the view's text; there is some that PostgreSQL shows and doesn't read.
sql('CREATE TABLE s (ts timestamptz, k int, v int);
	CREATE FUNCTION add_many(numeric, VARIADIC numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE AS \'SELECT $1 + (SELECT coalesce(sum(x), 0) FROM unnest($2) x)\';
	CREATE AGGREGATE sum_many(VARIADIC numeric[]) (sfunc = add_many, stype = numeric, initcond = \'0\')');
attach($node, 's');
create_query($node, $_->[0], 's', select => "SELECT w.window_start, k, sum_many($_->[1]v, k) AS n FROM s, stream_ckpt.session(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k")
  for [ 'readable', '' ], [ 'unreadable', 'DISTINCT ' ];
sql("INSERT INTO s SELECT timestamptz '2024-01-01 UTC' + i * interval '20 seconds' * (i % 5), i % 2, i % 3 FROM generate_series(1, 40) i");
sync_pipelines($node);
verified('readable', 0, 'a VARIADIC aggregate of sessions');
refused('unreadable', qr/the batch truth of "unreadable" cannot be had.*cannot read the text that it shows of the view: syntax error.*HINT:  Write/s, 'one with DISTINCT, whose text is not readable');
refused('unreadable_definition', qr/cannot be had/, 'the same by its definition');
sql('ALTER TABLE s RENAME k TO key; ALTER TABLE s ADD k text');
verified('readable', 0, 'renamed columns are no matter');

done_testing();
