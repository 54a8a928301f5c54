# Queries of all kinds that begin with their stream's history: joins, sessions, groups with a ttl, windows that share panes,
# lateness, GROUPING SETS, best rows. Rows committed before, during and after are counted once; a crash changes nothing.

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

sub sql { return $node->safe_psql('postgres', $_[0]); }

# n rows from a minute on, a key of which comes in bursts: sessions have gaps
sub rows
{
	my ($minute, $n) = @_;

	return "INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + $minute * interval '1 minute' + i * interval '7 seconds' + (i / 20) * interval '3 minutes',
			(i / 5) % 7, i, $minute FROM generate_series(1, $n) i;";
}

create_stream_table($node, 't', delay => '1 day');
sql("CREATE TABLE names (k int PRIMARY KEY, name text); INSERT INTO names SELECT k, 'name ' || k / 2 FROM generate_series(0, 5) k");
sql(rows(0, 1500));

my %kinds = (
	sessions => [ 'update', "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total
		FROM t, stream_ckpt.session(ts, interval '90 seconds') w GROUP BY w.window_start, w.window_end, k", '' ],
	joined => [ 'update', 'SELECT d.name, count(*) AS n, sum(t.v) AS total FROM t JOIN names d USING (k) GROUP BY d.name', '' ],
	joined_rows => [ 'rows', 'SELECT t.ts, t.k, t.v, d.name FROM t LEFT JOIN names d USING (k) WHERE t.v % 3 = 0', '' ],
	with_ttl => [ 'update', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k', "ttl => '100 days'" ],
	hops => [ 'update', "SELECT w.window_start, w.window_end, k, count(*) AS n, max(v) AS greatest
		FROM t, stream_ckpt.hop(ts, interval '10 minutes', interval '30 minutes') w GROUP BY w.window_start, w.window_end, k",
		"allowed_lateness => '1 hour'" ],
	sets => [ 'update', "SELECT w.window_start, w.window_end, k, grouping(k) AS total, count(*) AS n FROM t, stream_ckpt.tumble(ts, interval '1 hour') w
		GROUP BY GROUPING SETS ((w.window_start, w.window_end, k), (w.window_start, w.window_end))", '' ],
	best => [ 'update', 'SELECT DISTINCT ON (k) k, ts, v FROM t ORDER BY k, ts DESC, v DESC', '' ]);

arm($node, 'history_begins', 'wait');
for my $name (sort keys %kinds)
{
	my ($emit, $select, $options) = @{ $kinds{$name} };

	create_query($node, $name, 't', emit => $emit, select => $select, options => join(', ', 'backfill => true', $options || ()));
}
wait_reached($node, 'history_begins');
sql(rows(1, 200));
arm($node, 'history_after_snapshot', 'wait');
disarm($node, 'history_begins');
wait_reached($node, 'history_after_snapshot');
sql(rows(2, 200));
disarm($node, 'history_after_snapshot');

sub check
{
	my ($what) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$_ $what", emit => 'update', synced => 1) for grep { $_ ne 'sessions' } sort keys %kinds;
	is(sql("SELECT stream_ckpt.verify('sessions')"), '0', "sessions $what");
	return;
}

check('after the history');
is(sql("SELECT string_agg(query::text, ', ') FROM stream_ckpt.queries WHERE late_rows > 0 OR status <> 'running'"), '', 'no row is late, all are well');
sql(rows(3, 200));
check('behind it');
$node->stop('immediate');
$node->start;
wait_running($node);
sql(rows(4, 200));
check('after a crash');

# Groups whose last row is older than their ttl by the end of the history are gone from the state, and stay in the result
sql("INSERT INTO t VALUES ('2024-01-01 UTC', 100, 1, 0), ('2024-01-09 UTC', 101, 1, 0)");
create_query($node, 'short', 't', emit => 'update', select => 'SELECT k, count(*) AS n FROM t WHERE k >= 100 GROUP BY k',
	options => "backfill => true, ttl => '1 day'");
sync_pipelines($node);
is(sql('SELECT string_agg(k || \' \' || n, \', \' ORDER BY k) FROM short'), '100 1, 101 1', 'results of groups that expired in the history');
is(counter($node, 'short', 'groups'), '1', 'whose state is gone');

$node->stop;
done_testing();
