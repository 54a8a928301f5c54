# Joins of a stream with tables, views and functions: over tables that don't change a result equals its definition, whatever
# dies; rows see what the tables hold when they are processed, and never less than their own transaction did.  Privileges
# and row-level security of the owner, DDL on what is joined, rows at fault, late rows, locks.
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

test_seed();
my $rounds = $ENV{ROUNDS} || 3;
# so little that what is joined with the rows of a message is in a file
my $node = new_node('main', "stream_ckpt.result_lock_timeout = '200ms'\nwork_mem = 64kB\n", draw => { memory => [0], bucket => [0], tasks => [ 1, 2 ] });

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sub create
{
	my ($name, $select, @options) = @_;

	note "$name: $select";
	sql("SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$" . join('', map { ", $_" } 'backfill => false', @options) . ')');
	return;
}

sub status_is
{
	my ($name, $status, $test) = @_;

	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$name'::regclass", $test);
}

sub message_of { return sql("SELECT message FROM stream_ckpt.queries WHERE query = '$_[0]'::regclass"); }

# ---------- tables that don't change ----------

sql(q(CREATE TABLE t (ts timestamptz, k int, v int, s text, doc jsonb, txn int) PARTITION BY LIST (k)),
	q(CREATE TABLE t_odd (txn int, doc jsonb, s text, v int, k int, ts timestamptz)),
	q(ALTER TABLE t ATTACH PARTITION t_odd FOR VALUES IN (1, 3)),
	q(CREATE TABLE t_rest PARTITION OF t DEFAULT),
	q(CREATE TABLE small (id int, name text, long text)),
	q(INSERT INTO small SELECT i % 7, 'n' || i % 3, repeat(md5(i::text), 200) FROM generate_series(0, 9) i),
	q(ALTER TABLE small ALTER long SET STORAGE EXTERNAL),
	q(UPDATE small SET long = long || 'x'),
	q(CREATE TABLE big (id int PRIMARY KEY, grp int, valid tstzrange)),
	q(INSERT INTO big SELECT i, i % 5, tstzrange('2024-01-01 UTC'::timestamptz + i % 100 * interval '10 s', NULL) FROM generate_series(1, 2000) i),
	q(ANALYZE small, big),
	q(CREATE VIEW joined_view AS SELECT s.id, s.name, b.grp FROM small s JOIN big b ON b.id = s.id WHERE s.name <> 'n2'),
	q(CREATE FUNCTION upto(int) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS 'SELECT generate_series(1, least($1, 4))'));
attach($node, 't', delay => '1 hour');

