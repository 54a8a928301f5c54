# Results where an error, a deletion or a type makes a difference between what we do and what a
# plain query does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.debug_cut_row_bytes = 100000\n");
sub sql { return $node->safe_psql('postgres', join ';', @_); }

sub create
{
	my ($name, $select, $options) = @_;

	sql("SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$, $options, backfill => false)");
	return;
}
my $dead = q(on_error => 'dead_letter');
my ($ret, $out, $err);
my $update = q(emit => 'update');

# HAVING guards the select list, also of the row that is to be deleted.
create_stream_table($node, 'guarded', delay => '1 hour');
create_stream_table($node, 'closing');
for my $options ("$update", "$update, $dead", q(allowed_lateness => '1 hour'))
{
	my $name = 'g' . length $options;
	my $table = $options =~ /lateness/ ? 'closing' : 'guarded';

	create($name, qq(SELECT w.window_start, k, 100 / sum(v) AS x FROM $table, stream_ckpt.tumble(ts, '1 minute') w
		GROUP BY w.window_start, k HAVING sum(v) <> 0), $options);
}
sql(map { "INSERT INTO $_ VALUES ('2024-01-01 UTC', 1, 5), ('2024-01-01 UTC', 2, 7), ('2024-01-01 00:02 UTC', 1, 1)" } qw(guarded closing));
sync_pipelines($node);
sql(map { "INSERT INTO $_ VALUES ('2024-01-01 UTC', 1, -5)" } qw(guarded closing));
sync_pipelines($node);
for my $name (map { 'g' . length } ("$update", "$update, $dead"))
{
	is(sql("SELECT string_agg(format('%s:%s', k, x), ' ' ORDER BY window_start, k) FROM $name"), '2:14 1:100', "$name: deleted");
}
is(sql(q(SELECT string_agg(format('%s:%s', k, x), ' ') FROM g) . length(q(allowed_lateness => '1 hour'))), '2:14', 'deleted within the lateness');
is(sql('SELECT count(*) FROM stream_ckpt.dead_letter'), '0', 'nothing failed in that');
is(sql(q(SELECT count(*) FROM stream_ckpt.queries WHERE status <> 'running')), '0', 'all go on');

