# Retention by partition: DETACH, DROP and TRUNCATE of a partition of a stream whose changes are applied are no change to results
# if all windows of its rows are over, and after ignore_deletes(); else they are refused.
#
# First what is to be seen in a few rows; then random ones, while everything is lost at random.  The truth of those is a table
# that keeps what partitions take away.
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
my $rounds = $ENV{ROUNDS} || 2;
my $node = new_node('main', "timezone = 'UTC'\n", draw => { batch => [ 0, 1, 7 ], tasks => [ 1, 2, 4 ], memory => [0] });

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

my $ignore = q(SELECT stream_ckpt.ignore_deletes('p'));
my $open = qr/reads stream "p", and its changes are applied.*windows that aren't over, or without a window.*ignore_deletes\(stream\)/s;

# days, of which the third is cut further, by another key; one for the rest
sql('CREATE TABLE p (ts timestamptz, k int, v int) PARTITION BY RANGE (ts)',
	(map { "CREATE TABLE d$_ PARTITION OF p FOR VALUES FROM ('2024-01-0$_') TO ('2024-01-0" . ($_ + 1) . "')" } 1, 2, 4 .. 8),
	q(CREATE TABLE old PARTITION OF p FOR VALUES FROM (MINVALUE) TO ('2024-01-01')),
	q(CREATE TABLE d3 PARTITION OF p FOR VALUES FROM ('2024-01-03') TO ('2024-01-04') PARTITION BY LIST (k)),
	(map { "CREATE TABLE d3_$_ PARTITION OF d3 FOR VALUES IN ($_)" } 0 .. 2),
	'CREATE TABLE rest PARTITION OF p DEFAULT',
	'CREATE TABLE kept (LIKE p)', 'CREATE TABLE high (ts timestamptz)',
	q(SELECT stream_ckpt.attach_stream('p', 'ts', watermark_delay => '1 hour', changes => 'apply')));

my %queries = (
	hours => [ 'close', "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM p, stream_ckpt.tumble(ts, '1 hour') w GROUP BY 1, 2, 3" ],
	hops => [ 'update', "SELECT w.window_start, k, count(*) AS n, min(v) AS least FROM p, stream_ckpt.hop(ts, '1 hour', '3 hours') w GROUP BY 1, 2" ],
	steps => [ 'close', "SELECT w.window_end, k, count(*) AS n FROM p, stream_ckpt.cumulate(ts, '2 hours', '1 day') w GROUP BY 1, 2" ],
	late => [ 'update', "SELECT w.window_start, k, count(*) AS n, sum(v) AS total FROM p, stream_ckpt.tumble(ts, '1 day') w GROUP BY 1, 2", "allowed_lateness => '6 hours'" ],
);
create_query($node, $_, 'p', emit => $queries{$_}[0], select => $queries{$_}[1], options => $queries{$_}[2]) for sort keys %queries;
wait_running($node);

sub all_ok
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		results_ok($node, $name, "$test: $name", emit => $queries{$name}[0], table => 'high', delay => '1 hour', synced => 1, truth => $queries{$name}[1] =~ s/FROM p\b/FROM kept/r)
		  or diag "SEED=$seed";
	}
	return;
}

# Rows come into the stream, and into what is kept of it.
sub add
{
	my ($rows) = @_;

	return ("INSERT INTO p (ts, k, v) $rows", "INSERT INTO kept $rows", 'INSERT INTO high SELECT max(ts) FROM kept');
}

sub hours { return "SELECT timestamptz '$_[0]' + i * interval '20 minutes', i % 3, i FROM generate_series(0, $_[1] * 3 - 1) i"; }

sub verified
{
	my ($test, @names) = @_;

	is($node->safe_psql('postgres', "SELECT stream_ckpt.verify('$_')"), '0', "$test: verify('$_')") for @names;
	return;
}

