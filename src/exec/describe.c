/*-------------------------------------------------------------------------
 * describe.c
 *	  How the states of a compiled query's aggregates are kept, in words: for explain_query().
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_aggregate.h"
#include "exec/exec_internal.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* What orders the inputs of "trans", if anything does. */
static const char *
input_order(const ScTrans *trans, const Aggref *aggref)
{
	if (AGGKIND_IS_ORDERED_SET(aggref->aggkind))
		return ", which it sorts itself";
	if (trans->distinct)
		return ", sorted, each once";
	return trans->nsort > 0 ? ", sorted" : ", in order of arrival";
}

static void
describe_combining(StringInfo text, const ScTrans *trans)
{
	if (OidIsValid(trans->combinefn))
		appendStringInfo(text, ", combined by %s", get_func_name(trans->combinefn));
	else
		appendStringInfoString(text, ", which nothing can combine");
}

/* How rows are taken back, and what each takes if inputs are kept. */
static void
describe_retraction(StringInfo text, const ScTrans *trans)
{
	int			bytes = trans->nbitmap;
	bool		varies = false;

	if (trans->inverse_fcinfo != NULL)
	{
		appendStringInfo(text, "; rows are taken back by %s", get_func_name(trans->inverse.fn_oid));
		return;
	}
	for (int i = 0; i < trans->ninputs; i++)
	{
		/* of a value of varying length, its length */
		bytes += Max(trans->input_types[i].len, 1);
		varies |= trans->input_types[i].len < 0;
	}
	appendStringInfo(text, ", %d bytes%s a row; one that is taken back is one more, with a minus", bytes,
					 varies ? " or more" : "");
}

static void
describe_state(StringInfo text, const ScTrans *trans, const Aggref *aggref)
{
	switch (trans->kind)
	{
		case SC_TRANS_INPUTS:
			appendStringInfo(text, "its inputs%s", input_order(trans, aggref));
			break;
		case SC_TRANS_SERIAL:
			appendStringInfo(text, "serialised by %s", get_func_name(trans->pertrans->serialfn.fn_oid));
			describe_combining(text, trans);
			break;
		case SC_TRANS_DATUM:
			if (trans->keeps)
				appendStringInfoString(text, "its inputs, as groups can be combined and its states can't");
			else
			{
				appendStringInfoString(text, format_type_be(trans->type.oid));
				describe_combining(text, trans);
			}
			break;
	}
}

char *
sc_engine_describe_state(const ScEngine *engine, int aggno)
{
	const ScAgg *agg = &engine->aggs[aggno];
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < aggno && text.len == 0; i++)
	{
		if (engine->aggs[i].transno == agg->transno)
			appendStringInfo(&text, "that of aggregate %d", i + 1);
	}
	if (text.len == 0)
	{
		describe_state(&text, agg->trans, engine->def->aggs[aggno].aggref);
		if (engine->retracts)
			describe_retraction(&text, agg->trans);
	}
	return text.data;
}
