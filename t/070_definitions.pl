# What definitions may hold and what their result tables are: keys that are too long for an index,
# unique indexes of the user's, names that are taken.

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

sql('CREATE TABLE t (ts timestamptz, k text, v int)');
attach($node, 't');
my $from = "FROM t, stream_ckpt.tumble(ts, '1 minute') w";

# Rows with emit close are never looked up: their keys may be longer than an index takes.
create_query($node, 'long', 't', select => "SELECT w.window_start, w.window_end, k, count(*) AS n $from GROUP BY 1, 2, 3");
create_query($node, 'short', 't', select => "SELECT w.window_start, w.window_end, v, count(*) AS n $from GROUP BY 1, 2, 3");
sub indexes
{
	my ($relation) = @_;
	return sql("SELECT indisunique || ' ' || pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = '$relation'::regclass");
}
like(indexes('long'), qr/^false .*\(window_start\)$/, 'the index leaves out a key of variable length');
like(indexes('short'), qr/^true .*\(window_start, v\) NULLS NOT DISTINCT$/, 'and takes one of fixed length');

# Narrower unique indexes of the user's, older than the key's by then, are constraints only.
create_query($node, 'upd', 't', emit => 'update', select => "SELECT w.window_start, w.window_end, v, count(*) AS n $from GROUP BY 1, 2, 3");
create_query($node, 'plans', 't', emit => 'update', select => "SELECT w.window_start, w.window_end, v, count(*) AS n $from GROUP BY 1, 2, 3");
sql(q(CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
	CREATE TRIGGER nothing BEFORE INSERT ON plans FOR EACH ROW EXECUTE FUNCTION nothing()));
foreach my $name ('upd', 'plans')
{
	sql(qq(DROP INDEX ${name}_key;
		CREATE UNIQUE INDEX ${name}_narrow ON $name (window_start) NULLS NOT DISTINCT;
		CREATE UNIQUE INDEX ${name}_wide ON $name (window_start, v, n) NULLS NOT DISTINCT;
		CREATE UNIQUE INDEX ${name}_new ON $name (v, window_end) NULLS NOT DISTINCT));
}

sql(q(INSERT INTO t SELECT timestamptz '2024-01-01 00:00 UTC', string_agg(md5(i::text), ''), 1 FROM generate_series(1, 1000) i));
sync_pipelines($node);
sql(q(INSERT INTO t VALUES ('2024-01-01 00:00:01 UTC', 'x', 1)));
sync_pipelines($node);
foreach my $name ('upd', 'plans')
{
	is(sql("SELECT v, n FROM $name"), '1|2', "$name: a row is updated by the index on the whole key");
}
sql(q(INSERT INTO t VALUES ('2024-01-01 00:00:02 UTC', 'x', 2)));
foreach my $name ('upd', 'plans')
{
	wait_until($node, "SELECT status = 'failed' AND sqlstate = '23505' FROM stream_ckpt.queries WHERE query = '$name'::regclass",
		"$name: a row that violates the user's index fails");
	is(sql("SELECT v, n FROM $name"), '1|2', "$name: and replaces no other one");
	sql("DROP INDEX ${name}_narrow; SELECT stream_ckpt.resume_query('$name')");
}
sql(q(INSERT INTO t VALUES ('2024-01-01 00:01 UTC', 'x', 1)));
foreach my $name ('upd', 'plans', 'long', 'short')
{
	results_ok($node, $name, "$name: as the plain query", table => 't', emit => $name =~ /upd|plans/ ? 'update' : 'close');
}

done_testing();
