# session(): windows of one key that rows open, extend and bridge.  Everything against gaps and islands over the rows that
# aren't late; which ones are, is worked out here, row by row.  Everything lost at random; several tasks; kept inputs;
# dead letters; a definition that is compiled again; a watermark that goes back; what stays of sessions that are over.

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

sql("CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT \$1 * 2';
	CREATE TABLE t (id int, ts timestamptz, k int, v int);
	CREATE TABLE dropped (query text, id int)");
attach($node, 't');

# name => [gap in seconds, emit, lateness in seconds, key, select list, HAVING, options, rows that count]
my %queries = (
	plain => [ 30, 'close', 0, 'k', 'count(*) AS n, sum(v) AS s, avg(v) AS a' ],
	no_key => [ 5, 'close', 0, '', 'count(*) AS n, sum(v) AS s' ],
	texts => [ 45, 'close', 0, "'a key of some length ' || k", 'count(*) AS n, max(v::text) AS m, string_agg(v::text, \',\' ORDER BY v, id) AS l', 'HAVING count(*) % 3 <> 1' ],
	kept => [ 20, 'close', 0, 'k', 'count(DISTINCT v) AS d, array_agg(v ORDER BY v, id) AS l, avg(v::numeric) AS a' ],
	late => [ 30, 'close', 120, 'k', 'count(*) AS n, sum(v) AS s, array_agg(v ORDER BY v, id) AS l' ],
	late_having => [ 60, 'close', 150, 'k', 'count(*) AS n, sum(v::numeric) AS s', 'HAVING count(*) % 3 <> 1' ],
	late_no_key => [ 4, 'close', 60, '', 'count(*) AS n, variance(v) AS s' ],
	updates => [ 30, 'update', 0, 'k', 'count(*) AS n, sum(v) AS s', 'HAVING count(*) % 3 <> 1' ],
	updates_late => [ 40, 'update', 90, 'k', 'count(*) AS n, sum(v) AS s, count(DISTINCT v) AS d' ],
	updates_no_key => [ 6, 'update', 0, '', 'count(*) AS n, bool_or(v > 3) AS b' ],
	letters => [ 30, 'close', 60, 'k', 'count(*) AS n, sum(100 / (v - 7)) AS s, array_agg(v ORDER BY v, id) AS l, avg(v::numeric) AS a', '', "on_error => 'dead_letter'", 'v IS DISTINCT FROM 7' ],
	arrays => [ 30, 'close', 0, 'ARRAY[k]', 'count(*) AS n, array_agg(v ORDER BY v, id) AS l' ],
	computed => [ 30, 'close', 0, 'k', 'sum(doubled(v)) AS s, variance(v) AS x, max(v::text) AS m' ]);

for my $name (sort keys %queries)
{
	my ($gap, $emit, $lateness, $key, $list, $having, $options) = @{ $queries{$name} };
	my $keys = $key ? ", $key AS kk" : '';

	create_query($node, $name, 't', emit => $emit, options => join(', ', "allowed_lateness => '$lateness seconds'", $options || ()),
		select => "SELECT w.window_start, w.window_end$keys, $list FROM t, stream_ckpt.session(ts, '$gap seconds') w
			GROUP BY w.window_start, w.window_end" . ($key ? ", $key" : '') . ' ' . ($having // ''));
}
wait_running($node);

# The definition: gaps and islands.
sub truth
{
	my ($name) = @_;
	my ($gap, undef, undef, $key, $list, $having, undef, $rows) = @{ $queries{$name} };
	my $partition = $key ? "PARTITION BY $key" : '';
	my $and = $key ? ", $key" : '';

	return "SELECT min(ts) AS window_start, max(ts) + interval '$gap seconds' AS window_end" . ($key ? ", $key AS kk" : '') . ", $list
		FROM (SELECT *, sum(opens) OVER ($partition ORDER BY ts, id ROWS UNBOUNDED PRECEDING) AS island
			FROM (SELECT *, CASE WHEN lag(ts) OVER ($partition ORDER BY ts, id) + interval '$gap seconds' >= ts THEN 0 ELSE 1 END AS opens
				FROM t WHERE " . ($rows // 'true') . " AND NOT EXISTS (SELECT FROM dropped d WHERE d.query = '$name' AND d.id = t.id)) o) i
		GROUP BY island$and " . ($having // '');
}

# Sessions as they are: name => key => [ [ start, last, what was over when it was opened ], ... ].  True: the row is late for the query.
my %sessions;
my $watermark;
sub is_late
{
	my ($name, $ts, $k, $v) = @_;
	my ($gap, undef, $lateness, $key, undef, undef, undef, $rows) = @{ $queries{$name} };
	my $list = $sessions{$name}{ $key ? $k : '' } //= [];
	my $over = defined $watermark ? $watermark - $lateness : -1e9;
	my @joined = grep { $ts >= $_->[0] - $gap && $ts <= $_->[1] + $gap } @$list;

	return 1 if grep { $_->[1] + $gap < $over } @joined;
	# one that is late by itself may be part of another one, but not make it begin earlier if it was late already then
	return 1 if $ts + $gap < $over && !grep { $ts >= $_->[0] || $ts + $gap >= $_->[2] } @joined;
	return 0 if $rows && $v eq '7';
	my ($start, $last, $opened) = ($ts, $ts, $over);
	for (sort { $b->[0] <=> $a->[0] } @joined)
	{
		$start = $_->[0] if $_->[0] < $start;
		$last = $_->[1] if $_->[1] > $last;
		$opened = $_->[2];
	}
	@$list = ((grep { my $s = $_; !grep { $_ == $s } @joined } @$list), [ $start, $last, $opened ]);
	return 0;
}

my ($clock, $id) = (0, 0);
my %nlate;
sub insert
{
	my ($rows, $behind) = @_;
	my (@values, @late);
	my $greatest = $watermark;

	for (1 .. $rows)
	{
		my ($ts, $k, $v) = ($clock - int rand $behind, pick('NULL', 0 .. 5), pick('NULL', 0 .. 40));

		$id++;
		push @values, "($id, timestamptz '2024-01-01 UTC' + $ts * interval '1 second', $k, $v)";
		$greatest = $ts if !defined $greatest || $ts > $greatest;
		for my $name (sort keys %queries)
		{
			next unless is_late($name, $ts, $k, $v);
			push @late, "('$name', $id)";
			$nlate{$name}++;
		}
	}
	sql('INSERT INTO dropped VALUES ' . join(', ', @late)) if @late;
	sql('INSERT INTO t VALUES ' . join(', ', @values));
	$watermark = $greatest;
	return;
}

sub show_differences
{
	my ($name) = @_;
	my $truth = truth($name);
	my $closed = $queries{$name}[1] eq 'close' ? 'WHERE window_end < (SELECT max(ts) FROM t)' : '';

	diag sql("SET timezone = 'UTC'; WITH truth AS MATERIALIZED (SELECT * FROM ($truth) d $closed)
		(SELECT 'result', z::text FROM (TABLE $name EXCEPT ALL TABLE truth) z) UNION ALL (SELECT 'truth', z::text FROM (TABLE truth EXCEPT ALL TABLE $name) z)");
	diag sql("SET timezone = 'UTC'; SELECT t.*, d.query FROM t LEFT JOIN dropped d ON d.id = t.id AND d.query = '$name' ORDER BY t.k, t.ts") if $ENV{SHOW};
	BAIL_OUT("SEED=$seed");
	return;
}

sub check
{
	my ($test) = @_;
	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		is(counter($node, $name, 'late_rows'), $nlate{$name} // 0, "$test: $name: late rows");
		results_ok($node, $name, "$test: $name", emit => $queries{$name}[1], table => 't', session => 1, synced => 1, truth => truth($name))
		  or show_differences($name);
	}
	return;
}

for my $round (1 .. $rounds)
{
	for (1 .. pick(3, 10, 20))
	{
		$clock += pick(0, 5, 20, 20, 60, 100);
		insert(pick(1, 3, 10, 60), pick(10, 30, 100, 400));
		checkpoint_all($node) if rand() < 0.2;
		lose_state($node, pick('immediate', 'task', 'coordinator', 'fast'), pick('TERM', 'KILL')) if rand() < 0.08;
	}
	sql('CREATE OR REPLACE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS \'SELECT $1 ' . pick('* 2', '+ $1') . '\'') if rand() < 0.5;
	if (rand() < 0.5)
	{
		sql("SELECT stream_ckpt.alter_query('$_', parallelism => " . pick(1, drawn($node)->{tasks}) . ')') foreach qw(plain late texts);
		wait_running($node);
	}
	check("round $round");
}


# When all is over nothing is left, neither in memory nor, after a while, in the changelog.
my @closing = grep { $queries{$_}[1] eq 'close' } sort keys %queries;
$clock += 100000;
insert(1, 1);
check('after a long time');
for my $i (1 .. 2)
{
	$clock += 100000;
	insert(1, 1);
	checkpoint_all($node);
}
sync_pipelines($node);
checkpoint_all($node);
# one that is open, and the closed one before it
cmp_ok(counter($node, $_, 'groups'), '<=', 2, "$_: one session is left, and the one before it") for @closing;
lose_state($node, 'task');
cmp_ok(counter($node, $_, 'groups'), '<=', 2, "$_: and after a restart") for @closing;

# verify(), by gaps and islands of its own: over a partitioned table, with conditions at several places, keys that are computed,
# types of both kinds.
sql("CREATE TABLE p (\"At\" timestamp, k int, v float8) PARTITION BY LIST (k);
	CREATE TABLE p0 PARTITION OF p DEFAULT; CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
	SELECT stream_ckpt.attach_stream('p', event_time => 'At', watermark_delay => '3 hours')");
my %verified = (
	v_close => "SELECT k AS key, w.window_end AS until, count(*) AS n, sum(x.v) AS s FROM p x JOIN LATERAL stream_ckpt.session(\"At\", '1 minute') w ON v > 1
		WHERE v < 9 GROUP BY k, w.window_start, w.window_end",
	v_update => "SELECT w.window_start, k % 2 AS odd, ')''(' || (v > 5)::text AS \"a \"\"big\"\" one\", w.window_time, max(v) AS m FROM p, stream_ckpt.session(\"At\", gap => interval '1 minute') w
		GROUP BY w.window_start, w.window_time, k % 2, 3 HAVING count(*) > 1",
	v_alone => "SELECT w.window_start, w.window_end, count(*) AS n FROM p AS w2, stream_ckpt.session(w2.\"At\", '00:00:10') w GROUP BY w.window_start, w.window_end");
create_query($node, $_, 'p', emit => $_ eq 'v_update' ? 'update' : 'close', select => $verified{$_}, tasks => 2) for sort keys %verified;
for my $i (1 .. 9)
{
	my $base = "timestamp '2024-01-01' + ($i + random()) * interval '1 hour'";

	sql("INSERT INTO p SELECT $base + i * interval '2 minutes', i % 3, random() * 10 FROM generate_series(1, 20) i;
		INSERT INTO p SELECT $base + random() * interval '10 minutes', i % 3, 5 FROM generate_series(1, 20) i");
}
sql("INSERT INTO p VALUES ('infinity', 1, 5), (NULL, 1, 5)");
sync_pipelines($node);
for my $name (sort keys %verified)
{
	is(sql("SELECT stream_ckpt.verify('$name')"), 0, "verify() of $name");
	cmp_ok(sql("SELECT count(*) FROM $name"), '>', 4, "$name has rows");
	is(sql("BEGIN; DELETE FROM $name WHERE ctid = (SELECT min(ctid) FROM $name); SELECT stream_ckpt.verify('$name'); ROLLBACK"), 1, "verify() of $name without a row");
}

# An error while two sessions become one leaves both as they were.
sql(q(CREATE FUNCTION refuse(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN IF $1 + $2 > 100 THEN RAISE ''too much''; END IF; RETURN $1 + $2; END';
	CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = 0, COMBINEFUNC = refuse);
	CREATE TABLE e (ts timestamptz, v int)));
attach($node, 'e');
my $of_e = "array_agg(v) AS l, sum(v) AS s, avg(v::numeric)::int AS a, total(v) AS t, count(DISTINCT v) AS d FROM e, stream_ckpt.session(ts, '10 seconds') w GROUP BY w.window_start, w.window_end";
create_query($node, 'errors', 'e', select => "SELECT w.window_start, w.window_end, $of_e", options => "on_error => 'dead_letter'");
create_query($node, 'errors_update', 'e', emit => 'update', select => "SELECT w.window_start, w.window_end, $of_e", options => "on_error => 'dead_letter'");
# and one of a result row leaves the others
my $finals = "to_char(w.window_start AT TIME ZONE 'UTC', 'HH24:MI') AS at, 10 / (count(*) - 9) AS x FROM e, stream_ckpt.session(ts, '10 seconds') w GROUP BY w.window_start";
create_query($node, 'finals', 'e', select => "SELECT w.window_start, $finals", options => "on_error => 'dead_letter'");
create_query($node, 'finals_late', 'e', select => "SELECT w.window_start, $finals", options => "on_error => 'dead_letter', allowed_lateness => '1 minute'");
create_query($node, 'finals_update', 'e', emit => 'update', select => "SELECT w.window_start, $finals", options => "on_error => 'dead_letter'");
sql("INSERT INTO e SELECT timestamptz '2024-01-01 UTC' + at * interval '1 second', v FROM (VALUES (0, 40), (5, 10), (20, 30), (25, 30), (12, 1), (28, 5), (40, 7), (50, 7), (35, 1)) x (at, v)");
sql("INSERT INTO e VALUES ('2024-01-01 01:00 UTC', 1)");
sync_pipelines($node);
is(sql("SELECT string_agg(to_char(window_start, 'SS') || ' ' || concat_ws(' ', l, s, a, t, d), ', ' ORDER BY window_start) FROM $_ WHERE window_start < '2024-01-01 01:00 UTC'"),
	'00 {40,10} 50 25 50 2, 20 {30,30,5,1,7,7} 80 13 80 4', "$_: an error in combining") for 'errors', 'errors_update';
sql("INSERT INTO e VALUES ('2024-01-01 01:00:10 UTC', 1); INSERT INTO e VALUES ('2024-01-01 02:00 UTC', 1), ('2024-01-01 03:00 UTC', 1)");
sync_pipelines($node);
is(sql("SELECT string_agg(at || ' ' || x, ', ' ORDER BY at) FROM $_"), '01:00 -1, 02:00 -1' . (/update/ ? ', 03:00 -1' : ''), "$_: an error in a result row") for 'finals', 'finals_late', 'finals_update';
cmp_ok(sql("SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = '$_'::regclass"), '>', 0, "$_: and a dead letter") for 'finals', 'finals_late', 'finals_update';
is(sql("SELECT count(*) FROM stream_ckpt.dead_letter WHERE query IN ('errors'::regclass, 'errors_update'::regclass)"), 2, 'the row that comes between two is a dead letter');

# Silence closes a session; a watermark that goes back opens none again.
sql("CREATE TABLE b (ts timestamptz, k int); SELECT stream_ckpt.attach_stream('b', event_time => 'ts', idle_timeout => '1 second')");
my $of_b = "w.window_start AT TIME ZONE 'UTC' AS s, w.window_end AT TIME ZONE 'UTC' AS e, k, count(*) AS n FROM b, stream_ckpt.session(ts, '2 seconds') w GROUP BY w.window_start, w.window_end, k";
create_query($node, 'back', 'b', select => "SELECT $of_b");
create_query($node, 'back_update', 'b', emit => 'update', select => "SELECT w.window_start, $of_b");
my $of_back = "SELECT string_agg(to_char(s, 'SS') || '-' || to_char(e, 'SS') || '=' || n, ' ' ORDER BY s) FROM back WHERE k = 1";
sql("INSERT INTO b VALUES ('2024-01-01 00:00:10 UTC', 1), ('2024-01-01 00:00:12 UTC', 1)");
wait_until($node, "SELECT count(*) > 0 FROM back", 'a session closes by silence');
is(sql($of_back), '10-14=2', 'rows the gap apart are one session');
sql("SELECT stream_ckpt.alter_stream('b', idle_timeout => NULL); INSERT INTO b VALUES ('2024-01-01 00:00:20 UTC', 2)");
sync_pipelines($node);
sql("SELECT stream_ckpt.reset_watermark('b', '2024-01-01 00:00:05 UTC'); INSERT INTO b VALUES ('2024-01-01 00:00:13 UTC', 1), ('2024-01-01 00:00:06 UTC', 1), ('2024-01-01 00:00:17 UTC', 1)");
lose_state($node, 'task');
sql("INSERT INTO b VALUES ('2024-01-01 00:00:11 UTC', 1), ('2024-01-01 00:00:19 UTC', 1), ('2024-01-01 00:00:30 UTC', 3)");
sync_pipelines($node);
is(sql($of_back), '10-14=2 19-21=1', 'after the watermark went back');
is(counter($node, 'back', 'late_rows'), 4, 'rows of what was over are late');
# so are those that were over without a row in the far future, and those of a session that it has closed, in whatever task
# that was (of two, 50 is the second one's); and no others
my $far = join ', ', map { "('2024-01-01 00:02:$_ UTC', $_)" } 10, 20, 30, 40, 50;
my $late = counter($node, 'back', 'late_rows');
sql("SELECT stream_ckpt.reset_watermark('b', '2024-01-01 00:01:00 UTC'); INSERT INTO b VALUES $far");
sql("SELECT stream_ckpt.alter_stream('b', max_ahead => NULL); INSERT INTO b VALUES ('2124-01-01 UTC', 5)");
sync_pipelines($node);
sql("SELECT stream_ckpt.reset_watermark('b', '2024-01-01 00:01:00 UTC')");
checkpoint_all($node);
lose_state($node, 'task');
sql("INSERT INTO b VALUES $far, ('2024-01-01 00:02:15 UTC', 10), ('2024-01-01 00:02:55 UTC', 50), ('2024-01-01 00:03:00 UTC', 3)");
sync_pipelines($node);
is(counter($node, 'back', 'late_rows'), $late + 6, 'sessions that a row in the far future has closed');
is(sql("SELECT string_agg(k || ':' || to_char(s, 'SS') || '=' || n, ' ' ORDER BY k, s) FROM back WHERE s > '2024-01-01 00:02:00' AND s < '2025-01-01'"),
	'10:10=1 20:20=1 30:30=1 40:40=1 50:50=1 50:55=1', 'and others');

# States that can't be freed one by one are, in the end: sessions come and go.
sql('CREATE TABLE m (ts timestamptz, k int, v numeric)');
attach($node, 'm');
create_query($node, 'many', 'm', select => "SELECT w.window_start, w.window_end, k, avg(v) AS a, count(*) AS n FROM m, stream_ckpt.session(ts, '1 second') w GROUP BY 1, 2, 3");
for my $i (1 .. 8)
{
	# in parts, and rows that come again: sessions are in the changelog before they go
	for my $part (0 .. 3)
	{
		sql("INSERT INTO m SELECT timestamptz '2024-01-01 UTC' + $i * interval '1 hour' + j * interval '10 ms', j, j FROM generate_series($part * 2000 + 1, $part * 2000 + 2000) j");
		checkpoint_all($node) if $i % 2;
	}
}
sync_pipelines($node);
is(sql("SELECT stream_ckpt.verify('many'), count(*), sum(a) = sum(k) FROM many"), '0|63899|t', 'sessions of internal states');
lose_state($node, 'task');
sql("INSERT INTO m SELECT timestamptz '2024-01-01 09:00 UTC' + j * interval '10 ms', j, j FROM generate_series(1, 2000) j");
sync_pipelines($node);
checkpoint_all($node);
is(sql("SELECT stream_ckpt.verify('many'), count(*) FROM many"), '0|65899', 'and after a restart');
cmp_ok(sql("SELECT sum(length(data)) FROM stream_ckpt.state_run r JOIN stream_ckpt.query q USING (query_id) WHERE q.relid = 'many'::regclass"), '<', 500000,
	'the changelog has what there is');

# What the manual shows.
my ($section) = slurp_file("$FindBin::RealBin/../docs/windows.md") =~ /^## session\n(.*?)^## /ms;
my ($statements, $shown) = $section =~ /```sql\n(.*?)```\n\n```\n(.*?)```/s;
sql("CREATE TABLE payments (paid_at timestamptz, card int, amount numeric);
	SELECT stream_ckpt.attach_stream('payments', event_time => 'paid_at', watermark_delay => '5 seconds')");
my ($out) = $node->safe_psql('postgres', "SET timezone = 'UTC'; $statements", extra_params => [ '-P', 'format=aligned', '-P', 'tuples_only=off' ]);
$out =~ s{ +$}{}mg;
like($out, qr/\Q$shown\E/, 'the scene of the manual');

$node->stop;
done_testing();
