/*-------------------------------------------------------------------------
 * merge.c
 *	  Groups of one bucket counted into another's, which stay as they are (combine.c: those that go).
 *
 * What is merged comes behind what is there: kept inputs follow each other in that order, and of equal values a min
 * or max keeps the one that it would have kept.  If rows can be taken back a group has the rows of all that were merged,
 * and none if they have none: then it is none for the result (gone.c).  Groups of the bucket that is merged into are
 * never written, and their keys are in its memory.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/limit.h"
#include "exec/running.h"
#include "exec/timed.h"
#include "miscadmin.h"
#include "utils/expandeddatum.h"
#include "utils/memutils.h"

/* How often the time limit is told of groups */
#define LIMIT_GROUPS	1024

/* A state that isn't of an SQL type may point into memory of the functions that made it: it goes through its bytes. */
static void
copy_serial(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags, Datum from, uint8 from_flags)
{
	bool		isnull;
	Datum		bytes = sc_state_serialize(engine, trans, from, from_flags, &isnull);

	*state = (Datum) 0;
	*flags = SC_STATE_NULL;
	if (!isnull)
		sc_state_deserialize(engine, trans, bytes, state, flags);
}

/* The state, which has no value, becomes a copy of "from". */
static void
copy_state(ScEngine *engine, ScBucket *bucket, ScTrans *trans, Datum *state, uint8 *flags,
		   Datum from, uint8 from_flags)
{
	MemoryContext old;

	if (trans->kind == SC_TRANS_SERIAL && !(from_flags & SC_STATE_UNSET))
	{
		copy_serial(engine, trans, state, flags, from, from_flags);
		return;
	}
	*state = (Datum) 0;
	*flags = from_flags;
	if (from_flags & SC_STATE_INPUTS)
		sc_inputs_append_copy(bucket, state, (const ScInputs *) DatumGetPointer(from));
	else if (!(from_flags & SC_STATE_NULL))
	{
		old = MemoryContextSwitchTo(bucket->context);
		*state = sc_datum_keep(from, &trans->type);
		MemoryContextSwitchTo(old);
	}
}

/* One of the two is a value and the other kept inputs: it is a value then, which the inputs come after. */
static void
merge_inputs(ScEngine *engine, ScBucket *bucket, ScTrans *trans, Datum *state, uint8 *flags,
			 Datum from, uint8 from_flags)
{
	Datum		inputs;

	if (*flags & from_flags & SC_STATE_INPUTS)
		sc_inputs_append_copy(bucket, state, (const ScInputs *) DatumGetPointer(from));
	else if (from_flags & SC_STATE_INPUTS)
		sc_state_advance_by_inputs(engine, trans, state, flags, from);
	else
	{
		inputs = *state;
		copy_state(engine, bucket, trans, state, flags, from, from_flags);
		sc_state_advance_by_inputs(engine, trans, state, flags, inputs);
		sc_inputs_free(bucket, inputs);
	}
}

/* The rows of "from" count in the state, too.  As sc_state_combine, which takes "from" over. */
static inline void
merge_state(ScEngine *engine, ScBucket *bucket, ScTrans *trans, Datum *state, uint8 *flags,
			Datum from, uint8 from_flags)
{
	if (from_flags & SC_STATE_UNSET)
		return;					/* had no rows */
	if (*flags & SC_STATE_UNSET)
	{
		copy_state(engine, bucket, trans, state, flags, from, from_flags);
		return;
	}
	if (unlikely((*flags | from_flags) & SC_STATE_INPUTS))
	{
		merge_inputs(engine, bucket, trans, state, flags, from, from_flags);
		return;
	}
	sc_combine_compile(engine, trans);
	if (trans->kind == SC_TRANS_DATUM)
	{
		if ((*flags & SC_STATE_NULL) && trans->combine.fn_strict)
		{
			copy_state(engine, bucket, trans, state, flags, from, from_flags);
			return;
		}
		/* whose value isn't the function's to change */
		if (!trans->byval)
			from = MakeExpandedObjectReadOnly(from, (from_flags & SC_STATE_NULL) != 0,
											  trans->pertrans->transtypeLen);
	}
	sc_state_combine(engine, trans, state, flags, from, from_flags);
}

/*
 * A group that has no rows isn't there, and so isn't merged.  Into one it is merged as into a new one: its keys look as those
 * of "other" then, and are looked for by those of a group that may have gone.
 */
