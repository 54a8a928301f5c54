/*-------------------------------------------------------------------------
 * commit_time.c
 *	  Recognises stream_ckpt.commit_time(xmin): the event time of streams with processing_time.
 *
 * It is the first argument of a window function, and stands for what the engine has of the transaction.  Run as a plain
 * query it is what track_commit_timestamp has kept, so that the definition stays a query like others.  Nowhere else in a
 * definition is there a commit time.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "nodes/nodeFuncs.h"
#include "query/query_internal.h"
#include "utils/lsyscache.h"

#define COMMIT_TIME	"commit_time"

bool
sc_is_commit_time(Node *node)
{
	const char *name;

	if (!IsA(node, FuncExpr) || get_func_namespace(((FuncExpr *) node)->funcid) != sc_extension_schema())
		return false;
	name = get_func_name(((FuncExpr *) node)->funcid);
	return name != NULL && strcmp(name, COMMIT_TIME) == 0;
}

/* Is it that of the stream's rows? */
static bool
is_of_stream(ScAnalysis *an, FuncExpr *call)
{
	Node	   *arg = linitial(call->args);
	Var		   *var;

	if (IsA(arg, NamedArgExpr))
		arg = (Node *) ((NamedArgExpr *) arg)->arg;
	var = (Var *) arg;
	return IsA(arg, Var) && var->varno == an->stream_varno && var->varlevelsup == 0 &&
		var->varattno == MinTransactionIdAttributeNumber;
}

bool
sc_is_commit_time_argument(ScAnalysis *an, Node *node)
{
	ListCell   *lc;

	if (an->window_call == NULL || an->in_upper || !is_of_stream(an, (FuncExpr *) node))
		return false;
	foreach(lc, an->window_call->args)
	{
		Node	   *arg = lfirst(lc);

		if (IsA(arg, NamedArgExpr) && ((NamedArgExpr *) arg)->argnumber == 0)
			return (Node *) ((NamedArgExpr *) arg)->arg == node;
		if (!IsA(arg, NamedArgExpr) && foreach_current_index(lc) == 0)
			return arg == node;
	}
	return false;
}

void
sc_check_commit_time(ScAnalysis *an, Node *node)
{
	int			location = exprLocation(node);

	if (!is_of_stream(an, (FuncExpr *) node) && !an->in_upper)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the argument of commit_time() must be the stream's column \"xmin\""),
				 errhint("Write stream_ckpt.commit_time(xmin)."),
				 sc_errposition(an, location)));
	sc_refuse_clause(an, location, "commit_time() anywhere but as the first argument of a window function",
					 "Write FROM s, stream_ckpt.tumble(stream_ckpt.commit_time(xmin), '1 minute') w, and use the columns of the window elsewhere.");
}

void
sc_analyze_commit_time(ScAnalysis *an, Node *arg, const char *function)
{
	if (!sc_is_commit_time(arg))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the first argument of %s() must be the commit time of stream \"%s\"", function,
						get_rel_name(an->stream->relid)),
				 errdetail("The stream has processing_time: its event time is the time of the commit."),
				 errhint("Write stream_ckpt.%s(stream_ckpt.commit_time(xmin), ...).", function),
				 sc_errposition(an, exprLocation(arg))));
	an->def->event_time_type = exprType(arg);
}
