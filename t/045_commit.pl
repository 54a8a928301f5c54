# What code of owners leaves for the commit (deferred constraints, transactions on other
# servers) concerns the query alone whose it is, too: the others' parts are committed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.query_time_limit = '500ms'\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub remote { return $node->safe_psql('remote', $_[0]); }

# "plain" runs no code of its owner's; "other" has a trigger that does no harm; "far" and
# "away" write to another server whose commit refuses, or never ends.
create_stream_table($node, 't');
sql(q(CREATE ROLE carol; GRANT ALL ON SCHEMA public TO carol; GRANT SELECT ON t TO carol;
	CREATE DATABASE remote));
my %emit = (plain => 'update', other => 'update', far => 'update', away => 'close');
my $select = q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total
	FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k);
foreach my $query (sort keys %emit)
{
	sql("SET SESSION AUTHORIZATION carol;
		SELECT stream_ckpt.create_query('$query', \$q\$ $select \$q\$, emit => '$emit{$query}', backfill => false)");
}
wait_running($node);

my $n = 0;

# Ten rows, and the end of the window before them.
sub rows
{
	sql("INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + (($n + i) * 10) * interval '1 second',
		i % 3, i, $n FROM generate_series(1, 10) i");
	$n += 10;
	return;
}

sub exact
{
	my ($what, @queries) = @_;

	results_ok($node, $_, "$_ is exact: $what", emit => $emit{$_}, table => 't', synced => 1) foreach @queries;
	return;
}

sub all_exact
{
	my ($what) = @_;

	sync_pipelines($node);
	exact($what, sort keys %emit);
	is(sql(q(SELECT string_agg(DISTINCT status, ' ') FROM stream_ckpt.queries)), 'running', "all are healthy: $what");
	is(sql('SELECT count(*) FROM (TABLE copied EXCEPT ALL TABLE other) d'), '0', "the trigger's rows are those of other: $what");
	return;
}

# All rows are in the results of queries (emit update), whether sync() waits for another one or not.
sub go_on
{
	my ($what, @queries) = @_;

	foreach my $query (@queries)
	{
		wait_until($node, "SELECT sum(n) = (SELECT count(*) FROM t) FROM $query", "$query goes on: $what");
	}
	exact($what, @queries);
	return;
}

sub is_waiting
{
	my ($query, $message) = @_;

	wait_until($node, "SELECT status = 'waiting' FROM stream_ckpt.queries WHERE query = '$query'::regclass", "$query waits");
	like(counter($node, $query, 'message'), $message, "the view says why $query waits");
	return;
}

sql(q(CREATE TABLE copied (LIKE other); ALTER TABLE copied OWNER TO carol;
	CREATE UNIQUE INDEX ON copied (window_start, k) NULLS NOT DISTINCT;
	CREATE FUNCTION copy_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO copied SELECT NEW.* ON CONFLICT (window_start, k) DO UPDATE SET n = EXCLUDED.n, total = EXCLUDED.total;
		RETURN NEW; END $$;
	ALTER FUNCTION copy_it() OWNER TO carol;
	CREATE TRIGGER copy_it AFTER INSERT OR UPDATE ON other FOR EACH ROW EXECUTE FUNCTION copy_it()));
rows();
all_exact('nothing is wrong');

#
# Deferred constraints and triggers
#
sql(q(CREATE TABLE keys (k int PRIMARY KEY); INSERT INTO keys VALUES (0), (1), (2); ALTER TABLE keys OWNER TO carol;
	CREATE TABLE who (name text); ALTER TABLE who OWNER TO carol;
	ALTER TABLE far ADD CONSTRAINT known FOREIGN KEY (k) REFERENCES keys DEFERRABLE INITIALLY DEFERRED;
	CREATE FUNCTION note_who() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO who VALUES (current_user); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER note_who AFTER INSERT OR UPDATE ON away DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION note_who()));
rows();
all_exact('deferred constraints that hold');
is(sql('SELECT string_agg(DISTINCT name, \' \') FROM who'), 'carol', 'a deferred trigger runs as the owner');
sql('ALTER TABLE far DROP CONSTRAINT known; DELETE FROM keys WHERE k = 1;
	ALTER TABLE far ADD CONSTRAINT known FOREIGN KEY (k) REFERENCES keys DEFERRABLE INITIALLY DEFERRED NOT VALID');
rows();
wait_until($node, q(SELECT status = 'failed' FROM stream_ckpt.queries WHERE query = 'far'::regclass), 'a deferred constraint is violated');
like(counter($node, 'far', 'message'), qr/violates foreign key constraint "known"/, 'the error is in the view');
go_on('a deferred constraint of another query is violated', qw(plain other));
sql(q(INSERT INTO keys VALUES (1); SELECT stream_ckpt.resume_query('far')));
all_exact('mended and resumed');
sql('ALTER TABLE far DROP CONSTRAINT known; DROP TRIGGER note_who ON away');

#
# A transaction on another server, whose commit fails
#
my $host = $node->host;
my $port = $node->port;
remote(q(CREATE TABLE rows (query text, n int); CREATE TABLE mood (refuse text, hang text);
	INSERT INTO mood VALUES ('', '');
	CREATE FUNCTION consider() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF (SELECT NEW.query = ANY (string_to_array(refuse, ' ')) FROM public.mood) THEN RAISE 'not these rows, %', NEW.query; END IF;
		IF (SELECT NEW.query = ANY (string_to_array(hang, ' ')) FROM public.mood) THEN PERFORM nextval('public.hung'); PERFORM pg_advisory_xact_lock(1); END IF;
		RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER consider AFTER INSERT ON rows DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION consider();
	CREATE SEQUENCE hung; GRANT ALL ON rows, mood, hung TO carol));
sql(qq(CREATE EXTENSION postgres_fdw;
	CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'remote');
	CREATE USER MAPPING FOR carol SERVER there OPTIONS (user 'carol', password_required 'false');
	ALTER ROLE carol LOGIN;
	CREATE FOREIGN TABLE rows_there (query text, n int) SERVER there OPTIONS (table_name 'rows');
	ALTER FOREIGN TABLE rows_there OWNER TO carol;
	CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
		\$\$ BEGIN INSERT INTO rows_there VALUES (TG_TABLE_NAME, NEW.n); RETURN NEW; END \$\$;
	CREATE TRIGGER tell AFTER INSERT OR UPDATE ON far FOR EACH ROW EXECUTE FUNCTION tell();
	CREATE TRIGGER tell AFTER INSERT OR UPDATE ON away FOR EACH ROW EXECUTE FUNCTION tell()));
rows();
all_exact('the other server takes the rows');
is(remote('SELECT string_agg(DISTINCT query, \' \' ORDER BY query) FROM rows'), 'away far', 'they are there');

my $attempt = sql('SELECT attempt FROM stream_ckpt.pipelines');
remote(q(UPDATE mood SET refuse = 'far'));
rows();
is_waiting('far', qr/not these rows, far/);
go_on('the commit refuses far', qw(plain other));
rows();
go_on('far is tried again and again', qw(plain other));
remote(q(UPDATE mood SET refuse = 'far away'));
rows();
is_waiting('away', qr/not these rows, away/);
is_waiting('far', qr/not these rows, far/);
rows();
go_on('the commit refuses far and away', qw(plain other));
is(sql(q(SELECT count(*) FROM stream_ckpt.queries WHERE query IN ('plain'::regclass, 'other'::regclass) AND message IS NOT NULL)),
	'0', 'the others have no failure');
remote(q(UPDATE mood SET refuse = ''));
sql(q(SELECT stream_ckpt.resume_query('far'); SELECT stream_ckpt.resume_query('away')));
all_exact('the other server takes the rows again');

# it never answers
my $holder = $node->background_psql('remote');
$holder->query_safe('SELECT pg_advisory_lock(1)');
remote(q(UPDATE mood SET hang = 'far'));
rows();
is_waiting('far', qr/took longer than "stream_ckpt.query_time_limit"/);
go_on('the commit of far hangs', qw(plain other));
$holder->quit;
sql(q(SELECT stream_ckpt.resume_query('far')));
all_exact('the other server answers');
is(sql('SELECT attempt FROM stream_ckpt.pipelines'), $attempt, 'no restarts for that');

# several that never answer: however long each takes, the others have their turn after each of them
my @hanging = map { "hanging_$_" } 1 .. 4;
foreach my $query (@hanging)
{
	sql("SET SESSION AUTHORIZATION carol;
		SELECT stream_ckpt.create_query('$query', \$q\$ $select \$q\$, emit => 'update', backfill => false);
		CREATE TRIGGER tell AFTER INSERT OR UPDATE ON $query FOR EACH ROW EXECUTE FUNCTION tell()");
}
rows();
all_exact('more queries write to the other server');
$holder = $node->background_psql('remote');
$holder->query_safe('SELECT pg_advisory_lock(1)');
remote("UPDATE mood SET hang = '@hanging'");
rows();
is_waiting($_, qr/took longer than "stream_ckpt.query_time_limit"/) foreach @hanging;
go_on('the commits of four hang', qw(plain other far));
my $tries = remote('SELECT last_value FROM hung');
sql('BEGIN; ' . join('', map { "SELECT stream_ckpt.resume_query('$_');" } @hanging) . "
	INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + (($n + i) * 10) * interval '1 second', i % 3, i, $n FROM generate_series(1, 10) i; COMMIT");
$n += 10;
wait_until($node, 'SELECT sum(n) = (SELECT count(*) FROM t) FROM other', 'other goes on when all four are tried again');
$tries = remote('SELECT last_value FROM hung') - $tries;
cmp_ok($tries, '<=', 5, "other did not wait until each of them had several tries ($tries)");
go_on('all four are tried again', qw(plain other));
$holder->quit;
remote(q(UPDATE mood SET hang = ''));
sql("SELECT stream_ckpt.drop_query('$_')") foreach @hanging;
all_exact('four are gone');

#
# A session on the other server that ends in the middle of a statement: the write fails, or not where
# the trigger catches the error; what it leaves fails later.
#
remote(q(UPDATE mood SET hang = '';
	CREATE FUNCTION depart() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF (SELECT NEW.query = ANY (string_to_array(refuse, ' ')) FROM public.mood) THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
		RETURN NEW; END $$;
	DROP TRIGGER consider ON rows;
	CREATE TRIGGER depart BEFORE INSERT ON rows FOR EACH ROW EXECUTE FUNCTION depart()));
foreach my $body ('', 'EXCEPTION WHEN OTHERS THEN NULL; END; RETURN NEW;')
{
	my $how = $body ? 'caught' : 'not caught';
	my $tell = 'CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS';

	sql($body ? "$tell \$\$ BEGIN BEGIN INSERT INTO rows_there VALUES (TG_TABLE_NAME, NEW.n); $body END \$\$" :
		"$tell \$\$ BEGIN INSERT INTO rows_there VALUES (TG_TABLE_NAME, NEW.n); RETURN NEW; END \$\$");
	rows();
	all_exact("the session stays, $how");
	remote(q(UPDATE mood SET refuse = 'far'));
	rows();
	wait_until($node, q(SELECT status = 'waiting' FROM stream_ckpt.queries WHERE query = 'far'::regclass), "far waits, $how");
	like(counter($node, 'far', 'message'), qr/terminating connection|cannot be used due to abort cleanup failure/, "the view says why, $how");
	rows();
	go_on("the other server's session ends, $how", qw(plain other));
	is(sql(q(SELECT count(*) FROM stream_ckpt.queries WHERE query <> 'far'::regclass AND message IS NOT NULL)), '0', "nobody else is blamed, $how");
	remote(q(UPDATE mood SET refuse = ''));
	sql(q(SELECT stream_ckpt.resume_query('far')));
	all_exact("the session stays again, $how");
}

#
# The same in a task: a function that calls itself immutable, but reads what is there; called by name, or
# only by a constraint of a domain behind functions of the server's own
#
remote(q(DROP TRIGGER depart ON rows; CREATE VIEW moods AS SELECT 1 AS m; GRANT SELECT ON moods TO carol;
	CREATE FUNCTION leave() RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN 1; END $$));
sql(q(CREATE FOREIGN TABLE moods_there (m int) SERVER there OPTIONS (table_name 'moods');
	ALTER FOREIGN TABLE moods_there OWNER TO carol;
	CREATE FUNCTION mood(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN RETURN (SELECT m * $1 FROM moods_there); EXCEPTION WHEN OTHERS THEN RETURN 0; END $$;
	CREATE DOMAIN in_mood AS int CHECK (mood(VALUE) > -1);
	CREATE TYPE with_mood AS (x in_mood);
	GRANT CREATE ON SCHEMA public TO carol));
foreach my $expression ('mood(v)', q((json_populate_record(NULL::with_mood, json_build_object('x', v))).x), q(((('(' || v || ')')::with_mood).x)))
{
	sql(qq(SET SESSION AUTHORIZATION carol;
		SELECT stream_ckpt.create_query('moody', \$q\$ SELECT w.window_start, sum($expression) AS total
			FROM t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start \$q\$, emit => 'update', backfill => false)));
	rows();
	sync_pipelines($node);
	exact("reads from another server: $expression", sort keys %emit);
	is(sql('SELECT min(total) > 0 FROM moody'), 't', "something is there: $expression");
	remote('CREATE OR REPLACE VIEW moods AS SELECT leave() AS m');
	rows();
	wait_until($node, q(SELECT status IN ('retrying', 'failed') FROM stream_ckpt.queries WHERE query = 'moody'::regclass), "what it leaves fails in the task: $expression");
	rows();
	go_on("a function leaves something in the task: $expression", qw(plain other far));
	like(counter($node, 'moody', 'message'), qr/cannot be used due to abort cleanup failure/, "it alone has failed, and the view says why: $expression");
	sql(q(SELECT stream_ckpt.drop_query('moody')));
	remote('CREATE OR REPLACE VIEW moods AS SELECT 1 AS m');
}
remote(q(CREATE CONSTRAINT TRIGGER consider AFTER INSERT ON rows DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION consider()));

# restarted while it waits
remote(q(UPDATE mood SET refuse = 'far', hang = ''));
rows();
is_waiting('far', qr/not these rows, far/);
$node->stop('immediate');
$node->start;
wait_running($node);
rows();
go_on('after a crash', qw(plain other));
remote(q(UPDATE mood SET refuse = ''));
all_exact('the other server takes the rows after a crash');

$node->stop;
done_testing();
