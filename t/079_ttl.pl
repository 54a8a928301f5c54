# ttl: the state of a group goes when the watermark is that far behind its last row, and its result row stays; a group that
# comes back begins anew.  Against a model of each group, with everything lost at random, several tasks, dead letters.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 5;
my $node = new_node('main', '', draw => { memory => [0], bucket => [0], tasks => [ 1, 2 ] });
sub sql { return $node->safe_psql('postgres', $_[0]); }

sub refused
{
	my ($select, $options, $error, $test) = @_;
	my ($ret, $stdout, $stderr) = try_psql($node, "SELECT stream_ckpt.create_query('refused', \$\$ $select \$\$, $options)");
	return like($stderr, $error, $test);
}

# txn: the transaction, by which the model knows the watermark
sql("CREATE TABLE t (id int, ts timestamptz, k int, v int, part int);
	CREATE TABLE timeless (k int);
	CREATE TABLE generations (query text, id int, kk text, generation int)");
attach($node, 't', delay => '10 seconds');
sql("SELECT stream_ckpt.attach_stream('timeless')");

refused("SELECT w.window_start, count(*) FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1", "ttl => '1 minute'", qr/ttl is for queries without a window.*HINT/s, 'ttl with a window');
refused('SELECT count(*) FROM t', "ttl => '1 minute'", qr/ttl needs GROUP BY/, 'ttl without keys');
refused('SELECT k FROM t', "ttl => '1 minute'", qr/ttl needs GROUP BY/, 'ttl without groups');
refused('SELECT k, count(*) FROM timeless GROUP BY 1', "ttl => '1 minute'", qr/no event time/, 'ttl without event times');
refused('SELECT k, count(*) FROM t GROUP BY 1', "ttl => '0'", qr/"ttl" must be greater than zero/, 'a ttl of nothing');
refused('SELECT k, count(*) FROM t GROUP BY 1', "ttl => '-1 s'", qr/"ttl" must/, 'a negative one');
refused('SELECT k, count(*) FROM t GROUP BY 1', "ttl => '1 month'", qr/"ttl" must not contain months/, 'one without a length');

refused('SELECT k, v, n FROM (SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v) AS n FROM t) x WHERE n = 1', "ttl => '1 minute'", qr/ttl is not supported with several rows of a group/,
	'a ttl of several rows');

# name => [ttl in seconds, key, select list, HAVING, options, rows that count]
my %queries = (
	plain => [ 60, 'k', 'count(*) AS n, sum(v) AS s' ],
	short => [ 1, 'k', 'count(*) AS n, avg(v::numeric) AS a' ],
	texts => [ 100, "'a key of some length ' || k", 'count(*) AS n, count(DISTINCT v) AS d, array_agg(v ORDER BY v, id) AS l' ],
	arrays => [ 100, 'ARRAY[k]', 'count(*) AS n, max(v::text) AS m' ],
	filtered => [ 60, 'k', 'count(*) AS n, sum(v) AS s', 'HAVING count(*) % 3 <> 1' ],
	letters => [ 60, 'k', 'count(*) AS n, sum(100 / (v - 7)) AS s, array_agg(v ORDER BY v, id) AS l', '', "on_error => 'dead_letter'", 'v IS DISTINCT FROM 7' ]);

for my $name (sort keys %queries)
{
	my ($ttl, $key, $list, $having, $options) = @{ $queries{$name} };

	create_query($node, $name, 't', emit => 'update', options => join(', ', "ttl => '$ttl seconds'", $options || ()),
		select => "SELECT $key AS kk, $list FROM t GROUP BY $key " . ($having // ''));
}
wait_running($node);

# Which generation of its group a row belongs to: name => key => [ last event time, generation ].
my %groups;
my $greatest;
sub generation
{
	my ($name, $ts, $key) = @_;
	my $group = $groups{$name}{$key} //= [ undef, 0 ];

	$ts = $ts eq 'NULL' ? $greatest : $ts;
	$group->[0] = $ts if !defined $group->[0] || (defined $ts && $ts > $group->[0]);
	return $group->[1];
}

# The watermark has moved: groups that weren't touched for so long are gone.
sub forget
{
	for my $name (keys %groups)
	{
		for my $group (values %{ $groups{$name} })
		{
			next unless defined $group->[0] && defined $greatest && $group->[0] + $queries{$name}[0] <= $greatest - 10;
			$group->[0] = undef;
			$group->[1]++;
		}
	}
	return;
}

my ($clock, $id) = (0, 0);
my $timeless = 0.05;    # rows without an event time
sub insert
{
	my ($rows, $behind) = @_;
	my (@values, @generations);
	my $most = $greatest;

	for (1 .. $rows)
	{
		my ($ts, $k, $v) = (rand() < $timeless ? 'NULL' : $clock - int rand $behind, pick('NULL', 0 .. 8), pick('NULL', 0 .. 40));

		$id++;
		push @values, "($id, timestamptz '2024-01-01 UTC' + $ts * interval '1 second', $k, $v)";
		for my $name (sort keys %queries)
		{
			next if $queries{$name}[5] && $v eq '7';
			push @generations, "('$name', $id, " . generation($name, $ts, $k) . ')';
		}
		$most = $ts if $ts ne 'NULL' && (!defined $most || $ts > $most);
	}
	sql('INSERT INTO generations (query, id, generation) VALUES ' . join(', ', @generations)) if @generations;
	sql('INSERT INTO t VALUES ' . join(', ', @values));
	# nothing goes but when the watermark moves
	my $moved = defined $most && (!defined $greatest || $most > $greatest);
	$greatest = $most;
	forget() if $moved;
	return;
}

# The rows of a group's last generation that had any; one that HAVING excludes has no row in the result.
sub truth
{
	my ($name) = @_;
	my (undef, $key, $list, $having) = @{ $queries{$name} };

	return "SELECT kk, " . join(', ', $list =~ /AS (\w+)/g) . " FROM (SELECT $key AS kk, $list, generation, max(generation) OVER (PARTITION BY $key) AS last, "
	  . ($having ? $having =~ s/HAVING (.*)/($1)/r : 'true') . " AS shown
		FROM t JOIN generations g USING (id) WHERE g.query = '$name' GROUP BY $key, generation) x WHERE generation = last AND shown";
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(3, 10, 20))
	{
		$clock += pick(0, 5, 20, 20, 60, 100);
		insert(pick(1, 1, 3, 10, 60), pick(10, 30, 100, 400));
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.08;
	}
	if (rand() < 0.5)
	{
		sql("SELECT stream_ckpt.alter_query('$_', parallelism => " . pick(1, drawn($node)->{tasks}) . ')') foreach qw(plain texts);
		wait_running($node);
	}
	sync_pipelines($node);
	results_ok($node, $_, "round $round: $_", emit => 'update', synced => 1, truth => truth($_)) or BAIL_OUT("SEED=$seed") for sort keys %queries;
}

# Nothing but the result is left.
$timeless = 0;
$clock += 100000;
insert(1, 1);
sync_pipelines($node);
checkpoint_all($node);
is(counter($node, $_, 'groups'), 1, "$_: one group is left") for sort keys %queries;
results_ok($node, $_, "at the end: $_", emit => 'update', truth => truth($_)) for sort keys %queries;
is(sql("SELECT count(*) > 8 FROM plain"), 't', 'result rows stay');
like(sql("SELECT string_agg(x, E'\\n') FROM stream_ckpt.explain_query('plain') x"), qr/state: until the watermark is 00:01:00 past a group's last row/, 'explain_query()');

my (undef, undef, $stderr) = try_psql($node, "SELECT stream_ckpt.verify('plain')");
like($stderr, qr/batch truth of "plain" cannot be had.*begin anew after their ttl/s, 'verify() has nothing to compare with');

# DISTINCT ON, and a stream whose first rows have no event time.
sql('CREATE TABLE f (ts timestamptz, k int, v int)');
attach($node, 'f');
create_query($node, 'first_rows', 'f', emit => 'update', select => 'SELECT DISTINCT ON (k) k, v FROM f ORDER BY k, v', options => "ttl => '1 minute'");
create_query($node, 'sums', 'f', emit => 'update', select => 'SELECT k, sum(v) AS v FROM f GROUP BY k', options => "ttl => '1 minute'");
sql("INSERT INTO f VALUES (NULL, 1, 10), ('infinity', 1, 20), (NULL, 2, 5)");
lose_state($node, 'task');
sql("INSERT INTO f VALUES ('2024-01-01 00:00 UTC', 1, 5), ('2024-01-01 00:00 UTC', 3, 3)");
sql("INSERT INTO f VALUES ('2024-01-01 00:01 UTC', 4, 1)");
sql("INSERT INTO f VALUES ('2024-01-01 00:01 UTC', 1, 30), ('2024-01-01 00:01 UTC', 2, 7)");
sync_pipelines($node);
is(sql("SELECT string_agg(k || '=' || v, ' ' ORDER BY k) FROM first_rows"), '1=30 2=5 3=3 4=1', 'DISTINCT ON begins anew');
is(sql("SELECT string_agg(k || '=' || v, ' ' ORDER BY k) FROM sums"), '1=30 2=12 3=3 4=1', 'a group without event times waits for its first');

$node->stop;
done_testing();