sql(add(hours('2023-12-31', 100)));
all_ok('rows');
sql('ALTER TABLE p DETACH PARTITION d1', 'DROP TABLE old', 'TRUNCATE d2', add(hours('2024-01-04 04:00', 6)));
all_ok('partitions that are over go, whatever the command');
verified('without them', sort keys %queries);
sql('DROP TABLE d3_1', 'ALTER TABLE d3 DETACH PARTITION d3_0', 'TRUNCATE d3');
sql('DROP TABLE d3', add(hours('2024-01-04 10:00', 6)));
all_ok('parts of a partition have the bounds of what they are part of');
is_refused($node, "$_ ", $open, $_) for 'ALTER TABLE p DETACH PARTITION d4', 'DROP TABLE d4', 'TRUNCATE d4', 'TRUNCATE d2, d4';
sql('INSERT INTO rest VALUES (NULL, 1, 1)');
is_refused($node, $_, $open, "$_ (no bounds)") for 'DROP TABLE rest', 'ALTER TABLE p DETACH PARTITION rest', 'TRUNCATE rest';
all_ok('after what was refused');

# the window of a day is open by its lateness
sql(add(hours('2024-01-04 16:00', 12)));
all_ok('into the next day');
is_refused($node, 'DROP TABLE d4', qr/cannot drop a partition of "p": query "late" reads stream "p"/, 'within the lateness of one query');
sql('BEGIN', $ignore, 'DROP TABLE d4', add(hours('2024-01-05 04:00', 1)), 'COMMIT');
all_ok('not after ignore_deletes()');
verified('of which they have kept', sort keys %queries);

# Rows that are still in the log when their partition goes
my $late = counter($node, 'hours', 'late_rows');
arm($node, 'reader_before_barrier', 'wait');
sql(add(hours('2024-01-05 04:05', 1)));
wait_reached($node, 'reader_before_barrier');
sql(add(hours('2024-01-05 05:00', 3)), 'BEGIN', $ignore, 'ALTER TABLE p DETACH PARTITION d5', 'COMMIT', q(INSERT INTO d2 VALUES ('2024-01-02', 1, 1)), 'DROP TABLE d2', 'DROP TABLE d5');
sql(q(CREATE TABLE d5 (LIKE p)), q(INSERT INTO d5 VALUES ('2024-01-05 12:00', 1, 1)), q(INSERT INTO d1 VALUES ('2024-01-01', 1, 1)));
disarm($node, 'reader_before_barrier');
all_ok('rows of a partition that was detached and dropped before they were read');
is(counter($node, 'hours', 'late_rows') - $late, 1, 'a late one is late, and those that came into it later are nothing to the stream');

# Savepoints; who may
sql(add(hours('2024-01-06', 1)));
is_refused($node, "BEGIN; SAVEPOINT a; $ignore; ROLLBACK TO a; DROP TABLE d6", $open, 'ignore_deletes() was rolled back');
sql('BEGIN', 'SAVEPOINT a', $ignore, 'TRUNCATE d6', 'ROLLBACK TO a', add(hours('2024-01-06 01:00', 1)), 'COMMIT');
all_ok('a partition that was truncated and is there again');
sql('CREATE ROLE stranger', 'GRANT SELECT ON p TO stranger');
is_refused($node, 'SET ROLE stranger; TRUNCATE d6', qr/permission denied for table d6/, 'a stranger');
is_refused($node, 'SET ROLE stranger; ALTER TABLE p DETACH PARTITION d6', qr/must be owner of table p/, 'a stranger');

# Without windows nothing is over
create_query($node, 'total', 'p', emit => 'update', tasks => 1, select => 'SELECT count(*) AS n, sum(v) AS total FROM p', options => 'backfill => true');
sql(q(SELECT stream_ckpt.sync('1 minute', 'total')));
sql(add(hours('2024-01-07', 30)));
sync_pipelines($node);
my $total = sql('SELECT n FROM total');
is_refused($node, 'DROP TABLE d6', qr/query "total" reads stream "p"/, 'without a window');
sql('BEGIN', $ignore, 'DROP TABLE d6', 'COMMIT');
all_ok('ignored');
is(sql('SELECT n FROM total'), $total, 'the total has kept its rows');

# The check of the session is the first one only: each query looks for itself, at its place in the log
sql(q(SELECT stream_ckpt.drop_query('total')));
sync_pipelines($node);
sql(q(INSERT INTO d8 VALUES ('2024-01-08', 1, 1)));
sync_pipelines($node);
checkpoint_all($node);
sql('BEGIN', q(UPDATE stream_ckpt.checkpoint_offset SET max_event_time = '2025-01-01'), 'DROP TABLE d8', 'COMMIT');
wait_until($node, q(SELECT bool_or(status = 'failed') FROM stream_ckpt.queries), 'a query that needs the rows fails');
like(sql(q(SELECT string_agg(message || hint, ' ') FROM stream_ckpt.queries WHERE status = 'failed')), qr/partition "(?:\d+|d8)" of the stream was truncated, detached or dropped.*rebuild_query/, 'and says why');