static bool
begin_group(ScEngine *engine, ScBucket *bucket, ScGroup *group, const ScGroup *other)
{
	int64	   *rows = sc_group_rows(engine, group);

	if (*sc_group_rows(engine, other) == 0)
		return false;
	if (*rows == 0 && engine->keys_general)
	{
		(void) sc_keys_hash_of(engine, other);
		sc_group_returns(engine, bucket, group);
	}
	*rows += *sc_group_rows(engine, other);
	return true;
}

/* All states; the current context is a short one, and aggstate->curaggcontext the bucket's. */
static inline void
merge_group(ScEngine *engine, ScBucket *bucket, ScGroup *group, ScGroup *other)
{
	Datum	   *states = sc_group_states(engine, group);
	uint8	   *flags = sc_group_state_flags(engine, group);
	const Datum *from = sc_group_states(engine, other);
	const uint8 *from_flags = sc_group_state_flags(engine, other);

	if (unlikely(engine->retracts) && !begin_group(engine, bucket, group, other))
		return;
	for (int t = 0; t < engine->ntrans; t++)
		merge_state(engine, bucket, &engine->trans[t], &states[t], &flags[t], from[t], from_flags[t]);
}

/* What is done for each group, the n-th, before it is looked at. */
static inline void
step(uint32 n)
{
	CHECK_FOR_INTERRUPTS();
	if (n % LIMIT_GROUPS == LIMIT_GROUPS - 1)
		sc_limit_add(LIMIT_GROUPS);
}

static MemoryContext
begin_merging(ScEngine *engine, ScBucket *bucket)
{
	engine->aggstate->curaggcontext = bucket->aggcontext;
	return MemoryContextSwitchTo(engine->tmpcontext->ecxt_per_tuple_memory);
}

void
sc_bucket_merge(ScEngine *engine, ScBucket *bucket, ScBucket *from)
{
	MemoryContext old = begin_merging(engine, bucket);

	for (uint32 n = 0; n < from->ngroups; n++)
	{
		ScGroup    *other = sc_bucket_group(engine, from, n);
		uint32		hash = sc_keys_hash_of(engine, other);
		bool		isnew;

		step(n);
		merge_group(engine, bucket, sc_bucket_lookup_bare(engine, bucket, hash, &isnew), other);
		MemoryContextReset(CurrentMemoryContext);
	}
	MemoryContextSwitchTo(old);
}

void
sc_bucket_merge_keys(ScEngine *engine, ScBucket *bucket, ScBucket *from, ScBucket *keys)
{
	MemoryContext old = begin_merging(engine, bucket);

	for (uint32 n = 0; n < keys->ngroups; n++)
	{
		uint32		hash = sc_keys_hash_of(engine, sc_bucket_group(engine, keys, n));
		ScGroup    *other = sc_bucket_find(engine, from, hash);
		bool		isnew;

		step(n);
		if (other != NULL)
			merge_group(engine, bucket, sc_bucket_lookup_bare(engine, bucket, hash, &isnew), other);
		MemoryContextReset(CurrentMemoryContext);
	}
	MemoryContextSwitchTo(old);
}

void
sc_bucket_add_key(ScEngine *engine, ScBucket *keys, uint32 hash)
{
	bool		isnew;

	(void) sc_bucket_lookup_bare(engine, keys, hash, &isnew);
	if (isnew)
		sc_bucket_account(engine, keys);
}

void
sc_bucket_forget_states(ScEngine *engine, ScBucket *bucket, ScBucket *keys)
{
	MemoryContext old = MemoryContextSwitchTo(engine->tmpcontext->ecxt_per_tuple_memory);

	for (uint32 n = 0; n < keys->ngroups; n++)
	{
		uint32		hash = sc_keys_hash_of(engine, sc_bucket_group(engine, keys, n));
		ScGroup    *group = sc_bucket_find(engine, bucket, hash);

		step(n);
		if (group != NULL && engine->retracts)
			*sc_group_rows(engine, group) = 0;
		for (int t = 0; group != NULL && t < engine->ntrans; t++)
			sc_group_free_state(bucket, &engine->trans[t], &sc_group_states(engine, group)[t],
								&sc_group_state_flags(engine, group)[t]);
		MemoryContextReset(CurrentMemoryContext);
	}
	MemoryContextSwitchTo(old);
}
