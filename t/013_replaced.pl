# What a definition is made of changes under it: types of keys, functions that are replaced, the
# stream's row type.  The result is that of the plain query all the same, while the task
# runs on, after it was restarted, and after a crash.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "log_min_messages = debug1\n");

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

#
# Keys whose type changes
#

# "u_" with emit update, "c_" with emit close, "l_" with lateness: windows that are closed and open
sub create_keyed
{
	my ($table, $key, $aggregates) = @_;
	my $select = "SELECT w.window_start, w.window_end, $key AS key, $aggregates
		FROM $table, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, $key";

	create_query($node, "u_$table", $table, emit => 'update', select => $select,
		options => "allowed_lateness => '1 day'");
	create_query($node, "c_$table", $table, select => $select);
	create_query($node, "l_$table", $table, select => $select,
		options => "allowed_lateness => '1 day'");
	return;
}

sub keyed_ok
{
	my ($table, $what) = @_;

	sync_pipelines($node);
	is( join(' ',
			differences($node, "u_$table", emit => 'update'),
			differences($node, "c_$table", table => $table, delay => '10 minutes'),
			differences($node, "l_$table", table => $table, delay => '10 minutes')),
		'0 0 0',
		$what);
	return;
}

my $aggregates = q(count(*) AS n, sum(v) AS sum, max(v) AS greatest, avg(v::numeric) AS mean,
	count(DISTINCT v % 3) AS different, string_agg(v::text, ',' ORDER BY v) AS list,
	sum(v) FILTER (WHERE v > 40) AS some, sum_alone(v) AS alone);

sql(q(
	CREATE FUNCTION add(int8, int) RETURNS int8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 + $2';
	CREATE AGGREGATE sum_alone(int) (sfunc = add, stype = int8, initcond = '0');
	CREATE TYPE pair AS (x int, y int);
	CREATE TABLE pairs (ts timestamptz, key pair, v int);
	CREATE TYPE inner_pair AS (a int);
	CREATE DOMAIN nested AS inner_pair[];
	CREATE TABLE nests (ts timestamptz, key nested, v int)));
attach($node, $_, delay => '10 minutes') for qw(pairs nests);
create_keyed($_, 'key', $aggregates) for qw(pairs nests);
wait_running($node);

# rows of an open window, and of one that is closed but within lateness
sub insert_keyed
{
	my ($table, $key, $from, $to) = @_;

	sql(qq(
		INSERT INTO $table SELECT timestamptz '2024-01-01 00:30 UTC' + i * interval '1 second', $key, i
			FROM generate_series($from, $to) i));
	return;
}

insert_keyed('pairs', 'ROW(i % 3, 1)::pair', 1, 40);
insert_keyed('nests', 'ARRAY[ROW(i % 3)::inner_pair]', 1, 40);
sync_pipelines($node);

sql('ALTER TYPE pair ADD ATTRIBUTE z int; ALTER TYPE inner_pair ADD ATTRIBUTE b text');
insert_keyed('pairs', 'ROW(i % 3, 1, NULL)::pair', 41, 50);
insert_keyed('nests', 'ARRAY[ROW(i % 3, NULL)::inner_pair]', 41, 50);
keyed_ok('pairs', 'an attribute is added to the type of a key');
keyed_ok('nests', 'an attribute is added to a type inside a key');
restart_task();
insert_keyed('pairs', 'ROW(i % 3, 1, NULL)::pair', 51, 59);
insert_keyed('nests', 'ARRAY[ROW(i % 3, NULL)::inner_pair]', 51, 59);
keyed_ok('pairs', 'and loaded again');
keyed_ok('nests', 'and loaded again, inside');

