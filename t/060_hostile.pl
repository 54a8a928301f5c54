# Owners of queries in one pipeline who mean harm: what their code does ends with it.  The
# other owner's query stays exact, and the pipeline goes on.

use strict;
use warnings;
use re qw(regexp_pattern);

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.query_time_limit = '500ms'\nstream_ckpt.result_lock_timeout = 300ms\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Runs SQL as a role; dies where that fails.
sub as
{
	my ($role, $sql) = @_;
	return sql("SET SESSION AUTHORIZATION $role; $sql");
}

sql(q(
	CREATE ROLE mallory LOGIN; CREATE ROLE trudy LOGIN; CREATE ROLE alice LOGIN;
	CREATE SCHEMA mallory AUTHORIZATION mallory; CREATE SCHEMA trudy AUTHORIZATION trudy; CREATE SCHEMA alice AUTHORIZATION alice;
	CREATE TABLE secret (what text); INSERT INTO secret VALUES ('treasure');
	CREATE TABLE alice.private (what text); ALTER TABLE alice.private OWNER TO alice;
	INSERT INTO alice.private VALUES ('diary')));
create_stream_table($node, 't');
sql('GRANT SELECT ON t TO mallory, trudy, alice');
my $simple = q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest
	FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k);
# something that every setting would spoil: search_path, TimeZone, DateStyle, role
as('alice', qq(SET search_path = alice; SET timezone = 'Europe/Berlin'; SET datestyle = 'SQL, DMY';
	CREATE FUNCTION alice.f(int) RETURNS int LANGUAGE plpgsql STABLE AS \$f\$ BEGIN
		IF current_user <> 'alice' OR current_setting('role') <> 'none' OR current_setting('search_path') <> 'alice' OR
			coalesce(current_setting('mallory.mine', true), '') <> '' THEN RAISE 'these are not my surroundings'; END IF;
		RETURN \$1 * 2; END \$f\$;
	SELECT stream_ckpt.create_query('alice.good', \$q\$
		SELECT w.window_start, w.window_end, k, count(*) AS n, sum(f(v)) AS total, max(ts::text) AS last
		FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k\$q\$, emit => 'update', backfill => false)));
wait_running($node);

my ($n, $pids) = (0, '');

sub rows
{
	my $list = join ', ',
	  map { $n++; "(timestamptz '2024-01-01 00:00 UTC' + $n * interval '1 second', $n % 3, $_, $n)" } @_;
	sql("INSERT INTO t VALUES $list");
	return;
}

sub pids { return sql('SELECT coordinator_pid, reader_pid FROM stream_ckpt.pipelines') . sql('SELECT pid FROM stream_ckpt.tasks'); }

sub good_ok
{
	my ($what, $waiting) = @_;

	# sync() waits for a query whose part waits; the other query's results don't
	if ($waiting)
	{
		wait_until($node, "SELECT rows_in = (SELECT count(*) FROM t) FROM stream_ckpt.queries WHERE query = 'alice.good'::regclass",
			"the other query goes on: $what");
	}
	else
	{
		my ($ret, $out) = try_psql($node, "SELECT stream_ckpt.sync('60 seconds') IS NOT NULL");
		is($out, 't', "sync(): $what");
	}
	is(sql(q(SET timezone = 'Europe/Berlin'; SET datestyle = 'SQL, DMY'; SET search_path = alice;
		WITH truth AS MATERIALIZED (SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v * 2) AS total,
			max(ts::text) AS last
			FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY 1, 2, k),
		result AS (SELECT * FROM alice.good)
		SELECT count(*) FROM ((TABLE truth EXCEPT ALL TABLE result) UNION ALL (TABLE result EXCEPT ALL TABLE truth)) d)),
		'0', "the other owner's query is exact: $what");
	return;
}

sub status_is
{
	my ($query, $status) = @_;
	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$query'::regclass",
		"$query is $status");
}

rows(1, 2, 3);
good_ok('alone');

