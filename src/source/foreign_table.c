/*-------------------------------------------------------------------------
 * foreign_table.c
 *	  The foreign-data wrapper of log streams: what can be planned, and what is
 *	  refused.
 *
 * Rows go in (foreign_insert.c) and don't come out: a stream has no rows to scan,
 * change or truncate.  Scans are planned all the same, and fail when they are
 * asked for a row: EXPLAIN, views, LIMIT 0 and WITH NO DATA work, so that the
 * definition of a continuous query can be a view over a stream.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/sqlfunc.h"
#include "executor/executor.h"
#include "nodes/plannodes.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "source/foreign_internal.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(stream_ckpt_fdw_handler);

void
sc_refuse_on_log_stream(const char *what, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot %s stream \"%s\"", what, name),
			 errdetail("Stream \"%s\" keeps its rows in the write-ahead log only, until its continuous queries have read them.",
					   name),
			 errhint("Read the result tables of continuous queries. To keep the rows too, use a table, with stream_ckpt.attach_stream().")));
	pg_unreachable();
}

/* ---------- scans ---------- */

static void
get_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	rel->rows = 1;
}

static void
get_paths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	add_path(rel, (Path *) sc_create_foreignscan_path(root, rel, 0.0));
}

static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *best_path,
		 List *tlist, List *clauses, Plan *outer_plan)
{
	return make_foreignscan(tlist, extract_actual_clauses(clauses, false), rel->relid,
							NIL, NIL, NIL, NIL, outer_plan);
}

static void
begin_scan(ForeignScanState *node, int eflags)
{
}

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	sc_refuse_on_log_stream("read from",
							RelationGetRelationName(node->ss.ss_currentRelation));
	return NULL;
}

static void
rescan(ForeignScanState *node)
{
}

static void
end_scan(ForeignScanState *node)
{
}

/* ---------- changes ---------- */

static int
is_updatable(Relation rel)
{
	return 1 << CMD_INSERT;
}

/* INSERT passes; its state needs nothing of the plan. */
static List *
plan_modify(PlannerInfo *root, ModifyTable *plan, Index relation, int subplan)
{
	char	   *name = get_rel_name(planner_rt_fetch(relation, root)->relid);

	if (plan->operation == CMD_UPDATE)
		sc_refuse_on_log_stream("update rows of", name);
	if (plan->operation == CMD_DELETE)
		sc_refuse_on_log_stream("delete rows of", name);
	if (plan->operation != CMD_INSERT)
		sc_refuse_on_log_stream("merge rows into", name);
	if (plan->onConflictAction != ONCONFLICT_NONE)
		sc_refuse_on_log_stream("use ON CONFLICT with", name);
	return NIL;
}

static void
refuse_truncate(List *rels, DropBehavior behavior, bool restart_seqs)
{
	sc_refuse_on_log_stream("truncate", RelationGetRelationName((Relation) linitial(rels)));
}

Datum
stream_ckpt_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = get_rel_size;
	routine->GetForeignPaths = get_paths;
	routine->GetForeignPlan = get_plan;
	routine->BeginForeignScan = begin_scan;
	routine->IterateForeignScan = iterate_scan;
	routine->ReScanForeignScan = rescan;
	routine->EndForeignScan = end_scan;
	routine->IsForeignRelUpdatable = is_updatable;
	routine->PlanForeignModify = plan_modify;
	routine->ExecForeignTruncate = refuse_truncate;
	sc_foreign_insert_callbacks(routine);
	PG_RETURN_POINTER(routine);
}
