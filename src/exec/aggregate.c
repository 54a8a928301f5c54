/*-------------------------------------------------------------------------
 * aggregate.c
 *	  Compiling a definition's aggregate calls: what is looked up and checked once.
 *
 * transition.c runs what is compiled here, inputs.c the general path.  Support
 * functions get an AggState as their context, as in nodeAgg.c, with all that
 * AggCheckCallContext, AggGetAggref, AggGetTempMemoryContext, AggStateIsShared
 * and AggRegisterCallback look at.
 *
 * How a state is kept (ScTransKind):
 *
 *	  inputs	ordered-set aggregates, DISTINCT, ORDER BY, final functions that
 *				change their state, and internal states that can't be serialised
 *	  serial	internal states with serialfn, deserialfn and a combinefn that
 *				isn't strict
 *	  datum		all others
 *
 * If rows can be taken back only what retractable.c says is serial or datum, and has an inverse; sums of small integers are
 * kept as those of moving aggregates are.
 *
 * Two groups that become equal have to be combined.  So a state of kind datum without a
 * combinefn is kept as its inputs all the same if the query has keys with which that can
 * happen ("keeps").  Keys and combine functions can change while there is state, so that is
 * decided for each group when it is made (SC_STATE_INPUTS), and said in each entry of the
 * changelog: both forms are read and go on as they are, and are combined with each other
 * (combine.c).  Only two values without a combinefn can't be.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "base/compat.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "exec/exec_internal.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_agg.h"
#include "parser/parse_coerce.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/* What the catalogs say of one aggregate call. */
typedef struct AggInfo
{
	Aggref	   *aggref;			/* ours to keep */
	const Aggref *written;
	Oid			owner;
	Oid			transfn;
	Oid			finalfn;
	Oid			serialfn;
	Oid			deserialfn;
	Oid			combinefn;
	Oid			inverse;		/* of transfn, if rows are taken back by it; else InvalidOid */
	bool		finalextra;
	char		finalmodify;
	Oid			transtype;
	bool		init_null;
	char	   *init_text;
	int			nargtypes;		/* direct arguments included */
	Oid			argtypes[FUNC_MAX_ARGS];
	int			ndirect;
	ScTransKind kind;
} AggInfo;

/* EXECUTE right of the aggregate's owner on one of its functions. */
static void
check_support_function(Oid owner, Oid function)
{
	AclResult	result;

	if (!OidIsValid(function))
		return;
	result = sc_function_aclcheck(function, owner);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

/* Rights as ExecInitAgg wants them; sets info->owner. */
static void
check_rights(AggInfo *info)
{
	Oid			aggregate = info->aggref->aggfnoid;
	AclResult	result = sc_function_aclcheck(aggregate, GetUserId());
	HeapTuple	tuple;

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_AGGREGATE, get_func_name(aggregate));
	InvokeFunctionExecuteHook(aggregate);

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(aggregate));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", aggregate);
	info->owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);

	check_support_function(info->owner, info->transfn);
	check_support_function(info->owner, info->finalfn);
	check_support_function(info->owner, info->inverse);
	if (info->kind == SC_TRANS_SERIAL)
	{
		check_support_function(info->owner, info->serialfn);
		check_support_function(info->owner, info->deserialfn);
		check_support_function(info->owner, info->combinefn);
	}
}

/* As the file's head says, by what the catalogs have of the aggregate, never by its rows. */
static ScTransKind
choose_kind(const AggInfo *info, bool retracts)
{
	const Aggref *aggref = info->aggref;

	if (retracts && !OidIsValid(info->inverse))
		return SC_TRANS_INPUTS;
	if (AGGKIND_IS_ORDERED_SET(aggref->aggkind) ||
		aggref->aggdistinct != NIL || aggref->aggorder != NIL ||
		(OidIsValid(info->finalfn) && info->finalmodify != AGGMODIFY_READ_ONLY))
		return SC_TRANS_INPUTS;

	if (info->transtype != INTERNALOID)
		return SC_TRANS_DATUM;

	if (!OidIsValid(info->serialfn) || !OidIsValid(info->deserialfn) ||
		!OidIsValid(info->combinefn) || func_strict(info->combinefn) ||
		!sc_agg_args_support_sendreceive(info->aggref))
		return SC_TRANS_INPUTS;
	return SC_TRANS_SERIAL;
}

/*
 * How rows are taken back.  What an aggregate is as a moving one may be in place of what it is else: its states are those of
 * avg(), by whose function they are combined.
 */