# What HAVING says of keys alone rules rows out before aggregates see them, as in a plain query.
create_stream_table($node, 'ruled');
for my $emit (qw(close update))
{
	create("h_$emit", q(SELECT w.window_start, k, sum(100 / k) AS s, count(*) AS n FROM ruled, stream_ckpt.tumble(ts, '1 minute') w
		GROUP BY w.window_start, k HAVING k > 0 AND count(*) > 1 AND extract(minute FROM w.window_start) <> 1), "emit => '$emit'");
}
sql(q(INSERT INTO ruled SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 3, 1 FROM generate_series(0, 300) i));
sync_pipelines($node);
for my $name (qw(h_close h_update))
{
	is(sql("SELECT stream_ckpt.verify('$name'), (SELECT count(*) FROM $name WHERE window_start < '2024-01-01 00:05 UTC'),
		(SELECT status FROM stream_ckpt.queries WHERE query = '$name'::regclass)"), '0|8|running', "$name: HAVING on keys comes first");
}

# A row without a time that fails in WHERE leaves nothing of it to the next row.
create_stream_table($node, 'timeless');
create('t_where', q(SELECT w.window_start, extract(minute FROM ts - w.window_start) AS m, count(*) AS n
	FROM timeless, stream_ckpt.tumble(ts, '1 hour') w WHERE 10 / v > -100 GROUP BY w.window_start, extract(minute FROM ts - w.window_start)), "$update, $dead");
sql(q(INSERT INTO timeless VALUES ('2024-01-01 00:00:10 UTC', 1, 1), (NULL, 1, 0), ('2024-01-01 00:00:20 UTC', 1, 1)));
sync_pipelines($node);
is(sql('SELECT m, n FROM t_where'), '0|2', 'window columns are those of the row');
is(sql(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 't_where'::regclass)), '0', 'it is no letter');
is(counter($node, 't_where', 'null_event_times'), '1', 'but has no time');

# WHERE comes before the window: what it excludes costs nothing, but moves the watermark; an error of it leaves
# a late row late.
create_stream_table($node, 'w');
sql(q(SELECT stream_ckpt.alter_stream('w', max_ahead => NULL)));
my $between = q(FROM w, stream_ckpt.tumble(ts, '1 minute') w2);
my %options = (w_stop => q(emit => 'close'), w_dead => "$dead", w_update => "$update", w_late => 'keep_late_rows => true');
create($_, "SELECT w2.window_start, count(*) AS n, sum(v) AS s $between WHERE coalesce(ts, '2000-01-01') < '2100-01-01' AND 10 / v > 0 AND w2.window_end > '2000-01-01'
	GROUP BY w2.window_start", $options{$_}) for sort keys %options;
create('w_all', "SELECT w2.window_start, count(*) AS n $between WHERE w2.window_end > '2000-01-01' GROUP BY w2.window_start", $dead);
sql(q(INSERT INTO w VALUES ('2024-01-01 UTC', 1, 1), (NULL, 1, 1), ('infinity', 1, 20), (NULL, 1, 0)));
sql(q(INSERT INTO w VALUES ('2099-01-01 UTC', 1, 20)));
sql(q(INSERT INTO w VALUES ('294276-12-31 23:59:59.999999 UTC', 1, 1)));
sql(q(INSERT INTO w VALUES ('2024-01-01 UTC', 1, 20), ('2024-01-01 UTC', 1, 1), ('2024-01-01 UTC', 1, 0)));
sync_pipelines($node);
for my $name (sort keys %options)
{
	is(sql("SELECT status, rows_in, late_rows, null_event_times, extract(year FROM watermark) FROM stream_ckpt.queries WHERE query = '$name'::regclass"),
		'running|9|2|2|294276', "$name: excluded rows are not counted");
	is(sql("SELECT n, s FROM $name"), '1|1', "$name: the row within a window");
}
is(sql(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 'w_dead'::regclass)), '0', 'no letters');
is(sql(q(SELECT string_agg(row->>'v', ' ' ORDER BY ordinal) FROM stream_ckpt.late_rows WHERE query = 'w_late'::regclass)), '1 0', 'late rows are kept');
is(sql(q(SELECT message, row->>'ts' IS NOT NULL FROM stream_ckpt.dead_letter WHERE query = 'w_all'::regclass)), 'timestamp out of range|t',
	'what WHERE lets through must have a window');
sql(map { "SELECT stream_ckpt.drop_query('$_')" } 'w_all', sort keys %options);

# bpchar: equal values have other bytes.
sql(q(CREATE TABLE blanks (ts timestamptz, c bpchar, v int)));
attach($node, 'blanks');
for my $emit (qw(close update))
{
	create("b_$emit", q(SELECT w.window_start, c, count(*) AS n FROM blanks, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, c), "emit => '$emit'");
}
sql(q(INSERT INTO blanks VALUES ('2024-01-01 UTC', 'a', 1), ('2024-01-01 UTC', 'a  ', 1), ('2024-01-01 00:02 UTC', 'b', 1)));
sync_pipelines($node);
is(sql("SELECT stream_ckpt.verify('b_$_'), (SELECT n FROM b_$_ WHERE c = 'a')"), '0|2', "$_: one group") for qw(close update);

# Dead letters of result rows of several types, one after another.
create_stream_table($node, 'r');
create('r_text', q(SELECT w.window_start, k::text AS k, sum(v) AS s FROM r, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, k::text), "$update, $dead");
create('r_int', q(SELECT w.window_start, k, sum(v) AS s FROM r, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, k), "$update, $dead");
sql(map { "ALTER TABLE $_ ADD CHECK (s < 0)" } qw(r_text r_int));
for my $round (1 .. 5)
{
	sql("INSERT INTO r SELECT '2024-01-01 UTC', i, 1 FROM generate_series(1, 20) i");
	sync_pipelines($node);
}
is(sql(qq(SELECT count(*), count(DISTINCT row->>'k'), bool_and(jsonb_typeof(row->'k') = '$_->[1]') FROM stream_ckpt.dead_letter
	WHERE query = '$_->[0]'::regclass)), '100|20|t', "$_->[0]: each row as it is")
  for [ 'r_text', 'string' ], [ 'r_int', 'number' ];

# An error in the row of a group whose inputs are kept, after a sort that went to disk.
create_stream_table($node, 'sorted');
create('s_disk', q(SELECT w.window_start, k, 100 / (percentile_disc(0.5) WITHIN GROUP (ORDER BY v))::int AS p
	FROM sorted, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, k), "$update, $dead");
sql(q(INSERT INTO sorted SELECT '2024-01-01 UTC', k, k - 2 FROM generate_series(1, 3) k, generate_series(1, 150000)));
sync_pipelines($node);
is(sql(q(SELECT string_agg(format('%s:%s', k, p), ' ' ORDER BY k) FROM s_disk)), '1:-100 3:100', 'the others are there');
is(sql(q(SELECT count(*) FROM stream_ckpt.dead_letter WHERE query = 's_disk'::regclass AND kind = 'group')), '1', 'one letter');
is(sql(q(SELECT count(*) FROM stream_ckpt.checkpoints WHERE kind = 'restart')), '0', 'no worker ended');

# json that jsonb doesn't take: a late row is kept all the same.
sql(q(CREATE TABLE j (ts timestamptz, v json)));
attach($node, 'j');
create('j_late', q(SELECT w.window_start, count(*) AS n FROM j, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start), 'keep_late_rows => true');
sql(q(INSERT INTO j VALUES ('2024-01-01 01:00 UTC', '1')));
sql(q(INSERT INTO j VALUES ('2024-01-01 00:00 UTC', '{"a":"\\u0000"}'), ('2024-01-01 00:00 UTC', '{"a":2}')));
sync_pipelines($node);
is(sql(q(SELECT string_agg(jsonb_typeof(row), ' ' ORDER BY ordinal) FROM stream_ckpt.late_rows)), 'object object', 'kept');
is(sql(q(SELECT split_part(row_text, E'\\t', 2) || ' ' || (row->>'v') FROM stream_ckpt.late_rows WHERE ordinal = 1)), '{"a":"\\\\u0000"} {"a":"\\u0000"}', 'as it was');

# What a definition is can't be changed under the query.
for my $command (
	q(CREATE OR REPLACE VIEW j_late_definition AS SELECT w.window_start, count(*) + 1 AS n FROM j, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start),
	q(CREATE OR REPLACE RULE "_RETURN" AS ON SELECT TO j_late_definition DO INSTEAD SELECT w.window_start, count(*) + 1 AS n FROM j, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start))
{
	($ret, $out, $err) = $node->psql('postgres', $command);
	like($err, qr/cannot replace "j_late_definition".*HINT:.*replace_query/s, 'a definition stays');
}

# now() behind a domain
sql(q(CREATE DOMAIN past AS timestamptz CHECK (VALUE < now())));
($ret, $out, $err) = $node->psql('postgres', q(SELECT stream_ckpt.create_query('d', 'SELECT w.window_start, max(ts::past) AS m FROM j, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start')));
like($err, qr/now\(\)/, 'a domain whose CHECK depends on the time is refused');

# Rows are kept for those who may read all of them.
sql(q(CREATE ROLE reader), q(GRANT CREATE ON SCHEMA public TO reader), q(GRANT SELECT (ts, k) ON guarded TO reader));
for my $options ($dead, 'keep_late_rows => true')
{
	($ret, $out, $err) = $node->psql('postgres', qq(SET ROLE reader; SELECT stream_ckpt.create_query('peek', 'SELECT w.window_start, count(k) AS n FROM guarded, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start', $options)));
	like($err, qr/permission denied for columns of stream "guarded".*SELECT on all columns/s, "$options: all columns");
}

# A row too large to be handed on (1 GB; here a limit of less): queries that read its large columns
# can't have it, those that don't count it, and the pipeline goes on.
sql(q(CREATE TABLE large (ts timestamptz, k int, a text, b text, small text);
	ALTER TABLE large ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL));
attach($node, 'large');
my $from = q(FROM large, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, k);
create('l_count', "SELECT w.window_start, k, count(*) AS n, max(small) AS m $from", $update);
create('l_stop', "SELECT w.window_start, k, count(*) AS n, sum(length(a)) AS s $from", $update);
create('l_dead', "SELECT w.window_start, k, count(*) AS n, sum(length(a)) AS s $from", "$update, $dead");
create('l_whole', "SELECT w.window_start, k, count(large) AS n $from", "$update, $dead");
create('l_late', "SELECT w.window_start, k, count(*) AS n $from", "$update, $dead, keep_late_rows => true");
(my $where = $from) =~ s/GROUP/WHERE b IS NOT NULL AND small <> 't' AND a <> '' GROUP/;
create('l_where', "SELECT w.window_start, k, count(*) AS n $where", $dead);
create('l_left', "SELECT w.window_start, k, count(*) AS n FROM large, stream_ckpt.tumble(ts, '1 minute') w WHERE small IN ('s', 'u', 'w') AND a <> '' GROUP BY w.window_start, k", $update);
sql(q(INSERT INTO large VALUES ('2024-01-01 UTC', 1, repeat('x', 60000), 'b', 's'), ('2024-01-01 UTC', 1, repeat('x', 60000), repeat('y', 60000), 't'),
	('2024-01-01 UTC', 1, 'a', repeat('y', 90000), 'u'), ('2024-01-01 UTC', 2, repeat('z', 120000), NULL, 'v'), ('2024-01-01 UTC', 2, 'a', 'b', 'w')));
wait_until($node, q(SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'l_stop'::regclass), 'who reads a large column fails');
is(sql(q(SELECT sqlstate, message, detail, row_ordinal FROM stream_ckpt.queries WHERE query = 'l_stop'::regclass)),
	'54000|a row of the stream is too large to be read|It takes more than 1 GB, column "a" among it 60000 bytes.|2', 'and says at which row');
wait_until($node, q(SELECT count(*) = 6 AND bool_and(rows_in = 5) FROM stream_ckpt.queries WHERE query::text LIKE 'l\_%' AND status = 'running'), 'the others go on');
is(sql(q(SELECT string_agg(n || m, ' ' ORDER BY k) FROM l_count)), '3u 2w', 'who reads none counts the rows');
is(sql(q(SELECT string_agg(concat_ws(',', n, s), ' ' ORDER BY k) FROM l_dead)), '2,60001 1,1', 'dead letters: without the rows');
is(sql("SELECT string_agg(n::text, ' ' ORDER BY k) FROM $_->[0]"), $_->[1], $_->[2])
  foreach [ 'l_whole', '2 1', 'whole rows are read' ], [ 'l_late', '3 2', 'only late rows are kept' ],
  [ 'l_left', '2 1', 'a cut row that WHERE excludes before it reads the column' ];
is(sql(q(SELECT query, count(*), count(row), min(message) FROM stream_ckpt.dead_letter WHERE query::text LIKE 'l\_%' GROUP BY 1 ORDER BY query::text)),
	join("\n", map { "$_|2|0|a row of the stream is too large to be read" } qw(l_dead l_whole)), 'the letters say so');
$node->append_conf('postgresql.conf', 'stream_ckpt.debug_cut_row_bytes = 1000000');
$node->restart;
wait_running($node);
sql(q(SELECT stream_ckpt.resume_query('l_stop')));
sync_pipelines($node);
is(sql(q(SELECT stream_ckpt.verify('l_stop'), stream_ckpt.verify('l_count'))), '0|0', 'resumed, where the rows fit');
$node->append_conf('postgresql.conf', 'stream_ckpt.debug_cut_row_bytes = 100000');
$node->restart;
wait_running($node);
sql(q(SELECT stream_ckpt.drop_query('l_stop')));
sql(q(INSERT INTO large VALUES ('2024-01-01 00:05 UTC', 3, '', NULL, 's')));
sql(q(INSERT INTO large VALUES ('2024-01-01 00:02 UTC', 1, repeat('x', 60000), repeat('y', 60000), 't'), ('2024-01-01 00:02 UTC', 1, repeat('x', 60000), repeat('y', 60000), 's'),
	('2024-01-01 00:02 UTC', 1, 'a', 'b', 's'), ('2024-01-01 00:06 UTC', 1, 'a', 'b', 's')));
wait_until($node, q(SELECT bool_and(rows_in = 10) FROM stream_ckpt.queries WHERE query::text LIKE 'l\_%'), 'later rows are read');
is(sql(q(SELECT late_rows, (SELECT count(*) FROM stream_ckpt.dead_letter d WHERE d.query = q.query) FROM stream_ckpt.queries q WHERE query = 'l_where'::regclass)),
	'2|0', 'a late row is late where WHERE reads what was left out');
is(sql(q(SELECT late_rows, (SELECT count(*) FROM stream_ckpt.dead_letter d WHERE d.query = q.query) FROM stream_ckpt.queries q WHERE query = 'l_late'::regclass)),
	'1|2', 'a late row that cannot be kept is a letter');

$node->stop;
done_testing();
