# keep_late_rows: each late row once in stream_ckpt.late_rows, whatever dies; they can be
# inserted again; who sees them; they go with their query.  So do rows without a finite
# event time, which are only counted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

test_seed();

my $node = new_node('main', '', draw => {});

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

#
# What a row looks like, and that it can be inserted again
#
sql(q(CREATE TYPE pair AS (a int, b text)),
	q(CREATE TABLE t (gone int, ts timestamptz, id int, n numeric, f float8, s text, j jsonb,
		list int[], p pair, raw bytea, d date, i interval)),
	q(ALTER TABLE t DROP COLUMN gone));
attach($node, 't');
my $select = q(SELECT w.window_start, count(*) AS rows FROM t, stream_ckpt.tumble(ts, '1 minute') w
	WHERE id >= 0 GROUP BY w.window_start);
create_query($node, 'kept', 't', select => $select, options => 'keep_late_rows => true');
create_query($node, 'counted', 't', select => $select);
create_query($node, 'lenient', 't', select => $select, emit => 'update',
	options => q(keep_late_rows => true, allowed_lateness => '5 minutes'));
wait_running($node);

sql(q(INSERT INTO t VALUES ('2024-01-01 00:10 UTC', 1)));
sql('BEGIN',
	q(INSERT INTO t VALUES ('2024-01-01 00:20 UTC', 2)),
	q(INSERT INTO t VALUES
		('2024-01-01 00:09:30.123456 UTC', 3, 12345678901234567890.50, 0.1, E'a "quoted"\\n line',
			'{"x": [1, null]}', '{1,NULL,3}', '(1,"b c")', '\\x00ff', '2024-02-29', '1 day 02:03'),
		('2024-01-01 00:09:59 UTC', 4, 'NaN', '-Infinity', '', 'null', '{}', NULL, '', '-infinity', NULL)),
	q(INSERT INTO t VALUES ('2024-01-01 00:09:00 UTC', -1), ('2024-01-01 00:01:00 UTC', 5),
		(NULL, 6), ('infinity', 7), ('-infinity', 8)),
	'COMMIT');
sql(q(ALTER TABLE t ADD COLUMN added int DEFAULT 42));
sql(q(INSERT INTO t (ts, id) VALUES ('2024-01-01 00:19 UTC', 9)));
sync_pipelines($node);

is(sql(q(SELECT string_agg((row->>'id') || ':' || ordinal, ' ' ORDER BY lsn, ordinal)
	FROM stream_ckpt.late_rows WHERE query = 'kept'::regclass)),
	'3:2 4:3 5:5 9:1', 'the late rows, with their numbers in their transactions');
is(sql(q(SELECT string_agg(row->>'id', ' ' ORDER BY lsn, ordinal)
	FROM stream_ckpt.late_rows WHERE query = 'lenient'::regclass)),
	'5', 'lateness counts');
is(sql(q(SELECT count(*) FROM stream_ckpt.late_rows WHERE query = 'counted'::regclass)),
	'0', 'a query that did not ask keeps none');
is(query_late_rows($node, 'kept'), '4', 'they are counted where they are kept');
is(query_late_rows($node, 'counted'), '4', 'and where they are not');
is(counter($node, 'kept', 'null_event_times'), '3', 'rows without a finite event time are counted by query');
is(sql(q(SELECT null_event_times FROM stream_ckpt.streams WHERE stream = 't'::regclass)),
	'3', 'and by stream');
is(sql(q(SET timezone = 'UTC';
	SELECT window_start, window_end, watermark FROM stream_ckpt.late_rows
	WHERE query = 'kept'::regclass AND row->>'id' = '3')),
	'2024-01-01 00:09:00+00|2024-01-01 00:10:00+00|2024-01-01 00:10:00+00',
	'window and watermark');
is(sql(q(SELECT count(DISTINCT lsn) || ' ' || bool_and(lsn <= pg_current_wal_lsn())
	FROM stream_ckpt.late_rows)), '2 true', 'transactions by LSN');
# rows that were kept before the column was added don't have it
sql(q(CREATE TABLE again (LIKE t)),
	q(INSERT INTO again SELECT (jsonb_populate_record(null::t, row)).* FROM stream_ckpt.late_rows
		WHERE query = 'kept'::regclass));
is(sql(q(SELECT count(*) FROM (SELECT to_jsonb(a) - 'added' FROM again a EXCEPT SELECT to_jsonb(t) - 'added' FROM t) x)), '0',
	'the rows can be inserted again, as they were');
