# Rows that change and go: random inserts, updates, deletes and TRUNCATE of a table against the definition over the table as it
# is then, for windows, GROUPING SETS, upper parts, emit close and update, lateness, several tasks, too little memory,
# and everything lost at random.
#
# Windows that are over keep what they had.  So what is changed are rows of windows that aren't, but for TRUNCATE, before which
# the rows of those that are over are put aside for the comparison.
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
my $rounds = $ENV{ROUNDS} || 5;

my $node = new_node('main', "max_worker_processes = 20\n", draw => { batch => [ 0, 1, 7 ], tasks => [ 1, 2, 4 ] });
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("CREATE TABLE t (ts timestamptz, k int, s text, n numeric, v int, a numeric(12,2), f float8, id bigserial);
	CREATE TABLE over (LIKE t, at timestamptz);
	CREATE VIEW seen AS SELECT *, NULL::timestamptz AS at FROM t UNION ALL TABLE over");
# Attaches a table with its changes.
sub attach_changes
{
	my ($table) = @_;

	sql("SELECT stream_ckpt.attach_stream('$table', event_time => 'ts', changes => 'apply')");
	return;
}

attach_changes('t');
my $tumble = "stream_ckpt.tumble(ts, '1 minute') w";
my $list = 'w.window_start, w.window_end';
# windows that share panes, and end with a minute
my $hop = "stream_ckpt.hop(ts, '1 minute', '3 minutes') w";
my $cumulate = "stream_ckpt.cumulate(ts, '1 minute', '5 minutes') w";

# name => [definition, emit, options]
my %queries = (
	inverse => [ "$list, k, count(*) AS n, count(v) AS c, sum(v), avg(v), sum(a) AS sa, avg(a) AS aa, var_pop(v) AS vp, stddev(a) AS sd FROM t, $tumble GROUP BY $list, k", 'close' ],
	kept => [ "$list, k, min(v), max(s), sum(f), count(DISTINCT s) AS d, array_agg(id ORDER BY id) AS ids, percentile_disc(0.5) WITHIN GROUP (ORDER BY v) AS p FROM t, $tumble GROUP BY $list, k", 'close' ],
	mixed => [ "$list, k, s, count(*) AS n, max(v), bool_or(v > 40) FILTER (WHERE k > 1) AS b, sum(v) FILTER (WHERE s <> 'b') AS f FROM t, $tumble WHERE v <> 13 GROUP BY $list, k, s", 'update' ],
	without_keys => [ "$list, count(*) AS n, sum(v), max(a) FROM t, $tumble GROUP BY $list", 'close' ],
	late => [ "$list, k, count(*) AS n, max(v) FROM t, $tumble GROUP BY $list, k HAVING count(*) % 3 <> 1", 'close', "allowed_lateness => '10 minutes'" ],
	different => [ "DISTINCT k, s FROM t WHERE v > 12", 'update' ],
	hopped => [ "$list, k, count(*) AS n, sum(v), avg(a) FROM t, $hop GROUP BY $list, k", 'close' ],
	hopped_kept => [ "$list, k, min(v), max(s), count(DISTINCT s) AS d, array_agg(id ORDER BY id) AS ids FROM t, $hop GROUP BY $list, k", 'close' ],
	hopped_update => [ "$list, k, s, count(*) AS n, sum(v), max(v) FROM t, $hop WHERE v <> 13 GROUP BY $list, k, s HAVING count(*) % 3 <> 1", 'update' ],
	hopped_late => [ "$list, k, n, count(*) AS c, sum(a), min(a) FROM t, $hop GROUP BY $list, k, n", 'close', "allowed_lateness => '10 minutes'" ],
	hopped_ranks => [ "$list, k, sum(v), rank() OVER (PARTITION BY w.window_start ORDER BY sum(v) DESC) AS r FROM t, $hop GROUP BY $list, k", 'update' ],
	hopped_letters => [ "$list, k, 1000 / (v - 30) AS q, count(*) AS n, sum(v) FROM t, $hop GROUP BY $list, k, 1000 / (v - 30)", 'close', "on_error => 'dead_letter'", 'v <> 30' ],
	cumulated => [ "$list, k, count(*) AS n, sum(v), stddev(a) AS sd FROM t, $cumulate GROUP BY $list, k", 'close' ],
	cumulated_kept => [ "$list, s, count(*) AS n, max(v), array_agg(v ORDER BY v) AS all FROM t, $cumulate GROUP BY $list, s", 'close' ],
	cumulated_update => [ "$list, k, count(*) AS n, sum(v), min(v) FROM t, $cumulate GROUP BY $list, k", 'update' ],
	cumulated_late => [ "$list, k, s, count(*) AS n, max(a), GROUPING(k, s) AS g FROM t, $cumulate GROUP BY $list, ROLLUP (k, s)", 'close', "allowed_lateness => '10 minutes'" ],
	newest => [ "DISTINCT ON (w.window_start, w.window_end, k) $list, k, v, id FROM t, $tumble /*where*/ ORDER BY w.window_start, w.window_end, k, v DESC, id", 'close' ],
	newest_late => [ "DISTINCT ON (w.window_start, w.window_end, k) $list, k, v, s, id FROM t, $tumble /*where*/ ORDER BY w.window_start, w.window_end, k, v, id", 'close', "allowed_lateness => '10 minutes'" ],
	newest_update => [ "window_start, window_end, n, k, rn, id FROM (SELECT $list, n, k, id, row_number() OVER (PARTITION BY w.window_start, w.window_end, n ORDER BY v DESC, id) AS rn FROM t, $tumble /*where*/) q WHERE rn <= 3", 'update' ],
	newest_rank => [ "window_start, window_end, k, v, rn FROM (SELECT $list, k, v, rank() OVER (PARTITION BY w.window_start, w.window_end, k ORDER BY v DESC) AS rn FROM t, $tumble /*where*/) q WHERE rn <= 2", 'close' ],
	hopped_newest => [ "window_start, window_end, k, v, rn FROM (SELECT $list, k, v, row_number() OVER (PARTITION BY w.window_start, w.window_end, k ORDER BY v DESC, id) AS rn FROM t, $hop /*where*/) q WHERE rn <= 2", 'close' ],
	newest_single => [ "DISTINCT ON (s) s, id, v FROM t ORDER BY s, v DESC, id", 'update' ],
	status => [ "s, count(*) AS n, sum(a), max(v) FROM t GROUP BY s", 'update' ],
	numbers => [ "n, count(*) AS c, sum(a) FROM t GROUP BY n", 'update' ],
	single => [ "id, v, count(*) AS n FROM t GROUP BY id, v", 'update' ],
	one => [ "count(*) AS n, sum(v), max(v) FROM t WHERE v % 2 = 0", 'update' ],
	filtered => [ "k, sum(v), min(a) FROM t GROUP BY k HAVING sum(v) % 2 = 0", 'update' ],
	rollup => [ "$list, k, s, count(*) AS n, sum(v), min(v), GROUPING(k, s) AS g FROM t, $tumble GROUP BY $list, ROLLUP (k, s)", 'update' ],
	sets => [ "k, s, count(*) AS n, sum(v), max(v), GROUPING(k, s) AS g FROM t GROUP BY GROUPING SETS ((k, s), k, s, ())", 'update' ],
	ranks => [ "$list, k, count(*) AS n, rank() OVER (PARTITION BY w.window_start ORDER BY count(*) DESC) AS r FROM t, $tumble GROUP BY $list, k", 'update' ],
	ranks_late => [ "$list, k, sum(v), rank() OVER (PARTITION BY w.window_start ORDER BY sum(v) DESC) AS r FROM t, $tumble GROUP BY $list, k", 'close', "allowed_lateness => '10 minutes'" ],
	letters => [ "$list, k, 1000 / (v - 30) AS q, count(*) AS n, max(v) FROM t, $tumble GROUP BY $list, k, 1000 / (v - 30)", 'close', "on_error => 'dead_letter'", 'v <> 30' ],
	letters_sets => [ "k, s, count(*) AS n, sum(1000 / (v - 30)) AS q, max(v), GROUPING(k, s) AS g FROM t GROUP BY ROLLUP (k, s)", 'update', "on_error => 'dead_letter'", 'v <> 30' ]);

# panes that windows share stay in memory
delete @queries{ grep { /^(hopped|cumulated)/ } keys %queries } if StreamCkpt::drawn($node)->{memory};
my @together = grep { $queries{$_} } qw(ranks ranks_late hopped_ranks letters_sets);
my %together = map { $_ => 1 } @together;
for my $name (sort keys %queries)
{
	my ($select, $emit, $options) = @{ $queries{$name} };

	create_query($node, $name, 't', emit => $emit, select => "SELECT $select", options => $options, $together{$name} ? (tasks => 1) : ());
}
wait_running($node);

sub check
{
	my ($test) = @_;

	sync_pipelines($node);
	for my $name (sort keys %queries)
	{
		my ($select, $emit, $options, $where) = @{ $queries{$name} };
		my @where = grep { $_ } $where;

		if ($select =~ /window_start/)
		{
			$select =~ s/FROM t\b/FROM seen/;
			push @where, '(at IS NULL OR w.window_end <= at' . (($options // '') =~ /lateness/ ? " - interval '10 minutes')" : ')');
		}
		push @where, $1 if $select !~ m{/\*where} && $select =~ s/ WHERE (.*?)(?= GROUP BY|$)//;
		my $condition = @where ? ' WHERE ' . join(' AND ', @where) : '';
		$select =~ s{/\*where\*/}{$condition} or $select =~ s/(?= GROUP BY)/$condition/ or $select .= $condition;
		results_ok($node, $name, "$test: $name", table => 'clock', time => 'c', emit => $emit, synced => 1, truth => "SELECT $select")
		  or diag "SEED=$seed\n", sql("SELECT 'result', r::text FROM (TABLE $name EXCEPT ALL SELECT $select) r UNION ALL SELECT 'truth', r::text FROM (SELECT $select EXCEPT ALL TABLE $name) r LIMIT 20");
	}
	return;
}

# The greatest event time that there was: before each transaction, by which its rows are judged; changes need that of before.
sql("CREATE TABLE clock (c timestamptz);
	INSERT INTO clock VALUES ('2024-01-01 00:00 UTC');
	CREATE TABLE passed (c timestamptz);
	CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO passed VALUES (NEW.ts); RETURN NULL; END';
	CREATE TRIGGER passes AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION pass()");
my $tick = 'INSERT INTO clock SELECT max(c) FROM passed HAVING max(c) > (SELECT max(c) FROM clock)';
my $open = "date_trunc('minute', (SELECT max(c) FROM clock))";
my $new_ts = "(SELECT max(c) FROM clock) + trunc(random() * 30) * interval '1 second'";

sub row { return "$new_ts, " . join ', ', pick(1 .. 4, 'NULL'), "'" . pick(qw(a b c)) . "'", pick('1.0', '1.00', '2', 'NULL'), pick(10 .. 50), pick('0.50', '17.25', 'NULL', 100), pick('0.5', '-2.25', 'NULL', '1e6'); }

sub step
{
	my $what = pick(qw(insert insert insert update update update delete delete delete_all upsert savepoint));
	my $some = "ts >= $open AND v % " . pick(2, 3, 5) . ' = ' . pick(0, 1);

	return "INSERT INTO t SELECT " . row() . " FROM generate_series(1, " . pick(1, 3, 20) . ")" if $what eq 'insert';
	return "UPDATE t SET " . pick('v = v + 1', 'k = k % 3 + 1', "s = 'b'", 'a = a + 1', "ts = $new_ts", 'n = 2 - n', 'v = 30', 'id = id', 'f = f * 2') . " WHERE $some" if $what eq 'update';
	return "DELETE FROM t WHERE $some AND k = " . pick(1 .. 4) if $what eq 'delete';
	return "DELETE FROM t WHERE ts >= $open" . pick('', " AND s = 'a'", ' AND k = 2') if $what eq 'delete_all';
	return "WITH gone AS (DELETE FROM t WHERE $some RETURNING *) INSERT INTO t SELECT ts, k, s, n, v + 2, a, f FROM gone" if $what eq 'upsert';
	return "SAVEPOINT a; DELETE FROM t WHERE $some; ROLLBACK TO a; UPDATE t SET v = v + 3 WHERE $some";
}

# A process dies, if it is there, and nobody waits for the next one.
sub strike
{
	my $which = pick(qw(task coordinator reader));
	my $pid = try_psql($node, $which eq 'task' ? 'SELECT pid FROM stream_ckpt.tasks ORDER BY random() LIMIT 1' : "SELECT ${which}_pid FROM stream_ckpt.pipelines LIMIT 1", '-At') // '';

	return unless $pid =~ /^(\d+)$/m;
	diag "struck: $which" if $ENV{SHOW_STRIKES};
	kill 'TERM', $1;
	return;
}

# Queries that begin with the rows that are there, while these change and processes die: like those without windows, by other names.
sub create_with_history
{
	my $at = '(SELECT max(c) FROM clock)';
	my $writer = start_writer($node, "UPDATE t SET v = v + 1 WHERE ts >= $open AND v % 3 = 1;
		INSERT INTO t VALUES ($at, 3, 'c', 2, 44, 5, 0.5);
		DELETE FROM t WHERE id = (SELECT max(id) FROM t WHERE ts >= $open AND v % 2 = 0);
		UPDATE t SET s = 'a', k = 1 WHERE ts >= $open AND v % 7 = 2;\n", clients => 1, transactions => 60);

	for my $name (grep { $queries{$_}[0] !~ /window_start/ && !$together{$_} } sort keys %queries)
	{
		my ($select, $emit, $options) = @{ $queries{$name} };

		create_query($node, "old_$name", 't', emit => $emit, select => "SELECT $select", options => 'backfill => true');
		$queries{"old_$name"} = [ $select, $emit, $options ];
		lose_state($node, pick(qw(task coordinator reader))) if pick(1 .. 3) == 1;
	}
	ok(finish_writer($writer), 'rows change meanwhile');
	wait_running($node);
	sql($tick);
	return;
}

my $tasks = drawn($node)->{tasks};

for my $round (1 .. $rounds)
{
	create_with_history() if $round == 2;
	# their state goes to other tasks
	sql("SELECT stream_ckpt.alter_query('$_', parallelism => " . pick(grep { $_ <= $tasks } 1, 2, 4) . ')') for pick(1 .. 2) == 1 ? (pick(qw(single kept late)), pick(qw(sets status inverse))) : ();
	for (1 .. pick(5, 15))
	{
		my $sql = join(";\n", map { step() } 1 .. pick(1, 2, 5));

		# the clock moves behind the transaction
		sql("BEGIN; SELECT setseed(" . rand() . ");\n$sql;\nCOMMIT; $tick");
		strike() if pick(1 .. 8) == 1;
		# all queries are compiled again, and keep their state
		sql('DROP TEXT SEARCH CONFIGURATION IF EXISTS other; CREATE TEXT SEARCH CONFIGURATION other (COPY = simple)') if pick(1 .. 6) == 1;
		if (pick(1 .. 4) == 1)
		{
			# a row that stays, and moves the watermark
			sql("INSERT INTO t SELECT max(c) + '" . pick(20, 70, 200) . " seconds', 9, 'z', 0, 1, 1, 1 FROM clock; $tick");
		}
	}
	lose_state($node, pick(qw(immediate fast task coordinator reader))) if pick(0, 1);
	check("round $round");
	if ($round % 2 == 0)
	{
		sql("BEGIN; INSERT INTO over SELECT t.*, (SELECT max(c) FROM clock) FROM t; INSERT INTO t SELECT " . row() . "; TRUNCATE t; INSERT INTO t SELECT " . row() . "; COMMIT;
			$tick");
		check("round $round, emptied");
	}
}
#
# Each aggregate that the server has, with what explain_query() says of it: those of the list have states from which rows are
# taken back, of all others inputs are kept.
#
my $inverted = qr/^(count\(\)|count\("any"\)|(sum|avg|var_pop|var_samp|variance|stddev_pop|stddev_samp|stddev)\((smallint|integer|bigint)\))$/;
my %column = (
	smallint => 'i2', integer => 'i4', bigint => 'i8', numeric => 'n', real => 'f4', 'double precision' => 'f8', interval => 'iv', money => 'm', boolean => 'b',
	text => 't', character => 'c', bytea => 'by', date => 'd', 'time without time zone' => 'tm', 'time with time zone' => 'tz', 'timestamp without time zone' => 'tt',
	'timestamp with time zone' => 'ts', xml => 'x', json => 'j', jsonb => 'jb', inet => 'ip', oid => 'o', tid => 'tt2', pg_lsn => 'lsn', bit => 'bits', anyelement => 'i4',
	anynonarray => 'i4', anyarray => 'a4', anycompatible => 'i4', anycompatiblearray => 'a4', anyenum => 'e', anyrange => 'r', anymultirange => 'mr', '"any"' => 't', xid8 => 'x8', record => 'rec');
my %bytes = (smallint => 2, integer => 4, bigint => 8, real => 4, 'double precision' => 8, interval => 16, money => 8, boolean => 1, date => 4, 'time without time zone' => 8,
	'time with time zone' => 12, 'timestamp without time zone' => 8, 'timestamp with time zone' => 8, oid => 4, tid => 6, pg_lsn => 8, anyelement => 4, anynonarray => 4,
	anycompatible => 4, anyenum => 4, xid8 => 8);
my $any_order = qr/^(array_agg|string_agg|json_agg|jsonb_agg|json_object_agg|xmlagg|json_agg_strict|jsonb_agg_strict|json_object_agg_\w+)\(/;
my $inexact = qr/^(corr|covar_\w+|regr_\w+|(var|stddev)\w*\((real|double)|(sum|avg)\((real|double)|percentile_cont\(double)/;

# A call of an aggregate, and the least bytes that an input of it takes.
sub call
{
	my ($signature, $kind, $direct) = @_;
	my ($name, $types) = $signature =~ /^(?:pg_catalog\.)?"?(\w+)"?\((.*)\)$/;
	my @types = split /,\s*/, $types;
	my @columns = map { s/^VARIADIC //; $column{$_} // ($kind eq 'n' ? die "no column of type $_ for $signature" : 'none') } @types;
	my $bytes = 1;

	$bytes += $bytes{ s/^VARIADIC //r } // 1 for @types;
	return ("$name(*)", 1) if $signature eq 'count()';
	return ("$name(k) WITHIN GROUP (ORDER BY i4)", 5) if $kind eq 'h';
	return ("$name() WITHIN GROUP (ORDER BY t)", 2) if $name eq 'mode';
	return ("$name(" . ($types[0] =~ /\[\]$/ ? "ARRAY[0.25, 0.75]" : '0.5') . ") WITHIN GROUP (ORDER BY $columns[1])", 1 + ($bytes{ $types[1] } // 1)) if $kind eq 'o';
	return ("$name(i8, $columns[1])", 10) if $name =~ /object_agg/;
	# the first one's delimiter isn't shown
	return ($types[0] eq 'text' ? "$name(t, '-')" : "$name(by, '\\x2d')", 3) if $name eq 'string_agg';
	return ("$name(" . join(', ', @columns) . ')', $bytes);
}

# Order of arrival isn't a table's order once rows have changed: such values are compared by their characters, and those of
# floating-point numbers by so many digits.
sql("CREATE FUNCTION by_characters(text) RETURNS text LANGUAGE sql IMMUTABLE AS \$\$SELECT string_agg(c, '' ORDER BY c) FROM regexp_split_to_table(\$1, '') c\$\$;
	CREATE FUNCTION by_digits(text) RETURNS text LANGUAGE sql IMMUTABLE AS \$\$SELECT CASE WHEN \$1 !~ '^-?[0-9.]+(e[-+][0-9]+)?\$' THEN \$1 ELSE round(\$1::float8::numeric, 4)::text END\$\$;
	CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
	CREATE TABLE w (ts timestamptz, k int, i2 int2, i4 int4, i8 int8, n numeric, n2 numeric(12,2), f4 float4, f8 float8, iv interval, m money, b bool, t text, c char(5), by bytea,
		d date, tm time, tz timetz, tt timestamp, x xml, j json, jb jsonb, ip inet, o oid, tt2 tid, lsn pg_lsn, bits bit(8), a4 int[], e mood, r int4range, mr int4multirange,
		x8 xid8, long text);
	ALTER TABLE w ALTER long SET STORAGE EXTERNAL;
	CREATE FUNCTION fill(first int, last int) RETURNS void LANGUAGE sql AS \$\$
		INSERT INTO w SELECT '2024-01-01 UTC'::timestamptz + i * interval '1 second', i % 3, nullif(i % 7, 3), nullif(i % 11, 5), i, CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN 1.5 WHEN 2 THEN 2.25 ELSE i % 9 END,
			CASE i % 8 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' ELSE i / 4.0 END, nullif(i % 8, 2) * 0.25, nullif(i % 10, 4) * 0.5, nullif(i % 6, 1) * interval '1 hour', nullif(i % 12, 4)::numeric::money,
			nullif(i % 3, 2)::bool, nullif(chr(97 + i % 5), 'c'), chr(65 + i % 3), decode(lpad(to_hex(i % 40), 2, '0'), 'hex'), date '2024-02-28' + i % 4, time '10:00' + i % 50 * interval '1 minute',
			timetz '10:00+02' + i % 50 * interval '1 minute', timestamp '2024-01-01' + i % 40 * interval '1 day', xmlelement(name a, i % 4), json_build_object('i', i % 5), jsonb_build_object('k', i % 3),
			('10.0.0.' || i % 9)::inet, i % 20, ('(0,' || 1 + i % 6 || ')')::tid, ('0/' || i % 50)::pg_lsn, (i % 256)::bit(8), ARRAY[i % 3, i % 5], (enum_range(NULL::mood))[1 + i % 3],
			int4range(i % 20, 20 + i % 9), int4multirange(int4range(i % 10, 30)), (i % 10)::text::xid8, repeat(md5((i % 7)::text), CASE WHEN i % 40 = 0 THEN 300 ELSE 1 END)
		FROM generate_series(first, last) i \$\$");
attach_changes('w');
my @aggregates = map { [ split /\|/ ] } split /
/, sql(q(SELECT a.aggfnoid::regprocedure, aggkind, aggnumdirectargs FROM pg_aggregate a WHERE aggfnoid < 16384 AND aggfnoid::regprocedure::text !~ 'any_value' ORDER BY 1::text));
my @calls;
for my $aggregate (@aggregates)
{
	my ($call, $bytes) = call(@$aggregate);

	push @calls, { call => $call, state => $aggregate->[0] =~ $inverted ? qr/; rows are taken back by / : qr/inputs.*, $bytes bytes(?: or more)? a row; one that is taken back is one more, with a minus/,
		compare => $aggregate->[0] =~ $any_order ? 'by_characters' : $aggregate->[0] =~ $inexact ? 'by_digits' : '' };
}
push @calls, map { { call => "$_->[0](n2)", state => qr/; rows are taken back by numeric_accum_inv/, compare => '' } } [ 'sum' ], [ 'avg' ], [ 'stddev' ], [ 'var_pop' ];
push @calls, { call => 'sum(n2 * 2 + i4)', state => qr/; rows are taken back by numeric_accum_inv/, compare => '' },
	{ call => 'sum(n2 / 2)', state => qr/inputs.*2 bytes or more/, compare => '' }, { call => 'sum(DISTINCT i4)', state => qr/inputs, sorted, each once, 5 bytes/, compare => '' },
	{ call => 'count(i4) FILTER (WHERE b)', state => qr/by int8dec_any/, compare => '' }, { call => 'sum(n2) FILTER (WHERE i4 > 4)', state => qr/by numeric_accum_inv/, compare => '' },
	{ call => 'string_agg(long, NULL ORDER BY i8)', state => qr/inputs, sorted, 11 bytes or more/, compare => '' };
cmp_ok(scalar(@calls), '>', 140, 'all aggregates');

# The state that explain_query() shows of each call.
for my $call (@calls)
{
	my ($state) = sql("SELECT * FROM stream_ckpt.explain_query(\$q\$SELECT k, $call->{call} AS a FROM w GROUP BY k\$q\$, emit => 'update')") =~ /^  state: (.*)$/m;

	like($state, $call->{state}, "how $call->{call} is kept");
}
my $many = 30;
my @lists;
push @lists, [ splice @calls, 0, $many ] while @calls;
sub select_of
{
	my ($from, $list) = @_;
	my $n = 0;

	return "SELECT k, " . join(', ', map { $n++; "$_->{call} AS a$n" } @$list) . " FROM $from GROUP BY k";
}
create_query($node, "aggregates_$_", 'w', emit => 'update', select => select_of('w', $lists[$_])) for 0 .. $#lists;

sub check_aggregates
{
	my ($test) = @_;

	sync_pipelines($node);
	for my $i (0 .. $#lists)
	{
		my $list = $lists[$i];
		my $n = 0;
		my $compared = join ', ', 'k', map { $n++; "$_->{compare}(a$n\::text)" } @$list;
		my $truth = select_of('w', $list);
		my $differ = sql("SET timezone = 'UTC'; WITH x AS (SELECT $compared FROM aggregates_$i), y AS (SELECT $compared FROM ($truth) d) SELECT count(*) FROM ((TABLE x EXCEPT ALL TABLE y) UNION ALL (TABLE y EXCEPT ALL TABLE x)) z");

		is($differ, '0', "$test: aggregates $i") or diag "SEED=$seed";
		next if $differ eq '0';
		for my $n (1 .. @$list)
		{
			my $compare = $list->[ $n - 1 ]{compare};
			my $shown = sql("SET timezone = 'UTC'; SELECT x.k, left(x.a$n\::text, 200), left(y.a$n\::text, 200) FROM aggregates_$i x JOIN ($truth) y USING (k) WHERE $compare(x.a$n\::text) IS DISTINCT FROM $compare(y.a$n\::text) LIMIT 1");
			diag "$list->[$n - 1]{call}: $shown" if $shown ne '';
		}
	}
	return;
}

wait_running($node);
sql('SELECT fill(1, 200)');
check_aggregates('inserted');
sql("DELETE FROM w WHERE i8 % 3 = 1; UPDATE w SET i4 = i4 + 1, n = n + 1, n2 = n2 - 1, f8 = f8 * 2, t = t || 'x', b = NOT b, e = 'ok' WHERE i8 % 5 = 0");
check_aggregates('changed');
lose_state($node, pick(qw(immediate task)));
sql("BEGIN; SELECT fill(201, 300); DELETE FROM w WHERE i8 BETWEEN 190 AND 250; COMMIT; UPDATE w SET k = (k + 1) % 3, ts = ts + interval '1 minute' WHERE i8 % 4 = 0");
check_aggregates('after a restart');
sql('DELETE FROM w WHERE k <> 2; UPDATE w SET i2 = NULL, i4 = NULL, n = NULL, n2 = NULL, f4 = NULL, f8 = NULL, iv = NULL, m = NULL, b = NULL, t = NULL');
check_aggregates('only NULLs');
sql('DELETE FROM w');
check_aggregates('none');
sql('SELECT fill(301, 330)');
check_aggregates('again');

is(sql("SELECT count(*) FROM stream_ckpt.queries WHERE status <> 'running'"), '0', 'no query has failed') or diag sql('SELECT query, status, message FROM stream_ckpt.queries');

$node->stop;
done_testing();
