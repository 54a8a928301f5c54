# Privileges: checked while work is done, not only when a query is created; who may do what
# with pipelines; what others see in the views; a role that owns nothing.

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

sub as
{
	my ($role, $sql) = @_;
	return sql("SET SESSION AUTHORIZATION $role; $sql");
}

# The error of a command as a role.
sub refused
{
	my ($role, $sql, $error) = @_;
	my ($ret, $stdout, $stderr) = try_psql($node, "SET SESSION AUTHORIZATION $role; $sql");

	like($stderr, $error, "refused to $role: $sql");
	return;
}

sql(q(CREATE ROLE owner LOGIN; CREATE ROLE other LOGIN; CREATE ROLE nobody LOGIN; CREATE ROLE monitor LOGIN;
	GRANT pg_monitor TO monitor; CREATE ROLE dbowner LOGIN;
	CREATE SCHEMA owner AUTHORIZATION owner; CREATE SCHEMA other AUTHORIZATION other));
create_stream_table($node, 't');
sql('CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$; REVOKE EXECUTE ON FUNCTION f FROM PUBLIC;
	GRANT EXECUTE ON FUNCTION f TO owner; GRANT SELECT (ts, k, v) ON t TO owner');
my $query = q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(f(v)) AS total
	FROM public.t, stream_ckpt.tumble(ts, '1 minute') w GROUP BY w.window_start, w.window_end, k);
as('owner', "SELECT stream_ckpt.create_query('owner.q', \$q\$ $query \$q\$, emit => 'update', backfill => false)");
wait_running($node);

my $n = 0;

sub rows
{
	my $list = join ', ',
	  map { $n++; "(timestamptz '2024-01-01 00:00 UTC' + $n * interval '1 second', $n % 3, $_, $n)" } @_;
	sql("INSERT INTO t VALUES $list");
	return;
}

sub status_is
{
	my ($status, $query) = @_;
	$query //= 'owner.q';
	return wait_until($node, "SELECT status = '$status' FROM stream_ckpt.queries WHERE query = '$query'::regclass", "$query is $status");
}

rows(1 .. 5);
results_ok($node, 'owner.q', 'at first', emit => 'update', truth => $query);

# revoked while it runs: the query stops, and goes on without a gap once it is granted again
my $role = 'owner';
for my $case (
	[ 'SELECT on a column', 'REVOKE SELECT (v) ON t FROM owner', 'GRANT SELECT (v) ON t TO owner', qr/permission denied for table t/ ],
	[ 'EXECUTE', 'REVOKE EXECUTE ON FUNCTION f FROM owner', 'GRANT EXECUTE ON FUNCTION f TO owner', qr/permission denied for function f/ ],
	[ 'INSERT on a result table given away', 'ALTER TABLE owner.q OWNER TO other', 'ALTER TABLE owner.q OWNER TO owner', qr/permission denied for table q/ ],
	[ 'row-level security', 'ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (k = 0)', 'ALTER TABLE t DISABLE ROW LEVEL SECURITY', qr/row-level security of stream "t" applies/ ],
	[ 'the definition given away', 'GRANT ALL ON SCHEMA owner TO other; GRANT INSERT, UPDATE, DELETE, SELECT ON owner.q TO other; ALTER VIEW owner.q_definition OWNER TO other',
		'GRANT SELECT ON t TO other; GRANT EXECUTE ON FUNCTION f TO other', qr/permission denied for table t/ ])
{
	my ($what, $take, $give, $error) = @$case;

	sql($take);
	rows(1, 2, 3);
	status_is('failed');
	like(counter($node, 'owner.q', "concat_ws('|', sqlstate, message)"), qr/^42501\|/, "$what: the state");
	like(counter($node, 'owner.q', 'message'), $error, "$what: the error");
	rows(4);
	sql("SELECT stream_ckpt.resume_query('owner.q')");
	status_is('failed');
	like(counter($node, 'owner.q', 'message'), $error, "$what: resuming is of no use yet");
	sql($give);
	sql("SELECT stream_ckpt.resume_query('owner.q')");
	status_is('running');
	results_ok($node, 'owner.q', "$what: exact", emit => 'update', truth => $query);
}
like(counter($node, 'owner.q', 'sqlstate IS NULL'), qr/t/, 'no error is left');
sql('ALTER VIEW owner.q_definition OWNER TO owner');
rows(6);
results_ok($node, 'owner.q', 'given back, it goes on as its owner', emit => 'update', truth => $query);

# row-level security at creation
sql('ALTER TABLE t ENABLE ROW LEVEL SECURITY');
refused('owner', "SELECT stream_ckpt.create_query('owner.r', \$q\$ $query \$q\$)", qr/row-level security of stream "t" applies to you/);
sql('ALTER TABLE t DISABLE ROW LEVEL SECURITY');