# Code of mallory's in an expression: "body" is plpgsql.  It may fail or not.
sub expression
{
	my ($what, $body, %opt) = @_;

	as('mallory', qq(CREATE OR REPLACE FUNCTION mallory.f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \$f\$ $body \$f\$;
		CREATE OR REPLACE FUNCTION mallory.g(text) RETURNS text LANGUAGE plpgsql VOLATILE AS \$f\$ DECLARE result text; BEGIN EXECUTE \$1; RETURN NULL; END \$f\$;
		SELECT stream_ckpt.create_query('mallory.bad', \$q\$
			SELECT w.window_start, w.window_end, sum(mallory.f(v)) AS total
			FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end\$q\$, emit => 'update', backfill => false)));
	after_rows($what, %opt);
	return;
}

# The same in a trigger on mallory's result table.
sub trigger
{
	my ($what, $body, %opt) = @_;

	as('mallory', qq(SELECT stream_ckpt.create_query('mallory.bad', \$q\$ $simple \$q\$, emit => 'update', backfill => false);
		CREATE OR REPLACE FUNCTION mallory.t() RETURNS trigger LANGUAGE plpgsql AS \$f\$ $body \$f\$;
		CREATE TRIGGER t BEFORE INSERT OR UPDATE ON mallory.bad FOR EACH ROW EXECUTE FUNCTION mallory.t()));
	after_rows($what, %opt);
	return;
}