static void
choose_inverse(AggInfo *info, Form_pg_aggregate form, int *init_column)
{
	if (sc_retract_method(info->aggref, info->transfn, &info->inverse) != SC_RETRACT_MOVING)
		return;
	info->transfn = form->aggmtransfn;
	info->finalfn = form->aggmfinalfn;
	info->combinefn = F_INT4_AVG_COMBINE;
	info->finalextra = form->aggmfinalextra;
	info->finalmodify = form->aggmfinalmodify;
	info->transtype = form->aggmtranstype;
	*init_column = Anum_pg_aggregate_aggminitval;
}

/* Reads pg_aggregate for "call".  From sessions rows are taken back by the times of their inputs (session_changes.c). */
static void
look_up(const ScEngine *engine, AggInfo *info, const ScAggregate *call)
{
	Aggref	   *aggref = copyObject(call->aggref);
	HeapTuple	tuple;
	Form_pg_aggregate form;
	int			init_column = Anum_pg_aggregate_agginitval;
	Datum		init;

	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);

	info->aggref = aggref;
	info->written = call->written;
	info->transfn = form->aggtransfn;
	info->finalfn = form->aggfinalfn;
	info->serialfn = form->aggserialfn;
	info->deserialfn = form->aggdeserialfn;
	info->combinefn = form->aggcombinefn;
	info->finalextra = form->aggfinalextra;
	info->finalmodify = form->aggfinalmodify;
	info->ndirect = list_length(call->direct_args);
	info->nargtypes = get_aggregate_argtypes(aggref, info->argtypes);
	info->transtype = resolve_aggregate_transtype(aggref->aggfnoid, form->aggtranstype,
												  info->argtypes, info->nargtypes);
	if (engine->retracts && !engine->sessions)
		choose_inverse(info, form, &init_column);
	aggref->aggtranstype = info->transtype;

	init = SysCacheGetAttr(AGGFNOID, tuple, init_column, &info->init_null);
	info->init_text = info->init_null ? NULL : TextDatumGetCString(init);
	ReleaseSysCache(tuple);

	info->kind = choose_kind(info, engine->retracts);
}

/*
 * Can the call be served by a state that another call has already?  Then the
 * state is advanced once (variance and stddev of the same column).  By the arguments as they
 * were written: those that are equal only while some function has the body that it has today
 * have states of their own, or the stored states wouldn't fit when it is replaced.
 */
static bool
same_transition(const AggInfo *info, const AggInfo *other)
{
	const Aggref *a = info->aggref;
	const Aggref *b = other->aggref;

	return info->kind == other->kind &&
		info->transfn == other->transfn &&
		info->transtype == other->transtype &&
		info->inverse == other->inverse &&
		info->serialfn == other->serialfn &&
		info->deserialfn == other->deserialfn &&
		info->combinefn == other->combinefn &&
		info->init_null == other->init_null &&
		(info->init_null || strcmp(info->init_text, other->init_text) == 0) &&
		a->aggkind == b->aggkind &&
		a->inputcollid == b->inputcollid &&
		a->aggvariadic == b->aggvariadic &&
		equal(a->aggargtypes, b->aggargtypes) &&
		equal(info->written->args, other->written->args) &&
		equal(a->aggorder, b->aggorder) &&
		equal(a->aggdistinct, b->aggdistinct) &&
		equal(info->written->aggfilter, other->written->aggfilter);
}

static void
init_value(ScTrans *trans, const AggInfo *info)
{
	Oid			input;
	Oid			param;

	trans->init_null = info->init_null;
	if (info->init_null)
		return;
	getTypeInputInfo(info->transtype, &input, &param);
	trans->init_value = OidInputFunctionCall(input, info->init_text, param, -1);
}

/* fcinfo for "function", which lives as long as the current context. */
static FunctionCallInfo
make_fcinfo(ScEngine *engine, FmgrInfo *function, int nargs, Oid collation)
{
	FunctionCallInfo fcinfo = palloc0(SizeForFunctionCallInfo(nargs));

	InitFunctionCallInfoData(*fcinfo, function, nargs, collation,
							 (void *) engine->aggstate, NULL);
	return fcinfo;
}

/*
 * The transition function and its call.  Fails if it is strict and its first input can't be the first
 * state.
 */