# Groups that were apart until now lose what they differed in.
sql('CREATE TABLE shrunk (ts timestamptz, key pair, v int)');
attach($node, 'shrunk', delay => '10 minutes');
create_keyed('shrunk', 'key', $aggregates);
insert_keyed('shrunk', 'ROW(i % 3, 1, i % 5)::pair', 1, 40);
sql(q(INSERT INTO shrunk VALUES ('2024-01-01 00:45 UTC', ROW(1, 1, 1), 0)));
sync_pipelines($node);
insert_keyed('shrunk', 'ROW(i % 3, 1, i % 5)::pair', 41, 43);	# late, but allowed
sync_pipelines($node);
# one row each in the tables, too: what keyed_ok() compares are the columns' values
sql('ALTER TYPE pair DROP ATTRIBUTE z');
insert_keyed('shrunk', 'ROW(i % 3, 1)::pair', 44, 48);
sync_pipelines($node);
is( sql(q(SELECT (SELECT count(*) FROM u_shrunk WHERE window_start = '2024-01-01 00:30 UTC'),
			(SELECT count(*) FROM l_shrunk WHERE window_start = '2024-01-01 00:30 UTC'),
			(SELECT count(*) FROM ((TABLE u_shrunk EXCEPT TABLE u_shrunk_definition)
				UNION ALL (TABLE u_shrunk_definition EXCEPT TABLE u_shrunk)) d))),
	'3|3|0',
	'an attribute is dropped from the type of a key: one row each is left');
restart_task();
insert_keyed('shrunk', 'ROW(i % 3, 1)::pair', 49, 50);
sync_pipelines($node);
is( sql(q(SELECT (SELECT count(*) FROM u_shrunk WHERE window_start = '2024-01-01 00:30 UTC'),
			(SELECT count(*) FROM ((TABLE u_shrunk EXCEPT TABLE u_shrunk_definition)
				UNION ALL (TABLE u_shrunk_definition EXCEPT TABLE u_shrunk)) d))),
	'3|0',
	'and loaded again, without');

sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries));

