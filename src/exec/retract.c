/*-------------------------------------------------------------------------
 * retract.c
 *	  Rows that aren't there any more: what each did to its groups is taken back.
 *
 * A row is judged as it was when it came: by its window, WHERE and keys (engine.c), and by what aggregates take of it: FILTER and
 * arguments.  What fails of that failed then, too, so that the row was never counted; nothing has been changed yet (SC_RETRACT_JUDGING).
 * Only then its groups are changed, each by the inverses of the transition functions, or by images with a minus (minus.c).
 * An error in that is never the row's (SC_RETRACT_CHANGING).
 *
 * Each group counts its rows.  What becomes of one without rows: gone.c.
 *
 * The rule: a row that the query has not counted is an error, which only the last checkpoint is right after.  Never is a
 * pane opened or a group made here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/running.h"
#include "exec/timed.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* What a state takes of the row at hand. */
typedef struct Judged
{
	bool		counts;			/* FILTER lets it pass, and a strict function doesn't pass it over */
	NullableDatum *args;		/* of a state that has an inverse */
	int			image;			/* else: where it is in "images", */
	int			len;
} Judged;

/* A group of the row at hand. */
typedef struct Changed
{
	ScBucket   *bucket;
	uint32		number;
} Changed;

struct ScRetraction
{
	bool		is_ours;		/* a group of the row at hand is */
	bool		is_judged;		/* and the row is */
	Judged	   *judged;			/* of each state */
	StringInfoData images;
	int			nchanged;
	Changed    *changed;		/* one, or one of each grouping set */
};

/* After the aggregates.  The current context is the engine's. */
void
sc_retract_compile(ScEngine *engine)
{
	ScRetraction *retraction = engine->retraction = palloc0(sizeof(ScRetraction));

	retraction->judged = palloc0(sizeof(Judged) * Max(engine->ntrans, 1));
	for (int t = 0; t < engine->ntrans; t++)
		retraction->judged[t].args = palloc0(sizeof(NullableDatum) * Max(engine->trans[t].nargs, 1));
	retraction->changed = palloc0(sizeof(Changed) * Max(engine->nsets, 1));
	initStringInfo(&retraction->images);
}

void
sc_retract_fail(ScEngine *engine)
{
	engine->broken = true;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("a row was changed or deleted that the query has not counted"),
			 errdetail("It came before the query was created, or into the table without being logged, or something by which the query judges rows has changed since."),
			 errhint("Call stream_ckpt.rebuild_query(query): its result is made anew of the rows that are there.")));
}

/* ---------------------------------------------------------------------
 * Judging
 * --------------------------------------------------------------------- */

/* What a state takes of the row; its image is built as that of a row that comes. */
static void
judge_state(ScEngine *engine, ScTrans *trans, Judged *judged)
{
	ScRetraction *retraction = engine->retraction;
	ExprContext *econtext = engine->tmpcontext;

	judged->counts = true;
	if (trans->filter)
	{
		bool		isnull;
		Datum		pass = ExecEvalExpr(trans->filter, econtext, &isnull);

		judged->counts = !isnull && DatumGetBool(pass);
	}
	if (!judged->counts)
		return;
	if (trans->inverse_fcinfo != NULL)
	{
		for (int i = 0; i < trans->nargs; i++)
			judged->args[i].value = sc_expr_value(&trans->inputs[i], econtext, &judged->args[i].isnull);
		return;
	}
	judged->image = retraction->images.len;
	judged->counts = sc_inputs_image(engine, trans, &retraction->images);
	judged->len = retraction->images.len - judged->image;
	if (judged->counts)
		retraction->images.data[judged->image] |= SC_IMAGE_MINUS;
}

static void
judge(ScEngine *engine)
{
	ScRetraction *retraction = engine->retraction;

	resetStringInfo(&retraction->images);
	for (int t = 0; t < engine->ntrans; t++)
		judge_state(engine, &engine->trans[t], &retraction->judged[t]);
	retraction->is_judged = true;
}

