# ttl over a stream whose changes are applied: each row can be taken back until the watermark is the ttl past its event time,
# and one that comes later is late.  Against a model of each group, with everything lost at random, several tasks, dead
# letters, TRUNCATE; then a watermark that goes back, and a query that begins with a history.

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

sql("CREATE TABLE t (id int PRIMARY KEY, ts timestamptz, k int, v int);
	CREATE TABLE seen (query text, version int, generation int, id int, ts timestamptz, k int, v int, PRIMARY KEY (query, version));
	CREATE TABLE latest (query text, key int, generation int);
	SELECT stream_ckpt.attach_stream('t', 'ts', watermark_delay => '10 seconds', changes => 'apply')");

# name => [ttl in seconds, key, select list, HAVING, options, the value that is a dead letter]
my %queries = (
	plain => [ 60, 'k', 'count(*) AS n, sum(v) AS s' ],
	short => [ 1, 'k', 'count(*) AS n, avg(v::numeric) AS a' ],
	texts => [ 100, "'a key of some length ' || k", 'count(*) AS n, count(DISTINCT v) AS d, array_agg(v ORDER BY v, id) AS l' ],
	arrays => [ 100, 'ARRAY[k]', 'count(*) AS n, max(v) AS m' ],
	filtered => [ 60, 'k', 'count(*) AS n, sum(v) AS s', 'HAVING count(*) % 3 <> 1' ],
	letters => [ 60, 'k', 'count(*) AS n, sum(100 / (v - 7)) AS s, array_agg(v ORDER BY v, id) AS l', '', "on_error => 'dead_letter'", 7 ]);

for my $name (sort keys %queries)
{
	my ($ttl, $key, $list, $having, $options) = @{ $queries{$name} };

	create_query($node, $name, 't', emit => 'update', options => join(', ', "ttl => '$ttl seconds'", $options || ()),
		select => "SELECT $key AS kk, $list FROM t GROUP BY $key " . ($having // ''));
}
wait_running($node);

# The rows that are left of a group's last generation; the result has those of older ones as they were when they went.
sub truth
{
	my ($name) = @_;
	my (undef, $key, $list, $having) = @{ $queries{$name} };

	return "SELECT kk, " . join(', ', $list =~ /AS (\w+)/g) . " FROM (SELECT $key AS kk, $list FROM seen JOIN latest l USING (query, generation)
		WHERE query = '$name' AND l.key IS NOT DISTINCT FROM k GROUP BY kk " . ($having // '') . ') x';
}

# name => key => { last event time or undef, generation, latest: the last one that had a row }
my %groups;
my (%table, %counters, @seen);
my ($watermark, $version, $id, $clock) = (-1e9, 0, 0, 0);

sub stamp { return $_[0] eq 'NULL' ? 'NULL' : "timestamptz '2024-01-01 UTC' + $_[0] * interval '1 second'"; }

# What becomes of a row of a query, by what it is counted then; undef: it goes to its group.
sub dropped
{
	my ($name, $row, $timeless, $late, $bad) = @_;

	return $timeless if $row->{ts} eq 'NULL';
	return $late if $row->{ts} + $queries{$name}[0] <= $watermark;
	return $bad if defined $queries{$name}[5] && $row->{v} eq $queries{$name}[5];
	return undef;
}

sub add
{
	my ($name, $row) = @_;
	my $group = $groups{$name}{ $row->{k} } //= { last => undef, generation => 0, latest => -1 };
	my $dropped = dropped($name, $row, 'null_event_times', 'late_rows', 'none');

	$counters{$name}{$dropped}++ if $dropped;
	return if $dropped;
	$group->{last} = $row->{ts} if !defined $group->{last} || $row->{ts} > $group->{last};
	$group->{latest} = $group->{generation};
	push @seen, "INSERT INTO seen VALUES ('$name', $row->{version}, $group->{generation}, $row->{id}, " . stamp($row->{ts}) . ", $row->{k}, $row->{v})";
	return;
}

sub take
{
	my ($name, $row) = @_;
	my $dropped = dropped($name, $row, 'skipped_changes', 'late_changes', 'skipped_changes');

	$counters{$name}{$dropped}++ if $dropped;
	push @seen, "DELETE FROM seen WHERE query = '$name' AND version = $row->{version}" unless $dropped;
	return;
}

# The watermark has moved: groups that weren't touched for so long are gone.
sub forget
{
	for my $name (keys %groups)
	{
		for my $group (values %{ $groups{$name} })
		{
			next unless defined $group->{last} && $group->{last} + $queries{$name}[0] <= $watermark;
			$group->{last} = undef;
			$group->{generation}++;
		}
	}
	return;
}

sub insert_row
{
	my ($row, $greatest) = @_;

	$row->{version} = ++$version;
	$table{ $row->{id} } = $row;
	add($_, $row) for sort keys %queries;
	$$greatest = $row->{ts} if $row->{ts} ne 'NULL' && $row->{ts} > $$greatest;
	return;
}

sub delete_row
{
	my ($row) = @_;

	take($_, $row) for sort keys %queries;
	delete $table{ $row->{id} };
	return;
}

sub new_time { return rand() < 0.05 ? 'NULL' : $clock - int rand $_[0]; }

# A statement, and what it does.
sub step
{
	my ($behind, $greatest) = @_;
	my $what = pick(qw(insert insert delete delete value value time key));
	my %set = $what eq 'value' ? (v => pick('NULL', 0 .. 40)) : $what eq 'key' ? (k => pick('NULL', 0 .. 8)) : (ts => new_time($behind));

	if ($what eq 'insert')
	{
		my @values;

		for (1 .. pick(1, 1, 3, 10, 40))
		{
			my $row = { id => ++$id, ts => new_time($behind), k => pick('NULL', 0 .. 8), v => pick('NULL', 0 .. 40) };

			insert_row($row, $greatest);
			push @values, "($row->{id}, " . stamp($row->{ts}) . ", $row->{k}, $row->{v})";
		}
		return 'INSERT INTO t VALUES ' . join(', ', @values);
	}
	my @ids = sort { $b <=> $a } keys %table;
	my %chosen;

	splice @ids, 60 if @ids > 60 && rand() < 0.8;
	$chosen{ $ids[ rand @ids ] } = 1 for 1 .. (@ids ? pick(1, 2, 5, 20) : 0);
	my @rows = map { $table{$_} } sort { $a <=> $b } keys %chosen;
	return () unless @rows;
	my $in = 'id IN (' . join(', ', map { $_->{id} } @rows) . ')';
	if ($what eq 'delete')
	{
		delete_row($_) for @rows;
		return "DELETE FROM t WHERE $in";
	}
	for (@rows)
	{
		my $row = { %$_, %set };

		# a change of nothing is none
		next if join(' ', map { $row->{$_} } qw(ts k v)) eq join(' ', map { $_ } @{$_}{qw(ts k v)});
		delete_row($_);
		insert_row($row, $greatest);
	}
	my ($column, $value) = %set;
	return "UPDATE t SET $column = " . ($column eq 'ts' ? stamp($value) : $value) . " WHERE $in";
}

sub truncate_table
{
	for my $name (keys %groups)
	{
		for my $k (keys %{ $groups{$name} })
		{
			my $group = $groups{$name}{$k};

			next unless defined $group->{last};
			push @seen, "DELETE FROM seen WHERE query = '$name' AND generation = $group->{generation} AND k IS NOT DISTINCT FROM $k";
			$group->{last} = undef;
		}
	}
	%table = ();
	return 'TRUNCATE t';
}

sub transaction
{
	my ($behind, $truncate) = @_;
	my $greatest = $watermark + 10;
	my @sql;

	@seen = ();
	push @sql, truncate_table() if $truncate;
	push @sql, step($behind, \$greatest) for 1 .. pick(1, 1, 2, 4);
	sql('BEGIN; ' . join('; ', @sql) . '; COMMIT') if @sql;
	sql('BEGIN; ' . join('; ', @seen) . '; COMMIT') if @seen;
	$watermark = $greatest - 10;
	forget();
	return;
}

sub check
{
	my ($test) = @_;
	my @latest;

	for my $name (sort keys %groups)
	{
		push @latest, map { "('$name', $_, $groups{$name}{$_}{latest})" } keys %{ $groups{$name} };
	}
	sql('TRUNCATE latest; INSERT INTO latest VALUES ' . join(', ', @latest));
	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		results_ok($node, $name, "$test: $name", emit => 'update', synced => 1, truth => truth($name)) or BAIL_OUT("SEED=$seed");
		is(counter($node, $name, $_), $counters{$name}{$_} // 0, "$test: $name: $_") for qw(late_rows late_changes skipped_changes null_event_times);
	}
	return;
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(3, 10, 20))
	{
		$clock += pick(0, 5, 20, 20, 60, 100);
		transaction(pick(10, 30, 100, 400), rand() < 0.03);
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.08;
		# all queries are compiled again, and keep their state
		sql('DROP TEXT SEARCH CONFIGURATION IF EXISTS other; CREATE TEXT SEARCH CONFIGURATION other (COPY = simple)') if rand() < 0.1;
	}
	if (rand() < 0.5)
	{
		sql("SELECT stream_ckpt.alter_query('$_', parallelism => " . pick(1, drawn($node)->{tasks}) . ')') foreach qw(plain texts);
		wait_running($node);
	}
	check("round $round");
}
for my $counter (qw(late_rows late_changes skipped_changes null_event_times))
{
	my $n = 0;

	$n += $counters{$_}{$counter} // 0 for keys %queries;
	cmp_ok($n, '>', 0, "some $counter");
}

# Nothing but the result is left.
$clock += 100000;
sql("INSERT INTO t VALUES (0, " . stamp($clock) . ", 0, 0)");
sync_pipelines($node);
checkpoint_all($node);
is(counter($node, $_, 'groups'), 1, "$_: one group is left") for sort keys %queries;

# What was past its ttl stays so when the watermark goes back; other rows come and go.
sql("CREATE TABLE b (id int, ts timestamptz, k int); SELECT stream_ckpt.attach_stream('b', 'ts', changes => 'apply')");
create_query($node, 'back', 'b', emit => 'update', select => 'SELECT k, count(*) AS n FROM b GROUP BY k', options => "ttl => '1 minute'");
my $of_back = "SELECT string_agg(k || '=' || n, ' ' ORDER BY k) FROM back";
sql("INSERT INTO b VALUES (1, '2024-01-01 00:00 UTC', 1), (2, '2024-01-01 00:00:30 UTC', 1), (3, '2024-01-01 00:00 UTC', 2)");
sql("INSERT INTO b VALUES (4, '2024-01-01 00:01:10 UTC', 3)");
sql("INSERT INTO b VALUES (5, '2024-01-01 00:00:05 UTC', 1)");
sql("SELECT stream_ckpt.reset_watermark('b', '2024-01-01 00:00 UTC')");
lose_state($node, 'task');
sql("INSERT INTO b VALUES (6, '2024-01-01 00:00:10 UTC', 2), (7, '2024-01-01 00:00:20 UTC', 2), (8, '2024-01-01 00:00:20 UTC', 2)");
sql('DELETE FROM b WHERE id IN (1, 2, 3, 5, 6, 7)');
sync_pipelines($node);
is(sql($of_back), '1=1 2=1 3=1', 'after the watermark went back');
is(counter($node, 'back', 'late_rows'), 2, 'what was late stays late');
is(counter($node, 'back', 'late_changes'), 4, 'and is never taken back');

# One that begins with a history has of each group what came within its ttl, and takes rows back from it.
sql("SELECT stream_ckpt.create_query('history', 'SELECT k, count(*) AS n, min(id) AS first FROM b GROUP BY k', ttl => '1 minute', backfill => true)");
wait_running($node);
sql("DELETE FROM b WHERE id IN (4, 8); INSERT INTO b VALUES (9, '2024-01-01 00:01:15 UTC', 3)");
sync_pipelines($node);
is(sql("SELECT string_agg(k || '=' || n || '/' || first, ' ' ORDER BY k) FROM history"), '3=1/9', 'with a history');

$node->stop;
done_testing();
