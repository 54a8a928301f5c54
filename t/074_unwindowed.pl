# Queries without a window: GROUP BY, and aggregates over all rows.  No row is late, none needs an event time, nothing
# closes; the one row of an aggregate without GROUP BY is there before the stream has a row.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "max_worker_processes = 20\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("SELECT stream_ckpt.alter_pipeline('default', parallelism => 2)");
sql('CREATE TABLE t (ts timestamptz, k int, v int, s text); CREATE TABLE timeless (k int, v int);
	CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS \'SELECT $1 * 2\'');
attach($node, 't');
sql("SELECT stream_ckpt.attach_stream('timeless'); SELECT stream_ckpt.create_stream('l', 'ts timestamptz, v int', event_time => 'ts')");

my %queries = (
	by_key => [ 'SELECT k, count(*) AS n, sum(v) AS total, array_agg(v ORDER BY v) AS vs FROM t GROUP BY k', 'parallelism => 2' ],
	by_two => [ "SELECT s, v % 2 AS odd, count(DISTINCT v) AS n, avg(v) AS a FROM t WHERE v <> 5 GROUP BY s, v % 2" ],
	pairs => [ 'SELECT k, v % 3 AS r FROM t GROUP BY k, v % 3' ],
	total => [ 'SELECT count(*) AS n, sum(v) AS total, max(ts) AS latest, string_agg(s, \',\' ORDER BY s, v) AS all_s FROM t' ],
	odd_total => [ 'SELECT count(*) AS n FROM t HAVING count(*) % 2 = 1' ],
	odd_keys => [ 'SELECT k, count(*) AS n FROM t GROUP BY k HAVING count(*) % 2 = 1' ],
	said => [ 'SELECT count(*) AS n FROM t', "emit => 'update'" ],
	computed => [ 'SELECT sum(doubled(v)) AS s FROM t' ],
	constant => [ 'SELECT 1 AS one FROM t HAVING true' ],
	of_timeless => [ 'SELECT count(*) AS n, sum(v) AS total FROM timeless' ],
	keys_of_timeless => [ 'SELECT k, count(*) AS n FROM timeless GROUP BY k' ]);
