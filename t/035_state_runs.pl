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

test_seed();
my $rounds = $ENV{ROUNDS} || 6;

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

for my $round (1 .. $rounds)
{
	for (1 .. pick(2, 3, 5))
	{
		sql(insert_rows());
		checkpoint_all($node) if rand() < 0.7;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast')) if rand() < 0.4;
	}
	$hour++ if rand() < 0.4;
	lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'));
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
# Runs made here: which there are, and their entries at a range of positions
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

my ($FIRST, $LAST, $CONTINUES, $APART) = (1, 2, 4, 8);

sub varint { my ($n) = @_; my $bytes = ''; for (; $n >= 0x80; $n >>= 7) { $bytes .= chr(0x80 | $n & 0x7F); } return $bytes . chr $n; }

# The chunks of a run of these entries ([position, bytes]), none longer than "size": [position, seq, bytes].
sub make_run
{
	my ($run, $size, @entries) = @_;
	my (@chunks, $payload, $first_entry, $position, $begun, $continues, $last);
	my $begin = sub { ($payload, $first_entry, $position, $begun, $continues) = ('', 0xFFFF, $_[0], 0, $_[1]); };
	my $total = 0;
	my $end = sub {
		my ($is_last) = @_;
		my $seq = @chunks;

		$total += 84 + length $payload;
		my $header = pack 'LSSLLLCCSqqqLsSLLQQ', 0x53434C34, 4,
		  ($seq == 0 ? $FIRST : 0) | ($is_last ? $LAST : 0) | ($continues ? $CONTINUES : 0) | ($run->{apart} ? $APART : 0),
		  $seq, 0, 0, $run->{level} // 0, 0, $first_entry, @$run{qw(pane age born)}, $position,
		  $run->{key_group}, $run->{more} // 127, $begun, length $payload, $is_last ? (scalar @entries, $total) : (0, 0);
		push @chunks, [ $position, $seq, $header . pack('L', crc32c($header . $payload)) . $payload ];
	};

	$begin->(0, 0);
	for my $entry (@entries)
	{
		my ($at, $bytes) = @$entry;

		if (84 + length($payload) + 20 > $size)
		{
			$end->(0);
			$begin->($at, 0);
		}
		($first_entry, $position, $last) = (length $payload, $at, $at) if $begun++ == 0;
		$payload .= varint($at - $last) . varint(length $bytes);
		$last = $at;
		while (length $bytes)
		{
			if (84 + length($payload) == $size)
			{
				$end->(0);
				$begin->($at, 1);
			}
			$payload .= substr $bytes, 0, $size - 84 - length $payload, '';
		}
	}
	# the last chunk may come without an entry
	if ($run->{trailer})
	{
		$end->(0);
		$begin->($last, 0);
	}
	$end->(!$run->{incomplete});
	return @chunks;
}

sub insert_run
{
	my ($query, $run, @chunks) = @_;

	return "INSERT INTO stream_ckpt.state_run VALUES " . join ', ',
	  map { "($query, $run->{pane}, $run->{age}, $run->{born}, $run->{key_group}, $_->[0], $_->[1], '\\x" . unpack('H*', $_->[2]) . "')" } @chunks;
}

sql(q(CREATE FUNCTION debug_runs(bigint, bigint, OUT pane bigint, OUT age bigint, OUT born bigint, OUT key_group smallint, OUT more int, OUT level int,
	OUT has_first bool, OUT complete bool, OUT last_seq int, OUT last_position bigint, OUT entries bigint, OUT bytes bigint) RETURNS SETOF record
	LANGUAGE C AS '$libdir/stream_ckpt', 'stream_ckpt_debug_runs'));
sql(q(CREATE FUNCTION debug_range(bigint, bigint, bigint, bigint, bigint, OUT pos bigint, OUT data bytea) RETURNS SETOF record
	LANGUAGE C STRICT AS '$libdir/stream_ckpt', 'stream_ckpt_debug_range'));

# Positions that come again and again, at chunks' ends, too, and entries longer than several chunks.
my $made = 1_000_000_000;
my %runs;
for my $n (1 .. 30)
{
	my %run = (pane => $n % 4 - 2, age => 1 + $n % 3, born => $n, key_group => $n % 5, level => $n % 3, apart => $n % 2, trailer => rand() < 0.3, incomplete => rand() < 0.2);
	my $most = pick(3, 100, 0xFFFFFFFF);
	my @entries = map { [ int rand($most + 1), join '', map { chr int rand 256 } 1 .. int rand pick(3, 50, 50, 1000) ] } 1 .. pick(1, 3, 40, 200);

	$entries[0][0] = pick(0, 0xFFFFFFFF) if rand() < 0.3;
	@entries = sort { $a->[0] <=> $b->[0] } @entries;
	my @chunks = make_run(\%run, pick(150, 200, 400), @entries);
	sql(insert_run($made, \%run, @chunks));
	$runs{"$run{pane}/$run{age}/$run{born}"} = { %run, entries => \@entries, chunks => \@chunks };
}
my @by_name = sort { $a->{pane} <=> $b->{pane} || $a->{age} <=> $b->{age} || $a->{born} <=> $b->{born} } values %runs;
sub listed
{
	return join "\n", map {
		my $last = $_->{chunks}[-1];
		join '|', @$_{qw(pane age born key_group)}, 127, $_->{level}, 't', $_->{incomplete} ? ('f', @$last[ 1, 0 ], 0) : ('t', @$last[ 1, 0 ], scalar @{ $_->{entries} })
	} @_;
}
my $columns = 'pane, age, born, key_group, more, level, has_first, complete, last_seq, last_position, entries';
is(sql("SELECT $columns FROM debug_runs($made, NULL)"), listed(@by_name), 'all runs of a query are listed');
for my $pane (-3 .. 2)
{
	is(sql("SELECT $columns FROM debug_runs($made, $pane)"), listed(grep { $_->{pane} == $pane } @by_name), "those of the pane $pane");
}
is( sql("SELECT count(*) FROM debug_runs($made, NULL) d WHERE complete AND bytes <> (SELECT sum(length(data)) FROM stream_ckpt.state_run r
		WHERE query_id = $made AND (r.pane, r.age, r.born) = (d.pane, d.age, d.born))"),
	'0', 'with their sizes');
is(sql("SELECT count(*) FROM debug_runs(-1, NULL)"), '0', 'a query without runs');
for my $run (@by_name)
{
	my (@sql, @expected);
	my @at = (0, 0xFFFFFFFF, 1 << 32, map { $_->[0], $_->[0] + 1 } @{ $run->{entries} }, @{ $run->{chunks} });

	@at = sort { $a <=> $b } @at;
	for (1 .. 20)
	{
		my ($first, $end) = sort { $a <=> $b } pick(@at), pick(@at);
		# of all runs of the pane and age
		push @sql, "SELECT coalesce(string_agg(pos || ':' || encode(data, 'hex'), ',' ORDER BY n), '') FROM debug_range($made, $run->{pane}, $run->{age}, $first, $end) WITH ORDINALITY AS r (pos, data, n)";
		push @expected, join ',', map {
			my $r = $_;
			map { "$_->[0]:" . unpack 'H*', $_->[1] } grep { $_->[0] >= $first && $_->[0] < $end } @{ $r->{entries} }
		} grep { $_->{pane} == $run->{pane} && $_->{age} == $run->{age} } @by_name;
	}
	is_deeply([ split /\n/, sql(join ";\n", @sql), -1 ], \@expected, "ranges of the run $run->{born} have their entries");
}
sql("DELETE FROM stream_ckpt.state_run WHERE query_id = $made");

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
#
# Runs that aren't complete: what a task leaves that ends before its part is written, and what is being deleted.
# With them the query goes on as without, and they go, in more than one transaction.
#
my %left = (pane => $pane, age => $age, born => $age + 1, key_group => 0, apart => 1, incomplete => 1);
my $garbage = join '', map { chr } 0 .. 255;
sql(insert_run($query_id, \%left, make_run(\%left, 300, map { [ $_, $garbage ] } 1 .. 50)));
# of a pane that the query has nothing of
my %other = (%left, pane => $pane + 1000 * 3600 * 1000000);
sql(insert_run($query_id, \%other, make_run(\%other, 300, [ 7, $garbage ])));
# without the flag, and without its first chunk
my %retired = (%left, born => $age + 2, apart => 0);
my @rest = make_run(\%retired, 300, map { [ $_, $garbage ] } 1 .. 3);
sql(insert_run($query_id, \%retired, @rest[ 1 .. $#rest ]));

sql('SELECT stream_ckpt.start_pipeline(\'default\')');
wait_running($node);
sql(insert_rows());
results_equal('as they were');
is(sql("SELECT count(*) FROM debug_runs($query_id, NULL) WHERE NOT complete OR NOT has_first"), '0', 'runs that are not complete go');

# an attempt that begins reads its queries' state by the index, and passes over no other: there can be gigabytes
wait_until($node, q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
	'all sessions have told what they read');
my $read = q(SELECT seq_tup_read FROM pg_stat_all_tables WHERE relid = 'stream_ckpt.state_run'::regclass);
my $before = sql($read);
for (1 .. 2)    # the first one tells at its end
{
	my $pid = pid_of($node, 'coordinator');

	sql("SELECT pg_terminate_backend($pid)");
	wait_restarted($node, 'coordinator', $pid);
	wait_running($node);
}
is(sql($read), $before, 'no attempt reads the whole table of states');

# all that a query has goes with it
sql('SELECT stream_ckpt.drop_query(\'many\')');
sync_pipelines($node);
is(sql("SELECT count(*) FROM stream_ckpt.state_run WHERE query_id = $query_id"), '0', 'a dropped query leaves no state');

$node->stop;
done_testing();
