# Queries without groups over rows that change and go: a row of the result is there as long as its row of the table passes.
# Random inserts, updates (of keys, too), moves between partitions, deletes and TRUNCATE against the definition over the table
# as it is then, while processes die; results with triggers, and results as streams.
#
# SEED=n runs the same again, ROUNDS=n more or fewer rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use Conditions;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 4;

my $node = new_node('main', "max_worker_processes = 20\n", draw => { batch => [ 0, 1, 7 ], tasks => [ 1, 2, 4 ] });
sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sql('CREATE TABLE r (id int, part int, ts timestamptz, k int, v int, s text, name text COLLATE "C", n numeric, PRIMARY KEY (part, id)) PARTITION BY LIST (part)',
	'CREATE TABLE r0 PARTITION OF r FOR VALUES IN (0)',
	'CREATE TABLE r1 (s text, gone int, v int, n numeric, name text COLLATE "C", id int NOT NULL, part int NOT NULL, ts timestamptz, k int)',
	'ALTER TABLE r1 DROP COLUMN gone',
	'ALTER TABLE r ATTACH PARTITION r1 FOR VALUES IN (1)',
	q(SELECT stream_ckpt.attach_stream('r', event_time => 'ts', watermark_delay => '1 day', changes => 'apply')));

# name => [definition, options, condition on the truth]
my %queries = (
	every => [ 'id, part, k, v, s, name FROM r' ],
	filtered => [ 's, id, v * 2 AS twice, part FROM r WHERE v % 3 <> 0' ],
	rare => [ 'id, part FROM r WHERE v = 17' ],
	tumbled => [ q(w.window_start, id, part, v FROM r, stream_ckpt.tumble(ts, '1 minute') w WHERE v > 12) ],
	hopped => [ q(part, id, k, w.window_end FROM r, stream_ckpt.hop(ts, '1 minute', '3 minutes') w WHERE v > 12 AND w.window_end > ts + interval '40 seconds') ],
	letters => [ '1000 / (v - 30) AS q, id, part FROM r', q(on_error => 'dead_letter'), 'v <> 30' ],
	hopped_letters => [ q(part, id, w.window_start, 1000 / (v - 30) AS q FROM r, stream_ckpt.hop(ts, '1 minute', '3 minutes') w WHERE 1000 / (v - 31) > 0), q(on_error => 'dead_letter'), 'v <> 30 AND v <> 31' ],
	triggered => [ 'id, part, v, s FROM r WHERE s <> \'b\'' ],
	newest => [ 'DISTINCT ON (k) k, ts, id, part, v, s FROM r WHERE v > 12 ORDER BY k, ts DESC NULLS LAST, id, part' ],
	newest_of_all => [ 'k, id, part, name, rn FROM (SELECT *, row_number() OVER (ORDER BY v, id, part) AS rn FROM r) q WHERE rn <= 5' ],
	three => [ 'k, s, rn, id, part, v + 1 AS w FROM (SELECT *, row_number() OVER (PARTITION BY k, s ORDER BY v DESC, id, part) AS rn FROM r) q WHERE rn <= 3' ],
	second => [ 'k, rn, id, part FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY id, part) AS rn FROM r WHERE v % 2 = 0) q WHERE rn BETWEEN 2 AND 4' ],
	loose => [ 'DISTINCT ON (n) n, v, id, part FROM r ORDER BY n, v DESC, id, part' ],
	best_of_window => [ q(window_start, k, rn, id, part FROM (SELECT w.window_start, k, id, part, row_number() OVER (PARTITION BY w.window_start, k ORDER BY v DESC, id, part) AS rn FROM r, stream_ckpt.tumble(ts, '1 minute') w WHERE v <> 17) q WHERE rn <= 2) ],
	best_letters => [ 'DISTINCT ON (k) k, 1000 / (v - 30) AS q, id, part FROM r ORDER BY k, v DESC, id, part', q(on_error => 'dead_letter'), 'v <> 30' ],
	different => [ 'DISTINCT k, s FROM r' ],
	different_filtered => [ 'DISTINCT v % 5 AS class, name FROM r WHERE k > 1' ]);