my $hop = "stream_ckpt.hop(ts, '1 minute', '2 minutes') w";
my $tumble = "stream_ckpt.tumble(ts, '1 minute') w";
my $cumulate = "stream_ckpt.cumulate(ts, '1 minute', '5 minutes') w";
my %queries = (
	inner_tumble => [ 'close', "SELECT w.window_start, w.window_end, d.name, count(*) AS n, sum(v) AS s, max(d.long) AS long FROM t JOIN small d ON d.id = t.k, $tumble WHERE v > 10 GROUP BY 1, 2, 3" ],
	left_tumble => [ 'close', "SELECT w.window_start, w.window_end, b.grp, count(*) AS n, count(b.id) AS m, count(DISTINCT d) AS d FROM t CROSS JOIN $tumble LEFT JOIN big b ON b.id = t.v * 10 LEFT JOIN small d ON d.id = b.grp GROUP BY 1, 2, 3" ],
	hopping => [ 'close', "SELECT w.window_start, w.window_end, coalesce(d.name, '-') AS name, count(*) AS n, array_agg(t.v ORDER BY t.v) AS a FROM t LEFT JOIN joined_view d ON d.id = t.k, $hop GROUP BY 1, 2, 3" ],
	cumulating => [ 'close', "SELECT w.window_start, w.window_end, count(*) AS n FROM t, $cumulate WHERE k IN (SELECT grp FROM big WHERE id < 3) GROUP BY 1, 2" ],
	updating => [ 'update', "SELECT w.window_start, w.window_end, (SELECT max(d.name) FROM small d WHERE d.id = t.k) AS name, count(*) FILTER (WHERE EXISTS (SELECT FROM big b WHERE b.id = t.v)) AS n FROM t, $tumble GROUP BY 1, 2, 3" ],
	grouped => [ 'update', "SELECT b.grp, d.name, count(*) AS n, sum(t.v) AS s FROM t JOIN big b ON b.id BETWEEN t.v AND t.v + 3 AND b.valid @> t.ts JOIN small d ON d.id = b.grp GROUP BY 1, 2" ],
	in_window => [ 'close', "SELECT w.window_start, w.window_end, count(*) AS n, sum(b.id) AS ids FROM t, $tumble, LATERAL (SELECT id FROM big WHERE valid @> w.window_start AND grp = t.k ORDER BY id DESC LIMIT 2) b GROUP BY 1, 2" ],
	looked_up => [ 'rows', "SELECT t.txn, t.v, d.name, u, t AS whole FROM t CROSS JOIN upto(t.v) u LEFT JOIN small d ON d.id = t.k WHERE t.v % 3 <> 0" ],
	in_windows => [ 'rows', "SELECT w.window_start, t.txn, d.name FROM t JOIN small d ON d.id = t.k, $hop WHERE extract(minute FROM w.window_start)::int % 2 = d.id % 2" ],
	above => [ 'close', "WITH d AS (SELECT DISTINCT id, name FROM small), c AS (SELECT w.window_start, w.window_end, d.name, sum(t.v) AS s FROM t JOIN d ON d.id = t.k, $tumble GROUP BY 1, 2, 3) SELECT window_start, window_end, name, rank() OVER (PARTITION BY window_start ORDER BY s DESC) AS rank FROM c" ],
	letters => [ 'close', "SELECT w.window_start, w.window_end, d.name, count(*) AS n, sum(t.v) AS s FROM t JOIN small d ON d.id = t.k, $tumble GROUP BY 1, 2, 3", "on_error => 'dead_letter'" ],
);
create($_, $queries{$_}[1], ($queries{$_}[0] eq 'rows' ? () : "emit => '$queries{$_}[0]'"), @{ $queries{$_} }[ 2 .. $#{ $queries{$_} } ]) for sort keys %queries;
wait_running($node);

my $txn = 0;

sub transaction
{
	$txn++;
	my @rows = map {
		sprintf "('2024-01-01 UTC'::timestamptz + interval '%d s', %s, %d, '%s', NULL, %d)", int rand 3000, pick('NULL', 0 .. 8), int rand 300, pick(qw(a b)), $txn
	} 1 .. 1 + int rand(rand() < 0.1 ? 2000 : 20);

	sql('BEGIN; INSERT INTO t VALUES ' . join(', ', @rows) . '; ' . (rand() < 0.1 ? 'ROLLBACK' : 'COMMIT'));
	return;
}

sub all_ok
{
	my ($test) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$test: $_", emit => $queries{$_}[0], table => 't', delay => '1 hour', synced => 1) for sort keys %queries;
	return;
}

transaction() for 1 .. 10;
for my $round (1 .. $rounds)
{
	my $what = pick('', 'task', 'coordinator', 'reader', 'immediate', 'fast');

	note "round $round: $what";
	transaction() for 1 .. 1 + int rand 10;
	lose_state($node, $what) if $what;
	transaction() for 1 .. int rand 10;
	all_ok("round $round") if $round % 3 == 0;
}
sql("INSERT INTO t VALUES ('2024-01-01 05:00 UTC', 1, 1, 'a', NULL, 0)");
all_ok('all windows are over');
is(sql(q(SELECT sum(stream_ckpt.verify(query)) FROM stream_ckpt.queries WHERE stream = 't'::regclass)), '0', 'verify()');

# ---------- tables that change ----------

sql(q(CREATE TABLE o (id serial, at timestamptz, c int, v int)), q(CREATE TABLE c (id int, name text)), q(CREATE VIEW cv AS SELECT id, upper(name) AS name FROM c));
sql(q(SELECT stream_ckpt.attach_stream('o', event_time => 'at')));
create('plain', 'SELECT o.id, c.name FROM o LEFT JOIN c ON c.id = o.c');
create('by_view', 'SELECT o.id, cv.name FROM o JOIN cv ON cv.id = o.c');
wait_running($node);

sub insert { return sql("INSERT INTO o (at, c, v) VALUES ('2024-01-01 UTC', $_[0], " . ($_[1] // 1) . ')'); }
sub plain { sync_pipelines($node); return sql("SELECT string_agg(id || '=' || coalesce(name, '?'), ' ' ORDER BY id) FROM plain"); }

insert(1);
is(plain(), '1=?', 'nobody is there');
sql('BEGIN', q(INSERT INTO c VALUES (1, 'ann')), q(INSERT INTO o (at, c) VALUES ('2024-01-01 UTC', 1)), q(UPDATE c SET name = 'anna'), 'COMMIT');
is(plain(), '1=? 2=anna', 'a row sees all that its transaction did');
sql(q(UPDATE c SET name = 'bea'));
insert(1);
is(plain(), '1=? 2=anna 3=bea', 'later ones what was changed since');
for my $i (1 .. 20)
{
	sql("BEGIN; INSERT INTO c VALUES (100 + $i, 'x$i'); INSERT INTO o (at, c) VALUES ('2024-01-01 UTC', 100 + $i); COMMIT");
}
sync_pipelines($node);
is(sql('SELECT count(*), count(name) FROM plain WHERE id > 3'), '20|20', 'each of many sees its own');
sql('CREATE INDEX ON c (id); ALTER TABLE c ADD more int DEFAULT 3; INSERT INTO c SELECT i, \'many\' FROM generate_series(1000, 60000) i; ANALYZE c');
insert(5000);
is(sql_after('SELECT name FROM plain ORDER BY id DESC LIMIT 1'), 'many', 'a table that has grown');
like(sql(q(SELECT stream_ckpt.explain_query('plain'))), qr/Index Scan/, 'by its index, in explain_query()');
sql('DROP INDEX c_id_idx', q(TRUNCATE c), q(INSERT INTO c VALUES (1, 'new')));
insert(1);
is(sql_after('SELECT name FROM plain ORDER BY id DESC LIMIT 1'), 'new', 'and without that, and cut');
sql(q(CREATE OR REPLACE VIEW cv AS SELECT id, lower(name) || '!' AS name FROM c));
insert(1);
is(sql_after('SELECT name FROM by_view ORDER BY id DESC LIMIT 1'), 'new!', 'a view that was replaced');
sql(q(CREATE OR REPLACE VIEW cv AS SELECT id, name || random() AS name FROM c));
insert(1);
status_is('by_view', 'failed', 'by one that no query may read');
like(message_of('by_view'), qr/volatile function random\(\)/, 'which says why');
sql(q(CREATE OR REPLACE VIEW cv AS SELECT id, name FROM c), q(SELECT stream_ckpt.resume_query('by_view')));
status_is('by_view', 'running', 'it goes on');
is(sql_after('SELECT count(*) = (SELECT count(*) FROM o WHERE c = 1 AND id > 1) FROM by_view WHERE name ILIKE \'%\' AND id NOT BETWEEN 4 AND 24'), 't', 'with all rows');
isnt($node->psql('postgres', 'DROP TABLE c'), 0, 'a joined table is not dropped');
isnt($node->psql('postgres', 'ALTER TABLE c ALTER name TYPE varchar'), 0, 'nor its columns changed');

sub sql_after { sync_pipelines($node); return sql($_[0]); }

# ---------- whose rows they are ----------

sql('CREATE ROLE tenant', 'CREATE ROLE other', 'GRANT CREATE ON SCHEMA public TO tenant, other', 'GRANT SELECT ON o, c TO tenant, other', 'GRANT USAGE ON SCHEMA stream_ckpt TO tenant, other',
	q(CREATE TABLE secret (id int, owner name, word text)), q(INSERT INTO secret VALUES (1, 'tenant', 'mine'), (1, 'other', 'hers')),
	'ALTER TABLE secret ENABLE ROW LEVEL SECURITY', 'CREATE POLICY own ON secret USING (owner = current_user)', 'GRANT SELECT ON secret TO tenant, other');
sql('SET SESSION AUTHORIZATION tenant', q(SELECT stream_ckpt.create_query('words', 'SELECT o.id, s.word FROM o JOIN secret s ON s.id = o.c',
	backfill => false)));
wait_running($node);
insert(1);
is(sql_after('SELECT string_agg(word, \' \') FROM words'), 'mine', 'rows that the owner may see');
sql('ALTER VIEW words_definition OWNER TO other', 'GRANT INSERT, SELECT ON words TO other');
insert(1);
is(sql_after('SELECT word FROM words ORDER BY id DESC LIMIT 1'), 'hers', 'of another owner, hers');
sql('ALTER VIEW words_definition OWNER TO tenant', 'DROP POLICY own ON secret', q(CREATE POLICY all_of_them ON secret USING (true)));
insert(1);
is(sql_after('SELECT string_agg(word, \' \' ORDER BY word) FROM words WHERE id = (SELECT max(id) FROM o)'), 'hers mine', 'by another policy');
sql('REVOKE SELECT ON secret FROM tenant');
insert(1);
status_is('words', 'failed', 'a privilege that was revoked');
like(message_of('words'), qr/permission denied for table secret/, 'is named');
sql('GRANT SELECT ON secret TO tenant', q(SELECT stream_ckpt.resume_query('words')));
status_is('words', 'running', 'and granted again');
is(sql_after('SELECT count(*) FROM words WHERE id = (SELECT max(id) FROM o)'), '2', 'its row is there');

# ---------- rows at fault ----------

sql(q(CREATE TABLE f (id int, at timestamptz, k int, v int)), q(CREATE TABLE d (k int, n int)), q(INSERT INTO d VALUES (1, 1), (2, 0), (3, 5), (4, 1), (4, 2), (5, 7), (5, 8), (5, 9), (6, 1)),
	q(CREATE FUNCTION no_8(float8[], float8) RETURNS float8[] LANGUAGE plpgsql IMMUTABLE AS 'BEGIN IF $2 = 8 THEN RAISE EXCEPTION ''eight''; END IF; RETURN ARRAY[$1[1] + $2]; END'),
	q(CREATE AGGREGATE no_eights(float8) (SFUNC = no_8, STYPE = float8[], INITCOND = '{0}')));
sql(q(SELECT stream_ckpt.attach_stream('f', event_time => 'at', watermark_delay => '1 minute')));
# in the plan; a subquery of two rows; in the middle of a row's joined rows; without groups; and in WHERE on the stream
my %faulty = (
	in_plan => [ "SELECT w.window_start, w.window_end, f.k, count(*) AS n, sum(f.v / d.n) AS s FROM f JOIN d ON d.k = f.k AND f.v / d.n < 1000000, stream_ckpt.tumble(at, '1 minute') w GROUP BY 1, 2, 3", 'k = 2' ],
	two_rows => [ "SELECT w.window_start, w.window_end, (SELECT n FROM d WHERE d.k = f.k) AS n, count(*) FROM f, stream_ckpt.tumble(at, '1 minute') w GROUP BY 1, 2, 3", 'k IN (4, 5)' ],
	in_state => [ "SELECT w.window_start, w.window_end, d.n, count(*) AS rows, no_eights(d.n) AS s, array_agg(f.id ORDER BY f.id) AS ids FROM f JOIN d ON d.k = f.k, stream_ckpt.tumble(at, '1 minute') w GROUP BY 1, 2, 3", 'k = 5' ],
	in_sets => [ "SELECT w.window_start, w.window_end, d.n, GROUPING(d.n) AS g, count(*) AS rows, no_eights(d.n) AS s FROM f JOIN d ON d.k = f.k, stream_ckpt.tumble(at, '1 minute') w GROUP BY w.window_start, w.window_end, ROLLUP (d.n)", 'k = 5' ],
	no_groups => [ 'SELECT f.id, d.n, 100 / (d.n - 8) AS q FROM f JOIN d ON d.k = f.k', 'k = 5' ],
	in_where => [ 'SELECT f.id, d.n FROM f JOIN d ON d.k = f.k WHERE 10 / (f.v - 7) < 100', 'v = 7' ],
);
create($_, $faulty{$_}[0], "on_error => 'dead_letter'") for sort keys %faulty;
wait_running($node);
my $id = 0;
for my $round (1 .. 4)
{
	sql('INSERT INTO f VALUES ' . join(', ', map { sprintf "(%d, '2024-01-01 UTC'::timestamptz + interval '%d s', %d, %d)", $id++, int rand 100, 1 + int rand 7, int rand 20 } 1 .. pick(1, 30, 400))) for 1 .. 3;
	lose_state($node, pick('task', 'immediate')) if $round == 2;
}
sql("INSERT INTO f VALUES (-1, '2024-01-01 00:10 UTC', 7, 0)");
sync_pipelines($node);
for my $name (sort keys %faulty)
{
	my ($select, $bad) = @{ $faulty{$name} };
	my $truth = $select =~ s/FROM f\b/FROM (SELECT * FROM f WHERE NOT ($bad)) f/r;
	my $emit = $select =~ /GROUP BY/ ? 'close' : 'rows';

	results_ok($node, $name, "$name: all others", truth => $truth, emit => $emit, table => 'f', time => 'at', delay => '1 minute', synced => 1);
	is(sql("SELECT count(*), count(DISTINCT (row->>'id')::int), bool_and(kind = 'row') FROM stream_ckpt.dead_letter WHERE query = '$name'::regclass"),
		sql("SELECT count(*), count(*), true FROM f WHERE $bad"), "$name: a letter for each");
}
# late is late, whatever it would be joined with
my $letters = sql(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'in_plan'::regclass));
sql("INSERT INTO f VALUES (-2, '2024-01-01 00:00 UTC', 2, 5), (-3, '2024-01-01 00:00 UTC', 1, 5), (-4, '2024-01-01 00:10 UTC', 1, 5)");
sync_pipelines($node);
is(counter($node, 'in_plan', 'late_rows'), '2', 'two late rows');
is(sql(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'in_plan'::regclass)), $letters, 'are no dead letters');

# without dead letters a query stops at the row
create('stops', 'SELECT f.id, f.v / d.n AS q FROM f JOIN d ON d.k = f.k');
wait_running($node);
sql("INSERT INTO f SELECT 100000 + i, '2024-01-01 00:10 UTC', 1 + (i = 40)::int, i FROM generate_series(1, 100) i");
status_is('stops', 'failed', 'a row at fault stops a query');
like(message_of('stops'), qr/division by zero/, 'which says why');
sql(q(UPDATE d SET n = 2 WHERE k = 2), q(SELECT stream_ckpt.resume_query('stops')));
status_is('stops', 'running', 'the table is mended');
is(sql_after('SELECT count(*), sum(q) FROM stops'), sql('SELECT count(*), sum(f.v / d.n) FROM f JOIN d USING (k) WHERE id > 100000'), 'and each row is there once');

# what isn't a row's fault isn't a dead letter: all fail
create('all_fail', 'SELECT f.id, (SELECT n FROM d WHERE d.k > 3) AS n FROM f', "on_error => 'dead_letter'");
wait_running($node);
sql("INSERT INTO f SELECT 200000 + i, '2024-01-01 00:10 UTC', 1, i FROM generate_series(1, 100) i");
status_is('all_fail', 'failed', 'most rows fail alone: the query does');
is(sql(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'all_fail'::regclass)), '0', 'without dead letters');
sql(q(SELECT stream_ckpt.drop_query('all_fail')));

# ---------- more than memory ----------

sql('CREATE TABLE wide (k int, name text)', q(INSERT INTO wide SELECT i % 3, repeat(md5(i::text), 8) FROM generate_series(1, 60) i),
	'CREATE TABLE many (id int, k int)', q(SELECT stream_ckpt.attach_stream('many')));
create('wide_ones', 'SELECT w.name, count(*) AS n, min(m.id) AS least, max(w.name || m.id) AS last FROM many m JOIN wide w USING (k) GROUP BY w.name');
create('wide_letters', 'SELECT w.name, sum(1 / (m.id % 100)) AS n FROM many m JOIN wide w USING (k) GROUP BY w.name', "on_error => 'dead_letter'");
wait_running($node);
sql('INSERT INTO many SELECT i, i % 4 FROM generate_series(1, 3000) i');
my $sum = 'SELECT count(*), md5(string_agg(q::text, chr(10) ORDER BY name COLLATE "C")) FROM';
is(sql_after("$sum wide_ones q"), sql("$sum wide_ones_definition q"), 'rows whose joined rows are in a file');
is(sql("$sum wide_letters q"), sql("$sum (SELECT w.name, sum(1 / (m.id % 100)) AS n FROM many m JOIN wide w USING (k) WHERE m.id % 100 <> 0 GROUP BY w.name) q"),
	'the same with rows at fault between them');

# ---------- locks ----------

create('beside', 'SELECT id FROM o');
wait_running($node);
sql('BEGIN; LOCK TABLE c; PREPARE TRANSACTION \'lock\'');
insert(1);
wait_until($node, 'SELECT (SELECT max(id) FROM beside) = (SELECT max(id) FROM o)', 'others go on while a table is locked');
sql("ROLLBACK PREPARED 'lock'");
wait_running($node);
is(sql_after('SELECT (SELECT max(id) FROM plain) = (SELECT max(id) FROM o)'), 't', 'and the query, when it is not');

$node->stop;
done_testing();
