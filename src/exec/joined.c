/*-------------------------------------------------------------------------
 * joined.c
 *	  Rows of the stream that are joined (source.c), in their order: what is the matter with each is told as engine.c tells it of
 *	  others, and its joined rows go to their groups, or are projected.
 *
 * The order for every row: WHERE on the stream's columns, timeless, window, late, and only then what WHERE or joining it raised
 * as an error; so a late row is that, whatever it would be joined with.
 *
 * With undo an error takes all of the row's joined rows back.  So all their groups are made before the first of them is
 * added to: what is made later would move others (undo.c).  Without undo they go to their groups as they come from a file, and
 * the task makes room in between: a row can be joined with any number.
 */
#include "postgres.h"

#include "exec/source_internal.h"
#include "miscadmin.h"

/* Has the row joined rows that count?  Raises its error. */
static bool
goes_on(ScEngine *engine, const ScBatchRow *row, bool cut)
{
	if (row->verdict == SC_ROW_EXCLUDED)
		return false;
	if (engine->time_attno > 0)
	{
		if (row->timeless)
		{
			engine->counters.null_event_times++;
			return false;
		}
		if (!sc_pane_span_has(&engine->span, row->time) && !sc_enter_pane(engine, row->time))
		{
			if (row->error != NULL)
				ReThrowError(row->error);
			sc_refuse_window();
		}
		/* a row that goes on was judged when it began */
		if (!engine->source->begun && !engine->def->stateless && sc_drop_if_late(engine, cut))
			return false;
	}
	else if (!engine->def->stateless && engine->current == NULL)
		(void) sc_enter_pane(engine, 0);
	if (row->error != NULL)
		ReThrowError(row->error);
	return true;
}

/* The next joined row that conditions on keys let pass, as the current row; false: there is none. */
static bool
next_row(ScEngine *engine, ExprState *quals)
{
	TupleTableSlot *slot;

	while ((slot = sc_source_next(engine)) != NULL)
	{
		/* a row can be joined with many */
		CHECK_FOR_INTERRUPTS();
		engine->tmpcontext->ecxt_scantuple = slot;
		if (quals == NULL || ExecQual(quals, engine->tmpcontext))
			return true;
	}
	return false;
}

/* Has memory grown too large to go on with the row?  The next one is taken when it is looked at. */
static bool
halts(ScEngine *engine)
{
	return engine->source->halt && engine->undo == NULL;
}

static void
add_rows(ScEngine *engine, int number)
{
	ExprState  *quals = sc_source_quals(engine);

	sc_source_seek(engine, number);
	if (engine->undo != NULL)
	{
		for (; next_row(engine, quals); sc_engine_end_row(engine))
			sc_open_groups(engine);
		sc_source_seek(engine, number);
	}
	while (!halts(engine) && next_row(engine, quals))
	{
		sc_add_to_groups(engine);
		sc_engine_end_row(engine);
	}
}

/* What was emitted isn't taken back, so with undo all are looked at before. */
static void
project_rows(ScEngine *engine, int number)
{
	sc_source_seek(engine, number);
	if (engine->undo != NULL)
	{
		for (; next_row(engine, NULL); sc_engine_end_row(engine))
			sc_stateless_joined(engine, false);
		sc_source_seek(engine, number);
	}
	for (; next_row(engine, NULL); sc_engine_end_row(engine))
		sc_stateless_joined(engine, true);
}

void
sc_engine_batch_halt(ScEngine *engine)
{
	if (engine->source != NULL)
		engine->source->halt = true;
}

bool
sc_engine_batch_take(ScEngine *engine, TupleTableSlot *slot, int number, bool cut)
{
	ScSourceRun *run = engine->source;
	const ScBatchRow *row = sc_source_row(engine, number);
	MemoryContext old = MemoryContextSwitchTo(engine->tmpcontext->ecxt_per_tuple_memory);

	engine->running = true;
	if (!run->begun)
		engine->counters.rows_in++;
	run->halt = false;
	if (engine->undo != NULL)
		sc_undo_begin_row(engine);
	engine->tmpcontext->ecxt_scantuple = slot;
	if (goes_on(engine, row, cut))
	{
		if (engine->def->stateless)
			project_rows(engine, number);
		else
			add_rows(engine, number);
	}
	/* the row's own end can ask for it, too */
	run->begun = halts(engine);
	MemoryContextSwitchTo(old);
	sc_engine_end_row(engine);
	if (engine->undo != NULL)
		sc_undo_end_row(engine);
	engine->running = false;
	return !run->begun;
}