for my $name (sort keys %queries)
{
	my ($select, $options) = @{ $queries{$name} };
	sql("SELECT stream_ckpt.create_query('$name', '" . ($select =~ s/'/''/gr) . "'" . ($options ? ", $options" : '') . ', backfill => false)');
}
sql("SELECT stream_ckpt.create_query('of_log', 'SELECT count(*) AS n, sum(v) AS total FROM l')");
wait_running($node);
is(sql('SELECT DISTINCT emit FROM stream_ckpt.query'), 'update', 'emit is update by default');

sub all_ok
{
	my ($test) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$test: $_", emit => 'update', synced => 1) for sort keys %queries;
	is(sql(join(' UNION ALL ', map { "SELECT '$_' FROM stream_ckpt.verify('$_') d WHERE d <> 0" } sort keys %queries)), '', "$test: verify()");
	return;
}

all_ok('without rows');
is(sql('SELECT n, total IS NULL FROM total'), '0|t', 'the one row is there');
is(sql('SELECT n, total IS NULL FROM of_log'), '0|t', 'also that of a log stream');
is(sql('SELECT count(*) FROM odd_total'), '0', 'not if HAVING rules it out');

# In order, then late, timeless and infinite ones, and those before the range of windows.
sql("INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '1 minute', i % 5, i, 's' || i % 3 FROM generate_series(1, 101) i;
	INSERT INTO timeless SELECT i % 4, i FROM generate_series(1, 50) i; INSERT INTO l VALUES ('2024-01-01 UTC', 3)");
all_ok('in order');
sql("INSERT INTO t VALUES ('1999-01-01 UTC', 1, 7, 'late'), (NULL, 2, 9, 'timeless'), ('infinity', 3, 4, 'infinite'), ('-infinity', NULL, NULL, NULL),
	('4713-01-01 BC', 1, 1, 'early'); INSERT INTO timeless VALUES (NULL, NULL); INSERT INTO l VALUES (NULL, 4), ('infinity', 5)");
all_ok('late, timeless and infinite');
is(sql('SELECT sum(late_rows + null_event_times) FROM stream_ckpt.queries'), '0', 'no row is late or dropped');
is(sql('SELECT n, total FROM of_log'), '3|12', 'rows of a log stream');

# What is lost comes again from the state.
for my $how (qw(immediate task coordinator fast))
{
	lose_state($node, $how);
	sql("INSERT INTO t SELECT timestamptz '2024-01-02 UTC', i % 7, i, NULL FROM generate_series(1, 10) i; INSERT INTO timeless VALUES (1, 1)");
	all_ok("after $how");
}

# Compiled again; another number of tasks.
sql('CREATE OR REPLACE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS \'SELECT $1 + $1\'');
sql("INSERT INTO t VALUES ('2024-01-03 UTC', 1, 1, 'x')");
all_ok('compiled again');
sql("SELECT stream_ckpt.alter_query('by_key', parallelism => 1)");
wait_running($node);
sql("INSERT INTO t VALUES ('2024-01-03 UTC', 1, 2, 'y')");
all_ok('in one task');

# Through the executor: the result table has a trigger, and then none again.
sql("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
for my $table (qw(total odd_total by_key))
{
	sql("CREATE TRIGGER nothing BEFORE INSERT OR UPDATE ON $table FOR EACH ROW EXECUTE FUNCTION nothing()");
}
for my $i (1 .. 3)
{
	sql("INSERT INTO t VALUES ('2024-01-04 UTC', $i, $i, 'z')");
	all_ok("with a trigger, $i");
}
sql("DROP TRIGGER nothing ON $_") for qw(total odd_total by_key);

# The index that allows one row only.
is(sql("SELECT pg_get_indexdef('total_key'::regclass)"), 'CREATE UNIQUE INDEX total_key ON public.total USING btree ((true)) NULLS NOT DISTINCT', 'the key of one row');
sql("DROP INDEX total_key; INSERT INTO t VALUES ('2024-01-05 UTC', 1, 1, 'z')");
wait_until($node, "SELECT EXISTS (SELECT FROM stream_ckpt.queries WHERE query = 'total'::regclass AND message LIKE '%no unique index%')", 'it is missed');
sql('CREATE UNIQUE INDEX ON total ((true)) NULLS NOT DISTINCT; SELECT stream_ckpt.resume_query(\'total\')');
wait_running($node);
all_ok('with the index again');

# Rows and groups at fault.
sql(q(CREATE FUNCTION no_3(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN IF $1 = 3 THEN RAISE EXCEPTION ''three''; END IF; RETURN $1; END';
	CREATE TABLE d (ts timestamptz, k int, v int); SELECT stream_ckpt.attach_stream('d', event_time => 'ts');
	SELECT stream_ckpt.create_query('letters', 'SELECT sum(10 / v) AS s, count(*) AS n FROM d', on_error => 'dead_letter');
	SELECT stream_ckpt.create_query('groups', 'SELECT k AS the_key, no_3(count(*)) AS n FROM d GROUP BY k', on_error => 'dead_letter')));
wait_running($node);
sql("INSERT INTO d VALUES (NULL, 1, 0)");
sync_pipelines($node);
is(sql('SELECT s IS NULL, n FROM letters'), 't|0', 'the only row that there is fails: the group is there all the same');
is(sql("SELECT kind, row FROM stream_ckpt.dead_letter"), 'row|{"k": 1, "v": 0, "ts": null}', 'and is a dead letter');
sql("INSERT INTO d VALUES (NULL, 1, 2), (NULL, 2, 0), (NULL, 2, 5), (NULL, 1, 5)");
lose_state($node, 'immediate');
sync_pipelines($node);
is(sql('SELECT s, n FROM letters'), '9|3', 'others count');
is(sql("SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'letters'::regclass"), '2', 'and those at fault do not');
is(sql("SELECT row FROM stream_ckpt.dead_letter WHERE kind = 'group'"), '{"the_key": 1}', 'a group at fault is known by its keys');
is(sql('SELECT the_key, n FROM groups ORDER BY 1'), "1|1\n2|2", 'its row stays as it was');

# A table whose rows are deleted, and changes of a published table.
sql('CREATE PUBLICATION p FOR TABLE total, by_key');
sql("INSERT INTO t VALUES ('2024-01-06 UTC', 1, 1, 'z')");
all_ok('published');

$node->stop;
done_testing();
