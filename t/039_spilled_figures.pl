# What view tasks says of state larger than memory: how often a row found its group's bucket in memory, and bytes read,
# written and merged; compared with what is in stream_ckpt.state_run, and with the rows that came.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "stream_ckpt.debug_task_memory = 200kB\nstream_ckpt.debug_bucket_bytes = 8000\nautovacuum = off\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql(q(SELECT stream_ckpt.alter_pipeline('default', checkpoint_interval => '1 hour')));

# As of the last message; the sum of several columns.
sub figure { return sql("SELECT $_[0] FROM stream_ckpt.tasks"); }

# Bytes of the runs that tasks have written by themselves, without their last chunks, which the coordinator writes: those
# have no entries (offset 56 of a chunk), and are 84 bytes.
sub bytes_of_runs
{
	return sql("SELECT coalesce(sum(octet_length(data)) FILTER (WHERE substr(data, 57, 4) <> '\\x00000000' OR octet_length(data) <> 84), 0)
		FROM stream_ckpt.state_run WHERE get_byte(data, 6) & 8 <> 0");
}

sub insert_rows
{
	my ($table, $hour, $from, $to) = @_;

	sql("INSERT INTO $table SELECT '2024-01-01 00:00 UTC'::timestamptz + $hour * interval '1 hour', i, 1 FROM generate_series($from, $to) i");
	return checkpoint_all($node);
}

my $all = 'cache_hits + cache_misses + cache_evictions + loaded_bytes + written_bytes + merged_bytes';
my $select = q(SELECT w.window_start, w.window_end, k, count(*) AS n, sum(v) AS total FROM %s, stream_ckpt.tumble(ts, '1 hour') w
	GROUP BY w.window_start, w.window_end, k);
for my $table (qw(deltas_t loaded_t))
{
	sql("CREATE TABLE $table (ts timestamptz, k int, v int)");
	attach($node, $table);
}

#
# Rows that are put together with what is written
#
create_query($node, 'deltas', 'deltas_t', select => $select =~ s/%s/deltas_t/r);
wait_running($node);
insert_rows('deltas_t', 0, 1, 100);
is(figure($all), '0', 'nothing, as long as all fits into memory');
is(figure('write_amplification'), '', 'nor is anything written again');

insert_rows('deltas_t', 0, 1, 6000);
is(figure('merged_bytes'), '0', 'nothing is merged yet');
cmp_ok(figure('written_bytes'), '>', 0, 'a window was written');
is(figure('written_bytes'), bytes_of_runs(), 'so many bytes as its runs have');
is(figure('write_amplification'), '1', 'once');
cmp_ok(figure('cache_evictions'), '>', 0, 'its memory was given back');

my $needed = figure('cache_hits + cache_misses');
my $misses = figure('cache_misses');
insert_rows('deltas_t', 0, 1, 1);
insert_rows('deltas_t', 0, 1, 20);
is(figure('cache_hits + cache_misses') - $needed, '21', 'each row needs one bucket');
cmp_ok(figure('cache_misses') - $misses, '>', 0, 'which may have to be opened');
is(figure('loaded_bytes'), '0', 'none of them was read');

for (1 .. 6)
{
	insert_rows('deltas_t', 0, 1, 6000);
}
cmp_ok(figure('merged_bytes'), '>', 0, 'many runs are merged');
cmp_ok(figure('written_bytes + merged_bytes'), '>=', bytes_of_runs(), 'of which some are gone');
is(figure('round((write_amplification * written_bytes)::numeric)'), figure('written_bytes + merged_bytes'), 'how much was written for each byte');

is(figure('loaded_bytes'), '0', 'none is read yet');
($needed, my $loaded) = (figure('cache_hits + cache_misses'), bytes_of_runs());
insert_rows('deltas_t', 2, 1, 1);
cmp_ok(figure('loaded_bytes'), '>', $loaded / 2, 'all are read when the window is over');
cmp_ok(figure('loaded_bytes'), '<', $loaded, 'less the heads of chunks');
cmp_ok(figure('cache_hits + cache_misses') - $needed, '>', 8, 'bucket by bucket');
sync_pipelines($node);
results_ok($node, 'deltas', 'the results are right', table => 'deltas_t', synced => 1);

#
# A task that starts anew
#
lose_state($node, 'task');
is(figure($all), '0', 'counts begin with the attempt');
sql(q(SELECT stream_ckpt.drop_query('deltas')));

#
# Rows whose groups are read
#
create_query($node, 'loaded', 'loaded_t', emit => 'update', select => $select =~ s/%s/loaded_t/r);
insert_rows('loaded_t', 0, 1, 6000);
cmp_ok(figure('cache_evictions'), '>', 0, 'a window is larger than memory');

# some groups are in memory; the first one that isn't
my ($key, $hits, $bytes) = (0);
do
{
	$key += 100;
	($hits, $misses, $bytes) = split /\|/, figure('cache_hits, cache_misses, loaded_bytes');
	insert_rows('loaded_t', 0, $key, $key);
} while ($key < 6000 && figure('cache_misses') == $misses);
cmp_ok(figure('loaded_bytes'), '>', $bytes, 'a bucket was read for a row');
($hits, $misses, $bytes) = split /\|/, figure('cache_hits, cache_misses, loaded_bytes');
insert_rows('loaded_t', 0, $key, $key);
is(figure('cache_hits, cache_misses, loaded_bytes'), join('|', $hits + 1, $misses, $bytes), 'and is there for the next one');
results_ok($node, 'loaded', 'the results are right', table => 'loaded_t', emit => 'update');

$node->stop;
done_testing();