is(sql(q(SELECT count(*) FROM again)), '4', 'all of them');
is(sql(q(SELECT added FROM again WHERE id = 9)), '42', 'with a column that was added since the query began');

# generated and identity columns: the others are named
sql(q(CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY, ts timestamptz, amount int,
	twice int GENERATED ALWAYS AS (amount * 2) STORED)),
	q(CREATE TABLE made_again (LIKE made INCLUDING ALL)));
attach($node, 'made');
create_query($node, 'of_made', 'made', options => 'keep_late_rows => true',
	select => q(SELECT w.window_start, count(*) AS rows FROM made, stream_ckpt.tumble(ts, '1 minute') w
		GROUP BY w.window_start));
sql(q(INSERT INTO made (ts, amount) VALUES ('2024-01-01 00:10 UTC', 1)));
sql(q(INSERT INTO made (ts, amount) VALUES ('2024-01-01 00:05 UTC', 2), ('2024-01-01 00:06 UTC', 3)));
sync_pipelines($node);
sql(q(INSERT INTO made_again (id, ts, amount) OVERRIDING SYSTEM VALUE
	SELECT r.id, r.ts, r.amount
	FROM stream_ckpt.late_rows, jsonb_populate_record(null::made, row) r
	WHERE query = 'of_made'::regclass));
is(sql(q(SELECT string_agg(id || ':' || amount || ':' || twice, ' ' ORDER BY id) FROM made_again)),
	'2:2:4 3:3:6', 'rows with generated and identity columns, as they were');

#
# Each once, whatever dies
#
sql(q(CREATE TABLE r (ts timestamp, id int, txn int)));
$node->safe_psql('postgres', q(SELECT stream_ckpt.attach_stream('r', event_time => 'ts')));
create_query($node, 'random', 'r', options => 'keep_late_rows => true',
	select => q(SELECT w.window_start, count(*) AS rows FROM r, stream_ckpt.tumble(ts, '10 seconds') w
		GROUP BY w.window_start));
