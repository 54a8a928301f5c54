# A query gets another definition, or is made anew: its result stays the table that it is, with all that hangs on it, and
# has the old rows or the new ones, whoever dies, locks, pauses or writes meanwhile.

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
my $second = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# n rows, each a second behind the one before
sub rows
{
	my ($n) = @_;

	$second += $n;
	return sql("INSERT INTO t SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 7, i, $second
		FROM generate_series($second - $n + 1, $second) i");
}

sub definition
{
	my ($columns, $more) = @_;

	$more //= '';
	return "SELECT w.window_start, w.window_end, k, $columns FROM t, stream_ckpt.tumble(ts, '1 minute') w $more
		GROUP BY w.window_start, w.window_end, k";
}

sub replace { return sql("SELECT stream_ckpt.replace_query('$_[0]', \$\$ $_[1] \$\$)"); }
sub rebuild { return sql("SELECT stream_ckpt.rebuild_query('$_[0]')"); }

# What identifies a result for all that depends on it, and what must not be left of a replacement
sub identity { return sql("SELECT oid, relfilenode, relacl, reloptions FROM pg_class WHERE oid = '$_[0]'::regclass"); }
sub left { return sql("SELECT count(*) FROM pg_class WHERE relname LIKE '%replacement%'"); }

sub ok_all
{
	my ($what) = @_;

	sync_pipelines($node);
	is(left(), '0', "nothing is left of it $what");
	results_ok($node, $_, "$_ $what", table => 't', synced => 1) for qw(closed words);
	results_ok($node, $_, "$_ $what", emit => 'update', synced => 1) for qw(live total each);
	return;
}

create_stream_table($node, 't');
rows(300);
my $plain = definition('count(*) AS n, sum(v) AS total');
create_query($node, 'closed', 't', emit => 'close', select => $plain, options => 'backfill => true');
create_query($node, 'live', 't', emit => 'update', select => $plain, options => "backfill => true, allowed_lateness => '1 hour'");
# no unique index: an upper part has no key, and this one may be too long for an index
create_query($node, 'words', 't', emit => 'close', select => "SELECT w.window_start, w.window_end, 'k' || k AS word, count(*) AS n
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, 'k' || k", options => 'backfill => true');
create_query($node, 'total', 't', emit => 'update', select => 'SELECT count(*) AS n, sum(v) AS total FROM t', options => 'backfill => true');
create_query($node, 'each', 't', emit => 'rows', select => 'SELECT ts, k, v FROM t WHERE v % 3 = 0', options => 'backfill => true');
rows(300);
ok_all('at the beginning');

# What people hang on a result
sql(q(CREATE ROLE reader; GRANT SELECT ON live TO reader;
	CREATE VIEW on_live AS SELECT k, sum(n) AS n FROM live GROUP BY k;
	CREATE PUBLICATION results FOR TABLE live, closed;
	CREATE INDEX by_total ON live (total);
	CREATE UNIQUE INDEX plain_key ON live (window_start, k);
	CREATE TABLE notes (window_start timestamptz, k int, FOREIGN KEY (window_start, k) REFERENCES live (window_start, k));
	INSERT INTO notes SELECT window_start, k FROM live WHERE k = 1 ORDER BY 1 LIMIT 1));
my %before = map { $_ => identity($_) } qw(live closed words total each);

# Made anew: rows that were lost, changed, or written by somebody come right, and nothing else is touched
my $untouched = q(SELECT string_agg(ctid::text || xmin, ' ' ORDER BY ctid) FROM live WHERE k > 3);
my $was = sql($untouched);
sql(q(DELETE FROM live WHERE k = 0; UPDATE live SET n = n + 1 WHERE k = 1; UPDATE live SET total = NULL WHERE k = 2;
	INSERT INTO live SELECT window_start, window_end, 100, n, total FROM live WHERE k = 3;
	DELETE FROM closed WHERE k = 1; UPDATE closed SET n = 0 WHERE k = 3;
	DELETE FROM words WHERE word = 'k1'; INSERT INTO words SELECT * FROM words WHERE word = 'k2'; UPDATE words SET n = 0 WHERE word = 'k3';
	UPDATE total SET n = 0; DELETE FROM each WHERE k = 1; INSERT INTO each SELECT * FROM each WHERE k = 2));
rebuild($_) for qw(live closed words total each);
ok_all('made anew');
is(sql($untouched), $was, 'rows that are right stay as they are');
is_deeply({ map { $_ => identity($_) } keys %before }, \%before, 'the tables are what they were');
is(sql('SELECT count(*) FROM pg_publication_tables'), '2', 'published');
is(sql('SELECT sum(n) FROM on_live'), sql('SELECT count(*) FROM t'), 'with their views');
is(sql("SELECT n FROM total"), sql('SELECT count(*) FROM t'), 'one row');
rows(100);
ok_all('and on');

# Another definition
replace('live', definition('count(*) AS n, sum(v * 2) AS total'));
replace('closed', definition('count(*) AS n, sum(v) AS total', 'WHERE v % 2 = 0'));
replace('total', 'SELECT count(*) AS n, sum(-v) AS total FROM t');
replace('each', 'SELECT ts, k, v FROM t WHERE v % 2 = 0');
rows(100);
ok_all('with other definitions');
rows(100);
$node->stop('immediate');
$node->start;
wait_running($node);
rows(100);
ok_all('after a crash');
is_deeply({ map { $_ => identity($_) } keys %before }, \%before, 'the tables are what they were');

# More columns; readers see the old rows until all of the new ones are there
arm($node, 'replacing_rows_changed', 'wait');
replace('live', definition('count(*) AS n, sum(v) AS total, max(v) AS greatest'));
wait_reached($node, 'replacing_rows_changed');
is(sql('SELECT count(*) FILTER (WHERE greatest IS NOT NULL), sum(total) = 2 * (SELECT sum(v) FROM t) FROM live'), '0|t',
	'the old rows, all of them');
is(sql("SELECT replaces FROM stream_ckpt.queries WHERE query = 'live_replacement'::regclass"), 'live', 'the view says what replaces it');
disarm($node, 'replacing_rows_changed');
ok_all('with another column');
is(sql('SELECT count(*) FILTER (WHERE greatest IS NULL) FROM live'), '0', 'the column has values');

# By create_query(); if nothing changes, nothing is done
my $again = "SELECT stream_ckpt.create_query('live', \$\$ %s \$\$, emit => 'update', allowed_lateness => '1 hour', or_replace => true)";
my $id = counter($node, 'live', 'query_id');
sql(sprintf($again, definition('count(*) AS n, sum(v) AS total, max(v) AS greatest')));
is(left(), '0', 'the same definition');
sync_pipelines($node);
is(counter($node, 'live', 'query_id'), $id, 'is the same query');
sql(sprintf($again, definition('count(*) AS n, sum(v) AS total, min(v) AS greatest')));
ok_all('by create_query()');
isnt(counter($node, 'live', 'query_id'), $id, 'another one');

$node->stop;
done_testing();
