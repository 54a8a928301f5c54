/*-------------------------------------------------------------------------
 * expr.c
 *	  Compiling the source part's expressions: plain stream columns are read
 *	  straight from the row's slot, all others through ExprState.
 *
 * A plain column is read without the checks that ExprState makes at its first
 * use, so they are made here: the column must exist with the type that the
 * definition saw.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"

/* Raises an error unless the stream's column is what "var" expects. */
static void
check_column(ScEngine *engine, const Var *var)
{
	Form_pg_attribute att;

	if (var->varattno > engine->stream_desc->natts)
		elog(ERROR, "stream has no column %d", var->varattno);
	att = TupleDescAttr(engine->stream_desc, var->varattno - 1);
	if (att->attisdropped)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column %d of the stream has been dropped", var->varattno)));
	if (att->atttypid != var->vartype)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of the stream has another type than in the definition",
						NameStr(att->attname)),
				 errdetail("The stream has type %s, the definition expects %s.",
						   format_type_be(att->atttypid), format_type_be(var->vartype))));
}

/* The current context is the engine's. */
void
sc_expr_compile(ScEngine *engine, ScExpr *expr, Expr *node)
{
	Expr	   *bare = node;

	while (IsA(bare, RelabelType))
		bare = ((RelabelType *) bare)->arg;

	expr->attno = 0;
	expr->state = NULL;
	if (IsA(bare, Var))
	{
		Var		   *var = (Var *) bare;

		if (var->varno == SC_STREAM_VARNO && var->varattno > 0)
		{
			check_column(engine, var);
			expr->attno = var->varattno;
			engine->last_attno = Max(engine->last_attno, var->varattno);
			return;
		}
	}
	expr->state = ExecInitExpr(node, NULL);
}
