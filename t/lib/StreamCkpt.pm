# StreamCkpt.pm - what the TAP tests share: servers with the extension, debug points,
# waiting for conditions, and the comparison of results with their definition.
#
# Rules: nothing here sleeps; everything waits for a condition, asked again and again
# until PG_TEST_TIMEOUT_DEFAULT.  What the views call their columns is known here only,
# as far as several tests need it.

package StreamCkpt;

use strict;
use warnings;

use Conditions;
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  test_seed pick drawn
  new_node create_stream_table insert_seconds attach create_query
  arm disarm wait_reached
  wait_until wait_status wait_running wait_up sync_pipelines
  pid_of all_pids wait_restarted lose_state
  differences results_ok counter query_late_rows
  checkpoint_all insert_hour try_psql is_refused start_writer finish_writer memory_of
);

my $WORKERS = 'wal_level = logical
shared_preload_libraries = \'stream_ckpt\'
max_worker_processes = 32
max_replication_slots = 10
max_wal_senders = 10
max_prepared_transactions = 10
max_connections = 50
shared_buffers = 64MB
max_wal_size = 1GB
fsync = on
restart_after_crash = on
autovacuum = on
jit = off
log_statement = none
log_line_prefix = \'%m [%p] %b %q%a \'
';

my %drawn;    # by the name of a node
my %tasks;    # by the id of one of them, as pid_of() saw them: ids of all

