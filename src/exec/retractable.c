/*-------------------------------------------------------------------------
 * retractable.c
 *	  From which states rows can be taken back, and how.
 *
 * An aggregate has a state that rows can be taken back from if its transition function has an inverse, it always
 * gives what it would be without the row, none of the two can fail on what its type holds, and a count in the state tells
 * that it has no rows any more, so that it is as new then.  What the server has for moving aggregates isn't all of
 * that kind: sums of money have no count, those of intervals can be out of range, those of floating-point numbers have no inverse,
 * and that of numeric gives up if the value with the largest scale leaves, as it doesn't know the next one.  So numeric is of that
 * kind only if all values have one scale.  Of all other aggregates the inputs are kept (minus.c).
 *
 * The rule: a method is chosen by the definition alone, never by rows.  It is part of the signature.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "exec/exec_internal.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/numeric.h"

typedef struct Inverse
{
	Oid			transfn;
	Oid			inverse;
	ScRetractMethod method;
	bool		fixed_scale;	/* if all values have one scale */
} Inverse;

static const Inverse inverses[] = {
	/* count */
	{F_INT8INC, F_INT8DEC, SC_RETRACT_INVERSE, false},
	{F_INT8INC_ANY, F_INT8DEC_ANY, SC_RETRACT_INVERSE, false},

	/* sum and avg; plain sums of int2 and int4 don't know whether they have rows, the moving ones are those of avg */
	{F_INT2_SUM, F_INT2_AVG_ACCUM_INV, SC_RETRACT_MOVING, false},
	{F_INT4_SUM, F_INT4_AVG_ACCUM_INV, SC_RETRACT_MOVING, false},
	{F_INT2_AVG_ACCUM, F_INT2_AVG_ACCUM_INV, SC_RETRACT_INVERSE, false},
	{F_INT4_AVG_ACCUM, F_INT4_AVG_ACCUM_INV, SC_RETRACT_INVERSE, false},
	{F_INT8_AVG_ACCUM, F_INT8_AVG_ACCUM_INV, SC_RETRACT_INVERSE, false},
	{F_NUMERIC_AVG_ACCUM, F_NUMERIC_ACCUM_INV, SC_RETRACT_INVERSE, true},

	/* variance, stddev */
	{F_INT2_ACCUM, F_INT2_ACCUM_INV, SC_RETRACT_INVERSE, false},
	{F_INT4_ACCUM, F_INT4_ACCUM_INV, SC_RETRACT_INVERSE, false},
	{F_INT8_ACCUM, F_INT8_ACCUM_INV, SC_RETRACT_INVERSE, false},
	{F_NUMERIC_ACCUM, F_NUMERIC_ACCUM_INV, SC_RETRACT_INVERSE, true}
};

static bool fixed_scale(const Node *node, int *scale);

/* The scale that a type modifier of numeric stands for; -1: none.  A negative one is kept as 0. */
static int
scale_of_typmod(int32 typmod)
{
	int			scale;

	if (typmod < (int32) VARHDRSZ)
		return -1;
	/* 11 bits with a sign; before version 15 there were no negative ones, and 16 bits, of which no more are used */
	scale = (((typmod - VARHDRSZ) & 0x7FF) ^ 1024) - 1024;
	return Max(scale, 0);
}

/* The scale of a product is the sum of those of its factors; of a sum the larger one. */
static bool
scale_of_call(Oid function, const List *args, int *scale)
{
	const Node *first = list_length(args) > 0 ? linitial(args) : NULL;
	const Node *second = list_length(args) > 1 ? lsecond(args) : NULL;
	int			left;
	int			right;

	switch (function)
	{
		case F_NUMERIC_INT2:
		case F_NUMERIC_INT4:
		case F_NUMERIC_INT8:
			*scale = 0;
			return true;
		case F_NUMERIC_ABS:
		case F_ABS_NUMERIC:
		case F_NUMERIC_UMINUS:
		case F_NUMERIC_UPLUS:
			return fixed_scale(first, scale);
		case F_NUMERIC_ADD:
		case F_NUMERIC_SUB:
		case F_NUMERIC_MUL:
			if (!fixed_scale(first, &left) || !fixed_scale(second, &right))
				return false;
			*scale = function == F_NUMERIC_MUL ? left + right : Max(left, right);
			return true;
		default:
			return false;
	}
}

/* Have all values of an expression of type numeric this many digits behind the point? */
static bool
fixed_scale(const Node *node, int *scale)
{
	switch (nodeTag(node))
	{
		case T_Var:
			*scale = scale_of_typmod(((const Var *) node)->vartypmod);
			return *scale >= 0;
		case T_Const:
			{
				const Const *value = (const Const *) node;

				if (value->constisnull ||
					numeric_is_nan(DatumGetNumeric(value->constvalue)) || numeric_is_inf(DatumGetNumeric(value->constvalue)))
					return false;
				*scale = DatumGetInt32(DirectFunctionCall1(numeric_scale, value->constvalue));
				return true;
			}
		case T_RelabelType:
			/* the same value, whatever it is called */
			return exprType((Node *) ((const RelabelType *) node)->arg) == NUMERICOID &&
				fixed_scale((const Node *) ((const RelabelType *) node)->arg, scale);
		case T_FuncExpr:
			{
				const FuncExpr *call = (const FuncExpr *) node;
				const Node *typmod = list_length(call->args) > 1 ? lsecond(call->args) : NULL;

				if (call->funcid != F_NUMERIC_NUMERIC_INT4)
					return scale_of_call(call->funcid, call->args, scale);
				if (!IsA(typmod, Const) || ((const Const *) typmod)->constisnull)
					return false;
				*scale = scale_of_typmod(DatumGetInt32(((const Const *) typmod)->constvalue));
				return *scale >= 0;
			}
		case T_OpExpr:
			return scale_of_call(((const OpExpr *) node)->opfuncid, ((const OpExpr *) node)->args, scale);
		default:
			return false;
	}
}

/*
 * How rows are taken back from the states of an aggregate call, whose arguments are over the stream's columns; and by which
 * function, if it isn't SC_RETRACT_INPUTS.
 */
ScRetractMethod
sc_retract_method(const Aggref *aggref, Oid transfn, Oid *inverse)
{
	int			scale;

	*inverse = InvalidOid;
	if (aggref->aggfnoid >= FirstNormalObjectId || AGGKIND_IS_ORDERED_SET(aggref->aggkind) ||
		aggref->aggdistinct != NIL || aggref->aggorder != NIL)
		return SC_RETRACT_INPUTS;
	for (int i = 0; i < lengthof(inverses); i++)
	{
		const Inverse *entry = &inverses[i];

		if (entry->transfn != transfn)
			continue;
		if (entry->fixed_scale &&
			!fixed_scale((const Node *) linitial_node(TargetEntry, aggref->args)->expr, &scale))
			return SC_RETRACT_INPUTS;
		*inverse = entry->inverse;
		return entry->method;
	}
	return SC_RETRACT_INPUTS;
}
