/*-------------------------------------------------------------------------
 * stateless.c
 *	  Queries without groups: a row that passes WHERE is projected, and is a result row at once.
 *
 * There are no panes, so nothing is kept between two rows, no row is late, and event time is nothing to the query.
 * A result row is inserted with the checkpoint that covers its transaction.
 *
 * Of a query in several tasks each row is one task's, by its place in the log: what it is made of isn't looked at, so
 * that an error, too, is one task's alone.  Runs of rows stay together, as those of one message are taken apart anyway.
 *
 * With a window in FROM a row is a result row for each of its windows, with their bounds.
 *
 * If changes of the stream are applied, a row that isn't there any more takes its result row with it: by its key, of which
 * not much more is projected, if WHERE lets it pass as it did when it came.  Nothing is kept of the rows for that, so
 * whether the result has it isn't known here: of one that failed in the projection it hasn't, and deletes nothing.  An
 * UPDATE is both, and the sink makes one of them if the key is the same.  Rows must take effect in the order of the
 * log, so one task has all of them.
 *
 * The rule: what can fail comes before the row is emitted; what was emitted is never taken back but by a later row.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "exec/exec_internal.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"

/* So many rows of a transaction in a row belong to one task */
#define ROUTE_ROWS	64

/* Is it a column of a window, or one of the stream that is in a key of it, or could be in one soon? */
static bool
is_in_deletion(const ScDefinition *def, const Expr *expr)
{
	const Var  *var = (const Var *) expr;

	if (!IsA(var, Var))
		return false;
	return var->varno != SC_STREAM_VARNO || get_typlen(var->vartype) > 0 ||
		(var->varattno > 0 && bms_is_member(var->varattno, def->row_key_columns));
}

/*
 * The target list, in which all is NULL that can't tell rows apart.  The sink knows them by any key of the stream that the
 * result has an index on, which can be another one than when this was compiled; so columns of fixed length are there anyway.
 */
static List *
deletion_target(const ScDefinition *def)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, def->target)
	{
		TargetEntry *tle = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));
		Node	   *expr = (Node *) tle->expr;

		if (!is_in_deletion(def, tle->expr))
			tle->expr = (Expr *) makeNullConst(exprType(expr), exprTypmod(expr), exprCollation(expr));
		result = lappend(result, tle);
	}
	return result;
}

/* After where.c.  The current context is the engine's. */
void
sc_stateless_compile(ScEngine *engine)
{
	ExprContext *context;

	engine->projected_quals = engine->source ? sc_source_quals(engine) : engine->quals;
	engine->result_desc = ExecTypeFromTL(engine->def->target);
	engine->result_slot = MakeSingleTupleTableSlot(engine->result_desc, &TTSOpsVirtual);
	if (sc_assigner_is_shared(&engine->def->window))
		engine->windowcontext = CreateStandaloneExprContext();
	context = engine->windowcontext ? engine->windowcontext : engine->tmpcontext;
	/* with the row type, columns that have changed since are told from those that are read without a check */
	engine->projection = ExecBuildProjectionInfo(engine->def->target, context, engine->result_slot, NULL,
												 engine->stream_desc);
	if (engine->retracts)
		engine->deletion = ExecBuildProjectionInfo(deletion_target(engine->def), context, engine->result_slot, NULL,
												   engine->stream_desc);
}

/*
 * The current row, of which some values aren't there if it was "cut", as a result row, or as one that is to be deleted;
 * NULL: WHERE doesn't let it pass.  "context": that of the projection.
 */
static TupleTableSlot *
project_row(ScEngine *engine, ExprContext *context, bool cut, bool retract)
{
	if (engine->projected_quals != NULL &&
		!(cut ? sc_where_of_cut(engine, engine->projected_quals) : ExecQual(engine->projected_quals, context)))
		return NULL;
	if (cut)
		sc_check_cut_row(engine, retract ? engine->def->row_key_columns : engine->group_attnos);
	return ExecProject(retract ? engine->deletion : engine->projection);
}

