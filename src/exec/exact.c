/*-------------------------------------------------------------------------
 * exact.c
 *	  Aggregates whose states of some rows, combined with those of the rows before, are exactly the
 *	  state of all of them.
 *
 * Sums of floating-point numbers aren't, nor is what a user's functions do.  Of equal values a min or
 * max keeps always the first, or always the last one, whichever way they are combined.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "exec/exec_internal.h"
#include "utils/fmgroids.h"

typedef struct ExactPair
{
	Oid			transfn;
	Oid			combinefn;
} ExactPair;

static const ExactPair exact_pairs[] = {
	/* count, sum, avg */
	{F_INT8INC, F_INT8PL},
	{F_INT8INC_ANY, F_INT8PL},
	{F_INT2_SUM, F_INT8PL},
	{F_INT4_SUM, F_INT8PL},
	{F_INT2_AVG_ACCUM, F_INT4_AVG_COMBINE},
	{F_INT4_AVG_ACCUM, F_INT4_AVG_COMBINE},
	{F_INT8_AVG_ACCUM, F_INT8_AVG_COMBINE},
	{F_NUMERIC_AVG_ACCUM, F_NUMERIC_AVG_COMBINE},

	/* variance, stddev */
	{F_INT2_ACCUM, F_NUMERIC_POLY_COMBINE},
	{F_INT4_ACCUM, F_NUMERIC_POLY_COMBINE},
	{F_INT8_ACCUM, F_NUMERIC_COMBINE},
	{F_NUMERIC_ACCUM, F_NUMERIC_COMBINE},

	/* bool_and, bool_or, bit_and, bit_or */
	{F_BOOLAND_STATEFUNC, F_BOOLAND_STATEFUNC},
	{F_BOOLOR_STATEFUNC, F_BOOLOR_STATEFUNC},
	{F_INT2AND, F_INT2AND},
	{F_INT2OR, F_INT2OR},
	{F_INT4AND, F_INT4AND},
	{F_INT4OR, F_INT4OR},
	{F_INT8AND, F_INT8AND},
	{F_INT8OR, F_INT8OR},

	/* max, min */
	{F_INT2LARGER, F_INT2LARGER},
	{F_INT2SMALLER, F_INT2SMALLER},
	{F_INT4LARGER, F_INT4LARGER},
	{F_INT4SMALLER, F_INT4SMALLER},
	{F_INT8LARGER, F_INT8LARGER},
	{F_INT8SMALLER, F_INT8SMALLER},
	{F_FLOAT4LARGER, F_FLOAT4LARGER},
	{F_FLOAT4SMALLER, F_FLOAT4SMALLER},
	{F_FLOAT8LARGER, F_FLOAT8LARGER},
	{F_FLOAT8SMALLER, F_FLOAT8SMALLER},
	{F_NUMERIC_LARGER, F_NUMERIC_LARGER},
	{F_NUMERIC_SMALLER, F_NUMERIC_SMALLER},
	{F_TEXT_LARGER, F_TEXT_LARGER},
	{F_TEXT_SMALLER, F_TEXT_SMALLER},
	{F_BPCHAR_LARGER, F_BPCHAR_LARGER},
	{F_BPCHAR_SMALLER, F_BPCHAR_SMALLER},
	{F_DATE_LARGER, F_DATE_LARGER},
	{F_DATE_SMALLER, F_DATE_SMALLER},
	{F_TIME_LARGER, F_TIME_LARGER},
	{F_TIME_SMALLER, F_TIME_SMALLER},
	{F_TIMESTAMP_LARGER, F_TIMESTAMP_LARGER},
	{F_TIMESTAMP_SMALLER, F_TIMESTAMP_SMALLER},
	{F_TIMESTAMPTZ_LARGER, F_TIMESTAMPTZ_LARGER},
	{F_TIMESTAMPTZ_SMALLER, F_TIMESTAMPTZ_SMALLER},
	{F_INTERVAL_LARGER, F_INTERVAL_LARGER},
	{F_INTERVAL_SMALLER, F_INTERVAL_SMALLER},
	{F_OIDLARGER, F_OIDLARGER},
	{F_OIDSMALLER, F_OIDSMALLER},
	{F_CASHLARGER, F_CASHLARGER},
	{F_CASHSMALLER, F_CASHSMALLER},
	{F_NETWORK_LARGER, F_NETWORK_LARGER},
	{F_NETWORK_SMALLER, F_NETWORK_SMALLER},
	{F_PG_LSN_LARGER, F_PG_LSN_LARGER},
	{F_PG_LSN_SMALLER, F_PG_LSN_SMALLER},
};

/* A user's aggregate of these functions may have an initial value that counts twice. */
bool
sc_combines_exactly(Oid aggregate, Oid transfn, Oid combinefn)
{
	if (aggregate >= FirstNormalObjectId)
		return false;
	for (int i = 0; i < lengthof(exact_pairs); i++)
	{
		if (exact_pairs[i].transfn == transfn && exact_pairs[i].combinefn == combinefn)
			return true;
	}
	return false;
}
