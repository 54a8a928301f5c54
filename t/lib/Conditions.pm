# Conditions.pm - the conditions under which a test of crashes or random rows runs: drawn anew each time, printed, and
# fixed by the environment to run the same again.
#
#   SEED=n        draws the same, and takes the same random steps
#   DRAW="..."    fixes all conditions or some: DRAW="tasks=4 batch=1 memory=40 bucket=100"
#
# A test that is asked for what it doesn't take (draw(batch => [ 0 ]) takes no other) is skipped.  "make torture" has
# all of them run in all combinations.

package Conditions;

use strict;
use warnings;

use Exporter 'import';
use Test::More;

our @EXPORT = qw(test_seed draw pick);

my @names = qw(tasks batch memory bucket step);

# memory: kB for all state of a task, so little that every bucket is evicted all the time; 0: stream_ckpt.task_memory.
# bucket: bytes of state in a range of hashes; with 100 nearly each group has a range of its own; 0: as usual.
# step: all groups that change are written behind the barrier, and all windows emitted, so many in a step; 0: as usual.
my %values = (
	tasks => [ 1, 2, 4 ],
	batch => [ 0, 1, 7, -1 ],    # rows of a message; 0: as many as fit, -1: random
	memory => [ 0, 4, 40 ],
	bucket => [ 0, 100 ],
	step => [ 0, 1, 30 ]);

my $seed;
my $drawn = '';    # the last ones, in words

# One of a list.
sub pick { return $_[ int rand @_ ]; }

# The seed of this run, printed; Perl's random numbers begin with it.
sub test_seed
{
	return $seed if defined $seed;
	$seed = $ENV{SEED} || (time ^ ($$ << 8)) & 0x7fffffff;
	srand($seed);
	diag "SEED=$seed";
	return $seed;
}

# "tasks=4 batch=1" as a hash
sub parse
{
	my ($text) = @_;
	my %fixed = $text =~ /(\w+)=(-?\d+)/g;

	for my $name (keys %fixed)
	{
		die "DRAW: there is no condition \"$name\"" unless $values{$name};
	}
	return %fixed;
}

sub describe
{
	my (%conditions) = @_;
	return join ' ', map { "$_=$conditions{$_}" } @names;
}

# Where all state is in memory nothing has buckets.
sub normalize
{
	my (%conditions) = @_;

	$conditions{bucket} = 0 unless $conditions{memory};
	return %conditions;
}

# All combinations, as texts for DRAW.
sub all
{
	my @all = ({});

	for my $name (@names)
	{
		@all = map { my $begun = $_; map { { %$begun, $name => $_ } } @{ $values{$name} } } @all;
	}
	my %seen;
	return grep { !$seen{$_}++ } map { describe(normalize(%$_)) } @all;
}

# Draws one of each condition, of those values that the test takes (name => [ values ]), and prints them.
sub draw
{
	my (%taken) = @_;
	my %fixed = parse($ENV{DRAW} // '');
	my %result;

	test_seed();
	$result{$_} = pick(@{ $taken{$_} // $values{$_} }) for @names;
	%result = normalize(%result, %fixed);
	for my $name (sort keys %taken)
	{
		plan(skip_all => "not with $name=$result{$name}") unless grep { $_ == $result{$name} } @{ $taken{$name} };
	}
	$drawn = describe(%result);
	diag "DRAW=\"$drawn\"";
	return \%result;
}

# Again at the end of what has failed, where it is seen.
END
{
	diag "to run the same again: SEED=$seed" . ($drawn ? " DRAW=\"$drawn\"" : '')
	  if defined $seed && ($? || !Test::More->builder->is_passing);
}

1;
