# hop() and cumulate() over a table whose rows change: any of them, also those of windows that are over.  The truth is made of all
# versions of rows that there were: each has the clock by which its coming was judged, and that by which its going was.  A
# window counts those that came before it was over, and didn't go before that.
#
# First what is to be seen in a few rows, then random ones, with everything lost at random.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Conditions;
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 3;
my $node = new_node('main', "max_worker_processes = 20\n", draw => { batch => [ 0, 1, 7 ], tasks => [ 1, 2, 4 ], memory => [0] });
sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

#
# A few rows.
#
sql('CREATE TABLE f (ts timestamptz, k numeric, v int)', q(SELECT stream_ckpt.attach_stream('f', 'ts', changes => 'apply')));
my $bounds = 'w.window_start, w.window_end';
my $steps = "stream_ckpt.cumulate(ts, '1 minute', '10 minutes') w";
my $hops = "stream_ckpt.hop(ts, '1 minute', '5 minutes') w";
my $values = 'count(*) AS n, sum(v) AS total, max(v) AS greatest';

create_query($node, 'steps', 'f', emit => 'close', select => "SELECT $bounds, k, $values FROM f, $steps GROUP BY $bounds, k");
create_query($node, 'hops', 'f', emit => 'close', select => "SELECT $bounds, k, count(*) AS n, sum(v) AS total FROM f, $hops GROUP BY $bounds, k");
create_query($node, 'steps_update', 'f', emit => 'update', select => "SELECT $bounds, k, $values FROM f, $steps GROUP BY $bounds, k");
create_query($node, 'hops_update', 'f', emit => 'update', select => "SELECT $bounds, k, $values FROM f, $hops GROUP BY $bounds, k");
create_query($node, 'ranked', 'f', emit => 'update', tasks => 1,
	select => "SELECT $bounds, k, sum(v) AS total, rank() OVER (PARTITION BY w.window_end ORDER BY sum(v) DESC) AS place FROM f, $hops GROUP BY $bounds, k");
create_query($node, 'steps_late', 'f', emit => 'close', options => "allowed_lateness => '1 hour'", select => "SELECT $bounds, k, $values FROM f, $steps GROUP BY $bounds, k");
wait_running($node);

# Minutes of the window's end, n, total and greatest of a key.
sub shown
{
	my ($name, $key) = @_;
	my $greatest = $name =~ /^hops$/ ? '' : ", '/', greatest";

	sync_pipelines($node);
	return sql("SELECT string_agg(concat(extract(minute FROM window_end), ':', n, '/', total$greatest), ' ' ORDER BY window_end) FROM $name WHERE k = $key");
}

sub at { return "timestamptz '2024-01-01 00:00 UTC' + interval '$_[0]'"; }

sql('INSERT INTO f VALUES (' . at('30 seconds') . ', 1, 9), (' . at('40 seconds') . ', 1, 4), (' . at('90 seconds') . ', 1, 2), (' . at('100 seconds') . ', 2, 7)');
sql('INSERT INTO f VALUES (' . at('2 minutes 10 seconds') . ', 3, 1)');
is(shown('steps', 1), '1:2/13/9 2:3/15/9', 'windows that were emitted');
# of the running state, and of what hopping windows keep
arm($node, 'running_remake', 'wait');
sql('DELETE FROM f WHERE v IN (9, 7)', 'INSERT INTO f VALUES (' . at('3 minutes 10 seconds') . ', 3, 1)');
wait_reached($node, 'running_remake');
disarm($node, 'running_remake');
is(shown('steps', 1), '1:2/13/9 2:3/15/9 3:2/6/4', 'a row of an earlier pane is deleted: later windows are without it, also downwards');
is(shown('steps', 2), '2:1/7/7', 'a group whose only row was deleted is in no later window');
is(shown('hops', 1), '1:2/13 2:3/15 3:2/6', 'the same of windows that slide');
is(shown('hops', 2), '2:1/7', 'and of their groups');
is(shown('steps_update', 2), '2:1/7/7', 'emit update: its rows go from windows that are open, and stay in others');
is(shown('hops_update', 2), '2:1/7/7', 'the same of windows that slide');
is(counter($node, 'steps', 'late_changes'), '3', 'a row that is deleted is late for each window that is over');
is(counter($node, 'steps_late', 'late_changes'), '0', 'none is over within the allowed lateness');
is(shown('steps_late', 1), join(' ', '1:1/4/4', map { "$_:2/6/4" } 2 .. 3), 'windows within it are emitted again');
is(shown('steps_late', 2), '', 'and lose the rows of groups that have gone');
results_ok($node, 'steps_late', 'what is within its lateness equals the definition', emit => 'close', table => 'f');
my $open = 'window_end > ' . at('3 minutes 10 seconds');
results_ok($node, $_, "$_: what is open equals the definition", emit => 'update',
	truth => "SELECT * FROM ${_}_definition WHERE $open UNION ALL SELECT * FROM $_ WHERE NOT ($open)") for qw(steps_update hops_update ranked);

