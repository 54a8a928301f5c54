# ALTER EXTENSION UPDATE from the first version, and from 0.2.0: until it is run nothing of the extension is
# touched and everybody is told what to run; after it the catalogs equal those of a fresh
# installation, which comes from a script of its own, and definitions that were there work.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $hint = qr/HINT:  Run ALTER EXTENSION stream_ckpt UPDATE\./;

# Ends with the extension as it was: of the server's log, what came since the call.
sub log_since
{
	my ($offset) = @_;
	return substr(slurp_file($node->logfile), $offset);
}

sub fails_with_hint
{
	my ($db, $sql) = @_;
	my ($ret, $stdout, $stderr) = $node->psql($db, $sql);

	isnt($ret, 0, "refused: $sql");
	like($stderr, $hint, 'with the hint');
	return;
}

#
# The catalogs
#
$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('postgres', 'CREATE DATABASE older');
$node->safe_psql('old', q(CREATE EXTENSION stream_ckpt VERSION '0.1.0'));
$node->safe_psql('older', q(CREATE EXTENSION stream_ckpt VERSION '0.2.0'));
$node->safe_psql('fresh', 'CREATE EXTENSION stream_ckpt');

# What a dump of 0.1.0 would restore.
$node->safe_psql(
	'old', q(
	CREATE TABLE t (ts timestamptz, k int, v int, txn int);
	CREATE VIEW closed_definition AS
		SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest
		FROM t, stream_ckpt.tumble(ts, '1 minute') w
		GROUP BY w.window_start, w.window_end, k;
	CREATE TABLE closed AS TABLE closed_definition WITH NO DATA;
	INSERT INTO stream_ckpt.stream (relid, event_time, event_time_attnum) VALUES ('t', 'ts', 1);
	INSERT INTO stream_ckpt.query (relid, definition, source, pipeline_id, emit, settings, preexisting_rows)
		SELECT 'closed', 'closed_definition', 't', pipeline_id, 'close', '{TimeZone,UTC}', false
		FROM stream_ckpt.pipeline;
	CREATE TABLE unrelated ()));

fails_with_hint('old', $_)
  for (
	q(SELECT stream_ckpt.attach_stream('t', event_time => 'ts')),
	q(SELECT stream_ckpt.create_query('q', 'SELECT 1')),
	q(SELECT stream_ckpt.drop_query('closed')),
	q(SELECT stream_ckpt.verify('closed')),
	q(SELECT stream_ckpt.sync('1 second')),
	q(SELECT stream_ckpt.checkpoint()),
	q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)),
	q(SELECT stream_ckpt.stop_pipeline('default')),
	'SELECT * FROM stream_ckpt.pipelines',
	'SELECT * FROM stream_ckpt.queries',
	'SELECT * FROM stream_ckpt.tasks');
$node->safe_psql('old',
	'CREATE VIEW v AS SELECT 1 AS a; CREATE OR REPLACE VIEW v AS SELECT 2 AS a');
is($node->safe_psql('old', 'SELECT a FROM v'), '2', 'views are replaced meanwhile');
$node->safe_psql('old', 'DROP TABLE unrelated');
is($node->safe_psql('old', 'SELECT count(*) FROM stream_ckpt.query'),
	'1', 'other tables can be dropped meanwhile');

$node->safe_psql($_, 'ALTER EXTENSION stream_ckpt UPDATE') for ('old', 'older');

