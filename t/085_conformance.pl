# Conformance cases from a folder that CONFORMANCE names: rows in, rows out, as others' documentation and tests have them.
# t/data/conformance has our SELECT for each case, or why a case isn't run.  ONLY=pattern: cases whose names match.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP;
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = $ENV{CONFORMANCE};
plan skip_all => 'CONFORMANCE names no folder of cases' unless $folder;

# name => { options, select, differs => why, 'not built' => why }
my %cases;
my $name;
for my $line (split /\n/, PostgreSQL::Test::Utils::slurp_file("$FindBin::RealBin/data/conformance"))
{
	if ($line =~ /^== (\S+)/) { $cases{ $name = $1 } = { select => '' }; }
	elsif ($line =~ /^#/ || !defined $name) { }
	elsif ($line =~ /^(differs|not built): (.*)/) { $cases{$name}{$1} = $2; }
	elsif ($line =~ /^(emit|lateness|rows|result|delay) (.*)/) { $cases{$name}{$1} = $2; }
	else { $cases{$name}{select} .= "$line\n"; }
}

my $node = new_node('main', "max_worker_processes = 20\nTimeZone = 'UTC'\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub quoted { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }

# The file's rows go into a table of these columns.
sub load_file
{
	my ($file, $table, $columns) = @_;

	sql("CREATE TABLE $table (" . join(', ', map { "$_ $columns->{$_}" } sort keys %$columns) . ')');
	open my $in, '<', $file or die "$file: $!";
	my $header = <$in>;
	chomp $header;
	close $in;
	my ($out, $error) = ('', '');
	$node->psql('postgres', "\\copy $table ($header) FROM '$file' WITH (FORMAT csv, HEADER, NULL '\\N')",
		stdout => \$out, stderr => \$error, on_error_stop => 1, on_error_die => 0) == 0 or die "$file: $error";
	return;
}

# The rows of a result that differ from a file's.
sub differences_from
{
	my ($schema, $select, $file, $columns, $tag) = @_;
	my $list = join ', ', @$columns;

	sql("SET search_path = $schema; CREATE TABLE expected_$tag AS SELECT $list FROM ($select) x LIMIT 0");
	my ($out, $error) = ('', '');
	$node->psql('postgres', "SET search_path = $schema;\n\\copy expected_$tag FROM '$file' WITH (FORMAT csv, HEADER, NULL '\\N')",
		stdout => \$out, stderr => \$error) == 0 or die "$file: $error";
	return sql("SET search_path = $schema; SELECT string_agg(d::text, E'\\n') FROM (
		(SELECT 'too much' AS what, $list FROM ($select) x EXCEPT ALL SELECT 'too much', $list FROM expected_$tag)
		UNION ALL (SELECT 'missing', $list FROM expected_$tag EXCEPT ALL SELECT 'missing', $list FROM ($select) x)) d");
}

# Inserts the rows in the order of their numbers: each transaction those with the next value of "by".
sub insert_rows
{
	my ($schema, $by, $condition) = @_;

	for my $value (split /\n/, sql("SELECT DISTINCT $by FROM $schema.source WHERE $condition ORDER BY 1"))
	{
		sql("INSERT INTO $schema.input SELECT * FROM $schema.source WHERE $by = '$value' AND $condition ORDER BY seq");
	}
	return;
}

sub run_case
{
	my ($id, $case, $about) = @_;
	my $schema = $id =~ s/\W/_/gr;
	my $input = $about->{inputs}[0];
	my $batches = exists $input->{columns}{batch};
	my $ends = exists $input->{columns}{kind} && ($about->{emit} // '') !~ /not ended/;
	my @options = map { "$_->[1] => '$case->{$_->[0]}'" } grep { defined $case->{ $_->[0] } } [ 'emit', 'emit' ], [ 'lateness', 'allowed_lateness' ];
	my $delay = $case->{delay} // (($about->{watermark}{mode} // '') eq 'per_row' ? $about->{watermark}{delay} : '0');

	sql("CREATE SCHEMA $schema");
	load_file("$folder/$id/$input->{file}", "$schema.source", $input->{columns});
	sql("SET search_path = $schema; CREATE TABLE input (LIKE source);
		SELECT stream_ckpt.attach_stream('input', event_time => 'event_time', watermark_delay => '$delay', max_ahead => NULL);
		SELECT stream_ckpt.create_query(" . join(', ', quoted('result'), quoted($case->{select}), @options) . ')');
	my $result = $case->{result} // 'SELECT * FROM result';

	if ($about->{expected}[0]{file} =~ /after_batch/)
	{
		for my $expected (@{ $about->{expected} })
		{
			my ($batch) = $expected->{file} =~ /after_batch_(\d+)/;

			insert_rows($schema, 'batch', "batch = $batch");
			sync_pipelines($node);
			is(differences_from($schema, $result, "$folder/$id/$expected->{file}", $expected->{columns}, $batch), '', "$id, batch $batch");
		}
		return;
	}
	insert_rows($schema, $batches ? 'batch' : ($case->{rows} // '') eq 'together' ? 'true' : 'seq', 'true');
	sql("INSERT INTO $schema.input (seq, kind, event_time) VALUES (1000000, 'end', '2250-01-01')") if $ends;
	sync_pipelines($node);
	for my $expected (@{ $about->{expected} })
	{
		if ($expected->{file} =~ /dropped/)
		{
			open my $in, '<', "$folder/$id/$expected->{file}" or die $!;
			my ($header, $rows) = <$in>;
			chomp $rows;
			is(counter($node, "$schema.result", 'late_rows'), $rows, "$id, late rows");
			next;
		}
		is(differences_from($schema, $result, "$folder/$id/$expected->{file}", $expected->{columns}, 'rows'), '', $id);
	}
	return;
}

my %skipped;
for my $id (map { s/^\Q$folder\E\/+//r } grep { !m{/nexmark/} } map { s{/case\.json$}{}r } sort glob "$folder/*/*/case.json")
{
	next if $ENV{ONLY} && $id !~ /$ENV{ONLY}/;
	my $case = $cases{$id};

	ok($case, "$id is known") or next;
	if (my ($why) = grep { $case->{$_} } 'differs', 'not built')
	{
		note "$id: $why: $case->{$why}";
		$skipped{$why}++;
		next;
	}
	eval { run_case($id, $case, decode_json(PostgreSQL::Test::Utils::slurp_file("$folder/$id/case.json"))); 1 }
	  or fail("$id: $@");
	my $relid = try_psql($node, "SELECT '" . ($id =~ s/\W/_/gr) . ".result'::regclass");
	sql("SELECT stream_ckpt.drop_query('" . ($id =~ s/\W/_/gr) . ".result')") if $relid =~ /result/;
}
diag join ', ', map { "$_: $skipped{$_}" } sort keys %skipped;

$node->stop;
done_testing();