# Of keys that are equal and look different, one of a row that is there is shown.
sql('INSERT INTO f VALUES (' . at('3 minutes 20 seconds') . ', 5.0, 1), (' . at('3 minutes 30 seconds') . ', 6, 1)');
sync_pipelines($node);
sql('BEGIN', 'DELETE FROM f WHERE k = 5', 'INSERT INTO f VALUES (' . at('4 minutes 20 seconds') . ', 5.00, 2)', 'COMMIT');
sync_pipelines($node);
is(sql("SELECT string_agg(DISTINCT k::text, ' ') FROM steps_update WHERE k = 5 AND window_end > " . at('4 minutes')), '5.00', 'a key looks as a row has it that is there');
sql('INSERT INTO f VALUES (' . at('5 minutes 10 seconds') . ', 3, 1)');
sync_pipelines($node);
sql('BEGIN', 'DELETE FROM f WHERE k = 5', 'INSERT INTO f VALUES (' . at('5 minutes 20 seconds') . ', 5.000, 2), (' . at('6 minutes 10 seconds') . ', 3, 1)', 'COMMIT');
sync_pipelines($node);
is(sql("SELECT string_agg(DISTINCT k::text, ' ') FROM steps WHERE k = 5 AND window_end = " . at('6 minutes')), '5.000', 'also in what is kept of windows');

