/*-------------------------------------------------------------------------
 * deletion.c
 *	  Groups that go before their pane does (timed.h).
 *
 * What a group takes is freed at once, but for its keys if a tombstone has to be written: that is its record until
 * the changelog has it.  States of type internal are freed with the bucket only; timed.c makes another one when there
 * are many of them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/timed.h"
#include "utils/expandeddatum.h"

/* The group has no value of this state any more. */
void
sc_group_free_state(ScBucket *bucket, const ScTrans *trans, Datum *state, uint8 *flags)
{
	bool		isnull = (*flags & SC_STATE_NULL) != 0;

	if (*flags & SC_STATE_INPUTS)
		sc_inputs_free(bucket, *state);
	else if (*flags & SC_STATE_BYTES)
		pfree(DatumGetPointer(*state));
	else if (trans->kind == SC_TRANS_SERIAL)
		bucket->nlost += !isnull;
	else if (!trans->byval && !isnull)
	{
		if (DatumIsReadWriteExpandedObject(*state, false, trans->pertrans->transtypeLen))
			DeleteExpandedObject(*state);
		else
			pfree(DatumGetPointer(*state));
	}
	*state = (Datum) 0;
	*flags = SC_STATE_NULL | SC_STATE_UNSET;
}

static void
free_states(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	for (int t = 0; t < engine->ntrans; t++)
		sc_group_free_state(bucket, &engine->trans[t], &sc_group_states(engine, group)[t],
							&sc_group_state_flags(engine, group)[t]);
}

/* The group, which nothing finds, has neither states nor keys, and its number can be used again. */
static void
free_number(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number)
{
	Datum	   *keys = sc_group_keys(engine, group);

	for (int i = 0; i < engine->nkeys; i++)
	{
		if (!engine->keys[i].type.byval && !group->nulls[i])
			pfree(DatumGetPointer(keys[i]));
		keys[i] = (Datum) 0;
		group->nulls[i] = true;
	}
	group->flags &= SC_GROUP_LISTED;
	sc_group_times(engine, group)->life = SC_FREE;
	if (bucket->nfree == bucket->max_free)
	{
		Size		max = Max((Size) bucket->max_free * 2, 16);

		if (bucket->free == NULL)
			bucket->free = MemoryContextAlloc(bucket->context, max * sizeof(uint32));
		else
			bucket->free = repalloc_huge(bucket->free, max * sizeof(uint32));
		bucket->max_free = max;
	}
	bucket->free[bucket->nfree++] = number;
}

/* What the changelog or the result had to be told of a dead group was told. */
void
sc_bucket_reclaim(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);

	Assert(sc_group_times(engine, group)->life == SC_DEAD);
	sc_bucket_remove_cell(engine, bucket, number);
	free_number(engine, bucket, group, number);
}

void
sc_bucket_strip(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);

	/* a snapshot may need it as it was, and says then that it is stored */
	sc_bucket_touch(engine, bucket, group, number);
	if (bucket->snapshot != NULL && engine->has_inputs)
		sc_bucket_snapshot_detach(bucket->snapshot, group, number);
	free_states(engine, bucket, group);
}

/*
 * Deletes a group.  If the changelog can have it, or the result has a row of a session's, it stays as a dead one.
 */
void
sc_bucket_delete(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);
	ScTimes    *times = sc_group_times(engine, group);

	sc_bucket_strip(engine, bucket, number);
	if (engine->sessions)
		sc_sessions_remove(engine, bucket, number);
	times->life = SC_DEAD;
	bucket->ngone++;
	engine->ngroups--;
	if (!times->stored && !(engine->sessions && (group->flags & SC_GROUP_EMITTED)))
		sc_bucket_reclaim(engine, bucket, number);
}

/* A copy that sc_group_copy has made, whatever has become of its states. */
void
sc_bucket_drop_copy(ScEngine *engine, ScBucket *bucket, uint32 number)
{
	ScGroup    *group = sc_bucket_group(engine, bucket, number);

	free_states(engine, bucket, group);
	bucket->ngone++;
	engine->ngroups--;
	free_number(engine, bucket, group, number);
}

/* The changelog has what there is of the group. */
void
sc_group_is_written(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number)
{
	ScTimes    *times = sc_group_times(engine, group);

	times->stored = true;
	if (times->life == SC_DEAD)
		sc_bucket_reclaim(engine, bucket, number);
}
