/*-------------------------------------------------------------------------
 * undo.c
 *	  Taking back what one row did to its group, when it raised an error.
 *
 * An abort doesn't undo what happened in memory.  A query with on_error =>
 * 'dead_letter' goes on without exactly the row that failed, so before each row
 * the states of its group are saved (options.undo): by value, by a copy, or, where they can only be
 * serialised, as serialfn's bytes; kept inputs by their length.  An error before
 * that (in WHERE, a key, the window) has changed nothing.  Of several grouping sets each has a group of the row.
 *
 * The same for result rows: emission remembers the group that it is at (emit.c),
 * and goes on behind it.
 *
 * Limit: memory of an internal state that is replaced by its saved form can't be
 * freed before its window closes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "exec/timed.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* So many saved groups of a row are looked through one by one */
#define FEW_GROUPS	8

/* One state as it was. */
typedef struct SavedState
{
	Datum		value;			/* SERIAL: bytea; by reference: a copy */
	uint8		flags;
	bool		isnull;			/* SERIAL: there are no bytes */
	uint64		rows;			/* kept inputs */
	Size		len;			/* kept inputs */
} SavedState;

/* A group that the row has made, or is about to change. */
typedef struct SavedGroup
{
	ScBucket   *bucket;
	ScGroup    *group;			/* but for one that was made: others that were made may have moved it */
	uint32		hash;
	bool		isnew;			/* the row has made the group, */
	uint32		number;			/* which has this number, if groups come and go */
	uint32		copied;			/* a copy that is being combined with it (sessions.c); UINT32_MAX: none */
	int			nsaved;			/* states saved */
	int64		rows;			/* if the engine retracts */
	SavedState *states;
} SavedGroup;

struct ScUndo
{
	MemoryContext context;		/* copies; reset for each row */
	bool		in_row;
	int			ngroups;		/* 0: the row has changed nothing yet */
	int			max_groups;
	HTAB	   *saved;			/* of a row that is joined with several: its groups that are saved; NULL: they are few */
	SavedGroup *groups;			/* one; or of each grouping set, and of each row that the row is joined to, one that is
								 * made and one that is changed */
};

/* The current context is the engine's. */
void
sc_undo_compile(ScEngine *engine)
{
	ScUndo	   *undo = palloc0(sizeof(ScUndo));

	undo->context = AllocSetContextCreate(engine->context, "stream_ckpt undo", ALLOCSET_DEFAULT_SIZES);
	undo->max_groups = Max(2 * engine->nsets, 1);
	undo->groups = palloc0(sizeof(SavedGroup) * undo->max_groups);
	for (int i = 0; i < undo->max_groups; i++)
		undo->groups[i].states = palloc0(sizeof(SavedState) * Max(engine->ntrans, 1));
	engine->undo = undo;
}

/* A row that is joined to many has as many groups. */
static void
make_more_groups(ScEngine *engine)
{
	ScUndo	   *undo = engine->undo;
	MemoryContext old = MemoryContextSwitchTo(engine->context);
	int			n = undo->max_groups * 2;

	undo->groups = repalloc_huge(undo->groups, sizeof(SavedGroup) * n);
	memset(undo->groups + undo->max_groups, 0, sizeof(SavedGroup) * undo->max_groups);
	for (; undo->max_groups < n; undo->max_groups++)
		undo->groups[undo->max_groups].states = palloc0(sizeof(SavedState) * Max(engine->ntrans, 1));
	MemoryContextSwitchTo(old);
}

Size
sc_undo_bytes(const ScEngine *engine)
{
	return 2 * (sizeof(SavedGroup) + engine->ntrans * sizeof(SavedState));
}

void
sc_undo_begin_row(ScEngine *engine)
{
	engine->undo->in_row = true;
	engine->undo->ngroups = 0;
}

void
sc_undo_end_row(ScEngine *engine)
{
	engine->undo->in_row = false;
}