# Random rows, in partitions of ten minutes
sql(q(SELECT stream_ckpt.drop_query(query) FROM stream_ckpt.queries), q(SELECT stream_ckpt.detach_stream('p')), 'DROP TABLE p', 'TRUNCATE kept', 'TRUNCATE high',
	'CREATE TABLE p (ts timestamptz, k int, v int) PARTITION BY RANGE (ts, k)',
	(map { "CREATE TABLE r$_ PARTITION OF p FOR VALUES FROM (timestamptz '2024-01-01' + $_ * interval '10 minutes', MINVALUE) TO (timestamptz '2024-01-01' + " . ($_ + 1) . " * interval '10 minutes', MINVALUE)" =~ s/\(timestamptz '(.*?)' \+ (\d+) \* interval '10 minutes', MINVALUE\)/"('" . sprintf('2024-01-%02d %02d:%02d', 1 + int($2 \/ 144), int($2 \/ 6) % 24, 10 * ($2 % 6)) . "', MINVALUE)"/ger } 0 .. 150),
	q(SELECT stream_ckpt.attach_stream('p', 'ts', watermark_delay => '1 hour', changes => 'apply')));
%queries = (
	minutes => [ 'close', "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM p, stream_ckpt.tumble(ts, '3 minutes') w GROUP BY 1, 2, 3" ],
	hops => [ 'update', "SELECT w.window_start, k, count(*) AS n, min(v) AS least FROM p, stream_ckpt.hop(ts, '5 minutes', '15 minutes') w GROUP BY 1, 2" ],
	late => [ 'close', "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM p, stream_ckpt.cumulate(ts, '3 minutes', '30 minutes') w GROUP BY 1, 2, 3", "allowed_lateness => '10 minutes'" ],
);
create_query($node, $_, 'p', emit => $queries{$_}[0], select => $queries{$_}[1], options => $queries{$_}[2]) for sort keys %queries;
wait_running($node);

my ($clock, $oldest, $gone, $refused) = (0, 0, 0, 0);

for my $round (1 .. $rounds)
{
	for (1 .. pick(10, 20))
	{
		$clock += pick(0, 1, 5, 20);
		sql('BEGIN', add("SELECT timestamptz '2024-01-01' + $clock * interval '1 minute' - i * interval '25 seconds', i % 3, i FROM generate_series(" . ($clock == 0 ? 0 : -5) . ', ' . ($clock < 40 ? 0 : 40) . ') i'), 'COMMIT')
		  if rand() < 0.8;
		sql(map { ("DELETE FROM $_ WHERE v % 7 = $round AND ts > timestamptz '2024-01-01' + ($clock - 40) * interval '1 minute'") } qw(p kept)) if rand() < 0.2;
		# one without rows may always go, so not before the rows that are to come into it
		if (rand() < 0.6 && ($oldest + 1) * 10 + 20 < $clock)
		{
			my ($ret, $stdout, $stderr) = $node->psql('postgres', pick("ALTER TABLE p DETACH PARTITION r$oldest", "DROP TABLE r$oldest", "TRUNCATE r$oldest"));

			if ($ret == 0) { $oldest++; $gone++; }
			else { like($stderr, qr/and its changes are applied/, "r$oldest stays"); $refused++; }
		}
		checkpoint_all($node) if rand() < 0.1;
		lose_state($node, pick(qw(immediate fast task coordinator reader))) if rand() < 0.07;
	}
	$clock += 70;
	all_ok("round $round");
	verified("round $round", sort keys %queries);
}
cmp_ok($gone, '>', 2, 'partitions have gone');
cmp_ok($refused, '>', 0, 'and some had to stay');
is(sql("SELECT count(*) FROM stream_ckpt.queries WHERE status <> 'running'"), '0', 'no query has failed') or diag sql('SELECT query, status, message FROM stream_ckpt.queries');

$node->stop;
done_testing();
