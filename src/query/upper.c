/*-------------------------------------------------------------------------
 * upper.c
 *	  Plans what a definition has above its core level (ScUpper).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "jit/jit.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "query/query_internal.h"
#include "utils/lsyscache.h"

/* Refuses what a query can't be that has more than a core level. */
static void
check_emission(ScAnalysis *an)
{
	if (!sc_assigner_has_windows(&an->def->window))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("window functions, subqueries, WITH and DISTINCT above GROUP BY need a window in a continuous query"),
				 errdetail("They are computed once for each window, when that is over; without one nothing ever is."),
				 errhint("Create the query without them, and make a plain view over its result table: CREATE VIEW ... AS SELECT ... FROM <result>. Or add a window to FROM: stream_ckpt.tumble(event_time, '1 minute') w, and group by w.window_start."),
				 sc_errposition(an, exprLocation((Node *) an->upper->targetList))));
	if (an->def->window.kind == SC_WINDOW_SESSION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("window functions, subqueries, WITH and DISTINCT above GROUP BY are not supported with session()"),
				 errdetail("They are computed once for each window, and sessions of different keys are over at different times."),
				 errhint("Create the query without them, and make a plain view over its result table: CREATE VIEW ... AS SELECT ... FROM <result>."),
				 sc_errposition(an, exprLocation((Node *) an->upper->targetList))));
}

/*
 * Relations in the range table that nothing refers to: a view's rule has two of them (before 16).  The executor would
 * want privileges on them.
 */
static void
forget_relations(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		RangeTblEntry *nothing;

		if (rte->rtekind != RTE_RELATION)
			continue;
		nothing = makeNode(RangeTblEntry);
		nothing->rtekind = RTE_RESULT;
		nothing->eref = rte->eref;
		*rte = *nothing;
	}
}

/* Fills in an->def->upper and the result's window column.  Refuses what isn't window-local. */
void
sc_plan_upper(ScAnalysis *an)
{
	ScUpper    *upper = palloc0(sizeof(ScUpper));
	ListCell   *lc;

	if (an->def->stateless)
		sc_refuse_clause(an, an->core_location, "a SELECT over the stream without GROUP BY below another one",
						 "Write WHERE, expressions and GROUP BY into one SELECT with the stream itself in FROM; what is above it can have subqueries, WITH and window functions.");
	an->in_upper = true;
	check_emission(an);
	sc_check_upper_expressions(an);
	sc_check_window_local(an);
	sc_note_upper_dependencies(an);
	foreach(lc, an->upper->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			upper->target = lappend(upper->target, copyObject(target));
	}
	forget_relations(an->upper);
	upper->plan = sc_planner(an->upper, "stream_ckpt: what is above the groups", 0, NULL);
	/* the plan is kept: nobody would lock them, nor plan again when they change */
	if (upper->plan->relationOids != NIL)
		sc_refuse_clause(an, exprLocation((Node *) an->upper->targetList),
						 psprintf("a function in FROM that reads table \"%s\"", get_rel_name(linitial_oid(upper->plan->relationOids))),
						 "Join the table in the SELECT over the stream, below GROUP BY; or join the result table when you read it.");
	/* compiling it each time would take longer than it runs */
	upper->plan->jitFlags = PGJIT_NONE;
	an->def->upper = upper;
}