/* In the current memory context: what restore_state needs, whatever the transition function does. */
static void
save_state(ScEngine *engine, ScTrans *trans, Datum state, uint8 flags, SavedState *saved)
{
	saved->flags = flags;
	saved->value = state;
	if (flags & SC_STATE_INPUTS)
	{
		const ScInputs *inputs = (const ScInputs *) DatumGetPointer(state);

		saved->rows = inputs ? inputs->rows : 0;
		saved->len = inputs ? inputs->len : 0;
		return;
	}
	switch (trans->kind)
	{
		case SC_TRANS_DATUM:
			if (!trans->byval && !(flags & SC_STATE_NULL))
				saved->value = sc_datum_keep(state, &trans->type);
			break;
		case SC_TRANS_SERIAL:
			saved->value = sc_state_serialize(engine, trans, state, flags, &saved->isnull);
			break;
		case SC_TRANS_INPUTS:
			break;
	}
}

/* For when they are many. */
static void
note_saved(ScUndo *undo)
{
	HASHCTL		ctl = {.keysize = sizeof(ScGroup *),.entrysize = sizeof(ScGroup *),.hcxt = undo->context};

	undo->saved = hash_create("stream_ckpt saved groups", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < undo->ngroups; i++)
	{
		if (!undo->groups[i].isnew)
			(void) hash_search(undo->saved, &undo->groups[i].group, HASH_ENTER, NULL);
	}
}

/*
 * Is the group as it was before the row saved already?  A row that is joined with many comes to the same groups again and
 * again, and they stay where they are, as all have been made before the first of them is added to.
 */
static bool
is_saved(ScUndo *undo, ScGroup *group)
{
	bool		found;

	if (undo->ngroups < FEW_GROUPS)
	{
		for (int i = 0; i < undo->ngroups; i++)
		{
			if (!undo->groups[i].isnew && undo->groups[i].group == group)
				return true;
		}
		return false;
	}
	if (undo->saved == NULL)
		note_saved(undo);
	(void) hash_search(undo->saved, &group, HASH_ENTER, &found);
	return found;
}

/* What is kept of a row that is joined with many has to fit into memory. */
static void
check_saved(const ScUndo *undo)
{
	if (undo->ngroups > 1 && undo->context->mem_allocated > sc_task_memory_bytes() / 4)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a row of the stream changes more groups than can be taken back"),
				 errdetail("With on_error => 'dead_letter' their states before the row are kept until all of it has counted, which may take a quarter of \"stream_ckpt.task_memory\".")));
}

/* The row is about to advance the states of "group", or has made it. */
void
sc_undo_save(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 hash, bool isnew)
{
	ScUndo	   *undo = engine->undo;
	SavedGroup *saved;
	MemoryContext old;

	if (engine->source != NULL)
	{
		if (!isnew && is_saved(undo, group))
			return;
		check_saved(undo);
	}
	if (unlikely(undo->ngroups == undo->max_groups))
		make_more_groups(engine);
	saved = &undo->groups[undo->ngroups];
	if (undo->ngroups++ == 0)
	{
		MemoryContextReset(undo->context);
		undo->saved = NULL;
	}
	saved->bucket = bucket;
	saved->group = group;
	saved->hash = hash;
	saved->isnew = isnew;
	saved->copied = UINT32_MAX;
	saved->number = engine->new_number;
	saved->nsaved = 0;
	if (isnew)
		return;
	if (engine->retracts)
		saved->rows = *sc_group_rows(engine, group);
	old = MemoryContextSwitchTo(undo->context);
	engine->aggstate->curaggcontext = bucket->aggcontext;
	for (int t = 0; t < engine->ntrans; t++)
	{
		save_state(engine, &engine->trans[t], sc_group_states(engine, group)[t],
				   sc_group_state_flags(engine, group)[t], &saved->states[t]);
		saved->nsaved++;
	}
	MemoryContextSwitchTo(old);
}

void
sc_undo_note_copy(ScEngine *engine, ScGroup *group, uint32 copied)
{
	SavedGroup *saved = &engine->undo->groups[engine->undo->ngroups - 1];

	saved->group = group;
	saved->copied = copied;
}

