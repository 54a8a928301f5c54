# Nexmark: its queries over generated events, restarted amid them, against digests of the plain queries' results.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = "$FindBin::RealBin/../bench/nexmark";
my $only = $ENV{ONLY};
my %digests = map { /^(q\d+) (\d+) (\w+)/ ? ($1 => "$2|$3") : () } split /\n/, PostgreSQL::Test::Utils::slurp_file("$folder/digests");
my %queries = PostgreSQL::Test::Utils::slurp_file("$folder/queries.sql") =~ /^-- (q\d+): [^\n]*\n(.*?)\n(?=\n|\z)/msg;
my @names = grep { !$only || /^(?:$only)$/ } sort keys %queries;

is(join(' ', sort keys %queries), join(' ', sort keys %digests), 'each query has a digest');

my $node = new_node('main', "max_worker_processes = 20\nTimeZone = 'UTC'\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->safe_psql('postgres', PostgreSQL::Test::Utils::slurp_file("$folder/gen.sql"));
sql("SELECT stream_ckpt.alter_pipeline('default', parallelism => 2)");
sql(q(SELECT nexmark.load(20000, 200); CREATE TABLE bid (LIKE nexmark.bid);
	SELECT stream_ckpt.attach_stream('bid', event_time => 'date_time', watermark_delay => '4 seconds')));
sql("SELECT stream_ckpt.create_query('$_', '" . ($queries{$_} =~ s/'/''/gr) . "')") for @names;
wait_running($node);

my $batches = 20;
for my $batch (1 .. $batches)
{
	sql("INSERT INTO bid SELECT * FROM nexmark.bid WHERE seq >= 1000 * ($batch - 1) AND seq < 1000 * $batch ORDER BY seq");
	lose_state($node, 'task') if $batch % 7 == 0;
}

sub digest_of
{
	my ($name) = @_;

	return sql("SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")) FROM $name t");
}
sync_pipelines($node);
my @windowed = grep { $queries{$_} =~ /event_no >= 0/ } @names;
my %windowed = map { $_ => 1 } @windowed;
is(digest_of($_), $digests{$_}, $_) for grep { !$windowed{$_} } @names;
sql("INSERT INTO bid (event_no, date_time) VALUES (-1, '2015-07-16')");
sync_pipelines($node);
is(digest_of($_), $digests{$_}, $_) for @windowed;

$node->stop;
done_testing();
