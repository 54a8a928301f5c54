/*-------------------------------------------------------------------------
 * transition.c
 *	  Running transition, combine, serialisation and final functions.
 *
 * The hot path of the engine: sc_transitions_advance, once per row.  The rules
 * for strict functions, by-reference and expanded states are those of
 * nodeAgg.c and execExprInterp.c; what differs is that a by-reference value is
 * never kept as a toast pointer, because the row it came from is gone by the
 * time it is read.
 *
 * Invariant: a by-reference state lives in the context of its pane (or in
 * the replay context), as a chunk of its own or as an expanded object whose
 * context is a child of that one; and it is 0 when NULL.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/memutils.h"

/* A new group's state; by-reference initial values are copied to "context". */
void
sc_state_init(ScTrans *trans, MemoryContext context, Datum *state, uint8 *flags)
{
	if (trans->init_null)
	{
		*state = (Datum) 0;
		*flags = SC_STATE_NULL | SC_STATE_UNSET;
		return;
	}
	*flags = 0;
	if (trans->byval)
		*state = trans->init_value;
	else
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		*state = datumCopy(trans->init_value, false, trans->pertrans->transtypeLen);
		MemoryContextSwitchTo(old);
	}
}

/*
 * The transition function returned another pointer than it was given: takes the
 * new value into the aggregate's context and frees the old one.
 */
static Datum
adopt_state(ScEngine *engine, ScTrans *trans, Datum new_value, bool new_null,
			Datum old_value, bool old_null)
{
	MemoryContext aggcontext = engine->aggstate->curaggcontext->ecxt_per_tuple_memory;
	int16		len = trans->pertrans->transtypeLen;

	if (new_null)
		new_value = (Datum) 0;
	else if (!DatumIsReadWriteExpandedObject(new_value, false, len) ||
			 MemoryContextGetParent(DatumGetEOHP(new_value)->eoh_context) != aggcontext)
	{
		MemoryContext old = MemoryContextSwitchTo(aggcontext);

		new_value = sc_datum_keep(new_value, &trans->type);
		MemoryContextSwitchTo(old);
	}

	if (!old_null)
	{
		if (DatumIsReadWriteExpandedObject(old_value, false, len))
			DeleteExpandedObject(old_value);
		else
			pfree(DatumGetPointer(old_value));
	}
	return new_value;
}

/* The first input becomes the state (strict function, no initial value). */
static void
start_with_input(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags)
{
	MemoryContext old =
		MemoryContextSwitchTo(engine->aggstate->curaggcontext->ecxt_per_tuple_memory);

	*state = sc_datum_keep(trans->fcinfo->args[1].value, &trans->type);
	*flags = 0;
	MemoryContextSwitchTo(old);
}

/*
 * Calls the function with the arguments that are in trans->fcinfo, and keeps what it returns in the
 * state's context.  As nodeAgg.c, for strict functions, too.
 */
static pg_attribute_always_inline void
call_transition(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags)
{
	FunctionCallInfo fcinfo = trans->fcinfo;
	Datum		value;

	if (trans->strict)
	{
		for (int i = 1; i <= trans->nargs; i++)
		{
			if (fcinfo->args[i].isnull)
				return;
		}
		if (unlikely(*flags != 0))
		{
			if (*flags & SC_STATE_UNSET)
				start_with_input(engine, trans, state, flags);
			/* else it once returned NULL, and stays there */
			return;
		}
	}

	engine->aggstate->curpertrans = trans->pertrans;
	fcinfo->args[0].value = *state;
	fcinfo->args[0].isnull = (*flags & SC_STATE_NULL) != 0;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (!trans->byval && value != *state)
		value = adopt_state(engine, trans, value, fcinfo->isnull,
							*state, (*flags & SC_STATE_NULL) != 0);
	*state = value;
	*flags = fcinfo->isnull ? SC_STATE_NULL : 0;
}

/*
 * Calls the transition function with the arguments in trans->fcinfo.  The
 * current context is the row's; aggstate->curaggcontext says where states live.
 */
void
sc_transition_call(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags)
{
	call_transition(engine, trans, state, flags);
}