# Everything that belongs to the extension, one line each, in words that don't depend on OIDs.
my $catalogs = q(
	WITH member AS (
		SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
		WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'stream_ckpt')
	SELECT pg_describe_object(classid, objid, 0) || ' ' || coalesce(obj_description(objid, classid::regclass::name), '-')
		FROM member
	UNION ALL
	SELECT concat_ws(' ', 'class', c.oid::regclass, c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
			c.reloptions, c.relacl::text[], pg_get_viewdef(c.oid))
		FROM pg_class c JOIN member ON classid = 'pg_class'::regclass AND objid = c.oid
	UNION ALL
	SELECT concat_ws(' ', 'column', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
			a.attstorage, a.attnum, pg_get_expr(d.adbin, d.adrelid), a.attacl::text[], col_description(a.attrelid, a.attnum))
		FROM member JOIN pg_attribute a ON classid = 'pg_class'::regclass AND objid = a.attrelid AND a.attnum > 0
		LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE NOT a.attisdropped
	UNION ALL
	SELECT pg_get_indexdef(i.indexrelid) FROM member JOIN pg_index i ON classid = 'pg_class'::regclass AND objid = i.indrelid
	UNION ALL
	SELECT concat_ws(' ', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
		FROM member JOIN pg_constraint c ON classid = 'pg_class'::regclass AND objid = c.conrelid
	UNION ALL
	SELECT concat_ws(' ', 'sequence', s.seqrelid::regclass, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache,
			s.seqcycle)
		FROM member JOIN pg_sequence s ON classid = 'pg_class'::regclass AND objid = s.seqrelid
	UNION ALL
	SELECT concat_ws(' ', 'policy', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[],
			pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
		FROM member JOIN pg_policy p ON classid = 'pg_class'::regclass AND objid = p.polrelid
	UNION ALL
	SELECT concat_ws(' ', 'trigger', t.tgrelid::regclass, pg_get_triggerdef(t.oid))
		FROM member JOIN pg_trigger t ON classid = 'pg_class'::regclass AND objid = t.tgrelid
	UNION ALL
	SELECT CASE WHEN p.prokind = 'a' THEN concat_ws(' ', p.oid::regprocedure, aggtransfn, aggcombinefn, aggfinalfn, aggtranstype::regtype, aggkind, p.proparallel)
			ELSE pg_get_functiondef(p.oid) END || coalesce(p.proacl::text, '-')
		FROM member JOIN pg_proc p ON classid = 'pg_proc'::regclass AND objid = p.oid LEFT JOIN pg_aggregate ON aggfnoid = p.oid
	UNION ALL
	SELECT concat_ws(' ', t.evtname, t.evtevent, t.evtfoid::regproc, t.evtenabled, t.evttags)
		FROM member JOIN pg_event_trigger t ON classid = 'pg_event_trigger'::regclass AND objid = t.oid
	UNION ALL
	SELECT concat_ws(' ', s.srvname, s.srvacl::text[], w.fdwname, w.fdwacl::text[], w.fdwhandler::regproc, w.fdwvalidator::regproc)
		FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
	UNION ALL
	SELECT concat_ws(' ', n.nspname, n.nspacl::text[]) FROM pg_namespace n WHERE nspname = 'stream_ckpt'
	UNION ALL
	SELECT concat_ws(' ', e.extversion, c.oid::regclass, c.condition)
		FROM pg_extension e, unnest(e.extconfig, e.extcondition) c(oid, condition) WHERE extname = 'stream_ckpt'
	ORDER BY 1);
my $fresh = $node->safe_psql('fresh', $catalogs);
cmp_ok(length $fresh, '>', 10000, 'there are catalogs');
like($fresh, qr/^policy stream_ckpt\.late_rows/m, 'with the policies');
is($node->safe_psql('old', $catalogs), $fresh,
	'the updated catalogs equal fresh ones');
is($node->safe_psql('older', $catalogs), $fresh, 'those of 0.2.0, too');

# Nobody's upgrade may be what the others are compared with.
my $script = $node->config_data('--sharedir') . '/extension/stream_ckpt--0.3.0.sql';
ok(-e $script, 'a fresh installation has a script of its own');

#
# What was defined before works after
#
is( $node->safe_psql(
		'old',
		q(SELECT status, message FROM stream_ckpt.pipelines WHERE pipeline = 'default')
	),
	"lost|the pipeline's replication slot does not exist",
	'definitions without a slot are lost');
$node->safe_psql('old',
	q(SELECT stream_ckpt.start_pipeline('default', accept_gap => true)));
wait_until($node,
	q(SELECT status = 'running' FROM stream_ckpt.pipelines),
	'the pipeline runs', 'old');
$node->safe_psql(
	'old', q(
	INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '10 seconds', i % 3, i, 0
		FROM generate_series(0, 359) i));
sync_pipelines($node, 'old');
is( $node->safe_psql(
		'old',
		q(SELECT (SELECT count(*) FROM closed),
			(SELECT count(*) FROM (TABLE closed EXCEPT ALL TABLE closed_definition) d))),
	'177|0',
	'a query of the first version runs');

#
# A server that starts with catalogs of another version: the pipelines stand, and say why
#
create_stream_table($node, 't');
create_query($node, 'closed', 't');
wait_running($node);
$node->safe_psql('postgres',
	q(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '10 seconds', i % 3, i, 0 FROM generate_series(0, 359) i)
);
results_ok($node, 'closed', 'before', table => 't');

for my $case (
	[ '0.1.0', $hint ],
	[ '99.0', qr/HINT:  Install that version of the library, and restart the server\./ ])
{
	my ($version, $what_to_do) = @$case;
	my $offset;

	$node->safe_psql('postgres',
		"UPDATE pg_extension SET extversion = '$version' WHERE extname = 'stream_ckpt'"
	);
	$node->stop;
	$offset = -s $node->logfile;
	$node->start;
	$node->wait_for_log(qr/pipeline 1 is stopped: extension "stream_ckpt" has version \Q$version\E/, $offset);
	$node->safe_psql('postgres',
		q(INSERT INTO t SELECT max + i * interval '10 seconds', i % 3, i, 0
			FROM (SELECT max(ts) FROM t) m, generate_series(1, 60) i)
	);
	my ($ret, $stdout, $stderr) =
	  $node->psql('postgres', 'SELECT stream_ckpt.sync()');
	like($stderr, $what_to_do, "version $version: what to do");

	# the other database's pipeline has made whole checkpoints meanwhile
	$node->safe_psql('old',
		q(INSERT INTO t SELECT max(ts) + interval '1 minute', 1, 1, 1 FROM t));
	sync_pipelines($node, 'old');
	my $log = log_since($offset);
	my $stands = () = $log =~ /pipeline 1 is stopped/g;
	is($stands, 1, 'looked at once, no loop');
	unlike($log, qr/stream_ckpt (coordinator|reader|task) (ERROR|FATAL|PANIC)/,
		'and no worker failed');

	$node->safe_psql('postgres',
		"UPDATE pg_extension SET extversion = '0.3.0' WHERE extname = 'stream_ckpt'"
	);
	$node->safe_psql('postgres', q(SELECT stream_ckpt.start_pipeline('default')));
	wait_running($node);
	results_ok($node, 'closed', 'goes on after', table => 't');
}

$node->stop;
done_testing();
