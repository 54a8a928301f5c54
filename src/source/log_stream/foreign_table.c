/*-------------------------------------------------------------------------
 * foreign_table.c
 *	  The foreign-data wrapper of log streams: what can be planned, and what is
 *	  refused.
 *
 * Rows go in (foreign_insert.c) and don't come out: a stream has no rows to scan,
 * change or truncate.  Scans are planned all the same, and fail when they are
 * asked for a row: EXPLAIN, views, LIMIT 0 and WITH NO DATA work, so that the
 * definition of a continuous query can be a view over a stream.  So are UPDATE and
 * DELETE of a partitioned table with a stream among its partitions, which a generic
 * plan can prune only when it runs.
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
#include "source/log_stream/foreign_internal.h"
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

/* Always raises an error, in the words of the command. */
static void
refuse_command(CmdType command, const char *name)
{
	switch (command)
	{
		case CMD_UPDATE:
			sc_refuse_on_log_stream("update rows of", name);
		case CMD_DELETE:
			sc_refuse_on_log_stream("delete rows of", name);
		case CMD_SELECT:
			sc_refuse_on_log_stream("read from", name);
		default:
			sc_refuse_on_log_stream("merge rows into", name);
	}
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

/* fdw_private: the command that would get the rows, for the error. */
static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *best_path,
		 List *tlist, List *clauses, Plan *outer_plan)
{
	bool		is_target = bms_is_member(rel->relid, root->all_result_relids);
	CmdType		command = is_target ? root->parse->commandType : CMD_SELECT;

	return make_foreignscan(tlist, extract_actual_clauses(clauses, false), rel->relid,
							NIL, list_make1_int(command), NIL, NIL, outer_plan);
}

static void
begin_scan(ForeignScanState *node, int eflags)
{
}

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;

	refuse_command(linitial_int(plan->fdw_private),
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

/*
 * The executor asks this of every result relation in the plan, also of those that it prunes
 * or finds no row in.
 */
static int
is_updatable(Relation rel)
{
	if (rel->rd_rel->relispartition)
		return 1 << CMD_INSERT | 1 << CMD_UPDATE | 1 << CMD_DELETE;
	return 1 << CMD_INSERT;
}

/* INSERT passes, and a partition of the target; their state needs nothing of the plan. */
static List *
plan_modify(PlannerInfo *root, ModifyTable *plan, Index relation, int subplan)
{
	char	   *name = get_rel_name(planner_rt_fetch(relation, root)->relid);

	if (plan->operation != CMD_INSERT && relation == root->parse->resultRelation)
		refuse_command(plan->operation, name);
	if (plan->onConflictAction != ONCONFLICT_NONE)
		sc_refuse_on_log_stream("use ON CONFLICT with", name);
	return NIL;
}

/* Both need a row that the scan has returned, and it returns none. */
static TupleTableSlot *
exec_update(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
			TupleTableSlot *plan_slot)
{
	refuse_command(CMD_UPDATE, RelationGetRelationName(rinfo->ri_RelationDesc));
	return NULL;
}

static TupleTableSlot *
exec_delete(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
			TupleTableSlot *plan_slot)
{
	refuse_command(CMD_DELETE, RelationGetRelationName(rinfo->ri_RelationDesc));
	return NULL;
}

static void
refuse_truncate(List *rels, DropBehavior behavior, bool restart_seqs)
{
	sc_refuse_on_log_stream("truncate", RelationGetRelationName((Relation) linitial(rels)));
}

/* The wrapper's callbacks: plans of everything, execution of inserts only. */
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
	routine->ExecForeignUpdate = exec_update;
	routine->ExecForeignDelete = exec_delete;
	routine->ExecForeignTruncate = refuse_truncate;
	sc_foreign_insert_callbacks(routine);
	PG_RETURN_POINTER(routine);
}
