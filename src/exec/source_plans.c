/*-------------------------------------------------------------------------
 * source_plans.c
 *	  The plans that join rows of the stream (source.c): one for few rows and one for many.
 *
 * They are kept; each run locks what they read, and has them made again when the server has told of a change, or when a
 * table has grown to another size.
 */
#include "postgres.h"

#include "access/relation.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "catalog/pg_class.h"
#include "exec/source_internal.h"
#include "miscadmin.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* How often the sizes of tables are looked at */
#define LOOK_MS			1000

static void
forget_plan(ScSourcePlan *plan)
{
	MemoryContext context = plan->context;

	plan->statement = NULL;
	plan->blocks = NULL;
	plan->context = NULL;
	if (context != NULL)
		MemoryContextDelete(context);
}

/* Of a table; others have none. */
static BlockNumber
count_blocks(const RangeTblEntry *rte)
{
	Relation	relation;
	BlockNumber result = 0;

	if (rte->rtekind != RTE_RELATION || (rte->relkind != RELKIND_RELATION && rte->relkind != RELKIND_MATVIEW))
		return 0;
	relation = try_relation_open(rte->relid, NoLock);
	if (relation == NULL)
		return 0;
	result = RelationGetNumberOfBlocks(relation);
	relation_close(relation, NoLock);
	return result;
}

void
sc_source_make_plan(ScEngine *engine, ScSourcePlan *plan, double nrows)
{
	MemoryContext old;
	ListCell   *lc;

	forget_plan(plan);
	plan->context = AllocSetContextCreate(engine->context, "stream_ckpt source plan", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(plan->context);
	/* what is told from here on may not be in it */
	plan->stale = false;
	plan->role = GetUserId();
	plan->looked_at = sc_moment_now();
	plan->statement = sc_source_plan(engine->source->def, nrows);
	plan->blocks = palloc(sizeof(BlockNumber) * list_length(plan->statement->rtable));
	foreach(lc, plan->statement->rtable)
		plan->blocks[foreach_current_index(lc)] = count_blocks(lfirst_node(RangeTblEntry, lc));
	MemoryContextSwitchTo(old);
}

/* The same in a task: waits for locks are bounded. */
static void
make_plan_in_time(ScEngine *engine, ScSourcePlan *plan, double nrows)
{
	int			level = NewGUCNestLevel();

	sc_limit_add(SC_LIMIT_COMPILE);
	sc_lock_time_set_timeout();
	sc_source_make_plan(engine, plan, nrows);
	AtEOXact_GUC(true, level);
}

/* Is a table of another size than the plan was made for?  Looks now and then. */
static bool
has_outgrown(ScSourcePlan *plan)
{
	ListCell   *lc;

	if (!sc_moment_is_past(plan->looked_at, LOOK_MS))
		return false;
	plan->looked_at = sc_moment_now();
	foreach(lc, plan->statement->rtable)
	{
		BlockNumber before = plan->blocks[foreach_current_index(lc)];
		BlockNumber now = count_blocks(lfirst_node(RangeTblEntry, lc));

		if (now / 2 > before + 4 || before / 2 > now + 4)
			return true;
	}
	return false;
}

static void
lock_relations(const PlannedStmt *statement)
{
	ListCell   *lc;

	foreach(lc, statement->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		/* views, too, which 16 and later name in the subqueries that were made of them */
		if (rte->rtekind == RTE_RELATION || (rte->rtekind == RTE_SUBQUERY && OidIsValid(rte->relid)))
			sc_lock_time_relation(rte->relid, rte->rellockmode);
	}
}

PlannedStmt *
sc_source_get_plan(ScEngine *engine, int nrows)
{
	bool		few = nrows <= SC_SOURCE_FEW_ROWS;
	ScSourcePlan *plan = &engine->source->plans[few ? 0 : 1];

	for (;;)
	{
		if (plan->statement == NULL || plan->stale || plan->role != GetUserId())
			make_plan_in_time(engine, plan, few ? SC_SOURCE_PLANNED_FEW : SC_SOURCE_MANY_ROWS);
		/* hears of changes */
		lock_relations(plan->statement);
		if (!plan->stale && !has_outgrown(plan))
			return plan->statement;
		plan->stale = true;
	}
}

void
sc_engine_source_changed(ScEngine *engine, Oid relid)
{
	for (int i = 0; engine->source != NULL && i < lengthof(engine->source->plans); i++)
	{
		ScSourcePlan *plan = &engine->source->plans[i];

		if (!OidIsValid(relid) || plan->statement == NULL || list_member_oid(plan->statement->relationOids, relid))
			plan->stale = true;
	}
}