sql(q(CREATE VIEW late AS SELECT r.* FROM r JOIN (SELECT txn,
		max(max(ts)) OVER (ORDER BY txn ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
		FROM r GROUP BY txn) x USING (txn)
	WHERE date_bin('10 seconds', ts, '1970-01-01') + interval '10 seconds' <= before));
my ($txn, $id, $clock) = (0, 0, 0);
my @points = qw(
  task_after_rows task_after_snapshot task_part_sent coordinator_parts_collected
  coordinator_after_rows coordinator_before_commit coordinator_after_commit
  coordinator_after_ack reader_after_confirm
);
for my $round (1 .. 5)
{
	for (1 .. 3)
	{
		my ($point, $action, $n) = (pick(@points), pick(qw(error exit term kill)), pick(1, 2));
		note "trouble: $action at $point, time $n";
		arm($node, $point, $action, $n);
		for (1 .. 4)
		{
			my @rows;

			$txn++;
			$clock += pick(0, 5, 20);
			push @rows,
			  sprintf("('2024-01-01'::timestamp + %.2f * interval '1 s', %d, $txn)",
				$clock - pick(0, rand(10), rand(100)), $id++)
			  for 1 .. pick(1, 5, 50);
			try_psql($node, 'INSERT INTO r VALUES ' . join(', ', @rows));
			wait_up($node);
		}
	}
	sync_pipelines($node);
	disarm($node, $_) for @points;
	sync_pipelines($node);
	my $kept = q(SELECT (jsonb_populate_record(null::r, row)).* FROM stream_ckpt.late_rows
		WHERE query = 'random'::regclass);
	is(sql("SELECT count(*) FROM ((TABLE late EXCEPT ALL $kept) UNION ALL ($kept EXCEPT ALL TABLE late)) d"),
		'0', "round $round: each late row once");
	is(query_late_rows($node, 'random'), sql('SELECT count(*) FROM late'), "round $round: counted");
}
cmp_ok(sql('SELECT count(*) FROM late'), '>', 20, 'there were late rows');

#
# Whose they are
#
sql(q(CREATE ROLE alice), q(CREATE ROLE bob), q(CREATE ROLE auditor IN ROLE pg_read_all_data),
	q(GRANT CREATE ON SCHEMA public TO alice, bob),
	q(CREATE TYPE who AS ENUM ('x', 'y')),
	q(CREATE TABLE shared (ts timestamptz, w who)),
	q(GRANT SELECT ON shared TO alice, bob),
	q(CREATE FUNCTION who_is_it(who) RETURNS json LANGUAGE sql AS 'SELECT to_json(current_user::text)'),
	q(CREATE CAST (who AS json) WITH FUNCTION who_is_it(who)));
attach($node, 'shared');
for my $role (qw(alice bob))
{
	sql("SET ROLE $role",
		"SELECT stream_ckpt.create_query('q_$role', 'SELECT w.window_start, count(*) AS rows
			FROM shared, stream_ckpt.tumble(ts, ''1 minute'') w GROUP BY w.window_start',
			keep_late_rows => true, backfill => false)");
}
sql(q(INSERT INTO shared VALUES ('2024-01-01 00:10 UTC', 'x')));
sql(q(INSERT INTO shared VALUES ('2024-01-01 00:00 UTC', 'x'), ('2024-01-01 00:01 UTC', 'y')));
sync_pipelines($node);
sub seen { return sql("SET ROLE $_[0]", q(SELECT coalesce(string_agg(DISTINCT query::text, ' '), '') FROM stream_ckpt.late_rows)); }
is(seen('alice'), 'q_alice', 'an owner sees the rows of her queries');
is(seen('bob'), 'q_bob', 'and he those of his');
like(seen('auditor'), qr/q_alice q_bob.*random/, 'pg_read_all_data sees all');
is(sql(q(SELECT string_agg(DISTINCT row->>'w', ' ' ORDER BY row->>'w') FROM stream_ckpt.late_rows
	WHERE query IN ('q_alice'::regclass, 'q_bob'::regclass))), 'x y',
	'no cast of the type\'s owner runs: its values are text');
is(sql(q(SELECT string_agg((jsonb_populate_record(null::shared, row)).w::text, ' ' ORDER BY row->>'w')
	FROM stream_ckpt.late_rows WHERE query = 'q_bob'::regclass)), 'x y', 'of which they come back');
my ($ret, $out, $err);
for my $mode ('ACCESS EXCLUSIVE', 'SHARE', 'ROW EXCLUSIVE')
{
	($ret, $out, $err) = $node->psql('postgres',
		"SET ROLE bob; BEGIN; LOCK TABLE stream_ckpt.late_rows, stream_ckpt.dead_letter IN $mode MODE");
	like($err, qr/permission denied/, "nobody holds up checkpoints by LOCK TABLE ... $mode");
}
($ret, $out, $err) = $node->psql('postgres', q(SET ROLE bob; SELECT stream_ckpt.take_late_rows('q_alice')));
like($err, qr/must be owner of view q_alice_definition/, 'others take nothing away');
is(sql(q(SET ROLE alice), q(SELECT count(*) FROM stream_ckpt.take_late_rows('q_alice', '0/1'))), '0',
	'up to an LSN');
is(sql(q(SET ROLE alice), q(SELECT count(*) FROM stream_ckpt.take_late_rows('q_alice'))),
	'2', 'she may take hers away');
is(sql(q(SELECT count(*) FROM stream_ckpt.late_rows WHERE query = 'q_alice'::regclass)), '0', 'which are gone then');
is(seen('bob'), 'q_bob', 'his stay');
($ret, $out, $err) = $node->psql('postgres',
	q(SET ROLE bob; UPDATE stream_ckpt.late_rows SET ordinal = 1));
like($err, qr/permission denied/, 'nobody changes them');
sql(q(CREATE ROLE carol), q(GRANT bob TO carol));
is(seen('carol'), 'q_bob', 'a member of the owner sees them');
($ret, $out, $err) = $node->psql('postgres', q(SET ROLE auditor; SELECT stream_ckpt.take_late_rows('q_bob')));
like($err, qr/must be owner/, 'who may only read takes nothing away');

#
# They go with their query
#
sql(q(SELECT stream_ckpt.drop_query('q_bob')));
is(sql(q(SELECT count(*) FROM stream_ckpt.late_rows l WHERE NOT EXISTS
	(SELECT FROM stream_ckpt.query q WHERE q.query_id = l.query_id))), '0', 'dropping the query drops them');
sql(q(DROP TABLE lenient));
is(sql(q(SELECT count(*) FROM stream_ckpt.late_rows l WHERE NOT EXISTS
	(SELECT FROM stream_ckpt.query q WHERE q.query_id = l.query_id))), '0', 'also by DROP TABLE');
isnt(sql(q(SELECT count(*) FROM stream_ckpt.late_rows)), '0', 'others stay');

$node->stop;
done_testing();
