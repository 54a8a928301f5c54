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
}

/* The current row, of which some values aren't there if it was "cut".  The current context is the row's. */
void
sc_stateless_row(ScEngine *engine, bool cut)
{
	TupleTableSlot *row;

	if (engine->quals != NULL &&
		!(cut ? sc_where_of_cut(engine, engine->quals) : ExecQual(engine->quals, engine->tmpcontext)))
		return;
	if (cut)
		sc_check_cut_row(engine, engine->group_attnos);
	row = ExecProject(engine->projection);
	engine->options.emit_row(engine->options.emit_arg, SC_RESULT_INSERT, row);
	engine->counters.result_rows++;
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
