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
	engine->result_desc = ExecTypeFromTL(engine->def->target);
	engine->result_slot = MakeSingleTupleTableSlot(engine->result_desc, &TTSOpsVirtual);
	/* with the row type, columns that have changed since are told from those that are read without a check */
	engine->projection = ExecBuildProjectionInfo(engine->def->target, engine->tmpcontext, engine->result_slot,
												 NULL, engine->stream_desc);
	if (sc_assigner_is_shared(&engine->def->window))
		engine->window_row = MakeSingleTupleTableSlot(engine->result_desc, &TTSOpsMinimalTuple);
}

/*
 * The current row, of which some values aren't there if it was "cut", as a result row; NULL: WHERE doesn't let it pass.
 * The current context is the row's.
 */
static TupleTableSlot *
project_row(ScEngine *engine, bool cut)
{
	if (engine->quals != NULL &&
		!(cut ? sc_where_of_cut(engine, engine->quals) : ExecQual(engine->quals, engine->tmpcontext)))
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
	TupleTableSlot *row = project_row(engine, cut);

	if (row != NULL)
		emit_row(engine, row);
}

/*
 * The current row in each of its windows, which are those of the current pane: a result row for each.  Whether they are over
 * is nothing to it.
 */
void
sc_stateless_windows(ScEngine *engine, bool cut)
{
	const ScAssigner *assigner = &engine->def->window;
	ScWindow	window = sc_assigner_first_window(assigner, engine->span.key);
	List	   *rows = NIL;
	ListCell   *lc;

	if (!sc_assigner_is_shared(assigner))
	{
		sc_stateless_row(engine, cut);
		return;
	}
	do
	{
		TupleTableSlot *row;

		engine->window = window;
		sc_engine_restore_window(engine);
		row = project_row(engine, cut);
		if (row != NULL)
			rows = lappend(rows, ExecCopySlotMinimalTuple(row));
	} while (sc_assigner_next_window(assigner, engine->span.key, &window));
	foreach(lc, rows)
	{
		ExecStoreMinimalTuple(lfirst(lc), engine->window_row, false);
		slot_getallattrs(engine->window_row);
		emit_row(engine, engine->window_row);
	}
	ExecClearTuple(engine->window_row);
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