# TRUNCATE: what is open is empty, and what is kept of windows is made of nothing.
sql('BEGIN', 'TRUNCATE f', 'INSERT INTO f VALUES (' . at('6 minutes 20 seconds') . ', 1, 3)', 'COMMIT', 'INSERT INTO f VALUES (' . at('8 minutes 10 seconds') . ', 3, 1)');
is(shown('steps', 1) =~ s/.*(?=6:)//r, '6:2/6/4 7:1/3/3 8:1/3/3', 'TRUNCATE');
is(shown('hops', 1) =~ s/.*(?=6:)//r, '6:1/2 7:1/3 8:1/3', 'of windows that slide');
results_ok($node, 'steps_late', 'within the lateness the result equals the definition', emit => 'close', table => 'f');
ok(sql("SELECT count(*) FROM stream_ckpt.queries WHERE status <> 'running'") eq '0', 'all queries are well') or diag sql('SELECT query, status, message FROM stream_ckpt.queries');
sql(map { "SELECT stream_ckpt.drop_query('$_')" } qw(steps hops steps_update hops_update ranked steps_late));

#
# Random rows.
#
sql('CREATE TABLE t (id bigserial, ts timestamptz, k int, num numeric, s text, v int, a numeric(12,2))',
	# versions of rows
	'CREATE TABLE h (LIKE t, came timestamptz, went timestamptz)',
	'CREATE TABLE clock (c timestamptz)', q(INSERT INTO clock VALUES ('2024-01-01 UTC')),
	q(CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF TG_OP = 'TRUNCATE' THEN
				UPDATE h SET went = (TABLE clock) WHERE went IS NULL;
			END IF;
			IF TG_OP IN ('UPDATE', 'DELETE') THEN
				UPDATE h SET went = (TABLE clock) WHERE id = OLD.id AND went IS NULL;
			END IF;
			IF TG_OP IN ('INSERT', 'UPDATE') THEN
				INSERT INTO h SELECT NEW.*, (TABLE clock);
			END IF;
			RETURN NULL;
		END $$),
	'CREATE TRIGGER rows AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()',
	'CREATE TRIGGER empties AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()',
	q(SELECT stream_ckpt.attach_stream('t', 'ts', changes => 'apply')));

my $exact = 'count(*) AS n, count(v) AS c, sum(v), avg(v), sum(a) AS sa, stddev(v) AS sd';
my $kept = "min(v), max(s), sum(v::float8 / 4) AS f, array_agg(id ORDER BY id) AS ids, count(DISTINCT s) AS d";
my $hop = "hop(ts, '1 minute', '5 minutes')";
my $cumulate = "cumulate(ts, '1 minute', '10 minutes')";
my $safe = 'v IS DISTINCT FROM 7';
my $letters = "on_error => 'dead_letter'";

# name => [window, emit, lateness, keys, aggregates, rows that count, options]
my %queries = (
	h_exact => [ $hop, 'close', '0', 'k', $exact ],
	h_kept => [ $hop, 'close', '0', 'k', "$exact, $kept" ],
	h_all => [ $hop, 'close', '0', '', $exact ],
	h_odd => [ "hop(ts, '2 minutes', '5 minutes', '2024-01-01 00:00:07 UTC')", 'close', '0', 's, k', $exact ],
	h_gaps => [ "hop(ts, '5 minutes', '2 minutes')", 'close', '1 minute', 'k', "$exact, $kept" ],
	h_late => [ $hop, 'close', '150 seconds', 'num', "$exact, max(v) HAVING count(*) % 3 <> 1" ],
	h_update => [ $hop, 'update', '0', 'k', "$exact, $kept HAVING count(*) % 3 <> 1" ],
	h_update_late => [ $hop, 'update', '2 minutes', 's, num', $exact ],
	h_letters => [ $hop, 'close', '0', 'k', 'count(*) AS n, sum(100 / (v - 7)), max(100 / (v - 7))', $safe, $letters ],
	h_letter_keys => [ $hop, 'update', '1 minute', '100 / (v - 7)', 'count(*) AS n, sum(a)', $safe, $letters ],
	h_sets => [ $hop, 'close', '0', 'SETS', 'count(*) AS n, sum(v), max(s), GROUPING(k)' ],
	h_ranked => [ $hop, 'update', '0', 'RANK', '' ],
	h_ranked_late => [ $hop, 'close', '150 seconds', 'RANK', '' ],
	c_exact => [ $cumulate, 'close', '0', 'k', $exact ],
	c_kept => [ $cumulate, 'close', '0', 'num', "$exact, $kept" ],
	c_late => [ $cumulate, 'close', '150 seconds', 'k', "$exact, min(v) HAVING count(*) % 3 <> 1" ],
	c_update => [ $cumulate, 'update', '1 minute', 'k, s', "$exact, max(v)" ],
	c_letters => [ $cumulate, 'close', '1 minute', 'k', 'count(*) AS n, sum(100 / (v - 7)), max(100 / (v - 7))', $safe, $letters ],
	c_sets => [ $cumulate, 'close', '0', 'SETS', 'count(*) AS n, sum(v), min(v), GROUPING(k)' ],
	c_ranked => [ $cumulate, 'close', '0', 'RANK', '' ],
	c_days => [ "cumulate(ts, '1 hour', '1 day', timezone => 'Europe/Berlin')", 'update', '0', 'k', "$exact, max(s)" ]);

sub select_of
{
	my ($name, $table, $where) = @_;
	my ($window, undef, undef, $key, $aggregates) = @{ $queries{$name} };
	my $from = "FROM $table, stream_ckpt.$window w WHERE $where";
	my $i = 0;

	return "SELECT $bounds, k, sum(v) AS total, rank() OVER (PARTITION BY w.window_end ORDER BY sum(v) DESC) AS place $from GROUP BY $bounds, k" if $key eq 'RANK';
	my ($list, $having) = $aggregates =~ /^(.*?)( HAVING .*)?$/;
	my $columns = join(', ', map { / AS / ? $_ : "$_ AS a" . $i++ } split /, (?![^(\[]*[)\]])/, $list);
	return "SELECT $bounds, k, $columns $from GROUP BY GROUPING SETS (($bounds, k), ($bounds))" if $key eq 'SETS';
	my $shown = $key =~ /\// ? "$key AS q" : $key;
	return "SELECT $bounds, " . ($key ? "$shown, " : '') . "$columns $from GROUP BY $bounds" . ($key ? ", $key" : '') . ($having // '');
}

for my $name (sort keys %queries)
{
	my (undef, $emit, $lateness, $key, undef, undef, $options) = @{ $queries{$name} };

	create_query($node, $name, 't', emit => $emit, select => select_of($name, 't', 'true'), ($key eq 'RANK' ? (tasks => 1) : ()),
		options => join(', ', "allowed_lateness => '$lateness'", $options // ()));
}
wait_running($node);
# before it no row would be late
sql(q(INSERT INTO t (ts, k, v) VALUES ('2024-01-01 UTC', 9, 1)));

sub check
{
	my ($test) = @_;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		my (undef, $emit, $lateness, undef, undef, $rows) = @{ $queries{$name} };
		my $end = "window_end + interval '$lateness'";
		my $truth = select_of($name, 'h', ($rows // 'true') . " AND $end > came AND (went IS NULL OR $end <= went)");

		results_ok($node, $name, "$test: $name", emit => $emit, table => 'clock', time => 'c', synced => 1, truth => $truth)
		  or diag "SEED=$seed\n", sql("SELECT 'result', r::text FROM (TABLE $name EXCEPT ALL $truth) r UNION ALL SELECT 'truth', r::text FROM ($truth EXCEPT ALL TABLE $name) r LIMIT 20");
	}
	return;
}

# The clock moves behind the transaction.
my $tick = 'UPDATE clock SET c = (SELECT max(ts) FROM h) WHERE c < (SELECT max(ts) FROM h)';

sub row
{
	my ($behind) = @_;
	my $ts = "(TABLE clock) + (40 - trunc(random() * $behind)) * interval '1 second'";

	return "INSERT INTO t (ts, k, num, s, v, a) SELECT $ts, " . pick('NULL', 1 .. 4) . ', ' . pick('1.0', '1.00', '2', 'NULL') . ", '" . pick('a' .. 'c') . "', "
	  . pick('NULL', 7, 'trunc(random() * 30)', 'trunc(random() * 30)') . ', ' . pick('0.50', '17.25', 'NULL', 100) . ' FROM generate_series(1, ' . pick(1, 3, 20) . ')';
}

sub step
{
	my $what = pick(qw(insert insert insert update update delete delete_all savepoint));
	my $some = 'v % ' . pick(2, 3, 5) . ' = ' . pick(0, 1) . ' AND ts > (TABLE clock) - ' . pick(30, 100, 300, 3600) . " * interval '1 second'";
	my $value = 'v = ' . pick('v + 1', 'v + 10', '7', '(v + 13) % 20');

	return row(pick(50, 100, 400)) if $what eq 'insert';
	return "UPDATE t SET $value" . pick('', ', k = k % 3 + 1', ", s = 'b'", ', a = a + 1', ", ts = ts + interval '70 seconds'", ", ts = ts - interval '1 minute'", ', num = 2.000 - num') . " WHERE $some" if $what eq 'update';
	return "DELETE FROM t WHERE $some AND k = " . pick(1 .. 4) if $what eq 'delete';
	return 'DELETE FROM t' . pick(" WHERE ts > (TABLE clock) - interval '2 minutes'", " WHERE s = 'a'", ' WHERE k = 2') if $what eq 'delete_all';
	return "SAVEPOINT a; DELETE FROM t WHERE $some; ROLLBACK TO a; UPDATE t SET v = v + 3 WHERE $some";
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(10, 20))
	{
		sql('BEGIN', 'SELECT setseed(' . rand() . ')', (map { step() } 1 .. pick(1, 2, 5)), 'COMMIT', $tick);
		# a row that moves the watermark
		sql("INSERT INTO t (ts, k, v) SELECT c + '" . pick(20, 60, 100) . " seconds', 9, 1 FROM clock", $tick) if rand() < 0.2;
		checkpoint_all($node) if rand() < 0.1;
		lose_state($node, pick(qw(immediate fast task coordinator reader))) if rand() < 0.05;
	}
	check("round $round");
	next if $round % 2;
	sql('BEGIN', row(50), 'TRUNCATE t', row(50), 'COMMIT', $tick);
	lose_state($node, 'task') if rand() < 0.5;
	check("round $round, emptied");
}

for my $name (qw(h_exact h_late c_exact c_update))
{
	my ($window, undef, $lateness) = @{ $queries{$name} };
	my $over = "window_end + interval '$lateness' <=";

	is(counter($node, $name, 'late_rows'), sql("SELECT count(*) FROM h, stream_ckpt.$window w WHERE $over came"), "$name: rows are late for each window that is over");
}
cmp_ok(counter($node, 'h_exact', 'late_changes'), '>', 0, 'rows of windows that were over have changed');
is(sql("SELECT count(*) FROM stream_ckpt.queries WHERE status <> 'running'"), '0', 'no query has failed') or diag sql('SELECT query, status, message FROM stream_ckpt.queries');

$node->stop;
done_testing();
