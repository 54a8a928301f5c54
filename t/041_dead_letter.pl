# on_error => 'dead_letter': a query goes on without exactly the rows, groups and result
# rows that raise errors; each of them is in stream_ckpt.dead_letter once, whatever dies.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();

my $node = new_node('main', '', draw => {});
create_stream_table($node, 't', delay => '1 hour');
$node->safe_psql('postgres', q(
	-- refuses 13, after it has changed its state in place
	CREATE FUNCTION picky(float8[], float8) RETURNS float8[] LANGUAGE plpgsql IMMUTABLE AS
	'BEGIN IF $2 = 13 THEN RAISE EXCEPTION ''thirteen''; END IF; RETURN ARRAY[$1[1] + $2, $1[2] + 1]; END';
	CREATE AGGREGATE picky_sum(float8) (SFUNC = picky, STYPE = float8[], INITCOND = '{0,0}');
	CREATE FUNCTION no_42(float8[]) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS
	'BEGIN IF $1[1] = 42 THEN RAISE EXCEPTION ''forty-two''; END IF; RETURN $1[1]; END';
	CREATE FUNCTION add_to(float8[], float8) RETURNS float8[] LANGUAGE sql IMMUTABLE AS 'SELECT ARRAY[$1[1] + $2]';
	CREATE AGGREGATE final_42(float8) (SFUNC = add_to, STYPE = float8[], FINALFUNC = no_42, INITCOND = '{0}')));

sub create
{
	my ($name, $emit, $select) = @_;
	$node->safe_psql('postgres',
		"SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$, emit => '$emit', on_error => 'dead_letter', backfill => false)");
	return;
}

# Aggregates of all kinds before and after the one that fails: by value, by reference, internal
# states (numeric), kept inputs; each must be as if the row had never been.
my $from = "FROM t, stream_ckpt.tumble(ts, '1 minute') w";
my $aggregates = 'count(*) AS n, sum(v) AS s, avg(v) AS a, sum(v::numeric) AS sn, stddev(v::int8) AS sd, array_agg(v ORDER BY v, txn) AS aa, max(md5(v::text)) AS mx';
my %failing = (
	argument => [ "sum(100 / (v - 7)) AS x", 'v = 7' ],
	transition => [ "picky_sum(v) AS x", 'v = 13' ],
	overflow => [ "sum(v::int8 * 1000000000000000000) FILTER (WHERE v = 9) AS x", 'v = -1' ],
	filter => [ "count(*) FILTER (WHERE 1 / (v - 5) > 0) AS x", 'v = 5' ],
);
for my $kind (sort keys %failing)
{
	for my $emit (qw(close update))
	{
		create("${kind}_$emit", $emit,
			"SELECT w.window_start, w.window_end, k, $aggregates, $failing{$kind}[0], string_agg(v::text, ',' ORDER BY v, txn) AS after, sum(v::numeric) AS sn2 $from GROUP BY w.window_start, w.window_end, k");
	}
}
create('in_where', 'close', "SELECT w.window_start, w.window_end, count(*) AS n, sum(v) AS s $from WHERE 10 / v > -100 GROUP BY w.window_start, w.window_end");
$failing{in_where} = [ undef, 'v = 0' ];
create('in_key', 'update', "SELECT w.window_start, w.window_end, 10 / v AS key, count(*) AS n $from GROUP BY w.window_start, w.window_end, 10 / v");
$failing{in_key} = [ undef, 'v = 0' ];
create('final', 'update', "SELECT w.window_start, w.window_end, k, final_42(v) AS f, count(*) AS n $from GROUP BY w.window_start, w.window_end, k");
create('final_close', 'close', "SELECT w.window_start, w.window_end, k, final_42(v) AS f, count(*) AS n $from GROUP BY w.window_start, w.window_end, k");
create('result', 'close', "SELECT w.window_start, w.window_end, k, txn, sum(v) AS s $from GROUP BY w.window_start, w.window_end, k, txn");
$node->safe_psql('postgres', 'ALTER TABLE result ADD CONSTRAINT no CHECK (s % 11 <> 3)');
create_query($node, 'good', 't', emit => 'update');
wait_running($node);

# Random rows, a second apart, with one bad of each kind in some ten.
my $n = 0;
sub rows
{
	my $list = join ', ', map { $n++; sprintf "(timestamptz '2024-01-01 00:00 UTC' + %d * interval '1 second', %d, %d, %d)", $n - int(rand(50)), int(rand(3)), int(rand(20)), $n } 1 .. 1 + int(rand(60));

	$node->safe_psql('postgres', "INSERT INTO t VALUES $list");
	return;
}

