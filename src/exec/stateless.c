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
 * The rule: what can fail comes before the row is emitted; what was emitted of a row is never taken back.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "exec/exec_internal.h"

/* So many rows of a transaction in a row belong to one task */
#define ROUTE_ROWS	64

/* After where.c.  The current context is the engine's. */
void
sc_stateless_compile(ScEngine *engine)
{
	engine->projected_quals = engine->source ? sc_source_quals(engine) : engine->quals;
	engine->result_desc = ExecTypeFromTL(engine->def->target);
	engine->result_slot = MakeSingleTupleTableSlot(engine->result_desc, &TTSOpsVirtual);
	if (sc_assigner_is_shared(&engine->def->window))
		engine->windowcontext = CreateStandaloneExprContext();
	/* with the row type, columns that have changed since are told from those that are read without a check */
	engine->projection = ExecBuildProjectionInfo(engine->def->target,
												 engine->windowcontext ? engine->windowcontext : engine->tmpcontext,
												 engine->result_slot, NULL, engine->stream_desc);
}

/*
 * The current row, of which some values aren't there if it was "cut", as a result row; NULL: WHERE doesn't let it pass.
 * "context": that of the projection.
 */
static TupleTableSlot *
project_row(ScEngine *engine, ExprContext *context, bool cut)
{
	if (engine->projected_quals != NULL &&
		!(cut ? sc_where_of_cut(engine, engine->projected_quals) : ExecQual(engine->projected_quals, context)))
		return NULL;
	if (cut)
		sc_check_cut_row(engine, engine->group_attnos);
	return ExecProject(engine->projection);
}

static void
emit_row(ScEngine *engine, TupleTableSlot *row)
{
	engine->options.emit_row(engine->options.emit_arg, SC_RESULT_INSERT, row);
	engine->counters.result_rows++;
}

void
sc_stateless_row(ScEngine *engine, bool cut)
{
	TupleTableSlot *row = project_row(engine, engine->tmpcontext, cut);

	if (row != NULL)
		emit_row(engine, row);
}

/* The current row in each of its windows: is checked, or emitted.  Nothing is left of one when the next one comes. */
static void
project_windows(ScEngine *engine, bool cut, bool emit)
{
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
		row = project_row(engine, context, cut);
		if (row != NULL && emit)
			emit_row(engine, row);
		else if (row != NULL)
			engine->options.check_row(engine->options.emit_arg, row);
		ExecClearTuple(engine->result_slot);
		ResetExprContext(context);
	} while (sc_assigner_next_window(assigner, engine->span.key, &window));
	MemoryContextSwitchTo(old);
}

/*
 * The current row in each of its windows, which are those of the current pane: a result row for each.  Whether they are over
 * is nothing to it.  They can be so many that they aren't kept: if an error is to leave none of them, they are made twice.
 */
void
sc_stateless_windows(ScEngine *engine, bool cut)
{
	if (!sc_assigner_is_shared(&engine->def->window))
	{
		sc_stateless_row(engine, cut);
		return;
	}
	if (engine->undo != NULL)
		project_windows(engine, cut, false);
	project_windows(engine, cut, true);
}

void
sc_stateless_joined(ScEngine *engine, bool emit)
{
	TupleTableSlot *row;

	if (sc_assigner_is_shared(&engine->def->window))
	{
		project_windows(engine, false, emit);
		return;
	}
	row = project_row(engine, engine->tmpcontext, false);
	if (row != NULL && emit)
		emit_row(engine, row);
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