/* ---------------------------------------------------------------------
 * Changing
 * --------------------------------------------------------------------- */

/* Takes the row, which is judged, back from the states of a group. */
static void
take_back(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	const ScRetraction *retraction = engine->retraction;

	engine->aggstate->curaggcontext = bucket->aggcontext;
	for (int t = 0; t < engine->ntrans; t++)
	{
		ScTrans    *trans = &engine->trans[t];
		const Judged *judged = &retraction->judged[t];
		Datum	   *state = &sc_group_states(engine, group)[t];

		if (!judged->counts)
			continue;
		if (trans->inverse_fcinfo != NULL)
			sc_transition_inverse(engine, trans, judged->args, state, &sc_group_state_flags(engine, group)[t]);
		else
			sc_inputs_append_minus(engine, bucket, state, retraction->images.data + judged->image, judged->len);
	}
	--*sc_group_rows(engine, group);
}

/* The group of the keys at hand, and of the row's time if it is a session. */
static bool
find_group(ScEngine *engine, ScBucket *bucket, uint32 hash, uint32 *number)
{
	if (engine->sessions)
		return sc_sessions_find_row(engine, bucket, hash, engine->row_time, number);
	return sc_bucket_find_number(engine, bucket, hash, number);
}

/* Takes the row back from the group of the keys at hand, which is ours. */
static void
retract_from_group(ScEngine *engine, uint32 hash)
{
	ScRetraction *retraction = engine->retraction;
	ScPane	   *pane = engine->current;
	ScBucket   *bucket;
	ScGroup    *group;
	uint32		number;

	retraction->is_ours = true;
	if (!retraction->is_judged)
		judge(engine);
	/* once, whoever has the groups of the other sets */
	if (engine->nsets == 0 || DatumGetInt32(engine->key_values[engine->nkeys - 1]) == 0)
		engine->counters.retracted_rows++;
	engine->retract_phase = SC_RETRACT_CHANGING;
	if (pane == NULL)
		sc_retract_fail(engine);
	bucket = pane->bucket != NULL ? pane->bucket : sc_spilled_bucket(engine, pane, hash);
	if (!find_group(engine, bucket, hash, &number))
		sc_retract_fail(engine);
	group = sc_bucket_group(engine, bucket, number);
	if (*sc_group_rows(engine, group) <= 0)
		sc_retract_fail(engine);
	if (engine->is_merged)
		sc_running_touch(engine, engine->span.key, hash);
	sc_bucket_touch(engine, bucket, group, number);
	take_back(engine, bucket, group);
	if (engine->sessions)
		sc_sessions_loosen(engine, bucket, number);
	retraction->changed[retraction->nchanged++] = (Changed) {.bucket = bucket,.number = number};
}

void
sc_retract_begin_row(ScEngine *engine)
{
	engine->retraction->nchanged = 0;
	engine->retraction->is_ours = engine->retraction->is_judged = false;
	engine->retract_phase = SC_RETRACT_JUDGING;
}

void
sc_retract_row(ScEngine *engine, uint32 hash)
{
	if (engine->nsets > 0)
		sc_sets_retract(engine, retract_from_group);
	else if (sc_is_ours(engine, hash))
		retract_from_group(engine, hash);
}

/* The group has no rows: nor has it inputs. */
static void
free_inputs(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number)
{
	if (bucket->snapshot != NULL)
		sc_bucket_snapshot_detach(bucket->snapshot, group, number);
	for (int t = 0; t < engine->ntrans; t++)
	{
		Datum	   *state = &sc_group_states(engine, group)[t];

		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS))
			continue;
		sc_inputs_free(bucket, *state);
		*state = (Datum) 0;
	}
}

