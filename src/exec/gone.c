/*-------------------------------------------------------------------------
 * gone.c
 *	  Groups that have no rows any more.
 *
 * Such a group stays in its bucket, as older runs know it, and is written as one with no rows; but it is none for the result:
 * emit.c deletes its row.  Its kept inputs are freed (retract.c); states that rows are taken back from are as new by
 * themselves.  If its keys come back it goes on.
 *
 * It goes when nothing needs it: with its pane; when runs are merged the oldest of which is among them (state/merge.c); and if
 * there are many of them in a pane that stays, when that gets a new bucket, without them, which is written whole.  If no
 * other groups are there the pane begins anew: one without groups is never written, so that its runs would stay.
 *
 * The rule: a group that the result has a row of, or an older run rows of, is not forgotten.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/timed.h"
#include "utils/memutils.h"

/*
 * So many groups have lost all their rows, and half of those that there are, before one looks whether they are still so; few
 * where tests look at that
 */
#ifdef SC_DEBUG
#define MANY_EMPTIED	100
#else
#define MANY_EMPTIED	10000
#endif

/* The one group of a query, or of a grouping set, without keys and windows is. */
bool
sc_group_is_permanent(const ScEngine *engine, const ScGroup *group)
{
	int			last = engine->nkeys - 1;
	const bool *in_set;

	if (engine->def->one_row || !engine->has_empty_set)
		return engine->def->one_row;
	in_set = engine->def->set_keys + DatumGetInt32(sc_group_keys(engine, group)[last]) * engine->nkeys;
	for (int i = 0; i < last; i++)
	{
		if (in_set[i])
			return false;
	}
	return true;
}

bool
sc_group_has_gone(const ScEngine *engine, const ScGroup *group)
{
	return engine->retracts && *sc_group_rows(engine, group) == 0 && !sc_group_is_permanent(engine, group);
}

/*
 * Keys that are equal can look different.  Not if their equality can change: the changelog tells groups by the bytes of their
 * keys then.
 */
void
sc_group_returns(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	Datum	   *keys = sc_group_keys(engine, group);
	MemoryContext old;

	if (!engine->keys_general || engine->keys_can_change)
		return;
	old = MemoryContextSwitchTo(bucket->context);
	for (int i = 0; i < engine->nkeys; i++)
	{
		const ScKeyState *key = &engine->keys[i];
		Datum		value;

		if (key->kind != SC_KEY_GENERAL || engine->key_nulls[i])
			continue;
		value = sc_datum_keep(engine->key_values[i], &key->type);
		if (!key->type.byval)
			pfree(DatumGetPointer(keys[i]));
		keys[i] = value;
	}
	MemoryContextSwitchTo(old);
}

/* Has it no rows, and the result no row of it? */
bool
sc_group_is_nothing(const ScEngine *engine, const ScGroup *group)
{
	return sc_group_has_gone(engine, group) && !(group->flags & SC_GROUP_EMITTED);
}

/* Groups that are nothing aren't found any more in a bucket that is only to be written: no older run knows them. */
void
sc_bucket_leave_out_gone(ScEngine *engine, ScBucket *bucket)
{
	for (uint32 i = 0; engine->retracts && i <= bucket->cell_mask; i++)
	{
		ScCell	   *cell = &bucket->cells[i];

		if (cell->number != 0 && cell->number != SC_CELL_DELETED &&
			sc_group_is_nothing(engine, sc_bucket_group(engine, bucket, cell->number - 1)))
			cell->number = SC_CELL_DELETED;
	}
}

/* emit update, when what has changed is emitted: whatever is in the result is known then. */
void
sc_gone_reclaim(ScEngine *engine)
{
	for (int i = 0; engine->retracts && i < engine->npanes; i++)
	{
		ScBucket   *bucket = engine->panes[i]->bucket;
		uint32		n = 0;

		if (bucket == NULL || bucket->snapshot != NULL || bucket->nemptied < MANY_EMPTIED ||
			bucket->nemptied < bucket->ngroups / 2)
			continue;
		bucket->nemptied = 0;
		for (uint32 g = 0; g < bucket->ngroups; g++)
			n += sc_group_is_nothing(engine, sc_bucket_group(engine, bucket, g));
		if (n == bucket->ngroups)
			sc_pane_begin_anew(engine, i);
		else if (n > bucket->ngroups / 2)
		{
			/* it has lost groups that runs know */
			engine->panes[i]->whole = true;
			sc_pane_renew_bucket(engine, engine->panes[i]);
		}
	}
}
