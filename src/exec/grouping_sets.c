/*-------------------------------------------------------------------------
 * grouping_sets.c
 *	  Rows of a query with several grouping sets: each is in a group of every set.
 *
 * The last key is the set's number; keys that the set leaves out are NULL.  Groups of one row can belong to several tasks.
 *
 * What a row did must be taken back from all of its groups (undo.c).  So with on_error => 'dead_letter' all of them are there
 * before the first is changed: making one can move others.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"

/* After the keys.  The current context is the engine's. */
void
sc_sets_compile(ScEngine *engine)
{
	const ScDefinition *def = engine->def;

	engine->nsets = def->nsets;
	engine->row_values = palloc0(sizeof(Datum) * Max(engine->nkeys, 1));
	engine->row_nulls = palloc0(Max(engine->nkeys, 1));
	for (int set = 0; set < def->nsets; set++)
	{
		int			n = 0;

		for (int i = 0; i < def->nkeys; i++)
			n += def->set_keys[set * def->nkeys + i];
		/* nothing but the number */
		engine->has_empty_set |= n == 1;
	}
	if (sc_assigner_has_windows(&def->window))
		engine->has_empty_set = false;
}

/* The current row's keys are those of a set; the position of its group. */
static uint32
enter_set(ScEngine *engine, int set)
{
	const bool *in_set = engine->def->set_keys + set * engine->nkeys;
	int			last = engine->nkeys - 1;

	for (int i = 0; i < last; i++)
	{
		engine->key_nulls[i] = engine->row_nulls[i] || !in_set[i];
		engine->key_values[i] = engine->key_nulls[i] ? (Datum) 0 : engine->row_values[i];
	}
	engine->key_values[last] = Int32GetDatum(set);
	engine->key_nulls[last] = false;
	return sc_keys_hash(engine);
}

/* Makes the groups of the current row that aren't there yet. */
static void
open_groups(ScEngine *engine)
{
	for (int set = 0; set < engine->nsets; set++)
	{
		uint32		hash = enter_set(engine, set);
		ScBucket   *bucket = engine->current->bucket;
		ScGroup    *group;
		bool		isnew;

		if (!sc_is_ours(engine, hash))
			continue;
		if (bucket == NULL)
			bucket = sc_spilled_bucket(engine, engine->current, hash);
		group = sc_bucket_lookup(engine, bucket, hash, &isnew);
		if (isnew)
			sc_undo_save(engine, bucket, group, hash, true);
	}
}

/* The keys of the current row, of which each set leaves out some. */
static void
keep_row_keys(ScEngine *engine)
{
	memcpy(engine->row_values, engine->key_values, engine->nkeys * sizeof(Datum));
	memcpy(engine->row_nulls, engine->key_nulls, engine->nkeys);
}

void
sc_sets_open(ScEngine *engine)
{
	keep_row_keys(engine);
	open_groups(engine);
}

/* Calls "function" for each set whose group is ours; the keys are those of the set then. */
static void
for_each_set(ScEngine *engine, void (*function) (ScEngine *engine, uint32 hash))
{
	for (int set = 0; set < engine->nsets; set++)
	{
		uint32		hash = enter_set(engine, set);

		if (sc_is_ours(engine, hash))
			function(engine, hash);
	}
}

void
sc_sets_add(ScEngine *engine, void (*add) (ScEngine *engine, uint32 hash))
{
	keep_row_keys(engine);
	if (engine->undo != NULL)
		open_groups(engine);
	for_each_set(engine, add);
}

void
sc_sets_retract(ScEngine *engine, void (*retract) (ScEngine *engine, uint32 hash))
{
	keep_row_keys(engine);
	for_each_set(engine, retract);
}

void
sc_sets_make_empty(ScEngine *engine)
{
	const ScDefinition *def = engine->def;

	memset(engine->row_nulls, true, engine->nkeys);
	for (int set = 0; set < engine->nsets; set++)
	{
		ScBucket   *bucket = engine->current->bucket;
		uint32		hash = enter_set(engine, set);
		bool		empty = true;
		bool		isnew;

		for (int i = 0; i < def->nkeys - 1; i++)
			empty &= !def->set_keys[set * def->nkeys + i];
		/* a spilled pane has it */
		if (empty && bucket != NULL && sc_is_ours(engine, hash) && sc_bucket_find(engine, bucket, hash) == NULL)
			(void) sc_bucket_lookup(engine, bucket, hash, &isnew);
	}
}

/* Which keys each set has is part of what the state means. */
void
sc_sets_sign(const ScDefinition *def, StringInfo buf)
{
	if (def->nsets == 0)
		return;
	appendStringInfo(buf, " sets %d ", def->nsets);
	for (int i = 0; i < def->nsets * def->nkeys; i++)
		appendStringInfoChar(buf, def->set_keys[i] ? '1' : '0');
}