/* As it has failed when it came: it was never counted.  If nobody knows whose group it was, the first task counts it. */
void
sc_retract_skip_row(ScEngine *engine)
{
	MemoryContext context = engine->tmpcontext->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(context);

	engine->retract_phase = SC_RETRACT_NOTHING;
	if (engine->retraction->is_ours || sc_owns_dropped(engine, false))
		engine->counters.skipped_changes++;
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

/* Takes minuses and what they take away out of the group's inputs, if there are many. */
static void
compact(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number)
{
	MemoryContext old;

	if (!engine->has_inputs)
		return;
	old = MemoryContextSwitchTo(engine->groupcontext);
	if (sc_group_wants_compaction(engine, group))
		sc_group_compact_inputs(engine, bucket, group, number);
	MemoryContextSwitchTo(old);
	MemoryContextReset(engine->groupcontext);
}

/* The row is through; an error in this is the engine's. */
void
sc_retract_end_row(ScEngine *engine)
{
	ScRetraction *retraction = engine->retraction;

	for (int i = 0; i < retraction->nchanged; i++)
	{
		ScBucket   *bucket = retraction->changed[i].bucket;
		uint32		number = retraction->changed[i].number;
		ScGroup    *group = sc_bucket_group(engine, bucket, number);

		/* a session goes with its last row, unless another one comes in the same transaction */
		if (*sc_group_rows(engine, group) == 0 && !engine->sessions)
		{
			bucket->nemptied++;
			free_inputs(engine, bucket, group, number);
		}
		else
			compact(engine, bucket, group, number);
	}
	engine->retract_phase = SC_RETRACT_NOTHING;
}

/* ---------------------------------------------------------------------
 * TRUNCATE
 * --------------------------------------------------------------------- */

/* Windows that share panes: their rows are deleted by the keys of groups without rows. */
static void
empty_groups(ScEngine *engine, ScPane *pane)
{
	MemoryContext context = engine->tmpcontext->ecxt_per_tuple_memory;
	ScBucket   *old = pane->bucket;
	ScBucket   *bucket = sc_bucket_create(engine, pane);

	for (uint32 n = 0; n < old->ngroups; n++)
	{
		const ScGroup *group = sc_bucket_group(engine, old, n);
		uint32		hash = sc_keys_hash_of(engine, group);
		bool		isnew;

		CHECK_FOR_INTERRUPTS();
		(void) sc_bucket_lookup(engine, bucket, hash, &isnew);
		MemoryContextReset(context);
	}
	pane->bucket = bucket;
	pane->whole = true;
	sc_bucket_free(engine, old);
	sc_bucket_account(engine, bucket);
}

/* The i-th pane begins anew, if it was written as one that was closed before it.  The next row looks for its pane. */
void
sc_pane_begin_anew(ScEngine *engine, int i)
{
	int64		key = engine->panes[i]->key;
	bool		emitted = engine->panes[i]->emitted;

	sc_panes_close(engine, i, 1);
	sc_pane_open(engine, key)->emitted = emitted;
	engine->current = NULL;
	engine->span = (ScPaneSpan) SC_NO_PANE;
}

void
sc_engine_truncate(ScEngine *engine)
{
	MemoryContext old = MemoryContextSwitchTo(engine->tmpcontext->ecxt_per_tuple_memory);

	engine->running = true;
	if (engine->def->stateless)
		sc_stateless_truncate(engine);
	Assert(engine->emission.pane == NULL || engine->leaving != NIL);
	sc_windows_over_have_changed(engine);
	sc_running_free(engine);
	if (engine->at != NULL)
		sc_bucket_account(engine, engine->at);
	engine->at = NULL;
	for (int i = 0; i < engine->npanes; i++)
	{
		ScPane	   *pane = engine->panes[i];

		if (engine->shared)
			empty_groups(engine, pane);
		else if (engine->timed)
			sc_timed_truncate(engine, pane);
		else
		{
			if (engine->options.emit == SC_EMIT_UPDATE || pane->emitted)
				sc_emit_nothing(engine, pane);
			sc_pane_begin_anew(engine, i);
		}
	}
	engine->current = NULL;
	engine->span = (ScPaneSpan) SC_NO_PANE;
	MemoryContextSwitchTo(old);
	engine->running = false;
}
