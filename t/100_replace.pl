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
	return insert_seconds($node, 't', $second - $n + 1, $second);
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


# Others go on meanwhile, and so do rows of the old query, which are in the new one
arm($node, 'replacing_done', 'wait');
replace('live', definition('count(*) AS n, sum(v) AS total, max(v) AS greatest'));
wait_reached($node, 'replacing_done');
rows(100);
wait_until($node, 'SELECT n = (SELECT count(*) FROM t) FROM total', 'others go on');
is(sql('SELECT count(*) FROM stream_ckpt.query_failure'), '0', 'the old query waits for no lock');
is(sql('SELECT count(*) FILTER (WHERE greatest IN (SELECT v FROM t)) = count(*) FROM live'), 't', 'readers, too');
rows(100);
disarm($node, 'replacing_done');
ok_all('with rows meanwhile');

# Somebody has written into the result
my $user = $node->background_psql('postgres', on_error_stop => 1);
$user->query_safe('BEGIN; UPDATE live SET n = n + 1');
rebuild('live');
wait_until($node, "SELECT status = 'waiting' AND message LIKE '%lock%' FROM stream_ckpt.queries WHERE query = 'live_replacement'::regclass",
	'it waits for him');
rows(100);
wait_until($node, 'SELECT n = (SELECT count(*) FROM t) FROM total', 'nobody else does');
$user->query_safe('COMMIT');
ok_all('behind a user who wrote');

# The old query is paused
sql("SELECT stream_ckpt.pause_query('live')");
rebuild('live');
wait_until($node, "SELECT status = 'waiting' AND detail = 'It is paused.' FROM stream_ckpt.queries WHERE query = 'live_replacement'::regclass",
	'it waits until the query is resumed');
my $paused = sql('SELECT sum(n) FROM live');
rows(100);
wait_until($node, 'SELECT n = (SELECT count(*) FROM t) FROM total');
is(sql('SELECT sum(n) FROM live'), $paused, 'the result of a paused query stays');
sql("SELECT stream_ckpt.resume_query('live'); SELECT stream_ckpt.resume_query('live_replacement')");
ok_all('resumed');

# The replacement is paused, and resumed; a second one takes its place
arm($node, 'history_begins', 'wait');
replace('live', definition('count(*) AS n, sum(v + 1) AS total, max(v) AS greatest'));
wait_reached($node, 'history_begins');
replace('live', definition('count(*) AS n, sum(v + 2) AS total, max(v) AS greatest'));
sql("SELECT stream_ckpt.pause_query('live_replacement')");
disarm($node, 'history_begins');
wait_until($node, "SELECT status = 'running' FROM stream_ckpt.queries WHERE query = 'live'::regclass");
rows(100);
wait_until($node, 'SELECT sum(n) = (SELECT count(*) FROM t) FROM live', 'the old query goes on');
sql("SELECT stream_ckpt.resume_query('live_replacement')");
ok_all('by the second replacement');
is(sql('SELECT sum(total) = (SELECT sum(v + 2) FROM t) FROM live'), 't', 'that one');

# The new definition fails, at a row or as it takes the place: the old query goes on, and the error is shown
replace('live', definition('count(*) AS n, sum(v / (v - 1000)) AS total, max(v) AS greatest'));
wait_until($node, "SELECT status = 'failed' AND message = 'division by zero' FROM stream_ckpt.queries WHERE query = 'live_replacement'::regclass",
	'the error of a row');
rows(100);
wait_until($node, 'SELECT sum(n) = (SELECT count(*) FROM t) FROM live', 'the old query goes on');
sql("SELECT stream_ckpt.drop_query('live_replacement')");
ok_all('given up');
replace('live', definition('count(*) AS n, sum(v) AS total, max(v) AS greatest', 'WHERE k <> 1'));
wait_until($node, "SELECT status = 'failed' AND message LIKE '%foreign key%' FROM stream_ckpt.queries WHERE query = 'live_replacement'::regclass",
	'the error of a constraint');