static void
compile_transfn(ScEngine *engine, ScTrans *trans, const AggInfo *info)
{
	AggStatePerTrans pertrans = trans->pertrans;
	Expr	   *expr;

	build_aggregate_transfn_expr((Oid *) info->argtypes, info->nargtypes, info->ndirect,
								 info->aggref->aggvariadic, info->transtype,
								 info->aggref->inputcollid, info->transfn,
								 InvalidOid, &expr, NULL);
	fmgr_info(info->transfn, &pertrans->transfn);
	fmgr_info_set_expr((Node *) expr, &pertrans->transfn);
	trans->strict = pertrans->transfn.fn_strict;
	trans->fcinfo = make_fcinfo(engine, &pertrans->transfn, trans->nargs + trans->nfixed + 1,
								info->aggref->inputcollid);
	if (trans->nfixed > 0)
		trans->fcinfo->args[1].value = castNode(Const, linitial_node(TargetEntry, info->aggref->args)->expr)->constvalue;

	/* checked when the aggregate was made, but ALTER FUNCTION may have come */
	if (trans->strict && trans->init_null &&
		(info->nargtypes <= info->ndirect ||
		 !IsBinaryCoercible(info->argtypes[info->ndirect], info->transtype)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("aggregate %s needs to have compatible input type and transition type",
						format_procedure(info->aggref->aggfnoid))));
}

/* The inverse of the transition function, with the same arguments. */
static void
compile_inverse(ScEngine *engine, ScTrans *trans, const AggInfo *info)
{
	Expr	   *transexpr;
	Expr	   *expr;

	if (!OidIsValid(info->inverse))
		return;
	build_aggregate_transfn_expr((Oid *) info->argtypes, info->nargtypes, info->ndirect,
								 info->aggref->aggvariadic, info->transtype,
								 info->aggref->inputcollid, info->transfn,
								 info->inverse, &transexpr, &expr);
	fmgr_info(info->inverse, &trans->inverse);
	fmgr_info_set_expr((Node *) expr, &trans->inverse);
	trans->inverse_fcinfo = make_fcinfo(engine, &trans->inverse, trans->nargs + 1,
										info->aggref->inputcollid);
}

static void
compile_combine(ScEngine *engine, ScTrans *trans)
{
	Oid			type = trans->pertrans->aggtranstype;
	Oid			types[2] = {type, type};
	Oid			collation = trans->pertrans->aggCollation;
	Expr	   *expr;

	build_aggregate_transfn_expr(types, 2, 0, false, type, collation, trans->combinefn,
								 InvalidOid, &expr, NULL);
	fmgr_info(trans->combinefn, &trans->combine);
	fmgr_info_set_expr((Node *) expr, &trans->combine);
	trans->combine_fcinfo = make_fcinfo(engine, &trans->combine, 2, collation);
}

/*
 * Makes the combine function ready: of most states it is only needed if two groups have become
 * equal, so the rights on it are those of that time.
 */
void
sc_combine_compile(ScEngine *engine, ScTrans *trans)
{
	MemoryContext old;

	if (trans->combine_fcinfo != NULL)
		return;
	if (!OidIsValid(trans->combinefn))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("groups of the query have become equal, and aggregate %s has no combine function to make one of them",
						format_procedure(trans->pertrans->aggref->aggfnoid)),
				 errdetail("The type of a key, or a function that compares or hashes it, was changed."),
				 errhint("Undo that change, or give the aggregate a combine function (CREATE OR REPLACE AGGREGATE ... combinefunc), and call stream_ckpt.resume_query(); or drop the query with stream_ckpt.drop_query(), and create it again.")));
	check_support_function(trans->owner, trans->combinefn);
	old = MemoryContextSwitchTo(engine->context);
	compile_combine(engine, trans);
	MemoryContextSwitchTo(old);
}

/* Needs the three functions that choose_kind() asks for. */
static void
compile_serial(ScEngine *engine, ScTrans *trans, const AggInfo *info)
{
	AggStatePerTrans pertrans = trans->pertrans;
	Expr	   *expr;

	build_aggregate_serialfn_expr(info->serialfn, &expr);
	fmgr_info(info->serialfn, &pertrans->serialfn);
	fmgr_info_set_expr((Node *) expr, &pertrans->serialfn);
	pertrans->serialfn_fcinfo = make_fcinfo(engine, &pertrans->serialfn, 1, InvalidOid);

	build_aggregate_deserialfn_expr(info->deserialfn, &expr);
	fmgr_info(info->deserialfn, &pertrans->deserialfn);
	fmgr_info_set_expr((Node *) expr, &pertrans->deserialfn);
	pertrans->deserialfn_fcinfo = make_fcinfo(engine, &pertrans->deserialfn, 2, InvalidOid);
	compile_combine(engine, trans);
}

/*
 * Can a group of a state of kind datum have kept inputs?  No matter whether there is a combinefn
 * now if it is the user's, who can add one: that mustn't change the signature.
 */