sub after_rows
{
	my ($what, %opt) = @_;
	my $before = pids();

	rows(1, 2);
	rows(3);
	if ($opt{error})
	{
		# status and error in one look, until it is that: between two attempts the status is the pipeline's
		my $is = q(SELECT concat_ws('|', status, sqlstate, message) FROM stream_ckpt.queries WHERE query = 'mallory.bad'::regclass);
		my ($pattern) = regexp_pattern($opt{error});
		ok(eval { wait_until($node, "SELECT ($is) ~ \$re\$$pattern\$re\$", "the error: $what") }, "the error: $what") or diag sql($is);
	}
	good_ok($what, $opt{waiting});
	# an error in writing a result begins a new attempt, with the query's state of its last checkpoint
	is(pids(), $before, "no worker has ended: $what") unless $opt{restarts} || $opt{error};
	is(sql(q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')), '0', "no advisory lock is left: $what");
	is(sql($opt{check}), $opt{result} // 't', "checked: $what") if $opt{check};
	is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt%' AND state LIKE 'idle in%')), '0',
		"no transaction is left: $what");
	as('mallory', q(SELECT stream_ckpt.drop_query('mallory.bad')));
	return;
}

# settings: of the session, of the transaction, of their own
my $set = join "\n", map { "PERFORM set_config($_);" } (
	q('search_path', 'mallory, pg_catalog', false), q('timezone', 'Asia/Tokyo', false), q('datestyle', 'German', true),
	q('statement_timeout', '1', false), q('lock_timeout', '1', false), q('mallory.mine', 'x', false),
	q('log_min_duration_sample', '-1', false)) ;
$set =~ s/PERFORM set_config\('log_min[^;]*;//;
expression('settings', "BEGIN $set RETURN \$1; END");
trigger('settings', "BEGIN $set RETURN NEW; END");
for my $setting ('exit_on_error')
{
	expression("$setting in an expression", "BEGIN PERFORM set_config('$setting', 'on', false); RETURN 1 / 0; END",
		error => qr/^failed\|42501\|.*$setting/);
	trigger("$setting in a trigger", "BEGIN PERFORM set_config('$setting', 'on', false); RAISE 'no'; END",
		error => qr/^failed\|42501\|.*$setting/);
}

# identity
for my $command ('SET ROLE postgres', 'RESET ROLE', 'SET SESSION AUTHORIZATION trudy', 'RESET SESSION AUTHORIZATION')
{
	my $super = $command =~ s/postgres/(sql('SELECT current_user'))/er;
	trigger($command, "BEGIN EXECUTE '$super'; RETURN NEW; END", error => qr/^failed\|42501\|/);
}
expression('another one\'s table', q(DECLARE x text; BEGIN SELECT what INTO x FROM secret; RETURN 1; END),
	error => qr/^failed\|42501\|permission denied for table secret/);
trigger('a catalog of the extension', q(BEGIN DELETE FROM stream_ckpt.query; RETURN NEW; END),
	error => qr/^failed\|42501\|/);

# errors that pretend to be something else, and code that doesn't let itself be ended
expression('a cancel of its own making', q(BEGIN RAISE EXCEPTION 'boo' USING ERRCODE = '57014'; END),
	error => qr/^(retrying|failed)\|57014\|boo/, restarts => 1);
expression('a caught cancel', q(BEGIN LOOP BEGIN LOOP NULL; END LOOP; EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END),
	error => qr/^(retrying|failed)\|57014\|.*query_time_limit/, restarts => 1);
trigger('a caught cancel', q(BEGIN LOOP BEGIN LOOP NULL; END LOOP; EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END),
	error => qr/^(waiting|retrying|failed)\|57014\|.*query_time_limit/, restarts => 1);
trigger('ending the worker', q(BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END),
	error => qr/^failed\|42501\|/);
trigger('a cancel of the worker', q(BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); RETURN NEW; END),
	error => qr/^failed\|42501\|/);
trigger('transaction control', q(BEGIN COMMIT; RETURN NEW; END), error => qr/^failed\|2D000\|/);

# what outlives a transaction
my $locks = 'PERFORM pg_advisory_lock(g) FROM generate_series(1, 5) g; PERFORM pg_advisory_lock_shared(1, 3); PERFORM pg_advisory_xact_lock(77);';
expression('advisory locks', "BEGIN $locks RETURN \$1; END");
trigger('advisory locks', "BEGIN $locks RETURN NEW; END");
trigger('advisory locks and an error', "BEGIN $locks RAISE 'no'; END", error => qr/^failed\|P0001\|no/);
trigger('giving up all advisory locks', 'BEGIN PERFORM pg_advisory_unlock_all(); RETURN NEW; END');
trigger('prepared statements', q(BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; RETURN NEW; END), error => qr/^failed\|42501\|/);
trigger('a temporary table', q(BEGIN CREATE TEMP TABLE pg_class (x int); RETURN NEW; END), error => qr/^failed\|42501\|/);
trigger('a cursor WITH HOLD', q(BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'; RETURN NEW; END), error => qr/^failed\|42501\|/);
trigger('LISTEN', q(BEGIN EXECUTE 'LISTEN x'; RETURN NEW; END), error => qr/^failed\|/);
trigger('NOTIFY', q(BEGIN NOTIFY x; RETURN NEW; END));

# PL/pgSQL compiles a function once in a process, with the types that its first caller's search_path finds. Here
# each has it compiled with his own: mallory's, whose constraint runs code of hers and notes where, is never alice's.
as('alice', q(CREATE DOMAIN alice.amount AS int; SET search_path = alice;
	CREATE TABLE alice.amounts (a amount); CREATE DOMAIN alice.only_here AS int;
	CREATE FUNCTION alice.doubled(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ DECLARE a amount := $1 * 2; BEGIN RETURN a; END $f$;
	CREATE FUNCTION alice.quoted(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ /* " */ DECLARE a "amount" := $1 * 2; BEGIN RETURN a; END $f$;
	CREATE FUNCTION alice.column_type(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ DECLARE a amounts.a%TYPE := $1 * 2; BEGIN RETURN a; END $f$;
	CREATE FUNCTION alice.row_type(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ DECLARE r amounts%ROWTYPE; BEGIN r.a := $1 * 2; RETURN r.a; END $f$;
	CREATE FUNCTION alice.any_type(anyelement) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ DECLARE a amount := $1 * 2; BEGIN RETURN a; END $f$;
	CREATE FUNCTION alice.any_collation(text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ DECLARE a amount := $1::int * 2; BEGIN RETURN a; END $f$;
	CREATE FUNCTION alice.only_here(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ DECLARE a only_here := $1 * 2; BEGIN RETURN a; END $f$;
	CREATE FUNCTION alice.plain(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ DECLARE a int := $1 * 2; BEGIN RETURN a; END $f$;
	CREATE FUNCTION alice.nested(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN RETURN alice.doubled($1); END $f$;
	CREATE FUNCTION alice.twice(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$f$ DECLARE a amount := $1; BEGIN IF $2 = 0 THEN RETURN a; END IF; RETURN a + alice.as_alice($1); END $f$;
	CREATE FUNCTION alice.as_alice(int) RETURNS int LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = alice AS
		$f$ BEGIN RETURN alice.twice($1, 0); END $f$;
	CREATE FUNCTION alice.definer(int) RETURNS int LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS $f$ DECLARE a amount := $1 * 2; BEGIN RETURN a; END $f$;
	CREATE FUNCTION alice.early(timestamptz) RETURNS int LANGUAGE plpgsql STABLE AS $f$ BEGIN RETURN CASE WHEN $1 < '2024-01-01 00:30' THEN 1 ELSE 0 END; END $f$;
	CREATE FUNCTION alice.early_sql(timestamptz) RETURNS int LANGUAGE sql STABLE AS $f$ SELECT CASE WHEN $1 < '2024-01-01 00:30' THEN 1 ELSE 0 END LIMIT 1 $f$;
	CREATE FUNCTION alice.on_insert() RETURNS trigger LANGUAGE plpgsql AS $f$ DECLARE a amount := 1; BEGIN RETURN NEW; END $f$;
	CREATE TABLE alice.everybodys (v int); GRANT INSERT ON alice.everybodys TO PUBLIC;
	CREATE TRIGGER on_insert BEFORE INSERT ON alice.everybodys FOR EACH ROW EXECUTE FUNCTION alice.on_insert();
	CREATE FUNCTION alice.pass_on() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO alice.everybodys VALUES (1); RETURN NEW; END $f$;
	GRANT USAGE ON SCHEMA alice TO mallory));
as('mallory', q(CREATE TABLE mallory.loot (what text); GRANT INSERT ON mallory.loot TO PUBLIC; GRANT USAGE ON SCHEMA mallory TO PUBLIC;
	CREATE FUNCTION mallory.take(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
		$f$ BEGIN RETURN mallory.g('INSERT INTO mallory.loot SELECT current_setting(''search_path'')') IS NULL; END $f$;
	CREATE DOMAIN mallory.amount AS int CHECK (mallory.take(VALUE)); CREATE TABLE mallory.amounts (a mallory.amount)));
my @calls = ('alice.doubled(v)', 'alice.quoted(v)', 'alice.column_type(v)', 'alice.row_type(v)', 'alice.any_type(v)', 'alice.any_type(v::int8)',
	'alice.any_collation(v::text)', 'alice.any_collation(v::text COLLATE "C")', 'alice.nested(v)', 'alice.definer(v)');
my @own = (@calls, 'alice.twice(v, 1)');
my $typed = 'SELECT w.window_start, w.window_end, k, ' . join(', ', map { "sum($own[$_]) AS total_$_" } 0 .. $#own) .
	", sum(alice.plain(v)) AS same FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k";
my $typed_from;
my $all_same = join ' AND ', map { "total_$_ = same" } 0 .. $#own;

sub typed_ok
{
	my ($what) = @_;

	good_ok($what);
	is(sql("SELECT bool_and($all_same) AND sum(same) = 2 * (SELECT sum(v) FROM t WHERE txn > $typed_from) FROM alice.typed"), 't', "alice's types are hers: $what");
	is(sql(q(SELECT count(*) FROM mallory.loot WHERE what = 'alice')), '0', "nothing of mallory's ran as alice: $what");
	is(sql(q(SELECT string_agg(DISTINCT status, ' ') FROM stream_ckpt.queries)), 'running', "all queries run: $what");
	return;
}

foreach my $path (qw(mallory public))
{
	# set in the same breath, too, so that looking at the path before would be too early
	my $v = $path eq 'mallory' ? 'v' : q((length(set_config('search_path', 'mallory', true)) - 7 + v));

	as('mallory', qq(SET search_path = $path; CREATE OR REPLACE FUNCTION mallory.first(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		\$f\$ BEGIN RETURN ) . join(' + ', map { "(SELECT $_)" =~ s/\bv\b/$v/r } @calls, 'alice.plain(v)') . qq(; END \$f\$;
		TRUNCATE mallory.loot;
		SELECT stream_ckpt.create_query('mallory.bad', \$q\$ SELECT w.window_start, sum(mallory.first(v)) AS total
			FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start\$q\$, emit => 'update', backfill => false);
		CREATE OR REPLACE FUNCTION mallory.pass_on() RETURNS trigger LANGUAGE plpgsql AS
			\$f\$ BEGIN PERFORM set_config('search_path', 'mallory', true); INSERT INTO alice.everybodys VALUES (1); RETURN NEW; END \$f\$;
		CREATE TRIGGER pass_on BEFORE INSERT OR UPDATE ON mallory.bad FOR EACH ROW EXECUTE FUNCTION mallory.pass_on()));
	rows(1, 2);
	good_ok('mallory calls them first');
	is(sql(q(SELECT string_agg(DISTINCT what, ' ') FROM mallory.loot)), 'mallory', 'mallory\'s types are hers');
	$typed_from = $n;
	as('alice', qq(SET search_path = alice; SELECT stream_ckpt.create_query('alice.typed', \$q\$ $typed \$q\$, emit => 'update', on_error => 'dead_letter', backfill => false);
		CREATE TRIGGER pass_on BEFORE INSERT OR UPDATE ON alice.typed FOR EACH ROW EXECUTE FUNCTION alice.pass_on()));
	rows(3, 4);
	typed_ok('alice calls them next');
	rows($_) foreach 5 .. 9;
	typed_ok('in turn');

	# what doesn't compile for one of them does for the other
	as('mallory', q(SELECT stream_ckpt.drop_query('mallory.bad')));
	as('mallory', qq(SET search_path = mallory; SELECT stream_ckpt.create_query('mallory.bad', \$q\$
		SELECT w.window_start, sum(alice.only_here(v)) AS total
		FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start\$q\$, emit => 'update', on_error => 'dead_letter', backfill => false);
		SET search_path = alice; SELECT stream_ckpt.create_query('mallory.third', \$q\$
		SELECT w.window_start, sum(alice.only_here(v)) AS total, sum(v) AS v
		FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start\$q\$, emit => 'update', backfill => false)));
	rows($_) foreach 10 .. 14;
	typed_ok('what does not compile for mallory');
	is(sql(q(SELECT count(*), string_agg(DISTINCT message, ' ') FROM stream_ckpt.dead_letter WHERE query = 'mallory.bad'::regclass)),
		'5|type "only_here" does not exist', 'all rows of mallory\'s are at fault');
	is(sql('SELECT sum(total) = 2 * sum(v) AND sum(v) = 60 FROM mallory.third'), 't', 'but not under another search_path');
	as('mallory', q(CREATE DOMAIN mallory.only_here AS int));
	rows(15);
	typed_ok('what compiles now');
	is(sql('SELECT sum(total) FROM mallory.bad'), '30', 'and gives the result');
	as('mallory', q(DROP DOMAIN mallory.only_here; SELECT stream_ckpt.drop_query('mallory.third')));
	rows(16 .. 19);
	typed_ok('what compiled before');
	as('alice', q(SELECT stream_ckpt.drop_query('alice.typed')));
	as('mallory', q(SELECT stream_ckpt.drop_query('mallory.bad')));
	kill 'TERM', sql('SELECT pid FROM stream_ckpt.tasks');
	wait_running($node);
}

# One that runs can't be compiled for somebody else at the same time.
as('mallory', q(SET search_path = mallory; SELECT stream_ckpt.create_query('mallory.bad', $q$ SELECT w.window_start, sum(alice.twice(v, 1)) AS total
	FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start$q$, emit => 'update', backfill => false)));
as('alice', qq(SET search_path = alice; SELECT stream_ckpt.create_query('alice.typed', \$q\$ $typed \$q\$, emit => 'update', backfill => false)));
$typed_from = $n;
rows(1, 2);
good_ok('a function that is running');
is(sql(q(SELECT concat_ws('|', status, sqlstate, message, hint) FROM stream_ckpt.queries WHERE query = 'mallory.bad'::regclass)),
	'failed|55000|function alice.twice(integer,integer) is running, and is called again under another search_path or other settings|' .
	'Give the function a search_path of its own: ALTER FUNCTION ... SET search_path = ...', 'mallory is told');
as('alice', q(ALTER FUNCTION alice.twice(int, int) SET search_path = alice));
as('mallory', q(SELECT stream_ckpt.resume_query('mallory.bad')));
rows(3);
typed_ok('it has a search_path of its own');
is(sql('SELECT sum(total) FROM mallory.bad'), '12', 'and is called by both');
as('mallory', q(SELECT stream_ckpt.drop_query('mallory.bad')));
as('alice', q(SELECT stream_ckpt.drop_query('alice.typed'); ALTER FUNCTION alice.twice(int, int) RESET search_path));

# Literals mean what they mean by each query's own settings.
for my $zone (qw(UTC Europe/Berlin))
{
	as('alice', qq(SET timezone = '$zone'; SELECT stream_ckpt.create_query('alice.early_@{[lc substr $zone, 0, 3]}', \$q\$
		SELECT w.window_start, w.window_end, sum(alice.early(ts)) AS early, sum(alice.early_sql(ts)) AS early_sql FROM public.t, stream_ckpt.tumble(ts, '1 minute') w
		GROUP BY w.window_start, w.window_end \$q\$, emit => 'update', backfill => false)));
}
rows(1) for 1 .. 3;
good_ok('two settings of TimeZone');
is(sql('SELECT sum(early), sum(early_sql), (SELECT sum(early) FROM alice.early_eur), (SELECT sum(early_sql) FROM alice.early_eur) FROM alice.early_utc'),
	'3|3|0|0', 'each query has its own');
as('alice', q(SELECT stream_ckpt.drop_query('alice.early_utc'), stream_ckpt.drop_query('alice.early_eur')));
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/trying to insert a function/, 'PL/pgSQL knows of all that it keeps');

# The same by PL/pgSQL's validator, which compiles, too, where check_function_bodies says so.
as('mallory', q(SET search_path = public; CREATE OR REPLACE FUNCTION mallory.first(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	$f$ BEGIN PERFORM set_config('search_path', 'mallory', true); PERFORM plpgsql_validator('alice.doubled(int)'::regprocedure); RETURN v; END $f$;
	SELECT stream_ckpt.create_query('mallory.bad', $q$ SELECT w.window_start, sum(mallory.first(v)) AS total
		FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start$q$, emit => 'update', backfill => false)));
rows(1, 2);
good_ok('mallory has it validated first');
is(sql(q(SELECT status FROM stream_ckpt.queries WHERE query = 'mallory.bad'::regclass)), 'running', 'the validator was called');
$typed_from = $n;
as('alice', qq(SET search_path = alice; SELECT stream_ckpt.create_query('alice.typed', \$q\$ $typed \$q\$, emit => 'update', backfill => false)));
rows(3, 4);
typed_ok('after the validator');
as('alice', q(SELECT stream_ckpt.drop_query('alice.typed')));
as('mallory', q(SELECT stream_ckpt.drop_query('mallory.bad')));

# its own tables, and ours
trigger('DROP TABLE of its result', q(BEGIN DROP TABLE mallory.bad CASCADE; RETURN NEW; END), error => qr/^waiting\|55006\|/, waiting => 1);
trigger('our functions', q(BEGIN PERFORM stream_ckpt.sync(); RETURN NEW; END), error => qr/^failed\|55000\|.*worker of stream_ckpt/);
as('mallory', qq(SELECT stream_ckpt.create_query('mallory.second', \$q\$ $simple \$q\$, emit => 'update', backfill => false)));
trigger('DROP TABLE of another result', q(BEGIN DROP TABLE mallory.second CASCADE; RETURN NEW; END), error => qr/^failed\|55000\|/);
as('mallory', q(SELECT stream_ckpt.drop_query('mallory.second')));
as('mallory', 'CREATE TABLE mallory.log (x int)');
trigger('writing to a table of its own', q(BEGIN INSERT INTO mallory.log VALUES (NEW.n); RETURN NEW; END),
	check => 'SELECT count(*) > 0 FROM mallory.log');

# search_path of the workers themselves: set for the database by its owner
sql('ALTER DATABASE postgres OWNER TO mallory');
as('mallory', q(CREATE FUNCTION mallory.eq(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
		'BEGIN IF (SELECT usesuper FROM pg_user WHERE usename = current_user) THEN ALTER ROLE mallory SUPERUSER; END IF; RETURN false; END';
	CREATE OPERATOR mallory.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = mallory.eq);
	ALTER DATABASE postgres SET search_path = mallory, pg_catalog;
	ALTER DATABASE postgres SET default_transaction_read_only = on));
for my $which (qw(task reader coordinator))
{
	my $pid = $node->safe_psql('template1', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'stream_ckpt $which'");
	kill 'TERM', $pid;
	$node->poll_query_until('template1', "SELECT count(*) FILTER (WHERE pid = $pid) = 0 AND count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'stream_ckpt $which'");
}
$node->safe_psql('template1', "ALTER DATABASE postgres RESET ALL; ALTER DATABASE postgres OWNER TO CURRENT_USER");
is(sql('SELECT rolsuper FROM pg_roles WHERE rolname = $$mallory$$'), 'f', 'an operator in the way of the workers is not called');
rows(4);
good_ok('after settings of the database');

# messages that pretend to be the extension's own
my $id = sql(q(SELECT query_id FROM stream_ckpt.queries WHERE query = 'alice.good'::regclass));
for my $kind ('X', 'P', 'Q')
{
	# version 1, kind, attno 0, pipeline, query, relid, zero: as sc_control_log writes it
	as('trudy', qq(SELECT pg_logical_emit_message(true, 'stream_ckpt', '\\x01'::bytea || convert_to('$kind', 'UTF8') || '\\x0000'::bytea
		|| '\\x01000000'::bytea || ('\\x' || lpad(to_hex($id), 2, '0') || '00000000000000')::bytea || '\\x0000000000000000'::bytea)));
}
rows(5);
good_ok('after forged control messages');
is(sql(q(SELECT status FROM stream_ckpt.queries WHERE query = 'alice.good'::regclass)), 'running', 'a forged message changes nothing');

# functions that run as somebody else, called by both: a right of one isn't the other's
as('alice', q(CREATE FUNCTION alice.read() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT what FROM alice.private';
	GRANT USAGE ON SCHEMA alice TO mallory));
trigger('a SECURITY DEFINER function', q(BEGIN IF alice.read() <> 'diary' THEN RAISE 'no'; END IF; RETURN NEW; END));
trigger('what only the function may', q(BEGIN PERFORM alice.read(); PERFORM what FROM alice.private; RETURN NEW; END),
	error => qr/^failed\|42501\|permission denied for table private/);

# verify() runs as the query's owner, whoever calls it
as('mallory', q(CREATE FUNCTION mallory.who(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		'BEGIN IF current_user <> ''mallory'' THEN RAISE ''run as %'', current_user; END IF; RETURN $1; END'));
sql('CREATE TABLE u (ts timestamptz, k int, v int, txn int)');
attach($node, 'u');
sql('GRANT SELECT ON u TO mallory');
as('mallory', q(SELECT stream_ckpt.create_query('mallory.u', $q$SELECT w.window_start, w.window_end, sum(mallory.who(v)) AS total
	FROM public.u, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end$q$)));
sql(q(INSERT INTO u SELECT timestamptz '2024-01-01 UTC' + i * interval '10 seconds', 1, i, i FROM generate_series(1, 100) i));
sync_pipelines($node);
is(sql(q(SELECT stream_ckpt.verify('mallory.u'))), '0', 'verify() runs the owner\'s code as the owner');
good_ok('at last');

done_testing();