# what else is the owner's
sql('GRANT SELECT ON owner.q, owner.q_definition TO PUBLIC; GRANT USAGE ON SCHEMA owner TO PUBLIC');
refused('nobody', "SELECT stream_ckpt.$_", qr/must be owner of (view|table) /)
  for "drop_query('owner.q')", "pause_query('owner.q')", "resume_query('owner.q')", "move_query('owner.q', 'default')", "attach_stream('owner.q')", "detach_stream('t')";
refused('nobody', "SELECT stream_ckpt.$_", qr/must be owner of pipeline "default"/)
  for "stop_pipeline('default')", "start_pipeline('default')", "start_pipeline('default', true)", 'checkpoint()',
  "alter_pipeline('default', checkpoint_interval => '1 hour')", "drop_pipeline('default')";
refused('nobody', "SELECT stream_ckpt.create_pipeline('mine')", qr/permission denied for database/);
refused('nobody', "SELECT stream_ckpt.create_query('x', \$q\$ $query \$q\$)", qr/permission denied/);
refused('nobody', "SELECT stream_ckpt.create_stream('public.x', 'ts timestamptz')", qr/permission denied for schema public/);
refused('nobody', "TABLE stream_ckpt.$_", qr/permission denied for table $_/)
  for qw(pipeline stream query query_failure pipeline_state checkpoint_offset checkpoint state_chunk state_run);
is(as('nobody', 'SELECT stream_ckpt.sync() IS NOT NULL'), 't', 'sync() is for everybody');

# a pipeline doesn't lose its owner
sql('CREATE ROLE leaver LOGIN; GRANT CREATE ON DATABASE postgres TO leaver');
as('leaver', q(SELECT stream_ckpt.create_pipeline('left')));
sql('REVOKE CREATE ON DATABASE postgres FROM leaver');
my ($ret, $stdout, $stderr) = $node->psql('postgres', 'DROP ROLE leaver');
like($stderr, qr/role "leaver" cannot be dropped because it owns pipeline "left" of stream_ckpt\nHINT:  Drop the pipeline with stream_ckpt.drop_pipeline\(\), or give it to another role with REASSIGN OWNED/, 'the owner of a pipeline stays');
refused('nobody', 'REASSIGN OWNED BY leaver TO nobody', qr/permission denied to reassign objects/);
refused('other', "SELECT stream_ckpt.drop_pipeline('left')", qr/must be owner of pipeline "left"/);
sql('REASSIGN OWNED BY leaver TO other; DROP ROLE leaver');
as('other', q(SELECT stream_ckpt.drop_pipeline('left')));

# `default` is the database's owner's, whoever that is
sql('ALTER DATABASE postgres OWNER TO dbowner');
as('dbowner', q(SELECT stream_ckpt.stop_pipeline('default')));
wait_status($node, 'stopped');
as('dbowner', q(SELECT stream_ckpt.start_pipeline('default')));
wait_running($node);
as('dbowner', 'SELECT stream_ckpt.checkpoint()');
sql('UPDATE stream_ckpt.pipeline SET owner = $$other$$');
refused('other', "SELECT stream_ckpt.stop_pipeline('default')", qr/must be owner of pipeline/);

# the views
sql("INSERT INTO t VALUES ('2024-01-01 00:30 UTC', 1, 1, 1)");
sql('REVOKE SELECT (v) ON t FROM owner');
rows(7);
sql('REVOKE SELECT ON t FROM owner');
status_is('failed');
sql(q(INSERT INTO stream_ckpt.checkpoint SELECT pipeline_id, -1, 0, 'manual', 'failed', now(), now(), 0, 0, 0, NULL, 0, 0, 0, 0, 'a secret'
	FROM stream_ckpt.pipeline));
my %rights = (owner => [ 1, 0 ], other => [ 0, 0 ], nobody => [ 0, 0 ], monitor => [ 1, 1 ], dbowner => [ 0, 1 ]);
for my $who (sort keys %rights)
{
	my ($queries, $failures) = @{ $rights{$who} };

	is(as($who, q(SELECT count(*) FROM stream_ckpt.queries WHERE message LIKE 'permission denied%')), $queries, "queries that $who sees");
	is(as($who, q(SELECT count(failure_message) FROM stream_ckpt.checkpoints WHERE id = -1)), $failures, "failures of checkpoints that $who sees");
	is(as($who, q(SELECT count(*) FROM stream_ckpt.checkpoints WHERE id = -1)), 1, "$who sees that one failed");
	is(as($who, q(SELECT status FROM stream_ckpt.pipelines)), 'running', "$who sees the pipeline's status");
	is(as($who, q(SELECT count(*) FROM stream_ckpt.streams)), 1, "$who sees the streams");
	is(as($who, q(SELECT count(*) > 0 FROM stream_ckpt.tasks)), 't', "$who sees the tasks");
}

done_testing();