rows(100);
wait_until($node, 'SELECT sum(n) = (SELECT count(*) FROM t) FROM live', 'the old query goes on');
sql("DELETE FROM notes; SELECT stream_ckpt.resume_query('live_replacement')");
ok_all('resumed when the reason is gone');

# The old query has failed, or is lost: the new one brings the result back
replace('live', definition('count(*) AS n, sum(10 / (v - 3000)) AS total, max(v) AS greatest'));
ok_all('one that will fail');
rows(3100 - $second);
wait_until($node, "SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'live'::regclass", 'it has failed');
replace('live', definition('count(*) AS n, sum(v) AS total, max(v) AS greatest'));
ok_all('in place of one that failed');
sql("SELECT stream_ckpt.pause_query('live')");
wait_until($node, "SELECT status = 'paused' FROM stream_ckpt.queries WHERE query = 'live'::regclass");
sql(q(INSERT INTO stream_ckpt.query_failure (query_id, status, failures, failed_at, sqlstate, message)
		SELECT query_id, 'lost', 1, now(), '55000', 'test' FROM stream_ckpt.query WHERE relid = 'live'::regclass;
	UPDATE stream_ckpt.query SET paused = false WHERE relid = 'live'::regclass));
$node->restart;
wait_running($node);
is(counter($node, 'live', 'status'), 'lost', 'one is lost');
rows(100);
rebuild('live');
ok_all('in place of one that was lost');

# Dropped together
for my $how ("SELECT stream_ckpt.drop_query('gone')", 'DROP TABLE gone CASCADE', "SELECT stream_ckpt.drop_query('gone', keep_result => true)",
	'DROP VIEW gone_definition')
{
	sql('DROP TABLE IF EXISTS gone');
	create_query($node, 'gone', 't', emit => 'update', select => $plain, options => "backfill => true");
	sync_pipelines($node);
	arm($node, 'history_begins', 'wait');
	rebuild('gone');
	wait_reached($node, 'history_begins');
	sql($how);
	disarm($node, 'history_begins');
	wait_until($node, "SELECT count(*) = 5 FROM stream_ckpt.query", "both are gone by $how");
}
rows(100);
ok_all('others go on');

# What can't be
is_refused($node, "SELECT stream_ckpt.replace_query('live', \$\$ " . definition('count(*) AS n, sum(v) AS total') . ' $$)',
	qr/does not fit result table "live".*Column "greatest" of type integer is missing/s, 'a column less');
is_refused($node, "SELECT stream_ckpt.replace_query('live', \$\$ " . definition('count(*) AS n, sum(v)::int AS total, max(v) AS greatest') . ' $$)',
	qr/Column "total" should be of type bigint/, 'another type');
is_refused($node, "SELECT stream_ckpt.replace_query('live', \$\$ SELECT w.window_start, w.window_end, k, v, count(*) AS n, sum(v) AS total, max(v) AS greatest
		FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k, v \$\$)",
	qr/unique index does not identify the rows/, 'other keys');
is_refused($node, "SELECT stream_ckpt.replace_query('live', 'SELECT nothing FROM t')", qr/column "nothing" does not exist/, 'nonsense');
is_refused($node, "CREATE VIEW on_definition AS TABLE live_definition; SELECT stream_ckpt.rebuild_query('live')",
	qr/cannot replace the definition of "live".*on_definition.*Drop what depends on view "live_definition"/s, 'something depends on the definition');
is_refused($node, "SET ROLE reader; SELECT stream_ckpt.rebuild_query('live')", qr/must be owner of view live_definition/, 'others');
is(left(), '0', 'nothing is made then');
is_refused($node, "SELECT stream_ckpt.create_query('live', \$\$ $plain \$\$)", qr/relation "live" already exists/, 'without or_replace');

$node->stop;
done_testing();
