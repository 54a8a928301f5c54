/*-------------------------------------------------------------------------
 * source_plan.c
 *	  Plans the source query of a definition (source.h), as often as what it reads has changed.
 *
 * The server's own plan cache takes trees that have no text only since 18, so a plan is kept by whoever runs it
 * (exec/source.c), who locks its relations and looks whether it is still right.
 *
 * Views are put into the query here, each time anew, so what creation checks of an expression is checked of theirs here.
 * Not of the conditions that row-level security adds: those are the table's, and may depend on the role that reads.
 */
#include "postgres.h"

#include "access/attnum.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "jit/jit.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "query/query_internal.h"
#include "query/source.h"
#include "rewrite/rewriteHandler.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

/* Nobody's setting decides whether the owner sees rows that he mustn't. */
static int
begin_row_security(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("row_security", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

Query *
sc_source_rewrite(const ScSource *source)
{
	Query	   *query = copyObject(source->query);
	int			level = begin_row_security();
	List	   *rewritten;

	AcquireRewriteLocks(query, true, false);
	rewritten = QueryRewrite(query);
	AtEOXact_GUC(true, level);
	if (list_length(rewritten) != 1)
		elog(ERROR, "a source query was rewritten to %d", list_length(rewritten));
	return linitial_node(Query, rewritten);
}

/*
 * What is joined with each message is in memory, and the server's costs are those of disks: by these it would read tables of
 * a hundred thousand rows rather than look up a thousand.
 */
static int
begin_costs(void)
{
	static const char *const settings[] = {"seq_page_cost", "random_page_cost"};
	int			level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i], "0.1", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* Their transactions on other servers would be everybody's in a task.  Only the planner finds partitions. */
static void
refuse_foreign_partitions(const PlannedStmt *plan)
{
	ListCell   *lc;

	foreach(lc, plan->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_FOREIGN_TABLE)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the stream is joined with foreign table \"%s\"", get_rel_name(rte->relid)),
					 errdetail("It is a partition, or inherits, of a table that the definition reads."),
					 errhint("Detach it and call stream_ckpt.resume_query(); or drop the query and create it without that table.")));
	}
}

PlannedStmt *
sc_source_plan(const ScSource *source, double nrows)
{
	Query	   *query = sc_source_rewrite(source);
	PlannedStmt *plan;

	int			level;

	sc_check_rewritten(query);
	rt_fetch(source->varno, query->rtable)->enrtuples = nrows;
	level = begin_costs();
	plan = sc_planner(query, "stream_ckpt: what the stream is joined with", 0, NULL);
	AtEOXact_GUC(true, level);
	refuse_foreign_partitions(plan);
	/* compiling it each time would take longer than it runs */
	plan->jitFlags = PGJIT_NONE;
	return plan;
}

/* ---------- what can't be read ---------- */

void
sc_check_source_query(ScAnalysis *an, Query *query)
{
	ListCell   *lc;

	if (query->commandType != CMD_SELECT)
		sc_refuse_clause(an, sc_relation_location(an, rt_fetch(query->resultRelation, query->rtable)->relid),
						 "a statement other than SELECT", "A continuous query writes nothing but its result.");
	if (query->rowMarks != NIL)
	{
		const RowMarkClause *mark = linitial_node(RowMarkClause, query->rowMarks);

		sc_refuse_clause(an, sc_relation_location(an, rt_fetch(mark->rti, query->rtable)->relid),
						 "a row lock (FOR UPDATE, FOR SHARE)", "Leave it out: a continuous query locks no rows.");
	}
	foreach(lc, query->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->tablesample != NULL)
			sc_refuse_clause(an, sc_relation_location(an, rte->relid), "TABLESAMPLE", "Choose rows by a condition in WHERE.");
		/* its transaction on another server would be everybody's in a task */
		if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_FOREIGN_TABLE)
			sc_refuse_clause(an, sc_relation_location(an, rte->relid), "a join with a foreign table",
							 "Keep its rows in a table or a materialized view of this database, and join that.");
	}
}