static bool
may_keep(const AggInfo *info)
{
	ListCell   *lc;

	if (OidIsValid(info->combinefn) && info->aggref->aggfnoid < FirstNormalObjectId)
		return false;
	foreach(lc, info->aggref->args)
	{
		Oid			type = exprType((Node *) lfirst_node(TargetEntry, lc)->expr);

		/* sc_type_init refuses it; a call of ours has a pointer */
		if (type == RECORDARRAYOID || type == INTERNALOID)
			return false;
	}
	return true;
}

static void
compile_datum(ScEngine *engine, ScTrans *trans, const AggInfo *info)
{
	sc_type_init(&trans->type, info->transtype);
	if (!may_keep(info))
		return;
	sc_inputs_compile(engine, trans);
	engine->has_inputs = true;
	trans->keeps = (engine->keys_can_change || engine->shared || engine->sessions) && !OidIsValid(info->combinefn);
}

/* Fills what support functions may ask for through AggState. */
static void
fill_pertrans(ScTrans *trans, const AggInfo *info)
{
	AggStatePerTrans pertrans = trans->pertrans;

	pertrans->aggref = info->aggref;
	pertrans->aggshared = false;
	pertrans->numInputs = trans->ninputs;
	pertrans->numTransInputs = trans->nargs;
	pertrans->transfn_oid = info->transfn;
	pertrans->aggtranstype = info->transtype;
	pertrans->aggCollation = info->aggref->inputcollid;
	pertrans->initValue = trans->init_value;
	pertrans->initValueIsNull = trans->init_null;
	get_typlenbyval(info->transtype, &pertrans->transtypeLen, &pertrans->transtypeByVal);
	pertrans->transfn_fcinfo = trans->fcinfo;
	if (info->kind == SC_TRANS_SERIAL)
	{
		pertrans->serialfn_oid = info->serialfn;
		pertrans->deserialfn_oid = info->deserialfn;
	}
}

/*
 * The aggregated arguments and FILTER, over the stream's slot.  Of an ordered-set aggregate the direct
 * arguments aren't among them.  If rows of sessions can be taken back the event time comes last.
 */
static void
compile_inputs(ScEngine *engine, ScTrans *trans, const AggInfo *info)
{
	ListCell   *lc;
	int			i = 0;

	/* how best rows are kept is a pointer, which is nothing of a row's */
	trans->nfixed = info->kind == SC_TRANS_INPUTS && engine->def->best != NULL ? 1 : 0;
	trans->ninputs = list_length(info->aggref->args) - trans->nfixed;
	trans->nargs = AGGKIND_IS_ORDERED_SET(info->aggref->aggkind) ?
		trans->ninputs : info->nargtypes - trans->nfixed;
	trans->inputs = palloc0(sizeof(ScExpr) * (trans->ninputs + 1));
	for_each_from(lc, info->aggref->args, trans->nfixed)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);

		sc_expr_compile(engine, &trans->inputs[i++], entry->expr);
	}
	if (engine->retracts && engine->sessions)
		trans->inputs[trans->ninputs++].attno = engine->time_attno;
	if (info->aggref->aggfilter)
		trans->filter = ExecInitExpr(info->aggref->aggfilter, NULL);
}

/* Fills in one of engine->trans, in the engine's memory. */
static void
compile_transition(ScEngine *engine, ScTrans *trans, const AggInfo *info)
{
	trans->kind = info->kind;
	trans->combinefn = info->combinefn;
	trans->owner = info->owner;
	trans->exact = sc_combines_exactly(info->aggref->aggfnoid, info->transfn, info->combinefn);
	trans->pertrans = &engine->aggstate->pertrans[trans - engine->trans];

	compile_inputs(engine, trans, info);
	init_value(trans, info);
	compile_transfn(engine, trans, info);
	compile_inverse(engine, trans, info);
	fill_pertrans(trans, info);
	trans->byval = trans->pertrans->transtypeByVal;

	switch (info->kind)
	{
		case SC_TRANS_DATUM:
			compile_datum(engine, trans, info);
			break;
		case SC_TRANS_SERIAL:
			compile_serial(engine, trans, info);
			sc_type_init(&trans->type, BYTEAOID);
			break;
		case SC_TRANS_INPUTS:
			trans->type.oid = info->transtype;
			trans->type.len = trans->pertrans->transtypeLen;
			trans->type.byval = trans->byval;
			sc_inputs_compile(engine, trans);
			trans->keeps = engine->has_inputs = true;
			break;
	}
}

/*
 * Fills in the final function and the direct arguments of an aggregate call, and what support
 * functions may ask of it.
 */
