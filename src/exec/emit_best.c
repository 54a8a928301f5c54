/*-------------------------------------------------------------------------
 * emit_best.c
 *	  The result rows of groups that make several (best_rows.c), by emit.c.
 *
 * The result knows them by their numbers.  If rows of the stream can be taken back a group can have less of them than before:
 * how many the result may have is in the group's record (sc_group_shown), and the rest is deleted.  The changelog hasn't that
 * number, because at a checkpoint all has been emitted that the group's rows make.  Not if an error was a dead letter: then
 * the result may have any of them, as long as nothing of the group was emitted since it was read (decode.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"

/*
 * Deletes the rows of a group that makes several, from this number on to the last that the result may have.  The group
 * slot's keys are the group's, also those that are shown as its rows have them: they are equal.
 */
void
sc_best_rows_delete(ScEngine *engine, ScGroup *group, int64 first)
{
	const ScDefinition *def = engine->def;
	TupleTableSlot *slot = engine->group_slot;
	int64		last = *sc_group_shown(engine, group);

	for (int i = 0; i < def->nkeys; i++)
	{
		if (def->keys[i].shown == 0)
			continue;
		slot->tts_values[def->keys[i].shown - 1] = slot->tts_values[SC_WINDOW_COLUMNS + i];
		slot->tts_isnull[def->keys[i].shown - 1] = slot->tts_isnull[SC_WINDOW_COLUMNS + i];
	}
	for (int64 number = first; number <= last; number++)
	{
		slot->tts_values[SC_BEST_NUMBER(def) - 1] = Int64GetDatum(number);
		slot->tts_isnull[SC_BEST_NUMBER(def) - 1] = false;
		engine->options.emit_row(engine->options.emit_arg, SC_RESULT_DELETE, sc_emit_deletion_row(engine));
		engine->counters.result_rows++;
	}
	*sc_group_shown(engine, group) = Min(*sc_group_shown(engine, group), first - 1);
}

/*
 * The rows of a group that makes several.  What was emitted of a number is emitted again, or deleted.  There are less of
 * them than before only if rows were taken back.
 */
bool
sc_best_rows_emit(ScEngine *engine, ScGroup *group, Datum value, bool first)
{
	uint32		count;
	const struct ScBestState *state = sc_best_rows_open(value, &count);
	bool		result = false;

	/* others leave numbers out, or have them twice: the rest couldn't be told */
	Assert(engine->def->best->ranking == SC_ROW_NUMBER || first);
	/* if one of them fails none is emitted */
	for (uint32 i = 0; engine->undo != NULL && i < count; i++)
	{
		sc_best_rows_show(engine, state, i);
		if (engine->having == NULL || ExecQual(engine->having, engine->outcontext))
			sc_emit_check_row(engine, ExecProject(engine->projection));
	}
	/* whatever comes of it */
	if (engine->retracts)
		*sc_group_shown(engine, group) = Max(*sc_group_shown(engine, group), count);
	for (uint32 i = 0; i < count; i++)
	{
		sc_best_rows_show(engine, state, i);
		result |= sc_emit_shown(engine, group, first);
	}
	ExecClearTuple(engine->best_slot);
	if (engine->retracts)
	{
		if (!first)
			sc_best_rows_delete(engine, group, (int64) count + 1);
		*sc_group_shown(engine, group) = count;
	}
	return result;
}
