# Other commands on log streams, and what stands between them and a row: views, rules, triggers of
# statements, domains.  Rows count once or there is an error; nothing else happens.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# "s" is a stream by itself; "p" has a partition that is one, and one that is a table.
sql(q(CREATE DOMAIN small AS int CHECK (VALUE < 100);
	SELECT stream_ckpt.create_stream('s', 'ts timestamptz, k int, v small', event_time => 'ts');
	CREATE TABLE p (ts timestamptz, k int, v small) PARTITION BY LIST (k);
	CREATE FOREIGN TABLE p_1 PARTITION OF p FOR VALUES IN (1) SERVER stream_ckpt OPTIONS (event_time 'ts');
	CREATE TABLE p_2 PARTITION OF p FOR VALUES IN (2)));
foreach my $stream (qw(s p_1))
{
	sql("SELECT stream_ckpt.create_query('q_$stream', \$q\$ SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total
		FROM $stream, stream_ckpt.tumble(ts, '1 hour') w GROUP BY w.window_start, w.window_end, k \$q\$, emit => 'update')");
}
wait_running($node);

my ($n, $total) = (0, 0);    # of s
my ($np, $totalp) = (0, 0);    # of p_1

sub counts_are
{
	my ($test) = @_;

	sync_pipelines($node);
	is(sql('SELECT coalesce(sum(n), 0), coalesce(sum(total), 0) FROM q_s'), "$n|$total", "$test: s");
	is(sql('SELECT coalesce(sum(n), 0), coalesce(sum(total), 0) FROM q_p_1'), "$np|$totalp", "$test: p_1");
	return;
}

# A command that is refused, and leaves nothing.
sub refused
{
	my ($command, $error) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres', $command);

	like($stderr, $error, "refused: $command");
	return;
}

my $ts = q(timestamptz '2024-01-01 00:00 UTC');

refused("MERGE INTO s USING (VALUES (1)) x (k) ON false WHEN NOT MATCHED THEN INSERT VALUES ($ts, 1, 1)",
	qr/cannot execute MERGE on relation "s"\n.*not supported for foreign tables/s);
refused('TRUNCATE s', qr/cannot truncate stream "s"/);
refused('BEGIN; LOCK TABLE s', qr/"s" is not a table or view|cannot lock relation "s"/);
refused("COPY s TO STDOUT", qr/cannot copy from foreign table "s"/);
refused("INSERT INTO s VALUES ($ts, 1, 1) ON CONFLICT $_", qr/cannot use ON CONFLICT with stream "s"|no unique or exclusion constraint/) foreach 'DO NOTHING', '(k) DO NOTHING';
refused("INSERT INTO s VALUES ($ts, 1, 100)", qr/value for domain small violates check constraint/);
refused("INSERT INTO p VALUES ($ts, 1, 1), ($ts, 1, 100)", qr/value for domain small violates check constraint/);
refused('IMPORT FOREIGN SCHEMA public FROM SERVER stream_ckpt INTO public', qr/does not support IMPORT FOREIGN SCHEMA/);
counts_are('after what is refused');

# what concerns no rows
like($node->psql('postgres', 'ANALYZE s') . ($node->psql('postgres', 'ANALYZE s'))[2], qr/cannot analyze this foreign table/, 'ANALYZE skips a log stream');
is(($node->psql('postgres', 'ANALYZE p'))[0], 0, 'ANALYZE of a partitioned table with one');
is(($node->psql('postgres', 'VACUUM p'))[0], 0, 'VACUUM, too');

# views, rules, INSTEAD OF triggers
sql(q(CREATE VIEW s_view AS SELECT ts, v, k FROM s;
	CREATE TABLE by_rule (LIKE s); CREATE RULE also AS ON INSERT TO by_rule DO ALSO INSERT INTO s VALUES (NEW.*);
	CREATE VIEW joined AS SELECT b.ts, b.v FROM by_rule b, generate_series(1, 2);
	CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO s VALUES (NEW.ts, 7, NEW.v); RETURN NEW; END';
	CREATE TRIGGER instead INSTEAD OF INSERT ON joined FOR EACH ROW EXECUTE FUNCTION instead()));
sql("INSERT INTO s_view VALUES ($ts, 10, 1), ($ts, 20, 2)");
sql("INSERT INTO by_rule VALUES ($ts, 1, 3), ($ts, 2, 4)");
sql("INSERT INTO joined VALUES ($ts, 5)");
($n, $total) = ($n + 5, $total + 42);
counts_are('views, rules, INSTEAD OF triggers');

# triggers of statements; transition tables aren't for foreign tables
sql(q(CREATE TABLE statements (what text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO statements VALUES (TG_WHEN || ' ' || TG_TABLE_NAME); RETURN NULL; END $$;
	CREATE TRIGGER before BEFORE INSERT ON s FOR EACH STATEMENT EXECUTE FUNCTION note();
	CREATE TRIGGER after AFTER INSERT ON s FOR EACH STATEMENT EXECUTE FUNCTION note();
	CREATE TRIGGER after AFTER INSERT ON p FOR EACH STATEMENT EXECUTE FUNCTION note()));
sql("INSERT INTO s VALUES ($ts, 1, 1), ($ts, 1, 2)");
sql("INSERT INTO p VALUES ($ts, 1, 3), ($ts, 2, 4), ($ts, 1, 5)");
($n, $total) = ($n + 2, $total + 3);
($np, $totalp) = (2, 8);
counts_are('triggers of statements');
is(sql(q(SELECT string_agg(what, ', ' ORDER BY what) FROM statements)), 'AFTER p, AFTER s, BEFORE s', 'each fires once');
refused('CREATE TRIGGER rows AFTER INSERT ON s REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION note()',
	qr/"s" is a foreign table\n.*cannot have transition tables/s);
sql('CREATE TRIGGER rows AFTER INSERT ON p REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION note()');
refused("INSERT INTO p VALUES ($ts, 2, 6), ($ts, 1, 7)", qr/cannot collect transition tuples from child foreign tables/);
counts_are('transition tables');
is(sql('SELECT count(*) FROM p_2'), 1, 'no row of that is in the other partition');
sql('DROP TRIGGER rows ON p');

# a subscriber can't write into one: its table there is the partitioned one
sql(q(CREATE DATABASE there));
$node->safe_psql('there', q(CREATE TABLE p (ts timestamptz, k int, v int, PRIMARY KEY (ts, k, v)); CREATE PUBLICATION pub FOR TABLE p;
	SELECT pg_create_logical_replication_slot('sub', 'pgoutput')));
my $connstr = $node->connstr('there');
sql("CREATE SUBSCRIPTION sub CONNECTION \$c\$$connstr\$c\$ PUBLICATION pub WITH (create_slot = false, slot_name = 'sub', copy_data = false)");
my $log_from = -s $node->logfile;
$node->safe_psql('there', "INSERT INTO p VALUES ($ts, 2, 8)");
wait_until($node, 'SELECT count(*) = 2 FROM p_2', 'a subscriber writes into the table');
$node->safe_psql('there', "INSERT INTO p VALUES ($ts, 1, 9)");
ok($node->wait_for_log(qr/cannot use relation "public.p_1" as logical replication target/, $log_from), 'a subscriber cannot write into a log stream');
sql('ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub');
counts_are('a subscriber');

$node->stop;
done_testing();
