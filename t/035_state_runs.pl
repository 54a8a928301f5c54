# State between checkpoints: panes of one group and of many chunks, keys of all kinds, kept inputs longer than a
# chunk, windows that close; written, lost and read again at random.  Then chunks that something has damaged: the query
# fails, says how, and goes on exactly when they are as they were.
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

my $seed = $ENV{SEED} || (time ^ ($$ << 8)) & 0x7fffffff;
my $rounds = $ENV{ROUNDS} || 6;
srand($seed);
diag "SEED=$seed";

sub pick { return $_[ int rand @_ ]; }

my $node = new_node('main', "max_parallel_workers_per_gather = 0\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE TABLE t (ts timestamptz, k int, v bigint, s text)');
attach($node, 't');

# name => [emit, keys, aggregates]
my %queries = (
	tiny => [ 'update', 'v < 0 AS k0', 'count(*) AS n, sum(v), max(s)' ],
	many => [ 'update', 'k AS k0, v % 3 AS k1', 'count(*) AS n, sum(v), min(k), avg(v)' ],
	closed => [ 'close', 'k % 5000 AS k0', 'count(*) AS n, sum(v), bool_or(v % 7 = 0), max(s)' ],
	general => [ 'update', '(k % 400) / 10.0 AS k0, ARRAY[v % 2, k % 20] AS k1', 'count(*) AS n, avg(v), min(s), var_pop(v)' ],
	strings => [ 'close', "md5((k % 700)::text) AS k0, (k % 3) * interval '1 hour' AS k1", 'count(*) AS n, count(DISTINCT v % 10)' ],
	inputs => [ 'update', 'k % 3 AS k0', 'md5(array_agg(s ORDER BY v, s)::text) AS all_of_it, percentile_disc(0.5) WITHIN GROUP (ORDER BY v)' ]);
for my $name (sort keys %queries)
{
	my ($emit, $keys, $aggregates) = @{ $queries{$name} };

	create_query($node, $name, 't',
		emit => $emit,
		select => "SELECT w.window_start, w.window_end, $keys, $aggregates FROM t, stream_ckpt.tumble(ts, '1 hour') w
			GROUP BY w.window_start, w.window_end, k0" . ($keys =~ /k1/ ? ', k1' : ''));
}
wait_running($node);

sub results_equal
{
	my ($test, @names) = @_;

	sync_pipelines($node);
	results_ok($node, $_, "$test: $_", emit => $queries{$_}[0], table => 't', synced => 1) for @names ? @names : sort keys %queries;
	return;
}

#
# Random rows, checkpoints, losses
#
my $hour = 0;

sub insert_rows
{
	my ($rows, $keys) = @_;
	$rows //= pick(1, 10, 300, 3000, 20000);
	$keys //= pick(1, 50, 10000, 1000000);

	# of one hour, so that panes stay open for long
	return "INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + ($hour * 3600 + i % 3500) * interval '1 second',
		(hashint4(i + $keys) & 1073741823) % $keys, hashint4(i) % 100000, CASE WHEN i % 3 = 0 THEN repeat('x', i % 40) END
		FROM generate_series(1, $rows) i";
}

sub lose_state
{
	my $how = pick('immediate', 'task', 'coordinator', 'fast');

	note "lost by: $how";
	if ($how eq 'immediate' || $how eq 'fast')
	{
		$node->stop($how);
		$node->start;
	}
	else
	{
		my $pid = pid_of($node, $how);

		kill 'TERM', $pid;
		wait_restarted($node, $how, $pid);
	}
	wait_running($node);
	return;
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(2, 3, 5))
	{
		sql(insert_rows());
		checkpoint_all($node) if rand() < 0.7;
		lose_state() if rand() < 0.4;
	}
	$hour++ if rand() < 0.4;
	lose_state();
	sql(insert_rows());
	results_equal("round $round");
}

sql(insert_rows(20000, 1000000));
results_equal('many groups');

# what a run is
my $run = 'query_id, pane, age, born, key_group';
cmp_ok(sql('SELECT max(seq) FROM stream_ckpt.state_run'), '>', 3, 'some runs have several chunks');
is( sql("SELECT count(*) FROM (SELECT count(*) AS n, min(seq) AS first, max(seq) AS last,
	bool_and(ordered) AS ordered FROM (SELECT *, position >= lag(position, 1, position) OVER (PARTITION BY $run ORDER BY seq) AS ordered
		FROM stream_ckpt.state_run) s GROUP BY $run) r WHERE NOT ordered OR first <> 0 OR last <> n - 1"),
	'0', 'runs are in order of position, without gaps');
is(sql('SELECT count(*) FROM stream_ckpt.state_chunk'), '0', 'nothing is written as before');
is( sql('SELECT count(*) FROM stream_ckpt.state_run r JOIN stream_ckpt.checkpoint_offset o USING (query_id) WHERE r.age > o.age'),
	'0', 'no run is newer than its query');
is( sql("SELECT count(DISTINCT pane) FROM stream_ckpt.state_run JOIN stream_ckpt.query USING (query_id) WHERE relid = 'closed'::regclass"),
	'1', 'closed windows have no state');

#
# A large pane that goes on changing is written whole in pieces
#
sql('CREATE TABLE large_t (ts timestamptz, k int, v int)');
attach($node, 'large_t');
create_query($node, 'large', 'large_t',
	select => q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM large_t, stream_ckpt.tumble(ts, '1 day') w GROUP BY 1, 2, 3));
