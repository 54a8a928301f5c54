# The documentation is true: docs/reference.md lists every function with its signature, every view and user-visible
# table with its columns, and every setting with its default; and what README.md, docs/tutorial.md,
# docs/cascades.md, docs/changes.md and docs/migrating.md show is what comes out.
#
# In those a block of SQL (```sql) is run, in one session for each page, in the page's order; the block without a
# language right after it, if there is one, is what psql prints for it.  Positions in the WAL and names of
# slots differ from run to run, and widths with them: they are compared without.  A page with SQL that isn't to be run is not for this list.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use StreamCkpt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";
my $node = new_node('main');

sub lines_of
{
	my ($page) = @_;
	my @lines = split /\n/, slurp_file("$root/$page");

	return @lines;
}

#
# The reference
#

# What is under a heading of docs/reference.md, down to the next one of its level or above.
sub section
{
	my ($title) = @_;
	my ($level, @body);

	for my $line (lines_of('docs/reference.md'))
	{
		if ($line =~ /^(#+) (.*)$/)
		{
			last if defined $level && length $1 <= $level;
			$level = length $1 if !defined $level && $2 eq $title;
		}
		push @body, $line if defined $level;
	}
	ok(defined $level, "docs/reference.md has a section \"$title\"");
	return @body;
}

# Names in front of the colon of each point of a list: - `a`, `b`: what they are
sub names_in_list
{
	my @names;

	for my $point (grep { /^- `/ } @_)
	{
		my ($front) = $point =~ /^- ((?:`[^`]+`(?:, )?)+)/;
		push @names, $front =~ /`([^`]+)`/g;
	}
	return @names;
}

# Signatures: what is in blocks without a language, one from each line that isn't indented.
sub signatures
{
	my ($in, @found);

	for my $line (@_)
	{
		if    ($line =~ /^```/) { $in = !$in; }
		elsif (!$in) { next; }
		elsif ($line =~ /^\s/) { $found[-1] .= ' ' . ($line =~ s/^\s+//r); }
		else  { push @found, $line; }
	}
	return @found;
}

my @internal = names_in_list(section('Internal'));
my $internal = join(', ', map { "'$_'" } sort @internal);
my $functions = q(pg_proc p WHERE pronamespace = 'stream_ckpt'::regnamespace);
my $signatures = $node->safe_psql(
	'postgres', q(
	SELECT proname || '(' || regexp_replace(pg_get_function_arguments(p.oid), '::[a-z_]+( with(out)? time zone)?', '', 'g')
		|| ') RETURNS ' || regexp_replace(pg_get_function_result(p.oid), '\mstream_ckpt\.', '')
	FROM ) . "$functions AND proname NOT IN ($internal)");
is(join("\n", sort(signatures(section('Functions')))),
	join("\n", sort split /\n/, $signatures),
	'the signatures of all functions');
is( $node->safe_psql('postgres',
		"SELECT DISTINCT quote_literal(proname) FROM $functions AND proname IN ($internal) ORDER BY 1"),
	join("\n", split /, /, $internal),
	'the internal ones exist');

my %columns = map { split /\|/ } split /\n/, $node->safe_psql(
	'postgres', q(
	SELECT relname, string_agg(attname, ' ' ORDER BY attname COLLATE "C")
	FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
	WHERE relnamespace = 'stream_ckpt'::regnamespace AND relkind IN ('r', 'v') AND has_table_privilege('public', c.oid, 'SELECT')
	GROUP BY 1));
cmp_ok(scalar keys %columns, '>=', 8, 'there are views');
is(join(' ', sort(names_in_list(section($_)))), $columns{$_}, "the columns of $_")
  for sort keys %columns;

is( join("\n", sort(map { /^- `([^`]+)` \(([^)]+)\)/ ? "$1|$2" : () } section('Settings'))),
	$node->safe_psql(
		'postgres', q(
		SELECT name, current_setting(name) FROM pg_settings
		WHERE name LIKE 'stream\_ckpt.%' AND name NOT LIKE 'stream\_ckpt.debug%' ORDER BY name COLLATE "C")),
	'the settings and their defaults');

#
# Pages whose SQL is run
#

# Blocks of a page: [line, SQL, output or undef].
sub blocks_of
{
	my ($page) = @_;
	my ($number, $language, @text, @blocks) = (0);
	my $follows = 0;    # only blank lines since the last block of SQL

	for my $line (lines_of($page))
	{
		$number++;
		if ($line =~ /^```(\w*)$/ && !defined $language)
		{
			$language = $1;
			@text = ();
		}
		elsif ($line eq '```' && defined $language)
		{
			if ($language eq 'sql')
			{
				push @blocks, [ $number - @text, join("\n", @text), undef ];
			}
			elsif ($language eq '' && $follows)
			{
				$blocks[-1][2] = join("\n", @text);
			}
			$follows = $language eq 'sql';
			undef $language;
		}
		elsif (defined $language) { push @text, $line; }
		elsif ($line =~ /\S/) { $follows = 0; }
	}
	return @blocks;
}

sub normal
{
	my ($text) = @_;

	$text =~ s/\b[0-9A-F]+\/[0-9A-F]+\b/LSN/g;
	$text =~ s/\bstream_ckpt_\d+_\d+\b/SLOT/g;
	$text =~ s/-{2,}/-/g;
	$text =~ s/[ \t]+/ /g;
	$text =~ s/^ | $//mg;
	$text =~ s/^\n+|\n+$//g;
	return $text;
}

# What psql prints for each block, in a database of the page's own.
sub run_blocks
{
	my ($db, @blocks) = @_;
	my $marker = 'stream_ckpt-end-of-block';
	my ($out, @outputs) = ('');
	my @psql = (
		$node->installed_command('psql'), '-X', '-q', '-v', 'ON_ERROR_STOP=0', '-d', $node->connstr($db));
	my $script = join('', map { "$_->[1]\n\\echo $marker\n" } @blocks);
	local %ENV = ($node->_get_env(), PGTZ => 'UTC', PGDATESTYLE => 'ISO');

	IPC::Run::run(\@psql, '<', \$script, '>&', \$out);
	@outputs = split /^$marker\n/m, $out, -1;
	is(scalar @outputs, @blocks + 1, 'every block ran');
	return @outputs;
}

for my $page ('README.md', 'docs/tutorial.md', 'docs/cascades.md', 'docs/changes.md', 'docs/migrating.md')
{
	my $db = $page =~ s/\W/_/gr;
	my @blocks = blocks_of($page);
	my @outputs;

	$node->safe_psql('postgres', "CREATE DATABASE \"$db\"");
	cmp_ok(scalar @blocks, '>=', 3, "$page has SQL");
	@outputs = run_blocks($db, @blocks);
	for my $block (@blocks)
	{
		my $output = shift @outputs;

		if (defined $block->[2])
		{
			is(normal($output), normal($block->[2]), "$page, line $block->[0]: the output");
		}
		else
		{
			unlike($output, qr/^(ERROR|FATAL|WARNING):/m, "$page, line $block->[0]: no error");
		}
	}
}

$node->stop;
done_testing();
