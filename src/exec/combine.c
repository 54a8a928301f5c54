/*-------------------------------------------------------------------------
 * combine.c
 *	  Groups that have become equal, and the state of a query that is compiled again.
 *
 * What equals what isn't the engine's to say: a type can get an attribute or lose one, a
 * function can be replaced, a collation can have another version.  Then two groups can be
 * one.  The rule: the rows of both count, whatever was written or emitted of them.
 * sc_bucket_regroup (bucket.c) finds such groups, here they are combined.
 *
 * A query that is compiled again gets a new engine, which takes over all that the old one
 * has, and hashes it by the new functions.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/limit.h"
#include "exec/timed.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* How often the time limit is told of groups */
#define LIMIT_GROUPS	1024

/* Panes that are taken before they are freed where they come from */
#define TAKE_PANES 64

/* A state that is a value is advanced by what another group has kept.  The current context is a short one. */
void
sc_state_advance_by_inputs(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags, Datum inputs)
{
	MemoryContext context = engine->outcontext->ecxt_per_tuple_memory;
	MemoryContext old;

	if (DatumGetPointer(inputs) == NULL)
		return;
	/* the row's is reset for each input */
	old = MemoryContextSwitchTo(context);
	sc_inputs_advance(engine, trans, (ScInputs *) DatumGetPointer(inputs), state, flags);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

/* The same, and the inputs are freed. */
static void
advance_by_inputs(ScEngine *engine, ScBucket *bucket, ScTrans *trans, Datum *state,
				  uint8 *flags, Datum from)
{
	sc_state_advance_by_inputs(engine, trans, state, flags, from);
	sc_inputs_free(bucket, from);
}

/*
 * The rows of "from" count in "state", too.  One of the two can be a value and the other kept
 * inputs, as an aggregate can get a combine function or lose it: then it is a value, which
 * the inputs come after.
 */
static void
combine_states(ScEngine *engine, ScBucket *bucket, ScTrans *trans, Datum *state, uint8 *flags,
			   Datum from, uint8 from_flags)
{
	Datum		inputs;

	if (!((*flags | from_flags) & SC_STATE_INPUTS))
		sc_state_combine(engine, trans, state, flags, from, from_flags);
	else if (*flags & from_flags & SC_STATE_INPUTS)
	{
		sc_inputs_append_copy(bucket, state, (const ScInputs *) DatumGetPointer(from));
		sc_inputs_free(bucket, from);
	}
	else if (from_flags & SC_STATE_INPUTS)
		advance_by_inputs(engine, bucket, trans, state, flags, from);
	else if (!(from_flags & SC_STATE_UNSET))	/* else it had no rows */
	{
		inputs = *state;
		*state = from;
		*flags = from_flags;
		advance_by_inputs(engine, bucket, trans, state, flags, inputs);
	}
}

/*
 * The states of "other" are combined into those of "group", one after the other: those that are through have no value
 * in "other" any more, if an error comes.  The current context is a short one.
 */
void
sc_states_combine(ScEngine *engine, ScBucket *bucket, ScGroup *group, ScGroup *other)
{
	engine->aggstate->curaggcontext = bucket->aggcontext;
	if (engine->retracts)
	{
		*sc_group_rows(engine, group) += *sc_group_rows(engine, other);
		if (engine->def->best != NULL)
			*sc_group_shown(engine, group) = Max(*sc_group_shown(engine, group), *sc_group_shown(engine, other));
	}
	for (int t = 0; t < engine->ntrans; t++)
	{
		ScTrans    *trans = &engine->trans[t];
		Datum	   *state = &sc_group_states(engine, group)[t];
		Datum	   *from = &sc_group_states(engine, other)[t];
		uint8	   *from_flags = &sc_group_state_flags(engine, other)[t];

		combine_states(engine, bucket, trans, state, &sc_group_state_flags(engine, group)[t], *from, *from_flags);
		/* it was freed, or is the group's now, or nobody's */
		if ((*from_flags & SC_STATE_INPUTS) || *from == *state)
		{
			*from = (Datum) 0;
			*from_flags = SC_STATE_NULL | SC_STATE_UNSET;
		}
		else
			sc_group_free_state(bucket, trans, from, from_flags);
	}
}

/*
 * The rows of "other" count as rows of "group", and "other" is no group any more.  Its row in
 * the result may be another one, which goes when the group's is written.  The current
 * context is a short one.
 */
void
sc_group_combine(ScEngine *engine, ScBucket *bucket, ScGroup *group, ScGroup *other)
{
	sc_states_combine(engine, bucket, group, other);
	if (engine->timed)
	{
		ScTimes    *times = sc_group_times(engine, group);

		times->last = Max(times->last, sc_group_times(engine, other)->last);
		if (engine->sessions)
			times->start = Min(times->start, sc_group_times(engine, other)->start);
	}
	if ((group->flags & other->flags & SC_GROUP_EMITTED) != 0)
		group->flags |= SC_GROUP_SEVERAL;
	group->flags |= other->flags & (SC_GROUP_EMITTED | SC_GROUP_SEVERAL);
	group->flags |= bucket->mark;
}

/* The changelog has to write what it had to: the groups are copies, in the same order. */
static void
copy_changes(ScEngine *engine, ScBucket *bucket, const ScBucket *from)
{
	if (bucket->pane->whole || from->all_changed)
		return;
	bucket->all_changed = false;
	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		ScGroup    *group = sc_bucket_group(engine, bucket, n);

		if (group->flags & SC_GROUP_LISTED)
			sc_bucket_list_changed(bucket, group, n);
	}
}

