# ALTER EXTENSION UPDATE under queries that run: a database with the catalogs, results, state and offsets of 0.2.0
# (t/data/state_0.2.0.sql) goes on exactly under the new library, with the rows that came meanwhile.
#
# The slot can only be made by the library, and under the catalogs of its own version: it is made so, stays when the
# extension is dropped while nothing is preloaded, and 0.2.0's state takes a position that it can deliver.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
plan skip_all => 'the state is that of PostgreSQL 15: another version begins anew'
  if $node->pg_version < 15 || $node->pg_version >= 16;

sub was { return $node->safe_psql('was', $_[0]); }

sub restart_with_preloaded
{
	my ($libraries) = @_;

	$node->stop;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = '$libraries'\n");
	$node->start;
	return;
}

# Rows of both streams, one each 5 seconds in minutes from "from" on.
sub insert_minutes
{
	my ($table, $from, $minutes) = @_;
	my $columns = $table eq 't' ? q(i % 3, i % 50, 'name ' || i % 7, i / 10.0) : 'i % 2';

	was(qq(INSERT INTO $table SELECT timestamptz '2024-01-01 00:00 UTC' + ($from * 60 + i * 5) * interval '1 second', $columns
		FROM generate_series(0, $minutes * 12 - 1) i));
	return;
}

#
# A slot, and the catalogs of 0.2.0
#
$node->safe_psql('postgres', 'CREATE DATABASE was');
was('CREATE EXTENSION stream_ckpt');
was(q(CREATE TABLE s (ts timestamptz)));
was(q(SELECT stream_ckpt.attach_stream('s', event_time => 'ts')));
restart_with_preloaded('');
was('DROP EXTENSION stream_ckpt CASCADE; DROP TABLE s');
was(q(CREATE EXTENSION stream_ckpt VERSION '0.2.0'));
is(was(q(SELECT count(*) FROM pg_replication_slots WHERE database = 'was')), '1', 'the slot is there');
$node->command_ok(
	[
		'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('was'),
		'-f', "$FindBin::RealBin/data/state_0.2.0.sql"
	],
	'what 0.2.0 left');

#
# The new library under the old catalogs: rows wait
#
my $offset = -s $node->logfile;
restart_with_preloaded('stream_ckpt');
insert_minutes('t', 14, 3);
$node->wait_for_log(qr/pipeline 1 is stopped: extension "stream_ckpt" has version 0\.2\.0/, $offset);

#
# The update: queries go on, from where they were
#
cmp_ok(was('SELECT count(*) FROM stream_ckpt.state_chunk'), '>', 5, 'there is state of 0.2');
was('ALTER EXTENSION stream_ckpt UPDATE');
wait_until($node, q(SELECT status = 'running' FROM stream_ckpt.pipelines), 'the pipeline runs', 'was');
was(q(INSERT INTO t VALUES ('2024-01-01 00:09:30+00', 1, 3, 'name 1', 3.5), ('2024-01-01 00:00:40+00', 2, 4, 'name 2', 4.5)));
insert_minutes('t', 17, 2);
insert_minutes('clicks', 4, 2);
sync_pipelines($node, 'was');
is(was(q(SELECT status FROM stream_ckpt.queries WHERE query = 'rested'::regclass)), 'paused', 'a paused one stays paused');
was(q(SELECT stream_ckpt.resume_query('rested')));
insert_minutes('t', 19, 1);
sync_pipelines($node, 'was');

is( was(q(SELECT (SELECT count(*) FROM stream_ckpt.state_chunk), (SELECT count(*) > 0 FROM stream_ckpt.state_run),
	(SELECT min(age) > 0 FROM stream_ckpt.checkpoint_offset))),
	'0|t|t', 'state is kept as now, and nothing of it as before');
like(was("SELECT pg_get_viewdef('closed_definition')"), qr/stream_ckpt\._tumble\(t\.ts, '00:01:00'/,
	'definitions have the function that they had, by another name');

# What each query must have: the rows that weren't late for it.
was(q(
	CREATE VIEW never_late AS SELECT * FROM t WHERE (ts, v) NOT IN (('2024-01-01 00:00:30+00', 8), ('2024-01-01 00:00:40+00', 4));
	CREATE VIEW in_time AS SELECT * FROM never_late WHERE (ts, v) NOT IN (('2024-01-01 00:03:30+00', 7), ('2024-01-01 00:09:30+00', 3));
	CREATE VIEW clicked_rows AS SELECT timestamptz '2024-01-01 00:00 UTC' + i * interval '7 seconds' AS ts, i % 2 AS k FROM generate_series(0, 30) i
		UNION ALL SELECT timestamptz '2024-01-01 00:04 UTC' + i * interval '5 seconds', i % 2 FROM generate_series(0, 23) i));
my %rows = (
	closed => 'in_time',
	late => 'never_late',
	careful => '(SELECT * FROM in_time WHERE v <> 0)',
	rested => 'in_time',
	live => 't',
	clicked => 'clicked_rows');
for my $query (sort keys %rows)
{
	my $select = was("SELECT pg_get_viewdef('${query}_definition')") =~ s/;$//r;
	my $stream = $query eq 'clicked' ? 'clicks' : 't';
	my $closed = $query eq 'live' ? '' :
	  "WHERE window_end <= (SELECT max(ts) - interval '5 seconds' FROM " . ($stream eq 't' ? 't' : 'clicked_rows') . ')';

	$select =~ s/FROM $stream,/FROM $rows{$query} $stream,/ or die "FROM of $query?";
	is( was("WITH truth AS (SELECT * FROM ($select) d $closed)
		SELECT (SELECT count(*) FROM $query) > 0, (SELECT count(*) FROM
			((TABLE truth EXCEPT ALL TABLE $query) UNION ALL (TABLE $query EXCEPT ALL TABLE truth)) d)"),
		't|0', "$query goes on exactly");
}
is(was(q(SELECT count(*), sum(ordinal) FROM stream_ckpt.late_rows)), '2|3', 'late rows of before and after');
cmp_ok(was(q(SELECT count(*) FROM stream_ckpt.dead_letter)), '>', 7, 'dead letters, too');

$node->stop;
done_testing();