static void
emit_row(ScEngine *engine, TupleTableSlot *row, bool retract)
{
	/* where deletes were ignored the result may still have a row that had the key of this one */
	ScResultOp	op = retract ? SC_RESULT_DELETE : engine->retracts ? SC_RESULT_ROW : SC_RESULT_INSERT;

	engine->options.emit_row(engine->options.emit_arg, op, row);
	engine->counters.result_rows++;
}

void
sc_stateless_row(ScEngine *engine, bool cut, bool retract)
{
	TupleTableSlot *row = project_row(engine, engine->tmpcontext, cut, retract);

	if (row == NULL)
		return;
	emit_row(engine, row, retract);
	engine->counters.retracted_rows += retract;
}

/* The current row in each of its windows: is checked, or emitted.  Nothing is left of one when the next one comes. */
static void
project_windows(ScEngine *engine, bool cut, bool retract, bool emit)
{
	int			nrows = 0;

	const ScAssigner *assigner = &engine->def->window;
	ExprContext *context = engine->windowcontext;
	ScWindow	window = sc_assigner_first_window(assigner, engine->span.key);
	MemoryContext old = MemoryContextSwitchTo(context->ecxt_per_tuple_memory);

	context->ecxt_scantuple = engine->tmpcontext->ecxt_scantuple;
	context->ecxt_outertuple = engine->tmpcontext->ecxt_outertuple;
	do
	{
		TupleTableSlot *row;

		engine->window = window;
		sc_engine_restore_window(engine);
		row = project_row(engine, context, cut, retract);
		if (row != NULL && emit)
		{
			emit_row(engine, row, retract);
			nrows++;
		}
		else if (row != NULL)
			engine->options.check_row(engine->options.emit_arg, row);
		ExecClearTuple(engine->result_slot);
		ResetExprContext(context);
	} while (sc_assigner_next_window(assigner, engine->span.key, &window));
	engine->counters.retracted_rows += retract && nrows > 0;
	MemoryContextSwitchTo(old);
}

/*
 * The current row in each of its windows, which are those of the current pane: a result row for each.  Whether they are over
 * is nothing to it.  They can be so many that they aren't kept: if an error is to leave none of them, they are made twice.
 */
void
sc_stateless_windows(ScEngine *engine, bool cut, bool retract)
{
	if (!sc_assigner_is_shared(&engine->def->window))
	{
		sc_stateless_row(engine, cut, retract);
		return;
	}
	if (engine->undo != NULL)
		project_windows(engine, cut, retract, false);
	project_windows(engine, cut, retract, true);
}

/* The result has no rows but those of the table, which are gone. */
void
sc_stateless_truncate(ScEngine *engine)
{
	engine->options.emit_row(engine->options.emit_arg, SC_RESULT_TRUNCATE, ExecStoreAllNullTuple(engine->result_slot));
	engine->counters.result_rows++;
	ExecClearTuple(engine->result_slot);
}

void
sc_stateless_joined(ScEngine *engine, bool emit)
{
	TupleTableSlot *row;

	if (sc_assigner_is_shared(&engine->def->window))
	{
		project_windows(engine, false, false, emit);
		return;
	}
	row = project_row(engine, engine->tmpcontext, false, false);
	if (row != NULL && emit)
		emit_row(engine, row, false);
	else if (row != NULL)
		engine->options.check_row(engine->options.emit_arg, row);
}

bool
sc_engine_passes_by(ScEngine *engine, uint64 transaction, int64 ordinal)
{
	uint64		hash;

	if (engine->all_key_groups)
		return false;
	hash = hash_bytes_uint32_extended((uint32) (ordinal / ROUTE_ROWS), transaction);
	if (sc_is_ours(engine, (uint32) (hash >> 32)))
		return false;
	engine->counters.rows_in += engine->is_first;
	return true;
}