/* Advances all states of "group" by the current row.  The context is the row's. */
void
sc_transitions_advance(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	ExprContext *econtext = engine->tmpcontext;
	Datum	   *states = sc_group_states(engine, group);
	uint8	   *flags = sc_group_state_flags(engine, group);

	engine->aggstate->curaggcontext = bucket->aggcontext;

	for (int t = 0; t < engine->ntrans; t++)
	{
		ScTrans    *trans = &engine->trans[t];

		if (trans->filter)
		{
			bool		isnull;
			Datum		pass = ExecEvalExpr(trans->filter, econtext, &isnull);

			if (isnull || !DatumGetBool(pass))
				continue;
		}
		if (flags[t] & SC_STATE_INPUTS)
		{
			sc_inputs_keep(engine, trans, bucket, &states[t]);
			continue;
		}
		for (int i = 0; i < trans->nargs; i++)
		{
			NullableDatum *arg = &trans->fcinfo->args[i + 1];

			arg->value = sc_expr_value(&trans->inputs[i], econtext, &arg->isnull);
		}
		call_transition(engine, trans, &states[t], &flags[t]);
	}
}

/*
 * Takes a row back, whose arguments are "args", from a state that has it.  As the transition function had passed it over, so
 * is that done here.  The current context is the row's; aggstate->curaggcontext says where states live.
 */
void
sc_transition_inverse(ScEngine *engine, ScTrans *trans, const NullableDatum *args, Datum *state, uint8 *flags)
{
	FunctionCallInfo fcinfo = trans->inverse_fcinfo;
	Datum		value;

	for (int i = 0; trans->strict && i < trans->nargs; i++)
	{
		if (args[i].isnull)
			return;
	}
	if (*flags & SC_STATE_NULL)
		sc_retract_fail(engine);
	engine->aggstate->curpertrans = trans->pertrans;
	fcinfo->args[0].value = *state;
	fcinfo->args[0].isnull = false;
	for (int i = 0; i < trans->nargs; i++)
		fcinfo->args[i + 1] = args[i];
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		sc_retract_fail(engine);
	if (!trans->byval && value != *state)
		value = adopt_state(engine, trans, value, false, *state, false);
	*state = value;
}

/*
 * The final function, or the state itself where there is none.  Direct arguments
 * are evaluated over the group slot.  The result is valid until outcontext and
 * replaycontext are reset or the state changes.
 */
static Datum
finish_state(ScEngine *engine, ScAgg *agg, Datum state, bool state_null, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	AggStatePerAgg peragg = agg->peragg;
	bool		anynull = state_null;
	Datum		result;
	int			i;

	state = MakeExpandedObjectReadOnly(state, state_null,
									   agg->trans->pertrans->transtypeLen);
	for (i = 1; i <= agg->ndirect; i++)
	{
		fcinfo->args[i].value = ExecEvalExpr(agg->direct[i - 1], engine->outcontext,
											 &fcinfo->args[i].isnull);
		anynull |= fcinfo->args[i].isnull;
	}
	if (!OidIsValid(peragg->finalfn_oid))
	{
		*isnull = state_null;
		return state;
	}

	InitFunctionCallInfoData(*fcinfo, &peragg->finalfn, peragg->numFinalArgs,
							 agg->trans->pertrans->aggCollation,
							 (void *) engine->aggstate, NULL);
	fcinfo->args[0].value = state;
	fcinfo->args[0].isnull = state_null;
	for (; i < peragg->numFinalArgs; i++)
	{
		fcinfo->args[i].value = (Datum) 0;
		fcinfo->args[i].isnull = true;
		anynull = true;
	}
	if (peragg->finalfn.fn_strict && anynull)
	{
		*isnull = true;
		return (Datum) 0;
	}
	engine->aggstate->curperagg = peragg;
	result = FunctionCallInvoke(fcinfo);
	engine->aggstate->curperagg = NULL;
	*isnull = fcinfo->isnull;
	if (!*isnull)
		result = MakeExpandedObjectReadOnly(result, false, peragg->resulttypeLen);
	return result;
}

/*
 * Result of "agg" for "group".  The group slot holds the window and the keys;
 * the current context is outcontext's.  aggstate->curaggcontext is the group's
 * pane's; it is the same afterwards.
 */
Datum
sc_aggregate_result(ScEngine *engine, ScAgg *agg, ScGroup *group, bool *isnull)
{
	ScTrans    *trans = agg->trans;
	Datum		state = sc_group_states(engine, group)[agg->transno];
	uint8		flags = sc_group_state_flags(engine, group)[agg->transno];
	ExprContext *aggcontext = engine->aggstate->curaggcontext;
	Datum		result;

	if (flags & SC_STATE_INPUTS)
	{
		ScInputs   *inputs = (ScInputs *) DatumGetPointer(state);

		engine->aggstate->curaggcontext = engine->replaycontext;
		sc_inputs_replay(engine, trans, inputs, &state, &flags);
	}
	result = finish_state(engine, agg, state, (flags & SC_STATE_NULL) != 0, isnull);
	engine->aggstate->curaggcontext = aggcontext;
	return result;
}