static void
restore_inputs(ScBucket *bucket, Datum state, const SavedState *saved)
{
	ScInputs   *inputs = (ScInputs *) DatumGetPointer(state);

	if (!inputs && saved->rows > 0)
		elog(ERROR, "kept inputs are gone");
	if (!inputs)
		return;
	bucket->inputs_bytes -= inputs->len - saved->len;
	inputs->len = saved->len;
	inputs->rows = saved->rows;
}

/* The reverse of save_state, into the pane's memory. */
static void
restore_state(ScEngine *engine, ScBucket *bucket, ScTrans *trans, Datum *state, uint8 *flags,
			  const SavedState *saved)
{
	MemoryContext old;

	if (saved->flags & SC_STATE_INPUTS)
	{
		if (!(*flags & SC_STATE_INPUTS))
			elog(ERROR, "kept inputs are gone");
		restore_inputs(bucket, *state, saved);
		return;
	}
	sc_group_free_state(bucket, trans, state, flags);
	*state = saved->value;
	*flags = saved->flags;
	if (trans->kind == SC_TRANS_SERIAL)
	{
		*state = (Datum) 0;
		if (!saved->isnull)
			sc_state_deserialize(engine, trans, saved->value, state, flags);
	}
	else if (!trans->byval && !(saved->flags & SC_STATE_NULL))
	{
		old = MemoryContextSwitchTo(bucket->context);
		*state = sc_datum_keep(saved->value, &trans->type);
		MemoryContextSwitchTo(old);
	}
}

/* A group of the row at fault is as it was before it; one that the row made is gone. */
static void
restore_group(ScEngine *engine, SavedGroup *saved)
{
	ScBucket   *bucket = saved->bucket;
	MemoryContext old;

	if (saved->isnew && engine->timed)
		sc_bucket_delete(engine, bucket, saved->number);
	else if (saved->isnew)
		sc_bucket_remove_last(engine, bucket, saved->hash);
	if (saved->isnew)
		return;
	if (engine->retracts)
		*sc_group_rows(engine, saved->group) = saved->rows;
	if (saved->copied != UINT32_MAX)
		sc_bucket_drop_copy(engine, bucket, saved->copied);
	old = MemoryContextSwitchTo(engine->undo->context);
	engine->aggstate->curaggcontext = bucket->aggcontext;
	for (int t = 0; t < saved->nsaved; t++)
		restore_state(engine, bucket, &engine->trans[t], &sc_group_states(engine, saved->group)[t],
					  &sc_group_state_flags(engine, saved->group)[t], &saved->states[t]);
	MemoryContextSwitchTo(old);
}

/* All of them, the last one first. */
static void
restore_groups(ScEngine *engine)
{
	ScUndo	   *undo = engine->undo;
	ScBucket   *placed = NULL;

	for (int i = undo->ngroups - 1; i >= 0; i--)
		restore_group(engine, &undo->groups[i]);
	for (int i = 0; i < undo->ngroups && undo->ngroups > 1; i++)
	{
		ScBucket   *bucket = undo->groups[i].bucket;

		if (!undo->groups[i].isnew || bucket == placed)
			continue;
		sc_bucket_place_again(engine, bucket);
		placed = bucket;
	}
	undo->ngroups = 0;
}

ScEngineFault
sc_engine_after_error(ScEngine *engine)
{
	ScUndo	   *undo = engine->undo;

	if (!undo || engine->in_load || engine->broken || engine->retract_phase == SC_RETRACT_CHANGING)
		return SC_FAULT_ENGINE;
	engine->aggstate->curperagg = NULL;
	MemoryContextReset(engine->tmpcontext->ecxt_per_tuple_memory);
	engine->rows_since_reset = 0;
	sc_engine_restore_window(engine);
	/* an error of putting them in order is no group's */
	if (engine->emission.bucket && engine->emission.at < engine->emission.n)
	{
		sc_emit_skip_group(engine);
		engine->running = false;
		return SC_FAULT_GROUP;
	}
	if (!undo->in_row)
		return SC_FAULT_ENGINE;
	undo->in_row = false;
	if (engine->retract_phase == SC_RETRACT_JUDGING)
		sc_retract_skip_row(engine);
	restore_groups(engine);
	engine->running = false;
	return SC_FAULT_ROW;
}