static void
compile_final(ScEngine *engine, ScAgg *agg, const AggInfo *info, List *direct_args)
{
	AggStatePerAgg peragg = agg->peragg;
	Expr	   *expr;
	ListCell   *lc;
	int			i = 0;

	peragg->aggref = info->aggref;
	peragg->transno = agg->transno;
	peragg->finalfn_oid = info->finalfn;
	peragg->numFinalArgs = (info->finalextra ? info->nargtypes : info->ndirect) + 1;
	get_typlenbyval(info->aggref->aggtype, &peragg->resulttypeLen, &peragg->resulttypeByVal);
	if (OidIsValid(info->finalfn))
	{
		build_aggregate_finalfn_expr((Oid *) info->argtypes, peragg->numFinalArgs,
									 info->transtype, info->aggref->aggtype,
									 info->aggref->inputcollid, info->finalfn, &expr);
		fmgr_info(info->finalfn, &peragg->finalfn);
		fmgr_info_set_expr((Node *) expr, &peragg->finalfn);
	}

	agg->ndirect = info->ndirect;
	agg->direct = palloc0(sizeof(ExprState *) * Max(info->ndirect, 1));
	foreach(lc, direct_args)
		agg->direct[i++] = ExecInitExpr((Expr *) lfirst(lc), NULL);
}

/* The state for aggregate number "aggno": an earlier one's, or a new one. */
static int
find_transition(ScEngine *engine, const AggInfo *infos, int aggno)
{
	for (int other = 0; other < aggno; other++)
	{
		if (same_transition(&infos[aggno], &infos[other]))
		{
			int			transno = engine->aggs[other].transno;

			/* kept inputs are replayed for each aggregate: no shared state */
			if (infos[aggno].kind != SC_TRANS_INPUTS)
				engine->trans[transno].pertrans->aggshared = true;
			return transno;
		}
	}
	compile_transition(engine, &engine->trans[engine->ntrans], &infos[aggno]);
	return engine->ntrans++;
}

/* In the current memory context.  No plan runs with it: only support functions look at it. */
static AggState *
make_aggstate(ScEngine *engine)
{
	AggState   *aggstate = makeNode(AggState);
	int			n = engine->naggs + 1;

	aggstate->aggstrategy = AGG_HASHED;
	aggstate->aggsplit = AGGSPLIT_SIMPLE;
	aggstate->numaggs = engine->naggs;
	aggstate->peragg = palloc0(sizeof(AggStatePerAggData) * n);
	aggstate->pertrans = palloc0(sizeof(AggStatePerTransData) * n);
	aggstate->tmpcontext = engine->tmpcontext;
	aggstate->ss.ps.ps_ExprContext = engine->outcontext;
	aggstate->curaggcontext = engine->replaycontext;
	aggstate->aggcontexts = &aggstate->curaggcontext;
	return aggstate;
}

/* A state that has all rows of a group, whatever its aggregates take of them: that of count(*). */
static int
compile_rows(ScEngine *engine, AggInfo *infos)
{
	AggInfo    *info = &infos[engine->naggs];
	Aggref	   *aggref = makeNode(Aggref);
	ScAggregate call = {.aggref = aggref,.written = aggref};

	aggref->aggfnoid = F_COUNT_;
	aggref->aggtype = INT8OID;
	aggref->aggstar = true;
	aggref->aggkind = AGGKIND_NORMAL;
	aggref->aggno = aggref->aggtransno = -1;
	look_up(engine, info, &call);
	return find_transition(engine, infos, engine->naggs);
}

/* Compiles all aggregates.  The current context is the engine's. */
void
sc_aggregates_compile(ScEngine *engine)
{
	AggInfo    *infos;

	engine->naggs = engine->def->naggs;
	engine->aggstate = make_aggstate(engine);
	engine->trans = palloc0(sizeof(ScTrans) * (engine->naggs + 1));
	engine->aggs = palloc0(sizeof(ScAgg) * Max(engine->naggs, 1));
	infos = palloc0(sizeof(AggInfo) * (engine->naggs + 1));

	for (int i = 0; i < engine->naggs; i++)
	{
		const ScAggregate *call = &engine->def->aggs[i];
		ScAgg	   *agg = &engine->aggs[i];

		look_up(engine, &infos[i], call);
		check_rights(&infos[i]);
		agg->transno = find_transition(engine, infos, i);
		agg->trans = &engine->trans[agg->transno];
		agg->peragg = &engine->aggstate->peragg[i];
		compile_final(engine, agg, &infos[i], call->direct_args);
	}
	if (engine->retracts && engine->sessions)
		engine->rows_transno = compile_rows(engine, infos);
	engine->aggstate->numtrans = engine->ntrans;
	pfree(infos);
}