/* The bytea of a SC_TRANS_SERIAL state, in the current context. */
Datum
sc_state_serialize(ScEngine *engine, ScTrans *trans, Datum state, uint8 flags,
				   bool *isnull)
{
	FunctionCallInfo fcinfo = trans->pertrans->serialfn_fcinfo;
	bool		state_null = (flags & SC_STATE_NULL) != 0;
	Datum		result;

	*isnull = true;
	if (state_null && fcinfo->flinfo->fn_strict)
		return (Datum) 0;
	engine->aggstate->curpertrans = trans->pertrans;
	fcinfo->args[0].value = state;
	fcinfo->args[0].isnull = state_null;
	fcinfo->isnull = false;
	result = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * Combines a partial state into "state", which lives in aggstate->curaggcontext; as nodeAgg.c
 * does it.
 */
static void
call_combine(ScEngine *engine, ScTrans *trans, Datum partial, bool partial_null,
			 Datum *state, uint8 *flags)
{
	FunctionCallInfo fcinfo = trans->combine_fcinfo;
	bool		state_null = (*flags & SC_STATE_NULL) != 0;
	Datum		value;

	if (fcinfo->flinfo->fn_strict && (partial_null || state_null))
		return;
	engine->aggstate->curpertrans = trans->pertrans;
	fcinfo->args[0].value = *state;
	fcinfo->args[0].isnull = state_null;
	fcinfo->args[1].value = partial;
	fcinfo->args[1].isnull = partial_null;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (!trans->byval && value != *state)
		value = adopt_state(engine, trans, value, fcinfo->isnull, *state, state_null);
	*state = value;
	*flags = fcinfo->isnull ? SC_STATE_NULL : 0;
}

/* Combines what sc_state_serialize gave: deserialfn's result is only promised to combinefn. */
void
sc_state_combine_bytes(ScEngine *engine, ScTrans *trans, Datum bytes, Datum *state, uint8 *flags)
{
	FunctionCallInfo fcinfo = trans->pertrans->deserialfn_fcinfo;
	Datum		partial;

	engine->aggstate->curpertrans = trans->pertrans;
	fcinfo->args[0].value = bytes;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = PointerGetDatum(NULL);
	fcinfo->args[1].isnull = false;
	fcinfo->isnull = false;
	partial = FunctionCallInvoke(fcinfo);
	call_combine(engine, trans, partial, fcinfo->isnull, state, flags);
}

/*
 * Makes a state from what sc_state_serialize gave: it is combined into a fresh one, which
 * lives in aggstate->curaggcontext.  The current context is a short one.
 */
void
sc_state_deserialize(ScEngine *engine, ScTrans *trans, Datum bytes, Datum *state,
					 uint8 *flags)
{
	sc_state_init(trans, engine->aggstate->curaggcontext->ecxt_per_tuple_memory,
				  state, flags);
	sc_state_combine_bytes(engine, trans, bytes, state, flags);
}

/*
 * The rows of "from" count in "state", too; both live in aggstate->curaggcontext.  What
 * "from" takes is freed with its pane.  An error where the aggregate has no combine
 * function.  The current context is a short one.
 */
void
sc_state_combine(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags,
				 Datum from, uint8 from_flags)
{
	bool		from_null = (from_flags & SC_STATE_NULL) != 0;

	if (from_flags & SC_STATE_UNSET)
		return;					/* had no rows */
	if (*flags & SC_STATE_UNSET)
	{
		*state = from;
		*flags = from_flags;
		return;
	}
	sc_combine_compile(engine, trans);
	/* a state that had only rows which made none, as those of sum(int4) with NULL, is no reason to ignore the others */
	if (trans->kind != SC_TRANS_SERIAL && (*flags & SC_STATE_NULL) && trans->combine.fn_strict)
	{
		*state = from;
		*flags = from_flags;
		return;
	}
	if (trans->kind == SC_TRANS_SERIAL)
		from = sc_state_serialize(engine, trans, from, from_flags, &from_null);
	if (trans->kind == SC_TRANS_SERIAL && !from_null)
		sc_state_combine_bytes(engine, trans, from, state, flags);
	else
		call_combine(engine, trans, from, from_null, state, flags);
}