sync_pipelines($node);
sql(q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')));
my $of_large = q(stream_ckpt.state_run JOIN stream_ckpt.query USING (query_id) WHERE relid = 'large'::regclass);
sub restart_task
{
	my $pid = pid_of($node, 'task');

	kill 'TERM', $pid;
	wait_restarted($node, 'task', $pid);
	wait_running($node);
	return;
}
sub change_large
{
	my ($keys, $first, $n) = @_;

	sql("INSERT INTO large_t SELECT '2024-01-01 00:00 UTC', i % $keys, i % 7 FROM generate_series($first, $first + $n - 1) i");
	checkpoint_all($node);
	return split /\|/,
	  sql("SELECT sum(length(data)) FILTER (WHERE age = (SELECT max(age) FROM $of_large)), sum(length(data)), min(age) FROM $of_large");
}
my ($whole, undef, $oldest) = change_large(100000, 0, 100000);
my ($most, $most_live, $replaced) = (0, 0, 0);
for my $round (1 .. 36)
{
	# one half never: it stays because it is written again
	my ($written, $live, $min_age) = change_large(50000, $round * 7000, 10000);

	$most = $written if $written > $most;
	$most_live = $live if $live > $most_live;
	$replaced++ if $min_age > $oldest;
	$oldest = $min_age;
	# while the pieces are being written, and after that
	restart_task() if $round == 13 || $round == 36;
}
cmp_ok($most, '<', 0.6 * $whole, 'no checkpoint writes all of it');
cmp_ok($replaced, '>=', 2, 'older runs go');
cmp_ok($most_live, '<', 4.5 * $whole, 'and do not pile up');
sql(q(INSERT INTO large_t VALUES ('2024-01-03 00:00 UTC', 1, 1)));
sql(q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '100 ms')));
results_ok($node, 'large', 'a large pane', table => 'large_t');

#
# Damaged chunks
#
sub crc32c
{
	my ($bytes) = @_;
	my $crc = 0xFFFFFFFF;

	for my $byte (unpack 'C*', $bytes)
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82F63B78 : $crc >> 1 for 1 .. 8;
	}
	return $crc ^ 0xFFFFFFFF;
}