#
# Functions that are replaced
#
sql(q(
	CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
	CREATE FUNCTION g(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT f($1)';
	CREATE FUNCTION p(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN f($1); END';
	CREATE FUNCTION s(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT max(f(x)) FROM generate_series($1, $1) x';
	CREATE FUNCTION positive(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT f($1) > 0';
	CREATE DOMAIN small AS int CHECK (VALUE < 1000);
	CREATE TYPE wrapped AS (value int);
	CREATE FUNCTION wrap(int) RETURNS wrapped LANGUAGE sql IMMUTABLE AS 'SELECT ROW(f($1))::wrapped';
	CREATE CAST (int AS wrapped) WITH FUNCTION wrap(int);
	CREATE FUNCTION plus(int, wrapped) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + f($2.value)';
	CREATE OPERATOR @+ (leftarg = int, rightarg = wrapped, function = plus);
	CREATE FUNCTION add_f(int8, int) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 + f($2)';
	CREATE FUNCTION twice(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
	CREATE AGGREGATE sum_f(int) (sfunc = add_f, stype = int8, initcond = '0');
	CREATE AGGREGATE sum_twice(int) (sfunc = int4_sum, stype = int8, finalfunc = twice);
	CREATE FUNCTION shown(int8) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a' || $1 $$));
my $window = q(stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start);
my $columns = q(w.window_start, sum(f(v)) AS f, sum(g(v)) AS g, sum(p(v)) AS p, sum(s(v)) AS s, sum(v * g(1)) AS folded,
	sum(v * p(1)) AS folded_p, sum((v::wrapped).value) AS cast, sum(v @+ ROW(v)::wrapped) AS operator, sum_f(v) AS own,
	sum(v) FILTER (WHERE positive(v)) AS filter, sum_twice(v) AS final, shown(count(*)) AS shown,
	count(DISTINCT f(v)) AS different, sum(v) AS plain);
create_stream_table($node, 'rows');
sql(q(SELECT stream_ckpt.create_stream('log', 'ts timestamptz, k int, v int', event_time => 'ts', watermark_delay => '0')));
for my $stream (qw(rows log))
{
	create_query($node, "of_$stream", $stream, emit => 'update', select => "SELECT $columns FROM $stream, $window");
	create_query($node, "closed_$stream", $stream, select => "SELECT $columns FROM $stream, $window");
}
create_query($node, 'plain', 'rows', emit => 'update');

sub insert_rows
{
	my ($from, $to) = @_;

	sql(qq(INSERT INTO $_ (ts, v) SELECT '2024-01-01 00:00 UTC', i FROM generate_series($from, $to) i)) for qw(rows log);
	return;
}

sub compiled_again
{
	my @lines = PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /compiling query \d+ again/g;

	return scalar @lines;
}

insert_rows(1, 10);
sync_pipelines($node);
# the old bodies: 1..10, then f is negative: -(11..20)
sql(q(
	CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT -$1';
	CREATE OR REPLACE FUNCTION twice(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3';
	CREATE OR REPLACE FUNCTION shown(int8) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'b' || $1 $$));
insert_rows(11, 20);
sync_pipelines($node);
my $expected = '-100|-100|-100|-100|-100|-100|-100|' . (55 + 55) . '|-100|55|630|b20|20|210';
for my $stream (qw(rows log))
{
	is(sql("SELECT * FROM of_$stream") =~ s/^[^|]*\|//r, $expected, "functions are replaced, $stream");
}
restart_task();
sync_pipelines($node);
sql(qq(INSERT INTO $_ (ts, v) VALUES ('2024-01-01 00:02 UTC', 1))) for qw(rows log);
sync_pipelines($node);
is(sql("SELECT * FROM closed_$_ ORDER BY 1 LIMIT 1") =~ s/^[^|]*\|//r, $expected, "and closed after a restart, $_")
  for qw(rows log);

# A function is replaced while a task has compiled a query with it, and loads its state.
sql('ALTER SYSTEM SET stream_ckpt.query_share = 0; ALTER SYSTEM SET stream_ckpt.query_time_limit = 0');
sql('SELECT pg_reload_conf()');
arm($node, 'task_query_compiled', 'wait');
kill 'TERM', pid_of($node, 'task');
wait_reached($node, 'task_query_compiled');
my $body = sql(q(SELECT prosrc FROM pg_proc WHERE proname = 'f'));
sql("CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 777'");
sql(qq(INSERT INTO $_ (ts, v) VALUES ('2024-01-01 05:00 UTC', 1))) for qw(rows log);
disarm($node, 'task_query_compiled');
sync_pipelines($node);
is(sql("SELECT f FROM of_$_ WHERE window_start = '2024-01-01 05:00 UTC'"), '777', "replaced between compiling and loading, $_")
  for qw(rows log);
sql("CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS \$body\$$body\$body\$");
sql('ALTER SYSTEM RESET stream_ckpt.query_share; ALTER SYSTEM RESET stream_ckpt.query_time_limit');
sql('SELECT pg_reload_conf()');
sync_pipelines($node);

# What a function's body names is looked up again: another schema has the name, and a type that
# only the body has gets an attribute.
sql(q(
	CREATE SCHEMA app;
	CREATE SCHEMA app_next;
	CREATE FUNCTION app.rate(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
	CREATE FUNCTION app_next.rate(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT -$1';
	CREATE FUNCTION by_name(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT app.rate($1)';
	CREATE TYPE inside AS (a int);
	CREATE FUNCTION shaped(int) RETURNS text LANGUAGE sql STABLE AS
		$$ SELECT jsonb_populate_record(NULL::inside, jsonb_build_object('a', $1, 'b', 7))::text $$));
create_query($node, 'of_names', 'rows', emit => 'update',
	select => "SELECT w.window_start, sum(by_name(v)) AS sum, max(shaped(v)) AS shape FROM rows, $window");
sql(q(INSERT INTO rows (ts, v) VALUES ('2024-01-01 06:00 UTC', 1)));
sync_pipelines($node);
sql('BEGIN; ALTER SCHEMA app RENAME TO app_last; ALTER SCHEMA app_next RENAME TO app; COMMIT');
sql(q(INSERT INTO rows (ts, v) VALUES ('2024-01-01 06:01 UTC', 1)));
sync_pipelines($node);
sql('ALTER TYPE inside ADD ATTRIBUTE b int');
sql(q(INSERT INTO rows (ts, v) VALUES ('2024-01-01 06:02 UTC', 1)));
sync_pipelines($node);
is(sql('SELECT sum, shape FROM of_names ORDER BY window_start'), "1|(1)\n-1|(1)\n-1|(1,7)", 'names in the bodies of functions');
sql(q(SELECT stream_ckpt.drop_query('of_names')));

# What isn't a function, and what isn't theirs, costs nothing.
my $before = compiled_again();
sql(q(
	CREATE TEMP TABLE temporary (i int PRIMARY KEY, j int CHECK (j > 0));
	DROP TABLE temporary;
	CREATE TABLE other (k int)));
insert_rows(21, 22);
sync_pipelines($node);
is(compiled_again() - $before, 0, 'no query is compiled again when somebody makes a table');
sql('CREATE FUNCTION other() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$');
insert_rows(23, 24);
sync_pipelines($node);
is(compiled_again() - $before, 4, 'those with functions of users are when somebody makes a function, once');

# The transaction begins after the replacement: not one row by the old body, whatever restarts.
for my $round (1 .. 8)
{
	my $hour = sprintf '%02d', $round;
	my $pid = pid_of($node, 'task');

	kill 'TERM', $pid if $round % 4 == 0;
	sql(qq(
		CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $round';
		INSERT INTO rows (ts, v) SELECT '2024-01-02 $hour:00 UTC', i FROM generate_series(1, 100) i;
		INSERT INTO log (ts, v) SELECT '2024-01-02 $hour:00 UTC', i FROM generate_series(1, 100) i));
}
sync_pipelines($node);
# (rows that waited while the next one came may be computed by that)
is( sql("SELECT count(*), bool_and(least(f, g, s, own, folded / 50.5) >= 100 * extract(hour FROM window_start AT TIME ZONE 'UTC'))
		FROM of_$_ WHERE window_start >= '2024-01-02 UTC'"),
	'8|t',
	"no transaction by a body that was replaced before it began, $_")
  for qw(rows log);

# The transaction itself has made the change, and is read before others see it: its commit waits
# for a standby that never comes.
sql(q(
	CREATE TYPE grown AS (x int);
	CREATE TABLE growing (ts timestamptz, key grown, v int)));
attach($node, 'growing');
create_query($node, 'of_growing', 'growing', emit => 'update', options => 'keep_late_rows => true',
	select => "SELECT w.window_start, key, max(to_jsonb(key)::text) AS json, sum(f(v)) AS f FROM growing, $window, key");
sql(q(INSERT INTO growing VALUES ('2024-01-01 00:00 UTC', NULL, NULL)));
sync_pipelines($node);
sql(q(SET synchronous_commit = local; ALTER SYSTEM SET synchronous_standby_names = 'nobody'));
sql('SELECT pg_reload_conf()');
my $end = sql('SELECT pg_current_wal_insert_lsn()');
my $script = PostgreSQL::Test::Utils::tempdir() . '/own.sql';
PostgreSQL::Test::Utils::append_to_file($script, q(BEGIN;
	ALTER TYPE grown ADD ATTRIBUTE y int;
	CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 1000';
	INSERT INTO growing VALUES ('2024-01-01 00:00 UTC', ROW(1, 1), 1), ('2024-01-01 00:00 UTC', ROW(1, 2), 2),
		('2023-01-01 00:00 UTC', ROW(1, 3), 3);
	COMMIT));
my $out = '';
my $writer = IPC::Run::start(
	[ $node->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $script ],
	'>', \$out, '2>', \$out);
wait_until($node, "SELECT decoded_lsn > '$end' FROM stream_ckpt.pipelines", 'the transaction is read');
sql(q(SET synchronous_commit = local; ALTER SYSTEM RESET synchronous_standby_names));
sql('SELECT pg_reload_conf()');
ok($writer->finish, 'the transaction is over');
sync_pipelines($node);
is( sql(q(SELECT key, json, f FROM of_growing WHERE key IS NOT NULL ORDER BY key)),
	qq((1,1)|{"x": 1, "y": 1}|1000\n(1,2)|{"x": 1, "y": 2}|2000),
	"a type and a function are changed in the rows' transaction");
is(sql(q(SELECT row_text FROM stream_ckpt.late_rows WHERE query = 'of_growing'::regclass)) =~ s/^[^\t]*\t//r,
	"(1,3)\t3", 'and a row that is late is kept as it is');
sql(q(SELECT stream_ckpt.drop_query('of_growing')));

# Checks of domains
sql(q(
	CREATE TABLE checked (ts timestamptz, v int);
	CREATE FUNCTION as_small(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1::small'));
attach($node, 'checked');
create_query($node, 'of_checked', 'checked', emit => 'update', options => q(on_error => 'dead_letter'),
	select => "SELECT w.window_start, sum(v::small) AS direct, count(*) AS n FROM checked, $window");
create_query($node, 'by_function', 'checked', emit => 'update', options => q(on_error => 'dead_letter'),
	select => "SELECT w.window_start, sum(as_small(v)) AS sum FROM checked, $window");
sql(q(INSERT INTO checked VALUES ('2024-01-01 UTC', 5), ('2024-01-01 UTC', 2000)));
sync_pipelines($node);
sql('ALTER DOMAIN small ADD CONSTRAINT ten CHECK (VALUE <> 10)');
sql(q(INSERT INTO checked VALUES ('2024-01-01 UTC', 10), ('2024-01-01 UTC', 11)));
sync_pipelines($node);
sql('ALTER DOMAIN small DROP CONSTRAINT ten; ALTER DOMAIN small DROP CONSTRAINT small_check');
sql(q(INSERT INTO checked VALUES ('2024-01-01 UTC', 10), ('2024-01-01 UTC', 3000)));
sync_pipelines($node);
is(sql('SELECT direct, n FROM of_checked'), '3026|4', "a domain's checks are added and dropped");
is(sql('SELECT sum FROM by_function'), '3026', 'and inside a function');

# Aggregates: another final function fits, another transition function doesn't.
sql(q(
	CREATE FUNCTION thrice(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3';
	CREATE AGGREGATE mine(int) (sfunc = int4_sum, stype = int8)));
create_query($node, 'of_mine', 'checked', emit => 'update',
	select => "SELECT w.window_start, mine(v) AS mine FROM checked, $window");
sql(q(INSERT INTO checked VALUES ('2024-01-03 UTC', 5)));
sync_pipelines($node);
sql('CREATE OR REPLACE AGGREGATE mine(int) (sfunc = int4_sum, stype = int8, finalfunc = thrice)');
sql(q(INSERT INTO checked VALUES ('2024-01-03 UTC', 1)));
sync_pipelines($node);
is(sql('SELECT mine FROM of_mine'), '18', 'an aggregate gets a final function');
sql(q(CREATE OR REPLACE AGGREGATE mine(int) (sfunc = add, stype = int8, initcond = '0')));
sql(q(INSERT INTO checked VALUES ('2024-01-03 UTC', 1)));
wait_until($node, q(SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'of_mine'::regclass),
	'the query fails');
like(
	sql(q(SELECT message || ' ' || detail || ' ' || hint FROM stream_ckpt.queries WHERE query = 'of_mine'::regclass)),
	qr/doesn't fit its definition.*drop_query/s,
	'another transition function: an error with a hint');
sql('CREATE OR REPLACE AGGREGATE mine(int) (sfunc = int4_sum, stype = int8)');
sql(q(SELECT stream_ckpt.resume_query('of_mine')));
sync_pipelines($node);
is(sql('SELECT mine FROM of_mine'), '7', 'undone, and nothing is lost');

#
# Rows as values, and the stream's row type
#
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries));
sql(q(
	CREATE TABLE wide (ts timestamptz, a int, gone int);
	ALTER TABLE wide DROP COLUMN gone;
	SELECT stream_ckpt.create_stream('wide_log', 'ts timestamptz, a int', event_time => 'ts', watermark_delay => '0')));
attach($node, 'wide');
my %kinds = (plain => '', late => 'keep_late_rows => true', dead => q(on_error => 'dead_letter'));
for my $kind (sort keys %kinds)
{
	for my $stream (qw(wide wide_log))
	{
		create_query($node, "${stream}_$kind", $stream, emit => 'update', options => $kinds{$kind},
			select => "SELECT w.window_start, a, max(to_jsonb(s)::text) AS json, count(DISTINCT s) AS n,
				bool_and(s IS NOT NULL) AS whole, max((s).a) AS field, count(*) FILTER (WHERE s = s) AS same
				FROM $stream s, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, a");
	}
}

sub insert_wide
{
	my ($a, $column, $value) = @_;
	my $more = $column ? ", $column" : '';
	my $values = $column ? ", $value" : '';

	return join ';', map { "INSERT INTO $_ (ts, a$more) VALUES ('2024-01-01 UTC', $a$values)" } qw(wide wide_log);
}

# What the queries have of these rows: the plain query's rows, and for the log stream the same.
sub wide_ok
{
	my ($from, $to, $what) = @_;

	sync_pipelines($node);
	my $truth = sql("SELECT * FROM wide_plain_definition WHERE a BETWEEN $from AND $to ORDER BY a");
	is(sql("SELECT * FROM ${_} WHERE a BETWEEN $from AND $to ORDER BY a"), $truth, "$what: $_")
	  for map { ("wide_$_", "wide_log_$_") } sort keys %kinds;
	return $truth;
}

sub alter_both
{
	my ($alter) = @_;

	return "ALTER TABLE wide $alter; ALTER FOREIGN TABLE wide_log $alter";
}

sql(insert_wide(1));
wide_ok(1, 1, 'as created');
sql(alter_both('ADD COLUMN b int'));
sql(insert_wide(2, 'b', 20));
like(wide_ok(2, 2, 'a column is added'), qr/"b": 20/, 'and is there');
sql('BEGIN; ' . alter_both('ADD COLUMN c text') . '; ' . insert_wide(3, 'c', q('x')) . '; COMMIT');
like(wide_ok(3, 3, q(a column is added in the row's transaction)), qr/"c": "x"/, 'and is there');
sql(insert_wide(4, 'c', q('y')) . ';' . alter_both('RENAME COLUMN c TO d'));
sql(insert_wide(5, 'd', q('z')));
like(wide_ok(5, 5, 'a column is renamed'), qr/"d": "z"/, 'and has its new name');
sql(alter_both('DROP COLUMN b'));
sql(insert_wide(6, 'd', q('z')));
unlike(wide_ok(6, 6, 'a column is dropped'), qr/"b"/, 'and is gone');
restart_task();
sql(insert_wide(7, 'd', q('w')));
wide_ok(7, 7, 'after a restart');

# Rows that came before and between changes, but are processed after them
arm($node, 'task_before_restore', 'wait');
kill 'TERM', pid_of($node, 'task');
wait_reached($node, 'task_before_restore');
sql(insert_wide(8, 'd', q('p')));
sql(alter_both('ADD COLUMN e int'));
sql(insert_wide(9, 'e', 9) . ';' . alter_both('ADD COLUMN f int'));
sql(insert_wide(10, 'f', 10));
disarm($node, 'task_before_restore');
wide_ok(8, 10, 'rows before, between and after changes');
is(sql('SELECT count(*) FROM stream_ckpt.dead_letter'), '0', 'and no dead letter');

# Another type: right, or an error.
sql(alter_both('ALTER COLUMN e TYPE bigint'));
sql(insert_wide(11, 'e', 5000000000));
like(wide_ok(11, 11, 'a type is changed'), qr/"e": 5000000000/, 'and its values are there');
arm($node, 'task_before_restore', 'wait');
kill 'TERM', pid_of($node, 'task');
wait_reached($node, 'task_before_restore');
sql('BEGIN; ' . insert_wide(12, 'e', 1) . '; ' . alter_both('ALTER COLUMN e TYPE text') . '; COMMIT');
disarm($node, 'task_before_restore');
wait_until($node, q(SELECT bool_and(status = 'failed') FROM stream_ckpt.queries), 'the queries fail');
like(
	sql(q(SELECT message || ' ' || hint FROM stream_ckpt.queries LIMIT 1)),
	qr/column "e" of stream "wide(_log)?" had another type.*drop_query/s,
	'rows whose type is gone: an error with a hint');

$node->stop;
done_testing();