# those of groups go to all tasks
my $tasks = drawn($node)->{tasks};
my %grouped = map { $_ => 1 } qw(newest three second loose best_of_window best_letters different different_filtered);
sub create
{
	my ($name, $table, @options) = @_;
	my ($select, $options) = @{ $queries{ $name =~ s/^old_//r } };

	push @options, "parallelism => $tasks" if $grouped{ $name =~ s/^old_//r };
	create_query($node, $name, $table, emit => 'update', select => "SELECT $select", options => join(', ', @options, grep { $_ } $options));
	return;
}
create($_, 'r') for sort keys %queries;
sql('CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$',
	'CREATE TRIGGER nothing BEFORE INSERT OR UPDATE OR DELETE ON triggered FOR EACH ROW EXECUTE FUNCTION nothing()');
# a result as a stream
sql(q(SELECT stream_ckpt.attach_stream('every')));
is(sql(q(SELECT changes FROM stream_ckpt.streams WHERE stream = 'every'::regclass)), 'apply', 'its changes are applied');
$queries{above} = [ 'k, count(*) AS n, sum(v) AS total, max(s) AS s FROM every GROUP BY k', '', '' ];
$queries{above_rows} = [ 'part, id, s FROM every WHERE v > 20' ];
create($_, 'every') for qw(above above_rows);
wait_running($node);

sub check
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		my ($select, $options, $where) = @{ $queries{$name} };

		$select =~ s/ FROM every\b/ FROM r/;
		# the condition has to come before what fails
		$select =~ s/ FROM r\b/ FROM (SELECT * FROM r WHERE $where OFFSET 0) r/ if $where;
		results_ok($node, $name, "$test: $name", emit => 'update', synced => 1, truth => "SELECT $select")
		  or diag "SEED=$seed\n", sql("SELECT 'result', r::text FROM (TABLE $name EXCEPT ALL SELECT $select) r UNION ALL SELECT 'truth', r::text FROM (SELECT $select EXCEPT ALL TABLE $name) r LIMIT 20");
	}
	return;
}

my $new = join ', ', q('2024-01-01 UTC'::timestamptz + trunc(random() * 600) * interval '1 second'), '1 + trunc(random() * 4)::int', '10 + trunc(random() * 40)::int', q(chr(97 + trunc(random() * 3)::int)), q(repeat('x', trunc(random() * 3)::int)), q((ARRAY['1', '1.0', '1.00', '2', NULL])[1 + trunc(random() * 5)::int]::numeric);
my $id = 0;

sub rows
{
	my ($n) = @_;

	$id += $n;
	return "INSERT INTO r SELECT i, i % 2, $new FROM generate_series(" . ($id - $n + 1) . ", $id) i";
}

sub step
{
	my $what = pick(qw(insert insert insert update update update update key key move swap delete delete upsert savepoint many truncate));
	my $some = 'v % ' . pick(2, 3, 5, 7) . ' = ' . pick(0, 1);

	return rows(pick(1, 3, 20)) if $what eq 'insert';
	return "UPDATE r SET " . pick('v = v + 1', 'k = k % 3 + 1', "s = 'b'", q(ts = ts + interval '50 seconds'), 'ts = NULL', 'v = 30', 'v = 31', 'v = 17', 'id = id', q(name = name || 'y'), 'n = 2 - n', 'n = n * 1.0') . " WHERE $some" if $what eq 'update';
	# from one end to the other, so that none is there twice meanwhile
	return "UPDATE r SET id = -id WHERE $some" if $what eq 'key';
	return "UPDATE r SET part = 1 - part, id = " . ($id += 1000) . " + id WHERE $some" if $what eq 'move';
	return "UPDATE r SET id = id + 10000000 WHERE $some; UPDATE r SET id = 1 + id - 10000000 WHERE id > 5000000 AND NOT EXISTS (SELECT FROM r o WHERE o.part = r.part AND o.id = 1 + r.id - 10000000); DELETE FROM r WHERE id > 5000000" if $what eq 'swap';
	return "DELETE FROM r WHERE $some AND k = " . pick(1 .. 4) if $what eq 'delete';
	return "INSERT INTO r SELECT id, part, $new FROM r WHERE $some ON CONFLICT (part, id) DO UPDATE SET v = excluded.v, s = excluded.s" if $what eq 'upsert';
	return "CREATE TEMP TABLE again AS SELECT * FROM r WHERE $some; DELETE FROM r WHERE $some; INSERT INTO r SELECT * FROM again; DROP TABLE again" if $what eq 'many';
	return rows(5) . '; TRUNCATE r; ' . rows(pick(0, 5)) if $what eq 'truncate' && pick(1 .. 3) == 1;
	return "SAVEPOINT a; DELETE FROM r WHERE $some; " . rows(2) . "; ROLLBACK TO a; UPDATE r SET v = v + 3 WHERE $some";
}

# Queries that begin with the rows that are there, while these change and processes die.
sub create_with_history
{
	my $writer = start_writer($node, "UPDATE r SET v = v + 1 WHERE v % 3 = 1;
		DELETE FROM r WHERE (part, id) = (SELECT part, max(id) FROM r WHERE v % 2 = 0 GROUP BY part LIMIT 1);
		UPDATE r SET id = -id WHERE v % 7 = 2;\n", clients => 1, transactions => 60);

	for my $name (grep { !/^(old_|above)/ } sort keys %queries)
	{
		create("old_$name", 'r', 'backfill => true');
		$queries{"old_$name"} = $queries{$name};
		lose_state($node, pick(qw(task coordinator reader))) if pick(1 .. 3) == 1;
	}
	ok(finish_writer($writer), 'rows change meanwhile');
	wait_running($node);
	return;
}

sql(rows(50));
check('some rows');
for my $round (1 .. $rounds)
{
	create_with_history() if $round == 2;
	for (1 .. pick(5, 15))
	{
		my $sql = join(";\n", map { step() } 1 .. pick(1, 2, 5));

		# a key that another row has is nothing that happens
		my ($rc, $out, $error) = $node->psql('postgres', "BEGIN; SELECT setseed(" . rand() . ");\n$sql;\nCOMMIT");
		die "$error: $sql" if $rc != 0 && $error !~ /duplicate key/;
		if (pick(1 .. 8) == 1)
		{
			my $which = pick(qw(task coordinator reader));
			my $pid = try_psql($node, $which eq 'task' ? 'SELECT pid FROM stream_ckpt.tasks ORDER BY random() LIMIT 1' : "SELECT ${which}_pid FROM stream_ckpt.pipelines LIMIT 1", '-At') // '';

			kill 'TERM', $1 if $pid =~ /^(\d+)$/m;
		}
		# all queries are compiled again
		sql('DROP TEXT SEARCH CONFIGURATION IF EXISTS other; CREATE TEXT SEARCH CONFIGURATION other (COPY = simple)') if pick(1 .. 6) == 1;
	}
	lose_state($node, pick(qw(immediate fast task coordinator reader))) if pick(0, 1);
	check("round $round");
}
$id += 10_000_000;
# a row of the result that has the key of one that comes is overwritten, whoever wrote it
sql('INSERT INTO every (id, part, v) VALUES (' . ($id + 1) . ', ' . ($id + 1) % 2 . ', 0)');
sql(rows(20));
check('rows at the end');
is(sql("SELECT string_agg(query::text, ' ') FROM stream_ckpt.queries WHERE status <> 'running'"), '', 'all run');
is(sql("SELECT stream_ckpt.verify('$_')"), '0', "verify(): $_") for qw(every filtered hopped above_rows);

# What is large goes by a writer; all rows go at once
# (with too little memory all rows of a key would be read again and again)
my $many = drawn($node)->{memory} ? 300 : 20000;
$id += 100_000_000;
sql("INSERT INTO r SELECT i, i % 2, $new FROM generate_series($id, $id + $many) i", 'UPDATE r SET v = v + 1', 'DELETE FROM r WHERE k = 2');
check('many rows');
sql('TRUNCATE r', rows(3));
check('TRUNCATE of many rows');
is(sql("SELECT stream_ckpt.verify('$_')"), '0', "verify() after TRUNCATE: $_") for qw(every hopped);

# A row's own version is an update of its row in the result, and what changes nothing there is nothing
sql('CREATE TABLE seen (op text)', q(CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (TG_OP); RETURN NULL; END $$),
	'CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON triggered FOR EACH ROW EXECUTE FUNCTION note()', 'UPDATE r SET v = v + 1, s = \'a\'');
sync_pipelines($node);
sql('TRUNCATE seen', 'UPDATE r SET v = v + 1', q(UPDATE r SET name = 'other'));
sync_pipelines($node);
is(sql('SELECT op, count(*) FROM seen GROUP BY op'), 'UPDATE|3', 'an update is one');

# The result is made anew, and another definition takes its place
sql('DELETE FROM every WHERE v % 2 = 0', 'UPDATE every SET v = v + 1', q(SELECT stream_ckpt.rebuild_query('every')));
sql(q(SELECT stream_ckpt.replace_query('filtered', 'SELECT s, id, v * 2 AS twice, part FROM r WHERE v % 2 = 0')));
$queries{filtered} = [ 's, id, v * 2 AS twice, part FROM r WHERE v % 2 = 0' ];
sql(q(SELECT stream_ckpt.sync('3 minutes', 'every')), q(SELECT stream_ckpt.sync('3 minutes', 'filtered')));
sql(rows(30), 'UPDATE r SET v = v + 1');
check('made anew');
sql(q(SELECT stream_ckpt.rebuild_query('hopped')), q(SELECT stream_ckpt.sync('3 minutes', 'hopped')));
check('made anew, with windows');
is(sql("SELECT stream_ckpt.verify('hopped')"), '0', 'no row is of a window that is over');

# A deletion that is ignored leaves its row in the result; the next row with its key takes its place
my $gone = sql('SELECT max(id) FROM r WHERE part = 1');
sql('BEGIN', q(SELECT stream_ckpt.ignore_deletes('r')), "DELETE FROM r WHERE part = 1 AND id = $gone", 'COMMIT');
sync_pipelines($node);
is(sql("SELECT count(*) FROM every WHERE part = 1 AND id = $gone"), '1', 'the row of an ignored deletion stays');
sql("INSERT INTO r (id, part, k, v) VALUES ($gone, 1, 2, 100)");
results_ok($node, 'every', 'until another one has its key', emit => 'update');

done_testing();