# The conditions of a node: tasks, batch, memory, bucket, step (Conditions.pm).
sub drawn { return $drawn{ $_[0]->name } // { tasks => 1, batch => 0, memory => 0, bucket => 0, step => 0 }; }

sub settings_of
{
	my ($conditions) = @_;
	my $conf = "stream_ckpt.debug_batch_rows = $conditions->{batch}\n";

	$conf .= "stream_ckpt.debug_task_memory = $conditions->{memory}kB\n" if $conditions->{memory};
	$conf .= "stream_ckpt.debug_bucket_bytes = $conditions->{bucket}\n" if $conditions->{bucket};
	$conf .= "stream_ckpt.debug_snapshot_groups = 0\nstream_ckpt.debug_snapshot_step = $conditions->{step}\n"
	  if $conditions->{step};
	return $conf;
}

# A running server with the extension in database "postgres"; further settings as text.  draw => { ... }: in conditions
# that are drawn, of those that the test takes.  The pipeline "default" has so many tasks then, and so have
# queries that create_query() makes.
sub new_node
{
	my ($name, $conf, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$drawn{$name} = draw(%{ $opt{draw} }) if $opt{draw};
	$node->init(allows_streaming => 'logical');
	$node->append_conf('postgresql.conf', $WORKERS . ($conf // ''));
	$node->append_conf('postgresql.conf', settings_of(drawn($node))) if $opt{draw};
	mkdir $node->data_dir . '/stream_ckpt_debug' or die "mkdir: $!";
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION stream_ckpt');
	$node->safe_psql('postgres',
		q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '100 ms'))
	);
	$node->safe_psql('postgres', "SELECT stream_ckpt.alter_pipeline('default', parallelism => " . drawn($node)->{tasks} . ')')
	  if drawn($node)->{tasks} > 1;
	return $node;
}

# Table (ts timestamptz, k int, v int, txn int), attached.
sub create_stream_table
{
	my ($node, $table, %opt) = @_;

	$node->safe_psql('postgres',
		"CREATE TABLE $table (ts timestamptz, k int, v int, txn int)");
	attach($node, $table, %opt);
	return;
}

# The rows of hour n (from 0) into table "t" as above, one each 10 seconds.
sub insert_hour
{
	my ($node, $hour) = @_;

	$node->safe_psql('postgres',
		qq(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC' + $hour * interval '1 hour' + i * interval '10 seconds',
			i % 3, i, $hour FROM generate_series(0, 359) i));
	return;
}

# Rows of seconds "first" to "last", all of transaction "last", into a table of create_stream_table().
sub insert_seconds
{
	my ($node, $table, $first, $last) = @_;
	return $node->safe_psql('postgres', "INSERT INTO $table SELECT timestamptz '2024-01-01 UTC' + i * interval '1 second', i % 7, i, $last
		FROM generate_series($first, $last) i");
}

sub attach
{
	my ($node, $table, %opt) = @_;
	my $delay = $opt{delay} // '0';

	$node->safe_psql('postgres',
		"SELECT stream_ckpt.attach_stream('$table', event_time => 'ts', watermark_delay => '$delay')"
	);
	return;
}

# Has a query keys beside its windows?  One without can't run in several tasks.
sub has_keys
{
	my ($select) = @_;
	my ($keys) = $select =~ /GROUP BY (.*?)(?:HAVING.*)?$/s or return 0;

	$keys =~ s/\b(w\.)?window_(start|end|time)\b//g;
	return $keys =~ /\w/;
}

# The same query for most tests: by window and k.  "options": further named parameters, as
# text.  It runs on as many tasks as were drawn for the node; "tasks": on so many of them at most.  If the table has rows it
# begins behind them, unless the options say something else: most tests look at what comes then.
sub create_query
{
	my ($node, $name, $table, %opt) = @_;
	my $emit = $opt{emit} // 'close';
	my $size = $opt{size} // '1 minute';
	my $select = $opt{select}
	  // "SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total, max(v) AS greatest
		FROM $table, stream_ckpt.tumble(ts, '$size') w
		GROUP BY w.window_start, w.window_end, k";
	my $tasks = drawn($node)->{tasks};
	my @options = grep { $_ } $opt{options};

	$tasks = $opt{tasks} if defined $opt{tasks} && $opt{tasks} < $tasks;
	push @options, "backfill => CASE WHEN greatest(pg_relation_size('$table'),
		(SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('$table'))) > 0 THEN false END"
	  unless "@options" =~ /backfill/;
	$tasks = 1 unless has_keys($select);
	push @options, "parallelism => $tasks" if $tasks > 1 && "@options" !~ /parallelism/;
	$node->safe_psql('postgres',
		"SELECT stream_ckpt.create_query('$name', \$sc\$ $select \$sc\$, emit => " . ($emit eq 'rows' ? 'NULL' : "'$emit'")
		  . join('', map { ", $_" } @options) . ')'
	);
	return;
}

#
# Debug points
#
sub debug_file
{
	my ($node, $point) = @_;
	return $node->data_dir . "/stream_ckpt_debug/$point";
}

# Arms "point": error, exit, kill, term or wait; at the n-th time only, if given.
sub arm
{
	my ($node, $point, $action, $n) = @_;
	my $file = debug_file($node, $point);

	unlink "$file.reached";
	# appears in one piece, whoever looks meanwhile
	open my $fh, '>', "$file.tmp" or die "$file.tmp: $!";
	print $fh defined $n ? "$action $n" : $action;
	close $fh or die "$file.tmp: $!";
	rename "$file.tmp", $file or die "$file: $!";
	return;
}

sub disarm
{
	my ($node, $point) = @_;
	unlink debug_file($node, $point);
	return;
}

sub wait_reached
{
	my ($node, $point) = @_;
	return wait_until($node,
		"SELECT size IS NOT NULL FROM pg_stat_file('stream_ckpt_debug/$point.reached', true)",
		"debug point $point is reached");
}

#
# Waiting
#

# Waits until a query returns "t", also across restarts of the server.
sub wait_until
{
	my ($node, $query, $what, $dbname) = @_;
	my $result;

	# a psql that the server leaves while it is still being written to makes IPC::Run
	# die: ask again
	for (1 .. 20)
	{
		$result = eval { $node->poll_query_until($dbname // 'postgres', $query); };
		last if defined $result;
		note $@;
	}
	return 1 if $result;
	diag "waited in vain until $what";
	diag scalar(
		try_psql($node, 'SELECT * FROM stream_ckpt.pipelines', '-x'));
	diag scalar(
		try_psql(
			$node,
			'SELECT * FROM stream_ckpt.checkpoints ORDER BY 1 DESC LIMIT 3',
			'-x'));
	BAIL_OUT("waited in vain until $what") if $ENV{STREAM_CKPT_BAIL_OUT};
	die "waited in vain until $what";
}

sub wait_up
{
	my ($node) = @_;
	return wait_until($node, 'SELECT true', 'the server accepts connections');
}

sub wait_status
{
	my ($node, $status, $pipeline) = @_;
	$pipeline //= 'default';
	return wait_until($node,
		"SELECT status = '$status' FROM stream_ckpt.pipelines WHERE pipeline = '$pipeline'",
		"pipeline $pipeline is $status");
}

sub wait_running { return wait_status($_[0], 'running'); }

# All rows committed before the call are in the committed results, whatever dies meanwhile.
sub sync_pipelines
{
	my ($node, $dbname) = @_;
	return wait_until($node,
		# polling takes a notice, of rows that don't count, for a failure
		"SELECT set_config('client_min_messages', 'warning', false) IS NOT NULL AND stream_ckpt.sync('30 seconds') IS NOT NULL",
		'sync() succeeds', $dbname);
}

# A checkpoint of "default" that covers all that is committed: it covers what was read before it.  Its id.
sub checkpoint_all
{
	my ($node) = @_;
	my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');

	wait_until($node, "SELECT decoded_lsn >= '$lsn' FROM stream_ckpt.pipelines WHERE pipeline = 'default'", 'all is read');
	return $node->safe_psql('postgres', 'SELECT stream_ckpt.checkpoint()');
}

#
# Processes
#
my %pid_query = (
	reader => 'SELECT reader_pid FROM stream_ckpt.pipelines WHERE reader_pid IS NOT NULL',
	coordinator =>
	  'SELECT coordinator_pid FROM stream_ckpt.pipelines WHERE coordinator_pid IS NOT NULL',
	task => 'SELECT pid FROM stream_ckpt.tasks WHERE pid IS NOT NULL',
	launcher =>
	  q(SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'stream_ckpt%launcher%'),
);

# Process id of the reader, the coordinator, a task or the launcher, once it is there.
sub pid_of
{
	my ($node, $which) = @_;
	my $query = "$pid_query{$which} LIMIT 1";

	my $pid = '';

	# it may end in between
	while ($pid eq '')
	{
		wait_until($node, "SELECT EXISTS ($query)", "there is a $which");
		$pid = $node->safe_psql('postgres', $query) if $which ne 'task';
		next if $which ne 'task';

		# with those beside it, of the same moment
		my ($one, $all) = split /\|/, $node->safe_psql('postgres', 'SELECT min(pid), array_agg(pid) FROM stream_ckpt.tasks WHERE pid IS NOT NULL');

		$tasks{ $pid = $one } = $all if ($one // '') ne '';
	}
	return $pid;
}

sub all_pids
{
	my ($node) = @_;
	return map { $_ => pid_of($node, $_) } qw(reader task coordinator);
}

# Everything in memory is lost: "how" is immediate or fast, for the server, or the name of a process.  Returns when all
# runs again.
sub lose_state
{
	my ($node, $how, $signal) = @_;

	note "lost by: $how";
	if ($how eq 'immediate' || $how eq 'fast')
	{
		$node->stop($how);
		$node->start;
	}
	else
	{
		my $pid = pid_of($node, $how);

		kill $signal // 'TERM', $pid;
		wait_restarted($node, $how, $pid);
	}
	wait_running($node);
	return;
}

# Waits until the process of that kind is another one than "pid".  Of several tasks all are new then.
sub wait_restarted
{
	my ($node, $which, $pid) = @_;

	return wait_until($node, "SELECT count(*) > 0 AND bool_and(pid <> ALL('$tasks{$pid}')) FROM stream_ckpt.tasks",
		'there are new tasks') if $which eq 'task' && $tasks{$pid};
	return wait_until($node, "SELECT EXISTS ($pid_query{$which} AND "
		  . ($which eq 'task' || $which eq 'launcher' ? 'pid' : "${which}_pid")
		  . " <> $pid)", "there is a new $which");
}

# Peak and present resident memory of a process that is its own, in kB.  Shared buffers
# that it touched don't count; queues are small.
sub memory_of
{
	my ($pid) = @_;
	my %kb;

	open my $fh, '<', "/proc/$pid/status" or return;
	while (<$fh>)
	{
		$kb{$1} = $2 if /^(VmHWM|RssAnon):\s+(\d+) kB/;
	}
	close $fh;
	return \%kb;
}

#
# Results
#

# psql that may fail (a server that restarts); returns standard output.
sub try_psql
{
	my ($node, $sql, @params) = @_;
	my ($ret, $stdout, $stderr);

	# a psql that ends while it is still being written to makes IPC::Run die
	eval {
		($ret, $stdout, $stderr) =
		  $node->psql('postgres', $sql, extra_params => \@params);
		1;
	} or ($ret, $stdout, $stderr) = (2, '', 'psql ended early');
	note $stderr if defined $stderr && $stderr ne '';
	return wantarray ? ($ret, $stdout, $stderr) : ($stdout // '');
}

# Two tests: the statement is an error, whose text is like "pattern".
sub is_refused
{
	my ($node, $sql, $pattern, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($ret, $stdout, $stderr) = $node->psql('postgres', $sql);

	isnt($ret, 0, "$test: refused");
	like($stderr, $pattern, "$test: why");
	return;
}

# Number of rows in which a result table differs from its definition.  With emit
# 'close' that is about the windows which the watermark closed: window_end <= greatest
# event time - delay, computed here from the table itself.  "where" leaves out rows
# of the truth (late ones).  "session": the watermark must be behind window_end, as a row at it would still be the session's.
sub differences
{
	my ($node, $name, %opt) = @_;
	my $truth = $opt{truth} // "SELECT * FROM ${name}_definition";
	my $closed = '';

	if (($opt{emit} // 'close') eq 'close')
	{
		my $delay = $opt{delay} // '0';
		my $table = $opt{table} // die 'table?';
		my $time = $opt{time} // 'ts';
		$closed =
		  'WHERE window_end ' . ($opt{session} ? '<' : '<=') . " (SELECT max($time) FILTER (WHERE isfinite($time)) - interval '$delay' FROM $table)";
	}
	return $node->safe_psql(
		'postgres', qq(
		SET timezone = '@{[$opt{timezone} // 'UTC']}';
		WITH truth AS MATERIALIZED (SELECT * FROM ($truth) d $closed),
		result AS MATERIALIZED (SELECT * FROM $name)
		SELECT count(*) FROM
			((TABLE result EXCEPT ALL TABLE truth)
			 UNION ALL (TABLE truth EXCEPT ALL TABLE result)) d));
}

# One test: after sync(), the result equals the definition.  Prints some rows otherwise.
sub results_ok
{
	my ($node, $name, $test, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sync_pipelines($node) unless $opt{synced};
	my $differences = differences($node, $name, %opt);
	my $ok = is($differences, '0', $test);
	if (!$ok)
	{
		diag "result, first rows:\n",
		  scalar(try_psql($node, "SELECT * FROM $name ORDER BY 1, 2, 3 LIMIT 20"));
		diag "definition, first rows:\n",
		  scalar(
			try_psql(
				$node,
				"SELECT * FROM ${name}_definition ORDER BY 1, 2, 3 LIMIT 20"
			));
		diag scalar(try_psql($node, 'SELECT * FROM stream_ckpt.queries', '-x'));
	}
	return $ok;
}

# A column of view queries for one query, by the name of its result table.
sub counter
{
	my ($node, $name, $column) = @_;
	return $node->safe_psql('postgres',
		"SELECT $column FROM stream_ckpt.queries WHERE query = '$name'::regclass"
	);
}

sub query_late_rows { return counter($_[0], $_[1], 'late_rows'); }

#
# A writer in the background: pgbench with one script, until it is done or the server dies.
#
sub start_writer
{
	my ($node, $script, %opt) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/writer.sql';
	my @out = (\my $stdout, \my $stderr);

	PostgreSQL::Test::Utils::append_to_file($file, $script);
	local %ENV = $node->_get_env();
	return IPC::Run::start(
		[
			$node->installed_command('pgbench'), '-n',
			'-c', $opt{clients} // 2,
			'-t', $opt{transactions} // 200,
			($opt{rate} ? ('-R', $opt{rate}) : ()),
			'-f', $file,
			$node->connstr('postgres')
		],
		'>', \$stdout, '2>', \$stderr);
}

# True where the writer finished all of its transactions.
sub finish_writer
{
	my ($writer) = @_;
	return $writer->finish;
}

1;