/*
 * Copies a bucket's groups into one of the new engine; groups that it knows to be equal become one.  The old bucket
 * isn't freed.
 */
void
sc_bucket_take(ScEngine *engine, ScBucket *bucket, ScEngine *from, ScBucket *taken)
{
	MemoryContext context = engine->tmpcontext->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(context);

	from->aggstate->curaggcontext = taken->aggcontext;
	Assert(taken->snapshot == NULL);
	for (uint32 n = 0; n < taken->ngroups; n++)
	{
		ScGroup    *copy;

		CHECK_FOR_INTERRUPTS();
		if (sc_group_is_free(from, sc_bucket_group(from, taken, n)) ||
			(from == engine && !engine->timed && sc_group_is_nothing(from, sc_bucket_group(from, taken, n))))
			continue;
		if (n % LIMIT_GROUPS == LIMIT_GROUPS - 1)
			sc_limit_add(LIMIT_GROUPS);
		copy = sc_group_take(engine, bucket, from, sc_bucket_group(from, taken, n));
		/* since the last checkpoint it may have got less rows than the result has of it */
		if (engine->retracts && engine->def->best != NULL)
			*sc_group_shown(engine, copy) = *sc_group_shown(from, sc_bucket_group(from, taken, n));
		if (copy->flags & taken->mark)
			copy->flags = (copy->flags & ~taken->mark) | bucket->mark;
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	sc_bucket_make_states(engine, bucket);
	sc_bucket_regroup(engine, bucket);
	copy_changes(engine, bucket, taken);
	if (engine->timed)
	{
		(void) MemoryContextSwitchTo(context);
		sc_timed_renew(engine, bucket);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	sc_bucket_account_children(engine, bucket);
}

/*
 * The pane's groups go into a new bucket, but for those that sc_bucket_take leaves out; the old one is freed, with what
 * can't be freed of it group by group.  There must be a group that stays.
 */
void
sc_pane_renew_bucket(ScEngine *engine, ScPane *pane)
{
	ScBucket   *old = pane->bucket;
	ScBucket   *bucket = sc_bucket_create(engine, pane);

	sc_bucket_take(engine, bucket, engine, old);
	/* groups have other numbers: what is written of the pane in pieces begins anew */
	sc_pane_sweep(pane)->age = 0;
	pane->bucket = bucket;
	if (engine->at == old)
		engine->at = bucket;
	sc_bucket_free(engine, old);
}

/*
 * The new engine goes on with the runs of a spilled pane, and with the buckets that have changed if result rows are due
 * for that; else the runs are given what has changed.
 */
static void
take_spilled(ScEngine *engine, ScEngine *from, ScPane *taken, ScPane *pane)
{
	if (from->options.emit == SC_EMIT_CLOSE && !taken->emitted)
		sc_spilled_write(from, taken);
	sc_pane_make_directory(engine, pane, taken->depth);
	for (uint32 i = 0; i < sc_pane_nbuckets(taken); i++)
	{
		if (taken->directory[i] == NULL || sc_bucket_nchanged(taken->directory[i]) == 0)
			continue;
		pane->directory[i] = sc_bucket_create(engine, pane);
		sc_bucket_take(engine, pane->directory[i], from, taken->directory[i]);
	}
	pane->runs = taken->runs;
	taken->runs = NULL;
	sc_pane_set_stored_groups(engine, pane, taken->stored_groups);
}

/* Copies one pane into the new engine; the old one isn't freed. */
static void
take_pane(ScEngine *engine, ScEngine *from, ScPane *taken)
{
	ScPane	   *pane = sc_pane_open_empty(engine, taken->key);

	pane->emitted = taken->emitted;
	pane->whole = taken->whole;
	if (taken->bucket == NULL)
		take_spilled(engine, from, taken, pane);
	else
	{
		pane->bucket = sc_bucket_create(engine, pane);
		sc_bucket_take(engine, pane->bucket, from, taken->bucket);
	}
	pane->live_bytes = taken->live_bytes;
	pane->entry_bytes = taken->entry_bytes;
}

void
sc_engine_take_state(ScEngine *engine, ScEngine *from)
{
	if (engine->signatures[SC_FORMAT_VERSION] != from->signatures[SC_FORMAT_VERSION])
		sc_signature_fail();
	if (engine->npanes > 0 || sc_engine_is_interrupted(from) || sc_engine_is_emitting(from))
		elog(ERROR, "state can be taken between two rows, by a fresh engine only");

	engine->running = from->running = true;
	engine->counters = from->counters;
	sc_take_changed_windows(engine, from);
	sc_engine_set_time(engine, sc_engine_time(from));
	engine->commit_time = from->commit_time;
	engine->emitted_until = from->emitted_until;
	engine->over_until = from->over_until;
	for (int i = 0; i < from->nclosed; i++)
		sc_panes_remember_closed(engine, from->closed[i]);
	engine->live_bytes = from->live_bytes;
	while (from->npanes > 0)
	{
		int			n = Min(from->npanes, TAKE_PANES);

		for (int i = 0; i < n; i++)
			take_pane(engine, from, from->panes[i]);
		sc_panes_close(from, 0, n);
	}
	engine->running = from->running = false;
}