# The last run of query "many" that has several chunks; the first chunk of it.
my ($query_id, $pane, $age) = split /\|/,
  sql("SELECT query_id, pane, max(age) FROM stream_ckpt.state_run JOIN stream_ckpt.query USING (query_id)
	WHERE relid = 'many'::regclass AND seq = 1 GROUP BY 1, 2 LIMIT 1");
my $this_run = "query_id = $query_id AND pane = $pane AND age = $age";
sub chunk { return pack 'H*', sql("SELECT encode(data, 'hex') FROM stream_ckpt.state_run WHERE $this_run AND seq = $_[0]"); }

# Sets the first chunk's bytes, with a checksum that is right, by what "change" makes of header and payload.
sub set_chunk
{
	my ($change) = @_;
	my $bytes = chunk(0);
	my ($header, $payload) = (substr($bytes, 0, 80), substr($bytes, 84));

	$change->($header, $payload);
	my $data = unpack 'H*', $header . pack('L', crc32c($header . $payload)) . $payload;
	return "UPDATE stream_ckpt.state_run SET data = decode('$data', 'hex') WHERE $this_run AND seq = 0";
}

my $bytes = chunk(0);
is(unpack('L', substr $bytes, 80, 4), crc32c(substr($bytes, 0, 80) . substr($bytes, 84)), 'the checksum is CRC-32C');
my $first = "UPDATE stream_ckpt.state_run SET %s WHERE $this_run AND seq = 0";
my @damages = (
	[ 'it is too short', sprintf $first, 'data = substr(data, 1, 70)' ],
	[ 'it doesn\'t begin with the magic number', sprintf $first, 'data = set_byte(data, 0, 0)' ],
	[ 'its format version isn\'t known', sprintf $first, 'data = set_byte(data, 4, 5)' ],
	[ 'its length is wrong', sprintf $first, 'data = substr(data, 1, length(data) - 1)' ],
	[ 'its checksum is wrong', sprintf $first, 'data = set_byte(data, 500, get_byte(data, 500) # 1)' ],
	[ 'it belongs to another place', sprintf $first, 'position = position - 1' ],
	[ 'it comes out of order', "DELETE FROM stream_ckpt.state_run WHERE $this_run AND seq = 0" ],
	[ 'it comes out of order', "DELETE FROM stream_ckpt.state_run WHERE $this_run AND seq = 1" ],
	[
		'has no last chunk', "DELETE FROM stream_ckpt.state_run r WHERE $this_run AND seq = (SELECT max(seq) FROM stream_ckpt.state_run m WHERE $this_run)"
	],
	[ 'the position of an entry is wrong', set_chunk(sub { $_[1] = "\1" . substr $_[1], 1 }) ],
	[ 'The kind of an entry isn\'t known', set_chunk(sub { substr($_[1], 2, 1) = chr(0x80 | ord substr $_[1], 2, 1) }) ],
	[ 'its first entry is elsewhere', set_chunk(sub { substr($_[0], 22, 2) = pack 'S', 1 }) ],
	[ 'it holds more than its entries', set_chunk(sub { substr($_[0], 56, 4) = pack 'L', 1 }) ],
	[ 'an entry is incomplete', set_chunk(sub { substr($_[0], 56, 4) = pack 'L', 1 + unpack 'L', substr $_[0], 56, 4 }) ],
	[ 'it doesn\'t fit the entry before it', set_chunk(sub { substr($_[0], 6, 2) = pack 'S', 4 | unpack 'S', substr $_[0], 6, 2 }) ],
	[ 'A value reaches past the end of its entry', set_chunk(sub { substr($_[1], 4, 1) = "\xFF" x 1; substr($_[1], 5, 10) = "\xFF" x 10 }) ]);

sql('SELECT stream_ckpt.stop_pipeline(\'default\')');
wait_status($node, 'stopped');
sql('CREATE TABLE undamaged AS TABLE stream_ckpt.state_run');
for my $damage (@damages)
{
	my ($what, $sql) = @$damage;

	sql($sql);
	sql('SELECT stream_ckpt.start_pipeline(\'default\')');
	wait_until($node, 'SELECT message IS NOT NULL AND sqlstate IS NOT NULL FROM stream_ckpt.queries WHERE query = \'many\'::regclass', 'the query fails');
	like(
		sql('SELECT message, detail FROM stream_ckpt.queries WHERE query = \'many\'::regclass'),
		qr/^state of a continuous query is corrupted\|.*\Q$what\E/,
		$what);
	sql('SELECT stream_ckpt.stop_pipeline(\'default\')');
	wait_status($node, 'stopped');
	sql("BEGIN; DELETE FROM stream_ckpt.state_run WHERE $this_run; INSERT INTO stream_ckpt.state_run SELECT * FROM undamaged WHERE $this_run; COMMIT");
	sql('SELECT stream_ckpt.resume_query(\'many\')');
}
sql('SELECT stream_ckpt.start_pipeline(\'default\')');
wait_running($node);
sql(insert_rows());
results_equal('as they were');

# all that a query has goes with it
sql('SELECT stream_ckpt.drop_query(\'many\')');
sync_pipelines($node);
is(sql("SELECT count(*) FROM stream_ckpt.state_run WHERE query_id = $query_id"), '0', 'a dropped query leaves no state');

diag "SEED=$seed" unless Test::More->builder->is_passing;
$node->stop;
done_testing();