# What must be there: the definition over the rows that don't raise, and a letter for each that does.
sub check
{
	my ($what) = @_;

	sync_pipelines($node);
	for my $name (sort map { my $k = $_; $k =~ /^in_/ ? $k : ("${k}_close", "${k}_update") } keys %failing)
	{
		my ($kind) = $name =~ /^(in_[a-z]+|[a-z]+)/;
		my $bad = $failing{$kind}[1];
		my $emit = $name =~ /_update$|^in_key/ ? 'update' : 'close';
		my $definition = $node->safe_psql('postgres', "SELECT pg_get_viewdef('${name}_definition'::regclass)");
		$definition =~ s/;\s*$//;
		$definition =~ s/\bFROM t,/FROM (SELECT * FROM t WHERE NOT ($bad)) t,/ or die $definition;

		results_ok($node, $name, "$what: $name is exact without the rows at fault", emit => $emit, synced => 1,
			truth => $definition, table => 't', delay => '1 hour');
		is( $node->safe_psql('postgres',
				"SELECT count(*) || ' ' || count(DISTINCT (lsn, ordinal)) || ' ' || count(*) FILTER (WHERE kind <> 'row') FROM stream_ckpt.dead_letter WHERE query = '$name'::regclass"),
			$node->safe_psql('postgres', "SELECT count(*) || ' ' || count(*) || ' 0' FROM t WHERE $bad"),
			"$what: a letter for each row at fault of $name");
		is( $node->safe_psql('postgres',
				"SELECT count(*) FROM ((SELECT (jsonb_populate_record(NULL::t, row)).* FROM stream_ckpt.dead_letter WHERE query = '$name'::regclass)
					EXCEPT ALL SELECT * FROM t WHERE $bad) d"),
			'0', "$what: the letters of $name are those rows");
	}
	results_ok($node, 'good', "$what: the other query is exact", emit => 'update', synced => 1);

	# result rows that their table refuses
	is( $node->safe_psql('postgres', q(SELECT count(*) FROM result WHERE s % 11 = 3)), '0', 'refused rows are not in the result');
	my $closed = q(window_end <= (SELECT max(ts) - interval '1 hour' FROM t));
	is( $node->safe_psql('postgres', qq(
			WITH d AS MATERIALIZED (SELECT * FROM result_definition WHERE $closed), r AS MATERIALIZED (SELECT * FROM result)
			SELECT (SELECT count(*) FROM ((TABLE r EXCEPT ALL SELECT * FROM d WHERE s % 11 <> 3) UNION ALL (SELECT * FROM d WHERE s % 11 <> 3 EXCEPT ALL TABLE r)) x)
				|| ' ' || ((SELECT count(*) FROM d WHERE s % 11 = 3) - (SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'result'::regclass AND kind = 'result' AND (row->>'s')::int % 11 = 3)))),
		'0 0', "$what: result rows are written around those at fault, which have letters");

	# groups whose result row can't be made
	is( $node->safe_psql('postgres', qq(
			SELECT count(*) FROM stream_ckpt.dead_letter d WHERE query = 'final_close'::regclass AND NOT EXISTS (
				SELECT FROM t, stream_ckpt.tumble(ts, '1 minute') w
				WHERE w.window_start = (d.row->>'window_start')::timestamptz AND k = (d.row->>'k')::int GROUP BY w.window_start, k HAVING sum(v) = 42))),
		'0', "$what: only groups at fault have letters");
	is( $node->safe_psql('postgres', qq(
			WITH d AS (SELECT w.window_start, w.window_end, k, sum(v)::float8 AS f, count(*) AS n FROM t, stream_ckpt.tumble(ts, '1 minute') w
				GROUP BY w.window_start, w.window_end, k HAVING sum(v) <> 42)
			SELECT count(*) FROM ((SELECT * FROM final_close EXCEPT ALL SELECT * FROM d) UNION ALL (SELECT * FROM d WHERE $closed EXCEPT ALL SELECT * FROM final_close)) x)),
		'0', "$what: the other groups are emitted, each once");
	return;
}

rows() for 1 .. 20;
check('without kills');
for my $i (1 .. 3)
{
	for my $which (qw(task coordinator reader))
	{
		my $pid = pid_of($node, $which);
		rows() for 1 .. 5;
		kill 'TERM', $pid;
		rows() for 1 .. 5;
		wait_restarted($node, $which, $pid);
	}
	$node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()') if $i == 2;
}
arm($node, 'coordinator_before_commit', 'error');
rows() for 1 .. 5;
wait_reached($node, 'coordinator_before_commit');
$node->stop('immediate');
$node->start;
rows() for 1 .. 5;

# everything closes; one group of "final" is at fault for certain
$node->safe_psql('postgres', "INSERT INTO t VALUES ('2024-02-01 00:00 UTC', 1, 1, 0), ('2024-02-01 00:00 UTC', 1, 2, -1), ('2024-02-01 00:00 UTC', 9, 42, -2)");
check('after kills');
is($node->safe_psql('postgres', q(SELECT string_agg(status, ' ') FROM stream_ckpt.queries WHERE status <> 'running')), '', 'all queries run');
is($node->safe_psql('postgres', q(SELECT count(*) > 0 FROM stream_ckpt.dead_letter WHERE query = 'final'::regclass AND kind = 'group' AND message = 'forty-two' AND row->>'k' = '9')),
	't', 'emit update: a group at fault has letters');

$node->safe_psql('postgres', "SELECT stream_ckpt.drop_query('argument_close')");
is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_ckpt.dead_letter l WHERE NOT EXISTS (SELECT FROM stream_ckpt.query q WHERE q.query_id = l.query_id))),
	'0', 'letters go with their query');

done_testing();
