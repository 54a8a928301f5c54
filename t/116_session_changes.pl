# session() over a stream whose changes are applied: deleted rows split sessions, shorten and end them, and rows whose event
# time changes go from one to another.  Everything against gaps and islands over the rows that each query has seen, which
# are worked out here, change by change; several tasks, kills, dead letters, a definition that is compiled again, TRUNCATE.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = test_seed();
my $rounds = $ENV{ROUNDS} || 6;
my $node = new_node('main', '', draw => { memory => [0], bucket => [0], tasks => [ 1, 2 ] });
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("CREATE TABLE t (id int PRIMARY KEY, ts timestamptz, k int, v int);
	CREATE TABLE seen (query text, version int, id int, ts timestamptz, k int, v int, PRIMARY KEY (query, version));
	CREATE TABLE clock (c timestamptz);
	SELECT stream_ckpt.attach_stream('t', 'ts', changes => 'apply')");

# name => [gap in seconds, emit, lateness in seconds, key, select list, HAVING, options, rows that are none of it]
my %queries = (
	plain => [ 30, 'close', 0, 'k', 'count(*) AS n, sum(v) AS s, avg(v) AS a' ],
	no_key => [ 5, 'close', 0, '', 'count(*) AS n, sum(v) AS s' ],
	texts => [ 45, 'close', 0, "'a key of some length ' || k", 'count(v) AS n, max(v::text) AS m, string_agg(v::text, \',\' ORDER BY v, id) AS l', 'HAVING count(*) % 3 <> 1' ],
	kept => [ 20, 'close', 0, 'k', 'count(DISTINCT v) AS d, array_agg(v ORDER BY v, id) AS l, sum(v) FILTER (WHERE v > 20) AS f' ],
	late => [ 30, 'close', 120, 'k', 'count(*) AS n, sum(v) AS s, array_agg(v ORDER BY v, id) AS l' ],
	late_having => [ 60, 'close', 150, 'k', 'count(*) AS n, sum(v::numeric) AS s', 'HAVING count(*) % 3 <> 1' ],
	late_no_key => [ 4, 'close', 60, '', 'count(*) AS n, min(v) AS s' ],
	updates => [ 30, 'update', 0, 'k', 'count(*) AS n, sum(v) AS s', 'HAVING count(*) % 3 <> 1' ],
	updates_late => [ 40, 'update', 90, 'k', 'count(*) AS n, sum(v) AS s, count(DISTINCT v) AS d' ],
	updates_no_key => [ 6, 'update', 20, '', 'count(*) AS n, bool_or(v > 3) AS b' ],
	half => [ 30, 'update', 60, 'k', 'count(*) AS n, max(v) AS s', '', undef, '', sub { defined $_[0] && $_[0] > 20 }, 'v > 20' ],
	letters => [ 30, 'close', 60, 'k', 'count(*) AS n, sum(100 / (v - 7)) AS s, array_agg(v ORDER BY v, id) AS l', '', "on_error => 'dead_letter'", 7 ],
	letters_update => [ 40, 'update', 60, 'k', 'count(*) AS n, max(100 / (v - 9)) AS s', '', "on_error => 'dead_letter'", 9 ]);

# Of which nothing is ever late: their truth is the table as it is.  The last two begin with a history.
my %whole = (
	all_update => [ 30, 'update', 'k', 'count(*) AS n, array_agg(v ORDER BY v, id) AS l', 'HAVING count(*) % 3 <> 1' ],
	all_close => [ 25, 'close', "k % 2 = 0, ARRAY[k]", 'count(*) AS n, max(v) FILTER (WHERE v < 30) AS m' ],
	begun_update => [ 40, 'update', 'k', 'count(*) AS n, sum(v) AS s' ],
	begun_close => [ 8, 'close', '', 'count(v) AS n, avg(v) AS a' ]);
sub create_whole
{
	my ($name, $options) = @_;
	my ($gap, $emit, $key, $list, $having) = @{ $whole{$name} };
	my $and = $key ? ", $key" : '';

	create_query($node, $name, 't', emit => $emit, options => join(', ', "allowed_lateness => '30 days'", $options // ()),
		select => "SELECT w.window_start, w.window_end, $list" . ($key ? ', ' . join(', ', map { (split /, /, $key)[$_] . " AS k$_" } 0 .. (() = $key =~ /,/g)) : '') . "
			FROM t, stream_ckpt.session(ts, '$gap seconds') w GROUP BY w.window_start, w.window_end$and " . ($having // ''));
	return;
}
my @created = qw(all_update all_close);
create_whole($_) for @created;

for my $name (sort keys %queries)
{
	my ($gap, $emit, $lateness, $key, $list, $having, $options, undef, undef, $where) = @{ $queries{$name} };
	my $keys = $key ? ", $key AS kk" : '';

	create_query($node, $name, 't', emit => $emit, options => join(', ', "allowed_lateness => '$lateness seconds'", $options || ()),
		select => "SELECT w.window_start, w.window_end$keys, $list FROM t, stream_ckpt.session(ts, '$gap seconds') w" . ($where ? " WHERE $where" : '') . "
			GROUP BY w.window_start, w.window_end" . ($key ? ", $key" : '') . ' ' . ($having // ''));
}
wait_running($node);

# The definition: gaps and islands, over what the query has seen.
sub truth
{
	my ($name) = @_;
	my ($gap, undef, undef, $key, $list, $having) = @{ $queries{$name} };
	my $partition = $key ? "PARTITION BY $key" : '';
	my $and = $key ? ", $key" : '';

	return "SELECT min(ts) AS window_start, max(ts) + interval '$gap seconds' AS window_end" . ($key ? ", $key AS kk" : '') . ", $list
		FROM (SELECT *, sum(opens) OVER ($partition ORDER BY ts, version ROWS UNBOUNDED PRECEDING) AS island
			FROM (SELECT *, CASE WHEN lag(ts) OVER ($partition ORDER BY ts, version) + interval '$gap seconds' >= ts THEN 0 ELSE 1 END AS opens
				FROM seen WHERE query = '$name') o) i
		GROUP BY island$and " . ($having // '');
}

sub truth_of_whole
{
	my ($name) = @_;
	my ($gap, undef, $key, $list, $having) = @{ $whole{$name} };
	my $partition = $key ? "PARTITION BY $key" : '';
	my $and = $key ? ", $key" : '';

	return "SELECT min(ts) AS window_start, max(ts) + interval '$gap seconds' AS window_end, $list" . ($key ? ", $key" : '') . "
		FROM (SELECT *, sum(opens) OVER ($partition ORDER BY ts, id ROWS UNBOUNDED PRECEDING) AS island
			FROM (SELECT *, CASE WHEN lag(ts) OVER ($partition ORDER BY ts, id) + interval '$gap seconds' >= ts THEN 0 ELSE 1 END AS opens FROM t) o) i
		GROUP BY island$and " . ($having // '');
}

# Sessions as they are, from their first to their last row: name => key => [ { start, last, opened: what was over then, rows: version => ts } ].
# Rows of a transaction are judged by them as they were before it; what of them is left when rows have gone is seen to at its end.
my %sessions;
my %table;						# id => { ts, k, v, version }
my %counters;
my ($watermark, $version, $id, $clock) = (undef, 0, 0, 0);
my @seen;						# statements of the transaction at hand

sub over_of { return defined $watermark ? $watermark - $queries{ $_[0] }[2] : -1e9; }

sub list_of
{
	my ($name, $row) = @_;
	return $sessions{$name}{ $queries{$name}[3] ? $row->{k} : '' } //= [];
}

# What a row is to a query: undef: nothing; 'bad': a dead letter; or 'row'.
sub kind
{
	my ($name, $v) = @_;
	my ($bad, $passes) = @{ $queries{$name} }[ 7, 8 ];

	return undef if $passes && !$passes->($v eq 'NULL' ? undef : $v);
	return $bad && $v eq $bad ? 'bad' : 'row';
}

sub joined
{
	my ($gap, $list, $ts) = @_;
	return grep { $ts >= $_->{start} - $gap && $ts <= $_->{last} + $gap } @$list;
}

sub add
{
	my ($name, $row) = @_;
	my ($gap) = @{ $queries{$name} };
	my ($list, $ts, $over, $kind) = (list_of($name, $row), $row->{ts}, over_of($name), kind($name, $row->{v}));
	my @joined = joined($gap, $list, $ts);
	my $self = $ts + $gap < $over;

	return unless $kind;
	if ((grep { $_->{last} + $gap < $over } @joined) || ($self && !grep { $ts >= $_->{start} || $ts + $gap >= $_->{opened} } @joined))
	{
		$counters{$name}{late_rows}++;
		# it would be late for these, too, if it came again
		for (grep { $self && $_->{start} > $ts && $_->{last} + $gap >= $over } @$list)
		{
			$_->{opened} = $ts + $gap + 1e-6 if $_->{opened} < $ts + $gap + 1e-6;
		}
		return;
	}
	return if $kind eq 'bad';
	my %session = (start => $ts, last => $ts, opened => $over, rows => { $row->{version} => $ts });
	for (sort { $b->{start} <=> $a->{start} } @joined)
	{
		$session{start} = $_->{start} if $_->{start} < $session{start};
		$session{last} = $_->{last} if $_->{last} > $session{last};
		$session{opened} = $_->{opened};
		$session{rows} = { %{ $session{rows} }, %{ $_->{rows} } };
	}
	@$list = ((grep { my $s = $_; !grep { $_ == $s } @joined } @$list), \%session);
	push @seen, "INSERT INTO seen VALUES ('$name', $row->{version}, $row->{id}, " . stamp($ts) . ", $row->{k}, $row->{v})";
	return;
}

sub take
{
	my ($name, $row) = @_;
	my ($gap) = @{ $queries{$name} };
	my ($list, $ts, $over, $kind) = (list_of($name, $row), $row->{ts}, over_of($name), kind($name, $row->{v}));
	my ($session) = grep { $ts >= $_->{start} && $ts <= $_->{last} && $_->{last} + $gap >= $over } @$list;

	return unless $kind;
	if ((grep { $_->{last} + $gap < $over } joined($gap, $list, $ts)) || ($ts + $gap < $over && !$session))
	{
		$counters{$name}{late_changes}++;
		return;
	}
	if ($kind eq 'bad')
	{
		$counters{$name}{skipped_changes}++;
		return;
	}
	die "$name: a row that wasn't counted, SEED=$seed" unless $session && exists $session->{rows}{ $row->{version} };
	delete $session->{rows}{ $row->{version} };
	push @seen, "DELETE FROM seen WHERE query = '$name' AND version = $row->{version}";
	return;
}

# What is left of sessions at the end of a transaction.
sub settle
{
	for my $name (keys %queries)
	{
		my ($gap) = @{ $queries{$name} };
		my $over = over_of($name);

		for my $list (values %{ $sessions{$name} })
		{
			my @parts;

			for my $session (@$list)
			{
				if ($session->{last} + $gap < $over)
				{
					push @parts, $session;
					next;
				}
				my $part;
				for (sort { $session->{rows}{$a} <=> $session->{rows}{$b} } keys %{ $session->{rows} })
				{
					my $ts = $session->{rows}{$_};

					push @parts, $part = { start => $ts, opened => $session->{opened} } if !$part || $part->{last} + $gap < $ts;
					$part->{last} = $ts;
					$part->{rows}{$_} = $ts;
				}
			}
			@$list = @parts;
		}
	}
	return;
}

sub stamp { return "timestamptz '2024-01-01 UTC' + $_[0] * interval '1 second'"; }

# Nothing that the query reads has changed.
sub rename_row
{
	my ($name, $old, $new) = @_;

	for my $session (@{ list_of($name, $old) })
	{
		next unless exists $session->{rows}{ $old->{version} };
		$session->{rows}{ $new->{version} } = delete $session->{rows}{ $old->{version} };
		push @seen, "UPDATE seen SET version = $new->{version} WHERE query = '$name' AND version = $old->{version}";
	}
	return;
}

sub insert_row
{
	my ($row, $greatest, @of) = @_;

	$row->{version} //= ++$version;
	$table{ $row->{id} } = $row;
	add($_, $row) for @of ? @of : sort keys %queries;
	$$greatest = $row->{ts} if !defined $$greatest || $row->{ts} > $$greatest;
	return;
}

sub delete_row
{
	my ($row, @of) = @_;

	take($_, $row) for @of ? @of : sort keys %queries;
	delete $table{ $row->{id} };
	return;
}

# A few rows, rather those that came last.
sub some_rows
{
	my ($n) = @_;
	my @ids = sort { $table{$b}{ts} <=> $table{$a}{ts} || $a <=> $b } keys %table;
	my $first = rand() < 0.8 ? 40 : 400;
	my %chosen;

	splice @ids, $first if @ids > $first;
	$chosen{ $ids[ rand @ids ] } = 1 for 1 .. (@ids ? $n : 0);
	return map { $table{$_} } sort { $a <=> $b } keys %chosen;
}

# A statement, and what it does.
sub step
{
	my ($behind, $greatest) = @_;
	my $what = pick(qw(insert insert insert delete delete span value value time key));

	if ($what eq 'insert')
	{
		my @values;

		for (1 .. pick(1, 3, 10, 40))
		{
			my $row = { id => ++$id, ts => $clock - int rand $behind, k => pick('NULL', 0 .. 3), v => pick('NULL', 0 .. 40) };

			insert_row($row, $greatest);
			push @values, "($row->{id}, " . stamp($row->{ts}) . ", $row->{k}, $row->{v})";
		}
		return 'INSERT INTO t VALUES ' . join(', ', @values);
	}
	my @rows = some_rows($what =~ /time|key/ ? 1 : pick(1, 2, 5, 20));
	if ($what eq 'span')
	{
		# all between two times
		my $from = $clock - int rand $behind;
		my $to = $from + pick(3, 20, 60);

		@rows = grep { $_->{ts} >= $from && $_->{ts} <= $to } values %table;
	}
	return () unless @rows;
	my $in = 'id IN (' . join(', ', map { $_->{id} } @rows) . ')';
	if ($what =~ /delete|span/)
	{
		delete_row($_) for @rows;
		return "DELETE FROM t WHERE $in";
	}
	my %set = $what eq 'value' ? (v => pick('NULL', 0 .. 40)) : $what eq 'key' ? (k => pick('NULL', 0 .. 3)) : (ts => $clock - int rand $behind);
	for (@rows)
	{
		my $row = { %$_, %set };

		# a change of nothing is none
		next if join(' ', map { $row->{$_} } qw(ts k v)) eq join(' ', map { $table{ $row->{id} }{$_} } qw(ts k v));
		my @of = exists $set{k} ? grep { $queries{$_}[3] } sort keys %queries : ();

		$row->{version} = ++$version;
		delete_row($_, @of);
		insert_row($row, $greatest, @of);
		for my $name (grep { exists $set{k} && !$queries{$_}[3] } sort keys %queries)
		{
			rename_row($name, $_, $row);
		}
	}
	my ($column, $value) = %set;
	return "UPDATE t SET $column = " . ($column eq 'ts' ? stamp($value) : $value) . " WHERE $in";
}

# A row that is newer than all, so that queries which haven't seen rows that are deleted know how late it is.
sub tick
{
	my ($greatest) = @_;
	my $row = { id => ++$id, ts => ++$clock, k => 0, v => 0 };

	insert_row($row, $greatest);
	return "INSERT INTO t VALUES ($id, " . stamp($clock) . ', 0, 0)';
}

sub transaction
{
	my ($behind, $truncate, $tick) = @_;
	my $greatest = $watermark;
	my @sql;

	@seen = ();
	if ($truncate)
	{
		for my $name (keys %queries)
		{
			my ($gap) = @{ $queries{$name} };

			for my $list (values %{ $sessions{$name} })
			{
				push @seen, map { "DELETE FROM seen WHERE query = '$name' AND version = $_" } map { keys %{ $_->{rows} } } grep { $_->{last} + $gap >= over_of($name) } @$list;
				@$list = grep { $_->{last} + $gap < over_of($name) } @$list;
			}
		}
		%table = ();
		push @sql, 'TRUNCATE t';
	}
	push @sql, $tick ? tick(\$greatest) : step($behind, \$greatest) for 1 .. $tick ? 1 : pick(1, 1, 2, 4);
	settle();
	$watermark = $greatest;
	sql('BEGIN; ' . join('; ', @sql) . '; COMMIT') if @sql;
	sql('BEGIN; ' . join('; ', @seen) . "; TRUNCATE clock; INSERT INTO clock VALUES (" . stamp($watermark) . "); COMMIT") if defined $watermark;
	return;
}

sub show_differences
{
	my ($name) = @_;
	my $truth = truth($name);
	my $closed = $queries{$name}[1] eq 'close' ? 'WHERE window_end < (SELECT max(c) FROM clock)' : '';

	diag sql("SET timezone = 'UTC'; WITH truth AS MATERIALIZED (SELECT * FROM ($truth) d $closed)
		(SELECT 'result', z::text FROM (TABLE $name EXCEPT ALL TABLE truth) z) UNION ALL (SELECT 'truth', z::text FROM (TABLE truth EXCEPT ALL TABLE $name) z)");
	BAIL_OUT("SEED=$seed");
	return;
}

sub check
{
	my ($test) = @_;
	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		results_ok($node, $name, "$test: $name", emit => $queries{$name}[1], table => 'clock', time => 'c', session => 1, synced => 1, truth => truth($name))
		  or show_differences($name);
		is(counter($node, $name, $_), $counters{$name}{$_} // 0, "$test: $name: $_") for qw(late_rows late_changes skipped_changes);
		# it leaves out what has changed when it was over, by what the table has now
		is(sql("SELECT stream_ckpt.verify('$name')"), 0, "$test: $name: verify()") unless $name =~ /letters/;
	}
	for my $name (@created)
	{
		results_ok($node, $name, "$test: $name", emit => $whole{$name}[1], table => 'clock', time => 'c', session => 1, synced => 1, truth => truth_of_whole($name))
		  or BAIL_OUT("SEED=$seed");
	}
	return;
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(3, 10, 20))
	{
		$clock += pick(0, 5, 20, 20, 60, 100);
		transaction(pick(10, 30, 100, 400), rand() < 0.04);
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.08;
		# all queries are compiled again, and keep their state
		sql('DROP TEXT SEARCH CONFIGURATION IF EXISTS other; CREATE TEXT SEARCH CONFIGURATION other (COPY = simple)') if rand() < 0.1;
	}
	if (rand() < 0.5)
	{
		sql("SELECT stream_ckpt.alter_query('$_', parallelism => " . pick(1, drawn($node)->{tasks}) . ')') foreach qw(plain late texts);
		wait_running($node);
	}
	check("round $round");
	next if $round != 2;
	create_whole($_, 'backfill => true') for qw(begun_update begun_close);
	push @created, qw(begun_update begun_close);
	transaction(100);
	$clock += 50;
	transaction(1, 0, 1);
	lose_state($node, 'task');
	wait_running($node);
	check('with a history');
}
for my $counter (qw(late_rows late_changes skipped_changes))
{
	my $n = 0;

	$n += $counters{$_}{$counter} // 0 for keys %queries;
	cmp_ok($n, '>', 0, "some $counter");
}

# When all is over nothing is left in memory.
$clock += 100000;
transaction(1, 0, 1) for 1 .. 3;
check('after a long time');
checkpoint_all($node);
cmp_ok(counter($node, $_, 'groups'), '<=', 2, "$_ has the last session at most, and the one before") for sort keys %queries;

# What was late stays so when the watermark goes back, genuine or not: it was never counted, and is never taken back.
sql("CREATE TABLE b (id int PRIMARY KEY, ts timestamptz, k int, v int DEFAULT 0); SELECT stream_ckpt.attach_stream('b', 'ts', max_ahead => NULL, changes => 'apply')");
create_query($node, "back_$_", 'b', emit => $_, select => "SELECT w.window_start, w.window_end, k, count(*) AS n, array_agg(id ORDER BY id) AS ids
	FROM b, stream_ckpt.session(ts, '5 minutes') w GROUP BY w.window_start, w.window_end, k") for qw(close update);
wait_running($node);
sql("INSERT INTO b VALUES (1, '2024-01-01 00:00 UTC', 1)");
sql("INSERT INTO b VALUES (2, '2124-01-01 UTC', 9), (3, '2124-06-01 UTC', 9)");
sql("INSERT INTO b VALUES (4, '2124-03-01 UTC', 1)");
sql("INSERT INTO b VALUES (5, '2024-01-01 00:10 UTC', 1), (6, '2024-01-01 00:20 UTC', 1), (7, '2024-01-01 00:19 UTC', 2)");
sql("SELECT stream_ckpt.reset_watermark('b')");
lose_state($node, 'task');
wait_running($node);
sql("INSERT INTO b VALUES (8, '2024-01-01 00:21 UTC', 2), (9, '2024-01-01 00:24:30 UTC', 1)");
sql('UPDATE b SET id = id + 100 WHERE id IN (5, 6, 7)');
sql('DELETE FROM b WHERE id <> 3 AND id <> 9');
sync_pipelines($node);
for my $emit (qw(close update))
{
	is(sql("SELECT string_agg(k || '=' || ids::text, ' ' ORDER BY ids) FROM back_$emit"), $emit eq 'close' ? '1={1} 9={2}' : '1={1} 9={2} 9={3} 1={9}',
		"after the watermark went back: $emit");
	is(counter($node, "back_$emit", 'late_rows'), 7, "what was late stays late: $emit");
	is(counter($node, "back_$emit", 'late_changes'), 9, "and is never taken back: $emit");
}

# A session of one row that changes again and again keeps that row.
sql('DO $$ BEGIN FOR i IN 1 .. 2000 LOOP UPDATE b SET id = 1000 + i WHERE k = 1 AND id >= 9; END LOOP; END $$');
sql("UPDATE b SET id = 10 WHERE id = 3000");
sync_pipelines($node);
checkpoint_all($node);
cmp_ok(counter($node, "back_$_", 'state_bytes'), '<', 10000, "inputs of a row that is gone are gone: $_") for qw(close update);

# There was no session of which deletions are ignored.
sql("CREATE TABLE e (ts timestamptz, k int); SELECT stream_ckpt.attach_stream('e', 'ts', changes => 'apply')");
create_query($node, 'never', 'e', emit => 'close', select => "SELECT w.window_start, k, count(*) AS n FROM e, stream_ckpt.session(ts, '5 minutes') w GROUP BY w.window_start, k");
wait_running($node);
sql("BEGIN; SELECT stream_ckpt.ignore_deletes('e'); TRUNCATE e; COMMIT");
sync_pipelines($node);
is(sql("SELECT stream_ckpt.verify('never')"), '0', 'verify() of no session');

$node->stop;
done_testing();
